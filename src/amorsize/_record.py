"""What a decorated function remembers between calls, what a call writes down, and the options it goes by."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from amorsize import _function, _host
from amorsize._decide import decide
from amorsize._habit import Habit
from amorsize._types import SERIAL, Limits, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amorsize._types import Costs, Host, Plan, Profile, Revision, Span


@dataclass(eq=False, repr=False, match_args=False)
class Options:
    """
    The caller's options beyond :class:`Limits`.

    Attributes:
        limits: The bounds.
        progress: True for a bar, a callable, or False.
        initializer: Called once in each worker.
        initargs: Its arguments.
    """

    limits: Limits = field(default_factory=Limits)
    progress: Any = False
    initializer: Callable[..., Any] | None = None
    initargs: tuple[Any, ...] = ()
    is_plain: bool = field(init=False)

    def __post_init__(self) -> None:
        # Nothing but speed is asked for: a short loop then needs no care.
        limits = self.limits
        asks = limits.n_jobs, limits.timeout, limits.retries or None, self.initializer, self.progress or None
        self.is_plain = limits.errors == "raise" and all(ask is None for ask in asks)


def store() -> Any:
    """Return the room that keeps profiles beyond the process, None while nothing is kept (most programs)."""
    if "amorsize._store" not in sys.modules and "AMORSIZE_CACHE_DIR" not in os.environ:
        return None
    from amorsize import _store  # noqa: PLC0415 - see above

    return _store


class State:
    """
    What a decorated function remembers; shared by its bound methods and by what ``with_options`` returns.

    Attributes:
        func: The function, without its binding.
        last: The latest call, or None.
        initialized: Whether its initializer has run in this process.
        is_checked: Whether it stands where decorators may stand.
        habit: What its recent calls add up to.
    """

    def __init__(self, func: Any) -> None:
        self.func: Any = func
        self.last: Record | None = None
        self.initialized: int = 0
        self.is_checked: bool = False
        self.habit: Habit = Habit()

    @functools.cached_property
    def key(self) -> str:
        """The stable key of the function's profile."""
        return _function.function_key(self.func)


class Record:
    """
    What a call did; becomes a :class:`Plan` when somebody asks.

    Most calls are never asked about, and a plan of a tiny call would cost more than the call.
    """

    __slots__ = (
        "actual_s", "began", "built", "costs", "head_s", "host", "limits", "n_head", "n_items", "plan", "profile",
        "rate_s", "revisions", "skipped", "spans",
    )  # fmt: skip

    def __init__(self, profile: Profile, n_items: int | None, limits: Limits, began: float) -> None:
        self.profile: Profile = profile
        self.n_items: int | None = n_items
        self.limits: Limits = limits
        self.began: float = began
        self.host: Host | None = None
        self.costs: Mapping[str, Costs] | None = None
        self.plan: Plan | None = None
        self.revisions: list[Revision] = []
        self.spans: list[Span] = []
        self.skipped: list[int] = []
        self.n_head: int = 0
        self.head_s: float = 0.0
        self.rate_s: float | None = None
        self.actual_s: float | None = None
        self.built: Plan | None = None

    @property
    def ended_s(self) -> float:
        """When the call ended, on the clock of ``began``."""
        return self.began + (self.actual_s or 0.0)

    def build(self) -> Plan:
        """Return the plan as it stands."""
        if self.built is None or self.actual_s is None or self.built.actual_s != self.actual_s:
            plan = self.plan or self._decided_to_loop()
            spans = tuple(replace(s, begin_s=s.begin_s - self.began, end_s=s.end_s - self.began) for s in self.spans)
            self.built = replace(
                plan,
                revisions=tuple(self.revisions),
                timeline=spans,
                skipped=tuple(self.skipped),
                actual_s=self.actual_s,
            )
        return self.built

    def _decided_to_loop(self) -> Plan:
        """Write down the plan of a call that was too short to think about, as the decision would have been."""
        host = self.host or _host.snapshot()
        if self.costs is not None:
            host = replace(host, costs=self.costs)
        for profile in (
            self.profile if self.rate_s is None else replace(self.profile, item_s=self.rate_s),
            self.profile,
        ):
            profile_now = replace(profile, n_head=self.n_head, head_s=self.head_s)
            plan = decide(profile_now, host, self.n_items, self.limits)
            if not plan.is_parallel:
                return plan
        # The loop ended before a look came to that, or what a first start loads was too much: what ran is what counts.
        return replace(
            plan,
            backend=SERIAL,
            n_jobs=1,
            caller_computes=False,
            predicted_s=plan.serial_s,
            speedup=1.0,
            reason=Reason.NOT_WORTH,
        )
