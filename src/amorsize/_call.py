"""
One call of ``map``, from items to results: sample, decide, run, learn. Read it from the top.

    Call.run ──► sample (caller) ──► decide ──► loop, with a look at the clock every 2 ms ──► results
                                        │           │ the evidence says parallel
                                        └──► workers ◄┘ for the rest; what is done stays done
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from amorsize import _ahead, _backend, _dispatch, _known
from amorsize import _bounds as bounds
from amorsize._evidence import Evidence
from amorsize._gate import Gate, is_never_worth, warn_of_late
from amorsize._learn import finish
from amorsize._plans import Plan
from amorsize._records import THREADS
from amorsize._request import Ledger
from amorsize._serial import SerialLoop, Stopped
from amorsize._source import begins_like
from amorsize._window import take_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amorsize._request import Request

clock = time.perf_counter


class Call:
    """One call of ``map`` or ``starmap``."""

    def __init__(self, request: Request, done: list[Any] | None = None) -> None:
        self.request = request
        self.ledger = Ledger(self.request, done)
        self._evidence = Evidence(self.request, self.ledger)
        self._gate = Gate(self.request, self.ledger, self._evidence)

    def run(self) -> list[Any]:
        """Do the whole call."""
        request = self.request
        request.initialize()
        known = _known.CACHE.get(request.state.key)
        request.state.last = request.record
        data = request.source.data
        request.record.so_far = self._evidence.so_far
        try:
            if request.isolated:
                self._run_isolated(known)
            elif request.limits.n_jobs == 1 and not request.source.is_data:
                self._gate.decide()
                self._loop(carefully=True)  # what is done with its items may decide what an iterator gives next
            elif self.ledger.results:
                self._resume(known)
            elif known is not None and begins_like(request.source.data, known):
                self._run_known(known)
            else:
                self._run_unknown()
            if type(data) is list and len(data) > self.ledger.n_done:
                self._run_appended(data)
        finally:
            finish(request, self.ledger, self._evidence, self._gate)
            self._evidence.forget()
        return self.ledger.answer()

    # -- how it begins -----------------------------------------------------------------------------------------------

    def _run_isolated(self, known: _known.Known | None) -> None:
        """Timeout or retries: no item runs here, not even as a sample."""
        self.request.record.n_items = self.request.source.read_all()
        self._evidence.recall(known)
        self._decide()

    def _resume(self, known: _known.Known | None) -> None:
        """Go on after a quick loop that took longer than it should have: think now."""
        self._evidence.recall(known)
        elapsed_s, n_done = clock() - self.request.record.began, self.ledger.n_done
        if self._gate.opens(elapsed_s / n_done, elapsed_s) and self._promote(elapsed_s / n_done):
            return
        self._loop()

    def _run_unknown(self) -> None:
        """First call: time the first items one by one; all but the very first are watched for what they change."""
        limits, evidence = self.request.limits, self._evidence
        begun, has_imported = _ahead.first_item(self.request, evidence)
        if begun is not None and _ahead.go_on(begun, self.request, self.ledger, self._gate):
            return
        # Threads are started in a tenth of a millisecond: more than to know whether the first was an outlier is not
        # worth that the others wait.
        is_long = limits.prefer == "threads" and evidence.profile.item_s > bounds.LONG_FOR_THREADS_S
        n_more = 1 if is_long else limits.sample_size - 1
        if _ahead.is_few(self.request.source) and not has_imported and evidence.first_prepares_nothing():
            n_more = 0
        if n_more:
            rest_s = evidence.profile.item_s * ((self.request.source.n_items or bounds.ENDLESS) - 1)
            evidence.sample(n_more, watch=rest_s >= bounds.WATCH_FROM_S or limits.n_jobs is not None)
        if not self.ledger.n_done:
            return
        if evidence.profile.item_s < bounds.TINY_S and limits.n_jobs is None:
            self._loop()
            return
        self._consider()

    def _run_known(self, known: _known.Known) -> None:
        """Later calls: trust what is remembered as far as the items seen now bear it out."""
        source, limits, evidence = self.request.source, self.request.limits, self._evidence
        evidence.recall(known)
        is_plain = source.is_plain and limits.n_jobs is None
        if source.n_items is None:
            evidence.sample(1, remember=False)
            evidence.is_weighed = evidence.is_weighed and known.is_like(evidence.first_item)
            self._consider()
            return
        expected_s = known.profile.item_s * source.n_items
        # Decided before, as a loop, and it took what was predicted: the loop itself watches for changes.
        is_settled = self.request.state.is_settled(source.n_items)
        if is_plain and (is_settled or is_never_worth(expected_s, limits.prefer)):
            self._loop()
            return
        if not (evidence.is_weighed and evidence.looks_alike(known)):
            n_again = int(min(limits.sample_size, bounds.RESAMPLE_SHARE * expected_s / max(known.profile.item_s, 1e-9)))
            evidence.sample(max(1, n_again), remember=False)
            if not self.ledger.n_done:
                return
            evidence.check_recalled(known, limits.sample_size, bounds.TINY_S)
        # Else there is nothing to learn from running items alone, which would keep the workers waiting meanwhile.
        self._consider()

    def _run_appended(self, data: list[Any]) -> None:
        """Do what has been appended to the list meanwhile, as a loop over it would, and what that appends."""
        source = self.request.source
        source.put_back(itertools.islice(data, self.ledger.n_done, None))
        self.request.record.n_items = source.n_items = len(data)
        self._loop(carefully=True)
        self.request.record.n_items = source.n_items = self.ledger.n_done

    # -- loop or workers ---------------------------------------------------------------------------------------------

    def _consider(self) -> None:
        """Decide now if the work is long enough to be worth a thought, else loop on."""
        n_items, evidence = self.request.source.n_items, self._evidence
        if n_items is None or self._gate.is_in_vain(n_items):
            self._loop()
            return
        if not evidence.is_watched(self.ledger.n_done):
            # Nothing is given to workers before it is known that nothing is lost there.
            evidence.sample(bounds.WATCH_ITEMS, remember=False)
            evidence.end_watch()
        self._decide()

    def _decide(self) -> None:
        plan, backend = self._gate.decide()
        if plan.is_parallel:
            self._run_parallel(plan, backend)
        else:
            self._gate.refuse()
            self._loop()

    def _loop(self, *, carefully: bool = False) -> None:
        """Compute the rest here, or up to where workers take over."""
        try:
            for item_s in SerialLoop(self.request, self.ledger, self._evidence, self._gate).run(carefully=carefully):
                if self._promote(item_s):
                    return
        except Stopped as stopped:
            error = stopped.error
        else:
            return
        raise error

    def _promote(self, item_s: float) -> bool:
        """Decide again with what has been seen; have the rest done by workers if that is the answer."""
        source, evidence, gate = self.request.source, self._evidence, self._gate
        evidence.take_from_loop()
        was_s, is_first = evidence.profile.item_s, self.request.record.plan is None
        evidence.take_pace(item_s)
        if source.n_items is None:
            if not source.read_ahead(self.ledger.n_done, bounds.READ_BOX_S):
                return self._stream()
            self.request.record.n_items = source.n_items
        plan, backend = gate.decide()
        if not plan.is_parallel:
            gate.refuse()
            return False
        if not is_first:
            why = f"items take {item_s:.3g} s of late, {was_s:.3g} s were expected"
            what = f"go parallel: {plan.backend}, n_jobs={plan.n_jobs}"
            self.request.record.revise(what, why, self.ledger.n_done)
        self._run_parallel(plan, backend)
        return True

    def _stream(self) -> bool:
        """Hand an input that is still being produced to workers as it comes; True if that is worth it."""
        plan, backend = self._gate.decide(stream=True)
        if plan.is_parallel and not take_over(self.request, self.ledger, self._evidence, plan, backend):
            self._go_on_alone()
        return plan.is_parallel

    def _go_on_alone(self) -> None:
        """Go on as a loop at an item that no worker may have: of a kind that changes something outside."""
        self._gate.stay_for_late_items()
        self._loop(carefully=True)

    def _run_parallel(self, plan: Plan, backend: Any) -> None:
        """Give the rest to workers; where the system has none, go on as a loop."""
        source, ledger = self.request.source, self.ledger
        items = source.rest(ledger.n_done)
        self._evidence.input.warn()
        source.n_items = ledger.n_done + len(items)
        if not self._admits(plan, items):
            source.put_back(items)
            self._go_on_alone()
            return
        try:
            _dispatch.run(self.request, ledger, plan, items, backend)
        except _backend.NoWorkersError as error:
            self._gate.note_refusal(plan, error)
            source.put_back(items)
            self._loop(carefully=True)

    def _admits(self, plan: Plan, items: Sequence[Any]) -> bool:
        """Tell whether items may go to workers that could not be looked at before, such as those of an iterator."""
        request = self.request
        if plan.backend == THREADS or request.isolated or type(request.source.data) in {list, tuple}:
            return True
        if self._evidence.admits(items):
            return True
        if request.limits.n_jobs is not None:
            warn_of_late(request, self._evidence.profile, is_serial=False)
            return True
        return False
