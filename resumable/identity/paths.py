"""Names of files that are written in code: ``Path(__file__).parent / "table.txt"``."""

from __future__ import annotations

import ast
import os
import pathlib
from pathlib import Path, PurePath
from typing import Any

#: Attributes and methods that make a path of paths.
_MAKES = frozenset(
    (
        *("path", "join", "dirname", "abspath", "realpath", "parent", "parents"),
        *("resolve", "absolute", "joinpath", "with_name", "with_suffix", "Path"),
    )
)
_PARTS = (
    *(ast.Constant, ast.Name, ast.Attribute, ast.Call, ast.BinOp, ast.Subscript),
    *(ast.Div, ast.Add, ast.Load),
)


def path_expression(node: ast.AST | None) -> str:
    """Return the text of an expression that can be the name of a file, else ""."""
    if node is None:
        return ""
    for part in ast.walk(node):
        if not isinstance(part, _PARTS):
            return ""
        if isinstance(part, ast.Attribute) and part.attr not in _MAKES:
            return ""
        if isinstance(part, ast.Call) and part.keywords:
            return ""
    return ast.unparse(node)


def file_named(expression: str, space: dict[str, Any]) -> Path | None:
    """Return the file that an expression names; None where there is none.

    `space` are the globals of its module. Only paths, texts and the functions that make
    paths of them are used.
    """
    known = {
        name: value
        for name in _names(expression)
        if isinstance(value := space.get(name), (str, PurePath))
        or any(value is maker for maker in (os, os.path, pathlib, Path, PurePath))
    }
    try:
        found = eval(expression, {"__builtins__": {}}, known)
        path = Path(found)
        return path if path.is_file() else None
    except Exception:  # it was no path
        return None


def _names(expression: str) -> set[str]:
    tree = ast.parse(expression, mode="eval")
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
