"""How a decorated function is pickled: by its name where that leads back to it, else with the function inside."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from amorsize._arguments import callable_of, is_decorated

if TYPE_CHECKING:
    from amorsize._options import Options


def reduced(function: Any) -> tuple[Any, ...]:
    """Return what ``__reduce_ex__`` of a decorated function returns."""
    wrapped, options = callable_of(function.__wrapped__), function._self_options  # noqa: SLF001 - of its decorator
    module, qualname = getattr(wrapped, "__module__", None), getattr(wrapped, "__qualname__", None)
    found = find(module, qualname) if module and qualname else None
    if found is not None and _is_same(found, function) and (module != "__main__" or not _by_value()):
        if found._self_options == options:  # noqa: SLF001 - as above
            return _by_name, (module, qualname)
        return _with_options, (module, qualname, options)
    return _rebuild, (type(function), function.__wrapped__, options)


def find(module: str, qualname: str) -> Any:
    """Look up a name without triggering descriptors; None where it leads to nothing."""
    value: Any = sys.modules.get(module)
    for part in qualname.split("."):
        if value is None or part == "<locals>":
            return None
        value = vars(value).get(part) if hasattr(value, "__dict__") else None
    return value


def _is_same(found: Any, function: Any) -> bool:
    if found is function:
        return True
    return type(found) is type(function) and found.__wrapped__ is function.__wrapped__


def _by_value() -> bool:
    """Tell whether cloudpickle is at work: to it, functions of ``__main__`` are values, not names."""
    frame: types.FrameType | None = sys._getframe(1)  # noqa: SLF001 - the pickler does not say who it is
    while frame is not None:
        if "cloudpickle" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _by_name(module: str, qualname: str) -> Any:
    """Find a decorated function again in another process."""
    importlib.import_module(module)
    found = find(module, qualname)
    if not is_decorated(found):
        message = f"{module}.{qualname} is not a function decorated with @amorsize.parallel here"
        raise AttributeError(message)
    return found


def _with_options(module: str, qualname: str, options: Options) -> Any:
    found = _by_name(module, qualname)
    return type(found)(found.__wrapped__, options, found._self_state)  # noqa: SLF001 - of its decorator


def _rebuild(kind: Any, wrapped: Any, options: Options) -> Any:
    return kind(wrapped, options)
