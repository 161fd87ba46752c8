"""What has been computed, read lazily from the run file."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable import identity
from resumable.errors import (
    IdentityError,
    RunFileError,
    SourceError,
    as_html,
    near_miss,
    option,
    shown,
)
from resumable.model import (
    canonical,
    decode,
    format_bytes,
    name_of_position,
    positions_in_order,
)
from resumable.results.arrays import (
    STATES,
    RaggedArray,
    ResultArray,
    check_own,
    open_group,
    shape_text,
    states_of,
    text_in,
    trace_of,
)
from resumable.results.axes import Axis, position_axes
from resumable.results.maps import draw_maps, html_of_figure
from resumable.runfile import (
    KEPT_BYTES,
    MOST_ARRAYS,
    Failure,
    LogLine,
    RaggedRows,
    RunFile,
    SessionRow,
    Snapshot,
    read_arrays,
    run_path,
)
from resumable.source import SharedValue, SourceRef

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    import xarray as xr

    from resumable.identity import Trace

    Array = np.ndarray[Any, np.dtype[Any]]


#: In a notebook: rows of failures, panels, and positions along an axis.
_FAILURES_SHOWN, _PANELS_SHOWN, _POSITIONS_SHOWN = 5, 3, 200


@dataclasses.dataclass(eq=False, repr=False)
class Status:
    """How far a run is: print it, or read its numbers of positions in each state."""

    positions: int
    done: int
    failed: int
    finished: bool
    """None is pending and ``finish`` has run."""

    @property
    def pending(self) -> int:
        """How many are left."""
        return self.positions - self.done - self.failed

    @classmethod
    def now(cls, run: RunFile) -> Status:
        """Read the status of a run file."""
        return cls(run.header.size, *run.progress())

    @classmethod
    def of(cls, snapshot: Snapshot) -> Status:
        """Return the status that was read from a run file."""
        size = snapshot.header.size
        return cls(size, snapshot.done, snapshot.failed, snapshot.finished)

    def __str__(self) -> str:
        text = f"{self.done:,} of {self.positions:,} positions done"
        if self.failed:
            text += f", {self.failed:,} failed"
        if self.pending:
            text += f", {self.pending:,} pending"
        return text

    def __repr__(self) -> str:
        return f"<Status: {self}>"


class Results(Mapping[str, Any]):
    """The results of a run: a mapping of output names to arrays on disk.

    Parameters
    ----------
    path : str, Path or RunFile
        A run file. It is checked, and never changed.

    Raises
    ------
    RunFileError
        It is damaged, newer than this library, or not a run file.

    Examples
    --------
    ``results["fit"][10:20]`` reads ten positions, ``results["fit"][...]`` all.
    """

    def __init__(self, path: str | Path | RunFile) -> None:
        self._run = path if isinstance(path, RunFile) else RunFile(run_path(path))

    def __getitem__(self, name: str) -> Any:
        asked: Any = name
        if not isinstance(asked, str) or asked not in self._run.header.outputs:
            names = ", ".join(self)
            hint = near_miss(str(name), self)
            msg = f"there is no output {name!r}{hint} (there are {names})"
            raise KeyError(msg)
        if self._run.header.outputs[name].ragged:
            return RaggedArray(self._run, name)
        return ResultArray(self._run, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._run.header.outputs)

    def __len__(self) -> int:
        return len(self._run.header.outputs)

    def rows(self, name: str, positions: Array) -> Any:
        """Read the rows of some positions from the file, whether done or not.

        Of a ragged output a list, an array for each position.

        Parameters
        ----------
        name : str
            An output per position.
        positions : ndarray of int
            Flat positions, or what :meth:`Process.compute` takes as these.

        Raises
        ------
        KeyError
            There is no such output.
        PlanError
            A position does not exist.
        """
        self[name]  # KeyError where there is none
        flat = positions_in_order(positions, self._run.header.map_shape)
        if self._run.header.outputs[name].ragged:
            return RaggedRows(self._run, name).read(flat, marked=False)
        return self._run.rows(name, flat)

    @property
    def path(self) -> Path:
        """The run file."""
        return self._run.path

    @property
    def identity(self) -> str:
        """sha256 of everything that decides the results, 64 hexadecimal digits."""
        return self._run.header.identity

    @property
    def document(self) -> dict[str, Any]:
        """Contents of the identity, as plain JSON."""
        return self._run.header.document

    @property
    def status(self) -> Status:
        """Numbers of done, failed and pending positions, read now."""
        return Status.now(self._run)

    @property
    def failures(self) -> list[Failure]:
        """Positions that failed, with exception and traceback; the first 1,000."""
        return self._run.failures()

    @property
    def sessions(self) -> list[SessionRow]:
        """Calls of compute that worked on this run."""
        return self._run.sessions()

    @property
    def log(self) -> list[LogLine]:
        """Log messages of the sessions: the first 500 and the last 500."""
        return self._run.log()

    @property
    def source(self) -> str:
        """Place of the source when the run was made."""
        return str(self._run.header.source.get("source", ""))

    @property
    def completed_mask(self) -> Array:
        """Which positions are done, bool, in the map's shape."""
        done: Array = self._run.marks()[...] == 1
        return done

    @property
    def failed_mask(self) -> Array:
        """Which positions failed, bool, in the map's shape."""
        failed: Array = states_of(self._run) == STATES.index("failed")
        return failed

    @property
    def coords(self) -> dict[str, Axis]:
        """Axes of the map by name: ``values``, ``units``, further ``attributes``.

        An axis of which the source has no coordinates counts from 0.
        """
        return {axis.name: axis for axis in position_axes(self._run)}

    def plot(self, *names: str) -> Any:
        """Draw maps of outputs: a panel for every output and label.

        Parameters
        ----------
        *names : str
            Outputs per position; default all.

        Returns
        -------
        matplotlib.figure.Figure
            Coordinates and units are on the axes. Failed and pending positions are
            grey. A map of one axis is a line; of more than two, the last two are drawn
            in the middle of the others. More than 1,000 positions on an axis are
            reduced by strides. The title of a panel says both. Colours reach from the
            1st to the 99th percentile. Of an output with axes of its own that have no
            labels the mean over them is drawn, of a ragged one the number of rows, of
            complex numbers the magnitude.

        Raises
        ------
        ImportError
            matplotlib is missing.
        KeyError
            There is no such output.
        """
        return draw_maps(self, names or self)

    def to_pandas(self, name: str | None = None) -> pd.DataFrame:
        """Return a table with a line for every position.

        Parameters
        ----------
        name : str, optional
            A ragged output: the table has a line for each of its rows instead.

        Returns
        -------
        pandas.DataFrame
            Its index is the flat position. Columns: coordinates of the axes of the map,
            ``status`` (pending, done or failed), scalar outputs by name, outputs with
            labels as ``output_label``, fields of compounds as ``output_field``, and the
            number of rows of ragged outputs as ``output_count``. Others are left out:
            :meth:`to_xarray` has them.

        Raises
        ------
        ImportError
            pandas is missing.
        ParameterError
            `name` is not ragged.
        """
        from resumable.results.tables import table_of

        return table_of(self, name)

    def to_xarray(self, chunks: Any = None) -> xr.Dataset:
        """Return all outputs with coordinates and units.

        Parameters
        ----------
        chunks : optional
            As of :func:`dask.array.from_array`, for example ``"auto"``: rows are read
            when they are needed. Default: they are read now.

        Returns
        -------
        xarray.Dataset
            A variable for each output, with fields of compounds as ``output_field``,
            and ``status``: 0 pending, 1 done, 2 failed. Labels are coordinates. Ragged
            outputs have all rows on the axis ``output_row`` with the coordinate
            ``output_position``, and the variable ``output_count``.

        Raises
        ------
        ImportError
            xarray, or for `chunks` dask, is missing.
        """
        from resumable.results.tables import dataset_of

        return dataset_of(self, chunks)

    def group(self) -> h5py.Group:
        """Open the results group with h5py, read-only; close its ``.file`` after use.

        Rows of pending positions have any bytes there: see ``completed_positions``.
        Tables and texts are in the group ``run`` of its file.

        Raises
        ------
        RunFileError
            The group is not a part of this file.
        """
        return open_group(self._run)

    @property
    def source_text(self) -> str:
        """Source text of the class as it was when the run was made, or empty.

        Raises
        ------
        RunFileError
            There is a link in its place.
        """
        return text_in(self._run, "source_text")

    @property
    def trace(self) -> Trace | None:
        """The user's own code and values that the run was made with; print it.

        ``trace.entries`` has what was reached by its name: kind, digest, text and
        place. None for runs that were made before helper functions counted.

        Raises
        ------
        RunFileError
            It is damaged, or there is a link in its place.
        """
        return trace_of(self._run)

    def pack(self, compression: str | None = "gzip") -> None:
        """Replace the run file by one whose rows are compressed and checksummed.

        Parameters
        ----------
        compression : {"gzip", "lzf", "zstd", "lz4"} or None
            ``"zstd"`` and ``"lz4"`` need hdf5plugin. None: checksums alone.

        Raises
        ------
        ParameterError
            There is no such compression, or it is not installed.
        RunFileError
            The run is not finished.
        RunBusy
            Another process computes or packs this run.
        TargetError
            The folder cannot be written, or has no room.

        Notes
        -----
        The packed file is written beside the old one, read back, compared, and renamed
        over it: a kill leaves one of the two, complete.
        """
        from resumable.results.pack import pack

        pack(self._run, compression)

    def publish(
        self, where: str, *, overwrite: bool = False, compression: str | None = None
    ) -> None:
        """Copy finished results into an HDF5 file of yours, in one transaction.

        Parameters
        ----------
        where : str
            ``"file.h5::/group"``: the file, made where it is missing, and the group to
            make in it. The file can be that of the source.
        overwrite : bool
            Replace a group that was published before; nothing else is ever replaced.
        compression : {"gzip", "lzf", "zstd", "lz4"}, optional
            Of the rows; default none.

        Raises
        ------
        ParameterError
            `where` names no group, one that exists, or a compression that does not.
        RunFileError
            The run is not finished.
        RunBusy
            The file is open elsewhere.
        TargetError
            The file cannot be written, has no room, or was not closed by the program
            that wrote it last. Nothing has changed.

        Notes
        -----
        This is the only call that changes a file which is not a run file. A kill leaves
        a journal beside it; the next call that opens the file, or ``resumable repair``,
        finishes or undoes the change.
        """
        from resumable.results.publish import publish

        publish(self._run, where, overwrite=overwrite, compression=compression)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Results) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        outputs = ", ".join(repr(array) for array in self.values())
        return f"<Results {shown(self.path.name)}: {self._state}; {outputs}>"

    @property
    def _state(self) -> str:
        mixed = "mixed, never finished, " if self._run.mixed else ""
        return f"{mixed}{self.status}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{as_html(name)}</td><td>{shape_text(array.shape)}</td>"
            f"<td>{as_html(array.dtype)}</td>"
            f"<td>{as_html(array.units or '')}</td></tr>"
            for name, array in self.items()
        )
        text = (
            f"<div><b>{as_html(self.path.name)}</b><br>{as_html(self._state)}"
            "<table><tr><th>output</th><th>shape</th><th>dtype</th><th>units</th></tr>"
            f"{rows}</table>{self._html_of_failures()}"
        )
        # Without matplotlib, or where the file is damaged, the table alone is shown.
        with contextlib.suppress(ImportError, RunFileError):
            figure = draw_maps(self, self, _PANELS_SHOWN, _POSITIONS_SHOWN)
            text += html_of_figure(figure, "maps of the outputs", dpi=60)
        return f"{text}</div>"

    def _html_of_failures(self) -> str:
        """Return a table of the first failures; empty if there are none."""
        failures, count = self.failures[:_FAILURES_SHOWN], self.status.failed
        if not failures:
            return ""
        shape = self._run.header.map_shape
        rows = "".join(
            f"<tr><td>{name_of_position(f.position, shape)}</td>"
            f"<td>{as_html(f.exception)}</td><td>{as_html(f.message)}</td></tr>"
            for f in failures
        )
        more = f"and {count - len(failures):,} more" if count > len(failures) else ""
        return (
            "<table><tr><th>failed position</th><th>exception</th>"
            f"<th>message</th></tr>{rows}</table>{more}"
        )


def open_results(path: str | Path) -> Results:
    """Open the results of a run file; nothing is computed and nothing changed.

    Parameters
    ----------
    path : str or Path
        A run file.

    Returns
    -------
    Results

    Raises
    ------
    RunFileError
        It is damaged, newer than this library, or not a run file.
    """
    return Results(path)


def reference_to(results: Results, name: str) -> SourceRef:
    """Refer to an output as what a later stage reads, finished or not.

    RunFileError: the output is not stored as the header says.
    """
    run = results._run
    header, ragged = run.header, run.header.outputs[name].ragged
    if not ragged:
        check_own(run, name)
    return SourceRef(
        str(run.path),
        f"{header.group}/{name}",
        tuple(range(len(header.map_shape))),
        upstream=run.rows_known_by(in_chain=True),
        ragged=ragged,
        grows=header.source["contents"] is not None,
    )


# Where a run was computed from, and where that is now.


def source_of_run(run: RunFile, source: Any = None) -> tuple[Any, tuple[int, ...]]:
    """Return what a run was computed from, found again, and its position axes.

    `source` says where it is now, when it has moved. SourceError: it is not there.
    """
    document = run.header.document
    written = document["source"]
    axes = tuple(int(axis) for axis in document["position_axes"])
    if "positions" in written:
        return int(written["positions"]), axes
    if "array" in written:
        return _array_of(run, "source", written) if source is None else source, axes
    if source is None:
        typed = str(run.header.source.get("source", "")).rpartition("::")[0]
        places = [*_places(run, typed), run.path.parent / Path(typed).name]
        # Where the link in the run file leads, seen from the folder it lies in.
        group = Results(run).group()
        with contextlib.closing(group.file), contextlib.suppress(AttributeError):
            link = group.get("source", getlink=True)
            places.insert(0, run.path.parent / link.filename)
        path = _found("the source", places)
        source = f"{path}::{written['dataset']}"
    elif isinstance(source, (str, Path)) and "::" not in str(source):
        source = f"{source}::{written['dataset']}"
    return _of_run_or_file(source, written), axes


def inputs_of_run(run: RunFile, source: Any) -> dict[str, Any]:
    """Return the inputs of a run, found again, with their position axes."""
    header = run.header
    places = header.source.get("inputs")
    places = places if isinstance(places, dict) else {}
    inputs = {}
    for name, written in header.document["inputs"].items():
        axes = tuple(int(axis) for axis in written["axes"])
        if "array" in written:
            inputs[name] = (_array_of(run, f"input {name!r}", written), axes)
            continue
        # Files of earlier versions do not say where inputs were.
        path = _found_near(run, source, f"the input {name!r}", str(places.get(name)))
        value = _of_run_or_file(f"{path}::{written['dataset']}", written)
        inputs[name] = (value, axes)
    return inputs


def shared_of_run(run: RunFile, source: Any, arrays: Iterable[Array]) -> dict[str, Any]:
    """Return what all positions of a run shared: kept in it, or where it was read."""
    places = run.header.source.get("shared")
    places = places if isinstance(places, dict) else {}

    def place_of(name: str) -> str:
        if name not in places:
            return ""
        what, typed = f"{name!r}, which is shared,", str(places[name])
        try:
            path = _found_near(run, source, what, typed)
        except SourceError as error:
            msg = (
                f"{what} was {typed}, which is not there, nor beside the source or the "
                "run file: put it there, or give it in Python"
            )
            raise IdentityError(msg) from error
        return f"{path}::{typed.rpartition('::')[2]}"

    return shared_again(run.header.document.get("shared", {}), arrays, place_of)


def shared_again(
    documents: Mapping[str, Any],
    arrays: Iterable[Array],
    place_of: Callable[[str], str],
) -> dict[str, Any]:
    """Read back what was written of shared values; the others are read again.

    `place_of` returns where, for a name, or an empty text. IdentityError: a value was
    not kept, and not read from a file.
    """
    known = identity.by_document(arrays)
    values = {}
    for name, document in documents.items():
        try:
            value = decode(document, f"the shared {name!r}", arrays=known)
            plain = isinstance(value, np.ndarray)
            # A text would else be taken for the name of a dataset.
            values[name] = value if plain else SharedValue(value, document, "")
        except IdentityError as error:
            values[name] = place_of(name)
            if values[name]:
                continue
            if "array" not in document:
                raise
            where = option("shared", {name: "'file.h5::/dataset'"})
            msg = (
                f"the shared {name!r} is an array that is not kept with the run, which "
                "keeps 16 MB of arrays together: save it in an "
                f"HDF5 file and give {where}, which is the same run; or give the "
                "Process that was made with the array"
            )
            raise IdentityError(msg) from error
    return values


def _array_of(run: RunFile, what: str, written: Mapping[str, Any]) -> Any:
    """Return an array that a run was computed from; IdentityError: it was not kept."""
    document = {"array": written["array"]}
    found = identity.by_document(read_arrays(run)).get(canonical(document))
    if found is None:
        shape = tuple(document["array"]["shape"])
        msg = (
            f"the {what} was an array of shape {shape}, and is not among the arrays "
            f"that the run file keeps, the smallest {MOST_ARRAYS:,}, of at most "
            f"{format_bytes(KEPT_BYTES)} together: give it again"
        )
        raise IdentityError(msg)
    return found


def _found_near(run: RunFile, source: Any, what: str, typed: str) -> Path:
    """Find a file that a run was computed from beside its `source`."""
    main = str(run.header.source.get("source", "")).rpartition("::")[0]
    now = source.rpartition("::")[0] if isinstance(source, str) else main
    path = typed.rpartition("::")[0] or main
    near = [Path(now)] if path == main else []
    folders = (run.path.parent, Path(now).parent)
    beside = [folder / Path(path).name for folder in folders]
    return _found(what, [*near, *_places(run, path), *beside])


def _places(run: RunFile, path: str) -> list[Path]:
    """Return where a file was, and where it is if its folder moved with the run's."""
    places, then = [Path(path)], run.header.source.get("folder")
    # Files of earlier versions do not say where they were made.
    if isinstance(then, str) and Path(path).is_absolute():
        places.append(run.path.parent / os.path.relpath(path, then))
    return places


def _of_run_or_file(source: Any, written: Mapping[str, Any]) -> Any:
    """Return the output of another run as such: it is known by that run's identity."""
    if "run" in written and isinstance(source, str):
        path, _, dataset = source.rpartition("::")
        return Results(path)[dataset.rpartition("/")[2]]
    return source


def _found(what: str, candidates: list[Path]) -> Path:
    # Only plain files: a name in a stranger's file may be that of a device.
    for path in candidates:
        if path.is_file():
            return path
    msg = f"{what} was {candidates[0]}, and is not there; say where it is now"
    raise SourceError(msg)
