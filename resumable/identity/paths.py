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
#: Modules and classes that a path is made with.
_MAKERS = (os, os.path, pathlib, Path, PurePath)
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
    try:
        path = Path(_value(ast.parse(expression, mode="eval").body, space))
        return path if path.is_file() else None
    except Exception:  # it was no path
        return None


def _value(node: ast.AST, space: dict[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        found = space[node.id]
        if isinstance(found, (str, PurePath)) or any(found is one for one in _MAKERS):
            return found
        raise ValueError
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, space), node.attr)
    if isinstance(node, ast.Call):
        function = _value(node.func, space)
        return function(*(_value(argument, space) for argument in node.args))
    if isinstance(node, ast.Subscript):
        return _value(node.value, space)[_value(node.slice, space)]
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, space), _value(node.right, space)
        return left / right if isinstance(node.op, ast.Div) else left + right
    raise ValueError
