"""Arguments of a wrong kind, refused with name, value and what is accepted."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import ResumableError, wrong

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_flag(kind: type[ResumableError], name: str, value: Any) -> None:
    """Refuse what is neither True nor False: a text is true, "no", too."""
    if not isinstance(value, (bool, np.bool_)):
        raise wrong(kind, name, value, "True or False")


def check_whole(
    kind: type[ResumableError], name: str, value: Any, least: int = 0
) -> None:
    """Refuse what is no whole number from `least` on."""
    try:
        fits = not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        fits = False
    if not fits:
        raise wrong(kind, name, value, f"a whole number from {least}")


def is_number(value: Any) -> bool:
    """Return whether a value is a real number, and not NaN."""
    plain = isinstance(value, (int, float, np.integer, np.floating))
    return plain and not isinstance(value, bool) and not math.isnan(value)


def check_choice(
    kind: type[ResumableError], name: str, value: Any, choices: Sequence[str]
) -> None:
    """Refuse what is none of some texts."""
    if not (isinstance(value, str) and value in choices):
        first, last = ", ".join(map(repr, choices[:-1])), repr(choices[-1])
        raise wrong(kind, name, value, f"{first} or {last}")


def check_called(
    kind: type[ResumableError], name: str, value: Any, what: str = "a function"
) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise wrong(kind, name, value, what)


def check_path(kind: type[ResumableError], name: str, value: Any, what: str) -> None:
    """Refuse what names no file: neither a text nor a path. `what` is accepted."""
    plain = value.__fspath__() if hasattr(value, "__fspath__") else value
    if not isinstance(plain, str):
        raise wrong(kind, name, value, what)
