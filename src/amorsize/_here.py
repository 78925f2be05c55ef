"""The decision as of now: the host as it stands for one function, its kept workers, and the cluster of a context."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amorsize import _backend, _host
from amorsize import _cost as cost
from amorsize._decide import decide
from amorsize._types import FORK, THREADS, Host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amorsize._types import Costs, Limits, Plan, Profile

# Seconds that a decision takes, with what surrounds it.
_THINKING_S: Final = 0.2e-3


def never_worth_s() -> float:
    """
    Return the seconds of work that no start of workers can shorten, as far as costs are known here.

    With W seconds of work and a start of S, two workers take at least S/2 + W/2: no gain of 5 % while W < S.
    """
    if _backend.warm():
        return cost.FLOOR_S
    return _host.BOOK.cheapest_start_s + _host.unread_s() + _backend.unloaded_s()


def current_host(func: Callable[..., Any], prefer: str | None = None, *, stream: bool = False) -> tuple[Host, Any]:
    """
    Return the host as it is for *func* now, and joblib's backend object where an external one is active.

    With ``prefer="threads"`` it is not looked at what forbids processes, which takes 1 ms at first, and these have no
    costs. In a *stream* the items do not exist yet when workers are forked, so they are sent there like anywhere else.
    """
    base = _host.snapshot()
    name, n_jobs, backend = _backend.context()
    unavailable = {} if prefer == "threads" else _backend.blockers(func)
    costs = _local_costs(prefer, unavailable)
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


def _local_costs(prefer: str | None, unavailable: Mapping[str, str]) -> dict[str, Costs]:
    """Return what local ways cost now; forking with what the size of this process adds, and a first loading."""
    if prefer == "threads":
        return _host.local_costs((THREADS,), warm=frozenset(), unavailable=unavailable)
    costs = _host.local_costs(warm=_backend.warm(), unavailable=unavailable)
    if FORK in costs:
        resident = _host.resident_bytes()
        costs[FORK] = replace(
            costs[FORK],
            start_s=costs[FORK].start_s + resident * cost.FORK_S_PER_BYTE + _backend.unloaded_s(),
            start_each_s=costs[FORK].start_each_s + resident * cost.FORK_CALLER_S_PER_BYTE,
        )
    return costs


def best_case(prefer: str | None = None) -> Host | None:
    """
    Return the most favourable machine that this can be, as far as that is known without looking at it.

    What does not pay there pays nowhere here, and the 2 ms of looking are saved. None where a context of joblib says
    what is to be used.
    """
    if _backend.context() != (None, None, None):
        return None
    n_cpus = os.cpu_count() or 1
    # The looking is a part of every start that follows from it.
    costs = {
        name: replace(known, start_s=known.start_s + _host.unread_s())
        for name, known in _local_costs(prefer, {}).items()
    }
    return Host(n_cpus=n_cpus, n_physical_cpus=n_cpus, memory_bytes=sys.maxsize, costs=costs, platform=sys.platform)


# Seconds of work left from which a cluster never used before is measured first: measuring takes 0.1 to 0.4 s, and is
# only done where the prior already says that the cluster pays, or earlier calls have missed more than it costs.
PROBE_WORTH_S: Final = 1.0
PROBE_PRICE_S: Final = 0.4


def _standing_by(host: Host, func: Callable[..., Any], profile: Profile, n_items: int | None) -> Host:
    """Return the host with the costs of the workers that an earlier map of *func* has left, where they can be used."""
    if FORK not in host.costs or n_items is None or not _backend.is_standing_by(func):
        return host
    n_left = n_items - profile.n_head
    n_bytes = n_left * max(1, profile.arg_bytes)
    if n_bytes > cost.STANDBY_BYTES or n_left * profile.item_s > cost.STANDBY_WORK_S:
        return host
    known = _host.BOOK.get(cost.STANDBY)
    warm = replace(known, start_s=known.start_s + n_bytes / cost.STANDBY_BYTES_PER_S + _THINKING_S)
    return replace(host, costs={**host.costs, FORK: warm})


def decide_here(
    func: Callable[..., Any],
    profile: Profile,
    n_items: int | None,
    limits: Limits,
    *,
    stream: bool = False,
    missed_s: float = 0.0,
) -> tuple[Plan, Any]:
    """
    Decide on the host as it is now; the cluster of a joblib context is measured when it is first to be used.

    What earlier calls have *missed* for want of workers has been paid for a start already.
    """
    host, backend = current_host(func, limits.prefer, stream=stream)
    if not stream:
        host = _standing_by(host, func, profile, n_items)
    if missed_s > 0 and FORK in host.costs:
        known = host.costs[FORK]
        paid = replace(known, start_s=max(0.0, known.start_s - missed_s), start_each_s=0.0)
        host = replace(host, costs={**host.costs, FORK: paid})
    plan = decide(profile, host, n_items, limits)
    name = host.context_backend
    is_paid = name is not None and _host.BOOK.missed_s(name) >= PROBE_PRICE_S
    if backend is None or name is None or (plan.backend != name and not is_paid):
        return plan, backend
    rest_s = math.inf if n_items is None else profile.item_s * (n_items - profile.n_head)
    if (is_paid or rest_s >= PROBE_WORTH_S) and (seen := _backend.probe(backend, name)):
        _host.BOOK.started(name)
        _host.BOOK.renew(name, **seen)
        plan = decide(profile, replace(host, costs={**host.costs, name: _host.BOOK.get(name)}), n_items, limits)
    return plan, backend
