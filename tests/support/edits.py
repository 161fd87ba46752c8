"""Scripts as users write them, and edits of one thing in each, with the right value.

The scripts compute the sum of four numbers, 22, in some way; what an edit changes makes
it another number, 44 for most.
"""

import json
import textwrap
from typing import NamedTuple

import h5py
import numpy as np

HEAD = """
import abc, contextlib, copy, dataclasses, enum, functools, itertools, json, math
import operator, os, sys, types, typing
import numpy as np, param, resumable as rs
sys.dont_write_bytecode = True
"""
TAIL = """
if __name__ == "__main__":
    results = compute()
    assert results["m"].shape == (3,)
    value = results["m"][1:2].item()
    print(float(value), results.path.name, flush=True)
"""
RUNS = """
def compute():
    return P("scan.h5::/data").compute(engine="serial", progress=False)
"""
MAPS = """
def compute():
    options = {"engine": "serial", "progress": False}
    out = {"m": rs.Output()}
    return rs.map(f, "scan.h5::/data", out, options=options, **given)
given = {}
"""


class Edit(NamedTuple):
    """An edit: in a file, the text `old` becomes `new`."""

    files: dict[str, str]
    old: str
    new: str
    value: float = 44
    """What is right after it."""
    file: str = "run.py"
    environment: tuple[dict[str, str], dict[str, str]] = ({}, {})

    def write(self, folder):
        """Write the files as they are before the edit."""
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        with h5py.File(folder / "scan.h5", "w") as file:
            file["data"] = np.arange(12.0).reshape(3, 4)

    def prepare(self, folder, *, after):
        """Write the environment that is for a run, and change the file."""
        environment = json.dumps(self.environment[after])
        (folder / "environment.json").write_text(environment)
        if after and self.old:
            path = folder / self.file
            text = path.read_text()
            path.write_text(text.replace(self.old, self.new))


def _lines(text, margin=""):
    return textwrap.indent(textwrap.dedent(text).strip("\n"), margin) + "\n"


def script(text, how=RUNS):
    """Make a script of the definition of P or of f."""
    return HEAD + _lines(text) + how + TAIL


def process(members, before="", bases="rs.Process"):
    """Make a script of the members of P and of what stands before it."""
    return script(
        _lines(before)
        + f"class P({bases}):\n    outputs = {{'m': rs.Output()}}\n"
        + _lines(members, "    ")
    )


def unit(returned, before="", members="", bases="rs.Process"):
    """Make a script of what unit_computation returns."""
    method = f"def unit_computation(self, s):\n    return {returned}\n"
    return process(_lines(members) + method, before, bases)


def mapped(text):
    """Make a script that maps f."""
    return script(text, MAPS)


def edit(files, old, new, value=44, **others):
    """Make an edit; one file is the script."""
    if isinstance(files, str):
        files = {"run.py": files}
    made = Edit(files, old, new, value, **others)
    assert made.files[made.file].count(old) == 1 or not old, (old, made.file)
    return made
