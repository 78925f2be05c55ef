"""
What instructions do to the values in a frame: a function for each meaning that :mod:`amorsize._analysis.bytecode` has.

    access      what reads and sets: names, attributes, items
    operations  what calls something: operators, calls, ``with``
    here        what makes and takes apart; where the code goes on; what only moves on the stack
"""

from __future__ import annotations

import builtins
import dis
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import inert
from amorsize._analysis.access import HANDLERS as ACCESS
from amorsize._analysis.attributes import attr
from amorsize._analysis.bytecode import effect
from amorsize._analysis.look import ITERATOR_SIZE
from amorsize._analysis.operations import HANDLERS as OPERATIONS
from amorsize._analysis.protocols import ask_kind
from amorsize._analysis.special import drain, special, touch
from amorsize._analysis.values import (
    ABSENT,
    CODE,
    EXACT,
    FRESH,
    ITEMS,
    KEYS,
    MADE,
    NO_VALUE,
    NULL,
    Ref,
    Thing,
    Value,
    all_of,
    class_attribute,
    exactly,
    held_in,
    is_constant,
    is_set,
    items_of,
    parts_of,
    union,
)
from amorsize._attribute import is_of

if TYPE_CHECKING:
    from amorsize._analysis.bytecode import Step
    from amorsize._analysis.look import Frame, Handler

_OPNAME: Final = dis.opname

# -- what is made and taken apart --------------------------------------------------------------------------------------

_BUILT: Final = {"BUILD_TUPLE": tuple, "BUILD_MAP": dict, "BUILD_CONST_KEY_MAP": dict, "BUILD_SLICE": slice}


def make_function(frame: Frame, step: Step) -> None:
    code = frame.pop()
    defaults: Value = FRESH
    cells: dict[str, Value] = frame.cells
    if sys.version_info < (3, 13):
        for bit in (0x08, 0x04, 0x02, 0x01):
            if step.arg & bit:
                held = frame.pop()
                defaults = union(defaults, items_of(held)) if bit in {0x01, 0x02} else defaults
    made = next((ref.value for ref in code if ref.kind == EXACT and is_of(ref.value, types.CodeType)), None)
    if made is None:
        frame.stack.append(FRESH)
        return
    ref = Ref(CODE, (made, frame.globals, cells, defaults))
    frame.made.append(ref)
    frame.stack.append((ref,))


def set_function_attribute(frame: Frame, step: Step) -> None:
    made, held = frame.pop(), frame.pop()
    if step.arg in {0x01, 0x02}:
        made = tuple(
            ref._replace(value=(*ref.value[:3], union(ref.value[3], items_of(held)))) if ref.kind == CODE else ref
            for ref in made
        )
    frame.stack.append(made)


def load_build_class(frame: Frame, _: Step) -> None:
    frame.stack.append(exactly(builtins.__build_class__, "class"))


def build(frame: Frame, step: Step) -> None:
    n = 1 - effect(step.op, step.arg, jump=False)
    taken, keys = frame.pop_many(n), FRESH
    if _OPNAME[step.op] == "BUILD_MAP":
        for key in taken[::2]:
            touch(frame.look, key)
        taken, keys = taken[1::2], all_of(taken[::2], {})
    frame.stack.append(_new(frame, _BUILT.get(_OPNAME[step.op], list), step, all_of(taken, {}), keys))


def build_set(frame: Frame, step: Step) -> None:
    taken = all_of(frame.pop_many(step.arg), {})
    touch(frame.look, taken)
    frame.stack.append(_new(frame, set, step, taken))


def _new(frame: Frame, kind: Any, step: Step, items: Value, keys: Value = FRESH) -> Value:
    """Return what is made at one place of the code: the same thing each time this place is passed."""
    thing = frame.things.get(step.offset)
    if thing is None:
        thing = frame.things[step.offset] = Thing(kind)
    for name, held in ((ITEMS, items), (KEYS, keys)):
        thing.put(name, tuple(ref for ref in held if not (ref.kind == EXACT and is_constant(ref))))
    return (Ref(MADE, thing),)


def add_to(frame: Frame, step: Step) -> None:
    name = _OPNAME[step.op]
    taken = frame.pop_many(2 if name == "MAP_ADD" else 1)
    if name != "LIST_APPEND":
        touch(frame.look, taken[0])  # its hash is asked for
    if len(frame.stack) >= step.arg > 0:
        for ref in frame.stack[-step.arg]:
            if ref.kind == MADE:
                ref.value.put(ITEMS, taken[-1])
                ref.value.put(KEYS if name == "MAP_ADD" else ITEMS, taken[0])


def extend(frame: Frame, step: Step) -> None:
    taken = frame.pop()
    drain(frame.look, taken, "set" if _OPNAME[step.op] == "SET_UPDATE" else "list")
    held = union(items_of(taken), special(frame.look, taken, "__iter__", "__next__", "keys", "__getitem__"))
    if len(frame.stack) >= step.arg > 0:
        for ref in frame.stack[-step.arg]:
            if ref.kind == MADE:
                ref.value.put(ITEMS, items_of(held) if held is not taken else held)
                ref.value.put(ITEMS, held)


def get_iter(frame: Frame, step: Step) -> None:
    taken = frame.pop()
    drain(frame.look, taken, "iter")
    if _OPNAME[step.op] == "GET_AITER":
        found = special(frame.look, taken, "__aiter__")
    else:
        found = special(frame.look, taken, "__iter__", "__getitem__")
        found = union(found, special(frame.look, taken, "__next__"))
    frame.stack.append(union(tuple(ref for ref in taken if not is_set(ref)), union(found, items_of(
        tuple(ref for ref in taken if is_set(ref))))))  # fmt: skip
    # An index, or NULL, lies above an iterator where ITERATOR_SIZE is 2, but above none that is asynchronous.
    frame.stack += [NO_VALUE] * effect(step.op, step.arg, jump=False)


def for_iter(frame: Frame, _: Step) -> None:
    source = frame.stack[-ITERATOR_SIZE] if len(frame.stack) >= ITERATOR_SIZE else FRESH
    frame.stack.append(items_of(source))


def unpack(frame: Frame, step: Step) -> None:
    taken = frame.pop()
    drain(frame.look, taken, "tuple")
    part = union(items_of(taken), items_of(special(frame.look, taken, "__iter__", "__next__", "__getitem__")))
    n = effect(step.op, step.arg, jump=False) + 1
    if _OPNAME[step.op] == "UNPACK_EX":
        part = union(part, held_in(part, list))
    frame.stack += [part] * max(0, n)


# -- where the code goes on, and what only moves on the stack ----------------------------------------------------------


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
    **ACCESS,
    **OPERATIONS,
    "function": make_function,
    "function attribute": set_function_attribute,
    "build class": load_build_class,
    "build": build,
    "build set": build_set,
    "add to": add_to,
    "extend": extend,
    "iter": get_iter,
    "next": for_iter,
    "unpack": unpack,
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
