"""Lets every run refresh what is known: of this host's costs, and of the function that ran."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from amorsize import _cost as cost
from amorsize import _host, _profile
from amorsize._types import FORK, LOKY, THREADS, Reason

if TYPE_CHECKING:
    from amorsize._backend._outcome import Outcome
    from amorsize._types import Costs, Plan, Profile, Span

# Share of an item's seconds from which its transfer is worth learning from runs.
LARGE_TRANSFER: Final = 0.2

# Seconds per item, and items timed alone in the same call, from which the speed of workers beside each other is
# compared with that of the caller alone: below, the difference is the clock's.
COMPARABLE_S: Final = 200e-6
COMPARABLE_ITEMS: Final = 3

# Ratio between the slow and the fast chunks of a run (9th and 1st decile) up to which its items are alike.
ALIKE: Final = 1.25

# Between which an efficiency is believed: below, something else had the cores or the items are others; above, they are.
LEAST_EFFICIENCY: Final = 0.3
MOST_EFFICIENCY: Final = 1.1

# Share by which a function's own efficiency returns to the host's with each call that ran as a loop: what one disturbed
# run said is tried again after some forty calls, at half a per cent of their time.
FORGET: Final = 0.005

# How many times the prior a measured cost may be. A slower machine is slower by less; a busy one by more, for a moment.
PLAUSIBLE: Final = 5.0

# Bytes that came home from which their rate is worth knowing: a tenth of a millisecond's worth.
TELLING_BYTES: Final = 1 << 20

# Bytes per second that a fast cluster moves: Ray's object store on the reference host.
FAST_BYTES_PER_S: Final = 1e9

# Bytes moved between two chunks of a worker up to which the gap is dispatch: 0.3 ms at the 200 MB/s of a slow cluster,
# a few per cent of what a dispatch costs there.
MOST_GAP_BYTES: Final = 64 << 10


def from_run(key: str, plan: Plan, outcome: Outcome, elapsed_s: float | None = None) -> None:
    """
    Take in what a run measured.

    Args:
        key: The function's.
        plan: What was decided.
        outcome: What came of it.
        elapsed_s: Seconds of the run, None where they say nothing (a stream waits for its consumer).
    """
    _costs(plan, outcome)
    work = [span for span in outcome.spans if span.kind == "work"]
    n_items = sum(span.n_items for span in work)
    if not n_items or outcome.deaths:
        return
    busy_s = sum(span.end_s - span.begin_s for span in work) / n_items
    if (seen := _seen_efficiency(plan.profile, work)) > 0:
        _learn_efficiency(key, plan, seen)
    elif plan.backend != THREADS:
        costs = plan.host.costs.get(plan.backend)
        speed = 1.0 if costs is None else cost.of_function(plan.profile, costs, plan.backend).efficiency
        _profile.refresh(key, busy_s * speed, n_items)
    if elapsed_s is not None:
        _learn_transfer(key, plan, outcome, elapsed_s)


def _seen_efficiency(profile: Profile, work: list[Span]) -> float:
    """
    Compare an item's seconds while all work with those of items that ran alone; 0 if that says nothing.

    Only where items are alike, in the sample and from chunk to chunk: else the difference is that of the items.
    """
    is_steady = profile.item_s_std < 0.05 * profile.item_s
    if profile.n_sampled < COMPARABLE_ITEMS or not is_steady or profile.item_s <= COMPARABLE_S:
        return 0.0
    rates = sorted((span.end_s - span.begin_s) / span.n_items for span in work if span.n_items)
    middle = rates[len(rates) // 2]
    if len(rates) < COMPARABLE_ITEMS or middle <= 0 or rates[len(rates) * 9 // 10] > ALIKE * rates[len(rates) // 10]:
        return 0.0
    seen = profile.item_s / middle
    return min(1.0, seen) if LEAST_EFFICIENCY < seen < MOST_EFFICIENCY else 0.0


def _costs(plan: Plan, outcome: Outcome) -> None:
    """Start, dispatch and bytes per second, as this run had them."""
    if plan.backend == LOKY:
        _host.BOOK.started(LOKY)
    seen: dict[str, float] = {}
    if outcome.is_warm:
        if outcome.start_s > 0:
            _host.BOOK.learn(
                cost.STANDBY, start_s=_plausible(outcome.start_s, cost.PRIORS["linux"][cost.STANDBY].start_s)
            )
        return
    if plan.backend == FORK and outcome.start_s > 0:
        # Kept without what this process's size adds, which is added again as of the next decision.
        resident = _host.resident_bytes()
        seen["start_s"] = max(3e-4, outcome.start_s - resident * cost.FORK_S_PER_BYTE)
        seen["start_each_s"] = max(1e-4, outcome.start_each_s - resident * cost.FORK_CALLER_S_PER_BYTE)
    elif outcome.start_s > 0:
        seen["start_s"] = outcome.start_s
    if (gap_s := _usual_gap_s(outcome.spans, plan)) > 0:
        seen["batch_overhead_s"] = gap_s
    if outcome.n_bytes > TELLING_BYTES and outcome.read_s > 0:
        seen["receive_bytes_per_s"] = outcome.n_bytes / outcome.read_s
    if seen:
        prior = _prior(plan)
        _host.BOOK.learn(
            plan.backend, **{name: _plausible(value, getattr(prior, name)) for name, value in seen.items()}
        )


def _prior(plan: Plan) -> Costs:
    return cost.PRIORS.get(plan.host.platform, cost.PRIORS["linux"]).get(plan.backend, cost.EXTERNAL_PRIOR)


def _plausible(value: float, prior: float) -> float:
    """Keep a measurement within :data:`PLAUSIBLE` times the prior: beyond, the machine was busy with something else."""
    return min(value, PLAUSIBLE * prior) if 0 < prior < math.inf else value


def _usual_gap_s(spans: list[Span], plan: Plan) -> float:
    """
    Return the seconds between a worker's chunk and its next one; 0 if unknown.

    The lower quartile: a longer gap is one in which the worker was not given the core. Gaps in which much data moves
    are left out: they grow with the chunks, and chunks that grow with them would not stop.
    """
    profile, costs = plan.profile, plan.host.costs.get(plan.backend)
    is_sent = costs is not None and math.isfinite(costs.send_bytes_per_s)
    arg_bytes = profile.arg_bytes if is_sent else 0
    lanes: dict[str, list[Span]] = {}
    for span in spans:
        if span.kind == "work" and span.lane != "caller":
            lanes.setdefault(span.lane, []).append(span)
    gaps = sorted(
        after.begin_s - before.end_s
        for lane in lanes.values()
        for before, after in itertools.pairwise(sorted(lane, key=lambda s: s.begin_s))
        if after.begin_s > before.end_s
        and before.n_items * profile.result_bytes + after.n_items * arg_bytes <= MOST_GAP_BYTES
    )
    return gaps[len(gaps) // 4] if len(gaps) >= COMPARABLE_ITEMS else 0.0


def _learn_efficiency(key: str, plan: Plan, seen: float) -> None:
    """
    Remember how fast workers are beside each other: with this function, and on this host.

    Of a function a new figure counts half, so that one disturbed run does not set it. The host's is the best that some
    function reaches: it rises at once and sinks slowly, since a function that waits for memory says nothing about the
    cores.
    """
    name = "thread_efficiency" if plan.backend == THREADS else "efficiency"
    known = _profile.CACHE.get(key)
    before = (known and getattr(known.profile, name)) or 1.0
    _profile.remember_efficiency(key, **{name: (before + seen) / 2})
    best = _host.BOOK.get(plan.backend).efficiency
    _host.BOOK.learn(plan.backend, efficiency=seen if seen > best else 0.1 * seen + 0.9 * best)


def _learn_transfer(key: str, plan: Plan, outcome: Outcome, elapsed_s: float) -> None:
    """
    Where moving the data is a large part and took longer than weighing it said, remember what it took.

    Memory touched for the first time, in the worker and again here, is what a sample of one result cannot show.
    """
    costs = plan.host.costs.get(plan.backend)
    if costs is None or outcome.n_items < plan.n_jobs:
        return
    expected_s = cost.transfer_item_s(plan.profile, costs)
    if expected_s < LARGE_TRANSFER * plan.profile.item_s:
        return
    seen_s = (elapsed_s - outcome.start_s) * plan.n_jobs / outcome.n_items - plan.profile.item_s
    if seen_s > 1.2 * expected_s:
        _profile.remember_transfer(key, (seen_s - expected_s) / 2)


def from_loop(key: str, plan: Plan, actual_s: float) -> None:
    """Add up what calls lose because loky's workers are cold and forking is not possible, or a cluster is not known."""
    _miss_cluster(plan, actual_s)
    if 0 < plan.profile.efficiency < 1:
        seen = plan.profile.efficiency
        _profile.remember_efficiency(key, efficiency=seen + FORGET * (1 - seen))
    costs = plan.host.costs.get(LOKY)
    if costs is None or costs.start_s == 0 or FORK in plan.host.costs or plan.n_items is None:
        return
    n_jobs = min(plan.host.n_cpus, plan.host.n_physical_cpus, plan.n_items)
    if n_jobs > 1 and plan.reason is Reason.NOT_WORTH:
        warm = replace(costs, start_s=0.0, start_each_s=0.0)
        _host.BOOK.miss(LOKY, actual_s - _could_s(plan.profile, warm, plan.n_items, n_jobs, plan.host.n_cpus))


def _miss_cluster(plan: Plan, actual_s: float) -> None:
    """
    Add up what a fast cluster would have saved, where only the prior for its bytes per second spoke against it.

    These differ a hundredfold between clusters; the prior is cautious, and measuring takes some tenths of a second.
    """
    name, n_items = plan.host.context_backend, plan.n_items
    costs = plan.host.costs.get(name or "")
    if name is None or name in cost.LOCAL or costs is None or costs.is_measured or n_items is None:
        return
    if plan.reason is Reason.TRANSFER_BOUND:
        n_jobs = min(plan.host.context_n_jobs or 1, n_items)
        quick = replace(costs, send_bytes_per_s=FAST_BYTES_PER_S, receive_bytes_per_s=FAST_BYTES_PER_S)
        _host.BOOK.miss(name, actual_s - _could_s(plan.profile, quick, n_items, n_jobs, plan.host.n_cpus))


def missed(profile: Profile, n_items: int, n_jobs: int) -> float:
    """Return the seconds by which kept forked workers would have been faster than the loop; 0 where by little."""
    costs = cost.of_function(profile, _host.BOOK.get(cost.STANDBY), cost.STANDBY)
    could_s = _could_s(profile, costs, n_items, n_jobs, n_jobs, caller_computes=n_jobs <= cost.MAX_CALLER_JOBS)
    loop_s = cost.serial_s(profile, n_items)
    return loop_s - could_s if could_s < (1 - cost.MARGIN) * loop_s else 0.0


def _could_s(
    profile: Profile, costs: Costs, n_items: int, n_jobs: int, n_cpus: int, *, caller_computes: bool = False
) -> float:
    """Predict the seconds that workers with these costs would have taken."""
    size = cost.chunk_size(profile, costs, n_items, n_jobs)
    forecast = cost.parallel(profile, costs, n_items, n_jobs, size, n_cpus=n_cpus, caller_computes=caller_computes)
    return forecast.total_s
