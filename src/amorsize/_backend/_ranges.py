"""
The worker's side of a map: takes index ranges from a pipe, runs them, sends results home.

Forked workers and those of the server run this same loop. They differ in how they come to their items: a fork has
inherited them, a worker of the server finds them in shared memory.

Layouts that both sides know: the token (a range of positions), the head of a message with results, and the board,
an array of 64-bit numbers in shared memory that tells who is at which item.
"""

from __future__ import annotations

import os
import select
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from amorsize import _cost as cost
from amorsize import _schedule as schedule
from amorsize._backend import _bounds as bounds
from amorsize._backend import _output, _worker

if sys.platform != "linux":
    message = "this way of running workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOKEN: Final = struct.Struct("=qq")

# Start, items, bytes that follow, buffers that came beside them, begin, end (seconds of the monotonic clock).
HEAD: Final = struct.Struct("=qqqqdd")
END: Final = TOKEN.pack(-1, -1)

# Instead of a start: a range whose items could not be opened. It is the caller's now.
UNOPENED: Final = -1

# Instead of a start: what items have said.
SAID: Final = -2

# Fields of a worker's slot on the board, 8 bytes each.
LO, HI, STOP, SINCE_NS, STATE, SLOT = 0, 1, 2, 3, 4, 8
IDLE, TAKING, BUSY = 0, 1, 2
NO_LIMIT: Final = (1 << 63) - 1

# Fields of the board that concern all: the position from which nothing is wanted, and how many workers may work.
LIMIT, ACTIVE = 0, 1

clock = time.perf_counter


class UnopenedItems(Exception):  # noqa: N818 - a signal between two functions of a worker
    """Tells that items could not be unpickled."""


class RangeJob(Protocol):
    """What a worker must know of the job."""

    @property
    def call(self) -> Callable[[Any], Any]:
        """The function of one item."""
        ...

    @property
    def items(self) -> Any:
        """All items, by position; only sliced."""
        ...

    @property
    def base(self) -> int:
        """Index of the first in the caller's input."""
        ...

    @property
    def item_s(self) -> float:
        """Expected seconds per item."""
        ...

    @property
    def batch_size(self) -> int | None:
        """Exact size of ranges, or None."""
        ...

    @property
    def keep_going(self) -> bool:
        """Whether to go on after a failed item."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds one item may take, or None."""
        ...


class Home(Protocol):
    """The way home for what a worker has to tell."""

    def results(
        self, start: int, results: list[Any], failures: list[tuple[int, BaseException]], begin_s: float
    ) -> None:
        """Send the results of neighbours, the first at position *start*, begun at *begin_s*."""

    def unopened(self, start: int, stop: int) -> None:
        """Give items back that cannot be unpickled here."""


class RangeWorker:
    """One worker at one map."""

    def __init__(
        self,
        job: RangeJob,
        slot: int,
        board: memoryview,
        tasks: tuple[int, int],
        home: Home,
    ) -> None:
        """
        Make a worker.

        Args:
            job: What to do.
            slot: Which of the team's workers this is.
            board: The board, as 64-bit numbers.
            tasks: Both ends of the task pipe; neither ever blocks.
            home: Where results go.
        """
        self.job = job
        self.slot = slot
        self.board = board
        self.task_r, self.task_w = tasks
        self.home = home
        self.block = schedule.first_block(job.item_s) if job.timeout is None else 1
        self._empty = select.poll()
        self._empty.register(self.task_r, select.POLLIN)

    def serve(self) -> None:
        """Take ranges and run them until there are no more to come."""
        while True:
            start, stop = TOKEN.unpack(self._next_token())
            if start < 0:
                self.board[SLOT * (self.slot + 1) + STATE] = IDLE
                return
            self._run_range(start, stop)
            self.board[SLOT * (self.slot + 1) + STATE] = IDLE
            _output.flush_originals()

    def _next_token(self) -> bytes:
        """Wait for a token."""
        state = SLOT * (self.slot + 1) + STATE
        while True:
            if self.slot >= self.board[ACTIVE]:
                time.sleep(bounds.PAUSE_S)
            elif self._empty.poll(1000 * bounds.HOUSEKEEPING_S):
                self.board[state] = TAKING
                try:
                    return os.read(self.task_r, TOKEN.size)
                except BlockingIOError:  # a colleague was faster
                    self.board[state] = IDLE

    def _run_range(self, start: int, stop: int) -> None:
        board, job, slot = self.board, self.job, SLOT * (self.slot + 1)
        board[slot + STOP], board[slot + LO], board[slot + HI], board[slot + STATE] = stop, start, start, BUSY
        results: list[Any] = []
        failures: list[tuple[int, BaseException]] = []
        current, sent_at = start, clock()
        begin = sent_at
        while current < stop and current < board[LIMIT]:
            high = min(stop, current + self.block)
            try:
                part = _worker.cut(job.items, current, high)
            except UnopenedItems:
                self.home.unopened(current, stop)
                break
            board[slot + SINCE_NS] = time.monotonic_ns()
            board[slot + HI] = high
            before = clock()
            done, failed = _worker.run_block(job.call, part, keep_going=job.keep_going)
            now = clock()
            del part
            failures += [(len(results) + position, error) for position, error in failed]
            results += done
            current += len(done)
            if failed and not goes_on(failed, keep_going=job.keep_going):
                break
            if job.timeout is None and len(done) == self.block:
                self.block = schedule.next_block(self.block, now - before, schedule.CHECK_S)
            if now - sent_at >= cost.QUANTUM_S or job.timeout is not None:
                self._send(current - len(results), results, failures, begin)
                begin = sent_at = clock()
                results, failures = [], []
            if stop - current > 1 and job.batch_size is None and not self._empty.poll(0):
                stop = self._share(slot, current, stop)
        if results:
            self._send(current - len(results), results, failures, begin)

    def _share(self, slot: int, current: int, stop: int) -> int:
        """Put the second half of a range back for a colleague who has nothing; returns where this worker's ends."""
        middle = schedule.split(current, stop)
        self.board[slot + STOP] = middle
        try:
            os.write(self.task_w, TOKEN.pack(middle, stop))
        except BlockingIOError:  # it has been filled meanwhile
            self.board[slot + STOP] = middle = stop
        return middle

    def _send(self, start: int, results: list[Any], failures: list[tuple[int, BaseException]], begin: float) -> None:
        n_results = len(results)
        self.home.results(start, results, failures, begin)
        self.board[SLOT * (self.slot + 1) + LO] = start + n_results


def goes_on(failed: Sequence[tuple[int, BaseException]], *, keep_going: bool) -> bool:
    """Tell whether the items behind a failed one are still wanted."""
    return keep_going and all(isinstance(error, Exception) for _, error in failed)
