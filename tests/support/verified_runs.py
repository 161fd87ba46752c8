"""Processes whose runs are verified, and damage to their files."""

from pathlib import Path

import numpy as np
import param

import resumable as rs
from resumable.runfile.file import RunFile
from resumable.runfile.header import FAILURE_DTYPE, SESSION_DTYPE

LOW = {"low": rs.Output()}
UNIT = {"low": rs.Output(), "pair": rs.Output(2, "f4", fill_value=-1)}
BLOCK = {"sum": rs.Output(), "count": rs.Output(dtype="i8")}


class Unit(rs.Process):
    """Two outputs; fails where ``bad`` is."""

    version = 1
    outputs = UNIT
    gain = param.Number(1.0)
    bad = param.List([])

    def unit_computation(self, spectrum):
        if self.position in self.bad:
            raise ValueError(f"bad spectrum at {self.position}")
        return {"low": spectrum.min() * self.gain, "pair": spectrum[:2].astype("f4")}


class Block(rs.Process):
    """A sum that BLAS may do in another order; fails where ``bad`` is."""

    version = 1
    outputs = BLOCK
    bad = param.List([])

    def block_computation(self, spectra):
        if set(np.ravel(self.position).tolist()) & set(self.bad):
            raise ValueError(f"bad block {self.position}")
        return {
            "sum": spectra @ np.linspace(0, 1, spectra.shape[1]),
            "count": 10**9 + (spectra > 0).sum(axis=1),
        }


def check(found, name):
    (one,) = [check for check in found.checks if check.name == name]
    return one


def whole(results, process=None, **more):
    return rs.verify(results, process, sample="all", **more)


def offset(path, name, position=0):
    header = RunFile(path).header
    per = {"failures": FAILURE_DTYPE.itemsize, "sessions": SESSION_DTYPE.itemsize}
    for output in header.outputs:
        per[output] = header.outputs[output].row_bytes
    return header.offsets[name] + position * per.get(name, 1)


def put(path, place, data):
    """Write bytes into a file as a broken disk would."""
    with Path(path).open("r+b") as file:
        file.seek(place)
        file.write(data)


def flip(path, place, bit=1):
    put(path, place, bytes([Path(path).read_bytes()[place] ^ bit]))
