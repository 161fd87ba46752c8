"""Measure how long a rank waits for the next numbers while all ranks compute.

Each rank takes one number after another, and computes between them, holding the
interpreter's lock. Printed for each rank: how many numbers it took, how long it waited
in all, and its longest wait. Usage::

    mpiexec -n 2 python benchmarks/mpi_counter.py [seconds of a unit] [thread]

``thread`` lets rank 0 call MPI every 5 ms meanwhile. With ``MPIR_CVAR_NOLOCAL=1``
MPICH uses the network between ranks of one host.
"""

from __future__ import annotations

import contextlib
import sys
import time

from mpi4py import MPI

from resumable.engines.counter import SharedCounter
from resumable.engines.messages import RankMessages, naps

#: Work of all ranks together, in s.
TOTAL_S = 4.0


def main() -> None:
    """Measure, and print a line for each rank."""
    unit = float(sys.argv[1]) if len(sys.argv) > 1 else 0.3
    messages = RankMessages.of(MPI.COMM_WORLD)
    counter = SharedCounter(messages)
    helped = "thread" in sys.argv and messages.rank == 0
    messages.comm.Barrier()
    waits, began = [], time.perf_counter()
    with messages.progressing() if helped else contextlib.nullcontext():
        while True:
            asked, pause = time.perf_counter(), naps()
            portion = counter.take(1)
            while not portion.ready():
                next(pause)
            waits.append(time.perf_counter() - asked)
            if portion.first >= TOTAL_S / unit:
                break
            busy = time.perf_counter()
            while time.perf_counter() - busy < unit:
                pass
            messages.look()
        took = time.perf_counter() - began
    counter.close()
    print(
        f"rank {messages.rank}: {len(waits) - 1} units in {took:.2f} s, waited "
        f"{sum(waits) * 1e3:.1f} ms in all, {max(waits) * 1e3:.2f} ms at most",
        flush=True,
    )


if __name__ == "__main__":
    main()
