"""What a class declares besides parameters, of a wrong kind: told when it is made."""

import numpy as np
import param
import pytest
from processes import MEAN

import resumable as rs


def declared(**body):
    mean = {"outputs": MEAN, "unit_computation": lambda self, s: s.mean()}
    return type("Fit", (rs.Process,), {**mean, "gain": param.Number(1.0), **body})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"unit_computation": 3}, "Fit.unit_computation must be a method, not 3"),
        ({"setup": None}, "Fit.setup must be a method, not None"),
        ({"setup": lambda: 0}, r"Fit.setup must take \(self\): too many"),
        ({"finish": [1]}, r"Fit.finish must be a method, not \[1\]"),
        ({"finish": lambda self: 0}, r"Fit.finish must take \(self, results\)"),
        ({"ready": True}, "Fit.ready must be a method, not True"),
        ({"draw": "line"}, "Fit.draw must be a method, not 'line'"),
        ({"outputs": lambda self, n: MEAN}, r"Fit.outputs must take \(self\): missing"),
        ({"scratch": "1 MB"}, "Fit.scratch must be a number of bytes, .* not '1 MB'"),
        ({"scratch": -1}, "Fit.scratch must be a number of bytes, 0 or more, not -1"),
        ({"scratch": np.nan}, "Fit.scratch must be a number of bytes"),
        ({"scratch": lambda self: 8}, r"Fit.scratch must take \(self, count\)"),
        ({"rtol": "a"}, "Fit.rtol must be a number from 0, as 1e-5, not 'a'"),
        ({"rtol": -1e-5}, "Fit.rtol must be a number from 0"),
        ({"aliases": 3}, "Fit.aliases must be a tuple of older names .*, not 3"),
        ({"aliases": None}, "Fit.aliases must be a tuple .*, not None"),
        ({"aliases": ("old name",)}, "Fit.aliases must be a tuple"),
        ({"added_parameters": 3}, "Fit.added_parameters must be a dict .*, not 3"),
        ({"added_parameters": {1: 2}}, "added_parameters has 1, which is no parameter"),
        (
            {"added_parameters": {"gain": "1"}},
            "added_parameters has '1' for 'gain', which is none of its values: .*numer",
        ),
        ({"added_parameters": {"seed": -1}}, "has -1 for 'seed', .* at least 0"),
        ({"version": object()}, "version is a object"),
    ],
    ids=lambda part: part if isinstance(part, str) else next(iter(part)),
)
def test_an_attribute_of_a_wrong_kind_is_told_at_construction(scan, body, words):
    """Also of a later stage of a chain, which has no source yet."""
    with pytest.raises((rs.DeclarationError, rs.IdentityError), match=words):
        declared(**body)(scan)
    with pytest.raises((rs.DeclarationError, rs.IdentityError), match=words):
        declared(**body)()


def test_what_scratch_returns_is_checked_when_it_is_asked(scan):
    wrong = declared(scratch=lambda self, count: f"{count} MB")
    with pytest.raises(rs.DeclarationError, match=r"what Fit.scratch\(1\) gives must"):
        wrong(scan).plan()


def test_an_added_parameter_that_is_a_file_counts_by_its_contents(scan, tmp_path):
    """It is given as text, and the parameter has its path."""
    (tmp_path / "table.txt").write_text("1 2 3")
    table = str(tmp_path / "table.txt")
    before = declared(version=1)(scan).compute(engine="serial")
    newer = declared(
        version=1, table=param.Filename(table), added_parameters={"table": table}
    )

    assert newer(scan).compute(engine="serial") == before
