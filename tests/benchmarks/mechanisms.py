"""
What single mechanisms of amorsize are worth: the time with one of them, divided by the time without it.

Each measurement is a process of its own, with and without in turns; a figure is the best of all rounds, so that a
busy machine matters less. Below 1.00 the mechanism saves time. The twin, "with" divided by "with", shows the noise.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import report

SPIN = """
import sys, time, amorsize
MS = 25_000  # turns of spin's loop that take about a millisecond
from amorsize import _backend, _profile
def spin(n):
    total = 0
    for i in range(n):
        total += i * i
    return total
clock = time.perf_counter
def median(call, n):
    times = []
    for _ in range(n):
        begin = clock(); call(); times.append(clock() - begin)
    return sorted(times)[n // 2]
f = amorsize.parallel(spin)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """
    One mechanism: a program that prints seconds.

    Attributes:
        name: What it is.
        where: Its module.
        off: Statements that turn it off.
        program: Statements that leave the seconds in *took*.
    """

    name: str
    where: str
    off: str
    program: str


ALL = (
    Mechanism(
        name="short maps to idle workers of the fork server: 40 items of 0.1 ms, again and again",
        where="`_server`, `_gate`",
        off="f = amorsize.parallel(spin, start_method='fork')",
        program="items = [MS // 10] * 40\ntook = median(lambda: f.map(items), 200)",
    ),
    Mechanism(
        name="the same: 40 items of 1 ms",
        where="`_server`, `_gate`",
        off="f = amorsize.parallel(spin, start_method='fork')",
        program="items = [MS] * 40\ntook = median(lambda: f.map(items), 30)",
    ),
    Mechanism(
        name="big items first, where sizes predict times: 40 lists, the last ten times as long as the others",
        where="`_profile.big_first`",
        off="_profile.big_first = lambda *args: []",
        program="def total(values): return sum(i * i for i in values)\n"
        "f = amorsize.parallel(total)\nitems = [list(range(MS))] * 39 + [list(range(10 * MS))]\n"
        "took = median(lambda: f.map(items), 10)",
    ),
    Mechanism(
        name="streams from forked workers: a first imap over 400 items of 1 ms",
        where="`_pool`",
        off="_backend._blockers.process_blocker = _backend.process_blocker = lambda: 'off'",
        program="begin = clock(); list(f.imap(MS for _ in range(400))); took = clock() - begin",
    ),
    Mechanism(
        name="what items say, in a map of a second whose items say nothing: a first map of 2,000 items of 1 ms",
        where="`_output`",
        off="from amorsize._backend import _output\n_output.listen = lambda *args: None",
        program="begin = clock(); f.map([MS] * 2_000); took = clock() - begin",
    ),
    Mechanism(
        name="the same, where 1,000 of the items print a line",
        where="`_output`, `_voice`",
        off="say = f",
        program="import contextlib, io\n"
        "def told(n):\n    if n % 2: print('an item has been computed')\n    return spin(n)\n"
        "say = amorsize.parallel(told) if 'say' not in globals() else say\n"
        "begin = clock()\n"
        "with contextlib.redirect_stdout(io.StringIO()): say.map([MS, MS + 1] * 1_000)\n"
        "took = clock() - begin",
    ),
)  # fmt: skip


def seconds(mechanism: Mechanism, *, off: bool) -> float:
    """Run the program once, in a process of its own."""
    code = f"{SPIN}\n{mechanism.off if off else ''}\n{mechanism.program}\nprint(took)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return float(done.stdout)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-r", "--rounds", type=int, default=9, help="rounds (9)")
    parser.add_argument("--output", type=Path, help="write the table there too")


HEAD = ("mechanism", "where", "with it, ms", "without, ms", "ratio", "twin")


def main(options: argparse.Namespace) -> None:
    """Measure all of them and print the table."""
    rows = []
    for mechanism in ALL:
        ways = [[seconds(mechanism, off=off) for off in (False, True, False)] for _ in range(options.rounds)]
        used, unused, again = (min(way[i] for way in ways) for i in range(3))
        cells = (f"{1e3 * used:.1f}", f"{1e3 * unused:.1f}", f"{used / unused:.2f}", f"{again / used:.2f}")
        print(mechanism.name, *cells, flush=True)
        rows.append((mechanism.name, mechanism.where, *cells))
    text = report.markdown_table(HEAD, rows)
    print(text)
    if options.output:
        options.output.write_text(text)
