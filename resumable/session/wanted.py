"""Requested positions that need not be there yet."""

from __future__ import annotations

import bisect
import math
from typing import Any

import numpy as np

from resumable.errors import PlanError
from resumable.model import MOST_POSITIONS, PositionSet, flat_positions


class RequestedPositions:
    """Requested positions of a source whose length is not known yet.

    Parameters
    ----------
    chosen : slice, mask, index or indices, optional
        As the user gives it; default all.
    map_shape : tuple of int
        As it is now; only the first length will change.

    Attributes
    ----------
    end : int or None
        One past the last requested position, where that is known.

    Raises
    ------
    PlanError
        Positions count from an end that is not there yet.
    """

    def __init__(self, chosen: Any, map_shape: tuple[int, ...]) -> None:
        self.chosen = chosen
        self.end: int | None = None
        row = math.prod(map_shape[1:])
        if chosen is None:
            return
        if isinstance(chosen, slice):
            parts = [
                n for n in (chosen.start, chosen.stop, chosen.step) if n is not None
            ]
            self.end = chosen.stop
        elif isinstance(chosen, np.ndarray) and chosen.dtype.kind == "b":
            if chosen.shape[1:] != map_shape[1:]:
                msg = f"a mask of shape {chosen.shape} for a map of shape {map_shape}"
                raise PlanError(msg)
            self._flat, parts = np.flatnonzero(chosen), []
        else:
            parts = np.ravel(chosen).tolist()
            longest = (MOST_POSITIONS // row, *map_shape[1:])
            self._flat = flat_positions(chosen, longest)
        if any(part < 0 for part in parts):
            msg = (
                "positions that count from the end cannot be followed: the end is not "
                f"there yet (positions={chosen})"
            )
            raise PlanError(msg)
        if not isinstance(chosen, slice):
            self.end = int(self._flat[-1]) + 1 if len(self._flat) else 0

    def among(
        self, map_shape: tuple[int, ...], *, growable: bool
    ) -> PositionSet | None:
        """Return those that are there; None: all.

        Raises
        ------
        PlanError
            Some are not, and never will be.
        """
        if self.chosen is None:
            return None
        if isinstance(self.chosen, slice) or not growable:
            return PositionSet.chosen(self.chosen, map_shape)
        size = math.prod(map_shape)
        return PositionSet.of(size, self._flat[self._flat < size])

    def first_from(self, size: int) -> int | None:
        """Return the first requested position from `size` on, where that is known."""
        if self.end is None or self.end <= size:
            return None
        if isinstance(self.chosen, slice):
            asked = range(*self.chosen.indices(self.end))
            place = bisect.bisect_left(asked, size)
            return asked[place] if place < len(asked) else None
        return int(self._flat[np.searchsorted(self._flat, size)])
