"""CPU time of the identity of a class that uses much: ``python identity.py [REPEATS]``.

The class uses numpy, scipy, numba and a helper module of 1,000 lines, which is written
here. Printed are milliseconds of CPU of the first identity in a process, imports
excluded, and of the next, of another object: the least of some processes.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

HELPERS = 100
HEAD = """import numba
import numpy as np
import scipy.optimize
from scipy import ndimage

WEIGHTS = np.linspace(0, 1, 1000)
TABLE = {"a": 1.5, "b": [2, 3]}


@numba.njit
def compiled(x):
    return x * 2.0

"""
#: Ten lines each.
HELPER = '''
def step_{n}(spectrum, level={n}.5):
    """Take step {n}."""
    smooth = ndimage.gaussian_filter1d(spectrum, TABLE["a"])
    base = np.percentile(smooth, level / 10)
    for width in (1, 2, {n}):
        if smooth.max() > base * width:
            smooth = smooth - base
    return {called}

'''
LINE = "def line(x, a, b):\n    return a * x + b\n"
SCRIPT = """
import json, time
import numba, numpy as np, param, scipy.ndimage, scipy.optimize
import resumable as rs
import helpers

class Fit(rs.Process):
    order = param.Integer(3)
    limits = param.List([0.5, 2.0])
    outputs = {"height": rs.Output()}

    def unit_computation(self, spectrum):
        start = helpers.step_0(spectrum) * self.order
        fit, _ = scipy.optimize.curve_fit(helpers.line, spectrum, start)
        return helpers.compiled(fit[0]) * np.sum(self.limits)

def identify():
    process = Fit("scan.h5::/data")
    began = time.process_time()
    process.identity
    return 1000 * (time.process_time() - began)

if __name__ == "__main__":
    print(json.dumps([identify(), identify()]))
"""


def helpers():
    """Write a module of a thousand lines, all of which are reached."""
    parts = [HEAD]
    for number in range(HELPERS):
        later = [n for n in (2 * number + 1, 2 * number + 2) if n < HELPERS]
        called = " + ".join(f"step_{n}(smooth)" for n in later) or "smooth * WEIGHTS[0]"
        parts.append(HELPER.format(n=number, called=called))
    return "".join([*parts, "\n", LINE])


def main(repeats=5):
    """Print the least of first and next."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "helpers.py").write_text(helpers())
        (folder / "fit.py").write_text(SCRIPT)
        with h5py.File(folder / "scan.h5", "w") as file:
            file["data"] = np.zeros((10, 50))
        root = str(Path(__file__).parents[1])
        found = [
            json.loads(
                subprocess.check_output(
                    [sys.executable, "fit.py"], cwd=name, env={"PYTHONPATH": root}
                )
            )
            for _ in range(repeats)
        ]
        lines = len((folder / "helpers.py").read_text().splitlines())
    first, following = (min(times) for times in zip(*found, strict=True))
    print(f"{lines} lines of helpers: first {first:.0f} ms, next {following:.0f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
