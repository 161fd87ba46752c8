"""Calls ahead in worker processes: their order, seeds and errors."""

import gc
import os
import signal
import time

import numpy as np
import psutil
import pytest
from helpers import until
from pools import LARGE, batch

import resumable as rs
from resumable.worker.server import START_METHODS
from resumable.worker.transport import PIPE_BYTES, readable

pytestmark = pytest.mark.timeout(60, method="signal")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("size", [5, LARGE])
def test_items_do_not_depend_on_the_number_of_workers(workers, size):
    with rs.Pool(0) as here, rs.Pool(workers) as pool:
        wanted = list(here.prefetch(batch, 7, (size,), seed=3))
        got = list(pool.prefetch(batch, 7, (size,), seed=3))
        other = next(pool.prefetch(batch, 1, (size,), seed=4))

    np.testing.assert_array_equal(got, wanted)
    assert len({item.tobytes() for item in [*got, other]}) == 8


def test_a_pool_shows_its_state():
    with rs.Pool(0) as pool:
        assert repr(pool) == "<Pool: 0 workers>"
    assert repr(pool) == "<Pool: closed>"


@pytest.mark.parametrize("method", START_METHODS)
def test_both_start_methods_do_the_same(method):
    big = rs.shared_array(np.arange(LARGE))
    with rs.Pool(2, start_method=method) as pool:
        got = list(pool.imap(lambda item: item * big, [big, np.ones(LARGE), 2]))

    for one, item in zip(got, [big, 1, 2], strict=True):
        np.testing.assert_array_equal(one, item * big)


def test_items_without_a_seed_differ(pool):
    items = [*pool.prefetch(batch, 4, (5,)), *pool.prefetch(batch, 4, (5,))]

    assert len({item.tobytes() for item in items}) == 8


def test_a_seed_for_a_function_without_generator_is_an_error(pool):
    with pytest.raises(TypeError, match=r"seed=1 has no effect.*'rng'"):
        pool.prefetch(os.getpid, 3, seed=1)


def test_calls_go_to_the_workers_in_turn(pool):
    def whose():
        time.sleep(0.01 * (os.getpid() % 3))
        return os.getpid()

    assert list(pool.prefetch(whose, 10)) == pool.pids * 5


def test_prefetch_without_end_gives_as_many_as_are_wanted(pool):
    calls = pool.prefetch(os.getpid)
    for _ in range(20):
        next(calls)
    before = [pool.unanswered(worker) for worker in range(2)]
    calls._pool.wait(0.2)

    assert before <= [2, 2]
    assert len(calls._pending) == 4


def test_work_is_done_while_the_results_are_used(pool, tmp_path):
    log = tmp_path / "log"
    log.touch()

    def noted():
        with log.open("a") as file:
            file.write("x")

    calls = pool.prefetch(noted, 12)
    # At least the next one of each worker.
    for least in [*range(2, 12), 12, 12]:
        until(lambda least=least: log.stat().st_size >= least)
        next(calls)


def test_imap_keeps_the_order_of_items(pool):
    def slow_first(item):
        time.sleep(0.1 if item == 0 else 0.0)
        return item

    assert list(pool.imap(slow_first, range(9))) == list(range(9))


def test_imap_without_order_gives_what_is_ready(pool, tmp_path):
    go = tmp_path / "go"

    def slow_first(item):
        until(lambda: item > 0 or go.exists(), 20)
        return item

    results = pool.imap(slow_first, range(9), ordered=False, look_ahead=9)
    first = next(results)
    go.touch()

    assert sorted([first, *results]) == list(range(9))
    assert first != 0


@pytest.mark.parametrize(("look_ahead", "most"), [(1, 2), (3, 4), (None, 5)])
def test_items_are_taken_as_far_ahead_as_was_said(pool, look_ahead, most):
    taken = []

    def items():
        for item in range(1000):
            taken.append(item)
            yield item

    results = pool.imap(abs, items(), look_ahead=look_ahead)
    before = len(taken)
    next(results)
    after = len(taken)

    assert 1 <= before <= most - 1
    assert after <= most


def test_a_large_look_ahead_does_not_block(pool):
    items = [b"x" * (PIPE_BYTES - 1000)] * 100

    assert list(pool.imap(lambda item: item, items, look_ahead=100)) == items


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda pool: pool.imap(3, []), "function must be a function, not 3"),
        (lambda pool: pool.imap(abs, 3), "items must be an iterable, not 3"),
        (lambda pool: pool.imap(abs, [], copy="no"), "copy must be True or False"),
        (lambda pool: pool.imap(abs, [], look_ahead=1.5), "a whole number from 1"),
        (lambda pool: pool.prefetch(None), "function must be a function, not None"),
        (lambda pool: pool.prefetch(dict, "two"), "times must be a whole number"),
        (lambda pool: pool.prefetch(dict, 1, "ab"), "args must be a list or a tuple"),
        (lambda pool: pool.prefetch(dict, 1, seed="a"), "seed must be a whole number"),
        (lambda pool: rs.Operators([3], pool), "objects with methods evaluate,"),
        (lambda pool: rs.Operators([Twice()], pool.workers), "pool must be a Pool"),
        (
            lambda pool: rs.Operators([Twice()], pool, timeout="1 s"),
            "timeout must be a positive time in s, not '1 s'",
        ),
    ],
)
def test_an_argument_of_a_wrong_kind_is_an_error(workers, call, words):
    with (
        rs.Pool(workers) as pool,
        pytest.raises((rs.PlanError, rs.DeclarationError), match=words),
    ):
        call(pool)


class Twice:
    """An operator."""

    linear = True

    def evaluate(self, x):
        return 2 * x


@pytest.mark.parametrize("look_ahead", [0, -1])
def test_a_look_ahead_of_nothing_is_an_error(pool, look_ahead):
    with pytest.raises(ValueError, match=f"not {look_ahead}"):
        pool.imap(abs, [], look_ahead=look_ahead)


def test_several_iterators_share_the_workers(pool):
    first = pool.imap(lambda item: item * 2, range(20))
    second = pool.prefetch(batch, 20, (3,), seed=0)
    dropped = pool.imap(lambda item: item, range(20))
    next(dropped)
    del dropped
    pairs = list(zip(first, second, strict=True))
    with rs.Pool(0) as here:
        wanted = list(here.prefetch(batch, 20, (3,), seed=0))

    assert [one for one, _ in pairs] == list(range(0, 40, 2))
    np.testing.assert_array_equal([two for _, two in pairs], wanted)


def test_workers_forget_the_functions_that_are_done(pool):
    class Heavy:
        def __call__(self, _):
            return sum(type(one).__name__ == "Heavy" for one in gc.get_objects())

    for _ in range(5):
        counts = list(pool.imap(Heavy(), range(4)))

    assert max(counts) <= 2


def fails_at(number):
    def fail(item):
        if item == number:
            raise LookupError(f"at {item}")
        return item

    return fail


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_in_its_place_and_the_rest_follows(workers):
    with rs.Pool(workers) as pool:
        results = pool.imap(fails_at(5), range(9))
        before = [next(results) for _ in range(5)]
        with pytest.raises(LookupError, match="at 5") as caught:
            next(results)
        after = list(results)

    assert before == [0, 1, 2, 3, 4]
    assert after == [6, 7, 8]
    if workers:
        assert "in fail\n" in str(caught.value.__cause__)


def test_an_error_of_prefetch_is_raised_in_its_place(pool):
    def fail(rng):
        if rng.spawn_key == 1:
            raise LookupError
        return 1

    results = pool.prefetch(fail, 2, seed=0)
    with pytest.raises(AttributeError, match="spawn_key"):
        next(results)
    with pytest.raises(AttributeError, match="spawn_key"):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_items_comes_after_the_results_before_it(workers):
    def items():
        yield 1
        yield 2
        raise LookupError("no more")

    with rs.Pool(workers) as pool:
        results = pool.imap(abs, items())
        got = [next(results), next(results)]
        with pytest.raises(LookupError, match="no more"):
            next(results)
        rest = list(results)

    assert got == [1, 2]
    assert rest == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration()])
def test_an_exception_that_would_be_misunderstood_is_named(pool, error):
    def fail(item):
        raise error

    results = pool.imap(fail, [1])
    with pytest.raises(RuntimeError, match=type(error).__name__) as caught:
        next(results)
    assert "in fail\n" in str(caught.value.__cause__)


def test_an_item_that_cannot_be_sent_is_an_error_in_its_place(pool):
    import threading

    results = pool.imap(repr, [1, threading.Lock(), 3])
    first = next(results)
    with pytest.raises(TypeError, match=r"at item 1.*lock.*workers=0"):
        next(results)

    assert [first, *results] == ["1", "3"]


def test_a_result_that_cannot_be_sent_is_an_error_in_its_place(pool):
    def lock(item):
        import threading

        return threading.Lock() if item == 1 else item

    results = pool.imap(lock, range(3))
    first = next(results)
    with pytest.raises(TypeError, match="lock"):
        next(results)

    assert [first, *results] == [0, 2]


def test_a_function_that_a_worker_cannot_make_is_its_error(pool):
    class Broken:
        def __call__(self, item):
            return item

        def __setstate__(self, state):
            raise ImportError("no such library there")

        def __getstate__(self):
            return {"a": 1}

    results = pool.imap(Broken(), [1])
    with pytest.raises(ImportError, match="no such library"):
        next(results)


def test_a_worker_that_died_meanwhile_is_replaced():
    with rs.Pool(2) as pool:
        list(pool.imap(abs, range(4)))
        os.kill(pool.pids[0], signal.SIGKILL)
        shows = readable([pool._processes[0].connection], 5)
        got = list(pool.imap(abs, range(20)))

    assert shows
    assert got == list(range(20))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_worker_that_dies_is_an_error_and_is_replaced(ordered):
    def kill(item):
        if item == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    got, errors = [], 0
    with rs.Pool(2) as pool:
        before = pool.pids
        results = pool.imap(kill, range(30), ordered=ordered)
        while True:
            try:
                got.append(next(results))
            except rs.WorkerDied as error:
                errors += 1
                message = str(error)
            except StopIteration:
                break
        usable = list(pool.imap(abs, range(4)))
        after = pool.pids

    assert usable == [0, 1, 2, 3]
    assert 1 <= errors <= 2
    assert len(got) == 30 - errors
    assert 5 not in got
    assert "SIGKILL at item" in message
    assert len(set(before) & set(after)) == 1


def test_a_closed_pool_says_so():
    with rs.Pool(1) as pool:
        results = pool.imap(abs, range(100))
        next(results)

    with pytest.raises(RuntimeError, match="closed"):
        pool.imap(abs, [1])
    with pytest.raises(RuntimeError, match="closed"):
        list(results)


@pytest.mark.parametrize("workers", [-1, 1.5, "two"])
def test_a_wrong_number_of_workers_is_an_error(workers):
    with pytest.raises((rs.PlanError, TypeError), match=f"{workers}"):
        rs.Pool(workers)


def test_without_workers_nothing_is_started():
    taken = []
    children = psutil.Process().children(recursive=True)
    with rs.Pool(0) as pool:
        results = pool.imap(lambda item: os.getpid(), (taken.append(k) for k in "abc"))
        first = next(results)
        after_one = list(taken)
        rest = list(results)

    assert [first, *rest] == [os.getpid()] * 3
    assert after_one == ["a"]
    assert psutil.Process().children(recursive=True) == children


def test_workers_have_one_blas_thread(pool):
    """So that processes times threads do not exceed the cores."""

    def threads(item):
        import threadpoolctl

        counts = [one["num_threads"] for one in threadpoolctl.threadpool_info()]
        return counts, os.environ["OMP_NUM_THREADS"]

    (got,) = pool.imap(threads, [1])

    assert set(got[0]) <= {1}
    assert got[1] == "1"
