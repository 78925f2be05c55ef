"""What a run over a cluster does whatever the engine: which tasks are there, which wait here, what came of each."""

from __future__ import annotations

import collections
import contextlib
import os
import platform
import queue
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

from amorsize import _function, _outside
from amorsize._backend import _unfound, _worker
from amorsize._backend._carrier import Done, Submitter, Work, send_by
from amorsize._backend._clusters.task import Blob, Parts, Remote, Shipped, Trouble, pickled, run_remote
from amorsize._trace import warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._backend._job import Job

clock = time.perf_counter


class Lost(ConnectionError):  # noqa: N818 - a signal to the run, which makes a WorkerDied of it
    """Says that the engine has given up on a task, or is gone."""


@dataclass(eq=False, slots=True)
class Task:
    """A function to run on the cluster, who waits for it, and the engine's *handle* while it runs."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    done: Callable[[Any, BaseException | None], None]
    handle: Any = None


class Cluster(Submitter):
    """
    Carries tasks over an engine, which replaces its workers by itself; subclasses say how a task is sent.

    Guarantees: each *done* is called once, from any thread; never more tasks at the engine than the run's ``n_jobs``
    where the cluster has more workers than that.
    """

    def __init__(self, backend: Any, n: int, name: str) -> None:
        self.backend = backend
        self.n = n
        self.name = name
        self.most = n
        self._lock = threading.Lock()
        self._backlog: collections.deque[Task] = collections.deque()
        self._running: set[Task] = set()
        self._lost: Lost | None = None
        self._lacking: set[str] = set()
        self._stale = ""
        self._warned = b""
        self._stack = contextlib.ExitStack()

    # -- what subclasses say -----------------------------------------------------------------------------------------

    @staticmethod
    def size_of(backend: Any) -> int:
        """Return the tasks that the cluster runs at once, as the backend says."""
        return int(backend.effective_n_jobs(-1))

    def send(self, task: Task) -> None:
        """Hand a task to the engine; :meth:`answer` is called with what comes of it. Must not block for long."""
        raise NotImplementedError

    def open(self) -> None:
        """Get ready for a run."""

    def cancel(self, tasks: list[Task]) -> None:
        """Drop tasks that are no longer wanted."""

    # -- the run -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._stack.callback(_unfound.LACKING.difference_update, self._lacking)
        self._stack.enter_context(self.backend.retrieval_context())
        self.open()
        # A larger cluster than asked for must not run more at once: nothing then waits at its workers.
        self.most = 2 * self.n if self.size_of(self.backend) <= self.n else self.n
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._backlog.clear()
            left = list(self._running)
            self._running.clear()
        try:
            if left:
                self.cancel(left)
        finally:
            self._stack.close()

    def task(self, job: Job, work: Work) -> tuple[Shipped, Remote]:
        """Make what :meth:`submit` takes; raises :class:`Unsendable` where the items cannot be pickled."""
        parcel = job.parcel
        assert parcel is not None  # noqa: S101 - for the type checker
        by_value = frozenset(_unfound.LACKING)
        items = work.items if hasattr(work.items, "__getitem__") else list(work.items)
        blob, buffers = send_by(pickled, items)
        remote = Remote(
            blob,
            buffers,
            work.start,
            work.quantum_s,
            work.block,
            job.keep_going,
            job.timeout,
            platform.node(),
            by_value,
        )
        return Shipped(parcel.digest, Blob(parcel.data), parcel.is_by_value), remote

    def submit(self, task: Any, done: Callable[[Any, BaseException | None], None]) -> None:
        """Run *task* on the cluster, then call *done*."""
        arguments = task if isinstance(task, tuple) else ()
        if arguments:
            # Not where the task is made: a warning that is an error must not look like an item that cannot be pickled.
            self._tell_by_value(arguments[0])
        function: Callable[..., Any] = cast("Any", run_remote if arguments else task)
        self.enter(Task(function, arguments, done))

    def call(self, n: int, function: Callable[..., Any], *arguments: Any, timeout_s: float) -> Any:
        """
        Run a function *n* times on the cluster, all handed over together, and return the last result.

        Raises Lost if an answer takes longer than *timeout_s*.
        """
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        until = clock() + timeout_s
        for _ in range(n):
            self.enter(Task(function, arguments, lambda result, error: answers.put((result, error))))
        result = None
        for _ in range(n):
            try:
                result, error = answers.get(timeout=max(0.1, until - clock()))
            except queue.Empty:
                raise Lost(f"no answer from the {self.name} cluster within {timeout_s:g} s") from None
            if error is not None:
                raise Lost(str(error)) from error
        return result

    def enter(self, task: Task) -> None:
        """Send a task, now or when there is room."""
        with self._lock:
            lost = self._lost
            if lost is None:
                if len(self._running) >= self.most:
                    self._backlog.append(task)
                    return
                self._running.add(task)
        if lost is not None:
            task.done(None, lost)
        else:
            self._send(task)

    def _send(self, task: Task) -> None:
        try:
            self.send(task)
        except Exception as error:  # noqa: BLE001 - a cluster that is gone, or an item that it cannot take
            _outside.pass_on(error)
            self.answer(task, None, error)

    def answer(self, task: Task, result: Any, error: BaseException | None) -> None:
        """Take in what became of a task; from any thread."""
        received = clock()
        if isinstance(result, Trouble):
            error, result = self._trouble(task, result), None
        elif _lacks_us(error):
            error = Lost(f"amorsize cannot be imported on the workers of the {self.name} cluster: {error}")
        if isinstance(result, Done):
            if isinstance(result.results, Parts):
                parts = result.results
                result.results = memoryview(parts.data.data)
                result.buffers = tuple(buffer.data for buffer in parts.buffers)
            if result.begin_s == 0.0:  # of another machine, whose clock is not this one's
                result.begin_s, result.end_s = received - result.end_s, received
        with self._lock:
            if task not in self._running:
                return  # the run is over, or the task has been answered for
            self._running.discard(task)
            following = self._backlog.popleft() if self._backlog else None
            if following is not None:
                self._running.add(following)
        task.done(result, error)
        if following is not None:
            self._send(following)

    def lose(self, why: str) -> None:
        """Answer for every task: the cluster is gone."""
        with self._lock:
            self._lost = self._lost or Lost(why)
            tasks = [*self._running, *self._backlog]
            self._running.clear()
            self._backlog.clear()
        for task in tasks:
            task.done(None, self._lost)

    def broken(self, error: BaseException) -> str:
        """Return words where *error* means that workers or the cluster are gone."""
        return " ".join(str(error).split())[:300] if isinstance(error, Lost) else ""

    # -- modules that workers lack, or hold in another version --------------------------------------------------------

    def _trouble(self, task: Task, trouble: Trouble) -> BaseException:
        """
        Return the error of a chunk that could not be begun.

        Where sending a module of the user's by value helps, that is :class:`StaleCode`: the run then packs function and
        items again, and what they name of the module goes by value until the run ends.
        """
        error = _worker.unpack_error(trouble.error)
        top = trouble.module.partition(".")[0]
        if not top or top in task.arguments[1].by_value or not _is_users(sys.modules.get(top)):
            return error
        self._lacking.add(top)
        _unfound.LACKING.add(top)
        self._stale = self._stale or str(error)
        return error if isinstance(error, _worker.StaleCode) else _worker.StaleCode(str(error))

    def _tell_by_value(self, parcel: Shipped) -> None:
        """Warn, once per run and in the caller's thread, that a named function goes by value."""
        if not self._stale or not parcel.is_by_value or parcel.digest == self._warned:
            return
        self._warned = parcel.digest
        warn(f"{self._stale}; it is sent by value to the {self.name} workers: {len(parcel.data):,} bytes")


def _lacks_us(error: BaseException | None) -> bool:
    """Tell whether a task failed because workers cannot import this very package."""
    if isinstance(error, ModuleNotFoundError):
        return (error.name or "").partition(".")[0] == "amorsize"
    # Ray's words; the function is always one of this package's.
    return isinstance(error, RuntimeError) and "failed to import on the worker" in str(error)


def _is_users(module: Any) -> bool:
    """Tell whether a module is the user's own source, not an installed package: only such can go by value."""
    path = os.path.abspath(getattr(module, "__file__", None) or "")
    return path.endswith((".py", ".pyc")) and not _function.is_installed(path)
