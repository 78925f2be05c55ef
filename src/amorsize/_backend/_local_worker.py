"""
What runs in the worker processes of this machine, forked ones and those of the fork server. Linux only.

    RangeWorker  one map: takes index ranges from a pipe that all workers share, and sends results home
    TaskWorker   one stream: takes tasks from a pipe of its own, and sends results home

They differ in how they come to their items: a fork has inherited them, a worker of the server finds those of a map in
shared memory. Both sides know what is laid down here: the token (a range of positions), the heads of messages,
and the board, an array of 64-bit numbers in shared memory that workers write and the caller reads.
"""

from __future__ import annotations

import os
import pickle
import select
import socket
import struct
import sys
import time
from time import monotonic_ns, sleep
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amorsize import _pace as pace
from amorsize._backend import _bounds as bounds
from amorsize._backend import _memory, _output, _pickles, _worker
from amorsize._backend import _process as process
from amorsize._backend._worker import run_quantum
from amorsize._bounds import CHECK_S

if sys.platform != "linux":
    raise ImportError("this way of running workers is for Linux; nothing imports it elsewhere")

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Sequence


clock = time.perf_counter


# -- the board of a map: who is at which item --------------------------------------------------------------------------


# Fields of a worker's slot on the board, 8 bytes each.
LO, HI, STOP, SINCE_NS, STATE, SLOT = 0, 1, 2, 3, 4, 8
IDLE, TAKING, BUSY = 0, 1, 2
NO_LIMIT: Final = (1 << 63) - 1

# Fields of the board that concern all: the position from which nothing is wanted, and how many workers may work.
LIMIT, ACTIVE = 0, 1


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
        return (monotonic_ns() - self.board[SLOT * (slot + 1) + SINCE_NS]) / 1e9


# -- ranges of a map ---------------------------------------------------------------------------------------------------


TOKEN: Final = struct.Struct("=qq")

# Start, items, bytes that follow, buffers that came beside them, begin, end (seconds of the monotonic clock).
HEAD: Final = struct.Struct("=qqqqdd")
END: Final = TOKEN.pack(-1, -1)

# Instead of a start: a range whose items could not be opened. It is the caller's now.
UNOPENED: Final = -1

# Instead of a start: what items have said.
SAID: Final = -2


class UnopenedItems(Exception):  # noqa: N818 - a signal between two functions of a worker
    """Tells that items could not be unpickled."""


class RangeJob(NamedTuple):
    """What a worker must know of a map: fields of :class:`amorsize._backend._job.Job`; items are only sliced."""

    call: Callable[[Any], Any]
    items: Any
    base: int
    item_s: float
    batch_size: int | None
    keep_going: bool
    timeout: float | None


class RangeWorker:
    """One worker at one map."""

    def __init__(self, job: RangeJob, slot: int, board: memoryview, tasks: tuple[int, int], home: PipeHome) -> None:
        """Make the worker of a *slot*; *tasks* are both ends of the task pipe, of which neither ever blocks."""
        self.job = job
        self.slot = slot
        self.board = board
        self.task_r, self.task_w = tasks
        self.home = home
        self.block = pace.first_block(job.item_s) if job.timeout is None else 1
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
                sleep(bounds.PAUSE_S)
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
        begin = clock()
        stretch = pace.Stretch(
            start, stop, self.block, begin, is_fixed=job.batch_size is not None, is_single=job.timeout is not None
        )
        while stretch.current < min(stretch.stop, board[LIMIT]):
            try:
                part = _worker.cut(job.items, stretch.current, stretch.high)
            except UnopenedItems:
                self.home.unopened(stretch.current, stretch.stop)
                break
            board[slot + SINCE_NS] = monotonic_ns()
            board[slot + HI] = stretch.high
            before = clock()
            done, failed = _worker.run_block(job.call, part, keep_going=job.keep_going)
            now = clock()
            del part
            failures += [(len(results) + position, error) for position, error in failed]
            results += done
            stretch.ran(len(done), now - before)
            if failed and not goes_on(failed, keep_going=job.keep_going):
                break
            if stretch.must_send(now):
                self._send(stretch.current - len(results), results, failures, begin)
                begin = clock()
                stretch.sent(begin)
                results, failures = [], []
            if stretch.may_share and not self._empty.poll(0):
                self._share(slot, stretch)
        self.block = stretch.block
        if results:
            self._send(stretch.current - len(results), results, failures, begin)

    def _share(self, slot: int, stretch: pace.Stretch) -> None:
        """Put the second half of a range back for a colleague who has nothing."""
        middle, stop = stretch.half()
        self.board[slot + STOP] = middle
        try:
            os.write(self.task_w, TOKEN.pack(middle, stop))
        except BlockingIOError:  # it has been filled meanwhile
            self.board[slot + STOP] = stop
        else:
            stretch.stop = middle

    def _send(self, start: int, results: list[Any], failures: list[tuple[int, BaseException]], begin: float) -> None:
        n_results = len(results)
        self.home.results(start, results, failures, begin)
        self.board[SLOT * (self.slot + 1) + LO] = start + n_results


def goes_on(failed: Sequence[tuple[int, BaseException]], *, keep_going: bool) -> bool:
    """Tell whether the items behind a failed one are still wanted."""
    return keep_going and all(isinstance(error, Exception) for _, error in failed)


# -- the way home of a map's results -----------------------------------------------------------------------------------


# What a worker of the server says on its socket when the memory of its next results comes, and of which map they are.
MEMORY: Final = b"m"
NUMBER: Final = struct.Struct("=q")


class PipeHome:
    """The way home of one worker at one map."""

    def __init__(self, fd: int, base: int, conn: socket.socket | None = None, number: int = 0) -> None:
        """Make a way home over a pipe, and over *conn*, where there is one, for descriptors of large buffers."""
        self.fd = fd
        self._base = base
        self._conn = conn
        self._number = number

    def results(
        self, start: int, results: list[Any], failures: list[tuple[int, BaseException]], begin_s: float
    ) -> None:
        """Send results home."""
        n_results, end = len(results), clock()
        data, buffers = _worker.pack(results, failures, start + self._base, self._dumps)
        _output.flush()  # first what was said, by pickling too
        with _output.sending():
            if buffers:
                data = self._send_apart(buffers) + data
            process.write_all(self.fd, HEAD.pack(start, n_results, len(data), len(buffers), begin_s, end), data)

    def words(self, data: bytes) -> None:
        """Send what items have said; see :func:`amorsize._backend._output.listen`."""
        process.write_all(self.fd, HEAD.pack(SAID, 0, len(data), 0, 0.0, 0.0), data)

    def unopened(self, start: int, stop: int) -> None:
        """Give items back that cannot be unpickled here."""
        with _output.sending():
            process.write_all(self.fd, HEAD.pack(UNOPENED, 0, TOKEN.size, 0, 0.0, 0.0), TOKEN.pack(start, stop))

    def _dumps(self, value: Any) -> tuple[bytes, list[memoryview]]:
        """Pickle results; large buffers stay apart where there is a way for them and they are worth it."""
        data, buffers = _pickles.dumps_apart(value, None if self._conn is None else bounds.BESIDE_BYTES, is_known=True)
        if buffers and sum(buffer.nbytes for buffer in buffers) < bounds.RESULT_MEMORY_BYTES:
            return _pickles.dumps_apart(value, None, is_known=True)
        return data, buffers

    def _send_apart(self, buffers: list[memoryview]) -> bytes:
        """Put buffers into memory of their own and send its descriptor; returns where each of them lies."""
        assert self._conn is not None  # noqa: S101 - for the type checker
        fd = _memory.make("amorsize-results")
        try:
            places = _memory.append(fd, 0, buffers)[0]
            socket.send_fds(self._conn, [MEMORY + NUMBER.pack(self._number)], [fd])
        finally:
            os.close(fd)
        return b"".join(TOKEN.pack(*place) for place in places)


# -- tasks of a stream -------------------------------------------------------------------------------------------------


TASK: Final = struct.Struct("=qqqdd")  # number, bytes that follow, items, begin, end

# Instead of a number: the worker may leave. The end of the pipe does not tell: whatever has been forked since, another
# stream's workers or the user's own processes, holds a copy of the other end.
NO_MORE: Final = -1

# Instead of a number: what items have said.
SAID_TASK: Final = -2

# Instead of how many items have been done: they could not be unpickled, and an error follows.
UNOPENED_TASK: Final = -1

# Fields of a worker's slot on the board, 8 bytes each: its task, how many items of that it has begun, and since when it
# is at one of them; 0 while it opens what it is sent, and while it sends results.
TASK_NUMBER, N_BEGUN, TASK_SINCE_NS, TASK_SLOT = 0, 1, 2, 3


class TaskWorker:
    """One worker at one stream."""

    call: Callable[[Any], Any]

    def __init__(self, slot: int, board: memoryview, results_fd: int, *, keep_going: bool) -> None:
        self._slot = slot
        self._board = board
        self._results_fd = results_fd
        self._keep_going = keep_going

    def serve(self, stream: Any) -> None:
        """Run tasks until there are no more to come."""
        while len(head := stream.read(TASK.size)) == TASK.size:
            number, n_bytes, start, quantum_s, block = TASK.unpack(head)
            if number == NO_MORE:
                return
            data = stream.read(n_bytes)
            try:
                items = pickle.loads(data)
            except Exception as error:  # noqa: BLE001 - objects raise anything when they are made; it travels home
                data = pickle.dumps(_worker.pack_error(error, start))
                with _output.sending():
                    process.write_all(self._results_fd, TASK.pack(number, len(data), UNOPENED_TASK, 0.0, 0.0), data)
                continue
            place = TASK_SLOT * self._slot
            self._board[place + N_BEGUN] = 0  # first: the number of the task before must not count for this one
            self._board[place + TASK_NUMBER] = number
            begin = clock()
            done, failures = self._run(items, quantum_s, block)
            end = clock()
            data = _worker.pack(done, failures, start, _pickles.dumps)
            self._board[place + TASK_SINCE_NS] = 0
            _output.flush()
            with _output.sending():
                process.write_all(self._results_fd, TASK.pack(number, len(data), len(done), begin, end), data)
            _output.flush_originals()
            del items, done, failures

    def words(self, data: bytes) -> None:
        """Send what items have said; see :func:`amorsize._backend._output.listen`."""
        process.write_all(self._results_fd, TASK.pack(SAID_TASK, len(data), 0, 0.0, 0.0), data)

    def _run(self, items: Any, quantum_s: float, block: float) -> tuple[list[Any], list[Any]]:
        """Run items for a quantum, telling the board how far it has begun."""
        board, place = self._board, TASK_SLOT * self._slot

        def tell(n_begun: int) -> None:
            board[place + TASK_SINCE_NS] = monotonic_ns()
            board[place + N_BEGUN] = n_begun

        return run_quantum(
            self.call, items, quantum_s, int(block), keep_going=self._keep_going, look_s=CHECK_S, tell=tell
        )
