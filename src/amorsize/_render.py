"""
Puts plans, profiles and hosts into words, for terminals; :mod:`amorsize._html` shows the same in notebooks.

Leaves out no fact and adds none.
"""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any, Final

from amorsize import _bounds as bounds
from amorsize._plans import Reason
from amorsize._records import SERIAL, STOP, THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amorsize._plans import Plan
    from amorsize._records import Costs, Host, Profile

# Columns of an explanation, and of the labels on its left.
WIDTH: Final = 96
_LABEL: Final = 11

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


class Text(str):
    """Words that shells and notebooks show as they are read, not as a literal; pickled, it is a plain string."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        del cycle
        printer.text(str(self))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return str, (str(self),)


# -- plans -----------------------------------------------------------------------------------------------------------


def explain(plan: Plan, width: int = WIDTH) -> Text:
    """Say what was sampled, decided, predicted and measured, in lines of at most *width* columns."""
    head = textwrap.fill(headline(plan), width, subsequent_indent=" " * _LABEL, break_on_hyphens=False)
    return Text("\n".join([head, *(fold(label, text, width) for label, text in facts(plan))]))


def headline(plan: Plan) -> str:
    """Say what was decided and why, in one sentence."""
    items = "an unknown number of items" if plan.n_items is None else count(plan.n_items)
    why = f"because {plan.reason.sentence} [{plan.reason}]"
    if plan.decided is None or (plan.backend, plan.n_jobs) == (plan.decided.backend, plan.decided.n_jobs):
        return f"{items}: {_way(plan)}, {why}"
    if not plan.is_parallel:
        return f"{items}: serial; decided was {_way(plan.decided)}, {why}"
    first = "serial at first" if not plan.decided.is_parallel else f"{_way(plan.decided)} at first"
    return f"{items}: {first}, {why}; then {_way(plan)}"


def _way(plan: Plan) -> str:
    """Name workers and chunks."""
    if plan.backend == SERIAL:
        return "serial"
    who = " (the caller is one of them)" if plan.caller_computes else ""
    most = "" if plan.limits.batch_size is not None else "up to "
    return f"{plan.backend}, n_jobs={plan.n_jobs}{who}, chunks of {most}{plan.batch_size:,}"


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
    if plan.n_failed > len(plan.skipped):
        lines.append(("failed", f"{count(plan.n_failed)}: the exceptions stand in place of the results"))
    if plan.skipped:
        more = ", ..." if len(plan.skipped) > 10 else ""
        lines.append(
            ("skipped", f"{count(len(plan.skipped))} that failed: {', '.join(map(str, plan.skipped[:10]))}{more}")
        )
    lines += [("note", warning) for warning in plan.warnings]
    if hint := _threads(plan):
        lines.append(("hint", hint))
    lines.append(("predicted", _outcome(plan)))
    return lines


# Reasons for which threads would not be used either, or should not.
_NO_THREADS: Final = frozenset(
    {Reason.NESTED, Reason.DISABLED, Reason.SHARED_STATE, Reason.ISOLATED, Reason.ONE_ITEM, Reason.ONE_JOB}
)


def _threads(plan: Plan) -> str:
    """Say that threads would overlap what the function waits for, where nobody has said yes or no to them."""
    profile, host = plan.profile, plan.host
    is_open = plan.limits.prefer is None and plan.limits.start_method is None and host.context_backend is None
    # timeout and retries need processes.
    is_open = is_open and plan.limits.timeout is None and not plan.limits.retries
    if not is_open or plan.backend == THREADS or plan.reason in _NO_THREADS or profile.mutates:
        return ""
    # With the GIL, at most 1 / cpu_fraction items overlap in threads: worth it where this plan's workers overlap fewer.
    overlaps_more = profile.n_sampled > 0 and profile.cpu_fraction * max(2, plan.n_jobs) < 1
    if not overlaps_more or not bounds.WORTH_A_WORD_S <= plan.serial_s < math.inf:
        return ""
    fixed = "" if plan.limits.n_jobs is None else f" without n_jobs={plan.limits.n_jobs}"
    return (
        f'the function waits for {1 - profile.cpu_fraction:.0%} of its time: if it is thread-safe, prefer="threads"'
        f"{fixed} lets more items wait at once than there are CPUs"
    )


def _sampled(plan: Plan) -> list[tuple[str, str]]:
    profile = plan.profile
    if not profile.n_sampled:
        return [("sampled", "nothing")]
    # A call that has run and took no sample of its own went by what an earlier one had measured.
    is_remembered = _is_remembered(plan)
    lines = [
        (
            "remembered" if is_remembered else "sampled",
            f"{count(profile.n_sampled)}, {_each(profile)}, {profile.cpu_fraction:.0%} CPU",
        ),
        ("", _weight(profile)),
    ]
    if profile.n_steady < profile.n_sampled:
        lines.append(("", f"the first took {seconds(profile.first_s)}: a warm-up, left out"))
    return lines


def _each(profile: Profile, each: str = " each") -> str:
    """Spell the seconds of an item, and how much they differ."""
    spread = f" +- {seconds(profile.item_s_std)}" if profile.n_steady > 1 else ""
    return f"{seconds(profile.item_s)}{each}{spread}"


def _is_remembered(plan: Plan) -> bool:
    """Tell whether the profile is that of earlier calls: such a call took no sample of its own."""
    return plan.actual_s is not None and not plan.profile.n_head and not plan.profile.head_s


def is_weighed(profile: Profile) -> bool:
    """Tell whether items and results were pickled: not even None takes no bytes."""
    return profile.arg_bytes > 0 or profile.result_bytes > 0 or profile.pickle_s > 0


def _weight(profile: Profile) -> str:
    if not is_weighed(profile):
        return f"items and results not weighed, peak memory +{size(profile.peak_bytes)}"
    function = f", function {size(profile.func_bytes)}" if profile.func_bytes else ""
    return (
        f"item {size(profile.arg_bytes)}, result {size(profile.result_bytes)}{function} pickled, "
        f"{seconds(profile.pickle_s)} to pickle and unpickle, peak memory +{size(profile.peak_bytes)}"
    )


def terms(plan: Plan) -> tuple[float, float, float] | None:
    """Return the terms of the equation, T_overhead, T_serial/N and T_IPC, or None where nothing was compared."""
    is_known = not plan.is_lower_bound and plan.n_items is not None and math.isfinite(plan.parallel_s)
    if not (is_known and _is_compared(plan.decision)):
        return None
    return plan.overhead_s, max(0.0, plan.parallel_s - plan.overhead_s - plan.transfer_s), plan.transfer_s


def _is_compared(plan: Plan) -> bool:
    return plan.backend != SERIAL or plan.parallel_s != plan.serial_s or plan.overhead_s != 0


def _equation(plan: Plan) -> list[tuple[str, str]]:
    parts = terms(plan)
    if parts is None:
        if plan.is_lower_bound or plan.n_items is None or not math.isfinite(plan.serial_s):
            return []
        return [("loop", f"{seconds(plan.serial_s)} predicted; nothing to compare it with")]
    sign = ">" if plan.serial_s > plan.parallel_s else "<="
    return [
        ("equation", f"T_serial {sign} T_overhead + T_serial/N + T_IPC"),
        ("", f"{seconds(plan.serial_s)} {sign} {' + '.join(map(seconds, parts))} = {seconds(plan.parallel_s)}"),
    ]


def _limit(plan: Plan) -> str:
    host = plan.host
    others = f"{count(host.n_others, 'thread')} of other programs running, " if host.n_others else ""
    here = (
        f"{count(host.n_cpus, 'CPU')} usable{_by(host, 'n_cpus')}, {host.n_physical_cpus} physical, {others}"
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
    predicted = f"{_predicted(plan)}, as no item had been timed" if plan.is_lower_bound else _forecast(plan)
    if not plan.is_lower_bound and plan.decision.backend != SERIAL and math.isfinite(plan.speedup):
        predicted += f", {plan.speedup:.2f} times as fast as the loop"
    if plan.actual_s is None:
        return f"{predicted}; not run"
    is_whole = not any(revision.what == STOP for revision in plan.revisions)
    difference = _difference(plan.actual_s, plan.predicted_s) if is_whole and not plan.is_lower_bound else ""
    return f"{predicted}; measured {seconds(plan.actual_s)}{difference}"


def _predicted(plan: Plan) -> str:
    """Spell the prediction, or what is known of it before an item has been timed."""
    if not plan.is_lower_bound:
        return seconds(plan.predicted_s)
    return f"at least {seconds(plan.predicted_s)}" if 0 < plan.predicted_s < math.inf else "unknown"


def _forecast(plan: Plan) -> str:
    """Spell the prediction: an interval where a few items were sampled that differ."""
    profile, predicted = plan.profile, seconds(plan.predicted_s)
    if _is_remembered(plan) or plan.n_items is None or not profile.n_steady or plan.n_items <= profile.n_sampled:
        return predicted
    interval = plan.predicted_range_s
    if interval is None:
        return f"{predicted} from {count(profile.n_steady)}"
    if interval[1] < bounds.CERTAIN * interval[0]:
        return predicted
    return f"{span(*interval)} from {count(profile.n_steady)}, {predicted} by their mean"


def span(low_s: float, high_s: float) -> str:
    """Spell an interval of seconds, its unit once where both have it."""
    low, high = seconds(low_s), seconds(high_s)
    number, _, unit = low.partition(" ")
    return f"{number} to {high}" if high.endswith(f" {unit}") else f"{low} to {high}"


def _difference(actual_s: float, predicted_s: float) -> str:
    if not 0 < predicted_s < math.inf or max(actual_s, predicted_s) < bounds.NEGLIGIBLE_S:
        return ""
    ratio = actual_s / predicted_s
    if ratio >= 2:
        return f", {ratio:,.0f} times as long" if ratio >= 100 else f", {ratio:.2g} times as long"
    return f", {ratio - 1:+.0%}"


# -- one line, and a few -----------------------------------------------------------------------------------------------


def plan_line(plan: Plan) -> str:
    """Return the plan in one line, for shells and messages."""
    items = "unknown number of items" if plan.n_items is None else count(plan.n_items)
    way = "serial" if plan.backend == SERIAL else f"{plan.backend}, n_jobs={plan.n_jobs}, batch_size={plan.batch_size}"
    took = "not run" if plan.actual_s is None else f"measured {seconds(plan.actual_s)}"
    return f"Plan: {items}, {way} [{plan.reason}], predicted {_predicted(plan)}, {took}"


def profile_line(profile: Profile) -> str:
    """Return the profile in one line."""
    if not profile.n_sampled:
        return "Profile: nothing sampled"
    weight = "not weighed"
    if is_weighed(profile):
        weight = f"item {size(profile.arg_bytes)}, result {size(profile.result_bytes)}"
    problem = "" if profile.is_picklable else ", not picklable"
    return f"{profile_title(profile)}: {_each(profile)}, {weight}{problem}"


def profile_text(profile: Profile, width: int = WIDTH) -> str:
    """Return the profile in a few lines."""
    return "\n".join([profile_title(profile), *(_cell(label, text, width) for label, text in profile_rows(profile))])


def host_line(host: Host) -> str:
    """Return the host in one line."""
    known = ", ".join(f"{name} {'measured' if costs.is_measured else 'prior'}" for name, costs in host.costs.items())
    cores = f"{count(host.n_cpus, 'CPU')}, {host.n_physical_cpus} physical"
    return f"Host: {cores}, {size(host.memory_bytes)} of memory free; {known or 'no workers'}"


def host_text(host: Host, width: int = WIDTH) -> str:
    """Return the host in a few lines, one for each kind of workers."""
    lines = [HOST_TITLE, *(_cell(label, text, width) for label, text in host_rows(host))]
    for name, costs in host.costs.items():
        known = "measured" if costs.is_measured else "prior"
        words = (
            f"starts in {seconds(costs.start_s)}, {seconds(costs.batch_overhead_s)} per chunk, "
            f"{rate(costs.send_bytes_per_s)} to workers, {rate(costs.receive_bytes_per_s)} back ({known})"
        )
        lines.append(_cell(name, words, width))
    return "\n".join(lines)


def _cell(label: str, text: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent=f"  {label:<18}", subsequent_indent=" " * 20)


# -- rows --------------------------------------------------------------------------------------------------------------


def profile_title(profile: Profile) -> str:
    """Return the heading of a profile: what its figures are of."""
    if not profile.n_sampled:
        return "Profile: nothing sampled"
    # One that is remembered: its seconds per item are those of later calls as well.
    later = "" if profile.n_head else " sampled, and of the calls since"
    return f"Profile of {count(profile.n_sampled)}{later}"


def profile_rows(profile: Profile) -> list[tuple[str, str]]:
    """Return what is known of a function as labelled words."""
    if not profile.n_sampled:
        return []
    weighed = is_weighed(profile)
    pickling = f"{seconds(profile.pickle_s)} there and back, {seconds(profile.arg_pickle_s)} of it for the item"
    rows = [
        ("seconds per item", _each(profile, "")),
        ("first item", seconds(profile.first_s)),
        ("CPU", f"{profile.cpu_fraction:.0%} of the wall time"),
        ("item", f"{size(profile.arg_bytes)} pickled" if weighed else "not weighed"),
        ("result", f"{size(profile.result_bytes)} pickled" if weighed else "not weighed"),
        ("function", f"{size(profile.func_bytes)} to ship"),
        ("pickling", pickling if weighed else "not timed"),
        ("peak memory", f"+{size(profile.peak_bytes)} while sampling"),
        ("picklable", "yes" if profile.is_picklable else f"no: {profile.problem}"),
    ]
    if profile.mutates:
        rows.append(("changes", ", ".join(profile.mutates)))
    if profile.reads_mutable:
        rows.append(("reads", f"{', '.join(profile.reads_mutable)} (mutable)"))
    if profile.n_head:
        rows.append(("head", f"{count(profile.n_head)} of this call done in {seconds(profile.head_s)}"))
    return rows


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


HOST_TITLE: Final = "Host, as this process may use it"


def host_rows(host: Host) -> list[tuple[str, str]]:
    """Return what is known of the machine as labelled words, the costs of workers apart."""
    rows = [
        ("CPUs", f"{host.n_cpus} usable, {host.n_physical_cpus} physical{_by(host, 'n_cpus')}"),
        ("memory", f"{size(host.memory_bytes)} available{_by(host, 'memory_bytes')}"),
        ("platform", host.platform),
    ]
    if not host.has_gil:
        rows.append(("GIL", "off"))
    rows += [("not used", f"{name}: {why}") for name, why in host.unavailable.items()]
    if host.is_nested:
        rows.append(("nested", "this is a worker; workers do not start workers"))
    if host.is_disabled:
        rows.append(("disabled", "AMORSIZE_SERIAL is set"))
    if host.context_backend is not None:
        rows.append(("joblib context", f"{host.context_backend}, n_jobs={host.context_n_jobs}"))
    return rows


# A record in one line, and in a few, by the name of its class.
VIEWS: Final[Mapping[str, Mapping[str, Callable[[Any], str]]]] = {
    "line": {"Plan": plan_line, "Profile": profile_line, "Host": host_line},
    "text": {"Plan": explain, "Profile": profile_text, "Host": host_text},
}
