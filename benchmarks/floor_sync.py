"""The floor with one fdatasync at its end: as durable as ours when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import floor
from computations import Array
from workloads import Workload


def compute(workload: Workload, source: Path, folder: Path) -> Callable[[], Array]:
    """Compute as the floor does and bring the output to the disk."""
    read = floor.compute(workload, source, folder)
    floor.sync(folder / "floor.h5")
    return read
