"""Makes valid profiles, hosts and limits; a test overrides what it is about."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from amorsize import Host, Limits, Profile
from amorsize._cost import PRIORS

if TYPE_CHECKING:
    from collections.abc import Mapping

GB: Final = 1 << 30


def make_profile(**changes: Any) -> Profile:
    """Return the profile of a function that takes 1 ms per item and moves little data."""
    values: dict[str, Any] = {
        "n_sampled": 5,
        "item_s": 1e-3,
        "item_s_std": 1e-5,
        "first_s": 1e-3,
        "cpu_fraction": 1.0,
        "arg_bytes": 100,
        "result_bytes": 100,
        "func_bytes": 100,
        "pickle_s": 2e-6,
        "arg_pickle_s": 1e-6,
        "peak_bytes": 0,
    }
    return Profile(**values | changes)


def make_host(**changes: Any) -> Host:
    """Return a Linux machine with 4 cores and 16 GB whose costs are the priors; *platform* changes those too."""
    platform = changes.get("platform", "linux")
    n_cpus = changes.get("n_cpus", 4)
    values: dict[str, Any] = {
        "n_cpus": n_cpus,
        "n_physical_cpus": n_cpus,
        "memory_bytes": 16 * GB,
        "costs": PRIORS[platform],
        "platform": platform,
    }
    return Host(**values | changes)


def make_limits(**changes: Any) -> Limits:
    """Return the caller's bounds; none are given by default."""
    return Limits(**changes)


# Machines that are not the one on the developer's desk.
ODD_HOSTS: Final[Mapping[str, Host]] = MappingProxyType(
    {
        "one core": make_host(n_cpus=1),
        "two threads of one core": make_host(n_cpus=2, n_physical_cpus=1),
        "two cores": make_host(n_cpus=2),
        "laptop with two threads per core": make_host(n_cpus=16, n_physical_cpus=8),
        "more cores than CPUs allowed": make_host(n_cpus=2, n_physical_cpus=32),
        "1,024 cores": make_host(n_cpus=1024, memory_bytes=4096 * GB),
        "1,024 cores, half a gigabyte": make_host(n_cpus=1024, memory_bytes=GB // 2),
        "no memory left": make_host(memory_bytes=0),
        "Windows with 128 cores": make_host(n_cpus=128, platform="win32", memory_bytes=512 * GB),
        "macOS": make_host(n_cpus=10, platform="darwin"),
        "no way to start workers": make_host(costs={}),
        "loky only": make_host(costs={"loky": PRIORS["linux"]["loky"]}),
        "inside a worker": make_host(is_nested=True),
        "switched off": make_host(is_disabled=True),
    }
)
