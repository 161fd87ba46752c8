"""What users write and call: a Process, stages in a chain, a plain function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.process.function import map_function
from resumable.process.parameters import share_parameter
from resumable.process.process import Process
from resumable.system import lazily

if TYPE_CHECKING:
    from resumable.process.chain import Chain
    from resumable.process.classes import find_class
    from resumable.process.conformance import Conformance, at, check
    from resumable.process.program import (
        EPILOG,
        compute_options,
        errors_shown,
        main,
        make_process,
        parameter_options,
        run_process,
        show_warning,
        source_options,
    )
    from resumable.process.restore import load, verify

__all__ = [
    "EPILOG",
    "Chain",
    "Conformance",
    "Process",
    "at",
    "check",
    "compute_options",
    "errors_shown",
    "find_class",
    "load",
    "main",
    "make_process",
    "map_function",
    "parameter_options",
    "run_process",
    "share_parameter",
    "show_warning",
    "source_options",
    "verify",
]

# Imported when they are used: most runs do without.
__getattr__ = lazily(
    __name__,
    Chain="chain",
    Conformance="conformance",
    EPILOG="program",
    at="conformance",
    check="conformance",
    compute_options="program",
    errors_shown="program",
    find_class="classes",
    load="restore",
    main="program",
    make_process="program",
    parameter_options="program",
    run_process="program",
    show_warning="program",
    source_options="program",
    verify="restore",
)
