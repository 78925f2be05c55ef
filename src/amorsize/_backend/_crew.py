"""
The workers of one map or stream: how they are watched, how they are started and ended, and what becomes of lost ones.

A :class:`Crew` starts and ends them: forked ones (_fork), or those of the fork server (_server_crew). Team (_team) and
TaskPool (_pool) hold :class:`Workers`. A descriptor is watched from the start of its worker to :meth:`Workers.remove`;
the number of a closed one may come again with the next worker, so what one poll tells of a worker that is gone by its
turn is passed over.

What a team does about workers that die, hang, or cannot be had is in :class:`CrewedTeam`. An item is started at most
once, unless ``retries`` allows more: what a dead worker had taken but not begun is read off the board and handed out
again; what it was at fails, or runs again last of all and alone. A worker that has overrun its time is stopped and its
results are read before the board is, so that no item that was done fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import sys
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from amorsize._backend import _bounds as bounds
from amorsize._backend._channels import Worker
from amorsize._backend._job import Engine, describe_exit, died_idle, overran
from amorsize._backend._worker import MISSING
from amorsize._outside import pass_on
from amorsize.exceptions import WorkerDied

if sys.platform != "linux":
    raise ImportError("this way of starting workers is for Linux; nothing imports it elsewhere")

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

    from amorsize._backend._channels import Handout, Inbox, TaskSeat
    from amorsize._backend._local_worker import Slots

W = TypeVar("W", bound=Worker)


class Workers(Generic[W]):
    """The workers of a team, in the order of their start, and what they are waited for with."""

    def __init__(self) -> None:
        self._by_fd: dict[int, W] = {}
        self._poll = select.poll()

    def __iter__(self) -> Iterator[W]:
        return iter(list(self._by_fd.values()))

    def __len__(self) -> int:
        return len(self._by_fd)

    def __contains__(self, worker: W) -> bool:
        return self._by_fd.get(worker.results_fd) is worker

    def add(self, worker: W) -> None:
        """Wait for a worker too."""
        self._by_fd[worker.results_fd] = worker
        for fd in worker.fds():
            self.watch(fd)

    def watch(self, fd: int, events: int = select.POLLIN) -> None:
        """Wait for one more descriptor of a worker."""
        self._poll.register(fd, events)

    def ignore(self, fd: int) -> None:
        """Wait for a descriptor no more."""
        with contextlib.suppress(KeyError, OSError):
            self._poll.unregister(fd)

    def remove(self, worker: W) -> None:
        """Wait for a worker no more, and let appear what it has said."""
        del self._by_fd[worker.results_fd]
        with contextlib.suppress(Exception):  # what the caller's streams raise must not keep descriptors open
            worker.voice.end()
        for fd in worker.fds():
            self.ignore(fd)

    def poll(self, timeout_s: float) -> Iterator[tuple[W, int]]:
        """Wait at most *timeout_s* for something to read; yields the workers and the descriptors that have it."""
        ready = self._poll.poll(timeout_s * 1000)
        if not ready:  # so it is after most items that the caller computes
            return
        # One poll can tell twice of a death, and a replacement reuses the numbers of closed descriptors: who owns a
        # number is looked up as of now, not as of its turn.
        owners = {fd: w for w in self._by_fd.values() for fd in w.fds()}
        for fd, _ in ready:
            worker = owners.get(fd)
            if worker is not None and worker in self:
                yield worker, fd

    def forget(self) -> list[int]:
        """In a forked copy of the program: have no workers any more; returns the descriptors to close."""
        fds = [fd for worker in self for fd in (worker.results_fd, worker.pid_fd) if fd >= 0]
        self._by_fd.clear()
        return fds


class Crew:
    """
    How the workers of a team are started and ended, and how its items reach them; what is said here holds for forks.

    Attributes:
        packs: Whether items are packed before their range is posted.
        reuses: Whether workers that are idle when a map fails may stay for another one.
        most_items: Items in one range at most, None where that does not matter.
    """

    packs: bool = False
    reuses: bool = False
    most_items: int | None = None

    def board(self, n_bytes: int) -> mmap.mmap:
        """Return memory that is shared with the workers."""
        raise NotImplementedError

    def start(self, team: CrewedTeam, slot: int) -> Worker:
        """Start a worker; raises OSError where the system refuses one."""
        raise NotImplementedError

    def start_tasks(self, pool: Any, slot: int, tasks: tuple[int, int], results: tuple[int, int]) -> TaskSeat:
        """Start a worker of a stream with these pipes; raises OSError where the system refuses one."""
        raise NotImplementedError

    def pack(self, start: int, stop: int) -> bool:  # noqa: ARG002 - a fork inherits them
        """Make items readable for workers; returns whether they can be sent."""
        return True

    def hear(self, team: Any, worker: Any) -> bool:  # noqa: ARG002 - a fork says nothing, and ends as it lets go of its pipe
        """Take what a worker says beside its results; returns whether it is still there."""
        return False

    def buffers(self, worker: Worker) -> memoryview:
        """Return the memory in which the buffers of a worker's next results came; a fork's are in its pipe."""
        raise NotImplementedError

    def kill(self, worker: Any) -> None:
        """End a worker at once."""
        raise NotImplementedError

    def reap(self, worker: Any) -> int | None:
        """Wait for the end of a worker; returns its wait status, None if nobody knows it."""
        raise NotImplementedError

    def dismiss(self, worker: Any) -> None:
        """Be done with a worker that has ended, or has been told that the map is over."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Give back descriptors in a forked copy of the program."""

    def close(self) -> None:
        """Give back what belongs to the map."""


def result_pipe(n_slots: int) -> tuple[int, int]:
    """Return a pipe for the results of one of *n_slots* workers; reading it never blocks. Raises OSError if refused."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    with contextlib.suppress(OSError):
        share = bounds.PIPES_BYTES // max(1, n_slots)
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, max(bounds.LEAST_PIPE_BYTES, min(bounds.PIPE_BYTES, share)))
    return read, write


# -- a team, and its workers that die, hang, or cannot be had ----------------------------------------------------------


class CrewedTeam(Engine):
    """A map over the workers of a crew: what it has, and what it does about those that die, hang, or cannot be had."""

    crew: Crew
    parent: int
    n_slots: int
    workers: Workers[Worker]
    slots: Slots
    handout: Handout
    inbox: Inbox
    block: int
    _idle_deaths = 0

    def wait(self, timeout_s: float) -> None:
        """Take in what workers have sent; waits at most *timeout_s* for the first of it."""
        raise NotImplementedError

    def start_one(self, slot: int) -> None:
        """Start one worker in *slot*; raises OSError if the system refuses another process or descriptor."""
        raise NotImplementedError

    def end(self, worker: Worker) -> int | None:
        """Wait for the end of a worker that dies, and be done with it; returns its wait status."""
        raise NotImplementedError

    def start_last(self) -> None:
        """Start a worker where there is none left."""
        try:
            self.start_one(0)
        except OSError as error:
            pass_on(error)
            self.go_alone(f"workers cannot be started: {error}")

    def go_alone(self, why: str) -> None:
        """Let the caller do all that is left, where workers cannot; where it must not, that fails."""
        if self.handout.is_alone:
            return
        if not self.job.caller_may_compute:
            self._give_up(WorkerDied(why, {}, (), why))
            return
        self.tell(f"items run in this process: {why}")
        self.handout.is_alone = True

    def is_stalled(self) -> bool:
        """Tell whether nobody has work although some is missing: it was lost with a worker killed while taking it."""
        if not self._is_idle():
            return False
        self.wait(0)  # what has been done is on its way, and a death may be
        return self._is_idle()

    def _is_idle(self) -> bool:
        """Tell whether work is missing that neither waits nor is with a worker; asked only after a death."""
        if not self.outcome.deaths or self.is_done() or self.handout.n_posted() or self.handout.mine:
            return False
        return all(self.slots.is_idle(w.slot) for w in self.workers)

    def repost_missing(self) -> None:
        """Hand out again what was lost; last of all, alone, what workers died of."""
        lost = set(self.outcome.suspects)
        missing = [i for i in range(self.limit) if self.outcome.results[i] is MISSING and i not in lost]
        self.handout.backlog += [(i, i + 1) for i in reversed(missing)]
        self.handout.post_backlog()
        if not missing and lost:
            self._settle_suspects()

    def let_go(self, worker: Worker) -> None:
        """Take note that a worker has closed its pipe: it is dead, unless it says that it cannot do this job."""
        if self.crew.hear(self, worker) and (self.handout.is_alone or self.is_done()):
            self.workers.remove(worker)
            self.crew.dismiss(worker)
        else:
            self.bury(worker)

    def bury(self, worker: Worker) -> None:
        """Take note of a dead worker: what it was at, what it had not begun."""
        low, high, stop = self.slots.bounds(worker.slot)
        busy = self.slots.is_busy(worker.slot)
        status = self.end(worker)
        if self.is_done():
            return
        self.outcome.deaths += 1
        in_flight = [i for i in range(low, high) if self.outcome.results[i] is MISSING] if busy else []
        if busy and stop > high:
            self.handout.backlog.append((high, stop))
        self._blame(in_flight, describe_exit(status))
        if status is not None:  # else it went down with all the others
            self._idle_deaths = 0 if stop else self._idle_deaths + 1
        # What ends some before they begin an item does not end those that have begun one.
        is_any_at_work = any(self.slots.bounds(worker.slot)[2] for worker in self.workers)
        if self._idle_deaths > bounds.MOST_IDLE_DEATHS and not is_any_at_work:
            self._give_up(died_idle(describe_exit(status)))
        if not self.is_done():
            self._replace(worker.slot)

    def _replace(self, slot: int) -> None:
        """Start a worker for a dead one, unless those that are started die at once; the others go on."""
        if self._idle_deaths <= bounds.MOST_IDLE_DEATHS:
            try:
                self.start_one(slot)
            except OSError as error:  # no more processes to be had
                pass_on(error)
        self.handout.post_backlog()

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
                self.accept(i, [error], [(0, error)])
        if again and outcome.died is error:
            outcome.died = None

    def _give_up(self, error: WorkerDied) -> None:
        """Fail what is left: workers end before they take anything, or cannot be had."""
        self.outcome.died = self.outcome.died or error
        for i in range(self.limit):
            if i < self.limit and self.outcome.results[i] is MISSING:
                self.accept(i, [error], [(0, error)])

    def _settle_suspects(self) -> None:
        """Run the items that were in flight when a worker died again, one at a time, nothing beside them."""
        suspects, self.outcome.suspects = sorted(set(self.outcome.suspects)), []
        for worker in list(self.workers)[1:]:
            self.crew.kill(worker)
            self.end(worker)
        if not self.workers:
            self.start_last()
        self.block = 1
        for i in suspects:
            if self.outcome.results[i] is not MISSING:
                continue
            self.handout.post_some([(i, i + 1)])
            while self.outcome.results[i] is MISSING and i not in self.outcome.suspects:
                self.wait(bounds.HOUSEKEEPING_S)
                if self.job.timeout is not None:
                    self.end_overrun()
                if not self.workers:
                    self.start_last()
                if self.is_stalled() and self.outcome.results[i] is MISSING and i not in self.outcome.suspects:
                    self.handout.post_some([(i, i + 1)])

    def next_deadline_s(self) -> float:
        """Return the seconds until the first item that is running has had its time."""
        limit = self.job.timeout or 0.0
        busy = [worker.slot for worker in self.workers if self.slots.is_busy(worker.slot)]
        waits = [limit - self.slots.elapsed_s(slot) for slot in busy]
        return max(0.001, min([bounds.HOUSEKEEPING_S, *waits]))

    def end_overrun(self) -> None:
        """Kill workers whose item takes longer than ``timeout``; the item fails, its worker is replaced."""
        limit = self.job.timeout or 0.0
        for worker in self.workers:
            is_busy = self.slots.is_busy(worker.slot)
            low, high, _ = self.slots.bounds(worker.slot)
            if not (is_busy and low < high) or self.slots.elapsed_s(worker.slot) < limit:
                continue
            self.crew.kill(worker)
            self.crew.reap(worker)
            self.inbox.drain(worker, self.accept)
            low, high, stop = self.slots.bounds(worker.slot)
            self.end(worker)
            if stop > high:
                self.handout.backlog.append((high, stop))
            for i in range(low, high):
                if self.outcome.results[i] is MISSING:
                    error = overran(self.job.base + i, limit)
                    self.accept(i, [error], [(0, error)])
            if not self.is_done():
                self._replace(worker.slot)


def _name_items(indices: tuple[int, ...]) -> str:
    if not indices:
        return "no item"
    if len(indices) == 1:
        return f"item {indices[0]}"
    return f"items {indices[0]} to {indices[-1]}"
