"""What happens in a session: events for a listener, the progress bar, the run's log."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.errors import warn_user
from resumable.runfile import LogLine

if TYPE_CHECKING:
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


@dataclasses.dataclass(kw_only=True, slots=True)
class ProgressBar:
    """How many positions are settled: a bar of tqdm; the first update shows it."""

    show: bool | None
    """None: on a terminal and in a notebook."""
    total: int
    initial: int
    label: str
    _bar: Any = None

    def close(self) -> None:
        """Leave the bar as it is now."""
        if self._bar is not None:
            self._bar.close()

    def update(self, settled: int, failed: int) -> None:
        """Show the numbers of settled and of failed positions of this session."""
        if self.show is None:
            self.show = sys.stderr.isatty() or _in_notebook()
        if not self.show:
            return
        if self._bar is None:
            self._bar = _kind_of_bar()(
                total=self.total,
                initial=self.initial,
                desc=self.label,
                unit="pos",
                unit_scale=True,
                dynamic_ncols=True,
                smoothing=0.1,
            )
        if failed:
            self._bar.set_postfix(failed=failed, refresh=False)
        self._bar.update(self.initial + settled - self._bar.n)

    def grow(self, total: int) -> None:
        """Set the number of positions in all."""
        self.total = total
        if self._bar is not None:
            self._bar.total = total


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return hasattr(ipython.get_ipython() if ipython else None, "kernel")


def _kind_of_bar() -> Any:
    """Return tqdm's class for a notebook or for a terminal."""
    if _in_notebook():
        if importlib.util.find_spec("ipywidgets") is not None:
            from tqdm.notebook import tqdm as of_notebook

            return of_notebook
        warn_user(
            "the progress bar is one of text, since ipywidgets is not installed for "
            "this notebook: pip install 'resumable-hdf5[notebook]'"
        )
    from tqdm import tqdm

    return tqdm


class LogHandler(logging.Handler):
    """Passes on every record that reaches the root logger, also those of workers."""

    write: Callable[[LogLine], None]
    """What takes them."""

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
            self.write(line)
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
