"""``load``: a Process from its state, or from a run file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resumable.errors import DeclarationError
from resumable.model import find_class
from resumable.process.process import Process
from resumable.process.state import from_run, from_state
from resumable.results import Results
from resumable.runfile import MAGIC, RunFile


def load(
    state: Mapping[str, Any] | str | Path | Results,
    cls: type[Process] | str | None = None,
) -> Process:
    """Make a Process again, as :meth:`Process.state` or a run file tells of it.

    Parameters
    ----------
    state : dict, str, Path or Results
        What ``state()`` returned; the name of a JSON file of it, or of a run file; or
        the results of a run.
    cls : type or str, optional
        Its class, or where it is: ``"FILE.py:Class"`` or ``"package.module:Class"``.
        Needed for a run file. Default for a state: the class it names, which is
        imported by the name of its module as an import statement would.

    Returns
    -------
    Process
        It finds its own run: ``results``, ``compute``.

    Raises
    ------
    DeclarationError
        It is not a state; the class is not given, cannot be imported, or is another.
    ParameterError, IdentityError
        A parameter is unknown, or cannot be read back.
    SourceError, TargetError
        The source, an input or the target is not where it was.

    Notes
    -----
    To import a module is to run it. A run file may be a stranger's, so what it names
    is never imported. A state is taken to be yours, as a script is; give `cls` for one
    that is not, and nothing it names is imported. Neither can name a file to run.
    """
    if isinstance(state, Results):
        return _of_run(state.path, cls)
    if not isinstance(state, Mapping):
        path = Path(state)
        if _is_run(path):
            return _of_run(path, cls)
        state = _parsed(path)
    if cls is None:
        name = str(state.get("class", ""))
        module = name.partition(":")[0]
        # A file is not imported because a file says so.
        if module.endswith(".py") or not all(map(str.isidentifier, _parts(name))):
            msg = (
                f"the state names the class {name!r}, which cannot be imported as "
                "'module:Class'; give it: rs.load(state, cls)"
            )
            raise DeclarationError(msg)
        cls = name
    found: Process = from_state(_class(cls), state)
    return found


def _parts(name: str) -> list[str]:
    return name.replace(":", ".").split(".")


def _of_run(path: Path, cls: type[Process] | str | None) -> Process:
    run = RunFile(path)
    if cls is None:
        name = run.header.document["process"]
        msg = (
            f"{path} is a run of the class {name!r}, which a file cannot bring along; "
            f"import it and give it: rs.load(path, {name})"
        )
        raise DeclarationError(msg)
    found: Process = from_run(_class(cls), run)
    return found


def _class(cls: type[Process] | str) -> type[Process]:
    return find_class(cls, Process) if isinstance(cls, str) else cls


def _is_run(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise DeclarationError(msg) from error


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} is neither a run file nor a state in JSON ({error})"
        raise DeclarationError(msg) from error
    if not isinstance(plain, dict):
        msg = f"{path} holds a {type(plain).__name__}, and a state is a dict"
        raise DeclarationError(msg)
    return plain
