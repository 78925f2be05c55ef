"""
Writes the tables and curves of docs/scale.md: what the real policy does on machines nobody has on the desk.

    python tests/benchmarks/simulate.py            prints the tables
    python tests/benchmarks/simulate.py --write    puts them and the curves where the page has them

Everything is simulated (tests/simulator.py): no workers, no clock, the same figures everywhere.
"""

# ruff: noqa: E501 - the page has one sentence per line

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from amorsize import _cost as cost  # noqa: E402 - the path comes first
from amorsize import _schedule as schedule  # noqa: E402 - as above
from tests import simulator  # noqa: E402 - as above
from tests.simulator import FORKED, KINDS, LOKY_LIKE, Cluster, make_items, run_flow, run_team  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKERS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SHOWN: Final = (2, 8, 64, 256, 1024)
CLUSTER: Final = (1, 10, 100, 1_000, 10_000)
ROUND_TRIPS_S: Final = (1e-4, 1e-3, 1e-2)
BEGIN, END = "<!-- simulation:begin -->", "<!-- simulation:end -->"

# Seconds per item that a driver spends on reading, pickling and unpickling. Numbers: 0.3 us and up, measured with lists
# of integers; 1 kB: the wire at 1.25 GB/s and two copies.
PER_ITEM_S: Final = {"an index": 0.3e-6, "1 kB": 3e-6, "100 kB": 180e-6}


def efficiencies(engine: str) -> dict[str, list[float]]:
    """Return the efficiency of each kind of work by number of workers: 1.6 s of work for each, 5 ms items."""
    run, machine = (run_team, FORKED) if engine == "forked" else (run_flow, LOKY_LIKE)
    found: dict[str, list[float]] = {}
    for kind in KINDS:
        for n in WORKERS:
            items = make_items(kind, 320 * n, 5e-3)
            here = replace(machine, n=n)
            result = run(items, here, item_s=items.prefix[5] / 5)
            found.setdefault(kind, []).append(here.bound_s(items) / result.end_s)
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose numbers are on the right."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["--:"] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def efficiency_table(found: dict[str, dict[str, list[float]]]) -> str:
    """Return the efficiencies as text: both engines side by side."""
    head = ["order of the items", *(f"{engine}, {n:,}" for engine in found for n in SHOWN)]
    rows = [
        [kind, *(f"{min(1.0, values[kind][WORKERS.index(n)]):.2f}" for values in found.values() for n in SHOWN)]
        for kind in KINDS
    ]
    return table(head, rows)


def policy(cluster: Cluster, item_s: float) -> simulator.Load:
    """Return the steady state with the chunks that the real policy hands out."""
    chunker = schedule.Chunker(cluster.n, item_s, cost.EXTERNAL_PRIOR.batch_overhead_s)
    cut_s = chunker.quantum_s
    return simulator.steady(cluster, item_s, max(1.0, min(chunker.size(10**9), cut_s / item_s)))


def cluster_table() -> str:
    """Return what a driver goes through for 10^9 items of 1 ms."""
    rows = []
    for n in CLUSTER:
        loads = [policy(Cluster(n, round_trip_s), 1e-3) for round_trip_s in ROUND_TRIPS_S]
        one = loads[1]
        rows.append(
            [
                f"{n:,}",
                f"{one.chunk_items:,.0f}",
                f"{one.chunk_s:.3g} s",
                f"{one.chunks_per_s:,.0f}",
                f"{one.driver:.0%}",
                *(f"{load.efficiency:.2f}" for load in loads),
                duration(10**9 * 1e-3 / (n * one.efficiency)),
            ]
        )
    head = ["workers", "items per chunk", "work per chunk", "chunks/s", "driver busy"]
    return table([*head, *(f"efficiency, {s * 1e3:g} ms" for s in ROUND_TRIPS_S), "10^9 items take"], rows)


def duration(seconds: float) -> str:
    """Return seconds in a unit that reads well."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def most_workers_table() -> str:
    """Return how many workers one driver keeps busy, by its seconds per chunk and the work in one."""
    drivers_s = (0.1e-3, 0.3e-3, 1e-3, 3e-3)
    rows = [
        [f"{chunk_s:g} s", *(f"{chunk_s / driver_s:,.0f}" for driver_s in drivers_s)] for chunk_s in (0.05, 0.5, 5, 50)
    ]
    return table(["work per chunk", *(f"{s * 1e3:g} ms" for s in drivers_s)], rows)


def per_item_table() -> str:
    """Return how many workers one driver keeps busy when each item passes through it."""
    rows = [
        [f"{item_s * 1e3:g} ms", *(f"{max(1.0, item_s / each_s):,.0f}" for each_s in PER_ITEM_S.values())]
        for item_s in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    ]
    return table(["work per item", *PER_ITEM_S], rows)


# -- curves ----------------------------------------------------------------------------------------------------------

# Middle tones, so that they read on white and on black.
COLOURS: Final = ("#2f7ed8", "#e07b39", "#3a9a6c", "#a66bbf")
GREY: Final = "#808890"


def svg(title: str, curves: dict[str, list[float]], xs: Sequence[int], label: str) -> str:
    """Draw curves over a doubling or tenfold axis, from 0 to 1; narrow, so that it can be read on a phone."""
    left, top, width, height = 56, 92, 476, 220
    span = len(xs) - 1

    def x(i: int) -> float:
        return left + width * i / span

    def y(value: float) -> float:
        return top + height * (1 - min(1.0, value))

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 560 376" width="560" height="376" role="img" '
            f'font-family="system-ui, sans-serif" font-size="16" fill="{GREY}">'
        ),
        f"<title>{title}</title>",
        f'<text x="{left}" y="18" font-weight="600">{title}</text>',
    ]
    parts += [
        f'<path d="M{left} {y(value):.1f}H{left + width}" stroke="{GREY}" stroke-opacity="0.3" fill="none"/>'
        f'<text x="{left - 8}" y="{y(value) + 5:.1f}" text-anchor="end">{value:g}</text>'
        for value in (0, 0.25, 0.5, 0.75, 1)
    ]
    every = 2 if len(xs) > 6 else 1  # so that the numbers do not touch
    for i, n in enumerate(xs):
        if i % every == 0:
            parts.append(f'<text x="{x(i):.1f}" y="{top + height + 22}" text-anchor="middle">{n:,}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{top + height + 48}" text-anchor="middle">{label}</text>')
    for place, (name, values) in enumerate(curves.items()):
        colour = COLOURS[place % len(COLOURS)]
        points = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(values))
        column, row = left + 250 * (place // 2), 44 + 24 * (place % 2)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
            f'<path d="M{column} {row - 5}h18" stroke="{colour}" stroke-width="2.5"/>'
            f'<text x="{column + 26}" y="{row}">{name}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def efficiency_curves(found: dict[str, dict[str, list[float]]]) -> str:
    """Draw the worst and the middle order of the items for both engines."""
    curves = {}
    for engine, values in found.items():
        by_n = [sorted(min(1.0, values[kind][i]) for kind in KINDS) for i in range(len(WORKERS))]
        curves[f"{engine}, middle order"] = [found_at[len(found_at) // 2] for found_at in by_n]
        curves[f"{engine}, worst order"] = [found_at[0] for found_at in by_n]
    return svg("Efficiency against the best possible", curves, WORKERS, "workers (1.6 s of work for each)")


def driver_curves() -> str:
    """Draw how busy the driver is, with chunks of a fixed length and with the policy's."""
    counts = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000]
    fixed = [simulator.steady(Cluster(n, 1e-3), 1e-3, 50).driver for n in counts]
    fixed_work = [simulator.steady(Cluster(n, 1e-3), 1e-3, 50).efficiency for n in counts]
    ours = [policy(Cluster(n, 1e-3), 1e-3) for n in counts]
    curves = {
        "driver busy, 0.05 s chunks": fixed,
        "efficiency, 0.05 s chunks": fixed_work,
        "driver busy, amorsize": [load.driver for load in ours],
        "efficiency, amorsize": [load.efficiency for load in ours],
    }
    return svg("One driver, 1 ms of its time per chunk", curves, counts, "workers")


# -- the page --------------------------------------------------------------------------------------------------------


def section(found: dict[str, dict[str, list[float]]]) -> str:
    """Return the text between the marks of the page."""
    return f"""{BEGIN}
<!-- Written by tests/benchmarks/simulate.py; change it there. -->

## By simulation

There was no machine with 1,024 cores and no cluster of 10,000 workers to measure on.
A discrete-event simulator in the tests runs the scheduling policy itself (chunk sizes, splitting, looks at the clock, the decision) for invented machines and items, with the costs that were measured on two cores.
What it cannot show is what hardware adds: memory bandwidth, clock rates that fall with load, a network shared with others.

### One machine

Efficiency is the best possible time over the simulated one.
The best possible is `(W - longest) / p + longest`, the bound that Graham proved for any order that does not know the future; 1.00 also stands where the simulation beat it, as it may when a long item comes early.
Each worker has 1.6 s of work in items of 5 ms on average; workers are warm.

![Efficiency over the number of workers](images/scale-efficiency.svg)

{efficiency_table(found)}

*Forked* workers share one queue of index ranges, and a worker that finds the queue empty puts half of its remaining items back: the caller only receives results.
Chunks that are *handed out* (loky, streams, clusters) cost the caller about 0.2 ms each, so beyond a few hundred workers the chunks of a short run cannot be handed out as fast as they are done.

### A cluster

One driver hands out 10^9 items of 1 ms each, with 1 ms of its time per chunk, which is what a task costs the scheduler of Dask.
One chunk waits at each worker beside the one that runs.

{cluster_table()}

![The driver over the number of workers](images/scale-driver.svg)

- **The network hardly matters.** The chunk that waits hides the round trip as long as a chunk takes longer than it: with chunks of 0.1 s, 10 ms there and back cost nothing.
- **The driver is the limit.** It feeds as many workers as its time per chunk goes into the work of one. Chunks therefore grow with the number of workers, and with them the items that are lost with a worker that dies, and the seconds at the end in which some workers have no work.

{most_workers_table()}

### What passes through the driver

Longer chunks do not help with what each item costs the driver itself: reading it, pickling it, and unpickling its result.
The most workers that one driver keeps busy are then the seconds of an item over those:

{per_item_table()}

### What follows

- Up to 64 workers there is nothing to set.
- Between 100 and 10,000 workers, give each a run of minutes rather than seconds, and let an item be 10 ms of work or more.
- Send names, not contents: paths, keys, index ranges. Let workers read their input and write their output where it is stored, and return small results.
- Where items are under a millisecond, make one item of a thousand (a file, a partition, a range), so that the driver sees a thousandth of them.
- Where the driver is still the limit, split the input and run several drivers, each with its own workers. The items of a map are independent, so no driver needs to know all of them.
- For 10^9 items use `imap`: input and results stay within the buffer. The buffer must hold two chunks for every worker, so set `buffersize` to at least twice the workers times the items per chunk above.

{END}"""


def main() -> None:
    """Print the section, or write it and the curves."""
    parser = argparse.ArgumentParser(description="Tables and curves of docs/scale.md.")
    parser.add_argument("--write", action="store_true", help="write docs/scale.md and its curves")
    options = parser.parse_args()
    found = {engine: efficiencies(engine) for engine in ("forked", "handed out")}
    text = section(found)
    if not options.write:
        print(text)
        return
    docs = ROOT / "docs"
    page = docs / "scale.md"
    old = page.read_text() if page.exists() else f"# Scale\n\n{BEGIN}\n{END}\n"
    before, _, rest = old.partition(BEGIN)
    page.write_text(before + text + rest.partition(END)[2])
    (docs / "images").mkdir(exist_ok=True)
    (docs / "images" / "scale-efficiency.svg").write_text(efficiency_curves(found))
    (docs / "images" / "scale-driver.svg").write_text(driver_curves())


if __name__ == "__main__":
    main()
