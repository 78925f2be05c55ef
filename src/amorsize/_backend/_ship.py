"""
How a function reaches a worker that is not a fork: by name where the worker can import it, else by value, once.

    caller                                       worker
    Parcel ── pickled once per map ──────────►   opened once, kept while the bytes are the same
      by name: module, qualified name, hash of the code
      by value: cloudpickle
    a parcel above 64 KiB lies in a temporary file, and only its path travels with each chunk

A worker's module is a fresh import: before it runs a function it sets what the caller has set in modules since they
were imported (:mod:`amorsize._backend._settings`), and where the code differs (an edited or reloaded module) it answers
:class:`amorsize._backend._worker.StaleCode`, and the caller sends the function by value.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import pickle
import sys
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amorsize import _function
from amorsize._analysis import known_dependencies
from amorsize._backend import _ambience, _files, _settings, _steady, _unfound, _worker
from amorsize._backend import _bounds as bounds
from amorsize._backend._pickles import cloudpickle, dumps, dumps_by_value

if TYPE_CHECKING:
    from collections.abc import Callable


def _with_module(func: Callable[..., Any]) -> bytes:
    """Pickle a function by value, and the functions and classes of its modules too, which a worker has otherwise."""
    module = sys.modules.get(getattr(func, "__module__", None) or "")
    if module is None or module.__name__ == "__main__":
        return dumps_by_value(_copied(func))
    registry = cloudpickle()
    modules = {module.__name__, *(name for name, _ in _helpers(func))} - registry.list_registry_pickle_by_value()
    for name in modules:
        registry.register_pickle_by_value(sys.modules[name])
    try:
        return dumps_by_value(_copied(func))
    finally:
        for name in modules:
            registry.unregister_pickle_by_value(sys.modules[name])


def _helpers(func: Callable[..., Any]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the code hashes of the functions that a function can reach, by module and name: a worker has the same."""
    return {
        (helper.__module__, helper.__qualname__): _hashes_at(helper.__module__, helper.__qualname__)
        for helper in known_dependencies(func).functions
        if _function.is_importable(helper) and not _function.is_installed(helper.__code__.co_filename)
    }


def _hashes_at(module: str, qualname: str) -> tuple[str, ...]:
    """Return the code hashes of the function of a name, and of those that it wraps; none where it is not there."""
    value = _function.found_at(module, qualname)
    found, _ = _function.bare(value) if callable(value) else (None, ())
    hashes: list[str] = []
    while isinstance(found, types.FunctionType) and len(hashes) < bounds.MOST_WRAPPED:
        hashes.append(_function.code_hash(found.__code__))
        found = found.__dict__.get("__wrapped__")
    return tuple(hashes)


@dataclass(frozen=True, slots=True)
class _Contents:
    module: str
    qualname: str
    code_hash: str
    helpers: dict[tuple[str, str], tuple[str, ...]]
    settings: bytes
    function: bytes
    star: bool
    kwargs: bytes
    ambience: _ambience.Ambience | None
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
    inline: bool = False,
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
        inline: Whether large contents stay in the parcel too, since it is sent once per map and not with each chunk.

    Raises:
        Exception: Whatever pickling the function or the arguments raises.
    """
    found, _ = _function.bare(func)
    named = importable and not by_value and isinstance(func, types.FunctionType) and found is func
    named = named and func.__module__ not in _unfound.unfound()
    settings = _settings.pack(func)
    contents = _Contents(
        module=func.__module__ if named else "",
        qualname=func.__qualname__ if named else "",
        code_hash=_function.code_hash(found.__code__) if named and found else "",
        helpers=_helpers(func) if named else {},
        settings=settings,
        function=b"" if named else _with_module(func) if by_value else _steady.dumps(func),
        star=star,
        kwargs=dumps(kwargs) if kwargs else b"",
        ambience=_ambience.read() if ambient else None,
        initializer=dumps_by_value(initializer) if initializer else b"",
    )
    data = pickle.dumps(contents, protocol=5)
    digest = hashlib.blake2b(data, digest_size=16).digest()
    if len(data) <= bounds.PARCEL_BYTES or inline or not ambient:
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

_opened: dict[bytes, tuple[Callable[[Any], Any], _ambience.Ambience | None]] = {}
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
            _ambience.enter(state)
        _entered = parcel.number
        return call
    data = parcel.data
    if not data:
        with open(parcel.path, "rb") as file:
            data = file.read()
    contents: _Contents = pickle.loads(data)
    if contents.ambience is not None:
        _ambience.enter(contents.ambience)
    if contents.initializer and contents.initializer != _initialized:
        function, arguments = pickle.loads(contents.initializer)
        function(*arguments)
        _initialized = contents.initializer
    if contents.function:
        _settings.apply(contents.settings)
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
    _settings.apply(contents.settings)  # a function that a test has patched is one of them
    function = getattr(value, "__func__", value)
    if hasattr(function, "_amorsize_unwrap"):
        function = function._amorsize_unwrap()  # noqa: SLF001 - ours
    found, _ = _function.bare(function)
    if found is None or _function.code_hash(found.__code__) != contents.code_hash:
        message = f"{contents.module}.{contents.qualname} is other code in the worker"
        raise _worker.StaleCode(message)
    for (module, name), hashes in contents.helpers.items():
        if module in sys.modules and _hashes_at(module, name) != hashes:
            message = f"{module}.{name}, which {contents.module}.{contents.qualname} uses, is other code in the worker"
            raise _worker.StaleCode(message)
    return found
