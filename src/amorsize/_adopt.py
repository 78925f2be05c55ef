"""
amorsize for code that already uses joblib: the host and the decision, put behind a joblib backend.

Composes; the backend itself is :mod:`amorsize._backend._joblib`.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

from amorsize import _backend, _host
from amorsize._decide import decide
from amorsize._gate import local_costs
from amorsize._plans import Plan
from amorsize._records import FORKSERVER, THREADS, Costs, Limits, Profile

_PROCESSES = Limits()
_THREADS = Limits(prefer="threads")


def register_joblib() -> None:
    """
    Make ``joblib.parallel_config("amorsize")`` known to joblib.

    Under it, existing ``joblib.Parallel`` calls, scikit-learn's included, take their number of workers and their batch
    size from the decision engine: the caller computes until the evidence speaks for workers, be it that of the latest
    call over such tasks.

    Example:
        >>> import amorsize, joblib
        >>> amorsize.register_joblib()
        >>> with joblib.parallel_config("amorsize"):
        ...     joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(x) for x in (-1, -2))
        [1, 2]
    """
    from amorsize._backend import _joblib  # noqa: PLC0415 - 30 to 250 ms, with joblib

    _joblib.register(_Decider())


class _Decider:
    """The :class:`amorsize._backend._joblib_workers.Engine` behind the backend."""

    def has_server(self) -> bool:
        return not _backend.server_blocker()

    def is_server_up(self) -> bool:
        state = _backend.server_state()
        return state is not None and state[1] == 0

    def pool(self, n_jobs: int, inner_threads: int | None) -> Any:
        n_cpus = _host.snapshot().n_cpus if inner_threads is None else n_jobs * inner_threads
        call, handlers = operator.call, _backend.handlers()
        job = _backend.Job(func=call, items=(), call=call, handlers=handlers, n_jobs=n_jobs, n_cpus=n_cpus)
        return _backend.server_pool(job)

    def costs(self, way: str, *, warm: bool) -> Costs:
        if way == FORKSERVER:
            return local_costs(None, {})[FORKSERVER]
        known = _host.BOOK.get(way)
        return replace(known, start_s=0.0, start_each_s=0.0) if warm else known

    def decide(self, way: str, profile: Profile, n_items: int | None, n_jobs: int, costs: Costs) -> Plan:
        host = replace(_host.snapshot(), costs={way: costs}, context_n_jobs=n_jobs)
        return decide(profile, host, n_items, _THREADS if way == THREADS else _PROCESSES)
