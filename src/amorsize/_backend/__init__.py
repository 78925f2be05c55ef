"""
The joblib backend adapter: takes ``n_jobs`` and ``batch_size``, builds chunks, dispatches, orders, brings errors home.

    run(backend, job)     ──► fork:       Team     index ranges to forked workers         (_team, _fork)
                          ──► forkserver: Team     the same, to workers of our server     (_team, _server_crew)
                          ──► loky:      FlowTeam  pickled chunks to our joblib backend   (_flow, _chunks, _local)
                          ──► threading: FlowTeam  slices to threads                      (_flow, _threads)
                          ──► others:    FlowTeam  pickled chunks to Dask, Ray or joblib  (_flow, _chunks, _clusters)

Never chooses: which backend, how many jobs and how large a chunk are given. How a run begins and ends is in _runs, what
forbids one in _blockers; a stream is in _streaming.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from amorsize import _cost as cost
from amorsize._analysis import known_dependencies
from amorsize._backend import _imports, _local, _pickles, _settings, _streaming, _threads
from amorsize._backend._blockers import blockers, function_blocker, if_used, process_blocker, server_blocker
from amorsize._backend._job import Job, threads_each
from amorsize._backend._runs import begin_ahead, begin_server, run, server_pool
from amorsize._backend._worker import (
    MISSING,
    NoWorkersError,
    UnsendableFunctionError,
    in_worker,
    make_call,
    nested_thread,
    no_interrupt,
)
from amorsize._outside import forget_held, handlers, is_outside

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MISSING", "Job", "NoWorkersError", "UnsendableFunctionError", "begin_ahead", "begin_server", "blockers",
    "carried_context", "context", "dumps_by_value", "function_blocker", "handlers", "in_worker", "is_loky_warm",
    "is_outside", "is_warm", "leave", "make_call", "n_to_import", "nested_thread", "no_interrupt", "probe",
    "process_blocker", "run", "server_blocker", "server_pool", "server_state", "settings_problem", "shutdown",
    "stream", "threads_each", "unloaded_s",
]  # fmt: skip

context = _local.context
carried_context = _local.carried_context
leave = _threads.leave
dumps_by_value = _pickles.dumps_by_value
settings_problem = _settings.problem
stream = _streaming.Streaming


def probe(backend: Any, name: str) -> dict[str, float]:
    """Measure what a cluster costs, at its first use; empty afterwards."""
    found: dict[str, float] = _local.clusters().probe(backend, name)
    return found


def unloaded_s() -> float:
    """Return the seconds that the first run of forked workers takes longer than the others; 0 after it."""
    return 0.0 if if_used("_fork") is not None else cost.LOADING_RUNS_S


def n_to_import(func: Callable[..., Any]) -> int:
    """Return how many modules a worker of the fork server would import before it computes; 0 if others have them."""
    server = if_used("_server")
    names = known_dependencies(func).modules
    return 0 if server is not None and server.SERVER.has_workers_with(names) else _imports.n_imported_with(names)


def is_warm() -> bool:
    """Tell whether workers are running that any function can use."""
    server = if_used("_server")
    return is_loky_warm() or (server is not None and server.SERVER.n_idle() > 0)


def is_loky_warm() -> bool:
    """Tell whether loky's workers are running."""
    return _local.LOKY.is_warm()


def server_state() -> tuple[int, float] | None:
    """Return the fork server's idle workers and the share of its start that is still ahead; None without a server."""
    server = if_used("_server")
    state: tuple[int, float] | None = None if server is None else server.SERVER.state()
    return state


def shutdown() -> None:
    """End idle workers and wait for them."""
    _local.LOKY.end_idle()
    _threads.end_waiting()
    if (server := if_used("_server")) is not None:
        server.SERVER.end_idle()


def after_fork_in_child() -> None:
    """Forget the parent's workers and signals: a forked copy of the program must not touch them."""
    forget_held()
    _local.LOKY.forget()
    _threads.forget_waiting()
    if (server := if_used("_server")) is not None:
        server.SERVER.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
