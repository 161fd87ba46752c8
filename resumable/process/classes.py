"""The class that a user names as ``FILE.py:Class`` or ``package.module:Class``.

To import a module is to run it. The work of a script is not done: what computes, writes
or reads the command line ends the loading, and the class is used as it is by then.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import logging
import symtable
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable.errors import (
    DeclarationError,
    ResumableError,
    ResumableWarning,
    near_miss,
    no_such_file,
)
from resumable.system import WorkBegins, loading

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("resumable")

_GUARD = "put the work of the script below: if __name__ == '__main__':"


def find_class(text: str, base: type[Any]) -> type[Any]:
    """Import ``FILE.py:Class`` or ``package.module:Class``, which runs the module.

    DeclarationError: it cannot be imported, or is no class that derives from `base`.
    """
    where, separator, name = text.rpartition(":")
    if not separator:
        msg = f"{text!r} names no class; write FILE.py:Class or module:Class"
        raise DeclarationError(msg)
    if where.endswith(".py"):
        module = _load_file(Path(where), name)
    else:
        module = _load_module(where)
    found = _member(module, name)
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


def _member(module: Any, name: str) -> Any:
    for part in name.split("."):
        module = getattr(module, part, None)
    return module


def _load_module(name: str) -> Any:
    try:
        with loading(name):
            return importlib.import_module(name)
    except WorkBegins as work:
        msg = f"{name!r} cannot be imported: it would {work}; {_GUARD}"
        raise DeclarationError(msg) from None
    except (ImportError, ValueError, TypeError) as error:
        msg = f"{name!r} cannot be imported: {error}"
        raise DeclarationError(msg) from error


def _load_file(path: Path, name: str) -> Any:
    """Run a file as a module, as far as to where its work begins."""
    if not path.exists():
        raise DeclarationError(no_such_file(path))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        msg = f"{path} cannot be imported"
        raise DeclarationError(msg)
    # Modules beside the file are found, as when Python runs it.
    sys.path.insert(0, str(path.parent.resolve()))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        with loading(str(path)):
            spec.loader.exec_module(module)
    except (WorkBegins, SystemExit, Exception) as error:
        _check_usable(path, module, name, error)
    # Workers get the class itself: by name they might find another module.
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    return module


def _check_usable(path: Path, module: Any, name: str, error: BaseException) -> None:
    """Check that a class is complete in a file whose loading has ended early.

    It is, where the work of the script has begun (or its first Process cannot be made)
    and nothing that the code of the file reads would be set later.
    """
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals is vars(module) and frame.f_code.co_name == "<module>"
    ]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    defined = _member(module, name) is not None
    work = f"{type(error).__name__}: {error}"
    if isinstance(error, WorkBegins):
        work = f"it would {error}"
    elif not (lines and isinstance(error, (SystemExit, ResumableError))):
        msg = f"{path} cannot be imported: {work}"
        if isinstance(error, ImportError) and "relative import" in str(error):
            msg += f"; it is a part of a package: write {_name_in_package(path)}:{name}"
        elif defined:
            msg += f" (in line {lines[-1]}, below {name}; {_GUARD})"
        raise DeclarationError(msg) from error
    if not defined:
        names = set(_names_set(_parsed(path), {}))
        if not {name.partition(".")[0], "*"} & names:
            msg = f"{path} has no {name!r}{near_miss(name, sorted(names))}"
            raise DeclarationError(msg) from error
        msg = f"{where}: {work} before a class {name!r} is defined; {_GUARD}"
        raise DeclarationError(msg) from error
    later = _set_later(path, lines[-1], vars(module))
    if later:
        msg = (
            f"{where}: {work} before {', '.join(later)} is set, which code above it "
            f"reads; set it above, and {_GUARD}"
        )
        raise DeclarationError(msg) from error
    if isinstance(error, ResumableError):
        text = f"{where}: {work}. The rest of the file is not run; {_GUARD}"
        warnings.warn(text, ResumableWarning, stacklevel=2)
    else:
        logger.info("%s: %s, so the rest of the file is not run", where, work)


def _name_in_package(path: Path) -> str:
    """Return the name by which Python imports a file of a package."""
    folders = list(path.resolve().parents)
    levels = [getattr(node, "level", 0) for node in ast.walk(_parsed(path))]
    depth = max(1, *levels)
    while (folders[depth] / "__init__.py").exists():
        depth += 1
    return ".".join([*(f.name for f in reversed(folders[:depth])), path.stem])


def _text_of(path: Path) -> str:
    return importlib.util.decode_source(path.read_bytes())


def _parsed(path: Path) -> ast.Module:
    return ast.parse(_text_of(path))


def _set_later(path: Path, line: int, known: dict[str, Any]) -> list[str]:
    """Return names that a file sets from a line on, and functions above it read."""
    text = _text_of(path)
    read, tables = set(), symtable.symtable(text, str(path), "exec").get_children()
    tables = [table for table in tables if table.get_lineno() < line]
    while tables:
        table = tables.pop()
        read |= {
            symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()
        }
        tables += table.get_children()
    later = [part for part in _parsed(path).body if (part.end_lineno or 0) >= line]
    names = {name for part in later for name in _names_set(part, known)}
    return sorted(names & read)


def _names_set(node: ast.AST, known: dict[str, Any]) -> Iterator[str]:
    """Yield the names that a statement sets, outside of functions and classes."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
        return
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.alias):
        name = (node.asname or node.name).partition(".")[0]
        if name not in known:  # imported once more
            yield name
    for inner in ast.iter_child_nodes(node):
        yield from _names_set(inner, known)
