"""Attributes: counted by value, but for those that the computation changes itself."""

from typing import ClassVar

import param
import pytest

import resumable as rs


class Model:
    """A user's object with methods that change it."""

    def __init__(self):
        self.gain, self.known, self.calls = 1, {}, 0

    def set_gain(self, gain):
        self.gain = gain

    def count(self):
        self.calls += 1

    def __call__(self, number):
        self.count()
        if number not in self.known:
            self.known[number] = number * self.gain
        return self.known[number]


class Uses(rs.Process):
    outputs: ClassVar = {"x": rs.Output()}
    model = param.Parameter()

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self._width, self._last, self.visited, self.limit = 1, None, [], None

    @property
    def width(self):
        return self._width

    @width.setter
    def width(self, width):
        self._width = width

    @property
    def last(self):
        return self._last

    @last.setter
    def last(self, last):
        self._last = last

    def reset(self):
        self._width = 1

    def setup(self):
        if self.limit is None:
            self.limit = 1e9

    def unit_computation(self, position):
        self.visited.append(position)
        self.last = min(self.model(position) * self.width, self.limit)
        return self.last


@pytest.fixture
def process(tmp_path):
    return Uses(5, tmp_path, model=Model())


@pytest.mark.parametrize(
    "change",
    [
        lambda process: setattr(process, "width", 7),
        lambda process: process.model.set_gain(7),
        lambda process: setattr(process.model, "gain", 7),
        lambda process: setattr(process, "last", 7),
    ],
    ids=["setter", "method", "attribute", "assigned in a worker's copy"],
)
def test_what_is_set_from_outside_counts(process, change):
    """Though setters and methods assign it: not to the object that is computed with."""
    before = process.identity
    change(process)

    assert process.identity != before


@pytest.mark.parametrize(
    "change",
    [
        lambda process: process.model.known.update(a=7),
        lambda process: process.model.count(),
        lambda process: process.visited.append(7),
    ],
    ids=["method", "method of a method", "list"],
)
def test_what_the_computation_changes_is_state(process, change):
    """Else a run would not be found again where it was computed."""
    before = process.identity
    change(process)

    assert process.identity == before


def test_a_default_that_setup_replaces_does_not_hide_what_was_given(process):
    default = process.identity
    process.limit = 2.0

    assert process.identity != default
    results = process.compute(engine="serial", progress=False)
    assert results["x"][...].tolist() == [0, 1, 2, 2, 2]


def test_a_run_is_found_again_after_it_has_changed_its_objects(process):
    results = process.compute(engine="serial", progress=False)

    assert process.model.calls == 5
    assert results["x"][...].tolist() == [0, 1, 2, 3, 4]
    assert process.results == results
    assert process.compute(engine="serial", progress=False) == results
    assert process.model.calls == 5


def test_state_is_said_to_be_none_of_the_identity(process):
    notes = "\n".join(process._request().trace.not_followed)

    assert "self.visited is changed by the computation" in notes
    assert "self._last" not in notes
    assert "Model.known (the parameter 'model') is changed by the computation" in notes
    assert "gain" not in notes
