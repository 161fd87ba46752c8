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
from resumable.model.positions import Batch
from resumable.worker.job import Report
from resumable.worker.warnings import WarningCounts

SENT, DONE = "sent", "done"
#: Additions that a rank requests at once, in place of that many ranks.
AT_ONCE = 256


def additions(team: RankMessages, seconds: float, at_once: int) -> tuple[float, int]:
    """Take from the counter without a pause, while rank 0 is busy with a position.

    Returns
    -------
    median : float
        Seconds until `at_once` additions, requested at once, are all answered.
    count : int
        Additions of this rank.
    """
    counter, took = SharedCounter(team), []
    team.comm.Barrier()
    with team.progressing():
        until = time.perf_counter() + seconds
        while (asked := time.perf_counter()) < until:
            if team.rank == 0:
                continue
            portions = [counter.take(1) for _ in range(at_once)]
            while not all(portion.ready() for portion in portions):
                pass
            took.append(time.perf_counter() - asked)
        team.comm.Barrier()
    counter.close()
    return statistics.median(took or [0.0]), at_once * len(took)


def reports(team: RankMessages, count: int) -> float:
    """Send reports of the usual size to rank 0; return the seconds per report."""
    batch = Batch(0, 1000, None, 1000, 100)
    report = Report(batch, 1000, 0, [], 0.5, 0.01, 0.01, 1 << 27, 1, WarningCounts())
    each = count // (team.size - 1)
    team.comm.Barrier()
    began = time.perf_counter()
    if team.rank > 0:
        for _ in range(each):
            team.tell(0, REPORT, [report])
        team.tell(0, DONE)
    else:
        done = 0
        while done < team.size - 1:
            team.look()
            done += sum(message.kind == DONE for message in team.inbox)
            team.inbox.clear()
    took = time.perf_counter() - began
    team.comm.Barrier()
    return took / (each * (team.size - 1))


def sent(team: RankMessages, size: int) -> float:
    """Send `size` bytes to all ranks; return the seconds until the last has them."""
    content = bytes(size) if team.rank == 0 else None
    team.comm.Barrier()
    began = time.perf_counter()
    pause = naps()
    if team.rank == 0:
        team.tell_all(SENT, content)
        waiting = team.size - 1
        while waiting:
            team.look()
            waiting -= len(team.inbox)
            team.inbox.clear()
    else:
        while not team.inbox:
            team.look()
            next(pause)
        team.inbox.clear()
        team.tell(0, DONE)
    took = time.perf_counter() - began
    # Wait until every rank has sent its messages.
    team.comm.Barrier()
    return took


def main() -> None:
    """Measure, and print on rank 0."""
    team = RankMessages.of(MPI.COMM_WORLD)
    team.begin()
    seconds = float(sys.argv[1])
    alone = team.comm.gather(additions(team, seconds, 1)[0])
    many = team.comm.gather(additions(team, seconds, AT_ONCE)[1])
    report = reports(team, int(sys.argv[2]))
    message = sent(team, int(sys.argv[3]))
    if team.rank == 0:
        found = {
            "addition": statistics.median(alone[1:]),
            "additions_per_s": sum(many) / seconds,
            "report": report,
            "sent": message,
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
