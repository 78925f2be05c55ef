"""Workers started while the first item of a function never seen before is still running: the decision, the outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amorsize import _backend, _host, _learn, _profile
from amorsize import _cost as cost
from amorsize._decide import decide
from amorsize._here import current_host
from amorsize._profile import Clocks
from amorsize._types import FORK, THREADS, Plan, Profile, Reason

if TYPE_CHECKING:
    from amorsize._call import Call
    from amorsize._types import Host

# Seconds the first item must have run. Forking takes the caller 0.4 ms and a core 1 ms: 5 % of this at most, should all
# the others turn out short. Two threads take 0.1 ms; the host is read for them, in half a millisecond, after a tenth of
# that time: by then they are almost sure to be started, and an item that waits does not notice.
_FORK_AFTER_S: Final = 0.02
_THREADS_AFTER_S: Final = 2e-3
_READ_AFTER_S: Final = 0.2e-3

# Seconds after which an item inside which the host was read is looked at again: does it wait, or compute?
_STILL_S: Final = 200e-6

# Times shorter than the first item seems that others are cut for, for forked workers: it may be an outlier, and a
# thousand tiny items in chunks of two took the caller 4 ms to take in. Chunks that are too long are shared by whoever
# runs dry.
_CAUTION: Final = 16


class EarlyStart:
    """Forked workers or threads started while the first item of a function never seen before is still running."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.team: Any = None
        self.plan: Plan | None = None
        # The clocks as the host had been read for threads, None before and once it is dealt with; and those after the
        # latest look.
        self._ready: Clocks | None = None
        self._looked: Clocks | None = None

    def watching(self) -> Any:
        """Return the block in which :meth:`start` is called, should it take long."""
        after_s = _READ_AFTER_S if self.call.limits.prefer == "threads" else _FORK_AFTER_S
        return _backend.watching(self.start, type(self.call)._sample.__code__, after_s)  # noqa: SLF001 - a part of the call

    def start(self) -> float:
        """
        Decide with the little there is to know, and start if that is the answer. Runs inside the first item.

        Returns:
            The seconds until it is to be called again, 0 if it is done.
        """
        now, call = Clocks.now(), self.call
        sampler = call.samples
        if sampler is None or sampler.began is None:
            return _STILL_S  # on the way to the first item
        if call.limits.prefer == "threads" and (again_s := self._until_ready(sampler, now)) > 0:
            self._looked = Clocks.now()
            return again_s
        seen = now - sampler.began - sampler.lost
        elapsed_s = seen.wall_s
        # One that waits wants more threads: what looking takes, and its own first steps, are half of what it computes.
        recent = seen if self._looked is None else now - self._looked
        profile = Profile(n_sampled=1, item_s=elapsed_s, first_s=elapsed_s, cpu_fraction=recent.cpu_fraction)
        profile = replace(profile, n_head=1, head_s=elapsed_s)
        profile = _profile.inspect_function(profile, call.func, _backend.dumps_by_value)
        host, _ = current_host(call.func, call.limits.prefer)
        n_items = call.source.n_items or 0
        plan = decide(profile, host, n_items, call.limits)
        if n_items == 2 and plan.reason is Reason.ONE_ITEM:
            plan = self._one_each(profile, host)
        if plan.backend != THREADS and (plan.backend != FORK or not plan.caller_computes):
            return 0.0
        job = call.job(plan, call.source.data[1:], None)
        job.base = 1
        if plan.backend == FORK:
            job.item_s /= _CAUTION
        try:
            with _backend.no_interrupt():
                make = _backend.thread_team if plan.backend == THREADS else _backend.fork_team
                self.team, self.plan = make(job), plan
                self.team.start()
        except (OSError, RuntimeError):
            # No processes, threads, descriptors or memory to be had: the item goes on as if nothing had been tried.
            self.team = None
            return 0.0
        record = call.record
        record.plan, record.profile, record.host = plan, profile, host
        why = f"the first item had been running for {elapsed_s:.3g} s"
        call._revise(f"go parallel: {plan.backend}, n_jobs={plan.n_jobs}", why, elapsed_s)  # noqa: SLF001 - a part of the call
        return 0.0

    def _until_ready(self, sampler: _profile.Sampler, now: Clocks) -> float:
        """
        Read the host while the item waits; returns the seconds until the next look, 0 once threads may start.

        From an item that computes reading takes its wall time, too, which is not counted as the item's.
        """
        assert sampler.began is not None  # noqa: S101 - for the type checker
        if (now - sampler.began).wall_s < _READ_AFTER_S:
            return _READ_AFTER_S
        if sampler.lost is _profile.NOTHING:
            _host.snapshot()
            self._ready = Clocks.now()
            sampler.lost = self._ready - now
            return _STILL_S
        if self._ready is not None:
            since, self._ready = now - self._ready, None
            if since.cpu_fraction < cost.WAITING_FRACTION:
                sampler.lost = sampler.lost._replace(wall_s=0.0)
        left_s = _THREADS_AFTER_S - (now - sampler.began - sampler.lost).wall_s
        return max(left_s, _STILL_S) if left_s > 0 else 0.0  # what an item did in less says nothing

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
