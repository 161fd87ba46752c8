"""Resumable: the candidate with a status, whose results survive a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import computations
from computations import Array
from workloads import DATASET, WORKERS, Workload

import resumable as rs


class First(rs.Process):
    """First number of every spectrum."""

    version = 1

    def outputs(self) -> dict[str, rs.Output]:
        """Declare the output."""
        return {"result": rs.Output(dtype="f4")}

    def unit_computation(self, spectrum: Array) -> Any:
        """Compute one position."""
        return spectrum[0]


class Mean(rs.Process):
    """Mean of every spectrum."""

    version = 1

    def outputs(self) -> dict[str, rs.Output]:
        """Declare the output."""
        return {"result": rs.Output(dtype="f4")}

    def unit_computation(self, spectrum: Array) -> Any:
        """Compute one position."""
        return spectrum.mean()


class BlockMean(rs.Process):
    """Mean of every spectrum, a batch at once."""

    version = 1

    def outputs(self) -> dict[str, rs.Output]:
        """Declare the output."""
        return {"result": rs.Output(dtype="f4")}

    def block_computation(self, spectra: Array) -> Array:
        """Compute a batch."""
        means: Array = spectra.mean(axis=1)
        return means


class LowPass(rs.Process):
    """Every spectrum without its high frequencies."""

    version = 1

    def outputs(self) -> dict[str, rs.Output]:
        """Declare the output, as large as the source."""
        return {"result": rs.Output(shape=self.spectrum_shape, dtype="f4")}

    def unit_computation(self, spectrum: Array) -> Array:
        """Compute one position."""
        return computations.low_pass(spectrum)


class Fit(rs.Process):
    """One Lorentzian for every spectrum."""

    version = 1

    def outputs(self) -> dict[str, rs.Output]:
        """Declare the output."""
        return {"result": rs.Output(shape=(4,), dtype="f8")}

    def unit_computation(self, spectrum: Array) -> Array:
        """Compute one position."""
        return computations.fit_lorentzian(spectrum)


PROCESSES: dict[str, type[rs.Process]] = {
    "a": Mean,
    "b": Fit,
    "c": LowPass,
    "d": Mean,
    "e": BlockMean,
    "f": Mean,
    "trivial": First,
}


def compute(
    workload: Workload,
    source: Path,
    folder: Path,
    *,
    engine: str = "auto",
    workers: int | None = WORKERS,
) -> Callable[[], Array]:
    """Compute with everything at its default, but for the number of workers."""
    axes = workload.position_axes
    process = PROCESSES[workload.key](
        f"{source}::/{DATASET}",
        target=str(folder),
        position_axes=axes if len(axes) > 1 else axes[0],
    )
    results = process.compute(engine=engine, workers=workers, progress=False)

    def read() -> Array:
        whole: Array = results["result"][...]
        return whole

    return read
