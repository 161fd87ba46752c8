"""A Process as JSON and back, and found again by a fresh interpreter."""

import datetime as dt
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import LOW, Colour, Fit, Narrow, python

import resumable as rs
from resumable.model.encoding import canonical, decode, encode

# State.


def again(process, cls=None):
    return rs.load(json.loads(json.dumps(process.state())), cls)


@pytest.mark.parametrize(
    "extra",
    [
        None,
        1,
        1.0,
        True,
        "text",
        float("nan"),
        -math.inf,
        -0.0,
        2 - 1j,
        complex(math.nan, math.inf),
        b"\0\xff",
        Path("/a/b"),
        dt.date(2024, 2, 29),
        dt.time(1, 2, 3, 4),
        dt.datetime(2024, 1, 2, 3, 4, tzinfo=dt.UTC),
        dt.timedelta(-1, 2, 3),
        range(1, 9, 2),
        slice(None, 4),
        {1, 2, (3, "x")},
        {"float": "nan", "b": [1, {"c": 2.5}]},
        [[], {}, None],
        np.dtype("f4"),
        np.dtype([("a", "<i4"), ("b", "<f8", 3)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_value_that_can_be_read_back_is_the_same_again(scan, extra):
    process = Fit(scan, extra=extra, window=(3, 4), colour=Colour.BLUE)

    same = again(process, Fit)

    assert type(same.extra) is type(extra)
    assert repr(same.extra) == repr(extra) or same.extra == extra
    assert same.window == (3, 4)
    assert same.colour is Colour.BLUE
    assert same.identity == process.identity


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.binary()
    | st.dates()
    | st.timedeltas()
    | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_encoded_can_be_decoded(value):
    text = canonical(encode(value))

    assert canonical(encode(decode(json.loads(text)))) == text


@pytest.mark.parametrize(
    "document",
    [
        {"bytes": "xyz"},
        {"range": ["a"]},
        {"other": 1},
        {},
        {"a": 1, "b": 2},
        {"float": []},
        {"date": 3},
        {"complex": ["x", 1]},
        {"set": 4},
        {"dtype": "zz"},
    ],
    ids=str,
)
def test_a_document_that_makes_no_sense_is_refused(document):
    with pytest.raises(rs.IdentityError, match="makes no sense"):
        decode(document, "the parameter 'x'")


@pytest.mark.parametrize(
    ("part", "wrong", "words"),
    [
        ("parameters", [1], r"'parameters' of a state must be a dict, not \[1\]"),
        ("inputs", None, "'inputs' of a state must be a dict, not None"),
        ("inputs", {"x": 1}, "input 'x' of a state must be a source and its axes"),
        ("axes", 0, "'axes' of a state must be a list, not 0"),
        ("source", {}, "source {} of this state is no output of a run"),
    ],
)
def test_a_part_of_a_state_of_a_wrong_kind_is_named(scan, part, wrong, words):
    with pytest.raises(rs.DeclarationError, match=words):
        rs.load({**Fit(scan).state(), part: wrong}, Fit)


@pytest.mark.parametrize("wrong", [3, None, b"x", [1]], ids=str)
def test_what_names_no_run_is_told(scan, wrong):
    for call in (rs.open, rs.Results, rs.verify, Fit(scan).adopt):
        with pytest.raises(rs.RunFileError, match="a run must be the name of a run fi"):
            call(wrong)
    with pytest.raises(rs.DeclarationError, match="a state must be what state"):
        rs.load(wrong)
    with pytest.raises(rs.DeclarationError, match="cls must be a subclass of Process"):
        rs.load(Fit(scan).state(), wrong or 3)


def test_a_state_that_could_not_be_read_back_is_refused_at_once(scan):
    """Of an array beyond 16 MB only a digest is written, unless it is the default."""
    assert again(Fit(scan), Fit).kernel is Fit.kernel
    with pytest.raises(rs.IdentityError) as array:
        Fit(scan, kernel=np.zeros((16 << 17) + 1)).state()
    with pytest.raises(rs.IdentityError) as member:
        Fit(scan, extra=Colour.RED).state()

    assert str(array.value) == (
        "the parameter 'kernel' is an array of which only a digest is written down, as "
        "a run file keeps up to 1,000 arrays of 16 MB together, of dtypes that numpy "
        "has and in lists not more than 10 deep; make it the default, or give it in "
        "Python each time"
    )
    assert str(member.value) == (
        "the parameter 'extra' is an enum, and only its name is written down; declare "
        "the parameter as param.Selector(objects=list(THE_ENUM)), or give it in Python "
        "each time"
    )


def test_source_inputs_axes_target_and_fingerprint_come_back(make_file, tmp_path):
    class Two(rs.Process):
        version = 1
        outputs = LOW

        def unit_computation(self, spectrum, back, dark):
            return spectrum.min() - back - dark

    path = make_file(data=np.ones((3, 4, 5)), back=np.ones((4, 5)))
    other = make_file("dark.h5", dark=np.zeros((5, 4)))
    (tmp_path / "results").mkdir()
    process = Two(
        f"{path}::/data",
        str(tmp_path / "results"),
        inputs={"back": "::/back", "dark": (f"{other}::/dark", (1, 0))},
        position_axes=(1, 2),
        fingerprint="full",
    )
    results = process.compute(engine="serial")

    for same in (
        again(process, Two),
        rs.load(results, Two),
        rs.load(results.path, Two),
    ):
        assert same.identity == process.identity
        assert same.results == results
        assert same.map_shape == (4, 5)
        assert same._full


def test_a_chained_process_and_one_without_data_come_back(scan, tmp_path):
    first = Fit(scan).compute(engine="serial")
    second = Fit(first["low"], extra=1)
    third = Fit(5, tmp_path)

    assert again(second, Fit).identity == second.identity
    assert again(second, Fit).state() == second.state()
    assert again(third, Fit).identity == third.identity


def test_a_fresh_interpreter_finds_the_run_again(home):
    python(
        """
        import json
        from levels import Level
        process = Level("scan.h5::/data", gain=3, tags={"x", "y", "z", "w"})
        process.compute(engine="serial")
        json.dump([process.state(), process.identity], open("state.json", "w"))
        """,
        seed="11",
    )
    state, identity = json.loads(Path("state.json").read_text())
    Path("only.json").write_text(json.dumps(state))

    printed = python(
        """
        import json, sys
        import resumable as rs
        state, identity = json.load(open("state.json"))
        for given in (state, "only.json"):
            process = rs.load(given)
            assert process.identity == identity
            (found,) = process.duplicates
            assert process.plan().action == "return"
        process = rs.load(found.path, "levels.py:Level")
        assert process.identity == identity and process.gain == 3
        print(repr(process))
        """,
        seed="12",
    )

    assert "gain=3" in printed
    assert state["class"] == "levels:Level"
    assert identity == rs.open(next(home.glob("scan-data-Level-*.h5"))).identity


def test_a_class_that_a_run_file_names_is_never_imported(home):
    python(
        """
        from levels import Level
        Level("scan.h5::/data").compute(engine="serial")
        """
    )
    Path("imported").unlink()
    (path,) = home.glob("scan-data-Level-*.h5")
    state = {**Fit("scan.h5::/data").state(), "class": "levels.py:Level"}

    with pytest.raises(rs.DeclarationError, match=r"rs\.load\(path, Level\)"):
        rs.load(path)
    for name in ("levels.py:Level", "./levels.py:Level", "a/b:Level", "", "levels"):
        with pytest.raises(rs.DeclarationError, match=r"names (the|no) class"):
            rs.load({**state, "class": name})
    assert not Path("imported").exists()


def test_what_is_no_state_is_an_error(scan, tmp_path):
    state = Fit(scan).state()
    text = tmp_path / "x.json"

    with pytest.raises(rs.DeclarationError, match="lacks 'axes'"):
        rs.load({k: v for k, v in state.items() if k != "axes"}, Fit)
    with pytest.raises(rs.DeclarationError, match="version is another"):
        rs.load({**state, "resumable": 2}, Fit)
    with pytest.raises(rs.DeclarationError, match="'Fit', and 'Narrow' was given"):
        rs.load(state, Narrow)
    with pytest.raises(rs.DeclarationError, match="cannot be imported"):
        rs.load({**state, "class": "no_such_module_of_ours:Fit"})
    with pytest.raises(rs.DeclarationError, match="has no Process 'dumps'"):
        rs.load({**state, "class": "json:dumps"})
    with pytest.raises(rs.ParameterError, match="no parameter 'old'"):
        rs.load({**state, "parameters": {"old": 1}}, Fit)
    with pytest.raises(rs.DeclarationError, match="cannot be read"):
        rs.load(text)
    text.write_text("[]")
    with pytest.raises(rs.DeclarationError, match="holds a list"):
        rs.load(text)
    text.write_text("{")
    with pytest.raises(rs.DeclarationError, match="neither a run file nor a state"):
        rs.load(text)
