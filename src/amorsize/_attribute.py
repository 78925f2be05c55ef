"""Attributes of the program's objects, read without running the program's code."""

from __future__ import annotations

import atexit
import functools
import types
from typing import TYPE_CHECKING, Any, Final, TypeVar

from amorsize import _bounds as bounds

__all__ = [
    "attribute_of", "attributes", "bases_of", "hides_names", "is_made_at_run_time", "is_of", "module_of", "name_of",
    "namespace_of", "once_per_class", "path_of", "qualname_of", "wrapped_function", "wrapper_function",
]  # fmt: skip

T = TypeVar("T")

if TYPE_CHECKING:
    from builtins import isinstance as is_of  # so that type checkers narrow by it as they do by isinstance
    from collections.abc import Callable
else:

    def is_of(value: Any, kinds: Any) -> bool:
        """
        Tell whether an object is of a class, or of any of some, by its type only.

        isinstance asks an object that is not of the class for its ``__class__``: code of a lazy proxy answers, and
        loads what it stands for.
        """
        return issubclass(type(value), kinds)


# How type itself reads them: a metaclass may have a __getattribute__ of its own.
_MRO: Final = type.__dict__["__mro__"].__get__
_DICT: Final = type.__dict__["__dict__"].__get__
_NAME: Final = type.__dict__["__name__"].__get__
_QUALNAME: Final = type.__dict__["__qualname__"].__get__
_MODULE: Final = type.__dict__["__module__"].__get__
_FLAGS: Final = type.__dict__["__flags__"].__get__

# Py_TPFLAGS_HEAPTYPE: of classes that are made at run time, as class statements do; the interpreter's own have it not.
_HEAP_TYPE: Final = 1 << 9


def bases_of(kind: type) -> tuple[type, ...]:
    """Return a class and all it is built on, in the order of look-ups, without running code of its metaclass."""
    held: tuple[type, ...] = _MRO(kind)
    return held


def namespace_of(kind: type) -> types.MappingProxyType[str, Any]:
    """Return what a class itself holds, by name, without running code of its metaclass."""
    held: types.MappingProxyType[str, Any] = _DICT(kind)
    return held


def name_of(kind: type) -> str:
    """Return the name of a class without running code of its metaclass."""
    return str(_NAME(kind))


def module_of(kind: type) -> str:
    """Return the module of a class without running code of its metaclass."""
    return str(_MODULE(kind))


def is_made_at_run_time(kind: type) -> bool:
    """Tell whether a class was made at run time, not laid out by a compiler, without running code of its metaclass."""
    return bool(_FLAGS(kind) & _HEAP_TYPE)


def qualname_of(kind: type) -> str:
    """Return the qualified name of a class without running code of its metaclass."""
    return str(_QUALNAME(kind))


def path_of(kind: type) -> str:
    """Spell a type as ``module.qualname``."""
    return f"{_MODULE(kind)}.{_QUALNAME(kind)}"


def once_per_class(tell: Callable[[type], T]) -> Callable[[type], T]:
    """Remember what is told of classes, by their identity: a metaclass may have an equality and a hash of its own."""
    told: dict[int, tuple[type, T]] = {}

    @functools.wraps(tell)
    def remembered(kind: type) -> T:
        known = told.get(id(kind))
        if known is None or known[0] is not kind:
            if len(told) >= bounds.MOST_CLASSES:
                told.clear()
            known = told[id(kind)] = kind, tell(kind)
        return known[1]

    # A class holds the globals of its methods, which would outlive the program's end, see the dependencies.
    atexit.register(told.clear)
    return remembered


def _held_by(kind: type, name: str) -> Any:
    """Return what a class, or the first of its bases that has it, holds under a name; None where there is nothing."""
    return next((held[name] for held in map(_DICT, _MRO(kind)) if name in held), None)


@once_per_class
def _wraps_functions(kind: type) -> bool:
    """Tell whether a class is one of wrapt's for functions, or amorsize's: what it stands for is there already."""
    return any(
        _NAME(base) == "_FunctionWrapperBase" or path_of(base) == "amorsize._wrapper.Wrapper" for base in _MRO(kind)
    )


def wrapped_function(value: Any) -> Any:
    """Return what a wrapper of wrapt's or amorsize's calls; None for all other objects."""
    return value.__wrapped__ if _wraps_functions(type(value)) else None


def wrapper_function(value: Any) -> Any:
    """Return what wrapt calls in place of the function that it wraps; None where that is the function itself."""
    return getattr(value, "_self_wrapper", None) if wrapped_function(value) is not None else None


def _is_proxy(kind: type) -> bool:
    """Tell whether objects of a class say that they are of another: what they are asked, they may ask that one."""
    return _held_by(kind, "__class__") is not _DICT(object)["__class__"] and not _wraps_functions(kind)


@once_per_class
def _own_names(kind: type) -> Any:
    """Return the descriptor that gives the instance dictionary of objects of a class, None where there is none."""
    held = _held_by(kind, "__dict__")
    if type(held) not in {types.GetSetDescriptorType, types.MemberDescriptorType}:
        return None  # nothing, or code: of a proxy, it gives the attributes of what that stands for
    # So does that of a proxy in C; the class statement gives its own these words.
    is_own = not _is_proxy(kind) or str(held.__doc__).startswith("dictionary for instance")
    return held if is_own else None


@once_per_class
def hides_names(kind: type) -> bool:
    """Tell whether code of a class gives the instance dictionary of its objects, so that nobody else can look at it."""
    return _held_by(kind, "__dict__") is not None and _own_names(kind) is None


def attributes(value: Any) -> dict[str, Any]:
    """Return the instance dictionary of an object without running code of its class."""
    descriptor = _own_names(type(value))
    held = None if descriptor is None else descriptor.__get__(value)
    return held if type(held) is dict else {}


def _answers_any(kind: type) -> bool:
    """Tell whether code of a class answers for every attribute: asked each time, a class may be given such code."""
    return type(_held_by(kind, "__getattribute__")) is not types.WrapperDescriptorType or _is_proxy(kind)


def _answers_missing(kind: type) -> bool:
    """Tell whether code of a class answers for attributes that are not there."""
    return _held_by(kind, "__getattr__") is not None and not _wraps_functions(kind)


def attribute_of(value: Any, name: str, default: Any = None) -> Any:
    """
    Return an attribute, or *default* where there is none or where asking would call ``__getattr__``.

    A class that answers to every name (a counter of what it is asked, a proxy of a remote object, a mock) takes a
    question of ours for one of the function's. Properties of a class that has the name are read: 0.2 us.
    """
    kind = type(value)
    if kind is types.ModuleType:
        return vars(value).get(name, default)  # the module may have a __getattr__ that imports
    if _answers_any(kind) or (_answers_missing(kind) and not any(name in held for held in map(_DICT, _MRO(kind)))):
        return attributes(value).get(name, default)
    return getattr(value, name, default)
