"""Maps of outputs, drawn with matplotlib."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable.errors import as_html, shown
from resumable.results.arrays import RaggedArray, states_of
from resumable.results.axes import Axis, position_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from resumable.results.results import Results

    Array = np.ndarray[Any, np.dtype[Any]]

#: Most positions that are drawn along an axis of a map; times as many on its only one.
_MOST_DRAWN, _LINE = 1000, 10
#: Most bytes that are read of an output.
_MOST_BYTES = 64 << 20
_MOST_PANELS = 24
_COLUMNS = 3
#: Bars of a histogram.
_BINS = 60
#: States of positions without a value, their greys and what they are called.
_WITHOUT = ((1, "0.85", "pending"), (2, "0.45", "failed"))
#: Percentiles that colours reach from and to: one wild fit must not hide the others.
_ENDS = (1, 99)


class View(NamedTuple):
    """Which positions of a map are drawn."""

    key: tuple[Any, ...]
    """Of an array of the map's shape: indices and slices."""
    axes: tuple[Axis, ...]
    """Axes that are left, one or two, with the coordinates that are drawn."""
    words: str
    """What is left out; empty if nothing."""

    @classmethod
    def of(cls, axes: tuple[Axis, ...], most_drawn: int) -> View:
        """Choose positions: the middle of all axes but two, and a part of long ones."""
        key: list[Any] = []
        kept, words = [], []
        for axis in axes[:-2]:
            middle = len(axis.values) // 2
            key.append(middle)
            words.append(f"{axis.name} {axis.values[middle]:g} {axis.units}".rstrip())
        most = most_drawn * (_LINE if len(axes) == 1 else 1)
        for axis in axes[-2:]:
            step = math.ceil(len(axis.values) / most)
            key.append(slice(None, None, step))
            kept.append(axis._replace(values=axis.values[::step]))
            if step > 1:
                words.append(f"1 in {step:,} of {axis.name}")
        return cls(tuple(key), tuple(kept), ", ".join(words))


class Panel(NamedTuple):
    """What is drawn on one pair of axes."""

    title: str
    units: str
    values: Array | None
    """Of the positions drawn; None where they cannot be drawn."""


def draw_maps(
    results: Results,
    names: Iterable[str],
    most_panels: int = _MOST_PANELS,
    most_drawn: int = _MOST_DRAWN,
) -> Any:
    """Draw outputs as :meth:`Results.plot` says; return the figure."""
    return _figure(results, names, draw_panel, most_panels, most_drawn)


def draw_histograms(results: Results, names: Iterable[str]) -> Any:
    """Draw how often which values come, of the positions that maps have."""
    return _figure(results, names, _draw_histogram, _MOST_PANELS, _MOST_DRAWN)


def _figure(
    results: Results,
    names: Iterable[str],
    draw: Callable[[Any, Panel, View, Array], None],
    most_panels: int,
    most_drawn: int,
) -> Any:
    """Draw the panels of outputs; return the figure."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        msg = "drawing needs matplotlib: pip install 'resumable-hdf5[plot]'"
        raise ImportError(msg) from error
    view = View.of(position_axes(results._run), most_drawn)
    hidden = _states(results, view)
    panels = (panel for name in names for panel in panels_of(results, name, view))
    drawn = list(itertools.islice(panels, most_panels))
    columns = min(_COLUMNS, len(drawn)) or 1
    rows = math.ceil(len(drawn) / columns) or 1
    low = draw is _draw_histogram or len(view.axes) == 1
    size = (4.2 * columns, (2.2 if low else 3.2) * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes, panel in zip(grid, drawn, strict=False):
        axes.set_title(shown(panel.title), fontsize="medium")
        if panel.values is None:
            _say(axes, "not drawable: neither numbers nor booleans")
            axes.set_axis_off()
        else:
            draw(axes, panel, view, hidden)
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    title = [f"{results.path.name}: {results.status}", view.words]
    if next(panels, None) is not None:
        title.append("there are more: plot() with names draws them")
    patches = [
        Patch(color=colour, label=words)
        for state, colour, words in _WITHOUT
        if draw is draw_panel and (hidden == state).any()
    ]
    if patches:
        figure.legend(handles=patches, fontsize="small", loc="outside lower right")
    figure.suptitle(shown("\n".join(filter(None, title)), lines=True), fontsize="small")
    return figure


def html_of_figure(figure: Any, words: str, dpi: int = 100) -> str:
    """Return an HTML element with the picture inside; `words` stand for it as text."""
    import base64
    import io

    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi)
    code = base64.b64encode(picture.getvalue()).decode()
    return f'<img alt="{as_html(words)}" src="data:image/png;base64,{code}">'


def _states(results: Results, view: View) -> Array:
    """Return which drawn positions have no value: 0 has one, 1 pending, 2 failed."""
    return np.array([1, 0, 2])[states_of(results._run, view.key)]


def panels_of(results: Results, name: str, view: View) -> Iterator[Panel]:
    """Yield what is drawn of an output, a part of it for each label or field.

    Of an output per run nothing is.
    """
    output = results[name]
    declared = results._run.header.outputs[name]
    if declared.per == "run":
        return
    units = output.units or ""
    if isinstance(output, RaggedArray):
        yield Panel(f"{name}: number of rows", "", output.count[view.key])
        return
    # Of long axes of its own a part is read.
    cells = math.prod(len(axis.values) for axis in view.axes)
    bytes_read = cells * math.prod(declared.shape) * output.dtype.itemsize
    step = math.ceil(bytes_read / _MOST_BYTES) if not output.labels else 1
    inner = [slice(None)] * len(declared.shape)
    if inner:
        inner[-1] = slice(None, None, step)
    mean = f"mean of 1 in {step:,}" if step > 1 else "mean"
    for field, part in _numbers(output[(*view.key, *inner)]):
        title = name + field
        if part is None:
            yield Panel(title, "", None)
            continue
        if part.dtype.kind == "c":
            title, part = f"{title}: magnitude", np.abs(part)
        own = part.ndim - len(view.axes)
        if output.labels and not field:
            for number, label in enumerate(output.labels):
                labelled = _mean(part[..., number], own - 1)
                yield Panel(f"{title}: {label}", units, labelled)
        else:
            yield Panel(f"{title}: {mean}" if own else title, units, _mean(part, own))


def _mean(values: Array, axes: int) -> Array:
    """Return the mean over some last axes."""
    mean: Array = values.mean(axis=tuple(range(values.ndim - axes, values.ndim)))
    return mean


def _numbers(values: Array) -> Iterator[tuple[str, Array | None]]:
    """Yield fields that are numbers, after what to add to the name; None for others."""
    if values.dtype.names is None:
        values = values.astype("u1") if values.dtype.kind == "b" else values
        yield "", values if values.dtype.kind in "iufc" else None
        return
    for name in values.dtype.names:
        for field, part in _numbers(values[name]):
            yield f".{name}{field}", part


def draw_panel(axes: Any, panel: Panel, view: View, hidden: Array) -> None:
    """Draw a map, or a line where it has one axis."""
    values = _masked(panel, hidden)
    if len(view.axes) == 1:
        _draw_line(axes, values, panel, view.axes[0], hidden)
    else:
        _draw_image(axes, values, panel, view.axes, hidden)
    if values.mask.all():
        _say(axes, "no finite values")


def _draw_histogram(axes: Any, panel: Panel, view: View, hidden: Array) -> None:
    finite = _masked(panel, hidden).compressed()
    if not len(finite):
        _say(axes, "no finite values")
        return
    low, high = np.percentile(finite, _ENDS)
    beyond = int(np.count_nonzero((finite < low) | (finite > high)))
    if low == high:
        low, high, beyond = finite.min(), finite.max(), 0
    bins: Any = _BINS
    if (finite == np.round(finite)).all():
        # As many numbers in every bin.
        step = math.ceil((high - low + 1) / _BINS)
        bins = np.arange(math.floor(low), high + step + 1, step) - 0.5
    axes.hist(finite, bins=bins, range=(low, high), color="#3b528b")
    axes.set_xlabel(shown(panel.units))
    axes.set_ylabel("positions")
    if beyond:
        axes.text(
            *(0.98, 0.95, f"{beyond:,} beyond"),
            transform=axes.transAxes,
            ha="right",
            va="top",
            fontsize="x-small",
        )


def _masked(panel: Panel, hidden: Array) -> Any:
    """Return the values of a panel, masked where there are none."""
    values = np.asarray(panel.values, float)
    return np.ma.masked_invalid(np.ma.masked_where(hidden > 0, values))


def _say(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", fontsize="small")


def _draw_line(axes: Any, values: Any, panel: Panel, axis: Axis, hidden: Array) -> None:
    few = len(values) < 100
    axes.plot(axis.values, values, ".-" if few else "-", linewidth=0.8)
    axes.set_xlabel(shown(axis.title))
    axes.set_ylabel(shown(panel.units))
    for state, colour, _ in _WITHOUT:
        places = axis.values[hidden == state]
        if len(places):
            floor = np.zeros(len(places))
            axes.plot(
                places,
                floor,
                "|",
                color=colour,
                transform=axes.get_xaxis_transform(),
            )


def _draw_image(
    axes: Any, values: Any, panel: Panel, both: tuple[Axis, ...], hidden: Array
) -> None:
    from matplotlib.colors import ListedColormap

    rows, columns = both
    states = ListedColormap([colour for _, colour, _ in _WITHOUT])
    without = np.ma.masked_equal(hidden, 0)
    low, high = 0.0, 1.0
    finite = values.compressed()
    if len(finite):
        low, high = np.percentile(finite, _ENDS)
    x, y = _edges(columns.values), _edges(rows.values)
    axes.pcolormesh(x, y, without, cmap=states, vmin=1, vmax=2, rasterized=True)
    drawn = axes.pcolormesh(
        x, y, values, cmap="viridis", vmin=low, vmax=high, rasterized=True
    )
    if _same_scale(x, y) and rows.units == columns.units:
        axes.set_aspect("equal")
    if "position" in rows.name and not rows.units:
        axes.invert_yaxis()  # as an image: there are no coordinates
    extend = _beyond(finite, low, high)
    bar = axes.figure.colorbar(drawn, ax=axes, extend=extend, fraction=0.046)
    bar.set_label(shown(panel.units))
    axes.set_xlabel(shown(columns.title))
    axes.set_ylabel(shown(rows.title))


def _beyond(values: Array, low: float, high: float) -> str:
    """Return at which ends of a colour bar there are values beyond it."""
    below, above = (values < low).any(), (values > high).any()
    if below and above:
        return "both"
    return "min" if below else "max" if above else "neither"


def _edges(values: Array) -> Array:
    """Return the edges of cells around coordinates."""
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        values = np.arange(len(values))
    if len(values) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    middle = (values[:-1] + values[1:].astype(float)) / 2
    first, last = 2 * values[0] - middle[0], 2 * values[-1] - middle[-1]
    return np.array([first, *middle, last])


def _same_scale(x: Array, y: Array) -> bool:
    """Return whether a map is drawn with one scale without becoming a thin strip."""
    ratio = abs((x[-1] - x[0]) / ((y[-1] - y[0]) or 1))
    return bool(0.2 <= ratio <= 5)
