"""
The loop in the calling thread: it looks at the clock every few milliseconds and says where workers may pay.

    seconds per item of late ◄── loop ──► the items end

Items of plain data run as one comprehension, whatever else one at a time. It never decides: what it proposes is for the
caller to decide, who asks for the next proposal if the loop is to go on.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

from amorsize import _bounds as bounds
from amorsize import _pace as pace
from amorsize import _schedule as schedule
from amorsize._gate import is_never_worth
from amorsize._source import Beat, note_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amorsize._evidence import Evidence
    from amorsize._gate import Gate
    from amorsize._request import Ledger, Request

clock = time.perf_counter


class Stopped(Exception):  # noqa: N818 - a carrier between this room and the next
    """Carries a StopIteration of the function out of the loop: a generator would make another exception of it."""

    def __init__(self, error: StopIteration) -> None:
        super().__init__(error)
        self.error = error


class SerialLoop:
    """The rest of a map as a loop."""

    def __init__(self, request: Request, ledger: Ledger, evidence: Evidence, gate: Gate) -> None:
        self._request = request
        self._ledger = ledger
        self._evidence = evidence
        self._gate = gate
        self._n_collections: int | None = None

    def run(self, *, carefully: bool = False) -> Iterator[float]:
        """Compute what is left, *carefully* one at a time; yields seconds per item where they speak for workers."""
        request = self._request
        if carefully or not request.source.is_plain or request.keep_going or request.keeper is not None:
            return self._one_by_one()
        return self._in_blocks()

    def _in_blocks(self) -> Iterator[float]:
        request, ledger, evidence, gate = self._request, self._ledger, self._evidence, self._gate
        source, call, began = request.source, request.call, request.record.began
        due = (began if evidence.samples is None else clock()) + bounds.LOOK_S
        self._is_doubtful()
        is_first = not evidence.is_recalled
        beat = Beat(source, ledger.n_done, evidence.profile.item_s, due, self._think, is_first=is_first)
        while beat.position < beat.n_items:
            try:
                done = [call(item) for block in beat.blocks() for item in block]
            except BaseException as error:
                note_error(error, source.data, beat.current(), request.name_item)
                if isinstance(error, StopIteration):
                    raise Stopped(error) from None
                raise
            ledger.add(done)
            ledger.report()
            evidence.first_rate_s = evidence.first_rate_s or beat.first_rate_s
            if beat.position < beat.n_items:
                elapsed_s = clock() - began
                if gate.opens(beat.item_s, elapsed_s):
                    yield beat.item_s
                beat.due = clock() + self._next_look_s(beat.item_s * (beat.n_items - beat.position), elapsed_s)

    def _think(self, beat: Beat) -> float | None:
        """Return the seconds until the next look at the clock; None to look closer, with the results at hand."""
        request, evidence, gate = self._request, self._evidence, self._gate
        elapsed_s, n_left = clock() - request.record.began, beat.n_items - beat.position
        if request.check is not None:
            request.check()
        if request.progress is not None:
            request.progress(beat.position)
        if gate.speaks_for_workers(beat.item_s, n_left, elapsed_s):
            if self._is_doubtful():
                return bounds.BEAT_S
            if evidence.is_weighed or evidence.samples is None:
                return None
            evidence.inspect()  # with the sample at hand the loop need not stop for that
            if gate.speaks_for_workers(beat.item_s, n_left, elapsed_s):
                return None
        return self._next_look_s(beat.item_s * n_left, elapsed_s)

    def _is_doubtful(self) -> bool:
        """
        Tell whether the latest block may be slow for a full pass of the garbage collector: the next one will tell.

        Parsing rows of 0.35 ms, one item in some hundred took 13 ms; in a block of five that looks like slow items.
        """
        before, self._n_collections = self._n_collections, gc.get_stats()[2]["collections"]
        return before != self._n_collections and before is not None

    def _next_look_s(self, rest_s: float, elapsed_s: float) -> float:
        """Return the seconds until the next look."""
        wait_s = schedule.next_look_s(
            rest_s, elapsed_s, is_never_worth=is_never_worth(rest_s, self._request.limits.prefer)
        )
        return wait_s if self._request.check is None else min(wait_s, bounds.CANCEL_LOOK_S)

    def _one_by_one(self) -> Iterator[float]:
        source, ledger, evidence = self._request.source, self._ledger, self._evidence
        spent_s = 0.0
        for last, n_items, item_s, took_s in one_by_one(self._request, ledger):
            spent_s += item_s * n_items
            evidence.note_first(last)
            evidence.input.last_item = last
            ledger.report()
            elapsed_s = evidence.profile.head_s + spent_s
            if took_s >= bounds.LOOK_S / 4 and self._gate.opens(item_s, elapsed_s):
                iterator = source.iterator
                yield item_s
                if source.iterator is not iterator:
                    spent_s = 0.0


def one_by_one(request: Request, ledger: Ledger, *, is_single: bool = False) -> Iterator[tuple[Any, int, float, float]]:
    """
    Compute the source's items one at a time; yields after each block of some milliseconds, or *is_single* each item.

    For items from any iterator, or with an error policy. The results are in the ledger.

    Yields:
        The last item of the block, the number of its items, seconds per item, and seconds of the block with its input.
    """
    iterator = None
    # Between two blocks a decision may read ahead; what it read is then in front of the source's iterator.
    while iterator is not request.source.iterator:
        iterator = request.source.iterator
        for block in _blocks(request, ledger, is_single=is_single):
            yield block
            if request.source.iterator is not iterator:
                break


def _blocks(request: Request, ledger: Ledger, *, is_single: bool) -> Iterator[tuple[Any, int, float, float]]:
    call, results, keep_going, check = request.call, ledger.results, request.keep_going, request.check
    # The first item of each block is timed alone: the seconds of a block include those of a slow producer.
    n_before, block_began, count = len(results), clock(), 1
    first_s = 0.0
    for item in request.source.iterator:
        is_first = len(results) == n_before
        before = clock() if is_first else 0.0
        try:
            result = call(item)
        except BaseException as error:
            if not (keep_going and isinstance(error, Exception)) or request.is_outside(error):
                request.name_item(error, ledger.n_done, item)
                if isinstance(error, StopIteration) and not is_single:
                    raise Stopped(error) from None
                raise
            ledger.fail(ledger.n_done, error, item)
            result = error
        results.append(result)
        if is_first:
            first_s = clock() - before
            if is_single:
                if check is not None:
                    check()
                yield item, 1, first_s, first_s
                n_before = len(results)
                continue
        count -= 1
        if count > 0:
            continue
        took_s, n_done = clock() - block_began, len(results) - n_before
        if check is not None:
            check()
        ledger.keep()
        count = pace.next_block(n_done, took_s, bounds.LOOK_S)
        item_s = min(first_s, took_s / n_done) if n_done < bounds.FEW else took_s / n_done
        yield item, n_done, item_s, took_s
        n_before, block_began = len(results), clock()
