"""Trace what a computation is made of, from the objects in memory.

From the methods that Python would call, the trace goes to all of the user's own code
and constants that these reach: by name, through modules, closures, defaults, wrappers
and attributes. It stops at Python and at installed distributions.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import linecache
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import DeclarationError, IdentityError
from resumable.identity.classes import trace_class
from resumable.identity.kinds import (
    BUILT_IN,
    CODE,
    PLAIN,
    changes_as_a_whole,
    is_users_code,
    module_of,
    py_function,
)
from resumable.identity.names import follow, module_as_value
from resumable.identity.objects import (
    compiled_file,
    file_contents,
    is_shared_generator,
    short,
    write,
)
from resumable.identity.origin import is_users
from resumable.identity.reading import FINDERS, Reading, reading_of
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
#: Names by which code reads docstrings and annotations.
_READ_TEXTS = frozenset(
    ("__doc__", "getdoc", "__annotations__", "get_annotations", "get_type_hints")
)
#: Code object -> digest of its compiled code. Held, so that no id is used twice.
_code_digests: dict[int, tuple[types.CodeType, str]] = {}
#: Digest of compiled code, and whether docstrings count -> its tree and reading.
_readings: dict[tuple[str, bool, str], tuple[str, Reading]] = {}


#: Most functions of a library around each other that are looked into.
_WRAPPERS = 4


class Tracer:
    """Traces once. `stop` is the base class whose methods, and those above, are ours.

    `codes` are :attr:`Trace.codes` of the process that sent the objects. With
    `lenient`, code edited since it was imported counts as it is in memory, and
    constants that cannot be identified do not count. `renamed` is a class and the name
    that it had: the trace is what it was then.
    """

    def __init__(
        self,
        stop: type | None = None,
        *,
        codes: Mapping[str, tuple[str, Reading]] | None = None,
        lenient: bool = False,
        before: Tracer | None = None,
        renamed: tuple[type, str] | None = None,
        tables: bool = True,
    ) -> None:
        self.stop = stop.__mro__ if stop else (object,)
        self._given, self._lenient = codes or {}, lenient
        #: Whether constants other than numbers and texts are written.
        self._tables = tables
        self._names: list[tuple[str, str]] = []
        if renamed is not None:
            cls, then = renamed
            outer = cls.__qualname__.removesuffix(cls.__name__)
            self._names = [(cls.__qualname__, outer + then), (cls.__name__, then)]
        self.entries: dict[str, Entry] = {}
        self.modules: dict[str, None] = {}
        self.notes: dict[str, None] = {}
        self.random: dict[str, None] = {}
        self.unseeded: dict[str, None] = {}
        #: Modules whose generator code seeds when it computes, and not only in setup().
        self.seeded: set[str] = set()
        self.codes: dict[str, tuple[str, Reading]] = {}
        self.mentions: set[str] = set()
        self.reads_files = True
        #: Classes and names of their parameters that are files.
        self.files: set[tuple[str, str]] = set()
        self._keys: dict[int, str] = {}
        self._places: dict[tuple[str, str], str] = {}
        self._held: list[Any] = []  # ids stay unique as long as these are alive
        self._written: dict[int, Any] = {}
        self._objects = 0
        self._code = 0
        #: What traced code changes; known after a first trace.
        self.state: set[tuple[str, int, str]] = set(before.state) if before else set()
        self.docs: bool = before is not None and before.docs
        self.finds_names = False
        #: Class, method, what must happen to it, and the attributes it changes then.
        self.own_changes: list[tuple[int, str, str, frozenset[tuple[str, bool]]]] = []

    def trace(self) -> Trace:
        """Return what was traced so far."""
        digests = {key: entry.digest for key, entry in self.entries.items()}
        return Trace(
            digest_of(digests),
            self.entries,
            tuple(sorted(self.modules)),
            tuple(self.notes),
            tuple(
                one for one in self.random if one.rpartition(".")[0] not in self.seeded
            ),
            tuple(self.unseeded),
            tuple(sorted(self.seeded)),
            self.codes,
        )

    def settled(self, before: Tracer | None) -> bool:
        """Return whether nothing was learnt that another trace needs to know."""
        self._learn_state()
        known = (before.state, before.docs) if before else (set(), False)
        return known == (self.state, self.docs)

    def _learn_state(self) -> None:
        """Take for state what methods change that traced code calls or assigns to."""
        known = -1
        while known < len(self.state):
            known = len(self.state)
            for cls, name, how, changed in self.own_changes:
                special = name.startswith("__") and name.endswith("__")
                called = special or self.finds_names or name in self.mentions
                if how == "assigned":
                    called = ("attribute", cls, name) in self.state
                if called:
                    for own, inside in changed:
                        self.state.add(("attribute", cls, own))
                        if inside:
                            self.state.add(("inside", cls, own))

    def is_file(self, function: types.FunctionType, name: str) -> bool:
        """Return whether an attribute of what has this method is a file that counts."""
        return (function.__qualname__.rpartition(".")[0], name) in self.files

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
        return isinstance(value, CODE) or py_function(value) is not None

    def is_state(self, value: Any, name: str, how: str = "attribute") -> bool:
        """Return whether traced code changes this attribute of an object.

        ``how="inside"``: it changes the object that the attribute is, also.
        """
        owners = (value, *type(value).__mro__)
        return any((how, id(owner), name) in self.state for owner in owners)

    def note_random(self, where: str) -> None:
        """Note random numbers that are not those of a position."""
        self.random[where] = None
        self.note(
            f"{where} draws random numbers in an order that depends on the run: use "
            "self.rng, which is the same for a position in every run"
        )

    def changed(self, name: str, place: str) -> str:
        """Refer to a variable that traced code changes."""
        self.note(
            f"{name} ({place}) is changed by the computation: what it holds is not "
            "part of the identity"
        )
        return "state"

    def written(self, value: Any) -> Any:
        """Return what an object was written as, if it was."""
        return self._written.get(id(value))

    @contextlib.contextmanager
    def writing(self, value: Any) -> Iterator[None]:
        """Have an object that is being written refer to itself."""
        self._held.append(value)
        name = self.named(type(value).__name__)
        self._written[id(value)] = {"object": [name, "itself"]}
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
        document: Any = None
        try:
            if self._tables or type(value) in PLAIN:
                document = write(value, where, self)
        except IdentityError as error:
            if not self._lenient:
                raise
            self.note(f"not part of the identity: {error}")
        self.entries[key] = Entry("value", digest_of(document), short(value), place)

    # Code.

    def visit(self, thing: Any, name: str) -> Any:
        """Trace an object that is code; return what refers to it, as plain JSON."""
        if isinstance(thing, (functools.partial, functools.partialmethod)):
            kind = type(thing).__name__
            more = [vars(thing)] if kind == "partial" and vars(thing) else []
            values = write([list(thing.args), thing.keywords, *more], name, self)
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
            return module_as_value(self, thing)
        if isinstance(thing, type):
            return trace_class(self, thing)
        if isinstance(thing, np.vectorize):
            self.stop_at("numpy")
            how = [thing.otypes, thing.signature, sorted(map(repr, thing.excluded))]
            return {"vectorize": [self.visit(thing.pyfunc, name), repr(how)]}
        plain = py_function(thing)
        if plain is not None:
            self.stop_at(type(thing).__module__)
            options = getattr(thing, "targetoptions", None) or {}
            options = {key: repr(value) for key, value in sorted(options.items())}
            if not getattr(thing, "_can_compile", True):  # for these types alone
                options["signatures"] = sorted(map(str, thing.nopython_signatures))
            return {type(thing).__name__: [self.visit(plain, name), options]}
        if isinstance(thing, np.ufunc):
            # Made by frompyfunc, it refers to a function.
            for part in gc.get_referents(thing):
                if callable(part) and not isinstance(part, type):
                    return {"ufunc": [self.visit(part, name), thing.nin, thing.nout]}
        if isinstance(thing, BUILT_IN):
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
        if is_shared_generator(owner):
            self.note_random(name)
        return {"library": [f"{module}.{label}", write(owner, name, self)]}

    def key(self, thing: Any, name: str) -> tuple[str, bool]:
        """Return the name of an entry, and whether it is new."""
        known = self._keys.get(id(thing))
        if known is not None:
            return known, False
        self._held.append(thing)
        key = self.free(name)
        self._keys[id(thing)] = key
        return key, True

    def key_at(self, place: str, name: str) -> tuple[str, bool]:
        """Return the name of the entry for a place, and whether it is new.

        Files of one name in two folders have an entry each.
        """
        new = (place, name) not in self._places
        if new:
            self._places[place, name] = self.free(name)
        return self._places[place, name], new

    def named(self, name: str) -> str:
        """Return the name of a class, or of what it has, as it was then."""
        for now, then in self._names:
            if name == now or name.startswith(f"{now}."):
                return then + name.removeprefix(now)
        return name

    def free(self, name: str) -> str:
        """Return a name that no entry has, and keep its place."""
        key = name = self.named(name)
        number = 1
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
                kind.__name__: self.visit(how, how.__qualname__)
                for kind, how in sorted(
                    registry.items(), key=lambda item: item[0].__name__
                )
            }
            return {"singledispatch": found}
        code, module = function.__code__, module_of(function)
        wrapped = getattr(function, "__wrapped__", None)
        if not is_users(module, code.co_filename):
            self.stop_at(module)
            name_there = f"{module}.{function.__qualname__}"
            inner = [self.of_cell(cell) for cell in function.__closure__ or ()]
            # A wrapper of a library around a function of the user.
            users = [part for part in (wrapped, *inner) if is_users_code(part)]
            carried = [part for part in inner if type(part) in PLAIN or users]
            if not users and wrapped is None:
                return {"library": name_there}
            return {
                "wrapper": [
                    name_there,
                    [write(part, name, self) for part in users],
                    [self._carried(part, name) for part in carried],
                ]
            }
        key, new = self.key(function, function.__qualname__)
        if not new:
            return {"code": key}
        self._code += 1
        if self._code > MOST_CODE:
            del self.entries[key]
            return self._whole_file(function, module)
        tree, reading, text = self.read(function)
        place = _place(code)
        refers: dict[str, Any] = {}
        follow(self, function, reading, refers, place)
        closed = {}
        for variable, cell in zip(
            code.co_freevars, function.__closure__ or (), strict=True
        ):
            if variable in reading.assigned:
                self.state.add(("cell", id(cell), ""))
            # A variable that is not set yet raises ValueError.
            with contextlib.suppress(ValueError):
                if variable != "__class__":  # used by super()
                    label = f"{key}.{variable}"
                    if ("cell", id(cell), "") in self.state:
                        closed[variable] = self.changed(variable, place)
                        continue
                    content = cell.cell_contents
                    for changed, attribute in reading.changes_closed:
                        if changed == variable and attribute:
                            self.state.add(("attribute", id(content), attribute))
                        elif changed == variable and changes_as_a_whole(content):
                            self.state.add(("cell", id(cell), ""))
                    closed[variable] = self.part(
                        label,
                        content,
                        f"{variable!r}, used by {key} from outside,",
                        place,
                    )
        defaults = [
            self.part(f"{key}.{argument}", value, f"the default of {argument!r}", place)
            for argument, value in _defaults(function)
        ]
        own = {
            attribute: self.part(f"{key}.{attribute}", value, f"{key}.{attribute}")
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

    def part(self, label: str, value: Any, where: str, place: str = "") -> Any:
        """Refer to a value that code uses: code by name, others as an entry.

        `place` is the file, for people.
        """
        if self.is_code(value):
            return self.visit(value, where)
        key = self.free(label)
        self.value(key, value, where, place)
        return {"value": key}

    def of_cell(self, cell: Any) -> Any:
        """Return the content of a cell of a closure; None where it is not set yet."""
        try:
            return cell.cell_contents
        except ValueError:
            return None

    def _carried(self, value: Any, name: str, depth: int = 0) -> Any:
        """Write what a wrapper of a library carries beside a function of the user."""
        if isinstance(value, contextlib._GeneratorContextManager):
            value = [value.func, value.args, value.kwds]  # what makes it anew
        if isinstance(value, types.FunctionType) and depth < _WRAPPERS:
            inner = [self.of_cell(cell) for cell in value.__closure__ or ()]
            if inner and not is_users_code(value):
                return [self._carried(part, name, depth + 1) for part in inner]
        try:
            return write(value, name, self)
        except IdentityError:
            kind = type(value).__name__
            self.note(f"a {kind} that a decorator of {name} holds")
            return kind

    def tree_of(self, function: types.FunctionType) -> Any:
        """Return a digest of the code of a function alone."""
        return self.read(function)[0]

    def read(self, function: types.FunctionType) -> tuple[Any, Reading, str]:
        """Return digest of the tree, reading and text of a function."""
        code = function.__code__
        held = _code_digests.get(id(code))
        if held is None or held[0] is not code:
            held = _code_digests[id(code)] = code, code_digest(code)
        compiled = held[1]
        given = self._given.get(compiled)
        if given is not None:
            tree, reading = given
            text = ""
        else:
            tree, reading, text = self._read_text(function, compiled)
        self.codes[compiled] = tree, reading
        self.mentions |= reading.mentions
        self.docs |= not _READ_TEXTS.isdisjoint(reading.mentions)
        self.finds_names |= any(name in FINDERS for _, name in reading.finds)
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
                f"{tree_digest(text.nodes, docs=self.docs)} {text.number}",
                reading_of(code, text.nodes),
            )
        return (*_readings[known], text.lines)

    def _whole_file(self, function: types.FunctionType, module: str) -> Any:
        name = function.__code__.co_filename
        text = "".join(linecache.getlines(name, function.__globals__))
        key, new = self.key_at(name, f"file {module.rpartition('.')[2]}")
        if new:
            self.entries[key] = Entry("module", file_digest(text), place=name)
            self.note(f"{name}: more code than is traced, the whole file counts")
        return {"code": key}


def _place(code: types.CodeType) -> str:
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}"


def _defaults(function: types.FunctionType) -> list[tuple[str, Any]]:
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][-len(values) :] if values else ()
    keywords = sorted((function.__kwdefaults__ or {}).items())
    return [*zip(names, values, strict=True), *keywords]


@functools.cache
def _process_began() -> float:
    """Return when this process began, in seconds since 1970."""
    import psutil  # its import takes as long as a short run

    return float(psutil.Process().create_time())
