"""Why an existing run does or does not match what is wanted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from resumable.errors import RunFileError, shown
from resumable.model import differences
from resumable.results import source_text

if TYPE_CHECKING:
    from pathlib import Path

    from resumable.runfile import RunFile
    from resumable.session.computation import Computation

#: Why a run of a source that can grow is left, though its identity is the same.
CHANGED = "source.contents: not what the source begins with now"
#: How a difference begins that is one of the class's text.
EDITED = "version.source_text"
#: Differences told per run, and lines of a class's text.
_TOLD, _LINES_TOLD = 5, 6


class Candidate(NamedTuple):
    """A run that exists, and how it compares."""

    path: Path
    """Its file."""
    matches: bool
    """It is a run of exactly this computation."""
    finished: bool
    """It is complete."""
    reasons: tuple[str, ...]
    """State, or the first differences, in words."""


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """All runs of a process on a dataset; print it to read it."""

    identity: str
    """Of the wanted run."""
    folder: Path
    """Where was looked."""
    candidates: tuple[Candidate, ...]
    """One per run file."""

    def __str__(self) -> str:
        if not self.candidates:
            return (
                f"no run of this process on this dataset in {shown(self.folder)}; "
                f"compute() would make one with the identity {self.identity[:8]}"
            )
        lines = [f"wanted: identity {self.identity[:8]}, in {shown(self.folder)}"]
        for candidate in self.candidates:
            verdict = "matches" if candidate.matches else "differs"
            lines.append(f"{shown(candidate.path.name)}: {verdict}")
            lines += [
                "    " + reason.replace("\n", "\n        ")
                for reason in candidate.reasons
            ]
        return "\n".join(lines)

    __repr__ = __str__


def explain(computation: Computation, *, lines: bool = True) -> Explanation:
    """Compare every run of this process on this dataset with the wanted one.

    `lines`: show those of an edited class, which reads the text in every run file.
    """
    run_folder = computation.run_folder
    matching = computation.runs()
    paths = {run.path for run in matching}
    candidates = []
    for run in matching:
        done, failed, finished = run.progress()
        what = "unfinished, would be continued"
        if not computation.full_length(run.header):
            what = "of a shorter source, would be copied and continued"
            if run.size == computation.geometry.size:
                what = "of less of the source, would be copied and continued"
        elif finished:
            what = "complete"
        state = f"{what}: {done:,} of {run.size:,} positions done, {failed:,} failed"
        candidates.append(Candidate(run.path, True, finished, (state,)))
    for path, run_or_error in run_folder.opened():
        if isinstance(run_or_error, RunFileError):
            candidates.append(Candidate(path, False, False, (str(run_or_error),)))
        elif run_or_error.header.identity == run_folder.identity and path not in paths:
            candidates.append(Candidate(path, False, run_or_error.finished, (CHANGED,)))
    for run in run_folder.others():
        if run.path in paths:
            continue  # from when the source could still grow
        told = differences(run.header.document, computation.document)
        reasons = [shown(reason) for reason in told[:_TOLD]]
        for number, reason in enumerate(reasons):
            if lines and reason.startswith(EDITED):
                reasons[number] = "\n".join([reason, *_lines(run, computation)])
        if len(told) > _TOLD:
            reasons.append(f"and {len(told) - _TOLD} more")
        candidates.append(Candidate(run.path, False, run.finished, tuple(reasons)))
    return Explanation(run_folder.identity, run_folder.folder, tuple(candidates))


def changed_lines(run: RunFile, computation: Computation) -> list[str]:
    """Return the first lines of the class's text that differ: - there, + here."""
    # Imported here: it costs a millisecond that only an edit needs.
    import difflib

    there, here = source_text(run), computation.request.source_text()
    changed = [
        line
        for line in difflib.unified_diff(
            there.splitlines(), here.splitlines(), n=0, lineterm=""
        )
        if not line.startswith(("---", "+++", "@@"))
    ]
    return [shown(line) for line in changed[:_LINES_TOLD]]


def _lines(run: RunFile, computation: Computation) -> list[str]:
    try:
        return changed_lines(run, computation)
    except RunFileError as error:
        return [str(error)]
