"""``map``: a plain function over all positions, by the same machinery."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import textwrap
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resumable import identity
from resumable.errors import DeclarationError, near_miss, wrong
from resumable.model import Output, encode
from resumable.process.parameters import absolute, given_by_name, in_one_piece
from resumable.process.process import Process
from resumable.session import Options
from resumable.system import begin_work

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from resumable.identity import CodeCheck, Traced
    from resumable.results import Results
    from resumable.runfile import RunFile


def map_function(
    function: Callable[..., Any],
    source: Any,
    outputs: Any = None,
    *,
    target: str | Path | None = None,
    inputs: Mapping[str, Any] | None = None,
    shared: Mapping[str, Any] | None = None,
    position_axes: int | tuple[int, ...] | None = None,
    environment: str = "record",
    version: int | str | None = None,
    options: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> Results:
    """Run a plain function over all positions, resumable like a :class:`Process`.

    Parameters
    ----------
    function : callable
        ``function(spectrum, **inputs, **shared, **parameters)`` computes one position.
        Its name is the process name; its code, and all of the user's that it reaches,
        is part of the identity unless `version` is given.
    source, target, inputs, shared, position_axes, environment
        As for :class:`Process`.
    outputs : Output or dict of Output, optional
        What the function returns; a single Output has the name ``"result"``. Default
        one float.
    version : int or str, optional
        Raise it when the function changes. With it the code of the function is not part
        of the identity, and an edit only warns.
    options : dict, optional
        Arguments of :meth:`Process.compute`, for example ``{"workers": 4}``.
    **parameters
        Passed to the function, and part of the identity, as its defaults are.

    Returns
    -------
    Results

    Raises
    ------
    DeclarationError
        A lambda with a `version`, a function that does not take the parameters, a file
        that was edited since it was imported.
    ResumableError
        As :class:`Process` and :meth:`Process.compute` raise.
    """
    begin_work("compute a map")
    called: Any = function
    if not callable(called):
        raise wrong(DeclarationError, "the first argument of map", called, "a function")
    how: Any = {} if options is None else options
    if not isinstance(how, Mapping) or not all(isinstance(n, str) for n in how):
        what = 'a dict of arguments of compute, as {"workers": 4}'
        raise wrong(DeclarationError, "options", how, what)
    given = given_by_name("inputs", inputs) | given_by_name("shared", shared)
    process = _process_of(function, outputs, version, given, parameters)
    made = process(
        source,
        target,
        inputs=inputs,
        shared=shared,
        position_axes=position_axes,
        environment=environment,
    )
    return made.compute(**how)


def _process_of(
    function: Callable[..., Any],
    outputs: Any,
    version: int | str | None,
    inputs: Mapping[str, Any],
    parameters: dict[str, Any],
) -> type[Process]:
    """Make a Process class of a function and the values of its parameters."""
    name = getattr(function, "__name__", type(function).__name__)
    if version is not None and name == "<lambda>":
        msg = "a lambda has no name that a version could be of; use def, or no version"
        raise DeclarationError(msg)
    given = {**_defaults(function, name, inputs, parameters), **parameters}
    parameters = {k: in_one_piece(absolute(v)) for k, v in parameters.items()}
    values = {**given, **parameters}
    if outputs is None or isinstance(outputs, Output):
        outputs = {"result": outputs or Output()}
    lenient = version is not None

    def traced(process: Any, codes: Any = None) -> Traced:
        known = codes is not None
        return identity.trace_function(
            function, values, codes=codes, lenient=lenient or known
        )[0]

    def version_document(process: Any, found: Traced) -> Any:
        if version is None:
            return {"code": found.trace.digest}
        if isinstance(function, types.FunctionType):
            return encode(version, "version")
        called = identity.trace_function(function, {}, lenient=True)[1]
        return {"version": encode(version, "version"), "function": called}

    def code_check(process: Any, found: Traced) -> CodeCheck:
        return identity.CodeCheck(
            process, found, _trace_sent, values=not lenient, name=name
        )

    def earlier_document(process: Any) -> dict[str, Any]:
        return {
            "version": identity.earlier_version_of_function(function, version),
            "parameters": {key: encode(value, key) for key, value in given.items()},
        }

    def source_text(process: Any) -> str:
        with contextlib.suppress(OSError, TypeError):  # it has none
            return textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
        return ""

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(
            __doc__=function.__doc__,
            __module__=getattr(function, "__module__", None) or __name__,
            version=version,
            outputs=outputs,
            unit_computation=staticmethod(functools.partial(function, **parameters)),
            _parameter_values=lambda process: values,
            _traced=traced,
            _version_document=version_document,
            _code_check=code_check,
            _earlier_document=earlier_document,
            _named=None,  # a function has no aliases
            _source_text=source_text,
        )

    made: type[Process] = types.new_class(name, (Process,), {}, fill)
    return made


def _trace_sent(process: Any, **how: Any) -> Traced:
    """Trace the function of a Process that was sent here."""
    called = process.unit_computation
    return identity.trace_function(called.func, called.keywords, **how)[0]


def process_of_run(
    function: Callable[..., Any], run: RunFile, source: Any = None
) -> Process:
    """Make the Process that :func:`map_function` made for a run.

    Raises DeclarationError where the function is not the one of the run or does not
    take its parameters, IdentityError where one of these cannot be read back.
    """
    from resumable.model import decode
    from resumable.results import inputs_of_run, shared_of_run, source_of_run
    from resumable.runfile import read_arrays

    header, document = run.header, run.header.document
    name = getattr(function, "__name__", type(function).__name__)
    if name != document["process"]:
        msg = f"the run is of {document['process']!r}, and {name!r} was given"
        raise DeclarationError(msg)
    kept = read_arrays(run)
    arrays = identity.by_document(kept)
    parameters = {
        key: decode(value, f"the parameter {key!r}", arrays=arrays)
        for key, value in document["parameters"].items()
    }
    found, axes = source_of_run(run, source)
    inputs = inputs_of_run(run, found)
    shared = shared_of_run(run, found, kept)
    version = document["version"]
    if isinstance(version, dict):
        version = version.get("version")
    elif isinstance(version, str) and version.startswith(identity.EARLIER_TEXT):
        version = None
    by_name = {**inputs, **shared}
    process = _process_of(function, header.outputs, version, by_name, parameters)
    return process(
        found,
        run.path.parent,
        inputs=inputs,
        shared=shared,
        position_axes=axes,
        fingerprint="full" if header.source.get("full") else "sample",
        environment="strict" if "environment" in document else "record",
    )


def _defaults(
    function: Callable[..., Any],
    name: str,
    inputs: Mapping[str, Any],
    parameters: dict[str, Any],
) -> dict[str, Any]:
    """Check that a function takes its arguments; return the defaults it uses."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return {}  # built in, and silent about what it takes
    try:
        bound = signature.bind(None, **dict.fromkeys(inputs), **parameters)
    except TypeError as error:
        msg = f"{name} cannot be called with these parameters: {error}"
        for key in parameters:
            if key not in signature.parameters:
                msg += near_miss(key, list(signature.parameters))
                if key in {field.name for field in dataclasses.fields(Options)}:
                    msg += f"; options of compute are given as options={{{key!r}: ...}}"
        raise DeclarationError(msg) from error
    defaults = {}
    for key, argument in signature.parameters.items():
        if key not in bound.arguments and argument.default is not argument.empty:
            defaults[key] = argument.default
    return defaults
