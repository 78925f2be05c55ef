"""
Every contender on every open workload, judged by ratios that are formed within rounds.

A round runs each contender once on the workload, in random order, each in a fresh process and never
two at a time: its first call (libraries already imported) and then some warm ones. The best peer of
a workload is chosen on rounds of its own; amorsize is then measured against it, against the loop
and against itself under a second name, over fresh rounds. The figures are medians of the ratios of
each round, so that a change of the machine's speed between rounds does not enter them.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import report
import workloads
from child import IDLE_THREADS_VARIABLE
from contenders import CONTENDERS
from station import LIMIT_S, ContenderFailedError, Station, shuffled

KINDS = ("first", "warm")

# A call is slower than the loop if it takes this many times as long, and this many seconds more:
# the larger of the two is what the never-slower promise leaves open.
SLOWER_RATIO = 1.05
SLOWER_S = 50e-6

# What the figures over all workloads should be: geometric mean and worst ratio to the best peer.
BARS = {"first": (1.10, 1.35), "warm": (1.02, 1.15)}

# The same in processes with idle threads.
THREAD_BARS = {"first": (1.10, 1.40), "warm": (0.97, 1.15)}

# Rounds that must confirm that a call is slower than the loop before it counts.
CONFIRMING_ROUNDS = 9

# A peer whose first round took longer than this many times the best is not the best: it
# gets no more rounds.
HOPELESS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    How much to measure.

    Attributes:
        names: Contenders that take part.
        selection: Rounds in which the best peer is found.
        rounds: Rounds in which amorsize is measured against it.
        warm: Warm calls per process; their median counts.
        limit_s: Seconds after which a call counts as hung.
        confirm: Rounds that confirm a call slower than the loop; 0 to take the figures as they are.
    """

    names: tuple[str, ...]
    selection: int
    rounds: int
    warm: int
    limit_s: float
    confirm: int


@dataclass(slots=True)
class Record:
    """
    What one contender did on one workload, round by round.

    Attributes:
        first: Seconds of first calls; None where a round failed.
        warm: Seconds of warm calls, the median of each round.
        error: How the latest failure presented itself.
        plan: amorsize's latest plan.
    """

    first: list[float | None] = field(default_factory=list)
    warm: list[float | None] = field(default_factory=list)
    error: str | None = None
    plan: object = None

    def times(self, kind: str) -> list[float | None]:
        """Give the seconds of first or of warm calls."""
        return self.first if kind == "first" else self.warm

    def median(self, kind: str) -> float:
        """Take the median, in seconds; infinite if any round failed."""
        times = self.times(kind)
        return statistics.median(t if t is not None else float("inf") for t in times or [None])


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    One amorsize entry on one workload, first or warm.

    Attributes:
        entry: Key of the entry.
        kind: `first` or `warm`.
        seconds: Median time of the entry; None if it failed.
        peer: Key of the best peer.
        peer_s: Its median time in the same rounds, in seconds.
        ratio: Median of time / best peer's time.
        low: Smallest of these ratios.
        high: Largest.
        to_loop: Median of time / loop's time.
        slower: Confirmed to be slower than the loop.
    """

    entry: str
    kind: str
    seconds: float | None
    peer: str
    peer_s: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    to_loop: float | None = None
    slower: bool = False


def run_once(name: str, workload: str, settings: Settings, record: Record, *, check: bool) -> None:
    """Add one fresh process's first and warm calls to a record."""
    seconds: list[float] = []
    spec = {"contender": name, "workload": workload}
    try:
        with Station(spec, limit_s=settings.limit_s) as seat:
            seconds += seat.seconds()
            if check and name != "loop":
                seat.ask("check")
            answer = seat.ask("calls", settings.warm)
            seconds += answer["seconds"]
            record.plan = answer["plans"][-1]
            if check and name != "loop":
                seat.ask("check")
    except ContenderFailedError as error:
        record.error = str(error)
        record.first.append(None)
        record.warm.append(None)
    else:
        record.first.append(seconds[0])
        record.warm.append(statistics.median(seconds[1:]))


def run_rounds(
    names: Iterable[str], workload: str, settings: Settings, rounds: int, *, narrowing: bool = False
) -> dict[str, Record]:
    """
    Run rounds of contenders in random order.

    Args:
        names: Who takes part.
        workload: On what.
        settings: How.
        rounds: How often.
        narrowing: After the first round, go on with those who may still be best.
    """
    records = {name: Record() for name in names}
    for number in range(rounds):
        going = list(records)
        if narrowing and number:
            going = [name for name in records if has_hope(records, name)]
        for name in shuffled(going):
            run_once(name, workload, settings, records[name], check=number == 0)
    return records


def has_hope(records: dict[str, Record], name: str) -> bool:
    """Tell whether a contender was within reach of the best in the first round, first or warm."""
    best = {kind: min(record.median(kind) for record in records.values()) for kind in KINDS}
    return any(records[name].median(kind) <= HOPELESS * best[kind] for kind in KINDS)


def rivals(entry: str, names: Iterable[str], workload: workloads.Workload) -> list[str]:
    """List the peers an entry is compared with: thread pools only if it may use threads itself."""
    with_threads = CONTENDERS[entry].threads and workload.threads_ok
    return [name for name in names if not CONTENDERS[name].ours and (with_threads or not CONTENDERS[name].threads)]


def entries(settings: Settings, workload: workloads.Workload) -> list[str]:
    """List the amorsize entries for a workload."""
    return [
        name
        for name in settings.names
        if CONTENDERS[name].ours and (workload.threads_ok or not CONTENDERS[name].threads)
    ]


def paired(one: Record, other: Record, kind: str) -> tuple[list[float], list[float]]:
    """Give the times of the rounds in which both succeeded."""
    pairs = [(a, b) for a, b in zip(one.times(kind), other.times(kind), strict=True) if a is not None and b is not None]
    return [a for a, _ in pairs], [b for _, b in pairs]


def judge(entry: str, peer: str, kind: str, records: dict[str, Record]) -> Verdict:
    """Compare an entry with its best peer and the loop."""
    mine, theirs = paired(records[entry], records[peer], kind)
    if not mine or records[entry].error:
        return Verdict(entry=entry, kind=kind, seconds=None, peer=peer)
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    loop = paired(records[entry], records["loop"], kind)
    return Verdict(
        entry=entry,
        kind=kind,
        seconds=statistics.median(mine),
        peer=peer,
        peer_s=statistics.median(theirs),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        to_loop=report.median_ratio(*loop) if loop[0] else None,
        slower=is_slower(*loop),
    )


def is_slower(mine: Sequence[float], loop: Sequence[float]) -> bool:
    """Tell whether calls are slower than the loop beyond what is promised."""
    return bool(
        mine and report.median_ratio(mine, loop) > SLOWER_RATIO and report.median_difference(mine, loop) > SLOWER_S
    )


def confirmed(verdict: Verdict, workload: str, settings: Settings) -> Verdict:
    """Measure an entry that seems slower than the loop again, over enough rounds to be sure."""
    if not verdict.slower or not settings.confirm:
        return verdict
    records = run_rounds([verdict.entry, "loop"], workload, settings, settings.confirm)
    mine, loop = paired(records[verdict.entry], records["loop"], verdict.kind)
    values = asdict(verdict) | {"slower": is_slower(mine, loop)}
    if mine:
        values["to_loop"] = report.median_ratio(mine, loop)
    return Verdict(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    Everything measured on one workload.

    Attributes:
        workload: Its name.
        selection: The rounds that chose the best peers.
        records: The rounds of amorsize, the best peers and the loop.
        verdicts: One per amorsize entry and kind.
    """

    workload: str
    selection: dict[str, Record]
    records: dict[str, Record]
    verdicts: list[Verdict]


def measure(name: str, settings: Settings) -> Outcome:
    """Choose the best peers of a workload, then measure amorsize against them."""
    workload = workloads.WORKLOADS[name]
    ours = entries(settings, workload)
    peers = [
        peer
        for peer in settings.names
        if not CONTENDERS[peer].ours and (workload.threads_ok or not CONTENDERS[peer].threads)
    ]
    selection = run_rounds(peers, name, settings, settings.selection, narrowing=True)
    best = {
        (entry, kind): min(rivals(entry, peers, workload), key=lambda p: selection[p].median(kind))
        for entry in ours
        for kind in KINDS
    }
    takes_part = dict.fromkeys([*ours, *best.values(), "loop"]) if ours else {}
    records = run_rounds(takes_part, name, settings, settings.rounds)
    verdicts = [judge(entry, peer, kind, records) for (entry, kind), peer in best.items()]
    verdicts = [confirmed(verdict, name, settings) for verdict in verdicts]
    return Outcome(workload=name, selection=selection, records=records, verdicts=verdicts)


# --- what is printed -------------------------------------------------------------------------


def ratio_text(ratio: float | None) -> str:
    """Write a ratio, short."""
    if ratio is None or ratio == float("inf"):
        return "FAIL"
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"


def peer_line(kind: str, selection: dict[str, Record]) -> str:
    """Write the peers' times as ratios to the best of them."""
    best = min(record.median(kind) for record in selection.values())
    ratios = (f"{name} {ratio_text(r.median(kind) / best)}" for name, r in selection.items())
    return f"  {kind:5s} peers, best {best * 1e3:9.2f} ms:  " + "  ".join(ratios)


def verdict_line(verdict: Verdict) -> str:
    """Write one entry's figures."""
    if verdict.seconds is None:
        return f"  {verdict.kind:5s} {verdict.entry:17s} FAIL"
    return (
        f"  {verdict.kind:5s} {verdict.entry:17s} {verdict.seconds * 1e3:9.2f} ms  "
        f"{ratio_text(verdict.ratio)} [{ratio_text(verdict.low)}, {ratio_text(verdict.high)}] of "
        f"{verdict.peer}, {ratio_text(verdict.to_loop)} of the loop"
        f"{'  SLOWER' if verdict.slower else ''}"
    )


def show(outcome: Outcome) -> None:
    """Print a workload's table."""
    print(f"\n{outcome.workload}: {workloads.WORKLOADS[outcome.workload].shape}")
    for kind in KINDS:
        print(peer_line(kind, outcome.selection))
        for verdict in outcome.verdicts:
            if verdict.kind == kind:
                print(verdict_line(verdict))
    for name, record in (outcome.selection | outcome.records).items():
        if record.plan:
            print(f"  plan of {name}: {record.plan}")
        if record.error:
            print(f"  {name} failed: {record.error}")
    print(end="", flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """
    An entry over all workloads, first or warm.

    Attributes:
        entry: Key of the entry.
        kind: `first` or `warm`.
        n_workloads: Workloads it was entered for.
        mean: Geometric mean of the ratios to the best peers.
        worst: Largest of them.
        worst_on: Where that was.
        n_slower: Workloads on which it was slower than the loop.
        n_failed: Workloads on which it failed.
    """

    entry: str
    kind: str
    n_workloads: int
    mean: float
    worst: float
    worst_on: str
    n_slower: int
    n_failed: int

    @property
    def verdict(self) -> str:
        """Say whether all bars are met."""
        mean, worst = (THREAD_BARS if os.environ.get(IDLE_THREADS_VARIABLE) else BARS)[self.kind]
        met = self.mean <= mean and self.worst <= worst and not self.n_slower + self.n_failed
        return f"(bar: {mean:.2f}, {worst:.2f}, 0, 0) {'ok' if met else 'over'}"


def summarise(outcomes: Sequence[Outcome]) -> list[Summary]:
    """Sum up each entry."""
    groups: dict[tuple[str, str], list[tuple[str, Verdict]]] = {}
    for outcome in outcomes:
        for verdict in outcome.verdicts:
            group = groups.setdefault((verdict.entry, verdict.kind), [])
            group.append((outcome.workload, verdict))
    return [summary(entry, kind, found) for (entry, kind), found in groups.items()]


def summary(entry: str, kind: str, found: Sequence[tuple[str, Verdict]]) -> Summary:
    """Sum up one entry's verdicts."""
    ratios = {name: verdict.ratio for name, verdict in found if verdict.ratio is not None}
    worst_on = max(ratios, key=lambda name: ratios[name], default="")
    return Summary(
        entry=entry,
        kind=kind,
        n_workloads=len(found),
        mean=report.geometric_mean(ratios.values()),
        worst=ratios.get(worst_on, float("nan")),
        worst_on=worst_on,
        n_slower=sum(verdict.slower for _, verdict in found),
        n_failed=sum(verdict.seconds is None for _, verdict in found),
    )


def noise(outcomes: Sequence[Outcome], kind: str) -> str:
    """Say how far the same contender under two names differs from itself."""
    ratios = []
    for outcome in outcomes:
        if {"amorsize", "amorsize-twin"} <= outcome.records.keys():
            records = outcome.records
            pair = paired(records["amorsize-twin"], records["amorsize"], kind)
            ratios += [report.median_ratio(*pair)] if pair[0] else []
    if not ratios:
        return f"{kind}: no twin entry"
    spread = f"from {min(ratios):.2f} to {max(ratios):.2f}"
    return f"{kind}: twin / amorsize {report.geometric_mean(ratios):.3f} on average, {spread}"


def show_summary(outcomes: Sequence[Outcome]) -> None:
    """Print the figures over all workloads."""
    print("\ntime / best peer: geometric mean, worst; workloads slower than the loop; failed")
    for line in summarise(outcomes):
        print(
            f"  {line.kind:5s} {line.entry:17s} mean {line.mean:5.2f}  worst {line.worst:5.2f} "
            f"({line.worst_on})  slower {line.n_slower}  failed {line.n_failed}  "
            f"of {line.n_workloads} {line.verdict}"
        )
    for kind in KINDS:
        print(f"  noise, {noise(outcomes, kind)}")


# --- what is written -------------------------------------------------------------------------


def as_markdown(outcomes: Sequence[Outcome], command: str) -> str:
    """Lay out the results for a documentation page, losses as plain as wins."""
    how = f"Measured by `{command}`: rounds to find the best peer, rounds of comparison, and warm calls in each."
    parts = [
        how,
        report.machine_line(),
        "A ratio is the median of amorsize's time / the best other's time within a round; above 1.00 amorsize lost.",
        summary_table(outcomes),
        *(noise_sentence(outcomes, kind) for kind in KINDS),
    ]
    for kind in KINDS:
        title = "First calls, workload by workload" if kind == "first" else "Later calls, workload by workload"
        parts += [f"### {title}", workload_table(outcomes, kind)]
    for kind in KINDS:
        calls = "first calls" if kind == "first" else "later calls"
        parts += [f"### The others among themselves, {calls}", peer_table(outcomes, kind)]
    return "\n\n".join(parts)


def is_for_readers(entry: str) -> bool:
    """Tell whether an entry is shown on a page: the twin is not, what it shows is said in a sentence."""
    return not entry.endswith("twin")


def noise_sentence(outcomes: Sequence[Outcome], kind: str) -> str:
    """Say in words how much of a ratio is noise."""
    figures = noise(outcomes, kind).partition("amorsize ")[2]
    mean, _, spread = figures.partition(" on average, ")
    calls = "first" if kind == "first" else "later"
    who = "entered a second time under another name, amorsize"
    return f"The noise: {who} takes {mean} times as long ({spread}), {calls} calls."


def summary_table(outcomes: Sequence[Outcome]) -> str:
    """Lay out the figures over all workloads, and how they spread."""
    head = ("entry", "calls", "geometric mean", "best", "median", "worst", "on", "slower than the loop", "failed")
    rows = []
    for line in summarise(outcomes):
        if not is_for_readers(line.entry):
            continue
        ratios = [v.ratio for o in outcomes for v in o.verdicts if (v.entry, v.kind) == (line.entry, line.kind)]
        known = [ratio for ratio in ratios if ratio is not None] or [math.nan]
        rows.append(
            (
                CONTENDERS[line.entry].title,
                "first" if line.kind == "first" else "later",
                f"{line.mean:.2f}",
                f"{min(known):.2f}",
                f"{statistics.median(known):.2f}",
                f"{line.worst:.2f}",
                line.worst_on,
                f"{line.n_slower} of {line.n_workloads}",
                str(line.n_failed),
            )
        )
    return report.markdown_table(head, rows)


def workload_table(outcomes: Sequence[Outcome], kind: str) -> str:
    """Lay out amorsize against the best peer, workload by workload."""
    head = (
        "workload",
        "shape",
        "entry",
        "ms",
        "best other",
        "its ms",
        "ratio",
        "range",
        "to the loop",
    )
    rows = [
        verdict_row(outcome.workload, verdict)
        for outcome in outcomes
        for verdict in outcome.verdicts
        if verdict.kind == kind and is_for_readers(verdict.entry)
    ]
    return report.markdown_table(head, rows)


def verdict_row(workload: str, verdict: Verdict) -> tuple[str, ...]:
    """Lay out one comparison."""
    start = (workload, workloads.WORKLOADS[workload].shape, CONTENDERS[verdict.entry].title)
    peer = CONTENDERS[verdict.peer].title
    if verdict.seconds is None or verdict.peer_s is None:
        return (*start, "FAIL", peer, "", "", "", "")
    return (
        *start,
        f"{verdict.seconds * 1e3:.1f}",
        peer,
        f"{verdict.peer_s * 1e3:.1f}",
        ratio_text(verdict.ratio),
        f"{ratio_text(verdict.low)} to {ratio_text(verdict.high)}",
        ratio_text(verdict.to_loop) + (" (slower)" if verdict.slower else ""),
    )


def peer_table(outcomes: Sequence[Outcome], kind: str) -> str:
    """Lay out all peers' ratios to the best of them."""
    names = [n for n in CONTENDERS if any(n in outcome.selection for outcome in outcomes)]
    rows = []
    for outcome in outcomes:
        best = min(record.median(kind) for record in outcome.selection.values())
        cells = [ratio_text(outcome.selection[n].median(kind) / best) if n in outcome.selection else "" for n in names]
        rows.append([outcome.workload, f"{best * 1e3:.1f}", *cells])
    return report.markdown_table(["workload", "ms", *(CONTENDERS[n].title for n in names)], rows)


def as_json(outcomes: Sequence[Outcome], settings: Settings, command: str) -> dict[str, object]:
    """Gather everything for other programs."""
    return {
        "command": command,
        "machine": report.machine(),
        "settings": asdict(settings),
        "summary": [asdict(line) for line in summarise(outcomes)],
        "workloads": [asdict(outcome) for outcome in outcomes],
    }


# --- the command line ------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `suite`."""
    parser.add_argument("-w", "--workloads", metavar="A,B", help="default: all")
    parser.add_argument("-c", "--contenders", metavar="A,B", help="default: all; the loop always is")
    parser.add_argument("--selection", type=int, metavar="N", help="rounds to find the best peer")
    parser.add_argument("-r", "--rounds", type=int, metavar="N", help="rounds of comparison")
    parser.add_argument("--warm", type=int, metavar="N", help="warm calls per process")
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="S", help="per answer")
    parser.add_argument("--quick", action="store_true", help="fewer workloads and rounds")
    parser.add_argument("--idle-threads", type=int, default=0, metavar="N", help="threads in each contender's process")
    parser.add_argument("--list", action="store_true", help="name workloads and contenders, and end")
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    parser.add_argument("--markdown", type=Path, metavar="PAGE.md", help="page to put the tables in")


def chosen(wanted: str | None, known: Iterable[str], default: Iterable[str]) -> tuple[str, ...]:
    """Read a list of names from the command line."""
    names = wanted.split(",") if wanted else list(default)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return tuple(names)


def settings_from(options: argparse.Namespace) -> Settings:
    """Turn options into settings."""
    default = [name for name, contender in CONTENDERS.items() if contender.in_suite]
    names = chosen(options.contenders, CONTENDERS, default)
    quick = options.quick
    return Settings(
        names=tuple(dict.fromkeys(("loop", *names))),
        selection=options.selection or (1 if quick else 2),
        rounds=options.rounds or (3 if quick else 5),
        warm=options.warm or (2 if quick else 3),
        limit_s=options.limit,
        confirm=0 if quick else CONFIRMING_ROUNDS,
    )


def main(options: argparse.Namespace) -> None:
    """Run the suite; results so far are written after every workload."""
    if options.list:
        print("workloads:", *(f"  {n}: {w.shape}" for n, w in workloads.WORKLOADS.items()), sep="\n")
        print("contenders:", *(f"  {n}: {c.title}" for n, c in CONTENDERS.items()), sep="\n")
        return
    settings = settings_from(options)
    every = [n for n, w in workloads.WORKLOADS.items() if w.small or not options.quick]
    names = chosen(options.workloads, workloads.WORKLOADS, every)
    os.environ[workloads.SPEED_VARIABLE] = str(workloads.loops_per_ms())
    rounds = f"--selection {settings.selection} --rounds {settings.rounds} --warm {settings.warm}"
    command = f"nox -s bench -- {'threads' if options.idle_threads else 'suite'} {rounds}"
    section = "suite"
    if options.idle_threads:
        os.environ[IDLE_THREADS_VARIABLE] = str(options.idle_threads)
        section = "threads"
    print(report.machine_line())
    outcomes: list[Outcome] = []
    start = time.monotonic()
    for name in names:
        outcomes.append(measure(name, settings))
        show(outcomes[-1])
        if options.output:
            report.write_json(options.output, as_json(outcomes, settings, command))
        if options.markdown:
            text = as_markdown(outcomes, command)
            report.write_section(options.markdown, section, text)
    show_summary(outcomes)
    print(f"{len(names)} workloads in {(time.monotonic() - start) / 60:.0f} min")
