"""Encoded values, turned back into values of Python."""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable.errors import IdentityError
from resumable.model import identity

if TYPE_CHECKING:
    from collections.abc import Iterable


def decode(document: Any, where: str = "value", known: Iterable[Any] = ()) -> Any:
    """Turn what :func:`resumable.model.identity.encode` wrote back into a value.

    Parameters
    ----------
    document : plain JSON
        The encoded value.
    where : str
        How to name the value in an error.
    known : iterable
        Values it may be: one that is encoded like this is returned itself. So an
        array or an enum that is a default, or one of the choices, comes back.

    Raises
    ------
    IdentityError
        Only a digest or a name was written (of an array, an enum), or it makes no
        sense.

    Notes
    -----
    What the encoding does not tell apart comes back as one of both: a tuple as a
    list, a numpy number as one of Python, a frozenset as a set.
    """
    text = identity.canonical(document)
    for value in known:
        with contextlib.suppress(IdentityError):
            if identity.canonical(identity.encode(value)) == text:
                return value
    try:
        return _decoded(document, where)
    except IdentityError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        msg = f"{where} was written as {_brief(text)}, which makes no sense ({error})"
        raise IdentityError(msg) from error


def _decoded(document: Any, where: str) -> Any:
    if isinstance(document, list):
        return [_decoded(item, where) for item in document]
    if not isinstance(document, dict):
        return document
    ((kind, inner),) = document.items()
    if kind in _NOT_READ_BACK:
        msg = f"{where} is {_NOT_READ_BACK[kind]}, or give it in Python each time"
        raise IdentityError(msg)
    if kind == "dict":
        return {key: _decoded(value, where) for key, value in inner.items()}
    if kind in _SCALARS:
        return _SCALARS[kind](inner)
    parts = _decoded(inner, where)
    return _COMPOSED[kind](parts)


#: What is written as less than it is, and how it comes back all the same.
_NOT_READ_BACK = {
    "array": "an array, and only a digest of it is written down; make it the default",
    "enum": "an enum, and only its name is written down; declare the parameter as "
    "param.Selector(objects=list(THE_ENUM))",
}
#: From what stands in the document.
_SCALARS: dict[str, Any] = {
    "float": float,
    "bytes": bytes.fromhex,
    "path": Path,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "datetime": dt.datetime.fromisoformat,
    "dtype": identity.decode_dtype,
}
#: From a list of parts that are decoded already.
_COMPOSED: dict[str, Any] = {
    "complex": lambda parts: complex(*parts),
    "timedelta": lambda parts: dt.timedelta(*parts),
    "range": lambda parts: range(*parts),
    "slice": lambda parts: slice(*parts),
    "set": lambda parts: {_hashable(part) for part in parts},
}


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _brief(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
