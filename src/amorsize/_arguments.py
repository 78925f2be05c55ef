"""What is given to the decorator and to a map, looked at before anything runs: the function, the items, *kwargs*."""

from __future__ import annotations

import gc
import inspect
import types
from collections.abc import Mapping
from typing import Any

from amorsize import _function, _options
from amorsize._trace import warn
from amorsize._wrong_call import instead_of_decorated

WRONG_ORDER = (
    "{0}: @amorsize.parallel must be outermost; write it above {1}, not below it, "
    "so that the map knows the class it belongs to"
)


def is_decorated(func: Any) -> bool:
    """Tell a function of this package's decorator, which says that it is of the class of the function inside."""
    return hasattr(type(func), "_amorsize_unwrap")


def callable_of(wrapped: Any) -> Any:
    """Return the function under a static or class method."""
    return wrapped.__func__ if isinstance(wrapped, staticmethod | classmethod) else wrapped


def name_of(function: Any) -> str:
    """Return what a function is called in messages."""
    return str(getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or "the function")


def names_of_arguments(func: Any) -> tuple[str, ...]:
    """Return the names of a function's own arguments, none where they cannot be told."""
    try:
        return tuple(inspect.signature(func).parameters)
    except (TypeError, ValueError):
        return ()


def check_function(func: Any) -> None:
    """Refuse, as a TypeError, what is decorated already, is no callable, or is an async or a generator function."""
    target = callable_of(func)
    if is_decorated(func):
        raise TypeError(f"{name_of(func)} is decorated already; change its options with .with_options(...)")
    if not callable(target):
        message = f"@amorsize.parallel decorates a callable, not {type(func).__name__}: {func!r}"
        way_out = instead_of_decorated(func)
        raise TypeError(f"{message}; {way_out}" if way_out else message)
    found, _ = _function.bare(target)
    flags = found.__code__.co_flags if found is not None and not inspect.isclass(target) else 0
    if flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        raise TypeError(
            f"{name_of(target)} is an async function; amorsize maps plain functions: "
            "decorate one that calls asyncio.run(...), or use asyncio.gather"
        )
    if flags & inspect.CO_GENERATOR:
        raise TypeError(
            f"{name_of(target)} is a generator function, whose result cannot leave a worker; return list(...) instead"
        )


def refuse_outer_descriptor(function: Any) -> None:
    """Refuse ``@classmethod`` or ``@staticmethod`` over the decorator, which hide it from its class."""
    qualname = str(getattr(function.__wrapped__, "__qualname__", ""))
    parent = qualname.rpartition(".")[0]
    if not parent or parent.endswith("<locals>") or not isinstance(function.__wrapped__, types.FunctionType):
        return
    for holder in gc.get_referrers(function):
        if type(holder) in {classmethod, staticmethod}:
            raise TypeError(WRONG_ORDER.format(name_of(function), f"@{type(holder).__name__}"))


def warn_of_frames(name: str, iterables: tuple[Any, ...]) -> None:
    """Warn that the items of a data frame are not its rows."""
    for iterable in iterables:
        if type(iterable).__name__ != "DataFrame":
            continue
        if type(iterable).__module__.partition(".")[0] == "polars":
            warn(
                f"{name} maps the columns of this DataFrame, as the loop does; for rows give df.iter_rows(), "
                "for groups give df.group_by(...)"
            )
        elif hasattr(iterable, "itertuples"):
            warn(
                f"{name} maps the column names of this DataFrame, as the loop does; for rows give "
                "df.itertuples(index=False, name=None) to starmap, for groups give df.groupby(...) to starmap"
            )


def checked_kwargs(kwargs: Any) -> dict[str, Any] | None:
    """Return the function's own keyword arguments; raises TypeError unless they are a mapping with strings for keys."""
    if kwargs is None:
        return None
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a mapping of keyword arguments such as {{'name': value}}, not {kwargs!r}")
    for key in kwargs:
        if not isinstance(key, str):
            raise TypeError(f"kwargs must have strings for keys, not {key!r}")
    return dict(kwargs) or None


def show_options(*functions: Any) -> None:
    """Let the signatures of functions name every option, so that shells and notebooks complete them."""
    for function in functions:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        function.__signature__ = signature.replace(parameters=[*own, *_options.parameters()])
