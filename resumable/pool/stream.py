"""Calls of one function, done before their results are taken.

::

    items -> sent, up to look_ahead -> workers -> results, in order or as they are ready

An item is sent when a worker has fewer than two unanswered calls: the next result is
computed while the present one is used.
"""

from __future__ import annotations

import collections
import contextlib
import inspect
import itertools
import secrets
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.system import OneThread, Uninterrupted
from resumable.worker import Call, generator_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resumable.worker import Arrays, WorkerProcesses

#: Unanswered calls of a worker: one at work, and one so that it need not wait.
_CALLS_EACH = 2
_names = itertools.count()


def new_key() -> str:
    """Return a name for an object in workers that no other one has."""
    return f"{next(_names)}"


class RepeatedFunction:
    """Calls a function with the same arguments, with a generator if taken."""

    def __init__(
        self, function: Callable[..., Any], args: Sequence[Any], seed: int | None
    ) -> None:
        takes_rng = False
        # Some functions written in C do not tell.
        with contextlib.suppress(ValueError):
            takes_rng = "rng" in inspect.signature(function).parameters
        if seed is not None and not takes_rng:
            name = getattr(function, "__name__", function)
            msg = (
                f"seed={seed} has no effect, since {name} has no parameter 'rng'; give "
                "it one and take random numbers from there"
            )
            raise TypeError(msg)
        self._function = function
        self._args = tuple(args)
        self._seed = None
        if takes_rng:
            self._seed = secrets.randbits(128) if seed is None else seed

    def do(self, number: int) -> Any:
        """Do call number `number`."""
        if self._seed is None:
            return self._function(*self._args)
        return self._function(*self._args, rng=generator_of(self._seed, number))


class GuardedFunction:
    """Calls a function; an error of it ends neither a loop nor the worker."""

    def __init__(self, parent: Any, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._here = parent is None

    def do(self, item: Any) -> Any:
        """Do one call."""
        return guarded(self._function, item, here=self._here)


def guarded(function: Callable[[Any], Any], argument: Any, *, here: bool) -> Any:
    """Call a function; turn exceptions that would be misunderstood into others.

    Where it is called `here`, libraries use one thread meanwhile, as in workers.
    """
    try:
        with OneThread() if here else contextlib.nullcontext():
            return function(argument)
    except StopIteration as error:
        # It would end the iterator over the results.
        msg = "the function raised StopIteration"
        raise RuntimeError(msg) from error
    except Exception:
        raise
    except BaseException as error:
        if here:
            raise
        msg = f"{type(error).__name__}: {error}"
        raise RuntimeError(msg) from error


def start_stream(
    pool: WorkerProcesses,
    function: Callable[[Any], Any],
    items: Iterator[Any],
    *,
    look_ahead: int | None = None,
    ordered: bool = True,
    in_turn: bool = False,
    arguments: Arrays = "copies",
    results: Arrays = "copies",
) -> Iterator[Any]:
    """Begin to call a function; without workers, return an iterator that calls it here.

    The function is sent to every worker once. At most `look_ahead` items are under way,
    by default two per worker. `in_turn`: item number k goes to worker k modulo their
    number, else to the one with the fewest unanswered calls.
    """
    if look_ahead is None:
        look_ahead = _CALLS_EACH * max(1, pool.workers)
    if not pool.workers:
        return map(GuardedFunction(None, function).do, items)
    # A worker that has died meanwhile is replaced before it gets an item.
    pool.wait(0)
    stream = Stream(pool, function, items, look_ahead, arguments, results)
    stream.ordered, stream.in_turn = ordered, in_turn
    stream.fill()
    return stream


class _Pending(NamedTuple):
    """An item whose result has not been taken."""

    created: Call | None  # has brought the function to the worker
    call: Call  # for the item


def _failed(error: Exception) -> _Pending:
    call = Call("")
    call.end(None, error)
    return _Pending(None, call)


class Stream(Iterator[Any]):
    """Results of calls that workers do ahead, see :func:`start_stream`."""

    def __init__(
        self,
        pool: WorkerProcesses,
        function: Callable[[Any], Any],
        items: Iterator[Any],
        look_ahead: int,
        arguments: Arrays,
        results: Arrays,
    ) -> None:
        self._pool = pool
        self._function = function
        self._items = items
        self._look_ahead = look_ahead
        self._arguments, self._results = arguments, results
        self.ordered, self.in_turn = True, False
        self._number = 0
        # An item that was taken and not sent yet, because of an interrupt.
        self._next: list[Any] = []
        self._ended = False
        self._pending: collections.deque[_Pending] = collections.deque()
        self._created: dict[int, tuple[object, Call]] = {}
        self._key = new_key()
        weakref.finalize(self, pool.drop, self._key).atexit = False

    def __next__(self) -> Any:
        """Return the next result.

        When it is interrupted it can be called again.
        """
        while True:
            self.fill()
            candidates = itertools.islice(self._pending, 1 if self.ordered else None)
            ready = next((one for one in candidates if one.call.done), None)
            if ready is not None:
                # The next item is under way before this one's result is used.
                self.fill(1)
                break
            if not self._pending and self._ended:
                raise StopIteration
            self._pool.wait()
        self._pending.remove(ready)
        if ready.created is not None and ready.created.done:
            ready.created.result()
        return ready.call.result()

    def fill(self, more: int = 0) -> None:
        """Send items to workers, as many as may be under way."""
        while len(self._pending) < self._look_ahead + more:
            worker = self._free_worker()
            if worker is None or not self._take():
                return
            with Uninterrupted():
                self._pending.append(self._send(worker, self._next.pop()))
                self._number += 1

    def _free_worker(self) -> int | None:
        if self.in_turn:
            chosen = self._number % self._pool.workers
        else:
            chosen = min(range(self._pool.workers), key=self._pool.unanswered)
        return chosen if self._pool.unanswered(chosen) < _CALLS_EACH else None

    def _take(self) -> bool:
        """Take an item; return whether there is one."""
        if not self._next and not self._ended:
            try:
                self._next.append(next(self._items))
            except StopIteration:
                self._ended = True
            except Exception as error:
                # Raised in its place, after the results before it.
                self._ended = True
                self._pending.append(_failed(error))
        return bool(self._next)

    def _send(self, worker: int, item: Any) -> _Pending:
        try:
            # The function, too, unless the process has it.
            token = self._pool.process_token(worker)
            if self._created.get(worker, (None,))[0] is not token:
                content = ("create", self._key, GuardedFunction, (self._function,))
                (created,) = self._pool.start_calls([worker], content, "to start")
                self._created[worker] = token, created
            (call,) = self._pool.start_calls(
                [worker],
                ("call", self._key, "do", (item,)),
                f"at item {self._number}",
                arguments=self._arguments,
                results=self._results,
            )
        except TypeError as error:
            return _failed(error)
        return _Pending(self._created[worker][1], call)
