"""A Process that is a program."""

import enum
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import param
from click.testing import CliRunner

import resumable as rs
from resumable.cli.commands import main

ROOT = str(Path(__file__).parents[2])
LOW = {"low": rs.Output()}


class Colour(enum.Enum):
    """A choice."""

    RED = 1
    BLUE = 2


class Fit(rs.Process):
    """Scale the smallest value."""

    version = 1
    outputs = LOW
    half_width = param.Number(0.1, bounds=(0, 1), doc="first guess (V)")
    order = param.Integer(1)
    upside_down = param.Boolean(False, doc="turn it over")
    kind = param.Selector(objects=["min", "max"])
    window = param.Tuple((1, 2), length=2)
    colour = param.Selector(objects=list(Colour))
    kernel = param.Array(np.ones(3))
    extra = param.Parameter(None)

    def unit_computation(self, spectrum):
        value = getattr(spectrum, self.kind)() * self.half_width * self.order
        return -value if self.upside_down else value


class Narrow(Fit):
    """The same within closer bounds."""

    half_width = param.Number(0.1, bounds=(0, 0.5))


MODULE = """
    import param
    import resumable as rs

    open("imported", "a").close()

    class Level(rs.Process):
        '''Level of every spectrum.'''

        version = 1
        gain = param.Number(1.0, bounds=(0, 10), doc="of the amplifier")
        tags = param.Parameter({"b", "a", "c"})
        pause = param.Number(0.0)
        outputs = {"level": rs.Output()}

        def unit_computation(self, spectrum):
            if self.pause:
                import time
                time.sleep(self.pause)
            return spectrum.mean() * self.gain
"""


def invoke(*arguments, code=0, **more):
    """Run the command in this process and return what it printed."""
    result = CliRunner().invoke(main, list(arguments), **more)

    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def python(code, seed="1"):
    """Run a script in a fresh interpreter, in this folder; return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": ROOT, "PYTHONHASHSEED": seed},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
