"""
First calls relative to the loop, workload by workload: the picture of `docs/motivation.md`.

Draws `docs/images/negative-scaling.svg` from the tables of `docs/performance.md`; it measures nothing itself.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "performance.md"
PICTURE = DOCS / "images" / "negative-scaling.svg"

# What is shown, by its name in the tables: work that is too short, too heavy to move, and long enough.
SHOWN = {
    "array-sum-8MB": "sums of arrays of 8 MB",
    "tiny-100k": "100,000 trivial items",
    "checksum-1MB": "100 checksums of 1 MB",
    "json-documents": "JSON texts, 0.1 ms each",
    "spin-1ms-x200": "200 items of 1 ms",
    "spin-1ms-x1500": "1,500 items of 1 ms",
    "spin-100ms-x8": "8 items of 100 ms",
}

# Entry, shape of its mark, place in the legend.
ENTRIES = (
    ("joblib", "joblib.Parallel", "square", 360),
    ("multiprocessing.Pool", "multiprocessing.Pool", "ring", 150),
    ("amorsize", "amorsize", "dot", 30),
)

WIDTH, LEFT, RIGHT, TOP, ROW = 560, 30, 540, 62, 52
X_LOW, X_HIGH = 0.4, 150.0

STYLE = """
.card{fill:#fff}.ink{fill:#1f2328}.soft{fill:#59636e}.grid{stroke:#1f2328;stroke-opacity:.12}
.unit{stroke:#1f2328;stroke-width:2}.slow{fill:#c8543f;fill-opacity:.07}.fast{fill:#2f9e5f;fill-opacity:.12}
.join{stroke:#59636e;stroke-opacity:.5}.dot{stroke:#0a7d43;fill:#0a7d43}.ring{stroke:#2563b0;fill:#fff}
.square{stroke:#b05a12;fill:#b05a12}
@media(prefers-color-scheme:dark){
.card{fill:#131416}.ink{fill:#e6e6e6}.soft{fill:#a5adb6}.grid{stroke:#e6e6e6;stroke-opacity:.16}
.unit{stroke:#e6e6e6}.slow{fill-opacity:.14}.fast{fill-opacity:.2}.join{stroke:#a5adb6}
.dot{stroke:#4bd08b;fill:#4bd08b}.ring{stroke:#6cb0ff;fill:#131416}.square{stroke:#f0a35e;fill:#f0a35e}}
"""


def table(page: str, title: str) -> list[dict[str, str]]:
    """Return the rows of the table below a heading, by the names of its columns."""
    lines = page.partition(f"### {title}\n")[2].strip().partition("\n\n")[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in ln.strip()[1:-1].split("|")] for ln in lines if ln.startswith("|")]
    return [dict(zip(head, row, strict=True)) for row in rows]


def ratios(page: str) -> dict[str, dict[str, float]]:
    """Return the time of each entry relative to the loop's, by workload."""
    others = {row["workload"]: row for row in table(page, "The others among themselves, first calls")}
    found = {}
    for row in table(page, "First calls, workload by workload"):
        name = row["workload"]
        if name in SHOWN and row["entry"] == "amorsize":
            loop = float(others[name]["loop"])
            found[name] = {peer: float(others[name][peer]) / loop for peer in ("joblib", "multiprocessing.Pool")}
            found[name]["amorsize"] = float(row["to the loop"].split()[0])
    return {name: found[name] for name in SHOWN}


def x_of(ratio: float) -> float:
    """Place a ratio, logarithmically, in pixels."""
    return LEFT + (RIGHT - LEFT) * math.log(ratio / X_LOW) / math.log(X_HIGH / X_LOW)


def mark(shape: str, x: float, y: float) -> str:
    """Draw one point, told apart by its shape as well as by its colour."""
    if shape == "square":
        return f'<rect class="square" x="{x - 5.5:.1f}" y="{y - 5.5:.1f}" width="11" height="11"/>'
    return f'<circle class="{shape}" cx="{x:.1f}" cy="{y:.1f}" r="6.5" stroke-width="2.5"/>'


def rows(figures: dict[str, dict[str, float]]) -> Iterator[str]:
    """Draw a line of text and a line of marks for each workload."""
    for number, (name, found) in enumerate(figures.items()):
        y = TOP + 20 + ROW * number
        low, high = x_of(min(found.values())), x_of(max(found.values()))
        yield f'<text class="ink" x="{RIGHT - 8}" y="{y}" text-anchor="end">{SHOWN[name]}</text>'
        yield f'<path class="join" d="M{low:.1f} {y + 16}H{high:.1f}"/>'
        yield from (mark(shape, x_of(found[entry]), y + 16) for entry, _, shape, _ in ENTRIES)


def drawn(page: str) -> str:
    """Draw the picture, which brings its own background and follows the reader's light or dark."""
    figures = ratios(page)
    bottom = TOP + ROW * len(figures) + 6
    height, unit = bottom + 62, x_of(1)
    told = "; ".join(
        f"{SHOWN[name]}: {', '.join(f'{entry} {ratio:.2g}' for entry, ratio in found.items())}"
        for name, found in figures.items()
    )
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    words = 'role="img" aria-labelledby="ns-t ns-d" font-family="system-ui, sans-serif" font-size="16"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {words}>',
        '<title id="ns-t">Negative scaling: time of a first call with two workers, relative to the loop</title>',
        f'<desc id="ns-d">{told} times the time of the loop.</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="card" width="{WIDTH}" height="{height}" rx="8"/>',
        f'<rect class="fast" x="{LEFT}" y="{TOP}" width="{unit - LEFT:.1f}" height="{bottom - TOP}"/>',
        f'<rect class="slow" x="{unit:.1f}" y="{TOP}" width="{RIGHT - unit:.1f}" height="{bottom - TOP}"/>',
    ]
    for ratio, text in ((0.5, "½"), (1, "loop"), (2, "2"), (5, "5"), (10, "10"), (20, "20"), (50, "50"), (100, "100")):
        kind, x = "unit" if ratio == 1 else "grid", x_of(ratio)
        lines.append(f'<path class="{kind}" d="M{x:.1f} {TOP}V{bottom}"/>')
        lines.append(f'<text class="ink" x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{text}</text>')
    for _, title, shape, x in ENTRIES:
        lines += [mark(shape, x + 8, 20), f'<text class="ink" x="{x + 22}" y="26">{title}</text>']
    below = "time of a first call with two workers, relative to the loop"
    lines += [
        f'<text class="soft" x="{LEFT}" y="52">faster</text>',
        f'<text class="soft" x="{RIGHT}" y="52" text-anchor="end">slower than the loop</text>',
        *rows(figures),
        f'<text class="soft" x="{WIDTH / 2}" y="{bottom + 46}" text-anchor="middle">{below}</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Declare the options of `scaling`: there are none."""


def main(_: argparse.Namespace) -> None:
    """Draw the picture anew."""
    PICTURE.write_text(drawn(PAGE.read_text("utf-8")), "utf-8")
