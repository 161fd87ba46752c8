"""What several tests of pool need."""

import pytest

import resumable as rs


@pytest.fixture(scope="module")
def shared_pool():
    """Return a pool of two workers for all tests that leave it usable."""
    with rs.Pool(2) as pool:
        yield pool


@pytest.fixture
def pool(shared_pool):
    """Return it, and check that it is usable afterwards."""
    yield shared_pool
    assert list(shared_pool.imap(abs, [-1, 2])) == [1, 2]
