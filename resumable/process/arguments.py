"""Values of parameters on the command line: what may be typed, and what it means."""

from __future__ import annotations

import ast
import datetime as dt
import enum
from typing import TYPE_CHECKING, Any, NoReturn

import click
import param

from resumable.errors import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: ``None`` on the command line; click's own None is an option that was not given.
NOTHING = object()
#: What a Python literal can be.
_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, dict, set)
#: Of these no text can tell the value; or there is none to tell.
_NO_TEXT = (param.Callable, param.Composite, param.Event, param.HookList)


class _Text(click.ParamType):  # type: ignore[type-arg]
    """What a function makes of the text; the function's ValueError is wrong usage."""

    def __init__(self, read: Callable[[str], Any], name: str = "value") -> None:
        self._read, self.name = read, name

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            found = self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return NOTHING if found is None else found


class _Choice(click.Choice):  # type: ignore[type-arg]
    """One of several objects, by its name."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        super().__init__(list(objects))
        self._objects = objects

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        found = self._objects[super().convert(value, param, ctx)]
        return NOTHING if found is None else found


class _Several(click.ParamType):  # type: ignore[type-arg]
    """Several of what another type takes, with commas between them."""

    name = "list"

    def __init__(self, one: Any) -> None:
        self._one = one

    def get_metavar(self, *where: Any, **more: Any) -> str:
        return f"{self._one.get_metavar(*where, **more) or 'VALUE'},..."

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        plain = _literal(value)
        parts = plain if isinstance(plain, (list, tuple)) else value.split(",")
        found = [self._one.convert(str(part), param, ctx) for part in parts]
        return [None if item is NOTHING else item for item in found]


class _OrNone(click.ParamType):  # type: ignore[type-arg]
    """A value of another type, or ``None``."""

    def __init__(self, other: Any) -> None:
        self._other = other
        self.name = other.name

    def get_metavar(self, *where: Any, **more: Any) -> Any:
        return self._other.get_metavar(*where, **more)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return NOTHING if value == "None" else self._other.convert(value, param, ctx)


class _OnlyInPython(click.ParamType):  # type: ignore[type-arg]
    """A value that no text can tell: that is said in the help, and when it is given."""

    name = "value"

    def __init__(self, kind: str, example: str) -> None:
        self._kind, self._example = kind, example

    def get_metavar(self, *where: Any, **more: Any) -> str:
        return "(only in Python)"

    def convert(self, value: Any, param: Any, ctx: Any) -> NoReturn:
        self.fail(
            f"a param.{self._kind} cannot be given on the command line; set it in a "
            f"script: {self._example}",
            param,
            ctx,
        )


def type_of(parameter: Any, cls: str) -> Any:
    """Return the type of the option for a parameter.

    Parameters
    ----------
    parameter : param.Parameter
    cls : str
        Name of its class.
    """
    kind = _type_of(parameter)
    if kind is None or parameter.readonly:
        example = f"rs.main({cls}, {parameter.name}=...)"
        return _OnlyInPython(type(parameter).__name__, example)
    # Of a flag the name is all there is.
    none = parameter.allow_None and kind is not click.BOOL
    return _OrNone(kind) if none else kind


def _type_of(parameter: Any) -> Any:
    """Return the type but for ``None``; none where the value cannot be written."""
    if isinstance(parameter, _NO_TEXT):
        return None
    for declared, kind in _TYPES:
        if isinstance(parameter, declared):
            return kind
    if isinstance(parameter, param.Selector):
        return _selected(parameter)
    kind = _Text(_literal)
    wanted: Any = object
    if isinstance(parameter, param.List):
        kind, wanted = _Text(_as(list), "list"), parameter.item_type or object
    elif isinstance(parameter, param.ClassSelector):
        wanted = parameter.class_ if parameter.is_instance else ()
    # An instance of any other class has no literal.
    return kind if any(issubclass(plain, wanted) for plain in _PLAIN) else None


def _selected(parameter: Any) -> Any:
    objects = _named(parameter)
    if len(objects) < len(list(parameter.objects)):
        return None  # two of them have the same name
    one: Any = _Choice(objects)
    if not parameter.check_on_set:
        one = _Text(lambda text: objects.get(text, _literal(text)))
    return _Several(one) if isinstance(parameter, param.ListSelector) else one


def _named(parameter: Any) -> dict[str, Any]:
    """Return the objects of a selector by what they are called."""
    named = dict(parameter.names or {})
    for item in parameter.objects:
        if not any(item is known for known in named.values()):
            named[item.name if isinstance(item, enum.Enum) else str(item)] = item
    return named


def shown_value(parameter: Any, value: Any) -> str:
    """Write the value of a parameter as it would be given, on one short line."""
    if isinstance(parameter, param.Selector):
        several = isinstance(parameter, param.ListSelector) and value is not None
        names = {id(item): name for name, item in _named(parameter).items()}
        values = value if several else [value]
        text = ",".join(names.get(id(item), str(item)) for item in values)
    else:
        text = str(value)
    return shortened(" ".join(text.split()))


def _literal(text: str) -> Any:
    """Read a Python literal, or text where it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _as(kind: type[Any]) -> Callable[[str], Any]:
    """Return what reads a literal, and takes a list for a tuple and the reverse."""

    def read(text: str) -> Any:
        plain = _literal(text)
        return kind(plain) if isinstance(plain, (list, tuple)) else plain

    return read


def _bytes(text: str) -> bytes:
    plain = _literal(text)
    return plain if isinstance(plain, bytes) else text.encode()


def _two(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return what reads two values with a comma between them."""
    return lambda text: tuple(map(read, text.split(",")))


_date, _datetime = dt.date.fromisoformat, dt.datetime.fromisoformat
#: The first that a parameter is counts.
_TYPES: tuple[tuple[type[Any], Any], ...] = (
    (param.Boolean, click.BOOL),
    (param.CalendarDate, _Text(_date, "date")),
    (param.Date, _Text(_datetime, "datetime")),
    (param.Integer, click.INT),
    (param.Number, click.FLOAT),
    (param.CalendarDateRange, _Text(_two(_date), "date,date")),
    (param.DateRange, _Text(_two(_datetime), "datetime,datetime")),
    (param.Tuple, _Text(_as(tuple), "tuple")),
    (param.Bytes, _Text(_bytes, "bytes")),
    (param.String, click.STRING),
    (param.Color, click.STRING),
    (param.Path, click.STRING),
)
