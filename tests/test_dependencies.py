"""What a function can reach decides where it may run, and what goes along."""

from __future__ import annotations

import colorsys
import dataclasses
import decimal
import importlib
import random
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import amorsize
from amorsize._analysis import known_dependencies, of_each_kind
from amorsize.exceptions import AmorsizeWarning

if TYPE_CHECKING:
    from pathlib import Path


def tripled(x: int) -> int:
    """Named in texts only."""
    return 3 * x


@pytest.mark.parametrize("start_method", ["forkserver", "loky"])
def test_names_in_a_text_are_looked_for_where_they_are(start_method: str) -> None:
    """Fresh workers, given a function by value, had only what its code names: a NameError where the loop worked."""

    def by_text(x: int) -> int:
        return int(eval("tripled(x)"))  # noqa: S307 - as users do

    def through_globals(x: int) -> int:
        return int(globals()["tripled"](x))

    for func in (by_text, through_globals):
        f = amorsize.parallel(func, n_jobs=2, start_method=start_method)
        with pytest.warns(AmorsizeWarning, match="the names in a text exist in this process only"):
            assert f.map(range(50)) == [3 * x for x in range(50)]


class Reader:
    """What is read in the tests below."""

    def read(self, n: int) -> bytes:
        """Return as many."""
        return b"x" * n


def test_what_is_replaced_in_an_attribute_a_closure_or_a_table_is_looked_at(tmp_path: Path) -> None:
    """The next map forked workers that shared the file, by what an earlier look had found in its place."""

    class Holder:
        source: Any = Reader()

    holder, table, rows = Holder(), {"source": Reader()}, [Reader()]
    holder.source = variable = Reader()

    def of_object(x: int) -> Any:
        return holder.source.read(x)

    def of_class(x: int) -> Any:
        return Holder.source.read(x)

    def of_table(x: int) -> Any:
        return table["source"].read(x)

    def of_list(x: int) -> Any:
        return rows[0].read(x)

    def of_closure(x: int) -> Any:
        return variable.read(x)

    functions = (of_object, of_class, of_table, of_list, of_closure)
    assert [known_dependencies(func).is_closed for func in functions] == [True] * 5
    (tmp_path / "file").write_bytes(b"abc")
    with (tmp_path / "file").open("rb") as file:
        opened: Any = file
        holder.source = Holder.source = table["source"] = rows[0] = variable = opened
        assert [known_dependencies(func).is_closed for func in functions] == [False] * 5


def test_a_helper_whose_code_is_replaced_is_looked_at_anew() -> None:
    """As a reload in a notebook does it: the next map forked a helper that had begun to count."""
    counted: list[int] = []

    def helper(x: int) -> int:
        return x + len(counted)

    def counting(x: int) -> int:
        counted.append(x)
        return x + len(counted)

    def by_helper(x: int) -> int:
        return helper(x)

    assert not known_dependencies(by_helper).effects.changes
    helper.__code__ = counting.__code__
    assert known_dependencies(by_helper).effects.changes


class Counted:
    """An item whose methods count in its class, and draw."""

    total = 0

    def count(self) -> int:
        """Count for all."""
        Counted.total += 1
        return Counted.total

    def draw(self) -> float:
        """Draw from the generator that all share."""
        return random.random()

    def own(self) -> int:
        """Change this item only."""
        self.n = getattr(self, "n", 0) + 1
        return self.n


def counts(item: Counted) -> int:
    """Leave it to the item."""
    sum(range(20_000))
    return item.count()


def draws(pair: tuple[int, Counted]) -> float:
    """Leave it to what is in the item."""
    sum(range(20_000))
    return pair[1].draw()


def changes_itself(item: Counted) -> int:
    """Leave it to the item."""
    sum(range(20_000))
    return item.own()


def calls(item: Any) -> int:
    """Call the item."""
    sum(range(20_000))
    return int(item())


def test_what_the_methods_of_items_change_is_outside_state() -> None:
    """Only the function's own code was followed: their counters and draws differed from the loop's without a word."""
    Counted.total = 0
    with pytest.warns(AmorsizeWarning, match="Counted"):
        assert amorsize.parallel(counts).map([Counted() for _ in range(500)]) == list(range(1, 501))
    with pytest.warns(AmorsizeWarning, match="random"):
        amorsize.parallel(draws).map([(i, Counted()) for i in range(500)])
    n = 0

    def counting() -> int:
        nonlocal n
        n += 1
        return n

    with pytest.warns(AmorsizeWarning, match="n, which lives outside"):
        assert amorsize.parallel(calls).map([counting] * 500) == list(range(1, 501))


class Quiet:
    """An item that has the methods of the one above, and changes nothing."""

    def count(self) -> int:
        """Count nothing."""
        return 0

    def own(self) -> int:
        """Change nothing."""
        return 0


def counts_in(pair: tuple[int, Counted]) -> int:
    """Leave it to what is in the item."""
    sum(range(20_000))
    return pair[1].count()


def test_a_kind_of_items_that_comes_late_is_looked_at() -> None:
    """Only the first eight were: a list of more kinds was parallel without a word, with other counts than the loop."""
    n = 0

    def counting() -> int:
        nonlocal n
        n += 1
        return n

    late: list[tuple[Any, list[Any], Any]] = [
        (counts, [*(Quiet() for _ in range(200)), *(Counted() for _ in range(200))], "Counted"),
        (counts_in, [*((i, Quiet()) for i in range(200)), *((i, Counted()) for i in range(200))], "Counted"),
        (calls, [*[int] * 200, *[counting] * 200], "n, which"),
        (calls, [*[Quiet().count] * 200, *[Counted().count] * 200], "Counted"),
    ]
    for func, items, name in late:
        n = Counted.total = 0
        with pytest.warns(AmorsizeWarning, match=name):
            found = amorsize.parallel(func).map(items)
        assert found == [*[0] * 200, *range(1, 201)]


@dataclasses.dataclass
class Holder:
    """An item that holds others."""

    held: Any


def counts_held(item: Holder) -> int:
    """Leave it to what an attribute of the item holds."""
    sum(range(20_000))
    return item.held.count()  # type: ignore[no-any-return]  # an attribute of any kind


def counts_deep(item: Any) -> int:
    """Leave it to what is deep in the item."""
    sum(range(20_000))
    return item["a"]["b"].held.held.count()  # type: ignore[no-any-return]  # as above


def calls_held(item: Any) -> int:
    """Call what an attribute of the item holds."""
    sum(range(20_000))
    return item.held()  # type: ignore[no-any-return]  # as above


@pytest.mark.parametrize("n_quiet", [0, 200])
def test_what_an_item_holds_is_looked_at(n_quiet: int) -> None:
    """Only the items themselves and values of tuples, lists and dictionaries were: counts differed without a word."""

    def deep(one: Any) -> Any:
        return {"a": {"b": Holder(Holder(one))}}

    cases: list[tuple[Any, Any]] = [
        (counts_held, lambda one: Holder(one)),  # noqa: PLW0108 - as the others
        (counts_held, lambda one: types.SimpleNamespace(held=one)),
        (counts_deep, deep),
        (calls_held, lambda one: Holder(one.count)),
        (calls_held, lambda one: types.SimpleNamespace(held=one.count)),
    ]
    for func, make in cases:
        Counted.total = 0
        items = [*(make(Quiet()) for _ in range(n_quiet)), *(make(Counted()) for _ in range(200))]
        with pytest.warns(AmorsizeWarning, match="Counted"):
            found = amorsize.parallel(func).map(items)
        assert found == [*[0] * n_quiet, *range(1, 201)]
        quiet = [make(Quiet()) for _ in range(400)]
        assert known_dependencies(func, of_each_kind(quiet, 8)).effects.is_proved
        assert amorsize.parallel(func).plan(quiet).profile.mutates == ()


def test_what_the_methods_that_items_bring_along_share_is_watched() -> None:
    """They were not looked into: each worker had an object of its own."""
    shared = Counted()
    with pytest.warns(AmorsizeWarning, match="what its items share|an item"):
        found = amorsize.parallel(calls_held).map([Holder(shared.own) for _ in range(400)])
    assert found == list(range(1, 401))


def test_items_of_kinds_that_change_nothing_stay_parallel() -> None:
    """Whenever they come; one of each kind is looked at, and no more."""
    mixed = [*(Quiet() for _ in range(400)), *(Counted() for _ in range(400))]
    assert len(of_each_kind(mixed, 8)) == 9
    assert len(of_each_kind(list(range(1000)), 8)) == 8
    assert len(of_each_kind([(i, Quiet()) for i in range(1000)], 8)) == 8
    for func, items in ((changes_itself, mixed), (calls, [*[Quiet().count] * 400, *[Quiet().own] * 400])):
        assert known_dependencies(func, of_each_kind(items, 8)).effects.is_proved
        assert amorsize.parallel(func).plan(items).profile.mutates == ()


def test_items_of_more_kinds_than_are_looked_at_are_watched() -> None:
    """What the kinds that were left out change is not known."""
    kinds: list[Any] = [type(f"Kind{i}", (Quiet,), {}) for i in range(20)]
    items = [kind() for kind in kinds for _ in range(10)]
    assert known_dependencies(counts, of_each_kind(items[:100], 8)).effects.is_proved
    assert known_dependencies(counts, of_each_kind(items, 8)).needs_watching


def test_items_that_change_themselves_are_no_outside_state() -> None:
    """Each has its own."""
    plan = amorsize.parallel(changes_itself).plan([Counted() for _ in range(500)])
    assert plan.profile.mutates == ()


def more_precise(x: int) -> str:
    """Change a setting of the process, and go by it."""
    sum(range(20_000))
    decimal.getcontext().prec = 5 + (decimal.getcontext().prec + 1) % 20
    return str(decimal.Decimal(x) / 3)


def as_precise(x: int) -> str:
    """Set a setting of the process to the same for each item."""
    sum(range(20_000))
    decimal.getcontext().prec = 7
    np.seterr(all="ignore")
    return str(decimal.Decimal(x) / 3)


def test_settings_of_the_process_that_items_change_are_outside_state() -> None:
    """What each item sets to the same is none."""
    with decimal.localcontext(), np.errstate():
        with pytest.warns(AmorsizeWarning, match="decimal.getcontext"):
            found = amorsize.parallel(more_precise).map(range(500))
        plan = amorsize.parallel(as_precise).plan(range(500))
    with decimal.localcontext():
        assert found == [more_precise(x) for x in range(500)]
    assert plan.profile.mutates == ()


def first_of(view: memoryview) -> tuple[str, int, bool]:
    """Say what came."""
    return type(view).__name__, view[0], view.readonly


@pytest.mark.parametrize("start_method", ["forkserver", "loky"])
def test_memory_views_travel_as_what_they_are(start_method: str) -> None:
    """They arrived as bytes: without their type, and nothing could be written into them."""
    items = [memoryview(np.arange(i, i + 4, dtype="i4")) for i in range(20)] + [memoryview(b"abc")]
    f = amorsize.parallel(first_of, n_jobs=2, start_method=start_method)
    assert f.map(items) == [first_of(item) for item in items]


@pytest.mark.parametrize("start_method", ["forkserver", "loky"])
def test_a_helper_in_another_module_that_was_edited_since_is_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_method: str
) -> None:
    """Only helpers that a function names in its own module were compared: workers ran what was on the disk."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"edited_{start_method}"
    (tmp_path / f"{name}_helper.py").write_text("def scaled(x):\n    return 2 * x\n")
    (tmp_path / f"{name}.py").write_text(f"import {name}_helper\ndef work(x):\n    return {name}_helper.scaled(x)\n")
    module = importlib.import_module(name)
    (tmp_path / f"{name}_helper.py").write_text("def scaled(x):\n    return 200000 * x\n")
    amorsize.shutdown()  # no worker has imported them before
    try:
        f = amorsize.parallel(module.work, n_jobs=2, start_method=start_method)
        assert f.map(range(2000)) == [2 * x for x in range(2000)]
        assert f.map(range(2000)) == [2 * x for x in range(2000)]
    finally:
        amorsize.shutdown()
        for module_name in (name, f"{name}_helper"):
            sys.modules.pop(module_name, None)


@pytest.mark.parametrize("way", ["importlib.import_module({})", "__import__({})", "sys.modules[{}]"])
def test_a_module_whose_name_is_made_while_items_run_forbids_a_fork(way: str) -> None:
    """It may hold a file, a lock or an iterator; one that the code names is looked at, and this one is harmless."""
    closed = {}
    for name in ("'colorsys'", "''.join(['color', 'sys'])"):
        namespace: dict[str, Any] = {"importlib": importlib, "sys": sys, "colorsys": colorsys}
        exec(f"def work(x):\n    return {way.format(name)}.rgb_to_hsv(x, 0, 0)\n", namespace)  # noqa: S102 - code of ours
        reached = known_dependencies(namespace["work"])
        assert not reached.effects.changes
        closed[name] = reached.is_closed
    assert list(closed.values()) == [True, False]
