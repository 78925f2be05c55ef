"""A program whose map is killed: ``python -m tests.kept FILE LOG KIND``."""

from __future__ import annotations

import os
import sys
import time

import amorsize

N_ITEMS = 300


def work(item: tuple[int, str]) -> int:
    """Square a number after 3 ms; write down that it has been begun."""
    n, log = item
    with open(log, "a") as file:  # noqa: PTH123 - opened often
        file.write(f"{n}\n")
    time.sleep(0.003)
    return n * n


def items() -> list[tuple[int, str]]:
    """Return the items: numbers, and the log of the first program that asks, so that they stay the same."""
    return [(n, os.environ["KEPT_LOG"]) for n in range(N_ITEMS)]


if __name__ == "__main__":
    options = {"loop": {"n_jobs": 1}, "fork": {"n_jobs": 2}, "loky": {"n_jobs": 2, "start_method": "loky"}}[sys.argv[2]]
    results = amorsize.map(work, items(), checkpoint=sys.argv[1], **options)  # type: ignore[arg-type]  # mypy: of a dict
    assert results == [n * n for n in range(N_ITEMS)]
    print("done")  # noqa: T201 - who starts it reads that
