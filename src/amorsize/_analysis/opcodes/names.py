"""Names: of locals, of closures, of globals, and of what is imported."""

from __future__ import annotations

import builtins
import sys
import types
from typing import TYPE_CHECKING, Final

from amorsize._analysis import inert
from amorsize._analysis.attributes import attr
from amorsize._analysis.look import CALLEE_FIRST
from amorsize._analysis.values import ABSENT, EXACT, FRESH, NO_VALUE, NULL, Ref, Value, is_empty, union
from amorsize._attribute import is_of

if TYPE_CHECKING:
    from amorsize._analysis.bytecode import Step
    from amorsize._analysis.look import Frame, Handler

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
    name = str(step.value)
    module = sys.modules.get(name)
    if module is None and not inert.is_inert(name):
        frame.look.unproved.setdefault(name, "it is imported when the function runs")
    root = sys.modules.get(name.partition(".")[0])
    out = () if module is None else (Ref(EXACT, module, name),)
    frame.stack.append(union(out, () if root is None else (Ref(EXACT, root, name.partition(".")[0]),)))


def import_from(frame: Frame, step: Step) -> None:
    owner = frame.stack[-1] if frame.stack else FRESH
    frame.stack.append(attr(frame.look, owner, step.value))


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
}
