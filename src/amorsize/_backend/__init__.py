"""
The joblib backend adapter: takes ``n_jobs`` and ``batch_size``, builds chunks, dispatches, orders, brings errors home.

    run(backend, job)     ──► fork:      Team      index ranges to forked workers         (_fork)
                          ──► loky:      FlowTeam  pickled chunks to our joblib backend   (_flow, _chunks, _local)
                          ──► threading: FlowTeam  slices to threads                      (_flow, _threads)
                          ──► others:    FlowTeam  pickled chunks to Dask, Ray or joblib  (_flow, _chunks, _clusters)

Never chooses: which backend, how many jobs and how large a chunk are given.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from amorsize import _cost as cost
from amorsize import _function
from amorsize._backend import _blas, _local, _threads
from amorsize._backend._job import Job
from amorsize._backend._worker import MISSING, NoWorkersError, in_worker, make_call, no_interrupt
from amorsize._modules import loaded
from amorsize._types import FORK, LOKY, THREADS

if sys.platform == "linux":
    from amorsize._backend import _early

# What runs processes is not imported with the package, which a program may import without using it, but when it is
# first needed. Threads are started within 2 ms of the first item, which is no time to load what runs them.
if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._backend._chunks import Board
    from amorsize._backend._fork import Team
    from amorsize._backend._outcome import Outcome

__all__ = [
    "MISSING",
    "Job",
    "NoWorkersError",
    "Streaming",
    "blockers",
    "context",
    "dumps_by_value",
    "fork_team",
    "in_worker",
    "is_standing_by",
    "make_call",
    "may_stand_by",
    "no_interrupt",
    "probe",
    "run",
    "shutdown",
    "unloaded_s",
    "warm",
    "watching",
]

context = _local.context
probe = _local.probe


def dumps_by_value(value: Any) -> bytes:
    """Pickle with cloudpickle, by value what has no name to be found by."""
    from amorsize._backend import _ship  # noqa: PLC0415 - see the top

    return _ship.dumps_by_value(value)


def blockers(func: Callable[..., Any]) -> dict[str, str]:
    """Return why a backend that exists cannot be used for *func* now, by backend name."""
    reasons = {}
    if reason := fork_blocker(func):
        reasons[FORK] = reason
    if reason := _loky_blocker():
        reasons[LOKY] = reason
    return reasons


def _loky_blocker() -> str:
    if sys.platform == "emscripten":
        return "this platform has no processes"
    if reason := _forbidden():
        return reason
    if _semaphores() is not None:
        return str(_semaphores())
    if sys.is_finalizing() or not threading.main_thread().is_alive():  # no thread may be started any more
        return "the interpreter is shutting down"
    process = loaded("multiprocessing.process")
    if process is not None and process.current_process().daemon:
        return "daemonic processes may not have children"
    return ""


def _forbidden() -> str:
    """Say which variable of the environment forbids joblib's processes, or its import."""
    if os.environ.get("JOBLIB_MULTIPROCESSING", "1").strip() == "0":
        return "JOBLIB_MULTIPROCESSING=0"
    for name in ("JOBLIB_MULTIPROCESSING", "LOKY_MAX_DEPTH"):
        try:
            int(os.environ.get(name, "1"))
        except ValueError:
            return f"{name}={os.environ[name]!r} is not a number, and joblib cannot be imported"
    return ""


_semaphore_problem: list[str | None] = []


def _semaphores() -> str | None:
    """Return why named semaphores cannot be had, None if they can; tried once."""
    if not _semaphore_problem:
        try:
            import _multiprocessing  # type: ignore[import-not-found]  # noqa: PLC0415 - absent on some builds
            import tempfile  # noqa: PLC0415 - only here

            name = f"/amorsize-{os.getpid()}-{next(tempfile._get_candidate_names())}"  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing names them
            lock = _multiprocessing.SemLock(0, 1, 1, name, True)
            del lock
            _semaphore_problem.append(None)
        except (ImportError, OSError, AttributeError) as error:
            _semaphore_problem.append(f"semaphores cannot be had: {error}")
    return _semaphore_problem[0]


def unloaded_s() -> float:
    """Return the seconds that the first run of forked workers takes longer than the others; 0 after it."""
    return 0.0 if _if_used("_fork") is not None else cost.LOADING_RUNS_S


def fork_blocker(func: Callable[..., Any]) -> str:
    """Say why forking for *func* now could be told apart from the loop; empty if it could not."""
    if sys.platform != "linux" or not hasattr(os, "fork"):
        return "fork is only used on Linux"
    if threading.current_thread() is not threading.main_thread():
        return "not called from the main thread"
    # Our own idle threads end before a fork.
    if reason := _blas.foreign_threads(_local.LOKY.threads() | _threads.waiting_threads()):
        return reason
    if names := _function.outside(func).unshareable:
        return f"the function uses {', '.join(names)}, which two processes must not share"
    if sys.is_finalizing():
        return "the interpreter is shutting down"
    return ""


def warm() -> frozenset[str]:
    """Return the backends whose workers are running for any function."""
    return frozenset({LOKY}) if _local.LOKY.is_warm() else frozenset()


def run(backend: str, job: Job) -> Outcome:
    """
    Run a job on a backend.

    Raises:
        NoWorkersError: If the system refuses to start even one worker; no item has been begun.
        BaseException: What interrupts the caller.
    """
    if backend == FORK:
        return _run_fork(job)
    if backend == THREADS:
        return thread_team(job).finish()
    if backend == LOKY:
        return _run_loky(job)
    return _run_external(job, backend)


def _run_fork(job: Job) -> Outcome:
    if not job.may_keep:
        return fork_team(job).finish()
    from amorsize._backend import _standby  # noqa: PLC0415 - does not exist on Windows

    return _standby.run(job)


def is_standing_by(func: Callable[..., Any]) -> bool:
    """Tell whether forked workers of an earlier map wait for another one of *func*."""
    standby = _if_used("_standby")
    return standby is not None and bool(standby.is_ready(func))


def _if_used(name: str) -> Any:
    """Return a module of this room; None where nobody can wait in it, since it has never been entered."""
    return loaded(f"{__name__}.{name}")


def may_stand_by(func: Callable[..., Any]) -> bool:
    """Tell whether forked workers of *func* could be kept for its next map."""
    if sys.platform != "linux":
        return False
    from amorsize._backend import _standby  # noqa: PLC0415 - does not exist on Windows

    return _standby.is_closed(func)


def fork_team(job: Job) -> Team:
    """Make a team of forked workers for a job; nothing is started yet."""
    from amorsize._backend._fork import Team  # noqa: PLC0415 - does not exist on Windows

    return Team(job)


def thread_team(job: Job) -> _threads.ThreadTeam:
    """Make a team of threads for a job; nothing is started yet."""
    return _threads.ThreadTeam(job)


def _packed(job: Job, *, is_cold: bool, ambient: bool) -> Job:
    """Pack the function for workers that are no copies of this process."""
    from amorsize._backend import _ship  # noqa: PLC0415 - see the top

    def pack(*, by_value: bool) -> _ship.Parcel:
        return _ship.pack_function(
            job.func,
            star=job.star,
            kwargs=job.kwargs,
            importable=job.importable,
            by_value=by_value,
            initializer=None if job.initializer is None else (job.initializer, job.initargs),
            ambient=ambient,
        )

    job.parcel, job.is_cold = pack(by_value=False), is_cold
    job.repack = lambda: pack(by_value=True)
    return job


def _run_loky(job: Job) -> Outcome:
    pool = _local.LOKY
    board, n_deaths, is_over = None, 0, False
    pool.enter()
    try:
        is_cold = not pool.is_warm() or pool.n_workers() < job.n_jobs
        try:
            with no_interrupt():  # an import that is interrupted leaves half a module behind
                from amorsize._backend._flow import Callbacks, FlowTeam  # noqa: PLC0415 - see the top

                pool.ensure(job.n_jobs)
        except OSError as error:
            raise NoWorkersError(*error.args) from error
        board = _board()
        # A larger pool than asked for must not get more than one chunk per job: idle workers would take what waits.
        carrier = Callbacks(pool, ahead=1 if pool.n_workers() == job.n_jobs else 0, board=board)
        outcome = FlowTeam(_packed(job, is_cold=is_cold, ambient=True), carrier).run()
        n_deaths, is_over = outcome.deaths, True
        return outcome
    finally:
        try:
            if board is not None:
                board.close()
        finally:
            # Interrupted: what still runs must not run on.
            pool.leave(broken=n_deaths > 0, busy=not is_over)


def _board() -> Board | None:
    """Return a board, None where there is no room for a small file: begun items are then not told from waiting ones."""
    from amorsize._backend._chunks import Board  # noqa: PLC0415 - see the top

    try:
        return Board()
    except OSError:
        return None


def _run_external(job: Job, name: str) -> Outcome:
    from amorsize._backend._flow import Callbacks, FlowTeam  # noqa: PLC0415 - see the top

    with _local.External(job.backend, job.n_jobs, name) as cluster:
        return FlowTeam(_packed(job, is_cold=False, ambient=False), Callbacks(cluster, ahead=1)).run()


def watching(start: Callable[[], float], bottom: Any, after_s: float) -> Any:
    """Call *start* while a long first item runs; see :mod:`amorsize._backend._early`."""
    if sys.platform == "linux":
        return _early.watching(start, bottom, after_s)
    return contextlib.nullcontext()


class Streaming:
    """Workers for a stream, open until closed."""

    def __init__(self, backend: str, job: Job) -> None:
        from amorsize._backend._flow import Callbacks, refusing  # noqa: PLC0415 - see the top
        from amorsize._backend._streaming import StreamTeam  # noqa: PLC0415 - see the top

        self._backend = backend
        self._pid = os.getpid()
        self._cluster: _local.External | None = None
        self._threads: _threads.Threads | None = None
        self._fork: Any = None
        self._board: Board | None = None
        carrier: Any
        if backend in {FORK, LOKY} and (refusal := self._start(backend, job)) is not None:
            carrier = refusing(backend, refusal)
        elif backend == FORK:
            carrier = self._fork
        elif backend == THREADS:
            self._threads = _threads.Threads(job.n_jobs)
            carrier = Callbacks(self._threads, ahead=1)
        elif backend == LOKY:
            _packed(job, is_cold=False, ambient=True)
            self._board = _board()
            ahead = 1 if _local.LOKY.n_workers() == job.n_jobs else 0
            carrier = Callbacks(_local.LOKY, ahead=ahead, board=self._board)
        else:
            _packed(job, is_cold=False, ambient=False)
            cluster = _local.External(job.backend, job.n_jobs, backend)
            try:
                self._cluster = cluster.__enter__()
                carrier = Callbacks(cluster, ahead=1)
            except NoWorkersError as error:
                carrier = refusing(backend, error)
        self.team = StreamTeam(job, carrier)
        if backend == LOKY:  # last: until here it could fail, and nobody would close it
            _local.LOKY.enter()

    def _start(self, backend: str, job: Job) -> OSError | None:
        """Start local workers; returns the system's refusal, None if there is none."""
        try:
            if backend == LOKY:
                _local.LOKY.ensure(job.n_jobs)
            else:
                from amorsize._backend._pool import ForkPool  # noqa: PLC0415 - does not exist on Windows

                self._fork = ForkPool(job)
        except OSError as error:
            return error
        return None

    def close(self, *, kill: bool) -> None:
        """End the work; *kill* where some of it is still running and no longer wanted."""
        self.team.close()
        if self._fork is not None:
            self._fork.close(kill=kill)
        if os.getpid() != self._pid:
            return  # a forked copy of the program: all else is its parent's
        if self._threads is not None:
            self._threads.close()
        if self._cluster is not None:
            self._cluster.__exit__()
        if self._backend == LOKY:
            self._leave(kill=kill)

    def _leave(self, *, kill: bool) -> None:
        """Be done with loky's workers, however the last look at them ends."""
        is_busy = True
        try:
            if self._board is not None:
                self._board.close()
            is_busy = kill and not sys.is_finalizing() and not self._settled()  # at exit the pool has been ended
        finally:
            _local.LOKY.leave(broken=self.team.outcome.deaths > 0, busy=is_busy)

    def _settled(self) -> bool:
        """Let chunks that are running end, each within its quantum; returns whether they have."""
        deadline = time.monotonic() + 1.0
        while self.team.in_flight and time.monotonic() < deadline:
            self.team.ranges.drop_from(0)
            self.team.take(0.1)
        return not self.team.in_flight


def shutdown() -> None:
    """End idle workers and wait for them."""
    _local.LOKY.end_idle()
    _threads.end_waiting()
    if (standby := _if_used("_standby")) is not None:
        standby.close()


def after_fork_in_child() -> None:
    """Forget the parent's workers: a forked copy of the program must not touch them."""
    _local.LOKY.forget()
    _threads.forget_waiting()
    if (standby := _if_used("_standby")) is not None:
        standby.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
