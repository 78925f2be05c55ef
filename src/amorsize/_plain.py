"""What a value is in JSON: exactly where JSON can, else its nearest relative. The one place that decides it."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:  # noqa: PLR0911 - one line per kind
    """
    Turn a value into what JSON can hold.

    Infinities and NaN become None, a set a sorted list, a record the fields that its repr shows, a path its text,
    NumPy's numbers and arrays numbers and lists, an exception its type and message, and anything else its ``repr``.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value, key=repr)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, BaseException):
        return {"error": type(value).__qualname__, "message": str(value)}
    if callable(tolist := getattr(value, "tolist", None)):  # NumPy's
        return plain(tolist())
    return repr(value)
