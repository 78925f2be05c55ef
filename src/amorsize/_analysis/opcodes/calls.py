"""Calls as the stack has them, and what a ``with`` statement enters and leaves."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Final

from amorsize._analysis import inert
from amorsize._analysis.bytecode import effect
from amorsize._analysis.opcodes.items import super_of
from amorsize._analysis.protocols import enter
from amorsize._analysis.settings import note_restored
from amorsize._analysis.special import drain, special
from amorsize._analysis.values import (
    EXACT,
    FRESH,
    NO_VALUE,
    PART,
    Value,
    all_of,
    exactly,
    held_in,
    is_null,
    items_of,
    n_parameters,
    parts_of,
    union,
)
from amorsize._attribute import is_of

if TYPE_CHECKING:
    from amorsize._analysis.bytecode import Step
    from amorsize._analysis.look import Frame, Handler


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
    "kw names": kw_names,
    "call": call,
    "call kw": call,
    "call ex": call_ex,
    "with": enter_with,
    "special": load_special,
}
