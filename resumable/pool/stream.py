"""Calls of one function, done ahead of whoever takes the results."""

from __future__ import annotations

import collections
import contextlib
import inspect
import itertools
import secrets
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from resumable.system import Uninterrupted, machine
from resumable.worker import Arrays, generator_of

#: Unanswered calls of a worker: one at work, and one so that it need not wait.
_CALLS_EACH = 2
_names = itertools.count()


class Call(Protocol):
    """A call under way."""

    done: bool
    """It has been answered."""

    def end(self, value: Any, error: Exception | None) -> None:
        """Take the answer."""

    def result(self) -> Any:
        """Return the answer, or raise it."""


class Workers(Protocol):
    """What is needed of a pool, see :class:`~resumable.pool.pool.Pool`."""

    @property
    def workers(self) -> int:
        """How many processes."""

    def ask(
        self,
        workers: Sequence[int],
        message: tuple[Any, ...],
        doing: str,
        *,
        arguments: Arrays = "copies",
        results: Arrays = "copies",
    ) -> Sequence[Call]:
        """Send a message to workers."""

    def failed(self, error: Exception) -> Call:
        """Return a call that could not be sent."""

    def forget(self, key: str) -> None:
        """Have an object dropped."""

    def load(self, worker: int) -> int:
        """Return how many calls are unanswered."""

    def staff(self, worker: int) -> object:
        """Return a token of a worker's process."""

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until something has come."""


def new_key() -> str:
    """Return a name for an object in workers that no other one has."""
    return f"{next(_names)}"


class Each:
    """Calls a function with every item."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def do(self, item: Any) -> Any:
        """Do one call."""
        return self._function(item)


class Again:
    """Calls a function with the same arguments, and with a generator if it takes one.

    Parameters
    ----------
    function : callable
    args : sequence
    seed : int or None
        None for one that differs from run to run.
    """

    def __init__(
        self, function: Callable[..., Any], args: Sequence[Any], seed: int | None
    ) -> None:
        takes_rng = _takes_rng(function)
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

    @staticmethod
    def numbers(times: int | None) -> Iterator[int]:
        """Return the numbers of the calls."""
        return itertools.count() if times is None else iter(range(times))

    def do(self, number: int) -> Any:
        """Do one call."""
        if self._seed is None:
            return self._function(*self._args)
        return self._function(*self._args, rng=generator_of(self._seed, number))


def _takes_rng(function: Callable[..., Any]) -> bool:
    try:
        return "rng" in inspect.signature(function).parameters
    except ValueError:
        # Some functions written in C do not tell.
        return False


class Guarded:
    """What an error of a user's function must not do: end a loop, or the worker.

    Parameters
    ----------
    line : ParentConnection or None
        Of the worker, or None in the process of the pool.
    task : Each or Again
    """

    def __init__(self, line: Any, task: Each | Again) -> None:
        self._in_worker = line is not None
        self._task = task
        # A worker's environment has it for good.
        self._threads: contextlib.AbstractContextManager[Any] = (
            contextlib.nullcontext() if self._in_worker else machine.OneThread()
        )

    def do(self, item: Any) -> Any:
        """Do one call."""
        with self._threads:
            return guarded(self._task.do, item, in_worker=self._in_worker)


def guarded(function: Callable[[Any], Any], argument: Any, *, in_worker: bool) -> Any:
    """Call a function; turn exceptions that would be misunderstood into others."""
    try:
        return function(argument)
    except StopIteration as error:
        # An iterator that lets it pass has ended.
        msg = "the function raised StopIteration"
        raise RuntimeError(msg) from error
    except Exception:
        raise
    except BaseException as error:
        if not in_worker:
            raise
        msg = f"{type(error).__name__}: {error}"
        raise RuntimeError(msg) from error


class _Waiting(NamedTuple):
    """An item whose result has not been taken."""

    placed: Call | None
    """The call that has brought the function to the worker."""
    call: Call
    """The call for the item."""


class Stream(Iterator[Any]):
    """Results of calls that workers do ahead.

    Parameters
    ----------
    pool : Pool
    task : Each or Again
        Sent to every worker once.
    items : iterator
        What it is called with.
    ordered : bool
        Results come in the order of the items.
    in_turn : bool
        Item number k goes to worker k modulo their number, or else to whichever has
        the least to do.
    arguments, results : Arrays
        What is to become of arrays in items and in results.
    look_ahead : int
        Items under way at once, at most.
    """

    @classmethod
    def start(
        cls,
        pool: Workers,
        task: Each | Again,
        items: Iterator[Any],
        *,
        look_ahead: int | None,
        ordered: bool = True,
        in_turn: bool = False,
        arguments: Arrays = "copies",
        results: Arrays = "copies",
    ) -> Iterator[Any]:
        """Begin to work; without workers, return an iterator that works here."""
        if look_ahead is None:
            look_ahead = _CALLS_EACH * max(1, pool.workers)
        if look_ahead < 1:
            msg = f"look_ahead must be 1 or more items, not {look_ahead}"
            raise ValueError(msg)
        if not pool.workers:
            return map(Guarded(None, task).do, items)
        # A worker that has died meanwhile is replaced before it gets an item.
        pool.wait(0)
        stream = cls(pool, task, items, look_ahead)
        stream._ordered, stream._in_turn = ordered, in_turn
        stream._arguments, stream._results = arguments, results
        stream._fill()
        return stream

    def __init__(
        self,
        pool: Workers,
        task: Each | Again,
        items: Iterator[Any],
        look_ahead: int,
    ) -> None:
        self._pool = pool
        self._task = task
        self._items = items
        self._ordered, self._in_turn = True, False
        self._arguments: Arrays = "copies"
        self._results: Arrays = "copies"
        self._look_ahead = look_ahead
        self._number = 0
        self._next: list[Any] = []
        self._ended = False
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._placed: dict[int, tuple[object, Call]] = {}
        self._key = new_key()
        weakref.finalize(self, pool.forget, self._key).atexit = False

    def __next__(self) -> Any:
        """Return the next result.

        When it is interrupted it can be called again.
        """
        while True:
            self._fill()
            ready = self._ready()
            if ready is not None:
                # The next item is under way before this one's result is used.
                self._fill(1)
                break
            if not self._waiting and self._ended:
                raise StopIteration
            self._pool.wait()
        self._waiting.remove(ready)
        if ready.placed is not None and ready.placed.done:
            ready.placed.result()
        return ready.call.result()

    def _ready(self) -> _Waiting | None:
        candidates = [self._waiting[0]] if self._waiting else []
        if not self._ordered:
            candidates = list(self._waiting)
        return next((one for one in candidates if one.call.done), None)

    def _fill(self, more: int = 0) -> None:
        """Send items to workers, as many as may be under way."""
        while len(self._waiting) < self._look_ahead + more:
            worker = self._worker()
            if worker is None or not self._take():
                return
            with Uninterrupted():
                self._waiting.append(self._send(worker, self._next.pop()))
                self._number += 1

    def _worker(self) -> int | None:
        """Return the worker for the next item, None while it has enough to do."""
        if self._in_turn:
            chosen = self._number % self._pool.workers
        else:
            chosen = min(range(self._pool.workers), key=self._pool.load)
        return chosen if self._pool.load(chosen) < _CALLS_EACH else None

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
                self._waiting.append(_Waiting(None, self._pool.failed(error)))
        return bool(self._next)

    def _send(self, worker: int, item: Any) -> _Waiting:
        doing = f"at item {self._number}"
        placed = None
        try:
            token = self._pool.staff(worker)
            if self._placed.get(worker, (None,))[0] is not token:
                place = ("place", self._key, Guarded, (self._task,))
                (placed,) = self._pool.ask([worker], place, "to start")
                self._placed[worker] = token, placed
            placed = self._placed[worker][1]
            message = ("call", self._key, "do", (item,))
            (call,) = self._pool.ask(
                [worker],
                message,
                doing,
                arguments=self._arguments,
                results=self._results,
            )
        except TypeError as error:
            return _Waiting(None, self._pool.failed(error))
        return _Waiting(placed, call)
