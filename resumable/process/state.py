"""A Process as plain JSON, and back: its state, or what a run file says of it.

:func:`decode` undoes `identity.encode`. The class always comes from the
caller: nothing here imports what a file names.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import param

from resumable.errors import (
    DeclarationError,
    IdentityError,
    ParameterError,
    SourceError,
)
from resumable.model import identity
from resumable.results.results import Results

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from resumable.runfile.file import RunFile
    from resumable.source.reference import SourceRef

#: Raised when a state is written differently. Part of it.
STATE = 1
_KEYS = ("class", "parameters", "source", "axes", "inputs", "target", "fingerprint")


def decode(document: Any, where: str = "value", known: Iterable[Any] = ()) -> Any:
    """Turn what :func:`resumable.model.identity.encode` wrote back into a value.

    Parameters
    ----------
    document : plain JSON
        The encoded value.
    where : str
        How to name the value in an error.
    known : iterable
        Values it may be: one that is encoded like this is returned itself. So an
        array or an enum that is a default, or one of the choices, comes back.

    Raises
    ------
    IdentityError
        Only a digest or a name was written (of an array, an enum), or it makes no
        sense.

    Notes
    -----
    What the encoding does not tell apart comes back as one of both: a tuple as a
    list, a numpy number as one of Python, a frozenset as a set.
    """
    text = identity.canonical(document)
    for value in known:
        with contextlib.suppress(IdentityError):
            if identity.canonical(identity.encode(value)) == text:
                return value
    try:
        return _decoded(document, where)
    except IdentityError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        msg = f"{where} was written as {_brief(text)}, which makes no sense ({error})"
        raise IdentityError(msg) from error


def _decoded(document: Any, where: str) -> Any:
    if isinstance(document, list):
        return [_decoded(item, where) for item in document]
    if not isinstance(document, dict):
        return document
    ((kind, inner),) = document.items()
    if kind in _NOT_READ_BACK:
        msg = f"{where} is {_NOT_READ_BACK[kind]}, or give it in Python each time"
        raise IdentityError(msg)
    if kind == "dict":
        return {key: _decoded(value, where) for key, value in inner.items()}
    if kind in _SCALARS:
        return _SCALARS[kind](inner)
    parts = _decoded(inner, where)
    return _COMPOSED[kind](parts)


#: What is written as less than it is, and how it comes back all the same.
_NOT_READ_BACK = {
    "array": "an array, and only a digest of it is written down; make it the default",
    "enum": "an enum, and only its name is written down; declare the parameter as "
    "param.Selector(objects=list(THE_ENUM))",
}
#: From what stands in the document.
_SCALARS: dict[str, Any] = {
    "float": float,
    "bytes": bytes.fromhex,
    "path": Path,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "datetime": dt.datetime.fromisoformat,
    "dtype": identity.decode_dtype,
}
#: From a list of parts that are decoded already.
_COMPOSED: dict[str, Any] = {
    "complex": lambda parts: complex(*parts),
    "timedelta": lambda parts: dt.timedelta(*parts),
    "range": lambda parts: range(*parts),
    "slice": lambda parts: slice(*parts),
    "set": lambda parts: {_hashable(part) for part in parts},
}


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _brief(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def parameters_of(cls: type[Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Decode the parameters of a class.

    Raises
    ------
    ParameterError
        The class has no such parameter.
    IdentityError
        One of them cannot be decoded.
    """
    values = {}
    for name, encoded in document.items():
        if name == "name" or name not in cls.param:
            msg = f"{cls.__name__} has no parameter {name!r}, and it was given a value"
            raise ParameterError(msg)
        declared = cls.param[name]
        known = [declared.default, *_choices(declared)]
        value = decode(encoded, f"the parameter {name!r}", known)
        if isinstance(declared, param.Tuple) and isinstance(value, list):
            value = tuple(value)
        values[name] = value
    return values


def _choices(declared: Any) -> list[Any]:
    return list(declared.objects) if isinstance(declared, param.Selector) else []


def state_of(process: Any) -> dict[str, Any]:
    """Write a Process down as plain JSON.

    Raises
    ------
    IdentityError
        A parameter that could not be read back.
    """
    cls = type(process)
    parameters = {
        name: identity.encode(getattr(process, name), f"the parameter {name!r}")
        for name in cls.param
        if name != "name"
    }
    parameters_of(cls, parameters)
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
        "target": str(process._folder),
        "fingerprint": "full" if process._full else "sample",
    }


def _written(ref: SourceRef) -> Any:
    if ref.upstream:
        return {"run": ref.path, "output": ref.name}
    return str(ref) if ref.path else ref.count


def _read(source: Any) -> Any:
    """Return what a constructor takes as a source."""
    if isinstance(source, dict):
        return Results(source["run"])[source["output"]]
    return source


def from_state(cls: type[Any], state: Mapping[str, Any]) -> Any:
    """Make the Process that a state tells of.

    Raises
    ------
    DeclarationError
        It is not a state, or one of another class.
    ResumableError
        As the constructor of the class raises.
    """
    missing = [key for key in _KEYS if key not in state]
    if missing or state.get("resumable") != STATE:
        what = f"it lacks {missing[0]!r}" if missing else "its version is another"
        msg = f"this is not a state that process.state() of this version gave: {what}"
        raise DeclarationError(msg)
    _check_name(cls, str(state["class"]).rpartition(":")[2].rpartition(".")[2])
    return cls(
        _read(state["source"]),
        state["target"],
        inputs={
            name: (_read(source), tuple(axes))
            for name, (source, axes) in state["inputs"].items()
        },
        position_axes=tuple(state["axes"]),
        fingerprint=state["fingerprint"],
        **parameters_of(cls, state["parameters"]),
    )


def _check_name(cls: type[Any], name: str) -> None:
    """Refuse a class of another name: it is part of the identity."""
    if cls.__name__ != name:
        msg = f"this is of the class {name!r}, and {cls.__name__!r} was given"
        raise DeclarationError(msg)


def from_run(cls: type[Any], run: RunFile, source: Any = None) -> Any:
    """Make the Process whose run this is.

    Parameters
    ----------
    cls : type
        The user's class.
    run : RunFile
        Its identity document holds the parameters.
    source : optional
        Where the source is now; default where the run file says.

    Raises
    ------
    DeclarationError, ParameterError
        The run is one of another class.
    SourceError
        The source or an input is not where it was.
    """
    document = run.header.document
    _check_name(cls, str(document["process"]))
    found, axes = source_of_run(run, source)
    return cls(
        found,
        run.path.parent,
        inputs=inputs_of_run(run, found),
        position_axes=axes,
        fingerprint="full" if run.header.source.get("full") else "sample",
        **parameters_of(cls, document["parameters"]),
    )


def source_of_run(run: RunFile, source: Any = None) -> tuple[Any, tuple[int, ...]]:
    """Return what a run was computed from, found again, and its position axes.

    Parameters
    ----------
    run : RunFile
        It says where the source was.
    source : optional
        Where it is now, when it has moved.

    Raises
    ------
    SourceError
        It is not where it was.
    """
    document = run.header.document
    written = document["source"]
    axes = tuple(int(axis) for axis in document["position_axes"])
    if "positions" in written:
        return int(written["positions"]), axes
    if source is None:
        typed = str(run.header.source.get("source", "")).rpartition("::")[0]
        path = _found("the source", [*_linked(run), Path(typed), *_beside(run, typed)])
        source = f"{path}::{written['dataset']}"
    elif isinstance(source, (str, Path)) and "::" not in str(source):
        source = f"{source}::{written['dataset']}"
    return _of_run_or_file(source, written), axes


def inputs_of_run(run: RunFile, source: Any) -> dict[str, Any]:
    """Return the inputs of a run, found again, with their position axes.

    Parameters
    ----------
    run : RunFile
        It says where they were.
    source : object
        What :func:`source_of_run` has found: inputs of its file are looked for there.
    """
    header = run.header
    places = header.source.get("inputs")
    places = places if isinstance(places, dict) else {}
    main = str(header.source.get("source", "")).rpartition("::")[0]
    now = source.rpartition("::")[0] if isinstance(source, str) else main
    inputs = {}
    for name, written in header.document["inputs"].items():
        # Files of earlier versions do not say where inputs were.
        typed = str(places.get(name, main)).rpartition("::")[0] or main
        beside = [Path(now).parent / Path(typed).name]
        near = [Path(now)] if typed == main else []
        candidates = [*near, Path(typed), *_beside(run, typed), *beside]
        path = _found(f"the input {name!r}", candidates)
        value = _of_run_or_file(f"{path}::{written['dataset']}", written)
        inputs[name] = (value, tuple(int(axis) for axis in written["axes"]))
    return inputs


def _of_run_or_file(source: Any, written: Mapping[str, Any]) -> Any:
    """Return the output of another run as such: it is known by that run's identity."""
    if "run" in written and isinstance(source, str):
        path, _, dataset = source.rpartition("::")
        return Results(path)[dataset.rpartition("/")[2]]
    return source


def _linked(run: RunFile) -> list[Path]:
    """Where the link in the run file leads, seen from the folder it lies in."""
    group = Results(run).group()
    try:
        link = group.get("source", getlink=True)
        return [run.path.parent / link.filename]
    except AttributeError:
        return []
    finally:
        group.file.close()


def _beside(run: RunFile, typed: str) -> list[Path]:
    return [run.path.parent / Path(typed).name]


def _found(what: str, candidates: list[Path]) -> Path:
    # Only plain files: a name in a stranger's file may be that of a device.
    for path in candidates:
        if path.is_file():
            return path
    msg = f"{what} was {candidates[0]}, and is not there; say where it is now"
    raise SourceError(msg)
