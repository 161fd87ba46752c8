"""What several tests of engines need."""

import pytest


@pytest.fixture
def log(tmp_path):
    """Return the name of the file where Logged notes positions."""
    return str(tmp_path / "log")
