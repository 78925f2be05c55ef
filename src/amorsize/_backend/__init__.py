"""
The joblib backend adapter: takes ``n_jobs`` and ``batch_size``, builds chunks, dispatches, orders, brings errors home.

    run(backend, job)     ──► fork:       Team     index ranges to forked workers         (_team, _fork)
                          ──► forkserver: Team     the same, to workers of our server     (_team, _server_crew)
                          ──► loky:      FlowTeam  pickled chunks to our joblib backend   (_flow, _chunks, _local)
                          ──► threading: FlowTeam  slices to threads                      (_flow, _threads)
                          ──► others:    FlowTeam  pickled chunks to Dask, Ray or joblib  (_flow, _chunks, _clusters)

Never chooses: which backend, how many jobs and how large a chunk are given.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from amorsize import _cost as cost
from amorsize._analysis import known_dependencies
from amorsize._backend import _blas, _local, _monitor, _obstacles, _threads
from amorsize._backend._job import Job
from amorsize._backend._worker import (
    MISSING,
    NoWorkersError,
    UnsendableFunctionError,
    in_worker,
    make_call,
    nested_thread,
    no_interrupt,
)
from amorsize._modules import loaded
from amorsize._outside import handlers, is_outside, pass_on
from amorsize._records import FORK, FORKSERVER, LOKY, THREADS

# What runs processes is not imported with the package, which a program may import without using it, but when it is
# first needed. Threads are started within 2 ms of the first item, which is no time to load what runs them.
if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._backend._chunks import Board
    from amorsize._backend._clusters.base import Cluster
    from amorsize._backend._outcome import Outcome
    from amorsize._backend._team import Team

__all__ = [
    "MISSING",
    "Job",
    "NoWorkersError",
    "Streaming",
    "UnsendableFunctionError",
    "blockers",
    "carried_context",
    "context",
    "dumps_by_value",
    "fork_team",
    "handlers",
    "in_worker",
    "is_outside",
    "leave",
    "make_call",
    "nested_thread",
    "no_interrupt",
    "probe",
    "run",
    "server_state",
    "shutdown",
    "unloaded_s",
    "warm",
]

context = _local.context
carried_context = _local.carried_context
leave = _threads.leave


def dumps_by_value(value: Any) -> bytes:
    """Pickle with cloudpickle, by value what has no name to be found by."""
    from amorsize._backend import _ship  # noqa: PLC0415 - see the top

    return _ship.dumps_by_value(value)


def probe(backend: Any, name: str) -> dict[str, float]:
    """Measure what a cluster costs, at its first use; empty afterwards."""
    from amorsize._backend import _clusters  # noqa: PLC0415 - see the top

    return _clusters.probe(backend, name)


def settings_problem(func: Callable[..., Any]) -> str:
    """Return what the caller has set in a module, the function reads, and cannot be sent along; or ""."""
    from amorsize._backend import _settings  # noqa: PLC0415 - see the top

    return _settings.problem(func)


def blockers(func: Callable[..., Any], prefer: str | None = None, start_method: str | None = None) -> dict[str, str]:
    """
    Return why a backend that exists cannot be used for *func* now, by backend name.

    With ``prefer="threads"`` only what forbids threads is looked for; with ``start_method="fork"``, which is an order,
    not what the function can reach.
    """
    reasons = {}
    if reason := _obstacles.thread_blocker():
        reasons[THREADS] = reason
    if prefer == "threads":
        return reasons
    if reason := process_blocker() or ("" if start_method == FORK else function_blocker(func)):
        reasons[FORK] = reason
    no_interpreters = _obstacles.executable_blocker() or _obstacles.patched_by()
    if reason := _server_blocker(no_interpreters):
        reasons[FORKSERVER] = reason
    if reason := _loky_blocker(no_interpreters):
        reasons[LOKY] = reason
    return reasons


def server_blocker() -> str:
    """Return why no fork server can be used now; empty if one can."""
    return _server_blocker(_obstacles.executable_blocker() or _obstacles.patched_by())


def _server_blocker(no_interpreters: str) -> str:
    if sys.platform != "linux" or not hasattr(os, "posix_spawn"):
        return "the fork server is only used on Linux"
    if _obstacles.is_ending():
        return "the interpreter is shutting down"
    server = _if_used("_server")
    return no_interpreters or ("" if server is None else str(server.SERVER.refusal))


def _loky_blocker(no_interpreters: str) -> str:
    if sys.platform == "emscripten":
        return "this platform has no processes"
    if _obstacles.is_ending():  # no thread may be started any more
        return "the interpreter is shutting down"
    if reason := _forbidden() or no_interpreters:
        return reason
    if _semaphores() is not None:
        return str(_semaphores())
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
    """Return why named semaphores are not available, None if they are; tried once."""
    if not _semaphore_problem:
        try:
            import _multiprocessing  # type: ignore[import-not-found]  # noqa: PLC0415 - absent on some builds
            import tempfile  # noqa: PLC0415 - only here

            name = f"/amorsize-{os.getpid()}-{next(tempfile._get_candidate_names())}"  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing names them
            lock = _multiprocessing.SemLock(0, 1, 1, name, True)
            del lock
            _semaphore_problem.append(None)
        except (ImportError, OSError, AttributeError) as error:
            _semaphore_problem.append(f"there are no semaphores: {error}")
    return _semaphore_problem[0]


def unloaded_s() -> float:
    """Return the seconds that the first run of forked workers takes longer than the others; 0 after it."""
    return 0.0 if _if_used("_fork") is not None else cost.LOADING_RUNS_S


def process_blocker() -> str:
    """Return why this process must not be forked now, whatever the function; empty if it may be."""
    if sys.platform != "linux" or not hasattr(os, "fork"):
        return "fork is only used on Linux"
    if _obstacles.is_ending():
        return "the interpreter is shutting down"
    if threading.current_thread() is not threading.main_thread():
        return "not called from the main thread"
    # Our own idle threads end before a fork, and so does the one that draws tqdm's bars.
    if reason := _blas.foreign_threads(_local.LOKY.threads() | _threads.waiting_threads() | _monitor.monitors()):
        return reason
    return ""


def function_blocker(func: Callable[..., Any]) -> str:
    """Return why *func* must not be forked: what it can reach and is not known to be safe; empty if it may be."""
    names = known_dependencies(func).open_names
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"the function can reach {', '.join(names[:3])}{more}, which is not known to be safe in a forked copy"


def warm() -> frozenset[str]:
    """Return the backends whose workers are running for any function."""
    server = _if_used("_server")
    names = {LOKY: _local.LOKY.is_warm(), FORKSERVER: server is not None and server.SERVER.n_idle() > 0}
    return frozenset(name for name, is_warm in names.items() if is_warm)


def server_state() -> tuple[int, float] | None:
    """Return the fork server's idle workers and the share of its start that is still ahead; None without a server."""
    server = _if_used("_server")
    state: tuple[int, float] | None = None if server is None else server.SERVER.state()
    return state


def run(backend: str, job: Job) -> Outcome:
    """
    Run a job on a backend.

    Raises:
        NoWorkersError: If the system refuses to start even one worker; no item has been begun.
        BaseException: What interrupts the caller.
    """
    if backend == FORK:
        return fork_team(job).finish()
    if backend == THREADS:
        return thread_team(job).finish()
    if backend == FORKSERVER:
        return server_team(job).finish()
    if backend == LOKY:
        return _run_loky(job)
    return _run_external(job, backend)


def server_team(job: Job) -> Team:
    """
    Make a team of the fork server's workers for a job; nothing is started yet.

    Raises:
        NoWorkersError: If the system refuses memory for the items.
    """
    try:
        crew, state = _open_server(job.threads)
    except OSError as error:
        raise NoWorkersError(*error.args) from error
    job = _packed(job, is_cold=state is None or not state[0], ambient=True, inline=True)
    try:
        team = crew.server_team(job)
    except OSError as error:
        raise NoWorkersError(*error.args) from error
    team.outcome.is_warm, team.outcome.is_cold = not job.is_cold, state is None
    made: Team = team
    return made


def _open_server(threads: int) -> tuple[Any, tuple[int, float] | None]:
    """
    Return the module that brings jobs to the fork server, and the server's state before.

    Where it is entered for the first time, the server starts while it is imported: that takes 10 to 20 ms.

    Raises:
        OSError: If the system gives no process.
    """
    is_new = False
    with no_interrupt():  # an import that is interrupted leaves half a module behind
        if _if_used("_server") is None:
            from amorsize._backend import _spawn  # noqa: PLC0415 - does not exist on Windows

            is_new = _spawn.begin(threads)
        from amorsize._backend import _server, _server_crew  # noqa: PLC0415 - do not exist on Windows

        server: Any = _server  # nothing is known of these to type checkers for other systems
        crew: Any = _server_crew
        state = server.SERVER.state()
        if is_new:
            server.SERVER.start(threads)
    return crew, state


def _if_used(name: str) -> Any:
    """Return a module of this room; None where nobody can wait in it, since it has never been entered."""
    return loaded(f"{__name__}.{name}")


def fork_team(job: Job) -> Team:
    """Make a team of forked workers for a job; nothing is started yet."""
    from amorsize._backend import _fork  # noqa: PLC0415 - does not exist on Windows

    return _fork.fork_team(job)


def server_pool(job: Job) -> Any:
    """
    Have workers of the fork server that are sent their items.

    Raises:
        OSError: If the system refuses them.
    """
    crew, _ = _open_server(job.threads)
    return crew.server_pool(_packed(job, is_cold=False, ambient=True, inline=True))


def thread_team(job: Job) -> _threads.ThreadTeam:
    """Make a team of threads for a job; nothing is started yet."""
    return _threads.ThreadTeam(job)


def _packed(job: Job, *, is_cold: bool, ambient: bool, inline: bool = False) -> Job:
    """
    Pack the function for workers that are no copies of this process.

    Raises:
        UnsendableFunctionError: If it cannot be pickled, or something that it holds.
    """
    from amorsize._backend import _ship  # noqa: PLC0415 - see the top

    def pack(*, by_value: bool) -> _ship.Parcel:
        try:
            return _ship.pack_function(
                job.func,
                star=job.star,
                kwargs=job.kwargs,
                importable=job.importable,
                by_value=by_value,
                initializer=None if job.initializer is None else (job.initializer, job.initargs),
                ambient=ambient,
                inline=inline,
            )
        except Exception as error:
            pass_on(error)
            raise UnsendableFunctionError(f"{type(error).__name__}: {error}") from error

    job.parcel, job.is_cold = pack(by_value=False), is_cold
    job.repack = lambda: pack(by_value=True)
    return job


def _run_loky(job: Job) -> Outcome:
    pool = _local.LOKY
    board, carrier, n_deaths, is_over = None, None, 0, False
    pool.enter()
    try:
        is_cold = not pool.is_warm() or pool.n_workers() < job.n_jobs
        _packed(job, is_cold=is_cold, ambient=True)
        try:
            with no_interrupt():  # an import that is interrupted leaves half a module behind
                from amorsize._backend._callbacks import Callbacks  # noqa: PLC0415 - see the top
                from amorsize._backend._flow import FlowTeam  # noqa: PLC0415 - see the top

                pool.ensure(job.n_jobs, job.threads)
        except OSError as error:
            raise NoWorkersError(*error.args) from error
        board = _board()
        # A larger pool than asked for must not get more than one chunk per job: idle workers would take what waits.
        carrier = Callbacks(pool, ahead=1 if pool.n_workers() == job.n_jobs else 0, board=board)
        outcome = FlowTeam(job, carrier).run()
        n_deaths, is_over = outcome.deaths, True
        return outcome
    finally:
        try:
            if carrier is not None:
                carrier.hear_out()
        finally:
            if board is not None:
                board.close()
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
    from amorsize._backend import _clusters  # noqa: PLC0415 - see the top
    from amorsize._backend._callbacks import Callbacks  # noqa: PLC0415 - see the top
    from amorsize._backend._flow import FlowTeam  # noqa: PLC0415 - see the top

    _packed(job, is_cold=False, ambient=False)
    with _clusters.carrier(job.backend, job.n_jobs, name) as cluster:
        return FlowTeam(job, Callbacks(cluster, ahead=1)).run()


class Streaming:
    """Workers for a stream, open until closed."""

    def __init__(self, backend: str, job: Job) -> None:
        from amorsize._backend._callbacks import Callbacks, refusing  # noqa: PLC0415 - see the top
        from amorsize._backend._streaming import StreamTeam  # noqa: PLC0415 - see the top

        self._backend = backend
        self._pid = os.getpid()
        self._cluster: Cluster | None = None
        self._threads: _threads.Threads | None = None
        self._pool: Any = None
        self._board: Board | None = None
        carrier: Any
        if (refusal := self._start(backend, job)) is not None:
            carrier = refusing(backend, refusal)
        elif backend in {FORK, FORKSERVER}:
            carrier = self._pool
        elif backend == THREADS:
            self._threads = _threads.Threads(job.n_jobs)
            carrier = Callbacks(self._threads, ahead=1)
        elif backend == LOKY:
            self._board = _board()
            ahead = 1 if _local.LOKY.n_workers() == job.n_jobs else 0
            carrier = Callbacks(_local.LOKY, ahead=ahead, board=self._board)
        else:
            from amorsize._backend import _clusters  # noqa: PLC0415 - see the top

            try:
                self._cluster = _clusters.carrier(job.backend, job.n_jobs, backend).__enter__()
                carrier = Callbacks(self._cluster, ahead=1)
            except NoWorkersError as error:
                carrier = refusing(backend, error)
        self._carrier = carrier if self._board is not None else None
        self.team = StreamTeam(job, carrier)
        if backend == LOKY:  # last: until here it could fail, and nobody would close it
            _local.LOKY.enter()

    def _start(self, backend: str, job: Job) -> OSError | None:
        """Pack the function and start local workers; returns why that cannot be done, None if it has been."""
        try:
            if backend not in {FORK, FORKSERVER, THREADS}:
                _packed(job, is_cold=False, ambient=backend == LOKY)
            if backend == LOKY:
                _local.LOKY.ensure(job.n_jobs, job.threads)
            elif backend == FORKSERVER:
                self._pool = server_pool(job)
            elif backend == FORK:
                from amorsize._backend import _fork  # noqa: PLC0415 - does not exist on Windows

                self._pool = _fork.fork_pool(job)
        except OSError as error:
            return error
        return None

    def close(self, *, kill: bool) -> None:
        """End the work; *kill* where some of it is still running and no longer wanted."""
        self.team.close()
        if self._pool is not None:
            self._pool.close(kill=kill)
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
            is_busy = kill and not sys.is_finalizing() and not self._settled()  # at exit the pool has been ended
            if self._carrier is not None:
                self._carrier.hear_out()
        finally:
            if self._board is not None:
                self._board.close()
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
    if (server := _if_used("_server")) is not None:
        server.SERVER.end_idle()


def after_fork_in_child() -> None:
    """Forget the parent's workers: a forked copy of the program must not touch them."""
    _local.LOKY.forget()
    _threads.forget_waiting()
    if (server := _if_used("_server")) is not None:
        server.SERVER.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
