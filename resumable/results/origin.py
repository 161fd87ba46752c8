"""Where a run was computed from, and where that is now."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable.errors import SourceError
from resumable.results.results import Results

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resumable.runfile import RunFile


def source_of_run(run: RunFile, source: Any = None) -> tuple[Any, tuple[int, ...]]:
    """Return what a run was computed from, found again, and its position axes.

    `source` says where it is now, when it has moved. SourceError: it is not there.
    """
    document = run.header.document
    written = document["source"]
    axes = tuple(int(axis) for axis in document["position_axes"])
    if "positions" in written:
        return int(written["positions"]), axes
    if source is None:
        typed = str(run.header.source.get("source", "")).rpartition("::")[0]
        places = [Path(typed), run.path.parent / Path(typed).name]
        # Where the link in the run file leads, seen from the folder it lies in.
        group = Results(run).group()
        with contextlib.closing(group.file), contextlib.suppress(AttributeError):
            link = group.get("source", getlink=True)
            places.insert(0, run.path.parent / link.filename)
        path = _found("the source", places)
        source = f"{path}::{written['dataset']}"
    elif isinstance(source, (str, Path)) and "::" not in str(source):
        source = f"{source}::{written['dataset']}"
    return _of_run_or_file(source, written), axes


def inputs_of_run(run: RunFile, source: Any) -> dict[str, Any]:
    """Return the inputs of a run, found again, with their position axes."""
    header = run.header
    places = header.source.get("inputs")
    places = places if isinstance(places, dict) else {}
    main = str(header.source.get("source", "")).rpartition("::")[0]
    now = source.rpartition("::")[0] if isinstance(source, str) else main
    inputs = {}
    for name, written in header.document["inputs"].items():
        # Files of earlier versions do not say where inputs were.
        typed = str(places.get(name, main)).rpartition("::")[0] or main
        near = [Path(now)] if typed == main else []
        beside = [
            folder / Path(typed).name for folder in (run.path.parent, Path(now).parent)
        ]
        path = _found(f"the input {name!r}", [*near, Path(typed), *beside])
        value = _of_run_or_file(f"{path}::{written['dataset']}", written)
        inputs[name] = (value, tuple(int(axis) for axis in written["axes"]))
    return inputs


def _of_run_or_file(source: Any, written: Mapping[str, Any]) -> Any:
    """Return the output of another run as such: it is known by that run's identity."""
    if "run" in written and isinstance(source, str):
        path, _, dataset = source.rpartition("::")
        return Results(path)[dataset.rpartition("/")[2]]
    return source


def _found(what: str, candidates: list[Path]) -> Path:
    # Only plain files: a name in a stranger's file may be that of a device.
    for path in candidates:
        if path.is_file():
            return path
    msg = f"{what} was {candidates[0]}, and is not there; say where it is now"
    raise SourceError(msg)
