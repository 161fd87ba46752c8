"""Maps of outputs: what is drawn where, read back from the matplotlib figure."""

from typing import ClassVar

import h5py
import numpy as np
import pytest
from helpers import compute

import resumable as rs

pytestmark = pytest.mark.filterwarnings("ignore:1 of .* positions failed")


@pytest.fixture
def figure_of(source):
    def make(process, **options):
        return compute(process(source, position_axes=(0, 1)), **options).plot()

    return make


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title()]


def drawn(axes):
    """Return what a panel has in colours, masked where it has no value."""
    return axes.collections[1].get_array()


class Kinds(rs.Process):
    """All that an output can be; one position fails."""

    version = 1
    outputs: ClassVar = {
        "fit": rs.Output(2, units="eV", labels=("centre", "width")),
        "wave": rs.Output(dtype="c16"),
        "flag": rs.Output(dtype="?"),
        "text": rs.Output(dtype="S3"),
        "pair": rs.Output(dtype=[("a", "f4"), ("b", "i2", (2,))]),
        "line": rs.Output(16),
        "peaks": rs.Output(ragged=True),
        "never": rs.Output(),
        "total": rs.Output(per="run"),
    }

    def unit_computation(self, spectrum):
        if self.position == (2, 3):
            raise ValueError("no")
        row, column = self.position
        return {
            "fit": (row, column),
            "wave": 3j * row,
            "flag": column > 2,
            "text": b"abc",
            "pair": (row, (column, 0)),
            "line": np.full(16, row),
            "peaks": np.zeros(row),
            "never": np.nan,
        }

    def finish(self, results):
        return 1.0


def test_every_output_has_panels_with_its_values_coordinates_and_units(figure_of):
    figure = figure_of(Kinds)
    by_title = {axes.get_title(): axes for axes in panels(figure)}
    rows, columns = np.mgrid[:8, :5]
    wanted = {
        "fit: centre": rows,
        "fit: width": columns,
        "wave: magnitude": 3 * rows,
        "flag": columns > 2,
        "pair.a": rows,
        "pair.b: mean": columns / 2,
        "line: mean": rows,
        "peaks: number of rows": rows,
    }
    assert list(by_title) == [
        *("fit: centre", "fit: width", "wave: magnitude", "flag", "text"),
        *("pair.a", "pair.b: mean", "line: mean", "peaks: number of rows", "never"),
    ]
    failed = np.zeros((8, 5), bool)
    failed[2, 3] = True
    for title, values in wanted.items():
        found = drawn(by_title[title])
        np.testing.assert_array_equal(found.mask, failed)
        np.testing.assert_array_equal(found.compressed(), values[~failed])
    first = by_title["fit: centre"]
    assert first.get_ylabel() == "height [nm]"
    assert first.get_ylim() == (-1 / 14, 15 / 14)
    assert first.get_xlabel() == "position_1"
    assert first.collections[1].colorbar.ax.get_ylabel() == "eV"
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["failed"]
    assert "not drawable" in by_title["text"].texts[0].get_text()
    assert "no finite" in by_title["never"].texts[0].get_text()
    figure.savefig("/dev/null", format="png")


def test_pending_positions_are_told_from_failed_ones(figure_of):
    figure = figure_of(Kinds, positions=np.s_[:4, :])
    states = panels(figure)[0].collections[0].get_array()
    assert (states[4:] == 1).all()
    assert states[2, 3] == 2
    assert states.mask[:4].sum() == 19
    assert "19 of 40 positions done, 1 failed, 20 pending" in figure.get_suptitle()


class Row(rs.Process):
    version = 1
    outputs: ClassVar = {"row": rs.Output()}

    def block_computation(self, rows):
        return rows.reshape(len(rows), -1)[:, 0]


@pytest.mark.parametrize(
    ("shape", "words", "values"),
    [
        ((7,), "", np.arange(7)),
        ((25_000,), "1 in 3 of position", np.arange(0, 25_000, 3)),
        ((3, 4, 5, 6), "position_0 1, position_1 2", np.arange(180, 210)),
    ],
)
def test_maps_of_one_and_four_axes(tmp_path, shape, words, values):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["x"] = np.arange(np.prod(shape), dtype="f8").reshape(*shape, 1)
    axes = tuple(range(len(shape)))
    results = compute(Row(f"{tmp_path}/s.h5::/x", position_axes=axes))
    figure = results["row"].plot()
    [panel] = panels(figure)
    found = drawn(panel) if len(shape) > 1 else panel.lines[0].get_ydata()
    np.testing.assert_array_equal(np.ravel(found), values)
    assert figure.get_suptitle().partition("\n")[2] == words


def test_a_long_map_without_coordinates_counts_from_0(tmp_path):
    class Number(rs.Process):
        version = 1
        outputs: ClassVar = {"n": rs.Output(dtype="i4")}

        def block_computation(self, numbers):
            return numbers

    results = compute(Number((1 << 20) + 1, tmp_path))
    [axis] = results.coords.values()
    np.testing.assert_array_equal(axis.values, np.arange((1 << 20) + 1))
    results.pack()
    np.testing.assert_array_equal(results.coords[axis.name].values, axis.values)
    [line] = panels(results.plot())[0].lines
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())


def test_long_axes_of_an_output_are_read_in_part(source, monkeypatch):
    results = compute(Kinds(source, position_axes=(0, 1)))
    monkeypatch.setattr("resumable.results.maps._MOST_BYTES", 8 * 5 * 8 * 4)
    [panel] = panels(results.plot("line"))
    assert panel.get_title() == "line: mean of 1 in 4"
    assert drawn(panel)[5, 0] == 5


def test_a_label_indexes_an_output(source):
    results = compute(Kinds(source, position_axes=(0, 1)))
    np.testing.assert_array_equal(results["fit"]["width"], results["fit"][..., 1])
    with pytest.raises(KeyError, match="no label 'centr'; did you mean 'centre'"):
        results["fit"]["centr"]
    with pytest.raises(KeyError, match="there is no output"):
        results.plot("fitt")


def test_a_notebook_shows_maps_and_where_positions_failed(source):
    results = compute(Kinds(source, position_axes=(0, 1)))
    html = results._repr_html_()
    assert "<td>(2, 3)</td><td>ValueError</td>" in html
    assert html.count('src="data:image/png;base64,') == 1
