"""
Measures a function on the first items of the real work, keeps their results, and remembers what it saw.

Never swallows the user's exception, never drops or reorders an item.

    items ──► Sampler.run ──► results (the head of the answer)
                   │
                   ├── seconds, CPU seconds, peak memory        while the items run
                   └── weigh: pickled sizes and seconds          afterwards, so that it disturbs no timing
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from _io import open as open_file  # a test may have replaced the builtin
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amorsize import _bounds as bounds
from amorsize import _trace
from amorsize._records import Profile
from amorsize._weigh import shallow_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


if sys.platform != "win32":
    import resource


def peak_bytes() -> int:
    """Return the peak resident size of this process so far, 0 where the system does not say."""
    if sys.platform != "win32":
        peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return 0


class Clocks(NamedTuple):
    """
    What the calling thread has used so far, or between two readings.

    Attributes:
        wall_s: Wall seconds.
        own_s: CPU seconds of this thread.
        n_waits: How often it gave up its core by itself, to wait for something; -1 where the system does not say.
    """

    wall_s: float
    own_s: float
    n_waits: int

    @classmethod
    def now(cls) -> Clocks:
        """Read them."""
        return cls(perf_counter(), thread_time(), _n_waits())

    def __sub__(self, earlier: Clocks) -> Clocks:
        n_waits = -1 if self.n_waits < 0 else self.n_waits - earlier.n_waits
        return Clocks(self.wall_s - earlier.wall_s, self.own_s - earlier.own_s, n_waits)

    @property
    def cpu_fraction(self) -> float:
        """
        CPU seconds per wall second; 1 for a thread that never waited: what it missed, others on its core had.

        Right after NumPy is imported its BLAS threads spin on all cores for 20 to 30 ms, and a function that computed
        looked like one that waits for three quarters of its time.
        """
        return 1.0 if self.n_waits == 0 else max(0.0, min(1.0, self.own_s / max(self.wall_s, 1e-9)))


def _n_waits() -> int:
    """Return how often this thread has given up its core by itself, -1 where the system does not say."""
    if sys.platform == "linux":
        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    return -1


def scheduled_s(thread: int) -> tuple[float, float] | None:
    """Return the seconds that a thread has computed, and those it was ready to but had no core; None if unknown."""
    try:
        with open_file(f"/proc/self/task/{thread}/schedstat", "rb", buffering=0) as file:
            computed_ns, ready_ns = file.read(100).split()[:2]
    except OSError:
        return None
    return int(computed_ns) * 1e-9, int(ready_ns) * 1e-9


def _measure_clock_s() -> float:
    """Measure what one timed item costs more than an untimed one: two readings of the clock."""
    clock = time.perf_counter
    return min(-(clock() - clock()) for _ in range(20))


CLOCK_S: Final = max(0.0, _measure_clock_s())


def add_item_note(error: BaseException, index: int, item: object) -> None:
    """Name the item on the exception, once, without touching type or text; one that takes no notes goes without."""
    try:
        text = repr(item)
    except (Exception, SystemExit):  # noqa: BLE001 - a broken __repr__ must not replace the user's own exception
        text = f"<{type(item).__name__}>"
    if len(text) > 100:
        text = text[:97] + "..."
    add_note(error, f"{_trace.ITEM_NOTE} {index}: {text}")


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, once; one that takes no notes goes without."""
    with contextlib.suppress(Exception, SystemExit):  # frozen dataclasses and the like
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def add_results(error: BaseException, finished: dict[int, Any]) -> None:
    """Let an exception carry the results that had come home, by index, in its attribute ``amorsize_results``."""
    if isinstance(error, Exception):
        with contextlib.suppress(Exception):  # frozen dataclasses and the like
            error.amorsize_results = finished  # type: ignore[attr-defined]  # most exceptions take any


def cpu_now() -> tuple[float, Clocks]:
    """Read the CPU seconds of the process, and this thread's clocks: 2 us."""
    return time.process_time(), Clocks.now()


class Sampler:
    """
    Runs the first items one by one and times them.

    Attributes:
        call: The function of one item.
        clock: Returns the time.
        note: Names an item on its exception.
        results: What it returned, in order.
        items: The items themselves.
        times: Wall seconds of each.
        cpu_s: CPU seconds of the process meanwhile.
        own_s: Those of the calling thread among them.
        n_waits: How often it gave up its core by itself, -1 where that is not known.
        peak_bytes: Growth of its peak memory.
    """

    def __init__(
        self,
        call: Callable[[Any], Any],
        clock: Callable[[], float] = time.perf_counter,
        note: Callable[[BaseException, int, Any], None] = add_item_note,
    ) -> None:
        self.call = call
        self.clock = clock
        self.note = note
        self.results: list[Any] = []
        self.items: list[Any] = []
        self.times: list[float] = []
        self.cpu_s = self.own_s = 0.0
        self.n_waits = 0
        self.peak_bytes = 0

    def run(self, stream: Iterator[Any], n_most: int, box_s: float = bounds.SAMPLE_BOX_S, start: int = 0) -> None:
        """
        Run up to *n_most* items, fewer once *box_s* seconds have passed.

        Raises the function's own error with a note that names the item (counted from *start*), the input's as it is.
        """
        clock = self.clock
        peak = peak_bytes()
        began = cpu_now()
        begin = clock()
        for item in stream:
            self.items.append(item)
            before = clock()
            try:
                result = self.call(item)
            except BaseException as error:
                self.note(error, start + len(self.results), item)
                raise
            after = clock()
            self.results.append(result)
            self.times.append(max(0.0, after - before))
            if len(self.results) >= n_most or after - begin >= box_s:
                break
        self.count(began)
        self.peak_bytes = max(self.peak_bytes, peak_bytes() - peak)

    def count(self, began: tuple[float, Clocks]) -> None:
        """Add what has been used since these clocks were read."""
        cpu_s, clocks = cpu_now()
        used = clocks - began[1]
        self.cpu_s += cpu_s - began[0]
        self.own_s += used.own_s
        self.n_waits = -1 if used.n_waits < 0 else self.n_waits + used.n_waits

    def profile(self) -> Profile:
        """Return what the timing says; sizes are still unknown."""
        if not self.times:
            return Profile()
        item_s, item_s_std = steady(self.times)
        total_s = sum(self.times)
        # The clock of CPU time ticks in up to 1 ms on some systems: below that the ratio says nothing.
        others_s = max(0.0, self.cpu_s - self.own_s - bounds.SPUN_S) if total_s >= bounds.SPINNING_S else 0.0
        cpu_fraction = (self.own_s + others_s) / total_s if total_s >= 1e-3 else 1.0
        if self.n_waits == 0:
            cpu_fraction = max(1.0, cpu_fraction)  # see Clocks
        return Profile(
            n_sampled=len(self.times),
            item_s=max(0.0, item_s - CLOCK_S),
            item_s_std=item_s_std,
            first_s=self.times[0],
            cpu_fraction=max(0.0, cpu_fraction),
            peak_bytes=max(0, self.peak_bytes),
            n_head=len(self.times),
            head_s=total_s,
        )


def steady(times: Sequence[float]) -> tuple[float, float]:
    """
    Return mean and standard deviation of the steady cost.

    The first item is left out where it is beyond :data:`amorsize._bounds.WARM_UP` times the median of the others.
    """
    rest = times[1:]
    if rest and times[0] > bounds.WARM_UP * _median(rest):
        times = rest
    mean = sum(times) / len(times)
    return mean, math.sqrt(sum((t - mean) ** 2 for t in times) / len(times))


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def seconds_per_byte(items: Sequence[Any], times: Sequence[float]) -> float:
    """
    Return the seconds per byte of an item's shallow size, where the sampled times follow the sizes; else 0.

    They do if sizes differ by :data:`amorsize._bounds.CHANGED` at least, and time per byte differs by less than that
    from item to item.
    """
    sizes = [shallow_bytes(item) for item in items]
    if len(sizes) < 3 or min(sizes) <= 0 or max(sizes) < bounds.CHANGED * min(sizes):
        return 0.0
    rates = [time / size for time, size in zip(times, sizes, strict=False)]
    if min(rates) <= 0 or max(rates[1:]) > bounds.CHANGED * min(rates[1:]):
        return 0.0
    return sum(times[1:]) / sum(sizes[1:])


def big_first(items: Sequence[Any], s_per_byte: float, n_jobs: int) -> list[int]:
    """
    Return the positions of the items that are worth starting with, the biggest first.

    Those whose predicted seconds are a tenth of an equal share or more: begun last, each could leave the other workers
    idle for as long (longest processing time first, Graham 1969). Few by construction: at most ten per worker.
    """
    if s_per_byte <= 0 or not 1 < len(items) <= bounds.MOST_SIZED:
        return []
    costs = [shallow_bytes(item) * s_per_byte for item in items]
    least = sum(costs) / n_jobs * bounds.BIG_SHARE
    big = [i for i, cost in enumerate(costs) if cost >= least]
    return sorted(big, key=lambda i: -costs[i]) if len(big) < len(items) else []
