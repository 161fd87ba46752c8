"""Workers and their server end with the driver, however it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from helpers import ROOT, until
from kill_matrix import alive, wait_until
from user_scripts import both_methods

from resumable.pool.pool import Pool
from resumable.worker import server as launch
from resumable.worker.call import Answer

pytestmark = [pytest.mark.timeout(60, method="signal")]


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
            pool.create(i, "it", stuck(how))
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
    others = {child.pid for child in psutil.Process().children(recursive=True)}
    with Pool(2, start_method=method) as pool:
        for worker in range(2):
            pool.create(worker, "it", lambda parent: None)
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
            pool.create(worker, "it", lambda parent: None)
        answers = []
        while len(answers) < 2:
            answers += pool.wait(10)
        states = [alive(pid) for pid in pids]

    assert all(isinstance(answer, Answer) for answer in answers)
    assert all(states)


@both_methods
def test_signals_that_come_at_once_leave_the_server_to_its_driver(method):
    server = launch.WorkerServer(method)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        server.process.send_signal(number)
    with server.talk:
        server.await_ready()
    serves = server.serves(os.getpid())
    server.process.kill()
    server.process.wait()
    server.socket.close()

    assert serves


@pytest.mark.parametrize("name", ["SIGINT", "SIGUSR2"])
def test_a_signal_in_the_middle_of_a_question_shifts_no_answer(monkeypatch, name):
    """What is taken for the number of a worker, and killed, is its own."""
    number, receive = signal.Signals[name], launch.WorkerServer.receive
    raised = []

    def raises(*_):
        raised.append(name)
        raise InterruptedError(name)

    def interrupted(server):
        if not raised:
            signal.raise_signal(number)
        return receive(server)

    with Pool(1):
        server = launch.WorkerServer.get("forkserver")
    before = signal.signal(number, raises)
    monkeypatch.setattr(launch.WorkerServer, "receive", interrupted)
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
        server.socket.close()
        server.process.wait()


@both_methods
def test_programs_that_a_worker_starts_can_be_ended(method):
    def ended(_):
        program = subprocess.Popen(["sleep", "60"])
        program.terminate()
        return program.wait()

    with Pool(1, start_method=method) as pool:
        assert list(pool.imap(ended, [0])) == [-signal.SIGTERM]


def test_how_workers_end_is_known_whatever_the_script_ignores(script):
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


def test_a_server_ends_with_its_driver_though_a_child_process_lives(script):
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


@pytest.mark.parametrize("engine", ["auto", "local"])
def test_a_script_leaves_nothing_open_at_its_end(scan, tmp_path, engine):
    """Where all warnings are shown, as in the development of the user's own code."""
    path = tmp_path / "short.py"
    path.write_text(
        "import resumable as rs\n"
        "from resumable.worker import start_server\n"
        "class Mean(rs.Process):\n"
        "    outputs = {'mean': rs.Output()}\n"
        "    def unit_computation(self, spectrum):\n"
        "        return spectrum.mean()\n"
        "start_server('forkserver')\n"
        f"Mean({scan!r}).compute(engine={engine!r}, workers=1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=40,
    )

    assert done.returncode == 0, done.stderr
    assert "ResourceWarning" not in done.stderr
