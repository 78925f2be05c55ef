"""
amorsize for code that already uses joblib: the host and the decision, put behind a joblib backend.

Composes; the backend itself is :mod:`amorsize._backend._joblib`.
"""

from __future__ import annotations

from dataclasses import replace

from amorsize import _host
from amorsize._decide import decide
from amorsize._types import LOKY, THREADS, Costs, Limits, Plan, Profile

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
    from amorsize._backend import _joblib  # noqa: PLC0415 - joblib is imported only where it is used

    _joblib.register(_Decider())


class _Decider:
    """The engine behind the backend."""

    def costs(self, *, threads: bool, warm: bool) -> Costs:
        """Return what workers cost here, as far as it has been measured."""
        known = _host.BOOK.get(THREADS if threads else LOKY)
        return replace(known, start_s=0.0, start_each_s=0.0) if warm else known

    def decide(self, profile: Profile, n_items: int | None, n_jobs: int, costs: Costs, *, threads: bool) -> Plan:
        """Return the plan for what is left, with at most *n_jobs* that cost what is given."""
        host = replace(_host.snapshot(), costs={THREADS if threads else LOKY: costs}, context_n_jobs=n_jobs)
        return decide(profile, host, n_items, _THREADS if threads else _PROCESSES)
