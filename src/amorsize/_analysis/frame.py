"""The frame of one code object that is followed: what its locals, its closure and its stack may stand for."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis.bytecode import Step, steps
from amorsize._analysis.values import EXACT, FRESH, Ref, Thing, Value, all_of, exactly, held_in, parts_of, union

if TYPE_CHECKING:
    from amorsize._analysis.look import Look, Setting

# From 3.13 on the callee lies below what it is bound to; before, NULL or the method lies below the callee.
CALLEE_FIRST: Final = sys.version_info >= (3, 13)

# From 3.15 on an index, or NULL, lies above an iterator.
ITERATOR_SIZE: Final = 2 if sys.version_info >= (3, 15) else 1


class Frame:
    """
    The state of one code object that is being followed.

    Attributes:
        look: What is known in this look at the function.
        code: The code.
        globals: The names of its module.
        steps: Its instructions.
        index: Which of them is being followed.
        cells: What the variables of its closure, and those that inner functions share, may be.
        free: Names of those that come from outside.
        locals: What its locals may be.
        stack: What lies on its stack.
        names: Names of the keyword arguments of the call that comes.
        entered: What the ``with`` statement that is being entered gives.
        returned: What it may return.
        is_reached: Whether the next instruction can follow on the latest.
        stores: What is set: by where it is, the name it goes by, whether nothing has set it yet.
        alterations: What of what is not outside has an attribute set: by where it is, itself.
        used: Where values were read from that have been computed with.
        things: What was made, by the place in the code.
        made: Functions that were made.
        callee: What was called last.
        settings: What is set for the whole process, and where.
        restored: Which settings are set back, by the module they belong to, and from where to where.
    """

    def __init__(self, look: Look, code: types.CodeType, globals_: dict[str, Any], cells: dict[str, Value]) -> None:
        self.look = look
        self.code = code
        self.steps = steps(code)
        self.index = 0
        self.globals = globals_
        self.cells = cells
        self.free = frozenset(code.co_freevars)
        self.locals: dict[str, Value] = {}
        self.stack: list[Value] = []
        self.names: tuple[str, ...] = ()
        self.entered: Value | None = None
        self.returned: Value = FRESH
        self.is_reached = True
        self.stores: list[tuple[Any, str, bool]] = []
        self.alterations: list[tuple[Any, Thing]] = []
        self.used: set[Any] = set()
        self.things: dict[int, Thing] = {}
        self.made: list[Ref] = []
        self.callee: Value = FRESH
        self.settings: dict[tuple[Setting, int], None] = {}
        self.restored: list[tuple[str, int, int]] = []

    def bind(  # noqa: C901, PLR0912 - one branch per kind of parameter
        self, args: list[Value], keywords: dict[str, Value], func: types.FunctionType | None, defaults: Value
    ) -> None:
        """Give parameters what they are called with, or their defaults."""
        code, n = self.code, self.code.co_argcount
        names = code.co_varnames
        total = n + code.co_kwonlyargcount
        for name, value in zip(names[:n], args, strict=False):
            self.locals[name] = value
        if code.co_flags & 0x04:  # CO_VARARGS
            self.locals[names[total]] = held_in(all_of(args[n:], {}), tuple)
        for name, value in keywords.items():
            if name in names[:total]:
                self.locals[name] = value
            elif code.co_flags & 0x08:  # CO_VARKEYWORDS
                rest = names[total + bool(code.co_flags & 0x04)]
                self.locals[rest] = union(self.locals.get(rest, FRESH), held_in(value, dict))
        if func is not None:
            held = func.__defaults__ or ()
            given = dict(zip(names[n - len(held) : n], held, strict=False)) | (func.__kwdefaults__ or {})
            for name, default in given.items():
                if name not in self.locals:
                    self.locals[name] = exactly(default, name)
        elif defaults:
            for name in names[:total]:
                self.locals.setdefault(name, parts_of(defaults))
        if self.code.co_flags & 0x08 and "**" in keywords:  # names that are not known
            for name in names[:total]:
                self.locals[name] = union(self.locals.get(name, FRESH), keywords["**"])
        for name in code.co_cellvars:
            if name in self.locals:
                self.cells[name] = self.locals[name]

    def pop(self) -> Value:
        """Take the topmost value; nothing known, where the stack is empty."""
        return self.stack.pop() if self.stack else FRESH

    def pop_many(self, n: int) -> list[Value]:
        """Take the topmost *n*, the deepest first."""
        taken = [self.pop() for _ in range(n)]
        taken.reverse()
        return taken

    def use(self, *values: Value) -> None:
        """Note that a value that was read somewhere has been computed with."""
        for value in values:
            for ref in value:
                if ref.name is not None and ref.kind == EXACT:
                    self.used.add(ref.name)

    def note_test(self, key: Any) -> None:
        """Note that what was just loaded is only looked at to see whether it is there."""
        code_steps, index = self.steps, self.index
        following = code_steps[index + 1].meaning if index + 1 < len(code_steps) else ""
        if following == "const" and code_steps[index + 1].value is None and index + 2 < len(code_steps):
            following = code_steps[index + 2].meaning
        if following in {"test", "is"}:
            self.look.tested.add(key)


Handler = Callable[[Frame, Step], None]
