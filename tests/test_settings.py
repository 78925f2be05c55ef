"""What the caller has set in modules reaches workers that import them anew, as of each call, and nothing stays."""

from __future__ import annotations

import importlib
import pickle
import sys
import unittest.mock
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize._backend import _settings
from amorsize._backend._worker import UnsendableFunctionError
from amorsize.exceptions import AmorsizeWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = """
import functools
import threading

N = 1
TABLE = {"a": 1}
HOOKS = []
LOCK = threading.Lock()


class Model:
    scale = 1

    def predict(self, x):
        return x * self.scale


def fetch(x):
    return ("real", x)


class Derived(Model):
    pass


def helped(x, more=0):
    return "old", helped.label, more, Derived().predict(1)


helped.label = "a"


def around(func):
    @functools.wraps(func)
    def wrapper(*args):
        return func(*args)

    return wrapper


@around
@around
def wrapped(x, more=0):
    return more


@functools.lru_cache
def cached(x):
    return x


cached.label = "a"


def extra():
    try:
        return Derived().extra
    except AttributeError:
        return "none"


def by_helper(x):
    return helped(x), wrapped(x), cached(x), cached.label, extra()


def work(x):
    sum(range(2000))
    with LOCK:
        return N, TABLE["a"], Model().predict(1), fetch(x)[0], [hook(1) for hook in HOOKS]
"""


@pytest.fixture(name="module")
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a module of its own, importable by workers."""
    (tmp_path / "set_at_run_time.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("set_at_run_time")
    del sys.modules["set_at_run_time"]


def double(x: int) -> int:
    """Return twice the argument."""
    return 2 * x


def fake(x: int) -> tuple[str, int]:
    """Stand in for fetch."""
    return ("fake", x)


METHODS = ["loky", *(["fork", "forkserver"] if sys.platform == "linux" else [])]


@pytest.mark.parametrize("start_method", METHODS)
@pytest.mark.filterwarnings("ignore::amorsize.exceptions.AmorsizeWarning")
def test_workers_see_what_the_caller_has_set(module: Any, start_method: str) -> None:
    """Constants, tables, class attributes, registries and patches: those of the call, and back again."""
    f = amorsize.parallel(module.work, n_jobs=2, start_method=start_method)

    def by_name(x: int) -> Any:
        return module.work(x)

    g = amorsize.parallel(by_name, n_jobs=2, start_method=start_method)
    for chosen in (f, g):
        assert set(map(repr, chosen.map(range(40)))) == {repr((1, 1, 1, "real", []))}
        with (
            unittest.mock.patch.object(module, "N", 5),
            unittest.mock.patch.dict(module.TABLE, a=7),
            unittest.mock.patch.object(module.Model, "scale", 10),
            unittest.mock.patch.object(module, "HOOKS", [double]),
            unittest.mock.patch.object(module, "fetch", fake),
        ):
            assert set(map(repr, chosen.map(range(40)))) == {repr((5, 7, 10, "fake", [2]))}
        assert set(map(repr, chosen.map(range(40)))) == {repr((1, 1, 1, "real", []))}


@pytest.mark.parametrize("start_method", [name for name in METHODS if name != "fork"])
def test_a_mock_that_cannot_travel_keeps_the_function_here(module: Any, start_method: str) -> None:
    """Not the real function instead: it might do for real what a test has replaced."""

    def by_name(x: int) -> Any:
        return module.fetch(x)

    stand_in = unittest.mock.MagicMock(return_value=("fake", 0))
    with unittest.mock.patch.object(module, "fetch", stand_in), pytest.warns(AmorsizeWarning, match="fetch"):
        found = amorsize.parallel(by_name, n_jobs=2, start_method=start_method).map(range(40))
    assert found == [("fake", 0)] * 40


def reloaded(x: int, more: int = 0) -> Any:
    """Stand for the new code of a helper."""
    return "new", x, more


def replace_code(module: Any) -> None:
    """Put new code into a function, as a reload in a notebook does."""
    module.helped.__code__ = reloaded.__code__


def replace_defaults(module: Any) -> None:
    """Give an argument another default."""
    module.helped.__defaults__ = (5,)


def replace_attribute(module: Any) -> None:
    """Give an attribute of a function another value."""
    module.helped.label = "b"


def add_method(module: Any) -> None:
    """Add to a class what it had from its base."""
    module.Derived.predict = lambda _self, x: -x


def replace_defaults_behind_wrappers(module: Any) -> None:
    """Give an argument another default, of the function that two wrappers call."""
    module.wrapped.__wrapped__.__wrapped__.__defaults__ = (5,)


def replace_attribute_of_a_cache(module: Any) -> None:
    """Give an attribute of a function with a cache another value."""
    module.cached.label = "b"


def add_answer_for_what_is_missing(module: Any) -> None:
    """Have a class answer for attributes that are not there."""
    module.Derived.__getattr__ = lambda _self, name: name


@pytest.mark.parametrize("start_method", METHODS)
@pytest.mark.parametrize(
    "change",
    [
        replace_code, replace_defaults, replace_attribute, add_method, replace_defaults_behind_wrappers,
        replace_attribute_of_a_cache, add_answer_for_what_is_missing,
    ],
)  # fmt: skip
def test_what_changes_in_place_between_two_maps_is_seen(
    module: Any, change: Callable[[Any], None], start_method: str
) -> None:
    """Where all names mean the same objects as before, but functions and classes are not what they were."""
    f = amorsize.parallel(module.by_helper, n_jobs=2, start_method=start_method)
    before = [module.by_helper(x) for x in range(40)]
    assert f.map(range(40)) == before
    change(module)
    after = [module.by_helper(x) for x in range(40)]
    assert after != before
    assert f.map(range(40)) == after


OTHER_CODE = """
import threading

LOCK = threading.Lock()


def work(x):
    with LOCK:
        return 2 * x
"""


def test_a_function_of_other_code_that_cannot_be_sent_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where workers import another version and the caller's cannot be pickled, what is out comes home first."""
    path = tmp_path / "other_code.py"
    path.write_text(OTHER_CODE)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("other_code")
    path.write_text(OTHER_CODE.replace("2 * x", "'another'"))
    # Workers that are there get all of the items, and are asked at once.
    amorsize.parallel(double, n_jobs=2, start_method="loky").map(range(40))
    f = amorsize.parallel(module.work, n_jobs=2, start_method="loky", batch_size=3)
    with pytest.warns(AmorsizeWarning, match="cannot be pickled"):
        assert f.map(range(60)) == [2 * x for x in range(60)]
    del sys.modules["other_code"]


def test_what_cannot_be_set_in_a_worker_keeps_the_function_here() -> None:
    """An attribute of a bound method, as structlog makes them: on loky the map ended with an AttributeError."""
    data = pickle.dumps([("tests.speaking", "log.info.__name__", "other")])
    with pytest.raises(UnsendableFunctionError, match=r"tests\.speaking\.log\.info\.__name__ cannot be set in workers"):
        _settings.apply(data)
