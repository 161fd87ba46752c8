"""Compare operators in workers with those of regpy, and with a loop.

    python benchmarks/operators.py

Two operators multiply a vector of 8 MB, and one of 100 numbers, by a number each, in
two worker processes: ``resumable.Operators``, regpy's ``ParallelVectorOfOperators``,
and a loop in one process. Each runs in a process of its own, in turns, so that other
work of the machine disturbs all alike. Values are checked.
regpy is installed into an environment of its own on first use.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

FACTORS = (2.0, 3.0)
SIZES = {1_000_000: 20, 100: 500}
"""Numbers in the vector, and how many evaluations are timed together."""

ALLOWED_RATIO = 8.0
"""regpy should take this many times ours, for 8 MB."""

Evaluate = Callable[[np.ndarray], Any]


def main() -> int:
    """Measure and print.

    Returns
    -------
    int
        Exit code: 1 if a value was wrong.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="rounds of each (default: 7)"
    )
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument(
        "--cache",
        type=Path,
        default=default / "resumable-benchmarks",
        help="folder that keeps regpy's own environment (default: in the user's cache)",
    )
    parser.add_argument("--serve", choices=CANDIDATES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    from environment import regpy_python

    pythons = dict.fromkeys(CANDIDATES, Path(sys.executable))
    pythons["regpy"] = regpy_python(options.cache)
    right = True
    with contextlib.ExitStack() as stack:
        ask = {
            name: stack.enter_context(started(name, pythons[name])) for name in pythons
        }
        for size, times in SIZES.items():
            taken: dict[str, list[float]] = {name: [] for name in ask}
            for turn in range(options.rounds):
                names = list(ask)
                for name in names[turn % 3 :] + names[: turn % 3]:
                    seconds, same = ask[name](size, times)
                    taken[name].append(seconds * 1e3)
                    right = right and same
            report(size, taken)
    print(f"all values right: {right}")
    return int(not right)


def report(size: int, taken: dict[str, list[float]]) -> None:
    """Print the medians of one size."""
    print(f"{len(FACTORS)} operators on {size * 8:,} bytes, ms per evaluation")
    medians = {name: statistics.median(each) for name, each in taken.items()}
    for name, each in taken.items():
        print(f"  {name:8}{medians[name]:10.3f}{min(each):10.3f} to {max(each):.3f}")
    ratio = medians["regpy"] / medians["ours"]
    print(f"  regpy / ours {ratio:6.1f}")
    if size == max(SIZES):
        verdict = "reached" if ratio >= ALLOWED_RATIO else "NOT reached"
        print(f"  {ALLOWED_RATIO:g} times faster than regpy: {verdict}")


@contextlib.contextmanager
def started(
    name: str, python: Path
) -> Iterator[Callable[[int, int], tuple[float, bool]]]:
    """Start a candidate in a process; return a function that has it measure."""
    root = Path(__file__).resolve().parents[1]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [python, __file__, "--serve", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **threads, "PYTHONPATH": str(root)},
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(size: int, times: int) -> tuple[float, bool]:
        json.dump([size, times], process.stdin)
        print(file=process.stdin, flush=True)
        seconds, same = json.loads(process.stdout.readline())
        return seconds, same

    try:
        yield ask
    finally:
        process.stdin.close()
        process.wait()


def serve(name: str) -> None:
    """Measure for every line of standard input, until its end."""
    with CANDIDATES[name]() as operators:
        for line in sys.stdin:
            size, times = json.loads(line)
            evaluate = operators(size)
            x = np.linspace(0, 1, size)
            values = evaluate(x)
            same = all(
                np.array_equal(value, factor * x)
                for value, factor in zip(values, FACTORS, strict=True)
            )
            before = time.perf_counter()
            for _ in range(times):
                evaluate(x)
            seconds = (time.perf_counter() - before) / times
            print(json.dumps([seconds, same]), flush=True)


class Multiply:
    """Ours: any object with these methods."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Multiply."""
        return self.factor * x


@contextlib.contextmanager
def ours() -> Iterator[Callable[[int], Evaluate]]:
    """Two workers of a pool."""
    import resumable as rs

    with rs.Pool(2) as pool:
        operators = rs.Operators([Multiply(factor) for factor in FACTORS], pool)
        yield lambda size: operators.evaluate


@contextlib.contextmanager
def loop() -> Iterator[Callable[[int], Evaluate]]:
    """One process."""
    operators = [Multiply(factor) for factor in FACTORS]
    yield lambda size: lambda x: [one.evaluate(x) for one in operators]


@contextlib.contextmanager
def regpy() -> Iterator[Callable[[int], Evaluate]]:
    """A process of regpy for each operator, as its documentation says."""
    from regpy.operators import Operator  # type: ignore[import-not-found]
    from regpy.operators.parallel_operators import (  # type: ignore[import-not-found]
        ParallelExecutionManager,
        ParallelVectorOfOperators,
    )
    from regpy.vecsps import NumPyVectorSpace  # type: ignore[import-not-found]

    class Times(Operator):  # type: ignore[misc]
        def __init__(self, space: Any, factor: float) -> None:
            self.factor = factor
            super().__init__(domain=space, codomain=space, linear=True)

        def _eval(self, x: np.ndarray) -> np.ndarray:
            return self.factor * x

        def _adjoint(self, y: np.ndarray) -> np.ndarray:
            return self.factor * y

    with ParallelExecutionManager():
        made: dict[int, Any] = {}

        def operators(size: int) -> Evaluate:
            if size not in made:
                space = NumPyVectorSpace(size)
                parts = [Times(space, factor) for factor in FACTORS]
                made[size] = ParallelVectorOfOperators(parts)
            vector = made[size]
            return lambda x: vector(x)

        yield operators


CANDIDATES = {"ours": ours, "regpy": regpy, "loop": loop}

if __name__ == "__main__":
    sys.exit(main())
