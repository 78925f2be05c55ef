"""
Instructions that read and set: names, attributes, items and slices.

A function for each meaning that :mod:`amorsize._analysis.bytecode` has; the table of all of them is in opcodes.
"""

from __future__ import annotations

import builtins
import sys
import types
from typing import TYPE_CHECKING, Final

from amorsize._analysis import inert
from amorsize._analysis.attributes import attr, is_unset, set_attribute
from amorsize._analysis.look import AWAITED, CALLEE_FIRST
from amorsize._analysis.settings import Shared, note
from amorsize._analysis.special import missing, special, touch
from amorsize._analysis.values import (
    ABSENT,
    BOUND,
    EXACT,
    FRESH,
    ITEMS,
    KEYS,
    MADE,
    METHOD,
    NO_VALUE,
    NULL,
    PART,
    SUPER,
    Ref,
    Thing,
    Value,
    class_attribute,
    copied,
    element,
    is_empty,
    items_of,
    parts_of,
    plain,
    union,
    views,
)
from amorsize._attribute import is_of
from amorsize._modules import absolute

if TYPE_CHECKING:
    from amorsize._analysis.bytecode import Step
    from amorsize._analysis.look import Frame, Handler

# -- names -------------------------------------------------------------------------------------------------------------

_BUILTINS: Final = vars(builtins)


def load_fast(frame: Frame, step: Step) -> None:
    frame.stack.append(frame.locals.get(step.value, FRESH))


def load_fast_pair(frame: Frame, step: Step) -> None:
    frame.stack += [frame.locals.get(name, FRESH) for name in step.value]


def load_closure(frame: Frame, step: Step) -> None:
    frame.stack.append(frame.cells.get(step.value, FRESH))


def _set_local(frame: Frame, name: str, value: Value) -> None:
    value = tuple(ref for ref in value if ref.kind != NULL)
    frame.locals[name] = union(frame.locals.get(name, FRESH), value)


def store_fast(frame: Frame, step: Step) -> None:
    _set_local(frame, step.value, frame.pop())


def store_fast_pair(frame: Frame, step: Step) -> None:
    for name in step.value:
        _set_local(frame, name, frame.pop())


def store_then_load(frame: Frame, step: Step) -> None:
    _set_local(frame, step.value[0], frame.pop())
    frame.stack.append(frame.locals.get(step.value[1], FRESH))


def load_global(frame: Frame, step: Step) -> None:
    is_callee = step.meaning == "global" and bool(step.arg & 1)
    if is_callee and not CALLEE_FIRST:
        frame.stack.append(NO_VALUE)
    frame.stack.append(_look_up(frame, step.value))
    if is_callee and CALLEE_FIRST:
        frame.stack.append(NO_VALUE)
    frame.note_test(("global", id(frame.globals), step.value))


def _look_up(frame: Frame, name: str) -> Value:
    held, key = frame.globals.get(name, ABSENT), ("global", id(frame.globals), name)
    stored = frame.look.stored.get(key, FRESH)
    if held is ABSENT:
        held = _BUILTINS.get(name, ABSENT)
        return stored if held is ABSENT else (Ref(EXACT, held, name), *stored)
    return (Ref(EXACT, held, name, key), *stored)


def store_global(frame: Frame, step: Step) -> None:
    if step.meaning == "store global":
        key = ("global", id(frame.globals), step.value)
        frame.look.store(key, frame.pop())
        frame.stores.append((key, step.value, is_empty(frame.globals.get(step.value))))
    else:
        frame.look.changes[step.value] = None


def load_deref(frame: Frame, step: Step) -> None:
    value = frame.cells.get(step.value, FRESH)
    if step.value in frame.free:
        key = ("cell", id(frame.code), step.value)
        value = tuple(ref._replace(name=key) if ref.kind == EXACT else ref for ref in value)
        frame.note_test(key)
    frame.stack.append(value)


def store_deref(frame: Frame, step: Step) -> None:
    value = frame.pop() if step.meaning == "store deref" else FRESH
    held = frame.cells.get(step.value, FRESH)
    if step.value in frame.free and (any(ref.root == step.value for ref in held) or _is_outer(frame, step.value)):
        is_first = all(ref.kind == EXACT and is_empty(ref.value) for ref in held)
        frame.stores.append((("cell", id(frame.code), step.value), step.value, is_first))
    frame.cells[step.value] = union(held, value)


def _is_outer(frame: Frame, name: str) -> bool:
    """Tell whether a free variable belongs to a call that has ended: it then lives as long as the function."""
    return frame.look.depth == 1 and name in frame.cells


def store_name(frame: Frame, _: Step) -> None:
    # In the body of a class: what it holds is what its class holds.
    frame.returned = union(frame.returned, frame.pop())


def load_const(frame: Frame, step: Step) -> None:
    value = step.value
    if is_of(value, tuple | frozenset) or type(value) in inert.SCALARS or is_of(value, types.CodeType):
        frame.stack.append((Ref(EXACT, value),))
    else:
        frame.stack.append(FRESH)


def push_null(frame: Frame, _: Step) -> None:
    frame.stack.append(NO_VALUE)


def import_name(frame: Frame, step: Step) -> None:
    frame.pop_many(2)
    name = absolute(str(step.value), frame.globals)
    module = sys.modules.get(name)
    if module is None and not inert.is_inert(name):
        frame.look.unproved.setdefault(name, AWAITED)
    root = sys.modules.get(name.partition(".")[0])
    out = () if module is None else (Ref(EXACT, module, name),)
    frame.stack.append(union(out, () if root is None else (Ref(EXACT, root, name.partition(".")[0]),)))


def import_from(frame: Frame, step: Step) -> None:
    owner = frame.stack[-1] if frame.stack else FRESH
    found = attr(frame.look, owner, step.value)
    for ref in owner if not found else ():  # perhaps a module of a package
        if is_of(ref.value, types.ModuleType) and not inert.is_inert(ref.value.__name__):
            frame.look.unproved.setdefault(f"{ref.value.__name__}.{step.value}", AWAITED)
    frame.stack.append(found)


# -- attributes, items and slices --------------------------------------------------------------------------------------

_ATTR_IS_METHOD: Final = sys.version_info >= (3, 12)


def load_attr(frame: Frame, step: Step) -> None:
    owner = frame.pop()
    is_method = step.meaning == "method" or (_ATTR_IS_METHOD and bool(step.arg & 1))
    value = attr(frame.look, owner, step.value)
    if is_method and not CALLEE_FIRST:
        frame.stack += [NO_VALUE, value]
    elif is_method:
        frame.stack += [value, NO_VALUE]
    else:
        frame.stack.append(value)
    for ref in owner:
        if ref.kind in {EXACT, MADE}:
            frame.note_test(("attr", id(ref.value), step.value))


def load_super_attr(frame: Frame, step: Step) -> None:
    me, kind, _super = frame.pop(), frame.pop(), frame.pop()
    out = attr(frame.look, super_of(kind, me), step.value)
    if step.arg & 1:
        frame.stack += [out, NO_VALUE] if CALLEE_FIRST else [NO_VALUE, out]
    else:
        frame.stack.append(out)


def super_of(kind: Value, me: Value) -> Value:
    return tuple(Ref(SUPER, (ref.value, me)) for ref in kind if ref.kind == EXACT and is_of(ref.value, type))


def store_attr(frame: Frame, step: Step) -> None:  # noqa: C901 - one branch per kind of value
    owner = frame.pop()
    deletes = step.meaning == "delete attr"
    value = FRESH if deletes else frame.pop()
    for ref in owner:
        if ref.kind == EXACT and type(ref.value) in inert.SCALARS:
            continue  # no attribute of a number or a text can be set: another value is meant
        if ref.kind == EXACT and type(ref.value) is Shared:
            note(frame.look, f"{ref.root}.{step.value}", ref.value.module, [value])
        elif ref.kind == EXACT:
            if set_attribute(frame.look, ref, step.value, value, deletes=deletes):
                continue
            key = ("attr", id(ref.value), step.value)
            if deletes:  # a place that is looked at before is not set up, but taken away
                frame.look.changes[ref.root] = None
                continue
            frame.look.store(key, value)
            frame.stores.append((key, ref.root, is_unset(ref.value, step.value)))
        elif ref.kind == MADE:
            frame.alterations.append((("attr", id(ref.value), step.value), ref.value))
            if not set_attribute(frame.look, ref, step.value, value, deletes=deletes):
                ref.value.put(step.value, value)
            if step.value != "__dict__":  # where its attributes are those of an object outside
                frame.look.change(ref.value.held.get("__dict__", FRESH))
        elif ref.kind in {PART, METHOD}:
            frame.look.change((ref,))


def load_item(frame: Frame, _: Step) -> None:
    key, owner = frame.pop(), frame.pop()
    frame.stack.append(item(frame, owner, key))


def item(frame: Frame, owner: Value, key: Value) -> Value:  # noqa: C901 - one branch per kind of owner
    out: Value = special(frame.look, owner, "__getitem__", args=[key])
    for ref in owner:
        if ref.kind == EXACT and is_of(ref.value, type):
            func = getattr(class_attribute(ref.value, "__class_getitem__"), "__func__", None)
            if is_of(func, types.FunctionType) and not inert.is_inert(inert.code_module(func)):
                out = union(out, frame.look.call(attr(frame.look, (ref,), "__class_getitem__"), [key], {}))
    touch(frame.look, key)
    constant = plain(key)
    for ref in owner:
        if ref.kind in {MADE, METHOD, BOUND}:
            out = union(out, ref.value.by_key() if ref.kind == MADE else items_of((ref,)))
            if ref.kind == MADE:
                out = union(out, special(frame.look, (ref,), "__missing__", args=[key]))
            if ref.kind == MADE and type(constant) is str:
                out = union(out, ref.value.get(constant))
            continue
        if ref.kind not in {EXACT, PART}:
            continue
        if ref.kind == EXACT:
            frame.look.read(ref.value, constant)
            held = element(ref.value, constant)
            out = union(out, frame.look.stored.get(("item", id(ref.value), constant), FRESH))
            if held is not ABSENT:
                out = union(out, (Ref(EXACT, held, ref.root, ("item", id(ref.value), constant)),))
                continue
        out = union(out, union(missing(frame.look, (ref,)), parts_of((ref,))))
    return out


def store_item(frame: Frame, step: Step) -> None:
    key, owner = frame.pop(), frame.pop()
    value = frame.pop() if step.meaning == "store subscr" else FRESH
    touch(frame.look, key)
    constant = plain(key)
    name = "__setitem__" if step.meaning == "store subscr" else "__delitem__"
    special(frame.look, owner, name, args=[key, value])
    for ref in owner:
        method = class_attribute(type(ref.value), name) if ref.kind == EXACT else ABSENT
        is_followed = is_of(method, types.FunctionType) and not inert.is_inert(inert.code_module(method))
        if ref.kind == EXACT and constant is not ABSENT and is_of(ref.value, dict):
            if not is_followed and name == "__delitem__":
                frame.look.changes[ref.root] = None
            elif not is_followed:
                is_first = is_empty(element(ref.value, constant))
                frame.look.store(("item", id(ref.value), constant), value)
                frame.stores.append((("item", id(ref.value), constant), ref.root, is_first))
            continue
        if is_followed:
            continue
        if ref.kind in {MADE, METHOD} and is_of(ref.value, Thing):
            ref.value.put(ITEMS, value)
            ref.value.put(KEYS, key)
            continue
        if not (ref.kind == EXACT and method is ABSENT and inert.kind_of_class(type(ref.value)) == "object"):
            frame.look.change((ref,))  # else it has no items, such as what stands for a default


def load_slice(frame: Frame, _: Step) -> None:
    owner = frame.pop_many(3)[0]  # below where it begins and ends
    out = special(frame.look, owner, "__getitem__")
    frame.stack.append(union(union(out, copied(owner)), views(owner)))


def store_slice(frame: Frame, _: Step) -> None:
    value, owner = frame.pop_many(4)[:2]  # below where it begins and ends
    special(frame.look, owner, "__setitem__")
    for ref in owner:
        if ref.kind == MADE:
            ref.value.put(ITEMS, items_of(value))
    frame.look.change(tuple(ref for ref in owner if inert.kind_of_class(type(ref.value)) != "object"))


HANDLERS: Final[dict[str, Handler]] = {
    "fast": load_fast,
    "fast fast": load_fast_pair,
    "closure": load_closure,
    "store fast": store_fast,
    "store fast, fast": store_then_load,
    "store fast fast": store_fast_pair,
    "global": load_global,
    "name": load_global,
    "store global": store_global,
    "delete global": store_global,
    "deref": load_deref,
    "store deref": store_deref,
    "delete deref": store_deref,
    "store name": store_name,
    "const": load_const,
    "small int": load_const,
    "null": push_null,
    "import": import_name,
    "import from": import_from,
    "attr": load_attr,
    "method": load_attr,
    "super attr": load_super_attr,
    "store attr": store_attr,
    "delete attr": store_attr,
    "subscr": load_item,
    "store subscr": store_item,
    "delete subscr": store_item,
    "slice": load_slice,
    "store slice": store_slice,
}
