"""The decision as of now: the host as it stands for one function, and the cluster of a context."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amorsize import _backend, _host, _weigh
from amorsize import _bounds as bounds
from amorsize import _cost as cost
from amorsize._decide import decide
from amorsize._records import FORK, FORKSERVER, LOKY, THREADS, Host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amorsize._plans import Plan
    from amorsize._records import Costs, Limits, Profile


def is_never_worth(work_s: float) -> bool:
    """
    Tell whether no workers can shorten *work_s* seconds of work, as far as costs are known here.

    With W seconds of work and a start of S, two workers take at least S/2 + W/2: no gain of 5 % while W < S.
    """
    if work_s < cost.FLOOR_S:
        return True
    start_s = _host.BOOK.cheapest_start_s + _host.unread_s() + _backend.unloaded_s()
    return work_s < start_s and not _backend.is_warm()


def current_host(
    func: Callable[..., Any], prefer: str | None = None, start_method: str | None = None, *, stream: bool = False
) -> tuple[Host, Any]:
    """
    Return the host as it is for *func* now, and joblib's backend object where an external one is active.

    With ``start_method="fork"`` it is not looked at what the function can reach. With ``prefer="threads"`` it is not
    looked at what forbids processes, which takes 1 ms at first, and these have no costs. In a *stream* the items do not
    exist yet when workers are forked, so they are sent there like anywhere else.
    """
    base = _host.snapshot()
    name, n_jobs, backend = _backend.context()
    unavailable = _backend.blockers(func, prefer, start_method)
    costs = local_costs(prefer, unavailable)
    if stream and FORK in costs:
        costs[FORK] = replace(costs[FORK], send_bytes_per_s=costs[FORK].receive_bytes_per_s)
    if name is not None and backend is not None:
        costs[name] = _host.BOOK.get(name)
    host = replace(
        base,
        costs=costs,
        unavailable=unavailable,
        is_nested=_backend.in_worker(),
        context_backend=name,
        context_n_jobs=n_jobs,
    )
    return host, backend


def local_costs(prefer: str | None, unavailable: Mapping[str, str]) -> dict[str, Costs]:
    """Return what local ways cost now; forking with what the size of this process adds, and a first loading."""
    if prefer == "threads":
        return _host.local_costs((THREADS,), warm=frozenset(), unavailable=unavailable)
    warm = frozenset({LOKY} if _backend.is_loky_warm() else ())
    costs = _host.local_costs(warm=warm, unavailable=unavailable)
    if FORKSERVER in costs:
        costs[FORKSERVER] = _served(costs[FORKSERVER])
    if FORK in costs:
        resident = _host.resident_bytes()
        costs[FORK] = replace(
            costs[FORK],
            start_s=costs[FORK].start_s + resident * cost.FORK_S_PER_BYTE + _backend.unloaded_s(),
            start_each_s=costs[FORK].start_each_s + resident * cost.FORK_CALLER_S_PER_BYTE,
        )
    return costs


def _served(cold: Costs) -> Costs:
    """Return what workers of the fork server cost as it stands: idle ones, one to be forked, or the server too."""
    state = _backend.server_state()
    if state is None:
        return cold
    n_idle, left = state
    warm = _host.BOOK.get(cost.SERVED)
    start_s = cold.start_s * left if left else warm.start_s + (0.0 if n_idle else cost.SERVER_FORK_S)
    return replace(
        cold,
        start_s=start_s,
        start_each_s=cold.start_each_s if left else warm.start_each_s,
        batch_overhead_s=warm.batch_overhead_s,
        send_bytes_per_s=warm.send_bytes_per_s,
        receive_bytes_per_s=warm.receive_bytes_per_s,
    )


def best_case(prefer: str | None, unavailable: Mapping[str, str]) -> Host | None:
    """
    Return the most favourable machine that this can be, as far as that is known without looking at it.

    What is *unavailable* it has not, with the reason.

    What does not pay there pays nowhere here, and the 2 ms of looking are saved. None where a context of joblib says
    what is to be used.
    """
    if _backend.context() != (None, None, None):
        return None
    n_cpus = os.cpu_count() or 1
    # The looking is a part of every start that follows from it.
    costs = {
        name: replace(known, start_s=known.start_s + _host.unread_s())
        for name, known in local_costs(prefer, unavailable).items()
    }
    return Host(
        n_cpus=n_cpus,
        n_physical_cpus=n_cpus,
        memory_bytes=sys.maxsize,
        costs=costs,
        unavailable=unavailable,
        platform=sys.platform,
    )


def decide_here(
    func: Callable[..., Any],
    profile: Profile,
    n_items: int | None,
    limits: Limits,
    *,
    stream: bool = False,
    host: Host | None = None,
    sample_s: float = 0.0,
) -> tuple[Plan, Any]:
    """
    Decide on the host as it is now; the cluster of a joblib context is measured when it is first to be used.

    With a *host*, it is decided on that one, and nothing is looked at. *sample_s* are seconds of a dry run's sample,
    which are not part of the work.
    """
    is_given, backend = host is not None, None
    if host is None:
        # Between two looks passes a millisecond: what computes for less is no competitor.
        is_long = max(profile.head_s, sample_s) >= bounds.LONG_HEAD_S
        n_others = _host.n_others(_host.snapshot().n_cpus) if is_long else 0
        host, backend = current_host(func, limits.prefer, limits.start_method, stream=stream)
        if n_others:
            host = replace(host, n_others=min(n_others, _host.n_others(host.n_cpus)))
    is_tried = is_probed = is_given
    while True:
        plan = decide(profile, host, n_items, limits)
        if not is_tried and plan.is_parallel and plan.backend not in {FORK, THREADS}:
            # Only now that sending the function is predicted to pay, its pickling is tried: that runs code of its
            # objects.
            is_tried = True
            problem = _weigh.function_problem(func, _backend.dumps_by_value) or _backend.settings_problem(func)
            if problem:
                profile = replace(profile, is_picklable=False, problem=problem)
                continue
        name = host.context_backend
        if is_probed or backend is None or name is None or not _is_worth_probing(name, plan):
            return plan, backend
        is_probed = True
        if not (seen := _backend.probe(backend, name)):
            return plan, backend
        _host.BOOK.started(name)
        _host.BOOK.renew(name, **seen)
        host = replace(host, costs={**host.costs, name: _host.BOOK.get(name)})


def _is_worth_probing(name: str, plan: Plan) -> bool:
    """Tell whether a cluster is to be measured: the plan would use it for long, or earlier calls have missed it."""
    if _host.BOOK.missed_s(name) >= bounds.PROBE_PRICE_S:
        return True
    profile, n_items = plan.profile, plan.n_items
    rest_s = math.inf if n_items is None else profile.item_s * (n_items - profile.n_head)
    return plan.backend == name and rest_s >= bounds.PROBE_WORTH_S
