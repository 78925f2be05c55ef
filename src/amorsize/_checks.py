"""
Checks of the values of options: each takes name and value, and returns the value to go by.

Raises TypeError or ValueError, with the value, what would be right, and the way out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from amorsize._wrong_call import value_meant_by


class Checkpoint(NamedTuple):
    """
    A file in which finished results are kept: what ``checkpoint=`` takes where a path says too little.

    Attributes:
        path: The file; made if it is not there.
        is_trusted: Whether it is read though others may write it, or its folder. What they put there could do
            anything.
    """

    path: str | os.PathLike[str]
    is_trusted: bool = False


def whole(name: str, value: Any, at_least: int, meaning: str) -> None:
    """Refuse what is not a whole number in range, naming the value and the way out."""
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} must be a whole number, not {value!r}; {meaning}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, not {value!r}; {meaning}")


def at_least(least: int, meaning: str, *, or_none: bool = False) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if value is not None or not or_none:
            whole(name, value, least, meaning)
        return value

    return check


def one_of(*words: str, or_none: bool = False) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if value in words or (value is None and or_none):
            return value

        meant = value_meant_by(value, words)
        hint = "" if meant is None else f"; did you mean {meant}?"
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))} or left out, not {value!r}{hint}")

    return check


def n_jobs(name: str, value: Any) -> Any:
    if value is None:
        return None
    whole(name, value, -(10**6), "None lets amorsize decide, -1 is all CPUs")
    if value == 0:
        raise ValueError("n_jobs must not be 0; None lets amorsize decide, 1 is serial, -1 is all CPUs")
    return value


# Seconds that every system's timers take: they count nanoseconds in 63 bits.
_MOST_TIMEOUT_S: Final = 10**9


def timeout(name: str, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be seconds or None, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {value!r}; None is no limit")
    if value > _MOST_TIMEOUT_S:
        raise ValueError(f"{name} must be at most {_MOST_TIMEOUT_S} seconds, which is 30 years; None is no limit")
    return value


def progress(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{name} as a mapping has the arguments of tqdm by name, such as desc; not {key!r}")
        return dict(value) or True
    if isinstance(value, bool) or callable(value):
        return value
    if hasattr(value, "update") and hasattr(value, "close"):
        raise TypeError(
            f"{name} makes its own bar: give the class (progress=tqdm) or its arguments "
            f"(progress=dict(desc='...')), not the bar {value!r}"
        )
    raise TypeError(
        f"{name} must be True, False, tqdm, a mapping of its arguments such as dict(desc='...'), "
        f"or a callable of (done, total, elapsed_s), not {value!r}"
    )


def initializer(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, not {value!r}")
    return value


def initargs(name: str, value: Any) -> Any:
    if not isinstance(value, tuple | list):
        raise TypeError(f"{name} must be a tuple of arguments, not {value!r}")
    return tuple(value)


def checkpoint(name: str, value: Any) -> Any:
    if value is None or isinstance(value, Checkpoint):
        return value
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be the path of a file or None, not {value!r}")
    return Checkpoint(value)


def stream(buffersize: Any, pairs: Any, ordered: Any, kept: Checkpoint | None) -> None:
    """Refuse what a stream cannot do."""
    if isinstance(ordered, str):
        raise TypeError(f"ordered must be True or False, not {ordered!r}")
    if buffersize is not None:
        whole("buffersize", buffersize, 1, "items to read ahead; leave it out to have it chosen")
    if kept is not None:
        raise TypeError("checkpoint= keeps the results of map and starmap; streams are not kept")
    one_of("index", "item", or_none=True)("pairs", pairs)


_UNITS: Final[Mapping[str, int]] = {
    "": 1, "B": 1, "K": 10**3, "KB": 10**3, "M": 10**6, "MB": 10**6, "G": 10**9, "GB": 10**9, "T": 10**12, "TB": 10**12,
    "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
}  # fmt: skip
_SIZE: Final = r"\s*([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*"
_MEMORY_WORDS: Final = "bytes for all workers together, a size such as '2GB' or '512 MiB', or a share such as 0.5"


def memory(name: str, value: Any) -> Any:
    """Return bytes as an int, or a share of the available memory as a float of at most 1."""
    if value is None:
        return None
    if isinstance(value, str):
        value = _size_meant(name, value)
    elif isinstance(value, float):
        if 0 < value <= 1:
            return value
        if not (value.is_integer() and value > 1):
            raise ValueError(f"{name} must be {_MEMORY_WORDS}, not {value!r}")
        value = int(value)
    elif isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} must be a whole number, not {value!r}; {_MEMORY_WORDS}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}; {_MEMORY_WORDS}")
    return value


def _size_meant(name: str, text: str) -> int:
    found = re.fullmatch(_SIZE, text, re.ASCII)
    unit = None if found is None else _UNITS.get(found[2].upper())
    if found is None or unit is None:
        raise ValueError(f"{name} must be {_MEMORY_WORDS}, not {text!r}")
    return int(float(found[1].replace("_", "")) * unit)
