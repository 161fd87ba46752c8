"""An open source: its geometry, and its rows by position."""

from __future__ import annotations

import contextlib
import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import PlanError, RunFileError, SourceError
from resumable.model import Geometry, PositionSet, encode_dtype, gathered, runs
from resumable.runfile import RaggedRows, RunFile
from resumable.source.contiguous import contiguous
from resumable.source.fingerprint import (
    DIGEST_BYTES,
    PART_BYTES,
    SAMPLED_BYTES,
    digest,
    slabs,
)
from resumable.source.geometry import check_geometry, geometry_of
from resumable.source.live import FileState, file_state, read_unchanged
from resumable.source.opening import readable
from resumable.source.reference import open_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resumable.source.reference import SourceRef

    Array = np.ndarray[Any, np.dtype[Any]]

#: Pending rows closer than this are read in one go, with what lies between.
_GAP_BYTES = 64 << 10
#: Most that is read in one go only to pick rows from it.
_SEGMENT_BYTES = 4 << 20
#: A worker tries again for so long to read what is being written; then the driver
#: waits, which can be stopped.
_PATIENCE_S = 2.0


class Reader:
    """An open source: its geometry, its fingerprint, its rows.

    Parameters
    ----------
    ref : SourceRef
        What to open. A context manager; close it when done.
    """

    def __init__(self, ref: SourceRef) -> None:
        self.ref = ref
        self._begin()

    def _begin(self) -> None:
        ref = self.ref
        self._open = contextlib.ExitStack()
        self._sign = file_state(ref.path) if ref.live else FileState()
        self._contiguous = None
        if ref.path:
            with contextlib.ExitStack() as stack:
                self.dataset = stack.enter_context(
                    open_dataset(ref.path, ref.dataset, live=ref.live)
                )
                if not ref.live:
                    with readable(str(ref)):
                        self._contiguous = contiguous(self.dataset)
                if self._contiguous is not None:
                    stack.callback(self._contiguous.close)
                self._open = stack.pop_all()
            self.dtype: np.dtype[Any] = self.dataset.dtype
        else:
            self.dataset = None
            self.dtype = np.dtype(np.int64)
        try:
            self.geometry = geometry_of(self.dataset, self.shape, ref.position_axes)
            check_geometry(self.geometry, ref, self.dataset)
        except SourceError:
            self.close()
            raise
        # Positions one behind the other, each in one piece.
        self._in_order = self._contiguous if self.geometry.position_first else None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._open.close()

    @property
    def has_data(self) -> bool:
        """False when positions are only counted."""
        return self.dataset is not None

    @property
    def reads_ahead(self) -> bool:
        """Rows are read without HDF5: a thread may do it while others compute."""
        return self._in_order is not None

    @property
    def held_bytes(self) -> int:
        """Memory that one position of a block takes: twice that where it is gathered.

        It lies across the dataset then, and is put in order in a copy.
        """
        return self.geometry.row_bytes * (1 if self.geometry.position_first else 2)

    @property
    def was_closed(self) -> bool:
        """Somebody else has closed the file."""
        return self.dataset is not None and not self.dataset

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the dataset, or the part of it that counts."""
        if self.dataset is None:
            return (self.ref.count,)
        whole: tuple[int, ...] = self.dataset.shape
        axis, length = self.ref.position_axes[0], self.ref.length
        if not length:
            return whole
        if length > whole[axis]:
            msg = f"{self.ref} has become shorter: {whole[axis]:,} of {length:,}"
            raise SourceError(msg)
        return (*whole[:axis], length, *whole[axis + 1 :])

    def empty(self, rows: int) -> Array:
        """Return an array for the data of `rows` positions, not initialised."""
        return np.empty((rows, *self.geometry.spectrum_shape), self.dtype)

    def read(self, start: int, members: Array, out: Array) -> None:
        """Read the data of the members of a span of positions.

        Parameters
        ----------
        start : int
            First position of the span.
        members : ndarray of bool
            Which positions of the span to read.
        out : ndarray, shape (number of members, *spectrum_shape)
            Where to, in order.

        Raises
        ------
        SourceError
            HDF5 cannot read them: the source is damaged, or its disk.
        """
        if self.ref.live:
            read_unchanged(
                self.ref.path,
                lambda sign: self._read_now(sign, start, members, out),
                _PATIENCE_S,
            )
        else:
            self._read(start, members, out)

    def _read_now(
        self, sign: FileState, start: int, members: Array, out: Array
    ) -> None:
        """Read from the file as it is now, opened anew if it has changed."""
        if not self._sign.holds(sign):
            self.close()
            geometry = self.geometry
            self._begin()
            if self.geometry != geometry:
                msg = f"{self.ref} has another shape or storage than it had before"
                raise SourceError(msg)
        self._read(start, members, out)

    def _read(self, start: int, members: Array, out: Array) -> None:
        stop = start + len(members)
        with readable(f"{self.ref}, somewhere in positions {start} to {stop - 1},"):
            if len(out) == len(members):
                self.read_span(start, stop, out)
            else:
                self._gather(start, members, out)

    def _gather(self, start: int, members: Array, out: Array) -> None:
        filled = 0
        for first, last in self._segments(members):
            inside = members[first:last]
            count = int(np.count_nonzero(inside))
            if count == last - first:
                self.read_span(
                    start + first, start + last, out[filled : filled + count]
                )
            else:
                part = out[filled : filled + count]
                try:
                    rows = self.empty(last - first)
                    self.read_span(start + first, start + last, rows)
                    part[...] = rows[inside]
                except OSError:
                    # What lies between may be what cannot be read.
                    self._pick(start + first, inside, part)
            filled += count

    def _pick(self, start: int, members: Array, out: Array) -> None:
        """Read the members and nothing between them."""
        filled = 0
        for first, last in runs(members).tolist():
            rows = out[filled : filled + last - first]
            self.read_span(start + first, start + last, rows)
            filled += last - first

    def _segments(self, members: Array) -> Iterator[tuple[int, int]]:
        """Join runs of members that lie close, so that each is one read."""
        row_bytes = max(1, self.geometry.row_bytes)
        gap = max(_GAP_BYTES // row_bytes, self.geometry.quantum, 1)
        longest = max(_SEGMENT_BYTES // row_bytes, self.geometry.quantum, 1)
        bounds = runs(members)
        apart = np.flatnonzero(bounds[1:, 0] - bounds[:-1, 1] > gap) + 1
        firsts = bounds[np.r_[0, apart], 0]
        lasts = bounds[np.r_[apart - 1, len(bounds) - 1], 1]
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            for begin in range(first, last, longest):
                yield begin, min(begin + longest, last)

    def read_span(self, start: int, stop: int, out: Array) -> None:
        """Read the data of the positions `start` to `stop` into `out`."""
        if self.dataset is None:
            out[...] = np.arange(start, stop)
            return
        if self._in_order is not None:
            self._in_order.read(start * self.geometry.row_bytes, out)
            return
        axes = self.ref.position_axes
        filled = 0
        for box in slabs(start, stop, self.geometry.map_shape):
            lengths = [s.stop - s.start for s in box]
            count = math.prod(lengths)
            rows = out[filled : filled + count]
            selection: list[slice] = [slice(None)] * self.dataset.ndim
            for axis, part in zip(axes, box, strict=True):
                selection[axis] = part
            if self.geometry.position_first:
                shaped = rows.reshape(*lengths, *self.geometry.spectrum_shape)
                self.dataset.read_direct(shaped, tuple(selection))
            else:
                part = self.dataset[tuple(selection)]
                order = (*axes, *(a for a in range(part.ndim) if a not in axes))
                rows[...] = part.transpose(order).reshape(rows.shape)
            filled += count

    def fingerprint(
        self, *, full: bool = False, kind: str | None = None
    ) -> dict[str, Any]:
        """Document that tells this source from a changed one, as plain JSON.

        Parameters
        ----------
        full : bool
            Digest all contents, not samples of what is beyond 64 MB.
        kind : {"fixed", "growing", "awaited"}, optional
            ``"growing"``: without the length, as long as it can grow; ``"awaited"``:
            without contents either, where ``ready`` says which of them are there.
            Default by whether it can grow.

        Notes
        -----
        Reads at most 64 MB unless `full`, and 16 MB of what is larger. An output of
        another run is known by that run's identity and not read. Where the first
        position axis can grow, its length is left out and the digest covers the
        first position only; the rest is compared with what the run file recorded
        (:meth:`contents`).
        """
        if self.dataset is None:
            return {"positions": self.ref.count}
        document: dict[str, Any] = {
            "dataset": self.ref.dataset,
            "dtype": encode_dtype(self.dtype),
            "shape": list(self.shape),
        }
        if self.ref.upstream:
            if self.ref.grows:
                document["shape"][self.ref.position_axes[0]] = None
            return {**document, "run": self.ref.upstream}
        if kind is None:
            kind = "growing" if self.growable else "fixed"
        if kind == "fixed":
            return {**document, "contents": self.contents(full=full)}
        document["shape"][self.ref.position_axes[0]] = None
        if kind == "awaited":
            return {**document, "contents": None}
        return {**document, "first": self.contents(1)}

    def check_alone(self) -> None:
        """Refuse a dataset whose data lie in other files than the one that is watched.

        Raises
        ------
        SourceError
        """
        dataset = self.dataset
        if dataset is None:
            return
        same = Path(dataset.file.filename).resolve() == Path(self.ref.path).resolve()
        if dataset.is_virtual or dataset.external or not same:
            msg = (
                f"{self.ref} has its data in other files, and it could not be told "
                "when they are written; it can be computed without follow="
            )
            raise PlanError(msg)

    @property
    def growable(self) -> bool:
        """The first position axis can be made longer by the program that writes."""
        if self.dataset is None or self.ref.upstream:
            return False
        axis = self.ref.position_axes[0]
        most = self.dataset.maxshape[axis]
        return most is None or most > self.shape[axis]

    @property
    def may_have_grown(self) -> bool:
        """It has a length that it may have grown to, and cannot grow any more."""
        if self.dataset is None or self.ref.upstream or self.growable:
            return False
        return self.dataset.chunks is not None

    def contents_at(self, positions: PositionSet, *, full: bool = False) -> str:
        """sha256 over the rows of some positions, whole up to 64 MB, samples beyond."""
        count = len(positions)
        row_bytes = max(1, self.geometry.row_bytes)
        ranks = np.arange(count)
        if not full and count * row_bytes > DIGEST_BYTES:
            most = max(1, SAMPLED_BYTES // row_bytes)
            ranks = np.unique(np.linspace(0, count - 1, most).astype(np.int64))
        result = hashlib.sha256()
        step = max(1, PART_BYTES // row_bytes)
        for begin in range(0, len(ranks), step):
            flat = np.array(positions.members_at(ranks[begin : begin + step]), np.int64)
            first, last = int(flat[0]), int(flat[-1]) + 1
            members = np.zeros(last - first, bool)
            members[flat - first] = True
            rows = self.empty(len(flat))
            self._read(first, members, rows)
            result.update(flat.astype("<i8").tobytes())
            result.update(rows.tobytes())
        return result.hexdigest()

    def contents(self, length: int | None = None, *, full: bool = False) -> str:
        """sha256 over the contents, the first position axis cut to `length`."""
        box = list(self.shape)
        if length is not None:
            box[self.ref.position_axes[0]] = length
        prefix_counts = length is not None or self.growable or bool(self.ref.length)
        with readable(str(self.ref)):
            return digest(
                self.dataset,
                self._contiguous,
                tuple(box),
                stored=not prefix_counts,
                full=full,
            )


class RaggedReader(Reader):
    """An open source whose positions have any number of rows: an output of a run.

    Rows are handed out as an array of objects, an array for each position.
    """

    def __init__(self, ref: SourceRef) -> None:
        self.ref = ref
        self._open = contextlib.ExitStack()
        self.dataset = self._contiguous = self._in_order = None
        try:
            run = RunFile(Path(ref.path))
        except RunFileError as error:
            raise SourceError(str(error)) from error
        if run.header.identity != ref.upstream or ref.name not in run.header.ragged:
            msg = f"{ref.path} is another run by now; take the results anew"
            raise SourceError(msg)
        self._rows = RaggedRows(run, ref.name)
        output = self._rows.output
        self.dtype = output.dtype
        shape: tuple[Any, ...] = (None, *output.shape)
        taken = int(self._rows.counts().sum()) * output.row_bytes
        lead = run.header.map_shape
        row_bytes = max(output.row_bytes, math.ceil(taken / run.size))
        self.geometry = Geometry(
            lead, shape, row_bytes, (1,) * len(lead), row_bytes, False, True
        )

    @property
    def has_data(self) -> bool:
        """Always."""
        return True

    def empty(self, rows: int) -> Array:
        """Return an array for the data of `rows` positions, not initialised."""
        return np.empty(rows, object)

    def read(self, start: int, members: Array, out: Array) -> None:
        """Read the data of the members of a span of positions.

        Raises
        ------
        SourceError
            The run is damaged.
        """
        try:
            out[...] = gathered(self._rows.read(start + np.flatnonzero(members)))
        except RunFileError as error:
            raise SourceError(str(error)) from error

    def fingerprint(
        self, *, full: bool = False, kind: str | None = None
    ) -> dict[str, Any]:
        """Document that tells this source from another one, as plain JSON."""
        lead = [None if self.ref.grows else n for n in self.geometry.map_shape[:1]]
        shape = [*lead, *self.geometry.map_shape[1:], *self.geometry.spectrum_shape]
        return {
            "dataset": self.ref.dataset,
            "dtype": encode_dtype(self.dtype),
            "shape": shape,
            "run": self.ref.upstream,
        }


def open_reader(ref: SourceRef) -> Reader:
    """Open a source; close it when done."""
    return RaggedReader(ref) if ref.ragged else Reader(ref)
