"""Names of runs, which of them is used, and the lock that one process holds."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import compute, data_of
from processes import Hooked, Mean, process_of
from run_files import named_source

import resumable as rs
from resumable.runfile.file import RunFile
from resumable.runfile.folder import holder_of
from resumable.system import LockFile


class Watched(Hooked):
    version = 1

    def unit_computation(self, spectrum):
        if self.position == 0:
            self.watch()
        return np.mean(spectrum)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


HOLD = """
import sys, time
from pathlib import Path
import resumable as rs

class Slow(rs.Process):
    version = 1
    outputs = {"x": rs.Output()}
    def unit_computation(self, index):
        if index == 1:
            Path(sys.argv[1], "started").touch()
            time.sleep(60)
        return index

Slow(5, sys.argv[1]).compute(engine="serial", progress=False)
"""


# The same computation as in the script, without waiting.
Slow = process_of(lambda self, index: index, {"x": rs.Output()}, name="Slow")


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock, and the folder it computes in."""
    target = tmp_path / "target"
    target.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(target)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not (target / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    yield process, target
    process.kill()
    process.wait()


def test_a_second_process_gets_an_error_that_names_the_first_at_once(holder):
    process, target = holder
    began = time.monotonic()
    with pytest.raises(rs.RunBusy) as info:
        compute(Slow(5, target))
    took = time.monotonic() - began

    assert f"process {process.pid} on {socket.gethostname()}, since" in str(info.value)
    assert took < 10
    assert process.poll() is None


def test_looking_at_a_busy_run_works(holder):
    process, target = holder
    results = Slow(5, target).results
    who = holder_of(RunFile(results.path))

    assert (who["pid"], who["host"]) == (process.pid, socket.gethostname())
    assert results.status.pending > 0
    assert Slow(5, target).plan().action == "continue"
    assert process.poll() is None


def test_a_dead_holder_holds_nothing(holder):
    process, target = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = [name for name in names(target) if name.endswith(".claim")]
    path = Slow(5, target).results.path
    holds = holder_of(RunFile(path))
    results = compute(Slow(5, target))

    assert len(left) == 1
    assert holds == {}
    np.testing.assert_array_equal(results["x"], np.arange(5.0))
    assert names(target) == sorted([results.path.name, "started"])


def test_another_computation_in_the_same_folder_is_not_held_up(holder):
    _, target = holder

    assert compute(Slow(6, target)).status.finished


def test_a_run_within_the_same_run_is_busy(scan):
    process = Watched(scan)
    refused = []

    def watch():
        with pytest.raises(rs.RunBusy, match=f"process {os.getpid()} on "):
            compute(Watched(scan))
        refused.append(True)

    process.watch = watch
    results = compute(process)

    assert refused == [True]
    assert results.status.finished


def test_lock_files_exist_only_during_a_run(scan):
    process = Watched(scan)
    folder = Path(scan.partition("::")[0]).parent
    during = []
    process.watch = lambda: during.extend(names(folder))
    path = compute(process).path

    assert sorted(during) == sorted(
        ["scan.h5", path.name, f"{path.stem}.claim", f"{path.stem}.writers"]
    )
    assert names(folder) == sorted(["scan.h5", path.name])


@pytest.mark.parametrize("ending", [ValueError, KeyboardInterrupt])
def test_lock_files_are_gone_after_a_run_that_fails(scan, ending):
    process = Watched(scan)

    def watch():
        raise ending

    process.watch = watch
    with pytest.raises((rs.UnitFailed, KeyboardInterrupt)):
        compute(process, on_error="raise")
    folder = Path(scan.partition("::")[0]).parent

    assert [n for n in names(folder) if not n.endswith(".h5")] == []
    process.watch = lambda: None
    assert compute(process).status.done == 60


def test_an_interrupt_while_the_lock_waits_leaves_it_free(scan, monkeypatch):
    """Ctrl-C may come while workers of a dead session are waited for."""
    process = Watched(scan)
    process.watch = lambda: None
    acquire = LockFile.acquire

    def interrupted(lock, **options):
        taken = acquire(lock, **options)
        if lock.path.suffix == ".writers":
            raise KeyboardInterrupt
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(LockFile, "acquire", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compute(process)

    assert compute(process).status.finished


def test_the_lock_file_says_who_holds_the_lock(scan):
    process = Watched(scan)
    claim = Path(process.plan().path).with_suffix(".claim")
    said = []
    process.watch = lambda: said.append(json.loads(claim.read_text()))
    compute(process)

    assert said[0]["pid"] == os.getpid()
    assert said[0]["host"] == socket.gethostname()
    assert said[0]["since"][:2] == "20"


def test_runs_are_named_after_source_dataset_process_and_identity(scan):
    process = Mean(scan)
    first = compute(process)
    second = compute(process, override=True)
    third = compute(process, override=True)
    eight = process.identity[:8]

    assert first.path.name == f"scan-data-Mean-{eight}.h5"
    assert second.path.name == f"scan-data-Mean-{eight}_001.h5"
    assert third.path.name == f"scan-data-Mean-{eight}_002.h5"
    assert re.fullmatch("[0-9a-f]{8}", eight)
    with h5py.File(second.path) as file:
        assert list(file) == ["data-Mean_000", "run"]


def test_a_source_without_data_is_named_by_its_count(tmp_path):
    assert compute(Slow(5, tmp_path)).path.name.startswith("5-positions-Slow-")


@pytest.mark.parametrize(
    ("file", "dataset"),
    [
        ("my scan (1).h5", "raw data/channel 0"),
        ("größe-µm.h5", "Ωhm"),
        ("a*b?[c].h5", "x[0]*?"),
        ("dots.in.name.v1.h5", "a.b"),
        ("50%.h5", "100 %"),
        ("no_ending", "data"),
        ("-.h5", "-data-Mean-"),
        ("quote'\"\\.h5", "tab\tnew\nline"),
        ("x::y.h5", "data"),
    ],
)
def test_odd_characters_in_names_are_no_obstacle(tmp_path, file, dataset):
    path = tmp_path / file
    with h5py.File(path, "w") as made:
        made[dataset] = np.arange(12.0).reshape(4, 3)
    source = f"{path}::/{dataset}"
    results = compute(Mean(source))
    process = Mean(source)
    process.calls = []

    assert compute(process) == results
    assert process.calls == []
    assert process.explain().candidates[0].matches
    np.testing.assert_array_equal(rs.open(results.path)["mean"], [1, 4, 7, 10])
    group = RunFile(results.path).header.group
    assert named_source(results.path, group).shape == (4, 3)


def test_a_name_that_is_too_long_is_our_error_and_leaves_nothing(tmp_path):
    path = tmp_path / "long.h5"
    with h5py.File(path, "w") as made:
        made["n" * 230] = np.ones((3, 2))
    with pytest.raises(rs.TargetError, match="name"):
        compute(Mean(f"{path}::/{'n' * 230}"))

    assert names(tmp_path) == ["long.h5"]


def test_a_file_name_that_is_not_utf8_is_no_obstacle(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/sc\xff.h5")
    try:
        with h5py.File(path, "w") as made:
            made["data"] = np.ones((3, 2))
    except (OSError, UnicodeError):
        pytest.skip("this system has no such names")

    np.testing.assert_array_equal(compute(Mean(f"{path}::/data"))["mean"], [1, 1, 1])


def test_override_computes_anew_each_time(scan):
    process = Mean(scan)
    process.calls = []
    paths = [
        compute(process).path,
        compute(process, override=True).path,
        compute(process, override=True).path,
    ]

    assert len(process.calls) == 3 * 60
    assert len(set(paths)) == 3
    assert [r.path for r in process.duplicates] == paths


def test_an_unfinished_overriding_run_is_gone_on_with(scan):
    process = Mean(scan)
    process.calls = []
    first = compute(process)
    part = compute(process, override=True, positions=slice(0, 20))
    whole = compute(process, override=True)

    assert part.path == whole.path != first.path
    assert len(process.calls) == 60 + 20 + 40
    assert whole.status.finished
    assert len(process.duplicates) == 2


def test_the_finished_run_answers_while_an_overriding_one_is_unfinished(scan):
    process = Mean(scan)
    first = compute(process)
    part = compute(process, override=True, positions=slice(0, 20))

    assert compute(process) == first
    assert process.partials == [part]
    assert process.duplicates == [first]


def test_override_over_an_unfinished_run_begins_anew(scan):
    process = Mean(scan)
    process.calls = []
    part = compute(process, positions=slice(0, 20))

    assert compute(process, override=True).path != part.path
    assert len(process.calls) == 20 + 60


def test_override_beside_a_damaged_file_is_gone_on_with(scan):
    process = Mean(scan)
    bad = compute(process).path
    bad.write_bytes(bad.read_bytes()[:5000])
    process.calls = []
    part = compute(process, override=True, positions=slice(0, 20))

    assert compute(process, override=True).path == part.path
    assert len(process.calls) == 60


def test_override_is_newest_also_where_an_older_name_was_removed(scan):
    process = Mean(scan)
    first = compute(process)
    compute(process, override=True)
    first.path.unlink()
    newest = compute(process, override=True)

    assert compute(process) == process.results == newest


def test_a_renamed_run_is_not_found_and_not_in_the_way(scan):
    process = Mean(scan)
    path = compute(process).path
    mine = path.rename(path.with_name("mine.h5"))

    assert process.results is None
    assert rs.open(mine).status.finished
    assert compute(process).path == path


def test_a_run_of_another_identity_under_our_name_is_not_returned(scan):
    process = Mean(scan)
    path = Path(process.plan().path)
    other = rs.map(np_max, scan, {"mean": rs.Output()}, options={"engine": "serial"})
    other.path.rename(path)
    results = compute(process)

    assert results.path.name == f"{path.stem}_001.h5"
    np.testing.assert_allclose(results["mean"], data_of(scan).mean(axis=1))


def np_max(spectrum):
    return spectrum.max()


def test_results_lie_in_the_folder_the_user_typed(tmp_path, make_file):
    source = make_file(data=np.ones((3, 2)))
    here = tmp_path / "here"
    here.mkdir()
    link = here / "link.h5"
    link.symlink_to(source)

    assert compute(Mean(f"{link}::/data")).path.parent == here


def test_target_wins_over_the_variable_and_that_over_the_folder(
    tmp_path, scan, monkeypatch
):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    monkeypatch.setenv("RESUMABLE_TARGET", str(one))

    assert compute(Mean(scan)).path.parent == one
    assert compute(Mean(scan, two)).path.parent == two
    monkeypatch.delenv("RESUMABLE_TARGET")
    assert compute(Mean(scan)).path.parent == tmp_path
