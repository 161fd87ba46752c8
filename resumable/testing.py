"""For tests of a Process: its conformance in one call, and positions for calls by hand.

``docs/testing.rst`` shows how a Process is tested with pytest.
"""

from __future__ import annotations

from resumable.errors import CheckFailed
from resumable.process import Conformance, at, check

__all__ = ["CheckFailed", "Conformance", "at", "check"]
