"""Child processes: what they are started by, and that they end with their parent.

Also descriptors that are closed in child processes which a computation forks. A child
that outlives its parent would else keep the parent's locks, and the pipes by whose end
other processes notice that the parent has died.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import weakref
from typing import Any

#: Processes can be forked, and descriptors be sent to others: not on Windows.
POSSIBLE = hasattr(os, "fork")

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


def start_method() -> str:
    """Return how worker processes are started where nobody says it.

    Libraries of macOS, also the BLAS that numpy has there, do not work in a process
    that was forked from one which has used them: each worker is a new interpreter.
    """
    return "spawn" if sys.platform == "darwin" else "forkserver"


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    It works also where a computation holds the GIL. Linux only; elsewhere a thread that
    waits in :func:`await_hangup` notices that the parent has ended.
    """
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            # The parent ended before the call.
            os._exit(1)


def await_hangup(fd: int) -> None:
    """Wait until the other end of a socket is closed; messages are left in it."""
    system: Any = select
    if not hasattr(system, "kqueue"):
        poll = select.poll()
        # Without flags poll reports only that the other end is closed, not messages.
        poll.register(fd, 0)
        poll.poll()
        return
    # macOS: poll reports nothing there where it is asked for nothing. Once per change:
    # a message that is not read would be reported all the time.
    flags = system.KQ_EV_ADD | system.KQ_EV_CLEAR
    asked = [system.kevent(fd, system.KQ_FILTER_READ, flags)]
    with contextlib.closing(system.kqueue()) as queue:
        while not any(e.flags & system.KQ_EV_EOF for e in queue.control(asked, 1)):
            asked = []
