"""Computing blocks: data read, the user's method called, what it returns checked."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable.errors import NotFinished
from resumable.model import block_rows, by_name, row_placer
from resumable.source import open_reader
from resumable.system import OneThread
from resumable.worker.cursor import IDLE, Cursor, shared_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from resumable.model import Geometry, Output, Span
    from resumable.source import Reader, SourceRef

    Array = np.ndarray[Any, np.dtype[Any]]


class Computer:
    """Computes blocks: calls the user's method and checks what it returns.

    `geometry` says how the positions lie in the source, if it has changed. Libraries
    use one thread until :meth:`close`, unless `holds_threads` is False: then the caller
    sees to it. `number` returns that of the worker.
    """

    def __init__(
        self,
        process: Any,
        outputs: Mapping[str, Output],
        source: SourceRef,
        inputs: Mapping[str, SourceRef],
        progress_words: memoryview | None = None,
        geometry: Geometry | None = None,
        *,
        holds_threads: bool = True,
        number: Callable[[], int] = int,  # 0
    ) -> None:
        self.outputs = outputs
        self.cursor = Cursor(progress_words, number)
        # setup() opens files in a copy: the user's own object may be pickled later.
        self.process = shallow_copy(process, self.cursor, geometry)
        self._pid = os.getpid()
        self._ahead = ReadAhead()
        self.read_seconds = 0.0
        # By argument name; None: the source.
        refs: dict[Any, SourceRef] = {None: source, **inputs}
        self._readers = {name: open_reader(ref) for name, ref in refs.items()}
        self.has_data = self._readers[None].has_data
        self._open = contextlib.ExitStack()
        self._threads = OneThread() if holds_threads else None
        try:
            if self._threads is not None:
                self._open.enter_context(self._threads)
            self.process.setup()
        except BaseException:
            self.close()
            raise
        #: What computes a position, or a block of them.
        self.call = computation_of(self.process)

    def close(self) -> None:
        """Close the sources and give libraries their threads back."""
        self._ahead.close()
        for reader in self._readers.values():
            self._open.callback(reader.close)
        self._open.close()

    def read(
        self, block: Span, following: Span | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Read a block of the source and of every input; begin to read `following`."""
        began = time.perf_counter()
        if self._threads is not None:
            self._threads.again()
        for name, reader in self._readers.items():
            # A computation may have closed all files.
            if reader.dataset is not None and not reader.dataset:
                self._ahead.forget(reader)
                reader.close()
                self._readers[name] = open_reader(reader.ref)
        read = {n: self._ahead.read(r, block) for n, r in self._readers.items()}
        if following is not None:
            for reader in self._readers.values():
                self._ahead.begin(reader, following)
        self.read_seconds += time.perf_counter() - began
        return read.pop(None), read

    def block(
        self, rows: Any, inputs: dict[str, Any], positions: Array
    ) -> dict[str, Array]:
        """Compute a block in one call of ``block_computation``."""
        self.cursor.enter(positions)
        further = {name: rows_as_list(values) for name, values in inputs.items()}
        value = self.call(rows_as_list(rows), **further)
        named = by_name(value, self.outputs)
        return {
            name: block_rows(name, named[name], output, len(rows))
            for name, output in self.outputs.items()
        }

    def leave(self, *, idle: bool = True) -> None:
        """Note that the user's code is left; not `idle`: keep the position at work.

        End a child process that a computation forked: the parent goes on.
        """
        if os.getpid() != self._pid:
            os._exit(1)
        if idle:
            self.cursor.progress_words[1] = IDLE

    def parts(self, block: Span, following: Span | None = None) -> Iterator[Part]:
        """Compute a block by ``block_computation``: in one call, or in halves.

        Where a call raises, it is repeated with the first and with the second half of
        the positions, until those are found that raise alone. The rows are read again
        for each: the computation may have changed them in place.
        """
        start, members = block
        positions = start + np.flatnonzero(members)
        if not len(positions):
            return
        rows, inputs = self.read(block, following)
        try:
            try:
                values = self.block(rows, inputs, positions)
            finally:
                self.leave()
        except BaseException as raised:
            reraise_stop(raised)
            error = raised
        else:
            yield Part(block, positions, values, None)
            return
        if len(positions) == 1:
            fills = {name: output.filled(1) for name, output in self.outputs.items()}
            yield Part(block, positions, fills, error)
            return
        del rows, inputs
        middle = int(positions[len(positions) // 2]) - start
        yield from self.parts((start, members[:middle]))
        yield from self.parts((start + middle, members[middle:]))


class ReadAhead:
    """Reads blocks of sources, on request or, in a thread, ahead of it.

    Only what is read without HDF5 is read ahead: a computation may fork at any moment,
    and in the child HDF5's lock would never be released.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "resumable-read")
        self._begun: dict[Reader, tuple[Span, Array, Future[None]]] = {}

    def read(self, reader: Reader, block: Span) -> Array:
        """Return the data of a block."""
        begun = self._begun.get(reader)
        if begun is not None:
            (start, members), rows, reading = begun
            if start == block[0] and np.array_equal(members, block[1]):
                del self._begun[reader]
                reading.result()
                return rows
        rows = reader.empty(int(np.count_nonzero(block[1])))
        reader.read(*block, rows)
        return rows

    def begin(self, reader: Reader, block: Span) -> None:
        """Begin to read the block that will be asked for next, where that can be."""
        if not reader.reads_ahead:
            return
        # Without memory for it, or a thread, it is read when it is asked for.
        with contextlib.suppress(MemoryError, RuntimeError):
            rows = reader.empty(int(np.count_nonzero(block[1])))
            reading = self._thread.submit(reader.read, *block, rows)
            self._begun[reader] = (block, rows, reading)

    def forget(self, reader: Reader) -> None:
        """Wait for what was begun with a reader that is to be closed, and drop it."""
        begun = self._begun.pop(reader, None)
        wait([begun[2]] if begun else [])

    def close(self) -> None:
        """Wait for what was begun, and drop it."""
        self._thread.shutdown()
        self._begun.clear()


class Part(NamedTuple):
    """Positions computed in one call, or a single one that raises."""

    block: Span
    positions: Array  # flat
    values: dict[str, Array]  # rows by output name, the fill value where it raises
    error: BaseException | None


def rows_as_list(rows: Any) -> Any:
    """Return the rows of a ragged source as a list, those of others as they are."""
    return list(rows) if rows.dtype.hasobject else rows


def reraise_stop(error: BaseException) -> None:
    """Raise again what is not a position's failure: the wish to stop."""
    if isinstance(error, (KeyboardInterrupt, NotFinished)):
        raise error


def computation_of(process: Any) -> Any:
    """Return the method that computes, with what all positions share as arguments."""
    method = method_of(process)
    shared = shared_values(process)
    return functools.partial(method, **shared) if shared else method


def method_of(process: Any) -> Any:
    """Return the method that computes positions."""
    block = getattr(process, "block_computation", None)
    return process.unit_computation if block is None else block


def shallow_copy(process: Any, cursor: Any, geometry: Geometry | None) -> Any:
    """Return another Process with the same attributes, and a cursor of its own.

    `geometry` says how the positions lie in the source, if it is another.
    """
    twin = object.__new__(type(process))
    # Not by assignments, which a user's class may watch.
    twin.__dict__.update(uncached(process), _cursor=cursor)
    if geometry is not None:
        twin.__dict__["_geometry"] = geometry
    return twin


def uncached(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object but for its cached properties."""
    cls = type(thing)
    return {
        name: value
        for name, value in vars(thing).items()
        if not isinstance(getattr(cls, name, None), functools.cached_property)
    }


class UnitLoop:
    """The innermost loop: one call per position, checked.

    `values` are the rows by output name, the fill value where a position failed;
    `failed` says which have, `exceptions` are their rows and exceptions.
    """

    def __init__(
        self, computer: Computer, rows: Any, inputs: dict[str, Any], positions: Array
    ) -> None:
        computer.cursor.enter(positions)
        self._unit = computer.call
        self._rows = rows if computer.has_data else rows.tolist()
        self._inputs = inputs
        self._progress = computer.cursor.progress_words
        self._outputs = computer.outputs
        self.values = {n: o.empty(len(rows)) for n, o in self._outputs.items()}
        self._places = {
            n: row_placer(n, o, self.values[n]) for n, o in self._outputs.items()
        }
        self.failed = np.zeros(len(rows), bool)
        self.exceptions: list[tuple[int, BaseException]] = []

    def run(
        self,
        first: int,
        last: int,
        *,
        stop_on_error: bool,
        not_recorded: tuple[type[BaseException], ...] = (),
    ) -> int:
        """Compute the rows `first` to `last`; return one past the last one done.

        Exceptions of the types `not_recorded` are raised.
        """
        loop = (
            self._plain if len(self._outputs) == 1 and not self._inputs else self._named
        )
        while first < last:
            reached, error = loop(first, last)
            if error is None:
                return last
            if isinstance(error, not_recorded):
                raise error
            self.exceptions.append((reached, error))
            self.failed[reached] = True
            for name, output in self._outputs.items():
                self.values[name][reached] = output.filled(1)[0]
            if stop_on_error:
                return reached
            first = reached + 1
        return last

    def _plain(self, first: int, last: int) -> tuple[int, BaseException | None]:
        """One output, no inputs: the loop that must cost least."""
        unit, progress = self._unit, self._progress
        ((name, place),) = self._places.items()
        index = first
        try:
            for index, row in enumerate(self._rows[first:last], first):
                progress[1] = index
                value = unit(row)
                if type(value) is dict:
                    value = by_name(value, self._outputs)[name]
                place(index, value)
        except BaseException as error:
            reraise_stop(error)
            return index, error
        return last, None

    def _named(self, first: int, last: int) -> tuple[int, BaseException | None]:
        """Several outputs or inputs, by name."""
        unit, progress, names = self._unit, self._progress, self._outputs.keys()
        places, inputs = self._places, self._inputs
        index = first
        try:
            for index in range(first, last):
                progress[1] = index
                further = {name: rows[index] for name, rows in inputs.items()}
                value = unit(self._rows[index], **further)
                if type(value) is not dict or value.keys() != names:
                    value = by_name(value, self._outputs)
                for name, place in places.items():
                    place(index, value[name])
        except BaseException as error:
            reraise_stop(error)
            return index, error
        return last, None
