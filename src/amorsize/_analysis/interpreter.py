"""The code of a function, followed once for each kind of arguments it is called with."""

from __future__ import annotations

import dis
import functools
import types
from typing import Any

from amorsize._analysis import bounds
from amorsize._analysis.bytecode import RUNS_LATER, effect, protected, steps
from amorsize._analysis.look import MORE, Frame, Look
from amorsize._analysis.opcodes import HANDLERS, received
from amorsize._analysis.settings import hand_on, set_by
from amorsize._analysis.values import FRESH, Ref, Value, all_of, items_of, key_of, made, n_parameters, parts_of, union
from amorsize._function import is_installed


def run(  # noqa: PLR0917 - what a call consists of
    look: Look,
    code: types.CodeType,
    globals_: dict[str, Any],
    cells: dict[str, Value],
    args: list[Value],
    keywords: dict[str, Value],
    func: types.FunctionType | None,
    defaults: Value = FRESH,
) -> Value:
    """Follow the instructions of one code object; returns what it may return."""
    named = tuple((name, key_of(value)) for name, value in (*keywords.items(), *cells.items()))
    signature = (code, id(globals_), tuple(map(key_of, args)), len(keywords), named, id(func))
    if signature in look.seen:
        if signature in look.set_by:
            hand_on(look, code, look.set_by[signature])
        return look.seen[signature]
    if look.running.count(code) >= bounds.MOST_RECURSION:
        return parts_of(all_of(args, keywords))
    look.seen[signature] = FRESH
    look.alive.append((func, args, keywords, cells))
    was_library = look.enter(is_installed(code.co_filename))
    if look.depth >= bounds.MOST_DEPTH or look.n_left <= 0:
        look.enter(was_library)
        look.unproved.setdefault(code.co_name, MORE)
        return parts_of(all_of(args, keywords))
    look.depth += 1
    outer, look.tested = look.tested, set()
    frame = Frame(look, code, globals_, cells if func is None else dict(cells))
    try:
        look.running.append(code)
        look.frames.append(frame)
        frame.bind(args, keywords, func, defaults)
        _follow(frame)
        _finish(frame)
    finally:
        look.running.pop()
        look.frames.pop()
        look.depth -= 1
        look.tested = outer
        look.enter(was_library)
    if frame.settings:
        look.set_by[signature] = set_by(frame)
        hand_on(look, code, look.set_by[signature])
    out = frame.returned
    if code.co_flags & RUNS_LATER:
        # What it yields, and what it delegates to.
        out = made(None, union(out, items_of(out))) if out else FRESH
    look.seen[signature] = out
    return out


def run_code(look: Look, ref: Ref, args: list[Value], keywords: dict[str, Value]) -> Value:
    code, globals_, cells, defaults = ref.value
    return run(look, code, globals_, cells, args, keywords, None, defaults)


def _follow(frame: Frame) -> None:
    """Follow the instructions until nothing more is found: three times at most, where there is a loop."""
    has_loop = any(step.meaning == "next" or "BACKWARD" in dis.opname[step.op] for step in frame.steps)
    for _ in range(3 if has_loop else 1):
        before = {name: key_of(value) for name, value in (*frame.locals.items(), *frame.cells.items())}
        frame.look.n_left -= len(frame.steps)
        _follow_once(frame)
        if before == {name: key_of(value) for name, value in (*frame.locals.items(), *frame.cells.items())}:
            break


def _follow_once(frame: Frame) -> None:
    """Follow each instruction once; where ways meet, the stack may hold what either has left."""
    stacks: dict[int, list[Value]] = {}
    handlers = _handlers_of(frame.code)
    frame.stack, frame.is_reached = [], True
    for index, step in enumerate(frame.steps):
        if step.offset in stacks:
            frame.stack = _joined(frame.stack, stacks[step.offset]) if frame.is_reached else list(stacks[step.offset])
            frame.is_reached = True
        for target, depth, n_more in handlers.get(step.offset, ()):
            kept = [*frame.stack[:depth], *[FRESH] * (depth - len(frame.stack))]
            stacks[target] = _joined([*kept, *[frame.look.raised] * n_more], stacks.get(target))
        before = len(frame.stack)
        taken = list(frame.stack) if step.target >= 0 else None
        frame.index = index
        HANDLERS[step.meaning](frame, step)
        if taken is not None:
            depth = before + effect(step.op, step.arg, jump=True)
            there = (taken + [FRESH] * max(0, depth - before))[: max(0, depth)]
            if there and dis.opname[step.op] == "SEND":  # what was waited for has ended, and has returned something
                there[-1] = received(taken)
            stacks[step.target] = _joined(there, stacks.get(step.target))


def _finish(frame: Frame) -> None:
    """Follow what was made and perhaps not called here; tell what is set only where it is found unset."""
    for ref in frame.made:
        frame.look.call((ref,), [FRESH] * n_parameters(ref), {})
    tested = frame.look.tested
    frame.look.altered.update(id(thing) for key, thing in frame.alterations if key not in tested)
    for key, root, is_first in frame.stores:
        if key not in tested or key in frame.used:
            frame.look.changes[root] = None
            continue
        frame.look.sets_once[root] = None
        if key[0] != "cell" and not frame.look.is_library:  # what libraries prepare for themselves is theirs
            frame.look.setters[key[1]] = root
        if is_first:
            frame.look.not_set_yet[root] = None


def _joined(one: list[Value], other: list[Value] | None) -> list[Value]:
    """Return what the stack may hold where two ways through the code meet."""
    if other is None:
        return list(one)
    if len(one) != len(other):
        return list(one if len(one) > len(other) else other)
    return [union(a, b) for a, b in zip(one, other, strict=True)]


@functools.lru_cache(maxsize=1024)
def _handlers_of(code: types.CodeType) -> dict[int, list[tuple[int, int, int]]]:
    """Return, by the offset where a protected range begins: its handler, the stack's depth there, and what is added."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    offsets = [step.offset for step in steps(code)]
    for entry in protected(code):
        # A range may begin at what is not an instruction of its own.
        start = next((offset for offset in offsets if offset >= entry.start), None)
        if start is not None:
            found.setdefault(start, []).append((entry.target, entry.depth, 1 + bool(entry.lasti)))
    return found
