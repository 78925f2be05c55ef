"""
Forked workers for one map: they see the inputs without pickling, take index ranges from a pipe, send results home.

    caller                                         worker 1 .. w  (os.fork, one per slot)
      │  tokens (start, stop)                            ▲
      ├──────────► task pipe, shared by all ─────────────┤ reads one token, runs it in blocks of about 1 ms;
      │                 ▲                                │ if the pipe is empty then, somebody is hungry: it puts
      │                 └────── second half of a range ──┘ half of what it has left back into the pipe
      │
      │◄─────────── result pipe, one per worker ─────────  at the end of a range, and every 50 ms
      │◄ ─ ─ ─ ─ ─  board, shared memory: who is at which item ─ ─ ─ ─ ─

Why ranges in one pipe and not a queue per worker: nothing ever waits behind somebody's long item, and no worker needs
the caller to find work, so the caller can compute too. Reading and writing 16 bytes of a pipe is atomic on Linux.

A team may be kept for the next map of the same function (_standby): its workers then find the items pickled in shared
memory, once for all of them, and everything else is the same. Idle workers leave after
:data:`amorsize._cost.STANDBY_S`.

Guarantees: an item is started at most once. What a dead worker had taken but not started is on the board, and is
handed out again; what it was at is named. A worker that loses its caller ends by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import pickle
import select
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from amorsize import _cost as cost
from amorsize import _schedule as schedule
from amorsize._backend import _blas, _worker
from amorsize._backend import _process as process
from amorsize._backend._outcome import MOST_IDLE_DEATHS, Outcome, describe_exit, died_idle, overran
from amorsize._backend._worker import MISSING, NoWorkersError
from amorsize._types import Span
from amorsize.exceptions import WorkerDied

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._backend._job import Job
_TOKEN: Final = struct.Struct("=qq")
_HEAD: Final = struct.Struct("=qqqdd")  # start, items, bytes that follow, begin, end (seconds of the monotonic clock)
_END: Final = _TOKEN.pack(-1, -1)

# Tokens posted at once: 16 bytes each, so they fit the 64 KiB of a pipe and a write never blocks.
_MOST_TOKENS: Final = 3000

# Bytes a result pipe is asked to hold, so that a worker can go on while the caller computes. 1 MiB is what Linux allows
# everybody (/proc/sys/fs/pipe-max-size); where it is refused, the pipe stays as it is.
_PIPE_BYTES: Final = 1 << 20

# Seconds that ending a worker takes, for runs that do not end theirs: 1.3 ms with its end, 0.9 without, see _cost.
_END_S: Final = 0.4e-3

# Seconds between two looks for what no message announces: overrun items, ranges lost with a worker killed while
# it took them.
_HOUSEKEEPING_S: Final = 0.5

# Fields of a worker's slot on the board, 8 bytes each.
_LO, _HI, _STOP, _SINCE_NS, _STATE, _SLOT = 0, 1, 2, 3, 4, 8
_IDLE, _TAKING, _BUSY = 0, 1, 2
_NO_LIMIT: Final = (1 << 63) - 1

# Fields of the board that concern all: the position from which nothing is wanted, and how many workers may work.
_LIMIT, _ACTIVE = 0, 1

# Whether the team waits for another map, since when, which map this is, and how many bytes its items take.
_IS_KEPT, _KEPT_NS, _EDITION, _MAIL = 2, 3, 4, 5

# Seconds a worker that may not work waits before it asks again.
_PAUSE_S: Final = 0.02

clock = time.perf_counter


@dataclass(eq=False, repr=False, match_args=False)
class _Worker:
    slot: int
    pid: int
    results_fd: int
    pid_fd: int
    buffer: bytearray = field(default_factory=bytearray)


class Team:
    """Workers forked for one job, and the caller's side of it."""

    def __init__(self, job: Job) -> None:
        self._take_on(job)
        self.workers: dict[int, _Worker] = {}
        self._fds: list[int] = []
        self._edition = 0
        self._apply_threads = _blas.prepare(job.threads)
        self._parent = os.getpid()
        self._n_slots = _n_workers(job)
        self._backlog: list[tuple[int, int]] = []
        self._board_map: mmap.mmap | None = None
        self._poll = select.poll()
        self._empty = select.poll()

    def _take_on(self, job: Job) -> None:
        """Set what belongs to one map."""
        self.job = job
        self.n_items = len(job.items)
        self.outcome = Outcome(job.base, self.n_items)
        self.limit = self.n_items
        self.block = schedule.first_block(job.item_s) if job.timeout is None else 1
        self.first_message_s: float | None = None
        self._idle_deaths = 0
        self.fork_s = 0.0
        self.began = self._looked_at = clock()

    def _open(self) -> None:
        """Make the board and the pipes."""
        n_bytes = 8 * _SLOT * (self._n_slots + 1)
        self._board_map = mmap.mmap(-1, n_bytes + cost.STANDBY_MAIL_BYTES)
        with memoryview(self._board_map) as whole:
            self.board, self._mail = whole[:n_bytes].cast("q"), whole[n_bytes:]
        self.board[_LIMIT], self.board[_ACTIVE] = _NO_LIMIT, self._n_slots
        self.task_r, self.task_w = self._pipe()
        self.task_nb = os.open(f"/proc/self/fd/{self.task_r}", os.O_RDONLY | os.O_NONBLOCK)
        self._fds.append(self.task_nb)
        self._empty.register(self.task_r, select.POLLIN)

    # -- setting up and tearing down ---------------------------------------------------------------------------------

    def _pipe(self) -> tuple[int, int]:
        read, write = os.pipe()
        self._fds += [read, write]
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
        self._backlog = [(i, i + 1) for i in self.job.first]
        ranges = schedule.Ranges(0, self.n_items, without=self.job.first)
        while (token := ranges.take(chunker.size(ranges.n_left))) is not None:
            self._backlog.append(token)
            if self.job.batch_size is None and len(self._backlog) >= _MOST_TOKENS:
                chunker.fixed = chunker.fixed or math.ceil(ranges.n_left / _MOST_TOKENS)
        self._backlog.reverse()
        self._post_backlog()

    def _fork_all(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed or odd streams are the user's business
                stream.flush()
        for slot in range(self._n_slots):
            try:
                self.fork(slot)
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
        """Write tokens, never more than the pipe can hold."""
        while self._backlog and self._n_posted() < _MOST_TOKENS:
            part = [self._backlog.pop() for _ in range(min(500, len(self._backlog)))]
            os.write(self.task_w, b"".join(_TOKEN.pack(*token) for token in part))

    def _n_posted(self) -> int:
        size = fcntl.ioctl(self.task_r, 0x541B, b"\0\0\0\0")  # FIONREAD: bytes waiting in the pipe
        return int.from_bytes(size, sys.byteorder) // _TOKEN.size

    def fork(self, slot: int) -> None:
        """
        Start one worker in *slot*.

        Raises:
            OSError: If the system refuses another process or descriptor.
        """
        begin = clock()
        base = _SLOT * (slot + 1)
        self.board[base + _STATE] = _IDLE
        for name in (_LO, _HI, _STOP):
            self.board[base + name] = 0
        with process.no_interrupt():
            read, write = os.pipe()
            with contextlib.suppress(OSError):
                fcntl.fcntl(write, 1031, _PIPE_BYTES)  # F_SETPIPE_SZ
            try:
                pid = process.fork()
            except OSError:
                os.close(read)
                os.close(write)
                raise
            if pid == 0:
                self._child(slot, read, write)
            os.close(write)
            os.set_blocking(read, False)
            pid_fd = process.pidfd(pid)
            self.workers[read] = _Worker(slot, pid, read, pid_fd)
            self._poll.register(read, select.POLLIN)
            if pid_fd >= 0:
                self._poll.register(pid_fd, select.POLLIN)
        self.fork_s += clock() - begin

    def close(self, *, kill: bool) -> None:
        """End the workers, wait for them, and give every descriptor back. May be called again."""
        with process.no_interrupt():
            if self._board_map is None:
                return
            if os.getpid() != self._parent:  # the function forked, in the caller, and its copy ends here
                self.abandon()
                return
            if kill:
                for worker in self.workers.values():
                    process.kill(worker.pid)
            else:
                self.board[_ACTIVE] = self._n_slots
                with contextlib.suppress(OSError):
                    os.write(self.task_w, _END * (len(self.workers) + 1))
            for worker in list(self.workers.values()):
                process.reap(worker.pid)
                self._forget(worker)
            for fd in self._fds:
                with contextlib.suppress(OSError):
                    os.close(fd)
            self._fds.clear()
            self.board.release()
            self._mail.release()
            self._board_map.close()
            self._board_map = None

    def abandon(self) -> None:
        """Give back the descriptors only: the workers are those of the process that this one was forked from."""
        for worker in self.workers.values():
            self._fds += [fd for fd in (worker.results_fd, worker.pid_fd) if fd >= 0]
        for fd in self._fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fds.clear()
        self.workers.clear()
        self._board_map = None

    def _forget(self, worker: _Worker) -> None:
        del self.workers[worker.results_fd]
        for fd in (worker.results_fd, worker.pid_fd):
            if fd >= 0:
                with contextlib.suppress(KeyError, OSError):
                    self._poll.unregister(fd)
                os.close(fd)

    # -- the worker's side -------------------------------------------------------------------------------------------

    def _child(self, slot: int, read: int, write: int) -> None:
        """Be a worker; never returns."""
        code = 1
        try:
            os.close(read)
            for other in self.workers.values():
                os.close(other.results_fd)
                if other.pid_fd >= 0:
                    os.close(other.pid_fd)
            process.settle(self._parent)
            self._apply_threads()
            _worker.reseed()
            self.job.call = _worker.prepared(self.job.call, self.job.initialize)
            self._serve(slot, write)
            code = 0
        except BrokenPipeError:
            code = 0  # the caller is gone
        except KeyboardInterrupt:
            code = 0  # while it waited: the caller hears of it too
        except BaseException:  # noqa: BLE001 - a forked copy of the caller must not run on into the caller's code
            with contextlib.suppress(BaseException):
                process.report()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            os._exit(code)

    def _serve(self, slot: int, write: int) -> None:
        while True:
            token = self._next_token(slot)
            if len(token) < _TOKEN.size:
                return
            start, stop = _TOKEN.unpack(token)
            if start < 0:
                return
            if self._edition != self.board[_EDITION]:
                self._read_mail()
            self._run_range(_SLOT * (slot + 1), write, start, stop)
            with contextlib.suppress(Exception):
                sys.stdout.flush()

    def _next_token(self, slot: int) -> bytes:
        """Wait for a token; empty if none has come for so long that the next map will not want this worker."""
        state = _SLOT * (slot + 1) + _STATE
        while True:
            if slot >= self.board[_ACTIVE]:
                time.sleep(_PAUSE_S)
            elif self._empty.poll(1000 * _HOUSEKEEPING_S):
                self.board[state] = _TAKING
                try:
                    return os.read(self.task_nb, _TOKEN.size)
                except BlockingIOError:  # a colleague was faster
                    self.board[state] = _IDLE
            if self.board[_IS_KEPT] and time.monotonic_ns() - self.board[_KEPT_NS] > cost.STANDBY_S * 1e9:
                return b""

    def _read_mail(self) -> None:
        """Take on the job that the caller has posted since."""
        self._edition = self.board[_EDITION]
        job = self.job
        mail = pickle.loads(self._mail[: self.board[_MAIL]])
        job.items, job.base, job.item_s, job.batch_size, job.keep_going = mail
        self.block = schedule.first_block(job.item_s)

    def _run_range(self, slot: int, write: int, start: int, stop: int) -> None:
        board, job = self.board, self.job
        board[slot + _STOP], board[slot + _LO], board[slot + _HI], board[slot + _STATE] = stop, start, start, _BUSY
        results: list[Any] = []
        failures: list[tuple[int, BaseException]] = []
        current, sent_at = start, clock()
        begin = sent_at
        while current < stop and current < board[_LIMIT]:
            high = min(stop, current + self.block)
            board[slot + _SINCE_NS] = time.monotonic_ns()
            board[slot + _HI] = high
            before = clock()
            done, failed = _worker.run_block(job.call, _worker.cut(job.items, current, high), keep_going=job.keep_going)
            now = clock()
            failures += [(len(results) + position, error) for position, error in failed]
            results += done
            current += len(done)
            if failed and not _goes_on(failed, keep_going=job.keep_going):
                break
            if job.timeout is None and len(done) == self.block:
                self.block = schedule.next_block(self.block, now - before, schedule.CHECK_S)
            if now - sent_at >= cost.QUANTUM_S or job.timeout is not None:
                begin = sent_at = self._send(slot, write, current - len(results), results, failures, begin)
                results, failures = [], []
            if stop - current > 1 and job.batch_size is None and not self._empty.poll(0):
                middle = schedule.split(current, stop)
                board[slot + _STOP] = middle
                os.write(self.task_w, _TOKEN.pack(middle, stop))
                stop = middle
        if results:
            self._send(slot, write, current - len(results), results, failures, begin)
        board[slot + _STATE] = _IDLE

    def _send(  # noqa: PLR0917 - what a message consists of
        self,
        slot: int,
        write: int,
        start: int,
        results: list[Any],
        failures: list[tuple[int, BaseException]],
        begin: float,
    ) -> float:
        """Send results home; returns the time it was done."""
        n_results, end = len(results), clock()
        data = _worker.pack(results, failures, start + self.job.base, _dumps)
        head = _HEAD.pack(start, n_results, len(data), begin, end)
        process.write_all(write, head, data)
        self.board[slot + _LO] = start + n_results
        return clock()

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
        finished = is_kept = False
        try:
            if not self._fds:
                with process.no_interrupt():
                    self.start()
            if self.job.caller_computes:
                with _blas.limited(self.job.threads):
                    self._compute()
            while not self._is_done():
                self._wait(_HOUSEKEEPING_S)
                self._look_after()
            finished = self.limit == self.n_items and not self.outcome.died
        finally:
            closing = clock()
            is_kept = finished and self._keep()
            if not is_kept:
                self.close(kill=not finished)
                self.outcome.close_s = clock() - closing
        outcome = self._measured()
        if is_kept:
            self.outcome = Outcome(0, 0)  # the results are the caller's now
        return outcome

    # -- between two maps --------------------------------------------------------------------------------------------

    def _keep(self) -> bool:
        """Stay for the next map if that is wanted and nothing went wrong; the workers wait, the caller holds on."""
        keep = self.job.keep
        if keep is None or self.outcome.deaths or len(self.workers) < self._n_slots or not keep(self):
            return False
        self.board[_KEPT_NS] = time.monotonic_ns()
        self.board[_IS_KEPT] = 1
        self.job.items = ()
        return True

    def is_ready(self, job: Job | None = None) -> bool:
        """Tell whether the kept workers can still take on a map, or *job*; with a fifth of their time to spare."""
        if self._board_map is None or os.getpid() != self._parent:
            return False
        if job is not None and (_n_workers(job) > self._n_slots or job.threads != self.job.threads):
            return False
        age_s = (time.monotonic_ns() - self.board[_KEPT_NS]) / 1e9
        return 0 <= age_s < cost.STANDBY_SURE_S and not self._poll.poll(0)

    def take_over(self, job: Job, data: bytes) -> None:
        """Begin another map with the workers that are there; *data* is :func:`mail`'s."""
        self._take_on(job)
        self.board[_LIMIT], self.board[_ACTIVE] = _NO_LIMIT, _n_workers(job)
        self._mail[: len(data)] = data
        self._edition += 1
        self.board[_MAIL], self.board[_EDITION] = len(data), self._edition
        self.board[_IS_KEPT] = 0
        self.outcome.is_warm = True
        self._post()

    def _is_done(self) -> bool:
        return self.outcome.is_done(self.limit, ends_with_a_death=self.job.ends_with_a_death)

    def _compute(self) -> None:
        """Work on ranges like a worker does, looking at the others' results in between."""
        job, block = self.job, self.block
        while (token := self._take()) is not None:
            current, stop = token
            begin, first = clock(), current
            while current < min(stop, self.limit):
                high = min(stop, self.limit, current + block)
                before = clock()
                done, failed = _worker.run_here(
                    job.call, _worker.cut(job.items, current, high), keep_going=job.keep_going
                )
                now = clock()
                self._accept(current, done, failed)
                current += len(done)
                if failed and not _goes_on(failed, keep_going=job.keep_going):
                    break
                block = schedule.next_block(block, now - before, schedule.CHECK_S)
                self._wait(0)
                if stop - current > 1 and job.batch_size is None and not self._empty.poll(0):
                    middle = schedule.split(current, stop)
                    os.write(self.task_w, _TOKEN.pack(middle, stop))
                    stop = middle
            end = clock()
            self.outcome.spans.append(
                Span(lane="caller", begin_s=begin, end_s=end, start=job.base + first, n_items=current - first)
            )
            if self._is_done():
                return
            self._look_after()

    def _take(self) -> tuple[int, int] | None:
        """Take one token without waiting; None if there is none, or nothing left to do."""
        try:
            token = os.read(self.task_nb, _TOKEN.size)
        except BlockingIOError:
            return None
        start, stop = _TOKEN.unpack(token)
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
        self.board[_LIMIT] = index
        self._backlog = [(a, min(b, index)) for a, b in self._backlog if a < index]
        kept = []
        while (token := self._take()) is not None:
            if token[0] < index:
                kept.append((token[0], min(token[1], index)))
        self._backlog += reversed(kept)
        self._post_backlog()

    def _wait(self, timeout_s: float) -> None:
        """Take in what workers have sent; waits at most *timeout_s* for the first of it."""
        if self.job.timeout is not None:
            timeout_s = min(timeout_s, self._next_deadline_s())
        # One poll can tell twice of a death, and a replacement reuses the numbers of closed descriptors: who owns a
        # number is looked up as of now, not as of its turn.
        owners = {fd: w for w in self.workers.values() for fd in (w.results_fd, w.pid_fd) if fd >= 0}
        for fd, _ in self._poll.poll(timeout_s * 1000):
            worker = owners.get(fd)
            if worker is None or self.workers.get(worker.results_fd) is not worker:
                continue
            self._receive(worker)
            if fd == worker.pid_fd and self.workers.get(worker.results_fd) is worker:
                self._bury(worker)

    def _receive(self, worker: _Worker) -> None:
        """Read all that has arrived from a worker."""
        while True:
            begin = clock()
            try:
                data = os.read(worker.results_fd, _PIPE_BYTES)
            except BlockingIOError:
                break
            if not data:
                self._messages(worker)
                self._bury(worker)
                return
            worker.buffer += data
            self.outcome.read_s += clock() - begin
            self._messages(worker)

    def _messages(self, worker: _Worker) -> None:
        """Take whole messages off a worker's buffer."""
        buffer, used = worker.buffer, 0
        while len(buffer) - used >= _HEAD.size:
            start, n_items, n_bytes, begin, end = _HEAD.unpack_from(buffer, used)
            if len(buffer) - used - _HEAD.size < n_bytes:
                break
            if self.first_message_s is None:
                self.first_message_s = begin - self.began
            opened = clock()
            with memoryview(buffer) as view, view[used + _HEAD.size : used + _HEAD.size + n_bytes] as part:
                results, failures = _worker.unpack(part, start=self.job.base + start)
            used += _HEAD.size + n_bytes
            lane = f"worker {worker.slot + 1}"
            self.outcome.spans.append(
                Span(lane=lane, begin_s=begin, end_s=end, start=self.job.base + start, n_items=n_items)
            )
            self.outcome.received(n_items, n_bytes, end - begin, clock() - opened)
            self._accept(start, results, failures)
        del buffer[:used]

    # -- when something is wrong -------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        """Do what no message announces: refill the pipe, end overrun items, hand out what was lost."""
        if self._backlog:
            self._post_backlog()
        if self.job.timeout is not None:
            self._end_overrun()
        if self.job.is_tight is not None and clock() - self._looked_at > _HOUSEKEEPING_S:
            self._looked_at = clock()
            # One worker fewer at each look while memory is short, one more while it is not; never none.
            active = self.board[_ACTIVE] + (-1 if self.job.is_tight() else 1)
            self.board[_ACTIVE] = max(1, min(_n_workers(self.job), active))
        if not self.workers and not self._is_done():
            self.fork(0)
        if self._is_stalled():
            self._repost_missing()

    def _is_stalled(self) -> bool:
        """Tell whether nobody has work although some is missing: it was lost with a worker killed while taking it."""
        if not self._is_idle():
            return False
        self._wait(0)  # what has been done is on its way, and a death may be
        return self._is_idle()

    def _is_idle(self) -> bool:
        """Tell whether work is missing that neither waits nor is with a worker; asked only after a death."""
        if not self.outcome.deaths or self._is_done() or self._n_posted():
            return False
        return all(self.board[_SLOT * (w.slot + 1) + _STATE] == _IDLE for w in self.workers.values())

    def _repost_missing(self) -> None:
        """Hand out again what was lost; last of all, alone, what workers died of."""
        lost = set(self.outcome.suspects)
        missing = [i for i in range(self.limit) if self.outcome.results[i] is MISSING and i not in lost]
        self._backlog += [(i, i + 1) for i in reversed(missing)]
        self._post_backlog()
        if not missing and lost:
            self._settle_suspects()

    def _bury(self, worker: _Worker) -> None:
        """Take note of a dead worker: what it was at, what it had not begun."""
        slot = _SLOT * (worker.slot + 1)
        low, high, stop = (self.board[slot + name] for name in (_LO, _HI, _STOP))
        busy = self.board[slot + _STATE] == _BUSY
        status = process.reap(worker.pid)
        self._forget(worker)
        if self._is_done():
            return
        self.outcome.deaths += 1
        in_flight = [i for i in range(low, high) if self.outcome.results[i] is MISSING] if busy else []
        if busy and stop > high:
            self._backlog.append((high, stop))
        self._blame(in_flight, describe_exit(status))
        self._idle_deaths = 0 if stop else self._idle_deaths + 1
        if self._idle_deaths > MOST_IDLE_DEATHS:
            self._give_up(describe_exit(status))
        if not self._is_done():
            self._replace(worker.slot)

    def _replace(self, slot: int) -> None:
        with contextlib.suppress(OSError):  # no more processes to be had: the others go on
            self.fork(slot)
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

    def _give_up(self, cause: str) -> None:
        """Fail what is left: workers end before they take anything."""
        error = died_idle(cause)
        self.outcome.died = self.outcome.died or error
        for i in range(self.limit):
            if i < self.limit and self.outcome.results[i] is MISSING:
                self._accept(i, [error], [(0, error)])

    def _settle_suspects(self) -> None:
        """Run the items that were in flight when a worker died again, one at a time, nothing beside them."""
        suspects, self.outcome.suspects = sorted(set(self.outcome.suspects)), []
        for worker in list(self.workers.values())[1:]:
            process.kill(worker.pid)
            process.reap(worker.pid)
            self._forget(worker)
        if not self.workers:
            self.fork(0)
        self.block = 1
        for i in suspects:
            if self.outcome.results[i] is not MISSING:
                continue
            os.write(self.task_w, _TOKEN.pack(i, i + 1))
            while self.outcome.results[i] is MISSING and i not in self.outcome.suspects:
                self._wait(_HOUSEKEEPING_S)
                if self.job.timeout is not None:
                    self._end_overrun()
                if not self.workers:
                    self.fork(0)
                if self._is_stalled() and self.outcome.results[i] is MISSING and i not in self.outcome.suspects:
                    os.write(self.task_w, _TOKEN.pack(i, i + 1))

    def _next_deadline_s(self) -> float:
        limit = self.job.timeout or 0.0
        waits = [_HOUSEKEEPING_S]
        now = time.monotonic_ns()
        for worker in self.workers.values():
            slot = _SLOT * (worker.slot + 1)
            if self.board[slot + _STATE] == _BUSY:
                waits.append(limit - (now - self.board[slot + _SINCE_NS]) / 1e9)
        return max(0.001, min(waits))

    def _end_overrun(self) -> None:
        """Kill workers whose item takes longer than ``timeout``; the item fails, its worker is replaced."""
        limit = self.job.timeout or 0.0
        for worker in list(self.workers.values()):
            slot = _SLOT * (worker.slot + 1)
            busy = self.board[slot + _STATE] == _BUSY and self.board[slot + _LO] < self.board[slot + _HI]
            elapsed_s = (time.monotonic_ns() - self.board[slot + _SINCE_NS]) / 1e9
            if not busy or elapsed_s < limit:
                continue
            process.kill(worker.pid)
            process.reap(worker.pid)
            if worker.results_fd in self.workers:
                self._drain(worker)
            low, high, stop = (self.board[slot + name] for name in (_LO, _HI, _STOP))
            self._forget(worker)
            if stop > high:
                self._backlog.append((high, stop))
            for i in range(low, high):
                if self.outcome.results[i] is MISSING:
                    error = overran(self.job.base + i, limit)
                    self._accept(i, [error], [(0, error)])
            if not self._is_done():
                self._replace(worker.slot)

    def _drain(self, worker: _Worker) -> None:
        """Read what a worker sent before it was killed."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(worker.results_fd, _PIPE_BYTES):
                worker.buffer += data
        self._messages(worker)

    def _measured(self) -> Outcome:
        """Add what the run tells about the costs of forking."""
        outcome = self.outcome
        outcome.start_each_s = self.fork_s / self._n_slots
        if self.first_message_s is not None:
            outcome.start_s = self.first_message_s
            if not outcome.is_warm:
                outcome.start_s += outcome.close_s or _END_S
        return outcome


def _n_workers(job: Job) -> int:
    """Return the worker processes that a job needs."""
    return max(1, job.n_jobs - 1 if job.caller_computes else job.n_jobs)


def mail(job: Job, dumps: Callable[[Any, int], bytes | None]) -> bytes | None:
    """Pickle what a later map consists of; None where it is too much, or not plain."""
    return dumps((job.items, job.base, job.item_s, job.batch_size, job.keep_going), cost.STANDBY_MAIL_BYTES)


def _goes_on(failed: Sequence[tuple[int, BaseException]], *, keep_going: bool) -> bool:
    return keep_going and all(isinstance(error, Exception) for _, error in failed)


def _name_items(indices: tuple[int, ...]) -> str:
    if not indices:
        return "no item"
    if len(indices) == 1:
        return f"item {indices[0]}"
    return f"items {indices[0]} to {indices[-1]}"


def _dumps(value: Any) -> bytes:
    return pickle.dumps(value, protocol=5)
