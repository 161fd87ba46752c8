"""A disk without room: an error, never a signal; with room the same command goes on."""

import full_disk
import pytest

pytestmark = pytest.mark.timeout(110, method="signal")

HOWS = ["disk", "limit"]
COMPLETE = {"done": 99, "failed": 1, "wrong": 0, "finished": True, "total": True}


def check_goes_on(result):
    """Check what the same command did once there was room."""
    assert result["source"]
    assert result["second"]["code"] == 0, result["second"]["errors"]
    assert result["second"]["status"] == COMPLETE
    assert len(result["second"]["left"]) == 2


@pytest.fixture
def outcome(program_server, tmp_path):
    """Return a function that says what came of a case, which then had room."""

    def run(case, how, code=1):
        result = full_disk.run(program_server, case, tmp_path, how)
        assert result["first"]["code"] == code, result["first"]["errors"]
        check_goes_on(result)
        return result["first"]

    return run


@pytest.mark.parametrize("how", HOWS)
def test_no_room_for_a_run_file_is_told_before_any_work(outcome, how):
    first = outcome("creation", how)

    assert "TargetError: no room for the results" in first["errors"]
    assert "they need 1.6 MB" in first["errors"]
    assert "B are free" in first["errors"]
    assert first["left"] == ["scan.h5"]


@pytest.mark.parametrize("how", HOWS)
def test_no_room_for_a_lock_file_is_told_too(outcome, how):
    first = outcome("lock file", how)

    assert "TargetError: no room for the results" in first["errors"]
    assert set(first["left"]) <= {"scan.h5", "filler"}


@pytest.mark.parametrize("how", HOWS)
def test_no_room_for_a_copy_in_position_order_is_told_before_it_begins(outcome, how):
    first = outcome("copy", how)

    assert "TargetError" in first["errors"]
    assert "need 3.2 MB" in first["errors"]
    # Not a write of the copy failed, but the reservation.
    assert how == "limit" or "in reserve" in first["errors"]
    assert len(first["left"]) == 2
    assert first["status"]["done"] == 0


@pytest.mark.parametrize("when", ["rows", "failures", "finish"])
def test_a_disk_that_fills_up_later_takes_nothing_from_a_run(outcome, when):
    if full_disk.namespace() is None:
        # No disk of its own here. A limit of the size of files, which stops every
        # write, is the harder case; the test below has it.
        test_a_write_that_fails_ends_the_run_with_its_error(outcome, when)
        return

    assert outcome(when, "disk", code=0)["status"] == COMPLETE


@pytest.mark.parametrize("when", ["rows", "failures", "finish"])
def test_a_write_that_fails_ends_the_run_with_its_error(outcome, when):
    first = outcome(when, "limit")

    assert "File too large" in first["errors"].splitlines()[-1]
    assert first["status"]["wrong"] == 0
    assert not first["status"]["finished"]
