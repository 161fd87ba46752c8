"""What several tests of session need."""

import pytest
from verified_runs import Unit


@pytest.fixture
def run(scan):
    """Return a finished run with two failures and its path."""
    process = Unit(scan, bad=[3, 40])
    return process, process.compute(engine="serial").path
