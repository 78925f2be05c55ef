"""
``imap``: results one by one, with bounded look-ahead and the same decision, promotion and explanation as ``map``.

    next() ──► loop: compute the item here, look at the clock ──► yield
                  │ evidence says parallel
                  ▼
    next() ──► read input up to *buffersize* ahead ──► workers ──► yield in order, or as completed

Everything happens inside ``next()``, in the caller's thread: the input is never read anywhere else, and a consumer
that does not ask stops the reading.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from amorsize import _backend, _learn, _profile
from amorsize import _cost as cost
from amorsize import _schedule as schedule
from amorsize._backend import MISSING
from amorsize._call import Call
from amorsize._record import store
from amorsize._types import Revision, Span
from amorsize.exceptions import AmorsizeError, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from amorsize._backend._outcome import Outcome
    from amorsize._record import Options, State
    from amorsize._source import Source
    from amorsize._types import Plan, Profile

clock = time.perf_counter

# Share of the available memory that items read ahead and results waiting may take.
MEMORY_SHARE: Final = 0.1

# Chunks per worker that the buffer holds by default: one running, one waiting, and as many finished or being read.
CHUNKS_PER_WORKER: Final = 4

# Seconds of reading input after which what has been read is handed out and what has come home is looked at; and of one
# item from which its source counts as slow: a result that is there is not kept back for it. With a source of 5 ms per
# item a result came 0.24 s after its item was read, the time to read a whole buffer.
READ_S: Final = schedule.LOOK_S

# Bytes of items and results that are worth holding for a consumer that comes and goes: more only where chunks would
# otherwise be too small for what their dispatch costs. With whole quanta in the buffer, 200,000 items of 1 kB that take
# 20 us took 78 MB, 10,000 of them 52 (tests/benchmarks, stream-memory).
BUFFER_BYTES: Final = 8 << 20

# Bytes that an item in the buffer takes beside itself: two places in dictionaries, one in a list, and a number.
PLACE_BYTES: Final = 256


class Stream:
    """
    An iterator over the results of a function over items.

    Close it (or drop it) to stop the work: workers end, the input is not read any further.
    """

    # The generator must not hold on to this object: dropping it must end the work at once, not at some collection.
    def __init__(
        self,
        func: Callable[..., Any],
        state: State,
        options: Options,
        source: Source,
        kwargs: dict[str, Any] | None,
        *,
        ordered: bool = True,
        buffersize: int | None = None,
    ) -> None:
        course = _Course(Call(func, state, options, source, kwargs), ordered=ordered, buffersize=buffersize)
        self._steps: Iterator[Any] = course.run()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._steps)

    def close(self) -> None:
        """Stop the work. What has been yielded stays valid; asking for more raises StopIteration."""
        self._steps.close()  # type: ignore[attr-defined]  # it is a generator

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Course:
    """What happens in a stream, from its first item to its last."""

    def __init__(self, call: Call, *, ordered: bool, buffersize: int | None) -> None:
        self._call = call
        self._ordered = ordered
        self._buffersize = buffersize
        # Workers were asked for: then the first item of a function never seen is all that is computed here.
        self._is_fixed = call.limits.n_jobs not in {None, 1}

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> Iterator[Any]:
        """Yield results, MISSING ones left out."""
        call = self._call
        call.began = call.record.began = clock()
        call.state.last = call.record
        follower = self._follower()
        n_yielded = 0
        try:
            for result in self._results():
                if result is not MISSING:
                    yield result
                n_yielded += 1
                if follower is not None:
                    follower.update(n_yielded)
        finally:
            if follower is not None:
                follower.close()
            record = call.record
            record.actual_s = clock() - call.began
            if record.plan is None:
                record.n_items = n_yielded if call.source.n_items is None else call.source.n_items
                record.profile = replace(call.profile, n_head=0, head_s=0.0)
            if (kept := store()) is not None:
                kept.keep(call.state.key, record.actual_s)

    def _follower(self) -> Any:
        progress = self._call.options.progress
        if not progress:
            return None
        from amorsize._progress import Follower  # noqa: PLC0415 - only progress needs it

        call = self._call
        return Follower(
            progress,
            getattr(call.func, "__qualname__", "imap"),
            lambda: call.source.n_items,
            lambda: None if call.record.plan is None else call.record.plan.predicted_s,
        )

    def _results(self) -> Iterator[Any]:
        call = self._call
        call.initialize()
        known = _profile.CACHE.get(call.state.key)
        call.recall(known)
        if call.isolated or (self._is_fixed and known is not None):
            decided = self._decide(0)
            if decided is not None:
                yield from _Parallel(self, *decided, n_done=0).results()
                return
        yield from self._loop()

    def _loop(self) -> Iterator[Any]:
        """Compute here, item by item; go parallel when the time spent says that it pays."""
        call = self._call
        sampler = call.samples = _profile.Sampler(call.call)
        source, keep_going, skip = call.source, call.keep_going, call.limits.errors == "skip"
        spent_s, n_done = 0.0, 0
        looked_s, n_looked = 0.0, 0  # spent and done at the last look
        look_at = 0.0 if self._is_fixed else schedule.LOOK_S
        cpu, own = time.process_time(), time.thread_time()
        for item in source.iterator:
            before = clock()
            try:
                result = call.call(item)
            except BaseException as error:
                _profile.add_item_note(error, n_done, item)
                if not (keep_going and isinstance(error, Exception)):
                    raise
                result = error
                if skip:
                    call.record.skipped.append(n_done)
            taken = clock() - before
            spent_s += taken
            if n_done < call.limits.sample_size:
                sampler.items.append(item)
                sampler.results.append(result)
                sampler.times.append(taken)
                sampler.cpu_s = time.process_time() - cpu
                sampler.own_s = time.thread_time() - own
                call.first_item = sampler.items[0]
            n_done += 1
            yield (MISSING if skip and _is_failure(call, n_done - 1) else result)
            if spent_s >= look_at:
                look_at = spent_s * 1.25 + schedule.LOOK_S
                # The mean since the last look: a single item during which something else had the core says nothing.
                decided = self._look((spent_s - looked_s) / (n_done - n_looked), n_done, spent_s)
                looked_s, n_looked = spent_s, n_done
                if decided is not None:
                    call.record.spans.append(
                        Span(lane="caller", begin_s=call.began, end_s=clock(), start=0, n_items=n_done, kind="sample")
                    )
                    yield from _Parallel(self, *decided, n_done=n_done).results()
                    return
                if self._is_fixed:
                    look_at = math.inf  # workers cannot be had; that does not change
        if sampler.times:
            self._remember(sampler.profile(), n_done)

    def _remember(self, seen: Profile, n_done: int) -> None:
        """Keep what the first items of a loop took; what moving such items costs stays known if it was."""
        call = self._call
        known = _profile.CACHE.get(call.state.key)
        if known is not None and known.is_like(call.first_item):
            _profile.refresh(call.state.key, seen.item_s, seen.n_sampled)
        else:
            call.profile = seen
            _profile.remember(call.state.key, seen, call.first_item, n_done)

    def _look(self, item_s: float, n_done: int, spent_s: float) -> tuple[Plan, Any] | None:
        """Decide to go parallel, or not yet."""
        call = self._call
        if self._is_fixed:
            if not call.weighed and call.samples is not None:
                call.profile = call.samples.profile()
            return self._decide(n_done)
        n_items = call.source.n_items
        costs = call.cheapest()
        gain = 0.5 * costs.efficiency - (cost.transfer_item_s(call.profile, costs) if call.weighed else 0) / max(
            item_s, 1e-9
        )
        n_left = None if n_items is None else n_items - n_done
        start_s = costs.start_s + costs.start_each_s
        if not schedule.should_promote(item_s, n_left, spent_s, start_s, gain):
            return None
        sampler = call.samples
        if sampler is not None and sampler.times and not call.weighed:
            call.profile = sampler.profile()
        call.profile = replace(call.profile, item_s=item_s)
        decided = self._decide(n_done)
        if decided is not None:
            why = f"{n_done} items took {spent_s:.3g} s in the loop"
            what = f"go parallel: {decided[0].backend}, n_jobs={decided[0].n_jobs}"
            call.record.revisions.append(Revision(at_s=clock() - call.began, n_done=n_done, what=what, why=why))
        return decided

    def _decide(self, n_done: int) -> tuple[Plan, Any] | None:
        """Decide for the rest of the stream, whose items are sent to workers one chunk after the other."""
        call = self._call
        plan, backend = call.decide(n_done, stream=True)
        return (plan, backend) if plan.is_parallel else None

    # -- for map over an input that is still being produced ----------------------------------------------------------

    def take_over(self) -> bool:
        """Do the rest of a map whose input is not all there yet; True if it did."""
        call = self._call
        n_done = len(call.results)
        decided = self._decide(n_done)
        if decided is None:
            return False
        parallel = _Parallel(self, *decided, n_done=n_done)
        for result in parallel.results():
            if result is MISSING:
                call.failures[len(call.results)] = AmorsizeError("skipped")
            call.results.append(result)
        return True


def take_over(call: Call) -> bool:
    """Do the rest of a map whose input is not all there yet; True if it did."""
    return _Course(call, ordered=True, buffersize=None).take_over()


def _is_failure(call: Call, index: int) -> bool:
    return bool(call.record.skipped) and call.record.skipped[-1] == index


class _Parallel:
    """A stream's workers, and the window of items between its input and its consumer."""

    def __init__(self, stream: _Course, plan: Plan, backend: Any, *, n_done: int) -> None:
        self.call = stream._call  # noqa: SLF001 - of this module
        self.ordered = stream._ordered  # noqa: SLF001 - of this module
        self.plan = plan
        self.buffer = _Buffer(plan, stream._buffersize)  # noqa: SLF001 - of this module
        self.n_jobs = min(plan.n_jobs, self.buffer.size)
        self.n_done = n_done
        self.input_error: BaseException | None = None
        self.exhausted = self.is_slow = False
        self.job = self.call.job(plan, (), backend)
        self.job.base, self.job.n_jobs, self.job.progress = n_done, self.n_jobs, None

    def results(self) -> Iterator[Any]:
        """Yield results; MISSING stands for one that ``errors="skip"`` leaves out."""
        finished = False
        run: Any = None
        try:
            with _backend.no_interrupt():
                run = self.run = _backend.Streaming(self.plan.backend, self.job)
            yield from self._in_order() if self.ordered else self._as_completed()
            if self.input_error is not None:
                raise self.input_error
            finished = True
        finally:
            if run is not None:
                run.close(kill=not finished)
                self.call.record.spans += run.team.outcome.spans
            if finished:
                _learn.from_run(self.call.state.key, self.plan, self.run.team.outcome)

    def _read(self, n_out: int, is_ready: Callable[[], bool]) -> None:
        """
        Read input until the buffer is full, or its source is slow and there is a result to yield meanwhile.

        An exception of the input waits for its turn.
        """
        team, buffer, iterator = self.run.team, self.buffer, self.call.source.iterator
        now = handed_out = clock()
        while not (self.exhausted or team.window.n_fed - n_out >= buffer.size or (self.is_slow and is_ready())):
            before = now
            try:
                item = next(iterator)
            except StopIteration:
                self.exhausted = True
            except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001 - raised after the items before it
                self.exhausted, self.input_error = True, error
            else:
                buffer.weigh(item)
                team.feed(item)
            now = clock()
            self.is_slow = now - before > READ_S
            if now - handed_out > READ_S:
                self._step(0)
                handed_out = now
        team.top_up_from(buffer.size, is_last=self.exhausted)

    def _step(self, timeout_s: float) -> None:
        """Take in what has come, and hand out what is there."""
        team = self.run.team
        team.step(timeout_s)
        if self.ordered:
            self._check_death()
        self.buffer.learn(team.outcome, team.chunker.item_s)
        team.top_up_from(self.buffer.size, is_last=self.exhausted)

    def _in_order(self) -> Iterator[Any]:
        team, position = self.run.team, 0

        def is_ready() -> bool:
            return team.outcome.results[position] is not MISSING

        while True:
            self._read(position, is_ready)
            while not is_ready():
                if self.exhausted and position >= team.window.n_fed:
                    return
                self._step(0.5)
            yield self._hand_out(position)
            position += 1

    def _as_completed(self) -> Iterator[Any]:
        team, n_out = self.run.team, 0
        while True:
            self._read(n_out, lambda: bool(team.order))
            while not team.order:
                if self.exhausted and n_out >= team.window.n_fed:
                    return
                self._step(0.5)
            ready, team.order = team.order, []
            for place, position in enumerate(ready):
                if place + 1 == len(ready):
                    self._read(n_out, lambda: True)
                yield self._hand_out(position)
                n_out += 1

    def _check_death(self) -> None:
        """Raise a worker's death at once; results that have come home are in it."""
        outcome = self.run.team.outcome
        if outcome.died is not None and not self.call.keep_going:
            self.run.team.hear_out()
            finished = {self.n_done + i: r for i, r in outcome.results.items() if i not in outcome.failures}  # type: ignore[attr-defined]  # a stream's results are a dict
            died = outcome.died
            raise WorkerDied(died.args[0], finished, died.in_flight, died.cause)

    def _hand_out(self, position: int) -> Any:
        """Return a result for good, or raise its item's exception."""
        team, call = self.run.team, self.call
        item = team.window.get(position)
        result = team.forget(position)
        if self.ordered:
            team.order.clear()
        error = team.outcome.failures.pop(position, None)
        if error is None:
            return result
        if not isinstance(error, AmorsizeError):
            _profile.add_item_note(error, self.n_done + position, item)
        if not (call.keep_going and isinstance(error, Exception)):
            raise error
        if call.limits.errors == "skip":
            call.record.skipped.append(self.n_done + position)
            return MISSING
        return error


class _Buffer:
    """
    How many items may be read ahead: as many as the caller said, else what keeps the workers busy as of now.

    Of a function never seen, one item per chunk until the first chunk has come home: its items may take nothing, or
    for ever.

    Attributes:
        size: Items.
    """

    __slots__ = ("_arg_bytes", "_is_fixed", "_n_chunks", "_plan", "size")

    def __init__(self, plan: Plan, asked: int | None) -> None:
        self._plan = plan
        self._is_fixed = asked is not None
        self._n_chunks = 0
        self._arg_bytes: int | None = plan.profile.arg_bytes if plan.profile.n_sampled else None
        if asked is not None:
            self.size = asked
        elif plan.profile.n_sampled:
            self.size = default_buffersize(plan, plan.profile)
        else:
            self.size = CHUNKS_PER_WORKER * plan.n_jobs

    def weigh(self, item: Any) -> None:
        """Weigh the first item of a function never seen."""
        if self._arg_bytes is None:
            try:
                self._arg_bytes = _profile.weigh_value(item, _backend.dumps_by_value)[0]
            except _profile.NotPicklable:
                self._arg_bytes = _profile.shallow_bytes(item)

    def learn(self, outcome: Outcome, item_s: float) -> None:
        """Follow what items take in the workers, *item_s* of late."""
        if self._is_fixed or outcome.n_chunks == self._n_chunks:
            return
        self._n_chunks = outcome.n_chunks
        known = self._plan.profile
        result_bytes = known.result_bytes if known.n_sampled else outcome.n_bytes // max(1, outcome.busy_items)
        profile = replace(known, item_s=item_s, arg_bytes=self._arg_bytes or 0, result_bytes=result_bytes)
        self.size = default_buffersize(self._plan, profile)


def default_buffersize(plan: Plan, profile: Profile) -> int:
    """
    Return how many items to read ahead: enough chunks for every worker, within a share of the memory.

    :data:`CHUNKS_PER_WORKER` chunks per worker: of a quantum of work each, or less where that is more than
    :data:`BUFFER_BYTES`, but not so little that dispatching them costs more than :data:`amorsize._cost.DISPATCH_SHARE`.
    At most :data:`MEMORY_SHARE` of the available memory.
    """
    n_chunks = CHUNKS_PER_WORKER * plan.n_jobs
    item_bytes = PLACE_BYTES + profile.arg_bytes + profile.result_bytes
    dispatch_s = plan.host.costs.get(plan.backend, cost.EXTERNAL_PRIOR).batch_overhead_s
    most_s, least_s = cost.QUANTUM_S, min(cost.QUANTUM_S, dispatch_s / cost.DISPATCH_SHARE)
    most, least = (n_chunks * max(1, int(s / max(profile.item_s, 1e-9))) for s in (most_s, least_s))
    wanted = min(most, max(least, BUFFER_BYTES // item_bytes))
    affordable = int(plan.host.memory_bytes * MEMORY_SHARE / item_bytes)
    return max(2 * plan.n_jobs, min(wanted, affordable))
