"""
The same maps on a small cluster of this machine: amorsize under a joblib context against the engine's own ways.

Starts a Dask scheduler with two worker processes over TCP on loopback, then a local Ray with two
CPUs, and stops them. Everything is warm and timed in turns, in random order; the figures are medians
of ratios formed within each round. The twin, amorsize a second time, shows the noise. `first` is a
call with nothing known of the function, once: what sampling costs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import report
import workloads
from child import is_equal
from workloads import Workload, spins

# ruff: noqa: PLC0415  an engine that is not installed or not asked for must not be needed

Maps = dict[str, Callable[[Sequence[Any]], Sequence[object]]]

# Worker processes of each engine.
N_WORKERS = 2

# Chunks per worker of the ways written by hand: few for even work, many where costs differ.
BY_HAND = (1, 4, 16)

# Times the best peer, and times the loop.
BAR, LOOP_BAR = 1.10, 1.05

# A way whose first call takes this many times the fastest is not the best, and gets no more turns.
HOPELESS = 1.6

OURS = ("amorsize", "twin")

WORKLOADS: dict[str, Workload] = {
    "even": Workload(func=workloads.spin, make=lambda: spins((1500, 1)), shape="1 ms items, many"),
    "fine": Workload(func=workloads.horner, make=lambda: list(range(400_000)), shape="3 µs items, many"),
    "skewed": Workload(func=workloads.spin, make=workloads.bimodal, shape="5 % of the items cost 100 times the others"),
    "rising": Workload(func=workloads.spin, make=workloads.rising, shape="costs rise from 0 to 6 ms"),
    "heavy": Workload(func=workloads.spin, make=lambda: spins((16, 100)), shape="100 ms items, few"),
    "arrays": Workload(func=workloads.settled, make=lambda: workloads.arrays(100, 1), shape="1 MB arrays in and out"),
    "blocks": Workload(
        func=workloads.deflated_size,
        make=lambda: [workloads.block(200_000, i % 4) for i in range(200)],
        shape="200 kB in, numbers out",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One workload on one engine.

    Attributes:
        engine: `dask` or `ray`.
        workload: Its name.
        seconds: Median seconds of each way that took part to the end.
        best: The fastest peer.
        ratio: Median of amorsize's time / the best peer's.
        twin: The same for its twin.
        to_loop: Median of amorsize's time / the loop's.
        first: First call / the best peer's time.
        plan: What the latest plan says.
    """

    engine: str
    workload: str
    seconds: dict[str, float]
    best: str
    ratio: float
    twin: float
    to_loop: float
    first: float
    plan: str

    @property
    def ok(self) -> bool:
        """Whether the bar is met."""
        return self.ratio <= BAR and self.to_loop <= LOOP_BAR

    def cells(self) -> tuple[str, ...]:
        """Lay it out for a table."""
        best_s, ours_s = self.seconds[self.best], self.seconds["amorsize"]
        figures = (self.ratio, self.twin, self.to_loop, self.first)
        texts = (f"{figure:.2f}" for figure in figures)
        verdict = "ok" if self.ok else "**over**"
        return (self.engine, self.workload, f"{ours_s:.3f}", self.best, f"{best_s:.3f}", *texts, self.plan, verdict)


HEAD = ("engine", "workload", "s", "best peer", "its s", "ratio", "twin", "to the loop", "first", "plan", "")


# --- the ways -------------------------------------------------------------------------------------


def run_all(func: Callable[[Any], object], items: Sequence[Any]) -> list[object]:
    """Be the task that a user writes: a loop over a chunk."""
    return [func(item) for item in items]


def chunks(items: Sequence[Any], per_worker: int) -> list[Sequence[Any]]:
    """Cut items into *per_worker* neighbouring chunks for each worker."""
    size = max(1, math.ceil(len(items) / (N_WORKERS * per_worker)))
    return [items[start : start + size] for start in range(0, len(items), size)]


def flat(parts: Sequence[Sequence[object]]) -> list[object]:
    """Join the chunks' results."""
    return [result for part in parts for result in part]


def amorsize_maps(func: Callable[..., object], backend: str, plans: dict[str, Any]) -> Maps:
    """Enter amorsize twice under joblib's context."""
    import joblib

    import amorsize

    def under(name: str, items: Sequence[Any]) -> Sequence[object]:
        with joblib.parallel_config(backend=backend):
            results = decorated.map(items)
        plans[name] = decorated.last_plan
        return results

    decorated = amorsize.parallel(func)
    return {name: functools.partial(under, name) for name in OURS}


def dask_maps(client: Any, func: Callable[..., object]) -> Maps:
    """Enter `client.map` over chunks, and joblib at its defaults."""
    from joblib import Parallel, delayed, parallel_config

    def by_hand(per_worker: int, items: Sequence[Any]) -> list[object]:
        futures = client.map(functools.partial(run_all, func), chunks(items, per_worker), pure=False)
        return flat(client.gather(futures))

    def through_joblib(items: Sequence[Any]) -> list[object]:
        with parallel_config(backend="dask"):
            return list(Parallel()(delayed(func)(item) for item in items))

    maps: Maps = {f"client.map, {n} per worker": functools.partial(by_hand, n) for n in BY_HAND}
    return {**maps, "joblib": through_joblib}


def ray_maps(pool: Any, func: Callable[..., object]) -> Maps:
    """Enter Ray's pool with its own chunks, and tasks over chunks."""
    import ray

    task = ray.remote(run_all)

    def by_hand(per_worker: int, items: Sequence[Any]) -> list[object]:
        return flat(ray.get([task.remote(func, chunk) for chunk in chunks(items, per_worker)]))

    maps: Maps = {f"ray.remote, {n} per worker": functools.partial(by_hand, n) for n in BY_HAND}
    return {**maps, "Pool": lambda items: pool.map(func, items)}


@contextmanager
def dask_engine() -> Iterator[Callable[..., Maps]]:
    """Start a scheduler and its workers; gives what makes the peers' ways."""
    distributed = importlib.import_module("distributed")
    options = {"threads_per_worker": 1, "processes": True, "protocol": "tcp", "host": "127.0.0.1"}
    with (
        distributed.LocalCluster(n_workers=N_WORKERS, dashboard_address=None, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield functools.partial(dask_maps, client)


@contextmanager
def ray_engine() -> Iterator[Callable[..., Maps]]:
    """Start a local Ray and its pool; gives what makes the peers' ways."""
    import ray
    from ray.util.joblib import register_ray
    from ray.util.multiprocessing import Pool

    ray.init(num_cpus=N_WORKERS, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        register_ray()
        # Its actors claim no CPU, so that they can stay while the others' tasks run.
        pool = Pool(N_WORKERS, ray_remote_args={"num_cpus": 0})
        yield functools.partial(ray_maps, pool)
        pool.terminate()
    finally:
        ray.shutdown()


ENGINES: dict[str, Callable[[], contextlib.AbstractContextManager[Callable[..., Maps]]]] = {
    "dask": dask_engine,
    "ray": ray_engine,
}


# --- measuring ------------------------------------------------------------------------------------


def seconds_of(
    way: Callable[[Sequence[Any]], Sequence[object]], workload: Workload, expected: Sequence[object]
) -> float:
    """Time one call on fresh items and check its results."""
    items: Any = workload.make()
    start = time.perf_counter()
    results = way(items)
    seconds = time.perf_counter() - start
    if len(results) != len(expected) or not all(map(is_equal, results, expected)):
        raise AssertionError("results differ from the loop's")
    return seconds


def measure(engine: str, name: str, peers: Callable[..., Maps], rounds: int) -> Row:
    """Time every way on one workload, in turns."""
    workload = WORKLOADS[name]
    plans: dict[str, Any] = {}
    loop = functools.partial(run_all, workload.func)
    maps = {"loop": loop, **peers(workload.func), **amorsize_maps(workload.func, engine, plans)}
    expected = loop(workload.make())  # type: ignore[arg-type]  # the workloads here are lists
    firsts = {way: seconds_of(maps[way], workload, expected) for way in maps}
    again = {way: seconds_of(maps[way], workload, expected) for way in maps if way != "loop"}
    fastest_s = min(again.values())
    taking_part = [way for way in maps if way in {*OURS, "loop"} or again[way] <= HOPELESS * fastest_s]
    times: dict[str, list[float]] = {way: [] for way in taking_part}
    for _ in range(rounds):
        for way in random.sample(taking_part, len(taking_part)):
            times[way].append(seconds_of(maps[way], workload, expected))
    medians = {way: statistics.median(times[way]) for way in taking_part}
    best = min((way for way in taking_part if way not in OURS), key=lambda way: medians[way])
    plan = plans["amorsize"]
    return Row(
        engine=engine,
        workload=name,
        seconds=medians,
        best=best,
        ratio=report.median_ratio(times["amorsize"], times[best]),
        twin=report.median_ratio(times["twin"], times[best]),
        to_loop=report.median_ratio(times["amorsize"], times["loop"]),
        first=firsts["amorsize"] / medians[best],
        plan=f"{plan.backend}, n_jobs={plan.n_jobs}, batch_size={plan.batch_size}",
    )


# --- the command line -----------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `clusters`."""
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"of {', '.join(ENGINES)}; default: both")
    parser.add_argument("-w", "--workloads", metavar="A,B", help=f"of {', '.join(WORKLOADS)}; default: all")
    parser.add_argument("-r", "--rounds", type=int, metavar="N", help="default: 9")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    parser.add_argument("--markdown", type=Path, metavar="PAGE.md", help="page to put the table in")


def as_markdown(rows: Sequence[Row]) -> str:
    """Lay out the figures for a documentation page."""
    table = report.for_readers(HEAD, [row.cells() for row in rows])
    return f"Measured by `nox -s bench -- clusters`.\n\n{report.machine_line()}\n\n{table}"


def known(names: Sequence[str], all_names: Mapping[str, object]) -> list[str]:
    """Check names from the command line; all where none is given."""
    if unknown := sorted(set(names) - set(all_names)):
        raise SystemExit(f"unknown: {', '.join(unknown)}; known: {', '.join(all_names)}")
    return list(names or all_names)


def main(options: argparse.Namespace) -> None:
    """Measure engine by engine, and print workload by workload."""
    engines = known(options.engines, ENGINES)
    names = known(options.workloads.split(",") if options.workloads else [], WORKLOADS)
    # The workers import the workloads from here, and run one thread of numpy each.
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    workloads.LOOPS_PER_MS = workloads.loops_per_ms()
    rows: list[Row] = []
    print(report.machine_line(), flush=True)
    print(" | ".join(HEAD))
    with ExitStack() as stack:
        room = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        os.environ["XDG_CACHE_HOME"] = room
        for engine in engines:
            with ENGINES[engine]() as peers:
                for name in names:
                    rows.append(measure(engine, name, peers, options.rounds or (3 if options.quick else 9)))
                    print(" | ".join(rows[-1].cells()), flush=True)
                    print("   ", ", ".join(f"{w} {s:.3f}" for w, s in rows[-1].seconds.items()), flush=True)
    if options.output:
        report.write_json(options.output, {"machine": report.machine(), "rows": [asdict(row) for row in rows]})
    if options.markdown:
        report.write_section(options.markdown, "clusters", as_markdown(rows))
