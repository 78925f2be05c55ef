"""
The limits of Linux control groups, versions 1 and 2, for this process: its own group's and those of the groups above.

Each function takes what reads the text of a file, empty where there is none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = "/sys/fs/cgroup"


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


def n_cpus(read: Callable[[str], str]) -> float | None:
    """Return the CPU quota of this process's cgroup and those above it, the smallest, in CPUs."""
    paths = cgroup_paths(read("/proc/self/cgroup"))
    quotas: list[float] = []
    for root in (ROOT, f"{ROOT}/unified"):
        for path in _parents(paths.get("", "")):
            text = read(f"{root}{path}/cpu.max")
            quotas += [q for q in [parse_cpu_max(text)] if q is not None]
    for path in _parents(paths.get("cpu", "")):
        base = f"{ROOT}/cpu{path}/cpu.cfs"
        quota = read(f"{base}_quota_us")
        period = read(f"{base}_period_us")
        if quota.strip() and period.strip():
            quotas += [q for q in [parse_cpu_max(f"{quota.strip()} {period.strip()}")] if q is not None]
    return min(quotas, default=None)


def memory_bytes(read: Callable[[str], str]) -> int | None:
    """Return the bytes left under the memory limits of this process's cgroup and those above it, the smallest."""
    paths = cgroup_paths(read("/proc/self/cgroup"))
    left: list[int] = []

    def consider(limit_file: str, usage_file: str, stat_file: str) -> None:
        limit = parse_bytes(read(limit_file))
        if limit is None:
            return
        used = parse_bytes(read(usage_file)) or 0
        spare = _reclaimable(read(stat_file))
        left.append(max(0, limit - max(0, used - spare)))

    for root in (ROOT, f"{ROOT}/unified"):
        for path in _parents(paths.get("", "")):
            base = f"{root}{path}/memory"
            consider(f"{base}.max", f"{base}.current", f"{base}.stat")
    for path in _parents(paths.get("memory", "")):
        base = f"{ROOT}/memory{path}/memory"
        consider(f"{base}.limit_in_bytes", f"{base}.usage_in_bytes", f"{base}.stat")
    return min(left, default=None)
