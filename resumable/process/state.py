"""A Process as plain JSON, and back: its state, or what a run file says of it.

The class always comes from the caller: nothing here imports what a file names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import param

from resumable.errors import (
    DeclarationError,
    ParameterError,
)
from resumable.model import decode, encode
from resumable.results import Results, inputs_of_run, source_of_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resumable.runfile import RunFile
    from resumable.source import SourceRef

#: Raised when a state is written differently. Part of it.
STATE = 1
_KEYS = ("class", "parameters", "source", "axes", "inputs", "target", "fingerprint")


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
        name: encode(getattr(process, name), f"the parameter {name!r}")
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
