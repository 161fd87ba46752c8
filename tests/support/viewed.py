"""Runs of every kind, of which programs of others read the files."""

import os
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
from sources import usid_source

import resumable as rs

PEAK = np.dtype([("height", "f8"), ("count", "i4")])
LABELS = ("height", "centre", "half width", "Größe")

#: Outputs, and what they are of the spectrum at a position.
KINDS = {
    "One": ({"mean": rs.Output(units="V")}, lambda s: s.mean()),
    "Two": (
        {"mean": rs.Output(units="V"), "ends": rs.Output(2, "f4"), "std": rs.Output()},
        lambda s: {"mean": s.mean(), "ends": s[[0, -1]], "std": s.std()},
    ),
    "Labels": ({"fit": rs.Output(4, units="V", labels=LABELS)}, lambda s: s[:4]),
    "Own": (
        {"mean": rs.Output(), "square": rs.Output((3, 3)), "ok": rs.Output((), "?")},
        lambda s: {"mean": s[0], "square": s[:9].reshape(3, 3), "ok": s[0] > 0},
    ),
    "Smooth": ({"smooth": rs.Output(16)}, lambda s: s / 2),
    "Peak": (
        {"peak": rs.Output((), PEAK), "z": rs.Output((), "c16"), "n": rs.Output()},
        lambda s: {"peak": np.array((s[0], 2), PEAK), "z": 1j * s[0], "n": 1.0},
    ),
    "Ragged": (
        {"peaks": rs.Output(2, ragged=True, units="eV"), "n": rs.Output((), "i4")},
        lambda s: {"peaks": np.ones((int(s[0]) % 3, 2)), "n": 1},
    ),
    "OnlyRagged": (
        {"events": rs.Output(ragged=True)},
        lambda s: np.ones(int(s[0]) % 3),
    ),
}


def process_of(kind, name=None, **body):
    outputs, of_spectrum = KINDS[kind]

    def unit_computation(self, spectrum, **inputs):
        return of_spectrum(spectrum)

    body = {"unit_computation": unit_computation} | body
    return type(name or kind, (rs.Process,), {"version": 1, "outputs": outputs, **body})


def nexus(path):
    """Write a map of spectra as NXdata: 5 x 6 positions, 16 values each."""
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs["NX_class"], entry.attrs["default"] = "NXentry", "data"
        data = entry.create_group("data")
        data.attrs["NX_class"], data.attrs["signal"] = "NXdata", "counts"
        data.attrs["axes"] = ["y", "x", "energy"]
        counts = np.random.default_rng(0).poisson(5, (5, 6, 16)).astype("f8")
        data["counts"] = counts
        for number, (name, units) in enumerate(
            (("y", "um"), ("x", "um"), ("energy", "eV"))
        ):
            data.attrs[f"{name}_indices"] = number
            data[name] = np.linspace(0, 1, counts.shape[number])
            data[name].attrs["units"] = units
    return f"{path}::/entry/data/counts"


def stopping(self, spectrum):
    if self.position == (2, 3):
        raise ValueError("no peak")
    return spectrum.mean()


def make_all(folder):
    """Make runs of all kinds in a folder, and return the files that have results."""
    os.chdir(folder)
    source, axes = nexus("map.h5"), (0, 1)

    def compute(process, **options):
        return process.compute(engine="serial", progress=False, **options)

    def made(cls, *args, **options):
        return compute(cls(source, position_axes=axes, **options), *args)

    results = {kind: made(process_of(kind)) for kind in KINDS}
    weights = {"weight": np.arange(30.0).reshape(5, 6)}
    results["Inputs"] = made(process_of("One", "Inputs"), inputs=weights)
    results["Packed"] = made(process_of("Two", "Packed"))
    results["Packed"].pack()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rs.ResumableWarning)
        failing = process_of("One", "Failing", unit_computation=stopping)
        results["Failing"] = made(failing)
    shutil.copy("map.h5", "moved.h5")
    moved = process_of("One", "Moved")(
        source.replace("map", "moved"), position_axes=axes
    )
    results["Moved"] = compute(moved)
    Path("moved.h5").unlink()
    for kind in ("Two", "Ragged"):
        part = process_of(kind, f"Part{kind}")(source, position_axes=axes)
        results[f"Part{kind}"] = compute(part, positions=[0, 1, 7])
    files = {kind: one.path for kind, one in results.items()}
    for kind in ("Labels", "Two", "Ragged", "Failing"):
        path = Path(f"user_{kind}.h5").absolute()
        shutil.copy("map.h5", path)
        results[kind].publish(f"{path}::/entry/{kind}")
        files[f"published {kind}"] = path
    results["Two"].publish("new.h5::/entry/two")
    files["published alone"] = Path("new.h5").absolute()
    return files


def make_usid(folder):
    """Make a run of a USID source, and publish it beside that."""
    source = usid_source(Path(folder) / "usid.h5")
    cls = type(
        "Fit",
        (rs.Process,),
        {
            "version": 1,
            "outputs": {"fit": rs.Output(4, units="V", labels=LABELS)},
            "unit_computation": lambda self, spectrum: spectrum[:4],
        },
    )
    results = cls(source).compute(engine="serial", progress=False)
    results.publish(f"{folder}/usid.h5::/Measurement_000/Channel_000/Fit")
    return results.path, Path(folder) / "usid.h5"
