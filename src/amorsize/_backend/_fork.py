"""Workers forked from the caller for one map: they inherit its items, which are not pickled at all. Linux only."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
from typing import TYPE_CHECKING, Any

from amorsize._backend import _blas, _output, _worker
from amorsize._backend import _process as process
from amorsize._backend._channels import TaskSeat, Worker
from amorsize._backend._crew import Crew, result_pipe
from amorsize._backend._local_worker import PipeHome, RangeJob, RangeWorker, TaskWorker
from amorsize._backend._pool import TaskPool
from amorsize._backend._team import Team

if sys.platform != "linux":
    raise ImportError("this way of starting workers is for Linux; nothing imports it elsewhere")

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._backend._crew import CrewedTeam
    from amorsize._backend._job import Job


class Forks(Crew):
    """Starts and ends forked workers."""

    def __init__(self, job: Job) -> None:
        self._apply_threads = _blas.prepare(job.threads)

    def board(self, n_bytes: int) -> mmap.mmap:
        """Return memory that forks inherit."""
        return mmap.mmap(-1, n_bytes)

    def start(self, team: CrewedTeam, slot: int) -> Worker:
        """Fork, unless what has happened since the others were forked forbids it."""
        if team.outcome.deaths and team.job.blocker is not None and (reason := team.job.blocker()):
            raise OSError(errno.EPERM, reason)
        read, write = result_pipe(team.n_slots)
        try:
            pid = process.fork()
        except OSError:
            os.close(read)
            os.close(write)
            raise
        if pid == 0:
            self._child(team, slot, read, write)
        os.close(write)
        return Worker(slot, pid, read, process.pidfd(pid))

    def _child(self, team: CrewedTeam, slot: int, read: int, write: int) -> None:
        """Be a worker; never returns."""
        others = [fd for other in team.workers for fd in other.fds()]

        def work() -> None:
            home, job = PipeHome(write, team.job.base), team.job
            _output.listen(home.words, f"amorsize-{slot + 1}")
            call = _worker.prepared(job.call, job.initialize)
            ranges = RangeJob(call, job.items, job.base, job.item_s, job.batch_size, job.keep_going, job.timeout)
            RangeWorker(ranges, slot, team.slots.board, (team.handout.task_r, team.handout.task_w), home).serve()

        self._be(team.parent, [read, *others], work)

    def _be(self, parent: int, foreign: list[int], work: Callable[[], None]) -> None:
        """Run *work* in a fresh fork, without the descriptors that are not its own; never returns."""
        code = 1
        try:
            for fd in foreign:
                os.close(fd)
            process.settle(parent)
            self._apply_threads()
            _worker.reseed()
            work()
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
                _output.flush()
                _output.flush_originals()
            os._exit(code)

    def start_tasks(self, pool: TaskPool, slot: int, tasks: tuple[int, int], results: tuple[int, int]) -> TaskSeat:
        """Fork a worker for a stream."""
        pid = process.fork()
        if pid == 0:
            self._task_child(pool, slot, tasks, results)
        os.close(tasks[0])
        os.close(results[1])
        return TaskSeat(slot, pid, results[0], process.pidfd(pid), tasks_fd=tasks[1])

    def _task_child(self, pool: TaskPool, slot: int, tasks: tuple[int, int], results: tuple[int, int]) -> None:
        """Be a worker of a stream; never returns."""
        others = [fd for other in pool.workers for fd in {*other.fds(), other.tasks_fd}]

        def work() -> None:
            worker = TaskWorker(slot, pool.board, results[1], keep_going=pool.job.keep_going)
            _output.listen(worker.words, f"amorsize-{slot + 1}")
            worker.call = _worker.prepared(pool.job.call, pool.job.initialize)
            with os.fdopen(tasks[0], "rb") as stream:
                worker.serve(stream)

        self._be(pool.parent, [tasks[1], results[0], *others], work)

    def kill(self, worker: Any) -> None:
        """End a worker at once."""
        process.kill(worker.pid)

    def reap(self, worker: Any) -> int | None:
        """Wait for the end of a worker; returns its wait status."""
        if not worker.has_ended:
            worker.seat, worker.has_ended = process.reap(worker.pid), True
        status: int | None = worker.seat
        return status

    def dismiss(self, worker: Any) -> None:
        """Wait for the end of a worker, and close its descriptors."""
        self.reap(worker)
        for fd in worker.fds():
            os.close(fd)


def fork_team(job: Job) -> Team:
    """Make a team of forked workers for a job; nothing is started yet."""
    return Team(job, Forks(job))


def fork_pool(job: Job) -> TaskPool:
    """Fork workers for a stream; raises OSError if the system refuses them."""
    return TaskPool(job, Forks(job), "fork")
