"""Source text of classes and functions, and whether a class is still the same.

The only module of this room that looks at files: Python keeps source text there.
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
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable.errors import DeclarationError
from resumable.model.encoding import canonical, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Python 3.11 cannot build two syntax trees at the same time in two threads.
_PARSING = threading.RLock()

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
        if base.__module__.partition(".")[0] in ("builtins", "param", "resumable"):
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
    with _PARSING:
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


@functools.lru_cache(maxsize=16)
def text_digest(text: str) -> str:
    """Return the sha256 of normalised source text; empty where there is none."""
    return hashlib.sha256(normalised_source(text).encode()).hexdigest() if text else ""


def class_file(cls: type) -> tuple[str, int] | None:
    """Return the file of a class and the time of its last change, in ns since 1970."""
    name = getattr(sys.modules.get(cls.__module__), "__file__", None)
    try:
        return (name, Path(name).stat().st_mtime_ns) if name else None
    except OSError:
        return None


def note_class_file(cls: type) -> None:
    """Note which file a class is read from, and the time of its last change.

    Classes of this library get no note: they are the same in every installation.
    """
    ours = cls.__module__.startswith("resumable.")
    cls._read_from = None if ours else class_file(cls)  # type: ignore[attr-defined]


def class_read_from(cls: type) -> tuple[str, int] | None:
    """Return what was noted of a class; None: it was read from no file."""
    noted: tuple[str, int] | None = getattr(cls, "_read_from", None)
    return noted


def check_unchanged(cls: type, read_from: tuple[str, int] | None, text: str) -> None:
    """Raise a DeclarationError if a class is not the one that the driver has imported.

    `read_from` and `text` are :func:`class_read_from` and :func:`text_digest` there.
    """
    here = class_read_from(cls)
    if read_from == here:
        return
    # On another host the same file can have another name and time: compare the text,
    # if the file has not changed since the import.
    found = class_text(cls) if text and here == class_file(cls) else None
    if found is None or text_digest(found) != text:
        msg = (
            f"{read_from and read_from[0]} was edited while it was at work, or is "
            "another one where the worker is: run it again (workers that live longer "
            "than a run must be started anew), so that one run is not computed by two "
            "versions"
        )
        raise DeclarationError(msg)


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
                    if name != "__class__":  # used by super()
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
