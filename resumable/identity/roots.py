"""Where a trace begins: at an object, a function, a value; and the arrays of values."""

from __future__ import annotations

import ast
import contextlib
import functools
import itertools
import os
import warnings
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resumable.errors import DeclarationError, IdentityError, ResumableWarning
from resumable.identity.classes import doc_of, is_member, member, trace_class
from resumable.identity.kinds import MISSING, PLAIN
from resumable.identity.objects import short, write
from resumable.identity.origin import home_of, is_users
from resumable.identity.record import AT_FIRST, CODE_KINDS, Entry, Trace, digest_of
from resumable.identity.trace import Tracer
from resumable.model import added_dtypes, canonical, decode_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from resumable.identity.reading import Reading

    Array = np.ndarray[Any, np.dtype[Any]]

#: With the number of this process, unlike that of any other.
_PROCESS = os.urandom(16).hex()
#: How far code is looked for in values that were sent to a worker.
_DEEPEST, _MOST_ITEMS = 10, 1000
#: Kinds of entries that are values.
_VALUES = ("value", "environment")
#: Traces until what traced code changes is known.
_ROUNDS = 6

#: What code may read of the declaration of a parameter.
_PARTS_OF_PARAMETERS = frozenset(
    ("bounds", "softbounds", "step", "objects", "names", "doc", "label", "default")
)


class Traced(NamedTuple):
    """What an object or a function computes with."""

    trace: Trace
    """Its code, and the constants that this uses."""
    parameters: dict[str, Any]
    """Values of its parameters, as plain JSON."""
    attributes: dict[str, Any]
    """Values of other attributes that its code reads, as plain JSON."""
    of_code: frozenset[str]
    """Names of the entries that its code reaches without parameters and attributes."""

    def changed(self, now: Traced, *, code: bool) -> list[str]:
        """Say what was changed in memory since this trace; `code`: code counts, too.

        Of constants, numbers and texts count. A helper may fill a table that it is
        given, which is not seen to be state.
        """
        told = []
        for kind, before, after in (
            ("parameter", self.parameters, now.parameters),
            ("attribute", self.attributes, now.attributes),
        ):
            told += [
                f"the {kind} {name!r}"
                for name in dict.fromkeys([*before, *after])
                if before.get(name, MISSING) != after.get(name, MISSING)
            ]
        entries = self.trace.entries
        for key, entry in now.trace.entries.items() if code else ():
            same = entries.get(key, entry).digest == entry.digest
            counts = entry.kind in ("function", "class") or (
                entry.kind == "value" and _is_plain(entry.text)
            )
            if counts and not same:
                told.append(f"{entry.kind} {key}".removeprefix("class class "))
        return told


def _is_plain(text: str) -> bool:
    """Return whether this is the text of a number, a text or None."""
    try:
        return not isinstance(ast.literal_eval(text), (tuple, list, dict, set))
    except (ValueError, SyntaxError):
        return False


def trace_object(
    thing: Any,
    *,
    stop: type,
    roots: Iterable[str],
    parameters: Mapping[str, Any] | None = None,
    own: Iterable[str] = (),
    codes: Mapping[str, tuple[str, Reading]] | None = None,
    values: bool = True,
    lenient: bool = False,
    older_name: str | None = None,
    tables: bool = True,
) -> Traced:
    """Trace the methods `roots` of an object, and what they reach of it.

    Methods of the base class `stop`, and of those above it, do not count, nor
    attributes named in `own`. Code that is in `codes` needs no text. Without `values`,
    those of parameters and attributes are not written: only their code is traced.
    `older_name` is one that the class had: the trace is that of then. Without `tables`,
    constants other than numbers and texts are not written.
    IdentityError: something that is reached cannot be identified. DeclarationError: a
    file was edited since it was imported.
    """
    before = None
    for _ in range(_ROUNDS):
        renamed = (type(thing), older_name) if older_name else None
        tracer = Tracer(
            stop,
            codes=codes,
            lenient=lenient,
            before=before,
            renamed=renamed,
            tables=tables,
        )
        tracer.mentions |= set(roots)
        tracer.files = {
            (cls.__qualname__, name)
            for cls in type(thing).__mro__
            for name, value in (parameters or {}).items()
            if isinstance(value, PurePath)
        }
        members: dict[str, Any] = {}
        # What an attribute of ours takes the place of does not count, either.
        ours = {*own} & vars(thing).keys()
        _members(tracer, type(thing), stop, roots, members, ours)
        of_code = {f"class {type(thing).__name__}", *tracer.entries}
        given, own = dict(parameters or {}), {*own, *(parameters or ())}
        written: dict[str, Any] = {}
        attributes: dict[str, Any] = {}
        with tracer.writing(thing):  # a bound method among its values has it
            if not values:
                _enter_class(tracer, type(thing), stop, members)
                found = _attributes(tracer, thing, own)
                for value in (*given.values(), *found.values()):
                    _code_of(tracer, value)
            else:
                for name, value in given.items():
                    written[name] = write(value, f"the parameter {name!r}", tracer)
                while found := _attributes(tracer, thing, {*own, *attributes}):
                    for name, value in found.items():
                        where = f"the attribute {name!r}"
                        attributes[name] = write(value, where, tracer)
                    _members(tracer, type(thing), stop, roots, members, ours)
                _declared(tracer, thing, given)
                _enter_class(tracer, type(thing), stop, members)
        if tracer.settled(before):
            break
        before = tracer
    return Traced(tracer.trace(), written, attributes, frozenset(of_code))


def _declared(tracer: Tracer, thing: Any, names: Iterable[str]) -> None:
    """Enter what code reads of parameters besides their values, as ``bounds``."""
    if "param" not in tracer.mentions:
        return
    for name in names:
        declared = type(thing).param[name]
        for part in sorted(_PARTS_OF_PARAMETERS & tracer.mentions):
            value = getattr(declared, part, None)
            value = list(value) if isinstance(value, list) else value
            tracer.value(f"param.{name}.{part}", value, f"{part} of {name!r}")


def _members(
    tracer: Tracer,
    cls: type,
    stop: type,
    roots: Iterable[str],
    found: dict[str, Any],
    left_out: set[str],
) -> None:
    """Trace members of a class that are reached, until there are no more."""
    taken = dir(stop)  # as `draw`: they count only where code mentions them
    if is_users(home_of(type(cls))):
        found["metaclass"] = trace_class(tracer, type(cls))
    while True:
        before = len(found)
        for part in _parts(cls, stop):
            if not is_users(home_of(part)):
                tracer.stop_at(part.__module__)
                continue
            reached = {*roots, *tracer.mentions}
            for name, value in sorted(vars(part).items()):
                label = tracer.named(f"{part.__name__}.{name}")
                special = name.startswith("__") and name != "__init__"
                named = name in reached or (
                    (tracer.finds_names or special) and name not in taken
                )
                if label in found or not named or name in left_out:
                    continue
                if is_member(part, name, value):
                    found[label] = member(tracer, part, name, value)
        if len(found) == before:
            return


def _parts(cls: type, stop: type) -> list[type]:
    return [part for part in cls.__mro__ if part not in stop.__mro__]


def _attributes(tracer: Tracer, thing: Any, own: Iterable[str]) -> dict[str, Any]:
    """Return attributes of an object that are reached, but for those in `own`."""
    found = {}
    for name, value in sorted(vars(thing).items()):
        if name in own or name.startswith("_param__"):
            continue
        if not (name in tracer.mentions or tracer.finds_names):
            continue
        if isinstance(getattr(type(thing), name, None), functools.cached_property):
            continue
        # Every worker has a copy of it, so what is only assigned there stays here.
        inside = type(value) not in PLAIN and tracer.is_state(thing, name, "inside")
        if inside:
            tracer.note(
                f"self.{name} is changed by the computation: what it holds before is "
                "not part of the identity"
            )
            continue
        found[name] = value
    return found


def _code_of(tracer: Tracer, value: Any, depth: int = 0) -> None:
    """Trace functions and classes of the user that a value is made of."""
    if depth > _DEEPEST:
        return
    inner: Iterable[Any] = ()
    if isinstance(value, (list, tuple, set, frozenset)):
        inner = value
    elif isinstance(value, dict):
        inner = value.values()
    elif tracer.is_code(value):
        tracer.visit(value, "a value")
    elif is_users(home_of(type(value))):
        tracer.visit(type(value), type(value).__name__)
        inner = getattr(value, "__dict__", {}).values()
    for part in itertools.islice(inner, _MOST_ITEMS):
        _code_of(tracer, part, depth + 1)


def _enter_class(
    tracer: Tracer,
    cls: type,
    stop: type,
    members: Mapping[str, Any],
) -> None:
    """Enter the class itself: what its methods and members are."""
    bases = [tracer.named(part.__name__) for part in _parts(cls, stop)]
    doc = doc_of(cls) if tracer.docs else None
    digest = digest_of([bases, dict(members), doc])
    tracer.entries[f"class {tracer.named(cls.__name__)}"] = Entry("class", digest)


def trace_function(
    function: Callable[..., Any],
    parameters: Mapping[str, Any],
    *,
    codes: Mapping[str, tuple[str, Reading]] | None = None,
    values: bool = True,
    lenient: bool = False,
    tables: bool = True,
) -> tuple[Traced, Any]:
    """Trace a function or another callable.

    Returns what was traced, and the callable as plain JSON, without its code: names,
    arguments of partials, values of the object of a method. The errors are those of
    :func:`trace_object`.
    """
    before = None
    for _ in range(_ROUNDS):
        tracer = Tracer(codes=codes, lenient=lenient, before=before, tables=tables)
        callable_ = (
            tracer.visit(function, "the function")
            if tracer.is_code(function)
            else write(function, "the function", tracer)
        )
        tracer.entries["the function"] = Entry(
            "value", digest_of(callable_), short(function)
        )
        of_code = frozenset(tracer.entries)
        written = {}
        for name, value in parameters.items():
            if not values:
                _code_of(tracer, value)
            else:
                written[name] = write(value, f"the parameter {name!r}", tracer)
        if tracer.settled(before):
            break
        before = tracer
    return Traced(tracer.trace(), written, {}, of_code), callable_


def write_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Write values of parameters as plain JSON; IdentityError where one cannot be."""
    tracer = Tracer(lenient=True)
    return {
        name: write(value, f"the parameter {name!r}", tracer)
        for name, value in values.items()
    }


def write_value(value: Any, where: str = "value") -> Any:
    """Write one value as plain JSON, paths by their names."""
    tracer = Tracer(lenient=True)
    tracer.reads_files = False
    return write(value, where, tracer)


class CodeCheck:
    """Makes sure that the code in a worker is the code that the driver has traced.

    `trace` traces the Process `thing`, there and here: called with it and `codes`, it
    writes no values of parameters and attributes, which are sent, but their code. Of
    constants it only warns without `values`.
    """

    def __init__(
        self,
        thing: Any,
        traced: Traced,
        trace: Callable[..., Traced],
        *,
        values: bool,
        name: str,
    ) -> None:
        self._thing, self._trace, self._codes = thing, trace, traced.trace.codes
        self._values, self._name = values, name
        # As they are before anything is computed: a helper may fill a table that it
        # is given.
        self._constants = {
            key: entry
            for key, entry in traced.trace.entries.items()
            if entry.kind in _VALUES
        }
        #: In a worker: with the values, before anything was computed there.
        self._before: Traced | None = None
        # Not that of a fork, which can be older than a module that was loaded again.
        self._process = _PROCESS, os.getpid()

    @functools.cached_property
    def _there(self) -> tuple[dict[str, Entry], frozenset[str]]:
        """What the driver has traced, and what of it its code reaches."""
        entries, of_code = self._traced(self._thing)
        before = {k: entry for k, entry in self._constants.items() if k in entries}
        return {**entries, **before}, of_code

    def _traced(self, thing: Any) -> tuple[dict[str, Entry], frozenset[str]]:
        found = self._trace(thing, codes=self._codes, values=False, lenient=True)
        entries = {
            key: entry
            for key, entry in found.trace.entries.items()
            if entry.kind in (*CODE_KINDS, *_VALUES)
        }
        return entries, found.of_code

    def changed(self, process: Any) -> list[str]:
        """Say which values a worker's code has changed in its copy of the Process.

        Of the driver's own Process nothing: the driver compares that.
        """
        if self._before is None:
            return []
        try:
            now = self._values_of(process)
        except IdentityError as error:
            return [str(error)]
        return self._before.changed(now, code=self._values)

    def _values_of(self, process: Any) -> Traced:
        # A table that code fills in a worker can be as large as its memory.
        return self._trace(process, codes=self._codes, lenient=True, tables=False)

    def __getstate__(self) -> dict[str, Any]:
        # Only what is sent to another process is traced for it.
        there = self._there
        return {**vars(self), "_there": there, "_thing": None, "_constants": {}}

    def __call__(self, process: Any) -> None:
        """Trace the code that is here; DeclarationError where it is another."""
        if self._process == (_PROCESS, os.getpid()):
            return
        if self._before is None:
            with contextlib.suppress(IdentityError):
                self._before = self._values_of(process)
        there, of_code = self._there
        here, of_code_here = self._traced(process)
        missing = Entry("", "", "missing")
        # Of the values, some may not have been sent: what is reached from one must be
        # among what was reached under its name, whatever its number.
        named: dict[str, set[str]] = {}
        for key, entry in there.items():
            named.setdefault(key.partition("#")[0], set()).add(entry.digest)

        def is_new(key: str, now: Entry) -> bool:
            known = named.get(key.partition("#")[0], {now.digest})
            return now is not missing and now.digest not in known

        pairs = {
            key: (there.get(key, missing), here.get(key, missing))
            for key in sorted({*there, *here})
        }
        changed = [
            (key, before, now)
            for key, (before, now) in pairs.items()
            if before.digest != now.digest
            and (key in of_code or key in of_code_here or is_new(key, now))
            # A class that is sent has no text that says what its state is at first.
            and not (now is missing and key.endswith(AT_FIRST))
        ]
        code = [one for one in changed if {one[1].kind, one[2].kind} & {*CODE_KINDS}]
        if code:
            places = [now.place or before.place for _, before, now in code]
            msg = (
                f"{', '.join(key for key, _, _ in code[:5])} (here "
                f"{next(filter(None, places), 'there')}) was edited while {self._name} "
                "was at work, or is another one where the worker is: run it again "
                "(workers that live longer than a run must be started anew), so that "
                "one run is not computed by two versions"
            )
            raise DeclarationError(msg)
        for key, before, now in changed:
            msg = (
                f"{key} is {now.text} in a worker and {before.text} where {self._name} "
                "was made. A worker imports modules anew: a constant must be the same "
                "in every process, and not assigned from outside of its module. Give "
                "it as a parameter, assign it in setup(), or use the engine 'serial'; "
                "where a file was edited meanwhile, run again"
            )
            if self._values:
                raise DeclarationError(msg)
            warnings.warn(msg, ResumableWarning, stacklevel=2)


#: Containers within each other that are looked into.
_DEEPEST = 10
#: Fields of a masked array that is written as a record.
_MASKED = ("_data", "_mask", "_fill_value")
#: The package whose dtypes are kept by their names: a record has a field of this name.
_ADDED = "ml_dtypes"
#: Those of the pairs as which versions before kept it.
_PAIRS = ("_data", "_mask")


def arrays_in(values: Mapping[str, Any]) -> dict[str, Array]:
    """Return the arrays in some values, by a name for people: ``axis``, ``table.x``."""
    found: dict[str, Array] = {}
    for name, value in values.items():
        for inner, array in _within(name, value, 0):
            unique = inner
            while unique in found:
                unique += "_"
            found[unique] = array
    return found


def _within(name: str, value: Any, depth: int) -> Iterator[tuple[str, Array]]:
    if isinstance(value, np.ndarray):
        plain = type(value) is np.ndarray
        # numpy imports its masked arrays when they are named, which takes long.
        if not plain and type(value) is not np.ma.MaskedArray:
            return
        if not (value.dtype.hasobject or added_dtypes(value.dtype)):
            yield name, value if plain else _as_record(value)
        elif plain and value.dtype.type.__module__ == _ADDED:
            # HDF5 and numpy's files lose its name.
            field = f"{_ADDED}.{value.dtype.name}", f"u{value.dtype.itemsize}"
            yield name, value.view([field])
    elif depth < _DEEPEST and isinstance(value, (list, tuple, dict)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            yield from _within(f"{name}.{key}", item, depth + 1)


def by_document(arrays: Iterable[Array]) -> dict[str, Array]:
    """Return arrays by the canonical JSON that stands for them in an identity."""
    found: list[Any] = list(arrays)
    of_pairs: Any = np.ma.fromflex
    for one in list(found):
        # Of another program, or a user, there may be arrays with such fields.
        with contextlib.suppress(TypeError, ValueError, np.ma.MAError):
            if one.dtype.names == _MASKED:
                found.append(_of_record(one))
            elif one.dtype.names == _PAIRS:
                found.append(of_pairs(one).copy())
            elif len(one.dtype.names or ()) == 1:
                package, _, name = one.dtype.names[0].partition(".")
                if package == _ADDED:
                    found.append(one.view(decode_dtype(name)))
    return {canonical(write_value(array)): array for array in found}


def _as_record(value: Any) -> Array:
    """Return a masked array as one record, in which values and mask lie together."""
    parts = value.data, np.ma.getmaskarray(value), np.asarray(value.fill_value)
    kinds = [(part.dtype, part.shape) for part in parts]
    record = np.zeros((), list(zip(_MASKED, kinds, strict=True)))
    for name, part in zip(_MASKED, parts, strict=True):
        record[name] = part
    return record


def _of_record(record: Any) -> Any:
    data, mask, fill = (record[name] for name in _MASKED)
    value: Any = np.ma.array(data, mask=mask)
    # The default one of short texts, "N/A", cannot be set: it is cut.
    if value.fill_value != fill[()]:
        value.fill_value = fill[()]
    return value
