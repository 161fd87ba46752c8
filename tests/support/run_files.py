"""Processes whose run files are looked at, also as files of unknown origin."""

import hashlib
from pathlib import Path

import h5py
import param

import resumable as rs

PACKAGE = Path(rs.__file__).parent
MEAN = {"mean": rs.Output(units="V")}


class Mean(rs.Process):
    version = 1
    outputs = MEAN
    width = param.Number(0.1)

    def unit_computation(self, spectrum):
        return spectrum.mean()


def named_source(path, group):
    """Read the source that a results group names, seen from the file that it is in."""
    with h5py.File(path, "r") as file:
        name, _, dataset = file[group].attrs["source"].rpartition("::")
    with h5py.File(Path(path).parent / name, "r") as source:
        return source[dataset][...]


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def assert_printable(text):
    """Nothing in it steers a terminal, or cannot be written to one."""
    text.encode()
    assert all(c.isprintable() or c in "\n\t" for c in text), ascii(text)
