# ruff: noqa: D101, D102, D103 - the small functions and classes are named for what they do
"""Items of many kinds that bring code along: what it changes is seen, in the first items and in later ones."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import enum
import functools
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from amorsize._analysis import known_dependencies, of_each_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COUNT = 0


def bump(*_args: object) -> int:
    global COUNT  # noqa: PLW0603 - the subject of the test
    COUNT += 1
    return COUNT


def quiet(*_args: object) -> int:
    return 0


class Loud:
    def __init__(self) -> None:
        bump()

    @classmethod
    def make(cls) -> int:
        return bump()


class Still:
    @classmethod
    def make(cls) -> int:
        return 0


class Runner:
    def run(self) -> int:
        return self.step()

    def step(self) -> int:
        return 0


class LoudRunner(Runner):
    def step(self) -> int:
        return bump()


class Meta(type):
    def make(cls) -> int:
        return bump()


class OfMeta(metaclass=Meta):
    pass


class Color(enum.Enum):
    RED = 1

    def run(self) -> int:
        return bump()


@functools.lru_cache
def cached() -> int:
    return bump()


def counting() -> Iterator[int]:
    yield bump()


def still_counting() -> Iterator[int]:
    yield 0


class Missing(dict[str, int]):
    def __missing__(self, key: str) -> int:
        return bump(key)


class Compared:
    def __lt__(self, other: object) -> bool:
        return bool(bump(other))


@dataclasses.dataclass(slots=True)
class Slots:
    call: Any


@dataclasses.dataclass
class Tree:
    kids: list[Any]
    call: Any

    def value(self) -> Any:
        return self.call(*(kid.value() for kid in self.kids))


class Strategy:
    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def run(self) -> int:
        return self.runner.run()


class Proxy:
    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "target", target)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "target"), name)


KEPT = [LoudRunner(), Runner()]


def calls(item: Any) -> Any:
    return item()


def makes(item: Any) -> Any:
    return item.make()


def runs(item: Any) -> Any:
    return item.run()


def runs_what_is_referred_to(item: Any) -> Any:
    return item().run()


def takes(item: Any) -> Any:
    return next(item)


def gets(item: Any) -> Any:
    return item["call"]


def sorts(item: Any) -> Any:
    item.sort()
    return 0


def calls_attribute(item: Any) -> Any:
    return item.call()


def calls_deep(item: Any) -> Any:
    return item["a"]["b"][0]()


def calls_each(item: Any) -> Any:
    return [call() for call in item]


def calls_entry(item: Any) -> Any:
    return item["call"]()


def values(item: Any) -> Any:
    return item.value()


CASES: list[tuple[Callable[[Any], Any], Callable[[], Any], Callable[[], Any]]] = [
    (calls, lambda: Loud, lambda: Still),
    (makes, lambda: Loud, lambda: Still),
    (makes, lambda: OfMeta, lambda: Still),
    (calls, lambda: functools.partial(bump), lambda: functools.partial(quiet)),
    (calls, lambda: cached, lambda: quiet),
    (runs, lambda: Color.RED, Runner),
    (runs, LoudRunner, Runner),
    (runs, lambda: Strategy(LoudRunner()), lambda: Strategy(Runner())),
    (runs, lambda: Proxy(LoudRunner()), lambda: Proxy(Runner())),
    (runs_what_is_referred_to, lambda: weakref.ref(KEPT[0]), lambda: weakref.ref(KEPT[1])),
    (takes, counting, still_counting),
    (gets, Missing, lambda: {"call": 1}),
    (gets, lambda: collections.defaultdict(bump), lambda: {"call": 1}),
    (sorts, lambda: [Compared(), Compared()], lambda: [1, 2]),
    (calls_attribute, lambda: Slots(bump), lambda: Slots(quiet)),
    (calls_attribute, lambda: types.SimpleNamespace(call=bump), lambda: types.SimpleNamespace(call=quiet)),
    (calls_attribute, lambda: argparse.Namespace(call=bump), lambda: argparse.Namespace(call=quiet)),
    (calls_deep, lambda: {"a": {"b": [bump]}}, lambda: {"a": {"b": [quiet]}}),
    (calls_each, lambda: frozenset([bump]), lambda: frozenset([quiet])),
    (calls_each, lambda: collections.deque([bump]), lambda: collections.deque([quiet])),
    (calls_entry, lambda: collections.ChainMap({"call": bump}), lambda: collections.ChainMap({"call": quiet})),
    (calls_entry, lambda: types.MappingProxyType({"call": bump}), lambda: types.MappingProxyType({"call": quiet})),
    (values, lambda: Tree([Tree([], bump)], quiet), lambda: Tree([Tree([], quiet)], quiet)),
]


@pytest.fixture(autouse=True)
def _looked_at_anew() -> None:
    sys.modules["amorsize._analysis.dependencies"]._known.clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize("n_quiet", [0, 100])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_code_that_items_bring_along_is_followed(case: int, n_quiet: int) -> None:
    """Of these, only functions and objects in the item itself, or one container deep, were."""
    func, loud, still = CASES[case]
    items = [*(still() for _ in range(n_quiet)), *(loud() for _ in range(100))]
    assert "COUNT" in known_dependencies(func, of_each_kind(items, 8)).effects.changes


@pytest.mark.parametrize("case", range(len(CASES)))
def test_code_that_items_bring_along_and_that_changes_nothing_is_proved(case: int) -> None:
    func, _, still = CASES[case]
    assert known_dependencies(func, of_each_kind([still() for _ in range(100)], 8)).effects.is_proved
