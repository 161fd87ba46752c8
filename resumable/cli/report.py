"""Runs and their state as text, for a terminal."""

from __future__ import annotations

import collections
import datetime as dt
import json
import sys
from typing import TYPE_CHECKING, Any

from resumable.errors import RunFileError, near, shortened, shown
from resumable.model import (
    brief,
    canonical,
    format_bytes,
    format_seconds,
    name_of_position,
)
from resumable.results import Status
from resumable.runfile import (
    RunFile,
    find_runs,
    holder_of,
    open_elsewhere,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from resumable.runfile import Header
    from resumable.source import Listing

#: Lines of the log that are shown.
_LOG_SHOWN = 20


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows in columns, with rich where it is installed."""
    rows = [[shown(cell) for cell in row] for row in rows]
    try:
        import rich.box
        import rich.console
        import rich.table
        import rich.text
    except ImportError:
        lines = [titles, *rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(map(str.ljust, line, widths)).rstrip() for line in lines
        )
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for number, title in enumerate(titles):
        # Names of runs are copied from here: whole, whatever the width.
        drawn.add_column(title, overflow="fold", no_wrap=number == 0)
    for row in rows:
        # Text, not str: names from a file must not be taken for markup.
        drawn.add_row(*map(rich.text.Text, row))
    console = rich.console.Console(width=None if sys.stdout.isatty() else 200)
    with console.capture() as capture:
        console.print(drawn)
    return capture.get().rstrip("\n")


def record(run: RunFile, *, whole: bool = False) -> dict[str, Any]:
    """Describe a run for programs; `whole` with sessions, failures and log."""
    header, state = run.header, Status.now(run)
    document = header.document
    found: dict[str, Any] = {
        "path": str(run.path.absolute()),
        "process": document.get("process"),
        "version": document.get("version"),
        "parameters": document.get("parameters", {}),
        "source": header.source.get("source"),
        "identity": header.identity,
        "state": _state(run),
        "positions": state.positions,
        "done": state.done,
        "failed": state.failed,
        "pending": state.pending,
        "written": run.path.stat().st_mtime,
    }
    if whole:
        found["map_shape"] = list(header.map_shape)
        found["outputs"] = {
            name: {
                "shape": list(output.shape),
                "dtype": str(output.dtype),
                "units": output.units,
                "labels": output.labels and list(output.labels),
                "per": output.per,
                "ragged": output.ragged,
            }
            for name, output in header.outputs.items()
        }
        found["sessions"] = [
            {**row._asdict(), "environment": dict(row.environment)}
            for row in run.sessions()
        ]
        found["failures"] = [failure._asdict() for failure in run.failures()]
        found["log"] = [line._asdict() for line in run.log()]
    return found


def records(found: Iterable[RunFile | RunFileError]) -> list[dict[str, Any]]:
    """Describe runs for programs; of one that cannot be read the error."""
    records = []
    for run in found:
        try:
            if isinstance(run, RunFileError):
                raise run
            records.append(record(run))
        except RunFileError as error:
            records.append({"error": str(error)})
    return records


def as_json(value: object) -> str:
    """Write what programs read; times are seconds since 1970."""
    return json.dumps(value, indent=2, default=str)


def list_runs(folder: Path) -> str:
    """List the runs in a folder, a line each."""
    found = find_runs(folder.glob("*.h5"))
    if not found:
        return f"no runs in {shown(folder)}"
    different = _different([run for run in found if isinstance(run, RunFile)])
    rows = [
        ["(not usable)", str(run), "", "", ""]
        if isinstance(run, RunFileError)
        else [
            run.path.name,
            str(run.header.document.get("process", "")),
            f"{_state(run)}: {Status.now(run)}",
            _when(run.path.stat().st_mtime),
            different[run.path],
        ]
        for run in found
    ]
    titles = ["run", "process", "status", "written", "with"]
    if not any(different.values()):
        titles, rows = titles[:-1], [row[:-1] for row in rows]
    return table(titles, rows)


def _different(runs: list[RunFile]) -> dict[Path, str]:
    """Return for each run the parameters in which runs of its process differ."""
    values: dict[Any, set[str]] = collections.defaultdict(set)
    parameters = {}
    for run in runs:
        document = run.header.document
        own = {(document["process"], n): v for n, v in document["parameters"].items()}
        for name, value in own.items():
            values[name].add(canonical(value))
        parameters[run.path] = own
    return {
        path: ", ".join(
            f"{name[1]}={brief(value)}"
            for name, value in own.items()
            if len(values[name]) > 1
        )
        for path, own in parameters.items()
    }


def _state(run: RunFile) -> str:
    if run.finished:
        return "finished"
    if run.mixed:
        return "mixed"
    return "running" if holder_of(run) else "stopped"


def _when(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def status_text(run: RunFile) -> str:
    """Say how far a run is; also while it is computed."""
    state = Status.now(run)
    lines = [f"{shown(run.path.name)}: {_state(run)}, {state}"]
    holder = holder_of(run)
    if holder:
        lines.append(
            f"  computed by process {holder['pid']} on {holder['host']} "
            f"since {holder['since']}"
        )
        sessions = run.sessions()
        if sessions:
            lines.append(f"  {_expected(state, sessions[-1].start, sessions[:-1])}")
    elif run.mixed:
        lines.append(
            "  its source or values were changed while it was computed (see its log): "
            "it is not continued"
        )
    elif not state.finished:
        lines.append(
            "  no process computes it now; run the same command again to go on"
        )
    elsewhere = open_elsewhere(run.path)
    if elsewhere:
        lines.append(f"  {elsewhere}")
    return "\n".join(lines)


def _expected(state: Status, began: float, earlier: Sequence[Any]) -> str:
    """Estimate how long the present session will take, from what it has done."""
    before = sum(session.computed + session.failed for session in earlier)
    settled = state.done + state.failed - before
    took = dt.datetime.now().timestamp() - began
    if settled <= 0:
        return "no checkpoint so far in this session"
    if took <= 0:
        return f"{settled:,} positions so far; the clock was set back since it began"
    rate = settled / took
    left = "none pending"
    if state.pending:
        left = f"about {format_seconds(state.pending / rate)} left"
    return f"{rate:.3g} positions per second, {left}"


def _environments(run: RunFile) -> list[str]:
    """Show with which versions it was computed, and from which session on."""
    began = [_when(session.start) for session in run.sessions()]
    rows: list[list[str]] = []
    before: dict[str, str] = {}
    for number, environment in run.environments().items():
        changed = {n: v for n, v in environment.items() if before.get(n) != v}
        changed |= {name: "none" for name in before if name not in environment}
        since = began[number] if number < len(began) else ""
        for name, version in changed.items():
            rows.append([since, name, version])
            since = ""
        before = environment
    titles = ["since session", "computed with", "version"]
    return ["", table(titles, rows)] if rows else []


def _shared(header: Header) -> Iterator[str]:
    """Say what all positions share, and where it was read."""
    places = header.source.get("shared", {})
    for name, value in header.document.get("shared", {}).items():
        where = f" ({places[name]})" if name in places else ""
        yield f"  shared      {shown(f'{name} = {brief(value)}{where}')}"


def _adopted(note: Any) -> list[str]:
    """Say of which run the rows of a run are that was adopted."""
    if not isinstance(note, dict):
        return []
    differing = note.get("differences") or ["nothing but names"]
    identity = str(note.get("identity"))[:8]
    lines = [
        f"{note.get('run')}, identity {identity}, {note.get('when')}",
        *map(str, differing),
        str(note.get("rows")).partition("\n")[0],
    ]
    told = [shown(line) for line in lines]
    return [f"  adopted     {told[0]}", *(f"              {line}" for line in told[1:])]


def show_text(run: RunFile) -> str:
    """Describe a run: identity, outputs, sessions, failures, log."""
    header = run.header
    document = header.document
    sessions = run.sessions()
    parts = [
        status_text(run),
        f"  file        {shown(near(run.path))} "
        f"({format_bytes(run.path.stat().st_size)})",
        f"  source      {shown(near(header.source['source']))}",
        f"  identity    {header.identity}",
        f"  version     {shown(json.dumps(document.get('version')))}",
        "  parameters  " + shown(json.dumps(document.get("parameters", {}))),
        *_shared(header),
        *_adopted(header.source.get("adopted")),
        "",
        table(
            ["output", "shape", "dtype", "units", "per"],
            [
                [name, str(o.shape), str(o.dtype), o.units or "", o.per]
                for name, o in header.outputs.items()
            ],
        ),
        "",
        table(
            ["session", "lasted", "host", "process", "engine", "computed", "failed"],
            [
                [
                    _when(s.start),
                    format_seconds(max(0, s.end - s.start)) if s.end else "not ended",
                    s.host,
                    str(s.pid),
                    f"{s.engine} x {s.workers}",
                    f"{s.computed:,}" if s.end else "",
                    f"{s.failed:,}" if s.end else "",
                ]
                for s in sessions
            ],
        ),
    ]
    if header.packed is not None:
        methods = [f"{name}: {how or 'none'}" for name, how in header.packed.items()]
        parts.insert(2, f"  compressed  {', '.join(methods)}")
    kinds = ["reading", "computing", "writing", "waiting"]
    if kinds[0] in (header.tables["sessions"].names or ()):
        spent = [
            [_when(s.start), *(format_seconds(getattr(s, kind)) for kind in kinds)]
            for s in sessions
            if s.end
        ]
        parts += ["", table(["time of workers", *kinds], spent)] if spent else []
    parts += _environments(run)
    failures = run.failures()
    if failures:
        shape = header.map_shape
        rows = [
            [name_of_position(f.position, shape), f.exception, f.message]
            for f in failures[:20]
        ]
        parts += ["", table(["failed position", "exception", "message"], rows)]
        failed = Status.now(run).failed
        if failed > len(rows):
            parts.append(f"and {failed - len(rows):,} more; see results.failures")
    lines = run.log()
    if lines:
        rows = [
            [_when(line.time), line.level, str(line.pid), line.message]
            for line in lines[-_LOG_SHOWN:]
        ]
        parts += ["", table(["logged", "level", "process", "message"], rows)]
        if len(lines) > len(rows):
            parts.append(f"and {len(lines) - len(rows):,} before; see results.log")
    return "\n".join(parts)


def tree_text(name: str, listing: Listing) -> str:
    """List datasets that can be computed over, and count what cannot."""
    rows = [
        [
            entry.name,
            " x ".join(map(str, entry.shape)),
            shortened(entry.dtype, 40),
            format_bytes(entry.size),
            entry.role,
        ]
        for entry in listing.entries
    ]
    lines = [f"{shown(name)} has {listing.nothing}"]
    if rows:
        lines = [table(["dataset", "shape", "dtype", "size", ""], rows)]
    lines += [
        f"not listed: {count:,}, each {shown(why)}"
        for why, count in listing.others.items()
    ]
    lines += [shown(text) for text in listing.unreadable]
    if not listing.whole:
        lines.append("there is more in the file; name a group of it: FILE::/GROUP")
    return "\n".join(lines)
