"""
Instructions that call something: operators, comparisons and tests, which call special methods; calls, and ``with``.

A function for each meaning that :mod:`amorsize._analysis.bytecode` has; the table of all of them is in opcodes.
"""

from __future__ import annotations

import builtins
import dis
import sys
from typing import TYPE_CHECKING, Final

from amorsize._analysis import inert
from amorsize._analysis.access import item, super_of
from amorsize._analysis.bytecode import effect
from amorsize._analysis.protocols import enter
from amorsize._analysis.settings import note_restored
from amorsize._analysis.special import drain, special, touch
from amorsize._analysis.values import (
    EXACT,
    FRESH,
    ITEMS,
    MADE,
    NO_VALUE,
    PART,
    Ref,
    Value,
    all_of,
    copied,
    exactly,
    held_in,
    is_constant,
    is_null,
    is_set,
    items_of,
    may_change_in_place,
    n_parameters,
    parts_of,
    union,
)
from amorsize._attribute import is_of

if TYPE_CHECKING:
    from amorsize._analysis.bytecode import Step
    from amorsize._analysis.look import Frame, Handler

# -- operators, comparisons and tests ----------------------------------------------------------------------------------

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


# -- calls, and with statements ----------------------------------------------------------------------------------------


def kw_names(frame: Frame, step: Step) -> None:
    frame.names = tuple(step.value)


def call(frame: Frame, step: Step) -> None:
    names, frame.names = frame.names, ()
    if step.meaning == "call kw":
        named = frame.pop()
        names = next((ref.value for ref in named if ref.kind == EXACT and is_of(ref.value, tuple)), ())
    args = frame.pop_many(step.arg)
    second, first = frame.pop(), frame.pop()
    if is_null(first):
        callee = second
    elif is_null(second):
        callee = first
    else:
        callee, args = first, [second, *args]
    entered, frame.entered = frame.entered, None
    if callee is entered:
        frame.stack.append(callee)
        return
    n_named = min(len(names), len(args))
    keywords = dict(zip(names[len(names) - n_named :], args[len(args) - n_named :], strict=True)) if n_named else {}
    plain = args[: len(args) - n_named]
    frame.use(*plain)
    frame.stack.append(_called(frame, callee, plain, keywords))


def _called(frame: Frame, callee: Value, args: list[Value], keywords: dict[str, Value]) -> Value:
    """Call; with what belongs to the frame for those builtins that ask for it."""
    out: Value = FRESH
    frame.callee = callee
    for ref in callee:
        if ref.kind == EXACT and ref.value is super:
            kind = args[0] if args else frame.cells.get("__class__", FRESH)
            me = args[1] if len(args) > 1 else frame.locals.get(next(iter(frame.code.co_varnames), ""), FRESH)
            out = union(out, super_of(kind, union(me, frame.cells.get(frame.code.co_varnames[0], FRESH))))
        elif ref.kind == EXACT and ref.value is builtins.globals and not args:
            # Names that only exist as text are not sent to workers that import the module anew.
            frame.look.changes["globals()"] = None
            out = union(out, exactly(frame.globals, "globals()"))
        elif ref.kind == EXACT and (ref.value is builtins.locals or ref.value is builtins.vars) and not args:
            out = union(out, held_in(all_of([], frame.locals), dict))
        else:
            out = union(out, frame.look.call((ref,), args, keywords))
    return out if callee else frame.look.call(callee, args, keywords)


def call_ex(frame: Frame, step: Step) -> None:
    n = 1 - effect(step.op, step.arg, jump=False)
    taken = [value for value in frame.pop_many(max(1, n)) if not is_null(value)]
    if not taken:
        frame.stack.append(FRESH)
        return
    callee, given = taken[0], all_of(taken[1:], {})
    drain(frame.look, given, "tuple")
    parts = union(items_of(given), special(frame.look, given, "__iter__", "__getitem__", "keys"))
    n_args = max((n_parameters(ref) for ref in callee), default=1)
    keywords = {"**": parts} if len(taken) > 2 else {}
    frame.stack.append(_called(frame, callee, [parts] * max(n_args, 1), keywords))


def enter_with(frame: Frame, _: Step) -> None:
    manager = frame.pop()
    frame.stack += [FRESH, _entered(frame, manager)]


def load_special(frame: Frame, step: Step) -> None:
    """Take a method for a ``with`` statement; the next step but swaps calls what enters."""
    manager = frame.pop()
    given = FRESH
    if step.arg % 2 == 0:  # of __enter__, __exit__, __aenter__, __aexit__
        given = frame.entered = _entered(frame, manager)
    frame.stack += [given, NO_VALUE]


def _entered(frame: Frame, manager: Value) -> Value:
    """Enter and leave what a ``with`` statement manages; returns what its ``as`` may stand for."""
    note_restored(frame)
    for ref in manager:
        if ref.kind in {EXACT, PART} and inert.kind_of_class(type(ref.value)) == "iterator":
            frame.look.change((ref,))
    return union(enter(frame.look, manager), parts_of(manager))


HANDLERS: Final[dict[str, Handler]] = {
    "binary": binary,
    "compare": compare,
    "unary": unary,
    "contains": contains,
    "is": is_,
    "test": test,
    "format": format_value,
    "kw names": kw_names,
    "call": call,
    "call kw": call,
    "call ex": call_ex,
    "with": enter_with,
    "special": load_special,
}
