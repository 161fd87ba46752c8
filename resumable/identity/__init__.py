"""What a computation is made of: the user's code and values, traced and written down.

Nothing here knows of runs, files of results or engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.system import lazily

if TYPE_CHECKING:
    from resumable.identity.earlier import (
        EARLIER_TEXT,
        class_text,
        earlier_version_of_class,
        earlier_version_of_function,
    )
    from resumable.identity.objects import is_generator, shared_generators, state_of
    from resumable.identity.origin import environment_of
    from resumable.identity.record import Entry, Trace
    from resumable.identity.roots import (
        CodeCheck,
        Traced,
        arrays_in,
        by_document,
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
    "arrays_in",
    "by_document",
    "class_text",
    "earlier_version_of_class",
    "earlier_version_of_function",
    "environment_of",
    "is_generator",
    "shared_generators",
    "state_of",
    "trace_function",
    "trace_object",
    "write_value",
    "write_values",
]

# Imported when they are used: a class is declared without them.
__getattr__ = lazily(
    __name__,
    EARLIER_TEXT="earlier",
    CodeCheck="roots",
    Entry="record",
    Trace="record",
    Traced="roots",
    arrays_in="roots",
    by_document="roots",
    class_text="earlier",
    earlier_version_of_class="earlier",
    earlier_version_of_function="earlier",
    environment_of="origin",
    is_generator="objects",
    shared_generators="objects",
    state_of="objects",
    trace_function="roots",
    trace_object="roots",
    write_value="roots",
    write_values="roots",
)
