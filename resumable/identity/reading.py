"""What the code of one function reads: names, imports, files, and what it changes."""

from __future__ import annotations

import ast
import collections
import opcode
import types
from typing import TYPE_CHECKING, Any, NamedTuple

from resumable.identity.paths import path_expression

if TYPE_CHECKING:
    from collections.abc import Iterator

_EXTENDED, _SHIFTED = opcode.opmap["EXTENDED_ARG"], opcode.opmap["LOAD_GLOBAL"]
#: Instructions that look up or bind a global name.
_GLOBAL = frozenset(
    number
    for name, number in opcode.opmap.items()
    if "_GLOBAL" in name or name == "LOAD_NAME"
)
#: Methods that change the object they are called on.
_CHANGES = frozenset(
    (
        *("append", "add", "update", "setdefault", "pop", "popitem", "extend", "put"),
        *("insert", "clear", "remove", "discard", "appendleft", "extendleft", "fill"),
        *("popleft", "sort", "reverse", "resize", "itemset"),
    )
)
#: Functions that change their first argument.
_CHANGE_FIRST = frozenset(("copyto", "fill_diagonal", "place", "putmask"))
#: Functions that read a file.
_READERS = frozenset(
    (
        *("open", "load", "loadtxt", "genfromtxt", "fromfile", "memmap", "read_text"),
        *("read_bytes", "read_csv", "read_json", "read_excel", "read_parquet"),
        *("safe_load", "imread", "File", "loadmat", "read", "getline", "getlines"),
    )
)
#: Functions of numpy that make a generator of random numbers.
_GENERATORS = ("default_rng", "RandomState")
#: Functions that make a path of one.
_MAKE_PATHS = ("Path", "PurePath", "str", "fspath")
#: Functions that run a program.
PROGRAMS = frozenset(
    ("check_output", "check_call", "Popen", "system", "popen", "run", "call")
)
#: Functions that find names while they run.
FINDERS = frozenset(
    (
        *("getattr", "globals", "eval", "exec", "__import__", "vars", "locals"),
        "getmembers",
    )
)
#: Chains of attributes.
Chains = tuple[tuple[str, ...], ...]
#: Longest text that is taken for the name of an attribute.
_LONGEST_NAME = 60


class Reading(NamedTuple):
    """What the code of a function, and of those defined in it, refers to."""

    names: dict[str, Chains]
    """Global name -> chains of attributes looked up on it; an empty one: it is used as
    a value."""
    imports: tuple[tuple[int, str, str, Chains], ...]
    """Level, module and name of imports in it, no name: the module; and the chains of
    attributes looked up on what is imported."""
    mentions: frozenset[str]
    """Every name of an attribute, and text that could be one."""
    changes: frozenset[tuple[str, str]]
    """Global names whose objects it changes, each with the attribute, or ""."""
    assigned: frozenset[str]
    """Names of the module and of enclosing functions that it assigns."""
    changes_closed: frozenset[tuple[str, str]]
    """Variables of enclosing functions whose objects it changes, as `changes`."""
    changes_own: frozenset[tuple[str, bool]]
    """Attributes of its first argument that it changes, and whether it changes their
    objects: False where it assigns to them."""
    files: tuple[tuple[int, str, tuple[str, ...], str], ...]
    """Line and function where it reads a file, expressions that may name it, and the
    attribute of its first argument that does, if it is one."""
    finds: tuple[tuple[int, str], ...]
    """Line and function where it finds what is not known before it runs."""
    unseeded: tuple[tuple[int, str], ...]
    """Line and function where it always makes a generator without a seed."""
    environment: frozenset[tuple[str, str]]
    """Environment variables that it reads, or the global names that have theirs."""


def reading_of(code: types.CodeType, nodes: tuple[ast.AST, ...] | None) -> Reading:
    """Return what a code object reads; `nodes` is its syntax tree, if it is known."""
    names, mentions = _names_of(code)
    if nodes is None:
        # Any of its names may be a global one, and its attributes are not known.
        return Reading(
            dict.fromkeys(sorted(names), ()),
            tuple((0, name, "", ()) for name in sorted(names)),
            frozenset(mentions),
            frozenset(),
            frozenset(),
            frozenset(),
            frozenset(),
            (),
            (),
            (),
            frozenset(),
        )
    own = code.co_varnames[0] if code.co_argcount else None
    look = _Look(names, set(code.co_freevars), own)
    parts = [part for node in nodes for part in ast.walk(node)]
    look.count_assignments(parts)
    for part in parts:
        look.at(part)
    return Reading(
        {name: look.chains(name) for name in sorted(names & set(look.uses))},
        tuple(
            (level, module, name, look.chains(bound, inside))
            for level, module, name, bound, inside in sorted(look.imports)
        ),
        frozenset(mentions),
        frozenset(look.changes),
        frozenset(look.assigned),
        frozenset(look.changes_closed),
        frozenset(look.changes_own),
        tuple(sorted(f for f in look.files if not look.handles.intersection(f[2]))),
        tuple(sorted(look.finds)),
        tuple(sorted(look.unseeded)),
        frozenset(look.environment),
    )


def _names_of(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Return the global names that code uses, and names and texts of attributes."""
    names, extended = set(), 0
    text = code.co_code
    for at in range(0, len(text), 2):
        operation, argument = text[at], text[at + 1] | extended
        extended = argument << 8 if operation == _EXTENDED else 0
        if operation in _GLOBAL:
            names.add(code.co_names[argument >> (operation == _SHIFTED)])
    mentions = set(code.co_names)
    texts = {c for c in _flat(code.co_consts) if isinstance(c, str)}
    for name in texts:
        # As operator.attrgetter has them, with points.
        parts = name.split(".") if len(name) <= _LONGEST_NAME else []
        mentions.update(part for part in parts if part.isidentifier())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner, mentioned = _names_of(constant)
            names |= inner
            mentions |= mentioned
    return names, mentions


def _flat(constants: Any) -> Iterator[Any]:
    for item in constants:
        if isinstance(item, (tuple, frozenset)):
            yield from _flat(item)
        else:
            yield item


def sets(statement: ast.stmt, name: str) -> bool:
    """Return whether a statement of a module or class assigns or changes a name."""
    look = _Look({name}, set(), None)
    for part in ast.walk(statement):
        if isinstance(part, ast.Name) and (part.id, type(part.ctx)) == (
            name,
            ast.Store,
        ):
            return True
        look.at(part)
    return bool(look.changes)


class _Look:
    """What was seen of a syntax tree so far."""

    def __init__(self, names: set[str], closed: set[str], own: str | None) -> None:
        self._known, self._closed, self._own = names, closed, own
        self._inner: set[int] = set()  # of a longer chain
        self.uses: dict[str, set[tuple[str, ...]]] = {}
        self.imports: set[tuple[int, str, str, str, tuple[str, ...]]] = set()
        self.changes: set[tuple[str, str]] = set()
        self.assigned: set[str] = set()
        self.changes_closed: set[tuple[str, str]] = set()
        #: Local name -> what it is another name of.
        self._aliases: dict[str, ast.AST] = {}
        self._once: set[str] = set()
        self.changes_own: set[tuple[str, bool]] = set()
        self.files: set[tuple[int, str, tuple[str, ...], str]] = set()
        #: Names of files that it has opened.
        self.handles: set[str] = set()
        self._seen: set[int] = set()  # of uses of the environment
        self.finds: set[tuple[int, str]] = set()
        self.environment: set[tuple[str, str]] = set()
        self.unseeded: set[tuple[int, str]] = set()
        self._sometimes: set[int] = set()  # what a condition decides

    def count_assignments(self, parts: list[ast.AST]) -> None:
        """Note which names are assigned once: such a one can be another's name."""
        stores = collections.Counter(
            part.id
            for part in parts
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
        )
        self._once = {name for name, count in stores.items() if count == 1}

    def at(self, node: ast.AST) -> None:
        """Note what one node says; those around it come first."""
        if _ends(node, "environ") and id(node) not in self._seen:
            self.finds.add((getattr(node, "lineno", 0), "environ"))
        if isinstance(node, (ast.If, ast.IfExp, ast.BoolOp)):
            self._sometimes |= {id(n) for n in ast.walk(node) if _makes_generator(n)}
        if isinstance(node, ast.Name):
            if id(node) not in self._inner:
                self.uses.setdefault(node.id, set()).add(())
        elif isinstance(node, ast.Attribute):
            self._chain(node)
        elif isinstance(node, ast.Call):
            self._call(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top, *inside = alias.name.split(".")
                bound, within = (alias.asname, []) if alias.asname else (top, inside)
                self.imports.add((0, alias.name, "", bound, tuple(within)))
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                bound = alias.asname or alias.name
                found = (node.level, node.module or "", alias.name, bound, ())
                self.imports.add(found)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            self.assigned.update(node.names)
        elif isinstance(node, (ast.Assign, ast.Delete)):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
                names = {t.id for t in node.targets if isinstance(t, ast.Name)}
                self._aliases.update(dict.fromkeys(names & self._once, node.value))
            for target in node.targets:
                self._target(target)
                self._opened(target, getattr(node, "value", None))
        elif isinstance(node, ast.AugAssign):
            if isinstance(node.target, (ast.Subscript, ast.Attribute)):
                self._changed(node.target, inside=True)
        elif isinstance(node, ast.AnnAssign):
            self._target(node.target)
        elif isinstance(node, ast.withitem):
            self._opened(node.optional_vars, node.context_expr)
        elif isinstance(node, ast.Subscript) and _ends(node.value, "environ"):
            self._variable(node.slice, node.value)
        elif isinstance(node, ast.Subscript) and _ends(node.value, "modules"):
            self._module(node.slice)

    def _chain(self, node: ast.Attribute) -> None:
        if id(node) in self._inner:
            return
        chain: list[str] = []
        part: Any = node
        while isinstance(part, ast.Attribute):
            chain.append(part.attr)
            part = part.value
            self._inner.add(id(part))
        if isinstance(part, ast.Name):
            self.uses.setdefault(part.id, set()).add(tuple(reversed(chain)))

    def chains(self, name: str, inside: tuple[str, ...] = ()) -> Chains:
        """Return the chains that begin with a name, and the attributes `inside`."""
        most = len(inside)
        found = self.uses.get(name, set())
        return tuple(sorted(c[most:] for c in found if c[:most] == inside))

    def _call(self, node: ast.Call) -> None:
        called = node.func
        name = (
            called.id
            if isinstance(called, ast.Name)
            else called.attr
            if isinstance(called, ast.Attribute)
            else ""
        )
        if _makes_generator(node) and id(node) not in self._sometimes:
            self.unseeded.add((node.lineno, name))
        first = next(iter([*node.args, *(k.value for k in node.keywords)]), None)
        if isinstance(called, ast.Attribute) and name in _CHANGES:
            self._changed(called.value, inside=True)
        if name in _CHANGE_FIRST and first is not None:
            self._changed(first, inside=True)
        for keyword in node.keywords:
            if keyword.arg == "out":
                self._changed(keyword.value, inside=True)
        if name in _READERS:
            owner = called.value if isinstance(called, ast.Attribute) else None
            places = (path_expression(first), path_expression(owner))
            named = self._attribute(first) or self._attribute(owner)
            self.files.add((node.lineno, name, places, named))
        elif name == "__subclasses__" or (
            name in PROGRAMS
            and isinstance(called, ast.Attribute)
            and (_ends(called.value, "subprocess") or _ends(called.value, "os"))
        ):
            self.finds.add((node.lineno, name))
        elif name == "expandvars":
            self.finds.add((node.lineno, "environ"))
        elif name in ("getmembers", "run_path", "run_module", "find_spec"):
            self.finds.add((node.lineno, name))
        elif name in FINDERS and isinstance(called, ast.Name):
            fixed = name == "getattr" and len(node.args) > 1
            if not (fixed and isinstance(node.args[1], ast.Constant)):
                self.finds.add((node.lineno, name))
        elif name == "import_module":
            self._module(first)
        if name == "getenv" or (
            name == "get"
            and isinstance(called, ast.Attribute)
            and _ends(called.value, "environ")
        ):
            self._variable(first, called)

    def _attribute(self, node: ast.AST | None) -> str:
        """Return the attribute of the first argument that is a path here, or empty."""
        if isinstance(node, ast.Name):
            node = self._aliases.get(node.id)
        elif isinstance(node, ast.Call) and len(node.args) == 1:
            makes_path = any(_ends(node.func, name) for name in _MAKE_PATHS)
            return self._attribute(node.args[0]) if makes_path else ""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return node.attr if node.value.id == self._own else ""
        return ""

    def _module(self, node: ast.AST | None) -> None:
        """Note a module that is looked up by its name."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.imports.add((0, node.value, "", "", ()))
        elif node is not None:
            self.finds.add((getattr(node, "lineno", 0), "import_module"))

    def _opened(self, target: ast.AST | None, value: ast.AST | None) -> None:
        """Note a name under which an opened file is read."""
        if isinstance(target, ast.Name) and isinstance(value, ast.Call):
            called = value.func
            if _ends(called, "open"):
                self.handles.add(target.id)

    def _variable(self, node: ast.AST | None, environ: ast.AST) -> None:
        inner = getattr(environ, "value", environ)
        self._seen |= {id(environ), id(inner)}
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.environment.add((node.value, ""))
        elif isinstance(node, ast.Name) and node.id in self._known:
            self.environment.add(("", node.id))
        elif node is not None:
            self.finds.add((getattr(node, "lineno", 0), "environ"))

    def _target(self, node: ast.AST) -> None:
        if isinstance(node, (ast.Tuple, ast.List)):
            for item in node.elts:
                self._target(item)
        elif isinstance(node, ast.Starred):
            self._target(node.value)
        elif isinstance(node, (ast.Subscript, ast.Attribute)):
            self._changed(node)

    def _changed(self, node: ast.AST, *, inside: bool = False) -> None:
        """Note the global name, or the attribute of the first argument, of a target.

        `inside`: the object is changed, and not only the name bound to another one.
        """
        attribute = ""
        whole = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        while isinstance(node, (ast.Subscript, ast.Attribute)):
            before = attribute
            attribute = node.attr if isinstance(node, ast.Attribute) else ""
            node = node.value
            if attribute == "__class__":
                attribute = before
        if isinstance(node, ast.Call) and _ends(node.func, "type") and node.args:
            node = node.args[0]
        if isinstance(node, ast.Name):
            if node.id in self._aliases:
                self._changed(self._aliases.pop(node.id), inside=True)
            elif node.id == self._own and attribute:
                self.changes_own.add((attribute, inside or not whole))
            elif node.id in self._closed:
                self.changes_closed.add((node.id, attribute))
            elif node.id in self._known:
                self.changes.add((node.id, attribute))


def _makes_generator(node: ast.AST) -> bool:
    """Return whether this makes a generator of numpy without a seed."""
    return (
        isinstance(node, ast.Call)
        and not (node.args or node.keywords)
        and any(_ends(node.func, name) for name in _GENERATORS)
    )


def _ends(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == name
    return isinstance(node, ast.Name) and node.id == name
