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
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from amorsize._backend import _bounds as bounds
from amorsize._backend import _process as process
from amorsize._backend import _worker
from amorsize._backend._outcome import describe_exit, overran
from amorsize._backend._tasks import (
    N_BEGUN,
    NO_MORE,
    SAID_TASK,
    SINCE_NS,
    TASK,
    TASK_NUMBER,
    TASK_SLOT,
    UNOPENED_TASK,
    dumps_plainly,
)
from amorsize._backend._voice import Voice
from amorsize._backend._work import Answer, Done, Work, send_by
from amorsize._backend._worker import NoWorkersError
from amorsize._outside import pass_on, suppressed
from amorsize.exceptions import WorkerDied

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    from amorsize._backend._job import Job


clock = time.perf_counter


@dataclass(eq=False, repr=False, match_args=False)
class TaskSeat:
    """
    One worker of a stream.

    Attributes:
        slot: Its place on the board.
        pid: Its process, 0 while that is not known yet.
        tasks_fd: Where its tasks are written.
        results_fd: Where its results are read.
        pid_fd: Becomes readable when it ends; -1 where there is none.
        conn: What else it may have to say, None for a fork.
        seat: What its crew keeps of it.
    """

    slot: int
    pid: int
    tasks_fd: int
    results_fd: int
    pid_fd: int = -1
    conn: Any = None
    seat: Any = None
    has_ended: bool = False
    unsent: deque[memoryview] = field(default_factory=deque)
    buffer: bytearray = field(default_factory=bytearray)
    numbers: deque[int] = field(default_factory=deque)
    voice: Voice = field(default_factory=Voice)

    def fds(self) -> list[int]:
        """Return the descriptors to wait for."""
        conn_fd = -1 if self.conn is None else self.conn.fileno()
        return [fd for fd in (self.results_fd, self.pid_fd, conn_fd) if fd >= 0]

    def write(self) -> bool:
        """
        Write what the pipe of tasks takes now; returns whether that was all.

        Raises:
            BrokenPipeError: If the worker is gone.
        """
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


class TaskCrew(Protocol):
    """How the workers of a stream are started and ended."""

    def board(self, n_bytes: int) -> mmap.mmap:
        """Return memory that is shared with the workers."""
        ...

    def start_tasks(self, pool: TaskPool, slot: int, tasks: tuple[int, int], results: tuple[int, int]) -> TaskSeat:
        """Start a worker with these pipes and close its ends of them; raises OSError where the system refuses one."""
        ...

    def hear(self, pool: Any, worker: Any, /) -> bool:
        """Take what a worker says beside its results; returns whether it is still there."""
        ...

    def kill(self, worker: Any) -> None:
        """End a worker at once."""

    def reap(self, worker: Any) -> int | None:
        """Wait for the end of a worker; returns its wait status, None if nobody knows it."""
        ...

    def dismiss(self, worker: Any) -> None:
        """Be done with a worker that has ended, or has been told that the stream is over."""

    def close(self) -> None:
        """Give back what belongs to the stream."""


class TaskPool:
    """A carrier with workers of its own; made for one stream, closed with it."""

    def __init__(self, job: Job, crew: TaskCrew, name: str) -> None:
        self.job = job
        self.name = name
        self.crew = crew
        self.ahead = 1 if job.timeout is None else 0
        self.parent = os.getpid()
        self._refused: str = ""
        n_bytes = 8 * TASK_SLOT * job.n_jobs
        self._board_map = crew.board(n_bytes)
        with memoryview(self._board_map) as whole:
            self.board = whole[:n_bytes].cast("q")
        self._poll = select.poll()
        self.workers: dict[int, TaskSeat] = {}
        self._tasks: dict[int, Work] = {}
        self._answers: list[Answer] = []
        self.start_each_s = 0.0
        begin = clock()
        for stream in (sys.stdout, sys.stderr):
            with suppressed():  # closed or odd streams are the user's business
                stream.flush()
        try:
            for slot in range(job.n_jobs):
                self._start(slot)
        except BaseException:
            self.close(kill=True)
            raise
        self.start_each_s = (clock() - begin) / job.n_jobs

    # -- processes ---------------------------------------------------------------------------------------------------

    def _start(self, slot: int) -> TaskSeat:
        with process.undisturbed():
            made = list(os.pipe())
            try:
                made += os.pipe()
                worker = self.crew.start_tasks(self, slot, (made[0], made[1]), (made[2], made[3]))
            except OSError:
                for fd in made:
                    with contextlib.suppress(OSError):
                        os.close(fd)
                raise
            os.set_blocking(worker.tasks_fd, False)
            os.set_blocking(worker.results_fd, False)
            self.workers[worker.results_fd] = worker
            for fd in worker.fds():
                self._poll.register(fd, select.POLLIN)
        return worker

    def watch(self, fd: int) -> None:
        """Wait for one more descriptor of a worker."""
        self._poll.register(fd, select.POLLIN)

    def go_alone(self, why: str) -> None:
        """Let the caller do what workers cannot."""
        self._refused = why
        for number in list(self._tasks):
            self._refuse(number)

    def _refuse(self, number: int) -> None:
        self._tasks.pop(number, None)
        self._answers.append(Answer(number, None, NoWorkersError(self._refused)))
        for worker in self.workers.values():
            with contextlib.suppress(ValueError):
                worker.numbers.remove(number)

    def close(self, *, kill: bool = False) -> None:
        """
        End the workers, wait for them, and give every descriptor back. May be called again.

        In a forked copy of the program only the descriptors: the workers are its parent's.
        """
        with process.undisturbed():
            if os.getpid() != self.parent:
                self._abandon()
                return
            for worker in list(self.workers.values()):
                if kill or worker.numbers or not _dismiss(worker.tasks_fd):
                    self.crew.kill(worker)
                    self._end(worker)
                else:
                    self._forget(worker)
            if not self._board_map.closed:
                self.board.release()
                self._board_map.close()
                self.crew.close()

    def _abandon(self) -> None:
        for worker in self.workers.values():
            for fd in (worker.tasks_fd, worker.results_fd, worker.pid_fd):
                with contextlib.suppress(OSError):
                    os.close(fd)
        self.workers.clear()

    def _forget(self, worker: TaskSeat) -> None:
        del self.workers[worker.results_fd]
        with contextlib.suppress(Exception):  # what the caller's streams raise must not keep descriptors open
            worker.voice.end()
        for fd in (*worker.fds(), worker.tasks_fd):
            with contextlib.suppress(KeyError, OSError):
                self._poll.unregister(fd)
        os.close(worker.tasks_fd)
        self.crew.dismiss(worker)

    def _end(self, worker: TaskSeat) -> int | None:
        """Wait for the end of a worker that dies, and be done with it; returns its wait status."""
        status = self.crew.reap(worker)
        worker.has_ended = True
        self._forget(worker)
        return status

    # -- the caller's side -------------------------------------------------------------------------------------------

    def task(self, job: Job, work: Work) -> Any:
        """Pickle the items."""
        del job
        return work, send_by(dumps_plainly, work.items)

    def submit(self, number: int, task: Any) -> None:
        """Queue a task for the worker with the fewest."""
        if not callable(task):
            work, data = task
            head = TASK.pack(number, len(data), work.start, work.quantum_s, float(work.block))
            self._send(number, work, head + data)
            return
        self._answers.append(Answer(number, Done(([], []), 0, clock(), clock(), self.name), None))

    def _send(self, number: int, work: Work, message: bytes) -> None:
        self._tasks[number] = work
        if self._refused or not self.workers:
            self._refuse(number)
            return
        worker = min(self.workers.values(), key=lambda w: len(w.numbers))
        worker.numbers.append(number)
        worker.unsent.append(memoryview(message))
        self._flush(worker)

    def _flush(self, worker: TaskSeat) -> None:
        """Write what the pipe takes now, and the rest when it takes more."""
        with contextlib.suppress(BrokenPipeError):  # its death is announced by its other descriptors
            if not worker.write():
                self._poll.register(worker.tasks_fd, select.POLLOUT)
                return
            with contextlib.suppress(KeyError):
                self._poll.unregister(worker.tasks_fd)

    def take(self, timeout_s: float) -> list[Answer]:
        """Return the answers that have come."""
        if self._answers:
            timeout_s = 0.0
        if self.job.timeout is not None:
            timeout_s = min(timeout_s, self._next_deadline_s())
        # See Workers.poll in _crew.py: a replacement reuses the numbers of closed descriptors.
        owners = {fd: w for w in self.workers.values() for fd in (*w.fds(), w.tasks_fd)}
        for fd, _ in self._poll.poll(timeout_s * 1000):
            worker = owners.get(fd)
            if worker is not None and self.workers.get(worker.results_fd) is worker:
                self._handle(worker, fd)
        for worker in self.workers.values():
            worker.voice.look()
        if self.job.timeout is not None:
            self._end_overrun()
        answers, self._answers = self._answers, []
        return answers

    def _handle(self, worker: TaskSeat, fd: int) -> None:
        if fd == worker.tasks_fd:
            self._flush(worker)
            return
        if worker.conn is not None and fd == worker.conn.fileno():
            if self.crew.hear(self, worker):
                return
            fd = worker.pid_fd  # it has ended, whichever descriptor says so first
        self._receive(worker)
        if fd == worker.pid_fd and self.workers.get(worker.results_fd) is worker:
            self._bury(worker)

    def _receive(self, worker: TaskSeat) -> None:
        while True:
            try:
                data = os.read(worker.results_fd, bounds.READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                self._messages(worker)
                self._bury(worker)
                return
            worker.buffer += data
            self._messages(worker)

    def _messages(self, worker: TaskSeat) -> None:
        buffer, used = worker.buffer, 0
        while len(buffer) - used >= TASK.size:
            number, n_bytes, n_items, begin, end = TASK.unpack_from(buffer, used)
            if len(buffer) - used - TASK.size < n_bytes:
                break
            data = bytes(buffer[used + TASK.size : used + TASK.size + n_bytes])
            used += TASK.size + n_bytes
            if number == SAID_TASK:
                worker.voice.hear(data)
                continue
            worker.voice.end()
            worker.numbers.remove(number)
            del self._tasks[number]
            if n_items == UNOPENED_TASK:
                self._answers.append(Answer(number, None, _unpacked(data)))
            else:
                self._answers.append(Answer(number, Done(data, n_items, begin, end, f"worker {worker.slot + 1}"), None))
        del buffer[:used]

    def _bury(self, worker: TaskSeat) -> None:
        """Answer for a dead worker's tasks, and replace it."""
        n_begun = self.board[TASK_SLOT * worker.slot + N_BEGUN] if self._is_taken(worker) else 0
        cause = describe_exit(self._end(worker))
        numbers = list(worker.numbers)
        for position, number in enumerate(numbers):
            n_items = len(self._tasks.pop(number).items)
            begun = min(n_items, n_begun) if position == 0 else 0
            self._answers.append(Answer(number, None, WorkerDied(f"a worker died ({cause})", {}, (), cause), begun))
        self._replace(worker.slot)

    def _replace(self, slot: int) -> None:
        for name in range(TASK_SLOT):
            self.board[TASK_SLOT * slot + name] = 0
        try:
            self._start(slot)
        except OSError as error:
            pass_on(error)
            if not self.workers:
                self.go_alone(f"workers cannot be started: {error}")

    def _is_taken(self, worker: TaskSeat) -> bool:
        """Tell whether the board speaks of the first of a worker's tasks."""
        return bool(worker.numbers) and self.board[TASK_SLOT * worker.slot + TASK_NUMBER] == worker.numbers[0]

    def _elapsed_s(self, worker: TaskSeat) -> float:
        """Return the seconds for which a worker has been at an item: not those of its imports and its initializer."""
        since_ns = self.board[TASK_SLOT * worker.slot + SINCE_NS]
        return (time.monotonic_ns() - since_ns) / 1e9 if since_ns and self._is_taken(worker) else 0.0

    def _next_deadline_s(self) -> float:
        limit = self.job.timeout or 0.0
        return max(0.001, min([bounds.HOUSEKEEPING_S, *(limit - self._elapsed_s(w) for w in self.workers.values())]))

    def _end_overrun(self) -> None:
        limit = self.job.timeout or 0.0
        for worker in list(self.workers.values()):
            if self._elapsed_s(worker) < limit:
                continue
            self.crew.kill(worker)
            number = worker.numbers[0]
            self._end(worker)
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
        return os.write(tasks_fd, TASK.pack(NO_MORE, 0, 0, 0.0, 0.0)) == TASK.size
    except OSError:
        return False
