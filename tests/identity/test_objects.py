"""Values of every kind: written alike for equal values, otherwise for others."""

import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import json
import math
import operator
import os
import re
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import resumable as rs
from resumable.identity import write_value, write_values
from resumable.model import decode


@dataclasses.dataclass
class Point:
    x: float = 0.0
    tags: list = dataclasses.field(default_factory=list)


class Named(NamedTuple):
    a: int = 1


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a


class Hooked:
    """Holds what cannot be identified, and says what counts."""

    def __init__(self, a):
        self.a, self.steps = a, (i for i in ())

    def __resumable_identity__(self):
        return {"a": self.a}


class Ring:
    """Refers to itself."""

    def __init__(self, a):
        self.a, self.me = a, self


def line(x, a, b):
    return a * x + b


def scaled(k):
    def by(x):
        return k * x

    return by


# Two values of each kind, which are not the same.
KINDS = {
    "int": (1, 2),
    "int and float": (2, 2.0),
    "int and bool": (1, True),
    "long int": (10**5000, 10**5000 + 1),
    "float": (0.1, 0.2),
    "signed zero": (0.0, -0.0),
    "nan and infinity": (math.nan, math.inf),
    "complex": (1j, 2j),
    "text": ("a", "b"),
    "text and bytes": ("a", b"a"),
    "bytearray": (bytearray(b"a"), bytearray(b"b")),
    "memoryview": (memoryview(b"a"), memoryview(b"b")),
    "list": ([1, 2], [1, 3]),
    "list and tuple": ([1, 2], (1, 2)),
    "set": ({1, 2}, {1, 3}),
    "set and frozenset": ({1, 2}, frozenset({1, 2})),
    "dict with int keys": ({1: "a"}, {2: "a"}),
    "dict with tuple keys": ({(1, 2): 0}, {(1, 3): 0}),
    "order of a dict": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "OrderedDict": (collections.OrderedDict(a=1), collections.OrderedDict(a=2)),
    "Counter": (collections.Counter("aab"), collections.Counter("ab")),
    "defaultdict": (collections.defaultdict(list), collections.defaultdict(dict)),
    "deque": (collections.deque([1]), collections.deque([2])),
    "mapping proxy": (types.MappingProxyType({"a": 1}), types.MappingProxyType({})),
    "range": (range(2), range(3)),
    "slice": (slice(2), slice(3)),
    "ellipsis": (..., None),
    "decimal": (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    "fraction": (fractions.Fraction(1, 3), fractions.Fraction(2, 3)),
    "date": (dt.date(2020, 1, 1), dt.date(2020, 1, 2)),
    "time zone": (dt.UTC, dt.timezone(dt.timedelta(hours=1))),
    "pattern": (re.compile("a"), re.compile("b")),
    "namespace": (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
    "enum": (Colour.RED, Colour.GREEN),
    "dataclass": (Point(1.0), Point(2.0)),
    "default factory": (Point(tags=[1]), Point()),
    "named tuple": (Named(1), Named(2)),
    "named tuple and tuple": (Named(1), (1,)),
    "slots": (Slotted(1), Slotted(2)),
    "hook": (Hooked(1), Hooked(2)),
    "ring": (Ring(1), Ring(2)),
    "numpy float and float": (np.float64(0.1), 0.1),
    "float32 and float64": (np.float32(0.5), np.float64(0.5)),
    "numpy int and int": (np.int64(2), 2),
    "numpy bool": (np.bool_(True), True),
    "datetime64": (np.datetime64(1, "ns"), np.datetime64(2, "ns")),
    "unit of datetime64": (np.datetime64(1, "s"), np.datetime64(1000, "ms")),
    "array": (np.arange(3), np.arange(4)),
    "dtype of an array": (np.arange(3), np.arange(3.0)),
    "array and number": (np.array(1.0), 1.0),
    "shape of an array": (np.zeros((2, 3)), np.zeros((3, 2))),
    "array without axes": (np.array(1.0), np.array([1.0])),
    "masked without axes": (np.ma.array(1.0), np.ma.array([1.0])),
    "array of text": (np.array(["a"]), np.array(["b"])),
    "array of objects": (np.array([1, "a"], object), np.array([1, "b"], object)),
    "structured array": (np.zeros(1, "i4,i4"), np.ones(1, "i4,i4")),
    "record": (np.zeros(1, "i4,i4")[0], np.ones(1, "i4,i4")[0]),
    "mask": (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
    "fill value": (np.ma.array([1], fill_value=1), np.ma.array([1], fill_value=2)),
    "masked and plain": (np.ma.array([1, 2]), np.array([1, 2])),
    "subclass and array": (np.zeros(1).view(np.recarray), np.zeros(1)),
    "polynomial": (np.poly1d([1, 2]), np.poly1d([1, 3])),
    "dtype": (np.dtype("f4"), np.dtype("f8")),
    "generator": (np.random.default_rng(1), np.random.default_rng(2)),
    "random state": (np.random.RandomState(1), np.random.RandomState(2)),
    "function": (line, scaled),
    "closure": (scaled(1), scaled(2)),
    "lambda": (lambda x: x + 1, lambda x: x + 2),
    "partial": (functools.partial(line, a=1), functools.partial(line, a=2)),
    "function of a partial": (functools.partial(line, 1), functools.partial(max, 1)),
    "method": (Slotted(1).__reduce_ex__, Slotted(2).__reduce_ex__),
    "function of numpy": (np.sum, np.max),
    "ufunc": (np.add, np.multiply),
    "method of a ufunc": (np.add.reduce, np.maximum.reduce),
    "function of Python": (len, abs),
    "getter": (operator.itemgetter(1), operator.itemgetter(2)),
    "class": (Point, Named),
    "type": (int, float),
    "alias": (list[int], list[float]),
    "module": (math, np),
}


def written(value):
    return json.dumps(write_value(value), sort_keys=True)


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_a_kind_are_told_apart(kind):
    one, other = KINDS[kind]
    assert written(one) == written(one)
    assert written(one) != written(other)


# Of other libraries: made by this text, with 0 or 1 for k.
FOREIGN = {
    "pandas": """
        import pandas as pd
        MADE = {
            "frame": lambda k: pd.DataFrame({"a": [1, 2 + k]}),
            "dtype": lambda k: pd.DataFrame({"a": [1, 2]}, dtype=["i4", "i8"][k]),
            "texts": lambda k: pd.DataFrame({"a": ["x", "yz"[k]]}),
            "categories": lambda k: pd.Series(pd.Categorical(["x", "yz"[k]])),
            "name": lambda k: pd.Series([1.0], name="ab"[k]),
            "index": lambda k: pd.Series([1.0], index=[k]),
            "levels": lambda k: pd.MultiIndex.from_tuples([(1, 2), (1, 3 + k)]),
            "nanoseconds": lambda k: pd.Timedelta(1 + k, "ns"),
            "timestamp": lambda k: pd.Timestamp("2020-01-01") + pd.Timedelta(k, "ns"),
            "zone": lambda k: pd.Timestamp(0, tz=["UTC", "Europe/Paris"][k]),
        }
    """,
    "xarray": """
        import xarray as xr
        MADE = {
            "values": lambda k: xr.DataArray([1.0, k], dims="x"),
            "dims": lambda k: xr.DataArray([1.0], dims="xy"[k]),
            "coords": lambda k: xr.DataArray([1.0], dims="x", coords={"x": [k]}),
            "attrs": lambda k: xr.DataArray([1.0], dims="x", attrs={"units": "mk"[k]}),
            "set": lambda k: xr.Dataset({"a": ("x", [1, 2 + k])}),
        }
    """,
    "scipy": """
        import numpy as np, scipy.interpolate as si, scipy.sparse, scipy.stats
        y = lambda k: [0.0, 1.0, 4.0, 9.0 + k]
        MADE = {
            "spline": lambda k: si.CubicSpline(range(4), y(k)),
            "knots": lambda k: si.make_interp_spline(range(4), y(k)),
            "interp1d": lambda k: si.interp1d(range(4), y(k)),
            "grid": lambda k: si.RegularGridInterpolator((range(4),), np.array(y(k))),
            "sparse": lambda k: scipy.sparse.csr_matrix(np.eye(3) * (k + 1)),
            "frozen": lambda k: scipy.stats.norm(loc=k),
        }
    """,
    "sklearn": """
        import numpy as np
        from sklearn.decomposition import PCA
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.pipeline import make_pipeline
        x = np.random.default_rng(0).normal(size=(50, 4))
        MADE = {
            "fitted": lambda k: PCA(1).fit(x * [1, 1, 1, k + 1]),
            "trees": lambda k: RandomForestRegressor(2, random_state=k).fit(x, x[:, 0]),
            "pipeline": lambda k: make_pipeline(PCA(k + 1)).fit(x),
        }
    """,
    "lmfit": """
        import lmfit
        def line(x, a, b): return a * x + b
        models = [lmfit.models.LorentzianModel, lmfit.models.GaussianModel]
        MADE = {
            "model": lambda k: models[k](),
            "own": lambda k: lmfit.Model(line, prefix="ab"[k]),
            "parameters": lambda k: models[0]().make_params(amplitude=k + 1),
            "bounds": lambda k: lmfit.create_params(a=dict(value=1, min=-k)),
        }
    """,
    "units": """
        import astropy.units as u
        MADE = {
            "array": lambda k: [1.0, 2.0] * [u.m, u.km][k],
            "number": lambda k: 5 * [u.m, u.km][k],
            "unit": lambda k: [u.m, u.km][k],
        }
    """,
    "declared": """
        import attrs, pydantic
        @attrs.define
        class A: a: int = 1
        class P(pydantic.BaseModel): a: int = 1
        MADE = {"attrs": lambda k: A(k), "pydantic": lambda k: P(a=k)}
    """,
}
SCRIPT = """
import json, sys, traceback, warnings
warnings.simplefilter("ignore")
from resumable.identity import write_value

def look(text):
    made, found = {"__name__": "__main__"}, {}
    exec(text, made)
    for kind, make in made["MADE"].items():
        one, other, again = (json.dumps(write_value(make(k))) for k in (0, 1, 0))
        assert one == again, f"{kind}: another each time"
        assert one != other, f"{kind}: not told apart"
        found[kind] = one
    return found

for library, text in json.load(sys.stdin).items():
    try:
        told = look(text)
    except Exception:
        told = traceback.format_exc()
    print(json.dumps([library, told]))
"""


@pytest.fixture(scope="module")
def told_of_libraries():
    """What two processes with other hash seeds tell of each library, or their error."""
    texts = json.dumps({name: textwrap.dedent(text) for name, text in FOREIGN.items()})
    with contextlib.ExitStack() as stack:
        children = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONHASHSEED": seed},
                text=True,
            )
            for seed in ("1", "2")
        ]
        # Written to both first: each works while the other one is waited for.
        for child in children:
            stack.enter_context(child).stdin.write(texts)
            child.stdin.close()
        outputs = [child.stdout.read() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    return [dict(map(json.loads, output.splitlines())) for output in outputs]


@pytest.mark.parametrize("library", FOREIGN)
def test_objects_of_other_libraries_are_told_apart_in_every_process(
    told_of_libraries, library
):
    first, second = (told[library] for told in told_of_libraries)

    assert isinstance(first, dict), first
    assert first
    assert first == second


READ_BACK = [
    7,
    10**5000,
    0.1,
    np.float64(0.1),
    np.float32(0.1),
    np.int16(3),
    np.bool_(True),
    np.datetime64(5, "ns"),
    1 + 2j,
    "text",
    b"bytes",
    (1, (2.0, "a")),
    [1, [2]],
    {"a": 1, 2: (3,)},
    {1, 2},
    frozenset({(1, 2)}),
    dt.datetime(2020, 1, 1, 12),
    slice(1, None),
    Path("a/b"),
]


@pytest.mark.parametrize("value", READ_BACK, ids=lambda value: type(value).__name__)
def test_a_value_is_read_back_with_its_type(value):
    found = decode(json.loads(written(value)))
    assert type(found) is type(value)
    assert found == value
    assert written(found) == written(value)


def test_what_cannot_be_identified_is_refused_with_the_way_out(tmp_path):
    with (
        (tmp_path / "a.txt").open("w") as file,
        pytest.raises(
            rs.IdentityError, match=r"the parameter 'log'.* TextIOWrapper"
        ) as e,
    ):
        write_values({"log": [file]})
    assert "__resumable_identity__" in str(e.value)
    assert "setup()" in str(e.value)


def test_what_is_printed_to_changes_nothing():
    assert write_value(sys.stderr) == write_value(sys.stdout)


def test_a_file_counts_by_its_name_and_contents_and_not_its_folder(tmp_path):
    documents = []
    for folder, name, text in [
        ("a", "calib.txt", "1"),
        ("b", "calib.txt", "1"),
        ("b", "calib.txt", "2"),
        ("b", "other.txt", "1"),
    ]:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(text)
        documents.append(write_values({"f": tmp_path / folder / name})["f"])
    first, moved, edited, renamed = map(json.dumps, documents)
    assert first == moved
    assert len({first, edited, renamed}) == 3


def test_an_edit_of_a_file_that_leaves_size_and_time_as_they_were_is_noticed(tmp_path):
    """Where times are whole seconds, as on sshfs, two edits may have the same."""
    path, documents = tmp_path / "calib.txt", []
    now = int(time.time())
    for text in "12":
        path.write_text(text)
        os.utime(path, (now, now))
        documents.append(write_values({"f": path}))

    assert documents[0] != documents[1]


def test_a_cached_property_that_was_computed_changes_nothing():
    class Model:
        def __init__(self):
            self.a = 1

        @functools.cached_property
        def table(self):
            return [self.a] * 1000

    model = Model()
    before = written(model)
    assert model.table
    assert written(model) == before


def test_a_value_of_too_many_objects_is_refused(monkeypatch):
    monkeypatch.setattr("resumable.identity.objects._MOST_OBJECTS", 100)
    with pytest.raises(rs.IdentityError, match=r"more than 100 objects.*array"):
        write_values({"table": [[i] for i in range(200)]})
