"""What several tests of engines need."""

from __future__ import annotations

import pytest


@pytest.fixture
def log(tmp_path):
    """Return the name of the file where Logged notes positions."""
    return str(tmp_path / "log")
