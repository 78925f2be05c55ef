"""
Random maps and faults for as long as asked: `python -m tests.faults.soak --minutes 20 [--seed N]`.

Says every so often how many maps there were, and what this process holds: memory and descriptors are to stay flat.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import psutil

import amorsize
from tests.faults.beside import Round
from tests.faults.harness import Scenario, end_threads, killer, leaks, look


def main() -> int:
    """Run until the time is over; returns 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    end = time.monotonic() + 60 * options.minutes
    said = time.monotonic()
    problems = n_maps = n_rounds = 0
    me = psutil.Process()
    with killer() as kill, tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        others = frozenset({kill.pid})
        end_threads()
        amorsize.parallel(abs, n_jobs=2, start_method="loky", retries=1).map(range(4))
        end_threads()
        before = look(others)
        while time.monotonic() < end:
            seed = options.seed * 1_000_000 + n_rounds
            n_rounds += 1
            scenario: Scenario | Round
            if n_rounds % 10 == 0:
                scenario = Round(seed)
                problem = "; ".join(scenario.run())
                n_maps += scenario.n_runs
            else:
                scenario = Scenario(seed, Path(folder))
                answer = scenario.run(kill if scenario.fault == "outside" else None)
                problem = scenario.wrong(answer)
                n_maps += 1
            if n_rounds % 50 == 0:
                amorsize.shutdown()
                problem = problem or leaks(before, others)
            if problem:
                problems += 1
                before = look(others)
                sys.stdout.write(f"{scenario}: {problem}\n")
            for file in Path(folder).glob("log*"):
                file.unlink()
            if time.monotonic() - said > 20 or time.monotonic() > end:
                said = time.monotonic()
                memory = me.memory_info().rss >> 20
                sys.stdout.write(
                    f"{n_maps} maps, {problems} problems, {memory} MB, {look(others).descriptors} descriptors\n"
                )
                sys.stdout.flush()
        tempfile.tempdir = None
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
