"""Worker processes that are started from anywhere a user may be."""

import gc
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from helpers import ROOT
from user_scripts import UNGUARDED, both_methods, finished

import resumable as rs
from resumable.pool.pool import Pool
from resumable.system import threads
from resumable.worker import server as launch
from resumable.worker.call import Answer

pytestmark = [pytest.mark.timeout(60, method="signal")]


def the_results(folder):
    (path,) = [p for p in folder.glob("*.h5") if p.name != "scan.h5"]
    return rs.open(path)


@both_methods
def test_a_script_needs_no_guard(tmp_path, means, script, method):
    finished(script(UNGUARDED.format(method=method)))
    results = the_results(tmp_path)

    np.testing.assert_array_equal(results["mean"][...], means)
    assert (tmp_path / "imported").read_text() == "x"


@both_methods
def test_a_class_may_lie_in_a_module_beside_the_script(tmp_path, means, script, method):
    text = textwrap.dedent(UNGUARDED.format(method=method))
    top, _, last = text.rpartition("Mean(")
    (tmp_path / "beside.py").write_text(top.replace('"imported"', '"beside_imported"'))
    finished(
        script(
            f"""
            from beside import *
            with open("imported", "a") as file:
                file.write("x")
            Mean({last.strip()}
            """
        )
    )
    results = the_results(tmp_path)

    np.testing.assert_array_equal(results["mean"][...], means)
    assert (tmp_path / "imported").read_text() == "x"


@both_methods
def test_a_script_on_standard_input_works(tmp_path, means, method):
    text = textwrap.dedent(UNGUARDED.format(method=method))
    text = text.replace("outputs =", "version = 1\n    outputs =")
    subprocess.run(
        [sys.executable, "-"],
        input=text,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        text=True,
        timeout=40,
    )

    np.testing.assert_array_equal(the_results(tmp_path)["mean"][...], means)
    assert (tmp_path / "imported").read_text() == "x"


@both_methods
def test_a_process_that_cannot_be_sent_says_what_to_do(means, script, method):
    process = script(
        f"""
        import threading
        import resumable as rs
        from resumable.engines.local import LocalEngine

        class Held(rs.Process):
            outputs = {{"mean": rs.Output()}}
            def unit_computation(self, spectrum):
                with self.held:
                    return spectrum.mean()

        held = Held("scan.h5::/data")
        held.held = threading.Lock()
        try:
            held.compute(engine=LocalEngine(2, "{method}"))
        except TypeError as error:
            print(error)
        held.compute(engine="serial")
        """
    )
    output = finished(process)

    assert "setup()" in output
    assert "engine='serial'" in output
    assert "lock" in output


def test_a_server_that_is_killed_before_it_has_read_the_question_has_ended():
    server = launch.WorkerServer("forkserver")
    with server.talk:
        server.await_ready()
    server.process.send_signal(signal.SIGSTOP)
    server.socket.sendall(b"?")
    server.process.kill()
    server.process.wait()

    with server.socket, pytest.raises(rs.WorkerDied, match="run again to go on"):
        server.start()


def test_a_server_that_was_killed_is_replaced():
    for _ in range(2):
        with Pool(1) as pool:
            pool.create(0, "it", lambda parent: None)
            (answer,) = pool.wait(20)
        server = launch.WorkerServer.get("forkserver")
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()

        assert isinstance(answer, Answer)
    with Pool(1):
        pass
    # What the dead ones left open would be a ResourceWarning, here and now.
    del server
    gc.collect()


def test_an_unknown_start_method_is_named():
    with pytest.raises(rs.PlanError, match=r"forkserver.*not 'fork'"):
        Pool(1, start_method="fork")


def test_two_threads_may_start_pools_at_once(monkeypatch):
    receive = launch.WorkerServer.receive
    delays = itertools.cycle([0.05, 0.0])

    def slow(self):
        time.sleep(next(delays))
        return receive(self)

    # A server of its own: one that is mixed up must not harm other tests.
    monkeypatch.setattr(launch.WorkerServer, "running", {})
    monkeypatch.setattr(launch.WorkerServer, "receive", slow)
    with Pool(1):
        pass
    wrong = []

    def work():
        for _ in range(3):
            with Pool(2) as pool:
                for worker in range(2):
                    pool.create(worker, "it", lambda parent: os)
                    pool.send(worker, "it", "getpid")
                answers = []
                while len(answers) < 4:
                    answers += pool.wait(10)
                told = {a.worker: a.value for a in answers if a.value != "it"}
                if told != dict(enumerate(pool.pids)):
                    wrong.append((told, pool.pids))

    workers = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join(8)

    ours = launch.WorkerServer.running["forkserver"]
    ours.process.kill()
    ours.process.wait()
    ours.socket.close()

    assert not any(thread.is_alive() for thread in workers)
    assert wrong == []


def test_a_forked_worker_knows_the_libraries_of_its_server():
    """It need not look for them, which takes longer than the fork."""
    with Pool(1) as pool:
        pool.create(0, "it", lambda parent: threads)
        pool.send(0, "it", "find_libraries")
        pool.create(0, "cache", lambda parent: threads._controller)
        pool.send(0, "cache", "cache_info")
        answers = []
        while len(answers) < 4:
            answers += pool.wait(10)
    (info,) = [a.value for a in answers if hasattr(a.value, "hits")]

    assert (info.misses, info.hits) == (1, 1)


NUMBER_OF_CHILDREN = """
    import sys
    import types
    import psutil
    import resumable as rs
    from resumable.worker import work

    # What is computed takes 1 us for each position, whatever the machine is at.
    clock_s = 0.0
    work.time = types.SimpleNamespace(perf_counter=lambda: clock_s)

    class First(rs.Process):
        version = 1
        outputs = {"value": rs.Output()}

        def unit_computation(self, spectrum):
            global clock_s
            clock_s += 1e-6
            return spectrum[0]

    class FirstOfAll(rs.Process):
        version = 1
        outputs = {"value": rs.Output()}

        def block_computation(self, spectra):
            global clock_s
            clock_s += 1e-6 * len(spectra)
            return spectra[:, 0].astype("f8")

    made = globals()[sys.argv[1]]("scan.h5::/data")
    made.compute(workers=int(sys.argv[2]))
    print(len(psutil.Process().children(recursive=True)))
"""


@pytest.mark.parametrize(
    ("name", "positions", "workers", "children"),
    [
        ("First", 5000, 2, "0"),
        ("First", 60_000, 1, "0"),
        ("FirstOfAll", 60_000, 2, "0"),
        ("First", 60_000, 2, "1"),
    ],
)
def test_a_short_run_starts_no_process(
    script, make_file, name, positions, workers, children
):
    """Not even the one that workers would be forked from; so many calls do at once."""
    make_file(data=np.zeros((positions, 2)))
    process = script(NUMBER_OF_CHILDREN, name, str(workers))

    assert finished(process).strip() == children


def test_what_was_computed_before_starts_no_process(script, make_file):
    make_file(data=np.zeros((60_000, 2)))
    process = script(
        NUMBER_OF_CHILDREN.replace(
            "made.compute(workers=int(sys.argv[2]))",
            'made.compute(engine="serial"); made.compute(engine="local")',
        ),
        "First",
    )

    assert finished(process).strip() == "0"


def test_a_short_run_that_started_the_server_ends_quietly(script):
    process = script(
        """
        import os, time
        from resumable.worker.server import start_server
        start_server("forkserver")
        """
    )
    _, errors = process.communicate(timeout=20)
    time.sleep(0.7)

    assert process.returncode == 0
    assert errors == ""


def test_a_module_edited_during_a_session_is_not_mixed_in(script, make_file, tmp_path):
    module = """
        import resumable as rs

        class Constant(rs.Process):
            version = 1
            outputs = {{"value": rs.Output()}}

            def unit_computation(self, spectrum):
                return {value}
    """
    (tmp_path / "theirs.py").write_text(textwrap.dedent(module.format(value="1.0")))
    make_file(data=np.zeros((10, 2)))
    process = script(
        """
        import os, pathlib
        import theirs
        import resumable as rs
        constant = theirs.Constant("scan.h5::/data")
        text = pathlib.Path("theirs.py").read_text().replace("1.0", "2.0")
        pathlib.Path("theirs.py").write_text(text)
        os.utime("theirs.py", ns=(1, 1))
        try:
            constant.compute(engine="local", workers=1)
        except rs.DeclarationError as error:
            print(error)
        print(constant.results.status.pending)
        """
    )
    out, errors = process.communicate(timeout=60)

    assert "(here theirs.py:8) was edited while Constant was at work" in out, errors
    assert out.split()[-1] == "10"


THEIRS = """
import resumable as rs

def half(number):
    return number / 2

class Constant(rs.Process):
    outputs = {"value": rs.Output()}

    def unit_computation(self, spectrum):
        return half(1.0)
"""


def test_code_that_was_edited_after_its_import_is_refused(script, tmp_path):
    """Its own, or that of a helper; not a comment, nor a file that was only touched."""
    (tmp_path / "theirs.py").write_text(THEIRS)
    process = script(
        """
        import pathlib
        import theirs
        import resumable as rs
        file = pathlib.Path("theirs.py")
        text = file.read_text()
        edits = [("1.0", "2.0"), ("/ 2", "/ 3"), ("/ 2", "/ 2  # so"), ("", "")]
        for old, new in edits:
            file.write_text(text.replace(old, new))
            try:
                print(theirs.Constant(10, ".").compute(engine="serial")["value"][0])
            except rs.DeclarationError as error:
                print(error)
        """
    )
    out, errors = process.communicate(timeout=60)
    own, helper, *same = out.splitlines()

    assert "theirs.py was edited after Constant.unit_computation was imported" in own
    assert "theirs.py was edited after half was imported" in helper
    assert same == ["0.5", "0.5"], errors
