"""The MPI engine: every rank of a job computes.

All ranks run the user's script, and all of them call ``compute``. There rank 0
does what a laptop does: it looks, plans, makes the run file and finishes. The
others follow: they compute with it, and return or raise what it returns or raises.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.engines.counter import make_counter
from resumable.engines.messages import RankMessages, naps
from resumable.engines.ranks import (
    HELLO,
    OUTCOME,
    SIGNAL,
    WORK,
    OtherRank,
    RankZero,
    Work,
    deliver,
    packed,
    travelling,
    unpacked,
)
from resumable.errors import NotFinished, PlanError, WorkerDied
from resumable.model import TRIALS, Remainder, differences
from resumable.results import Results
from resumable.system import StopRequest, machine, stopped
from resumable.system import launcher as world

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from resumable.engines.base import Driver
    from resumable.worker import Job

#: Where MPI has not started after this time, in s, so many ranks show that they wait:
#: all would be too many, and one may be the one that does not come.
_PATIENCE_S, _TELLING = 60.0, 2


class _Hello(NamedTuple):
    """What rank 0 must know of a rank before it begins."""

    rank_on_host: int
    """Which of the ranks on its host it is."""
    ranks_on_host: int
    """How many there are."""
    available_memory: int
    """Bytes that can be used on its host."""
    request: dict[str, Any] | None
    """What it asks for."""
    error: bytes | None
    """The exception that it raised instead."""


class _Outcome(NamedTuple):
    """What ``compute`` comes to, on every rank."""

    path: Path | None
    """The run file, where there is one."""
    message: str | None = None
    """Why the run is not finished, when it was stopped."""
    error: bytes | None = None
    """The exception that ended it."""

    @classmethod
    def of(cls, error: BaseException) -> _Outcome:
        """Describe what rank 0 raises."""
        if isinstance(error, NotFinished):
            return cls(error.results and error.results.path, error.message)
        return cls(None, None, travelling(error))

    def settle(self) -> Results:
        """Return or raise what rank 0 does."""
        if self.error is not None:
            raise world.raised_by_all(unpacked(self.error), shown=False)
        results = Results(self.path) if self.path is not None else None
        if self.message is not None or results is None:
            raise NotFinished(self.message or "", results)
        return results


class MPIEngine:
    """Every rank of a communicator computes; all of them call ``compute``.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        Whose ranks; default all of the job (``MPI.COMM_WORLD``).
    one_sided : bool
        Ranks take positions from a counter in the memory of rank 0. False deals
        them out in turn instead, for an MPI whose one-sided operations are broken.

    Notes
    -----
    ``engine="auto"`` is this engine in a script that ``mpiexec`` has started with
    more than one rank. MPI itself is not touched before ``compute``.
    """

    name = "mpi"
    own_processes = False
    can_replace = False

    def __init__(self, comm: Any = None, *, one_sided: bool = True) -> None:
        self._comm, self._one_sided = comm, one_sided
        self._team: RankMessages | None = None
        self._hellos: list[_Hello] = []
        self._early = StopRequest()

    @property
    def workers(self) -> int:
        """Number of ranks."""
        return sum(self.hosts)

    @property
    def hosts(self) -> tuple[int, ...]:
        """Number of ranks on each host; before compute as the launcher says it."""
        if self._hellos:
            return tuple(h.ranks_on_host for h in self._hellos if h.rank_on_host == 0)
        count = self._comm.size if self._comm is not None else world.ranks()
        each = min(count, world.ranks_on_host())
        return (each,) * (count // each) + ((count % each,) if count % each else ())

    def available_memory(self) -> int:
        """Bytes that can still be used on the host that has least."""
        asked = [hello.available_memory for hello in self._hellos]
        return min(asked, default=machine.available_memory())

    def together(
        self,
        process: Any,
        request: Callable[[], dict[str, Any]],
        drive: Callable[[], Results],
        time_limit: float | str | None,
    ) -> Results:
        """Have rank 0 drive; return or raise on every rank what it does."""
        team = self._team = self._joined()
        team.begin()
        hello = self._hello(team, request)
        if team.rank > 0:
            outcome: _Outcome = OtherRank(team, process, time_limit).follow(hello)
            return outcome.settle()
        self._early = StopRequest()
        try:
            with self._early.watching():
                self._hellos = self._greeted(team, hello)
                results = drive()
                self._hear_of_signals(team)
            self._end_if_told(results)
        except BaseException as error:
            team.tell_all(OUTCOME, _Outcome.of(error))
            world.raised_by_all(error, shown=True)
            raise
        team.tell_all(OUTCOME, _Outcome(results.path))
        if self._early.signal_number is not None:
            deliver(self._early.signal_number)
        return results

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Take every rank that has a seat through a session."""
        team = self._team
        if team is None:
            msg = "MPIEngine computes only for Process.compute, on all ranks"
            raise PlanError(msg)
        if self._early.signal_number is not None:
            deliver(self._early.signal_number)
            self._early = StopRequest()
        seats = self._seats(workers)
        plain = job._replace(process=None)
        room = Remainder.room(driver.schedule.pending, TRIALS)
        one_sided, count = self._one_sided, len(seats)
        for rank in range(1, team.size):
            work = Work(plain, seats.get(rank), count, one_sided, room)
            team.tell(rank, WORK, work)
        counter = make_counter(team, 0, count, one_sided=one_sided, room=room)
        with team.progressing():
            RankZero(team, counter, driver, sorted(seats)[1:]).work(job)

    def _joined(self) -> RankMessages:
        """Start MPI if need be, and check that it is the launcher's."""
        if self._comm is None and world.is_mpi_pool():
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
                f"MPI needs mpi4py, which cannot be imported ({error}) by one of "
                f"{world.ranks()} ranks; pip install 'resumable-hdf5[mpi]', or give "
                "engine='local' and start one process"
            )
            raise PlanError(msg) from error
        started = world.ranks()
        if MPI.COMM_WORLD.size == 1 and started > 1:
            library = MPI.Get_library_version().split(",")[0].splitlines()[0]
            msg = (
                f"mpiexec started {started} processes, but for the MPI of mpi4py "
                f"({library}) each of them is alone: it is not the MPI that mpiexec "
                "belongs to. Start the script with that MPI's own mpiexec"
            )
            raise PlanError(msg)
        comm = MPI.COMM_WORLD if self._comm is None else self._comm
        if comm.Is_inter():
            msg = "MPIEngine needs an intracommunicator, not an intercommunicator"
            raise PlanError(msg)
        world.end_all_on_error(MPI.COMM_WORLD.size)
        return RankMessages.of(comm)

    def _hello(
        self, team: RankMessages, request: Callable[[], dict[str, Any]]
    ) -> _Hello:
        asked, error = None, None
        try:
            asked = request()
        except Exception as failed:
            error = packed(failed, team.rank)
        return _Hello(
            team.rank_on_host,
            team.ranks_on_host,
            machine.available_memory(),
            asked,
            error,
        )

    def _greeted(self, team: RankMessages, own: _Hello) -> list[_Hello]:
        """Wait for all ranks; return what they say, when they ask for the same."""
        hellos = {0: own}
        pause = naps("the other ranks")
        while len(hellos) < team.size:
            team.look()
            for message in team.inbox:
                if message.kind == HELLO:
                    hellos[message.rank] = message.content
                elif message.kind == SIGNAL:
                    deliver(message.content)
            team.inbox.clear()
            if team.left - hellos.keys():
                msg = (
                    f"rank {min(team.left - hellos.keys())} ended without calling "
                    "compute(), which all ranks must"
                )
                raise WorkerDied(msg)
            if self._early.requested:
                msg = f"{self._early.reason} before anything was computed"
                raise NotFinished(msg)
            next(pause)
        for rank, hello in sorted(hellos.items()):
            if hello.error is not None:
                raise unpacked(hello.error)
            if hello.request != own.request:
                told = differences(hello.request, own.request)
                msg = (
                    f"rank {rank} asks for something else than rank 0 ("
                    f"{'; '.join(told[:3])}); all ranks must call compute() with the "
                    "same process and arguments"
                )
                raise PlanError(msg)
        return [hello for _, hello in sorted(hellos.items())]

    def _hear_of_signals(self, team: RankMessages) -> None:
        """Note a signal that has come to another rank since rank 0 last listened."""
        team.look()
        for message in team.inbox:
            # Once: a second Ctrl-C would mean something else.
            if message.kind == SIGNAL and self._early.signal_number is None:
                deliver(message.content)

    def _end_if_told(self, results: Results) -> None:
        """End the script by a signal that came when it could stop nothing here.

        Without MPI it would have ended it at once. Not where the script has asked for
        the signal: it gets it when the others know the outcome.
        """
        number = self._early.signal_number
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            raise stopped(self._early, results)

    def _seats(self, workers: int) -> dict[int, int]:
        """Return the ranks that compute, as many on each host as the memory allows."""
        order = sorted(
            range(len(self._hellos)), key=lambda r: (self._hellos[r].rank_on_host, r)
        )
        return {rank: seat for seat, rank in enumerate(order[:workers])}


def start_mpi_when_every_rank_has_come() -> Any:
    """Return MPI, which the first import starts.

    Until the last rank has come the interpreter stands still in it, its threads and
    signal handlers, too. Should one have ended, not every launcher tells; then a
    traceback that names this function is all that can be shown.
    """
    with contextlib.ExitStack() as stack:
        if "mpi4py.MPI" not in sys.modules and world.rank() < _TELLING:
            with contextlib.suppress(AttributeError, OSError, ValueError):
                faulthandler.dump_traceback_later(_PATIENCE_S, file=sys.stderr)
                stack.callback(faulthandler.cancel_dump_traceback_later)
        from mpi4py import MPI
    return MPI


@functools.cache
def of_world() -> MPIEngine:
    """Return the engine of all ranks of the job."""
    return MPIEngine()
