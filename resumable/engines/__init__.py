"""Who computes: one protocol, and an engine per way to have workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.engines import base
from resumable.engines.base import Engine
from resumable.system import lazily

if TYPE_CHECKING:
    from resumable.engines.mpi import MPIEngine

__all__ = [
    "Engine",
    "MPIEngine",
    "base",
]

# Imported when they are used: most runs do without.
__getattr__ = lazily(
    __name__,
    MPIEngine="mpi",
)
