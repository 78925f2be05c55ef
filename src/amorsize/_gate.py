"""
The decision of a call: whether one is worth its time, what it is made from, and the decision itself.

A decision takes 0.1 ms, and the first one in a program 1 ms more. :class:`Gate` stands in front of it, before the loop
and during it.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amorsize import _backend, _host, _weigh
from amorsize import _bounds as bounds
from amorsize import _cost as cost
from amorsize import _schedule as schedule
from amorsize._decide import decide
from amorsize._plans import Plan, Reason
from amorsize._records import FORK, FORKSERVER, LOKY, THREADS, Costs, Host
from amorsize._trace import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amorsize._evidence import Evidence
    from amorsize._records import Limits, Profile
    from amorsize._request import Ledger, Request

logger = logging.getLogger("amorsize")
clock = time.perf_counter

# Reasons of a decision on the most favourable machine that hold on all others.
_UNPAYING: Final = frozenset({Reason.TRANSFER_BOUND, Reason.ALREADY_PARALLEL, Reason.NOT_WORTH})

# Reasons that nothing seen in flight can change.
_FINAL: Final = frozenset(
    {Reason.NESTED, Reason.DISABLED, Reason.NOT_PICKLABLE, Reason.SHARED_STATE, Reason.ONE_CPU, Reason.ONE_JOB,
     Reason.HASH_SEED, Reason.UNAVAILABLE}
)  # fmt: skip


class Gate:
    """
    Says whether to decide, and decides.

    Attributes:
        has_no_workers: Whether the system has given none.
        in_vain: The plan for the most favourable machine, where even that had better loop.
        thinking_s: Seconds that decisions have taken.
    """

    def __init__(self, request: Request, ledger: Ledger, evidence: Evidence, *, is_stream: bool = False) -> None:
        self._request = request
        self._is_stream = is_stream
        self._ledger = ledger
        self._evidence = evidence
        self._refused_s = 0.0
        self.has_no_workers = False
        self.in_vain: Plan | None = None
        self.thinking_s = 0.0

    # -- before the loop ---------------------------------------------------------------------------------------------

    def is_in_vain(self, n_items: int) -> bool:
        """Tell whether no start of workers could gain anything: the host is then not even looked at."""
        limits, evidence = self._request.limits, self._evidence
        if limits.n_jobs is not None:
            return False
        rest_s = evidence.profile.item_s * (n_items - self._ledger.n_done)
        is_first = _host.unread_s() > 0 and not evidence.is_recalled
        return is_never_worth(rest_s, limits.prefer) or (is_first and self._pays_nowhere(n_items))

    def _pays_nowhere(self, n_items: int) -> bool:
        """
        Tell whether even the most favourable machine had better loop, once the data have been weighed.

        In the first call of a program, where a decision takes 1 ms more.
        """
        request, evidence = self._request, self._evidence
        if request.limits.start_method is not None:
            return False
        # What forbids to fork this process is known in 0.1 ms.
        reason = _backend.process_blocker() if request.limits.prefer != "threads" else ""
        host = best_case(request.limits.prefer, {FORK: reason} if reason else {})
        if host is None:
            return False
        evidence.inspect()
        plan, _ = decide_here(request.func, evidence.after(self._ledger.n_done), n_items, request.limits, host=host)
        if plan.reason not in _UNPAYING:
            return False
        self.refuse()
        self.in_vain = plan
        request.record.costs, request.record.more_s = host.costs, 0.0
        request.record.unavailable = host.unavailable
        return True

    # -- during the loop ---------------------------------------------------------------------------------------------

    def opens(self, item_s: float, elapsed_s: float) -> bool:
        """Tell whether to decide, *elapsed_s* into the call, with a loop whose items have taken *item_s* of late."""
        evidence, n_done = self._evidence, self._ledger.n_done
        n_items = self._request.source.n_items
        n_left = None if n_items is None else n_items - n_done
        if not self.speaks_for_workers(item_s, n_left, elapsed_s):
            return False
        if not evidence.is_weighed:
            # Only now that the seconds alone speak for it: what would moving the data cost?
            evidence.take_from_loop()
        evidence.inspect()
        return (
            self._leaves(item_s)
            and self.speaks_for_workers(item_s, n_left, elapsed_s)
            and evidence.is_watched(n_done)  # else from here on: at the next look it is known
            and self._leaves(item_s)
        )

    def _leaves(self, item_s: float) -> bool:
        """Tell whether function and items can go to workers; where they cannot, it is decided for its reason's sake."""
        if not self._may_leave() and self._request.record.plan is None:
            self._evidence.take_pace(item_s)
            self.decide()
        return self._may_leave()

    def speaks_for_workers(self, item_s: float, n_left: int | None, elapsed_s: float) -> bool:
        """Tell whether what has been seen speaks for workers, or for looking closer."""
        plan, evidence = self._request.record.plan, self._evidence
        if self.has_no_workers or (plan is not None and plan.reason in _FINAL):
            return False
        if n_left is not None and item_s < bounds.WORSE * self._refused_s:
            return False  # decided before, and less is left now
        costs = self.cheapest()
        start_s = cost.start_of_two_s(costs) + _host.unread_s()
        if not schedule.should_promote(item_s, n_left, elapsed_s, start_s, 0.5 * costs.efficiency):
            return False
        if not evidence.is_weighed or not self._may_leave():
            return not evidence.is_weighed or plan is None
        return schedule.should_promote(
            item_s, n_left, elapsed_s, start_s, cost.gain_of_two(evidence.profile, costs, item_s)
        )

    def _may_leave(self) -> bool:
        """Tell whether function and items could go to workers at all."""
        profile = self._evidence.profile
        is_free = not (profile.mutates and self._request.limits.n_jobs is None)
        return is_free and not (profile.result_problem or profile.input_problem)

    def cheapest(self) -> Costs:
        """Return the costs of the way that starts soonest, of those that may be used."""
        limits, record = self._request.limits, self._request.record
        known, cluster = _host.BOOK.known, None
        if record.plan is not None:
            known, cluster = record.plan.host.costs, record.plan.host.context_backend
        if limits.prefer == "threads":
            names: tuple[str, ...] = (THREADS,)
        elif limits.start_method is not None:
            names = (limits.start_method,)
        else:  # on a cluster local processes are not what was asked for
            names = (FORK, FORKSERVER, LOKY) if cluster is None or cluster == THREADS else (cluster,)
        usable = [name for name in names if name in known and name not in record.unavailable]
        costs = [cost.of_function(self._evidence.profile, known[name], name) for name in usable]
        return min(costs, key=lambda c: c.start_s, default=cost.EXTERNAL_PRIOR)

    # -- the decision ------------------------------------------------------------------------------------------------

    def decide(self, *, stream: bool = False) -> tuple[Plan, Any]:
        """Decide on what is left; the first decision of a call is the one that last_plan replays."""
        request, evidence = self._request, self._evidence
        began = clock()
        evidence.inspect()
        plan, backend = decide_here(
            request.func,
            evidence.after(self._ledger.n_done),
            request.source.n_items,
            request.limits,
            stream=stream or self._is_stream,
        )
        evidence.profile = plan.profile
        self.thinking_s += clock() - began
        if request.record.plan is None:
            self.note(plan)
            warn_of(plan, request)
        return plan, backend

    def decide_again(self, host: Host, head_s: float) -> Plan:
        """Decide anew on what workers have begun after *head_s* seconds, with what the first item took in the end."""
        request, evidence = self._request, self._evidence
        evidence.inspect()
        # The first item is one of those that are computed side by side.
        profile = replace(evidence.profile, n_head=0, head_s=head_s)
        if FORK in host.unavailable:  # in the watcher's thread, say
            why = "workers had begun before the first item ended"
            host = replace(host, unavailable={**host.unavailable, FORK: why})
        plan, _ = decide_here(request.func, profile, request.source.n_items, request.limits, host=host)
        return plan

    def note(self, plan: Plan) -> None:
        """Keep a decision as the one that last_plan replays."""
        self._request.record.note_plan(plan)
        logger.debug("%s: %s", self._request.name, plan.reason, extra={"plan": plan})

    def refuse(self) -> None:
        """Note that looping has been decided on with items that take what they take now."""
        self._refused_s = self._evidence.profile.item_s

    # -- back to the loop --------------------------------------------------------------------------------------------

    def note_refusal(self, plan: Plan, error: OSError) -> None:
        """Note that the system gave no workers (no processes or memory left), or that the function cannot be sent."""
        request, n_done = self._request, self._ledger.n_done
        self.has_no_workers = request.record.fell_back = True
        if isinstance(error, _backend.UnsendableFunctionError):
            # Found out as it was to be sent: the plan is the one of a function that is known not to be picklable.
            self._evidence.profile = replace(plan.profile, is_picklable=False, problem=str(error))
            plan, _ = self.decide()
            self.note(plan)
            request.record.revise("run serially", f"the function cannot be pickled: {error}", n_done)
            warn_of(plan, request)
        else:
            why = f"{plan.backend} workers cannot be started: {error}"
            request.record.revise("run serially", why, n_done)
            warn(f"{request.name} runs serially: {why}")

    def stay_for_late_items(self) -> None:
        """Note that the caller goes on alone at an item that no worker may have: of a kind that changes something."""
        profile = self._evidence.profile
        why = f"items of a new kind may change {', '.join(profile.mutates)}"
        self._request.record.revise("run serially", why, self._ledger.n_done)
        warn_of_late(self._request, profile, is_serial=True)


# -- what the caller is warned of --------------------------------------------------------------------------------------


# Reasons for which no workers can be had although a number of them was asked for, and what is said of each.
_WITHOUT_WORKERS: Final[dict[Reason, Callable[[Plan], list[str]]]] = {
    Reason.NESTED: lambda _: [],
    Reason.NOT_PICKLABLE: lambda plan: [plan.profile.problem],
    Reason.UNAVAILABLE: lambda plan: [*plan.host.unavailable.values()],
    Reason.HASH_SEED: lambda plan: [note for note in plan.warnings if "hash seed" in note],
}


def warn_of(plan: Plan, request: Request) -> None:
    """Warn where what was asked for is not done, or what is done may not be what was meant."""
    limits, name = request.limits, request.name
    fixed = limits.n_jobs
    if plan.profile.input_problem:
        warn(f"{name} runs serially: {plan.profile.input_problem}; a list of items that stay as they are has workers")
    elif plan.reason is Reason.SHARED_STATE:
        warn(
            f"{name} runs serially: {plan.warnings[0]}. Return the values instead, and give "
            "each item a seed of its own where it draws random numbers; or set n_jobs, and what workers change is lost."
        )
    elif fixed not in {None, 1} and plan.reason in _WITHOUT_WORKERS:
        reasons = _WITHOUT_WORKERS[plan.reason](plan)
        detail = f" ({'; '.join(dict.fromkeys(reasons))})" if reasons else ""
        warn(f"{name}: n_jobs={fixed} is not possible: {plan.reason}{detail}; it runs serially")
    elif plan.is_parallel and plan.backend != THREADS and plan.profile.mutates:
        warn(f"{name}: {plan.warnings[0]}: what they change in it is lost, and they may see it unchanged")
    elif plan.backend == limits.start_method == FORK and (shared := _backend.function_blocker(request.func)):
        warn(f"{name} is forked as start_method asks for, although {shared}")
    elif limits.start_method is not None and plan.reason is Reason.UNAVAILABLE:
        why = plan.host.unavailable.get(limits.start_method, "it does not exist here")
        warn(f"{name} runs serially: start_method={limits.start_method!r} cannot be used: {why}")
    elif limits.timeout is not None and plan.backend == THREADS:
        warn(f"{name}: timeout cannot stop an item in a thread; use processes")
    elif request.isolated and not plan.is_parallel and plan.n_items != 0:
        warn(f"{name}: timeout and retries need worker processes, and there are none: {plan.reason}")


def warn_of_late(request: Request, profile: Profile, *, is_serial: bool) -> None:
    """Warn that items of a kind that came late change something outside, and of what is done with them."""
    names = ", ".join(profile.mutates)
    what = f"{request.name}: items of a kind that came late may change {names}, which the program shares"
    if is_serial:
        warn(f"{what}; from the first of them on, it runs serially")
    else:
        warn(f"{what}: what they change in it is lost, and they may see it unchanged")


# -- the host as of now, and the decision on it ------------------------------------------------------------------------


def is_never_worth(work_s: float, prefer: str | None) -> bool:
    """
    Tell whether no workers of the kind preferred can shorten *work_s* seconds of work, as far as costs are known here.

    With W seconds of work and a start of S, two workers take at least S/2 + W/2: no gain of 5 % while W < S.
    """
    if work_s < cost.FLOOR_S:
        return True
    if prefer == "threads":
        return work_s < _host.BOOK.get(THREADS).start_s + _host.unread_s()
    start_s = _host.BOOK.cheapest_start_s + _host.unread_s() + _backend.unloaded_s()
    return work_s < start_s and (work_s < _host.BOOK.get(cost.SERVED).start_s or not _backend.is_warm())


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

    What does not pay there pays nowhere here, and the 1 ms of looking is saved. None where a context of joblib says
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
    is_tried = is_probed = is_counted = is_given
    while True:
        plan = decide(profile, host, n_items, limits)
        if not is_counted and plan.backend == FORKSERVER:
            is_counted = True  # a millisecond or ten: only where it matters
            if n_modules := _backend.n_to_import(func):
                host = _host.importing(host, n_modules)
                continue
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
