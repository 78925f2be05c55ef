"""What stands on two pages is the same on both, and what a script draws is what it would draw today."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"


def section(page: Path, name: str) -> str:
    """Return what lies between a page's marks of that name."""
    found = re.search(rf"<!-- {name}:begin -->(.*?)<!-- {name}:end -->", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"{page.name} has no section {name}"
    return found[1].strip()


def test_the_table_of_ratios_is_the_same_in_the_readme_and_in_performance() -> None:
    """Whoever measures anew changes both."""
    table = section(ROOT / "README.md", "ratios")
    assert table.startswith("| |")
    assert section(ROOT / "docs" / "performance.md", "ratios") == table


def test_the_ratios_of_scripts_and_threads_are_those_that_were_measured() -> None:
    """The summary of the benchmark has them; the row for notebooks has a benchmark of its own."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in section(ROOT / "docs" / "performance.md", "suite").splitlines()
        if line.startswith("| amorsize")
    ]
    measured = {(row[0], row[1]): (row[2], row[5]) for row in rows}
    table = section(ROOT / "README.md", "ratios").replace("*", "")
    for entry, words in {"amorsize": "amorsize in a script", 'amorsize, prefer="threads"': "amorsize with"}.items():
        (row,) = [line for line in table.splitlines() if words in line]
        figures = [f"{mean} ({worst})" for mean, worst in (measured[entry, "first"], measured[entry, "later"])]
        assert [cell.strip() for cell in row.strip("| ").split("|")][1:] == figures


def test_the_ratios_of_notebooks_are_those_that_were_measured() -> None:
    """Their row sums up the tables of that section, by hand or as the benchmark writes them: with a summary."""
    lines = section(ROOT / "docs" / "performance.md", "threads").splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("| ")]
    (summary,) = [line for line in section(ROOT / "README.md", "ratios").splitlines() if "in a notebook" in line]
    for cell, calls in zip(summary.strip("| ").split("|")[1:], ("first", "later"), strict=True):
        found = [row for row in rows if row[1] == calls]
        if found[0][0] == "amorsize":
            expected = f"{found[0][2]} ({found[0][5]})"
        else:
            ratios = [float(row[4]) for row in found]
            expected = f"{statistics.geometric_mean(ratios):.2f} ({max(ratios):.2f})"
        assert cell.strip() == expected


def among_themselves(calls: str) -> dict[str, tuple[float, float]]:
    """Return the geometric mean and the worst of each process pool's ratios, and of the loop's, to the best of them."""
    page = section(ROOT / "docs" / "performance.md", "suite")
    lines = page.partition(f"### The others among themselves, {calls}")[2].strip().partition("\n\n")[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines]
    ratios: dict[str, list[float]] = {}
    for row in rows:
        figures = {
            name: float(cell)
            for name, cell in zip(head[2:], row[2:], strict=True)
            if cell and "thread" not in name.lower()
        }
        for name, figure in figures.items():
            ratios.setdefault(name, []).append(figure / min(figures.values()))
    return {name: (statistics.geometric_mean(found), max(found)) for name, found in ratios.items()}


def test_the_ratios_of_the_others_are_those_that_were_measured() -> None:
    """They follow from the tables of the others among themselves."""
    table = section(ROOT / "README.md", "ratios").replace("`", "")
    first, later = among_themselves("first calls"), among_themselves("later calls")
    named = {"loop": "the plain loop", "multiprocessing.Pool": "| multiprocessing", "joblib": "| joblib"}
    for entry, words in named.items():
        (row,) = [line for line in table.splitlines() if words in line]
        for cell, (mean, worst) in zip(row.strip("| ").split("|")[1:], (first[entry], later[entry]), strict=True):
            shown_mean, shown_worst = re.findall(r"[\d.]+", cell)
            assert float(shown_mean) == pytest.approx(mean, abs=0.006)
            assert float(shown_worst) == pytest.approx(worst, rel=0.02)


@pytest.mark.parametrize(
    ("picture", "code"),
    [
        ("grain.svg", "import json, grain; print(grain.drawn(json.loads(grain.FIGURES.read_text('utf-8'))), end='')"),
        ("negative-scaling.svg", "import scaling; print(scaling.drawn(scaling.PAGE.read_text('utf-8')), end='')"),
    ],
)
def test_a_picture_shows_the_figures(picture: str, code: str) -> None:
    """It is the one that its script draws from the measured figures; `nox -s bench -- scaling` draws one anew."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "benchmarks"), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, check=True, timeout=60, encoding="utf-8"
    )
    assert done.stdout == (IMAGES / picture).read_text(encoding="utf-8")


def test_the_picture_hides_no_loss() -> None:
    """Each entry that was measured is drawn, at each grain, whatever came out."""
    figures = json.loads((IMAGES / "grain.json").read_text(encoding="utf-8"))
    picture = (IMAGES / "grain.svg").read_text(encoding="utf-8")
    lines = re.findall(r'<polyline class="line \w+" points="([^"]*)"', picture)
    n_drawn = len(figures["points"][0]["ratios"]) - 1  # the loop is the line at 1
    assert [len(line.split()) for line in lines] == [len(figures["points"])] * n_drawn


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_example_prints_what_the_page_shows(page: str) -> None:
    """The result to the last digit, the plan up to what the machine decides."""
    text = (ROOT / page).read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    shown = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    assert code
    assert shown
    command = [sys.executable, "-W", "ignore", "-c", code[1]]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60, encoding="utf-8", cwd=ROOT)
    printed = done.stdout.splitlines()
    assert len(printed) == len(shown[1].splitlines())
    for ours, theirs in zip(printed, shown[1].splitlines(), strict=True):
        assert ours[:18] == theirs[:18]  # "pi is about 3.1416", "<Plan: 500 items, "


@pytest.mark.parametrize("page", ["contributing.md", "explanation/decisions.md", "explanation/requirements.md"])
def test_files_that_pages_for_developers_name_exist(page: str) -> None:
    """A file that moves takes its name in the pages along."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:src|tests|docs)/[\w/.]*)`", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_what_the_requirements_name_exists() -> None:
    """Tests stand in the files that are named, and code in the modules."""
    text = (ROOT / "docs" / "explanation" / "requirements.md").read_text(encoding="utf-8")
    wrong = []
    for part in re.split(r";|\n", text):
        file = "test_decide.py"  # where no file is named
        for name in re.findall(r"`(test_\w+(?:\.py)?)`", part):
            if name.endswith(".py"):
                file = name
            elif f"def {name}(" not in (ROOT / "tests" / file).read_text(encoding="utf-8"):
                wrong.append(f"{file}: {name}")
    for place in re.findall(r"`(_\w+\.[\w.]+)`", text):
        folder, (module, *names) = ROOT / "src" / "amorsize", place.split(".")
        while (folder / module).is_dir():
            folder, (module, *names) = folder / module, names
        code = (folder / f"{module}.py").read_text(encoding="utf-8")
        if not re.search(rf"\b{names[-1]}\b", code):
            wrong.append(place)
    assert wrong == []
