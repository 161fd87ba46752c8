"""Parameters bound to those of other Processes, and frozen while computing."""

import contextlib
import copy
import gc
import pickle
import threading
import weakref
from pathlib import Path

import cloudpickle
import h5py
import param
import pytest
from programs import LOW, Fit, Narrow

import resumable as rs

# Sharing.


def test_an_assignment_to_one_is_made_in_all(scan):
    a, b, c = Fit(scan), Fit(scan), Narrow(scan)
    rs.share_parameter(a, b, "half_width")
    rs.share_parameter(b, c, "half_width")

    a.half_width = 0.3
    assert (b.half_width, c.half_width) == (0.3, 0.3)
    c.param.update(half_width=0.2, order=5)
    assert (a.half_width, b.half_width, a.order) == (0.2, 0.2, 1)
    assert a.identity == b.identity


def test_a_value_that_was_set_wins_over_a_default(scan):
    a, b, c = Fit(scan, half_width=0.3), Fit(scan), Fit(scan)
    rs.share_parameter(b, a, "half_width")
    assert b.half_width == 0.3
    rs.share_parameter(c, b, "half_width")
    assert (a.half_width, c.half_width) == (0.3, 0.3)
    fourth = Fit(scan, half_width=Fit.half_width)
    rs.share_parameter(a, fourth, "half_width")
    assert a.half_width == 0.1


def test_a_value_that_one_refuses_changes_none(scan):
    a, b = Fit(scan, half_width=0.2), Narrow(scan)
    rs.share_parameter(a, b, "half_width")
    seen = []
    a.param.watch(lambda event: seen.append(event.new), "half_width")

    for process in (a, b):
        with pytest.raises(rs.ParameterError, match=r"at most 0\.5"):
            process.half_width = 0.7
    assert (a.half_width, b.half_width, seen) == (0.2, 0.2, [])
    b.half_width = 0.4
    assert seen == [0.4]

    wide = Fit(scan, half_width=0.9)
    with pytest.raises(rs.ParameterError, match=r"at most 0\.5"):
        rs.share_parameter(b, wide, "half_width")
    assert (b.half_width, wide.half_width) == (0.4, 0.9)
    wide.half_width = 0.8
    assert b.half_width == 0.4


def test_what_cannot_be_shared_is_an_error(scan):
    a, b = Fit(scan), Fit(scan)
    for wrong in ((a, "order"), (a, b), (), (a, b, 3)):
        with pytest.raises(rs.ParameterError, match="two Processes or more"):
            rs.share_parameter(*wrong)
    with pytest.raises(rs.ParameterError, match="did you mean 'half_width'"):
        rs.share_parameter(a, b, "half_widht")
    with pytest.raises(rs.ParameterError, match="has no parameter 'name'"):
        rs.share_parameter(a, b, "name")
    with pytest.raises(rs.ParameterError, match="no parameter 'order'"):
        rs.share_parameter(a, scan, "order")


def test_sharing_keeps_nothing_alive(scan):
    a, b, c = Fit(scan), Fit(scan), Fit(scan)
    rs.share_parameter(a, b, c, "order")
    gone = weakref.ref(b)
    del b
    gc.collect()

    assert gone() is None
    a.order = 4
    assert c.order == 4


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda p: cloudpickle.loads(cloudpickle.dumps(p))],
)
def test_a_copy_does_not_share(scan, duplicate):
    """It has the value, and no reference to the others; a pickle is small."""
    a, b = Fit(scan), Fit(scan, extra="x" * 100_000)
    rs.share_parameter(a, b, "order")
    a.order = 6
    other = duplicate(a)

    assert other.order == 6
    assert len(cloudpickle.dumps(a)) < 50_000
    other.order = 7
    assert (a.order, b.order) == (6, 6)
    assert pickle.loads(pickle.dumps(a)).order == 6


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_is_a_process_of_its_own(scan, duplicate):
    original = Fit(scan, order=4)
    original.table = [1.0]
    other = duplicate(original)
    before = original.identity
    other.order = 5

    assert duplicate(original).identity == before
    assert other.identity != before
    assert (original.order, original.identity) == (4, before)
    assert (other.table is original.table) is (duplicate is copy.copy)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_process_at_work_can_be_changed(scan, duplicate, monkeypatch):
    copies = []
    monkeypatch.setattr(Held, "hook", lambda process: copies.append(duplicate(process)))
    Held(scan).compute(engine="serial")
    copies[0].gain = 2.0

    assert copies[0].gain == 2.0


# Plain values in a subclass.


class Bounded(rs.Process):
    version = 1
    outputs = LOW
    width = param.Number(1.0, bounds=(0, 10), doc="width of the peak")

    def unit_computation(self, spectrum):
        return self.width


class Wider(Bounded):
    width = 3.0
    seed = 4


def test_a_plain_value_is_another_default_of_the_same_parameter(scan):
    with pytest.raises(rs.ParameterError, match=r"'Wider\.width' must be at least 0"):
        Wider(scan, width=-5.0)

    assert (Wider.param.width.doc, Wider.param.width.bounds) == (
        "width of the peak",
        (0, 10),
    )
    assert (Wider(scan).width, Wider(scan).seed, Wider(scan, width=2.0).width) == (
        *(3.0, 4),
        2.0,
    )
    assert (Bounded(scan).width, Bounded(scan).seed) == (1.0, 0)
    with pytest.raises(rs.ParameterError, match=r"'Bounded\.seed' must be at least 0"):
        Bounded(scan, seed=-1)


def test_a_plain_value_of_another_base_class_is_a_default_too(scan):
    class Options:
        width = 4.0

    class Optional(Options, Bounded):
        pass

    with pytest.raises(
        rs.ParameterError, match=r"'Optional\.width' must be at least 0"
    ):
        Optional(scan, width=-5.0)

    assert Optional(scan).width == 4.0


@pytest.mark.parametrize("value", [30.0, "wide", property(lambda self: 2.0)])
def test_a_plain_value_that_the_parameter_refuses_is_an_error(value):
    with pytest.raises(
        rs.DeclarationError, match=r"Odd\.width is a parameter of a base"
    ):
        type("Odd", (Bounded,), {"width": value})


def test_a_method_is_no_value_of_a_number():
    with pytest.raises(rs.DeclarationError, match=r"base class, and a method is none"):

        class Odd(Bounded):
            def width(self):
                return 2.0


class Held(rs.Process):
    """Calls back at position 0."""

    version = 1
    outputs = LOW
    gain = param.Number(1.0)
    hook = None

    def unit_computation(self, spectrum):
        if self.position == 0:
            type(self).hook(self)
        return spectrum.min() * self.gain


def attempt(process, seen, **values):
    for name, value in values.items():
        try:
            setattr(process, name, value)
        except rs.ParameterError as error:
            seen.append(str(error))
        else:
            seen.append(None)


@pytest.mark.parametrize("what", ["compute", "test", "verify"])
def test_parameters_cannot_be_set_while_a_process_computes(scan, what, monkeypatch):
    process, other = Held(scan, gain=2.0), Held(scan)
    rs.share_parameter(process, other, "gain")
    if what == "verify":
        monkeypatch.setattr(Held, "hook", lambda _: None)
        process.compute(engine="serial")
    seen = []

    def hook(unit):
        for one in (process, other, unit):
            thread = threading.Thread(
                target=attempt, args=(one, seen), kwargs={"gain": 3}
            )
            thread.start()
            thread.join()

    monkeypatch.setattr(Held, "hook", hook)
    if what == "compute":
        process.compute(engine="serial")
    elif what == "test":
        process.test(0)
    else:
        assert process.verify(sample="all").passed

    assert len(seen) >= 3
    assert all("Held.gain cannot be set to 3 while a Held computes" in s for s in seen)
    process.gain = 4.0
    assert (process.gain, other.gain) == (4.0, 4.0)


def test_parameters_can_be_set_after_an_error_but_not_after_an_inner_run(
    scan, monkeypatch
):
    """Computations are counted, so that the end of an inner one allows nothing."""
    process = Held(scan)
    seen = []

    def inner(unit):
        monkeypatch.setattr(Held, "hook", lambda _: None)
        process.test(0)
        attempt(process, seen, gain=3)
        raise RuntimeError("broken")

    monkeypatch.setattr(Held, "hook", inner)
    with pytest.raises(rs.UnitFailed, match="broken"):
        process.compute(engine="serial", on_error="raise")

    assert len(seen) == 1
    assert seen[0]
    process.gain = 3
    assert process.gain == 3


class Resolved(Held):
    """Calls back while it is resolved."""

    hook = staticmethod(lambda _: None)

    def outputs(self):
        type(self).hook(self)
        return LOW

    def unit_computation(self, spectrum):
        return spectrum.min() * self.gain


@pytest.mark.parametrize("in_background", [False, True])
def test_parameters_cannot_be_set_from_before_they_are_resolved(
    scan, in_background, monkeypatch
):
    process, seen = Resolved(scan, gain=2.0), []

    def hook(resolved):
        thread = threading.Thread(
            target=attempt, args=(process, seen), kwargs={"gain": 3}
        )
        thread.start()
        thread.join()

    monkeypatch.setattr(Resolved, "hook", hook)
    if in_background:
        run = process.start(engine="serial")
        attempt(process, seen, gain=4)
        results = run.wait(30)
    else:
        results = process.compute(engine="serial")

    assert len(seen) >= 1
    assert all("while a Resolved computes" in said for said in seen)
    assert results.document["parameters"]["gain"] == process.gain == 2.0
    process.gain = 3.0
    assert process.gain == 3.0


def test_parameters_can_be_set_after_a_refused_start(scan):
    process = Held(scan)
    # The traceback, which is kept, has the call's variables.
    with pytest.raises(rs.PlanError, match="nonsense") as told:
        process.start(nonsense=1)
    process.gain = 3.0
    Path(scan.partition("::")[0]).unlink()
    with pytest.raises(rs.SourceError):
        process.start()
    process.gain = 4.0

    assert told.traceback
    assert process.gain == 4.0


def test_parameters_can_be_set_after_setup_has_raised(scan):
    class Broken(Held):
        def setup(self):
            raise OSError

    process = Broken(scan)
    for call in (process.test, lambda: process.compute(engine="serial")):
        with contextlib.suppress(OSError):
            call()
        process.gain += 1
    assert process.gain == 3


def test_the_source_stays_as_it_is(scan):
    before = Path(scan.partition("::")[0]).read_bytes()
    rs.load(Fit(scan).state(), Fit).compute(engine="serial")

    with h5py.File(scan.partition("::")[0]) as file:
        assert list(file) == ["data"]
    assert Path(scan.partition("::")[0]).read_bytes() == before
