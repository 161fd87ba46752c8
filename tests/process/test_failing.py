"""Positions that fail: recorded, tried again, or the end of the run."""

import h5py
import numpy as np
import pytest
from helpers import compute, data_of
from processes import Failing, Hooked, Mean

import resumable as rs


class FailingBlock(Hooked):
    """Whole blocks: one bad position spoils its block."""

    version = 1

    def block_computation(self, spectra):
        for position in self.position:
            error = self.raises(int(position))
            if error is not None:
                raise error
        return spectra.mean(axis=1)


def test_a_failing_position_is_recorded_and_the_run_goes_on(scan):
    process = Failing(scan)
    process.raises = lambda p: KeyError(f"key {p}") if p in (7, 30) else None
    with pytest.warns(rs.ResumableWarning, match="2 of 60 positions failed") as caught:
        results = process.compute(engine="serial", progress=False)
    expected = data_of(scan).mean(axis=1)
    expected[[7, 30]] = np.nan

    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "the first at 7: KeyError: 'key 7'" in str(caught[0].message)
    assert results.status.finished
    assert [(f.position, f.exception) for f in results.failures] == [
        (7, "KeyError"),
        (30, "KeyError"),
    ]
    np.testing.assert_array_equal(results["mean"], expected)
    with h5py.File(results.path) as file:
        assert np.isnan(file["data-Failing_000/mean"][[7, 30]]).all()


def test_a_failing_position_spoils_nothing_else_in_its_block(scan):
    """The block is halved until the one position that raises is alone."""
    process = FailingBlock(scan)
    process.raises = lambda p: ValueError(f"bad {p}") if p in (11, 12, 59) else None
    with pytest.warns(rs.ResumableWarning, match="3 of 60"):
        results = compute(process)
    expected = data_of(scan).mean(axis=1)
    expected[[11, 12, 59]] = np.nan

    np.testing.assert_array_equal(results["mean"], expected)
    assert [(f.position, f.message) for f in results.failures] == [
        (11, "bad 11"),
        (12, "bad 12"),
        (59, "bad 59"),
    ]


def test_without_retry_failed_positions_are_left_alone(scan):
    process = Failing(scan)
    calls = []
    process.raises = lambda p: ValueError("no") if p in (7, 30) else None
    with pytest.warns(rs.ResumableWarning):
        compute(process)
    process.raises = lambda p: calls.append(p)
    with pytest.warns(rs.ResumableWarning, match="2 of 60 positions failed") as caught:
        process.compute(engine="serial", progress=False)

    assert calls == []
    assert [one.filename for one in caught] == [__file__]


def test_a_retry_that_fails_again_has_the_newest_message(scan):
    process = Failing(scan)
    for word in ("first", "second"):
        process.raises = lambda p, word=word: ValueError(word) if p == 7 else None
        with pytest.warns(rs.ResumableWarning):
            results = compute(process, retry_failed=word == "second")

    assert [(f.position, f.message) for f in results.failures] == [(7, "second")]
    assert results.status.finished


def test_a_retry_summarises_again(scan):
    """finish runs again, since what it summarised has changed."""
    totals = []

    class Summed(Failing):
        version = 1

        def finish(self, results):
            totals.append(results.status.done)

    process = Summed(scan)
    process.raises = lambda p: ValueError("no") if p == 7 else None
    with pytest.warns(rs.ResumableWarning):
        compute(process)
    process.raises = lambda p: None
    compute(process, retry_failed=True)

    assert totals == [59, 60]


def test_retry_failed_does_what_its_plan_says_where_no_run_is(scan):
    process = Mean(scan)
    process.calls = []
    planned = process.plan(retry_failed=True).pending
    compute(process, retry_failed=True)

    assert len(process.calls) == planned


@pytest.mark.parametrize("cls", [Failing, FailingBlock])
@pytest.mark.parametrize("bad", [0, 33, 59])
def test_on_error_raise_stops_at_once_and_keeps_what_is_done(scan, cls, bad):
    process = cls(scan)
    error = ValueError("bad luck")
    process.raises = lambda p: error if p == bad else None
    with pytest.raises(rs.UnitFailed, match=f"position {bad} raised") as info:
        compute(process, on_error="raise")
    results = process.results
    done = results.status.done
    expected = data_of(scan).mean(axis=1)
    kept = results.completed_mask

    assert info.value.position == bad
    assert info.value.__cause__ is error
    assert "in unit_computation" in str(info.value) or "in block" in str(info.value)
    assert not results.completed_mask[bad]
    assert not results.failed_mask.any()
    assert results.failures == []
    np.testing.assert_array_equal(results["mean"][kept], expected[kept])
    process.raises = lambda p: None
    assert compute(process).sessions[-1].computed == 60 - done


def test_on_error_raise_does_not_compute_what_comes_after(scan):
    process = Failing(scan)
    calls = []

    def raises(position):
        calls.append(position)
        return ValueError("stop") if position == 20 else None

    process.raises = raises
    compute(process, positions=[0])
    with pytest.raises(rs.UnitFailed):
        compute(process, on_error="raise")

    assert calls == list(range(21))
    assert process.results.status.done == 20


def test_twenty_spread_positions_with_the_same_exception_stop_the_run(scan):
    """The function is wrong, not the data: nothing is marked, 20 calls were made."""
    process = Failing(scan)
    calls = []

    def raises(position):
        calls.append(position)
        return TypeError("always")

    process.raises = raises
    with pytest.raises(rs.UnitFailed, match="the first 20 positions tried") as info:
        compute(process)
    results = process.results

    assert len(calls) == len(set(calls)) == 20
    assert calls[0] == 0
    assert max(calls) >= 54
    # Spread evenly, but at no fixed distance: a map's columns have a period.
    assert np.diff(sorted(calls)).max() <= 5
    assert len(set(np.diff(sorted(calls)))) > 2
    assert "TypeError: always" in str(info.value)
    assert (results.status.done, results.status.failed) == (0, 0)
    assert results.failures == []
    process.raises = lambda p: None
    assert compute(process).status.done == 60


def test_who_insists_has_all_failures_recorded(scan):
    """Nothing is tried first: every position is computed once, in order."""
    process = Failing(scan)
    calls = []

    def raises(position):
        calls.append(position)
        return TypeError("always")

    process.raises = raises
    with pytest.raises(rs.UnitFailed, match="on_error='record'"):
        compute(process, positions=slice(20, 50))
    calls.clear()
    with pytest.warns(rs.ResumableWarning, match="60 of 60"):
        results = compute(process, on_error="record")

    assert calls == list(range(60))
    assert results.status.finished
    assert [f.message for f in results.failures] == ["always"] * 60


def test_different_exceptions_everywhere_are_recorded(scan):
    process = Failing(scan)
    kinds = [ValueError, TypeError, KeyError]
    process.raises = lambda p: kinds[p // 7 % 3](f"at {p}")
    with pytest.warns(rs.ResumableWarning, match="60 of 60"):
        results = compute(process)

    assert results.status.failed == 60
    assert results.status.finished
    assert [f.position for f in results.failures] == list(range(60))
    assert results.failures[8].exception == "TypeError"
    assert np.isnan(results["mean"]).all()


def test_one_success_among_the_first_shows_that_the_data_are_to_blame(scan):
    process = Failing(scan)
    calls = []

    def raises(position):
        calls.append(position)
        return None if len(calls) == 20 else ValueError("same")

    process.raises = raises
    with pytest.warns(rs.ResumableWarning, match="59 of 60"):
        results = compute(process)

    assert (results.status.done, results.status.failed) == (1, 59)


def test_a_success_in_an_earlier_session_counts(scan):
    process = Failing(scan)
    compute(process, positions=[0])
    process.raises = lambda p: ValueError("same")
    with pytest.warns(rs.ResumableWarning, match="59 of 60"):
        results = compute(process)

    assert results.status.failed == 59


def test_system_exit_in_a_computation_is_a_failure(scan):
    process = Failing(scan)
    process.raises = lambda p: SystemExit(3) if p == 5 else None
    with pytest.warns(rs.ResumableWarning, match="1 of 60"):
        results = compute(process)

    assert results.failures[0].exception == "SystemExit"


def test_an_interrupt_from_the_computation_keeps_what_was_committed(scan):
    process = Failing(scan)
    process.raises = lambda p: KeyboardInterrupt() if p == 40 else None
    with pytest.raises(KeyboardInterrupt):
        compute(process)
    done = process.results.status.done
    process.raises = lambda p: None
    results = compute(process)

    assert results.sessions[-1].computed == 60 - done
    np.testing.assert_array_equal(results["mean"], data_of(scan).mean(axis=1))


class Untold(Exception):
    """An exception that cannot even be printed."""

    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [
        Untold(),
        ValueError("surrogate \udcff"),
        ValueError("nul \0 in it"),
        ValueError("x" * 100_000),
        ValueError("é" * 400),
        ValueError(),
        type("N" * 300, (Exception,), {})("long name"),
    ],
    ids=["no str", "surrogate", "nul", "long", "cut in a letter", "empty", "long name"],
)
@pytest.mark.parametrize("cls", [Failing, FailingBlock])
def test_any_exception_can_be_recorded(scan, error, cls):
    process = cls(scan)
    process.raises = lambda p: error if p == 5 else None
    with pytest.warns(rs.ResumableWarning, match="1 of 60"):
        results = compute(process)

    assert [f.position for f in results.failures] == [5]
    assert results.status.done == 59
    repr(results)
    results._repr_html_()
