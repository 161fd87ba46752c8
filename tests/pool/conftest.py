"""What several tests of pool need."""

import pytest

import resumable as rs


@pytest.fixture(scope="module")
def shared_pool():
    with rs.Pool(2) as pool:
        yield pool


@pytest.fixture
def pool(shared_pool):
    yield shared_pool
    assert list(shared_pool.imap(abs, [-1, 2])) == [1, 2]
