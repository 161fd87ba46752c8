"""Stages that were renamed or got a parameter, and runs of chains that are adopted."""

import numpy as np
import param
import pytest
from chained import compute

import resumable as rs
from resumable.process import Chain

LEVEL, SCALED, DRAWN = ({name: rs.Output()} for name in ("level", "scaled", "drawn"))
ADDED = {"factor": 2.0, "offset": 0.0}


class Level(rs.Process):
    """The first stage."""

    outputs = LEVEL

    def unit_computation(self, spectrum):
        return spectrum.mean()


class Height(rs.Process):
    """The first stage by its name of now."""

    aliases = ("Level",)
    outputs = LEVEL

    def unit_computation(self, spectrum):
        return spectrum.mean()


class Scale(rs.Process):
    """The second stage."""

    version = 1
    outputs = SCALED

    def unit_computation(self, level):
        return level * 2


class Gain(rs.Process):
    """The second stage by its name of now, with two parameters."""

    version = 1
    aliases = ("Scale",)
    added_parameters = ADDED
    factor = param.Number(2.0)
    offset = param.Number(0.0)
    outputs = SCALED

    def unit_computation(self, level):
        return level * self.factor + self.offset


class Shifted(rs.Process):
    """Another name, and none of these declarations."""

    version = 1
    factor = param.Number(2.0)
    outputs = SCALED

    def unit_computation(self, level):
        return level * self.factor


class Drawn(rs.Process):
    """Draws by its name."""

    version = 1
    outputs = DRAWN

    def unit_computation(self, level):
        return level + self.rng.normal()


class Random(Drawn):
    """The same by another name, which draws other numbers."""

    aliases = ("Drawn",)


def test_a_run_of_stages_by_older_names_goes_on(scan):
    """Each stage may have any of its own, and lack what was added to it."""
    before = compute(Chain(Level(scan), Scale()), positions=slice(0, 25))
    now = Chain(Height(scan), Gain())

    assert now["Gain"].plan().pending == 35
    assert "made under an older name" in str(now["Gain"].explain())
    after = compute(now)

    (first,), (second,) = before.stages.values(), after.stages.values()
    assert second.path == first.path
    assert [session.computed for session in second.sessions] == [25, 35]
    assert now["Gain"].verify(sample="all").passed
    assert Chain(Level(scan), Scale())["Scale"].plan().action == "return"
    # Where only one is another, and where a parameter has another value.
    assert Chain(Level(scan), Gain())["Gain"].plan().action == "return"
    assert Chain(Height(scan), Gain(offset=1.0))["Gain"].plan().action == "compute"


def test_older_names_of_a_stage_that_draws_by_its_name_do_not_count(scan):
    compute(Chain(Level(scan), Drawn()))

    assert Chain(Height(scan), Drawn())["Drawn"].plan().action == "return"
    assert Chain(Level(scan), Random())["Random"].plan().action == "compute"


def test_a_run_that_would_match_but_for_names_of_stages_is_named_and_adopted(scan):
    before = compute(Chain(Level(scan), Scale()))
    (path,) = [results.path for results in before.stages.values()]
    now = Chain(Height(scan), Shifted())
    wrong = Chain(Height(scan), Shifted(factor=3.0))["Shifted"]
    told = str(now["Shifted"].explain())

    # The code of Shifted is another, whatever its version says.
    assert "would match" not in told
    with pytest.raises(rs.RunFileError, match="of another computation"):
        wrong.adopt(path, sample="all")
    adopted = now["Shifted"].adopt(path, sample="all")
    results = compute(now)
    assert results.stages["Shifted"].path == adopted.path
    np.testing.assert_array_equal(results["scaled"][...], before["scaled"][...])


def test_explain_says_what_a_stage_could_declare(scan):
    compute(Chain(Level(scan), Scale()))
    renamed = type("Other", (rs.Process,), {**BODY, "__module__": __name__})
    told = str(Chain(renamed(scan), Scale())["Scale"].explain())

    assert "but for the name of the stage, for which there is aliases = ('Le" in told


BODY = {name: vars(Level)[name] for name in ("outputs", "unit_computation")}
