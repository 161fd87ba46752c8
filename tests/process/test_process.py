"""Process: what a user writes, what is computed, what stops, what is the same run."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import itertools
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import param
import pytest

import resumable as rs
from resumable.engines.local import LocalEngine
from resumable.system.interrupts import Uninterrupted
from resumable.system.stop import StopRequest

MEAN = {"mean": rs.Output()}


class Mean(rs.Process):
    """The mean of every spectrum; ``calls`` collects the positions computed."""

    version = 1
    outputs = MEAN
    calls = None

    def unit_computation(self, spectrum):
        if self.calls is not None:
            self.calls.append(self.position)
        return spectrum.mean()


class Scaled(rs.Process):
    """A spectrum times a factor, and what is left over for parameters."""

    version = 1
    factor = param.Number(2.0, bounds=(0, 10), doc="what to multiply by")
    count = param.Integer(3)
    kind = param.Selector(objects=["linear", "square"])
    table = param.Array(None)
    anything = param.Parameter(None)

    def outputs(self):
        return {"scaled": rs.Output(self.spectrum_shape, self.spectrum_dtype)}

    def unit_computation(self, spectrum):
        return spectrum * self.factor


class Failing(rs.Process):
    """Raises what the function in ``raises`` returns for a position."""

    version = 1
    outputs = MEAN
    raises = staticmethod(lambda position: None)

    def unit_computation(self, spectrum):
        error = self.raises(self.position)
        if error is not None:
            raise error
        return np.mean(spectrum)


class FailingBlock(rs.Process):
    """The same for whole blocks: one bad position spoils its block."""

    version = 1
    outputs = MEAN
    raises = staticmethod(lambda position: None)

    def block_computation(self, spectra):
        for position in self.position:
            error = self.raises(int(position))
            if error is not None:
                raise error
        return spectra.mean(axis=1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Time trials for 2 ms instead of 100: times are the matter of test_trial."""
    monkeypatch.setattr("resumable.session.trial._MEASURED_S", 0.002, raising=False)


def compute(process, **options):
    return process.compute(engine="serial", progress=False, **options)


def data_of(source):
    path, _, name = source.rpartition("::")
    with h5py.File(path, "r") as file:
        return file[name][...]


def listing(folder):
    """Name, contents and modification time of everything in a folder, and its own."""
    found = {".": folder.stat().st_mtime_ns}
    for path in sorted(folder.rglob("*")):
        content = (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        )
        found[str(path)] = (content, path.stat().st_mtime_ns, path.stat().st_size)
    return found


# What a user writes.


def test_outputs_may_be_a_class_attribute(scan):
    """A dict in the class body declares what comes out."""
    results = compute(Mean(scan))

    np.testing.assert_array_equal(results["mean"], data_of(scan).mean(axis=1))


def test_outputs_may_be_a_method_that_knows_source_and_parameters(make_file):
    """Shapes and dtypes may follow from the spectrum, the map and parameters."""

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


def test_unit_and_block_computation_agree(scan):
    """One position at a time or a whole batch: the same numbers."""

    class Block(rs.Process):
        version = 1

        def outputs(self):
            return {"low": rs.Output(), "all": rs.Output(32)}

        def block_computation(self, spectra):
            return {"low": spectra.min(axis=1), "all": spectra * 2}

    results = compute(Block(scan))

    np.testing.assert_array_equal(results["low"], data_of(scan).min(axis=1))
    np.testing.assert_array_equal(results["all"], data_of(scan) * 2)


def test_setup_runs_once_before_the_first_position(scan):
    """What setup prepares is there at every position; it is not called again."""
    events = []

    class Prepared(rs.Process):
        version = 1
        outputs = MEAN

        def setup(self):
            events.append("setup")
            self.table = np.ones(32)

        def unit_computation(self, spectrum):
            events.append("unit")
            return spectrum @ self.table

    compute(Prepared(scan))

    assert events == ["setup"] + ["unit"] * 60


def test_setup_runs_once_in_every_worker(scan, tmp_path):
    """Each of two local workers prepares itself once, before its first batch."""
    log = tmp_path / "log"
    log.mkdir()

    class Prepared(rs.Process):
        version = 1
        outputs = MEAN

        def setup(self):
            number = len(list(log.glob(f"{os.getpid()}-*")))
            (log / f"{os.getpid()}-{number}").touch()

        def unit_computation(self, spectrum):
            assert list(log.glob(f"{os.getpid()}-*"))
            time.sleep(0.002)
            return spectrum.mean()

    Prepared(scan).compute(engine="local", workers=2, progress=False)
    workers = [path.name.split("-") for path in log.iterdir()]

    assert 1 <= len(workers) <= 2
    assert len({pid for pid, _ in workers}) == len(workers)
    assert str(os.getpid()) not in {pid for pid, _ in workers}


def with_a_table():
    """Return a class that is sent with all that it has, as one of a script is."""

    class Table(rs.Process):
        version = 1
        gain = param.Number(1.0)
        outputs = {"value": rs.Output()}  # noqa: RUF012

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
    [
        "serial",
        LocalEngine(2, "forkserver"),
        LocalEngine(2, "spawn"),
    ],
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


def test_what_cannot_be_sent_is_told_before_anything_is_computed(scan):
    """With what to do about it."""
    process = with_a_table()(scan)
    process.held = threading.Lock()

    with pytest.raises(TypeError, match=r"lock.*; make what cannot be sent.*setup\(\)"):
        process.compute(engine="local", workers=2)


def test_finish_summarises_once_after_the_last_position(scan):
    """finish sees complete results, and what it returns is an output per run."""
    seen = []

    class Summed(rs.Process):
        version = 1

        def outputs(self):
            return {"mean": rs.Output(), "total": rs.Output(2, per="run")}

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
    """A finish that only writes elsewhere needs no per-run output."""
    seen = []

    class Told(Mean):
        version = 1

        def finish(self, results):
            seen.append(results.status.done)
            return "ignored"

    assert compute(Told(scan)).status.finished
    assert seen == [60]


def test_a_failing_finish_is_run_again_without_computing_again(scan):
    """Its exception comes through; mended, only finish runs."""
    process = Mean(scan)
    process.calls = []
    process.finish = lambda results: 1 / 0
    with pytest.raises(ZeroDivisionError):
        compute(process)
    unfinished = process.results.status.finished
    process.finish = lambda results: None
    results = compute(process)

    assert not unfinished
    assert results.status.finished
    assert len(process.calls) == 60


def test_a_wrong_value_from_finish_is_refused_and_nothing_is_finished(scan):
    """A summary of another shape is an error that names both."""

    class Summed(Mean):
        version = 1

        def outputs(self):
            return {"mean": rs.Output(), "total": rs.Output(2, per="run")}

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
    """Declared working memory makes blocks smaller, as a number or a method."""

    class Hungry(Mean):
        version = 1
        scratch = 1_000_000

    class Growing(rs.Process):
        version = 1
        outputs = MEAN

        def scratch(self, count):
            return 500_000 + 250_000 * count

        def block_computation(self, spectra):
            return spectra.mean(axis=1)

    plain = Mean(scan).plan(engine="serial", memory="2 MB")
    hungry = Hungry(scan).plan(engine="serial", memory="2 MB")
    growing = Growing(scan).plan(engine="serial", memory="2 MB")

    assert plain.block == 60
    assert hungry.block_bytes >= 1_000_000
    assert growing.block == 5
    with pytest.raises(rs.PlanError, match="one position needs 1 MB"):
        Hungry(scan).plan(engine="serial", memory="0.5 MB")


# Sources and inputs.


@pytest.mark.parametrize("form", ["text", "dataset", "path object"])
def test_a_source_has_several_forms(scan, form):
    """Text, an open dataset: the same computation, the same run."""
    path, _, name = scan.partition("::")
    with h5py.File(path, "r") as file:
        source = {
            "text": scan,
            "dataset": file[name],
            "path object": Path(scan),
        }[form]
        results = compute(Mean(source))

    assert results.identity == Mean(scan).identity
    np.testing.assert_array_equal(results["mean"], data_of(scan).mean(axis=1))


def test_a_number_of_positions_is_a_source(tmp_path):
    """Without data the unit computation gets the index, a Python int."""
    kinds = set()

    class Squares(rs.Process):
        version = 1

        def outputs(self):
            return {"x": rs.Output(dtype="i8")}

        def unit_computation(self, index):
            kinds.add(type(index))
            return index**2

    results = compute(Squares(9, tmp_path))

    np.testing.assert_array_equal(results["x"], np.arange(9) ** 2)
    assert kinds == {int}
    with pytest.raises(rs.TargetError, match="give target="):
        Squares(9)


def test_a_block_computation_without_data_gets_the_indices(tmp_path):
    """A whole batch of indices as an array."""

    class Squares(rs.Process):
        version = 1

        def outputs(self):
            return {"x": rs.Output(dtype="i8")}

        def block_computation(self, indices):
            return indices**2

    np.testing.assert_array_equal(compute(Squares(9, tmp_path))["x"], np.arange(9) ** 2)


class Weighted(rs.Process):
    """Spectrum and two inputs, side by side."""

    version = 1
    outputs = MEAN

    def unit_computation(self, spectrum, weight, offset):
        return (spectrum * weight).sum() + np.sum(offset)


def test_inputs_are_aligned_position_by_position(make_file):
    """From the same file, another file, on other axes, of other shapes."""
    rng = np.random.default_rng(4)
    cube, weight, stack = (
        rng.random((3, 4, 6)),
        rng.random((3, 4, 6)),
        rng.random((5, 4, 3)),
    )
    path = make_file(cube=cube, weight=weight)
    other = make_file("other.h5", stack=stack, flat=rng.random((3, 4)))
    expected = (cube * weight).sum(axis=-1)
    process = Weighted(
        f"{path}::/cube",
        position_axes=(0, 1),
        inputs={"weight": "::/weight", "offset": (f"{other}::/stack", (2, 1))},
    )
    scalar = Weighted(
        f"{path}::/cube",
        position_axes=(0, 1),
        inputs={"weight": "::/weight", "offset": f"{other}::/flat"},
    )

    np.testing.assert_allclose(compute(process)["mean"], expected + stack.sum(axis=0).T)
    np.testing.assert_allclose(
        compute(scalar)["mean"], expected + data_of(f"{other}::/flat")
    )


def test_an_input_on_leading_axes_fits_a_source_on_other_axes(make_file):
    """An energy-first stack beside a map of guesses: the map is found."""
    rng = np.random.default_rng(4)
    stack, guess = rng.random((6, 3, 4)), rng.random((3, 4, 2))

    class Guessed(rs.Process):
        version = 1
        outputs = MEAN

        def unit_computation(self, spectrum, guess):
            return spectrum.sum() + guess[1]

    source = make_file(stack=stack, guess=guess) + "::/stack"
    process = Guessed(source, position_axes=(1, 2), inputs={"guess": "::/guess"})

    np.testing.assert_allclose(
        compute(process)["mean"], stack.sum(axis=0) + guess[..., 1]
    )


def test_inputs_come_as_blocks_in_a_block_computation(make_file):
    """Everything has the positions in front."""

    class Block(rs.Process):
        version = 1
        outputs = MEAN

        def block_computation(self, spectra, weight):
            assert len(spectra) == len(weight)
            return (spectra * weight[:, None]).sum(axis=1)

    rng = np.random.default_rng(4)
    data, weight = rng.random((50, 4)), rng.random(50)
    source = make_file(data=data, weight=weight) + "::/data"

    np.testing.assert_allclose(
        compute(Block(source, inputs={"weight": "::/weight"}))["mean"],
        (data * weight[:, None]).sum(axis=1),
    )


def test_an_input_of_another_number_of_positions_is_refused(make_file):
    """The message has both shapes, at construction."""
    path = make_file(data=np.ones((5, 2)), short=np.ones((4, 2)), w=np.ones((5, 2)))
    with pytest.raises(rs.SourceError, match=r"'offset' .* \(4,\), .* \(5,\)"):
        Weighted(f"{path}::/data", inputs={"weight": "::/w", "offset": "::/short"})


def test_an_input_may_be_an_output_of_other_results(scan):
    """A fit that starts from the guesses of another process."""

    class Centred(rs.Process):
        version = 1
        outputs = MEAN

        def unit_computation(self, spectrum, mean):
            return (spectrum - mean).max()

    means = compute(Mean(scan))
    process = Centred(scan, inputs={"mean": means["mean"]})
    data = data_of(scan)

    np.testing.assert_allclose(
        compute(process)["mean"], (data - data.mean(axis=1)[:, None]).max(axis=1)
    )


def test_results_are_the_source_of_another_process(make_file):
    """A chain on a map: positions stay where they are."""
    cube = np.random.default_rng(0).random((3, 4, 6))
    source = make_file(cube=cube) + "::/cube"
    scaled = compute(Scaled(source, position_axes=(0, 1)))
    results = compute(Mean(scaled["scaled"], position_axes=(0, 1)))

    np.testing.assert_allclose(results["mean"], cube.mean(axis=-1) * 2)


def test_a_changed_parameter_upstream_is_another_run_downstream(scan):
    """The identity of the results a process starts from is part of its own."""
    one = Mean(compute(Scaled(scan, factor=1.0))["scaled"])
    two = Mean(compute(Scaled(scan, factor=2.0))["scaled"])
    same = Mean(compute(Scaled(scan, factor=1.0))["scaled"])
    by_input = [
        Weighted(scan, inputs={"weight": u["scaled"], "offset": "::/data"}).identity
        for u in (compute(Scaled(scan, factor=f)) for f in (1.0, 2.0))
    ]

    assert one.identity != two.identity
    assert one.identity == same.identity
    assert by_input[0] != by_input[1]
    np.testing.assert_allclose(compute(two)["mean"], 2 * compute(one)["mean"][...])


LAYOUTS = {
    "contiguous": {},
    "chunks": {"chunks": (2, 3, 2, 2)},
    "compressed": {"chunks": (3, 2, 2, 3), "compression": "gzip"},
    "one chunk": {"chunks": (3, 4, 5, 4), "compression": "gzip"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_axes_in_any_order_give_results_in_the_maps_shape(make_file, layout):
    """Every choice of position axes of a 4-D dataset against plain numpy."""
    data = np.random.default_rng(7).random((3, 4, 5, 4))
    source = make_file(data={"data": data, **LAYOUTS[layout]}) + "::/data"

    class Weird(rs.Process):
        version = 1
        outputs = MEAN

        def unit_computation(self, spectrum):
            weights = np.arange(1, spectrum.size + 1).reshape(spectrum.shape)
            return (spectrum * weights).sum()

    choices = [
        axes for count in (1, 2, 3) for axes in itertools.permutations(range(4), count)
    ]
    for axes in choices[:: 2 if layout == "compressed" else 7]:
        rest = [axis for axis in range(4) if axis not in axes]
        moved = data.transpose(*axes, *rest)
        weights = np.arange(1, moved[(0,) * len(axes)].size + 1)
        expected = (moved.reshape(*moved.shape[: len(axes)], -1) * weights).sum(axis=-1)
        results = compute(Weird(source, position_axes=axes))
        assert results["mean"].shape == expected.shape
        np.testing.assert_allclose(results["mean"], expected)


def test_negative_axes_count_from_the_end(make_file):
    """-1 is the last axis, and the same run as its positive number."""
    data = np.random.default_rng(7).random((3, 4, 5))
    source = make_file(data=data) + "::/data"
    results = compute(Mean(source, position_axes=-1))

    np.testing.assert_allclose(results["mean"], data.mean(axis=(0, 1)))
    assert Mean(source, position_axes=2).identity == results.identity


def test_all_axes_may_count_positions(make_file):
    """A spectrum is then a single number."""

    class Same(rs.Process):
        version = 1
        outputs = MEAN

        def unit_computation(self, value):
            return value * 2

    data = np.random.default_rng(7).random((3, 4))
    process = Same(make_file(data=data) + "::/data", position_axes=(1, 0))

    assert process.spectrum_shape == ()
    np.testing.assert_allclose(compute(process)["mean"], data.T * 2)


def test_a_rechunked_copy_gives_the_same_results_and_is_deleted(make_file, tmp_path):
    """rechunk=True changes the way of reading, not the numbers or the source."""
    data = np.random.default_rng(7).random((6, 20, 5))
    made = {"data": data, "chunks": (1, 20, 5), "compression": "gzip"}
    source = make_file(stack=made) + "::/stack"
    results = compute(Mean(source, position_axes=(1, 2)), rechunk=True)

    np.testing.assert_allclose(results["mean"], data.mean(axis=0))
    assert results.identity == Mean(source, position_axes=(1, 2)).identity
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [results.path.name, "scan.h5"]
    )


def test_what_an_end_that_was_cut_short_has_left_is_removed(make_file, tmp_path):
    """A copy in position order and a second name outlive no complete run."""
    data = np.random.default_rng(7).random((6, 20))
    process = Mean(make_file(stack=data) + "::/stack", position_axes=(1,))
    compute(process, rechunk=True, positions=slice(0, 5))
    (copy,) = tmp_path.glob("*.rechunked.h5")
    kept = copy.read_bytes()
    path = compute(process, rechunk=True).path
    copy.write_bytes(kept)
    os.link(path, path.with_name(f".{path.stem}.birth"))
    compute(process)

    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "scan.h5"])


def test_a_copy_that_is_still_needed_is_kept(make_file, tmp_path):
    """What was asked for is there, the rest is not: its copy is used again."""
    data = np.random.default_rng(7).random((6, 20))
    process = Mean(make_file(stack=data) + "::/stack", position_axes=(1,))
    compute(process, rechunk=True, positions=slice(0, 5))
    compute(process, rechunk=True, positions=slice(0, 5))

    assert len(list(tmp_path.glob("*.rechunked.h5"))) == 1


def test_a_rechunked_copy_of_old_contents_is_not_used(make_file):
    """The source changed while a rechunking run was stopped: no old rows come in."""
    data = np.random.default_rng(7).random((6, 20, 5))
    path = make_file(
        stack={"data": data, "chunks": (1, 20, 5), "maxshape": (6, None, 5)}
    )
    process = Mean(f"{path}::/stack", position_axes=(1, 2))
    compute(process, rechunk=True, positions=slice(0, 10))
    with h5py.File(path, "r+") as file:
        file["stack"][:, 10:, :] += 100
        changed = file["stack"][...]
    results = compute(Mean(f"{path}::/stack", position_axes=(1, 2)), rechunk=True)

    np.testing.assert_allclose(results["mean"], changed.mean(axis=0))


# Positions.


@pytest.mark.parametrize(
    ("positions", "chosen"),
    [
        (slice(1, 10, 3), [1, 4, 7]),
        (slice(None, None, -5), [1, 6, 11]),
        (5, [5]),
        (-1, [11]),
        ([3, 1, 3, -2], [1, 3, 10]),
        (np.array([0, 11]), [0, 11]),
        ((2, 3), [11]),
        ([(0, 1), (2, 0)], [1, 8]),
        (np.arange(12).reshape(3, 4) % 4 == 0, [0, 4, 8]),
        (np.arange(12) % 5 == 0, [0, 5, 10]),
        (range(2, 4), [2, 3]),
    ],
    ids=str,
)
def test_positions_restrict_a_run_and_the_rest_can_follow(make_file, positions, chosen):
    """Just these now; the others later into the same results, none twice."""
    cube = np.random.default_rng(0).random((3, 4, 6))
    process = Mean(make_file(cube=cube) + "::/cube", position_axes=(0, 1))
    process.calls = []
    part = compute(process, positions=positions)
    first = sorted(np.ravel_multi_index(p, (3, 4)) for p in process.calls)
    done = np.flatnonzero(part.completed_mask)
    hidden = np.isnan(part["mean"]).ravel()
    whole = compute(process)

    assert first == chosen
    assert done.tolist() == chosen
    assert np.flatnonzero(~hidden).tolist() == chosen
    assert whole.path == part.path
    assert len(process.calls) == len(set(process.calls)) == 12
    np.testing.assert_array_equal(whole["mean"], cube.mean(axis=-1))


def test_positions_done_before_are_not_computed_again(scan):
    """Overlapping requests compute only what is missing."""
    process = Mean(scan)
    process.calls = []
    compute(process, positions=slice(0, 20))
    compute(process, positions=slice(10, 30))
    again = len(process.calls)
    compute(process, positions=slice(5, 25))

    assert again == 30
    assert len(process.calls) == 30
    assert process.results.status.done == 30


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        (60, "position 60 does not exist: positions go from 0 to 59"),
        ([1, -61], "position -61 does not exist"),
        (np.ones(59, bool), r"the mask has shape \(59,\), .* \(60,\)"),
        ([0.5], "is not a position"),
        ((1, 2), r"does not name a position on 1 axes \(60,\)"),
        (np.ones((2, 2), int), "must be a list of indices"),
        (slice("a", "b"), "is not a slice of positions"),
        ("all", "is not a position"),
    ],
    ids=str,
)
def test_positions_that_do_not_exist_are_refused_before_anything(
    scan, tmp_path, positions, words
):
    """The message names what is wrong, and no file is made."""
    before = listing(tmp_path)
    with pytest.raises(rs.PlanError, match=words):
        compute(Mean(scan), positions=positions)

    assert listing(tmp_path) == before


# Going on, the third run, stopping.


def test_the_third_run_answers_at_once_without_calling_the_function(scan):
    """Part, rest, nothing: the finished run is returned as it is."""
    process = Mean(scan)
    process.calls = []
    compute(process, positions=slice(0, 25))
    compute(process)
    path = process.results.path
    before = (path.stat().st_mtime_ns, path.read_bytes())
    results = compute(process)

    assert len(process.calls) == 60
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    assert len(results.sessions) == 2


def test_an_object_computes_again_after_its_parameter_was_set(scan):
    """What counts is the parameter at the moment of compute."""
    process = Scaled(scan, factor=2)
    first = compute(process)
    process.factor = 3
    second = compute(process)

    assert first.path != second.path
    np.testing.assert_allclose(second["scaled"], data_of(scan) * 3)


class Sleepy(Mean):
    """30 milliseconds per position."""

    version = 1

    def unit_computation(self, spectrum):
        time.sleep(0.03)
        return super().unit_computation(spectrum)


def test_a_time_limit_stops_with_code_75_and_goes_on(scan):
    """NotFinished carries what is there; the same line again does the rest."""
    process = Sleepy(scan)
    process.calls = []
    with pytest.raises(rs.NotFinished, match="run the same again to go on") as info:
        compute(process, time_limit="1s")
    stopped = info.value
    done = stopped.results.status.done

    assert isinstance(stopped, SystemExit)
    assert stopped.code == 75
    assert 0 < done < 60
    assert "time limit" in str(stopped)
    assert compute(process).status.finished
    assert len(process.calls) == 60


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_stops_cleanly_and_everything_computed_is_kept(scan, name):
    """The position at work is finished and committed, then NotFinished."""
    process = Mean(scan)
    number = getattr(signal, name)
    before = signal.getsignal(number)

    class Calls(list):
        def append(self, position):
            super().append(position)
            # Slow enough for the worker to look up after every position or two.
            time.sleep(0.02)
            if len(self) == 17:
                os.kill(os.getpid(), number)

    process.calls = Calls()
    with pytest.raises(rs.NotFinished, match=f"stopped by {name}") as info:
        compute(process)
    done = info.value.results.status.done
    calls = len(process.calls)
    compute(process)

    assert done == calls >= 17
    assert signal.getsignal(number) is before
    assert len(process.calls) == 60


def test_ctrl_c_is_the_last_handler_that_is_put_back(monkeypatch):
    """It may interrupt from then on, and none of ours must stay."""
    put_back, put = [], signal.signal

    def recording(number, handler):
        put_back.append(number)
        return put(number, handler)

    monkeypatch.setattr(signal, "signal", recording)
    with StopRequest().watching():
        put_back.clear()

    assert put_back == [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT]


def test_a_handler_of_another_language_is_left_alone(monkeypatch):
    """Python does not know it, and could not put it back."""
    put, known = signal.signal, signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    numbers = []
    monkeypatch.setattr(signal, "signal", lambda n, h: numbers.append(n) or put(n, h))
    before = known(signal.SIGINT)
    with StopRequest().watching(), Uninterrupted():
        during = known(signal.SIGINT)

    assert (numbers, during) == ([], before)


# Failures.


def test_a_failing_position_is_recorded_and_the_run_goes_on(scan):
    """Fill value, status, exception; one warning, raised where the user called."""
    process = Failing(scan)
    process.raises = lambda p: KeyError(f"key {p}") if p in (7, 30) else None
    with pytest.warns(rs.ResumableWarning, match="2 of 60 positions failed") as caught:
        results = compute(process)
    expected = data_of(scan).mean(axis=1)
    expected[[7, 30]] = np.nan

    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "the first at 7: KeyError: 'key 7'" in str(caught[0].message)
    assert results.status.finished
    assert [(f.position, f.exception) for f in results.failures] == [
        (7, "KeyError"),
        (30, "KeyError"),
    ]
    np.testing.assert_array_equal(results["mean"], expected)
    with h5py.File(results.path) as file:
        assert np.isnan(file["data-Failing_000/mean"][[7, 30]]).all()


def test_a_failing_position_spoils_nothing_else_in_its_block(scan):
    """The block is halved until the one position that raises is alone."""
    process = FailingBlock(scan)
    process.raises = lambda p: ValueError(f"bad {p}") if p in (11, 12, 59) else None
    with pytest.warns(rs.ResumableWarning, match="3 of 60"):
        results = compute(process)
    expected = data_of(scan).mean(axis=1)
    expected[[11, 12, 59]] = np.nan

    np.testing.assert_array_equal(results["mean"], expected)
    assert [(f.position, f.message) for f in results.failures] == [
        (11, "bad 11"),
        (12, "bad 12"),
        (59, "bad 59"),
    ]


def test_retry_failed_computes_just_the_failed_ones(scan):
    """Mended, two positions are computed and the failures are gone."""
    process = Failing(scan)
    calls = []
    process.raises = lambda p: ValueError("no") if p in (7, 30) else None
    with pytest.warns(rs.ResumableWarning):
        compute(process)
    process.raises = lambda p: calls.append(p)
    results = compute(process, retry_failed=True)

    assert calls == [7, 30]
    assert results.failures == []
    assert (results.status.done, results.status.failed) == (60, 0)
    np.testing.assert_array_equal(results["mean"], data_of(scan).mean(axis=1))


def test_without_retry_failed_positions_are_left_alone(scan):
    """A second run warns again and computes nothing."""
    process = Failing(scan)
    calls = []
    process.raises = lambda p: ValueError("no") if p in (7, 30) else None
    with pytest.warns(rs.ResumableWarning):
        compute(process)
    process.raises = lambda p: calls.append(p)
    with pytest.warns(rs.ResumableWarning, match="2 of 60 positions failed"):
        compute(process)

    assert calls == []


def test_a_retry_that_fails_again_has_the_newest_message(scan):
    """One entry per failed position, of the last attempt."""
    process = Failing(scan)
    for word in ("first", "second"):
        process.raises = lambda p, word=word: ValueError(word) if p == 7 else None
        with pytest.warns(rs.ResumableWarning):
            results = compute(process, retry_failed=word == "second")

    assert [(f.position, f.message) for f in results.failures] == [(7, "second")]
    assert results.status.finished


def test_a_retry_summarises_again(scan):
    """finish runs again, since what it summarised has changed."""
    totals = []

    class Summed(Failing):
        version = 1

        def finish(self, results):
            totals.append(results.status.done)

    process = Summed(scan)
    process.raises = lambda p: ValueError("no") if p == 7 else None
    with pytest.warns(rs.ResumableWarning):
        compute(process)
    process.raises = lambda p: None
    compute(process, retry_failed=True)

    assert totals == [59, 60]


def test_retry_failed_does_what_its_plan_says_where_no_run_is(scan):
    """Without a run nothing has failed: plan and compute say the same about it."""
    process = Mean(scan)
    process.calls = []
    planned = process.plan(retry_failed=True).pending
    compute(process, retry_failed=True)

    assert len(process.calls) == planned


@pytest.mark.parametrize("cls", [Failing, FailingBlock])
@pytest.mark.parametrize("bad", [0, 33, 59])
def test_on_error_raise_stops_at_once_and_keeps_what_is_done(scan, cls, bad):
    """UnitFailed with position and cause; that position is pending, not failed."""
    process = cls(scan)
    error = ValueError("bad luck")
    process.raises = lambda p: error if p == bad else None
    with pytest.raises(rs.UnitFailed, match=f"position {bad} raised") as info:
        compute(process, on_error="raise")
    results = process.results
    done = results.status.done
    expected = data_of(scan).mean(axis=1)
    kept = results.completed_mask

    assert info.value.position == bad
    assert info.value.__cause__ is error
    assert "in unit_computation" in str(info.value) or "in block" in str(info.value)
    assert not results.completed_mask[bad]
    assert not results.failed_mask.any()
    assert results.failures == []
    np.testing.assert_array_equal(results["mean"][kept], expected[kept])
    process.raises = lambda p: None
    assert compute(process).sessions[-1].computed == 60 - done


def test_on_error_raise_does_not_compute_what_comes_after(scan):
    """Serial and in order: behind the failing position nothing is called."""
    process = Failing(scan)
    calls = []

    def raises(position):
        calls.append(position)
        return ValueError("stop") if position == 20 else None

    process.raises = raises
    compute(process, positions=[0])
    with pytest.raises(rs.UnitFailed):
        compute(process, on_error="raise")

    assert calls == list(range(21))
    assert process.results.status.done == 20


def test_twenty_spread_positions_with_the_same_exception_stop_the_run(scan):
    """The function is wrong, not the data: nothing is marked, 20 calls were made."""
    process = Failing(scan)
    calls = []

    def raises(position):
        calls.append(position)
        return TypeError("always")

    process.raises = raises
    with pytest.raises(rs.UnitFailed, match="the first 20 positions tried") as info:
        compute(process)
    results = process.results

    assert len(calls) == len(set(calls)) == 20
    assert calls[0] == 0
    assert max(calls) >= 54
    # Spread evenly, but at no fixed distance: a map's columns have a period.
    assert np.diff(sorted(calls)).max() <= 5
    assert len(set(np.diff(sorted(calls)))) > 2
    assert "TypeError: always" in str(info.value)
    assert (results.status.done, results.status.failed) == (0, 0)
    assert results.failures == []
    process.raises = lambda p: None
    assert compute(process).status.done == 60


def test_different_exceptions_everywhere_are_recorded(scan):
    """Where positions fail in different ways, it is the data: all are recorded."""
    process = Failing(scan)
    kinds = [ValueError, TypeError, KeyError]
    process.raises = lambda p: kinds[p // 7 % 3](f"at {p}")
    with pytest.warns(rs.ResumableWarning, match="60 of 60"):
        results = compute(process)

    assert results.status.failed == 60
    assert results.status.finished
    assert [f.position for f in results.failures] == list(range(60))
    assert results.failures[8].exception == "TypeError"
    assert np.isnan(results["mean"]).all()


def test_one_success_among_the_first_shows_that_the_data_are_to_blame(scan):
    """19 same failures and a success: recorded, and the run goes on."""
    process = Failing(scan)
    calls = []

    def raises(position):
        calls.append(position)
        return None if len(calls) == 20 else ValueError("same")

    process.raises = raises
    with pytest.warns(rs.ResumableWarning, match="59 of 60"):
        results = compute(process)

    assert (results.status.done, results.status.failed) == (1, 59)


def test_a_success_in_an_earlier_session_counts(scan):
    """Once a position has succeeded, equal failures are recorded."""
    process = Failing(scan)
    compute(process, positions=[0])
    process.raises = lambda p: ValueError("same")
    with pytest.warns(rs.ResumableWarning, match="59 of 60"):
        results = compute(process)

    assert results.status.failed == 59


def test_system_exit_in_a_computation_is_a_failure(scan):
    """A library that calls sys.exit() does not end the run."""
    process = Failing(scan)
    process.raises = lambda p: SystemExit(3) if p == 5 else None
    with pytest.warns(rs.ResumableWarning, match="1 of 60"):
        results = compute(process)

    assert results.failures[0].exception == "SystemExit"


def test_an_interrupt_from_the_computation_keeps_what_was_committed(scan):
    """KeyboardInterrupt raised inside goes through; the next run goes on."""
    process = Failing(scan)
    process.raises = lambda p: KeyboardInterrupt() if p == 40 else None
    with pytest.raises(KeyboardInterrupt):
        compute(process)
    done = process.results.status.done
    process.raises = lambda p: None
    results = compute(process)

    assert results.sessions[-1].computed == 60 - done
    np.testing.assert_array_equal(results["mean"], data_of(scan).mean(axis=1))


class Untold(Exception):
    """An exception that cannot even be printed."""

    def __str__(self):
        msg = "no text"
        raise RuntimeError(msg)


@pytest.mark.parametrize(
    "error",
    [
        Untold(),
        ValueError("surrogate \udcff"),
        ValueError("nul \0 in it"),
        ValueError("x" * 100_000),
        ValueError("é" * 400),
        ValueError(),
        type("N" * 300, (Exception,), {})("long name"),
    ],
    ids=["no str", "surrogate", "nul", "long", "cut in a letter", "empty", "long name"],
)
@pytest.mark.parametrize("cls", [Failing, FailingBlock])
def test_any_exception_can_be_recorded(scan, error, cls):
    """Whatever the exception's text is, the run goes on and records it."""
    process = cls(scan)
    process.raises = lambda p: error if p == 5 else None
    with pytest.warns(rs.ResumableWarning, match="1 of 60"):
        results = compute(process)

    assert [f.position for f in results.failures] == [5]
    assert results.status.done == 59
    repr(results)
    results._repr_html_()


# Wrong outputs.


class Returns(rs.Process):
    """Returns what the function in ``value`` says."""

    version = 1
    value = staticmethod(lambda position: 0.0)
    declared = staticmethod(lambda: {"x": rs.Output(3), "y": rs.Output(dtype="i4")})

    def outputs(self):
        return self.declared()

    def unit_computation(self, spectrum):
        return self.value(self.position)


class ReturnsBlock(Returns):
    """The same as a block computation."""

    version = 1
    unit_computation = property()

    def block_computation(self, spectra):
        return self.value(self.position)


GOOD = {"x": np.zeros(3), "y": 1}
WRONG = {
    "shape": (GOOD | {"x": np.zeros(4)}, r"'x' .* shape \(3,\), .* shape \(4,\)"),
    "scalar for a row": (GOOD | {"x": 1.0}, r"'x' .* shape \(3,\), .* shape \(\)"),
    "row for a scalar": (GOOD | {"y": [1]}, r"'y' .* shape \(\), .* shape \(1,\)"),
    "dtype": (GOOD | {"y": 2.7}, "'y' is declared with dtype int32, .* float64"),
    "complex": (GOOD | {"x": np.zeros(3, "c16")}, "'x' .* float64, .* complex128"),
    "text": (GOOD | {"x": ["a", "b", "c"]}, "'x' .* dtype float64, .* returned <U1"),
    "too large": (GOOD | {"y": 2**40}, "'y': .*out of the range"),
    "none": (GOOD | {"x": None}, "'x'"),
    "ragged": (GOOD | {"x": [[1], [1, 2], 3]}, "'x': .* cannot be stored"),
    "missing": ({"x": np.zeros(3)}, "did not return the declared output 'y'"),
    "unknown": (GOOD | {"yy": 1}, "'yy', which is not declared; did you mean 'y'"),
    "no dict": (np.zeros(3), r"2 outputs are declared \(x, y\), .* not a ndarray"),
    "nothing": (None, "must return a dict of them, not a NoneType"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_output_stops_at_the_first_position(scan, kind):
    """Expected and got are named, at once, and nothing is recorded."""
    value, words = WRONG[kind]
    process = Returns(scan)
    calls = []
    process.value = lambda p: calls.append(p) or value
    with pytest.raises(rs.OutputError, match=words) as info:
        compute(process)

    assert "position 0" in str(info.value)
    assert calls == [0]
    assert (process.results.status.done, process.results.status.failed) == (0, 0)


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_output_later_is_recorded(scan, kind):
    """After good ones it is a failure of that position, with the same message."""
    value, words = WRONG[kind]
    process = Returns(scan)
    process.value = lambda p: value if p == 41 else GOOD
    with pytest.warns(rs.ResumableWarning, match="1 of 60"):
        results = compute(process)

    assert results.failures[0].position == 41
    assert results.failures[0].exception.endswith("OutputError")
    assert rs.OutputError(results.failures[0].message).args
    assert np.isnan(results["x"][41]).all()
    assert results["y"][41] == 0
    with pytest.raises(rs.OutputError, match=words):
        raise rs.OutputError(results.failures[0].message)


def test_a_block_of_the_wrong_length_stops_at_the_first_position(scan):
    """One row too many is named with both shapes."""

    class Long(rs.Process):
        version = 1
        outputs = MEAN

        def block_computation(self, spectra):
            return np.zeros(len(spectra) + 1)

    with pytest.raises(rs.OutputError, match=r"shape \(1,\), .* shape \(2,\)"):
        compute(Long(scan))


def test_numbers_of_the_same_kind_are_converted(scan):
    """float64 into float32, int8 into int64, int into float; as same_kind allows."""

    class Kinds(rs.Process):
        version = 1

        def outputs(self):
            return {
                "f": rs.Output(dtype="f4"),
                "i": rs.Output(dtype="i8"),
                "g": rs.Output(2),
                "c": rs.Output(dtype="c16"),
                "u": rs.Output(dtype="u2"),
            }

        def unit_computation(self, spectrum):
            return {
                "f": np.float64(1.5),
                "i": np.int8(-3),
                "g": [1, 2],
                "c": 2.5,
                "u": 65535,
            }

    results = compute(Kinds(scan))
    first = {name: array[0] for name, array in results.items()}

    assert first["f"] == np.float32(1.5)
    assert first["i"] == -3
    assert first["g"].tolist() == [1.0, 2.0]
    assert first["c"] == 2.5
    assert first["u"] == 65535


def test_a_scalar_type_that_passed_once_is_checked_again(tmp_path):
    """A good first value opens no door for a later one that does not fit."""
    values = {0: 1, 1: 300, 2: 2.5, 3: True, 4: np.int64(7), 5: -1}

    class Mixed(rs.Process):
        version = 1

        def outputs(self):
            return {"x": rs.Output(dtype="u1")}

        def unit_computation(self, index):
            return values.get(index, 0)

    with pytest.warns(rs.ResumableWarning):
        results = compute(Mixed(30, tmp_path))
    bad = [f.position for f in results.failures]

    assert {1, 2, 5} <= set(bad)
    assert results["x"][[0, 3]].tolist() == [1, 1]


def test_one_output_may_come_bare_or_in_a_dict(scan):
    """With one output the name is optional."""

    class Dict(rs.Process):
        version = 1
        outputs = MEAN

        def unit_computation(self, spectrum):
            return {"mean": spectrum.mean()}

    np.testing.assert_array_equal(
        compute(Dict(scan))["mean"], data_of(scan).mean(axis=1)
    )


# self.position and self.rng.


def test_self_position_is_an_index_or_a_tuple_of_ints(make_file):
    """An int on one axis, a tuple on a map; arrays of them in a block."""
    cube = np.zeros((3, 4, 2))
    source = make_file(cube=cube) + "::/cube"
    flat, mapped = Mean(source), Mean(source, position_axes=(0, 1))
    flat.calls, mapped.calls = [], []
    compute(flat)
    compute(mapped)

    class Block(rs.Process):
        version = 1

        def outputs(self):
            return {"where": rs.Output(2, "i8")}

        def block_computation(self, spectra):
            rows, columns = self.position
            return np.stack([rows, columns], axis=1)

    where = compute(Block(source, position_axes=(0, 1)))["where"][...]

    assert sorted(flat.calls) == [0, 1, 2]
    assert all(type(p) is int for p in flat.calls)
    assert sorted(mapped.calls) == list(np.ndindex(3, 4))
    assert all(type(i) is int for p in mapped.calls for i in p)
    np.testing.assert_array_equal(where.reshape(12, 2), list(np.ndindex(3, 4)))


def test_self_position_exists_only_at_a_position(scan):
    """Elsewhere it is an error that says so."""
    with pytest.raises(AttributeError, match="only while a position is computed"):
        _ = Mean(scan).position


class Random(rs.Process):
    """Random numbers, in two draws."""

    version = 1

    def outputs(self):
        return {"x": rs.Output(4)}

    def unit_computation(self, spectrum):
        first = self.rng.random(2)
        return np.concatenate([first, self.rng.random(2)])


def test_self_rng_is_the_same_in_every_run_whatever_the_batches(scan, tmp_path):
    """Whole, in pieces, in another order, in test: the same numbers everywhere."""
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    whole = compute(Random(scan, folders[0]))["x"][...]
    for positions in ([59, 3], slice(10, 40), slice(None, None, 7), None):
        compute(Random(scan, folders[1]), positions=positions)
    pieces = Random(scan, folders[1]).results["x"][...]
    small = compute(Random(scan, folders[2]), memory="500 kB", checkpoint=0.001)
    tried = Random(scan).test([3, 17])["x"]

    np.testing.assert_array_equal(pieces, whole)
    np.testing.assert_array_equal(small["x"], whole)
    np.testing.assert_array_equal(tried, whole[[3, 17]])
    assert len(np.unique(whole)) == whole.size


def test_the_seed_is_a_parameter_and_part_of_the_identity(scan):
    """Another seed gives other numbers, and another run."""
    one, two = compute(Random(scan)), compute(Random(scan, seed=1))

    assert one.identity != two.identity
    assert not np.intersect1d(one["x"], two["x"]).size


def test_self_rng_is_documented_numpy(scan):
    """PCG64 of SeedSequence(seed, spawn_key=(position,)), as the docs say."""
    sequence = np.random.SeedSequence(0, spawn_key=(23,))
    expected = np.random.Generator(np.random.PCG64(sequence)).random(4)

    np.testing.assert_array_equal(compute(Random(scan))["x"][23], expected)


def test_changing_spectra_in_place_changes_no_other_result(make_file):
    """A unit that overwrites its spectrum, and an input, spoils nothing."""
    data = np.random.default_rng(0).random((40, 5))

    class Rude(rs.Process):
        version = 1
        outputs = MEAN

        def unit_computation(self, spectrum, other):
            value = spectrum.mean() + other.sum()
            spectrum[...] = other[...] = -1e9
            return value

    source = make_file(data=data) + "::/data"
    before = Path(source.partition("::")[0]).read_bytes()
    process = Rude(source, inputs={"other": "::/data"})
    tried = process.test([1, 2])
    results = compute(process)
    expected = data.mean(axis=1) + data.sum(axis=1)

    np.testing.assert_allclose(results["mean"], expected)
    np.testing.assert_allclose(tried["mean"], expected[1:3])
    np.testing.assert_array_equal(tried.spectra, data[1:3])
    assert Path(source.partition("::")[0]).read_bytes() == before


def test_a_failing_block_that_changed_its_spectra_gives_right_results(scan):
    """Rows are read again for the halves: what the block did to them is gone."""

    class Rude(rs.Process):
        version = 1
        outputs = MEAN

        def block_computation(self, spectra):
            means = spectra.mean(axis=1)
            spectra[...] = 1e9
            if 33 in self.position:
                msg = "bad"
                raise ValueError(msg)
            return means

    with pytest.warns(rs.ResumableWarning, match="1 of 60"):
        results = compute(Rude(scan))
    expected = data_of(scan).mean(axis=1)
    expected[33] = np.nan

    np.testing.assert_array_equal(results["mean"], expected)


def test_a_returned_view_of_the_spectrum_is_copied(scan):
    """A result that is memory used again holds what it held when it was returned."""
    buffer = np.zeros(32)

    class Reuses(rs.Process):
        version = 1

        def outputs(self):
            return {"x": rs.Output(32)}

        def unit_computation(self, spectrum):
            buffer[...] = spectrum
            return buffer

    np.testing.assert_array_equal(compute(Reuses(scan))["x"], data_of(scan))


# Parameters.


def test_keywords_win_over_class_values_and_those_over_defaults(scan):
    """Default, then a value set on the class, then the keyword."""

    class Mine(Scaled):
        version = 1

    default = Mine(scan).factor
    Mine.factor = 5
    on_class = Mine(scan).factor
    keyword = Mine(scan, factor=7).factor

    assert (default, on_class, keyword) == (2.0, 5, 7)
    assert Scaled(scan).factor == 2.0
    assert Mine(scan).identity == Mine(scan, factor=5.0).identity


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
    """The near miss, the bounds or the choices are in the message."""
    with pytest.raises(rs.ParameterError, match=words):
        Scaled(scan, **given)


@pytest.mark.parametrize("value", [print, object(), np.array([None]), {1: 2}])
def test_a_parameter_that_cannot_be_identified_is_refused(scan, value):
    """At construction, by name; never left out of the identity."""
    with pytest.raises(rs.IdentityError, match="'anything'"):
        Scaled(scan, anything=value)


def test_setting_an_attribute_named_nearly_like_a_parameter_warns(scan):
    """A slip of the pen is told at the line that made it."""
    process = Scaled(scan)
    with pytest.warns(rs.ResumableWarning, match=r"did you mean 'factor'\?") as caught:
        process.facter = 3

    assert caught[0].filename == __file__
    assert process.facter == 3
    process.unrelated = 1
    process.factor = 3


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
        ({"time_limit": "soon"}, "'soon' is not a duration"),
        ({"memory": "much"}, "'much' is not a size"),
        ({"memory": 1}, r"give memory='[\d.]+ \w+' or more"),
        ({"engine": "seriel"}, r"no engine 'seriel'; did you mean 'serial'\?"),
        ({"engine": 7}, "engine must be one of"),
    ],
    ids=str,
)
def test_a_wrong_option_is_an_error_before_anything_is_made(
    scan, tmp_path, options, words
):
    """compute and plan say the same, and no file is made."""
    before = listing(tmp_path)
    with pytest.raises(rs.PlanError, match=words):
        Mean(scan).compute(**{"engine": "serial", **options})
    with pytest.raises(rs.PlanError, match=words):
        Mean(scan).plan(**{"engine": "serial", **options})

    assert listing(tmp_path) == before


# Looking.


@pytest.mark.parametrize(
    "state", ["no run", "partial", "complete", "failed", "damaged"]
)
def test_looking_changes_no_byte_on_disk(scan, tmp_path, state):
    """Construction, test, plan, explain and all properties leave every byte alone."""
    process = Failing(scan)
    if state == "failed":
        process.raises = lambda p: ValueError("x") if p == 3 else None
        with pytest.warns(rs.ResumableWarning):
            compute(process)
    elif state != "no run":
        chosen = slice(0, 10) if state == "partial" else None
        path = compute(process, positions=chosen).path
        if state == "damaged":
            path.write_bytes(path.read_bytes()[:-1])
    before = listing(tmp_path)

    process = Failing(scan, position_axes=0)
    looks = [
        lambda: process.identity,
        lambda: process.duplicates,
        lambda: process.partials,
        lambda: str(process.explain()),
        lambda: repr(process.results) + str(getattr(process.results, "failures", "")),
        lambda: repr(process),
    ]
    if state != "damaged":
        looks += [
            lambda: str(process.test([1, 2])),
            lambda: str(process.plan()),
            lambda: str(process.plan(override=True)),
            lambda: str(process.plan(retry_failed=True)),
        ]
    for look in looks:
        look()
        assert listing(tmp_path) == before


def test_duplicates_and_partials_are_the_runs_of_exactly_this(scan):
    """Complete ones, unfinished ones, and none of other parameters."""
    process = Scaled(scan)
    compute(Scaled(scan, factor=9))
    nothing = (process.duplicates, process.partials, process.results)
    part = compute(process, positions=slice(0, 5))
    partial = (process.duplicates, process.partials, process.results)
    compute(process)
    complete = (process.duplicates, process.partials, process.results)

    assert nothing == ([], [], None)
    assert partial == ([], [part], part)
    assert complete == ([part], [], part)


def test_plan_says_what_compute_will_do(scan):
    """New, going on, returning: action, numbers and the file."""
    process = Mean(scan)
    new = process.plan(engine="serial")
    compute(process, positions=slice(0, 20))
    going_on = process.plan(engine="serial")
    path = compute(process).path
    there = process.plan(engine="serial")

    assert [p.action for p in (new, going_on, there)] == [
        "compute",
        "continue",
        "return",
    ]
    assert [p.pending for p in (new, going_on, there)] == [60, 40, 0]
    assert {p.path for p in (new, going_on, there)} == {str(path)}
    assert "40 of 60 to compute" in str(going_on)


# Identity of a process.


def load(path, text, monkeypatch, name="usermodule"):
    """Import a module from a file, as a user's script would be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


USERS = '''
import resumable as rs

class Users(rs.Process):
    """Doc."""

    def outputs(self):
        return {"x": rs.Output()}

    def unit_computation(self, spectrum):
        return spectrum.mean() * 2  # twice
'''


def identity_of(tmp_path, monkeypatch, text, source, *, folder, name="usermodule"):
    module = load(tmp_path / folder / f"{name}.py", text, monkeypatch, name)
    return module.Users(source).identity


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("* 2 ", "* 3 ", False),
        ("spectrum.mean()", "spectrum.sum()", False),
        ("  # twice", "  # two times", True),
        ('"""Doc."""', '"""Another text."""', True),
        ("spectrum.mean() * 2", "(spectrum.mean()  *  2)", True),
        ("    def unit", "    x = 1\n\n    def unit", False),
    ],
    ids=["number", "method", "comment", "docstring", "layout", "attribute"],
)
def test_without_a_version_the_source_text_counts(
    tmp_path, monkeypatch, scan, old, new, same
):
    """An edited function is another run; comments, layout and docs are not edits."""
    assert old in USERS
    before = identity_of(tmp_path, monkeypatch, USERS, scan, folder="a")
    after = identity_of(
        tmp_path, monkeypatch, USERS.replace(old, new), scan, folder="b"
    )

    assert (before == after) is same


HELPED = """
FACTOR = 10

def helper():
    return 20

""" + USERS.replace(
    "* 2 ",
    """* self.own() * helper() * FACTOR

    @staticmethod
    def own():
        return 30
""",
)


@pytest.mark.parametrize(("what", "same"), [("30", False), ("20", True), ("10", True)])
def test_what_stands_outside_of_the_class_does_not_count(
    tmp_path, monkeypatch, scan, what, same
):
    """A static method is of the class; functions and constants beside it are not."""
    assert HELPED.count(what) == 1
    before = identity_of(tmp_path, monkeypatch, HELPED, scan, folder="a")
    text = HELPED.replace(what, "99")
    after = identity_of(tmp_path, monkeypatch, text, scan, folder="b")

    assert (before == after) is same


def test_the_text_of_a_users_base_class_counts(tmp_path, monkeypatch, scan):
    """What is inherited from a class of the user's own is part of the algorithm."""
    text = (
        USERS.replace("class Users", "class Base") + "\nclass Users(Base):\n    pass\n"
    )
    before = identity_of(tmp_path, monkeypatch, text, scan, folder="a")
    after = identity_of(
        tmp_path, monkeypatch, text.replace("* 2 ", "* 3 "), scan, folder="b"
    )

    assert before != after


def test_with_a_version_an_edit_only_warns(tmp_path, monkeypatch, scan):
    """The same identity, the old results, and a warning that shows the lines."""
    text = USERS.replace('"""Doc."""', '"""Doc."""\n    version = 1')
    first = load(tmp_path / "a" / "m.py", text, monkeypatch, "m").Users(scan)
    results = compute(first)
    edited = text.replace("* 2 ", "* 3 ")
    second = load(tmp_path / "b" / "m.py", edited, monkeypatch, "m").Users(scan)
    with pytest.warns(rs.ResumableWarning, match="(?s)was edited.*raise it.*mean") as c:
        again = compute(second)

    assert again == results
    assert len(c) == 1
    assert c[0].filename == __file__


def test_the_name_of_the_module_does_not_count(tmp_path, monkeypatch, scan):
    """Notebook, script and command agree."""
    one = identity_of(tmp_path, monkeypatch, USERS, scan, folder="a", name="one")
    two = identity_of(tmp_path, monkeypatch, USERS, scan, folder="b", name="two")

    assert one == two


def test_the_name_of_the_class_counts(scan):
    """Another process is another process."""

    class Mean2(Mean):
        version = 1

    assert Mean2(scan).identity != Mean(scan).identity


@pytest.mark.parametrize("version", [2, "1", 1.5, None])
def test_the_version_counts(scan, version):
    """Raised, of another type, or not declared at all: another identity."""
    made = type("Mean", (Mean,), {"version": version, "__module__": __name__})

    assert made(scan).identity != Mean(scan).identity


@pytest.mark.parametrize(
    "given",
    [
        {"factor": 2.0000000000000004},
        {"count": 4},
        {"kind": "square"},
        {"table": np.zeros(3)},
        {"anything": 0},
        {"anything": False},
        {"anything": ""},
        {"anything": []},
        {"seed": 1},
    ],
    ids=str,
)
def test_each_parameter_counts(scan, given):
    """Any change of any parameter, the unset one included, is another run."""
    assert Scaled(scan, **given).identity != Scaled(scan).identity


def test_defaults_and_types_that_are_equal_do_not_count(scan):
    """A default spelled out, 2 for a float 2.0, numpy numbers: the same run."""
    same = Scaled(scan).identity

    assert Scaled(scan, factor=2).identity == same
    assert Scaled(scan, factor=np.float32(2)).identity == same
    assert Scaled(scan, count=np.int64(3)).identity == same
    assert Scaled(scan, kind="linear", factor=2.0).identity == same


def change(path, name, key, value):
    with h5py.File(path, "r+") as file:
        file[name][key] = value


def test_the_contents_of_the_source_count(scan):
    """One changed number is noticed, and changed back it is the old run again."""
    path = scan.partition("::")[0]
    process = Mean(scan)
    first = compute(process)
    old = data_of(scan)[59, 31]
    change(path, "data", (59, 31), old + 1)
    second = compute(Mean(scan))
    change(path, "data", (59, 31), old)

    assert first.path != second.path
    np.testing.assert_array_equal(second["mean"][:59], first["mean"][:59])
    assert second["mean"][59] != first["mean"][59]
    assert compute(Mean(scan)) == first


def test_a_run_that_is_left_because_the_source_changed_is_named(scan, caplog):
    """The log says which run was left, and why."""
    first = compute(Mean(scan))
    change(scan.partition("::")[0], "data", (0, 0), 99.0)
    with caplog.at_level(logging.WARNING, "resumable"):
        compute(Mean(scan))

    assert f"the source has changed since {first.path.name}" in caplog.text
    assert "source.contents" in caplog.text


def test_metadata_and_chunks_of_the_source_do_not_count(make_file):
    """Attributes, other datasets and chunks are not the contents."""
    data = np.random.default_rng(0).random((6, 4))
    one = make_file("one.h5", data=data) + "::/data"
    two = make_file("two.h5", data={"data": data, "chunks": (2, 2)}, x=1)
    with h5py.File(two, "r+") as file:
        file["data"].attrs["units"] = "V"

    assert Mean(one).identity == Mean(f"{two}::/data").identity


def halves(first, second):
    return np.repeat([first, second], 4).reshape(2, 4).astype("f4")


STORED = {
    "chunks swapped": (
        {"data": halves(1, 2), "chunks": (1, 4), "compression": "gzip"},
        {"data": halves(2, 1), "chunks": (1, 4), "compression": "gzip"},
    ),
    "one number": (
        {"data": halves(1, 2), "chunks": (2, 4), "compression": "gzip"},
        {"data": halves(1, 3), "chunks": (2, 4), "compression": "gzip"},
    ),
    "fill value of chunks never written": (
        {"shape": (2, 4), "dtype": "f4", "compression": "gzip", "fillvalue": 1},
        {"shape": (2, 4), "dtype": "f4", "compression": "gzip", "fillvalue": 2},
    ),
    "scale of stored integers": (
        {"data": halves(0.1, 0.2), "chunks": (2, 4), "scaleoffset": 1},
        {"data": halves(0.01, 0.02), "chunks": (2, 4), "scaleoffset": 2},
    ),
}


@pytest.mark.parametrize("kind", STORED)
def test_contents_of_filtered_sources_count_however_they_are_stored(make_file, kind):
    """Sources that read differently are different, whatever bytes lie on disk."""
    one, two = (
        make_file(f"{name}.h5", data=made) + "::/data"
        for name, made in zip(("one", "two"), STORED[kind], strict=True)
    )

    assert not np.array_equal(data_of(one), data_of(two))
    assert Mean(one).identity != Mean(two).identity


@pytest.mark.parametrize(
    "other",
    [
        {"data2": np.ones((6, 4))},
        {"data": np.ones((6, 4), "f4")},
        {"data": np.ones((6, 4), ">f8")},
        {"data": np.ones((4, 6))},
        {"data": np.ones((6, 2, 2))},
    ],
    ids=["name", "dtype", "byte order", "shape", "dimensions"],
)
def test_name_dtype_and_shape_of_the_source_count(make_file, other):
    """What describes the source describes the run."""
    one = make_file("one.h5", data=np.ones((6, 4))) + "::/data"
    two = make_file("two.h5", **other) + "::/" + next(iter(other))

    assert Mean(one).identity != Mean(two).identity


def test_position_axes_count_and_so_does_their_order(make_file):
    """Another cut through the data is another run."""
    source = make_file(data=np.ones((3, 3, 3))) + "::/data"
    choices = [0, 1, (0, 1), (1, 0), (0, 1, 2)]

    assert len({Mean(source, position_axes=a).identity for a in choices}) == 5


def test_inputs_count_by_name_contents_and_axes(make_file):
    """Each input is part of the identity, wherever it lies."""
    path = make_file(
        data=np.ones((4, 4)), a=np.ones((4, 4)), b=np.ones((4, 4)), c=np.zeros((4, 4))
    )
    source = f"{path}::/data"

    def of(weight, offset):
        return Weighted(source, inputs={"weight": weight, "offset": offset}).identity

    same = of("::/a", "::/b")

    assert same == of(f"{path}::/a", ("::/b", 0))
    assert same != of("::/b", "::/a")
    assert same != of("::/a", "::/c")
    assert same != of("::/a", ("::/b", 1))


class Declares(rs.Process):
    """Outputs as a test wants them."""

    version = 1
    declared = staticmethod(dict)

    def outputs(self):
        return self.declared()

    def unit_computation(self, spectrum):
        return spectrum[:2]


def declaring(source, monkeypatch, **outputs):
    monkeypatch.setattr(Declares, "declared", staticmethod(lambda: outputs))
    return Declares(source).identity


def test_outputs_count_by_name_shape_dtype_and_per_only(scan, monkeypatch):
    """Labels, units and fill values are for people."""
    same = declaring(scan, monkeypatch, x=rs.Output(2))
    others = [
        declaring(scan, monkeypatch, y=rs.Output(2)),
        declaring(scan, monkeypatch, x=rs.Output(3)),
        declaring(scan, monkeypatch, x=rs.Output((2, 1))),
        declaring(scan, monkeypatch, x=rs.Output(2, "f4")),
        declaring(scan, monkeypatch, x=rs.Output(2), z=rs.Output(per="run")),
        declaring(scan, monkeypatch, x=rs.Output(2), z=rs.Output()),
    ]
    equal = [
        declaring(scan, monkeypatch, x=rs.Output((2,), float)),
        declaring(scan, monkeypatch, x=rs.Output(2, units="V", labels=("a", "b"))),
        declaring(scan, monkeypatch, x=rs.Output(2, fill_value=-1)),
    ]

    assert len({same, *others}) == 7
    assert set(equal) == {same}


@pytest.mark.parametrize(
    "options",
    [
        {"engine": "serial", "memory": "1 MB"},
        {"engine": "local", "workers": 1},
        {"engine": "serial", "checkpoint": 0.5, "on_error": "raise"},
    ],
    ids=str,
)
def test_the_way_of_computing_does_not_count(scan, options):
    """Engine, workers, memory, checkpoint: the same run goes on."""
    part = compute(Mean(scan), positions=slice(0, 30))
    results = Mean(scan).compute(progress=False, **options)

    assert results == part
    assert results.sessions[-1].computed == 30


def test_the_folder_and_the_name_of_the_source_file_do_not_count(
    scan, tmp_path, monkeypatch
):
    """A moved source has the identity it had, however its path is typed."""
    before = Mean(scan).identity
    path = Path(scan.partition("::")[0])
    monkeypatch.chdir(tmp_path)
    relative = Mean(f"{path.name}::data").identity
    path.rename(tmp_path / "moved.h5")

    assert relative == before
    assert Mean(f"{tmp_path}/moved.h5::/data").identity == before


# Sources that can grow.


@pytest.fixture
def growing(make_file):
    """A source whose position axis is resizable, 40 x 8."""
    data = np.random.default_rng(1).random((40, 8))
    made = {"data": data, "maxshape": (None, 8), "chunks": (16, 8)}
    return make_file(data=made) + "::/data"


def test_a_source_that_only_grew_goes_on(growing):
    """Finished rows are taken over, new positions are computed, none twice."""
    process = Mean(growing)
    process.calls = []
    compute(process)
    with h5py.File(growing.partition("::")[0], "r+") as file:
        file["data"].resize((55, 8))
        file["data"][40:] = 7.0
    results = compute(process)

    assert sorted(process.calls) == list(range(55))
    assert results["mean"].shape == (55,)
    np.testing.assert_array_equal(results["mean"], data_of(growing).mean(axis=1))
    assert results.status.finished
    assert compute(Mean(growing)) == results


def test_changed_contents_of_a_growable_source_are_noticed(growing):
    """A changed row is not answered with old numbers, nor mixed with them."""
    first = compute(Mean(growing))
    change(growing.partition("::")[0], "data", (30, 0), 99.0)
    second = compute(Mean(growing))

    assert second.path != first.path
    np.testing.assert_array_equal(second["mean"], data_of(growing).mean(axis=1))


def test_a_change_while_a_growable_source_is_half_computed_is_noticed(growing):
    """Going on never adds rows of new contents to rows of old ones."""
    compute(Mean(growing), positions=slice(0, 20))
    change(growing.partition("::")[0], "data", (10, 0), 99.0)
    results = compute(Mean(growing))

    np.testing.assert_array_equal(results["mean"], data_of(growing).mean(axis=1))


def test_a_growable_source_that_shrank_is_a_new_run(growing):
    """Fewer positions than a run has: results have what the source has now."""
    compute(Mean(growing))
    with h5py.File(growing.partition("::")[0], "r+") as file:
        file["data"].resize((25, 8))
    results = compute(Mean(growing))

    assert results["mean"].shape == (25,)
    np.testing.assert_array_equal(results["mean"], data_of(growing).mean(axis=1))


# pyUSID's faults 8 to 20 (the numbers of ../shared/facts/pyusid.md, 4.2).


def test_fault_8_names_are_not_matched_by_parts(make_file):
    """'Fit' does not take results of 'SHO_Fit', nor 'Raw_Data' of 'Raw_Data_B'."""
    path = make_file(Raw_Data=np.ones((5, 3)), Raw_Data_B=np.zeros((5, 3)))
    sho = type("SHO_Fit", (Mean,), {"version": 1, "__module__": __name__})
    fit = type("Fit", (Mean,), {"version": 1, "__module__": __name__})
    compute(sho(f"{path}::/Raw_Data"))
    compute(fit(f"{path}::/Raw_Data_B"))
    wanted = fit(f"{path}::/Raw_Data")

    assert wanted.duplicates == wanted.partials == []
    np.testing.assert_array_equal(compute(wanted)["mean"], np.ones(5))


def test_fault_9_a_name_that_begins_another_name_is_no_trouble(make_file):
    """'Fit' beside 'Fit_Guess' and a dataset whose name ends like a process."""
    path = make_file(**{"data": np.ones((5, 3)), "data-Fit": np.zeros((5, 3))})
    fit = type("Fit", (Mean,), {"version": 1, "__module__": __name__})
    guess = type("Fit_Guess", (Mean,), {"version": 1, "__module__": __name__})
    for _ in range(2):
        compute(guess(f"{path}::/data"))
        compute(fit(f"{path}::/data"), override=True)
        compute(fit(f"{path}::/data-Fit"))

    assert len(fit(f"{path}::/data").duplicates) == 2
    assert len(guess(f"{path}::/data").duplicates) == 1


def test_fault_10_a_dash_in_names_finds_its_own_results(make_file):
    """Datasets may have dashes (a class name cannot)."""
    process = Mean(make_file(**{"raw-data-1": np.ones((5, 3))}) + "::/raw-data-1")
    process.calls = []
    compute(process)
    compute(process)

    assert len(process.calls) == 5


def test_fault_11_small_numbers_are_not_all_equal(scan):
    """Arrays compare exactly: nanometres and picoamperes do not collide."""
    one = Scaled(scan, table=np.array([1e-9, 2e-9]))
    two = Scaled(scan, table=np.array([5e-9, 9e-9]))

    assert one.identity != two.identity


def test_fault_12_scalars_and_arrays_compare_alike(scan):
    """Both exactly: 0.1 + 0.2 is not 0.3, alone or in an array."""
    summed, plain = 0.1 + 0.2, 0.3

    assert Scaled(scan, factor=summed).identity != Scaled(scan, factor=plain).identity
    assert (
        Scaled(scan, table=np.array([summed])).identity
        != Scaled(scan, table=np.array([plain])).identity
    )


@pytest.mark.parametrize(
    "given",
    [
        {"anything": float("nan")},
        {"table": np.array([1.0, np.nan])},
        {"anything": [float("nan"), {"a": -float("nan")}]},
    ],
    ids=["scalar", "array", "nested"],
)
def test_fault_13_nan_finds_its_own_results(scan, given):
    """NaN equals NaN: computed once, then returned."""
    first = compute(Scaled(scan, **given), positions=slice(0, 30))
    second = compute(Scaled(scan, **given))

    assert first == second
    assert len(Scaled(scan, **given).duplicates) == 1


def test_fault_14_none_and_empty_values_match_only_themselves(scan):
    """None is no wildcard, [] no zero, and fewer keys no match."""
    values = [None, 0, 0.0, -0.0, False, [], [0], {}, {"a": None}, {"a": 1}, "", ()]
    identities = [Scaled(scan, anything=value).identity for value in values]

    # An empty list and an empty tuple are the same, as documented.
    assert identities[5] == identities[-1]
    assert len(set(identities)) == len(values) - 1


def test_fault_15_same_size_and_another_shape_is_another_run(scan):
    """No error from construction, and no match."""
    flat, square = np.arange(4.0), np.arange(4.0).reshape(2, 2)
    compute(Scaled(scan, table=flat))

    assert Scaled(scan, table=square).duplicates == []


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (np.zeros(20_000), np.append(np.zeros(19_999), 1)),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}),
        ("x" * 100_000, "x" * 99_999 + "y"),
    ],
    ids=["160 kB", "nested", "long text"],
)
def test_fault_16_large_and_nested_parameters_count(scan, one, two):
    """What does not fit into an attribute is part of the identity all the same."""
    first = compute(Scaled(scan, anything=one), positions=slice(0, 30))

    assert compute(Scaled(scan, anything=one)) == first
    assert Scaled(scan, anything=two).duplicates == []


def test_fault_17_another_source_of_the_same_name_does_not_match(make_file, tmp_path):
    """An overwritten source and another file with the same dataset name: new runs."""
    target = tmp_path / "target"
    target.mkdir()
    one = make_file(data=np.ones((5, 3)))
    first = compute(Mean(f"{one}::/data", target))
    other = tmp_path / "other"
    other.mkdir()
    with h5py.File(other / "scan.h5", "w") as file:
        file["data"] = np.full((5, 3), 2.0)
    second = compute(Mean(f"{other}/scan.h5::/data", target))
    change(one, "data", ..., 3.0)
    third = compute(Mean(f"{one}::/data", target))

    assert len({first.path, second.path, third.path}) == 3
    assert [r["mean"][0] for r in (first, second, third)] == [1, 2, 3]


def test_fault_18_arguments_of_the_function_and_dtypes_count(scan):
    """What changes numbers is a parameter, a version, an output or the source."""

    def scaled(spectrum, scale=1.0):
        return spectrum[0] * scale

    one = rs.map(scaled, scan, options={"engine": "serial"}, scale=1.0)
    hundred = rs.map(scaled, scan, options={"engine": "serial"}, scale=100.0)

    assert one.identity != hundred.identity
    np.testing.assert_allclose(hundred["result"], one["result"][...] * 100)


def test_fault_19_override_on_the_same_object_computes(scan):
    """Twice, and the finished ones are complete, not partial."""
    process = Mean(scan)
    process.calls = []
    compute(process, override=True)
    compute(process, override=True)

    assert len(process.calls) == 120
    assert process.partials == []
    assert len(process.duplicates) == 2


def test_fault_20_cores_do_not_leak_and_nothing_is_looked_up_too_early(scan):
    """Workers are no parameter, and construction looks up no runs at all."""
    document = compute(Mean(scan), workers=1).document
    process = Scaled(scan, factor=3)
    process.factor = 4

    assert set(document["parameters"]) == {"seed"}
    assert set(document) == {
        "schema",
        "process",
        "version",
        "parameters",
        "outputs",
        "position_axes",
        "source",
        "inputs",
    }
    assert process.identity == Scaled(scan, factor=4).identity
