"""What has been computed, read lazily from the run file."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import HDF5_ERRORS, RunFileError, SourceError
from resumable.header import ADVICE
from resumable.ragged import RaggedRows
from resumable.runfile import Failure, LogLine, RunFile, Session
from resumable.source import SourceRef
from resumable.text import as_html, shown

if TYPE_CHECKING:
    import h5py
    from numpy.typing import DTypeLike

    from resumable.output import Output

    Array = np.ndarray[Any, np.dtype[Any]]


#: Longer source text of a class is not honest, and comparing it takes for ever.
_LONGEST_SOURCE_TEXT = 1 << 20
#: Rows that are read at once when results are iterated over.
_ITERATED_BYTES = 1 << 20


class Status:
    """How far a run is. Compare, print or read its numbers.

    Attributes
    ----------
    positions, done, failed, pending : int
        All positions of the source, and how many are in which state.
    finished : bool
        None is pending and ``finish`` has run.
    """

    def __init__(self, run: RunFile) -> None:
        self.positions = run.size
        self.done, self.failed = run.counts()
        self.pending = self.positions - self.done - self.failed
        self.finished = self.pending == 0 and run.called_finished

    def __str__(self) -> str:
        text = f"{self.done:,} of {self.positions:,} positions done"
        if self.failed:
            text += f", {self.failed:,} failed"
        if self.pending:
            text += f", {self.pending:,} pending"
        return text

    def __repr__(self) -> str:
        return f"<Status: {self}>"


class ResultArray(np.lib.mixins.NDArrayOperatorsMixin):
    """One output of a run: numpy-like, read from disk when indexed.

    Positions that are not done read as the output's fill value. Indexing returns
    plain arrays; ``np.asarray``, operators and functions of numpy read all of it.

    Attributes
    ----------
    name : str
    shape : tuple of int
        The map's shape, then the output's.
    dtype : numpy.dtype
    units : str or None
    labels : tuple of str or None
    """

    def __init__(self, run: RunFile, name: str) -> None:
        self._run = run
        self._output: Output = run.header.outputs[name]
        self.name = name
        lead = run.header.map_shape if self._output.per == "position" else ()
        self.shape: tuple[int, ...] = (*lead, *self._output.shape)
        self.dtype = self._output.dtype
        self.units = self._output.units
        self.labels = self._output.labels

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        if not self.shape:
            msg = "len() of a single value"
            raise TypeError(msg)
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        # The status first: what is marked then is there when it is read after that.
        if isinstance(key, str) or _names_fields(key):
            hidden = self._hidden(())
            fill = np.asarray(self._output.fill, self.dtype)[key]
        else:
            hidden = self._hidden(key)
            fill = self._output.fill
        # What is read is new; a view of more than it is would keep all of that.
        values = np.array(self._run.array(self.name)[key], copy=None, order="C")
        if np.any(hidden):
            values = np.where(hidden, fill, values) if not values.shape else values
            if values.shape:
                values[hidden] = fill
        return values if values.shape else values.astype(self.dtype, copy=False)[()]

    def __iter__(self) -> Iterator[Any]:
        # In blocks, so that rows of a packed file are not unpacked one by one.
        row_bytes = max(1, self.dtype.itemsize * self.size // max(1, len(self)))
        step = max(1, _ITERATED_BYTES // row_bytes)
        for start in range(0, len(self), step):
            yield from self[start : start + step]

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> Array:
        if copy is False:
            msg = "reading results from disk makes a copy"
            raise ValueError(msg)
        return np.asarray(self[...], dtype)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any
    ) -> Any:
        if any(isinstance(one, ResultArray) for one in options.get("out", ())):
            msg = f"results are read-only; change a copy, results[{self.name!r}][...]"
            raise TypeError(msg)
        read = [one[...] if isinstance(one, ResultArray) else one for one in inputs]
        return getattr(ufunc, method)(*read, **options)

    def _hidden(self, key: Any) -> Any:
        """Return where the indexed values do not count; looks at no others."""
        if self._output.per == "run":
            return np.broadcast_to(np.asarray(not self._run.finished), self.shape)[key]
        return self._run.marks(self._output.shape)[key] != 1

    def as_source(self) -> tuple[str, str, str]:
        """Return file, dataset and identity, for a Process that starts from here.

        Raises
        ------
        SourceError
            The run is not finished: what depends on it would change.
        """
        place = _place_as_source(self._run, self.name)
        _check_readable(self._run, self.name)
        return place

    def __repr__(self) -> str:
        units = f", {shown(self.units)}" if self.units else ""
        return f"<{self.name}: {_shape_text(self.shape)} {shown(self.dtype)}{units}>"


class RaggedArray:
    """A ragged output of a run: any number of rows per position, read when indexed.

    ``[position]``, an index or a tuple on a map, reads the rows of one position, an
    array of shape ``(n, *shape)``. Slices, masks and index arrays read a list of such
    arrays, one for each position in C order. Positions that are not done have no rows.

    Attributes
    ----------
    name : str
    shape : tuple of int or None
        The map's shape, None for any number, then the shape of one row.
    dtype : numpy.dtype
    units : str or None
    labels : tuple of str or None
    """

    def __init__(self, run: RunFile, name: str) -> None:
        self._run = run
        self._rows = RaggedRows(run, name)
        output = run.header.outputs[name]
        self.name = name
        self.shape: tuple[int | None, ...]
        self.shape = (*run.header.map_shape, None, *output.shape)
        self.dtype = output.dtype
        self.units = output.units
        self.labels = output.labels

    def __len__(self) -> int:
        return self._run.header.map_shape[0]

    def __getitem__(self, key: Any) -> Any:
        # As it is now: a longer run may have taken its place.
        with self._run.opened() as (_, header):
            lead = header.map_shape
        flat = np.arange(math.prod(lead)).reshape(lead)[key]
        found = self._rows.read(np.atleast_1d(flat).reshape(-1))
        return found if np.ndim(flat) else found[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    @property
    def count(self) -> Array:
        """Number of rows of every position, int64, in the map's shape."""
        return self._rows.counts().reshape(-1, *self._run.header.map_shape[1:])

    @property
    def values(self) -> Array:
        """All rows, one position after the other."""
        return self._rows.values()

    @property
    def index(self) -> Array:
        """Flat position of every row of :attr:`values`, int64."""
        counts = self._rows.counts()
        return np.repeat(np.arange(len(counts)), counts)

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> Array:
        msg = (
            f"{self.name} is ragged and so no array; .values are all rows, .index "
            "says to which position each belongs, .count how many each has"
        )
        raise TypeError(msg)

    @property
    def position_axes(self) -> tuple[int, ...]:
        """Axes that count positions, where this is a source."""
        return tuple(range(len(self._run.header.map_shape)))

    def as_source(self) -> tuple[str, str, str]:
        """Return file, name and identity, for a Process that starts from here.

        Raises
        ------
        SourceError
            The run is not finished: what depends on it would change.
        """
        return _place_as_source(self._run, self.name)

    def __repr__(self) -> str:
        units = f", {shown(self.units)}" if self.units else ""
        return f"<{self.name}: {_shape_text(self.shape)} {shown(self.dtype)}{units}>"


def _place_as_source(run: RunFile, name: str) -> tuple[str, str, str]:
    if not run.finished:
        msg = f"{run.path} is not finished; compute it before its outputs are used"
        raise SourceError(msg)
    return str(run.path), f"{run.header.group}/{name}", run.header.identity


def _shape_text(shape: tuple[int | None, ...]) -> str:
    lengths = ["any" if n is None else str(n) for n in shape]
    return f"({', '.join(lengths)}{',' * (len(shape) == 1)})"


def _names_fields(key: Any) -> bool:
    return isinstance(key, list) and bool(key) and isinstance(key[0], str)


def _open_group(run: RunFile) -> h5py.Group:
    """Open the results group; a link in its place is not followed."""
    import h5py

    from resumable.compression import load, problem

    name = run.header.group
    for method in (run.header.packed or {}).values():
        # Without it the group can be looked at, if not all of it read.
        if not problem(method):
            load(method)
    with contextlib.ExitStack() as stack, _understood(run):
        file = stack.enter_context(h5py.File(run.path, "r"))
        link = file.get(name, getlink=True)
        if isinstance(link, h5py.HardLink) and isinstance(file[name], h5py.Group):
            stack.pop_all()
            return file[name]
    raise _not_ours(run, name)


@contextlib.contextmanager
def _understood(run: RunFile) -> Iterator[None]:
    """Turn what h5py raises about a structure that makes no sense into our error."""
    try:
        yield
    except RunFileError:
        raise
    except HDF5_ERRORS as error:
        msg = f"{run.path} is damaged, HDF5 cannot read it ({error}): {ADVICE}"
        raise RunFileError(msg) from error


def _own_dataset(run: RunFile, file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset whose bytes lie in this file, without following a link."""
    import h5py

    if isinstance(file.get(name, getlink=True), h5py.HardLink):
        found = file[name]
        properties = isinstance(found, h5py.Dataset) and found.id.get_create_plist()
        # Neither virtual, nor filtered, nor with its bytes in some other file.
        if (
            properties
            and properties.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
            and not properties.get_external_count()
        ):
            return found
    raise _not_ours(run, name)


def _check_readable(run: RunFile, name: str) -> None:
    """Refuse an output that is not for HDF5 what it is for us, packed or not."""
    if run.header.packed is not None:
        run.array(name).check()
        return
    with contextlib.closing(_open_group(run).file) as file, _understood(run):
        _check_place(run, file, name)


def _check_place(run: RunFile, file: h5py.File, name: str) -> None:
    """Refuse an output that is not for HDF5 what it is for us."""
    path, output = f"{run.header.group}/{name}", run.header.outputs[name]
    found = _own_dataset(run, file, path)
    lead = run.header.map_shape if output.per == "position" else ()
    place = found.id.get_offset(), found.shape
    if place != (run.header.offsets[name], (*lead, *output.shape)):
        raise _not_ours(run, path)


def _not_ours(run: RunFile, name: str) -> RunFileError:
    msg = f"{run.path} is damaged, its {name} is not what it was made with: {ADVICE}"
    return RunFileError(msg)


class Results(Mapping[str, Any]):
    """The results of a run: a mapping of output names to arrays on disk.

    Parameters
    ----------
    path : str or Path
        A run file. It is checked, and never changed.

    Raises
    ------
    RunFileError
        It is damaged, newer than this library, or not a run file.

    Examples
    --------
    ``results["fit"][10:20]`` reads ten positions, ``results["fit"][...]`` all.
    """

    def __init__(self, path: str | Path) -> None:
        self._run = RunFile(Path(path))

    def __getitem__(self, name: str) -> Any:
        if name not in self._run.header.outputs:
            from resumable.errors import near_miss

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
        """Read the rows of some positions as they are, marked as done or not.

        Of a ragged output a list, an array for each position.

        Parameters
        ----------
        name : str
            An output per position.
        positions : ndarray of int
            Flat positions.
        """
        if self._run.header.outputs[name].ragged:
            return RaggedRows(self._run, name).read(positions, marked=False)
        return self._run.rows(name, positions)

    def reference(self, name: str) -> SourceRef:
        """Refer to an output as what a later stage reads, finished or not."""
        header = self._run.header
        ragged = header.outputs[name].ragged
        if not ragged:
            _check_readable(self._run, name)
        return SourceRef(
            str(self.path),
            f"{header.group}/{name}",
            tuple(range(len(header.map_shape))),
            upstream=header.identity,
            ragged=ragged,
            grows=header.source["contents"] is not None,
        )

    @property
    def path(self) -> Path:
        """The run file."""
        return self._run.path

    @property
    def identity(self) -> str:
        """sha256 of what makes this run this run, 64 hexadecimal digits."""
        return self._run.header.identity

    @property
    def document(self) -> dict[str, Any]:
        """What the identity is made of, as plain JSON."""
        return self._run.header.document

    @property
    def status(self) -> Status:
        """How far the run is, read now."""
        return Status(self._run)

    @property
    def failures(self) -> list[Failure]:
        """Positions that failed, with exception and traceback; the first 1,000."""
        return self._run.failures()

    @property
    def sessions(self) -> list[Session]:
        """Calls of compute that worked on this run."""
        return self._run.sessions()

    @property
    def log(self) -> list[LogLine]:
        """What was logged while they worked: the first 500 lines and the last 500."""
        return self._run.log()

    @property
    def source(self) -> str:
        """Where the source was when the run was made."""
        return str(self._run.header.source.get("source", ""))

    @property
    def completed(self) -> Array:
        """Which positions are done, bool, in the map's shape."""
        done: Array = self._run.marks()[...] == 1
        return done

    @property
    def failed(self) -> Array:
        """Which positions failed, bool, in the map's shape."""
        failed: Array = self._run.array("failed_positions")[...] == 1
        return failed.reshape(self._run.header.map_shape) & ~self.completed

    def group(self) -> h5py.Group:
        """Open the results group with h5py, read-only; close its ``.file`` after use.

        Pending rows are not hidden there: look at ``completed_positions``. What you
        open in it may be a link to another file, which h5py follows; ``source`` is.

        Raises
        ------
        RunFileError
            The group is not a part of this file.
        """
        return _open_group(self._run)

    @property
    def source_text(self) -> str:
        """Source text of the class as it was when the run was made, or empty.

        Raises
        ------
        RunFileError
            What is there is no text of an honest size.
        """
        with (
            contextlib.closing(_open_group(self._run).file) as file,
            _understood(self._run),
        ):
            name = f"{self._run.header.group}/source_text"
            if name not in file:
                return ""
            found = _own_dataset(self._run, file, name)
            if (
                found.dtype.kind != "S"
                or found.shape
                or found.nbytes > _LONGEST_SOURCE_TEXT
            ):
                raise _not_ours(self._run, name)
            return bytes(found[()]).decode(errors="replace")

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
        Results stay the same, and so does what can be done with them. The packed
        file is written beside the old one, read back, compared, and put in its
        place: a kill leaves one or the other, whole.
        """
        from resumable.packing import pack

        pack(self._run, compression)

    def publish(
        self, where: str, *, overwrite: bool = False, compression: str | None = None
    ) -> None:
        """Copy finished results into an HDF5 file of yours, in one transaction.

        Parameters
        ----------
        where : str
            ``"file.h5::/group"``: an existing file, the source included, and the
            group to make in it.
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
        This is the only call that changes a file which is not a run file. A kill
        leaves a journal beside it; whatever of ours opens the file next, and
        ``resumable repair``, finish what was begun or undo it.
        """
        from resumable.publishing import publish

        publish(self._run, where, overwrite=overwrite, compression=compression)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Results) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        outputs = ", ".join(repr(array) for array in self.values())
        return f"<Results {shown(self.path.name)}: {self.status}; {outputs}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{as_html(name)}</td><td>{_shape_text(array.shape)}</td>"
            f"<td>{as_html(array.dtype)}</td>"
            f"<td>{as_html(array.units or '')}</td></tr>"
            for name, array in self.items()
        )
        failures = "".join(
            f"<tr><td>{f.position}</td><td>{as_html(f.exception)}</td>"
            f"<td>{as_html(f.message)}</td></tr>"
            for f in self.failures[:5]
        )
        if failures:
            failures = (
                "<table><tr><th>failed position</th><th>exception</th>"
                f"<th>message</th></tr>{failures}</table>"
            )
        return (
            f"<div><b>{as_html(self.path.name)}</b><br>{as_html(self.status)}"
            "<table><tr><th>output</th><th>shape</th><th>dtype</th><th>units</th></tr>"
            f"{rows}</table>{failures}</div>"
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
