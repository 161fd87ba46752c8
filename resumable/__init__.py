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
from resumable.model.output import Output
from resumable.model.plan import Plan
from resumable.process.function import map_function as map
from resumable.process.parameters import share
from resumable.process.process import Process
from resumable.results.results import Results
from resumable.results.results import open_results as open
from resumable.version import __version__ as __version__

if TYPE_CHECKING:
    from resumable.engines.mpi import MPIEngine
    from resumable.pool.memory import shared
    from resumable.pool.operators import Operators
    from resumable.pool.pool import Pool
    from resumable.process.chain import Chain
    from resumable.process.load import load
    from resumable.process.script import main
    from resumable.process.verify import verify

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
    "Chain": "process.chain",
    "MPIEngine": "engines.mpi",
    "Operators": "pool.operators",
    "Pool": "pool.pool",
    "load": "process.load",
    "main": "process.script",
    "shared": "pool.memory",
    "verify": "process.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value
