"""
What becomes of items whose workers died in a run through a carrier.

:class:`FlowTeam` has one of these and calls it when a task is lost, when results come, and after each look at the
answers. An item that was begun by a worker that died runs again as often as ``retries`` allows, one item at a time with
nothing beside it, so that a further death names one item; then the run goes on with all workers. Where workers die
before they begin anything, again and again, what is left fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from amorsize import _schedule as schedule
from amorsize._backend import _bounds as bounds
from amorsize._backend import _worker
from amorsize._backend._callbacks import Refused, refusing
from amorsize._backend._outcome import died_idle
from amorsize.exceptions import WorkerDied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amorsize._backend._carrier import Carrier
    from amorsize._backend._job import Job
    from amorsize._backend._outcome import Outcome


class Flow(Protocol):
    """The run whose workers die, as far as that concerns its deaths: see :class:`FlowTeam`."""

    job: Job
    carrier: Carrier
    outcome: Outcome
    limit: int
    ranges: schedule.Ranges
    chunker: schedule.Chunker
    in_flight: dict[int, tuple[int, int]]
    ready: bool
    n_jobs: int
    most_jobs: int

    def accept(self, start: int, results: list[Any], failures: Sequence[tuple[int, BaseException]]) -> None:
        """Take in the results of neighbours."""


class Deaths:
    """
    The deaths of one run, which is given with each call: if it were held, its results would live until a collection.

    Attributes:
        down_by: What the workers died of; until all that was out has come back nothing is handed out. Else empty.
        has_begun: Whether an item has been begun since the last death.
    """

    def __init__(self, n_jobs: int, ahead: int) -> None:
        self.down_by = ""
        self.has_begun = False
        self._suspects: list[int] = []
        self._is_one_by_one = False
        # Of the suspects that are run alone, those not settled yet.
        self._alone: set[int] = set()
        # What held before they were run alone: jobs at once, and how many tasks could wait for each worker.
        self._n_jobs = n_jobs
        self._ahead = ahead
        self._n_idle = 0

    def settle(self, flow: Flow) -> None:
        """Go on after a death as soon as nothing is out any more."""
        if self.down_by and not flow.in_flight:
            self._rise(flow)
        if self._suspects and not flow.in_flight:
            self._ask_one_by_one(flow)
        elif self._is_one_by_one and not self._alone:
            self._go_on_together(flow)

    def accepted(self, start: int, n_items: int) -> None:
        """Take note of items that are known now."""
        if self._alone:
            self._alone.difference_update(range(start, start + n_items))

    def drop_from(self, limit: int) -> None:
        """Forget the items at and after *limit*, which are not wanted any more."""
        self._alone = {i for i in self._alone if i < limit}

    def lost(self, flow: Flow, positions: range, error: BaseException) -> None:
        """Decide what becomes of items whose worker died; each chunk that went down with it comes here."""
        outcome = flow.outcome
        outcome.deaths += 1
        lost = [i for i in positions if i < flow.limit]
        cause = flow.carrier.broken(error) or f"{type(error).__name__}: {error}"
        # Named is all that went down, also behind an item whose failure ends the run.
        died = _died(tuple(flow.job.base + i for i in positions), cause)
        again = [i for i in lost if self._may_run_again(flow, i)]
        self._suspects += again
        for i in lost:
            if i not in again:
                flow.accept(i, [died], [(0, died)])
        if outcome.died is None:
            outcome.died = died if len(again) < len(lost) else None
        elif positions:
            outcome.died = _both(outcome.died, died)
        self.has_begun = self.has_begun or bool(positions)
        flow.ready, self.down_by = True, cause

    def _may_run_again(self, flow: Flow, position: int) -> bool:
        """
        Count one attempt of an item, and tell whether it has another.

        While chunks ran side by side nobody knows whose item it was; only from then on is each death somebody's.
        """
        attempts = flow.outcome.attempts
        if self._is_one_by_one:
            attempts[position] = attempts.get(position, 0) + 1
        return attempts.get(position, 0) < flow.job.retries

    def _rise(self, flow: Flow) -> None:
        """Have workers again after a death (of all that one pool had); give up where they die before they begin."""
        self._n_idle = 0 if self.has_begun else self._n_idle + 1
        cause, self.has_begun, self.down_by = self.down_by, False, ""
        if self._n_idle > bounds.MOST_IDLE_DEATHS:
            self._give_up(flow, died_idle(cause))
        try:
            flow.carrier.renew()
        except _worker.NoWorkersError as error:
            flow.carrier = refusing(flow.carrier.name, error)

    def _give_up(self, flow: Flow, error: WorkerDied) -> None:
        """Fail what is left: workers die before they begin anything."""
        flow.outcome.died = flow.outcome.died or error
        for i in self._suspects:
            flow.ranges.give_back(i, i + 1)
        self._suspects.clear()
        while (taken := flow.ranges.take(flow.ranges.n_left)) is not None:
            start, n_items = taken[0], taken[1] - taken[0]
            flow.accept(start, [error] * n_items, [(i, error) for i in range(n_items)])

    def _ask_one_by_one(self, flow: Flow) -> None:
        """Run what was in flight again: one item at a time, nothing beside it, so that the guilty one is named."""
        if not self._is_one_by_one:
            self._is_one_by_one, self._n_jobs = True, flow.most_jobs
            flow.chunker = schedule.Chunker(1, flow.chunker.item_s, 0.0, 1)
            flow.n_jobs = flow.most_jobs = 1
            self._ahead, flow.carrier.ahead = flow.carrier.ahead, 0
        for i in sorted(self._suspects, reverse=True):
            flow.ranges.give_back(i, i + 1)
        self._alone |= {i for i in self._suspects if i < flow.limit}
        self._suspects.clear()

    def _go_on_together(self, flow: Flow) -> None:
        """Have all workers again: of what was in flight at a death, each item has been done or has failed."""
        job = flow.job
        self._is_one_by_one = False
        flow.n_jobs = flow.most_jobs = self._n_jobs
        flow.chunker = schedule.Chunker(flow.n_jobs, flow.chunker.item_s, job.batch_overhead_s, job.batch_size)
        if not isinstance(getattr(flow.carrier, "way", None), Refused):
            flow.carrier.ahead = self._ahead


def _died(names: tuple[int, ...], cause: str) -> WorkerDied:
    return WorkerDied(f"a worker died ({cause}) while {_items(names)} were in flight", {}, names, cause)


def _both(first: WorkerDied, second: WorkerDied) -> WorkerDied:
    """Name the items of two chunks that went down together."""
    return _died(tuple(sorted({*first.in_flight, *second.in_flight})), first.cause)


def _items(indices: tuple[int, ...]) -> str:
    if not indices:
        return "no items"
    return f"item {indices[0]}" if indices[0] == indices[-1] else f"items {indices[0]} to {indices[-1]}"
