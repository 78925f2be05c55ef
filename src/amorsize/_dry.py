"""A dry run: sample, decide, and run nothing else."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from amorsize import _bounds as bounds
from amorsize import _known
from amorsize._evidence import Evidence
from amorsize._gate import decide_here
from amorsize._plans import Plan
from amorsize._request import Ledger
from amorsize._source import SLICED, is_array

if TYPE_CHECKING:
    from amorsize._request import Request
    from amorsize._source import Source

logger = logging.getLogger("amorsize")


def dry_run(request: Request) -> Plan:
    """
    Sample, decide, and run nothing else.

    Of items that can be indexed, the first, the middle, the last and some between are sampled: costs that ascend, or
    first items that are tiny, do not mislead. The sample's results are dropped; for a one-shot iterator ``Plan.data``
    yields every item, the sampled ones, which are the first, included.
    """
    request.initialize()
    source, limits = request.source, request.limits
    evidence = Evidence(request, Ledger(request))
    n_most = limits.sample_size
    sampler = evidence.sampler
    _sample(evidence, source, n_most)
    if sampler.items:
        evidence.note_first(sampler.items[0])
        evidence.take_profile()
        evidence.inspect()
        _known.remember(request.state.key, evidence.profile, evidence.first_item, len(sampler.items))
    profile = replace(evidence.profile, n_head=0, head_s=0.0)
    n_items = source.n_items
    if n_items is None and len(sampler.items) < n_most and source.is_exhausted():
        n_items = len(sampler.items)
    plan, _ = decide_here(request.func, profile, n_items, limits, sample_s=evidence.profile.head_s)
    evidence.forget()
    logger.debug("%s: %s", request.name, plan.reason, extra={"plan": plan})
    is_once = source.data is None or iter(source.data) is source.data
    return replace(plan, data=itertools.chain(sampler.items, source.iterator) if is_once else source.data)


def _sample(evidence: Evidence, source: Source, n_most: int) -> None:
    """Run the first items, or items from everywhere where any can be had, and see what all but the first change."""
    data, sampler = source.data, evidence.sampler
    if not (type(data) in SLICED or is_array(data)):
        sampler.run(source.iterator, 1)
        evidence.is_watched(1)
        if n_most > 1:
            sampler.run(source.iterator, n_most)
    else:
        _sample_everywhere(evidence, data, n_most)
    evidence.end_watch()


def _sample_everywhere(evidence: Evidence, data: Any, n_most: int) -> None:
    began, sampler = perf_counter(), evidence.sampler
    for position in spread(len(data), n_most):
        n_done = len(sampler.results)
        sampler.run(iter((data[position],)), n_done + 1, start=position - n_done)
        if not n_done:
            looked = perf_counter()
            evidence.is_watched(1)
            began += perf_counter() - looked  # the box is for items
        if perf_counter() - began >= bounds.SAMPLE_BOX_S:
            return


def spread(n_items: int, n_most: int) -> list[int]:
    """Return up to *n_most* positions, evenly spread over all items: the first, the middle, the last, those between."""
    if n_items <= n_most:
        return list(range(n_items))
    if n_most < 3:
        return [0, n_items - 1][:n_most]
    evenly = [i * (n_items - 1) // (n_most - 1) for i in range(n_most)]
    leading = [0, evenly[n_most // 2], n_items - 1]
    return leading + [position for position in evenly if position not in leading]
