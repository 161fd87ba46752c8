"""Killed or stopped at any moment: nothing lost, nothing wrong, nothing left."""

import concurrent.futures
import contextlib
import os
import signal
import textwrap
import time
from typing import ClassVar

import kill_matrix
import numpy as np
import pytest
from engine_processes import Logged, noted
from helpers import ROOT, SUPPORT, data_of
from kill_matrix import alive, members, wait_until

import resumable as rs
from resumable.engines.local import LocalEngine

pytestmark = pytest.mark.timeout(110, method="signal")

CASES = kill_matrix.CASES


@pytest.fixture(scope="module")
def tallies(program_server, tmp_path_factory):
    """Return the tally of every case, 10 kills each, two cases at a time."""
    # Here and not in the threads, which share the filters of warnings.
    kill_matrix.expected(kill_matrix.POSITIONS, "Transform")
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        waiting = {}
        for seed, case in enumerate(CASES):
            given = (program_server, tmp_path_factory.mktemp("kill"), *case, 10)
            waiting[case] = threads.submit(kill_matrix.matrix, *given, seed=seed)
        return {case: future.result() for case, future in waiting.items()}


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_nothing_is_lost_or_wrong_whoever_is_killed(tallies, case):
    tally = tallies[case]

    assert tally.faults == []
    assert tally.kills == 10
    assert tally.completed >= 1
    assert tally.rows_checked > 0


def test_a_kill_before_any_step_leaves_a_run_that_goes_on(program_server, tmp_path):
    """Before a write, sync, link or lock a kill does no harm and leaves no file."""
    tally = kill_matrix.every_step(program_server, tmp_path, stride=4)

    assert tally.faults == []
    assert tally.kills > 15
    assert tally.completed == tally.kills + 1


STOPPED = """
    import signal, sys
    import resumable as rs
    from engine_processes import Logged

    before = [signal.getsignal(s) for s in (2, 15, 10)]
    process = Logged("scan.h5::/data", log="log", delay_s=0.01)
    try:
        process.compute(engine="{engine}", workers=2, checkpoint=100)
    finally:
        after = [signal.getsignal(s) for s in (2, 15, 10)]
        print("restored" if after == before else (before, after))
"""


@pytest.fixture
def source(tmp_path):
    """Return a source of 200 spectra."""
    return kill_matrix.make_source(tmp_path, 200)


@pytest.fixture
def stopped(start, tmp_path, source):
    """Return a function that starts a script and signals it once it computes."""
    started = []

    def run(engine, number, *, group):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(STOPPED).format(engine=engine))
        before = len(noted(tmp_path / "log"))
        process = start(path, PYTHONPATH=f"{ROOT}:{SUPPORT}")
        started.append(process)
        assert wait_until(lambda: len(noted(tmp_path / "log")) >= before + 20, 20)
        (os.killpg if group else os.kill)(process.pid, number)
        began = time.monotonic()
        output, errors = process.communicate(timeout=20)
        return process, output, errors, time.monotonic() - began

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("group", [False, True], ids=["parent", "group"])
@pytest.mark.parametrize(
    ("engine", "number"),
    [
        ("serial", signal.SIGINT),
        ("local", signal.SIGINT),
        ("local", signal.SIGTERM),
        ("local", signal.SIGUSR1),
        ("auto", signal.SIGTERM),
    ],
)
def test_a_signal_commits_and_says_how_to_go_on(
    tmp_path, source, stopped, engine, number, group
):
    process, output, errors, seconds = stopped(engine, number, group=group)
    log = str(tmp_path / "log")
    computed = len(noted(log))
    status = Logged(source, log="log", delay_s=0.01).results.status
    gone = wait_until(lambda: not members(process.pid), 2)

    assert process.returncode == 75, errors
    assert "run the same again to go on" in errors
    assert number.name in errors
    assert "Traceback" not in errors
    assert output.strip() == "restored"
    assert seconds < 5
    assert gone
    assert status.pending > 0
    assert status.done == computed


NESTED = """
    import os, signal
    import param
    import resumable as rs
    from engine_processes import Logged, note
    from resumable.worker.server import _ignore_signal

    class Inner(rs.Process):
        version = 1
        outputs = {"product": rs.Output()}
        factor = param.Integer(0)

        def unit_computation(self, index):
            handlers = {signal.getsignal(s) for s in (2, 15, 10)}
            note("log.left", handlers == {signal.SIG_IGN, _ignore_signal})
            return self.factor * index

    class Outer(Logged):
        def unit_computation(self, spectrum):
            inner = Inner(5, target="inner", factor=self.position)
            products = inner.compute(engine="serial")["product"][...]
            return super().unit_computation(products)

    os.makedirs("inner", exist_ok=True)
    Outer("scan.h5::/data", log="log").compute(engine="local", workers=2)
"""


def test_a_computation_inside_a_unit_catches_no_signal(tmp_path, script):
    """Only the driver handles the signal; it stops cleanly and can go on."""
    kill_matrix.make_source(tmp_path, 60)
    number = signal.SIGTERM
    log = tmp_path / "log"
    process = script(NESTED)
    assert wait_until(lambda: len(noted(log)) >= 20, 30)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=20)
    gone = wait_until(lambda: not members(process.pid), 2)
    computed = len(noted(log))
    again = script(NESTED)
    _, errors_again = again.communicate(timeout=60)
    (run,) = [p for p in tmp_path.glob("*.h5") if p.name != "scan.h5"]

    assert process.returncode == 75, errors
    assert number.name in errors
    assert "Traceback" not in errors
    assert "a worker ended" not in errors
    assert gone
    assert 20 <= computed < 60
    assert again.returncode == 0, errors_again
    assert set(noted(tmp_path / "log.left")) == {"True"}
    assert sorted(map(int, noted(log))) == list(range(60))
    assert rs.open(run)["mean"][...].tolist() == [2.0 * n for n in range(60)]


def test_stopped_twice_it_still_computes_nothing_twice(
    tmp_path, source, stopped, monkeypatch
):
    first = stopped("local", signal.SIGINT, group=True)[0]
    second = stopped("local", signal.SIGTERM, group=True)[0]
    monkeypatch.chdir(tmp_path)
    Logged(source, log="log", delay_s=0.01).compute(engine="local", workers=2)

    assert (first.returncode, second.returncode) == (75, 75)
    assert sorted(map(int, noted("log"))) == list(range(200))


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_ctrl_c_while_workers_start_is_a_clean_stop(
    tmp_path, source, start_method, script
):
    process = script(
        f"""
        import signal, threading, time
        from engine_processes import Logged
        from resumable.engines.local import LocalEngine

        def tell():
            while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                time.sleep(0.001)
            print("watching", flush=True)

        threading.Thread(target=tell, daemon=True).start()
        Logged("scan.h5::/data", log="log", delay_s=0.01).compute(
            engine=LocalEngine(2, {start_method!r}), workers=2
        )
        """
    )
    assert process.stdout.readline() == "watching\n"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 75, errors
    assert "KeyboardInterrupt" not in errors
    assert wait_until(lambda: not members(process.pid), 2)


def test_a_stop_in_a_thread_leaves_signals_alone(source, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    seen = []

    class Looks(rs.Process):
        version = 1
        outputs: ClassVar = {"mean": rs.Output()}

        def unit_computation(self, spectrum):
            seen.append(signal.getsignal(signal.SIGINT))
            return spectrum.mean()

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        results = threads.submit(Looks(source).compute, engine="serial").result()

    assert results.status.finished
    assert set(seen) == {before}


def test_an_orphan_cannot_write_into_a_new_session(
    tmp_path, source, script, monkeypatch
):
    """A worker that outlives its driver is waited for or refused, never mixed in."""
    process = script(
        """
        from engine_processes import Logged
        Logged("scan.h5::/data", log="log", delay_s=0.005).compute(
            engine="local", workers=2, checkpoint=0.02
        )
        """
    )
    assert wait_until(lambda: len(noted(tmp_path / "log")) > 40, 20)
    process.kill()
    process.wait()
    monkeypatch.chdir(tmp_path)
    results = Logged(source, log="log", delay_s=0.005).compute(
        engine=LocalEngine(2), workers=2
    )
    done = results["mean"][...]
    sessions = results.sessions

    assert results.status.finished
    np.testing.assert_array_equal(done, [row.mean() for row in data_of(source)])
    assert len(sessions) == 2
    assert sessions[0].end == 0
    assert sum(s.computed for s in sessions) <= 200
    assert not alive(process.pid)


SLOW = """
    from engine_processes import Logged, note
    from resumable.engines import local

    local._GRACE_S = 0.5

    class Slow(Logged):
        def unit_computation(self, spectrum):
            if self.position == 100:
                import ctypes
                note(self.log, "slow")
                ctypes.CDLL(None).sleep(60)
            return super().unit_computation(spectrum)

    Slow("scan.h5::/data", log="log", delay_s=0.001).compute(
        engine="local", workers=2, checkpoint=100
    )
"""


def test_a_stop_does_not_wait_for_a_long_position(tmp_path, source, script):
    """In the end its batch is given up; the ones before are kept, none has failed."""
    process = script(SLOW)
    log = tmp_path / "log"
    assert wait_until(lambda: "slow" in noted(log), 30)
    (run,) = [p for p in tmp_path.glob("*.h5") if p.name != "scan.h5"]
    # Earlier rows are committed because no more come, long before the checkpoint.
    assert wait_until(lambda: rs.open(run).status.pending <= 60, 30)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    status = rs.open(run).status

    assert process.returncode == 75, errors
    assert "memory" not in errors
    assert status.failed == 0
    assert 1 <= status.pending <= 60
