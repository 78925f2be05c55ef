"""
The gate in front of a decision: whether one is worth its time, before the loop and during it, and the decision itself.

A decision takes 0.2 ms, and the first one in a program 2 ms more.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amorsize import _backend, _host
from amorsize import _bounds as bounds
from amorsize import _cost as cost
from amorsize import _schedule as schedule
from amorsize._here import best_case, decide_here
from amorsize._plan_warnings import warn_of
from amorsize._plans import Plan, Reason
from amorsize._records import FORK, FORKSERVER, LOKY, THREADS, Costs

if TYPE_CHECKING:
    from amorsize._evidence import Evidence
    from amorsize._ledger import Ledger
    from amorsize._records import Host
    from amorsize._request import Request

logger = logging.getLogger("amorsize")
clock = time.perf_counter

# Reasons of a decision that no start of workers can be too dear for.
_TRANSFERS: Final = frozenset({Reason.TRANSFER_BOUND, Reason.ALREADY_PARALLEL})

# Reasons that nothing seen in flight can change.
_FINAL: Final = frozenset(
    {Reason.NESTED, Reason.DISABLED, Reason.NOT_PICKLABLE, Reason.SHARED_STATE, Reason.ONE_CPU, Reason.ONE_JOB,
     Reason.HASH_SEED, Reason.UNAVAILABLE}
)  # fmt: skip


class Gate:
    """
    Says whether to decide, and decides.

    Attributes:
        is_hopeless: Whether no start of workers could gain anything, as far as that has been asked.
        has_no_workers: Whether the system has given none.
        thinking_s: Seconds that decisions have taken.
    """

    def __init__(self, request: Request, ledger: Ledger, evidence: Evidence, *, is_stream: bool = False) -> None:
        self._request = request
        self._is_stream = is_stream
        self._ledger = ledger
        self._evidence = evidence
        self._refused_s = 0.0
        self.is_hopeless = self.has_no_workers = False
        self.thinking_s = 0.0

    # -- before the loop ---------------------------------------------------------------------------------------------

    def is_in_vain(self, n_items: int) -> bool:
        """Tell whether no start of workers could gain anything: the host is then not even looked at."""
        if self._request.limits.n_jobs is not None:
            return False
        rest_s = self._evidence.profile.item_s * (n_items - self._ledger.n_done)
        if rest_s < cost.FLOOR_S:
            return True
        return self._is_too_short(rest_s) or self._pays_nowhere(n_items)

    def _is_too_short(self, rest_s: float) -> bool:
        """Tell whether not even the cheapest start could gain anything."""
        costs = self.cheapest()
        start_s = costs.start_each_s + _host.unread_s()
        self.is_hopeless = 0.9 * self._gain(costs, self._evidence.profile.item_s) * rest_s <= start_s
        return self.is_hopeless

    def _pays_nowhere(self, n_items: int) -> bool:
        """Tell whether even the most favourable machine had better loop, once the data have been weighed."""
        request, evidence = self._request, self._evidence
        # Where the last call went parallel this one will, too. And what runs have found of the workers' speed is
        # doubted now and then: by decisions, which are counted.
        is_known = request.state.was_parallel or 0 < evidence.profile.efficiency < 1
        if request.limits.start_method is not None or is_known:
            return False
        # What forbids to fork this process is known in 0.1 ms, the rest of a decision takes 3 in a program's first one.
        # Later calls decide in full: what they lose for want of workers is counted.
        is_blocked = not evidence.is_recalled and request.limits.prefer != "threads"
        reason = _backend.process_blocker() if is_blocked else ""
        host = best_case(request.limits.prefer, {FORK: reason} if reason else {})
        if host is None:
            return False
        evidence.inspect()
        plan, _ = decide_here(request.func, evidence.after(self._ledger.n_done), n_items, request.limits, host=host)
        # Where nothing is forked, calls too short for loky's cold workers are counted, all but the first one; and only
        # where forking has been looked into is looping settled.
        is_looked_into = FORK in host.costs or FORK in host.unavailable
        pays_nowhere = plan.reason in _TRANSFERS or (plan.reason is Reason.NOT_WORTH and is_looked_into)
        if pays_nowhere and plan.reason is Reason.NOT_WORTH and evidence.is_recalled:
            pays_nowhere = not (_backend.process_blocker() or _backend.function_blocker(request.func))
        if pays_nowhere:
            self.refuse()
            request.record.costs, request.record.more_s = host.costs, 0.0
            request.record.unavailable = host.unavailable
            self.is_hopeless = plan.reason in _TRANSFERS or evidence.is_recalled
        return pays_nowhere

    # -- during the loop ---------------------------------------------------------------------------------------------

    def opens(self, item_s: float, elapsed_s: float) -> bool:
        """
        Look at the evidence while looping: tell whether to decide.

        Args:
            item_s: Seconds per item of late.
            elapsed_s: Seconds of the call so far.
        """
        evidence, n_done = self._evidence, self._ledger.n_done
        n_items = self._request.source.n_items
        n_left = None if n_items is None else n_items - n_done
        if not self.speaks_for_workers(item_s, n_left, elapsed_s):
            return False
        if not evidence.is_weighed:
            # Only now that the seconds alone speak for it: what would moving the data cost?
            evidence.take_from_loop()
            evidence.inspect()
        if not self._may_leave():
            if self._request.record.plan is None:
                evidence.take_pace(item_s)
                self.decide()  # for its reason, and its warning
            return False
        if not self.speaks_for_workers(item_s, n_left, elapsed_s):
            return False
        if not evidence.is_watched(n_done):
            return False  # watched from here on: at the next look it is known
        if not self._may_leave():
            evidence.take_pace(item_s)
            self.decide()
            return False
        return True

    def speaks_for_workers(self, item_s: float, n_left: int | None, elapsed_s: float) -> bool:
        """Tell whether what has been seen speaks for workers, or for looking closer."""
        plan, evidence = self._request.record.plan, self._evidence
        if self.has_no_workers or (plan is not None and plan.reason in _FINAL):
            return False
        if n_left is not None and item_s < bounds.WORSE * self._refused_s:
            return False  # decided before, and less is left now
        costs = self.cheapest()
        start_s = costs.start_s + costs.start_each_s + 2 * costs.batch_overhead_s + _host.unread_s()
        if not schedule.should_promote(item_s, n_left, elapsed_s, start_s, 0.5 * costs.efficiency):
            return False
        if not evidence.is_weighed or not self._may_leave():
            return not evidence.is_weighed or plan is None
        return schedule.should_promote(item_s, n_left, elapsed_s, start_s, self._gain(costs, item_s))

    def _may_leave(self) -> bool:
        """Tell whether function and items could go to workers at all."""
        profile = self._evidence.profile
        return not profile.result_problem and not (profile.mutates and self._request.limits.n_jobs is None)

    def cheapest(self) -> Costs:
        """Return the costs of the way that starts soonest, of those that may be used."""
        plan, unavailable = self._request.record.plan, self._request.record.unavailable
        host = None if plan is None else plan.host
        known = host.costs if host is not None else _host.BOOK.known
        cluster = None if host is None else host.context_backend
        # On a cluster local processes are not what was asked for.
        names = (FORK, FORKSERVER, LOKY, THREADS) if cluster is None or cluster == THREADS else (THREADS, cluster)
        usable = [name for name in names if name in known and name not in unavailable and self._may_use(name)]
        costs = [cost.of_function(self._evidence.profile, known[name], name) for name in usable]
        return min(costs, key=lambda c: c.start_s) if costs else cost.EXTERNAL_PRIOR

    def _may_use(self, backend: str) -> bool:
        limits = self._request.limits
        if limits.prefer == "threads":
            return backend == THREADS
        return backend != THREADS and limits.start_method in {None, backend}

    def _gain(self, costs: Costs, item_s: float) -> float:
        """Return the share of an item's seconds that a second worker saves."""
        profile = self._evidence.profile
        moved_s = cost.transfer_item_s(profile, costs) + cost.touch_item_s(profile, costs)
        return 0.5 * costs.efficiency - 0.5 * moved_s / max(item_s, 1e-9)

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
