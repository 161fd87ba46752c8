"""Outputs of a run: numpy-like, read from the run file when indexed; their group."""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable import identity
from resumable.errors import (
    RunFileError,
    SourceError,
    hdf5_errors_as,
    near_miss,
    shown,
)
from resumable.model import filter_problem, load_filter
from resumable.runfile import RaggedRows, advice_anew, find_own, names_fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import DTypeLike

    from resumable.identity import Trace
    from resumable.model import Output
    from resumable.runfile import RunFile

    Array = np.ndarray[Any, np.dtype[Any]]

#: Rows that are read at once when results are iterated over.
_ITERATED_BYTES = 1 << 20


class _StoredOutput:
    """One output of a run, finished or not."""

    shape: tuple[int | None, ...]

    def __init__(self, run: RunFile, name: str) -> None:
        self._run = run
        self._output: Output = run.header.outputs[name]
        self.name = name
        self.dtype = self._output.dtype
        self.units = self._output.units
        self.labels = self._output.labels

    def plot(self) -> Any:
        """Draw its map as :meth:`Results.plot`; return a matplotlib Figure."""
        from resumable.results.results import Results

        return Results(self._run).plot(self.name)

    def as_source(self) -> tuple[str, str, str]:
        """Return file, dataset and what stands for it, for a Process that starts here.

        SourceError: the run is not finished, and what depends on it would change.
        """
        run, header = self._run, self._run.header
        run.check_finished("its outputs are used", SourceError)
        if not self._output.ragged:
            check_own(run, self.name)
        return str(run.path), f"{header.group}/{self.name}", run.rows_known_by()

    def __repr__(self) -> str:
        units = f", {shown(self.units)}" if self.units else ""
        return f"<{self.name}: {shape_text(self.shape)} {shown(self.dtype)}{units}>"


class ResultArray(_StoredOutput, np.lib.mixins.NDArrayOperatorsMixin):
    """One output of a run: numpy-like, read from disk when indexed.

    Positions that are not done read as the output's fill value. Indexing returns
    plain arrays, with a label the part that has it; ``np.asarray``, operators and
    functions of numpy read all of it. The shape is the map's, then the output's.
    """

    def __init__(self, run: RunFile, name: str) -> None:
        super().__init__(run, name)
        lead = run.header.map_shape if self._output.per == "position" else ()
        self.shape: tuple[int, ...] = (*lead, *self._output.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        if not self.shape:
            msg = "len() of a single value"
            raise TypeError(msg)
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str) and self.labels:
            if key not in self.labels:
                hint = near_miss(key, self.labels)
                labels = ", ".join(self.labels)
                msg = f"{self.name} has no label {key!r}{hint} (it has {labels})"
                raise KeyError(msg)
            return self[..., self.labels.index(key)]
        # The status first: what is marked then is there when it is read after that.
        if names_fields(key):
            hidden = self._hidden(())
            fill = np.asarray(self._output.fill_value, self.dtype)[key]
        else:
            hidden = self._hidden(key)
            fill = self._output.fill_value
        # What is read is new; a view of more than it is would keep all of that.
        values = np.array(self._run.array(self.name)[key], copy=None, order="C")
        if np.any(hidden):
            values = np.where(hidden, fill, values) if not values.shape else values
            if values.shape:
                values[hidden] = fill
        return values if values.shape else values.astype(self.dtype, copy=False)[()]

    def __iter__(self) -> Iterator[Any]:
        # In blocks, so that rows of a packed file are not unpacked one by one.
        row_bytes = max(1, self.dtype.itemsize * self.size // max(1, len(self)))
        step = max(1, _ITERATED_BYTES // row_bytes)
        for start in range(0, len(self), step):
            yield from self[start : start + step]

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> Array:
        if copy is False:
            msg = "reading results from disk makes a copy"
            raise ValueError(msg)
        return np.asarray(self[...], dtype)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any
    ) -> Any:
        if any(isinstance(one, ResultArray) for one in options.get("out", ())):
            msg = f"results are read-only; change a copy, results[{self.name!r}][...]"
            raise TypeError(msg)
        read = [one[...] if isinstance(one, ResultArray) else one for one in inputs]
        return getattr(ufunc, method)(*read, **options)

    def _hidden(self, key: Any) -> Any:
        """Return where the indexed values do not count; looks at no others."""
        if self._output.per == "run":
            return np.broadcast_to(np.asarray(not self._run.finished), self.shape)[key]
        return self._run.marks(self._output.shape)[key] != 1


class RaggedArray(_StoredOutput):
    """A ragged output of a run: any number of rows per position, read when indexed.

    ``[position]``, an index or a tuple on a map, reads the rows of one position, an
    array of shape ``(n, *shape)``. Slices, masks and index arrays read a list of such
    arrays, one for each position in C order. Positions that are not done have no rows.
    The shape is the map's, None for any number, then that of one row.
    """

    def __init__(self, run: RunFile, name: str) -> None:
        super().__init__(run, name)
        self._rows = RaggedRows(run, name)
        self.shape = (*run.header.map_shape, None, *self._output.shape)

    def __len__(self) -> int:
        return self._run.header.map_shape[0]

    def __getitem__(self, key: Any) -> Any:
        # As it is now: a longer run may have taken its place.
        with self._run.opened() as (_, header):
            lead = header.map_shape
        flat = np.arange(math.prod(lead)).reshape(lead)[key]
        found = self._rows.read(np.atleast_1d(flat).reshape(-1))
        return found if np.ndim(flat) else found[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    @property
    def count(self) -> Array:
        """Number of rows of every position, int64, in the map's shape."""
        return self._rows.counts().reshape(-1, *self._run.header.map_shape[1:])

    @property
    def values(self) -> Array:
        """All rows, one position after the other."""
        return self._output.joined(list(self._rows.in_order()))

    @property
    def index(self) -> Array:
        """Flat position of every row of :attr:`values`, int64."""
        counts = self._rows.counts()
        return np.repeat(np.arange(len(counts)), counts)

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> Array:
        msg = (
            f"{self.name} is ragged and so no array; .values are all rows, .index "
            "says to which position each belongs, .count how many each has"
        )
        raise TypeError(msg)

    @property
    def position_axes(self) -> tuple[int, ...]:
        """Axes that count positions, where this is a source."""
        return tuple(range(len(self._run.header.map_shape)))


#: What the numbers of :func:`states_of` mean, from 0 on.
STATES = ("pending", "done", "failed")


def states_of(run: RunFile, key: Any = ...) -> Array:
    """Return the state of the indexed positions of the map: 0, 1 or 2 of `STATES`."""
    # Where both are set, done counts.
    done = run.marks()[key] == 1
    failed = run.marks(failed=True)[key] == 1
    return np.where(done, 1, np.where(failed, 2, 0)).astype(np.int8)


def shape_text(shape: tuple[int | None, ...]) -> str:
    """Write a shape as Python does, any number of rows as ``any``."""
    lengths = ["any" if n is None else str(n) for n in shape]
    return f"({', '.join(lengths)}{',' * (len(shape) == 1)})"


# The results group, opened with h5py.


def open_group(run: RunFile) -> h5py.Group:
    """Open the results group; a link in its place is not followed."""
    for method in (run.header.packed or {}).values():
        # Without it the group can be looked at, if not all of it read.
        if not filter_problem(method):
            load_filter(method)
    with contextlib.ExitStack() as stack, _readable(run):
        file = stack.enter_context(h5py.File(run.path, "r"))
        found = find_own(file, run.header.group)
        if isinstance(found, h5py.Group):
            stack.pop_all()
            return found
    raise _not_ours(run, run.header.group)


def check_own(run: RunFile, name: str) -> None:
    """Refuse an output that HDF5 would read from another file."""
    with _opened(run) as file:
        if find_own(file, run.header.group, name) is None:
            raise _not_ours(run, name)


def text_in(run: RunFile, name: str) -> str:
    """Read a text that lies beside the tables of a run file; empty if there is none.

    RunFileError: there is a link in its place.
    """
    with _opened(run) as file:
        aside = find_own(file, run.header.aside[1:])
        if isinstance(aside, h5py.Group) and name not in aside:
            return ""
        found = find_own(file, run.header.aside[1:], name)
        if found is None:
            raise _not_ours(run, name)
        return bytes(found[()]).decode(errors="replace")


def trace_of(run: RunFile) -> Trace | None:
    """Read the trace of the code that a run was made with; None if there is none.

    RunFileError: it is damaged, or there is a link in its place.
    """
    text = text_in(run, "identity_code")
    try:
        return identity.Trace.from_json(json.loads(text)) if text else None
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise _not_ours(run, "identity_code") from error


@contextlib.contextmanager
def _opened(run: RunFile) -> Iterator[h5py.File]:
    with contextlib.closing(open_group(run).file) as file, _readable(run):
        yield file


def _readable(run: RunFile) -> AbstractContextManager[None]:
    what = f"{run.path} is damaged, HDF5 cannot read it"
    return hdf5_errors_as(RunFileError, what, f": {advice_anew()}")


def _not_ours(run: RunFile, name: str) -> RunFileError:
    msg = (
        f"{run.path} is damaged, its {name} is not what it was made with: "
        f"{advice_anew()}"
    )
    return RunFileError(msg)
