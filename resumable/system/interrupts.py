"""Ctrl-C, kept from coming in the middle of what must not be left half done."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType


class Uninterrupted:
    """A context in which Ctrl-C waits until its end.

    In the main thread only, since no other one is interrupted. For moments, not for
    work: sending a message, taking one. One inside of another does nothing.
    """

    __slots__ = ("_came", "_handler")
    _within = False

    def __init__(self) -> None:
        self._handler: Any = None
        self._came: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if not in_main_thread or Uninterrupted._within:
            return
        if signal.getsignal(signal.SIGINT) is None:
            return  # set by another language, which alone can put it back
        handler = signal.signal(signal.SIGINT, self._note)
        Uninterrupted._within = True
        self._handler = handler

    def __exit__(self, *exc: object) -> None:
        handler, self._handler = self._handler, None
        if handler is None:
            return
        Uninterrupted._within = False
        signal.signal(signal.SIGINT, handler)
        # What is ignored, or ends the process, is no function.
        if self._came is not None and callable(handler):
            handler(*self._came)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = number, frame
