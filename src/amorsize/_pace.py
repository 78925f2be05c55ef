"""
The pace of whoever computes, a worker or the loop: how far before the next look, when to send, what to give away.

Fed with observed times, it reads no clock and talks to nobody, so the simulator in the tests runs this very code. Apart
from :mod:`amorsize._schedule`, since it is all that workers need of it: that one imports the model of costs and its
records, an eighth of what a fresh worker would import.
"""

from __future__ import annotations

import math

from amorsize import _bounds as bounds


def split(current: int, stop: int) -> int:
    """
    Return where a worker cuts its remaining items when another one has no work: it keeps the first half.

    Halving until nothing is left to halve bounds the tail by about ``log2(m) + 2`` looks, with m the items a worker has
    left, and the longest item, for every distribution (lazy binary splitting, Tzannes, Caragea, Barua and Vishkin
    2010).
    """
    return current + math.ceil((stop - current) / 2)


def first_block(item_s: float) -> int:
    """Return the items of a worker's first block: :data:`amorsize._bounds.CHECK_S` of work, few at first."""
    return max(1, min(bounds.WORKER_BLOCK, int(bounds.CHECK_S / max(item_s, 1e-9))))


def next_block(block: int, elapsed_s: float, look_s: float) -> int:
    """
    Return the items to do before the next look at the clock, aiming at *look_s* seconds.

    At most doubles, so that a fast start does not run far into slow items.
    """
    most = min(2 * block, bounds.MOST_BLOCK)
    if elapsed_s * most <= block * look_s:
        return most
    return max(1, min(most, int(block * look_s / elapsed_s)))


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
        """Begin at *now*; nothing is given away if the size *is_fixed*, and *is_single* items go home one by one."""
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
            self.block = next_block(self.block, took_s, bounds.CHECK_S)

    def must_send(self, now: float) -> bool:
        """Tell whether what there is goes home now."""
        return self._is_single or now - self._sent_at >= bounds.QUANTUM_S

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
