"""Try a computation on a few positions; nothing is written."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import PlanError, as_html, shown
from resumable.model import format_seconds
from resumable.results import html_of_figure
from resumable.session.computation import Options
from resumable.session.decide import prospect
from resumable.worker import Computer, UnitLoop, kept_filters, kept_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from resumable.model import Output, Plan
    from resumable.results import Axis
    from resumable.session.computation import Computation

    Array = np.ndarray[Any, np.dtype[Any]]

#: The computation is repeated on the tested positions until so many seconds are
#: measured.
_MEASURED_S = 0.1
#: Most numbers of an output that are drawn as a table.
_IN_TABLE = 12


@dataclasses.dataclass(frozen=True, repr=False)
class Trial:
    """What a test found. Print it, or show it in a notebook."""

    positions: list[Any]
    """Tested positions: ints, or tuples on a map."""
    spectra: Array
    """Their data, one row per position."""
    outputs: dict[str, Any]
    """Output name -> value; with a leading axis when several were asked for."""
    rows: dict[str, Array]
    """Output name -> values of all tested positions, one row each."""
    seconds_per_position: float
    """Time of the computation alone."""
    plan: Plan
    """What ``compute()`` would do, with the expected time."""
    process: Any
    """The Process, for its way of drawing."""

    def __getitem__(self, name: str) -> Any:
        return self.outputs[name]

    def __str__(self) -> str:
        lines = [f"position {_few(self.positions)}"]
        for name, value in self.outputs.items():
            text = np.array2string(np.asarray(value), threshold=20, precision=6)
            lines.append(f"  {name} = {text}".replace("\n", "\n    "))
        lines.append(f"  {format_seconds(self.seconds_per_position)} per position")
        return "\n".join([*lines, str(self.plan)])

    __repr__ = __str__

    @property
    def figure(self) -> Any:
        """Picture of data and result, a matplotlib Figure."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            msg = "drawing needs matplotlib: pip install 'resumable-hdf5[plot]'"
            raise ImportError(msg) from error
        count = min(len(self.positions), 4)
        figure = Figure(figsize=(8, 2.6 * count), layout="constrained")
        grid = figure.subplots(count, 2, squeeze=False)
        for row, axes in enumerate(grid):
            values = {name: rows[row] for name, rows in self.rows.items()}
            self.process.draw(
                tuple(axes), self.positions[row], self.spectra[row], values
            )
        return figure

    def _repr_html_(self) -> str:
        text = f"<pre>{as_html(self, lines=True)}</pre>"
        with contextlib.suppress(ImportError):
            text += html_of_figure(self.figure, "tested positions")
        return text


def _few(positions: list[Any]) -> str:
    text = ", ".join(map(str, positions[:5]))
    return text + (f" and {len(positions) - 5} more" if len(positions) > 5 else "")


def try_positions(computation: Computation, asked: Array, *, single: bool) -> Trial:
    """Compute some flat positions, in any order, in this process.

    Where a single one was asked for, outputs have no axis for it. What the computation
    raises has the position as a note.
    """
    if not len(asked):
        msg = "no position to test: the selection is empty"
        raise PlanError(msg)
    # Computed as a batch would be, each once and ascending, and shown as asked for.
    flat, order = np.unique(asked, return_inverse=True)
    with opened(computation) as computer:
        spectra, rows, seconds = _compute(computer, flat)
    values = {name: of_output[order] for name, of_output in rows.items()}
    plan = prospect(computation, Options()).plan
    indices = np.unravel_index(asked, computation.geometry.map_shape)
    positions = list(zip(*(i.tolist() for i in indices), strict=True))
    return Trial(
        positions=positions if len(indices) > 1 else asked.tolist(),
        spectra=spectra[order],
        outputs={n: v[0] for n, v in values.items()} if single else values,
        rows=values,
        seconds_per_position=seconds,
        plan=dataclasses.replace(plan, seconds_per_position=seconds),
        process=computation.request.process,
    )


@contextlib.contextmanager
def opened(computation: Computation) -> Iterator[Computer]:
    """Compute positions in this process; the caller has frozen the parameters."""
    # What setup changes of them, or of the filters of warnings, is not for the script.
    with kept_settings(), kept_filters():
        computer = Computer(
            computation.request.process,
            computation.position_outputs,
            computation.source,
            computation.inputs,
        )
        with contextlib.closing(computer):
            yield computer


def read_positions(computer: Computer, flat: Array) -> tuple[Any, dict[str, Any]]:
    """Read the source and the inputs at some positions, wherever they lie."""
    parts = [computer.read((int(position), np.ones(1, bool))) for position in flat]
    rows = np.concatenate([part for part, _ in parts])
    names = parts[0][1]
    return rows, {n: np.concatenate([given[n] for _, given in parts]) for n in names}


def _compute(computer: Computer, flat: Array) -> tuple[Array, dict[str, Array], float]:
    """Read and compute the positions; return rows, values and seconds per position."""
    rows, inputs = read_positions(computer, flat)

    def timed() -> tuple[dict[str, Array], float]:
        # Copies, because the computation may change its rows in place.
        copies = copy.deepcopy((rows, inputs))
        began = time.perf_counter()
        values = _once(computer, *copies, flat)
        return values, time.perf_counter() - began

    values, took = timed()
    seconds, rounds = took, 1
    if took <= _MEASURED_S:
        # The first round does not count: it imports and compiles.
        seconds, rounds = 0.0, 0
        while seconds + took <= _MEASURED_S:
            took = timed()[1]
            seconds, rounds = seconds + took, rounds + 1
    return rows, values, seconds / rounds / len(flat)


def _once(
    computer: Computer, rows: Array, inputs: dict[str, Array], flat: Array
) -> dict[str, Array]:
    if hasattr(computer.process, "block_computation"):
        try:
            return computer.block(rows, inputs, flat)
        except Exception as raised:
            raised.add_note(f"at positions {_few(flat.tolist())}")
            raise
    loop = UnitLoop(computer, rows, inputs, flat)
    loop.run(0, len(flat), stop_on_error=True)
    if loop.exceptions:
        index, error = loop.exceptions[0]
        error.add_note(f"at position {int(flat[index])}")
        raise error
    return loop.values


def draw_default(
    axes: Any,
    position: Any,
    spectrum: Array,
    values: dict[str, Any],
    outputs: Mapping[str, Output],
    coords: Sequence[Axis],
) -> None:
    """Draw the data with outputs of its shape over it, and the other outputs.

    `coords` are the axes of the spectrum. Outputs of a few numbers are a table with
    labels and units; else the first is drawn as a line or an image.
    """
    left, right = axes
    data = np.asarray(spectrum)
    over = {
        name: np.asarray(value)
        for name, value in values.items()
        if data.ndim == 1
        and outputs[name].shape == data.shape
        and not outputs[name].ragged
        and np.asarray(value).dtype.kind in "biufc"
    }
    _draw_array(left, data, coords)
    for name, value in over.items():
        left.plot(_places(value, coords), _drawable(value), label=name)
    if over:
        left.legend(fontsize="small")
    left.set_title(f"position {position}", fontsize="medium")
    others = {name: value for name, value in values.items() if name not in over}
    large = next((n for n, v in others.items() if np.size(v) > _IN_TABLE), None)
    if large is not None:
        _draw_array(right, np.asarray(others[large]), ())
        right.set_title(large, fontsize="medium")
        return
    right.set_axis_off()
    rows = [row for name in others for row in _rows(name, others[name], outputs[name])]
    if rows:
        table = right.table(rows, loc="center", cellLoc="left", edges="horizontal")
        table.auto_set_font_size(value=False)
        table.set_fontsize("small")


def _rows(name: str, value: Any, output: Output) -> Iterator[list[str]]:
    """Yield name, value and units of every number of an output."""
    flat = np.asarray(value).reshape(-1)
    for number, each in enumerate(flat):
        label = name
        if output.labels:
            label = f"{name}: {output.labels[number % len(output.labels)]}"
        elif len(flat) > 1:
            label = f"{name}: {number}"
        text = np.array2string(np.asarray(each), precision=6)
        yield [shown(label), shown(text), shown(output.units or "")]


def _places(values: Array, coords: Sequence[Axis]) -> Array:
    """Return where the numbers of a line are drawn."""
    known = len(coords) == 1 and coords[0].values.shape == values.shape
    known = known and coords[0].values.dtype.kind in "iuf"
    return coords[0].values if known else np.arange(len(values))


def _drawable(array: Array) -> Array:
    return np.abs(array) if array.dtype.kind == "c" else array


def _draw_array(axes: Any, array: Array, coords: Sequence[Axis]) -> None:
    array = _drawable(array)
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        text = np.array2string(array, precision=6, threshold=8)
        axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
        axes.set_axis_off()
    elif array.ndim == 1:
        axes.plot(_places(array, coords), array, "." if len(array) < 10 else "-")
        if coords:
            axes.set_xlabel(shown(coords[-1].title))
    else:
        axes.imshow(array.reshape(-1, *array.shape[-2:])[0], aspect="auto")
        if coords:
            axes.set_xlabel(shown(coords[-1].title))
            axes.set_ylabel(shown(coords[-2].title))
