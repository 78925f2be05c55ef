"""What a call leaves behind: its record, what later calls of the function go by, and what its run says of this host."""

from __future__ import annotations

import contextlib
import itertools
import math
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Final

from amorsize import _backend, _host, _known
from amorsize import _bounds as bounds
from amorsize import _cost as cost
from amorsize._plans import Reason
from amorsize._record import store
from amorsize._records import FORK, FORKSERVER, LOKY, STOP, THREADS

if TYPE_CHECKING:
    from amorsize._backend._job import Outcome
    from amorsize._evidence import Evidence
    from amorsize._gate import Gate
    from amorsize._plans import Plan
    from amorsize._records import Costs, Profile, Span
    from amorsize._request import Ledger, Request


# Reasons that come of predicted seconds, and so hold for the next call over as many items of the same kind.
_SETTLING: Final = frozenset({Reason.NOT_WORTH, Reason.TRANSFER_BOUND, Reason.TOO_FAST})


def finish(request: Request, ledger: Ledger, evidence: Evidence, gate: Gate) -> None:
    """Write down what a call took, be it that it failed."""
    record, samples = request.record, evidence.samples
    ledger.keep()
    actual_s = record.actual_s = perf_counter() - record.began
    n_sampled = 0 if samples is None else len(samples.times)
    if record.plan is None:
        # What is remembered of many items forecasts better than the first block of these.
        record.profile, record.rate_s = evidence.profile, None if evidence.is_recalled else evidence.first_rate_s
        if samples is not None:
            record.n_head, record.head_s = n_sampled, sum(samples.times)
        record.n_items = ledger.n_done if request.source.n_items is None else request.source.n_items
    if record.plan is not None:
        is_settled = _is_settling(record.plan, actual_s) and not record.revisions
        request.state.settled = record.plan.n_items, perf_counter() + bounds.SNAPSHOT_S if is_settled else 0.0
    is_loop = (record.plan is None or not record.plan.is_parallel) and not record.revisions
    if is_loop and (plan := record.plan or gate.in_vain) is not None:
        from_loop(request.state.key, plan, actual_s)
    if is_loop and ledger.n_done > n_sampled:
        _known.refresh(request.state.key, (actual_s - gate.thinking_s) / ledger.n_done, ledger.n_done)
    if (kept := store()) is not None:
        kept.keep(request.state.key, actual_s)


def _is_settling(plan: Plan, actual_s: float) -> bool:
    """
    Tell whether a loop is settled: short, decided by its seconds, and it took about those predicted.

    Not while workers would have to be started that can only be had in advance: calls that miss them are counted.
    """
    is_right = plan.serial_s < bounds.SETTLED_S and actual_s < bounds.CHANGED * plan.predicted_s
    if not (is_right and plan.reason in _SETTLING):
        return False
    return plan.limits.prefer == "threads" or FORK in plan.host.costs or _backend.is_warm()


def finish_stream(request: Request, evidence: Evidence, n_out: int, *, is_left: bool) -> None:
    """Write down what a stream took of which *n_out* results have been asked for; *is_left* if more would have come."""
    record, samples = request.record, evidence.samples
    actual_s = record.actual_s = perf_counter() - record.began - record.outside_s
    if is_left and record.plan is not None:
        record.revise(STOP, "the stream was left", n_out, actual_s)
    if record.plan is None:
        record.n_items = n_out if is_left or request.source.n_items is None else request.source.n_items
        record.profile = replace(evidence.profile, n_head=0, head_s=0.0)
        if samples is not None and not evidence.is_recalled:
            record.n_head, record.head_s = len(samples.times), sum(samples.times)
    if (kept := store()) is not None:
        kept.keep(request.state.key, actual_s)


def remember_stream(request: Request, ledger: Ledger, evidence: Evidence) -> None:
    """Keep what the first items of a loop took; what moving such items costs stays known if it was."""
    key = request.state.key
    if evidence.samples is None or not evidence.samples.times:
        return
    seen, known = evidence.samples.profile(), _known.CACHE.get(key)
    if known is not None and known.is_like(evidence.first_item):
        _known.refresh(key, seen.item_s, seen.n_sampled)
    else:
        evidence.profile = seen
        _known.remember(key, seen, evidence.first_item, ledger.n_done)


# -- costs and speed, from runs ----------------------------------------------------------------------------------------


def from_run(key: str, plan: Plan, outcome: Outcome, elapsed_s: float | None = None) -> None:
    """Take in what a run measured; *elapsed_s* is None where it says nothing (a stream waits for its consumer)."""
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
        _known.refresh(key, busy_s * speed, n_items)
    if elapsed_s is not None:
        _learn_transfer(key, plan, outcome, elapsed_s)


def _seen_efficiency(profile: Profile, work: list[Span]) -> float:
    """
    Compare an item's seconds while all work with those of items that ran alone; 0 if that says nothing.

    Only where items are alike, in the sample and from chunk to chunk: else the difference is that of the items.
    """
    is_steady = profile.item_s_std < bounds.STEADY * profile.item_s
    if profile.n_sampled < bounds.COMPARABLE_ITEMS or not is_steady or profile.item_s <= bounds.COMPARABLE_S:
        return 0.0
    rates = sorted((span.end_s - span.begin_s) / span.n_items for span in work if span.n_items)
    middle = rates[len(rates) // 2]
    if len(rates) < bounds.COMPARABLE_ITEMS or middle <= 0:
        return 0.0
    if rates[len(rates) * 9 // 10] > bounds.ALIKE * rates[len(rates) // 10]:
        return 0.0
    seen = profile.item_s / middle
    return min(1.0, seen) if bounds.LEAST_EFFICIENCY < seen < bounds.MOST_EFFICIENCY else 0.0


def _costs(plan: Plan, outcome: Outcome) -> None:
    """Start, dispatch and bytes per second, as this run had them."""
    if plan.backend in {FORKSERVER, LOKY}:
        _host.BOOK.started(plan.backend)
    seen: dict[str, float] = {}
    if plan.backend == FORKSERVER:
        _costs_of_server(plan, outcome)
        return
    if plan.backend == FORK and outcome.start_s > 0:
        # Kept without what this process's size adds, which is added again as of the next decision.
        resident = _host.resident_bytes()
        seen["start_s"] = max(bounds.LEAST_START_S, outcome.start_s - resident * cost.FORK_S_PER_BYTE)
        seen["start_each_s"] = max(bounds.LEAST_EACH_S, outcome.start_each_s - resident * cost.FORK_CALLER_S_PER_BYTE)
    elif outcome.start_s > 0:
        seen["start_s"] = outcome.start_s
    if (gap_s := _usual_gap_s(outcome.spans, plan)) > 0:
        seen["batch_overhead_s"] = gap_s
    if outcome.n_bytes > bounds.TELLING_BYTES and outcome.read_s > 0:
        seen["receive_bytes_per_s"] = outcome.n_bytes / outcome.read_s
    if seen:
        priors = cost.PRIORS.get(plan.host.platform, cost.PRIORS["linux"])
        prior = priors.get(plan.backend, cost.EXTERNAL_PRIOR)
        _host.BOOK.learn(
            plan.backend, **{name: _plausible(value, getattr(prior, name)) for name, value in seen.items()}
        )


def _costs_of_server(plan: Plan, outcome: Outcome) -> None:
    """Tell a start of the server from one of its idle workers; one that forks more workers is neither."""
    seen = {"batch_overhead_s": _usual_gap_s(outcome.spans, plan)}
    if outcome.is_warm:
        seen["start_s"] = outcome.start_s
        seen["start_each_s"] = outcome.start_each_s
    elif outcome.is_cold and outcome.start_s > 0:
        cold_s = _plausible(outcome.start_s, cost.PRIORS["linux"][FORKSERVER].start_s)
        _host.BOOK.learn(FORKSERVER, start_s=cold_s)
    prior = cost.PRIORS["linux"][cost.SERVED]
    found = {name: _plausible(value, getattr(prior, name)) for name, value in seen.items() if value > 0}
    if found:
        _host.BOOK.learn(cost.SERVED, **found)


def _plausible(value: float, prior: float) -> float:
    """Keep a measurement within :data:`amorsize._bounds.PLAUSIBLE` times the prior: beyond, the machine was busy."""
    return min(value, bounds.PLAUSIBLE * prior) if 0 < prior < math.inf else value


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
        and before.n_items * profile.result_bytes + after.n_items * arg_bytes <= bounds.MOST_GAP_BYTES
    )
    return gaps[len(gaps) // 4] if len(gaps) >= bounds.COMPARABLE_ITEMS else 0.0


def _learn_efficiency(key: str, plan: Plan, seen: float) -> None:
    """
    Remember how fast workers are beside each other: with this function, and on this host.

    Of a function a new figure counts half, so that one disturbed run does not set it. The host's is the best that some
    function reaches: it rises at once and sinks slowly, since a function that waits for memory says nothing about the
    cores.
    """
    in_threads = "thread_efficiency" if plan.host.has_gil else "free_thread_efficiency"
    name = in_threads if plan.backend == THREADS else "efficiency"
    known = _known.CACHE.get(key)
    before = (known and getattr(known.profile, name)) or 1.0
    _known.remember_efficiency(key, **{name: (before + seen) / 2})
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
    expected_s = cost.moving(plan.profile, costs).transfer_s
    if expected_s < bounds.LARGE_TRANSFER * plan.profile.item_s:
        return
    seen_s = (elapsed_s - outcome.start_s) * plan.n_jobs / outcome.n_items - plan.profile.item_s
    if seen_s > bounds.DEARER * expected_s:
        _known.remember_transfer(key, (seen_s - expected_s) / 2)


def from_loop(key: str, plan: Plan, actual_s: float) -> None:
    """
    Add up what calls lose because workers are cold and forking is not possible, or a cluster is not known.

    Once the losses are worth the fork server, it starts at the end of a call, so that it is ready when the next comes.
    """
    _miss_cluster(plan, actual_s)
    if 0 < plan.profile.efficiency < 1:
        seen = plan.profile.efficiency
        _known.remember_efficiency(key, efficiency=seen + bounds.FORGET * (1 - seen))
    name = FORKSERVER if FORKSERVER in plan.host.costs else LOKY
    costs = plan.host.costs.get(name)
    if costs is None or costs.start_s == 0 or FORK in plan.host.costs or plan.n_items is None:
        return
    n_jobs = min(plan.host.n_cpus, plan.host.n_physical_cpus, plan.n_items)
    if n_jobs > 1 and plan.reason is Reason.NOT_WORTH:
        warm = replace(costs, start_s=0.0, start_each_s=0.0)
        helps = name == FORKSERVER and n_jobs <= cost.MAX_CALLER_JOBS
        could_s = _could_s(plan.profile, warm, plan.n_items, n_jobs, plan.host.n_cpus, caller_computes=helps)
        _host.BOOK.miss(name, actual_s - could_s)
        is_due = helps and _host.BOOK.missed_s(name) >= cost.SERVER_SHARE * _host.BOOK.get(name).start_s
        if is_due and plan.limits.start_method in {None, FORKSERVER}:
            with contextlib.suppress(OSError):  # the system gives no process: the next call says so
                _backend.begin_server(_backend.threads_each(plan.host.n_cpus, n_jobs))


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
        quick = replace(costs, send_bytes_per_s=bounds.FAST_BYTES_PER_S, receive_bytes_per_s=bounds.FAST_BYTES_PER_S)
        _host.BOOK.miss(name, actual_s - _could_s(plan.profile, quick, n_items, n_jobs, plan.host.n_cpus))


def _could_s(
    profile: Profile, costs: Costs, n_items: int, n_jobs: int, n_cpus: int, *, caller_computes: bool = False
) -> float:
    """Predict the seconds that workers with these costs would have taken."""
    moved = cost.moving(profile, costs)
    size = cost.chunk_size(profile, costs, moved, n_items, n_jobs)
    return cost.parallel(
        profile, costs, moved, n_items, n_jobs, batch_size=size, n_cpus=n_cpus, caller_computes=caller_computes
    ).total_s
