"""
What to do instead where items were given in the wrong shape: a pair as one argument, or an argument missing.

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
    return _fitting(signature, item, kwargs or {})


def _fitting(signature: inspect.Signature, item: Any, given: Mapping[str, Any]) -> str:
    """Return how to give a function what its signature asks for; "" where the item fits, or nothing helps."""
    kind = type(item)
    if _takes(signature, (item,), given):
        return ""
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
