"""What of a class counts: its bases, its members, and the fields made of these."""

from __future__ import annotations

import enum
import functools
import inspect
import sys
import types
from typing import TYPE_CHECKING, Any

import param

from resumable.identity.kinds import PLAIN, functions_of, module_of
from resumable.identity.names import enter_first
from resumable.identity.objects import compiled_file, file_contents, short, write
from resumable.identity.origin import SENT, home_of, is_users
from resumable.identity.record import Entry, digest_of

if TYPE_CHECKING:
    from resumable.identity.trace import Tracer

#: Methods that set up an object: what they assign is no state.
_SETS_UP = ("__init__", "__new__", "__post_init__", "__setstate__", "__init_subclass__")
#: Modules that give classes methods of their own, other ones in every Python.
_MAKERS = ("dataclasses", "attr", "collections", "enum", "functools", "reprlib")
#: Special names that Python and its modules give every class.
_MADE = frozenset(
    (
        *("__module__", "__doc__", "__dict__", "__weakref__", "__qualname__"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__firstlineno__"),
        *("__static_attributes__", "__annotations_cache__", "__slotnames__"),
        *("__conditional_annotations__", "__orig_bases__", "__parameters__"),
        *("__type_params__", "__abstractmethods__", "__signature__"),
    )
)
#: How special names begin that dataclasses, attrs and pydantic give.
_MADE_BY = ("__dataclass", "__attrs", "__pydantic", "__class_vars", "__private_attr")
#: Attributes of a class that Python or a decorator has made.
_GENERATED_FILES = ("<string>", "<attrs generated", "<template>")


def trace_class(tracer: Tracer, cls: type) -> Any:
    """Trace a class; return what refers to it, as plain JSON.

    Its entry has its plain name: cloudpickle does not send the rest of the qualified
    one.
    """
    if cls in tracer.stop or not is_users(home_of(cls)):
        tracer.stop_at(cls.__module__)
        return {"library": f"{cls.__module__}.{cls.__qualname__}"}
    key, new = tracer.key(cls, cls.__name__)
    if not new:
        return {"code": key}
    bases = [trace_class(tracer, base) for base in cls.__mro__[1:-1]]
    compiled = compiled_file(cls.__module__)
    members: dict[str, Any] = {}
    if compiled is not None:
        members["file"] = file_contents(compiled, key, tracer)
    for name, value in sorted(vars(cls).items()):
        if is_member(cls, name, value):
            members[name] = member(tracer, cls, name, value)
        elif isinstance(value, param.Parameter):
            label = f"{cls.__name__}.{name}"
            members[name] = tracer.part(label, value.default, label)
    if tracer.docs:
        members["__doc__"] = doc_of(cls)
        members["__annotations__"] = _annotations(cls)
    members.update(_fields(cls, tracer))
    if is_users(home_of(type(cls))):
        members["metaclass"] = trace_class(tracer, type(cls))
    tracer.entries[key] = Entry("class", digest_of([bases, members]))
    return {"code": key}


def doc_of(cls: type) -> str:
    """Return the docstring of a class, whose indentation Python 3.13 takes out."""
    return inspect.cleandoc(cls.__doc__ or "")


def _annotations(cls: type) -> dict[str, str]:
    found = vars(cls).get("__annotations__", {})
    if sys.version_info >= (3, 14):  # they are evaluated when they are read
        import annotationlib

        form = annotationlib.Format.FORWARDREF
        found = annotationlib.get_annotations(cls, format=form)
    return {
        name: annotation if isinstance(annotation, str) else short(annotation)
        for name, annotation in found.items()
    }


def is_member(cls: type, name: str, value: Any) -> bool:
    """Return whether something of a class counts."""
    kind = type(value)
    if name in _MADE:  # Python 3.14 has a function among them, for the annotations
        return False
    if name.startswith("_param__") or kind.__module__.partition(".")[0] == "param":
        return False
    if isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType)):
        return False
    if kind.__module__ == "_abc" or kind.__name__ == "_tuplegetter":
        return False
    plain = getattr(value, "__func__", value)
    if isinstance(plain, types.FunctionType):
        plain = inspect.unwrap(plain)  # dataclasses wrap the __repr__ they make
        if module_of(plain).partition(".")[0] in _MAKERS:
            return False
        generated = _is_generated(plain.__code__)
        named = f".{cls.__name__}.__" in f".{plain.__qualname__}"
        return not (generated and (named or name.startswith("_")))
    if name.startswith("__") and name.endswith("__"):
        if name.startswith(_MADE_BY):
            return False
        users = is_users(home_of(kind)) or kind in PLAIN
        kinds = (classmethod, staticmethod, property, functools.partialmethod)
        return users or isinstance(value, kinds)
    return not (isinstance(cls, enum.EnumMeta) and name.startswith("_"))


def _is_generated(code: types.CodeType) -> bool:
    """Return whether code was made by dataclasses, attrs or the like."""
    if code.co_filename != SENT:
        return code.co_filename.startswith(_GENERATED_FILES)
    name = code.co_qualname
    outermost = name == "<lambda>" or name == f"__{name.strip('_')}__"
    return outermost or name.startswith("__create_fn__.")


def member(tracer: Tracer, cls: type, name: str, value: Any) -> Any:
    """Refer to what a class has under a name, and learn what it changes of it."""
    if name not in _SETS_UP:
        sets = {value.fset, value.fdel} if isinstance(value, property) else {}
        for function in functions_of(value):
            if is_users(module_of(function), function.__code__.co_filename):
                _, reading, _ = tracer.read(function)
                how = "assigned" if function in sets else "called"
                tracer.own_changes.append((id(cls), name, how, reading.changes_own))
    if ("attribute", id(cls), name) in tracer.state and not tracer.is_code(value):
        space = vars(sys.modules.get(cls.__module__, types))
        enter_first(tracer, space, tuple(cls.__qualname__.split(".")), name)
        return tracer.changed(f"{cls.__qualname__}.{name}", cls.__module__)
    label = f"{cls.__name__}.{name}"
    return tracer.part(label, value, label)


def _fields(cls: type, tracer: Tracer) -> dict[str, Any]:
    """Return fields that dataclasses, attrs and pydantic have taken from a class."""
    made: dict[str, Any] = {}
    options = vars(cls).get("__dataclass_params__")
    if options is not None:
        names = ("eq", "order", "repr", "unsafe_hash")
        made["options"] = {name: getattr(options, name) for name in names}
    for name in ("__dataclass_fields__", "__attrs_attrs__", "__pydantic_fields__"):
        fields = vars(cls).get(name)
        if not fields:
            continue
        items = (
            list(fields.items())
            if isinstance(fields, dict)
            else [(field.name, field) for field in fields]
        )
        made["fields"] = [field for field, _ in items]
        for field, how in items:
            parts = [
                getattr(how, "default", None),
                getattr(how, "default_factory", None),
                getattr(how, "converter", None),
                getattr(how, "compare", None),
                # pydantic converts to it.
                repr(how.annotation) if hasattr(how, "annotation") else None,
                list(how.metadata) if hasattr(how, "annotation") else None,
            ]
            made[f"field {field}"] = [
                None
                if _is_marker(part)
                else write(part, f"{cls.__name__}.{field}", tracer)
                for part in parts
            ]
    return made


def _is_marker(part: Any) -> bool:
    """Return whether a default says that there is none."""
    named = ("MISSING_TYPE", "_Nothing", "PydanticUndefinedType")
    return type(part).__name__ in named
