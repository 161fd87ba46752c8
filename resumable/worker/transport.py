"""What travels between a process and its workers, and how.

A message is pickled. A small one goes through the pipe. A large one is written to
memory without a name, and the descriptor of this memory goes through the pipe::

    sender                              pipe             receiver
    pickle, arrays  --> small? -- yes: bytes --------->  unpickled
                           `- no: memory, descriptor ->  copied out, or mapped

So sending never waits for a receiver that is busy. The memory has no name: it is gone
when no process has it mapped, however the processes end. The receiver says with
its next message which memory it has released, and the sender writes to that again. Of
arrays made by :func:`~resumable.system.shared_array` only the descriptor is sent.
"""

from __future__ import annotations

import collections
import functools
import io
import math
import mmap
import os
import pickle
import select
import socket
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import cloudpickle
import numpy as np

from resumable.errors import option
from resumable.system import Memory, find_shared, map_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from multiprocessing.connection import Connection

#: Larger messages go through shared memory. Two of this size fit into the pipe of a
#: worker that does not read, so that sending does not wait.
PIPE_BYTES = 1 << 16
#: Messages of a connection whose memory stays mapped; further ones are copied. Each
#: costs the receiver a mapping and a descriptor.
_MOST_MAPPED = 8
#: Memory is freed when so many messages have not needed it.
_UNUSED_MESSAGES = 32
_ALIGNMENT = 64
#: The system passes no more descriptors at once (SCM_MAX_FD is 253).
_DESCRIPTORS = 200
#: What the receiver makes of the arrays in a message: copies of them; arrays in the
#: shared memory that can be changed, since no other process has it; or read-only ones.
Arrays = Literal["copies", "own", "views"]
#: Part of a message: its bytes, or the number of a memory, offset and length there.
Part = bytes | tuple[int, int, int]


class Unsendable(TypeError):
    """A message cannot be pickled."""


def _reduce_cached(descriptor: functools.cached_property[Any]) -> tuple[Any, ...]:
    state = {name: vars(descriptor)[name] for name in ("attrname", "__doc__")}
    return functools.cached_property, (descriptor.func,), state


def _has_name_there(function: Any) -> bool:
    """Return whether a worker finds a function by its module and its name."""
    by_value = {"__main__", *cloudpickle.list_registry_pickle_by_value()}
    return function.__module__ not in by_value and "<locals>" not in (
        function.__qualname__
    )


def _reduce_lru_cache(function: Any) -> Any:
    if _has_name_there(function):
        return function.__qualname__
    return _lru_cached, (function.__wrapped__, function.cache_parameters())


def _lru_cached(function: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    make, arguments = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return _code_of_file, (make, arguments, code.co_filename)


def _code_of_file(make: Any, arguments: tuple[Any, ...], file: str) -> Any:
    return make(*arguments).replace(co_filename=file)


def _is_single_dispatch(thing: Any) -> bool:
    return (
        isinstance(thing, types.FunctionType)
        and thing.__globals__ is vars(functools)
        and hasattr(thing, "registry")
    )


def _reduce_dispatching_method(
    method: functools.singledispatchmethod[Any],
) -> tuple[Any, ...]:
    registry = dict(method.dispatcher.registry)
    how = functools.singledispatchmethod, (registry.pop(object),), registry
    return (*how, None, None, _register)


def _register(function: Any, registry: dict[type, Any]) -> None:
    for kind, implementation in registry.items():
        function.register(kind, implementation)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    # Before Python 3.12 a cached_property has a lock, in 3.13 a singledispatchmethod
    # weak references, which cannot be pickled, and a class of __main__ is sent with
    # all its attributes. Functions with a cache are pickled by name, which a worker
    # does not find in its __main__. cloudpickle leaves out the file of code, which
    # warnings and tracebacks tell.
    dispatch_table: ClassVar[Any] = collections.ChainMap(
        {
            functools.cached_property: _reduce_cached,
            functools.singledispatchmethod: _reduce_dispatching_method,
            functools._lru_cache_wrapper: _reduce_lru_cache,
            types.CodeType: _reduce_code,
        },
        cloudpickle.Pickler.dispatch_table,
    )

    def reducer_override(self, obj: Any) -> Any:
        """Make a function of singledispatch anew, which has weak references."""
        if not _is_single_dispatch(obj) or _has_name_there(obj):
            return super().reducer_override(obj)
        registry = dict(obj.registry)
        default = registry.pop(object)
        # In two steps, for what is registered may call the function itself.
        how = functools.singledispatch, (default,), registry
        return (*how, None, None, _register)


def pickled(
    message: Any, take: Callable[[pickle.PickleBuffer], Any] | None = None
) -> bytes:
    """Pickle a message; `take` takes its buffers. Raises :class:`Unsendable`."""
    with io.BytesIO() as file:
        try:
            _Pickler(file, protocol=5, buffer_callback=take).dump(message)
        except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
            raise Unsendable(str(error)) from error
        return file.getvalue()


def computation_not_sent(error: Unsendable) -> TypeError:
    """Return the error for a computation that cannot be pickled."""
    return TypeError(
        f"the computation cannot be sent to a worker process ({error}); make what "
        "cannot be sent, such as open files, locks and models, in setup(), which runs "
        f"in every worker, or use {option('engine', 'serial')}"
    )


def packed(computation: Any) -> bytes:
    """Return a computation as bytes; TypeError where it holds what cannot be sent."""
    try:
        return pickled(computation)
    except Unsendable as error:
        raise computation_not_sent(error) from error


class Message(NamedTuple):
    """A message ready to be sent."""

    parts: list[Part]  # the pickle, then its buffers
    memories: list[Memory]  # where parts lie that are not in here
    written: int | None  # number of the memory that was written to for it


class Received(NamedTuple):
    """A message as it came: the pickle and its arrays."""

    data: bytes
    buffers: list[Any]

    def content(self) -> Any:
        """Return the content, once; raises what unpickling it raises."""
        try:
            return pickle.loads(self.data, buffers=self.buffers)
        finally:
            # Only the arrays themselves keep the memory they lie in mapped.
            self.buffers.clear()


class _Block:
    """Memory that messages are written to, one at a time."""

    def __init__(self, size: int) -> None:
        # A power of two, so that somewhat larger messages fit, too. What is not
        # written to takes no space.
        self.memory = Memory(1 << (size - 1).bit_length())
        self.receivers: set[Channel] = set()
        self.unused = 0


class SendBuffer:
    """Memory that a process writes large messages to; one for all their receivers.

    A block is written to again when all its receivers have said that nothing lies in it
    any more: to make new pages takes longer than to write to them.
    """

    def __init__(self) -> None:
        self._blocks: list[_Block] = []

    def pack(self, content: Any, receivers: set[Channel]) -> Message:
        """Pack a message for these channels; its arrays are copied now."""
        buffers: list[memoryview] = []
        data = pickled(content, functools.partial(_take_out, buffers))
        buffers.insert(0, memoryview(data))
        placed = [(buffer, find_shared(buffer)) for buffer in buffers]
        size = sum(len(buffer) + _ALIGNMENT for buffer, place in placed if not place)
        block = self._block(size, receivers)
        message = Message([], [], None if block is None else block.memory.number)
        end = 0
        for buffer, place in placed:
            if place is not None:
                memory, start = place
            elif block is None:
                message.parts.append(bytes(buffer))
                continue
            else:
                memory, start = block.memory, -(-end // _ALIGNMENT) * _ALIGNMENT
                end = start + len(buffer)
                memory[start:end] = buffer
            message.parts.append((memory.number, start, len(buffer)))
            if memory not in message.memories:
                message.memories.append(memory)
        return message

    def _block(self, size: int, receivers: set[Channel]) -> _Block | None:
        """Return the smallest free block for a message; None for the pipe."""
        self.free_unused(_UNUSED_MESSAGES)
        if size <= PIPE_BYTES:
            return None
        free = [b for b in self._blocks if not b.receivers and len(b.memory) >= size]
        block = min(free, key=lambda block: len(block.memory), default=None)
        if block is None:
            block = _Block(size)
            self._blocks.append(block)
        block.unused = 0
        block.receivers |= receivers
        return block

    def free_unused(self, messages: int = 0) -> None:
        """Free unread memory that so many messages have not needed."""
        for block in self._blocks:
            block.unused += 1
        self._blocks = [b for b in self._blocks if b.receivers or b.unused <= messages]

    def released(self, channel: Channel, numbers: Collection[int] | None) -> None:
        """Note that a receiver has released memory, or all of it, being gone."""
        for block in self._blocks:
            if numbers is None or block.memory.number in numbers:
                block.receivers.discard(channel)


def _take_out(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    """Keep a buffer out of the pickle, unless it is not in one piece."""
    try:
        buffers.append(buffer.raw())
    except BufferError:
        return True
    return False


class Channel:
    """One end of a pipe over which messages are sent and received."""

    def __init__(self, connection: Connection, buffer: SendBuffer) -> None:
        self.connection = connection
        self._buffer = buffer
        # A thread may send a log record while another one sends an answer.
        self._sending = threading.Lock()
        # Memory of the other process: of shared arrays, and of messages.
        self._shared: weakref.WeakValueDictionary[int, mmap.mmap] = (
            weakref.WeakValueDictionary()
        )
        self._mapped: set[int] = set()
        self._released: list[int] = []

    def send(self, message: Message, arrays: Arrays = "copies") -> None:
        """Send a message that was packed for this channel, among others.

        `arrays` is what the receiver makes of its arrays. OSError: it is closed.
        """
        memories = [(memory.number, len(memory)) for memory in message.memories]
        fds = [memory.fileno() for memory in message.memories]
        with self._sending:
            released = self._released[:]
            del self._released[: len(released)]
            header = (released, memories, message.parts, message.written, arrays)
            self.connection.send_bytes(pickle.dumps(header, protocol=5))
            for first in range(0, len(fds), _DESCRIPTORS):
                with self._socket() as pipe:
                    socket.send_fds(pipe, [b"m"], fds[first : first + _DESCRIPTORS])

    def _socket(self) -> socket.socket:
        return socket.fromfd(
            self.connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM
        )

    def receive(self, arrays: Arrays | None = None) -> Received:
        """Wait for a message; EOFError or OSError where the other end is closed.

        `arrays` is what to make of its arrays; by default what the sender says.
        """
        header = pickle.loads(self.connection.recv_bytes())
        released, memories, parts, written, asked = header
        arrays = arrays or asked
        mapped: dict[int, mmap.mmap] = {}
        fds: list[int] = []
        while len(fds) < len(memories):
            with self._socket() as pipe:
                byte, some, _, _ = socket.recv_fds(pipe, 1, _DESCRIPTORS)
            if not byte:
                raise EOFError
            fds += some
        for (number, size), fd in zip(memories, fds, strict=True):
            if number == written:
                mapped[number] = map_memory(fd, size, writable=arrays == "own")
                self._mapped.add(number)
                weakref.finalize(
                    mapped[number], _release, number, self._mapped, self._released
                ).atexit = False
            else:
                known = self._shared.get(number)
                mapped[number] = known or map_memory(fd, size, writable=False)
                self._shared[number] = mapped[number]
            os.close(fd)
        self._buffer.released(self, released)
        data, *buffers = [_bytes_of(part, mapped) for part in parts]
        copied = arrays == "copies" or len(self._mapped) > _MOST_MAPPED
        for index, part in enumerate(parts[1:]):
            if arrays != "views" and isinstance(part, bytes):
                buffers[index] = bytearray(part)
            elif copied and part[0] == written:
                buffers[index] = np.array(buffers[index])
                buffers[index].flags.writeable = arrays != "views"
        return Received(bytes(data), buffers)


def _bytes_of(part: Part, mapped: dict[int, mmap.mmap]) -> Any:
    """Return the bytes of a part, or a view of the memory they lie in."""
    if isinstance(part, bytes):
        return part
    number, start, length = part
    return np.ndarray((length,), np.uint8, mapped[number], start)


def _release(number: int, mapped: set[int], released: list[int]) -> None:
    """Have the next message say that nothing here lies in a memory any more."""
    mapped.discard(number)
    released.append(number)


def readable(
    connections: Sequence[Connection], timeout: float | None = None
) -> list[Connection]:
    """Return the connections that can be read; wait for one, `timeout` seconds."""
    poll = select.poll()
    by_number = {connection.fileno(): connection for connection in connections}
    for number in by_number:
        poll.register(number, select.POLLIN)
    milliseconds = None if timeout is None else math.ceil(timeout * 1000)
    return [by_number[number] for number, _ in poll.poll(milliseconds)]
