"""From a wanted computation to its results."""

from __future__ import annotations

import contextlib
import difflib
import logging
import sys
import warnings
from typing import TYPE_CHECKING

from resumable.catalogue import Claim
from resumable.decision import for_run, make_plan
from resumable.errors import ResumableWarning, RunBusy, TargetError
from resumable.explain import explain
from resumable.packing import pack_claimed, unpack_claimed
from resumable.positions import name_of_position
from resumable.results import Results
from resumable.runfile import RunFile
from resumable.session import Session
from resumable.stop import StopRequest

if TYPE_CHECKING:
    from pathlib import Path

    from resumable.recipe import Options, Recipe

logger = logging.getLogger("resumable")


def compute(recipe: Recipe, options: Options) -> Results:
    """Compute what is pending and return the results.

    Raises
    ------
    NotFinished
        Stopped by a signal or the time limit.
    RunBusy
        Another process computes this run.
    UnitFailed, OutputError
        The computation is wrong, or ``on_error="raise"``.
    TargetError, PlanError, RunFileError, WorkerDied
        See there.
    """
    stop = StopRequest(options.time_limit)
    plan, run = make_plan(recipe, options)
    if run is not None:
        _warn_of_edit(recipe, run)
    if run is None or plan.action != "return":
        results = _computed(recipe, options, stop)
    else:
        logger.info("%s: %s", run.path.name, plan.reason)
        _tidy(recipe, run)
        results = Results(run.path)
    _warn_of_failures(results, recipe.geometry.map_shape)
    return results


def _computed(recipe: Recipe, options: Options, stop: StopRequest) -> Results:
    """Compute under the claim, where nobody else can."""
    claim = Claim(recipe.shelf)
    with claim.held():
        # Again: somebody may have computed since we looked.
        plan, run = make_plan(recipe, options)
        if run is not None and plan.action == "return":
            return Results(run.path)
        logger.info("%s", plan)
        if run is None:
            _tell_of_left_runs(recipe)
        if run is not None and run.header.packed is not None:
            run = _writable(recipe, run)
        session = Session(recipe, for_run(options, run), plan, run, claim, stop)
        results = session.run_to_end()
        try:
            _pack(recipe, results.path)
        except (RunBusy, TargetError) as error:
            warnings.warn(
                f"{results.path.name} is complete, but not packed: {error}. Run again, "
                "or 'resumable pack'",
                ResumableWarning,
                stacklevel=_users_level(),
            )
        return results


def _writable(recipe: Recipe, run: RunFile) -> RunFile:
    """Unpack a run that is to be written to; a shorter one is only copied from."""
    return unpack_claimed(run) if recipe.full_length(run) else run


def _pack(recipe: Recipe, path: Path) -> None:
    """Pack a run that is complete, where outputs ask for it; the claim is held."""
    run = RunFile(path)
    if recipe.compression and run.finished and run.header.packed is None:
        pack_claimed(run, recipe.compression)


def _tidy(recipe: Recipe, run: RunFile) -> None:
    """Do what a session that was killed at its very end has left to do."""
    claim = Claim(recipe.shelf)
    killed = claim.claim_path.exists() or claim.writers_path.exists()
    packs = recipe.compression and run.finished and run.header.packed is None
    if killed or packs:
        # Somebody computes, or the folder is not ours to write: left alone.
        with contextlib.suppress(RunBusy, TargetError), claim.held():
            _pack(recipe, run.path)


def _tell_of_left_runs(recipe: Recipe) -> None:
    """Say which older run is left because the source has changed, and why."""
    for candidate in explain(recipe).candidates:
        sources = ("source.", "inputs.")
        if candidate.reasons and all(r.startswith(sources) for r in candidate.reasons):
            logger.warning(
                "the source has changed since %s was computed, so a new run begins "
                "(%s)",
                candidate.path.name,
                candidate.reasons[0],
            )


def _warn_of_edit(recipe: Recipe, run: RunFile) -> None:
    """Warn when the class was edited and its declared version is still the same."""
    then, now = run.header.source.get("text"), recipe.birth.source["text"]
    if recipe.process.version is None or not then or not now or then == now:
        return
    if not any(run.counts()):
        return  # no row of the older text is there
    group = Results(run.path).group()
    try:
        old = group["source_text"][()].decode() if "source_text" in group else ""
    finally:
        group.file.close()
    changed = [
        line
        for line in difflib.unified_diff(
            old.splitlines(), recipe.birth.source_text.splitlines(), n=0, lineterm=""
        )
        if not line.startswith(("---", "+++", "@@"))
    ]
    warnings.warn(
        f"{type(recipe.process).__name__} was edited since {run.path.name} was made, "
        f"but version is still {recipe.process.version!r}: its rows stay and further "
        "ones join them; raise it if results change:\n" + "\n".join(changed[:6]),
        ResumableWarning,
        stacklevel=_users_level(),
    )


def _warn_of_failures(results: Results, map_shape: tuple[int, ...]) -> None:
    failed = results.status.failed
    if not failed:
        return
    first = next(iter(results.failures), None)
    example = ""
    if first is not None:
        where = name_of_position(first.position, map_shape)
        example = f", the first at {where}: {first.exception}: {first.message}"
    warnings.warn(
        f"{failed:,} of {results.status.positions:,} positions failed{example}. See "
        "results.failures; compute(retry_failed=True), or --retry-failed, tries "
        "them again",
        ResumableWarning,
        stacklevel=_users_level(),
    )


def _users_level() -> int:
    """Stack level of the caller outside of this package, for a warning."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("resumable."):
        level, frame = level + 1, frame.f_back
    return level
