from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import amorsize
from amorsize._profile import CACHE
from tests.faults.harness import end_threads, run_code

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the first item is only watched on Linux")

WAYS = [
    pytest.param({"start_method": "fork"}, id="fork"),
    pytest.param({"prefer": "threads"}, id="threads"),
]


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Know no function, and have no thread that forbids a fork."""
    CACHE.clear()
    end_threads()


def waits_for_others(x: int, *, folder: str) -> int:
    """Item 0 goes on until another one has begun; each leaves a file."""
    os.close(os.open(f"{folder}/{x}", os.O_CREAT | os.O_EXCL))  # an item that runs twice fails
    end = time.monotonic() + 20
    # Busy, since under pytest-timeout the timer that is free counts CPU seconds.
    while x == 0 and len(os.listdir(folder)) < 2 and time.monotonic() < end:  # noqa: PTH208 - pathlib holds locks
        sum(range(1000))
    time.sleep(2e-3)
    return len(os.listdir(folder)) if x == 0 else x  # noqa: PTH208 - as above


def in_a_with_block(x: int, *, lock: Any) -> int:
    """Be where a lock is held, all the time."""
    with lock:
        time.sleep(0.06 if x == 0 else 0.0)
    return x


def fails_first(x: int, *, folder: str) -> int:
    """Item 0 fails once another one has begun."""
    waits_for_others(x, folder=folder)
    if x == 0:
        raise LookupError(x)
    return x


def revisions(function: Any) -> str:
    """Return what was changed on the way, in words."""
    assert function.last_plan is not None
    return " ".join(f"{revision.what}: {revision.why}" for revision in function.last_plan.revisions)


@pytest.mark.parametrize("n_items", [2, 3, 40])
@pytest.mark.parametrize("way", WAYS)
def test_others_begin_while_the_first_item_runs(way: dict[str, Any], n_items: int, tmp_path: Path) -> None:
    """A first item that waits for another one ends, since workers are started inside it; each item runs once."""
    work = amorsize.parallel(waits_for_others, **way)
    results = work.map(range(n_items), kwargs={"folder": str(tmp_path)})
    assert results[0] >= 2
    assert results[1:] == list(range(1, n_items))
    assert "the first item had been running" in revisions(work)
    assert len(list(tmp_path.iterdir())) == n_items


@pytest.mark.parametrize("way", WAYS)
def test_a_first_item_that_holds_a_lock_is_left_alone(way: dict[str, Any]) -> None:
    """What a with block holds must not be copied, and may be what starting a thread waits for."""
    work = amorsize.parallel(in_a_with_block, **way)
    assert work.map([0, 1], kwargs={"lock": threading.Lock()}) == [0, 1]
    assert "the first item had been running" not in revisions(work)


@pytest.mark.parametrize("way", WAYS)
def test_a_first_item_that_fails_ends_the_others(way: dict[str, Any], tmp_path: Path) -> None:
    """Its exception is raised, and no worker is left."""
    before = set(psutil.Process().children())
    work = amorsize.parallel(fails_first, **way)
    with pytest.raises(LookupError) as caught:
        work.map(range(40), kwargs={"folder": str(tmp_path)})
    assert "raised by item 0" in caught.value.__notes__[0]
    assert "the first item had been running" in revisions(work)
    assert not set(psutil.Process().children()) - before
    assert not multiprocessing.active_children()
    assert threading.active_count() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="there is no such timer elsewhere")
def test_a_signal_at_the_very_end_of_the_first_item_does_not_end_the_process() -> None:
    """One that had come and was not handled yet set the timer again, and the next one found nobody: exit code -14."""
    lines = (
        "import sys, time",
        "from amorsize._backend._early import watching",
        "def run(seconds):",
        "    with watching(lambda: 20e-6, run.__code__, 20e-6):",
        "        end = time.perf_counter() + seconds",
        "        while time.perf_counter() < end:",
        "            pass",
        "for i in range(20_000):",
        "    run(i % 100 * 1e-6)",
        "time.sleep(0.1)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], timeout=60, check=False)
    assert done.returncode == 0


def long_first(x: int) -> int:
    """Item 0 takes 50 ms, the others nothing."""
    end = time.monotonic() + 0.05
    while x == 0 and time.monotonic() < end:
        sum(range(1000))
    return x


def test_tiny_items_behind_a_long_one_come_in_few_chunks() -> None:
    """Cut for items as long as the first, a thousand came home in five hundred messages of two."""
    work = amorsize.parallel(long_first, start_method="fork")
    assert work.map(range(1000)) == list(range(1000))
    assert work.last_plan is not None
    assert "the first item had been running" in revisions(work)
    assert len(work.last_plan.timeline) <= 200


SHORT_CALL = """
import sys
import amorsize
from amorsize import _host, _types

def rows(n):
    return [{"name": str(i), "value": i} for i in range(n)]

work = amorsize.parallel(rows)
work.map([300] * 150)
unread = _host._snapshot is None
plan = work.last_plan
print(unread, plan.backend, plan.reason is not _types.Reason.FASTER, plan.host.memory_bytes < sys.maxsize)
"""


def test_a_first_call_that_cannot_pay_does_not_look_at_the_host() -> None:
    """Reading it takes as long as such a call gains at best; its plan is about the real machine all the same."""
    done = run_code(SHORT_CALL)
    assert (done.stdout, done.stderr) == ("True sequential True True\n", "")
