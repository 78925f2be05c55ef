"""
What has been reached in a walk, and what it finds in modules and classes.

Of these only what the code names is looked at; of a library's, only what a program may have put there.
"""

from __future__ import annotations

import builtins
import functools
import sys
import types
from typing import Any, Final, NamedTuple

from amorsize._analysis import bounds, inert
from amorsize._analysis.values import cell_value, own_attributes
from amorsize._attribute import attributes, bases_of, is_of, module_of, name_of, namespace_of, qualname_of

# Special attributes of classes that no code of the function runs.
_NEVER_RUN: Final = frozenset(
    ["__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__slots__",
     "__static_attributes__", "__firstlineno__", "__annotate__", "__annotate_func__", "__annotations_cache__",
     "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__",
     "__match_args__", "__parameters__", "__orig_bases__", "__abstractmethods__", "_abc_impl", "__sizeof__",
     "__class_getitem__", "__subclasshook__", "__init_subclass__", "__dataclass_fields__", "__dataclass_params__"]
)  # fmt: skip

# Builtins that are another one under an older name.
_ALIASES: Final = frozenset({"EnvironmentError", "IOError", "WindowsError"})

_STREAMS: Final = frozenset({"stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__"})

# Special methods that operators, builtins and statements call: what a test replaces most, of those.
_OPERATORS: Final = frozenset(
    ["__init__", "__new__", "__call__", "__str__", "__repr__", "__eq__", "__lt__", "__hash__", "__len__", "__bool__",
     "__iter__", "__next__", "__getitem__", "__contains__", "__enter__", "__exit__", "__add__", "__sub__", "__mul__",
     "__truediv__", "__getattr__", "__format__"]
)  # fmt: skip

_DESCRIPTORS: Final = (
    property, classmethod, staticmethod, types.MemberDescriptorType, types.GetSetDescriptorType,
)  # fmt: skip


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
    if inert.SCALARS.issuperset(map(type, values)):  # the most frequent, in a third of the time
        return len(value), []
    return len(value), [(id(one), type(one)) for one in values if type(one) not in inert.SCALARS]


def look_at_module(walk: Walk, path: str, module: types.ModuleType) -> None:
    if module.__name__ == "numpy" and "random" in walk.names:
        walk.visit(f"{path}.random", vars(module).get("random"))
    walk.named.append((path, module))


def look_at_class(walk: Walk, path: str, kind: type) -> None:
    if not inert.is_python_class(kind):
        if inert.kind_of_class(kind) == "unknown" and not inert.is_inert(module_of(kind)):
            walk.reached.unknown.append(Found(path, kind, f"a class of {module_of(kind)}"))
        return
    for base in bases_of(kind):
        if base is object or not inert.is_python_class(base):
            continue
        if not inert.is_inert(module_of(base)):
            walk.reached.shapes.append((namespace_of(base), shape(namespace_of(base))))
            walk.named.append((path if base is kind else name_of(base), base))
        elif base is kind:
            _look_for_patches(walk, path, kind)
            return


def look_at_attributes(walk: Walk, path: str, holder: Any) -> None:  # noqa: C901 - modules, classes and objects
    """Look at the attributes of an object, class or module whose names the code has."""
    if is_of(holder, types.ModuleType):
        held = vars(holder)
        is_followed = holder.__name__ in inert.GENERATORS or not inert.is_inert(holder.__name__)
        for name in (walk.names | {"__getattr__"} if is_followed else walk.names) & held.keys():
            value = held[name]
            if not is_followed:
                look_into_library(walk, f"{path}.{name}", holder, name, value)
            elif walk.is_new(holder, name):
                walk.bind(holder, name, value)
                if is_of(value, types.ModuleType) and not value.__name__.startswith(holder.__name__):
                    walk.visit(name, value)
                    continue
                walk.visit(f"{path}.{name}", value)
        return
    if is_of(holder, type):
        for name, value in list(namespace_of(holder).items()):
            is_named = name in walk.names or (name.startswith("__") and name not in _NEVER_RUN)
            if (is_named or walk.any_name) and walk.is_new(holder, name):
                walk.reached.held.append((namespace_of(holder), name, id(value), type(value)))
                is_set = name in walk.names or (
                    is_of(value, types.FunctionType) and value.__qualname__ != f"{qualname_of(holder)}.{name}"
                )  # a special method that the program has put there
                if is_set and not is_of(value, _DESCRIPTORS) and not _is_enum(holder):
                    walk.reached.settings[module_of(holder), f"{qualname_of(holder)}.{name}"] = value
                walk.visit(path if callable(value) else f"{path}.{name}", value)
        return
    for name, value in own_attributes(holder):
        if (walk.any_name or name in walk.names) and walk.is_new(holder, name):
            if name in (own := attributes(holder)):
                walk.reached.held.append((own, name, id(value), type(value)))
            walk.visit(f"{path}.{name}", value)


def look_at_function_attributes(walk: Walk, path: str, func: types.FunctionType, holder: Any = None) -> None:
    """Look at the attributes of a function, or its cache, whose names the code has: a counter, a table, a setting."""
    held = vars(func) if holder is None else attributes(holder)
    for name in walk.names & held.keys():
        if walk.is_new(func if holder is None else holder, name):
            value = held[name]
            walk.reached.held.append((held, name, id(value), type(value)))
            walk.reached.settings[inert.code_module(func), f"{func.__qualname__}.{name}"] = value
            walk.visit(f"{path}.{name}", value)


def look_into_library(walk: Walk, path: str, module: types.ModuleType, name: str, value: Any) -> None:
    """Look at a value of a library's module only where it may be the program's."""
    if module is sys and name in _STREAMS:
        return  # what workers print comes home by itself
    if is_of(value, types.ModuleType) or not walk.is_new(module, name):
        return
    walk.bind(module, name, value)  # if it is no setting of the program's yet, it may become one
    is_set = _is_no_builtin(name, value) if module is builtins else type(value) in inert.SCALARS
    if is_set or is_put_there(value):
        walk.reached.settings[module.__name__, name] = value
        walk.visit(path, value)
    elif is_of(value, type):
        _look_for_patches(walk, path, value)
    elif is_of(value, types.FunctionType) and module.__name__ in sys.stdlib_module_names and walk.is_new(module, ""):
        _look_for_patched_classes(walk, module)


def _look_for_patches(walk: Walk, path: str, kind: type) -> None:
    """Look for what the program has put into a class of a library, under names of the code's or of operators."""
    for base in bases_of(kind):
        held = namespace_of(base)
        if not inert.is_python_class(base) or module_of(base) not in sys.modules:
            continue
        for name in (walk.names | _OPERATORS) & held.keys():
            value = held[name]
            if not walk.is_new(base, name):
                continue
            walk.reached.held.append((held, name, id(value), type(value)))
            if is_put_there(value):
                walk.reached.settings[module_of(base), f"{qualname_of(base)}.{name}"] = value
                walk.visit(f"{path}.{name}", value)


def look_for_methods(walk: Walk, kind: type) -> None:
    """Look for what the program has added to a class of a library, whose objects were met or may be items."""
    for base, name in _added(kind, tuple(len(namespace_of(base)) for base in bases_of(kind))):
        if name in walk.names or name in _OPERATORS:
            _look_at_patch(walk, base, name, namespace_of(base).get(name))


@functools.lru_cache(maxsize=32)
def _added(kind: type, _: tuple[int, ...]) -> tuple[tuple[type, str], ...]:
    """Return where the program's methods are, and how they are called; looked up again when there are more."""
    bases = [base for base in bases_of(kind) if inert.is_python_class(base) and module_of(base) in sys.modules]
    found = [(base, name) for base in bases for name, value in namespace_of(base).items() if is_put_there(value)]
    return tuple(found)


def _look_for_patched_classes(walk: Walk, module: types.ModuleType) -> None:
    """Look for methods that the program has put into classes of the library, which functions of the library call."""
    for kind in list(vars(module).values()):
        if type(kind) is not type or module_of(kind) not in sys.modules or not inert.is_python_class(kind):
            continue
        for name, value in list(namespace_of(kind).items()):
            if type(value) is types.FunctionType and value.__globals__.get("__name__") != module_of(kind):
                _look_at_patch(walk, kind, name, value)


def _look_at_patch(walk: Walk, kind: type, name: str, value: Any) -> None:
    if is_put_there(value) and walk.is_new(kind, name):
        walk.reached.held.append((namespace_of(kind), name, id(value), type(value)))
        walk.reached.settings[module_of(kind), f"{qualname_of(kind)}.{name}"] = value
        walk.visit(f"{name_of(kind)}.{name}", value)


def is_put_there(value: Any) -> bool:
    """Tell whether something in a library's module or class was put there by the program or one of its tests."""
    value = value.__func__ if is_of(value, staticmethod | classmethod) else value
    value = value.__self__ if is_of(value, types.MethodType) else value
    if is_of(value, functools.partial):
        return True
    if is_of(value, property):
        value = value.fget
    if is_of(value, types.FunctionType):
        return not inert.is_inert_package(inert.code_module(value))
    if not is_of(value, type) and any(map(_is_program_s, attributes(value).values())):
        return True  # a descriptor of a library that holds a class of the program's, as pandas makes them for accessors
    kind = value if is_of(value, type) else type(value)
    return _is_mock(kind) or (inert.is_python_class(kind) and not inert.is_inert_package(module_of(kind)))


def _is_program_s(value: Any) -> bool:
    if is_of(value, types.FunctionType):
        return not inert.is_inert_package(inert.code_module(value))
    return is_of(value, type) and inert.is_python_class(value) and not inert.is_inert_package(module_of(value))


def _is_no_builtin(name: str, value: Any) -> bool:
    """Tell whether the program has given a builtin another value, or has added one, as ``gettext.install`` does."""
    if is_of(value, types.BuiltinFunctionType | type):
        return name not in {value.__name__, *_ALIASES}
    is_constant = name.startswith("__") or is_of(value, types.EllipsisType | types.NotImplementedType)
    return not is_constant and module_of(type(value)) != "_sitebuiltins"


def _is_mock(kind: type) -> bool:
    return module_of(kind) in {"unittest.mock", "mock.mock", "mock"}


def _is_enum(kind: type) -> bool:
    """Tell whether a class is an enumeration: its members cannot be set, so that they are as they were imported."""
    return any(inert.type_path(base) == "enum.Enum" for base in bases_of(kind))
