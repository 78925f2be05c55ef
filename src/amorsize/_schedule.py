"""
The in-flight policy as values: chunk sizes, when to split, when to cut short, when a loop should go parallel.

Fed with observed times, it reads no clock and talks to no worker, so the simulator in the tests runs this very code.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amorsize import _cost as cost

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(slots=True, eq=False, repr=False, match_args=False)
class Chunker:
    """
    Sizes of the next chunks: factoring with a floor and a ceiling, corrected by the times measured in workers.

    The sizes are those of :func:`amorsize._cost.next_chunk`.

    Attributes:
        n_workers: Workers that share the work.
        item_s: Seconds per item, the profile's at first; see :meth:`observe`.
        batch_overhead_s: Seconds one more chunk costs.
        fixed: Exact size the caller asked for, or None.
    """

    n_workers: int
    item_s: float
    batch_overhead_s: float
    fixed: int | None = None
    _round: tuple[int, int] = (0, 0)

    def size(self, n_left: int) -> int:
        """Return the items of the next chunk, at least 1 while anything is left, never more than is left."""
        if n_left <= 0:
            return 0
        if self.fixed is not None:
            return min(self.fixed, n_left)
        size, n_chunks = self._round
        if not n_chunks:
            size, n_chunks = cost.next_chunk(n_left, self.n_workers, self.item_s, self.batch_overhead_s)
        self._round = (size, n_chunks - 1)
        return min(size, n_left)

    def observe(self, n_items: int, elapsed_s: float) -> None:
        """Take in a finished chunk; a new observation counts half, so a change of regime shows after two chunks."""
        if n_items > 0 and elapsed_s >= 0:
            self.item_s = (self.item_s + elapsed_s / n_items) / 2

    @property
    def quantum_s(self) -> float:
        """
        Seconds after which a chunk is cut short and its worker sends home what it has.

        More than :data:`amorsize._cost.QUANTUM_S` only where one more chunk costs 0.8 ms or more, as on a cluster.
        """
        return max(cost.QUANTUM_S, cost.dispatch_floor_s(self.batch_overhead_s, self.n_workers) / cost.SIZED)


def split(current: int, stop: int) -> int:
    """
    Return where a worker cuts its remaining items when another one has no work: it keeps the first half.

    Halving until nothing is left to halve bounds the tail by about ``log2(m) + 2`` looks, with m the items a worker has
    left, and the longest item, for every distribution (lazy binary splitting, Tzannes, Caragea, Barua and Vishkin
    2010).
    """
    return current + math.ceil((stop - current) / 2)


def first_block(item_s: float) -> int:
    """Return the items of a worker's first block: :data:`amorsize._cost.CHECK_S` of work, few at first."""
    return max(1, min(cost.FIRST_BLOCK, int(cost.CHECK_S / max(item_s, 1e-9))))


def next_block(block: int, elapsed_s: float, look_s: float) -> int:
    """
    Return the items to do before the next look at the clock, aiming at *look_s* seconds.

    At most doubles, so that a fast start does not run far into slow items.
    """
    most = min(2 * block, cost.MOST_BLOCK)
    if elapsed_s * most <= block * look_s:
        return most
    return max(1, min(most, int(block * look_s / elapsed_s)))


def next_look_s(rest_s: float, elapsed_s: float, *, is_never_worth: bool) -> float:
    """
    Return the seconds until a loop looks again at whether to go parallel.

    If no workers can shorten the rest, only its growing is news.
    """
    usual_s = max(cost.LOOK_S, elapsed_s / 8)
    return max(usual_s, 1.5 * rest_s) if is_never_worth else usual_s


class Stretch:
    """
    A process's way through one range of items: how far before the next look, when to send, what to give away.

    Attributes:
        current: The next item.
        stop: Where the range ends, nearer once a part of it has been given away.
        block: Items before the next look at the clock.
    """

    __slots__ = ("_is_fixed", "_is_single", "_sent_at", "block", "current", "stop")

    def __init__(self, start: int, stop: int, block: int, now: float, *, is_fixed: bool, is_single: bool) -> None:
        """
        Begin.

        Args:
            start: The first item.
            stop: The one behind the last.
            block: Items before the first look.
            now: Seconds on the clock.
            is_fixed: Whether the caller asked for ranges of this size: nothing is given away.
            is_single: Whether each item goes home by itself, since its time is limited.
        """
        self.current, self.stop, self.block, self._sent_at = start, stop, block, now
        self._is_fixed, self._is_single = is_fixed, is_single

    @property
    def high(self) -> int:
        """Where the next block ends."""
        return min(self.stop, self.current + self.block)

    def ran(self, n_items: int, took_s: float) -> None:
        """Take in a block."""
        self.current += n_items
        if n_items == self.block and not self._is_single:
            self.block = next_block(self.block, took_s, cost.CHECK_S)

    def must_send(self, now: float) -> bool:
        """Tell whether what there is goes home now."""
        return self._is_single or now - self._sent_at >= cost.QUANTUM_S

    def sent(self, now: float) -> None:
        """Take note that it has gone."""
        self._sent_at = now

    @property
    def may_share(self) -> bool:
        """Whether a part of it can be given to another process that has nothing."""
        return self.stop - self.current > 1 and not self._is_fixed

    def half(self) -> tuple[int, int]:
        """Return the part to give away."""
        return split(self.current, self.stop), self.stop


class Quantum:
    """How far a worker goes in one chunk: until the chunk is done, or its quantum nearly over."""

    __slots__ = ("_look_s", "_quantum_s", "block")

    def __init__(self, quantum_s: float, block: int, look_s: float) -> None:
        """Begin; looks at the clock every *look_s*, four times in a quantum at least."""
        self.block, self._quantum_s, self._look_s = block, quantum_s, min(quantum_s / 4, look_s)

    def goes_on(self, n_done: int, elapsed_s: float) -> bool:
        """Tell whether there is time for another block; for one there is always."""
        return not n_done or elapsed_s < self._quantum_s - self._look_s

    def ran(self, took_s: float) -> None:
        """Take in a block."""
        self.block = next_block(self.block, took_s, self._look_s)


class Ranges:
    """Index ranges still to be handed out, in order; what comes back goes first."""

    __slots__ = ("_ranges", "n_left")

    def __init__(self, start: int, stop: int, *, without: Sequence[int] = ()) -> None:
        self._ranges: deque[tuple[int, int]] = deque()
        self.n_left = 0
        for index in (*sorted(without), stop):
            if index > start:
                self.give_last(start, index)
            start = index + 1

    def take(self, n_items: int) -> tuple[int, int] | None:
        """Take up to *n_items* neighbours off the front."""
        if not self._ranges or n_items < 1:
            return None
        start, stop = self._ranges.popleft()
        middle = min(stop, start + n_items)
        if middle < stop:
            self._ranges.appendleft((middle, stop))
        self.n_left -= middle - start
        return start, middle

    def give_back(self, start: int, stop: int) -> None:
        """Put a range back in front."""
        if stop > start:
            self._ranges.appendleft((start, stop))
            self.n_left += stop - start

    def give_last(self, start: int, stop: int) -> None:
        """Add a range at the end; it grows the last one where it continues it."""
        if self._ranges and self._ranges[-1][1] == start:
            self._ranges[-1] = (self._ranges[-1][0], stop)
        else:
            self._ranges.append((start, stop))
        self.n_left += stop - start

    def drop_from(self, index: int) -> None:
        """Forget every item at *index* and after it."""
        kept = [(start, min(stop, index)) for start, stop in self._ranges if start < index]
        self._ranges = deque(kept)
        self.n_left = sum(stop - start for start, stop in kept)


def cut_up(
    n_items: int, chunker: Chunker, first: Sequence[int], most_items: int | None, most_tokens: int
) -> list[tuple[int, int]]:
    """
    Cut a map into ranges, the first of them first.

    Args:
        n_items: All items.
        chunker: Says their sizes.
        first: Positions to begin with, each alone.
        most_items: Items in one range at most, None where that does not matter.
        most_tokens: Ranges from which on the others are as long as it takes for no more than as many again.
    """
    is_fixed = chunker.fixed is not None
    found = [(i, i + 1) for i in first]
    ranges = Ranges(0, n_items, without=first)
    most = None if is_fixed else most_items
    while (token := ranges.take(min(chunker.size(ranges.n_left), most or n_items))) is not None:
        found.append(token)
        if not is_fixed and len(found) >= most_tokens:
            chunker.fixed = chunker.fixed or math.ceil(ranges.n_left / most_tokens)
            most = None
    return found


def should_promote(item_s: float, n_left: int | None, elapsed_s: float, costs_s: float, gain: float) -> bool:
    """
    Decide whether a running loop should hand the rest to workers.

    Args:
        item_s: Seconds per item of late.
        n_left: Items left, None if unknown.
        elapsed_s: Seconds of serial work so far.
        costs_s: Seconds that starting the workers takes.
        gain: Share of each item's seconds that workers save, at most 1.

    Returns:
        With a known length, whether the saving exceeds the cost with the margin of the first decision. With an
        unknown one, the break-even rule of ski rental: once as much has been done as would have paid for the start.
    """
    if gain <= 0:
        return False
    if n_left is None:
        return elapsed_s * gain > costs_s
    rest_s = item_s * n_left
    return rest_s * (gain - cost.MARGIN) > costs_s
