"""
Workers on an input that comes as it is asked for, and the window of items between it and the consumer.

    next() ──► read input up to *buffersize* ahead ──► workers ──► yield in order, or as completed

Everything happens inside ``next()``, in the caller's thread: the input is never read anywhere else, and a consumer
that does not ask stops the reading.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amorsize import _backend, _dispatch, _learn, _profile, _weigh
from amorsize import _bounds as bounds
from amorsize import _cost as cost
from amorsize._backend import MISSING
from amorsize._gate import warn_of_late
from amorsize._records import THREADS
from amorsize.exceptions import AmorsizeError, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from amorsize._backend._job import Outcome
    from amorsize._evidence import Evidence
    from amorsize._plans import Plan
    from amorsize._records import Profile
    from amorsize._request import Ledger, Request

clock = time.perf_counter


def take_over(request: Request, ledger: Ledger, evidence: Evidence, plan: Plan, backend: Any) -> bool:
    """Do the rest of a map whose input is not all there yet; returns whether that was all of it."""
    window = Window(request, ledger.n_done, evidence, plan, backend)
    try:
        for _, _, result in window.results():
            if result is MISSING:
                ledger.failures[len(ledger.results)] = AmorsizeError("skipped")
            ledger.results.append(result)
    except Exception as error:
        _profile.add_results(error, dict(enumerate(ledger.results)) | getattr(error, "amorsize_results", {}))
        raise
    return not window.is_refused


class Window:
    """
    A stream's workers, and the window of items between its input and its consumer.

    Attributes:
        is_refused: Whether an item came that no worker may have: it is the next of the input.
        n_taken: Items that went to workers.
    """

    def __init__(
        self,
        request: Request,
        n_done: int,
        evidence: Evidence,
        plan: Plan,
        backend: Any,
        *,
        ordered: bool = True,
        buffersize: int | None = None,
    ) -> None:
        self._request = request
        self._ordered = ordered
        self._plan = plan
        self._buffer = _Buffer(plan, buffersize)
        self._n_done = n_done
        self._input_error: BaseException | None = None
        self._is_exhausted = self._is_slow = self.is_refused = False
        self._evidence = evidence
        # Threads see what items change; where nobody is to compute items here, workers have them all.
        self._kinds = None if plan.backend == THREADS or request.isolated else evidence.first_kinds()
        self.n_taken = 0
        # It is at this place that progress is seen: each result that is handed out counts.
        planned = replace(plan, n_jobs=min(plan.n_jobs, self._buffer.size))
        self._job = _dispatch.describe(request, n_done, planned, (), backend, follow=False)
        self._run: Any = None  # a Streaming, once it begins

    def results(self) -> Iterator[tuple[int, Any, Any]]:
        """Yield index, item and result; MISSING stands for a result that ``errors="skip"`` leaves out."""
        finished = False
        record = self._request.record
        try:
            record.ran = self._plan
            with _backend.no_interrupt():
                self._run = _backend.stream(self._plan.backend, self._job)
            yield from self._in_order() if self._ordered else self._as_completed()
            self._evidence.input.warn()
            if self._input_error is not None:
                raise self._input_error
            finished = True
        finally:
            if self._run is not None:
                self._run.close(kill=not finished)
                record.note_run(self._run.team.outcome)
                if finished:
                    _learn.from_run(self._request.state.key, self._plan, self._run.team.outcome)

    def _read(self, n_out: int, is_ready: Callable[[], bool]) -> None:
        """
        Read input until the buffer is full, or its source is slow and there is a result to yield meanwhile.

        An exception of the input waits for its turn.
        """
        team, buffer, iterator = self._run.team, self._buffer, self._request.source.iterator
        now = handed_out = clock()
        while not (self._is_exhausted or team.window.n_fed - n_out >= buffer.size or (self._is_slow and is_ready())):
            before = now
            try:
                item = next(iterator)
            except StopIteration:
                self._is_exhausted = True
            except (Exception, SystemExit, GeneratorExit) as error:  # raised after the items before it
                if self._job.is_outside(error):
                    raise
                self._is_exhausted, self._input_error = True, error
            else:
                if self._kinds is not None and self._kinds.are_new(item) and not self._admits(item):
                    self._request.source.iterator = itertools.chain((item,), iterator)
                    self._is_exhausted = self.is_refused = True
                    break
                buffer.weigh(item)
                team.feed(item)
                self.n_taken += 1
            now = clock()
            self._is_slow = now - before > bounds.READ_S
            if now - handed_out > bounds.READ_S:
                self._step(0)
                handed_out = now
        team.top_up_from(buffer.size, is_last=self._is_exhausted)

    def _admits(self, item: Any) -> bool:
        """Tell whether an item of a new kind may go to workers; warn where it does although it changes something."""
        if self._evidence.admits([item]):
            return True
        if self._request.limits.n_jobs is None:
            return False
        warn_of_late(self._request, self._evidence.profile, is_serial=False)
        self._kinds = None
        return True

    def _step(self, timeout_s: float) -> None:
        """Take in what has come, and hand out what is there."""
        team = self._run.team
        team.step(timeout_s)
        if self._ordered:
            self._check_death()
        self._buffer.learn(team.outcome, team.chunker.item_s)
        team.top_up_from(self._buffer.size, is_last=self._is_exhausted)

    def _in_order(self) -> Iterator[tuple[int, Any, Any]]:
        team, position = self._run.team, 0

        def is_ready() -> bool:
            return team.outcome.results[position] is not MISSING

        while True:
            self._read(position, is_ready)
            while not is_ready():
                if self._is_exhausted and position >= team.window.n_fed:
                    return
                self._step(bounds.STEP_S)
            yield self._hand_out(position)
            position += 1

    def _as_completed(self) -> Iterator[tuple[int, Any, Any]]:
        team, n_out = self._run.team, 0
        while True:
            self._read(n_out, lambda: bool(team.order))
            while not team.order:
                if self._is_exhausted and n_out >= team.window.n_fed:
                    return
                self._step(bounds.STEP_S)
            ready, team.order = team.order, []
            for place, position in enumerate(ready):
                if place + 1 == len(ready):
                    self._read(n_out, lambda: True)
                yield self._hand_out(position)
                n_out += 1

    def _check_death(self) -> None:
        """Raise a worker's death at once; results that have come home are in it."""
        outcome = self._run.team.outcome
        if outcome.died is not None and not self._request.keep_going:
            self._run.team.hear_out()
            finished = self._finished()
            died = outcome.died
            raise WorkerDied(died.args[0], finished, died.in_flight, died.cause)

    def _finished(self) -> dict[int, Any]:
        """Return the results that have come home and have not been yielded, by index."""
        outcome = self._run.team.outcome
        return {self._n_done + i: r for i, r in outcome.results.items() if i not in outcome.failures}

    def _hand_out(self, position: int) -> tuple[int, Any, Any]:
        """Return a result for good, or raise its item's exception."""
        team, request, index = self._run.team, self._request, self._n_done + position
        item = team.window.get(position)
        result = team.forget(position)
        if self._ordered:
            team.order.clear()
        error = team.outcome.failures.pop(position, None)
        if error is None:
            return index, item, result
        if not isinstance(error, AmorsizeError):
            request.name_item(error, index, item)
        if not (request.keep_going and isinstance(error, Exception)):
            _profile.add_results(error, self._finished())
            raise error
        return index, item, request.record.note_failure(index, error)


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
            self.size = bounds.CHUNKS_PER_WORKER * plan.n_jobs

    def weigh(self, item: Any) -> None:
        """Weigh the first item of a function never seen."""
        if self._arg_bytes is None:
            try:
                self._arg_bytes = _weigh.weigh_value(item, _backend.dumps_by_value)[0]
            except _weigh.NotPicklable:
                self._arg_bytes = _weigh.shallow_bytes(item)

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

    :data:`amorsize._bounds.CHUNKS_PER_WORKER` chunks per worker: of a quantum of work each, or less where that is more
    than :data:`amorsize._bounds.BUFFER_BYTES`, but not so little that dispatching them costs more than
    :data:`amorsize._cost.DISPATCH_SHARE`. At most :data:`amorsize._bounds.STREAM_MEMORY_SHARE` of the available memory.
    """
    n_chunks = bounds.CHUNKS_PER_WORKER * plan.n_jobs
    item_bytes = bounds.PLACE_BYTES + profile.arg_bytes + profile.result_bytes
    dispatch_s = plan.host.costs.get(plan.backend, cost.EXTERNAL_PRIOR).batch_overhead_s
    most_s, least_s = bounds.QUANTUM_S, min(bounds.QUANTUM_S, dispatch_s / cost.DISPATCH_SHARE)
    most, least = (n_chunks * max(1, int(s / max(profile.item_s, 1e-9))) for s in (most_s, least_s))
    wanted = min(most, max(least, bounds.BUFFER_BYTES // item_bytes))
    affordable = int(plan.host.memory_bytes * bounds.STREAM_MEMORY_SHARE / item_bytes)
    return max(2 * plan.n_jobs, min(wanted, affordable))
