"""
A map in a real Jupyter kernel, of a function that a cell defines: 30 items of 1 ms, first and later calls.

Each contender has a kernel of its own in each round, never two at a time. Ratios are formed within rounds. The pool of
a fork server cannot find what a cell defines, so its function stands in a file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import report
import workloads
from contenders import n_cpus
from station import ContenderFailedError, shuffled

# Later calls in a row by which amorsize may take longer than the best of the others.
BAR = 1.05

# Seconds that one cell may take.
LIMIT_S = 60

DEFINE = """
import itertools, json, statistics, sys, time

def spin(loops):
    for _ in itertools.repeat(None, loops):
        pass
    return loops

items = [{loops}] * 30
"""

# How each contender is opened, as a user would write it in a cell; the time of the first call includes all but imports.
OPEN = {
    "loop": "call = lambda: [spin(item) for item in items]",
    "pool": (
        "from multiprocessing import get_context\n"
        "pool = get_context('fork').Pool({n_jobs})\n"
        "call = lambda: pool.map(spin, items)"
    ),
    "forkserver": (
        "from multiprocessing import get_context\n"
        "sys.path.insert(0, {folder!r})\n"
        "from workloads import spin\n"
        "pool = get_context('forkserver').Pool({n_jobs})\n"
        "call = lambda: pool.map(spin, items)"
    ),
    "joblib": (
        "from joblib import Parallel, delayed\ncall = lambda: Parallel({n_jobs})(delayed(spin)(item) for item in items)"
    ),
    "mpire": (
        "from mpire import WorkerPool\n"
        "pool = WorkerPool({n_jobs}, keep_alive=True)\n"
        "call = lambda: pool.map(spin, items)"
    ),
    "amorsize": "import amorsize\nf = amorsize.parallel(spin)\ncall = lambda: f.map(items)",
}

MEASURE = """
{imports}
began = time.perf_counter()
{open}
assert call() == items
seconds = [time.perf_counter() - began]
for _ in range({warm}):
    began = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - began)
plan = str(f.last_plan) if "f" in globals() else ""
print(json.dumps([seconds[0], statistics.median(seconds[1:]), plan]))
"""


def run_cell(client: Any, code: str) -> str:
    """Run a cell and return what it printed."""
    printed, errors = [], []

    def hear(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream" and content["name"] == "stdout":
            printed.append(content["text"])
        elif message["msg_type"] == "error":
            errors.append(f"{content['ename']}: {content['evalue']}")

    client.execute_interactive(code, timeout=LIMIT_S, output_hook=hear, allow_stdin=False)
    if errors:
        raise ContenderFailedError(errors[0])
    return "".join(printed)


def measure(name: str, warm: int) -> tuple[float, float, str]:
    """Time the first call and later ones of a contender, in seconds, in a fresh kernel; and say what amorsize did."""
    from jupyter_client.manager import start_new_kernel  # noqa: PLC0415 - the other commands do without

    manager, client = start_new_kernel(stderr=subprocess.DEVNULL)
    try:
        fill = {"n_jobs": n_cpus(), "folder": str(Path(__file__).parent)}
        run_cell(client, DEFINE.format(loops=workloads.loops_for(1)))
        lines = OPEN[name].format(**fill).splitlines()
        imports = [line for line in lines if line.startswith(("import", "from", "sys."))]
        rest = [line for line in lines if line not in imports]
        code = MEASURE.format(imports="\n".join(imports), open="\n".join(rest), warm=warm)
        first, later, plan = json.loads(run_cell(client, code))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return first, later, plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kernel`."""
    parser.add_argument("-c", "--contenders", metavar="A,B", help="default: all")
    parser.add_argument("-r", "--rounds", type=int, default=7, metavar="N", help="default: 7")
    parser.add_argument("--warm", type=int, default=20, metavar="N", help="later calls per kernel; default: 20")
    parser.add_argument("--output", type=Path, metavar="FILE.json")


def main(options: argparse.Namespace) -> None:
    """Measure round by round, then print each contender's medians and amorsize's ratio to it."""
    names = options.contenders.split(",") if options.contenders else list(OPEN)
    names = list(dict.fromkeys(["loop", "amorsize", *names]))
    workloads.LOOPS_PER_MS = workloads.loops_per_ms()
    print(report.machine_line(), flush=True)
    start = time.monotonic()
    seen: dict[str, list[tuple[float, float, str]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in shuffled(names):
            seen[name].append(measure(name, options.warm))
    for kind, place in (("first", 0), ("later", 1)):
        ours = [times[place] for times in seen["amorsize"]]
        ratios = {}
        for name in names:
            theirs = [times[place] for times in seen[name]]
            ratios[name] = report.median_ratio(ours, theirs)
            print(
                f"  {kind:5s} {name:10s} {statistics.median(theirs) * 1e3:8.2f} ms, amorsize {ratios[name]:.2f} of it"
            )
        best = max((ratio, name) for name, ratio in ratios.items() if name != "amorsize")
        bar = f" (bar: {BAR}) {'ok' if best[0] <= BAR else 'over'}" if kind == "later" else ""
        print(f"  {kind:5s} amorsize / {best[1]}, the best of the others: {best[0]:.2f}{bar}")
    print(f"  plan: {seen['amorsize'][-1][2].splitlines()[0]}")
    if options.output:
        report.write_json(options.output, {"machine": report.machine(), "seconds": seen})
    print(f"{options.rounds} rounds in {(time.monotonic() - start) / 60:.0f} min")
