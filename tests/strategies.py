"""Hypothesis strategies for the records a decision is made from: any valid one, from the tiny to the absurd."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from amorsize import Costs, Host, Limits, Profile
from amorsize._cost import PRIORS
from tests.factories import GB

# Seconds of one item: from below the clock's resolution to an hour.
item_seconds = st.one_of(st.floats(1e-9, 3600.0), st.sampled_from([0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 1.0]))
sizes = st.one_of(st.integers(0, 4096), st.integers(0, GB))
item_counts = st.one_of(st.integers(0, 40), st.integers(0, 10**9))


@st.composite
def profiles(draw: st.DrawFn, **fixed: Any) -> Profile:
    """Draw the profile of any function."""
    pickle_s = draw(st.floats(0.0, 1.0))
    values: dict[str, Any] = {
        "n_sampled": draw(st.integers(0, 10)),
        "item_s": draw(item_seconds),
        "cpu_fraction": draw(st.floats(0.0, 64.0)),
        "arg_bytes": draw(sizes),
        "result_bytes": draw(sizes),
        "pickle_s": pickle_s,
        "arg_pickle_s": pickle_s * draw(st.floats(0.0, 1.0)),
        "peak_bytes": draw(sizes),
        "is_picklable": draw(st.sampled_from([True, True, True, False])),
        "mutates": draw(st.sampled_from([(), (), (), ("TOTAL",)])),
        "reads_mutable": draw(st.sampled_from([(), ("TABLE",)])),
        "n_head": draw(st.integers(0, 10)),
        "head_s": draw(st.floats(0.0, 10.0)),
    }
    return Profile(**values | fixed)


@st.composite
def costs(draw: st.DrawFn) -> Costs:
    """Draw what a way of running in parallel may cost: warm or cold, local or far away."""
    start_s = draw(st.one_of(st.just(0.0), st.floats(0.0, 5.0)))
    speeds = st.one_of(st.just(float("inf")), st.floats(1e6, 1e10))
    return Costs(
        start_s=start_s,
        start_each_s=draw(st.floats(0.0, 0.1)) if start_s else 0.0,
        batch_overhead_s=draw(st.floats(0.0, 0.01)),
        item_overhead_s=draw(st.floats(0.0, 1e-5)),
        send_bytes_per_s=draw(speeds),
        receive_bytes_per_s=draw(speeds),
        efficiency=draw(st.floats(0.3, 1.0)),
        worker_bytes=draw(st.integers(0, 200 << 20)),
    )


@st.composite
def hosts(draw: st.DrawFn, **fixed: Any) -> Host:
    """Draw a machine of 1 to 1,024 cores and 0.5 GB to 4 TB, on any platform, with prior or odd costs."""
    platform = draw(st.sampled_from(["linux", "darwin", "win32"]))
    names = sorted(PRIORS[platform])
    n_cpus = draw(st.integers(1, 1024))
    known = {name: draw(st.one_of(st.just(PRIORS[platform][name]), costs())) for name in names}
    values: dict[str, Any] = {
        "n_cpus": n_cpus,
        "n_physical_cpus": draw(st.integers(1, n_cpus)),
        "memory_bytes": draw(st.integers(GB // 2, 4096 * GB)),
        "n_others": draw(st.sampled_from([0, 0, 1, 7, 1000])),
        "costs": known,
        "platform": platform,
        "is_nested": draw(st.sampled_from([False, False, False, True])),
        "is_disabled": draw(st.sampled_from([False, False, False, True])),
        "has_gil": draw(st.booleans()),
    }
    return Host(**values | fixed)


@st.composite
def contexts(draw: st.DrawFn) -> Host:
    """Draw a machine under an active joblib context."""
    host = draw(hosts())
    backend = draw(st.sampled_from([None, "threading", "dask"]))
    known = dict(host.costs)
    if backend == "dask":
        known["dask"] = draw(costs())
    n_jobs = draw(st.integers(1, 200)) if backend == "dask" else draw(st.one_of(st.none(), st.integers(1, 200)))
    return draw(hosts(costs=known, context_backend=backend, context_n_jobs=n_jobs, platform=host.platform))


@st.composite
def limits(draw: st.DrawFn, **fixed: Any) -> Limits:
    """Draw any bounds a caller may give."""
    prefer = draw(st.sampled_from([None, "processes", "threads"]))
    values: dict[str, Any] = {
        "n_jobs": draw(st.one_of(st.none(), st.integers(-2000, 2000).filter(bool))),
        "batch_size": draw(st.one_of(st.none(), st.integers(1, 10**6))),
        "prefer": prefer,
        "sample_size": draw(st.integers(1, 20)),
        "max_memory": draw(st.one_of(st.none(), st.integers(1, 64 * GB))),
        "start_method": None if prefer == "threads" else draw(st.sampled_from([None, "fork", "loky"])),
        "errors": draw(st.sampled_from(["raise", "return", "skip"])),
        "retries": draw(st.sampled_from([0, 0, 1])),
        "timeout": draw(st.sampled_from([None, None, 1.0])),
    }
    return Limits(**values | fixed)


free_limits = limits(n_jobs=None, retries=0, timeout=None, prefer=None)
