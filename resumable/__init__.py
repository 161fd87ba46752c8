"""Resumable per-position computation over HDF5.

Subclass :class:`Process`, try it with ``test``, run it with ``compute``; killed,
run it again and it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resumable.chain import Chain
from resumable.errors import (
    DeclarationError,
    IdentityError,
    NotFinished,
    OutputError,
    ParameterError,
    PlanError,
    ResumableError,
    ResumableWarning,
    RunBusy,
    RunFileError,
    SourceError,
    TargetError,
    UnitFailed,
    WorkerDied,
)
from resumable.loading import load
from resumable.mapping import map_function as map
from resumable.output import Output
from resumable.plan import Plan
from resumable.process import Process
from resumable.results import Results
from resumable.results import open_results as open
from resumable.script import main
from resumable.sharing import share
from resumable.verify import verify

if TYPE_CHECKING:
    from resumable.engines.mpi import MPIEngine

__version__ = "0.1.0"

__all__ = [
    "Chain",
    "DeclarationError",
    "IdentityError",
    "MPIEngine",
    "NotFinished",
    "Output",
    "OutputError",
    "ParameterError",
    "Plan",
    "PlanError",
    "Process",
    "Results",
    "ResumableError",
    "ResumableWarning",
    "RunBusy",
    "RunFileError",
    "SourceError",
    "TargetError",
    "UnitFailed",
    "WorkerDied",
    "load",
    "main",
    "map",
    "open",
    "share",
    "verify",
]


def __getattr__(name: str) -> Any:
    # Most users never need it.
    if name == "MPIEngine":
        from resumable.engines.mpi import MPIEngine

        return MPIEngine
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
