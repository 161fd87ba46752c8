"""What platforms, launchers and schedulers do differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.system import disk, forks, launcher, machine
from resumable.system.batch import Limit, least
from resumable.system.loading import WorkBegins, begin_work, lazily, loading
from resumable.system.locks import LockFile, OpenFile, open_alone, wait_until
from resumable.system.machine import usable_cores
from resumable.system.signals import (
    Uninterrupted,
    deferred_termination,
    mark_as_worker,
    put_back_handlers,
)
from resumable.system.stop import StopRequest, stopped
from resumable.system.threads import WORKER_VARIABLES, OneThread, find_libraries

if TYPE_CHECKING:
    from resumable.system.shared_memory import (
        Memory,
        find_shared,
        map_memory,
        shared_array,
        unnamed_file,
    )

__all__ = [
    "WORKER_VARIABLES",
    "Limit",
    "LockFile",
    "Memory",
    "OneThread",
    "OpenFile",
    "StopRequest",
    "Uninterrupted",
    "WorkBegins",
    "begin_work",
    "deferred_termination",
    "disk",
    "find_libraries",
    "find_shared",
    "forks",
    "launcher",
    "lazily",
    "least",
    "loading",
    "machine",
    "map_memory",
    "mark_as_worker",
    "open_alone",
    "put_back_handlers",
    "shared_array",
    "stopped",
    "unnamed_file",
    "usable_cores",
    "wait_until",
]

# Imported when they are used: most runs do without.
__getattr__ = lazily(
    __name__,
    **dict.fromkeys(("Memory", "find_shared", "map_memory"), "shared_memory"),
    **dict.fromkeys(("shared_array", "unnamed_file"), "shared_memory"),
)
