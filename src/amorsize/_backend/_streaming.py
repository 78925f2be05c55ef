"""
A run whose items arrive while it goes on: the same hand-out, answers and deaths as a map's, over a moving window.

A stream makes a :class:`Streaming`, which has the workers until it is closed, feeds its team items as they come, and
takes results from it. The team keeps the items and results that have not been handed out yet, and no others.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from amorsize._backend import _bounds as bounds
from amorsize._backend import _local, _runs, _threads
from amorsize._backend._carrier import Callbacks, Refused
from amorsize._backend._flow import FlowTeam
from amorsize._backend._worker import MISSING, NoWorkersError
from amorsize._outside import pass_on
from amorsize._records import FORK, FORKSERVER, LOKY, THREADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amorsize._backend._carrier import Carrier
    from amorsize._backend._chunks import Board
    from amorsize._backend._clusters.base import Cluster
    from amorsize._backend._job import Job


class Window:
    """Items by position, of which only those not yet finished are kept."""

    __slots__ = ("_items", "n_fed")

    def __init__(self) -> None:
        self._items: dict[int, Any] = {}
        self.n_fed = 0

    def __len__(self) -> int:
        return self.n_fed

    def __getitem__(self, part: slice) -> list[Any]:
        return [self._items[i] for i in range(part.start, part.stop)]

    def feed(self, item: Any) -> int:
        """Add the next item; returns its position."""
        position = self.n_fed
        self._items[position] = item
        self.n_fed += 1
        return position

    def get(self, position: int) -> Any:
        """Return one item, MISSING if it has been dropped."""
        return self._items.get(position, MISSING)

    def drop(self, position: int) -> Any:
        """Forget an item; returns it."""
        return self._items.pop(position, MISSING)


class _Results(dict[int, Any]):
    """Results by position that can be filled like a list's slice."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, slice):
            self.update(zip(range(key.start, key.stop), value, strict=True))
        else:
            super().__setitem__(key, value)

    def __missing__(self, key: int) -> Any:
        return MISSING


class StreamTeam(FlowTeam):
    """The caller's side of a stream."""

    # Its user may keep one result in a thousand.
    apart = True

    def __init__(self, job: Job, carrier: Carrier) -> None:
        self.window = Window()
        # Items are sliced and measured only, which a window can.
        super().__init__(replace(job, items=self.window), carrier)  # type: ignore[arg-type]  # no Sequence
        self.outcome.results = _Results()  # type: ignore[assignment]  # indexed like the list it stands for
        self.outcome.spans = deque(maxlen=bounds.MOST_SPANS)  # type: ignore[assignment]  # a list as far as anybody asks
        self.limit = 1 << 62
        self.order: list[int] = []

    def feed(self, item: Any) -> int:
        """Take in the next item."""
        position = self.window.feed(item)
        self.ranges.give_last(position, position + 1)
        return position

    def size(self, buffersize: int) -> int:
        """Return the items of the next chunk: a share of the buffer, so that every worker has one and one waits."""
        share = max(1, buffersize // (2 * self.n_jobs))
        if self.job.batch_size is not None:
            return min(self.job.batch_size, share)
        return max(1, min(share, self.chunker.size(1 << 40)))

    def step(self, timeout_s: float) -> None:
        """Take in what has come."""
        self.take(timeout_s)

    def top_up_from(self, buffersize: int, *, is_last: bool) -> None:
        """Hand out whole chunks while there are some; smaller ones where a worker would have nothing to do."""
        if self.deaths.down_by:
            return
        wanted = 1 if self.job.timeout is not None else self.size(buffersize)
        most = self.most_in_flight(self.carrier.ahead)
        while self.ranges.n_left and len(self.in_flight) < most:
            is_hungry = len(self.in_flight) < self.n_jobs
            if self.ranges.n_left < wanted and not is_hungry and not is_last:
                return
            taken = self.ranges.take(wanted if not is_last else min(wanted, max(1, self.ranges.n_left // self.n_jobs)))
            if taken is None:
                return
            self._submit(*taken)

    def accept(self, start: int, results: list[Any], failures: Sequence[tuple[int, BaseException]]) -> None:
        """Take in the results of neighbours, and keep the order in which they came."""
        self.order += range(start, start + len(results))
        super().accept(start, results, failures)

    def forget(self, position: int) -> Any:
        """Hand out a result for good; returns it."""
        self.window.drop(position)
        return self.outcome.results.pop(position)


class Streaming:
    """Workers for a stream, open until closed; where the system refuses them, the caller does the items."""

    def __init__(self, backend: str, job: Job) -> None:
        self._backend = backend
        self._pid = os.getpid()
        self._cluster: Cluster | None = None
        self._threads: _threads.Threads | None = None
        self._pool: Any = None
        self._board: Board | None = None
        carrier: Any
        job, refusal = self._start(backend, job)
        if refusal is not None:
            carrier = Refused(backend, refusal)
        elif backend in {FORK, FORKSERVER}:
            carrier = self._pool
        elif backend == THREADS:
            self._threads = _threads.Threads(job.n_jobs)
            carrier = Callbacks(self._threads, ahead=1)
        elif backend == LOKY:
            self._board = _runs.make_board()
            ahead = 1 if _local.LOKY.n_workers() == job.n_jobs else 0
            carrier = Callbacks(_local.LOKY, ahead=ahead, board=self._board)
        else:
            try:
                cluster = _local.clusters().carrier(job.backend, job.n_jobs, backend).__enter__()
                self._cluster, carrier = cluster, Callbacks(cluster, ahead=1)
            except NoWorkersError as error:
                carrier = Refused(backend, error)
        self._carrier = carrier if self._board is not None else None
        self.team = StreamTeam(job, carrier)
        if backend == LOKY:  # last: until here it could fail, and nobody would close it
            _local.LOKY.enter()

    def _start(self, backend: str, job: Job) -> tuple[Job, OSError | None]:
        """Pack the function and start local workers; returns the job, and why that cannot be done, None if it has."""
        try:
            if backend not in {FORK, FORKSERVER, THREADS}:
                job = _runs.packed(job, is_cold=False, ambient=backend == LOKY)
            if backend == LOKY:
                _local.LOKY.ensure(job.n_jobs, job.threads)
            elif backend == FORKSERVER:
                self._pool = _runs.server_pool(job)
            elif backend == FORK:
                self._pool = _runs.forks().fork_pool(job)
        except OSError as error:
            pass_on(error)
            return job, error
        return job, None

    def close(self, *, kill: bool) -> None:
        """End the work; *kill* where some of it is still running and no longer wanted."""
        self.team.close()
        if self._pool is not None:
            self._pool.close(kill=kill)
        if os.getpid() != self._pid:
            return  # a forked copy of the program: all else is its parent's
        if self._threads is not None:
            self._threads.close()
        if self._cluster is not None:
            self._cluster.__exit__()
        if self._backend == LOKY:
            self._leave(kill=kill)

    def _leave(self, *, kill: bool) -> None:
        """Be done with loky's workers, however the last look at them ends."""
        is_busy = True
        try:
            is_busy = kill and not sys.is_finalizing() and not self._settled()  # at exit the pool has been ended
            if self._carrier is not None:
                self._carrier.hear_out()
        finally:
            if self._board is not None:
                self._board.close()
            _local.LOKY.leave(broken=self.team.outcome.deaths > 0, busy=is_busy)

    def _settled(self) -> bool:
        """Let chunks that are running end, each within its quantum; returns whether they have."""
        deadline = monotonic() + bounds.STREAM_END_S
        while self.team.in_flight and monotonic() < deadline:
            self.team.ranges.drop_from(0)
            self.team.take(0.1)
        return not self.team.in_flight
