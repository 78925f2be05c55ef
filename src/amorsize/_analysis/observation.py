"""
Whether items change what a function can reach: its outside state before and after some of them.

What code analysis cannot see (objects of C, libraries, names looked up at run time) shows here: the state of generators
of random numbers, the position of files, how far iterators have come, lengths, attributes, the bytes of small objects.
Taken after the first item, so that what it alone sets up (a model loaded on first use, a connection) does not count.

Reads state without running code of the user's: methods of built-in and well-known types only.
"""

from __future__ import annotations

import functools
import gc
import itertools
import os
import pickle
import sys
import types
import warnings
import zlib
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import bounds, inert
from amorsize._analysis.items import Late, come_again, is_used_up
from amorsize._analysis.values import own_attributes
from amorsize._attribute import attribute_of, bases_of, is_of
from amorsize._modules import loaded
from amorsize._outside import pass_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from amorsize._analysis.dependencies import Dependencies

# The name of what several items hold in common: a generator, a file or a table that all of them bring along.
SHARED_BY_ITEMS: Final = "what its items share"

_UNREADABLE: Final = "unreadable"


class Observation:
    """The state that a function can reach, as it was; compared with what it is later."""

    def __init__(
        self,
        found: Dependencies,
        shared: Sequence[Any] = (),
        *,
        pickles: bool = True,
        whole: bool = False,
        is_of_input: bool = False,
    ) -> None:
        """
        Take the state.

        Args:
            found: What the function can reach.
            shared: What several items hold in common.
            pickles: Whether objects of C may be pickled to see their state.
            whole: Whether to look at what the code is known to leave alone, too: whether others have changed it.
            is_of_input: Whether the input may change it: the same, and settings, but not generators, from which
                it may draw.
        """
        # What its code is known to leave alone needs no look else: other threads may change it meanwhile.
        is_watched, whole = found.needs_watching, whole or is_of_input
        self._mutable = [(one.path, one.value) for one in found.mutable if is_watched or whole]
        self._mutable += [(SHARED_BY_ITEMS, one) for one in shared]
        self._bindings = [(names, name) for names, name, _ in found.bindings if is_watched or whole]
        self._bindings += [(names, name) for names, name, *_ in found.held if is_of_input]
        self._generators = GENERATORS if is_watched and not is_of_input else ()
        self._has_settings = is_watched or is_of_input
        self._pickles = pickles
        self._before = self._take()

    def _take(self) -> list[tuple[Any, Any]]:
        """Return the state of each thing, and what must stay alive so that identities stay comparable."""
        states = [_state(value, pickles=self._pickles) for _, value in self._mutable]
        for names, name in self._bindings:
            value = names.get(name, None)  # a cell of a closure asks for the default
            states.append((_of_value(value), value))
        states += [_shared_generator(name) for name in self._generators]
        states.append((_process_settings() if self._has_settings else None, None))
        return states

    def changed(self) -> tuple[str, ...]:
        """Return the names of what is no longer as it was."""
        now = self._take()
        paths = [path for path, _ in self._mutable]
        paths += [name for _, name in self._bindings]
        paths += [*(f"the generator of {name}" for name in self._generators), _SETTINGS]
        return tuple(
            dict.fromkeys(
                path for path, (before, _), (after, _) in zip(paths, self._before, now, strict=True) if before != after
            )
        )


GENERATORS: Final = ("random", "numpy.random")


def shared_generators() -> dict[str, Any]:
    """Return the states of the generators that all functions of a module draw from."""
    return {f"the generator of {name}": _shared_generator(name)[0] for name in GENERATORS}


def _shared_generator(name: str) -> tuple[Any, Any]:
    """Return the state of the generator that all functions of a module draw from, None where it is not loaded."""
    if name == "random":
        module = loaded("random")  # not imported here: it takes 4 ms, and where it is not, nobody draws from it
        return (None, None) if module is None else (module.getstate(), None)
    numpy = loaded("numpy.random.mtrand")
    return (None, None) if numpy is None else (_numpy_state(numpy._rand), None)  # noqa: SLF001 - NumPy's name for it


_SETTINGS: Final = "settings of the process"


def _process_settings() -> Any:
    """Return what holds for the whole process and results may depend on, of what has been imported."""
    decimal, numpy, locale = loaded("decimal"), loaded("numpy"), loaded("locale")
    return (
        warnings.filters[:8],
        sys.getrecursionlimit(),
        sys.get_int_max_str_digits(),
        gc.isenabled(),
        gc.get_threshold(),
        _directory(),
        os.environ.copy(),
        None if decimal is None else repr(decimal.getcontext()),
        None if numpy is None else numpy.geterr(),
        None if locale is None else locale.setlocale(locale.LC_ALL),
    )


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return ""


def _of_value(value: Any) -> Any:
    """Return what stands for a value inside something: itself where it is plain, else which object it is."""
    return value if type(value) in inert.SCALARS and value == value else id(value)  # noqa: PLR0124 - NaN


def _state(value: Any, *, pickles: bool) -> tuple[Any, Any]:  # noqa: C901, PLR0911 - one per kind of object
    """Return something that compares equal while a value's own state is the same, and what keeps it comparable."""
    kind = inert.kind_of_class(type(value))
    try:
        if kind == "container":
            return _container(value)
        if kind == "object":
            return _attributes(value)
        if kind == "array":
            return (value.shape, str(value.dtype), _bytes_of(value)), None
        if kind == "generator":
            return _generator(value), None
        if kind == "iterator":
            return _iterator(value), None
        if is_of(value, bytearray | memoryview):
            return _checksum(value), None
        if attribute_of(value, "digest") and attribute_of(value, "hexdigest"):
            return value.digest(), None
        if kind == "state":
            return _stream(value), None
        if kind == "data":
            return _data(value), None
        version = attribute_of(value, "_version")  # a tensor of torch counts its changes
        if is_of(version, int):
            return version, None
    except Exception as error:  # noqa: BLE001 - whatever is odd about it: it cannot be read
        pass_on(error)
        return _UNREADABLE, None
    return (_pickled(value), None) if pickles else (_UNREADABLE, None)


def _container(value: Any) -> tuple[Any, Any]:
    if is_of(value, types.SimpleNamespace):
        return _attributes(value)
    own = _attributes(value) if inert.is_python_class(type(value)) else ((), ())
    if is_of(value, dict):
        items: list[Any] = [x for pair in dict.items(value) for x in pair]
    elif is_of(value, types.MappingProxyType):
        items = [x for pair in value.items() for x in pair]
    else:
        base: Any = next(b for b in bases_of(type(value)) if b in inert.CONTAINERS)
        items = list(base.__iter__(value))
    if len(items) > bounds.MOST_COMPARED:
        half = bounds.MOST_COMPARED // 2
        items = [*items[:half], len(items), *items[-half:]]
    return (list(map(_of_value, items)), own[0]), (items, own[1])


def _attributes(value: Any) -> tuple[Any, Any]:
    held = dict(own_attributes(value))
    return {name: _of_value(inner) for name, inner in held.items()}, held


def _bytes_of(array: Any) -> Any:
    if array.dtype.hasobject:
        return [id(x) for x in array.flat[: bounds.MOST_COMPARED]]
    if array.nbytes <= bounds.WHOLE_BYTES:
        return zlib.crc32(array.tobytes())
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    n = max(1, bounds.END_BYTES // array.itemsize)
    step = max(1, array.size // n)
    return tuple(zlib.crc32(part.tobytes()) for part in (flat[:n], flat[-n:], flat[::step][:n]))


def _checksum(value: Any) -> Any:
    with memoryview(value) as view:
        if view.nbytes <= bounds.WHOLE_BYTES:
            return view.nbytes, zlib.crc32(view)
        return view.nbytes, zlib.crc32(view[: bounds.END_BYTES]), zlib.crc32(view[-bounds.END_BYTES :])


def _generator(value: Any) -> Any:
    module = loaded("random")
    if module is not None and is_of(value, module.Random):
        return module.Random.getstate(value)
    return _numpy_state(value)


def _numpy_state(value: Any) -> Any:
    bits = getattr(value, "_bit_generator", None) or getattr(value, "bit_generator", None) or value
    return pickle.dumps(bits.state)


def _iterator(value: Any) -> Any:
    frame = getattr(value, "gi_frame", None) or getattr(value, "cr_frame", None)
    if frame is not None:
        return frame.f_lasti, {name: _of_value(inner) for name, inner in frame.f_locals.items()}
    if type(value).__name__ in {"count", "repeat"}:
        return repr(value)
    hint = getattr(type(value), "__length_hint__", None)
    if hint is not None:
        return hint(value)
    if is_of(value, types.GeneratorType | types.CoroutineType):
        return "ended"
    return _UNREADABLE


def _stream(value: Any) -> Any:
    if attribute_of(value, "locked"):
        return value.locked()
    if attribute_of(value, "closed") is True:
        return "closed"
    if attribute_of(value, "total_changes") is not None:
        return value.total_changes
    return value.tell() if attribute_of(value, "tell") else _UNREADABLE


def _data(value: Any) -> Any:
    shape, columns = attribute_of(value, "shape"), attribute_of(value, "columns")
    return shape, None if columns is None else [str(c) for c in columns[: bounds.MOST_COMPARED]]


def _pickled(value: Any) -> Any:
    """Return the checksum of a small object's pickle; only of types whose pickling is not written in Python."""
    kind: Any = type(value)
    reduce = getattr(kind, "__reduce_ex__", None)
    if is_of(reduce, types.FunctionType) or is_of(getattr(kind, "__getstate__", None), types.FunctionType):
        return _UNREADABLE
    try:
        if kind.__sizeof__(value) > bounds.PICKLED_BYTES:
            return _UNREADABLE
        return zlib.crc32(pickle.dumps(value, protocol=5))
    except Exception as error:  # noqa: BLE001 - it cannot be pickled: nothing is known of its state
        pass_on(error)
        return _UNREADABLE


def shared_by(items: Iterable[Any]) -> list[Any]:
    """Return what several items hold in common and can change: a file, a generator or a table that they share."""
    counts: dict[int, int] = {}
    values: dict[int, Any] = {}
    for item in items:
        held = {} if type(item) in inert.SCALARS else within(item)
        values |= held
        for key in held:
            counts[key] = counts.get(key, 0) + 1
    return [values[key] for key, count in counts.items() if count > 1 and not is_of(values[key], tuple | frozenset)]


def reached_by(items: Iterable[Any], found: Dependencies) -> list[Any]:
    """Return what items hold, or are views of, that the function has under another name: rows of a table it reads."""
    held = {id(one): one for item in items for value in within(item).values() for one in _with_base(value)}
    reached: dict[int, Any] = {}
    for one in found.mutable if held else ():
        # What is in a container may have been replaced since the function was looked at.
        inner = _ends(one.value) if type(one.value) in {list, dict} else ()
        named = map(id, itertools.chain.from_iterable(map(_with_base, (one.value, *inner))))
        reached |= {key: held[key] for key in named if key in held}
    return [*reached.values()]


def _with_base(value: Any) -> tuple[Any, ...]:
    """Return a value, and the array that it is a view of."""
    base = attribute_of(value, "base") if inert.kind_of_class(type(value)) == "array" else None
    return (value,) if base is None else (value, base)


def _ends(container: Any) -> list[Any]:
    """Return the first and the last values of a list or a dictionary."""
    values = list(container.values() if type(container) is dict else container)
    half = bounds.MOST_COMPARED // 2
    return values if len(values) <= bounds.MOST_COMPARED else [*values[:half], *values[-half:]]


def share_later(data: Sequence[Any], n_first: int, first: Sequence[Any], found: Dependencies) -> bool:
    """
    Tell whether items that are not watched share what the function changes in place, or uses up.

    What it sets attributes of, only such an item may be the first to change, though those that are watched share it.
    The first *n_first* of *data* are watched; *first* are some of them, with what tells the kinds of the later ones:
    see items.of_each_kind.
    """
    kinds = found.effects.alters
    if not kinds and not any(map(is_used_up, {type(one.value if type(one) is Late else one) for one in first})):
        return False
    if not come_again(data, n_first, kinds):
        return False
    # Once more item by item: within one, an object may be met more than once.
    watched = {id(one) for one in shared_by(data[:n_first])}
    later = data[n_first : n_first + bounds.MOST_COMPARED], data[-bounds.MOST_COMPARED :]
    return any(
        type(one) in kinds or (is_used_up(type(one)) and id(one) not in watched)
        for items in later
        for one in shared_by(items)
    )


# Functions of an object; those of a module have that for their object, which is nothing that an item brings along.
_BOUND: Final = frozenset({types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType})


def within(item: Any) -> dict[int, Any]:
    """Return what may be changed in an item, by identity: what it is, its values and attributes, and theirs."""
    found: dict[int, Any] = {}
    layer = [item]
    for _ in range(bounds.MOST_DEEP):
        inner: list[Any] = []
        for value in layer:
            if type(value) in inert.SCALARS or id(value) in found:
                continue
            if type(value) in _BOUND:
                inner.append(value.__self__)
                continue
            if type(value) is functools.partial:
                inner += itertools.islice((value.func, *value.args, *value.keywords.values()), bounds.MOST_IN_ITEM)
                continue
            kind = inert.kind_of_class(type(value))
            if kind in {"immutable", "callable"}:
                continue
            found[id(value)] = value
            held: Iterable[Any] = ()
            if type(value) in {tuple, list}:
                held = value
            elif type(value) is dict:
                held = value.values()
            elif kind == "object" or type(value) is types.SimpleNamespace:
                held = (one for _, one in own_attributes(value))
            inner += itertools.islice(held, bounds.MOST_IN_ITEM)
        layer = inner[: bounds.MOST_LAYER]
    return found
