"""The pool: calls of objects in other processes, and how they end."""

import logging
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from kill_matrix import alive, wait_until
from pools import descriptors, named_memory

import resumable as rs
from resumable.pool.pool import Pool
from resumable.worker.call import Answer, Death, death_error
from resumable.worker.server import START_METHODS

pytestmark = pytest.mark.timeout(60, method="signal")


def gadget():
    """Return a class that travels by value, so that no worker imports pytest."""
    import ctypes
    import logging
    import os
    import signal
    import threading
    import time

    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    class WithLock(Exception):
        pass

    class Gadget:
        def __init__(self, parent, start=0):
            self.parent, self.total = parent, start

        def add(self, number):
            self.total += number
            return self.total

        def pid(self):
            return os.getpid()

        def sleep(self, seconds):
            time.sleep(seconds)
            return seconds

        def until_told(self):
            deadline = time.monotonic() + 20
            while not self.parent.pending():
                if time.monotonic() > deadline:
                    return "not told"
                time.sleep(0.005)
            return "told"

        def raises(self):
            try:
                {}["missing"]
            except KeyError as error:
                raise ValueError("the outer one") from error

        def raises_odd(self):
            raise Odd("one", "two")

        def raises_lock(self):
            error = WithLock("holds a lock")
            error.lock = threading.Lock()
            raise error

        def raises_noted(self):
            error = OSError(5, "disk")
            error.add_note("at 7")
            raise error

        def returns_lock(self):
            return threading.Lock()

        def big(self, size):
            return b"x" * size

        def size(self, data):
            return len(data)

        def log(self, name, level, text, *arguments):
            logging.getLogger(name).log(level, text, *arguments)

        def log_odd(self, name):
            logging.getLogger(name).warning("odd", extra={"odd": Odd("one", "two")})
            return "logged"

        def log_error(self, name):
            try:
                raise ValueError("inside")
            except ValueError:
                logging.getLogger(name).exception("something broke")

        def flood(self, name, obeys):
            end = time.monotonic() + 20
            logger = logging.getLogger(name)
            while time.monotonic() < end and not (obeys and self.parent.pending()):
                logger.warning("flood")
            return "flooded"

        def end(self, how):
            if how == "exit":
                os._exit(7)
            if how == "segfault":
                ctypes.string_at(0)
            if how == "system exit":
                raise SystemExit(3)
            os.kill(os.getpid(), signal.SIGKILL)

        def threads(self):
            return threading.active_count()

        def close(self):
            if isinstance(self.total, str):
                fd = os.open(self.total, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                os.write(fd, b"closed ")
                os.close(fd)

    return Gadget


@pytest.fixture(params=START_METHODS)
def pool(request):
    with ready(2, request.param) as pool:
        yield pool


@pytest.fixture
def fast():
    with ready(2) as pool:
        yield pool


def ready(workers, method="forkserver"):
    pool = Pool(workers, start_method=method)
    for worker in range(workers):
        pool.create(worker, "it", gadget())
    collect(pool, workers)
    return pool


def collect(pool, count, seconds=20):
    events = []
    deadline = time.monotonic() + seconds
    while len(events) < count:
        assert time.monotonic() < deadline, f"only {events} after {seconds} s"
        events += pool.wait(0.5)
    return events


def ask(pool, worker, method, *arguments):
    pool.send(worker, "it", method, *arguments)
    (event,) = collect(pool, 1)
    return event


def test_objects_keep_their_state_between_calls(pool):
    values = [ask(pool, 0, "add", 5).value, ask(pool, 0, "add", 6).value]
    other = ask(pool, 1, "add", 1).value

    assert values == [5, 11]
    assert other == 1
    assert ask(pool, 1, "pid").value == pool.pids[1] != os.getpid()


def test_a_worker_holds_objects_by_name(fast):
    fast.create(0, "other", gadget(), 100)
    fast.send(0, "other", "add", 1)
    fast.send(0, "it", "add", 1)
    fast.create(0, "it", gadget(), 50)
    fast.send(0, "it", "add", 1)
    values = [event.value for event in collect(fast, 5)]

    assert values == ["other", 101, 1, "it", 51]


def test_wait_gives_what_there_is_in_time(fast):
    fast.send(0, "it", "until_told")
    fast.send(1, "it", "sleep", 0.01)
    first = collect(fast, 1)
    none = fast.wait(0.0)
    fast.ask_to_stop(0)
    second = collect(fast, 1)

    assert [(e.worker, e.value) for e in first] == [(1, 0.01)]
    assert none == []
    assert [(e.worker, e.value) for e in second] == [(0, "told")]


def test_a_request_to_stop_reaches_only_the_call_at_work(fast):
    fast.send(0, "it", "until_told")
    nothing = fast.wait(0.1)
    fast.ask_to_stop(0)
    (told,) = collect(fast, 1)
    after = ask(fast, 0, "add", 3)

    assert nothing == []
    assert told.value == "told"
    assert after.value == 3


def test_large_messages_pass_both_ways(fast):
    size = 20_000_000
    fast.send(0, "it", "big", size)
    fast.send(1, "it", "size", b"y" * size)
    values = {event.worker: event.value for event in collect(fast, 2)}

    assert len(values[0]) == size
    assert values[1] == size


def test_an_error_keeps_type_traceback_and_cause(pool):
    event = ask(pool, 0, "raises")
    story = str(event.error.__cause__)

    assert type(event.error) is ValueError
    assert str(event.error) == "the outer one"
    assert "in raises" in story
    assert "KeyError: 'missing'" in story
    assert "direct cause" in story
    assert ask(pool, 0, "add", 2).value == 2


def test_an_error_keeps_its_attributes(fast):
    error = ask(fast, 0, "raises_noted").error

    assert isinstance(error, OSError)
    assert error.errno == 5
    assert error.__notes__ == ["at 7"]


@pytest.mark.parametrize(
    ("method", "text"),
    [("raises_odd", "Odd: one and two"), ("raises_lock", "WithLock: holds a lock")],
)
def test_an_exception_that_cannot_travel_becomes_its_text(fast, method, text):
    error = ask(fast, 0, method).error

    assert type(error) is RuntimeError
    assert text in str(error)
    assert f"in {method}" in str(error.__cause__)
    assert ask(fast, 0, "add", 2).value == 2


def test_an_answer_that_cannot_travel_is_an_error(fast):
    event = ask(fast, 0, "returns_lock")

    assert isinstance(event, Answer)
    assert "pickle" in str(event.error)
    assert ask(fast, 0, "add", 2).value == 2


def test_a_missing_object_or_method_is_an_error(fast):
    fast.send(0, "missing", "add", 1)
    missing = collect(fast, 1)[0].error
    unknown = ask(fast, 0, "nothing").error

    assert isinstance(missing, KeyError)
    assert isinstance(unknown, AttributeError)


def test_a_factory_that_raises_is_an_error(fast):
    fast.create(0, "bad", gadget(), 1, 2, 3)
    (event,) = collect(fast, 1)

    assert isinstance(event.error, TypeError)


def test_what_cannot_be_sent_says_what_to_do(fast):
    import threading

    with pytest.raises(TypeError, match=r"setup\(\).*engine='serial'"):
        fast.send(0, "it", "size", threading.Lock())

    assert ask(fast, 0, "add", 2).value == 2


def test_log_records_reach_the_loggers_here(pool, caplog):
    with caplog.at_level(logging.INFO):
        ask(pool, 0, "log", "lab.fit", logging.WARNING, "row %d of %s", 3, "x")
        ask(pool, 1, "log_error", "lab.fit")
    first, second = [r for r in caplog.records if r.name == "lab.fit"]

    assert first.levelno == logging.WARNING
    assert first.getMessage() == "row 3 of x"
    assert first.process == pool.pids[0]
    assert second.levelno == logging.ERROR
    assert "ValueError: inside" in second.exc_text


def test_log_records_below_the_level_here_are_dropped(fast, caplog):
    with caplog.at_level(logging.ERROR, "lab.quiet"):
        ask(fast, 0, "log", "lab.quiet", logging.WARNING, "not this")
        ask(fast, 0, "log", "lab.quiet", logging.ERROR, "but this")

    assert [r.getMessage() for r in caplog.records] == ["but this"]


def test_a_logger_that_is_open_here_is_open_in_workers(caplog):
    with caplog.at_level(logging.INFO, "lab.open"), ready(1) as pool:
        ask(pool, 0, "log", "lab.open", logging.INFO, "told")
        ask(pool, 0, "log", "lab.other", logging.INFO, "not told")

    assert [r.getMessage() for r in caplog.records] == ["told"]


def test_a_log_record_that_cannot_be_made_again_is_no_answer(fast):
    first = ask(fast, 0, "log_odd", "lab.odd")
    second = ask(fast, 0, "add", 3)

    assert (first.value, first.error) == ("logged", None)
    assert second.value == 3


def test_many_log_records_delay_no_answer_of_another_worker(fast):
    logging.getLogger("lab.flood").addHandler(logging.NullHandler())
    logging.getLogger("lab.flood").propagate = False
    fast.send(0, "it", "flood", "lab.flood", True)
    time.sleep(0.2)
    fast.send(1, "it", "add", 1)
    (event,) = collect(fast, 1)
    loads = [fast.unanswered(0), fast.unanswered(1)]
    fast.ask_to_stop(0)
    (end,) = collect(fast, 1)

    assert (event.worker, event.value) == (1, 1)
    assert loads == [1, 0]
    assert end.value == "flooded"


@pytest.mark.parametrize(
    ("how", "code"),
    [("kill", -signal.SIGKILL), ("exit", 7), ("segfault", -signal.SIGSEGV)],
)
def test_a_death_is_reported_with_its_exit_code(pool, how, code):
    event = ask(pool, 0, "end", how)
    other = ask(pool, 1, "add", 4)

    assert event == Death(0, code)
    assert other == Answer(1, 4, None)
    assert not alive(pool.pids[0])


def test_a_death_between_calls_is_reported(fast):
    fast.kill(0)
    (event,) = collect(fast, 1)
    fast.send(0, "it", "add", 1)
    after = fast.wait(0.1)

    assert event == Death(0, -signal.SIGKILL)
    assert after == []
    assert ask(fast, 1, "add", 1).value == 1


def test_sys_exit_in_a_call_ends_no_worker_silently(fast):
    event = ask(fast, 0, "end", "system exit")

    assert isinstance(event, Death) or event.error is not None
    assert ask(fast, 1, "add", 1).value == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-signal.SIGSEGV, "SIGSEGV"),
        (-signal.SIGKILL, "SIGKILL.*memory="),
        (7, "exit code 7"),
        (None, "no exit code .*; the process that had started it has ended, too"),
    ],
)
def test_the_error_for_a_death_names_what_happened(code, words):
    error = death_error(Death(0, code), "at work on positions 3 to 9")

    with pytest.raises(rs.WorkerDied, match=words):
        raise error
    assert "positions 3 to 9" in str(error)
    assert error.exitcode == code


def test_closing_lets_objects_close(tmp_path):
    path = tmp_path / "closed"
    with Pool(2) as pool:
        for worker in range(2):
            pool.create(worker, "it", gadget(), str(path))
        collect(pool, 2)
    pids = pool.pids
    pool.close()

    assert path.read_text() == "closed closed "
    assert not any(map(alive, pids))


def test_closing_ends_workers_that_are_busy(pool):
    pool.send(0, "it", "sleep", 60)
    pool.send(1, "it", "sleep", 60)
    time.sleep(0.1)
    pids = pool.pids
    pool.close(patience=0.2)

    assert wait_until(lambda: not any(map(alive, pids)), 2)


def test_closing_ends_a_worker_that_logs_without_pause(fast):
    fast.send(0, "it", "flood", "lab.flood", False)
    time.sleep(0.2)
    began = time.monotonic()
    fast.close(patience=0.3)
    took = time.monotonic() - began

    assert not any(map(alive, fast.pids))
    assert took < 5


def test_closing_at_once_ends_workers_that_still_start():
    for method in START_METHODS:
        pool = Pool(2, start_method=method)
        pids = pool.pids
        pool.close()

        assert not any(map(alive, pids))


@pytest.mark.parametrize(("method", "pools"), [("forkserver", 20), ("spawn", 5)])
def test_pools_leak_neither_descriptors_nor_processes(method, pools):
    def state():
        processes = psutil.Process().children(recursive=True)
        return descriptors(), sorted(p.pid for p in processes)

    def use(number):
        with Pool(2, start_method=method) as pool:
            pool.create(0, "it", gadget())
            collect(pool, 1)
            if number % 2:
                ask(pool, 0, "end", "exit")

    use(1)
    before, named = state(), named_memory()
    for number in range(pools):
        use(number)

    assert state() == before
    assert named_memory() == named


def test_a_worker_starts_in_the_folder_and_with_the_path_of_now(tmp_path, monkeypatch):
    (tmp_path / "made_just_now.py").write_text("VALUE = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    class Looks:
        def __init__(self, parent):
            pass

        def look(self):

            import made_just_now

            return str(Path.cwd()), made_just_now.VALUE

    with Pool(1) as pool:
        pool.create(0, "it", Looks)
        pool.send(0, "it", "look")
        events = collect(pool, 2)

    assert events[1].value == (str(tmp_path), 3)
