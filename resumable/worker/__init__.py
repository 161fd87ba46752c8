"""One batch of positions, and the processes that workers live in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.system import lazily
from resumable.worker.compute import Computer, listed, twin_of, uncached
from resumable.worker.cursor import (
    IDLE,
    WHOLE_BLOCK,
    Cursor,
    StageCursor,
    generator_of,
    new_pulse,
)
from resumable.worker.job import Job, Loss, Report
from resumable.worker.warnings import WarningCounts, present_filters
from resumable.worker.work import Worker, describe

if TYPE_CHECKING:
    from resumable.worker.call import Answer, Call, Death, cause_of, died
    from resumable.worker.parcel import Arrays
    from resumable.worker.pickling import packed
    from resumable.worker.processes import WorkerProcesses
    from resumable.worker.remote import (
        RemoteTraceback,
        log_here,
        lowest_level,
        plain_record,
        portable,
    )
    from resumable.worker.server import start_server
    from resumable.worker.serving import Line

__all__ = [
    "IDLE",
    "WHOLE_BLOCK",
    "Answer",
    "Arrays",
    "Call",
    "Computer",
    "Cursor",
    "Death",
    "Job",
    "Line",
    "Loss",
    "RemoteTraceback",
    "Report",
    "StageCursor",
    "WarningCounts",
    "Worker",
    "WorkerProcesses",
    "cause_of",
    "describe",
    "died",
    "generator_of",
    "listed",
    "log_here",
    "lowest_level",
    "new_pulse",
    "packed",
    "plain_record",
    "portable",
    "present_filters",
    "start_server",
    "twin_of",
    "uncached",
]

# Imported when they are used: most runs do without.
__getattr__ = lazily(
    __name__,
    Answer="call",
    Arrays="parcel",
    Call="call",
    Death="call",
    Line="serving",
    RemoteTraceback="remote",
    WorkerProcesses="processes",
    cause_of="call",
    died="call",
    log_here="remote",
    lowest_level="remote",
    packed="pickling",
    plain_record="remote",
    portable="remote",
    start_server="server",
)
