"""What is left of a pool that is closed, dropped, killed or interrupted."""

import gc
import os
import textwrap
import time

import psutil
import pytest
from kill_matrix import alive, wait_until
from pools import batch, descriptors, named_memory

import resumable as rs
from resumable.worker import server as launch
from resumable.worker.server import START_METHODS

pytestmark = pytest.mark.timeout(60, method="signal")


def test_a_thousand_items_leave_nothing_behind(pool):
    process = psutil.Process()
    for _ in pool.prefetch(batch, 50, (12_500,), seed=0):
        pass
    before = descriptors(), sorted(p.pid for p in process.children(recursive=True))
    named = named_memory()
    memory = process.memory_info().rss
    numbers = [one.size for one in pool.prefetch(batch, 1000, (12_500,), seed=0)]
    after = descriptors(), sorted(p.pid for p in process.children(recursive=True))
    grown = process.memory_info().rss - memory

    assert numbers == [12_500] * 1000
    # Whoever is quicker may need one more piece of memory in turn.
    assert abs(after[0] - before[0]) <= 4
    assert after[1] == before[1]
    assert grown < 5e6
    assert named_memory() == named
    assert named_memory(*pool.pids) == set()


@pytest.mark.parametrize("method", START_METHODS)
def test_a_pool_that_is_dropped_ends_its_workers(method):
    with rs.Pool(1, start_method=method):
        pass
    gc.collect()
    before = descriptors()
    pool = rs.Pool(2, start_method=method)
    results = pool.imap(time.sleep, [60, 60, 60])
    pids = pool.pids
    were_alive = all(map(alive, pids))
    del pool, results
    gc.collect()
    gone = wait_until(lambda: not any(map(alive, pids)), 5)

    assert were_alive
    assert gone
    assert descriptors() == before
    left = psutil.Process().children(recursive=True)
    assert not {child.pid for child in left} & set(pids)


def test_a_pool_may_be_dropped_while_the_server_is_asked():
    pool = rs.Pool(1)
    (pid,) = pool.pids
    server = launch.WorkerServer.get("forkserver")
    with server.talk:
        del pool
    with rs.Pool(1):
        left = {child.pid for child in psutil.Process().children(recursive=True)}

    assert pid not in left


UNCLOSED = """
    import os, sys, time
    import numpy as np
    import resumable as rs

    def slow(item):
        time.sleep(60 if item > 3 else 0)
        return np.full(1_000_000, item)

    pool = rs.Pool(2)
    kept = [pool]
    results = pool.imap(slow, range(10), copy=False)
    held = [next(results), next(results)]
    print(*pool.pids, flush=True)
    {rest}
"""


def test_a_script_that_never_closes_its_pool_ends(script):
    process = script(textwrap.dedent(UNCLOSED).format(rest=""))
    pids = list(map(int, process.stdout.readline().split()))
    _, errors = process.communicate(timeout=10)

    assert (process.returncode, errors) == (0, "")
    assert wait_until(lambda: not any(map(alive, pids)), 2)


def test_nothing_is_left_of_a_killed_process(script, tmp_path):
    process = script(textwrap.dedent(UNCLOSED).format(rest="time.sleep(60)"))
    pids = list(map(int, process.stdout.readline().split()))
    named = named_memory(process.pid, *pids)
    process.kill()

    assert wait_until(lambda: not any(map(alive, pids)), 2)
    assert named == set()
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


def test_a_child_process_leaves_the_workers_alone():
    with rs.Pool(1) as pool:
        before = pool.pids
        pid = os.fork()
        if pid == 0:
            # What the end of an interpreter does.
            pool._end()
            os._exit(0)
        os.waitpid(pid, 0)
        results = list(pool.imap(abs, [-1]))
        after = pool.pids

    assert results == [1]
    assert after == before


INTERRUPTED = """
    import os, signal, threading, time
    import resumable as rs

    def slow(item):
        time.sleep(0.02)
        return item

    def interrupt():
        for _ in range(30):
            time.sleep(0.015)
            os.killpg(0, signal.SIGINT)

    with rs.Pool(2) as pool:
        results = pool.imap(slow, range(100))
        got, interrupts = [next(results)], 0
        thread = threading.Thread(target=interrupt)
        try:
            thread.start()
        except KeyboardInterrupt:
            interrupts += 1
        while True:
            try:
                while True:
                    item = next(results)
                    got.append(item)
            except KeyboardInterrupt:
                interrupts += 1
            except StopIteration:
                break
        thread.join()
    print(got == list(range(100)), interrupts > 10, len(got), interrupts)
"""


SHAKEN = """
    import os, random, signal, threading, time
    import resumable as rs

    def interrupt():
        while not done:
            time.sleep(random.random() / 2000)
            os.kill(os.getpid(), signal.SIGINT)

    def raise_inside(number, frame):
        # Between two calls it would end the script.
        global inside
        if inside:
            inside = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, raise_inside)
    done, inside, got, interrupts = False, False, [], 0
    with rs.Pool(2) as pool:
        items = ((number, b"x" * 60_000) for number in range(10**9))
        results = pool.imap(lambda item: item, iter(items.__next__, None))
        started = time.monotonic()
        thread = threading.Thread(target=interrupt)
        while time.monotonic() < started + 3:
            if not thread.ident:
                thread.start()
            try:
                inside = True
                got.append(next(results))
                inside = False
            except KeyboardInterrupt:
                interrupts += 1
            except StopIteration:
                print("ended", flush=True)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        done = True
        thread.join()
        got += [next(results) for _ in range(20)]
    numbers = [number for number, text in got if len(text) == 60_000]
    right = len(numbers) == len(got) and numbers == sorted(set(numbers))
    print(right, interrupts > 100, len(got) > 100)
"""


def test_ctrl_c_at_any_moment_garbles_no_message(script):
    process = script(SHAKEN)
    output, errors = process.communicate(timeout=30)

    assert output == "True True True\n", output + errors


def test_ctrl_c_loses_no_item(script):
    process = script(INTERRUPTED)
    output, errors = process.communicate(timeout=40)

    assert output.startswith("True True"), output + errors
