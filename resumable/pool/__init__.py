"""Worker processes for other work than batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.system import lazily

if TYPE_CHECKING:
    from resumable.pool.operators import Operator, Operators
    from resumable.pool.pool import Pool

__all__ = [
    "Operator",
    "Operators",
    "Pool",
]

# Imported when they are used: most runs do without.
__getattr__ = lazily(
    __name__,
    Operator="operators",
    Operators="operators",
    Pool="pool",
)
