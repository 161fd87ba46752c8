"""A worker has the code of the driver: the same passes, another stops it."""

import collections
import concurrent.futures as cf
import contextlib
import dataclasses
import enum
import functools
import importlib
import multiprocessing
import pickle
import re
import sys
import threading
from typing import NamedTuple

import attrs
import cloudpickle
import h5py
import numba
import numpy as np
import param
import psutil
import pydantic
import pytest
from helpers import until

import resumable as rs
from resumable.engines.local import LocalEngine
from resumable.pool.pool import Pool
from resumable.worker.server import WorkerServer

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


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_that_is_older_than_a_module_does_not_compute(edited):
    edited = edited(None)
    with cf.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as older:
        older.submit(abs, 1).result()
        edited.file.write_text(HELPERS.replace("return 10.0", "return 20.00"))
        importlib.reload(edited.helpers)

        with pytest.raises(rs.DeclarationError, match=r"helper .*is another one where"):
            edited.computation().compute(engine=older, progress=False)


def test_a_table_that_a_helper_fills_in_the_driver_stops_no_worker(edited):
    """As in the trial, by which it is decided where to compute."""
    edited = edited(None)
    text = HELPERS.replace("return 10.0", "return kept({}, TABLE)")
    edited.file.write_text(
        f"TABLE = {{}}\n{text.replace('{}', '1')}\n\n"
        "def kept(key, table):\n    return table.setdefault(key, 10.0)\n"
    )
    importlib.reload(edited.helpers)
    process = edited.computation()
    check = process._request().check
    process.unit_computation(np.zeros(4))
    assert edited.helpers.TABLE
    with Pool(1) as pool:
        assert list(pool.imap(check, [process])) == [None]


HELPERS = """
import time

LEVEL = 1.0


def helper(spectrum):
    time.sleep(0.01)
    return 10.0


class Model:
    def value(self):
        return 0.5
"""

THEIRS = """
import param
import resumable as rs
import helpers_of_theirs as helpers


class Theirs(rs.Process):
    version = {version}
    outputs = {{"value": rs.Output()}}
    model = param.Parameter(None)

    def unit_computation(self, spectrum):
        return helpers.helper(spectrum) + helpers.LEVEL + self.model.value()


class Later(Theirs):
    def unit_computation(self, given):
        return given[0] + Theirs.unit_computation(self, given)


class First(rs.Process):
    outputs = {{"given": rs.Output(1)}}

    def unit_computation(self, spectrum):
        return spectrum[:1]
"""


class Edited:
    """Modules of a user, and a run of them that loses a worker after an edit."""

    def __init__(self, folder, monkeypatch, version):
        self.folder, self.file = folder, folder / "helpers_of_theirs.py"
        self.file.write_text(HELPERS)
        (folder / "theirs.py").write_text(THEIRS.format(version=version))
        monkeypatch.syspath_prepend(folder)
        for name in ("theirs", "helpers_of_theirs"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        self.theirs = importlib.import_module("theirs")
        self.helpers = sys.modules["helpers_of_theirs"]
        self.data = folder / "zeros.h5"
        with h5py.File(self.data, "w") as file:
            file["data"] = np.zeros((150, 4))

    def computation(self, chain=False):
        model, source = self.helpers.Model(), f"{self.data}::/data"
        if chain:
            return rs.Chain(self.theirs.First(source), self.theirs.Later(model=model))
        return self.theirs.Theirs(source, model=model)

    def compute(self, chain=False):
        options = {"engine": LocalEngine(2), "progress": False, "checkpoint": 0.05}
        return self.computation(chain).compute(**options)

    def edit_in_between(self, old, new, chain=False):
        """Compute, edit the helpers, and kill the workers."""
        ended = []

        def run():
            try:
                ended.append(self.compute(chain))
            except rs.ResumableError as error:
                ended.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: sum(r.status.done for r in self.runs()) > 20)
        # Python takes texts of one length and one second for the same.
        assert old in HELPERS
        assert len(old) != len(new)
        self.file.write_text(HELPERS.replace(old, new))
        workers = psutil.Process(WorkerServer.get("forkserver").process.pid).children()
        for worker in workers:
            worker.kill()
        thread.join()
        return ended[0]

    def runs(self):
        found = []
        for path in self.folder.glob("zeros-*.h5"):
            with contextlib.suppress(rs.ResumableError):
                found.append(rs.open(path))
        return found

    def values(self):
        (run,) = self.runs()
        done = run["value"][...]
        return set(done[~np.isnan(done)].tolist())


@pytest.fixture
def edited(tmp_path, monkeypatch):
    return lambda version: Edited(tmp_path, monkeypatch, version)


@pytest.mark.parametrize(
    ("version", "old", "new", "chain"),
    [
        (None, "return 10.0", "return 20.00", False),
        (1, "return 0.5", "return 0.75", False),
        (1, "return 10.0", "return 20.00", True),
    ],
)
def test_no_worker_computes_with_code_edited_while_a_run_goes_on(
    edited, version, old, new, chain
):
    edited = edited(version)
    error = edited.edit_in_between(old, new, chain)
    stopped = edited.values()
    edited.file.write_text(HELPERS)
    edited.compute(chain)

    assert isinstance(error, rs.DeclarationError)
    assert "was edited while" in str(error)
    assert "helpers_of_theirs.py:" in str(error)
    assert stopped == edited.values() == {11.5}
    assert edited.runs()[0].status.done == 150


@pytest.mark.parametrize("version", [None, 1])
def test_with_a_constant_edited_while_a_run_goes_on_it_stops_or_warns(
    edited, version, recwarn
):
    edited = edited(version)
    ended = edited.edit_in_between("LEVEL = 1.0", "LEVEL = 2.00")
    told = "LEVEL is 2.0 in a worker and 1.0 where Theirs was made"

    if version is None:
        assert isinstance(ended, rs.DeclarationError)
        assert told in str(ended)
        assert edited.values() == {11.5}
    else:
        assert told in " ".join(str(one.message) for one in recwarn)
        assert ended.status.done == 150


def test_a_class_of_a_script_may_count_on_itself(script):
    """Its worker finds no text of the script, which says what the count is at first."""
    done = script(
        """
        import numpy as np, resumable as rs

        class Counts(rs.Process):
            outputs = {"mean": rs.Output()}
            count = 0

            def unit_computation(self, spectrum):
                self.count += 1
                return spectrum.mean()

        if __name__ == "__main__":
            process = Counts(np.ones((10, 4)), target=".")
            print(process.compute(engine="local", workers=1).status)
        """
    )
    assert "10 of 10 positions done" in done.stdout.read(), done.stderr.read()
