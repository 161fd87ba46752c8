"""The command ``resumable``."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloudpickle
import param

from resumable import __version__, report
from resumable.catalogue import busy
from resumable.errors import NotFinished, ResumableError, near_miss
from resumable.journal import mend
from resumable.process import Process
from resumable.results import Results
from resumable.runfile import RunFile
from resumable.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

_EPILOG = (
    "Exit codes: 0 done (failed positions are counted in a warning), 1 an error, "
    "2 wrong usage, 75 not finished: run the same command again to go on."
)


@contextlib.contextmanager
def _errors_shown() -> Iterator[None]:
    """Show the library's errors as one message, without a traceback."""
    try:
        yield
    except ResumableError as error:
        raise click.ClickException(str(error)) from error


def _show_warning(message: Warning | str, *where: Any) -> None:
    """Show a warning without the line of our source that gave it."""
    click.echo(f"warning: {message}", err=True)


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("-v", "--verbose", is_flag=True, help="Say what is decided and why.")
def main(*, verbose: bool) -> None:
    """Resumable computation over the positions of an HDF5 file."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(message)s"
    )


class _ClassCommand(click.Command):
    """A command whose options include the parameters of the class it is given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        name = next((arg for arg in args if _names_class(arg)), None)
        if name is not None:
            with _errors_shown():
                ctx.meta["class"] = _load_class(name)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        fixed = super().get_params(ctx)
        if "class" not in ctx.meta:
            return fixed
        taken = {option for parameter in fixed for option in parameter.opts}
        return [*fixed[:-1], *_options_of(ctx.meta["class"], taken), fixed[-1]]


def _names_class(text: str) -> bool:
    return ":" in text and "::" not in text and not text.startswith("-")


def _load_class(text: str) -> type[Process]:
    """Import ``FILE.py:Class`` or ``package.module:Class``."""
    where, _, name = text.rpartition(":")
    module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, Process)):
        names = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type)
            and issubclass(value, Process)
            and value is not Process
        ]
        there = ", ".join(names) or "none"
        msg = (
            f"{where} has no Process {name!r}{near_miss(name, names)} (it has {there})"
        )
        raise click.ClickException(msg)
    return found


def _load_module(name: str) -> Any:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f"{name} cannot be imported: {error}"
        raise click.ClickException(msg) from error


def _load_file(path: Path) -> Any:
    if not path.exists():
        near = (
            [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        )
        msg = f"there is no file {path}{near_miss(path.name, near)}"
        raise click.ClickException(msg)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        msg = f"{path} cannot be imported"
        raise click.ClickException(msg)
    # Modules beside the file are found, as when Python runs it.
    sys.path.insert(0, str(path.parent.resolve()))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        msg = f"{path} cannot be imported: {type(error).__name__}: {error}"
        raise click.ClickException(msg) from error
    # Workers get the class itself: by name they might find another module.
    cloudpickle.register_pickle_by_value(module)
    return module


class _Literal(click.ParamType):  # type: ignore[type-arg]
    """A Python literal, or text where it is none."""

    name = "value"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value


def _options_of(cls: type[Process], taken: set[str]) -> list[click.Option]:
    """Make one option of every parameter of a class."""
    options = []
    for name in cls.param:
        if name == "name":
            continue
        parameter = cls.param[name]
        flag = "--" + name.replace("_", "-")
        if flag in taken:
            msg = f"the parameter {name!r} of {cls.__name__} has the name of an option"
            raise click.ClickException(msg)
        if isinstance(parameter, param.Boolean):
            flag = f"{flag}/--no-{flag[2:]}"
        help_text = f"{parameter.doc or ''} [default: {parameter.default}]".strip()
        options.append(
            click.Option(
                [flag, f"parameter_{name}"],
                type=_click_type(parameter),
                default=None,
                help=help_text,
            )
        )
    return options


def _click_type(parameter: Any) -> Any:
    if isinstance(parameter, param.Boolean):
        return click.BOOL
    if isinstance(parameter, param.Integer):
        return click.INT
    if isinstance(parameter, param.Number):
        return click.FLOAT
    if isinstance(parameter, param.Selector):
        choices = list(parameter.objects)
        if all(isinstance(choice, str) for choice in choices):
            return click.Choice(choices)
    return click.STRING if isinstance(parameter, param.String) else _Literal()


def _process(cls_text: str, source: str, given: dict[str, Any]) -> Process:
    """Make the Process a command names; `given` is emptied of what it needs."""
    ctx = click.get_current_context()
    if "class" not in ctx.meta:
        msg = f"{cls_text!r} names no class; write FILE.py:Class or module:Class"
        raise click.UsageError(msg)
    parameters = {
        key.removeprefix("parameter_"): given.pop(key)
        for key in list(given)
        if key.startswith("parameter_")
    }
    axes = given.pop("axes")
    inputs = {}
    for text in given.pop("inputs"):
        name, separator, where = text.partition("=")
        if not separator:
            msg = f"--input takes NAME=SOURCE, not {text!r}"
            raise click.UsageError(msg)
        inputs[name] = where
    cls: type[Process] = ctx.meta["class"]
    return cls(
        int(source) if source.isdigit() else source,
        given.pop("target"),
        inputs=inputs,
        position_axes=_numbers(axes, "--axes", "whole numbers, for example 0,1"),
        **{name: value for name, value in parameters.items() if value is not None},
    )


def _numbers(text: str, option: str, example: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        msg = f"{option} takes {example}, not {text!r}"
        raise click.UsageError(msg) from error


def _positions(text: str | None) -> Any:
    """Read ``5``, ``5,7,9`` or ``0:1000`` or ``::10``."""
    if text is None:
        return None
    example = "5 or 5,7,9 or 0:1000 or ::10"
    if ":" not in text:
        return list(_numbers(text, "--positions", example))
    try:
        return slice(*(int(part) if part else None for part in text.split(":")))
    except (ValueError, TypeError) as error:
        msg = f"--positions takes {example}, not {text!r}"
        raise click.UsageError(msg) from error


def _source_options(function: Any) -> Any:
    """Add the arguments and options that say what is computed."""
    for decorate in (
        click.option(
            "--axes", default="0", help="Axes that count positions, e.g. 0,1."
        ),
        click.option(
            "--input",
            "inputs",
            multiple=True,
            metavar="NAME=SOURCE",
            help="A further source, aligned position by position; repeatable.",
        ),
        click.option("--target", help="Folder for run files; default the source's."),
        click.argument("source"),
        click.argument("class_", metavar="FILE.py:CLASS"),
    ):
        function = decorate(function)
    return function


@main.command(cls=_ClassCommand, epilog=_EPILOG)
@_source_options
@click.option("--engine", default="auto", help="auto, serial or local.")
@click.option("--workers", type=int, help="How many; default the usable cores.")
@click.option("--memory", help="For all processes together, e.g. '2 GB'.")
@click.option("--positions", help="Only these now: 5 or 5,7,9 or 0:1000 or ::10.")
@click.option("--override", is_flag=True, help="Compute anew, into another file.")
@click.option("--retry-failed", is_flag=True, help="Just the positions that failed.")
@click.option(
    "--on-error",
    type=click.Choice(["record", "raise"]),
    default="record",
    help="Record a failing position and go on, or stop.",
)
@click.option("--position-timeout", help="Give up a position after it, e.g. 2m.")
@click.option("--time-limit", help="Stop cleanly after this time, e.g. 3h50m.")
@click.option(
    "--checkpoint", type=float, default=10, help="Seconds that a kill may lose."
)
@click.option("--rechunk", is_flag=True, help="First copy into position order.")
@click.option("--progress/--no-progress", default=None, help="Default: on a terminal.")
def run(class_: str, source: str, positions: str | None, **given: Any) -> None:
    """Compute all positions of SOURCE, or go on, or say that it is done.

    FILE.py:CLASS names a Process; its parameters are options, shown by
    'resumable run FILE.py:CLASS --help'. SOURCE is 'file.h5::/dataset'.
    """
    with _errors_shown():
        process = _process(class_, source, given)
        try:
            results = process.compute(positions=_positions(positions), **given)
        except NotFinished as stopped:
            # Its message has been logged.
            sys.exit(stopped.code)
    click.echo(f"{results.path}: {results.status}")


@main.command(cls=_ClassCommand)
@_source_options
def explain(class_: str, source: str, **given: Any) -> None:
    """Say which runs exist and why each matches or does not."""
    with _errors_shown():
        click.echo(str(_process(class_, source, given).explain()))


@main.command("list")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False))
def list_command(folder: str) -> None:
    """List the runs in a folder."""
    click.echo(report.list_runs(Path(folder)))


@main.command()
@click.argument("runs", nargs=-1, type=click.Path(exists=True))
def status(runs: tuple[str, ...]) -> None:
    """Say how far runs are, also while they are computed.

    RUNS are run files or folders of them; default this folder.
    """
    paths: list[Path] = []
    for path in map(Path, runs or (".",)):
        paths += _run_files(path) if path.is_dir() else [path]
    if not paths:
        click.echo("no runs here")
    for path in paths:
        try:
            click.echo(report.status_text(RunFile(path)))
        except ResumableError as error:
            # The others are told all the same.
            click.echo(f"{error}", err=True)


def _run_files(folder: Path) -> list[Path]:
    from resumable.runfile import find_runs

    return [run.path for run in find_runs(folder, "*.h5") if isinstance(run, RunFile)]


@main.command()
@click.argument("run_file", type=click.Path(exists=True, dir_okay=False))
def show(run_file: str) -> None:
    """Show all about a run: identity, outputs, sessions, failures."""
    with _errors_shown():
        click.echo(report.show_text(RunFile(Path(run_file))))


@main.command()
@click.argument("run_file", type=click.Path(exists=True, dir_okay=False))
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(run_file: str, *, yes: bool) -> None:
    """Delete a run file, after asking."""
    with _errors_shown():
        found = RunFile(Path(run_file))
        holder = busy(found)
        if holder:
            msg = f"it is being computed by process {holder['pid']} on {holder['host']}"
            raise click.ClickException(msg)
        click.echo(report.status_text(found))
        if not yes:
            click.confirm(f"Delete {found.path} and all results in it?", abort=True)
        found.path.unlink()
    click.echo(f"deleted {found.path}")


@main.command()
@click.argument("run_file", type=click.Path(exists=True, dir_okay=False))
@click.option("--compression", default="gzip", help="gzip, lzf, zstd, lz4 or none.")
def pack(run_file: str, compression: str) -> None:
    """Compress a finished run file; nothing else about it changes."""
    path = Path(run_file)
    with _errors_shown():
        before = path.stat().st_size
        Results(path).pack(None if compression == "none" else compression)
    sizes = [format_bytes(size) for size in (before, path.stat().st_size)]
    click.echo(f"{path}: {sizes[0]} before, {sizes[1]} now")


@main.command()
@click.argument("run_file", type=click.Path(exists=True, dir_okay=False))
@click.argument("where", metavar="FILE::GROUP")
@click.option("--overwrite", is_flag=True, help="Replace what was published before.")
@click.option("--compression", help="gzip, lzf, zstd or lz4; default none.")
def publish(run_file: str, where: str, **given: Any) -> None:
    """Copy finished results into an HDF5 file that exists."""
    with _errors_shown():
        Results(run_file).publish(where, **given)
    click.echo(f"{run_file}: published as {where}")


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def repair(file: str) -> None:
    """Mend a file that results were published into when that was killed."""
    with _errors_shown():
        done = mend(file)
    click.echo(f"{file}: {done}")


@main.command()
@click.argument("folder", default="resumable-demo")
def demo(folder: str) -> None:
    """Fit 2,304 spectra, be killed half way, go on, and check the result."""
    from resumable.demo import run_demo

    with _errors_shown():
        run_demo(Path(folder), click.echo)
