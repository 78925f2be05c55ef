"""How objects of decorators travel whose own way of pickling would not bring them to a worker."""

from __future__ import annotations

import copyreg
import functools
import sys
import types
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_CACHED: Final = type(functools.cache(lambda: None))

# What a wrapper takes over from its function.
_COPIED: Final = frozenset({"__wrapped__", *functools.WRAPPER_ASSIGNMENTS})


def reduced(obj: Any, dynamic: Collection[str]) -> Any:
    """
    Say how to pickle an object; NotImplemented where its own way will do.

    Args:
        obj: Neither a class nor a function.
        dynamic: Names of modules that a worker does not import.
    """
    kind: Any = type(obj)
    if kind.__reduce__ is not object.__reduce__:
        wraps = isinstance(kind.__reduce__, types.FunctionType) or kind is _CACHED
        if not wraps or "__wrapped__" not in getattr(obj, "__dict__", ()) or _is_found(obj, dynamic):
            return NotImplemented
        if kind is _CACHED:  # which go by name, and so do those of cachetools
            own = {name: value for name, value in vars(obj).items() if name not in _COPIED}
            return _cached, (obj.__wrapped__, obj.cache_parameters()), own or None
        is_name = isinstance(obj.__reduce__(), str)
        return (copyreg.__newobj__, (kind,), vars(obj), None, None, _set_state) if is_name else NotImplemented  # type: ignore[attr-defined]
    if (kind.__module__, kind.__name__) == ("pydantic._internal._namespace_utils", "NsResolver"):
        return kind, ()  # it holds all globals of the module, and is of no use once validate_call's validator is made
    # Without a state yet, many a __getattr__ that is asked for __setstate__ calls itself for ever (one of pydantic's).
    if (
        not hasattr(kind, "__getattr__")
        or hasattr(kind, "__setstate__")
        or kind.__reduce_ex__ is not object.__reduce_ex__
    ):
        return NotImplemented
    how = obj.__reduce_ex__(2)
    return (*how, *[None] * (5 - len(how)), _set_state)


def _is_found(obj: Any, dynamic: Collection[str]) -> bool:
    """Tell whether a worker finds an object by its name."""
    module = sys.modules.get(obj.__module__)
    if module is None or obj.__module__ in {"__main__", *dynamic}:
        return False
    value: Any = module
    for part in obj.__qualname__.split("."):
        value = getattr(value, part, None)
    return value is obj


def _cached(func: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(func)


def _set_state(obj: Any, state: Any) -> None:
    """Do what unpickling does, without asking the object."""
    held, slots = state if isinstance(state, tuple) else (state, None)
    for name, value in {**(held or {}), **(slots or {})}.items():
        object.__setattr__(obj, name, value)
