"""A Process from what was written down, and back: its state, or its run file.

No class is imported because a run file names it.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import param

from resumable import identity
from resumable.errors import DeclarationError, ParameterError, wrong
from resumable.model import canonical, check_path, decode
from resumable.process.attributes import added_values
from resumable.process.classes import find_class
from resumable.process.constructor import construct
from resumable.process.function import process_of_run
from resumable.process.parameters import frozen
from resumable.process.process import Process
from resumable.results import (
    Results,
    inputs_of_run,
    shared_again,
    shared_of_run,
    source_of_run,
)
from resumable.runfile import (
    RunFile,
    arrays_kept,
    as_npy,
    is_run_file,
    of_npy,
    read_arrays,
    run_path,
)
from resumable.system import begin_work

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from resumable.session import Computation, VerifyReport
    from resumable.source import SourceRef

_P = TypeVar("_P", bound=Process)
#: Raised when a state is written differently. Part of it.
STATE = 1
#: What its parts are that are not simply handed on.
_KINDS = {
    "parameters": dict,
    "axes": list,
    "inputs": dict,
    "shared": dict,
    "places": dict,
    "attributes": dict,
    "arguments": dict,
    "arrays": list,
}
_SAID = {dict: "a dict", list: "a list"}
_KEYS = ("class", "parameters", "source", "axes", "inputs", "target", "fingerprint")


@overload
def load(state: Mapping[str, Any] | str | Path | Results, cls: type[_P]) -> _P: ...


@overload
def load(
    state: Mapping[str, Any] | str | Path | Results, cls: str | None = None
) -> Process: ...


def load(
    state: Mapping[str, Any] | str | Path | Results,
    cls: type[Process] | str | None = None,
) -> Process:
    """Make a Process again, from what :meth:`Process.state` returned or a run file.

    Parameters
    ----------
    state : dict, str, Path or Results
        What ``state()`` returned; the name of a JSON file of it, or of a run file; or
        the results of a run.
    cls : type or str, optional
        Its class, or where it is: ``"FILE.py:Class"`` or ``"package.module:Class"``.
        Needed for a run file. Default for a state: the class it names, which is
        imported by the name of its module as an import statement would.

    Returns
    -------
    Process
        It finds its own run: ``results``, ``compute``.

    Raises
    ------
    DeclarationError
        It is not a state; the class is not given, cannot be imported, or is another.
    ParameterError, IdentityError
        A parameter is unknown, or cannot be read back.
    SourceError, TargetError
        The source, an input or the target is not where it was.

    Notes
    -----
    To import a module is to run it. A run file may come from anybody, so what it names
    is never imported. A state is trusted as a script is; give `cls` for one that you
    do not trust, and nothing it names is imported. Neither can name a file to run.
    """
    if isinstance(state, Results):
        return _load_run(state.path, cls)
    if not isinstance(state, Mapping):
        what = "what state() returned, Results, or the name of a file of one of them"
        check_path(DeclarationError, "a state", state, what)
        path = Path(state)
        if _is_run(path):
            return _load_run(path, cls)
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            msg = f"{path} is neither a run file nor a state in JSON ({error})"
            raise DeclarationError(msg) from error
        if not isinstance(state, dict):
            msg = f"{path} holds a {type(state).__name__}, and a state is a dict"
            raise DeclarationError(msg)
    if cls is None:
        name = str(state.get("class", ""))
        module, _, qualified = name.partition(":")
        parts = [*module.split("."), *qualified.split(".")]
        # A name of a file would be imported, too.
        if module.endswith(".py") or not all(map(str.isidentifier, parts)):
            msg = (
                f"the state names the class {name!r}, which cannot be imported as "
                "'module:Class'; give it: rs.load(state, cls)"
            )
            raise DeclarationError(msg)
        cls = name
    return _from_state(_class(cls), state)


def _load_run(path: Path, cls: type[Process] | str | None) -> Process:
    run = RunFile(path)
    if cls is None:
        name = run.header.document["process"]
        msg = (
            f"{path} is a run of the class {name!r}, which the file does not contain; "
            f"import it and give it: rs.load(path, {name})"
        )
        raise DeclarationError(msg)
    return _from_run(_class(cls), run)


def _class(cls: Any) -> Any:
    found = find_class(cls, Process) if isinstance(cls, str) else cls
    if not (isinstance(found, type) and issubclass(found, Process)):
        what = 'a subclass of Process, or where it is, as "FILE.py:Class"'
        raise wrong(DeclarationError, "cls", cls, what)
    return found


def _is_run(path: Path) -> bool:
    try:
        return is_run_file(path)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise DeclarationError(msg) from error


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
    process : Process, subclass of it, "FILE.py:Class" or function, optional
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
        Print it. ``passed`` says that nothing is wrong with what could be checked, or
        is None where a filter of HDF5 is missing here that the file or its source
        needs; ``checks`` are the parts, each with ``name``, ``passed`` (None where it
        could not be checked) and ``words``.

    Raises
    ------
    RunFileError
        There is no such file. Damage is part of the report.
    DeclarationError
        `process` is none of these, or its class cannot be imported.
    PlanError
        The sample is neither a number from 0 nor "all".

    Notes
    -----
    Writes nothing. Rows of a unit computation must be the same bit for bit, those of
    a block computation within ``rtol`` of the class. Positions that failed must fail
    again; that one succeeds now is reported, and is no damage. ``finish`` is not run
    again. Computes in this process, block by block.
    """
    from resumable.session import verify_run

    begin_work("verify a run")
    if isinstance(process, str):
        process = _class(process)
    what = isinstance(process, type) and not issubclass(process, Process)
    if what or not (
        process is None or callable(process) or isinstance(process, Process)
    ):
        msg = f"verify takes a Process, its class or a mapped function, not {process!r}"
        raise DeclarationError(msg)

    def restore(run: RunFile) -> Computation:
        if isinstance(process, Process):
            return process._computation()
        if isinstance(process, type) and issubclass(process, Process):
            return _from_run(process, run, source)._computation()
        return process_of_run(process, run, source)._computation()

    results = path_or_results
    known = isinstance(process, Process)
    with frozen(process) if known else contextlib.nullcontext():
        return verify_run(
            results.path if isinstance(results, Results) else run_path(results),
            None if process is None else restore,
            source=source,
            sample=sample,
            seed=seed,
        )


# States.


def state_of(process: Process) -> dict[str, Any]:
    """Write a Process down as plain JSON, if every parameter can be read back."""
    process._check_source()
    cls = type(process)
    parameters = {
        name: identity.write_value(getattr(process, name), f"the parameter {name!r}")
        for name in cls.param
        if name != "name"
    }
    attributes = process._attributes()
    kept = arrays_kept(identity.arrays_in(process._held(attributes)))
    _parameters_of(cls, parameters, identity.by_document(kept.values()))
    arguments = process._written_arguments()
    shared = {name: one.document for name, one in process._shared.items()}
    places = {name: one.place for name, one in process._shared.items()}
    shared_again(shared, kept.values(), places.__getitem__)
    return {
        "resumable": STATE,
        "class": f"{cls.__module__}:{cls.__qualname__}",
        "parameters": parameters,
        "source": _written(process._source),
        "axes": list(process._source.position_axes),
        "inputs": {
            name: [_written(ref), list(ref.position_axes)]
            for name, ref in process._inputs.items()
        },
        **({"shared": shared, "places": places} if shared else {}),
        "target": str(process._folder),
        "fingerprint": "full" if process._full else "sample",
        "environment": "strict" if process._strict else "record",
        **({"attributes": attributes} if attributes else {}),
        **({"arguments": arguments} if arguments else {}),
        **({"arrays": [_text_of(array) for array in kept.values()]} if kept else {}),
    }


def _text_of(array: Any) -> str:
    return base64.b64encode(as_npy(array)).decode()


def _arrays_of(state: Mapping[str, Any]) -> list[Any]:
    try:
        return [of_npy(base64.b64decode(text)) for text in state.get("arrays", ())]
    except (ValueError, TypeError) as error:
        msg = f"the arrays of this state cannot be read: {error}"
        raise DeclarationError(msg) from error


def _written(ref: SourceRef) -> Any:
    if ref.array is not None:
        return {"contents": json.loads(ref.contents)}
    if ref.upstream:
        return {"run": ref.path, "output": ref.name}
    return str(ref) if ref.path else ref.count


def _read(source: Any, arrays: Mapping[str, Any]) -> Any:
    if isinstance(source, dict) and "contents" in source:
        return decode(source["contents"], "the source", arrays=arrays)
    if isinstance(source, dict):
        try:
            return Results(source["run"])[source["output"]]
        except KeyError as error:
            msg = f"the source {source} of this state is no output of a run: {error}"
            raise DeclarationError(msg) from error
    return source


def _from_state(cls: type[Process], state: Mapping[str, Any]) -> Process:
    missing = [key for key in _KEYS if key not in state]
    if missing or state.get("resumable") != STATE:
        what = f"it lacks {missing[0]!r}" if missing else "its version is another"
        msg = f"this is not a state that process.state() of this version gave: {what}"
        raise DeclarationError(msg)
    for key, kind in _KINDS.items():
        if not isinstance(state.get(key, kind()), kind):
            name = f"{key!r} of a state"
            raise wrong(DeclarationError, name, state[key], _SAID[kind])
    _check_name(cls, str(state["class"]).rpartition(":")[2].rpartition(".")[2])
    arrays, places = _arrays_of(state), state.get("places", {})
    known = identity.by_document(arrays)
    return _made(
        cls,
        state,
        state.get("arguments", {}),
        arrays,
        source=_read(state["source"], known),
        target=state["target"],
        inputs=dict(_inputs_of(state, known)),
        shared=shared_again(
            state.get("shared", {}), arrays, lambda name: str(places.get(name, ""))
        ),
        position_axes=tuple(state["axes"]),
        fingerprint=state["fingerprint"],
        environment=state.get("environment", "record"),
    )


def _inputs_of(
    state: Mapping[str, Any], arrays: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    for name, written in state["inputs"].items():
        if not (isinstance(written, list) and len(written) == 2):
            where, what = f"the input {name!r} of a state", "a source and its axes"
            raise wrong(DeclarationError, where, written, what)
        yield name, (_read(written[0], arrays), tuple(written[1]))


def _from_run(cls: type[Process], run: RunFile, source: Any = None) -> Process:
    """Make the Process of a run; `source` is where its source is now."""
    document = run.header.document
    _check_name(cls, str(document["process"]))
    found, axes = source_of_run(run, source)
    arrays = read_arrays(run)
    return _made(
        cls,
        document,
        run.header.source.get("arguments", {}),
        arrays,
        source=found,
        target=run.path.parent,
        inputs=inputs_of_run(run, found),
        shared=shared_of_run(run, found, arrays),
        position_axes=axes,
        fingerprint="full" if run.header.source.get("full") else "sample",
        environment="strict" if "environment" in document else "record",
    )


def _made(
    cls: type[Process],
    document: Mapping[str, Any],
    arguments: Mapping[str, Any],
    arrays: Iterable[Any],
    **standard: Any,
) -> Process:
    """Call the constructor with parameters and arguments as they were written down.

    Attributes that it does not set, or sets to other values, are then assigned.
    """
    known = identity.by_document(arrays)
    # A run that lacks parameters was made before there were these.
    parameters = {
        **added_values(cls),
        **_parameters_of(cls, document["parameters"], known),
    }
    given = {**standard, **parameters}
    for name, encoded in arguments.items():
        given[name] = decode(encoded, f"the argument {name!r}", arrays=known)
    made = construct(cls, given, again=True)
    for name, value in parameters.items():
        # A constructor may change what it is given, which had changed once already.
        values = {"then": value, "now": getattr(made, name)}
        then, now = identity.write_values(values).values()
        if canonical(then) != canonical(now):
            setattr(made, name, value)
    attributes = document.get("attributes", {})
    now = made._attributes() if attributes else {}
    for name, encoded in attributes.items():
        if name not in now or canonical(now[name]) != canonical(encoded):
            value = decode(encoded, f"the attribute {name!r}", arrays=known)
            setattr(made, name, value)
    return made


def _check_name(cls: type[Process], name: str) -> None:
    """Refuse a class that never had this name: it is part of the identity."""
    if name not in (cls.__name__, *vars(cls).get("aliases", ())):
        msg = f"the run is of the class {name!r}, and {cls.__name__!r} was given"
        raise DeclarationError(msg)


def _parameters_of(
    cls: type[Process], document: Mapping[str, Any], known_arrays: Mapping[str, Any]
) -> dict[str, Any]:
    def write_known(value: Any) -> Any:
        return identity.write_values({"": value})[""]

    values = {}
    for name, encoded in document.items():
        if name == "name" or name not in cls.param:
            msg = f"{cls.__name__} has no parameter {name!r}, and it was given a value"
            raise ParameterError(msg)
        declared = cls.param[name]
        known = [declared.default]
        if isinstance(declared, param.Selector):
            known += declared.objects
        if isinstance(declared, param.Path) and declared.default is not None:
            known.append(Path(declared.default))
        value = decode(
            encoded,
            f"the parameter {name!r}",
            known,
            write_known,
            known_arrays,
        )
        if isinstance(declared, param.Tuple) and isinstance(value, list):
            value = tuple(value)  # as schema 1 has it
        values[name] = value
    return values
