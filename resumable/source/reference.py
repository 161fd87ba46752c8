"""What users give as a source, as a reference that can be pickled."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import operator
import os
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from resumable import identity
from resumable.errors import SourceError, hdf5_errors_as, no_such_file, option, wrong
from resumable.model import added_dtypes, canonical
from resumable.runfile import RunFile, is_run_file
from resumable.source.files import ORDINARY_DRIVERS
from resumable.source.listing import list_source
from resumable.source.opening import open_dataset
from resumable.system import shared_array

Array = np.ndarray[Any, np.dtype[Any]]

#: Larger arrays lie in memory that all workers of this host read.
_LARGE_BYTES = 1 << 20
#: Names of what lies in the group of a run.
_OF_RUN = re.compile(r"/[^/]+-[^/]+_\d{3,}/")


@dataclasses.dataclass(frozen=True, slots=True)
class SourceRef:
    """Where a source is and which of its axes count positions."""

    path: str
    """HDF5 file, absolute; empty for a source without data."""
    dataset: str
    """Absolute name in the file; empty for a source without data."""
    position_axes: tuple[int, ...]
    """Axes that count positions, in the user's order."""
    count: int = 0
    """Positions of a source without data."""
    upstream: str = ""
    """What stands for the run that this is an output of, or empty."""
    live: bool = False
    """It may be written while it is read: without locks, and checked at each read."""
    length: int = 0
    """Positions that count of the first position axis; 0: all there are."""
    ragged: bool = False
    """The source is a ragged output of that run."""
    grows: bool = False
    """The source of that run can grow, and the run can grow with it."""
    contents: str = ""
    """What stands for the contents of an array in the identity, as canonical JSON."""
    array: Any = dataclasses.field(default=None, compare=False, repr=False)
    """An array in memory that cannot be written to; None: the source is no array."""

    @property
    def name(self) -> str:
        """Last part of the dataset's name, for file and group names."""
        if self.array is not None:
            return "data"
        last = self.dataset.rsplit("/", 1)[-1]
        # What is no text in it cannot be in the name of a group that h5py makes.
        return last.encode(errors="replace").decode() or "positions"

    @property
    def has_data(self) -> bool:
        """False where positions are only counted."""
        return bool(self.path) or self.array is not None

    def __str__(self) -> str:
        if self.array is not None:
            digest = json.loads(self.contents)["array"]["sha256"]
            return f"an array of shape {self.array.shape}, sha256 {digest[:8]}"
        return (
            f"{self.path}::{self.dataset}" if self.path else f"{self.count} positions"
        )


def refer(
    source: Any, position_axes: int | tuple[int, ...] = 0, *, same_file: str = ""
) -> SourceRef:
    """Return a reference to what a user gives as a source, checked to exist.

    The arguments are those of :func:`named_source`. SourceError where it does not
    exist, is not HDF5, is open for writing, has no positions, or a dtype of no fixed
    size.
    """
    ref = named_source(source, position_axes, same_file=same_file)
    if not ref.path or ref.ragged:
        return ref
    with open_dataset(ref.path, ref.dataset) as found:
        axes = normal_axes(ref, found.shape)
    return dataclasses.replace(ref, position_axes=axes)


def named_source(
    source: Any, position_axes: int | tuple[int, ...] | None = 0, *, same_file: str = ""
) -> SourceRef:
    """Return a reference to what a user gives as a source; no file is opened.

    A source is ``"file.h5::/dataset"``, where ``"::/dataset"`` is one of `same_file`;
    an open dataset (mode ``"r"``); an output of another run; an array of numpy, of
    which a copy is taken; or a number of positions without data. All else is a
    SourceError. Without `position_axes` these are those of a ragged output, else the
    first one.
    """
    axes = (0,) if position_axes is None else _plain_axes(position_axes)
    if isinstance(source, (int, np.integer)) and not isinstance(source, bool):
        if source < 1:
            msg = f"a source without data needs at least 1 position, not {source}"
            raise SourceError(msg)
        if axes != (0,):
            axis = option("position_axes", 0)
            msg = f"a source without data has one axis; give {axis}"
            raise SourceError(msg)
        return SourceRef("", "", (0,), count=int(source))
    if isinstance(source, np.ndarray):
        return _array_source(source, axes)
    upstream = ""
    if isinstance(source, h5py.Dataset):
        path, dataset = _place_of(source)
    elif hasattr(source, "as_source"):
        path, dataset, upstream = source.as_source()
        own = getattr(source, "position_axes", ())
        if own and position_axes is not None and axes != own:
            msg = (
                f"{path}::{dataset} is ragged: its positions are on axes {own}, not on "
                f"{option('position_axes', axes)}"
            )
            raise SourceError(msg)
        if own:
            return SourceRef(path, dataset, own, upstream=upstream, ragged=True)
    elif isinstance(source, (str, Path)):
        text = str(source)
        path, separator, dataset = text.rpartition("::")
        if not separator:
            path, dataset = text, ""
        path = path or same_file
        if not path:
            msg = f"{text!r} names no file; write 'file.h5::/dataset'"
            raise SourceError(msg)
        # HDF5 takes "/entry//data" and "/entry/./data" for the same name.
        parts = [part for part in dataset.split("/") if part not in ("", ".")]
        if not parts:
            raise SourceError(_no_dataset(text, path))
        dataset = "/" + "/".join(parts)
    else:
        msg = (
            "a source is 'file.h5::/dataset', an open h5py.Dataset, an output of "
            "Results, an array of numpy, or a number of positions, not a "
            f"{type(source).__name__}"
        )
        raise SourceError(msg)
    # The name as typed: of a link to another file, HDF5 gives the name in that file.
    # But for the folder: the current one may be another when the source is read.
    path = str(Path(path).absolute())
    if not upstream:
        _check_finished(path, dataset)
    return SourceRef(path, dataset, axes, upstream=upstream)


def _check_finished(path: str, dataset: str) -> None:
    """Refuse an output of a run that is not finished: pending rows hold any bytes."""
    if not _OF_RUN.match(dataset):
        return
    try:
        # To open a pipe waits for ever.
        if not (Path(path).is_file() and is_run_file(Path(path))):
            return
        run = RunFile(Path(path))
    except OSError as error:
        msg = f"{path} cannot be read: {error}"
        raise SourceError(msg) from error
    name = dataset.removeprefix(f"{run.header.group}/").partition("/")[0]
    if name in run.header.outputs:
        run.check_finished("its outputs are used", SourceError)


def _no_dataset(text: str, path: str) -> str:
    """Say what to write instead of a source that names no dataset."""
    # A common mistake is one colon, or none, instead of two.
    file, colon, inside = path.rpartition(":")
    if colon and Path(file).exists():
        meant = f"{file}::{inside}"
    else:
        above = (folder for folder in Path(path).parents if folder.is_file())
        file = next(map(str, above), "")
        meant = f"{file}::{path[len(file) :]}" if file else f"{path}::/dataset"
    msg = f"{text!r} names no dataset; write {meant!r}"
    if not Path(meant.partition("::")[0]).exists():
        msg = f"{no_such_file(Path(path))}; a source is written {meant!r}"
    return list_source(path).added_to(msg) if Path(path).exists() else msg


def _array_source(array: Array, axes: tuple[int, ...]) -> SourceRef:
    if array.dtype.hasobject or type(array) not in (np.ndarray, np.memmap):
        what, advice = type(array).__name__, "give np.asarray(...) of it"
        if array.dtype.hasobject:
            what, advice = "objects", "give np.asarray(..., float) of it"
        elif isinstance(array, np.ma.MaskedArray):
            # np.asarray has the values that lie below the mask.
            advice = "say what stands for masked values, as array.filled(np.nan)"
        msg = f"an array as a source has numbers, not {what}: {advice}"
        raise SourceError(msg)
    if not array.ndim:
        msg = "an array of one value has no axis that counts positions"
        raise SourceError(msg)
    fixed = fixed_array(array)
    contents = canonical(identity.write_value(fixed, "the source"))
    ref = SourceRef("", "", axes, contents=contents, array=fixed)
    return dataclasses.replace(ref, position_axes=normal_axes(ref, array.shape))


def fixed_array(array: Array) -> Array:
    """Return a copy in C order and native byte order that cannot be written to.

    bfloat16, float8 and the like become the floating numbers of numpy that hold all
    their values; SourceError where there are none.
    """
    if added := added_dtypes(array.dtype):
        wide = [kind for kind in ("f4", "f8") if np.can_cast(array.dtype, kind)]
        if not wide:
            msg = f"the dtype {added[0]} is not one of numpy; give an array of another"
            raise SourceError(msg)
        array = array.astype(wide[0])
    native = array.dtype.newbyteorder("=")
    if array.nbytes >= _LARGE_BYTES:
        return shared_array(np.ascontiguousarray(array, native))
    copy = np.array(array, native, order="C")
    copy.flags.writeable = False
    return copy


def _place_of(dataset: h5py.Dataset) -> tuple[str, str]:
    if not dataset:
        msg = "the dataset's file is closed; give 'file.h5::/dataset' instead"
        raise SourceError(msg)
    path, name = dataset.file.filename, _name_in_file(dataset)
    if dataset.file.driver == "mpio":
        msg = (
            f"{path} is open with the driver 'mpio': close it and give "
            f"'{path}::{name}'; every rank then reads its own part with the ordinary "
            "driver"
        )
    elif dataset.file.mode != "r":
        msg = (
            f"{path} is open for writing; reopen it with mode 'r' (results go into a "
            "file of their own)"
        )
    elif name is None:
        msg = "the dataset has no name in its file; give 'file.h5::/dataset' instead"
    elif not _is_open_file(dataset, Path(path)):
        msg = (
            f"the dataset's file was opened as {path!r}, which is now another file or "
            "none: it was moved or replaced; open it again"
        )
        if not Path(path).is_absolute():
            msg = (
                f"the dataset's file was opened as {path!r} in another folder than the "
                "current one, or was moved or replaced since; give its absolute path, "
                f"'/.../{Path(path).name}::{name}'"
            )
    else:
        return path, name
    raise SourceError(msg)


def _name_in_file(dataset: h5py.Dataset) -> str | None:
    """Return the name of a dataset in the file it lies in; None: it has none.

    Where a soft link has led into another file, HDF5 tells that file, and the name of
    the link.
    """
    name, file = dataset.name, dataset.file
    if name is None:
        return None
    with hdf5_errors_as(SourceError, f"{file.filename}::{name} cannot be found"):
        if file.get(name) == dataset:
            return str(name)
        address = h5py.h5o.get_info(dataset.id).addr
        found = h5py.h5o.visit(
            file.id,
            lambda name, info: name if info.addr == address else None,
            info=True,
        )
    return f"/{found.decode(errors='surrogateescape')}" if found else None


def _is_open_file(dataset: h5py.Dataset, path: Path) -> bool:
    """Return whether a path leads to the file of an open dataset."""
    if dataset.file.driver not in ORDINARY_DRIVERS:
        return path.exists()
    fd = dataset.file.id.get_vfd_handle()
    return path.exists() and os.path.samestat(os.fstat(fd), path.stat())


def _plain_axes(axes: Any) -> tuple[int, ...]:
    """Return position axes as a tuple; SourceError for what are none."""
    with contextlib.suppress(TypeError, ValueError):
        listed = [axes] if np.ndim(axes) == 0 else list(axes)
        if not any(isinstance(axis, (bool, np.bool_)) for axis in listed):
            return tuple(map(operator.index, listed))
    what = "a whole number or a tuple of them"
    raise wrong(SourceError, "position_axes", axes, what)


def normal_axes(ref: SourceRef, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return position axes counted from the front; SourceError for others."""
    plain, ndim = ref.position_axes, len(shape)
    if not plain or any(not -ndim <= axis < ndim for axis in plain):
        of_shape = "" if ref.array is not None else f" of shape {shape}"
        msg = f"{option('position_axes', plain)} do not exist in {ref}{of_shape}"
        raise SourceError(msg)
    normal = tuple(axis % ndim for axis in plain)
    if len(set(normal)) < len(normal):
        msg = f"{option('position_axes', plain)} names an axis twice"
        raise SourceError(msg)
    return normal
