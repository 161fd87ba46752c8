"""Values of any kind as plain JSON, by kind and value.

What :func:`resumable.model.decode` can read back is written in full: numbers, text,
containers. Of arrays, files and other objects a digest is written.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import hashlib
import math
import os
import reprlib
import sys
import time
import types
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import param

from resumable.errors import IdentityError
from resumable.identity.record import digest_of
from resumable.model import DEEPEST, encode, encode_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

    from resumable.identity.trace import Tracer

#: Most objects within one value.
_MOST_OBJECTS = 1_000_000
#: Bits of an integer beyond which Python refuses to write it in decimals.
_LONGEST_INTEGER = 10_000
#: Types that decide no result: their objects are not looked into.
_WITHOUT_EFFECT = ("logging", "_thread", "threading")
#: Entries of an object's state that tell of the library and not of the value.
_OF_LIBRARY = ("_sklearn_version",)
#: What objects of a library learn by being used, and could be learnt again.
_BY_USE = {"lmfit": ("_param_names",)}
_WAY_OUT = (
    "give its class a method __resumable_identity__ that returns numbers, text or "
    "arrays, or make it in setup()"
)
#: Values of these count with a version, too.
_ALWAYS = ("the parameter", "the attribute")
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def write(value: Any, where: str, tracer: Tracer, depth: int = 0) -> Any:
    """Write a value as plain JSON.

    Equal JSON is written for equal values of one type, and only for those, in any
    process. Code that a value reaches is traced. IdentityError, with `where`: it cannot
    be identified.
    """
    kind = type(value)
    if kind is int and value.bit_length() > _LONGEST_INTEGER:
        return {"integer": hex(value)}
    if kind in _PLAIN:
        return encode(value, where)
    tracer.count_object(where, _MOST_OBJECTS)
    if depth > DEEPEST:
        msg = f"{where} holds values in each other more than {DEEPEST} deep; flatten it"
        raise IdentityError(msg)
    if kind is list or kind is tuple:
        plain = _all_plain(value)
        items = (
            plain
            if plain is not None
            else [
                write(item, f"{where}[{i}]", tracer, depth + 1)
                for i, item in enumerate(value)
            ]
        )
        return items if kind is list else {"tuple": items}
    if kind is dict or kind is types.MappingProxyType:
        return {
            "dict": [
                [
                    write(k, where, tracer, depth + 1),
                    write(v, f"{where}[{k!r}]", tracer, depth + 1),
                ]
                for k, v in value.items()
            ]
        }
    if kind in (set, frozenset):
        items = [write(item, where, tracer, depth + 1) for item in value]
        return {kind.__name__: sorted(items, key=digest_of)}
    for known, how in _WRITERS:
        if isinstance(value, known):
            return how(value, where, tracer, depth)
    if kind is types.FunctionType:
        return _function(value, where, tracer, depth)
    if tracer.is_code(value):
        return tracer.visit(value, where)
    return _object(value, where, tracer, depth)


def _function(value: Any, where: str, tracer: Tracer, depth: int) -> Any:
    """Write a function as a value: its name, and the values that it carries.

    Its code is traced. Of a lambda, which has no name, a digest of the text is written.
    """
    found = tracer.visit(value, where)
    if "code" not in found:
        return found
    known = tracer.written(value)
    if known is not None:
        return known
    with tracer.writing(value):
        carried = [
            write(part, where, tracer, depth + 1)
            for part in (
                *(
                    tracer.of_cell(cell)
                    for cell in value.__closure__ or ()
                    if ("cell", id(cell), "") not in tracer.state
                ),
                *(value.__defaults__ or ()),
                *(part for _, part in sorted((value.__kwdefaults__ or {}).items())),
            )
        ]
    if value.__name__ == "<lambda>":
        carried.append(tracer.tree_of(value))
    written = {"function": [found["code"], digest_of(carried)]} if carried else found
    tracer.keep(value, written)
    return written


def _all_plain(items: Any) -> list[Any] | None:
    """Return long lists of numbers or of text as they are written, else None."""
    kinds = set(map(type, items))
    if kinds <= {str, int, bool, type(None)}:
        return list(items)
    if kinds <= {float} and all(map(math.isfinite, items)):
        return list(items)
    return None


def _numpy_scalar(value: Any, where: str, tracer: Tracer, depth: int) -> Any:
    if value.dtype.kind in "biuf" and value.dtype.char not in "gG":
        return {"numpy": [encode_dtype(value.dtype), encode(value.item())]}
    if value.dtype.char in "gG" or value.dtype.hasobject:
        return encode(np.asarray(value)[None], where)  # says what is wrong with it
    little = np.asarray(value).astype(value.dtype.newbyteorder("<"))
    return {"numpy": [encode_dtype(little.dtype), {"bytes": little.tobytes().hex()}]}


def _array(value: Any, where: str, tracer: Tracer, depth: int) -> Any:
    if type(value) is np.ndarray:
        if value.dtype.hasobject and value.dtype.names is None:
            items = [write(item, where, tracer, depth + 1) for item in value.flat]
            return {"objects": [list(value.shape), items]}
        if value.ndim == 0:
            return {"array": {**encode(value[None], where)["array"], "shape": []}}
        return encode(value, where)
    quantity = _quantity(value, where, tracer, depth)
    if quantity is not None:
        return quantity
    parts = [write(np.asarray(value), where, tracer, depth + 1)]
    if isinstance(value, np.ma.MaskedArray):
        parts = [
            write(np.asarray(value.data), where, tracer, depth + 1),
            write(np.ma.getmaskarray(value), where, tracer, depth + 1),
            # np.ma.masked cannot tell it.
            write(getattr(value, "fill_value", None), where, tracer, depth + 1),
        ]
    elif hasattr(value, "__dict__") and not isinstance(value, np.memmap):
        parts.append(write(dict(vars(value)), where, tracer, depth + 1))
    tracer.visit(type(value), type(value).__name__)
    return {"object": [type(value).__name__, digest_of(parts)]}


def _quantity(value: Any, where: str, tracer: Tracer, depth: int) -> Any:
    """Write a number or an array with a unit, of astropy or pint; else None."""
    module = type(value).__module__.partition(".")[0]
    if module == "astropy" and hasattr(value, "unit") and hasattr(value, "value"):
        unit, number = value.unit.to_string(), value.value
    elif module == "pint" and hasattr(value, "magnitude"):
        unit, number = str(value.units), value.magnitude
    else:
        return None
    tracer.stop_at(type(value).__module__)
    return {"quantity": [write(number, where, tracer, depth + 1), unit]}


def _path(value: PurePath, where: str, tracer: Tracer, depth: int) -> Any:
    if not tracer.reads_files:
        return {"path": value.as_posix()}
    return file_contents(Path(value), where, tracer)


def file_contents(path: Path, where: str, tracer: Tracer) -> Any:
    """Write the name and the contents of a file; of a folder only the name."""
    try:
        stat = path.stat()
    except OSError:
        return {"file": [path.name, "missing"]}
    if path.is_dir():
        tracer.note(f"{where} is the folder {path.name}: files in it are not followed")
        return {"file": [path.name, "folder"]}
    return {"file": [path.name, _file_digest(str(path.resolve()), stat)]}


@functools.lru_cache(256)
def _digest_at(name: str, size: int, changed: int, number: int) -> str:
    with Path(name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_digest(name: str, stat: os.stat_result) -> str:
    # A change soon after another may leave size and time as they were. Whole seconds
    # are those of another host's clock, as on sshfs.
    tick_s = 0.015 if stat.st_mtime_ns % 10**9 else 86_400
    at_rest = abs(time.time() - stat.st_mtime) > tick_s
    digest = _digest_at if at_rest else _digest_at.__wrapped__
    return digest(name, stat.st_size, stat.st_mtime_ns, stat.st_ino)


def _enum(value: enum.Enum, where: str, tracer: Tracer, depth: int) -> Any:
    name = f"{type(value).__name__}.{value.name}"
    own = {key: part for key, part in vars(value).items() if not key.startswith("_")}
    tracer.visit(type(value), type(value).__name__)
    held = [value.value, own] if own else [value.value]
    return {"enum": [name, *(write(part, where, tracer, depth + 1) for part in held)]}


def _dtype(value: Any, where: str, tracer: Tracer, depth: int) -> Any:
    return encode(value, where)


def _generator(value: Any, where: str, tracer: Tracer, depth: int) -> Any:
    # Its state changes with every number: what it was seeded with counts.
    seeds = value.bit_generator.seed_seq
    entropy = getattr(seeds, "entropy", None)
    if not isinstance(entropy, int) or entropy < 1 << 64:
        given = [entropy, list(getattr(seeds, "spawn_key", ()))]
    else:
        given = ["from the system"]
    tracer.note_random(where)
    return {"object": ["Generator", digest_of([repr(item) for item in given])]}


def shared_generators() -> dict[str, Any]:
    """Return the generators that all share who have none of their own, if loaded."""
    found = {
        "numpy.random": getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None),
        "random": getattr(sys.modules.get("random"), "_inst", None),
    }
    return {name: one for name, one in found.items() if one is not None}


def is_shared_generator(value: Any) -> bool:
    """Return whether all share this generator who have none of their own."""
    return any(value is one for one in shared_generators().values())


def is_generator(value: Any) -> bool:
    """Return whether a value is a generator of random numbers, of numpy or Python."""
    # numpy imports its own when they are used, which takes milliseconds.
    numpys = sys.modules.get("numpy.random")
    if numpys is not None and isinstance(value, (numpys.Generator, numpys.RandomState)):
        return True
    return type(value).__module__ == "random"


def _random_state(value: Any, where: str, tracer: Tracer, depth: int) -> Any:
    tracer.note_random(where)
    if is_shared_generator(value):
        # That of all who have none of their own, whose state is not the user's.
        return {"library": type(value).__module__.replace(".mtrand", "")}
    state = write(state_of(value), where, tracer, depth + 1)
    return {"object": [type(value).__name__, digest_of(state)]}


def state_of(generator: Any) -> Any:
    """Return what numbers a generator gives next are made of."""
    if hasattr(generator, "get_state"):  # of numpy, the older kind
        return generator.get_state()
    if hasattr(generator, "bit_generator"):
        return generator.bit_generator.state
    return generator.getstate()


def _memory(value: memoryview, where: str, tracer: Tracer, depth: int) -> Any:
    parts = [value.format, list(value.shape or ()), encode(value.tobytes())]
    return {"object": ["memoryview", digest_of(parts)]}


def _cdll(value: Any, where: str, tracer: Tracer, depth: int) -> Any:
    return file_contents(Path(str(value._name)), where, tracer)


#: The first that a value is an instance of counts.
_WRITERS: list[tuple[Any, Callable[[Any, str, Tracer, int], Any]]] = [
    (enum.Enum, _enum),
    (np.generic, _numpy_scalar),
    (np.ndarray, _array),
    (np.dtype, _dtype),
    (PurePath, _path),
    (memoryview, _memory),
]


# Objects of other libraries that are better known by value than by their state.


def _timestamp(value: Any) -> Any:
    return [value.value, getattr(value, "unit", "ns"), str(getattr(value, "tz", None))]


def _frame(value: Any) -> Any:
    return [
        [value.columns, value.index, dict(value.attrs)],
        [_column(value.iloc[:, i]) for i in range(value.shape[1])],
    ]


def _series(value: Any) -> Any:
    return [value.index, value.name, dict(value.attrs), _column(value)]


def _column(value: Any) -> Any:
    if str(value.dtype) == "category":
        return _categories(value.array)
    return [str(value.dtype), value.to_numpy()]


def _categories(value: Any) -> Any:
    return [list(value.categories), value.ordered, np.asarray(value.codes)]


def _index(value: Any) -> Any:
    if str(value.dtype) == "category":
        return ["categories", list(value.names), _categories(value)]
    freq = str(getattr(value, "freq", None))
    kind, dtype = type(value).__name__, str(value.dtype)
    return [kind, list(value.names), dtype, freq, value.to_numpy()]


def _data_array(value: Any) -> Any:
    coords = {str(name): _variable(item) for name, item in value.coords.items()}
    return [value.name, _variable(value), coords]


def _variable(value: Any) -> Any:
    return [list(map(str, value.dims)), dict(value.attrs), value.values]


def _dataset(value: Any) -> Any:
    variables = {str(name): _variable(item) for name, item in value.variables.items()}
    return [sorted(map(str, value.coords)), dict(value.attrs), variables]


def _unit_registry(value: Any) -> Any:
    return sorted(f"{name}: {unit}" for name, unit in value._units.items())


def _fit_parameters(value: Any) -> Any:
    # What it is pickled with has its symbols in an order of the process.
    names = ("value", "vary", "min", "max", "expr", "brute_step", "user_data")
    return {
        name: [getattr(one, attribute) for attribute in names]
        for name, one in value.items()
    }


def _parameterized(value: param.Parameterized) -> Any:
    # What it is pickled with has a number of the process, and who watches it.
    given = str(value.name)
    if given.rstrip("0123456789") == type(value).__name__:
        given = ""
    own = {name: part for name, part in vars(value).items() if name[:7] != "_param_"}
    names = sorted({*type(value).param} - {"name"})
    return [given, {name: getattr(value, name) for name in names}, own]


_BY_NAME: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("pandas", "Timestamp"): _timestamp,
    ("pandas", "Timedelta"): _timestamp,
    ("pandas", "Categorical"): _categories,
    ("pandas", "DataFrame"): _frame,
    ("pandas", "Series"): _series,
    ("xarray", "DataArray"): _data_array,
    ("xarray", "Dataset"): _dataset,
    ("xarray", "Variable"): _variable,
    ("lmfit", "Parameters"): _fit_parameters,
}


def _object(value: Any, where: str, tracer: Tracer, depth: int) -> Any:
    """Write any other object: its class, and what pickle would make it of."""
    cls = type(value)
    top = cls.__module__.partition(".")[0]
    if top == "_thread" and hasattr(value, "__dict__"):  # threading.local
        held = write(dict(vars(value)), where, tracer, depth + 1)
        return {"object": [cls.__name__, digest_of(held)]}
    if top in _WITHOUT_EFFECT:
        return {"object": [cls.__name__, "without effect"]}
    if any(value is one for one in (sys.stdout, sys.stderr)):
        return {"object": ["stream", "without effect"]}
    if is_generator(value):
        how = _generator if hasattr(value, "bit_generator") else _random_state
        return how(value, where, tracer, depth)
    if top == "ctypes" and hasattr(value, "_name") and hasattr(value, "_handle"):
        return _cdll(value, where, tracer, depth)
    if top in ("datetime", "builtins") or isinstance(value, range):
        try:
            return encode(value, where)
        except IdentityError:
            pass  # a subclass, or something of Python's that pickle knows
    known = tracer.written(value)
    if known is not None:
        return known
    with tracer.writing(value):
        document = _parts(value, where, tracer, depth)
        tracer.visit(cls, cls.__name__)
    found = {"object": [cls.__name__, digest_of(document)]}
    tracer.keep(value, found)
    return found


def _parts(value: Any, where: str, tracer: Tracer, depth: int) -> Any:
    cls = type(value)
    top = cls.__module__.partition(".")[0]

    def inner(part: Any) -> Any:
        return write(part, where, tracer, depth + 1)

    hook = getattr(cls, "__resumable_identity__", None)
    if hook is not None:
        return ["identity", inner(hook(value))]
    quantity = _quantity(value, where, tracer, depth)
    if quantity is not None:
        return quantity
    how = _BY_NAME.get((top, cls.__name__))
    if how is None and top == "pandas" and "Index" in cls.__name__:
        how = _index
    if how is None and top == "pint" and cls.__name__.endswith("Registry"):
        how = _unit_registry
    if how is not None:
        return inner(how(value))
    if isinstance(value, param.Parameterized):
        return inner(_parameterized(value))
    registered = copyreg.dispatch_table.get(cls)
    try:
        reduced = registered(value) if registered else value.__reduce_ex__(4)
    except Exception as error:  # pickling runs code of the object
        version = "" if where.startswith(_ALWAYS) else "; or declare a version"
        msg = (
            f"{where} is a {cls.__name__}, which cannot be part of a run's "
            f"identity ({type(error).__name__}: {error}); {_WAY_OUT}{version}"
        )
        raise IdentityError(msg) from error
    if isinstance(reduced, str):
        return ["global", reduced]
    function, arguments, *more = reduced
    state, items, pairs = (*more, None, None, None)[:3]
    if isinstance(state, dict):
        for name in state:
            if tracer.is_state(value, name):
                tracer.changed(f"{cls.__qualname__}.{name}", where)
        state = {
            name: part
            for name, part in state.items()
            if name not in _OF_LIBRARY
            and name not in _BY_USE.get(top, ())
            and not tracer.is_state(value, name)
            and not isinstance(getattr(cls, str(name), None), functools.cached_property)
        } or None  # as where nothing was computed yet
    return [
        tracer.visit(function, where),
        inner(tuple(arguments)),
        inner(state),
        inner(None if items is None else list(items)),
        inner(None if pairs is None else [list(pair) for pair in pairs]),
    ]


def compiled_file(module: str) -> Path | None:
    """Return the file of a module that is compiled, or None."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file and not file.endswith((".py", ".pyc")) else None


def short(value: Any) -> str:
    """Return a value as a short text on one line, for people."""
    try:
        if isinstance(value, np.ndarray):
            with np.printoptions(threshold=8, edgeitems=3):
                text = repr(value)
        elif callable(value) and isinstance(getattr(value, "__qualname__", None), str):
            text = value.__qualname__  # its repr has an address
        else:
            text = reprlib.repr(value)
    except Exception:  # a user's __repr__ may raise anything
        return f"a {type(value).__name__}"
    return " ".join(text.split())[:80]
