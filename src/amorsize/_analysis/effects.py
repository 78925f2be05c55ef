"""
What a function's code changes outside itself: followed from instruction to instruction, and into what it calls.

The code is followed with what it would see: a global stands for the object it names now, an attribute for what the
object holds now, a method for its code with the object bound. Items, and whatever is made on the way, stand for
nothing: changing them changes nothing outside. Branches are all followed, locals are what they may be.

    stats.record(x)   ──► stats is an object out there ──► the code of record, self = stats ──► self.seen.append
                                                                           changes: "stats"

Where that ends without an answer (a method of a C object, a name looked up at run time, an opcode nobody has described)
the function is *unproved*: it is then watched while the sample runs (see observation). Looks at code and values only:
never calls what it looks at, never imports.
"""

from __future__ import annotations

import functools
import sys
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import bounds
from amorsize._analysis.calls import call_each
from amorsize._analysis.items import ANYWHERE, Part, n_kinds
from amorsize._analysis.look import AWAITED, LATE, MORE, Look
from amorsize._analysis.values import (
    BOUND,
    EXACT,
    FRESH,
    ITEMS,
    MADE,
    Ref,
    Thing,
    Value,
    exactly,
    made,
    parameter,
    union,
)
from amorsize._attribute import is_of, name_of
from amorsize._outside import pass_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


@dataclass(frozen=True, eq=False, match_args=False)
class Effects:
    """
    What following a function's code has shown.

    Attributes:
        changes: Names of outside state that it changes.
        sets_once: Names of what it sets where it finds it unset: a model loaded on first use.
        not_set_yet: Those of them that nothing has set yet: which item will, and to what, is not known.
        unproved: What could not be followed, in words, by the name it goes by.
        by_seed: What makes results depend on the hash seed of the process, or "".
        alters: Classes of items, and of what they hold, whose objects have attributes set.
        modules: Modules whose attributes it reads, however it has them.
        names: Names of these attributes.
        setters: What the program's code sets, as in *sets_once*, by the identity of what it is set in.
    """

    changes: tuple[str, ...]
    sets_once: tuple[str, ...]
    not_set_yet: tuple[str, ...]
    unproved: dict[str, str]
    by_seed: str
    alters: tuple[type, ...] = ()
    modules: tuple[types.ModuleType, ...] = ()
    names: frozenset[str] = frozenset()
    setters: dict[int, str] = field(default_factory=dict)

    @property
    def is_cut_short(self) -> bool:
        """Whether a part of its code has not been followed."""
        return MORE in self.unproved.values()

    @property
    def reaches_any_module(self) -> bool:
        """Whether it uses a module whose name is not in its code."""
        return LATE in self.unproved.values()

    @property
    def is_overtaken(self) -> bool:
        """Whether a module has been imported since that was not there to be followed."""
        return any(why == AWAITED and name in sys.modules for name, why in self.unproved.items())

    @property
    def is_proved(self) -> bool:
        """Whether it is known to change nothing."""
        return not (self.changes or self.sets_once or self.unproved)


def effects_of(func: Callable[..., Any], parts: Sequence[Part] = ()) -> Effects:
    """Follow *func* and what it calls; *parts* are what its items are or hold."""
    try:
        return _follow(func, parts)
    except Exception as error:  # noqa: BLE001 - odd objects raise anything when they are looked at; then nothing is known
        pass_on(error)
        return Effects((), (), (), {name_of(type(error)): MORE}, "")


def _follow(func: Callable[..., Any], parts: Sequence[Part]) -> Effects:
    look = Look(call_each)
    if n_kinds(parts) > bounds.MOST_PARTS:
        look.unproved["its items"] = "they are of more kinds than are looked at"
        parts = parts[: bounds.MOST_PARTS // 2]
    bound, inner = [], func
    while is_of(inner, functools.partial):
        bound += [*inner.args, *inner.keywords.values()]
        inner = inner.func
    name = str(getattr(inner, "__name__", "") or name_of(type(inner)))
    if is_of(inner, types.FunctionType):
        name = inner.__name__
    elif is_of(inner, types.BuiltinFunctionType | types.MethodWrapperType):
        name = name_of(type(inner.__self__)) if inner.__self__ is not None else name
    elif not is_of(inner, type):
        name = "self"
    args = [exactly(value, f"bound argument {i}" if i else "self") for i, value in enumerate(bound)]
    if is_of(func, functools.partial):
        args = [exactly(v, parameter(inner, i)) for i, v in enumerate(func.args)]
        keywords = {k: exactly(v, k) for k, v in func.keywords.items()}
    else:
        keywords = {}
    things, held = _in_items(parts)
    for part in parts:
        if part.me is types.GeneratorType:  # whatever uses the item runs it
            held = union(held, _contained(look.call(exactly(part.value, "an item"), [], {}), 1))
    if held:
        args += [held] * _n_items_taken(inner, len(args))
    look.call((Ref(EXACT, inner, name),), args, keywords, is_first=True)
    changes = {name: None for name in (*look.changes, *look.locked) if name}
    once = {name: None for name in look.sets_once if name and name not in changes}
    return Effects(
        tuple(sorted(changes)),
        tuple(sorted(once)),
        tuple(sorted(look.not_set_yet)),
        look.unproved,
        look.by_seed,
        tuple(thing.kind for thing in things if id(thing) in look.altered),
        (*look.modules.values(),),
        frozenset(look.names),
        look.setters,
    )


def _in_items(parts: Sequence[Part]) -> tuple[Iterable[Thing], Value]:
    """
    Return what stands for the objects of each class, and what an item, or something in it, may be.

    What is new in each item may change without harm; what its class and its methods lead to may not.
    """
    kinds = [kind for part in parts for kind in (part.value, part.me) if is_of(kind, type) and kind not in _MARKS]
    things = {id(kind): Thing(kind) for kind in kinds}
    held: Value = FRESH
    for part in parts:
        if part.me is types.GeneratorType:
            continue
        if part.me is type:
            refs: Value = exactly(part.value, name_of(part.value))
        elif is_of(part.value, type):
            refs = (Ref(MADE, things[id(part.value)]),)
        elif part.me is not None:
            refs = (Ref(BOUND, (part.value, (Ref(MADE, things[id(part.me)]),)), name_of(part.me)),)
        else:
            refs = exactly(part.value, "an item")
        if part.name == ANYWHERE:
            for thing in things.values():
                thing.put(ITEMS, union(refs, _contained(refs, 2)))
        if part.owner is not None and id(part.owner) in things:
            things[id(part.owner)].put(part.name, _contained(refs, part.n_deep))
        else:  # of what the items of a tuple are, each may be an argument
            held = union(held, union(refs, _contained(refs, 2 if part.name == ANYWHERE else part.n_deep)))
    return things.values(), held


# Of a part: that it is a class itself, or a function that runs when the item is used.
_MARKS: Final = (type, types.GeneratorType)


def _contained(refs: Value, n_deep: int) -> Value:
    """Return what holds something in a container, or in containers in one another."""
    if not n_deep:
        return refs
    found = made(None, refs)
    if n_deep > 1:
        found[0].value.put(ITEMS, found)
    return found


def _n_items_taken(func: Any, n_bound: int) -> int:
    """Return how many arguments an item is, or is unpacked into: those without a default, and one at least."""
    function = getattr(func, "__func__", func)
    code = getattr(function, "__code__", None)
    if code is None:
        return 1
    n_bound += is_of(func, types.MethodType)
    return max(1, int(code.co_argcount) - n_bound - len(function.__defaults__ or ()))
