"""
The same work on a data frame in pandas, pandarallel, swifter and amorsize: `python tests/benchmarks/frames.py`.

Needs pandas, pandarallel and swifter, of which the last two do not work with pandas 3 (November 2026):
`pip install 'pandas<2.3' pandarallel swifter`. Each way runs in fresh processes, in turns and in random order; a figure
is the median over the rounds, for the first call of a process and for the best of two later ones.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import report

# ruff: noqa: PLC0415  a way's libraries must not burden the others

N_ROWS = 20_000


def frame() -> Any:
    """Build a frame of texts of about 170 letters and of numbers."""
    import numpy as np
    import pandas as pd

    dice = np.random.default_rng(0)
    words = np.array(["alpha", "beta", "gamma", "delta", "epsilon", "zeta"])
    texts = [" ".join(row) for row in words[dice.integers(0, 6, size=(N_ROWS, 30))]]
    return pd.DataFrame({"text": texts, "price": dice.random(N_ROWS) * 100, "count": dice.integers(1, 9, N_ROWS)})


def product(price: float, count: int) -> float:
    """Multiply two numbers: work that pandas does for whole columns."""
    return price * count


def product_of_row(row: Any) -> float:
    """Multiply two columns of a row."""
    return row["price"] * row["count"]


def score(text: str) -> float:
    """Do some 25 microseconds of Python on a text: work that no expression of pandas does."""
    counts: dict[str, int] = {}
    for pair in itertools.pairwise(text):
        counts["".join(pair)] = counts.get("".join(pair), 0) + 1
    return sum(n * n for n in counts.values()) / max(1, len(text))


Way = Callable[[Any], Iterable[float]]


def pandarallel(call: Way) -> Way:
    """Start pandarallel in the first call."""

    def start_and_call(data: Any) -> Iterable[float]:
        from pandarallel import pandarallel as library

        library.initialize(nb_workers=2, verbose=0)
        return call(data)

    return start_and_call


def with_swifter(call: Way) -> Way:
    """Import swifter before the clock starts."""
    import swifter  # noqa: F401 - gives frames an attribute

    return call


def with_amorsize(name: str) -> Way:
    """Map over columns."""
    import amorsize

    if name == "row":
        mapped = amorsize.parallel(product)
        return lambda data: mapped.map(data["price"], data["count"])
    scored = amorsize.parallel(score)
    return lambda data: scored.map(data["text"])


WAYS: dict[str, dict[str, Callable[[], Way]]] = {
    "row": {
        "an expression: `frame['price'] * frame['count']`": lambda: lambda data: data["price"] * data["count"],
        "a comprehension over the columns": lambda: (
            lambda data: [product(*pair) for pair in zip(data["price"], data["count"], strict=True)]
        ),
        "amorsize, over the columns": lambda: with_amorsize("row"),
        "swifter, `apply(axis=1)`": lambda: with_swifter(
            lambda data: data.swifter.progress_bar(enable=False).set_npartitions(2).apply(product_of_row, axis=1)
        ),
        "pandas, `apply(axis=1)`": lambda: lambda data: data.apply(product_of_row, axis=1),
        "pandarallel, `parallel_apply(axis=1)`": lambda: pandarallel(
            lambda data: data.parallel_apply(product_of_row, axis=1)
        ),
    },
    "text": {
        "a comprehension over the column": lambda: lambda data: [score(text) for text in data["text"]],
        "amorsize, over the column": lambda: with_amorsize("text"),
        "pandas, `apply`": lambda: lambda data: data["text"].apply(score),
        "pandarallel, `parallel_apply`": lambda: pandarallel(lambda data: data["text"].parallel_apply(score)),
        "swifter, `apply`": lambda: with_swifter(
            lambda data: data["text"].swifter.progress_bar(enable=False).set_npartitions(2).apply(score)
        ),
    },
}


def run(work: str, way: str) -> None:
    """Time three calls in this process, and print their seconds and the sum of their results."""
    call, data = WAYS[work][way](), frame()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        results = call(data)
        seconds.append(time.perf_counter() - start)
    print(json.dumps([seconds[0], min(seconds[1:]), round(float(sum(results)), 3)]))


def measure(work: str, rounds: int) -> dict[str, list[list[float]]]:
    """Run every way in processes of its own; results must agree."""
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS[work]}
    for _ in range(rounds):
        for way in random.sample(list(found), len(found)):
            command = [sys.executable, __file__, "--work", work, "--way", way]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
            found[way].append(json.loads(done.stdout.strip().splitlines()[-1]))
    sums = {times[2] for each in found.values() for times in each}
    assert len(sums) == 1, f"results differ: {sums}"
    return found


def main() -> None:
    """Measure, and print tables for the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--work", choices=tuple(WAYS))
    parser.add_argument("--way")
    options = parser.parse_args()
    if options.way:
        run(options.work, options.way)
        return
    print(report.machine_line())
    for work in WAYS:
        found = measure(work, options.rounds)
        rows = [
            (way, *(f"{statistics.median(times[i] for times in found[way]) * 1e3:.1f} ms" for i in (0, 1)))
            for way in found
        ]
        print(report.markdown_table((f"20,000 times: {work}", "first call", "later calls"), rows), flush=True)


if __name__ == "__main__":
    main()
