"""Units that die, hang, fork, close files or warn: the run goes on around them."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import ctypes
import importlib
import logging
import os
import pickle
import resource
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import h5py
import numpy as np
import param
import pytest
from engine_conformance import Logged, Pools, note, noted
from helpers import SUPPORT, close_all_hdf5_files, until

import resumable as rs
from resumable.engines import crew
from resumable.engines.local import LocalEngine
from resumable.model.positions import Batch
from resumable.model.schedule import TRIALS
from resumable.worker.job import Loss
from resumable.worker.processes import WorkerProcesses
from resumable.worker.warnings import (
    Warned,
    WarningCounts,
    count_warnings,
    warning_filters,
)
from resumable.worker.work import Worker

pytestmark = [
    pytest.mark.timeout(60, method="signal"),
    pytest.mark.filterwarnings("ignore:.*positions failed:resumable.ResumableWarning"),
]

POSITIONS = 200


@pytest.fixture(scope="module")
def rows():
    """Return the data of the source."""
    return np.random.default_rng(3).normal(size=(POSITIONS, 16))


@pytest.fixture
def source(tmp_path, rows):
    """Return a source of 200 spectra."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = rows
    return f"{tmp_path}/scan.h5::/data"


def segfault():
    os.kill(os.getpid(), signal.SIGSEGV)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def left():
    os._exit(3)


def fail():
    msg = "no fit"
    raise ValueError(msg)


def hang():
    """Sleep in C without giving the interpreter's lock back."""
    ctypes.PyDLL(None).sleep(100)


class Deadly(rs.Process):
    """Does something bad at some positions, until a file says that it is mended."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output(fill_value=-1.0)}
    bad = param.Dict({})
    mended = param.String("")
    log = param.String("")
    delay_s = param.Number(0.0)

    def unit_computation(self, spectrum):
        if self.log:
            note(self.log, self.position)
        what = self.bad.get(str(self.position))
        if what and not (self.mended and Path(self.mended).exists()):
            globals()[what]()
        if self.delay_s:
            time.sleep(self.delay_s)
        return spectrum.mean()


class DeadlyBlock(rs.Process):
    """Dies or hangs with whatever block some positions are in."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output(fill_value=-1.0)}
    bad = param.Dict({})

    def block_computation(self, spectra):
        for position in np.asarray(self.position).tolist():
            what = self.bad.get(str(position))
            if what:
                globals()[what]()
        return spectra.mean(axis=1)


def check(results, rows, bad):
    """Everything but the bad positions is computed, and nothing else is recorded."""
    failed = np.zeros(len(rows), bool)
    failed[bad] = True
    np.testing.assert_array_equal(results.failed_mask, failed)
    np.testing.assert_array_equal(results.completed_mask, ~failed)
    means = np.array([row.mean() for row in rows])
    means[failed] = -1
    np.testing.assert_array_equal(results["mean"][...], means)
    assert [failure.position for failure in results.failures] == bad
    assert results.status.finished


@pytest.mark.parametrize("engine", ["local", "auto"])
def test_a_position_that_ends_its_worker_is_found_and_recorded(source, rows, engine):
    """The signal or exit code is named; every other position is computed."""
    bad = {"30": "segfault", "31": "left", "150": "killed"}
    process = Deadly(source, bad=bad)
    process.compute(positions=[0])
    results = process.compute(engine=engine, workers=2, position_timeout=50)
    causes = [failure.exception for failure in results.failures]

    check(results, rows, [30, 31, 150])
    assert causes == ["signal SIGSEGV", "exit code 3", "signal SIGKILL"]
    assert "memory" in results.failures[2].message


def test_positions_that_ended_their_worker_can_be_tried_again(source, rows, tmp_path):
    """After the repair retry_failed computes them."""
    process = Deadly(source, bad={"7": "segfault"}, mended=str(tmp_path / "mended"))
    process.compute(positions=[0])
    process.compute(engine="local", workers=2)
    again = process.compute(engine="local", workers=2, retry_failed=True)
    check(again, rows, [7])
    (tmp_path / "mended").touch()
    results = process.compute(engine="local", workers=2, retry_failed=True)

    check(results, rows, [])


def test_block_computations_are_halved_until_the_position_is_alone(source, rows):
    """Of a block only the guilty position is lost."""
    process = DeadlyBlock(source, bad={"77": "segfault"})
    process.compute(positions=[0])
    results = process.compute(engine="local", workers=2)

    check(results, rows, [77])


def test_a_run_killed_by_its_computation_goes_on_in_workers(source, rows, script):
    """With engine="auto" a segfault may end the driver once, and never twice."""
    body = f"""
        import sys
        sys.path[:0] = {[str(Path(__file__).parent), str(SUPPORT)]!r}
        from test_replacing import Deadly
        Deadly({source!r}, bad={{"150": "segfault"}}).compute(workers=1)
    """
    first, second = script(body), None
    first.wait(30)
    second = script(body)
    _, errors = second.communicate(timeout=30)

    assert first.returncode == -signal.SIGSEGV
    assert second.returncode == 0, errors
    check(Deadly(source, bad={"150": "segfault"}).results, rows, [150])


def test_a_computation_that_always_dies_is_told_from_bad_data(source):
    """Twenty positions all over the run die alike: an error, nothing recorded."""
    process = Deadly(source, bad=dict.fromkeys(map(str, range(POSITIONS)), "segfault"))
    with pytest.raises(rs.UnitFailed, match=r"first 20 positions.*signal SIGSEGV"):
        process.compute(engine="local", workers=2)
    status = process.results.status

    assert (status.done, status.failed) == (0, 0)


def test_a_machine_gone_bad_stops_the_run(source):
    """After twenty deaths in a row nothing more is recorded as failed."""
    late = dict.fromkeys(map(str, range(100, POSITIONS)), "left")
    process = Deadly(source, bad=late)
    process.compute(positions=slice(0, 100))
    with pytest.raises(rs.WorkerDied, match=r"last 20 positions.*exit code 3"):
        process.compute(engine="local", workers=2)

    assert process.results.status.failed == 20
    assert process.results.status.done == 100


class Dying:
    """An engine whose workers all die, one more than it takes to stop, at once."""

    name = "dying"
    workers = 1
    own_processes = can_replace = True

    def run(self, job, driver, workers):
        errors = []
        for position in range(100, 101 + TRIALS):
            alone = Batch(position, position + 1, None, 1, suspect=True)
            try:
                driver.lost(Loss(alone, position, False, "exit code 3", ""))
            except rs.WorkerDied as error:
                errors.append(error)
        raise errors[0]


def test_who_dies_beside_the_last_one_is_not_recorded(source):
    """It is left pending, as all after it are."""
    process = Deadly(source)
    process.compute(positions=slice(0, 100))
    with pytest.raises(rs.WorkerDied, match="last 20 positions"):
        process.compute(engine=Dying())

    assert process.results.status.failed == 20
    assert process.results.status.done == 100


class Halfway:
    """An engine whose worker ends in a batch, with the first part of it committed."""

    name = "halfway"
    workers = 1
    own_processes = can_replace = True

    def __init__(self, tell):
        self.tell = tell

    def run(self, job, driver, workers):
        while batch := driver.next():
            with contextlib.closing(Worker(job, own_process=False)) as worker:
                if batch.count < 8 or self.tell is None:
                    driver.take(worker.do(batch, lambda: False))
                    continue
                worker.do(batch, lambda: True)
            self.tell, tell = None, self.tell
            tell(driver, batch)


@pytest.mark.parametrize(
    "tell",
    [
        lambda driver, batch: driver.lost(Loss(batch, None, False, "exit code 1", "")),
        lambda driver, batch: driver.give_back(batch),
    ],
    ids=["lost", "given back"],
)
def test_what_a_lost_batch_has_committed_is_counted(source, rows, log, tell):
    """It is not computed again; what has failed in it is, and described."""
    bad = dict.fromkeys(map(str, range(40, POSITIONS, 7)), "fail")
    process = Deadly(source, bad=bad, log=log)
    results = process.compute(engine=Halfway(tell))
    called = collections.Counter(map(int, noted(log)))
    (session,) = results.sessions

    check(results, rows, list(range(40, POSITIONS, 7)))
    assert session.computed == POSITIONS - len(bad)
    assert session.failed == len(bad)
    assert {p for p, times in called.items() if times > 1} <= set(map(int, bad))


class Late(Deadly):
    """Takes a bit too long at a position, once."""

    def unit_computation(self, spectrum):
        late = self.position == 105 and "105" not in noted(self.log)
        note(self.log, self.position)
        time.sleep(0.5 if late else 0.02)
        return spectrum.mean()


def test_the_next_position_is_not_blamed_for_a_late_one(source, rows, log, monkeypatch):
    """The late one came to its end before its worker was ended for it."""
    real = WorkerProcesses.kill

    def kill(pool, worker):
        """End a worker as soon as it is at its next position."""
        monkeypatch.undo()
        before = pool.progress_words(worker)
        until(lambda: pool.progress_words(worker) != before)
        real(pool, worker)

    monkeypatch.setattr(WorkerProcesses, "kill", kill)
    process = Late(source, log=log)
    process.compute(positions=slice(0, 100))
    results = process.compute(engine="local", workers=1, position_timeout=0.3)

    assert noted(log).count("105") == 2
    check(results, rows, [])


def test_on_error_raise_names_the_position_and_leaves_it_pending(source):
    """A death stops the run then, with what was finished kept."""
    process = Deadly(source, bad={"120": "segfault"})
    process.compute(positions=[0])
    with pytest.raises(rs.UnitFailed, match="position 120: signal SIGSEGV") as caught:
        process.compute(engine="local", workers=2, on_error="raise")
    status = process.results.status

    assert caught.value.position == 120
    assert status.failed == 0
    assert status.done > 0
    assert not process.results.completed_mask[120]


def test_killed_workers_are_replaced_and_nothing_is_recorded(source, rows, tmp_path):
    """Workers that somebody else kills cost time, and nothing else."""
    log = tmp_path / "log"
    process = Deadly(source, log=str(log), delay_s=0.01)
    killed_pids = []

    def kill_workers():
        import psutil

        for count in (30, 80, 130):
            while len(noted(log)) < count:
                time.sleep(0.005)
            for child in psutil.Process().children(recursive=True):
                if child.ppid() != os.getpid() and not killed_pids.count(child.pid):
                    killed_pids.append(child.pid)
                    child.kill()
                    break

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        done = threads.submit(kill_workers)
        results = process.compute(engine="local", workers=2, checkpoint=0.05)
        done.result()

    assert len(killed_pids) == 3
    check(results, rows, [])
    assert len(results.sessions) == 1


# Memory.


def raise_memory_error():
    """Fail as numpy does where there is no room."""
    np.empty(1 << 50)


LEAK_BYTES = 1 << 27
MOST = 40


class Leaks(rs.Process):
    """Keeps memory at every position, until its process has no more.

    ``most`` is how many positions a process can compute, in workers a limit of the
    system.
    """

    version = 1
    outputs: ClassVar = {"mean": rs.Output(fill_value=-1.0)}
    most = param.Integer(MOST)
    how = param.String()
    bad = param.List([])
    log = param.String()
    kept: ClassVar = {}

    def setup(self):
        note(self.log, os.getpid())

    def leak(self):
        kept = self.kept.setdefault(os.getpid(), [])
        if self.how == "limit":
            if not kept:
                taken = int(Path("/proc/self/statm").read_text().split()[0])
                room = taken * resource.getpagesize() + self.most * LEAK_BYTES
                resource.setrlimit(resource.RLIMIT_AS, (room, room))
            # Addresses, which is what is limited; nothing is written there.
            kept.append(np.empty(LEAK_BYTES, "u1"))
            return
        kept.append(None)
        if len(kept) > self.most:
            globals()[self.how]()

    def compute_one(self, position, spectrum):
        self.leak()
        if position in self.bad:
            raise_memory_error()
        return spectrum.mean()


class LeakingUnit(Leaks):
    """Position by position."""

    def unit_computation(self, spectrum):
        return self.compute_one(self.position, spectrum)


class LeakingBlock(Leaks):
    """Block by block."""

    def block_computation(self, spectra):
        positions = np.asarray(self.position).tolist()
        return np.array(
            [self.compute_one(*one) for one in zip(positions, spectra, strict=True)]
        )


@pytest.fixture
def log(tmp_path):
    """Return the name of a file for notes; what leaked here is forgotten after it."""
    yield str(tmp_path / "log")
    Leaks.kept.pop(os.getpid(), None)


@pytest.mark.parametrize(
    ("how", "workers"),
    [("limit", 1), ("limit", 2), ("raise_memory_error", 2), ("killed", 2)],
)
def test_memory_that_others_have_leaked_is_no_positions_failure(
    source, rows, log, how, workers
):
    """Workers that have none left are replaced, and every position is computed."""
    process = LeakingUnit(source, how=how, log=log)
    results = process.compute(engine="local", workers=workers)

    check(results, rows, [])
    assert sum(session.computed for session in results.sessions) == POSITIONS
    assert len(noted(log)) >= POSITIONS / MOST


@pytest.mark.parametrize(
    ("engine", "workers"), [("local", 1), ("local", 2), ("auto", 2), ("serial", 1)]
)
@pytest.mark.parametrize("cls", [LeakingUnit, LeakingBlock])
def test_a_position_without_memory_even_alone_has_failed(
    source, rows, log, engine, workers, cls
):
    """Just that one, the first of all, too, whatever leaks before it."""
    # A block that leaks has to be halved down to one position every time.
    most = MOST if cls is LeakingUnit else POSITIONS
    bad = [0, 77, 78, 199]
    process = cls(source, how="raise_memory_error", log=log, bad=bad, most=most)
    results = process.compute(engine=engine, workers=workers)

    check(results, rows, [0, 77, 78, 199])
    assert {failure.exception for failure in results.failures} == {
        "numpy._core._exceptions._ArrayMemoryError"
    }


def test_a_retry_is_told_from_a_leak_as_well(source, rows, log):
    """Positions that fail again are tried once each, in however many workers."""
    process = LeakingUnit(source, how="raise_memory_error", log=log, bad=[3, 5])
    process.compute(engine="local", workers=2)
    results = process.compute(engine="local", workers=2, retry_failed=True)

    check(results, rows, [3, 5])
    assert (results.sessions[1].computed, results.sessions[1].failed) == (0, 2)


def test_a_position_that_stops_the_run_is_tried_alone_first(source, log):
    """With on_error="raise" a leak is no reason to stop either."""
    process = LeakingUnit(source, how="raise_memory_error", log=log, bad=[77])
    with pytest.raises(rs.UnitFailed, match=r"position 77 raised numpy\._core.*Memory"):
        process.compute(engine="local", workers=2, on_error="raise")

    assert process.results.status.failed == 0


def test_a_computation_that_never_has_memory_is_told_from_bad_data(source, log):
    """Twenty positions, each alone: an error, and nothing recorded."""
    everywhere = list(range(POSITIONS))
    process = LeakingUnit(source, how="raise_memory_error", log=log, bad=everywhere)
    with pytest.raises(rs.UnitFailed, match=r"first 20 positions.*MemoryError"):
        process.compute(engine="local", workers=2)
    status = process.results.status

    assert (status.done, status.failed) == (0, 0)


def test_what_cannot_be_sent_to_a_worker_is_left_pending(source, log):
    """In serial, where a fresh process was to try it: the error says why."""
    process = LeakingUnit(source, log=log, bad=[77], most=POSITIONS)
    process.mutex = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent to a worker") as caught:
        process.compute(engine="serial")
    status = process.results.status

    assert "raised MemoryError in this process" in caught.value.__notes__[0]
    assert (status.done, status.failed) == (77, 0)


class DiesInSync(Logged):
    """Ends its worker in the first sync after the last position, once."""

    def unit_computation(self, spectrum):
        if self.position == 199 and not Path(self.log + ".died").exists():

            def die(fd):
                note(self.log + ".died", os.getpid())
                os._exit(5)

            os.fdatasync = die
        return super().unit_computation(spectrum)


def test_rows_of_a_worker_that_dies_while_it_commits_are_computed_again(
    source, rows, tmp_path
):
    """Reported, and never marked: not lost."""
    log = str(tmp_path / "log")
    process = DiesInSync(source, log=log, delay_s=0.001)
    results = process.compute(engine="local", workers=2, checkpoint=100)

    assert noted(log + ".died")
    check(results, rows, [])
    assert sum(session.computed for session in results.sessions) == POSITIONS


# Hanging.


@pytest.mark.parametrize("engine", ["local", "auto"])
def test_a_hanging_position_is_given_up(source, rows, engine):
    """Even one that keeps the interpreter's lock; it is recorded, others go on."""
    process = Deadly(source, bad={"50": "hang", "51": "hang"})
    results = process.compute(engine=engine, workers=2, position_timeout=0.5)

    check(results, rows, [50, 51])
    assert results.failures[0].exception == "position_timeout"
    assert "0.5 s" in results.failures[0].message


def test_the_first_position_may_hang(source, rows):
    """Also before anything has succeeded."""
    process = Deadly(source, bad={"0": "hang"})
    results = process.compute(engine="local", workers=2, position_timeout=0.5)

    check(results, rows, [0])


def test_a_block_has_the_time_of_all_its_positions(source, rows):
    """A hanging block is halved until one position is left."""
    process = DeadlyBlock(source, bad={"77": "hang"})
    process.compute(positions=[0], engine="serial")
    process.compute(
        engine="local", workers=2, position_timeout=0.5, positions=slice(76, 80)
    )
    results = process.results

    assert np.flatnonzero(results.failed_mask).tolist() == [77]
    assert np.flatnonzero(results.completed_mask).tolist() == [0, 76, 78, 79]
    np.testing.assert_array_equal(results["mean"][76:79:2], rows[76:79:2].mean(axis=1))


def test_slow_positions_within_their_time_are_left_alone(source, rows):
    """The time of a batch is not the time of a position."""
    process = Deadly(source, delay_s=0.02)
    results = process.compute(engine="local", workers=2, position_timeout=0.5)

    check(results, rows, [])


def test_time_in_which_the_driver_is_held_up_is_no_positions(monkeypatch):
    """As while the machine sleeps: a position has its time while it is looked at."""
    times = iter([0, 0, 1, 5.5, 6, 7])
    monkeypatch.setattr(crew, "time", SimpleNamespace(monotonic=lambda: next(times)))
    pool = SimpleNamespace(progress_words=lambda worker: (7, 3))
    batch = Batch(0, 50, None, 50)
    clock = crew._Clock(4.0)
    clock.begin(0, batch)

    assert [clock.overdue({0: batch}, pool) for _ in range(5)] == [[], [], [], [], [0]]


def test_a_timeout_needs_workers_that_can_be_ended(source):
    """An engine without processes of its own refuses it, and says which to take."""
    with pytest.raises(rs.PlanError, match="engine='local'"):
        Deadly(source).compute(engine="serial", position_timeout=1)
    with pytest.raises(rs.PlanError, match="not a duration"):
        Deadly(source).compute(position_timeout=0)


# Rude units.


def fork_and_return():
    os.fork()


def fork_and_leave():
    if os.fork() == 0:
        sys.exit(1)


def fork_and_stay():
    if os.fork() == 0:
        time.sleep(4)
        os._exit(0)


def shout():
    sys.stdout.write("x" * 100_000)
    os.write(2, b"y" * 1000)


def change_folder():
    os.chdir("/")


def change_everything():
    os.environ.clear()
    np.seterr(all="raise")
    sys.path.clear()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.disable()
    sys.setrecursionlimit(200)
    warnings.simplefilter("error")


RUDE = [
    fork_and_return,
    fork_and_leave,
    fork_and_stay,
    close_all_hdf5_files,
    shout,
    change_folder,
    change_everything,
]


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_rude_units_do_not_break_the_run(source, rows, script, engine):
    """Forking, closing, printing, changing global state: results are right."""
    bad = {str(20 * (i + 1)): rude.__name__ for i, rude in enumerate(RUDE)}
    process = script(
        f"""
        import sys
        sys.path[:0] = {[str(Path(__file__).parent), str(SUPPORT)]!r}
        from test_replacing import Deadly
        process = Deadly({source!r}, bad={bad!r}, delay_s=0.0005)
        process.compute(engine={engine!r}, workers=2, memory="2 GB")
        sys.stdout.write("finished")
        """
    )
    output, errors = process.communicate(timeout=40)

    assert process.returncode == 0, errors
    assert output.count("finished") == 1
    check(Deadly(source, bad=bad, delay_s=0.0005).results, rows, [])


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_a_computation_may_use_a_pool_of_processes(source, rows, script, engine):
    """The pool ends its processes by a signal, which they must not take for ours."""
    process = script(
        f"""
        import sys
        sys.path.insert(0, {str(SUPPORT)!r})
        from engine_conformance import Pools
        Pools({source!r}).compute(engine={engine!r}, workers=2)
        """
    )
    _, errors = process.communicate(timeout=40)

    assert process.returncode == 0, errors
    check(Pools(source).results, rows, [])


@pytest.mark.parametrize(
    "catches",
    [
        "stop.StopRequest().watching()",
        "signals.deferred_termination()",
        # A worker ignores it, as long as it lives.
        "as_worker()",
    ],
)
def test_a_copy_obeys_a_signal_that_comes_before_it_can(script, catches):
    """A pool may end a process that it has only just made."""
    process = script(
        f"""
        import contextlib, os, signal
        # Before anything of the package is called in the copy.
        end_it = lambda: os.kill(os.getpid(), signal.SIGTERM)
        os.register_at_fork(after_in_child=end_it)
        from resumable.system import signals, stop

        @contextlib.contextmanager
        def as_worker():
            signals.mark_as_worker()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            yield

        with {catches}:
            copy = os.fork()
            if copy == 0:
                os._exit(0)
            _, status = os.waitpid(copy, 0)
        print(os.waitstatus_to_exitcode(status), signal.pthread_sigmask(0, []))
        """
    )
    output, errors = process.communicate(timeout=20)

    assert output.split() == ["-15", "set()"], errors


def test_a_copy_of_a_worker_keeps_no_lock(source, rows, script, tmp_path):
    """A forked process that lives on does not keep the next session waiting."""
    bad = {"20": "fork_and_stay"}
    process = script(
        f"""
        import sys
        sys.path[:0] = {[str(Path(__file__).parent), str(SUPPORT)]!r}
        from test_replacing import Deadly
        process = Deadly({source!r}, bad={bad!r}, delay_s=0.0005)
        process.compute(engine="local", workers=2, positions=range(100))
        """
    )
    # Not communicate(): the copy keeps the pipes.
    process.wait(40)
    # Removed at the end of a session by whoever can lock it alone.
    kept = [path.name for path in tmp_path.glob("*.writers")]
    results = Deadly(source, bad=bad, delay_s=0.0005).compute(engine="serial")

    assert process.returncode == 0
    assert kept == []
    check(results, rows, [])


class ClosesDescriptors(rs.Process):
    """Closes files that are not its own, and opens another in their place."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output()}
    victim = param.String()

    def unit_computation(self, spectrum):
        if self.position == 100:
            for number in range(3, 100):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/self/fd/{number}").readlink().suffix == ".h5":
                        os.close(number)
            self.kept = [os.open(self.victim, os.O_RDWR) for _ in range(5)]
        return spectrum.mean()


def test_nothing_is_written_into_a_file_that_took_our_descriptor(source, tmp_path):
    """A run whose descriptors were closed ends with an error."""
    victim = tmp_path / "precious"
    victim.write_bytes(bytes(1 << 16))
    process = ClosesDescriptors(source, victim=str(victim))
    with pytest.raises(OSError, match="closed file descriptors"):
        process.compute(engine="serial", checkpoint=100)

    assert victim.read_bytes() == bytes(1 << 16)


# Warnings.


class OddWarning(UserWarning):
    """Of the user's own."""


class Loaded(rs.Process):
    """Tells whether scipy is loaded where it computes."""

    version = 1
    outputs: ClassVar = {"scipy": rs.Output(dtype="i8")}

    def unit_computation(self, spectrum):
        return "scipy.special" in sys.modules


class Warns(rs.Process):
    """Warns at every position, in two ways."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output()}

    def unit_computation(self, spectrum):
        warnings.warn("an odd spectrum", RuntimeWarning, stacklevel=1)
        np.log(np.array([-1.0]))
        return spectrum.mean()


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_warnings_of_units_are_shown_once_with_a_count(source, engine):
    """As they would be by the user's own filters, but once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        Warns(source).compute(engine=engine, workers=2)
    told = [w for w in caught if "odd" in str(w.message)]
    numpys = [w for w in caught if "invalid value" in str(w.message)]

    assert len(told) == len(numpys) == 1
    assert str(told[0].message) == "an odd spectrum (given 200 times)"
    assert told[0].category is RuntimeWarning
    assert Path(told[0].filename).name == Path(__file__).name


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_ignored_warnings_are_not_shown_and_errors_are_raised(source, engine):
    """The user's filters hold in the workers, too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        Warns(source).compute(engine=engine, workers=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="an odd")
        with pytest.raises(rs.UnitFailed, match="RuntimeWarning: an odd spectrum"):
            Warns(source).compute(engine=engine, workers=2, override=True)

    assert caught == []


def test_filters_by_name_know_derived_categories_and_load_nothing():
    """What a filter names need not be there, and its subclasses are meant, too."""
    derived = type("Derived", (OddWarning,), {})
    counts = WarningCounts()
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("ignore", OddWarning)
        filters = pickle.loads(pickle.dumps(warning_filters()))
    far = ("error", None, "far.away.Warning", None, 0)
    with count_warnings((far, *filters), counts):
        warnings.warn("ignored", derived, stacklevel=1)
        warnings.warn("counted", UserWarning, stacklevel=1)

    assert [warned.text for warned in counts.counts] == ["counted"]


def test_filters_of_a_library_do_not_load_it_in_workers(source):
    """scipy.special has filters of its own; a unit that does not need it has none."""
    importlib.import_module("scipy.special")
    # The other server would have loaded it for all, because it is loaded here.
    results = Loaded(source).compute(engine=LocalEngine(2, "spawn"), workers=2)

    assert set(results["scipy"][...]) == {0}


def test_warnings_of_many_texts_are_counted_together():
    """Texts that hold the position do not fill the memory."""
    counts = WarningCounts()
    for number in range(1000):
        counts.add(Warned(UserWarning, f"at {number}", "a.py", 3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        counts.show()

    assert len(caught) == 101
    assert "900 further" in str(caught[-1].message)


# The parts of a batch.


def test_parts_are_the_batch_and_name_the_suspect():
    """Of the known position, or in halves; together they are what they were."""
    members = np.array([True, False, True, True, True, False, True])
    batch = Batch.of(10, members, block=3)
    alone = batch.parts(13)
    halves = batch.parts(None)

    assert [part.positions().tolist() for part in alone] == [[10, 12], [13], [14, 16]]
    assert [part.suspect for part in alone] == [False, True, False]
    assert [part.positions().tolist() for part in halves] == [[10, 12], [13, 14, 16]]
    assert all(part.suspect and part.block == 3 for part in halves)
    assert Batch.of(4, np.ones(1, bool)).parts(None)[0].positions().tolist() == [4]


def test_a_thread_that_computes_still_replaces_workers(source, rows):
    """Outside of the main thread, too."""
    process = Deadly(source, bad={"7": "segfault"})
    process.compute(positions=[0])
    thread = threading.Thread(
        target=process.compute, kwargs={"engine": "local", "workers": 2}
    )
    thread.start()
    thread.join()

    check(process.results, rows, [7])


class Escapes(BaseException):
    """What libraries raise to get past everybody, a panic for example."""


class Raises(rs.Process):
    """Raises something unusual at one position; logs something that cannot be."""

    version = 1
    outputs: ClassVar = {"mean": rs.Output(fill_value=-1.0)}

    def unit_computation(self, spectrum):
        if self.position == 20:
            raise Escapes("out of here")
        if self.position == 40:
            logging.getLogger("odd").warning("100%! of %d", 1)
        return spectrum.mean()


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_an_exception_of_any_kind_is_a_failed_position(
    source, rows, engine, monkeypatch
):
    """With its type and message; and a log line that cannot be written fails none."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    results = Raises(source).compute(engine=engine, workers=2)
    (failure,) = results.failures

    check(results, rows, [20])
    assert failure.exception.endswith("Escapes")
    assert failure.message == "out of here"
