"""
The caller's side of the fork server: starts it, asks it for workers, keeps those that are idle, gives them maps.

    SERVER ── posix_spawn ──► server ── fork ──► workers
       │  seats: one socket to each worker, made here and handed to the server; usable before anybody has answered
       └─ ServerCrew: brings one map's function, items and pipes to the workers of one Team

Starting is a spawn and nothing more: the caller never waits for the server, and requests to it and to its workers wait
in their sockets until they are there to be read. Between maps there is no thread and no timer of ours in the caller.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from amorsize._backend import _bounds as bounds
from amorsize._backend import _memory, _serving, _shared_items, _spawn
from amorsize._backend import _process as process
from amorsize._backend._home import MEMORY, NUMBER
from amorsize._backend._outcome import describe_exit
from amorsize._backend._pool import TaskPool, TaskSeat
from amorsize._backend._serving import (
    BY_VALUE,
    ENDED,
    FORK,
    FREE,
    HELLO,
    KILL,
    LOAD,
    PAIR,
    PRELOADED,
    RANGES,
    READY,
    STALE,
    TASKS,
    UNUSABLE,
    Assignment,
)
from amorsize._backend._team import Team, Worker
from amorsize._backend._worker import no_interrupt
from amorsize._modules import loaded
from amorsize._outside import pass_on

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    import mmap

    from amorsize._backend._job import Job


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
        self._is_ready = False
        self._n_failures = 0
        self.began_s = 0.0
        self.ready_s = 0.0
        self.refusal = ""

    # -- what there is -----------------------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Tell whether a server is there that can fork workers now."""
        with self._lock:
            self._hear()
            return self._conn is not None and self._is_ready

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
            left = 0.0 if self._is_ready else max(0.1, 1.0 - (time.perf_counter() - self.began_s) / bounds.START_S)
            return n_idle, left

    # -- the server --------------------------------------------------------------------------------------------------

    def start(self, threads: int = 1) -> None:
        """
        Start the server unless it is there; does not wait for it.

        Raises:
            OSError: If the system gives no process, or servers have ended before they were ready.
        """
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
        self._is_ready, self._loaded = False, set()

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
                self.ready_s = time.perf_counter() - self.began_s
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
        """
        Return an idle worker, or ask for a new one.

        Raises:
            OSError: If the system refuses it.
        """
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
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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

    def give_back(self, seat: Seat) -> None:
        """Keep a worker for the next map."""
        with self._lock:
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
        deadline = time.monotonic() + bounds.WORD_S
        with self._lock:
            while not seat.has_ended and self._conn is not None and time.monotonic() < deadline:
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


# -- one map ---------------------------------------------------------------------------------------------------------

_maps: Final = itertools.count(1)


class ServerCrew:
    """Brings one map to workers of the server."""

    packs = True
    reuses = True

    def __init__(self, job: Job) -> None:
        """
        Prepare a job, whose function has been packed.

        Raises:
            OSError: If the system refuses the memory.
        """
        self._job = job
        self._number = next(_maps)
        self._board_fd = -1
        self._value: tuple[bytes | None, int] | None = None
        self._message: tuple[bytes | None, int] | None = None
        self._memory: mmap.mmap | None = None
        self._board_bytes = 0
        self._items = _shared_items.PackedItems(job.items, job.item_s)
        self.most_items = self._items.most_items
        self.packs = self._items.inline is None

    def board(self, n_bytes: int) -> mmap.mmap:
        """Return memory whose descriptor workers are given."""
        self._board_fd = _memory.make("amorsize-board")
        self._board_bytes = n_bytes
        return _memory.shared(self._board_fd, n_bytes)

    def start(self, team: Team, slot: int) -> Worker:
        """Give the map to an idle worker, or to a new one."""
        read, write = team.result_pipe()
        try:
            seat = self._give(RANGES, slot, [write, self._board_fd, team.task_r, team.task_w])
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        return Worker(slot, seat.pid, read, seat.pid_fd, seat.conn, seat)

    def start_tasks(self, pool: TaskPool, slot: int, tasks: tuple[int, int], results: tuple[int, int]) -> TaskSeat:
        """Give the stream to an idle worker, or to a new one."""
        del pool
        seat = self._give(TASKS, slot, [results[1], self._board_fd, tasks[0]])
        os.close(tasks[0])
        os.close(results[1])
        return TaskSeat(slot, seat.pid, tasks[1], results[0], seat.pid_fd, seat.conn, seat)

    def _give(self, kind: str, slot: int, fds: list[int]) -> Seat:
        if self._message is None:
            self._message = _placed(self._assignment(), "amorsize-job")
        SERVER.start(self._job.threads)
        SERVER.load(_packages(self._job))
        payload, payload_fd = self._message
        fds += [fd for fd in (payload_fd, self._items.fd) if fd >= 0]
        seat = SERVER.take(self._job.threads)
        try:
            socket.send_fds(seat.conn, [_serving.message((kind, slot, payload))], fds)
            seat.given, seat.is_free = self._number, False
        except OSError:
            SERVER.drop(seat)
            raise
        return seat

    def _assignment(self) -> bytes:
        job, items = self._job, self._items
        assert job.parcel is not None  # noqa: S101 - for the type checker
        return pickle.dumps(
            Assignment(
                number=self._number,
                parcel=job.parcel,
                inline=items.inline,
                n_items=len(job.items),
                block=items.block,
                board_bytes=self._board_bytes,
                threads=job.threads,
                initializes=job.initializer is not None,
                base=job.base,
                item_s=job.item_s,
                batch_size=job.batch_size,
                keep_going=job.keep_going,
                timeout=job.timeout,
                retries=job.retries,
            ),
            protocol=5,
        )

    def pack(self, start: int, stop: int) -> bool:
        """Make items readable for workers; returns whether they can be sent."""
        return self._items.pack(start, stop)

    def hear(self, team: Any, worker: Any) -> bool:
        """Take what a worker says beside its results; returns whether it is still there."""
        seat: Seat = worker.seat
        while True:
            try:
                data, fds = _memory.receive(seat.conn, wait=False)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._heard(team, worker, data, fds)

    def _heard(self, team: Any, worker: Any, data: bytes, fds: list[int]) -> None:
        seat: Seat = worker.seat
        if data[:1] == HELLO:
            seat.take_in(data)
            worker.pid, worker.pid_fd = seat.pid, seat.pid_fd
            if seat.pid_fd >= 0:
                team.watch(seat.pid_fd)
            return
        if data[:1] == FREE:
            seat.take_in(data)
            return
        (number,) = NUMBER.unpack_from(data, 1)
        if data[:1] == MEMORY:
            seat.memories.append((number, fds[0]))
        elif number != self._number:
            return  # of a map that is over
        elif data[:1] == STALE:
            self._send_by_value(team, worker, data[1 + NUMBER.size :].decode(errors="replace"))
        elif data[:1] == UNUSABLE:
            team.go_alone(f"workers cannot open the function: {data[1 + NUMBER.size :].decode(errors='replace')}")

    def _send_by_value(self, team: Any, worker: Any, why: str) -> None:
        """Answer a worker whose module holds other code."""
        job = self._job
        if self._value is None:
            if job.parcel is None or job.parcel.is_by_value or job.repack is None:
                team.go_alone(f"workers cannot open the function: {why}")
                return
            try:
                parcel = job.repack()
            except Exception as error:  # noqa: BLE001 - objects raise anything when pickled
                pass_on(error)
                team.go_alone(f"the function cannot be sent by value: {error}, and {why}")
                return
            self._value = _placed(pickle.dumps(parcel, protocol=5), "amorsize-function")
        payload, fd = self._value
        with contextlib.suppress(OSError):  # it is dead, which is noticed elsewhere
            socket.send_fds(worker.seat.conn, [_serving.message((BY_VALUE, payload))], [fd] if fd >= 0 else [])

    def buffers(self, worker: Worker) -> memoryview:
        """Map the memory in which the buffers of a worker's next results came."""
        seat: Seat = worker.seat
        while True:
            while seat.memories:
                number, fd = seat.memories.popleft()
                try:
                    if number == self._number:
                        return memoryview(_memory.private(fd, os.fstat(fd).st_size))
                finally:
                    os.close(fd)
            data, fds = _memory.receive(seat.conn)
            if not data:
                message = "the memory of a worker's results did not arrive"
                raise OSError(message)
            if data[:1] == MEMORY:
                seat.memories.append((NUMBER.unpack_from(data, 1)[0], fds[0]))
            elif data[:1] == HELLO:
                seat.take_in(data)

    def kill(self, worker: Any) -> None:
        """End a worker at once."""
        SERVER.kill(worker.seat)

    def reap(self, worker: Any) -> int | None:
        """Wait for the end of a worker; returns its wait status, None if nobody knows it."""
        return SERVER.reap(worker.seat)

    def dismiss(self, worker: Any) -> None:
        """Keep a worker for the next map, unless it has ended."""
        os.close(worker.results_fd)
        if worker.has_ended:
            SERVER.drop(worker.seat)
        else:
            SERVER.give_back(worker.seat)

    def abandon(self) -> None:
        """Give back the map's own descriptors; the server's are given back by its :meth:`Server.forget`."""
        self.close()

    def close(self) -> None:
        """Give back what belongs to the map."""
        self._items.close()
        for _, fd in (self._message or (None, -1), self._value or (None, -1), (None, self._board_fd)):
            if fd >= 0:
                os.close(fd)
        self._message = self._value = None
        self._board_fd = -1


def server_pool(job: Job) -> TaskPool:
    """
    Have workers of the server for a stream.

    Raises:
        OSError: If the system refuses them.
    """
    return TaskPool(job, ServerCrew(job), "forkserver")


def server_team(job: Job) -> Team:
    """
    Make a team of the server's workers for a job whose function has been packed; nothing is started yet.

    Raises:
        OSError: If the system refuses memory for the items.
    """
    return Team(job, ServerCrew(job))


def _placed(data: bytes, name: str) -> tuple[bytes | None, int]:
    """Return data that fits a message as it is, other data as the descriptor of memory that holds it."""
    if len(data) <= bounds.MESSAGE_BYTES // 2:
        return data, -1
    fd = _memory.make(name)
    try:
        _memory.append(fd, 0, [data])
    except BaseException:
        os.close(fd)
        raise
    return None, fd


def _packages(job: Job) -> set[str]:
    """Return the packages that workers of a job will need and that the server may import for all of them."""
    names = {type(job.items).__module__}
    with contextlib.suppress(Exception):
        names.add(type(job.items[0]).__module__)
    code, known = getattr(job.func, "__code__", None), getattr(job.func, "__globals__", {})
    for name in getattr(code, "co_names", ()):
        value = known.get(name)
        names.add(str(getattr(value, "__name__" if _is_module(value) else "__module__", None) or ""))
    if job.parcel is not None and job.parcel.is_by_value:
        names.add("cloudpickle")
    roots = {name.partition(".")[0] for name in names} & PRELOADED
    return {name for name in roots if loaded(name) is not None}


def _is_module(value: Any) -> bool:
    return isinstance(value, type(sys))
