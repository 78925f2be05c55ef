"""
What the caller has set in modules and classes since they were imported, for workers that import them anew.

    caller                                              worker
    config.N = 5; Model.scale = 10; register(hook) ──►  imports config, sets config.N = 5 ... before the first item,
    mock.patch("service.fetch", fake)                   takes it back before the next map

Which values a change of the caller's reached cannot be told from those that are as imported: so all that the function
can reach goes along (see Dependencies.settings), in one pickle, so that what is one object here is one object there.
What cannot be pickled (a lock, a connection) stays each worker's own, made by its own import, with what can be sent of
what is in it (:mod:`amorsize._backend._updates`); a stand-in of a test that cannot be pickled makes the function stay
here.
"""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize import _analysis, _function
from amorsize._attribute import wrapped_function
from amorsize._backend import _bounds as bounds
from amorsize._backend import _unfound, _updates
from amorsize._backend._pickles import cloudpickle, pickler
from amorsize._backend._worker import UnsendableFunctionError
from amorsize._modules import absolute
from amorsize._outside import pass_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from amorsize._analysis import Dependencies

_ABSENT: Final = object()


class _TooLargeError(Exception):
    """More than is sent."""


class _Bounded(io.BytesIO):
    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > bounds.MOST_SETTINGS_BYTES:
            raise _TooLargeError
        return super().write(data)


def _chosen(known: Dependencies) -> Iterator[tuple[str, str, Any]]:
    """Yield module, dotted name and value of what may differ from a fresh import."""
    for (module, path), then in known.settings.items():
        name, value = _now(module, path, then)
        if module in {"", "__main__", "__mp_main__"} or isinstance(value, types.ModuleType):
            continue  # of code that was run in a dictionary, which goes along
        if module in _unfound.unfound():  # it goes along as it is
            continue
        if name.rpartition(".")[2] in _DEFAULTS and value is not then:  # of a function around it
            continue
        if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType) and _is_at_home(
            value, module, name
        ):
            if (added := _updates.dispatched(value)) is not None:
                yield module, name, added
            continue
        yield module, name, value


def _now(module: str, name: str, known: Any) -> tuple[str, Any]:
    """Return the way to a setting, and its value: a number or text may have been set since the function was seen."""
    holder: Any = sys.modules.get(module)
    *parts, last = name.split(".")
    for part in parts:
        holder = getattr(holder, "__dict__", {}).get(part, known)
    if last not in _DEFAULTS:
        return name, getattr(holder, "__dict__", {}).get(last, known)
    value: Any = None
    for _ in range(bounds.MOST_WRAPPED):  # of the function itself, or of one that it wraps
        if (value := getattr(holder, last, None)) is known:
            break
        holder = wrapped_function(holder) or getattr(holder, "__dict__", {}).get("__wrapped__")
        parts.append("__wrapped__")
    return ".".join([*parts, last]), value


# What a function holds beside its code, and may be changed: sent only where it is found in that function.
_DEFAULTS: Final = frozenset({"__defaults__", "__kwdefaults__"})


def _is_at_home(value: Any, module: str, name: str) -> bool:
    """Tell whether a function or class is what its module made it: found under its own name, where it was defined."""
    if value.__module__ == module and value.__qualname__ == name:
        return True
    # Imported from elsewhere: a fresh import does the same, if it is what that module has under this name.
    home = _function.found_at(value.__module__, value.__qualname__)
    return home is value and value.__module__ != "__main__" and name.rpartition(".")[2] == value.__name__


# Builtins that find names of the module around them in a text: nobody knows which.
_BY_TEXT: Final = frozenset({"eval", "exec", "globals"})


def problem(func: Callable[..., Any]) -> str:
    """Return which stand-in of a test cannot be sent along, or what finds names that are not; or ""."""
    known = _analysis.known_dependencies(func)
    if known.effects.reaches_any_module:
        return "a module is found by a name that is made while items run, and other processes have other modules"
    for helper in known.functions:
        if found := _problem_of(helper, known.bindings):
            return f"{helper.__name__}() {found}"
    for where, name, value in _chosen(known):
        if type(value).__module__.partition(".")[0] in {"unittest", "mock"}:
            return f"{where}.{name} is a {type(value).__name__}, which exists in this process only"
        if _analysis.is_put_there(value) and _analysis.is_inert(where) and not _can_be_pickled(value):
            return f"{where}.{name} has been replaced by what cannot be sent along"
    return ""


def _problem_of(helper: types.FunctionType, bindings: Any) -> str:
    """Say what the code of a function asks for that other processes have otherwise, or not at all; or ""."""
    code = helper.__code__
    by_text = _BY_TEXT.intersection(chain[0] for chain in _analysis.chains_of(code)) - helper.__globals__.keys()
    if by_text and (not _function.is_importable(helper) or helper.__module__ in _unfound.unfound()):
        return f"uses {', '.join(sorted(by_text))}: the names in a text exist in this process only"
    if _names_main(code, bindings):
        return "uses the module __main__, which is another one in workers"
    if "__subclasses__" in _analysis.names_of(code):
        return "asks for __subclasses__, and other processes have other classes"
    for spelled in _analysis.imports_of(code):
        name = absolute(spelled, helper.__globals__)
        module: Any = sys.modules.get(name)
        is_module = module is None or isinstance(module, types.ModuleType)
        if name in _unfound.unfound() or not is_module or not _unfound.is_findable(name):
            return f"imports {name}, which exists in this process only"
    return ""


def _names_main(code: types.CodeType, bindings: Any) -> bool:
    """Tell whether code asks for the main module: workers have one of their own."""
    chains = _analysis.chains_of(code)
    if ("sys", "modules") in chains and (("__name__",) in chains or "__main__" in code.co_consts):
        return True
    main = sys.modules.get("__main__")
    names = {chain[0] for chain in chains}
    return "__main__" in _analysis.imports_of(code) or any(
        name in names for _, name, value in bindings if value is main
    )


def pack(func: Callable[..., Any]) -> bytes:
    """Pickle the settings that *func* reads; raises ValueError above :data:`bounds.MOST_SETTINGS_BYTES`."""
    chosen = list(_chosen(_analysis.known_dependencies(func)))
    if not chosen:
        return b""
    with _unfound.by_value(cloudpickle()):
        return _packed(chosen)


def _packed(chosen: list[tuple[str, str, Any]]) -> bytes:
    try:
        try:
            return _dumps(chosen)
        except _TooLargeError:
            raise
        except Exception as error:  # noqa: BLE001 - objects raise anything from __reduce__: then one by one
            pass_on(error)
            told = [(module, name, _updates.described(value, _can_be_pickled)) for module, name, value in chosen]
            return _dumps(told)
    except _TooLargeError:
        message = f"what the function reads from modules takes more than {bounds.MOST_SETTINGS_BYTES >> 20} MiB"
        raise ValueError(message) from None


def _dumps(value: Any) -> bytes:
    buffer = _Bounded()
    pickler()(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def _can_be_pickled(value: Any) -> bool:
    try:
        _dumps(value)
    except _TooLargeError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        pass_on(error)
        return False
    return True


# What takes the settings of the map before back, in a worker.
_undo: list[Callable[[], Any]] = []


def apply(data: bytes) -> None:
    """
    Give a worker the caller's settings, and take those of the map before back.

    Raises UnsendableFunctionError if the caller has made something since it imported the module that is not here.
    """
    while _undo:
        _undo.pop()()
    if not data:
        return
    for module, path, value in pickle.loads(data):
        try:
            holder = importlib.import_module(module)
            *classes, name = path.split(".")
            for part in classes:
                holder = getattr(holder, part)
        except (ImportError, AttributeError):
            continue  # what needs it will say so
        had = getattr(holder, name, _ABSENT) if name in _DEFAULTS else vars(holder).get(name, _ABSENT)
        if type(value) is _updates.Update:
            _updates.update(had, value, f"{module}.{path}", _undo)
            continue
        try:
            setattr(holder, name, value)
        except (AttributeError, TypeError) as error:  # of a bound method, say
            raise UnsendableFunctionError(f"{module}.{path} cannot be set in workers: {error}") from error
        before = (delattr, holder, name) if had is _ABSENT else (setattr, holder, name, had)
        _undo.append(functools.partial(*before))  # type: ignore[misc]  # the first one is a function in both
