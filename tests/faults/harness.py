"""What the fault tests share: looking for what is left behind, killing workers from outside, seeded scenarios."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

import amorsize
from amorsize._backend import _blockers
from amorsize._known import CACHE
from amorsize.exceptions import AmorsizeError, ItemTimeout, UnpicklableResult, WorkerDied
from tests.faults import functions
from tests.faults.functions import PlannedError, work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORK: Final[dict[str, Any]] = {"n_jobs": 3, "start_method": "fork"}
SERVER: Final[dict[str, Any]] = {"n_jobs": 3, "start_method": "forkserver"}
LOKY: Final[dict[str, Any]] = {"n_jobs": 2, "start_method": "loky"}
THREADS: Final[dict[str, Any]] = {"n_jobs": 3, "prefer": "threads"}
WAYS: Final = {"fork": FORK, "forkserver": SERVER, "loky": LOKY, "threads": THREADS, "open": {}}

ROOT: Final = Path(__file__).resolve().parents[2]


def end_threads() -> None:
    """End idle workers, and wait for threads that would forbid a fork."""
    gc.collect()  # a stream that an earlier test has left in a circle of objects keeps its workers until then
    amorsize.shutdown()
    _blockers.end_monitors()  # a bar's, which never ends by itself
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(20)


# -- what is left behind ---------------------------------------------------------------------------------------------


def is_tracker(process: psutil.Process) -> bool:
    """Tell whether a process is the resource tracker that loky keeps for the life of a program."""
    with contextlib.suppress(psutil.Error):
        return any("resource_tracker" in part for part in process.cmdline())
    return True


@dataclass(frozen=True)
class Left:
    """What a process holds: child processes, threads of ours, descriptors, files of ours."""

    children: frozenset[int]
    threads: frozenset[str]
    descriptors: int
    files: frozenset[str]


def look(but: frozenset[int] = frozenset()) -> Left:
    """Look at what this process holds now; children in *but* are somebody else's."""
    children = {c.pid for c in psutil.Process().children() if c.pid not in but and not is_tracker(c)}
    names = {t.name for t in threading.enumerate() if t.name.startswith("amorsize")}
    descriptors = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    folders = (Path(tempfile.gettempdir()), Path("/dev/shm"))  # noqa: S108 - looked at, not written to
    files = {str(p) for folder in folders if folder.is_dir() for p in folder.glob("*amorsize-*")}
    return Left(frozenset(children), frozenset(names), descriptors, frozenset(files))


def leaks(before: Left, but: frozenset[int] = frozenset(), patience_s: float = 5.0) -> str:
    """Say what is there that was not; empty if nothing is. Threads and workers that are ending get a moment."""
    deadline = time.monotonic() + patience_s
    while True:
        now = look(but)
        found = [
            f"{name}: {sorted(extra)}"
            for name in ("children", "threads", "files")
            if (extra := getattr(now, name) - getattr(before, name))
        ]
        if now.descriptors > before.descriptors:
            found.append(f"descriptors: {before.descriptors} before, {now.descriptors} now")
        if not found or time.monotonic() > deadline:
            return "; ".join(found)
        time.sleep(0.02)


# -- the killer ------------------------------------------------------------------------------------------------------

_KILLER = """
import os, random, signal, sys, time
parent = os.getppid()
def workers():
    found = []
    for task in os.listdir(f"/proc/{parent}/task"):
        try:
            with open(f"/proc/{parent}/task/{task}/children") as file:
                pids = file.read().split()
        except OSError:
            continue
        for pid in pids:
            try:
                with open(f"/proc/{pid}/cmdline") as file:
                    line = file.read()
            except OSError:
                continue
            if int(pid) != os.getpid() and "resource_tracker" not in line:
                found.append(int(pid))
    return found
for line in sys.stdin:
    seed, delay = line.split()
    pick = random.Random(int(seed))
    time.sleep(float(delay))
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        found = workers()
        if found:
            os.kill(pick.choice(found), signal.SIGKILL)
            break
        time.sleep(0.002)
    print(time.monotonic() if found else 0.0, flush=True)
"""


class Killer:
    """A process beside this one that kills a worker of this one when told to. Linux only."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _KILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def after(self, delay_s: float, seed: int) -> None:
        """Kill a worker in *delay_s* seconds; waits half a second more for there to be one."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seed} {delay_s}\n")
        self._process.stdin.flush()

    def killed_at(self) -> float:
        """Return when it did, in seconds of the monotonic clock; 0 if there was nobody to kill."""
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def killer() -> Iterator[Killer]:
    """Have a killer."""
    made = Killer()
    try:
        yield made
    finally:
        made.close()


# -- scenarios -------------------------------------------------------------------------------------------------------

FAULTS: Final = ("none", "none", "raise", "kill", "exit", "once", "unpicklable", "hang", "outside")


@dataclass
class Scenario:
    """One map with its fault, all of it from a seed."""

    seed: int
    folder: Path
    way: str = ""
    fault: str = ""
    errors: str = "raise"
    retries: int = 0
    timeout: float | None = None
    n: int = 0
    sleep_s: float = 0.0
    is_iterator: bool = False
    is_stream: bool = False
    is_cold: bool = False
    is_ordered: bool = True
    buffersize: int | None = None
    read_s: float = 0.0
    n_taken: int | None = None
    acts: dict[int, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pick = random.Random(self.seed)
        self.way = self.way or pick.choice(("fork", "forkserver", "loky", "threads", "open"))
        self.fault = self.fault or pick.choice(FAULTS)
        self.errors = pick.choice(("raise", "return", "skip"))
        self.retries = pick.choice((0, 0, 1, 2))
        self.n = pick.choice((1, 2, 3, 10, 50, 200))
        self.sleep_s = pick.choice((0.0, 1e-4, 1e-3, 3e-3))
        self.is_iterator = pick.random() < 0.25
        self.is_stream = pick.random() < 0.2
        if self.way in {"threads", "open"} and self.fault in {"kill", "exit", "once", "hang", "outside"}:
            self.fault = "raise"
        if self.way == "threads":
            self.retries = 0
        if self.fault == "once":
            self.retries = max(1, self.retries)
        if self.fault == "hang":
            self.timeout = 0.3
        if self.fault == "outside":
            self.n, self.sleep_s = 200, 3e-3
        if self.fault not in {"none", "outside"}:
            # Two that kill may be in flight together, and then one of them has had its second try with the other.
            n_acts = 1 if self.fault == "once" else pick.choice((1, 1, 2))
            self.acts = {pick.randrange(self.n): self.fault for _ in range(n_acts)}
        # Drawn last, so that a seed means what it meant before there were these.
        self.is_cold = pick.random() < 0.3
        self.buffersize = pick.choice((None, None, 1, 3, 50))
        self.read_s = pick.choice((0.0, 0.0, 1e-3, 4e-3)) if self.is_iterator and self.n <= 50 else 0.0
        if self.is_stream and self.fault == "none":
            self.is_ordered = pick.random() < 0.7
            self.n_taken = pick.choice((None, None, self.n // 2))
        self.options = WAYS[self.way] | {"errors": self.errors, "retries": self.retries, "timeout": self.timeout}

    @property
    def log(self) -> Path:
        """The file in which each execution of an item is a line."""
        return self.folder / f"log{self.seed}"

    def run(self, kills: Killer | None = None) -> Any:
        """Run the map; returns its results or what it raised."""
        function = work.with_options(**self.options)
        kwargs = {"log": str(self.log), "parent": os.getpid(), "sleep_s": self.sleep_s, "acts": self.acts}
        data: Any = self._produce() if self.is_iterator else range(self.n)
        if self.is_cold:
            CACHE.clear()
        if kills is not None:
            kills.after(random.Random(self.seed).uniform(0.0, 0.15), self.seed)
        try:
            if self.is_stream:
                stream = function.imap(data, kwargs=kwargs, ordered=self.is_ordered, buffersize=self.buffersize)
                with stream:
                    results = list(itertools.islice(stream, self.n_taken))
                return results if self.is_ordered else sorted(results)
            return function.map(data, kwargs=kwargs)
        except (AmorsizeError, PlannedError) as error:
            return error
        finally:
            if kills is not None:
                kills.killed_at()

    def _produce(self) -> Iterator[int]:
        """Yield the items, each after its time."""
        for x in range(self.n):
            if self.read_s:
                time.sleep(self.read_s)
            yield x

    def executions(self) -> Counter[int]:
        """Return how often each item has been executed."""
        if not self.log.exists():
            return Counter()
        return Counter(int(line) for line in self.log.read_text().split())

    def wrong(self, answer: Any) -> str:
        """Say what is wrong with an answer; empty if nothing is."""
        counts = self.executions()
        if counts and max(counts.values()) > 1 + self.retries:
            return f"executed too often: {counts.most_common(3)}"
        if self.n_taken is not None:
            return self._wrong_part(answer)
        problem = self._wrong_error(answer) if isinstance(answer, BaseException) else self._wrong_list(answer)
        if problem or isinstance(answer, BaseException) or self.fault not in {"none", "raise"}:
            return problem
        if counts != Counter(range(self.n)):
            return f"not exactly once: {counts}"
        return ""

    def _wrong_part(self, answer: Any) -> str:
        good = [3 * x for x in range(self.n)]
        is_good = answer == good[: self.n_taken] if self.is_ordered else set(answer) <= set(good)
        return "" if is_good and len(answer) == self.n_taken else f"took {self.n_taken}, got {answer!r}"

    def _wrong_error(self, error: BaseException) -> str:
        planned = min(self.acts, default=-1)
        kinds: dict[str, tuple[type[BaseException], ...]] = {
            "raise": (PlannedError,),
            "kill": (WorkerDied,),
            "exit": (WorkerDied,),
            "once": (),
            "outside": (WorkerDied,),
            "unpicklable": (UnpicklableResult,),
            "hang": (ItemTimeout,),
            "none": (),
        }
        if self.errors != "raise" or not isinstance(error, kinds[self.fault]):
            return f"unexpected {error!r}"
        if isinstance(error, PlannedError) and error.args != (planned,):
            return f"not the lowest item: {error!r} instead of {planned}"
        if isinstance(error, WorkerDied):
            bad = {i: r for i, r in error.results.items() if r != 3 * i and i not in self.acts}
            if bad:
                return f"wrong finished results: {bad}"
            if self.fault in {"kill", "exit"} and not set(self.acts) & set(error.in_flight):
                return f"names {error.in_flight}, not one of {sorted(self.acts)}"
        return ""

    def _wrong_list(self, answer: list[Any]) -> str:
        good = [3 * x for x in range(self.n)]
        if self.errors == "skip":
            takes_along = self.fault in {"kill", "exit", "outside"} and not self.retries
            allowed = set(range(self.n)) if takes_along else set(self.acts)
            missing = [g for g in good if g not in answer and g // 3 not in allowed]
            lock = functions.threading.Lock
            odd = [a for a in answer if a not in good and not isinstance(a, type(lock()))]
            in_order = [a for a in answer if isinstance(a, int)]
            if missing or odd or in_order != sorted(in_order):
                return f"missing {missing[:5]}, odd {odd[:5]}"
            return ""
        if len(answer) != self.n:
            return f"{len(answer)} results instead of {self.n}"
        for x, (got, expected) in enumerate(zip(answer, good, strict=True)):
            if got == expected and not (self.fault == "raise" and x in self.acts):
                continue
            if self.fault == "unpicklable" and x in self.acts and not isinstance(got, BaseException):
                continue
            may_fail = x in self.acts and self.fault != "once"
            if self.fault in {"kill", "exit", "outside"} and not self.retries:
                may_fail = True
            if self.errors != "return" or not may_fail or not isinstance(got, BaseException):
                return f"item {x} gave {got!r}"
        return ""


def run_code(lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, for at most a minute."""
    return subprocess.run(
        [sys.executable, "-c", lines],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)} | environment,
    )


def wait_until(holds: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Wait for something that happens by itself."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
