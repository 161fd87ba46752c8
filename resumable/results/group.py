"""The results group of a run file, opened with h5py."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import h5py

from resumable.errors import RunFileError, hdf5_errors_as
from resumable.identity import Trace
from resumable.model import filter_problem, load_filter
from resumable.runfile import ADVICE, find_own

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from resumable.runfile import RunFile


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
    """Read a text of the results group of a run file; empty if there is none.

    RunFileError: there is a link in its place.
    """
    with _opened(run) as file:
        if name not in file[run.header.group]:
            return ""
        found = find_own(file, run.header.group, name)
        if found is None:
            raise _not_ours(run, name)
        return bytes(found[()]).decode(errors="replace")


def trace_of(run: RunFile) -> Trace | None:
    """Read the trace of the code that a run was made with; None if there is none.

    RunFileError: it is damaged, or there is a link in its place.
    """
    text = text_in(run, "identity_code")
    try:
        return Trace.from_json(json.loads(text)) if text else None
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise _not_ours(run, "identity_code") from error


@contextlib.contextmanager
def _opened(run: RunFile) -> Iterator[h5py.File]:
    with contextlib.closing(open_group(run).file) as file, _readable(run):
        yield file


def _readable(run: RunFile) -> AbstractContextManager[None]:
    what = f"{run.path} is damaged, HDF5 cannot read it"
    return hdf5_errors_as(RunFileError, what, f": {ADVICE}")


def _not_ours(run: RunFile, name: str) -> RunFileError:
    msg = f"{run.path} is damaged, its {name} is not what it was made with: {ADVICE}"
    return RunFileError(msg)
