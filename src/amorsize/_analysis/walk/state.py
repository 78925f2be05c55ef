"""What has been found in one walk through what a function can reach, and what is still to be looked at."""

from __future__ import annotations

import types
from typing import Any, NamedTuple

from amorsize._analysis import bounds, inert
from amorsize._analysis.values import cell_value


class Found(NamedTuple):
    """An object that was reached, and the way to it in the function's own words."""

    path: str
    value: Any
    why: str = ""


class Cell:
    """A closure variable, to be asked as a dictionary of one name is."""

    __slots__ = ("cell",)

    def __init__(self, cell: types.CellType) -> None:
        self.cell = cell

    def get(self, _name: str, _default: Any) -> Any:
        return cell_value(self.cell)


class Reached:
    """What a function can reach."""

    def __init__(self) -> None:
        # What two processes must not share by fork: streams, locks, iterators, generators, handles.
        self.shared: list[Found] = []
        # What cannot be told to be harmless.
        self.unknown: list[Found] = []
        # What can change, to be watched.
        self.mutable: list[Found] = []
        # Names in modules whose values the code reads: holder, name, value.
        self.bindings: list[tuple[dict[str, Any], str, Any]] = []
        # Attributes and closure variables that it names: holder, name, identity and type of the value.
        self.held: list[tuple[Any, str, int, type]] = []
        # Containers and the namespaces of classes, and what tells each from what it is later.
        self.shapes: list[tuple[Any, Any]] = []
        # The Python functions outside inert packages, the function itself included.
        self.functions: dict[types.FunctionType, None] = {}
        # Those functions with the code and the defaults that they had: a reload replaces these in place.
        self.codes: list[tuple[types.FunctionType, types.CodeType, Any, Any]] = []
        # What is read from modules and classes, by module and name: a fresh import may have other values.
        self.settings: dict[tuple[str, str], Any] = {}
        # The function that a library's decorator is at, and the library, by what its variables are called.
        self.decorators: dict[str, str] = {}
        # Whether all was looked at.
        self.is_complete = True


class Walk:
    """One walk through everything that is reachable."""

    def __init__(self, reached: Reached) -> None:
        self.reached = reached
        # All names in the code that was reached, and whether it can reach attributes that it does not name.
        self.names: set[str] = set()
        self.any_name = False
        # Names of containers and arrays that the code names directly.
        self.reads_mutable: dict[str, None] = {}
        # What was met, by its identity; what of it is still to be looked at, with the way to it; how many more may be.
        self.seen: dict[int, Any] = {}
        self.todo: list[tuple[str, Any]] = []
        self.n_left = bounds.MOST_OBJECTS
        # Objects, classes and modules of which only attributes that the code names are looked at, and which have been.
        self.named: list[tuple[str, Any]] = []
        self.taken: set[tuple[int, str]] = set()
        # Classes of libraries whose objects were met: the program may have put methods there.
        self.kinds: set[type] = set()

    def visit(self, path: str, value: Any) -> None:
        """Look at a value, now or later."""
        kind = type(value)
        if kind in inert.SCALARS or id(value) in self.seen:
            return
        self.seen[id(value)] = value
        self.todo.append((path, value))

    def bind(self, module: types.ModuleType, name: str, value: Any) -> None:
        """Note that a name of a module is read."""
        self.reached.bindings.append((vars(module), name, value))
        if not inert.is_inert(module.__name__):
            self.reached.settings[module.__name__, name] = value

    def is_new(self, holder: Any, name: str) -> bool:
        """Tell, once, that an attribute has not been looked at yet."""
        key = (id(holder), name)
        if key in self.taken:
            return False
        self.taken.add(key)
        return True


def shape(value: Any) -> Any:
    """
    Return what tells a container from what it is later: its length, and what is in a short list, dictionary or set.

    Of the namespace of a class, those names that the code has are compared one by one elsewhere.
    """
    if len(value) > bounds.SHORT or type(value) is types.MappingProxyType:
        return len(value)
    values = list(value.values() if type(value) is dict else value)  # at once: other threads may change it
    return len(value), [(id(one), type(one)) for one in values if type(one) not in inert.SCALARS]
