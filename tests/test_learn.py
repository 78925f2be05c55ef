"""What runs teach: the speed of workers beside each other, per function and per host."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from amorsize import Reason, _backend, _host, _known, _learn
from amorsize import _cost as cost
from amorsize._backend import _blas
from amorsize._cost import PRIORS
from amorsize._decide import decide
from amorsize._record import State
from amorsize._records import FORKSERVER, Span
from tests.factories import make_host, make_limits, make_profile

if TYPE_CHECKING:
    from collections.abc import Sequence


def chunks(rates_s: Sequence[float], n_items: int = 10) -> list[Span]:
    """Return spans of *n_items* items each that took these seconds per item."""
    return [
        Span(lane="worker 1", begin_s=0.0, end_s=rate * n_items, start=i * n_items, n_items=n_items)
        for i, rate in enumerate(rates_s)
    ]


def test_items_that_all_take_longer_beside_each_other_tell_the_efficiency() -> None:
    """Workers that share a floating-point unit are slower by as much in every chunk."""
    profile = make_profile(n_head=5, item_s=4e-3, item_s_std=4e-5)
    assert _learn._seen_efficiency(profile, chunks([8e-3, 8.1e-3, 7.9e-3])) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "rates",
    [
        pytest.param([1e-3] * 9 + [0.4], id="a heavy item at the end"),
        pytest.param([1e-3, 2e-3, 3e-3, 4e-3], id="ascending"),
        pytest.param([2e-3], id="one chunk"),
    ],
)
def test_an_outlier_is_not_taken_for_slow_workers(rates: list[float]) -> None:
    """The mean of unlike items says nothing about cores: a long tail once ended all parallel runs of its function."""
    assert _learn._seen_efficiency(make_profile(n_head=5), chunks(rates)) == 0.0


@pytest.mark.parametrize(("arg_bytes", "expected_s"), [(100, 0.01), (1 << 20, 0.0)])
def test_a_gap_in_which_much_data_moves_is_not_a_dispatch(arg_bytes: int, expected_s: float) -> None:
    """Chunks sized by the time that their own copying takes would grow without end."""
    plan = decide(make_profile(arg_bytes=arg_bytes), make_host(n_cpus=2), 1000, make_limits(start_method="loky"))
    plan = dataclasses.replace(plan, backend="loky")
    spans = [Span(lane="w", begin_s=i * 0.05, end_s=i * 0.05 + 0.04, start=8 * i, n_items=8) for i in range(9)]
    assert _learn._usual_gap_s(spans, plan) == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("backend", "arg_bytes", "times"), [("ray", 1 << 20, cost.DATA_DISPATCH), ("ray", 100, 1.0), ("loky", 1 << 20, 1.0)]
)
def test_a_chunk_of_much_data_costs_a_cluster_more_than_a_dispatch(backend: str, arg_bytes: int, times: float) -> None:
    """Such a message goes through the store of the engine; longer chunks make up for it."""
    known = cost.EXTERNAL_PRIOR
    costs = cost.of_function(make_profile(item_s=0.01, arg_bytes=arg_bytes), known, backend)
    assert costs.batch_overhead_s == times * known.batch_overhead_s


def test_a_function_that_does_not_gain_from_cores_stays_in_the_loop() -> None:
    """Its own efficiency counts, not the host's, which other functions reach."""
    host, limits = make_host(n_cpus=2), make_limits()
    assert decide(make_profile(efficiency=0.0), host, 1000, limits).is_parallel
    plan = decide(make_profile(efficiency=0.5), host, 1000, limits)
    assert not plan.is_parallel
    assert plan.reason is Reason.NOT_WORTH
    assert decide(make_profile(thread_efficiency=0.5), host, 1000, limits).is_parallel


def test_a_loop_is_settled_for_as_many_items_and_for_a_moment() -> None:
    """Then it is decided on again: threads that forbade a fork may have ended, say."""
    state = State(len)
    assert not state.is_settled(0)
    state.settled = 5, math.inf
    assert state.is_settled(5)
    assert not state.is_settled(6)
    state.settled = 5, time.perf_counter()
    assert not state.is_settled(5)


def test_a_short_loop_is_settled_unless_it_misses_workers_that_start_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that miss a fork server are counted, one by one, until its start is worth it."""
    monkeypatch.setattr(_backend, "is_warm", lambda: False)
    host = make_host(n_cpus=2, n_physical_cpus=2, costs=PRIORS["linux"])
    plan = decide(make_profile(efficiency=0.5, item_s=0.5e-3), host, 10, make_limits())
    assert plan.reason is Reason.NOT_WORTH
    assert _learn._is_settling(plan, plan.predicted_s)
    assert not _learn._is_settling(plan, 3 * plan.predicted_s)
    no_fork = dataclasses.replace(host, costs={FORKSERVER: PRIORS["linux"][FORKSERVER]})
    plan = decide(plan.profile, no_fork, 10, make_limits())
    assert plan.reason is Reason.NOT_WORTH
    assert not _learn._is_settling(plan, plan.predicted_s)
    assert _learn._is_settling(dataclasses.replace(plan, limits=make_limits(prefer="threads")), plan.predicted_s)
    monkeypatch.setattr(_backend, "is_warm", lambda: True)
    assert _learn._is_settling(plan, plan.predicted_s)


@pytest.mark.parametrize(("has_gil", "field"), [(True, "thread_efficiency"), (False, "free_thread_efficiency")])
def test_what_threads_reach_is_kept_apart_by_the_gil(*, has_gil: bool, field: str) -> None:
    """With the lock and without it the same function reaches different speeds in threads."""
    host = make_host(n_cpus=2, has_gil=has_gil)
    plan = decide(make_profile(), host, 1000, make_limits(prefer="threads"))
    key = f"threads with the lock: {has_gil}"
    _known.remember(key, make_profile(), 1, 5)
    before = _host.BOOK.get("threading")
    try:
        _learn._learn_efficiency(key, plan, 0.5)
    finally:
        _host.BOOK.learn("threading", efficiency=before.efficiency)
    known = _known.CACHE.get(key)
    assert known is not None
    names = ("efficiency", "thread_efficiency", "free_thread_efficiency")
    assert {name: getattr(known.profile, name) for name in names} == {**dict.fromkeys(names, 0.0), field: 0.75}


@pytest.mark.skipif(sys.platform != "linux", reason="the libraries are looked up in /proc")
def test_a_computing_caller_has_its_share_of_blas_threads() -> None:
    """Beside workers the caller is one of them; afterwards it has what it had."""
    np.ones((2, 2)) @ np.ones((2, 2))
    numbers = list(_blas._openblas_numbers().values())
    if not numbers:
        pytest.skip("this NumPy does not show OpenBLAS's number of threads")
    before = [number.value for number in numbers]
    with _blas.limited(1):
        assert [number.value for number in numbers] == [1] * len(numbers)
    assert [number.value for number in numbers] == before
