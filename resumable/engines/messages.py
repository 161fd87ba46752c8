"""Messages between rank 0 and the other ranks of an MPI job.

No rank waits inside MPI: a rank that waits looks for messages and sleeps in between, so
that it obeys signals, takes no processor time, and ends where another rank never comes.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import functools
import logging
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.errors import option
from resumable.system import launcher

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("resumable")

#: Between two looks a rank that waits sleeps this long, in s: first and at most.
_FIRST_NAP_S, _LONGEST_NAP_S = 1e-4, 5e-3
#: After this long a rank that waits for others says so.
_PATIENCE_S = 60.0
#: Rank 0 lets MPI work this often while a position is at work, but with no more than
#: this share of a core.
_PROGRESS_S, _PROGRESS_SHARE = 5e-3, 0.1
#: And so many times in a row: each answers only some of the ranks that ask.
_POLLS = 20
#: Messages have the first tag, none has the second one. Progress is made by a probe for
#: that: a probe that finds a message returns at once, and MPI has worked for nobody.
_TAG, _NO_TAG = 0, 1
#: Rank 0 waits so long for the others to end before it sends them that it ends.
_FAREWELL_S = 2.0
_LEFT = "left"


class Message(NamedTuple):
    """What has come from another rank, of one of the kinds of ranks.py."""

    rank: int
    kind: str
    content: Any = None


class RankMessages:
    """Messages to and from the ranks of a communicator; all of them must call this.

    The communicator is duplicated, so that our messages do not mix with the user's.
    """

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        # Without waiting inside MPI.
        self.comm, request = comm.Idup()
        pause = naps("the other ranks")
        while not request.Test():
            next(pause)
        self.rank: int = self.comm.rank
        self.size: int = self.comm.size
        on_host = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.rank_on_host: int = on_host.rank
        self.ranks_on_host: int = on_host.size
        on_host.Free()
        self.inbox: collections.deque[Message] = collections.deque()
        self.left: set[int] = set()
        self._call = 0
        self._sent: collections.deque[tuple[Any, bytes]] = collections.deque()
        self._arriving: list[tuple[int, bytearray, Any]] = []
        self._early: list[tuple[int, Message]] = []
        atexit.register(self._leave)

    @classmethod
    def of(cls, comm: Any) -> RankMessages:
        """Return the messages of a communicator, the same object each time."""
        key = _key()
        messages: RankMessages | None = comm.Get_attr(key)
        if messages is None:
            messages = cls(comm)
            comm.Set_attr(key, messages)
        return messages

    def begin(self) -> None:
        """Begin another call of compute: messages of earlier ones do not count."""
        self._call += 1
        self.inbox.clear()
        early, self._early = self._early, []
        for call, message in early:
            self._deliver(call, message)

    def send(self, rank: int, kind: str, content: Any = None) -> None:
        """Send a message; it arrives when both ranks look for messages."""
        self._send_bytes(rank, pickle.dumps((self._call, kind, content)))

    def send_all(self, kind: str, content: Any = None) -> None:
        """Send a message to all others."""
        data = pickle.dumps((self._call, kind, content))
        for rank in range(self.size):
            if rank != self.rank:
                self._send_bytes(rank, data)

    def _send_bytes(self, rank: int, data: bytes) -> None:
        # Only the oldest is looked at: with 10,000 ranks there are as many.
        while self._sent and self._sent[0][0].Test():
            self._sent.popleft()
        self._sent.append((self.comm.Isend([data, self._mpi.BYTE], rank, _TAG), data))

    def look(self) -> None:
        """Put the messages that have come into the inbox."""
        status = self._mpi.Status()
        while True:
            found = self.comm.Improbe(tag=_TAG, status=status)
            if found is None:
                break
            buffer = bytearray(status.Get_count(self._mpi.BYTE))
            request = found.Irecv([buffer, self._mpi.BYTE])
            self._arriving.append((status.Get_source(), buffer, request))
        still: list[tuple[int, bytearray, Any]] = []
        for rank, buffer, request in self._arriving:
            # A large message takes time, and later ones of its rank wait for it.
            if any(rank == other for other, _, _ in still) or not request.Test():
                still.append((rank, buffer, request))
                continue
            call, kind, content = pickle.loads(buffer)
            self._deliver(call, Message(rank, kind, content))
        self._arriving = still

    def _deliver(self, call: int, message: Message) -> None:
        if message.kind == _LEFT:
            self.left.add(message.rank)
        elif call > self._call:
            self._early.append((call, message))
        elif call == self._call:
            self.inbox.append(message)

    @contextlib.contextmanager
    def progressing(self) -> Iterator[None]:
        """Let MPI work for the time of a block, also while a position is at work.

        Where the network cannot do it alone, a number that another rank takes from
        the memory of this one waits until this one calls MPI.
        """
        if self._mpi.Query_thread() < self._mpi.THREAD_MULTIPLE or self.size == 1:
            yield
            return
        over = threading.Event()

        def work() -> None:
            pause = _PROGRESS_S
            while not over.wait(pause):
                used = time.thread_time()
                for _ in range(_POLLS):
                    self.comm.Iprobe(tag=_NO_TAG)
                # A probe looks at every message that has not been received.
                pause = max(_PROGRESS_S, (time.thread_time() - used) / _PROGRESS_SHARE)

        thread = threading.Thread(target=work, name="resumable-mpi", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _leave(self) -> None:
        """Tell the ranks that still wait for this one that it ends."""
        if self._mpi.Is_finalized() or launcher.aborting:
            return
        if self.rank > 0:
            self.send(0, _LEFT)
            return
        # Most end now, too, and wait for nothing. Some networks complain of messages
        # that nobody receives.
        here = set(range(1, self.size))
        pause, deadline = naps(), time.monotonic() + _FAREWELL_S
        while here - self.left and time.monotonic() < deadline:
            self.look()
            if self._early:
                break
            next(pause)
        for rank in here - self.left:
            self.send(rank, _LEFT)


def naps(waiting_for: str = "") -> Iterator[None]:
    """Sleep for ever longer times, one each step; say once what is waited for."""
    nap, began, is_said = _FIRST_NAP_S, time.monotonic(), not waiting_for
    while True:
        time.sleep(nap)
        nap = min(2 * nap, _LONGEST_NAP_S)
        if not is_said and time.monotonic() - began > _PATIENCE_S:
            is_said = True
            logger.warning(
                "still waiting for %s: compute() computes with all ranks, so every "
                "rank must call it (or give %s to compute on one alone)",
                waiting_for,
                option("engine", "local"),
            )
        yield


@functools.cache
def _key() -> int:
    """Return the key under which a communicator keeps its messages."""
    from mpi4py import MPI

    return MPI.Comm.Create_keyval()
