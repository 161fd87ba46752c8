"""Files to publish into, and all that can be seen of one."""

from typing import ClassVar

import h5py
import numpy as np

import resumable as rs


class Level(rs.Process):
    """A value and a row, and a position that fails."""

    version = 1
    outputs: ClassVar = {
        "level": rs.Output(units="V"),
        "ends": rs.Output(2, "f4", labels=("first", "last")),
        "count": rs.Output(dtype="i8", per="run"),
    }

    def unit_computation(self, spectrum):
        if self.position == 5:
            raise ValueError("no luck")
        return {"level": spectrum.mean(), "ends": spectrum[[0, -1]].astype("f4")}

    def finish(self, results):
        return results.status.done


def fill(path, **options):
    """Write a file with much in it that must stay; return its path."""
    with h5py.File(path, "w", **options) as file:
        file["data"] = np.random.default_rng(4).normal(size=(50, 16))
        file["data"].attrs["unit"] = "pA"
        file["data"].attrs["reference"] = file["data"].ref
        file.create_dataset("deep/er/packed", data=np.arange(9000), compression="gzip")
        file["deep/names"] = ["a", "longer", "text"]
        file["deep"].attrs["list"] = np.arange(7)
        file["link"] = h5py.SoftLink("/data")
        grows = file.create_dataset("grows", (10,), "i4", maxshape=(None,), chunks=(4,))
        grows.resize(17, axis=0)
        del file["deep/names"]
        file["many"] = np.zeros(100)
        for number in range(100):
            file["many"].attrs[f"n{number}"] = number
    return path


def left_over(path):
    return [p.name for p in path.parent.iterdir() if "journal" in p.name]
