"""What has been computed, read lazily from the run file."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.compression import load, problem
from resumable.packing import pack
from resumable.publishing import publish
from resumable.runfile import Failure, RunFile, Session

if TYPE_CHECKING:
    import h5py
    from numpy.typing import DTypeLike

    from resumable.output import Output

    Array = np.ndarray[Any, np.dtype[Any]]


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
        self.finished = run.finished

    def __str__(self) -> str:
        text = f"{self.done:,} of {self.positions:,} positions done"
        if self.failed:
            text += f", {self.failed:,} failed"
        if self.pending:
            text += f", {self.pending:,} pending"
        return text

    def __repr__(self) -> str:
        return f"<Status: {self}>"


class ResultArray:
    """One output of a run: numpy-like, read from disk when indexed.

    Positions that are not done read as the output's fill value. Indexing returns
    plain arrays; ``np.asarray`` reads all of it.

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
        values = np.array(self._run.array(self.name)[key])
        if isinstance(key, str) or _names_fields(key):
            hidden = self._hidden(())
            fill = np.asarray(self._output.fill, self.dtype)[key]
        else:
            hidden = self._hidden(key)
            fill = self._output.fill
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

    def _hidden(self, key: Any) -> Any:
        """Return where the indexed values do not count; looks at no others."""
        if self._output.per == "run":
            return np.broadcast_to(np.asarray(not self._run.finished), self.shape)[key]
        done = self._run.array("completed_positions")
        lead, rest = self._run.header.map_shape, len(self._output.shape)
        # Broadcast and indexed like the values, and only then compared.
        return np.broadcast_to(done.reshape(*lead, *(1,) * rest), self.shape)[key] != 1

    def as_source(self) -> tuple[str, str, str]:
        """Return file, dataset and identity, for a Process that starts from here.

        Raises
        ------
        SourceError
            The run is not finished: what depends on it would change.
        """
        from resumable.errors import SourceError

        if not self._run.finished:
            msg = (
                f"{self._run.path} is not finished; compute it before its outputs "
                "are used"
            )
            raise SourceError(msg)
        header = self._run.header
        return str(self._run.path), f"{header.group}/{self.name}", header.identity

    def __repr__(self) -> str:
        units = f", {self.units}" if self.units else ""
        return f"<{self.name}: {self.shape} {self.dtype}{units}>"


def _names_fields(key: Any) -> bool:
    return isinstance(key, list) and bool(key) and isinstance(key[0], str)


class Results(Mapping[str, ResultArray]):
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

    def __getitem__(self, name: str) -> ResultArray:
        if name not in self._run.header.outputs:
            from resumable.errors import near_miss

            names = ", ".join(self)
            hint = near_miss(str(name), self)
            msg = f"there is no output {name!r}{hint} (there are {names})"
            raise KeyError(msg)
        return ResultArray(self._run, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._run.header.outputs)

    def __len__(self) -> int:
        return len(self._run.header.outputs)

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
    def source(self) -> str:
        """Where the source was when the run was made."""
        return str(self._run.header.source.get("source", ""))

    @property
    def completed(self) -> Array:
        """Which positions are done, bool, in the map's shape."""
        done = self._run.array("completed_positions")
        return np.asarray(done == 1).reshape(self._run.header.map_shape)

    @property
    def failed(self) -> Array:
        """Which positions failed, bool, in the map's shape."""
        failed = np.asarray(self._run.array("failed_positions") == 1)
        return failed.reshape(self._run.header.map_shape) & ~self.completed

    def group(self) -> h5py.Group:
        """Open the results group with h5py, read-only; close its ``.file`` after use.

        Pending rows are not hidden there: look at ``completed_positions``.
        """
        import h5py

        for method in (self._run.header.packed or {}).values():
            # Without it the group can be looked at, if not all of it read.
            if not problem(method):
                load(method)
        return h5py.File(self.path, "r")[self._run.header.group]

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
        publish(self._run, where, overwrite=overwrite, compression=compression)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Results) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        outputs = ", ".join(repr(array) for array in self.values())
        return f"<Results {self.path.name}: {self.status}; {outputs}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{array.shape}</td>"
            f"<td>{html.escape(str(array.dtype))}</td>"
            f"<td>{html.escape(array.units or '')}</td></tr>"
            for name, array in self.items()
        )
        failures = "".join(
            f"<tr><td>{f.position}</td><td>{html.escape(f.exception)}</td>"
            f"<td>{html.escape(f.message)}</td></tr>"
            for f in self.failures[:5]
        )
        if failures:
            failures = (
                "<table><tr><th>failed position</th><th>exception</th>"
                f"<th>message</th></tr>{failures}</table>"
            )
        return (
            f"<div><b>{html.escape(self.path.name)}</b><br>"
            f"{html.escape(str(self.status))}"
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
