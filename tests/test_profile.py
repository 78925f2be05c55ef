from __future__ import annotations

import pickle
import sqlite3
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import amorsize
from amorsize import Profile, _bounds, _profile, _weigh
from amorsize._analysis import known_dependencies
from amorsize._backend import dumps_by_value
from amorsize._bounds import SAMPLE_BOX_S
from amorsize._known import CACHE, Known, ProfileCache, refresh, remember
from amorsize._profile import CLOCK_S, Sampler, add_item_note, steady
from amorsize._weigh import NotPicklable, function_problem, inspect_function, shallow_bytes, weigh, weigh_value
from tests.factories import make_profile

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Watch:
    """A clock that stands still until a function lets time pass."""

    now: float = 0.0
    log: list[Any] = field(default_factory=list)

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def taking(self, seconds: dict[int, float] | float) -> Any:
        """Return a function of one item that takes that long and returns ten times the item."""

        def work(item: int) -> int:
            self.log.append(item)
            self.now += seconds[item] if isinstance(seconds, dict) else seconds
            return 10 * item

        return work


# -- sampling --------------------------------------------------------------------------------------------------------


def test_the_sample_is_the_first_items_once_and_in_order() -> None:
    """No item is dropped, repeated or reordered, and the stream goes on after the sample (S8, S10)."""
    watch = Watch()
    stream = iter(range(20))
    sampler = Sampler(watch.taking(1e-4), watch)
    sampler.run(stream, 5)
    assert sampler.items == watch.log == [0, 1, 2, 3, 4]
    assert sampler.results == [0, 10, 20, 30, 40]
    assert sampler.times == pytest.approx([1e-4] * 5)
    assert list(stream) == list(range(5, 20))


def test_a_sample_can_be_continued() -> None:
    """A second run goes on where the first ended."""
    watch = Watch()
    stream = iter(range(20))
    sampler = Sampler(watch.taking(1e-4), watch)
    sampler.run(stream, 1)
    sampler.run(stream, 3)
    assert sampler.items == [0, 1, 2]
    assert sampler.profile().n_sampled == 3
    assert next(stream) == 3


@pytest.mark.parametrize(("seconds", "expected"), [(10.0, 1), (SAMPLE_BOX_S, 1), (SAMPLE_BOX_S * 0.6, 2), (1e-6, 5)])
def test_the_sample_is_boxed_in_time(seconds: float, expected: int) -> None:
    """Five items of ten seconds each do not cost fifty: the sample ends with the item that fills its time."""
    watch = Watch()
    sampler = Sampler(watch.taking(seconds), watch)
    sampler.run(iter(range(20)), 5)
    assert len(watch.log) == len(sampler.results) == expected


def test_a_short_input_is_sampled_whole() -> None:
    """Fewer items than asked for are no error, none at all is an empty profile."""
    sampler = Sampler(Watch().taking(1e-4), Watch())
    sampler.run(iter([]), 5)
    assert sampler.profile() == Profile()
    sampler.run(iter([7]), 5)
    assert sampler.results == [70]


def test_the_head_is_counted() -> None:
    """The profile says how many results the sample kept and how long they took."""
    watch = Watch()
    sampler = Sampler(watch.taking(1e-3), watch)
    sampler.run(iter(range(9)), 4)
    profile = sampler.profile()
    assert (profile.n_head, profile.n_sampled) == (4, 4)
    assert profile.head_s == pytest.approx(4e-3)
    assert profile.item_s == pytest.approx(1e-3 - CLOCK_S)
    assert profile.item_s_std == pytest.approx(0.0, abs=1e-9)


def test_a_warm_up_is_told_apart_from_the_steady_cost() -> None:
    """A first item that imports something for seconds does not count as what items cost."""
    watch = Watch()
    sampler = Sampler(watch.taking({0: 2.0, 1: 1e-3, 2: 1e-3, 3: 1e-3, 4: 1e-3}), watch)
    sampler.run(iter(range(9)), 5, box_s=60.0)
    profile = sampler.profile()
    assert profile.first_s == pytest.approx(2.0)
    assert profile.item_s == pytest.approx(1e-3 - CLOCK_S)


@given(st.lists(st.floats(1e-7, 100.0), min_size=1, max_size=20))
def test_the_steady_cost_lies_between_the_extremes(times: list[float]) -> None:
    """Mean and spread are those of times that were seen."""
    mean, std = steady(times)
    assert min(times) * 0.999 <= mean <= max(times) * 1.001
    assert 0 <= std <= max(times) - min(times) + 1e-9


def test_a_single_time_is_the_cost_itself() -> None:
    """With one item there is nothing to tell it apart from."""
    assert steady([3.0]) == (3.0, 0.0)


def test_only_a_real_outlier_is_left_out() -> None:
    """A first item somewhat dearer than the others belongs to the cost."""
    assert steady([2.0, 1.0, 1.0, 1.0])[0] == pytest.approx(1.25)
    assert steady([4.0, 1.0, 1.0, 1.0])[0] == pytest.approx(1.0)
    assert steady([1.0, 1.0, 1.0, 9.0])[0] == pytest.approx(3.0)


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, KeyError, SystemExit, KeyboardInterrupt, StopIteration])
def test_the_functions_exception_leaves_with_a_note(kind: type[BaseException]) -> None:
    """The original object comes out, whatever its kind, and says which item it was (S13)."""
    error = kind("why")

    def fail(item: str) -> str:
        if item == "bad":
            raise error
        return item

    sampler = Sampler(fail)
    with pytest.raises(kind) as caught:
        sampler.run(iter(["fine", "bad", "never"]), 5, start=100)
    assert caught.value is error
    assert error.args == ("why",)
    assert error.__notes__ == ["amorsize: raised by item 101: 'bad'"]
    assert sampler.results == ["fine"]


def test_the_inputs_exception_leaves_without_a_note() -> None:
    """What the data's own iterator raises has nothing to do with an item."""

    def data() -> Any:
        yield 1
        raise ValueError("no more")

    sampler = Sampler(str)
    with pytest.raises(ValueError, match="no more") as caught:
        sampler.run(data(), 5)
    assert not hasattr(caught.value, "__notes__")
    assert sampler.results == ["1"]


class Unspeakable:
    """An object whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


def test_a_note_survives_an_item_that_cannot_be_spelled() -> None:
    """A broken repr leads to the type's name; long ones are cut; the same note is not added twice."""
    error = ValueError("x")
    add_item_note(error, 3, Unspeakable())
    add_item_note(error, 3, Unspeakable())
    assert error.__notes__ == ["amorsize: raised by item 3: <Unspeakable>"]
    other = ValueError("x")
    add_item_note(other, 3, "y" * 10_000)
    assert len(other.__notes__[0]) < 200
    assert other.__notes__[0].endswith("...")


# -- sizes -----------------------------------------------------------------------------------------------------------


class Refuses:
    """An object that cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("stay here")


class OneWay:
    """An object that can be pickled and not be unpickled."""

    def __reduce__(self) -> Any:
        return _explode, ()


def _explode() -> None:
    raise RuntimeError("cannot be built again")


@pytest.mark.parametrize(
    "value", [0, "text", b"x" * 1000, [1, 2, 3], {"a": (1, None)}, np.arange(10), list(range(1000))], ids=repr
)
def test_a_small_value_weighs_what_its_pickle_does(value: Any) -> None:
    """Pickled bytes are measured, not guessed (S6)."""
    n_bytes, seconds = weigh_value(value, dumps_by_value)
    assert n_bytes == len(pickle.dumps(value, protocol=5))
    assert seconds > 0


@pytest.mark.parametrize(
    "value",
    [b"x" * 10**6, "y" * 10**6, np.zeros(10**6), np.zeros((1000, 1000)), list(range(10**5)), [bytes(999)] * 10**5],
    ids=["bytes", "text", "array", "table", "numbers", "one object many times"],
)
def test_a_large_value_is_extrapolated(value: Any) -> None:
    """A large value's size is about right without pickling all of it."""
    n_bytes, seconds = weigh_value(value, dumps_by_value)
    true = len(pickle.dumps(value, protocol=5))
    assert 0.5 * true < n_bytes < 2 * true
    assert seconds > 0


def test_lambdas_and_closures_weigh_too() -> None:
    """What plain pickle refuses and cloudpickle takes is picklable."""
    n_bytes, _ = weigh_value(lambda x: x + 1, dumps_by_value)
    assert n_bytes > 0


@pytest.mark.parametrize("value", [threading.Lock(), Refuses(), [1, Refuses()]], ids=repr)
def test_what_cannot_be_pickled_says_so(value: Any) -> None:
    """A value that cannot be pickled is told, with its type (S11)."""
    with pytest.raises(NotPicklable, match=type(value).__qualname__):
        weigh_value(value, dumps_by_value)


def test_an_item_costs_what_it_adds_to_a_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """40,000 numbers of 3 us each looked dearer to send than to compute: each was weighed with a pickle of its own."""
    monkeypatch.setattr(_weigh, "_empty_s", lambda: 10.0)  # more than any pickle of a number takes
    profile = weigh(Profile(), [1, 2, 3], [0.5, 1.5, 2.5], dumps_by_value)
    least_s = (1 + _bounds.LOADS_SHARE) * _bounds.LEAST_PICKLE_S
    assert (profile.arg_pickle_s, profile.pickle_s) == pytest.approx((least_s, 2 * least_s))


def test_nothing_is_unpickled_to_weigh_it() -> None:
    """Unpickling runs code of the caller's classes, which may take any time: it is left to the workers."""
    assert weigh_value(OneWay(), dumps_by_value)[0] > 0


def test_sampled_items_and_results_are_weighed() -> None:
    """The profile gets mean sizes of both ways and the seconds for it."""
    profile = weigh(make_profile(), [b"x" * 100] * 3, ["y" * 1000] * 3, dumps_by_value)
    assert profile.arg_bytes == len(pickle.dumps(b"x" * 100, protocol=5))
    assert profile.result_bytes == len(pickle.dumps("y" * 1000, protocol=5))
    assert 0 < profile.arg_pickle_s < profile.pickle_s
    assert profile.is_picklable


def test_an_unpicklable_result_is_in_the_profile() -> None:
    """The profile says that it cannot be pickled and what."""
    profile = weigh(make_profile(), [1, 2], [1, Refuses()], dumps_by_value)
    assert not profile.is_picklable
    assert "Refuses" in profile.problem
    assert "stay here" in profile.problem


def identity(x: Any) -> Any:
    """Return it."""
    return x


def test_a_function_that_holds_what_cannot_be_pickled_is_told() -> None:
    """A closure over a lock names the variable."""
    lock = threading.Lock()

    def locked(x: int) -> int:
        with lock:
            return x

    assert inspect_function(
        Profile(), locked, known_dependencies(locked)
    ).is_picklable  # nothing is pickled before workers are predicted to pay
    assert "'lock'" in function_problem(locked, dumps_by_value)


def test_a_helper_that_holds_what_cannot_be_pickled_is_told() -> None:
    """A function that is sent by value takes its helpers along: helper and value are named."""
    connection = sqlite3.connect(":memory:")

    def look_up(x: int) -> Any:
        return connection.execute("select ?", (x,)).fetchone()

    def by_helper(x: int) -> Any:
        return look_up(x)

    problem = function_problem(by_helper, dumps_by_value)
    assert "look_up()" in problem
    assert "'connection'" in problem
    connection.close()


def test_an_importable_function_is_small() -> None:
    """It travels by name; a closure weighs what it holds."""
    data = bytes(10_000)

    def closure(x: int) -> int:
        return x + len(data)

    assert inspect_function(Profile(), identity, known_dependencies(identity)).func_bytes < 1000
    assert inspect_function(Profile(), closure, known_dependencies(closure)).func_bytes > 10_000


class NoSize:
    """An object that lies about its size."""

    nbytes = "many"

    def __sizeof__(self) -> int:
        raise TypeError("none of your business")


@pytest.mark.parametrize("value", [1, "abc", [], np.zeros(4), NoSize(), object(), memoryview(b"abc")])
def test_the_shallow_size_never_raises(value: Any) -> None:
    """Estimating a size looks at nothing that could fail."""
    assert shallow_bytes(value) >= 0


# -- the cache -------------------------------------------------------------------------------------------------------


def test_the_least_recently_kept_profile_leaves_first() -> None:
    """The cache is bounded."""
    cache = ProfileCache(most=2)
    known = Known(make_profile(), "builtins.int", 28, 5)
    cache.put("a", known)
    cache.put("b", known)
    cache.put("a", known)
    cache.put("c", known)
    assert set(cache.items()) == {"a", "c"}
    assert cache.get("b") is None
    cache.clear()
    assert cache.items() == {}


def test_the_cache_forgets_what_belongs_to_one_call() -> None:
    """The head of one call is not the head of the next."""
    remember("test: head", make_profile(n_head=5, head_s=1.0), 1, 5)
    known = CACHE.get("test: head")
    assert known is not None
    assert (known.profile.n_head, known.profile.head_s) == (0, 0.0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (1, 2, True),
        (1, 1.0, False),
        (1, "1", False),
        ("a" * 100, "b" * 120, True),
        ("a" * 100, "b" * 1000, False),
        ("a" * 1000, "b" * 100, False),
        (np.zeros(1000), np.ones(1500), True),
        (np.zeros(1000), np.ones(100_000), False),
    ],
)
def test_likeness_is_type_and_size(before: Any, after: Any, expected: bool) -> None:
    """Items of another type or of more than twice the size are of another character."""
    remember("test: likeness", make_profile(), before, 5)
    known = CACHE.get("test: likeness")
    assert known is not None
    assert known.is_like(after) is expected


@pytest.mark.parametrize(
    ("item_s", "n_items", "expected"),
    [
        (1.2e-3, 1000, 1.2e-3),
        (1.2e-3, 5, 1.1e-3),
        (5e-3, 5, 5e-3),
        (1e-4, 5, 1e-4),
        (1.2e-3, 0, 1e-3),
        (float("nan"), 100, 1e-3),
        (float("inf"), 100, 1e-3),
        (-1.0, 100, 1e-3),
    ],
)
def test_a_run_refreshes_the_cost(item_s: float, n_items: int, expected: float) -> None:
    """A long run or a changed cost replaces the sample's figure, a short one is averaged, nonsense is ignored."""
    remember("test: refresh", make_profile(item_s=1e-3), 1, 5)
    refresh("test: refresh", item_s, n_items)
    known = CACHE.get("test: refresh")
    assert known is not None
    assert known.profile.item_s == pytest.approx(expected)


def test_nothing_is_refreshed_that_is_not_known() -> None:
    """A run of a function never sampled leaves no profile."""
    refresh("test: never", 1e-3, 100)
    assert CACHE.get("test: never") is None


@amorsize.parallel
def wait_a_moment(item: Any) -> int:
    """Take about a millisecond for anything."""
    time.sleep(1e-3)
    return len(str(item))


def test_a_profile_is_renewed_when_the_data_changes_character() -> None:
    """A remembered profile is checked against the items seen now (S14)."""
    wait_a_moment.map([1, 2, 3] * 5)
    known = CACHE.get(wait_a_moment._self_state.key)
    assert known is not None
    assert known.arg_type == "builtins.int"
    wait_a_moment.map(["x" * 5000] * 15)
    known = CACHE.get(wait_a_moment._self_state.key)
    assert known is not None
    assert known.arg_type == "builtins.str"
    wait_a_moment.map([b"y"] * 15)
    known = CACHE.get(wait_a_moment._self_state.key)
    assert known is not None
    assert known.arg_type == "builtins.bytes"


@amorsize.parallel
def wait_for(item: list[float]) -> int:
    """Take as long as the first number says."""
    time.sleep(item[0])
    return len(item)


def test_a_function_of_short_loops_is_weighed_before_its_items_go_anywhere() -> None:
    """Where only seconds are remembered, the next decision weighs items first, and then knows."""
    seconds_only = make_profile(func_bytes=0, arg_bytes=0, result_bytes=0, pickle_s=0.0, arg_pickle_s=0.0)
    remember(wait_for._self_state.key, seconds_only, [1e-3] * 1000, 5)
    known = CACHE.get(wait_for._self_state.key)
    assert known is not None
    assert not known.is_weighed
    wait_for.map([[1e-3] * 1000] * 200)
    assert wait_for.last_plan is not None
    assert wait_for.last_plan.profile.arg_bytes > 1000
    known = CACHE.get(wait_for._self_state.key)
    assert known is not None
    assert known.is_weighed


def test_a_serial_stream_keeps_what_moving_items_costs() -> None:
    """A short imap refreshes the seconds and forgets nothing else."""
    wait_for.with_options(n_jobs=2).map([[1e-3] * 1000] * 20)
    key = wait_for._self_state.key
    before = CACHE.get(key)
    assert before is not None
    assert before.is_weighed
    assert list(wait_for.imap([[2e-3] * 1000] * 3)) == [1000] * 3
    after = CACHE.get(key)
    assert after is not None
    assert after.is_weighed
    assert after.profile.arg_bytes == before.profile.arg_bytes


@amorsize.parallel
def measured(item: Any) -> Any:
    """Return the item."""
    return item


def test_the_profile_can_be_read_after_the_first_call() -> None:
    """f.profile is None before anything was measured and shows pickled sizes after a dry run."""
    assert measured.profile is None
    measured.plan([b"x" * 500] * 10)
    assert measured.profile is not None
    assert 1 <= measured.profile.n_sampled <= 5  # fewer where a busy machine stops the sample
    assert measured.profile.arg_bytes >= 500
    measured.plan([b"x" * 50_000] * 10)
    assert measured.profile.arg_bytes >= 50_000


def spins(n: int) -> int:
    """Compute for a while, and touch nothing."""
    total = 0
    for i in range(3_000_000 + n):
        total += i % 7
    return total


def spins_after_an_import(n: int) -> int:
    """Load a module first: what the first item takes, the others do not."""
    import this_is_loaded_by_the_first_item  # type: ignore[import-not-found]  # noqa: PLC0415, F401 - made by the test

    return spins(n)


_prepared: str | None = None


def spins_after_preparing(n: int) -> int:
    """Keep something for the other items."""
    global _prepared  # noqa: PLW0603 - this is what is tested
    if _prepared is None:
        _prepared = "ready"
    return spins(n)


def test_a_long_first_item_that_prepares_nothing_is_sample_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an item per core, a second one in the caller would double what the call takes."""
    monkeypatch.setattr(_bounds, "LONG_FIRST_S", 0.01)
    (tmp_path / "this_is_loaded_by_the_first_item.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    expected = [spins(n) for n in range(6)]
    n_sampled = []
    for function in (spins, spins_after_an_import, spins_after_preparing):
        mapped = amorsize.parallel(function)
        assert mapped.map(range(6)) == expected
        n_sampled.append(mapped.last_plan.profile.n_sampled)
    assert n_sampled[0] == 1
    assert min(n_sampled[1:]) > 1


def finds_from_one_on(n: int) -> Any:
    """Return what cannot be sent, but for the first item."""
    return (i for i in range(n)) if spins(n) and n else None


def test_a_first_item_that_finds_nothing_is_no_sample_of_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the second one gives shows that no worker could send it."""
    monkeypatch.setattr(_bounds, "LONG_FIRST_S", 0.01)
    mapped = amorsize.parallel(finds_from_one_on)
    first, *rest = mapped.map(range(4))
    assert first is None
    assert [list(found) for found in rest] == [list(range(n)) for n in range(1, 4)]


def test_peak_memory_is_in_the_profile() -> None:
    """A function that needs memory shows it, without a tracing allocator that would disturb the timing (S8)."""

    def hungry(n: int) -> int:
        return len(np.ones(n).tobytes())

    before = _profile.peak_bytes()
    plan = amorsize.plan(hungry, [60_000_000] * 3, sample_size=1)
    grown = _profile.peak_bytes() - before
    assert plan.profile.peak_bytes == pytest.approx(grown, rel=0.2, abs=8 << 20)


def test_threads_that_spin_beside_a_waiting_item_do_not_count() -> None:
    """OpenBLAS's do for 26 ms after NumPy is imported, and a sleep looked like computing."""
    is_over = threading.Event()

    def spin() -> None:
        while not is_over.is_set():
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        sampler = Sampler(time.sleep)
        sampler.run(iter([0.02]), 1)
    finally:
        is_over.set()
        thread.join()
    assert sampler.profile().cpu_fraction < 0.5


def test_short_loops_keep_the_pace_up_to_date() -> None:
    """A profile taken while the machine was busy is not for ever what calls are predicted from."""
    f = amorsize.parallel(lambda x: x + 1)
    data = list(range(20_000))
    for _ in range(3):
        f.map(data)
    key = f._self_state.key
    known = CACHE.get(key)
    assert known is not None
    wrong_s = 20 * known.profile.item_s
    for _ in range(8):
        CACHE.put(key, replace(known, profile=replace(known.profile, item_s=wrong_s)))
        f.map(data)
    now = CACHE.get(key)
    assert now is not None
    assert now.profile.item_s < wrong_s
