"""Puts plans, profiles and hosts into words, for terminals and notebooks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from amorsize._types import SENTENCES, SERIAL

if TYPE_CHECKING:
    from amorsize._types import Host, Plan


def seconds(value: float | None) -> str:
    """Spell seconds with a unit that leaves two or three digits."""
    if value is None or math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "unknown (length unknown)"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.0f} ns"


def size(value: float) -> str:
    """Spell bytes with a unit."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} bytes"


def _headline(plan: Plan) -> str:
    items = "an unknown number of items" if plan.n_items is None else f"{plan.n_items} items"
    if plan.backend == SERIAL:
        return f"{items}: serial, because {SENTENCES[plan.reason]} [{plan.reason}]"
    who = " (the caller is one of them)" if plan.caller_computes else ""
    return (
        f"{items}: {plan.backend}, n_jobs={plan.n_jobs}{who}, chunks of {plan.batch_size} and less, "
        f"because {SENTENCES[plan.reason]} [{plan.reason}]"
    )


def _sampled(plan: Plan) -> list[str]:
    profile = plan.profile
    if not profile.n_sampled:
        return ["sampled    nothing"]
    spread = f" +- {seconds(profile.item_s_std)}" if profile.n_sampled > 1 else ""
    lines = [
        f"sampled    {profile.n_sampled} items, {seconds(profile.item_s)} each{spread}, "
        f"CPU {profile.cpu_fraction:.0%} of the time",
        f"           item {size(profile.arg_bytes)}, result {size(profile.result_bytes)} pickled, "
        f"{seconds(profile.pickle_s)} to pickle and unpickle, peak memory +{size(profile.peak_bytes)}",
    ]
    if profile.n_sampled > 1 and profile.first_s > 3 * max(profile.item_s, 1e-9):
        lines.append(f"           the first took {seconds(profile.first_s)}: a warm-up, left out")
    return lines


def _equation(plan: Plan) -> list[str]:
    if plan.n_items is None or not math.isfinite(plan.parallel_s):
        return []
    if plan.parallel_s == plan.serial_s and plan.overhead_s == 0 and plan.backend == SERIAL:
        return [f"loop       {seconds(plan.serial_s)} predicted; nothing to compare it with"]
    work_s = max(0.0, plan.parallel_s - plan.overhead_s - plan.transfer_s)
    sign = ">" if plan.serial_s > plan.parallel_s else "<="
    return [
        "equation   T_serial vs T_overhead + T_serial/N + T_IPC",
        f"           {seconds(plan.serial_s)} {sign} {seconds(plan.overhead_s)} + {seconds(work_s)} "
        f"+ {seconds(plan.transfer_s)} = {seconds(plan.parallel_s)}",
    ]


def explain(plan: Plan) -> str:
    """Say what was sampled, decided, predicted and measured."""
    lines = [_headline(plan), *_sampled(plan), *_equation(plan)]
    if plan.limited_by:
        lines.append(f"n_jobs     at most {_limit_words(plan)}")
    lines += [f"not used   {name}: {why}" for name, why in plan.host.unavailable.items()]
    lines += [
        f"revised    after {seconds(r.at_s)} and {r.n_done} items: {r.what}, because {r.why}" for r in plan.revisions
    ]
    if plan.skipped:
        lines.append(f"skipped    {len(plan.skipped)} failed items: {', '.join(map(str, plan.skipped[:10]))}")
    lines += [f"note       {warning}" for warning in plan.warnings]
    if plan.actual_s is None:
        lines.append(f"predicted  {seconds(plan.predicted_s)}; not run")
    else:
        lines.append(f"predicted  {seconds(plan.predicted_s)}, measured {seconds(plan.actual_s)}")
    return "\n".join(lines)


def _limit_words(plan: Plan) -> str:
    host = plan.host
    return f"what {plan.limited_by} allows here: {host.n_cpus} CPUs, {host.n_physical_cpus} physical, {size(host.memory_bytes)} free"


def plan_html(plan: Plan) -> str:
    """Return the plan as HTML for a notebook."""
    from html import escape  # noqa: PLC0415 - only notebooks need it

    return f"<pre>{escape(explain(plan))}</pre>"


def host_html(host: Host) -> str:
    """Return the host as HTML for a notebook."""
    from html import escape  # noqa: PLC0415 - only notebooks need it

    return f"<pre>{escape(repr(host))}</pre>"
