"""Process: which positions are computed, what stops, what goes on, what is seen."""

import os
import signal
import time

import numpy as np
import pytest
from helpers import compute, data_of
from processes import Failing, Mean, Scaled, listing

import resumable as rs
from resumable.system.signals import Uninterrupted
from resumable.system.stop import StopRequest

# Positions.


@pytest.mark.parametrize(
    ("positions", "chosen"),
    [
        (slice(1, 10, 3), [1, 4, 7]),
        (slice(None, None, -5), [1, 6, 11]),
        (5, [5]),
        (-1, [11]),
        ([3, 1, 3, -2], [1, 3, 10]),
        (np.array([0, 11]), [0, 11]),
        ((2, 3), [11]),
        ([(0, 1), (2, 0)], [1, 8]),
        (np.arange(12).reshape(3, 4) % 4 == 0, [0, 4, 8]),
        (np.arange(12) % 5 == 0, [0, 5, 10]),
        (range(2, 4), [2, 3]),
    ],
    ids=str,
)
def test_positions_restrict_a_run_and_the_rest_can_follow(make_file, positions, chosen):
    cube = np.random.default_rng(0).random((3, 4, 6))
    process = Mean(make_file(cube=cube) + "::/cube", position_axes=(0, 1))
    process.calls = []
    part = compute(process, positions=positions)
    first = sorted(np.ravel_multi_index(p, (3, 4)) for p in process.calls)
    done = np.flatnonzero(part.completed_mask)
    hidden = np.isnan(part["mean"]).ravel()
    whole = compute(process)

    assert first == chosen
    assert done.tolist() == chosen
    assert np.flatnonzero(~hidden).tolist() == chosen
    assert whole.path == part.path
    assert len(process.calls) == len(set(process.calls)) == 12
    np.testing.assert_array_equal(whole["mean"], cube.mean(axis=-1))


def test_positions_done_before_are_not_computed_again(scan):
    process = Mean(scan)
    process.calls = []
    compute(process, positions=slice(0, 20))
    compute(process, positions=slice(10, 30))
    again = len(process.calls)
    compute(process, positions=slice(5, 25))

    assert again == 30
    assert len(process.calls) == 30
    assert process.results.status.done == 30


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        (60, "position 60 does not exist: positions go from 0 to 59"),
        (np.ones(59, bool), r"the mask has shape \(59,\), .* \(60,\)"),
        (np.ones((2, 2), int), "must be a list of indices"),
    ],
    ids=str,
)
def test_positions_that_do_not_exist_are_refused_before_anything(
    scan, tmp_path, positions, words
):
    before = listing(tmp_path)
    with pytest.raises(rs.PlanError, match=words):
        compute(Mean(scan), positions=positions)

    assert listing(tmp_path) == before


def test_the_third_run_answers_at_once_without_calling_the_function(scan):
    process = Mean(scan)
    process.calls = []
    compute(process, positions=slice(0, 25))
    compute(process)
    path = process.results.path
    before = (path.stat().st_mtime_ns, path.read_bytes())
    results = compute(process)

    assert len(process.calls) == 60
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    assert len(results.sessions) == 2


def test_an_object_computes_again_after_its_parameter_was_set(scan):
    process = Scaled(scan, factor=2)
    first = compute(process)
    process.factor = 3
    second = compute(process)

    assert first.path != second.path
    np.testing.assert_allclose(second["scaled"], data_of(scan) * 3)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_stops_cleanly_and_everything_computed_is_kept(scan, name):
    process = Mean(scan)
    number, came = getattr(signal, name), []

    def own(*_):
        came.append(1)

    class Calls(list):
        def append(self, position):
            super().append(position)
            # Slow enough for the worker to look up after every position or two.
            time.sleep(0.02)
            if len(self) == 17:
                os.kill(os.getpid(), number)

    process.calls = Calls()
    before = signal.signal(number, own)
    try:
        with pytest.raises(rs.NotFinished, match=f"stopped by {name}") as info:
            compute(process)
    finally:
        put_back = signal.signal(number, before)
    done = info.value.results.status.done
    calls = len(process.calls)
    compute(process)

    assert done == calls >= 17
    assert (put_back, came) == (own, [])
    assert len(process.calls) == 60


def test_ctrl_c_is_the_last_handler_that_is_put_back(monkeypatch):
    """It may interrupt from then on, and none of ours must stay."""
    put_back, put = [], signal.signal

    def recording(number, handler):
        put_back.append(number)
        return put(number, handler)

    monkeypatch.setattr(signal, "signal", recording)
    with StopRequest().watching():
        put_back.clear()

    assert put_back == [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT]


def test_a_handler_of_another_language_is_left_alone(monkeypatch):
    """Python does not know it, and could not put it back."""
    put, known = signal.signal, signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    numbers = []
    monkeypatch.setattr(signal, "signal", lambda n, h: numbers.append(n) or put(n, h))
    before = known(signal.SIGINT)
    with StopRequest().watching(), Uninterrupted():
        during = known(signal.SIGINT)

    assert (numbers, during) == ([], before)


@pytest.mark.parametrize(
    "state", ["no run", "partial", "complete", "failed", "damaged"]
)
def test_looking_changes_no_byte_on_disk(scan, tmp_path, state):
    process = Failing(scan)
    if state == "failed":
        process.raises = lambda p: ValueError("x") if p == 3 else None
        with pytest.warns(rs.ResumableWarning):
            compute(process)
    elif state != "no run":
        chosen = slice(0, 10) if state == "partial" else None
        path = compute(process, positions=chosen).path
        if state == "damaged":
            path.write_bytes(path.read_bytes()[:-1])
    before = listing(tmp_path)

    process = Failing(scan, position_axes=0)
    looks = [
        lambda: process.identity,
        lambda: process.duplicates,
        lambda: process.partials,
        lambda: str(process.explain()),
        lambda: repr(process.results) + str(getattr(process.results, "failures", "")),
        lambda: repr(process),
    ]
    if state != "damaged":
        looks += [
            lambda: str(process.test([1, 2])),
            lambda: str(process.plan()),
            lambda: str(process.plan(override=True)),
            lambda: str(process.plan(retry_failed=True)),
        ]
    for look in looks:
        look()
        assert listing(tmp_path) == before


def test_duplicates_and_partials_are_the_runs_of_exactly_this(scan):
    process = Scaled(scan)
    compute(Scaled(scan, factor=9))
    nothing = (process.duplicates, process.partials, process.results)
    part = compute(process, positions=slice(0, 5))
    partial = (process.duplicates, process.partials, process.results)
    compute(process)
    complete = (process.duplicates, process.partials, process.results)

    assert nothing == ([], [], None)
    assert partial == ([], [part], part)
    assert complete == ([part], [], part)


def test_plan_says_what_compute_will_do(scan):
    process = Mean(scan)
    new = process.plan(engine="serial")
    compute(process, positions=slice(0, 20))
    going_on = process.plan(engine="serial")
    path = compute(process).path
    there = process.plan(engine="serial")

    assert [p.action for p in (new, going_on, there)] == [
        "compute",
        "continue",
        "return",
    ]
    assert [p.pending for p in (new, going_on, there)] == [60, 40, 0]
    assert {p.path for p in (new, going_on, there)} == {str(path)}
    assert "40 of 60 to compute" in str(going_on)
