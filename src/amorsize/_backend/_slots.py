"""
The caller's look at the board of a team: shared memory in which each worker writes what it is at.

Workers write their slots (_ranges), Team and Losses read them. One number of it is read and written at once; several
numbers of a slot belong together only once its worker is dead, or has been stopped.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from amorsize._backend._ranges import ACTIVE, BUSY, HI, IDLE, LIMIT, LO, NO_LIMIT, SINCE_NS, SLOT, STATE, STOP

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    import mmap


class Slots:
    """
    One slot for each worker, and before them what the caller tells all workers.

    Attributes:
        board: The memory, as numbers.
        is_open: Whether it is there.
    """

    def __init__(self, n_slots: int) -> None:
        self._n_slots = n_slots
        self._memory: mmap.mmap | None = None

    @property
    def n_bytes(self) -> int:
        """The size of the board."""
        return 8 * SLOT * (self._n_slots + 1)

    @property
    def is_open(self) -> bool:
        """Whether the board is there."""
        return self._memory is not None

    def open(self, memory: mmap.mmap) -> None:
        """Begin, with no limit and all workers at work."""
        self._memory = memory
        self.board = memoryview(memory).cast("q")
        self.board[LIMIT], self.board[ACTIVE] = NO_LIMIT, self._n_slots

    def close(self) -> None:
        """Give the memory back."""
        if self._memory is not None:
            self.board.release()
            self._memory.close()
            self._memory = None

    def forget(self) -> None:
        """Touch it no more: in a forked copy of the program it is the parent's."""
        self._memory = None

    def clear(self, slot: int) -> None:
        """Make a slot ready for a new worker."""
        for name in (STATE, LO, HI, STOP):
            self.board[SLOT * (slot + 1) + name] = 0

    def set_limit(self, index: int) -> None:
        """Tell workers to begin nothing at or after a position."""
        self.board[LIMIT] = index

    def activate(self, n: int) -> None:
        """Let *n* workers take work."""
        self.board[ACTIVE] = n

    def n_active(self) -> int:
        """Return how many workers may take work."""
        return self.board[ACTIVE]

    def is_idle(self, slot: int) -> bool:
        """Tell whether a worker waits for work."""
        return self.board[SLOT * (slot + 1) + STATE] == IDLE

    def is_busy(self, slot: int) -> bool:
        """Tell whether a worker is at an item."""
        return self.board[SLOT * (slot + 1) + STATE] == BUSY

    def bounds(self, slot: int) -> tuple[int, int, int]:
        """Return where a worker's block begins and ends, and where its range ends."""
        base = SLOT * (slot + 1)
        return self.board[base + LO], self.board[base + HI], self.board[base + STOP]

    def elapsed_s(self, slot: int) -> float:
        """Return the seconds since a worker began its block."""
        return (time.monotonic_ns() - self.board[SLOT * (slot + 1) + SINCE_NS]) / 1e9
