"""What it costs to move a function, its items and its results: pickled sizes and seconds, and what cannot be sent."""

from __future__ import annotations

import array
import atexit
import functools
import pickle
import sys
import types
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from amorsize import _bounds as bounds
from amorsize import _function
from amorsize._analysis import known_dependencies
from amorsize._attribute import attribute_of, is_of
from amorsize._outside import pass_on
from amorsize._records import Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._analysis import Dependencies

_FLAT = (bytes, bytearray, str, array.array)

# Classes without the attribute nbytes: that is looked for in 2 us.
_WITHOUT_BUFFER = frozenset({int, float, str, bytes, tuple, list, dict})

# What became of trying to pickle functions lately, by what they could reach then.
_problems: dict[int, tuple[Dependencies, str]] = {}
atexit.register(_problems.clear)  # as for what dependencies knows


def shallow_bytes(value: object) -> int:
    """Estimate the size of a value without looking inside: its buffer, its length, or its own size."""
    try:
        if type(value) in _WITHOUT_BUFFER:
            return sys.getsizeof(value)
        nbytes = attribute_of(value, "nbytes")
        return nbytes if is_of(nbytes, int) else sys.getsizeof(value)
    except TypeError:
        return 64


class NotPicklable(Exception):  # noqa: N818 - a signal inside this room, never seen outside
    """Carries what cannot be pickled, in words."""


def _dump(value: Any, by_value: Callable[[Any], bytes], empty_s: float) -> tuple[int, float]:
    """
    Pickle; returns bytes, and the seconds of it and of unpickling, without the *empty_s* that any pickle takes.

    Unpickling is not tried: it runs code of the caller's classes, which may open a file or take a second.
    """
    begin = perf_counter()
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception as error:  # noqa: BLE001 - objects raise anything from __reduce__; the second pickler decides
        pass_on(error)
        by_value(None)  # the seconds of loading that pickler are not the value's
        begin = perf_counter()
        data = by_value(value)
    seconds = perf_counter() - begin - empty_s
    return len(data), (1 + bounds.LOADS_SHARE) * max(bounds.LEAST_PICKLE_S, seconds)


def _empty_s() -> float:
    """
    Return the seconds that the pickle of nothing takes now.

    Items and results travel in blocks, so one of them costs what it adds to a pickle. A number adds 15 ns; to pickle it
    alone takes .4 us, and 3 us right after other work.
    """
    pickle.dumps(None, protocol=5)  # the first one warms up
    begin = perf_counter()
    pickle.dumps(None, protocol=5)
    return perf_counter() - begin


def weigh_value(
    value: Any, by_value: Callable[[Any], bytes], most_bytes: int = bounds.WEIGH_BYTES, empty_s: float = 0.0
) -> tuple[int, float]:
    """
    Return the pickled bytes of a value, and the seconds to pickle and unpickle it beyond *empty_s* for any pickle.

    Flat buffers above *most_bytes* are extrapolated from their size, long containers from a part. Raises NotPicklable.
    """
    size = shallow_bytes(value)
    scale = 1.0
    if size > most_bytes:
        if is_of(value, _FLAT) or (attribute_of(value, "nbytes") is not None and not _has_objects(value)):
            return size, 2 * size / bounds.FLAT_BYTES_PER_S
        if type(value) in {list, tuple}:
            part = value[: max(1, len(value) * bounds.WEIGH_BYTES // size)]
            scale, value = len(value) / len(part), part
    try:
        n_bytes, seconds = _dump(value, by_value, empty_s)
    except Exception as error:
        pass_on(error)
        raise NotPicklable(f"{type(value).__qualname__}: {type(error).__name__}: {error}") from error
    return int(n_bytes * scale), seconds * scale


def _has_objects(value: Any) -> bool:
    dtype = attribute_of(value, "dtype")
    return dtype is None or bool(getattr(dtype, "hasobject", True))


def weigh(
    profile: Profile,
    items: Sequence[Any],
    results: Sequence[Any],
    by_value: Callable[[Any], bytes],
    most_bytes: int = bounds.WEIGH_BYTES,
) -> Profile:
    """Add the pickled sizes and pickling seconds of sampled items and results to a profile."""
    empty_s = _empty_s()
    try:
        outs = [weigh_value(result, by_value, most_bytes, empty_s) for result in results]
    except NotPicklable as error:
        return replace(profile, is_picklable=False, problem=str(error), result_problem=str(error))
    try:
        args = [weigh_value(item, by_value, most_bytes, empty_s) for item in items]
    except NotPicklable as error:
        profile = replace(profile, is_picklable=False, problem=str(error))
        args = [(0, 0.0)]
    arg_s = _mean([seconds for _, seconds in args])
    return replace(
        profile,
        arg_bytes=int(_mean([n for n, _ in args])),
        result_bytes=int(_mean([n for n, _ in outs])),
        arg_pickle_s=arg_s,
        pickle_s=arg_s + _mean([seconds for _, seconds in outs]),
    )


def _mean(values: Sequence[float]) -> float:
    """Return the mean; of three and more without the largest, which is a warm-up of the pickler or an interruption."""
    if len(values) > 2:
        values = sorted(values)[:-1]
    return sum(values) / len(values) if values else 0.0


def inspect_function(
    profile: Profile, func: Callable[..., Any], found: Dependencies, changed: tuple[str, ...] = ()
) -> Profile:
    """Add what the function's code, and what it was seen to change, say of outside state and of shipping it."""
    changes = {*found.effects.changes, *changed}
    if profile.n_sampled:
        # What the sample has not set up will be set up by some later item, in each worker by another one.
        changes.update(found.effects.not_set_yet)
    if not found.is_complete:
        changes.add("more than can be looked through")
    said: dict[str, Any] = {
        "mutates": tuple(sorted(changes)),
        "reads_mutable": found.reads_mutable,
        "by_seed": found.effects.by_seed,
        "func_bytes": _function_bytes(func),
    }
    known = vars(profile)
    return profile if known | said == known else replace(profile, **said)


def _function_bytes(func: Callable[..., Any]) -> int:
    """Estimate the bytes to ship a function: a name where it can be imported, else what it holds, without pickling."""
    found, bound = _function.bare(func)
    total = 100 + sum(map(_held_bytes, bound))
    if found is None or _function.is_importable(found):
        return total
    held = _function.named_values(found) if found.__module__ == "__main__" else _closure(found)
    return total + len(found.__code__.co_code) + sum(map(_held_bytes, held.values()))


def function_problem(func: Callable[..., Any], by_value: Callable[[Any], bytes]) -> str:
    """Try to pickle a function as it would be shipped, with all that it holds; returns what cannot be, or ""."""
    found = known_dependencies(func)
    known = _problems.get(id(found))
    if known is not None and known[0] is found:
        return known[1]
    problem = ""
    try:
        _ship_all(func, by_value)
    except Exception as error:  # noqa: BLE001 - objects raise anything from __reduce__
        pass_on(error)
        problem = _culprit(func, found, by_value) or f"{type(error).__name__}: {error}"
    if len(_problems) >= 256:
        _problems.clear()
    _problems[id(found)] = found, problem
    return problem


def _ship_all(func: Callable[..., Any], by_value: Callable[[Any], bytes]) -> None:
    found, bound = _function.bare(func)
    if found is None or not _function.is_importable(found) or bound or func is not found:
        by_value(func)  # a cache around a function need not have a name by which it could be imported


def _culprit(func: Callable[..., Any], found: Dependencies, by_value: Callable[[Any], bytes]) -> str:
    """Name what cannot be pickled among what a function and its helpers hold."""
    first, bound = _function.bare(func)
    held: list[tuple[str, str, Any]] = []
    for i, value in enumerate(bound):
        name = f"argument {i}" if is_of(func, functools.partial) else getattr(value, "__name__", "self")
        held.append(("the function", name, value))
    for helper in found.functions:
        owner = "the function" if helper is first else f"{helper.__name__}(), which the function uses,"
        held += [(owner, name, value) for name, value in _function.named_values(helper).items()]
    for owner, name, value in held:
        if is_of(value, types.ModuleType | type | types.BuiltinFunctionType | types.FunctionType):
            continue
        try:
            by_value(value)
        except Exception as error:  # noqa: BLE001 - as above
            pass_on(error)
            return f"what {owner} holds as {name!r}: {type(value).__qualname__}: {type(error).__name__}: {error}"
    return ""


def _closure(found: types.FunctionType) -> dict[str, Any]:
    named = _function.named_values(found)
    return {name: named[name] for name in found.__code__.co_freevars if name in named}


def _held_bytes(value: Any) -> int:
    if is_of(value, types.ModuleType | type | types.BuiltinFunctionType | types.FunctionType):
        return 100
    size = shallow_bytes(value)
    if type(value) in {list, tuple, set, frozenset} and value:
        size += len(value) * shallow_bytes(next(iter(value)))
    elif type(value) is dict and value:
        size += len(value) * sum(map(shallow_bytes, next(iter(value.items()))))
    return size
