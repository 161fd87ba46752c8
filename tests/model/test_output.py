"""Outputs as declared, and computed values held against the declaration."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy._core._rational_tests import rational

from resumable.errors import DeclarationError, OutputError
from resumable.model.output import RESERVED_NAMES, Output, declared_outputs
from resumable.model.values import block_rows, by_name, fitted_array, row_placer

#: A dtype that is not one of numpy's own, like bfloat16 and float8 of ml_dtypes.
RATIONAL = np.dtype(rational)
PEAK = np.dtype([("height", "f4"), ("count", "i4")])


def place(value, shape=(), dtype="f8", rows=2):
    """Place a value into row 1 of an output, behind a row that must not change."""
    output = Output(shape, dtype)
    stored = output.filled(rows)
    row_placer("fit", output, stored)(1, value)
    return stored[1]


@pytest.mark.parametrize(
    ("given_shape", "shape"),
    [((), ()), (3, (3,)), ((3, 4), (3, 4)), ([3, 4], (3, 4)), (np.int64(2), (2,))],
)
def test_a_shape_is_a_number_or_a_sequence_of_them(given_shape, shape):
    assert Output(given_shape).shape == shape


@pytest.mark.parametrize(
    "shape", [None, 2.5, "3", (2.5,), (2, None), ((1, 2),), ([1, 2], [3]), "ab"]
)
def test_a_shape_that_is_not_exact_is_refused(shape):
    with pytest.raises(DeclarationError, match="must be whole numbers, not"):
        Output(shape)


@pytest.mark.parametrize("shape", [0, -1, (3, 0)])
def test_an_empty_output_is_refused(shape):
    with pytest.raises(DeclarationError, match="must be at least 1"):
        Output(shape)


@pytest.mark.parametrize(
    "dtype",
    [
        "f8",
        float,
        np.float16,
        ">i2",
        "u8",
        bool,
        complex,
        "c8",
        "S10",
        PEAK,
        [("name", "S4"), ("vector", "f8", (3,))],
    ],
    ids=str,
)
def test_any_dtype_of_fixed_size_can_be_declared(dtype):
    assert Output(dtype=dtype).dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("nonsense", "is not a dtype"),
        ([("a", "f8"), ("a", "f8")], "is not a dtype"),
        (object, "has no fixed size"),
        (str, "has no fixed size"),
        ("S", "has no fixed size"),
        ([("text", "O")], "has no fixed size"),
        (RATIONAL, "HDF5 cannot hold the dtype rational, .* use 'f4', which holds"),
        ([("a", "f4"), ("b", RATIONAL, 2)], "HDF5 cannot hold the dtype rational"),
        ("U5", "HDF5 cannot hold .* 'S20'"),
        ([("a", "i4"), ("text", "U5")], "HDF5 cannot hold .* 'S20'"),
        ("M8[ns]", "HDF5 cannot hold .* 'i8' nanoseconds"),
        ("m8[s]", "HDF5 cannot hold"),
        (("f8", (3,)), r"shape=\(3,\) and dtype=float64"),
    ],
    ids=str,
)
def test_a_dtype_that_a_file_cannot_hold_is_refused_at_once(dtype, message):
    with pytest.raises(DeclarationError, match=message):
        Output(dtype=dtype)


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        (3, ("a", "b"), "2 labels were given, but the last axis has 3"),
        ((), ("a",), r"1 labels were given, but the shape is \(\)"),
        ((3, 2), ("a", "b", "c"), "the last axis has 2"),
        (3, "abc", "must be a sequence of texts, not 'abc'"),
        (2, ("a", 1), "must be a sequence of texts"),
        (2, 5, "must be a sequence of texts"),
    ],
)
def test_labels_that_do_not_fit_the_last_axis_are_refused(shape, labels, message):
    with pytest.raises(DeclarationError, match=message):
        Output(shape, labels=labels)


def test_labels_that_fit_are_kept():
    assert Output((3, 2), labels=["a", "b"]).labels == ("a", "b")


def test_per_is_position_or_run():
    with pytest.raises(DeclarationError, match="'position' or 'run', not 'Run'"):
        Output(per="Run")


def test_row_bytes_are_those_of_one_value():
    assert Output((3, 2), PEAK).row_bytes == 48


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Output(2, "f8"), Output(2, "f8", units="nm")),
        (Output(2, "f8"), Output(2, "f8", labels=("a", "b"))),
        (Output(2, "f8"), Output(2, "f8", fill_value=0)),
    ],
    ids=["units", "labels", "fill_value"],
)
def test_what_is_only_for_people_is_no_part_of_the_identity(first, second):
    assert first.identity() == second.identity()


@pytest.mark.parametrize(
    "other",
    [
        Output(3),
        Output((2, 1)),
        Output(2, "f4"),
        Output(2, ">f8"),
        Output(2, per="run"),
    ],
    ids=["length", "axes", "dtype", "byte order", "per"],
)
def test_shape_dtype_and_per_are_part_of_the_identity(other):
    assert other.identity() != Output(2).identity()


@pytest.mark.parametrize(
    ("dtype", "fill_value", "expected"),
    [
        ("f4", None, np.nan),
        ("c16", None, np.nan),
        ("i2", None, 0),
        ("u1", None, 0),
        (bool, None, False),
        ("S5", None, b""),
        ("f8", -1, -1.0),
        ("i2", -1, -1),
        ("i2", -1.0, -1),
        ("f4", np.inf, np.inf),
        ("S5", b"none", b"none"),
        ("S5", "none", b"none"),
        (bool, True, True),
        ("c8", 1 + 2j, 1 + 2j),
    ],
)
def test_the_fill_value_is_nan_or_zero_unless_given(dtype, fill_value, expected):
    rows = Output(2, dtype, fill_value=fill_value).filled(3)

    np.testing.assert_array_equal(rows, np.full((3, 2), expected, dtype))
    assert rows.dtype == np.dtype(dtype)


def test_the_fill_value_of_a_compound_is_nan_in_its_floating_fields():
    dtype = np.dtype([("x", "f8"), ("n", "i4"), ("sub", [("y", "f4", (2,))])])

    row = Output(dtype=dtype).filled(1)[0]

    assert np.isnan(row["x"])
    assert row["n"] == 0
    assert np.isnan(row["sub"]["y"]).all()


@pytest.mark.parametrize(
    ("dtype", "fill_value"),
    [
        ("u1", -1),
        ("u1", 256),
        ("u1", np.int64(300)),
        ("i4", np.nan),
        ("i4", 2.7),
        ("f8", 1j),
        ("f8", "none"),
        ("f8", (1, 2)),
        ("S3", b"none"),
        (PEAK, (1.0, 2.7)),
    ],
)
@pytest.mark.filterwarnings("default")
def test_a_fill_value_that_does_not_fit_is_refused(dtype, fill_value):
    with pytest.raises(DeclarationError, match="does not fit the dtype"):
        Output(dtype=dtype, fill_value=fill_value)


def test_a_declaration_is_a_dict_of_outputs():
    fit = Output()

    assert declared_outputs([("fit", fit)], "Fit.outputs") == {"fit": fit}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Output(), "Fit.outputs must be a dict of name"),
        (5, "Fit.outputs must be a dict of name"),
        ({}, "declares no output per position"),
        ({"total": Output(per="run")}, "declares no output per position"),
        ({"half width": Output()}, "'half width' .* must be a Python name"),
        ({1: Output()}, "must be a Python name"),
        ({"fit": "f8"}, "'fit' in Fit.outputs must be an Output, not 'f8'"),
    ],
)
def test_a_wrong_declaration_is_refused(value, message):
    with pytest.raises(DeclarationError, match=message):
        declared_outputs(value, "Fit.outputs")


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_names_of_the_run_file_itself_are_refused(name):
    with pytest.raises(DeclarationError, match="is taken by the run file itself"):
        declared_outputs({name: Output()}, "Fit.outputs")


TWO = {"height": Output(), "centre": Output()}


def test_one_output_needs_no_name():
    assert by_name(5, {"fit": Output()}) == {"fit": 5}


def test_several_outputs_are_returned_by_name():
    value = {"centre": 1, "height": 2}

    assert by_name(value, TWO) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, r"2 outputs are declared \(height, centre\), .* not a int"),
        ((1, 2), "must return a dict of them, not a tuple"),
        (None, "must return a dict of them, not a NoneType"),
        ({"height": 1}, "did not return the declared output 'centre'"),
        ({"height": 1, "centre": 2, "width": 3}, "returned 'width', which is not"),
        ({"height": 1, "center": 2}, "'center', .*did you mean 'centre'"),
        ({"height": 1, 5: 2}, "returned 5, which is not declared"),
    ],
)
def test_names_that_are_not_the_declared_ones_are_refused(value, message):
    with pytest.raises(OutputError, match=message):
        by_name(value, TWO)


def test_a_dict_under_one_output_must_have_its_name():
    with pytest.raises(OutputError, match=r"'fitt', .*did you mean 'fit'"):
        by_name({"fitt": 5}, {"fit": Output()})


@pytest.mark.parametrize(
    ("value", "shape", "dtype"),
    [
        (2.5, (), "f8"),
        (2, (), "f8"),
        (True, (), "f8"),
        (np.float32(2.5), (), "f8"),
        (np.float64(2.5), (), "f4"),
        (np.array(2.5), (), "f8"),
        (np.int64(-3), (), "i2"),
        (7, (), "u1"),
        (True, (), "i4"),
        (True, (), bool),
        (np.True_, (), bool),
        (2, (), "c16"),
        (2.5, (), "c8"),
        (1 + 2j, (), "c8"),
        (np.nan, (), "f4"),
        ([1.5, 2.5], 2, "f8"),
        ([1, 2], 2, "f4"),
        ([1, 2], 2, "u1"),
        ((1, 2), 2, "i8"),
        ([[1, 2], [3, 4]], (2, 2), "i2"),
        (np.arange(3), 3, "i4"),
        (np.arange(3.0), 3, "f4"),
        (np.arange(3.0)[::-1], 3, "f8"),
        (np.arange(3, dtype=">f8"), 3, "f8"),
        (np.arange(6.0).reshape(3, 2).T, (2, 3), "f8"),
        (b"abc", (), "S3"),
        (b"ab", (), "S3"),
        ([b"a", b"bcd"], 2, "S3"),
        (np.array([True, False]), 2, bool),
        (2**64 - 1, (), "u8"),
        (-(2**63), (), "i8"),
    ],
)
def test_a_value_of_the_declared_shape_and_kind_is_stored_as_it_is(value, shape, dtype):
    stored = place(value, shape, dtype)

    np.testing.assert_array_equal(stored, np.asarray(value).astype(dtype))


def test_the_other_rows_stay_as_they_are():
    output = Output(2)
    rows = output.filled(3)

    row_placer("fit", output, rows)(1, [1.0, 2.0])

    np.testing.assert_array_equal(rows, [[np.nan] * 2, [1, 2], [np.nan] * 2])


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (5.0, 3),
        (np.float64(5), 3),
        ([5.0], 3),
        (np.zeros((1, 3)), 3),
        (np.zeros((3, 1)), 3),
        (np.zeros(4), 3),
        (np.zeros(1), ()),
        ([1.0], ()),
        (np.zeros((3, 2)), (2, 3)),
        (np.zeros(6), (2, 3)),
    ],
)
def test_a_value_of_another_shape_is_never_broadcast(value, shape):
    declared_shape = re.escape(str(Output(shape).shape))
    got = re.escape(str(np.shape(value)))
    message = f"'fit' is declared with shape {declared_shape}, .* returned shape {got}"

    with pytest.raises(OutputError, match=message):
        place(value, shape)


@pytest.mark.parametrize(
    ("value", "shape", "dtype"),
    [
        (2.7, (), "i4"),
        (2.0, (), "i4"),
        (np.float32(2.7), (), "i8"),
        (np.array([1.0, 2.7]), 2, "i4"),
        ([1, 2.7], 2, "i4"),
        (1j, (), "f8"),
        (np.array([1j]), 1, "f4"),
        (1, (), bool),
        (0.0, (), bool),
        (-1, (), "u1"),
        (256, (), "u1"),
        ([1, 300], 2, "u1"),
        (np.int8(-1), (), "u2"),
        (2**64, (), "u8"),
        (2**63, (), "i8"),
        ("2.5", (), "f8"),
        (b"2", (), "i4"),
        (None, (), "f8"),
        (object(), (), "f8"),
        ([1.0, None], 2, "f8"),
        ([[1.0], [2.0, 3.0]], 2, "f8"),
        (b"abcd", (), "S3"),
        ([b"a", b"abcd"], 2, "S3"),
        ("grün", (), "S4"),
        (12345, (), "S3"),
        (np.float64(1.23456), (), "S3"),
        (np.datetime64("2024-01-01"), (), "i8"),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_a_value_that_would_lose_something_is_refused(value, shape, dtype):
    with pytest.raises(OutputError, match="output 'fit'"):
        place(value, shape, dtype)


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked,
        np.ma.array(2.5, mask=True),
        np.ma.array([1.0, 2.5], mask=[False, True]),
    ],
    ids=["masked", "scalar", "array"],
)
def test_masked_values_are_never_stored(value):
    """A mean over nothing is ``masked``, which numpy would turn into 0.0."""
    with pytest.raises(OutputError, match="mask"):
        place(value, np.shape(value))


@pytest.mark.parametrize(
    ("value", "dtype"),
    [("abc", "S3"), ("grün", "S5"), (np.str_("abc"), "S3"), (np.array("abc"), "S3")],
    ids=repr,
)
def test_text_is_stored_as_utf_8(value, dtype):
    assert place(value, (), dtype) == str(value).encode()


@pytest.mark.parametrize(
    "value",
    [
        (1.5, 2),
        np.array((1.5, 2), PEAK),
        np.array((1.5, 2), PEAK)[()],
        np.array((1.5, 2), [("height", "f8"), ("count", "i2")]),
    ],
    ids=["tuple", "array", "scalar", "other widths"],
)
def test_a_compound_is_a_tuple_or_an_array_of_it(value):
    assert place(value, (), PEAK).tolist() == (1.5, 2)


def test_several_compounds_are_a_list_of_tuples():
    assert place([(1.5, 2), (2.5, 3)], 2, PEAK).tolist() == [(1.5, 2), (2.5, 3)]


@pytest.mark.parametrize(
    "value",
    [
        (1.5, 2.7),
        (1.5, 2**40),
        (1.5,),
        (1.5, 2, 3),
        5.0,
        np.array((1.5, 2.0), [("height", "f4"), ("count", "f4")]),
        np.array((2, 1.5), [("count", "i4"), ("height", "f4")]),
        np.array((1.5, 2), [("width", "f4"), ("count", "i4")]),
    ],
    ids=[
        "fraction for an integer",
        "too large",
        "too short",
        "too long",
        "a number for all fields",
        "floating field",
        "fields in another order",
        "another field",
    ],
)
def test_a_compound_that_would_lose_something_is_refused(value):
    with pytest.raises(OutputError, match="output 'fit'"):
        place(value, (), PEAK)


def test_fields_of_the_same_kind_are_never_taken_for_each_other():
    swapped = np.array((1.0, 2.0), [("centre", "f8"), ("height", "f8")])

    with pytest.raises(OutputError, match="output 'fit'"):
        place(swapped, (), [("height", "f8"), ("centre", "f8")])


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("f4", [1.5, 2, np.float64(3.5), np.array(4.5), True, np.int8(2), 7.5]),
        ("i2", [1, np.int64(2), True, np.array(4), 5, np.int8(-6)]),
        (bool, [True, np.False_, False, np.array(True)]),
        ("c8", [1, 2.5, 3j, np.complex64(4j)]),
        ("S3", [b"a", b"abc", "de", np.bytes_(b"f")]),
    ],
)
def test_types_may_change_from_position_to_position(dtype, values):
    output = Output(dtype=dtype)
    rows = output.filled(len(values))
    put = row_placer("fit", output, rows)

    for index, value in enumerate(values):
        put(index, value)

    expected = [v.encode() if isinstance(v, str) else v for v in values]
    assert rows.tolist() == [np.asarray(v).astype(dtype)[()] for v in expected]


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("i2", 5, 2**40),
        ("i2", 5, 2.7),
        ("i2", np.int64(5), np.float64(2.7)),
        ("f8", 5.0, "text"),
        ("f8", 5.0, [5.0]),
        ("f8", 5.0, np.ones(1)),
        pytest.param("f8", 5, 10**400, id="an integer beyond all floats"),
        ("S3", b"abc", b"abcd"),
        (bool, True, 1),
        ("c8", 5j, "text"),
    ],
)
def test_a_good_value_opens_no_door_for_a_bad_one(dtype, good, bad):
    output = Output(dtype=dtype)
    rows = output.filled(2)
    put = row_placer("fit", output, rows)
    put(0, good)

    with pytest.raises(OutputError):
        put(1, bad)


@given(
    st.sampled_from(["i1", "u1", "i2", "u4", "i8", "u8"]),
    st.integers(-(2**65), 2**65) | st.integers(-300, 300),
)
def test_a_python_integer_is_stored_exactly_or_refused(dtype, number):
    info = np.iinfo(dtype)
    fits = info.min <= number <= info.max

    try:
        stored = int(place(number, (), dtype))
    except OutputError:
        stored = None

    assert stored == (number if fits else None)


def test_a_block_of_rows_is_checked_as_a_whole():
    rows = np.arange(6.0).reshape(3, 2)

    assert fitted_array("fit", rows, np.dtype("f8"), (3, 2)) is rows
    with pytest.raises(OutputError, match=r"declared with shape \(4, 2\)"):
        fitted_array("fit", rows, np.dtype("f8"), (4, 2))


def test_a_block_that_returns_one_value_is_told_how_many_rows_it_needs():
    words = r"needs a row for each of 3 positions, shape \(3,\), but .* shape \(\)"
    with pytest.raises(OutputError, match=words):
        block_rows("fit", 1.0, Output(), 3)
