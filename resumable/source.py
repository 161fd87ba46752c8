"""Where the data of the positions come from, read only.

A :class:`SourceRef` says where (it can be pickled), a :class:`Reader` has it open
and reads rows by position. Source files are opened with mode ``"r"``, always.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import importlib
import math
import operator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from resumable.errors import SourceError, near_miss
from resumable.identity import encode_dtype
from resumable.plan import Geometry
from resumable.positions import runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Array = np.ndarray[Any, np.dtype[Any]]

#: Contents are digested whole up to this size, and in samples beyond.
DIGEST_BYTES = 64 << 20
_SAMPLES = 64
#: Parts, of 1 MB mostly, that wait for their digest: bounds the memory.
_DIGESTS_AT_ONCE = 8
#: Pending rows closer than this are read in one go, with what lies between.
_GAP_BYTES = 64 << 10
#: Most that is read in one go only to pick rows from it.
_SEGMENT_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class SourceRef:
    """Where a source is and which of its axes count positions."""

    path: str
    """HDF5 file as the user typed it; empty for a source without data."""
    dataset: str
    """Absolute name in the file; empty for a source without data."""
    position_axes: tuple[int, ...]
    """Axes that count positions, in the user's order."""
    count: int = 0
    """Positions of a source without data."""
    upstream: str = ""
    """Identity of the run this is an output of, or empty."""

    @property
    def name(self) -> str:
        """Last part of the dataset's name, for file and group names."""
        return self.dataset.rsplit("/", 1)[-1] or "positions"

    def __str__(self) -> str:
        return (
            f"{self.path}::{self.dataset}" if self.path else f"{self.count} positions"
        )


def refer(
    source: Any, position_axes: int | tuple[int, ...] = 0, *, same_file: str = ""
) -> SourceRef:
    """Turn what a user calls a source into a reference, checking that it is there.

    Parameters
    ----------
    source : str, h5py.Dataset, output of Results, or int
        ``"file.h5::/dataset"``; an open dataset (mode ``"r"``); an output of
        another run; a number of positions without data.
    position_axes : int or tuple of int
        Axes that count positions.
    same_file : str, optional
        The file ``"::/dataset"`` means.

    Raises
    ------
    SourceError
        It does not exist, is not HDF5, is open for writing, has no positions, or
        its dtype has no fixed size.
    """
    axes = (
        (position_axes,)
        if isinstance(position_axes, (int, np.integer))
        else position_axes
    )
    if isinstance(source, (int, np.integer)) and not isinstance(source, bool):
        if source < 1:
            msg = f"a source without data needs at least 1 position, not {source}"
            raise SourceError(msg)
        if axes != (0,):
            msg = "a source without data has one axis; leave position_axes at 0"
            raise SourceError(msg)
        return SourceRef("", "", (0,), count=int(source))
    upstream = ""
    if isinstance(source, h5py.Dataset):
        path, dataset = _of_open_dataset(source)
    elif hasattr(source, "as_source"):
        path, dataset, upstream = source.as_source()
    elif isinstance(source, (str, Path)):
        path, dataset = _of_text(str(source), same_file)
    else:
        msg = (
            f"a source is 'file.h5::/dataset', an open h5py.Dataset, an output of "
            f"Results, or a number of positions, not a {type(source).__name__}"
        )
        raise SourceError(msg)
    with open_file(path) as file:
        found = _dataset(file, path, dataset)
        _check_usable(found, path)
        normal = _normal_axes(axes, found.shape, f"{path}::{dataset}")
        # The name as typed: behind a link to another file it would be a name there.
        return SourceRef(path, dataset, normal, upstream=upstream)


def _of_open_dataset(dataset: h5py.Dataset) -> tuple[str, str]:
    if not dataset:
        msg = "the dataset's file is closed; give 'file.h5::/dataset' instead"
        raise SourceError(msg)
    if dataset.file.mode != "r":
        msg = (
            f"{dataset.file.filename} is open for writing; reopen it with mode 'r' "
            "(results go into a file of their own)"
        )
        raise SourceError(msg)
    if dataset.name is None:
        msg = "the dataset has no name in its file; give 'file.h5::/dataset' instead"
        raise SourceError(msg)
    return dataset.file.filename, dataset.name


def _of_text(text: str, same_file: str) -> tuple[str, str]:
    path, separator, dataset = text.rpartition("::")
    if not separator:
        path, dataset = text, ""
    path = path or same_file
    if not path:
        msg = f"{text!r} names no file; write 'file.h5::/dataset'"
        raise SourceError(msg)
    if not dataset.strip("/"):
        names = ", ".join(_names(path)[:5]) if Path(path).exists() else ""
        msg = f"{text!r} names no dataset; write '{path}::/dataset'"
        raise SourceError(f"{msg} (there are {names})" if names else msg)
    return path, "/" + dataset.strip("/")


def _names(path: str) -> list[str]:
    """Names of the datasets in a file, at most the first thousand."""
    names: list[str] = []

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset):
            names.append(f"/{name}")
        return True if len(names) >= 1000 else None

    with open_file(path) as file:
        file.visititems(visit)
    return names


def open_file(path: str) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises
    ------
    SourceError
        It is missing, is not HDF5, or somebody has it open for writing.
    """
    where = Path(path)
    if not where.exists():
        near = [p.name for p in where.parent.iterdir()] if where.parent.is_dir() else []
        msg = f"there is no file {path}" + near_miss(where.name, near)
        raise SourceError(msg)
    try:
        # No chunk cache: blocks are read once, and an uncompressed chunk that is
        # not cached is read only as far as it is needed.
        return h5py.File(path, "r", rdcc_nbytes=0)
    except BlockingIOError as error:
        msg = f"{path} is open for writing in another program; close it there first"
        raise SourceError(msg) from error
    except OSError as error:
        kind = "is a folder" if where.is_dir() else "cannot be read as HDF5"
        msg = f"{path} {kind} ({error})"
        raise SourceError(msg) from error


def _dataset(file: h5py.File, path: str, name: str) -> h5py.Dataset:
    try:
        found = file[name]
    except (KeyError, ValueError) as error:
        names = _names(path)
        hint = near_miss(name, names) or (
            f"; it has {', '.join(names[:5])}" if names else "; it has no datasets"
        )
        msg = f"{path} has no dataset {name}{hint}"
        raise SourceError(msg) from error
    if not isinstance(found, h5py.Dataset):
        inside = [n for n in _names(path) if n.startswith(name.rstrip("/") + "/")]
        hint = f"; inside it are {', '.join(inside[:5])}" if inside else ""
        msg = f"{path}::{name} is a {type(found).__name__.lower()}, not a dataset{hint}"
        raise SourceError(msg)
    return found


def _check_usable(dataset: h5py.Dataset, path: str) -> None:
    where = f"{path}::{dataset.name}"
    if not dataset.shape:
        msg = f"{where} is a single value; a source needs an axis that counts positions"
        raise SourceError(msg)
    if 0 in dataset.shape:
        msg = f"{where} has the shape {dataset.shape}: there is nothing to compute"
        raise SourceError(msg)
    if dataset.dtype.hasobject:
        msg = (
            f"{where} has entries of variable length ({_type_name(dataset)}); only "
            "data of a fixed size can be computed position by position"
        )
        raise SourceError(msg)
    if dataset.dtype.subdtype is not None:
        msg = (
            f"{where} has arrays as entries ({dataset.dtype}); store them along an "
            "axis of their own"
        )
        raise SourceError(msg)
    if dataset.is_virtual:
        _check_parts(dataset, Path(path).parent, where)
    _load_filters(dataset, where)


def _check_parts(dataset: h5py.Dataset, folder: Path, where: str) -> None:
    """Check that the parts of a virtual dataset are there.

    HDF5 shows fill values where one is missing: wrong, and silently.
    """
    parts = collections.defaultdict(set)
    for part in dataset.virtual_sources():
        # A pattern stands for files that may come later.
        if "%" not in part.file_name + part.dset_name:
            parts[part.file_name].add(part.dset_name)
    for name, datasets in parts.items():
        lying = folder / name
        missing: Any = lying
        if name == ".":
            missing = [d for d in datasets if d not in dataset.file]
        elif lying.exists():
            with h5py.File(lying, "r") as file:
                missing = [f"{lying}::{d}" for d in datasets if d not in file]
        if missing:
            first = missing[0] if isinstance(missing, list) else missing
            msg = f"{where} is virtual and its part {first} is missing"
            raise SourceError(msg)


def _type_name(dataset: h5py.Dataset) -> str:
    return "text" if h5py.check_string_dtype(dataset.dtype) else str(dataset.dtype)


def _load_filters(dataset: h5py.Dataset, where: str) -> None:
    """Make the dataset's compression readable, with hdf5plugin where needed."""
    properties = dataset.id.get_create_plist()
    codes = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    missing = [code for code in codes if not h5py.h5z.filter_avail(code)]
    if missing:
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")
        missing = [code for code in missing if not h5py.h5z.filter_avail(code)]
    if missing:
        msg = (
            f"{where} is compressed with HDF5 filter {missing[0]}, which is not "
            "installed; pip install hdf5plugin (or resumable-hdf5[filters])"
        )
        raise SourceError(msg)


def _normal_axes(axes: Any, shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    try:
        plain = tuple(operator.index(axis) for axis in axes)
    except (TypeError, ValueError) as error:
        msg = f"position_axes must be a whole number or a tuple of them, not {axes!r}"
        raise SourceError(msg) from error
    ndim = len(shape)
    if not plain or any(not -ndim <= axis < ndim for axis in plain):
        msg = f"position_axes={plain} do not exist in {where} of shape {shape}"
        raise SourceError(msg)
    normal = tuple(axis % ndim for axis in plain)
    if len(set(normal)) < len(normal):
        msg = f"position_axes={plain} names an axis twice"
        raise SourceError(msg)
    return normal


def slabs(start: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut a flat C-order range of a box into boxes, in order.

    >>> list(slabs(1, 6, (3, 2)))
    [(slice(0, 1, None), slice(1, 2, None)), (slice(1, 3, None), slice(0, 2, None))]
    """
    if len(shape) == 1:
        if stop > start:
            yield (slice(start, stop),)
        return
    inner = math.prod(shape[1:])
    first, last = -(-start // inner), stop // inner
    if first > last:
        row = last
        for rest in slabs(start - row * inner, stop - row * inner, shape[1:]):
            yield (slice(row, row + 1), *rest)
        return
    if start < first * inner:
        row = first - 1
        for rest in slabs(start - row * inner, inner, shape[1:]):
            yield (slice(row, row + 1), *rest)
    if last > first:
        yield (slice(first, last), *(slice(0, n) for n in shape[1:]))
    if stop > last * inner:
        for rest in slabs(0, stop - last * inner, shape[1:]):
            yield (slice(last, last + 1), *rest)


class Reader:
    """An open source: its geometry, its fingerprint, its rows.

    Parameters
    ----------
    ref : SourceRef
        What to open. A context manager; close it when done.
    """

    def __init__(self, ref: SourceRef) -> None:
        self.ref = ref
        self._file: h5py.File | None = None
        if ref.path:
            self._file = open_file(ref.path)
            self.dataset = _dataset(self._file, ref.path, ref.dataset)
            try:
                _check_usable(self.dataset, ref.path)
            except SourceError:
                self.close()
                raise
            self.dtype: np.dtype[Any] = self.dataset.dtype
        else:
            self.dataset = None
            self.dtype = np.dtype(np.int64)
        self.geometry = self._measure()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def has_data(self) -> bool:
        """False when positions are only counted."""
        return self.dataset is not None

    def _measure(self) -> Geometry:
        if self.dataset is None:
            return Geometry((self.ref.count,), (), 0, (1,), 0, False, True)
        shape, axes = self.dataset.shape, self.ref.position_axes
        others = [axis for axis in range(len(shape)) if axis not in axes]
        spectrum_shape = tuple(shape[axis] for axis in others)
        chunks = self.dataset.chunks
        itemsize = self.dtype.itemsize
        chunk_map = tuple(min(chunks[a], shape[a]) if chunks else 1 for a in axes)
        column = math.prod(
            math.ceil(shape[a] / chunks[a]) * chunks[a] if chunks else shape[a]
            for a in others
        )
        return Geometry(
            map_shape=tuple(shape[axis] for axis in axes),
            spectrum_shape=spectrum_shape,
            row_bytes=math.prod(spectrum_shape) * itemsize,
            chunk_map=chunk_map,
            chunk_bytes=column * math.prod(chunk_map) * itemsize,
            indivisible=self.dataset.compression is not None or _filtered(self.dataset),
            position_first=axes == tuple(range(len(axes))),
        )

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
        """
        if len(out) == len(members):
            self.read_span(start, start + len(members), out)
            return
        filled = 0
        for first, last in self._segments(members):
            inside = members[first:last]
            count = int(np.count_nonzero(inside))
            if count == last - first:
                self.read_span(
                    start + first, start + last, out[filled : filled + count]
                )
            else:
                rows = self.empty(last - first)
                self.read_span(start + first, start + last, rows)
                out[filled : filled + count] = rows[inside]
            filled += count

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

    def fingerprint(self, *, full: bool = False) -> dict[str, Any]:
        """Document that tells this source from a changed one, as plain JSON.

        Parameters
        ----------
        full : bool
            Digest all contents, not samples of what is beyond 64 MB.

        Notes
        -----
        Reads at most 64 MB unless `full`. An output of another run is known by
        that run's identity and not read. Where the first position axis can grow,
        its length is left out and the digest covers the first position only; the
        rest is compared with what the run file recorded (:meth:`contents`).
        """
        if self.dataset is None:
            return {"positions": self.ref.count}
        document: dict[str, Any] = {
            "dataset": self.ref.dataset,
            "dtype": encode_dtype(self.dtype),
            "shape": list(self.dataset.shape),
        }
        if self.ref.upstream:
            return {**document, "run": self.ref.upstream}
        if self.growable:
            document["shape"][self.ref.position_axes[0]] = None
            return {**document, "first": self.contents(1)}
        return {**document, "contents": self.contents(full=full)}

    @property
    def growable(self) -> bool:
        """The first position axis can be made longer by the program that writes."""
        if self.dataset is None or self.ref.upstream:
            return False
        axis = self.ref.position_axes[0]
        most = self.dataset.maxshape[axis]
        return most is None or most > self.dataset.shape[axis]

    def contents(self, length: int | None = None, *, full: bool = False) -> str:
        """sha256 over the contents, whole up to 64 MB, evenly spread parts beyond.

        Parameters
        ----------
        length : int, optional
            Cut the first position axis to this length.
        full : bool
            Digest all of it.

        Notes
        -----
        A compressed dataset is digested as it is stored, chunk by chunk, which is
        faster than to decompress it; so a file that was packed anew counts as
        changed. A tree: the digest of the parts' digests, because parts can be
        digested at the same time.
        """
        if _filtered(self.dataset) and length is None and not self.growable:
            parts = self._stored_parts(full)
        else:
            parts = self._plain_parts(length, full)
        result = hashlib.sha256()
        # Reading holds h5py's lock, digesting holds none: two threads are enough.
        with ThreadPoolExecutor(2) as threads:
            waiting: collections.deque[Future[bytes]] = collections.deque()
            for part in parts:
                waiting.append(threads.submit(_sha256, part))
                if len(waiting) > _DIGESTS_AT_ONCE:
                    result.update(waiting.popleft().result())
            for digest in waiting:
                result.update(digest.result())
        return result.hexdigest()

    def _plain_parts(self, length: int | None, full: bool) -> Iterator[Any]:
        """Values in C order, in pieces of 1 MB: all of them, or samples."""
        box = list(self.dataset.shape)
        if length is not None:
            box[self.ref.position_axes[0]] = length
        total = math.prod(box)
        step = max(1, DIGEST_BYTES // _SAMPLES // self.dtype.itemsize)
        if full or total <= step * _SAMPLES:
            starts = range(0, total, step)
        else:
            # From the start of a row on, where rows are small: one read, not three.
            row = math.prod(box[1:])
            row = row if row < step else 1
            spread = np.linspace(0, total - step, _SAMPLES)
            starts = [int(s) // row * row for s in spread]  # type: ignore[assignment]
        for start in starts:
            for slab in slabs(start, min(start + step, total), tuple(box)):
                # Zeroed, so that the padding of compounds is always the same.
                part = np.zeros([s.stop - s.start for s in slab], self.dtype)
                self.dataset.read_direct(part, slab)
                yield part.reshape(-1).view(np.uint8)

    def _stored_parts(self, full: bool) -> Iterator[Any]:
        """Chunks as they are stored, with their place: all of them, or samples."""
        dataset = self.dataset
        yield _storage(dataset)
        chunks = zip(dataset.shape, dataset.chunks, strict=True)
        grid = tuple(math.ceil(n / c) for n, c in chunks)
        total, stored = math.prod(grid), dataset.id.get_storage_size()
        count = (
            total if full else math.ceil(total * min(1, DIGEST_BYTES / max(1, stored)))
        )
        for index in np.linspace(0, total - 1, count).astype(np.int64):
            cell = np.unravel_index(index, grid)
            corner = tuple(
                int(i) * c for i, c in zip(cell, dataset.chunks, strict=True)
            )
            # A chunk that was never written has no bytes; it reads as fill values.
            if dataset.id.get_chunk_info_by_coord(corner).size:
                skipped_filters, stored_bytes = dataset.id.read_direct_chunk(corner)
                yield repr((corner, skipped_filters)).encode()
                yield stored_bytes

    def scales(self) -> Mapping[int, tuple[str, Array, str]]:
        """Coordinates of the position axes, where the source has them.

        Returns
        -------
        dict
            Number of the position axis -> (name, values, units), from the
            dataset's dimension scales.
        """
        found: dict[int, tuple[str, Array, str]] = {}
        if self.dataset is None:
            return found
        for number, axis in enumerate(self.ref.position_axes):
            for scale in self.dataset.dims[axis].values():
                length = self.dataset.shape[axis]
                if scale.shape == (length,) and scale.dtype.kind in "iuf":
                    name = str(scale.name or "").rsplit("/", 1)[-1]
                    units = scale.attrs.get("units", "")
                    text = units.decode() if isinstance(units, bytes) else str(units)
                    found[number] = (name, scale[...], text)
                    break
        return found


def _storage(dataset: h5py.Dataset) -> bytes:
    """Tell how stored bytes become values: chunks, filters, fill value."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[:3] for i in range(properties.get_nfilters())]
    fill = np.asarray(dataset.fillvalue, dataset.dtype).tobytes()
    return repr((dataset.chunks, filters, fill)).encode()


def _sha256(part: Any) -> bytes:
    return hashlib.sha256(part).digest()


def _filtered(dataset: h5py.Dataset) -> bool:
    return bool(dataset.id.get_create_plist().get_nfilters())
