"""
Child processes at arm's length: one contender on one workload each, answering timing requests.

Nothing a child does can hold up the benchmark: an answer that does not come within the limit ends
the child with all its workers and is reported as a failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import psutil

Answer = dict[str, Any]
Spec = Mapping[str, object]
Runs = list[tuple[int, int]]

CHILD = Path(__file__).with_name("child.py")

# Seconds to wait for one answer. The slowest sensible answer of the suite takes some 5 s
# on 2 cores.
LIMIT_S = 30.0


class ContenderFailedError(Exception):
    """A child raised, died, or gave no answer in time."""


class Station:
    """
    A fresh process in which one contender works on one workload.

    Its user cache directory is an empty one, so that nothing carries over from earlier processes.
    """

    def __init__(self, spec: Spec, *, limit_s: float = LIMIT_S) -> None:
        """
        Start the process and wait until its libraries are imported.

        Args:
            spec: `contender`, its `options`, and `workload` (a name) or `runs` (items for
                `spin`, as *(how many, loops each)*).
            limit_s: Seconds to wait for any one answer.
        """
        self._limit_s = limit_s
        self._is_late = False
        self._room = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
        self._log = Path(self._room.name, "log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                text=True,
                encoding="utf-8",
                env={**os.environ, "XDG_CACHE_HOME": self._room.name},
            )
        try:
            self._send(spec)
            self.receive()
        except ContenderFailedError:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Hand out the running child."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()

    def ask(self, what: str, argument: object = None) -> Answer:
        """Send a request and wait for its answer."""
        self.send(what, argument)
        return self.receive()

    def seconds(self, count: int = 1) -> list[float]:
        """Time *count* calls one after another; seconds each."""
        seconds: list[float] = self.ask("calls", count)["seconds"]
        return seconds

    def send(self, what: str, argument: object = None) -> None:
        """Send a request without waiting."""
        self._send({"do": what, "with": argument})

    def _send(self, message: object) -> None:
        """Write one line; a dead child is noticed by `receive`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(message), file=self._process.stdin, flush=True)

    def receive(self) -> Answer:
        """Wait for the answer to the request sent last."""
        assert self._process.stdout is not None
        late = threading.Timer(self._limit_s, self._give_up)
        late.daemon = True
        late.start()
        try:
            line = self._process.stdout.readline()
        finally:
            late.cancel()
        if not line:
            raise ContenderFailedError(self._last_words())
        answer: Answer = json.loads(line)
        return answer

    def _last_words(self) -> str:
        """Say what went wrong, in the child's words where it left any."""
        if self._is_late:
            return f"no answer within {self._limit_s:.0f} s"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return f"exit code {self._process.returncode}: {lines[-1] if lines else 'not a word'}"

    def _give_up(self) -> None:
        """End a child that is late."""
        self._is_late = True
        self._kill()

    def _kill(self) -> None:
        """End the child and every process it started."""
        family = []
        if self._process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                family = psutil.Process(self._process.pid).children(recursive=True)
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self._process.kill()

    def close(self) -> None:
        """Let the child end its workers, kill what is left after 3 s, and tidy up."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(3)
        self._kill()
        self._process.wait()
        self._process.stdout.close()
        self._room.cleanup()


@contextmanager
def stations(specs: Mapping[str, Spec], runs: Runs, *, limit_s: float = LIMIT_S) -> Iterator[dict[str, Station]]:
    """Open a station per name, all of them with the same items for `spin`."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Station({**spec, "runs": runs}, limit_s=limit_s)) for name, spec in specs.items()
        }


def shuffled(names: Sequence[str]) -> list[str]:
    """Put names in random order."""
    return random.sample(list(names), len(names))


def interleave(
    seats: Mapping[str, Station], *, rounds: int, calls: int = 1, warm_up: int = 3
) -> dict[str, list[float]]:
    """
    Time warm calls of several stations in turns, in a new order each round.

    Args:
        seats: Who takes part.
        rounds: Times that everybody has a turn.
        calls: Calls per turn, of which the median counts.
        warm_up: Calls of each beforehand that do not count.

    Returns:
        Seconds per call, one per round, for each station.
    """
    for seat in seats.values():
        if warm_up:
            seat.seconds(warm_up)
    times: dict[str, list[float]] = {name: [] for name in seats}
    for _ in range(rounds):
        for name in shuffled(list(seats)):
            times[name].append(statistics.median(seats[name].seconds(calls)))
    return times


def first_calls(
    specs: Mapping[str, Spec],
    runs: Runs,
    *,
    rounds: int,
    ask: str = "calls",
    limit_s: float = LIMIT_S,
) -> dict[str, list[float]]:
    """Time first calls in fresh processes, in turns and in a new order each round; seconds."""
    times: dict[str, list[float]] = {name: [] for name in specs}
    for _ in range(rounds):
        for name in shuffled(list(specs)):
            with Station({**specs[name], "runs": runs}, limit_s=limit_s) as seat:
                times[name].append(seat.ask(ask, 1)["seconds"][0])
    return times
