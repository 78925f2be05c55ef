"""
Measures a function on the first items of the real work, keeps their results, and remembers what it saw.

Never swallows the user's exception, never drops or reorders an item.

    items ──► Sampler.run ──► results (the head of the answer)
                   │
                   ├── seconds, CPU seconds, peak memory        while the items run
                   └── weigh: pickled sizes and seconds          afterwards, so that it disturbs no timing
"""

from __future__ import annotations

import array
import collections
import contextlib
import math
import pickle
import sys
import threading
import time
import types
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amorsize import _function
from amorsize._types import Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

if sys.platform != "win32":
    import resource

# Seconds after which the sample stops once it has an item: five items of ten seconds each must not cost fifty before
# anything goes parallel. Four times what starting a forked worker takes, so stopping to decide always pays by then.
SAMPLE_BOX_S: Final = 0.005

# An item this many times the median of the others is a warm-up (an import, a cache being filled), not the steady cost.
OUTLIER: Final = 3.0

# Bytes of a value above which its pickling is extrapolated from a part of it; weighing must cost microseconds.
WEIGH_BYTES: Final = 64 * 1024

# Bytes per second of copying a flat buffer into a pickle and out of it again, used only to extrapolate buffers above
# WEIGH_BYTES: one memory copy each way (tests/benchmarks/probes.py: 3 to 6 GB/s on the 2-core reference host).
FLAT_BYTES_PER_S: Final = 2.0e9

# Seconds of a sample below which the CPU seconds of other threads say nothing, and those that are not counted beyond:
# OpenBLAS threads spin for 2**26 cycles, or 20 to 30 ms, after NumPy is imported and after each product, whatever the
# function does meanwhile. A sleep of 10 ms looked like 92 % computing.
SPINNING_S: Final = 0.1
SPUN_S: Final = 0.03

# Share by which seconds per item may differ from what is known without being news.
SAME: Final = 0.05

# Share of an equal share of the work from which an item is big.
BIG_SHARE: Final = 0.1

# Items whose sizes are looked at in one call, at most: 0.1 us each.
MOST_SIZED: Final = 20_000

# Ratio of sizes or of seconds beyond which data is said to have changed character.
CHANGED: Final = 2.0

_SMALL_SCALARS = (int, float, bool, type(None), complex)
_FLAT = (bytes, bytearray, str, array.array)


def _peak_bytes() -> int:
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
        return cls(time.perf_counter(), time.thread_time(), _n_waits())

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


NOTHING: Final = Clocks(0.0, 0.0, 0)


def _n_waits() -> int:
    """Return how often this thread has given up its core by itself, -1 where the system does not say."""
    if sys.platform == "linux":
        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    return -1


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
    note = f"amorsize: raised by item {index}: {text}"
    with contextlib.suppress(Exception):  # frozen dataclasses and the like
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


class Sampler:
    """
    Runs the first items one by one and times them.

    Attributes:
        call: The function of one item.
        results: What it returned, in order.
        items: The items themselves.
        times: Wall seconds of each.
        cpu_s: CPU seconds of the process meanwhile.
        own_s: Those of the calling thread among them.
        n_waits: How often it gave up its core by itself, -1 where that is not known.
        began: The clocks as the latest run began.
        lost: What somebody else took inside the item under way.
        peak_bytes: Growth of its peak memory.
    """

    def __init__(self, call: Callable[[Any], Any], clock: Callable[[], float] = time.perf_counter) -> None:
        self.call = call
        self.clock = clock
        self.results: list[Any] = []
        self.items: list[Any] = []
        self.times: list[float] = []
        self.cpu_s = self.own_s = 0.0
        self.n_waits = 0
        self.began: Clocks | None = None
        self.lost = NOTHING
        self.peak_bytes = 0

    def run(self, stream: Iterator[Any], n_most: int, box_s: float = SAMPLE_BOX_S, start: int = 0) -> None:
        """
        Run up to *n_most* items, fewer once *box_s* seconds have passed.

        Raises:
            BaseException: The function's own, with a note that names the item (index counted from *start*);
                the input's own, as it is.
        """
        clock = self.clock
        peak = _peak_bytes()
        cpu = time.process_time()
        began = self.began = Clocks.now()
        begin = clock()
        for item in stream:
            self.items.append(item)
            before = clock()
            try:
                result = self.call(item)
            except BaseException as error:
                add_item_note(error, start + len(self.results), item)
                raise
            after = clock()
            self.results.append(result)
            self.times.append(max(0.0, after - before - self.lost.wall_s))
            if len(self.results) >= n_most or after - begin >= box_s:
                break
        used = Clocks.now() - began - self.lost
        self.cpu_s += time.process_time() - cpu - self.lost.own_s
        self.own_s += used.own_s
        self.n_waits = -1 if used.n_waits < 0 else self.n_waits + used.n_waits
        self.lost = NOTHING
        self.peak_bytes = max(self.peak_bytes, _peak_bytes() - peak)

    def profile(self) -> Profile:
        """Return what the timing says; sizes are still unknown."""
        if not self.times:
            return Profile()
        item_s, item_s_std = steady(self.times)
        total_s = sum(self.times)
        # The clock of CPU time ticks in up to 1 ms on some systems: below that the ratio says nothing.
        others_s = max(0.0, self.cpu_s - self.own_s - SPUN_S) if total_s >= SPINNING_S else 0.0
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

    The first item is left out where it is beyond :data:`OUTLIER` times the median of the others.
    """
    rest = times[1:]
    if rest and times[0] > OUTLIER * _median(rest):
        times = rest
    mean = sum(times) / len(times)
    return mean, math.sqrt(sum((t - mean) ** 2 for t in times) / len(times))


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def shallow_bytes(value: object) -> int:
    """Estimate the size of a value without looking inside: its buffer, its length, or its own size."""
    nbytes = getattr(value, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    try:
        return sys.getsizeof(value)
    except TypeError:
        return 64


def seconds_per_byte(items: Sequence[Any], times: Sequence[float]) -> float:
    """
    Return the seconds per byte of an item's shallow size, where the sampled times follow the sizes; else 0.

    They do if sizes differ by :data:`CHANGED` at least, and time per byte differs by less than that from item to item.
    """
    sizes = [shallow_bytes(item) for item in items]
    if len(sizes) < 3 or min(sizes) <= 0 or max(sizes) < CHANGED * min(sizes):
        return 0.0
    rates = [time / size for time, size in zip(times, sizes, strict=False)]
    if min(rates) <= 0 or max(rates[1:]) > CHANGED * min(rates[1:]):
        return 0.0
    return sum(times[1:]) / sum(sizes[1:])


class NotPicklable(Exception):  # noqa: N818 - a signal inside this room, never seen outside
    """Carries what cannot be pickled, in words."""


def _round_trip(value: Any, by_value: Callable[[Any], bytes]) -> tuple[int, float, float]:
    """Pickle and unpickle; returns bytes and the seconds of each. Uses *by_value* where plain pickle fails."""
    begin = time.perf_counter()
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - objects raise anything from __reduce__; the second pickler decides
        data = by_value(value)
    dumped = time.perf_counter()
    pickle.loads(data)
    return len(data), dumped - begin, time.perf_counter() - dumped


def weigh_value(value: Any, by_value: Callable[[Any], bytes], most_bytes: int = WEIGH_BYTES) -> tuple[int, float]:
    """
    Return the pickled bytes of a value, and the seconds to pickle and unpickle it.

    Flat buffers above *most_bytes* are extrapolated from their size, long containers from a part.

    Raises:
        NotPicklable: If it cannot be pickled, or not be unpickled again.
    """
    size = shallow_bytes(value)
    scale = 1.0
    if size > most_bytes:
        if isinstance(value, _FLAT) or (hasattr(value, "nbytes") and not _has_objects(value)):
            return size, 2 * size / FLAT_BYTES_PER_S
        if type(value) in {list, tuple}:
            part = value[: max(1, len(value) * WEIGH_BYTES // size)]
            scale, value = len(value) / len(part), part
    try:
        n_bytes, dumps_s, loads_s = _round_trip(value, by_value)
    except Exception as error:
        message = f"{type(value).__qualname__}: {type(error).__name__}: {error}"
        raise NotPicklable(message) from error
    return int(n_bytes * scale), (dumps_s + loads_s) * scale


def _has_objects(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return dtype is None or bool(getattr(dtype, "hasobject", True))


def weigh(
    profile: Profile,
    items: Sequence[Any],
    results: Sequence[Any],
    by_value: Callable[[Any], bytes],
    most_bytes: int = WEIGH_BYTES,
) -> Profile:
    """Add the pickled sizes and pickling seconds of sampled items and results to a profile."""
    try:
        args = [weigh_value(item, by_value, most_bytes) for item in items]
        outs = [weigh_value(result, by_value, most_bytes) for result in results]
    except NotPicklable as error:
        return replace(profile, is_picklable=False, problem=str(error))
    arg_s = _mean([seconds for _, seconds in args])
    return replace(
        profile,
        arg_bytes=int(_mean([n for n, _ in args])),
        result_bytes=int(_mean([n for n, _ in outs])),
        arg_pickle_s=arg_s,
        pickle_s=arg_s + _mean([seconds for _, seconds in outs]),
    )


def _mean(values: Sequence[float]) -> float:
    """Return the mean; of three and more without the largest, which is a warm-up of the pickler or an interruption."""
    if len(values) > 2:
        values = sorted(values)[:-1]
    return sum(values) / len(values) if values else 0.0


def inspect_function(profile: Profile, func: Callable[..., Any], by_value: Callable[[Any], bytes]) -> Profile:
    """Add what the function's code says: outside state, picklability, and the bytes it takes to ship."""
    state = _function.outside(func)
    profile = replace(profile, mutates=state.mutates, reads_mutable=state.reads_mutable)
    try:
        n_bytes = _function_bytes(func, by_value)
    except NotPicklable as error:
        return replace(profile, is_picklable=False, problem=str(error))
    return replace(profile, func_bytes=n_bytes)


def _function_bytes(func: Callable[..., Any], by_value: Callable[[Any], bytes]) -> int:
    """Return the bytes to ship a function: a name where it can be imported, else all that it holds on to."""
    found, bound = _function.bare(func)
    total = sum(_held_bytes(name, value, by_value) for name, value in enumerate(bound))
    if found is None or is_importable(found):
        return total + 100
    held = _function.named_values(found) if found.__module__ == "__main__" else _closure(found)
    return total + len(found.__code__.co_code) + sum(_held_bytes(n, v, by_value) for n, v in held.items())


def _closure(found: types.FunctionType) -> dict[str, Any]:
    named = _function.named_values(found)
    return {name: named[name] for name in found.__code__.co_freevars if name in named}


def is_importable(found: types.FunctionType) -> bool:
    """Tell whether a worker can import the function by module and qualified name (decorated or not)."""
    module = sys.modules.get(found.__module__ or "")
    if module is None or found.__module__ == "__main__":
        return False
    value: Any = module
    for part in found.__qualname__.split("."):
        value = getattr(value, part, None)
        if value is None:
            return False
    value = getattr(value, "__func__", value)
    return value is found or getattr(value, "__wrapped__", None) is found


def _held_bytes(name: object, value: Any, by_value: Callable[[Any], bytes]) -> int:
    if isinstance(value, types.ModuleType | type | types.BuiltinFunctionType | types.FunctionType):
        return 100
    try:
        return weigh_value(value, by_value)[0]
    except NotPicklable as error:
        message = f"what the function holds as {name!r}: {error}"
        raise NotPicklable(message) from error


def type_name(kind: type) -> str:
    """Spell a type as ``module.qualname``, which means the same in the next process."""
    return f"{kind.__module__}.{kind.__qualname__}"


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Known:
    """
    What is remembered of a function.

    Attributes:
        profile: As measured, and refreshed by every run.
        arg_type: Type of the items it was measured on, as ``module.qualname``, which outlives the process.
        arg_size: Their shallow size in bytes.
        n_seen: Items behind the figures.
        s_per_byte: Seconds per byte of an item, where its size predicts its cost; else 0.
    """

    profile: Profile
    arg_type: str
    arg_size: int
    n_seen: int
    s_per_byte: float = 0.0

    @property
    def is_weighed(self) -> bool:
        """Whether what moving items costs is known: of a function that only ran in short loops, it is not."""
        return self.profile.func_bytes > 0

    def is_like(self, item: object) -> bool:
        """Tell whether an item is of the kind this was measured on."""
        if type_name(type(item)) != self.arg_type:
            return False
        size = shallow_bytes(item)
        return size <= CHANGED * self.arg_size + 64 and self.arg_size <= CHANGED * size + 64


class ProfileCache:
    """
    Profiles by the stable hash of the function's code; the least recently used leave first.

    Guarantees: any thread may use it; an entry is replaced whole.
    """

    def __init__(self, most: int = 1024) -> None:
        self._lock = threading.Lock()
        self._known: collections.OrderedDict[str, Known] = collections.OrderedDict()
        self._most = most

    def get(self, key: str) -> Known | None:
        """Return what is remembered under *key*, or None."""
        return self._known.get(key)

    def put(self, key: str, known: Known) -> None:
        """Remember."""
        with self._lock:
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._known.clear()

    def items(self) -> dict[str, Known]:
        """Return a copy of everything remembered."""
        with self._lock:
            return dict(self._known)


CACHE: Final = ProfileCache()


def remember(key: str, profile: Profile, item: object, n_seen: int, s_per_byte: float = 0.0) -> None:
    """Keep a profile measured on items like *item*."""
    kept = replace(profile, n_head=0, head_s=0.0)
    CACHE.put(key, Known(kept, type_name(type(item)), shallow_bytes(item), n_seen, s_per_byte))


def big_first(items: Sequence[Any], s_per_byte: float, n_jobs: int) -> list[int]:
    """
    Return the positions of the items that are worth starting with, the biggest first.

    Those whose predicted seconds are a tenth of an equal share or more: begun last, each could leave the other workers
    idle for as long (longest processing time first, Graham 1969). Few by construction: at most ten per worker.
    """
    if s_per_byte <= 0 or not 1 < len(items) <= MOST_SIZED:
        return []
    costs = [shallow_bytes(item) * s_per_byte for item in items]
    least = sum(costs) / n_jobs * BIG_SHARE
    big = [i for i, cost in enumerate(costs) if cost >= least]
    return sorted(big, key=lambda i: -costs[i]) if len(big) < len(items) else []


def refresh(key: str, item_s: float, n_items: int, cpu_fraction: float | None = None) -> None:
    """
    Take in the seconds per item that a whole run measured.

    A run of many more items than the sample had replaces its estimate; later runs are averaged with it.
    """
    known = CACHE.get(key)
    if known is None or n_items < 1 or not (math.isfinite(item_s) and item_s >= 0):
        return
    old = known.profile.item_s
    if cpu_fraction is None and known.n_seen >= n_items and abs(item_s - old) < SAME * old:
        return
    is_new = n_items > 4 * known.n_seen or not old / CHANGED <= item_s <= old * CHANGED
    mean = item_s if is_new else (old + item_s) / 2
    profile = replace(known.profile, item_s=mean)
    if cpu_fraction is not None:
        profile = replace(profile, cpu_fraction=cpu_fraction)
    CACHE.put(key, replace(known, profile=profile, n_seen=max(known.n_seen, n_items)))


def remember_transfer(key: str, more_s: float) -> None:
    """Add *more_s* seconds per item to what pickling a result is known to cost."""
    known = CACHE.get(key)
    if known is not None:
        profile = replace(known.profile, pickle_s=known.profile.pickle_s + more_s)
        CACHE.put(key, replace(known, profile=profile))


def remember_efficiency(key: str, **seen: float) -> None:
    """Keep the speed of workers beside each other with this function: ``efficiency`` or ``thread_efficiency``."""
    known = CACHE.get(key)
    if known is not None:
        CACHE.put(key, replace(known, profile=replace(known.profile, **seen)))  # type: ignore[arg-type]  # names of floats
