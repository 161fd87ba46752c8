"""What a computation is made of: the user's code and values, traced and written down.

Nothing here knows of runs, files of results or engines.
"""

from __future__ import annotations

from resumable.identity.earlier import TEXT as EARLIER_TEXT
from resumable.identity.earlier import (
    class_text,
)
from resumable.identity.earlier import version_of_class as earlier_version_of_class
from resumable.identity.earlier import (
    version_of_function as earlier_version_of_function,
)
from resumable.identity.origin import environment_of
from resumable.identity.record import Entry, Trace
from resumable.identity.roots import (
    CodeCheck,
    Traced,
    trace_function,
    trace_object,
    write_value,
    write_values,
)

__all__ = [
    "EARLIER_TEXT",
    "CodeCheck",
    "Entry",
    "Trace",
    "Traced",
    "class_text",
    "earlier_version_of_class",
    "earlier_version_of_function",
    "environment_of",
    "trace_function",
    "trace_object",
    "write_value",
    "write_values",
]
