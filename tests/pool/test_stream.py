"""Calls ahead in worker processes: order, errors, arrays, and what is left behind."""

from __future__ import annotations

import gc
import os
import signal
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers import until
from kill_matrix import alive, wait_until

import resumable as rs
from resumable.worker import server as launch
from resumable.worker.parcel import PIPE_BYTES, readable
from resumable.worker.server import START_METHODS

pytestmark = pytest.mark.timeout(60, method="signal")

LARGE = PIPE_BYTES  # so many numbers do not fit into the pipe


@pytest.fixture(scope="module")
def shared_pool():
    """Return a pool of two workers for all tests that leave it usable."""
    with rs.Pool(2) as pool:
        yield pool


@pytest.fixture
def pool(shared_pool):
    """Return it, and check that it is usable afterwards."""
    yield shared_pool
    assert list(shared_pool.imap(abs, [-1, 2])) == [1, 2]


def batch(size, rng):
    """Return random numbers."""
    return rng.random(size)


def descriptors():
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def named_memory(*pids):
    """Return shared memory with a name that processes have mapped."""
    lines = [Path(f"/proc/{pid}/maps").read_text().splitlines() for pid in pids]
    paths = {line.split(maxsplit=5)[-1] for each in lines for line in each}
    return {path for path in paths if "/dev/shm" in path}


# Order and seeds.


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("size", [5, LARGE])
def test_items_do_not_depend_on_the_number_of_workers(workers, size):
    """With a seed, no worker, one and two give the same, and other seeds another."""
    with rs.Pool(0) as here, rs.Pool(workers) as pool:
        wanted = list(here.prefetch(batch, 7, (size,), seed=3))
        got = list(pool.prefetch(batch, 7, (size,), seed=3))
        other = next(pool.prefetch(batch, 1, (size,), seed=4))

    np.testing.assert_array_equal(got, wanted)
    assert len({item.tobytes() for item in [*got, other]}) == 8


def test_a_pool_shows_its_state():
    """Typed into a notebook it says how many workers there are."""
    with rs.Pool(0) as pool:
        assert repr(pool) == "<Pool: 0 workers>"
    assert repr(pool) == "<Pool: closed>"


@pytest.mark.parametrize("method", START_METHODS)
def test_both_start_methods_do_the_same(method):
    """Items, shared arrays and results pass to fresh interpreters, too."""
    big = rs.shared_array(np.arange(LARGE))
    with rs.Pool(2, start_method=method) as pool:
        got = list(pool.imap(lambda item: item * big, [big, np.ones(LARGE), 2]))

    for one, item in zip(got, [big, 1, 2], strict=True):
        np.testing.assert_array_equal(one, item * big)


def test_items_without_a_seed_differ(pool):
    """From each other, and from one prefetch to the next."""
    items = [*pool.prefetch(batch, 4, (5,)), *pool.prefetch(batch, 4, (5,))]

    assert len({item.tobytes() for item in items}) == 8


def test_a_seed_for_a_function_without_generator_is_an_error(pool):
    """A seed that changes nothing is not accepted silently."""
    with pytest.raises(TypeError, match=r"seed=1 has no effect.*'rng'"):
        pool.prefetch(os.getpid, 3, seed=1)


def test_calls_go_to_the_workers_in_turn(pool):
    """Results come in the order of the calls, which alternate between workers."""

    def whose():
        time.sleep(0.01 * (os.getpid() % 3))
        return os.getpid()

    pids = list(pool.prefetch(whose, 10))

    assert pids == pool.pids * 5


def test_prefetch_without_end_gives_as_many_as_are_wanted(pool):
    """It works ahead by two calls per worker and no more."""
    calls = pool.prefetch(os.getpid)
    for _ in range(20):
        next(calls)
    before = [pool.load(worker) for worker in range(2)]
    calls._pool.wait(0.2)

    assert before <= [2, 2]
    assert len(calls._waiting) == 4


def test_work_is_done_while_the_results_are_used(pool, tmp_path):
    """The next items are computed before the consumer comes back for them."""
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
    """Items of different duration come in their order."""

    def slow_first(item):
        time.sleep(0.1 if item == 0 else 0.0)
        return item

    assert list(pool.imap(slow_first, range(9))) == list(range(9))


def test_imap_without_order_gives_what_is_ready(pool, tmp_path):
    """A slow item does not keep the others waiting."""
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
    """The iterable is not read through."""
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
    """Messages that fill the pipe both ways keep nobody waiting for ever."""
    items = [b"x" * (PIPE_BYTES - 1000)] * 100

    assert list(pool.imap(lambda item: item, items, look_ahead=100)) == items


@pytest.mark.parametrize("look_ahead", [0, -1])
def test_a_look_ahead_of_nothing_is_an_error(pool, look_ahead):
    """At least one item is under way."""
    with pytest.raises(ValueError, match=f"not {look_ahead}"):
        pool.imap(abs, [], look_ahead=look_ahead)


def test_several_iterators_share_the_workers(pool):
    """Their results are not mixed up, and one that is dropped harms nobody."""
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
    """What a dropped iterator has brought to a worker goes with it."""

    class Heavy:
        def __call__(self, _):
            return sum(type(one).__name__ == "Heavy" for one in gc.get_objects())

    for _ in range(5):
        counts = list(pool.imap(Heavy(), range(4)))

    assert max(counts) <= 2


# Arrays.

ARRAYS = [
    np.arange(12.0).reshape(3, 4),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(6, dtype="c8").reshape(2, 3) * 1j,
    np.array([True, False, True]),
    np.arange(5, dtype="f2"),
    np.array([2**64 - 1], "u8"),
    np.arange(3, dtype=">i4"),
    np.array([(1, 2.5, b"ab")], [("a", "i4"), ("b", "f8"), ("c", "S3")]),
    np.array(["a", "bcd"]),
    np.array([np.datetime64("2020-01-01"), np.datetime64("NaT", "D")]),
    np.array(3.5),
    np.zeros((0, 3)),
    np.zeros((2, 0), order="F"),
    np.arange(20.0)[::3],
    np.array([[1, "x"], [None, 2.5]], object),
]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}-{a.shape}")
def test_any_array_passes_both_ways(pool, array, copy, large):
    """Values, dtype, shape and order, in the pipe and in shared memory."""
    more = np.ones(LARGE if large else 1)
    results = pool.imap(lambda item: item, [(array, more)] * 3, copy=copy)
    got = [one for one, _ in results]

    for one in got:
        np.testing.assert_array_equal(one, array)
        assert (one.dtype, one.shape) == (array.dtype, array.shape)
        if array.flags.forc:
            assert one.flags.f_contiguous == array.flags.f_contiguous


def test_arrays_inside_of_anything_pass(pool):
    """In dicts and objects, several in one message, and beside other values."""
    item = {"a": np.arange(LARGE), "b": [np.ones((LARGE, 2), order="F"), "text", None]}
    (got,) = pool.imap(lambda item: item, [item])

    np.testing.assert_array_equal(got["a"], item["a"])
    np.testing.assert_array_equal(got["b"][0], item["b"][0])
    assert got["b"][0].flags.f_contiguous
    assert got["b"][1:] == ["text", None]


def test_growing_results_pass(pool):
    """Each is larger than the memory that was there."""
    sizes = [10**k for k in range(1, 8)]
    got = pool.imap(lambda size: np.arange(size), sizes)

    for size, one in zip(sizes, got, strict=True):
        assert one.size == size
        assert one[-1] == size - 1


def test_large_things_that_are_no_arrays_pass(pool):
    """Texts and lists of any length, too."""
    items = ["x" * 10**6, list(range(10**5)), b"y" * 10**6]

    assert list(pool.imap(lambda item: item, items)) == items


def test_copies_can_be_changed_and_kept(pool):
    """Nothing that comes later is written into them."""
    for calls in (
        pool.imap(lambda value: np.full(LARGE, value), range(40)),
        pool.prefetch(lambda rng: np.full(LARGE, rng.integers(1000)), 40, seed=0),
    ):
        kept = list(calls)
        values = [one[0] for one in kept]
        for one in kept:
            one += 1

        assert all(
            (one == value + 1).all() for one, value in zip(kept, values, strict=True)
        )


def test_the_function_may_change_and_keep_its_item(pool):
    """With copies it is the function's own."""

    class Keeps:
        def __init__(self):
            self.kept = []

        def __call__(self, item):
            self.kept.append(item)
            item += 1
            return [one[0] for one in self.kept]

    got = list(pool.imap(Keeps(), [np.full(LARGE, 10 * k) for k in range(30)]))
    wanted = [[10 * k + 1 for k in range(n % 2, n + 1, 2)] for n in range(30)]

    assert sorted(map(sorted, got)) == sorted(map(sorted, wanted)) or all(
        value % 10 == 1 for row in got for value in row
    )


@pytest.mark.parametrize("size", [5, LARGE])
def test_views_are_read_only_on_both_sides(pool, size):
    """Whatever their size: an item in the function, a result here."""
    got = list(
        pool.imap(
            lambda item: (item.flags.writeable, item * 2),
            [np.ones(size)] * 3,
            copy=False,
        )
    )

    assert [writable for writable, _ in got] == [False] * 3
    assert not any(one.flags.writeable for _, one in got)


def test_a_view_that_is_kept_is_never_written_to(pool):
    """Neither here nor in a worker, however many follow."""

    class Keeps:
        def __init__(self):
            self.kept = []

        def __call__(self, item):
            self.kept.append((item, item[0]))
            return all((one == value).all() for one, value in self.kept), item * 2

    items = (np.full(LARGE, k) for k in range(30))
    kept = list(pool.imap(Keeps(), items, copy=False))

    assert all(right for right, _ in kept)
    assert [one[0] for _, one in kept] == [2 * k for k in range(30)]
    assert all((one == one[0]).all() for _, one in kept)


@pytest.mark.parametrize("ahead", ["views", "prefetch"])
def test_whoever_keeps_many_runs_out_of_nothing(pool, ahead):
    """Descriptors stay few, and all arrays what they were."""
    before = descriptors()
    if ahead == "views":
        items = range(200)
        kept = list(pool.imap(lambda k: np.full(LARGE, k), items, copy=False))
    else:
        kept = list(pool.prefetch(batch, 200, (LARGE,), seed=0))
    used = descriptors() - before

    assert used < 100
    assert {one.flags.writeable for one in kept} == {ahead == "prefetch"}
    assert len({one[0] for one in kept}) == 200
    assert all((one == one[0]).all() for one in kept if ahead == "views")


def test_part_of_a_view_keeps_it(pool):
    """A slice of a slice is as safe as the whole."""
    parts = []
    for one in pool.imap(lambda k: np.full(LARGE, k), range(20), copy=False):
        parts.append(memoryview(one[5:500:2])[3:9])
        del one

    assert [list(part) for part in parts] == [[k] * 6 for k in range(20)]


# Shared arrays.


def test_a_shared_array_is_one_memory_for_all():
    """Workers read it without memory of their own, and cannot write."""
    with rs.Pool(2) as pool:
        array = np.ones((50, 2**17))  # 50 MB
        big = rs.shared_array(array)

        def use(item):
            total = item.sum()
            private = psutil.Process().memory_full_info().uss
            try:
                item.flags.writeable = True
            except ValueError:
                return total, private
            return None

        list(pool.imap(use, [big[:1]] * 4))
        part = list(pool.imap(use, [big[:1]] * 4))
        before = [private for _, private in part]
        got = list(pool.imap(use, [big] * 8))

    assert [total for total, _ in part] == [2**17] * 4
    assert [total for total, _ in got] == [array.sum()] * 8
    assert max(private for _, private in got) < min(before) + 10e6


@pytest.mark.parametrize("array", ARRAYS[:-1], ids=lambda a: f"{a.dtype}-{a.shape}")
def test_any_array_can_be_shared(pool, array):
    """Values, dtype, shape and order; also after the name here is gone."""
    big = rs.shared_array(array)
    here = big.copy(order="K")
    results = pool.prefetch(lambda array: array, 3, (big,))
    del big
    got = list(results)

    for one in [here, *got]:
        np.testing.assert_array_equal(one, array)
        assert (one.dtype, one.shape) == (array.dtype, array.shape)
    assert here.flags.f_contiguous == array.flags.f_contiguous or array.ndim < 2


@pytest.mark.parametrize(
    ("wrong", "what"),
    [(np.array([None]), "objects"), (np.ma.zeros(3), "a masked array")],
)
def test_what_cannot_be_shared_is_named(wrong, what):
    """Objects and masks would be lost."""
    with pytest.raises(TypeError, match=f"not {what}"):
        rs.shared_array(wrong)


def test_a_shared_array_is_read_only_here(pool):
    """Nobody changes what workers read, and the original is left alone."""
    original = np.arange(3)
    big = rs.shared_array(original)

    with pytest.raises(ValueError, match="read-only"):
        big[0] = 1
    assert original.flags.writeable


def test_a_shared_array_is_an_attribute_of_a_process(scan):
    """The local engine passes it on as the pool does; the results are the same."""

    class Weighted(rs.Process):
        version = 1
        outputs = {"sum": rs.Output(), "writable": rs.Output(dtype="i1")}  # noqa: RUF012

        def unit_computation(self, spectrum):
            value = (self.weights * spectrum).sum()
            return {"sum": value, "writable": self.weights.flags.writeable}

    weighted = Weighted(scan)
    weighted.weights = rs.shared_array(np.arange(32.0))
    results = weighted.compute(engine="local", workers=2)
    first = results["sum"][...]
    again = weighted.compute(engine="serial", override=True)

    np.testing.assert_array_equal(first, again["sum"][...])
    assert not results["writable"][...].any()


# Errors.


def fails_at(number):
    """Return a function that fails at one item."""

    def fail(item):
        if item == number:
            raise LookupError(f"at {item}")
        return item

    return fail


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_in_its_place_and_the_rest_follows(workers):
    """Type and message are the worker's, the traceback is the cause."""
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
    """The generator tells which call it is."""

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
    """It is raised in its place."""

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
    """Neither the worker nor the loop ends by it."""

    def fail(item):
        raise error

    results = pool.imap(fail, [1])
    with pytest.raises(RuntimeError, match=type(error).__name__) as caught:
        next(results)
    assert "in fail\n" in str(caught.value.__cause__)


def test_an_item_that_cannot_be_sent_is_an_error_in_its_place(pool):
    """The message says what to do."""
    import threading

    results = pool.imap(repr, [1, threading.Lock(), 3])
    first = next(results)
    with pytest.raises(TypeError, match=r"at item 1.*lock.*workers=0"):
        next(results)

    assert [first, *results] == ["1", "3"]


def test_a_result_that_cannot_be_sent_is_an_error_in_its_place(pool):
    """The worker lives on."""

    def lock(item):
        import threading

        return threading.Lock() if item == 1 else item

    results = pool.imap(lock, range(3))
    first = next(results)
    with pytest.raises(TypeError, match="lock"):
        next(results)

    assert [first, *results] == [0, 2]


def test_a_function_that_a_worker_cannot_make_is_its_error(pool):
    """What went wrong there is told, not what follows from it."""

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
    """Nobody notices."""
    with rs.Pool(2) as pool:
        list(pool.imap(abs, range(4)))
        os.kill(pool.pids[0], signal.SIGKILL)
        shows = readable([pool._seats[0].child.connection], 5)
        got = list(pool.imap(abs, range(20)))

    assert shows
    assert got == list(range(20))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_worker_that_dies_is_an_error_and_is_replaced(ordered):
    """The items it held raise WorkerDied, all others come."""

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
    """What is under way then ends with an error, too."""
    with rs.Pool(1) as pool:
        results = pool.imap(abs, range(100))
        next(results)

    with pytest.raises(RuntimeError, match="closed"):
        pool.imap(abs, [1])
    with pytest.raises(RuntimeError, match="closed"):
        list(results)


@pytest.mark.parametrize("workers", [-1, 1.5, "two"])
def test_a_wrong_number_of_workers_is_an_error(workers):
    """Before any process is started."""
    with pytest.raises((rs.PlanError, TypeError), match=f"{workers}"):
        rs.Pool(workers)


def test_without_workers_nothing_is_started():
    """Everything happens in this process, lazily."""
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


# The end.


def test_a_thousand_items_leave_nothing_behind(pool):
    """Descriptors, processes and memory are as before; nothing had a name."""
    process = psutil.Process()
    for _ in pool.prefetch(batch, 50, (12_500,), seed=0):
        pass
    before = descriptors(), sorted(p.pid for p in process.children(recursive=True))
    named = named_memory(os.getpid())
    memory = process.memory_info().rss
    numbers = [one.size for one in pool.prefetch(batch, 1000, (12_500,), seed=0)]
    after = descriptors(), sorted(p.pid for p in process.children(recursive=True))
    grown = process.memory_info().rss - memory

    assert numbers == [12_500] * 1000
    # Whoever is quicker may need one more piece of memory in turn.
    assert abs(after[0] - before[0]) <= 4
    assert after[1] == before[1]
    assert grown < 5e6
    assert named_memory(os.getpid()) == named
    assert named_memory(*pool.pids) == set()


@pytest.mark.parametrize("method", START_METHODS)
def test_a_pool_that_is_dropped_ends_its_workers(method):
    """Also while they work, with no descriptor left."""
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
    """As the garbage collector does: nothing waits for itself."""
    pool = rs.Pool(1)
    (pid,) = pool.pids
    server = launch._Server.get("forkserver")
    with server._talk:
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
    """Quietly and at once, whatever the workers are at."""
    process = script(textwrap.dedent(UNCLOSED).format(rest=""))
    pids = list(map(int, process.stdout.readline().split()))
    _, errors = process.communicate(timeout=10)

    assert (process.returncode, errors) == (0, "")
    assert wait_until(lambda: not any(map(alive, pids)), 2)


def test_nothing_is_left_of_a_killed_process(script, tmp_path):
    """Workers go, and with them all memory; no file was ever named."""
    process = script(textwrap.dedent(UNCLOSED).format(rest="time.sleep(60)"))
    pids = list(map(int, process.stdout.readline().split()))
    named = named_memory(process.pid, *pids)
    process.kill()

    assert wait_until(lambda: not any(map(alive, pids)), 2)
    assert named == set()
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


def test_a_copy_of_the_process_leaves_the_workers_alone():
    """One made by os.fork ends without ending the pool."""
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

    os.setpgrp()
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
    """Whatever it interrupts, what follows comes, whole and in order."""
    process = script(SHAKEN)
    output, errors = process.communicate(timeout=30)

    assert output == "True True True\n", output + errors


def test_ctrl_c_loses_no_item(script):
    """The next call after KeyboardInterrupt gives the item that is next."""
    process = script(INTERRUPTED)
    output, errors = process.communicate(timeout=40)

    assert output.startswith("True True"), output + errors
