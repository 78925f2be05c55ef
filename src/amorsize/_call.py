"""
One call, from items to results: sample, decide, run, learn. The only place where the rooms meet.

    Source ──► sample (caller) ──► decide ──► loop, with a look at the clock every 2 ms ──► results
                                     │            │ evidence says parallel
                                     └──► workers ◄┘ for the rest; what is done stays done
"""

from __future__ import annotations

import gc
import itertools
import logging
import math
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amorsize import _backend, _function, _host, _learn, _profile
from amorsize import _cost as cost
from amorsize import _schedule as schedule
from amorsize._backend import MISSING
from amorsize._decide import decide
from amorsize._early import EarlyStart
from amorsize._here import best_case, decide_here, never_worth_s
from amorsize._record import Options, Record, State, store
from amorsize._source import PLAIN, SLICED, Beat, Source, is_array, note_error
from amorsize._types import FORK, LOKY, THREADS, Plan, Profile, Reason, Revision, Span
from amorsize._warn import warn
from amorsize.exceptions import AmorsizeError, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from amorsize._backend._outcome import Outcome

logger = logging.getLogger("amorsize")
clock = time.perf_counter

# Share of the predicted work that a call with a remembered profile spends on looking at items again.
RESAMPLE_SHARE: Final = 0.01

# Seconds a map spends on reading the rest of an iterator of unknown length before it treats it as a stream. Reading a
# million integers takes about that long; a producer that is slower is worth overlapping with the work.
READ_BOX_S: Final = 0.05

# Seconds per item below which timing items one by one says little: such a function is timed in blocks, by the loop.
_TINY_S: Final = 20e-6

# Seconds of the first item from which threads are decided on with a second one at hand.
_LONG_FOR_THREADS_S: Final = 200e-6

# Seconds of a short loop from which its pace is remembered.
_TELLING_S: Final = 100e-6

# How much longer than decided on items must take for another decision in the same call: each costs 0.2 ms.
_WORSE: Final = 1.1

# Items in a block below which its producer's seconds are told apart from the function's.
_FEW: Final = 64

_NOTHING: Final = Profile()

# What a new sample does not tell.
_KEPT: Final = ("mutates", "reads_mutable", "efficiency", "thread_efficiency")


def quick_map(func: Callable[..., Any], state: State, options: Options, data: Any) -> list[Any] | None:
    """
    Map a function that is known over data that is known to be too short to think about.

    Returns:
        The results; None where this is not such a call, and nothing has been done.
    """
    known = _profile.CACHE.get(state.key)
    if known is None or type(data) not in PLAIN or not _begins_like(data, known):
        return None
    expected_s = known.profile.item_s * len(data)
    began = clock()
    gap_s = math.inf if state.last is None else began - state.last.ended_s
    if state.habit.is_worth_a_thought(len(data), expected_s, gap_s, never_worth_s()):
        return None
    source = Source((data,), star=False)
    # What has been settled before is not thought about again unless it takes half as long again.
    beat = Beat(source, 0, known.profile.item_s, began + max(schedule.LOOK_S, 1.5 * expected_s))
    record = state.last = Record(known.profile, source.n_items, options.limits, began=began)
    try:
        results = [func(item) for block in beat.blocks() for item in block]
    except BaseException as error:
        note_error(error, data, beat.current())
        record.actual_s = clock() - began
        raise
    if len(results) < beat.n_items:
        return Call(func, state, options, source, None, done=results, began=began).run()
    record.actual_s = clock() - began
    if results and record.actual_s > _TELLING_S and abs(record.actual_s - expected_s) > _profile.SAME * expected_s:
        _profile.refresh(state.key, record.actual_s / beat.n_items, beat.n_items)
    return results


class Call:
    """One call of ``map`` or ``starmap``."""

    def __init__(
        self,
        func: Callable[..., Any],
        state: State,
        options: Options,
        source: Source,
        kwargs: dict[str, Any] | None,
        *,
        done: list[Any] | None = None,
        began: float | None = None,
    ) -> None:
        self.func = func
        self.state = state
        self.options = options
        self.limits = options.limits
        self.source = source
        self.kwargs = kwargs
        self.call = _backend.make_call(func, star=source.star, kwargs=kwargs)
        self.keep_going = self.limits.errors != "raise"
        self.isolated = self.limits.timeout is not None or self.limits.retries > 0
        self.results: list[Any] = done or []
        self.failures: dict[int, BaseException] = {}
        self.profile = _NOTHING
        self.first_item: Any = MISSING
        self.weighed = False
        self.inspected = False
        self.is_recalled = False
        self.samples: _profile.Sampler | None = None
        self.early: EarlyStart | None = None
        self.has_no_workers = False
        self.is_hopeless = False
        self.first_rate_s: float | None = None
        self.refused_s = self.thinking_s = 0.0
        self.n_collections: int | None = None
        self.began = clock() if began is None else began
        self.progress: Callable[[int], None] | None = None
        self.record = Record(self.profile, source.n_items, self.limits, began=self.began)

    # -- the corridor ------------------------------------------------------------------------------------------------

    def run(self) -> list[Any]:
        """Do the whole call."""
        self.initialize()
        state = self.state
        known = _profile.CACHE.get(state.key)
        state.last = self.record
        try:
            if self.isolated:
                self._run_isolated(known)
            elif self.results:
                self._resume(known)
            elif known is not None and _begins_like(self.source.data, known):
                self._run_known(known)
            else:
                self._run_unknown()
        finally:
            self._finish()
            # They point back here: what the call holds would stay until the next collection.
            self.samples = self.early = None
        return self._answer()

    def _run_isolated(self, known: _profile.Known | None) -> None:
        """Timeout or retries: no item runs here, not even as a sample."""
        source = self.source
        if source.n_items is None:
            source.data, source.is_plain = list(source.iterator), True
            source.n_items, source.iterator = len(source.data), iter(source.data)
            self.record.n_items = source.n_items
        self.recall(known)
        self._decide_and_run()

    def _resume(self, known: _profile.Known | None) -> None:
        """Go on after a quick loop that took longer than it should have: think now."""
        self.recall(known)
        now = clock()
        if not self._look((now - self.began) / len(self.results), now):
            self._loop()

    def _run_unknown(self) -> None:
        """First call: time the first items one by one, and start workers meanwhile if the very first takes long."""
        if not self._may_start_early():
            self._sample(self.limits.sample_size)
        else:
            early = self.early = EarlyStart(self)
            try:
                with early.watching():
                    self._sample(1)
                if early.team is None:
                    # Threads are started in a tenth of a millisecond: more than to know whether the first was an
                    # outlier is not worth that the others wait.
                    is_long = self.limits.prefer == "threads" and self.profile.item_s > _LONG_FOR_THREADS_S
                    self._sample(1 if is_long else self.limits.sample_size - 1)
            except BaseException:
                early.give_up()
                raise
        if self.samples is None or not self.samples.items:
            return
        if self.early is not None and self.early.team is not None:
            self.early.finish()
            return
        if self.profile.item_s < _TINY_S and self.limits.n_jobs is None:
            self._loop()
            return
        self._consider()

    def _may_start_early(self) -> bool:
        """Tell whether forked workers could be started while the first item runs, should it take long."""
        limits, source = self.limits, self.source
        if limits.start_method == LOKY or limits.n_jobs == 1 or self.keep_going:
            return False
        return sys.platform == "linux" and (source.n_items or 0) > 1 and type(source.data) in SLICED

    def _run_known(self, known: _profile.Known) -> None:
        """Later calls: trust what is remembered as far as the items seen now bear it out."""
        n_items = self.source.n_items
        self.recall(known)
        expected_s = known.profile.item_s * (n_items or 0)
        habit = self.state.habit
        is_plain = self.source.is_plain and self.limits.n_jobs is None and not habit.is_due
        if n_items is not None and is_plain and expected_s < never_worth_s():
            self._loop()
            return
        if n_items is None:
            self._sample(1, remember=False)
            self.weighed = self.weighed and known.is_like(self.first_item)
            self._consider()
            return
        if habit.settled == n_items and is_plain:
            # Decided before, as a loop, and it took what was predicted: the loop itself watches for changes.
            self._loop()
            return
        if self.weighed and self._looks_alike(known):
            # Nothing to learn from running items alone, which would keep the workers waiting meanwhile.
            self._consider()
            return
        n_again = int(min(self.limits.sample_size, RESAMPLE_SHARE * expected_s / max(known.profile.item_s, 1e-9)))
        self._sample(max(1, n_again), remember=False)
        if self.samples is None or not self.samples.items:
            return
        seen = self.samples.profile()
        # A handful of tiny items timed one by one says less than what many of them took before.
        is_same = seen.item_s <= max(_profile.CHANGED * known.profile.item_s, _TINY_S)
        if known.is_like(self.first_item) and is_same:
            self.profile = replace(known.profile, n_head=seen.n_head, head_s=seen.head_s)
        elif len(self.results) < self.limits.sample_size:
            self._sample(self.limits.sample_size - len(self.results))
        else:
            self.profile, self.weighed, self.is_recalled = seen, False, False
        self._consider()

    def _looks_alike(self, known: _profile.Known) -> bool:
        """Compare the shape of a few items with those the remembered profile was measured on."""
        data, n_items = self.source.data, self.source.n_items or 0
        if not n_items or not (type(data) in SLICED or is_array(data)):
            return False
        return all(known.is_like(data[i]) for i in {0, n_items // 2, n_items - 1})

    def recall(self, known: _profile.Known | None) -> None:
        """Begin with what is remembered of the function."""
        if known is not None:
            self.profile, self.weighed, self.is_recalled = known.profile, known.is_weighed, True

    def _sample(self, n_most: int, *, remember: bool = True) -> None:
        """Run the first items here, timing each; their results are the head of the answer."""
        if self.samples is None:
            self.samples = _profile.Sampler(self._guarded)
        sampler = self.samples
        n_before = len(sampler.results)
        sampler.run(self.source.iterator, n_before + n_most, start=0)
        if self.keep_going:
            self._note_sample_failures(n_before)
        self.results += sampler.results[n_before:]
        if not sampler.items:
            return
        end = clock()
        if self.progress is not None:
            self.progress(len(self.results))
        self.record.spans.append(
            Span(lane="caller", begin_s=end - sum(sampler.times[n_before:]), end_s=end, start=n_before,
                 n_items=len(sampler.results) - n_before, kind="sample")
        )  # fmt: skip
        if self.first_item is MISSING:
            self.first_item = sampler.items[0]
        if remember:
            seen = sampler.profile()
            if self.early is not None and self.early.plan is not None:
                # Beside the threads that were started meanwhile it got less of the cores than alone.
                seen = replace(seen, cpu_fraction=self.early.plan.profile.cpu_fraction)
            kept = {name: getattr(self.profile, name) for name in _KEPT}
            self.profile = replace(seen, **kept)
            self.weighed = self.is_recalled = False
            self._remember()

    def _remember(self) -> None:
        sampler = self.samples
        if sampler is None or self.first_item is MISSING:
            return
        s_per_byte = _profile.seconds_per_byte(sampler.items, sampler.times)
        _profile.remember(self.state.key, self.profile, self.first_item, len(sampler.items), s_per_byte)

    def _guarded(self, item: Any) -> Any:
        """Call the function; with an error policy, an exception is a result."""
        if not self.keep_going:
            return self.call(item)
        try:
            return self.call(item)
        except Exception as error:  # noqa: BLE001 - errors="return" and "skip" ask for just this
            return _Failed(error)

    def _note_sample_failures(self, n_before: int) -> None:
        sampler = self.samples
        assert sampler is not None  # noqa: S101 - for the type checker
        for i in range(n_before, len(sampler.results)):
            result = sampler.results[i]
            if isinstance(result, _Failed):
                self._fail(i, result.error, sampler.items[i])
                sampler.results[i] = result.error

    def _consider(self) -> None:
        """Decide now if the work is long enough to be worth a thought, else loop on."""
        n_items = self.source.n_items
        if n_items is None or self._is_in_vain(n_items):
            self._loop()
        else:
            self._decide_and_run()

    def _is_in_vain(self, n_items: int) -> bool:
        """Tell whether no start of workers could gain anything: the host is then not even looked at."""
        if self.limits.n_jobs is not None:
            return False
        rest_s = self.profile.item_s * (n_items - len(self.results))
        if rest_s < cost.FLOOR_S:
            return True
        if self.state.habit.is_due:
            return False
        return self._is_too_short(rest_s) or self._pays_nowhere(n_items)

    def _is_too_short(self, rest_s: float) -> bool:
        """Tell whether not even the cheapest start could gain anything."""
        costs = self.cheapest()
        start_s = costs.start_each_s + _host.unread_s()
        self.is_hopeless = 0.9 * self._gain(costs, self.profile.item_s) * rest_s <= start_s
        return self.is_hopeless

    def _pays_nowhere(self, n_items: int) -> bool:
        """Tell whether even the most favourable machine had better loop, once the data have been weighed."""
        limits = self.limits
        # Where the last call went parallel this one will, too. And what runs have found of the workers' speed is
        # doubted now and then: by decisions, which are counted.
        if limits.start_method is not None or self.state.habit.plan is not None or 0 < self.profile.efficiency < 1:
            return False
        host = best_case(limits.prefer)
        if host is None or _backend.is_standing_by(self.func):
            return False
        self._inspect()
        plan = decide(self._after(len(self.results)), host, n_items, limits)
        # Where nothing is forked, calls too short for loky's cold workers are counted, all but the first one; and only
        # where forking has been looked into is looping settled.
        pays_nowhere = plan.reason in _TRANSFERS or (plan.reason is Reason.NOT_WORTH and FORK in host.costs)
        if pays_nowhere and plan.reason is Reason.NOT_WORTH and self.is_recalled:
            pays_nowhere = not _backend.fork_blocker(self.func)
        if pays_nowhere:
            self.refused_s, self.record.costs = self.profile.item_s, host.costs
            self.is_hopeless = plan.reason in _TRANSFERS or self.is_recalled
        return pays_nowhere

    def _gain(self, costs: Any, item_s: float) -> float:
        """Return the share of an item's seconds that a second worker saves."""
        moved_s = cost.transfer_item_s(self.profile, costs) + cost.touch_item_s(self.profile, costs)
        return 0.5 * float(costs.efficiency) - 0.5 * moved_s / max(item_s, 1e-9)

    def _inspect(self) -> None:
        """Complete the profile with what the decision needs: outside state and pickled sizes."""
        if not self.inspected:
            self.profile = _profile.inspect_function(self.profile, self.func, _backend.dumps_by_value)
            self.inspected = True
        if self.weighed or self.samples is None or not self.profile.is_picklable:
            return
        sampler = self.samples
        rest_s = self.profile.item_s * max(1, (self.source.n_items or 1000) - len(self.results))
        n_weighed = _how_many(sampler, rest_s)
        # Large containers are weighed whole where that is within 2 % of the work left: only then is the memory they
        # take on the way in the figure.
        most_bytes = max(_profile.WEIGH_BYTES, int(0.02 * rest_s * 0.1e9))
        results = [r for r in sampler.results[:n_weighed] if not isinstance(r, BaseException | _Failed)]
        self.profile = _profile.weigh(
            self.profile, sampler.items[:n_weighed], results, _backend.dumps_by_value, most_bytes
        )
        self.weighed = True
        if self.first_item is not MISSING:
            self._remember()

    def _decide_and_run(self) -> None:
        if (plan := self._as_before()) is not None:
            self._note(plan)
            self._run_parallel(plan, None)
            return
        plan, backend = self.decide(len(self.results))
        if plan.is_parallel:
            self._run_parallel(plan, backend)
        else:
            self.refused_s = self.profile.item_s
            self._loop()

    def _as_before(self) -> Plan | None:
        """Return the last call's plan where deciding again could only repeat it."""
        if self.results or not _backend.is_standing_by(self.func):
            return None
        plan = self.state.habit.as_before(self.source.n_items, self.profile.item_s, self.limits, self.began)
        is_free = _backend.context()[0] is None and not _backend.in_worker() and not _host.snapshot().is_disabled
        return plan if is_free else None

    def _note(self, plan: Plan) -> None:
        """Keep the first decision of the call: it is the one that last_plan replays."""
        self.record.plan = plan
        self.record.profile, self.record.host = plan.profile, plan.host
        logger.debug("%s: %s", getattr(self.func, "__qualname__", self.func), plan.reason, extra={"plan": plan})

    def decide(self, n_head: int, *, stream: bool = False) -> tuple[Plan, Any]:
        """Make a decision with *n_head* items done; the first one of a call is the one that last_plan replays."""
        began = clock()
        self._inspect()
        self.profile = self._after(n_head)
        plan, backend = decide_here(
            self.func,
            self.profile,
            self.source.n_items,
            self.limits,
            stream=stream,
            missed_s=self._missed_s(),
        )
        self.thinking_s += clock() - began
        if self.record.plan is None:
            self._note(plan)
            self._warn(plan)
        return plan, backend

    def _after(self, n_head: int) -> Profile:
        """Return the profile with *n_head* items done."""
        return replace(self.profile, n_head=n_head, head_s=clock() - self.began if n_head else 0.0)

    def _missed_s(self) -> float:
        """Return what counts as paid for a start of workers, if they could be kept afterwards."""
        paid_s = self.state.habit.paid_s
        return paid_s if paid_s > 0 and _backend.may_stand_by(self.func) else 0.0

    def _warn(self, plan: Plan) -> None:
        fixed = self.limits.n_jobs
        if plan.reason is Reason.SHARED_STATE:
            warn(f"{_name(self.func)} runs serially: {plan.warnings[0]}. Return the values instead, or fix n_jobs.")
        elif fixed not in {None, 1} and plan.reason in {Reason.NESTED, Reason.NOT_PICKLABLE, Reason.UNAVAILABLE}:
            reasons = [plan.profile.problem] if plan.reason is Reason.NOT_PICKLABLE else plan.host.unavailable.values()
            detail = f" ({'; '.join(reasons)})" if plan.reason is not Reason.NESTED else ""
            warn(f"{_name(self.func)}: n_jobs={fixed} cannot be had: {plan.reason}{detail}; it runs serially")
        elif self.limits.timeout is not None and plan.backend == THREADS:
            warn(f"{_name(self.func)}: timeout cannot stop an item in a thread; use processes")
        elif self.isolated and not plan.is_parallel and plan.n_items != 0:
            warn(f"{_name(self.func)}: timeout and retries need worker processes, which cannot be had: {plan.reason}")

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        """Run as a loop that looks at the clock every few milliseconds and hands over when that pays."""
        if not self.source.is_plain or self.keep_going:
            self._loop_carefully()
            return
        source, call = self.source, self.call
        due = (self.began if self.samples is None else clock()) + schedule.LOOK_S
        self._is_doubtful()
        is_first = not self.is_recalled
        beat = Beat(source, len(self.results), self.profile.item_s, due, self._think, is_first=is_first)
        while beat.position < beat.n_items:
            try:
                done = [call(item) for block in beat.blocks() for item in block]
            except BaseException as error:
                note_error(error, source.data, beat.current())
                raise
            # The sample is short: put in front of the rest it costs less than the rest appended to it.
            done[:0] = self.results
            self.results = done
            if self.progress is not None:
                self.progress(len(self.results))
            if self.first_rate_s is None:
                self.first_rate_s = beat.first_rate_s
            if beat.position < beat.n_items:
                now = clock()
                if self._look(beat.item_s, now):
                    return
                beat.due = clock() + self._next_look_s(beat.item_s * (beat.n_items - beat.position), now - self.began)

    def _think(self, beat: Beat) -> float | None:
        """Return the seconds until the next look at the clock; None to look closer, with the results at hand."""
        now, n_left = clock(), beat.n_items - beat.position
        if self.progress is not None:
            self.progress(beat.position)
        if self._speaks_for_workers(beat.item_s, n_left, now):
            if self._is_doubtful():
                return schedule.BEAT_S
            if self.weighed or self.samples is None:
                return None
            self._inspect()  # with the sample at hand the loop need not stop for that
            if self._speaks_for_workers(beat.item_s, n_left, now):
                return None
        return self._next_look_s(beat.item_s * n_left, now - self.began)

    def _is_doubtful(self) -> bool:
        """
        Tell whether the latest block may be slow for a full pass of the garbage collector: the next one will tell.

        Parsing rows of 0.35 ms, one item in some hundred took 13 ms; in a block of five that looks like slow items.
        """
        before, self.n_collections = self.n_collections, gc.get_stats()[2]["collections"]
        return before != self.n_collections and before is not None

    @staticmethod
    def _next_look_s(rest_s: float, elapsed_s: float) -> float:
        """Return the seconds until the next look: if the rest is too short for workers, only its growing is news."""
        usual_s = max(schedule.LOOK_S, elapsed_s / 8)
        return max(usual_s, 1.5 * rest_s) if rest_s < never_worth_s() else usual_s

    def _loop_carefully(self) -> None:
        """
        The loop for items from any iterator, or with an error policy: one at a time.

        A look may read ahead; what it read is then in front of the source's iterator, so the loop begins again there.
        """
        while self._loop_over(self.source.iterator):
            pass

    def _loop_over(self, iterator: Iterator[Any]) -> bool:  # noqa: C901 - the hot loop, kept flat
        """Loop until the items end, the rest has been done (both False), or the source's iterator is another one."""
        results, call = self.results, self.call
        # The first item of each block is timed alone: the seconds of a block include those of a slow producer.
        n_before, block_began, count = len(results), clock(), 1
        first_s, spent_s = 0.0, 0.0
        for item in iterator:
            is_first = len(results) == n_before
            before = clock() if is_first else 0.0
            try:
                result = call(item)
            except BaseException as error:
                if not (self.keep_going and isinstance(error, Exception)):
                    _profile.add_item_note(error, len(results), item)
                    raise
                self._fail(len(results), error, item)
                result = error
            results.append(result)
            if is_first:
                first_s = clock() - before
            count -= 1
            if count > 0:
                continue
            now = clock()
            n_done = len(results) - n_before
            item_s = min(first_s, (now - block_began) / n_done) if n_done < _FEW else (now - block_began) / n_done
            spent_s += item_s * n_done
            count = schedule.next_block(n_done, now - block_began, schedule.LOOK_S)
            if self.first_item is MISSING:
                self.first_item = item
            if self.progress is not None:
                self.progress(len(results))
            if now - block_began >= schedule.LOOK_S / 4:
                if self._look(item_s, self.began + self.profile.head_s + spent_s):
                    return False
                if self.source.iterator is not iterator:
                    return True
            n_before, block_began = len(results), clock()
        return False

    def _speaks_for_workers(self, item_s: float, n_left: int | None, now: float) -> bool:
        """Tell whether what has been seen speaks for workers, or for looking closer."""
        if self.has_no_workers or (self.record.plan is not None and self.record.plan.reason in _FINAL):
            return False
        if n_left is not None and item_s < _WORSE * self.refused_s:
            return False  # decided before, and less is left now
        elapsed_s = now - self.began
        costs = self.cheapest()
        start_s = costs.start_s + costs.start_each_s + 2 * costs.batch_overhead_s + _host.unread_s()
        if not schedule.should_promote(item_s, n_left, elapsed_s, start_s, 0.5 * costs.efficiency):
            return False
        if not self.weighed or not self._may_leave():
            return not self.weighed or self.record.plan is None
        return schedule.should_promote(item_s, n_left, elapsed_s, start_s, self._gain(costs, item_s))

    def _may_leave(self) -> bool:
        """Tell whether function and items could go to workers at all."""
        return self.profile.is_picklable and not (self.profile.mutates and self.limits.n_jobs is None)

    def _look(self, item_s: float, now: float) -> bool:
        """Look at the evidence while looping; True if the rest has been done by workers."""
        n_items = self.source.n_items
        n_left = None if n_items is None else n_items - len(self.results)
        if not self._speaks_for_workers(item_s, n_left, now):
            return False
        if not self.weighed:
            # Only now that the seconds alone speak for it: what would moving the data cost?
            if self.samples is None:
                self._take_samples()
            self._inspect()
        if not self._may_leave():
            if self.record.plan is None:
                self.profile = replace(self.profile, item_s=item_s)
                self.decide(len(self.results))  # for its reason, and its warning
            return False
        return self._speaks_for_workers(item_s, n_left, now) and self._promote(item_s, now - self.began)

    def cheapest(self) -> Any:
        """Return the costs of the way that starts soonest, of those that may be used."""
        host = self.record.host
        known = host.costs if host is not None else _host.BOOK.items()
        cluster = None if host is None else host.context_backend
        # On a cluster local processes are not what was asked for.
        names = (FORK, LOKY, THREADS) if cluster is None or cluster == THREADS else (THREADS, cluster)
        usable = [name for name in names if name in known and self._may_use(name)]
        costs = [cost.of_function(self.profile, known[name], name) for name in usable]
        return min(costs, key=lambda c: c.start_s) if costs else cost.EXTERNAL_PRIOR

    def _may_use(self, backend: str) -> bool:
        if self.limits.prefer == "threads":
            return backend == THREADS
        return backend != THREADS and self.limits.start_method in {None, backend}

    def _promote(self, item_s: float, elapsed_s: float) -> bool:
        """Decide again with what has been seen; hand the rest to workers if that is the answer."""
        source = self.source
        n_done = len(self.results)
        if self.samples is None:
            self._take_samples()
        was = self.profile.item_s
        self.profile = replace(self.profile, item_s=item_s, n_head=n_done, head_s=elapsed_s)
        rest: list[Any] | None = None
        if source.n_items is None:
            rest, is_all = source.read(READ_BOX_S)
            if is_all:
                source.n_items = n_done + len(rest)
                self.record.n_items = source.n_items
            source.iterator = itertools.chain(rest, source.iterator)
            if not is_all:
                return self._stream()
            source.data, source.is_plain = None, False
        first = self.record.plan is None
        plan, backend = self.decide(n_done)
        if not plan.is_parallel:
            self.refused_s = item_s
            return False
        if not first:
            why = f"items take {item_s:.3g} s of late, {was:.3g} s were expected"
            self._revise(f"go parallel: {plan.backend}, n_jobs={plan.n_jobs}", why, elapsed_s)
        self._run_parallel(plan, backend)
        return True

    def _take_samples(self) -> None:
        """Weigh results the loop has produced, where the call began without a sample."""
        data = self.source.data
        sampler = _profile.Sampler(self._guarded)
        if type(data) in SLICED or is_array(data):
            n = min(3, len(self.results))
            sampler.items = [data[i] for i in range(len(self.results) - n, len(self.results))]
            sampler.results = self.results[-n:]
            self.samples = sampler
            self.first_item = sampler.items[0]

    def _stream(self) -> bool:
        """Hand an input that is still being produced to the streaming engine."""
        from amorsize._stream import take_over  # noqa: PLC0415 - it builds on this module

        return take_over(self)

    def _revise(self, what: str, why: str, at_s: float) -> None:
        self.record.revisions.append(Revision(at_s=at_s, n_done=len(self.results), what=what, why=why))

    # -- workers -----------------------------------------------------------------------------------------------------

    def job(self, plan: Plan, items: Sequence[Any], backend: Any) -> _backend.Job:
        """Describe the run of *items* as planned."""
        found, _ = _function.bare(self.func)
        costs = cost.of_function(plan.profile, plan.host.costs.get(plan.backend, cost.EXTERNAL_PRIOR), plan.backend)
        return _backend.Job(
            func=self.func,
            items=items,
            base=len(self.results),
            star=self.source.star,
            kwargs=self.kwargs,
            importable=found is not None and _profile.is_importable(found),
            n_jobs=plan.n_jobs,
            batch_size=self.limits.batch_size,
            caller_computes=plan.caller_computes,
            item_s=plan.profile.item_s,
            batch_overhead_s=costs.batch_overhead_s,
            keep_going=self.keep_going,
            retries=self.limits.retries,
            timeout=self.limits.timeout,
            progress=None if self.progress is None else self._progress_from(len(self.results)),
            first=self._big_first(items, plan),
            is_tight=None if plan.backend == THREADS else _host.is_memory_tight,
            initializer=self.options.initializer,
            initargs=self.options.initargs,
            backend=backend,
            may_keep=self._may_keep(plan, len(items)),
        )

    def _may_keep(self, plan: Plan, n_items: int) -> bool:
        """Tell whether forked workers may stay for the next call: short work under the plainest rules."""
        limits = self.limits
        is_short = plan.backend == FORK and plan.profile.item_s * n_items < cost.STANDBY_WORK_S
        is_short = is_short and plan.profile.arg_bytes * n_items <= cost.STANDBY_BYTES
        is_plain = self.kwargs is None and self.options.initializer is None and limits.max_memory is None
        return is_short and is_plain and not self.isolated

    def _big_first(self, items: Sequence[Any], plan: Plan) -> list[int]:
        """Return the positions to start with, where sizes predict costs and the chunk size is left to us."""
        known = _profile.CACHE.get(self.state.key)
        if known is None or known.s_per_byte <= 0 or self.limits.batch_size is not None:
            return []
        return _profile.big_first(items, known.s_per_byte, plan.n_jobs)

    def _progress_from(self, n_before: int) -> Callable[[int], None]:
        progress = self.progress
        assert progress is not None  # noqa: S101 - for the type checker
        return lambda n_done: progress(n_before + n_done)

    def _run_parallel(self, plan: Plan, backend: Any) -> None:
        """Give the rest to workers and take its results in."""
        base = len(self.results)
        items = self.source.rest(base)
        self.source.n_items = base + len(items)
        job = self.job(plan, items, backend)
        began = clock()
        try:
            outcome = _backend.run(plan.backend, job)
        except _backend.NoWorkersError as error:
            self._fall_back(plan, items, error)
            return
        self.record.spans += outcome.spans
        _learn.from_run(self.state.key, plan, outcome, clock() - began)
        self._take_in(outcome, items)

    def _fall_back(self, plan: Plan, items: Sequence[Any], error: OSError) -> None:
        """The system gave no workers (no processes, descriptors or memory left): go on as a loop."""
        self.has_no_workers = True
        self._revise("run serially", f"{plan.backend} workers cannot be started: {error}", clock() - self.began)
        warn(f"{_name(self.func)} runs serially: {plan.backend} workers cannot be started: {error}")
        self.source.iterator, self.source.is_plain, self.source.data = iter(items), False, None
        self._loop_carefully()

    def _take_in(self, outcome: Outcome, items: Sequence[Any]) -> None:
        """Append a run's results; raise what the loop would have raised."""
        base = outcome.base
        if not self.keep_going and outcome.failures:
            position = min(outcome.failures)
            error = outcome.failures[position]
            died = outcome.died
            if died is not None and isinstance(error, WorkerDied):
                self._give_up(died, outcome)
            if not isinstance(error, AmorsizeError):
                _profile.add_item_note(error, base + position, items[position])
            raise error
        if outcome.died is not None and not self.keep_going:
            self._give_up(outcome.died, outcome)
        for position, error in sorted(outcome.failures.items()):
            self._fail(base + position, error, items[position])
            if not isinstance(error, Exception):
                raise error
        missing = [base + i for i, result in enumerate(outcome.results) if result is MISSING]
        if missing:
            message = f"items {missing[:5]} have no result although the run ended; please report this"
            raise AmorsizeError(message)
        self.results += outcome.results

    def _give_up(self, died: WorkerDied, outcome: Outcome) -> None:
        """Raise a worker's death with everything that had come home."""
        finished = dict(enumerate(self.results)) | outcome.finished()
        text = f"{died.args[0]}; {len(finished)} finished results are in .results"
        if not self.limits.retries:
            text += ", retries=1 would try again what was in flight"
        raise WorkerDied(text, finished, died.in_flight, died.cause)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _fail(self, index: int, error: BaseException, item: Any) -> None:
        if not isinstance(error, AmorsizeError):
            _profile.add_item_note(error, index, item)
        self.failures[index] = error

    def initialize(self) -> None:
        """Load what earlier processes kept, and call the initializer, each once, before items run here."""
        if (kept := store()) is not None:
            kept.load()
        initializer = self.options.initializer
        if initializer is None or self.state.initialized == os.getpid() or self.isolated:
            return
        initializer(*self.options.initargs)
        self.state.initialized = os.getpid()

    def _finish(self) -> None:
        """Write down what the call took."""
        record = self.record
        end = clock()
        record.actual_s = end - self.began
        if record.plan is None:
            # What is remembered of many items forecasts better than the first block of these.
            record.profile, record.rate_s = self.profile, None if self.is_recalled else self.first_rate_s
            if self.samples is not None:
                record.n_head, record.head_s = len(self.samples.times), sum(self.samples.times)
            record.n_items = self.source.n_items if self.source.n_items is not None else len(self.results)
        self._note_habit(record)
        if record.plan is not None and not record.plan.is_parallel and not record.revisions:
            _learn.from_loop(self.state.key, record.plan, record.actual_s)
        n_loop = len(self.results) - (len(self.samples.times) if self.samples is not None else 0)
        if n_loop > 0 and (record.plan is None or not record.plan.is_parallel) and not record.revisions:
            loop_s = record.actual_s - self.thinking_s
            _profile.refresh(self.state.key, loop_s / len(self.results), len(self.results))
        if (kept := store()) is not None:
            kept.keep(self.state.key, record.actual_s)

    def _note_habit(self, record: Record) -> None:
        """Let the function's next calls know what this one came to."""
        habit, plan = self.state.habit, record.plan
        if plan is not None and plan.is_parallel:
            gains, stays = (record.actual_s or 0.0) < plan.serial_s, _backend.is_standing_by(self.func)
            could_s = 0.0 if gains else self._could_save(plan)
            habit.went_parallel(plan, could_s, self.began, gains=gains, stays=stays)
            return
        is_open = self.is_hopeless or (plan is not None and plan.reason in _SETTLING and FORK in plan.host.costs)
        is_open = is_open and not record.revisions and self.limits.start_method in {None, FORK}
        habit.looped(self._settled(), self._could_save(plan) if is_open else 0.0)

    def _could_save(self, plan: Plan | None) -> float:
        """Return the seconds that this call would have saved with workers that are there."""
        n_items = self.record.n_items or 0
        n_jobs = min(n_items, 2 if plan is None else min(plan.host.n_cpus, plan.host.n_physical_cpus))
        # Items never weighed are taken to cost what small ones do.
        profile = self.profile if self.weighed else replace(self.profile, pickle_s=cost.SMALL_PICKLE_S)
        is_small = profile.arg_bytes * n_items <= cost.STANDBY_BYTES
        return _learn.missed(profile, n_items, n_jobs) if n_jobs > 1 and is_small and profile.is_picklable else 0.0

    def _settled(self) -> int | None:
        """Return the number of items for which looping is settled: decided so, and it took about what was predicted."""
        record = self.record
        if record.plan is None and not self.is_hopeless:
            return self.state.habit.settled
        if record.plan is None:
            expected_s = self.profile.item_s * len(self.results)
            is_right = expected_s < _SETTLED_S and (record.actual_s or 0.0) < _profile.CHANGED * expected_s
            return record.n_items if is_right and not record.revisions else None
        if record.plan.is_parallel or record.revisions or record.actual_s is None:
            return None
        # Only short work, and only where every way was open: what is closed now may be open in the next call.
        is_short = record.plan.serial_s < _SETTLED_S and not record.plan.host.unavailable
        is_right = is_short and record.actual_s < _profile.CHANGED * record.plan.predicted_s
        return record.plan.n_items if is_right and record.plan.reason in _SETTLING else None

    def _answer(self) -> list[Any]:
        if self.progress is not None:
            self.progress(len(self.results))
        if self.failures and self.limits.errors == "skip":
            self.record.skipped = sorted(self.failures)
            skipped = set(self.record.skipped)
            return [result for i, result in enumerate(self.results) if i not in skipped]
        return self.results


class _Failed:
    """An exception as a result, on its way through the sampler."""

    def __init__(self, error: Exception) -> None:
        self.error = error


# Seconds of work up to which a loop may be settled: for longer work a decision costs nothing.
_SETTLED_S: Final = 0.02

# Reasons that come of predicted seconds, and so hold for the next call over as many items of the same kind.
_SETTLING: Final = frozenset({Reason.NOT_WORTH, Reason.TRANSFER_BOUND, Reason.TOO_FAST})

# Those among them that no start of workers can be too dear for.
_TRANSFERS: Final = frozenset({Reason.TRANSFER_BOUND, Reason.ALREADY_PARALLEL})

# Reasons that nothing seen in flight can change.
_FINAL: Final = frozenset(
    {Reason.NESTED, Reason.DISABLED, Reason.NOT_PICKLABLE, Reason.SHARED_STATE, Reason.ONE_CPU, Reason.ONE_JOB,
     Reason.UNAVAILABLE}
)  # fmt: skip


def _begins_like(data: Any, known: _profile.Known) -> bool:
    """Tell whether the first item, where it can be looked at, is of the kind the remembered profile was measured on."""
    return type(data) not in SLICED or not data or known.is_like(data[0])


def _how_many(sampler: _profile.Sampler, rest_s: float) -> int:
    """Return how many sampled items to weigh: weighing large ones must not cost more than 1 % of the work left."""
    size = _profile.shallow_bytes(sampler.items[0]) + _profile.shallow_bytes(sampler.results[0])
    each_s = 10e-6 + size / _profile.FLAT_BYTES_PER_S * 4
    return max(1, min(len(sampler.items), 3, int(0.01 * rest_s / each_s)))


def _name(func: Callable[..., Any]) -> str:
    return str(getattr(func, "__qualname__", None) or getattr(func, "__name__", None) or repr(func))
