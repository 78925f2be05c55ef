"""
Runs chunks through anything that takes tasks and calls back: loky's workers, threads, joblib's clusters.

    caller ── task (parcel, items) ──► submit ──► worker: opens the parcel once, runs the items
      ▲                                              │ for at most a quantum, then returns what it has;
      └────────── queue ◄── callback ◄───────────────┘ what is left of the chunk goes back to the ranges

The caller is the only one to read the input and to hand out work; callbacks only put into a queue.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from amorsize import _cost as cost
from amorsize import _schedule as schedule
from amorsize._backend import _ship, _worker
from amorsize._backend._outcome import MISSING, Outcome
from amorsize._types import Span
from amorsize.exceptions import ItemTimeout, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._backend._ship import Parcel

clock = time.perf_counter

# Seconds the caller waits at most before it looks after things no callback announces.
_HOUSEKEEPING_S: Final = 0.5


class Submitter(Protocol):
    """What carries tasks: ``submit`` must not block, and the callback may come from any thread."""

    name: str
    is_local: bool

    def submit(self, task: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run *task* somewhere, then call *done* with its result or its error."""

    def n_workers(self) -> int:
        """Return how many tasks run at once."""

    def broken(self, error: BaseException) -> str:
        """Return in words what killed a worker, if that is what the error of a task means; else an empty string."""


@dataclass(slots=True)
class Done:
    """One finished chunk: what the worker returns."""

    results: Any
    n_items: int
    begin_s: float
    end_s: float
    lane: str


class _Overrun(BaseException):
    """Raised by the alarm inside a worker when an item overruns."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    A task: run items until they are done or the quantum is over. Pickled by value of its fields.

    Attributes:
        parcel: The function.
        items: Pickled items.
        start: Index of the first in the caller's input.
        quantum_s: Seconds after which to return what there is.
        block: Items between two looks at the clock, at first.
        keep_going: Whether to go on after a failed item.
        timeout: Seconds one item may take, or None.
    """

    parcel: Parcel
    items: bytes
    start: int
    quantum_s: float
    block: int
    keep_going: bool
    timeout: float | None

    def __call__(self) -> Done:
        _worker.mark_worker()
        call = _ship.open_parcel(self.parcel)
        items = pickle.loads(self.items)
        if self.timeout is not None:
            call = _alarmed(call, self.timeout, self.start)
        begin = clock()
        results, failures = run_quantum(
            call, items, self.quantum_s, 1 if self.timeout is not None else self.block, keep_going=self.keep_going
        )
        end = clock()
        import os  # noqa: PLC0415 - the lane's name is all it is for

        data = _worker.pack(results, failures, self.start, _ship.dumps)
        return Done(data, len(results), begin, end, f"process {os.getpid()}")


def run_quantum(
    call: Callable[[Any], Any], items: Sequence[Any], quantum_s: float, block: int, *, keep_going: bool
) -> tuple[list[Any], list[tuple[int, BaseException]]]:
    """Run items, at least one, until they are done or *quantum_s* is over; looks at the clock between blocks."""
    results: list[Any] = []
    failures: list[tuple[int, BaseException]] = []
    begin = now = clock()
    while len(results) < len(items) and (now - begin < quantum_s or not results):
        done, failed = _worker.run_block(call, items[len(results) : len(results) + block], keep_going=keep_going)
        failures += [(len(results) + position, error) for position, error in failed]
        results += done
        if failed and not (keep_going and all(isinstance(e, Exception) for _, e in failed)):
            break
        before, now = now, clock()
        block = schedule.next_block(block, now - before, min(quantum_s / 4, 5 * schedule.CHECK_S))
    return results, failures


def _alarmed(call: Callable[[Any], Any], timeout: float, start: int) -> Callable[[Any], Any]:
    """
    Bound each item with an alarm signal, where there are such and this is the main thread.

    Elsewhere, and inside native code that does not return to the interpreter, items run to their end.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return call
    position = start

    def bounded(item: Any) -> Any:
        nonlocal position
        index, position = position, position + 1

        def overrun(*_: object) -> None:
            raise _Overrun

        before = signal.signal(signal.SIGALRM, overrun)
        signal.setitimer(signal.ITIMER_REAL, timeout)
        try:
            return call(item)
        except _Overrun:
            message = f"item {index} took longer than timeout={timeout:g} s and was stopped"
            raise ItemTimeout(message, index) from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    return bounded


def hello() -> float:
    """Be the task that tells that a worker is up; returns its clock."""
    _worker.mark_worker()
    return clock()


@dataclass(slots=True)
class Flow:
    """
    What a run through a submitter needs to know.

    Attributes:
        call: The function of one item, for threads and for the caller's own share.
        items: All items left; only sliced.
        base: Index of the first in the caller's input.
        n_jobs: Tasks running at once.
        parcel: The packed function, None for threads.
        repack: Packs the function by value, for workers whose code differs.
        item_s: Expected seconds per item.
        batch_overhead_s: Seconds one chunk costs.
        batch_size: Exact size of chunks, or None.
        keep_going: Whether work goes on after a failure.
        retries: How often an item whose worker died may run again.
        timeout: Seconds one item may take, or None.
        is_cold: Whether workers are still to be started: the caller works until they answer.
        caller_may_compute: Whether it may.
        progress: Called with the items done so far.
    """

    call: Callable[[Any], Any]
    items: Sequence[Any]
    base: int = 0
    n_jobs: int = 2
    parcel: Parcel | None = None
    repack: Callable[[], Parcel] | None = None
    item_s: float = 0.001
    batch_overhead_s: float = 300e-6
    batch_size: int | None = None
    keep_going: bool = False
    retries: int = 0
    timeout: float | None = None
    is_cold: bool = False
    caller_may_compute: bool = True
    progress: Callable[[int], None] | None = None


class FlowTeam:
    """The caller's side of a run through a submitter."""

    def __init__(self, flow: Flow, submitter: Submitter) -> None:
        self.flow = flow
        self.submitter = submitter
        self.n_items = len(flow.items)
        self.outcome = Outcome(flow.base, self.n_items)
        self.limit = self.n_items
        self.ranges = schedule.Ranges(0, self.n_items)
        self.chunker = schedule.Chunker(flow.n_jobs, flow.item_s, flow.batch_overhead_s, flow.batch_size)
        self.answers: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
        self.in_flight: dict[int, tuple[int, int]] = {}
        self.ready = not flow.is_cold
        self.began = clock()
        self._serial = 0

    def run(self) -> Outcome:
        """
        Do the job; the results, failures and measurements are in the outcome.

        Raises:
            BaseException: What interrupts the caller. The function's own exceptions are values in the outcome.
        """
        try:
            if not self.ready:
                self._start_while_working()
            while not self._is_done():
                self._top_up()
                if not self.in_flight and not self.ranges.n_left:
                    break
                self._take(_HOUSEKEEPING_S)
        finally:
            if self.flow.parcel is not None:
                self.flow.parcel.close()
        return self.outcome

    def _is_done(self) -> bool:
        if self.outcome.died and not self.flow.keep_going and not self.flow.retries:
            return True
        if self.limit < self.n_items:
            return self.outcome.is_complete(self.limit)
        return self.outcome.n_done >= self.n_items

    def _start_while_working(self) -> None:
        """Start workers and go on computing until the first of them answers; nothing is handed over before."""
        self.submitter.submit(hello, lambda result, error: self.answers.put((-1, result, error)))
        block = max(1, int(schedule.CHECK_S / max(self.flow.item_s, 1e-9)))
        while not self.ready and not self._is_done():
            if not self.flow.caller_may_compute:
                self._take(_HOUSEKEEPING_S)
                continue
            taken = self.ranges.take(block)
            if taken is None:
                return
            begin = clock()
            start, stop = taken
            done, failed = _worker.run_block(
                self.flow.call, self.flow.items[start:stop], keep_going=self.flow.keep_going
            )
            end = clock()
            self.ranges.give_back(start + len(done), stop)
            self._accept(start, done, failed)
            if failed and not (self.flow.keep_going and all(isinstance(e, Exception) for _, e in failed)):
                return
            self._note("caller", begin, end, start, len(done))
            block = schedule.next_block(block, end - begin, 2 * schedule.CHECK_S)
            self.chunker.observe(len(done), end - begin)
            with contextlib.suppress(queue.Empty):
                while True:
                    self._answer(*self.answers.get_nowait())

    def _note(self, lane: str, begin: float, end: float, start: int, n_items: int) -> None:
        spans = self.outcome.spans
        last = spans[-1] if spans else None
        if last is not None and last.lane == lane and begin - last.end_s < schedule.CHECK_S:
            spans[-1] = Span(
                lane=lane, begin_s=last.begin_s, end_s=end, start=last.start, n_items=last.n_items + n_items
            )
        else:
            spans.append(Span(lane=lane, begin_s=begin, end_s=end, start=self.flow.base + start, n_items=n_items))

    def _top_up(self) -> None:
        """Hand out chunks until every worker has one and, where workers are ours alone, one waiting."""
        ahead = 1 if self.flow.timeout is not None or self.submitter.n_workers() > self.flow.n_jobs else schedule.AHEAD
        while len(self.in_flight) < ahead * self.flow.n_jobs:
            taken = self.ranges.take(self.chunker.size(self.ranges.n_left))
            if taken is None:
                return
            self._submit(*taken)

    def _submit(self, start: int, stop: int) -> None:
        flow = self.flow
        self._serial += 1
        number = self._serial
        self.in_flight[number] = (start, stop)
        items = flow.items[start:stop]
        # A fixed batch_size is one chunk whatever it takes; otherwise a chunk is cut short after two quanta.
        quantum_s = 1e9 if flow.batch_size is not None else 2 * cost.QUANTUM_S
        block = max(1, int(schedule.CHECK_S / max(self.chunker.item_s, 1e-9)))
        task: Callable[[], Any]
        if flow.parcel is None:
            task = _ThreadTask(flow.call, items, quantum_s, block, flow.keep_going)
        else:
            try:
                data = _ship.dumps(items if isinstance(items, list | tuple | range) else _sliceable(items))
            except Exception as error:  # noqa: BLE001 - an item that cannot be pickled is done here instead
                del self.in_flight[number]
                self._do_here(start, stop, error)
                return
            task = Chunk(flow.parcel, data, flow.base + start, quantum_s, block, flow.keep_going, flow.timeout)
        self.submitter.submit(task, lambda result, error: self.answers.put((number, result, error)))

    def _do_here(self, start: int, stop: int, error: Exception) -> None:
        """Run items that cannot be sent in the caller, as the loop would."""
        del error
        done, failed = _worker.run_block(self.flow.call, self.flow.items[start:stop], keep_going=self.flow.keep_going)
        self.ranges.give_back(start + len(done), stop)
        self._accept(start, done, failed)

    def _take(self, timeout_s: float) -> None:
        """Take in answers; waits at most *timeout_s* for the first."""
        try:
            self._answer(*self.answers.get(timeout=timeout_s))
            while True:
                self._answer(*self.answers.get_nowait())
        except queue.Empty:
            return

    def _answer(self, number: int, result: Any, error: BaseException | None) -> None:
        if number == -1:
            self.ready = True
            self.outcome.start_s = clock() - self.began
            if error is not None:
                self._lost((), error)
            return
        start, stop = self.in_flight.pop(number)
        if error is not None:
            self._failed_chunk(start, stop, error)
            return
        opened = clock()
        if isinstance(result.results, bytes | bytearray | memoryview):
            n_bytes = len(result.results)
            results, failures = _worker.unpack(result.results)
        else:
            n_bytes = 0
            results, failures = result.results
        self.outcome.received(result.n_items, n_bytes, result.end_s - result.begin_s, clock() - opened)
        self.chunker.observe(result.n_items, result.end_s - result.begin_s)
        self.outcome.spans.append(
            Span(
                lane=result.lane,
                begin_s=result.begin_s,
                end_s=result.end_s,
                start=self.flow.base + start,
                n_items=result.n_items,
            )
        )
        if start + result.n_items < stop:
            self.ranges.give_back(start + result.n_items, min(stop, self.limit))
        self._accept(start, results, failures)

    def _accept(self, start: int, results: list[Any], failures: Sequence[tuple[int, BaseException]]) -> None:
        self.outcome.put(start, results, failures)
        goes_on = self.flow.keep_going
        fatal = [position for position, error in failures if not (goes_on and isinstance(error, Exception))]
        if fatal:
            self.limit = min(self.limit, start + fatal[0])
            self.ranges.drop_from(self.limit)
        if self.flow.progress is not None:
            self.flow.progress(self.outcome.n_done)

    def _failed_chunk(self, start: int, stop: int, error: BaseException) -> None:
        """Handle a task that did not return: other code in the worker, a dead worker, or a fault of the way."""
        if isinstance(error, _ship.StaleCode) and self.flow.repack is not None:
            self._use_value()
            self.ranges.give_back(start, min(stop, self.limit))
            return
        if self.submitter.broken(error):
            self._lost(tuple(range(start, stop)), error)
            return
        if stop - start == 1:
            self._accept(start, [error], [(0, error)])
            return
        # An error of the way (unpickling in the worker, say) says nothing about which item: ask one by one.
        self.chunker = schedule.Chunker(self.flow.n_jobs, self.chunker.item_s, 0.0, 1)
        self.ranges.give_back(start, min(stop, self.limit))

    def _use_value(self) -> None:
        if self.flow.repack is not None and self.flow.parcel is not None and not self.flow.parcel.is_by_value:
            self.flow.parcel.close()
            self.flow.parcel = self.flow.repack()

    def _lost(self, positions: tuple[int, ...], error: BaseException) -> None:
        """Decide what becomes of items whose worker died. All other chunks in flight share its fate and come here too."""
        flow, outcome = self.flow, self.outcome
        outcome.deaths += 1
        lost = [i for i in positions if outcome.results[i] is MISSING and i < self.limit]
        names = tuple(flow.base + i for i in lost)
        cause = self.submitter.broken(error) or f"{type(error).__name__}: {error}"
        died = WorkerDied(f"a worker died ({cause}) while {_items(names)} were in flight", {}, names, cause)
        again = [i for i in lost if outcome.attempts.get(i, 0) < flow.retries]
        for i in again:
            outcome.attempts[i] = outcome.attempts.get(i, 0) + 1
        if again:
            # One item at a time, nothing beside it: the one that kills its worker is then known by name.
            self.chunker = schedule.Chunker(1, self.chunker.item_s, 0.0, 1)
            flow.n_jobs = 1
            flow.timeout = flow.timeout or 1e9
            for i in reversed(again):
                self.ranges.give_back(i, i + 1)
        for i in lost:
            if i not in again:
                self._accept(i, [died], [(0, died)])
        if not again:
            outcome.died = outcome.died or died
        self.ready = True


def _items(indices: tuple[int, ...]) -> str:
    if not indices:
        return "no items"
    return f"items {indices[0]} to {indices[-1]}" if len(indices) > 1 else f"item {indices[0]}"


def _sliceable(items: Any) -> Any:
    """Return a slice as it is if it can be sliced again in the worker, else as a list."""
    return items if hasattr(items, "__getitem__") and hasattr(items, "__len__") else list(items)


@dataclass(frozen=True, slots=True)
class _ThreadTask:
    """A task for a thread of this process: nothing is pickled."""

    call: Callable[[Any], Any]
    items: Sequence[Any]
    quantum_s: float
    block: int
    keep_going: bool

    def __call__(self) -> Done:
        begin = clock()
        with _worker.nested_thread():
            results = run_quantum(self.call, self.items, self.quantum_s, self.block, keep_going=self.keep_going)
        return Done(results, len(results[0]), begin, clock(), threading.current_thread().name)


@dataclass(slots=True)
class Threads:
    """
    Carries tasks on threads of this process.

    Daemon threads of our own, not an executor's: one that is stuck in an item must not keep the interpreter alive.
    """

    n: int
    name: str = "threading"
    is_local: bool = True
    _tasks: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    _n_started: int = 0

    def submit(self, task: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run *task* on a thread."""
        self._tasks.put((task, done))
        if self._n_started < self.n:
            self._n_started += 1
            threading.Thread(target=self._serve, name=f"amorsize-{self._n_started}", daemon=True).start()

    def _serve(self) -> None:
        while (job := self._tasks.get()) is not None:
            task, done = job
            try:
                result = task()
            except BaseException as error:  # noqa: BLE001 - the caller decides
                done(None, error)
            else:
                done(result, None)
            del job, task, done

    def n_workers(self) -> int:
        """Return the number of threads."""
        return self.n

    def broken(self, error: BaseException) -> str:
        """Return an empty string: threads do not die."""
        del error
        return ""

    def close(self) -> None:
        """Let the threads end after what they are at."""
        for _ in range(self._n_started):
            self._tasks.put(None)
