"""Functions of kinds that were met in the field: mapped with default options, they do what the loop does."""

from __future__ import annotations

import contextlib
import copy
import fractions
import functools
import inspect
import locale
import random
import sys
import textwrap
import time
import types
import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest

import amorsize
from tests.programs import thread_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # What is mapped, over what, and what the program looks at afterwards.
    Case = tuple[Callable[[Any], Any], Sequence[Any], Callable[[], Any]]

N_ITEMS = 800


def busy() -> int:
    """Take 0.1 ms, so that workers would pay."""
    return sum(range(8000))


def what_items_share_in_an_attribute() -> Case:
    """Each item has an object of its own, and all of these the same one."""
    common = types.SimpleNamespace(n=0)
    items = [types.SimpleNamespace(inner=types.SimpleNamespace(common=common)) for _ in range(N_ITEMS)]

    def work(item: Any) -> int:
        busy()
        item.inner.common.n += 1
        return int(item.inner.common.n)

    return work, items, lambda: common.n


def objects_that_count_as_they_go() -> Case:
    """A class whose ``__del__`` changes it."""

    class Handle:
        n_closed = 0

        def __del__(self) -> None:
            Handle.n_closed += 1

    def work(_: int) -> int:
        busy()
        Handle()
        return Handle.n_closed

    return work, range(N_ITEMS), lambda: Handle.n_closed


def objects_that_count_as_they_are_copied() -> Case:
    """A class whose ``__reduce__`` changes it."""

    class Sent:
        n_sent = 0

        def __reduce__(self) -> Any:
            Sent.n_sent += 1
            return Sent, ()

    def work(_: int) -> int:
        busy()
        copy.copy(Sent())
        return Sent.n_sent

    return work, range(N_ITEMS), lambda: Sent.n_sent


def a_proxy_that_notes_what_it_is_asked() -> Case:
    """Nothing but the function may ask it for anything."""

    class Proxy:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def __getattr__(self, name: str) -> int:
            self.asked.append(name)
            return len(self.asked)

    proxy = Proxy()

    def work(_: int) -> int:
        busy()
        return proxy.price

    return work, range(N_ITEMS), lambda: proxy.asked


def values_that_count_comparisons() -> Case:
    """A builtin compares what is in a container."""

    @functools.total_ordering
    class Value:
        n_compared = 0

        def __init__(self, value: int) -> None:
            self.value = value

        def __eq__(self, other: object) -> bool:
            return self is other

        __hash__ = None  # type: ignore[assignment]

        def __lt__(self, other: Value) -> bool:
            Value.n_compared += 1
            return self.value < other.value

    values = [Value(i) for i in range(5)]

    def work(_: int) -> int:
        busy()
        max(values)
        return Value.n_compared

    return work, range(N_ITEMS), lambda: Value.n_compared


def an_array_that_numpy_writes_to(write: Callable[[Any], None]) -> Case:
    """No list of functions that change what they are given is complete."""
    total = np.zeros((4, 4))

    def work(_: int) -> float:
        busy()
        write(total)
        return float(total[0, 0])

    return work, range(N_ITEMS), lambda: float(total.sum())


def variables_by_way_of_a_frame(frame: Callable[[], Any]) -> Case:
    """The global variables of the function, as ``globals()`` has them."""
    globals()["n_by_frame"] = 0

    def work(_: int) -> int:
        busy()
        variables = frame().f_globals
        variables["n_by_frame"] = variables.get("n_by_frame", 0) + 1
        return int(variables["n_by_frame"])

    return work, range(N_ITEMS), lambda: globals()["n_by_frame"]


CASES: dict[str, Callable[[], Case]] = {
    "what items share in an attribute": what_items_share_in_an_attribute,
    "__del__": objects_that_count_as_they_go,
    "__reduce__": objects_that_count_as_they_are_copied,
    "__getattr__": a_proxy_that_notes_what_it_is_asked,
    "__lt__ of what is in a list": values_that_count_comparisons,
    "copyto": lambda: an_array_that_numpy_writes_to(lambda array: np.copyto(array, array + 1)),
    "fill_diagonal": lambda: an_array_that_numpy_writes_to(lambda array: np.fill_diagonal(array, array[0, 0] + 1)),
    "add.at": lambda: an_array_that_numpy_writes_to(lambda array: np.add.at(array, (0, 0), 1)),
    "nan_to_num": lambda: an_array_that_numpy_writes_to(
        lambda array: (array.__iadd__(1), np.nan_to_num(array, copy=False))[1]
    ),
    "_getframe": lambda: variables_by_way_of_a_frame(lambda: sys._getframe(1)),
    "currentframe": lambda: variables_by_way_of_a_frame(lambda: inspect.currentframe().f_back),  # type: ignore[union-attr]
}


@pytest.mark.parametrize("beside", [contextlib.nullcontext, thread_alive], ids=["alone", "a thread alive"])
@pytest.mark.parametrize("name", CASES)
def test_a_kind_from_the_field_does_what_the_loop_does(name: str, beside: Callable[[], Any]) -> None:
    """Its results, and what is left behind."""
    work, items, left = CASES[name]()
    expected = [work(item) for item in items], left()
    work, items, left = CASES[name]()
    with beside(), warnings.catch_warnings():
        warnings.simplefilter("ignore", amorsize.exceptions.AmorsizeWarning)
        found = amorsize.parallel(work).map(items)
    assert (found, left()) == expected


def patched(*_: Any) -> str:
    """Stand for a function or method of a library."""
    return "patched"


# What a test puts into modules and classes of libraries, which fresh workers import as they are.
PATCHES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "a function": (lambda: mock.patch("textwrap.dedent", patched), lambda _: textwrap.dedent(" a")),
    "a method": (
        lambda: mock.patch.object(fractions.Fraction, "limit_denominator", patched),
        lambda x: fractions.Fraction(x, 3).limit_denominator(),
    ),
    "a special method": (
        lambda: mock.patch.object(fractions.Fraction, "__str__", patched),
        lambda x: str(fractions.Fraction(x, 3)),
    ),
    "a mock": (lambda: mock.patch("time.time", return_value=5.0), lambda _: time.time()),
}


@pytest.mark.parametrize("start_method", ["forkserver", "loky"])
@pytest.mark.parametrize("name", PATCHES)
def test_what_is_patched_in_a_library_is_seen_by_all_items(name: str, start_method: Any) -> None:
    """It goes along, or the function stays."""
    patch, work = PATCHES[name]
    with patch(), warnings.catch_warnings():
        warnings.simplefilter("ignore", amorsize.exceptions.AmorsizeWarning)
        expected = [work(x) for x in range(40)]
        assert amorsize.parallel(work, n_jobs=2, start_method=start_method).map(range(40)) == expected


def test_a_setting_of_a_library_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number or text in a module cannot be told from the one it was imported with."""
    monkeypatch.setattr(textwrap, "setting", "set", raising=False)
    func = amorsize.parallel(lambda _: textwrap.setting, n_jobs=2, start_method="forkserver")  # type: ignore[attr-defined]
    assert func.map(range(40)) == ["set"] * 40


@pytest.mark.parametrize("start_method", ["forkserver", "loky"])
def test_how_numpy_and_the_locale_write_numbers_goes_along(start_method: Any) -> None:
    """It is the caller's in each worker, and again in the next call."""
    before = locale.setlocale(locale.LC_NUMERIC)
    func = amorsize.parallel(written, n_jobs=2, start_method=start_method)
    try:
        locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
        with np.printoptions(precision=2):
            assert set(func.map([1 / 3] * 20)) == {("[0.33]", "C.UTF-8")}
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)
    assert set(func.map([1 / 3] * 20)) == {("[0.33333333]", before)}


def written(number: float) -> tuple[str, str]:
    """Write an array."""
    return str(np.array([number])), locale.setlocale(locale.LC_NUMERIC)


@pytest.mark.parametrize("start_method", ["fork", "forkserver", "loky"])
@pytest.mark.parametrize("draw", [random.random, np.random.random_sample], ids=["random", "numpy"])
def test_workers_draw_numbers_of_their_own(draw: Callable[[], float], start_method: Any) -> None:
    """The generator that a module's functions share was sent along with its state: caller and workers drew the same."""

    def drawn(_: int) -> float:
        time.sleep(0.002)
        return float(draw())

    func = amorsize.parallel(drawn, n_jobs=2, start_method=start_method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", amorsize.exceptions.AmorsizeWarning)
        for _ in range(2):
            assert len(set(func.map(range(100)))) == 100
