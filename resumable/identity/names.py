"""What the code of a function reads by name: globals, modules, imports, files."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import linecache
import os
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable.identity.kinds import CONTAINERS, MISSING, PLAIN, module_of, of_library
from resumable.identity.objects import compiled_file, file_contents
from resumable.identity.origin import is_users
from resumable.identity.record import Entry, digest_of
from resumable.identity.syntax import file_digest

if TYPE_CHECKING:
    from resumable.identity.reading import Reading
    from resumable.identity.trace import Tracer


def follow(
    tracer: Tracer,
    function: types.FunctionType,
    reading: Reading,
    refers: dict[str, Any],
    place: str,
) -> None:
    """Follow what a function reads."""
    file = place.rpartition(":")[0]
    space = function.__globals__
    for name, attribute in reading.changes:
        _changed(tracer, space, name, attribute)
    for name, chains in reading.names.items():
        _global(tracer, space, name, chains, refers, file)
    for level, module, name in reading.imports:
        _imported(tracer, space, level, module, name, refers)
    for variable in sorted(reading.environment):
        value = os.environ.get(variable)
        key = f"environment {variable}"
        tracer.entries[key] = Entry("environment", digest_of(value), repr(value))
    for line, called, literal in reading.files:
        if literal is not None and Path(literal).is_file():
            document = file_contents(Path(literal), literal, tracer)
            digest = digest_of(document)
            tracer.entries[f"file {Path(literal).name}"] = Entry(
                "file", digest, place=literal
            )
        else:
            tracer.note(f"reads files: {called} at {file}:{line}")
    for line, called in reading.finds:
        how = "a name that is computed"
        tracer.note(f"{called} by {how} at {file}:{line}")


def _changed(tracer: Tracer, space: dict[str, Any], name: str, attribute: str) -> None:
    thing = space.get(name)
    if not attribute:
        if name in space and not callable(thing):
            tracer.state.add(("global", id(space), name))
    elif isinstance(thing, types.ModuleType):
        tracer.state.add(("global", id(vars(thing)), attribute))
    elif isinstance(thing, (type, types.FunctionType)):
        tracer.state.add(("attribute", id(thing), attribute))
    elif thing is not None:
        tracer.state.add(("attribute", id(type(thing)), attribute))


def _global(
    tracer: Tracer,
    space: dict[str, Any],
    name: str,
    chains: tuple[tuple[str, ...], ...],
    refers: dict[str, Any],
    file: str,
) -> None:
    if name not in space:
        builtins = space.get("__builtins__", {})
        known = vars(builtins) if isinstance(builtins, types.ModuleType) else builtins
        if name not in known:
            refers[name] = "missing"
        return
    thing = space[name]
    if isinstance(thing, types.ModuleType):
        _through(tracer, name, thing, chains, refers)
    else:
        refers[name] = _named(tracer, space, name, thing, file)


def _through(
    tracer: Tracer,
    label: str,
    module: types.ModuleType,
    chains: tuple[tuple[str, ...], ...],
    refers: dict[str, Any],
) -> None:
    """Follow attributes that are looked up on a module."""
    if not is_users(module.__name__):
        tracer.stop_at(module.__name__)
        refers[label] = {"module": module.__name__}
        for chain in chains:
            _replaced(tracer, module, chain, refers)
        return
    if not chains:
        refers[label] = module_as_value(tracer, module)
    heads: dict[str, set[tuple[str, ...]]] = {}
    for chain in chains:
        heads.setdefault(chain[0], set()).update([chain[1:]] if chain[1:] else [])
    for head, rest in sorted(heads.items()):
        inner = f"{label}.{head}"
        thing = getattr(module, head, MISSING)
        if thing is MISSING:
            refers[inner] = "missing"
        elif isinstance(thing, types.ModuleType):
            _through(tracer, inner, thing, tuple(sorted(rest)), refers)
        else:
            file = getattr(module, "__file__", None) or ""
            refers[inner] = _named(tracer, vars(module), head, thing, Path(file).name)


def _replaced(
    tracer: Tracer, module: Any, chain: tuple[str, ...], refers: dict[str, Any]
) -> None:
    """Follow a function of the user that has taken the place of one of a library."""
    found = module
    for name in chain:
        if not isinstance(found, types.ModuleType):
            return
        # Not by getattr, which may import.
        found = vars(found).get(name)
    if isinstance(found, types.FunctionType) and is_users(
        module_of(found), found.__code__.co_filename
    ):
        label = ".".join((module.__name__, *chain))
        refers[label] = tracer.part(label, found, label)


def _named(
    tracer: Tracer, space: dict[str, Any], name: str, thing: Any, file: str
) -> Any:
    """Refer to what a module has under a name."""
    plain = isinstance(thing, CONTAINERS) or type(thing) in PLAIN
    if plain and ("global", id(space), name) in tracer.state:
        return tracer.changed(name, file)
    origin = of_library(thing)
    if origin is not None:
        tracer.stop_at(origin)
        return {"library": origin}
    return tracer.part(name, thing, name, file)


def _imported(
    tracer: Tracer,
    space: dict[str, Any],
    level: int,
    module: str,
    name: str,
    refers: dict[str, Any],
) -> None:
    """Follow an import in a function; a module of the user is imported."""
    label = f"import {'.' * level}{module} {name}".rstrip()
    if level:
        try:
            package = str(space.get("__package__") or "")
            module = importlib.util.resolve_name("." * level + module, package)
        except ImportError:
            refers[label] = "missing"
            return
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or not _is_users_module(module):
        tracer.stop_at(module)
        return
    try:
        found: Any = importlib.import_module(module)
        if name and not hasattr(found, name):
            found = importlib.import_module(f"{module}.{name}")
            name = ""
    except Exception as error:  # importing runs the user's code
        refers[label] = f"missing: {type(error).__name__}"
        return
    if name == "*":
        refers[label] = module_as_value(tracer, found)
    elif name and not isinstance(getattr(found, name), types.ModuleType):
        file = Path(getattr(found, "__file__", None) or "").name
        refers[label] = _named(tracer, vars(found), name, getattr(found, name), file)
    else:
        # What is used of it is not known.
        refers[label] = module_as_value(tracer, getattr(found, name) if name else found)


def module_as_value(tracer: Tracer, module: types.ModuleType) -> Any:
    """Refer to a module that is used as a value: its whole file counts."""
    if not is_users(module.__name__):
        tracer.stop_at(module.__name__)
        return {"module": module.__name__}
    key, new = tracer.key(module, f"module {module.__name__.rpartition('.')[2]}")
    if new:
        file = getattr(module, "__file__", None) or ""
        compiled = compiled_file(module.__name__)
        if compiled is not None:
            digest = digest_of(file_contents(compiled, key, tracer))
        else:
            digest = file_digest("".join(linecache.getlines(file, vars(module))))
        tracer.entries[key] = Entry("module", digest, place=file)
        tracer.note(
            f"{key} is used as a value: its file counts, and not what it imports"
        )
    return {"code": key}


@functools.lru_cache(1024)
def _is_users_module(module: str) -> bool:
    if module in sys.modules:
        return is_users(module)
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # a parent is imported, which runs code
        return False
    return bool(spec and spec.origin and is_users(module, spec.origin))
