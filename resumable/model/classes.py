"""Classes of users: the one that a text names, and whether it is still the same."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from resumable.errors import DeclarationError, near_miss
from resumable.model.source_text import source_text, text_digest


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


def file_of(cls: type) -> tuple[str, int] | None:
    """Return the file of a class and when it was last written, in ns since 1970."""
    name = getattr(sys.modules.get(cls.__module__), "__file__", None)
    try:
        return (name, Path(name).stat().st_mtime_ns) if name else None
    except OSError:
        return None


def check_text(cls: type, read_from: tuple[str, int] | None, text: str) -> None:
    """Check that a class here is the one that the driver has imported.

    Parameters
    ----------
    cls : type
        The class here.
    read_from : (str, int), optional
        Its file and when that was written, as the driver knows it.
    text : str
        Digest of its source text there, empty when there is none.

    Raises
    ------
    DeclarationError
        It is another one.
    """
    here = getattr(cls, "_read_from", None)
    if read_from == here:
        return
    # On another host the same file can have another name and time. Its text counts,
    # if it is still what was imported.
    found = source_text(cls) if text and here == file_of(cls) else None
    if found is None or text_digest(found) != text:
        msg = (
            f"{read_from and read_from[0]} was edited while it was at work, or is "
            "another one where the worker is: run it again (workers that live longer "
            "than a run must be started anew), so that one run is not computed by two "
            "versions"
        )
        raise DeclarationError(msg)


def uncached(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object, without the values of its cached properties.

    They may be of parameters that have changed since.
    """
    cls = type(thing)
    return {
        name: value
        for name, value in vars(thing).items()
        if not isinstance(getattr(cls, name, None), functools.cached_property)
    }
