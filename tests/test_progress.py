"""Following a call: the bar, the callable, and what happens at the end."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize import _progress
from amorsize._progress import Follower, following

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
        with pytest.raises(ImportError, match=r"amorsize\[progress\]"):
            work.map([1])
        assert ran == []


def test_an_update_that_is_not_due_only_reads_the_clock(clock: Clock) -> None:
    """What is not due asks nobody for totals or predictions."""

    def never() -> int:
        raise AssertionError("asked")

    follower = Follower(lambda *report: None, "f", never, never, clock=clock)
    for n_done in range(100):
        follower.update(n_done)
    assert follower.n_done == 99
