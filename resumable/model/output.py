"""What a computation returns: declared before it runs, checked at every position."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import DeclarationError, OutputError, near_miss, wrong
from resumable.model.arguments import check_choice, check_flag
from resumable.model.encoding import added_dtypes, encode_dtype, leaves
from resumable.model.values import fitted_array, gathered_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike

    Array = np.ndarray[Any, np.dtype[Any]]

#: What a run file stores per position of a ragged output: number of the ragged file
#: that holds the rows, offset of the first byte in it, number of rows.
ENTRY_DTYPE = np.dtype([("heap", "<u8"), ("offset", "<i8"), ("count", "<i8")])

#: Method -> HDF5's number of the filter, and its options.
FILTERS: dict[str, tuple[int, tuple[int, ...]]] = {
    "gzip": (1, (4,)),
    "lz4": (32004, (0,)),
    "lzf": (32000, ()),
    "zstd": (32015, (3,)),
}
#: These come with HDF5 or h5py, the others with hdf5plugin.
_BUILT_IN = frozenset({"gzip", "lzf"})
#: Datasets of every results group; an output cannot have their names.
RESERVED_NAMES = frozenset(
    {
        "completed_positions",
        "failed_positions",
        "failures",
        "sessions",
        "log_lines",
        "environments",
        "finished",
        "identity",
        "identity_code",
        "source",
        "source_text",
    }
)


@dataclasses.dataclass(frozen=True, slots=True, init=False)
class Output:
    """Declare one output of a :class:`~resumable.Process`.

    Parameters
    ----------
    shape : int or tuple of int, default ()
        Exact shape of the value at one position (of the whole value for
        ``per="run"``). A computed value of another shape is an error, never
        broadcast.
    dtype : dtype, default "f8"
        Any fixed-size dtype HDF5 can hold: numbers, bool, complex, ``"S10"``,
        compound. A computed value is converted only as numpy's ``same_kind``
        allows (float64 to float32, not float to int).
    units : str, optional
        For people and viewers, for example ``"nm"``. Not part of the identity.
    labels : sequence of str, optional
        Names along the last axis of `shape`. Not part of the identity.
    fill_value : scalar, optional
        Value of failed and pending positions; default NaN for floating and
        complex numbers, 0, False or empty for the rest.
    per : {"position", "run"}
        ``"run"`` for a summary that ``finish`` returns once.
    compression : {"gzip", "lzf", "zstd", "lz4"}, optional
        Pack the run file when the run is complete, and so compress these rows
        (``"zstd"`` and ``"lz4"`` need hdf5plugin). Not part of the identity.
    ragged : bool
        A position has any number of rows, 0 included, and `shape` is that of one
        row: the computation returns an array ``(n, *shape)``, or a list of rows.

    Raises
    ------
    DeclarationError
        A shape that is not exact, a dtype of variable size, labels that do not
        fit the shape, a compression that does not exist or is not installed, a
        ragged output per run or with a fill value.

    Examples
    --------
    >>> Output(shape=2, dtype="f4", labels=("height", "centre")).row_bytes
    8
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    units: str | None
    labels: tuple[str, ...] | None
    fill_value: Any
    per: str
    compression: str | None
    ragged: bool

    def __init__(
        self,
        shape: int | Sequence[int] = (),
        dtype: DTypeLike = "f8",
        *,
        units: str | None = None,
        labels: Sequence[str] | None = None,
        fill_value: Any = None,
        per: str = "position",
        compression: str | None = None,
        ragged: bool = False,
    ) -> None:
        put = functools.partial(object.__setattr__, self)
        try:
            lengths = (shape,) if np.ndim(shape) == 0 else shape
            exact = tuple(map(int, lengths))  # type: ignore[arg-type]
            if any(n != m for n, m in zip(exact, np.atleast_1d(shape), strict=True)):
                raise TypeError  # noqa: TRY301 - as where int() refuses
        except (TypeError, ValueError, OverflowError) as error:
            name = "the shape of an output"
            raise wrong(DeclarationError, name, shape, "whole numbers") from error
        if any(n < 1 for n in exact):
            msg = f"every length in an output's shape must be at least 1, not {exact}"
            raise DeclarationError(msg)
        put("shape", exact)
        fixed = _fixed_dtype(dtype)
        put("dtype", fixed)
        if units is not None and not isinstance(units, str):
            raise wrong(DeclarationError, "units", units, "a text")
        put("units", units)
        if labels is not None:
            if not isinstance(labels, (list, tuple)) or not all(
                isinstance(text, str) for text in labels
            ):
                raise wrong(DeclarationError, "labels", labels, "a sequence of texts")
            if not self.shape or len(labels) != self.shape[-1]:
                wanted = "the shape is ()"
                if self.shape:
                    wanted = f"the last axis has {self.shape[-1]}"
                msg = f"{len(labels)} labels were given, but {wanted}"
                raise DeclarationError(msg)
            labels = tuple(labels)
        put("labels", labels)
        if fill_value is None:
            empty = np.zeros((), fixed)
            _put_nan(empty)
            put("fill_value", empty[()])
        else:
            fill = fill_value
            if isinstance(fill, float) and fill.is_integer() and fixed.kind in "iu":
                fill = int(fill)
            try:
                fill = fitted_array("fill", fill, fixed, ()).astype(fixed)[()]
            except OutputError as error:
                msg = f"the fill value {fill!r} does not fit the dtype {fixed}"
                raise DeclarationError(msg) from error
            put("fill_value", fill)
        check_choice(DeclarationError, "per", per, ("position", "run"))
        put("per", per)
        if compression is not None:
            problem = filter_problem(compression)
            if per == "run":
                problem = (
                    "only outputs per position are compressed; leave compression out"
                )
            if problem:
                raise DeclarationError(problem)
        put("compression", compression)
        check_flag(DeclarationError, "ragged", ragged)
        if ragged and (per == "run" or fill_value is not None):
            what = "per='run'" if per == "run" else "a fill value"
            msg = (
                f"a ragged output cannot have {what}: it is per position, and a "
                "position that failed has no rows; leave it out"
            )
            raise DeclarationError(msg)
        put("ragged", bool(ragged))

    @property
    def stored(self) -> Output:
        """What a run file stores per position: values, or entries of ragged rows."""
        return _entry() if self.ragged else self

    @property
    def row_bytes(self) -> int:
        """Bytes of one value; of a ragged output, of one row."""
        return math.prod(self.shape) * self.dtype.itemsize

    def identity(self) -> dict[str, Any]:
        """Return what of it is part of the identity of a run, as plain JSON."""
        plain = {
            "dtype": encode_dtype(self.dtype),
            "per": self.per,
            "shape": list(self.shape),
        }
        return {**plain, "ragged": True} if self.ragged else plain

    def empty(self, rows: int) -> Array:
        """Return an array for `rows` values, not initialised.

        Of a ragged output an array of objects: the rows of each position.
        """
        if self.ragged:
            return np.empty(rows, object)
        return np.empty((rows, *self.shape), self.dtype)

    def joined(self, parts: Sequence[Array] | Array) -> Array:
        """Join arrays of rows of this output into one array."""
        rows = np.empty((sum(map(len, parts)), *self.shape), self.dtype)
        # Into an array of this dtype: numpy would choose the machine's byte order, and
        # no padding.
        return np.concatenate(parts, out=rows) if len(parts) else rows

    def filled(self, rows: int) -> Array:
        """Return an array of `rows` fill values; of a ragged output, of no rows."""
        if self.ragged:
            none = np.empty((0, *self.shape), self.dtype)
            return gathered_rows([none] * rows)
        return np.full((rows, *self.shape), self.fill_value, self.dtype)


@functools.cache
def _entry() -> Output:
    return Output((), ENTRY_DTYPE)


def _fixed_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        fixed = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        msg = f"{dtype!r} is not a dtype ({error})"
        raise DeclarationError(msg) from error
    kinds = {leaf.kind for leaf in leaves(fixed)}
    if fixed.hasobject or fixed.itemsize == 0:
        msg = (
            f"the dtype {fixed} has no fixed size; use numbers, a compound of them, "
            "or text of a fixed length such as 'S20'"
        )
    elif added := added_dtypes(fixed):
        msg = (
            f"HDF5 cannot hold the dtype {added[0]}, which is not one of numpy; use "
            "'f4', which holds all values of bfloat16 and float8"
        )
    elif fixed.subdtype is not None:
        msg = f"give {fixed} as shape={fixed.shape} and dtype={fixed.base}"
    elif "U" in kinds:
        msg = (
            f"HDF5 cannot hold the dtype {fixed}; use fixed-length bytes such as 'S20'"
        )
    elif kinds & {"M", "m"}:
        msg = (
            f"HDF5 cannot hold the dtype {fixed}; store it as an integer, for example "
            "'i8' nanoseconds"
        )
    else:
        return fixed
    raise DeclarationError(msg)


def _put_nan(array: Array) -> None:
    if array.dtype.names is not None:
        for name in array.dtype.names:
            _put_nan(array[name])
    elif array.dtype.kind in "fc":
        array[...] = np.nan


def declared_outputs(value: Any, where: str) -> dict[str, Output]:
    """Return a declaration of outputs as a plain dict.

    DeclarationError for what is no mapping of names to outputs, has none per position,
    or a reserved name.
    """
    try:
        outputs = dict(value)
    except (TypeError, ValueError) as error:
        msg = f"{where} must be a dict of name: Output(...), not {value!r}"
        raise DeclarationError(msg) from error
    for name, output in outputs.items():
        if not isinstance(name, str) or not name.isidentifier():
            msg = f"the output name {name!r} in {where} must be a Python name"
        elif name in RESERVED_NAMES:
            msg = f"the output name {name!r} in {where} is taken by the run file itself"
        elif not isinstance(output, Output):
            msg = f"the output {name!r} in {where} must be an Output, not {output!r}"
        else:
            continue
        raise DeclarationError(msg)
    if not any(output.per == "position" for output in outputs.values()):
        msg = f"{where} declares no output per position; declare at least one"
        raise DeclarationError(msg)
    return outputs


def filter_problem(method: Any, *, reading: bool = False) -> str:
    """Return why a method of compression cannot be used here; empty when it can.

    For `reading` no other method is advised.

    >>> filter_problem("gzp")
    "there is no compression 'gzp'; did you mean 'gzip'? (there are gzip, lz4, lzf, \
zstd)"
    """
    if method is None:
        return ""
    if not isinstance(method, str) or method not in FILTERS:
        there = f"{near_miss(str(method), FILTERS)} (there are {', '.join(FILTERS)})"
        return f"there is no compression {method!r}{there}"
    if method not in _BUILT_IN and importlib.util.find_spec("hdf5plugin") is None:
        return (
            f"the compression {method!r} needs the package hdf5plugin, which is not "
            "installed; pip install hdf5plugin (or resumable-hdf5[filters])"
        ) + ("" if reading else ", or use 'gzip'")
    return ""


def load_filter(method: str | None) -> None:
    """Make a method known to HDF5; :func:`filter_problem` must have found none."""
    if method is not None and method not in _BUILT_IN:
        importlib.import_module("hdf5plugin")
