"""What was computed: read, packed, published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.results.group import source_text
from resumable.results.pack import pack_locked, remove_spare_ragged_files, unpack_locked
from resumable.results.results import Results, Status, open_results, reference_to
from resumable.system import lazily

if TYPE_CHECKING:
    from resumable.results.origin import inputs_of_run, source_of_run

__all__ = [
    "Results",
    "Status",
    "inputs_of_run",
    "open_results",
    "pack_locked",
    "reference_to",
    "remove_spare_ragged_files",
    "source_of_run",
    "source_text",
    "unpack_locked",
]

# Imported when they are used: most runs do without.
__getattr__ = lazily(
    __name__,
    inputs_of_run="origin",
    source_of_run="origin",
)
