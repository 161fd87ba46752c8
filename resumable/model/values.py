"""Values that computations return: checked against the outputs, put into rows."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import OutputError, near_miss, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from resumable.model.output import Output

    Array = np.ndarray[Any, np.dtype[Any]]


def by_name(value: Any, outputs: Mapping[str, Output]) -> Mapping[str, Any]:
    """Return what a computation returned as a mapping with the names of the outputs.

    OutputError where a name was not declared, or a declared name is missing.
    """
    if not isinstance(value, dict):
        if len(outputs) == 1:
            return {next(iter(outputs)): value}
        msg = (
            f"{len(outputs)} outputs are declared ({', '.join(outputs)}), so the "
            f"computation must return a dict of them, not a {type(value).__name__}"
        )
        raise OutputError(msg)
    for name in value:
        if name not in outputs:
            msg = f"the computation returned {name!r}, which is not declared"
            there = f" (declared: {', '.join(outputs)})"
            raise OutputError(msg + near_miss(str(name), outputs) + there)
    for name in outputs:
        if name not in value:
            msg = f"the computation did not return the declared output {name!r}"
            raise OutputError(msg)
    return value


def fitted_array(
    name: str,
    value: Any,
    dtype: np.dtype[Any],
    shape: Any,
    which: str = "is declared with",
) -> Array:
    """Return a value as an array of this shape that the dtype can hold.

    `which` says in an error where the shape is from. A length of None in `shape` is any
    length. OutputError for another shape, or a dtype that is not of the same kind.
    """
    if value is None:
        msg = f"output {name!r}: the computation returned None; is there a return?"
        raise OutputError(msg)
    try:
        array = _as_array(value, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        msg = (
            f"output {name!r}: {shortened(repr(value))} cannot be stored as {dtype} "
            f"({error})"
        )
        raise OutputError(msg) from error
    if array.ndim != len(shape) or any(
        n not in (None, m) for n, m in zip(shape, array.shape, strict=True)
    ):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        msg = (
            f"output {name!r} {which} shape "
            f"({wanted}{',' * (len(shape) == 1)}), but the computation returned "
            f"shape {array.shape}"
        )
        raise OutputError(msg)
    if not _same_kind(array.dtype, dtype):
        msg = (
            f"output {name!r} is declared with dtype {dtype}, but the computation "
            f"returned {array.dtype}, which does not fit without a loss; "
            "convert it in the computation or declare another dtype"
        )
        raise OutputError(msg)
    return array


def ragged_rows(name: str, value: Any, output: Output) -> Array:
    """Return the rows of one position as a new array of shape ``(n, *shape)``.

    OutputError where the value is no array or list of rows as declared.
    """
    if value is None or np.isscalar(value):
        shape = ", ".join(map(str, ("n", *output.shape)))
        msg = (
            f"output {name!r} is ragged, but the computation returned "
            f"{shortened(repr(value))}; return an array of shape "
            f"({shape}{',' * (not output.shape)}), or a list of rows, which may be "
            "empty"
        )
        raise OutputError(msg)
    none = np.empty((0, *output.shape), output.dtype)
    if isinstance(value, (list, tuple)) and not value:
        return none
    if isinstance(value, np.ndarray) and value.shape in ((0,), none.shape):
        # np.array([]) is of float64: what has no rows says nothing of them.
        return none
    rows = fitted_array(name, value, output.dtype, (None, *output.shape))
    # A copy: the computation may use the same array for the next position.
    return np.array(rows, output.dtype, order="C")


def block_rows(name: str, value: Any, output: Output, count: int) -> Array:
    """Return the rows that a block computation returned for `count` positions.

    OutputError where they are not as declared.
    """
    if not output.ragged:
        which = f"needs a row for each of {count:,} positions,"
        rows = fitted_array(name, value, output.dtype, (count, *output.shape), which)
        return np.ascontiguousarray(rows, output.dtype)
    objects = isinstance(value, np.ndarray) and value.dtype.kind == "O"
    if not (objects or isinstance(value, (list, tuple))) or len(value) != count:
        found = (
            f"{len(value)} items"
            if hasattr(value, "__len__")
            else shortened(repr(value))
        )
        msg = (
            f"output {name!r} is ragged: a block computation returns a list with the "
            f"rows of each of the {count} positions, not {found} in "
            f"{type(value).__name__}"
        )
        raise OutputError(msg)
    return gathered_rows([ragged_rows(name, item, output) for item in value])


def _as_array(value: Any, dtype: np.dtype[Any]) -> Array:
    """Return a value as an array; integers and tuples of Python with this dtype."""
    if isinstance(value, np.ndarray) and hasattr(value, "mask"):
        msg = "it has a mask: fill it, for example with value.filled(np.nan)"
        raise TypeError(msg)
    given = isinstance(value, (np.ndarray, np.generic))
    if dtype.names is not None and not given:
        return _as_compound(value, dtype)
    array = np.asarray(value)
    if array.dtype.kind == "U" and dtype.kind == "S":
        return np.char.encode(array, "utf-8")
    if given or not array.size:
        return array
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        # Integers of Python have no width: they fit if their values do.
        info = np.iinfo(dtype)
        if not (info.min <= array.min() and array.max() <= info.max):
            msg = f"out of the range {info.min} to {info.max} of {dtype}"
            raise OverflowError(msg)
        return array.astype(dtype)
    return array


def _as_compound(value: Any, dtype: np.dtype[Any]) -> Array:
    """Return tuples as compounds, each field checked as an output of its own."""
    if isinstance(value, list):
        return np.array([_as_compound(item, dtype) for item in value], dtype)
    names = dtype.names or ()
    if not isinstance(value, tuple) or len(value) != len(names):
        msg = f"it is not a tuple of {', '.join(names)}"
        raise TypeError(msg)
    compound = np.zeros((), dtype)
    for name, item in zip(names, value, strict=True):
        field = dtype[name]
        try:
            compound[name] = fitted_array(name, item, field.base, field.shape)
        except OutputError as error:
            raise TypeError(str(error)) from error
    return compound


def _same_kind(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Return whether nothing but precision is lost, as numpy's ``same_kind``.

    Stricter than numpy: text is never cut, numbers do not become text, and fields must
    have the same names.
    """
    if given == wanted:
        return True
    if wanted.names is not None or given.names is not None:
        return given.names == wanted.names and all(
            given[n].shape == wanted[n].shape
            and _same_kind(given[n].base, wanted[n].base)
            for n in wanted.names or ()
        )
    if wanted.kind == "S":
        return given.kind == "S" and given.itemsize <= wanted.itemsize
    return np.can_cast(given, wanted, "same_kind")


def row_placer(name: str, output: Output, rows: Array) -> Callable[[int, Any], None]:
    """Return the function that checks one value and puts it into its row.

    The function runs once per position. The common values, a scalar of a type seen
    before or an array of exactly the declared shape and dtype, are stored without
    making another array.
    """
    shape, dtype = output.shape, output.dtype
    if output.ragged:

        def place_rows(index: int, value: Any) -> None:
            rows[index] = ragged_rows(name, value, output)

        return place_rows

    if shape or dtype.names is not None:

        def place_array(index: int, value: Any) -> None:
            if (
                type(value) is not np.ndarray
                or value.shape != shape
                or value.dtype is not dtype
            ):
                value = fitted_array(name, value, dtype, shape)
            rows[index] = value

        return place_array

    # Integers of Python and text are checked each time: the next may not fit.
    passing: set[type] = set()
    cacheable = (np.bool_, np.number, float, bool)

    def place_scalar(index: int, value: Any) -> None:
        if type(value) in passing:
            rows[index] = value
            return
        rows[index] = fitted_array(name, value, dtype, ())
        if isinstance(value, cacheable):
            passing.add(type(value))

    return place_scalar


def divided_rows(rows: Array, counts: Array) -> list[Array]:
    """Divide rows into an array for each position; much faster than numpy.split."""
    ends = np.cumsum(counts).tolist()
    return [rows[start:stop] for start, stop in itertools.pairwise([0, *ends])]


def gathered_rows(parts: Sequence[Array]) -> Array:
    """Return arrays, the rows of a position each, as an array of objects."""
    found = np.empty(len(parts), object)
    for index, part in enumerate(parts):
        found[index] = part
    return found
