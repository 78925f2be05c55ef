"""What a call leaves behind: its record, and what later calls of the function go by."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from amorsize import _bounds as bounds
from amorsize import _known, _learn
from amorsize._plans import Reason
from amorsize._record import store

if TYPE_CHECKING:
    from amorsize._evidence import Evidence
    from amorsize._gate import Gate
    from amorsize._ledger import Ledger
    from amorsize._request import Request

# Reasons that come of predicted seconds, and so hold for the next call over as many items of the same kind.
_SETTLING: Final = frozenset({Reason.NOT_WORTH, Reason.TRANSFER_BOUND, Reason.TOO_FAST})


def finish(request: Request, ledger: Ledger, evidence: Evidence, gate: Gate, first_rate_s: float | None) -> None:
    """Write down what a call took, be it that it failed; *first_rate_s* is the pace of its first block."""
    record, samples = request.record, evidence.samples
    ledger.keep()
    actual_s = record.actual_s = time.perf_counter() - record.began
    n_sampled = 0 if samples is None else len(samples.times)
    if record.plan is None:
        # What is remembered of many items forecasts better than the first block of these.
        record.profile, record.rate_s = evidence.profile, None if evidence.is_recalled else first_rate_s
        if samples is not None:
            record.n_head, record.head_s = n_sampled, sum(samples.times)
        record.n_items = ledger.n_done if request.source.n_items is None else request.source.n_items
    request.state.was_parallel = record.plan is not None and record.plan.is_parallel
    request.state.settled = _settled(request, ledger, evidence, is_hopeless=gate.is_hopeless)
    is_loop = (record.plan is None or not record.plan.is_parallel) and not record.revisions
    if is_loop and record.plan is not None:
        _learn.from_loop(request.state.key, record.plan, actual_s)
    if is_loop and ledger.n_done > n_sampled:
        _known.refresh(request.state.key, (actual_s - gate.thinking_s) / ledger.n_done, ledger.n_done)
    if (kept := store()) is not None:
        kept.keep(request.state.key, actual_s)


def finish_stream(request: Request, evidence: Evidence, n_out: int) -> None:
    """Write down what a stream took of which *n_out* results have been asked for."""
    record, samples = request.record, evidence.samples
    actual_s = record.actual_s = time.perf_counter() - record.began - record.outside_s
    if record.plan is None:
        record.n_items = n_out if request.source.n_items is None else request.source.n_items
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


def _settled(request: Request, ledger: Ledger, evidence: Evidence, *, is_hopeless: bool) -> int | None:
    """Return the number of items for which looping is settled: decided so, and it took about what was predicted."""
    record = request.record
    if record.plan is None and not is_hopeless:
        return request.state.settled
    if record.plan is None:
        expected_s = evidence.profile.item_s * ledger.n_done
        is_right = expected_s < bounds.SETTLED_S and (record.actual_s or 0.0) < bounds.CHANGED * expected_s
        return record.n_items if is_right and not record.revisions else None
    if record.plan.is_parallel or record.revisions or record.actual_s is None:
        return None
    # Only short work, and only where every way was open: what is closed now may be open in the next call.
    is_short = record.plan.serial_s < bounds.SETTLED_S and not record.plan.host.unavailable
    is_right = is_short and record.actual_s < bounds.CHANGED * record.plan.predicted_s
    return record.plan.n_items if is_right and record.plan.reason in _SETTLING else None
