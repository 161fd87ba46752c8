"""Resumable per-position computation over HDF5.

Subclass :class:`Process`, try it with ``test``, run it with ``compute``; killed,
run it again and it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from resumable.model import Output, Plan
from resumable.process import Process, share_parameter
from resumable.process import map_function as map
from resumable.results import Results
from resumable.results import open_results as open
from resumable.system import lazily as _lazily
from resumable.version import __version__ as __version__

if TYPE_CHECKING:
    from resumable import testing as testing
    from resumable.engines import MPIEngine
    from resumable.pool import Operators, Pool
    from resumable.process import Chain, load, main, verify
    from resumable.system import shared_array

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
    "share_parameter",
    "shared_array",
    "verify",
]

if not TYPE_CHECKING:  # a type checker would take any other name for one of these
    # Imported when they are used: most runs do without.
    __getattr__ = _lazily(
        __name__,
        Chain="process",
        MPIEngine="engines",
        Operators="pool",
        Pool="pool",
        load="process",
        main="process",
        shared_array="system",
        testing="testing",
        verify="process",
    )
