"""
Brings one map, or one stream, to workers of the fork server: the function, the items, the pipes.

Made by the adapter for each run; :class:`Team` and :class:`TaskPool` call it. The items lie in memory that the workers
read (_shared_items), or in the message where they are few. Workers that are idle at the end go back to the server for
the next map; what a worker says of a map that is over is ignored. Every descriptor of the map is given back by
:meth:`ServerCrew.close`, and in a forked copy of the program by :meth:`ServerCrew.abandon`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import known_dependencies
from amorsize._backend import _bounds as bounds
from amorsize._backend import _memory, _server, _serving, _shared_items
from amorsize._backend._channels import TaskSeat, Worker
from amorsize._backend._crew import Crew, result_pipe
from amorsize._backend._local_worker import MEMORY, NUMBER
from amorsize._backend._pool import TaskPool
from amorsize._backend._serving import (
    BY_VALUE,
    FREE,
    HELLO,
    PRELOADED,
    RANGES,
    STALE,
    TASKS,
    UNUSABLE,
    Assignment,
)
from amorsize._backend._team import Team
from amorsize._modules import loaded
from amorsize._outside import pass_on, suppressed

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    import mmap

    from amorsize._backend._crew import CrewedTeam
    from amorsize._backend._job import Job
    from amorsize._backend._server import Seat

_maps: Final = itertools.count(1)


class ServerCrew(Crew):
    """Brings one map to workers of the server."""

    packs = True
    reuses = True

    def __init__(self, job: Job) -> None:
        """Prepare a job, whose function has been packed; raises OSError if the system refuses memory for its items."""
        self._job = job
        self._number = next(_maps)
        self._modules = known_dependencies(job.func).modules
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

    def start(self, team: CrewedTeam, slot: int) -> Worker:
        """Give the map to an idle worker, or to a new one."""
        read, write = result_pipe(team.n_slots)
        try:
            seat = self._give(RANGES, slot, [write, self._board_fd, team.handout.task_r, team.handout.task_w])
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
        return TaskSeat(slot, seat.pid, results[0], seat.pid_fd, seat.conn, seat, tasks_fd=tasks[1])

    def _give(self, kind: str, slot: int, fds: list[int]) -> Seat:
        if self._message is None:
            self._message = _placed(self._assignment(), "amorsize-job")
        _server.SERVER.start(self._job.threads)
        _server.SERVER.load(_packages(self._job))
        payload, payload_fd = self._message
        fds += [fd for fd in (payload_fd, self._items.fd) if fd >= 0]
        seat = _server.SERVER.take(self._job.threads)
        try:
            socket.send_fds(seat.conn, [_serving.message((kind, slot, payload))], fds)
            seat.given, seat.is_free = self._number, False
        except BaseException:
            _server.SERVER.drop(seat)
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
                team.workers.watch(seat.pid_fd)
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
            team.go_alone(data[1 + NUMBER.size :].decode(errors="replace"))

    def _send_by_value(self, team: Any, worker: Any, why: str) -> None:
        """Answer a worker whose module holds other code."""
        job = self._job
        if self._value is None:
            if job.parcel is None or job.parcel.has_helpers or job.repack is None:
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
        _server.SERVER.kill(worker.seat)

    def reap(self, worker: Any) -> int | None:
        """Wait for the end of a worker; returns its wait status, None if nobody knows it."""
        return _server.SERVER.reap(worker.seat)

    def dismiss(self, worker: Any) -> None:
        """Keep a worker for the next map, unless it has ended."""
        os.close(worker.results_fd)
        if worker.has_ended:
            _server.SERVER.drop(worker.seat)
        else:
            _server.SERVER.give_back(worker.seat, self._modules)

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
    """Have workers of the server for a stream; raises OSError if the system refuses them."""
    return TaskPool(job, ServerCrew(job), "forkserver")


def server_team(job: Job) -> Team:
    """Make a team of the server's workers for a job whose function has been packed; nothing is started yet."""
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
    with suppressed():
        names.add(type(job.items[0]).__module__)
    code, known = getattr(job.func, "__code__", None), getattr(job.func, "__globals__", {})
    for name in getattr(code, "co_names", ()):
        value = known.get(name)
        names.add(str(getattr(value, "__name__" if _is_module(value) else "__module__", None) or ""))
    if job.parcel is not None and job.parcel.is_by_value:
        names.add("cloudpickle")
    else:  # what the function's module has imported, each worker would import with it
        names.update(str(value.__name__) for value in list(known.values()) if _is_module(value))
    roots = {name.partition(".")[0] for name in names} & PRELOADED
    return {name for name in roots if loaded(name) is not None}


def _is_module(value: Any) -> bool:
    return isinstance(value, type(sys))
