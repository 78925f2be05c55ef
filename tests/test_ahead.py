"""Workers begin with the rest of a call while the first item of a function that has never been mapped still runs."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize._known import CACHE
from tests.faults.harness import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is for Linux")

# Much longer than the watcher sleeps and a waiting worker takes to begin, on a busy machine too.
LONG_S = 1.5


def square(number: int) -> int:
    """Return the square."""
    return number * number


def nap_long(number: int) -> int:
    """Wait for as long with each item."""
    time.sleep(LONG_S)
    return number * number


def nap_first(number: int) -> int:
    """Wait long with the first item."""
    time.sleep(LONG_S if number == 0 else 0.01)
    return number * number


def never_sent(number: int) -> Any:
    """Return what no process can send."""
    time.sleep(LONG_S if number == 0 else 0.01)
    return (one for one in [number])


def fails_first(number: int) -> float:
    """Fail with the first item, after a while."""
    time.sleep(LONG_S if number == 0 else 0.01)
    return 1 / number


def spins(number: int) -> int:
    """Compute, long with the first item."""
    begin = time.thread_time()
    while time.thread_time() - begin < (0.5 if number == 0 else 0.01):
        pass
    return number


seen: list[int] = []


def remembers(number: int) -> int:
    """Return how many items this process has seen."""
    time.sleep(0.3 if number == 0 else 0.01)
    seen.append(number)
    return len(seen)


def begun_ahead(plan: amorsize.Plan) -> int:
    """Return the items that workers had begun with before the first item ended."""
    end_s = min(span.end_s for span in plan.timeline if span.kind == "sample")
    return sum(span.begin_s < end_s for span in plan.timeline if span.lane != "caller")


def in_thread(work: Callable[[], Any]) -> Any:
    """Return what a function returns in another thread."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(60)
    return found[0]


@pytest.fixture(autouse=True)
def _first_calls() -> None:
    """Forget what earlier tests have measured, and have workers that wait: a server takes seconds on a busy machine."""
    CACHE.clear()
    # With retries the caller leaves all items to workers, so that they are there when this has ended.
    amorsize.parallel(square, n_jobs=2, start_method="forkserver", retries=1).map(range(4))


@pytest.mark.parametrize("where", [lambda work: work(), in_thread], ids=["main thread", "another thread"])
def test_workers_begin_while_the_first_item_runs(where: Callable[[Callable[[], Any]], Any]) -> None:
    """Eight files of ten seconds on eight cores took twice what a pool takes."""
    work = amorsize.parallel(nap_long, n_jobs=2, start_method="forkserver")
    assert where(lambda: work.map(range(4))) == [0, 1, 4, 9]
    plan = work.last_plan
    assert plan is not None
    assert (plan.backend, plan.n_jobs) == ("forkserver", 2)
    assert begun_ahead(plan) >= 1
    assert sorted(i for span in plan.timeline for i in range(span.start, span.start + span.n_items)) == [0, 1, 2, 3]


def test_the_plan_can_be_replayed_and_goes_by_the_whole_first_item() -> None:
    """What the watcher saw was the least that an item takes; the forecast is made anew when the first has ended."""
    work = amorsize.parallel(nap_long, n_jobs=2, start_method="forkserver")
    work.map(range(4))
    plan = work.last_plan
    assert plan is not None
    assert plan.profile.item_s > 0.9 * LONG_S
    assert amorsize.decide(plan.profile, plan.host, plan.n_items, plan.limits) == plan
    assert "begun before the first item ended" in plan.explain()
    assert "sampled    1 item" in plan.explain()


def test_nothing_is_begun_for_a_function_that_changes_what_items_see() -> None:
    """Only running the first item tells, and it has not ended."""
    seen.clear()
    work = amorsize.parallel(remembers)
    with pytest.warns(UserWarning, match="seen"):
        assert work.map(range(6)) == [1, 2, 3, 4, 5, 6]
    assert work.last_plan is not None
    assert work.last_plan.backend == "sequential"
    assert seen == list(range(6))


rate = 1


def scaled(number: int) -> int:
    """Multiply by what another thread may set, after a while with the first item."""
    time.sleep(LONG_S if number == 0 else 0.01)
    return number * rate


@pytest.mark.parametrize("what", ["global", "item", "length"])
def test_what_another_thread_sets_while_the_first_item_runs_holds_for_the_others(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that had begun went by what was there before; the loop goes by what is there."""
    monkeypatch.setattr(sys.modules[__name__], "rate", 1)
    items = list(range(6))
    change = {
        "global": lambda: setattr(sys.modules[__name__], "rate", 10),
        "item": lambda: items.__setitem__(3, 30),
        "length": lambda: items.append(6),
    }[what]
    timer = threading.Timer(LONG_S / 2, change)
    timer.start()
    work = amorsize.parallel(scaled, n_jobs=2, start_method="forkserver")
    found = work.map(items)
    timer.join()
    assert found == [number * rate for number in items]


def test_a_first_item_that_fails_ends_what_has_been_begun() -> None:
    """Its exception is the loop's, and the workers are there for the next call."""
    work = amorsize.parallel(fails_first, n_jobs=2, start_method="forkserver")
    with pytest.raises(ZeroDivisionError) as raised:
        work.map(range(6))
    assert any("item 0" in note for note in raised.value.__notes__)
    assert work.map(range(1, 7)) == [1 / number for number in range(1, 7)]


def test_failures_are_results_where_they_are_asked_for() -> None:
    """The first item's too."""
    work = amorsize.parallel(fails_first, n_jobs=2, start_method="forkserver", errors="return")
    first, *others = work.map(range(6))
    assert isinstance(first, ZeroDivisionError)
    assert others == [1 / number for number in range(1, 6)]
    assert work.last_plan is not None
    assert work.last_plan.n_failed == 1


def test_a_first_result_that_cannot_be_sent_makes_the_rest_a_loop() -> None:
    """What the workers have begun with is done here: nobody can tell, since it changes nothing."""
    work = amorsize.parallel(never_sent)
    assert [next(one) for one in work.map(range(6))] == list(range(6))
    assert work.last_plan is not None
    assert work.last_plan.backend == "sequential"


def test_a_limit_of_the_program_ends_the_first_item_and_what_has_been_begun() -> None:
    """As it ends the loop."""

    def limit(*_: object) -> None:
        raise TimeoutError("of the program")

    work = amorsize.parallel(nap_first, n_jobs=2, start_method="forkserver")
    before = signal.signal(signal.SIGALRM, limit)
    try:
        signal.setitimer(signal.ITIMER_REAL, LONG_S / 2)
        with pytest.raises(TimeoutError, match="of the program"):
            work.map(range(6))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert work.map(range(6)) == [number * number for number in range(6)]


def test_the_watcher_ends_with_the_first_item() -> None:
    """It is no thread of the program: nobody sees it, and it forbids no fork."""
    amorsize.shutdown()
    before = _thread._count()
    names: list[str] = []

    def look(number: int) -> int:
        names.extend(thread.name for thread in threading.enumerate())
        return number

    work = amorsize.parallel(look)
    assert work.map(range(6)) == list(range(6))
    assert set(names) == {thread.name for thread in threading.enumerate()}
    wait_until(lambda: _thread._count() == before)


def test_a_function_that_computes_is_not_taken_for_one_that_waits() -> None:
    """The watcher takes the interpreter's lock from it now and then."""
    work = amorsize.parallel(spins, n_jobs=2, start_method="forkserver")
    work.map(range(6))
    assert work.last_plan is not None
    assert work.last_plan.profile.cpu_fraction > 0.6
    assert "waits" not in work.last_plan.explain()


@pytest.mark.parametrize(
    "options",
    [{"n_jobs": 1}, {"prefer": "threads"}, {"timeout": 60}, {"retries": 1}, {"max_memory": "1GB"}],
    ids=str,
)
def test_nothing_is_begun_where_workers_must_not_be(options: dict[str, Any]) -> None:
    """One job, threads, limits of items and of memory: the first item is awaited, or runs in no caller."""
    work = amorsize.parallel(nap_first, **options)
    assert work.map(range(6)) == [number * number for number in range(6)]
    plan = work.last_plan
    assert plan is not None
    assert not any(span.kind == "sample" for span in plan.timeline) or begun_ahead(plan) == 0
