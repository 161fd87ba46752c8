"""Results as tables and arrays of other libraries: pandas and xarray."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import ParameterError
from resumable.results.arrays import STATES, RaggedArray, states_of
from resumable.results.axes import Axis, axes_of, position_axes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    import xarray as xr

    from resumable.results.results import Results

    Array = np.ndarray[Any, np.dtype[Any]]


def table_of(results: Results, name: str | None) -> pd.DataFrame:
    """Make a table of the values of every position, or of the rows of one output."""
    try:
        import pandas as pd
    except ImportError as error:
        msg = "to_pandas() needs pandas: pip install 'resumable-hdf5[pandas]'"
        raise ImportError(msg) from error
    if name is not None:
        return _table_of_rows(results, name)
    status = states_of(results._run).reshape(-1)
    columns = dict(_coordinate_columns(results, np.arange(len(status))))
    columns["status"] = pd.Categorical.from_codes(status, categories=STATES)
    for each, output in results._run.header.outputs.items():
        if output.ragged:
            columns[f"{each}_count"] = results[each].count.reshape(-1)
        elif output.per == "position" and (not output.shape or output.labels):
            values = results[each][...].reshape(len(status), *output.shape)
            columns |= _columns(each, values, output.labels)
    return pd.DataFrame(columns, index=pd.RangeIndex(len(status), name="position"))


def _table_of_rows(results: Results, name: str) -> pd.DataFrame:
    """Make a table with a line for every row of a ragged output."""
    import pandas as pd

    rows = results[name]
    if not isinstance(rows, RaggedArray):
        msg = f"{name!r} is not ragged: to_pandas() without a name has it as columns"
        raise ParameterError(msg)
    positions = rows.index
    columns = dict(_coordinate_columns(results, positions))
    columns |= _columns(name, rows.values, rows.labels)
    return pd.DataFrame(columns, index=pd.Index(positions, name="position"))


def _coordinate_columns(
    results: Results, positions: Array
) -> Iterator[tuple[str, Array]]:
    """Yield the coordinates of flat positions, a column for each axis of the map."""
    axes = results.coords.values()
    places = np.unravel_index(positions, [len(axis.values) for axis in axes])
    for axis, place in zip(axes, places, strict=True):
        # Numbers from 0 on the only axis are the index of the table.
        if len(axis.values) and (len(places) > 1 or axis.name != "position"):
            yield axis.name, axis.values[place]


def _columns(name: str, values: Array, labels: Any = None) -> dict[str, Array]:
    """Name columns by labels of the last axis, by fields and by numbers.

    An element of the first axis is a line.
    """
    found: dict[str, Array] = {}
    if values.ndim > 1:
        axis = values.ndim - 1 if labels else 1
        for number in range(values.shape[axis]):
            part = values.take(number, axis)
            found |= _columns(f"{name}_{labels[number] if labels else number}", part)
        return found
    for ending, part in _fields(values):
        if part.ndim > 1:
            found |= _columns(f"{name}{ending}", part)
        elif part.dtype.kind == "S":
            found[f"{name}{ending}"] = np.char.decode(part, errors="replace")
        else:
            found[f"{name}{ending}"] = part
    return found


def _fields(values: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a compound with endings for their names; else the values."""
    if values.dtype.names is None:
        yield "", values
        return
    for name in values.dtype.names:
        for ending, part in _fields(values[name]):
            yield f"_{name}{ending}", part


def dataset_of(results: Results, chunks: Any) -> xr.Dataset:
    """Make an xarray Dataset; with `chunks` its variables are read when needed."""
    try:
        import xarray as xr
    except ImportError as error:
        msg = "to_xarray() needs xarray: pip install 'resumable-hdf5[xarray]'"
        raise ImportError(msg) from error
    run = results._run
    outputs = run.header.outputs
    coords = _Coordinates({"status", *outputs})
    dims = tuple(map(coords.add, position_axes(run)))
    flags = {"flag_values": list(range(len(STATES))), "flag_meanings": " ".join(STATES)}
    variables: dict[str, Any] = {"status": (dims, states_of(run), flags)}
    for name, output in outputs.items():
        attributes = {"units": output.units} if output.units else {}
        lead, array = dims if output.per == "position" else (), results[name]
        own = list(map(coords.add, axes_of(run, name)[len(lead) :]))
        if output.ragged:
            row = Axis(f"{name}_position", array.index, {})
            coords.add(row, f"{name}_row")
            variables[f"{name}_count"] = (dims, array.count)
            lead, values = (f"{name}_row",), array.values
        else:
            lazy = chunks is not None and output.per == "position"
            values = _lazily(array, chunks) if lazy else array[...]
        for ending, part in _fields(values):
            # Fields that are arrays have axes of their own.
            inner = range(part.ndim - len(lead) - len(own))
            places = (*lead, *own, *(f"{name}{ending}_{number}" for number in inner))
            variables[f"{name}{ending}"] = (places, part, attributes)
    about = {"source": results.source, "identity_sha256": results.identity}
    return xr.Dataset(variables, coords.entries, about)


class _Coordinates:
    """Coordinates of a Dataset, whose names are those of nothing else."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        #: As xarray takes them.
        self.entries: dict[str, tuple[str, Array, dict[str, str]]] = {}

    def add(self, axis: Axis, dimension: str = "") -> str:
        """Enter the coordinates of an axis; return the name they are known by."""
        for number in itertools.count(1):
            name = axis.name if number == 1 else f"{axis.name}_{number}"
            entry = self.entries.get(name)
            if entry is not None and np.array_equal(entry[1], axis.values):
                return name
            if entry is None and name not in self._taken:
                break
        self.entries[name] = (dimension or name, axis.values, dict(axis.attributes))
        return name


def _lazily(output: Any, chunks: Any) -> Any:
    """Return an array of dask that reads an output piece by piece."""
    try:
        import dask.array as da
    except ImportError as error:
        msg = "chunks= needs dask: pip install 'resumable-hdf5[dask]'"
        raise ImportError(msg) from error
    return da.from_array(output, chunks, asarray=False)  # type: ignore[no-untyped-call]
