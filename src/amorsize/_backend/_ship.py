"""
How a function reaches a worker that is not a fork: by name where the worker can import it, else by value, once.

    caller                                       worker
    Parcel ── pickled once per map ──────────►   opened once, kept while the bytes are the same
      by name: module, qualified name, hash of the code, the current values of small globals it names
      by value: cloudpickle
    a parcel above 64 KiB lies in a temporary file, and only its path travels with each chunk

A worker's module is a fresh import: before it runs a function by name it sets the small globals that differ from the
caller's, and where the code differs (an edited or reloaded module) it answers
:class:`amorsize._backend._worker.StaleCode`, and the caller sends the function by value.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import io
import itertools
import os
import pickle
import sys
import types
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amorsize import _function
from amorsize._backend import _files, _worker
from amorsize._modules import loaded

if TYPE_CHECKING:
    from collections.abc import Callable

# Bytes of a parcel above which it goes through a file: below, sending it with each chunk costs less than a file does.
_INLINE_BYTES: Final = 64 * 1024

# Bytes of a global's value up to which it is compared and sent; larger ones are each worker's own copy.
SMALL_BYTES: Final = 1024

_SCALARS = (int, float, complex, bool, str, bytes, type(None))


def dumps_by_value(value: Any) -> bytes:
    """Pickle with cloudpickle: functions without a name of their own and classes of ``__main__`` go by value."""
    buffer = io.BytesIO()
    pickler()(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def _with_module(func: Callable[..., Any]) -> bytes:
    """Pickle a function by value, and the functions and classes of its module too, which a worker has otherwise."""
    module = sys.modules.get(getattr(func, "__module__", None) or "")
    if module is None or module.__name__ == "__main__":
        return dumps_by_value(_copied(func))
    cloudpickle = _cloudpickle()
    cloudpickle.register_pickle_by_value(module)
    try:
        return dumps_by_value(_copied(func))
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _cloudpickle() -> Any:
    try:
        import cloudpickle  # type: ignore[import-untyped]  # noqa: PLC0415 - only where plain pickle does not do
    except ImportError:  # joblib before 1.6 carries its own
        from joblib.externals import cloudpickle  # type: ignore[attr-defined]  # noqa: PLC0415 - as above
    return cloudpickle


@functools.cache
def pickler() -> Any:
    """
    Return cloudpickle's pickler, taught to ask objects for their own ``__reduce_ex__`` where they stand for a function.

    It takes everything that looks like a function for one, and a decorated function looks like the one inside.
    """

    class Pickler(_cloudpickle().Pickler):  # type: ignore[misc]  # cloudpickle has no annotations
        def reducer_override(self, obj: Any) -> Any:
            if hasattr(type(obj), "_amorsize_unwrap"):
                return obj.__reduce_ex__(5)
            return super().reducer_override(obj)

    return Pickler


def dumps(value: Any) -> bytes:
    """Pickle plainly, by value where that fails."""
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - objects raise anything from __reduce__; the second pickler decides
        return dumps_by_value(value)
    if b"__main__" in data:
        return dumps_by_value(value)
    return data


def dumps_error(error: BaseException) -> bytes:
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


def _is_small(value: Any, depth: int = 2) -> bool:
    if isinstance(value, _SCALARS):
        return not isinstance(value, str | bytes) or len(value) <= SMALL_BYTES
    if isinstance(value, list | tuple | set | frozenset):
        return depth > 0 and len(value) <= 50 and all(_is_small(v, depth - 1) for v in value)
    if isinstance(value, dict):
        pairs = [*value.keys(), *value.values()]
        return depth > 0 and len(pairs) <= 100 and all(_is_small(v, depth - 1) for v in pairs)
    return False


def small_globals(found: types.FunctionType) -> dict[str, dict[str, Any]]:
    """Return the small globals that a function and the helpers of its module name, by module."""
    values: dict[str, Any] = {}
    for helper in _function._helpers(found):  # noqa: SLF001 - one package
        for name in helper.__code__.co_names:
            if name in helper.__globals__ and _is_small(helper.__globals__[name]):
                values[name] = helper.__globals__[name]
    return {found.__module__: values} if values else {}


def helper_hashes(found: types.FunctionType) -> dict[str, str]:
    """Return the code hashes of the functions that a function names in its module: a worker's must be the same."""
    hashes = {}
    for name, value in _function.named_values(found).items():
        helper, _ = _function.bare(value) if callable(value) else (None, ())
        if helper is not None and not isinstance(value, type) and name in found.__globals__:
            hashes[name] = _function.code_hash(helper.__code__)
    return hashes


@dataclass(frozen=True, slots=True)
class Ambience:
    """
    The state of the calling process that people expect a function to see: as of the call.

    Attributes:
        cwd: Current working directory, None where it cannot be read.
        path: ``sys.path``.
        environ: ``os.environ``.
        filters: Warning filters.
        decimal: The decimal context.
        numpy_errors: ``numpy.geterr()``, None where NumPy is not loaded.
    """

    cwd: str | None
    path: tuple[str, ...]
    environ: dict[str, str]
    filters: bytes
    decimal: bytes
    numpy_errors: dict[str, Any] | None


# What the caller's environment must not overwrite in a worker: its share of threads.
_KEEP_PREFIXES: Final = ("LOKY_", "OMP_", "OPENBLAS_", "MKL_", "BLIS_", "VECLIB_", "NUMBA_", "NUMEXPR_", "ENABLE_IPC")


def _picklable(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception:  # noqa: BLE001 - a filter or context that cannot travel is left behind
        return b""


def ambience() -> Ambience:
    """Read the calling process's state now."""
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = None
    decimal = loaded("decimal")
    numpy = loaded("numpy")
    return Ambience(
        cwd=cwd,
        path=tuple(map(str, sys.path)),
        environ=dict(os.environ),
        filters=_picklable(warnings.filters),
        decimal=_picklable(decimal.getcontext()) if decimal else b"",
        numpy_errors=numpy.geterr() if numpy else None,
    )


def enter(state: Ambience) -> None:
    """Give a worker the caller's state."""
    if state.cwd is not None:
        with contextlib.suppress(OSError):
            os.chdir(state.cwd)
    sys.path[:] = state.path
    for name in [n for n in os.environ if n not in state.environ and not n.startswith(_KEEP_PREFIXES)]:
        del os.environ[name]
    for name, value in state.environ.items():
        if not name.startswith(_KEEP_PREFIXES) and os.environ.get(name) != value:
            os.environ[name] = value
    if state.filters:
        with contextlib.suppress(Exception):  # categories of modules that are not here
            warnings.filters[:] = pickle.loads(state.filters)  # type: ignore[index]  # typeshed: Sequence; it is a list
    if state.decimal:
        import decimal  # noqa: PLC0415 - only where the caller uses it

        decimal.setcontext(pickle.loads(state.decimal))
    if state.numpy_errors is not None:
        importlib.import_module("numpy").seterr(**state.numpy_errors)


@dataclass(frozen=True, slots=True)
class _Contents:
    module: str
    qualname: str
    code_hash: str
    helpers: dict[str, str]
    globals: dict[str, dict[str, Any]]
    function: bytes
    star: bool
    kwargs: bytes
    ambience: Ambience | None
    initializer: bytes


@dataclass(slots=True, eq=False, weakref_slot=True)
class Parcel:
    """
    A function ready to travel, with everything that is the same for all chunks.

    Attributes:
        digest: Identifies the contents.
        data: The pickled contents, or empty where they lie in a file.
        path: That file, or empty.
        is_by_value: Whether the function itself is in it.
        number: Which parcel of this process it is: each run has its own, the same contents or not.
    """

    digest: bytes
    data: bytes
    path: str
    is_by_value: bool
    number: int = 0

    def close(self) -> None:
        """Remove the file, if there is one; not in a forked copy of the program."""
        _files.remove(self.path)


def pack_function(
    func: Callable[..., Any],
    *,
    star: bool,
    kwargs: dict[str, Any] | None,
    importable: bool,
    by_value: bool = False,
    initializer: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
    ambient: bool = True,
) -> Parcel:
    """
    Pack a function.

    Args:
        func: The undecorated function.
        star: Whether items are unpacked into its arguments.
        kwargs: Constant keyword arguments.
        importable: Whether a worker can import it by module and qualified name.
        by_value: Send it by value all the same.
        initializer: Called once in each worker before its first item, with its arguments.
        ambient: Whether the caller's working directory, path and the like travel too (not to other machines).

    Raises:
        Exception: Whatever pickling the function or the arguments raises.
    """
    found, _ = _function.bare(func)
    named = importable and not by_value and isinstance(func, types.FunctionType) and found is func
    contents = _Contents(
        module=func.__module__ if named else "",
        qualname=func.__qualname__ if named else "",
        code_hash=_function.code_hash(found.__code__) if named and found else "",
        helpers=helper_hashes(found) if named and found else {},
        globals=small_globals(found) if named and found else {},
        function=b"" if named else _with_module(func) if by_value else dumps_by_value(func),
        star=star,
        kwargs=dumps(kwargs) if kwargs else b"",
        ambience=ambience() if ambient else None,
        initializer=dumps_by_value(initializer) if initializer else b"",
    )
    data = pickle.dumps(contents, protocol=5)
    digest = hashlib.blake2b(data, digest_size=16).digest()
    if len(data) <= _INLINE_BYTES or not ambient:
        return Parcel(digest, data, "", not named, next(_numbers))
    with _worker.no_interrupt():
        handle, path = _files.make()
        parcel = Parcel(digest, b"", path, not named, next(_numbers))
        _files.removing(parcel, path)  # an interrupt from here on ends the parcel, and the file with it
        file = os.fdopen(handle, "wb")
    try:
        with file:
            file.write(data)
    except OSError:  # no room: it travels with each chunk
        parcel.close()
        return Parcel(digest, data, "", not named, next(_numbers))
    return parcel


def _copied(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return a twin of a function that no module holds, which makes cloudpickle send it by value."""
    if not isinstance(func, types.FunctionType):
        return func
    twin = types.FunctionType(func.__code__, func.__globals__, func.__name__, func.__defaults__, func.__closure__)
    twin.__kwdefaults__ = func.__kwdefaults__
    twin.__dict__.update(func.__dict__)
    twin.__qualname__, twin.__module__ = func.__qualname__, func.__module__
    return twin


_numbers: Final = itertools.count(1)

_opened: dict[bytes, tuple[Callable[[Any], Any], Ambience | None]] = {}
_current: bytes = b""
_entered: int = 0
_initialized: bytes = b""


def open_parcel(parcel: Parcel) -> Callable[[Any], Any]:
    """
    Return the function of one item that a parcel holds. Runs in the worker.

    Raises:
        StaleCode: If the worker's module holds other code under that name, or none.
    """
    global _current, _entered, _initialized  # noqa: PLW0603 - a worker runs one chunk at a time
    if parcel.digest == _current:
        call, state = _opened[parcel.digest]
        if parcel.number != _entered and state is not None:  # the run before may have changed the worker's state
            enter(state)
        _entered = parcel.number
        return call
    data = parcel.data
    if not data:
        with open(parcel.path, "rb") as file:
            data = file.read()
    contents: _Contents = pickle.loads(data)
    if contents.ambience is not None:
        enter(contents.ambience)
    if contents.initializer and contents.initializer != _initialized:
        function, arguments = pickle.loads(contents.initializer)
        function(*arguments)
        _initialized = contents.initializer
    function = pickle.loads(contents.function) if contents.function else _import(contents)
    kwargs = pickle.loads(contents.kwargs) if contents.kwargs else None
    _opened.clear()  # one function at a time keeps a large closure from staying for ever
    call = _worker.make_call(function, star=contents.star, kwargs=kwargs)
    _opened[parcel.digest] = call, contents.ambience
    _current, _entered = parcel.digest, parcel.number
    return call


def _import(contents: _Contents) -> Callable[..., Any]:
    try:
        value: Any = importlib.import_module(contents.module)
        for part in contents.qualname.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        message = f"{contents.module}.{contents.qualname} cannot be imported in the worker: {error}"
        raise _worker.StaleCode(message) from error
    function = getattr(value, "__func__", value)
    if hasattr(function, "_amorsize_unwrap"):
        function = function._amorsize_unwrap()  # noqa: SLF001 - ours
    found, _ = _function.bare(function)
    if found is None or _function.code_hash(found.__code__) != contents.code_hash:
        message = f"{contents.module}.{contents.qualname} is other code in the worker"
        raise _worker.StaleCode(message)
    if helper_hashes(found) != contents.helpers:
        message = f"a function that {contents.module}.{contents.qualname} names is other code in the worker"
        raise _worker.StaleCode(message)
    for module, values in contents.globals.items():
        names = vars(sys.modules[module])
        for name, value in values.items():
            if name not in names or type(names[name]) is not type(value) or names[name] != value:
                names[name] = value
    return found
