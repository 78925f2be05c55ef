"""
The machine as this process may use it: CPUs, memory, and what starting and feeding workers costs.

Where a reading comes from is a parameter (:class:`Readings`), so that odd machines are tested by giving odd
readings. Detection never raises: a reading that cannot be had is left out, and ``Host.sources`` says where each came
from. The only room that knows psutil.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amorsize._cost import EXTERNAL_PRIOR, PRIORS
from amorsize._types import FORK, LOKY, THREADS, Costs, Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Seconds a snapshot of CPUs and memory is reused. Reading both takes 0.1 to 0.3 ms (some ten small files), which would
# show in many small calls; limits change by the second at most.
SNAPSHOT_S: Final = 1.0

# Seconds that the first decision of a process takes: it reads CPUs, memory and loaded libraries for the first time
# (measured: 1.5 to 2 ms), and loads psutil where that is needed and nobody has (12 ms more). Shorter work is not worth
# it.
READING_S: Final = 2e-3
LOADING_S: Final = 15e-3

# Weight of a new observation of a cost against what was known: the first replaces the prior, later ones count a
# third, so that three runs after a change the estimate has moved 70 % of the way.
NEW_WEIGHT: Final = 1 / 3

# How many times what was known one observation may say at most: a start on a machine that was busy with something else
# took ten times the usual one.
MOST_CHANGE: Final = 3.0

# What is assumed where no reading of the memory can be had at all: 1 GiB, enough for a few small workers.
UNKNOWN_MEMORY_BYTES: Final = 1 << 30

# Bytes available below which running work gets fewer workers: under that, Linux starts to reclaim and to kill.
TIGHT_BYTES: Final = 200 << 20

_CGROUP = "/sys/fs/cgroup"


def _read_text(path: str) -> str:
    # Decoded apart: as the encoding of a text file, "ascii" is a module that few programs have loaded.
    with open(path, "rb") as file:
        return file.read().decode("ascii", errors="replace")


def _physical() -> int | None:
    """
    Return the physical cores: on Linux those this process may run on, elsewhere those of the machine.

    Linux is asked itself, here and below, since the first decision waits for it: loading psutil takes 17 ms, reading
    these files 0.1. Where a file is not as expected psutil is asked all the same.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
            return len({_read_text(topology.format(n)) for n in os.sched_getaffinity(0)})
    import psutil  # noqa: PLC0415 - see above

    return psutil.cpu_count(logical=False)


def _available() -> int | None:
    """Return the bytes that can be had without swapping."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            _, _, rest = _read_text("/proc/meminfo").partition("MemAvailable:")
            return int(rest.split(maxsplit=2)[0]) * 1024 if rest else _psutil_available()
    return _psutil_available()


def _psutil_available() -> int:
    import psutil  # noqa: PLC0415 - as above

    return int(psutil.virtual_memory().available)


def _affinity() -> int | None:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return None


def _address_space() -> int | None:
    """Return what is left of ``RLIMIT_AS``, None where there is no such limit."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - does not exist on Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft in {resource.RLIM_INFINITY, -1}:
        return None
    used = int(_read_text("/proc/self/statm").split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    return max(0, soft - used)


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
    """

    logical: Callable[[], int | None] = os.cpu_count
    physical: Callable[[], int | None] = _physical
    affinity: Callable[[], int | None] = _affinity
    available: Callable[[], int | None] = _available
    address_space: Callable[[], int | None] = _address_space
    read_text: Callable[[str], str] = _read_text
    environ: Mapping[str, str] = os.environ
    platform: str = sys.platform


def _attempt(read: Callable[[], Any]) -> Any:
    """Return the reading, or None where it fails: a machine's oddity must never stop the user's work."""
    try:
        return read()
    except Exception:  # noqa: BLE001 - psutil, odd files and limits fail in every way there is
        return None


def _count(value: object) -> int | None:
    """Accept a reading as a count of at least one."""
    try:
        number = int(value)  # type: ignore[call-overload]  # None and odd types raise, as they should
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number >= 1 else None


def _parents(path: str) -> Iterator[str]:
    """Yield a cgroup path and those above it, the root (an empty string) last."""
    parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
    for n in range(len(parts), 0, -1):
        yield "/" + "/".join(parts[:n])
    yield ""


def cgroup_paths(text: str) -> dict[str, str]:
    """
    Read ``/proc/self/cgroup``.

    Returns:
        The path of this process by controller; the unified hierarchy (version 2) stands under an empty name.
    """
    paths: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.strip().split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths.setdefault(controller, parts[2])
    return paths


def parse_cpu_max(text: str) -> float | None:
    """Read ``cpu.max`` of cgroup v2 (``"max 100000"``, ``"150000 100000"``); None where there is no quota."""
    parts = text.split()
    if not parts or parts[0] == "max":
        return None
    try:
        quota, period = float(parts[0]), float(parts[1]) if len(parts) > 1 else 100_000.0
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 and 0 < quota / period < math.inf else None


def parse_bytes(text: str) -> int | None:
    """Read a memory figure of a cgroup file; None for ``max``, nonsense and the huge number that means no limit."""
    try:
        value = int(text.split(maxsplit=1)[0])
    except (IndexError, ValueError):
        return None
    return value if 0 <= value < 1 << 60 else None


def _reclaimable(text: str) -> int:
    """Return the bytes of inactive file cache in ``memory.stat``, which the kernel gives back when asked."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in {"inactive_file", "total_inactive_file"}:
            return parse_bytes(value) or 0
    return 0


def _text(readings: Readings, path: str) -> str:
    """Return the text of a file, empty where it cannot be read."""
    return str(_attempt(lambda: readings.read_text(path)) or "")


def cgroup_cpus(readings: Readings) -> float | None:
    """Return the CPU quota of this process's cgroup and those above it, the smallest, in CPUs."""
    paths = cgroup_paths(_text(readings, "/proc/self/cgroup"))
    quotas: list[float] = []
    for root in (_CGROUP, f"{_CGROUP}/unified"):
        for path in _parents(paths.get("", "")):
            text = _text(readings, f"{root}{path}/cpu.max")
            quotas += [q for q in [parse_cpu_max(text)] if q is not None]
    for path in _parents(paths.get("cpu", "")):
        base = f"{_CGROUP}/cpu{path}/cpu.cfs"
        quota = _text(readings, f"{base}_quota_us")
        period = _text(readings, f"{base}_period_us")
        if quota.strip() and period.strip():
            quotas += [q for q in [parse_cpu_max(f"{quota.strip()} {period.strip()}")] if q is not None]
    return min(quotas, default=None)


def cgroup_memory(readings: Readings) -> int | None:
    """Return the bytes left under the memory limits of this process's cgroup and those above it, the smallest."""
    paths = cgroup_paths(_text(readings, "/proc/self/cgroup"))
    left: list[int] = []

    def consider(limit_file: str, usage_file: str, stat_file: str) -> None:
        limit = parse_bytes(_text(readings, limit_file))
        if limit is None:
            return
        used = parse_bytes(_text(readings, usage_file)) or 0
        spare = _reclaimable(_text(readings, stat_file))
        left.append(max(0, limit - max(0, used - spare)))

    for root in (_CGROUP, f"{_CGROUP}/unified"):
        for path in _parents(paths.get("", "")):
            base = f"{root}{path}/memory"
            consider(f"{base}.max", f"{base}.current", f"{base}.stat")
    for path in _parents(paths.get("memory", "")):
        base = f"{_CGROUP}/memory{path}/memory"
        consider(f"{base}.limit_in_bytes", f"{base}.usage_in_bytes", f"{base}.stat")
    return min(left, default=None)


def usable_cpus(readings: Readings) -> tuple[int, int, str]:
    """Return usable logical CPUs, usable physical cores, and what set the number."""
    logical = _count(_attempt(readings.logical))
    ceilings = [] if logical is None else [(logical, "machine")]
    if (affinity := _count(_attempt(readings.affinity))) is not None:
        ceilings.append((affinity, "affinity"))
    if (quota := _attempt(lambda: cgroup_cpus(readings))) is not None:
        ceilings.append((max(1, math.ceil(quota)), "cgroup CPU quota"))
    if (override := _count(_attempt(lambda: readings.environ.get("LOKY_MAX_CPU_COUNT")))) is not None:
        ceilings.append((override, "LOKY_MAX_CPU_COUNT"))
    n_cpus, source = min(ceilings, key=lambda c: c[0], default=(1, "unknown"))
    physical = _count(_attempt(readings.physical)) or n_cpus
    return n_cpus, max(1, min(n_cpus, physical)), source


def available_memory(readings: Readings) -> tuple[int, str]:
    """Return the bytes available to this process, and which limit they come from."""
    sources = (
        (readings.available, "machine"),
        (lambda: cgroup_memory(readings), "cgroup"),
        (readings.address_space, "RLIMIT_AS"),
    )
    found = []
    for read, source in sources:
        value = _attempt(read)
        if isinstance(value, int | float) and 0 <= value < math.inf:
            found.append((int(value), source))
    return min(found, default=(UNKNOWN_MEMORY_BYTES, "unknown"))


def is_memory_tight(readings: Readings | None = None) -> bool:
    """Tell whether less than :data:`TIGHT_BYTES` are left to this process."""
    return available_memory(readings or Readings())[0] < TIGHT_BYTES


def read_host(readings: Readings | None = None) -> Host:
    """Read CPUs and memory now; costs are the priors of the platform."""
    readings = readings or Readings()
    n_cpus, n_physical, cpu_source = usable_cpus(readings)
    memory, memory_source = available_memory(readings)
    return Host(
        n_cpus=n_cpus,
        n_physical_cpus=n_physical,
        memory_bytes=memory,
        costs=dict(PRIORS.get(readings.platform, PRIORS["darwin"])),
        platform=readings.platform,
        is_disabled=_is_disabled(readings),
        sources={"n_cpus": cpu_source, "memory_bytes": memory_source},
    )


def _is_disabled(readings: Readings) -> bool:
    value = _attempt(lambda: readings.environ.get("AMORSIZE_SERIAL", "")) or ""
    return value.strip().lower() not in {"", "0", "false", "no"}


def resident_bytes() -> int:
    """Return the resident memory of this process, 0 where it cannot be read cheaply."""
    try:
        return int(_read_text("/proc/self/statm").split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return 0


class CostBook:
    """
    What this process has learned about the costs of each backend: the priors until a run has measured them.

    Guarantees: any thread may read or write; a reader sees whole records only.
    """

    def __init__(self, platform: str = sys.platform) -> None:
        self._lock = threading.Lock()
        self._costs: dict[str, Costs] = dict(PRIORS.get(platform, PRIORS["darwin"]))
        self.cheapest_start_s = self._cheapest()
        self._missed_s: dict[str, float] = {}
        self._measured: set[tuple[str, str]] = set()

    def _cheapest(self) -> float:
        return min(known.start_s for name, known in self._costs.items() if name in {FORK, LOKY})

    def get(self, backend: str) -> Costs:
        """Return what is known of *backend*; a cluster's prior for names never seen."""
        return self._costs.get(backend, EXTERNAL_PRIOR)

    def learn(self, backend: str, **seen: float) -> None:
        """
        Take in what a run measured.

        Args:
            backend: Its name.
            seen: Fields of :class:`Costs`; values that are not positive finite numbers are ignored.
        """
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
                    value = min(value, MOST_CHANGE * before)  # noqa: PLW2901 - one disturbed run must not set the figure
                fields[name] = value if is_first else before + NEW_WEIGHT * (value - before)
            if fields:
                self._costs[backend] = replace(known, **fields, is_measured=True)
                self.cheapest_start_s = self._cheapest()

    def renew(self, backend: str, **seen: float) -> None:
        """Take in what was measured on a cluster seen for the first time; what another one cost is forgotten."""
        with self._lock:
            self._costs.pop(backend, None)
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

    def started(self, backend: str) -> None:
        """Forget the losses: the workers have been started."""
        with self._lock:
            self._missed_s.pop(backend, None)

    def items(self) -> dict[str, Costs]:
        """Return a copy of everything known."""
        with self._lock:
            return dict(self._costs)

    def restore(self, costs: Mapping[str, Costs]) -> None:
        """Put back costs that were kept from an earlier process, where this one has not measured yet."""
        with self._lock:
            for name, value in costs.items():
                if not self._costs.get(name, EXTERNAL_PRIOR).is_measured:
                    self._costs[name] = value
            self.cheapest_start_s = self._cheapest()


BOOK: Final = CostBook()
_snapshot: tuple[float, int, Host] | None = None


def snapshot() -> Host:
    """Return CPUs and memory as read at most :data:`SNAPSHOT_S` ago in this very process."""
    global _snapshot  # noqa: PLW0603 - one tuple, replaced in one statement: threads see the old or the new one
    now, pid = time.monotonic(), os.getpid()
    kept = _snapshot
    if kept is None or kept[1] != pid or not 0 <= now - kept[0] < SNAPSHOT_S:
        kept = _snapshot = (now, pid, read_host())
    disabled = _is_disabled(Readings())
    return kept[2] if kept[2].is_disabled == disabled else replace(kept[2], is_disabled=disabled)


def unread_s() -> float:
    """Return the seconds that the first decision of this process takes longer than the others; 0 after it."""
    if _snapshot is not None:
        return 0.0
    return READING_S if sys.platform == "linux" or "psutil" in sys.modules else LOADING_S


def forget_snapshot() -> None:
    """Make the next :func:`snapshot` read again."""
    global _snapshot  # noqa: PLW0603 - as above
    _snapshot = None


def local_costs(
    names: tuple[str, ...] = (FORK, LOKY, THREADS), *, warm: frozenset[str], unavailable: Mapping[str, str]
) -> dict[str, Costs]:
    """
    Return the costs of the local backends as they stand now.

    Args:
        names: The backends that are asked for.
        warm: Backends whose workers are running: they cost nothing to start.
        unavailable: Backends left out, with the reason.
    """
    costs = {}
    for name, known in BOOK.items().items():
        if name in unavailable or name not in names:
            continue
        now = known
        if name in warm:
            now = replace(known, start_s=0.0, start_each_s=0.0)
        elif name == LOKY and (missed_s := BOOK.missed_s(name)) > 0:
            now = replace(known, start_s=max(0.0, known.start_s - missed_s))
        costs[name] = now
    return costs
