"""Who computes: one protocol, and an engine per way to have workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.engines.base import CollectiveEngine, Driver, Engine
from resumable.engines.choice import (
    available_memory,
    check_name,
    choose,
    collective,
    on_one_host,
    warm_up,
    workers_by_host,
)
from resumable.system import lazily

if TYPE_CHECKING:
    from resumable.engines.mpi import MPIEngine

__all__ = [
    "CollectiveEngine",
    "Driver",
    "Engine",
    "MPIEngine",
    "available_memory",
    "check_name",
    "choose",
    "collective",
    "on_one_host",
    "warm_up",
    "workers_by_host",
]

# Imported when they are used: most runs do without.
__getattr__ = lazily(__name__, MPIEngine="mpi")
