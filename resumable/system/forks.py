"""Descriptors that are closed in child processes which a computation forks.

A child that outlives its parent would else keep the parent's locks, and the pipes by
whose end other processes notice that the parent has died.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

#: Held while descriptors open or close, so that no other thread forks between `open`
#: and registering the descriptor for closing in the child.
lock = threading.RLock()

#: Objects with descriptors. In every forked child of this process ``close_in_child()``
#: of them is called, which closes these and does nothing else.
holders: weakref.WeakSet[Any] = weakref.WeakSet()


def _close_all() -> None:
    for holder in list(holders):
        holder.close_in_child()
    holders.clear()
    lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lock.acquire,
        after_in_parent=lock.release,
        after_in_child=_close_all,
    )
