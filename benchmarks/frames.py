"""Compare frames of a detector, each in compressed chunks, with a plain h5py loop.

    python benchmarks/frames.py

The files are as Eiger, areaDetector and Lambda write them: one frame per chunk, or
several, compressed; with a first axis that can grow, and with one that cannot. The
computation is the largest number of a frame, with the serial engine. Ours and the loop
take turns, in this process; the ratios are medians of the rounds. To find the run again
is measured after it is finished. Chunks are from 0.1 to 100 MB, not compressed.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import h5py
import hdf5plugin
import numpy as np

import resumable as rs

#: Most times as long as the loop: to compute, and to find the finished run.
COMPUTED, FOUND = 1.15, 0.15
#: Bytes of a dataset, not compressed.
BYTES = 2_000_000_000
FILTERS = {
    "bitshuffle": hdf5plugin.Bitshuffle(),
    "lz4": hdf5plugin.LZ4(),
    "gzip": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
}
DATASET = "data"


class Largest(rs.Process):
    """Largest number of every frame."""

    version = 1
    outputs: ClassVar = {"largest": rs.Output(dtype="u4")}

    def unit_computation(self, frame: Any) -> Any:
        """Return the largest number."""
        return frame.max()


class Case(NamedTuple):
    """How a dataset is stored."""

    chunk_bytes: int
    """Of a chunk, not compressed."""
    frames: int
    """Per chunk."""
    filters: str
    growable: bool

    def __str__(self) -> str:
        kind = "growable" if self.growable else "fixed"
        size = f"{self.chunk_bytes / 1e6:g} MB"
        return f"{size:>7} {self.frames:>2} {self.filters:<10} {kind:<8}"


CASES = [
    Case(chunk_bytes, frames, filters, growable)
    for chunk_bytes, frames, filters in (
        (100_000, 1, "bitshuffle"),
        (1_000_000, 1, "bitshuffle"),
        (1_000_000, 1, "gzip"),
        (10_000_000, 1, "lz4"),
        (18_000_000, 1, "bitshuffle"),
        (20_000_000, 10, "bitshuffle"),
        (72_000_000, 1, "bitshuffle"),
        (100_000_000, 1, "lz4"),
        (100_000_000, 1, "gzip"),
    )
    for growable in (False, True)
]


def make(path: Path, case: Case, total: int) -> None:
    """Write frames of counts, mostly 0, as a detector of photons gives them."""
    pixels = case.chunk_bytes // 4 // case.frames
    # One more than whole chunks have: the last chunk is filled in part.
    count = max(2, total // pixels // 4) + (case.frames > 1)
    frame = np.random.default_rng(0).poisson(0.5, pixels).astype("u4")
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            DATASET,
            (count, pixels),
            "u4",
            chunks=(case.frames, pixels),
            maxshape=(None if case.growable else count, pixels),
            **FILTERS[case.filters],
        )
        for number in range(0, count, case.frames):
            data[number : number + case.frames] = frame


def loop(path: Path) -> list[int]:
    """Do what a script without this library does."""
    with h5py.File(path) as file:
        data = file[DATASET]
        return [data[number].max() for number in range(len(data))]


def timed(call: Callable[[], Any]) -> float:
    """Return how many seconds a call takes."""
    before = time.perf_counter()
    call()
    return time.perf_counter() - before


def measure(case: Case, rounds: int, total: int, parent: Path | None) -> list[float]:
    """Return seconds of the loop, and how many times as long ours takes."""
    seconds, computed, found = [], [], []
    with tempfile.TemporaryDirectory(prefix="resumable-", dir=parent) as name:
        path = Path(name) / "frames.h5"
        make(path, case, total)
        loop(path)
        for _ in range(rounds):
            plain = timed(lambda: loop(path))
            process = Largest(f"{path}::/{DATASET}")
            ours = functools.partial(process.compute, engine="serial", progress=False)
            first, again = timed(ours), timed(ours)
            seconds.append(plain)
            computed.append(first / plain)
            found.append(again / plain)
            for run in path.parent.glob("frames-*.h5"):
                run.unlink()
    return [statistics.median(times) for times in (seconds, computed, found)]


def main() -> int:
    """Measure and print.

    Returns
    -------
    int
        Exit code: 1 if ours takes longer than it may.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--bytes", type=int, default=BYTES, help="of a dataset")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder")
    options = parser.parse_args()
    late = 0
    print("  chunk, frames in it, filter      loop   compute  found again")
    for case in CASES:
        plain, computed, found = measure(
            case, options.rounds, options.bytes, options.folder
        )
        missed = computed > COMPUTED or found > FOUND
        late += missed
        print(
            f"{case}  {plain:6.2f} s  {computed:6.2f}  {found:6.3f}"
            f"{'  missed' if missed else ''}",
            flush=True,
        )
    print(f"allowed {COMPUTED} and {FOUND}; {late} of {len(CASES)} missed")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
