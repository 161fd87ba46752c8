"""The text of classes and functions, as their author wrote it."""

from __future__ import annotations

import ast
import hashlib
import inspect
import linecache
import sys
import textwrap
import threading
import weakref

#: Python 3.11 cannot build two syntax trees at the same time in two threads.
_PARSING = threading.RLock()

_source_texts: weakref.WeakKeyDictionary[type, str | None] = weakref.WeakKeyDictionary()


def source_text(cls: type) -> str | None:
    """Source of a class as its author wrote it, with the bases of her own.

    None when Python cannot find it (a class typed into a bare prompt). Looked up
    once per class: it takes time in a long file, and the file may change later.
    """
    if cls not in _source_texts:
        _source_texts[cls] = _find_source_text(cls)
    return _source_texts[cls]


def _find_source_text(cls: type) -> str | None:
    parts = []
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] in ("builtins", "param", "resumable"):
            continue
        try:
            parts.append(at_margin(_class_text(base)))
        except (OSError, TypeError, SyntaxError):
            return None
    return "\n".join(parts)


def _class_text(cls: type) -> str:
    # A class is found by one of its methods, which know where they come from: by its
    # name there may be two, and none in a notebook, where ``__main__`` has no file.
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
    with _PARSING:
        return ast.parse(text)


def at_margin(text: str) -> str:
    """Shift source text to the left margin, so that it can be parsed."""
    dedented = textwrap.dedent(text)
    try:
        _parsed(dedented)
    except IndentationError:
        # A text inside reaches the margin already: write the code anew instead.
        block = _parsed(f"if True:\n{text}").body[0]
        return ast.unparse(ast.Module(block.body, []))  # type: ignore[attr-defined]
    return dedented


def normalised_source(text: str) -> str:
    """Drop from source text what cannot change a result: comments, layout, docs."""
    tree = _parsed(at_margin(text))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        kept = [item for item in body if not _is_text(item)]
        if len(kept) < len(body):
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def text_digest(text: str) -> str:
    """sha256 of what can change a result in source text; empty where there is none."""
    return hashlib.sha256(normalised_source(text).encode()).hexdigest() if text else ""
