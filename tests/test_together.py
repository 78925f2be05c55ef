"""Runs beside one another and beside what the program does meanwhile: none ends, starves or blames another."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import amorsize
from amorsize._backend import _local
from amorsize.exceptions import WorkerDied
from tests import functions
from tests.faults.harness import end_threads, run_code, wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks")
LOKY: dict[str, Any] = {"n_jobs": 2, "start_method": "loky"}
FORK: dict[str, Any] = {"n_jobs": 2, "start_method": "fork"}


@pytest.fixture(autouse=True)
def _alone() -> None:
    end_threads()


def slow(x: int) -> int:
    """Take 2 ms."""
    time.sleep(2e-3)
    return x


def slower(x: int) -> int:
    """Take 10 ms."""
    time.sleep(0.01)
    return x


def dies(x: int) -> int:
    """End the worker at item 20."""
    time.sleep(2e-3)
    if x == 20:
        os._exit(1)
    return x


class TestStreams:
    """Streams open beside one another, and beside processes that the program forks."""

    @linux
    def test_two_forked_streams_end_in_any_order(self) -> None:
        """The workers of the second hold copies of the first one's pipes, whose end nobody sees then."""
        first = amorsize.parallel(slow, **FORK).imap(range(40))
        second = amorsize.parallel(slow, **FORK).imap(range(400))
        assert (next(first), next(second)) == (0, 0)
        assert list(first) == list(range(1, 40))
        assert list(second) == list(range(1, 400))

    @linux
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_stream_ends_while_a_process_forked_meanwhile_lives(self) -> None:
        """It holds copies of the pipes too."""
        stream = amorsize.parallel(slow, **FORK).imap(range(100))
        assert next(stream) == 0
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                time.sleep(60)
            os._exit(0)
        try:
            assert list(stream) == list(range(1, 100))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    @linux
    @pytest.mark.parametrize("way", ["fork", "loky"])
    def test_a_forked_copy_of_the_program_that_ends_leaves_the_workers_alone(self, way: str) -> None:
        """They are its parent's."""
        done = run_code(
            "import os, sys\nfrom tests import functions\n"
            "def main():\n"
            f"    stream = functions.slow.with_options(n_jobs=2, start_method={way!r}).imap(range(300))\n"
            "    assert next(stream) == 0\n"
            "    if os.fork() == 0:\n"
            "        sys.exit(0)\n"
            "    os.wait()\n"
            "    print(list(stream) == list(range(1, 300)))\n"
            "main()\n"
        )
        assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)

    @linux
    def test_an_item_of_a_forked_stream_that_cannot_be_opened_is_named(self, capfd: pytest.CaptureFixture[str]) -> None:
        """It killed one worker after another, and nobody knew why."""
        items = [functions.Unopenable(x) if x == 50 else x for x in range(100)]
        results = list(amorsize.parallel(identity, errors="return", **FORK).imap(items))
        assert [x for x in results if not isinstance(x, Exception)] == [x for x in range(100) if x != 50]
        assert isinstance(results[50], ValueError)
        assert capfd.readouterr().err == ""

    @linux
    def test_an_item_of_a_forked_stream_that_takes_too_long_is_named(self) -> None:
        """As a map names it."""
        results = list(amorsize.parallel(late, timeout=0.3, errors="return", **FORK).imap(range(20)))
        assert results[:7] == list(range(7))
        assert results[7].index == 7
        assert str(results[7]).startswith("item 7 took longer than timeout=0.3 s")


def identity(x: Any) -> Any:
    """Return the item."""
    return x


def late(x: int) -> int:
    """Take 2 s for item 7."""
    time.sleep(2.0 if x == 7 else 1e-3)
    return x


class TestShared:
    """Runs that share loky's workers."""

    def test_shutdown_leaves_workers_alone_that_are_at_work(self) -> None:
        """It ends idle ones; the stream was told that an item had failed for want of an executor."""
        results = []
        for result in amorsize.parallel(slow, **LOKY).imap(range(300)):
            results.append(result)
            if result == 100:
                amorsize.shutdown()
        assert results == list(range(300))

    def test_an_interrupted_map_leaves_the_workers_to_another_thread(self) -> None:
        """The other map ended with the news that workers had died."""

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(amorsize.parallel(slower, **LOKY).map, range(150))
            wait_until(_local.LOKY.is_warm)
            with pytest.raises(KeyboardInterrupt):
                amorsize.parallel(slower, progress=interrupt, **LOKY).map(range(100))
            assert other.result(60) == list(range(150))

    def test_a_closed_stream_leaves_the_workers_to_another_thread(self) -> None:
        """Even if it has an item that runs on."""
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(amorsize.parallel(slower, **LOKY).map, range(300))
            wait_until(_local.LOKY.is_warm)
            stream = amorsize.parallel(late, **LOKY).imap(range(7, 400))
            iter(stream)
            stream.close()
            assert other.result(60) == list(range(300))

    def test_a_larger_map_beside_a_smaller_one(self) -> None:
        """The pool grows under the smaller one, which is not told that its workers died."""
        two, three = amorsize.parallel(slower, **LOKY), amorsize.parallel(slower, **{**LOKY, "n_jobs": 3})
        with ThreadPoolExecutor(2) as pool:
            for _ in range(3):
                found = [pool.submit(two.map, range(100)), pool.submit(three.map, range(100))]
                assert [f.result(60) for f in found] == [list(range(100))] * 2
                amorsize.shutdown()

    def test_a_death_is_told_to_each_run_once(self) -> None:
        """All that one pool had goes down together; those who may try again do, with the pool of whoever was first."""
        with ThreadPoolExecutor(2) as pool:
            guilty = pool.submit(amorsize.parallel(dies, timeout=60, **LOKY).map, range(60))
            other = pool.submit(amorsize.parallel(slow, retries=2, **LOKY).map, range(300))
            with pytest.raises(WorkerDied):
                guilty.result(60)
            assert other.result(60) == list(range(300))

    @linux
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_a_stream_whose_closing_is_interrupted_lets_go_of_the_workers(self) -> None:
        """They were taken to be at work for ever, and never ended."""
        stream = amorsize.parallel(stuck, timeout=60, **LOKY).imap(range(10))
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            assert next(stream) == 0
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with contextlib.suppress(KeyboardInterrupt):
                stream.close()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        amorsize.shutdown()
        assert not _local.LOKY.is_warm()

    @linux
    def test_a_copy_of_the_program_that_closes_a_stream_leaves_its_function_there(self) -> None:
        """The function of the parent's stream lay in a file, which the copy removed."""
        done = run_code(
            "import os, time\nimport amorsize\nfrom tests import functions\n"
            "big = list(range(100_000))\n"
            "def func(x, big=big):\n"
            "    time.sleep(2e-3)\n"
            "    return big[x]\n"
            "stream = amorsize.parallel(func, n_jobs=2, start_method='loky').imap(range(300))\n"
            "assert next(stream) == 0\n"
            "if os.fork() == 0:\n"
            "    stream.close()\n"
            "    os._exit(0)\n"
            "os.wait()\n"
            "functions.slow.with_options(n_jobs=2, start_method='loky').map(range(60))\n"
            "print(list(stream) == list(range(1, 300)))\n"
        )
        assert (done.stdout, done.stderr) == ("True\n", "")

    def test_the_next_run_finds_the_state_as_of_its_call(self) -> None:
        """What a function changed in its worker was there for the next one."""
        here = str(Path.cwd())
        moving = amorsize.parallel(moves, retries=1, **LOKY)
        for _ in range(3):
            # The worker's own first item; the ones behind it in the same run see what it has done.
            assert here in moving.map(range(6))


def stuck(x: int) -> int:
    """Take 3 s for all but the first item."""
    time.sleep(3.0 if x else 0.0)
    return x


def moves(x: int) -> str:
    """Go elsewhere, and return where it was."""
    del x
    time.sleep(5e-3)
    before = str(Path.cwd())
    os.chdir("/")
    return before


class TestSignals:
    """Handlers that run while the main thread is at work."""

    @linux
    @pytest.mark.parametrize("after_s", [0.05, 0.35, 0.6, 0.9])
    def test_a_handler_may_end_the_workers_and_the_program(self, after_s: float) -> None:
        """Whatever the main thread is doing with them: it was waiting for itself."""
        done = run_code(
            "import os, signal, sys, threading\nimport amorsize\nfrom tests import functions\n"
            "def end(*_):\n"
            "    amorsize.shutdown()\n"
            "    sys.exit(7)\n"
            "signal.signal(signal.SIGTERM, end)\n"
            f"threading.Timer({after_s}, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
            "while True:\n"
            "    functions.slow.with_options(n_jobs=2, start_method='loky').map(range(60))\n"
            "    amorsize.shutdown()\n"
        )
        assert done.returncode == 7


class TestRefusals:
    """What the system or the program does not give."""

    @linux
    def test_threads_that_cannot_be_had(self) -> None:
        """The loop, with a warning, as where processes are refused."""
        done = run_code(
            "import resource\nimport amorsize._backend._threads\nfrom tests import functions\n"
            "func = functions.slow.with_options(n_jobs=3, prefer='threads')\n"
            "func.plan(range(60))\n"
            "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
            "resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 20),) * 2)\n"
            "print(func.map(range(60)) == list(range(60)))\n"
        )
        assert done.stdout == "True\n"
        assert "threading workers cannot be started: can't start new thread; items run in this process" in done.stderr

    @linux
    @pytest.mark.parametrize("room_mb", [2, 4, 6, 8, 12])
    def test_too_little_memory_for_a_pool_is_no_hang(self, room_mb: int) -> None:
        """The thread that takes in loky's answers died of it, and the caller waited for them for ever."""
        done = run_code(
            "import resource\nimport amorsize\nfrom tests import functions\n"
            "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
            f"resource.setrlimit(resource.RLIMIT_AS, (used + ({room_mb} << 20),) * 2)\n"
            "try:\n"
            "    print(functions.slow.with_options(n_jobs=2, start_method='loky').map(range(60)) == list(range(60)))\n"
            "except (amorsize.exceptions.AmorsizeError, MemoryError, OSError, SystemError, ImportError) as error:\n"
            "    print(True)\n"
        )
        assert done.stdout == "True\n"

    @pytest.mark.parametrize("stream", ["None", "open(os.devnull)", "closed"])
    def test_standard_streams_that_cannot_be_flushed(self, stream: str) -> None:
        """A daemon has none, and loky flushes them before it starts a worker."""
        change = "sys.stdout.close()" if stream == "closed" else f"sys.stdout = {stream}"
        done = run_code(
            f"import os, sys\nfrom tests import functions\n{change}\n"
            "func = functions.slow.with_options(n_jobs=2, start_method='loky')\n"
            "found = func.map(range(60)) == list(func.imap(range(60))) == list(range(60))\n"
            "print(found, func.last_plan.backend, file=sys.stderr)\n"
        )
        assert (done.stderr.strip(), done.returncode) in {("True loky", 0), ("True loky", 120)}

    @pytest.mark.parametrize("name", ["JOBLIB_MULTIPROCESSING", "LOKY_MAX_DEPTH"])
    def test_a_variable_that_joblib_cannot_read(self, name: str) -> None:
        """Its import fails of it; the loop does not."""
        done = run_code(
            "from tests import functions\nfunc = functions.slow.with_options(start_method='loky')\n"
            "print(func.map(range(300)) == list(range(300)), *func.last_plan.host.unavailable)\n",
            **{name: "abc"},
        )
        assert done.stdout == "True loky\n"
        assert f"start_method='loky' cannot be used: {name}='abc' is not a number" in done.stderr
        assert "Traceback" not in done.stderr

    def test_at_exit_the_loop_is_left(self) -> None:
        """No thread may be started then, which loky's workers need."""
        done = run_code(
            "import atexit, threading, time\nfrom tests import functions\n"
            "threading.Thread(target=time.sleep, args=(20,), daemon=True).start()\n"
            "@atexit.register\n"
            "def end():\n"
            "    print(functions.slow.map(range(300)) == list(range(300)), functions.slow.last_plan.backend)\n"
        )
        assert (done.stdout, done.stderr) == ("True sequential\n", "")


def cutting(data: list[int]) -> Any:
    """Return a progress function that takes away what has not been begun."""

    def progress(done: int, total: int | None, elapsed_s: float) -> None:
        del total, elapsed_s
        if done > 100:
            del data[500:]

    return progress


@pytest.mark.parametrize("way", [pytest.param(FORK, marks=linux, id="fork"), LOKY, {"n_jobs": 2, "prefer": "threads"}])
def test_an_input_that_becomes_shorter_is_an_error_and_no_endless_loop(way: dict[str, Any]) -> None:
    """As a dictionary that changes under its loop."""
    data = list(range(1000))
    func = amorsize.parallel(slow, **way)
    assert func.map(range(1000)) == data
    with contextlib.suppress(RuntimeError):  # where all has been handed out before, nothing is missing
        assert func.with_options(progress=cutting(data)).map(data) == list(range(1000))
    assert threading.active_count() < 50


def test_a_pool_that_is_ended_with_tasks_not_yet_queued_leaves_no_thread() -> None:
    """Loky's manager died looking for a task that it had dropped: its feeder stayed, and forbade every later fork."""
    pool = _local.Loky()
    pool.ensure(2)
    executor = pool._executor
    held, go = threading.Event(), threading.Event()

    def holds_the_manager(result: Any, error: BaseException | None) -> None:
        del result, error
        held.set()
        go.wait(30)

    pool.submit(time.monotonic, holds_the_manager)
    assert held.wait(30)
    pool.submit(time.monotonic, lambda *_: None)
    assert executor._work_ids.qsize() == 1
    threading.Timer(0.2, go.set).start()
    served = pool.threads()
    pool.close(kill=True)
    wait_until(lambda: not any(thread.is_alive() for thread in served))
