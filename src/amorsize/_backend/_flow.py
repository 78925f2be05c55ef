"""
Runs chunks through a carrier of tasks: loky's workers, threads, joblib's clusters, workers that are sent their items.

    caller ── task (parcel, items) ──► submit ──► worker: opens the parcel once, runs the items
      ▲                                              │ for at most a quantum, then returns what it has;
      └────────── queue ◄── callback ◄───────────────┘ what is left of the chunk goes back to the ranges

The caller is the only one to read the input and to hand out work; callbacks only put into a queue.

An item that was begun by a worker that died runs again as often as ``retries`` allows, one item at a time with nothing
beside it, so that a further death names one item; then the run goes on with all workers. Where workers die before they
begin anything, again and again, what is left fails.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amorsize import _pace as pace
from amorsize import _schedule as schedule
from amorsize._backend import _bounds as bounds
from amorsize._backend import _worker
from amorsize._backend._carrier import Refused, Unsendable, Work
from amorsize._backend._job import Engine, died_idle
from amorsize._bounds import CHECK_S
from amorsize._records import Span
from amorsize.exceptions import ItemTimeout, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._backend._carrier import Answer, Carrier
    from amorsize._backend._job import Job, Outcome

# The number of the task that only tells that a worker is up.
_HELLO: Final = -1


class FlowTeam(Engine):
    """The caller's side of a run through a carrier."""

    # Whether results share no memory: of a map all are kept anyway.
    apart = False

    def __init__(self, job: Job, carrier: Carrier, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(job, clock)
        self.carrier = carrier
        self.ranges = schedule.Ranges(0, self.n_items, without=job.first)
        for i in reversed(job.first):
            self.ranges.give_back(i, i + 1)
        self.chunker = schedule.Chunker(job.n_jobs, job.item_s, job.batch_overhead_s, job.batch_size)
        self.in_flight: dict[int, tuple[int, int]] = {}
        self.ready = not job.is_cold
        # Chunks that run at once now, fewer while memory is short, and the most that may.
        self.n_jobs = self.most_jobs = job.n_jobs
        self.deaths = Deaths(job.n_jobs, carrier.ahead)
        self._serial = 0

    def run(self) -> Outcome:
        """Do the job; results, failures and measurements are in the outcome. Raises what interrupts the caller."""
        try:
            if not self.ready:
                self._start_while_working()
            while not self.is_done():
                self.top_up()
                if not self.in_flight and not self.ranges.n_left:
                    break
                self.take(bounds.HOUSEKEEPING_S)
            self.hear_out()
        finally:
            self.close()
        return self.outcome

    def close(self) -> None:
        """Give back what the run holds."""
        if self.job.parcel is not None:
            self.job.parcel.close()

    def hear_out(self) -> None:
        """After a death that ends the run, take in what went down with it: whose item it was, nobody knows yet."""
        deadline = self.clock() + bounds.LAST_WORDS_S
        while self.outcome.died is not None and self.in_flight and (left_s := deadline - self.clock()) > 0:
            self.take(left_s)

    def _start_while_working(self) -> None:
        """
        Start workers and go on computing until one of them has finished a chunk.

        Nothing is handed over before one answers that it has opened the parcel, the function's module imported; and the
        caller goes on until results come home.
        """
        for _ in range(self.n_jobs):
            self.carrier.submit(_HELLO, self.carrier.task(self.job, Work(0, [], 0.0, 1)))
        block = pace.first_block(self.job.item_s)
        while not self.outcome.n_chunks and not self.is_done():
            if self.ready:
                self.top_up(ahead=0)
            taken = self.ranges.take(block) if self.job.caller_may_compute else None
            if taken is None:
                if self.ready and not self.in_flight:
                    return
                self.take(bounds.HOUSEKEEPING_S)
                continue
            begin = self.clock()
            start, stop = taken
            done, failed = self.job.run_here(_worker.cut(self.job.items, start, stop))
            end = self.clock()
            self.ranges.give_back(start + len(done), stop)
            self.accept(start, done, failed)
            self._note("caller", begin, end, start, len(done))
            block = pace.next_block(block, end - begin, 2 * CHECK_S)
            self.chunker.observe(len(done), end - begin)
            self.take(0)

    def _note(self, lane: str, begin: float, end: float, start: int, n_items: int) -> None:
        spans = self.outcome.spans
        last = spans[-1] if spans else None
        if last is not None and last.lane == lane and begin - last.end_s < CHECK_S:
            begin, start, n_items = last.begin_s, last.start - self.job.base, last.n_items + n_items
            spans.pop()
        spans.append(Span(lane=lane, begin_s=begin, end_s=end, start=self.job.base + start, n_items=n_items))

    def top_up(self, ahead: int | None = None) -> None:
        """Hand out chunks until every worker has one and, where the carrier allows it, some waiting."""
        if self.deaths.down_by:
            return
        most = self.most_in_flight(self.carrier.ahead if ahead is None else ahead)
        while len(self.in_flight) < most:
            taken = self.ranges.take(1 if self.job.timeout is not None else self.chunker.size(self.ranges.n_left))
            if taken is None:
                return
            self._submit(*taken)

    def most_in_flight(self, ahead: int) -> int:
        """Return the tasks that may be out: with *ahead* waiting for each worker, where none is to have nothing."""
        is_tight = self.n_jobs < self.most_jobs  # what waits would be taken by the worker that is to have nothing
        return self.n_jobs * (1 if is_tight or self.job.timeout is not None else 1 + ahead)

    def _submit(self, start: int, stop: int) -> None:
        job = self.job
        self._serial += 1
        number = self._serial
        # A fixed batch_size is one chunk whatever it takes.
        quantum_s = 1e9 if job.batch_size is not None else self.chunker.quantum_s
        block = pace.first_block(self.chunker.item_s)
        work = Work(job.base + start, _worker.cut(job.items, start, stop), quantum_s, block)
        try:
            task = self.carrier.task(job, work)
        except Unsendable as error:
            self._divide(start, stop, error)
            return
        self.in_flight[number] = (start, stop)
        self.carrier.submit(number, task)

    def _divide(self, start: int, stop: int, error: Unsendable) -> None:
        """Find the items that cannot be pickled: the caller does these, as the loop would; the others are sent."""
        if stop - start > 1:
            middle = (start + stop) // 2
            self._submit(start, middle)
            if middle < self.limit:
                self._submit(middle, min(stop, self.limit))
            return
        job = self.job
        if job.timeout is not None or job.retries:
            why = f"it cannot be sent: {error}"
            self.tell(f"item {job.base + start} runs in this process, without timeout and retries: {why}")
        self._do_here(start, stop)

    def _do_here(self, start: int, stop: int) -> None:
        """Run items that cannot be sent in the caller."""
        done, failed = self.job.run_here(_worker.cut(self.job.items, start, stop))
        self.ranges.give_back(start + len(done), stop)
        self.accept(start, done, failed)

    def take(self, timeout_s: float) -> None:
        """Take in answers; waits at most *timeout_s* for the first."""
        job = self.job
        if job.check is not None:
            job.check()
        self.n_jobs = self.n_wanted(self.n_jobs, self.most_jobs)
        self.report()
        for answer in self.carrier.take(timeout_s):
            self._answer(answer)
        self.deaths.settle(self)

    def _answer(self, answer: Answer) -> None:
        if answer.number == _HELLO:
            self._greet(answer)
            return
        start, stop = self.in_flight.pop(answer.number)
        if answer.error is not None:
            self._failed_chunk(start, stop, answer)
            return
        result = answer.result
        if isinstance(result.results, bytes | bytearray | memoryview):
            n_bytes = len(result.results) + sum(len(buffer) for buffer in result.buffers)
            results, failures = _worker.unpack(
                result.results, result.buffers, start=self.job.base + start, apart=self.apart
            )
        else:
            n_bytes = 0
            results, failures = result.results
        self.outcome.received(result.n_items, n_bytes)
        self.deaths.has_begun = True
        self.chunker.observe(result.n_items, result.end_s - result.begin_s)
        self._note(result.lane, result.begin_s, result.end_s, start, result.n_items)
        if start + result.n_items < stop:
            self.ranges.give_back(start + result.n_items, min(stop, self.limit))
        self.accept(start, results, failures)

    def _greet(self, answer: Answer) -> None:
        """Take note of a worker that is up; a cold one's first answer is what a start costs."""
        if not self.ready:
            self.ready = True
            self.outcome.start_s = self.clock() - self.began
        if answer.error is None or isinstance(answer.error, _worker.StaleCode | _worker.NoWorkersError):
            return  # other code in the worker: the first chunk will say so too, and the function then goes by value
        if not self.outcome.deaths:
            self.deaths.lost(self, range(0), answer.error)

    def accept(self, start: int, results: list[Any], failures: Sequence[tuple[int, BaseException]]) -> None:
        """Take in the results of neighbours."""
        self.deaths.accepted(start, len(results))
        super().accept(start, results, failures)

    def drop_from(self, position: int) -> None:
        """Forget the work at and after a position."""
        self.ranges.drop_from(position)
        self.deaths.drop_from(position)

    def _failed_chunk(self, start: int, stop: int, answer: Answer) -> None:
        """Handle a task that did not return: other code in the worker, a dead worker, or a fault of the way."""
        error = answer.error
        assert error is not None  # noqa: S101 - for the type checker
        if isinstance(error, _worker.UnsendableFunctionError):
            self._stay(error, str(error))
            self.ranges.give_back(start, min(stop, self.limit))
        elif isinstance(error, _worker.NoWorkersError):
            self.outcome.is_refused = True
            self.tell(f"{self.carrier.name} workers cannot be started: {error}; items run in this process")
            if not self.in_flight:  # the next chunk would be refused too, after an attempt that takes time
                self.carrier = Refused(self.carrier.name, error)
            self._do_here(start, min(stop, self.limit))
        elif isinstance(error, _worker.StaleCode) and self._use_value():
            self.ranges.give_back(start, min(stop, self.limit))
        elif self.carrier.broken(error):
            middle = stop if answer.n_begun is None else min(stop, start + answer.n_begun)
            self.ranges.give_back(middle, min(stop, self.limit))
            self.deaths.lost(self, range(start, middle), error)
        elif stop - start == 1 or isinstance(error, ItemTimeout):
            self.ranges.give_back(start + 1, min(stop, self.limit))
            self.accept(start, [error], [(0, error)])
        else:
            # An error of the way (unpickling in the worker, say) says nothing about which item: ask one by one.
            self.chunker = schedule.Chunker(self.n_jobs, self.chunker.item_s, 0.0, 1)
            self.ranges.give_back(start, min(stop, self.limit))

    def _use_value(self) -> bool:
        """Send the function by value from now on, and what it uses of modules; False if it cannot be."""
        job = self.job
        if job.repack is None or job.parcel is None:
            return False
        if not job.parcel.has_helpers:
            job.parcel.close()
            try:
                self.job = replace(job, parcel=job.repack())
            except _worker.UnsendableFunctionError as error:
                self._stay(error, f"the workers have other code, and the function cannot be pickled: {error}")
        return True

    def _stay(self, error: _worker.UnsendableFunctionError, why: str) -> None:
        """Have the caller do what is left."""
        self.tell(f"items run in this process: {why}")
        if not isinstance(self.carrier, Refused):
            self.carrier = Refused(self.carrier.name, error, before=self.carrier)


# -- deaths ------------------------------------------------------------------------------------------------------------


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

    def settle(self, flow: FlowTeam) -> None:
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

    def lost(self, flow: FlowTeam, positions: range, error: BaseException) -> None:
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
            # Two chunks that went down together.
            outcome.died = _died(tuple(sorted({*outcome.died.in_flight, *died.in_flight})), outcome.died.cause)
        self.has_begun = self.has_begun or bool(positions)
        flow.ready, self.down_by = True, cause

    def _may_run_again(self, flow: FlowTeam, position: int) -> bool:
        """
        Count one attempt of an item, and tell whether it has another.

        While chunks ran side by side nobody knows whose item it was; only from then on is each death somebody's.
        """
        attempts = flow.outcome.attempts
        if self._is_one_by_one:
            attempts[position] = attempts.get(position, 0) + 1
        return attempts.get(position, 0) < flow.job.retries

    def _rise(self, flow: FlowTeam) -> None:
        """Have workers again after a death (of all that one pool had); give up where they die before they begin."""
        self._n_idle = 0 if self.has_begun else self._n_idle + 1
        cause, self.has_begun, self.down_by = self.down_by, False, ""
        if self._n_idle > bounds.MOST_IDLE_DEATHS:
            self._give_up(flow, died_idle(cause))
        try:
            flow.carrier.renew()
        except _worker.NoWorkersError as error:
            flow.carrier = Refused(flow.carrier.name, error)

    def _give_up(self, flow: FlowTeam, error: WorkerDied) -> None:
        """Fail what is left: workers die before they begin anything."""
        flow.outcome.died = flow.outcome.died or error
        for i in self._suspects:
            flow.ranges.give_back(i, i + 1)
        self._suspects.clear()
        while (taken := flow.ranges.take(flow.ranges.n_left)) is not None:
            start, n_items = taken[0], taken[1] - taken[0]
            flow.accept(start, [error] * n_items, [(i, error) for i in range(n_items)])

    def _ask_one_by_one(self, flow: FlowTeam) -> None:
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

    def _go_on_together(self, flow: FlowTeam) -> None:
        """Have all workers again: of what was in flight at a death, each item has been done or has failed."""
        job = flow.job
        self._is_one_by_one = False
        flow.n_jobs = flow.most_jobs = self._n_jobs
        flow.chunker = schedule.Chunker(flow.n_jobs, flow.chunker.item_s, job.batch_overhead_s, job.batch_size)
        if not isinstance(flow.carrier, Refused):
            flow.carrier.ahead = self._ahead


def _died(names: tuple[int, ...], cause: str) -> WorkerDied:
    return WorkerDied(f"a worker died ({cause}) while {_items(names)} were in flight", {}, names, cause)


def _items(indices: tuple[int, ...]) -> str:
    if not indices:
        return "no items"
    return f"item {indices[0]}" if indices[0] == indices[-1] else f"items {indices[0]} to {indices[-1]}"
