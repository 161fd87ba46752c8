"""Who computes: one protocol, and an engine per way to have workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.engines.base import CollectiveEngine, Driver, Engine
from resumable.engines.choice import NAMES, choose, collective, warm_up
from resumable.system import lazily

if TYPE_CHECKING:
    from resumable.engines.mpi import MPIEngine

__all__ = [
    "NAMES",
    "CollectiveEngine",
    "Driver",
    "Engine",
    "MPIEngine",
    "choose",
    "collective",
    "warm_up",
]

# Imported when they are used: most runs do without.
__getattr__ = lazily(__name__, MPIEngine="mpi")
