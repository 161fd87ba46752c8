"""What a class declares besides parameters: its methods and attributes, checked."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import param

from resumable import identity
from resumable.errors import DeclarationError, near_miss, option, wrong
from resumable.model import canonical, encode, is_number, scratch_bytes

if TYPE_CHECKING:
    from resumable.process.declaration import Declaration

#: Kinds of arguments that can be given by name.
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
#: What is called with which arguments, once, and returns at once.
_HOOKS = {
    "setup": (),
    "finish": ("results",),
    "ready": ("positions",),
    "draw": ("axes", "position", "spectrum", "outputs"),
    "outputs": (),
    "scratch": ("count",),
}
#: Of these, which may be values instead of methods.
_OR_VALUES = ("outputs", "scratch")


def check_attributes(process: Declaration) -> None:
    """Check methods and attributes of a class; DeclarationError for what is wrong."""
    cls, chosen = type(process), method_of(process)
    for name in (chosen, *_HOOKS):
        value = getattr(process, name)
        if getattr(value, "__module__", "") == f"{__package__}.declaration":
            continue  # ours
        if not callable(value) and name not in _OR_VALUES:
            raise wrong(DeclarationError, f"{cls.__name__}.{name}", value, "a method")
        if _returns_no_value(value):
            msg = (
                f"{cls.__name__}.{name} is a generator or a coroutine, as "
                "it has a yield or is an async def: to call it computes nothing; "
                "write a plain function that returns values"
            )
            raise DeclarationError(msg)
        if name != chosen and callable(value):
            _check_arguments(f"{cls.__name__}.{name}", value, _HOOKS[name])
    if not callable(process.scratch):
        scratch_bytes(process.scratch, 1, cls.__name__)
    if not is_number(process.rtol) or not 0 <= process.rtol < float("inf"):
        where = f"{cls.__name__}.rtol"
        raise wrong(DeclarationError, where, process.rtol, "a number from 0, as 1e-5")
    encode(process.version, "version")
    aliases_of(cls)
    added_values(cls)


def method_of(process: Declaration) -> str:
    """Return which of the two methods computes; DeclarationError: none or both."""
    both = ("unit_computation", "block_computation")
    methods = [method for method in both if hasattr(process, method)]
    if len(methods) != 1:
        found = "both" if methods else "neither"
        msg = (
            f"{type(process).__name__} must have unit_computation (one position) or "
            f"block_computation (many at once), and has {found}"
        )
        raise DeclarationError(msg)
    return methods[0]


def _returns_no_value(method: Any) -> bool:
    """Return whether what a call returns has still to be run."""
    tests = (
        inspect.isgeneratorfunction,
        inspect.iscoroutinefunction,
        inspect.isasyncgenfunction,
    )
    while isinstance(method, functools.partial):
        method = method.func
    if callable(method) and not inspect.isroutine(method):
        method = type(method).__call__
    return any(test(method) for test in tests)


def _check_arguments(where: str, method: Any, names: tuple[str, ...]) -> None:
    given: tuple[Any, ...] = names
    if inspect.ismethod(method):
        # Where it takes nothing at all, Python gives no signature of the method.
        method, given = method.__func__, (None, *names)
    try:
        signature = inspect.signature(method)
    except ValueError:
        return  # built in, and silent about what it takes
    try:
        signature.bind(*given)
    except TypeError as error:
        msg = f"{where} must take ({', '.join(('self', *names))}): {error}"
        raise DeclarationError(msg) from error


def check_signature(process: Declaration, inputs: Any, shared: Any) -> None:
    """Check that the method takes what it will be given, by name."""
    method = f"{type(process).__name__}.{method_of(process)}"
    given = [*inputs, *shared]
    for name in inputs.keys() & shared.keys():
        msg = (
            f"{method}: {name!r} is among {option('inputs')} and {option('shared')}; "
            "give it as one"
        )
        raise DeclarationError(msg)
    try:
        signature = inspect.signature(getattr(process, method_of(process)))
    except ValueError:
        return  # built in, and silent about what it takes
    arguments = list(signature.parameters.values())[1:]
    try:
        signature.bind(None, **dict.fromkeys(given))
    except TypeError as error:
        missing = [
            argument.name
            for argument in arguments
            if argument.default is argument.empty and argument.kind in NAMED
            if argument.name not in given
        ]
        wanted = ", ".join(["self", "spectrum", *given])
        msg = f"{method} must take ({wanted}): {error}"
        if missing:
            hint = near_miss(missing[0], given)
            msg = (
                f"{method} asks for {missing[0]!r}, which is not among the inputs"
                f"{hint}; give {option('inputs', {missing[0]: 'source'})}, or "
                f"{option('shared')} where it is the same for all positions"
            )
        raise DeclarationError(msg) from error


# What runs of an older edition of the class were made with.


def aliases_of(cls: type[Any]) -> tuple[str, ...]:
    """Return older names of a class itself; a subclass never had them."""
    names = vars(cls).get("aliases", ())
    if not isinstance(names, (tuple, list)) or not all(
        isinstance(name, str) and name.isidentifier() for name in names
    ):
        what = 'a tuple of older names of the class, as ("OldName",)'
        raise wrong(DeclarationError, f"{cls.__name__}.aliases", names, what)
    return tuple(name for name in names if name != cls.__name__)


def added_values(cls: type[Any]) -> dict[str, Any]:
    """Return the values that added parameters stand for in older runs, by name.

    As the parameters would have them; DeclarationError where they would not.
    """
    added: dict[str, Any] = {}
    for part in reversed(cls.__mro__):
        own = vars(part).get("added_parameters", {})
        if not isinstance(own, Mapping):
            what = 'a dict of what older runs were computed with, as {"gain": 1.0}'
            where = f"{part.__name__}.added_parameters"
            raise wrong(DeclarationError, where, own, what)
        added |= own
    return {name: _as_parameter(cls, name, value) for name, value in added.items()}


def _as_parameter(cls: type[Any], name: Any, value: Any) -> Any:
    """Return a value as a parameter of a class has it once it is set."""
    known = [known for known in cls.param if known != "name"]
    if name not in known:
        msg = (
            f"{cls.__name__}.added_parameters has {name!r}, which is no "
            f"parameter{near_miss(name, known)}"
        )
        raise DeclarationError(msg)
    declared = copy.copy(cls.param[name])
    declared.constant = declared.readonly = False
    holder = type(cls.__name__, (param.Parameterized,), {name: declared})
    try:
        found = getattr(holder(**{name: value}), name)
    except (ValueError, TypeError, OSError) as error:
        msg = (
            f"{cls.__name__}.added_parameters has {value!r} for {name!r}, which is "
            f"none of its values: {error}"
        )
        raise DeclarationError(msg) from error
    return as_path(declared, found)


def as_path(declared: Any, value: Any) -> Any:
    """Return the value of a parameter; of files their paths."""
    is_text = isinstance(declared, param.Path) and isinstance(value, str)
    return Path(value) if is_text else value


def left_out(cls: type[Any], parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return added parameters that older runs may lack, the latest first.

    `parameters` are the values of now, as plain JSON.
    """
    found = []
    for name, before in reversed(identity.write_values(added_values(cls)).items()):
        # In Python 1 is True, and 0.0 is -0.0.
        if canonical(parameters[name]) != canonical(before):
            break
        found.append(name)
    return tuple(found)
