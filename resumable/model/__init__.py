"""Values and rules, without reading or writing."""

from __future__ import annotations

from resumable.model.compression import FILTERS, load, problem
from resumable.model.encoding import (
    canonical,
    decode,
    decode_dtype,
    encode,
    encode_dtype,
)
from resumable.model.geometry import Geometry
from resumable.model.identity import SCHEMA, brief, differences, document_digest
from resumable.model.indexing import divided_key, read_like_array
from resumable.model.memory import Blocks, Footprint, fit_memory
from resumable.model.output import ENTRY_DTYPE, Output, declared
from resumable.model.plan import SHIPPED_BYTES, WORTH_STARTING_S, Plan
from resumable.model.positions import (
    MOST_POSITIONS,
    WINDOW,
    Batch,
    PositionSet,
    RequestedPositions,
    Span,
    flat_positions,
    name_of_position,
    positions_in_order,
    runs,
    windows,
)
from resumable.model.remainder import Remainder
from resumable.model.schedule import TRIALS, Schedule
from resumable.model.source_text import (
    at_margin,
    check_unchanged,
    class_file,
    class_read_from,
    class_text,
    closed_over,
    normalised_source,
    note_class_file,
    text_digest,
)
from resumable.model.spans import boxes, chunk_shape, divided_where, spans_of
from resumable.model.units import (
    format_bytes,
    format_seconds,
    parse_bytes,
    parse_seconds,
)
from resumable.model.values import (
    block_rows,
    by_name,
    divided,
    fitted,
    gathered,
    placer,
    ragged_rows,
)

__all__ = [
    "ENTRY_DTYPE",
    "FILTERS",
    "MOST_POSITIONS",
    "SCHEMA",
    "SHIPPED_BYTES",
    "TRIALS",
    "WINDOW",
    "WORTH_STARTING_S",
    "Batch",
    "Blocks",
    "Footprint",
    "Geometry",
    "Output",
    "Plan",
    "PositionSet",
    "Remainder",
    "RequestedPositions",
    "Schedule",
    "Span",
    "at_margin",
    "block_rows",
    "boxes",
    "brief",
    "by_name",
    "canonical",
    "check_unchanged",
    "chunk_shape",
    "class_file",
    "class_read_from",
    "class_text",
    "closed_over",
    "declared",
    "decode",
    "decode_dtype",
    "differences",
    "divided",
    "divided_key",
    "divided_where",
    "document_digest",
    "encode",
    "encode_dtype",
    "fit_memory",
    "fitted",
    "flat_positions",
    "format_bytes",
    "format_seconds",
    "gathered",
    "load",
    "name_of_position",
    "normalised_source",
    "note_class_file",
    "parse_bytes",
    "parse_seconds",
    "placer",
    "positions_in_order",
    "problem",
    "ragged_rows",
    "read_like_array",
    "runs",
    "spans_of",
    "text_digest",
    "windows",
]
