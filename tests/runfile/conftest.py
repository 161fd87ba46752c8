"""What several tests of runfile need."""

import contextlib
import dataclasses
import os

import h5py
import numpy as np
import pytest
from written_runs import SIZE, Pair

from resumable.model.positions import PositionSet
from resumable.runfile import create_run_file, folder
from resumable.runfile.writer import WriteTarget
from resumable.source.coordinates import coordinates_of
from resumable.system import disk


@dataclasses.dataclass
class Place:
    """A run file, locked, and what a worker needs to write into it."""

    run: object
    lock: object
    run_folder: object
    target: WriteTarget

    def status(self):
        found = []
        for name in ("completed_positions", "failed_positions"):
            offset = self.run.header.offsets[name]
            with disk.opened(self.run.path, os.O_RDONLY) as fd:
                data = np.frombuffer(disk.read_at(fd, SIZE, offset), "u1")
            found.append(np.flatnonzero(data).tolist())
        return found

    def rows(self, name):
        with h5py.File(self.run.path, "r") as file:
            return file[self.run.header.group][name][...]


@pytest.fixture
def locked(tmp_path):
    """Return a function that makes a run file, or locks it again."""
    with contextlib.ExitStack() as stack:

        def take(checkpoint_s=3600.0):
            computation = Pair(SIZE, target=tmp_path)._computation()
            found = computation.run_folder.runs()
            held = folder.RunLock(computation.run_folder)
            stack.enter_context(held.held())
            if found:
                run = found[0]
            else:
                with computation.open_reader() as reader:
                    run = create_run_file(
                        computation.run_folder.new_path(),
                        computation.spec(),
                        coordinates_of(reader),
                        PositionSet.full(SIZE),
                    )
            target = WriteTarget(
                run.path,
                run.header,
                held.lock_path,
                held.writers_path,
                held.token,
                checkpoint_s,
            )
            return Place(run, held, computation.run_folder, target)

        yield take


@pytest.fixture
def place(locked):
    return locked()
