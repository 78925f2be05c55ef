"""What making an object of a class runs, and what the object then holds."""

from __future__ import annotations

import functools
import itertools
import operator
import types
import weakref
from typing import TYPE_CHECKING, Final

from amorsize._analysis import inert
from amorsize._analysis.attributes import INNER_CLASS, METACLASS
from amorsize._analysis.codings import follow_coding
from amorsize._analysis.protocols import manage
from amorsize._analysis.special import drain, pass_to_unknown, special, touch
from amorsize._analysis.values import (
    ABSENT,
    EXACT,
    FRESH,
    ITEMS,
    MADE,
    PART,
    Ref,
    Thing,
    Value,
    all_of,
    class_attribute,
    exactly,
    held_in,
    items_of,
    key_of,
    made,
    n_parameters,
    parts_of,
    union,
    within,
)
from amorsize._attribute import attribute_of, is_of, module_of, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amorsize._analysis.look import Look

_BUILT_IN_CONTAINERS: Final = (list, tuple, dict, set, frozenset)

# Where pydantic keeps what is decorated in a model, by its name.
_PYDANTIC_DECORATORS: Final = (
    "validators", "field_validators", "root_validators", "model_validators", "field_serializers", "model_serializers",
    "computed_fields",
)  # fmt: skip


def make(  # noqa: C901, PLR0911, PLR0912 - one per kind of class
    look: Look, kind: type, root: str, args: list[Value], keywords: dict[str, Value]
) -> Value:
    """Make an object of a class: what it holds may be what it was given."""
    given = all_of(args, keywords)
    if kind in {set, frozenset}:
        drain(look, given, "set")
        found = union(items_of(given), touch(look, given))
        return made(kind, found)
    if issubclass(kind, type) and len(args) >= 3:
        derive(look, given)
        special(look, parts_of(given), "__set_name__")
    if inert.kind_of_class(kind) == "generator" and module_of(kind) == "random":
        return made(kind)  # its own generator; what the module loads to seed it is its own affair
    if inert.is_python_class(kind) and not inert.is_inert(module_of(kind)):
        return _make_python(look, kind, root, args, keywords)
    if inert.is_python_class(kind):
        me = (Ref(MADE, Thing(kind, union(given, items_of(given)))),)  # a ChainMap gives what is in what it was given
        if module_of(kind) == "contextlib":
            manage(look, name_of(kind), args, keywords)
        pass_to_unknown(look, args, keywords)
        return me
    if kind in {str, bytes, bytearray}:
        follow_coding(look, args[1:], keywords)
    drain(look, given, name_of(kind))
    given_back = pass_to_unknown(look, args, keywords)
    if kind in {operator.attrgetter, operator.itemgetter, operator.methodcaller}:
        return _make_getter(kind, args)
    if inert.kind_of_class(kind) == "immutable":
        if name_of(kind) == "ContextVar":  # it gives back what it is given
            return made(None, given)
        return held_in(given) if kind is weakref.ReferenceType else FRESH
    if kind is functools.partial:
        return made(None, given)
    if kind is memoryview:
        return union(parts_of(given), made(kind, parts_of(given)))
    if kind in {list, tuple, dict, enumerate, zip, map, filter, reversed} or inert.is_inert(module_of(kind)):
        found = union(items_of(given), special(look, given, "__iter__", "__next__", "keys", "__getitem__"))
        found = union(union(found, given_back), items_of(found))
        return made(kind if kind in {list, tuple, dict} else None, union(found, given))
    return held_in(union(given, parts_of(given)))


def _make_python(look: Look, kind: type, root: str, args: list[Value], keywords: dict[str, Value]) -> Value:
    key = (id(kind), tuple(map(key_of, args)), tuple((name, key_of(value)) for name, value in keywords.items()))
    me = look.objects.get(key)
    if me is not None:
        return me
    me = look.objects[key] = made(kind)
    look.alive.append((args, keywords))
    followed = False
    meta = class_attribute(type(kind), "__call__")
    if is_of(meta, types.FunctionType) and not inert.is_inert(inert.code_module(meta)):
        found = look.call((Ref(EXACT, meta, root),), [exactly(kind, root), *args], keywords)
        me = look.objects[key] = union(me, found)
    for name in ("__new__", "__init__"):
        method = class_attribute(kind, name)
        method = getattr(method, "__func__", method)
        if is_of(method, types.FunctionType) and not inert.is_inert(inert.code_module(method)):
            followed = True
            first = exactly(kind, name_of(kind)) if name == "__new__" else me
            found = look.call((Ref(EXACT, method, root),), [first, *args], keywords)
            if name == "__new__":
                me = look.objects[key] = union(me, found)
    base = class_attribute(kind, "__init__")
    if not followed or not is_of(base, types.FunctionType) or issubclass(kind, _BUILT_IN_CONTAINERS):
        given = all_of(args, keywords)
        me[0].value.put(ITEMS, union(given, items_of(given)))
        pass_to_unknown(look, args, keywords)
    if (method := _own_method(kind, "_missing_")) is not None:  # an Enum asks it for a value that no member has
        me = look.objects[key] = union(me, look.call((Ref(EXACT, method, root),), [exactly(kind, root), FRESH], {}))
    _call_hooks(look, kind, root, me, all_of(args, keywords))
    return me


def _call_hooks(look: Look, kind: type, root: str, me: Value, given: Value) -> None:
    """Call what is called when an object has been made, and when nobody has it any more."""
    for name in ("__post_init__", "__del__"):
        method = class_attribute(kind, name)
        if is_of(method, types.FunctionType) and not inert.is_inert(inert.code_module(method)):
            look.call((Ref(EXACT, method, root),), [me], {})
    for func in _called_by_pydantic(kind):
        ref = Ref(EXACT, func, root)
        look.call((ref,), [union(me, given)] * n_parameters(ref), {})


def _called_by_pydantic(kind: type) -> Iterator[types.FunctionType]:
    """Yield the validators and serializers of a model of pydantic, and what it calls when it has been made."""
    decorators = class_attribute(kind, "__pydantic_decorators__")
    if decorators is ABSENT:
        return
    names = itertools.chain.from_iterable(attribute_of(decorators, group) or () for group in _PYDANTIC_DECORATORS)
    found = [class_attribute(kind, name) for name in (*names, "model_post_init")]
    for field in dict(class_attribute(kind, "__pydantic_fields__") or ()).values():
        found += [attribute_of(one, "func") for one in attribute_of(field, "metadata") or ()]
    for held in found:
        held = attribute_of(held, "wrapped") or held  # noqa: PLW2901 - pydantic's proxy for it
        func = attribute_of(held, "__func__") or attribute_of(held, "fget") or held
        if is_of(func, types.FunctionType) and not inert.is_inert(inert.code_module(func)):
            yield func


def _make_getter(kind: type, args: list[Value]) -> Value:
    """Make a getter of names that the code has; of others, any method or item may be meant."""
    names = [[ref.value for ref in value if ref.kind == EXACT] for value in args]
    try:
        return exactly(kind(*[known[0] for known in names]), name_of(kind))
    except (IndexError, TypeError):
        if kind is operator.itemgetter:
            return made(None, all_of(args, {}))
        known = names[0][0] if kind is operator.methodcaller and names and names[0] else None
        return made((kind, known), all_of(args[1:], {}))


def derive(look: Look, given: Value, keywords: dict[str, Value] | None = None) -> None:
    """Follow what classes do when others are derived from them, with the keywords of the class statement."""
    named = keywords or {}
    for kind in _classes_in(look, given):
        hook = class_attribute(kind, "__init_subclass__")
        hook = getattr(hook, "__func__", hook)
        if is_of(hook, types.FunctionType):
            look.call((Ref(EXACT, hook, name_of(kind)),), [exactly(kind, name_of(kind))], named)
        for name in ("__new__", "__init__"):
            if (method := _own_method(type(kind), name)) is not None:
                look.call((Ref(EXACT, method, name_of(type(kind))),), [FRESH, FRESH, given, FRESH], named)


def prepare(look: Look, metaclasses: Value, bases: Value, keywords: dict[str, Value]) -> None:
    """Follow what makes the namespace of a class, and what the namespace does with the names of the body."""
    for kind in _classes_in(look, metaclasses):
        if (method := _own_method(kind, "__prepare__")) is not None:
            given = [FRESH, bases]
            if is_of(class_attribute(kind, "__prepare__"), classmethod):
                given.insert(0, exactly(kind, name_of(kind)))
            names = look.call((Ref(EXACT, method, name_of(kind)),), given, keywords)
            special(look, names, "__setitem__", "__getitem__", "__delitem__", "__missing__")


def metaclasses_of(look: Look, bases: Value) -> Value:
    """Return the metaclasses that a class statement takes over from its bases."""
    out: Value = FRESH
    for ref in bases:
        if ref.kind == MADE:
            out = union(out, ref.value.held.get(METACLASS, FRESH))
    for kind in _classes_in(look, bases):
        if type(kind) is not type:
            out = union(out, exactly(type(kind), name_of(type(kind))))
    return out


def make_inner(look: Look, held: Value, metaclasses: Value) -> Value:
    """Return a class that the function makes: what its body and its bases hold may be had from it."""
    out = made(INNER_CLASS, held)
    for kind in _classes_in(look, metaclasses):
        if not inert.is_inert(module_of(kind)):
            out[0].value.put(METACLASS, exactly(kind, name_of(kind)))
    return out


def _classes_in(look: Look, value: Value) -> list[type]:
    """Return the classes written in Python that a value may be, or hold."""
    found: dict[int, type] = {}
    for ref in parts_of(value):
        held = [ref.value] if ref.kind == EXACT else look.within(ref.value) if ref.kind == PART else []
        found |= {id(kind): kind for kind in held if is_of(kind, type) and inert.is_python_class(kind)}
    return list(found.values())


def _own_method(kind: type, name: str) -> types.FunctionType | None:
    """Return the function of a method where it is to be followed: written in Python, outside inert packages."""
    method = class_attribute(kind, name)
    method = getattr(method, "__func__", method)
    is_followed = is_of(method, types.FunctionType) and not inert.is_inert(inert.code_module(method))
    return method if is_followed else None


def type_of(value: Value) -> Value:
    out: Value = FRESH
    for ref in value:
        if ref.kind == EXACT:
            out = union(out, exactly(type(ref.value), name_of(type(ref.value))))
        elif ref.kind == MADE and is_of(ref.value.kind, type):
            out = union(out, exactly(ref.value.kind, name_of(ref.value.kind)))
        elif ref.kind == PART:
            for kind in dict.fromkeys(map(type, within(ref.value))):
                if inert.is_python_class(kind):
                    out = union(out, exactly(kind, name_of(kind)))
    return out
