"""A Process class as a program: parameters, source and compute arguments as options.

``resumable run`` and scripts have the same options.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import datetime as dt
import enum
import inspect
import sys
import typing
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import click
import param
from click.core import ParameterSource

from resumable.errors import (
    DeclarationError,
    NotFinished,
    ParameterError,
    ResumableError,
    SourceError,
    near,
    shown,
    worded_for_shell,
    wrong,
)
from resumable.process.constructor import construct, own_arguments, source_argument
from resumable.process.declaration import Declaration
from resumable.session import Options
from resumable.source import whole_dataset
from resumable.system import begin_work, launcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from resumable.process.process import Process

    Reader = Callable[[str], Any]

EPILOG = (
    "Exit codes: 0 done (failed positions are counted in a warning) or sound, 1 an "
    "error or not sound, 2 wrong usage, 69 cannot be checked here, 75 not finished: "
    "run the same command again to go on."
)
_PREFIX = "parameter_"
#: Help for the fields of `Options`, each of which is an option of the command line.
_HELP = {
    "engine": "auto, serial, local, mpi or dask; default auto.",
    "workers": "Number of workers; default the usable cores.",
    "memory": "Budget of all processes together, e.g. '2 GB'.",
    "positions": "Compute only these: 5 or 5,7,9 or 0:1000 or ::10, or a part of the "
    "map: 1:3,2:4.",
    "override": "Compute again, into a new run file.",
    "on_error": "record: record failing positions, whatever fails; raise: stop at the "
    "first; default: record, but stop where all that are tried first fail alike.",
    "retry_failed": "Compute only the failed positions again.",
    "position_timeout": "Fail a position after this time, e.g. 2m.",
    "time_limit": "Stop cleanly after this time, e.g. 3h50m.",
    "checkpoint": "Seconds between syncs: the most that a kill loses.",
    "writer": "Processes that write: auto, workers or driver.",
    "follow": "Follow a source that is being written, until no position has come for "
    "this time, e.g. 2m.",
    "rechunk": "First copy the source in the order of positions.",
    "progress": "Show a progress bar; default: on a terminal.",
    "adopt": "Continue an unfinished run that was made before helpers counted.",
}
#: Annotated types of a constructor's own arguments that are read as such.
_WORDS = {int: "INTEGER", float: "FLOAT", str: "TEXT"}
_TYPES = {"int | None": click.INT, "float": click.FLOAT}
#: ``None`` on the command line; click's own None is an option that was not given.
_NOTHING = object()
#: What a Python literal can be.
_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, dict, set)
#: Their values cannot be written as text.
_NO_TEXT = (param.Callable, param.Composite, param.Event, param.HookList)
_LONGEST = 60


# What is shown.


@contextlib.contextmanager
def errors_shown() -> Iterator[None]:
    """Show the library's errors as one message, worded for a shell."""
    try:
        with worded_for_shell():
            yield
    except ResumableError as error:
        if launcher.is_shown_elsewhere(error):
            sys.exit(1)
        message = click.ClickException(str(error))
        message.show()
        launcher.abort_at_exit(error)
        sys.exit(message.exit_code)


def show_warning(message: Warning | str, *where: Any) -> None:
    """Show a warning without the line of source text that raised it."""
    click.echo(f"warning: {shown(message, lines=True)}", err=True)


# Options.


def source_options(*, required: bool = True) -> list[click.Parameter]:
    """Make the argument and the options that say what is computed."""
    return [
        click.Argument(["source"], required=required),
        click.Option(
            ["--target"], help="Folder of the run file; default that of the source."
        ),
        click.Option(
            ["--input", "inputs"],
            multiple=True,
            metavar="NAME=SOURCE",
            help="A further source with the same positions; repeatable.",
        ),
        click.Option(
            ["--shared", "shared"],
            multiple=True,
            metavar="NAME=SOURCE",
            help="What all positions share: a dataset, or a number; repeatable.",
        ),
        click.Option(["--axes"], help="Axes that count positions, e.g. 0,1."),
        click.Option(
            ["--environment"],
            metavar="TEXT",
            type=click.Choice(["record", "strict"]),
            help="record: versions of libraries are noted; strict: they decide.",
        ),
    ]


def compute_options() -> list[click.Parameter]:
    """Make the options that say how it is computed: arguments of ``compute``."""
    options: list[click.Parameter] = []
    for field in dataclasses.fields(Options):
        flag, annotation = "--" + field.name.replace("_", "-"), str(field.type)
        if annotation == "bool | None":
            flag = f"{flag}/--no-{flag[2:]}"
        kind: Any = _TYPES.get(annotation)
        if field.name == "on_error":
            kind = click.Choice(["record", "raise"])
        options.append(
            click.Option(
                [flag],
                type=kind,
                is_flag=annotation.startswith("bool"),
                default=field.default,
                help=_HELP[field.name],
            )
        )
    return options


def parameter_options(
    cls: type[Any], taken: Sequence[click.Parameter], given: Mapping[str, Any]
) -> list[click.Parameter]:
    """Make one option of every parameter of a class, none with a name that is taken.

    The help shows the value that is given, else the default.
    """
    names = {"--help"}
    names.update(o for option in taken for o in option.opts + option.secondary_opts)
    options: list[click.Parameter] = []

    def flag_of(name: str) -> str:
        flag = "--" + name.replace("_", "-")
        if flag in names:
            msg = f"the parameter {name!r} of {cls.__name__} has the name of an option"
            raise click.ClickException(msg)
        return flag

    for name in cls.param:
        if name == "name":
            continue
        parameter, flag = cls.param[name], flag_of(name)
        kind = _type_of(parameter, cls.__name__)
        if kind is click.BOOL:
            flag = f"{flag}/--no-{flag[2:]}"
        default = _shown_value(parameter, given.get(name, parameter.default))
        options.append(
            click.Option(
                [flag, _PREFIX + name],
                type=kind,
                default=None,
                help=f"{parameter.doc or ''} [default: {default}]".strip(),
            )
        )
    hints: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # whatever the annotations are
        hints = typing.get_type_hints(cls.__init__)
    own = own_arguments(cls)
    own.pop(source_argument(cls), None)
    for name, argument in own.items():
        flag, kind = flag_of(name), hints.get(name, type(argument.default))
        if kind is int and name not in hints:
            kind = None  # it may be a float that happens to be whole
        value = given.get(name, argument.default)
        required = value is argument.empty
        if kind is bool:
            flag = f"{flag}/--no-{flag[2:]}"
        options.append(
            click.Option(
                [flag, _PREFIX + name],
                type=kind if kind in (bool, *_WORDS) else _literal,
                metavar=None if kind is bool else _WORDS.get(kind, "VALUE"),
                required=required,
                help=None if required else f"[default: {value!r:.60}]",
            )
        )
    return options


# From options to what they ask for.


def make_process(
    cls: type[Any], options: dict[str, Any], keywords: Mapping[str, Any]
) -> Any:
    """Make the Process that a command line asks for; removes the options it uses.

    The keywords are arguments of the constructor that are not on the command line.
    """
    arguments = dict(keywords)
    for key in list(options):
        if key.startswith(_PREFIX):
            value = options.pop(key)
            if value is not None:
                value = None if value is _NOTHING else value
                arguments[key.removeprefix(_PREFIX)] = value
    source, target = options.pop("source"), options.pop("target")
    same_file = str(source or keywords.get("source", "")).rpartition("::")[0]
    for key, value in arguments.items():
        if isinstance(value, _Dataset):
            try:
                arguments[key], _ = whole_dataset(str(value), same_file=same_file)
            except SourceError as error:
                msg = f"{cls.__name__}.{key}: {error}"
                raise ParameterError(msg) from error
    axes = options.pop("axes")
    inputs: dict[str, Any] = {}
    environment = options.pop("environment")
    shared: dict[str, Any] = {}
    for option, texts, found in (
        ("--input", options.pop("inputs"), inputs),
        ("--shared", options.pop("shared"), shared),
    ):
        for text in texts:
            name, separator, where = text.partition("=")
            msg = f"{option} takes NAME=SOURCE, not {text!r}"
            if name in found:
                msg = f"{option} {name}= is given twice, {found[name]!r} and {where!r}"
            if not separator or name in found:
                raise click.UsageError(msg)
            found[name] = where
    shared = {k: v if "::" in v else _literal(v) for k, v in shared.items()}
    if source is not None:
        given = int(source) if source.isdigit() else source
        arguments[source_argument(cls)] = given
    if target is not None:
        arguments["target"] = target
    if axes is not None:
        example = "whole numbers, for example 0,1"
        arguments["position_axes"] = _read(axes, _numbers, "--axes", example)
    if environment is not None:
        arguments["environment"] = environment
    if inputs:
        arguments["inputs"] = {**(arguments.get("inputs") or {}), **inputs}
    if shared:
        arguments["shared"] = {**(arguments.get("shared") or {}), **shared}
    return construct(cls, arguments)


def _read(text: str, read: Callable[[str], Any], option: str, example: str) -> Any:
    try:
        return read(text)
    except (ValueError, TypeError) as error:
        msg = f"{option} takes {example}, not {text!r}"
        raise click.UsageError(msg) from error


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _positions(text: str) -> Any:
    if ":" not in text:
        return list(_numbers(text))
    parts = tuple(map(_index, text.split(",")))
    return parts if len(parts) > 1 else parts[0]


def _index(text: str) -> int | slice:
    if ":" not in text:
        return int(text)
    return slice(*(int(part) if part else None for part in text.split(":")))


def run_process(
    cls: type[Any], options: dict[str, Any], keywords: Mapping[str, Any]
) -> None:
    """Make a Process, compute it, and print where the results are.

    Exits with code 1 after an error, 75 where it was stopped early.
    """
    with errors_shown():
        process = make_process(cls, options, keywords)
        positions = options["positions"]
        if isinstance(positions, str):
            example = "5 or 5,7,9 or 0:1000 or ::10 or 1:3,2:4"
            options["positions"] = _read(positions, _positions, "--positions", example)
        try:
            results = process.compute(**options)
        except NotFinished as stopped:
            # The session has logged the message.
            sys.exit(stopped.code)
    if launcher.rank() == 0:
        click.echo(f"{shown(near(results.path))}: {results.status}")


# Programs.


def process_of_argv(
    cls: type[Any], argv: Sequence[str] | None, keywords: Mapping[str, Any]
) -> Any:
    """Make the Process that the command line of a script asks for."""

    def make(**options: Any) -> Any:
        with worded_for_shell():
            return make_process(cls, options, keywords)

    return _run_command(cls, source_options, keywords, make, argv)


def main(
    process_class: type[Process], argv: Sequence[str] | None = None, **keywords: Any
) -> NoReturn:
    """Run a Process class as a program, and exit.

    Parameters
    ----------
    process_class : type
        A subclass of :class:`Process`. Its parameters are options of the program,
        their ``doc`` is the help, and the options of ``resumable run`` are there too.
    argv : sequence of str, optional
        Default the arguments of this program.
    **keywords
        Arguments of the constructor, parameters too, and of :meth:`Process.compute`
        that are not on the command line.

    Raises
    ------
    SystemExit
        With code 0 when every position is done or recorded as failed, 1 after an
        error, shown as one message, 2 after wrong usage, 75 when it was stopped early:
        run it again to continue.

    Notes
    -----
    The last lines of ``fit.py``::

        if __name__ == "__main__":
            rs.main(LorentzFit)

    The same run as ``resumable run fit.py:LorentzFit`` computes.
    """
    how = {option.name for option in compute_options()}
    arguments = {key: value for key, value in keywords.items() if key not in how}

    def options(*, required: bool) -> list[click.Parameter]:
        return [*source_options(required=required), *compute_options()]

    def run(**given: Any) -> None:
        ctx = click.get_current_context()
        for key in how & keywords.keys():
            if ctx.get_parameter_source(str(key)) is ParameterSource.DEFAULT:
                given[str(key)] = keywords[str(key)]
        run_process(process_class, given, arguments)

    with warnings.catch_warnings():
        warnings.showwarning = show_warning  # type: ignore[assignment]
        _run_command(process_class, options, arguments, run, argv)
    raise SystemExit(0)


def _run_command(
    cls: Any,
    options: Callable[..., list[click.Parameter]],
    keywords: Mapping[str, Any],
    callback: Callable[..., Any],
    argv: Sequence[str] | None,
) -> Any:
    """Parse a command line and call back; exit after help and wrong usage."""
    if not (isinstance(cls, type) and issubclass(cls, Declaration)):
        raise wrong(DeclarationError, "the class of a program", cls, "a Process class")
    texts: Any = sys.argv[1:] if argv is None else argv
    if not isinstance(texts, (list, tuple)) or set(map(type, texts)) - {str}:
        raise wrong(DeclarationError, "argv", argv, "a list of texts, as sys.argv[1:]")
    begin_work(f"run {cls.__name__} as a program")
    try:
        fixed = options(required="source" not in keywords)
        command = click.Command(
            cls.__name__,
            params=[*fixed, *parameter_options(cls, fixed, keywords)],
            callback=callback,
            # Not inherited: the docstring of Process is about writing one.
            help=inspect.cleandoc(cls.__doc__ or cls.__name__),
            epilog=EPILOG,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        # Not command.main(), which exits: the caller gets what the callback returns.
        name = sys.argv[0].replace("\\", "/").rpartition("/")[2]
        with command.make_context(name, list(texts)) as ctx:
            return command.invoke(ctx)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


# Values of parameters: what may be typed, and what it means.


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
            return _NOTHING
        try:
            found = self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return _NOTHING if found is None else found


def _type_of(parameter: Any, cls: str) -> Any:
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


def _shown_value(parameter: Any, value: Any) -> str:
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


class _Dataset(str):
    """The place of a dataset whose values an array parameter gets."""

    __slots__ = ()


def _dataset(text: str) -> _Dataset:
    if "::" not in text:
        msg = f"it takes FILE::/DATASET, not {text!r}"
        raise ValueError(msg)
    return _Dataset(text)


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
    (param.Array, "FILE::/DATASET", _dataset),
)
