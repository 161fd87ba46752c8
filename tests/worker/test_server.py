"""Starting workers from anywhere a user may be, and their end with their parent."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from helpers import until
from kill_matrix import alive, wait_until

import resumable as rs
from resumable.pool.pool import Pool
from resumable.worker import server as launch
from resumable.worker.call import Answer
from resumable.worker.server import START_METHODS

pytestmark = [
    pytest.mark.timeout(60, method="signal"),
]

both_methods = pytest.mark.parametrize("method", START_METHODS)


@pytest.fixture
def means(tmp_path):
    """Make ``scan.h5::/data`` beside the script and return the means of its rows."""
    data = np.random.default_rng(2).normal(size=(40, 8))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = data
    return data.mean(axis=1)


def finished(process):
    """Wait for a script; return what it wrote, or fail with its errors."""
    output, errors = process.communicate(timeout=40)
    assert process.returncode == 0, errors
    return output


def the_results(folder):
    """Return the results of the one run file beside the source."""
    (path,) = [p for p in folder.glob("*.h5") if p.name != "scan.h5"]
    return rs.open(path)


# Where the class comes from.

UNGUARDED = """
    import resumable as rs
    from resumable.engines.local import LocalEngine

    with open("imported", "a") as file:
        file.write("x")

    FACTOR = 1.0

    def helper(spectrum):
        return spectrum.mean() * FACTOR

    class Mean(rs.Process):
        outputs = {{"mean": rs.Output()}}

        def unit_computation(self, spectrum):
            return helper(spectrum)

    Mean("scan.h5::/data").compute(engine=LocalEngine(2, "{method}"))
"""


@both_methods
def test_a_script_needs_no_guard(tmp_path, means, script, method):
    """A class of an unguarded script is computed, the script run just once."""
    finished(script(UNGUARDED.format(method=method)))
    results = the_results(tmp_path)

    np.testing.assert_array_equal(results["mean"][...], means)
    assert (tmp_path / "imported").read_text() == "x"


@both_methods
def test_a_class_may_lie_in_a_module_beside_the_script(tmp_path, means, script, method):
    """Workers find the modules the script finds."""
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
    """Where there is no file to import again, nothing tries to."""
    text = textwrap.dedent(UNGUARDED.format(method=method))
    text = text.replace("outputs =", "version = 1\n    outputs =")
    subprocess.run(
        [sys.executable, "-"],
        input=text,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        text=True,
        capture_output=True,
        timeout=40,
    )

    np.testing.assert_array_equal(the_results(tmp_path)["mean"][...], means)
    assert (tmp_path / "imported").read_text() == "x"


@both_methods
def test_a_process_that_cannot_be_sent_says_what_to_do(means, script, method):
    """A lock held by the user's object is an error that names the way out."""
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


# Notebooks.

NOTEBOOK = """
    import json, sys, time
    import nbformat
    from nbclient import NotebookClient

    cells = json.load(sys.stdin)
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells]
    )
    NotebookClient(notebook, timeout=30, kernel_name="python3").execute()
    print(json.dumps([
        "".join(o.get("text", "") for o in cell.outputs) for cell in notebook.cells
    ]))
"""

INTERRUPTED = """
    import json, sys, time
    from pathlib import Path
    from jupyter_client.manager import start_new_kernel

    cells = json.load(sys.stdin)
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        asked = client.execute(cells[0])
        deadline = time.monotonic() + 20
        while len(Path("log").read_text().split()
                  if Path("log").exists() else []) < 20:
            if time.monotonic() > deadline:
                sys.exit("nothing was computed")
            time.sleep(0.01)
        manager.interrupt_kernel()
        found = []
        def hook(message):
            content = message["content"]
            found.append([message["msg_type"], content.get("ename") or
                          content.get("text") or ""])
        # A reply to an earlier request, such as that for kernel information, may
        # still be in the queue.
        def reply(get):
            while True:
                message = get(timeout=30)
                if message["parent_header"].get("msg_id") == asked:
                    return message["content"]
        first = reply(client.get_shell_msg)
        while reply(client.get_iopub_msg).get("execution_state") != "idle":
            pass
        second = client.execute_interactive(
            cells[1], timeout=30, output_hook=hook
        )["content"]
        print(json.dumps([first, second["status"], found]))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
"""


def in_kernel(script, text, cells):
    """Have a script run cells in a kernel; return what it printed last."""
    env = {"JUPYTER_PLATFORM_DIRS": "1", "PYTHONWARNINGS": "ignore"}
    old = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        process = script(
            f"import io, sys\nsys.stdin = io.StringIO({json.dumps(cells)!r})\n"
            + textwrap.dedent(text)
        )
    finally:
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return json.loads(finished(process).splitlines()[-1])


def test_a_class_typed_into_a_notebook_works_with_both_start_methods(means, script):
    """Cells define and compute; workers get the class without any file."""
    cell = textwrap.dedent(UNGUARDED).replace("outputs =", "version = 1\n    outputs =")
    top, _, last = cell.rpartition("Mean(")
    computed = [
        f"r = Mean({last.format(method=method).strip()[:-1]}, override=True)\n"
        "print(r['mean'][...].tolist())"
        for method in START_METHODS
    ]
    outputs = in_kernel(
        script, NOTEBOOK, [top.format(), *computed, "print(open('imported').read())"]
    )

    for output in outputs[1:3]:
        assert json.loads(output.splitlines()[-1]) == means.tolist()
    assert outputs[3].strip() == "x"


def test_a_class_typed_into_a_notebook_needs_no_version(tmp_path, means, script):
    """Its source text is found in the cell; an edited cell is another run."""
    cell = textwrap.dedent(
        """
        import resumable as rs
        class Mean(rs.Process):
            outputs = {"mean": rs.Output()}
            def unit_computation(self, spectrum):
                return spectrum.mean()
        print(Mean("scan.h5::/data").compute(engine="serial")["mean"][0])
        """
    )
    edited = cell.replace(".mean()", ".mean() + 1")
    outputs = in_kernel(script, NOTEBOOK, [cell, edited, cell])
    numbers = [float(output.split()[-1]) for output in outputs]

    assert numbers == [means[0], means[0] + 1, means[0]]


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_interrupting_a_kernel_leaves_it_usable(tmp_path, script, engine):
    """KeyboardInterrupt is raised in the cell, and the next cell goes on."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = np.ones((200, 4))
    cells = [
        f"""
import os, time
import resumable as rs

class Slow(rs.Process):
    version = 1
    outputs = {{"mean": rs.Output()}}
    def unit_computation(self, spectrum):
        fd = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b"%d\\n" % self.position)
        os.close(fd)
        time.sleep(0.01)
        return spectrum.mean()

slow = Slow("scan.h5::/data")
slow.compute(engine="{engine}", workers=2)
""",
        f"""
before = slow.results.status
r = slow.compute(engine="{engine}", workers=2)
print(before.done, before.pending > 0, r.status.finished)
""",
    ]
    first, second, found = in_kernel(script, INTERRUPTED, cells)
    positions = list(map(int, (tmp_path / "log").read_text().split()))
    (line,) = [
        text.split()
        for kind, text in found
        if kind == "stream" and "True" in text.split()
    ]

    assert (first["status"], first["ename"]) == ("error", "KeyboardInterrupt")
    assert "run the same again" in first["evalue"]
    assert second == "ok"
    assert int(line[0]) >= 20
    assert line[1:] == ["True", "True"]
    assert sorted(positions) == list(range(200))


# The end of the parent.

ORPHANS = """
    import ctypes, sys, threading, time
    from resumable.pool import Pool

    def stuck(how):
        class Stuck:
            def __init__(self, parent):
                pass
            def work(self):
                if how == "gil":
                    ctypes.PyDLL(None).sleep(60)
                elif how == "sleep":
                    time.sleep(60)
                else:
                    while True:
                        pass
        return Stuck

    def main():
        pool = Pool(3, start_method=sys.argv[1])
        for i, how in enumerate([*sys.argv[2:4], "idle"]):
            pool.place(i, "it", stuck(how))
        ready = 0
        while ready < 3:
            ready += len(pool.wait())
        for i in range(2):
            pool.send(i, "it", "work")
        time.sleep(0.2)
        print(*pool.pids, flush=True)
        time.sleep(60)

    if len(sys.argv) > 4:
        thread = threading.Thread(target=main)
        thread.start()
        thread.join()
    else:
        main()
"""


@both_methods
@pytest.mark.parametrize("how", ["gil sleep", "python sleep", "gil gil thread"])
def test_workers_and_server_end_when_their_parent_is_killed(script, method, how):
    """Two seconds after SIGKILL nothing runs, whatever the workers were at."""
    process = script(ORPHANS, method, *how.split())
    pids = list(map(int, process.stdout.readline().split()))
    pids += [child.pid for child in psutil.Process(process.pid).children(True)]
    were_alive = all(map(alive, pids))
    process.kill()
    gone = wait_until(lambda: not any(map(alive, pids)), 2)
    left = [pid for pid in pids if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)

    assert len(set(pids)) >= 3
    assert were_alive
    assert gone, left


@both_methods
def test_workers_end_when_their_parent_just_ends(script, method):
    """A script that ends without closing its pool leaves nothing behind."""
    text = ORPHANS.replace("time.sleep(60)\n\n    if", "\n    if")
    process = script(text, method, "gil", "sleep")
    pids = list(map(int, process.stdout.readline().split()))
    process.wait(20)
    gone = wait_until(lambda: not any(map(alive, pids)), 2)
    left = [pid for pid in pids if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=20)

    assert len(pids) == 3
    assert gone, left
    assert process.returncode == 0
    assert errors == ""


@both_methods
def test_signals_to_all_processes_leave_workers_to_their_driver(method):
    """Workers and their server ignore what a scheduler sends to everybody."""
    others = {child.pid for child in psutil.Process().children(recursive=True)}
    with Pool(2, start_method=method) as pool:
        for worker in range(2):
            pool.place(worker, "it", lambda parent: None)
        ready = 0
        while ready < 2:
            ready += len(pool.wait(10))
        children = psutil.Process().children(recursive=True)
        pids = {*pool.pids, *(child.pid for child in children)} - others
        for pid in pids:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                os.kill(pid, number)
        time.sleep(0.1)
        for worker in range(2):
            pool.place(worker, "it", lambda parent: None)
        answers = []
        while len(answers) < 2:
            answers += pool.wait(10)
        states = [alive(pid) for pid in pids]

    assert all(isinstance(answer, Answer) for answer in answers)
    assert all(states)


@both_methods
def test_signals_that_come_at_once_leave_the_server_to_its_driver(method):
    """It ignores them from its first moment, before it has imported anything."""
    server = launch._Server(method)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        server._process.send_signal(number)
    with server._talk:
        server._await_ready()
    serves = server.serves(os.getpid())
    server._process.kill()
    server._process.wait()
    server._socket.close()

    assert serves


@pytest.mark.parametrize("name", ["SIGINT", "SIGUSR2"])
def test_a_signal_in_the_middle_of_a_question_shifts_no_answer(monkeypatch, name):
    """What is taken for the number of a worker, and killed, is its own."""
    number, receive = signal.Signals[name], launch._Server._receive
    raised = []

    def raises(*_):
        raised.append(name)
        raise InterruptedError(name)

    def interrupted(server):
        if not raised:
            signal.raise_signal(number)
        return receive(server)

    with Pool(1):
        server = launch._Server.get("forkserver")
    before = signal.signal(number, raises)
    monkeypatch.setattr(launch._Server, "_receive", interrupted)
    try:
        with pytest.raises(InterruptedError):
            Pool(1)
    finally:
        signal.signal(number, before)
    with Pool(2) as pool:
        pids = set(pool.imap(lambda _: os.getpid(), range(4)))

        assert pids <= set(pool.pids)
    if not server.serves(os.getpid()):
        # Another one has taken its place.
        server._socket.close()
        server._process.wait()


@both_methods
def test_programs_that_a_worker_starts_can_be_ended(method):
    """They do not inherit what the worker itself ignores."""

    def ended(_):
        program = subprocess.Popen(["sleep", "60"])
        program.terminate()
        return program.wait()

    with Pool(1, start_method=method) as pool:
        assert list(pool.imap(ended, [0])) == [-signal.SIGTERM]


def test_how_workers_end_is_known_whatever_the_script_ignores(script):
    """Ends of processes may be none of its business, but they are ours."""
    process = script(
        """
        import os, signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        import resumable as rs
        with rs.Pool(1) as pool:
            try:
                list(pool.imap(lambda _: os.abort(), [0]))
            except rs.WorkerDied as error:
                print(error.exitcode)
        """
    )
    output, errors = process.communicate(timeout=30)

    assert output.split() == [str(-signal.SIGABRT)], errors


def test_a_server_lives_no_longer_than_its_driver_because_of_a_copy(script):
    """Nor do its workers, where a thread has begun it, whose end says nothing."""
    process = script(
        """
        import os, threading, time
        import resumable as rs
        pools = []
        thread = threading.Thread(target=lambda: pools.append(rs.Pool(1)))
        thread.start()
        thread.join()
        if os.fork() == 0:
            os.close(1)
            time.sleep(60)
        print(*pools[0].pids, os.getpid(), flush=True)
        time.sleep(60)
        """
    )
    worker = int(process.stdout.readline().split()[0])
    copies = psutil.Process(process.pid).children()
    process.kill()
    try:
        until(lambda: not alive(worker), 10)
    finally:
        for copy in copies:
            with contextlib.suppress(psutil.NoSuchProcess):
                copy.kill()


def test_a_server_that_is_killed_before_it_has_read_the_question_has_ended():
    """It is an error that says what to do, as where it was killed after that."""
    server = launch._Server("forkserver")
    with server._talk:
        server._await_ready()
    server._process.send_signal(signal.SIGSTOP)
    server._socket.sendall(b"?")
    server._process.kill()
    server._process.wait()

    with server._socket, pytest.raises(rs.WorkerDied, match="run again to go on"):
        server.start()


def test_a_server_that_was_killed_is_replaced():
    """The next pool starts a new server, without an error."""
    for _ in range(2):
        with Pool(1) as pool:
            pool.place(0, "it", lambda parent: None)
            (answer,) = pool.wait(20)
        server = launch._Server.get("forkserver")
        os.kill(server._process.pid, signal.SIGKILL)
        server._process.wait()

        assert isinstance(answer, Answer)
    with Pool(1):
        pass
    # What the dead ones left open would be a ResourceWarning, here and now.
    del server
    gc.collect()


def test_an_unknown_start_method_is_named():
    """fork is refused, with what there is."""
    with pytest.raises(rs.PlanError, match=r"forkserver.*not 'fork'"):
        Pool(1, start_method="fork")


def test_two_threads_may_start_pools_at_once(monkeypatch):
    """Workers asked for by two threads are not mixed up."""
    receive = launch._Server._receive
    delays = itertools.cycle([0.05, 0.0])

    def slow(self):
        time.sleep(next(delays))
        return receive(self)

    # A server of its own: one that is mixed up must not harm other tests.
    monkeypatch.setattr(launch._Server, "_running", {})
    monkeypatch.setattr(launch._Server, "_receive", slow)
    with Pool(1):
        pass
    wrong = []

    def work():
        for _ in range(3):
            with Pool(2) as pool:
                for worker in range(2):
                    pool.place(worker, "it", lambda parent: os)
                    pool.send(worker, "it", "getpid")
                answers = []
                while len(answers) < 4:
                    answers += pool.wait(10)
                told = {a.worker: a.value for a in answers if a.value != "it"}
                if told != dict(enumerate(pool.pids)):
                    wrong.append((told, pool.pids))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(8)

    ours = launch._Server._running["forkserver"]
    ours._process.kill()
    ours._process.wait()
    ours._socket.close()

    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


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
    script, tmp_path, name, positions, workers, children
):
    """Not even the one that workers would be forked from; so many calls do at once."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = np.zeros((positions, 2))
    process = script(NUMBER_OF_CHILDREN, name, str(workers))

    assert finished(process).strip() == children


def test_what_was_computed_before_starts_no_process(script, tmp_path):
    """Not even where workers are asked for by name."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = np.zeros((60_000, 2))
    process = script(
        NUMBER_OF_CHILDREN.replace(
            "made.compute(workers=int(sys.argv[2]))",
            'made.compute(engine="serial"); made.compute(engine="local")',
        ),
        "First",
    )

    assert finished(process).strip() == "0"


def test_a_short_run_that_started_the_server_ends_quietly(script):
    """A script that ends while its server still imports prints nothing."""
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


def test_a_module_edited_during_a_session_is_not_mixed_in(script, tmp_path):
    """Workers that import a newer file than the driver's end the run, and say why."""
    module = """
        import resumable as rs

        class Constant(rs.Process):
            version = 1
            outputs = {{"value": rs.Output()}}

            def unit_computation(self, spectrum):
                return {value}
    """
    (tmp_path / "theirs.py").write_text(textwrap.dedent(module.format(value="1.0")))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = np.zeros((10, 2))
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

    assert "was edited while it was at work" in out, errors
    assert out.split()[-1] == "10"


def test_a_class_whose_file_was_edited_after_its_import_is_refused(script, tmp_path):
    """Its text is part of the identity, and it is not what would be computed."""
    (tmp_path / "theirs.py").write_text(
        "import resumable as rs\n\n"
        "class Constant(rs.Process):\n"
        "    outputs = {'value': rs.Output()}\n\n"
        "    def unit_computation(self, spectrum):\n"
        "        return 1.0\n"
    )
    process = script(
        """
        import os
        import theirs
        import resumable as rs
        os.utime("theirs.py", ns=(1, 1))
        try:
            theirs.Constant(10, ".").compute()
        except rs.DeclarationError as error:
            print(error)
        """
    )
    out, errors = process.communicate(timeout=60)

    assert "was edited after Constant was imported" in out, errors
