"""
Runs chunks on threads of this process: nothing is pickled.

The threads of one run wait a second for the next one; they end before a fork.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from amorsize._backend import _bounds as bounds
from amorsize._backend import _worker
from amorsize._backend._carrier import Done, Submitter
from amorsize._backend._worker import run_quantum
from amorsize._outside import signals_held

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._backend._carrier import Work
    from amorsize._backend._job import Job

clock = time.perf_counter


@dataclass(eq=False, repr=False, match_args=False)
class _ThreadTask:
    """A task for a thread of this process: nothing is pickled."""

    call: Callable[[Any], Any]
    items: Sequence[Any]
    quantum_s: float
    block: int
    keep_going: bool
    threads: Any

    def __call__(self) -> Done:
        begin = clock()
        with _worker.nested_thread():
            results = run_quantum(
                self.call, self.items, self.quantum_s, self.block, keep_going=self.keep_going, tell=self._stop
            )
        return Done(results, len(results[0]), begin, clock(), threading.current_thread().name)

    def _stop(self, _: int) -> None:
        """End between two blocks once nobody wants the results: a thread cannot be killed."""
        if self.threads.is_closing:
            raise _worker.Overrun


@dataclass(eq=False, repr=False, match_args=False)
class Threads(Submitter):
    """
    Carries tasks on threads of this process.

    Daemon threads of our own, not an executor's: one that is stuck in an item must not keep the interpreter alive.
    They wait a second for the next run, since starting one takes 0.13 ms and 30 of them 4.
    """

    n: int
    name: str = "threading"
    is_closing: bool = False
    _tasks: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def take(cls, n: int) -> Threads:
        """Return *n* threads: those that wait, or new ones."""
        kept = _swap(None)
        if kept is None:
            return cls(n)
        kept.resize(n)
        return kept

    def resize(self, n: int) -> None:
        """Have *n* threads from now on; those too many leave, else a task that is to wait its turn would find one."""
        with self._lock:
            self.n = n
            for _ in self._threads[n:]:
                self._tasks.put(None)

    def keep(self) -> None:
        """Let the threads wait for another run; all their tasks are done."""
        before = _swap(self)
        if before is not None:
            before.close()

    def alive(self) -> frozenset[threading.Thread]:
        """Return the threads there are."""
        return frozenset(self._threads)

    def task(self, job: Job, work: Work) -> _ThreadTask:
        """Make a task of work."""
        return _ThreadTask(job.call, work.items, work.quantum_s, work.block, job.keep_going, self)

    def submit(self, task: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run *task* on a thread; where the system gives not even one, *done* gets that error."""
        refusal: RuntimeError | None = None
        with _worker.no_interrupt(), self._lock:  # a thread that is not in the list would never be told to end
            if len(self._threads) < self.n:
                name = f"amorsize-{len(self._threads) + 1}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                with signals_held():
                    try:
                        thread.start()
                    except RuntimeError as error:
                        refusal = error
                    else:
                        self._threads.append(thread)
            if self._threads:
                self._tasks.put((task, done))
                return
        done(None, _worker.NoWorkersError(str(refusal)))

    def _next(self) -> Any:
        """Wait for a task; None if this thread is to end, or has waited in vain."""
        while True:
            try:
                job = self._tasks.get(timeout=bounds.THREADS_IDLE_S)
            except queue.Empty:
                job = None
            if job is not None:
                return job
            with self._lock:
                if self._tasks.empty() or len(self._threads) > self.n or self.is_closing:
                    leave()
                    self._threads.remove(threading.current_thread())
                    return None

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            task, done = job
            try:
                result = task()
            except BaseException as error:  # noqa: BLE001 - the caller decides
                done(None, error)
            else:
                done(result, None)
            del job, task, done

    def close(self, timeout_s: float = bounds.THREADS_END_S) -> None:
        """Let the threads end after the item they are at; those that are stuck in one are left behind."""
        self.is_closing = True
        with self._lock:
            threads = list(self._threads)
            for _ in threads:
                self._tasks.put(None)
        deadline = clock() + timeout_s
        for thread in threads:
            thread.join(max(0.0, deadline - clock()))


_waiting: Threads | None = None
# Threads that have left and are alive for some instructions more: no strangers to a fork, which waits for them.
_leaving: set[threading.Thread] = set()
# For one thread as often as it likes: a signal's handler may map as well.
_lock = threading.RLock()


def _swap(threads: Threads | None) -> Threads | None:
    """Put *threads* where they wait for another run; returns those that have waited there, which are the caller's."""
    global _waiting
    with _lock:
        before, _waiting = _waiting, threads
    return before


def leave() -> None:
    """Say that the calling thread, one of ours, does nothing any more but end."""
    with _lock:
        _left()
        _leaving.add(threading.current_thread())


def _left() -> frozenset[threading.Thread]:
    """Return the threads that have left and are alive still; forgets the others."""
    with _lock:
        _leaving.intersection_update([thread for thread in _leaving if thread.is_alive()])
        return frozenset(_leaving)


def waiting_threads() -> frozenset[threading.Thread]:
    """Return the threads that wait for another run, or are about to end."""
    waiting = _waiting
    return _left() if waiting is None else _left() | waiting.alive()


def end_waiting() -> None:
    """End the threads that wait for another run."""
    kept = _swap(None)
    if kept is not None:
        kept.close()
    while True:
        with _lock:
            thread = _leaving.pop() if _leaving else None
        if thread is None:
            return
        thread.join(bounds.THREADS_END_S)


def forget_waiting() -> None:
    """Forget the parent's threads: in a forked copy of the process there are none."""
    global _waiting, _lock  # a thread that is not in the copy may have held it
    _waiting, _lock = None, threading.RLock()
    _leaving.clear()


_worker.BEFORE_FORK.append(end_waiting)
