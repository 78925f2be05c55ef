"""Items of an input that cannot be looked at beforehand: a kind that changes something may come at any time."""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import amorsize
from amorsize.exceptions import AmorsizeWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N_EARLY, N_LATE = 300, 100


class Adder:
    """An item that counts how often something is added to it."""

    n = 0

    def __add__(self, other: int) -> int:
        Adder.n += 1
        return Adder.n


class Quiet:
    """An item of another kind that changes nothing."""

    def __add__(self, other: int) -> int:
        return -other


def add_one(x: Any) -> Any:
    """Compute for a while."""
    sum(range(20_000))
    return x + 1


def early_then(make: Callable[[], Any], pause_s: float = 0.0) -> Iterator[Any]:
    """Yield numbers, and then what is made."""
    for i in range(N_EARLY):
        time.sleep(pause_s)
        yield i
    for _ in range(N_LATE):
        yield make()


EXPECTED = [*range(1, N_EARLY + 1), *range(1, N_LATE + 1)]


@pytest.fixture(autouse=True)
def _from_nought() -> None:
    Adder.n = 0


@pytest.mark.parametrize("pause_s", [0.0, 0.001])
def test_a_kind_that_an_iterator_gives_late_is_looked_at(pause_s: float) -> None:
    """Only the first items were: workers had counters of their own, without a word."""
    with pytest.warns(AmorsizeWarning, match="Adder"):
        found = amorsize.parallel(add_one).map(early_then(Adder, pause_s))
    assert found == EXPECTED
    assert Adder.n == N_LATE


@pytest.mark.parametrize("ordered", [True, False])
def test_a_kind_that_a_stream_is_given_late_is_looked_at(ordered: bool) -> None:
    """The rest is computed by the caller from the first of them on."""
    f = amorsize.parallel(add_one)
    with pytest.warns(AmorsizeWarning, match="Adder"), f.imap(early_then(Adder), ordered=ordered) as stream:
        found = list(stream)
    assert (found if ordered else [*sorted(found[:N_EARLY]), *found[N_EARLY:]]) == EXPECTED
    assert Adder.n == N_LATE


def test_a_late_kind_in_other_data_is_looked_at() -> None:
    """Of a deque, a dictionary or an array of objects too, only the sample was looked at."""
    values = list(early_then(Adder))
    array = np.empty(len(values), dtype=object)
    array[:] = values
    for data in (collections.deque(values), dict(enumerate(values)).values(), array):
        Adder.n = 0
        with pytest.warns(AmorsizeWarning, match="Adder"):
            assert amorsize.parallel(add_one).map(data) == EXPECTED


def test_late_kinds_that_change_nothing_stay_parallel() -> None:
    """They are looked at once."""
    f = amorsize.parallel(add_one)
    assert f.map(early_then(Quiet)) == [*range(1, N_EARLY + 1), *[-1] * N_LATE]
    assert f.last_plan.profile.mutates == ()
    assert list(f.imap(early_then(Quiet))) == [*range(1, N_EARLY + 1), *[-1] * N_LATE]
    assert f.last_plan.profile.mutates == ()


def test_with_workers_asked_for_a_late_kind_is_warned_of() -> None:
    """What it changes is lost there."""
    f = amorsize.parallel(add_one, n_jobs=2)
    with pytest.warns(AmorsizeWarning, match=r"Adder.* is lost"):
        assert len(f.map(early_then(Adder))) == N_EARLY + N_LATE
    with pytest.warns(AmorsizeWarning, match=r"Adder.* is lost"):
        assert len(list(f.imap(early_then(Adder)))) == N_EARLY + N_LATE


class Counter:
    """What several items may share."""

    def __init__(self) -> None:
        self.n = 0
        self.square: int | None = None
        self.parent = self

    def count(self) -> int:
        """Count here."""
        self.n += 1
        return self.n

    def lazy(self) -> int:
        """Compute once."""
        if self.square is None:
            self.square = 4
        return self.square


def count_in(pair: tuple[int, Any]) -> int:
    """Count in what the item brings along."""
    sum(range(20_000))
    return 0 if pair[1] is None else int(pair[1].count())


def take_next(pair: tuple[int, Any]) -> int:
    """Take what comes next."""
    sum(range(20_000))
    return 0 if pair[1] is None else int(next(pair[1]))


def compute_once(pair: tuple[int, Any]) -> int:
    """Compute what the item brings along needs."""
    sum(range(20_000))
    return 0 if pair[1] is None else int(pair[1].lazy())


def test_what_only_late_items_share_is_shared() -> None:
    """Only the first eight were looked at together: each worker counted in an object of its own, without a word."""
    for func, shared in ((count_in, Counter()), (take_next, iter(range(1, 1000)))):
        items = [*((i, None) for i in range(N_EARLY)), *((i, shared) for i in range(N_LATE))]
        with pytest.warns(AmorsizeWarning, match="what its items share"):
            assert amorsize.parallel(func).map(items) == [*[0] * N_EARLY, *range(1, N_LATE + 1)]


def test_what_late_items_have_of_their_own_or_compute_once_is_not_shared() -> None:
    """Of two that are the same, one is enough."""
    own = [*((i, None) for i in range(N_EARLY)), *((i, Counter()) for i in range(N_LATE))]
    assert amorsize.parallel(count_in).plan(own).profile.mutates == ()
    shared = Counter()
    once = [*((i, None) for i in range(N_EARLY)), *((i, shared) for i in range(N_LATE))]
    assert amorsize.parallel(compute_once).plan(once).profile.mutates == ()


class Step:
    """An item, one in a hundred of which counts in what all have in common."""

    def __init__(self, i: int, shared: Counter) -> None:
        self.i = i
        self.shared = shared


def count_sometimes(step: Step) -> int:
    """Return the count so far."""
    sum(range(20_000))
    if step.i % 100 == 99:
        step.shared.n += 1
    return step.shared.n


def test_what_all_items_share_and_only_late_ones_change() -> None:
    """It was compared while the first eight ran, which leave it alone."""
    shared = Counter()
    with pytest.warns(AmorsizeWarning, match="what its items share"):
        found = amorsize.parallel(count_sometimes).map([Step(i, shared) for i in range(400)])
    assert found == [(i + 1) // 100 for i in range(400)]
    assert shared.n == 4


def test_what_all_items_share_and_the_first_computes_once() -> None:
    """It is the same whoever computes it."""
    shared = Counter()
    items = [(i, shared) for i in range(N_EARLY)]
    assert amorsize.parallel(compute_once).plan(items).profile.mutates == ()
