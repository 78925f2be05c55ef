"""The items of one call: read once, in order, in the caller's thread; and the beat of a loop over them."""

from __future__ import annotations

import itertools
import math
import operator
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from amorsize import _bounds as bounds
from amorsize import _known
from amorsize import _pace as pace
from amorsize._outside import pass_on
from amorsize._wrong_call import instead_of_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

clock = time.perf_counter

# Types whose iterators know how much is left and never raise: a block of them can run as one comprehension.
PLAIN: Final[frozenset[type]] = frozenset(
    {list, tuple, range, str, bytes, bytearray, set, frozenset, dict, deque}
    | {type({}.keys()), type({}.values()), type({}.items())}
)
SLICED: Final = frozenset((list, tuple, range, str, bytes, bytearray))


class Source:
    """The items of one call: one iterator, read once, and what is known about its length."""

    __slots__ = ("data", "is_plain", "iterator", "n_items", "star")

    def __init__(self, iterables: tuple[Iterable[Any], ...], *, star: bool) -> None:
        for position, iterable in enumerate(iterables):
            kind = type(iterable)
            # A decorated function is a proxy, which has a method for everything.
            is_function = hasattr(kind, "_amorsize_unwrap")
            if is_function or not (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")):
                what = "items" if len(iterables) == 1 else f"argument {position + 1}"
                message = f"{what} must be iterable, not {kind.__name__}: {iterable!r}"
                way_out = instead_of_items(iterable, position, iterables)
                raise TypeError(f"{message}; {way_out}" if way_out else message)
        self.star = star or len(iterables) > 1
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

    @property
    def is_data(self) -> bool:
        """Whether its items are there already: no code of an iterator runs as they are read."""
        return self.is_plain or is_array(self.data)

    def rest(self, n_done: int) -> Sequence[Any]:
        """Return what is left after *n_done* items as something that can be sliced."""
        if type(self.data) in SLICED or is_array(self.data):
            rest: Sequence[Any] = self.data[n_done:] if n_done else self.data
            return rest
        return list(self.iterator)

    def read_all(self) -> int:
        """Read what is left of an input of unknown length; returns the number of items."""
        if self.n_items is None:
            self.data, self.is_plain = list(self.iterator), True
            self.n_items, self.iterator = len(self.data), iter(self.data)
        return self.n_items

    def read_ahead(self, n_done: int, box_s: float) -> bool:
        """Read an input of unknown length for at most *box_s* seconds; if that was all, its length is known then."""
        items: list[Any] = []
        begin, block, is_all = clock(), 1, False
        while not is_all and clock() - begin <= box_s:
            part = list(itertools.islice(self.iterator, block))
            items += part
            is_all = len(part) < block
            block = min(block * 2, 10_000)
        self.iterator = itertools.chain(items, self.iterator)
        if is_all:
            self.n_items, self.data, self.is_plain = n_done + len(items), None, False
        return is_all

    def is_exhausted(self) -> bool:
        """Look whether an iterator has ended, without losing an item."""
        for item in self.iterator:
            self.iterator = itertools.chain([item], self.iterator)
            return False
        return True

    def put_back(self, items: Iterable[Any]) -> None:
        """Have *items* for what is left."""
        self.iterator, self.is_plain, self.data = iter(items), False, None


def _length(iterable: Any) -> int | None:
    try:
        return len(iterable)
    except Exception as error:  # noqa: BLE001 - no length, or one that cannot be told: unknown
        pass_on(error)
        return None


def is_array(data: Any) -> bool:
    return type(data).__module__ == "numpy" and type(data).__name__ == "ndarray" and data.ndim > 0


def begins_like(data: Any, known: _known.Known) -> bool:
    """Tell whether the first item, where it can be looked at, is of the kind the remembered profile was measured on."""
    return type(data) not in SLICED or not data or known.is_like(data[0])


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
        "_block", "_clock", "_most", "_part", "_source", "_stop", "_think", "due", "first_rate_s", "item_s", "n_items",
        "position",
    )  # fmt: skip

    def __init__(
        self,
        source: Source,
        position: int,
        item_s: float,
        due: float,
        think: Callable[[Beat], float | None] | None = None,
        *,
        is_first: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """
        Begin at *position*, with a first thought *due* on the *clock*; *is_first* is a function's first call.

        *think* returns the seconds until the next one, None to end; without it, the first one ends.
        """
        self._source = source
        self._clock = clock
        self._think = think
        self._part: Iterator[Any] = source.iterator
        self.position = self._stop = position
        self.n_items = source.n_items or 0
        self.item_s = item_s
        # Seconds per item of the first block long enough to tell: what the plan of a short call goes by.
        self.first_rate_s: float | None = None
        self.due = due
        # What is remembered may be wrong for these items: start small, at most double.
        looks, least = (
            (bounds.FIRST_LOOKS, bounds.FIRST_LEAST_BLOCK) if is_first else (bounds.LOOKS, bounds.LEAST_BLOCK)
        )
        self._most = max(least, min(bounds.MOST_LOOP_BLOCK, self.n_items // looks))
        self._block = int(max(1, min(bounds.FIRST_BLOCK, self._most, bounds.BEAT_S / item_s if item_s > 0 else 1)))

    def blocks(self) -> Iterator[Iterator[Any]]:
        """Yield the items in blocks until a thought ends it."""
        source, position, n_items = self._source, self.position, self.n_items
        block, most, due, beat_s = self._block, self._most, self.due, bounds.BEAT_S
        data = source.data if type(source.data) in SLICED else None
        clock = self._clock
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
            if self.first_rate_s is None and took_s > bounds.TELLING_S:
                self.first_rate_s = took_s / (stop - position)
            item_s = took_s / (stop - position)
            if now >= due or stop == n_items:
                # A pass of the garbage collector or a lost core makes one block slow: items are slow if two blocks are.
                is_plain = took_s >= bounds.LONG_S and stop - position < bounds.MANY
                self.item_s = item_s if is_plain else min(item_s, last_s)
                self._block = min(most, pace.next_block(block, took_s, beat_s))
                self.position = stop
                wait_s = self._think(self) if self._think is not None and stop < n_items else None
                if wait_s is None:
                    return
                now = clock()
                due = now + wait_s
            last_s = item_s
            if block < most or took_s > beat_s:
                block = min(most, pace.next_block(block, took_s, beat_s))
            position, before = stop, now

    def current(self) -> int:
        """Return the index of the item that has been handed out last."""
        if self._part is self._source.iterator:
            return self.n_items - 1 - operator.length_hint(self._part)
        return self._stop - 1 - operator.length_hint(self._part)


def note_error(error: BaseException, data: Any, index: int, note: Callable[[BaseException, int, Any], None]) -> None:
    """Name the item on an exception as *note* does, given its index in data of a plain type."""
    if index < 0:
        return
    for item in itertools.islice(data, index, index + 1):
        note(error, index, item)
