"""
The in-flight policy of the caller as values: chunk sizes, what is left, when a loop should go parallel.

Fed with observed times, it reads no clock and talks to no worker, so the simulator in the tests runs this very code.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amorsize import _bounds as bounds
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

        More than :data:`amorsize._bounds.QUANTUM_S` only where one more chunk costs 0.8 ms or more, as on a cluster.
        """
        return max(bounds.QUANTUM_S, cost.dispatch_floor_s(self.batch_overhead_s, self.n_workers) / cost.SIZED)


def next_look_s(rest_s: float, elapsed_s: float, *, is_never_worth: bool) -> float:
    """
    Return the seconds until a loop looks again at whether to go parallel.

    If no workers can shorten the rest, only its growing is news.
    """
    usual_s = max(bounds.LOOK_S, elapsed_s / 8)
    return max(usual_s, 1.5 * rest_s) if is_never_worth else usual_s


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
    Cut a map into ranges: the positions to begin with, each alone, then as the chunker says.

    A range has at most *most_items*. From *most_tokens* ranges on, the others are so long that no more than as many
    again follow.
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
    Decide whether a running loop should hand the rest to workers, which save a share *gain* of each item's seconds.

    With a known length, whether the saving exceeds *costs_s*, the seconds of their start, with the margin of the first
    decision. With an unknown one, the break-even rule of ski rental: once as much has been done as would have paid for
    the start.
    """
    if gain <= 0:
        return False
    if n_left is None:
        return elapsed_s * gain > costs_s
    rest_s = item_s * n_left
    return rest_s * (gain - cost.MARGIN) > costs_s
