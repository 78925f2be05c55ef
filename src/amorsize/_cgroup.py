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
    for n in range(len(parts), -1, -1):
        yield "".join(f"/{part}" for part in parts[:n])


def cgroup_paths(text: str) -> dict[str, str]:
    """Read ``/proc/self/cgroup``: the path of this process by controller, the unified hierarchy (version 2) as ""."""
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


def _folders(read: Callable[[str], str], controller: str) -> tuple[list[str], list[str]]:
    """Return the folders that there may be of this process's groups: of version 2, and of a version 1 controller."""
    paths = cgroup_paths(read("/proc/self/cgroup")) or {"": ""}
    root = f"{ROOT}/unified" if len(paths) > 1 else ROOT  # beside controllers of version 1, it is mounted there
    second = [f"{root}{path}" for path in _parents(paths.get("", ""))] if "" in paths else []
    first = [f"{ROOT}/{controller}{path}" for path in _parents(paths[controller])] if controller in paths else []
    return second, first


def n_cpus(read: Callable[[str], str]) -> float | None:
    """Return the CPU quota of this process's cgroup and those above it, the smallest, in CPUs."""
    second, first = _folders(read, "cpu")
    quotas = [parse_cpu_max(read(f"{folder}/cpu.max")) for folder in second]
    for folder in first:
        quota, period = read(f"{folder}/cpu.cfs_quota_us").strip(), read(f"{folder}/cpu.cfs_period_us").strip()
        if quota and period:
            quotas.append(parse_cpu_max(f"{quota} {period}"))
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_bytes(read: Callable[[str], str]) -> int | None:
    """Return the bytes left under the memory limits of this process's cgroup and those above it, the smallest."""
    second, first = _folders(read, "memory")
    files = [(f"{folder}/memory", "max", "current") for folder in second]
    files += [(f"{folder}/memory", "limit_in_bytes", "usage_in_bytes") for folder in first]
    left: list[int] = []
    for base, most, now in files:
        limit = parse_bytes(read(f"{base}.{most}"))
        if limit is not None:
            used = parse_bytes(read(f"{base}.{now}")) or 0
            left.append(max(0, limit - max(0, used - _reclaimable(read(f"{base}.stat")))))
    return min(left, default=None)
