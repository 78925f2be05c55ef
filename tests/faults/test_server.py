"""The fork server, its workers and its caller are killed at random moments: nothing is lost, left behind or hung."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import amorsize
from amorsize.exceptions import WorkerDied
from tests.faults.functions import plain
from tests.faults.harness import is_tracker

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="the fork server is only used on Linux"),
]

N_KILLS = 200
MOST_IN_VAIN = 3
N_CALLERS = 30
SEED = int(os.environ.get("AMORSIZE_SEED", "20261126"))


def _victims() -> list[int]:
    """Return the server and its workers; loky's trackers of an earlier test stay for the life of the program."""
    return [child.pid for child in psutil.Process().children(recursive=True) if not is_tracker(child)]


class _Killer(threading.Thread):
    """
    Kills one of this process's descendants after a random moment, again and again.

    Not more than :data:`MOST_IN_VAIN` times before there are workers again and an item is done, however long processes
    take to start on a busy machine: where all of them die, no more are started, as it should be.
    """

    def __init__(self, seed: int, n_kills: int) -> None:
        super().__init__(daemon=True)
        self._random = random.Random(seed)
        self._n_in_vain = self._n_done = 0
        self._has_seen_items = False
        self.n_left = n_kills
        self.is_over = threading.Event()

    def see(self, n_done: int, *_: object) -> None:
        """Take note of items that are done: a map's *progress*."""
        self._has_seen_items |= n_done > self._n_done
        self._n_done = n_done

    def run(self) -> None:
        """Kill until there have been enough, or the test is over."""
        while self.n_left and not self.is_over.wait(self._random.uniform(0, 0.5)):
            victims = _victims()
            if len(victims) > 1 and self._has_seen_items:
                self._n_in_vain, self._has_seen_items = 0, False
            if victims and self._n_in_vain < MOST_IN_VAIN:
                try:
                    os.kill(self._random.choice(victims), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self._n_in_vain += 1
                self.n_left -= 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", [{"retries": 50}, {}, {"retries": 50, "timeout": 30.0}], ids=str)
def test_workers_and_server_are_killed_at_random(options: dict[str, Any]) -> None:
    """A map ends with the right results, or names what was in flight and has the others; no descriptor is lost."""
    # A module of this file's imports would have workers killed in these most of the time.
    mapped = plain.with_options(n_jobs=2, start_method="forkserver", **options)
    expected = [3 * x for x in range(150)]
    assert mapped.map(range(150)) == expected
    amorsize.shutdown()
    before = len(list(Path("/proc/self/fd").iterdir()))
    killer = _Killer(SEED, N_KILLS // 3)
    mapped = mapped.with_options(progress=killer.see)
    killer.start()
    deadline = time.monotonic() + 500
    try:
        while killer.n_left and time.monotonic() < deadline:
            if options.get("retries"):
                assert mapped.map(range(150)) == expected
            else:
                _map_or_die(mapped, expected)
    finally:
        killer.is_over.set()
        killer.join()
    assert not killer.n_left
    assert mapped.map(range(150)) == expected
    amorsize.shutdown()
    assert not _victims()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def _map_or_die(mapped: Any, expected: list[int]) -> None:
    """Map; where a worker dies, look at what is said of the items."""
    died: WorkerDied | None = None
    try:
        assert mapped.map(range(len(expected))) == expected
    except WorkerDied as error:
        died = error
    if died is not None:
        assert all(died.results[i] == expected[i] for i in died.results)
        assert not set(died.in_flight) & set(died.results)


CALLER = """
import os, time
import amorsize
def work(x):
    time.sleep(2e-3)
    return x
mapped = amorsize.parallel(work, n_jobs=2, start_method="forkserver", retries=1)
print("begun", flush=True)
while True:
    mapped.map(range(50))
"""


@pytest.mark.timeout(600)
def test_callers_are_killed_at_random() -> None:
    """Whenever it dies, server and workers end soon after."""
    chance = random.Random(SEED)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    for _ in range(N_CALLERS):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CALLER)],
            env=os.environ | {"PYTHONPATH": path, "AMORSIZE_TEST_MARK": str(SEED)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.4))
            group = process.pid
            process.kill()
            process.wait()
            deadline = time.monotonic() + 30
            while _group(group) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not _group(group)


def _group(number: int) -> list[int]:
    """Return the processes of a session that are still running."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found
