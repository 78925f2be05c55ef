"""
What travels to a worker in another process: a chunk, and the board on which it tells how far it has come.

Also what bounds an item's seconds there. A worker imports this module, so it imports little.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import struct
import sys
import threading
import time
from _io import open as open_file  # a test may have replaced the builtin
from dataclasses import dataclass, replace
from functools import partial
from time import sleep
from typing import TYPE_CHECKING, Any, Final

from amorsize._backend import _bounds as bounds
from amorsize._backend import _files, _output, _parcel, _pickles, _worker
from amorsize._backend._carrier import Done, send_by
from amorsize._backend._job import overran
from amorsize._backend._worker import run_quantum

if TYPE_CHECKING or sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from amorsize._backend._carrier import Work
    from amorsize._backend._job import Job
    from amorsize._backend._parcel import Parcel

clock = time.perf_counter


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """
    A task: run items until they are done or the quantum is over. Pickled by value of its fields.

    Attributes:
        parcel: The function.
        items: Pickled items.
        start: Index of the first in the caller's input.
        quantum_s: Seconds after which to return what there is.
        block: Items between two looks at the clock, at first.
        keep_going: Whether to go on after a failed item.
        timeout: Seconds one item may take, or None.
        board: File to tell how many items have been begun, or empty.
        slot: Where in it.
    """

    parcel: Parcel
    items: bytes
    start: int
    quantum_s: float
    block: int
    keep_going: bool
    timeout: float | None
    board: str = ""
    slot: int = 0

    def __call__(self) -> Done:
        _worker.mark_worker()
        if self.board:
            speak_on(self.board)
        with _output.importing():
            call = _parcel.open_parcel(self.parcel)
        items = pickle.loads(self.items)
        if self.timeout is not None:
            call = alarmed(call, self.timeout, self.start)
        begin = clock()
        tell = tell_on(self.board, self.slot) if self.board else None
        block = 1 if self.timeout is not None else self.block
        results, failures = run_quantum(call, items, self.quantum_s, block, keep_going=self.keep_going, tell=tell)
        end = clock()
        data = _worker.pack(results, failures, self.start, _pickles.dumps)
        _output.flush()
        return Done(data, len(results), begin, end, f"process {os.getpid()}")


def chunk(job: Job, work: Work) -> Chunk:
    """Make a chunk of work; raises Unsendable if its items cannot be pickled."""
    assert job.parcel is not None  # noqa: S101 - for the type checker
    items = send_by(_pickles.dumps, work.items if hasattr(work.items, "__getitem__") else list(work.items))
    return Chunk(job.parcel, items, work.start, work.quantum_s, work.block, job.keep_going, job.timeout)


def alarmed(call: Callable[[Any], Any], timeout: float, start: int) -> Callable[[Any], Any]:
    """
    Bound each item with an alarm signal, where there are such and this is the main thread.

    Elsewhere, and inside native code that does not return to the interpreter, items run to their end.
    """
    if sys.platform == "win32":
        return call
    if threading.current_thread() is not threading.main_thread():
        return call
    position = start

    def bounded(item: Any) -> Any:
        nonlocal position
        index, position = position, position + 1
        is_running = True

        def overrun(*_: object) -> None:
            # One that comes as the item has just ended would be raised by the clean-up.
            if is_running:
                raise _worker.Overrun

        began = clock()
        before = signal.signal(signal.SIGALRM, overrun)
        theirs = signal.setitimer(signal.ITIMER_REAL, timeout)
        try:
            try:
                return call(item)
            finally:
                is_running = False
        except _worker.Overrun:
            raise overran(index, timeout) from None
        finally:
            is_running = False
            # A timer that the item has set for itself stays; one that ran before goes on.
            if signal.getsignal(signal.SIGALRM) is overrun:
                left_s = max(1e-6, theirs[0] - (clock() - began)) if theirs[0] else 0.0
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
                signal.setitimer(signal.ITIMER_REAL, left_s, theirs[1])

    return bounded


class Board:
    """
    A small file that workers map into their memory and write into how many items of a chunk they have begun.

    After a death it tells the items that were being computed from those that only waited in a queue. loky tells of a
    death before it ends the other workers: so a chunk is closed here first, and begins no more items after that.

    Behind that part workers append what their items say, each message whole, since loky has no way for it beside that
    of results.
    """

    # Of a slot: how many items have been begun, and whether no more may be.
    SLOT_BYTES: Final = 16

    def __init__(self) -> None:
        with _worker.no_interrupt():
            handle, self.path = _files.make()
            # However this object ends, an interrupt between two lines included, the file goes with it.
            _files.removing(self, self.path)
            self._file = os.fdopen(handle, "r+b", buffering=0)
            try:
                os.ftruncate(handle, _BEGUN_BYTES)
                self._map = mmap.mmap(handle, _BEGUN_BYTES)
            except BaseException:
                self._file.close()
                raise

    def __del__(self) -> None:
        # One that an interrupt left open would warn of its descriptor.
        with contextlib.suppress(AttributeError):
            self._file.close()

    def watch(self, task: Chunk, number: int) -> Chunk:
        """Return the task with its place on the board."""
        return replace(task, board=self.path, slot=self.take(number))

    def take(self, number: int) -> int:
        """Return the slot of a task, set to nothing begun."""
        slot = number % bounds.BOARD_SLOTS
        at = self.SLOT_BYTES * slot
        self._map[at : at + self.SLOT_BYTES] = bytes(self.SLOT_BYTES)
        return slot

    def end(self, number: int) -> int | None:
        """Let a task begin no more items; returns how many it has begun, None if the board is gone."""
        at = self.SLOT_BYTES * (number % bounds.BOARD_SLOTS)
        try:
            self._map[at + 8] = 1
            sleep(bounds.SETTLED_S)
            return int.from_bytes(self._map[at : at + 8], "little")
        except ValueError:
            return None

    def hear(self) -> list[tuple[int, bytes]]:
        """Return what workers have said since the last time, each message with the number of its process."""
        if self._file.closed:
            return []
        handle = self._file.fileno()
        if os.fstat(handle).st_size <= _BEGUN_BYTES:
            return []
        with locked(handle):
            self._file.seek(_BEGUN_BYTES)
            data = self._file.read()
            os.ftruncate(handle, _BEGUN_BYTES)
        messages, at = [], 0
        while at + _MESSAGE.size <= len(data):
            pid, n_bytes = _MESSAGE.unpack_from(data, at)
            at += _MESSAGE.size + n_bytes
            messages.append((pid, data[at - n_bytes : at]))
        return messages

    def close(self) -> None:
        """Remove the file."""
        self._map.close()
        self._file.close()
        _files.remove(self.path)


# Bytes of the board that tell of items begun.
_BEGUN_BYTES: Final = Board.SLOT_BYTES * bounds.BOARD_SLOTS

# What stands before something said: the worker's number, and the bytes that follow.
_MESSAGE: Final = struct.Struct("=qq")


@contextlib.contextmanager
def locked(handle: int) -> Iterator[None]:
    """Have an open file for oneself."""
    if sys.platform == "win32":
        yield
        return

    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


_spoken: tuple[str, int] = ("", -1)


def speak_on(path: str) -> None:
    """Let what items say go to the board from now on; in the worker. Not on Windows, where files lock otherwise."""
    global _spoken  # noqa: PLW0603 - a worker runs one chunk at a time
    if sys.platform == "win32":
        return
    if _spoken[0] != path:
        # Opened first: of a run that has ended there is no board any more, and its chunk ends here.
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        if _spoken[1] >= 0:
            os.close(_spoken[1])
        _spoken = path, handle
        _output.listen(partial(_say_on, _spoken[1]))


def _say_on(handle: int, data: bytes) -> None:
    """Append a message, once there is room; drop it where nobody listens any more."""
    whole = _MESSAGE.pack(os.getpid(), len(data)) + data
    while True:
        with locked(handle):
            state = os.fstat(handle)
            if not state.st_nlink:
                return
            if state.st_size < _BEGUN_BYTES + bounds.UNHEARD_BYTES:
                with contextlib.suppress(OSError):  # no room
                    written = 0
                    while written < len(whole):
                        written += os.write(handle, whole[written:])
                return
        sleep(bounds.ROOM_LOOK_S)


_mapped: tuple[str, Any] = ("", None)


def tell_on(path: str, slot: int) -> Callable[[int], None]:
    """Return what writes into a slot of the board, and raises once the caller has given the chunk up; in the worker."""
    global _mapped  # noqa: PLW0603 - a worker runs one chunk at a time
    if _mapped[0] != path:
        with open_file(path, "r+b") as file:
            _mapped = (path, mmap.mmap(file.fileno(), 0))
    board, at = _mapped[1], Board.SLOT_BYTES * slot

    def tell(n_begun: int) -> None:
        before = board[at : at + 8]
        board[at : at + 8] = n_begun.to_bytes(8, "little")
        if board[at + 8]:
            board[at : at + 8] = before
            raise _worker.Overrun

    return tell
