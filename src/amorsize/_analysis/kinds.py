"""What isinstance and its like run: hooks of classes, of their subclasses, and properties of what is asked about."""

from __future__ import annotations

import abc
import inspect
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import bounds, inert
from amorsize._analysis.attributes import attr
from amorsize._analysis.special import special
from amorsize._analysis.values import EXACT, FRESH, MADE, Ref, Value, class_attribute, exactly, items_of
from amorsize._attribute import bases_of, module_of, name_of, namespace_of

if TYPE_CHECKING:
    from amorsize._analysis.look import Look

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
