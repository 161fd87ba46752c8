"""Computations that fork, close files, change the environment or raise anything."""

import contextlib
import logging
import os
import threading
from pathlib import Path
from typing import ClassVar

import param
import pytest
from deadly import SIDE_EFFECTS, Deadly, check
from engine_processes import Pools

import resumable as rs

pytestmark = [
    pytest.mark.timeout(60, method="signal"),
    pytest.mark.filterwarnings("ignore:.*positions failed:resumable.ResumableWarning"),
]


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_computations_that_change_the_process_do_not_break_the_run(
    source, rows, script, engine
):
    bad = {str(20 * (i + 1)): effect.__name__ for i, effect in enumerate(SIDE_EFFECTS)}
    process = script(
        f"""
        from deadly import Deadly
        process = Deadly({source!r}, bad={bad!r}, delay_s=0.0005)
        process.compute(engine={engine!r}, workers=2, memory="2 GB")
        print("finished")
        """
    )
    output, errors = process.communicate(timeout=40)

    assert process.returncode == 0, errors
    assert output.count("finished") == 1
    check(Deadly(source, bad=bad, delay_s=0.0005).results, rows, [])


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_a_computation_may_use_a_pool_of_processes(source, rows, script, engine):
    """The pool ends its processes by a signal, which our handlers must not catch."""
    process = script(
        f"""
        from engine_processes import Pools
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
def test_a_child_process_obeys_a_signal_that_comes_before_it_can(script, catches):
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


def test_a_child_process_of_a_worker_keeps_no_lock(source, rows, script, tmp_path):
    """A forked process that lives on does not keep the next session waiting."""
    bad = {"20": "fork_and_stay"}
    process = script(
        f"""
        from deadly import Deadly
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
    victim = tmp_path / "precious"
    victim.write_bytes(bytes(1 << 16))
    process = ClosesDescriptors(source, victim=str(victim))
    with pytest.raises(OSError, match="closed file descriptors"):
        process.compute(engine="serial", checkpoint=100)

    assert victim.read_bytes() == bytes(1 << 16)


def test_a_thread_that_computes_still_replaces_workers(source, rows):
    process = Deadly(source, bad={"7": "segfault"})
    process.compute(positions=[0])
    thread = threading.Thread(
        target=process.compute, kwargs={"engine": "local", "workers": 2}
    )
    thread.start()
    thread.join()

    check(process.results, rows, [7])


class Escapes(BaseException):
    """An exception that is no Exception, as some libraries raise."""


class Raises(rs.Process):
    """Raises an unusual exception at one position; logs a bad line."""

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
    monkeypatch.setattr(logging, "raiseExceptions", False)
    results = Raises(source).compute(engine=engine, workers=2)
    (failure,) = results.failures

    check(results, rows, [20])
    assert failure.exception.endswith("Escapes")
    assert failure.message == "out of here"
