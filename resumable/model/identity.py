"""What makes a run the same run: one document, one digest.

The identity is the sha256 of a canonical JSON document. :func:`encode` turns a
value into plain JSON so that equal values, and only those, give equal text, in
any process and for any ``PYTHONHASHSEED``. :func:`differences` says in words how
two documents differ. Nothing here reads or writes a file.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import functools
import hashlib
import inspect
import json
import math
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import IdentityError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Raised when the same value would be encoded differently. Part of the document.
SCHEMA = 1
#: Lists and dicts of a document may lie in each other this deep: whoever compares
#: two of them recurses as deep.
DEEPEST = 200


def digest(document: dict[str, Any]) -> str:
    """sha256 of a document's canonical JSON, 64 hexadecimal digits.

    Raises
    ------
    IdentityError
        It is nested too deep.
    """
    check_depth(document)
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def canonical(document: Any) -> str:
    """Write plain JSON in its one canonical form: sorted, compact, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def check_depth(document: Any) -> None:
    """Refuse plain JSON that is nested deeper than what compares it can recurse.

    Raises
    ------
    IdentityError
    """
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


@functools.singledispatch
def encode(value: Any, where: str = "value") -> Any:
    """Turn a value into plain JSON, exactly.

    Lists and tuples are the same; NaN equals NaN; ``-0.0`` is not ``0.0`` and
    ``1`` is not ``1.0``; arrays count by dtype, shape and contents whatever their
    byte and memory order.

    Parameters
    ----------
    value : object
        None, bool, numbers, str, bytes, dates, paths, enums, numpy values, and
        lists, tuples, sets and dicts (with str keys) of them.
    where : str
        How to name the value in an error.

    Raises
    ------
    IdentityError
        A value of another type. It is never skipped.
    """
    msg = (
        f"{where} is a {type(value).__qualname__}, which cannot be part of a run's "
        "identity; use numbers, text, arrays, or lists and dicts of them"
    )
    raise IdentityError(msg)


@encode.register
def _(value: None, where: str = "value") -> Any:
    return value


@encode.register
def _(value: bool, where: str = "value") -> Any:
    return value


@encode.register
def _(value: str, where: str = "value") -> Any:
    return str(value)


@encode.register
def _(value: int, where: str = "value") -> Any:
    return int(value)


@encode.register
def _(value: float, where: str = "value") -> Any:
    value = float(value)
    return value if math.isfinite(value) else {"float": str(value).lstrip("+")}


@encode.register
def _(value: complex, where: str = "value") -> Any:
    return {"complex": [encode(value.real), encode(value.imag)]}


@encode.register
def _(value: bytes, where: str = "value") -> Any:
    return {"bytes": value.hex()}


@encode.register
def _(value: enum.Enum, where: str = "value") -> Any:
    name = f"{type(value).__qualname__}.{value.name}"
    return {"enum": [name, encode(value.value, where)]}


@encode.register
def _(value: PurePath, where: str = "value") -> Any:
    return {"path": value.as_posix()}


@encode.register(dt.date)
@encode.register(dt.time)
def _(value: Any, where: str = "value") -> Any:
    return {type(value).__name__: value.isoformat()}


@encode.register
def _(value: dt.timedelta, where: str = "value") -> Any:
    return {"timedelta": [value.days, value.seconds, value.microseconds]}


@encode.register
def _(value: np.generic, where: str = "value") -> Any:
    plain = value.item()
    if value.dtype.kind in "biufcSU" and not isinstance(plain, np.generic):
        return encode(plain, where)
    return _encode_array(np.asarray(value), where)


@encode.register
def _(value: np.dtype, where: str = "value") -> Any:
    return {"dtype": encode_dtype(value)}


@encode.register
def _(value: np.ndarray, where: str = "value") -> Any:
    # Without axes it is a number like any other.
    if value.ndim == 0 and not value.dtype.hasobject:
        return encode(value[()], where)
    return _encode_array(value, where)


@encode.register(list)
@encode.register(tuple)
def _(value: Any, where: str = "value") -> Any:
    return [encode(item, f"{where}[{i}]") for i, item in enumerate(value)]


@encode.register
def _(value: range, where: str = "value") -> Any:
    return {"range": [value.start, value.stop, value.step]}


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
    # Wrapped, so that a user's {"float": "nan"} is not taken for NaN.
    return {"dict": {str(k): encode(v, f"{where}[{k!r}]") for k, v in value.items()}}


def encode_dtype(dtype: np.dtype[Any]) -> Any:
    """Write a dtype as plain JSON: ``"<f8"``, or a list of named fields."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [encode_dtype(base), list(shape)]
    if dtype.names is None:
        return dtype.str
    fields = [[name, encode_dtype(dtype[name])] for name in dtype.names]
    if dtype.isalignedstruct or dtype != np.dtype([(n, dtype[n]) for n in dtype.names]):
        offsets = [dtype.fields[name][1] for name in dtype.names]  # type: ignore[index]
        return {"fields": fields, "offsets": offsets, "itemsize": dtype.itemsize}
    return fields


def decode_dtype(document: Any) -> np.dtype[Any]:
    """Read what :func:`encode_dtype` wrote, and nothing else that numpy would take.

    Raises
    ------
    TypeError, ValueError, KeyError
        It is no dtype, or one of Python objects.
    """
    if isinstance(document, str):
        # numpy would also read "O", a list with commas, or a repetition.
        if not re.fullmatch(r"[<>|][a-zA-NP-Z][0-9]{1,10}(\[\w{1,20}\])?", document):
            msg = f"{document!r} is not a dtype of fixed size"
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
    plain = np.ascontiguousarray(value.astype(_packed(value.dtype)))
    return {
        "array": {
            "dtype": encode_dtype(plain.dtype),
            "shape": list(value.shape),
            "sha256": hashlib.sha256(_one_nan(plain).tobytes()).hexdigest(),
        }
    }


def leaves(dtype: np.dtype[Any]) -> list[np.dtype[Any]]:
    """Return the plain dtypes inside a dtype."""
    if dtype.names is None:
        return [dtype.base]
    return [leaf for name in dtype.names for leaf in leaves(dtype[name].base)]


def _packed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype little-endian, and without padding: it can hold anything."""
    if dtype.subdtype is not None:
        return np.dtype((_packed(dtype.base), dtype.shape))
    if dtype.names is not None:
        return np.dtype([(name, _packed(dtype[name])) for name in dtype.names])
    return dtype.newbyteorder("<")


def _one_nan(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Give every NaN the same bits, whatever its sign and payload."""
    if array.dtype.names is not None:
        array = array.copy()
        for name in array.dtype.names:
            array[name] = _one_nan(array[name])
        return array
    if array.dtype.kind == "c":
        # Of a field the parts do not lie together, so the array is copied.
        array = np.ascontiguousarray(array)
        return _one_nan(array.view(array.real.dtype)).view(array.dtype)
    if array.dtype.kind == "f":
        return np.where(np.isnan(array), array.dtype.type(np.nan), array)
    return array


_MISSING = object()


def differences(old: Any, new: Any) -> list[str]:
    """Say in words how one identity document differs from another."""
    return [
        f"{path}: {brief(before)} there, {brief(after)} here"
        for path, before, after in _walk(old, new, "")
    ]


def _walk(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            inner = path if key == "dict" else f"{path}.{key}" if path else key
            yield from _walk(old.get(key, _MISSING), new.get(key, _MISSING), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _walk(before, after, f"{path}[{i}]")
    elif canonical_or_missing(old) != canonical_or_missing(new):
        yield path, old, new


def canonical_or_missing(value: Any) -> str:
    """Canonical text of a part of a document, or of its absence."""
    return "missing" if value is _MISSING else canonical(value)


def brief(value: Any) -> str:
    """Write a part of a document for people, cut where it is long."""
    if value is _MISSING:
        return "missing"
    text = canonical(value)
    if len(text) <= 60:
        return text
    # A text keeps its closing quote, so that it is seen to be cut.
    return f'{text[:20]}..."' if text.startswith('"') else f"{text[:57]}..."


def closed_over(cls: type, stop: type) -> dict[str, Any]:
    """Return what the methods of a class use from the function it was defined in.

    Parameters
    ----------
    cls, stop : type
        The class, and the base whose methods do not count any more.

    Raises
    ------
    IdentityError
        Something that cannot be part of an identity.
    """
    found: dict[str, Any] = {}
    for part in cls.__mro__[: cls.__mro__.index(stop)]:
        for attribute, value in vars(part).items():
            for name, cell in _cells(value):
                # The first is what super() needs; another is not filled yet.
                with contextlib.suppress(ValueError):
                    if name != "__class__":
                        where = f"{name!r}, used by {cls.__name__} from outside,"
                        encoded = encode(cell.cell_contents, where)
                        # Two methods may mean different things by one name.
                        before = found.setdefault(name, encoded)
                        if canonical(before) != canonical(encoded):
                            found[f"{part.__name__}.{attribute}.{name}"] = encoded
    return found


def _cells(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an attribute of a class takes from around it, by name."""
    methods: list[Any]
    if isinstance(value, property):
        methods = [value.fget, value.fset, value.fdel]
    elif isinstance(value, functools.cached_property):
        methods = [value.func]
    else:
        methods = [getattr(value, "__func__", value)]
    for method in methods:
        plain = inspect.unwrap(method)
        if inspect.isfunction(plain):
            yield from zip(
                plain.__code__.co_freevars, plain.__closure__ or (), strict=True
            )
