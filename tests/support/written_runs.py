"""A run file that tests write into as workers do."""

import contextlib
from typing import ClassVar

import numpy as np

import resumable as rs
from resumable.runfile.writer import RowWriter

SIZE = 40


class Pair(rs.Process):
    """Two outputs of a row, for a run file that is only written here."""

    version = 1
    outputs: ClassVar = {"pair": rs.Output(2, "i4"), "one": rs.Output(dtype="f8")}

    def unit_computation(self, position):
        return {"pair": np.array([position, -position], "i4"), "one": position / 2}


def values(positions):
    positions = np.asarray(positions)
    return {
        "pair": np.stack([positions, -positions], axis=1).astype("i4"),
        "one": positions / 2,
    }


def write(row_writer, start, done=(), failed=(), stop=None):
    """Write rows of positions, in a span that begins at `start`."""
    chosen = sorted([*done, *failed])
    stop = stop or max(chosen) + 1
    masks = [np.isin(np.arange(start, stop), which) for which in (done, failed)]
    row_writer.write(start, *masks, values(chosen))


@contextlib.contextmanager
def writing(target):
    """Write into a target; close without a complaint about a broken disk."""
    row_writer = RowWriter(target)
    try:
        yield row_writer
    finally:
        with contextlib.suppress(OSError):
            row_writer.close()
