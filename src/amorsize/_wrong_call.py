"""
What to do instead where a function or its items were given in the wrong shape: a pair as one argument, one missing.

Says so in words only; calls nothing of the user's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def way_out(func: Callable[..., Any], item: Any, *, star: bool, kwargs: Mapping[str, Any] | None) -> str:
    """
    Return what to do where *func* cannot take *item* in the way it was given; "" where it can, or nothing helps.

    Args:
        func: The function.
        item: The item that it was called with.
        star: Whether the item was unpacked into arguments.
        kwargs: The keyword arguments that every item was given.
    """
    kind = type(item)  # and not isinstance: an item may answer that with code of its own
    if kind is tuple and not star and len(item) == 2 and _is_series(item[1]):
        return (
            "df.iterrows() yields pairs of a label and a row; did you mean map(row for _, row in df.iterrows()), or "
            "starmap, which gives both as arguments? (df.itertuples(index=False) is faster)"
        )
    if star:
        is_many = hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")
        return "" if is_many else "starmap unpacks each item into arguments; map gives it as it is"
    try:
        # Its own: what it calls in turn may have refused the call, not the function that was mapped.
        signature = inspect.signature(func, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - builtins without one, and objects that raise anything when asked
        return ""
    return _fitting(func, signature, item, kwargs or {})


def _fitting(func: Any, signature: inspect.Signature, item: Any, given: Mapping[str, Any]) -> str:
    """Return how to give a function what its signature asks for; "" where the item fits, or nothing helps."""
    kind = type(item)
    if _takes(signature, (item,), given):
        return ""
    if _is_method(func):
        owner, _, name = func.__qualname__.rpartition(".")
        return f"{name} is a method of an object: map it as one, as in {owner}(...).{name}.map(items)"
    if _takes(signature, (), given):
        return "map gives each item as an argument, and the function takes none"
    is_row = kind.__module__ == "numpy" and kind.__name__ == "ndarray" and getattr(item, "ndim", 0) == 1
    if (kind in {tuple, list} or is_row) and _takes(signature, tuple(item), given):
        return "map gives each item as one argument; did you mean starmap, which unpacks it? (istarmap for a stream)"
    missing = _missing(signature, item, given)
    if not missing:
        return ""
    return (
        f"map gives one argument per iterable, and the function needs {' and '.join(missing)} as well: the same value "
        f"for every item goes into kwargs={{{missing[0]!r}: ...}}, a value for each item into a further iterable"
    )


def instead_of_items(value: Any, position: int, others: tuple[Any, ...]) -> str:
    """
    Return what to give to a map instead of a *value* that has no items; "" where nothing helps.

    Args:
        value: What was given.
        position: At which place, counted from 0.
        others: All that was given.
    """
    kind = type(value)
    if position > 0:
        return "a value that is the same for every item goes into kwargs={'name': ...}"
    if callable(value):
        if len(others) > 1:
            return "the items alone are given here; did you mean amorsize.map(function, items)?"
        return "did you mean to call it?"
    if kind is int and len(others) == 1 and value > 0:
        return f"did you mean range({value})?"
    if hasattr(kind, "__aiter__"):
        return "items that come asynchronously are collected first: [item async for item in ...]"
    return "several items are given as one list" if len(others) > 1 else ""


def instead_of_function(value: Any, items: tuple[Any, ...], caller: str) -> str:
    """Return what is wrong with a *value* that a *caller* of the package was given, before *items*, for a function."""
    message = f"the first argument of amorsize.{caller} must be the function, not {type(value).__name__}: {value!r}"
    if not items or not callable(items[0]):
        return message
    return f"{message}; did you mean amorsize.{caller}({getattr(items[0], '__name__', 'function')}, items)?"


def instead_of_decorated(value: Any) -> str:
    """Return what was meant by decorating a *value* that cannot be called; "" where nothing helps."""
    if type(value) is int:
        return f"options are given by name: @amorsize.parallel(n_jobs={value})"
    if isinstance(value, list | tuple | range | set | dict):
        return "items are given to f.map(items), or to amorsize.map(function, items)"
    return ""


def _is_method(func: Any) -> bool:
    """Tell whether a function is a method, asked of its class: the item would be taken for the object."""
    names = getattr(getattr(func, "__code__", None), "co_varnames", ())
    is_plain = type(func).__name__ == "function" and "." in func.__qualname__
    return is_plain and not func.__qualname__.rpartition(".")[0].endswith("<locals>") and names[:1] == ("self",)


def _is_series(value: Any) -> bool:
    """Tell whether a value is a row or a column of a data frame of pandas."""
    return type(value).__name__ == "Series" and type(value).__module__.partition(".")[0] == "pandas"


def _takes(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether arguments fit a signature."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _missing(signature: inspect.Signature, item: Any, kwargs: Mapping[str, Any]) -> list[str]:
    """Return the names of arguments that have no value yet, none where what is given does not fit anyhow."""
    try:
        bound = signature.bind_partial(item, **kwargs).arguments
    except TypeError:
        return []
    named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    parameters = signature.parameters.values()
    return [p.name for p in parameters if p.kind in named and p.default is p.empty and p.name not in bound]
