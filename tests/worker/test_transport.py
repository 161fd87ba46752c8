"""Functions of a script that pickle alone cannot send."""

import functools
import pickle

import numpy as np

from resumable.worker.transport import pickled


def sent(thing):
    """Return what a worker gets of a thing."""
    return pickle.loads(pickled(thing))


def test_a_function_with_a_cache_that_calls_itself_is_sent_with_its_size():
    @functools.lru_cache(maxsize=7)
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    there = sent(fibonacci)

    assert there(20) == 6765
    assert there.cache_info()[2:] == (7, 7)


def test_a_function_with_implementations_by_type_is_sent_with_them():
    @functools.singledispatch
    def depth(value):
        return 0

    @depth.register
    def _(value: list):
        return depth(value[0]) + 1

    @depth.register(np.ndarray)
    def of_array(value):
        return value.ndim

    there = sent(depth)

    assert there([[np.ones((2, 2))]]) == 4
    assert there.__name__ == "depth"


def test_methods_with_a_cache_or_implementations_by_type_are_sent():
    class Tool:
        @functools.cache  # noqa: B019
        def doubled(self, value):
            return 2 * value

        @functools.singledispatchmethod
        def name(self, value):
            return "other"

        @name.register
        def _(self, value: int):
            return "int"

    there = sent(Tool)()

    assert (there.doubled(4), there.name(1), there.name("")) == (8, "int", "other")


def test_a_function_of_a_library_is_sent_by_its_name():
    import pkgutil

    assert sent(pkgutil.get_importer) is pkgutil.get_importer
    simplegeneric = pkgutil.iter_importer_modules  # one of singledispatch

    assert sent(simplegeneric) is simplegeneric
