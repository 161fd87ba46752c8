"""What the code of a function reads by name: globals, modules, imports, files."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import linecache
import os
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable.identity.kinds import (
    MISSING,
    changes_as_a_whole,
    is_users_code,
    module_of,
    of_library,
)
from resumable.identity.objects import compiled_file, file_contents
from resumable.identity.origin import is_users
from resumable.identity.paths import file_named
from resumable.identity.reading import FINDERS, PROGRAMS
from resumable.identity.record import AT_FIRST, Entry, digest_of, kept_text
from resumable.identity.syntax import file_digest, statements_that_set, tree_digest

if TYPE_CHECKING:
    from resumable.identity.reading import Chains, Reading
    from resumable.identity.trace import Tracer

#: Methods that run when a class is made, and not when it computes.
_MAKES_CLASSES = ("__init_subclass__", "__set_name__")
#: How what is found only while code runs is told.
_FOUND = {
    **{name: f"{name} by a name that is computed" for name in FINDERS},
    "import_module": "import_module by a name that is computed",
    "environ": "the environment is read by a name that is computed",
    "sys.modules": "sys.modules by a name that is computed",
    "__subclasses__": "all subclasses of a class",
    **{name: f"runs a program: {name}" for name in PROGRAMS},
}
#: Functions that may find any global name.
_FIND_GLOBALS = ("globals", "eval", "exec", "vars", "locals")
#: Functions of ``random`` and ``numpy.random`` that draw no numbers.
_DRAW_NOTHING = (
    *("seed", "getstate", "setstate", "get_state", "set_state"),
    *("default_rng", "get_bit_generator", "set_bit_generator"),
)


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
    for name in reading.assigned - set(function.__code__.co_freevars):
        tracer.state.add(("global", id(space), name))
    if function.__name__ not in _MAKES_CLASSES:
        for name, attribute in reading.changes:
            _changed(tracer, space, name, attribute)
    for name, chains in reading.names.items():
        _global(tracer, space, name, chains, refers, file)
        module = getattr(space.get(name), "__name__", "")
        if function.__name__ != "setup":
            seeds = (".".join((module, *chain)) for chain in chains)
            tracer.seeded |= {one[:-5] for one in seeds if one.endswith(".seed")}
    for level, module, name, chains in reading.imports:
        _imported(tracer, space, (level, module, name, chains), refers)
    for text, name in sorted(reading.environment):
        variable = text or str(space.get(name))
        value = os.environ.get(variable)
        key = f"environment {variable}"
        tracer.entries[key] = Entry("environment", digest_of(value), repr(value))
    for line, called, expressions, named in reading.files:
        found = [file_named(one, space) for one in expressions if one]
        path = next(filter(None, found), None)
        if path is not None:
            document = file_contents(path, path.name, tracer)
            key, _ = tracer.key_at(str(path), f"file {path.name}")
            tracer.entries[key] = Entry("file", digest_of(document), place=str(path))
        # That of a parameter counts with it; "read" is of a file that is open, mostly.
        elif called != "read" and not tracer.is_file(function, named):
            tracer.note(f"reads files: {called} at {file}:{line}")
    for line, called in reading.unseeded if function.__name__ != "setup" else ():
        tracer.unseeded[f"{called}() at {file}:{line}"] = None
    for line, called in reading.finds:
        tracer.note(f"{_FOUND.get(called, called)} at {file}:{line}")
        if called in _FIND_GLOBALS:
            for name in sorted(reading.mentions & set(space) - set(reading.names)):
                _global(tracer, space, name, (), refers, file)


def _changed(tracer: Tracer, space: dict[str, Any], name: str, attribute: str) -> None:
    thing = space.get(name)
    if not attribute:
        if changes_as_a_whole(thing):
            tracer.state.add(("global", id(space), name))
    elif isinstance(thing, types.ModuleType):
        tracer.state.add(("global", id(vars(thing)), attribute))
    elif thing is not None:
        tracer.state.add(("attribute", id(thing), attribute))


def _global(
    tracer: Tracer,
    space: dict[str, Any],
    name: str,
    chains: Chains,
    refers: dict[str, Any],
    file: str,
) -> None:
    if ("global", id(space), name) in tracer.state:
        enter_first(tracer, space, (), name)
        refers[name] = tracer.changed(name, file)
        return
    if name not in space:
        builtins = space.get("__builtins__", {})
        known = vars(builtins) if isinstance(builtins, types.ModuleType) else builtins
        if name not in known:
            refers[name] = "missing"
        elif is_users_code(known[name]):
            refers[name] = tracer.part(name, known[name], name)
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
    chains: Chains,
    refers: dict[str, Any],
) -> None:
    """Follow attributes that are looked up on a module."""
    if not is_users(module.__name__):
        tracer.stop_at(module.__name__)
        refers[label] = {"module": module.__name__}
        for chain in chains:
            _replaced(tracer, module, chain, refers)
            _note_draws(tracer, module.__name__, *chain)
        return
    if not chains or () in chains:
        refers[label] = module_as_value(tracer, module)
    heads: dict[str, set[tuple[str, ...]]] = {}
    for chain in filter(None, chains):
        heads.setdefault(chain[0], set()).add(chain[1:])
    for head, rest in sorted(heads.items()):
        inner = f"{label}.{head}"
        thing = getattr(module, head, MISSING)
        if ("global", id(vars(module)), head) in tracer.state:
            enter_first(tracer, vars(module), (), head)
            refers[inner] = tracer.changed(inner, Path(module.__name__).name)
        elif thing is MISSING:
            refers[inner] = "missing"
        elif isinstance(thing, types.ModuleType):
            _through(tracer, inner, thing, tuple(sorted(rest)), refers)
        else:
            file = getattr(module, "__file__", None) or ""
            refers[inner] = _named(tracer, vars(module), head, thing, Path(file).name)


def _note_draws(tracer: Tracer, *parts: str) -> None:
    """Note a function that draws from the generator that all code shares."""
    full = ".".join(filter(None, parts))
    name = full.removeprefix("numpy.").removeprefix("random.")
    if full in (f"random.{name}", f"numpy.random.{name}") and (
        name[0].islower() and name not in _DRAW_NOTHING and "." not in name
    ):
        tracer.note_random(full)


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
    if ("global", id(space), name) in tracer.state:
        enter_first(tracer, space, (), name)
        return tracer.changed(name, file)
    origin = of_library(thing)
    if origin is not None:
        tracer.stop_at(origin)
        return {"library": origin}
    return tracer.part(name, thing, name, file)


def enter_first(
    tracer: Tracer, space: dict[str, Any], owners: tuple[str, ...], name: str
) -> None:
    """Enter the statements that set, at import, a variable that traced code changes.

    `owners` are the names of its class and of those around that, if it is one's.
    """
    statements = statements_that_set(space, owners, name)
    if not statements:
        return
    file = Path(space["__file__"])
    label = f"{'.'.join([file.stem, *owners, name])}{AT_FIRST}"
    key, new = tracer.key_at(str(file), label)
    if not new:
        return
    refers: dict[str, Any] = {}
    nodes = [node for statement in statements for node in ast.walk(statement)]
    for used in sorted({node.id for node in nodes if isinstance(node, ast.Name)}):
        if used != name and used in space:
            _global(tracer, space, used, (), refers, file.name)
    digest = digest_of([tree_digest(statements, docs=tracer.docs), refers])
    text = "; ".join(map(ast.unparse, statements))
    place = f"{file.name}:{statements[0].lineno}"
    tracer.entries[key] = Entry("value", digest, kept_text(text), place)


def _imported(
    tracer: Tracer,
    space: dict[str, Any],
    what: tuple[int, str, str, Chains],
    refers: dict[str, Any],
) -> None:
    """Follow an import in a function; a module of the user is imported."""
    level, module, name, chains = what
    label = f"import {'.' * level}{module} {name}".rstrip()
    if level:
        try:
            package = str(space.get("__package__") or "")
            module = importlib.util.resolve_name("." * level + module, package)
        except ImportError:
            refers[label] = "missing"
            return
    if not _is_users_module(module):
        tracer.stop_at(module)
        for chain in chains or ((),):
            _note_draws(tracer, module, name, *chain)
        return
    try:
        found: Any = importlib.import_module(module)
        if name and not hasattr(found, name):
            found = importlib.import_module(f"{module}.{name}")
            name = ""
    except Exception as error:  # importing runs the user's code
        refers[label] = f"missing: {type(error).__name__}"
        return
    if name and not isinstance(getattr(found, name), types.ModuleType):
        file = Path(getattr(found, "__file__", None) or "").name
        refers[label] = _named(tracer, vars(found), name, getattr(found, name), file)
    else:
        _through(tracer, label, getattr(found, name) if name else found, chains, refers)


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
        # What of it is used is not known: all code in it counts.
        inside = {
            name: tracer.visit(value, name)
            for name, value in sorted(vars(module).items())
            if is_users_code(value)
        }
        digest = digest_of([digest, inside])
        tracer.entries[key] = Entry("module", digest, place=file)
        tracer.note(f"{key} is used as a value: its whole file counts")
    return {"code": key}


@functools.lru_cache(1024)
def _is_users_module(module: str) -> bool:
    if module in sys.modules:
        return is_users(module)
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # a parent is imported, which runs code
        return False
    return bool(spec and spec.has_location and is_users(module, spec.origin))
