"""
Pickles of functions of ``__main__``, kept from one map to the next.

In a notebook the function is pickled for each map, since what it names may have been set anew: .2 to .4 ms with
cloudpickle, three times that right after a computation. Where all that it names is of kinds that cannot change inside,
one look at what the names stand for (10 us) tells that the pickle would be the same again.

Of every other function nothing is kept: a list, an object, a class of the program may hold something else by now.
"""

from __future__ import annotations

import atexit
import operator
import sys
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amorsize._analysis.bytecode import names_of
from amorsize._analysis.values import ABSENT, cell_value
from amorsize._attribute import is_made_at_run_time
from amorsize._backend import _bounds as bounds
from amorsize._backend import _unfound
from amorsize._backend._pickles import cloudpickle, dumps_by_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FIXED: Final = frozenset({int, float, complex, bool, str, bytes, type(None), type(...), range})

# What cloudpickle takes of a function's module beside the names in its code.
_OF_MODULE: Final = ("__name__", "__package__", "__file__", "__path__")

# The latest function, what it was made from, and its pickle.
_latest: tuple[_Parts, bytes] | None = None


def dumps(func: Callable[..., Any]) -> bytes:
    """Pickle a function by value, or return its latest pickle where that would be the same."""
    global _latest  # noqa: PLW0603 - a cache of one tuple, replaced in one statement
    parts, kept = _parts_of(func), _latest
    if parts is not None and kept is not None and parts.are(kept[0]):
        return kept[1]
    data = dumps_by_value(func)
    _latest = None if parts is None or len(data) > bounds.PARCEL_BYTES else (parts, data)
    return data


@atexit.register
def _forget() -> None:
    """At the end of the program let go of its functions: they hold its globals, whose objects would outlive it."""
    global _latest  # noqa: PLW0603 - as above
    _latest = None


class _Parts(NamedTuple):
    """
    What the pickle of a function is made from.

    Attributes:
        n_modules: How many there are: cloudpickle looks among them for submodules that the code may use.
        by_value: Names of modules that go by value.
        objects: The functions, and each object that they name or hold. While they are kept, no other has their address.
    """

    n_modules: int
    by_value: frozenset[str]
    objects: tuple[Any, ...]

    def are(self, others: _Parts) -> bool:
        """Tell whether these are the same objects as *others*."""
        if (self.n_modules, self.by_value, len(self.objects)) != (
            others.n_modules,
            others.by_value,
            len(others.objects),
        ):
            return False
        return all(map(operator.is_, self.objects, others.objects))


def _parts_of(func: Any) -> _Parts | None:
    """Return what the pickle of a function is made from; None where one of the objects may change inside."""
    module = sys.modules.get("__main__")
    main = None if module is None else vars(module)
    by_value = _unfound.unfound() | cloudpickle().list_registry_pickle_by_value()
    objects: list[Any] = []
    todo, seen = [func], {id(func)}
    for one in todo:
        # What a helper of another module is pickled as depends on what that module holds now.
        if type(one) is not types.FunctionType or one.__globals__ is not main or not _is_plain(one):
            return None
        objects += (one, one.__code__, one.__module__, one.__name__, one.__qualname__, one.__doc__)
        for value in _held(one):
            objects.append(value)
            if _is_fixed(value, by_value) or id(value) in seen:
                continue
            if len(todo) == bounds.MOST_FUNCTIONS:
                return None
            todo.append(value)
            seen.add(id(value))
    return _Parts(len(sys.modules), by_value, tuple(objects))


def _is_plain(func: types.FunctionType) -> bool:
    """Tell whether a function has nothing of its own that is computed when it is asked for, or may change inside."""
    # From 3.14 on to ask for annotations runs code of the program.
    return not (vars(func) or getattr(func, "__type_params__", None) or getattr(func, "__annotate__", None))


def _held(func: types.FunctionType) -> Iterator[Any]:
    """Yield what a function names and holds."""
    yield from func.__defaults__ or ()
    for name, value in (func.__kwdefaults__ or {}).items():
        yield name
        yield value
    for name, value in func.__annotations__.items():
        yield name
        yield value
    yield from map(cell_value, func.__closure__ or ())
    known = func.__globals__
    for name in (*_OF_MODULE, *names_of(func.__code__)):
        yield known.get(name, ABSENT)


def _is_fixed(value: Any, by_value: frozenset[str]) -> bool:
    """Tell whether the pickle of a value follows from which object it is."""
    kind = type(value)
    if kind in _FIXED or value is ABSENT:
        return True
    if kind is types.ModuleType:
        name = str(getattr(value, "__name__", ""))
        return sys.modules.get(name) is value and not by_value.intersection(_with_parents(name))
    if kind is types.BuiltinFunctionType:
        return isinstance(value.__self__, types.ModuleType)
    return kind is type and not is_made_at_run_time(value)


def _with_parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]
