"""What a run brought home: results in order, failures, what died, and what it measured."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from amorsize._backend import _bounds as bounds
from amorsize._backend._worker import MISSING
from amorsize.exceptions import ItemTimeout, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._records import Span


class Outcome:
    """
    The results of items ``base`` to ``base + n_items``.

    Attributes:
        base: Index of the first item in the caller's input.
        n_items: Items in it.
        results: By position; MISSING until known, the exception where an item failed.
        failures: Exceptions by position.
        n_done: Results known, failures included.
        died: The first death of a worker that cost items, if any.
        deaths: Workers that died.
        suspects: Positions to run again because their worker died.
        attempts: How often each has been run again.
        spans: Who did what when, in seconds of the monotonic clock.
        start_s: Seconds until the first worker began, its end included; 0 if none did.
        start_each_s: Seconds of the caller that starting one worker took.
        close_s: Seconds that ending the workers took.
        n_chunks: Messages with results.
        n_bytes: Bytes in them.
        busy_s: Seconds workers spent on items.
        busy_items: Items they did.
        open_s: Seconds the caller spent unpacking them.
        read_s: Seconds the caller spent reading them, where that was measured.
        is_warm: Whether the workers were there before this run.
        sink: Given results as they come, if anybody wants them; see :class:`amorsize._backend._job.Job`.
        is_refused: Whether the system refused workers, so that items ran in the caller.
        is_cold: Whether what starts them, the fork server, was not.
    """

    n_done: int = 0
    died: WorkerDied | None = None
    deaths: int = 0
    start_s: float = 0.0
    start_each_s: float = 0.0
    close_s: float = 0.0
    n_chunks: int = 0
    n_bytes: int = 0
    busy_s: float = 0.0
    busy_items: int = 0
    open_s: float = 0.0
    read_s: float = 0.0
    is_warm: bool = False
    is_refused: bool = False
    is_cold: bool = False

    def __init__(
        self, base: int, n_items: int, sink: Callable[[int, Sequence[Any], Sequence[int]], None] | None = None
    ) -> None:
        self.base: int = base
        self.n_items: int = n_items
        self.sink: Callable[[int, Sequence[Any], Sequence[int]], None] | None = sink
        self.results: list[Any] = [MISSING] * n_items
        self.failures: dict[int, BaseException] = {}
        self.suspects: list[int] = []
        self.attempts: dict[int, int] = {}
        self.spans: list[Span] = []

    def put(self, start: int, results: list[Any], failures: Sequence[tuple[int, BaseException]]) -> None:
        """Take in the results of neighbours, the first at position *start*."""
        self.results[start : start + len(results)] = results
        self.n_done += len(results)
        for position, error in failures:
            self.failures[start + position] = error
        if self.sink is not None:
            self.sink(start, results, [position for position, _ in failures])

    def received(self, n_items: int, n_bytes: int, busy_s: float, open_s: float) -> None:
        """Add one message to the measurements."""
        self.n_chunks += 1
        self.n_bytes += n_bytes
        self.busy_s += busy_s
        self.busy_items += n_items
        self.open_s += open_s

    def is_complete(self, stop: int) -> bool:
        """Tell whether everything before *stop* is known."""
        return all(result is not MISSING for result in self.results[:stop])

    def is_done(self, limit: int, *, ends_with_a_death: bool) -> bool:
        """Tell whether everything that is still wanted, what stands before *limit*, is known."""
        if self.died and ends_with_a_death:
            return True
        if limit < self.n_items:
            return self.is_complete(limit)
        return self.n_done >= self.n_items

    def finished(self) -> dict[int, Any]:
        """Return the results that are known, by index in the caller's input."""
        return {
            self.base + i: result
            for i, result in enumerate(self.results)
            if result is not MISSING and i not in self.failures
        }


def overran(index: int, limit_s: float) -> ItemTimeout:
    """Say that an item was stopped for its time."""
    return ItemTimeout(f"item {index} took longer than timeout={limit_s:g} s and was stopped", index)


def died_idle(cause: str) -> WorkerDied:
    """Return what becomes of the items that are left when no worker lives long enough to begin one."""
    text = f"workers die before they begin an item, {bounds.MOST_IDLE_DEATHS} in a row, the last one: {cause}"
    return WorkerDied(text, {}, (), cause)


def describe_exit(status: int | None) -> str:
    """Say in words how a process ended, given its wait status."""
    if status is None:
        is_ignored = sys.platform != "win32" and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
        return "cause unknown, since the program ignores SIGCHLD" if is_ignored else "cause unknown"
    if status & 0x7F:
        number = status & 0x7F
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hints = {
            "SIGKILL": "killed by SIGKILL; the system does that when memory runs out",
            "SIGSEGV": "crashed with SIGSEGV in native code",
            "SIGABRT": "aborted with SIGABRT in native code",
            "SIGBUS": "crashed with SIGBUS; a full /dev/shm or disk does that",
        }
        return hints.get(name, f"ended by {name}")
    return f"ended by itself with exit code {(status >> 8) & 0xFF}"
