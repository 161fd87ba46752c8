"""A worker has the code of the driver: the same passes, another stops it."""

import collections
import concurrent.futures as cf
import dataclasses
import enum
import functools
import pickle
import re
from typing import NamedTuple

import attrs
import cloudpickle
import numba
import numpy as np
import param
import pydantic
import pytest

import resumable as rs

pytestmark = [pytest.mark.timeout(60, method="signal")]

FACTOR = 1.0
VALUE = {"value": rs.Output()}


def process(unit, **members):
    """Return a class that is sent by value, as one of a script."""
    return type(
        "Sent", (rs.Process,), {"outputs": VALUE, "unit_computation": unit, **members}
    )


def files(folder):
    return sorted(path.name for path in folder.glob("scan-*.h5"))


def dataclass_and_others():
    @dataclasses.dataclass(order=True)
    class Plain:
        a: int = 1
        b: list = dataclasses.field(default_factory=list)

    @dataclasses.dataclass(frozen=True, slots=True)
    class Frozen:
        a: int = 2

    @attrs.define
    class Attrs:
        a: int = 3

    class Model(pydantic.BaseModel):
        a: int = 4

    class Row(NamedTuple):
        a: int = 5

    class Given(param.Parameterized):
        a = param.Integer(6)

    class Kind(enum.Enum):
        a = 7

    plain = collections.namedtuple("plain", "a b")
    return [Plain(), Frozen(), Attrs(), Model(), Row(), Given(), Kind.a, plain(8, 9)]


def read_from_a_closure():
    objects = dataclass_and_others()

    def unit(self, spectrum):
        return sum(getattr(one.a, "value", one.a) for one in objects)

    return process(unit), {}


def given_as_parameter():
    def unit(self, spectrum):
        return sum(getattr(one.a, "value", one.a) for one in self.objects)

    cls = process(unit, objects=param.Parameter(None))
    return cls, {"objects": dataclass_and_others()}


def cached_functions():
    @functools.lru_cache(maxsize=9)
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    def unit(self, spectrum):
        return fibonacci(10)

    return process(unit), {}


def wrapped_and_compiled():
    def twice(function):
        @functools.wraps(function)
        def inner(x):
            return 2 * function(x)

        return inner

    @twice
    def wrapped(x):
        return x + 1

    @numba.njit
    def compiled(x):
        return x + 1.0

    pattern, letters, dtype = re.compile("a+"), {"b", "a", "c"}, np.dtype("f4,i2")

    def unit(self, spectrum):
        found = len(letters) + bool(pattern.match("aa")) + dtype.itemsize
        return wrapped(1) + compiled(1.0) + found

    return process(unit), {}


def bound_to_itself():
    def __init__(self, *given, **more):
        rs.Process.__init__(self, *given, **more)
        self.chosen = self.doubled

    def unit(self, spectrum):
        return self.chosen(spectrum[0])

    def doubled(self, x):
        return 2 * x

    return process(unit, __init__=__init__, doubled=doubled), {}


@pytest.mark.parametrize(
    "make",
    [
        read_from_a_closure,
        given_as_parameter,
        cached_functions,
        wrapped_and_compiled,
        bound_to_itself,
    ],
)
def test_code_that_is_sent_by_value_is_the_same_in_a_worker(make, scan, tmp_path):
    (cls, given), (again, given_again) = make(), make()
    computed = cls(scan, **given).compute(engine="local", workers=1, progress=False)
    found = again(scan, **given_again).compute(engine="serial", progress=False)

    assert computed.status.done == 60
    np.testing.assert_array_equal(found["value"][...], computed["value"][...])
    assert len(files(tmp_path)) == 1


def test_threads_compute_with_the_class_itself(scan, tmp_path, monkeypatch):
    """cloudpickle would put methods into it that keep the globals of the first run."""

    def unit(self, spectrum):
        return FACTOR

    cls = process(unit)
    with cf.ThreadPoolExecutor(2) as threads:
        cls(scan).compute(engine=threads, progress=False)
        cls(scan).compute(engine=threads, progress=False)
        once = files(tmp_path)
        monkeypatch.setitem(globals(), "FACTOR", 3.0)
        second = cls(scan).compute(engine=threads, progress=False)

    assert cls.unit_computation is unit
    assert len(once) == 1
    assert set(second["value"][...]) == {3.0}


def test_a_class_that_was_sent_has_the_identity_it_has_here(scan, tmp_path):
    def unit(self, spectrum):
        return spectrum.mean() * FACTOR

    cls = process(unit)
    cls(scan).compute(engine="serial", progress=False)
    sent = pickle.loads(cloudpickle.dumps(cls))
    sent(scan).compute(engine="serial", progress=False)

    assert len(files(tmp_path)) == 1
