"""The class users subclass."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from resumable.engines import collective, warm_up
from resumable.errors import DeclarationError, PlanError, RunFileError
from resumable.model import check_called, names_one, parse_seconds, positions_in_order
from resumable.process.declaration import ARGUMENTS, Declaration
from resumable.process.parameters import check_names, frozen, override_parameters
from resumable.results import Results
from resumable.runfile import RunFile, run_path
from resumable.session import (
    Explanation,
    Options,
    compute,
    explain,
    find,
    least_calls,
    prospect,
    resolve,
)
from resumable.source import open_sources
from resumable.system import StopRequest, begin_work, launcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resumable.model import Plan, PositionSet
    from resumable.session import (
        Computation,
        Listener,
        Request,
        Run,
        Trial,
        VerifyReport,
    )


class Process(Declaration):
    """A computation at every position of a source, which continues after a kill.

    Subclass it, declare `outputs`, and write one of two methods:

    ``unit_computation(self, spectrum, **inputs)``
        Computes one position. `spectrum` is an array of :attr:`spectrum_shape`
        (the index where the source is a number of positions). Returns one value,
        or a dict of them by output name.
    ``block_computation(self, spectra, **inputs)``
        Computes many positions at once: arguments and results have one more axis,
        the positions, in front.

    Parameters that change results are declared as class attributes with `param
    <https://param.holoviz.org>`_.

    Parameters
    ----------
    source : str, h5py.Dataset, output of Results, ndarray, or int
        ``"file.h5::/dataset"``; a dataset of a file open for reading; an output of
        finished results; an array, for tests and small work, of which a copy is taken;
        or a number of positions without data. Left out for a later stage of a
        :class:`Chain`.
    target : str or Path, optional
        Folder of the run files. Default: the environment variable
        ``RESUMABLE_TARGET``, else the folder of the source.
    inputs : dict, optional
        Argument name -> further source with the same positions (``"::/dataset"`` is a
        dataset of the same file), or a pair of a source and its position axes. Default
        those of the source where it has as many axes, else the first ones.
    shared : dict, optional
        Argument name -> what all positions share: a dataset, an array or a number. It
        is read now, whole, and part of the identity by its contents. Methods find it
        in the dict ``self.shared``, too.
    position_axes : int or tuple of int, optional
        Axes of the source that count positions; results have their shape. Default
        those that the class declares, else those of the map where the file names them
        (NXdata, ``interpretation``, an output of a run), with a warning, else 0.
    fingerprint : {"sample", "full"}
        What is digested to notice a change of the source: samples of a source larger
        than 64 MB, or all contents.
    environment : {"record", "strict"}
        Versions of Python, of the distributions that are computed with, of BLAS, and
        the kind of CPU: recorded in the run file for each session, or also a part of
        the identity.
    **parameters
        Values of the declared parameters.

    Attributes
    ----------
    version : int or str or None
        Raise it when the algorithm changes; an edit of the code then only warns. None
        (default): all code of the user that the computation reaches is part of the
        identity, with the constants that it uses.
    aliases : tuple of str
        Names that the class had: runs under these are continued and returned, too.
        Subclasses do not have them.
    added_parameters : dict
        Name of a parameter -> the value that it stands for in runs which are older
        than it, the latest parameter last.
    position_axes : int or tuple of int
        Declared by a class: its default. Of a Process: the axes that are used.
    scratch : int or method of the number of positions
        Bytes that the computation needs per position besides its arguments and
        results, for the budget.
    worker : int
        Number of the worker among those of a host, from 0, in ``setup`` and while
        positions are computed; none elsewhere. Two at work have never the same, and
        one that takes the place of a dead worker has its number.
    rtol : float
        How much rows of a block computation may differ when :meth:`verify` computes
        them again, relative to the largest number in the row. Default 1e-5, a hundred
        roundings of float32, since sums depend on the block size. Give 1e-12 where
        everything is float64. It is not part of the identity.

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
    Construction opens the source to check it and reads none of its data. What is given
    as `shared` is read, or copied, and does not change any more. The class
    statement takes no keywords, since workers make a class again without them.
    """

    def __init_subclass__(cls, **arguments: Any) -> None:
        if arguments:
            msg = (
                f"{cls.__name__}: the class statement of a Process takes no keywords, "
                f"as {', '.join(arguments)}; set attributes in the class instead"
            )
            raise DeclarationError(msg)
        super().__init_subclass__()
        # A rank that fails from here on must not leave the others waiting in compute.
        launcher.end_all_on_error(launcher.ranks(ask_mpi=False))
        if "param" in vars(cls):
            msg = (
                f"{cls.__name__}: the name 'param' is taken by Process, where its "
                "parameters are; import param outside of the class"
            )
            raise DeclarationError(msg)
        override_parameters(cls)
        check_names(cls, Process, ARGUMENTS)

    def compute(self, *, listener: Listener | None = None, **options: Any) -> Results:
        """Compute all positions that are not done, and return the results.

        Parameters
        ----------
        engine : {"auto", "serial", "local", "mpi", "dask"}, Executor, Client or Engine
            ``"serial"``: this process alone. ``"local"``: worker processes. ``"mpi"``:
            the ranks that ``mpiexec`` has started; all of them must call compute.
            ``"auto"``: ``"mpi"`` where there is more than one rank; else this process,
            and worker processes when there is enough work. ``"dask"``: the workers of
            this process's client of dask. A client of dask, or any
            ``concurrent.futures.Executor``, is used and stays open.
        workers : int, optional
            Number of workers; default the cores that this process may use, or all
            workers of an executor or a client. Without effect under MPI.
        memory : int or str, optional
            Bytes, or ``"2 GB"``, for all processes of a host together; default half of
            what is available (in the cgroup, where there is one).
        positions : slice, mask, index or indices, optional
            Compute only these positions: counted in C order, or by a boolean mask, or
            as a part of the map, ``np.s_[1:3, 2:4]`` or ``np.nonzero(mask)``. A later
            call computes others into the same results.
        override : bool
            Compute again, into a new run file. An unfinished run that was made this
            way is continued.
        on_error : {"record", "raise"}, optional
            Record a failing position and continue, or stop and raise. By default
            failures are recorded, but the run stops, and records nothing, where
            nothing has succeeded and 20 positions spread over it, or all where there
            are fewer, fail alike: ``"record"`` records these, too.
        retry_failed : bool
            Compute only the failed positions again.
        position_timeout : float or str, optional
            Seconds, or ``"2m"``, after which a position is recorded as failed; its
            worker is ended and replaced. A block may take this time for each of its
            positions. Needs worker processes.
        time_limit : float or str, optional
            Seconds, or ``"3h50m"``, after which the run stops cleanly.
        checkpoint : float
            Seconds between two syncs; the most that a kill loses.
        writer : {"auto", "workers", "driver"}
            Every worker writes its own rows, or this process (the driver) writes all of
            them. ``"auto"``: the driver where several hosts would write to one file on
            a network file system, and for workers that cannot see the file.
        follow : float or str, optional
            Follow a source that is being written: compute its positions, and wait for
            more until no new position has come for this time, in seconds or ``"2m"``.
            Ends at once when all requested positions are done, when the dataset cannot
            grow any further, or when the writing program has closed the file.
        rechunk : bool
            First copy a source whose chunks have many positions each (an energy-first
            stack) into the target folder, in the order of positions. The copy is
            deleted when the run is complete.
        progress : bool, optional
            Show a progress bar; default on a terminal and in notebooks.
        adopt : bool
            Continue an unfinished run that was made before edits of helper functions
            and constants were noticed. Its rows may be of another edition of these.
        listener : callable, optional
            Called with every event: :class:`~resumable.session.Started`,
            :class:`~resumable.session.BatchDone`,
            :class:`~resumable.session.PositionFailed`,
            :class:`~resumable.session.Finished`. What it raises stops the run.

        Returns
        -------
        Results
            Every requested position is done or failed; failures give one warning.

        Raises
        ------
        NotFinished
            Stopped by Ctrl-C, SIGTERM, SIGUSR1 or the time limit: a SystemExit with
            code 75 (in a notebook Ctrl-C raises KeyboardInterrupt). Or requested
            positions did not come, or were not :meth:`ready`, in the time of `follow`.
        SourceError
            With `follow`: in its time the source could not be read, or the writing
            program has neither written nor closed it.
        UnitFailed
            With ``on_error="raise"`` a position failed; or all that were tried first.
        OutputError
            The same, where what a position returns is not as declared.
        RunBusy
            Another process computes this run.
        PlanError, TargetError, RunFileError, WorkerDied
            As these errors say.

        Notes
        -----
        Writes one run file into the target folder, with files beside it for ragged
        rows; while it runs also two small lock files and, with `rechunk`, a copy of the
        source. Never changes the source, but for mending it after a killed
        :meth:`Results.publish`.
        """
        begin_work(f"compute {type(self).__name__}")
        self._check_source()
        if listener is not None:
            check_called(PlanError, "listener", listener)
        with frozen(self):
            engine = collective(options.get("engine", "auto"))
            if engine is None:
                return self._prepared(options)[0](listener)
            options["engine"] = engine
            return engine.together(
                self,
                lambda: self._asked_of_all(options),
                lambda: self._prepared(options)[0](listener),
                options.get("time_limit"),
            )

    compute.__signature__ = Options.signature(compute)  # type: ignore[attr-defined]

    def _asked_of_all(
        self, options: dict[str, Any]
    ) -> tuple[dict[str, Any], Callable[[], list[str]]]:
        """Return what is asked for as a document, and what says what was changed."""
        asked = self._request()
        return asked.document(Options.of(options, self.map_shape)), asked.changed

    def start(
        self,
        *,
        listener: Listener | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Run:
        """Compute in the background, as :meth:`compute` does.

        Parameters
        ----------
        listener, progress, **options
            As those of :meth:`compute`; no progress bar by default.

        Returns
        -------
        Run
            Gives the status, cancels and waits; iterating gives each batch when it is
            done.

        Raises
        ------
        ResumableError
            An option or the source is wrong. Later errors are raised by ``Run.wait``.

        Notes
        -----
        It runs in a thread of this process. Signals are not caught: Ctrl-C is raised
        where it strikes, and the run goes on.
        """
        from resumable.session import Run, check_alone

        begin_work(f"compute {type(self).__name__}")
        check_alone(options.get("engine", "auto"))
        if listener is not None:
            check_called(PlanError, "listener", listener)
        self._check_source()
        # From here to the end of the run: it computes what is resolved now.
        hold = contextlib.ExitStack()
        hold.enter_context(frozen(self))
        try:
            drive, stop = self._prepared({**options, "progress": progress})
            return Run(drive, stop, listener, hold)
        except BaseException:
            hold.close()
            raise

    def _prepared(
        self, given: dict[str, Any]
    ) -> tuple[Callable[[Listener | None], Results], StopRequest]:
        """Check the options and read the source; return what computes, what stops it.

        The time limit counts from now on.
        """
        limit = given.get("time_limit")
        seconds = None if limit is None else parse_seconds(limit, "time_limit")
        stop = StopRequest(seconds, limit)
        asked = self._request()
        if given.get("follow") is None and not asked.asks_ready:
            options = Options.of(given, self.map_shape)
            warm_up(options.engine, options.workers, least_calls(asked, options))
            computation = self._computation(asked)
            return functools.partial(compute, computation, options, stop), stop
        from resumable.session import follow_source

        # They need not be there yet.
        positions = given.pop("positions", None)
        options = Options.of(given, self.map_shape)
        follow = functools.partial(
            follow_source, asked, self._computation, options, positions, stop
        )
        return follow, stop

    def _computation(
        self,
        asked: Request | None = None,
        *,
        live: bool = False,
        length: int = 0,
        ready: PositionSet | None = None,
    ) -> Computation:
        """Open the source and the inputs, and work out what makes this run."""
        asked = asked or self._request()
        with open_sources(asked.source, asked.inputs, live=live, length=length) as (
            reader,
            inputs,
        ):
            if reader.geometry != self._geometry:
                # It has grown since it was seen, and outputs may depend on it.
                self._geometry = reader.geometry
                asked = self._request()
            return resolve(asked, reader, inputs, ready)

    @property
    def identity(self) -> str:
        """sha256 of everything that decides the results.

        Reads up to 64 MB of the source.
        """
        return self._computation().run_folder.identity

    @property
    def duplicates(self) -> list[Results]:
        """Complete runs of exactly this computation, the oldest first."""
        return self._matching(complete=True)

    @property
    def partials(self) -> list[Results]:
        """Unfinished runs of exactly this computation, the oldest first."""
        return self._matching(complete=False)

    def _matching(self, *, complete: bool) -> list[Results]:
        computation = self._computation()
        return [
            Results(run)
            for run in computation.runs()
            if (run.finished and computation.full_length(run.header)) is complete
        ]

    @property
    def results(self) -> Results | None:
        """Results that are there, finished or not, else None; computes nothing."""
        run = find(self._computation(), Options()).run
        return Results(run) if run else None

    def explain(self) -> Explanation:
        """Compare the runs that exist with this computation; print the result.

        Returns
        -------
        Explanation
            One entry per run of this process on this dataset, with the first
            differences as text. Nothing is written.
        """
        return explain(self._computation())

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
        computation = self._computation()
        return prospect(
            computation, Options.of({**options, "positions": positions}, self.map_shape)
        ).plan

    def test(self, position: Any = 0) -> Trial:
        """Compute one or a few positions, and estimate the time of all of them.

        Parameters
        ----------
        position : int, tuple, slice, list, or mask
            An index, a tuple on a map, several of them, a boolean mask, or a part of
            the map as ``np.s_[1:3, 2:4]``.

        Returns
        -------
        Trial
            Outputs (of several positions in the order asked for), the time per
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
        from resumable.session import try_positions

        begin_work(f"test {type(self).__name__}")
        computation = self._computation()
        flat = positions_in_order(position, self.map_shape)
        single = names_one(position)
        with frozen(self):
            trial = try_positions(computation, flat, single=single)
        self._seconds_per_position = trial.seconds_per_position
        return trial

    def verify(
        self, sample: int | str = 20, *, seed: int | None = None
    ) -> VerifyReport:
        """Check the run of this computation, and compute some of its rows again.

        Parameters
        ----------
        sample : int or "all"
            How many positions, chosen at random.
        seed : int, optional
            Chooses the sample; default another one each time.

        Returns
        -------
        VerifyReport
            Print it; :func:`resumable.verify` says what is in it.

        Raises
        ------
        RunFileError
            There is no run of this computation, or its file is damaged.
        """
        from resumable.session import verify_run

        begin_work(f"verify {type(self).__name__}")
        results = self.results
        if results is None:
            msg = f"there is no run of this in {self._folder} to verify; compute it"
            raise RunFileError(msg)
        with frozen(self):
            return verify_run(
                results.path,
                lambda _: self._computation(),
                sample=sample,
                seed=seed,
            )

    def adopt(self, run: str | Path | Results, *, sample: int | str = 20) -> Results:
        """Say that the rows of a run are those of this computation, and copy them.

        For a run that does not match because the class was renamed, its source was
        moved, a parameter was added or code was edited. Some of its positions are
        computed again first, in this process, and must give the same rows.

        Parameters
        ----------
        run : str, Path or Results
            The run file, in any folder. It stays as it is.
        sample : int or "all"
            How many positions to compute again, chosen at random; 0 for none. Where
            the source or an input has other contents, or the same in another layout,
            "all" or 0.

        Returns
        -------
        Results
            Of a new run file in the target folder, with the rows, failures and
            sessions, in which the adopted run and the differences are written down;
            ``resumable show`` shows them. The next :meth:`compute` goes on with it.

        Raises
        ------
        RunFileError
            There is no such run, or it is damaged; a value of a parameter, an output or
            the positions are others; rows are others; contents are others and not all
            rows are compared; or there is a run of this computation already.
        PlanError
            The sample is neither a number from 0 nor "all".
        RunBusy
            Another process computes one of the two runs.
        TargetError
            The new file cannot be written.
        """
        from resumable.session import adopt_run

        begin_work(f"adopt a run as one of {type(self).__name__}")
        path = run.path if isinstance(run, Results) else run_path(run)
        with frozen(self):
            return adopt_run(self._computation(), RunFile(path), sample)

    def state(self) -> dict[str, Any]:
        """Return class, parameters, source, axes, inputs and target as plain values.

        Returns
        -------
        dict
            Plain values, for :mod:`json`; :func:`resumable.load` makes the Process of
            it again, which finds its own run. Names of files are absolute.

        Raises
        ------
        IdentityError
            A parameter that could not be read back, such as an array beyond 16 MB that
            is not the default: of these only a digest is written.
        """
        from resumable.process.restore import state_of

        return state_of(self)

    @classmethod
    def from_argv(cls, argv: Sequence[str] | None = None, **keywords: Any) -> Self:
        """Make the Process that a command line asks for.

        Parameters
        ----------
        argv : sequence of str, optional
            Default the arguments of this program. They are those of ``resumable run``
            without the ones that say how to compute: ``SOURCE``, ``--target``,
            ``--input``, ``--shared``, ``--axes``, and an option for every parameter.
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
        from resumable.process.program import process_of_argv

        made: Self = process_of_argv(cls, argv, keywords)
        return made
