"""
A function as it travels to workers that are no forks, and how a worker opens it.

The caller's half, and the picture of both, is in :mod:`amorsize._backend._ship`: workers load only this.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import types
from _io import open as open_file  # a test may have replaced the builtin
from typing import TYPE_CHECKING, Any, NamedTuple

from amorsize import _function
from amorsize._backend import _ambience, _files, _settings, _worker
from amorsize._backend import _bounds as bounds

if TYPE_CHECKING:
    from collections.abc import Callable


class Contents(NamedTuple):
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


class Parcel:
    """
    A function ready to travel, with everything that is the same for all chunks.

    Attributes:
        digest: Identifies the contents.
        data: The pickled contents, or empty where they lie in a file.
        path: That file, or empty.
        is_by_value: Whether the function itself is in it.
        has_helpers: Whether the functions of modules that it uses are in it too: no worker has other code.
        number: Which parcel of this process it is: each run has its own, the same contents or not.
    """

    __slots__ = ("__weakref__", "data", "digest", "has_helpers", "is_by_value", "number", "path")

    def __init__(
        self, digest: bytes, data: bytes, path: str, number: int, *, is_by_value: bool, has_helpers: bool = False
    ) -> None:
        self.digest, self.data, self.path, self.number = digest, data, path, number
        self.is_by_value, self.has_helpers = is_by_value, has_helpers

    def close(self) -> None:
        """Remove the file, if there is one; not in a forked copy of the program."""
        _files.remove(self.path)


def hashes_at(module: str, qualname: str) -> tuple[str, ...]:
    """Return the code hashes of the function of a name, and of those that it wraps; none where it is not there."""
    value = _function.found_at(module, qualname)
    found, _ = _function.bare(value) if callable(value) else (None, ())
    hashes: list[str] = []
    while isinstance(found, types.FunctionType) and len(hashes) < bounds.MOST_WRAPPED:
        hashes.append(_function.code_hash(found.__code__))
        found = found.__dict__.get("__wrapped__")
    return tuple(hashes)


_opened: dict[bytes, tuple[Callable[[Any], Any], _ambience.Ambience | None]] = {}
_current: bytes = b""
_entered: int = 0
_initialized: bytes = b""


def open_parcel(parcel: Parcel) -> Callable[[Any], Any]:
    """
    Return the function of one item that a parcel holds. Runs in the worker.

    Raises StaleCode if the worker's module holds other code under that name, or none, UnsendableFunctionError if what
    was sent cannot be opened, and what an initializer raises.
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
        with open_file(parcel.path, "rb") as file:
            data = file.read()
    contents: Contents = pickle.loads(data)
    if contents.ambience is not None:
        _ambience.enter(contents.ambience)
    if contents.initializer and contents.initializer != _initialized:
        function, arguments = pickle.loads(contents.initializer)
        function(*arguments)
        _initialized = contents.initializer
    if contents.function:
        _settings.apply(contents.settings)
    function = _loaded(contents.function) if contents.function else _import(contents)
    _compare_helpers(contents)
    kwargs = _loaded(contents.kwargs) if contents.kwargs else None
    _opened.clear()  # one function at a time keeps a large closure from staying for ever
    call = _worker.make_call(function, star=contents.star, kwargs=kwargs)
    _opened[parcel.digest] = call, contents.ambience
    _current, _entered = parcel.digest, parcel.number
    return call


def _loaded(data: bytes) -> Any:
    """Unpickle the function, or what it is called with; what raises here does not in the caller, which has both."""
    try:
        return pickle.loads(data)
    except (_worker.StaleCode, _worker.NoWorkersError):
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - objects raise anything when they are made again
        raise _worker.UnsendableFunctionError(cannot_open(error)) from None


def cannot_open(error: BaseException) -> str:
    """Say why a worker has no function."""
    if isinstance(error, _worker.UnsendableFunctionError):
        return str(error)
    return f"workers cannot open the function: {type(error).__name__}: {error}"


def _import(contents: Contents) -> Callable[..., Any]:
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
        raise _worker.StaleCode(f"{contents.module}.{contents.qualname} is other code in the worker")
    return found


def _compare_helpers(contents: Contents) -> None:
    for (module, name), hashes in contents.helpers.items():
        if module in sys.modules and hashes_at(module, name) != hashes:
            raise _worker.StaleCode(f"{module}.{name}, which the function uses, is other code in the worker")
