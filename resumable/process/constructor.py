"""Constructors of users' classes with arguments of their own, called by name.

What is not a parameter and not an argument of :class:`Process` is written down with a
run and a state, so that the same call makes the Process again.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable import identity
from resumable.errors import DeclarationError, ResumableError
from resumable.model import canonical, decode
from resumable.process.attributes import NAMED
from resumable.process.declaration import ARGUMENTS, SOURCE_AGAIN, Declaration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resumable.process.process import Process

#: Most characters of an argument that is written down.
_LONGEST = 1 << 16


def own_arguments(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """Return the named arguments of a constructor that Process does not know."""
    known = {*ARGUMENTS, *cls.param}
    return {name: a for name, a in _accepted(cls)[0].items() if name not in known}


def source_argument(cls: type[Any]) -> str:
    """Return the name of the argument that the source is given as: the first one."""
    arguments = list(inspect.signature(cls.__init__).parameters.values())[1:2]
    first = [a.name for a in arguments if a.kind in NAMED]
    return first[0] if first and first[0] in own_arguments(cls) else "source"


def _accepted(cls: type[Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return arguments that a constructor takes by name, and whether Process gets more.

    They are those of base classes, too, as far as `**keywords` are handed on.
    """
    found: dict[str, inspect.Parameter] = {}
    for part in cls.__mro__[: cls.__mro__.index(Declaration)]:
        if "__init__" not in vars(part):
            continue
        arguments = list(inspect.signature(vars(part)["__init__"]).parameters.values())
        found = {a.name: a for a in arguments[1:] if a.kind in NAMED} | found
        if not any(a.kind is a.VAR_KEYWORD for a in arguments):
            return found, False
    return found, True


def given_arguments(
    cls: type[Any], positional: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a call gives besides parameters and arguments of Process, by name.

    Values that could not be read back are left out.
    """
    signature = inspect.signature(cls.__init__)
    try:
        bound = signature.bind(None, *positional, **named)
    except TypeError:
        return {}  # so says Python when it makes the call
    given: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            given.update(value)
        elif kind is not inspect.Parameter.VAR_POSITIONAL:  # they have no names
            given[name] = value
    known = {*ARGUMENTS, *cls.param}
    return {
        name: value
        for name, value in given.items()
        if name not in known and _can_be_read_back(value)
    }


def _can_be_read_back(value: Any) -> bool:
    arrays = identity.by_document(identity.arrays_in({"": value}).values())
    try:
        document = identity.write_value(value)
        decode(document, arrays=arrays)
    except ResumableError:
        return False
    return len(canonical(document)) <= _LONGEST


def construct(
    cls: type[Process], given: Mapping[str, Any], *, again: bool = False
) -> Process:
    """Call the constructor of a class by names of arguments and parameters.

    A constructor that does not take a parameter, or what positions share, has it
    assigned afterwards. One that does not take another argument of Process must give it
    the same value by itself. Made `again`, the Process has the source that is given,
    whatever the constructor makes of its name.
    DeclarationError: it does not, or asks for an argument that was not given.
    """
    accepted, takes_all = _accepted(cls)
    by_name = {
        name: value for name, value in given.items() if takes_all or name in accepted
    }
    what = f"{cls.__name__}.__init__"
    for name, argument in own_arguments(cls).items():
        if argument.default is argument.empty and name not in by_name:
            msg = (
                f"{what} asks for {name!r}, which is not known here; declare it as a "
                f"parameter instead: {name} = param.Parameter()"
            )
            raise DeclarationError(msg)
    try:
        inspect.signature(cls.__init__).bind(None, **by_name)
    except TypeError as error:
        msg = f"{what} cannot be called with names of arguments: {error}"
        raise DeclarationError(msg) from error
    token = SOURCE_AGAIN.set((cls, given["source"]) if again else None)
    try:
        made = cls(**by_name)
    finally:
        SOURCE_AGAIN.reset(token)
    if "source" in given:
        made._check_source()
    for name in given.keys() - by_name.keys():
        if name in cls.param:
            setattr(made, name, given[name])
        elif not _is_same(made, name, given[name]):
            msg = (
                f"{what} does not take {name!r}, which is {str(given[name])!r}; let it "
                "take **keywords and pass these to super().__init__"
            )
            raise DeclarationError(msg)
        elif name == "shared" and given[name]:
            # By the same names it may have read other numbers by now.
            made._share(given[name], made._source.path)
    return made


def _is_same(made: Process, name: str, value: Any) -> bool:
    """Return whether a Process has by itself what its constructor does not take."""
    if name == "target":
        return value is None or made._folder.resolve() == Path(value).resolve()
    if name == "position_axes":
        axes = (value,) if isinstance(value, int) else tuple(value)
        return made._source.position_axes == axes
    if name in ("inputs", "shared"):
        has = made._inputs if name == "inputs" else made._shared
        return has.keys() == (value or {}).keys()
    if name == "fingerprint":
        return made._full is (value == "full")
    if name == "environment":
        return made._strict is (value == "strict")
    # Whether a source is the same, the identity says.
    return name == "source" or not value
