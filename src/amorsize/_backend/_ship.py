"""
How a function reaches a worker that is not a fork: by name where the worker can import it, else by value, once.

    caller                                       worker
    Parcel ── pickled once per map ──────────►   opened once, kept while the bytes are the same
      by name: module, qualified name, hash of the code
      by value: cloudpickle
    a parcel above 64 KiB lies in a temporary file, and only its path travels with each chunk

A worker's module is a fresh import: before it runs a function it sets what the caller has set in modules since they
were imported (:mod:`amorsize._backend._settings`), and where the code differs (an edited or reloaded module) it answers
:class:`amorsize._backend._worker.StaleCode`, and the caller sends the function by value, and what it uses of modules.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import pickle
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize import _analysis, _function
from amorsize._backend import _ambience, _files, _settings, _steady, _unfound, _worker
from amorsize._backend import _bounds as bounds
from amorsize._backend._parcel import Contents, Parcel, hashes_at
from amorsize._backend._pickles import cloudpickle, dumps, dumps_by_value

if TYPE_CHECKING:
    from collections.abc import Callable


def _with_module(func: Callable[..., Any]) -> bytes:
    """Pickle a function by value, and the functions and classes of its modules too, which a worker has otherwise."""
    registry = cloudpickle()
    modules = {getattr(func, "__module__", None) or "", *(name for name, _ in _helpers(func))} & sys.modules.keys()
    modules -= {"__main__", *registry.list_registry_pickle_by_value()}
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
        (helper.__module__, helper.__qualname__): hashes_at(helper.__module__, helper.__qualname__)
        for helper in _analysis.known_dependencies(func).functions
        if _function.is_importable(helper) and not _function.is_installed(helper.__code__.co_filename)
    }


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
    Pack a function, undecorated, with the constants of its calls and what initializes a worker.

    One that is *importable* goes by name unless *by_value* asks for itself and for what it uses of the program's
    modules. With *ambient* the caller's working directory, path and the like travel too (not to other machines). With
    *inline* large contents stay in the parcel, since it is sent once per map and not with each chunk. Raises whatever
    pickling raises.
    """
    found, _ = _function.bare(func)
    named = importable and not by_value and isinstance(func, types.FunctionType) and found is func
    named = named and func.__module__ not in _unfound.unfound()
    settings = _settings.pack(func)
    contents = Contents(
        module=func.__module__ if named else "",
        qualname=func.__qualname__ if named else "",
        code_hash=_function.code_hash(found.__code__) if named and found else "",
        helpers={} if by_value else _helpers(func),
        settings=settings,
        function=b"" if named else _with_module(func) if by_value else _steady.dumps(func),
        star=star,
        kwargs=dumps(kwargs) if kwargs else b"",
        ambience=_ambience.read(func) if ambient else None,
        initializer=dumps_by_value(initializer) if initializer else b"",
    )
    data = pickle.dumps(contents, protocol=5)
    digest = importlib.util.source_hash(data)  # 64 bits, to tell it from the parcel before; hashlib is 4 ms to import
    if len(data) <= bounds.PARCEL_BYTES or inline or not ambient:
        return Parcel(digest, data, "", next(_numbers), is_by_value=not named, has_helpers=by_value)
    with _worker.no_interrupt():
        handle, path = _files.make()
        parcel = Parcel(digest, b"", path, next(_numbers), is_by_value=not named, has_helpers=by_value)
        _files.removing(parcel, path)  # an interrupt from here on ends the parcel, and the file with it
        file = os.fdopen(handle, "wb")
    try:
        with file:
            file.write(data)
    except OSError:  # no room: it travels with each chunk
        parcel.close()
        return Parcel(digest, data, "", next(_numbers), is_by_value=not named, has_helpers=by_value)
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
