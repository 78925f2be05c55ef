"""Objects whose code answers for another: how often it runs is for the function to say, and never for the analysis."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize._analysis import known_dependencies
from amorsize._analysis.observation import Observation
from amorsize._attribute import attribute_of, attributes

if TYPE_CHECKING:
    from collections.abc import Callable

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks")

# What each call of a proxy's own code adds itself to.
CALLS: list[str] = []


class Target:
    """What the proxies below stand for."""

    value = 3


class LikeWerkzeug:
    """Asks what it stands for through descriptors, as LocalProxy does: for the class and the attributes, too."""

    class Asks:
        """Asks the target for an attribute."""

        def __set_name__(self, owner: type, name: str) -> None:
            self.name = name

        def __get__(self, owner: object, kind: type | None = None) -> Any:
            CALLS.append(self.name)
            return (
                (lambda name: getattr(Target(), name)) if self.name == "__getattr__" else getattr(Target(), self.name)
            )

    __class__ = Asks()
    __dict__ = Asks()
    __doc__ = Asks()
    __getattr__ = Asks()


class LikeDjango:
    """Makes what it stands for when its class, or an attribute, is asked for, as SimpleLazyObject does."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # type: ignore[override]
        CALLS.append("__class__")
        return Target

    def __getattr__(self, name: str) -> Any:
        CALLS.append(name)
        return getattr(Target(), name)


class Counting:
    """Counts all that it is asked."""

    value = 3

    def __getattribute__(self, name: str) -> Any:
        CALLS.append(name)
        return object.__getattribute__(self, name)


class Meta(type):
    """Counts all that its classes are asked."""

    def __getattribute__(cls, name: str) -> Any:
        CALLS.append(name)
        return type.__getattribute__(cls, name)

    def __getattr__(cls, name: str) -> Any:
        CALLS.append(name)
        raise AttributeError(name)

    def __instancecheck__(cls, instance: object) -> bool:
        CALLS.append("__instancecheck__")
        return True


class OfMeta(metaclass=Meta):
    """Its class counts, and it does not."""

    value = 3


KINDS = [LikeWerkzeug, LikeDjango, Counting, OfMeta]
NAMES = ["like werkzeug", "like django", "counting", "of a counting metaclass"]


def _work(x: int) -> int:
    return sum(range(40_000)) * 0 + x


class Holder:
    """Holds a proxy in an attribute, and another in its class."""

    held: Any = None

    def __init__(self, proxy: Any) -> None:
        self.proxy = proxy

    def run(self, x: int) -> int:
        """Compute with neither."""
        return _work(x) + (self.proxy is None) + (self.held is None)


def _in_closure(proxy: Any) -> Callable[[int], int]:
    return lambda x: _work(x) + (proxy is None)


def _in_global(proxy: Any) -> Callable[[int], int]:
    names: dict[str, Any] = {"PROXY": proxy, "work": _work, "TABLE": [proxy]}
    exec("def f(x): return work(x) + (PROXY is None) + len(TABLE)", names)  # noqa: S102 - the code is this
    return names["f"]  # type: ignore[no-any-return]


def _in_default(proxy: Any) -> Callable[[int], int]:
    def f(x: int, proxy: Any = proxy) -> int:
        return _work(x) + (proxy is None)

    return f


def _in_attribute(proxy: Any) -> Callable[[int], int]:
    kind: Any = type("Held", (Holder,), {"held": proxy})
    return kind(proxy).run  # type: ignore[no-any-return]


WAYS = [_in_closure, _in_global, _in_default, _in_attribute]


@pytest.fixture(autouse=True)
def _count_anew() -> None:
    CALLS.clear()


@linux
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_a_map_runs_no_code_of_a_proxy_that_the_loop_does_not_run(kind: Any, way: Any) -> None:
    """
    The function only reaches the proxy: whatever looks at it, no code of it runs, in the loop or in the map.

    Workers are forked: what is sent to others is pickled, and that asks the proxy.
    """
    func = way(kind())
    CALLS.clear()
    expected = [func(x) for x in range(100)]
    in_loop = list(CALLS)
    assert amorsize.parallel(func).map(range(100), n_jobs=2, start_method="fork") == expected
    assert not in_loop
    assert not CALLS


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_a_map_runs_code_of_a_proxy_as_often_as_the_loop(kind: Any) -> None:
    """The function asks the proxy: the map's calls are those of the loop, and no more."""
    proxy = kind()

    def func(x: int) -> int:
        return _work(x) + int(proxy.value)

    CALLS.clear()
    expected = [func(x) for x in range(100)]
    in_loop, CALLS[:] = list(CALLS), []
    assert amorsize.parallel(func).map(range(100), n_jobs=1) == expected
    assert in_loop == CALLS


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_no_look_at_what_a_function_reaches_runs_code_of_a_proxy(kind: Any) -> None:
    """The analysis, and the comparison of states before and after items, ask the proxies for nothing."""
    proxy = kind()
    for func in (
        *(way(proxy) for way in WAYS),
        functools.partial(lambda _, x: x, proxy),
        lambda x: proxy.value + x,
        lambda x: (proxy in [None, proxy], x),
    ):
        CALLS.clear()
        found = known_dependencies(func, [proxy, (proxy, 1)])
        Observation(found, [proxy, [proxy]], pickles=False).changed()
        assert not CALLS
    assert attribute_of(proxy, "missing") is None
    assert attributes(proxy) == {}
    assert not CALLS


class Hidden:
    """Keeps what it stands for where nobody else can look: its class has a ``__dict__`` of its own."""

    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "target", target)

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        """Return the attributes of what it stands for."""
        return vars(object.__getattribute__(self, "target")())

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "target")(), name)


@pytest.mark.parametrize("proxy", [LikeWerkzeug(), Hidden(Target)], ids=["descriptors", "hidden"])
def test_what_a_proxy_stands_for_is_not_proved_to_stay_as_it_is(proxy: Any) -> None:
    """Where nobody can tell what answers, it is not known what a call changes, and items are watched."""

    def func(x: int) -> Any:
        return proxy.method(x)

    CALLS.clear()
    found = known_dependencies(func)
    assert not CALLS
    assert "proxy" in found.effects.unproved
    assert found.needs_watching
