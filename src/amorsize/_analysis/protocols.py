"""
What statements and builtins run of what they are given, without a name in the code.

Context managers are entered, left and closed, by ``with`` statements and ``contextlib``. ``isinstance`` and its like
ask hooks of classes, of their subclasses, and properties of what is asked about. ``str.format`` reads attributes and
items by names that stand in a text.
"""

from __future__ import annotations

import abc
import inspect
import re
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import bounds, inert
from amorsize._analysis.attributes import all_methods, attr
from amorsize._analysis.special import missing, special, touch
from amorsize._analysis.values import (
    ABSENT,
    EXACT,
    FRESH,
    MADE,
    Ref,
    Value,
    all_of,
    cell_value,
    class_attribute,
    exactly,
    items_of,
    parts_of,
    union,
)
from amorsize._attribute import bases_of, is_of, module_of, name_of, namespace_of

if TYPE_CHECKING:
    from amorsize._analysis.look import Look

# -- context managers --------------------------------------------------------------------------------------------------

_ENTERS: Final = ("__enter__", "__aenter__")
_LEAVES: Final = ("__exit__", "__aexit__")

# Methods of contextlib's stacks that enter what they are given, and that only leave it.
_ENTERING: Final = frozenset(["enter_context", "enter_async_context"])
_PUSHING: Final = frozenset(["push", "push_async_exit"])

# What contextlib calls on what it is to close.
_CLOSERS: Final = {"closing": "close", "aclosing": "aclose"}


def enter(look: Look, manager: Value) -> Value:
    """Enter and leave a context manager; returns what entering it gives."""
    entered = _awaited(look, special(look, manager, *_ENTERS))
    leave(look, manager)
    return entered


def leave(look: Look, manager: Value) -> None:
    """Leave a context manager."""
    _awaited(look, special(look, manager, *_LEAVES))


def _awaited(look: Look, value: Value) -> Value:
    """Follow what is awaited of what an asynchronous method returns, where that is an object of its own."""
    return union(value, special(look, value, "__await__"))


def manage(look: Look, name: str, args: list[Value], keywords: dict[str, Value]) -> Value:
    """Follow what contextlib does with the context managers, and with what is to be closed, that it is given."""
    given = all_of(args, keywords)
    if name in _ENTERING:
        return enter(look, given)
    if name in _PUSHING:
        leave(look, given)
    elif name in _CLOSERS:
        _awaited(look, look.call(attr(look, given, _CLOSERS[name]), [], {}))
    return FRESH


def enter_for_wrapper(look: Look, func: types.FunctionType, root: str) -> None:
    """Follow the context manager that contextlib's wrapper of a function enters for each call of it."""
    for cell in func.__closure__ or ():
        held: Any = cell_value(cell)
        if held is ABSENT or not inert.is_python_class(type(held)):
            continue
        me = exactly(held, root)
        recreate = class_attribute(type(held), "_recreate_cm")
        if is_of(recreate, types.FunctionType) and not inert.is_inert(inert.code_module(recreate)):
            me = union(me, look.call((Ref(EXACT, recreate, root),), [me], {}))
        enter(look, me)


# -- isinstance and its like -------------------------------------------------------------------------------------------

# Until 3.11 a protocol reads the attributes it names; later versions look them up without running code.
_PROTOCOLS_READ: Final = sys.version_info < (3, 12)


def ask_kind(look: Look, asked: Value, kinds: Value) -> None:
    """Follow what runs when something is asked whether it is of any of some classes."""
    followed = tuple(ref for ref in asked if _is_python(ref))
    if followed:
        attr(look, followed, "__class__")
    for ref in _each_class(kinds):
        if type(ref.value) is type:
            continue
        special(look, (ref,), "__instancecheck__", "__subclasscheck__")
        if issubclass(type(ref.value), abc.ABCMeta):
            _ask_hooks(look, ref.value)
            if _PROTOCOLS_READ and followed and class_attribute(ref.value, "_is_protocol") is True:
                _read_members(look, followed, ref.value)


def _is_python(ref: Ref) -> bool:
    kind = ref.value.kind if ref.kind == MADE else type(ref.value)
    return issubclass(type(kind), type) and inert.is_python_class(kind)


def _each_class(kinds: Value, depth: int = 3) -> list[Ref]:
    """Return the classes of a value: itself, or those in tuples and unions of them."""
    found: list[Ref] = []
    for ref in kinds:
        if ref.kind == EXACT and issubclass(type(ref.value), type):
            found.append(ref)
        elif ref.kind == EXACT and type(ref.value) in {tuple, types.UnionType} and depth:
            held = ref.value if type(ref.value) is tuple else ref.value.__args__
            found += _each_class(tuple(Ref(EXACT, inner, ref.root) for inner in held), depth - 1)
        elif ref.kind == MADE and depth:
            found += _each_class(items_of((ref,)), depth - 1)
    return found


def _ask_hooks(look: Look, kind: type) -> None:
    """Follow the hooks of an abstract class and its subclasses, which are asked in turn."""
    kinds = [kind]
    for current in kinds:  # grows
        if len(kinds) < bounds.MOST_SUBCLASSES:
            kinds += type.__subclasses__(current)
        else:
            look.unproved.setdefault(name_of(kind), "it has more subclasses than are looked at")
            return
    for current in {id(current): current for current in kinds}.values():
        if not inert.is_inert(module_of(current)):
            _ask_hook(look, current)


def _ask_hook(look: Look, kind: type) -> None:
    hook: Any = class_attribute(kind, "__subclasshook__")
    func = getattr(hook, "__func__", hook)
    if issubclass(type(func), types.FunctionType) and not inert.is_inert(inert.code_module(func)):
        given = (
            [FRESH] if func is hook or issubclass(type(hook), staticmethod) else [exactly(kind, name_of(kind)), FRESH]
        )
        look.call((Ref(EXACT, func, name_of(kind)),), given, {})
    for name in ("__instancecheck__", "__subclasscheck__"):
        method = class_attribute(type(kind), name)
        if issubclass(type(method), types.FunctionType) and not inert.is_inert(inert.code_module(method)):
            look.call((Ref(EXACT, method, name_of(kind)),), [exactly(kind, name_of(kind)), FRESH], {})


def _read_members(look: Look, asked: Value, kind: type) -> None:
    """Follow the properties that a protocol reads."""
    for base in bases_of(kind):
        if namespace_of(base).get("_is_protocol") is True:
            names = {*namespace_of(base), *inspect.get_annotations(base)}
            for name in sorted(name for name in names if not name.startswith("_")):
                attr(look, asked, name)


# -- str.format --------------------------------------------------------------------------------------------------------

# Methods that read fields of what they are given.
FORMATTERS: Final = frozenset(["format", "format_map", "vformat"])

# A field, up to where its format begins: "{0.name[key]!r:>8}"; fields stand in formats, too.
_FIELD: Final = re.compile(r"\{([^{}\[.!:]*)((?:\.[^{}\[.!:]+|\[[^\]]*\])+)")
_STEP: Final = re.compile(r"\.([^\[.]+)|\[([^\]]*)\]")


def format_text(look: Look, text: str, name: str, args: list[Value], keywords: dict[str, Value]) -> None:
    """Follow what the fields of a text read of the arguments."""
    given = all_of(args, keywords)
    if name == "format_map":
        given = union(items_of(given), _item(look, given))
        touch(look, given)
    for first, steps in _FIELD.findall(text):
        value = _argument(first, args, keywords, given) if name != "format_map" else given
        for attribute, _ in _STEP.findall(steps):
            value = attr(look, value, attribute) if attribute else _item(look, value)
        touch(look, value)


def format_any(look: Look, given: Value) -> None:
    """Follow what a text that is not known may read of the arguments: any of their properties."""
    every = union(given, items_of(given))
    names: list[Value] = [(Ref(EXACT, ""),)]
    all_methods(look, every)
    special(look, every, "__getitem__", "__getattr__", args=names)
    missing(look, every)


def _argument(name: str, args: list[Value], keywords: dict[str, Value], given: Value) -> Value:
    """Return what the name or the position of an argument stands for: any, where it cannot be told."""
    if name.isdigit() and int(name) < len(args):
        return union(args[int(name)], items_of(args[int(name)]))  # from "*args", each is a part of all
    return keywords.get(name, given if not name.isidentifier() else keywords.get("**", FRESH))


def _item(look: Look, value: Value) -> Value:
    return union(union(special(look, value, "__getitem__"), missing(look, value)), parts_of(value))
