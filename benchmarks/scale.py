"""What each part of a very large run costs: the numbers of `docs/scale.rst`.

    python benchmarks/scale.py
    python benchmarks/scale.py --positions 1e6 --rounds 1    # only to try it out

Ranks are those of the ``mpiexec`` beside this Python, on this host: through shared
memory, and through the network, as MPICH does between hosts. 10^9 positions need
10 GB of disk for a short time, of which 1 GB is written; the folder is removed again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scale_positions import RANKS, Level

from resumable.engines import Driver
from resumable.errors import RunFileError
from resumable.model.units import format_bytes, format_seconds
from resumable.runfile.writer import RowWriter, WriteTarget
from resumable.system.disk import free_bytes
from resumable.worker.job import Job, Report
from resumable.worker.work import Worker

SENT_BYTES = 16_000_000
"""Size of the message that is timed."""

_HERE = Path(__file__).resolve().parent
_NETWORK = {"shared memory": {}, "network": {"MPIR_CVAR_NOLOCAL": "1"}}


def started(*command: Any, **variables: str) -> Any:
    """Run a script that prints JSON."""
    done = subprocess.run(
        [str(word) for word in command],
        env={
            **os.environ,
            "PYTHONPATH": f"{_HERE}:{_HERE.parent}",
            "HYDRA_LAUNCHER": "fork",
            **variables,
        },
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of every number."""
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


class Timing:
    """An engine that times what a worker and the driver do once or per batch."""

    name = "timing"
    own_processes = can_replace = False
    workers = 1

    def __init__(self, count: int) -> None:
        self._count = count
        self.found: dict[str, float] = {}

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Time; compute one position."""
        if job.target is None:
            raise ValueError(job)
        first = driver.schedule.next()
        worker = Worker(job, own_process=False)
        report = worker.do(first, lambda: False) if first else None
        worker.close()
        if report is None:
            raise ValueError(first)
        self.found["take"] = per_call(lambda: driver.take(report), self._count)
        self.found["open writer"] = per_call(lambda: opened(job.target), 50)
        with contextlib.closing(RowWriter(job.target)) as writer:
            self.found["commit"] = per_call(lambda: committed(writer, report), 50)


def opened(target: WriteTarget | None) -> None:
    """Open a run file as a worker does, and close it."""
    if target is not None:
        RowWriter(target).close()


def committed(writer: RowWriter, report: Report) -> None:
    """Write a row, and wait until it is durable and marked."""
    yes, no = np.ones(1, bool), np.zeros(1, bool)
    writer.write(report.batch.start, yes, no, {"value": np.ones(1)})
    writer.flush()


def per_call(call: Callable[[], object], count: int) -> float:
    """Return the seconds of one call."""
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count


def parts(folder: Path, count: int) -> dict[str, float]:
    """Time the parts of a worker and of the driver, in one process."""
    found: dict[str, float] = {}
    for progress in (False, True):
        engine = Timing(count)
        # The engine computes one position of 1,000: the run ends with this error.
        with (
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.suppress(RunFileError),
        ):
            Level(1000, folder).compute(
                engine=engine, override=True, progress=progress, memory="1 GB"
            )
        if progress:
            found["progress"] = engine.found["take"] - found["take"]
        else:
            found |= engine.found
    source = folder / "source.h5"
    with h5py.File(source, "w") as file:
        file["data"] = np.zeros((1000, 1024), "f4")
    row = np.empty(1024, "f4")

    def read() -> None:
        with h5py.File(source, "r") as file:
            file["data"].read_direct(row, 5)

    found["open source"] = per_call(read, 200)
    return found


def imports() -> int:
    """Return how many files a rank opens for its imports."""
    code = (
        "import sys\n"
        "opened = []\n"
        "def hear(event, arguments):\n"
        "    if event == 'open':\n"
        "        opened.append(arguments[0])\n"
        "sys.addaudithook(hear)\n"
        "import resumable, resumable.engines.mpi, mpi4py, tqdm, threadpoolctl\n"
        "print(len(opened))"
    )
    return int(started(sys.executable, "-c", code))


def of_ranks(rounds: int, numbers: list[int]) -> None:
    """Measure and print the requests of ranks to rank 0, interleaved."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for ranks in numbers:
            for way, variables in _NETWORK.items():
                script = (sys.executable, _HERE / "scale_ranks.py")
                one = started(
                    *(mpiexec, "-n", ranks, *script, 1, 20_000, SENT_BYTES),
                    **variables,
                )
                found.setdefault((ranks, way), []).append(one)
    print("ranks  by            addition  additions/s   reports/s     sent to a rank")
    for (ranks, way), several in found.items():
        one = medians(several)
        rate = SENT_BYTES * (ranks - 1) / one["sent"]
        print(
            f"{ranks:5}  {way:13} {format_seconds(one['addition']):>8} "
            f"{one['additions_per_s']:12,.0f} {1 / one['report']:11,.0f} "
            f"{format_bytes(int(rate)):>14}/s"
        )


def of_positions(rounds: int, numbers: list[int], parent: Path | None) -> None:
    """Measure and print the cost of very many positions, each in its own process."""
    times = ("plan", "create", "start", "send", "end")
    sizes = ("message", "lent", "memory", "file", "reserved")
    print(
        f"{'positions':>13} {'state':10}"
        + "".join(f"{name:>10}" for name in (*times, *sizes))
    )
    for count in numbers:
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(prefix="scale-", dir=parent) as folder:
                if free_bytes(Path(folder)) < 20 * count:
                    print(f"{count:13,} too few bytes are free for it")
                    break
                for kind in ("fresh", "scattered", "follow"):
                    script = (sys.executable, _HERE / "scale_positions.py")
                    one = started(*script, kind, count, folder)
                    found.setdefault(kind, []).append(one)
        for kind, several in found.items():
            one = medians(several)
            if kind == "follow":
                print(
                    f"{count:13,} other rank: reads the message of the above in "
                    f"{format_seconds(one['read'])}, looks up a portion in "
                    f"{format_seconds(one['portion'])}, takes "
                    f"{format_bytes(int(one['memory']))}"
                )
                continue
            row = [f"{format_seconds(one[name]):>10}" for name in times]
            row += [f"{format_bytes(int(one[name])):>10}" for name in sizes]
            print(f"{count:13,} {kind:10}{''.join(row)}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--positions", type=float, nargs="*", default=[1e8, 1e9])
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reports", type=int, default=20_000, help="to be taken")
    parser.add_argument(
        "--folder", type=Path, help="parent of the temporary folder, on a real disk"
    )
    given = parser.parse_args()
    of_ranks(given.rounds, given.ranks)
    with tempfile.TemporaryDirectory(prefix="scale-", dir=given.folder) as folder:
        found = medians(
            [parts(Path(folder), given.reports) for _ in range(given.rounds)]
        )
    for name, seconds in found.items():
        print(f"{name:12} {seconds * 1e6:10,.1f} us")
    print(f"files opened by imports: {imports():,}")
    print(f"pending positions are sent to {RANKS:,} ranks")
    of_positions(given.rounds, [int(n) for n in given.positions], given.folder)


if __name__ == "__main__":
    main()
