"""Resumable without workers, to compare with a bare Python loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ours
from computations import Array
from workloads import Workload


def compute(workload: Workload, source: Path, folder: Path) -> Callable[[], Array]:
    """Compute with the serial engine."""
    return ours.compute(workload, source, folder, engine="serial", workers=None)
