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
import os
import pickle
import select
import sys
import time
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from amorsize._backend import _bounds as bounds
from amorsize._backend import _pickles, _worker
from amorsize._backend import _process as process
from amorsize._backend._carrier import Answer, Done, Work, send_by
from amorsize._backend._crew import Workers
from amorsize._backend._job import describe_exit, overran
from amorsize._backend._local_worker import (
    N_BEGUN,
    NO_MORE,
    SAID_TASK,
    TASK,
    TASK_NUMBER,
    TASK_SINCE_NS,
    TASK_SLOT,
    UNOPENED_TASK,
)
from amorsize._backend._worker import NoWorkersError
from amorsize._outside import pass_on
from amorsize.exceptions import WorkerDied

if sys.platform != "linux":
    raise ImportError("this way of starting workers is for Linux; nothing imports it elsewhere")

if TYPE_CHECKING:
    from amorsize._backend._channels import TaskSeat
    from amorsize._backend._crew import Crew
    from amorsize._backend._job import Job

clock = time.perf_counter


class TaskPool:
    """A carrier with workers of its own; made for one stream, closed with it."""

    def __init__(self, job: Job, crew: Crew, name: str) -> None:
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
        self.workers: Workers[TaskSeat] = Workers()
        self._tasks: dict[int, Work] = {}
        self._answers: list[Answer] = []
        self.start_each_s = 0.0
        begin = clock()
        process.flush_streams()
        try:
            for slot in range(job.n_jobs):
                self._start(slot)
        except BaseException:
            self.close(kill=True)
            raise
        self.start_each_s = (clock() - begin) / job.n_jobs

    # -- processes ---------------------------------------------------------------------------------------------------

    def _start(self, slot: int) -> None:
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
            self.workers.add(worker)

    def go_alone(self, why: str) -> None:
        """Let the caller do what workers cannot."""
        self._refused = why
        for number in list(self._tasks):
            self._refuse(number)

    def _refuse(self, number: int) -> None:
        self._tasks.pop(number, None)
        self._answers.append(Answer(number, None, NoWorkersError(self._refused)))
        for worker in self.workers:
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
            for worker in self.workers:
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
        for fd in [*(worker.tasks_fd for worker in self.workers), *self.workers.forget()]:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _forget(self, worker: TaskSeat) -> None:
        self.workers.remove(worker)
        worker.unsent.clear()
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
        return work, send_by(_pickles.dumps, work.items)

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
        worker = min(self.workers, key=lambda w: len(w.numbers))
        worker.numbers.append(number)
        worker.unsent.append(memoryview(message))
        self._flush(worker)

    def _flush(self, worker: TaskSeat) -> None:
        """Write what the pipe takes now, and the rest when it takes more."""
        with contextlib.suppress(BrokenPipeError):  # its death is announced by its other descriptors
            if not worker.write():
                self.workers.watch(worker.tasks_fd, select.POLLOUT)
                return
            self.workers.ignore(worker.tasks_fd)

    def take(self, timeout_s: float) -> list[Answer]:
        """Return the answers that have come."""
        if self._answers:
            timeout_s = 0.0
        if self.job.timeout is not None:
            timeout_s = min(timeout_s, self._next_deadline_s())
        for worker, fd in self.workers.poll(timeout_s):
            self._handle(worker, fd)
        for worker in self.workers:
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
        if fd == worker.pid_fd and worker in self.workers:
            self._bury(worker)

    def _receive(self, worker: TaskSeat) -> None:
        while True:
            try:
                data = os.read(worker.results_fd, bounds.READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                self._messages(worker)
                self._let_go(worker)
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

    def _let_go(self, worker: TaskSeat) -> None:
        """Take note that a worker has closed its pipe: it is dead, unless it says that it cannot open the function."""
        if self.crew.hear(self, worker) and self._refused:
            self._forget(worker)
        else:
            self._bury(worker)

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
        since_ns = self.board[TASK_SLOT * worker.slot + TASK_SINCE_NS]
        return (monotonic_ns() - since_ns) / 1e9 if since_ns and self._is_taken(worker) else 0.0

    def _next_deadline_s(self) -> float:
        limit = self.job.timeout or 0.0
        return max(0.001, min([bounds.HOUSEKEEPING_S, *(limit - self._elapsed_s(w) for w in self.workers)]))

    def _end_overrun(self) -> None:
        limit = self.job.timeout or 0.0
        for worker in self.workers:
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
