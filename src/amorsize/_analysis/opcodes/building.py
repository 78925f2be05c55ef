"""What code makes and takes apart: functions, containers, iterators."""

from __future__ import annotations

import builtins
import dis
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis.bytecode import effect
from amorsize._analysis.look import ITERATOR_SIZE
from amorsize._analysis.special import drain, special, touch
from amorsize._analysis.values import (
    CODE,
    EXACT,
    FRESH,
    ITEMS,
    KEYS,
    MADE,
    NO_VALUE,
    Ref,
    Thing,
    Value,
    all_of,
    exactly,
    held_in,
    is_constant,
    is_set,
    items_of,
    union,
)
from amorsize._attribute import is_of

if TYPE_CHECKING:
    from amorsize._analysis.bytecode import Step
    from amorsize._analysis.look import Frame, Handler

_BUILT: Final = {"BUILD_TUPLE": tuple, "BUILD_MAP": dict, "BUILD_CONST_KEY_MAP": dict, "BUILD_SLICE": slice}
_OPNAME: Final = dis.opname


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


HANDLERS: Final[dict[str, Handler]] = {
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
}
