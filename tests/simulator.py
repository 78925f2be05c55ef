"""
A discrete-event simulator of runs: the policy and the dispatcher are the real ones, machines and items are made up.

    run_flow  the real FlowTeam, its clock and its carrier made up: _Workers
    run_team  the real ranges, and the real Stretch of each worker; the pipe they share is a deque
    call      the real Beat, with a clock that is made up; the real decisions

Only clocks, processes and items are replaced by arithmetic. Items are seconds in one array of running sums, so a block
costs one subtraction whatever is in it, and ten million items are as quick as their blocks.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import operator
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from amorsize import _bounds, _profile, _source
from amorsize import _cost as cost
from amorsize import _pace as pace
from amorsize import _schedule as schedule
from amorsize._backend import _bounds as backend_bounds
from amorsize._backend._carrier import Answer, Done
from amorsize._backend._flow import FlowTeam
from amorsize._backend._job import Job
from amorsize._decide import decide
from amorsize._plans import Plan
from amorsize._records import FORK, LOKY, SERIAL, Limits, Profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize import Host

Floats = np.ndarray[Any, np.dtype[np.float64]]

# -- items -----------------------------------------------------------------------------------------------------------


def _outlier(n: int, rng: np.random.Generator, at: int) -> Floats:
    """One item of 2 % of the work among equals."""
    items = rng.uniform(0.5, 1.5, n)
    items[at] = 0.02 * n
    return items


def _pareto(n: int, rng: np.random.Generator) -> Floats:
    return rng.pareto(1.1, n) + 1.0


def _bimodal(n: int, rng: np.random.Generator) -> Floats:
    return np.where(rng.random(n) < 0.05, 50.0, 1.0)


def _regime_change(n: int, rng: np.random.Generator) -> Floats:
    items = rng.uniform(0.5, 1.5, n)
    items[n // 2 :] *= 50.0
    return items


def _late(n: int, rng: np.random.Generator) -> Floats:
    """Ten items of nothing, so that a sample knows nothing."""
    items = rng.uniform(0.5, 1.5, n)
    items[:10] = 1e-6
    return items


KINDS: Final[dict[str, Callable[[int, np.random.Generator], Floats]]] = {
    "uniform": lambda n, rng: rng.uniform(0.5, 1.5, n),
    "ascending": lambda n, rng: np.linspace(0.0, 2.0, n),
    "descending": lambda n, rng: np.linspace(2.0, 0.0, n),
    "bimodal": _bimodal,
    "heavy tail": _pareto,
    "outlier first": lambda n, rng: _outlier(n, rng, 0),
    "outlier last": lambda n, rng: _outlier(n, rng, n - 1),
    "regime change": _regime_change,
    "cheap first items": _late,
}


class Prefix(Protocol):
    """Running sums of the items' seconds: entry ``i`` is the seconds of the first ``i`` items."""

    def __getitem__(self, index: int, /) -> float: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Items:
    """
    Made-up items.

    Attributes:
        prefix: Running sums of their seconds, one more entry than items.
        n: How many.
        total_s: Seconds of the loop.
        longest_s: Seconds of the longest.
    """

    prefix: Prefix
    n: int
    total_s: float
    longest_s: float

    @property
    def mean_s(self) -> float:
        """Seconds per item."""
        return self.total_s / max(1, self.n)


def make_items(kind: str, n: int, mean_s: float = 1e-3, seed: int = 1) -> Items:
    """Return *n* items of a kind, scaled to a mean."""
    seconds = KINDS[kind](n, np.random.default_rng(seed)) if n else np.zeros(0)
    if seconds.sum() > 0:
        seconds = seconds * (mean_s * n / seconds.sum())
    prefix = np.zeros(n + 1)
    np.cumsum(seconds, out=prefix[1:])
    longest_s = float(seconds.max()) if n else 0.0
    # A memoryview gives Python floats, and three times as fast as an array does.
    return Items(memoryview(prefix), n, float(prefix[-1]), longest_s)


class _Equal:
    """Running sums of equal items, which need no memory."""

    __slots__ = ("_each_s", "_n")

    def __init__(self, n: int, each_s: float) -> None:
        self._n, self._each_s = n, each_s

    def __getitem__(self, index: int, /) -> float:
        return index * self._each_s

    def __len__(self) -> int:
        return self._n + 1


def equal_items(n: int, each_s: float) -> Items:
    """Return *n* equal items."""
    return Items(_Equal(n, each_s), n, n * each_s, each_s)


# -- machines --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slow:
    """A worker disturbed from *begin_s* to *end_s*: it runs at *speed* of its own."""

    worker: int
    begin_s: float
    end_s: float
    speed: float


@dataclass(frozen=True)
class Machine:
    """
    What workers and the way to them cost.

    Attributes:
        n: Workers.
        speeds: Of each, relative to the caller; empty for 1 each.
        disturbed: When which worker is slower.
        start_s: Seconds until the first worker begins.
        start_each_s: Seconds until the next one does.
        look_s: Seconds of a look at the clock and at the queue. Measured: 1 us.
        hand_s: Seconds of a worker to take a range or a chunk, or to put one back. Measured: 5 us.
        send_s: Seconds of a worker to send results home. Measured: 20 us.
        wake_s: Seconds until a waiting worker has what it waits for. Measured: 50 us.
        home_s: Seconds of the caller per message from a worker. Measured: 7 us through a pipe, 80 through loky.
        out_s: Seconds of the caller per chunk handed out. Measured: 80 us through loky.
        way_s: Seconds that a message travels, each way: half a round trip.
        ahead: Chunks that wait for each worker beside the one it runs.
        is_private: Whether a chunk waits for one worker, which is chosen when it is sent, and not for any.
    """

    n: int
    speeds: tuple[float, ...] = ()
    disturbed: tuple[Slow, ...] = ()
    start_s: float = 0.0
    start_each_s: float = 0.0
    look_s: float = 1e-6
    hand_s: float = 5e-6
    send_s: float = 20e-6
    wake_s: float = 50e-6
    home_s: float = 10e-6
    out_s: float = 100e-6
    way_s: float = 0.0
    ahead: int = 1
    is_private: bool = False

    def begins_s(self, worker: int) -> float:
        """Return when a worker begins."""
        return self.start_s + worker * self.start_each_s

    def ends(self, worker: int, begin_s: float, work_s: float) -> float:
        """Return when a worker that begins *work_s* seconds of work at *begin_s* is done with it."""
        speed = self.speeds[worker] if self.speeds else 1.0
        if not self.disturbed:
            return begin_s + work_s / speed
        now = begin_s
        for slow in self.disturbed:
            if slow.worker != worker or slow.end_s <= now:
                continue
            before_s = max(0.0, slow.begin_s - now)
            if before_s * speed >= work_s:
                break
            work_s -= before_s * speed
            now += before_s
            within_s = slow.end_s - now
            if within_s * speed * slow.speed >= work_s:
                return now + work_s / (speed * slow.speed)
            work_s -= within_s * speed * slow.speed
            now = slow.end_s
        return now + work_s / speed

    def bound_s(self, items: Items) -> float:
        """Return ``(W - longest) / p + longest``; the longest item may meet the slowest worker."""
        speeds = self.speeds or (1.0,) * self.n
        slowest = min([*speeds, *(speeds[s.worker] * s.speed for s in self.disturbed)])
        lost_s = sum((s.end_s - s.begin_s) * speeds[s.worker] * (1 - s.speed) for s in self.disturbed)
        return (items.total_s - items.longest_s + lost_s) / sum(speeds) + items.longest_s / slowest


FORKED: Final = Machine(2)
LOKY_LIKE: Final = Machine(2, home_s=100e-6, wake_s=150e-6)


@dataclass(eq=False)
class Run:
    """
    What a simulated run came to.

    Attributes:
        end_s: Seconds until the last result was home.
        n_chunks: Messages with results.
        n_splits: Ranges put back because the queue was empty.
        driver_s: Seconds the caller spent on messages.
        done: Ranges that were run, as (start, stop); each item is to be in exactly one.
        chunk_s: Seconds of work in each chunk.
        n_done: Items done.
    """

    end_s: float = 0.0
    n_chunks: int = 0
    n_splits: int = 0
    driver_s: float = 0.0
    done: list[tuple[int, int]] = field(default_factory=list)
    chunk_s: list[float] = field(default_factory=list)
    n_done: int = 0

    def is_exact(self, n: int, first: int = 0) -> bool:
        """Tell whether each item has been done exactly once."""
        position = first
        for start, stop in sorted(self.done):
            if start != position:
                return False
            position = stop
        return position == n


# -- the forked team -------------------------------------------------------------------------------------------------


def run_team(
    items: Items,
    machine: Machine,
    *,
    item_s: float,
    batch_overhead_s: float = 60e-6,
    batch_size: int | None = None,
    first: int = 0,
    caller_computes: bool = False,
) -> Run:
    """
    Simulate ``Team``: ranges posted up front, one queue for all, half of a range put back when the queue is empty.

    Args:
        items: All of them.
        machine: Its workers; with *caller_computes*, worker 0 is the caller.
        item_s: Seconds per item that the plan expects.
        batch_overhead_s: Seconds a chunk costs, as the plan has it.
        batch_size: Exact size of chunks, or None.
        first: The first item that is still to do.
        caller_computes: Whether the caller is one of the workers.
    """
    return _Team(items, machine, item_s, batch_overhead_s, batch_size, first, caller_computes=caller_computes).run()


class _Team:
    def __init__(  # noqa: PLR0917 - the arguments of run_team, in its order
        self,
        items: Items,
        machine: Machine,
        item_s: float,
        batch_overhead_s: float,
        batch_size: int | None,
        first: int,
        *,
        caller_computes: bool,
    ) -> None:
        self.items, self.machine, self.is_fixed = items, machine, batch_size is not None
        self.caller_computes = caller_computes
        chunker = schedule.Chunker(machine.n, item_s, batch_overhead_s, batch_size)
        tokens = schedule.cut_up(items.n - first, chunker, (), None, backend_bounds.MOST_TOKENS)
        self.queue = deque((first + start, first + stop) for start, stop in tokens)
        self.block = [pace.first_block(item_s)] * machine.n
        self.stretches: list[pace.Stretch | None] = [None] * machine.n
        self.waiting: deque[int] = deque()
        self.began_at = [0] * machine.n
        self.block_began = [0.0] * machine.n
        self.last_s = 0.0
        self.events: list[tuple[float, int]] = []
        self.messages: list[float] = []
        self.n_read = 0
        self.result = Run()

    def run(self) -> Run:
        """Go from event to event: each is the end of a worker's block."""
        for worker in range(self.machine.n):
            self.take(worker, self.machine.begins_s(worker))
        while self.events:
            now, worker = heapq.heappop(self.events)
            self.looks(worker, now)
        self.bring_home()
        return self.result

    def take(self, worker: int, now: float) -> None:
        """Take a range, or wait for one."""
        if not self.queue:
            self.waiting.append(worker)
            return
        now += self.machine.hand_s
        start, stop = self.queue.popleft()
        self.stretches[worker] = pace.Stretch(
            start, stop, self.block[worker], now, is_fixed=self.is_fixed, is_single=False
        )
        self.began_at[worker] = start
        self.begin(worker, now)

    def begin(self, worker: int, now: float) -> None:
        """Begin a block."""
        stretch, prefix = self.stretches[worker], self.items.prefix
        assert stretch is not None
        self.block_began[worker] = now
        work_s = prefix[stretch.high] - prefix[stretch.current]
        heapq.heappush(self.events, (self.machine.ends(worker, now, work_s), worker))

    def looks(self, worker: int, now: float) -> None:
        """End a block: look at the clock, send results, give half away if the queue is empty, go on."""
        machine, stretch = self.machine, self.stretches[worker]
        assert stretch is not None
        stretch.ran(stretch.high - stretch.current, now - self.block_began[worker])
        self.last_s = max(self.last_s, now)
        now += machine.look_s
        is_caller = self.caller_computes and worker == 0
        if is_caller:
            now = self.reads(now)
        elif stretch.must_send(now):
            now = self.sends(now)
            stretch.sent(now)
        if stretch.may_share and not self.queue:
            self.queue.append(stretch.half())
            stretch.stop = stretch.half()[0]
            self.result.n_splits += 1
            now += machine.hand_s
            if self.waiting:
                self.take(self.waiting.popleft(), now + machine.wake_s)
        if stretch.current < stretch.stop:
            self.begin(worker, now)
            return
        self.block[worker] = stretch.block
        self.result.done.append((self.began_at[worker], stretch.current))
        self.take(worker, now if is_caller else self.sends(now))

    def sends(self, now: float) -> float:
        """Send results home; returns when that is done."""
        now += self.machine.send_s
        self.messages.append(now)
        return now

    def reads(self, now: float) -> float:
        """Read what has come, in the caller that computes too."""
        n_new = sum(1 for at in self.messages[self.n_read :] if at <= now)
        self.n_read += n_new
        self.result.driver_s += n_new * self.machine.home_s
        return now + n_new * self.machine.home_s

    def bring_home(self) -> None:
        """Let the caller take in what has been sent, one message after the other."""
        result, home_s = self.result, self.machine.home_s
        messages = np.sort(np.array(self.messages[self.n_read :]))
        place = np.arange(len(messages))
        # The time each is taken in: its arrival, or that of an earlier one and all between them.
        ends = np.maximum.accumulate(messages - home_s * place) + home_s * (place + 1)
        result.end_s = max(self.last_s, float(ends[-1])) if len(messages) else self.last_s
        result.n_chunks = len(self.messages)
        result.driver_s += home_s * len(messages)
        result.n_done = sum(stop - start for start, stop in result.done)


# -- the flow team ---------------------------------------------------------------------------------------------------


def run_flow(
    items: Items,
    machine: Machine,
    *,
    item_s: float,
    batch_overhead_s: float = 300e-6,
    batch_size: int | None = None,
    first: int = 0,
    quantum_s: float | None = None,
    most_chunks: int | None = None,
) -> Run:
    """
    Simulate ``FlowTeam``: the caller hands chunks out, a worker cuts them short, what is left comes back.

    Args:
        items: All of them.
        machine: Its workers.
        item_s: Seconds per item that the plan expects.
        batch_overhead_s: Seconds a chunk costs, as the plan has it.
        batch_size: Exact size of chunks, or None.
        first: The first item that is still to do.
        quantum_s: Seconds after which a chunk is cut short; None for the engine's own.
        most_chunks: Chunks after which to stop looking, for runs whose middle is like their beginning.
    """
    workers = _Workers(items, machine, quantum_s, most_chunks)
    job = Job(
        func=abs,
        call=abs,
        handlers={},
        items=range(items.n - first),
        base=first,
        n_jobs=machine.n,
        item_s=item_s,
        batch_overhead_s=batch_overhead_s,
        batch_size=batch_size,
    )
    with contextlib.suppress(_EnoughError):
        FlowTeam(job, workers, workers.clock).run()
    workers.result.n_done = sum(stop - start for start, stop in workers.result.done)
    return workers.result


class _EnoughError(Exception):
    """Ends a run whose middle is like its beginning."""


_ANSWER, _TASK, _READY = range(3)


class _Workers:
    """A carrier of tasks over workers that are made up: what it is asked for, and waiting, moves its clock."""

    name = "simulated"

    def __init__(self, items: Items, machine: Machine, quantum_s: float | None, most_chunks: int | None) -> None:
        self.items, self.machine, self.quantum_s, self.most_chunks = items, machine, quantum_s, most_chunks
        self.ahead = machine.ahead
        self.now_s = 0.0
        self.queues: list[deque[tuple[int, Any]]] = [deque() for _ in range(machine.n if machine.is_private else 1)]
        self.loads = [(0, worker) for worker in range(machine.n)]
        self.load = [0] * machine.n
        self.is_idle = [False] * machine.n
        self.idle: deque[int] = deque()
        self.events: list[tuple[float, int, int, tuple[Any, ...]]] = []
        self.n_events = 0
        self.result = Run()
        for worker in range(machine.n):
            self.post(machine.begins_s(worker), _READY, worker)

    def clock(self) -> float:
        """Return the caller's time."""
        return self.now_s

    def post(self, at_s: float, kind: int, *rest: Any) -> None:
        """Have something happen."""
        self.n_events += 1
        heapq.heappush(self.events, (at_s, self.n_events, kind, rest))

    # -- what the dispatcher asks for

    def task(self, job: Job, work: Any) -> Any:
        """Return the work as it is."""
        del job
        return work

    def submit(self, number: int, task: Any) -> None:
        """Send a chunk to the workers."""
        self.now_s += self.machine.out_s
        self.result.driver_s += self.machine.out_s
        self.post(self.now_s + self.machine.way_s, _TASK, self.least_loaded(), number, task)

    def take(self, timeout_s: float) -> list[Answer]:
        """Let time pass until an answer has come."""
        del timeout_s
        machine, result = self.machine, self.result
        if self.most_chunks is not None and result.n_chunks >= self.most_chunks:
            raise _EnoughError
        while self.events:
            now, _, kind, rest = heapq.heappop(self.events)
            if kind == _TASK:
                self.arrive(now, *rest)
            elif kind == _READY:
                self.free(now, *rest)
            else:
                worker, number, done = rest
                self.now_s = max(now, self.now_s) + machine.home_s
                result.driver_s += machine.home_s
                result.end_s = self.now_s
                result.n_chunks += 1
                if machine.is_private:
                    self.load[worker] -= 1
                    heapq.heappush(self.loads, (self.load[worker], worker))
                return [Answer(number, done, None)]
        return []

    def broken(self, error: BaseException) -> str:
        """Return an empty string: these workers do not die."""
        del error
        return ""

    def renew(self) -> None:
        """Do nothing."""

    def least_loaded(self) -> int:
        """Choose the worker that a chunk waits for; 0 where it waits for any."""
        if not self.machine.is_private:
            return 0
        while True:
            load, worker = heapq.heappop(self.loads)
            if load == self.load[worker]:
                break
        self.load[worker] += 1
        heapq.heappush(self.loads, (load + 1, worker))
        return worker

    # -- the workers

    def arrive(self, now: float, worker: int, number: int, work: Any) -> None:
        """Let a task reach its queue, and a worker that waits for one."""
        machine = self.machine
        self.queues[worker].append((number, work))
        if machine.is_private:
            if self.is_idle[worker]:
                self.is_idle[worker] = False
                self.free(now + machine.wake_s, worker)
        elif self.idle:
            self.free(now + machine.wake_s, self.idle.popleft())

    def free(self, now: float, worker: int) -> None:
        """Let a worker run its next task, or wait for one."""
        queue = self.queues[worker if self.machine.is_private else 0]
        if not queue:
            self.is_idle[worker] = True
            if not self.machine.is_private:
                self.idle.append(worker)
            return
        machine = self.machine
        begin = now + machine.hand_s
        number, work = queue.popleft()
        n_items, end = self.run_quantum(worker, begin, work)
        self.result.done.append((work.start, work.start + n_items))
        self.result.chunk_s.append(end - begin)
        end_s = end + machine.send_s
        done = Done(([None] * n_items, []), n_items, begin, end, f"worker {worker}")
        self.post(end_s + machine.way_s, _ANSWER, worker, number, done)
        self.post(end_s, _READY, worker)

    def run_quantum(self, worker: int, begin: float, work: Any) -> tuple[int, float]:
        """Run a chunk like the function of that name: until it is done or the quantum is over."""
        machine, prefix, now, n_done = self.machine, self.items.prefix, begin, 0
        quantum_s = work.quantum_s if self.quantum_s is None else self.quantum_s
        quantum = pace.Quantum(quantum_s, work.block, 2 * _bounds.CHECK_S)
        while n_done < len(work.items) and quantum.goes_on(n_done, now - begin):
            high = min(len(work.items), n_done + quantum.block)
            before = now
            work_s = prefix[work.start + high] - prefix[work.start + n_done]
            now = machine.ends(worker, now, work_s) + machine.look_s
            quantum.ran(now - before)
            n_done = high
        return n_done, now


# -- whole calls -----------------------------------------------------------------------------------------------------


def machine_for(plan: Plan, *, is_warm: bool = False) -> Machine:
    """Return the machine that a plan's costs describe."""
    costs = plan.host.costs[plan.backend]
    start_s = 0.0 if is_warm else costs.start_s
    start_each_s = 0.0 if is_warm else costs.start_each_s
    if plan.backend == FORK:
        return replace(FORKED, n=plan.n_jobs, start_s=start_s, start_each_s=start_each_s)
    return replace(LOKY_LIKE, n=plan.n_jobs, start_s=start_s, start_each_s=start_each_s)


def run_plan(items: Items, plan: Plan, first: int) -> float:
    """Return the seconds of doing the items from *first* on as planned."""
    costs = plan.host.costs[plan.backend]
    machine = machine_for(plan)
    expected: dict[str, Any] = {
        "item_s": plan.profile.item_s,
        "batch_overhead_s": costs.batch_overhead_s,
        "batch_size": plan.limits.batch_size,
    }
    if plan.backend == FORK:
        if plan.caller_computes:
            # The caller begins when it has forked the others.
            forked_s = costs.start_each_s * (plan.n_jobs - 1)
            machine = replace(machine, start_s=forked_s, start_each_s=max(0.0, costs.start_s - forked_s) / plan.n_jobs)
        return run_team(items, machine, first=first, caller_computes=plan.caller_computes, **expected).end_s
    # Overlapped start: the caller goes on, slower, until the workers answer.
    began_s = items.prefix[first]
    while first < items.n and items.prefix[first] - began_s < cost.STARTING_SPEED * machine.start_s:
        first += 1
    spent_s = (items.prefix[first] - began_s) / cost.STARTING_SPEED
    warm = replace(machine, start_s=0.0)
    return spent_s + run_flow(items, warm, first=first, **expected).end_s


@dataclass(frozen=True)
class Called:
    """
    A simulated call of ``map``.

    Attributes:
        seconds: How long it took.
        plans: The decisions, the first one first.
        promoted_at: Items done when it went parallel, None if it never did.
    """

    seconds: float
    plans: tuple[Plan, ...]
    promoted_at: int | None


def call(items: Items, host: Host, limits: Limits | None = None, profile: Profile | None = None) -> Called:
    """Simulate a first call of ``map`` over items of known number: sample, decide, loop with looks, go parallel."""
    return _Caller(items, host, limits or Limits(), profile or Profile()).run()


class _Caller:
    def __init__(self, items: Items, host: Host, limits: Limits, profile: Profile) -> None:
        self.items, self.host, self.limits, self.profile = items, host, limits, profile
        self.plans: list[Plan] = []
        self.now_s = 0.0

    def run(self) -> Called:
        items = self.items
        n_head = 0
        sampler = _profile.Sampler(lambda item: item)
        while n_head < min(items.n, self.limits.sample_size):
            sampler.times.append(items.prefix[n_head + 1] - items.prefix[n_head])
            n_head += 1
            if items.prefix[n_head] >= _bounds.SAMPLE_BOX_S:
                break
        sampler.cpu_s = sampler.own_s = sum(sampler.times)
        seen = sampler.profile()
        self.profile = replace(self.profile, n_sampled=n_head, item_s=seen.item_s, n_head=n_head, head_s=seen.head_s)
        rest_s = seen.item_s * (items.n - n_head)
        if seen.item_s >= 20e-6 and rest_s >= cost.FLOOR_S:
            plan = self.decide(n_head, seen.item_s)
            if plan.is_parallel:
                return self.parallel(plan, n_head)
        return self.loop(n_head)

    def decide(self, n_head: int, item_s: float) -> Plan:
        profile = replace(self.profile, n_head=n_head, head_s=self.items.prefix[n_head], item_s=item_s)
        self.plans.append(decide(profile, self.host, self.items.n, self.limits))
        return self.plans[-1]

    def parallel(self, plan: Plan, n_head: int) -> Called:
        seconds = self.items.prefix[n_head] + run_plan(self.items, plan, n_head)
        return Called(seconds, tuple(self.plans), n_head)

    def loop(self, position: int) -> Called:
        """Loop in the blocks of the real Beat, with a thought when one is due."""
        prefix, n = self.items.prefix, self.items.n
        self.now_s = prefix[position]
        source = _source.Source((range(n),), star=False)
        due_s = self.now_s + _bounds.LOOK_S
        beat = _source.Beat(
            source, position, self.profile.item_s, due_s, self.think, is_first=True, clock=lambda: self.now_s
        )
        while beat.position < n:
            for part in beat.blocks():
                stop = position + operator.length_hint(part)
                self.now_s += prefix[stop] - prefix[position]
                position = stop
            if beat.position < n:
                plan = self.decide(position, beat.item_s)
                if plan.is_parallel:
                    return self.parallel(plan, position)
                beat.due = self.now_s + self.next_look_s(beat)
        return Called(self.items.total_s, tuple(self.plans), None)

    def think(self, beat: _source.Beat) -> float | None:
        """Return the seconds until the next look, None where the evidence speaks for workers."""
        usable = [self.host.costs[name] for name in (FORK, LOKY) if name in self.host.costs]
        if usable:
            costs = min(usable, key=lambda c: c.start_s)
            gain, start_s = cost.gain_of_two(self.profile, costs, beat.item_s), cost.start_of_two_s(costs)
            n_left = beat.n_items - beat.position
            if schedule.should_promote(beat.item_s, n_left, self.now_s, start_s, gain):
                return None
        return self.next_look_s(beat)

    def next_look_s(self, beat: _source.Beat) -> float:
        return schedule.next_look_s(beat.item_s * (beat.n_items - beat.position), self.now_s, is_never_worth=False)


def best_in_hindsight(items: Items, host: Host, limits: Limits | None = None) -> tuple[float, str]:
    """Return seconds and name of the best among the loop and each start method from the first item on."""
    ways = [(items.total_s, SERIAL)]
    limits = limits or Limits()
    profile = Profile(n_sampled=1, item_s=items.mean_s)
    for name in host.costs:
        if name not in {FORK, LOKY}:
            continue
        plan = decide(profile, replace(host, costs={name: host.costs[name]}), items.n, limits)
        if plan.is_parallel:
            ways.append((run_plan(items, plan, 0), name))
    return min(ways)


# -- clusters --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """
    Workers across a network, and the one process that feeds them.

    Attributes:
        n: Workers.
        round_trip_s: Seconds of a message there and back.
        driver_s: Seconds of the driver per chunk: handing out and taking in.
        driver_item_s: Seconds of the driver per item: reading, pickling, unpickling.
        ahead: Chunks that wait at each worker.
    """

    n: int
    round_trip_s: float
    driver_s: float = 1e-3
    driver_item_s: float = 0.0
    ahead: int = 1


@dataclass(frozen=True)
class Load:
    """
    The steady state of a cluster.

    Attributes:
        chunk_items: Items per chunk.
        chunk_s: Seconds of work per chunk.
        chunks_per_s: Chunks through the driver per second.
        driver: Share of its time that the driver is busy; 1 is where it is the bottleneck.
        efficiency: Share of the workers' time that goes into items.
    """

    chunk_items: float
    chunk_s: float
    chunks_per_s: float
    driver: float
    efficiency: float


def steady(cluster: Cluster, item_s: float, chunk_items: float) -> Load:
    """
    Derive the steady state: the scarcest of workers, their windows, and the driver sets the pace.

    A worker's window of ``1 + ahead`` chunks comes back after a round trip and the driver's time, so at most that many
    chunks are run per ``chunk + round trip + driver``.
    """
    chunk_s = chunk_items * item_s
    each_s = cluster.driver_s + chunk_items * cluster.driver_item_s
    window_s = chunk_s + cluster.round_trip_s + each_s
    workers = cluster.n * min(1 / chunk_s, (1 + cluster.ahead) / window_s)
    rate = min(workers, 1 / each_s if each_s > 0 else math.inf)
    return Load(chunk_items, chunk_s, rate, rate * each_s, rate * chunk_s / cluster.n)


def policy_chunk(cluster: Cluster, item_s: float, n_items: int, batch_overhead_s: float) -> int:
    """Return the chunk that the real policy hands out with *n_items* left."""
    return schedule.Chunker(cluster.n, item_s, batch_overhead_s).size(n_items)


def cluster_machine(cluster: Cluster, chunk_items: float = 0.0) -> Machine:
    """Return the machine of a cluster, for :func:`run_flow`."""
    each_s = cluster.driver_s + chunk_items * cluster.driver_item_s
    return Machine(
        cluster.n,
        home_s=each_s / 2,
        out_s=each_s / 2,
        way_s=cluster.round_trip_s / 2,
        wake_s=0.0,
        look_s=0.0,
        hand_s=0.0,
        send_s=0.0,
        ahead=cluster.ahead,
        is_private=True,
    )
