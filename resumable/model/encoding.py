"""Values of parameters as plain JSON, and back; documents of it, and their digests.

:func:`encode` writes equal values, and only those, as equal JSON, in any process and
for any ``PYTHONHASHSEED``. :func:`decode` reads what it wrote. The identity of a run is
the sha256 of a document in canonical form.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import functools
import hashlib
import json
import math
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import IdentityError, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

#: Part of the document: a higher number where equal values are encoded differently.
SCHEMA = 2
#: That of runs made before helpers counted.
EARLIER_SCHEMA = 1
#: Elements of an array that are digested at once.
_AT_ONCE = 1 << 16
#: Most levels of lists and dicts within each other: comparing documents recurses as
#: deep.
DEEPEST = 200


def canonical(document: Any) -> str:
    """Write plain JSON in its one canonical form: sorted, compact, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


@functools.singledispatch
def encode(value: Any, where: str = "value") -> Any:
    """Turn a value into plain JSON, exactly.

    Takes None, bool, numbers, str, bytes, dates, paths, enums, numpy values, and lists,
    tuples, sets and dicts (with str keys) of them; other types raise an IdentityError
    that names the value as `where`. Lists and tuples are the same; NaN equals NaN;
    ``-0.0`` is not ``0.0`` and ``1`` is not ``1.0``; arrays count by dtype, shape and
    contents whatever their byte and memory order.
    """
    msg = (
        f"{where} is a {type(value).__qualname__}, which cannot be part of a run's "
        "identity; use numbers, text, arrays, or lists and dicts of them"
    )
    raise IdentityError(msg)


def _encode_float(value: float) -> Any:
    value = float(value)
    return value if math.isfinite(value) else {"float": str(value).lstrip("+")}


def _encode_time(value: dt.date | dt.time) -> Any:
    return {type(value).__name__: value.isoformat()}


#: How values without other values in them are written.
_WRITTEN: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: value,
    bool: bool,
    str: str,
    int: int,
    float: _encode_float,
    complex: lambda v: {"complex": [_encode_float(v.real), _encode_float(v.imag)]},
    bytes: lambda value: {"bytes": value.hex()},
    PurePath: lambda value: {"path": value.as_posix()},
    dt.date: _encode_time,
    dt.time: _encode_time,
    dt.timedelta: lambda v: {"timedelta": [v.days, v.seconds, v.microseconds]},
    range: lambda value: {"range": [value.start, value.stop, value.step]},
    np.dtype: lambda value: {"dtype": encode_dtype(value)},
}
for _kind, _write in _WRITTEN.items():
    encode.register(_kind, lambda value, where="value", write=_write: write(value))


@encode.register
def _(value: enum.Enum, where: str = "value") -> Any:
    name = f"{type(value).__qualname__}.{value.name}"
    return {"enum": [name, encode(value.value, where)]}


@encode.register
def _(value: np.generic, where: str = "value") -> Any:
    plain = value.item()
    if value.dtype.kind in "biufcSU" and not isinstance(plain, np.generic):
        return encode(plain, where)
    return _encode_array(np.asarray(value), where)


@encode.register
def _(value: np.ndarray, where: str = "value") -> Any:
    # An array without axes is written as the number that it holds.
    if value.ndim == 0 and not value.dtype.hasobject:
        return encode(np.asarray(value)[()], where)
    return _encode_array(value, where)


@encode.register(list)
@encode.register(tuple)
def _(value: Any, where: str = "value") -> Any:
    return [encode(item, f"{where}[{i}]") for i, item in enumerate(value)]


@encode.register
def _(value: slice, where: str = "value") -> Any:
    return {"slice": encode([value.start, value.stop, value.step], where)}


@encode.register(set)
@encode.register(frozenset)
def _(value: Any, where: str = "value") -> Any:
    return {"set": sorted((encode(item, where) for item in value), key=canonical)}


@encode.register(dict)
def _(value: dict[Any, Any], where: str = "value") -> Any:
    for key in value:
        if not isinstance(key, str):
            msg = f"{where} has the key {key!r}; keys must be text to be identified"
            raise IdentityError(msg)
    # Under a key of its own, so that a user's {"float": "nan"} is not taken for NaN.
    return {"dict": {str(k): encode(v, f"{where}[{k!r}]") for k, v in value.items()}}


def encode_dtype(dtype: np.dtype[Any]) -> Any:
    """Write a dtype as plain JSON: ``"<f8"``, or a list of named fields."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [encode_dtype(base), list(shape)]
    if dtype.names is None:
        # numpy has "<V2" for bfloat16, and one text for several kinds of float8.
        return dtype.name if added_dtypes(dtype) else dtype.str
    fields = [[name, encode_dtype(dtype[name])] for name in dtype.names]
    if dtype.isalignedstruct or dtype != np.dtype([(n, dtype[n]) for n in dtype.names]):
        offsets = [dtype.fields[name][1] for name in dtype.names]  # type: ignore[index]
        return {"fields": fields, "offsets": offsets, "itemsize": dtype.itemsize}
    return fields


def decode_dtype(document: Any) -> np.dtype[Any]:
    """Read what :func:`encode_dtype` wrote; all else is a Type-, Value- or KeyError."""
    if isinstance(document, str):
        if re.fullmatch(r"bfloat16|float[468]_\w{1,20}|u?int[1-7]", document):
            return _of_ml_dtypes(document)
        # numpy would also take "O", a list with commas, or a repetition.
        if not re.fullmatch(r"[<>|][a-zA-NP-Z][0-9]{1,10}(\[\w{1,20}\])?", document):
            msg = f"{document!r} is not a dtype of numpy, of fixed size"
            raise ValueError(msg)
        return np.dtype(document)
    if isinstance(document, dict):
        names = [name for name, _ in document["fields"]]
        return np.dtype(
            {
                "names": names,
                "formats": [decode_dtype(item) for _, item in document["fields"]],
                "offsets": document["offsets"],
                "itemsize": document["itemsize"],
            }
        )
    if len(document) == 2 and all(isinstance(n, int) for n in document[1]):
        return np.dtype((decode_dtype(document[0]), tuple(document[1])))
    return np.dtype([(name, decode_dtype(item)) for name, item in document])


def _encode_array(value: np.ndarray[Any, Any], where: str) -> Any:
    if value.dtype.hasobject:
        msg = f"{where} is an array of Python objects; give it a numeric dtype"
        raise IdentityError(msg)
    if any(leaf.char in "gG" for leaf in leaves(value.dtype)):
        msg = (
            f"{where} is a long double, which is another on other machines; use float64"
        )
        raise IdentityError(msg)
    plain, digest = _without_padding(value.dtype), hashlib.sha256()
    flat = np.ascontiguousarray(value).reshape(-1)
    # In parts, which need no memory besides a large array.
    for start in range(0, len(flat), _AT_ONCE):
        part = np.ascontiguousarray(flat[start : start + _AT_ONCE].astype(plain))
        digest.update(_one_nan(part).tobytes())
    return {
        "array": {
            "dtype": encode_dtype(plain),
            "shape": list(value.shape),
            "sha256": digest.hexdigest(),
        }
    }


def leaves(dtype: np.dtype[Any]) -> list[np.dtype[Any]]:
    """Return the plain dtypes inside a dtype."""
    if dtype.names is None:
        return [dtype.base]
    return [leaf for name in dtype.names for leaf in leaves(dtype[name].base)]


def added_dtypes(dtype: np.dtype[Any]) -> list[np.dtype[Any]]:
    """Return the dtypes inside a dtype that are not numpy's own, such as bfloat16."""
    return [leaf for leaf in leaves(dtype) if leaf.type.__module__ != "numpy"]


def _of_ml_dtypes(name: str) -> np.dtype[Any]:
    """Return a dtype of ml_dtypes; ValueError: it is not installed, or has none."""
    try:
        import ml_dtypes
    except ImportError as error:
        msg = f"the dtype {name!r} is one of the package ml_dtypes: install it"
        raise ValueError(msg) from error
    if not hasattr(ml_dtypes, name):
        msg = f"{name!r} is no dtype of ml_dtypes {ml_dtypes.__version__}"
        raise ValueError(msg)
    found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return found


def _without_padding(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype little-endian and without padding, which may hold any bytes."""
    if dtype.subdtype is not None:
        return np.dtype((_without_padding(dtype.base), dtype.shape))
    if dtype.names is not None:
        return np.dtype([(name, _without_padding(dtype[name])) for name in dtype.names])
    return dtype.newbyteorder("<")


def _one_nan(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Give every NaN the same bits, whatever its sign and payload."""
    if array.dtype.names is not None:
        array = array.copy()
        for name in array.dtype.names:
            array[name] = _one_nan(array[name])
        return array
    if array.dtype.kind == "c":
        # A field of a compound is no contiguous array.
        array = np.ascontiguousarray(array)
        return _one_nan(array.view(array.real.dtype)).view(array.dtype)
    if array.dtype.kind == "f":
        return np.where(np.isnan(array), array.dtype.type(np.nan), array)
    return array


def decode(
    document: Any,
    where: str = "value",
    known: Iterable[Any] = (),
    written: Callable[[Any], Any] | None = None,
    arrays: Mapping[str, Any] | None = None,
) -> Any:
    """Turn what was written of a value back into it.

    Values that are encoded alike are decoded alike. Of an array or another object only
    a digest is written, of an enum or a function a name: they are found among the
    values in `known`, which `written` encodes, arrays by what was written of them in
    `arrays`, or are an IdentityError that names the value as `where`.
    """
    text = canonical(document)
    for value in known:
        with contextlib.suppress(IdentityError):
            if canonical((written or encode)(value)) == text:
                return value
    try:
        return _decoded(document, where, arrays or {})
    except IdentityError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        msg = (
            f"{where} was written as {shortened(text)}, which makes no sense ({error})"
        )
        raise IdentityError(msg) from error


def _decoded(document: Any, where: str, arrays: Mapping[str, Any]) -> Any:
    if isinstance(document, list):
        return [_decoded(item, where, arrays) for item in document]
    if not isinstance(document, dict):
        return document
    ((kind, inner),) = document.items()
    if kind in ("array", "object") and arrays:
        found = arrays.get(canonical(document))
        if found is not None:
            return found
    if kind in _NOT_READ_BACK:
        msg = f"{where} is {_NOT_READ_BACK[kind]}, or give it in Python each time"
        raise IdentityError(msg)
    if kind == "dict" and isinstance(inner, dict):  # of schema 1
        return {key: _decoded(v, where, arrays) for key, v in inner.items()}
    if kind in _SCALARS:
        return _SCALARS[kind](inner)
    parts = _decoded(inner, where, arrays)
    return _COMPOSED[kind](parts)


#: What is not written in full, and how it can be read back all the same.
_NOT_READ_BACK = {
    "array": "an array of which only a digest is written down, as a run file keeps up "
    "to 1,000 arrays of 16 MB together, of dtypes that numpy has and in lists not more "
    "than 10 deep; make it the default",
    "enum": "an enum, and only its name is written down; declare the parameter as "
    "param.Selector(objects=list(THE_ENUM))",
    "file": "a file, and only a digest of it is written down; make it the default",
    **dict.fromkeys(
        (
            "object",
            "quantity",
            "objects",
            "code",
            "function",
            "library",
            "partial",
            "method",
            "wrapper",
            "module",
            "singledispatch",
            "vectorize",
            "compiled",
        ),
        "an object of which only a digest is written down; make it the default",
    ),
}
#: Kind -> value, from what stands in the document.
_SCALARS: dict[str, Any] = {
    "float": float,
    "integer": lambda text: int(text, 16),
    "bytes": bytes.fromhex,
    "path": Path,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "datetime": dt.datetime.fromisoformat,
    "dtype": decode_dtype,
}
#: Kind -> value, from a list of decoded parts.
_COMPOSED: dict[str, Any] = {
    "complex": lambda parts: complex(*parts),
    "timedelta": lambda parts: dt.timedelta(*parts),
    "range": lambda parts: range(*parts),
    "slice": lambda parts: slice(*parts),
    "set": lambda parts: {_hashable(part) for part in parts},
    "frozenset": lambda parts: frozenset(map(_hashable, parts)),
    "tuple": tuple,
    "dict": dict,
    "numpy": lambda parts: _numpy_scalar(*parts),
}


def _numpy_scalar(dtype: Any, value: Any) -> Any:
    found = decode_dtype(dtype)
    if isinstance(value, bytes):
        return np.frombuffer(value, found)[0]
    return found.type(value)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def document_digest(document: dict[str, Any]) -> str:
    """Return the sha256 of canonical JSON; IdentityError if it is nested too deep."""
    check_depth(document)
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def check_depth(document: Any) -> None:
    """Check that plain JSON is not nested too deep to be compared."""
    level = [document]
    for _ in range(DEEPEST):
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    msg = f"lists and dicts lie in each other more than {DEEPEST} deep; flatten them"
    raise IdentityError(msg)


_MISSING = object()


def differences(old: Any, new: Any) -> list[str]:
    """Say in words how one identity document differs from another."""
    return [
        f"{path}: {brief(before)} there, {brief(after)} here"
        for path, before, after in _walk(old, new, "")
    ]


def _walk(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        if _named(old) and _named(new):
            old, new = dict(old["dict"]), dict(new["dict"])
            if list(old) != list(new) and old.keys() == new.keys():
                yield path, list(old), list(new)
        for key in sorted({*old, *new}):
            inner = path if key == "dict" else f"{path}.{key}" if path else key
            yield from _walk(old.get(key, _MISSING), new.get(key, _MISSING), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _walk(before, after, f"{path}[{i}]")
    elif _MISSING in (old, new) or canonical(old) != canonical(new):
        yield path, old, new


def _named(document: dict[str, Any]) -> bool:
    """Return whether this is a dict of a user with texts for keys."""
    pairs = document.get("dict")
    return isinstance(pairs, list) and all(isinstance(key, str) for key, _ in pairs)


def brief(value: Any) -> str:
    """Return a part of a document as a short text for people."""
    if value is _MISSING:
        return "missing"
    text = canonical(value)
    # The first digits of a digest are enough.
    return shortened(text, 24 if len(text) > 60 and text.startswith('"') else 60)
