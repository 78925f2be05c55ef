"""
Measures what the constants of the cost model stand for, one line each: run it to see what they are on this machine.

    python tests/benchmarks/probes.py

Each figure is the median of several repetitions; the machine should be quiet.
"""

from __future__ import annotations

import os
import pickle
import statistics
import subprocess
import sys
import threading
import time
import timeit
from collections.abc import Callable

clock = time.perf_counter


def median_s(measure: Callable[[], float], n: int = 9) -> float:
    """Return the median of *n* measurements, in seconds."""
    return statistics.median(measure() for _ in range(n))


def say(what: str, value: float, unit: str, used_for: str) -> None:
    """Print one figure and the constant it stands behind."""
    print(f"{what:58s} {value:10.3g} {unit:6s} {used_for}")


def fork_parts() -> tuple[float, float, float, float]:
    """Fork once; returns seconds in the caller, until the child answers, of a round trip, and until it has ended."""
    to_child, from_child = os.pipe(), os.pipe()
    begin = clock()
    pid = os.fork()
    if pid == 0:
        os.write(from_child[1], b"x")
        os.read(to_child[0], 1)
        os.write(from_child[1], b"x")
        os._exit(0)
    forked = clock()
    os.read(from_child[0], 1)
    up = clock()
    os.write(to_child[1], b"x")
    os.read(from_child[0], 1)
    back = clock()
    os.waitpid(pid, 0)
    ended = clock()
    for fd in (*to_child, *from_child):
        os.close(fd)
    return forked - begin, up - begin, back - up, ended - begin


def forks() -> None:
    """Measure forking, small and with 400 MB resident."""
    for label in ("small process", "with 400 MB more"):
        ballast = bytearray(os.urandom(1 << 20) * 400) if label != "small process" else b""
        parts = [fork_parts() for _ in range(15)]
        in_caller, up, trip, ended = (statistics.median(p[i] for p in parts) for i in range(4))
        say(f"fork, {label}: in the caller", in_caller * 1e3, "ms", "start_each_s of fork")
        say(f"fork, {label}: until the child answers", up * 1e3, "ms", "")
        say(f"fork, {label}: until it has ended", ended * 1e3, "ms", "start_s of fork; FORK_S_PER_BYTE")
        say(f"fork, {label}: round trip through pipes", trip * 1e6, "us", "batch_overhead_s of fork; FLOOR_S")
        del ballast


def through_loky() -> None:
    """Measure a cold start of loky's workers, and warm tasks."""
    from joblib.externals import loky  # noqa: PLC0415 - the import is not part of what is measured

    def cold() -> float:
        begin = clock()
        executor = loky.ProcessPoolExecutor(max_workers=2)
        executor.submit(os.getpid).result()
        taken = clock() - begin
        executor.shutdown()
        return taken

    say("loky, 2 workers: cold start", median_s(cold, 3), "s", "start_s of loky")
    executor = loky.ProcessPoolExecutor(max_workers=2)
    executor.submit(os.getpid).result()

    def warm() -> float:
        begin = clock()
        for _ in range(50):
            executor.submit(os.getpid).result()
        return (clock() - begin) / 50

    say("loky, warm: one task and back", median_s(warm) * 1e6, "us", "batch_overhead_s of loky; FLOOR_S")
    data = os.urandom(8 << 20)

    def send() -> float:
        begin = clock()
        executor.submit(len, data).result()
        return len(data) / (clock() - begin)

    say("loky, warm: bytes sent", median_s(send) / 1e9, "GB/s", "send_bytes_per_s of loky")
    executor.shutdown()


def spin(seconds: float) -> int:
    """Count as far as possible in *seconds* of wall time."""
    end, n = clock() + seconds, 0
    while clock() < end:
        n += 1
    return n


def starting_speed() -> None:
    """Measure how fast the caller goes on while two interpreters start and import NumPy beside it."""
    alone = statistics.median(spin(0.3) for _ in range(5))

    def beside() -> float:
        code = "import joblib, numpy"
        children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        n = spin(0.3)
        for child in children:
            child.wait(30)
        return n / alone

    say("caller's speed beside two starting interpreters", median_s(beside, 5), "x", "STARTING_SPEED")


def flat_buffers() -> None:
    """Measure pickling flat buffers, and what both cores read from memory together."""
    data = os.urandom(16 << 20)

    def both_ways() -> float:
        begin = clock()
        pickle.loads(pickle.dumps(data, protocol=5))
        return 2 * len(data) / (clock() - begin)

    say("pickling 16 MB of bytes, both ways", median_s(both_ways) / 1e9, "GB/s", "_bounds.FLAT_BYTES_PER_S")
    import numpy as np  # noqa: PLC0415 - only here

    arrays = [np.ones(1 << 20) for _ in range(24)]

    def summed(n_threads: int) -> float:
        def work(part: list[np.ndarray]) -> None:
            for array in part:
                array.sum()

        threads = [threading.Thread(target=work, args=(arrays[i::n_threads],)) for i in range(n_threads)]
        begin = clock()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(a.nbytes for a in arrays) / (clock() - begin)

    say("summing 8 MB arrays, one thread", median_s(lambda: summed(1)) / 1e9, "GB/s", "")
    say("summing 8 MB arrays, two threads", median_s(lambda: summed(2)) / 1e9, "GB/s", "MEMORY_BYTES_PER_S")


def unpickling() -> None:
    """Print what unpickling takes relative to pickling, by kind of value."""
    values = {
        "bytes": b"x" * 100_000,
        "texts": [str(i) * 3 for i in range(10_000)],
        "dictionaries": [{"a": i, "b": str(i)} for i in range(3000)],
        "floats": [i / 7 for i in range(10_000)],
        "integers": list(range(10_000)),
        "tuples": [(i, float(i), str(i)) for i in range(5000)],
    }
    for name, value in values.items():
        data = pickle.dumps(value, protocol=5)
        dumps_s = min(timeit.repeat(lambda value=value: pickle.dumps(value, protocol=5), number=3, repeat=15))
        loads_s = min(timeit.repeat(lambda data=data: pickle.loads(data), number=3, repeat=15))
        say(f"unpickling {name}, per second of pickling", loads_s / dumps_s, "", "_bounds.LOADS_SHARE")


def touched() -> None:
    """Measure what a forked process loses on first touching each object, as a share of pickling it both ways."""
    kinds: dict[str, Callable[[int], object]] = {
        "floats": lambda i: i * 0.5,
        "integers": lambda i: i << 20,
        "strings": lambda i: str(i * 0.1),
        "dictionaries": lambda i: {"name": str(i), "value": i * 0.5},
    }
    for name, make in kinds.items():
        items = [[make(i) for i in range(4000)] for _ in range(50)]
        begin = clock()
        for item in items:
            pickle.loads(pickle.dumps(item, protocol=5))
        both_ways_s = clock() - begin
        share = median_s(lambda items=items: lost_on_touching(items), 5) / both_ways_s  # type: ignore[misc]
        say(f"touching {name} in a fork / pickling them both ways", share, "x", "TOUCH_SHARE")


def lost_on_touching(items: list[list[object]]) -> float:
    """Return by how many seconds a forked process's first look at all items takes longer than its second."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        times = []
        for _ in range(2):
            begin = clock()
            for item in items:
                for _ in item:
                    pass
            times.append(clock() - begin)
        os.write(write, pickle.dumps(times[0] - times[1]))
        os._exit(0)
    os.waitpid(pid, 0)
    lost_s: float = pickle.loads(os.read(read, 1000))
    os.close(read)
    os.close(write)
    return lost_s


def threads() -> None:
    """Measure starting a thread and having it answer."""

    def once() -> float:
        done = threading.Event()
        begin = clock()
        threading.Thread(target=done.set).start()
        done.wait()
        return clock() - begin

    say("thread: start until it answers", median_s(once, 50) * 1e6, "us", "start_s, start_each_s of threading")


def main() -> None:
    """Print everything that can be measured here."""
    if hasattr(os, "fork"):
        forks()
        touched()
    threads()
    through_loky()
    starting_speed()
    flat_buffers()
    unpickling()


if __name__ == "__main__":
    main()
