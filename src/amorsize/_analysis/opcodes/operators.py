"""Operators, comparisons and tests: what they call, and what they may change in place."""

from __future__ import annotations

import dis
import sys
from typing import TYPE_CHECKING, Final

from amorsize._analysis import inert
from amorsize._analysis.bytecode import effect
from amorsize._analysis.opcodes.items import item
from amorsize._analysis.special import drain, special, touch
from amorsize._analysis.values import (
    EXACT,
    FRESH,
    ITEMS,
    MADE,
    PART,
    Ref,
    Value,
    copied,
    held_in,
    is_constant,
    is_set,
    items_of,
    may_change_in_place,
    union,
)
from amorsize._attribute import is_of

if TYPE_CHECKING:
    from amorsize._analysis.bytecode import Step
    from amorsize._analysis.look import Frame, Handler

_INPLACE_FROM: Final = 13  # arguments of BINARY_OP from here to 25 are the operators that end in "="
_INPLACE_TO: Final = 25
_OR: Final = 7
_MOD: Final = frozenset({6, 6 + _INPLACE_FROM})
_SUBSCR: Final = 26  # from 3.14 on
_COMPARISONS: Final = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
_OPERATORS: Final = ("add", "mul", "lshift", "or", "matmul", "sub", "truediv", "mod", "rshift", "and", "xor", "pow",
                     "floordiv")  # fmt: skip
_ARITHMETIC: Final = (
    *(f"__{prefix}{name}__" for name in _OPERATORS for prefix in ("", "r")),
    "__index__",  # a sequence asks for it how often it is to be repeated
)
_IN_PLACE: Final = tuple(f"__i{name}__" for name in _OPERATORS)
_OPNAME: Final = dis.opname


def binary(frame: Frame, step: Step) -> None:
    right, left = frame.pop(), frame.pop()
    frame.use(left, right)
    if step.arg == _SUBSCR and sys.version_info >= (3, 14):
        frame.stack.append(item(frame, left, right))
        return
    out = _operands_in(left, right, step)
    names: tuple[str, ...] = _ARITHMETIC
    if _INPLACE_FROM <= step.arg <= _INPLACE_TO:
        names = (*_ARITHMETIC, *_IN_PLACE)
        for ref in left:
            if ref.kind in {EXACT, PART} and may_change_in_place(ref):
                frame.look.change((ref,))
            elif ref.kind == MADE:
                ref.value.put(ITEMS, items_of(right))
        out = union(out, tuple(ref for ref in left if ref.kind != EXACT or not is_constant(ref)))
    out = union(out, special(frame.look, left, *names, args=[right]))
    out = union(out, special(frame.look, right, *_ARITHMETIC, args=[left]))
    if step.arg in _MOD:  # the left side may be a text with fields for the right one
        touch(frame.look, right)
    frame.stack.append(out)


def _operands_in(left: Value, right: Value, step: Step) -> Value:
    """Return what the result of an operator may hold of its operands."""
    out: Value = FRESH
    for ref in (*left, *right):
        if is_set(ref):
            out = union(out, copied((ref,), set))
        elif ref.kind in {MADE, PART} or (
            ref.kind == EXACT and inert.kind_of_class(type(ref.value)) in {"container", "unknown"}
        ):
            out = union(out, copied((ref,)))
        elif step.arg == _OR and ref.kind == EXACT and is_of(ref.value, type):  # a union, as isinstance takes it
            out = union(out, held_in((ref,)))
    return out


def _is_container(ref: Ref) -> bool:
    kind = ref.value.kind if ref.kind == MADE else type(ref.value)
    return kind in {list, tuple, dict} and not is_constant(ref)


def compare(frame: Frame, _: Step) -> None:
    right, left = frame.pop(), frame.pop()
    frame.use(left, right)
    for value in (left, right):  # a container compares what it holds
        if any(_is_container(ref) for ref in value):
            touch(frame.look, value)
    out = special(frame.look, left, *_COMPARISONS, args=[right])
    frame.stack.append(union(out, special(frame.look, right, *_COMPARISONS, args=[left])))


def unary(frame: Frame, _: Step) -> None:
    frame.stack.append(special(frame.look, frame.pop(), "__neg__", "__pos__", "__invert__", "__abs__"))


def contains(frame: Frame, _: Step) -> None:
    owner, key = frame.pop(), frame.pop()
    for ref in owner:
        for constant in key:
            if ref.kind == EXACT and constant.kind == EXACT and type(constant.value) in inert.SCALARS:
                frame.look.tested.add(("item", id(ref.value), constant.value))
    drain(frame.look, owner, "in")
    special(frame.look, owner, "__contains__", "__iter__", "__getitem__", "__next__", args=[key])
    touch(frame.look, key)
    frame.stack.append(FRESH)


def is_(frame: Frame, _: Step) -> None:
    frame.pop_many(2)
    frame.stack.append(FRESH)


def test(frame: Frame, step: Step) -> None:
    name = _OPNAME[step.op]
    value = frame.pop()
    if "NONE" not in name:
        special(frame.look, value, "__bool__", "__len__")
    if name in {"TO_BOOL", "UNARY_NOT"}:
        frame.stack.append(FRESH)


def format_value(frame: Frame, step: Step) -> None:
    n = 1 - effect(step.op, step.arg, jump=False)
    taken = frame.pop_many(max(1, n))
    for value in taken[:1]:
        drain(frame.look, value, "str")
        touch(frame.look, value)
    frame.stack.append(FRESH)


HANDLERS: Final[dict[str, Handler]] = {
    "binary": binary,
    "compare": compare,
    "unary": unary,
    "contains": contains,
    "is": is_,
    "test": test,
    "format": format_value,
}
