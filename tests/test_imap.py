from __future__ import annotations

import itertools
import operator
import signal
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize._known import CACHE
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
    # With retries no item runs here: workers that stay have answered when it returns.
    assert chosen.with_options(retries=1).map(range(100)) == list(range(100))
    ahead, results = [], []
    for n_yielded, result in enumerate(chosen.imap(feed(), ordered=ordered), 1):
        ahead.append(n_read - n_yielded)
        results.append(result)
    assert sorted(results) == list(range(1, 201))
    assert results == sorted(results) or not ordered
    # Were all of them read first, these would be 199 and 100; where the cores are shared, workers answer late.
    assert ahead[0] < 190
    assert sorted(ahead)[100] < 95


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


# -- what a stream is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_the_length_of_a_stream_is_what_is_to_come(way: dict[str, Any]) -> None:
    """Known where that of the items is; it shrinks with each result, and a bar can be drawn from it."""
    stream = functions.slow.with_options(**way).imap(range(6))
    assert isinstance(stream, amorsize.Stream)
    assert len(stream) == operator.length_hint(stream) == 6
    next(stream)
    assert len(stream) == 5
    assert len(list(stream)) == 5
    assert len(stream) == 0
    assert bool(stream)


def test_a_stream_of_unknown_length_has_none() -> None:
    """And says why; ``list`` and truth do not mind."""
    stream = functions.square.imap(x for x in range(3))
    with pytest.raises(TypeError, match=r"no len.*the number of items is not known"):
        len(stream)
    assert operator.length_hint(stream, 7) == 7
    assert bool(stream)
    assert list(stream) == [0, 1, 4]
    skipping = functions.square.imap([1, None], errors="skip")
    with pytest.raises(TypeError, match="errors='skip' leaves some out"):
        len(skipping)
    assert list(skipping) == [1]


def test_a_closed_stream_has_nothing_to_come() -> None:
    """What is left is nothing, not what would have been."""
    with functions.square.imap(range(10)) as stream:
        next(stream)
    assert len(stream) == 0


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_pairs_say_what_a_result_belongs_to(way: dict[str, Any], *, ordered: bool) -> None:
    """By item or by index, in order or as they complete, failures among them or left out."""
    chosen = functions.invert.with_options(**way)
    items = [4, 0, 2, 1, 0, 5]
    by_item = list(chosen.imap(items, pairs="item", ordered=ordered, errors="skip"))
    assert sorted(by_item) == [(x, 1 / x) for x in sorted(items) if x]
    by_index = dict(chosen.imap(items, pairs="index", ordered=ordered, errors="return"))
    assert {i for i, result in by_index.items() if isinstance(result, ZeroDivisionError)} == {1, 4}
    assert all(by_index[i] == 1 / x for i, x in enumerate(items) if x)
    if ordered:
        assert list(by_index) == list(range(len(items)))


@pytest.mark.parametrize("way", WAYS)
def test_istarmap_is_the_stream_of_starmap(way: dict[str, Any]) -> None:
    """Each item is unpacked, lazily; pairs name the tuple."""
    chosen = functions.combine.with_options(**way)
    items = [(i, i + 1) for i in range(30)]
    expected = chosen.starmap(items)
    assert list(chosen.istarmap(iter(items))) == expected
    assert list(chosen.istarmap(items, pairs="item")) == list(zip(items, expected, strict=True))
    endless = chosen.istarmap((i, i) for i in itertools.count())
    assert next(endless) == chosen(0, 0)
    endless.close()


def test_a_stream_does_not_measure_its_consumer() -> None:
    """Seconds between two results belong to who takes them."""
    work = amorsize.parallel(lambda x: x)
    began = time.perf_counter()
    for _ in work.imap(range(3)):
        time.sleep(0.05)
    ended = time.perf_counter()
    plan = work.last_plan
    assert plan is not None
    assert plan.actual_s is not None
    assert plan.actual_s <= ended - began - 3 * 0.05
    assert work._self_state.last is not None
    assert work._self_state.last.outside_s >= 3 * 0.05


def test_a_first_stream_has_sampled_its_items() -> None:
    """Its plan does not call them remembered, and does not give weights to what was not weighed."""
    work = amorsize.parallel(lambda seen_here_only: seen_here_only)
    assert list(work.imap(range(20))) == list(range(20))
    text = work.explain()
    assert "sampled" in text
    assert "remembered" not in text
    assert "not weighed" in text


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_stream_that_went_parallel_says_so() -> None:
    """The backend of its plan is what computed, the decision what came first."""
    chosen = functions.slow.with_options(n_jobs=2, start_method="fork")
    assert len(list(chosen.imap(range(20)))) == 20
    plan = chosen.last_plan
    assert plan is not None
    assert (plan.backend, plan.n_jobs) == ("fork", 2)
    assert amorsize.decide(plan.profile, plan.host, plan.n_items, plan.limits) == plan


def test_a_stream_of_waits_is_seen_to_wait() -> None:
    """Every function that waits was taken for one that computes, so that threads were too few."""
    waits = amorsize.parallel(lambda x: time.sleep(0.01) or x, prefer="threads")
    assert list(waits.imap(range(60))) == list(range(60))
    assert waits.last_plan is not None
    assert waits.last_plan.profile.cpu_fraction < 0.5
    assert waits.last_plan.n_jobs > 2


def test_a_stream_says_what_is_to_come() -> None:
    """In a shell: whose results they are, and how many."""
    stream = functions.square.imap([1, 2, 3])
    assert repr(stream) == "<amorsize.Stream of square: 3 results to come>"
    next(stream)
    next(stream)
    assert repr(stream) == "<amorsize.Stream of square: 1 result to come>"
    stream.close()
    assert repr(stream) == "<amorsize.Stream of square: at its end>"
    with functions.square.imap(iter([1, 2, 3])) as unknown:
        next(unknown)
        assert repr(unknown) == "<amorsize.Stream of square: 1 so far, of an unknown number>"
    with functions.square.with_options(errors="skip").imap([1, 2, 3]) as fewer:
        assert repr(fewer) == "<amorsize.Stream of square: 3 results to come at most>"
