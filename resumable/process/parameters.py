"""Assign to parameters: not while a Process computes, and to all that share them.

Every assignment to a parameter of a Process goes through :func:`assign`.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import param

from resumable.errors import (
    DeclarationError,
    ParameterError,
    SourceError,
    near_miss,
    shortened,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

#: What a Process knows of its computing and of those that share parameters with it.
OF_SHARING = ("_cursor", "_frozen", "_given", "_shared_parameters")

# Sessions of one Process may begin and end in several threads.
_counting = threading.Lock()


class SharedParameter:
    """Weak references to the Processes that share one parameter."""

    def __init__(self, *members: Any) -> None:
        self._refs = [weakref.ref(member) for member in members]

    @property
    def members(self) -> list[Any]:
        """Those that still exist."""
        return [process for ref in self._refs if (process := ref()) is not None]

    def __reduce__(self) -> tuple[type[SharedParameter], tuple[()]]:
        # A copy, as in a worker, has the value and shares it with none.
        return SharedParameter, ()


def share_parameter(*processes_and_name: Any) -> None:
    """Share one parameter among Processes: what is assigned to one is assigned to all.

    Parameters
    ----------
    *processes_and_name : Process, ..., str
        Two Processes or more, and the name of the parameter.

    Raises
    ------
    ParameterError
        One of them has no such parameter, or refuses the value that another has;
        then nothing is changed.

    Notes
    -----
    The first value is that of the last of them whose parameter was set, by keyword, on
    the command line or by assignment, else the default of the first. A later assignment
    is checked against the bounds of all, and made in all or in none. Processes that
    share the parameter with one of them already are included. The references are weak;
    a copy of a Process, in a worker for example, has the value and does not share it.

    Examples
    --------
    ``rs.share_parameter(fit, background, "half_width")``
    """
    *processes, name = processes_and_name or [None]
    if len(processes) < 2 or not isinstance(name, str):
        msg = (
            "share_parameter takes two Processes or more and a name: "
            'share_parameter(a, b, "half_width")'
        )
        raise ParameterError(msg)
    for process in processes:
        _check_parameter(process, name)
    given = [process for process in processes if name in _given(process)]
    value = getattr((given or processes[:1])[-1], name)
    members = list({id(m): m for p in processes for m in _sharing(p, name)}.values())
    _set_all(members, name, value)
    shared = SharedParameter(*members)
    for member in members:
        _shared_parameters(member)[name] = shared
        if given:
            _given(member).add(name)


def assign(process: Any, name: str, value: Any) -> None:
    """Assign to a parameter of a Process and of those that share it: to all or none.

    ParameterError: one of them computes, or refuses the value.
    """
    members = _sharing(process, name)
    value = in_one_piece(value)
    fixed = _absolute(value, type(process).param[name])
    _set_all(members, name, fixed)
    for member in members:
        _given(member).add(name)
        _note_relative(member, name, value, fixed)


def fix_defaults(process: Any) -> None:
    """Make default paths absolute: the current folder may be another one later.

    They stay defaults, which nobody has set.
    """
    for name in type(process).param:
        declared = type(process).param[name]
        if name in _given(process) or name == "name" or declared.readonly:
            continue
        is_path = isinstance(declared, param.Path)
        value = declared.default if is_path else getattr(process, name)
        fixed = in_one_piece(_absolute(value, declared))
        if fixed is not value:
            with (
                _refused_by(process),
                param.parameterized.discard_events(process),
                param.edit_constant(process),
            ):
                object.__setattr__(process, name, fixed)
            _note_relative(process, name, value, fixed)


def _absolute(value: Any, declared: Any) -> Any:
    """Return the value of a parameter with its relative paths made absolute."""
    if isinstance(declared, param.Selector):
        return value  # one of those that are declared
    if not isinstance(declared, param.Path) or not isinstance(value, (str, Path)):
        return absolute(value)
    if Path(value).is_absolute():
        return value
    try:
        # As reading the parameter does.
        return declared._resolve(value)  # type: ignore[no-untyped-call]
    except OSError:
        # It is refused when it is set, or need not be there.
        return type(value)(absolute(Path(value)))


def as_typed(process: Any, name: str) -> Any:
    """Return the value of a parameter with paths of pathlib as they were given."""
    return process.__dict__.get("_typed", {}).get(name, getattr(process, name))


def _note_relative(process: Any, name: str, value: Any, fixed: Any) -> None:
    typed = process.__dict__.setdefault("_typed", {})
    typed.pop(name, None)
    if fixed is not value and not isinstance(type(process).param[name], param.Path):
        typed[name] = value


def absolute(value: Any) -> Any:
    """Return a value with its relative paths made absolute; any other as it is.

    Those of pathlib, also in a list, a tuple or a dict.
    """
    # "." has no name, by which a folder counts in the identity.
    return _with_parts(
        value,
        lambda part: (
            part.absolute()
            if isinstance(part, Path) and part.name and not part.is_absolute()
            else part
        ),
    )


def in_one_piece(value: Any) -> Any:
    """Return a value with arrays that have gaps or turned axes copied, in C order.

    Workers get them so, and so does who reads them back from a run file: sums and
    products depend on how an array lies in memory. Arrays in C or in Fortran order are
    kept as they are; with a mask, those in C order.
    """
    return _with_parts(value, _piece)


def _piece(part: Any) -> Any:
    if type(part) is np.ndarray:
        whole = part.flags.forc
    # numpy imports its masked arrays when they are named, which takes long.
    elif isinstance(part, np.ndarray) and type(part) is np.ma.MaskedArray:
        whole = part.flags.c_contiguous
    else:
        return part
    return part if whole else part.copy()


def _with_parts(value: Any, made: Callable[[Any], Any]) -> Any:
    """Return a value, or a list, tuple or dict of values, with others in their place.

    It is the same object where none is another.
    """
    if type(value) in (list, tuple):
        fixed = [_with_parts(item, made) for item in value]
        return type(value)(fixed) if _differ(fixed, value) else value
    if type(value) is dict:
        fixed = [_with_parts(item, made) for item in value.values()]
        return (
            dict(zip(value, fixed, strict=True))
            if _differ(fixed, value.values())
            else value
        )
    return made(value)


def _differ(fixed: list[Any], given: Iterable[Any]) -> bool:
    return any(one is not other for one, other in zip(fixed, given, strict=True))


def copy_parameters(process: Any, made: Any) -> None:
    """Give a new Process the parameters of another one, which it shares with none.

    It is not at work, and the same parameters count as set.
    """
    values = {
        name: getattr(process, name)
        for name in type(process).param
        if not process.param[name].readonly
    }
    param.Parameterized.__init__(made, **values)  # type: ignore[no-untyped-call]
    # The original stays as it is.
    vars(made)["_given"] = set(vars(process).get("_given", ()))
    vars(made)["_typed"] = dict(vars(process).get("_typed", {}))


def override_parameters(cls: Any) -> None:
    """Take plain values of a new class for the defaults of parameters of its bases.

    As ``k = 3.0``, which would else take the place of the parameter, with its type,
    its bounds and its help. DeclarationError: the parameter refuses the value.
    """
    above = [item for base in cls.__mro__[1:] for item in vars(base).items()]
    declared = {name for name, one in above if isinstance(one, param.Parameter)}
    for name in sorted(declared - {"name"}):
        # Also that of a base class which has no parameters.
        value = inspect.getattr_static(cls, name)
        if isinstance(value, param.Parameter):
            continue
        if name in vars(cls):
            delattr(cls, name)
        try:
            if isinstance(cls.param[name], param.Dynamic) and inspect.isfunction(value):
                inspect.signature(value).bind()  # param calls it for a number
            setattr(cls, name, value)  # a copy of the parameter, with this default
        except (ValueError, TypeError) as error:
            what = "a method" if inspect.isfunction(value) else repr(value)
            msg = (
                f"{cls.__name__}.{name} is a parameter of a base class, and {what} "
                f"is none of its values: {error}"
            )
            raise DeclarationError(msg) from error


def given_by_name(argument: str, given: Any) -> dict[str, Any]:
    """Return what is given as inputs or shared; SourceError where it is no dict."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(n, str) for n in given):
        msg = (
            f"{argument} must be a dict from names of arguments to sources, as "
            f'{argument}={{"name": source}}, not {shortened(repr(given))}'
        )
        raise SourceError(msg)
    return dict(given)


def check_names(cls: Any, base: Any, arguments: Sequence[str]) -> None:
    """Refuse attributes of a new class by which it would hide what `base` has.

    `arguments` are those of the constructor. DeclarationError.
    """
    for name, value in vars(cls).items():
        taken = name in arguments or (
            hasattr(base, name) and name not in ("seed", "worker")
        )
        if isinstance(value, param.Parameter) and taken:
            msg = f"{cls.__name__}: the parameter name {name!r} is taken by Process"
            raise DeclarationError(msg)
        given = name in arguments and name != "position_axes"
        if given or isinstance(inspect.getattr_static(base, name, None), property):
            advice = "give the attribute another name"
            if given:
                advice = f"give {name}= to the Process, or use another name"
            msg = f"{cls.__name__}.{name} is a name that Process uses; {advice}"
            raise DeclarationError(msg)


@contextlib.contextmanager
def frozen(process: Any) -> Iterator[None]:
    """Refuse assignments to the parameters within a block."""
    own = process.__dict__
    with _counting:
        own["_frozen"] = own.get("_frozen", 0) + 1
    try:
        yield
    finally:
        with _counting:
            own["_frozen"] -= 1


def _set_all(members: Sequence[Any], name: str, value: Any) -> None:
    for member in members:
        if member.__dict__.get("_frozen"):
            kind = type(member).__name__
            msg = (
                f"{kind}.{name} cannot be set to {value!r} while a {kind} computes: "
                "the run would have rows of two values; change it afterwards, or make "
                "another Process"
            )
            raise ParameterError(msg)
    with _refused_by(members[0]):
        _set_checked(members, name, value)


@contextlib.contextmanager
def _refused_by(process: Any) -> Iterator[None]:
    """Raise what param says of a value as a ParameterError."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        name = type(process).__name__
        # Of a parameter of ours, param names our class.
        told = str(error).replace("'Declaration.", f"'{name}.")
        msg = f"{name}: {told}"
        raise ParameterError(msg) from error


def _set_checked(members: Sequence[Any], name: str, value: Any) -> None:
    if len(members) > 1:
        # First the parameter of every member checks the value; all stay as they are.
        for member in members:
            before = getattr(member, name)
            # Watchers must not see a value that another member refuses.
            with param.parameterized.discard_events(member):
                object.__setattr__(member, name, value)
                object.__setattr__(member, name, before)
    for member in members:
        object.__setattr__(member, name, value)


def _check_parameter(process: Any, name: str) -> None:
    known = []
    if isinstance(process, param.Parameterized):
        known = [n for n in process.param if n != "name"]
    if name not in known:
        what = type(process).__name__
        listed = f" (there are {', '.join(known)})" if known else ""
        msg = f"{what} has no parameter {name!r}{near_miss(name, known)}{listed}"
        raise ParameterError(msg)


def _given(process: Any) -> set[str]:
    """Names of the parameters that were set."""
    found: set[str] = process.__dict__.setdefault("_given", set())
    return found


def _shared_parameters(process: Any) -> dict[str, SharedParameter]:
    found: dict[str, SharedParameter] = process.__dict__.setdefault(
        "_shared_parameters", {}
    )
    return found


def _sharing(process: Any, name: str) -> list[Any]:
    """Return the Processes that share a parameter, the Process itself first."""
    shared = _shared_parameters(process).get(name)
    members = shared.members if shared else []
    return [process, *(member for member in members if member is not process)]
