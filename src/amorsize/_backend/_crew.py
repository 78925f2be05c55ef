"""
The workers of one map on this machine: what is kept of each, how they are watched, and how they are started and ended.

Team (_team) holds :class:`Workers` and is given a :class:`Crew`, which starts and ends them: forked ones (_fork), or
those of the fork server (_server_crew). A descriptor is watched from the start of its worker to :meth:`Workers.remove`;
the number of a closed one may come again with the next worker, so what one poll tells of a worker that is gone by its
turn is passed over.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from amorsize._backend import _bounds as bounds
from amorsize._backend._voice import Voice

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from amorsize._backend._handout import Handout
    from amorsize._backend._job import Job
    from amorsize._backend._outcome import Outcome
    from amorsize._backend._slots import Slots


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


class Workers:
    """The workers of a team, in the order of their start, and what they are waited for with."""

    def __init__(self) -> None:
        self._by_fd: dict[int, Worker] = {}
        self._poll = select.poll()

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._by_fd.values()))

    def __len__(self) -> int:
        return len(self._by_fd)

    def __contains__(self, worker: Worker) -> bool:
        return self._by_fd.get(worker.results_fd) is worker

    def add(self, worker: Worker) -> None:
        """Wait for a worker too."""
        self._by_fd[worker.results_fd] = worker
        for fd in worker.fds():
            self.watch(fd)

    def watch(self, fd: int) -> None:
        """Wait for one more descriptor of a worker."""
        self._poll.register(fd, select.POLLIN)

    def remove(self, worker: Worker) -> None:
        """Wait for a worker no more, and let appear what it has said."""
        del self._by_fd[worker.results_fd]
        with contextlib.suppress(Exception):  # what the caller's streams raise must not keep descriptors open
            worker.voice.end()
        for fd in worker.fds():
            with contextlib.suppress(KeyError, OSError):
                self._poll.unregister(fd)

    def poll(self, timeout_s: float) -> Iterator[tuple[Worker, int]]:
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


class CrewedTeam(Protocol):
    """What a crew may ask of its team: see :class:`~amorsize._backend._team.Team`."""

    @property
    def job(self) -> Job:
        """The run."""
        ...

    @property
    def n_slots(self) -> int:
        """The workers that it needs."""
        ...

    @property
    def parent(self) -> int:
        """The process of the caller."""
        ...

    @property
    def outcome(self) -> Outcome:
        """What has come home."""
        ...

    @property
    def workers(self) -> Workers:
        """The workers there are."""
        ...

    @property
    def slots(self) -> Slots:
        """The board."""
        ...

    @property
    def handout(self) -> Handout:
        """The pipe of ranges."""
        ...

    def go_alone(self, why: str) -> None:
        """Let the caller do all that is left."""


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

    def start(self, team: CrewedTeam, slot: int) -> Worker:
        """Start a worker; raises OSError where the system refuses one."""
        ...

    def pack(self, start: int, stop: int) -> bool:
        """Make items readable for workers; returns whether they can be sent."""
        ...

    def hear(self, team: CrewedTeam, worker: Worker, /) -> bool:
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


def result_pipe(n_slots: int) -> tuple[int, int]:
    """
    Return a pipe for the results of one of *n_slots* workers; reading it never blocks.

    Raises:
        OSError: If the system refuses it.
    """
    read, write = os.pipe()
    os.set_blocking(read, False)
    with contextlib.suppress(OSError):
        share = bounds.PIPES_BYTES // max(1, n_slots)
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, max(bounds.LEAST_PIPE_BYTES, min(bounds.PIPE_BYTES, share)))
    return read, write
