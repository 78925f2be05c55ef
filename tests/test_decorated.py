"""Functions under decorators that people use: they go to workers as the bare function does, where that is right."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

import joblib
import pytest

import amorsize
from amorsize._analysis.dependencies import dependencies
from amorsize._analysis.effects import effects_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def work(n: int) -> tuple[int, int]:
    """Take a while; return the square and the process."""
    time.sleep(0.003)
    return n * n, os.getpid()


def of_stamina() -> Any:
    """Retry."""
    return pytest.importorskip("stamina").retry(on=ValueError, attempts=2)(work)


def of_tenacity() -> Any:
    """Retry."""
    tenacity = pytest.importorskip("tenacity")
    return tenacity.retry(stop=tenacity.stop_after_attempt(2))(work)


def of_backoff() -> Any:
    """Retry."""
    backoff = pytest.importorskip("backoff")
    return backoff.on_exception(backoff.expo, ValueError, max_tries=2)(work)


def of_pydantic() -> Any:
    """Check arguments."""
    work.__annotations__.update(n=int)  # strings are resolved where the function is
    return pytest.importorskip("pydantic").validate_call(work)


def of_beartype() -> Any:
    """Check arguments."""
    return pytest.importorskip("beartype").beartype(work)


def of_cachetools() -> Any:
    """Keep results in memory."""
    return pytest.importorskip("cachetools").cached(cache={})(work)


def of_cachetools_locked() -> Any:
    """Keep results in memory, for several threads, and count them."""
    return pytest.importorskip("cachetools.func").lru_cache(maxsize=100)(work)


caches: list[Any] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close caches: their databases warn of it from 3.13 on, at some collection later, in another test."""
    yield
    while caches:
        caches.pop().close()


def of_diskcache() -> Any:
    """Keep results on disk."""
    caches.append(pytest.importorskip("diskcache").Cache(tempfile.mkdtemp()))
    return caches[-1].memoize()(work)


def of_joblib() -> Any:
    """Keep results on disk."""
    func = joblib.Memory(tempfile.mkdtemp(), verbose=0).cache(work)
    # Stores the function's code. If two workers did so at once, one might read a half of it, and joblib would warn.
    func(-1)
    return func


def of_functools() -> Any:
    """Keep results in memory; choose by type."""
    return functools.singledispatch(functools.cache(work))


@pytest.mark.parametrize(
    "decorated",
    [of_stamina, of_tenacity, of_backoff, of_pydantic, of_beartype, of_cachetools, of_cachetools_locked, of_diskcache,
     of_joblib, of_functools],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning")  # backoff asks it
def test_a_decorated_function_changes_nothing_and_goes_to_workers(decorated: Any) -> None:
    """No word of state, no warning, and other processes."""
    func = decorated()
    assert effects_of(func).changes == ()
    assert dependencies(func).is_complete
    function = amorsize.parallel(func, n_jobs=2, retries=1)
    results = function.map(range(40))
    assert [square for square, _ in results] == [n * n for n in range(40)]
    assert os.getpid() not in {pid for _, pid in results}
    assert function.last_plan is not None
    assert function.last_plan.backend != "sequential"


def test_what_is_under_a_decorator_is_looked_at() -> None:
    """A check of arguments hides no change."""
    pydantic = pytest.importorskip("pydantic")
    seen: list[int] = []

    def counts(n):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - pydantic would resolve the annotations
        seen.append(n)
        return n

    assert effects_of(pydantic.validate_call(counts)).changes == ("seen",)


@pytest.mark.parametrize("start_method", ["loky", *(["forkserver"] if sys.platform == "linux" else [])])
def test_a_single_dispatch_function_is_sent_by_value(start_method: Any) -> None:
    """It keeps classes in a weak dictionary, which cannot be pickled by itself."""

    @functools.singledispatch
    def kind(x: Any) -> str:
        return "something"

    @kind.register
    def _(x: int) -> str:
        return "a number"

    assert kind(1) == "a number"  # from here on the dictionary has an entry
    function = amorsize.parallel(kind, n_jobs=2, retries=1, start_method=start_method)
    assert function.map([1, "a"] * 10) == ["a number", "something"] * 10
    assert function.last_plan is not None
    assert function.last_plan.backend == start_method


def by_value_of_pydantic() -> Any:
    """Check arguments; what pydantic keeps for that holds all globals of the module."""

    def local(n: Any) -> Any:
        return n * n

    local.__annotations__ = {"n": int}
    local.__globals__["unpicklable"] = threading.Lock()
    return pytest.importorskip("pydantic").validate_call(local)


def by_value_of_cachetools() -> Any:
    """Keep results in memory; the decorator's object is pickled as its name."""
    return pytest.importorskip("cachetools").cached({})(lambda n: n * n)


def by_value_of_functools() -> Any:
    """Likewise, and the function calls itself by its decorated name."""

    @functools.lru_cache(maxsize=50)
    def local(n: int) -> int:
        return n * n if n < 10 else local(n - 1) + 2 * n - 1

    return local


def by_value_of_a_proxy() -> Any:
    """Have an attribute for whatever is asked for, by way of one that is not there before the state is."""

    class Proxy:
        def __init__(self) -> None:
            self.inner = 1

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    proxy = Proxy()
    return lambda n: n * n * proxy.inner * proxy.numerator


@pytest.mark.parametrize("start_method", ["loky", *(["forkserver"] if sys.platform == "linux" else [])])
@pytest.mark.parametrize(
    "decorated", [by_value_of_pydantic, by_value_of_cachetools, by_value_of_functools, by_value_of_a_proxy]
)
def test_a_decorated_function_without_a_module_is_sent_by_value(decorated: Any, start_method: Any) -> None:
    """As functions of scripts and notebooks are."""
    function = amorsize.parallel(decorated(), n_jobs=2, retries=1, start_method=start_method)
    assert function.map(range(40)) == [n * n for n in range(40)]
    assert function.last_plan is not None
    assert function.last_plan.backend == start_method
    assert not function.last_plan.warnings


def test_what_a_decorator_holds_and_cannot_be_sent_is_named_as_its_function() -> None:
    """Not by a position, nor by what the library calls it."""
    cached = pytest.importorskip("cachetools.func").lru_cache(lambda n: n)
    function = amorsize.parallel(cached, n_jobs=2, start_method="loky")
    with pytest.warns(amorsize.exceptions.AmorsizeWarning, match="holds as '<lambda>': .*RLock"):
        function.map(range(40))


@pytest.mark.skipif(sys.platform != "linux", reason="fork is only used on Linux")
def test_what_forbids_a_fork_is_told_in_the_words_of_who_wrote_the_decorator() -> None:
    """Not by the names that the library has for its own variables."""
    (reason,) = dependencies(of_tenacity()).open_names
    assert reason == "what the decorator of work (tenacity) keeps (threading.local)"


def test_what_the_program_s_own_decorator_holds_goes_by_the_name_it_has_there() -> None:
    """Its author knows that name."""
    lock = threading.local()

    def own(func: Any) -> Any:
        @functools.wraps(func)
        def guarded(n: int) -> Any:
            lock.n = n
            return func(n)

        return guarded

    (reason,) = dependencies(own(work)).open_names
    assert reason == "lock (threading.local)"
