"""
What is known in one look at a function: what has been found, and what the code that is followed shares on the way.

Everything that follows code takes a Look and notes there what it finds. Code that is called calls again, so the one
way back up is here: :meth:`Look.call`, which keeps the budget and hands on to what it was made with.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from amorsize._analysis import bounds
from amorsize._analysis.values import (
    EXACT,
    FRESH,
    MADE,
    METHOD,
    PART,
    Thing,
    Value,
    all_of,
    is_constant,
    parts_of,
    union,
    within,
)
from amorsize._attribute import is_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._analysis.bytecode import Step

# Why something is unproved: too many steps, calls within calls, or values that a place may stand for.
MORE: Final = "there is more code than is followed"

# The same, of modules that are found by their names: they may hold anything.
LATE: Final = "which module it is, is known at run time only"


class Setting(NamedTuple):
    """Something that is set: the name it goes by, the module it belongs to, and to what; None where that differs."""

    what: str
    module: str
    to: Any


class Running(Protocol):
    """Where code that is followed has come to: what a frame is for those who note what it sets."""

    code: types.CodeType
    steps: tuple[Step, ...]
    index: int
    callee: Value
    settings: dict[tuple[Setting, int], None]
    restored: list[tuple[str, int, int]]


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
        self.frames: list[Running] = []
        self.seen: dict[Any, Value] = {}
        self.set_by: dict[Any, tuple[Setting, ...]] = {}
        self.objects: dict[Any, Value] = {}
        self.modules: dict[int, types.ModuleType] = {}
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
