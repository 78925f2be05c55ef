from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import amorsize
from tests.faults import figures, fuzz
from tests.faults.beside import Round
from tests.faults.harness import Scenario, end_threads, killer, leaks, look
from tests.faults.places import PROGRAMS, run_program

if TYPE_CHECKING:
    from pathlib import Path

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks, sends signals, looks into /proc")


@linux
@pytest.mark.filterwarnings("ignore::amorsize.exceptions.AmorsizeWarning")
@pytest.mark.parametrize("fault", ["none", "raise", "kill", "exit", "once", "unpicklable", "hang", "outside"])
def test_maps_with_a_fault(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are the loop's or the promised error, nothing runs too often, and nothing is left behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    end_threads()
    with killer() as kill:
        others = frozenset({kill.pid})
        before = look(others)
        for seed in range(6):
            scenario = Scenario(seed, tmp_path, way="fork", fault=fault)
            answer = scenario.run(kill if fault == "outside" else None)
            assert not scenario.wrong(answer), scenario
            assert not leaks(before, others), scenario


@linux
@pytest.mark.filterwarnings("ignore::amorsize.exceptions.AmorsizeWarning")
def test_maps_with_a_fault_in_fresh_interpreters(tmp_path: Path) -> None:
    """The same with loky's workers, and with threads."""
    try:
        for seed, way, fault in (
            (1, "loky", "raise"),
            (2, "loky", "once"),
            (3, "threads", "raise"),
            (4, "open", "none"),
        ):
            scenario = Scenario(seed, tmp_path, way=way, fault=fault)
            assert not scenario.wrong(scenario.run()), scenario
    finally:
        end_threads()


@linux
@pytest.mark.filterwarnings("ignore::amorsize.exceptions.AmorsizeWarning", "ignore:.*fork.*:DeprecationWarning")
def test_runs_beside_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends with the loop's results, whatever happens to the others, and nothing is left behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # in the common one, other programs' files come and go
    amorsize.parallel(abs, n_jobs=2, start_method="loky", retries=1).map(range(4))
    end_threads()
    before = look()
    for seed in range(15):
        assert Round(seed).run() == [], seed
    end_threads()
    assert not leaks(before)


@linux
@pytest.mark.parametrize("way", ["fork", "fork-stream", "threads"])
def test_ctrl_c_ends_a_map_and_leaves_nothing(way: str) -> None:
    """Ctrl-C at a random moment: nothing is left, nothing is said, and the session goes on."""
    ends, left, unusable, lost = figures.interrupt(way, 3, seed=1)
    assert (len(ends), left, unusable, lost) == (3, [], 0, 0)


@linux
@pytest.mark.parametrize(
    "name",
    [
        "through asyncio.to_thread",
        "after os.fork",
        "in a multiprocessing child that ends with workers starting",
        "with stdin closed",
        "with few descriptors",
        "with state as of the call",
        "in another working directory",
        "with an edited and reloaded module",
    ],
)
def test_map_works_where_it_is_called_from(name: str, tmp_path: Path) -> None:
    """The right results, or the loop with its reason, and not a word on stderr."""
    assert run_program(name, tmp_path) == (" ".join(PROGRAMS[name][1].split()), "", 0)


def test_bad_texts_are_no_errors() -> None:
    """Mutated cgroup files, mount tables and environment values, and readings that fail."""
    assert fuzz.run(20_000, seed=7) == []


MID_RUN = """
import os, threading, time, warnings
import amorsize

caller = os.getpid()

def work(n):
    if os.getpid() == caller:
        if n > 10 and threading.active_count() == 1:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    elif n > 20 and not os.path.exists("died"):
        with open("died", "w") as file:
            file.write(str(os.getpid()))
        os._exit(3)
    time.sleep(0.005)
    return os.getpid()

warnings.simplefilter("ignore")
found = amorsize.parallel(work, n_jobs=2, start_method="fork", errors="return").map(range(200))
workers = {pid for pid in found if isinstance(pid, int)} - {caller}
print(len(found), workers <= {int(open("died").read())}, sum(isinstance(one, Exception) for one in found) < 200)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_nothing_is_forked_in_mid_run_beside_a_thread_that_an_item_has_started(tmp_path: Path) -> None:
    """A worker that dies is replaced only where the process may still be forked; else the rest runs here."""
    done = subprocess.run(
        [sys.executable, "-c", MID_RUN], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "200 True True\n", done.stderr
