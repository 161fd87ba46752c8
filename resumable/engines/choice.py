"""Which engine computes: the one that a user names or gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resumable.engines.local import LocalEngine, SerialEngine
from resumable.errors import PlanError, in_python, option, wrong
from resumable.model import WORTH_STARTING_S
from resumable.system import forks, launcher, machine

if TYPE_CHECKING:
    from resumable.engines.base import CollectiveEngine, Engine
    from resumable.engines.mpi import MPIEngine

#: A position hardly takes less where its function calls numpy once.
_CALL_S = 2e-6
#: Engines by the name a user gives.
NAMES = ("auto", "serial", "local", "mpi", "dask")


def collective(engine: Any) -> CollectiveEngine | None:
    """Return the engine where all its workers have called ``compute``, else None."""
    chosen: CollectiveEngine | None
    chosen = engine if hasattr(engine, "together") else _mpi(engine)
    if chosen is None:
        # Each rank for itself, so one that fails is no reason for the others to end.
        launcher.end_alone()
    return chosen


def _mpi(engine: Any) -> MPIEngine | None:
    # To ask for the number of ranks may start MPI. Under mpi4py.futures the others wait
    # for work that rank 0 may give them.
    if not isinstance(engine, str) or engine not in ("mpi", "auto"):
        return None
    if engine == "auto" and not (launcher.ranks() > 1 and not launcher.is_mpi_pool()):
        return None
    from resumable.engines.mpi import of_world

    return of_world()


def warm_up(engine: Any, workers: int | None, calls: int) -> None:
    """Begin to start what workers are forked from, where they are likely to pay.

    `calls` is how often the user's function will be called; 0: not known.
    """
    alone = (workers or machine.usable_cores()) == 1
    pays = calls * _CALL_S > WORTH_STARTING_S and not alone
    if not forks.POSSIBLE or not isinstance(engine, str):
        return
    if (engine == "local" and calls) or (engine == "auto" and pays):
        from resumable.worker import start_server

        start_server(forks.start_method())


def choose(
    engine: Any,
    workers: int | None,
    *,
    may_grow: bool = False,
    in_driver: bool = True,
) -> Engine:
    """Return the engine for one of the NAMES, or for an object; else raise PlanError.

    By default as many workers as there are cores, or workers of an executor;
    `may_grow`: follow their number during a run. `in_driver`: ``"auto"`` may compute in
    this process, since nothing that would end or block it is to be expected.
    """
    if not isinstance(engine, str):
        return _given(engine, workers, may_grow)
    if mpi := _mpi(engine):
        return mpi
    if engine == "dask":
        from resumable.engines.dask import DaskEngine

        return DaskEngine(None, workers, may_grow=may_grow)
    workers = int(workers or machine.usable_cores())
    begin_here = engine == "auto" and in_driver
    if engine == "serial" or (begin_here and workers == 1):
        return SerialEngine()
    if not forks.POSSIBLE:
        return _without_forks(engine, workers, begin_here)
    return LocalEngine(workers, begin_here=begin_here)


def _without_forks(engine: str, workers: int, begin_here: bool) -> Engine:
    if engine == "local":
        msg = (
            f"{option('engine', 'local')} forks its workers, which this system cannot "
            f"do: use {option('engine', 'auto')}, which computes in a pool of processes"
            f"{in_python(', or give a concurrent.futures.ProcessPoolExecutor')}"
        )
        raise PlanError(msg)
    from resumable.engines.spawned import SpawnedEngine

    return SpawnedEngine(workers, begin_here=begin_here)


def _given(engine: Any, workers: int | None, may_grow: bool) -> Engine:
    """Return the engine for an object a user gives."""
    from concurrent.futures import Executor

    if isinstance(engine, Executor):
        from resumable.engines.futures import ExecutorEngine

        return ExecutorEngine(engine, workers)
    # By name: where distributed is not imported, this is no client of dask.
    if type(engine).__module__.partition(".")[0] == "distributed":
        from resumable.engines.dask import DaskEngine

        return DaskEngine(engine, workers, may_grow=may_grow)
    if all(hasattr(engine, name) for name in ("name", "workers", "run")):
        chosen: Engine = engine
        return chosen
    what = f"one of {', '.join(NAMES)}, an Executor or a client of dask"
    raise wrong(PlanError, "engine", engine, what)
