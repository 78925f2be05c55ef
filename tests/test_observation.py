"""What several items hold in common is watched like what the function names."""

from __future__ import annotations

import functools
import random
import threading
import types
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import amorsize
from amorsize._analysis import bounds
from amorsize._analysis.dependencies import dependencies
from amorsize._analysis.observation import shared_by
from amorsize.exceptions import AmorsizeWarning
from tests.functions import square

if TYPE_CHECKING:
    from collections.abc import Callable


def draws(item: tuple[random.Random, int]) -> float:
    """Draw from the generator that the item brings along."""
    sum(range(20_000))
    return item[0].random() + item[1]


def reads(item: tuple[list[int], int]) -> int:
    """Read the table that the item brings along."""
    sum(range(20_000))
    return item[0][item[1] % 3]


@pytest.mark.usefixtures("thread")
def test_a_generator_that_items_share_is_drawn_from_in_one_process() -> None:
    """As in the loop: serially, in every call, with a warning that says what changes."""
    f = amorsize.parallel(draws)
    for _ in range(2):
        shared, same = random.Random(1), random.Random(1)
        with pytest.warns(AmorsizeWarning, match="what its items share"):
            found = f.map([(shared, i) for i in range(300)])
        assert found == [draws((same, i)) for i in range(300)]
        assert shared.getstate() == same.getstate()


class Sum:
    """Adds up."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, number: int) -> int:
        """Return the sum so far."""
        self.total += number
        return self.total


def calls(item: Callable[[], Any]) -> Any:
    """Call what the item is."""
    sum(range(20_000))
    return item()


def note(number: int, *, numbers: list[int]) -> int:
    """Return how many numbers there are by now."""
    numbers.append(number)
    return len(numbers)


def partials_of_a_method() -> list[Callable[[], Any]]:
    """Return items that add to one sum."""
    add = Sum().add
    return [functools.partial(add, number) for number in range(300)]


def partials_with_a_list() -> list[Callable[[], Any]]:
    """Return items that append to one list."""
    numbers: list[int] = []
    return [functools.partial(note, number, numbers=numbers) for number in range(300)]


@pytest.mark.usefixtures("thread")
@pytest.mark.parametrize(
    "make",
    [
        partials_of_a_method,
        partials_with_a_list,
        lambda: [functools.partial(next, iter(range(1000)))] * 300,
        lambda: [iter(range(1000)).__next__] * 300,
        lambda: [list(range(1000)).pop] * 300,
        lambda: [functools.partial(list(range(1000)).pop)] * 300,
    ],
    ids=["method", "keyword", "iterator", "next", "pop", "pop in a partial"],
)
def test_what_items_that_are_called_share_is_changed_in_one_process(make: Callable[[], list[Any]]) -> None:
    """An item that is a partial, or a method of an object of C, brings along what it is bound to."""
    with pytest.warns(AmorsizeWarning, match="what its items share"):
        found = amorsize.parallel(calls).map(make())
    assert found == [calls(item) for item in make()]


def test_a_table_that_items_share_and_nobody_changes_is_no_obstacle() -> None:
    """It is looked at, and found as it was."""
    table = [1, 2, 3]
    f = amorsize.parallel(reads)
    plan = f.plan([(table, i) for i in range(100_000)])
    assert plan.profile.mutates == ()
    assert f.map([(table, i) for i in range(300)]) == [table[i % 3] for i in range(300)]


def test_what_another_thread_draws_meanwhile_is_not_blamed_on_a_function_that_draws_nothing() -> None:
    """Its code is known to draw nothing: only what its items share is compared."""
    drawing, ended = threading.Event(), threading.Event()

    def draw() -> None:
        while not ended.is_set():
            random.random()
            drawing.set()

    thread = threading.Thread(target=draw)
    thread.start()
    drawing.wait(10)
    table = [1, 2, 3]
    f = amorsize.parallel(reads)
    try:
        plan = f.plan([(table, i) for i in range(100_000)])
    finally:
        ended.set()
        thread.join()
    assert plan.profile.mutates == ()


RECORDS: list[int] = []


def records(x: int) -> int:
    """Keep the item."""
    sum(range(20_000))
    RECORDS.append(x)
    return len(RECORDS)


@pytest.mark.parametrize("how", ["map", "imap"])
def test_more_code_than_is_followed_is_watched_and_not_forked(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """With workers asked for, too: imap watched nothing then, so that no warning said what was lost."""
    monkeypatch.setattr(bounds, "MOST_STEPS", 3)
    func = types.FunctionType(records.__code__, globals())  # one that has not been looked at
    found = dependencies(func)
    assert found.effects.changes == ()
    assert not found.is_closed
    f = amorsize.parallel(func)
    with pytest.warns(AmorsizeWarning, match="RECORDS"):
        assert len(list(getattr(f, how)(range(50), n_jobs=2))) == 50
    assert f.last_plan is not None
    assert f.last_plan.backend != "fork"


def test_items_that_share_nothing_need_no_look() -> None:
    """Numbers, texts and objects of their own are not shared."""
    assert shared_by([(1, "a"), (1, "a")]) == []
    assert shared_by([[1], [1]]) == []
    assert amorsize.parallel(square.__wrapped__).map(range(5)) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("made", [list, dict, bytearray], ids=lambda kind: str(kind.__name__))
def test_the_same_object_in_two_items_is_shared(made: Any) -> None:
    """Whether the items are it or hold it."""
    one = made()
    assert shared_by([(one, 1), (one, 2)]) == [one]
    assert shared_by([one, one]) == [one]


def hits(item: dict[str, int]) -> int:
    """Change the item, and read all of them."""
    sum(range(20_000))
    item["n"] += 1
    return sum(one["n"] for one in ITEMS)


def adds_one(row: Any) -> float:
    """Change the row, and read the table it is of."""
    sum(range(20_000))
    row += 1
    return float(GRID.sum())


ITEMS: list[dict[str, int]] = []
GRID = np.zeros((300, 2))


@pytest.mark.usefixtures("thread")
@pytest.mark.parametrize("data", ["list", "rows", "array"])
def test_items_that_the_function_has_under_another_name_are_changed_in_one_process(data: str) -> None:
    """Each worker read what it had changed itself, without a word."""
    ITEMS[:] = [{"n": 0} for _ in range(300)]
    GRID[:] = 0
    items = {"list": ITEMS, "rows": list(GRID), "array": GRID}[data]
    f = amorsize.parallel(hits if data == "list" else adds_one)
    each = 1 if data == "list" else 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmorsizeWarning)  # where it would have been a loop anyway, there is none
        assert f.map(items) == [each * (i + 1) for i in range(300)]
    with pytest.warns(AmorsizeWarning, match="what its items share"):
        f.map(items, n_jobs=2)


def finds(item: dict[str, int]) -> int:
    """Read the item, and all of them."""
    sum(range(20_000))
    return item["n"] + len(ITEMS)


def test_items_that_the_function_reads_under_another_name_are_no_obstacle() -> None:
    """They are looked at, and found as they were."""
    ITEMS[:] = [{"n": i} for i in range(300)]
    f = amorsize.parallel(finds)
    assert f.plan(ITEMS * 300).profile.mutates == ()
    assert f.map(ITEMS) == [i + 300 for i in range(300)]


TABLE = np.arange(2000.0).reshape(500, 4)


def centre(row: Any) -> float:
    """Change a row, and read all of them."""
    sum(range(20_000))
    row -= row.mean()
    return float(abs(TABLE).sum())


def test_rows_of_a_table_that_is_itself_a_view() -> None:
    """Rows are views of what the table is a view of: they were not taken for its rows."""
    with pytest.warns(AmorsizeWarning, match="what its items share"):
        found = amorsize.parallel(centre).map(list(TABLE))
    assert found[-1] == 2000.0
    assert found == sorted(found, reverse=True)
