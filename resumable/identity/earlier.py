"""The identity of runs made before helpers counted: the source text of the class.

Runs of schema 1 have it. Nothing new is written with it, but for the text of a class
in its run file, which people read.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import inspect
import linecache
import sys
import textwrap
import weakref
from typing import TYPE_CHECKING, Any

from resumable.identity.origin import home_of
from resumable.identity.syntax import PARSING
from resumable.model import canonical, document_digest, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Begins the version of a function that declared none.
EARLIER_TEXT = "text "

#: What ``super()`` uses, and from Python 3.14 on the annotations of a class.
_CELLS_OF_PYTHON = ("__class__", "__classdict__", "__conditional_annotations__")

_source_texts: weakref.WeakKeyDictionary[type, str | None] = weakref.WeakKeyDictionary()


def class_text(cls: type) -> str | None:
    """Return the source text of a class and of those bases that its author wrote.

    None when Python cannot find it (a class typed into a bare prompt). Looked up
    once per class: it takes time in a long file, and the file may change later.
    """
    if cls not in _source_texts:
        _source_texts[cls] = _find_source_text(cls)
    return _source_texts[cls]


def _find_source_text(cls: type) -> str | None:
    parts = []
    for base in cls.__mro__:
        if str(home_of(base)).partition(".")[0] in ("builtins", "param", "resumable"):
            continue
        try:
            parts.append(at_margin(_text_of_class(base)))
        except (OSError, TypeError, SyntaxError):
            return None
    return "\n".join(parts)


def _text_of_class(cls: type) -> str:
    # Found by the file and line of one of its methods: a file may have two classes of
    # its name, and in a notebook ``__main__`` has no file.
    module = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    for value in vars(cls).values():
        code = getattr(inspect.unwrap(value), "__code__", None)
        if code is None:
            continue
        linecache.checkcache(code.co_filename)
        lines = linecache.getlines(code.co_filename, module)
        for node in ast.walk(_parsed("".join(lines))):
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                if first <= code.co_firstlineno <= (node.end_lineno or 0):
                    return "".join(lines[first - 1 : node.end_lineno])
    # It has no method of its own.
    return inspect.getsource(cls)


def _parsed(text: str) -> ast.Module:
    with PARSING:
        return ast.parse(text)


def at_margin(text: str) -> str:
    """Shift source text to the left margin, so that it can be parsed."""
    dedented = textwrap.dedent(text)
    try:
        _parsed(dedented)
    except IndentationError:
        # A text in it has a line that begins at the margin: write the code anew.
        block = _parsed(f"if True:\n{text}").body[0]
        return ast.unparse(ast.Module(block.body, []))  # type: ignore[attr-defined]
    return dedented


def normalised_source(text: str) -> str:
    """Return source text without comments, layout and docstrings."""
    tree = _parsed(at_margin(text))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        kept = [
            item
            for item in body
            if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
            or not isinstance(item.value.value, str)
        ]
        if len(kept) < len(body):
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def earlier_version_of_class(cls: type, version: Any, stop: type) -> Any:
    """Return what a document of schema 1 says of the version of a class.

    `stop` is the base class whose methods, and those above, did not count.
    """
    if version is not None:
        return encode(version, "version")
    document: dict[str, Any] = {"source_text": text_digest(class_text(cls) or "")}
    closed = closed_over(cls, stop)
    if closed:
        document["closed_over"] = closed
    return document


def earlier_version_of_function(function: Any, version: Any) -> Any:
    """Return what a document of schema 1 says of the version of a function."""
    if version is not None:
        return encode(version, "version")
    plain = inspect.unwrap(function)
    closed = (
        inspect.getclosurevars(plain).nonlocals if inspect.isfunction(plain) else {}
    )
    document = {
        "text": normalised_source(at_margin(inspect.getsource(plain))),
        "closed_over": {
            key: encode(value, key) for key, value in sorted(closed.items())
        },
    }
    return EARLIER_TEXT + document_digest(document)


@functools.lru_cache(maxsize=16)
def text_digest(text: str) -> str:
    """Return the sha256 of normalised source text; empty where there is none."""
    return hashlib.sha256(normalised_source(text).encode()).hexdigest() if text else ""


def closed_over(cls: type, stop: type) -> dict[str, Any]:
    """Return the variables of enclosing functions that the methods of a class use.

    Encoded, by name; IdentityError where one cannot be. Methods of the base class
    `stop` and of its bases do not count.
    """
    found: dict[str, Any] = {}
    for part in cls.__mro__[: cls.__mro__.index(stop)]:
        for attribute, value in vars(part).items():
            for name, cell in _cells(value):
                # A variable that is not set yet raises ValueError.
                with contextlib.suppress(ValueError):
                    if name not in _CELLS_OF_PYTHON:
                        where = f"{name!r}, used by {cls.__name__} from outside,"
                        encoded = encode(cell.cell_contents, where)
                        # Two methods may use different variables of one name.
                        before = found.setdefault(name, encoded)
                        if canonical(before) != canonical(encoded):
                            found[f"{part.__name__}.{attribute}.{name}"] = encoded
    return found


def _cells(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and cell of the enclosing variables that an attribute uses."""
    methods: list[Any]
    if isinstance(value, property):
        methods = [value.fget, value.fset, value.fdel]
    elif isinstance(value, functools.cached_property):
        methods = [value.func]
    else:
        methods = [getattr(value, "__func__", value)]
    for method in methods:
        plain = inspect.unwrap(method)
        if inspect.isfunction(plain):
            yield from zip(
                plain.__code__.co_freevars, plain.__closure__ or (), strict=True
            )
