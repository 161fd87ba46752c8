"""One document, one digest: what makes two runs the same run, and what does not."""

import datetime as dt
import enum
import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest
from helpers import golden_under_hash_seeds
from hypothesis import given
from hypothesis import strategies as st

from resumable.errors import IdentityError
from resumable.model.encoding import (
    canonical,
    differences,
    document_digest,
    encode,
)


class Window(enum.Enum):
    HANN = "hann"
    FLAT = "flat"


ALIGNED = np.dtype([("a", "i1"), ("b", "f8")], align=True)

# The identity of a run is a promise: a digest that changes here makes every old
# run unknown. Raise SCHEMA and say so in the changelog before touching one.
VALUES: dict[str, Any] = {
    "nothing": None,
    "true": True,
    "integer": -3,
    "large integer": 2**80,
    "float": 0.1,
    "whole float": 1.0,
    "negative zero": -0.0,
    "not a number": float("nan"),
    "infinities": [np.inf, -np.inf],
    "complex": complex(1.5, float("nan")),
    "text": "Höhe in µm",
    "bytes": b"\x00\xff",
    "nested": {"b": [1, (2.0, "x")], "a": {"c": None}},
    "set": {1, "a", 2.5, None, (1, 2), b"z"},
    "dates": [dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 12, 30), dt.time(1, 2)],
    "duration": dt.timedelta(days=1, microseconds=5),
    "path": PurePosixPath("a/b.h5"),
    "enum": Window.HANN,
    "ranges": [range(0, 9, 2), slice(None, 5)],
    "dtype": np.dtype([("x", ">f4"), ("n", "i8", (2,))]),
    "float array": np.array([[1.0, -0.0], [np.nan, np.inf]], "f4"),
    "swapped array": np.arange(6, dtype=">i2").reshape(2, 3),
    "complex array": np.array([1 + 2j, complex(np.nan, 0)]),
    "text array": np.array(["ab", "c"]),
    "records": np.array([(1, np.nan), (2, 0.5)], ALIGNED),
    "date array": np.array(["2024-02-29", "NaT"], "M8[D]"),
}
GOLDEN = {
    "nothing": "1c197daef20de3f47eec5e2f735ec6669869d3180cc29f35be4788511e0af0f8",
    "true": "8c5aaab6e1efdec7f7f9f65cc0de77461c36a46e6b7c9ee7a35299dd6e8449ee",
    "integer": "62e011e7feec141c37bf9c41c4ad6906280ba5fc219d84af3a1e793128186dc1",
    "large integer": "5aeefc2f959d0098c26895824dc053d028a01c958f1fe0448d339b8e2b70b098",
    "float": "097a678e9d1339735cc744964f1c2b1271b2e650d7c59c72d2ff1c93064ceb6e",
    "whole float": "3a7d647740ec6f86b72e0bf3948ab456551e07e9605e3a2785de1c66842ebb48",
    "negative zero": "c848a4efa987f46ba3bfd46242333afcb1c68c3240e0f35ae9d269b1c980648b",
    "not a number": "992d2d01a7e727ab975066ef28c115e97ae02b7907be73a2eeb38da9dab47e8e",
    "infinities": "b2e85e553b51363a5cc53f41851bb843821a5c1bc2449ddd6c3c15ba60df349a",
    "complex": "42078ec87f5de86f2f8ed41f751d0f64c7541331cddd794206a566ed7a00e3e8",
    "text": "6e21b0351afee9d0fc768a8999d49fc28684cd1ddb6164b7a8af52caa6e30ad4",
    "bytes": "fe1b936d1169d147d5a9add3f965fcd978d178ee356fa8f80d48ff1f985dc91b",
    "nested": "ad5bc1362a207414dcfee4d0dff31021e28d1803857750a3030f4ca308c62cc1",
    "set": "f09dd049ec9475e5844d8ec618cce5ff78dfc9eee652ee98dafb20f6e71db3c3",
    "dates": "bb7ac62cde8d7ace027fea8eb77b59149e150f1b9f1565505631a1df60d86655",
    "duration": "8e7d165cf487bb12772ecbbf2308c7d59f511173b886abcf28e9ada853e55b3c",
    "path": "599e01df6092aba735437922590a638fbdeba6d3f9ac44e9f75a73f994664237",
    "enum": "2c641b1795394451bc3999064102357b595e493061ced6e544fc1f02dccda448",
    "ranges": "69430b4d52ea3a2767ca042637ef5c444a2fe8a9b535b42f1b89d2de1fc474ca",
    "dtype": "5ae4597ab4fd8ca7f8b93b7d9a571aba824d801d354606e89c553abd5e18a60f",
    "float array": "a960db14c9ee09c95b8f119ef55e487cc6bd805c59b7d70699ecbfeeee02fa50",
    "swapped array": "44b90e4e7412ea0dfa4a54b315adcbc4aa662a16ffc996f4b3c15f04e0809063",
    "complex array": "40e76418a16767e2bde832b7d6de0bcdbcd57ac937fc810ab3276ccc585c3fe1",
    "text array": "ad1f021748ddbade6c1533fff49efb002cd19658019aaaaa00ec277ab228061f",
    "records": "685869c5ac828877b528e1a7856de5dc9dfacbc8088aa49450de79e7f94341b0",
    "date array": "58e5086968409dbf61bc7e23a3866ad3947febfd2835d64913b1440ca8378304",
}
WHOLE = {
    "schema": 1,
    "process": "LorentzFit",
    "version": 1,
    "parameters": {"half_width": 0.2, "seed": 0},
    "outputs": {"fit": {"dtype": "<f8", "per": "position", "shape": [4]}},
    "position_axes": [0],
    "source": {
        "contents": "0" * 64,
        "dataset": "/Raw_Data",
        "dtype": "<f4",
        "shape": [9216, 256],
    },
    "inputs": {},
}
GOLDEN_WHOLE = "cb267dd86849ae640a633431f884e12acdbfb7514e4d7072605a1fee1b52f00a"


def digest_of(value):
    return document_digest({"value": encode(value)})


def golden_now():
    return {name: digest_of(value) for name, value in VALUES.items()}


@pytest.mark.parametrize("name", VALUES)
def test_a_digest_never_changes(name):
    assert digest_of(VALUES[name]) == GOLDEN[name]


def test_the_digest_of_a_whole_document_never_changes():
    assert document_digest(WHOLE) == GOLDEN_WHOLE


def test_digests_do_not_depend_on_the_hash_seed():
    found = golden_under_hash_seeds("test_identity")

    assert found == [GOLDEN, GOLDEN]


VECTOR = {"v": [1, 2]}
OTHER_NAN = np.array([0x7FF8_0000_0000_0007, 0xFFF8_0000_0000_0001], "u8").view("f8")

SAME = {
    "numpy float": (1.0, np.float64(1)),
    "narrow numpy float": (0.5, np.float32(0.5)),
    "numpy integer": (1, np.uint8(1)),
    "numpy bool": (True, np.True_),
    "numpy text": ("a", np.str_("a")),
    "numpy bytes": (b"a", np.bytes_(b"a")),
    "numpy complex": (1j, np.complex128(1j)),
    "array without axes": (1.0, np.array(1.0)),
    "array of an integer without axes": (3, np.array(3)),
    "compound scalar": (np.array((1, 2.5), ALIGNED), np.array((1, 2.5), ALIGNED)[()]),
    "date scalar": (np.datetime64("2024-01-01"), np.array("2024-01-01", "M8[D]")),
    "list and tuple": ((1, 2), [1, 2]),
    "nested list and tuple": ([(1, [2])], ((1, (2,)),)),
    "C and Fortran order": (np.eye(3, 2), np.asfortranarray(np.eye(3, 2))),
    "byte order": (np.arange(3, dtype="<f8"), np.arange(3, dtype=">f8")),
    "byte order in a compound": (
        np.array([(1, 2)], [("a", "<i4"), ("b", "<f8")]),
        np.array([(1, 2)], [("a", ">i4"), ("b", ">f8")]),
    ),
    "strided view": (np.arange(0, 6, 2), np.arange(6)[::2]),
    "reversed view": (np.array([2, 1, 0]), np.arange(3)[::-1]),
    "transposed view": (np.array([[0, 2], [1, 3]]), np.arange(4).reshape(2, 2).T),
    "broadcast view": (np.ones((3, 2)), np.broadcast_to(1.0, (3, 2))),
    "strided complex view": (np.zeros(2, complex), np.zeros(4, complex)[::2]),
    "read-only array": (np.arange(3), np.frombuffer(np.arange(3).tobytes(), int)),
    "shared sub-object": ([VECTOR, VECTOR], [{"v": [1, 2]}, {"v": [1, 2]}]),
    "order of a dict": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "order of a set": ({1, 9, 17, 25}, {25, 17, 9, 1}),
    "frozen set": ({"a", "b"}, frozenset({"b", "a"})),
    "not a number": (float("nan"), -float("nan")),
    "numpy's not a number": (float("nan"), np.float32("nan")),
    "payload of not a number": (OTHER_NAN, np.full(2, np.nan)),
    "payload of complex not a number": (
        OTHER_NAN.view(complex),
        np.full(2, np.nan).view(complex),
    ),
    "payload in a compound": (
        OTHER_NAN.view([("x", "f8")]),
        np.full(2, np.nan).view([("x", "f8")]),
    ),
    "complex in a compound": (
        np.array([(1, 2j), (3, 4)], [("a", "f4"), ("z", "c16")]),
        np.array([(1, 2j), (3, 4)], [("a", ">f4"), ("z", ">c16")]),
    ),
    "gaps between the fields": (
        np.array([(1, 2.5)], ALIGNED),
        np.array([(1, 2.5)], [("a", "i1"), ("b", "f8")]),
    ),
    "paths": (Path("a/b"), PurePosixPath("a/b")),
    "paths of another system": (PurePosixPath("a/b"), PureWindowsPath("a\\b")),
}


@pytest.mark.parametrize("name", SAME)
def test_equal_values_have_one_digest(name):
    first, second = SAME[name]

    assert digest_of(first) == digest_of(second)


def test_the_padding_of_a_compound_never_counts():
    """The bytes between fields are whatever lay in the memory before."""
    digests = set()
    for byte in range(5):
        dirt = [np.full(48_000, byte, np.uint8) for _ in range(20)]
        records = np.full(48_000, byte, np.uint8).view(ALIGNED)
        records["a"], records["b"] = 1, 2.5
        del dirt
        digests.add(digest_of(records))

    assert len(digests) == 1


DIFFERENT = {
    "integer and float": (1, 1.0),
    "integer and bool": (1, True),
    "zero and false": (0, False),
    "none and false": (None, False),
    "none and zero": (None, 0),
    "none and its name": (None, "None"),
    "number and text": (1, "1"),
    "bytes and text": (b"a", "a"),
    "zeros": (0.0, -0.0),
    "zeros in an array": (np.array([0.0]), np.array([-0.0])),
    "zeros in a complex number": (complex(0, 0), complex(0, -0.0)),
    "nearly equal": (0.1 + 0.2, 0.3),
    "nanometres": (np.array([1e-9, 2e-9]), np.array([5e-9, 9e-9])),
    "last digit": (np.array([1.0]), np.nextafter(np.array([1.0]), 2)),
    "narrow float": (0.1, np.float32(0.1)),
    "infinities": (np.inf, -np.inf),
    "not a number and its name": (float("nan"), "nan"),
    "not a number in disguise": (float("nan"), {"float": "nan"}),
    "array in disguise": (np.arange(3), encode(np.arange(3))),
    "real and complex": (1.0, 1 + 0j),
    "array and list": (np.array([1, 2]), [1, 2]),
    "array shapes": (np.arange(6), np.arange(6).reshape(2, 3)),
    "array of one": (np.array([1.0]), 1.0),
    "empty array shapes": (np.zeros((0, 3)), np.zeros((3, 0))),
    "array dtypes": (np.zeros(2, "f4"), np.zeros(2, "f8")),
    "array kinds": (np.zeros(1, "i8"), np.zeros(1, "u8")),
    "field names": (np.zeros(1, [("a", "f8")]), np.zeros(1, [("b", "f8")])),
    "last element of a large array": (np.zeros(100_000), np.r_[np.zeros(99_999), 1.0]),
    "a shorter dict": ({"a": 1}, {"a": 1, "b": 2}),
    "an empty dict": ({}, {"a": 1}),
    "a missing key and none": ({}, {"a": None}),
    "empty dict and list": ({}, []),
    "empty list and none": ([], None),
    "empty list and zero": ([], 0),
    "one in a list": ([1], 1),
    "brackets": ([[1, 2], [3]], [[1], [2, 3]]),
    "order of a list": ([1, 2], [2, 1]),
    "set and list": ({1, 2}, [1, 2]),
    "set in disguise": ({1}, {"set": [1]}),
    "range and list": (range(3), [0, 1, 2]),
    "enum members": (Window.HANN, Window.FLAT),
    "enum and value": (Window.HANN, "hann"),
    "date and time": (dt.date(2024, 1, 1), dt.datetime(2024, 1, 1)),
    "date and text": (dt.date(2024, 1, 1), "2024-01-01"),
    "path and text": (Path("a"), "a"),
    "dtype and text": (np.dtype("f8"), "<f8"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_values_have_different_digests(name):
    first, second = DIFFERENT[name]

    assert digest_of(first) != digest_of(second)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.0, -0.0, 1.0, 2.0, float("nan"), float("inf")])
    | st.sampled_from(["", "a", "1", "nan", "dict", "float"])
    | st.sampled_from([b"", b"a"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.sampled_from(["a", "b", "dict", "float"]), inner)
    ),
    max_leaves=4,
)


def model(value):
    """Say what should count about a value, independently of the code under test."""
    if isinstance(value, dict):
        return repr(sorted((key, model(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return f"list of {[model(item) for item in value]!r}"
    return f"{type(value).__name__} {value!r}"


@given(values, values)
def test_digests_agree_exactly_where_the_values_do(first, second):
    agree = digest_of(first) == digest_of(second)

    assert agree == (model(first) == model(second))


@given(values)
def test_an_encoded_value_survives_json(value):
    document = encode(value)

    assert canonical(json.loads(canonical(document))) == canonical(document)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "the parameter 'p' is a object"),
        (lambda x: x, "the parameter 'p' is a function"),
        (lambda x: x in {"a", "b"}, "the parameter 'p' is a function"),
        (len, "the parameter 'p' is a builtin_function"),
        (np, "the parameter 'p' is a module"),
        (int, "the parameter 'p' is a type"),
        ([1, [2, object()]], r"the parameter 'p'\[1\]\[1\] is a object"),
        ({"a": {"b": object()}}, r"the parameter 'p'\['a'\]\['b'\] is a object"),
        ({"a": (1, object())}, r"the parameter 'p'\['a'\]\[1\] is a object"),
        ({1: "a"}, "the parameter 'p' has the key 1"),
        ({"a": {None: 1}}, r"the parameter 'p'\['a'\] has the key None"),
        (np.array([object()]), "the parameter 'p' is an array of Python objects"),
        (np.array(object()), "the parameter 'p' is a"),
        ([np.array(["a"], object)], r"the parameter 'p'\[0\] is an array of Python"),
        (np.zeros(1, [("a", "O")]), "the parameter 'p' is an array of Python objects"),
        ((i for i in range(3)), "the parameter 'p' is a generator"),
        (np.longdouble(1), "the parameter 'p'"),
    ],
    ids=[str(number) for number in range(17)],
)
def test_what_cannot_be_identified_is_refused_by_its_place(value, named):
    with pytest.raises(IdentityError, match=named):
        encode(value, "the parameter 'p'")


def test_equal_documents_have_no_differences():
    assert differences(WHOLE, dict(reversed(WHOLE.items()))) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"version": 1}, {"version": 2}, ["version: 1 there, 2 here"]),
        ({"a": {"b": 1.0}}, {"a": {"b": 1}}, ["a.b: 1.0 there, 1 here"]),
        ({"a": 1}, {}, ["a: 1 there, missing here"]),
        ({}, {"a": None}, ["a: missing there, null here"]),
        ({"a": "missing"}, {}, ['a: "missing" there, missing here']),
        ({"a": [1, 2, 3]}, {"a": [1, 5, 3]}, ["a[1]: 2 there, 5 here"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a: [1,2] there, [1] here"]),
        ({"a": True}, {"a": 1}, ["a: true there, 1 here"]),
        (
            {"b": 1, "a": 1},
            {"a": 2, "b": 2},
            ["a: 1 there, 2 here", "b: 1 there, 2 here"],
        ),
        (
            {"p": encode({"q": {"r": 1}})},
            {"p": encode({"q": {"r": 2}})},
            ["p.q.r: 1 there, 2 here"],
        ),
    ],
)
def test_differences_are_told_in_words(old, new, words):
    assert differences(old, new) == words


def test_a_long_value_is_cut_in_the_words():
    (line,) = differences({"a": "x" * 500}, {"a": "y" * 500})

    assert len(line) < 150
    assert "x..." in line
    assert "y..." in line


@given(values, values)
def test_there_are_differences_exactly_where_the_digests_differ(first, second):
    old, new = {"p": encode(first)}, {"p": encode(second)}

    assert bool(differences(old, new)) == (document_digest(old) != document_digest(new))
