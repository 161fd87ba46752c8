"""Kinds of objects: what is followed as code, and what a wrapper wraps."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from typing import Any

import numpy as np

from resumable.identity.origin import home_of, is_users

BUILT_IN = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    np.ufunc,
)
CODE = (
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
    *BUILT_IN,
)
#: Attributes by which wrappers of compiled functions, as numba's, give the function.
_PY_FUNCTIONS = ("py_func", "_pyfunc", "__wrapped__")
CONTAINERS = (dict, list, set, np.ndarray)
PLAIN = (type(None), bool, int, float, complex, str, bytes)
MISSING = object()


def py_function(thing: Any) -> Any:
    """Return the Python function of a wrapper of a library, as of numba; else None."""
    if isinstance(
        thing, (types.FunctionType, types.MethodType, type, types.ModuleType)
    ):
        return None
    module = type(thing).__module__
    if module.startswith("numba") or type(thing).__name__ == "_lru_cache_wrapper":
        for name in _PY_FUNCTIONS:
            plain = _attribute(thing, name)
            if callable(plain):
                return plain
        of_stencil = _attribute(_attribute(thing, "kernel_ir"), "func_id")
        return _attribute(_attribute(thing, "_dispatcher"), "py_func") or _attribute(
            of_stencil, "func"
        )
    return None


def _attribute(thing: Any, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:  # a __getattr__ of a library may raise anything
        return None


def functions_of(value: Any) -> list[types.FunctionType]:
    """Return the functions that a member of a class is made of."""
    parts: list[Any] = [value]
    if isinstance(value, property):
        parts = [value.fget, value.fset, value.fdel]
    elif isinstance(value, (functools.cached_property, functools.partialmethod)):
        parts = [value.func]
    plain = [inspect.unwrap(getattr(part, "__func__", part)) for part in parts]
    return [part for part in plain if isinstance(part, types.FunctionType)]


def module_of(function: types.FunctionType) -> str:
    """Return the name of the module that a function was defined in."""
    return str(function.__globals__.get("__name__") or "__main__")


def changes_as_a_whole(thing: Any) -> bool:
    """Return whether a method that changes an object changes all that it is.

    The objects of a user's class change by their own methods, which are read.
    """
    return not (isinstance(thing, CODE) or is_users(home_of(type(thing)))) or (
        isinstance(thing, CONTAINERS)
    )


def is_users_code(thing: Any) -> bool:
    """Return whether a function, class or module, or what it wraps, is the user's."""
    plain = inspect.unwrap(thing) if hasattr(thing, "__wrapped__") else thing
    plain = getattr(plain, "__func__", plain)
    plain = py_function(plain) or plain
    if isinstance(plain, types.FunctionType):
        return is_users(module_of(plain), plain.__code__.co_filename)
    if isinstance(plain, types.ModuleType):
        return is_users(plain.__name__)
    return isinstance(plain, type) and is_users(home_of(plain))


def of_library(thing: Any) -> str | None:
    """Return module and name of an object that a library has made for all to use."""
    if isinstance(thing, (*CODE, *PLAIN, *CONTAINERS, tuple)):
        return None
    module = str(home_of(type(thing)))
    if is_users(module):
        return None
    parts = module.split(".")
    for count in range(len(parts), 0, -1):
        home = sys.modules.get(".".join(parts[:count]))
        for name, value in list(vars(home).items()) if home else ():
            if value is thing:
                return f"{'.'.join(parts[:count])}.{name}"
    return None
