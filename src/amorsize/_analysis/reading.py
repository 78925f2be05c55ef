"""
Whether an iterator may be read on before the items it has given are done.

    def rows(): ... buffer[:] = row; yield buffer      ──► the items that were read before change
    itertools.groupby(data)                            ──► an item is an iterator over what the input reads from
    def rows(): STATE.section = line; yield line       ──► what the function reads changes

A loop does an item before it asks for the next one, workers are given many at once. One step of the iterator is looked
at, between an item that is done and the next one, which is read then anyway.
"""

from __future__ import annotations

import gc
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import bounds, inert
from amorsize._analysis.observation import SHARED_BY_ITEMS, Observation, within
from amorsize._attribute import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amorsize._analysis.dependencies import Dependencies

_ONE_BY_ONE: Final = "so that each item must be done before the next one is read"

# What leads from an iterator to those that it reads from, beside iterators: how they are called, and what holds them.
_LEADS_ON: Final = frozenset({tuple, list, types.FunctionType, types.MethodType, types.CellType})


class Reading:
    """What an item that is done holds, and what the function reads, before the next item is read."""

    def __init__(self, found: Dependencies, item: Any) -> None:
        self._kind = name_of(type(item))
        self._before = Observation(found, [*within(item).values()], is_of_input=True)

    def problem(self, iterator: Iterator[Any], following: Any) -> str:
        """Say why *iterator* must not be read ahead, given the item it gave next; "" if nothing speaks against it."""
        if changed := self.changed():
            return f"{changed}, {_ONE_BY_ONE}"
        views = [value for value in within(following).values() if inert.kind_of_class(type(value)) == "iterator"]
        if views and not _reads_from(views).keys().isdisjoint(_reads_from([iterator])):
            kind = name_of(type(views[0]))
            return f"its items are iterators (a {kind}) over what their input reads from, {_ONE_BY_ONE}"
        return ""

    def changed(self) -> str:
        """Say what reading has changed since; "" if nothing."""
        changed = self._before.changed()
        if SHARED_BY_ITEMS in changed:
            return f"reading its input changes an item that was read before (a {self._kind})"
        return f"reading its input changes {', '.join(changed)}, which the function reads" if changed else ""


def _reads_from(iterators: list[Any]) -> dict[int, Any]:
    """Return iterators and those that they read from, by identity."""
    found: dict[int, Any] = {}
    layer = iterators
    for _ in range(bounds.MOST_NESTED_ITERATORS):
        inner = []
        for value in layer:
            is_iterator = inert.kind_of_class(type(value)) == "iterator"
            if id(value) not in found and (is_iterator or type(value) in _LEADS_ON):
                found[id(value)] = value
                inner += gc.get_referents(value)[: bounds.MOST_IN_ITEM]
        layer = inner[: bounds.MOST_LAYER]
    return {key: value for key, value in found.items() if type(value) not in _LEADS_ON}
