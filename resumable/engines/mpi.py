"""The MPI engine: every rank of a job computes.

All ranks run the user's script, and all of them call ``compute``. There rank 0
does what one process does: it looks, plans, makes the run file and finishes. The
others compute with it, and return or raise what rank 0 returns or raises.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import importlib.util
import pickle
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.engines.counter import make_counter
from resumable.engines.messages import RankMessages, naps
from resumable.engines.ranks import (
    INFO,
    OUTCOME,
    SESSION,
    SIGNAL,
    OtherRank,
    RankJob,
    RankZero,
    deliver,
    error_of_rank,
    to_bytes,
)
from resumable.errors import NotFinished, PlanError, WorkerDied, option, wrong
from resumable.model import PROBES, Remainder, check_flag, differences
from resumable.results import Results
from resumable.system import (
    Limit,
    StopRequest,
    launcher,
    least,
    machine,
    put_back_handlers,
    stopped,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from resumable.engines.base import Driver
    from resumable.worker import Job

#: Where MPI has not started after this time, in s, the first ranks show that they wait:
#: not all, and more than one, which may be the one that does not come.
_PATIENCE_S, _SHOWN_RANKS = 60.0, 2


class RankInfo(NamedTuple):
    """What rank 0 must know of a rank before it begins."""

    rank_on_host: int  # which of the ranks on its host it is
    ranks_on_host: int  # how many there are
    host_memory: Limit  # bytes that its host has left
    request: dict[str, Any] | None  # the computation it asks for
    error: bytes | None  # the exception that it raised instead


class _Outcome(NamedTuple):
    """What ``compute`` returns or raises on every rank."""

    path: Path | None  # of the run file, where there is one
    message: str | None = None  # why the run is not finished, when it was stopped
    error: bytes | None = None  # the exception that ended it

    @classmethod
    def of(cls, error: BaseException) -> _Outcome:
        if isinstance(error, NotFinished):
            return cls(error.results and error.results.path, error.message)
        return cls(None, None, to_bytes(error))

    def result(self) -> Results:
        if self.error is not None:
            raise launcher.raised_by_all(pickle.loads(self.error), shown=False)
        results = Results(self.path) if self.path is not None else None
        if self.message is not None or results is None:
            raise NotFinished(self.message or "", results)
        return results


class MPIEngine:
    """All ranks of a communicator compute; all of them call ``compute``.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        Default all ranks of the job (``MPI.COMM_WORLD``).
    one_sided : bool
        Ranks take positions from a counter in the memory of rank 0. With False the
        positions are divided in advance, for an MPI whose one-sided operations do
        not work.

    Notes
    -----
    ``engine="auto"`` is this engine in a script that ``mpiexec`` has started with
    more than one rank. MPI itself is not touched before ``compute``.
    """

    name = "mpi"
    own_processes = False
    can_replace = False

    def __init__(self, comm: Any = None, *, one_sided: bool = True) -> None:
        check_flag(PlanError, "one_sided", one_sided)
        self._comm, self._one_sided = comm, one_sided
        self._messages: RankMessages | None = None
        self._infos: list[RankInfo] = []
        # Notes signals that come while there is no session to stop.
        self._early = StopRequest()

    @property
    def workers(self) -> int:
        """Number of ranks."""
        return sum(self.hosts)

    @property
    def hosts(self) -> tuple[int, ...]:
        """Number of ranks on each host; before compute as the launcher says it."""
        if self._infos:
            return tuple(i.ranks_on_host for i in self._infos if i.rank_on_host == 0)
        count = self._comm.size if self._comm is not None else launcher.ranks()
        each = min(count, launcher.ranks_on_host())
        return (each,) * (count // each) + ((count % each,) if count % each else ())

    def host_memory(self) -> Limit:
        """Return the bytes that the host with the least has left."""
        known = [info.host_memory for info in self._infos]
        return least(known or [machine.host_memory()])

    def together(
        self,
        process: Any,
        request: Callable[[], tuple[dict[str, Any], Callable[[], list[str]]]],
        drive: Callable[[], Results],
        time_limit: float | str | None,
    ) -> Results:
        """Have rank 0 drive; return or raise on every rank what rank 0 does."""
        messages = self._messages = self._joined()
        messages.begin()
        asked, failed = None, None
        changed: Callable[[], list[str]] = list
        try:
            asked, changed = request()
        except Exception as error:
            failed = error_of_rank(error, messages.rank)
        info = RankInfo(
            messages.rank_on_host,
            messages.ranks_on_host,
            machine.host_memory(),
            asked,
            failed,
        )
        if messages.rank > 0:
            rank = OtherRank(messages, process, time_limit, changed)
            outcome: _Outcome = rank.follow(info)
            return outcome.result()
        self._early = StopRequest()
        try:
            with self._early.watching():
                self._infos = self._all_infos(messages, info)
                results = drive()
                messages.look()
                for message in messages.inbox:
                    # Once: a second Ctrl-C would mean something else.
                    if message.kind == SIGNAL and self._early.signal_number is None:
                        deliver(message.content)
            self._end_if_signalled(results)
        except BaseException as error:
            messages.send_all(OUTCOME, _Outcome.of(error))
            launcher.raised_by_all(error, shown=True)
            raise
        messages.send_all(OUTCOME, _Outcome(results.path))
        if self._early.signal_number is not None:
            deliver(self._early.signal_number)
        return results

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Have a session computed by as many ranks as the memory allows."""
        messages = self._messages
        if messages is None:
            msg = "MPIEngine computes only for Process.compute, on all ranks"
            raise PlanError(msg)
        if self._early.signal_number is not None:
            deliver(self._early.signal_number)
            self._early = StopRequest()
        # As many ranks on each host compute as the memory allows.
        ranks = range(len(self._infos))
        order = sorted(ranks, key=lambda r: (self._infos[r].rank_on_host, r))
        by_rank = {rank: worker for worker, rank in enumerate(order[:workers])}
        # Every rank has run the script, so it has them.
        plain = job._replace(process=None, settings=None)
        room = Remainder.room(driver.schedule.pending, PROBES)
        one_sided, count = self._one_sided, len(by_rank)
        for rank in range(1, messages.size):
            part = RankJob(plain, by_rank.get(rank), count, one_sided, room)
            messages.send(rank, SESSION, part)
        counter = make_counter(messages, 0, count, one_sided=one_sided, room=room)
        with messages.progressing():
            RankZero(messages, counter, driver, sorted(by_rank)[1:]).work(job)

    def _joined(self) -> RankMessages:
        """Start MPI if need be, and check that it is the one of the launcher."""
        if self._comm is None and launcher.is_mpi_pool():
            msg = (
                "under 'python -m mpi4py.futures' only rank 0 runs the script and the "
                "others wait for tasks: leave '-m mpi4py.futures' out to compute with "
                "all ranks, or give another engine"
            )
            raise PlanError(msg)
        try:
            MPI = start_mpi_when_every_rank_has_come()  # noqa: N806 - its name
        except (ImportError, RuntimeError) as error:
            msg = (
                f"MPI needs mpi4py, which {_why_not(error)}. Or give "
                f"{option('engine', 'local')} and start one process"
            )
            raise PlanError(msg) from error
        started = launcher.ranks()
        if MPI.COMM_WORLD.size == 1 and started > 1:
            library = MPI.Get_library_version().split(",")[0].splitlines()[0]
            msg = (
                f"mpiexec started {started} processes, but for the MPI of mpi4py "
                f"({library}) each of them is alone: it is not the MPI that mpiexec "
                "belongs to. Start the script with that MPI's own mpiexec"
            )
            raise PlanError(msg)
        comm = MPI.COMM_WORLD if self._comm is None else self._comm
        if not hasattr(comm, "Is_inter"):
            raise wrong(PlanError, "comm", comm, "a communicator of mpi4py")
        if comm.Is_inter():
            msg = "MPIEngine needs an intracommunicator, not an intercommunicator"
            raise PlanError(msg)
        launcher.end_all_on_error(MPI.COMM_WORLD.size)
        return RankMessages.of(comm)

    def _all_infos(self, messages: RankMessages, own: RankInfo) -> list[RankInfo]:
        """Wait for all ranks; return what they say, when they ask for the same."""
        infos = {0: own}
        pause = naps("the other ranks")
        while len(infos) < messages.size:
            messages.look()
            for message in messages.inbox:
                if message.kind == INFO:
                    infos[message.rank] = message.content
                elif message.kind == SIGNAL:
                    deliver(message.content)
            messages.inbox.clear()
            if messages.left - infos.keys():
                msg = (
                    f"rank {min(messages.left - infos.keys())} ended without calling "
                    "compute(), which all ranks must"
                )
                raise WorkerDied(msg)
            if self._early.requested():
                msg = f"{self._early.reason} before anything was computed"
                raise NotFinished(msg)
            next(pause)
        for rank, info in sorted(infos.items()):
            if info.error is not None:
                raise pickle.loads(info.error)
            if info.request != own.request:
                what = differences(info.request, own.request)
                msg = (
                    f"rank {rank} asks for something else than rank 0 ("
                    f"{'; '.join(what[:3])}); all ranks must call compute() with the "
                    "same process and arguments"
                )
                if any(item.startswith(("code", "version.code")) for item in what):
                    msg += (
                        ", and its code must be the same. Is there a global variable "
                        "that holds the rank? Ask MPI in setup(), or declare a version"
                    )
                raise PlanError(msg)
        return [info for _, info in sorted(infos.items())]

    def _end_if_signalled(self, results: Results) -> None:
        """End the script by a signal that came when there was nothing to stop.

        Without MPI it would have ended the script at once. Not where the script has a
        handler for the signal: that is called when the others know the outcome.
        """
        number = self._early.signal_number
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            raise stopped(self._early, results)


def _why_not(error: Exception) -> str:
    """Say why mpi4py cannot be imported, and what to do."""
    count = launcher.ranks(ask_mpi=False)
    who = f"one of {count} ranks" if count > 1 else "this process"
    if importlib.util.find_spec("mpi4py") is None:
        return f"is not installed for {who}; pip install 'resumable-hdf5[mpi]'"
    why = str(error).splitlines()[0]
    return (
        f"cannot be imported by {who}: it is installed and finds no MPI library "
        f"({why}). Load the MPI module of the cluster (module avail), or on a machine "
        "without one: pip install mpich"
    )


def start_mpi_when_every_rank_has_come() -> Any:
    """Return MPI, which the first import starts.

    The import returns when the last rank has called it; until then no thread and no
    signal handler of Python runs. Not every launcher says when a rank has ended before;
    then a traceback that names this function is all that can be shown.
    """
    with contextlib.ExitStack() as stack:
        if "mpi4py.MPI" not in sys.modules and launcher.rank() < _SHOWN_RANKS:
            with contextlib.suppress(AttributeError, OSError, ValueError):
                faulthandler.dump_traceback_later(_PATIENCE_S, file=sys.stderr)
                stack.callback(faulthandler.cancel_dump_traceback_later)
        from mpi4py import MPI
    put_back_handlers()
    return MPI


@functools.cache
def of_world() -> MPIEngine:
    """Return the engine of all ranks of the job."""
    return MPIEngine()
