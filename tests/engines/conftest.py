"""What several tests of engines need."""

import pytest


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "log")
