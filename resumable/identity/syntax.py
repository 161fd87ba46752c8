"""The text of code in memory, as a syntax tree that every Python writes alike.

A text counts only if it compiles to the code object that is in memory. Comments,
docstrings, annotations and layout are not part of what is written.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import linecache
import threading
import types
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

from resumable.identity.origin import SENT
from resumable.identity.reading import sets

#: Python 3.11 cannot build two syntax trees at the same time in two threads.
PARSING = threading.RLock()

#: Flags of code objects that stand for features of ``__future__``.
_FUTURE = 0x1FE0000
#: Fields of nodes that change no result.
_LEFT_OUT = frozenset(("ctx", "kind", "type_comment", "type_ignores", "type_params"))
#: Fields that change none unless code reads them.
_ANNOTATIONS = frozenset(("annotation", "returns"))


class Text(NamedTuple):
    """The text of a code object."""

    nodes: tuple[ast.AST, ...]
    """Its definition; all lambdas of the line, where Python keeps no columns."""
    lines: str
    """As it stands in the file, at the left margin."""
    number: int
    """Which of these lambdas it is."""


class EditedError(Exception):
    """The text in the file is not the one that the code object was compiled from."""


def text_of(code: types.CodeType, module: dict[str, Any]) -> Text | None:
    """Return the text that a code object was compiled from; None: there is none.

    `module` are the globals of its module, whose loader may know the text. EditedError:
    the file has changed since.
    """
    name = code.co_filename
    if name == SENT:
        name = str(module.get("__file__") or name)
    file = _file(name, module, code.co_flags & _FUTURE)
    if file is None:
        return None
    known = file.found.get(id(code))
    if known is None or known[0] is not code:
        known = file.found[id(code)] = code, file.find(code)
    if known[1] is None:
        raise EditedError(code.co_filename)
    return known[1]


class _File:
    """A file of code: its text and what it compiles to."""

    def __init__(self, text: str, name: str, flags: int) -> None:
        with PARSING:
            self.tree = ast.parse(text)
            flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # as notebooks have
            code = compile(text, name, "exec", flags=flags, dont_inherit=True)
        self.text = text
        self.lines = text.splitlines(keepends=True)
        self.found: dict[int, tuple[types.CodeType, Text | None]] = {}
        self._codes: dict[str, list[types.CodeType]] = {}
        todo: list[Any] = [code]
        while todo:
            one = todo.pop(0)
            self._codes.setdefault(one.co_qualname, []).append(one)
            todo += [c for c in one.co_consts if isinstance(c, types.CodeType)]
        self._nodes: dict[tuple[bool, int], list[ast.AST]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                self._nodes.setdefault((False, first), []).append(node)
            elif isinstance(node, ast.Lambda):
                self._nodes.setdefault((True, node.lineno), []).append(node)

    def find(self, code: types.CodeType) -> Text | None:
        """Return the text of a code object, or None if no text here compiles to it."""
        named = self._codes.get(code.co_qualname) or [
            # %autoreload of IPython compiles an edited class under another name.
            one
            for same in self._codes.values()
            for one in same
            if one.co_name == code.co_name
        ]
        for candidate in named:
            if not _same(candidate, code):
                continue
            line = candidate.co_firstlineno
            beside = [
                one
                for one in self._codes[candidate.co_qualname]
                if one.co_firstlineno == line
            ]
            nodes: list[Any] = self._nodes.get((code.co_name == "<lambda>", line), [])
            if code.co_name == "<lambda>" and len(nodes) > 1:
                nodes = _at_columns(nodes, candidate)
            if nodes:
                last = max(node.end_lineno for node in nodes)
                lines = "".join(self.lines[line - 1 : last])
                number = beside.index(candidate) if len(nodes) > 1 else 0
                return Text(tuple(nodes), dedent(lines), number)
        return None


def _at_columns(lambdas: list[Any], code: types.CodeType) -> list[Any]:
    """Return those of some lambdas that code is of, by where its instructions stand."""
    places = [
        place for place in code.co_positions() if place[2] is not None and place[3]
    ]
    if not places:  # python -X no_debug_ranges
        return lambdas
    first = min((line, column) for line, _, column, _ in places)
    last = max((line, column) for _, line, _, column in places)
    around = [
        node
        for node in lambdas
        if (node.body.lineno, node.body.col_offset) <= first
        and last <= (node.body.end_lineno, node.body.end_col_offset)
    ]
    inner = max(((node.lineno, node.col_offset) for node in around), default=None)
    return [n for n in around if (n.lineno, n.col_offset) == inner] or lambdas


def statements_that_set(
    module: dict[str, Any], owners: tuple[str, ...], name: str
) -> tuple[ast.stmt, ...]:
    """Return statements of a module, or of a class in it, that set or change a name.

    `owners` are the names of the class and of those around it. What runs only in a
    script, after ``if __name__ == "__main__"``, is not among them.
    """
    file = module.get("__file__")
    body = _body("".join(linecache.getlines(file, module))) if file else []
    for owner in owners:
        body = next(
            (s.body for s in body if isinstance(s, ast.ClassDef) and s.name == owner),
            [],
        )
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return tuple(
        statement
        for statement in body
        if not isinstance(statement, definitions)
        and not _is_main(statement)
        and sets(statement, name)
    )


def _is_main(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and any(
        isinstance(node, ast.Name) and node.id == "__name__"
        for node in ast.walk(statement.test)
    )


@functools.lru_cache(64)
def _body(text: str) -> list[ast.stmt]:
    try:
        with PARSING:
            return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        return []


@functools.lru_cache(512)
def _parsed(text: str, name: str, flags: int) -> _File | None:
    try:
        return _File(text, name, flags)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _file(name: str, module: dict[str, Any], flags: int) -> _File | None:
    linecache.checkcache(name)
    text = "".join(linecache.getlines(name, module))
    return _parsed(text, name, flags) if text else None


def changed_after(file: str, seconds: float) -> bool:
    """Return whether a file was changed after a time in seconds since 1970."""
    try:
        return Path(file).stat().st_mtime > seconds
    except OSError:
        return False


def _same(a: types.CodeType, b: types.CodeType) -> bool:
    """Return whether two code objects do the same; their lines do not count."""
    return _parts(a) == _parts(b) and all(
        _same(x, y)
        if isinstance(x, types.CodeType) and isinstance(y, types.CodeType)
        else _constant(x) == _constant(y)
        for x, y in zip(a.co_consts, b.co_consts, strict=True)
    )


def _parts(code: types.CodeType) -> tuple[Any, ...]:
    return (
        code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_flags,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_exceptiontable,
        len(code.co_consts),
    )


def _constant(value: Any) -> Any:
    """Return a constant of code such that 1, 1.0, True and -0.0 are different."""
    if isinstance(value, frozenset):
        return "frozenset", sorted(map(repr, value))
    if isinstance(value, tuple):
        return [_constant(item) for item in value]
    return type(value).__name__, ascii(value) if isinstance(value, str) else repr(value)


def code_digest(code: types.CodeType) -> str:
    """Return a digest of compiled code, the same in processes of one Python version."""
    digest = hashlib.sha256()
    _add_code(code, digest)
    return digest.hexdigest()[:24]


def _add_code(code: types.CodeType, digest: Any) -> None:
    digest.update(repr((code.co_name, *_parts(code))).encode())
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            _add_code(value, digest)
        else:
            digest.update(repr(_constant(value)).encode())


def tree_digest(nodes: tuple[ast.AST, ...], *, docs: bool) -> str:
    """Return a digest of syntax trees; docstrings and annotations count with `docs`."""
    parts: list[str] = []
    for node in nodes:
        _write(node, parts.append, docs)
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:24]


def _write(node: Any, put: Any, docs: bool) -> None:
    """Write a syntax tree as text, field by field."""
    if isinstance(node, ast.Constant):
        put(f"{type(node.value).__name__}:{_written(node.value)};")
    elif isinstance(node, ast.JoinedStr):
        _write_joined(node, put, docs)
    elif isinstance(node, ast.Assign):
        _write_assignment(node.targets, node.value, put, docs)
    elif isinstance(node, ast.AnnAssign):
        _write_assignment([node.target], node.value, put, docs)
    elif isinstance(node, ast.AST):
        put(f"{type(node).__name__}(")
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or value == [] or name in _LEFT_OUT:
                continue
            if name in _ANNOTATIONS and not docs:
                continue
            put(f"{name}=")
            if name == "body" and isinstance(value, list) and not docs:
                value = [item for item in value if not _is_doc(item)] or [ast.Pass()]
            _write(value, put, docs)
        put(")")
    elif isinstance(node, list):
        put("[")
        for item in node:
            _write(item, put, docs)
            put(",")
        put("]")
    else:
        put(f"{_written(node)};")


def _write_assignment(targets: list[Any], value: Any, put: Any, docs: bool) -> None:
    """Write an assignment; its annotation, if it has one, does not count."""
    put("Assign(" if value is not None else "Local(")
    _write(targets, put, docs)
    if value is not None:
        _write(value, put, docs)
    put(")")


def _write_joined(node: ast.JoinedStr, put: Any, docs: bool) -> None:
    """Write an f-string; Python 3.12 divides its text otherwise than 3.11."""
    put("JoinedStr[")
    text = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
            continue
        put(f"{text!a},")
        text = ""
        _write(part, put, docs)
    put(f"{text!a}]")


def _is_doc(item: ast.AST) -> bool:
    return (
        isinstance(item, ast.Expr)
        and isinstance(item.value, ast.Constant)
        and isinstance(item.value.value, str)
    )


def _written(value: Any) -> str:
    if isinstance(value, str):
        return ascii(value)
    # Python refuses to write very long integers in decimals.
    return hex(value) if type(value) is int else repr(value)


@functools.lru_cache(64)
def file_digest(text: str) -> str:
    """Return a digest of the syntax tree of a whole file of code."""
    try:
        with PARSING:
            tree = ast.parse(text)
        return tree_digest((tree,), docs=False)
    except (SyntaxError, ValueError, RecursionError):
        return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:24]
