"""Workers started while the first item of a function never seen before is still running: the decision, the outcome."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amorsize import _backend, _learn, _profile
from amorsize._decide import decide
from amorsize._here import current_host
from amorsize._types import FORK, THREADS, Plan, Profile, Reason

if TYPE_CHECKING:
    from amorsize._call import Call
    from amorsize._types import Host

clock = time.perf_counter

# CPU seconds from the timer's signal to here.
_AROUND_S: Final = 50e-6


class EarlyStart:
    """Forked workers or threads started while the first item of a function never seen before is still running."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.team: Any = None
        self.plan: Plan | None = None

    def start(self) -> bool:
        """Decide with the little there is to know, and start if that is the answer. Runs inside the first item."""
        call = self.call
        elapsed_s = clock() - call.began
        fraction = self._cpu_fraction()
        profile = Profile(n_sampled=1, item_s=elapsed_s, first_s=elapsed_s, cpu_fraction=fraction)
        profile = replace(profile, n_head=1, head_s=elapsed_s)
        profile = _profile.inspect_function(profile, call.func, _backend.dumps_by_value)
        host, _ = current_host(call.func, call.limits.prefer)
        n_items = call.source.n_items or 0
        plan = decide(profile, host, n_items, call.limits)
        if n_items == 2 and plan.reason is Reason.ONE_ITEM:
            plan = self._one_each(profile, host)
        if plan.backend != THREADS and (plan.backend != FORK or not plan.caller_computes):
            return True
        job = call.job(plan, call.source.data[1:], None)
        job.base = 1
        try:
            with _backend.no_interrupt():
                make = _backend.thread_team if plan.backend == THREADS else _backend.fork_team
                self.team, self.plan = make(job), plan
                self.team.start()
        except (OSError, RuntimeError):
            # No processes, threads, descriptors or memory to be had: the item goes on as if nothing had been tried.
            self.team = None
            return True
        record = call.record
        record.plan, record.profile, record.host = plan, profile, host
        why = f"the first item had been running for {elapsed_s:.3g} s"
        call._revise(f"go parallel: {plan.backend}, n_jobs={plan.n_jobs}", why, elapsed_s)  # noqa: SLF001 - a part of the call
        return True

    def _cpu_fraction(self) -> float:
        """Return how much of its time the item has been computing so far: a waiting one wants more threads."""
        sampler = self.call.samples
        assert sampler is not None  # noqa: S101 - for the type checker
        began_s, began_own_s = sampler.began
        own_s = time.thread_time() - began_own_s - _AROUND_S
        return min(1.0, max(0.0, own_s) / (clock() - began_s))

    def _one_each(self, profile: Profile, host: Host) -> Plan:
        """Two items, the first under way: decide as for two that have not begun."""
        return decide(replace(profile, n_head=0, head_s=0.0), host, 2, self.call.limits)

    def give_up(self) -> None:
        """The first item failed: end the workers."""
        if self.team is not None:
            self.team.close(kill=True)

    def finish(self) -> None:
        """Take part in the rest and take its results in."""
        call, plan = self.call, self.plan
        assert plan is not None  # noqa: S101 - for the type checker
        outcome = self.team.finish()
        call.record.spans += outcome.spans
        _learn.from_run(call.state.key, plan, outcome)
        call._take_in(outcome, call.source.data[1:])  # noqa: SLF001 - a part of the call
