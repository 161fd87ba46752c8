"""``load``: a Process from its state, or from a run file."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resumable.errors import DeclarationError, near_miss
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


def find_class(text: str, base: type[Any]) -> type[Any]:
    """Import ``FILE.py:Class`` or ``package.module:Class``.

    Parameters
    ----------
    text : str
        What the user typed. Importing runs the file or the module.
    base : type
        What the class must derive from.

    Raises
    ------
    DeclarationError
        There is no such file, module or class, or it cannot be imported.
    """
    where, separator, name = text.rpartition(":")
    if not separator:
        msg = f"{text!r} names no class; write FILE.py:Class or module:Class"
        raise DeclarationError(msg)
    module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    found = functools.reduce(
        lambda inside, part: getattr(inside, part, None), name.split("."), module
    )
    if not (isinstance(found, type) and issubclass(found, base)):
        names = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, base) and value is not base
        ]
        there = ", ".join(names) or "none"
        msg = (
            f"{where} has no {base.__name__} {name!r}{near_miss(name, names)} "
            f"(it has {there})"
        )
        raise DeclarationError(msg)
    return found


def _load_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, ValueError, TypeError) as error:
        msg = f"{name!r} cannot be imported: {error}"
        raise DeclarationError(msg) from error


def _load_file(path: Path) -> Any:
    if not path.exists():
        near = (
            [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        )
        msg = f"there is no file {path}{near_miss(path.name, near)}"
        raise DeclarationError(msg)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        msg = f"{path} cannot be imported"
        raise DeclarationError(msg)
    # Modules beside the file are found, as when Python runs it.
    sys.path.insert(0, str(path.parent.resolve()))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        msg = f"{path} cannot be imported: {type(error).__name__}: {error}"
        raise DeclarationError(msg) from error
    # Workers get the class itself: by name they might find another module.
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    return module
