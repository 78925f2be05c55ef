"""Seeded rounds of several runs at once: streams open beside one another, maps in threads, and what disturbs them."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import amorsize
from amorsize.exceptions import WorkerDied
from tests.faults.functions import dies_at, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

# Seconds that a map in a thread may take at most: each has half a second of work.
PATIENCE_S: Final = 60.0

METHODS: Final[list[dict[str, Any]]] = [{"start_method": "fork"}, {"start_method": "loky"}, {"prefer": "threads"}, {}]


class Round:
    """
    What one seed makes of it. Every run of :func:`plain` must end with the loop's results, whatever is beside it.

    Attributes:
        problems: What was wrong.
        n_runs: How many runs there were.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.problems: list[str] = []
        self.n_runs = 0
        # Where a worker may die on purpose, loky ends the others too, and only runs that try again go on.
        self.is_deadly = self.rng.random() < 0.3

    def __repr__(self) -> str:
        return f"Round({self.seed})"

    def run(self) -> list[str]:
        """Have the round; returns what was wrong."""
        rng = self.rng
        with ThreadPoolExecutor(8) as pool:
            maps = [(n := self._length(), pool.submit(self._any().map, range(n))) for _ in range(rng.randrange(4))]
            streams = [self._stream() for _ in range(rng.randrange(1, 4))]
            deaths: list[Future[Any]] = []
            while streams:
                stream, n_items, expected = rng.choice(streams)
                for _ in range(rng.randrange(1, 30)):
                    found = next(stream, None)
                    if found is None:
                        self._check("stream", expected[0], n_items)
                        streams = [s for s in streams if s[0] is not stream]
                        break
                    self._check("result", found, 3 * expected[0])
                    expected[0] += 1
                else:
                    if rng.random() < 0.05:
                        stream.close()  # type: ignore[attr-defined]  # a generator
                        streams = [s for s in streams if s[0] is not stream]
                self._disturb(pool, deaths)
            for n, future in maps:
                self._check("map", future.result(PATIENCE_S), [3 * x for x in range(n)])
            for future in deaths:
                self._check("death", type(future.exception(PATIENCE_S)), WorkerDied)
        return self.problems

    def _any(self) -> Any:
        """Return the function with a random way to run it."""
        retries = {"retries": 20} if self.is_deadly else {}
        self.n_runs += 1
        return plain.with_options(n_jobs=self.rng.randrange(1, 4), **self.rng.choice(METHODS), **retries)

    def _length(self) -> int:
        return self.rng.choice([0, 1, 7, 60, 200, 400])

    def _stream(self) -> tuple[Iterator[int], int, list[int]]:
        """Return an open stream, its length, and a place for how much of it has been read."""
        n_items = self._length()
        return iter(self._any().imap(range(n_items))), n_items, [0]

    def _disturb(self, pool: ThreadPoolExecutor, deaths: list[Future[Any]]) -> None:
        kind = self.rng.randrange(12)
        if kind == 0:
            amorsize.shutdown()
        elif kind == 1:
            n = self._length()
            self._check("map between", self._any().map(range(n)), [3 * x for x in range(n)])
        elif kind == 2 and sys.platform == "linux":
            self._copy()
        elif kind == 3 and self.is_deadly and len(deaths) < 2:
            self.n_runs += 1
            func = dies_at.with_options(n_jobs=2, start_method="loky", timeout=PATIENCE_S)
            deaths.append(pool.submit(func.map, range(40)))
        elif kind == 4:
            self._interrupt()

    def _interrupt(self) -> None:
        """Have a map that is interrupted, as by Ctrl-C."""

        def progress(*_: object) -> None:
            raise KeyboardInterrupt

        try:
            self._any().with_options(progress=progress).map(range(60))
        except KeyboardInterrupt:
            return
        self.problems.append("an interrupt was swallowed")

    def _copy(self) -> None:
        """Fork the program; the copy drops what it has and ends."""
        pid = os.fork()
        if pid == 0:
            try:
                amorsize.shutdown()
            finally:
                os._exit(0)
        deadline = time.monotonic() + PATIENCE_S
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                self.problems.append("a forked copy of the program did not end")
            time.sleep(1e-3)

    def _check(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.problems.append(f"{what}: {str(found)[:200]} instead of {str(expected)[:200]}")
