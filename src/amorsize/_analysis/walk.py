"""
The walk through everything that a function can reach, nearest first.

What is met is put into a queue (:meth:`Walk.visit`) and looked at once, by its kind: functions with what their code
names, modules and classes (see reached), and objects with what they hold and whether they are harmless.
"""

from __future__ import annotations

import builtins
import functools
import itertools
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import bounds, inert
from amorsize._analysis.bytecode import chains_of, names_of, unknown_ops
from amorsize._analysis.reached import (
    Cell,
    Found,
    Walk,
    look_at_attributes,
    look_at_class,
    look_at_function_attributes,
    look_at_module,
    look_for_methods,
    look_into_library,
    shape,
)
from amorsize._analysis.values import ABSENT, cell_name, cell_value, own_attributes
from amorsize._attribute import attributes, is_of, module_of, name_of, wrapped_function, wrapper_function
from amorsize._modules import absolute, loaded
from amorsize._outside import pass_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Attribute names through which code reaches all that an object holds.
_ANY_ATTRIBUTE: Final = frozenset(
    {"getattr", "vars", "__dict__", "copy", "deepcopy", "asdict", "astuple", "dumps", "dump"}
)
_BUILTINS: Final = vars(builtins)
_SIZED: Final = frozenset({list, dict, set})
_PLAIN_CONTAINERS: Final = _SIZED | {tuple, frozenset}


def enter(walk: Walk, func: Any) -> None:
    """Begin at a function of any kind; what it names directly goes by its own name."""
    while is_of(func, functools.partial):
        for i, value in enumerate((*func.args, *func.keywords.values())):
            walk.visit(f"argument {i} of the partial", value)
        func = func.func
    if is_of(func, types.MethodType):
        walk.visit("self", func.__self__)
        func = func.__func__
    if is_of(func, types.FunctionType):
        _look_at_function(walk, "", func)
    else:
        # A decorator's object has the name of its function; "self" is what an object's own methods call it.
        name = getattr(func, "__name__", "self")
        walk.visit(name, func)
    _run(walk)


def _run(walk: Walk) -> None:
    """Look at all that is left, until nothing new is named."""
    if (pandas := loaded("pandas")) is not None:  # items may be such objects, and are not looked at here
        walk.kinds |= {pandas.DataFrame, pandas.Series}
    done = -1
    while done != len(walk.taken) + len(walk.seen):
        done = len(walk.taken) + len(walk.seen)
        while walk.todo:
            walk.n_left -= 1
            if walk.n_left < 0:
                walk.reached.is_complete = False
                return
            path, value = walk.todo.pop()
            _look(walk, path, value)
        walk.any_name = bool(walk.names & _ANY_ATTRIBUTE)
        for kind in walk.kinds:
            look_for_methods(walk, kind)
        walk.n_left -= len(walk.named)
        for path, holder in walk.named:
            if is_of(holder, types.FunctionType):
                look_at_function_attributes(walk, path, holder)
            elif is_of(inner := _cached_function(holder), types.FunctionType):
                look_at_function_attributes(walk, path, inner, holder)
            else:
                look_at_attributes(walk, path, holder)


def _cached_function(holder: Any) -> Any:
    """Return the function of functools.cache's object, and of its like; None for other objects."""
    is_plain = not is_of(holder, type) and inert.kind_of_class(type(holder)) == "callable"
    return attributes(holder).get("__wrapped__") if is_plain else None


def _look(walk: Walk, path: str, value: Any) -> None:  # noqa: C901, PLR0912 - one branch per kind of object
    if type(value) in _PLAIN_CONTAINERS:  # first, since a program's data are mostly of these
        _look_into_container(walk, path, value)
    elif is_of(value, types.FunctionType):
        _look_at_function(walk, path, value)
    elif is_of(value, types.ModuleType):
        look_at_module(walk, path, value)
    elif is_of(value, type):
        look_at_class(walk, path, value)
    elif is_of(value, types.MethodType):
        walk.visit(path, value.__self__)
        if is_of(value.__func__, types.FunctionType):
            walk.visit(path, value.__func__)
    elif is_of(value, types.BuiltinFunctionType | types.MethodWrapperType):
        _look_at_builtin(walk, path, value)
    elif is_of(value, functools.partial):
        for inner in (value.func, *value.args, *value.keywords.values()):
            walk.visit(path, inner)
    elif is_of(value, functools.cached_property):
        walk.visit(path, value.func)
    elif is_of(value, property):
        for inner in (value.fget, value.fset):
            walk.visit(path, inner)
    elif is_of(value, classmethod | staticmethod):
        walk.visit(path, value.__func__)
    elif is_of(value, types.CellType):
        with_contents = cell_value(value)
        if with_contents is not ABSENT:
            walk.visit(path, with_contents)
    elif (wrapped := wrapped_function(value)) is not None:
        walk.visit(path, wrapped)
        walk.visit(path, wrapper_function(value))
    elif module_of(type(value)) == "cachetools._cached":  # like functools.cache: each process has its own
        walk.visit(path, value.__wrapped__)
    else:
        _look_at_object(walk, path, value)


# -- functions: what their code names ----------------------------------------------------------------------------------


def _look_at_function(walk: Walk, path: str, func: types.FunctionType) -> None:
    if func in walk.reached.functions:
        return
    code = func.__code__
    module = inert.code_module(func)
    wrapped = func.__dict__.get("__wrapped__")
    if wrapped is not None:
        walk.visit(path, wrapped)
    _look_at_closure(walk, path, func)
    for value in (*(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).values()):
        walk.visit(f"a default of {func.__name__}", value)
    if inert.is_inert(module):
        return
    walk.reached.functions[func] = None
    walk.reached.codes.append((func, code, func.__defaults__, func.__kwdefaults__))
    if func.__dict__:
        walk.named.append((path or func.__name__, func))
    _look_at_defaults(walk, func)
    if unknown := unknown_ops(code):
        walk.reached.unknown.append(Found(path or func.__name__, func, f"its code has {', '.join(sorted(unknown))}"))
    walk.names |= names_of(code)
    for chain in chains_of(code):
        _look_at_global(walk, func, chain)


def _look_at_closure(walk: Walk, path: str, func: types.FunctionType) -> None:
    module, wrapped = inert.code_module(func), func.__dict__.get("__wrapped__")
    for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=False):
        held = cell_value(cell)
        if held is ABSENT:
            continue
        walk.reached.held.append((Cell(cell), name, id(held), type(held)))
        own = cell_name(func, name, held) if name != "__class__" else path
        if wrapped is not None and inert.is_inert(module):
            walk.reached.decorators[own] = f"{func.__name__} ({module.partition('.')[0]})"
        walk.visit(own, held)


def _look_at_defaults(walk: Walk, func: types.FunctionType) -> None:
    for name in ("__defaults__", "__kwdefaults__"):
        held = getattr(func, name) or ()
        values = held.values() if is_of(held, dict) else held
        if any(map(_may_change, values)) or (held and inert.SCALARS.issuperset(map(type, values))):
            walk.reached.settings[inert.code_module(func), f"{func.__qualname__}.{name}"] = held


def _look_at_global(walk: Walk, func: types.FunctionType, chain: tuple[str, ...]) -> None:
    name = absolute(chain[0], func.__globals__)
    held = func.__globals__.get(name, ABSENT)
    if held is ABSENT:
        if name in _BUILTINS:
            look_into_library(walk, name, builtins, name, _BUILTINS[name])
        if name in inert.OPEN_BUILTINS and name in _BUILTINS:
            walk.reached.unknown.append(Found(name, _BUILTINS[name], "it can reach anything"))
        elif name in sys.modules:  # perhaps an import inside the function
            module = loaded(name)
            if module is not None:
                walk.visit(name, module)
        return
    walk.reached.bindings.append((func.__globals__, name, held))
    module = inert.code_module(func)
    if module != "__main__" and not is_of(held, types.ModuleType):
        walk.reached.settings[module, name] = held
    if _is_mutable(held):
        walk.reads_mutable[name] = None
    if is_of(held, types.ModuleType):
        _follow_chain(walk, name, held, chain[1:])
    else:
        walk.visit(name, held)


def _follow_chain(walk: Walk, path: str, module: types.ModuleType, chain: tuple[str, ...]) -> None:
    """Follow attributes from module to module; a module that is used in any other way is looked at by name."""
    for i, name in enumerate(chain):
        names = vars(module)
        if name not in names:
            break
        value = names[name]
        is_followed = module.__name__ in inert.GENERATORS or not inert.is_inert(module.__name__)
        if is_followed and walk.is_new(module, name):
            walk.bind(module, name, value)
            if not is_of(value, types.ModuleType):
                walk.visit(f"{path}.{name}", value)
        elif not is_followed:
            look_into_library(walk, f"{path}.{name}", module, name, value)
        if not is_of(value, types.ModuleType):
            return
        path, module = f"{path}.{name}", value
        if i + 1 == len(chain):
            break
    else:
        walk.visit(path, module)
        return
    if is_of(module, types.ModuleType):
        walk.visit(path, module)


def _look_at_builtin(walk: Walk, path: str, func: Any) -> None:
    owner = func.__self__
    if owner is not None and not is_of(owner, types.ModuleType):
        walk.visit(path, owner)
        return
    module = owner.__name__ if owner is not None else func.__module__
    if module == "builtins" and func.__name__ in inert.OPEN_BUILTINS:
        walk.reached.unknown.append(Found(path, func, "it can reach anything"))
    elif module is not None and not inert.is_inert(module):
        walk.reached.unknown.append(Found(path, func, f"a function of {module}, whose code cannot be read"))


def _may_change(value: Any) -> bool:
    return inert.kind_of_class(type(value)) in {"container", "data", "array", "object"} and type(value) is not tuple


def _is_mutable(value: Any) -> bool:
    if is_of(value, list | dict | set | bytearray):
        return True
    return name_of(type(value)) in {"deque", "ndarray", "DataFrame", "Series", "array"} and not callable(value)


# -- objects: what they hold -------------------------------------------------------------------------------------------


def _look_at_object(walk: Walk, path: str, value: Any) -> None:  # noqa: C901 - one branch per kind of object
    kind = type(value)
    what = inert.kind_of_class(kind)
    if what == "immutable":
        return
    if value is sys.stdout or value is sys.stderr or value is sys.stdin or value is sys.__stdout__:
        return
    if what in {"container", "object"} or (inert.is_python_class(kind) and what not in {"data", "array"}):
        if what == "container":
            _look_into_container(walk, path, value)
        if inert.is_python_class(kind) or is_of(value, types.SimpleNamespace):
            _look_at_instance(walk, path, value)
    if what in {"array", "data"}:
        walk.kinds.add(kind)
        walk.reached.mutable.append(Found(path, value))
        if what == "array":
            _look_at_array(walk, path, value)
    elif what in {"generator", "iterator", "state"}:
        walk.reached.mutable.append(Found(path, value))
        walk.reached.shared.append(Found(path, value, inert.type_path(kind)))
    elif what == "unknown":
        walk.reached.mutable.append(Found(path, value))
        walk.reached.unknown.append(Found(path, value, f"a {inert.type_path(kind)}"))
    elif what == "callable":
        wrapped = getattr(value, "__wrapped__", None)
        if is_of(wrapped, types.FunctionType):
            walk.visit(path, wrapped)
            walk.named.append((path, value))
        elif not inert.is_inert_package(getattr(value, "__module__", "")):
            walk.reached.unknown.append(Found(path, value, "its code cannot be read"))


def _look_into_container(walk: Walk, path: str, value: Any) -> None:
    """Look into a container: at the types of its values at once, and at those that are not plain one by one."""
    if not is_of(value, tuple | frozenset | types.SimpleNamespace):
        walk.reached.mutable.append(Found(path, value))
        walk.reached.shapes.append((value, shape(value))) if type(value) in _SIZED else None
    if is_of(value, types.SimpleNamespace):
        return
    values: Iterable[Any]
    if is_of(value, types.MappingProxyType):
        values = value.values()
    elif is_of(value, dict):
        values = itertools.chain(dict.keys(value), dict.values(value))
    else:
        values = _plain_iter(value)
    n = len(value) if not inert.is_python_class(type(value)) else _size(value)
    if n > bounds.MOST_TYPES:
        values = itertools.islice(values, bounds.MOST_TYPES)
        walk.reached.unknown.append(Found(path, value, f"{n:,} values are too many to look at"))
    values = list(values)
    walk.n_left -= len(values) // bounds.TYPES_AS_OBJECT
    others = [] if inert.SCALARS.issuperset(map(type, values)) else [v for v in values if type(v) not in inert.SCALARS]
    if len(others) > bounds.MOST_EACH:
        walk.reached.is_complete = False
        del others[bounds.MOST_EACH :]
    for inner in others:
        walk.visit(path, inner)


def _look_at_instance(walk: Walk, path: str, value: Any) -> None:
    walk.visit(path, type(value))
    kind = type(value)
    if inert.is_inert(module_of(kind)) or is_of(value, types.SimpleNamespace):
        for name, inner in own_attributes(value):
            walk.visit(f"{path}.{name}", inner)
    else:
        walk.named.append((path, value))
    walk.reached.mutable.append(Found(path, value))


def _look_at_array(walk: Walk, path: str, value: Any) -> None:
    if getattr(value.dtype, "hasobject", True):
        walk.reached.unknown.append(Found(path, value, "an array of Python objects"))
    base = value
    for _ in range(8):
        base = getattr(base, "base", None)
        if base is None or is_of(base, bytes | bytearray):
            return
        if inert.kind_of_class(type(base)) != "array":
            break
    else:
        return
    if inert.kind_of_class(type(base)) == "state":
        walk.reached.shared.append(Found(path, value, f"its memory belongs to a {inert.type_path(type(base))}"))
    elif not is_of(base, memoryview | list | tuple) and not inert.is_inert(module_of(type(base))):
        walk.reached.unknown.append(Found(path, value, f"its memory belongs to a {inert.type_path(type(base))}"))


def _size(value: Any) -> int:
    try:
        return len(value)
    except Exception as error:  # noqa: BLE001 - a length that cannot be told is no length
        pass_on(error)
        return -1


def _plain_iter(value: Any) -> Iterator[Any]:
    """Iterate over a built-in container, or one derived from it, as the built-in one does."""
    kinds: tuple[Any, ...] = (list, tuple, set, frozenset)
    kind = next((kind for kind in kinds if is_of(value, kind)), None)
    plain: Iterator[Any] = iter(value) if kind is None else kind.__iter__(value)
    return plain
