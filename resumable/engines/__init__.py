"""Engines: who computes. An engine only hands out batches.

The driver gives it a :class:`~resumable.batch.Job` and itself, as a
:class:`Driver`; what a batch is and what becomes of its report is not the
engine's business. A new engine is one module with a class that has ``name``,
``workers`` and ``run``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from resumable import machine
from resumable.errors import PlanError, near_miss

if TYPE_CHECKING:
    from resumable.batch import Job, Loss, Report
    from resumable.positions import Batch

#: Engines by the name a user gives.
NAMES = ("auto", "serial", "local", "dask")


class Driver(Protocol):
    """What an engine sees of the driver."""

    def next(self, seconds: float | None = None) -> Batch | None:
        """Return the next batch, of at most so many seconds.

        None when none is left, or none while batches at work decide what follows.
        """

    def take(self, report: Report) -> None:
        """Take the report of a batch; raises when the session must stop."""

    def give_back(self, batch: Batch) -> None:
        """Take back a batch that nobody computed."""

    def take_back(self, reports: list[Report]) -> None:
        """Have computed again what these report and what is not marked.

        Their worker has died before its next commit.
        """

    def lost(self, loss: Loss) -> None:
        """Take note that a worker has died; raises when the session must stop."""

    @property
    def stopping(self) -> bool:
        """Batches at work should end early, and no new one begin."""

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds of one worker's work; None before the first batch."""


class Engine(Protocol):
    """Who computes."""

    name: str
    """As the user gives it."""
    workers: int
    """Batches at work at once, if the memory allows."""
    own_processes: bool
    """Workers have processes, so memory, of their own."""
    can_replace: bool
    """A worker that dies or hangs is ended and replaced."""

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Do batches until none is left or the driver is stopping.

        Parameters
        ----------
        job : Job
            What to do.
        driver : Driver
            Has the batches and takes the reports.
        workers : int
            How many at once: what the memory allows of :attr:`workers`.

        Notes
        -----
        On return, also by an exception, everything computed is committed and no
        worker is at work.
        """


def hosts_of(engine: Engine) -> int | None:
    """Return on how many hosts the workers of an engine are; None: not known.

    An engine whose workers can leave this host has an attribute ``hosts``.
    """
    return getattr(engine, "hosts", 1)


def choose(
    engine: Any,
    workers: int | None,
    *,
    may_grow: bool = False,
    in_driver: bool = True,
) -> Engine:
    """Return the engine a user asks for.

    Parameters
    ----------
    engine : str, Engine, concurrent.futures.Executor or distributed.Client
    workers : int, optional
        How many at once; default all there are: cores, or workers of an executor.
    may_grow : bool
        Where their number changes during a run, follow it.
    in_driver : bool
        ``"auto"`` may compute in this process: nothing that would end or block it
        is to be expected of the computation.

    Raises
    ------
    PlanError
        There is none of that name.
    """
    from resumable.engines.local import LocalEngine
    from resumable.engines.serial import SerialEngine

    if not isinstance(engine, str):
        return _given(engine, workers, may_grow)
    if engine not in NAMES:
        hint = near_miss(engine, NAMES)
        msg = f"there is no engine {engine!r}{hint} (there are {', '.join(NAMES)})"
        raise PlanError(msg)
    if engine == "dask":
        from resumable.engines.dask import DaskEngine

        return DaskEngine(None, workers, may_grow=may_grow)
    workers = int(workers or machine.usable_cores())
    begin_here = engine == "auto" and in_driver
    if engine == "serial" or (begin_here and workers == 1):
        return SerialEngine()
    return LocalEngine(workers, begin_here=begin_here)


def _given(engine: Any, workers: int | None, may_grow: bool) -> Engine:
    """Return the engine for an object a user gives."""
    from concurrent.futures import Executor

    if isinstance(engine, Executor):
        from resumable.engines.executor import ExecutorEngine

        return ExecutorEngine(engine, workers)
    # By name: distributed is not imported unless somebody has done so.
    if type(engine).__module__.partition(".")[0] == "distributed":
        from resumable.engines.dask import DaskEngine

        return DaskEngine(engine, workers, may_grow=may_grow)
    if all(hasattr(engine, name) for name in ("name", "workers", "run")):
        chosen: Engine = engine
        return chosen
    msg = (
        f"engine must be one of {', '.join(NAMES)}, an Executor or "
        f"a client of dask, not {engine!r}"
    )
    raise PlanError(msg)
