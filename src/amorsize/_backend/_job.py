"""One run: the record that every kind of workers is given, and what it brought home."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from amorsize import _outside
from amorsize._backend import _bounds as bounds
from amorsize._backend import _worker
from amorsize._backend._worker import MISSING
from amorsize._trace import warn
from amorsize.exceptions import ItemTimeout, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._backend._parcel import Parcel
    from amorsize._outside import Handlers
    from amorsize._records import Span


# -- what is to be done ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Job:
    """
    One run: what to call on which items, and under which rules.

    Attributes:
        func: The undecorated function.
        items: All items left; only indexed and sliced.
        call: The function of one item, as ``make_call`` makes it of the function.
        handlers: The program's handlers of signals as the run begins; a copy of the record keeps them.
        base: Index of the first in the caller's input.
        star: Whether an item is unpacked into arguments.
        kwargs: Constant keyword arguments.
        importable: Whether workers can import the function by name.
        n_jobs: Processes or threads computing at once.
        n_cpus: CPUs that the plan has for them.
        batch_size: Exact size of chunks, or None.
        caller_computes: Whether the caller is one of the ``n_jobs``.
        item_s: Expected seconds per item.
        batch_overhead_s: Seconds one chunk costs.
        keep_going: Whether to go on after a failed item.
        retries: How often an item whose worker died may run again.
        timeout: Seconds one item may take, or None.
        progress: Called with the items done so far.
        sink: Given results as they come: the position of the first, the results, and which of them failed, from it.
        stays_out: Whether the caller leaves the items to its workers, so that its process has time for other things.
        check: Called while the caller waits and between its own blocks; what it raises ends the run as Ctrl-C does.
        first: Positions to hand out before all others, one by one.
        is_tight: Tells whether memory is running out: fewer workers then get work.
        blocker: Says why this process must not be forked any more, or ""; asked before a fork in mid-run, since items
            have run here meanwhile, which may have started threads or opened files.
        initializer: Called once in each worker.
        initargs: Its arguments.
        backend: joblib's backend object, for external ones.
        parcel: The packed function, where it is sent; None where it is not.
        repack: Packs it by value, for workers whose code differs.
        is_cold: Whether workers are still to be started: the caller works until they answer.
    """

    func: Callable[..., Any]
    items: Sequence[Any]
    call: Callable[[Any], Any]
    handlers: Handlers
    base: int = 0
    star: bool = False
    kwargs: dict[str, Any] | None = None
    importable: bool = False
    n_jobs: int = 2
    n_cpus: int = field(default_factory=lambda: os.cpu_count() or 1)
    batch_size: int | None = None
    caller_computes: bool = False
    item_s: float = 0.001
    batch_overhead_s: float = 100e-6
    keep_going: bool = False
    retries: int = 0
    timeout: float | None = None
    progress: Callable[[int], None] | None = None
    stays_out: bool = False
    check: Callable[[], None] | None = None
    sink: Callable[[int, Sequence[Any], Sequence[int]], None] | None = None
    first: Sequence[int] = ()
    is_tight: Callable[[], bool] | None = None
    blocker: Callable[[], str] | None = None
    initializer: Callable[..., Any] | None = None
    initargs: tuple[Any, ...] = ()
    backend: Any = None

    # Filled in by the adapter where workers need more than a fork does.
    parcel: Parcel | None = None
    repack: Callable[[], Parcel] | None = None
    is_cold: bool = False

    def is_outside(self, error: BaseException) -> bool:
        """Tell whether the program itself has raised *error* into an item that the caller runs."""
        return _outside.is_outside(error, self.handlers, self.func)

    def run_here(self, items: Sequence[Any]) -> tuple[list[Any], list[tuple[int, BaseException]]]:
        """Run a block in the caller: like ``run_block``, but Ctrl-C and the program's own handlers end the map."""
        with _worker.nested_thread():
            return _worker.run_block(self.call, items, keep_going=self.keep_going, is_outside=self.is_outside)

    @property
    def caller_may_compute(self) -> bool:
        """Whether items may run in the caller beside the workers."""
        return self.timeout is None and not self.retries and self.initializer is None and not self.stays_out

    @property
    def ends_with_a_death(self) -> bool:
        """Whether a worker's death that costs items ends the run."""
        return not self.keep_going and not self.retries

    def goes_on(self, error: BaseException) -> bool:
        """Tell whether work goes on after a failure: by the policy, or since ``retries`` promised the rest."""
        if isinstance(error, WorkerDied) and self.retries:
            return True
        return self.keep_going and isinstance(error, Exception)

    @property
    def threads(self) -> int:
        """Threads that the numerical libraries of each worker get."""
        return threads_each(self.n_cpus, self.n_jobs)

    @property
    def initialize(self) -> Callable[[], None] | None:
        """What a forked worker calls first."""
        if self.initializer is None:
            return None
        initializer, initargs = self.initializer, self.initargs
        return lambda: initializer(*initargs)


# -- what came of it ---------------------------------------------------------------------------------------------------


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
        busy_items: Items that workers did.
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
    busy_items: int = 0
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

    def received(self, n_items: int, n_bytes: int) -> None:
        """Add one message to the measurements."""
        self.n_chunks += 1
        self.n_bytes += n_bytes
        self.busy_items += n_items

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


class Once:
    """Warns of the first message that it is given, and of no other."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self, message: str) -> None:
        if not self._told:
            self._told = True
            warn(message)


class Engine:
    """
    What both engines do in the caller: take in results and failures, tell of progress, look at the memory.

    Attributes:
        job: The run.
        n_items: Its items.
        outcome: What has come home.
        limit: The position behind the last item that is wanted.
        began: When it was made, on its clock.
        tell: Warns, once in a run.
    """

    def __init__(self, job: Job, clock: Callable[[], float] = time.perf_counter) -> None:
        self.job = job
        self.n_items = len(job.items)
        self.outcome = Outcome(job.base, self.n_items, job.sink)
        self.limit = self.n_items
        self.clock = clock
        self.began = self._looked_at = clock()
        self.tell = Once()

    def is_done(self) -> bool:
        """Tell whether everything that is still wanted is known."""
        return self.outcome.is_done(self.limit, ends_with_a_death=self.job.ends_with_a_death)

    def accept(self, start: int, results: list[Any], failures: Sequence[tuple[int, BaseException]]) -> None:
        """Take in the results of neighbours; a failure that ends the run takes back what is behind it."""
        self.outcome.put(start, results, failures)
        fatal = [position for position, error in failures if not self.job.goes_on(error)]
        if fatal and start + fatal[0] < self.limit:
            self.limit = start + fatal[0]
            self.drop_from(self.limit)
        self.report()

    def drop_from(self, position: int) -> None:
        """Forget the work at and after a position; what is before it must still be done."""
        raise NotImplementedError

    def report(self) -> None:
        """Tell how many items are done; what comes too soon after a report is reported at the next look."""
        if self.job.progress is not None:
            self.job.progress(self.outcome.n_done)

    def n_wanted(self, n_now: int, most: int) -> int:
        """Return how many jobs may run: at each look one fewer while memory is short, else one more; never none."""
        job = self.job
        if job.is_tight is None or self.clock() - self._looked_at <= bounds.HOUSEKEEPING_S:
            return n_now
        self._looked_at = self.clock()
        return max(1, min(most, n_now + (-1 if job.is_tight() else 1)))


def threads_each(n_cpus: int, n_jobs: int) -> int:
    """Return the threads that the numerical libraries of each worker get: the CPUs divided by the jobs."""
    return max(1, n_cpus // max(1, n_jobs))


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
