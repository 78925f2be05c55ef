"""Functions for maps that are awaited, in a module that imports little."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square(x: int) -> int:
    """Return the square of *x*."""
    return x * x


def slow_square(x: int) -> int:
    """Return the square of *x* after a millisecond of work."""
    end = time.perf_counter() + 1e-3
    while time.perf_counter() < end:
        pass
    return x * x


def pid_after(seconds: float) -> int:
    """Sleep; return the process."""
    time.sleep(seconds)
    return os.getpid()


def await_file(path: str) -> str:
    """Return once a file exists; within bounds."""
    deadline = time.monotonic() + 60
    while not os.path.exists(path):  # noqa: PTH110 - asked often
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.001)
    return path


def touch(path: str) -> str:
    """Make a file."""
    Path(path).touch()
    return path


def tick(path: str) -> None:
    """Make a file one byte longer, and take a moment."""
    with Path(path).open("ab") as file:
        file.write(b".")
    time.sleep(0.002)


def fail_at_seven(x: int) -> int:
    """Return *x*, unless it is seven."""
    if x == 7:
        raise ValueError("seven")
    return x


def die_at_five(x: int) -> int:
    """Kill the process at five."""
    if x == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return x
