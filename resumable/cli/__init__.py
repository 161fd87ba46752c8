"""The command ``resumable``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.system import lazily

if TYPE_CHECKING:
    from resumable.cli.commands import main

__all__ = [
    "main",
]

# Imported when they are used: most runs do without.
__getattr__ = lazily(
    __name__,
    main="commands",
)
