"""
What runs in the fork server and in its workers.

    caller ── "a worker, please", one end of a socket ──► server: forks, and tells how workers ended
      │                                                     │ fork
      └── job, pipes, board, items ──────────────────────► worker: one map after the other, until nobody wants it

The server is single-threaded and imports nothing of the user's: what a module opens or draws at its import, a file,
a connection, the seed of a generator, must not be shared between workers. Each imports for itself what its functions
need. Only packages that are known to hold nothing of that kind are imported here, once for all workers.

It ends when its caller ends, however that happens, and its workers end with it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from amorsize._backend import _blas, _local_worker, _memory, _output, _parcel, _shared_items, _worker
from amorsize._backend import _bounds as bounds
from amorsize._backend import _process as process
from amorsize._backend._local_worker import NUMBER, PipeHome, RangeJob, RangeWorker

if sys.platform != "linux":
    raise ImportError("the fork server is for Linux; nothing imports it elsewhere")

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._backend._parcel import Parcel

# Packages that may be imported before workers are forked: they hold no files, connections or threads that a fork must
# not share, and what they draw at random is seeded anew in each worker. NumPy's OpenBLAS stops its threads for a fork;
# pandas is not here, since it imports pyarrow, whose threads do not.
PRELOADED: Final = frozenset({"numpy", "cloudpickle"})

# Kinds of messages: caller to server, server to caller; caller to worker, worker to caller.
FORK, KILL, LOAD = b"f", b"k", b"l"
READY, ENDED = b"r", b"e"
RANGES, TASKS, BY_VALUE = "ranges", "tasks", "by value"
HELLO, STALE, UNUSABLE, FREE = b"h", b"s", b"u", b"i"

PAIR: Final = struct.Struct("=qq")


class Assignment(NamedTuple):
    """
    One map, as a worker is told of it: the same for all of its workers.

    Attributes:
        number: Which map of the caller's this is.
        parcel: The packed function.
        inline: The pickled items, None where they lie in memory.
        n_items: How many there are.
        block: How many are packed together.
        board_bytes: The size of the board.
        threads: Threads that numerical libraries get.
        initializes: Whether opening the parcel calls the user's initializer.
    """

    number: int
    parcel: Parcel
    inline: bytes | None
    n_items: int
    block: int
    board_bytes: int
    threads: int
    initializes: bool
    base: int
    item_s: float
    batch_size: int | None
    keep_going: bool
    timeout: float | None
    retries: int


class _Inline:
    """All items at once, unpickled when the first of them is wanted."""

    def __init__(self, data: bytes, n_items: int) -> None:
        self._data = data
        self._n_items = n_items
        self._items: Any = None

    def __len__(self) -> int:
        return self._n_items

    def __getitem__(self, part: slice) -> Any:
        if self._items is None:
            try:
                self._items = pickle.loads(self._data)
            except Exception as error:
                raise _local_worker.UnopenedItems from error
        return self._items[part]


# -- the server ------------------------------------------------------------------------------------------------------


def main(caller: int) -> NoReturn:
    """Serve the process *caller*, whose socket is standard input, until it ends."""
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the caller's; programs of workers inherit no deafness
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _close_inherited()
    conn = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    code = 1
    try:
        _Server(conn, caller).run()
        code = 0
    except OSError:
        code = 0  # the caller is gone
    finally:
        os._exit(code)


def _close_inherited() -> None:
    """Close what the caller lets its programs inherit, listening sockets and ends of pipes: it is none of ours."""
    with contextlib.suppress(OSError):  # no /proc: they stay open
        for fd in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):
                if fd > 2 and os.get_inheritable(fd):
                    os.close(fd)


class _Server:
    def __init__(self, conn: socket.socket, caller: int) -> None:
        self._conn = conn
        self._caller = caller
        self._workers: dict[int, int] = {}

    def run(self) -> None:
        process.prepare()
        wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        caller_fd = process.pidfd(self._caller)
        if os.getppid() != self._caller:
            return
        poll = select.poll()
        for fd in (self._conn.fileno(), wake_r, caller_fd):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        self._conn.send(READY)
        is_served = True
        while is_served:
            ready = {fd for fd, _ in poll.poll(None if caller_fd >= 0 else bounds.CALLER_LOOK_S * 1000)}
            if caller_fd in ready or os.getppid() != self._caller:
                break
            if wake_r in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_r, 4096)
                self._reap()
            if self._conn.fileno() in ready:
                is_served = self._listen()
        for pid in self._workers:
            process.kill(pid)

    def _listen(self) -> bool:
        """Do what the caller asks for; returns whether it is still there."""
        data, fds = _memory.receive(self._conn)
        if not data:
            return False
        kind, rest = data[:1], data[1:]
        if kind == FORK:
            self._fork(NUMBER.unpack(rest)[0], fds[0])
        elif kind == KILL:
            (number,) = NUMBER.unpack(rest)
            for pid in [pid for pid, known in self._workers.items() if known == number]:
                process.kill(pid)
        elif kind == LOAD:
            for name in rest.decode().split():
                with contextlib.suppress(Exception):  # a worker that needs it will say why it cannot be imported
                    importlib.import_module(name)
        for fd in fds:
            os.close(fd)
        return True

    def _fork(self, number: int, fd: int) -> None:
        gc.freeze()  # what exists now is never looked at again by a collector, so its pages stay shared
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            self._conn.send(ENDED + PAIR.pack(number, -1))
            return
        if pid == 0:
            _worker_main(server, fd, self._conn)
        self._workers[pid] = number

    def _reap(self) -> None:
        """Tell the caller of workers that have ended."""
        for pid in list(self._workers):
            with contextlib.suppress(ChildProcessError):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    self._conn.send(ENDED + PAIR.pack(self._workers.pop(pid), status))


# -- a worker --------------------------------------------------------------------------------------------------------


def _worker_main(server: int, fd: int, others: socket.socket) -> NoReturn:
    """Be a worker; never returns."""
    code = 1
    try:
        gc.enable()
        process.settle(server)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        others.close()
        _worker.reseed()
        conn = socket.socket(fileno=fd)
        conn.send(HELLO + NUMBER.pack(os.getpid()))
        _Worker(conn).run()
        code = 0
    except OSError:
        code = 0  # the caller is gone
    except BaseException:  # noqa: BLE001 - a worker must not run on into the server's code
        with contextlib.suppress(BaseException):
            process.report()
    finally:
        with contextlib.suppress(BaseException):
            _output.flush_originals()
        os._exit(code)


class _Worker:
    def __init__(self, conn: socket.socket) -> None:
        self._conn = conn
        self._waiting: tuple[Any, list[int]] | None = None
        self._threads = 0
        self._number = 0

    def run(self) -> None:
        """Work at one map after the other until nobody wants this worker any more."""
        while (message := self._next()) is not None:
            words, fds = message
            try:
                if words[0] in {RANGES, TASKS}:
                    self._attend(words[0], words[1], words[2], fds)
                    if self._waiting is None:
                        self._conn.send(FREE + NUMBER.pack(self._number))
            finally:
                for fd in fds:
                    os.close(fd)
                del message, words

    def _next(self) -> tuple[Any, list[int]] | None:
        if self._waiting is not None:
            message, self._waiting = self._waiting, None
            return message
        poll = select.poll()
        poll.register(self._conn, select.POLLIN)
        if not poll.poll(1000 * bounds.IDLE_S):
            return None
        data, fds = _memory.receive(self._conn)
        return (pickle.loads(data), fds) if data else None

    def _attend(self, kind: str, slot: int, payload: bytes | None, fds: list[int]) -> None:
        """Work at one map or stream."""
        rest = fds[4:] if kind == RANGES else fds[3:]
        if payload is None:
            payload = _whole(rest.pop(0))
        assignment: Assignment = pickle.loads(payload)
        self._number = assignment.number
        board = memoryview(_memory.shared(fds[1], assignment.board_bytes)).cast("q")
        try:
            # A caller that is gone, or has given the work up, no longer reads.
            with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
                if kind == TASKS:
                    self._run_tasks(assignment, slot, board, fds)
                else:
                    self._run_ranges(assignment, slot, board, fds, rest)
        finally:
            _output.listen(_drop)
            board.release()

    def _run_ranges(
        self, assignment: Assignment, slot: int, board: memoryview, fds: list[int], rest: list[int]
    ) -> None:
        home = PipeHome(fds[0], assignment.base, self._conn, assignment.number)
        call = self._opened(assignment, home.words, slot)
        if call is None:
            return
        items: Any
        if assignment.inline is not None:
            items = _Inline(assignment.inline, assignment.n_items)
        else:
            runs_again = assignment.retries > 0
            items = _shared_items.MappedItems(rest[0], assignment.n_items, assignment.block, runs_again=runs_again)
        try:
            job = RangeJob(
                call, items, assignment.base, assignment.item_s, assignment.batch_size, assignment.keep_going,
                assignment.timeout,
            )  # fmt: skip
            RangeWorker(job, slot, board, (fds[2], fds[3]), home).serve()
        finally:
            board[_local_worker.SLOT * (slot + 1) + _local_worker.STATE] = _local_worker.IDLE

    def _run_tasks(self, assignment: Assignment, slot: int, board: memoryview, fds: list[int]) -> None:
        worker = _local_worker.TaskWorker(slot, board, fds[0], keep_going=assignment.keep_going)
        call = self._opened(assignment, worker.words, slot)
        if call is None:
            return
        worker.call = call
        with os.fdopen(os.dup(fds[2]), "rb") as stream:
            worker.serve(stream)

    def _opened(self, assignment: Assignment, words: Callable[[bytes], None], slot: int) -> Callable[[Any], Any] | None:
        """Return the function; None where it cannot be had, and the caller has been told."""
        _output.listen(words, f"amorsize-{slot + 1}")
        if self._threads != assignment.threads:
            self._threads = assignment.threads
            _blas.prepare(assignment.threads)()
        with _output.importing():
            return self._open(assignment)

    def _open(self, assignment: Assignment) -> Callable[[Any], Any] | None:
        number = NUMBER.pack(assignment.number)
        parcel = assignment.parcel
        while True:
            try:
                return _parcel.open_parcel(parcel)
            except _worker.StaleCode as error:
                self._conn.send(STALE + number + str(error).encode()[:1000])
            except BaseException as error:  # noqa: BLE001 - what a module raises at import, SystemExit included
                if assignment.initializes:
                    return _failing(error)
                self._conn.send(UNUSABLE + number + _parcel.cannot_open(error).encode(errors="replace")[:1000])
                return None
            message = self._next()
            if message is None or message[0][0] != BY_VALUE:
                self._waiting = message
                return None
            words, fds = message
            parcel = pickle.loads(words[1] if words[1] is not None else _whole(fds[0]))
            for fd in fds:
                os.close(fd)


def _drop(data: bytes) -> None:
    """Take what is said between two maps, by a thread that an item has left: nobody is there to hear it."""


def _failing(error: BaseException) -> Callable[[Any], Any]:
    """Return what fails each item with what the initializer raised."""
    where = error.__traceback__

    def fail(_: Any) -> Any:
        raise error.with_traceback(where)

    return fail


def _whole(fd: int) -> bytes:
    """Read memory from its beginning to its end."""
    parts: list[bytes] = []
    done = 0
    while part := os.pread(fd, 1 << 30, done):
        parts.append(part)
        done += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def message(words: Sequence[Any]) -> bytes:
    """Pickle a message to a worker."""
    return pickle.dumps(words, protocol=5)
