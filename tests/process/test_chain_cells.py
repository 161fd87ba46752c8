"""A chain over the cells of a real file."""

import shutil

import cells
import h5py
import pytest
from chained import compute
from helpers import DATA

pytest.importorskip("hdf5plugin")


def test_features_of_cells_are_those_of_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(DATA / cells.FILE, tmp_path)
    results = compute(cells.chain(("Segment", "Features")))
    with h5py.File(cells.FILE) as file:
        masks = file["events/mask"][...] > 0
        stored = {name: file[f"events/{name}"][...] for name in cells.FEATURES}
    labels = results["labels"][...]
    same = 0
    for position, mask in enumerate(masks):
        for number in range(1, labels[position].max() + 1):
            if ((labels[position] == number) != mask).any():
                continue
            same += 1
            for name in cells.FEATURES:
                found = results[name][position][number - 1]
                # The file's perimeters are of single precision.
                wanted = stored[name][position]
                assert found == pytest.approx(wanted, rel=1e-6), name

    assert same == 12
    assert results["area_um"].count.sum() > 40
