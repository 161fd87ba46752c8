"""A kill or a power cut at any moment: every state that it can leave is sound.

``recorder`` records real runs, with their worker processes; ``replay`` builds what a
kill or a power cut between any two of their steps can leave on the disk; ``examiner``
looks at each of these, and goes on from it. ``python power_cut.py 50000`` is the long
form with its counts.
"""

import os
import sys
import unittest.mock

import pytest
import scenarios
from examiner import Tally
from power_cut import Recording, long_form, table

from resumable.runfile import create, ragged, tables, writer
from resumable.source import rechunk
from resumable.system import OpenFile, disk

pytestmark = pytest.mark.timeout(110, method="signal")


#: Cases that between them take every kind of step.
QUICK = ("plain", "ragged, grown", "rechunk", "ragged, retry")
#: The long form examines all moments.
SHARE = 0.65


@pytest.fixture
def tally():
    return Tally()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.torture)
        for name in scenarios.CASES
    ],
)
def test_no_kill_and_no_power_cut_does_harm(tmp_path, tally, name):
    processes = set()
    # Again where one worker was so late that the other one had done it all.
    while len(processes) < 3 and tally.recordings < 5:
        base = tmp_path / str(tally.recordings)
        base.mkdir()
        run = Recording(
            scenarios.CASES[name], base, tally, every=5, share=SHARE
        ).record("local")
        processes = {event.pid for event in run.events}
    run.replay(1)

    assert tally.faults == {}, tally.examples
    assert len(processes) == 3
    assert tally.states.total() > 300
    assert tally.resumed >= 3


@pytest.mark.parametrize("name", ["plain", "rechunk"])
def test_no_cut_in_a_session_that_goes_on_does_harm(tmp_path, tally, name):
    """A session after a kill finds what was never synced, and may trust none of it."""
    run = Recording(scenarios.CASES[name], tmp_path, tally, every=2, share=SHARE)
    run.record("serial")
    for part in (0.4, 0.7):
        run.go_on(run.killed_at(int(part * len(run.events))), 1)

    assert tally.faults == {}, tally.examples
    assert tally.states.total() > 300


def test_no_cut_does_harm_where_only_the_end_was_missing(tmp_path, tally):
    run = Recording(scenarios.CASES["bare"], tmp_path, tally).record("serial")
    run.go_on(run.killed_at(run.marked_unsynced()), 6)

    assert tally.faults == {}, tally.examples
    assert tally.states.total() > 100


def test_a_session_after_a_power_cut_may_be_cut_again(tmp_path, tally):
    case = scenarios.CASES["rechunk"]
    run = Recording(case, tmp_path, tally, every=2, share=SHARE).record("serial")
    for part in (0.3, 0.5, 0.8):
        run.go_on(run.cut_at(int(part * len(run.events))), 1)

    assert tally.faults == {}, tally.examples
    assert tally.states.total() > 300


class _NoSync:
    """A module without its syncs."""

    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        if name in ("fsync", "sync", "sync_folder"):
            return lambda _: None
        return getattr(self._module, name)


_commit = writer.RowWriter._commit


def _mark_first(self, marks, *, durable):
    with unittest.mock.patch.object(self._file, "sync"):
        _commit(self, marks, durable=False)
    self._file.sync()


class _Unsynced(OpenFile):
    """A run file whose syncs do nothing."""

    def sync(self):
        pass


BROKEN = {
    "rows": ("plain", writer, "OpenFile", _Unsynced, "marked wrongly"),
    "marks": ("plain", writer.RowWriter, "_commit", _mark_first, "marked wrongly"),
    "ragged": ("ragged", ragged.RaggedFile, "sync", lambda self: None, "unreadable"),
    "creation": ("plain", create, "os", _NoSync(os), "unreadable"),
    "folder": ("plain", disk, "sync_folder", lambda _: None, "acknowledged, but lost"),
    "finished": (
        "plain",
        tables.SessionTables,
        "sync",
        lambda self: None,
        "finished, but an output per run is not there",
    ),
    "copy": ("rechunk", rechunk, "disk", _NoSync(disk), "it does not go on"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_replay_finds_a_sync_that_is_missing(tmp_path, tally, monkeypatch, broken):
    name, place, attribute, instead, fault = BROKEN[broken]
    every = 1 if fault == "it does not go on" else 1000
    run = Recording(scenarios.CASES[name], tmp_path, tally, every=every)
    monkeypatch.setattr(place, attribute, instead)
    run.record("serial")
    monkeypatch.undo()
    run.replay(4, until=fault)

    assert fault in tally.faults


@pytest.mark.torture
@pytest.mark.timeout(3600, method="signal")
def test_fifty_thousand_states_are_sound(tmp_path):
    """The long form: more runs, at several paces, resumed at random moments.

    With ``-rP`` it shows its counts.
    """
    tallies = long_form(tmp_path, 50_000)
    sys.stdout.write(table(tallies))

    assert {n: t.examples for n, t in tallies.items() if t.faults} == {}
    assert all(t.states.total() > 1000 for t in tallies.values())
