"""What several tests of worker need."""

import h5py
import numpy as np
import pytest


@pytest.fixture
def means(tmp_path):
    """Make ``scan.h5::/data`` beside the script and return the means of its rows."""
    data = np.random.default_rng(2).normal(size=(40, 8))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = data
    return data.mean(axis=1)


@pytest.fixture
def source(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = np.random.default_rng(3).random((200, 4))
    return f"{tmp_path / 'scan.h5'}::/data"
