"""Runs that are recorded, and what is right about what they leave.

``python scenarios.py CASE FOLDER ENGINE`` computes; with the name of a log in the
environment everything it does is recorded, in its worker processes too.
"""

import dataclasses
import os
import sys
import time
import warnings
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import param
from recorder import record_from_here

import resumable as rs

# Here, because a worker process imports this module before it opens anything.
record_from_here()

POSITIONS = 40
FEWER = 24
WIDTH = 32
FAILING = (7, 23)
#: In the environment: what failed before does not any more.
MENDED = "RESUMABLE_TEST_MENDED"
#: In the environment: every position takes so many seconds.
DELAY = "RESUMABLE_TEST_DELAY"
#: In the environment: seconds between two syncs.
CHECKPOINT = "RESUMABLE_TEST_CHECKPOINT"


def row_of(spectrum):
    """Return what is computed of a spectrum; any wrong byte changes it."""
    return np.cumsum(np.resize(spectrum, 125) * np.arange(1, 126))


class Plain(rs.Process):
    """Rows that are no whole pages, and two positions that fail."""

    version = 1
    table = param.Array(doc="kept in the run file")
    outputs: ClassVar = {
        "wide": rs.Output(125),
        "index": rs.Output(dtype="i8", fill_value=-1),
    }
    #: Positions that were computed in this process.
    computed: ClassVar = []

    def unit_computation(self, spectrum):
        type(self).computed.append(self.position)
        if self.position in FAILING and MENDED not in os.environ:
            raise ValueError(f"no row at {self.position}")
        if DELAY in os.environ:
            time.sleep(float(os.environ[DELAY]))
        return {"wide": row_of(spectrum), "index": self.position}


class Summed(Plain):
    """With outputs for the whole run, one of them of several pages."""

    outputs: ClassVar = {
        **Plain.outputs,
        "total": rs.Output(1500, per="run"),
        "rows": rs.Output(dtype="i8", per="run"),
    }

    def finish(self, results):
        return dict(zip(("total", "rows"), total_of(results["wide"][...]), strict=True))


class Ragged(Plain):
    """With rows of any number, which lie in ragged files until the run is packed."""

    outputs: ClassVar = {**Plain.outputs, "some": rs.Output(125, ragged=True)}

    def unit_computation(self, spectrum):
        values = super().unit_computation(spectrum)
        return {**values, "some": some_of(values["wide"], self.position)}


def some_of(row, position):
    """Return the rows of a position, from the one that it has."""
    return [row * factor for factor in range(position % 3)]


def total_of(rows):
    return np.resize(np.nansum(rows, axis=0), 1500), np.int64(np.isfinite(rows).sum())


@dataclasses.dataclass(frozen=True)
class Case:
    process: type = Summed
    options: dict = dataclasses.field(default_factory=dict)
    first: str = "nothing"
    """What was there before: nothing, a complete run, one of a shorter source."""
    mended: bool = False
    stacked: bool = False

    def prepare(self, folder):
        """Write the source, and compute what is there before."""
        path = Path(folder) / "scan.h5"
        # Whole numbers: their sums are the same in any order.
        spectra = np.random.default_rng(5).integers(0, 999, (POSITIONS, WIDTH)) * 1.0
        length = FEWER if self.first == "shorter" else POSITIONS
        with h5py.File(path, "w") as file:
            if self.stacked:
                file.create_dataset(
                    "data", data=spectra.T, chunks=(1, POSITIONS), compression="gzip"
                )
            else:
                most = (None, WIDTH) if self.first == "shorter" else None
                file.create_dataset("data", data=spectra[:length], maxshape=most)
        if self.first != "nothing":
            compute(dataclasses.replace(self, options={}, mended=False), folder)
        if self.first == "shorter":
            with h5py.File(path, "r+") as file:
                file["data"].resize(POSITIONS, 0)
                file["data"][length:] = spectra[length:]
        return np.array([row_of(spectrum) for spectrum in spectra])


CASES = {
    "plain": Case(),
    "bare": Case(Plain),
    "grown": Case(first="shorter"),
    "override": Case(options={"override": True}, first="complete"),
    "retry": Case(options={"retry_failed": True}, first="complete", mended=True),
    "ragged": Case(Ragged),
    "ragged, grown": Case(Ragged, first="shorter"),
    "ragged, retry": Case(
        Ragged, options={"retry_failed": True}, first="complete", mended=True
    ),
    "rechunk": Case(options={"rechunk": True}, stacked=True),
}


def compute(case, folder, engine="serial", **options):
    if case.mended:
        os.environ[MENDED] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rs.ResumableWarning)
            axes = {"position_axes": (1,)} if case.stacked else {}
            process = case.process(
                f"{folder}/scan.h5::/data", table=np.arange(1500.0), **axes
            )
            return process.compute(
                engine=engine,
                workers=2,
                checkpoint=float(os.environ.get(CHECKPOINT, "0.012")),
                progress=False,
                **{**case.options, **options},
            )
    finally:
        os.environ.pop(MENDED, None)


if __name__ == "__main__":
    # Under its own name, so that workers import it instead of getting a copy.
    import scenarios

    scenarios.compute(scenarios.CASES[sys.argv[1]], *sys.argv[2:])
