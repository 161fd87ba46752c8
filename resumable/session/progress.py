"""A progress bar on a terminal and in notebooks, silent elsewhere."""

from __future__ import annotations

import sys
from typing import Any


class Progress:
    """Shows how many positions are done; this one shows nothing."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave what is shown as it is."""

    def update(self, settled: int, failed: int) -> None:
        """Show the numbers of settled and of failed positions of this session."""

    def grow(self, total: int) -> None:
        """There are so many positions by now."""


class _Bar(Progress):
    """tqdm's bar; it appears with the first update."""

    def __init__(self, total: int, initial: int, label: str) -> None:
        self._arguments: dict[str, Any] = {
            "total": total,
            "initial": initial,
            "desc": label,
            "unit": "pos",
            "unit_scale": True,
            "dynamic_ncols": True,
            "smoothing": 0.1,
        }
        self._bar: Any = None

    def update(self, settled: int, failed: int) -> None:
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(**self._arguments)
        if failed:
            self._bar.set_postfix(failed=failed, refresh=False)
        self._bar.update(self._arguments["initial"] + settled - self._bar.n)

    def grow(self, total: int) -> None:
        self._arguments["total"] = total
        if self._bar is not None:
            self._bar.total = total

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()


def progress_bar(
    *, show: bool | None, total: int, initial: int, label: str
) -> Progress:
    """Return a progress bar, or one that shows nothing.

    Parameters
    ----------
    show : bool or None
        None shows it on a terminal and in a notebook.
    total, initial : int
        Positions in all, and settled before.
    label : str
        What to write before the bar.
    """
    if show is None:
        show = sys.stderr.isatty() or _in_kernel()
    return _Bar(total, initial, label) if show and total > initial else Progress()


def _in_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")
