"""
One map over worker processes of this machine: the caller's side, whichever way the workers are started.

    caller                                         worker 1 .. w  (one per slot)
      │  tokens (start, stop)                            ▲
      ├──────────► task pipe, shared by all ─────────────┤ reads one token, runs it in blocks of about 1 ms;
      │                 ▲                                │ if the pipe is empty then, a colleague is idle: it puts
      │                 └────── second half of a range ──┘ half of what it has left back into the pipe
      │
      │◄─────────── result pipe, one per worker ─────────  at the end of a range, and every 50 ms
      │◄ ─ ─ ─ ─ ─  board, shared memory: who is at which item ─ ─ ─ ─ ─

Why ranges in one pipe and not a queue per worker: nothing ever waits behind a long item, and no worker needs the caller
to find work, so the caller can compute too. Reading and writing 16 bytes of a pipe is atomic on Linux.

How workers are started and ended, and how items reach them, is a :class:`Crew`'s business: forked ones inherit the
items (_fork), those of the server find them in shared memory (_server_crew). The worker's side is in _ranges.

Guarantees: an item is started at most once. What a dead worker had taken but not started is on the board, and is
handed out again; what it was at is named. A worker that loses its caller ends by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import select
import sys
import termios
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from amorsize import _schedule as schedule
from amorsize._backend import _blas, _worker
from amorsize._backend import _bounds as bounds
from amorsize._backend import _process as process
from amorsize._backend._outcome import Outcome, describe_exit, died_idle, overran
from amorsize._backend._ranges import (
    ACTIVE,
    BUSY,
    END,
    HEAD,
    HI,
    IDLE,
    LIMIT,
    LO,
    NO_LIMIT,
    SAID,
    SINCE_NS,
    SLOT,
    STATE,
    STOP,
    TOKEN,
    UNOPENED,
    goes_on,
)
from amorsize._backend._voice import Voice
from amorsize._backend._worker import MISSING, NoWorkersError
from amorsize._records import Span
from amorsize._warn import warn
from amorsize.exceptions import WorkerDied

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from amorsize._backend._job import Job

clock = time.perf_counter


@dataclass(eq=False, repr=False, match_args=False)
class Worker:
    """
    A worker of the team.

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


class Crew(Protocol):
    """
    How the workers of a team are started and ended, and how its items reach them.

    Attributes:
        packs: Whether items are packed before their range is posted.
        reuses: Whether workers that are idle when a map fails may stay for another one.
        most_items: Items in one range at most, None where that does not matter.
    """

    packs: bool
    reuses: bool
    most_items: int | None

    def board(self, n_bytes: int) -> mmap.mmap:
        """Return memory that is shared with the workers."""
        ...

    def start(self, team: Team, slot: int) -> Worker:
        """Start a worker; raises OSError where the system refuses one."""
        ...

    def pack(self, start: int, stop: int) -> bool:
        """Make items readable for workers; returns whether they can be sent."""
        ...

    def hear(self, team: Team, worker: Worker, /) -> bool:
        """Take what a worker says beside its results; returns whether it is still there."""
        ...

    def buffers(self, worker: Worker) -> memoryview:
        """Return the memory in which the buffers of a worker's next results came."""
        ...

    def kill(self, worker: Worker) -> None:
        """End a worker at once."""

    def reap(self, worker: Worker) -> int | None:
        """Wait for the end of a worker; returns its wait status, None if nobody knows it."""
        ...

    def dismiss(self, worker: Worker) -> None:
        """Be done with a worker that has ended, or has been told that the map is over."""

    def abandon(self) -> None:
        """Give back descriptors in a forked copy of the program."""

    def close(self) -> None:
        """Give back what belongs to the map."""


class Team:
    """Workers at one job, and the caller's side of it."""

    def __init__(self, job: Job, crew: Crew) -> None:
        self.crew = crew
        self.workers: dict[int, Worker] = {}
        self._fds: list[int] = []
        self.parent = os.getpid()
        self.n_slots = _n_workers(job)
        self._board_map: mmap.mmap | None = None
        self._poll = select.poll()
        self._empty = select.poll()
        self.job = job
        self.n_items = len(job.items)
        self.outcome = Outcome(job.base, self.n_items, job.sink)
        self.limit = self.n_items
        self.block = schedule.first_block(job.item_s) if job.timeout is None else 1
        self.first_message_s: float | None = None
        self._backlog: list[tuple[int, int]] = []
        self._mine: list[tuple[int, int]] = []
        self._idle_deaths = 0
        self._told = False
        self.is_alone = False
        self.fork_s = 0.0
        self.began = self._looked_at = clock()

    def _open(self) -> None:
        """Make the board and the task pipe, neither of whose ends ever blocks."""
        n_bytes = 8 * SLOT * (self.n_slots + 1)
        self._board_map = self.crew.board(n_bytes)
        self.board = memoryview(self._board_map).cast("q")
        self.board[LIMIT], self.board[ACTIVE] = NO_LIMIT, self.n_slots
        self.task_r, self.task_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._fds += [self.task_r, self.task_w]
        self._most_tokens = min(bounds.MOST_TOKENS, fcntl.fcntl(self.task_w, fcntl.F_GETPIPE_SZ) // TOKEN.size // 2)
        self._empty.register(self.task_r, select.POLLIN)

    # -- setting up and tearing down ---------------------------------------------------------------------------------

    def result_pipe(self) -> tuple[int, int]:
        """
        Return a pipe for the results of one worker; reading it never blocks.

        Raises:
            OSError: If the system refuses it.
        """
        read, write = os.pipe()
        os.set_blocking(read, False)
        with contextlib.suppress(OSError):
            share = bounds.PIPES_BYTES // max(1, self.n_slots)
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, max(bounds.LEAST_PIPE_BYTES, min(bounds.PIPE_BYTES, share)))
        return read, write

    def start(self) -> None:
        """
        Post the work and fork the workers.

        Raises:
            NoWorkersError: If the system refuses even one.
        """
        try:
            self._open()
        except OSError as error:
            self.close(kill=True)
            raise NoWorkersError(*error.args) from error
        self._post()
        self._fork_all()

    def _post(self) -> None:
        """Cut the work into tokens and write as many as the pipe holds."""
        chunker = schedule.Chunker(self.job.n_jobs, self.job.item_s, self.job.batch_overhead_s, self.job.batch_size)
        most = self.crew.most_items if self.job.batch_size is None else None
        self._backlog = [(i, i + 1) for i in self.job.first]
        ranges = schedule.Ranges(0, self.n_items, without=self.job.first)
        while (token := ranges.take(_least(chunker.size(ranges.n_left), most))) is not None:
            self._backlog.append(token)
            if self.job.batch_size is None and len(self._backlog) >= bounds.MOST_TOKENS:
                chunker.fixed = chunker.fixed or math.ceil(ranges.n_left / bounds.MOST_TOKENS)
                most = None
        self._backlog.reverse()
        self._post_backlog()

    def _fork_all(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed or odd streams are the user's business
                stream.flush()
        for slot in range(self.n_slots):
            try:
                self.start_one(slot)
            except OSError as error:
                # Those that are there do the work; without any, nothing has been begun.
                if not self.workers:
                    self.close(kill=True)
                    raise NoWorkersError(*error.args) from error
                break
            except BaseException:
                self.close(kill=True)
                raise

    def _post_backlog(self) -> None:
        """Write tokens, never more than the pipe can hold, nor than are wanted ahead where items must be packed."""
        if self.is_alone:
            return
        most, part = self._most_tokens, bounds.PART_TOKENS
        if self.crew.packs:
            part = self.n_slots
            is_long = self.job.caller_computes and self.job.item_s >= bounds.LONG_ITEM_S
            most = most if is_long else min(most, bounds.PACKED_AHEAD * self.n_slots)
        while self._backlog and (room := most - self._n_posted()) > 0:
            self._post_some([self._backlog.pop() for _ in range(min(part, room, len(self._backlog)))])

    def _post_some(self, tokens: list[tuple[int, int]]) -> None:
        """Write a few tokens; items that cannot be sent are the caller's."""
        sent = [token for token in tokens if self._is_packed(token)]
        try:
            if sent:
                os.write(self.task_w, b"".join(TOKEN.pack(*token) for token in sent))
        except BlockingIOError:
            self._backlog += reversed(sent)

    def _is_packed(self, token: tuple[int, int]) -> bool:
        """Tell whether a range can go to workers; parts of it that cannot be pickled are left to the caller."""
        if not self.crew.packs or self.crew.pack(*token):
            return True
        start, stop = token
        if stop - start == 1:
            self._keep_here(start, stop, "it cannot be sent")
        else:
            middle = (start + stop) // 2
            self._backlog += [(middle, stop), (start, middle)]
        return False

    def _keep_here(self, start: int, stop: int, why: str) -> None:
        """Leave items to the caller that workers cannot have."""
        self._mine.append((start, stop))
        if not self.job.caller_may_compute:
            self._tell(f"item {self.job.base + start} runs in this process, without timeout and retries: {why}")

    def _tell(self, message: str) -> None:
        """Warn, once in a run."""
        if not self._told:
            self._told = True
            warn(message)

    def _n_posted(self) -> int:
        size = fcntl.ioctl(self.task_r, termios.FIONREAD, b"\0\0\0\0")
        return int.from_bytes(size, sys.byteorder) // TOKEN.size

    def start_one(self, slot: int) -> None:
        """
        Start one worker in *slot*.

        Raises:
            OSError: If the system refuses another process or descriptor.
        """
        begin = clock()
        base = SLOT * (slot + 1)
        for name in (STATE, LO, HI, STOP):
            self.board[base + name] = 0
        with process.no_interrupt():
            worker = self.crew.start(self, slot)
            self.workers[worker.results_fd] = worker
            for fd in worker.fds():
                self._poll.register(fd, select.POLLIN)
        self.fork_s += clock() - begin

    def watch(self, fd: int) -> None:
        """Wait for one more descriptor of a worker."""
        self._poll.register(fd, select.POLLIN)

    def close(self, *, kill: bool) -> None:
        """End the workers or let them go, and give every descriptor back. May be called again."""
        with process.no_interrupt():
            if self._board_map is None:
                return
            if os.getpid() != self.parent:  # the function forked, in the caller, and its copy ends here
                self.abandon()
                return
            if kill:
                self.board[LIMIT] = 0
            else:
                self.board[ACTIVE] = self.n_slots
            self._post_ends()
            workers = list(self.workers.values())
            for worker in workers:
                self._unwatch(worker)
                if kill and not (self.crew.reuses and self.board[SLOT * (worker.slot + 1) + STATE] == IDLE):
                    self.crew.kill(worker)
                    self.crew.reap(worker)
                    worker.has_ended = True
            for worker in workers:
                self.crew.dismiss(worker)
            for fd in self._fds:
                with contextlib.suppress(OSError):
                    os.close(fd)
            self._fds.clear()
            self.crew.close()
            self.board.release()
            self._board_map.close()
            self._board_map = None

    def _post_ends(self) -> None:
        """Tell each worker that the map is over."""
        if not self._fds:  # nothing has been started
            return
        while self._take_posted() is not None:
            pass
        left = len(self.workers) + 1
        with contextlib.suppress(OSError):
            while left > 0:
                left -= os.write(self.task_w, END * min(left, bounds.PART_TOKENS)) // len(END)

    def abandon(self) -> None:
        """Give back the descriptors only: the workers are those of the process that this one was forked from."""
        self.crew.abandon()
        for worker in self.workers.values():
            self._fds += [fd for fd in (worker.results_fd, worker.pid_fd) if fd >= 0]
        for fd in self._fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fds.clear()
        self.workers.clear()
        self._board_map = None

    def _unwatch(self, worker: Worker) -> None:
        del self.workers[worker.results_fd]
        with contextlib.suppress(Exception):  # what the caller's streams raise must not keep descriptors open
            worker.voice.end()
        for fd in worker.fds():
            with contextlib.suppress(KeyError, OSError):
                self._poll.unregister(fd)

    def _end(self, worker: Worker) -> int | None:
        """Wait for the end of a worker that dies, and be done with it; returns its wait status."""
        status = self.crew.reap(worker)
        self._unwatch(worker)
        worker.has_ended = True
        self.crew.dismiss(worker)
        return status

    # -- the caller's side -------------------------------------------------------------------------------------------

    def finish(self) -> Outcome:
        """
        Start if that has not been done, and take part until the work is done.

        Returns:
            The results, failures and measurements.

        Raises:
            BaseException: What interrupts the caller (KeyboardInterrupt). The function's own exceptions are values
                in the outcome.
        """
        finished = False
        try:
            if not self._fds:
                with process.no_interrupt():
                    self.start()
            if self.job.caller_computes or (self.job.is_cold and self.job.caller_may_compute):
                with _blas.limited(self.job.threads):
                    self._compute()
            while not self._is_done():
                self._wait(bounds.HOUSEKEEPING_S)
                self._look_after()
            finished = not self.is_alone and self.limit == self.n_items and not self.outcome.died
        finally:
            closing = clock()
            self.close(kill=not finished)
            self.outcome.close_s = clock() - closing
        return self._measured()

    def _is_done(self) -> bool:
        return self.outcome.is_done(self.limit, ends_with_a_death=self.job.ends_with_a_death)

    def _compute(self) -> None:
        """
        Work on ranges like a worker does, looking at the others' results in between.

        A caller that is not one of the jobs does so until the first worker has answered.
        """
        job = self.job
        while (token := self._take()) is not None:
            self._compute_range(*token)
            if self._is_done():
                return
            self._look_after()
            if not (job.caller_computes or self.is_alone) and self.first_message_s is not None:
                return

    def _compute_range(self, current: int, stop: int) -> None:
        job, block = self.job, self.block
        begin, first = clock(), current
        while current < min(stop, self.limit):
            high = min(stop, self.limit, current + block)
            before = clock()
            done, failed = job.run_here(_worker.cut(job.items, current, high))
            now = clock()
            self._accept(current, done, failed)
            current += len(done)
            if failed and not goes_on(failed, keep_going=job.keep_going):
                break
            block = schedule.next_block(block, now - before, schedule.CHECK_S)
            self._wait(0)
            if self.crew.packs and self._backlog:
                self._post_backlog()
            if stop - current > 1 and job.batch_size is None and self.workers and not self._empty.poll(0):
                middle = schedule.split(current, stop)
                self._post_some([(middle, stop)])
                stop = middle
        end = clock()
        self.outcome.spans.append(
            Span(lane="caller", begin_s=begin, end_s=end, start=job.base + first, n_items=current - first)
        )

    def _take(self) -> tuple[int, int] | None:
        """Take one token without waiting, one that has not been packed where there is one; None if there is none."""
        if self._mine:
            return self._mine.pop()
        if self._backlog and (self.crew.packs or self.is_alone):
            return self._backlog.pop(0)
        return self._take_posted()

    def _take_posted(self) -> tuple[int, int] | None:
        try:
            token = os.read(self.task_r, TOKEN.size)
        except BlockingIOError:
            return None
        start, stop = TOKEN.unpack(token)
        return start, stop

    def _accept(self, start: int, results: list[Any], failures: Sequence[tuple[int, BaseException]]) -> None:
        self.outcome.put(start, results, failures)
        fatal = [p for p, error in failures if not self.job.goes_on(error)]
        if fatal:
            self._stop_at(start + fatal[0])
        if self.job.progress is not None:
            self.job.progress(self.outcome.n_done)

    def _stop_at(self, index: int) -> None:
        """Forget the work at and after a failed item; what is before it must still be done."""
        if index >= self.limit:
            return
        self.limit = index
        self.board[LIMIT] = index
        self._backlog = [(a, min(b, index)) for a, b in self._backlog if a < index]
        kept = []
        self._mine = [(a, min(b, index)) for a, b in self._mine if a < index]
        while (token := self._take_posted()) is not None:
            if token[0] < index:
                kept.append((token[0], min(token[1], index)))
        self._backlog += reversed(kept)
        self._post_backlog()

    def _wait(self, timeout_s: float) -> None:
        """Take in what workers have sent; waits at most *timeout_s* for the first of it."""
        if self.job.check is not None:
            self.job.check()
        if self.job.timeout is not None:
            timeout_s = min(timeout_s, self._next_deadline_s())
        # One poll can tell twice of a death, and a replacement reuses the numbers of closed descriptors: who owns a
        # number is looked up as of now, not as of its turn.
        owners = {fd: w for w in self.workers.values() for fd in w.fds()}
        for fd, _ in self._poll.poll(timeout_s * 1000):
            worker = owners.get(fd)
            if worker is None or self.workers.get(worker.results_fd) is not worker:
                continue
            if worker.conn is not None and fd == worker.conn.fileno():
                if self.crew.hear(self, worker):
                    continue
                fd = worker.pid_fd  # noqa: PLW2901 - it has ended, whichever descriptor says so first
            self._receive(worker)
            if fd == worker.pid_fd and self.workers.get(worker.results_fd) is worker:
                self._bury(worker)
        for worker in self.workers.values():
            worker.voice.look()

    def _receive(self, worker: Worker) -> None:
        """Read all that has arrived from a worker."""
        while True:
            begin = clock()
            try:
                data = os.read(worker.results_fd, bounds.PIPE_BYTES)
            except BlockingIOError:
                break
            if not data:
                self._messages(worker)
                self._let_go(worker)
                return
            worker.buffer += data
            self.outcome.read_s += clock() - begin
            self._messages(worker)

    def _messages(self, worker: Worker) -> None:
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
                self._keep_here(first, stop, "a worker cannot unpickle it")
                used += n_bytes
                continue
            if self.first_message_s is None:
                self.first_message_s = begin - self.began
            opened = clock()
            with memoryview(buffer) as view, view[used : used + n_bytes] as part:
                results, failures = self._unpacked(worker, part, start, n_buffers)
            used += n_bytes
            lane = f"worker {worker.slot + 1}"
            self.outcome.spans.append(
                Span(lane=lane, begin_s=begin, end_s=end, start=self.job.base + start, n_items=n_items)
            )
            self.outcome.received(n_items, n_bytes, end - begin, clock() - opened)
            self._accept(start, results, failures)
        del buffer[:used]

    def _unpacked(
        self, worker: Worker, part: memoryview, start: int, n_buffers: int
    ) -> tuple[list[Any], list[tuple[int, BaseException]]]:
        """Open a message; large buffers of its results have come in memory of their own, and stay there."""
        if not n_buffers:
            return _worker.unpack(part, start=self.job.base + start)
        memory = self.crew.buffers(worker)
        places = [TOKEN.unpack_from(part, i * TOKEN.size) for i in range(n_buffers)]
        buffers = [memory[offset : offset + n_bytes] for offset, n_bytes in places]
        return _worker.unpack(part[n_buffers * TOKEN.size :], buffers, start=self.job.base + start)

    # -- when something is wrong -------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        """Do what no message announces: refill the pipe, end overrun items, hand out what was lost."""
        if self._backlog:
            self._post_backlog()
        while self._mine and not self._is_done():
            self._compute_range(*self._mine.pop())
        if self.is_alone:
            self._compute()
        if self.job.progress is not None:
            self.job.progress(self.outcome.n_done)  # what came too soon after a report is reported now
        if self.job.timeout is not None:
            self._end_overrun()
        if self.job.is_tight is not None and clock() - self._looked_at > bounds.HOUSEKEEPING_S:
            self._looked_at = clock()
            # One worker fewer at each look while memory is short, one more while it is not; never none.
            active = self.board[ACTIVE] + (-1 if self.job.is_tight() else 1)
            self.board[ACTIVE] = max(1, min(_n_workers(self.job), active))
        if not self.workers and not self._is_done() and not self.is_alone:
            self._start_last()
        if self._is_stalled():
            self._repost_missing()

    def _start_last(self) -> None:
        """Start a worker where there is none left."""
        try:
            self.start_one(0)
        except OSError as error:
            self.go_alone(f"workers cannot be started: {error}")

    def go_alone(self, why: str) -> None:
        """Let the caller do all that is left, where workers cannot; where it must not, that fails."""
        if self.is_alone:
            return
        if not self.job.caller_may_compute:
            self._give_up(WorkerDied(why, {}, (), why))
            return
        self._tell(f"items run in this process: {why}")
        self.is_alone = True

    def _is_stalled(self) -> bool:
        """Tell whether nobody has work although some is missing: it was lost with a worker killed while taking it."""
        if not self._is_idle():
            return False
        self._wait(0)  # what has been done is on its way, and a death may be
        return self._is_idle()

    def _is_idle(self) -> bool:
        """Tell whether work is missing that neither waits nor is with a worker; asked only after a death."""
        if not self.outcome.deaths or self._is_done() or self._n_posted() or self._mine:
            return False
        return all(self.board[SLOT * (w.slot + 1) + STATE] == IDLE for w in self.workers.values())

    def _repost_missing(self) -> None:
        """Hand out again what was lost; last of all, alone, what workers died of."""
        lost = set(self.outcome.suspects)
        missing = [i for i in range(self.limit) if self.outcome.results[i] is MISSING and i not in lost]
        self._backlog += [(i, i + 1) for i in reversed(missing)]
        self._post_backlog()
        if not missing and lost:
            self._settle_suspects()

    def _let_go(self, worker: Worker) -> None:
        """Take note that a worker has closed its pipe: it is dead, unless it says that it cannot do this job."""
        if self.crew.hear(self, worker) and self.is_alone:
            self._unwatch(worker)
            self.crew.dismiss(worker)
        else:
            self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        """Take note of a dead worker: what it was at, what it had not begun."""
        slot = SLOT * (worker.slot + 1)
        low, high, stop = (self.board[slot + name] for name in (LO, HI, STOP))
        busy = self.board[slot + STATE] == BUSY
        status = self._end(worker)
        if self._is_done():
            return
        self.outcome.deaths += 1
        in_flight = [i for i in range(low, high) if self.outcome.results[i] is MISSING] if busy else []
        if busy and stop > high:
            self._backlog.append((high, stop))
        self._blame(in_flight, describe_exit(status))
        if status is not None:  # else it went down with all the others
            self._idle_deaths = 0 if stop else self._idle_deaths + 1
        if self._idle_deaths > bounds.MOST_IDLE_DEATHS:
            self._give_up(died_idle(describe_exit(status)))
        if not self._is_done():
            self._replace(worker.slot)

    def _replace(self, slot: int) -> None:
        with contextlib.suppress(OSError):  # no more processes to be had: the others go on
            self.start_one(slot)
        self._post_backlog()

    def _blame(self, in_flight: list[int], cause: str) -> None:
        """Decide what becomes of items whose worker died."""
        job, outcome = self.job, self.outcome
        names = tuple(job.base + i for i in in_flight)
        message = f"a worker died ({cause}) while it was at {_name_items(names)}"
        error = WorkerDied(message, {}, names, cause)
        outcome.died = outcome.died or (error if in_flight else None)
        again = [i for i in in_flight if outcome.attempts.get(i, 0) < job.retries]
        for i in again:
            outcome.attempts[i] = outcome.attempts.get(i, 0) + 1
        outcome.suspects += again
        for i in in_flight:
            if i not in again:
                self._accept(i, [error], [(0, error)])
        if again and outcome.died is error:
            outcome.died = None

    def _give_up(self, error: WorkerDied) -> None:
        """Fail what is left: workers end before they take anything, or cannot be had."""
        self.outcome.died = self.outcome.died or error
        for i in range(self.limit):
            if i < self.limit and self.outcome.results[i] is MISSING:
                self._accept(i, [error], [(0, error)])

    def _settle_suspects(self) -> None:
        """Run the items that were in flight when a worker died again, one at a time, nothing beside them."""
        suspects, self.outcome.suspects = sorted(set(self.outcome.suspects)), []
        for worker in list(self.workers.values())[1:]:
            self.crew.kill(worker)
            self._end(worker)
        if not self.workers:
            self._start_last()
        self.block = 1
        for i in suspects:
            if self.outcome.results[i] is not MISSING:
                continue
            self._post_some([(i, i + 1)])
            while self.outcome.results[i] is MISSING and i not in self.outcome.suspects:
                self._wait(bounds.HOUSEKEEPING_S)
                if self.job.timeout is not None:
                    self._end_overrun()
                if not self.workers:
                    self._start_last()
                if self._is_stalled() and self.outcome.results[i] is MISSING and i not in self.outcome.suspects:
                    self._post_some([(i, i + 1)])

    def _next_deadline_s(self) -> float:
        limit = self.job.timeout or 0.0
        waits = [bounds.HOUSEKEEPING_S]
        now = time.monotonic_ns()
        for worker in self.workers.values():
            slot = SLOT * (worker.slot + 1)
            if self.board[slot + STATE] == BUSY:
                waits.append(limit - (now - self.board[slot + SINCE_NS]) / 1e9)
        return max(0.001, min(waits))

    def _end_overrun(self) -> None:
        """Kill workers whose item takes longer than ``timeout``; the item fails, its worker is replaced."""
        limit = self.job.timeout or 0.0
        for worker in list(self.workers.values()):
            slot = SLOT * (worker.slot + 1)
            busy = self.board[slot + STATE] == BUSY and self.board[slot + LO] < self.board[slot + HI]
            elapsed_s = (time.monotonic_ns() - self.board[slot + SINCE_NS]) / 1e9
            if not busy or elapsed_s < limit:
                continue
            self.crew.kill(worker)
            self.crew.reap(worker)
            self._drain(worker)
            low, high, stop = (self.board[slot + name] for name in (LO, HI, STOP))
            self._end(worker)
            if stop > high:
                self._backlog.append((high, stop))
            for i in range(low, high):
                if self.outcome.results[i] is MISSING:
                    error = overran(self.job.base + i, limit)
                    self._accept(i, [error], [(0, error)])
            if not self._is_done():
                self._replace(worker.slot)

    def _drain(self, worker: Worker) -> None:
        """Read what a worker sent before it was killed."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(worker.results_fd, bounds.PIPE_BYTES):
                worker.buffer += data
        self._messages(worker)

    def _measured(self) -> Outcome:
        """Add what the run tells about the costs of forking."""
        outcome = self.outcome
        outcome.start_each_s = self.fork_s / self.n_slots
        if self.first_message_s is not None:
            outcome.start_s = self.first_message_s
            if not outcome.is_warm:
                outcome.start_s += outcome.close_s
        return outcome


def _n_workers(job: Job) -> int:
    """Return the worker processes that a job needs."""
    return max(1, job.n_jobs - 1 if job.caller_computes else job.n_jobs)


def _least(size: int, most: int | None) -> int:
    return size if most is None else min(size, most)


def _name_items(indices: tuple[int, ...]) -> str:
    if not indices:
        return "no item"
    if len(indices) == 1:
        return f"item {indices[0]}"
    return f"items {indices[0]} to {indices[-1]}"
