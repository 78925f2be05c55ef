"""
What goes between a carrier of tasks and those who use it: work, answers, finished chunks, and how a chunk is run.

Every way of carrying tasks makes and takes these records, in the caller and in the worker: threads (_threads), loky's
workers (_chunks), clusters (_clusters), workers that are sent their items (_pool, _tasks). :func:`run_quantum` runs at
least one item and returns soon after its quantum is over; what it has not begun is not in its results. What is loaded
here is loaded for threads too, whose first call it would show in: nothing that pickles.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amorsize import _outside
from amorsize import _schedule as schedule
from amorsize._backend import _worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

clock = time.perf_counter


@dataclass(eq=False, repr=False, match_args=False)
class Work:
    """Neighbouring items for one task: index of the first in the caller's input, the items, and how to run them."""

    start: int
    items: Any
    quantum_s: float
    block: int


@dataclass(eq=False, repr=False, match_args=False)
class Answer:
    """What became of a task: its result or its error; of its items, *n_begun* had been begun if its worker died."""

    number: int
    result: Any
    error: BaseException | None
    n_begun: int | None = None


@dataclass(eq=False, repr=False, match_args=False)
class Done:
    """One finished chunk: what the worker returns; large *buffers* of its results may have come beside their pickle."""

    results: Any
    n_items: int
    begin_s: float
    end_s: float
    lane: str
    buffers: Sequence[Any] = ()


class Unsendable(Exception):  # noqa: N818 - a signal between carrier and caller
    """Tells that the items of a task cannot be pickled; its cause is what pickling them raised."""


def send_by(dumps: Callable[[Any], Any], items: Any) -> Any:
    """
    Pickle items for a task; only what this raises is the items' doing.

    Raises:
        Unsendable: If they cannot be pickled.
    """
    try:
        return dumps(items)
    except Exception as error:
        _outside.pass_on(error)
        message = f"{type(error).__name__}: {error}"
        raise Unsendable(message) from error


def run_quantum(
    call: Callable[[Any], Any],
    items: Sequence[Any],
    quantum_s: float,
    block: int,
    *,
    keep_going: bool,
    look_s: float = 2 * schedule.CHECK_S,
    tell: Callable[[int], None] | None = None,
) -> tuple[list[Any], list[tuple[int, BaseException]]]:
    """Run items, at least one, until they are done or *quantum_s* is nearly over; every *look_s* looks at the clock."""
    look_s = min(quantum_s / 4, look_s)
    results: list[Any] = []
    failures: list[tuple[int, BaseException]] = []
    begin = now = clock()
    while len(results) < len(items) and (now - begin < quantum_s - look_s or not results):
        part = items[len(results) : len(results) + block]
        if tell is not None:
            tell(len(results) + len(part))
        done, failed = _worker.run_block(call, part, keep_going=keep_going)
        failures += [(len(results) + position, error) for position, error in failed]
        results += done
        if failed and not (keep_going and all(isinstance(e, Exception) for _, e in failed)):
            break
        before, now = now, clock()
        block = schedule.next_block(block, now - before, look_s)
    return results, failures
