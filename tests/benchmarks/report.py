"""Statistics of ratios, the machine in words, and sections of documentation pages."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import math
import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import contenders
import psutil

PACKAGES = ("amorsize", "joblib", "wrapt", "psutil", "numpy", "mpire", "distributed", "ray")


def geometric_mean(ratios: Iterable[float]) -> float:
    """Average ratios; NaN if there are none."""
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(statistics.fmean(logs)) if logs else math.nan


def median_ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """Take the median of ratios formed within each round."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def median_difference(ones: Sequence[float], others: Sequence[float]) -> float:
    """Take the median of differences formed within each round, in the unit of the arguments."""
    return statistics.median(one - other for one, other in zip(ones, others, strict=True))


def quantile(values: Sequence[float], share: float) -> float:
    """Take the smallest value that at least *share* of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def machine() -> dict[str, str]:
    """Describe what the figures depend on: processor, system, versions, date."""
    physical = psutil.cpu_count(logical=False) or "?"
    cores = f"{contenders.n_cpus()} usable, {os.cpu_count()} logical, {physical} physical"
    found = {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "processor": f"{processor()} ({cores})",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def processor() -> str:
    """Name the processor as well as the system can."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine_line() -> str:
    """Describe the machine in one sentence."""
    about = machine()
    versions = ", ".join(f"{n} {about[n]}" for n in ("Python", *PACKAGES) if about[n] != "not installed")
    return f"{about['date']}: {about['processor']}, {about['system']}; {versions}."


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def for_readers(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """
    Lay out a table for a documentation page: without what only whoever works on the library compares.

    That is the column of the twin (the noise) and the one, without a heading, that says whether a bar is met.
    """
    kept = [i for i, name in enumerate(head) if name not in {"twin", "bar", ""}]
    return markdown_table([head[i] for i in kept], [[row[i] for i in kept] for row in rows])


def without_twin(figure: str) -> str:
    """Leave the twin's figure out of a sentence."""
    return re.sub(r"\(twin [^(),]*, ", "(", re.sub(r" \(twin [^(),]*\)", "", figure))


def write_section(path: Path, name: str, text: str) -> None:
    """
    Put *text* into a page, between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.

    A page without these marks gets them at its end; one that does not exist is created.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    page = path.read_text("utf-8") if path.exists() else ""
    if begin not in page or end not in page:
        page = f"{page.rstrip()}\n\n{begin}\n{end}\n".lstrip()
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", "utf-8")


def write_json(path: Path, content: object) -> None:
    """Write figures for other programs."""
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
