"""test(): one or a few positions, tried without writing anything."""

import sys
import time
import warnings
from typing import ClassVar

import h5py
import numpy as np
import param
import pytest
from helpers import data_of
from processes import Same, process_of

import resumable as rs
from resumable.source.reader import Reader

X = {"x": rs.Output()}
OUT = {"low": rs.Output(), "pair": rs.Output(2, units="V")}


class Try(rs.Process):
    """Two outputs; fails where ``bad`` is."""

    version = 1
    outputs = OUT
    bad = param.List([])

    def unit_computation(self, spectrum):
        if self.position in self.bad:
            raise ValueError("bad spectrum")
        return {"low": spectrum.min(), "pair": spectrum[:2]}


class TryBlock(rs.Process):
    """The same as a block computation."""

    version = 1
    outputs = OUT
    bad = param.List([])

    def block_computation(self, spectra):
        if set(np.ravel(self.position).tolist()) & set(self.bad):
            raise ValueError("bad spectrum")
        return {"low": spectra.min(axis=1), "pair": spectra[:, :2]}


@pytest.fixture
def mapped(make_file):
    data = np.random.default_rng(3).random((4, 5, 8))
    return make_file("map.h5", data=data) + "::/data"


BOTH = pytest.mark.parametrize("cls", [Try, TryBlock])


@BOTH
def test_one_position_gives_its_outputs_without_an_axis(scan, cls):
    trial = cls(scan).test(42)
    row = data_of(scan)[42]

    assert trial.positions == [42]
    assert trial["low"] == row.min()
    np.testing.assert_array_equal(trial["pair"], row[:2])
    np.testing.assert_array_equal(trial.spectra, [row])
    assert set(trial.outputs) == {"low", "pair"}


def test_without_an_argument_the_first_position_is_tried(scan):
    assert Try(scan).test().positions == [0]


def test_a_tuple_names_a_position_on_a_map(mapped):
    trial = Try(mapped, position_axes=(0, 1)).test((2, -1))

    assert trial.positions == [(2, 4)]
    assert trial["low"] == data_of(mapped)[2, 4].min()


@BOTH
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ([30, 3, -23, 3], [30, 3, 37, 3]),
        (np.array([3, 30, 7]), [3, 30, 7]),
        (np.isin(np.arange(60), [3, 7, 30]), [3, 7, 30]),
        (slice(30, 2, -23), [30, 7]),
    ],
    ids=["list", "array", "mask", "slice"],
)
def test_several_positions_give_an_axis_in_the_order_asked_for(
    scan, cls, chosen, expected
):
    trial = cls(scan).test(chosen)
    rows = data_of(scan)[expected]

    assert trial.positions == expected
    np.testing.assert_array_equal(trial.spectra, rows)
    np.testing.assert_array_equal(trial["low"], rows.min(axis=1))
    np.testing.assert_array_equal(trial["pair"], rows[:, :2])


def test_a_mask_and_a_slice_of_a_map(mapped):
    process = Try(mapped, position_axes=(0, 1))
    mask = np.zeros((4, 5), bool)
    mask[1, 2] = mask[3, 0] = True

    assert process.test(mask).positions == [(1, 2), (3, 0)]
    assert process.test(slice(0, 2)).positions == [(0, 0), (0, 1)]
    assert process.test([(3, 4), (0, 1)]).positions == [(3, 4), (0, 1)]
    assert process.test([7]).outputs["low"].shape == (1,)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (60, "position 60 does not exist"),
        ([], "no position to test"),
        (np.zeros(60, bool), "no position to test"),
        ((1, 1), "does not name a position on 1 axis"),
        ("first", "is not a position"),
    ],
    ids=["beyond", "none", "empty mask", "tuple", "text"],
)
def test_a_position_that_does_not_exist_is_refused(scan, chosen, words):
    with pytest.raises(rs.PlanError, match=words):
        Try(scan).test(chosen)


def test_the_trial_times_a_position_and_plans_the_whole(scan):
    class Slow(rs.Process):
        version = 1
        outputs = X

        def unit_computation(self, spectrum):
            time.sleep(0.02)
            return 1.0

    process = Slow(scan)
    before = process.plan(engine="serial").seconds
    began = time.perf_counter()
    trial = process.test(0)
    took = time.perf_counter() - began
    after = process.plan(engine="serial")

    assert before is None
    assert 0.02 <= trial.seconds_per_position <= took
    assert trial.plan.pending == 60
    assert trial.plan.seconds == pytest.approx(
        60 * trial.seconds_per_position / trial.plan.workers
    )
    assert after.seconds == pytest.approx(60 * trial.seconds_per_position)
    assert trial.plan.batches >= 4
    assert "per position" in str(trial)
    assert "time          about" in str(trial)
    assert "memory" in str(trial)


def test_timing_a_fast_function_does_not_read_the_source_again_and_again(
    scan, monkeypatch
):
    """Microseconds are timed by many calls, on data read once: reading may be slow."""
    reads = []
    read = Reader.read_span

    def counted(self, *arguments):
        reads.append(1)
        return read(self, *arguments)

    monkeypatch.setattr(Reader, "read_span", counted)
    monkeypatch.setattr("resumable.session.trial._MEASURED_S", 0.1, raising=False)

    assert Try(scan).test(3)["low"] == data_of(scan)[3].min()
    assert len(reads) < 50


def test_a_trial_prints_position_and_values(scan):
    text = str(Try(scan).test([5, 6]))

    assert text.startswith("position 5, 6")
    assert "low = [" in text
    assert "pair = [[" in text


def test_a_trial_writes_nothing(scan, tmp_path):
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    Try(scan).test([1, 2])
    with pytest.raises(ValueError, match="bad spectrum"):
        Try(scan, bad=[1]).test(1)

    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@BOTH
@pytest.mark.parametrize("chosen", [7, [3, 7, 30]], ids=["one", "several"])
def test_the_users_exception_comes_through_with_the_position(scan, cls, chosen):
    with pytest.raises(ValueError, match=r"^bad spectrum") as info:
        cls(scan, bad=[7]).test(chosen)

    assert type(info.value) is ValueError
    assert info.value.args == ("bad spectrum",)
    assert any("7" in note for note in info.value.__notes__)
    assert any(frame.name.endswith("_computation") for frame in info.traceback)


def test_a_wrong_output_is_told_in_a_trial(scan):
    Wrong = process_of(
        lambda self, spectrum: {"low": spectrum.min(), "pair": spectrum[:3]}, OUT
    )
    with pytest.raises(rs.OutputError, match=r"'pair' .* \(2,\), .* \(3,\)"):
        Wrong(scan).test(0)


def test_setup_inputs_and_randomness_are_as_in_a_run(make_file):
    class Full(rs.Process):
        version = 1
        outputs = X

        def setup(self):
            self.table = np.arange(8.0)

        def unit_computation(self, spectrum, weight):
            return spectrum @ self.table * weight + self.rng.random()

    rng = np.random.default_rng(0)
    path = make_file(data=rng.random((20, 8)), weight=rng.random(20))
    process = Full(f"{path}::/data", inputs={"weight": "::/weight"})
    tried = process.test([2, 19])["x"]
    results = process.compute(engine="serial", progress=False)

    np.testing.assert_array_equal(results["x"][[2, 19]], tried)


@pytest.mark.parametrize(
    "look",
    [
        lambda process: process.test(0),
        lambda process: process.verify(),
        lambda process: rs.testing.check(process),
    ],
    ids=["test", "verify", "check"],
)
def test_filters_of_warnings_that_setup_sets_are_not_left_in_the_script(scan, look):
    def setup(self):
        warnings.simplefilter("ignore")
        np.seterr(all="ignore")

    process = process_of(lambda self, spectrum: spectrum.mean(), setup=setup)(scan)
    process.compute(engine="serial", progress=False)
    before = list(warnings.filters), np.geterr()

    look(process)

    assert (list(warnings.filters), np.geterr()) == before


def test_outputs_per_run_are_not_part_of_a_trial(scan):
    Summed = process_of(
        lambda self, spectrum: {"x": 1.0}, X | {"total": rs.Output(per="run")}
    )
    assert set(Summed(scan).test(0).outputs) == {"x"}


def test_a_source_without_data_can_be_tried(tmp_path):
    class Square(rs.Process):
        version = 1
        outputs: ClassVar = {"x": rs.Output(dtype="i8")}

        def unit_computation(self, index):
            assert type(index) is int
            return index**2

    assert Square(100, tmp_path).test(9)["x"] == 81


def test_a_trial_has_a_picture(scan):
    """Data on the left, result on the right, a row per position, at most four."""
    pytest.importorskip("matplotlib")
    one = Try(scan).test(3).figure
    many = Try(scan).test(range(9)).figure
    (line,) = one.axes[0].lines

    assert len(one.axes) == 2
    assert len(many.axes) == 8
    np.testing.assert_array_equal(line.get_ydata(), data_of(scan)[3])
    assert "position 3" in one.axes[0].get_title()


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("f4", (5, 4, 3)),
        ("c8", (5, 4)),
        ("?", (5, 4, 3, 2)),
        ("?", (5,)),
        ([("a", "f4"), ("b", "i4")], (5, 4)),
        ("S3", (5,)),
        ("S3", (5, 4)),
        ("S3", (5, 4, 3)),
    ],
    ids=str,
)
def test_any_kind_of_data_and_result_can_be_drawn(make_file, dtype, shape):
    pytest.importorskip("matplotlib")
    source = make_file(data=np.zeros(shape, dtype)) + "::/data"

    assert len(Same(source).test([0, 1]).figure.axes) == 4


def test_a_picture_has_axes_units_fits_over_the_data_and_labels(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["counts"] = np.arange(40.0).reshape(5, 8)
        file["energy"] = np.linspace(1, 2, 8)
        file["energy"].attrs["units"] = "eV"
        file["energy"].make_scale("energy")
        file["counts"].dims[1].attach_scale(file["energy"])

    class Fit(rs.Process):
        version = 1
        outputs: ClassVar = {
            "curve": rs.Output(8),
            "fit": rs.Output(2, units="eV", labels=("centre", "width")),
        }

        def unit_computation(self, spectrum):
            return {"curve": spectrum + 1, "fit": (spectrum[0], 2)}

    left, right = Fit(f"{tmp_path}/s.h5::/counts").test(3).figure.axes
    data, curve = left.lines
    np.testing.assert_array_equal(data.get_xdata(), np.linspace(1, 2, 8))
    np.testing.assert_array_equal(curve.get_xdata(), np.linspace(1, 2, 8))
    np.testing.assert_array_equal(curve.get_ydata(), np.arange(24.0, 32) + 1)
    assert left.get_xlabel() == "energy [eV]"
    assert left.get_legend().get_texts()[0].get_text() == "curve"
    [table] = right.tables
    cells = {
        place: cell.get_text().get_text() for place, cell in table.get_celld().items()
    }
    assert [cells[0, column] for column in range(3)] == ["fit: centre", "24.", "eV"]
    assert [cells[1, column] for column in range(3)] == ["fit: width", "2.", "eV"]


def test_a_subclass_can_draw_in_its_own_way(scan):
    pytest.importorskip("matplotlib")
    seen = []

    class Drawn(Try):
        version = 1

        def draw(self, axes, position, spectrum, outputs):
            seen.append((len(axes), position, spectrum.shape, set(outputs)))
            axes[0].set_title("mine")

    figure = Drawn(scan).test(5).figure

    assert seen == [(2, 5, (32,), {"low", "pair"})]
    assert figure.axes[0].get_title() == "mine"


def test_without_matplotlib_a_trial_works_and_the_picture_says_how(scan, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    trial = Try(scan).test(3)

    assert trial["low"] == data_of(scan)[3].min()
    assert "<pre>" in trial._repr_html_()
    assert "<img" not in trial._repr_html_()
    with pytest.raises(ImportError, match="pip install"):
        _ = trial.figure


def test_a_notebook_shows_numbers_and_picture(scan):
    pytest.importorskip("matplotlib")
    html = Try(scan).test(3)._repr_html_()

    assert "<pre>position 3" in html
    assert "<img alt=" in html
