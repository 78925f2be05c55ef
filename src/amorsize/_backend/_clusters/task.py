"""
What travels to a worker of a cluster and back, and what runs there.

A parcel (the function) is opened once per process; items and results travel pickled, large buffers beside the pickle.
"""

from __future__ import annotations

import collections
import ctypes
import os
import pickle
import platform
import queue
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amorsize import _bounds as bounds
from amorsize._backend import _parcel, _pickles, _worker
from amorsize._backend._carrier import Done
from amorsize._backend._chunks import alarmed
from amorsize._backend._worker import run_quantum
from amorsize.exceptions import ItemTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

clock = time.perf_counter


class Blob:
    """Bytes that travel without being copied into the pickle, where the engine can do that."""

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __sizeof__(self) -> int:
        return 64 + len(self.data)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Blob, (pickle.PickleBuffer(self.data) if protocol >= 5 else bytes(self.data),)


@dataclass(frozen=True, slots=True)
class Shipped:
    """A :class:`amorsize._backend._parcel.Parcel` on its way to a cluster."""

    digest: bytes
    data: Blob
    is_by_value: bool

    def __sizeof__(self) -> int:
        return 128 + len(self.data)


@dataclass(frozen=True, slots=True)
class Remote:
    """
    What travels with each chunk; the fields are those of :class:`amorsize._backend._chunks.Chunk`.

    Attributes:
        items: The pickled items.
        buffers: Their large buffers (those of arrays), which travel beside the pickle.
        host: The caller's, so that a worker elsewhere is told from one whose clock is the caller's.
        by_value: The modules whose functions and classes went by value when it was packed.
    """

    items: Blob
    buffers: tuple[Blob, ...]
    start: int
    quantum_s: float
    block: int
    keep_going: bool
    timeout: float | None
    host: str
    by_value: frozenset[str]


@dataclass(frozen=True, slots=True)
class Parts:
    """
    The packed results of a chunk on their way home.

    Attributes:
        data: The pickle.
        buffers: Large buffers of the results, which travel beside it.
    """

    data: Blob
    buffers: tuple[Blob, ...]

    def __sizeof__(self) -> int:
        return 128 + len(self.data) + sum(len(buffer) for buffer in self.buffers)


@dataclass(frozen=True, slots=True)
class Trouble:
    """
    What a worker answers when a chunk could not be begun.

    Attributes:
        error: The exception and its traceback, packed.
        module: The module that is missing there or has other code, empty if that is not the trouble.
    """

    error: _worker.Packed
    module: str = ""


_opened: collections.OrderedDict[bytes, Callable[[Any], Any]] = collections.OrderedDict()
_opening = threading.Lock()


def _renew() -> None:
    """Have a free lock in a forked copy of a worker: a thread that is not in it may have held this one."""
    global _opening  # noqa: PLW0603 - as said
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def open_once(shipped: Shipped) -> Callable[[Any], Any]:
    """Return the function of one item; workers run several threads, and each parcel is opened by one of them."""
    with _opening:
        call = _opened.get(shipped.digest)
        if call is None:
            parcel = _parcel.Parcel(shipped.digest, bytes(shipped.data.data), "", 0, is_by_value=shipped.is_by_value)
            call = _opened[shipped.digest] = _parcel.open_parcel(parcel)
            while len(_opened) > bounds.KEPT_PARCELS:
                _opened.popitem(last=False)
        else:
            _opened.move_to_end(shipped.digest)
    return call


def run_remote(shipped: Shipped, remote: Remote) -> Done | Trouble:
    """Run one chunk. Runs in the worker; raises nothing that the way there can carry as a value."""
    try:
        call = open_once(shipped)
        items = pickle.loads(remote.items.data, buffers=_worker.writable([blob.data for blob in remote.buffers]))
    except Exception as error:  # noqa: BLE001 - user code is imported and unpickled here; it travels home
        return Trouble(_worker.pack_error(error, remote.start), _module_of(error, shipped))
    block = remote.block
    if remote.timeout is not None:
        call, block = _bounded(call, remote.timeout, remote.start), 1
    with _worker.nested_thread():
        begin = clock()
        results, failures = run_quantum(call, items, remote.quantum_s, block, keep_going=remote.keep_going)
        end = clock()
    here = platform.node()
    lane = f"process {os.getpid()}"
    if here != remote.host:
        begin, end, lane = 0.0, end - begin, f"{here}, {lane}"
    buffers: tuple[Blob, ...] = ()

    def dumps(value: Any) -> Blob:
        nonlocal buffers
        data, buffers = pickled(value)
        return data

    data = _worker.pack(results, failures, remote.start, dumps)
    return Done(Parts(data, buffers), len(results), begin, end, lane)


def pickled(value: Any) -> tuple[Blob, tuple[Blob, ...]]:
    """Pickle items or results with their large buffers apart, by value what has no name to be found by."""
    data, buffers = _pickles.dumps_apart(value, bounds.APART_BYTES)
    return Blob(data), tuple(map(Blob, buffers))


def _module_of(error: BaseException, shipped: Shipped) -> str:
    """Return the module that must go by value after *error*, empty if that would not help."""
    cause = error.__cause__ if isinstance(error, _worker.StaleCode) else error
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        return cause.name
    if isinstance(error, _worker.StaleCode):
        return str(pickle.loads(shipped.data.data).module)
    return ""


def _bounded(call: Callable[[Any], Any], timeout: float, start: int) -> Callable[[Any], Any]:
    """
    Bound each item: with an alarm where this is the main thread, else by running it in a thread that is given up.

    A thread that is given up is asked to end; native code that does not return to the interpreter runs on.
    """
    if threading.current_thread() is threading.main_thread() and sys.platform != "win32":
        return alarmed(call, timeout, start)
    position = start

    def bounded(item: Any) -> Any:
        nonlocal position
        index, position = position, position + 1
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def work() -> None:
            try:
                with _worker.nested_thread():
                    answers.put((call(item), None))
            except BaseException as error:  # noqa: BLE001 - raised again below
                answers.put((None, error))

        thread = threading.Thread(target=work, name="amorsize-item", daemon=True)
        thread.start()
        try:
            result, error = answers.get(timeout=timeout)
        except queue.Empty:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
            raise ItemTimeout(f"item {index} took longer than timeout={timeout:g} s and was given up", index) from None
        if error is not None:
            raise error
        return result

    return bounded


def n_bytes_of(blob: Blob) -> int:
    """Run as the task that measures the way there."""
    return len(blob)


def some_bytes(n_bytes: int) -> Blob:
    """Run as the task that measures the way back; as the empty one, of 0 bytes, it measures a round trip."""
    return Blob(bytes(n_bytes))
