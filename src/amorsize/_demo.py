"""
The job of ``python -m amorsize demo``: real work on files that every machine with Python has.

In a module of its own, since workers that are not forked import it.
"""

from __future__ import annotations

import ast
import os
import random
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

import amorsize
from amorsize import _bounds as bounds
from amorsize._records import FORK

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._plans import Plan

# Folders beneath the standard library that are not part of it, or hold files that are wrong on purpose.
_OTHERS = frozenset({"__pycache__", "dist-packages", "idle_test", "lib2to3", "site-packages", "test", "tests"})


@amorsize.parallel
def count_nodes(paths: list[str]) -> int:
    """Return the number of nodes in the syntax trees of some Python files."""
    return sum(1 for path in paths for _ in ast.walk(ast.parse(Path(path).read_bytes())))


def parcels() -> list[list[str]]:
    """
    Return the paths of the modules of the running Python's standard library, in parcels of about equal size.

    Always the same, and mixed: by name, neighbours are alike, and the first ones tiny (``__future__``, ``__hello__``).
    """
    made: list[list[str]] = []
    room = 0
    for path in modules():
        if room <= 0:
            made.append([])
            room = bounds.DEMO_BYTES
        made[-1].append(path)
        room -= Path(path).stat().st_size
    return made


def modules() -> list[str]:
    """Return the paths of the modules of the running Python's standard library, in a mixed order that never changes."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(str(path) for path in root.rglob("*.py") if _OTHERS.isdisjoint(path.relative_to(root).parts))
    random.Random(1).shuffle(paths)  # noqa: S311 - not for secrets
    return paths


def run(say: Callable[[str], object]) -> tuple[bool, Plan | None]:
    """
    Parse the standard library with a plain loop and with ``map``; returns whether both gave the same, and the plan.

    *say* gets each line as it is known. Raises FileNotFoundError if this Python came without its library's source.
    """
    work = parcels()
    paths = [path for parcel in work for path in parcel]
    if not paths:
        raise FileNotFoundError(f"no Python files in {sysconfig.get_path('stdlib')}, where this Python's library is")
    # Reading each file once here keeps the disk out of the comparison.
    n_bytes = sum(len(Path(path).read_bytes()) for path in paths)
    say(f"Parsing the {len(paths):,} modules of Python's standard library ({n_bytes / 1e6:.1f} MB)")
    say(f"and counting the nodes of their syntax trees, in {len(work)} parcels.")
    say("")
    parse = count_nodes.__wrapped__
    begin = time.perf_counter()
    expected = [parse(parcel) for parcel in work]
    loop_s = time.perf_counter() - begin
    say(f"  plain loop            {loop_s:8.3f} s")
    begin, used_s = time.perf_counter(), _cpu_s()
    results = count_nodes.map(work)
    map_s, used_s = time.perf_counter() - begin, _cpu_s() - used_s
    say(f"  count_nodes.map(...)  {map_s:8.3f} s   {loop_s / map_s:.2f} times as fast")
    plan = count_nodes.last_plan
    if plan is not None and plan.backend == FORK and used_s < bounds.DEMO_BUSY * plan.n_jobs * map_s:
        say(f"  (other programs are running: the map had {used_s / map_s:.1f} of {plan.n_jobs} CPUs)")
    is_same = results == expected
    say(f"  same results: {'yes' if is_same else 'NO'}, {sum(results):,} nodes")
    return is_same, plan


def _cpu_s() -> float:
    """Return the CPU seconds of this process and of the workers that it has had."""
    return sum(os.times()[:4])
