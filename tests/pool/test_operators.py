"""Operators in workers: equal to a loop, honest when something goes wrong."""

import functools
import gc
import operator
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from kill_matrix import alive, wait_until

import resumable as rs
from resumable.worker.transport import PIPE_BYTES

pytestmark = pytest.mark.timeout(60, method="signal")

SMALL, LARGE = 7, PIPE_BYTES


def kinds():
    """Return classes that travel by value, so that no worker imports pytest."""

    class Square:
        """Nonlinear, and keeps its argument, as most do."""

        def __init__(self, factor):
            self.factor = factor

        def evaluate(self, x):
            return self.factor * x**2

        def linearize(self, x):
            self.x = x
            return self.evaluate(x)

        def derivative(self, h):
            return 2 * self.factor * self.x * h

        def adjoint(self, y):
            return 2 * self.factor * self.x * y

    class Scale:
        """Linear: needs no linearisation."""

        linear = True

        def __init__(self, factor):
            self.factor = factor

        def evaluate(self, x):
            return self.factor * x

        linearize = derivative = adjoint = evaluate

    class Parts:
        """Takes a list of parts, and is linear in each."""

        linear = True

        def __init__(self, factor):
            self.factor = factor

        def evaluate(self, parts):
            return [self.factor * k * part for k, part in enumerate(parts, 1)]

        linearize = derivative = adjoint = evaluate

    class Act:
        def __init__(self, number):
            self.number = number

        def evaluate(self, x):
            return x(self.number)

        linearize = derivative = adjoint = evaluate

    return Square, Scale, Parts, Act


Square, Scale, Parts, Act = kinds()
FACTORS = [0.1, -1 / 3, 7.7, 1e-3, 2.5]


@pytest.fixture(scope="module")
def shared_pools():
    with rs.Pool(0) as none, rs.Pool(1) as one, rs.Pool(2) as two:
        yield [none, one, two]


@pytest.fixture(params=[0, 1, 2])
def pool(request, shared_pools):
    return shared_pools[request.param]


@pytest.fixture
def two(shared_pools):
    return shared_pools[2]


def vectors(size, count, seed=0):
    return list(np.random.default_rng(seed).normal(size=(count, size)))


def total(values):
    return functools.reduce(operator.add, values)


def check_equal(got, wanted):
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_all_methods_equal_a_loop(pool, size):
    """To the last bit, with more operators than workers, again and again."""
    T = rs.Operators([Square(factor) for factor in FACTORS], pool)
    loop = [Square(factor) for factor in FACTORS]
    for x, h, *y in [vectors(size, 7, seed) for seed in range(4)]:
        check_equal(T.evaluate(x), [one.evaluate(x) for one in loop])
        check_equal(T.linearize(x), [one.linearize(x) for one in loop])
        check_equal(T.derivative(h), [one.derivative(h) for one in loop])
        wanted = [one.adjoint(part) for one, part in zip(loop, y, strict=True)]
        check_equal([T.adjoint(y)], [total(wanted)])
        check_equal(T.adjoint.each(y), wanted)


def test_the_adjoint_is_the_adjoint(two):
    T = rs.Operators([Square(factor) for factor in FACTORS], two)
    x, h, *y = vectors(50, 7)
    T.linearize(x)
    left = sum(np.dot(a, b) for a, b in zip(T.derivative(h), y, strict=True))
    right = np.dot(h, T.adjoint(y))

    assert left == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_each_operator_may_have_its_own_argument(pool, size):
    T = rs.Operators([Square(factor) for factor in FACTORS], pool)
    loop = [Square(factor) for factor in FACTORS]
    xs, hs = vectors(size, 5), vectors(size, 5, 1)

    def one_each(method, values):
        pairs = zip(loop, values, strict=True)
        return [getattr(one, method)(value) for one, value in pairs]

    check_equal(T.evaluate.each(xs), one_each("evaluate", xs))
    check_equal(T.linearize.each(xs), one_each("linearize", xs))
    check_equal(T.derivative.each(hs), one_each("derivative", hs))


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("seed", range(4))
def test_parts_are_distributed_by_a_matrix(pool, size, seed):
    """Rows with no part, one and several; the adjoint adds back."""
    select = np.random.default_rng(seed).random((5, 4)) < 0.4
    select[seed % 5], select[:, seed % 4] = False, False
    select[(seed + 1) % 5] = [part == (seed + 1) % 4 for part in range(4)]
    T = rs.Operators([Parts(factor) for factor in FACTORS], pool)
    loop = [Parts(factor) for factor in FACTORS]
    x = vectors(size, 4)

    given = [[x[j] for j in np.flatnonzero(row)] for row in select]
    wanted = [one.evaluate(g) for one, g in zip(loop, given, strict=True)]
    back = [one.adjoint(g) for one, g in zip(loop, wanted, strict=True)]
    sums = [[] for _ in range(4)]
    for row, values in zip(select, back, strict=True):
        for j, value in zip(np.flatnonzero(row), values, strict=True):
            sums[j].append(value)
    got = T.evaluate(x, select=select)

    for one, other in zip(got, wanted, strict=True):
        check_equal(one, other)
    check_equal(T.adjoint(got, select=select), [total(s) if s else 0.0 for s in sums])
    for one, other in zip(T.linearize(x, select=select), wanted, strict=True):
        check_equal(one, other)


def test_arguments_are_read_only_and_results_are_ones_own(pool):
    """Of all sizes, so that one operator cannot change what another one gets."""

    class Tries:
        def evaluate(self, x):
            try:
                x[0] = 99
            except ValueError as error:
                return str(error), np.ones(x.size)
            return "written", x

    T = rs.Operators([Tries(), Tries()], pool)
    for size in (SMALL, LARGE):
        x = np.zeros(size)
        got = T.evaluate(x)
        for text, value in got:
            value += 1
            assert "read-only" in text
        assert not x.any()


def test_results_that_are_kept_stay(two):
    T = rs.Operators([Scale(2.0), Scale(3.0)], two)
    kept = [T.evaluate(np.full(LARGE, float(k))) for k in range(30)]

    assert all((one == 2 * k).all() for k, (one, _) in enumerate(kept))
    assert all((one == 3 * k).all() for k, (_, one) in enumerate(kept))


def test_an_operator_may_keep_all_its_arguments(two):
    class Keeps:
        def __init__(self):
            self.kept = []

        def evaluate(self, x):
            self.kept.append((x, x[0]))
            return all((one == value).all() for one, value in self.kept)

    T = rs.Operators([Keeps(), Keeps(), Keeps()], two)

    assert all(all(T.evaluate(np.full(LARGE, k))) for k in range(30))


def test_large_operators_are_shipped_once(two):
    shipped = []

    class Table(Scale):
        def __reduce__(self):
            shipped.append(self)
            return Scale, (self.factor,)

    table = rs.shared_array(np.ones(10**6))
    operators = [Table(table), Table(table), Table(np.ones(10**6))]
    T = rs.Operators(operators, two)
    got = [T.evaluate(2.0) for _ in range(3)]

    assert shipped == operators
    assert [one.sum() for one in got[2]] == [2e6] * 3


def test_operators_side_by_side(two):
    first = rs.Operators([Scale(2.0), Scale(3.0)], two)
    second = rs.Operators([Scale(5.0)], two)
    for item in two.imap(abs, range(-20, 0)):
        assert first.evaluate(item) == [2.0 * item, 3.0 * item]
        assert second.evaluate(item) == [5.0 * item]


def test_a_stale_linearisation_raises(pool):
    T = rs.Operators([Square(1.0), Scale(2.0)], pool)
    stale = pytest.raises(rs.StaleLinearization, match="linearize was not called")
    x = np.ones(3)
    with stale:
        T.derivative(x)
    T.linearize(x)
    T.derivative(x)
    T.evaluate(2 * x)
    with stale:
        T.derivative(x)
    with stale:
        T.adjoint([x, x])
    T.linearize(x)
    with pytest.raises(TypeError):
        T.linearize("no number")
    with stale:
        T.adjoint([x, x])


def test_linear_operators_need_no_linearisation(pool):
    assert rs.Operators([Scale(1.0), Scale(2.0)], pool).adjoint([3.0, 4.0]) == 11.0


def test_missing_methods_are_named_at_the_call(pool):
    class Only:
        def evaluate(self, x):
            return x

    T = rs.Operators([Scale(1.0), Only()], pool)

    assert T.evaluate(1.0) == [1.0, 1.0]
    with pytest.raises(TypeError, match=r"'adjoint': 1 \(Only\)"):
        T.adjoint([1.0, 1.0])


@pytest.mark.parametrize(
    ("select", "got"),
    [
        (np.ones((2, 3), int), "int64"),
        (np.ones((3, 2), bool), r"\(3, 2\)"),
        (np.ones(2, bool), r"\(2,\)"),
    ],
)
def test_a_wrong_matrix_is_an_error(two, select, got):
    T = rs.Operators([Parts(1.0), Parts(2.0)], two)
    with pytest.raises(ValueError, match=rf"shape \(2, 3\).*{got}"):
        T.evaluate([1.0, 2.0, 3.0], select=select)


def test_wrong_numbers_of_arguments_are_errors(pool):
    T = rs.Operators([Scale(1.0), Scale(2.0)], pool)
    with pytest.raises(ValueError, match="each of 2 operators, and got 3"):
        T.evaluate.each([1, 2, 3])
    with pytest.raises(ValueError, match="each of 2 operators, and got 1"):
        T.adjoint([1])
    T = rs.Operators([Parts(1.0), Parts(2.0)], pool)
    with pytest.raises(ValueError, match="returned 3 parts, and select gives it 2"):
        T.adjoint([[1, 2, 3]] * 2, select=np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="empty"):
        rs.Operators([], pool)


def test_an_operator_that_cannot_be_sent_is_named(two):
    import threading

    with pytest.raises(TypeError, match=r"for operator 1 .*lock.*workers=0"):
        rs.Operators([Scale(1.0), Scale(threading.Lock())], two)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ValueError("bad"), ValueError, "bad"),
        (TypeError("bad"), TypeError, "bad"),
        (StopIteration(), RuntimeError, "StopIteration"),
        (KeyboardInterrupt(), RuntimeError, "KeyboardInterrupt"),
        (SystemExit(3), RuntimeError, "SystemExit: 3"),
    ],
)
def test_errors_keep_type_and_traceback(two, error, kind, text):
    T = rs.Operators([Act(number) for number in range(5)], two)

    def act(number):
        if number >= 2:
            raise error
        return number

    with pytest.raises(kind, match=text) as caught:
        T.evaluate(act)

    assert type(caught.value) is kind
    assert "in act\n" in str(caught.value.__cause__)
    assert caught.value.__notes__ == ["in evaluate of operator 2"]
    assert T.evaluate(abs) == [0, 1, 2, 3, 4]


def test_an_error_that_cannot_travel_is_named(two):
    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    def act(number):
        raise Odd("one", "two")

    with pytest.raises(RuntimeError, match="Odd: one and two") as caught:
        rs.Operators([Act(0)], two).evaluate(act)
    assert "in act\n" in str(caught.value.__cause__)


@pytest.mark.parametrize("when", ["at work", "between"])
def test_a_worker_that_dies_ends_its_operators(when):
    class Fragile(Scale):
        def derivative(self, h):
            if h == "die" and self.factor == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return h

    Fragile.linear = False
    with rs.Pool(2) as pool:
        T = rs.Operators([Fragile(float(k)) for k in range(4)], pool)
        T.linearize(1.0)
        if when == "between":
            os.kill(pool.pids[1], signal.SIGKILL)
            with pytest.raises(rs.WorkerDied, match=r"operators 1, 3|SIGKILL"):
                T.derivative(1.0)
        else:
            with pytest.raises(rs.WorkerDied, match="SIGKILL in derivative"):
                T.derivative("die")
        for method in (T.derivative, T.evaluate, T.linearize):
            with pytest.raises(rs.WorkerDied, match=r"operators 1, 3 .*new Operators"):
                method(1.0)
        again = rs.Operators([Scale(2.0), Scale(3.0)], pool)
        values = again.evaluate(1.0)
        with pytest.raises(rs.WorkerDied):
            T.evaluate(1.0)
        pids = pool.pids

    assert values == [2.0, 3.0]
    assert not any(map(alive, pids))


def test_a_call_that_takes_too_long_ends_its_worker(monkeypatch):
    def act(number):
        if number == 1:
            time.sleep(60)
        return number

    with rs.Pool(2) as pool:
        T = rs.Operators([Act(number) for number in range(3)], pool, timeout=30)
        pids = pool.pids
        began = time.monotonic()
        # It stands while the other worker has not answered.
        clock = SimpleNamespace(
            monotonic=lambda: began if pool.unanswered(0) else time.monotonic()
        )
        monkeypatch.setattr("resumable.worker.processes.time", clock)
        with pytest.raises(TimeoutError, match=r"in evaluate after 0\.5 s"):
            T.evaluate(act, timeout=0.5)
        took = time.monotonic() - began
        states = [alive(pid) for pid in pids]
        with pytest.raises(rs.WorkerDied, match="operators 1 "):
            T.evaluate(abs)

    assert 0.5 <= took < 5
    assert states == [True, False]


KILLED = """
    import sys, time
    import resumable as rs

    class Busy:
        def evaluate(self, x):
            while x:
                pass
            return x

    pool = rs.Pool(2)
    T = rs.Operators([Busy(), Busy(), Busy()], pool)
    print(*pool.pids, flush=True)
    T.evaluate.each([1, 0, 1])
"""


def test_nothing_survives_the_parent(script):
    process = script(KILLED)
    pids = list(map(int, process.stdout.readline().split()))
    pids += [child.pid for child in psutil.Process(process.pid).children(True)]
    were_alive = all(map(alive, pids))
    time.sleep(0.2)
    process.kill()

    assert were_alive
    assert wait_until(lambda: not any(map(alive, pids)), 2)


def test_operators_that_are_dropped_leave_their_workers(two):
    class Counted:
        def evaluate(self, x):
            return sum(type(one).__name__ == "Counted" for one in gc.get_objects())

    for _ in range(4):
        T = rs.Operators([Counted(), Counted(), Counted()], two)
        counts = T.evaluate(1)
        del T

    assert counts == [2, 1, 2]
