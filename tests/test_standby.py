"""Forked workers kept for the next map: the same where that cannot be told apart, new ones wherever it could be."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import tracemalloc
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import amorsize
from amorsize import _reach
from amorsize._cost import STANDBY_SURE_S
from amorsize._habit import FIRST_PATIENCE, MOST_PATIENCE, Habit
from amorsize.exceptions import UnpicklableResult
from tests.factories import make_host, make_limits, make_profile
from tests.faults.harness import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="fork is only used on Linux")
two_jobs = amorsize.parallel(n_jobs=2, start_method="fork")
ITEMS = list(range(40))

factor = 3
table = [1, 2, 3]


def scaled(x: int) -> int:
    """Use a global and a helper."""
    return helper(x) * factor


def slowly_scaled(x: int) -> int:
    """Take a moment."""
    time.sleep(0.006)
    return scaled(x)


def helper(x: int) -> int:
    """Be one."""
    return x + 1


def rooted(x: int) -> float:
    """Use a module."""
    return math.sqrt(x)


def looked_up(x: int) -> int:
    """Read a container."""
    return table[x % 3]


def divided(x: int) -> float:
    """Divide by zero with NumPy."""
    return float(np.float64(x) / np.float64(0.0))


def value_of(item: Any) -> Any:
    """Call the item's own method."""
    return item.value()


class Item:
    """An item whose method reads what can change."""

    def value(self) -> int:
        """Read a global."""
        return factor


def checked(x: int) -> int:
    """Refuse one item."""
    if x == 17:
        raise ValueError(x)
    return x


def odd(x: int) -> Any:
    """Return a lambda for one item."""
    return (lambda: x) if x == 30 else x


@pytest.fixture(autouse=True)
def _no_workers() -> Iterator[None]:
    """Begin and end without workers."""
    amorsize.shutdown()
    yield
    amorsize.shutdown()
    assert not living()


def living() -> set[int]:
    """Return the processes that this one has started and that are still running."""
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE and "tracker" not in name(child)}


def name(process: psutil.Process) -> str:
    """Return a process's command line."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def mapped(func: Callable[..., Any], items: Any = ITEMS) -> list[Any]:
    """Map with two forked jobs; the decorated function is a new one, the function underneath is the same."""
    f = two_jobs(func)
    results = f.map(items)
    assert f.last_plan.backend == "fork"
    return results


@needs_fork
def test_the_same_workers_serve_the_next_map() -> None:
    """Short maps of a function that reads nothing but its item and constants do not fork again."""
    assert mapped(scaled) == [scaled(x) for x in ITEMS]
    workers = living()
    assert workers
    assert mapped(scaled, range(100, 200)) == [scaled(x) for x in range(100, 200)]
    assert mapped(scaled, [5, 6]) == [scaled(5), scaled(6)]
    assert living() == workers


@needs_fork
def test_a_changed_global_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of an earlier map have the old value; they are not used."""
    assert mapped(scaled) == [scaled(x) for x in ITEMS]
    workers = living()
    monkeypatch.setattr(sys.modules[__name__], "factor", 7)
    assert mapped(scaled) == [(x + 1) * 7 for x in ITEMS]
    assert not workers & living()


@needs_fork
def test_a_global_that_changes_during_a_map_is_seen_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are as the caller was when they were forked, not when their map ended."""

    def change(n_done: int, *_: object) -> None:
        if n_done > 5:  # behind the sample: the workers are there
            monkeypatch.setattr(sys.modules[__name__], "factor", 5)

    two_jobs(slowly_scaled).with_options(progress=change).map(ITEMS)
    assert factor == 5
    assert mapped(slowly_scaled) == [(x + 1) * 5 for x in ITEMS]


def threads() -> set[int | None]:
    """Return the idents of the threads that run or wait for a run."""
    return {thread.ident for thread in threading.enumerate() if thread.name.startswith("amorsize-")}


def test_threads_wait_for_the_next_run() -> None:
    """The next run has the same ones, and not more than it asks for; they end when told to."""
    amorsize.shutdown()
    name = amorsize.parallel(in_thread, prefer="threads", n_jobs=3)
    me = {threading.get_ident()}
    first = set(name.map(range(30))) - me
    assert len(first) > 1
    waiting = threads()
    assert first <= waiting
    assert set(name.map(range(30))) - me <= waiting
    assert threads() == waiting
    amorsize.shutdown()
    assert not threads()


@needs_fork
def test_no_fork_is_made_beside_waiting_threads() -> None:
    """They do not forbid forks, and are gone when one is made."""
    amorsize.parallel(in_thread, prefer="threads", n_jobs=2).map(range(10))
    assert threads()
    forks = amorsize.parallel(in_process, n_jobs=2, start_method="fork")
    assert len(set(forks.map(range(20)))) > 1
    assert forks.last_plan is not None
    assert forks.last_plan.backend == "fork"
    assert not threads()


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_copy_of_the_program_has_no_waiting_threads() -> None:
    """What os.fork did not copy is not counted, so that the copy can fork in its turn."""
    amorsize.parallel(in_thread, prefer="threads", n_jobs=2).map(range(10))
    assert threads()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            forks = amorsize.parallel(in_process, n_jobs=2, start_method="fork")
            forks.map(range(20))
            os.write(write, forks.last_plan.backend.encode())
        finally:
            os._exit(0)
    os.close(write)
    said = os.read(read, 100)
    os.close(read)
    os.waitpid(pid, 0)
    assert said == b"fork"


def in_thread(_: int) -> int:
    """Say which thread this is."""
    time.sleep(2e-3)
    return threading.get_ident()


def in_process(_: int) -> int:
    """Say which process this is."""
    time.sleep(2e-3)
    return os.getpid()


@needs_fork
def test_a_changed_helper_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is other code behind the same name."""
    mapped(scaled)
    monkeypatch.setattr(sys.modules[__name__], "helper", lambda x: -x)
    assert mapped(scaled) == [-x * 3 for x in ITEMS]


@needs_fork
def test_a_patched_module_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests replace functions of the standard library."""
    mapped(rooted)
    monkeypatch.setattr(math, "sqrt", lambda x: x / 2)
    assert mapped(rooted) == [x / 2 for x in ITEMS]


@needs_fork
def test_a_changed_closure_is_seen() -> None:
    """A cell that is rebound, and one that holds something that can change."""

    def make() -> tuple[Callable[[int], int], Callable[[int], None]]:
        n = 1

        def add(x: int) -> int:
            return x + n

        def put(value: int) -> None:
            nonlocal n
            n = value

        return add, put

    add, put = make()
    assert mapped(add) == [x + 1 for x in ITEMS]
    put(10)
    assert mapped(add) == [x + 10 for x in ITEMS]


@needs_fork
def test_a_function_that_reads_a_container_keeps_no_workers() -> None:
    """Its contents could change without its name changing."""
    assert mapped(looked_up) == [looked_up(x) for x in ITEMS]
    assert not living()


@needs_fork
def test_items_with_methods_of_their_own_get_new_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a method of the item reads is not known from the function's code."""
    items = [Item() for _ in ITEMS]
    assert mapped(value_of, items) == [3] * len(items)
    monkeypatch.setattr(sys.modules[__name__], "factor", 8)
    assert mapped(value_of, items) == [8] * len(items)


@needs_fork
def test_the_filters_for_warnings_are_those_of_the_call() -> None:
    """A warning that has become an error in between is raised as one."""
    with warnings.catch_warnings(), np.errstate(divide="warn", invalid="warn"):
        warnings.simplefilter("ignore")
        mapped(divided, range(1, 20))
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            mapped(divided, range(1, 20))
    with np.errstate(all="ignore"):
        assert mapped(divided, range(1, 20)) == [math.inf] * 19


@needs_fork
def test_an_exception_and_a_result_that_cannot_be_pickled_are_told_as_ever() -> None:
    """With workers of an earlier map too; and the map after it is right."""
    for _ in range(2):
        mapped(checked, range(15))
        with pytest.raises(ValueError, match="17") as caught:
            mapped(checked)
        assert any("17" in note for note in caught.value.__notes__)
    mapped(odd, range(20))
    with pytest.raises(UnpicklableResult, match="30"):
        mapped(odd)
    assert mapped(odd, range(20)) == list(range(20))


@needs_fork
def test_a_worker_killed_between_two_maps_is_not_missed() -> None:
    """The next map has others."""
    mapped(scaled)
    for pid in living():
        os.kill(pid, signal.SIGKILL)
    assert mapped(scaled) == [scaled(x) for x in ITEMS]


@needs_fork
def test_a_worker_interrupted_between_two_maps_leaves_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C reaches every process of a terminal, those that wait too."""
    mapped(scaled)
    workers = living()
    for pid in workers:
        os.kill(pid, signal.SIGINT)
    wait_until(lambda: not workers & living())
    assert mapped(scaled) == [scaled(x) for x in ITEMS]
    assert "Traceback" not in capfd.readouterr().err


@needs_fork
def test_workers_that_nobody_wants_leave_by_themselves() -> None:
    """What they hold on to is given back soon."""
    mapped(scaled)
    assert living()
    wait_until(lambda: not living())
    assert mapped(scaled) == [scaled(x) for x in ITEMS]


@needs_fork
def test_shutdown_ends_them() -> None:
    """At once."""
    mapped(scaled)
    amorsize.shutdown()
    assert not living()


@needs_fork
def test_a_copy_of_the_program_has_workers_of_its_own() -> None:
    """A forked child neither uses nor ends those of its parent."""
    mapped(scaled)
    workers = living()
    context: Any = multiprocessing.get_context("fork")
    child = context.Process(target=_check_in_child)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert mapped(scaled) == [scaled(x) for x in ITEMS]
    assert living() == workers


def _check_in_child() -> None:
    assert mapped(scaled, range(50)) == [scaled(x) for x in range(50)]


@needs_fork
def test_functions_in_turns_leak_nothing() -> None:
    """More functions than workers are kept for, one after the other."""
    functions = [two_jobs(adder(i)) for i in range(7)]
    n_before = None
    for _ in range(4):
        for i, f in enumerate(functions):
            assert f.map(range(10)) == [x + i for x in range(10)]
        amorsize.shutdown()
        n_now = psutil.Process().num_fds()
        n_before = n_before or n_now
        assert n_now <= n_before
    assert not living()


def adder(n: int) -> Callable[[int], int]:
    """Return a function of its own code object's closure."""
    return lambda x: x + n


@needs_fork
@given(
    st.lists(st.recursive(st.integers() | st.text() | st.floats(), lambda inner: st.lists(inner) | st.tuples(inner)))
)
def test_any_plain_items_arrive(items: list[Any]) -> None:
    """Whatever its nesting, an item is the same in a worker that has been sent it."""
    for _ in range(2):
        got = two_jobs(repr_of).map(items)
        assert got == [repr(item) for item in items]


def repr_of(item: Any) -> str:
    """Spell an item."""
    return repr(item)


# -- what a function can reach ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("func", [scaled, rooted, divided, checked, repr_of, lambda x: [y * y for y in range(x)]])
def test_closed_functions(func: Callable[..., Any]) -> None:
    """Arithmetic, constants, helpers like them, and modules that only compute."""
    seen = _reach.fingerprint(func)
    assert seen is not None
    assert seen.holds()


def reads_environment(x: int) -> Any:
    """Look outside the process."""
    return os.environ.get(str(x))


def opens(x: int) -> Any:
    """Look into a file."""
    return open(str(x))  # noqa: PTH123 - never called


def evaluates(x: str) -> Any:
    """Do anything."""
    return eval(x)  # noqa: S307 - never called


def makes_a_class(x: int) -> Any:
    """Make a class."""

    class Local:
        """Local."""

    return Local()


def has_default(x: int, seen: list[int] = []) -> Any:  # noqa: B006 - the point
    """Have a default that calls share."""
    return seen


def uses_a_class(x: int) -> Any:
    """Make an object of a class of this module."""
    return Item()


@pytest.mark.parametrize(
    "func",
    [
        looked_up,
        reads_environment,
        opens,
        evaluates,
        makes_a_class,
        has_default,
        uses_a_class,
        len,
        print,
        Item().value,
    ],
)
def test_open_functions(func: Callable[..., Any]) -> None:
    """Whatever could have changed since is not taken for known."""
    assert _reach.fingerprint(func) is None


@pytest.mark.parametrize("value", [[1, "a", (2.0, None)], {1: {2, 3}}, np.ones(3), [np.float64(1)], bytearray(b"a")])
def test_plain_values(value: object) -> None:
    """Builtin types, and those of modules that only compute."""
    assert _reach.dumps_plain(value, 1 << 20) is not None


@pytest.mark.parametrize("value", [Item(), [Item()], scaled, {"a": scaled}, print, sys.stdout, lambda: 0])
def test_values_with_methods_of_their_own(value: object) -> None:
    """Others are not sent to workers that are kept."""
    assert _reach.dumps_plain(value, 1 << 20) is None


def test_large_values_are_refused_before_they_are_copied() -> None:
    """Arrays of 200 MB were pickled whole, only to learn that they do not fit."""
    large = [np.zeros(1 << 20)] * 3
    tracemalloc.start()
    try:
        assert _reach.dumps_plain(large, 1 << 16) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# -- when to think ----------------------------------------------------------------------------------------------------


def make_plan(**changes: Any) -> amorsize.Plan:
    """Return the plan of sixteen items of 0.2 ms."""
    profile = make_profile(item_s=2e-4)
    return amorsize.decide(profile, make_host(n_cpus=2), 16, make_limits(**changes))


def test_a_call_like_the_last_is_not_decided_again() -> None:
    """As long as that is of late; another length, speed or option is another call."""
    habit, plan = Habit(), make_plan()
    limits = plan.limits
    habit.went_parallel(plan, 0.0, 0.0, gains=True, stays=True)
    assert habit.as_before(16, 2.1e-4, limits, 0.5) is plan
    assert habit.as_before(16, 2.1e-4, limits, 5.0) is None
    assert habit.as_before(17, 2.1e-4, limits, 0.5) is None
    assert habit.as_before(16, 5e-4, limits, 0.5) is None
    assert habit.as_before(16, 2e-4, make_limits(errors="return"), 0.5) is None
    habit.looped(16, 0.0)
    assert habit.as_before(16, 2e-4, limits, 0.5) is None


def test_short_calls_pay_for_a_start_together() -> None:
    """Calls that each miss a third of it, a few times over."""
    habit = Habit()
    habit.looped(16, 1e-3)
    n_calls = int(3 * FIRST_PATIENCE)
    thoughts = [habit.is_worth_a_thought(16, 3e-3, 0.01, 2.9e-3) for _ in range(n_calls)]
    assert thoughts == [False] * (n_calls - 1) + [True]
    assert habit.paid_s >= 2.9e-3


def test_rare_calls_never_do() -> None:
    """Workers would have left by the next one."""
    habit = Habit()
    habit.looped(16, 1e-3)
    assert not any(habit.is_worth_a_thought(16, 3e-3, 2 * STANDBY_SURE_S, 2.9e-3) for _ in range(100))


def test_workers_that_do_not_gain_are_given_up() -> None:
    """On a busy machine; and each vain start makes the next one dearer, up to a bound."""
    habit, plan = Habit(), make_plan()
    habit.went_parallel(plan, 0.0, 0.0, gains=True, stays=True)
    assert habit.is_worth_a_thought(16, 3e-3, 0.01, 2e-3)
    for _ in range(20):
        habit.is_kept = True
        habit.went_parallel(plan, 1e-3, 0.0, gains=False, stays=True)
        assert not habit.is_kept
    assert habit.patience == MOST_PATIENCE
    assert habit.settled == 16
    assert not habit.is_worth_a_thought(16, 3e-3, 0.01, 2e-3)


def test_tiny_calls_are_never_thought_about() -> None:
    """Whatever waits."""
    habit = Habit()
    habit.went_parallel(make_plan(), 0.0, 0.0, gains=True, stays=True)
    assert not habit.is_worth_a_thought(16, 1e-5, 0.01, 2e-3)
    assert not habit.is_worth_a_thought(16, 5e-4, 0.01, 2e-3)


@needs_fork
@pytest.mark.filterwarnings("ignore::amorsize.exceptions.AmorsizeWarning")
def test_other_threads_leave_kept_workers_alone() -> None:
    """They looked at them too, all at once: "concurrent poll() invocation"; and they may not fork in their place."""
    chosen = two_jobs(scaled)
    expected = chosen.map(ITEMS)
    kept = living()
    assert kept
    seen: list[Any] = []

    def many() -> None:
        try:
            for _ in range(100):
                assert chosen.map(ITEMS) == expected
                assert chosen.last_plan is not None
                seen.append(chosen.last_plan.backend)
        except Exception as error:  # noqa: BLE001 - the main thread is to see it
            seen.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert set(seen) == {"sequential"}
    assert living() <= kept
