"""
The walk through everything that a function can reach, nearest first.

    code       what the code of a function names
    modules    what it takes from modules and classes
    objects    what objects hold, and whether they are harmless

What is met is put into a queue (:meth:`Walk.visit`) and looked at once, by its kind.
"""

from __future__ import annotations

import functools
import types
from typing import Any, Final

from amorsize._analysis import inert
from amorsize._analysis.values import ABSENT, cell_value
from amorsize._analysis.walk.code import look_at_builtin, look_at_function
from amorsize._analysis.walk.modules import (
    look_at_attributes,
    look_at_class,
    look_at_function_attributes,
    look_at_module,
    look_for_methods,
)
from amorsize._analysis.walk.objects import look_at_object
from amorsize._analysis.walk.state import Walk
from amorsize._attribute import attributes, is_of, module_of, wrapped_function, wrapper_function
from amorsize._modules import loaded

# Attribute names through which code reaches all that an object holds.
_ANY_ATTRIBUTE: Final = frozenset(
    {"getattr", "vars", "__dict__", "copy", "deepcopy", "asdict", "astuple", "dumps", "dump"}
)


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
        look_at_function(walk, "", func)
    else:
        # A decorator's object has the name of its function; "self" is what an object's own methods call it.
        name = getattr(func, "__name__", "self")
        walk.visit(name, func)
    run(walk)


def run(walk: Walk) -> None:
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
    if is_of(value, types.FunctionType):
        look_at_function(walk, path, value)
    elif is_of(value, types.ModuleType):
        look_at_module(walk, path, value)
    elif is_of(value, type):
        look_at_class(walk, path, value)
    elif is_of(value, types.MethodType):
        walk.visit(path, value.__self__)
        if is_of(value.__func__, types.FunctionType):
            walk.visit(path, value.__func__)
    elif is_of(value, types.BuiltinFunctionType | types.MethodWrapperType):
        look_at_builtin(walk, path, value)
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
        look_at_object(walk, path, value)
