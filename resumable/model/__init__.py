"""Values and rules, without reading or writing."""

from __future__ import annotations

from resumable.model import identity, source_text
from resumable.model.classes import check_text, file_of, find_class, uncached
from resumable.model.compression import FILTERS, load, problem
from resumable.model.encoding import decode
from resumable.model.geometry import Geometry
from resumable.model.identity import (
    brief,
    canonical,
    decode_dtype,
    differences,
    digest,
    encode_dtype,
)
from resumable.model.indexing import divided_key, read_like_array
from resumable.model.memory import Blocks, Footprint, fit_memory
from resumable.model.output import ENTRY_DTYPE, Output, declared
from resumable.model.plan import SHIPPED_BYTES, WORTH_STARTING_S, Plan
from resumable.model.positions import (
    MOST_POSITIONS,
    WINDOW,
    Batch,
    PositionSet,
    Span,
    flat_positions,
    name_of_position,
    positions_in_order,
    runs,
    windows,
)
from resumable.model.remainder import Remainder
from resumable.model.schedule import TRIALS, Schedule
from resumable.model.source_text import text_digest
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
    "Schedule",
    "Span",
    "block_rows",
    "brief",
    "by_name",
    "canonical",
    "check_text",
    "declared",
    "decode",
    "decode_dtype",
    "differences",
    "digest",
    "divided",
    "divided_key",
    "encode_dtype",
    "file_of",
    "find_class",
    "fit_memory",
    "fitted",
    "flat_positions",
    "format_bytes",
    "format_seconds",
    "gathered",
    "identity",
    "load",
    "name_of_position",
    "parse_bytes",
    "parse_seconds",
    "placer",
    "positions_in_order",
    "problem",
    "ragged_rows",
    "read_like_array",
    "runs",
    "source_text",
    "text_digest",
    "uncached",
    "windows",
]
