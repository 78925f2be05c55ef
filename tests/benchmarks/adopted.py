"""
Code that already uses joblib, before and after `amorsize.register_joblib()`: scikit-learn's estimators.

Each fit runs in this process under joblib's own default, entered twice, and under
`joblib.parallel_config("amorsize")`, in turns and in random order; the figures are medians of ratios
formed within each round, over warm calls. The second entry of the default shows the noise. Results
are compared for equality.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import report

# ruff: noqa: PLC0415  scikit-learn is only needed here

# Times joblib's default.
BAR = 1.05

WAYS = ("default", "again", "amorsize")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One fit.

    Attributes:
        name: What is fitted.
        seconds: Median seconds of each way.
        ratio: Median of amorsize's time / the default's.
        twin: The same for the default's second entry.
    """

    name: str
    seconds: dict[str, float]
    ratio: float
    twin: float

    @property
    def ok(self) -> bool:
        """Whether the bar is met."""
        return self.ratio <= BAR

    def cells(self) -> tuple[str, ...]:
        """Lay it out for a table."""
        theirs_s, ours_s = self.seconds["default"], self.seconds["amorsize"]
        verdict = "ok" if self.ok else "**over**"
        return (self.name, f"{theirs_s:.3f}", f"{ours_s:.3f}", f"{self.ratio:.2f}", f"{self.twin:.2f}", verdict)


HEAD = ("fit", "joblib's default, s", "amorsize, s", "ratio", "twin", "")


def fits() -> dict[str, Callable[[], Any]]:
    """Return what is fitted, by name; each returns figures that can be compared."""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.svm import SVC

    x, y = load_digits(return_X_y=True)

    def grid(estimator: Any, parameters: dict[str, list[float]]) -> Any:
        search = GridSearchCV(estimator, parameters, cv=3, n_jobs=2)
        return search.fit(x, y).cv_results_["mean_test_score"].tolist()

    return {
        "GridSearchCV, SVC, 27 fits of 60 ms": lambda: grid(
            SVC(), {"C": [0.1, 1.0, 10.0], "gamma": [1e-4, 1e-3, 1e-2]}
        ),
        "GridSearchCV, Ridge, 60 fits of 3 ms": lambda: grid(Ridge(), {"alpha": [float(a) for a in range(1, 21)]}),
        "cross_val_score, SVC, 10 fits": lambda: cross_val_score(SVC(), x, y, cv=10, n_jobs=2).tolist(),
        "RandomForestClassifier, 200 trees": lambda: (
            RandomForestClassifier(200, n_jobs=2, random_state=0).fit(x, y).predict_proba(x).tolist()
        ),
    }


def under(way: str) -> Any:
    """Return the context of a way."""
    import joblib

    return joblib.parallel_config("amorsize") if way == "amorsize" else contextlib.nullcontext()


def measure(name: str, fit: Callable[[], Any], rounds: int) -> Row:
    """Time every way on one fit, in turns."""
    expected, times = None, {way: list[float]() for way in WAYS}
    for number in range(rounds + 1):
        for way in random.sample(WAYS, len(WAYS)):
            with under(way), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                start = time.perf_counter()
                figures = fit()
                seconds = time.perf_counter() - start
            expected = figures if expected is None else expected
            if figures != expected:
                raise AssertionError(f"{name}: results under {way} differ")
            if number:  # the first round starts workers and learns
                times[way].append(seconds)
    return Row(
        name=name,
        seconds={way: statistics.median(times[way]) for way in WAYS},
        ratio=report.median_ratio(times["amorsize"], times["default"]),
        twin=report.median_ratio(times["again"], times["default"]),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `adopted`."""
    parser.add_argument("-r", "--rounds", type=int, default=9, metavar="N", help="default: 9")
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    parser.add_argument("--markdown", type=Path, metavar="PAGE.md", help="page to put the table in")


def as_markdown(rows: list[Row]) -> str:
    """Lay out the figures for a documentation page."""
    table = report.for_readers(HEAD, [row.cells() for row in rows])
    return f"Measured by `nox -s bench -- adopted`.\n\n{report.machine_line()}\n\n{table}"


def main(options: argparse.Namespace) -> None:
    """Measure and print fit by fit."""
    import amorsize

    amorsize.register_joblib()
    print(report.machine_line(), flush=True)
    print(" | ".join(HEAD))
    rows = []
    for name, fit in fits().items():
        rows.append(measure(name, fit, options.rounds))
        print(" | ".join(rows[-1].cells()), flush=True)
    if options.output:
        report.write_json(options.output, {"machine": report.machine(), "rows": [asdict(row) for row in rows]})
    if options.markdown:
        report.write_section(options.markdown, "adopted", as_markdown(rows))
