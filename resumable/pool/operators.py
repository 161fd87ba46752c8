"""Operators that live in worker processes and keep their state there."""

from __future__ import annotations

import functools
import operator
import traceback
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from resumable.errors import (
    DeclarationError,
    PlanError,
    StaleLinearization,
    WorkerDied,
    wrong,
)
from resumable.model import is_number
from resumable.pool.stream import guarded, new_key
from resumable.worker import RemoteTraceback, WorkerProcesses, portable

if TYPE_CHECKING:
    from resumable.pool.pool import Pool
    from resumable.worker import Call

_METHODS = ("evaluate", "linearize", "derivative", "adjoint")


class Operator(Protocol):
    """What :class:`Operators` needs of an operator: those methods that are called.

    One with a true attribute ``linear`` needs no linearisation before `derivative` and
    `adjoint`. No method may change its argument, which is read-only.
    """

    def evaluate(self, x: Any) -> Any:
        """Return the value at `x`."""

    def linearize(self, x: Any) -> Any:
        """Return the value at `x`, and keep what the next two methods need."""

    def derivative(self, h: Any) -> Any:
        """Apply the derivative at the point of the linearisation."""

    def adjoint(self, y: Any) -> Any:
        """Apply the adjoint of the derivative."""


class _Failure(NamedTuple):
    """An operator has raised."""

    number: int  # of the operator
    error: Exception
    text: str  # of the traceback


class _Arguments(NamedTuple):
    """What the operators are called with."""

    value: Any  # an argument for all, or a list
    #: By operator the members of the list it gets: one, or a list of them.
    rows: Mapping[int, list[int] | int] | None = None

    def of(self, number: int) -> Any:
        """Return the argument of an operator."""
        if self.rows is None:
            return self.value
        row = self.rows[number]
        if isinstance(row, int):
            return self.value[row]
        return [self.value[part] for part in row]


class _OperatorHost:
    """The operators of one worker, or of this process, where `parent` is None."""

    def __init__(self, parent: Any) -> None:
        self._operators: dict[int, Any] = {}
        self._here = parent is None

    def add(self, number: int, one: Any) -> None:
        """Keep an operator under its number."""
        self._operators[number] = one

    def do(self, method: str, *arguments: Any) -> list[Any] | _Failure:
        """Call a method of every operator, in their order, up to one that raises."""
        given = _Arguments(*arguments)
        values: list[Any] = []
        for number, one in self._operators.items():
            try:
                call, argument = getattr(one, method), given.of(number)
                values.append(guarded(call, argument, here=self._here))
            except Exception as error:
                error.add_note(f"in {method} of operator {number}")
                if self._here:
                    raise
                return _Failure(number, portable(error), traceback.format_exc())
        return values


class Operators:
    """Operators in the workers of a pool, each with a state that stays there.

    Operator number i lives in worker i modulo their number. Together they are the
    operator T(x) = (T_0(x), T_1(x), ...); its adjoint sums.

    Parameters
    ----------
    operators : sequence of Operator
        Objects with the methods of `Operator` that will be called. They are sent to
        the workers once and go on living there; the objects
        here are not changed, unless the pool has no workers.
    pool : Pool
        Whose workers hold them. Without workers everything is computed here.
    timeout : float, optional
        Seconds a call may take, unless it says otherwise.

    Raises
    ------
    PlanError
        There is no operator, or no such timeout.
    DeclarationError, TypeError
        An argument is of a wrong kind, or an operator cannot be sent.

    Notes
    -----
    Values and sums are equal to those of a loop over the operators bit for bit, where
    BLAS has one thread, too. What an operator raises is raised here, with its number as
    a note and the traceback of the worker as its cause; the operators can be used
    further. They cannot when a worker process has died or was ended by a timeout: the
    call at work and all later ones raise :class:`WorkerDied`.

    Examples
    --------
    >>> import numpy as np
    >>> import resumable as rs
    >>> class Scale:
    ...     linear = True
    ...     def __init__(self, factor):
    ...         self.factor = factor
    ...     def evaluate(self, x):
    ...         return self.factor * x
    ...     adjoint = derivative = linearize = evaluate
    >>> with rs.Pool(2) as pool:
    ...     T = rs.Operators([Scale(2.0), Scale(3.0), Scale(5.0)], pool)
    ...     y = T.evaluate(np.ones(2))
    ...     z = T.adjoint(y)
    >>> y, z
    ([array([2., 2.]), array([3., 3.]), array([5., 5.])], array([38., 38.]))
    """

    def __init__(
        self, operators: Sequence[Any], pool: Pool, *, timeout: float | None = None
    ) -> None:
        what = f"a list of objects with methods {', '.join(_METHODS)}"
        given: Any = operators
        if not isinstance(given, Sequence) or not all(
            any(callable(getattr(one, method, None)) for method in _METHODS)
            for one in given
        ):
            raise wrong(DeclarationError, "operators", operators, what)
        if not given:
            msg = f"operators is empty; give at least one: {what}"
            raise PlanError(msg)
        if not isinstance(pool, WorkerProcesses):
            raise wrong(DeclarationError, "pool", pool, "a Pool")
        if timeout is not None and not (is_number(timeout) and timeout > 0):
            raise wrong(PlanError, "timeout", timeout, "a positive time in s")
        self._count = len(operators)
        self._pool = pool
        self._timeout = timeout
        self._linear = all(getattr(one, "linear", False) for one in operators)
        self._linearized = False
        self._lacking = {
            method: [
                f"{number} ({type(one).__name__})"
                for number, one in enumerate(operators)
                if not callable(getattr(one, method, None))
            ]
            for method in _METHODS
        }
        self._key = new_key()
        self._workers = range(min(pool.workers, self._count))
        self._host = None if self._workers else _OperatorHost(None)
        self._tokens = [pool.process_token(worker) for worker in self._workers]
        weakref.finalize(self, pool.drop, self._key).atexit = False
        self._send(operators)

    def __len__(self) -> int:
        return self._count

    def _send(self, operators: Sequence[Any]) -> None:
        if self._host is not None:
            for number, one in enumerate(operators):
                self._host.add(number, one)
            return
        pool = self._pool
        calls = pool.start_calls(
            self._workers, ("create", self._key, _OperatorHost, ()), "to start"
        )
        for number, one in enumerate(operators):
            worker = number % len(self._workers)
            # One at a time: several copies of a large one exist while it is sent.
            self._finish([calls[worker]], None)
            message = ("call", self._key, "add", (number, one))
            (calls[worker],) = pool.start_calls(
                [worker], message, f"for operator {number}"
            )
        self._finish(calls, None)
        pool.free_memory()

    @property
    def evaluate(self) -> _Forward:
        """The values of all operators: ``evaluate(x)`` returns a list.

        ``evaluate(x)`` gives `x` to all, and ``evaluate.each(xs)`` one to each.
        ``evaluate(parts, select=M)`` gives operator i a list of those parts j for
        which ``M[i, j]`` is true. Makes a linearisation stale.
        """
        return _Forward(self, "evaluate")

    @property
    def linearize(self) -> _Forward:
        """Like :attr:`evaluate`; the operators keep their linearisation."""
        return _Forward(self, "linearize")

    @property
    def derivative(self) -> _Forward:
        """The derivatives where they were linearised, applied as in :attr:`evaluate`.

        Raises :class:`StaleLinearization` where `linearize` was not the last of the
        two that was called, or has failed.
        """
        return _Forward(self, "derivative")

    @property
    def adjoint(self) -> _Adjoint:
        """The adjoint of the derivative: ``adjoint(ys)`` with one `y` per operator.

        ``adjoint(ys)`` returns the sum over the operators, in their order. With
        ``select=M`` it returns a list of parts: part j is the sum of what the
        operators i with ``M[i, j]`` return for it, 0.0 where there is none; operator i
        must return a list, as long as the one it gets. ``adjoint.each(ys)``
        returns the list of what the operators return.
        """
        return _Adjoint(self, "adjoint")

    def _call(
        self, method: str, arguments: _Arguments, timeout: float | None
    ) -> list[Any]:
        """Call a method of every operator with the same message."""
        self._prepare(method)
        if self._host is not None:
            # Read-only, as a worker would get them.
            value = arguments.value
            value = (
                [*map(_frozen, value)] if isinstance(value, list) else _frozen(value)
            )
            values = self._host.do(method, value, arguments.rows)
            return self._done(method, [values])
        calls = self._ask(self._workers, method, arguments)
        self._finish(calls, timeout)
        return self._done(method, [call.result() for call in calls])

    def _call_each(
        self, method: str, values: Sequence[Any], timeout: float | None
    ) -> list[Any]:
        """Call a method of every operator with an argument of its own."""
        if len(values) != self._count:
            msg = (
                f"{method} needs one argument for each of {self._count} operators, and "
                f"got {len(values)}"
            )
            raise ValueError(msg)
        numbers = range(self._count)
        if self._host is not None:
            own = _Arguments(list(values), {i: i for i in numbers})
            return self._call(method, own, timeout)
        self._prepare(method)
        calls = []
        for worker in self._workers:
            theirs = numbers[worker :: len(self._workers)]
            rows = {number: place for place, number in enumerate(theirs)}
            arguments = _Arguments([values[number] for number in theirs], rows)
            calls += self._ask([worker], method, arguments)
        self._finish(calls, timeout)
        return self._done(method, [call.result() for call in calls])

    def _prepare(self, method: str) -> None:
        """Check that a method can be called: WorkerDied where a state is lost."""
        if self._lacking[method]:
            numbers = ", ".join(self._lacking[method][:5])
            msg = f"these operators have no method {method!r}: {numbers}"
            raise TypeError(msg)
        if self._host is None:
            self._pool.wait(0)
        for worker, token in zip(self._workers, self._tokens, strict=True):
            if not self._pool.still_has(worker, token):
                lost = range(worker, self._count, len(self._workers))
                some = ", ".join(map(str, lost[:5])) + ", ..." * (len(lost) > 5)
                msg = (
                    f"the worker process of operators {some} has ended, and "
                    "with it their state; make new Operators"
                )
                raise WorkerDied(msg)
        if self._linear:
            return
        if method in ("evaluate", "linearize"):
            self._linearized = False
        elif not self._linearized:
            msg = (
                f"{method} needs a linearisation, and linearize was not called, or not "
                "since the last evaluate; call it where the derivative is wanted"
            )
            raise StaleLinearization(msg)

    def _ask(
        self, workers: Sequence[int], method: str, arguments: _Arguments
    ) -> list[Call]:
        return self._pool.start_calls(
            workers,
            ("call", self._key, "do", (method, *arguments)),
            f"in {method}",
            arguments="views",
            results="own",
        )

    def _finish(self, calls: Sequence[Call], timeout: float | None) -> None:
        timeout = self._timeout if timeout is None else timeout
        try:
            self._pool.wait_for(calls, timeout)
        except TimeoutError:
            # Their calls cannot be ended otherwise, and their state is unknown.
            for worker, call in zip(self._workers, calls, strict=False):
                if not call.done:
                    self._pool.kill(worker)
            self._pool.wait_for(calls)
            raise

    def _done(self, method: str, answers: list[list[Any] | _Failure]) -> list[Any]:
        """Return the answers in the order of the operators; raise the first failure."""
        failures = [answer for answer in answers if isinstance(answer, _Failure)]
        if failures:
            first = min(failures, key=lambda failure: failure.number)
            raise first.error from RemoteTraceback(first.text)
        values: list[Any] = [None] * self._count
        for worker, answer in enumerate(answers):
            values[worker :: len(answers)] = answer
        if method == "linearize":
            self._linearized = True
        return values


class _Method:
    """A method of :class:`Operators` that can be called in several ways."""

    def __init__(self, operators: Operators, method: str) -> None:
        self._operators = operators
        self._method = method

    def each(self, values: Sequence[Any], *, timeout: float | None = None) -> list[Any]:
        """Call each with an argument of its own."""
        return self._operators._call_each(self._method, values, timeout)


class _Forward(_Method):
    """A method that gives all operators the same argument, or parts of it."""

    def __call__(
        self, x: Any, *, select: Any = None, timeout: float | None = None
    ) -> list[Any]:
        """Call all with the same argument, or with parts of it."""
        arguments = _Arguments(x)
        if select is not None:
            rows = _rows(select, len(self._operators), len(x))
            arguments = _Arguments(list(x), dict(enumerate(rows)))
        return self._operators._call(self._method, arguments, timeout)


class _Adjoint(_Method):
    """The adjoint, which gives each operator its own argument and sums."""

    def __call__(
        self, ys: Sequence[Any], *, select: Any = None, timeout: float | None = None
    ) -> Any:
        """Call each with an argument of its own, and sum."""
        if select is None:
            return functools.reduce(operator.add, self.each(ys, timeout=timeout))
        rows = _rows(select, len(self._operators), None)
        returned = self.each(ys, timeout=timeout)
        parts: list[list[Any]] = [[] for _ in range(np.shape(select)[1])]
        for number, (row, values) in enumerate(zip(rows, returned, strict=True)):
            if len(values) != len(row):
                msg = (
                    f"adjoint of operator {number} returned {len(values)} parts, and "
                    f"select gives it {len(row)}"
                )
                raise ValueError(msg)
            for part, value in zip(row, values, strict=True):
                parts[part].append(value)
        return [functools.reduce(operator.add, part) if part else 0.0 for part in parts]


def _rows(select: Any, operators: int, parts: int | None) -> list[list[int]]:
    """Return the numbers of the parts that each operator gets."""
    matrix = np.asarray(select)
    fits = matrix.ndim == 2 and matrix.shape[0] == operators
    if parts is not None:
        fits = fits and matrix.shape[1] == parts
    if not fits or matrix.dtype != bool:
        wanted = f"({operators}, {'parts' if parts is None else parts})"
        msg = (
            f"select must be a matrix of bool of shape {wanted}, one row per operator "
            f"and one column per part, not {matrix.dtype} of shape {matrix.shape}"
        )
        raise ValueError(msg)
    return [np.flatnonzero(row).tolist() for row in matrix]


def _frozen(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    view = value.view()
    view.flags.writeable = False
    return view
