"""What leaves the event loop its turn beside awaited maps: turns of threads, how often they change, long pickles."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize import _turns
from amorsize._backend import _bounds as bounds
from amorsize._backend import _pickles, _worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Seconds within which whatever a test waits for has happened, if it ever does.
PATIENCE_S = 60


@pytest.fixture(name="usual_s")
def _usual_s() -> Iterator[float]:
    """Seconds after which threads change usually; given back by the test whatever happens."""
    before = sys.getswitchinterval()
    yield before
    sys.setswitchinterval(before)


def until(is_so: Callable[[], bool]) -> None:
    """Wait for something, within bounds."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# -- how often threads change ------------------------------------------------------------------------------------------


def interval_of(awaited: amorsize.ParallelFunction[[int], float]) -> float:
    """Return the interval that an item of an awaited map sees."""
    return asyncio.run(awaited.amap([0]))[0]


def test_threads_change_more_often_beside_awaited_maps(usual_s: float) -> None:
    """And as often as before behind them."""
    see = amorsize.parallel(lambda _: sys.getswitchinterval(), n_jobs=1)
    assert interval_of(see) < usual_s / 2
    assert sys.getswitchinterval() == usual_s


@pytest.mark.usefixtures("usual_s")
def test_a_program_that_has_them_change_more_often_still_keeps_that() -> None:
    """Nothing is made slower."""
    see = amorsize.parallel(lambda _: sys.getswitchinterval(), n_jobs=1)
    sys.setswitchinterval(1e-5)
    assert interval_of(see) == sys.getswitchinterval() == pytest.approx(1e-5)


@pytest.mark.usefixtures("usual_s")
def test_what_the_program_sets_meanwhile_stays() -> None:
    """It is not taken back with what was set for the map."""
    change = amorsize.parallel(lambda _: sys.setswitchinterval(0.02), n_jobs=1)
    asyncio.run(change.amap([0]))
    assert sys.getswitchinterval() == pytest.approx(0.02)


def test_the_interval_comes_back_behind_the_last_of_several(usual_s: float) -> None:
    """Also where one of them fails, one is cancelled, and one is a stream."""
    see = amorsize.parallel(lambda _: sys.getswitchinterval(), n_jobs=1)
    fail = amorsize.parallel(lambda x: 1 // x, n_jobs=1)
    sleep = amorsize.parallel(lambda _: time.sleep(0.001), n_jobs=1)

    async def main() -> list[Any]:
        endless = asyncio.create_task(sleep.amap(iter(int, 1)))
        seen = [result async for result in see.aimap(range(3))]
        seen += await asyncio.gather(fail.amap([0]), return_exceptions=True)
        seen += await see.amap(range(2))
        endless.cancel()
        await asyncio.gather(endless, return_exceptions=True)
        return seen

    *before, failure, one, two = asyncio.run(main())
    until(lambda: not _turns._UNDER_WAY.halts)
    assert isinstance(failure, ZeroDivisionError)
    assert max(*before, one, two) < usual_s / 2
    assert sys.getswitchinterval() == usual_s


# -- turns -------------------------------------------------------------------------------------------------------------


class Waiting(_turns.Halt):
    """A map in a thread that waits for its turn, and writes down how."""

    def __init__(self, turns: Any, log: list[Any], name: str) -> None:
        super().__init__()
        self.timeouts: list[float | None] = []
        self._turns, self._log, self._name = turns, log, name
        self.holder: object = None
        self.thread = threading.Thread(target=self._enter_and_note, daemon=True)
        self.thread.start()

    def wait(self, timeout_s: float | None) -> None:
        """Wait, and write down how long at most."""
        self.timeouts.append(timeout_s)
        super().wait(timeout_s)

    def _watch(self) -> Callable[[], bool]:
        self._log.append(f"{self._name} is watched")
        return lambda: True

    def _enter_and_note(self) -> None:
        try:
            self.holder = self._turns.enter(self, 1, 1, self._watch)
        except _turns.CancelledMap:
            self._log.append(f"{self._name} is cancelled")
            return
        self._log.append(f"{self._name} computes")


@pytest.fixture(name="turns")
def _turns_with_patience(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Turns in which nobody computes early."""
    monkeypatch.setattr(_turns.bounds, "PATIENCE_S", PATIENCE_S)
    return _turns._Turns()


def test_only_the_first_in_line_looks_now_and_then(turns: Any) -> None:
    """Each that wakes wants the interpreter: of twenty that looked all the time, the event loop waited for each."""
    log: list[Any] = []
    holder = turns.enter(_turns.Halt(), 1, 1)
    first = Waiting(turns, log, "first")
    until(lambda: len(first.timeouts) > 0)
    second, third = Waiting(turns, log, "second"), Waiting(turns, log, "third")
    until(lambda: len(first.timeouts) > 5)
    assert second.timeouts == third.timeouts == [None]
    turns.leave(holder)
    for waiting in (first, second, third):
        waiting.thread.join(PATIENCE_S)
        turns.leave(waiting.holder)
    assert not turns.is_wanted()


def test_turns_come_in_order_and_one_is_watched_from_its_own_turn_on(turns: Any) -> None:
    """One that had waited long counted as one that does not compute, and the next one computed beside it."""
    log: list[Any] = []
    holder = turns.enter(_turns.Halt(), 1, 1)
    first = Waiting(turns, log, "first")
    until(lambda: len(first.timeouts) > 1)
    second = Waiting(turns, log, "second")
    until(lambda: len(second.timeouts) > 0)
    assert log == []
    turns.leave(holder)
    first.thread.join(PATIENCE_S)
    turns.leave(first.holder)
    second.thread.join(PATIENCE_S)
    assert log == ["first is watched", "first computes", "second is watched", "second computes"]


def test_one_that_is_cancelled_in_line_leaves_it(turns: Any) -> None:
    """The first and one behind it; who is left gets the turn."""
    log: list[Any] = []
    holder = turns.enter(_turns.Halt(), 1, 1)
    first = Waiting(turns, log, "first")
    until(lambda: len(first.timeouts) > 0)
    second = Waiting(turns, log, "second")
    until(lambda: len(second.timeouts) > 0)
    third = Waiting(turns, log, "third")
    until(lambda: len(third.timeouts) > 0)
    second.cancel()
    second.thread.join(PATIENCE_S)
    first.cancel()
    first.thread.join(PATIENCE_S)
    turns.leave(holder)
    third.thread.join(PATIENCE_S)
    assert log == ["second is cancelled", "first is cancelled", "third is watched", "third computes"]


# -- long pickles ------------------------------------------------------------------------------------------------------


def calls_of_python(work: Callable[[], Any]) -> int:
    """Count the calls of functions in Python, at each of which another thread can get the interpreter."""
    count = 0

    def profile(_: Any, event: str, __: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_other_threads_may_run_while_much_is_pickled_and_opened() -> None:
    """A dictionary of 200,000 texts kept the event loop waiting for 30 ms, each way."""
    much = ([{i: str(i) for i in range(100_000)}], [])
    data, _ = _pickles.dumps_apart(much, None)
    assert calls_of_python(lambda: _pickles.dumps_apart(much, None)) > len(data) / 100_000
    assert calls_of_python(lambda: _worker.unpack(data, start=0)) > len(data) / 100_000
    assert _worker.unpack(data, start=0) == much


def test_pickles_are_those_of_the_standard_library() -> None:
    """Whatever their size, with buffers apart or not."""
    for value in ([], "x" * 1_000_000, b"x" * 1_000_000, bytearray(1_000_000), list(range(100_000)), {"a": (1, 2)}):
        data, buffers = _pickles.dumps_apart(value, None)
        assert not buffers
        assert _pickles.loads(data, ()) == value
    data, buffers = _pickles.dumps_apart([list(range(100_000)), pickle.PickleBuffer(b"x" * 1_000_000)], 1000)
    assert bounds.FRAMES_BYTES < len(data) < 1_000_000
    assert _pickles.loads(data, buffers) == [list(range(100_000)), b"x" * 1_000_000]
