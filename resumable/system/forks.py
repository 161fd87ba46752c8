"""Copies of this process, made by a computation with os.fork, hold nothing of ours.

A copy that lives on would keep locks that its parent's end should free, and pipes
whose end should tell of a death.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Holder(Protocol):
    """Something with file descriptors."""

    def abandon(self) -> None:
        """Close them and do nothing else, in a copy of the process."""


#: Held from when something is opened until it is known to be let go of in copies, and
#: while it is closed: no other thread makes a copy meanwhile.
held_off = threading.RLock()

_holders: weakref.WeakSet[Holder] = weakref.WeakSet()


def let_go_in_copies(holder: Holder) -> None:
    """Have ``holder.abandon()`` called in every copy of this process."""
    _holders.add(holder)


def _abandon_all() -> None:
    for holder in list(_holders):
        holder.abandon()
    _holders.clear()
    held_off.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=held_off.acquire,
        after_in_parent=held_off.release,
        after_in_child=_abandon_all,
    )
