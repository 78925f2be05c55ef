"""
What is known in one look at a function, and of one code object that is followed in it.

Everything that follows code takes a Look and notes there what it finds. Code that is called calls again, so the one
way back up is here: :meth:`Look.call`, which keeps the budget and hands on to what it was made with.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from amorsize._analysis import bounds
from amorsize._analysis.bytecode import Step, steps
from amorsize._analysis.values import (
    EXACT,
    FRESH,
    MADE,
    METHOD,
    PART,
    Ref,
    Thing,
    Value,
    all_of,
    exactly,
    held_in,
    is_constant,
    parts_of,
    union,
    within,
)
from amorsize._attribute import is_of

# Why something is unproved: too many steps, calls within calls, or values that a place may stand for.
MORE: Final = "there is more code than is followed"

# The same, of modules that are found by their names: they may hold anything.
LATE: Final = "which module it is, is known at run time only"

# The same, of a module that the code names, and that nobody has imported yet.
AWAITED: Final = "it is imported when the function runs"


class Setting(NamedTuple):
    """Something that is set: the name it goes by, the module it belongs to, and to what; None where that differs."""

    what: str
    module: str
    to: Any


class Look:
    """
    One look at one function.

    Attributes:
        changes: Names of outside state that the code changes.
        sets_once: Names of what it sets where it finds it unset.
        not_set_yet: Those of them that nothing has set yet.
        stored: What the code puts into places outside, by place.
        unproved: What could not be followed, in words, by the name it goes by.
        by_seed: What makes results depend on the hash seed of the process, or "".
        locked: Names of locks that are taken and not given back.
        raised: Values of exceptions that were raised, wherever they arrive.
        sent: Values that generators were sent, wherever they arrive.
        altered: What was made on the way, or came with an item, and has its attributes set, by its identity.
        tested: Places that the running function looks at only to see whether something is there.
        n_left: Instructions and values that may still be followed, in the code that is being followed: the program's
            own, or libraries'.
        is_library: Whether that is libraries' code.
        depth: Functions that are being followed into one another.
        running: Their code.
        frames: Where each of them has come to.
        seen: What code returned, by what it was called with.
        set_by: What code sets for the whole process, by what it was called with.
        objects: What was made of classes, by what it was made with.
        modules: Modules whose attributes the code reads, by their identity.
        names: Names of attributes that it reads, in its code or as texts.
        setters: What the program's code sets, as in sets_once, by the identity of what it is set in.
        touched: Values whose special methods have been followed.
        alive: What is known goes by the identity of values made on the way: they must live as long, or another one
            gets it.
    """

    def __init__(self, follow: Callable[..., Value]) -> None:
        self.changes: dict[str, None] = {}
        self.sets_once: dict[str, None] = {}
        self.not_set_yet: dict[str, None] = {}
        self.stored: dict[Any, Value] = {}
        self.unproved: dict[str, str] = {}
        self.by_seed = ""
        self.locked: dict[str, None] = {}
        self.raised: Value = FRESH
        self.sent: Value = FRESH
        self.altered: set[int] = set()
        self.tested: set[Any] = set()
        self.n_left, self._n_left_elsewhere = bounds.MOST_STEPS, bounds.MOST_LIBRARY_STEPS
        self.is_library = False
        self.depth = 0
        self.running: list[types.CodeType] = []
        self.frames: list[Frame] = []
        self.seen: dict[Any, Value] = {}
        self.set_by: dict[Any, tuple[Setting, ...]] = {}
        self.objects: dict[Any, Value] = {}
        self.modules: dict[int, types.ModuleType] = {}
        self.names: set[str] = set()
        self.setters: dict[int, str] = {}
        self.touched: set[Any] = set()
        self.alive: list[Any] = []
        self._follow = follow
        self._nested = 0
        self._within: dict[int, list[Any]] = {}

    def change(self, value: Value) -> None:
        """Note that what *value* stands for is changed."""
        for ref in value:
            if ref.kind in {EXACT, PART, METHOD} and not is_of(ref.value, Thing) and not is_constant(ref):
                self.changes[ref.root] = None

    def doubt(self, value: Value, why: str, depth: int = 2) -> None:
        """Note that nobody knows what happens to what *value* stands for."""
        for ref in value:
            if ref.kind in {EXACT, PART, METHOD} and not is_of(ref.value, Thing) and not is_constant(ref):
                self.unproved.setdefault(ref.root, why)
            elif ref.kind == MADE and depth:
                self.doubt(ref.value.all(), why, depth - 1)

    def store(self, key: Any, value: Value) -> None:
        """Note what the code puts into a place outside: it may be read from there later."""
        if value:
            self.alive.append(value)
            self.stored[key] = union(self.stored.get(key, FRESH), tuple(ref._replace(name=None) for ref in value))

    def find_late(self, root: str) -> None:
        """Note that a module is used whose name the code makes; a library mostly looks for that of what it is given."""
        if self.is_library:
            self.unproved.setdefault(root, "it looks for a module")
        else:
            self.unproved[root] = LATE

    def read(self, namespace: Any, name: Any) -> None:
        """Note that a variable of a module is read by its name in the module's dictionary, if it is one."""
        module = sys.modules.get(str(dict.get(namespace, "__name__"))) if is_of(namespace, dict) else None
        if is_of(module, types.ModuleType) and vars(module) is namespace and type(name) is str:
            self.modules[id(module)] = module
            self.names.add(name)

    def depend_on_seed(self, what: str) -> None:
        """Note the first thing that makes results depend on the hash seed of the process."""
        self.by_seed = self.by_seed or what

    def call(self, callee: Value, args: list[Value], keywords: dict[str, Value], *, is_first: bool = False) -> Value:
        """Call whatever *callee* may stand for; returns what may come back."""
        sizes = [len(callee), *map(len, args), *map(len, keywords.values())]
        self.n_left -= 1 + sum(sizes)
        if self._nested >= bounds.MOST_NESTED or self.n_left <= 0 or max(sizes) >= bounds.MOST_VALUES:
            self.unproved.setdefault("its code", MORE)
        if self._nested >= bounds.MOST_NESTED or self.n_left <= 0:
            return parts_of(all_of(args, keywords))
        self._nested += 1
        try:
            return self._follow(self, callee, args, keywords, is_first=is_first)
        finally:
            self._nested -= 1

    def enter(self, is_library: bool) -> bool:
        """
        Go by the budget of libraries' code, or by that of the program's own; returns which it was before.

        Each has its own: what a program does after a call of a large library would else not be looked at.
        """
        before, self.is_library = self.is_library, is_library
        if before != is_library:
            self.n_left, self._n_left_elsewhere = self._n_left_elsewhere, self.n_left
        return before

    def within(self, value: Any) -> list[Any]:
        """Return what a value holds, looked through once."""
        found = self._within.get(id(value))
        if found is None:
            found = self._within[id(value)] = within(value)
        return found


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
