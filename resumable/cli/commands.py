"""The command ``resumable``."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from resumable.cli import report
from resumable.cli.page import write_page
from resumable.errors import (
    EXIT_CANNOT_CHECK,
    PlainFormatter,
    ResumableError,
    RunFileError,
    near,
    shown,
)
from resumable.model import format_bytes
from resumable.process import (
    EPILOG,
    Process,
    compute_options,
    errors_shown,
    find_class,
    make_process,
    parameter_options,
    run_process,
    show_warning,
    source_options,
)
from resumable.process import verify as verify_run
from resumable.results import Results
from resumable.runfile import (
    RunFile,
    find_runs,
    holder_of,
    remove_ragged_files,
    repair_run_file,
)
from resumable.source import list_source
from resumable.version import __version__


class _Commands(click.Group):
    """Commands that show the library's errors as one message."""

    def invoke(self, ctx: click.Context) -> Any:
        with errors_shown():
            return super().invoke(ctx)


@click.group(
    cls=_Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__)
@click.option("-v", "--verbose", is_flag=True, help="Log what is decided and why.")
def main(*, verbose: bool) -> None:
    """Resumable computation over the positions of an HDF5 file."""
    warnings.showwarning = show_warning  # type: ignore[assignment]
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(message)s"))
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler])


class _ClassCommand(click.Command):
    """A command whose options include the parameters of the class it is given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = [a for a in args if ":" in a and "::" not in a and a[0] != "-"]
        if names:
            ctx.meta["class"] = _class_named(names[0])
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        fixed = super().get_params(ctx)
        if "class" not in ctx.meta:
            return fixed
        options = parameter_options(ctx.meta["class"], fixed, {})
        return [*fixed[:-1], *options, fixed[-1]]


def _class_named(text: str) -> type[Process]:
    """Import the class that was typed; modules of this folder are found."""
    if ".py:" not in text:
        sys.path.insert(0, "")
    return find_class(text, Process)


def _imported(ctx: click.Context, argument: click.Parameter, text: str) -> Any:
    if "class" not in ctx.meta:
        msg = f"{text!r} names no class; write FILE.py:Class or module:Class"
        raise click.UsageError(msg)
    return ctx.meta["class"]


_CLASS = click.Argument(["cls"], metavar="FILE.py:CLASS", callback=_imported)
_json = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
_run_file = click.argument("run_file", type=click.Path(exists=True, dir_okay=False))


@main.command(
    cls=_ClassCommand,
    epilog=EPILOG,
    params=[_CLASS, *source_options(), *compute_options()],
)
def run(cls: type[Process], **given: Any) -> None:
    """Compute the positions of SOURCE that are not done.

    FILE.py:CLASS names a Process; its parameters are options, shown by
    'resumable run FILE.py:CLASS --help'. SOURCE is 'file.h5::/dataset'.
    """
    run_process(cls, given, {})


@main.command(cls=_ClassCommand, params=[_CLASS, *source_options()])
def explain(cls: type[Process], **given: Any) -> None:
    """Compare the runs that exist with a computation."""
    click.echo(str(make_process(cls, given, {}).explain()))


@main.command(
    cls=_ClassCommand,
    params=[
        click.Argument(["run_file"], type=click.Path(exists=True, dir_okay=False)),
        _CLASS,
        *source_options(),
        click.Option(
            ["--sample"],
            default="20",
            help="Positions to compute again, or all; default 20.",
        ),
    ],
)
def adopt(run_file: str, cls: type[Process], sample: str, **given: Any) -> None:
    """Take the rows of a run for those of another class or source.

    For a run that does not match because the class was renamed, its source was moved, a
    parameter was added or code was edited. Some positions are computed again, and must
    give the same rows. RUN_FILE stays; a new run file has its rows, and says of which
    run they are.
    """
    process = make_process(cls, given, {})
    results = process.adopt(run_file, sample=_sample(sample))
    click.echo(f"{shown(near(results.path))}: {results.status}")


def _sample(text: str) -> int | str:
    return int(text) if text.isdigit() else text


@main.command("list")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False))
@_json
def list_command(folder: str, *, as_json: bool) -> None:
    """List the runs in a folder."""
    if as_json:
        found = find_runs(Path(folder).glob("*.h5"))
        click.echo(report.as_json(report.records(found)))
    else:
        click.echo(report.list_runs(Path(folder)))


@main.command()
@click.argument("runs", nargs=-1, type=click.Path(exists=True))
@_json
def status(runs: tuple[str, ...], *, as_json: bool) -> None:
    """Show how many positions of runs are done.

    RUNS are run files or folders of them; default this folder.
    """
    found: list[RunFile | RunFileError] = []
    for path in map(Path, runs or (".",)):
        found += find_runs(path.glob("*.h5")) if path.is_dir() else [_opened(path)]
    if as_json:
        click.echo(report.as_json(report.records(found)))
        return
    if not found:
        click.echo("no runs here")
    for run in found:
        try:
            if isinstance(run, RunFileError):
                raise run
            click.echo(report.status_text(run))
        except ResumableError as error:
            # The status of the other runs is still shown.
            click.echo(f"{error}", err=True)


def _opened(path: Path) -> RunFile | RunFileError:
    try:
        return RunFile(path)
    except RunFileError as error:
        return error


@main.command()
@_run_file
@_json
def show(run_file: str, *, as_json: bool) -> None:
    """Show a run: identity, outputs, sessions, failures."""
    run = RunFile(Path(run_file))
    described = report.as_json(report.record(run, whole=True)) if as_json else None
    click.echo(described or report.show_text(run))


@main.command("report")
@_run_file
@click.option(
    "-o",
    "place",
    type=click.Path(dir_okay=False),
    help="File to write; default beside the run, with the ending .html.",
)
def report_command(run_file: str, place: str | None) -> None:
    """Write a run as a page of HTML, to be sent or kept.

    Maps, histograms, failures and provenance; the page has its pictures inside and
    needs no scripts.
    """
    written = write_page(RunFile(Path(run_file)), Path(place) if place else None)
    click.echo(f"{shown(near(written))} ({format_bytes(written.stat().st_size)})")


@main.command()
@_run_file
@click.option("--class", "class_", metavar="FILE.py:CLASS", help="Class of the run.")
@click.option(
    "--sample", default="20", help="Positions to compute again, or all; default 20."
)
@click.option("--source", help="New place of a source that was moved.")
def verify(run_file: str, class_: str | None, sample: str, source: str | None) -> None:
    """Check a run file, and compute some rows again.

    Nothing is written. The exit code is 0 when nothing is wrong, 1 when something is,
    and 69 when what is needed to read the file or its source is not installed here.
    """
    cls = _class_named(class_) if class_ else None
    found = verify_run(run_file, cls, source=source, sample=_sample(sample))
    click.echo(str(found))
    if found.passed is None:
        sys.exit(EXIT_CANNOT_CHECK)
    if not found.passed:
        sys.exit(1)


@main.command()
@click.argument("file", metavar="FILE")
def tree(file: str) -> None:
    """List the datasets of a file that can be computed over.

    FILE is an HDF5 file, or 'file.h5::/group'. First comes what viewers plot, then the
    largest.
    """
    click.echo(report.tree_text(file, list_source(file)))


@main.command()
@_run_file
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(run_file: str, *, yes: bool) -> None:
    """Ask, then delete a run file."""
    found = RunFile(Path(run_file))
    holder = holder_of(found)
    if holder:
        msg = (
            f"{shown(near(found.path))} is being computed by process {holder['pid']} "
            f"on {holder['host']}; stop that process first"
        )
        raise click.ClickException(msg)
    click.echo(report.status_text(found))
    if not yes:
        question = f"Delete {shown(near(found.path))} and all results in it?"
        click.confirm(question, abort=True)
    found.path.unlink()
    remove_ragged_files(found.path)
    click.echo(f"deleted {shown(near(found.path))}")


@main.command()
@_run_file
@click.option("--compression", default="gzip", help="gzip, lzf, zstd, lz4 or none.")
def pack(run_file: str, compression: str) -> None:
    """Compress the rows of a finished run file."""
    path = Path(run_file)
    before = path.stat().st_size
    Results(path).pack(None if compression == "none" else compression)
    sizes = [format_bytes(size) for size in (before, path.stat().st_size)]
    click.echo(f"{shown(path)}: {sizes[0]} before, {sizes[1]} now")


@main.command()
@_run_file
@click.argument("where", metavar="FILE::GROUP")
@click.option("--overwrite", is_flag=True, help="Replace what was published before.")
@click.option("--compression", help="gzip, lzf, zstd or lz4; default none.")
def publish(run_file: str, where: str, **given: Any) -> None:
    """Copy finished results into an HDF5 file."""
    Results(run_file).publish(where, **given)
    click.echo(f"{shown(run_file)}: published as {shown(where)}")


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def repair(file: str) -> None:
    """Mend a run file or a file that was published into."""
    click.echo(f"{shown(file)}: {repair_run_file(Path(file))}")


@main.command()
@click.argument("folder", default="resumable-demo")
def demo(folder: str) -> None:
    """Fit a map of spectra, kill the fit, and continue it."""
    from resumable.cli.demo import run_demo

    run_demo(Path(folder), click.echo)
