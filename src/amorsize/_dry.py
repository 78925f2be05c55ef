"""A dry run: sample, decide, and run nothing else."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amorsize import _profile
from amorsize._call import Call
from amorsize._here import decide_here
from amorsize._types import Plan, Profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._record import Options, State
    from amorsize._source import Source

logger = logging.getLogger("amorsize")


def dry_run(
    func: Callable[..., Any], state: State, options: Options, source: Source, kwargs: dict[str, Any] | None
) -> Plan:
    """
    Sample, decide, and run nothing else.

    The sample's results are dropped; for a one-shot iterator ``Plan.data`` yields every item, the sampled ones first.
    """
    call = Call(func, state, options, source, kwargs)
    call.initialize()
    sampler = call.samples = _profile.Sampler(call._guarded)  # noqa: SLF001 - a call that ends early
    sampler.run(source.iterator, options.limits.sample_size)
    call.profile = sampler.profile() if sampler.times else Profile()
    if sampler.items:
        call.first_item = sampler.items[0]
        call._inspect()  # noqa: SLF001 - a call that ends early
        _profile.remember(state.key, call.profile, call.first_item, len(sampler.items))
    profile = replace(call.profile, n_head=0, head_s=0.0)
    n_items = source.n_items
    if n_items is None and len(sampler.items) < options.limits.sample_size and _is_exhausted(source):
        n_items = len(sampler.items)
    plan, _ = decide_here(func, profile, n_items, options.limits)
    call.samples = None
    logger.debug("%s: %s", getattr(func, "__qualname__", func), plan.reason, extra={"plan": plan})
    data = (
        itertools.chain(sampler.items, source.iterator)
        if source.data is None or iter(source.data) is source.data
        else source.data
    )
    return replace(plan, data=data)


def _is_exhausted(source: Source) -> bool:
    """Look whether an iterator has ended, without losing an item."""
    for item in source.iterator:
        source.iterator = itertools.chain([item], source.iterator)
        return False
    return True
