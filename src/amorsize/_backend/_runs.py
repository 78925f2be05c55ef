"""
Runs a job on a backend: has its workers, packs its function where they need that, lets the engine do the rest.

Called by the adapter, and for its parts by :class:`Streaming`. Whatever ends a run, its pool, its board and its cluster
are left; the system's refusal of workers becomes NoWorkersError before an item has been begun.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amorsize._backend import _local, _ship, _threads, _unfound
from amorsize._backend._blockers import if_used
from amorsize._backend._carrier import Callbacks
from amorsize._backend._flow import FlowTeam
from amorsize._backend._worker import NoWorkersError, UnsendableFunctionError, no_interrupt
from amorsize._outside import pass_on
from amorsize._records import FORK, FORKSERVER, LOKY, THREADS

# What runs processes is not imported with the package, which a program may import without using it, but when it is
# first needed. Threads are started within 2 ms of the first item, which is no time to load what runs them.
if TYPE_CHECKING:
    from amorsize._backend._chunks import Board
    from amorsize._backend._job import Job, Outcome
    from amorsize._backend._parcel import Parcel
    from amorsize._backend._team import Team


def run(backend: str, job: Job) -> Outcome:
    """Run a job; raises what interrupts the caller, and NoWorkersError, with no item begun, if it gets no worker."""
    if backend == FORK:
        made: Outcome = forks().fork_team(job).finish()
        return made
    if backend == THREADS:
        return _run_threads(job)
    if backend == FORKSERVER:
        return _server_team(job).finish()
    if backend == LOKY:
        return _run_loky(job)
    return _run_external(job, backend)


def _server_team(job: Job) -> Team:
    """Make a team of the fork server's workers, not started yet; raises NoWorkersError without memory for items."""
    try:
        crew, state = _open_server(job.threads)
        job = packed(job, is_cold=state is None or not state[0], ambient=True, inline=True)
        team: Team = crew.server_team(job)
    except UnsendableFunctionError:
        raise
    except OSError as error:
        pass_on(error)
        raise NoWorkersError(*error.args) from error
    team.outcome.is_warm, team.outcome.is_cold = not job.is_cold, state is None
    return team


def begin_ahead(job: Job) -> Team:
    """Have workers of the fork server begin with a job that its caller finishes; raises NoWorkersError without any."""
    team = _server_team(job)
    # When the caller comes to hear of the first results says nothing about how long workers take to start.
    team.outcome.is_warm = team.outcome.is_cold = False
    team.start()
    return team


def _open_server(threads: int) -> tuple[Any, tuple[int, float] | None]:
    """
    Return the module that brings jobs to the fork server, and the server's state before; raises OSError if refused.

    Where it is entered for the first time, the server starts while it is imported: that takes 10 to 20 ms.
    """
    is_first = if_used("_server") is None
    is_new = is_first and begin_server(threads)
    _end_outdated()
    with no_interrupt():  # an import that is interrupted leaves half a module behind
        from amorsize._backend import _server, _server_crew  # noqa: PLC0415 - not on Windows; 4 ms

        server: Any = _server  # nothing is known of these to type checkers for other systems
        crew: Any = _server_crew
        if is_first and not is_new:  # it has begun after an earlier call
            server.SERVER.start(threads)
        state = server.SERVER.state()
        if is_new:
            server.SERVER.start(threads)
    return crew, state


def begin_server(threads: int) -> bool:
    """Start the first fork server of this process, no more than the process; returns whether one has been started."""
    if if_used("_server") is not None:
        return False
    with no_interrupt():
        from amorsize._backend import _spawn  # noqa: PLC0415 - not on Windows

        return _spawn.begin(threads)


def _end_outdated() -> None:
    """End idle workers if a module has been loaded again since they may have imported it: theirs is as it was."""
    if _unfound.have_reloaded():
        _local.LOKY.end_idle()
        if (server := if_used("_server")) is not None:
            server.SERVER.end_idle()


def forks() -> Any:
    """Return the module of forked workers, which does not exist on Windows and is loaded by the first run: 8 ms."""
    from amorsize._backend import _fork  # noqa: PLC0415 - as said

    return _fork


def server_pool(job: Job) -> Any:
    """Have workers of the fork server that are sent their items; raises OSError if the system refuses them."""
    crew, _ = _open_server(job.threads)
    return crew.server_pool(packed(job, is_cold=False, ambient=True, inline=True))


def packed(job: Job, *, is_cold: bool, ambient: bool, inline: bool = False) -> Job:
    """Pack the function for workers that are no copies of this process; raises UnsendableFunctionError if it cannot."""

    def pack(*, by_value: bool) -> Parcel:
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

    return replace(job, parcel=pack(by_value=False), repack=lambda: pack(by_value=True), is_cold=is_cold)


def _run_threads(job: Job) -> Outcome:
    """Run on threads of this process, which wait for the next run unless one of them is still at work."""
    threads = _threads.Threads.take(job.n_jobs)
    team = FlowTeam(job, Callbacks(threads, ahead=1))
    try:
        return team.run()
    finally:
        if team.in_flight:
            threads.close()
        else:
            threads.keep()


def _run_loky(job: Job) -> Outcome:
    pool = _local.LOKY
    board, carrier, n_deaths, is_over = None, None, 0, False
    _end_outdated()
    pool.enter()
    try:
        is_cold = not pool.is_warm() or pool.n_workers() < job.n_jobs
        job = packed(job, is_cold=is_cold, ambient=True)
        try:
            with no_interrupt():  # an import that is interrupted leaves half a module behind
                pool.ensure(job.n_jobs, job.threads)
        except OSError as error:
            pass_on(error)
            raise NoWorkersError(*error.args) from error
        board = make_board()
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


def make_board() -> Board | None:
    """Return a board, None where there is no room for a small file: begun items are then not told from waiting ones."""
    try:
        board: Board = _local.chunks().Board()
    except OSError:
        return None
    return board


def _run_external(job: Job, name: str) -> Outcome:
    job = packed(job, is_cold=False, ambient=False)
    with _local.clusters().carrier(job.backend, job.n_jobs, name) as cluster:
        return FlowTeam(job, Callbacks(cluster, ahead=1)).run()
