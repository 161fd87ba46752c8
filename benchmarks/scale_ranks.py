"""Measure the requests of ranks to rank 0, as JSON; `scale.py` starts it under mpiexec.

    mpiexec -n 2 python benchmarks/scale_ranks.py 0.5 20000 16000000

The arguments: seconds for which all ranks take from the counter, how many reports are
sent to rank 0, and bytes of a message to all ranks.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from mpi4py import MPI

from resumable.engines.counter import SharedCounter
from resumable.engines.messages import RankMessages, naps
from resumable.engines.ranks import REPORT
from resumable.model.batch import Batch
from resumable.worker.job import Report
from resumable.worker.warnings import WarningCounts

SENT, DONE = "sent", "done"
#: Additions that a rank requests at once, in place of that many ranks.
AT_ONCE = 256


def additions(
    messages: RankMessages, seconds: float, at_once: int
) -> tuple[float, int]:
    """Take from the counter without a pause, while rank 0 is busy with a position.

    Returns
    -------
    median : float
        Seconds until `at_once` additions, requested at once, are all answered.
    count : int
        Additions of this rank.
    """
    counter, took = SharedCounter(messages), []
    messages.comm.Barrier()
    with messages.progressing():
        until = time.perf_counter() + seconds
        while (asked := time.perf_counter()) < until:
            if messages.rank == 0:
                continue
            portions = [counter.take(1) for _ in range(at_once)]
            while not all(portion.ready() for portion in portions):
                pass
            took.append(time.perf_counter() - asked)
        messages.comm.Barrier()
    counter.close()
    return statistics.median(took or [0.0]), at_once * len(took)


def reports(messages: RankMessages, count: int) -> float:
    """Send reports of the usual size to rank 0; return the seconds per report."""
    batch = Batch(0, 1000, None, 1000, 100)
    report = Report(batch, 1000, 0, [], 0.5, 0.01, 0.01, 1 << 27, 1, WarningCounts())
    each = count // (messages.size - 1)
    messages.comm.Barrier()
    began = time.perf_counter()
    if messages.rank > 0:
        for _ in range(each):
            messages.send(0, REPORT, [report])
        messages.send(0, DONE)
    else:
        done = 0
        while done < messages.size - 1:
            messages.look()
            done += sum(message.kind == DONE for message in messages.inbox)
            messages.inbox.clear()
    took = time.perf_counter() - began
    messages.comm.Barrier()
    return took / (each * (messages.size - 1))


def sent(messages: RankMessages, size: int) -> float:
    """Send `size` bytes to all ranks; return the seconds until the last has them."""
    content = bytes(size) if messages.rank == 0 else None
    messages.comm.Barrier()
    began = time.perf_counter()
    pause = naps()
    if messages.rank == 0:
        messages.send_all(SENT, content)
        waiting = messages.size - 1
        while waiting:
            messages.look()
            waiting -= len(messages.inbox)
            messages.inbox.clear()
    else:
        while not messages.inbox:
            messages.look()
            next(pause)
        messages.inbox.clear()
        messages.send(0, DONE)
    took = time.perf_counter() - began
    # Wait until every rank has sent its messages.
    messages.comm.Barrier()
    return took


def main() -> None:
    """Measure, and print on rank 0."""
    messages = RankMessages.of(MPI.COMM_WORLD)
    messages.begin()
    seconds = float(sys.argv[1])
    alone = messages.comm.gather(additions(messages, seconds, 1)[0])
    many = messages.comm.gather(additions(messages, seconds, AT_ONCE)[1])
    report = reports(messages, int(sys.argv[2]))
    message = sent(messages, int(sys.argv[3]))
    if messages.rank == 0:
        found = {
            "addition": statistics.median(alone[1:]),
            "additions_per_s": sum(many) / seconds,
            "report": report,
            "sent": message,
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
