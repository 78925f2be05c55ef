"""
The machine as this process may use it: CPUs, memory, and what starting and feeding workers costs.

Where a reading comes from is a parameter (:class:`Readings`), so that odd machines are tested by giving odd
readings. Detection never raises: a reading that fails is left out, and ``Host.sources`` says where each came
from. The only module that imports psutil.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import threading
from _io import open as open_file  # a test may have replaced the builtin
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amorsize import _bounds as bounds
from amorsize import _cgroup
from amorsize import _cost as cost
from amorsize._cost import EXTERNAL_PRIOR, IMPORT_S, PRIORS, SERVER_SHARE
from amorsize._outside import pass_on
from amorsize._records import FORK, FORKSERVER, LOKY, THREADS, Costs, Host

if TYPE_CHECKING or sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _read_text(path: str) -> str:
    # Decoded apart: as the encoding of a text file, "ascii" is a module that few programs have loaded. And without a
    # buffer, which takes 3 us more.
    with open_file(path, "rb", buffering=0) as file:
        return file.read().decode("ascii", errors="replace")


def _physical() -> int | None:
    """
    Return the physical cores: on Linux those this process may run on, elsewhere those of the machine.

    Linux is asked itself, here and below, since the first decision waits for it: loading psutil takes 17 ms, reading
    these files 0.1. Where a file is not as expected psutil is asked all the same.
    """
    if sys.platform == "linux":
        found = _attempt(lambda: _n_cores(frozenset(os.sched_getaffinity(0))))
        if found is not None:
            return int(found)
    n_cores: int | None = _psutil().cpu_count(logical=False)
    return n_cores


@functools.cache
def _n_cores(cpus: frozenset[int]) -> int:
    return len({_read_text(f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") for n in cpus})


def _psutil() -> Any:
    import psutil  # noqa: PLC0415 - 17 ms that are seldom needed on Linux

    return psutil


def _available() -> int | None:
    """Return the bytes that can be had without swapping."""
    if sys.platform == "linux":
        found = _attempt(lambda: _read_text("/proc/meminfo").partition("MemAvailable:")[2].split(maxsplit=2)[0])
        if found is not None and found.isdigit():
            return int(found) * 1024
    return int(_psutil().virtual_memory().available)


def _affinity() -> int | None:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return None


def _address_space() -> int | None:
    """Return what is left of ``RLIMIT_AS``, None where there is no such limit."""
    if sys.platform == "win32":
        return None

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft in {resource.RLIM_INFINITY, -1}:
        return None
    used = int(_read_text("/proc/self/statm").split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    return max(0, soft - used)


def _has_gil() -> bool:
    """
    Ask the interpreter for its lock, which only free-threaded builds can be without.

    Not settled once: an extension module that cannot do without the lock switches it on when it is imported.
    """
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())  # CPython 3.13 and newer


class Readings(NamedTuple):
    """
    Where each reading comes from; every field is a function that may return None or raise.

    Attributes:
        logical: Logical CPUs of the machine.
        physical: Physical cores, of those this process may run on where that can be told.
        affinity: CPUs this process may run on.
        available: Bytes of memory available on the machine.
        address_space: Bytes left of the address space limit.
        read_text: Text of a file, for cgroup files.
        environ: The environment.
        platform: ``sys.platform``.
        has_gil: Whether the interpreter's lock is on.
    """

    logical: Callable[[], int | None] = os.cpu_count
    physical: Callable[[], int | None] = _physical
    affinity: Callable[[], int | None] = _affinity
    available: Callable[[], int | None] = _available
    address_space: Callable[[], int | None] = _address_space
    read_text: Callable[[str], str] = _read_text
    environ: Mapping[str, str] = os.environ
    platform: str = sys.platform
    has_gil: Callable[[], bool | None] = _has_gil


def _attempt(read: Callable[[], Any]) -> Any:
    """Return the reading, or None where it fails: a machine's oddity must never stop the user's work."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - psutil, odd files and limits fail in every way there is
        pass_on(error)
        return None


def _count(value: object) -> int | None:
    """Accept a reading as a count of at least one."""
    try:
        number = int(value)  # type: ignore[call-overload]  # None and odd types raise, as they should
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number >= 1 else None


def _text(readings: Readings) -> Callable[[str], str]:
    """Return what reads the text of a file, empty where it cannot be read."""
    return lambda path: str(_attempt(lambda: readings.read_text(path)) or "")


def cpu_limits(readings: Readings) -> dict[str, float | None]:
    """Return every limit of the logical CPUs by name, None where there is no such limit."""
    return {
        "machine": _count(_attempt(readings.logical)),
        "affinity": _count(_attempt(readings.affinity)),
        "cgroup CPU quota": _attempt(lambda: _cgroup.n_cpus(_text(readings))),
        "LOKY_MAX_CPU_COUNT": _count(_attempt(lambda: readings.environ.get("LOKY_MAX_CPU_COUNT"))),
    }


def usable_cpus(readings: Readings) -> tuple[int, int, str]:
    """Return usable logical CPUs, usable physical cores, and what set the number."""
    limits = [(max(1, math.ceil(n)), name) for name, n in cpu_limits(readings).items() if n is not None]
    n_cpus, source = min(limits, key=lambda c: c[0], default=(1, "unknown"))
    physical = _count(_attempt(readings.physical)) or n_cpus
    return n_cpus, max(1, min(n_cpus, physical)), source


def memory_limits(readings: Readings) -> dict[str, int | None]:
    """Return the bytes left under every limit by name, None where there is no such limit."""
    reads = {
        "machine": readings.available,
        "cgroup": lambda: _cgroup.memory_bytes(_text(readings)),
        "RLIMIT_AS": readings.address_space,
    }
    found = {name: _attempt(read) for name, read in reads.items()}
    return {
        name: int(value) if isinstance(value, int | float) and 0 <= value < math.inf else None
        for name, value in found.items()
    }


def available_memory(readings: Readings) -> tuple[int, str]:
    """Return the bytes available to this process, and which limit they come from."""
    found = [(n_bytes, name) for name, n_bytes in memory_limits(readings).items() if n_bytes is not None]
    return min(found, default=(bounds.UNKNOWN_MEMORY_BYTES, "unknown"))


def is_memory_tight(readings: Readings | None = None) -> bool:
    """Tell whether less than :data:`amorsize._bounds.TIGHT_BYTES` are left to this process."""
    return available_memory(readings or Readings())[0] < bounds.TIGHT_BYTES


def read_host(readings: Readings | None = None) -> Host:
    """Read CPUs and memory now; costs are the priors of the platform."""
    readings = readings or Readings()
    readings = readings._replace(read_text=functools.cache(readings.read_text))
    n_cpus, n_physical, cpu_source = usable_cpus(readings)
    memory, memory_source = available_memory(readings)
    return Host(
        n_cpus=n_cpus,
        n_physical_cpus=n_physical,
        memory_bytes=memory,
        costs=dict(PRIORS.get(readings.platform, PRIORS["darwin"])),
        platform=readings.platform,
        is_disabled=_is_disabled(readings.environ),
        has_gil=_attempt(readings.has_gil) is not False,
        # New interpreters hash strings with seeds of their own unless they are told one.
        has_own_seed=not readings.environ.get("PYTHONHASHSEED", "random").isdecimal(),
        sources={"n_cpus": cpu_source, "memory_bytes": memory_source},
    )


def _is_disabled(environ: Mapping[str, str]) -> bool:
    value = _attempt(lambda: environ.get("AMORSIZE_SERIAL", "")) or ""
    return value.strip().lower() not in {"", "0", "false", "no"}


# When the resident memory was read, at which peak, and its bytes.
_resident: tuple[float, int, int] = (-math.inf, 0, 0)


def resident_bytes() -> int:
    """Return the resident memory of this process, as of a second ago if its peak is still the same; 0 if unknown."""
    global _resident  # noqa: PLW0603 - one tuple, replaced in one statement
    if sys.platform == "win32":
        return 0
    now, peak = monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if peak != _resident[1] or now - _resident[0] >= bounds.SNAPSHOT_S:
        _resident = now, peak, _attempt(_read_resident) or 0
    return _resident[2]


def _read_resident() -> int:
    if sys.platform == "win32":
        return 0
    # Without a buffer, which takes 3 us more; not as a bare descriptor, which Ctrl-C could leave open.
    with open_file("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read(100).split()[1]) * os.sysconf("SC_PAGE_SIZE")


def n_others(n_cpus: int, readings: Readings | None = None) -> int:
    """
    Return how many threads of other programs compete for *n_cpus* CPUs at this moment, 0 where that is not known.

    Those that run or wait for a CPU, without this one, and without as many as have CPUs that this process may not use.
    """
    readings = readings or Readings()
    fields = _text(readings)("/proc/loadavg").split() if readings.platform == "linux" else []
    running = _count(fields[3].partition("/")[0]) if len(fields) > 3 else None
    elsewhere = max(0, (_count(_attempt(readings.logical)) or n_cpus) - n_cpus)
    return max(0, (running or 0) - 1 - elsewhere)


class CostBook:
    """
    What this process has learned about the costs of each backend: the priors until a run has measured them.

    Guarantees: any thread may read or write; a reader sees whole records only.

    Attributes:
        known: The costs by backend.
        cheapest_start_s: Seconds of the start of the local workers that start soonest.
    """

    def __init__(self, platform: str = sys.platform) -> None:
        self._lock = threading.Lock()
        # Replaced whole when something is learned, never changed: whoever holds it has the costs as they were.
        self.known: Mapping[str, Costs] = dict(PRIORS.get(platform, PRIORS["darwin"]))
        self.cheapest_start_s = self._cheapest()
        self._missed_s: dict[str, float] = {}
        self._measured: set[tuple[str, str]] = set()

    def renew_lock(self) -> None:
        """Have a free lock in a forked copy of the process: a thread that is not in it may have held this one."""
        self._lock = threading.Lock()

    def _cheapest(self) -> float:
        return min(known.start_s for name, known in self.known.items() if name in {FORK, LOKY})

    def get(self, backend: str) -> Costs:
        """Return what is known of *backend*; a cluster's prior for names never seen."""
        return self.known.get(backend, EXTERNAL_PRIOR)

    def learn(self, backend: str, **seen: float) -> None:
        """Take in what a run measured: fields of :class:`Costs`, of which none but positive finite numbers count."""
        with self._lock:
            known = self.get(backend)
            fields: dict[str, Any] = {}
            for name, value in seen.items():
                if not (math.isfinite(value) and value > 0):
                    continue
                before = getattr(known, name)
                is_first = (backend, name) not in self._measured or not math.isfinite(before) or before <= 0
                self._measured.add((backend, name))
                if not is_first:
                    value = min(value, bounds.MOST_CHANGE * before)  # noqa: PLW2901 - one disturbed run must not set the figure
                fields[name] = value if is_first else before + bounds.NEW_WEIGHT * (value - before)
            if fields:
                self.known = {**self.known, backend: replace(known, **fields, is_measured=True)}
                self.cheapest_start_s = self._cheapest()

    def renew(self, backend: str, **seen: float) -> None:
        """Take in what was measured on a cluster seen for the first time; what another one cost is forgotten."""
        with self._lock:
            self.known = {name: costs for name, costs in self.known.items() if name != backend}
            self._measured = {known for known in self._measured if known[0] != backend}
        self.learn(backend, **seen)

    def miss(self, backend: str, seconds: float) -> None:
        """
        Note what a call lost because the workers of *backend* were not running.

        No single call of 200 ms is worth starting workers for half a second, a thousand of them are. Once the losses
        add up to the start, the start is free: the break-even rule of ski rental, at most twice the best in hindsight.
        """
        with self._lock:
            self._missed_s[backend] = self._missed_s.get(backend, 0.0) + max(0.0, seconds)

    def missed_s(self, backend: str) -> float:
        """Return the seconds lost so far."""
        return self._missed_s.get(backend, 0.0)

    def paid_s(self, backend: str) -> float:
        """Return the seconds of a start that the losses have paid for."""
        return self.missed_s(backend) / (SERVER_SHARE if backend == FORKSERVER else 1.0)

    def started(self, backend: str) -> None:
        """Forget the losses: the workers have been started."""
        with self._lock:
            self._missed_s.pop(backend, None)

    def restore(self, costs: Mapping[str, Costs]) -> None:
        """Put back costs that were kept from an earlier process, where this one has not measured yet."""
        with self._lock:
            for name, value in costs.items():
                if not self.known.get(name, EXTERNAL_PRIOR).is_measured:
                    self.known = {**self.known, name: value}
            self.cheapest_start_s = self._cheapest()


BOOK: Final = CostBook()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=BOOK.renew_lock)
_snapshot: tuple[float, int, Host] | None = None


def snapshot() -> Host:
    """Return CPUs and memory as read at most :data:`amorsize._bounds.SNAPSHOT_S` ago in this very process."""
    global _snapshot  # noqa: PLW0603 - one tuple, replaced in one statement: threads see the old or the new one
    now, pid = monotonic(), os.getpid()
    kept = _snapshot
    if kept is None or kept[1] != pid or not 0 <= now - kept[0] < bounds.SNAPSHOT_S:
        kept = _snapshot = (now, pid, read_host())
    host, disabled, has_gil = kept[2], _is_disabled(os.environ), _has_gil()
    if (host.is_disabled, host.has_gil) == (disabled, has_gil):
        return host
    return replace(host, is_disabled=disabled, has_gil=has_gil)


def latest() -> Host | None:
    """Return the latest reading of CPUs and memory in this very process, None before the first; reads nothing."""
    kept = _snapshot
    return None if kept is None or kept[1] != os.getpid() else kept[2]


def unread_s() -> float:
    """Return the seconds that the first decision of this process takes longer than the others; 0 after it."""
    if _snapshot is not None:
        return 0.0
    return cost.READING_S if sys.platform == "linux" or "psutil" in sys.modules else cost.PSUTIL_S


def forget_snapshot() -> None:
    """Make the next :func:`snapshot` read again."""
    global _snapshot  # noqa: PLW0603 - as above
    _snapshot = None


def local_costs(
    names: tuple[str, ...] = (FORK, FORKSERVER, LOKY, THREADS), *, warm: frozenset[str], unavailable: Mapping[str, str]
) -> dict[str, Costs]:
    """
    Return the costs of the local backends *names* as they stand now, but for those that are *unavailable*.

    Those whose workers are running, *warm* ones, cost nothing to start.
    """
    costs = {}
    for name, known in BOOK.known.items():
        if name in unavailable or name not in names:
            continue
        now = known
        if name in warm and name != FORKSERVER:  # whose idle workers' costs are measured too
            now = replace(known, start_s=0.0, start_each_s=0.0)
        elif name in {FORKSERVER, LOKY} and (paid_s := BOOK.paid_s(name)) > 0:
            now = replace(known, start_s=max(0.0, known.start_s - paid_s))
        costs[name] = now
    return costs


def importing(host: Host, n_modules: int) -> Host:
    """Add what workers of the server import before they compute, less what earlier calls have missed for it."""
    costs = host.costs[FORKSERVER]
    start_s = costs.start_s + max(0.0, IMPORT_S * n_modules - BOOK.paid_s(FORKSERVER))
    return replace(host, costs={**host.costs, FORKSERVER: replace(costs, start_s=start_s)})
