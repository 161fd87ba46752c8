"""An open source: its geometry, its fingerprint, and its rows by position."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from resumable.errors import (
    HDF5_ERRORS,
    PlanError,
    RunFileError,
    SourceError,
    hdf5_errors_as,
    option,
)
from resumable.model import Geometry, PositionSet, encode_dtype, gathered_rows, spans_of
from resumable.runfile import RaggedRows, RunFile
from resumable.source.files import ORDINARY_DRIVERS
from resumable.source.fingerprint import (
    DIGEST_BYTES,
    PART_BYTES,
    SAMPLED_BYTES,
    data_only,
    digests_at,
    digests_of,
    is_stored_as_read,
    pieces_of,
    plain_parts,
    slabs,
)
from resumable.source.live import (
    FileState,
    read_unchanged,
    stamp_of,
    state_of_open,
)
from resumable.source.opening import check_size, open_dataset
from resumable.source.places import Column, load_hdf5plugin
from resumable.source.reference import normal_axes
from resumable.source.stored import is_large, stored_digests, stored_parts
from resumable.system import disk

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resumable.source.reference import SourceRef

    Array = np.ndarray[Any, np.dtype[Any]]

#: Pending rows closer than this are read in one go, with what lies between.
_GAP_BYTES = 64 << 10
#: Most bytes that are read in one go to use a part of them.
_SPAN_BYTES = 4 << 20
#: For so long a worker tries to read a file that is being written; after that the
#: driver waits, which can be stopped.
_PATIENCE_S = 2.0
#: Begins a digest of chunks as they are stored. One without is of the values, or of
#: whole chunks.
_STORED = "stored:"


class Reader(contextlib.AbstractContextManager["Reader"]):
    """An open source: a context manager that closes its file."""

    #: The open dataset; None where positions are only counted.
    dataset: Any
    #: Of one element.
    dtype: np.dtype[Any]
    #: Shape of the dataset, or of the part of it that counts.
    shape: tuple[Any, ...]
    #: Rows are read without HDF5: a thread may read while others compute.
    reads_ahead: bool
    #: The first position axis can be made longer by the program that writes.
    growable = False

    def __init__(self, ref: SourceRef) -> None:
        self.ref = ref
        #: False where positions are only counted.
        self.has_data = ref.has_data
        self._open()

    def _open(self) -> None:
        ref = self.ref
        state, stamp = FileState(), stamp_of(ref.path) if ref.live else ()
        self._resources = contextlib.ExitStack()
        self._contiguous = None
        with contextlib.ExitStack() as stack:
            if not ref.path:
                self.dataset, self.dtype = None, np.dtype(np.int64)
                shape: tuple[int, ...] = (ref.count,)
                geometry = Geometry.of(shape, ref.position_axes, 0)
            else:
                dataset = stack.enter_context(
                    open_dataset(ref.path, ref.dataset, live=ref.live)
                )
                self.dataset, self.dtype = dataset, dtype_of_rows(dataset)
                shape = dataset.shape
                axes = normal_axes(ref, shape)
                if axes != ref.position_axes:
                    self.ref = ref = dataclasses.replace(ref, position_axes=axes)
                if ref.live:
                    state = state_of_open(dataset.file, ref.path, stamp)
                else:
                    with hdf5_errors_as(SourceError, f"{ref} cannot be read"):
                        self._contiguous = contiguous(dataset)
                if self._contiguous is not None:
                    fd, place, _ = self._contiguous
                    stack.callback(disk.close_if_same, fd, place)
                if ref.length:
                    there = shape[axes[0]]
                    if ref.length > there:
                        msg = f"{ref} has become shorter: {there:,} of {ref.length:,}"
                        raise SourceError(msg)
                    shape = (*shape[: axes[0]], ref.length, *shape[axes[0] + 1 :])
                most = dataset.maxshape[axes[0]]
                longer = most is None or most > shape[axes[0]]
                self.growable = longer and not ref.upstream
                geometry = Geometry.of(
                    shape,
                    axes,
                    self.dtype.itemsize,
                    dataset.chunks,
                    indivisible=dataset.id.get_create_plist().get_nfilters() > 0,
                )
            check_size(geometry, ref, self.dataset)
            self._resources = stack.pop_all()
        # Known only now: where opening fails, the next read has to open it again.
        self._state, self.geometry, self.shape = state, geometry, shape
        # Rows lie one behind the other, each in one piece.
        self._in_order = self._contiguous if geometry.position_first else None
        self.reads_ahead = self._in_order is not None

    def __exit__(self, *exc: object) -> None:
        self._resources.close()

    def close(self) -> None:
        """Close the file."""
        self._resources.close()

    def empty(self, rows: int) -> Array:
        """Return an array for the data of `rows` positions, not initialised."""
        return np.empty((rows, *self.geometry.spectrum_shape), self.dtype)

    def read(self, start: int, members: Array, out: Array) -> None:
        """Read the data of the members of a span that begins at position `start`.

        Into `out`, shape (number of members, *spectrum_shape). SourceError where HDF5
        cannot read them: the source is damaged, or its disk.
        """
        if self.ref.live:
            read_unchanged(
                self.ref.path,
                lambda state: self._read(start, members, out, state),
                _PATIENCE_S,
            )
        else:
            self._read(start, members, out)

    def _read(
        self, start: int, members: Array, out: Array, state: FileState | None = None
    ) -> None:
        """Read from the file, opened again where its state is another by now."""
        if state is not None and not self._state.holds(state):
            self.close()
            geometry = self.geometry
            self._open()
            if self.geometry != geometry:
                # The next read has to open it again, and to compare again.
                self._state, self.geometry = FileState(), geometry
                msg = f"{self.ref} has another shape or storage than it had before"
                raise SourceError(msg)
        stop = start + len(members)
        where = f"{self.ref}, somewhere in positions {start} to {stop - 1},"
        with hdf5_errors_as(SourceError, f"{where} cannot be read"):
            try:
                self._read_members(start, members, out)
            except HDF5_ERRORS:
                # A part that was written after the source was opened may need a filter.
                if "hdf5plugin" in sys.modules or not load_hdf5plugin():
                    raise
                self._read_members(start, members, out)

    def _read_members(self, start: int, members: Array, out: Array) -> None:
        if len(out) == len(members):
            self.read_span(start, start + len(members), out)
        else:
            self._read_scattered(start + np.flatnonzero(members), out)

    def _read_scattered(self, positions: Array, out: Array) -> None:
        """Read positions, ascending; those that lie close in one go."""
        row_bytes = max(1, self.geometry.row_bytes)
        gap = max(_GAP_BYTES // row_bytes, self.geometry.quantum)
        step = max(_SPAN_BYTES // row_bytes, self.geometry.quantum, 1)
        for first, last, start, stop in spans_of(positions, gap=gap, step=step):
            part, wanted = out[first:last], positions[first:last]
            if stop - start == last - first:
                self.read_span(start, stop, part)
                continue
            try:
                rows = self.empty(stop - start)
                self.read_span(start, stop, rows)
                part[...] = rows[wanted - start]
            except OSError:
                # What lies between may be what cannot be read.
                for i, j, begin, end in spans_of(wanted, gap=0):
                    self.read_span(begin, end, part[i:j])

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
        self,
        *,
        full: bool = False,
        kind: str | None = None,
        like: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the document that tells this source from a changed one, as plain JSON.

        Reads at most 64 MB unless `full`, and 16 MB of what is larger. An output of
        another run is known by that run's identity and not read. Where the source can
        grow (`kind` ``"growing"``), the length is left out and the digest covers the
        first position only; the rest is compared with what the run file recorded
        (:meth:`contents`). Where ``ready`` says which contents are there
        (``"awaited"``), they are left out, too. `like` is a document to compare with:
        the digest is of its kind.
        """
        if not self.has_data:
            return {"positions": self.ref.count}
        # As it was before float8 arrived as float32: so runs of then are found. A
        # ragged output is no single dataset.
        dtype = self.dtype if self.dataset is None else self.dataset.dtype
        document: dict[str, Any] = {
            "dataset": self.ref.dataset,
            "dtype": encode_dtype(dtype),
            "shape": list(self.shape),
        }
        if self.ref.upstream:
            if self.ref.grows:
                document["shape"][self.ref.position_axes[0]] = None
            return {**document, "run": self.ref.upstream}
        if kind is None:
            kind = "growing" if self.growable else "fixed"
        if kind == "fixed":
            written = None if like is None else str(like.get("contents"))
            return {**document, "contents": self.contents(full=full, like=written)}
        document["shape"][self.ref.position_axes[0]] = None
        if kind == "awaited":
            return {**document, "contents": None}
        chunks, written = self.dataset.chunks or (), None
        if like is not None:
            written = str(like.get("first"))
        elif chunks and chunks[self.ref.position_axes[0]] > 1:
            written = ""  # of its values: its chunk has the positions that come next
        return {**document, "first": self.contents(1, like=written)}

    def check_alone(self) -> None:
        """Check that the data lie in the file that is watched, not in other files."""
        dataset = self.dataset
        if dataset is None:
            return
        same = Path(dataset.file.filename).resolve() == Path(self.ref.path).resolve()
        if dataset.is_virtual or dataset.external or not same:
            msg = (
                f"{self.ref} has its data in other files, and it could not be told "
                f"when they are written; it can be computed without {option('follow')}"
            )
            raise PlanError(msg)

    def contents_at(self, positions: PositionSet, *, full: bool = False) -> str:
        """sha256 over the rows of some positions, whole up to 64 MB, samples beyond."""
        count = len(positions)
        row_bytes = max(1, self.geometry.row_bytes)
        ordinals = np.arange(count)
        if not full and count * row_bytes > DIGEST_BYTES:
            most = max(1, SAMPLED_BYTES // row_bytes)
            ordinals = np.unique(np.linspace(0, count - 1, most).astype(np.int64))
        result = hashlib.sha256()
        step = max(1, PART_BYTES // row_bytes)
        with hdf5_errors_as(SourceError, f"{self.ref} cannot be read"):
            for begin in range(0, len(ordinals), step):
                some = positions.members_at(ordinals[begin : begin + step])
                flat = np.array(some, np.int64)
                rows = self.empty(len(flat))
                self._read_scattered(flat, rows)
                result.update(flat.astype("<i8").tobytes())
                result.update(data_only(rows).tobytes())
        return result.hexdigest()

    def contents(
        self, length: int | None = None, *, full: bool = False, like: str | None = None
    ) -> str:
        """sha256 over the contents, the first position axis cut to `length`.

        Whole up to 64 MB or if `full`, 16 MB in 64 places beyond. The result is the
        digest of the digests of parts, so that threads can digest parts. `like` is a
        digest to compare with: the result is of its kind, of which there were others
        before.
        """
        dataset, cut, axis = self.dataset, list(self.shape), self.ref.position_axes[0]
        if length is not None:
            cut[axis] = length
        box = tuple(cut)
        digests: Iterable[bytes]
        begin = ""
        partial = length is not None or self.growable or box != dataset.shape
        packed = self.geometry.indivisible and not isinstance(dataset, Column)
        with hdf5_errors_as(SourceError, f"{self.ref} cannot be read"):
            # In a box that cuts another axis than the first, bytes are not contiguous.
            if self._contiguous is not None and box[1:] == dataset.shape[1:]:
                pieces = pieces_of(box, self.dtype.itemsize, full)
                digests = digests_at(self._contiguous, pieces, self.dtype)
            elif packed and (
                partial or (not full and is_large(dataset))
                if like is None
                else is_of_pieces(like)
            ):
                # As it is stored, which is faster than to decompress it: compressed
                # anew it counts as changed.
                begin = _STORED
                digests = stored_digests(dataset, axis, cut[axis], full)
            elif packed and not partial:
                digests = digests_of(stored_parts(dataset, full))
            else:
                digests = digests_of(plain_parts(dataset, box, full))
            result = hashlib.sha256()
            for digest in digests:
                result.update(digest)
        return begin + result.hexdigest()


def is_of_pieces(digest: str) -> bool:
    """Return whether a digest of contents is of chunks as they lie, joined."""
    return digest.startswith(_STORED)


class Contiguous(NamedTuple):
    """The bytes of a dataset that is stored in one piece.

    Where its elements are stored as they are in memory, reading them from the file
    directly is faster than with HDF5 and takes no lock: threads can read at the same
    time.
    """

    fd: int
    """Open for reading; to be closed by :func:`disk.close_if_same`."""
    place: tuple[int, int]
    """Which file it is of."""
    offset: int
    """First byte in that file."""

    def read(self, start: int, out: Array) -> None:
        """Fill a C-contiguous array with the bytes from `start` of the dataset on."""
        if not disk.is_same_file(self.fd, self.place):
            raise OSError(errno.EBADF, disk.DESCRIPTOR_CLOSED)
        view = memoryview(out.reshape(-1).view("u1").data)
        if not disk.read_into(self.fd, view, self.offset + start):
            msg = "the file ends before its data do"
            raise OSError(msg)


def contiguous(dataset: h5py.Dataset) -> Contiguous | None:
    """Return the bytes of a dataset, None where only HDF5 can read them.

    Only HDF5 can read data that lie in chunks or in other files, are not all written,
    or have another type in memory; and those of a file that this process has open for
    writing, because HDF5 may still hold changes in its buffers.
    """
    properties = dataset.id.get_create_plist()
    plain = (
        properties.get_layout() == h5py.h5d.CONTIGUOUS
        and not properties.get_external_count()
        and dataset.file.driver in ORDINARY_DRIVERS
        and not dataset.dtype.hasobject
        and is_stored_as_read(dataset)
        # It is 0 where nothing was written.
        and dataset.id.get_storage_size() == dataset.nbytes
    )
    if not plain:
        return None
    # The file that HDF5 has open: its name may be that of another file by now.
    fd = dataset.file.id.get_vfd_handle()
    own = disk.duplicate_to_read(fd)
    if own is None:
        return None
    return Contiguous(own, disk.file_id(fd), dataset.id.get_offset())


def dtype_of_rows(dataset: Any) -> np.dtype[Any]:
    """Return the dtype in which data arrive: numbers of 8 bits as float32, not float16.

    h5py takes the smallest type of numpy that holds them, in which sums and products
    are as coarse.
    """
    dtype: np.dtype[Any] = dataset.dtype
    plain = isinstance(dataset, h5py.Dataset)  # and no column of a table
    if plain and dtype == np.float16 and dataset.id.get_type().get_size() == 1:
        return np.dtype(np.float32)
    return dtype


class RaggedReader(Reader):
    """An open source whose positions have any number of rows: an output of a run.

    Rows are handed out as an array of objects, an array for each position.
    """

    def __init__(self, ref: SourceRef) -> None:
        self.ref, self.has_data = ref, True
        self._resources = contextlib.ExitStack()
        self.dataset, self.reads_ahead = None, False
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
        row_bytes = max(output.row_bytes, math.ceil(taken / run.header.size))
        self.geometry = Geometry(
            lead, shape, row_bytes, (1,) * len(lead), row_bytes, False, True
        )
        self.shape = (*lead, *shape)

    def empty(self, rows: int) -> Array:
        """Return an array for the rows of so many positions, an array for each."""
        return np.empty(rows, object)

    def read(self, start: int, members: Array, out: Array) -> None:
        """Read the rows of the members of a span; SourceError if the run is damaged."""
        try:
            out[...] = gathered_rows(self._rows.read(start + np.flatnonzero(members)))
        except RunFileError as error:
            raise SourceError(str(error)) from error


class ArrayReader(Reader):
    """An array in memory as an open source; positions come first in its rows."""

    def __init__(self, ref: SourceRef) -> None:
        self.ref, self.has_data = ref, True
        self._resources = contextlib.ExitStack()
        self.dataset, self.reads_ahead = None, False
        axes, array = ref.position_axes, np.asarray(ref.array)
        lead = tuple(range(len(axes)))
        rows = np.moveaxis(array, axes, lead)[: ref.length or None]
        self.dtype, self.shape = array.dtype, array.shape
        self.geometry = Geometry.of(rows.shape, lead, array.dtype.itemsize)
        check_size(self.geometry, dataclasses.replace(ref, live=False), None)
        self._rows = rows.reshape(-1, *self.geometry.spectrum_shape)

    def read(self, start: int, members: Array, out: Array) -> None:
        """Copy the data of the members of a span."""
        out[...] = self._rows[start : start + len(members)][members]

    def fingerprint(
        self,
        *,
        full: bool = False,
        kind: str | None = None,
        like: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return what stands for the contents, all of them."""
        document: dict[str, Any] = json.loads(self.ref.contents)
        return document


def open_reader(ref: SourceRef) -> Reader:
    """Open a source; close it when done."""
    if ref.array is not None:
        return ArrayReader(ref)
    return RaggedReader(ref) if ref.ragged else Reader(ref)
