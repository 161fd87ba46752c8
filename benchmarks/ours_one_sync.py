"""Resumable without its syncs, and one at the end: what durability costs.

Never compute like this: after a power cut positions could be marked as done whose rows
are not on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import floor
import ours
from computations import Array
from workloads import Workload

from resumable.system import disk


def compute(workload: Workload, source: Path, folder: Path) -> Callable[[], Array]:
    """Compute as ours does, with one fdatasync of the run file at the end."""
    _sync_nothing()
    process = ours.PROCESSES[workload.key]
    # setup() runs in every worker after its writer was made.
    process.setup = lambda self: _sync_nothing()  # type: ignore[method-assign]
    read = ours.compute(workload, source, folder)
    for path in folder.glob("*.h5"):
        floor.sync(path)
    return read


def _sync_nothing() -> None:
    disk.sync = lambda fd: None
    disk.sync_folder = lambda folder: None
    os.fsync = lambda fd: None  # type: ignore[assignment]
