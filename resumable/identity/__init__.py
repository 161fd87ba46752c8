"""What a computation is made of: the user's code and values, traced and written down.

Nothing here knows of runs, files of results or engines.
"""

from __future__ import annotations

from resumable.identity.origin import Distribution, distribution_of
from resumable.identity.record import Entry, Trace
from resumable.identity.roots import Traced, check_same, trace_function, trace_object

__all__ = [
    "Distribution",
    "Entry",
    "Trace",
    "Traced",
    "check_same",
    "distribution_of",
    "trace_function",
    "trace_object",
]
