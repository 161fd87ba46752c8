"""Every error and warning of the library, and text of others made safe to show.

::

    ResumableError
    ├── SourceError (ValueError)        the source or an input cannot be used
    ├── TargetError (OSError)           the folder for run files cannot be used
    ├── IdentityError (TypeError)       a parameter cannot be part of an identity
    ├── ParameterError (ValueError)     a parameter is unknown or has a wrong value
    ├── DeclarationError (TypeError)    the Process class is wrongly declared
    │   └── OutputError                 a computed value is not what was declared
    ├── PlanError (ValueError)          positions, memory or workers cannot be met
    ├── RunFileError (OSError)          a run file is damaged, newer or not ours
    ├── RunBusy (RuntimeError)          another process computes this run
    ├── UnitFailed (RuntimeError)       the computation raised, the run was stopped
    ├── WorkerDied (RuntimeError)       a worker process ended without an answer
    ├── CheckFailed (AssertionError)    a Process does not conform
    └── StaleLinearization (RuntimeError)  operators were not linearised, or not last

    NotFinished (SystemExit)            stopped before the last position, code 75

    ResumableWarning (UserWarning)
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Exit code of a run that was stopped early and goes on when run again
#: (``EX_TEMPFAIL`` of sysexits.h, which batch schedulers can requeue on).
EXIT_NOT_FINISHED = 75
#: Exit code of ``verify`` where the file cannot be read with what is installed here
#: (``EX_UNAVAILABLE`` of sysexits.h).
EXIT_CANNOT_CHECK = 69

#: What h5py raises about a file that is damaged or odd.
HDF5_ERRORS = (LookupError, OSError, RuntimeError, TypeError, ValueError)


class ResumableError(Exception):
    """Base of all errors of the library; catch it to catch them all.

    Attributes
    ----------
    missing : str
        What is not installed here and would be needed, such as ``"hdf5plugin"``.
        Empty where something else is wrong.
    """

    missing: str = ""

    #: The message has several lines.
    _lines: ClassVar[bool] = False

    def __str__(self) -> str:
        # Names and messages in it may come out of a file.
        return near(shown(super().__str__(), lines=self._lines))


_Error = TypeVar("_Error", bound=ResumableError)


class SourceError(ResumableError, ValueError):
    """The source or an input cannot be used."""


class TargetError(ResumableError, OSError):
    """The folder for run files cannot be used."""


class IdentityError(ResumableError, TypeError):
    """A value cannot be part of the identity of a run."""


class ParameterError(ResumableError, ValueError):
    """A parameter that does not exist, or a value outside its bounds."""


class DeclarationError(ResumableError, TypeError):
    """A Process class or one of its outputs is declared wrongly."""


class OutputError(DeclarationError):
    """A computed value does not have the declared name, shape or dtype."""


class PlanError(ResumableError, ValueError):
    """Positions, memory or workers that cannot be met."""


class RunFileError(ResumableError, OSError):
    """A run file is damaged, of a newer format, or not a run file."""


class RunBusy(ResumableError, RuntimeError):
    """Another process computes this run at this moment."""


class UnitFailed(ResumableError, RuntimeError):
    """The computation raised and the run was stopped because of it.

    Attributes
    ----------
    position : int or None
        Flat index of a position that failed.
    """

    _lines = True

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class CheckFailed(ResumableError, AssertionError):
    """A Process does not keep the rules that :func:`resumable.testing.check` checks.

    Attributes
    ----------
    report : Conformance
        All checks.
    """

    _lines = True

    def __init__(self, report: Any) -> None:
        super().__init__(str(report))
        self.report = report


class WorkerDied(ResumableError, RuntimeError):
    """A worker process ended without an answer.

    Attributes
    ----------
    exitcode : int or None
        Its exit code, negative for a signal.
    """

    def __init__(self, message: str, exitcode: int | None = None) -> None:
        super().__init__(message)
        self.exitcode = exitcode


class StaleLinearization(ResumableError, RuntimeError):
    """Operators were asked for a derivative without a linearisation, or an old one."""


class NotFinished(SystemExit):
    """The run was stopped before its last position; run it again to go on.

    Not an error: a script that does not catch it ends with exit code 75.

    Attributes
    ----------
    results : Results
        What has been computed so far.
    """

    def __init__(self, message: str, results: Any = None) -> None:
        super().__init__(EXIT_NOT_FINISHED)
        self.message = message
        self.results = results

    def __str__(self) -> str:
        return shown(self.message)


class ResumableWarning(UserWarning):
    """Something the user should know that does not stop the work."""


def lacking(error: _Error, missing: str) -> _Error:
    """Return the error, which says from now on that something is not installed."""
    error.missing = missing
    return error


def near_miss(given_name: object, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest candidate, or ``""``."""
    # Imported here: difflib costs a millisecond that only an error needs.
    import difflib

    name = str(given_name)
    known = {each.lower(): each for each in candidates}
    known.update({each: each for each in known.values()})
    for wanted in (name, name.lower()):
        for close in difflib.get_close_matches(wanted, known, n=1, cutoff=0.6):
            return f"; did you mean {known[close]!r}?"
    return ""


def no_such_file(path: Path) -> str:
    """Say that there is no file of a name, what is near, or where the link leads."""
    # As pathlib has it: two slashes are one there.
    if address := re.search(r"(?:^|/)([a-z][a-z0-9+.-]+):/(.+)", str(path)):
        scheme, rest = address.groups()
        advice = "copy what is there to this machine, and give the name of the copy"
        if scheme == "file":
            from urllib.parse import unquote  # as above

            advice = f"give the name of the file, /{unquote(rest)}"
        return f"{scheme}://{rest} is an address, which is not read: {advice}"
    if path.is_symlink():
        return f"{path} is a link to {path.readlink()}, which is missing"
    near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"there is no file {path}{near_miss(path.name, near)}"


@contextlib.contextmanager
def hdf5_errors_as(
    kind: type[ResumableError], what: str, advice: str = ""
) -> Iterator[None]:
    """Raise what h5py raises about a damaged or odd file as an error of this kind.

    `what` begins the message with what cannot be read, `advice` ends it with what to
    do.
    """
    try:
        yield
    except kind:
        raise
    except HDF5_ERRORS as error:
        msg = f"{what} ({type(error).__name__}: {error}){advice}"
        raise kind(msg) from error


# Advice is worded for who reads it: arguments of a script, options of a command.

#: How many commands are at work in this process whose messages are read in a shell.
_commands = 0
#: Options that have another name than the argument.
_OPTIONS = {"position_axes": "axes", "inputs": "input"}


@contextlib.contextmanager
def worded_for_shell() -> Iterator[None]:
    """Word advice in messages for who types commands, within a block."""
    global _commands
    _commands += 1
    try:
        yield
    finally:
        _commands -= 1


def option(name: str, value: object = None, *, call: str = "") -> str:
    """Write an argument as who reads the message gives it.

    `value` may be a dict of names of arguments and the code of their values. `call` is
    the function to call with it, which a command does by itself.

    >>> option("target"), option("retry_failed", True, call="compute")
    ('target=', 'compute(retry_failed=True)')
    >>> with worded_for_shell():
    ...     option("retry_failed", True, call="compute"), option("inputs", {"x": "map"})
    ('--retry-failed', '--input x=MAP')
    """
    if _commands:
        typed = "" if value is True or value is None else f" {_typed(value)}"
        return "--" + _OPTIONS.get(name, name).replace("_", "-") + typed
    text = "" if value is None else _code(value)
    if isinstance(value, dict):
        text = f"{{{', '.join(f'{key!r}: {code}' for key, code in value.items())}}}"
    text = f"{name}={text}"
    return f"{call}({text})" if call else text


def in_python(text: str) -> str:
    """Return text that is of use in a script alone: empty for who types commands."""
    return "" if _commands else text


def _typed(value: object) -> str:
    """Write a value as it is typed in a shell."""
    import shlex

    quote = "'"

    if isinstance(value, dict):
        # The code of a text, or a name that stands for what is given.
        texts = {key: str(code) for key, code in value.items()}
        return " ".join(
            f"{key}={text.strip(quote) if quote in text else text.upper()}"
            for key, text in texts.items()
        )
    if isinstance(value, tuple):
        return ",".join(map(_typed, value))
    if isinstance(value, slice):
        ends = ["" if end is None else str(end) for end in (value.start, value.stop)]
        return ":".join(ends if value.step is None else [*ends, str(value.step)])
    return shlex.quote(str(value))


def wrong(
    kind: type[ResumableError], name: str, value: object, accepted: str
) -> ResumableError:
    """Return the error of an argument or attribute of a wrong kind or value."""
    what = option(name).rstrip("=") if name.isidentifier() else name
    return kind(f"{what} must be {accepted}, not {_code(value)}")


def _code(value: object) -> str:
    """Write a value as Python does, on one short line."""
    try:
        return shortened(" ".join(repr(value).split()))
    except Exception:  # a user's __repr__ may raise anything
        return f"a {type(value).__name__}"


# Names, units, messages and all other text out of a file can hold escape sequences,
# characters that reverse a line, lone surrogates and markup. Such text is stored as it
# is, and goes through these functions where it is shown.


def shortened(text: object, most: int = 60) -> str:
    """Return text of at most `most` characters, its end cut off where it is longer.

    A quoted text keeps its closing quote.

    >>> shortened("'a long text in quotes'", 12)
    "'a long ...'"
    """
    whole = str(text)
    if len(whole) <= most:
        return whole
    end = "..." + (whole[0] if whole[0] in "'\"" else "")
    return whole[: most - len(end)] + end


def shown(text: object, *, lines: bool = False) -> str:
    r"""Return text with every character that does not print escaped, as Python does.

    `lines` leaves line feeds and tabs as they are.

    >>> print(shown("red: \x1b[31m, end of line: \n"))
    red: \x1b[31m, end of line: \n
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    kept = "\n\t" if lines else ""
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape").decode()
        for c in plain
    )


def near(text: object) -> str:
    """Return text in which names of files are seen from the current folder."""
    try:
        here = str(Path.cwd())
    except OSError:  # it was deleted
        return str(text)
    if here == os.sep:
        return str(text)
    before, after = r"(?<![^\s'\"(=])", r"(?=$|[\s'\",;:)])"
    inside = f"{before}{re.escape(here)}(?:{re.escape(os.sep)}(?!{after})|{after})"
    return re.sub(inside, lambda found: "." * (found[0] == here), str(text))


def as_html(text: object, *, lines: bool = False) -> str:
    """Return text as :func:`shown` gives it, with markup escaped too."""
    import html  # its table of characters costs more than most modules here

    return html.escape(shown(text, lines=lines))


def warn_user(text: str) -> None:
    """Warn at the line that called this package."""
    warnings.warn(text, ResumableWarning, stacklevel=users_level())


def users_level() -> int:
    """Stack level of the caller outside of this package, for a warning."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("resumable."):
        level, frame = level + 1, frame.f_back
    return level


class PlainFormatter(logging.Formatter):
    """Writes log messages without characters that would control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        return shown(super().format(record), lines=True)
