"""
Takes what the workers of a team send off their pipes: results, failures, and what items have said.

Called by Team when a pipe is readable, and by Losses for what a worker sent before it was killed. Only whole messages
are opened; each is given on once, in the order in which its worker sent it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from amorsize._backend import _bounds as bounds
from amorsize._backend import _worker
from amorsize._backend._ranges import HEAD, SAID, TOKEN, UNOPENED
from amorsize._records import Span

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._backend._crew import Crew, Worker
    from amorsize._backend._handout import Handout
    from amorsize._backend._job import Job
    from amorsize._backend._outcome import Outcome

    Accept = Callable[[int, list[Any], Sequence[tuple[int, BaseException]]], None]

clock = time.perf_counter


class Inbox:
    """
    What comes from the workers of one map.

    Attributes:
        first_message_s: Seconds from the beginning to the begin of the first chunk that came; None until one has.
    """

    def __init__(
        self,
        job: Job,
        crew: Crew,
        outcome: Outcome,
        handout: Handout,
        *,
        began: float,
    ) -> None:
        self._job, self._crew, self._outcome, self._handout = job, crew, outcome, handout
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
            opened = clock()
            with memoryview(buffer) as view, view[used : used + n_bytes] as part:
                results, failures = self._unpacked(worker, part, start, n_buffers)
            used += n_bytes
            lane = f"worker {worker.slot + 1}"
            self._outcome.spans.append(
                Span(lane=lane, begin_s=begin, end_s=end, start=self._job.base + start, n_items=n_items)
            )
            self._outcome.received(n_items, n_bytes, end - begin, clock() - opened)
            accept(start, results, failures)
        del buffer[:used]

    def _unpacked(
        self, worker: Worker, part: memoryview, start: int, n_buffers: int
    ) -> tuple[list[Any], list[tuple[int, BaseException]]]:
        """Open a message; large buffers of its results have come in memory of their own, and stay there."""
        if not n_buffers:
            return _worker.unpack(part, start=self._job.base + start)
        memory = self._crew.buffers(worker)
        places = [TOKEN.unpack_from(part, i * TOKEN.size) for i in range(n_buffers)]
        buffers = [memory[offset : offset + n_bytes] for offset, n_bytes in places]
        return _worker.unpack(part[n_buffers * TOKEN.size :], buffers, start=self._job.base + start)

    def drain(self, worker: Worker, accept: Accept) -> None:
        """Read what a worker sent before it was killed."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(worker.results_fd, bounds.PIPE_BYTES):
                worker.buffer += data
        self._messages(worker, accept)
