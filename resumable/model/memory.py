"""How a memory budget is divided into workers and rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from resumable.errors import PlanError
from resumable.model.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from resumable.model.geometry import Geometry

#: Bytes of rows in memory at once, unless whole chunks of the source need more: of a
#: block with its results, and of the next one where it is read meanwhile. Measured
#: (benchmarks/speed.py): less makes calls of block computations cost more, more costs
#: cache misses.
BLOCK_BYTES = 8 << 20
#: Memory of a worker before its first position: interpreter, numpy, h5py.
WORKER_BYTES = 48 << 20
#: Memory of the server that worker processes are forked from.
SERVER_BYTES = 40 << 20


class Footprint(NamedTuple):
    """Bytes of memory that a number of positions takes in a worker."""

    input_bytes: int
    """Per position: source and inputs, twice where rows must be gathered."""
    output_bytes: int
    """Per position."""
    scratch: Callable[[int], int]
    """Declared working memory of the computation for a number of positions."""
    ahead_bytes: int = 0
    """Per position: sources of which the next block is read meanwhile."""

    def __call__(self, rows: int) -> int:
        """Bytes for `rows` positions; where one is a block, the next one waits."""
        ahead = self.ahead_bytes if rows > 1 else 0
        each = self.input_bytes + self.output_bytes + ahead
        return rows * each + self.scratch(rows)

    def rows_within(self, budget: float) -> int:
        """Return the most positions that fit; 0 when not even one does."""
        if self(1) > budget:
            return 0
        low, high = 1, 2
        while self(high) <= budget and high < 1 << 40:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self(middle) <= budget else (low, middle)
        return low


class Blocks(NamedTuple):
    """How many workers, and how many positions each holds in memory at once."""

    workers: int
    share_bytes: int
    rows: int


def fit_memory(
    footprint: Footprint,
    geometry: Geometry,
    *,
    memory: int,
    workers: int,
    local: bool,
) -> Blocks:
    """Divide a memory budget among workers, fewer of them when it is small.

    Raises
    ------
    PlanError
        Not even one worker with one position fits; the least that works is named.
    """
    base = WORKER_BYTES if local else 0
    server = SERVER_BYTES if local else 0
    while workers > 1 and (memory - server) / workers - base < footprint(1):
        workers -= 1
    share = (memory - server) // workers - base
    rows = footprint.rows_within(share)
    if rows == 0:
        least = footprint(1) + base + server
        msg = (
            f"one position needs {format_bytes(footprint(1))} and a worker itself "
            f"{format_bytes(base + server)}, more than the budget of "
            f"{format_bytes(memory)}; give memory='{least} bytes' or more"
        )
        raise PlanError(msg)
    whole = footprint.rows_within(max(BLOCK_BYTES, footprint(1)))
    # All positions of a band of chunks, but not all positions to one worker.
    band = min(geometry.quantum, math.ceil(geometry.size / workers))
    if geometry.indivisible or geometry.quantum <= rows:
        # Where the band does not fit, every block reads chunks it uses a part of:
        # the fewer and larger the blocks, the less is read twice.
        whole = max(whole, band)
    rows = min(rows, whole)
    if rows > geometry.quantum:
        rows = rows // geometry.quantum * geometry.quantum
    return Blocks(workers, share, min(rows, geometry.size))


class MemoryModel:
    """Peak memory as a fixed part plus so much per position."""

    def __init__(self, declared: float) -> None:
        self._slope = max(declared, 1.0)
        self._fixed = 0.0
        self._first: tuple[int, int] | None = None

    def rows(self, peak: int, rows: int, budget: int) -> int:
        """Add an observation; return the positions that fit into `budget`."""
        if self._first is None:
            self._first = (peak, rows)
        first_peak, first_rows = self._first
        if rows > 2 * first_rows:
            self._slope = max(self._slope, (peak - first_peak) / (rows - first_rows))
        self._fixed = max(self._fixed, peak - self._slope * rows)
        return int((0.9 * budget - self._fixed) / self._slope)
