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

    def close_in_child(self) -> None:
        """Close them and do nothing else, in a copy of the process."""


#: Held from when something is opened until it is known to be let go of in copies, and
#: while it is closed: no other thread makes a copy meanwhile.
lock = threading.RLock()

_holders: weakref.WeakSet[Holder] = weakref.WeakSet()


def close_in_children(holder: Holder) -> None:
    """Have ``holder.close_in_child()`` called in every copy of this process."""
    _holders.add(holder)


def _abandon_all() -> None:
    for holder in list(_holders):
        holder.close_in_child()
    _holders.clear()
    lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lock.acquire,
        after_in_parent=lock.release,
        after_in_child=_abandon_all,
    )
