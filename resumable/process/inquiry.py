"""What is there of a computation, and what would be done: nothing is written."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import PlanError, SourceError, near_miss
from resumable.model import PositionSet, positions_in_order
from resumable.process.declaration import Declaration
from resumable.process.parameters import frozen
from resumable.results import Results
from resumable.session import (
    Explanation,
    Options,
    explain,
    find,
    prospect,
    resolve,
)

if TYPE_CHECKING:
    from resumable.model import Plan
    from resumable.session import Computation, Trial


class Inquiry(Declaration):
    """What can be asked of a :class:`Process` before, while and after it computes."""

    @property
    def identity(self) -> str:
        """sha256 of what makes a run of this computation this run.

        Reads up to 64 MB of the source.
        """
        return self._computation().run_folder.identity

    @property
    def duplicates(self) -> list[Results]:
        """Complete runs of exactly this computation, the oldest first."""
        return self._matching(complete=True)

    @property
    def partials(self) -> list[Results]:
        """Unfinished runs of exactly this computation, the oldest first."""
        return self._matching(complete=False)

    def _matching(self, *, complete: bool) -> list[Results]:
        computation = self._computation()
        return [
            Results(run)
            for run in computation.runs()
            if (run.finished and computation.full_length(run.header)) is complete
        ]

    @property
    def results(self) -> Results | None:
        """Results that are there, finished or not, else None; computes nothing."""
        run = find(self._computation(), Options()).run
        return Results(run) if run else None

    def explain(self) -> Explanation:
        """Say which runs exist and why each does or does not match; print it.

        Returns
        -------
        Explanation
            One entry per run of this process on this dataset, with the first
            differences in words. Nothing is written.
        """
        return explain(self._computation())

    def plan(self, positions: Any = None, **options: Any) -> Plan:
        """Say what :meth:`compute` would do with the same arguments; print it.

        Returns
        -------
        Plan
            Nothing is written.

        Raises
        ------
        PlanError
            Positions that do not exist, a memory budget that is too small.
        """
        return prospect(self._computation(), self._options(positions, options)).plan

    def test(self, position: Any = 0) -> Trial:
        """Compute one or a few positions and say what all of them would take.

        Parameters
        ----------
        position : int, tuple, slice, list, or mask
            An index, a tuple on a map, several of them, or a boolean mask.

        Returns
        -------
        Trial
            Outputs (of several positions in the order asked for), the time per
            position, the plan for the whole, and a picture.

        Raises
        ------
        PlanError
            The position does not exist.
        OutputError
            The outputs are not what was declared.
        Exception
            What the computation raises.

        Notes
        -----
        Writes nothing. Runs in this process, so a debugger works.
        """
        from resumable.session import try_positions

        computation = self._computation()
        flat = positions_in_order(position, self.map_shape)
        single = isinstance(position, (int, np.integer, tuple))
        with frozen(self):
            trial = try_positions(computation, flat, single=single)
        self._seconds_per_position = trial.seconds_per_position
        return trial

    def _computation(self) -> Computation:
        self._check_source()
        return resolve(self)

    def _check_source(self) -> None:
        if "_source" not in self.__dict__:
            msg = (
                f"{type(self).__name__} was made without a source, as a stage of a "
                "Chain; give it one, or compute the chain"
            )
            raise SourceError(msg)

    def _options(self, positions: Any, options: dict[str, Any]) -> Options:
        known = [field.name for field in dataclasses.fields(Options)]
        for name in options:
            if name not in known:
                msg = f"there is no option {name!r}{near_miss(name, known)}"
                raise PlanError(msg)
        chosen = None
        if positions is not None:
            chosen = PositionSet.chosen(positions, self.map_shape)
        return Options(positions=chosen, **options)
