"""Trace what a computation is made of, from the objects in memory.

From the methods that Python would call, the trace goes to all of the user's own code
and constants that these reach: by name, through modules, closures, defaults, wrappers
and attributes. It stops at Python and at installed distributions.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import importlib
import importlib.util
import inspect
import linecache
import os
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import DeclarationError, IdentityError
from resumable.identity.objects import compiled_file, file_contents, short, write
from resumable.identity.origin import is_users
from resumable.identity.reading import Reading, reading_of
from resumable.identity.record import Entry, Trace, digest_of, kept_text
from resumable.identity.syntax import (
    EditedError,
    changed_after,
    code_digest,
    file_digest,
    text_of,
    tree_digest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Functions and classes that are traced one by one; beyond, whole files count.
MOST_CODE = 3000
#: Methods that set up an object: what they assign is no state.
_SETS_UP = ("__init__", "__new__", "__post_init__", "__setstate__", "__init_subclass__")
#: Attributes of a class that Python or a decorator has made.
_GENERATED_FILES = ("<string>", "<attrs generated", "<template>")
_BUILT_IN = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    np.ufunc,
)
_CODE = (
    types.FunctionType,
    types.MethodType,
    types.ModuleType,
    type,
    staticmethod,
    classmethod,
    property,
    functools.partial,
    functools.partialmethod,
    functools.cached_property,
    np.vectorize,
    *_BUILT_IN,
)
#: Attributes by which wrappers of compiled functions, as numba's, give the function.
_PY_FUNCTIONS = ("py_func", "_pyfunc", "__wrapped__")
_CONTAINERS = (dict, list, set, np.ndarray)
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_ROUNDS = 6

#: Code object -> digest of its compiled code. Held, so that no id is used twice.
_code_digests: dict[int, tuple[types.CodeType, str]] = {}
#: Digest of compiled code, and whether docstrings count -> its tree and reading.
_readings: dict[tuple[str, bool, str], tuple[str, Reading]] = {}


class Tracer:
    """Traces once. `stop` is the base class whose methods, and those above, are ours.

    `codes` are :attr:`Trace.codes` of the process that sent the objects. With
    `lenient`, code edited since it was imported counts as it is in memory.
    """

    def __init__(
        self,
        stop: type | None = None,
        *,
        codes: Mapping[str, tuple[str, Reading]] | None = None,
        lenient: bool = False,
        before: Tracer | None = None,
    ) -> None:
        self._stop = stop.__mro__ if stop else (object,)
        self._given, self._lenient = codes or {}, lenient
        self.entries: dict[str, Entry] = {}
        self.modules: dict[str, None] = {}
        self.notes: dict[str, None] = {}
        self.codes: dict[str, tuple[str, Reading]] = {}
        self.mentions: set[str] = set()
        self.reads_files = True
        self._keys: dict[int, str] = {}
        self._held: list[Any] = []  # ids stay unique as long as these are alive
        self._written: dict[int, Any] = {}
        self._objects = 0
        self._code = 0
        #: What traced code changes; known after a first trace.
        self.state: set[tuple[str, int, str]] = set(before.state) if before else set()
        self.docs: bool = before is not None and before.docs
        self.finds_names = False

    def trace(self) -> Trace:
        """Return what was traced so far."""
        digests = {key: entry.digest for key, entry in self.entries.items()}
        return Trace(
            digest_of(digests),
            self.entries,
            tuple(sorted(self.modules)),
            tuple(self.notes),
            self.codes,
        )

    def settled(self, before: Tracer | None) -> bool:
        """Return whether nothing was learnt that another trace needs to know."""
        known = (before.state, before.docs) if before else (set(), False)
        return known == (self.state, self.docs)

    # What objects.write asks for.

    def note(self, text: str) -> None:
        """Note, in words, what is not followed."""
        self.notes[text] = None

    def stop_at(self, module: str) -> None:
        """Note a module of Python or of an installed distribution."""
        self.modules[module.partition(".")[0]] = None

    def count_object(self, where: str, most: int) -> None:
        """Count an object that is looked into; IdentityError beyond `most`."""
        self._objects += 1
        if self._objects > most:
            msg = (
                f"{where} and what else is part of the identity hold more than "
                f"{most:,} objects; use a numpy array, or a file"
            )
            raise IdentityError(msg)

    def is_code(self, value: Any) -> bool:
        """Return whether a value is followed as code and not by its contents."""
        return isinstance(value, _CODE) or _py_function(value) is not None

    def is_state(self, cls: type, name: str) -> bool:
        """Return whether traced code changes this attribute of a class's objects."""
        return any(("attribute", id(part), name) in self.state for part in cls.__mro__)

    def written(self, value: Any) -> Any:
        """Return what an object was written as, if it was."""
        return self._written.get(id(value))

    @contextlib.contextmanager
    def writing(self, value: Any) -> Iterator[None]:
        """Have an object that is being written refer to itself."""
        self._held.append(value)
        self._written[id(value)] = {"object": [type(value).__qualname__, "itself"]}
        try:
            yield
        except BaseException:
            del self._written[id(value)]
            raise

    def keep(self, value: Any, document: Any) -> None:
        """Keep what an object is written as."""
        self._written[id(value)] = document

    # Values.

    def value(self, key: str, value: Any, where: str, place: str = "") -> None:
        """Enter a value under a name of its own."""
        document = write(value, where, self)
        self.entries[key] = Entry("value", digest_of(document), short(value), place)

    # Code.

    def visit(self, thing: Any, name: str) -> Any:
        """Trace an object that is code; return what refers to it, as plain JSON."""
        if isinstance(thing, (functools.partial, functools.partialmethod)):
            kind = type(thing).__name__
            values = write([list(thing.args), thing.keywords], name, self)
            return {kind: [self.visit(thing.func, name), values]}
        if isinstance(thing, (staticmethod, classmethod)):
            return {type(thing).__name__: self.visit(thing.__func__, name)}
        if isinstance(thing, property):
            parts = (thing.fget, thing.fset, thing.fdel)
            return {"property": [part and self.visit(part, name) for part in parts]}
        if isinstance(thing, functools.cached_property):
            return {"property": self.visit(thing.func, name)}
        if isinstance(thing, types.FunctionType):
            return self._function(thing, name)
        if isinstance(thing, types.MethodType):
            owner = write(thing.__self__, name, self)
            return {"method": [self.visit(thing.__func__, name), owner]}
        if isinstance(thing, types.ModuleType):
            return self._module(thing)
        if isinstance(thing, type):
            return self._class(thing)
        if isinstance(thing, np.vectorize):
            self.stop_at("numpy")
            return {"vectorize": self.visit(thing.pyfunc, name)}
        plain = _py_function(thing)
        if plain is not None:
            self.stop_at(type(thing).__module__)
            options = getattr(thing, "targetoptions", None) or {}
            options = {key: repr(value) for key, value in sorted(options.items())}
            return {type(thing).__name__: [self.visit(plain, name), options]}
        if isinstance(thing, _BUILT_IN):
            return self._built_in(thing, name)
        return write(thing, name, self)

    def _built_in(self, thing: Any, name: str) -> Any:
        owner = getattr(thing, "__self__", None)
        owner_type = getattr(thing, "__objclass__", None)
        module = getattr(thing, "__module__", None) or (
            owner_type.__module__
            if owner_type
            else "numpy"
            if isinstance(thing, np.ufunc)
            else "builtins"
        )
        label = getattr(thing, "__qualname__", getattr(thing, "__name__", repr(thing)))
        if is_users(module):
            file = compiled_file(module)
            if file is not None:
                return {"compiled": [label, file_contents(file, name, self)]}
        self.stop_at(module)
        if owner is None or isinstance(owner, types.ModuleType):
            return {"library": f"{module}.{label}"}
        return {"library": [f"{module}.{label}", write(owner, name, self)]}

    def _key(self, thing: Any, name: str) -> tuple[str, bool]:
        """Return the name of an entry, and whether it is new."""
        known = self._keys.get(id(thing))
        if known is not None:
            return known, False
        self._held.append(thing)
        key = self._free(name)
        self._keys[id(thing)] = key
        return key, True

    def _free(self, name: str) -> str:
        key, number = name, 1
        while key in self.entries:
            number += 1
            key = f"{name}#{number}"
        # It has its place from now on: what it refers to may refer to it.
        self.entries[key] = Entry("", "")
        return key

    def _function(self, function: types.FunctionType, name: str) -> Any:
        registry = getattr(function, "registry", None)
        if registry is not None and hasattr(function, "dispatch"):
            found = {
                kind.__qualname__: self.visit(how, how.__qualname__)
                for kind, how in sorted(
                    registry.items(), key=lambda item: item[0].__qualname__
                )
            }
            return {"singledispatch": found}
        code, module = function.__code__, _module_of(function)
        wrapped = getattr(function, "__wrapped__", None)
        if not is_users(module, code.co_filename):
            self.stop_at(module)
            name_there = f"{module}.{function.__qualname__}"
            inner = [self._of_cell(cell) for cell in function.__closure__ or ()]
            # A wrapper of a library around a function of the user.
            users = [part for part in (wrapped, *inner) if self._is_users(part)]
            if wrapped is not None or users:
                users += [part for part in inner if type(part) in _PLAIN]
            if not users:
                return {"library": name_there}
            return {
                "wrapper": [name_there, [write(part, name, self) for part in users]]
            }
        key, new = self._key(function, function.__qualname__)
        if not new:
            return {"code": key}
        self._code += 1
        if self._code > MOST_CODE:
            del self.entries[key]
            return self._whole_file(function, module)
        tree, reading, text = self._read(function)
        place = _place(code)
        refers: dict[str, Any] = {}
        self._follow(function, reading, refers, place)
        closed = {}
        for variable, cell in zip(
            code.co_freevars, function.__closure__ or (), strict=True
        ):
            # A variable that is not set yet raises ValueError.
            with contextlib.suppress(ValueError):
                if variable != "__class__":  # used by super()
                    label = f"{key}.{variable}"
                    content = cell.cell_contents
                    plain = isinstance(content, _CONTAINERS) or type(content) in _PLAIN
                    if variable in reading.changes_closed and plain:
                        self.state.add(("cell", id(cell), ""))
                    if ("cell", id(cell), "") in self.state:
                        closed[variable] = self._state(variable, place)
                        continue
                    closed[variable] = self._part(
                        label, content, f"{variable!r}, used by {key} from outside,"
                    )
        defaults = [
            self._part(f"{key}.{argument}", value, f"the default of {argument!r}")
            for argument, value in _defaults(function)
        ]
        own = {
            attribute: self._part(f"{key}.{attribute}", value, f"{key}.{attribute}")
            for attribute, value in sorted(vars(function).items())
            if not attribute.startswith("__")
            and ("attribute", id(function), attribute) not in self.state
        }
        if wrapped is not None:
            own["__wrapped__"] = self.visit(wrapped, key)
        self.entries[key] = Entry(
            "function",
            digest_of([tree, refers, closed, defaults, own]),
            kept_text(text),
            place,
        )
        return {"code": key}

    def _part(self, label: str, value: Any, where: str) -> Any:
        """Refer to a value that code uses: code by name, others as an entry."""
        if self.is_code(value):
            return self.visit(value, where)
        if type(value) in _PLAIN and not isinstance(value, str):
            document = write(value, where, self)
            key = self._free(label)
            self.entries[key] = Entry("value", digest_of(document), short(value))
            return {"value": key}
        key = self._free(label)
        self.value(key, value, where)
        return {"value": key}

    def _of_cell(self, cell: Any) -> Any:
        try:
            return cell.cell_contents
        except ValueError:
            return None

    def _is_users(self, thing: Any) -> bool:
        plain = inspect.unwrap(thing) if hasattr(thing, "__wrapped__") else thing
        plain = getattr(plain, "__func__", plain)
        plain = _py_function(plain) or plain
        if isinstance(plain, types.FunctionType):
            return is_users(_module_of(plain), plain.__code__.co_filename)
        return isinstance(plain, type) and is_users(plain.__module__)

    def _read(self, function: types.FunctionType) -> tuple[Any, Reading, str]:
        """Return digest of the tree, reading and text of a function."""
        code = function.__code__
        held = _code_digests.get(id(code))
        if held is None or held[0] is not code:
            held = _code_digests[id(code)] = code, code_digest(code)
        compiled = held[1]
        self.docs |= "__doc__" in code.co_names
        given = self._given.get(compiled)
        if given is not None:
            tree, reading = given
            text = ""
        else:
            tree, reading, text = self._read_text(function, compiled)
        self.codes[compiled] = tree, reading
        self.mentions |= reading.mentions
        self.finds_names |= any(name != "environ" for _, name in reading.finds)
        return tree, reading, text

    def _read_text(
        self, function: types.FunctionType, compiled: str
    ) -> tuple[str, Reading, str]:
        code = function.__code__
        try:
            text = text_of(code, function.__globals__)
        except EditedError:
            if not self._lenient and changed_after(code.co_filename, _process_began()):
                msg = (
                    f"{code.co_filename} was edited after {function.__qualname__} was "
                    "imported from it: import it anew (restart the kernel), so that "
                    "what is computed is what is written there"
                )
                raise DeclarationError(msg) from None
            text = None
        if text is None:
            version = f"{sys.version_info[0]}.{sys.version_info[1]}"
            self.note(
                f"{function.__qualname__} has no text: its compiled code counts, which "
                "is another in every version of Python"
            )
            return f"{version} {compiled}", reading_of(code, None), ""
        known = compiled, self.docs, text.lines
        if known not in _readings:
            if len(_readings) > 20_000:
                _readings.clear()
            _readings[known] = (
                tree_digest(text.nodes, docs=self.docs),
                reading_of(code, text.nodes),
            )
        return (*_readings[known], text.lines)

    def _whole_file(self, function: types.FunctionType, module: str) -> Any:
        name = function.__code__.co_filename
        text = "".join(linecache.getlines(name, function.__globals__))
        key = f"file {module.rpartition('.')[2]}"
        if key not in self.entries:
            self.entries[key] = Entry("module", file_digest(text), place=name)
            self.note(f"{name}: more code than is traced, the whole file counts")
        return {"code": key}

    # Names.

    def _follow(
        self,
        function: types.FunctionType,
        reading: Reading,
        refers: dict[str, Any],
        place: str,
    ) -> None:
        """Follow what a function reads."""
        file = place.rpartition(":")[0]
        space = function.__globals__
        for name, attribute in reading.changes:
            self._changed(space, name, attribute)
        for name, chains in reading.names.items():
            self._global(space, name, chains, refers, file)
        for level, module, name in reading.imports:
            self._imported(space, level, module, name, refers)
        for variable in sorted(reading.environment):
            value = os.environ.get(variable)
            key = f"environment {variable}"
            self.entries[key] = Entry("environment", digest_of(value), repr(value))
        for line, called, literal in reading.files:
            if literal is not None and Path(literal).is_file():
                document = file_contents(Path(literal), literal, self)
                digest = digest_of(document)
                self.entries[f"file {Path(literal).name}"] = Entry(
                    "file", digest, place=literal
                )
            else:
                self.note(f"reads files: {called} at {file}:{line}")
        for line, called in reading.finds:
            how = "a name that is computed"
            self.note(f"{called} by {how} at {file}:{line}")

    def _changed(self, space: dict[str, Any], name: str, attribute: str) -> None:
        thing = space.get(name)
        if not attribute:
            if name in space and not callable(thing):
                self.state.add(("global", id(space), name))
        elif isinstance(thing, types.ModuleType):
            self.state.add(("global", id(vars(thing)), attribute))
        elif isinstance(thing, (type, types.FunctionType)):
            self.state.add(("attribute", id(thing), attribute))
        elif thing is not None:
            self.state.add(("attribute", id(type(thing)), attribute))

    def _global(
        self,
        space: dict[str, Any],
        name: str,
        chains: tuple[tuple[str, ...], ...],
        refers: dict[str, Any],
        file: str,
    ) -> None:
        if name not in space:
            builtins = space.get("__builtins__", {})
            known = (
                vars(builtins) if isinstance(builtins, types.ModuleType) else builtins
            )
            if name not in known:
                refers[name] = "missing"
            return
        thing = space[name]
        if isinstance(thing, types.ModuleType):
            self._through(name, thing, chains, refers)
        else:
            refers[name] = self._named(space, name, thing, file)

    def _through(
        self,
        label: str,
        module: types.ModuleType,
        chains: tuple[tuple[str, ...], ...],
        refers: dict[str, Any],
    ) -> None:
        """Follow attributes that are looked up on a module."""
        if not is_users(module.__name__):
            self.stop_at(module.__name__)
            refers[label] = {"module": module.__name__}
            return
        if not chains:
            refers[label] = self._module(module)
        heads: dict[str, set[tuple[str, ...]]] = {}
        for chain in chains:
            heads.setdefault(chain[0], set()).update([chain[1:]] if chain[1:] else [])
        for head, rest in sorted(heads.items()):
            inner = f"{label}.{head}"
            thing = getattr(module, head, _MISSING)
            if thing is _MISSING:
                refers[inner] = "missing"
            elif isinstance(thing, types.ModuleType):
                self._through(inner, thing, tuple(sorted(rest)), refers)
            else:
                file = getattr(module, "__file__", None) or ""
                refers[inner] = self._named(vars(module), head, thing, Path(file).name)

    def _named(self, space: dict[str, Any], name: str, thing: Any, file: str) -> Any:
        """Refer to what a module has under a name."""
        plain = isinstance(thing, _CONTAINERS) or type(thing) in _PLAIN
        if plain and ("global", id(space), name) in self.state:
            return self._state(name, file)
        origin = _of_library(thing)
        if origin is not None:
            self.stop_at(origin)
            return {"library": origin}
        return self._part(name, thing, name)

    def _state(self, name: str, place: str) -> str:
        self.note(
            f"{name} ({place}) is changed by the computation: what it holds is not "
            "part of the identity"
        )
        return "state"

    def _imported(
        self,
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
            self.stop_at(module)
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
            refers[label] = self._module(found)
        elif name and not isinstance(getattr(found, name), types.ModuleType):
            file = Path(getattr(found, "__file__", None) or "").name
            refers[label] = self._named(vars(found), name, getattr(found, name), file)
        else:
            # What is used of it is not known.
            refers[label] = self._module(getattr(found, name) if name else found)

    def _module(self, module: types.ModuleType) -> Any:
        """Refer to a module that is used as a value: its whole file counts."""
        if not is_users(module.__name__):
            self.stop_at(module.__name__)
            return {"module": module.__name__}
        key, new = self._key(module, f"module {module.__name__.rpartition('.')[2]}")
        if new:
            file = getattr(module, "__file__", None) or ""
            compiled = compiled_file(module.__name__)
            if compiled is not None:
                digest = digest_of(file_contents(compiled, key, self))
            else:
                digest = file_digest("".join(linecache.getlines(file, vars(module))))
            self.entries[key] = Entry("module", digest, place=file)
            self.note(
                f"{key} is used as a value: its file counts, and not what it imports"
            )
        return {"code": key}

    # Classes.

    def _class(self, cls: type) -> Any:
        if cls in self._stop or not is_users(cls.__module__):
            self.stop_at(cls.__module__)
            return {"library": f"{cls.__module__}.{cls.__qualname__}"}
        key, new = self._key(cls, cls.__qualname__)
        if not new:
            return {"code": key}
        bases = [self._class(base) for base in cls.__mro__[1:-1]]
        compiled = compiled_file(cls.__module__)
        members: dict[str, Any] = {}
        if compiled is not None:
            members["file"] = file_contents(compiled, key, self)
        for name, value in sorted(vars(cls).items()):
            if self.is_member(cls, name, value):
                members[name] = self.member(cls, name, value)
        if self.docs:
            members["__doc__"] = cls.__doc__
        members.update(_fields(cls, self))
        self.entries[key] = Entry("class", digest_of([bases, members]))
        return {"code": key}

    def is_member(self, cls: type, name: str, value: Any) -> bool:
        """Return whether something of a class counts."""
        kind = type(value)
        if name.startswith("_param__") or kind.__module__.partition(".")[0] == "param":
            return False
        if isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType)):
            return False
        if kind.__module__ in ("_abc", "_collections"):
            return False
        plain = getattr(value, "__func__", value)
        if isinstance(plain, types.FunctionType):
            generated = plain.__code__.co_filename.startswith(_GENERATED_FILES)
            named = plain.__qualname__.startswith(f"{cls.__qualname__}.__")
            return not (generated and (named or name.startswith("_")))
        if name.startswith("__") and name.endswith("__"):
            return isinstance(value, (classmethod, staticmethod, property))
        return not (isinstance(cls, enum.EnumMeta) and name.startswith("_"))

    def member(self, cls: type, name: str, value: Any) -> Any:
        """Refer to what a class has under a name, and learn what it changes of it."""
        for function in _functions_of(value):
            if name not in _SETS_UP:
                self._note_own(cls, function)
        if ("attribute", id(cls), name) in self.state and not self.is_code(value):
            return "state"
        return self._part(f"{cls.__qualname__}.{name}", value, f"{cls.__name__}.{name}")

    def _note_own(self, cls: type, function: types.FunctionType) -> None:
        if is_users(_module_of(function), function.__code__.co_filename):
            _, reading, _ = self._read(function)
            self.state |= {("attribute", id(cls), own) for own in reading.changes_own}


_MISSING = object()


def _py_function(thing: Any) -> Any:
    """Return the Python function of a wrapper of a library, as of numba; else None."""
    if isinstance(
        thing, (types.FunctionType, types.MethodType, type, types.ModuleType)
    ):
        return None
    module = type(thing).__module__
    if module.startswith("numba") or type(thing).__name__ == "_lru_cache_wrapper":
        for name in _PY_FUNCTIONS:
            plain = getattr(thing, name, None)
            if callable(plain):
                return plain
        return getattr(getattr(thing, "_dispatcher", None), "py_func", None)
    return None


def _functions_of(value: Any) -> list[types.FunctionType]:
    parts: list[Any] = [value]
    if isinstance(value, property):
        parts = [value.fget, value.fset, value.fdel]
    elif isinstance(value, (functools.cached_property, functools.partialmethod)):
        parts = [value.func]
    plain = [inspect.unwrap(getattr(part, "__func__", part)) for part in parts if part]
    return [part for part in plain if isinstance(part, types.FunctionType)]


def _module_of(function: types.FunctionType) -> str:
    return str(function.__globals__.get("__name__") or "__main__")


def _place(code: types.CodeType) -> str:
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}"


def _defaults(function: types.FunctionType) -> list[tuple[str, Any]]:
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][-len(values) :] if values else ()
    keywords = sorted((function.__kwdefaults__ or {}).items())
    return [*zip(names, values, strict=True), *keywords]


def _of_library(thing: Any) -> str | None:
    """Return module and name of an object that a library has made for all to use."""
    if isinstance(thing, (*_CODE, *_PLAIN, *_CONTAINERS, tuple)):
        return None
    module = str(type(thing).__module__)
    if is_users(module):
        return None
    parts = module.split(".")
    for count in range(len(parts), 0, -1):
        home = sys.modules.get(".".join(parts[:count]))
        for name, value in list(vars(home).items()) if home else ():
            if value is thing:
                return f"{'.'.join(parts[:count])}.{name}"
    return None


@functools.lru_cache(1024)
def _is_users_module(module: str) -> bool:
    if module in sys.modules:
        return is_users(module)
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # a parent is imported, which runs code
        return False
    return bool(spec and spec.origin and is_users(module, spec.origin))


def _fields(cls: type, tracer: Tracer) -> dict[str, Any]:
    """Return fields that dataclasses, attrs and pydantic have taken from a class."""
    made: dict[str, Any] = {}
    for name in ("__dataclass_fields__", "__attrs_attrs__", "__pydantic_fields__"):
        fields = vars(cls).get(name)
        if not fields:
            continue
        items = (
            fields.items()
            if isinstance(fields, dict)
            else ((field.name, field) for field in fields)
        )
        for field, how in items:
            parts = [
                getattr(how, "default", None),
                getattr(how, "default_factory", None),
            ]
            made[f"field {field}"] = [
                None
                if _is_marker(part)
                else write(part, f"{cls.__name__}.{field}", tracer)
                for part in parts
            ]
    return made


def _is_marker(part: Any) -> bool:
    """Return whether a default says that there is none."""
    named = ("_MISSING_TYPE", "_Nothing", "PydanticUndefinedType")
    return type(part).__name__ in named


@functools.cache
def _process_began() -> float:
    """Return when this process began, in seconds since 1970."""
    import psutil  # its import takes as long as a short run

    return float(psutil.Process().create_time())
