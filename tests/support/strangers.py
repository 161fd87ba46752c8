"""What tests of run files from strangers need."""

from pathlib import Path

import param

import resumable as rs

PACKAGE = Path(rs.__file__).parent
MEAN = {"mean": rs.Output(units="V")}


class Mean(rs.Process):
    """The mean of every spectrum."""

    version = 1
    outputs = MEAN
    width = param.Number(0.1)

    def unit_computation(self, spectrum):
        return spectrum.mean()


def assert_printable(text):
    """Nothing in it steers a terminal, or cannot be written to one."""
    text.encode()
    assert all(c.isprintable() or c in "\n\t" for c in text), ascii(text)
