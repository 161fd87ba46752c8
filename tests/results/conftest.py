"""What several tests of results need."""

import h5py
import numpy as np
import pytest
from helpers import compute
from packed_runs import Large, Many


@pytest.fixture
def source(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["map"] = np.random.default_rng(2).normal(size=(8, 5, 16))
        file["height"] = np.linspace(0, 1, 8)
        file["height"].attrs["units"] = "nm"
        file["height"].make_scale("height")
        file["map"].dims[0].attach_scale(file["height"])
    return f"{tmp_path}/scan.h5::/map"


@pytest.fixture
def run(source):
    return compute(Many(source, position_axes=(0, 1)))


@pytest.fixture
def large(tmp_path):
    return compute(Large(200, tmp_path))
