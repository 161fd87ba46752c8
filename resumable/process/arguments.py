"""Values of parameters on the command line: what may be typed, and what it means."""

from __future__ import annotations

import ast
import datetime as dt
import enum
from typing import TYPE_CHECKING, Any

import click
import param

if TYPE_CHECKING:
    from collections.abc import Callable

    Reader = Callable[[str], Any]

#: ``None`` on the command line; click's own None is an option that was not given.
NOTHING = object()
#: What a Python literal can be.
_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, dict, set)
#: Their values cannot be written as text.
_NO_TEXT = (param.Callable, param.Composite, param.Event, param.HookList)
_LONGEST = 60


class _Value(click.ParamType):  # type: ignore[type-arg]
    """The value of a parameter; a ValueError of its reader is wrong usage."""

    name = "value"

    def __init__(self, parameter: Any, cls: str) -> None:
        self._parameter, self._cls = parameter, cls
        found = None if parameter.readonly else _reader_of(parameter)
        self.can_be_written = found is not None
        self._metavar, self._read = found or ("(only in Python)", self._refuse)

    def _refuse(self, text: str) -> Any:
        kind, name = type(self._parameter).__name__, self._parameter.name
        msg = (
            f"a param.{kind} cannot be given on the command line; set it in a script: "
            f"rs.main({self._cls}, {name}=...)"
        )
        raise ValueError(msg)

    def get_metavar(self, *where: Any, **more: Any) -> str:
        return self._metavar

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if self._parameter.allow_None and value == "None":
            return NOTHING
        try:
            found = self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return NOTHING if found is None else found


def type_of(parameter: Any, cls: str) -> Any:
    """Return the click type of the option for a parameter of the class named `cls`."""
    value = _Value(parameter, cls)
    if isinstance(parameter, param.Boolean) and value.can_be_written:
        return click.BOOL  # a flag has no text
    return value


def _reader_of(parameter: Any) -> tuple[str, Reader] | None:
    """Return the metavar of a parameter and what reads its value; None: no text can."""
    if isinstance(parameter, _NO_TEXT):
        return None
    if isinstance(parameter, param.Selector):
        return _reader_of_choice(parameter)
    for kinds, metavar, read in _READERS:
        if isinstance(parameter, kinds):
            return metavar, read
    wanted: Any = object
    if isinstance(parameter, param.List):
        wanted = parameter.item_type or object
    elif isinstance(parameter, param.ClassSelector):
        wanted = parameter.class_ if parameter.is_instance else ()
    # An instance of any other class has no literal.
    if not any(issubclass(plain, wanted) for plain in _PLAIN):
        return None
    if isinstance(parameter, param.List):
        return "LIST", lambda text: _as(list, _literal(text))
    return "VALUE", _literal


def _reader_of_choice(parameter: Any) -> tuple[str, Reader] | None:
    objects = _named(parameter)
    if len(objects) < len(list(parameter.objects)):
        return None  # two of them have the same name

    def read(text: str) -> Any:
        if text in objects:
            return objects[text]
        if parameter.check_on_set:
            msg = f"{text!r} is not one of {', '.join(map(repr, objects))}"
            raise ValueError(msg)
        return _literal(text)

    def read_several(text: str) -> Any:
        plain = _literal(text)
        parts = plain if isinstance(plain, (list, tuple)) else text.split(",")
        return [read(str(part)) for part in parts]

    metavar = f"[{'|'.join(objects)}]"
    if isinstance(parameter, param.ListSelector):
        return f"{metavar},...", read_several
    return metavar, read


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
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


# What reads a text.


def _literal(text: str) -> Any:
    """Read a Python literal, or text where it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _as(kind: type[Any], plain: Any) -> Any:
    """Take a list for a tuple and the reverse."""
    return kind(plain) if isinstance(plain, (list, tuple)) else plain


def _bytes(text: str) -> bytes:
    plain = _literal(text)
    return plain if isinstance(plain, bytes) else text.encode()


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        msg = f"{text!r} is not a valid integer"
        raise ValueError(msg) from None


def _two(read: Reader) -> Reader:
    """Return what reads two values with a comma between them."""
    return lambda text: tuple(map(read, text.split(",")))


_date, _datetime = dt.date.fromisoformat, dt.datetime.fromisoformat
#: The first that a parameter is counts; what is in no row is read as a literal.
_READERS: tuple[tuple[Any, str, Reader], ...] = (
    (param.CalendarDate, "DATE", _date),
    (param.Date, "DATETIME", _datetime),
    (param.Integer, "INTEGER", _integer),
    (param.Number, "FLOAT", float),
    (param.CalendarDateRange, "DATE,DATE", _two(_date)),
    (param.DateRange, "DATETIME,DATETIME", _two(_datetime)),
    (param.Tuple, "TUPLE", lambda text: _as(tuple, _literal(text))),
    (param.Bytes, "BYTES", _bytes),
    ((param.String, param.Color, param.Path), "TEXT", str),
)
