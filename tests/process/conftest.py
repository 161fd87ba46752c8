"""What several tests of process need."""

import textwrap

import numpy as np
import pytest
from programs import MODULE


@pytest.fixture
def growing(make_file):
    """A source whose position axis is resizable, 40 x 8."""
    data = np.random.default_rng(1).random((40, 8))
    made = {"data": data, "maxshape": (None, 8), "chunks": (16, 8)}
    return make_file(data=made) + "::/data"


@pytest.fixture
def home(tmp_path, monkeypatch, scan):
    """Go to the folder of the scan, which has a module of the user's."""
    (tmp_path / "levels.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    return tmp_path
