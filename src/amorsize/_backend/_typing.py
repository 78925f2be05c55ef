"""What the typing module makes of a statement in ``__main__``, for pickles: plain ones know it by its name only."""

from __future__ import annotations

import importlib
import sys
import typing
from typing import Any, Final

from amorsize._outside import suppressed

# What is set anew in a class for dictionaries that is made again.
_TOLD: Final = ("__module__", "__qualname__", "__doc__", "__total__", "__required_keys__", "__optional_keys__")


def reduced(obj: Any) -> tuple[Any, ...] | None:
    """Say how to pickle a new type or parameters by what they were made of; None for any other object."""
    kind = type(obj)
    if kind is typing.NewType:
        return _new_type, (obj.__module__, obj.__name__, obj.__supertype__)
    if kind in {typing.ParamSpec, typing.TypeVarTuple}:
        return kind, (obj.__name__,)
    if kind is getattr(typing, "TypeAliasType", None):
        return kind, (obj.__name__, obj.__value__)
    return None


def reduced_class(kind: Any) -> tuple[Any, ...] | None:
    """Say how to pickle a class of ``TypedDict``, which is no dictionary's, by its keys; None for anything else."""
    if type(kind).__name__ != "_TypedDictMeta" or vars(kind).get("__parameters__"):
        return None
    told = {name: getattr(kind, name) for name in _TOLD if hasattr(kind, name)}
    return _typed_dict, (type(kind).__module__, kind.__name__, kind.__annotations__, told)


def _new_type(module: str, name: str, supertype: Any) -> Any:
    found = _here(module, name)
    if type(found) is typing.NewType and found.__supertype__ is supertype:
        return found
    kind: Any = typing.NewType  # a type checker wants it to be given a literal
    made = kind(name, supertype)
    made.__module__ = module
    return made


def _typed_dict(kind: str, name: str, keys: dict[str, Any], told: dict[str, Any]) -> Any:
    found = _here(told["__module__"], name)
    if type(found).__name__ == "_TypedDictMeta" and found.__annotations__.keys() == keys.keys():
        return found
    made = importlib.import_module(kind).TypedDict(name, keys)
    for attribute, value in told.items():
        setattr(made, attribute, value)
    return made


def _here(module: str, name: str) -> Any:
    """Return what this process has under a name: what comes home is the caller's own."""
    if module != "__main__":
        with suppressed():  # whatever a module raises when it is imported
            importlib.import_module(module)
    return getattr(sys.modules.get(module), "__dict__", {}).get(name)
