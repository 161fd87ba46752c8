"""``verify``: whether a run file is sound, and whether its rows come out again."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable.process.function import process_of_run
from resumable.process.parameters import frozen
from resumable.process.process import Process
from resumable.process.state import from_run
from resumable.results import Results
from resumable.session import verify_run

if TYPE_CHECKING:
    from resumable.runfile import RunFile
    from resumable.session import Computation, VerifyReport


def verify(
    path_or_results: str | Path | Results,
    process: Any = None,
    *,
    source: Any = None,
    sample: int | str = 20,
    seed: int | None = None,
) -> VerifyReport:
    """Check a run file from end to end, and compute some of its rows again.

    Parameters
    ----------
    path_or_results : str, Path or Results
        The run file.
    process : Process or subclass of it or function, optional
        What computed it; a class gets its parameters from the run file, and so does
        a function that was given to :func:`map`. Default: no row is computed again.
        The class that the file names is never imported, nor its text executed.
    source : str, h5py.Dataset or output of Results, optional
        Where the source is now; default where the run file says it was. A Process
        that is given knows its own.
    sample : int or "all"
        How many positions to compute again, chosen at random among those that are
        done or failed.
    seed : int, optional
        Chooses the sample; default another one each time.

    Returns
    -------
    VerifyReport
        Print it. ``passed`` says that nothing is wrong with what could be checked;
        ``checks`` are the parts, each with ``name``, ``passed`` (None where it could
        not be checked) and ``words``.

    Raises
    ------
    RunFileError
        There is no such file. One that is damaged is told in the result.
    PlanError
        The sample is neither a number from 0 nor "all".

    Notes
    -----
    Writes nothing. Rows of a unit computation must be the same bit for bit, those of
    a block computation within ``rtol`` of the class. Positions that failed must fail
    again; that one succeeds now is reported, and is no damage. ``finish`` is not run
    again. Computes in this process, block by block.
    """
    path = path_or_results.path if isinstance(path_or_results, Results) else None
    known = isinstance(process, Process)
    with frozen(process) if known else contextlib.nullcontext():
        return verify_run(
            path or Path(path_or_results),  # type: ignore[arg-type]
            None if process is None else lambda run: _restored(process, run, source),
            source=source,
            sample=sample,
            seed=seed,
        )


def _restored(process: Any, run: RunFile, source: Any) -> Computation:
    if isinstance(process, type) and issubclass(process, Process):
        process = from_run(process, run, source)
    elif not isinstance(process, Process):
        process = process_of_run(process, run, source)
    found: Computation = process._computation()
    return found
