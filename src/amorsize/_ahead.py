"""
Workers for the rest of a call while its first item still runs.

    caller    ── first item ────────────────────────────► computes too, takes in results
    watcher      sleeps, looks at the code, asks for workers, ends
    workers                                 ── second item, third item ...

Of a function that has never been mapped nothing is known until its first item has returned. Where that takes ten
seconds and there are eight items and eight cores, a pool is done when the first item is, and who waits for it takes
twice as long.

The watcher is a thread of this call, started before the first item and ended with it. It wakes once that item has
turned out long. By then only the code tells what the function does, so nothing is begun unless the code proves that
items neither change nor prepare anything that other items see. The workers are the fork server's: nothing is forked
from within the item.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from amorsize import _backend, _dispatch, _profile, _weigh
from amorsize import _bounds as bounds
from amorsize._analysis import known_dependencies, of_each_kind
from amorsize._analysis.observation import Observation, shared_by
from amorsize._gate import decide_here, warn_of
from amorsize._outside import pass_on, signals_held
from amorsize._plans import Reason
from amorsize._records import FORKSERVER, Profile
from amorsize._source import is_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amorsize._analysis import Dependencies
    from amorsize._backend._team import Team
    from amorsize._evidence import Evidence
    from amorsize._gate import Gate
    from amorsize._plans import Plan
    from amorsize._request import Ledger, Request
    from amorsize._source import Source

clock = time.perf_counter

# Reasons of a decision that more seconds of the first item can change.
_OPEN: Final = frozenset({Reason.NOT_WORTH, Reason.TRANSFER_BOUND, Reason.TOO_FAST})


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Begun:
    """
    What has been begun ahead.

    Attributes:
        plan: What it was decided by: of the seconds per item only the least was known.
        items: All items but the first.
        team: The workers at them.
        head_s: Seconds of the first item before.
        may_fork: Whether workers can be had sooner, now that the first item has ended, than from a server that starts.
        before: What function and items were when the workers were given them.
    """

    plan: Plan
    items: Sequence[Any]
    team: Team
    head_s: float
    may_fork: bool
    before: Observation

    def is_too_late(self) -> bool:
        """Tell whether forked workers would be there before these."""
        state = _backend.server_state()
        return self.may_fork and (state is None or state[1] > 0)


def is_few(source: Source) -> bool:
    """Tell whether there are so few items that each of them is a large part of the call."""
    return source.n_items is not None and source.n_items <= bounds.FEW_PER_CPU * (os.cpu_count() or 1)


def first_item(request: Request, evidence: Evidence) -> tuple[Begun | None, bool]:
    """Run the first item; returns what workers have begun with meanwhile, and whether the item imported modules."""
    n_modules = len(sys.modules)
    watch = watcher(request)
    if watch is None:
        evidence.sample(1)
        return None, len(sys.modules) != n_modules
    watch.start()
    try:
        evidence.sample(1)
    except BaseException:
        watch.cancel()
        raise
    begun = watch.end()
    if begun is not None and evidence.is_watched(1) and evidence.profile.mutates:
        begun.team.close(kill=True)  # a library has drawn from a generator that the program shares
        begun = None
    if (cpu_fraction := watch.cpu_fraction()) is not None:
        evidence.take_cpu(cpu_fraction)
    return begun, len(sys.modules) != n_modules + watch.n_modules


def go_on(begun: Begun, request: Request, ledger: Ledger, gate: Gate) -> bool:
    """Finish what workers have begun with, if it still pays now that the first item is known."""
    try:
        # One that found nothing does not tell whether what the others find can be sent. And the loop would go on with
        # what other threads, or handlers of signals, have set while it ran.
        is_telling = ledger.results[0] is not None and not begun.is_too_late() and not begun.before.changed()
        plan = gate.decide_again(begun.plan.host, begun.head_s) if is_telling else None
    except BaseException:
        begun.team.close(kill=True)
        raise
    if plan is None or plan.backend != begun.plan.backend:
        # The first result cannot be sent, say. What has been begun changes nothing that others see, and is done again.
        begun.team.close(kill=True)
        return False
    gate.note(plan)
    warn_of(plan, request)
    _dispatch.go_on(request, ledger, plan, begun.items, begun.team)
    return True


def _is_sliced(data: Any) -> bool:
    return type(data) in {list, tuple, range} or is_array(data)


def watcher(request: Request) -> Ahead | None:
    """Return the watcher of a call's first item, not started; None where no workers could be had from it."""
    source, limits = request.source, request.limits
    if not is_few(source) or (source.n_items or 0) < 2 or not _is_sliced(source.data):
        return None
    # Before the first item has ended nobody knows its memory. And an awaited call takes turns with others.
    if limits.n_jobs == 1 or limits.max_memory is not None or request.check is not None or request.keeper is not None:
        return None
    if limits.prefer == "threads" or limits.start_method not in {None, FORKSERVER}:
        return None
    if request.options.initializer is not None or _backend.context() != (None, None, None):
        return None
    if _backend.in_worker() or _backend.server_blocker():
        return None
    return Ahead(request)


class Ahead:
    """
    Watches the first item of one call.

    Attributes:
        n_modules: How many modules have been imported while it was at work.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        # Found here: in another thread there are none to be seen.
        self._handlers = _backend.handlers()
        self._may_fork = request.limits.start_method is None and threading.active_count() == 1
        self._over, self._done = _thread.allocate_lock(), _thread.allocate_lock()
        self._is_at_work = False
        self._worker: threading.Thread | None = None
        self._n_modules = len(sys.modules)
        self.n_modules = 0
        self._begun: Begun | None = None
        self._caller = threading.get_native_id()
        self._scheduled: tuple[float, tuple[float, float] | None] = 0.0, None
        self._began, self._peak_bytes = clock(), _profile.peak_bytes()

    def start(self) -> None:
        """Watch, from a thread that nobody else sees; where the system gives none, nothing is begun ahead."""
        self._over.acquire()
        self._done.acquire()
        try:
            # Not threading.Thread: that waits for the new thread's first turn, .1 ms of each first call.
            _thread.start_new_thread(self._watch, ())
        except RuntimeError as error:
            pass_on(error)

    def end(self) -> Begun | None:
        """End the watch; returns what it has begun."""
        self._over.release()
        if self._is_at_work:
            with signals_held():
                self._done.acquire()
                if self._worker is not None:
                    self._worker.join()
        return self._begun

    def cpu_fraction(self) -> float | None:
        """
        Return the share of its seconds in which the first item computed, of those it had a core; None if as sampled.

        What the watcher does takes the interpreter's lock from the caller now and then, which looks as if it waited.
        """
        now_s, then = clock(), self._scheduled[1]
        now = None if then is None else _profile.scheduled_s(self._caller)
        if then is None or now is None:
            return None
        could_s = now_s - self._scheduled[0] - (now[1] - then[1])
        return max(0.0, min(1.0, (now[0] - then[0]) / max(could_s, 1e-9)))

    def cancel(self) -> None:
        """End the watch, and what it has begun."""
        if (begun := self.end()) is not None:
            begun.team.close(kill=True)

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Sleep until the first item has turned out long, then have another thread do what there is to do."""
        if self._over.acquire(timeout=bounds.LONG_FIRST_S):
            return
        # First this, then another look: the caller ends the watch first, and then looks for this.
        self._is_at_work = True
        if not self._over.acquire(blocking=False):
            # A thread that threading does not know would be known to it for ever, once it asks who it is.
            worker = threading.Thread(target=self._work, name="amorsize-ahead", daemon=True)
            with contextlib.suppress(RuntimeError):  # the system gives no thread, or the interpreter is ending
                worker.start()
                self._worker = worker
        self._done.release()

    def _work(self) -> None:
        n_modules = len(sys.modules)
        if n_modules != self._n_modules:
            return  # the item loads what all need: it is long for that, and each worker would load it again
        try:
            self._scheduled = clock(), _profile.scheduled_s(self._caller)
            elapsed_s = clock() - self._began
            while self._look(elapsed_s) and not self._over.acquire(timeout=elapsed_s):
                elapsed_s = clock() - self._began
        except Exception as error:  # noqa: BLE001 - the call goes on as without a watcher
            pass_on(error)
        finally:
            self.n_modules = len(sys.modules) - n_modules

    def _look(self, elapsed_s: float) -> bool:
        """Begin with the rest if that pays; returns whether to look again."""
        request = self._request
        data = request.source.data
        has_objects = type(data) in {list, tuple} or (is_array(data) and data.dtype.hasobject)
        items = of_each_kind(data, bounds.WATCH_SHARED) if has_objects else data[1:3]
        found = known_dependencies(request.func, items)
        if not (found.is_closed and found.effects.is_proved) or shared_by(items):
            return False
        peak_bytes = max(0, _profile.peak_bytes() - self._peak_bytes)
        profile = Profile(n_sampled=1, item_s=elapsed_s, first_s=elapsed_s, peak_bytes=peak_bytes)
        profile = _weigh.inspect_function(profile, request.func, found)
        profile = _weigh.weigh(profile, data[1:3], (), _backend.dumps_by_value)
        plan, _ = decide_here(request.func, profile, request.source.n_items, request.limits)
        if plan.backend != FORKSERVER:
            return plan.reason in _OPEN
        # Once the first item has ended workers can perhaps be forked: they would be there before a server that starts.
        if self._may_fork and elapsed_s < plan.host.costs[FORKSERVER].start_s:
            return True
        self._begin(plan, found)
        return False

    def _begin(self, plan: Plan, found: Dependencies) -> None:
        items = self._request.source.rest(1)
        before = Observation(found, (self._request.source.data, *items), pickles=False, whole=True)
        job = replace(_dispatch.describe(self._request, 1, plan, items, None), handlers=self._handlers)
        head_s = clock() - self._began
        self._begun = Begun(plan, items, _backend.begin_ahead(job), head_s, self._may_fork, before)
