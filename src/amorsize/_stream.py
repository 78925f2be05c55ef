"""
``imap``: results one by one, with bounded look-ahead and the same decision, promotion and explanation as ``map``.

    next() ──► loop: compute the item here, look at the clock ──► yield
                  │ evidence says parallel
                  ▼
    next() ──► :class:`amorsize._window.Window`: workers, some items ahead ──► yield
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from amorsize import _bounds as bounds
from amorsize import _known, _profile, _trace
from amorsize._backend import MISSING
from amorsize._evidence import Evidence
from amorsize._function import full_name
from amorsize._gate import Gate
from amorsize._learn import finish_stream, remember_stream
from amorsize._progress import follower_of
from amorsize._records import Span
from amorsize._request import Ledger
from amorsize._serial import one_by_one
from amorsize._window import Window

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from amorsize._plans import Plan
    from amorsize._request import Request

clock = time.perf_counter

T = TypeVar("T")


class Stream(Generic[T]):
    """
    The results of a function over items, one by one: an iterator, and a context manager.

    Close it, drop it, or leave its ``with`` block to stop the work: workers end, the input is not read any further.
    ``len(stream)`` is the number of results to come, where the number of items is known.
    """

    # The generator must not hold on to this object: dropping it must end the work at once, not at some collection.
    def __init__(self, course: Any) -> None:
        self._course: Any = course
        self._steps: Generator[T, None, None] = course.run()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return next(self._steps)

    def __length_hint__(self) -> int:
        n_left: int | None = self._course.n_left
        return NotImplemented if n_left is None else n_left

    def __len__(self) -> int:
        n_left: int | None = self._course.n_left
        if n_left is None or self._course.skips:
            why = "errors='skip' leaves some out" if n_left is not None else "the number of items is not known"
            raise TypeError(f"this stream has no len(): {why}")
        return n_left

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<amorsize.Stream of {self._course.name}: {self._course.rest}>"

    def close(self) -> None:
        """Stop the work. What has been yielded stays valid; asking for more raises StopIteration."""
        self._steps.close()
        self._course.is_over = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stream(request: Request, *, ordered: bool, buffersize: int | None, pairs: str | None) -> Stream[Any]:
    """Return the results of a function over the items of a source, one by one."""
    return Stream(_Course(request, ordered=ordered, buffersize=buffersize, pairs=pairs))


class _Course:
    """What happens in a stream, from its first item to its last."""

    def __init__(self, request: Request, *, ordered: bool, buffersize: int | None, pairs: str | None) -> None:
        self._request = request
        self._ledger = Ledger(request)
        self._evidence = Evidence(request, self._ledger)
        self._gate = Gate(request, self._ledger, self._evidence, is_stream=True)
        self._pairs = pairs
        self._n_out = 0  # items whose results have been yielded or left out
        self.is_over = False
        self.skips = request.limits.errors == "skip"
        self._ordered = ordered
        self._buffersize = buffersize
        # Workers were asked for: what is computed here is the first item of a function never seen, and the items that
        # are watched for what they change.
        self._is_fixed = request.limits.n_jobs not in {None, 1}

    @property
    def n_left(self) -> int | None:
        """Items whose results are still to come, None if unknown."""
        n_items = self._request.source.n_items
        if self.is_over:
            return 0
        return None if n_items is None else max(0, n_items - self._n_out)

    @property
    def name(self) -> str:
        """What the function is called."""
        return full_name(self._request.func).rpartition(".")[2]

    @property
    def rest(self) -> str:
        """What is still to come, in words."""
        if self.is_over:
            return "at its end"
        n_left = self.n_left
        if n_left is None:
            return f"{self._n_out} so far, of an unknown number"
        return f"{n_left} result{'s' * (n_left != 1)} to come" + " at most" * self.skips

    def run(self) -> Iterator[Any]:
        """Yield results, or pairs; those that are left out are not."""
        record, pairs = self._request.record, self._pairs
        record.began = clock()
        self._request.state.last = record
        record.so_far = self._evidence.so_far
        follower, is_left = self._follower(), False
        try:
            for index, item, result in self._results():
                self._n_out += 1
                if result is not MISSING:
                    left = clock()
                    try:
                        yield result if pairs is None else (index if pairs == "index" else item, result)
                    finally:
                        record.outside_s += clock() - left
                if follower is not None:
                    follower.update(self._n_out)
        except BaseException as error:
            is_left = isinstance(error, GeneratorExit)
            _trace.trim(error)
            raise
        finally:
            self.is_over = True
            if follower is not None:
                follower.close()
            finish_stream(self._request, self._evidence, self._n_out, is_left=is_left)
            self._evidence.forget()

    def _follower(self) -> Any:
        request, progress = self._request, self._request.options.progress
        if progress is False:
            return None
        return follower_of(request, progress, getattr(request.func, "__qualname__", "imap"))

    # -- the corridor ------------------------------------------------------------------------------------------------

    def _results(self) -> Iterator[tuple[int, Any, Any]]:
        """Yield index, item and result, computed here or by workers; MISSING for what is left out."""
        request, evidence = self._request, self._evidence
        request.initialize()
        known = _known.CACHE.get(request.state.key)
        evidence.recall(known)
        # Of an input that may go on with its first item, that one is computed here.
        if request.isolated or (
            self._is_fixed and request.source.is_data and known is not None and evidence.is_watched(0)
        ):
            plan, backend = self._gate.decide()
            if plan.is_parallel:
                yield from self._from_workers(plan, backend)
                return
        yield from self._loop()

    def _loop(self) -> Iterator[tuple[int, Any, Any]]:
        """Compute here, item by item; go parallel when the time spent says that it pays."""
        ledger, evidence = self._ledger, self._evidence
        spent_s, n_looked, looked_s = 0.0, 0, 0.0  # all of it, and what there was at the last look
        look_at = 0.0 if self._is_fixed else bounds.LOOK_S
        n_most, began = self._request.limits.sample_size, _profile.cpu_now()
        for item, _, item_s, _ in one_by_one(self._request, ledger, is_single=True):
            spent_s += item_s
            index, result, error = ledger.pop()
            if index < n_most:
                evidence.take_item(item, result, item_s, began)
            evidence.input.last_item = item
            yield index, item, result if error is None else self._request.record.left_over(index, error)
            if ledger.n_done < n_most:
                began = _profile.cpu_now()  # what the consumer computes is not the function's
            if spent_s < look_at:
                continue
            look_at = spent_s * 1.25 + bounds.LOOK_S
            # The mean since the last look: a single item during which something else had the core says nothing.
            decided = self._look((spent_s - looked_s) / (ledger.n_done - n_looked), spent_s)
            looked_s, n_looked = spent_s, ledger.n_done
            if decided is not None:
                yield from self._from_workers(*decided)
                return
            if self._is_fixed:
                # Where workers cannot be had, that does not change.
                look_at = spent_s if evidence.watch.is_on else math.inf
        remember_stream(self._request, self._ledger, self._evidence)

    def _look(self, item_s: float, spent_s: float) -> tuple[Plan, Any] | None:
        """Decide to go parallel, or not yet."""
        request, evidence, gate, n_done = self._request, self._evidence, self._gate, self._ledger.n_done
        if not evidence.is_weighed:
            evidence.take_profile()
        if self._is_fixed:
            if not evidence.is_watched(n_done):
                return None
        elif not gate.opens(item_s, spent_s):
            return None
        else:
            evidence.take_pace(item_s)
        plan, backend = gate.decide()
        if not plan.is_parallel:
            gate.refuse()
            return None
        if not self._is_fixed:
            why = f"{n_done} item{'' if n_done == 1 else 's'} took {spent_s:.3g} s in the loop"
            request.record.revise(f"go parallel: {plan.backend}, n_jobs={plan.n_jobs}", why, n_done)
        return plan, backend

    def _from_workers(self, plan: Plan, backend: Any) -> Iterator[tuple[int, Any, Any]]:
        """Have the rest computed by workers."""
        record, n_done = self._request.record, self._ledger.n_done
        if n_done:
            span = Span(lane="caller", begin_s=record.began, end_s=clock(), start=0, n_items=n_done, kind="sample")
            record.spans.append(span)
        window = Window(
            self._request, n_done, self._evidence, plan, backend, ordered=self._ordered, buffersize=self._buffersize
        )
        yield from window.results()
        if window.is_refused:
            self._ledger.n_gone += window.n_taken
            self._gate.stay_for_late_items()
            yield from self._loop()
