"""What platforms, launchers and schedulers do differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.system import disk, forks, launcher, machine
from resumable.system.disk import (
    FULL,
    OpenFile,
    opened,
    read_at,
    read_into,
    replace,
    reserve,
    sync,
    sync_folder,
    try_lock,
    wait_until,
    write_at,
)
from resumable.system.machine import WORKER_VARIABLES, usable_cores
from resumable.system.signals import end_put_off, leave_to_driver
from resumable.system.stop import StopRequest, stopped

if TYPE_CHECKING:
    from resumable.system.interrupts import Uninterrupted
    from resumable.system.shared_memory import (
        Memory,
        mapped,
        nameless,
        shared_array,
        where_shared,
    )
from resumable.system.lazy import lazily

__all__ = [
    "FULL",
    "WORKER_VARIABLES",
    "Memory",
    "OpenFile",
    "StopRequest",
    "Uninterrupted",
    "disk",
    "end_put_off",
    "forks",
    "launcher",
    "lazily",
    "leave_to_driver",
    "machine",
    "mapped",
    "nameless",
    "opened",
    "read_at",
    "read_into",
    "replace",
    "reserve",
    "shared_array",
    "stopped",
    "sync",
    "sync_folder",
    "try_lock",
    "usable_cores",
    "wait_until",
    "where_shared",
    "write_at",
]

# Imported when they are used: most runs do without.
__getattr__ = lazily(
    __name__,
    Memory="shared_memory",
    Uninterrupted="interrupts",
    mapped="shared_memory",
    nameless="shared_memory",
    shared_array="shared_memory",
    where_shared="shared_memory",
)
