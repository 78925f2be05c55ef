"""
Puts plans, profiles and hosts into words, for terminals and notebooks.

Leaves out no fact and adds none. What is shown as HTML takes its colours from the page around it (light or dark), and
holds no scripts and no links.
"""

from __future__ import annotations

import math
import textwrap
from html import escape
from typing import TYPE_CHECKING, Final

from amorsize._types import SENTENCES, SERIAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amorsize._types import Costs, Host, Plan, Profile

# Columns of an explanation, and of the labels on its left.
WIDTH: Final = 96
_LABEL: Final = 11

# How often the steady seconds the first item must have taken to be called a warm-up. Also the threshold at which the
# profile leaves it out.
_WARM_UP: Final = 3.0

# What keeps n_jobs from being larger, by Plan.limited_by.
_LIMITS: Final = {
    "CPUs": "the CPUs",
    "memory": "the memory",
    "number of items": "the number of items left",
    "Windows": "the number of processes that Windows can wait for",
    "cluster": "the size of the cluster",
    "joblib context": "the active joblib context",
    "waits": "the share of its time that the function waits",
}


def seconds(value: float | None) -> str:
    """Spell seconds with a unit that leaves two or three digits."""
    if value is None or math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "unknown (length unknown)"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * factor >= 0.9995:
            number = value * factor
            return f"{number:,.0f} {unit}" if number >= 999.5 else f"{number:.3g} {unit}"
    return f"{value * 1e9:.0f} ns"


def size(value: float) -> str:
    """Spell bytes with a unit."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} byte{'' if round(value) == 1 else 's'}"


def rate(value: float) -> str:
    """Spell bytes per second; infinite means that nothing is copied."""
    return "no copy" if math.isinf(value) else f"{size(value)}/s"


def count(n: int, noun: str = "item") -> str:
    """Spell a number of things."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def fold(label: str, text: str, width: int = WIDTH) -> str:
    """Lay out a labelled line: the label on the left, the text beside it in as many lines as it takes."""
    indent = " " * _LABEL
    first = f"{label:<{_LABEL}}" if len(label) < _LABEL else f"{label} "
    lines = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


# -- plans -----------------------------------------------------------------------------------------------------------


def explain(plan: Plan, width: int = WIDTH) -> str:
    """Say what was sampled, decided, predicted and measured, in lines of at most *width* columns."""
    head = textwrap.fill(headline(plan), width, subsequent_indent=" " * _LABEL, break_on_hyphens=False)
    return "\n".join([head, *(fold(label, text, width) for label, text in facts(plan))])


def headline(plan: Plan) -> str:
    """Say what was decided and why, in one sentence."""
    items = "an unknown number of items" if plan.n_items is None else count(plan.n_items)
    why = f"because {SENTENCES[plan.reason]} [{plan.reason}]"
    if plan.backend == SERIAL:
        # Some revisions only note that something was tried; those that go parallel say so.
        first = " at first" if plan.revisions else ""
        return f"{items}: serial{first}, {why}"
    who = " (the caller is one of them)" if plan.caller_computes else ""
    least = "" if plan.limits.batch_size is not None else " and less"
    return f"{items}: {plan.backend}, n_jobs={plan.n_jobs}{who}, chunks of {plan.batch_size:,}{least}, {why}"


def facts(plan: Plan) -> list[tuple[str, str]]:
    """Return the reasoning as labelled sentences; a sentence that goes on from the one above has no label."""
    host = plan.host
    lines = [*_sampled(plan), *_equation(plan)]
    if limit := _limit(plan):
        lines.append(("n_jobs", limit))
    lines += [("not used", f"{name}: {why}") for name, why in host.unavailable.items()]
    lines += [
        ("revised", f"after {seconds(r.at_s)} and {count(r.n_done)}: {r.what}, because {r.why}") for r in plan.revisions
    ]
    if plan.skipped:
        more = ", ..." if len(plan.skipped) > 10 else ""
        lines.append(
            ("skipped", f"{count(len(plan.skipped))} that failed: {', '.join(map(str, plan.skipped[:10]))}{more}")
        )
    lines += [("note", warning) for warning in plan.warnings]
    lines.append(("predicted", _outcome(plan)))
    return lines


def _sampled(plan: Plan) -> list[tuple[str, str]]:
    profile = plan.profile
    if not profile.n_sampled:
        return [("sampled", "nothing")]
    # A call that has run and took no sample of its own went by what an earlier one had measured.
    is_remembered = plan.actual_s is not None and not profile.n_head
    spread = f" +- {seconds(profile.item_s_std)}" if profile.n_sampled > 1 else ""
    lines = [
        (
            "remembered" if is_remembered else "sampled",
            f"{count(profile.n_sampled)}, {seconds(profile.item_s)} each{spread}, {profile.cpu_fraction:.0%} CPU",
        ),
        ("", _weight(profile)),
    ]
    if profile.n_sampled > 1 and profile.first_s > _WARM_UP * max(profile.item_s, 1e-9):
        lines.append(("", f"the first took {seconds(profile.first_s)}: a warm-up, left out"))
    return lines


def _weight(profile: Profile) -> str:
    function = f", function {size(profile.func_bytes)}" if profile.func_bytes else ""
    return (
        f"item {size(profile.arg_bytes)}, result {size(profile.result_bytes)}{function} pickled, "
        f"{seconds(profile.pickle_s)} to pickle and unpickle, peak memory +{size(profile.peak_bytes)}"
    )


def terms(plan: Plan) -> tuple[float, float, float] | None:
    """Return the terms of the equation, T_overhead, T_serial/N and T_IPC, or None where nothing was compared."""
    if plan.n_items is None or not math.isfinite(plan.parallel_s) or not _is_compared(plan):
        return None
    return plan.overhead_s, max(0.0, plan.parallel_s - plan.overhead_s - plan.transfer_s), plan.transfer_s


def _is_compared(plan: Plan) -> bool:
    return plan.backend != SERIAL or plan.parallel_s != plan.serial_s or plan.overhead_s != 0


def _equation(plan: Plan) -> list[tuple[str, str]]:
    parts = terms(plan)
    if parts is None:
        if plan.n_items is None or not math.isfinite(plan.serial_s):
            return []
        return [("loop", f"{seconds(plan.serial_s)} predicted; nothing to compare it with")]
    sign = ">" if plan.serial_s > plan.parallel_s else "<="
    return [
        ("equation", f"T_serial {sign} T_overhead + T_serial/N + T_IPC"),
        ("", f"{seconds(plan.serial_s)} {sign} {' + '.join(map(seconds, parts))} = {seconds(plan.parallel_s)}"),
    ]


def _limit(plan: Plan) -> str:
    host = plan.host
    here = (
        f"{count(host.n_cpus, 'CPU')} usable{_by(host, 'n_cpus')}, {host.n_physical_cpus} physical, "
        f"{size(host.memory_bytes)} of memory free{_by(host, 'memory_bytes')}"
    )
    if plan.limits.n_jobs is not None:
        return f"fixed at {plan.limits.n_jobs} by the caller; here are {here}"
    if not plan.limited_by:
        return ""
    return f"limited by {_LIMITS.get(plan.limited_by, plan.limited_by)}: {here}"


def _by(host: Host, name: str) -> str:
    """Say which limit set a reading, where it is not the machine itself."""
    source = host.sources.get(name, "machine")
    return "" if source == "machine" else f" ({source})"


def _outcome(plan: Plan) -> str:
    predicted = seconds(plan.predicted_s)
    if plan.backend != SERIAL and math.isfinite(plan.speedup):
        predicted += f", {plan.speedup:.2f} times as fast as the loop"
    if plan.actual_s is None:
        return f"{predicted}; not run"
    return f"{predicted}; measured {seconds(plan.actual_s)}{_difference(plan.actual_s, plan.predicted_s)}"


def _difference(actual_s: float, predicted_s: float) -> str:
    if not (math.isfinite(predicted_s) and predicted_s > 0):
        return ""
    ratio = actual_s / predicted_s
    if ratio >= 2:
        return f", {ratio:,.0f} times that" if ratio >= 100 else f", {ratio:.2g} times that"
    return f", {ratio - 1:+.0%}"


# -- HTML ------------------------------------------------------------------------------------------------------------

# Lines and backgrounds are translucent greys and text keeps the page's colour, so that they suit any theme. The hues
# are of middle lightness: 3:1 against white and against a notebook's dark grey.
_LINE: Final = "1px solid rgba(128,128,128,.35)"
_CELL: Final = f"padding:.2em .8em .2em 0;border:0;border-bottom:{_LINE};vertical-align:top;background:transparent"
_TERMS: Final = (("T_overhead", "#c1762b"), ("T_serial/N", "#3f87c4"), ("T_IPC", "#a05fb5"))
_LOOP: Final = "#808890"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    """Lay out labelled cells; the second of each pair is HTML."""
    body = "".join(
        f'<tr style="background:transparent"><th scope="row" style="{_CELL};text-align:left;font-weight:600;'
        f'white-space:nowrap;opacity:.75">{escape(label)}</th>'
        f'<td style="{_CELL};text-align:left;white-space:normal">{cell}</td></tr>'
        for label, cell in rows
    )
    return f'<table style="border-collapse:collapse;border:0;margin:.4em 0;color:inherit">{body}</table>'


def _card(title: str, *parts: str) -> str:
    heading = f'<div style="font-weight:600;margin:.2em 0">{escape(title)}</div>'
    return f'<div style="max-width:52em;color:inherit;line-height:1.45">{heading}{"".join(parts)}</div>'


def _grouped(lines: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join the sentences that go on without a label to the one above, as HTML."""
    rows: list[tuple[str, str]] = []
    for label, text in lines:
        if label or not rows:
            rows.append((label, escape(text)))
        else:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]}<br>{escape(text)}")
    return rows


def _bars(plan: Plan) -> str:
    """Draw the equation: the loop as one bar, the three terms as another beneath it."""
    parts = terms(plan)
    if parts is None:
        return ""
    longest = max(plan.serial_s, plan.parallel_s, 1e-12)

    def bar(label: str, pieces: Iterable[tuple[str, str, float]], total_s: float) -> str:
        drawn = "".join(
            f'<span title="{escape(name)}: {escape(seconds(value))}" style="display:inline-block;height:.9em;'
            f'width:{60 * value / longest:.2f}%;background:{hue};vertical-align:middle"></span>'
            for name, hue, value in pieces
        )
        return (
            '<div style="white-space:nowrap"><span style="display:inline-block;width:6em;opacity:.75">'
            f"{escape(label)}</span>{drawn} {escape(seconds(total_s))}</div>"
        )

    named = [(name, hue, value) for (name, hue), value in zip(_TERMS, parts, strict=True)]
    legend = " &nbsp; ".join(
        f'<span style="display:inline-block;width:.8em;height:.8em;background:{hue};vertical-align:middle"></span> '
        f"{escape(name)} {escape(seconds(value))}"
        for name, hue, value in named
    )
    loop = bar("loop", [("T_serial", _LOOP, plan.serial_s)], plan.serial_s)
    workers = bar("workers", named, plan.parallel_s)
    legend = f'<div style="font-size:90%;opacity:.85;margin-left:6em">{legend}</div>'
    return f'<div style="margin:.3em 0">{loop}{workers}{legend}</div>'


def plan_html(plan: Plan) -> str:
    """Return the plan as HTML for a notebook."""
    return _card(headline(plan), _bars(plan), _table(_grouped(facts(plan))))


def profile_html(profile: Profile) -> str:
    """Return the profile as HTML for a notebook."""
    if not profile.n_sampled:
        return _card("Profile: nothing sampled")
    rows = [
        ("seconds per item", f"{seconds(profile.item_s)} +- {seconds(profile.item_s_std)}"),
        ("first item", seconds(profile.first_s)),
        ("CPU", f"{profile.cpu_fraction:.0%} of the wall time"),
        ("item", f"{size(profile.arg_bytes)} pickled"),
        ("result", f"{size(profile.result_bytes)} pickled"),
        ("function", f"{size(profile.func_bytes)} to ship"),
        ("pickling", f"{seconds(profile.pickle_s)} there and back, {seconds(profile.arg_pickle_s)} of it for the item"),
        ("peak memory", f"+{size(profile.peak_bytes)} while sampling"),
        ("picklable", "yes" if profile.is_picklable else f"no: {profile.problem}"),
    ]
    if profile.mutates:
        rows.append(("changes", ", ".join(profile.mutates)))
    if profile.reads_mutable:
        rows.append(("reads", f"{', '.join(profile.reads_mutable)} (mutable)"))
    if profile.n_head:
        rows.append(("head", f"{count(profile.n_head)} of this call done in {seconds(profile.head_s)}"))
    return _card(f"Profile of {count(profile.n_sampled)}", _table([(label, escape(text)) for label, text in rows]))


def costs_cells(costs: Costs) -> list[tuple[str, str]]:
    """Return the costs of one backend as named cells."""
    return [
        ("start", seconds(costs.start_s)),
        ("each more", seconds(costs.start_each_s)),
        ("per chunk", seconds(costs.batch_overhead_s)),
        ("per item", seconds(costs.item_overhead_s)),
        ("to worker", rate(costs.send_bytes_per_s)),
        ("back", rate(costs.receive_bytes_per_s)),
        ("speed", f"{costs.efficiency:.0%}"),
        ("memory", size(costs.worker_bytes)),
        ("known", "measured" if costs.is_measured else "prior"),
    ]


def host_html(host: Host) -> str:
    """Return the host as HTML for a notebook."""
    rows = [
        ("CPUs", f"{host.n_cpus} usable, {host.n_physical_cpus} physical{_by(host, 'n_cpus')}"),
        ("memory", f"{size(host.memory_bytes)} available{_by(host, 'memory_bytes')}"),
        ("platform", host.platform),
    ]
    rows += [("not used", f"{name}: {why}") for name, why in host.unavailable.items()]
    if host.is_nested:
        rows.append(("nested", "this is a worker; workers do not start workers"))
    if host.is_disabled:
        rows.append(("disabled", "AMORSIZE_SERIAL is set"))
    if host.context_backend is not None:
        rows.append(("joblib context", f"{host.context_backend}, n_jobs={host.context_n_jobs}"))
    parts = [_table([(label, escape(text)) for label, text in rows])]
    if host.costs:
        parts.append(_costs_table(host))
    return _card("Host, as this process may use it", *parts)


def _costs_table(host: Host) -> str:
    cells = {name: costs_cells(costs) for name, costs in host.costs.items()}
    style = f"{_CELL};text-align:right;white-space:nowrap"
    head = "".join(f'<th scope="col" style="{style};opacity:.75">{escape(name)}</th>' for name, _ in cells[min(cells)])
    body = "".join(
        f'<tr style="background:transparent"><th scope="row" style="{_CELL};text-align:left;font-weight:600">'
        f"{escape(backend)}</th>" + "".join(f'<td style="{style}">{escape(value)}</td>' for _, value in row) + "</tr>"
        for backend, row in cells.items()
    )
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;border:0;margin:.4em 0;color:inherit">'
        f'<tr style="background:transparent"><th style="{_CELL};text-align:left;opacity:.75">workers</th>{head}</tr>'
        f"{body}</table></div>"
    )
