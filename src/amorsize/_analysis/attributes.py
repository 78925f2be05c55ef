"""What an attribute may stand for, and what runs when it is read or set."""

from __future__ import annotations

import functools
import sys
import types
from typing import Any, Final

from amorsize._analysis import inert
from amorsize._analysis.library import MUTATORS, WRITERS
from amorsize._analysis.look import Look
from amorsize._analysis.settings import NUMPY_RANDOM, Shared
from amorsize._analysis.values import (
    ABSENT,
    BOUND,
    CODE,
    EXACT,
    FRESH,
    ITEMS,
    MADE,
    METHOD,
    PART,
    SOMEWHERE,
    SUPER,
    Ref,
    Thing,
    Value,
    attribute_after,
    class_attribute,
    exactly,
    instance_attribute,
    is_empty,
    items_of,
    made,
    parts_of,
    slot_value,
    union,
)
from amorsize._attribute import (
    attributes,
    bases_of,
    hides_names,
    is_of,
    module_of,
    name_of,
    namespace_of,
    wrapped_function,
)

INNER_CLASS: Final = "a class made in the function"

# Methods of functions that call them, or bind them to be called.
_CALLING: Final = frozenset(["__call__", "__get__"])

# Methods of texts that may run code of the program.
_OF_TEXT: Final = frozenset(["format", "format_map", "encode", "decode"])

# Attributes of an exception that lead to others.
_CHAIN: Final = frozenset(["__cause__", "__context__"])

# What holds the function that reads an attribute, as far as that is known.
_READ: Final = (None, property, functools.cached_property)

# Where a class made in the function holds its metaclasses, those of the program.
METACLASS: Final = "its metaclass"


def attr(look: Look, owner: Value, name: str) -> Value:  # noqa: C901, PLR0912 - one branch per kind of value
    """Return what an attribute of a value may stand for."""
    out: Value = (Ref(METHOD, Thing(None), "", name),) if not owner and name in WRITERS else FRESH
    for ref in owner:
        if ref.kind == EXACT:
            out = union(out, _attr_exact(look, ref, name))
            out = union(out, look.stored.get(("attr", id(ref.value), name), FRESH))
        elif ref.kind == PART:
            out = union(out, _attr_part(look, ref, name))
        elif ref.kind == MADE:
            out = union(out, _attr_made(look, ref, name))
        elif ref.kind == METHOD and is_of(ref.value, Thing):
            out = union(out, (Ref(METHOD, ref.value, ref.root, name),))
            if ref.value.kind is None:  # an attribute of something unknown: perhaps what that holds
                held = tuple(inner for inner in ref.value.all() if inner.kind in {EXACT, PART, MADE})
                out = union(out, attr(look, held, name))
        elif ref.kind == METHOD and type(ref.value) is Shared:  # what it holds belongs to it
            out = union(out, (ref._replace(name=name),))
        elif ref.kind == SUPER:
            out = union(out, _attr_super(look, ref, name))
        elif ref.kind == CODE and name in {"__wrapped__", "__func__"}:
            out = union(out, (ref,))
        elif ref.kind in {CODE, BOUND, METHOD} and name in _CALLING:
            out = union(out, (ref,) if name == "__call__" else made(None, (ref,)))
        elif ref.kind == BOUND and name in {"__func__", "__self__"}:
            out = union(out, ref.value[1])
    if name in _CHAIN:
        out = union(out, look.raised)
    if not out and name in _OF_TEXT:  # perhaps of a text: it reads attributes of what it is given, or calls handlers
        return (Ref(METHOD, Thing(None), "", name),)
    return out


def _attr_exact(look: Look, ref: Ref, name: str) -> Value:  # noqa: C901, PLR0911, PLR0912 - one per place where an attribute may be
    value, key = ref.value, ("attr", id(ref.value), name)
    if type(value) is Shared:
        if name == "flags":  # of the context of decimals: what any item before has signalled
            look.changes[f"{ref.root}.flags"] = None
        return (Ref(METHOD, value, ref.root, name),)
    if name == "__class__" and not is_of(value, type | types.ModuleType):
        return union(_class_told(look, ref, type(value)), exactly(type(value), name_of(type(value))))
    if name == "__dict__":
        out = vars_of((ref,))
        look.alive.append(out)
        return out
    if name in {"__mro__", "__bases__"} and is_of(value, type):
        return exactly(bases_of(value), ref.root)
    if name == "__self__" and is_of(value, types.MethodType | types.BuiltinFunctionType):
        return exactly(value.__self__, ref.root)
    if is_of(value, types.FunctionType | types.MethodType):
        own = getattr(value, "__dict__", {}).get(name, ABSENT)
        if own is not ABSENT:
            return (Ref(EXACT, own, ref.root, key),)
        if name == "__func__" and is_of(value, types.MethodType):
            return exactly(value.__func__, ref.root)
        if name in _CALLING:
            return (Ref(METHOD, value, ref.root, name),)
        return parts_of((ref,)) if name in {"__defaults__", "__kwdefaults__", "__closure__", "__globals__"} else FRESH
    if is_of(value, types.ModuleType):
        look.modules[id(value)] = value
        look.names.add(name)
        if value is sys and name in {"stdout", "stderr"}:
            return FRESH  # what workers write there appears in the caller's
        held = vars(value).get(name, ABSENT)
        if held is ABSENT and value.__name__ == "numpy" and name == "random":
            return (Ref(EXACT, NUMPY_RANDOM, f"{ref.root}.random"),)
        if held is ABSENT and (maker := vars(value).get("__getattr__")) is not None:
            look.unproved.setdefault(f"{ref.root}.{name}", "the module makes it when it is asked for")
            if not inert.is_inert(value.__name__):
                return look.call((Ref(EXACT, maker, ref.root),), [(Ref(EXACT, name),)], {})
        own = FRESH if held is ABSENT else (Ref(EXACT, held, ref.root, key),)
        if type(value) is not types.ModuleType:  # one whose __class__ has been set
            return union(own, _attr_object(look, ref, name, class_attribute(type(value), name), key))
        return own
    if is_of(value, type):
        held = class_attribute(value, name)
        if type(value) is not type:
            found = _attr_of_metaclass(look, ref, name, is_found=held is not ABSENT)
            if held is ABSENT and found:
                return found
        if is_of(held, staticmethod):
            return (Ref(EXACT, held.__func__, ref.root),)
        if is_of(held, classmethod):
            return (Ref(EXACT, types.MethodType(held.__func__, value), ref.root),)
        if held is ABSENT:
            return (Ref(METHOD, value, ref.root, name),)
        descriptor = class_attribute(type(held), "__get__")
        if is_of(descriptor, types.FunctionType):
            found = look.call((Ref(EXACT, descriptor, ref.root),), [exactly(held, ref.root), FRESH, (ref,)], {})
            return union(found, (Ref(EXACT, held, ref.root, key),))
        return (Ref(EXACT, held, ref.root, key),)
    held = class_attribute(type(value), name)
    getter = class_attribute(type(value), "__getattribute__")
    if is_of(getter, types.FunctionType) and not inert.is_inert(inert.code_module(getter)):
        found = look.call((Ref(EXACT, getter, ref.root),), [(ref,), exactly(name, "")], {})
        out = union(found, _attr_object(look, ref, name, held, key))
        return union(out, parts_of((ref,)))
    return _attr_object(look, ref, name, held, key)


def _class_told(look: Look, ref: Ref, kind: type) -> Value:
    """Return what an object says its class is, where it has code for that."""
    if not inert.is_python_class(kind):
        return FRESH
    out: Value = FRESH
    getter, held = class_attribute(kind, "__getattribute__"), class_attribute(kind, "__class__")
    if is_of(getter, types.FunctionType) and not inert.is_inert(inert.code_module(getter)):
        out = look.call((Ref(EXACT, getter, ref.root),), [(ref,), exactly("__class__", "")], {})
    return union(out, look.call((Ref(EXACT, held.fget, ref.root),), [(ref,)], {})) if is_property(held) else out


def _attr_of_metaclass(look: Look, ref: Ref, name: str, *, is_found: bool) -> Value:
    """Return what a metaclass written in Python gives for an attribute of its class, and follow what it does for it."""
    kind, root = type(ref.value), ref.root
    out: Value = FRESH
    getter = class_attribute(kind, "__getattribute__")
    if is_of(getter, types.FunctionType):
        out = union(out, look.call((Ref(EXACT, getter, root),), [(ref,), exactly(name, "")], {}))
    held = class_attribute(kind, name)
    if is_property(held):
        return union(out, look.call((Ref(EXACT, held.fget, root),), [(ref,)], {}))
    if is_of(held, types.FunctionType):
        return union(out, (Ref(EXACT, types.MethodType(held, ref.value), root),))
    descriptor = class_attribute(type(held), "__get__")
    if is_of(descriptor, types.FunctionType):
        given = [exactly(held, root), (ref,), exactly(kind, root)]
        return union(out, look.call((Ref(EXACT, descriptor, root),), given, {}))
    fallback = class_attribute(kind, "__getattr__")
    if held is ABSENT and not is_found and is_of(fallback, types.FunctionType):
        out = union(out, look.call((Ref(EXACT, fallback, root),), [(ref,), (Ref(EXACT, name),)], {}))
        return union(out, parts_of((ref,)))
    return out


def is_property(held: Any) -> bool:
    """Tell a property from a class built on it that reads in its own way."""
    return is_of(held, property) and not is_of(class_attribute(type(held), "__get__"), types.FunctionType)


def _attr_object(look: Look, ref: Ref, name: str, held: Any, key: Any) -> Value:  # noqa: C901, PLR0911, PLR0912 - one per place
    value = ref.value
    if is_property(held):
        return look.call((Ref(EXACT, held.fget, ref.root),), [(ref,)], {})
    if is_of(held, functools.cached_property):
        own = instance_attribute(value, name)
        if own is not ABSENT:
            return (Ref(EXACT, own, ref.root),)
        return look.call((Ref(EXACT, held.func, ref.root),), [(ref,)], {})
    if is_of(held, types.MemberDescriptorType):
        own = slot_value(held, value)
        return FRESH if own is ABSENT else (Ref(EXACT, own, ref.root, key),)
    own = instance_attribute(value, name)
    if own is not ABSENT:
        return (Ref(EXACT, own, ref.root, key),)
    if is_of(held, types.FunctionType) or wrapped_function(held) is not None:
        return (Ref(EXACT, types.MethodType(held, value), ref.root),)
    if is_of(held, staticmethod):
        return (Ref(EXACT, held.__func__, ref.root),)
    if is_of(held, classmethod):
        return (Ref(EXACT, types.MethodType(held.__func__, type(value)), name_of(type(value))),)
    if held is ABSENT:
        fallback = class_attribute(type(value), "__getattr__")
        if is_of(fallback, types.FunctionType):
            return union(
                look.call((Ref(EXACT, fallback, ref.root),), [(ref,), (Ref(EXACT, name),)], {}), parts_of((ref,))
            )
        if inert.is_python_class(type(value)) and (fallback is not ABSENT or hides_names(type(value))):
            look.doubt((ref,), "its class answers for what is asked of it, in a way that cannot be looked into")
            return parts_of((ref,))
        return parts_of((ref,)) if inert.kind_of_class(type(value)) == "unknown" else FRESH
    if is_of(held, types.MethodDescriptorType | types.WrapperDescriptorType | types.BuiltinFunctionType):
        return (Ref(METHOD, value, ref.root, name),)
    getter = class_attribute(type(held), "__get__")
    if is_of(getter, types.FunctionType):
        root = name_of(type(value))
        found = look.call((Ref(EXACT, getter, root),), [exactly(held, root), (ref,), exactly(type(value), root)], {})
        return union(found, parts_of((ref,)))
    if is_of(held, types.GetSetDescriptorType):
        return parts_of((ref,))
    if name_of(type(held)) == "_tuplegetter":
        try:
            return exactly(held.__get__(value, type(value)), ref.root)
        except (TypeError, IndexError):
            return parts_of((ref,))
    is_bound = is_of(held, types.MethodType | types.BuiltinFunctionType | type | functools.partial)
    if not is_bound and class_attribute(type(held), "__get__") is not ABSENT and not inert.is_python_class(type(held)):
        return (Ref(METHOD, value, ref.root, name),)
    return (Ref(EXACT, held, name_of(type(value)), key),)


def _attr_made(look: Look, ref: Ref, name: str) -> Value:  # noqa: C901, PLR0911, PLR0912 - one per place
    thing = ref.value
    kind = thing.kind
    if name == "__class__":
        return union(_class_told(look, ref, kind), exactly(kind, name_of(kind))) if is_of(kind, type) else FRESH
    if name == "__dict__":
        return (ref,)
    if kind == INNER_CLASS:
        return union(union(thing.all(), (ref,)), _attr_of_inner_class(look, ref, name))
    if not is_of(kind, type) or not inert.is_python_class(kind):
        return (Ref(METHOD, thing, "", name),)
    held = class_attribute(kind, name)
    if is_property(held) and inert.is_inert(inert.code_module(held.fget)):
        return (Ref(METHOD, thing, "", name),)
    own = thing.held.get(name, FRESH)
    getter = class_attribute(kind, "__getattribute__")
    if is_of(getter, types.FunctionType):
        own = union(own, look.call((Ref(EXACT, getter, name_of(kind)),), [(ref,), FRESH], {}))
    if is_property(held):
        return look.call((Ref(EXACT, held.fget, name_of(kind)),), [(ref,)], {})
    if is_of(held, functools.cached_property):
        return look.call((Ref(EXACT, held.func, name_of(kind)),), [(ref,)], {})
    if is_of(held, types.FunctionType) or wrapped_function(held) is not None:
        if is_of(held, types.FunctionType) and inert.is_inert(inert.code_module(held)):
            return union(own, (Ref(METHOD, thing, "", name),))
        return union(own, (Ref(BOUND, (held, (ref,)), name_of(kind)),))
    if is_of(held, classmethod):
        bound = (Ref(BOUND, (held.__func__, exactly(kind, name_of(kind))), name_of(kind)),)
        return union(own, bound) if is_of(held.__func__, types.FunctionType) else own
    if is_of(held, staticmethod):
        return union(own, exactly(held.__func__, name_of(kind)))
    if held is ABSENT:
        fallback = class_attribute(kind, "__getattr__")
        if is_of(fallback, types.FunctionType):
            own = union(own, look.call((Ref(EXACT, fallback, name_of(kind)),), [(ref,), (Ref(EXACT, name),)], {}))
        # What it was given where its code was not followed.
        return union(own, union(thing.held.get(ITEMS, FRESH), items_of(thing.held.get(ITEMS, FRESH))))
    descriptor = class_attribute(type(held), "__get__")
    if is_of(descriptor, types.FunctionType):
        given = [exactly(held, name_of(kind)), (ref,), exactly(kind, name_of(kind))]
        return union(own, look.call((Ref(EXACT, descriptor, name_of(kind)),), given, {}))
    if is_of(held, types.MemberDescriptorType | types.GetSetDescriptorType):
        return union(own, thing.held.get(ITEMS, FRESH))
    if is_of(held, types.MethodDescriptorType | types.WrapperDescriptorType | types.BuiltinFunctionType):
        return union(own, (Ref(METHOD, thing, "", name),))
    if name_of(type(held)) == "_tuplegetter":
        return union(own, thing.held.get(ITEMS, FRESH))
    return union(own, (Ref(EXACT, held, name_of(kind), ("attr", id(kind), name)),))


def _attr_of_inner_class(look: Look, ref: Ref, name: str) -> Value:
    """Follow what reading an attribute runs of a class that the function has made: of itself, and of its metaclass."""
    out: Value = FRESH
    for held in ref.value.all():  # a property, or its like
        for code in held.value.all() if held.kind == MADE and held.value.kind in _READ else ():
            if code.kind == CODE:
                out = union(out, look.call((code,), [(ref,)], {}))
    for meta in ref.value.held.get(METACLASS, FRESH):
        for getter in ("__getattribute__", "__getattr__"):
            method = class_attribute(meta.value, getter)
            if is_of(method, types.FunctionType):
                out = union(out, look.call((Ref(EXACT, method, meta.root),), [(ref,), (Ref(EXACT, name),)], {}))
        held = class_attribute(meta.value, name)
        if is_property(held):
            out = union(out, look.call((Ref(EXACT, held.fget, meta.root),), [(ref,)], {}))
    return out


def _attr_part(look: Look, ref: Ref, name: str) -> Value:
    if ref.value is SOMEWHERE:
        look.find_late(ref.root)
        return (ref, ref._replace(kind=METHOD, name=name)) if name in MUTATORS else (ref,)
    out: Value = FRESH
    seen: dict[type, int] = {}
    for target in look.within(ref.value):
        kind = type(target)
        if is_of(target, type | types.FunctionType):
            held = class_attribute(target, name) if is_of(target, type) else target.__dict__.get(name, ABSENT)
        else:
            held = class_attribute(kind, name)
            if held is ABSENT:
                held = instance_attribute(target, name)
            if held is ABSENT and is_of(target, types.ModuleType):
                held = instance_attribute(target, "__getattr__")
            elif held is ABSENT and inert.is_python_class(kind):
                held = class_attribute(kind, "__getattr__")
        if held is ABSENT:
            continue
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= 3:
            out = union(out, _attr_exact(look, Ref(EXACT, target, ref.root), name))
    # What is not there yet, such as what a defaultdict makes when it is asked for it, is changed where it lives.
    return out or ((Ref(METHOD, ref.value, ref.root, name),) if name in MUTATORS else FRESH)


def _attr_super(look: Look, ref: Ref, name: str) -> Value:  # noqa: C901 - one branch per kind of attribute
    after, me = ref.value
    out: Value = FRESH
    for inner in me:
        if inner.kind == MADE and is_of(inner.value.kind, type):
            kind: Any = inner.value.kind
        elif inner.kind == EXACT:
            kind = inner.value if is_of(inner.value, type) else type(inner.value)
        else:
            out = union(out, attr(look, (inner,), name))
            continue
        held = attribute_after(kind, after, name)
        if is_of(held, types.FunctionType):
            out = union(out, (Ref(BOUND, (held, (inner,)), inner.root),))
        elif is_of(held, classmethod) and is_of(held.__func__, types.FunctionType):
            out = union(out, (Ref(BOUND, (held.__func__, exactly(kind, name_of(kind))), inner.root),))
        elif is_of(held, staticmethod):
            out = union(out, exactly(held.__func__, inner.root))
        elif is_of(held, property):
            out = union(out, look.call((Ref(EXACT, held.fget, inner.root),), [(inner,)], {}))
        elif inner.kind == EXACT and held is not ABSENT and not callable(held):
            out = union(out, (Ref(EXACT, held, name_of(kind)),))
        elif held is not ABSENT:
            out = union(out, (Ref(METHOD, inner.value, inner.root, name),))
    if not me and is_of(held := attribute_after(after, after, name), types.FunctionType):
        out = union(out, exactly(held, name_of(after)))
    return out


def set_attribute(look: Look, ref: Ref, name: str, value: Value, *, deletes: bool = False) -> bool:
    """Follow what an object's class does when an attribute is set or deleted; tell whether that is all that happens."""
    given = [] if deletes else [value]
    kind = ref.value.kind if ref.kind == MADE else type(ref.value)
    if not is_of(kind, type) or not inert.is_python_class(kind):
        return False
    setter = class_attribute(kind, name)
    if is_of(setter, property):
        code = setter.fdel if deletes else setter.fset
        if is_of(code, types.FunctionType) and inert.is_inert(inert.code_module(code)):
            return False  # where it puts that is its own affair
        if code is not None:
            look.call((Ref(EXACT, code, ref.root),), [(ref,), *given], {})
        return True
    if setter is not ABSENT:
        method = class_attribute(type(setter), "__delete__" if deletes else "__set__")
        if is_of(method, types.FunctionType):
            look.call((Ref(EXACT, method, name_of(kind)),), [exactly(setter, name_of(kind)), (ref,), *given], {})
            return True
    method = class_attribute(kind, "__delattr__" if deletes else "__setattr__")
    if is_of(method, types.FunctionType) and not inert.is_inert(inert.code_module(method)):
        look.call((Ref(EXACT, method, ref.root),), [(ref,), (Ref(EXACT, name),), *given], {})
        return ref.kind == MADE and ref.value.put(name, value) is None
    return False


def is_unset(owner: Any, name: str) -> bool:
    """Tell whether an attribute is not there yet, or None."""
    held = class_attribute(owner, name) if is_of(owner, type) else instance_attribute(owner, name)
    if held is ABSENT and not is_of(owner, type):
        held = class_attribute(type(owner), name)
        if is_of(held, types.MemberDescriptorType):
            held = slot_value(held, owner)
    return is_empty(held)


def vars_of(owner: Value) -> Value:
    """Return the dictionaries of objects: to store there is to set their attributes."""
    out: Value = FRESH
    for ref in owner:
        if ref.kind == MADE:
            out = union(out, (ref,))
        elif ref.kind == EXACT and is_of(ref.value, types.ModuleType):
            out = union(out, exactly(vars(ref.value), ref.root))
        elif ref.kind == EXACT and is_of(ref.value, type):
            out = union(out, exactly(namespace_of(ref.value), ref.root))
        elif ref.kind == EXACT and attributes(ref.value):
            out = union(out, exactly(attributes(ref.value), ref.root))
        else:
            out = union(out, parts_of((ref,)))
    return out


def all_methods(look: Look, owner: Value) -> Value:
    """Return the methods of objects whose name is made at run time: any may be meant."""
    out: Value = FRESH
    inside = [Ref(EXACT, inner, ref.root) for ref in owner if ref.kind == PART for inner in look.within(ref.value)]
    for ref in (*owner, *inside):
        kind = ref.value.kind if ref.kind == MADE else type(ref.value)
        if ref.kind == SUPER or not is_of(kind, type) or not inert.is_python_class(kind):
            continue
        for base in bases_of(kind):
            for name, held in namespace_of(base).items() if not inert.is_inert(module_of(base)) else ():
                if is_of(held, types.FunctionType | classmethod | staticmethod | property) and (
                    not name.startswith("__")
                ):
                    out = union(out, attr(look, (ref,), name))
    return out
