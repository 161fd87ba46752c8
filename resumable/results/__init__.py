"""What was computed: read, drawn, packed, published."""

from __future__ import annotations

from resumable.results.arrays import trace_of
from resumable.results.axes import Axis
from resumable.results.maps import draw_histograms, draw_maps, html_of_figure
from resumable.results.pack import pack_locked, remove_spare_ragged_files, unpack_locked
from resumable.results.results import (
    Results,
    Status,
    inputs_of_run,
    open_results,
    reference_to,
    shared_again,
    shared_of_run,
    source_of_run,
)

__all__ = [
    "Axis",
    "Results",
    "Status",
    "draw_histograms",
    "draw_maps",
    "html_of_figure",
    "inputs_of_run",
    "open_results",
    "pack_locked",
    "reference_to",
    "remove_spare_ragged_files",
    "shared_again",
    "shared_of_run",
    "source_of_run",
    "trace_of",
    "unpack_locked",
]
