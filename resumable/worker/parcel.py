"""Messages between a process and its workers: small in the pipe, large in memory.

Whoever writes a large message owns the memory it lies in, and passes the descriptor
with it. The reader says with its next message which memory it has done with, and
that is written to again, so that its pages need not be made anew each time. An array
that is not copied keeps the memory it lies in from being written to as long as it
lives.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pickle
import select
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from resumable.system import Memory, find_shared, map_memory
from resumable.worker.pickling import pickled

if TYPE_CHECKING:
    import mmap
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

#: Longer messages travel through shared memory: from here on it is faster
#: (``benchmarks/prefetch.py --sizes``). Two of them fit into the pipe of a worker
#: that does not read, so that sending does not wait.
PIPE_BYTES = 1 << 16
#: Messages whose arrays still lie in shared memory; a reader copies further ones. Each
#: costs a mapping and two descriptors at either end.
_MOST_KEPT = 8
#: Memory is given back when so many messages went without it.
_IDLE_MESSAGES = 32
_ALIGNMENT = 64
#: The system passes no more descriptors at once (SCM_MAX_FD is 253).
_DESCRIPTORS = 200
#: What becomes of the arrays in a message: they are copied; or they lie in the shared
#: memory, where nobody else uses it, and can be changed; or they are read-only there.
Arrays = Literal["copies", "own", "views"]
#: Part of a message: its bytes, or number of a memory, offset and length.
Part = bytes | tuple[int, int, int]
_NO_BLOCK = -1


class _Piece(np.ndarray[Any, np.dtype[np.uint8]]):
    """Part of a memory; arrays that lie in it keep it alive.

    Of a class of its own, since numpy lets an array refer to the base of a plain one.
    """


@dataclasses.dataclass(slots=True)
class Letter:
    """A message, packed."""

    parts: list[Part]
    """The pickle, then its buffers."""
    memories: list[Memory]
    """Where parts lie that are not in here."""
    block: _Block | None = None
    """The memory that was written to for it."""


class Received(NamedTuple):
    """A message as it came."""

    parts: list[Part]
    """The pickle, then its buffers."""
    block: int
    """Number of the memory that was written to for it."""
    arrays: Arrays
    """What is to become of its arrays."""


class _Block:
    """Memory that messages are written into, one at a time."""

    def __init__(self, size: int) -> None:
        # A power of two, so that somewhat larger messages fit, too. What is not
        # written to takes no space.
        self.memory = Memory(1 << (size - 1).bit_length())
        self.readers: set[Endpoint] = set()
        self.idle = 0


class Outbox:
    """The memory this process writes messages into; one for all their readers."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []

    def pack(self, message: Any, readers: set[Endpoint]) -> Letter:
        """Pack a message, whose buffers are copied now.

        Parameters
        ----------
        message : object
        readers : set of Endpoint
            All to whom it will be sent.

        Raises
        ------
        Unsendable
            It cannot be pickled.
        """
        buffers: list[memoryview] = []
        data = pickled(message, functools.partial(_take, buffers))
        buffers.insert(0, memoryview(data))
        self._age()
        found = [find_shared(buffer) for buffer in buffers]
        own = [b for b, there in zip(buffers, found, strict=True) if there is None]
        block, spans = self._write(own, readers)
        memories = [] if block is None else [block.memory]
        parts: list[Part] = []
        for buffer, there in zip(buffers, found, strict=True):
            if there is None:
                parts.append(spans.pop(0))
            else:
                memory, offset = there
                parts.append((memory.number, offset, len(buffer)))
                if memory not in memories:
                    memories.append(memory)
        return Letter(parts, memories, block)

    def _write(
        self, buffers: list[memoryview], readers: set[Endpoint]
    ) -> tuple[_Block | None, list[Part]]:
        """Write buffers into memory when that pays."""
        size = sum(len(buffer) + _ALIGNMENT for buffer in buffers)
        if size <= PIPE_BYTES:
            return None, [bytes(buffer) for buffer in buffers]
        block = self._free_block(size, readers)
        spans: list[Part] = []
        start = 0
        for buffer in buffers:
            stop = start + len(buffer)
            block.memory[start:stop] = buffer
            spans.append((block.memory.number, start, len(buffer)))
            start = -(-stop // _ALIGNMENT) * _ALIGNMENT
        return block, spans

    def _free_block(self, size: int, readers: set[Endpoint]) -> _Block:
        """Return the smallest free block that is large enough, made if need be."""
        fitting = [
            block
            for block in self._blocks
            if not block.readers and len(block.memory) >= size
        ]
        if fitting:
            chosen = min(fitting, key=lambda block: len(block.memory))
        else:
            chosen = _Block(size)
            self._blocks.append(chosen)
        chosen.idle = 0
        chosen.readers |= readers
        return chosen

    def _age(self) -> None:
        """Give back what has not been of use for long."""
        for block in self._blocks:
            block.idle += 1
        self._blocks = [
            block
            for block in self._blocks
            if block.readers or block.idle <= _IDLE_MESSAGES
        ]

    def free(self, numbers: list[int], reader: Endpoint) -> None:
        """Take note that a reader has done with these."""
        for block in self._blocks:
            if block.memory.number in numbers:
                block.readers.discard(reader)

    def lose(self, reader: Endpoint) -> None:
        """Take note that a reader is gone."""
        for block in self._blocks:
            block.readers.discard(reader)

    def trim(self) -> None:
        """Give back the memory that nobody reads now."""
        self._blocks = [block for block in self._blocks if block.readers]


def _take(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    """Keep a buffer out of the pickle, unless it is not in one piece."""
    try:
        buffers.append(buffer.raw())
    except BufferError:
        return True
    return False


class Endpoint:
    """One end of a pipe, with the memory of the process at the other end.

    Parameters
    ----------
    connection : multiprocessing.connection.Connection
    outbox : Outbox
        What is sent was packed there.
    """

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self.connection = connection
        self._outbox = outbox
        # A thread may send a log record while another one reads.
        self._lock = threading.Lock()
        self._known: dict[int, weakref.ref[Memory]] = {}
        self._theirs: dict[int, mmap.mmap] = {}
        self._reading: dict[int, list[weakref.ref[_Piece]]] = {}

    def send(self, letter: Letter, arrays: Arrays = "copies") -> None:
        """Send what was packed for this end, among others.

        Parameters
        ----------
        letter : Letter
        arrays : Arrays
            What is to become of its arrays there.

        Raises
        ------
        OSError
            The other end is closed.
        """
        with self._lock:
            new = [m for m in letter.memories if m.number not in self._known]
            gone = [number for number, ref in self._known.items() if ref() is None]
            for number in gone:
                del self._known[number]
            for memory in new:
                self._known[memory.number] = weakref.ref(memory)
            sizes = [(memory.number, len(memory)) for memory in new]
            block = _NO_BLOCK if letter.block is None else letter.block.memory.number
            envelope = (self._done_with(), gone, sizes, letter.parts, block, arrays)
            self.connection.send_bytes(pickle.dumps(envelope, protocol=5))
            for first in range(0, len(new), _DESCRIPTORS):
                fds = [memory.fileno() for memory in new[first : first + _DESCRIPTORS]]
                with self._socket() as ours:
                    socket.send_fds(ours, [b"m"], fds)

    def _socket(self) -> socket.socket:
        return socket.fromfd(
            self.connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM
        )

    def _done_with(self) -> list[int]:
        """Return the memory that nothing here lies in any more."""
        done = [
            number
            for number, pieces in self._reading.items()
            if all(piece() is None for piece in pieces)
        ]
        for number in done:
            del self._reading[number]
        return done

    def receive(self) -> Received:
        """Wait for a message.

        Raises
        ------
        EOFError, OSError
            The other end is closed.
        """
        data = self.connection.recv_bytes()
        done, gone, sizes, *content = pickle.loads(data)
        received = Received(*content)
        fds: list[int] = []
        while len(fds) < len(sizes):
            with self._socket() as ours:
                byte, some, _, _ = socket.recv_fds(ours, 1, _DESCRIPTORS)
            if not byte:
                raise EOFError
            fds += some
        self._outbox.free(done, self)
        with self._lock:
            for number in gone:
                del self._theirs[number]
            for (number, size), fd in zip(sizes, fds, strict=True):
                ours = number == received.block
                self._theirs[number] = map_memory(fd, size, writable=ours)
                os.close(fd)
            if received.block != _NO_BLOCK:
                self._reading[received.block] = []
        return received

    def open(self, received: Received, arrays: Arrays | None = None) -> Any:
        """Make the message again.

        Parameters
        ----------
        received : Received
        arrays : Arrays, optional
            What is to become of its arrays; by default what the sender asked for.

        Raises
        ------
        Exception
            Whatever unpickling it raises.
        """
        arrays = arrays or received.arrays
        data, *parts = received.parts
        buffers = [self._buffer(part, received.block, arrays) for part in parts]
        return pickle.loads(self._contents(data), buffers=buffers)

    def _contents(self, part: Part) -> Any:
        """Return the bytes of a part, or where they lie."""
        if isinstance(part, bytes):
            return part
        number, start, length = part
        return _Piece((length,), np.uint8, self._theirs[number], start)

    def _buffer(self, part: Part, block: int, arrays: Arrays) -> Any:
        """Return the memory of an array."""
        contents = self._contents(part)
        if isinstance(contents, bytes):
            return contents if arrays == "views" else bytearray(contents)
        if part[0] != block:
            # That of a shared array, mapped for reading only.
            return contents
        memory: Any = contents
        with self._lock:
            if arrays == "copies" or len(self._reading) > _MOST_KEPT:
                memory = np.array(contents)
            else:
                self._reading[block].append(weakref.ref(contents))
        memory.flags.writeable = arrays != "views"
        return memory


def readable(
    connections: Sequence[Connection], timeout: float | None = None
) -> list[Connection]:
    """Wait until something can be read from connections, and return these.

    Parameters
    ----------
    connections : sequence of Connection
    timeout : float, optional
        Seconds, after which none may be returned.
    """
    poll = select.poll()
    by_number = {connection.fileno(): connection for connection in connections}
    for number in by_number:
        poll.register(number, select.POLLIN)
    milliseconds = None if timeout is None else math.ceil(timeout * 1000)
    return [by_number[number] for number, _ in poll.poll(milliseconds)]
