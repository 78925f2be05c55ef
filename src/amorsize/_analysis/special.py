"""Code that runs without being called by name: special methods, callbacks, and iterators that are used up."""

from __future__ import annotations

import collections
import copyreg
import functools
import gc
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import bounds, inert
from amorsize._analysis.codings import follow_errors
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
    Ref,
    Thing,
    Value,
    all_of,
    cell_value,
    class_attribute,
    exactly,
    is_constant,
    is_ordered_by_seed,
    is_set,
    n_parameters,
    parts_of,
    ref_key,
    union,
)
from amorsize._attribute import (
    attribute_of,
    bases_of,
    is_of,
    module_of,
    name_of,
    namespace_of,
    once_per_class,
    wrapped_function,
)

if TYPE_CHECKING:
    from amorsize._analysis.look import Look

# Builtins that take all items of an argument.
_DRAINS: Final = frozenset(
    ["list", "tuple", "set", "frozenset", "dict", "sorted", "sum", "min", "max", "any", "all", "enumerate", "zip",
     "map", "filter", "next", "bytes", "bytearray", "iter", "reversed"]
)  # fmt: skip

# What may be done with a set whatever order it has.
ORDERLESS: Final = frozenset(
    ["__contains__", "add", "all", "any", "bool", "callable", "copy", "difference", "difference_update", "discard",
     "frozenset", "hasattr", "id", "in", "intersection", "intersection_update", "isdisjoint", "isinstance", "issubset",
     "issuperset", "len", "max", "min", "remove", "set", "sorted", "symmetric_difference", "type", "union", "update"]
)  # fmt: skip

# Special methods that are called without being named: by operators, built-in functions and libraries.
TOUCHED: Final = (
    "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__str__", "__repr__", "__format__",
    "__len__", "__bool__", "__iter__", "__next__", "__contains__", "__getitem__", "__index__", "__int__", "__float__",
    "__abs__", "__neg__", "__array__", "__fspath__", "__bytes__", "__complex__", "__reversed__", "__length_hint__",
    "__round__", "__add__", "__radd__", "__mul__", "__rmul__", "__sub__", "__call__", "__instancecheck__",
    "__subclasscheck__", "__copy__", "__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__", "keys", "read",
    "write", "__divmod__", "__rdivmod__", "__pow__", "__rpow__", "__dir__", "__missing__", "__aiter__", "__anext__",
    "__floor__", "__ceil__", "__trunc__", "__sizeof__", "as_integer_ratio",
)  # fmt: skip

# Special methods that return what is asked further, and what that is asked for.
_ASKED_NEXT: Final = {
    "__iter__": "__next__",
    "__reversed__": "__next__",
    "__await__": "__next__",
    "__aiter__": "__anext__",
}

_REDUCING: Final = frozenset({"__reduce__", "__reduce_ex__"})

FUNCTIONS: Final = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)

_PLAIN_THINGS: Final = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, types.MethodType)


def special(look: Look, value: Value, *names: str, args: list[Value] | None = None) -> Value:
    """Call special methods of what a value stands for, where they are written in Python."""
    out: Value = FRESH
    for ref in value:
        for target in _targets(look, ref, is_any=names == TOUCHED):
            kind: Any = target.kind if is_of(target, Thing) else type(target)
            if not inert.is_python_class(kind) or is_of(target, types.FunctionType):
                continue
            for name in names:
                method, is_bound = _method(kind, name)
                if method is ABSENT:
                    continue
                me = (ref,) if ref.kind == MADE or target is ref.value else exactly(target, ref.root)
                given = args or [FRESH]
                by_seed = look.by_seed
                found = look.call((Ref(EXACT, method, ref.root),), given if is_bound else [me, *given], {})
                if name == "__hash__":  # where something is in a set tells nobody what its hash is
                    look.by_seed = by_seed
                if name in _REDUCING:  # what makes the copy is called with the rest
                    out = union(out, run_callbacks(look, found, [found]))
                if name in _ASKED_NEXT:
                    found = union(found, special(look, found, _ASKED_NEXT[name]))
                out = union(out, found)
            if names == TOUCHED and type(kind) is type and (reduce := copyreg.dispatch_table.get(kind)) is not None:
                me = (ref,) if ref.kind == MADE or target is ref.value else exactly(target, ref.root)
                look.call((Ref(EXACT, reduce, name_of(kind)),), [me], {})
    return out


def _targets(look: Look, ref: Ref, *, is_any: bool) -> list[Any]:
    """Return the objects that may be meant; for any method, those in a container too."""
    if ref.kind == MADE and is_of(ref.value.kind, type):
        return [ref.value]
    if ref.kind == EXACT and not is_of(ref.value, _PLAIN_THINGS):
        # What sorts, adds up or writes out a container does so with what is in it.
        is_container = is_any and inert.kind_of_class(type(ref.value)) == "container"
        return look.within(ref.value) if is_container else [ref.value]
    return look.within(ref.value) if ref.kind == PART else []


def _method(kind: type, name: str) -> tuple[Any, bool]:
    """Return the special method of a class where it is to be followed, and whether it takes no object."""
    held = class_attribute(kind, name)
    func = held.__func__ if is_of(held, staticmethod | classmethod) else held
    if is_of(func, types.FunctionType):
        if inert.is_inert(inert.code_module(func)):
            return ABSENT, False
        return (types.MethodType(func, kind), True) if is_of(held, classmethod) else (func, False)
    # An object that can be called stands for a method that is not given the object it is called on.
    is_callable = held is not ABSENT and is_of(class_attribute(type(held), "__call__"), types.FunctionType)
    return (held, True) if is_callable and not is_of(held, type) else (ABSENT, False)


# Names of methods that frameworks find by what they are to handle.
_BY_NAME: Final = ("visit_", "do_", "handle_")

_OF_MAPPINGS: Final = frozenset(
    ["__getitem__", "__setitem__", "__delitem__", "__iter__", "__len__", "__contains__", "__call__",
     "__array_finalize__", "__array_wrap__"]
)  # fmt: skip


def follow_overrides(look: Look, me: Value, kind: type) -> None:
    """Follow what a class of the program has in place of methods of an inert class: that one's methods call them."""
    key = ("overrides", id(kind), *(map(ref_key, me) if all(ref.kind == EXACT for ref in me) else ()))
    if key in look.touched or not inert.is_python_class(kind) or inert.kind_of_class(kind) == "generator":
        return
    look.touched.add(key)
    look.alive.append(me)
    inherited = {name for base in bases_of(kind) if inert.is_inert(module_of(base)) for name in namespace_of(base)}
    for base in bases_of(kind):
        for name, held in namespace_of(base).items() if not inert.is_inert(module_of(base)) else ():
            is_own = name in inherited and (name in _OF_MAPPINGS or not name.startswith("__"))
            if type(held) is types.FunctionType and (is_own or name.startswith(_BY_NAME)):
                n = max(1, held.__code__.co_argcount)
                look.call((Ref(EXACT, held, name_of(kind)),), [me, *[FRESH] * (n - 1)], {})


def follow_given(look: Look, given: Value) -> None:
    """Follow what objects and classes of the program that a library is given have in place of methods of libraries."""
    for ref in given:
        kind = ref.value.kind if ref.kind == MADE else ref.value if is_of(ref.value, type) else type(ref.value)
        if ref.kind not in {EXACT, MADE} or not is_of(kind, type) or len(bases_of(kind)) < 3:
            continue
        if inert.is_python_class(kind) and not inert.is_inert(module_of(kind)):
            is_class = ref.kind == EXACT and is_of(ref.value, type)
            follow_overrides(look, (Ref(MADE, Thing(kind)),) if is_class else (ref,), kind)


def touch(look: Look, value: Value) -> Value:
    """Follow the special methods of objects written in Python that others may call on them unasked."""
    out: Value = FRESH
    for ref in parts_of(value) if any(ref.kind == MADE for ref in value) else value:
        if ref.kind in {EXACT, PART} and not is_constant(ref):
            key: Any = (ref.kind, id(ref.value), ref.root)
        elif ref.kind == MADE and is_of(ref.value.kind, type):
            key = (ref.kind, id(ref.value), ref.value.size)
        else:
            continue
        if key not in look.touched:
            look.touched.add(key)
            look.alive.append(ref)
            out = union(out, special(look, (ref,), *TOUCHED))
    return out


def pass_to_unknown(look: Look, args: list[Value], keywords: dict[str, Value]) -> Value:
    """Follow what may be done with arguments by code that is not looked at; returns what functions among them give."""
    out: Value = FRESH
    if "errors" in keywords:
        follow_errors(look, keywords)
    for value in (*args, *keywords.values()):
        if value:
            out = union(out, run_callbacks(look, value, args))
            follow_given(look, value)
            touch(look, value)
    return out


def run_callbacks(  # noqa: C901 - one branch per kind of value
    look: Look, value: Value, args: list[Value]
) -> Value:
    """Follow a function that is handed over: it may be called with parts of what else is; returns what it may give."""
    out: Value = FRESH
    others = all_of([a for a in args if a is not value], {})
    parts = union(others, parts_of(others))
    for ref in parts_of(value):
        if ref.kind in {CODE, BOUND} or (ref.kind == EXACT and is_function(ref)):
            out = union(out, look.call((ref,), [parts] * min(bounds.MOST_ARGUMENTS, n_parameters(ref)), {}))
        elif ref.kind == EXACT:
            for inner in native_callbacks(ref.value):
                out = union(out, look.call((Ref(EXACT, inner, ref.root),), [parts], {}))
        elif ref.kind == MADE and is_of(ref.value.kind, tuple):  # a methodcaller, or its like
            out = union(out, look.call((ref,), [parts], {}))
        elif ref.kind == PART:
            for target in look.within(ref.value):
                inner = Ref(EXACT, target, ref.root)
                is_known = not is_of(target, FUNCTIONS) and inert.is_inert(module_of(type(target)))
                if is_function(inner) and not is_known and not is_of(target, types.BuiltinFunctionType):
                    out = union(out, look.call((inner,), [parts] * min(bounds.MOST_ARGUMENTS, n_parameters(inner)), {}))
    for ref in value:
        if ref.kind == METHOD and is_of(ref.value, Thing):
            ref.value.put(ITEMS, parts)
        elif ref.kind == METHOD:
            out = union(out, look.call((ref,), [parts], {}))
    return out


def native_callbacks(value: Any) -> list[Any]:
    """Return the functions of the program that a function pointer of ctypes, or a ufunc of NumPy, calls."""
    if module_of(type(value)) not in _POINTING:
        return []
    layer, found = [value], []
    for _ in range(3):  # a pointer has a table, that has a thunk, that has the function
        layer = [inner for one in layer for inner in gc.get_referents(one) if not is_of(inner, type)]
        found += [inner for inner in layer if is_of(inner, FUNCTIONS)]
        layer = [inner for inner in layer if not is_of(inner, (*FUNCTIONS, types.ModuleType))]
    return found


_POINTING: Final = frozenset({"ctypes", "_ctypes", "numpy"})


def missing(look: Look, value: Value) -> Value:
    """Follow what a dictionary calls for a key that is missing."""
    out = special(look, value, "__missing__")
    for ref in value:
        if ref.kind not in {EXACT, PART}:
            continue
        for target in [ref.value] if ref.kind == EXACT else look.within(ref.value):
            factory = target.default_factory if is_of(target, collections.defaultdict) else None
            if factory is not None:
                out = union(out, look.call((Ref(EXACT, factory, ref.root),), [], {}))
                if _depends_on_state(factory):
                    look.change((Ref(EXACT, target, ref.root),))
                look.unproved.setdefault(ref.root, "reading a key that is missing adds it")
    return out


def _depends_on_state(factory: Any) -> bool:
    """Tell whether what a factory makes depends on what can change: on how many keys there are, say."""
    if is_of(factory, types.FunctionType):
        named = [factory.__globals__[name] for name in factory.__code__.co_names if name in factory.__globals__]
        read = [*named, *map(cell_value, factory.__closure__ or ())]
    else:
        read = [attribute_of(factory, "__self__")]
    kinds = [inert.kind_of_class(type(value)) for value in read if not is_of(value, type)]
    return not {"immutable", "callable"}.issuperset(kinds)


def drain(look: Look, value: Value, by: str) -> None:
    """Take the items of an argument: an iterator is used up, a set has an order."""
    for ref in value:
        if is_set(ref) and by not in ORDERLESS:
            look.depend_on_seed("the order of a set")
        if ref.kind == MADE and by in _DRAINS:
            drain(look, tuple(r for r in ref.value.all() if r.kind != MADE), by)
        if ref.kind not in {EXACT, PART}:
            continue
        for target in [ref.value] if ref.kind == EXACT else look.within(ref.value):
            kind = inert.kind_of_class(type(target))
            if kind == "iterator" or (kind == "state" and by in _DRAINS) or _is_library_iterator(type(target)):
                look.change((ref,))
            elif is_of(target, set | frozenset) and by not in ORDERLESS and is_ordered_by_seed(target):
                look.depend_on_seed("the order of a set")


@once_per_class
def _is_library_iterator(kind: type) -> bool:
    """Tell whether objects of a class are iterators that a library has written in Python, such as csv.DictReader."""
    method = class_attribute(kind, "__next__")
    return is_of(method, types.FunctionType) and inert.is_inert(inert.code_module(method))


def is_function(ref: Ref) -> bool:
    return ref.kind == EXACT and (
        is_of(ref.value, FUNCTIONS)
        or wrapped_function(ref.value) is not None
        or (is_of(class_attribute(type(ref.value), "__call__"), types.FunctionType) and not is_of(ref.value, type))
    )
