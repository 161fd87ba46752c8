"""Runs that would be of a computation but for a name: say so, and adopt them.

Classes are renamed, sources are moved, parameters are added, code is edited. To adopt a
run is to say that its rows are those of the computation all the same.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Any

from resumable import identity
from resumable.errors import RunFileError, in_python, lacking, option
from resumable.model import EARLIER_SCHEMA, PositionSet, differences
from resumable.results import Results
from resumable.runfile import RunLock, create_run_file, run_folder_of
from resumable.source import coordinates_of, open_reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resumable.runfile import RunFile
    from resumable.session.computation import Computation, Request

#: How it begins what :func:`way_in` says.
NEARLY = "it would match but for "
#: Parts of an identity document in which a value that both have must be the same.
_VALUES = ("parameters", "attributes", "shared")
#: Parts of that of a stage that must be the same, too.
_OF_STAGES = ("outputs", "arguments", "first")
#: In the document of a source, what does not tell its contents.
_NAME = "dataset"


def way_in(computation: Computation, run: RunFile) -> str:
    """Say how a run would match that differs in names or lacks parameters; else empty.

    The names are those of the class, and of the file and the dataset of the source; of
    a chain those of its stages.
    """
    there, request = run.header.document, computation.request
    if not all(isinstance(there.get(key), dict) for key in ("parameters", "source")):
        return ""  # whatever program has written it
    name, wanted, why = str(there.get("process")), dict(computation.document), []
    pairs = list(parts_of(there, wanted, request))
    renamed, stages = False, []
    for part, then, now in pairs:
        was, of_it = str(then.get("process")), f" of the stage {part.name}"
        lacking = [key for key in part.parameters if key not in then["parameters"]]
        if any(key in part.added for key in lacking):
            return ""  # the run stands for another value than that of now
        changed = {**now, "process": was}
        if was != part.name:
            if part.named is None:
                return ""
            renamed, changed["version"] = True, then.get("version")  # see below
            what = f"the name of the {'stage' if request.stages else 'class'}"
            why.append(f"{what}, for which there is aliases = ({was!r},)")
        if lacking:
            named = ", ".join(f"{key!r}: VALUE" for key in lacking)
            why.append(
                f"parameters that it lacks{of_it if request.stages else ''}, for which "
                f"there is added_parameters = {{{named}}}"
            )
            left = {k: v for k, v in now["parameters"].items() if k not in lacking}
            changed["parameters"] = left
        stages.append(changed)
    if not pairs:
        return ""
    wanted = stages[0]
    if request.stages:
        parameters = {"stages": stages}
        wanted = {**computation.document, "process": name, "parameters": parameters}
    datasets = [document["source"].get("dataset") for document in (wanted, there)]
    if None not in datasets and datasets[0] != datasets[1]:
        wanted["source"] = {**wanted["source"], "dataset": datasets[1]}
        why.append("the name of the dataset")
    elif not run.path.name.startswith(
        computation.run_folder.prefix.removesuffix(request.name) + name
    ):
        why.append("the name of the source's file")
    if not why or differences(there, wanted):
        return ""
    if renamed:
        traces = {}
        for part, then, _ in pairs:
            was = str(then["process"])
            version, traces[was] = part.version, part.trace
            if was != part.name:
                version, traces[was] = part.named(was)
            # Of code that is another it may be anything, also where versions are the
            # same.
            if version != then["version"]:
                return ""
        trace = identity.Trace.together(traces) if request.stages else traces[name]
        if run.header.source.get("trace") != trace.digest:
            return ""
    if computation.changed_in(run):
        return ""
    return (
        f"{NEARLY}{' and '.join(why)}; or adopt it, with 'resumable adopt'"
        f"{in_python(' or process.adopt(path)')}"
    )


def parts_of(
    there: dict[str, Any], wanted: dict[str, Any], request: Request
) -> Iterator[tuple[Request, dict[str, Any], dict[str, Any]]]:
    """Yield what is computed, as a run has it and as it is wanted; of a chain stages.

    Nothing where the run is of other stages.
    """
    if not request.stages:
        yield request, there, wanted
        return
    theirs, ours = (one["parameters"].get("stages") for one in (there, wanted))
    if not isinstance(theirs, list) or len(theirs) != len(ours):
        return
    if all(
        isinstance(one, dict) and isinstance(one.get("parameters"), dict)
        for one in theirs
    ):
        yield from zip(request.stages, theirs, ours, strict=True)


def adopt_run(computation: Computation, run: RunFile, sample: int | str) -> Results:
    """Copy the rows of a run into a new run file of a computation.

    The computation must give the same rows again at a sample of positions. Raises
    RunFileError where it does not, where values, outputs or positions are others, where
    contents are others and not all rows are compared, or where there is a run of it
    already.
    """
    from resumable.session.verify import check_rows, check_sample

    check_sample(sample)
    header, folder = run.header, computation.run_folder
    told = _checked(computation, run)
    other = _other_contents(computation, run) if sample not in ("all", 0) else ""
    if other:
        msg = (
            f"{run.path} is not adopted: its {other} had other contents, or another "
            f"layout, and {sample} rows do not tell which ones are others; give "
            f"{option('sample', 'all')} to compare all rows, or 0 to insist"
        )
        raise RunFileError(msg)
    _check_none_there(computation, run)
    with contextlib.ExitStack() as locks:
        of_both = [RunLock(folder), RunLock(run_folder_of(run))]
        # They are one where contents that are not part of the identity have changed.
        for lock in {lock.lock_path: lock for lock in of_both}.values():
            locks.enter_context(lock.held())
        _check_none_there(computation, run)
        check = check_rows(run, computation, sample, None)
        if check.missing:
            msg = f"{run.path} is not adopted: {check.words}"
            raise lacking(RunFileError(msg), check.missing)
        if check.passed is False:
            msg = (
                f"{run.path} is not adopted: {check.words.splitlines()[0]}, and these "
                "are the rows of another computation"
            )
            raise RunFileError(msg)
        note = {
            "run": run.path.name,
            "identity": header.identity,
            "differences": told,
            "rows": check.words,
            "when": dt.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        spec = computation.spec()
        spec = spec._replace(source={**spec.source, "adopted": note})
        with computation.open_reader() as reader:
            made = create_run_file(
                folder.new_path(),
                spec,
                coordinates_of(reader),
                PositionSet.full(header.size),
                run,
                sessions=True,
            )
    return Results(made)


def _other_contents(computation: Computation, run: RunFile) -> str:
    """Return what was digested otherwise: ``source``, ``inputs.<name>``, or empty."""
    there, full = run.header.document, bool(run.header.source.get("full"))
    inputs = there.get("inputs") or {}
    sources = {"source": (computation.source, there.get("source"))}
    for name, ref in computation.inputs.items():
        sources[f"inputs.{name}"] = ref, inputs.get(name)
    for name, (ref, then) in sources.items():
        if not isinstance(then, dict):
            return name
        awaited = name == "source" and computation.request.asks_ready and ref.has_data
        with open_reader(ref) as reader:
            kind = "awaited" if awaited else None
            now = reader.fingerprint(full=full, kind=kind, like=then)
        if any(then.get(key) != value for key, value in now.items() if key != _NAME):
            return name
    return computation.changed_in(run)


def _check_none_there(computation: Computation, run: RunFile) -> None:
    there = computation.runs()
    if there:
        msg = f"{there[-1].path} is a run of this computation already"
        if there[-1].path != run.path:
            msg += f"; 'resumable remove' it to adopt {run.path}"
        raise RunFileError(msg)


def _checked(computation: Computation, run: RunFile) -> list[str]:
    """Return how the documents differ; RunFileError where rows cannot be the same."""
    from resumable.session.resolve import document_before

    there, wanted = run.header.document, computation.document
    if there.get("schema") == EARLIER_SCHEMA:
        wanted = document_before(computation.request, wanted) or wanted
    wrong = differences(
        {key: there.get(key) for key in ("outputs", "position_axes")},
        {key: wanted[key] for key in ("outputs", "position_axes")},
    )
    shapes = run.header.map_shape, computation.geometry.map_shape
    if shapes[0] != shapes[1]:
        wrong.append(f"positions: a map of {shapes[0]} there, of {shapes[1]} here")
    pairs = list(parts_of(there, wanted, computation.request))
    if not pairs:
        wrong += differences(
            {"parameters": there["parameters"]}, {"parameters": wanted["parameters"]}
        )
    for part, old_part, new_part in pairs:
        for key in _VALUES:
            old, new = old_part.get(key) or {}, new_part.get(key) or {}
            both = [name for name in old if name in new]
            wrong += differences(
                {key: {name: old[name] for name in both}},
                {key: {name: new[name] for name in both}},
            )
        if computation.request.stages:
            wrong += differences(
                {part.name: {key: old_part.get(key) for key in _OF_STAGES}},
                {part.name: {key: new_part[key] for key in _OF_STAGES}},
            )
    if run.mixed:
        wrong.append("rows of two computations may be mixed in it")
    if wrong:
        msg = f"{run.path} cannot be adopted: {'; '.join(wrong)}"
        raise RunFileError(msg)
    return differences(there, wanted)
