"""Compare `prefetch` in workers with calling the function in a loop.

    python benchmarks/prefetch.py
    python benchmarks/prefetch.py --sizes

Random numbers are generated 1,000 times, 4 MB each and 4 kB each, by a loop and by
``Pool(2).prefetch``, in turns; the pool exists before. The ratio is that of the
medians; less than 1 means that the pool was faster. Afterwards descriptors, processes
and shared memory must be as before. ``--sizes`` shows from which size on shared memory
is faster than the pipe, where
``resumable.worker.transport.PIPE_BYTES`` comes from.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

import resumable as rs
from resumable.worker import transport

ALLOWED_RATIO = 1.4
"""The pool may take this many times the loop, for 4 MB."""

SIZES = (500_000, 500)
"""Numbers of float64: 4 MB and 4 kB."""


def numbers(size: int, rng: np.random.Generator) -> np.ndarray:
    """Generate."""
    return rng.random(size)


def main() -> int:
    """Measure and print.

    Returns
    -------
    int
        Exit code: 1 if something was left behind or a number was wrong.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=1000, help="calls (default: 1000)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of each (default: 5)"
    )
    parser.add_argument(
        "--sizes", action="store_true", help="compare the pipe with shared memory"
    )
    options = parser.parse_args()
    if options.sizes:
        compare_transports()
        return 0
    with rs.Pool(2) as pool:
        same = check(pool)
        ratios = {
            size: compare(pool, size, options.times, options.rounds) for size in SIZES
        }
        before = state()
        for _ in pool.prefetch(numbers, options.times, (SIZES[1],), seed=0):
            pass
        clean = state() == before
    verdict = "reached" if ratios[SIZES[0]] <= ALLOWED_RATIO else "NOT reached"
    print(f"4 MB may take {ALLOWED_RATIO} times the loop: {verdict}")
    print(f"the same numbers: {same}; nothing left behind: {clean}")
    return int(not (same and clean))


def compare(pool: rs.Pool, size: int, times: int, rounds: int) -> float:
    """Measure one size in turns, print, and return the ratio of the medians."""

    def loop() -> None:
        for number in range(times):
            sequence = np.random.SeedSequence(0, spawn_key=(number,))
            numbers(size, np.random.Generator(np.random.PCG64(sequence)))

    def ahead() -> None:
        for _ in pool.prefetch(numbers, times, (size,), seed=0):
            pass

    taken: dict[str, list[float]] = {"loop": [], "prefetch": []}
    for turn in range(rounds):
        order = (("loop", loop), ("prefetch", ahead))
        for name, call in order if turn % 2 else reversed(order):
            taken[name].append(seconds(call) / times * 1e6)
    print(f"{size * 8:,} bytes, microseconds per call")
    for name, each in taken.items():
        median = statistics.median(each)
        print(f"  {name:10}{median:10.1f}{min(each):10.1f} to {max(each):.1f}")
    ratio = statistics.median(taken["prefetch"]) / statistics.median(taken["loop"])
    print(f"  ratio     {ratio:10.2f}")
    return ratio


def seconds(call: Callable[[], None]) -> float:
    """Return how long a call takes."""
    before = time.perf_counter()
    call()
    return time.perf_counter() - before


def check(pool: rs.Pool) -> bool:
    """Return whether workers give the numbers that a loop does."""
    with rs.Pool(0) as here:
        wanted = list(here.prefetch(numbers, 9, SIZES[:1], seed=1))
        got = list(pool.prefetch(numbers, 9, SIZES[:1], seed=1))
    return all(map(np.array_equal, got, wanted))


def state() -> tuple[int, list[int], list[str]]:
    """Return the open descriptors, the processes and the named shared memory."""
    maps = Path("/proc/self/maps")
    named = [line for line in maps.read_text().splitlines() if "/dev/shm" in line]
    children = psutil.Process().children(recursive=True)
    return psutil.Process().num_fds(), sorted(one.pid for one in children), named


def compare_transports() -> None:
    """Print how long an item takes to a worker and back, by pipe and by memory."""
    print(f"{'bytes':>12}{'pipe us':>10}{'memory us':>10}")
    usual = transport.PIPE_BYTES
    for exponent in range(12, 24):
        size = 1 << exponent
        taken = []
        for limit in (1 << 40, 0):
            # Workers are forked from a server that has imported the usual limit, so
            # that this holds on the way to the worker only.
            transport.PIPE_BYTES = limit
            with rs.Pool(1) as pool:
                items = [np.ones(size, "u1")] * 50
                there = functools.partial(pool.imap, len, items, look_ahead=1)
                list(there())
                each = [seconds(functools.partial(list, there())) for _ in range(9)]
            taken.append(statistics.median(each) / len(items) * 1e6)
        transport.PIPE_BYTES = usual
        print(f"{size:12,}{taken[0]:10.0f}{taken[1]:10.0f}")


if __name__ == "__main__":
    sys.exit(main())
