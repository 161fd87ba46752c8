"""One batch, the same in every engine: read, compute, write, mark.

::

    Worker.do(batch, stop)
      for each block of the batch
        read     Computer.read, of the source and of the inputs
        compute  UnitLoop.run, position by position, or Computer.parts, in one call
        write    RowWriter.write (runfile/writer.py), the rows and which have failed;
                 RowBuffer.write where the driver writes them
        until stop() says so, or an error has to stop the session
      returns a Report: positions done and failed, failures, time, memory

    mark         RowWriter sets the status of rows once they are on the disk, at its
                 checkpoints, in Worker.flush and in Worker.close
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import threading
import time
import traceback
import types
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import ResumableWarning
from resumable.runfile import FAILURE_ROWS, Failure, RowBuffer, RowWriter
from resumable.system import machine
from resumable.worker import compute as computer
from resumable.worker.compute import Computer, UnitLoop, method_of
from resumable.worker.job import Job, Report
from resumable.worker.settings import kept_settings, settings_here
from resumable.worker.warnings import WarningCounts, count_warnings, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resumable.model import Batch, Span

    Array = np.ndarray[Any, np.dtype[Any]]

#: Between positions, the worker asks about this often whether to stop.
_ASK_S = 0.02
#: Failures of a batch that are described; the others are only marked.
_DESCRIBED = FAILURE_ROWS
#: Parts of an object in which generators of random numbers are looked for.
_LOOKED_INTO = 100
#: Files whose frames are left out of the traceback of a failure.
_LOOP = (__file__, computer.__file__)


class Worker:
    """One worker of a session: opens everything once, then does batches.

    Rows go to `writer`; by default they are written, or kept for the report where the
    job has no target. What positions raise of the types `not_recorded` ends a batch of
    several: a MemoryError, as positions before may have used up the process's memory.

    Raises RunBusy where the session is over, DeclarationError where the file of the
    class is not the one the driver has imported, and what ``setup`` raises.
    """

    def __init__(
        self,
        job: Job,
        *,
        own_process: bool,
        progress_words: memoryview | None = None,
        writer: RowBuffer | None = None,
        holds_threads: bool = True,
        number: Callable[[], int] = int,  # 0
        not_recorded: tuple[type[Exception], ...] = (),
    ) -> None:
        self._job = job
        self._not_recorded = not_recorded
        self._warned = WarningCounts()
        #: Of the user's code.
        self._place = place_of(method_of(job.process))
        #: Those of the script, with what the computation has changed.
        self._settings, self._watched = job.settings, job.watched
        if job.check is not None:
            with self._at_work():
                job.check(job.process)
        self._peak = machine.PeakMemory()
        before = machine.resident_memory()
        self._writer: RowBuffer | RowWriter = writer or (
            RowWriter(job.target) if job.target else RowBuffer()
        )
        try:
            with self._at_work():
                self._computer = Computer(
                    job.process,
                    job.outputs,
                    job.source,
                    job.inputs,
                    progress_words,
                    job.geometry,
                    holds_threads=holds_threads,
                    number=number,
                )
        except BaseException:
            self._writer.close()
            raise
        #: Generators that setup() has made, and their states, until one is drawn from.
        self._generators = [
            (f"self.{name}, which setup() has made,", one, _state_of(one))
            for name, value in vars(self._computer.process).items()
            for one in _generators(value)
            if vars(job.process).get(name, job) is not value
        ]
        #: Modules whose generator all code shares, and its state once it is loaded.
        self._shared: dict[str, Any] = {}
        self._drawn_from_shared()
        # Pages shared with other processes are not this worker's. In the driver's
        # process the memory it had before is not.
        resident = machine.resident_memory()
        self._not_ours = (
            resident - machine.proportional_memory() if own_process else before
        )
        self._ask_after = 1
        #: The writer's `calls_written` at the end of each batch that is not all marked.
        self._at_ends: collections.deque[int] = collections.deque()
        self._closed = False
        self.progress_words = self._computer.cursor.progress_words

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Have the script's settings, and count warnings, within a block."""
        with (
            kept_settings(),
            count_warnings(self._job.filters, self._warned, self._place),
        ):
            if self._settings is not None:
                self._settings.apply()
            try:
                yield
            finally:
                # setup() may have made others, for this worker alone.
                self._settings = settings_here()

    def flush(self) -> None:
        """Commit everything done so far."""
        self._writer.flush()

    def close(self) -> list[str]:
        """Commit everything and close the files; once.

        Returns what the computation has changed in this worker's copy of the Process.
        """
        if self._closed:
            return []
        self._closed = True
        try:
            self._writer.close()
        finally:
            self._computer.close()
        check = self._job.check
        return [] if check is None else check.changed(self._job.process)

    def do(self, batch: Batch, stop: Callable[[], bool]) -> Report:
        """Compute a batch, block by block, until it is done or `stop` says so.

        OSError: the source cannot be read or the results not written. Before a
        MemoryError is raised, what was computed is committed.
        """
        if batch.suspect:
            # It may end the process: commit what was done before.
            self._writer.flush()
        self._peak.start()
        began, read_before = time.perf_counter(), self._computer.read_seconds
        tally = _Tally(() if batch.alone else self._not_recorded)
        in_one_call = hasattr(self._job.process, "block_computation")
        with self._at_work():
            try:
                blocks = batch.blocks()
                following = next(blocks, None)
                while following is not None:
                    block, following = following, next(blocks, None)
                    # A block of one position: there may be no memory for two.
                    ahead = following if batch.block > 1 else None
                    if in_one_call:
                        self._do_block(batch, block, ahead, tally)
                    else:
                        self._do_units(batch, block, ahead, tally, stop)
                    if tally.error is not None or stop():
                        break
            except MemoryError:
                self._computer.leave(idle=False)
                self._writer.flush()
                raise
            self._warn_of_generators()
        self._at_ends.append(self._writer.calls_written)
        while self._at_ends and self._at_ends[0] <= self._writer.calls_marked:
            self._at_ends.popleft()
        warned, self._warned = self._warned, WarningCounts()
        return Report(
            batch,
            tally.done,
            tally.failed,
            tally.failures,
            time.perf_counter() - began,
            self._computer.read_seconds - read_before,
            tally.write_seconds,
            max(0, self._peak.peak() - self._not_ours),
            len(self._at_ends),
            warned,
            tally.error,
            self._writer.collect() if isinstance(self._writer, RowBuffer) else (),
        )

    def _warn_of_generators(self) -> None:
        """Warn once where positions have drawn from a generator of this worker."""
        drawn = [
            what for what, one, state in self._generators if _state_of(one) != state
        ]
        drawn += [
            f"a library that the computation calls, with the generator of {name},"
            for name in self._drawn_from_shared()
        ]
        if not drawn:
            return
        warnings.warn(
            f"{drawn[0]} draws random numbers in an order that depends on the run, and "
            "every worker has one of its own. Use self.rng, which is the same for a "
            "position in every run; many libraries take it as random_state= or rng=",
            ResumableWarning,
            stacklevel=2,
        )
        self._generators, self._watched = [], ()

    def _drawn_from_shared(self) -> list[str]:
        """Return which of the watched modules' generators have changed since."""
        from resumable.identity import shared_generators  # when it is loaded anyway

        # In other threads of the script something else may draw meanwhile.
        if threading.current_thread() is not threading.main_thread():
            return []
        found = shared_generators()
        now = {name: _state_of(found[name]) for name in self._watched if name in found}
        before, self._shared = self._shared, now
        return [name for name, state in now.items() if before.get(name, state) != state]

    def _do_block(
        self, batch: Batch, block: Span, following: Span | None, tally: _Tally
    ) -> None:
        """Compute a block in one call, or in parts where one raises."""
        for part in self._computer.parts(block, following):
            start, members = part.block
            done, failed = members, np.zeros_like(members)
            if part.error is None:
                tally.done += len(part.positions)
            elif isinstance(part.error, tally.not_recorded):
                raise part.error
            else:
                self._judge(part.positions, [(0, part.error)], tally)
                tally.failed += 1
                done, failed = failed, done
            if part.error is None or not (batch.probe or self._job.stop_on_error):
                began = time.perf_counter()
                self._writer.write(start, done, failed, part.values)
                tally.write_seconds += time.perf_counter() - began
            if tally.error is not None:
                break

    def _do_units(
        self,
        batch: Batch,
        block: Span,
        following: Span | None,
        tally: _Tally,
        stop: Callable[[], bool],
    ) -> None:
        """Compute a block position by position, until `stop` says so."""
        start, members = block
        positions = start + np.flatnonzero(members)
        rows, inputs = self._computer.read(block, following)
        loop = UnitLoop(self._computer, rows, inputs, positions)
        reached = 0
        while reached < len(positions):
            began, first = time.perf_counter(), reached
            goal = min(len(positions), first + self._ask_after)
            reached = loop.run(
                first,
                goal,
                stop_on_error=self._job.stop_on_error,
                not_recorded=tally.not_recorded,
            )
            if reached < goal:
                break
            took = max(time.perf_counter() - began, 1e-7)
            ideal = int((goal - first) * _ASK_S / took)
            self._ask_after = max(1, min(ideal, 8 * self._ask_after))
            if stop():
                break
        self._computer.leave()
        if loop.exceptions:
            self._judge(positions, loop.exceptions, tally)
        failed = loop.failed[:reached]
        pending = batch.probe or self._job.stop_on_error
        kept = ~failed if pending else np.ones(reached, bool)
        done = np.zeros(len(members), bool)
        bad = np.zeros(len(members), bool)
        offsets = positions[:reached] - start
        done[offsets[~failed]] = True
        bad[offsets[failed & kept]] = True
        values = {name: rows[:reached][kept] for name, rows in loop.values.items()}
        began = time.perf_counter()
        self._writer.write(start, done, bad, values)
        tally.write_seconds += time.perf_counter() - began
        tally.done += int(np.count_nonzero(~failed))
        tally.failed += int(np.count_nonzero(failed))

    def _judge(
        self,
        positions: Array,
        exceptions: list[tuple[int, BaseException]],
        tally: _Tally,
    ) -> None:
        """Describe failures; set ``tally.error`` where one must stop the session."""
        for index, error in exceptions:
            if len(tally.failures) < _DESCRIBED:
                tally.failures.append(describe(int(positions[index]), error))
        first = exceptions[0][1]
        if self._job.stop_on_error:
            tally.error = (
                first if isinstance(first, Exception) else RuntimeError(repr(first))
            )


@dataclasses.dataclass(slots=True)
class _Tally:
    """Running sums of a batch."""

    not_recorded: tuple[type[BaseException], ...]
    done: int = 0
    failed: int = 0
    write_seconds: float = 0.0
    failures: list[Failure] = dataclasses.field(default_factory=list)
    error: Exception | None = None


def _generators(value: Any, depth: int = 2) -> Iterator[Any]:
    """Go through the generators of random numbers that a value is or holds."""
    from resumable.identity import is_generator  # when it is loaded anyway

    if is_generator(value):
        yield value
    elif depth and not isinstance(value, (type, types.ModuleType)):
        inner = value.values() if isinstance(value, dict) else value
        if not isinstance(value, (list, tuple, dict)):
            inner = getattr(value, "__dict__", {}).values()
        for part in itertools.islice(inner, _LOOKED_INTO):
            yield from _generators(part, depth - 1)


def _state_of(generator: Any) -> Any:
    """Return a value that is not equal any more after a generator was drawn from."""
    from resumable.identity import state_of  # as above

    return _comparable(state_of(generator))


def _comparable(state: Any) -> Any:
    """Return the state of a generator with bytes in place of arrays."""
    if isinstance(state, dict):
        return {name: _comparable(part) for name, part in state.items()}
    if isinstance(state, tuple):
        return tuple(p.tobytes() if isinstance(p, np.ndarray) else p for p in state)
    return state.tobytes() if isinstance(state, np.ndarray) else state


def describe(position: int, error: BaseException) -> Failure:
    """Describe a failure for the table, with the user's part of the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [f for f in frames if f.filename not in _LOOP] or frames
    text = "".join(
        [*traceback.format_list(users), *traceback.format_exception_only(error)]
    )
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    try:
        message = str(error)
    except Exception as second:
        message = f"(its text raised {type(second).__name__})"
    return Failure(position, name, message, text)
