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
from time import thread_time
from typing import TYPE_CHECKING, Final

from amorsize import _bounds as bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

clock = time.perf_counter


class CancelledMap(BaseException):
    """Ends a map in its thread, as Ctrl-C would: nobody waits for its results any more."""


class Halt:
    """Tells a map whether it has been cancelled, and lets others compute; called by it between blocks of items."""

    __slots__ = ("_holder", "_is_called", "_used_s", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._is_called = threading.Event()
        self._holder: object = None
        self._used_s = 0.0

    def cancel(self) -> None:
        """End the map, also where it waits for its turn."""
        self.is_set = True
        self.wake()

    def wake(self) -> None:
        """Have the map look again whether it is its turn."""
        self._is_called.set()

    def wait(self, timeout_s: float | None) -> None:
        """Wait until it is woken, for *timeout_s* at most; raises CancelledMap if it has been cancelled."""
        self._is_called.wait(timeout_s)
        self._is_called.clear()
        if self.is_set:
            raise CancelledMap

    def __call__(self) -> None:
        """Go on, at once or when it is this map's turn again; raises CancelledMap if it has been cancelled."""
        if self.is_set:
            raise CancelledMap
        if self._holder is not None and _HERE.is_wanted() and thread_time() - self._used_s > bounds.SLICE_S:
            self._leave()
            self._enter()

    def is_crowded(self) -> bool:
        """Tell whether so many maps are under way that this one had better leave its items to its workers."""
        return len(_UNDER_WAY.halts) > bounds.MOST_COMPUTING

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Compute in turns with others; see :class:`_Turns`."""
        _UNDER_WAY.add(self)
        try:
            self._enter()
            yield
        finally:
            self._leave()
            _UNDER_WAY.discard(self)

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
        self._holder = _HERE.enter(self, 1, bounds.MOST_COMPUTING, _computing)
        self._used_s = thread_time()

    def _leave(self) -> None:
        holder, self._holder = self._holder, None
        _HERE.leave(holder)


class _UnderWay:
    """
    The maps that are under way, beside which the interpreter changes threads more often.

    The event loop gets the interpreter after one interval where one thread computes, after several where others wake.

    Attributes:
        halts: One of each map.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, without maps."""
        self._lock = threading.Lock()
        self.halts: set[Halt] = set()
        self._before_s = self._during_s = 0.0

    def add(self, halt: Halt) -> None:
        """Take in a map that begins."""
        with self._lock:
            if not self.halts:
                self._before_s = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before_s, bounds.SWITCH_S))
                self._during_s = sys.getswitchinterval()
            self.halts.add(halt)

    def discard(self, halt: Halt) -> None:
        """Be done with a map; behind the last one the interval is as before, unless the program has set another."""
        with self._lock:
            self.halts.discard(halt)
            if not self.halts:
                self.restore()

    def restore(self) -> None:
        """Give the interval back."""
        if self._during_s and sys.getswitchinterval() == self._during_s:
            sys.setswitchinterval(self._before_s)


_UNDER_WAY: Final = _UnderWay()


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
        self._left_at = clock()
        self._waiting: list[Halt] = []
        self._holders: dict[object, tuple[int, Callable[[], bool]]] = {}

    def is_wanted(self) -> bool:
        """Tell whether somebody waits."""
        return bool(self._waiting)

    def enter(
        self, halt: Halt, weight: int, most: int, watch: Callable[[], Callable[[], bool]] | None = None
    ) -> object:
        """
        Wait until all busy holders and *weight* are at most *most*, or none is busy; returns what :meth:`leave` takes.

        Raises CancelledMap if that happens meanwhile.
        """
        holder, waiting = object(), self._waiting
        waiting.append(halt)
        try:
            # The others sleep until they are the first: each that wakes asks for the interpreter, as the event loop
            # does, and nothing says who gets it.
            while waiting[0] is not halt:
                halt.wait(None)
            since = clock()
            while (n_busy := self._n_busy()) and n_busy + weight > most:
                if clock() - max(since, self._left_at) > bounds.PATIENCE_S:
                    break
                halt.wait(bounds.TURN_LOOK_S)
            # From now on: while it waited, its thread computed nothing.
            self._holders[holder] = weight, (lambda: True) if watch is None else watch()
        finally:
            waiting.remove(halt)
            self._wake_first()
        return holder

    def leave(self, holder: object) -> None:
        """Let others compute."""
        if self._holders.pop(holder, None) is not None:
            self._left_at = clock()
            self._wake_first()

    def _wake_first(self) -> None:
        for first in self._waiting[:1]:
            first.wake()

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
    _UNDER_WAY.restore()
    _UNDER_WAY.forget()
    _HERE.forget()
    _WORKERS.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
