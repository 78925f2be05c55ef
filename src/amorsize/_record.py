"""What a decorated function remembers between calls, and what a call writes down."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from amorsize import _function, _host, _known
from amorsize._backend import MISSING
from amorsize._decide import decide
from amorsize._records import SERIAL, Revision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amorsize._analysis import Dependencies
    from amorsize._backend._job import Outcome
    from amorsize._plans import Plan
    from amorsize._records import Costs, Host, Limits, Profile, Span


def store() -> Any:
    """Return the room that keeps profiles beyond the process, None while nothing is kept (most programs)."""
    return opened_store() if "amorsize._store" in sys.modules or "AMORSIZE_CACHE_DIR" in os.environ else None


def opened_store() -> Any:
    """Return that room, which few programs need."""
    from amorsize import _store  # noqa: PLC0415 - 3 ms

    return _store


# What tells one way of doing the work from another.
_WAY = ("backend", "n_jobs", "caller_computes")


class State:
    """
    What a decorated function remembers; shared by its bound methods and by what ``with_options`` returns.

    Attributes:
        func: The function, without its binding.
        last: The latest call, or None.
        initialized: Whether its initializer has run in this process.
        is_checked: Whether it stands where decorators may stand.
        settled: For how many items looping was decided, and found right, and until when that is gone by.
        watched: What the function could reach when its items were watched, and the names of what they changed.
    """

    def __init__(self, func: Any) -> None:
        self.func: Any = func
        self.last: Record | None = None
        self.initialized: int = 0
        self.is_checked: bool = False
        self.settled: tuple[int | None, float] = (None, 0.0)
        self.watched: tuple[Dependencies, tuple[str, ...]] | None = None

    @functools.cached_property
    def key(self) -> str:
        """The stable key of the function's profile."""
        key = _function.function_key(self.func)
        _known.CACHE.call_it(key, self.func)
        return key

    def is_settled(self, n_items: int) -> bool:
        """Tell whether looping over as many items was decided a moment ago, and found right."""
        return self.settled[0] == n_items and perf_counter() < self.settled[1]


class Record:
    """
    What a call did; becomes a :class:`Plan` when somebody asks.

    Most calls are never asked about, and a plan of a tiny call would cost more than the call.
    """

    __slots__ = (
        "actual_s", "began", "built", "costs", "fell_back", "head_s", "host", "limits", "more_s", "n_failed", "n_head",
        "n_items", "outside_s", "plan", "profile", "ran", "rate_s", "revisions", "skipped", "so_far", "spans",
        "unavailable",
    )  # fmt: skip

    def __init__(self, profile: Profile, n_items: int | None, limits: Limits, began: float) -> None:
        self.profile: Profile = profile
        self.n_items: int | None = n_items
        self.limits: Limits = limits
        self.began: float = began
        # What a call that is too short to think about goes by: the latest reading, if there is one, the costs as known
        # now, what cannot be used as far as that was looked into, and the seconds that reading takes where there is
        # none. Its plan is made of them when somebody asks.
        self.host: Host | None = _host.latest()
        self.costs: Mapping[str, Costs] = _host.BOOK.known
        self.unavailable: Mapping[str, str] = {}
        self.more_s: float = _host.unread_s()
        self.plan: Plan | None = None
        # Returns what is known of the function, while the call runs.
        self.so_far: Callable[[], Profile] | None = None
        # What was carried out in the end, if that was parallel; whether workers could not be had after all; and, of a
        # stream, the seconds that its consumer kept it waiting.
        self.ran: Plan | None = None
        self.fell_back: bool = False
        self.outside_s: float = 0.0
        self.revisions: list[Revision] = []
        self.spans: list[Span] = []
        self.skipped: list[int] = []
        self.n_failed: int = 0
        self.n_head: int = 0
        self.head_s: float = 0.0
        self.rate_s: float | None = None
        self.actual_s: float | None = None
        self.built: Plan | None = None

    def note_failure(self, index: int, error: BaseException) -> Any:
        """Note that an item of a stream has failed; returns what stands for its result."""
        self.n_failed += 1
        return self.left_over(index, error)

    def left_over(self, index: int, error: BaseException) -> Any:
        """Return what stands for the result of an item that has failed: its exception, or that it is left out."""
        if self.limits.errors != "skip":
            return error
        self.skipped.append(index)
        return MISSING

    def revise(self, what: str, why: str, n_done: int, at_s: float | None = None) -> None:
        """Note a change of plan, now or *at_s* seconds after the call began."""
        at_s = perf_counter() - self.began if at_s is None else at_s
        self.revisions.append(Revision(at_s=at_s, n_done=n_done, what=what, why=why))

    def note_plan(self, plan: Plan) -> None:
        """Keep a decision as the one that last_plan replays."""
        self.plan, self.profile, self.host = plan, plan.profile, plan.host

    def note_run(self, outcome: Outcome) -> None:
        """Take in who did what in a run of workers; none of it counts as theirs if the system gave none."""
        self.spans += outcome.spans
        self.fell_back = outcome.is_refused and not outcome.busy_items

    def build(self) -> Plan:
        """Return the plan as it stands."""
        if self.built is None or self.actual_s is None or self.built.actual_s != self.actual_s:
            plan = self._as_done(self.plan or self._decided_to_loop())
            spans = tuple(replace(s, begin_s=s.begin_s - self.began, end_s=s.end_s - self.began) for s in self.spans)
            self.built = replace(
                plan,
                revisions=tuple(self.revisions),
                timeline=spans,
                skipped=tuple(self.skipped),
                n_failed=self.n_failed,
                actual_s=self.actual_s,
            )
        return self.built

    def _as_done(self, plan: Plan) -> Plan:
        """Return the plan with what was done in place of what had been decided, where that is something else."""
        if self.fell_back and plan.is_parallel:
            return _looped(plan)
        ran = self.ran
        if ran is None or self.fell_back or all(getattr(ran, name) == getattr(plan, name) for name in _WAY):
            return plan
        return replace(plan, decided=plan, **{name: getattr(ran, name) for name in (*_WAY, "batch_size")})

    def _decided_to_loop(self) -> Plan:
        """Make the plan of a call that was too short to think about, of what it went by."""
        host = self.host or _host.snapshot()  # never read before: its CPUs and memory are no part of what it went by
        # The reading is a part of every start that would have followed from it.
        costs = {name: replace(known, start_s=known.start_s + self.more_s) for name, known in self.costs.items()}
        profile = self.profile if self.rate_s is None else replace(self.profile, item_s=self.rate_s)
        n_head, head_s, so_far = self.n_head, self.head_s, self.so_far
        if so_far is not None and self.actual_s is None:  # asked while it runs
            profile = so_far()
            n_head, head_s = profile.n_head, profile.head_s
            if not profile.is_timed:
                head_s = perf_counter() - self.began
        profile = replace(profile, n_head=n_head, head_s=head_s)
        plan = decide(profile, replace(host, costs=costs, unavailable=self.unavailable), self.n_items, self.limits)
        # A loop can end before a look at the clock comes to what the decision would have come to.
        return _looped(plan) if plan.is_parallel else plan


def _looped(plan: Plan) -> Plan:
    """Return a plan that was carried out as a loop, whatever had been decided."""
    return replace(plan, backend=SERIAL, n_jobs=1, caller_computes=False, decided=plan)
