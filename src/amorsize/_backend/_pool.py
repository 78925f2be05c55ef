"""
Forked workers that are sent their items: for streams, whose items do not exist yet when the workers are forked.

    caller                                            worker (os.fork)
      │ ── task pipe, one per worker: pickled items ──►  runs them for at most a quantum
      │ ◄─ result pipe, one per worker ────────────────  sends what it has
      │ ◄ ─ board, shared memory: how many of the task's items have been begun ─ ─

The function is inherited, not sent. The caller never blocks on a full pipe: what does not fit waits here, so a worker
that is writing a large result and a caller that is writing large items cannot wait for each other.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import select
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from amorsize import _schedule as schedule
from amorsize._backend import _blas, _ship, _worker
from amorsize._backend import _process as process
from amorsize._backend._flow import Answer, Done, Work, run_quantum, send_by
from amorsize._backend._outcome import describe_exit, overran
from amorsize.exceptions import WorkerDied

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    from amorsize._backend._job import Job

_HEAD: Final = struct.Struct("=qqqdd")  # number, bytes that follow, items, begin, end
_READ_BYTES: Final = 1 << 20

# Instead of a number: the worker may leave. The end of the pipe does not tell: whatever has been forked since, another
# stream's workers or the user's own processes, holds a copy of the other end.
_NO_MORE: Final = -1

# Instead of how many items have been done: they could not be unpickled, and an error follows.
_UNOPENED: Final = -1

clock = time.perf_counter


@dataclass(eq=False, repr=False, match_args=False)
class _Worker:
    slot: int
    pid: int
    tasks_fd: int
    results_fd: int
    pid_fd: int
    unsent: deque[memoryview] = field(default_factory=deque)
    buffer: bytearray = field(default_factory=bytearray)
    numbers: deque[int] = field(default_factory=deque)
    since_s: float = 0.0


class ForkPool:
    """A carrier with forked workers of its own; made for one stream, closed with it."""

    name = "fork"

    def __init__(self, job: Job) -> None:
        self.job = job
        self.ahead = 1 if job.timeout is None else 0
        self._apply_threads = _blas.prepare(job.threads)
        self._parent = os.getpid()
        self._board_map = mmap.mmap(-1, 8 * 2 * job.n_jobs)
        self._board = memoryview(self._board_map).cast("q")
        self._poll = select.poll()
        self._workers: dict[int, _Worker] = {}
        self._tasks: dict[int, Work] = {}
        self._answers: list[Answer] = []
        self.start_each_s = 0.0
        begin = clock()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed or odd streams are the user's business
                stream.flush()
        try:
            for slot in range(job.n_jobs):
                self._fork(slot)
        except BaseException:
            self.close(kill=True)
            raise
        self.start_each_s = (clock() - begin) / job.n_jobs

    # -- processes ---------------------------------------------------------------------------------------------------

    def _fork(self, slot: int) -> _Worker:
        with process.no_interrupt():
            tasks_r, tasks_w = os.pipe()
            made = [tasks_r, tasks_w]
            try:
                results_r, results_w = os.pipe()
                made += [results_r, results_w]
                pid = process.fork()
            except OSError:
                for fd in made:
                    os.close(fd)
                raise
            if pid == 0:
                self._child(slot, tasks_r, results_w, (tasks_w, results_r))
            os.close(tasks_r)
            os.close(results_w)
            os.set_blocking(tasks_w, False)
            os.set_blocking(results_r, False)
            worker = _Worker(slot, pid, tasks_w, results_r, process.pidfd(pid))
            self._workers[results_r] = worker
            self._poll.register(results_r, select.POLLIN)
            if worker.pid_fd >= 0:
                self._poll.register(worker.pid_fd, select.POLLIN)
        return worker

    def close(self, *, kill: bool = False) -> None:
        """
        End the workers, wait for them, and give every descriptor back. May be called again.

        In a forked copy of the program only the descriptors: the workers are its parent's.
        """
        with process.no_interrupt():
            is_mine = os.getpid() == self._parent
            for worker in self._workers.values() if is_mine else ():
                if kill or worker.numbers or not _dismiss(worker.tasks_fd):
                    process.kill(worker.pid)
            for worker in list(self._workers.values()):
                if is_mine:
                    process.reap(worker.pid)
                self._forget(worker)
            if not self._board_map.closed:
                self._board.release()
                self._board_map.close()

    def _forget(self, worker: _Worker) -> None:
        del self._workers[worker.results_fd]
        for fd in (worker.results_fd, worker.pid_fd, worker.tasks_fd):
            if fd >= 0:
                with contextlib.suppress(KeyError, OSError):
                    self._poll.unregister(fd)
                with contextlib.suppress(OSError):
                    os.close(fd)

    # -- the worker's side -------------------------------------------------------------------------------------------

    def _child(self, slot: int, tasks: int, results: int, foreign: tuple[int, ...]) -> None:
        """Be a worker; never returns."""
        code = 1
        try:
            for fd in foreign:
                os.close(fd)
            for other in self._workers.values():
                for fd in (other.results_fd, other.pid_fd, other.tasks_fd):
                    if fd >= 0:
                        os.close(fd)
            process.settle(self._parent)
            self._apply_threads()
            _worker.reseed()
            self.job.call = _worker.prepared(self.job.call, self.job.initialize)
            with os.fdopen(tasks, "rb") as stream:
                self._serve(slot, stream, results)
            code = 0
        except BrokenPipeError:
            code = 0  # the caller is gone
        except BaseException:  # noqa: BLE001 - a forked copy of the caller must not run on into the caller's code
            with contextlib.suppress(BaseException):
                process.report()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            os._exit(code)

    def _serve(self, slot: int, stream: Any, results: int) -> None:
        while len(head := stream.read(_HEAD.size)) == _HEAD.size:
            number, n_bytes, start, quantum_s, block = _HEAD.unpack(head)
            if number == _NO_MORE:
                return
            data = stream.read(n_bytes)
            try:
                items = pickle.loads(data)
            except Exception as error:  # noqa: BLE001 - objects raise anything when they are made; it travels home
                data = pickle.dumps(_worker.pack_error(error, start))
                process.write_all(results, _HEAD.pack(number, len(data), _UNOPENED, 0.0, 0.0), data)
                continue
            self._board[2 * slot] = number
            begin = clock()
            done, failures = self._run(slot, items, quantum_s, block)
            end = clock()
            data = _worker.pack(done, failures, start, _dumps)
            process.write_all(results, _HEAD.pack(number, len(data), len(done), begin, end), data)
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            del items, done, failures

    def _run(self, slot: int, items: Any, quantum_s: float, block: float) -> tuple[list[Any], list[Any]]:
        """Run items for a quantum, telling the board how far it has begun."""
        board, place, job = self._board, 2 * slot + 1, self.job

        def tell(n_begun: int) -> None:
            board[place] = n_begun

        return run_quantum(
            job.call, items, quantum_s, int(block), keep_going=job.keep_going, look_s=schedule.CHECK_S, tell=tell
        )

    # -- the caller's side -------------------------------------------------------------------------------------------

    def task(self, job: Job, work: Work) -> Any:
        """Pickle the items."""
        del job
        return work, send_by(_dumps, work.items)

    def submit(self, number: int, task: Any) -> None:
        """Queue a task for the worker with the fewest."""
        if not callable(task):
            work, data = task
            head = _HEAD.pack(number, len(data), work.start, work.quantum_s, float(work.block))
            self._send(number, work, head + data)
            return
        self._answers.append(Answer(number, Done(([], []), 0, clock(), clock(), self.name), None))

    def _send(self, number: int, work: Work, message: bytes) -> None:
        self._tasks[number] = work
        worker = min(self._workers.values(), key=lambda w: len(w.numbers))
        if not worker.numbers:
            worker.since_s = clock()
        worker.numbers.append(number)
        worker.unsent.append(memoryview(message))
        self._flush(worker)

    def _flush(self, worker: _Worker) -> None:
        """Write what the pipe takes now."""
        while worker.unsent:
            try:
                written = os.write(worker.tasks_fd, worker.unsent[0])
            except BlockingIOError:
                self._poll.register(worker.tasks_fd, select.POLLOUT)
                return
            except BrokenPipeError:
                return  # its death is announced by its other descriptors
            rest = worker.unsent[0][written:]
            if rest:
                worker.unsent[0] = rest
            else:
                worker.unsent.popleft()
        with contextlib.suppress(KeyError):
            self._poll.unregister(worker.tasks_fd)

    def take(self, timeout_s: float) -> list[Answer]:
        """Return the answers that have come."""
        if self._answers:
            timeout_s = 0.0
        if self.job.timeout is not None:
            timeout_s = min(timeout_s, self._next_deadline_s())
        # See Team._wait in _fork.py: a replacement reuses the numbers of closed descriptors.
        owners = {fd: w for w in self._workers.values() for fd in (w.results_fd, w.pid_fd, w.tasks_fd) if fd >= 0}
        for fd, _ in self._poll.poll(timeout_s * 1000):
            worker = owners.get(fd)
            if worker is not None and self._workers.get(worker.results_fd) is worker:
                self._handle(worker, fd)
        if self.job.timeout is not None:
            self._end_overrun()
        answers, self._answers = self._answers, []
        return answers

    def _handle(self, worker: _Worker, fd: int) -> None:
        if fd == worker.tasks_fd:
            self._flush(worker)
            return
        self._receive(worker)
        if fd == worker.pid_fd and self._workers.get(worker.results_fd) is worker:
            self._bury(worker)

    def _receive(self, worker: _Worker) -> None:
        while True:
            try:
                data = os.read(worker.results_fd, _READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                self._messages(worker)
                self._bury(worker)
                return
            worker.buffer += data
            self._messages(worker)

    def _messages(self, worker: _Worker) -> None:
        buffer, used = worker.buffer, 0
        while len(buffer) - used >= _HEAD.size:
            number, n_bytes, n_items, begin, end = _HEAD.unpack_from(buffer, used)
            if len(buffer) - used - _HEAD.size < n_bytes:
                break
            data = bytes(buffer[used + _HEAD.size : used + _HEAD.size + n_bytes])
            used += _HEAD.size + n_bytes
            worker.numbers.remove(number)
            worker.since_s = clock()
            del self._tasks[number]
            if n_items == _UNOPENED:
                self._answers.append(Answer(number, None, _unpacked(data)))
            else:
                self._answers.append(Answer(number, Done(data, n_items, begin, end, f"worker {worker.slot + 1}"), None))
        del buffer[:used]

    def _bury(self, worker: _Worker) -> None:
        """Answer for a dead worker's tasks, and replace it."""
        status = process.reap(worker.pid)
        n_begun = (
            self._board[2 * worker.slot + 1]
            if worker.numbers and self._board[2 * worker.slot] == worker.numbers[0]
            else 0
        )
        self._forget(worker)
        cause = describe_exit(status)
        numbers = list(worker.numbers)
        for position, number in enumerate(numbers):
            n_items = len(self._tasks.pop(number).items)
            begun = min(n_items, n_begun) if position == 0 else 0
            self._answers.append(Answer(number, None, WorkerDied(f"a worker died ({cause})", {}, (), cause), begun))
        self._replace(worker.slot)

    def _replace(self, slot: int) -> None:
        self._board[2 * slot + 1] = 0
        self._board[2 * slot] = 0
        try:
            self._fork(slot)
        except OSError:
            if not self._workers:
                raise

    def _next_deadline_s(self) -> float:
        limit = self.job.timeout or 0.0
        now = clock()
        return max(0.001, min((limit - (now - w.since_s) for w in self._workers.values() if w.numbers), default=0.5))

    def _end_overrun(self) -> None:
        limit = self.job.timeout or 0.0
        for worker in list(self._workers.values()):
            if not worker.numbers or clock() - worker.since_s < limit:
                continue
            process.kill(worker.pid)
            process.reap(worker.pid)
            number = worker.numbers[0]
            self._forget(worker)
            self._answers.append(Answer(number, None, overran(self._tasks.pop(number).start, limit)))
            self._replace(worker.slot)

    def broken(self, error: BaseException) -> str:
        """Return the cause that the death was given."""
        return error.cause if isinstance(error, WorkerDied) else ""

    def renew(self) -> None:
        """Do nothing: each dead worker is replaced at once."""


def _unpacked(data: bytes) -> BaseException:
    """Return the error in a message, or the one of opening it."""
    try:
        return _worker.unpack_error(pickle.loads(data))
    except Exception as error:  # noqa: BLE001 - its class may be known to the worker alone
        return error


def _dismiss(tasks_fd: int) -> bool:
    """Tell an idle worker to leave, whose pipe is empty; returns whether it has been told."""
    try:
        return os.write(tasks_fd, _HEAD.pack(_NO_MORE, 0, 0, 0.0, 0.0)) == _HEAD.size
    except OSError:
        return False


def _dumps(value: Any) -> bytes:
    """Pickle plainly, since a fork knows the same modules and classes; by value where that fails."""
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - objects raise anything from __reduce__; the second pickler decides
        return _ship.dumps_by_value(value)
