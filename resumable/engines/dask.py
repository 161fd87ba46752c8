"""The workers of a dask cluster as an engine."""

from __future__ import annotations

import collections
import contextlib
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from resumable.engines import remote_worker
from resumable.engines.futures import FuturesEngine
from resumable.errors import PlanError, WorkerDied, option
from resumable.system import Limit, least, machine

#: The size of the cluster is asked for this often, in seconds.
_ASK_AGAIN_S = 2.0


class DaskEngine(FuturesEngine):
    """Tasks of a client of dask, by default the one of this process; it stays open.

    dask itself gives the batches of a worker that was lost to another one. Where it
    gives up, because too many workers have ended at the same batch, the run stops with
    an error. By default one batch at once for every thread of every worker;
    `may_grow`: also of workers that come during the run.
    """

    def __init__(
        self, client: Any = None, workers: int | None = None, *, may_grow: bool = False
    ) -> None:
        self._client = client or _present_client()
        # dask gives a task up when too many workers have died at it.
        self.losses = sys.modules["distributed"].KilledWorker
        if self._client.asynchronous:
            msg = "an asynchronous client of dask cannot be waited for; give another"
            raise PlanError(msg)
        self._asked = 0.0
        self._threads: dict[str, int] = {}
        super().__init__("dask", int(workers or self.slots() or 1))
        self._grows = may_grow and self.workers >= self.slots()
        hosts: collections.Counter[str] = collections.Counter()
        for address, threads in self._threads.items():
            hosts[str(urlsplit(address).hostname)] += threads
        if len(hosts) > 1:
            self.hosts = tuple(hosts.values())
        self.own_processes = not any(a.startswith("inproc") for a in self._threads)

    def slots(self) -> int:
        """Return the threads of all workers there are, as of two seconds ago."""
        if time.monotonic() - self._asked > _ASK_AGAIN_S:
            self.check()
            self._threads = self._client.nthreads()
            self._asked = time.monotonic()
        return sum(self._threads.values())

    def host_memory(self) -> Limit:
        """Return the bytes that the host with the least has left, as a worker says."""
        self.slots()
        one_each = {urlsplit(a).hostname: a for a in self._threads}
        found = self._client.run(
            machine.host_memory, workers=list(one_each.values()), on_error="ignore"
        )
        return least(list(found.values()) or [machine.host_memory()])

    def at_once(self, workers: int) -> int:
        """Return the number of workers, as it grows and shrinks."""
        # Where the memory is enough for fewer, more of them would not fit.
        grows = self._grows and workers >= self.workers
        return max(1, self.slots()) if grows else workers

    def submit(self, task: remote_worker.Task, name: str) -> Any:
        """Submit a task; the dashboard shows the first part of its name."""
        self.check()
        return self._client.submit(remote_worker.do, task, key=name, pure=False)

    def cancel(self, token: str, futures: dict[int, Any]) -> set[int]:
        """Cancel what no worker has begun, as the workers themselves say.

        They begin none of the others from now on. dask alone would also forget tasks
        that are at work.
        """
        self.check()
        waiting = [number for number, future in futures.items() if not future.done()]
        if not waiting:
            return set()
        begun = self._client.run(
            remote_worker.revoke, token, waiting, on_error="ignore"
        )
        gone = set(waiting).difference(*begun.values())
        self._client.cancel([futures[number] for number in gone])
        return gone

    def check(self) -> None:
        """Raise where the client is closed, or has lost its scheduler."""
        if self._client.status != "running":
            msg = (
                f"the client of dask is {self._client.status}; what was committed "
                "stays: make a new one and run again to go on"
            )
            raise WorkerDied(msg)

    def release(self, token: str) -> list[str]:
        """Close the workers of a session in all processes."""
        with contextlib.suppress(Exception):
            self.check()
            answers = self._client.run(remote_worker.release, token, on_error="ignore")
            return [name for changed in answers.values() for name in changed]
        return []


def _present_client() -> Any:
    """Return the client of this process, else raise PlanError."""
    try:
        import distributed
    except ImportError as error:
        msg = (
            f"{option('engine', 'dask')} needs distributed: "
            "pip install 'resumable-hdf5[dask]'"
        )
        raise PlanError(msg) from error
    try:
        return distributed.default_client()  # type: ignore[no-untyped-call]
    except ValueError as error:
        msg = (
            f"{option('engine', 'dask')} needs a client of dask in this process: make "
            "one before, for example with distributed.Client() for this machine, or "
            "distributed.Client('tcp://...') for a cluster that runs"
        )
        raise PlanError(msg) from error
