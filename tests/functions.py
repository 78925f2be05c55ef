"""Small functions for worker processes, in a module that imports little, so that workers are ready soon."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import amorsize

K = 1
WEIGHTS = {"a": 1, "b": [2, 3]}
SEEN: list[int] = []


def in_caller(parent: int) -> bool:
    """Tell whether this is the calling process; lets workers have their share there by waiting a moment."""
    if os.getpid() != parent:
        return False
    time.sleep(1e-3)
    return True


@amorsize.parallel
def square(x: Any) -> Any:
    """Return the square of *x*."""
    return x * x


@amorsize.parallel
def double(x: Any) -> Any:
    """Return twice *x*, whatever it is."""
    return x * 2


@amorsize.parallel
def combine(x: Any, y: Any = 0, *, scale: Any = 1) -> Any:
    """Return the sum of both, scaled."""
    return (x + y) * scale


@amorsize.parallel
def logged(x: int, *, path: str) -> int:
    """Append one line to a file, in one write, and return the negative."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{x} {os.getpid()} {threading.get_ident()}\n".encode())
    os.close(handle)
    time.sleep(1e-3)
    return -x


@amorsize.parallel
def where(x: int) -> int:
    """Return the process id."""
    time.sleep(1e-3)
    return os.getpid()


@amorsize.parallel
def slow(x: int) -> int:
    """Return *x* after two milliseconds."""
    time.sleep(2e-3)
    return x


@amorsize.parallel
def invert(x: float) -> float:
    """Divide one by *x*."""
    return 1 / x


class OddError(Exception):
    """An exception with two arguments of which the base class knows one, so that pickling it fails."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class CountedError(Exception):
    """An exception with an attribute beside its arguments."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.answer = 0


@amorsize.parallel
def naps(seconds: float) -> float:
    """Wait so long."""
    time.sleep(seconds)
    return seconds


def deep(x: int) -> None:
    """Raise from two frames down."""
    error = CountedError(f"bad {x}")
    error.answer = x
    raise error


@amorsize.parallel
def fails_from(x: int, *, first: int, parent: int = 0) -> int:
    """Fail for *first* and all above, the later the sooner."""
    in_caller(parent)
    if x >= first:
        time.sleep(0.03 if x == first else 0.0)
        deep(x)
    time.sleep(2e-4)
    return x


@amorsize.parallel
def fails_in_worker(x: int, *, parent: int, kind: str) -> Any:
    """Do something awful, in workers only."""
    if in_caller(parent):
        return x
    if kind == "odd":
        raise OddError(7, "odd one")
    if kind == "result":
        return threading.Lock()
    if kind == "exit":
        raise SystemExit(3)
    if kind == "stop":
        raise StopIteration("stop here")
    if kind == "die":
        os._exit(7)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@amorsize.parallel
def dies_at(x: int, *, at: int, parent: int = 0, marker: str = "") -> int:
    """Kill the worker that has item *at*; with a marker file, only the first time."""
    in_caller(parent)
    if x == at and os.getpid() != parent:
        if not marker:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return x
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(2e-4)
    return x


def die_unless_first(folder: Path) -> None:
    """Make a file for each worker that starts, and kill all but the first."""
    for i in itertools.count():
        try:
            (folder / str(i)).touch(exist_ok=False)
        except FileExistsError:
            continue
        if i:
            os.kill(os.getpid(), signal.SIGKILL)
        return


@amorsize.parallel
def waits_for_files(_: int, *, folder: Path, n: int) -> int:
    """Return the process id once there are so many files."""
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < n and time.monotonic() < deadline:
        time.sleep(1e-3)
    return os.getpid()


@amorsize.parallel
def meets_after_a_death(x: int, *, folder: Path) -> int:
    """Kill the worker of item 20, once; from then on wait for an item of another worker, 0.1 s in each item."""
    died, met, here = folder / "died", folder / "met", folder / f"at{os.getpid()}"
    if x == 20 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if died.exists() and not met.exists():
        here.touch()
        deadline = time.monotonic() + 0.1
        while time.monotonic() < deadline and not met.exists():
            if any(_is_alive(int(path.name[2:])) for path in folder.glob("at*") if path != here):
                met.touch()
            time.sleep(1e-3)
        here.unlink()
    time.sleep(1e-3)
    return x


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@amorsize.parallel
def hangs_at(x: int, *, at: int) -> int:
    """Never return from item *at*."""
    while x == at:
        time.sleep(0.05)
    return x


@amorsize.parallel
def stops_at(x: int, *, at: int) -> int:
    """Raise StopIteration at an item."""
    if x == at:
        raise StopIteration(x)
    return x


@amorsize.parallel
def exits_at(x: int, *, at: int) -> int:
    """Raise SystemExit at an item."""
    if x == at:
        raise SystemExit(x)
    return x


@amorsize.parallel
def nested(x: int) -> tuple[int, str, list[int]]:
    """Map inside a map; returns the process, the inner reason and the inner results."""
    time.sleep(1e-3)
    results = square.with_options(n_jobs=2).map(range(x))
    assert square.last_plan is not None
    return os.getpid(), str(square.last_plan.reason), results


@amorsize.parallel
def times_k(x: int) -> tuple[int, int]:
    """Multiply by a global of this module; returns the process too."""
    time.sleep(1e-3)
    return os.getpid(), x * K


def weight_of(name: str) -> Any:
    """Look a global of this module up."""
    return WEIGHTS[name]


@amorsize.parallel
def weighs(name: str) -> tuple[int, Any]:
    """Use a global through a helper."""
    time.sleep(1e-3)
    return os.getpid(), weight_of(name)


@amorsize.parallel
def collects(x: int) -> int:
    """Change a global of this module."""
    SEEN.append(x)
    time.sleep(1e-3)
    return len(SEEN)


@amorsize.parallel
def fills(array: Any) -> float:
    """Change the array it is given and return its sum."""
    time.sleep(1e-3)
    array += 1
    array[0] = 7
    return float(array.sum())


@amorsize.parallel
def adds_in_place(left: Any, right: Any, *, out: Any) -> Any:
    """Change a keyword argument that is an array."""
    time.sleep(1e-3)
    out[:] = left + right
    return float(out.sum())


@amorsize.parallel
def draws(x: int) -> float:
    """Draw from NumPy's global generator."""
    import numpy as np  # noqa: PLC0415 - only this function needs it

    time.sleep(1e-3)
    return float(np.random.random())  # noqa: NPY002 - the global generator is the subject


class Counter:
    """Methods of every kind."""

    factor = 3

    def __init__(self, base: int) -> None:
        self.base = base

    @amorsize.parallel
    def add(self, x: int) -> int:
        """Add the base."""
        return self.base + x

    @amorsize.parallel
    @classmethod
    def scaled(cls, x: int) -> int:
        """Multiply by the factor of the class."""
        return cls.factor * x

    @amorsize.parallel
    @staticmethod
    def negated(x: int) -> int:
        """Return the negative."""
        return -x


class Doubled(Counter):
    """A class with another factor."""

    factor = 6


def cannot_open(x: int) -> Any:
    """Be what makes an :class:`Unopenable` again."""
    message = f"cannot open {x}"
    raise ValueError(message)


class Unopenable:
    """Pickles, and does not unpickle."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __reduce__(self) -> Any:
        return cannot_open, (self.x,)
