"""Sources read as a whole."""

import h5py
import numpy as np

from resumable.source.reader import Reader
from resumable.source.reference import refer


def read_all(source, axes=0):
    with Reader(refer(source, axes)) as reader:
        rows = reader.empty(reader.geometry.size)
        reader.read(0, np.ones(reader.geometry.size, bool), rows)
    return rows


def fingerprint(source, axes=0, *, full=False):
    with Reader(refer(source, axes)) as reader:
        return reader.fingerprint(full=full)


LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": True},
    "compressed": {"chunks": (2, 3, 2), "compression": "gzip"},
    "filtered": {"chunks": (3, 1, 4), "shuffle": True, "fletcher32": True},
    "growable": {"chunks": (2, 2, 2), "maxshape": (None, None, None)},
}


def usid_source(path):
    """Write a USID main dataset by hand: 3 x 4 positions, 8 values each."""
    rows, columns = np.divmod(np.arange(12, dtype="u4"), 4)
    with h5py.File(path, "w") as file:
        group = file.create_group("Measurement_000/Channel_000")
        spectra = np.random.default_rng(0).random((12, 8))
        main = group.create_dataset("Raw_Data", data=spectra)
        main.attrs["quantity"], main.attrs["units"] = "Current", "nA"
        positions = np.stack([columns, rows], axis=1)
        steps = np.arange(8, dtype="u4").reshape(1, -1)
        for name, values, labels, units in (
            ("Position_Indices", positions, ["X", "Y"], ["nm", "nm"]),
            ("Position_Values", positions.astype("f4") * 5, ["X", "Y"], ["nm", "nm"]),
            ("Spectroscopic_Indices", steps, ["Bias"], ["V"]),
            ("Spectroscopic_Values", steps.astype("f4") / 8, ["Bias"], ["V"]),
        ):
            made = group.create_dataset(name, data=values)
            made.attrs["labels"] = np.array(labels, dtype="S")
            made.attrs["units"] = np.array(units, dtype="S")
            main.attrs[name] = made.ref
    return f"{path}::/Measurement_000/Channel_000/Raw_Data"
