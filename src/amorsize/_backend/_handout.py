"""
The ranges of one map that nobody has begun: those in the pipe that all workers share, and those that wait for it.

Used by Team, and by Losses for what dead workers had taken. Each position that was handed in is in one place: in the
pipe, in the backlog, with the caller, or taken; only positions that nobody wants any more are dropped. Neither end of
the pipe ever blocks. Where items are packed (the fork server's workers), that happens as their range is posted.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import sys
import termios
from typing import TYPE_CHECKING, Protocol

from amorsize import _schedule as schedule
from amorsize._backend import _bounds as bounds
from amorsize._backend._ranges import END, TOKEN
from amorsize._warn import warn

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    from amorsize._backend._job import Job


class Packer(Protocol):
    """
    What the hand-out asks of a crew: see :class:`~amorsize._backend._crew.Crew`.

    Attributes:
        packs: Whether items are packed before their range is posted.
        most_items: Items in one range at most, None where that does not matter.
    """

    packs: bool
    most_items: int | None

    def pack(self, start: int, stop: int) -> bool:
        """Make items readable for workers; returns whether they can be sent."""
        ...


class Handout:
    """
    The ranges of one map, and the pipe in which workers find them.

    Attributes:
        fds: Both ends of the pipe; empty before it is opened, and after it has been closed.
        backlog: Ranges that wait for room in the pipe; the last of them is the next.
        mine: Ranges that only the caller can do.
        is_alone: Whether the caller does all that is left, and nothing goes to workers any more.
    """

    def __init__(self, job: Job, crew: Packer, n_slots: int) -> None:
        self._job, self._crew, self._n_slots = job, crew, n_slots
        self._told = False
        self._empty = select.poll()
        self.fds: list[int] = []
        self.backlog: list[tuple[int, int]] = []
        self.mine: list[tuple[int, int]] = []
        self.is_alone = False

    def open(self) -> None:
        """
        Make the pipe.

        Raises:
            OSError: If the system refuses it.
        """
        self.task_r, self.task_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.fds += [self.task_r, self.task_w]
        self._most_tokens = min(bounds.MOST_TOKENS, fcntl.fcntl(self.task_w, fcntl.F_GETPIPE_SZ) // TOKEN.size // 2)
        self._empty.register(self.task_r, select.POLLIN)

    def close(self) -> None:
        """Give the pipe back."""
        for fd in self.fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.fds.clear()

    def post_all(self) -> None:
        """Cut the work into tokens and write as many as the pipe holds."""
        chunker = schedule.Chunker(self._job.n_jobs, self._job.item_s, self._job.batch_overhead_s, self._job.batch_size)
        most = self._crew.most_items if self._job.batch_size is None else None
        self.backlog = [(i, i + 1) for i in self._job.first]
        ranges = schedule.Ranges(0, len(self._job.items), without=self._job.first)
        while (token := ranges.take(_least(chunker.size(ranges.n_left), most))) is not None:
            self.backlog.append(token)
            if self._job.batch_size is None and len(self.backlog) >= bounds.MOST_TOKENS:
                chunker.fixed = chunker.fixed or math.ceil(ranges.n_left / bounds.MOST_TOKENS)
                most = None
        self.backlog.reverse()
        self.post_backlog()

    def post_backlog(self) -> None:
        """Write tokens, never more than the pipe can hold, nor than are wanted ahead where items must be packed."""
        if self.is_alone:
            return
        most, part = self._most_tokens, bounds.PART_TOKENS
        if self._crew.packs:
            part = self._n_slots
            is_long = self._job.caller_computes and self._job.item_s >= bounds.LONG_ITEM_S
            most = most if is_long else min(most, bounds.PACKED_AHEAD * self._n_slots)
        while self.backlog and (room := most - self.n_posted()) > 0:
            self.post_some([self.backlog.pop() for _ in range(min(part, room, len(self.backlog)))])

    def post_some(self, tokens: list[tuple[int, int]]) -> None:
        """Write a few tokens; items that cannot be sent are the caller's."""
        sent = [token for token in tokens if self._is_packed(token)]
        try:
            if sent:
                os.write(self.task_w, b"".join(TOKEN.pack(*token) for token in sent))
        except BlockingIOError:
            self.backlog += reversed(sent)

    def _is_packed(self, token: tuple[int, int]) -> bool:
        """Tell whether a range can go to workers; parts of it that cannot be pickled are left to the caller."""
        if not self._crew.packs or self._crew.pack(*token):
            return True
        start, stop = token
        if stop - start == 1:
            self.keep_here(start, stop, "it cannot be sent")
        else:
            middle = (start + stop) // 2
            self.backlog += [(middle, stop), (start, middle)]
        return False

    def keep_here(self, start: int, stop: int, why: str) -> None:
        """Leave items to the caller that workers cannot have."""
        self.mine.append((start, stop))
        if not self._job.caller_may_compute:
            self.tell(f"item {self._job.base + start} runs in this process, without timeout and retries: {why}")

    def tell(self, message: str) -> None:
        """Warn, once in a run."""
        if not self._told:
            self._told = True
            warn(message)

    def n_posted(self) -> int:
        """Return the ranges that wait in the pipe."""
        size = fcntl.ioctl(self.task_r, termios.FIONREAD, b"\0\0\0\0")
        return int.from_bytes(size, sys.byteorder) // TOKEN.size

    def take(self) -> tuple[int, int] | None:
        """Take one token without waiting, one that has not been packed where there is one; None if there is none."""
        if self.mine:
            return self.mine.pop()
        if self.backlog and (self._crew.packs or self.is_alone):
            return self.backlog.pop(0)
        return self.take_posted()

    def take_posted(self) -> tuple[int, int] | None:
        """Take one token off the pipe; None if there is none."""
        try:
            token = os.read(self.task_r, TOKEN.size)
        except BlockingIOError:
            return None
        start, stop = TOKEN.unpack(token)
        return start, stop

    def is_dry(self) -> bool:
        """Tell whether the pipe is empty, so that a worker may be idle."""
        return not self._empty.poll(0)

    def drop_from(self, index: int) -> None:
        """Forget the ranges at and after a position."""
        self.backlog = [(a, min(b, index)) for a, b in self.backlog if a < index]
        kept = []
        self.mine = [(a, min(b, index)) for a, b in self.mine if a < index]
        while (token := self.take_posted()) is not None:
            if token[0] < index:
                kept.append((token[0], min(token[1], index)))
        self.backlog += reversed(kept)
        self.post_backlog()

    def post_ends(self, n_workers: int) -> None:
        """Tell each worker that the map is over."""
        if not self.fds:  # nothing has been started
            return
        while self.take_posted() is not None:
            pass
        left = n_workers + 1
        with contextlib.suppress(OSError):
            while left > 0:
                left -= os.write(self.task_w, END * min(left, bounds.PART_TOKENS)) // len(END)


def _least(size: int, most: int | None) -> int:
    return size if most is None else min(size, most)
