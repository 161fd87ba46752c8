"""The class users subclass, and ``map`` for those with only a function."""

from __future__ import annotations

import dataclasses
import inspect
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import param

from resumable import identity, world
from resumable.classes import file_of
from resumable.cursor import Cursor, new_pulse
from resumable.errors import (
    DeclarationError,
    ParameterError,
    PlanError,
    ResumableWarning,
    RunFileError,
    SourceError,
    TargetError,
    near_miss,
)
from resumable.live import glance
from resumable.output import Output, declared
from resumable.plan import Plan
from resumable.positions import PositionSet, flat_positions
from resumable.reader import open_reader
from resumable.recipe import Options
from resumable.results import ResultArray, Results
from resumable.sharing import assign
from resumable.source import SourceRef, refer
from resumable.stop import StopRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from resumable.events import Event, Listener
    from resumable.explain import Explanation
    from resumable.plan import Geometry
    from resumable.recipe import Recipe
    from resumable.running import Run
    from resumable.trial import Trial
    from resumable.verdict import Verification

    Array = np.ndarray[Any, np.dtype[Any]]

_TARGET_VARIABLE = "RESUMABLE_TARGET"
_ARGUMENTS = ("source", "target", "inputs", "position_axes", "fingerprint")


class Process(param.Parameterized):
    """A computation per position, resumable and known by what it computes.

    Subclass it, declare `outputs`, and write one of two methods:

    ``unit_computation(self, spectrum, **inputs)``
        Computes one position. `spectrum` is an array of :attr:`spectrum_shape`
        (the index where the source is a number of positions). Returns one value,
        or a dict of them by output name.
    ``block_computation(self, spectra, **inputs)``
        Computes many positions at once: everything has one axis more, the
        positions, in front.

    Parameters that change results are declared as class attributes with `param
    <https://param.holoviz.org>`_.

    Parameters
    ----------
    source : str, h5py.Dataset, output of Results, or int
        ``"file.h5::/dataset"``; a dataset of a file open for reading; an output of
        finished results; or a number of positions without data. Left out for a later
        stage of a :class:`Chain`.
    target : str or Path, optional
        Folder for run files. Default: the environment variable
        ``RESUMABLE_TARGET``, else the folder of the source.
    inputs : dict, optional
        Argument name -> further source aligned position by position
        (``"::/dataset"`` is the same file), or a pair of it and its position axes.
    position_axes : int or tuple of int, default 0
        Axes of the source that count positions; results have their shape.
    fingerprint : {"sample", "full"}
        Digest up to 64 MB of the source to tell a changed one, or all of it.
    **parameters
        Values of the declared parameters.

    Attributes
    ----------
    version : int or str or None
        Raise it when the algorithm changes. None (default): the source text of the
        class is part of the identity instead.
    scratch : int or method of the number of positions
        Bytes of working memory of the computation per position, for the budget.
    rtol : float
        How much rows of a block computation may differ when they are computed again,
        of the largest number in the row. Default 1e-5, a hundred roundings of
        float32: sums of another batch are added in another order. Where all is done
        in float64, 1e-12 notices more. Only :meth:`verify` uses it, and it is not
        part of the identity.

    Raises
    ------
    SourceError
        The source or an input is missing or cannot be used.
    TargetError
        The target folder does not exist.
    ParameterError
        A parameter is unknown, or its value out of bounds.
    DeclarationError
        The class lacks or has wrong outputs or methods.

    Notes
    -----
    Construction opens the source to check it and reads none of its data.
    """

    seed = param.Integer(
        0, bounds=(0, None), doc="seed of self.rng; every position has its own stream"
    )

    version: ClassVar[int | str | None] = None
    outputs: Any = None
    scratch: Any = 0
    rtol: ClassVar[float] = 1e-5
    _cursor = Cursor(new_pulse())

    #: File the class was read from and when that was written, to notice an edit.
    _read_from: ClassVar[tuple[str, int] | None] = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._read_from = file_of(cls)
        # A rank that fails from here on must not leave the others waiting in compute.
        world.watch(world.told_ranks())
        for name, value in vars(cls).items():
            taken = name in _ARGUMENTS or (hasattr(Process, name) and name != "seed")
            if isinstance(value, param.Parameter) and taken:
                msg = f"{cls.__name__}: the parameter name {name!r} is taken by Process"
                raise DeclarationError(msg)

    def __init__(
        self,
        source: Any = None,
        target: str | Path | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        position_axes: int | tuple[int, ...] = 0,
        fingerprint: str = "sample",
        **parameters: Any,
    ) -> None:
        # Again: where only MPI knows how many ranks there are, and for classes that
        # were there before each rank computed for itself.
        world.watch()
        self._set_parameters(parameters)
        if fingerprint not in ("sample", "full"):
            msg = f"fingerprint must be 'sample' or 'full', not {fingerprint!r}"
            raise ParameterError(msg)
        self._full = fingerprint == "full"
        if source is None:
            if target is not None or inputs or position_axes != 0:
                msg = (
                    f"{type(self).__name__} is given no source, and yet target, inputs "
                    "or position_axes; only a later stage of a Chain has no source"
                )
                raise SourceError(msg)
            # A later stage of a chain, which brings the rest.
            return
        # Without a lock, so that a measurement that is under way is not disturbed.
        self._source = refer(source, position_axes, live=True)
        self._geometry, self._dtype = _look(self._source)
        self._inputs = {
            name: self._aligned(name, value) for name, value in (inputs or {}).items()
        }
        self._folder = _target_folder(target, self._source)
        self._seconds_per_position: float | None = None
        self._check_methods()
        self._outputs()
        self._parameter_document()

    def _set_parameters(self, parameters: dict[str, Any]) -> None:
        known = [name for name in type(self).param if name != "name"]
        for name in parameters:
            if name not in known:
                hint = near_miss(name, [*known, *_ARGUMENTS])
                msg = (
                    f"{type(self).__name__} has no parameter {name!r}{hint} "
                    f"(there are {', '.join(known)})"
                )
                raise ParameterError(msg)
        try:
            super().__init__(**parameters)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError) as error:
            msg = f"{type(self).__name__}: {error}"
            raise ParameterError(msg) from error

    def __setattr__(self, name: str, value: Any) -> None:
        if (
            name[0] != "_"
            and name not in self.__dict__
            and not hasattr(type(self), name)
        ):
            hint = near_miss(name, [n for n in type(self).param if n != "name"])
            if hint:
                warnings.warn(
                    f"{type(self).__name__} has no parameter {name!r}{hint} A plain "
                    "attribute was set, which changes no identity",
                    ResumableWarning,
                    stacklevel=2,
                )
        if name != "name" and name in type(self).param:
            assign(self, name, value)
        else:
            super().__setattr__(name, value)

    def _aligned(self, name: str, value: Any) -> SourceRef:
        """Refer to an input and check that it has the source's positions."""
        axes = self._source.position_axes
        leading = tuple(range(len(axes)))
        if isinstance(value, tuple) and len(value) == 2:
            value, only = value
            candidates = [only]
        elif isinstance(value, ResultArray):
            candidates = [leading, axes]
        else:
            candidates = [axes, leading]
        shapes = []
        for candidate in candidates:
            try:
                ref = refer(value, candidate, same_file=self._source.path, live=True)
            except SourceError:
                if candidate == candidates[-1]:
                    raise
                continue
            map_shape = _look(ref)[0].map_shape
            if map_shape == self._geometry.map_shape:
                return ref
            shapes.append(map_shape)
        msg = (
            f"the input {name!r} has positions of shape {shapes[0]}, the source of "
            f"shape {self._geometry.map_shape}; they must agree (give (source, axes) "
            "when its positions are on other axes)"
        )
        raise SourceError(msg)

    def _method(self) -> str:
        """Return which of the two methods there is.

        Raises
        ------
        DeclarationError
            Both, or neither.
        """
        name = type(self).__name__
        methods = [
            method
            for method in ("unit_computation", "block_computation")
            if hasattr(self, method)
        ]
        if len(methods) != 1:
            found = "both" if methods else "neither"
            msg = (
                f"{name} must have unit_computation (one position) or "
                f"block_computation (many at once), and has {found}"
            )
            raise DeclarationError(msg)
        return methods[0]

    def _check_methods(self) -> None:
        chosen = self._method()
        try:
            signature = inspect.signature(getattr(self, chosen))
        except ValueError:
            return  # built in, and silent about what it takes
        method = f"{type(self).__name__}.{chosen}"
        arguments = list(signature.parameters.values())[1:]
        try:
            signature.bind(None, **dict.fromkeys(self._inputs))
        except TypeError as error:
            missing = [
                argument.name
                for argument in arguments
                if argument.default is argument.empty
                and argument.kind
                in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
                and argument.name not in self._inputs
            ]
            wanted = ", ".join(["self", "spectrum", *self._inputs])
            msg = f"{method} must take ({wanted}): {error}"
            if missing:
                hint = near_miss(missing[0], self._inputs)
                msg = (
                    f"{method} asks for {missing[0]!r}, which is not among the inputs"
                    f"{hint}; give inputs={{{missing[0]!r}: source}}"
                )
            raise DeclarationError(msg) from error

    def _outputs(self) -> dict[str, Output]:
        where = f"{type(self).__name__}.outputs"
        value = self.outputs() if callable(self.outputs) else self.outputs
        if value is None:
            msg = (
                f"{type(self).__name__} declares no outputs; add "
                "outputs = {name: Output(...)}"
            )
            raise DeclarationError(msg)
        return declared(value, where)

    # What a user may override.

    def ready(self, positions: Array) -> Any:
        """Say which positions of a source that is being written may be read yet.

        Override it for a dataset that has its full size from the beginning and is
        filled in; where a dataset grows, a position may be read once it is there.

        Parameters
        ----------
        positions : ndarray of int64
            Flat positions, ascending; only such that were not ready before.

        Returns
        -------
        bool or ndarray of bool
            For all of them, or for each.

        Notes
        -----
        It is asked by the process that called :meth:`compute`, never by a worker, again
        and again while that waits. What it opens it must open without a lock and close
        again, for example ``h5py.File(path, "r", locking=False)``.
        """
        return True

    @property
    def _asks_ready(self) -> bool:
        return type(self).ready is not Process.ready

    def setup(self) -> None:
        """Prepare a worker: tables, plans, models. Called once in each of them."""

    def finish(self, results: Results) -> Any:
        """Summarise a complete run; called once, after the last position.

        Parameters
        ----------
        results : Results
            All positions, done or failed.

        Returns
        -------
        dict or value
            Values of the outputs declared with ``per="run"``, if there are any.
        """

    def draw(
        self, axes: Any, position: Any, spectrum: Array, outputs: dict[str, Any]
    ) -> None:
        """Draw one tested position; override it to draw what matters to you.

        Parameters
        ----------
        axes : tuple of two matplotlib.axes.Axes
            For the data and for the result.
        position : int or tuple
            Which position.
        spectrum : ndarray
            Its data.
        outputs : dict
            Its outputs by name.
        """
        from resumable.trial import draw_default

        draw_default(axes, position, spectrum, outputs)

    # What a user asks.

    @property
    def spectrum_shape(self) -> tuple[int, ...]:
        """Shape of the data at one position."""
        return self._geometry.spectrum_shape

    @property
    def spectrum_dtype(self) -> np.dtype[Any]:
        """Dtype of the data."""
        return self._dtype

    @property
    def map_shape(self) -> tuple[int, ...]:
        """Lengths of the position axes; outputs have it in front of their own."""
        return self._geometry.map_shape

    @property
    def position(self) -> Any:
        """Where the computation is: an int, or a tuple on a map.

        In a block computation an array of them, or a tuple of arrays.
        """
        flat = self._cursor.flat
        if len(self.map_shape) == 1:
            return flat
        index = np.unravel_index(flat, self.map_shape)
        return tuple(map(int, index)) if np.ndim(flat) == 0 else index

    @property
    def rng(self) -> np.random.Generator:
        """Random generator of this position, the same in every run of it.

        PCG64 seeded by ``SeedSequence(seed, spawn_key=(position,))`` [1]_, so that
        the numbers do not depend on batches, workers or interruptions.

        References
        ----------
        .. [1] numpy documentation, "Parallel random number generation".
        """
        return self._cursor.generator(self.seed)

    @property
    def identity(self) -> str:
        """sha256 of what makes a run of this computation this run.

        Reads up to 64 MB of the source.
        """
        return self._recipe().shelf.identity

    @property
    def duplicates(self) -> list[Results]:
        """Complete runs of exactly this computation, the oldest first."""
        recipe = self._recipe()
        return [
            Results(run.path)
            for run in recipe.runs()
            if run.finished and recipe.full_length(run)
        ]

    @property
    def partials(self) -> list[Results]:
        """Unfinished runs of exactly this computation, the oldest first."""
        recipe = self._recipe()
        return [
            Results(run.path)
            for run in recipe.runs()
            if not (run.finished and recipe.full_length(run))
        ]

    @property
    def results(self) -> Results | None:
        """Results that are there, finished or not, else None; computes nothing."""
        from resumable.decision import existing

        run = existing(self._recipe())
        return Results(run.path) if run else None

    def explain(self) -> Explanation:
        """Say which runs exist and why each does or does not match; print it.

        Returns
        -------
        Explanation
            One entry per run of this process on this dataset, with the first
            differences in words. Nothing is written.
        """
        from resumable.explain import explain

        return explain(self._recipe())

    def plan(self, positions: Any = None, **options: Any) -> Plan:
        """Say what :meth:`compute` would do with the same arguments; print it.

        Returns
        -------
        Plan
            Nothing is written.

        Raises
        ------
        PlanError
            Positions that do not exist, a memory budget that is too small.
        """
        recipe = self._recipe()
        from resumable.decision import make_plan

        return make_plan(recipe, self._options(positions, options))[0]

    def test(self, position: Any = 0) -> Trial:
        """Compute one or a few positions and say what all of them would take.

        Parameters
        ----------
        position : int, tuple, slice, list, or mask
            An index, a tuple on a map, several of them, or a boolean mask.

        Returns
        -------
        Trial
            Outputs (of several positions in ascending order), the time per
            position, the plan for the whole, and a picture.

        Raises
        ------
        PlanError
            The position does not exist.
        OutputError
            The outputs are not what was declared.
        Exception
            What the computation raises.

        Notes
        -----
        Writes nothing. Runs in this process, so a debugger works.
        """
        from resumable.trial import try_positions

        recipe = self._recipe()
        flat = flat_positions(position, self.map_shape)
        single = isinstance(position, (int, np.integer, tuple))
        trial = try_positions(recipe, flat, single=single)
        self._seconds_per_position = trial.seconds_per_position
        return trial

    def compute(
        self,
        *,
        engine: Any = "auto",
        workers: int | None = None,
        memory: float | str | None = None,
        positions: Any = None,
        override: bool = False,
        on_error: str = "record",
        retry_failed: bool = False,
        position_timeout: float | str | None = None,
        time_limit: float | str | None = None,
        checkpoint: float = 10,
        writer: str = "auto",
        wait: float | str | None = None,
        rechunk: bool = False,
        progress: bool | None = None,
        listener: Listener | None = None,
    ) -> Results:
        """Compute all positions, or go on, or return what is there.

        Parameters
        ----------
        engine : {"auto", "serial", "local", "mpi", "dask"}, Executor, Client or Engine
            ``"local"``: worker processes. ``"mpi"``: the ranks that ``mpiexec`` has
            started; all of them must call compute. ``"auto"``: ``"mpi"`` where there
            is more than one rank, else worker processes when they pay, else
            ``"serial"``, this process alone. ``"dask"``: the workers of the client
            of dask that this process has. Or the client itself, or any
            ``concurrent.futures.Executor``, which stay open.
        workers : int, optional
            How many; default the cores this process may use, or all workers of an
            executor or a client. Under MPI the number of ranks counts.
        memory : int or str, optional
            Bytes, or ``"2 GB"``, for all processes of a host together; default half of
            what is available (in the cgroup, where there is one).
        positions : slice, mask, index or indices, optional
            Compute only these now. The others can follow into the same results.
        override : bool
            Compute anew, into another file. An unfinished run that was made this
            way is gone on with.
        on_error : {"record", "raise"}
            Record a failing position and go on, or stop and raise.
        retry_failed : bool
            Compute just the positions that failed.
        position_timeout : float or str, optional
            Seconds, or ``"2m"``, that one position may take. Its worker is ended and
            replaced then, and the position recorded as failed. A block computation
            is given the time of all its positions. Needs worker processes.
        time_limit : float or str, optional
            Seconds, or ``"3h50m"``, after which it stops cleanly.
        checkpoint : float
            Seconds after which finished positions are durable; what a kill loses.
        writer : {"auto", "workers", "driver"}
            Who writes the rows: every worker its own, or this process all of them.
            ``"auto"``: the driver where a network file system would have several
            hosts write to one file, and for workers that cannot see it.
        wait : float or str, optional
            Follow a source that is being written: compute what is there, wait for more,
            and give up after so many seconds, or ``"2m"``, without a new position. It
            ends at once when all requested positions are done, when the dataset cannot
            grow any further, or when the program that wrote has closed the file.
        rechunk : bool
            First copy a source stored across positions (an energy-first stack) into
            position order, in the target folder; the copy is deleted when the run
            is complete.
        progress : bool, optional
            Show a bar; default on a terminal and in notebooks.
        listener : callable, optional
            Called with every event: :class:`~resumable.events.Started`,
            :class:`~resumable.events.BatchDone`,
            :class:`~resumable.events.PositionFailed`,
            :class:`~resumable.events.Finished`. What it raises stops the run.

        Returns
        -------
        Results
            When every requested position is done or failed; failures give one
            warning.

        Raises
        ------
        NotFinished
            Stopped by Ctrl-C, SIGTERM, SIGUSR1 or the time limit: a SystemExit
            with code 75 (in a notebook Ctrl-C raises KeyboardInterrupt). Or requested
            positions were not :meth:`ready` in the time of `wait`.
        SourceError
            With `wait`: in its time the source could not be read, or the program that
            writes it has neither written nor closed it.
        UnitFailed
            ``on_error="raise"``, or the computation fails everywhere.
        OutputError
            The first outputs are not what was declared.
        RunBusy
            Another process computes this run.
        PlanError, TargetError, RunFileError, WorkerDied
            See there.

        Notes
        -----
        Writes one run file into the target folder, and two small lock files for
        the time of the run. Never changes the source.
        """
        options = {
            "engine": engine,
            "workers": workers,
            "memory": memory,
            "override": override,
            "on_error": on_error,
            "retry_failed": retry_failed,
            "position_timeout": position_timeout,
            "time_limit": time_limit,
            "checkpoint": checkpoint,
            "writer": writer,
            "wait": wait,
            "rechunk": rechunk,
            "progress": progress,
        }

        self._check_source()
        # Most of this library, which a notebook that only looks does without.
        from resumable import engines
        from resumable.resolve import request

        def computed() -> Results:
            stop = StopRequest(time_limit)
            return self._drive(positions, options, stop)(listener or _ignore)

        together = engines.collective(engine)
        if together is None:
            return computed()
        options["engine"] = together
        return together.together(
            self,
            lambda: request(self, self._options(positions, options)),
            computed,
            time_limit,
        )

    def start(
        self,
        *,
        positions: Any = None,
        listener: Listener | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Run:
        """Compute in the background, as :meth:`compute` does.

        Parameters
        ----------
        positions, listener, progress, **options
            As those of :meth:`compute`; no progress bar by default.

        Returns
        -------
        Run
            To ask how far it is, pause, cancel and wait, and to iterate over the
            batches as they are done.

        Raises
        ------
        ResumableError
            What is wrong with the options or the source; everything later is raised
            by ``Run.wait``.

        Notes
        -----
        It runs in a thread of this process. Signals are not caught: Ctrl-C is raised
        where it strikes, and the run goes on.
        """
        from resumable.running import Run, check_alone

        check_alone(options.get("engine", "auto"))
        self._check_source()
        stop = StopRequest(options.get("time_limit"))
        drive = self._drive(positions, {**options, "progress": progress}, stop)
        return Run(drive, stop, listener)

    def _drive(
        self, positions: Any, options: dict[str, Any], stop: StopRequest
    ) -> Callable[[Listener], Results]:
        """Check the options; return what computes with a listener."""
        if options.get("wait") is None and not self._asks_ready:
            from resumable import driver

            wanted, recipe = self._options(positions, options), self._recipe()
            return lambda hear: driver.compute(recipe, wanted, stop, hear)
        from resumable.following import follow

        wanted = self._options(None, options)
        return lambda hear: follow(self, wanted, positions, stop, hear)

    def verify(
        self, sample: int = 20, everything: bool = False, *, seed: int | None = None
    ) -> Verification:
        """Check the run that is there, and compute some of its rows again.

        Parameters
        ----------
        sample : int
            How many positions, chosen at random.
        everything : bool
            All of them.
        seed : int, optional
            Chooses the sample; default another one each time.

        Returns
        -------
        Verification
            Print it; :func:`resumable.verify` says what is in it.

        Raises
        ------
        RunFileError
            There is no run of this computation, or its file is damaged.
        """
        from resumable.verification import verify_run

        results = self.results
        if results is None:
            msg = f"there is no run of this in {self._folder} to verify; compute it"
            raise RunFileError(msg)
        return verify_run(
            results.path,
            lambda _: self,
            sample=sample,
            everything=everything,
            seed=seed,
        )

    def state(self) -> dict[str, Any]:
        """Write down what this is: class, parameters, source, axes, inputs, target.

        Returns
        -------
        dict
            Plain values, for :mod:`json`; :func:`resumable.load` makes the Process of
            it again, which finds its own run. Names of files are as they were given.

        Raises
        ------
        IdentityError
            A parameter that could not be read back, such as an array that is not the
            default: of these only a digest is written.
        """
        from resumable.state import state_of

        return state_of(self)

    @classmethod
    def from_argv(cls, argv: Sequence[str] | None = None, **keywords: Any) -> Self:
        """Make the Process that a command line asks for.

        Parameters
        ----------
        argv : sequence of str, optional
            Default the arguments of this program. They are those of ``resumable run``
            without the ones that say how to compute: ``SOURCE``, ``--target``,
            ``--input``, ``--axes``, and an option for every parameter.
        **keywords
            Arguments of the constructor, parameters too, where the command line says
            nothing.

        Returns
        -------
        Process

        Raises
        ------
        SystemExit
            With code 0 after ``--help``, 2 after a wrong use that is told.
        ResumableError
            As the constructor raises.
        """
        from resumable.program import process_of_argv

        made: Self = process_of_argv(cls, argv, keywords)
        return made

    def _options(self, positions: Any, options: dict[str, Any]) -> Options:
        known = [field.name for field in dataclasses.fields(Options)]
        for name in options:
            if name not in known:
                msg = f"there is no option {name!r}{near_miss(name, known)}"
                raise PlanError(msg)
        chosen = None
        if positions is not None:
            chosen = PositionSet.chosen(positions, self.map_shape)
        return Options(positions=chosen, **options)

    # How it is resolved.

    def _recipe(self) -> Recipe:
        self._check_source()
        from resumable.resolve import resolve

        return resolve(self)

    def _check_source(self) -> None:
        if "_source" not in self.__dict__:
            msg = (
                f"{type(self).__name__} was made without a source, as a stage of a "
                "Chain; give it one, or compute the chain"
            )
            raise SourceError(msg)

    def _process_name(self) -> str:
        """Return the name by which runs of this are known."""
        return type(self).__name__

    def _source_text(self) -> str:
        """Return the source of the computation, empty when it cannot be found."""
        return identity.source_text(type(self)) or ""

    def _parameter_document(self) -> dict[str, Any]:
        document = {}
        for name in type(self).param:
            if name != "name":
                value = _declared_type(self.param[name], getattr(self, name))
                document[name] = identity.encode(value, f"the parameter {name!r}")
        return document

    def __repr__(self) -> str:
        values = "".join(
            f", {name}={getattr(self, name)!r}"
            for name in type(self).param
            if name not in ("name", "seed")
        )
        source = self.__dict__.get("_source")
        return f"{type(self).__name__}({str(source or 'no source')!r}{values})"


def _declared_type(parameter: Any, value: Any) -> Any:
    """Give a value the type its parameter declares: 1 is 1.0 where it is a float."""
    dates = (param.Date, param.CalendarDate, param.DateRange, param.CalendarDateRange)
    if isinstance(parameter, dates):
        return value  # numbers by their class only
    if isinstance(parameter, param.Number) and not isinstance(parameter, param.Integer):
        return value if value is None else float(value)
    if isinstance(parameter, param.NumericTuple) and value is not None:
        return [float(item) for item in value]
    return value


def _look(ref: SourceRef) -> tuple[Geometry, np.dtype[Any]]:
    """Open a source, which may be written meanwhile, and see what it is like."""

    def look() -> tuple[Geometry, np.dtype[Any]]:
        with open_reader(dataclasses.replace(ref, live=True)) as reader:
            return reader.geometry, reader.dtype

    return glance(ref.path, look)


def _ignore(event: Event) -> None:
    """Listen to nothing."""


def _target_folder(target: str | Path | None, source: SourceRef) -> Path:
    chosen = target if target is not None else os.environ.get(_TARGET_VARIABLE)
    if chosen is None:
        if not source.path:
            msg = (
                "a source without data has no folder; give target= one for the results"
            )
            raise TargetError(msg)
        return Path(source.path).parent
    folder = Path(chosen)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        msg = f"the target folder {folder} {what}; make it first"
        raise TargetError(msg)
    return folder
