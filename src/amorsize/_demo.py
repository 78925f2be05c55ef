"""
The job of ``python -m amorsize demo``: real work on files that every machine with Python has.

In a module of its own, since workers that are not forked import it.
"""

from __future__ import annotations

import ast
import random
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

import amorsize

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._types import Plan

# Folders beneath the standard library that are not part of it, or hold files that are wrong on purpose.
_OTHERS = frozenset({"__pycache__", "dist-packages", "idle_test", "lib2to3", "site-packages", "test", "tests"})


@amorsize.parallel
def count_nodes(path: str) -> int:
    """Return the number of nodes in the syntax tree of a Python file."""
    return sum(1 for _ in ast.walk(ast.parse(Path(path).read_bytes())))


def modules() -> list[str]:
    """
    Return the paths of the modules of the running Python's standard library, in an order that never changes.

    Shuffled: by name, the first ones are tiny (``__future__``, ``__hello__``) and say little about the rest.
    """
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(str(path) for path in root.rglob("*.py") if _OTHERS.isdisjoint(path.relative_to(root).parts))
    random.Random(1).shuffle(paths)  # noqa: S311 - not for secrets
    return paths


def run(say: Callable[[str], object]) -> tuple[bool, Plan | None]:
    """
    Parse the standard library with a plain loop and with ``map``, and compare.

    Args:
        say: Gets each line as it becomes known.

    Returns:
        Whether both gave the same, and the plan of the map.

    Raises:
        FileNotFoundError: If this Python came without the source of its library.
    """
    paths = modules()
    if not paths:
        raise FileNotFoundError(f"no Python files in {sysconfig.get_path('stdlib')}, where this Python's library is")
    # Reading each file once here keeps the disk out of the comparison.
    n_bytes = sum(len(Path(path).read_bytes()) for path in paths)
    say(f"Parsing the {len(paths):,} modules of Python's standard library ({n_bytes / 1e6:.1f} MB)")
    say("and counting the nodes of each syntax tree.")
    say("")
    parse = count_nodes.__wrapped__
    begin = time.perf_counter()
    expected = [parse(path) for path in paths]
    loop_s = time.perf_counter() - begin
    say(f"  plain loop            {loop_s:8.3f} s")
    begin = time.perf_counter()
    results = count_nodes.map(paths)
    map_s = time.perf_counter() - begin
    say(f"  count_nodes.map(...)  {map_s:8.3f} s   {loop_s / map_s:.2f} times as fast")
    is_same = results == expected
    say(f"  same results: {'yes' if is_same else 'NO'}, {sum(results):,} nodes")
    return is_same, count_nodes.last_plan
