"""What happens in a session: events for a listener, the progress bar, the run's log."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.runfile import LogLine

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from resumable.model import Batch
    from resumable.results import Results
    from resumable.runfile import Failure

    Array = np.ndarray[Any, np.dtype[Any]]


class Counts(NamedTuple):
    """Numbers of requested positions of a run."""

    done: int
    """Positions that are done."""
    failed: int
    """Positions that have failed."""
    pending: int
    """Requested positions that are neither done nor failed."""


class Started(NamedTuple):
    """A session has begun to compute."""

    results: Results
    """Results, with the rows of earlier sessions."""
    counts: Counts
    """Numbers of the run at the start."""


@dataclasses.dataclass(frozen=True, slots=True)
class BatchDone:
    """A batch is computed and written; it may not be durable yet."""

    results: Results
    """Results, to which the rows of the batch were written."""
    batch: Batch
    """Positions of the batch."""
    done: int
    """Number of its positions that succeeded."""
    failed: int
    """Number of its positions that failed."""
    counts: Counts
    """Numbers of the run now."""

    @property
    def positions(self) -> Array:
        """Flat positions of the batch, int64, ascending."""
        return self.batch.positions()

    def __getitem__(self, name: str) -> Any:
        """Values of an output, one row per position; failed ones are the fill value.

        For a ragged output a list with the rows of each position.
        """
        return self.results.rows(name, self.positions)


class PositionFailed(NamedTuple):
    """A position has failed and is recorded."""

    failure: Failure
    """Position, exception, message, traceback."""


class Finished(NamedTuple):
    """Every requested position is done or failed."""

    results: Results
    """Results of the run."""


Event = Started | BatchDone | PositionFailed | Finished
#: Takes the events of a run.
Listener = Callable[[Event], None]


class ProgressBar:
    """How many positions are settled: a bar of tqdm; the first update shows it.

    By default on a terminal and in a notebook. If all were settled, there is no bar.
    """

    def __init__(
        self, *, show: bool | None, total: int, initial: int, label: str
    ) -> None:
        if show is None:
            ipython = sys.modules.get("IPython")
            shell = ipython.get_ipython() if ipython else None
            show = sys.stderr.isatty() or hasattr(shell, "kernel")
        self._show = show and total > initial
        self._total, self._initial, self._label = total, initial, label
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, settled: int, failed: int) -> None:
        """Show the numbers of settled and of failed positions of this session."""
        if not self._show:
            return
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=self._total,
                initial=self._initial,
                desc=self._label,
                unit="pos",
                unit_scale=True,
                dynamic_ncols=True,
                smoothing=0.1,
            )
        if failed:
            self._bar.set_postfix(failed=failed, refresh=False)
        self._bar.update(self._initial + settled - self._bar.n)

    def grow(self, total: int) -> None:
        """Set the number of positions in all."""
        self._total = total
        if self._bar is not None:
            self._bar.total = total


@contextlib.contextmanager
def log_written(write: Callable[[LogLine], None]) -> Iterator[None]:
    """Pass on what is logged in a block: in this process, and what workers send to it.

    Which lines that are is decided by the levels of the user's loggers.
    """
    handler = _LogHandler(write)
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)


class _LogHandler(logging.Handler):
    """Passes on every record that reaches the root logger."""

    def __init__(self, write: Callable[[LogLine], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on, its arguments put into the text."""
        try:
            line = LogLine(
                record.created,
                record.levelname,
                record.name,
                record.process or 0,
                record.getMessage(),
            )
            self._write(line)
        except Exception:
            self.handleError(record)
        # logging writes warnings to stderr itself where no handler is set up. This
        # handler ends that, so it has to do the same.
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return
            logger = logger.parent if logger.propagate else None
        last = logging.lastResort
        if last and record.levelno >= last.level:
            last.handle(record)
