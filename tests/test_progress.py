"""Following a call: the bar, the callable, and what happens at the end."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize import _progress
from amorsize._progress import Follower, following
from tests import awaited
from tests.faults.harness import end_threads

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="reports")
def _reports() -> list[tuple[int, int | None, float]]:
    return []


def double(x: int) -> int:
    """Stand for any work."""
    return 2 * x


class TestCallable:
    """A callable instead of True."""

    def test_it_gets_done_total_and_elapsed(self, clock: Clock, reports: list[Any]) -> None:
        """Each report names what is done, all there is, and the seconds since the beginning."""
        follower = Follower(lambda *report: reports.append(report), "f", 10, clock=clock)
        clock.now += 0.25
        follower.update(4)
        assert reports == [(4, 10, 0.25)]

    def test_it_is_called_at_most_ten_times_a_second(self, clock: Clock, reports: list[Any]) -> None:
        """A thousand updates in one second make ten reports at most."""
        follower = Follower(lambda *report: reports.append(report), "f", 1000, clock=clock)
        for n_done in range(1000):
            clock.now += 0.001
            follower.update(n_done)
        assert 9 <= len(reports) <= 10

    def test_it_is_called_at_the_end(self, clock: Clock, reports: list[Any]) -> None:
        """However short the run, the last report says what was done."""
        follower = Follower(lambda *report: reports.append(report), "f", None, clock=clock)
        follower.update(3)
        follower.close()
        assert reports == [(3, None, 0.0)]

    def test_closing_twice_reports_once(self, clock: Clock, reports: list[Any]) -> None:
        """The end comes once."""
        follower = Follower(lambda *report: reports.append(report), "f", 3, clock=clock)
        follower.close()
        follower.close()
        assert len(reports) == 1

    def test_that_all_are_done_is_reported_once(self, clock: Clock, reports: list[Any]) -> None:
        """Also where a report is due with the last item: a callable may add up the items of several maps."""
        follower = Follower(lambda *report: reports.append(report), "f", 2, clock=clock)
        for n_done in (1, 2):
            clock.now += 1.0
            follower.update(n_done)
        follower.close()
        assert [done for done, _, _ in reports] == [1, 2]

    def test_a_total_may_become_known_on_the_way(self, clock: Clock, reports: list[Any]) -> None:
        """A function as total is asked at each report."""
        source = SimpleNamespace(n_items=None)
        follower = Follower(lambda *report: reports.append(report), "f", lambda: source.n_items, clock=clock)
        clock.now += 1
        follower.update(1)
        source.n_items = 2
        follower.update(2)
        follower.close()
        assert [total for _, total, _ in reports] == [None, 2]

    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_a_map_reports_serial_and_parallel_alike(self, reports: list[Any], n_jobs: int) -> None:
        """The last report of a map names all items; what is done never shrinks."""
        work = amorsize.parallel(double, n_jobs=n_jobs, progress=lambda *report: reports.append(report))
        assert work.map(range(2000)) == [2 * x for x in range(2000)]
        done = [report[0] for report in reports]
        assert done == sorted(done)
        assert reports[-1][:2] == (2000, 2000)

    def test_a_map_of_a_generator_knows_its_total_at_the_end(self, reports: list[Any]) -> None:
        """Nothing is known of a generator's length, and nothing is invented."""
        work = amorsize.parallel(double, progress=lambda *report: reports.append(report))
        assert work.map(x for x in range(100)) == [2 * x for x in range(100)]
        assert reports[-1][0] == 100
        assert {total for _, total, _ in reports} <= {None, 100}

    def test_a_failing_map_reports_its_end_and_keeps_its_error(self, reports: list[Any]) -> None:
        """The function's exception arrives, and the follower is told of the end."""
        work = amorsize.parallel(lambda x: 1 // (50 - x), progress=lambda *report: reports.append(report))
        with pytest.raises(ZeroDivisionError):
            work.map(range(100))
        assert len(reports) == 1

    def test_an_error_of_the_report_does_not_replace_the_function_s(self) -> None:
        """Where both fail, the caller sees what the loop would have raised."""

        def refuse(*report: object) -> None:
            raise RuntimeError("no report")

        call = SimpleNamespace(source=SimpleNamespace(n_items=1), record=SimpleNamespace(plan=None), progress=None)
        with pytest.raises(KeyError), following(call, refuse, "f"):  # type: ignore[arg-type]  # a stand-in
            raise KeyError("the function's")

    def test_an_error_of_the_report_is_not_swallowed(self) -> None:
        """Alone, it reaches the caller."""

        def refuse(*report: object) -> None:
            raise RuntimeError("no report")

        work = amorsize.parallel(double, progress=refuse)
        with pytest.raises(RuntimeError, match="no report"):
            work.map(range(10))


def wait_for(path: Path) -> bool:
    """Wait until a file is there, for a bounded time; return whether it is."""
    for _ in range(3000):
        if path.exists():
            return True
        time.sleep(0.01)
    return False


def reported(folder: str, item: int) -> bool:
    """Item 0 takes long; 1 ends once 2 has begun; 2 ends once two items have been reported."""
    files = Path(folder)
    if item == 0:
        time.sleep(0.3)
        return True
    if item == 1:
        return wait_for(files / "two has begun")
    (files / "two has begun").touch()
    return wait_for(files / "two are reported")


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_progress_of_few_long_items_moves_when_one_is_done(tmp_path: Path) -> None:
    """Also where it was done so soon after a report that none was due; nothing else comes to report it with."""
    end_threads()

    def report(done: int, total: int | None, elapsed_s: float) -> None:
        if done >= 2:
            (tmp_path / "two are reported").touch()

    work = amorsize.parallel(reported, n_jobs=2, start_method="fork", progress=report)
    work.plan([(str(tmp_path), 0)], star=True)
    assert work.starmap([(str(tmp_path), i) for i in range(3)]) == [True] * 3
    plan = work.last_plan
    assert plan is not None
    assert plan.n_jobs == 2
    assert amorsize.decide(plan.profile, plan.host, plan.n_items, plan.limits) == plan


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_who_follows_long_items_computes_none(reports: list[Any]) -> None:
    """The caller used to compute items of its own, and to say nothing of the workers' meanwhile."""
    end_threads()
    work = amorsize.parallel(where_long, n_jobs=2, start_method="fork")
    # The first items are the sample: at most two, each longer than the sample may take.
    seen = work.map([0.3] * 5, progress=lambda *report: reports.append(report))
    assert os.getpid() not in seen[2:]
    assert work.map([0.3] * 3, progress=lambda *report: reports.append(report)).count(os.getpid()) <= 1
    plan = work.last_plan
    assert plan is not None
    assert (plan.n_jobs, plan.caller_computes) == (2, False)
    assert amorsize.decide(plan.profile, plan.host, plan.n_items, plan.limits) == plan


def where_long(seconds: float) -> int:
    """Wait, and return the process."""
    time.sleep(seconds)
    return os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_progress_counts_the_item_during_which_workers_started(reports: list[Any]) -> None:
    """It was left out until the end: one of four, one of four, four of four."""
    end_threads()
    work = amorsize.parallel(long_item, n_jobs=2, start_method="fork", progress=lambda *report: reports.append(report))
    assert work.map([0.3, 0.3, 0.3, 0.3]) == [0.3] * 4
    done = [report[0] for report in reports]
    assert done == sorted(done)
    assert set(done) & {2, 3}
    assert done[-1] == 4


def long_item(seconds: float) -> float:
    """Wait."""
    time.sleep(seconds)
    return seconds


class TestBar:
    """``progress=True``."""

    @pytest.fixture(name="screen")
    def _screen(self, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
        pytest.importorskip("tqdm")
        return lambda: capsys.readouterr().err

    def test_a_short_run_draws_nothing(self, clock: Clock, screen: Callable[[], str]) -> None:
        """Under a second there is no bar, not even at the end."""
        follower = Follower(True, "f", 10, clock=clock)
        clock.now += 0.99
        follower.update(9)
        follower.close()
        assert screen() == ""

    def test_the_first_bar_shows_items_total_and_prediction(self, clock: Clock, screen: Callable[[], str]) -> None:
        """From the first moment it counts items and says how long all of it should take."""
        follower = Follower(True, "work", 400, 83.0, clock=clock)
        clock.now += 1.5
        follower.update(7)
        first = screen()
        follower.close()
        assert "work" in first
        assert "7/400" in first
        assert "predicted 01:23 in all" in first

    def test_a_forecast_before_any_item_is_a_lower_bound(self, clock: Clock, screen: Callable[[], str]) -> None:
        """No less than the time that has passed; and made anew as soon as items are done."""
        follower = Follower(True, "work", 6, 0.003, is_least=lambda: True, clock=clock)
        clock.now += 2
        follower.update(0)
        assert "predicted at least 00:02 in all" in screen()
        clock.now += 8
        follower.update(2)
        assert "predicted 00:30 in all" in screen()
        follower.close()

    @pytest.mark.parametrize(("predicted_s", "shown"), [(0.2, "00:01"), (0.95, "00:01"), (1.6, "00:02")])
    def test_a_forecast_is_rounded_and_never_nothing(
        self, clock: Clock, screen: Callable[[], str], predicted_s: float, shown: str
    ) -> None:
        """The bar would show 00:00 for 0.95 s."""
        follower = Follower(True, "work", 400, predicted_s, clock=clock)
        clock.now += 1.5
        follower.update(7)
        assert f"predicted {shown} in all" in screen()
        follower.close()

    def test_the_bar_of_an_unknown_length_counts(self, clock: Clock, screen: Callable[[], str]) -> None:
        """Without a total there is a count, and no prediction where there is none."""
        follower = Follower(True, "work", None, float("inf"), clock=clock)
        clock.now += 2
        follower.update(7)
        follower.close()
        drawn = screen()
        assert "7item" in drawn
        assert "predicted" not in drawn

    def test_the_bar_ends_at_the_last_item(self, clock: Clock, screen: Callable[[], str]) -> None:
        """Closing draws the last state, and ends the line."""
        follower = Follower(True, "work", 400, clock=clock)
        clock.now += 1.5
        follower.update(7)
        follower.update(400)
        follower.close()
        drawn = screen()
        assert "400/400" in drawn.split("\r")[-1]
        assert drawn.endswith("\n")

    def test_no_thread_is_left(self, clock: Clock, screen: Callable[[], str]) -> None:
        """The monitor thread of tqdm would forbid forking from then on."""
        before = set(threading.enumerate())
        follower = Follower(True, "work", 2, clock=clock)
        clock.now += 2
        follower.update(1)
        follower.close()
        assert set(threading.enumerate()) <= before

    def test_a_missing_tqdm_is_named_with_its_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before anything runs, an ImportError says what to install."""
        monkeypatch.setattr(_progress.importlib.util, "find_spec", lambda name: None)
        ran: list[int] = []
        work = amorsize.parallel(ran.append, progress=True)
        with pytest.raises(ImportError, match=r"amorsize\[progress\]") as caught:
            work.map([1])
        assert ran == []
        assert len(caught.traceback) == 2  # this function and the method


def test_an_update_that_is_not_due_only_reads_the_clock(clock: Clock) -> None:
    """What is not due asks nobody for totals or predictions."""

    def never() -> int:
        raise AssertionError("asked")

    follower = Follower(lambda *report: None, "f", never, never, clock=clock)
    for n_done in range(100):
        follower.update(n_done)
    assert follower.n_done == 99


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_bar_anywhere_in_the_program_does_not_forbid_forking() -> None:
    """The monitor of tqdm is ended before a fork, the next bar has one again, and a bar around a stream counts up."""
    tqdm = pytest.importorskip("tqdm", reason="tqdm is not installed").tqdm
    where = amorsize.parallel(awaited.pid_after, n_jobs=2, start_method="fork")
    try:
        for _ in range(2):
            assert list(tqdm(range(3), file=io.StringIO())) == [0, 1, 2]
            assert isinstance(tqdm.monitor, threading.Thread)
            assert tqdm.monitor.is_alive()
            assert set(where.map([0.002] * 100)) - {os.getpid()}
            assert where.last_plan is not None
            assert where.last_plan.backend == "fork"
        with tqdm(where.imap([0.002] * 100), total=100, file=io.StringIO()) as bar:
            assert set(bar) - {os.getpid()}
            assert bar.n == 100
        assert where.last_plan.backend == "fork"
    finally:
        if tqdm.monitor is not None:
            tqdm.monitor.exit()
