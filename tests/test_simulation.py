from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amorsize import Profile
from amorsize import _bounds as bounds
from amorsize import _pace as pace
from amorsize import _schedule as schedule
from amorsize._backend import _worker
from amorsize._cost import PRIORS
from amorsize._records import FORK, LOKY
from tests import simulator
from tests.factories import make_host
from tests.simulator import (
    FORKED,
    KINDS,
    LOKY_LIKE,
    Cluster,
    Machine,
    Slow,
    best_in_hindsight,
    call,
    cluster_machine,
    equal_items,
    make_items,
    run_flow,
    run_team,
    steady,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulator import Items, Run

ENGINES: dict[str, tuple[Callable[..., Run], Machine]] = {"team": (run_team, FORKED), "flow": (run_flow, LOKY_LIKE)}

# A function that moves little.
SMALL = Profile(arg_bytes=100, result_bytes=100, pickle_s=2e-6, arg_pickle_s=1e-6)


def sampled_s(items: Items) -> float:
    """Return the seconds per item that five items show."""
    n = min(5, items.n)
    return items.prefix[n] / n


def efficiency(engine: str, items: Items, **changes: Any) -> float:
    """Return the bound's share of the simulated time; every item has been done exactly once."""
    run, machine = ENGINES[engine]
    machine = replace(machine, **changes)
    result = run(items, machine, item_s=sampled_s(items))
    assert result.is_exact(items.n)
    return machine.bound_s(items) / result.end_s


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_64_workers_come_near_the_bound(kind: str, engine: str) -> None:
    """64 workers with 10^5 items: at least 0.95 of (W - longest) / p + longest, however the seconds are spread."""
    assert efficiency(engine, make_items(kind, 10**5), n=64) >= 0.95


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 61, 256, 1024])
@pytest.mark.parametrize("kind", KINDS)
def test_forked_workers_come_near_the_bound_whatever_their_number(kind: str, n: int) -> None:
    """From 1 to 1,024 workers with 1.6 s of work each: at least 0.95, at least 0.9 beyond what a pipe holds."""
    assert efficiency("team", make_items(kind, 320 * n, 5e-3), n=n) >= (0.95 if n < 1000 else 0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_few_long_items_reach_all_of_256_workers_at_once(kind: str) -> None:
    """Sixteen items of 0.1 s for each of 256 workers: nobody waits for a share of somebody else's range."""
    assert efficiency("team", make_items(kind, 16 * 256, 0.1), n=256) >= 0.9


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 61])
@pytest.mark.parametrize("kind", KINDS)
def test_the_handing_caller_keeps_tens_of_workers_busy(kind: str, n: int) -> None:
    """Chunks handed out by the caller, at 0.2 ms of its time each: at least 0.95 up to 61 workers."""
    assert efficiency("flow", make_items(kind, 1600 * n), n=n) >= 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_grow_with_the_workers_that_one_caller_feeds(kind: str) -> None:
    """256 workers: chunks are long enough that the caller can hand them out as fast as they are done."""
    assert efficiency("flow", make_items(kind, 160 * 256, 0.01), n=256) >= 0.9


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 63, 64, 65])
def test_few_items_are_done_once_each(n: int, engine: str) -> None:
    """Fewer items than workers, or hardly more, take no longer than the longest allows."""
    for kind in KINDS if n else ():
        items = make_items(kind, n, 0.1)
        run, machine = ENGINES[engine]
        result = run(items, replace(machine, n=64), item_s=sampled_s(items))
        assert result.is_exact(n)
        assert result.end_s >= items.longest_s
    if n == 0:
        run, machine = ENGINES[engine]
        assert run(make_items("uniform", 0), replace(machine, n=64), item_s=1e-3).is_exact(0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_ten_million_items(kind: str, engine: str) -> None:
    """10^7 items of 10 us on 16 workers: at least 0.95."""
    assert efficiency(engine, make_items(kind, 10**7, 1e-5), n=16) >= 0.95


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_unequal_workers_share_by_what_they_can_do(kind: str, engine: str) -> None:
    """Half of the workers at a third of the speed: nobody waits for the slow ones."""
    speeds = (1.0, 1 / 3) * 16
    assert efficiency(engine, make_items(kind, 50_000), n=32, speeds=speeds) >= 0.95


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_disturbed_worker_holds_nobody_up(kind: str, engine: str) -> None:
    """A worker that stands nearly still from 0.3 s on keeps what it has for a look and an item, no longer."""
    items = make_items(kind, 20_000)
    disturbed = (Slow(1, 0.3, 5.0, 0.05), Slow(2, 0.1, 0.6, 0.5))
    run, machine = ENGINES[engine]
    machine = replace(machine, n=8, speeds=(1.0,) * 8, disturbed=disturbed)
    result = run(items, machine, item_s=sampled_s(items))
    assert result.is_exact(items.n)
    assert result.end_s <= machine.bound_s(items) / 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_the_caller_takes_its_share(kind: str) -> None:
    """Two processes, the caller one of them: at least 0.95, with its reading of messages counted."""
    items = make_items(kind, 2000)
    result = run_team(items, FORKED, item_s=sampled_s(items), caller_computes=True)
    assert result.is_exact(items.n)
    assert FORKED.bound_s(items) / result.end_s >= 0.95


@pytest.mark.parametrize("engine", ENGINES)
def test_chunks_of_a_fixed_size_are_that_size(engine: str) -> None:
    """A batch_size is exact: nothing is split or cut short."""
    run, machine = ENGINES[engine]
    result = run(make_items("heavy tail", 1000), replace(machine, n=4), item_s=1e-3, batch_size=7)
    assert sorted(result.done) == [(i, min(1000, i + 7)) for i in range(0, 1000, 7)]


@given(
    seconds=st.lists(st.one_of(st.just(0.0), st.floats(1e-7, 1.0)), max_size=60),
    n=st.integers(1, 12),
    item_s=st.one_of(st.just(0.0), st.floats(1e-9, 10.0)),
    engine=st.sampled_from(sorted(ENGINES)),
    is_private=st.booleans(),
)
@settings(max_examples=150)
def test_every_item_is_done_exactly_once_in_any_case(
    seconds: list[float], n: int, item_s: float, engine: str, *, is_private: bool
) -> None:
    """Whatever the items take and whatever the plan believes, none is lost or done twice, and time is not gained."""
    prefix = list(itertools.accumulate(seconds, initial=0.0))
    items = simulator.Items(prefix, len(seconds), prefix[-1], max(seconds, default=0.0))
    run, machine = ENGINES[engine]
    result = run(items, replace(machine, n=n, is_private=is_private), item_s=item_s)
    assert result.is_exact(len(seconds))
    assert result.end_s >= max(items.total_s / n, items.longest_s) - 1e-9


@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_looks_at_the_clock_soon_whatever_the_sample_says(engine: str) -> None:
    """A sample of nothing is no reason to run a thousand items of 10 ms before the first look."""
    items = make_items("cheap first items", 4000, 0.01)
    run, machine = ENGINES[engine]
    result = run(items, machine, item_s=sampled_s(items))
    longest_s = max(items.prefix[stop] - items.prefix[start] for start, stop in result.done)
    assert result.n_chunks >= 100 or longest_s <= 1.0


# -- whole calls -----------------------------------------------------------------------------------------------------

LINUX = PRIORS["linux"]
HOSTS = {
    "fork": make_host(n_cpus=2, costs={FORK: LINUX[FORK], LOKY: LINUX[LOKY]}),
    "loky": make_host(n_cpus=2, costs={LOKY: LINUX[LOKY]}),
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_comes_near_the_best_plan_in_hindsight(kind: str, host: str) -> None:
    """With 10 s of work on two cores, first call, any order: at most 1.10 of the best of loop and start methods."""
    items = make_items(kind, 10**5, 1e-4)
    assert call(items, HOSTS[host], profile=SMALL).seconds <= 1.10 * best_in_hindsight(items, HOSTS[host])[0]


@pytest.mark.parametrize("kind", ["uniform", "ascending", "regime change", "outlier first", "cheap first items"])
def test_a_tenth_of_a_second_of_work_comes_near_it_too(kind: str) -> None:
    """The same with 0.1 s of work and workers that can be forked: a change of regime is noticed in time."""
    items = make_items(kind, 1000, 1e-4)
    assert call(items, HOSTS["fork"], profile=SMALL).seconds <= 1.10 * best_in_hindsight(items, HOSTS["fork"])[0]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("mean_s", [1e-7, 1e-6])
@pytest.mark.parametrize("kind", KINDS)
def test_tiny_work_stays_a_loop(kind: str, mean_s: float, host: str) -> None:
    """A millisecond of work is over before any worker could begin."""
    called = call(make_items(kind, 1000, mean_s), HOSTS[host], profile=SMALL)
    assert called.promoted_at is None


def test_a_loop_goes_parallel_when_its_items_grow() -> None:
    """Ascending costs look like nothing at first; the loop hands over while most of the work is still to do."""
    items = make_items("ascending", 10**5, 1e-4)
    called = call(items, HOSTS["fork"], profile=SMALL)
    assert called.promoted_at is not None
    assert items.prefix[called.promoted_at] < 0.01 * items.total_s


# -- what a worker has goes home -------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("item_s", [1e-6, 1e-4, 1e-3, 1e-2, 0.2])
def test_a_worker_sends_what_it_has_every_50_ms(item_s: float, expected: float) -> None:
    """A chunk ends within a quantum, or after one item where that takes longer, however wrong the expectation was."""
    now = 0.0

    def work(i: int) -> int:
        nonlocal now
        now += item_s
        return i

    chunker = schedule.Chunker(n_workers=2, item_s=expected * item_s, batch_overhead_s=300e-6)
    assert chunker.quantum_s == bounds.QUANTUM_S == 0.05
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_worker, "clock", lambda: now)
        block = pace.first_block(chunker.item_s)
        results, _ = _worker.run_quantum(work, range(1_000_000), chunker.quantum_s, block, keep_going=False)
    assert results == list(range(len(results)))
    assert 0.04 <= now <= max(chunker.quantum_s, item_s) + 1e-9


@pytest.mark.parametrize("n_workers", [1, 2, 64, 10_000])
@pytest.mark.parametrize("batch_overhead_s", [60e-6, 300e-6, 2e-3])
@pytest.mark.parametrize("item_s", [1e-7, 1e-3, 0.03])
def test_a_chunk_that_takes_what_is_expected_is_not_cut(n_workers: int, batch_overhead_s: float, item_s: float) -> None:
    """Nor is one that takes a tenth longer: cutting it would cost a dispatch for a few items."""
    chunker = schedule.Chunker(n_workers, item_s, batch_overhead_s)
    assert 1.1 * item_s * (chunker.size(10**12) - 1) < chunker.quantum_s


# -- clusters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 10, 100, 1000])
@pytest.mark.parametrize("round_trip_s", [1e-4, 1e-2])
@pytest.mark.parametrize("chunk_items", [3, 100])
def test_the_steady_state_of_a_cluster_is_what_the_simulation_shows(
    n: int, round_trip_s: float, chunk_items: int
) -> None:
    """Chunks per second follow from the scarcest of workers, windows and driver."""
    cluster = Cluster(n, round_trip_s, driver_s=1e-3)
    load = steady(cluster, 1e-3, chunk_items)
    result = run_flow(
        equal_items(10**7, 1e-3),
        cluster_machine(cluster),
        item_s=1e-3,
        batch_size=chunk_items,
        most_chunks=max(1000, 8 * n),
    )
    assert result.n_chunks / result.end_s == pytest.approx(load.chunks_per_s, rel=0.15)


def test_a_run_that_is_left_in_its_middle_has_done_no_more() -> None:
    """What the simulation of a cluster stops at is what the dispatcher has taken in by then."""
    result = run_flow(equal_items(10**7, 1e-6), replace(LOKY_LIKE, n=8), item_s=1e-6, most_chunks=100)
    assert 0 < result.n_done < 10**7
    assert result.n_chunks == 100
