"""What the code of a function names: its closure, its defaults, its globals, and attributes of modules."""

from __future__ import annotations

import builtins
import sys
import types
from typing import Any, Final

from amorsize._analysis import inert
from amorsize._analysis.bytecode import chains_of, names_of, unknown_ops
from amorsize._analysis.values import ABSENT, cell_name, cell_value
from amorsize._analysis.walk.modules import look_into_library
from amorsize._analysis.walk.state import Cell, Found, Walk
from amorsize._attribute import is_of, name_of
from amorsize._modules import loaded

_BUILTINS: Final = vars(builtins)


def look_at_function(walk: Walk, path: str, func: types.FunctionType) -> None:
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
    name = chain[0]
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


def _follow_chain(walk: Walk, path: str, module: types.ModuleType, attributes: tuple[str, ...]) -> None:
    """Follow attributes from module to module; a module that is used in any other way is looked at by name."""
    for i, name in enumerate(attributes):
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
        if i + 1 == len(attributes):
            break
    else:
        walk.visit(path, module)
        return
    if is_of(module, types.ModuleType):
        walk.visit(path, module)


def look_at_builtin(walk: Walk, path: str, func: Any) -> None:
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
