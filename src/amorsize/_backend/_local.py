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
from typing import TYPE_CHECKING, Any, Final

from amorsize._backend import _bounds as bounds
from amorsize._backend import _loky_inside
from amorsize._backend._blas import THREAD_VARIABLES
from amorsize._backend._carrier import Submitter
from amorsize._backend._worker import NoWorkersError, no_interrupt
from amorsize._modules import is_ending, loaded
from amorsize._outside import pass_on, signals_held, suppressed

if TYPE_CHECKING or sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable

# What it means for a task that workers have died, by the name of its error.
_DEATHS: Final = frozenset(
    {"BrokenExecutor", "BrokenProcessPool", "TerminatedWorkerError", "ShutdownExecutorError", "DeafError"}
)


# Priority among multiprocessing's finalizers: semaphores go at 0, queues at 10, higher ones first.
_BEFORE_SEMAPHORES: Final = 100

# joblib's backends that mean "processes of this machine", for which our own way of running them is taken.
LOCAL_PROCESS_BACKENDS: Final = frozenset({"loky", "multiprocessing", "amorsize"})


def context() -> tuple[str | None, int | None, Any]:
    """
    Read an active ``joblib.parallel_config``: a name, the jobs it asks for or None, the external backend or None.

    The name is "threading" or that of an external backend, None for local processes or no context. Raises what a
    backend does whose cluster cannot be reached.
    """
    parallel = loaded("joblib.parallel")
    config = getattr(getattr(parallel, "_backend", None), "config", None)
    if parallel is None or not config or is_ending():  # a cluster's client needs threads
        return None, None, None
    backend, n_jobs = parallel.get_active_backend()
    name = backend_name(backend)
    if name == "sequential":
        return None, 1, None
    if name == "threading":
        return name, None if n_jobs is None else int(backend.effective_n_jobs(n_jobs)), None
    if name in LOCAL_PROCESS_BACKENDS:
        return None, None if n_jobs is None else int(backend.effective_n_jobs(n_jobs)), None

    return name, _jobs_meant(n_jobs, clusters().size_of(backend)), backend


def chunks() -> Any:
    """Return what travels to loky's workers, which is loaded for them only: 3 ms."""
    from amorsize._backend import _chunks  # noqa: PLC0415 - as said

    return _chunks


def clusters() -> Any:
    """Return the part for Dask, Ray and other backends of joblib, which is loaded for the first cluster: 10 ms."""
    from amorsize._backend import _clusters  # noqa: PLC0415 - as said

    return _clusters


def carried_context() -> Callable[[], None]:
    """Return what gives another thread the ``joblib.parallel_config`` that is active in this one."""
    config = getattr(getattr(loaded("joblib.parallel"), "_backend", None), "config", None)
    if not config:
        return lambda: None
    return lambda: setattr(sys.modules["joblib.parallel"]._backend, "config", config)  # noqa: SLF001 - no public way


def _end_with(lifeline: Any) -> None:
    """
    End this worker when the other end of a pipe is gone, which only the caller's end closes.

    Of a caller that was killed, loky's workers would know nothing: idle ones stay for minutes, busy ones compute to the
    end and then wait for ever for somebody to take a large result. A signal, whose default action ends
    a process even inside native code, and not a thread, beside which the user's function could not safely fork.
    """
    if sys.platform != "linux":
        return

    with contextlib.suppress(OSError):  # where there is no /proc a killed caller's workers stay, as elsewhere
        # Opened once more: of what is inherited, all workers share one, and it signals to the last who asks.
        own = os.open(f"/proc/self/fd/{lifeline.fileno()}", os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        if lifeline.poll():  # it was gone before
            os._exit(1)


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


class Loky(Submitter):
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
        self._share = 1
        self._pid = 0
        self._registered = False
        self._n_runs = 0
        self._envs: dict[tuple[int, int], dict[str, str]] = {}
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
            if (busy and not self._n_runs) or (broken and _loky_inside.is_broken(self._executor)):
                self.close(kill=True)

    def is_warm(self) -> bool:
        """Tell whether workers are there."""
        executor = self._executor
        if executor is None or self._pid != os.getpid():
            return False
        flags = executor._flags  # noqa: SLF001 - no public way to ask
        return not _loky_inside.is_broken(executor) and not flags.shutdown and bool(executor._processes)  # noqa: SLF001 - as above

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

    def ensure(self, n_jobs: int, share: int = 0) -> None:
        """
        Have *n_jobs* workers or more, or have them starting; each with *share* threads for numerical libraries.

        Workers that are there keep their share, and their successors get it. Raises NoWorkersError if the system, or a
        program that is ending, gives none.
        """
        try:
            self._ensure(n_jobs, share or self._share)
        except Exception as error:
            pass_on(error)
            refusal = _loky_inside.refusal(error)
            if refusal is None:
                raise
            raise NoWorkersError(*refusal.args) from error

    def _ensure(self, n_jobs: int, n_threads: int) -> None:
        with self._lock:
            # Under the lock, and joblib itself first: two threads that import it at once meet in its middle.
            with signals_held():  # an import that a limit of the program ends is half done for good
                from joblib.externals import loky  # noqa: PLC0415 - 30 to 250 ms, with joblib

            multiprocessing: Any = sys.modules["multiprocessing"]  # with what loky has loaded of it

            executor: Any = self._executor if self._pid == os.getpid() else None
            flags = None if executor is None else executor._flags  # noqa: SLF001 - no public way to ask
            if (
                flags is not None
                and not _loky_inside.is_broken(executor)
                and not flags.shutdown
                and self._size >= n_jobs
            ):
                return
            if executor is not None:
                self._executor = None  # first: whoever hands it a task now waits for the next one
                with signals_held():
                    executor.shutdown(wait=False)
            if sys.platform != "win32":
                # Now, since starting it lets Ctrl-C through again: workers that start right behind it would get it.
                multiprocessing.resource_tracker.ensure_running()
            self._share, share = n_threads, str(n_threads)
            env = dict.fromkeys(THREAD_VARIABLES, share) | {"LOKY_MAX_CPU_COUNT": share}
            env = self._envs.setdefault((n_jobs, n_threads), env)
            watched: Any = {}
            if sys.platform == "linux":
                self._lifeline = self._lifeline or multiprocessing.Pipe(duplex=False)
                watched = {"initializer": _end_with, "initargs": self._lifeline[:1]}
            with signals_held():
                self._executor = loky.ProcessPoolExecutor(max_workers=n_jobs, timeout=bounds.IDLE_S, env=env, **watched)
            self._size, self._pid = n_jobs, os.getpid()
            if not self._registered:
                # Before the interpreter takes modules apart: loky's own clean-up needs them. A child of multiprocessing
                # leaves without atexit's functions, and removes semaphores that workers which still start ask for.
                atexit.register(self._at_exit)
                multiprocessing.util.Finalize(None, self._at_exit, exitpriority=_BEFORE_SEMAPHORES)
                self._registered = True

    def task(self, job: Any, work: Any) -> Any:
        """Make what :meth:`submit` takes."""
        return chunks().chunk(job, work)

    def submit(self, task: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run *task* in a worker, then call *done* from the executor's thread."""
        try:
            future = self._future(task)
        except Exception as error:  # noqa: BLE001 - a pool that broke or cannot be had: the run decides
            pass_on(error)
            refusal = _loky_inside.refusal(error)
            done(None, error if refusal is None else NoWorkersError(*refusal.args))
            return

        def finished(future: Any) -> None:
            if future.cancelled():
                done(None, RuntimeError("the task was cancelled"))
                return
            error = future.exception()
            done(None if error is not None else future.result(), error)

        with signals_held():
            future.add_done_callback(finished)

    def _future(self, task: Callable[[], Any]) -> Any:
        """Hand a task to the workers; to their successors where another run replaces or ends them meanwhile."""
        for _ in range(bounds.MOST_POOLS):
            executor = self._executor
            if executor is None:
                self.ensure(max(1, self._size))
                continue
            try:
                # Workers inherit that Ctrl-C is held back.
                with no_interrupt(), signals_held(), self._starting(executor):
                    return executor.submit(task)
            except Exception as error:
                pass_on(error)
                future = self._entered(executor, task)
                with signals_held():
                    is_taken = future is not None and not future.cancel()
                if is_taken:
                    return future
                if executor is self._executor:
                    if _loky_inside.refusal(error) is not None:
                        _loky_inside.end_unserved(executor)
                    raise
        raise NoWorkersError("loky's workers were ended again and again while a task was handed to them")

    def _starting(self, executor: Any) -> contextlib.AbstractContextManager[None]:
        """Return what a task needs around it that starts workers."""
        n_there = len(getattr(executor, "_processes", None) or ())
        return contextlib.nullcontext() if n_there == self._size else _loky_inside.flushable()

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
        if executor is None or not _loky_inside.is_deaf(executor):
            return None
        return _loky_inside.DeafError(
            "the thread that takes in what loky's workers send has ended, as it does where memory runs out"
        )

    def forget(self) -> None:
        """Start anew in a forked copy of the program: lock, executor and workers belong to the parent."""
        # The parent's executor must not be collected here: its clean-up would talk to the parent's workers.
        self._inherited = self._executor
        if self._inherited is not None:
            # At its end a process joins its children, and these are not its own.
            _loky_inside.children().difference_update((self._inherited._processes or {}).values())  # noqa: SLF001 - no public way
        self._forget()

    def _at_exit(self) -> None:
        self.close(kill=True)
        if self._pid == os.getpid():
            # Whoever was interrupted while starting some may have left one that waits for tasks, and is waited for.
            # They are told from other people's by what they were started with.
            _loky_inside.kill(
                [
                    p
                    for p in list(_loky_inside.children())
                    if any(getattr(p, "env", None) is env for env in self._envs.values())
                ]
            )

    def renew(self) -> None:
        """Start another pool of the same size if this one is broken."""
        with self._lock:
            if self._executor is None or _loky_inside.is_broken(self._executor):
                self.close(kill=True)
                self.ensure(max(1, self._size))

    def end_idle(self) -> None:
        """End the workers and wait for them, unless somebody is at work with them."""
        with self._lock:
            if not self._n_runs:
                self.close()

    def close(self, *, kill: bool = False) -> None:
        """End the workers and wait for them."""
        with self._lock:
            executor, self._executor = self._executor, None
            if executor is not None and self._pid == os.getpid():
                processes = list((executor._processes or {}).values())  # noqa: SLF001 - no public way
                tasks = executor._call_queue  # noqa: SLF001 - as above
                manager = executor._executor_manager_thread  # noqa: SLF001 - as above
                try:
                    with suppressed():  # whatever state it is in, it must go
                        _loky_inside.end_unserved(executor)
                        with signals_held():
                            if kill:
                                _loky_inside.withdraw(executor)
                            executor.shutdown(wait=False, kill_workers=kill)
                        _loky_inside.join(manager, processes)
                    _loky_inside.end_feeder(tasks)
                except BaseException:  # a signal's handler that ends the program, say: nobody tells them to leave now
                    _loky_inside.kill(processes)
                    raise
                # A worker that broke the pool is in nobody's list any more: asking takes in its end and its pipe.
                sys.modules["multiprocessing"].active_children()


LOKY: Final = Loky()
