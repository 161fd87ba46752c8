"""What an MPI launcher tells this process, read from the environment without MPI.

And the end of all ranks when one of them fails alone, for which the others would wait
until the job's time is up.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

# As Open MPI, MPICH and its kin (also srun --mpi=pmi2), and MVAPICH name them.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = (
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "MV2_COMM_WORLD_RANK",
    "PMIX_RANK",
    "PALS_RANKID",
)
_ON_HOST = (
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "PMI_LOCAL_SIZE",
    "MV2_COMM_WORLD_LOCAL_SIZE",
    "PALS_LOCAL_SIZE",
)
#: Set by srun in the processes of a step. SLURM_NTASKS is not looked at: a batch script
#: has it, too, which is one process.
_STEP_SIZE = ("SLURM_STEP_NUM_TASKS",)
_STEP_ON_HOST = "SLURM_STEP_TASKS_PER_NODE"
#: A rank that fails before MPI is in use ends by SIGALRM after so many seconds: some
#: launchers notice the signal and not an exit code.
_BEFORE_MPI_S = 10

#: Attribute of an exception that all ranks raise: whether this rank prints it.
_ALL = "_resumable_of_all_ranks"
_hook_before: Any = None
#: This rank ends all ranks at its exit.
aborting = False


def _number(names: tuple[str, ...]) -> int | None:
    for name in names:
        text = os.environ.get(name, "")
        if text.isdigit():
            return int(text)
    return None


def rank() -> int:
    """Return which rank a launcher started this process as, 0 where none did."""
    return _number(_RANKS) or 0


def ranks(*, ask_mpi: bool = True) -> int:
    """Return how many ranks a launcher started, 1 where none did.

    Also 1 where only MPI itself knows, unless it may be asked, which may start it.
    """
    if _number(_RANKS) is None:
        return 1
    known = _number(_SIZES) or _number(_STEP_SIZE)
    if known or not ask_mpi:
        return known or 1
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return 1  # mpi4py is missing, or finds no MPI library
    return int(MPI.COMM_WORLD.size)


def ranks_on_host(*, ask_mpi: bool = True) -> int:
    """Return how many of the ranks are on this host, as far as it is known.

    Tasks of ``srun`` that do not use MPI count, too. `ask_mpi` is as in :func:`ranks`.
    """
    known = _number(_ON_HOST) or tasks_on_node(_STEP_ON_HOST)
    return max(1, known or ranks(ask_mpi=ask_mpi))


def tasks_on_node(name: str) -> int | None:
    """Return what a variable of Slurm such as ``2(x3),1`` says of this node."""
    counts: list[int] = []
    for part in os.environ.get(name, "").split(","):
        count, _, times = part.rstrip(")").partition("(x")
        if count.isdigit():
            counts += [int(count)] * int(times or 1)
    number = _number(("SLURM_NODEID",)) or 0
    return counts[number] if number < len(counts) else None


def is_mpi_pool() -> bool:
    """Return whether this is ``python -m mpi4py.futures``, whose ranks serve rank 0."""
    return sys.orig_argv[1:3] == ["-m", "mpi4py.futures"]


def end_all_on_error(count: int | None = None) -> None:
    """Have an exception that is not caught in this rank end all ranks."""
    global _hook_before
    if sys.excepthook is not _end_all and (count or ranks()) > 1 and not is_mpi_pool():
        _hook_before, sys.excepthook = sys.excepthook, _end_all


def end_alone() -> None:
    """Undo :func:`end_all_on_error`: each rank computes for itself."""
    if sys.excepthook is _end_all:
        sys.excepthook = _hook_before


def raised_by_all(error: BaseException, *, shown: bool) -> BaseException:
    """Mark an exception that every rank raises; it is printed only where `shown`."""
    setattr(error, _ALL, shown)
    return error


def is_shown_elsewhere(error: BaseException) -> bool:
    """Return whether another rank prints this exception."""
    return getattr(error, _ALL, None) is False


def abort_at_exit(error: BaseException) -> None:
    """Have all ranks end with this one, unless they all raise the same exception."""
    global aborting
    if sys.excepthook is not _end_all or hasattr(error, _ALL):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    timed = hasattr(signal, "SIGALRM") and "mpi4py.MPI" not in sys.modules
    if timed:
        # Importing MPI waits for all ranks. If one never does, SIGALRM ends this.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_BEFORE_MPI_S)
    try:
        from mpi4py import MPI  # noqa: F401 - set_abort_status needs it
        from mpi4py.run import set_abort_status
    except (ImportError, RuntimeError):
        return  # no rank can start MPI, so none waits for this one in it
    finally:
        if timed:
            signal.alarm(0)
    aborting = True
    interrupted = isinstance(error, KeyboardInterrupt)
    set_abort_status(128 + signal.SIGINT if interrupted else 1)


def _end_all(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not is_shown_elsewhere(error):
        _hook_before(kind, error, trace)
        abort_at_exit(error)
