"""Chains over the cells of a real file, killed and gone on with."""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import cells
import numpy as np
import pytest
from chained import bits
from helpers import DATA
from kill_matrix import members, wait_until
from program_server import ProgramServer

import resumable as rs

pytest.importorskip("hdf5plugin")
pytestmark = pytest.mark.timeout(110, method="signal")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Copy the measurement into this folder, and work there."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(DATA / cells.FILE, tmp_path / cells.FILE)
    return tmp_path


@pytest.fixture(scope="module")
def program_server():
    modules = (
        "scipy.ndimage",
        "scipy.spatial",
        "resumable.process.chain",
        "resumable.session.session",
    )
    with ProgramServer(*modules) as made:
        yield made


@pytest.fixture
def start_cells(start):
    """Return a function that starts to compute, with an engine."""
    return lambda engine, delay="0.01": start(cells.__file__, engine, delay)


def run_of(stage):
    """Return the results of a stage, as anybody can read them; None without any."""
    found = list(Path().glob(f"*-{stage}-*.h5"))
    return rs.open(found[0]) if found else None


def check_done(wanted, before):
    """Compare what is marked as done with a loop; nothing of before may be missing."""
    done = {}
    for stage in ("Segment", "Features"):
        results = run_of(stage)
        done[stage] = np.zeros(len(wanted["labels"]), bool)
        if results is not None:
            done[stage] = results.completed_mask
            for name in results:
                found = results[name][:]
                for position in np.flatnonzero(done[stage]):
                    assert bits([found[position]]) == bits([wanted[name][position]])
        assert not (before.get(stage, False) & ~done[stage]).any()
    return done


@pytest.mark.torture
@pytest.mark.timeout(3600, method="signal")
@pytest.mark.parametrize(
    ("engine", "victim"),
    [
        ("serial", "parent"),
        ("local", "group"),
        ("local", "parent"),
        ("local", "worker"),
    ],
)
def test_tens_of_kills_of_a_chain_do_no_harm(folder, start_cells, engine, victim):
    """At random moments: a stage that is done stays done, and all is a plain loop's."""
    chance = random.Random(engine + victim)
    labels, features = cells.plain_loop()
    wanted = {"labels": labels, **features}
    done, kills, completed = {}, 0, 0
    while kills < 20 or done:
        process = start_cells(engine)
        process.stdout.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # The last one comes to its end.
            process.wait(chance.uniform(0, 1.2) if kills < 20 else 60)
        if process.poll() is None:
            kills += 1
            others = [pid for pid in members(process.pid) if pid != process.pid]
            if victim == "group":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                chosen = chance.choice(others or [process.pid])
                os.kill(chosen if victim == "worker" else process.pid, signal.SIGKILL)
        errors = process.communicate(timeout=60)[1]
        assert wait_until(lambda: not members(process.pid), 2)  # noqa: B023
        assert process.returncode <= 0 or "WorkerDied" in errors, errors
        done = check_done(wanted, done)
        if process.returncode == 0:
            assert all(part.all() for part in done.values())
            assert all(run_of(stage).status.finished for stage in done)
            assert len(list(Path().iterdir())) == 3
            for stage in done:
                run_of(stage).path.unlink()
            done, completed = {}, completed + 1

    assert kills == 20
    assert completed > 0


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_a_chain_over_cells_survives_kills(folder, start_cells, engine):
    source = hashlib.sha256(Path(cells.FILE).read_bytes()).digest()
    chain = cells.chain(("Segment", "Features"))
    for stage, delay in (("Segment", "0.1"), ("Features", "0")):
        process = start_cells(engine, delay)

        def under_way(stage=stage):
            results = run_of(stage)
            return results is not None and results.status.done > 5

        assert wait_until(under_way, 30)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    process = start_cells(engine, "0")
    errors = process.communicate(timeout=60)[1]
    labels, features = cells.plain_loop()
    results = chain.results

    assert process.returncode == 0, errors
    assert all(r.status.finished for r in results.stages.values())
    assert bits(results["labels"][:]) == bits(labels)
    for name in cells.FEATURES:
        assert bits(results[name][:]) == bits(features[name])
    assert len(results.stages["Segment"].sessions) > 1
    assert hashlib.sha256(Path(cells.FILE).read_bytes()).digest() == source
    assert len(list(Path().iterdir())) == 3
