"""What a user declares: outputs, computations, setup, finish, scratch, parameters."""

import functools
import inspect
import threading
from typing import ClassVar

import numpy as np
import param
import pytest
from helpers import compute, data_of
from processes import MEAN, Mean, Scaled, Untraced, listing, process_of

import resumable as rs
from resumable.engines.local import LocalEngine

SUMMED = MEAN | {"total": rs.Output(2, per="run")}


def test_a_table_may_be_an_attribute_of_the_class(scan):
    class Looked(rs.Process):
        outputs = MEAN
        table = np.arange(3.0)

        def unit_computation(self, spectrum):
            return self.table[2]

    first = compute(Looked(scan))
    Looked.table = np.arange(3.0) + 1
    second = compute(Looked(scan))

    assert set(first["mean"][...]) == {2.0}
    assert set(second["mean"][...]) == {3.0}


def test_outputs_may_be_a_method_that_knows_source_and_parameters(make_file):
    class Histogram(rs.Process):
        version = 1
        bins = param.Integer(4)

        def outputs(self):
            return {
                "counts": rs.Output(self.bins, "i8"),
                "same": rs.Output(self.spectrum_shape, self.spectrum_dtype),
                "where": rs.Output(len(self.map_shape), "i8"),
            }

        def unit_computation(self, spectrum):
            counts, _ = np.histogram(spectrum, self.bins)
            return {"counts": counts, "same": spectrum, "where": self.position}

    cube = np.random.default_rng(3).random((3, 4, 9)).astype("f4")
    process = Histogram(make_file(cube=cube) + "::/cube", position_axes=(0, 1), bins=7)
    results = compute(process)

    assert results["counts"].shape == (3, 4, 7)
    assert results["same"].dtype == np.float32
    np.testing.assert_array_equal(results["same"], cube)
    assert results["where"][2, 3].tolist() == [2, 3]
    assert (results["counts"][...].sum(axis=-1) == 9).all()


def with_a_table():
    """Return a class that is sent with all that it has, as one of a script is."""

    class Table(rs.Process):
        version = 1
        gain = param.Number(1.0)
        outputs: ClassVar = {"value": rs.Output()}

        @functools.cached_property
        def table(self):
            return np.arange(60) * self.gain

        @functools.cached_property
        def lock(self):
            return threading.Lock()

        def unit_computation(self, spectrum):
            with self.lock:
                return self.table[self.position]

    return Table


@pytest.mark.parametrize(
    "engine",
    ["serial", LocalEngine(2, "forkserver"), LocalEngine(2, "spawn")],
    ids=["serial", "forkserver", "spawn"],
)
def test_a_cached_property_is_computed_in_every_worker(scan, engine):
    """It can be sent, and what was computed of other parameters is not."""
    process = with_a_table()(scan)
    before = process.table[1]
    assert not process.lock.locked()
    process.gain = 3.0
    results = process.compute(engine=engine)

    assert before == 1.0
    np.testing.assert_array_equal(results["value"], np.arange(60) * 3.0)
    assert {"table", "lock"} <= set(vars(process))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("shared", "give shared= to the Process"),
        ("inputs", "give inputs= to the Process"),
        ("fingerprint", "give fingerprint= to the Process"),
        ("rng", "give the attribute another name"),
        ("map_shape", "give the attribute another name"),
    ],
)
def test_a_class_cannot_declare_what_the_process_is_given_or_has(name, advice):
    with pytest.raises(rs.DeclarationError, match=f"Declares.{name} is a .*{advice}"):
        type("Declares", (rs.Process,), {name: {"axis": 1.0}})


def test_what_cannot_be_sent_is_told_before_anything_is_computed(scan):
    process = with_a_table()(scan)
    process.held = threading.Lock()

    with pytest.raises(TypeError, match=r"lock.*; make what cannot be sent.*setup\(\)"):
        process.compute(engine="local", workers=2)


def test_finish_summarises_once_after_the_last_position(scan):
    seen = []

    class Summed(rs.Process):
        version = 1
        outputs = SUMMED

        def unit_computation(self, spectrum):
            return spectrum.mean()

        def finish(self, results):
            seen.append(results.status.done)
            return {"total": [results["mean"][...].sum(), 60]}

    part = compute(Summed(scan), positions=slice(0, 30))
    nothing_yet = part["total"][...]
    results = compute(Summed(scan))
    compute(Summed(scan))

    assert seen == [60]
    assert np.isnan(nothing_yet).all()
    np.testing.assert_allclose(
        results["total"][...], [data_of(scan).mean(axis=1).sum(), 60]
    )


def test_finish_without_an_output_may_return_anything(scan):
    seen = []

    class Told(Mean):
        version = 1

        def finish(self, results):
            seen.append(results.status.done)
            return "ignored"

    assert compute(Told(scan)).status.finished
    assert seen == [60]


def test_a_failing_finish_is_run_again_without_computing_again(scan):
    process = Mean(scan)
    process.calls = []
    process.finish = Untraced(lambda results: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compute(process)
    unfinished = process.results.status.finished
    process.finish = Untraced(lambda results: None)
    results = compute(process)

    assert not unfinished
    assert results.status.finished
    assert len(process.calls) == 60


def test_a_wrong_value_from_finish_is_refused_and_nothing_is_finished(scan):
    class Summed(Mean):
        version = 1
        outputs = SUMMED

        def unit_computation(self, spectrum):
            return {"mean": spectrum.mean()}

        def finish(self, results):
            return {"total": [1.0, 2.0, 3.0]}

    process = Summed(scan)
    with pytest.raises(rs.OutputError, match=r"shape \(2,\), .* returned shape \(3,\)"):
        compute(process)

    assert not process.results.status.finished
    assert process.results.status.done == 60


def test_scratch_counts_in_the_budget(scan):
    class Hungry(Mean):
        version = 1
        scratch = 1_000_000

    Growing = process_of(
        block=lambda self, spectra: spectra.mean(axis=1),
        scratch=lambda self, count: 500_000 + 250_000 * count,
    )
    plain = Mean(scan).plan(engine="serial", memory="2 MB")
    hungry = Hungry(scan).plan(engine="serial", memory="2 MB")
    growing = Growing(scan).plan(engine="serial", memory="2 MB")

    assert plain.block == 60
    assert hungry.block_bytes >= 1_000_000
    assert growing.block == 5
    with pytest.raises(rs.PlanError, match="one position needs 1 MB"):
        Hungry(scan).plan(engine="serial", memory="0.5 MB")


def test_keywords_win_over_class_values_and_those_over_defaults(scan):
    class Mine(Scaled):
        version = 1

    default = Mine(scan).factor
    Mine.factor = 5

    assert (default, Mine(scan).factor, Mine(scan, factor=7).factor) == (2.0, 5, 7)
    assert Scaled(scan).factor == 2.0
    assert Mine(scan).identity == Mine(scan, factor=5).identity
    # It gets what it was given, and 5 is not 5.0 to all that it may call.
    assert Mine(scan).identity != Mine(scan, factor=5.0).identity


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"facter": 1}, r"no parameter 'facter'; did you mean 'factor'\?"),
        ({"positon_axes": 1}, r"'positon_axes'; did you mean 'position_axes'\?"),
        ({"zzz": 1}, r"no parameter 'zzz' \(there are .*factor"),
        ({"name": "x"}, "no parameter 'name'"),
        ({"factor": 11}, "(?s)factor.*11"),
        ({"factor": -0.1}, "(?s)factor.*-0.1"),
        ({"factor": "2"}, "(?s)factor.*numeric"),
        ({"count": 2.5}, "(?s)count.*integer"),
        ({"kind": "cubic"}, "(?s)kind.*cubic.*linear"),
        ({"seed": -1}, "(?s)seed.*-1"),
        ({"fingerprint": "none"}, "must be 'sample' or 'full'"),
    ],
    ids=str,
)
def test_a_wrong_parameter_is_an_error_at_construction(scan, given, words):
    with pytest.raises(rs.ParameterError, match=words):
        Scaled(scan, **given)


@pytest.mark.parametrize(
    "inside",
    [
        lambda it: it,
        lambda it: [it],
        lambda it: {"a": {1: it}},
        lambda it: np.array(it),
    ],
    ids=["itself", "list", "dict", "array"],
)
def test_a_parameter_that_cannot_be_identified_is_refused(scan, inside):
    generator = (number for number in range(3))

    with pytest.raises(rs.IdentityError, match=r"'anything'.* is a generator"):
        Scaled(scan, anything=inside(generator))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (print, len),
        (np.array([None]), np.array([0], object)),
        ({1: 2}, {"1": 2}),
        (np.add.reduce, np.maximum.reduce),
        ((1, 2), [1, 2]),
    ],
    ids=["functions", "objects", "keys", "methods", "tuple"],
)
def test_parameters_of_any_kind_are_told_apart(scan, one, other):
    assert Scaled(scan, anything=one).identity == Scaled(scan, anything=one).identity
    assert Scaled(scan, anything=one).identity != Scaled(scan, anything=other).identity


def test_an_attribute_with_a_name_of_ours_is_refused(scan):
    class Own(Mean):
        def __init__(self, source):
            super().__init__(source)
            self._given = 1

    with pytest.raises(rs.DeclarationError, match=r"Own sets self\._given"):
        Own(scan)
    with pytest.raises(rs.DeclarationError, match=r"Mean sets self\._inputs"):
        Mean(scan)._inputs = {}


def test_setting_an_attribute_named_nearly_like_a_parameter_warns(scan):
    process = Scaled(scan)
    with pytest.warns(rs.ResumableWarning, match=r"did you mean 'factor'\?") as caught:
        process.facter = 3

    assert caught[0].filename == __file__
    assert process.facter == 3
    process.unrelated = 1
    process.factor = 3


@pytest.mark.parametrize("value", [-1.0, "wide", None])
def test_a_wrong_value_is_an_error_where_it_is_assigned(scan, value):
    process = Scaled(scan)

    with pytest.raises(rs.ParameterError, match=r"Scaled: .*'Scaled\.factor'"):
        process.factor = value
    with pytest.raises(rs.ParameterError, match=r"Scaled: .*'Scaled\.factor'"):
        process.param.update(factor=value)

    assert process.factor == 2


async def awaited(*arguments):
    return 1.0


def yielding(*arguments):
    yield 1.0


class Yielding:
    """A callable object."""

    __name__ = "Yielding"

    def __call__(self, spectrum):
        yield 1.0


@pytest.mark.parametrize("wrong", [awaited, yielding])
@pytest.mark.parametrize(
    "name", ["unit_computation", "setup", "finish", "ready", "outputs", "scratch"]
)
def test_a_method_that_only_begins_when_it_is_called_is_refused(scan, name, wrong):
    """A generator for a result, a setup that is never run: no worker would notice."""
    body = {"unit_computation": lambda self, s: 1.0, "outputs": MEAN, name: wrong}
    made = type("Lazy", (rs.Process,), body)

    with pytest.raises(rs.DeclarationError, match=f"Lazy.{name} is a generator or a"):
        made(scan)


@pytest.mark.parametrize("wrong", [awaited, functools.partial(yielding), Yielding()])
def test_so_is_such_a_function(scan, wrong):
    with pytest.raises(rs.DeclarationError, match="unit_computation is a generator or"):
        rs.map(wrong, scan)


def test_a_keyword_of_the_class_statement_is_refused():
    with pytest.raises(rs.DeclarationError, match=r"Squared: .*power"):

        class Squared(rs.Process, power=2):
            pass


def test_param_cannot_be_imported_into_a_class():
    """It would hide the parameters: refused when the class is made."""
    with pytest.raises(rs.DeclarationError, match="import param outside of the class"):
        type("Inside", (rs.Process,), {"param": param})


@pytest.mark.parametrize("name", ["source", "target", "position", "outputs", "test"])
def test_a_parameter_cannot_take_a_name_of_ours(name):
    """It would hide a method or an argument: refused when the class is made."""
    with pytest.raises(rs.DeclarationError, match=f"{name!r} is taken"):
        type("Taken", (rs.Process,), {name: param.Number(1)})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_error": "ignore"}, "on_error must be 'record' or 'raise'"),
        ({"workers": 0}, "workers must be a whole number from 1"),
        ({"workers": 1.5}, "workers must be a whole number from 1"),
        ({"workers": True}, "workers must be a whole number from 1"),
        ({"checkpoint": 0}, "checkpoint must be a positive time"),
        ({"checkpoint": "10"}, "checkpoint must be a positive time in s, not '10'"),
        ({"time_limit": "soon"}, "time_limit='soon' is not a duration"),
        ({"position_timeout": [1]}, r"position_timeout=\[1\] is not a duration"),
        ({"memory": "much"}, "memory='much' is not a size"),
        ({"override": "no"}, "override must be True or False, not 'no'"),
        ({"retry_failed": 1}, "retry_failed must be True or False, not 1"),
        ({"rechunk": None}, "rechunk must be True or False, not None"),
        ({"progress": "yes"}, "progress must be True or False, not 'yes'"),
        ({"writer": np.arange(2)}, r"writer must be .* or 'driver', not array\("),
        ({"on_error": np.arange(2)}, "on_error must be 'record' or 'raise', not"),
        ({"engine": np.arange(2)}, "engine must be one of auto, serial,"),
        ({"memory": 1}, r"give memory='[\d.]+ \w+' or more"),
        ({"engine": "seriel"}, r"no engine 'seriel'; did you mean 'serial'\?"),
        ({"engine": 7}, "engine must be one of"),
    ],
    ids=str,
)
def test_a_wrong_option_is_an_error_before_anything_is_made(
    scan, tmp_path, options, words
):
    before = listing(tmp_path)
    with pytest.raises(rs.PlanError, match=words):
        Mean(scan).compute(**{"engine": "serial", **options})
    with pytest.raises(rs.PlanError, match=words):
        Mean(scan).plan(**{"engine": "serial", **options})

    assert listing(tmp_path) == before


def test_a_listener_that_cannot_be_called_is_an_error(scan):
    for call in (Mean(scan).compute, Mean(scan).start):
        with pytest.raises(rs.PlanError, match="listener must be a function, not 3"):
            call(listener=3)


def test_a_misspelt_engine_is_an_error_where_the_run_is_finished(scan):
    """No engine is needed then, but the next source would need it."""
    Mean(scan).compute(engine="serial")

    with pytest.raises(rs.PlanError, match="no engine 'seriel'"):
        Mean(scan).compute(engine="seriel")


def test_help_shows_the_arguments_of_the_constructor():
    class Own(rs.Process):
        def __init__(self, path, width=3):
            super().__init__(path)

    class Plain(rs.Process):
        gain = param.Number(1.0)

    assert str(inspect.signature(Own)) == "(path, width=3)"
    for cls in (rs.Process, Plain):
        names = list(inspect.signature(cls).parameters)
        assert names[:3] == ["source", "target", "inputs"]
