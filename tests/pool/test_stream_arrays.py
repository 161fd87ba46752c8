"""Arrays that pass to worker processes and back, and shared arrays."""

import numpy as np
import psutil
import pytest
from pools import LARGE, batch, descriptors

import resumable as rs

pytestmark = pytest.mark.timeout(60, method="signal")


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
    more = np.ones(LARGE if large else 1)
    results = pool.imap(lambda item: item, [(array, more)] * 3, copy=copy)
    got = [one for one, _ in results]

    for one in got:
        np.testing.assert_array_equal(one, array)
        assert (one.dtype, one.shape) == (array.dtype, array.shape)
        if array.flags.forc:
            assert one.flags.f_contiguous == array.flags.f_contiguous


def test_arrays_inside_of_anything_pass(pool):
    item = {"a": np.arange(LARGE), "b": [np.ones((LARGE, 2), order="F"), "text", None]}
    (got,) = pool.imap(lambda item: item, [item])

    np.testing.assert_array_equal(got["a"], item["a"])
    np.testing.assert_array_equal(got["b"][0], item["b"][0])
    assert got["b"][0].flags.f_contiguous
    assert got["b"][1:] == ["text", None]


def test_growing_results_pass(pool):
    sizes = [10**k for k in range(1, 8)]
    got = pool.imap(lambda size: np.arange(size), sizes)

    for size, one in zip(sizes, got, strict=True):
        assert one.size == size
        assert one[-1] == size - 1


def test_large_things_that_are_no_arrays_pass(pool):
    items = ["x" * 10**6, list(range(10**5)), b"y" * 10**6]

    assert list(pool.imap(lambda item: item, items)) == items


def test_copies_can_be_changed_and_kept(pool):
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
def test_many_kept_arrays_exhaust_no_resource(pool, ahead):
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
    parts = []
    for one in pool.imap(lambda k: np.full(LARGE, k), range(20), copy=False):
        parts.append(memoryview(one[5:500:2])[3:9])
        del one

    assert [list(part) for part in parts] == [[k] * 6 for k in range(20)]


def test_a_shared_array_is_one_memory_for_all():
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
    with pytest.raises(TypeError, match=f"not {what}"):
        rs.shared_array(wrong)


def test_a_shared_array_is_read_only_here(pool):
    original = np.arange(3)
    big = rs.shared_array(original)

    with pytest.raises(ValueError, match="read-only"):
        big[0] = 1
    assert original.flags.writeable


def test_a_shared_array_is_an_attribute_of_a_process(scan):
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
