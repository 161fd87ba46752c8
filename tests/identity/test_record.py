"""The record of a trace: read back from a run file, and printed."""

import golden
import numpy as np
import pytest
from golden import Doubles, Plain
from helpers import compute

import resumable as rs
from resumable.identity import Entry, Trace


@pytest.fixture
def plain(make_file):
    source = make_file(data=np.arange(1.0, 13.0).reshape(4, 3)) + "::/data"
    return compute(Plain(source))


def test_results_have_the_trace_they_were_made_with(plain):
    trace = plain.trace
    helper, constant = trace.entries["limited"], trace.entries["LIMIT"]

    assert plain.document["version"] == {"code": trace.digest}
    assert (helper.kind, constant.kind, constant.text) == ("function", "value", "3")
    assert helper.text.startswith("def limited(number, power=2):\n")
    assert helper.place == f"golden.py:{golden.limited.__code__.co_firstlineno}"
    assert "unused" not in trace.entries
    assert "Plain.draw" not in trace.entries
    assert Trace.from_json(trace.to_json()) == trace
    assert rs.open(plain.path).trace == trace


def test_a_trace_prints_as_a_tree_with_places(plain):
    lines = str(plain.trace).splitlines()
    at = lines.index(f"  limited  ({plain.trace.entries['limited'].place})")

    assert lines[0].endswith(f"with the digest {plain.trace.digest[:8]}")
    assert lines[at + 1].startswith("    limited.power = 2  (golden.py:")
    assert "  LIMIT = 3  (golden.py)" in lines
    assert repr(plain.trace) == "\n".join(lines)
    assert any(line.startswith("It stops at ") and "numpy" in line for line in lines)
    assert not any(line.startswith("Not followed") for line in lines)


def test_what_was_not_followed_is_printed_and_nothing_can_move_the_cursor():
    trace = Trace("0" * 24, {"a\x1b[2J": Entry("value", "", "1")}, (), ("open at a:1",))

    assert str(trace).splitlines()[1:] == [
        "  a\\x1b[2J = 1",
        "Not followed: open at a:1",
    ]


def test_a_trace_that_was_damaged_is_an_error(tmp_path):
    path = compute(Doubles(5, tmp_path)).path
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"not_followed"', b'"not_followes"'))

    assert text.count(b'"not_followed"') == 1
    with pytest.raises(rs.RunFileError, match="is damaged"):
        _ = rs.open(path).trace
