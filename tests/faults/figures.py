"""
Prints the figures of the fault bars: `python -m tests.faults.figures [name ...] [--rounds N]`.

Each line says what was done, how often, and what came of it. Nothing here fails on a duration; the reader compares.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import amorsize
from amorsize.exceptions import WorkerDied
from tests.faults.functions import PlannedError, plain, work
from tests.faults.harness import FORK, LOKY, ROOT, SERVER, THREADS, end_threads, killer, leaks, look

if TYPE_CHECKING:
    from collections.abc import Callable


def say(text: str) -> None:
    """Print one line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def spread(values: list[float]) -> str:
    """Return median and largest of seconds."""
    return f"median {statistics.median(values) * 1e3:.0f} ms, longest {max(values) * 1e3:.0f} ms" if values else "none"


def kills(rounds: int) -> bool:
    """Kill a worker at a random moment; the call must end, with what was finished kept."""
    good = True
    for name, options in (("fork", FORK), ("forkserver", SERVER), ("loky", LOKY)):
        ends: list[float] = []
        told, kept, wrong, survived, most_lost = 0, 0, 0, 0, 0
        end_threads()
        with killer() as kill, tempfile.TemporaryDirectory() as folder:
            tempfile.tempdir = folder
            before = look(frozenset({kill.pid}))
            for seed in range(rounds // 2):
                function = work.with_options(**options)
                kwargs = {"log": f"{folder}/{seed}", "parent": os.getpid(), "sleep_s": 2e-3}
                if seed % 2:
                    # A warm pool half of the time; fork has none.
                    plain.with_options(**options, retries=1).map(range(4))
                kill.after(random.Random(seed).uniform(0.0, 0.25), seed)
                try:
                    answer: Any = function.map(range(300), kwargs=kwargs)
                except WorkerDied as error:
                    answer = error
                ended = time.monotonic()
                killed = kill.killed_at()
                if killed:
                    ends.append(max(0.0, ended - killed))
                if isinstance(answer, WorkerDied):
                    told += 1
                    kept += len(answer.results)
                    wrong += any(value != 3 * i for i, value in answer.results.items())
                    n_begun = len(Path(kwargs["log"]).read_text().split())
                    most_lost = max(most_lost, n_begun - len(answer.in_flight) - len(answer.results))
                else:
                    survived += 1
                    wrong += answer != [3 * x for x in range(300)]
                counts = Counter(Path(kwargs["log"]).read_text().split())
                wrong += max(counts.values(), default=0) > 1
                if name == "fork":
                    wrong += bool(leaks(before, frozenset({kill.pid}), 0))
        tempfile.tempdir = None
        say(
            f"kill, {name}: {rounds // 2} rounds, ended after the kill: {spread(ends)}; {told} WorkerDied with "
            f"{kept / max(1, told):.0f} results each on average, {survived} finished all the same, "
            f"at most {most_lost} done but not home, {wrong} wrong"
        )
        good = good and not wrong and max(ends, default=0) <= 5
    end_threads()
    return good


def raises(rounds: int) -> bool:
    """One item of 10,000 raises: the right exception and index, and the next call is warm."""
    good = True
    for name, options in (("fork", FORK), ("forkserver", SERVER), ("loky", LOKY), ("threads", THREADS)):
        with tempfile.TemporaryDirectory() as folder:
            function = work.with_options(**options)
            kwargs = {"log": f"{folder}/log", "parent": os.getpid(), "sleep_s": 0.0}
            plain.with_options(**options).map(range(20))
            warm: list[float] = []
            after: list[float] = []
            right = 0
            for i in range(rounds):
                begin = time.monotonic()
                plain.with_options(**options).map(range(40))
                warm.append(time.monotonic() - begin)
                at = random.Random(i).randrange(10_000)
                try:
                    function.map(range(10_000), kwargs=kwargs | {"acts": {at: "raise"}})
                except PlannedError as error:
                    right += error.args == (at,) and any(f"item {at}:" in text for text in error.__notes__)
                begin = time.monotonic()
                plain.with_options(**options).map(range(40))
                after.append(time.monotonic() - begin)
        say(
            f"raise, {name}: {right} of {rounds} with exception and index; "
            f"a call before it: {spread(warm)}; after it: {spread(after)}"
        )
        good = good and right == rounds
    end_threads()
    return good


def poison(rounds: int) -> bool:
    """One item of 1,000 kills its worker, `retries=1`, `errors="return"`: 999 results, the item named."""
    good = True
    for name, options in (("fork", FORK), ("forkserver", SERVER), ("loky", LOKY)):
        right, took = 0, []
        for i in range(rounds):
            at = random.Random(i).randrange(1000)
            with tempfile.TemporaryDirectory() as folder:
                function = work.with_options(**options, retries=1, errors="return")
                kwargs = {"log": f"{folder}/log", "parent": os.getpid(), "sleep_s": 0.0, "acts": {at: "kill"}}
                begin = time.monotonic()
                answer = function.map(range(1000), kwargs=kwargs)
                took.append(time.monotonic() - begin)
                failed = [x for x, value in enumerate(answer) if value != 3 * x]
                named = failed == [at] and isinstance(answer[at], WorkerDied) and answer[at].in_flight == (at,)
                counts = Counter(Path(f"{folder}/log").read_text().split())
                right += named and max(counts.values()) <= 2
        say(f"poison, {name}: {right} of {rounds} with 999 results and item named; took {spread(took)}")
        good = good and right == rounds
    end_threads()
    return good


_INTERRUPTED = """
import os, sys, threading, time
from tests.faults.functions import plain
from tests.faults import functions, harness
import amorsize

way, rounds = sys.argv[1], int(sys.argv[2])
options = harness.WAYS[way.split("-")[0]]

@amorsize.parallel(**options)
def slow(x):
    time.sleep(0.003)
    return x

def once():
    if way.endswith("-stream"):
        for _ in slow.imap(range(20_000)):
            pass
    else:
        slow.map(range(20_000))

if way.endswith("-warm"):
    plain.with_options(**options).map(range(30))
before = harness.look()
for i in range(rounds):
    if not way.endswith("-warm"):
        amorsize.shutdown()
    try:
        print("begin", flush=True)
        once()
        print("ended", flush=True)
    except KeyboardInterrupt:
        print("interrupted", time.monotonic(), flush=True)
    try:
        time.sleep(0.05)
        amorsize.shutdown()
        print("left", harness.leaks(before, patience_s=3) or "nothing", flush=True)
        good = plain.with_options(**options).map(range(20)) == [3 * x for x in range(20)]
        print("usable", good, flush=True)
        amorsize.shutdown()
        if i == 0:
            before = harness.look()
    except KeyboardInterrupt:
        print("left a late interrupt", flush=True)
        print("usable False", flush=True)
"""


def interrupts(rounds: int, ways: tuple[str, ...] = ("fork", "loky", "loky-warm", "threads", "fork-stream")) -> bool:
    """Send Ctrl-C to the process group of a real interpreter at a random moment."""
    good = True
    for way in ways:
        each = max(1, rounds // len(ways))
        ends, left, unusable, lost = interrupt(way, each)
        say(
            f"Ctrl-C, {way}: {each} rounds, ended after it: {spread(ends)}; "
            f"left behind: {left or 'nothing'}; not usable after it: {unusable}; no answer: {lost}"
        )
        good = good and not left and not unusable and not lost and max(ends, default=0) <= 1
    return good


def interrupt(way: str, rounds: int, seed: int = 0) -> tuple[list[float], list[str], int, int]:
    """Interrupt one interpreter again and again; returns seconds, what was left, unusable rounds, lost rounds."""
    folder = tempfile.mkdtemp()
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, way, str(rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in [str(ROOT), *sys.path] if p), "TMPDIR": folder},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    pick = random.Random(f"{way}{seed}")
    ends: list[float] = []
    left: list[str] = []
    unusable = lost = 0
    try:
        for _ in range(rounds):
            if _line(process, 30) != "begin":
                lost += 1
                break
            time.sleep(pick.choice((0.0, 0.001, 0.01, 0.1, 0.5)) * pick.uniform(0.5, 2))
            sent = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            words = _line(process, 15).split()
            if words[:1] != ["interrupted"]:
                left.append(f"answered {words} after {time.monotonic() - sent:.1f} s")
                lost += 1
                break
            ends.append(float(words[1]) - sent)
            found = _line(process, 30)
            if found != "left nothing":
                left.append(found[5:])
            unusable += _line(process, 30) != "usable True"
    finally:
        try:
            process.wait(20 if not lost else 0.1)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)
        text = process.stderr.read().decode(errors="replace")
        process.stdout.close()
        process.stderr.close()
        if text.strip():
            left.append(f"on stderr: {text.strip().splitlines()[-1][:200]}")
            if os.environ.get("AMORSIZE_FAULTS_SHOW"):
                say(text)
    return ends, left, unusable, lost


def _line(process: subprocess.Popen[bytes], timeout_s: float) -> str:
    """Return the next line, an empty one if none comes in time; nothing is buffered, so waiting means what it says."""
    assert process.stdout is not None
    line = b""
    while select.select([process.stdout], [], [], timeout_s)[0]:
        byte = os.read(process.stdout.fileno(), 1)
        if byte in {b"", b"\n"}:
            break
        line += byte
    return line.decode().strip()


def threads(rounds: int) -> bool:
    """Eight threads call map at once."""
    wrong: list[str] = []
    begin = time.monotonic()

    def calls(number: int) -> None:
        options: list[dict[str, Any]] = [LOKY, THREADS, {}, {"n_jobs": 1}]
        function = plain.with_options(**options[number % 4])
        for i in range(rounds):
            n = 10 + (7 * i + number) % 40
            try:
                if function.map(range(n)) != [3 * x for x in range(n)]:
                    wrong.append(f"thread {number}, round {i}")
            except Exception as error:  # noqa: BLE001 - counted and shown
                wrong.append(f"thread {number}, round {i}: {error!r}")

    team = [threading.Thread(target=calls, args=(number,), daemon=True) for number in range(8)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join(max(0.1, 300 + begin - time.monotonic()))
    stuck = sum(thread.is_alive() for thread in team)
    say(
        f"threads: 8 at once, {rounds} rounds: {len(wrong)} wrong {wrong[:3]}, {stuck} stuck, "
        f"took {time.monotonic() - begin:.1f} s"
    )
    end_threads()
    return not wrong and not stuck


FIGURES: dict[str, tuple[Callable[[int], bool], int]] = {
    "kills": (kills, 200),
    "raises": (raises, 10),
    "poison": (poison, 10),
    "interrupts": (interrupts, 100),
    "threads": (threads, 100),
}


def main() -> int:
    """Print the figures asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of " + ", ".join(FIGURES) + "; all by default")
    parser.add_argument("--rounds", type=int, help="instead of those of the bar")
    options = parser.parse_args()
    results = []
    for name in options.names or FIGURES:
        measure, rounds = FIGURES[name]
        results.append(measure(options.rounds or rounds))
    amorsize.shutdown()
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
