"""
The joblib side: loky's workers, joblib's active context, and the way to joblib's external backends.

Imports joblib only once a run needs it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Self

from amorsize._backend._blas import THREAD_VARIABLES
from amorsize._backend._worker import NoWorkersError, end_with, no_interrupt
from amorsize._modules import loaded

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds after which idle loky workers leave by themselves; joblib's own figure.
IDLE_S: Final = 300

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


_lifelines: dict[int, Any] = {}


def _lifeline() -> Any:
    """Return the end of a pipe that this process's workers watch: it closes when the process ends, however it does."""
    import multiprocessing  # noqa: PLC0415 - loky's workers need it anyway

    if os.getpid() not in _lifelines:
        _lifelines.clear()  # a fork's copies of its parent's ends
        _lifelines[os.getpid()] = multiprocessing.Pipe(duplex=False)
    return _lifelines[os.getpid()][0]


class Loky:
    """
    Loky workers kept warm across calls and across changes of ``n_jobs``.

    The pool only grows: a call with fewer jobs hands out fewer chunks at a time. Inner threads are pinned when the
    pool starts, so that no change of ``n_jobs`` restarts it.
    """

    name = "loky"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: Any = None
        self._size = 0
        self._pid = 0
        self._registered = False
        self._inherited: Any = None

    def is_warm(self) -> bool:
        """Tell whether workers are there."""
        executor = self._executor
        if executor is None or self._pid != os.getpid():
            return False
        flags = executor._flags  # noqa: SLF001 - no public way to ask
        return flags.broken is None and not flags.shutdown and bool(executor._processes)  # noqa: SLF001 - as above

    def threads(self) -> frozenset[threading.Thread]:
        """Return the threads that serve the pool: what they may hold, a forked worker never touches."""
        executor = self._executor
        if executor is None or self._pid != os.getpid():
            return frozenset()
        threads = (executor._executor_manager_thread, getattr(executor._call_queue, "_thread", None))  # noqa: SLF001 - no public way
        return frozenset(thread for thread in threads if thread is not None and thread.is_alive())

    def n_workers(self) -> int:
        """Return how many workers the pool has."""
        return self._size

    def ensure(self, n_jobs: int) -> None:
        """Have at least *n_jobs* workers, or have them starting."""
        with self._lock:
            # Under the lock, and joblib itself first: two threads that import it at once meet in its middle.
            import multiprocessing.util  # noqa: PLC0415 - joblib's is the larger part

            import joblib  # noqa: F401, PLC0415 - 0.03 to 0.25 s, only when a run goes parallel
            from joblib.externals import loky  # noqa: PLC0415 - as above

            executor: Any = self._executor if self._pid == os.getpid() else None
            flags = None if executor is None else executor._flags  # noqa: SLF001 - no public way to ask
            if flags is not None and flags.broken is None and not flags.shutdown and self._size >= n_jobs:
                return
            if executor is not None:
                executor.shutdown(wait=False)
            if sys.platform != "win32":
                import multiprocessing.resource_tracker  # noqa: PLC0415 - as above

                # Now, since starting it lets Ctrl-C through again: workers that start right behind it would get it.
                multiprocessing.resource_tracker.ensure_running()
            share = str(max(1, (os.cpu_count() or 1) // n_jobs))
            env = dict.fromkeys(THREAD_VARIABLES, share) | {"LOKY_MAX_CPU_COUNT": share}
            watched: Any = {"initializer": end_with, "initargs": (_lifeline(),)} if sys.platform == "linux" else {}
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
            with no_interrupt():  # the first task starts the workers, which inherit that Ctrl-C is held back
                future = self._executor.submit(task)
        except Exception as error:  # noqa: BLE001 - a pool that broke or is being shut down: the run decides
            future = self._entered(task)
            if future is None or future.cancel():
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

    def _entered(self, task: Callable[[], Any]) -> Any:
        """Return the future of a task that loky took in before it failed to start workers: it may still be run."""
        waiting = list(getattr(self._executor, "_pending_work_items", {}).values())
        return next((item.future for item in waiting if item.fn is task), None)

    def broken(self, error: BaseException) -> str:
        """Return loky's words where *error* means that workers died."""
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if not kinds & {"BrokenExecutor", "BrokenProcessPool", "TerminatedWorkerError", "ShutdownExecutorError"}:
            return ""
        text = " ".join(str(error).split())
        return f"{type(error).__name__}: {text[:300]}"

    def forget(self) -> None:
        """Start anew in a forked copy of the program: lock and executor belong to the parent."""
        self._lock = threading.Lock()
        # The parent's executor must not be collected here: its clean-up would talk to the parent's workers.
        self._inherited = self._executor
        self._executor, self._size = None, 0
        self._registered = False

    def _at_exit(self) -> None:
        self.close(kill=True)

    def renew(self) -> None:
        """Start another pool of the same size if this one is broken."""
        executor = self._executor
        if executor is None or executor._flags.broken is not None:  # noqa: SLF001 - no public way to ask
            size = self._size
            self.close(kill=True)
            self.ensure(max(1, size))

    def restart(self) -> None:
        """Drop a broken pool; the next run starts another."""
        self.close(kill=True)

    def close(self, *, kill: bool = False) -> None:
        """End the workers and wait for them."""
        with self._lock:
            executor, self._executor, self._size = self._executor, None, 0
            if executor is not None and self._pid == os.getpid():
                with contextlib.suppress(Exception):  # whatever state it is in, it must go
                    _end_unserved(executor)
                    executor.shutdown(wait=True, kill_workers=kill)
                # A worker that broke the pool is in nobody's list any more: asking takes in its end and its pipe.
                sys.modules["multiprocessing"].active_children()


def _end_unserved(executor: Any) -> None:
    """
    End workers that nobody serves: where the start of one is refused, loky leaves those before it without a manager.

    They would never be told to leave, and the interpreter waits for them at its end.
    """
    if executor._executor_manager_thread is None:  # noqa: SLF001 - no public way
        for process in (executor._processes or {}).values():  # noqa: SLF001 - as above
            process.terminate()
            process.join(10)


def _refusal(error: BaseException) -> OSError | None:
    """
    Return the system's refusal behind what loky raises, None if it is something else.

    Where a pipe is refused, the clean-up of loky's ``Popen`` trips over a variable that has not been set yet.
    """
    if isinstance(error, UnboundLocalError) and error.__context__ is not None:
        error = error.__context__
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

    def broken(self, error: BaseException) -> str:
        """Return words where *error* means that workers or the cluster are gone."""
        return self._cluster.broken(error)


def probe(backend: Any, name: str) -> dict[str, float]:
    """Measure what a cluster costs, at its first use; empty afterwards."""
    from amorsize._backend import _clusters  # noqa: PLC0415 - see above

    return _clusters.probe(backend, name)


LOKY: Final = Loky()
