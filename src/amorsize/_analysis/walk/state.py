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


class Walk:
    """
    One walk through everything that is reachable.

    Attributes:
        names: All names in the code that was reached.
        seen: What was met, by its identity.
        shared: What two processes must not share by fork.
        unknown: What cannot be told to be harmless.
        mutable: What can change.
        bindings: Names in modules whose values are read: holder, name, value.
        functions: The Python functions outside inert packages.
        settings: What is read from modules and classes, by module and name.
        held: Attributes and closure variables: holder, name, identity and type of the value.
        shapes: Containers and the namespaces of classes, and what tells each from what it is later.
        codes: Those functions, their code and their defaults, which a reload replaces in place.
        decorators: The function that a library's decorator is at, and the library, by what its variables are called.
        reads_mutable: Names of containers and arrays that the code names directly.
        is_complete: Whether all was looked at.
        todo: What is still to be looked at, with the way to it.
        kinds: Classes of libraries whose objects were met: the program may have put methods there.
        named: Objects, classes and modules of which only attributes that the code names are looked at.
        taken: Those attributes that have been.
        n_left: Objects that may still be looked at.
        any_name: Whether the code can reach attributes that it does not name.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.seen: dict[int, Any] = {}
        self.shared: list[Found] = []
        self.unknown: list[Found] = []
        self.mutable: list[Found] = []
        self.bindings: list[tuple[dict[str, Any], str, Any]] = []
        self.functions: dict[types.FunctionType, None] = {}
        self.settings: dict[tuple[str, str], Any] = {}
        self.held: list[tuple[Any, str, int, type]] = []
        self.shapes: list[tuple[Any, Any]] = []
        self.codes: list[tuple[types.FunctionType, types.CodeType, Any, Any]] = []
        self.decorators: dict[str, str] = {}
        self.reads_mutable: dict[str, None] = {}
        self.is_complete = True
        self.todo: list[tuple[str, Any]] = []
        self.kinds: set[type] = set()
        self.named: list[tuple[str, Any]] = []
        self.taken: set[tuple[int, str]] = set()
        self.n_left = bounds.MOST_OBJECTS
        self.any_name = False

    def visit(self, path: str, value: Any) -> None:
        """Look at a value, now or later."""
        kind = type(value)
        if kind in inert.SCALARS or id(value) in self.seen:
            return
        self.seen[id(value)] = value
        self.todo.append((path, value))

    def bind(self, module: types.ModuleType, name: str, value: Any) -> None:
        """Note that a name of a module is read."""
        self.bindings.append((vars(module), name, value))
        if not inert.is_inert(module.__name__):
            self.settings[module.__name__, name] = value

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
