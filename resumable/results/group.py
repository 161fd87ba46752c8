"""The results group of a run file as HDF5 sees it, if it is the one that was made."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import h5py

from resumable.errors import RunFileError, hdf5_errors_as
from resumable.model import load, problem
from resumable.runfile import ADVICE

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from resumable.runfile import RunFile

#: Longer source text of a class is not honest, and comparing it takes for ever.
_LONGEST_SOURCE_TEXT = 1 << 20


def open_group(run: RunFile) -> h5py.Group:
    """Open the results group; a link in its place is not followed."""
    name = run.header.group
    for method in (run.header.packed or {}).values():
        # Without it the group can be looked at, if not all of it read.
        if not problem(method):
            load(method)
    with contextlib.ExitStack() as stack, _readable(run):
        file = stack.enter_context(h5py.File(run.path, "r"))
        link = file.get(name, getlink=True)
        if isinstance(link, h5py.HardLink) and isinstance(file[name], h5py.Group):
            stack.pop_all()
            return file[name]
    raise _not_ours(run, name)


def _readable(run: RunFile) -> AbstractContextManager[None]:
    what = f"{run.path} is damaged, HDF5 cannot read it"
    return hdf5_errors_as(RunFileError, what, f": {ADVICE}")


def _own_dataset(run: RunFile, file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset whose bytes lie in this file, without following a link."""
    if isinstance(file.get(name, getlink=True), h5py.HardLink):
        found = file[name]
        properties = isinstance(found, h5py.Dataset) and found.id.get_create_plist()
        # Neither virtual, nor filtered, nor with its bytes in some other file.
        if (
            properties
            and properties.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
            and not properties.get_external_count()
        ):
            return found
    raise _not_ours(run, name)


def check_readable(run: RunFile, name: str) -> None:
    """Refuse an output that is not for HDF5 what it is for us, packed or not."""
    if run.header.packed is not None:
        run.array(name).check()
        return
    with contextlib.closing(open_group(run).file) as file, _readable(run):
        _check_place(run, file, name)


def _check_place(run: RunFile, file: h5py.File, name: str) -> None:
    """Refuse an output that is not for HDF5 what it is for us."""
    path, output = f"{run.header.group}/{name}", run.header.outputs[name]
    found = _own_dataset(run, file, path)
    lead = run.header.map_shape if output.per == "position" else ()
    place = found.id.get_offset(), found.shape
    if place != (run.header.offsets[name], (*lead, *output.shape)):
        raise _not_ours(run, path)


def _not_ours(run: RunFile, name: str) -> RunFileError:
    msg = f"{run.path} is damaged, its {name} is not what it was made with: {ADVICE}"
    return RunFileError(msg)


def source_text(run: RunFile) -> str:
    """Read the source text of the class from a run file; empty if there is none.

    Raises
    ------
    RunFileError
        What is there is no text of an honest size.
    """
    with contextlib.closing(open_group(run).file) as file, _readable(run):
        name = f"{run.header.group}/source_text"
        if name not in file:
            return ""
        found = _own_dataset(run, file, name)
        honest = found.dtype.kind == "S" and not found.shape
        if not honest or found.nbytes > _LONGEST_SOURCE_TEXT:
            raise _not_ours(run, name)
        return bytes(found[()]).decode(errors="replace")
