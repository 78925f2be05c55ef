"""
The caller's ends of what leads to the workers of a map or a stream: each worker's own, the pipe of ranges, the results.

Used by Team (_team), TaskPool (_pool), and CrewedTeam (_crew) for what dead workers had taken or sent. The workers'
ends, and the board, are in _local_worker.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import sys
import termios
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from amorsize import _schedule as schedule
from amorsize._backend import _bounds as bounds
from amorsize._backend import _worker
from amorsize._backend._local_worker import END, HEAD, SAID, TOKEN, UNOPENED
from amorsize._backend._voice import Voice
from amorsize._records import Span

if sys.platform != "linux":
    raise ImportError("this way of starting workers is for Linux; nothing imports it elsewhere")

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from amorsize._backend._job import Job, Outcome

    Accept = Callable[[int, list[Any], Sequence[tuple[int, BaseException]]], None]


# -- one worker -----------------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False, match_args=False)
class Worker:
    """
    A worker at a map, and the caller's ends of what leads to it.

    Attributes:
        slot: Its place on the board.
        pid: Its process, 0 while that is not known yet.
        results_fd: Where its results are read.
        pid_fd: Becomes readable when it ends; -1 where there is none.
        conn: What else it may have to say, None for a fork.
        seat: What its crew keeps of it.
        buffer: What has been read of messages that are not complete yet.
        has_ended: Whether its process has been waited for.
        voice: What its items have said and does not appear yet.
    """

    slot: int
    pid: int
    results_fd: int
    pid_fd: int = -1
    conn: socket.socket | None = None
    seat: Any = None
    buffer: bytearray = field(default_factory=bytearray)
    has_ended: bool = False
    voice: Voice = field(default_factory=Voice)

    def fds(self) -> list[int]:
        """Return the descriptors to wait for."""
        conn_fd = -1 if self.conn is None else self.conn.fileno()
        return [fd for fd in (self.results_fd, self.pid_fd, conn_fd) if fd >= 0]


@dataclass(eq=False, repr=False, match_args=False)
class TaskSeat(Worker):
    """
    A worker at a stream, which has a pipe of its own for tasks.

    Attributes:
        tasks_fd: Where its tasks are written.
        unsent: What the pipe of tasks has not taken yet.
        numbers: Its tasks, the one that it is at first.
    """

    tasks_fd: int = -1
    unsent: deque[memoryview] = field(default_factory=deque)
    numbers: deque[int] = field(default_factory=deque)

    def fds(self) -> list[int]:
        """Return the descriptors to wait for."""
        return [*super().fds(), self.tasks_fd] if self.unsent else super().fds()

    def write(self) -> bool:
        """Write what the pipe of tasks takes now; returns whether that was all, or raises BrokenPipeError."""
        while self.unsent:
            try:
                written = os.write(self.tasks_fd, self.unsent[0])
            except BlockingIOError:
                return False
            rest = self.unsent[0][written:]
            if rest:
                self.unsent[0] = rest
            else:
                self.unsent.popleft()
        return True


# -- ranges, from the caller to whichever worker is idle ---------------------------------------------------------------


class Packer(Protocol):
    """What the hand-out asks of a :class:`~amorsize._backend._crew.Crew`."""

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

    def __init__(self, job: Job, crew: Packer, n_slots: int, tell: Callable[[str], None]) -> None:
        self._job, self._crew, self._n_slots, self._tell = job, crew, n_slots, tell
        self._empty = select.poll()
        self.fds: list[int] = []
        self.backlog: list[tuple[int, int]] = []
        self.mine: list[tuple[int, int]] = []
        self.is_alone = False

    def open(self) -> None:
        """Make the pipe; raises OSError if the system refuses it."""
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
        job = self._job
        chunker = schedule.Chunker(job.n_jobs, job.item_s, job.batch_overhead_s, job.batch_size)
        self.backlog = schedule.cut_up(len(job.items), chunker, job.first, self._crew.most_items, bounds.MOST_TOKENS)
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
            self._tell(f"item {self._job.base + start} runs in this process, without timeout and retries: {why}")

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


# -- results, from each worker to the caller ---------------------------------------------------------------------------


clock = time.perf_counter


class Inbox:
    """
    What comes from the workers of one map.

    Attributes:
        first_message_s: Seconds from the beginning to the begin of the first chunk that came; None until one has.
    """

    def __init__(
        self, job: Job, buffers: Callable[[Worker], memoryview], outcome: Outcome, handout: Handout, *, began: float
    ) -> None:
        self._job, self._buffers, self._outcome, self._handout = job, buffers, outcome, handout
        self._began = began
        self.first_message_s: float | None = None

    def receive(self, worker: Worker, accept: Accept) -> bool:
        """Read all that has arrived from a worker; returns whether more may come."""
        while True:
            begin = clock()
            try:
                data = os.read(worker.results_fd, bounds.PIPE_BYTES)
            except BlockingIOError:
                return True
            if not data:
                self._messages(worker, accept)
                return False
            worker.buffer += data
            self._outcome.read_s += clock() - begin
            self._messages(worker, accept)

    def _messages(self, worker: Worker, accept: Accept) -> None:
        """Take whole messages off a worker's buffer."""
        buffer, used = worker.buffer, 0
        while len(buffer) - used >= HEAD.size:
            start, n_items, n_bytes, n_buffers, begin, end = HEAD.unpack_from(buffer, used)
            if len(buffer) - used - HEAD.size < n_bytes:
                break
            used += HEAD.size
            if start == SAID:
                worker.voice.hear(buffer[used : used + n_bytes])
                used += n_bytes
                continue
            worker.voice.end()
            if start == UNOPENED:
                first, stop = TOKEN.unpack_from(buffer, used)
                self._handout.keep_here(first, stop, "a worker cannot unpickle it")
                used += n_bytes
                continue
            if self.first_message_s is None:
                self.first_message_s = begin - self._began
            with memoryview(buffer) as view, view[used : used + n_bytes] as part:
                results, failures = self._unpacked(worker, part, start, n_buffers)
            used += n_bytes
            lane = f"worker {worker.slot + 1}"
            self._outcome.spans.append(
                Span(lane=lane, begin_s=begin, end_s=end, start=self._job.base + start, n_items=n_items)
            )
            self._outcome.received(n_items, n_bytes)
            accept(start, results, failures)
        del buffer[:used]

    def _unpacked(
        self, worker: Worker, part: memoryview, start: int, n_buffers: int
    ) -> tuple[list[Any], list[tuple[int, BaseException]]]:
        """Open a message; large buffers of its results have come in memory of their own, and stay there."""
        if not n_buffers:
            return _worker.unpack(part, start=self._job.base + start)
        memory = self._buffers(worker)
        places = [TOKEN.unpack_from(part, i * TOKEN.size) for i in range(n_buffers)]
        buffers = [memory[offset : offset + n_bytes] for offset, n_bytes in places]
        return _worker.unpack(part[n_buffers * TOKEN.size :], buffers, start=self._job.base + start)

    def drain(self, worker: Worker, accept: Accept) -> None:
        """Read what a worker sent before it was killed."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(worker.results_fd, bounds.PIPE_BYTES):
                worker.buffer += data
        self._messages(worker, accept)
