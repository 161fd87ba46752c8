"""Runs to be packed, and all that can be seen of one."""

from pathlib import Path
from typing import ClassVar

import numpy as np

import resumable as rs
from resumable.runfile.file import RunFile

PAIR = np.dtype([("x", "<f4"), ("n", "<i8")], align=True)


class Many(rs.Process):
    """Fails at two positions until there is a file ``mended`` in the working folder."""

    version = 1
    outputs: ClassVar = {
        "level": rs.Output(units="V"),
        "pair": rs.Output(dtype=PAIR),
        "ends": rs.Output((2, 3), ">f4", labels=("a", "b", "c")),
        "sound": rs.Output(dtype=bool, fill_value=True),
        "wave": rs.Output(2, "c16"),
        "text": rs.Output(dtype="S5"),
        "total": rs.Output(3, per="run"),
    }

    def unit_computation(self, spectrum):
        if self.position in ((1, 2), (3, 0)) and not Path("mended").exists():
            raise ValueError("no luck")
        return {
            "level": spectrum.mean(),
            "pair": (spectrum[0], 7),
            "ends": np.tile(spectrum[:3].astype("f4"), (2, 1)),
            "sound": bool(spectrum[0] > 0),
            "wave": np.exp(1j * spectrum[:2]),
            "text": b"abc",
        }

    def finish(self, results):
        return [results.status.done, 1, 2]


class Large(rs.Process):
    """Rows of 8 kB, to have many chunks."""

    version = 1
    outputs: ClassVar = {"row": rs.Output(1024, "i8", fill_value=-1)}

    def unit_computation(self, index):
        return index + np.arange(1024)


def bits(array):
    """Return the bytes of an array without those that pad a compound."""
    names = array.dtype.names
    return [bits(array[n]) for n in names] if names else array.tobytes()


def same(left, right):
    return left.dtype == right.dtype and bits(left) == bits(right)


def packed(results):
    return RunFile(results.path).header.packed
