"""
First calls over the grain of the work: the same number of items, from microseconds to milliseconds each.

Writes the figures to `docs/images/grain.json` and the picture that README.md shows to `docs/images/grain.svg`.
With `--draw`, only the picture is made again, from the figures that are there.
Every call is the first one of a fresh process; a figure is the median of the ratios to the loop's call of its round.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import micro
import report
import workloads
from station import first_calls

IMAGES = Path(__file__).parents[2] / "docs" / "images"
FIGURES = IMAGES / "grain.json"
PICTURE = IMAGES / "grain.svg"

N_ITEMS = 1000
GRAINS_US = (1, 3, 10, 30, 100, 300, 1000, 3000)
ENTRIES = ("loop", "pool", "executor-1", "joblib", "amorsize")

# Seconds to wait for one answer: 1,000 items of 3 ms take the loop three.
LIMIT_S = 60.0


def measure(rounds: int) -> dict[str, Any]:
    """Time first calls of all entries at each grain; medians of their ratios to the loop."""
    specs = {name: {"contender": name} for name in ENTRIES}
    points = []
    for grain_us in GRAINS_US:
        times = first_calls(specs, micro.equal_items(N_ITEMS, grain_us), rounds=rounds, limit_s=LIMIT_S)
        point = {
            "item_us": grain_us,
            "loop_s": statistics.median(times["loop"]),
            "ratios": {name: report.median_ratio(times[name], times["loop"]) for name in ENTRIES},
            "seconds": times,
        }
        points.append(point)
        told = "  ".join(f"{name} {ratio:.2f}" for name, ratio in point["ratios"].items())
        print(f"{grain_us:5d} us, loop {point['loop_s'] * 1e3:8.2f} ms:  {told}", flush=True)
    return {
        "command": f"nox -s bench -- grain --rounds {rounds}",
        "machine": report.machine(),
        "n_items": N_ITEMS,
        "points": points,
    }


# --- the picture ------------------------------------------------------------------------------

# Wide enough for a column of text, and letters large enough for a phone, which shows it at two thirds.
WIDTH, HEIGHT = 560, 430
LEFT, RIGHT, TOP, BOTTOM = 70, 540, 76, 350
Y_LOW, Y_HIGH = 0.4, 400.0
X_LOW, X_HIGH = 0.8, 3800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """
    How an entry is drawn.

    Attributes:
        name: In the figures.
        title: In the legend.
        mark: Class of its colours, and the shape of its marks.
        at: Place in the legend, in pixels.
    """

    name: str
    title: str
    mark: str
    at: tuple[int, int]


CURVES = (
    Curve(name="joblib", title="joblib.Parallel", mark="square", at=(300, 24)),
    Curve(name="executor-1", title="ProcessPoolExecutor", mark="diamond", at=(74, 24)),
    Curve(name="pool", title="multiprocessing.Pool", mark="ring", at=(74, 50)),
    Curve(name="amorsize", title="amorsize", mark="dot", at=(300, 50)),
)

STYLE = """
.card{fill:#fff}.ink{fill:#1f2328}.soft{fill:#59636e}.grid{stroke:#1f2328;stroke-opacity:.12}
.unit{stroke:#1f2328;stroke-width:2}.slow{fill:#c8543f;fill-opacity:.07}.fast{fill:#2f9e5f;fill-opacity:.12}
.line{fill:none;stroke-width:2.5}.dot{stroke:#0a7d43;fill:#0a7d43}.ring{stroke:#2563b0;fill:#fff}
.square{stroke:#b05a12;fill:#b05a12}.diamond{stroke:#8250b8;fill:#8250b8}
.line.dot{stroke-width:4}.line{fill:none!important}
@media(prefers-color-scheme:dark){
.card{fill:#131416}.ink{fill:#e6e6e6}.soft{fill:#a5adb6}.grid{stroke:#e6e6e6;stroke-opacity:.16}
.unit{stroke:#e6e6e6}.slow{fill-opacity:.14}.fast{fill-opacity:.2}
.dot{stroke:#4bd08b;fill:#4bd08b}.ring{stroke:#6cb0ff;fill:#131416}
.square{stroke:#f0a35e;fill:#f0a35e}.diamond{stroke:#c8a2ff;fill:#c8a2ff}}
"""


def x_of(item_us: float) -> float:
    """Place a grain, logarithmically, in pixels."""
    return LEFT + (RIGHT - LEFT) * math.log(item_us / X_LOW) / math.log(X_HIGH / X_LOW)


def y_of(ratio: float) -> float:
    """Place a ratio, logarithmically, in pixels."""
    return BOTTOM - (BOTTOM - TOP) * math.log(ratio / Y_LOW) / math.log(Y_HIGH / Y_LOW)


def mark(shape: str, x: float, y: float) -> str:
    """Draw one point, told apart by its shape as well as by its colour."""
    if shape == "square":
        return f'<rect class="square" x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10"/>'
    if shape == "diamond":
        return f'<path class="diamond" d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z"/>'
    width = ' stroke-width="2.5"' if shape == "ring" else ""
    return f'<circle class="{shape}" cx="{x:.1f}" cy="{y:.1f}" r="5.5"{width}/>'


def grain_text(item_us: float) -> str:
    """Write a grain in the unit that suits it."""
    return f"{item_us:g} µs" if item_us < 1000 else f"{item_us / 1000:g} ms"


def axes() -> Iterator[str]:
    """Draw the two regions, the grid and its labels."""
    unit = y_of(1)
    yield f'<rect class="slow" x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" height="{unit - TOP:.1f}"/>'
    yield f'<rect class="fast" x="{LEFT}" y="{unit:.1f}" width="{RIGHT - LEFT}" height="{BOTTOM - unit:.1f}"/>'
    for ratio, text in ((0.5, "½"), (1, "loop"), (10, "10 x"), (100, "100 x")):
        y, kind = y_of(ratio), "unit" if ratio == 1 else "grid"
        yield f'<path class="{kind}" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
        yield f'<text class="ink" x="{LEFT - 8}" y="{y + 6:.1f}" text-anchor="end">{text}</text>'
    for item_us in (1, 10, 100, 1000):
        yield f'<path class="grid" d="M{x_of(item_us):.1f} {TOP}V{BOTTOM}"/>'
        place = f'x="{x_of(item_us):.1f}" y="{BOTTOM + 22}" text-anchor="middle"'
        yield f'<text class="ink" {place}>{grain_text(item_us)}</text>'
    yield f'<text class="soft" x="{RIGHT - 8}" y="{TOP + 22}" text-anchor="end">slower than the loop</text>'
    yield f'<text class="soft" x="{LEFT + 8}" y="{BOTTOM - 10}">faster</text>'


def curve(entry: Curve, points: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Draw an entry's line, its points and its line of the legend."""
    places = [(x_of(point["item_us"]), y_of(point["ratios"][entry.name])) for point in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline class="line {entry.mark}" points="{line}"/>'
    yield from (mark(entry.mark, x, y) for x, y in places)
    x, y = entry.at
    yield mark(entry.mark, x, y)
    yield f'<text class="ink" x="{x + 14}" y="{y + 6}">{entry.title}</text>'


def described(figures: dict[str, Any]) -> str:
    """Tell the figures in words, for those who cannot see them."""
    parts = []
    for point in figures["points"]:
        ratios = ", ".join(f"{entry.title} {point['ratios'][entry.name]:.2g}" for entry in CURVES)
        parts.append(f"{grain_text(point['item_us'])} per item: {ratios}")
    return "; ".join(parts) + " times the time of the loop."


def drawn(figures: dict[str, Any]) -> str:
    """Draw the picture, which brings its own background and follows the reader's light or dark."""
    n_items, cores = figures["n_items"], figures["machine"]["processor"].rpartition("(")[2].split()[0]
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    words = 'role="img" aria-labelledby="grain-t grain-d" font-family="system-ui, sans-serif" font-size="17"'
    middle = f'x="{(LEFT + RIGHT) / 2}" text-anchor="middle"'
    what = f"first call in a fresh program, {n_items:,} items, {cores} cores"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {words}>',
        '<title id="grain-t">Time of a first call, relative to the loop, over the seconds per item</title>',
        f'<desc id="grain-d">{described(figures)}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="card" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        *axes(),
        *(line for entry in CURVES for line in curve(entry, figures["points"])),
        f'<text class="ink" {middle} y="{BOTTOM + 48}">time per item</text>',
        f'<text class="soft" {middle} y="{BOTTOM + 70}" font-size="15">{what}</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


# --- the command line ------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `grain`."""
    parser.add_argument("-r", "--rounds", type=int, default=5, metavar="N", help="first calls of each entry")
    parser.add_argument("--draw", action="store_true", help="only draw the figures that are there")


def main(options: argparse.Namespace) -> None:
    """Measure, and draw."""
    if not options.draw:
        os.environ[workloads.SPEED_VARIABLE] = str(workloads.loops_per_ms())
        print(report.machine_line())
        report.write_json(FIGURES, measure(options.rounds))
    PICTURE.write_text(drawn(json.loads(FIGURES.read_text("utf-8"))), "utf-8")
