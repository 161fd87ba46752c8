"""Rounds: every candidate once in every round, each time in a fresh process."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from workloads import Workload

TIMEOUT_S = 900.0
"""A candidate that takes longer has failed."""

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Candidate:
    """One way to compute a workload."""

    name: str
    """Its name in the table."""

    module: str
    """The module beside this one that computes."""

    python: Path = Path(sys.executable)
    """The Python that runs it."""

    tree: Path = _HERE.parent
    """Where it finds the package, if it is checked out but not installed."""


@dataclass(frozen=True)
class Material:
    """Files and options that the candidates of one workload share."""

    workload: Workload
    """The workload, scaled."""

    scale: float
    """How it was scaled."""

    source: Path
    """Its source file."""

    expected: Path
    """The right results, a numpy file."""


@dataclass(frozen=True)
class Measurement:
    """Time and problem of one candidate in one round."""

    seconds: float
    """How long its call took; NaN if it failed."""

    problem: str | None
    """What is wrong with it, in words, or None."""


def prepare(workload: Workload, scale: float, folder: Path) -> Material:
    """Make a workload's source and right results, unless the folder has them.

    Workloads that compute something else on the same source share the file.
    """
    scaled = workload.scaled(scale)
    shape = "x".join(map(str, scaled.shape))
    source = folder / f"{scaled.generate.__name__}-{shape}-{scaled.dtype}.h5"
    expected = source.with_suffix(f".{scaled.key}.npy")
    if not source.exists():
        scaled.create(source)
    if not expected.exists():
        partial = expected.with_suffix(".partial.npy")
        np.save(partial, scaled.expected(source))
        partial.rename(expected)
    return Material(scaled, scale, source, expected)


def run(
    material: Material, candidates: Sequence[Candidate], rounds: int
) -> dict[str, list[Measurement]]:
    """Measure every candidate once in every round.

    The order changes in every round, so that no candidate always follows the same one:
    a candidate leaves dirty pages and a warm processor to the next one.

    Returns
    -------
    dict
        The measurements of each candidate, by its name.
    """
    measured: dict[str, list[Measurement]] = {one.name: [] for one in candidates}
    for turn in range(rounds):
        shift = turn % len(candidates)
        for candidate in [*candidates[shift:], *candidates[:shift]]:
            key, name = material.workload.key, candidate.name
            _show(f"({key}) round {turn + 1} of {rounds}: {name}")
            measured[name].append(_measure(candidate, material))
    _show("")
    return measured


def median(measurements: Sequence[Measurement]) -> float:
    """Return the median time in seconds, NaN if a run failed or was wrong."""
    if any(measurement.problem for measurement in measurements):
        return float("nan")
    return statistics.median(measurement.seconds for measurement in measurements)


def problems(measurements: Sequence[Measurement]) -> list[str]:
    """Return what went wrong, every problem once."""
    found = (measurement.problem for measurement in measurements)
    return list(dict.fromkeys(problem for problem in found if problem))


def _measure(candidate: Candidate, material: Material) -> Measurement:
    """Run one candidate in a fresh process and an empty folder, then remove it."""
    folder = tempfile.mkdtemp(prefix="output-", dir=material.source.parent)
    arguments = (
        *(candidate.module, material.workload.key, material.scale),
        *(material.source, material.expected, folder),
    )
    try:
        ended = subprocess.run(
            [candidate.python, _HERE / "measure.py", *map(str, arguments)],
            capture_output=True,
            check=True,
            env=variables(candidate.tree),
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().splitlines()[-1:] or ["no message"]
        return Measurement(float("nan"), f"failed: {last[0]}")
    except subprocess.TimeoutExpired:
        return Measurement(float("nan"), f"failed: not done after {TIMEOUT_S:.0f} s")
    finally:
        shutil.rmtree(folder)
    return Measurement(**json.loads(ended.stdout))


def variables(tree: Path) -> dict[str, str]:
    """Return the environment variables of a candidate that uses the package in `tree`.

    One BLAS thread in every process, as resumable has anyway, so that no candidate is
    slowed down by too many threads. Workers find these modules, and the package where
    it is checked out but not installed. Its modules are compiled once, like those of
    installed packages.
    """
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    path = os.pathsep.join([str(_HERE), str(tree)])
    found = {**os.environ, **dict.fromkeys(threads, "1"), "PYTHONPATH": path}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def _show(text: str) -> None:
    """Show on a terminal what runs now; an empty text wipes the line."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text:60}" if text else f"\r{text:60}\r")
        sys.stderr.flush()
