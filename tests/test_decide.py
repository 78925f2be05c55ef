from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amorsize import Host, Limits, Plan, Profile, Reason, decide
from amorsize import _cost as cost
from amorsize._cost import PRIORS
from tests.factories import GB, ODD_HOSTS, make_host, make_limits, make_profile
from tests.strategies import contexts, free_limits, hosts, item_counts, limits, profiles

any_host = st.one_of(hosts(), contexts(), st.sampled_from(sorted(ODD_HOSTS)).map(ODD_HOSTS.__getitem__))
maybe_items = st.one_of(st.none(), item_counts)


def parallel_plan(**changes: Any) -> Plan:
    """Return the plan for work that is worth four cores."""
    return decide(make_profile(**changes), make_host(), 10_000, make_limits())


# -- any valid input -------------------------------------------------------------------------------------------------


@given(profiles(), any_host, maybe_items, limits())
@example(Profile(), make_host(), 1, Limits(timeout=1.0))  # an item that takes nothing, in a worker all the same
def test_every_valid_input_gets_a_plan_with_sane_numbers(
    profile: Profile, host: Host, n_items: int | None, bounds: Limits
) -> None:
    """Whatever the records hold, a plan comes back whose numbers are counts and seconds."""
    plan = decide(profile, host, n_items, bounds)
    assert plan.n_jobs >= 1
    assert plan.batch_size >= 1
    assert plan.chunksize == plan.batch_size
    assert plan.overhead_s >= 0
    assert plan.transfer_s >= -1e-9
    for seconds in (plan.serial_s, plan.parallel_s, plan.predicted_s):
        assert seconds >= 0
        assert math.isinf(seconds) == (n_items is None)
    assert plan.speedup > 0
    assert math.isfinite(plan.speedup)


@given(profiles(), any_host, maybe_items, limits())
def test_a_plan_replays_from_what_it_carries(profile: Profile, host: Host, n_items: int | None, bounds: Limits) -> None:
    """The inputs that a plan carries lead to that very plan again."""
    plan = decide(profile, host, n_items, bounds)
    assert decide(plan.profile, plan.host, plan.n_items, plan.limits) == plan
    assert (plan.profile, plan.host, plan.n_items, plan.limits) == (profile, host, n_items, bounds)


@given(profiles(), any_host, maybe_items, limits())
def test_a_plan_is_serial_exactly_where_its_backend_says_so(
    profile: Profile, host: Host, n_items: int | None, bounds: Limits
) -> None:
    """The sequential backend has one job, and a parallel reason never comes with it."""
    plan = decide(profile, host, n_items, bounds)
    assert plan.is_parallel == (plan.reason in {Reason.FASTER, Reason.FIXED, Reason.ISOLATED})
    if not plan.is_parallel:
        assert plan.n_jobs == 1
        assert plan.predicted_s == plan.serial_s
    else:
        assert plan.backend in host.costs
        assert plan.predicted_s == plan.parallel_s


@given(profiles(), any_host, maybe_items, limits())
def test_a_plan_is_ready_for_json(profile: Profile, host: Host, n_items: int | None, bounds: Limits) -> None:
    """to_dict holds only what strict JSON can, and comes back the same."""
    plain = decide(profile, host, n_items, bounds).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["n_items"] == n_items
    assert plain["limits"]["n_jobs"] == bounds.n_jobs


@given(profiles(), any_host, maybe_items, limits())
def test_every_plan_explains_itself(profile: Profile, host: Host, n_items: int | None, bounds: Limits) -> None:
    """explain() puts any plan into words that name the reason code."""
    plan = decide(profile, host, n_items, bounds)
    assert f"[{plan.reason}]" in plan.explain()


def test_every_reason_has_a_sentence() -> None:
    """explain() has words for each stable code."""
    assert all(reason.sentence for reason in Reason)


# -- bounds ----------------------------------------------------------------------------------------------------------


@given(profiles(), hosts(), maybe_items, limits(n_jobs=None, prefer=None))
def test_jobs_stay_within_the_usable_cpus_where_nothing_is_fixed(
    profile: Profile, host: Host, n_items: int | None, bounds: Limits
) -> None:
    """Without a fixed number, processes never outnumber the usable physical cores."""
    plan = decide(profile, host, n_items, bounds)
    assert 1 <= plan.n_jobs <= host.n_cpus
    assert plan.n_jobs <= host.n_physical_cpus


@given(profiles(), contexts(), maybe_items, limits(n_jobs=None))
def test_jobs_stay_within_an_active_joblib_context(
    profile: Profile, host: Host, n_items: int | None, bounds: Limits
) -> None:
    """Under parallel_config(n_jobs=...) that number is never exceeded."""
    plan = decide(profile, host, n_items, bounds)
    assert plan.n_jobs <= (host.context_n_jobs or math.inf)


@given(profiles(), hosts(), item_counts, limits(n_jobs=None, prefer=None))
def test_workers_fit_into_the_available_memory(profile: Profile, host: Host, n_items: int, bounds: Limits) -> None:
    """The workers' own size and the sample's peak, times the workers, fit into the host's memory and max_memory."""
    plan = decide(profile, host, n_items, bounds)
    if plan.is_parallel:
        total = plan.n_jobs * (host.costs[plan.backend].worker_bytes + profile.peak_bytes)
        assert total <= host.memory_bytes
        assert total <= (bounds.max_memory or math.inf)


@given(profiles(), any_host, maybe_items, limits(n_jobs=None, retries=0, timeout=None))
def test_never_slower_than_serial_by_its_own_model(
    profile: Profile, host: Host, n_items: int | None, bounds: Limits
) -> None:
    """Where the number is ours to choose, what is chosen is not predicted to be slower than the loop."""
    plan = decide(profile, host, n_items, bounds)
    assert plan.speedup >= 1
    if n_items is not None:
        assert plan.predicted_s <= plan.serial_s


@given(profiles(), any_host, item_counts, limits(n_jobs=None))
def test_no_more_jobs_than_items_are_left(profile: Profile, host: Host, n_items: int, bounds: Limits) -> None:
    """Nobody is started who would have nothing to do."""
    plan = decide(profile, host, n_items, bounds)
    assert plan.n_jobs <= max(1, n_items - profile.n_head)


@given(profiles(), hosts(), item_counts, free_limits)
def test_chunks_leave_work_for_every_worker(profile: Profile, host: Host, n_items: int, bounds: Limits) -> None:
    """A chosen chunk is at most an equal share of what is left (S7)."""
    bounds = replace(bounds, batch_size=None)
    plan = decide(profile, host, n_items, bounds)
    if plan.is_parallel:
        assert plan.batch_size <= math.ceil((n_items - profile.n_head) / plan.n_jobs)


@given(profiles(), any_host, maybe_items, limits(), st.integers(1, 10**6))
def test_a_fixed_batch_size_is_exact(
    profile: Profile, host: Host, n_items: int | None, bounds: Limits, batch_size: int
) -> None:
    """batch_size is what the caller said, serial or not."""
    plan = decide(profile, host, n_items, replace(bounds, batch_size=batch_size))
    assert plan.batch_size == batch_size


# -- S2: monotonic and consistent ------------------------------------------------------------------------------------


@example(make_profile(), make_host(n_cpus=2), 40, 2.0)
@given(profiles(mutates=(), is_picklable=True), hosts(), st.integers(2, 10**6), st.floats(1.0, 100.0))
def test_slower_items_never_turn_parallel_into_serial(
    profile: Profile, host: Host, n_items: int, factor: float
) -> None:
    """If going parallel pays for items of some cost, it pays for dearer ones."""
    plan = decide(profile, host, n_items, Limits())
    slower = decide(replace(profile, item_s=profile.item_s * factor), host, n_items, Limits())
    assert slower.is_parallel >= plan.is_parallel


def test_few_items_that_become_slower_stay_parallel() -> None:
    """For a handful of items too, a higher cost per item does not turn the decision back."""
    host = make_host(n_cpus=2)
    for n_items in range(2, 30):
        profile = make_profile(pickle_s=0.0, arg_pickle_s=0.0)
        plans = [decide(replace(profile, item_s=i * 20e-6), host, n_items, Limits()) for i in range(400)]
        is_parallel = [plan.is_parallel for plan in plans]
        assert is_parallel == sorted(is_parallel), n_items


@given(profiles(mutates=(), is_picklable=True), hosts(), st.integers(2, 10**6), st.floats(1.0, 100.0))
def test_a_dearer_start_never_turns_serial_into_parallel(
    profile: Profile, host: Host, n_items: int, factor: float
) -> None:
    """If starting workers does not pay, it does not pay when starting takes longer."""
    dearer_costs = {
        name: replace(known, start_s=known.start_s * factor, start_each_s=known.start_each_s * factor)
        for name, known in host.costs.items()
    }
    plan = decide(profile, host, n_items, Limits())
    dearer = decide(profile, replace(host, costs=dearer_costs), n_items, Limits())
    assert dearer.is_parallel <= plan.is_parallel


def test_a_start_a_little_dearer_never_makes_parallel_cheaper() -> None:
    """The predicted seconds do not fall anywhere as the start-up time rises."""
    loky = PRIORS["linux"]["loky"]
    predicted = []
    for milliseconds in range(200):
        host = make_host(n_cpus=2, costs={"loky": replace(loky, start_s=milliseconds / 1000)})
        predicted.append(decide(make_profile(), host, 100, Limits(n_jobs=2)).parallel_s)
    assert predicted == sorted(predicted)


@given(profiles(), hosts(), item_counts, free_limits)
def test_the_terms_of_the_equation_are_in_the_plan(profile: Profile, host: Host, n_items: int, bounds: Limits) -> None:
    """A plan goes parallel only if T_serial > T_overhead + T_serial/N + T_IPC, by the numbers it carries (S2)."""
    plan = decide(profile, host, n_items, bounds)
    if plan.is_parallel:
        left_s = plan.serial_s - profile.head_s
        assert left_s > plan.overhead_s + left_s / plan.n_jobs + plan.transfer_s
        assert plan.parallel_s - profile.head_s >= 0.999999 * (plan.overhead_s + left_s / plan.n_jobs + plan.transfer_s)


def test_the_dearer_transfer_shows_in_its_own_term() -> None:
    """Bigger results raise the transfer term and leave the overhead term alone (S6)."""
    small, large = parallel_plan(result_bytes=1_000), parallel_plan(result_bytes=50_000)
    assert large.transfer_s > small.transfer_s
    assert large.overhead_s == pytest.approx(small.overhead_s, rel=0.2)
    assert large.parallel_s > small.parallel_s


def test_objects_that_a_fork_must_touch_cost() -> None:
    """A forked process that looks at an object copies its page; flat buffers stay shared, a measured speed tells."""

    def decided(arg_pickle_s: float, efficiency: float = 0.0) -> Plan:
        profile = make_profile(
            item_s=150e-6,
            arg_bytes=180_000,
            arg_pickle_s=arg_pickle_s,
            pickle_s=arg_pickle_s + 2e-6,
            efficiency=efficiency,
        )
        return decide(profile, make_host(n_cpus=2), 105, Limits(start_method="fork"))

    floats, flat, known = decided(860e-6), decided(200e-6), decided(860e-6, 0.9)
    assert flat.parallel_s < floats.parallel_s
    assert known.parallel_s < floats.parallel_s
    assert not floats.is_parallel
    assert flat.is_parallel


def test_the_start_shows_in_the_overhead_term() -> None:
    """Cold workers cost overhead that warm ones do not (S4)."""
    loky = PRIORS["linux"]["loky"]
    cold = make_host(costs={"loky": loky})
    warm = make_host(costs={"loky": replace(loky, start_s=0.0, start_each_s=0.0)})
    profile = make_profile()
    assert decide(profile, cold, 10_000, Limits()).overhead_s > decide(profile, warm, 10_000, Limits()).overhead_s
    assert not decide(profile, cold, 100, Limits()).is_parallel
    assert decide(profile, warm, 100, Limits()).is_parallel


@given(hosts(is_nested=False, is_disabled=False), st.integers(1, 10**6), st.floats(0.01, 0.9))
def test_work_shorter_than_its_start_is_never_parallel(host: Host, n_items: int, share: float) -> None:
    """Work that would be over before a first worker answers stays a loop (S9)."""
    cheapest_s = min(known.start_s for known in host.costs.values())
    profile = make_profile(item_s=share * cheapest_s / n_items)
    assert not decide(profile, host, n_items, Limits()).is_parallel


@given(any_host, st.integers(1, 10**9))
def test_tiny_work_is_serial_at_once(host: Host, n_items: int) -> None:
    """Work in all below the floor is one job, whatever the machine and however many items (S9)."""
    profile = make_profile(item_s=0.99 * cost.FLOOR_S / n_items)
    plan = decide(profile, host, n_items, Limits())
    assert plan.n_jobs == 1
    assert plan.reason in {Reason.TOO_FAST, Reason.ONE_JOB, Reason.NESTED, Reason.DISABLED}


# -- machines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_cpus", [2, 3, 4, 8, 16, 61, 64, 128, 256, 1024])
def test_long_work_uses_every_core(n_cpus: int) -> None:
    """An hour of independent items with nothing to move takes all cores of any machine."""
    plan = decide(make_profile(item_s=1.0), make_host(n_cpus=n_cpus, memory_bytes=4096 * GB), 3600 * n_cpus, Limits())
    assert plan.n_jobs == n_cpus
    assert plan.limited_by == "CPUs"
    assert plan.speedup > 0.8 * n_cpus


@pytest.mark.parametrize("name", ODD_HOSTS)
def test_odd_machines_get_sensible_plans(name: str) -> None:
    """Long work on an odd machine is parallel where that is possible and within its bounds."""
    host = ODD_HOSTS[name]
    plan = decide(make_profile(item_s=0.1), host, 100_000, Limits())
    possible = (
        bool(host.costs)
        and min(host.n_cpus, host.n_physical_cpus) > 1
        and host.memory_bytes > 0
        and not host.is_nested
        and not host.is_disabled
    )
    assert plan.is_parallel == possible
    assert plan.n_jobs <= min(host.n_cpus, host.n_physical_cpus)


def test_physical_cores_bound_the_jobs() -> None:
    """Threads of one core are not counted as cores (S3)."""
    plan = decide(make_profile(item_s=0.1), make_host(n_cpus=16, n_physical_cpus=8), 10_000, Limits())
    assert plan.n_jobs == 8


def test_two_threads_of_one_core_are_one_cpu_to_the_decision() -> None:
    """Where only one physical core is usable the reason says so, not that workers cannot be started."""
    plan = decide(make_profile(item_s=0.1), ODD_HOSTS["two threads of one core"], 10_000, Limits())
    assert plan.reason is Reason.ONE_CPU


def test_memory_bounds_the_jobs() -> None:
    """max_workers = min(cpus, available memory / memory of a job) (S5)."""
    host = make_host(n_cpus=64, memory_bytes=16 * GB)
    plan = decide(make_profile(item_s=0.1, peak_bytes=4 * GB), host, 10_000, Limits())
    assert plan.n_jobs == 3
    assert plan.limited_by == "memory"


def test_max_memory_bounds_the_jobs() -> None:
    """max_memory counts for all workers together."""
    profile = make_profile(item_s=0.1, peak_bytes=GB)
    plan = decide(profile, make_host(n_cpus=64, memory_bytes=1024 * GB), 10_000, Limits(max_memory=5 * GB))
    assert plan.n_jobs == 4
    assert plan.limited_by == "memory"


def test_windows_has_at_most_61_workers() -> None:
    """Windows waits on at most 64 handles, so 61 workers are the most there."""
    plan = decide(make_profile(item_s=1.0), ODD_HOSTS["Windows with 128 cores"], 100_000, Limits())
    assert plan.n_jobs == 61
    assert plan.limited_by == "Windows"


@pytest.mark.parametrize("n_jobs", [100, -1])
def test_windows_has_at_most_61_workers_even_where_more_are_asked_for(n_jobs: int) -> None:
    """A fixed number beyond what Windows can do is impossible there, and is not planned."""
    plan = decide(make_profile(item_s=1.0), ODD_HOSTS["Windows with 128 cores"], 100_000, Limits(n_jobs=n_jobs))
    assert plan.n_jobs <= 61


def test_the_fork_that_starts_faster_wins_over_loky() -> None:
    """On Linux work of some milliseconds goes to forked workers, which start in milliseconds (S4)."""
    plan = decide(make_profile(), make_host(), 100, Limits())
    assert plan.backend == "fork"
    assert not decide(make_profile(), make_host(platform="darwin"), 100, Limits()).is_parallel


def test_large_items_favour_what_does_not_pickle_them() -> None:
    """Forked workers see the inputs without pickling, so large inputs do not count against them (S6)."""
    profile = make_profile(item_s=0.01, arg_bytes=10 << 20, pickle_s=0.02, arg_pickle_s=0.02)
    assert decide(profile, make_host(), 1000, Limits()).backend == "fork"
    plan = decide(profile, ODD_HOSTS["loky only"], 1000, Limits())
    assert plan.reason is Reason.TRANSFER_BOUND


# -- what the caller fixes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_jobs", "expected"), [(2, 2), (7, 7), (-1, 8), (-2, 7), (-7, 2), (3000, 3000)])
def test_a_fixed_number_of_jobs_is_exact_in_joblibs_meaning(n_jobs: int, expected: int) -> None:
    """Negative numbers count back from all CPUs: -1 is all, -2 all but one."""
    plan = decide(make_profile(item_s=1e-9), make_host(n_cpus=8), 10_000, Limits(n_jobs=n_jobs))
    assert plan.n_jobs == expected
    assert plan.reason is Reason.FIXED


@pytest.mark.parametrize("n_jobs", [1, -8, -9, -1000])
def test_a_fixed_number_that_means_one_is_serial(n_jobs: int) -> None:
    """As in joblib, counting back never goes below one job."""
    plan = decide(make_profile(item_s=1.0), make_host(n_cpus=8), 10_000, Limits(n_jobs=n_jobs))
    assert plan.n_jobs == 1
    assert plan.reason is Reason.ONE_JOB


@given(profiles(mutates=("TOTAL",), is_picklable=True, n_head=0), st.integers(2, 10**6))
def test_a_fixed_number_of_jobs_overrules_shared_state(profile: Profile, n_items: int) -> None:
    """A function that changes outside state runs serially, unless the caller fixed n_jobs (S12)."""
    assert decide(profile, make_host(), n_items, Limits()).reason is Reason.SHARED_STATE
    fixed = decide(profile, make_host(), n_items, Limits(n_jobs=2))
    assert fixed.n_jobs == 2
    assert any("TOTAL" in warning for warning in fixed.warnings)


@pytest.mark.parametrize(("start_s", "backend"), [(0.3e-3, "forkserver"), (0.08, "fork")])
def test_workers_of_a_server_that_is_there_are_taken_where_they_answer_sooner(start_s: float, backend: str) -> None:
    """Forking anew takes longer than giving a map to idle workers; no server is started where forking is possible."""
    served = replace(PRIORS["linux"]["served"], start_s=start_s)
    host = make_host(n_cpus=2, costs={**PRIORS["linux"], "forkserver": served})
    assert decide(make_profile(item_s=1e-3, n_sampled=20), host, 30, Limits()).backend == backend


@pytest.mark.parametrize("start_method", ["fork", "loky"])
def test_a_fixed_start_method_is_obeyed(start_method: str) -> None:
    """start_method names the backend of a parallel plan."""
    plan = decide(make_profile(item_s=1.0), make_host(), 10_000, Limits(start_method=start_method))
    assert plan.backend == start_method


@given(profiles(), hosts(), maybe_items, limits(prefer=None, n_jobs=None))
def test_threads_are_never_chosen_unasked(profile: Profile, host: Host, n_items: int | None, bounds: Limits) -> None:
    """Only the caller knows that a function is thread-safe."""
    assert decide(profile, host, n_items, bounds).backend != "threading"


def test_threads_compute_side_by_side_where_the_gil_is_off() -> None:
    """What a function reached in threads that share the lock is not held against threads that do not (issue 18)."""
    profile, bounds = make_profile(item_s=0.01, thread_efficiency=0.3), Limits(prefer="threads")
    locked = decide(profile, make_host(n_cpus=2), 1_000, bounds)
    free = decide(profile, make_host(n_cpus=2, has_gil=False), 1_000, bounds)
    assert (locked.backend, locked.reason) == ("sequential", Reason.NOT_WORTH)
    assert (free.backend, free.n_jobs) == ("threading", 2)
    assert free.speedup > 1.8


def test_threads_that_gain_nothing_are_remembered_where_the_gil_is_off() -> None:
    """Threads may stand in each other's way for other reasons; that is measured apart."""
    profile = make_profile(item_s=0.01, free_thread_efficiency=0.3)
    assert not decide(profile, make_host(n_cpus=2, has_gil=False), 1_000, Limits(prefer="threads")).is_parallel
    assert decide(profile, make_host(n_cpus=2), 1_000, Limits(prefer="threads")).is_parallel


@given(profiles(), any_host, maybe_items, limits(prefer="threads", start_method=None))
def test_threads_are_all_there_is_when_preferred(
    profile: Profile, host: Host, n_items: int | None, bounds: Limits
) -> None:
    """prefer="threads" leads to threads or to the loop."""
    assert decide(profile, host, n_items, bounds).backend in {"threading", "sequential"}


def test_threads_that_wait_may_outnumber_the_cores() -> None:
    """Waits are overlapped by more threads than cores, even where there is one core."""
    profile = make_profile(item_s=0.1, cpu_fraction=0.05)
    plan = decide(profile, make_host(n_cpus=1), 1_000, Limits(prefer="threads"))
    assert plan.backend == "threading"
    assert 2 < plan.n_jobs <= cost.MAX_THREADS


@pytest.mark.parametrize("options", [{"timeout": 1.0}, {"retries": 1}])
def test_timeout_and_retries_keep_items_out_of_the_caller(options: dict[str, Any]) -> None:
    """Even tiny work goes to workers then, and the caller does not compute."""
    plan = decide(Profile(), make_host(), 10, Limits(**options))
    assert plan.reason is Reason.ISOLATED
    assert plan.is_parallel
    assert not plan.caller_computes


def test_the_callers_words_do_not_change_the_records() -> None:
    """A plan for another machine is a replace away."""
    plan = parallel_plan(item_s=0.1)
    bigger = replace(plan.host, n_cpus=64, n_physical_cpus=64)
    assert plan.n_jobs == 4
    assert decide(plan.profile, bigger, plan.n_items, plan.limits).n_jobs == 64


@pytest.mark.parametrize("n_others", [1, 2, 4, 100])
def test_other_programs_lengthen_the_forecast_and_forbid_nothing(n_others: int) -> None:
    """Each thread that computes has an equal share; two of ours still have more than one, up to twice as much."""
    profile = make_profile(item_s=1.0, n_head=1, head_s=1.0, n_sampled=1)
    quiet = decide(profile, make_host(n_cpus=2), 7, Limits())
    busy = decide(profile, make_host(n_cpus=2, n_others=n_others), 7, Limits())
    share = {1: 2 / 3, 2: 3 / 4, 4: 5 / 6, 100: 101 / 102}[n_others]
    assert busy.is_parallel
    assert busy.parallel_s - 1 == pytest.approx((quiet.parallel_s - 1) / share, rel=0.01)
    assert decide(busy.profile, busy.host, busy.n_items, busy.limits) == busy
    assert f"{n_others} thread" in busy.explain()
    assert "other programs" not in quiet.explain()


def test_other_programs_of_this_machine_are_none_of_a_cluster_s() -> None:
    """Its workers are elsewhere."""
    costs = {"dask": cost.EXTERNAL_PRIOR}
    plans = [
        decide(
            make_profile(item_s=0.1),
            make_host(n_others=n, costs=costs, context_backend="dask", context_n_jobs=8),
            1000,
            Limits(),
        )
        for n in (0, 4)
    ]
    assert plans[0].parallel_s == plans[1].parallel_s


def test_outside_state_is_noted() -> None:
    """A function that reads mutable outside state gets a note that names it (S12)."""
    plan = parallel_plan(reads_mutable=("TABLE",))
    assert plan.is_parallel
    assert any("TABLE" in warning for warning in plan.warnings)


# -- unknown length --------------------------------------------------------------------------------------------------


def test_an_unknown_length_has_no_total() -> None:
    """Without a length the totals are infinite, the speedup is not, and the length stays unknown."""
    plan = decide(make_profile(item_s=0.1), make_host(), None, Limits())
    assert plan.n_items is None
    assert math.isinf(plan.serial_s)
    assert 1 < plan.speedup <= 4
    assert plan.to_dict()["serial_s"] is None


def test_unknown_length_of_items_that_cost_nothing_is_serial() -> None:
    """Items that are dearer to move than to compute stay in the loop however many may come."""
    plan = decide(make_profile(item_s=1e-7, result_bytes=10_000, pickle_s=1e-4), make_host(), None, Limits())
    assert plan.backend == "sequential"


# -- reasons ---------------------------------------------------------------------------------------------------------

SLOW = make_profile(item_s=0.1)
EXAMPLES: dict[Reason, tuple[Profile, Host, int | None, Limits]] = {
    Reason.EMPTY: (Profile(), make_host(), 0, Limits()),
    Reason.NOTHING_LEFT: (make_profile(n_head=5), make_host(), 5, Limits()),
    Reason.DISABLED: (SLOW, make_host(is_disabled=True), 1000, Limits(n_jobs=2)),
    Reason.NESTED: (SLOW, make_host(is_nested=True), 1000, Limits(n_jobs=2)),
    Reason.NOT_PICKLABLE: (
        make_profile(is_picklable=False, problem="a lock", result_problem="a lock"),
        make_host(),
        1000,
        Limits(n_jobs=2),
    ),
    Reason.HASH_SEED: (make_profile(by_seed="hash()"), make_host(has_own_seed=True), 1000, Limits(start_method="loky")),
    Reason.SHARED_STATE: (make_profile(item_s=0.1, mutates=("TOTAL",)), make_host(), 1000, Limits()),
    Reason.ONE_JOB: (SLOW, make_host(), 1000, Limits(n_jobs=1)),
    Reason.UNTIMED: (Profile(), make_host(), 10, Limits()),
    Reason.TOO_FAST: (make_profile(item_s=1e-7), make_host(), 100, Limits()),
    Reason.ONE_CPU: (SLOW, make_host(n_cpus=1), 1000, Limits()),
    Reason.ONE_ITEM: (SLOW, make_host(), 1, Limits()),
    Reason.NOT_WORTH: (make_profile(item_s=5e-5), make_host(), 10, Limits()),
    Reason.TRANSFER_BOUND: (make_profile(result_bytes=10 << 20, pickle_s=0.02), make_host(), 1000, Limits()),
    Reason.ALREADY_PARALLEL: (make_profile(cpu_fraction=4.0), make_host(), 1000, Limits()),
    Reason.MEMORY: (make_profile(item_s=0.1, peak_bytes=16 * GB), make_host(), 1000, Limits()),
    Reason.UNAVAILABLE: (SLOW, make_host(costs={}), 1000, Limits()),
    Reason.UNKNOWN_LENGTH: (make_profile(item_s=1e-6), make_host(platform="darwin"), None, Limits()),
    Reason.FASTER: (SLOW, make_host(), 1000, Limits()),
    Reason.FIXED: (make_profile(item_s=1e-7), make_host(), 100, Limits(n_jobs=2)),
    Reason.ISOLATED: (Profile(), make_host(), 10, Limits(timeout=1.0)),
}


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_can_be_reached(reason: Reason) -> None:
    """Every stable code is the answer to some question, in code and in words."""
    plan = decide(*EXAMPLES[reason])
    assert plan.reason is reason
    assert reason.sentence in " ".join(plan.explain().split())


def test_an_impossible_machine_is_no_host() -> None:
    """A record checks itself: no host without a CPU or with negative memory."""
    with pytest.raises(ValueError, match="at least one CPU"):
        make_host(n_cpus=0)
    with pytest.raises(ValueError, match="negative memory"):
        make_host(memory_bytes=-1)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_an_impossible_measurement_is_no_profile(value: float) -> None:
    """Negative, infinite and undefined seconds are refused by name."""
    with pytest.raises(ValueError, match=r"Profile\.item_s"):
        make_profile(item_s=value)
