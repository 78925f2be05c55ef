"""
The fork server of this process, as the caller has it: starts it, asks it for workers, keeps those that are idle.

    SERVER ── posix_spawn ──► server ── fork ──► workers
       │  seats: one socket to each worker, made here and handed to the server; usable before anybody has answered
       └─ taken and given back by ServerCrew (_server_crew), which brings one map to the workers of one Team

Starting is a spawn and nothing more: the caller never waits for the server, and requests to it and to its workers wait
in their sockets until they are there to be read. Between maps there is no thread and no timer of ours in the caller.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import select
import signal
import socket
import sys
import threading
from collections import deque
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Final

from amorsize._backend import _bounds as bounds
from amorsize._backend import _memory, _spawn
from amorsize._backend import _process as process
from amorsize._backend._job import describe_exit
from amorsize._backend._local_worker import NUMBER
from amorsize._backend._serving import ENDED, FORK, FREE, HELLO, KILL, LOAD, PAIR, READY
from amorsize._backend._worker import no_interrupt

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)


@dataclass(eq=False, repr=False, match_args=False)
class Seat:
    """
    One worker of the server, as the caller knows it.

    Attributes:
        number: Its name between caller and server.
        conn: The socket to it.
        pid: Its process, 0 until it has said so.
        pid_fd: Becomes readable when it ends; -1 until its process is known, or on kernels without.
        given: The number of the map it was given last.
        is_free: Whether it has said that it waits for work; one that has not may still be importing a module.
        memories: Descriptors of results that are on their way, with the number of their map.
        status: Its wait status once the server has told it.
        has_ended: Whether it has ended.
    """

    number: int
    conn: socket.socket
    pid: int = 0
    pid_fd: int = -1
    given: int = 0
    is_free: bool = False
    memories: deque[tuple[int, int]] = field(default_factory=deque)
    status: int | None = None
    has_ended: bool = False

    def take_in(self, data: bytes) -> None:
        """Take in that it is there, or free."""
        if data[:1] == HELLO:
            (self.pid,) = NUMBER.unpack(data[1:])
            self.pid_fd = process.pidfd(self.pid)
            self.is_free = self.given == 0
        elif data[:1] == FREE:
            self.is_free = NUMBER.unpack(data[1:])[0] == self.given

    def listen(self) -> None:
        """Hear what it has said since its last map; what it says of that map itself is of no interest any more."""
        with contextlib.suppress(OSError):
            while True:
                data, fds = _memory.receive(self.conn, wait=False)
                for fd in fds:
                    os.close(fd)
                if not data:
                    return
                self.take_in(data)

    def close(self) -> None:
        """Give its descriptors back."""
        self.conn.close()
        for _, fd in self.memories:
            os.close(fd)
        self.memories.clear()
        if self.pid_fd >= 0:
            os.close(self.pid_fd)
            self.pid_fd = -1


class Server:
    """
    The fork server of this process, and its workers.

    Any thread may use it. A forked copy of the program has its own.

    Attributes:
        refusal: Why no more servers are started; empty as long as they are.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._conn: socket.socket | None = None
        self._pid = 0
        self._idle: list[Seat] = []
        self._seats: dict[int, Seat] = {}
        self._numbers = itertools.count(1)
        self._loaded: set[str] = set()
        self._given: set[str] = set()
        self._is_ready = False
        self._n_failures = 0
        self.began_s = 0.0
        self.refusal = ""

    # -- what there is -----------------------------------------------------------------------------------------------

    def n_idle(self) -> int:
        """Return the workers that wait for a map."""
        with self._lock:
            self._hear()
            for seat in self._idle:
                seat.listen()
            return sum(seat.is_free for seat in self._idle)

    def state(self) -> tuple[int, float] | None:
        """Return the idle workers and the share of a start that is still ahead; None where there is no server."""
        n_idle = self.n_idle()
        with self._lock:
            if self._conn is None or self._owner != os.getpid():
                return None
            left = 0.0 if self._is_ready else max(0.1, 1.0 - (perf_counter() - self.began_s) / bounds.START_S)
            return n_idle, left

    # -- the server --------------------------------------------------------------------------------------------------

    def start(self, threads: int = 1) -> None:
        """Start the server unless it is there; does not wait. Raises OSError if others ended before they were ready."""
        with self._lock, no_interrupt():
            if self._owner != os.getpid():
                self._forget()
            self._hear()
            if self._conn is not None:
                return
            if self.refusal:
                raise OSError(self.refusal)
            self._spawn(threads)
            atexit.unregister(self.close)
            atexit.register(self.close)

    def _spawn(self, threads: int) -> None:
        self._pid, self._conn, self.began_s = _spawn.take(threads)
        self._is_ready, self._loaded, self._given = False, set(), set()

    def has_workers_with(self, names: frozenset[str]) -> bool:
        """Tell whether workers are idle, and have had functions that use these modules."""
        with self._lock:
            return self.n_idle() > 0 and names <= self._given

    def load(self, names: set[str]) -> None:
        """Have packages imported before the next worker is forked."""
        with self._lock:
            wanted = names - self._loaded
            if wanted and self._conn is not None:
                self._loaded |= wanted
                with contextlib.suppress(OSError):
                    self._conn.send(LOAD + " ".join(sorted(wanted)).encode())

    def _hear(self, timeout_s: float = 0.0) -> None:
        """Take in what the server says; waits at most *timeout_s* for the first of it."""
        if self._owner != os.getpid() or self._conn is None:
            return
        if timeout_s and not _is_readable(self._conn, timeout_s):
            return
        while self._conn is not None:
            try:
                data = self._conn.recv(bounds.MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._is_gone()
            elif data[:1] == READY:
                self._is_ready, self._n_failures = True, 0
            elif data[:1] == ENDED:
                number, status = PAIR.unpack(data[1:])
                if (seat := self._seats.get(number)) is not None:
                    seat.status, seat.has_ended = status, True

    def _is_gone(self) -> None:
        """The server has ended, and its workers with it: the next map starts another."""
        assert self._conn is not None  # noqa: S101 - for the type checker
        self._conn.close()
        self._conn = None
        for seat in self._seats.values():
            seat.has_ended = True
        for seat in self._idle:
            self._drop(seat)
        self._idle.clear()
        status = process.reap(self._pid)
        if not self._is_ready:
            self._n_failures += (
                1 if status is None or os.WIFSIGNALED(status) else bounds.MOST_KILLED // bounds.MOST_FAILURES
            )
        if self._n_failures >= bounds.MOST_KILLED:
            self.refusal = f"the fork server ends before it is ready ({describe_exit(status)})"

    # -- workers -----------------------------------------------------------------------------------------------------

    def take(self, threads: int) -> Seat:
        """Return an idle worker, or ask for a new one; raises OSError if the system refuses it."""
        with self._lock:
            self._hear()
            for seat in self._idle:
                seat.listen()
            while self._idle:
                seat = next((seat for seat in reversed(self._idle) if seat.is_free), self._idle[-1])
                self._idle.remove(seat)
                if not seat.has_ended and _is_open(seat.conn):
                    return seat
                self._drop(seat)
            self.start(threads)
            return self._fork()

    def _fork(self) -> Seat:
        assert self._conn is not None  # noqa: S101 - for the type checker
        ours, theirs = _spawn.pair()
        seat = Seat(next(self._numbers), ours)
        try:
            socket.send_fds(self._conn, [FORK + NUMBER.pack(seat.number)], [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._seats[seat.number] = seat
        return seat

    def give_back(self, seat: Seat, names: frozenset[str]) -> None:
        """Keep a worker for the next map; it has imported the modules of these names."""
        with self._lock:
            self._given |= names
            if seat.has_ended or self._seats.get(seat.number) is not seat:
                self._drop(seat)
            else:
                self._idle.append(seat)

    def drop(self, seat: Seat) -> None:
        """Be done with a worker that has ended or is going to."""
        with self._lock:
            self._drop(seat)

    def _drop(self, seat: Seat) -> None:
        self._seats.pop(seat.number, None)
        seat.close()

    def kill(self, seat: Seat) -> None:
        """End a worker at once."""
        with self._lock, contextlib.suppress(OSError):
            if seat.pid_fd >= 0:
                signal.pidfd_send_signal(seat.pid_fd, signal.SIGKILL)
            elif self._conn is not None:
                self._conn.send(KILL + NUMBER.pack(seat.number))

    def reap(self, seat: Seat) -> int | None:
        """Wait until a worker that dies has ended; returns its wait status, None if nobody knows it."""
        deadline = monotonic() + bounds.WORD_S
        with self._lock:
            while not seat.has_ended and self._conn is not None and monotonic() < deadline:
                self._hear(0.1)
        return seat.status

    def close(self) -> None:
        """End the server and its idle workers, and wait for the server."""
        with self._lock:
            if self._conn is None or self._owner != os.getpid():
                return
            self._conn.close()
            self._conn, self._is_ready = None, False
            for seat in self._idle:
                self._drop(seat)
            self._idle.clear()
            for seat in self._seats.values():
                seat.has_ended = True
            process.kill(self._pid)
            process.reap(self._pid)

    def end_idle(self) -> None:
        """End the server unless some of its workers are at work."""
        with self._lock:
            if len(self._seats) == len(self._idle):
                self.close()

    def forget(self) -> None:
        """In a forked copy of the program: give back the descriptors of the parent's server, and touch nothing else."""
        conn, seats = self._conn, list(self._seats.values())
        self._forget()
        if conn is not None:
            conn.close()
        for seat in seats:
            seat.close()


SERVER: Final = Server()


def _is_readable(conn: socket.socket, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(conn, select.POLLIN)
    return bool(poll.poll(1000 * timeout_s))


def _is_open(conn: socket.socket) -> bool:
    """Tell whether the other end of a socket is still there."""
    poll = select.poll()
    poll.register(conn, 0)
    return not poll.poll(0)
