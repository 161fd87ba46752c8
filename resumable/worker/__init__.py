"""One batch of positions, and the processes that workers live in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.system import lazily
from resumable.worker.compute import (
    Computer,
    UnitLoop,
    computation_of,
    rows_as_list,
    shallow_copy,
    uncached,
)
from resumable.worker.cursor import (
    IDLE,
    WHOLE_BLOCK,
    Cursor,
    Positioned,
    StageCursor,
    generator_of,
)
from resumable.worker.job import Job, Loss, Report
from resumable.worker.settings import Settings, kept_settings, settings_here
from resumable.worker.warnings import WarningCounts, kept_filters, warning_filters
from resumable.worker.work import Worker, describe

if TYPE_CHECKING:
    from resumable.worker.call import (
        Answer,
        Call,
        Death,
        RemoteTraceback,
        cause_of_death,
        death_error,
        log_here,
        lowest_level,
        plain_record,
        portable,
    )
    from resumable.worker.processes import WorkerProcesses
    from resumable.worker.server import start_server
    from resumable.worker.serving import ParentConnection
    from resumable.worker.transport import Arrays, packed

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
    "Loss",
    "ParentConnection",
    "Positioned",
    "RemoteTraceback",
    "Report",
    "Settings",
    "StageCursor",
    "UnitLoop",
    "WarningCounts",
    "Worker",
    "WorkerProcesses",
    "cause_of_death",
    "computation_of",
    "death_error",
    "describe",
    "generator_of",
    "kept_filters",
    "kept_settings",
    "log_here",
    "lowest_level",
    "packed",
    "plain_record",
    "portable",
    "rows_as_list",
    "settings_here",
    "shallow_copy",
    "start_server",
    "uncached",
    "warning_filters",
]

# Imported when they are used: most runs do without.
__getattr__ = lazily(
    __name__,
    **dict.fromkeys(("Answer", "Call", "Death", "RemoteTraceback"), "call"),
    **dict.fromkeys(("cause_of_death", "death_error", "portable"), "call"),
    **dict.fromkeys(("log_here", "lowest_level", "plain_record"), "call"),
    ParentConnection="serving",
    WorkerProcesses="processes",
    start_server="server",
    **dict.fromkeys(("Arrays", "packed"), "transport"),
)
