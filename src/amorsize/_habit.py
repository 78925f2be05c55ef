"""
What short calls of one function in quick succession add up to. Decides nothing: says when a decision is worth its time.

No call of 3 ms is worth starting workers for, but a thousand of them are: the break-even rule of ski rental. Each call
that runs as a loop notes what it would have saved with workers that are there; once that comes to several starts,
the start has been paid for. Workers that were started in vain, or answer too late to gain anything, double the price.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amorsize import _cost as cost

if TYPE_CHECKING:
    from amorsize._types import Limits, Plan

# Seconds of work below which workers that wait are left alone: a decision takes 0.2 ms.
LEAST_KEPT_S: Final = 1e-3

# Seconds for which a decision holds for calls like it: as long as a reading of CPUs and memory does.
HOLDS_S: Final = 1.0

# Share by which items may take longer or shorter than when it was made.
SAME: Final = 0.2

# How many times the cost of a start must have been missed: at first, so that a handful of calls never pays for more of
# them; and at most.
FIRST_PATIENCE: Final = 2.0
MOST_PATIENCE: Final = 64.0


class Habit:
    """
    The recent calls of one function.

    Attributes:
        settled: The number of items for which looping has been decided and found right, or None.
        is_kept: Whether workers waited for another call at the end of the last one.
        could_s: Seconds that a call like the last one would save with workers that are there.
        missed_s: Seconds that calls in quick succession have missed so far.
        patience: How many times the cost of a start must have been missed.
        plan: What the last call did, while its workers wait.
        decided_s: When that was decided, on the clock of the calls.
    """

    __slots__ = ("could_s", "decided_s", "is_kept", "missed_s", "patience", "plan", "settled")

    def __init__(self) -> None:
        self.settled: int | None = None
        self.is_kept: bool = False
        self.could_s: float = 0.0
        self.missed_s: float = 0.0
        self.patience: float = FIRST_PATIENCE
        self.plan: Plan | None = None
        self.decided_s: float = 0.0

    def is_worth_a_thought(self, n_items: int, expected_s: float, gap_s: float, start_s: float) -> bool:
        """
        Tell whether a decision may be worth its time; counts what the call misses.

        Args:
            n_items: Items of the call.
            expected_s: Seconds that the loop is expected to take.
            gap_s: Seconds since the last call; infinite if there was none.
            start_s: Seconds that starting workers takes.
        """
        if expected_s < cost.FLOOR_S:
            return False
        if gap_s > cost.STANDBY_SURE_S:
            self.missed_s, self.is_kept = 0.0, False
        elif self.is_kept:
            return expected_s >= LEAST_KEPT_S
        elif self.could_s > 0:
            self.missed_s += self.could_s
            if self.missed_s >= self.patience * start_s:
                return True
        return expected_s >= start_s and self.settled != n_items

    @property
    def is_due(self) -> bool:
        """Whether workers wait, or a start of workers may have been paid for: reasons to think again."""
        return self.is_kept or self.missed_s > 0

    @property
    def paid_s(self) -> float:
        """Seconds of a start of workers that count as paid."""
        return self.missed_s / self.patience

    def as_before(self, n_items: int | None, item_s: float, limits: Limits, now: float) -> Plan | None:
        """Return the plan of the last call if this one is like it and its workers wait; None: decide anew."""
        plan = self.plan
        if plan is None or not self.is_kept or plan.n_items != n_items or plan.limits is not limits:
            return None
        if plan.profile.n_head:
            return None  # it began with a sample
        if now - self.decided_s > HOLDS_S or abs(item_s - plan.profile.item_s) > SAME * plan.profile.item_s:
            return None
        return plan

    def looped(self, settled: int | None, could_s: float) -> None:
        """Note a call that ran as a loop: whether that is settled, and what it could have saved."""
        # After a thought in vain, nothing is counted until the function has been looked at anew.
        self.could_s = 0.0 if self.is_due else could_s
        self.settled = settled
        self.missed_s, self.is_kept, self.plan = 0.0, False, None

    def went_parallel(self, plan: Plan, could_s: float, now: float, *, gains: bool, stays: bool) -> None:
        """Note a call that had workers: whether it was faster than the loop, and whether they stay."""
        was_kept, was_paid = self.is_kept, self.missed_s > 0
        in_vain = was_kept and not gains
        if in_vain or was_paid:
            self.patience = min(MOST_PATIENCE, 2 * self.patience)
        elif was_kept:
            self.patience = max(1.0, self.patience / 2)
        self.is_kept = stays and not in_vain
        self.settled = plan.n_items if in_vain else None
        if plan is not self.plan:
            self.plan, self.decided_s = plan, now
        self.could_s = could_s if in_vain else 0.0
        self.missed_s = 0.0
