"""One call of ``joblib.Parallel`` under amorsize: the caller computes until the evidence speaks for workers."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from amorsize import _cost as cost
from amorsize import _pace as pace
from amorsize import _schedule as schedule
from amorsize._backend import _bounds as bounds
from amorsize._backend._carrier import Unsendable
from amorsize._backend._weights import Weights, kind_of, shared, weigh
from amorsize._records import THREADS, Profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._backend._joblib_workers import Workers
    from amorsize._records import Costs

logger = logging.getLogger("amorsize")
clock = time.perf_counter

# Items that are left where nobody knows.
_UNKNOWN: Final = 1 << 40


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class _Seen:
    """What the latest call over tasks of one kind came to: seconds per task, how many, and what they weigh."""

    item_s: float
    n_items: int
    weights: Weights | None


_seen: dict[str, _Seen] = {}


class Job:
    """One batch: waiting, being computed by the caller, sent, or done."""

    __slots__ = ("batch", "callback", "error", "is_done", "is_sent", "result")

    def __init__(self, batch: Any, callback: Callable[[Any], None]) -> None:
        self.batch = batch
        self.callback = callback
        self.is_sent = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_done = threading.Event()


class Evidence:
    """What a call has seen of its items so far: those that the caller has computed."""

    def __init__(self, max_nbytes: int | None) -> None:
        self.n_items = 0
        self.spent_s = 0.0
        self.block = 1
        self.weights: Weights | None = None
        self._max_nbytes = max_nbytes
        self._cpu_s = 0.0
        self._first_s = 0.0
        self._n_batches = 0
        self._longest = (0.0, 0)  # seconds and items of a batch
        self._first: tuple[Any, Any, Any] | None = None

    def observe(self, batch: Any, results: list[Any], took_s: float, cpu_s: float) -> None:
        """Take in what a batch took."""
        n_items = len(batch)
        if self.n_items == 0:
            self._first_s = took_s / n_items
        self.n_items += n_items
        self.spent_s += took_s
        self._n_batches += 1
        self._longest = max(self._longest, (took_s, n_items))
        self._cpu_s += cpu_s
        self.block = pace.next_block(n_items, took_s, bounds.BATCH_HERE_S)
        if self._first is not None and self.weights is not None:
            self.weights = shared(self.weights, self._first, batch.items[0], self._max_nbytes)
            self._first = None
        elif self.weights is None and took_s / n_items >= 1e-4:  # lighter items are weighed when it matters
            first = self._first = batch.items[0]
            self.weights = weigh(first, results[0], self._max_nbytes)

    def forget_items(self) -> None:
        """Hold on to no task."""
        self._first = None

    def item_s(self) -> float:
        """Return seconds per item as seen here; the first is left out once there are others."""
        if self.n_items > 1 and self._first_s < self.spent_s:
            return (self.spent_s - self._first_s) / (self.n_items - 1)
        return self.spent_s / max(1, self.n_items)

    def lasting_item_s(self) -> float:
        """
        Return the seconds per item that later calls may go by; 0 where nothing says them.

        Without the longest batch: another program may have had the core. Of one or two batches none can be left out,
        and short ones say nothing.
        """
        if self._n_batches > 2:
            longest_s, n_longest = self._longest
            return (self.spent_s - longest_s) / (self.n_items - n_longest)
        return self.item_s() if self.spent_s >= bounds.REMEMBER_FROM_S else 0.0

    def profile(self, item_s: float) -> Profile:
        """Return what a decision goes by, with *item_s* seconds expected of each item."""
        weights = self.weights or Weights()
        fraction = self._cpu_s / self.spent_s if self.spent_s > 1e-3 else 1.0
        return Profile(
            n_sampled=max(1, self.n_items),
            item_s=item_s,
            first_s=self._first_s,
            cpu_fraction=max(0.0, fraction),
            arg_bytes=weights.arg_bytes,
            result_bytes=weights.result_bytes,
            pickle_s=weights.pickle_s,
            n_head=self.n_items,
            head_s=self.spent_s,
        )

    def with_batch(self, costs: Costs, way: str) -> Costs:
        """Add to what a dispatch costs what the tasks of a batch share."""
        weights = self.weights
        if weights is None or way == THREADS:
            return costs
        shared_s = weights.batch_s + weights.batch_bytes / costs.send_bytes_per_s
        return replace(costs, batch_overhead_s=costs.batch_overhead_s + shared_s)


class Run:
    """One call of ``Parallel``: what waits, what was sent, and what has been seen."""

    def __init__(self, workers: Workers, parallel: Any, n_most: int, max_nbytes: int | None) -> None:
        self.workers = workers
        self.parallel = parallel
        self.n_most = n_most
        self.evidence = Evidence(max_nbytes)
        self.lock = threading.Lock()
        self.waiting: deque[Job] = deque()
        self.n_sent = 0
        self.mode = "here"  # then "starting", then "workers"
        self.is_over = False
        self.ended = threading.Event()
        self.is_watched = False
        self.began_item: float | None = None
        self.next_look_s = 0.0
        self.chunker: schedule.Chunker | None = None
        self.n_home = 0
        self.sent_since = 0.0
        self.kind = ""
        self.n_given = 0
        self.n_expected = 0

    # -- the caller's thread -----------------------------------------------------------------------------------------

    def submit(self, batch: Any, callback: Callable[[Any], None]) -> Job:
        """Queue a batch; also called from the threads that bring results home."""
        job = Job(batch, callback)
        if not self.kind:
            self.recall(kind_of(batch.items[0]))
        self.n_given += len(batch)
        with self.lock:
            at_once = self.mode == "workers"
            if not at_once:
                self.waiting.append(job)
        if at_once:
            self.send(job)
        return job

    def result(self, job: Job, timeout: float | None) -> Any:
        """Return a batch's results: computed here where nobody has it yet."""
        with self.lock:
            here = not job.is_sent
            if here:
                self.waiting.remove(job)
        if here:
            return self.compute(job)
        if not self.workers.wait(job.is_done, timeout):
            raise multiprocessing.TimeoutError
        if not job.is_sent:  # it could not be
            return self.result(job, timeout)
        if job.error is not None:
            raise job.error
        return job.result

    def compute(self, job: Job) -> Any:
        """Do a batch here, let joblib dispatch the next, and look at the evidence."""
        if not self.is_watched:
            self.is_watched = True
            threading.Thread(target=self.watch, name="amorsize-joblib", daemon=True).start()
        cpu, begin = time.process_time(), clock()
        self.began_item = begin
        try:
            results = job.batch()
        finally:
            self.began_item = None
        end = clock()
        self.evidence.observe(job.batch, results, end - begin, time.process_time() - cpu)
        job.callback(None)
        if self.mode == "here" and self.evidence.spent_s >= self.next_look_s:
            self.look()
        elif self.mode == "starting" and self.workers.has_answered():
            self.hand_over()
        return results

    # -- evidence ----------------------------------------------------------------------------------------------------

    def recall(self, kind: str) -> None:
        """Begin as the latest call over such tasks would have begun, had it known what it came to."""
        self.kind = kind
        seen = _seen.get(kind)
        if seen is not None and self.mode == "here":
            self.evidence.weights, self.n_expected = seen.weights, seen.n_items
            self.ask(seen.item_s, seen.n_items)
            if self.mode == "here":
                self.evidence.weights = None  # what spoke against workers is weighed again

    def remember(self) -> None:
        """Note what this call came to, for the next one over such tasks."""
        n_items = self.evidence.n_items + self.n_home
        before = _seen.get(self.kind)
        if self.evidence.n_items:
            item_s = self.evidence.lasting_item_s()
            if item_s * n_items < bounds.REMEMBER_FROM_S:
                _seen.pop(self.kind, None)
                return
            if len(_seen) >= bounds.MOST_KINDS:
                _seen.clear()
            _seen[self.kind] = _Seen(item_s, n_items, self.evidence.weights)
        elif before is not None and self.chunker is not None and n_items:
            # The pace of workers holds what moving takes, too, and is not remembered. Where it contradicts what is,
            # the next call begins here, and will see.
            is_shorter = self.chunker.item_s < before.item_s / bounds.ALIKE
            is_slower = clock() - self.sent_since > before.item_s * n_items
            if is_shorter or is_slower:
                del _seen[self.kind]
            else:
                _seen[self.kind] = replace(before, n_items=n_items)

    def n_left(self) -> int | None:
        """Return the items that nobody has begun, None where joblib does not know how many there are."""
        parallel = self.parallel
        if parallel._original_iterator is None:  # noqa: SLF001 - no public way to ask
            return sum(len(job.batch) for job in self.waiting)
        return None if parallel.n_tasks is None else max(0, parallel.n_tasks - self.evidence.n_items)

    def look(self) -> None:
        """Ask whether the work seen so far speaks for workers."""
        workers, evidence = self.workers, self.evidence
        self.next_look_s = 1.25 * evidence.spent_s
        way = workers.way(evidence.weights)
        costs = workers.engine.costs(way, warm=workers.is_warm(way))
        start_s = cost.start_of_two_s(evidence.with_batch(costs, way))
        n_left, item_s = self.n_left(), evidence.item_s()
        if n_left is None:
            start_s = min(start_s, bounds.COLD_S * 0.5 * costs.efficiency)
        if schedule.should_promote(item_s, n_left, evidence.spent_s, start_s, 0.5 * costs.efficiency):
            self.ask(item_s, n_left)

    def look_inside(self, elapsed_s: float) -> None:
        """Ask while the caller is inside an item that has taken *elapsed_s* so far, with others waiting behind it."""
        with self.lock:
            if not self.waiting or self.mode != "here":
                return
            n_left = self.n_left()
        item_s = max(self.evidence.item_s(), bounds.OPTIMISM * elapsed_s)
        self.ask(item_s, None if n_left is None else n_left + 1)

    def ask(self, item_s: float, n_left: int | None) -> None:
        """Let the engine decide; start workers if that is the answer."""
        workers, evidence = self.workers, self.evidence
        profile = evidence.profile(item_s)
        n_items = None if n_left is None else evidence.n_items + n_left
        way = workers.way(evidence.weights)
        warm = way == THREADS or workers.is_warm(way)
        costs = evidence.with_batch(workers.engine.costs(way, warm=warm and way != THREADS), way)
        plan = workers.engine.decide(way, profile, n_items, self.n_most, costs)
        logger.debug("joblib.Parallel: %s", plan.reason, extra={"plan": plan})
        if not plan.is_parallel:
            return
        with self.lock:
            if self.mode != "here" or self.is_over:
                return
            self.mode = "starting"
        self.chunker = schedule.Chunker(plan.n_jobs, item_s, costs.batch_overhead_s)
        workers.open(plan.n_jobs, way)
        if warm:
            self.hand_over()
        else:
            workers.hello(self.hand_over)

    def watch(self) -> None:
        """Look after an item that runs long; in a thread of its own, which ends once workers have all."""
        wait_s = bounds.FIRST_LOOK_S
        while not self.ended.wait(wait_s) and (self.mode == "here" or self.workers.is_driven()):
            began = self.began_item
            elapsed_s = 0.0 if began is None else clock() - began
            if self.mode == "here" and elapsed_s >= bounds.FIRST_LOOK_S:
                self.look_inside(elapsed_s)
            elif self.mode == "starting" and self.workers.has_answered():
                self.hand_over()
            elif self.mode == "workers":
                if began is None:
                    return  # whoever waits for a result drives the workers from now on
                self.workers.drive()
            wait_s = min(bounds.LAST_LOOK_S, 2 * wait_s)

    # -- workers -----------------------------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """Give everything that waits to the workers, now that they are there."""
        with self.workers.sending():  # whoever waits for a result of these waits until all are sent
            with self.lock:
                if self.is_over or self.mode == "workers":
                    return
                self.mode = "workers"
                jobs = list(self.waiting)
                self.waiting.clear()
                for job in jobs:
                    job.is_sent = True
                self.sent_since = clock()
            for job in jobs:
                self.send(job)

    def send(self, job: Job) -> None:
        """Give a batch to the workers."""
        job.is_sent = True
        self.n_sent += 1
        try:
            self.workers.send(job.batch, lambda result, error: self.finished(job, result, error))
        except Unsendable as error:
            if self.parallel.timeout is not None:
                self.finished(job, None, error.__cause__)
                return
            with self.lock:  # the caller's, then
                job.is_sent = False
                self.n_sent -= 1
                self.waiting.append(job)
            job.is_done.set()
        except Exception as error:  # noqa: BLE001 - a pool that broke: raised where the result is asked for
            self.finished(job, None, error)

    def finished(self, job: Job, result: Any, error: BaseException | None) -> None:
        """Take in a batch's end, in whatever thread: the next is dispatched before anybody hears of this one."""
        with self.lock:
            self.n_sent -= 1
            if self.is_over:
                return
            self.n_home += len(job.batch)
            chunker, n_home = self.chunker, self.n_home
        job.result, job.error = result, error
        try:
            if error is None:
                if chunker is not None and n_home >= chunker.n_workers:
                    # Workers' seconds per item, from the pace at which results come home.
                    chunker.item_s = (clock() - self.sent_since) * chunker.n_workers / n_home
                job.callback(None)
        except BaseException as problem:  # noqa: BLE001 - raised where the result is asked for
            job.error = problem
        finally:
            job.is_done.set()

    def batch_size(self) -> int:
        """Return the items of the next batch."""
        if self.mode == "here" or self.chunker is None:
            return self.evidence.block
        n_left = self.n_left()
        if n_left is None:
            n_left = self.n_expected - self.n_given if self.n_expected > self.n_given else _UNKNOWN
        return self.chunker.size(max(1, n_left))

    def close(self) -> bool:
        """End the run; returns whether workers are still at it."""
        with self.lock:
            self.is_over = True
            self.waiting.clear()
            self.evidence.forget_items()
            busy = self.n_sent > 0
        if not busy:
            self.remember()
        self.ended.set()
        return busy
