"""The conformance of a class in one call, and a position for calls by hand."""

import functools
import os
import random
from pathlib import Path

import numpy as np
import param
import pytest
from helpers import compute
from processes import MEAN, listing, process_of

import resumable as rs
from resumable import testing

DATA = np.random.default_rng(5).normal(size=(60, 8))


class Sound(rs.Process):
    """Uses all that a computation may use, and fails at one position."""

    version = 1
    gain = param.Number(2.0)
    outputs = {  # noqa: RUF012
        "value": rs.Output(2, "f4"),
        "peaks": rs.Output(ragged=True),
        "place": rs.Output(dtype="i8"),
    }

    def setup(self):
        self.table = np.arange(8.0)
        self.cache = {}

    @functools.cached_property
    def norm(self):
        return np.linalg.norm(np.arange(3.0))

    def unit_computation(self, spectrum, offset):
        if self.position == 59:
            raise ValueError("nothing there")
        with np.errstate(all="ignore"):
            ratio = spectrum / 0
        spectrum *= self.table
        noise = self.rng.normal()
        total = self.gain * spectrum.sum() + noise + offset * self.norm
        return {
            "value": [total, ratio[0]],
            "peaks": spectrum[spectrum > 0],
            "place": self.position,
        }


def sound(tmp_path, **more):
    return Sound(DATA, tmp_path, shared={"offset": 1.5}, **more)


def found(process, positions=None):
    """Return what is wrong with a Process, by the name of the check."""
    with pytest.raises(testing.CheckFailed) as failed:
        rs.testing.check(process, positions)
    report = failed.value.report
    assert isinstance(failed.value, AssertionError)
    assert str(failed.value) == repr(report)
    assert not report.passed
    return {one.name: one.words for one in report.checks if one.passed is False}


def test_a_sound_class_conforms_and_nothing_is_left(tmp_path):
    process = sound(tmp_path)
    before, attributes = listing(tmp_path), dict(vars(process))

    report = rs.testing.check(process)

    assert report.passed
    lines = [line.split(maxsplit=2) for line in repr(report).splitlines()]
    assert repr(report).startswith("Sound conforms (at 0, 14, 29 and 2 more positions)")
    assert [line[:2] for line in lines[1:]] == [
        ["sent", "ok"],
        ["outputs", "ok"],
        ["alone", "ok"],
        ["state", "ok"],
        ["worker", "ok"],
    ]
    assert "1 positions raise: at 59 it raised ValueError: nothing there" in repr(
        report
    )
    assert listing(tmp_path) == before
    assert dict(vars(process)) == {**attributes, "_frozen": 0}


def test_a_block_computation_conforms_within_rtol(tmp_path):
    def block(self, spectra):
        if (self.position == 29).any():
            raise ValueError("no luck")
        return spectra @ np.ones(8) * (1 + 1e-9 * len(spectra))

    Block = process_of(block=block)
    report = rs.testing.check(Block(DATA, tmp_path))
    assert "the same within rtol=1e-05" in repr(report)
    Block.rtol = 1e-12
    assert found(Block(DATA, tmp_path)).keys() == {"alone", "worker"}
    chosen = rs.testing.check(Block(DATA, tmp_path), [3])
    assert chosen.positions == ("3",)


def counts(self, spectrum):
    self.calls = getattr(self, "calls", 0) + 1
    return self.calls


def fills_class(self, spectrum):
    type(self).filled.append(1)
    return len(type(self).filled)


def draws(self, spectrum):
    return np.random.random()


def draws_plain(self, spectrum):
    return random.random()


def sets_errors(self, spectrum):
    np.seterr(divide="ignore")
    return 1.0


def goes_elsewhere(self, spectrum):
    os.chdir("/")
    return 1.0


def sets_environment(self, spectrum):
    os.environ["RESUMABLE_TESTED"] = "1"
    return 1.0


def tells_process(self, spectrum):
    return float(os.getpid())


def wrong_shape(self, spectrum):
    return spectrum


def always_raises(self, spectrum):
    raise KeyError("x")


@pytest.mark.parametrize(
    ("unit", "checks", "words"),
    [
        (
            counts,
            {"alone", "state"},
            "self.calls (missing before, 5 after): make it in se",
        ),
        (
            fills_class,
            {"alone", "state"},
            "Unit.filled ([] before, [1, 1, 1, 1, 1] after)",
        ),
        (draws, {"alone", "state", "worker"}, "changes np.random: draw from self.rng"),
        (draws_plain, {"alone", "state", "worker"}, "changes random: draw from self."),
        (sets_errors, {"state"}, "the setting numpy_errors ({'divide': 'warn'"),
        (goes_elsewhere, {"state"}, "the working directory ("),
        (sets_environment, {"state"}, "os.environ['RESUMABLE_TESTED'] (missing before"),
        (tells_process, {"worker"}, "'mean' at 0: "),
        (wrong_shape, {"outputs"}, "at 0: output 'mean' is declared with shape ()"),
        (
            always_raises,
            {"outputs"},
            "all positions raise: at 0 it raised KeyError: 'x",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_breaks_a_rule_is_named(tmp_path, monkeypatch, unit, checks, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESUMABLE_TESTED", "0")
    monkeypatch.delenv("RESUMABLE_TESTED")
    errors = np.geterr()
    told = found(process_of(unit, filled=[])(DATA, tmp_path))

    assert checks <= told.keys()
    assert any(words in text for text in told.values()), told
    assert np.geterr() == errors
    assert Path.cwd() == tmp_path
    assert "RESUMABLE_TESTED" not in os.environ


def test_what_cannot_be_sent_is_named_and_the_rest_is_checked(tmp_path):
    class Holds(rs.Process):
        version = 1
        outputs = MEAN

        def unit_computation(self, spectrum):
            return spectrum.mean()

    process = Holds(DATA, tmp_path)
    process.lock = __import__("threading").Lock()
    told = found(process)
    assert told.keys() == {"sent"}
    assert "make what cannot be sent" in told["sent"]


def test_what_setup_raises_is_told(tmp_path):
    class Needs(rs.Process):
        version = 1
        outputs = MEAN

        def setup(self):
            Path("missing").read_text()

        def unit_computation(self, spectrum):
            return spectrum.mean()

    told = found(Needs(DATA, tmp_path))
    assert told["outputs"].startswith("setup() or reading the source raised FileNotF")


def test_a_stage_of_a_chain_conforms_with_those_before_it(tmp_path):
    Twice = process_of(lambda self, spectrum: 2 * spectrum, {"two": rs.Output(8)})
    Peaks = process_of(
        lambda self, two, least: two[two > least],
        {"peaks": rs.Output(ragged=True)},
        name="Peaks",
    )
    chain = rs.Chain(Twice(DATA, tmp_path), Peaks(shared={"least": 0.5}))

    assert rs.testing.check(chain["Peaks"]).process == "Peaks"


def test_a_generator_that_setup_makes_is_named_with_what_to_draw_from(tmp_path):
    def setup(self):
        self.generator = np.random.default_rng(1)

    Draws = process_of(lambda self, s: self.generator.normal(), setup=setup)
    told = found(Draws(DATA, tmp_path))

    words = told["state"].splitlines()
    assert words == ["unit_computation changes self.generator: draw from self.rng"]


@pytest.mark.parametrize("wrong", [Sound, None, 3])
def test_what_is_no_process_is_refused(wrong):
    for call in (testing.check, lambda it: testing.at(it, 0).__enter__()):
        with pytest.raises(rs.DeclarationError, match="takes a Process, as Fit"):
            call(wrong)


def test_no_positions_cannot_be_checked(tmp_path):
    with pytest.raises(rs.PlanError, match=r"there are no positions in \[\]"):
        testing.check(sound(tmp_path), [])


def test_a_class_without_a_source_cannot_be_checked():
    with pytest.raises(rs.SourceError, match="made without a source"):
        rs.testing.check(process_of(lambda self, s: s.mean())())
    with pytest.raises(rs.SourceError, match="made without a source; give it one"):
        process_of(lambda self, s: s.mean())().state()


def test_a_position_for_calls_by_hand_is_that_of_a_run(tmp_path):
    process = sound(tmp_path)
    rows = compute(process, positions=slice(0, 59))
    process.setup()
    for position in (0, 7, np.int64(12)):
        with rs.testing.at(process, position) as given:
            assert given is process
            value = process.unit_computation(DATA[position].copy(), offset=1.5)
        np.testing.assert_allclose(value["value"], rows["value"][position], 1e-6)
        assert value["place"] == position

    with pytest.raises(AttributeError, match=r"rs\.testing\.at\(process, 5\)"):
        process.position  # noqa: B018
    with pytest.raises(AttributeError, match=r"process\.test\(5\) computes position 5"):
        process.rng  # noqa: B018


def test_a_block_is_given_several_positions_and_a_map_tuples(tmp_path):
    Block = process_of(block=lambda self, spectra: spectra.sum(axis=1))
    process = Block(DATA.reshape(6, 10, 8), tmp_path, position_axes=(0, 1))
    with rs.testing.at(process, (2, 3)):
        assert process.position == (2, 3)
        first = process.rng.random()
        with rs.testing.at(process, [(0, 1), (5, 9)]):
            assert [part.tolist() for part in process.position] == [[0, 5], [1, 9]]
        assert process.rng.random() != first
    with rs.testing.at(process, 23):
        assert process.rng.random() == first
    with (
        pytest.raises(rs.PlanError, match="does not exist"),
        rs.testing.at(process, 60),
    ):
        pass


def test_a_unit_can_be_called_without_a_source():
    Plain = process_of(lambda self, spectrum: 2 * spectrum.mean())
    process = Plain()
    assert process.unit_computation(np.ones(3)) == 2
    for name in ("spectrum_shape", "map_shape"):
        with pytest.raises(AttributeError, match="Unit was made without a source"):
            getattr(process, name)


def test_where_nothing_was_computed_nothing_is_compared(tmp_path):
    with pytest.raises(AssertionError) as raised:
        rs.testing.check(process_of(always_raises)(DATA, tmp_path))

    for name in ("alone", "worker"):
        assert f"{name:<12}not checked  no position was" in str(raised.value)
