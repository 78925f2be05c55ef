"""
Draws plans: the forecast over the number of workers, and the run that happened, lane by lane.

Decides nothing: every number comes from the plan or from asking :func:`~amorsize._decide.decide` again. Colours of
text, axes and background are those of the active matplotlib style, light or dark.
"""

from __future__ import annotations

import importlib
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from amorsize import _bounds as bounds
from amorsize import _decide
from amorsize._records import FORK, FORKSERVER, LOKY, SERIAL, THREADS, Span
from amorsize._render import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from amorsize._plans import Plan

# Hues of middle lightness, which stand out from a white and from a black background alike.
_OVERHEAD: Final = "#d98a3d"
_WORK: Final = "#4a90c8"
_TRANSFER: Final = "#b06cc4"
_LOOP: Final = "#d04f4f"
_CHOICE: Final = "#3fa66b"
_LOOPING: Final = "#5bb5b0"
_QUIET: Final = "#8c8c8c"


@dataclass(frozen=True, slots=True)
class _Point:
    """The forecast for one number of workers."""

    n_jobs: int
    total_s: float
    overhead_s: float
    transfer_s: float


# -- the forecast ----------------------------------------------------------------------------------------------------


def plot_plan(plan: Plan, ax: Any = None) -> Any:
    """Draw the predicted seconds against the number of workers; of unknown length, per item. Returns the Axes."""
    ax = _axes(ax)
    scale = 1.0
    if plan.n_items is None:
        scale = 1.0 / bounds.MANY_ITEMS
        plan = replace(plan, n_items=bounds.MANY_ITEMS + plan.profile.n_head)
    profile, host, limits = plan.profile, plan.host, plan.limits
    backend = _backend_drawn(plan)
    loop_s = _decide.decide(profile, host, plan.n_items, replace(limits, n_jobs=1)).serial_s
    points = _forecast(plan, backend)
    unit, factor = _unit(max([loop_s, *(p.total_s for p in points)]) * scale)
    factor *= scale

    _draw_bars(ax, points, loop_s, factor)
    ax.axhline(loop_s * factor, color=_LOOP, linewidth=1.4, linestyle="--", label=f"loop: {seconds(loop_s * scale)}")
    ceiling = _draw_memory_ceiling(ax, plan, backend, points)
    pays_from = next((p for p in points if p.total_s < loop_s), None)
    _mark_break_even(ax, points, pays_from, loop_s, factor)
    chosen = next((p for p in points if p.n_jobs == plan.n_jobs), None) if plan.backend != SERIAL else None
    chosen_s = loop_s if chosen is None else chosen.total_s
    ax.plot(
        [1 if chosen is None else chosen.n_jobs],
        [chosen_s * factor],
        marker="D",
        markersize=9,
        color=_CHOICE,
        markeredgecolor=ax.get_facecolor(),
        linestyle="none",
        clip_on=False,
        zorder=5,
        label=f"chosen: {'the loop' if chosen is None else f'{plan.backend}, n_jobs={plan.n_jobs}'}",
    )

    last = max([p.n_jobs for p in points] + [ceiling or 1])
    ax.set_xlim(0.4, last + 0.6)
    ax.set_ylim(0, max([loop_s, *(p.total_s for p in points)]) * factor * 1.08 or 1)
    ax.xaxis.set_major_locator(importlib.import_module("matplotlib.ticker").MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("processes or threads at once (n_jobs)")
    least = " at least" if plan.is_lower_bound else ""
    ax.set_ylabel(f"predicted time{' per item' if scale != 1 else ''}{least} [{unit}]")
    ax.set_title(_title(plan, backend, points, per_item=scale != 1), fontsize="medium", loc="left")
    ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, frameon=False)
    return ax


def _title(plan: Plan, backend: str, points: Sequence[_Point], *, per_item: bool) -> str:
    items = "unknown number of items" if per_item else f"{plan.n_items:,} items"
    if not points:
        return f"{items}: serial [{plan.reason}]"
    return f"{items} with {backend} workers [{plan.reason}]"


def _backend_drawn(plan: Plan) -> str:
    """Return the backend whose forecast is drawn: the chosen one, or the one that would have been."""
    if plan.backend != SERIAL:
        return plan.backend
    limits, host = plan.limits, plan.host
    if limits.prefer == "threads":
        return THREADS
    if limits.start_method is not None:
        return limits.start_method
    if host.context_backend is not None:
        return host.context_backend
    return next((name for name in (FORK, FORKSERVER) if name in host.costs), LOKY)


def _forecast(plan: Plan, backend: str) -> list[_Point]:
    """Ask for the forecast with each number of workers from 2 on; empty where workers cannot be used at all."""
    limits = plan.limits
    if backend in {FORK, FORKSERVER, LOKY}:
        limits = replace(limits, start_method=backend, prefer=None)
    host, found = plan.host, []
    for n_jobs in _counts(max(2, plan.n_jobs, _most_jobs(plan))):
        answer = _decide.decide(plan.profile, host, plan.n_items, replace(limits, n_jobs=n_jobs))
        if answer.backend == backend:
            found.append(_Point(n_jobs, answer.parallel_s, answer.overhead_s, answer.transfer_s))
    return found


def _most_jobs(plan: Plan) -> int:
    """Return the most workers worth drawing: beyond the cores the forecast says nothing."""
    host = plan.host
    if plan.backend not in {SERIAL, FORK, FORKSERVER, LOKY}:
        return max(plan.n_jobs, host.context_n_jobs or host.n_cpus)
    return min(host.n_cpus, host.n_physical_cpus)


def _counts(most: int) -> list[int]:
    """Return the numbers of workers to draw: each one, or a ladder where there are many."""
    if most <= bounds.MOST_BARS:
        return list(range(2, most + 1))
    counts, n_jobs = [], 2
    while n_jobs < most:
        counts.append(n_jobs)
        n_jobs = math.ceil(n_jobs * 1.08)
    return [*counts, most]


def _draw_bars(ax: Any, points: Sequence[_Point], loop_s: float, factor: float) -> None:
    """Stack the three terms of the equation for each number of workers; the loop stands at 1."""
    ax.bar([1], [loop_s * factor], width=0.8, color=_WORK, alpha=0.55)
    work = [max(0.0, p.total_s - p.overhead_s - p.transfer_s) * factor for p in points]
    transfer = [p.transfer_s * factor for p in points]
    overhead = [p.overhead_s * factor for p in points]
    xs = [p.n_jobs for p in points]
    below = [w + t for w, t in zip(work, transfer, strict=True)]
    zero = [0.0] * len(xs)
    stacks = (
        (overhead, below, _OVERHEAD, "T_overhead"),
        (transfer, work, _TRANSFER, "T_IPC"),
        (work, zero, _WORK, "T_serial / N"),
    )
    for heights, bottoms, hue, label in stacks:
        if not points:
            break
        if len(xs) == xs[-1] - 1:
            ax.bar(xs, heights, bottom=bottoms, width=0.8, color=hue, label=label)
        else:
            tops = [h + b for h, b in zip(heights, bottoms, strict=True)]
            ax.fill_between(xs, bottoms, tops, color=hue, linewidth=0, label=label)


def _mark_break_even(ax: Any, points: Sequence[_Point], pays_from: _Point | None, loop_s: float, factor: float) -> None:
    """Mark the fewest workers that beat the loop, and by how much the best of all would."""
    if not points:
        return
    if pays_from is None:
        best = min(points, key=lambda p: p.total_s)
        times = best.total_s / max(loop_s, 1e-12)
        ax.plot([], [], linestyle="none", label=f"no break-even: {times:.3g} times the loop at best")
        return
    ax.plot(
        [pays_from.n_jobs - 0.5] * 2,
        [0, loop_s * factor],
        color=_CHOICE,
        linewidth=1.4,
        linestyle=":",
        label=f"break-even: pays from {pays_from.n_jobs} on",
    )


def _draw_memory_ceiling(ax: Any, plan: Plan, backend: str, points: Sequence[_Point]) -> int | None:
    """Mark how many workers fit into the memory; returns where, if that is in the picture."""
    if backend == THREADS or backend not in plan.host.costs:
        return None
    ceiling = _decide.memory_ceiling(plan.profile, plan.host, plan.limits, backend, plan.n_items or 0)
    last = max((p.n_jobs for p in points), default=1)
    if ceiling > last:
        ax.plot([], [], color=_QUIET, linewidth=2, label=f"memory: room for {ceiling:,}")
        return None
    at = max(1, ceiling) + 0.5
    ax.axvline(at, color=_QUIET, linewidth=2, label=f"memory: room for {ceiling}")
    ax.axvspan(at, last + 1, color=_QUIET, alpha=0.25, linewidth=0)
    return max(1, ceiling)


# -- the run ---------------------------------------------------------------------------------------------------------


def plot_timeline(plan: Plan, ax: Any = None) -> Any:
    """
    Draw the run that happened: one lane for the caller and one for each worker, chunks as bars. Returns the Axes.

    Raises ValueError if the plan has not been run.
    """
    if plan.actual_s is None:
        raise ValueError("this plan has not been run: map first, then draw f.last_plan.plot_timeline()")
    ax = _axes(ax)
    total_s = max([plan.actual_s, *(span.end_s for span in plan.timeline)])
    unit, factor = _unit(total_s)
    lanes = _lanes(plan, total_s)
    names = list(lanes)
    seen: set[str] = set()

    def once(label: str) -> str:
        """Return a label for the legend the first time only."""
        fresh = label not in seen
        seen.add(label)
        return label if fresh else "_nolegend_"

    parallel_s = _parallel_from(lanes)
    for row, (name, spans) in enumerate(lanes.items()):
        born_s = 0.0 if name == "caller" else parallel_s
        busy_s = _draw_lane(ax, row, spans, moments=(born_s, parallel_s, total_s), factor=factor, once=once)
        share = f"{busy_s / total_s:.0%} busy" if total_s > 0 else ""
        ax.annotate(
            share, (1.0, row), xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points",
            va="center", fontsize="small",
        )  # fmt: skip
    for revision in plan.revisions:
        ax.axvline(revision.at_s * factor, color=_LOOP, linewidth=1.6, label=once("change of plan"))
        is_late = revision.at_s > total_s / 2
        ax.annotate(
            revision.what, (revision.at_s * factor, -0.62), xytext=(-4 if is_late else 4, 0),
            textcoords="offset points", fontsize="small", color=_LOOP, va="center", ha="right" if is_late else "left",
        )  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.85 if plan.revisions else -0.6)
    ax.set_xlim(0, total_s * factor or 1)
    ax.set_xlabel(f"time since the call began [{unit}]")
    items = "" if plan.n_items is None else f"{plan.n_items:,} items, "
    ax.set_title(f"{items}{plan.backend}: {seconds(plan.actual_s)}", fontsize="medium", loc="left")
    ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=5, frameon=False)
    return ax


def _lanes(plan: Plan, total_s: float) -> dict[str, list[Span]]:
    """Sort the spans into lanes, the caller first, with the caller's loop added where it was not recorded."""
    lanes: dict[str, list[Span]] = {"caller": []}
    for span in plan.timeline:
        lanes.setdefault(span.lane, []).append(span)
    if loop := _loop_before_workers(plan, lanes, total_s):
        lanes["caller"].append(loop)
    for spans in lanes.values():
        spans.sort(key=lambda s: s.begin_s)
    return dict(sorted(lanes.items(), key=lambda lane: (lane[0] != "caller", _natural(lane[0]))))


def _loop_before_workers(plan: Plan, lanes: dict[str, list[Span]], total_s: float) -> Span | None:
    """
    Return the stretch that the caller spent looping, where the run did not note it.

    It did the items between the sample and the first chunk, until a promotion or the first chunk; without any chunk,
    all that was left.
    """
    spans = [span for lane in lanes.values() for span in lane]
    work = [span for span in spans if span.kind == "work"]
    if any(span.kind == "loop" for span in spans):
        return None
    n_sampled = sum(span.n_items for span in spans if span.kind == "sample")
    n_done = min((span.start for span in work), default=plan.n_items or 0)
    if n_done <= n_sampled:
        return None
    begin_s = max((span.end_s for span in spans if span.kind == "sample"), default=0.0)
    end_s = min((span.begin_s for span in work), default=total_s)
    if work and plan.revisions:
        end_s = min(end_s, plan.revisions[0].at_s)
    return Span(
        lane="caller",
        begin_s=begin_s,
        end_s=max(begin_s, end_s),
        start=n_sampled,
        n_items=n_done - n_sampled,
        kind="loop",
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort "worker 10" after "worker 9"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _parallel_from(lanes: dict[str, list[Span]]) -> float:
    """Return when the work was handed to workers: after the sample and the loop."""
    return max((s.end_s for s in lanes["caller"] if s.kind in {"sample", "loop"}), default=0.0)


def _draw_lane(
    ax: Any, row: int, spans: Sequence[Span], *, moments: tuple[float, float, float], factor: float, once: Any
) -> float:
    """
    Draw one lane; returns the seconds in which it worked.

    *moments* are the beginning of the lane, of the parallel part, and the end of the run. Between the beginning of
    the parallel part and its first chunk a lane is starting up, whether or not it said so.
    """
    born_s, parallel_s, total_s = moments
    ax.barh(
        [row], [(total_s - born_s) * factor], left=[born_s * factor], height=0.1, color=_QUIET, alpha=0.5, linewidth=0,
        label=once("idle"),
    )  # fmt: skip
    work = [s for s in spans if s.kind != "start"]
    starts = [(s.begin_s, s.end_s) for s in spans if s.kind == "start"]
    first_s = min((s.begin_s for s in work if s.begin_s >= parallel_s), default=None)
    if not starts and first_s is not None and first_s > parallel_s:
        starts = [(parallel_s, first_s)]
    if starts:
        blocks = [(begin_s * factor, (end_s - begin_s) * factor) for begin_s, end_s in starts]
        ax.broken_barh(blocks, (row - 0.15, 0.3), facecolor=_OVERHEAD, linewidth=0, label=once("start-up"), zorder=2)
    for kind, hue, label in (("sample", _CHOICE, "sample"), ("loop", _LOOPING, "loop"), ("work", _WORK, "chunk")):
        blocks = [(s.begin_s * factor, (s.end_s - s.begin_s) * factor) for s in work if s.kind == kind]
        if blocks:
            # A rim in the background's colour keeps neighbours apart.
            ax.broken_barh(
                blocks, (row - 0.36, 0.72), facecolor=hue, edgecolor=ax.get_facecolor(), linewidth=0.6,
                label=once(label), zorder=2.2,
            )  # fmt: skip
    return sum(s.end_s - s.begin_s for s in work)


# -- matplotlib ------------------------------------------------------------------------------------------------------


def _axes(ax: Any) -> Any:
    """Return *ax*, or new Axes in the caller's style."""
    try:
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("matplotlib"):  # one that matplotlib needs
            raise
        raise ImportError(
            "drawing needs matplotlib, which is not installed: pip install 'amorsize[plot]'; "
            "plan.explain() says the same in words"
        ) from None
    if ax is not None:
        return ax
    _, new = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    return new


def _unit(largest_s: float) -> tuple[str, float]:
    """Return the unit in which the largest time has one to three digits before the point."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if largest_s * factor >= 1:
            return unit, factor
    return "ns", 1e9


# The pictures of a plan, by name.
VIEWS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {"plot": plot_plan, "timeline": plot_timeline}
