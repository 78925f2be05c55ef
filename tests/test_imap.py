from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize._profile import CACHE
from tests import functions
from tests.faults.harness import end_threads, run_code, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAYS = [
    pytest.param({"n_jobs": 1}, id="serial"),
    pytest.param(
        {"n_jobs": 2, "start_method": "fork"},
        id="fork",
        marks=pytest.mark.skipif(sys.platform != "linux", reason="fork is only used on Linux"),
    ),
    pytest.param({"n_jobs": 2, "start_method": "loky"}, id="loky"),
    pytest.param({"n_jobs": 2, "prefer": "threads"}, id="threads"),
]


class Source:
    """Numbers without end; knows how many have been read, and by which threads."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.n_read = 0
        self.threads: set[int] = set()
        self.fails_at = fails_at

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            if number == self.fails_at:
                raise LookupError(number)
            self.n_read += 1
            self.threads.add(threading.get_ident())
            yield number


@pytest.fixture(autouse=True)
def alone() -> None:
    """Have no thread that forbids a fork."""
    end_threads()


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("buffersize", [1, 2, 7, 100])
@pytest.mark.parametrize("way", WAYS)
def test_no_more_is_read_than_the_buffer_holds(way: dict[str, Any], buffersize: int, *, ordered: bool) -> None:
    """Whatever is asked for, at most buffersize items are read beyond those yielded, by this thread only."""
    source = Source()
    with functions.slow.with_options(**way).imap(source, ordered=ordered, buffersize=buffersize) as stream:
        assert source.n_read == 0
        results = []
        for n_yielded, result in enumerate(itertools.islice(stream, 40), 1):
            results.append(result)
            assert source.n_read <= n_yielded + buffersize
    n_read = source.n_read
    assert len(set(results)) == 40
    assert results == list(range(40)) or not ordered
    assert source.threads == {threading.get_ident()}
    assert source.n_read == n_read


@pytest.mark.parametrize("way", WAYS)
def test_an_endless_input_is_not_read_to_its_end(way: dict[str, Any]) -> None:
    """By default, too, look-ahead is bounded; a closed stream leaves workers that can be used."""
    source = Source()
    chosen = functions.slow.with_options(**way)
    stream = chosen.imap(source)
    assert list(itertools.islice(stream, 100)) == list(range(100))
    assert source.n_read < 100_000
    assert chosen.last_plan is not None
    assert (chosen.last_plan.backend == "sequential") == (way["n_jobs"] == 1)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)
    assert list(chosen.imap(range(30))) == list(range(30))


@pytest.mark.parametrize("more", [{}, {"retries": 1}, {"timeout": 60}], ids=["plain", "retries", "timeout"])
@pytest.mark.parametrize("way", WAYS[1:])
def test_little_is_read_ahead_for_a_function_never_seen(way: dict[str, Any], more: dict[str, Any]) -> None:
    """As many items as take nothing were read once, eight million, and then dealt out two million at a time."""

    def new(x: int) -> int:
        time.sleep(2e-3)
        return x

    CACHE.clear()  # the function of another parameter has the same code
    source = Source()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", amorsize.exceptions.AmorsizeWarning)  # threads cannot be stopped
        stream = amorsize.parallel(new, **way, **more).imap(source)
        assert next(stream) == 0
    assert source.n_read <= 20
    assert [next(stream) for _ in range(60)] == list(range(1, 61))
    assert source.n_read < 2_000
    stream.close()


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("way", WAYS[1:])
def test_a_result_is_not_kept_back_for_a_slow_input(way: dict[str, Any], *, ordered: bool) -> None:
    """What is there is yielded before more is read; a whole buffer, here of 400 items, was read first once."""

    def quick(x: int) -> int:
        time.sleep(1e-3)
        return x

    n_read = 0

    def feed() -> Iterator[int]:
        nonlocal n_read
        for n_read in range(1, 201):
            time.sleep(5e-3)
            yield n_read

    chosen = amorsize.parallel(quick, **way)
    assert chosen.map(range(100)) == list(range(100))
    ahead, results = [], []
    for n_yielded, result in enumerate(chosen.imap(feed(), ordered=ordered), 1):
        ahead.append(n_read - n_yielded)
        results.append(result)
    assert sorted(results) == list(range(1, 201))
    assert results == sorted(results) or not ordered
    assert sorted(ahead)[100] <= 20


@pytest.mark.parametrize("way", WAYS)
def test_an_exception_of_the_input_comes_after_the_items_before_it(way: dict[str, Any]) -> None:
    """It is raised where the loop would have raised it."""
    stream = functions.slow.with_options(**way).imap(Source(fails_at=25))
    assert [next(stream) for _ in range(25)] == list(range(25))
    with pytest.raises(LookupError, match="25"):
        next(stream)


@pytest.mark.parametrize("way", WAYS)
def test_an_exception_of_an_item_comes_in_its_place(way: dict[str, Any]) -> None:
    """The results before it are yielded first, and the item is named."""

    def inverse(x: int) -> float:
        return 1 / (x - 20)

    stream = amorsize.parallel(inverse, **way).imap(itertools.count(), buffersize=64)
    assert [next(stream) for _ in range(20)] == [1 / (x - 20) for x in range(20)]
    with pytest.raises(ZeroDivisionError) as caught:
        next(stream)
    assert caught.value.__notes__ == ["amorsize: raised by item 20: 20"]


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_left_open_at_exit_says_nothing_and_leaves_no_file(way: dict[str, Any], tmp_path: Path) -> None:
    """Dropped while the interpreter goes down, one over loky complained that modules were gone, and left its board."""
    lines = (
        "import itertools, time",
        "import amorsize",
        "def slow(x):",
        "    time.sleep(2e-3)",
        "    return x",
        f"stream = amorsize.parallel(slow, **{way!r}).imap(itertools.count())",
        "assert [next(stream) for _ in range(40)] == list(range(40))",
    )
    ended = run_code("\n".join(lines), TMPDIR=str(tmp_path))
    assert ended.returncode == 0
    assert ended.stdout == ended.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_caller_that_is_killed_leaves_no_file(tmp_path: Path) -> None:
    """Nothing of its own runs then: a process that outlives it takes the files away."""
    lines = (
        "import itertools, os, signal",
        "from tests import functions",
        "stream = functions.slow.with_options(n_jobs=2, start_method='loky').imap(itertools.count())",
        "assert [next(stream) for _ in range(40)] == list(range(40))",
        "print(len(os.listdir(os.environ['TMPDIR'])), flush=True)",
        "os.kill(os.getpid(), signal.SIGKILL)",
    )
    ended = run_code("\n".join(lines), TMPDIR=str(tmp_path))
    assert (ended.stdout, ended.returncode) == ("1\n", -signal.SIGKILL)
    wait_until(lambda: list(tmp_path.iterdir()) == [])
