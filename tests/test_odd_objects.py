"""Results and exceptions whose own code raises: they cost themselves, and nobody beside them."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize.exceptions import AmorsizeWarning, RemoteError, UnpicklableResult
from tests import functions

if TYPE_CHECKING:
    from pathlib import Path

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks")
PROCESSES = [
    pytest.param({"n_jobs": 2, "start_method": "fork", "timeout": 60}, marks=linux, id="fork"),
    pytest.param({"n_jobs": 2, "start_method": "loky", "timeout": 60}, id="loky"),
]
WAYS = [
    pytest.param({"n_jobs": 1}, id="serial"),
    pytest.param({"n_jobs": 2, "start_method": "fork"}, marks=linux, id="fork"),
    pytest.param({"n_jobs": 2, "start_method": "loky"}, id="loky"),
    pytest.param({"n_jobs": 2, "prefer": "threads"}, id="threads"),
]
ITEMS = range(60)
BAD = 40


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """Takes no attributes: no note, no cause."""

    code: int


class SetsNothingError(Exception):
    """Refuses every attribute in its own words."""

    def __setattr__(self, name: str, value: object) -> None:
        raise LookupError(name)


class ExitsWhenPickledError(Exception):
    """Ends the process that pickles it."""

    def __reduce__(self) -> Any:
        raise SystemExit(3)


class NoTruthError(Exception):
    """Cannot be asked whether it is true, or equal to another."""

    def __bool__(self) -> bool:
        raise ValueError

    def __eq__(self, other: object) -> bool:
        raise ValueError

    __hash__ = Exception.__hash__


class Held:
    """Has what cannot be opened deep inside, as state and as a part."""

    def __init__(self, x: int) -> None:
        self.parts = [x, {"inner": functions.Unopenable(x)}]


class BrokenState:
    """Can be made again, and not given its state."""

    def __getstate__(self) -> dict[str, int]:
        return {"x": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        raise KeyError(*state)


class Node:
    """Cannot be hashed before it has its name, as nodes of graphs; round a circle it is asked to be."""

    def __init__(self, name: str) -> None:
        self.name, self.near = name, set[Node]()

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.name == other.name


class FickleKey:
    """A key that is refused by whoever opens it."""

    opens = True

    def __hash__(self) -> int:
        if not self.opens:
            raise LookupError("no hash")
        return 1

    def __setstate__(self, state: object) -> None:
        self.opens = False

    def __getstate__(self) -> dict[str, int]:
        return {"x": 1}


class PicksUp(list[int]):
    """A list that takes nothing while it is opened."""

    def extend(self, _: object) -> None:
        """Refuse."""
        raise BufferError("full")

    append = extend


@functools.cache
def shared() -> Any:
    """Return one dictionary, each time the same, that does not open."""
    return {FickleKey(): 1, "y": 2}


def circle(x: int) -> Node:
    """Return a node that is near to one that is near to it."""
    node, other = Node(f"a{x}"), Node(f"b{x}")
    node.near.add(other)
    other.near.add(node)
    return node


def full(x: int) -> PicksUp:
    """Return such a list with something in it."""
    found = PicksUp()
    list.append(found, x)
    list.append(found, x)
    return found


class PickledOnce:
    """Can be pickled when it is tried, and not when it counts."""

    n_tries = 0

    def __init__(self, x: int) -> None:
        self.x = x

    def __reduce__(self) -> Any:
        PickledOnce.n_tries += 1
        if PickledOnce.n_tries % 2:
            raise BlockingIOError("busy")
        return int, (self.x,)


class ExitsInRepr:
    """Ends the process that shows it."""

    def __repr__(self) -> str:
        raise SystemExit(4)


def returning(kind: Any) -> Any:
    """Return a function whose result for one item is odd."""

    def func(x: int) -> Any:
        time.sleep(1e-3)
        return kind(x) if x == BAD else x

    return func


def raising(kind: Any) -> Any:
    """Return a function that raises something odd for one item."""

    def func(x: int) -> int:
        time.sleep(1e-3)
        if x == BAD:
            raise kind(x)
        return x

    return func


@pytest.mark.parametrize("way", PROCESSES)
@pytest.mark.parametrize(
    "kind",
    [
        functions.Unopenable,
        Held,
        lambda _: BrokenState(),
        circle,
        lambda _: {FickleKey(): 1},
        lambda _: {FickleKey(): 1, 2: 2},
        lambda _: frozenset({FickleKey()}),
        full,
    ],
    ids=["made", "held", "state", "set", "dict", "dict of two", "frozenset", "list"],
)
def test_a_result_that_does_not_open_costs_only_itself(way: dict[str, Any], kind: Any) -> None:
    """Its exception ended the call, whatever *errors* said, and every other result was lost."""
    func = amorsize.parallel(returning(kind), errors="return", **way)
    for found in (func.map(ITEMS), list(func.imap(ITEMS))):
        assert [x for x in found if isinstance(x, int)] == [x for x in ITEMS if x != BAD]
        assert isinstance(found[BAD], UnpicklableResult)
        assert found[BAD].index == BAD
        assert str(found[BAD]).startswith(f"the result of item {BAD} cannot be unpickled: ")
        assert found[BAD].__cause__ is not None
    with pytest.raises(UnpicklableResult) as caught:
        func.with_options(errors="raise").map(ITEMS)
    assert caught.value.index == BAD
    assert func.with_options(errors="skip").map(ITEMS) == [x for x in ITEMS if x != BAD]


@pytest.mark.parametrize("way", PROCESSES)
def test_what_shares_a_part_that_does_not_open_is_not_half_there(way: dict[str, Any]) -> None:
    """Results of one chunk are pickled together: what two of them hold is there once, half filled."""

    def func(x: int) -> Any:
        time.sleep(1e-3)
        return (x, shared()) if 40 <= x < 50 else x

    found = amorsize.parallel(func, errors="return", **way).map(ITEMS)
    assert [isinstance(x, UnpicklableResult) for x in found] == [40 <= x < 50 for x in ITEMS]
    assert [x for x in found if isinstance(x, int)] == [x for x in ITEMS if not 40 <= x < 50]


@pytest.mark.parametrize("way", PROCESSES)
def test_a_result_that_can_be_pickled_now_and_then(way: dict[str, Any]) -> None:
    """The worker died of it: tried alone it could be pickled, and then not."""
    func = amorsize.parallel(returning(PickledOnce), errors="return", **way)
    found = func.map(ITEMS)
    assert found[BAD] == BAD or isinstance(found[BAD], UnpicklableResult)
    assert all(x == i or isinstance(x, UnpicklableResult) for i, x in enumerate(found))


@pytest.mark.parametrize("way", PROCESSES)
def test_an_innocent_part_that_goes_by_value_hides_nothing(way: dict[str, Any]) -> None:
    """The walk that looks for what could not be opened came to a lambda, and no further."""
    func = amorsize.parallel(returning(lambda x: {"f": lambda: x, "bad": functions.Unopenable(x)}), **way)
    found = func.with_options(errors="return").map(ITEMS)
    assert isinstance(found[BAD], UnpicklableResult)
    assert found[:BAD] + found[BAD + 1 :] == [x for x in ITEMS if x != BAD]


@pytest.mark.parametrize("way", PROCESSES)
def test_an_exception_that_only_its_worker_knows(way: dict[str, Any], tmp_path: Path) -> None:
    """Of a module that the function has found for itself: what could not be opened was raised as it stood."""
    (tmp_path / "known_there.py").write_text("class ThereError(Exception): pass\n")

    def func(x: int, folder: str = str(tmp_path)) -> int:
        time.sleep(1e-3)
        if x == BAD:
            sys.path.insert(0, folder)
            import known_there  # noqa: PLC0415 - the point

            raise known_there.ThereError(x)
        return x

    with (
        pytest.warns(AmorsizeWarning, match="changes sys"),
        pytest.raises(RemoteError, match=f"item {BAD} raised an exception that cannot be unpickled") as caught,
    ):
        amorsize.parallel(func, **way).map(ITEMS)
    assert "ThereError" in str(caught.value.__cause__)
    with pytest.warns(AmorsizeWarning, match="changes sys"):
        found = amorsize.parallel(func, errors="return", **way).map(ITEMS)
    assert isinstance(found[BAD], RemoteError)
    assert found[:BAD] + found[BAD + 1 :] == [x for x in ITEMS if x != BAD]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [FrozenError, SetsNothingError, NoTruthError])
def test_an_exception_that_takes_no_note_goes_without(way: dict[str, Any], kind: Any) -> None:
    """
    It was replaced by what it raised when it was to be given one.

    One that cannot be given its state either does not come out of a pickle, and arrives as what says so.
    """
    func = amorsize.parallel(raising(kind), **way)
    expected = (kind, RemoteError) if kind is FrozenError else kind
    with pytest.raises(expected, match=str(BAD)):
        func.map(ITEMS)
    found = func.with_options(errors="return").map(ITEMS)
    assert isinstance(found[BAD], expected)
    assert found[:BAD] + found[BAD + 1 :] == [x for x in ITEMS if x != BAD]
    assert func.with_options(errors="skip").map(ITEMS) == [x for x in ITEMS if x != BAD]


@pytest.mark.parametrize("way", PROCESSES)
def test_an_exception_that_ends_who_pickles_it(way: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    """Its worker died of it, with the results beside it."""
    found = amorsize.parallel(raising(ExitsWhenPickledError), errors="return", **way).map(ITEMS)
    assert isinstance(found[BAD], ExitsWhenPickledError)
    assert found[:BAD] + found[BAD + 1 :] == [x for x in ITEMS if x != BAD]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("way", WAYS)
def test_an_item_that_ends_who_shows_it(way: dict[str, Any]) -> None:
    """The note on the exception does without."""

    def func(x: Any) -> Any:
        time.sleep(1e-3)
        if isinstance(x, ExitsInRepr):
            raise LookupError  # noqa: TRY004 - any would do
        return x

    with pytest.raises(LookupError) as caught:
        amorsize.parallel(func, **way).map([*range(BAD), ExitsInRepr(), *range(BAD)])
    assert caught.value.__notes__ == [f"amorsize: raised by item {BAD}: <ExitsInRepr>"]
