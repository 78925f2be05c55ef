"""
Many awaited maps at once: which of them compute, and whether their tasks still wait for them.

Only one computes in this process at a time, so that the event loop gets its turn with the interpreter; their workers
take turns with the cores.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from amorsize import _bounds as bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

clock = time.perf_counter


class CancelledMap(BaseException):
    """Ends a map in its thread, as Ctrl-C would: nobody waits for its results any more."""


class Halt:
    """Tells a map whether it has been cancelled, and lets others compute; called by it between blocks of items."""

    __slots__ = ("_holder", "_used_s", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._holder: object = None
        self._used_s = 0.0

    def __call__(self) -> None:
        """
        Go on, at once or when it is this map's turn again, or end the map.

        Raises:
            CancelledMap: If it has been cancelled.
        """
        if self.is_set:
            raise CancelledMap
        if self._holder is not None and _HERE.is_wanted() and time.thread_time() - self._used_s > bounds.SLICE_S:
            self._leave()
            self._enter()

    def is_crowded(self) -> bool:
        """Tell whether so many maps are under way that this one had better leave its items to its workers."""
        return len(_under_way) > bounds.MOST_COMPUTING

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Compute in turns with others; see :class:`_Turns`."""
        _under_way.add(self)
        try:
            self._enter()
            yield
        finally:
            self._leave()
            _under_way.discard(self)

    @contextlib.contextmanager
    def sharing(self, n_jobs: int, n_cpus: int) -> Iterator[None]:
        """Have *n_jobs* workers compute, in turns with those of others."""
        self._leave()
        holder = _WORKERS.enter(self, n_jobs, n_cpus)
        try:
            yield
        finally:
            _WORKERS.leave(holder)
        self._enter()

    def _enter(self) -> None:
        self._holder = _HERE.enter(self, 1, bounds.MOST_COMPUTING, _computing())
        self._used_s = time.thread_time()

    def _leave(self) -> None:
        holder, self._holder = self._holder, None
        _HERE.leave(holder)


# The maps that are under way.
_under_way: Final[set[Halt]] = set()


class _Turns:
    """
    Lets of many maps at once only some compute, here or in workers: the event loop and the cores are for all of them.

    Nobody waits for a map that only waits itself, for its workers or since its items do; nor for long where none of
    those that compute comes to an end.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, without holders."""
        self._door = threading.Lock()
        self._has_left = threading.Event()
        self._left_at = clock()
        self._holders: dict[object, tuple[int, Callable[[], bool]]] = {}

    def is_wanted(self) -> bool:
        """Tell whether somebody waits."""
        return self._door.locked()

    def enter(self, halt: Halt, weight: int, most: int, is_busy: Callable[[], bool] = lambda: True) -> object:
        """
        Wait until all busy holders and *weight* are at most *most*, or none is busy; returns what :meth:`leave` takes.

        Raises:
            CancelledMap: If that happens meanwhile.
        """
        holder = object()
        while not self._door.acquire(timeout=10 * bounds.TURN_LOOK_S):
            halt()
        try:
            since = clock()
            while (n_busy := self._n_busy()) and n_busy + weight > most:
                if clock() - max(since, self._left_at) > bounds.PATIENCE_S:
                    break
                self._has_left.wait(bounds.TURN_LOOK_S)
                self._has_left.clear()
                halt()
            self._holders[holder] = weight, is_busy
        finally:
            self._door.release()
        return holder

    def leave(self, holder: object) -> None:
        """Let others compute."""
        if self._holders.pop(holder, None) is not None:
            self._left_at = clock()
            self._has_left.set()

    def _n_busy(self) -> int:
        return sum(weight for weight, is_busy in list(self._holders.values()) if is_busy())


# Twenty maps at once that compute in this process: without turns, the event loop waits 0.3 s for the interpreter.
_HERE: Final = _Turns()

# Twenty maps at once with two workers each, on two cores, took as long as one after the other, and the event loop
# waited up to a second behind forty processes.
_WORKERS: Final = _Turns()


def _computing() -> Callable[[], bool]:
    """Return what tells others whether this thread computes, by the clock of its CPU time."""
    looked = clock()
    if sys.platform == "win32" or not hasattr(time, "pthread_getcpuclockid"):
        return lambda: clock() - looked < bounds.UNKNOWN_S
    clock_id = time.pthread_getcpuclockid(threading.get_ident())
    used_s, verdict = time.clock_gettime(clock_id), True

    def is_busy() -> bool:
        nonlocal looked, used_s, verdict
        before, now = (looked, used_s), clock()
        if now - looked > bounds.TURN_WINDOW_S:
            try:
                looked, used_s = now, time.clock_gettime(clock_id)
            except OSError:  # it has just ended
                return False
            verdict = used_s - before[1] > bounds.BUSY_SHARE * (now - before[0])
        return verdict

    return is_busy


def _forget() -> None:
    """Begin anew: in a forked copy of the program, none of these maps is there."""
    _under_way.clear()
    _HERE.forget()
    _WORKERS.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
