"""
Pickles that open in another process: plainly where that works, by value what a worker would not find by its name.

Called on both ends of every way: for functions (_ship), for items, for results and for exceptions (_worker). What opens
there is equal to what was pickled; exceptions arrive as the caller's own classes where it has them. Knows nothing of
workers, and loads cloudpickle only where plain pickle does not do.
"""

from __future__ import annotations

import copyreg
import functools
import importlib
import io
import linecache
import os
import pickle
import types
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Final

from amorsize import _function, _outside
from amorsize._analysis.inert import CACHED, is_python_class
from amorsize._backend import _bounds as bounds
from amorsize._backend import _sentinels, _typing, _unfound
from amorsize._modules import loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from types import CodeType


def dumps_by_value(value: Any, stays: Callable[[pickle.PickleBuffer], bool] | None = None) -> bytes:
    """
    Pickle with cloudpickle; *stays* says of each buffer whether it stays in the pickle, None that all do.

    Functions without a name of their own, classes of ``__main__``, and what belongs to modules that a worker would not
    find go by value.
    """
    buffer = io.BytesIO()
    with _unfound.by_value(cloudpickle()):
        pickler()(buffer, protocol=5, buffer_callback=stays).dump(value)
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
                    self._lines[name] = lines_of(obj)
                return placed, (*self.dispatch_table[types.CodeType](obj)[:2], name, self._lines[name])
            if (place := _common_generator(obj)) is not None:
                return _own_generator, place
            if type(obj) is memoryview:  # of which cloudpickle makes bytes
                data = bytes(obj) if obj.readonly else bytearray(obj)
                return _view, (data, obj.format, obj.shape)
            if type(obj) is weakref.WeakKeyDictionary:  # what functools.singledispatch has found so far
                return weakref.WeakKeyDictionary, (dict(obj),)
            how = super().reducer_override(obj)
            if how is not NotImplemented or isinstance(obj, type) or type(obj) in self.dispatch_table:
                return how if how is NotImplemented else _by_value(obj, how)
            made = _sentinels.reduced(obj) or _typing.reduced(obj)
            return made or reduced(obj, cloudpickle().list_registry_pickle_by_value())

    return Pickler


def _by_value(obj: Any, how: Any) -> Any:
    """
    Return how to pickle a function or class by value; cloudpickle makes an empty class first, and fills it.

    A metaclass in C may have read the fields from the class statement, and keep them where nobody can set them.
    """
    if isinstance(obj, type) and type(obj) is not type and not is_python_class(type(obj)):
        raise pickle.PicklingError(f"{obj.__qualname__} is a class of {type(obj).__name__}, which is compiled")
    return _typing.reduced_class(obj) or how


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


def _plain(value: Any, callback: Callable[[pickle.PickleBuffer], bool] | None = None) -> bytes:
    file = _Frames()
    plain = pickle.Pickler(file, protocol=5, buffer_callback=callback)
    plain.dispatch_table = _sentinels.dispatch_table()
    plain.dump(value)
    return file.getvalue()


def dumps(value: Any) -> bytes:
    """Pickle plainly, by value where that fails."""
    try:
        data = _plain(value)
    except Exception as error:  # noqa: BLE001 - objects raise anything from __reduce__; the second pickler decides
        _outside.pass_on(error)
        return dumps_by_value(value)
    return dumps_by_value(value) if is_only_here(data) else data


def dumps_apart(value: Any, least_bytes: int | None, *, is_known: bool = False) -> tuple[bytes, list[memoryview]]:
    """
    Pickle as :func:`dumps` does, with buffers of *least_bytes* or more apart; None leaves all in the pickle.

    What *is_known* to be found where the pickle is opened, as by a worker's caller, goes by name whatever its module.
    """
    buffers: list[memoryview] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes >= (least_bytes or 0):
            buffers.append(raw)
        return raw.nbytes < (least_bytes or 0)

    callback = None if least_bytes is None else stays
    try:
        data = _plain(value, callback)
        if is_known or not is_only_here(data):
            return data, buffers
    except Exception as error:  # noqa: BLE001 - objects raise anything from __reduce__; the second pickler decides
        _outside.pass_on(error)
    buffers.clear()
    return dumps_by_value(value, callback), buffers


class _Frames(io.BytesIO):
    """
    A file for pickles whose methods are in Python, between which other threads may run: one call for each 64 KiB.

    ``pickle.dumps`` and ``loads`` keep the interpreter: of a dictionary of 200,000 texts, an event loop for 30 ms.
    """

    def write(self, part: Any) -> int:
        return io.BytesIO.write(self, part)

    def read(self, size: int | None = -1) -> bytes:
        return io.BytesIO.read(self, size)

    def readinto(self, part: Any) -> int:
        return io.BytesIO.readinto(self, part)


def loads(data: Any, buffers: Iterable[Any]) -> Any:
    """Open a pickle; a long one such that other threads may run meanwhile."""
    if len(data) < bounds.FRAMES_BYTES:
        return pickle.loads(data, buffers=buffers)
    return pickle.Unpickler(_Frames(data), buffers=buffers).load()


def _view(data: bytes | bytearray, code: str, shape: tuple[int, ...]) -> memoryview:
    """Return a view as it was, of memory of its own."""
    kind: Any = code  # typeshed has the codes one by one
    view: memoryview = memoryview(data).cast(kind, shape)
    return view


def is_only_here(data: bytes) -> bool:
    """Tell whether a plain pickle may name what a worker would not find: it is in ``__main__``, or loaded by path."""
    return b"__main__" in data or any(mark in data for mark in _unfound.marks())


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


# -- where code was written --------------------------------------------------------------------------------------------


def lines_of(code: CodeType) -> str:
    """Return the text of a file that is in this process's memory only; empty where a worker can read it, or no one."""
    if os.path.exists(code.co_filename):
        return ""
    # What was typed into Python's own shell is kept by the code that it made, from 3.14 on.
    by_code: Callable[[CodeType], list[str]] = getattr(linecache, "_getlines_from_code", lambda _: [])
    return "".join(linecache.getlines(code.co_filename) or by_code(code))


def placed(make: Callable[..., CodeType], arguments: tuple[Any, ...], filename: str, lines: str) -> CodeType:
    """Make a code object with the name of its file. Runs in the worker, while a function is unpickled."""
    # A time of None keeps linecache.checkcache, which every traceback calls, from looking for the file.
    if lines:
        linecache.cache[filename] = (len(lines), None, lines.splitlines(keepends=True), filename)
    return make(*arguments).replace(co_filename=filename)


# -- objects of decorators ---------------------------------------------------------------------------------------------


# What a wrapper takes over from its function.
_COPIED: Final = frozenset({"__wrapped__", *functools.WRAPPER_ASSIGNMENTS})


def reduced(obj: Any, dynamic: Collection[str]) -> Any:
    """
    Say how to pickle what is neither a class nor a function; NotImplemented where its own way will do.

    *dynamic* are the names of modules that a worker does not import.
    """
    kind: Any = type(obj)
    if kind.__reduce__ is not object.__reduce__:
        wraps = isinstance(kind.__reduce__, types.FunctionType) or kind is CACHED
        if not wraps or "__wrapped__" not in getattr(obj, "__dict__", ()) or _is_found(obj, dynamic):
            return NotImplemented
        if kind is CACHED:  # which go by name, and so do those of cachetools
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
    return obj.__module__ not in {"__main__", *dynamic} and _function.found_at(obj.__module__, obj.__qualname__) is obj


def _cached(func: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(func)


def _set_state(obj: Any, state: Any) -> None:
    """Do what unpickling does, without asking the object."""
    held, slots = state if isinstance(state, tuple) else (state, None)
    for name, value in {**(held or {}), **(slots or {})}.items():
        object.__setattr__(obj, name, value)


# -- opening what does not open ----------------------------------------------------------------------------------------


class _Unopened:
    """Stands for an object that could not be made; whatever is to be put into it is dropped."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def _drop(self, *_: Any) -> None:
        pass

    append = extend = add = update = __setitem__ = _drop


def _made(make: Any, arguments: Any, keywords: Any = None) -> Any:
    if isinstance(make, _Unopened):
        return make
    try:
        return make(*arguments, **(keywords or {}))
    except Exception as error:  # noqa: BLE001 - objects raise anything when they are made
        return _Unopened(error)


def _new(kind: Any, arguments: Any, keywords: Any = None) -> Any:
    return kind if isinstance(kind, _Unopened) else _made(kind.__new__, (kind, *arguments), keywords)


# The one in Python: the documented one cannot be told what to do after a failure.
_Unpickler: Any = vars(pickle)["_Unpickler"]


def _filling(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """
    Return an instruction that goes on where an object cannot be filled, as where a key's ``__hash__`` fails.

    All of them take what they fill it with off the stack first. The object stays: others may hold it already.
    """

    def fill(self: _Careful) -> None:
        try:
            load(self)
        except Exception as error:  # noqa: BLE001 - objects raise anything when they are filled
            self.broken[id(self.stack[-1])] = self.stack[-1], error

    return fill


class _Careful(_Unpickler):  # type: ignore[misc]  # no stub knows it
    """
    An unpickler that goes on where an object cannot be made or filled.

    Attributes:
        broken: Objects that could not be filled and why, by their identity.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Unpickler.dispatch)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.broken: dict[int, tuple[Any, BaseException]] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except Exception as error:  # noqa: BLE001 - modules raise anything when they are imported
            return _Unopened(error)

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _made(self.stack[-1], arguments)

    def _newobj(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _new(self.stack[-1], arguments)

    def _newobj_ex(self) -> None:
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self.stack[-1] = _new(self.stack[-1], arguments, keywords)

    def _frozenset(self) -> None:
        parts = self.pop_mark()  # before the stack is asked for: it is another one afterwards
        self.append(_made(frozenset, (parts,)))

    def _build(self) -> None:
        if isinstance(self.stack[-2], _Unopened):
            self.stack.pop()
        else:
            self.load_build()

    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.NEWOBJ[0]] = _newobj
    dispatch[pickle.NEWOBJ_EX[0]] = _newobj_ex
    dispatch[pickle.FROZENSET[0]] = _frozenset
    dispatch[pickle.BUILD[0]] = _filling(_build)
    for _code in (pickle.ADDITEMS, pickle.SETITEM, pickle.SETITEMS, pickle.APPEND, pickle.APPENDS):
        dispatch[_code[0]] = _filling(dispatch[_code[0]])


def opened(data: Any, buffers: Iterable[Any], pickler: Any) -> tuple[Any, Callable[[Any], BaseException | None]]:
    """
    Return what the pickle holds, and what tells of a part of it why it could not be opened, None if it could.

    *pickler* is a class that pickles whatever may be in it: to look into a part is to pickle it.
    """

    class Finder(pickler):  # type: ignore[misc]  # given at run time
        error: BaseException | None = None

        def persistent_id(self, obj: Any) -> Any:
            error = obj.error if isinstance(obj, _Unopened) else broken.get(id(obj), (obj, None))[1]
            self.error = self.error or error
            return None if error is None else 0

    unpickler = _Careful(io.BytesIO(data), buffers=buffers)
    whole, broken = unpickler.load(), unpickler.broken

    def trouble(part: Any) -> BaseException | None:
        finder = Finder(io.BytesIO(), protocol=5)
        try:
            finder.dump(part)
        except Exception as error:  # noqa: BLE001 - what does not pickle again was not looked at to its end
            return finder.error or error
        return finder.error

    return whole, trouble
