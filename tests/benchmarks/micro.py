"""
Single figures with a bar to meet, one line each: metric, figure, bar, ok or over.

Everything is compared within the run: contenders sit in processes of their own and are timed in
turns, in random order, and the figure is the median of ratios formed within each round. The bars
are for two cores, so a larger machine is held to two of them (`LOKY_MAX_CPU_COUNT=2`). Where the
same contender is entered a second time, the twin's figure shows the noise.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import report
import workloads
from contenders import n_cpus
from station import (
    ContenderFailedError,
    Runs,
    Station,
    first_calls,
    interleave,
    shuffled,
    stations,
)

HERE = Path(__file__).parent

LOOP = {"contender": "loop"}
AMORSIZE = {"contender": "amorsize"}
TWIN = {"contender": "amorsize-twin"}
POOL = {"contender": "pool", "options": {"n_jobs": 2}}
ITEM_BY_ITEM = {"contender": "executor-1", "options": {"n_jobs": 2}}

# Seconds to wait for one answer; ten items of 1 s take the loop ten.
LIMIT_S = 60.0

# Work, in milliseconds, of the runs whose efficiency is measured.
WORK_MS = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """
    One metric.

    Attributes:
        metric: What was measured.
        figure: What came out, with its unit.
        bar: What is asked for.
        ok: Whether the bar is met.
    """

    metric: str
    figure: str
    bar: str
    ok: bool

    def __str__(self) -> str:
        """Lay the metric out on one line."""
        verdict = "ok" if self.ok else "over"
        return f"{self.metric}: {self.figure} (bar: {self.bar}) {verdict}"


# --- items -----------------------------------------------------------------------------------


def runs_of(items: Sequence[int]) -> Runs:
    """Pack items into run lengths, as *(how many, loops each)*."""
    return [(len(list(group)), loops) for loops, group in groupby(items)]


def scaled(weights: Sequence[float], total_ms: float) -> Runs:
    """Turn relative costs into items that add up to *total_ms*."""
    factor = total_ms * float(os.environ[workloads.SPEED_VARIABLE]) / sum(weights)
    return runs_of([max(1, round(weight * factor)) for weight in weights])


def equal_items(count: int, each_us: float) -> Runs:
    """Give *count* items that cost *each_us* microseconds, the call itself included."""
    base_us, per_loop_us = cost_of_spin()
    return [(count, max(0, round((each_us - base_us) / per_loop_us)))]


def cost_of_spin() -> tuple[float, float]:
    """Measure what a call of `spin` costs and what each of its loops adds, in microseconds."""
    empty_us = min(timeit.repeat(lambda: spin_all([0] * 2000), number=1, repeat=15)) * 1e6 / 2000
    full_us = min(timeit.repeat(lambda: spin_all([500] * 2000), number=1, repeat=15)) * 1e6 / 2000
    return empty_us, (full_us - empty_us) / 500


def spin_all(items: Sequence[int]) -> list[int]:
    """Do the work as the loop does it."""
    spin = workloads.spin
    return [spin(item) for item in items]


def shapes() -> dict[str, list[float]]:
    """Give the relative costs of the items of several distributions."""
    dice = random.Random(21)
    ramp = [i / 399 for i in range(400)]
    return {
        "uniform": [1.0] * 600,
        "ascending": ramp,
        "descending": ramp[::-1],
        "bimodal": [100.0 if dice.random() < 0.05 else 1.0 for _ in range(1000)],
        "heavy tail": [min(300.0, dice.paretovariate(1.1)) for _ in range(1000)],
        "outlier first": [1000.0, *[1.0] * 4000],
    }


def adversarial_orders() -> dict[str, list[float]]:
    """Give the relative costs of orders in which a prefix misleads."""
    shape = shapes()
    return {
        "ascending": shape["ascending"],
        "outlier first": shape["outlier first"],
        "outlier last": shape["outlier first"][::-1],
        "bimodal": shape["bimodal"],
        "regime change": [1.0] * 2000 + [100.0] * 400,
        "empty prefix": [0.0] * 1000 + [1.0] * 400,
    }


# --- the call itself -------------------------------------------------------------------------


def in_turns(timers: dict[str, timeit.Timer], *, number: int, rounds: int) -> dict[str, list[float]]:
    """Time statements of this process in turns; seconds per execution."""
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name in shuffled(list(timers)):
            times[name].append(timers[name].timeit(number) / number)
    return times


def plain_call(*, quick: bool) -> Line:
    """Measure what the decorator adds to a plain call."""
    import amorsize  # noqa: PLC0415  only this figure needs it here

    names = {"bare": workloads.identity, "twin": workloads.identity}
    names["decorated"] = amorsize.parallel(workloads.identity)
    timers = {name: timeit.Timer("f(1)", globals={"f": f}) for name, f in names.items()}
    times = in_turns(timers, number=100_000, rounds=9 if quick else 25)
    added = report.median_difference(times["decorated"], times["bare"]) * 1e9
    noise = report.median_difference(times["twin"], times["bare"]) * 1e9
    return Line(
        metric="plain call, decorated against undecorated",
        figure=f"{added:+.0f} ns (twin {noise:+.0f} ns)",
        bar="at most 150 ns",
        ok=added <= 150,
    )


def serial_map(*, quick: bool) -> Line:
    """Compare a warm map of trivial items with the comprehension."""
    import amorsize  # noqa: PLC0415  only this figure needs it here

    n_items = 100_000
    names = {"data": list(range(n_items)), "f": workloads.identity}
    names["map"] = amorsize.parallel(workloads.identity).map
    comprehension = "[f(x) for x in data]"
    timers = {
        "map": timeit.Timer("map(data)", globals=names),
        "loop": timeit.Timer(comprehension, globals=names),
        "twin": timeit.Timer(comprehension, globals=names),
    }
    in_turns(timers, number=1, rounds=5)
    times = in_turns(timers, number=1, rounds=31 if quick else 101)
    ratio = report.median_ratio(times["map"], times["loop"])
    item_ns = report.median_difference(times["map"], times["loop"]) / n_items * 1e9
    noise = report.median_ratio(times["twin"], times["loop"])
    return Line(
        metric="serial map of 100,000 trivial items, warm, against the comprehension",
        figure=f"{ratio:.3f} times, {item_ns:+.1f} ns per item (twin {noise:.3f} times)",
        bar="at most 1.10 times and 20 ns per item",
        ok=ratio <= 1.10 and item_ns <= 20,
    )


def single_item(*, quick: bool) -> Line:
    """Measure a warm map of one item."""
    import amorsize  # noqa: PLC0415  only this figure needs it here

    names = {"data": [1], "map": amorsize.parallel(workloads.identity).map}
    timers = {name: timeit.Timer("map(data)", globals=names) for name in ("map", "twin")}
    in_turns(timers, number=100, rounds=3)
    times = in_turns(timers, number=500, rounds=9 if quick else 31)
    call_us = statistics.median(times["map"]) * 1e6
    noise_us = statistics.median(times["twin"]) * 1e6
    return Line(
        metric="map of one item, warm",
        figure=f"{call_us:.1f} µs per call (twin {noise_us:.1f} µs)",
        bar="at most 10 µs",
        ok=call_us <= 10,
    )


def import_in_fresh_process(module: str) -> tuple[float, list[str]]:
    """Import a module in a new process: seconds, and the heavy modules loaded with it."""
    code = (
        "import sys, time; start = time.perf_counter()\n"
        f"import {module}\n"
        "print(time.perf_counter() - start, *sorted("
        "{'joblib', 'numpy', 'multiprocessing'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    env = dict(os.environ)
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an import that compiles is not the usual one
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    if done.returncode:
        raise ContenderFailedError(done.stderr.strip().splitlines()[-1])
    seconds, *loaded = done.stdout.split()
    return float(seconds), loaded


def import_time(*, quick: bool) -> Line:
    """Compare importing amorsize with importing wrapt, its one eager dependency."""
    modules = {"amorsize": "amorsize", "wrapt": "wrapt", "twin": "wrapt"}
    times: dict[str, list[float]] = {name: [] for name in modules}
    loaded: list[str] = []
    for number in range(6 if quick else 16):
        for name in shuffled(list(modules)):
            seconds, found = import_in_fresh_process(modules[name])
            loaded = found if name == "amorsize" else loaded
            times[name] += [seconds] if number else []  # the first round may compile
    added_ms = report.median_difference(times["amorsize"], times["wrapt"]) * 1e3
    noise_ms = report.median_difference(times["twin"], times["wrapt"]) * 1e3
    return Line(
        metric="import amorsize, beyond import wrapt",
        figure=f"{added_ms:+.1f} ms (twin {noise_ms:+.1f} ms), loads {', '.join(loaded) or 'none'}",
        bar="at most 15 ms; joblib, numpy, multiprocessing not loaded",
        ok=added_ms <= 15 and not loaded,
    )


# --- warm pools ------------------------------------------------------------------------------


def against_pool(*, quick: bool) -> Line:
    """Compare 200 items of 1 ms with a warm pool of the standard library."""
    specs = {"amorsize": AMORSIZE, "twin": TWIN, "pool": POOL}
    with stations(specs, equal_items(200, 1000), limit_s=LIMIT_S) as seats:
        times = interleave(seats, rounds=9 if quick else 31)
    ratio = report.median_ratio(times["amorsize"], times["pool"])
    noise = report.median_ratio(times["twin"], times["amorsize"])
    return Line(
        metric="200 items of 1 ms, warm, against multiprocessing.Pool(2)",
        figure=f"{ratio:.3f} times (twin {noise:.3f} of it)",
        bar="at most 1.15 times",
        ok=ratio <= 1.15,
    )


def gains(runs: Runs, *, rounds: int, calls: int = 1) -> dict[str, float]:
    """Measure the warm speedup over the loop of amorsize, its twin, and a warm pool."""
    specs = {"loop": LOOP, "amorsize": AMORSIZE, "twin": TWIN, "pool": POOL}
    with stations(specs, runs, limit_s=LIMIT_S) as seats:
        times = interleave(seats, rounds=rounds, calls=calls)
    return {name: report.median_ratio(times["loop"], seconds) for name, seconds in times.items() if name != "loop"}


def first_above(sizes: Sequence[float], gain: float, measure: Callable[[float], dict[str, float]]) -> dict[str, float]:
    """Try sizes from small to large until every contender reaches *gain*; the first of each."""
    reached: dict[str, float] = {}
    for size in sizes:
        for name, speedup in measure(size).items():
            if speedup >= gain:
                reached.setdefault(name, size)
        if {"amorsize", "twin", "pool"} <= reached.keys():
            break
    return reached


def reached_text(reached: dict[str, float], unit: str) -> str:
    """Write which sizes the contenders needed."""
    texts = {
        name: f"{reached[name]:g} {unit}" if name in reached else "none tried" for name in ("amorsize", "twin", "pool")
    }
    return f"{texts['amorsize']} (twin {texts['twin']}, multiprocessing.Pool {texts['pool']})"


def break_even(*, quick: bool) -> Line:
    """Find the smallest total work at which 16 equal items gain 5 %, warm."""
    sizes_ms = (1, 2, 3, 5, 8) if quick else (0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 12)
    reached = first_above(
        sizes_ms,
        1.05,
        lambda ms: gains(equal_items(16, ms * 1000 / 16), rounds=9 if quick else 25, calls=5),
    )
    return Line(
        metric="break-even: smallest work at which 16 equal items gain 5 %, warm",
        figure=reached_text(reached, "ms"),
        bar="at most 3 ms",
        ok=reached.get("amorsize", math.inf) <= 3,
    )


def finest_item(*, quick: bool) -> Line:
    """Find the finest item of which 1 s of work still runs 1.5 times as fast, warm."""
    sizes_us = (1, 2, 5, 10) if quick else (0.5, 1, 2, 5, 10, 20)
    reached = first_above(
        sizes_us,
        1.5,
        lambda us: gains(equal_items(round(1e6 / us), us), rounds=3 if quick else 5),
    )
    return Line(
        metric="finest item that reaches 1.5 times on 2 cores, 1 s of work, warm",
        figure=reached_text(reached, "µs"),
        bar="at most 2 µs",
        ok=reached.get("amorsize", math.inf) <= 2,
    )


# --- forecasts -------------------------------------------------------------------------------


def forecast_errors(workload: str, calls: int) -> list[float]:
    """Collect abs(log(predicted / actual)) of a first call and some warm ones, in one process."""
    with Station({**AMORSIZE, "workload": workload}, limit_s=LIMIT_S) as seat:
        plans = seat.ask("calls", calls)["plans"]
    if not all(plan["predicted_s"] and plan["actual_s"] for plan in plans):
        raise ContenderFailedError(f"a plan without forecast or outcome on {workload}: {plans}")
    return [abs(math.log(plan["predicted_s"] / plan["actual_s"])) for plan in plans]


def forecast(*, quick: bool) -> Line:
    """Compare what plans predicted with what then happened, on steady workloads."""
    steady = [n for n, w in workloads.WORKLOADS.items() if w.steady and (w.small or not quick)]
    errors = [forecast_errors(name, calls=4 if quick else 6) for name in steady]
    every = [error for found in errors for error in found]
    median, p90 = statistics.median(every), report.quantile(every, 0.9)
    first = statistics.median(found[0] for found in errors)
    means = {name: statistics.median(found) for name, found in zip(steady, errors, strict=True)}
    worst = max(means, key=lambda name: means[name])
    return Line(
        metric=f"forecast: abs(log(predicted / actual)) over {len(steady)} steady workloads",
        figure=f"median {median:.3f}, 90th percentile {p90:.3f}; first calls {first:.3f}; "
        f"worst {worst} {means[worst]:.2f}",
        bar="median at most 0.08, 90th percentile at most 0.22",
        ok=median <= 0.08 and p90 <= 0.22,
    )


# --- efficiency ------------------------------------------------------------------------------


def efficiencies(weights: Sequence[float], *, rounds: int, in_order: bool = False) -> list[float]:
    """
    Measure lower bound / time of warm maps, one per round.

    The effective number of cores p is measured in every round: the work once alone, then two copies
    of it at once. With W the time alone, the bound is max(W / p, longest item); for a heavy last
    item in an order that must be kept, (W - longest) / p + longest.
    """
    runs = scaled(weights, WORK_MS)
    longest = max(weights) / sum(weights)
    specs = {"one": LOOP, "other": LOOP, "amorsize": AMORSIZE}
    found = []
    with stations(specs, runs, limit_s=LIMIT_S) as seats:
        seats["amorsize"].seconds(3)
        for _ in range(rounds):
            parts = {
                "alone": lambda: seats["one"].seconds()[0],
                "both": lambda: at_once(seats["one"], seats["other"]),
                "mapped": lambda: seats["amorsize"].seconds()[0],
            }
            s = {part: parts[part]() for part in shuffled(list(parts))}
            p_eff, heavy_s = 2 * s["alone"] / s["both"], longest * s["alone"]
            bound_s = max(s["alone"] / p_eff, heavy_s)
            if in_order:
                bound_s = (s["alone"] - heavy_s) / p_eff + heavy_s
            found.append(bound_s / s["mapped"])
    return found


def at_once(one: Station, other: Station) -> float:
    """Time two stations at the same time; seconds of the slower."""
    for station in (one, other):
        station.send("calls", 1)
    return max(station.receive()["seconds"][0] for station in (one, other))


def efficiency(*, quick: bool) -> Line:
    """Measure the share of the possible that warm maps reach, by distribution of costs."""
    rounds = 3 if quick else 5
    found = {name: statistics.median(efficiencies(weights, rounds=rounds)) for name, weights in shapes().items()}
    return Line(
        metric="efficiency max(W / p, longest) / T, W = 1.2 s, warm",
        figure=", ".join(f"{name} {share:.3f}" for name, share in found.items()),
        bar="at least 0.95 each",
        ok=min(found.values()) >= 0.95,
    )


def heavy_last(*, quick: bool) -> Line:
    """Measure the same where the last item is 40 % of the work, against the in-order bound."""
    weights = [0.6 / 400] * 400 + [0.4]
    share = statistics.median(efficiencies(weights, rounds=3 if quick else 5, in_order=True))
    return Line(
        metric="efficiency, the last item 40 % of the work, against the in-order bound",
        figure=f"{share:.3f}",
        bar="at least 0.95",
        ok=share >= 0.95,
    )


# --- first calls -----------------------------------------------------------------------------


def hindsight(weights: Sequence[float], *, rounds: int) -> tuple[float, str, float]:
    """Compare a first call with the best fixed plan: ratio, which plan, and the twin's ratio."""
    specs: dict[str, dict[str, object]] = {"amorsize": AMORSIZE, "twin": TWIN, "loop": LOOP}
    for method in ("fork", "loky") if hasattr(os, "fork") else ("loky",):
        fixed = {"n_jobs": 2, "start_method": method}
        specs[method] = {"contender": "amorsize", "options": fixed}
    times = first_calls(specs, scaled(weights, WORK_MS), rounds=rounds, limit_s=LIMIT_S)
    plans = [name for name in specs if name not in {"amorsize", "twin"}]
    best = min(plans, key=lambda name: statistics.median(times[name]))
    return (
        report.median_ratio(times["amorsize"], times[best]),
        best,
        report.median_ratio(times["twin"], times[best]),
    )


def adversarial(*, quick: bool) -> Line:
    """Compare first calls on misleading orders with the best plan in hindsight."""
    rounds = 2 if quick else 5
    found = {name: hindsight(w, rounds=rounds) for name, w in adversarial_orders().items()}
    texts = (f"{n} {r:.2f} of {best} (twin {t:.2f})" for n, (r, best, t) in found.items())
    return Line(
        metric="first call / best plan in hindsight, adversarial orders, 1.2 s of work",
        figure=", ".join(texts),
        bar="at most 1.10 each",
        ok=max(ratio for ratio, _, _ in found.values()) <= 1.10,
    )


def ten_seconds(*, quick: bool) -> Line:
    """Compare a first call on ten items of 1 s, nothing cached, with the loop."""
    runs = equal_items(10, 1e6)
    specs = {"amorsize": AMORSIZE, "loop": LOOP}
    times = first_calls(specs, runs, rounds=1 if quick else 3, limit_s=LIMIT_S)
    ratio = report.median_ratio(times["amorsize"], times["loop"])
    return Line(
        metric="ten items of 1 s, first call, empty cache, against the loop",
        figure=f"{ratio:.3f} times",
        bar="at most 0.6 times",
        ok=ratio <= 0.6,
    )


def first_of_stream(*, quick: bool) -> Line:
    """Measure when a cold `imap` yields its first result, beyond the item itself."""
    specs = {"imap": AMORSIZE, "map": LOOP, "twin": LOOP}
    runs = equal_items(1000, 1000)
    rounds = 7 if quick else 21
    times = first_calls(specs, runs, rounds=rounds, ask="first_result", limit_s=LIMIT_S)
    added_ms = report.median_difference(times["imap"], times["map"]) * 1e3
    noise_ms = report.median_difference(times["twin"], times["map"]) * 1e3
    return Line(
        metric="imap, cold, 1 ms items: first result beyond the builtin map's",
        figure=f"{added_ms:+.2f} ms (twin {noise_ms:+.2f} ms)",
        bar="at most 2 ms",
        ok=added_ms <= 2,
    )


STREAM = """
import resource, sys, time
import amorsize, workloads

def items():
    for number in range(int(sys.argv[1])):
        yield number.to_bytes(4, "big") * 250

stream = amorsize.parallel(workloads.turned).imap(items())
for number, _ in enumerate(stream, 1):
    if not number % 100:
        time.sleep(1e-3)
assert number == int(sys.argv[1])
print(sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024)
"""


def stream_memory(*, quick: bool) -> Line:
    """Compare the peak memory, the caller's and its largest worker's, of a long stream with that of a short one."""
    counts = {"short": 10_000, "long": 100_000 if quick else 1_000_000, "twin": 10_000}
    peaks: dict[str, list[float]] = {name: [] for name in counts}
    for _ in range(3):
        for name in shuffled(list(counts)):
            command = [sys.executable, "-c", STREAM, str(counts[name])]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, cwd=HERE)
            peaks[name].append(float(done.stdout))
    ratio = report.median_ratio(peaks["long"], peaks["short"])
    noise = report.median_ratio(peaks["twin"], peaks["short"])
    return Line(
        metric=f"peak memory of imap, slow consumer: {counts['long']:,} items of 1 kB against 10,000",
        figure=f"{ratio:.3f} times, {statistics.median(peaks['long']):.0f} MB (twin {noise:.3f} times)",
        bar="at most 1.1 times",
        ok=ratio <= 1.1,
    )


# --- a disturbed core ------------------------------------------------------------------------


@contextmanager
def foreign_load(limit_s: float = 300) -> Iterator[None]:
    """Keep one core busy with a process that has nothing to do with us."""
    code = (
        "import os, time\n"
        "if hasattr(os, 'sched_setaffinity'):\n"
        "    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        f"end = time.monotonic() + {limit_s}\n"
        "while time.monotonic() < end: pass\n"
    )
    spinner = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        spinner.kill()
        spinner.wait()


def disturbed(*, quick: bool) -> Line:
    """Compare with item-by-item dispatch to a warm pool while something else uses one core."""
    specs = {"amorsize": AMORSIZE, "twin": TWIN, "items": ITEM_BY_ITEM}
    with stations(specs, equal_items(250, 4000), limit_s=LIMIT_S) as seats:
        for seat in seats.values():
            seat.seconds(2)
        with foreign_load():
            times = interleave(seats, rounds=5 if quick else 11, warm_up=1)
    ratio = report.median_ratio(times["amorsize"], times["items"])
    noise = report.median_ratio(times["twin"], times["amorsize"])
    return Line(
        metric="one core disturbed, 250 items of 4 ms, against item-by-item dispatch",
        figure=f"{ratio:.3f} times (twin {noise:.3f} of it)",
        bar="at most 1.10 times",
        ok=ratio <= 1.10,
    )


# --- the command line ------------------------------------------------------------------------

METRICS: dict[str, Callable[..., Line]] = {
    "plain-call": plain_call,
    "serial-map": serial_map,
    "single-item": single_item,
    "import-time": import_time,
    "against-pool": against_pool,
    "break-even": break_even,
    "finest-item": finest_item,
    "forecast": forecast,
    "efficiency": efficiency,
    "heavy-last": heavy_last,
    "adversarial": adversarial,
    "ten-seconds": ten_seconds,
    "disturbed": disturbed,
    "first-of-stream": first_of_stream,
    "stream-memory": stream_memory,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `micro`."""
    parser.add_argument("names", nargs="*", metavar="METRIC", help=f"of {', '.join(METRICS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    parser.add_argument("--markdown", type=Path, metavar="PAGE.md", help="page to put the table in")


def measured(name: str, *, quick: bool) -> Line:
    """Measure one metric; a contender that fails is a figure, too."""
    try:
        return METRICS[name](quick=quick)
    except Exception as error:  # noqa: BLE001  the other metrics are still wanted
        figure = f"FAIL: {type(error).__name__}: {error}"
        return Line(metric=name, figure=figure, bar="an answer", ok=False)


def as_markdown(lines: Sequence[Line]) -> str:
    """Lay out the metrics for a documentation page."""
    rows = [(ln.metric, report.without_twin(ln.figure)) for ln in lines]
    table = report.markdown_table(("what", "figure"), rows)
    return f"Measured by `nox -s bench -- micro`.\n\n{report.machine_line()}\n\n{table}"


def main(options: argparse.Namespace) -> None:
    """Measure and print metric by metric."""
    unknown = sorted(set(options.names) - set(METRICS))
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; known: {', '.join(METRICS)}")
    if n_cpus() > 2:
        os.environ["LOKY_MAX_CPU_COUNT"] = "2"
    os.environ[workloads.SPEED_VARIABLE] = str(workloads.loops_per_ms())
    print(report.machine_line(), flush=True)
    lines = []
    for name in options.names or METRICS:
        start = time.monotonic()
        lines.append(measured(name, quick=options.quick))
        print(f"{name} ({time.monotonic() - start:.0f} s): {lines[-1]}", flush=True)
    if options.output:
        content = {"machine": report.machine(), "metrics": [asdict(line) for line in lines]}
        report.write_json(options.output, content)
    if options.markdown:
        report.write_section(options.markdown, "micro", as_markdown(lines))
