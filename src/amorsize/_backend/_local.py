"""
The joblib side: loky's workers, joblib's active context, and the way to joblib's external backends.

Imports joblib only once a run needs it.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Self

from amorsize._backend._blas import THREAD_VARIABLES
from amorsize._backend._worker import NoWorkersError, end_with, no_interrupt
from amorsize._modules import loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Seconds after which idle loky workers leave by themselves; joblib's own figure.
IDLE_S: Final = 300

# What it means for a task that workers have died, by the name of its error.
_DEATHS: Final = frozenset(
    {"BrokenExecutor", "BrokenProcessPool", "TerminatedWorkerError", "ShutdownExecutorError", "_DeafError"}
)

# What Python says where no thread may be started, for want of memory or at the end of the program.
_REFUSALS: Final = (
    "can't start new thread",
    "after interpreter shutdown",
    "at interpreter shutdown",
    "can't register atexit after shutdown",
)

# Pools that may be ended by other runs while one task is handed over.
_MOST_POOLS: Final = 20

# Priority among multiprocessing's finalizers: semaphores go at 0, queues at 10, higher ones first.
_BEFORE_SEMAPHORES: Final = 100

# joblib's backends that mean "processes of this machine", for which our own way of running them is taken.
LOCAL_PROCESS_BACKENDS: Final = frozenset({"loky", "multiprocessing", "amorsize"})


def context() -> tuple[str | None, int | None, Any]:
    """
    Read an active ``joblib.parallel_config``.

    Returns:
        ``"threading"``, ``"sequential"``, the name of an external backend, or None for local processes or no context;
        the number of jobs it asks for, or None; and the external backend itself, or None.

    Raises:
        Exception: The external backend's own, where its cluster cannot be reached.
    """
    parallel = loaded("joblib.parallel")
    config = getattr(getattr(parallel, "_backend", None), "config", None)
    if parallel is None or not config:
        return None, None, None
    backend, n_jobs = parallel.get_active_backend()
    name = backend_name(backend)
    if name == "sequential":
        return None, 1, None
    if name == "threading":
        return name, None if n_jobs is None else int(backend.effective_n_jobs(n_jobs)), None
    if name in LOCAL_PROCESS_BACKENDS:
        return None, None if n_jobs is None else int(backend.effective_n_jobs(n_jobs)), None
    from amorsize._backend import _clusters  # noqa: PLC0415 - see External

    return name, _jobs_meant(n_jobs, _clusters.size_of(backend)), backend


def _jobs_meant(n_jobs: int | None, n_workers: int) -> int:
    """Return the jobs that a context means by *n_jobs*: all workers where it names none, never more than there are."""
    if n_jobs is None:
        return n_workers
    return max(1, min(n_workers, n_jobs if n_jobs > 0 else n_workers + 1 + n_jobs))


def backend_name(backend: Any) -> str:
    """Return joblib's registered name of a backend, or its class's name."""
    known = {
        "LokyBackend": "loky",
        "MultiprocessingBackend": "multiprocessing",
        "ThreadingBackend": "threading",
        "SequentialBackend": "sequential",
        "DaskDistributedBackend": "dask",
        "RayBackend": "ray",
        "SparkDistributedBackend": "spark",
        "AmorsizeBackend": "amorsize",
    }
    kinds = [kind.__name__ for kind in type(backend).__mro__]
    for name, kind in getattr(loaded("joblib.parallel"), "BACKENDS", {}).items():
        if kind is type(backend):
            return str(name)
    return next((known[kind] for kind in kinds if kind in known), type(backend).__name__)


class Loky:
    """
    Loky workers kept warm across calls and across changes of ``n_jobs``.

    The pool only grows: a call with fewer jobs hands out fewer chunks at a time. Inner threads are pinned when the
    pool starts, so that no change of ``n_jobs`` restarts it.
    """

    name = "loky"

    def __init__(self) -> None:
        self._forget()
        self._inherited: Any = None

    def _forget(self) -> None:
        # For one thread as often as it likes: a signal's handler may end the pool while it is being started or ended.
        self._lock = threading.RLock()
        self._executor: Any = None
        self._size = 0
        self._pid = 0
        self._registered = False
        self._n_runs = 0
        self._envs: dict[int, dict[str, str]] = {}
        # A pipe that the workers watch: its other end closes when this process ends, however it does.
        self._lifeline: Any = None

    def enter(self) -> None:
        """Be at work with the workers: they are everybody's, and nobody ends them meanwhile."""
        with self._lock:
            self._n_runs += 1

    def leave(self, *, broken: bool = False, busy: bool = False) -> None:
        """
        Be done with the workers; ends them where they are *broken*, or *busy* with what nobody wants any more.

        Not where somebody else is at work with them: chunks that nobody wants then end within their quantum.
        """
        with self._lock:
            self._n_runs = max(0, self._n_runs - 1)
            if (busy and not self._n_runs) or (broken and _is_broken(self._executor)):
                self.close(kill=True)

    def is_warm(self) -> bool:
        """Tell whether workers are there."""
        executor = self._executor
        if executor is None or self._pid != os.getpid():
            return False
        flags = executor._flags  # noqa: SLF001 - no public way to ask
        return not _is_broken(executor) and not flags.shutdown and bool(executor._processes)  # noqa: SLF001 - as above

    def threads(self) -> frozenset[threading.Thread]:
        """Return the threads that serve the pool: what they may hold, a forked worker never touches."""
        executor = self._executor
        if executor is None or self._pid != os.getpid():
            return frozenset()
        threads = (executor._executor_manager_thread, getattr(executor._call_queue, "_thread", None))  # noqa: SLF001 - no public way
        return frozenset(thread for thread in threads if thread is not None and thread.is_alive())

    def n_workers(self) -> int:
        """Return how many workers the pool has."""
        return 0 if self._executor is None else self._size

    def ensure(self, n_jobs: int) -> None:
        """
        Have at least *n_jobs* workers, or have them starting.

        Raises:
            NoWorkersError: If the system, or a program that is ending, gives none.
        """
        try:
            self._ensure(n_jobs)
        except Exception as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            raise NoWorkersError(*refusal.args) from error

    def _ensure(self, n_jobs: int) -> None:
        with self._lock:
            # Under the lock, and joblib itself first: two threads that import it at once meet in its middle.
            import multiprocessing.util  # noqa: PLC0415 - joblib's is the larger part

            import joblib  # noqa: F401, PLC0415 - 0.03 to 0.25 s, only when a run goes parallel
            from joblib.externals import loky  # noqa: PLC0415 - as above

            executor: Any = self._executor if self._pid == os.getpid() else None
            flags = None if executor is None else executor._flags  # noqa: SLF001 - no public way to ask
            if flags is not None and not _is_broken(executor) and not flags.shutdown and self._size >= n_jobs:
                return
            if executor is not None:
                self._executor = None  # first: whoever hands it a task now waits for the next one
                executor.shutdown(wait=False)
            if sys.platform != "win32":
                import multiprocessing.resource_tracker  # noqa: PLC0415 - as above

                # Now, since starting it lets Ctrl-C through again: workers that start right behind it would get it.
                multiprocessing.resource_tracker.ensure_running()
            share = str(max(1, (os.cpu_count() or 1) // n_jobs))
            env = dict.fromkeys(THREAD_VARIABLES, share) | {"LOKY_MAX_CPU_COUNT": share}
            env = self._envs.setdefault(n_jobs, env)
            watched: Any = {}
            if sys.platform == "linux":
                self._lifeline = self._lifeline or multiprocessing.Pipe(duplex=False)
                watched = {"initializer": end_with, "initargs": self._lifeline[:1]}
            self._executor = loky.ProcessPoolExecutor(max_workers=n_jobs, timeout=IDLE_S, env=env, **watched)
            self._size, self._pid = n_jobs, os.getpid()
            if not self._registered:
                # Before the interpreter takes modules apart: loky's own clean-up needs them. A child of multiprocessing
                # leaves without atexit's functions, and removes semaphores that workers which still start ask for.
                atexit.register(self._at_exit)
                multiprocessing.util.Finalize(None, self._at_exit, exitpriority=_BEFORE_SEMAPHORES)
                self._registered = True

    def task(self, job: Any, work: Any) -> Any:
        """Make what :meth:`submit` takes."""
        from amorsize._backend._chunks import chunk  # noqa: PLC0415 - not before a run

        return chunk(job, work)

    def submit(self, task: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run *task* in a worker, then call *done* from the executor's thread."""
        try:
            future = self._future(task)
        except Exception as error:  # noqa: BLE001 - a pool that broke or cannot be had: the run decides
            refusal = _refusal(error)
            done(None, error if refusal is None else NoWorkersError(*refusal.args))
            return

        def finished(future: Any) -> None:
            if future.cancelled():
                done(None, RuntimeError("the task was cancelled"))
                return
            error = future.exception()
            done(None if error is not None else future.result(), error)

        future.add_done_callback(finished)

    def _future(self, task: Callable[[], Any]) -> Any:
        """Hand a task to the workers; to their successors where another run replaces or ends them meanwhile."""
        for _ in range(_MOST_POOLS):
            executor = self._executor
            if executor is None:
                self.ensure(max(1, self._size))
                continue
            try:
                with no_interrupt(), self._starting(executor):  # workers inherit that Ctrl-C is held back
                    return executor.submit(task)
            except Exception as error:
                future = self._entered(executor, task)
                if future is not None and not future.cancel():
                    return future
                if executor is self._executor:
                    if _refusal(error) is not None:
                        _end_unserved(executor)
                    raise
        message = "loky's workers were ended again and again while a task was handed to them"
        raise NoWorkersError(message)

    def _starting(self, executor: Any) -> contextlib.AbstractContextManager[None]:
        """Return what a task needs around it that starts workers."""
        n_there = len(getattr(executor, "_processes", None) or ())
        return contextlib.nullcontext() if n_there == self._size else _flushable()

    @staticmethod
    def _entered(executor: Any, task: Callable[[], Any]) -> Any:
        """Return the future of a task that loky took in before it failed to start workers: it may still be run."""
        waiting = list(getattr(executor, "_pending_work_items", {}).values())
        return next((item.future for item in waiting if item.fn is task), None)

    def broken(self, error: BaseException) -> str:
        """Return loky's words where *error* means that workers died."""
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if not kinds & _DEATHS:
            return ""
        text = " ".join(str(error).split())
        return f"{type(error).__name__}: {text[:300]}"

    def fault(self) -> BaseException | None:
        """Return why no answer can come any more, None where one can."""
        executor = self._executor
        if executor is None or not _is_deaf(executor):
            return None
        return _DeafError(
            "the thread that takes in what loky's workers send has ended, as it does where memory runs out"
        )

    def forget(self) -> None:
        """Start anew in a forked copy of the program: lock, executor and workers belong to the parent."""
        # The parent's executor must not be collected here: its clean-up would talk to the parent's workers.
        self._inherited = self._executor
        if self._inherited is not None:
            # At its end a process joins its children, and these are not its own.
            _children().difference_update((self._inherited._processes or {}).values())  # noqa: SLF001 - no public way
        self._forget()

    def _at_exit(self) -> None:
        self.close(kill=True)
        if self._pid == os.getpid():
            # Whoever was interrupted while starting some may have left one that waits for tasks, and is waited for.
            # They are told from other people's by what they were started with.
            _kill([p for p in list(_children()) if any(getattr(p, "env", None) is env for env in self._envs.values())])

    def renew(self) -> None:
        """Start another pool of the same size if this one is broken."""
        with self._lock:
            if self._executor is None or _is_broken(self._executor):
                self.close(kill=True)
                self.ensure(max(1, self._size))

    def end_idle(self) -> None:
        """End the workers and wait for them, unless somebody is at work with them."""
        if not self._n_runs:
            self.close()

    def close(self, *, kill: bool = False) -> None:
        """End the workers and wait for them."""
        with self._lock:
            executor, self._executor = self._executor, None
            if executor is not None and self._pid == os.getpid():
                processes = list((executor._processes or {}).values())  # noqa: SLF001 - no public way
                try:
                    with contextlib.suppress(Exception):  # whatever state it is in, it must go
                        _end_unserved(executor)
                        if kill:
                            _withdraw(executor)
                        executor.shutdown(wait=True, kill_workers=kill)
                except BaseException:  # a signal's handler that ends the program, say: nobody tells them to leave now
                    _kill(processes)
                    raise
                # A worker that broke the pool is in nobody's list any more: asking takes in its end and its pipe.
                sys.modules["multiprocessing"].active_children()


def _children() -> set[Any]:
    """Return the processes that multiprocessing waits for at the end of this one."""
    process = loaded("multiprocessing.process")
    return set() if process is None else process._children  # noqa: SLF001 - the only way that asks none of them


def _kill(processes: list[Any]) -> None:
    """End loky's processes at once; their own ``terminate`` could be held up."""
    for process in processes:
        with contextlib.suppress(OSError, AttributeError):
            if not process.is_alive():
                continue
            if sys.platform == "win32":
                process.terminate()
            else:
                os.kill(process.pid, signal.SIGKILL)


class _DeafError(RuntimeError):
    """Says that nobody listens to the workers any more."""


def _is_deaf(executor: Any) -> bool:
    """Tell whether the thread that takes in loky's answers has ended with tasks unanswered."""
    thread = executor._executor_manager_thread  # noqa: SLF001 - no public way to ask
    if executor._flags.shutdown_lock.locked():  # noqa: SLF001 - as above
        return False  # somebody hands it a task, and may just be starting the thread
    return thread is not None and not thread.is_alive() and bool(executor._pending_work_items)  # noqa: SLF001 - as above


def _is_broken(executor: Any) -> bool:
    """Tell whether loky's workers must be replaced before anything else is given to them."""
    if executor is None:
        return False
    return executor._flags.broken is not None or _is_deaf(executor)  # noqa: SLF001 - no public way to ask


@contextlib.contextmanager
def _flushable() -> Iterator[None]:
    """Stand in for standard streams that cannot be flushed (a daemon's), as loky does before it starts a worker."""
    replaced = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - none, closed, or odd
            replaced[name] = stream
            setattr(sys, name, io.StringIO())
    try:
        yield
    finally:
        for name, stream in replaced.items():
            setattr(sys, name, stream)


def _withdraw(executor: Any) -> None:
    """
    Take back tasks that wait to be queued: told to kill its workers, loky drops them, and then looks for them.

    Of that its manager dies, and the thread that feeds the queue stays for good, which forbids forking.
    """
    waiting = executor._work_ids  # noqa: SLF001 - no public way
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.get(block=False)


def _end_unserved(executor: Any) -> None:
    """
    End workers that nobody serves: where the start of one is refused, loky leaves those before it without a manager.

    They would never be told to leave, and the interpreter waits for them at its end.
    """
    thread = executor._executor_manager_thread  # noqa: SLF001 - no public way
    if thread is None or not thread.is_alive():
        for process in list((executor._processes or {}).values()):  # noqa: SLF001 - as above
            process.terminate()
            process.join(10)


def _refusal(error: BaseException) -> OSError | None:
    """
    Return the system's refusal behind what loky raises, None if it is something else.

    Where a pipe is refused, the clean-up of loky's ``Popen`` trips over a variable that has not been set yet.
    """
    if isinstance(error, UnboundLocalError) and error.__context__ is not None:
        error = error.__context__
    if isinstance(error, MemoryError) or any(words in str(error) for words in _REFUSALS):
        return OSError(f"{type(error).__name__}: {error}")
    return error if isinstance(error, OSError) else None


class External:
    """
    Carries tasks on a cluster that an active joblib context names: Dask, Ray, Spark, or one the user has registered.

    Stands in front of :mod:`amorsize._backend._clusters`, which is imported when a run goes there.
    """

    def __init__(self, backend: Any, n: int, name: str) -> None:
        from amorsize._backend import _clusters  # noqa: PLC0415 - see the docstring

        self.name = name
        self._cluster = _clusters.kind_of(backend)(backend, n, name)

    def __enter__(self) -> Self:
        self._cluster.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.__exit__()

    def task(self, job: Any, work: Any) -> Any:
        """Make what :meth:`submit` takes: large buffers travel beside the pickle."""
        return self._cluster.task(job, work)

    def submit(self, task: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run *task* on the cluster, then call *done*."""
        self._cluster.submit(task, done)

    def renew(self) -> None:
        """Leave it to the engine."""
        self._cluster.renew()

    def fault(self) -> BaseException | None:
        """Return None: who watches over the cluster tells of it."""
        return None

    def broken(self, error: BaseException) -> str:
        """Return words where *error* means that workers or the cluster are gone."""
        return self._cluster.broken(error)


def probe(backend: Any, name: str) -> dict[str, float]:
    """Measure what a cluster costs, at its first use; empty afterwards."""
    from amorsize._backend import _clusters  # noqa: PLC0415 - see above

    return _clusters.probe(backend, name)


LOKY: Final = Loky()
