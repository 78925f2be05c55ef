"""What is mapped while faults are made: imports little, since workers import it."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import amorsize


class PlannedError(Exception):
    """Raised by an item that was told to."""


def note(path: str, text: object) -> None:
    """Append one line to a file, in one write."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{text}\n".encode())
    os.close(handle)


def first_time(path: str, x: int) -> bool:
    """Tell whether this item gets here for the first time, whatever process it is in."""
    try:
        os.close(os.open(f"{path}.{x}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


@amorsize.parallel
def work(x: int, *, log: str, parent: int, sleep_s: float = 0.0, acts: dict[int, str] | None = None) -> Any:
    """Log the item, wait, do what it was told to, and return three times the item."""
    note(log, x)
    act = (acts or {}).get(x, "")
    if sleep_s:
        time.sleep(sleep_s * (0.5 + x % 7 / 6))
    if act == "raise":
        raise PlannedError(x)
    if act == "unpicklable":
        return threading.Lock()
    if os.getpid() != parent:
        if act == "once" and not first_time(log, x):
            return 3 * x
        if act in {"kill", "once"}:
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "exit":
            os._exit(3)
        while act == "hang":
            time.sleep(0.05)
    return 3 * x


@amorsize.parallel
def plain(x: int) -> int:
    """Take a millisecond."""
    time.sleep(1e-3)
    return 3 * x


@amorsize.parallel
def process_of(x: int) -> int:
    """Return the process, after a millisecond."""
    time.sleep(1e-3)
    return os.getpid()


@amorsize.parallel
def nests(x: int) -> list[int]:
    """Map in a map."""
    return plain.with_options(n_jobs=2).map(range(x % 4))


def maps_and_ends() -> None:
    """Be a process that leaves while loky's workers are still starting."""
    print(plain.with_options(n_jobs=2, start_method="loky").map(range(40)) == [3 * x for x in range(40)], flush=True)  # noqa: T201 - for the parent


@amorsize.parallel
def dies_at(x: int) -> int:
    """End the worker at item 20."""
    time.sleep(1e-3)
    if x == 20:
        os._exit(1)
    return x
