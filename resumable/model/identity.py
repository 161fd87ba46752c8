"""What makes a run the same run: one document, one digest.

The identity is the sha256 of a canonical JSON document. :func:`differences` says in
words how two documents differ.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from resumable.errors import IdentityError, shortened
from resumable.model.encoding import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Part of the document: a higher number where equal values are encoded differently.
SCHEMA = 1
#: Most levels of lists and dicts within each other: comparing documents recurses as
#: deep.
DEEPEST = 200


def document_digest(document: dict[str, Any]) -> str:
    """Return the sha256 of canonical JSON; IdentityError if it is nested too deep."""
    check_depth(document)
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def check_depth(document: Any) -> None:
    """Check that plain JSON is not nested too deep to be compared."""
    level = [document]
    for _ in range(DEEPEST):
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    msg = f"lists and dicts lie in each other more than {DEEPEST} deep; flatten them"
    raise IdentityError(msg)


_MISSING = object()


def differences(old: Any, new: Any) -> list[str]:
    """Say in words how one identity document differs from another."""
    return [
        f"{path}: {brief(before)} there, {brief(after)} here"
        for path, before, after in _walk(old, new, "")
    ]


def _walk(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            inner = path if key == "dict" else f"{path}.{key}" if path else key
            yield from _walk(old.get(key, _MISSING), new.get(key, _MISSING), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _walk(before, after, f"{path}[{i}]")
    elif _MISSING in (old, new) or canonical(old) != canonical(new):
        yield path, old, new


def brief(value: Any) -> str:
    """Return a part of a document as a short text for people."""
    if value is _MISSING:
        return "missing"
    text = canonical(value)
    # The first digits of a digest are enough.
    return shortened(text, 24 if len(text) > 60 and text.startswith('"') else 60)
