"""Where processes cannot be forked: auto computes in a pool, and other ways say so."""

import os
import subprocess
import sys

import pytest
from engine_conformance import EngineConformance
from engine_processes import Logged, noted
from helpers import ROOT, SUPPORT
from kill_matrix import alive, wait_until

import resumable as rs
from resumable.engines import choose
from resumable.engines.spawned import SpawnedEngine
from resumable.system import disk, forks


@pytest.mark.torture  # each starts Python anew for every worker
class TestSpawned(EngineConformance):
    def engine(self):
        return SpawnedEngine(2, begin_here=True)


@pytest.fixture
def cannot_fork(monkeypatch):
    monkeypatch.setattr(forks, "POSSIBLE", False)


SCRIPT = """
import sys
from engine_processes import Logged
from resumable.system import forks

class OfScript(Logged):
    pass

forks.POSSIBLE = False
OfScript(sys.argv[1], log=sys.argv[2], delay_s=0.1).compute()
"""


def test_a_script_without_a_guard_is_killed_and_goes_on_in_a_pool(scan, log, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    command = [sys.executable, str(path), scan, log]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{SUPPORT}"}
    with subprocess.Popen(command, env=environment) as running:
        assert wait_until(lambda: len({*noted(log + ".pid")}) == 3, 30)
        running.kill()
    pool = {int(pid) for pid in noted(log + ".pid")} - {running.pid}
    assert wait_until(lambda: not any(map(alive, pool)), 10)
    (run,) = tmp_path.glob("scan-*.h5")
    before, done = len(noted(log)), rs.open(run).status.done
    subprocess.run(command, env=environment, check=True, timeout=60)

    assert 0 < done < 60
    assert len(noted(log)) == before + 60 - done
    assert {int(number) for number in noted(log)} == set(range(60))
    assert rs.open(run).status.finished


def test_what_needs_a_fork_says_what_to_use(cannot_fork):
    with pytest.raises(rs.PlanError, match=r"use engine='auto'.*ProcessPoolExecutor"):
        choose("local", 2)
    with pytest.raises(rs.PlanError, match="workers=0 this process computes"):
        rs.Pool(2)
    assert type(choose("auto", 2)) is SpawnedEngine
    assert rs.Pool(0).workers == 0


def test_a_script_that_a_pool_imports_says_what_to_write(scan, log, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(
        "import concurrent.futures, multiprocessing\n"
        "from engine_processes import Logged\n"
        "spawn = multiprocessing.get_context('spawn')\n"
        "with concurrent.futures.ProcessPoolExecutor(1, spawn) as executor:\n"
        f"    Logged({scan!r}, log={log!r}).compute(engine=executor)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{SUPPORT}"}
    command = [sys.executable, str(path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert "put what the script does below  if __name__ == '__main__':" in ended.stderr
    assert ended.returncode == 1
    assert not noted(log)


def test_a_system_without_locks_computes_nothing(scan, log, monkeypatch):
    monkeypatch.setattr(disk, "fcntl", None)
    with pytest.raises(rs.TargetError, match="no file locks on this system"):
        Logged(scan, log=log).compute(engine="serial")
    assert not noted(log)
