"""HDF5 files of others, opened for reading only and read by position.

But for one that a killed ``publish`` has left half changed: that is mended first.
"""

from __future__ import annotations

from resumable.source.coordinates import (
    axes_of_source,
    coordinates_of,
    note_on_numbers,
)
from resumable.source.inputs import (
    SharedValue,
    align_input,
    measure_source,
    open_sources,
    shared_value,
    whole_dataset,
)
from resumable.source.listing import Listing, list_source
from resumable.source.live import FileState, SourceWriter, file_state, read_unchanged
from resumable.source.reader import Reader, is_of_pieces, open_reader
from resumable.source.rechunk import rechunked
from resumable.source.reference import SourceRef, refer

__all__ = [
    "FileState",
    "Listing",
    "Reader",
    "SharedValue",
    "SourceRef",
    "SourceWriter",
    "align_input",
    "axes_of_source",
    "coordinates_of",
    "file_state",
    "is_of_pieces",
    "list_source",
    "measure_source",
    "note_on_numbers",
    "open_reader",
    "open_sources",
    "read_unchanged",
    "rechunked",
    "refer",
    "shared_value",
    "whole_dataset",
]
