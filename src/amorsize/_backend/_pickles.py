"""
Pickles that open in another process: plainly where that works, by value what a worker would not find by its name.

Called on both ends of every way: for functions (_ship), for items, for results and for exceptions (_worker). What opens
there is equal to what was pickled; exceptions arrive as the caller's own classes where it has them. Knows nothing of
workers, and loads cloudpickle only where plain pickle does not do.
"""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import types
import weakref
from typing import Any

from amorsize import _outside
from amorsize._backend import _places, _reduce, _unfound
from amorsize._modules import loaded


def dumps_by_value(value: Any) -> bytes:
    """
    Pickle with cloudpickle.

    Functions without a name of their own, classes of ``__main__``, and what belongs to modules that a worker would not
    find go by value.
    """
    buffer = io.BytesIO()
    with _unfound.by_value(cloudpickle()):
        pickler()(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def cloudpickle() -> Any:
    """Return the module: the installed one, else joblib's."""
    try:
        import cloudpickle as found  # type: ignore[import-untyped]  # noqa: PLC0415 - 10 to 250 ms; only where plain pickle does not do
    except ImportError:  # joblib before 1.6 carries its own
        from joblib.externals import cloudpickle as found  # type: ignore[attr-defined]  # noqa: PLC0415 - as above
    return found


@functools.cache
def pickler() -> Any:
    """
    Return cloudpickle's pickler, taught to ask objects for their own ``__reduce_ex__`` where they stand for a function.

    It takes everything that looks like a function for one, and a decorated function looks like the one inside.
    Code keeps the name of its file, see :mod:`amorsize._backend._places`.
    """

    class Pickler(cloudpickle().Pickler):  # type: ignore[misc]  # cloudpickle has no annotations
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._lines: dict[str, str] = {}  # one text per file, which the pickle then holds once

        def reducer_override(self, obj: Any) -> Any:  # noqa: PLR0911 - one per kind of object
            if hasattr(type(obj), "_amorsize_unwrap"):
                return obj.__reduce_ex__(5)
            if type(obj) is types.CodeType:
                name = obj.co_filename
                if name not in self._lines:
                    self._lines[name] = _places.lines_of(obj)
                return _places.placed, (*self.dispatch_table[types.CodeType](obj)[:2], name, self._lines[name])
            if (place := _common_generator(obj)) is not None:
                return _own_generator, place
            if type(obj) is memoryview:  # of which cloudpickle makes bytes
                data = bytes(obj) if obj.readonly else bytearray(obj)
                return _view, (data, obj.format, obj.shape)
            if type(obj) is weakref.WeakKeyDictionary:  # what functools.singledispatch has found so far
                return weakref.WeakKeyDictionary, (dict(obj),)
            how = super().reducer_override(obj)
            if how is not NotImplemented or isinstance(obj, type) or type(obj) in self.dispatch_table:
                return how
            return _reduce.reduced(obj, cloudpickle().list_registry_pickle_by_value())

    return Pickler


def _common_generator(value: Any) -> tuple[str, str] | None:
    """
    Tell where the generator stands whose methods ``random.random``, ``numpy.random.rand`` and the like are.

    A copy of it draws what the caller draws, in each worker: workers have one of their own, seeded by the system.
    """
    for module, name in (("random", "_inst"), ("numpy.random.mtrand", "_rand")):
        if (holder := loaded(module)) is not None and value is vars(holder).get(name):
            return module, name
    return None


def _own_generator(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def dumps(value: Any) -> bytes:
    """Pickle plainly, by value where that fails."""
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception as error:  # noqa: BLE001 - objects raise anything from __reduce__; the second pickler decides
        _outside.pass_on(error)
        return dumps_by_value(value)
    return dumps_by_value(value) if is_only_here(data) else data


def _view(data: bytes | bytearray, code: str, shape: tuple[int, ...]) -> memoryview:
    """Return a view as it was, of memory of its own."""
    kind: Any = code  # typeshed has the codes one by one
    view: memoryview = memoryview(data).cast(kind, shape)
    return view


def is_only_here(data: bytes) -> bool:
    """Tell whether a plain pickle may name what a worker would not find: it is in ``__main__``, or loaded by path."""
    return b"__main__" in data or any(name.encode() in data for name in _unfound.unfound())


def dumps_error(error: Any) -> bytes:
    """Pickle an exception by value, so that it arrives as the caller's own class where the caller has that class."""
    buffer = io.BytesIO()
    _error_pickler()(buffer, protocol=5).dump(error)
    return buffer.getvalue()


@functools.cache
def _error_pickler() -> Any:
    """Return a pickler that sends a class without a name to be found by as its name, and by value for those without."""

    class Pickler(pickler()):  # type: ignore[misc]  # see there
        def reducer_override(self, obj: Any) -> Any:
            how = super().reducer_override(obj)
            if how is not NotImplemented and isinstance(obj, type) and issubclass(obj, BaseException):
                return _error_class, (obj.__module__, obj.__qualname__, id(obj), dumps_by_value(obj))
            return how

    return Pickler


def _error_class(module: str, qualname: str, address: int, by_value: bytes) -> type[BaseException]:
    """
    Return the class of an exception: this process's own where it has it, else what was sent.

    A local class exists once per call of the function around it. In a fork the right one is at the same address;
    one that travelled to the worker by value is known by cloudpickle; else it must be the only one of its name.
    """
    known = _error_classes()
    same_name = [kind for kind in known if (kind.__module__, kind.__qualname__) == (module, qualname)]
    if here := [kind for kind in same_name if id(kind) == address]:
        return here[0]
    sent: type[BaseException] = pickle.loads(by_value)
    return same_name[0] if sent not in known and len(same_name) == 1 else sent


def _error_classes() -> set[type[BaseException]]:
    """Return the exception classes there are in this process."""
    found: set[type[BaseException]] = set()
    todo: list[type[BaseException]] = [BaseException]
    while todo:
        kinds = set(type.__subclasses__(todo.pop())) - found
        found |= kinds
        todo += kinds
    return found
