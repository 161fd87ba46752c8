"""A pool: worker processes that call any function before its results are taken."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from resumable.errors import PlanError, wrong
from resumable.model import check_called, check_flag, check_whole
from resumable.pool.stream import RepeatedFunction, start_stream
from resumable.worker import WorkerProcesses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Pool(WorkerProcesses):
    """Worker processes that are kept, for calls of any function.

    The local engine computes with a pool of its own, of this class. Use it for what
    is not a computation per position: reading ahead, random batches, models that keep
    a state (:class:`Operators`).

    Parameters
    ----------
    workers : int, optional
        How many; by default as many as cores can be used. With 0 everything is
        computed in this process, one after the other, to find errors.
    start_method : {"forkserver", "spawn"}, optional
        How they are started: forked from a clean process that has only imported this
        library, or as new interpreters, which takes longer. By default the first, and
        the second on macOS, whose libraries do not work in forked processes.

    Raises
    ------
    PlanError
        There is no such number of workers, or no such start method.

    Notes
    -----
    A context manager: leaving it ends the workers. They also end with the pool object
    and with this process, however it ends, and leave no file and no memory behind.
    They use one BLAS thread each, ignore Ctrl-C, and send their log records to the
    loggers here.

    Functions travel by cloudpickle: a script needs no guard, and what is typed into a
    notebook works. They must not change their arguments where these are said to be
    read-only. A pool serves one thread at a time.

    Examples
    --------
    >>> import resumable as rs
    >>> with rs.Pool(2) as pool:
    ...     list(pool.imap(abs, [3, -4, 5]))
    [3, 4, 5]
    """

    def prefetch(
        self,
        function: Callable[..., Any],
        times: int | None = None,
        args: Sequence[Any] = (),
        seed: int | None = None,
    ) -> Iterator[Any]:
        """Call the same function again and again, before the results are taken.

        Work begins at once. Every worker has one call at work and one waiting.

        Parameters
        ----------
        function : callable
            Called as ``function(*args)``. If it has a parameter `rng`, it gets a
            ``numpy.random.Generator`` there, another one in every call.
        times : int, optional
            How many calls; by default without end.
        args : sequence
            Sent to every worker once. The function must not change them.
        seed : int, optional
            Of the generators: that of call number k is made from
            ``SeedSequence(seed, spawn_key=(k,))``, so that the results do not depend
            on the number of workers. By default they differ from run to run.

        Returns
        -------
        iterator
            Gives the results in the order of the calls; the calls go to the workers in
            turn. One that raised raises here, in its place, with the traceback of the
            worker as its cause, and the next ones follow. A call whose worker process
            died raises :class:`WorkerDied`; another process takes its place.

        Examples
        --------
        >>> import resumable as rs
        >>> def batch(size, rng):
        ...     return rng.integers(0, 10, size)
        >>> with rs.Pool(0) as pool:
        ...     for numbers in pool.prefetch(batch, times=2, args=(5,), seed=0):
        ...         print(numbers)
        [8 9 0 3 7]
        [6 6 3 2 0]
        """
        self._check_open()
        check_called(PlanError, "function", function)
        if times is not None:
            check_whole(PlanError, "times", times)
        if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
            raise wrong(PlanError, "args", args, "a list or a tuple of arguments")
        if seed is not None:
            check_whole(PlanError, "seed", seed)
        numbers = itertools.count() if times is None else iter(range(times))
        repeated = RepeatedFunction(function, args, seed)
        return start_stream(self, repeated.do, numbers, in_turn=True, results="own")

    def imap(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        ordered: bool = True,
        copy: bool = True,
        look_ahead: int | None = None,
    ) -> Iterator[Any]:
        """Call a function for every item, before the results are taken.

        Work begins at once.

        Parameters
        ----------
        function : callable
            Called as ``function(item)``; sent to every worker once.
        items : iterable
            Taken as results are taken, `look_ahead` of them in advance.
        ordered : bool
            Results come in the order of the items, or else as they are ready.
        copy : bool
            Arrays in items and results are copied out of the shared memory. Else
            they are read-only views of it, in the function and here: valid until the
            next step. Nothing is written there while one is kept, but it costs memory.
        look_ahead : int, optional
            So many items at most are taken whose results have not been; by default
            two per worker.

        Returns
        -------
        iterator
            Gives the results. One that raised raises here, in its place, with the
            traceback of the worker as its cause, and the next ones follow. An item
            whose worker process died raises :class:`WorkerDied`; another process takes
            its place.

        Raises
        ------
        PlanError
            An argument is of a wrong kind, or `look_ahead` less than 1.
        """
        self._check_open()
        check_called(PlanError, "function", function)
        if not isinstance(items, Iterable):
            raise wrong(PlanError, "items", items, "an iterable")
        check_flag(PlanError, "ordered", ordered)
        check_flag(PlanError, "copy", copy)
        if look_ahead is not None:
            check_whole(PlanError, "look_ahead", look_ahead, 1)
        return start_stream(
            self,
            function,
            iter(items),
            ordered=ordered,
            look_ahead=look_ahead,
            arguments="copies" if copy else "views",
            results="copies" if copy else "views",
        )
