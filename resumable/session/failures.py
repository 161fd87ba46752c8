"""What failures mean: the data, the function or the machine is wrong."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from resumable.errors import OutputError, UnitFailed, WorkerDied, in_python, option
from resumable.model import PROBES, name_of_position

if TYPE_CHECKING:
    from resumable.model import Geometry
    from resumable.runfile import Failure
    from resumable.worker import Report

#: How a failure names what is not as declared.
_OUTPUT_ERROR = f"{OutputError.__module__}.{OutputError.__qualname__}"


@dataclasses.dataclass(slots=True)
class FailurePolicy:
    """Judges the failures of a session by those that came before.

    It records nothing: failures that may be the function's are held back, and released
    when they have turned out to be the data's.
    """

    held: dict[int, Failure] = dataclasses.field(default_factory=dict)
    lone_deaths: int = 0
    """How many positions in a row have ended their worker; 0 after a success."""

    def probed(self, failures: list[Failure], done: int, geometry: Geometry) -> bool:
        """Decide whether the function is wrong, which has not succeeded yet.

        The failures of the position that was tried are held back. Returns whether the
        function has proven itself: failures are the data's from now on. Raises
        UnitFailed where the function is wrong, OutputError where it returns what is
        not as declared.
        """
        self.held |= {failure.position: failure for failure in failures}
        kinds = {failure.exception for failure in self.held.values()}
        if len(kinds) == 1 and len(self.held) >= PROBES and not done:
            raise self.error_of_function(geometry)
        return bool(done) or len(kinds) > 1

    def error_of_function(self, geometry: Geometry) -> Exception:
        """Return the error of a session in which all that was tried failed alike."""
        return _error_of_function([*self.held.values()], geometry)

    def released(self, *, proven: bool) -> list[Failure]:
        """Return what was held back, once; nothing where it may be the function's."""
        if len(self.held) >= PROBES and not proven:
            return []
        held, self.held = self.held, {}
        return list(held.values())

    @property
    def machine_failed(self) -> bool:
        """Too many positions in a row have ended their worker."""
        return self.lone_deaths >= PROBES

    def died_alone(self, failure: Failure, geometry: Geometry) -> None:
        """Note a position that has ended its worker, in a batch of its own.

        Raises WorkerDied where as many in a row as there are probes have ended theirs.
        """
        self.lone_deaths += 1
        if self.machine_failed:
            where = name_of_position(failure.position, geometry.map_shape)
            msg = (
                f"the last {PROBES} positions have all ended their worker, {where} "
                f"with {failure.exception} ({failure.message}); they are recorded as "
                "failed. When the machine is in order again, compute, then "
                f"{option('retry_failed', True, call='compute')}"
            )
            raise WorkerDied(msg)


def _stopped_by_error() -> str:
    return (
        f"Stopped because of {option('on_error', 'raise')}; everything finished is "
        "kept and this position is left pending"
    )


def _error_of_function(failures: list[Failure], geometry: Geometry) -> Exception:
    first = failures[0]
    where = name_of_position(first.position, geometry.map_shape)
    tried = f"the first {PROBES} positions tried, spread over the run, all"
    if len(failures) < PROBES:
        tried = f"all {len(failures)} positions that were computed"
        tried = tried if len(failures) > 1 else f"position {where}, the only one,"
    tested = in_python(f" and try it with test({where})")
    advice = (
        f"Nothing was recorded. Correct the computation{tested}. If it is right that "
        "it fails, as where nothing was measured, "
        f"{option('on_error', 'record', call='compute')} records them and goes on"
    )
    if first.exception == _OUTPUT_ERROR:
        return OutputError(
            f"{tried} returned what is not as declared, position {where} this: "
            f"{first.message} ({_shape_of_data(geometry)}). {advice}"
        )
    return UnitFailed(
        f"{tried} raised {first.exception}: {first.message}\n{first.traceback}{advice}",
        first.position,
    )


def _shape_of_data(geometry: Geometry) -> str:
    return (
        f"the data of one position have shape {geometry.spectrum_shape}, as "
        "position_axes say"
    )


def error_of_unit(report: Report, geometry: Geometry) -> Exception:
    """Return the error for which a session stops, where a position has raised it."""
    first = report.failures[0]
    where = name_of_position(first.position, geometry.map_shape)
    if isinstance(report.error, OutputError):
        return OutputError(
            f"{report.error} (at position {where}; {_shape_of_data(geometry)})"
        )
    return UnitFailed(
        f"position {where} raised {first.exception}: {first.message}\n"
        f"{first.traceback}{_stopped_by_error()}",
        first.position,
    )


def error_of_death(failure: Failure, geometry: Geometry) -> Exception:
    """Return the error for which a session stops, where a worker has ended."""
    where = name_of_position(failure.position, geometry.map_shape)
    msg = (
        f"position {where}: {failure.exception}: {failure.message}\n"
        f"{_stopped_by_error()}"
    )
    return UnitFailed(msg, failure.position)
