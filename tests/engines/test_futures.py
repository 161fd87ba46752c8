"""Engines over executors: how many workers, what they hold, how they end."""

import concurrent.futures as cf
import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import loky
import numpy as np
import pytest
from engine_conformance import EngineConformance
from engine_processes import Logged, Pools, Threads, blas_threads, note, noted
from helpers import ROOT, SUPPORT, data_of, until

import resumable as rs
from resumable.engines import futures, remote_worker
from resumable.engines.futures import ExecutorEngine

SPAWN = multiprocessing.get_context("spawn")

pytestmark = pytest.mark.timeout(60, method="signal")


@pytest.fixture(scope="module")
def executors():
    """Return executors by name, each made when it is first asked for."""
    made = {}
    makers = {
        "threads": lambda: cf.ThreadPoolExecutor(2),
        "processes": lambda: cf.ProcessPoolExecutor(2, SPAWN),
        # Longer than any test: a worker that leaves for being idle is a warning.
        "loky": lambda: loky.get_reusable_executor(2, timeout=300),
    }

    def get(name):
        if name not in made:
            made[name] = makers[name]()
        return made[name]

    yield get
    for executor in made.values():
        executor.shutdown()


class OverAnExecutor(EngineConformance):
    which: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _executor(self, executors):
        self._the_executor = executors(self.which)

    def engine(self):
        return self._the_executor


class TestThreads(OverAnExecutor):
    which = "threads"


class TestProcesses(OverAnExecutor):
    which = "processes"


class TestLoky(OverAnExecutor):
    which = "loky"


class TestDriverWritesForSerial(EngineConformance):
    """Rows are in the reports, within one process."""

    most_setups = 1

    def options(self):
        return {**super().options(), "writer": "driver"}

    def engine(self):
        return "serial"


class TestDriverWritesForProcesses(OverAnExecutor):
    """Rows of an executor's processes come back to the driver."""

    which = "processes"

    def options(self):
        return {**super().options(), "writer": "driver"}


def held(pid, folder):
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(link.readlink()))
    return [name for name in links if name.startswith(str(folder))]


def test_workers_are_those_of_the_executor(scan):
    process = Logged(scan)
    with cf.ThreadPoolExecutor(3) as executor:
        planned = process.plan(engine=executor)
        chosen = process.plan(engine=executor, workers=1)

    assert (planned.engine, planned.workers) == ("ThreadPoolExecutor", 3)
    assert chosen.workers == 1


def meet(path):
    """Wait until two processes of the executor have come; return this one's number."""
    note(path, os.getpid())
    until(lambda: len(set(noted(path))) == 2)
    return os.getpid()


@pytest.mark.parametrize("name", ["processes", "loky"])
def test_processes_hold_nothing_after_a_run(executors, make_file, tmp_path, name):
    executor = executors(name)
    pids = list(executor.map(meet, [tmp_path / "met"] * 2))

    def lets_go(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = make_file(folder / "scan.h5", data=np.zeros((60, 4)))
        log = f"{folder}/log"
        Logged(f"{source}::/data", log=log, delay_s=0.002).compute(engine=executor)
        left = [held(pid, folder) for pid in pids]

        assert {path for paths in left for path in paths} <= {source}
        assert list(folder.glob("*.writers")) == []
        return left == [[], []] and set(noted(log + ".pid")) == set(map(str, pids))

    # One that is left out, where the machine is slow, keeps its source for a while.
    assert any(map(lets_go, range(5)))


def test_blas_in_threads_has_its_limits_back_after_a_run(executors, scan):
    before = blas_threads()
    results = Threads(scan).compute(engine=executors("threads"))

    assert set(results["threads"][...]) == {1}
    assert blas_threads() == before


def test_a_worker_without_tasks_is_closed(scan, log, tmp_path, monkeypatch):
    """Also where the end of the session is not sent to it."""
    monkeypatch.setattr(remote_worker, "IDLE_S", 0.1)
    monkeypatch.setattr(ExecutorEngine, "release", lambda self, token: [])
    with cf.ThreadPoolExecutor(2) as executor:
        Logged(scan, log=log).compute(engine=executor)
        deadline = time.monotonic() + 20
        while held(os.getpid(), tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)

    assert held(os.getpid(), tmp_path) == []


def test_a_session_that_is_closed_late_leaves_the_next_one_its_log_level():
    before = logging.root.level
    level = remote_worker.LogLevel()
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(level.at_most(logging.INFO))
        second.enter_context(level.at_most(logging.INFO))
        first.close()
        meanwhile = logging.root.level

    assert meanwhile == logging.INFO
    assert logging.root.level == before != logging.INFO


class Slows(Logged):
    def unit_computation(self, spectrum):
        time.sleep(0.001 if self.position < 40 else 0.05)
        return super().unit_computation(spectrum)


class Recording(cf.ThreadPoolExecutor):
    def __init__(self, workers):
        super().__init__(workers)
        self.futures = []

    def submit(self, *args, **kwargs):
        future = super().submit(*args, **kwargs)
        self.futures.append(future)
        return future


def reports(executor):
    outcomes = [f.result() for f in executor.futures if f.result() is not None]
    return [pickle.loads(data).report for data in outcomes]


def test_a_task_that_takes_longer_than_expected_ends_and_the_rest_follows(
    scan, log, monkeypatch
):
    monkeypatch.setattr(futures, "LONGEST_S", 0.1)
    with Recording(1) as executor:
        results = Slows(scan, log=log).compute(engine=executor)
    found = [report for report in reports(executor) if report is not None]

    assert results.status.finished
    assert any(report.rest for report in found)
    assert sorted(map(int, noted(log))) == list(range(60))


class Stays(Logged):
    """From the tenth position on, each waits for the file ``<log>.go``."""

    def unit_computation(self, spectrum):
        result = super().unit_computation(spectrum)
        if len(noted(self.log)) >= 10:
            note(self.log + ".stays", self.position)
            until(Path(self.log + ".go").exists)
        return result


@pytest.mark.parametrize("is_quick", [True, False])
def test_tasks_that_are_slow_are_not_submitted_ahead(scan, log, monkeypatch, is_quick):
    """Otherwise a stop would have to cancel them."""
    monkeypatch.setattr(futures, "BATCH_S", 10.0 if is_quick else 0.05)
    cancel, called_back = ExecutorEngine.cancel, []

    def recording(self, token, tasks):
        gone = cancel(self, token, tasks)
        called_back.append([number in gone for number in sorted(tasks)])
        return gone

    monkeypatch.setattr(ExecutorEngine, "cancel", recording)
    with Recording(2) as executor:
        run = Stays(scan, log=log, delay_s=0.1).start(engine=executor)
        until(lambda: len(noted(log + ".stays")) == 2)
        in_flight = 4 if is_quick else 2
        until(lambda: sum(not f.done() for f in executor.futures) >= in_flight)
        run.cancel()
        until(lambda: called_back)
        Path(log + ".go").touch()
        with pytest.raises(rs.NotFinished):
            run.wait()

    assert called_back[0] == [False, False, True, True][:in_flight]


class Kills(Logged):
    def unit_computation(self, spectrum):
        if self.position == 45 and not Path(self.log + ".killed").exists():
            Path(self.log + ".killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().unit_computation(spectrum)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: cf.ProcessPoolExecutor(1, SPAWN), id="processes"),
        pytest.param(lambda: loky.ProcessPoolExecutor(1, timeout=300), id="loky"),
    ],
)
def test_a_process_that_dies_is_an_error_and_committed_rows_stay(scan, log, make):
    process = Kills(scan, log=log)
    with (
        make() as executor,
        pytest.raises(rs.WorkerDied, match=r"positions \d+ to \d+.*What was committed"),
    ):
        process.compute(engine=executor)
    before = process.results.completed_mask
    results = process.compute(engine="serial")
    again = np.bincount(list(map(int, noted(log))))

    assert 0 < before.sum() < 60
    assert results.status.finished
    assert set(again[before]) == {1}


def test_processes_that_start_during_the_run_get_the_job(scan, log):
    executor = cf.ProcessPoolExecutor(1, SPAWN, max_tasks_per_child=6)
    with executor:
        results = Logged(scan, log=log, delay_s=0.005).compute(engine=executor)

    assert results.status.finished
    assert sorted(map(int, noted(log))) == list(range(60))
    assert len(set(noted(log + ".pid"))) > 1


def first_goes_on(folder):
    """Have all processes of an executor but one wait, and note their numbers."""
    try:
        (folder / "first").mkdir()
    except FileExistsError:
        (folder / "second").write_text(f"{os.getpid()}\n")
        time.sleep(60)


class SlowUntilOneDies(Logged):
    """Slow until there is the file ``<log>.died``."""

    def unit_computation(self, spectrum):
        result = super().unit_computation(spectrum)
        if not Path(self.log + ".died").exists():
            time.sleep(0.1)
        return result


@pytest.mark.parametrize("dies", ["first", "second"])
def test_processes_that_are_told_to_end_commit_first(scan, log, tmp_path, dies):
    """An executor that has lost a process sends SIGTERM to all others, too."""
    process = SlowUntilOneDies(scan, log=log)
    second = tmp_path / "second"
    executor = cf.ProcessPoolExecutor(2, SPAWN, first_goes_on, [tmp_path])

    def end():
        until(lambda: len(noted(log)) >= 8 and noted(second))
        if dies == "first":
            os.kill(int(noted(log + ".pid")[0]), signal.SIGTERM)
        else:
            os.kill(int(noted(second)[0]), signal.SIGKILL)

    ending = threading.Thread(target=end)
    ending.start()
    with executor, pytest.raises(rs.WorkerDied, match="lost a worker at positions"):
        process.compute(engine=executor)
    ending.join()
    done = process.results.status.done
    Path(log + ".died").touch()
    process.compute(engine="serial")

    assert 8 <= done < 60
    assert sorted(map(int, noted(log))) == list(range(60))


@pytest.mark.parametrize("name", ["processes", "loky"])
def test_a_computation_in_an_executor_may_use_a_pool(executors, scan, name):
    """The pool ends its child processes by a signal, which they must obey."""
    results = Pools(scan).compute(engine=executors(name))

    np.testing.assert_array_equal(results["mean"][...], data_of(scan).mean(axis=1))


def test_tasks_of_a_process_pool_are_never_cancelled():
    """Should a process die meanwhile, the interpreter would wait for ever."""
    with cf.ProcessPoolExecutor(1, SPAWN) as executor:
        futures = {n: executor.submit(time.sleep, 0.01) for n in range(5)}
        called_back = ExecutorEngine(executor).cancel("token", futures)

    assert called_back == set()
    assert not any(future.cancelled() for future in futures.values())


def test_an_executor_that_is_shut_down_is_an_error(scan, log):
    process = Logged(scan, log=log, delay_s=0.02)
    executor = cf.ThreadPoolExecutor(2)
    timer = threading.Timer(0.3, executor.shutdown, [False])
    timer.start()
    with pytest.raises(rs.WorkerDied, match="run again with another one"):
        process.compute(engine=executor)
    timer.join()
    results = process.compute(engine="serial")

    assert sorted(map(int, noted(log))) == list(range(60))
    assert results.status.finished


def test_ctrl_c_to_all_processes_ends_with_75_and_loses_nothing(scan, log, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import concurrent.futures, multiprocessing\n"
        "from engine_processes import Logged\n"
        "if __name__ == '__main__':\n"
        "    spawn = multiprocessing.get_context('spawn')\n"
        "    with concurrent.futures.ProcessPoolExecutor(2, spawn) as executor:\n"
        f"        process = Logged({scan!r}, log={log!r}, delay_s=0.04)\n"
        "        process.compute(engine=executor)\n"
    )
    running = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{SUPPORT}"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(noted(log)) < 8 and running.poll() is None:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)
    _, text = running.communicate(timeout=30)
    before = len(noted(log))
    results = Logged(scan, log=log, delay_s=0.04).compute(engine="serial")

    assert running.returncode == 75, text
    assert 8 <= before < 60
    assert sorted(map(int, noted(log))) == list(range(60))
    assert results.status.finished
