"""The items of one call: read once, in order, in the caller's thread; and the beat of a loop over them."""

from __future__ import annotations

import itertools
import math
import operator
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from amorsize import _profile
from amorsize import _schedule as schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

clock = time.perf_counter

# Seconds of a block from which its rate is worth more than five items timed one by one.
_TELLING_S: Final = 100e-6

# Looks at the clock in one loop at least, and items that are not worth a look in between; of a function that is known,
# and in its first call. After a change of cost the rest of a block runs unwatched: a thousand items of nothing before
# 400 of 3 ms take 15 % more than the best plan with 20 looks, 11 % with 40. But a look costs 0.4 us.
_LOOKS, _LEAST_BLOCK = 20, 32
_FIRST_LOOKS, _FIRST_LEAST_BLOCK = 64, 16

# Items in the first block of a loop at most.
_FIRST_BLOCK: Final = 256

# Items in one block at most: slices of more than 128 kB are mapped and unmapped by the allocator each time, which made
# a loop over a million items a quarter slower.
_MOST_BLOCK: Final = 8192

# Items in a block from which its rate is that of many, whatever single ones take; and seconds of a block of fewer from
# which it is slow for nothing but its items: a lost core or a pass of the garbage collector over a hundred thousand
# objects takes 10 ms. (Parsing rows of 0.35 ms, one of 0.8 looked like a reason to start workers, which took 25 ms
# longer than the loop.)
_MANY: Final = 64
_LONG_S: Final = 0.02

# Types whose iterators know how much is left and never raise: a block of them can run as one comprehension.
PLAIN: Final[frozenset[type]] = frozenset(
    {list, tuple, range, str, bytes, bytearray, set, frozenset, dict, deque}
    | {type({}.keys()), type({}.values()), type({}.items())}
)
SLICED: Final = frozenset((list, tuple, range, str, bytes, bytearray))


class Source:
    """The items of one call: one iterator, read once, and what is known about its length."""

    __slots__ = ("data", "is_plain", "iterator", "n_items", "n_read", "star")

    def __init__(self, iterables: tuple[Iterable[Any], ...], *, star: bool) -> None:
        for position, iterable in enumerate(iterables):
            if not hasattr(type(iterable), "__iter__") and not hasattr(type(iterable), "__getitem__"):
                which = "" if len(iterables) == 1 else f" {position + 1}"
                message = f"argument{which} of map must be iterable, not {type(iterable).__name__}: {iterable!r}"
                raise TypeError(message)
        self.star = star or len(iterables) > 1
        self.n_read = 0
        if len(iterables) == 1:
            self.data: Any = iterables[0]
            self.is_plain = type(self.data) in PLAIN
            self.n_items = _length(self.data)
            self.iterator: Iterator[Any] = iter(self.data)
        else:
            self.data = None
            self.is_plain = False
            lengths = [_length(iterable) for iterable in iterables]
            known = [length for length in lengths if length is not None]
            self.n_items = min(known) if len(known) == len(lengths) else None
            self.iterator = zip(*iterables, strict=False)

    def rest(self, n_done: int) -> Sequence[Any]:
        """Return what is left after *n_done* items as something that can be sliced."""
        if type(self.data) in SLICED or is_array(self.data):
            rest: Sequence[Any] = self.data[n_done:] if n_done else self.data
            return rest
        return list(self.iterator)

    def read(self, box_s: float) -> tuple[list[Any], bool]:
        """Read ahead for at most *box_s* seconds; returns the items and whether that was all."""
        items: list[Any] = []
        begin, block = clock(), 1
        while True:
            part = list(itertools.islice(self.iterator, block))
            items += part
            if len(part) < block:
                return items, True
            if clock() - begin > box_s:
                return items, False
            block = min(block * 2, 10_000)


def _length(iterable: Any) -> int | None:
    try:
        return len(iterable)
    except Exception:  # noqa: BLE001 - no length, or one that cannot be told: unknown
        return None


def is_array(data: Any) -> bool:
    return type(data).__module__ == "numpy" and type(data).__name__ == "ndarray" and data.ndim > 0


class Beat:
    """
    The items of a loop, handed out in blocks, with a look at the clock between two of them.

    One comprehension runs over all blocks, ``[f(x) for block in beat.blocks() for x in block]``; it ends when the items
    do or when a thought says so. Thinking between two blocks and not between two comprehensions saves joining their
    lists, which for a million items takes a third of the loop's time in fresh pages of memory. What can be sliced is
    handed out as slices, which costs 1 to 2 ns per item over iterating the data itself; counting along one iterator
    costs 2 to 3.
    """

    __slots__ = (
        "_block",
        "_most",
        "_part",
        "_source",
        "_stop",
        "_think",
        "due",
        "first_rate_s",
        "item_s",
        "n_items",
        "position",
    )

    def __init__(
        self,
        source: Source,
        position: int,
        item_s: float,
        due: float,
        think: Callable[[Beat], float | None] | None = None,
        *,
        is_first: bool = False,
    ) -> None:
        """
        Begin at *position*, with a first thought *due* on the clock; *is_first* is a function's first call.

        *think* returns the seconds until the next one, None to end; without it, the first one ends.
        """
        self._source = source
        self._think = think
        self._part: Iterator[Any] = source.iterator
        self.position = self._stop = position
        self.n_items = source.n_items or 0
        self.item_s = item_s
        # Seconds per item of the first block long enough to tell: what the plan of a short call goes by.
        self.first_rate_s: float | None = None
        self.due = due
        # What is remembered may be wrong for these items: start small, at most double.
        looks, least = (_FIRST_LOOKS, _FIRST_LEAST_BLOCK) if is_first else (_LOOKS, _LEAST_BLOCK)
        self._most = max(least, min(_MOST_BLOCK, self.n_items // looks))
        self._block = int(max(1, min(_FIRST_BLOCK, self._most, schedule.BEAT_S / item_s if item_s > 0 else 1)))

    def blocks(self) -> Iterator[Iterator[Any]]:
        """Yield the items in blocks until a thought ends it."""
        source, position, n_items = self._source, self.position, self.n_items
        block, most, due, beat_s = self._block, self._most, self.due, schedule.BEAT_S
        data = source.data if type(source.data) in SLICED else None
        before, last_s = clock(), math.inf
        while position < n_items:
            stop = self._stop = min(n_items, position + block)
            if data is None:
                yield itertools.islice(source.iterator, stop - position)
            else:
                part = self._part = iter(data[position:stop])
                yield part
            now = clock()
            took_s = now - before
            if self.first_rate_s is None and took_s > _TELLING_S:
                self.first_rate_s = took_s / (stop - position)
            item_s = took_s / (stop - position)
            if now >= due or stop == n_items:
                # A pass of the garbage collector or a lost core makes one block slow: items are slow if two blocks are.
                is_plain = took_s >= _LONG_S and stop - position < _MANY
                self.item_s = item_s if is_plain else min(item_s, last_s)
                self._block = min(most, schedule.next_block(block, took_s, beat_s))
                self.position = stop
                wait_s = self._think(self) if self._think is not None and stop < n_items else None
                if wait_s is None:
                    return
                now = clock()
                due = now + wait_s
            last_s = item_s
            if block < most or took_s > beat_s:
                block = min(most, schedule.next_block(block, took_s, beat_s))
            position, before = stop, now

    def current(self) -> int:
        """Return the index of the item that has been handed out last."""
        if self._part is self._source.iterator:
            return self.n_items - 1 - operator.length_hint(self._part)
        return self._stop - 1 - operator.length_hint(self._part)


def note_error(error: BaseException, data: Any, index: int) -> None:
    """Name the item on an exception, given its index in data of a plain type."""
    if index < 0:
        return
    for item in itertools.islice(data, index, index + 1):
        _profile.add_item_note(error, index, item)
