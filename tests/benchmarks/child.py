"""
One contender at work on one workload, in this process alone: the far end of a `station.Station`.

Reads one JSON object a line from standard input, answers each with one on standard output. The
first line says who works on what; see `Seat` for the requests that follow.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, TextIO

import contenders
import workloads

# How many threads that only wait each contender's process has.
IDLE_THREADS_VARIABLE = "BENCH_IDLE_THREADS"

PLAN_FIELDS = ("backend", "n_jobs", "batch_size", "reason", "predicted_s", "actual_s")


class Seat:
    """A contender with a workload in front of it; each public method answers one request."""

    def __init__(self, spec: dict[str, Any], stack: ExitStack) -> None:
        """Build the items once and import the libraries, so that neither is timed."""
        self._workload = find_workload(spec)
        self._contender = contenders.CONTENDERS[str(spec["contender"])]
        self._options = spec.get("options") or {}
        self._stack = stack
        self._mapper: contenders.Mapper | None = None
        self._results: Sequence[object] = ()
        self._workload.make()
        self._contender.imports()

    def _open(self) -> contenders.Mapper:
        """Build the pool, once."""
        if self._mapper is None:
            context = self._contender.open(self._workload.func, **self._options)
            self._mapper = self._stack.enter_context(context)
        return self._mapper

    def calls(self, count: int) -> dict[str, object]:
        """Time calls one after another; the very first one builds the pool, too. Seconds each."""
        seconds, plans = [], []
        for _ in range(count):
            batches = items = None
            self._results = ()  # all of it freed before the clock starts
            batches = [self._workload.make() for _ in range(self._workload.n_calls)]
            start = time.perf_counter()
            mapper = self._open()
            for items in batches:
                self._results = mapper.call(items)
            seconds.append(time.perf_counter() - start)
            plans.append(plain(mapper.plan()))
        return {"seconds": seconds, "plans": plans}

    def check(self, _: object) -> dict[str, object]:
        """Compare the latest results with the loop's, one by one."""
        n_items = 0
        reference = self._workload.expect or self._workload.func
        for n_items, item in enumerate(self._workload.make(), 1):
            if n_items > len(self._results):
                break
            result = self._results[n_items - 1]
            if self._workload.checked and not is_equal(result, reference(item)):
                raise AssertionError(f"wrong result for item {n_items - 1}")
        if len(self._results) != n_items:
            raise AssertionError(f"{len(self._results)} results for {n_items} items")
        return {}

    def first_result(self, _: object) -> dict[str, object]:
        """Time a stream from the call to its first result, in seconds."""
        items = list(self._workload.make())
        start = time.perf_counter()
        stream = self._open().stream
        if stream is None:
            raise TypeError(f"{self._contender.title} cannot stream")
        results = stream(items)
        next(results)
        seconds = time.perf_counter() - start
        if hasattr(results, "close"):
            results.close()
        return {"seconds": [seconds]}


def find_workload(spec: dict[str, Any]) -> workloads.Workload:
    """Take a workload of the suite by name, or build one from *[how many, loops each]* pairs."""
    if "workload" in spec:
        return workloads.WORKLOADS[str(spec["workload"])]
    items = expand(spec["runs"])
    return workloads.Workload(func=workloads.spin, make=lambda: items, shape="made to order", expect=workloads.identity)


def expand(runs: Iterable[tuple[int, int]]) -> list[int]:
    """List items from their run lengths."""
    return [loops for count, loops in runs for _ in range(count)]


def is_equal(one: object, other: object) -> bool:
    """Compare results, arrays element by element."""
    equal = one == other
    return bool(equal.all()) if hasattr(equal, "all") else bool(equal)


def plain(plan: object) -> dict[str, object] | None:
    """Reduce a plan to what JSON can carry."""
    if plan is None:
        return None
    fields = {name: getattr(plan, name, None) for name in PLAN_FIELDS}
    return {k: v if v is None or isinstance(v, int | float) else str(v) for k, v in fields.items()}


def take_channels() -> tuple[TextIO, TextIO]:
    """Keep standard input and output for requests, out of the contender's reach."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, answers


def start_idle_threads() -> None:
    """Have other threads in the process, as a notebook's kernel, a web server or an async program has."""
    for _ in range(int(os.environ.get(IDLE_THREADS_VARIABLE, "0"))):
        threading.Thread(target=threading.Event().wait, daemon=True).start()


def main() -> None:
    """Answer requests until there are no more."""
    requests, answers = take_channels()
    start_idle_threads()
    with ExitStack() as stack:
        seat = Seat(json.loads(requests.readline()), stack)
        print(json.dumps({}), file=answers, flush=True)
        for line in requests:
            request = json.loads(line)
            answer = getattr(seat, request["do"])(request.get("with"))
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
