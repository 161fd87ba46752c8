"""From a wanted computation to its results: look, decide, drive, tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.session.computation import Computation, Options, Request
from resumable.session.compute import compute
from resumable.session.decide import Explanation, explain, find, prospect
from resumable.session.events import (
    BatchDone,
    Event,
    Finished,
    Listener,
    PositionFailed,
    Started,
)
from resumable.session.resolve import least_calls, resolve
from resumable.system import lazily

if TYPE_CHECKING:
    from resumable.session.adopt import adopt_run
    from resumable.session.background import Run, check_alone
    from resumable.session.follow import follow_source
    from resumable.session.trial import (
        Trial,
        draw_default,
        opened,
        read_positions,
        try_positions,
    )
    from resumable.session.verify import Check, VerifyReport, unlike_rows, verify_run

__all__ = [
    "BatchDone",
    "Check",
    "Computation",
    "Event",
    "Explanation",
    "Finished",
    "Listener",
    "Options",
    "PositionFailed",
    "Request",
    "Run",
    "Started",
    "Trial",
    "VerifyReport",
    "adopt_run",
    "check_alone",
    "compute",
    "draw_default",
    "explain",
    "find",
    "follow_source",
    "least_calls",
    "opened",
    "prospect",
    "read_positions",
    "resolve",
    "try_positions",
    "unlike_rows",
    "verify_run",
]

# Imported when they are used: most runs do without.
__getattr__ = lazily(
    __name__,
    Check="verify",
    Run="background",
    Trial="trial",
    VerifyReport="verify",
    adopt_run="adopt",
    check_alone="background",
    draw_default="trial",
    follow_source="follow",
    opened="trial",
    read_positions="trial",
    try_positions="trial",
    unlike_rows="verify",
    verify_run="verify",
)
