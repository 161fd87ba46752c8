"""Measure the cost of very many positions before the first is computed, as JSON.

    python benchmarks/scale_positions.py fresh 1000000 folder
    python benchmarks/scale_positions.py scattered 1000000 folder
    python benchmarks/scale_positions.py follow 1000000 folder

`scale.py` starts each in a process of its own, in this order: rank 0 of a new run;
rank 0 of a run in which a random half of the positions is done; another rank of that
run. The output has 8 bytes per position; nothing is computed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import resumable as rs
from resumable.engines import Driver
from resumable.engines.ranks import Rest
from resumable.errors import RunFileError
from resumable.model.positions import WINDOW
from resumable.model.schedule import PROBES, Remainder
from resumable.runfile.file import RunFile
from resumable.session import prepare
from resumable.system import Limit
from resumable.system.disk import opened, write_at
from resumable.worker.job import Job

RANKS = 10_000
"""Ranks that compute."""

PORTIONS = 200
"""Portions that another rank looks up."""


class Level(rs.Process):
    """Computes nothing."""

    version = 1
    outputs: ClassVar = {"value": rs.Output()}

    def unit_computation(self, position: int) -> float:
        """Compute one position."""
        return float(position)


class Telling:
    """An engine that sends the pending positions, and ends."""

    name = "telling"
    own_processes = can_replace = False
    workers = RANKS

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self.message = self.lent = b""

    def host_memory(self) -> Limit:
        """Return what ranks on that many hosts would have."""
        return Limit(1 << 40)

    def run(self, job: Job, driver: Driver, workers: int) -> None:
        """Time what happens between the plan and the first portion."""
        self.found["ready"] = time.perf_counter()
        room = Remainder.room(driver.schedule.pending, PROBES)
        rest = Rest(driver.schedule.hand_over(), driver.schedule)
        self.lent = rest.remainder.lend() if room else b""
        self.message = pickle.dumps(rest)
        self.found["sent"] = time.perf_counter()


def peak_bytes() -> int:
    """Return the peak memory of this process."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def driven(count: int, folder: Path) -> dict[str, float]:
    """Be rank 0: plan, create or open the run file, send the pending positions."""
    process = Level(count, folder)
    engine, created = Telling(), []
    create_run_file = prepare.create_run_file

    def timed(*arguments: Any, **options: Any) -> RunFile:
        began = time.perf_counter()
        made = create_run_file(*arguments, **options)
        created.append(time.perf_counter() - began)
        return made

    prepare.create_run_file = timed
    before = peak_bytes()
    began = time.perf_counter()
    process.plan(engine=engine)
    planned = time.perf_counter()
    # The engine computes nothing: the run ends with this error.
    with contextlib.suppress(RunFileError):
        process.compute(engine=engine, progress=False)
    ended = time.perf_counter()
    (folder / "message").write_bytes(engine.message)
    (folder / "lent").write_bytes(engine.lent)
    (run,) = process.partials
    file = run.path.stat()
    return {
        "plan": planned - began,
        "create": sum(created),
        "start": engine.found["ready"] - planned - sum(created),
        "send": engine.found["sent"] - engine.found["ready"],
        "end": ended - engine.found["sent"],
        "message": len(engine.message),
        "lent": len(engine.lent),
        "memory": peak_bytes() - before,
        "file": file.st_size,
        "reserved": 512 * file.st_blocks,
    }


def scatter(folder: Path) -> None:
    """Mark a random half of the positions of a run as done."""
    (path,) = folder.glob("*.h5")
    header, rng = RunFile(path).header, np.random.default_rng(0)
    with opened(path, os.O_RDWR) as fd:
        for start in range(0, header.size, WINDOW):
            count = min(WINDOW, header.size - start)
            status = rng.integers(0, 2, count, np.uint8)
            write_at(fd, status, header.offsets["completed_positions"] + start)
        # Sync now: the timed session does not wait for these writes.
        os.fsync(fd)


def followed(folder: Path) -> dict[str, float]:
    """Be another rank: read the message, and look up portions one after another."""
    before = peak_bytes()
    began = time.perf_counter()
    rest: Rest = pickle.loads((folder / "message").read_bytes())
    read = time.perf_counter()
    remainder, lent = rest.remainder, (folder / "lent").open("rb")
    remainder.read = lambda offset, size: os.pread(lent.fileno(), size, offset)
    # One portion out of many, as each of very many ranks gets it.
    size = min(5000, max(1, remainder.total // (4 * PORTIONS)))
    step = remainder.total // PORTIONS
    for first in range(0, step * PORTIONS, step):
        found = list(remainder.batches(first, first + size, 1000))
        if sum(batch.count for batch in found) != min(size, remainder.total - first):
            raise RuntimeError(first)
    looked = time.perf_counter()
    lent.close()
    return {
        "read": read - began,
        "portion": (looked - read) / PORTIONS,
        "memory": peak_bytes() - before,
    }


def main() -> None:
    """Measure and print."""
    kind, count, folder = sys.argv[1], int(float(sys.argv[2])), Path(sys.argv[3])
    if kind == "scattered":
        scatter(folder)
    found = followed(folder) if kind == "follow" else driven(count, folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
