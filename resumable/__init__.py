"""Resumable per-position computation over HDF5.

Subclass :class:`Process`, try it with ``test``, run it with ``compute``; killed,
run it again and it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    StaleLinearization,
    TargetError,
    UnitFailed,
    WorkerDied,
)
from resumable.mapping import map_function as map
from resumable.output import Output
from resumable.plan import Plan
from resumable.process import Process
from resumable.results import Results
from resumable.results import open_results as open
from resumable.sharing import share

if TYPE_CHECKING:
    from resumable.chain import Chain
    from resumable.checking import verify
    from resumable.engines.mpi import MPIEngine
    from resumable.loading import load
    from resumable.memory import shared
    from resumable.operators import Operators
    from resumable.pool import Pool
    from resumable.script import main

__version__ = "0.1.0"

__all__ = [
    "Chain",
    "DeclarationError",
    "IdentityError",
    "MPIEngine",
    "NotFinished",
    "Operators",
    "Output",
    "OutputError",
    "ParameterError",
    "Plan",
    "PlanError",
    "Pool",
    "Process",
    "Results",
    "ResumableError",
    "ResumableWarning",
    "RunBusy",
    "RunFileError",
    "SourceError",
    "StaleLinearization",
    "TargetError",
    "UnitFailed",
    "WorkerDied",
    "load",
    "main",
    "map",
    "open",
    "share",
    "shared",
    "verify",
]

# Imported when they are used: most runs do without.
_LATER = {
    "Chain": "chain",
    "MPIEngine": "engines.mpi",
    "Operators": "operators",
    "Pool": "pool",
    "load": "loading",
    "main": "script",
    "shared": "memory",
    "verify": "checking",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value
