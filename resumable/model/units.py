"""Sizes and durations as people write them."""

from __future__ import annotations

import re

from resumable.errors import PlanError, option

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def parse_bytes(size: float | str, name: str = "") -> int:
    """Turn ``"2 GB"``, ``"512 MiB"`` or a number of bytes into bytes.

    PlanError for what is not a size, or not positive, with the `name` of the argument.
    """
    text = str(size).strip().lower()
    match = re.fullmatch(
        r"(\d+\.?\d*(?:e\d+)?|\.\d+)\s*([kmgt]?)(i?)(?:b|bytes?)?", text
    )
    if match is None:
        what = _named(name, size)
        msg = f"{what} is not a size; write for example '2 GB' or '512 MiB'"
        raise PlanError(msg)
    number, prefix, binary = match.groups()
    result = int(float(number) * (_BINARY if binary and prefix else _SIZES)[prefix])
    if result <= 0:
        msg = f"a size must be positive, not {_named(name, size)}"
        raise PlanError(msg)
    return result


def parse_seconds(duration: float | str, name: str = "") -> float:
    """Turn ``"3h50m"``, ``"3:50:00"`` or a number of seconds into seconds.

    Also takes times as batch schedulers write them: ``"1-12:00:00"`` is 1.5 days.
    PlanError for what is not a duration, or not positive, with the `name` of the
    argument.
    """
    text = str(duration).strip().lower().replace(" ", "")
    seconds = 0.0
    if re.fullmatch(r"\d+\.?\d*(?:e-?\d+)?|\.\d+", text):
        seconds = float(text)
    elif re.fullmatch(r"(?:\d+\.?\d*[dhms])+", text):
        parts = re.findall(r"(\d+\.?\d*)([dhms])", text)
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    elif clock := re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", text):
        days, hours, minutes, rest = map(int, clock.groups(default="0"))
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if seconds <= 0:
        msg = (
            f"{_named(name, duration)} is not a duration; write for example '3h50m', "
            "'3:50:00' or 90 (seconds)"
        )
        raise PlanError(msg)
    return seconds


def _named(name: str, value: object) -> str:
    return option(name, value) if name else repr(value)


def format_bytes(size: float) -> str:
    """Write bytes for people: ``1.5 GB``."""
    if size == 1:
        return "1 byte"
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 999.5:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB" if size < 999.5 else f"{size:.0f} TB"


def format_seconds(seconds: float) -> str:
    """Write a duration for people: ``3 h 50 min``."""
    for limit, unit, factor in ((1e-3, "us", 1e6), (1, "ms", 1e3)):
        if seconds * factor < 999.5 and seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    days = minutes / 1440
    return f"{days:.3g} days" if days < 999.5 else f"{days:.0f} days"
