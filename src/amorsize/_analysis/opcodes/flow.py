"""Where the code goes on, and what only moves on the stack."""

from __future__ import annotations

import dis
from typing import TYPE_CHECKING, Final

from amorsize._analysis import inert
from amorsize._analysis.attributes import attr
from amorsize._analysis.bytecode import effect
from amorsize._analysis.look import ITERATOR_SIZE
from amorsize._analysis.protocols import ask_kind
from amorsize._analysis.special import special
from amorsize._analysis.values import (
    ABSENT,
    EXACT,
    FRESH,
    NULL,
    Value,
    all_of,
    class_attribute,
    held_in,
    items_of,
    parts_of,
    union,
)
from amorsize._attribute import is_of

if TYPE_CHECKING:
    from amorsize._analysis.bytecode import Step
    from amorsize._analysis.look import Frame, Handler

_OPNAME: Final = dis.opname


def return_value(frame: Frame, _: Step) -> None:
    frame.returned = union(frame.returned, tuple(ref for ref in frame.pop() if ref.kind != NULL))
    frame.stack, frame.is_reached = [], False


def yield_value(frame: Frame, _: Step) -> None:
    value = frame.pop()
    frame.returned = union(frame.returned, value)
    frame.stack.append(frame.look.sent)


def end(frame: Frame, step: Step) -> None:
    if _OPNAME[step.op] == "RAISE_VARARGS" and step.arg:
        raised = all_of(frame.pop_many(step.arg), {})
        classes = tuple(ref for ref in raised if ref.kind == EXACT and is_of(ref.value, type))
        if any(inert.is_python_class(ref.value) for ref in classes):  # "raise Kind" calls it
            raised = union(raised, frame.look.call(classes, [], {}))
        frame.look.raised = union(frame.look.raised, union(raised, parts_of(raised)))
    frame.stack, frame.is_reached = [], False


def jump(frame: Frame, _: Step) -> None:
    frame.stack, frame.is_reached = [], False


def push_exception(frame: Frame, _: Step) -> None:
    error = union(frame.pop(), frame.look.raised)
    frame.stack += [FRESH, error]


def copy(frame: Frame, step: Step) -> None:
    frame.stack.append(frame.stack[-step.arg] if 0 < step.arg <= len(frame.stack) else FRESH)


def swap(frame: Frame, step: Step) -> None:
    if 0 < step.arg <= len(frame.stack):
        frame.stack[-1], frame.stack[-step.arg] = frame.stack[-step.arg], frame.stack[-1]


def pass_on(frame: Frame, step: Step) -> None:
    """Apply an instruction that may return its operand, or a part of it."""
    name = _OPNAME[step.op]
    if name == "MATCH_CLASS":
        names, kind, subject = frame.pop(), frame.pop(), frame.pop()
        ask_kind(frame.look, subject, kind)
        frame.stack.append(held_in(_matched(frame, subject, names, kind), tuple))
        return
    if name == "MATCH_KEYS":
        subject = frame.stack[-2] if len(frame.stack) > 1 else FRESH
        found = union(items_of(subject), special(frame.look, subject, "get", "__getitem__"))
        frame.stack.append(held_in(found, tuple))
        return
    if name.startswith("MATCH_"):
        frame.stack.append(FRESH)
        return
    change = effect(step.op, step.arg, jump=False)
    top = frame.stack[-1] if frame.stack else FRESH
    if name == "SEND":
        top = received(frame.stack)
    if name == "GET_AWAITABLE":
        special(frame.look, top, "__await__")
    if name == "GET_ANEXT":  # what it returns is awaited
        awaited = special(frame.look, top, "__anext__")
        special(frame.look, awaited, "__await__")
        frame.stack.append(union(awaited, parts_of(top)))
        return
    if change < 0:
        del frame.stack[max(0, len(frame.stack) + change) :]
    if name == "SEND" and frame.stack:
        frame.stack[-1] = top
    elif frame.stack:
        frame.stack[-1] = union(top, parts_of(top))
    frame.stack += [parts_of(top)] * max(0, change)


def _matched(frame: Frame, subject: Value, names: Value, kind: Value) -> Value:
    """Return what the attributes are that a class pattern takes."""
    wanted = [str(n) for ref in names if is_of(ref.value, tuple) for n in ref.value]
    for ref in kind:
        held = class_attribute(ref.value, "__match_args__") if is_of(ref.value, type) else ABSENT
        wanted += held if is_of(held, tuple) else ()
    out = subject
    for one in wanted:
        out = union(out, attr(frame.look, subject, one))
    return out


def received(stack: list[Value]) -> Value:
    """Return what may come out of what SEND waits for, which lies below the value that is sent."""
    at = 1 + ITERATOR_SIZE
    return parts_of(stack[-at]) if len(stack) >= at else FRESH


def nothing(frame: Frame, _: Step) -> None:
    """Leave the stack as it is."""


def plain(frame: Frame, step: Step) -> None:
    """Apply an instruction that makes something new of its operands, or moves nothing."""
    if step.meaning == "unknown":
        frame.look.unproved.setdefault(_OPNAME[step.op], "an instruction of the interpreter that is not known")
    name = _OPNAME[step.op]
    if name == "GET_LEN" and frame.stack:
        special(frame.look, frame.stack[-1], "__len__")
    change = effect(step.op, step.arg, jump=False)
    if change < 0:
        del frame.stack[max(0, len(frame.stack) + change) :]
    if frame.stack and name.startswith(("BUILD_STRING", "CHECK")):
        frame.stack[-1] = FRESH
    frame.stack += [FRESH] * max(0, change)


HANDLERS: Final[dict[str, Handler]] = {
    "return": return_value,
    "yield": yield_value,
    "end": end,
    "jump": jump,
    "push exception": push_exception,
    "copy": copy,
    "swap": swap,
    "pass on": pass_on,
    "nothing": nothing,
    "plain": plain,
    "unknown": plain,
}
