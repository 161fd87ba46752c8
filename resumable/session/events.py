"""What happens in a run, as small objects for whoever listens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from resumable.model import Batch
    from resumable.results import Results
    from resumable.runfile import Failure

    Array = np.ndarray[Any, np.dtype[Any]]


class Counts(NamedTuple):
    """How far a run is."""

    done: int
    """Positions that are done."""
    failed: int
    """Positions that have failed."""
    pending: int
    """Requested positions that are left."""


class Started(NamedTuple):
    """A session has begun to compute."""

    results: Results
    """What is there already."""
    counts: Counts
    """How far the run is."""


@dataclasses.dataclass(frozen=True, slots=True)
class BatchDone:
    """A batch is computed and written; it may not be durable yet."""

    results: Results
    """Where it was written."""
    batch: Batch
    """Which one."""
    done: int
    """Positions of it that succeeded."""
    failed: int
    """Positions of it that failed."""
    counts: Counts
    """How far the run is now."""

    @property
    def positions(self) -> Array:
        """Flat positions, int64, ascending, of those that were handed out."""
        return self.batch.positions()

    def __getitem__(self, name: str) -> Any:
        """Values of an output, one row per position; what has failed holds the fill.

        Of a ragged output a list with the rows of each position.
        """
        return self.results.rows(name, self.positions)


class PositionFailed(NamedTuple):
    """A position has failed and is recorded."""

    failure: Failure
    """Position, exception, message, traceback."""


class Finished(NamedTuple):
    """Every requested position is done or failed."""

    results: Results
    """All of it."""


Event = Started | BatchDone | PositionFailed | Finished
#: Takes the events of a run.
Listener = Callable[[Event], None]
