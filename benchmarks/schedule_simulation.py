"""Simulate the schedule on 10 to 10,000 ranks, event by event.

    python benchmarks/schedule_simulation.py
    python benchmarks/schedule_simulation.py --ranks 10 100 --per-rank 200

Every rank runs the package's own `batches_taken` with a `Schedule` and a `Remainder`
of its own; a simulated clock replaces MPI and the computation.
The same seed gives the same table. The rules compared are

``taken``       portions from the shared counter: the rule of the MPI engine
``dealt``       portions dealt out in turn: its rule without one-sided operations
``contiguous``  every rank gets the same number of positions, one after the other
``interleaved`` every rank gets each P-th position
``one by one``  the first free rank takes the next position, at no cost: no rule that
                keeps the order of positions and does not know their times is better

Times are relative to the ideal: all work divided by the number of ranks, or the longest
position where that is more.
"""

from __future__ import annotations

import argparse
import copy
import functools
import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from resumable.engines import counter
from resumable.engines.counter import InterleavedCounter, batches_taken
from resumable.model.batch import Batch
from resumable.model.plan import Plan
from resumable.model.positions import PositionSet
from resumable.model.schedule import PROBES, Remainder, Schedule

Array = np.ndarray[Any, np.dtype[Any]]

TICK_S = 0.01
"""Claims are counted in steps of this time."""


@dataclass(frozen=True)
class Costs:
    """Times besides those of positions, in s; measured by `scale.py`, rounded up."""

    addition_s: float = 20e-6
    """From asking for a portion to having it."""
    service_s: float = 2e-6
    """Time for which one addition occupies the counter."""
    batch_s: float = 0.4e-3
    """Opening a batch, writing and reporting it."""


def constant(rng: np.random.Generator, count: int) -> Array:
    """All positions alike."""
    return np.ones(count)


def exponential(rng: np.random.Generator, count: int) -> Array:
    """Some short, few long."""
    return rng.exponential(size=count)


def heavy_tailed(rng: np.random.Generator, count: int) -> Array:
    """Lognormal, sigma 1.5: one in a thousand takes 100 times the median."""
    sigma = 1.5
    return rng.lognormal(-(sigma**2) / 2, sigma, count)


def slow_region(rng: np.random.Generator, count: int) -> Array:
    """Noise of 30 %, and a twentieth of the map that takes 20 times as long."""
    units = rng.gamma(10, 0.1, count)
    first = int(0.4 * count)
    units[first : first + count // 20] *= 20
    return units / units.mean()


UNITS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    made.__name__.replace("_", " "): made
    for made in (constant, exponential, heavy_tailed, slow_region)
}
"""Times of units, with mean 1."""


@dataclass
class Outcome:
    """Times and counts of a simulated run."""

    finish_s: float
    """When the last rank was ready."""
    ideal_s: float
    """When it would have been ideally."""
    idle: float
    """Share of the ranks' time in which they computed no position."""
    additions: int = 0
    """How often a rank asked for a portion."""
    peak: float = 0.0
    """Claims in the busiest second."""
    handed_out: Array = field(default_factory=lambda: np.empty(0))
    """How often each position was."""

    @property
    def relative(self) -> float:
        """Time to finish over the ideal one."""
        return self.finish_s / self.ideal_s


class _Clock:
    """The time of the present rank."""

    def __init__(self) -> None:
        self.now = 0.0
        self.additions: Counter[int] = Counter()


class _Portion:
    """A requested portion; waiting for it moves the clock."""

    def __init__(self, clock: _Clock, first: int, last: int, at: float) -> None:
        self.first, self.last = first, last
        self._clock, self._at = clock, at

    def ready(self) -> bool:
        self._clock.now = max(self._clock.now, self._at)
        return True


class SimulatedCounter:
    """One number that all ranks add to, so many in each tick."""

    def __init__(self, clock: _Clock, costs: Costs) -> None:
        self._clock, self._costs = clock, costs
        self._next = 0
        self._most = max(1, round(TICK_S / costs.service_s))
        self._served: Counter[int] = Counter()

    def lend(self, remainder: Remainder) -> None:
        """Keep nothing: every simulated rank has all pending positions."""

    def begin(self, remainder: Remainder) -> None:
        """Nothing to prepare."""

    def take(self, count: int) -> _Portion:
        """Hand out the next numbers."""
        clock, costs = self._clock, self._costs
        clock.additions[math.floor(clock.now)] += 1
        # The clock of a rank that has just waited is ahead of those of other ranks,
        # which are simulated later and served earlier.
        tick = math.floor(clock.now / TICK_S)
        while self._served[tick] >= self._most:
            tick += 1
        self._served[tick] += 1
        at = max(clock.now, tick * TICK_S) + costs.service_s + costs.addition_s
        first, self._next = self._next, self._next + count
        return _Portion(clock, first, self._next, at)

    def close(self) -> None:
        """Nothing is held."""


def plan_for(count: int, ranks: int, checkpoint_s: float) -> Plan:
    """Return a plan in which only time limits a batch."""
    return Plan(
        action="compute",
        reason="no run matches",
        path="",
        positions=count,
        pending=count,
        engine="mpi",
        workers=ranks,
        memory_bytes=1 << 30,
        share_bytes=1 << 30,
        block=1 << 20,
        block_bytes=1 << 20,
        quantum=1,
        read_amplification=1.0,
        output_bytes=8 * count,
        checkpoint_s=checkpoint_s,
    )


def ideal(units: Array, ranks: int) -> float:
    """Return the least possible time."""
    return max(float(units.sum()) / ranks, float(units.max()))


def simulate(
    units: Array,
    ranks: int,
    costs: Costs | None = None,
    *,
    dealt: bool = False,
    checkpoint_s: float = 10.0,
) -> Outcome:
    """Run a whole run.

    Parameters
    ----------
    units : ndarray
        Seconds of each position.
    ranks : int
        How many compute.
    costs : Costs, optional
    dealt : bool
        Deal portions out in turn, without a counter.
    checkpoint_s : float
        As for compute.
    """
    costs = costs or Costs()
    ends = np.concatenate([[0.0], np.cumsum(units)])
    handed_out = np.zeros(len(units), np.uint8)

    def seconds(batch: Batch) -> float:
        if batch.bits is None:
            handed_out[batch.start : batch.stop] += 1
            return float(ends[batch.stop] - ends[batch.start])
        where = batch.positions()
        handed_out[where] += 1
        return float(units[where].sum())

    schedule = Schedule(
        PositionSet.full(len(units)), plan_for(len(units), ranks, checkpoint_s)
    )
    # The first positions are tried one each; the first that succeeds tells all.
    tried = [schedule.next() for _ in range(min(ranks, PROBES))]
    trials = [seconds(batch) for batch in tried if batch is not None]
    begin = min(trials)
    schedule.note(1, begin)
    remainder = schedule.hand_over()
    clock = _Clock()
    shared = SimulatedCounter(clock, costs)
    works: list[tuple[Schedule, Iterator[Batch]]] = []
    for rank in range(ranks):
        own = copy.copy(schedule)
        source = InterleavedCounter(rank, ranks) if dealt else shared
        works.append((own, batches_taken(source, remainder, own, lambda: False)))
    waiting = [(max(begin, t), rank) for rank, t in enumerate(trials)]
    waiting += [(begin, rank) for rank in range(len(trials), ranks)]
    heapq.heapify(waiting)
    done: dict[int, tuple[int, float]] = {}
    finish = 0.0
    while waiting:
        clock.now, rank = heapq.heappop(waiting)
        own, batches = works[rank]
        if rank in done:
            own.note(*done[rank])
        batch = next(batches, None)
        if batch is None:
            finish = max(finish, clock.now)
            continue
        took = seconds(batch) + costs.batch_s
        done[rank] = batch.count, took
        heapq.heappush(waiting, (clock.now + took, rank))
    return Outcome(
        finish,
        ideal(units, ranks),
        1 - float(units.sum()) / (ranks * finish),
        clock.additions.total(),
        max(clock.additions.values(), default=0),
        handed_out,
    )


def static(units: Array, ranks: int, *, interleaved: bool) -> Outcome:
    """Give every rank its positions before the start, at no cost."""
    if interleaved:
        padded = np.zeros(-(-len(units) // ranks) * ranks)
        padded[: len(units)] = units
        loads = padded.reshape(-1, ranks).sum(axis=0)
    else:
        bounds = np.linspace(0, len(units), ranks + 1).astype(int)
        loads = np.add.reduceat(units, bounds[:-1])
    return _of_loads(units, ranks, float(loads.max()))


def one_by_one(units: Array, ranks: int) -> Outcome:
    """Give the next position to the first free rank."""
    ready = [0.0] * ranks
    for unit in units.tolist():
        heapq.heapreplace(ready, ready[0] + unit)
    return _of_loads(units, ranks, max(ready))


def _of_loads(units: Array, ranks: int, finish: float) -> Outcome:
    idle = 1 - float(units.sum()) / (ranks * finish)
    return Outcome(finish, ideal(units, ranks), idle)


WAYS: dict[str, Callable[[Array, int, Costs], Outcome]] = {
    "taken": simulate,
    "dealt": functools.partial(simulate, dealt=True),
    "contiguous": lambda units, ranks, costs: static(units, ranks, interleaved=False),
    "interleaved": lambda units, ranks, costs: static(units, ranks, interleaved=True),
    "one by one": lambda units, ranks, costs: one_by_one(units, ranks),
}
"""Ways to divide the work."""


def compared(units: Array, ranks: int, costs: Costs) -> dict[str, Outcome]:
    """Return the outcome of every rule."""
    return {name: way(units, ranks, costs) for name, way in WAYS.items()}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--per-rank", type=int, default=1000, help="positions")
    parser.add_argument("--mean", type=float, default=0.1, help="s of a position")
    parser.add_argument("--addition-us", type=float, default=Costs.addition_s * 1e6)
    parser.add_argument("--service-us", type=float, default=Costs.service_s * 1e6)
    parser.add_argument("--portion", type=float, default=counter.PORTION_S, help="s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--units", nargs="+", default=list(UNITS), choices=UNITS)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    given = parser.parse_args()
    counter.PORTION_S = given.portion
    costs = Costs(given.addition_us * 1e-6, given.service_us * 1e-6)
    print(
        f"{given.per_rank:,} positions per rank of {given.mean} s on average; "
        f"an addition takes {given.addition_us:g} us, of the "
        f"counter {given.service_us:g} us\n"
        "time over the ideal (idle share in %); additions in all, and in one second"
    )
    print(f"{'units':13} {'ranks':>6} " + " ".join(f"{way:>12}" for way in given.ways))
    for name in given.units:
        for ranks in given.ranks:
            rng = np.random.default_rng([given.seed, ranks])
            units = given.mean * UNITS[name](rng, given.per_rank * ranks)
            found = [WAYS[way](units, ranks, costs) for way in given.ways]
            columns = " ".join(
                f"{o.relative:6.2f} ({100 * o.idle:3.0f})" for o in found
            )
            additions, peak = max((o.additions, o.peak) for o in found)
            print(
                f"{name:13} {ranks:6,} {columns}  {additions:10,} {peak:9,.0f}/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
