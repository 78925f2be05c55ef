"""
The in-flight policy as values: chunk sizes, when to split, when to cut short, when a loop should go parallel.

Fed with observed times, it reads no clock and talks to no worker, so the simulator in the tests runs this very code.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from amorsize import _cost as cost

if TYPE_CHECKING:
    from collections.abc import Sequence

# Seconds of work between two looks at the clock and at the pipe of tasks. A look costs about 1 us, so it takes 0.1 %;
# it bounds how long a worker without work waits for a share of another worker's chunk.
CHECK_S: Final = 0.001

# Seconds of serial work between two looks at whether to go parallel: long enough that a look (5 us) does not show,
# short against the 2 ms from which a forked worker pays.
LOOK_S: Final = 0.002

# Seconds of one block of a loop: a block sized before items became fifty times as long must not hide them for long.
BEAT_S: Final = LOOK_S / 4

# Items in a worker's first block at most. A sample of nothing says nothing, and doubling reaches 1,000 in six looks.
_FIRST_BLOCK: Final = 16

# Items in one block at most, so that a block of nothing measurable still ends.
_MOST_BLOCK: Final = 1 << 16


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
    """Return the items of a worker's first block: :data:`CHECK_S` of work, few while none has been timed."""
    return max(1, min(_FIRST_BLOCK, int(CHECK_S / max(item_s, 1e-9))))


def next_block(block: int, elapsed_s: float, look_s: float) -> int:
    """
    Return the items to do before the next look at the clock, aiming at *look_s* seconds.

    At most doubles, so that a fast start does not run far into slow items.
    """
    most = min(2 * block, _MOST_BLOCK)
    if elapsed_s * most <= block * look_s:
        return most
    return max(1, min(most, int(block * look_s / elapsed_s)))


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
