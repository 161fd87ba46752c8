"""What a user's type checker says of a script: test_package has mypy check this file.

A line that must be an error ends with the ignore of it, and mypy reports ignores that
are not needed.
"""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import param

import resumable as rs


class Mean(rs.Process):
    version = 1
    gain = param.Number(1.0)
    outputs = {"mean": rs.Output()}  # noqa: RUF012 - as users write it

    def unit_computation(self, spectrum: np.ndarray[Any, Any]) -> float:
        return float(spectrum.mean()) * self.gain


def use(process: Mean) -> None:
    results = process.compute()
    assert_type(results, rs.Results)
    assert_type(rs.open(results.path), rs.Results)
    assert_type(rs.load("run.h5", Mean), Mean)
    assert_type(rs.load(Path("state.json"), Mean), Mean)
    assert_type(rs.load(process.state()), rs.Process)
    assert_type(rs.load(results, "fit.py:Mean"), rs.Process)
    rs.load("run.h5", int)  # type: ignore[type-var]
    rs.laod("run.h5", Mean)  # type: ignore[attr-defined]
