from __future__ import annotations

import collections
import functools
import gc
import inspect
import itertools
import multiprocessing.process
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amorsize
from amorsize import Reason
from amorsize._backend import _blas, _chunks, _ship, _worker, in_worker
from amorsize._backend import _bounds as bounds
from amorsize._backend._carrier import Callbacks, Work
from amorsize._backend._chunks import Board
from amorsize._backend._flow import FlowTeam
from amorsize._backend._job import Job
from amorsize._backend._threads import Threads
from amorsize.exceptions import (
    AmorsizeError,
    AmorsizeWarning,
    ItemTimeout,
    RemoteError,
    UnpicklableResult,
    WorkerDied,
)
from tests import functions
from tests.functions import Counter, Doubled, combine, double, square

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ME = os.getpid()

# Ways to run with two jobs, fixed so that tiny items go parallel too.
FORK: dict[str, Any] = {"n_jobs": 2, "start_method": "fork"}
LOKY: dict[str, Any] = {"n_jobs": 2, "start_method": "loky"}
SERVER: dict[str, Any] = {"n_jobs": 2, "start_method": "forkserver"}
THREADS: dict[str, Any] = {"n_jobs": 2, "prefer": "threads"}
SERIAL: dict[str, Any] = {"n_jobs": 1}
BACKENDS = {"fork": "fork", "forkserver": "forkserver", "loky": "loky", "threads": "threading", "serial": "sequential"}

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="fork is only used on Linux")
ALL = [
    pytest.param(SERIAL, id="serial"),
    pytest.param(FORK, id="fork", marks=needs_fork),
    pytest.param(SERVER, id="forkserver", marks=needs_fork),
    pytest.param(LOKY, id="loky"),
    pytest.param(THREADS, id="threads"),
]
PARALLEL = ALL[1:]
PROCESSES = ALL[1:4]


@pytest.fixture
def ready(request: pytest.FixtureRequest) -> None:
    """Have loky workers that answer, so that tiny work reaches them; for a fork, no thread that forbids it."""
    callspec = getattr(request.node, "callspec", None)
    options = callspec.params.get("options") if callspec else None
    if options in (LOKY, SERVER):
        functions.where.with_options(**options, retries=1).map(range(4))
        if options == SERVER:
            wait_for_workers(2)
    else:
        end_threads()


def wait_for_workers(n_workers: int) -> None:
    """Wait until that many workers of the server are free: a fresh one may still import the function's module."""
    from amorsize._backend._server import SERVER as THE_SERVER  # noqa: PLC0415 - does not exist elsewhere

    deadline = time.monotonic() + 30
    while THE_SERVER.n_idle() < n_workers and time.monotonic() < deadline:
        time.sleep(0.01)


def end_threads() -> None:
    """End idle workers and wait for the threads that served them."""
    amorsize.shutdown()
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(20)


def backend_of(function: Any) -> str:
    """Return the backend of the latest call."""
    assert function.last_plan is not None
    return str(function.last_plan.backend)


# -- equal to the comprehension --------------------------------------------------------------------------------------


def generate(n: int) -> Iterator[int]:
    """Yield numbers."""
    yield from range(n)


class OnlyGetItem:
    """A sequence of the old kind, without __iter__ and __len__."""

    def __getitem__(self, i: int) -> int:
        if i >= 30:
            raise IndexError(i)
        return i


class OddLength:
    """An iterable whose length cannot be told."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(30))

    def __len__(self) -> int:
        raise RuntimeError("no idea")


INPUTS: dict[str, Callable[[], Any]] = {
    "list": lambda: list(range(50)),
    "tuple": lambda: tuple(range(50)),
    "range": lambda: range(3, 100, 2),
    "range backwards": lambda: range(50, 0, -1),
    "set": lambda: {3, 1, 2, 70, 50},
    "frozenset": lambda: frozenset("abc"),
    "dict": lambda: dict.fromkeys("xyz", 1),
    "keys": {i: str(i) for i in range(40)}.keys,
    "values": {i: str(i) for i in range(40)}.values,
    "items": {i: str(i) for i in range(40)}.items,
    "string": lambda: "some text\N{SNOWMAN}",
    "bytes": lambda: b"\x00some bytes\xff",
    "bytearray": lambda: bytearray(b"more bytes"),
    "memoryview": lambda: memoryview(b"viewed"),
    "deque": lambda: collections.deque(range(40), maxlen=40),
    "counter": lambda: collections.Counter("abracadabra"),
    "generator": functools.partial(generate, 40),
    "iterator": lambda: iter(list(range(40))),
    "reversed": lambda: reversed(range(40)),
    "enumerate": lambda: enumerate("abc"),
    "zip": lambda: zip("abc", range(3), strict=True),
    "builtin map": lambda: map(str, range(20)),
    "old sequence": OnlyGetItem,
    "no length": OddLength,
    "array": lambda: np.arange(40) / 3,
    "integer array": lambda: np.arange(40),
    "two dimensions": lambda: np.arange(60).reshape(20, 3),
    "no rows": lambda: np.zeros((0, 3)),
    "no columns": lambda: np.zeros((3, 0)),
    "objects": lambda: np.array(["a", None, (1, 2)], dtype=object)[[0, 2]],
    "records": lambda: np.array([(1, 2.0), (3, 4.0)], dtype="i4,f8")["f1"],
    "empty list": list,
    "empty generator": functools.partial(generate, 0),
    "empty string": str,
    "one": lambda: [7],
    "one of a generator": functools.partial(generate, 1),
    "two": lambda: [7, 8],
    "nested": lambda: [[1, [2]], [], [None]],
}


def same(left: Any, right: Any) -> bool:
    """Compare results that may hold arrays, by type and value."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return type(left) is type(right) and bool(np.array_equal(left, right))


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.usefixtures("ready")
def test_map_equals_the_comprehension(name: str, options: dict[str, Any]) -> None:
    """Every kind of input gives the list that the comprehension gives, in its order, with its types."""
    expected = [x * 2 for x in INPUTS[name]()]
    actual = double.with_options(**options).map(INPUTS[name]())
    assert same(actual, expected)
    assert isinstance(actual, list)


@pytest.mark.parametrize("name", INPUTS)
def test_map_equals_the_comprehension_where_everything_is_left_open(name: str) -> None:
    """Without options too."""
    assert same(double.map(INPUTS[name]()), [x * 2 for x in INPUTS[name]()])
    assert double.last_plan is not None


def test_nothing_to_do_is_done_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list says nothing about the cost of an item, even if the machine was away meanwhile."""
    assert double.map([1, 2]) == [2, 4]
    monkeypatch.setattr("amorsize._quick.clock", itertools.count().__next__)
    assert double.map([]) == []


@given(st.lists(st.one_of(st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=3))))
def test_map_of_any_list(items: list[Any]) -> None:
    """Any list gives what the comprehension gives."""
    assert double.map(items) == [x * 2 for x in items]
    assert double.map(iter(items)) == [x * 2 for x in items]


@needs_fork
@pytest.mark.usefixtures("ready")
@settings(max_examples=15)
@given(st.lists(st.integers(), max_size=300), st.integers(2, 4), st.one_of(st.none(), st.integers(1, 400)))
def test_map_of_any_list_with_forked_workers(items: list[int], n_jobs: int, batch_size: int | None) -> None:
    """Whatever the number of workers and the size of chunks, order and values are the comprehension's."""
    chosen = double.with_options(start_method="fork", n_jobs=n_jobs, batch_size=batch_size)
    assert chosen.map(items) == [x * 2 for x in items]
    assert chosen.map(iter(items)) == [x * 2 for x in items]


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_any_batch_size_gives_the_same(options: dict[str, Any], batch_size: int) -> None:
    """Chunks of one item, of some, and of more than there are."""
    assert square.with_options(**options, batch_size=batch_size).map(range(100)) == [x * x for x in range(100)]
    assert square.last_plan is not None
    assert square.last_plan.batch_size == batch_size


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_several_iterables_are_zipped(options: dict[str, Any]) -> None:
    """The shortest ends, as in the builtin; keyword arguments are the same for every item."""
    chosen = combine.with_options(**options)
    assert chosen.map(range(30), range(100, 150)) == [x + y for x, y in zip(range(30), range(100, 150), strict=False)]
    assert chosen.map(range(20), generate(10), kwargs={"scale": 3}) == [6 * x for x in range(10)]
    assert chosen.map(range(20), kwargs={"scale": 2, "y": 1}) == [2 * (x + 1) for x in range(20)]
    assert chosen.map([], [1, 2]) == []
    assert chosen.map(range(3), kwargs={}) == [0, 1, 2]


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_starmap_unpacks(options: dict[str, Any]) -> None:
    """Items are argument tuples, from any iterable."""
    chosen = combine.with_options(**options)
    pairs = [(i, i + 1) for i in range(40)]
    assert chosen.starmap(pairs) == [2 * i + 1 for i in range(40)]
    assert chosen.starmap(iter(pairs), kwargs={"scale": -1}) == [-2 * i - 1 for i in range(40)]
    assert chosen.starmap(np.array(pairs)) == [2 * i + 1 for i in range(40)]
    assert chosen.starmap(["ab", "cd"]) == ["ab", "cd"]
    assert chosen.starmap([(1,), (2,)]) == [1, 2]
    assert chosen.starmap([]) == []


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_methods_of_every_kind(options: dict[str, Any]) -> None:
    """Instance, class and static methods run in workers with their own object."""
    assert Counter(10).add.with_options(**options).map(range(30)) == list(range(10, 40))
    assert Doubled.scaled.with_options(**options).map(range(30)) == [6 * x for x in range(30)]
    assert Counter.negated.with_options(**options).map(range(30)) == [-x for x in range(30)]
    assert backend_of(Counter.negated) in BACKENDS.values()


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_lambdas_closures_and_partials(options: dict[str, Any]) -> None:
    """What cannot be imported by name runs in workers all the same."""
    offset = 1000
    for func in (
        lambda x: x + offset,
        functools.partial(combine.__wrapped__, offset),
        functools.partial(lambda x, y: y + x, y=offset),
        offset.__add__,
    ):
        decorated = amorsize.parallel(func, **options)
        assert decorated.map(range(60)) == [x + offset for x in range(60)]
        assert (backend_of(decorated) == "sequential") == (options == SERIAL)


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_none_and_exceptions_are_results_like_any(options: dict[str, Any]) -> None:
    """A function may return None or an exception object without either being taken for something else."""

    def odd(x: int) -> Any:
        return None if x % 2 else ValueError(x)

    results = amorsize.parallel(odd, **options).map(range(40))
    assert results[1::2] == [None] * 20
    assert [type(error) for error in results[::2]] == [ValueError] * 20
    assert [error.args for error in results[::2]] == [(x,) for x in range(0, 40, 2)]


# -- exactly once ----------------------------------------------------------------------------------------------------


def read_log(path: Path) -> tuple[list[int], set[int], set[int]]:
    """Return the items, the processes and the threads in a log."""
    rows = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    return [row[0] for row in rows], {row[1] for row in rows}, {row[2] for row in rows}


@pytest.mark.parametrize("state", ["fresh", "warm"])
@pytest.mark.parametrize("options", ALL)
def test_each_item_is_executed_exactly_once(options: dict[str, Any], state: str, tmp_path: Path) -> None:
    """A log that every process appends to has one line per item, whether workers are fresh or warm."""
    path = tmp_path / "log"
    end_threads()
    if state == "warm":
        functions.where.with_options(**options, retries=1 if options in (LOKY, SERVER) else 0).map(range(20))
    chosen = functions.logged.with_options(**options)
    assert chosen.map(range(120), kwargs={"path": str(path)}) == [-x for x in range(120)]
    items, processes, threads = read_log(path)
    assert sorted(items) == list(range(120))
    if options == SERIAL:
        assert (processes, threads) == ({ME}, {threading.get_ident()})
    elif options == THREADS:
        assert processes == {ME}
        assert len(threads) > 1
    elif options == FORK or state == "warm":
        # Not "more than one worker": on a busy machine the first may be through before the second is up.
        assert processes - {ME}


@pytest.mark.parametrize("options", [pytest.param({}, id="open"), *ALL])
@pytest.mark.usefixtures("ready")
def test_each_item_of_a_generator_is_executed_exactly_once(options: dict[str, Any], tmp_path: Path) -> None:
    """What the sample takes from a one-shot iterator is not lost and not repeated (S10)."""
    path = tmp_path / "log"
    chosen = functions.logged.with_options(**options)
    assert chosen.map(generate(60), kwargs={"path": str(path)}) == [-x for x in range(60)]
    assert sorted(read_log(path)[0]) == list(range(60))


def test_each_item_is_executed_exactly_once_where_everything_is_left_open(tmp_path: Path) -> None:
    """Sample, loop and workers of a call that decides for itself share the items without overlap."""
    path = tmp_path / "log"
    assert functions.logged.map(range(300), kwargs={"path": str(path)}) == [-x for x in range(300)]
    assert sorted(read_log(path)[0]) == list(range(300))
    assert functions.logged.map(range(300, 500), kwargs={"path": str(path)}) == [-x for x in range(300, 500)]
    assert sorted(read_log(path)[0]) == list(range(500))


def make_stubborn(kind: str, path: Path) -> Any:
    """Return a function that stays serial however long it takes, and logs."""
    work = functools.partial(functions.logged.__wrapped__, path=str(path))
    lock = threading.Lock()
    log: list[int] = []

    def unpicklable(x: int) -> int:
        with lock:
            return work(x)

    def mutating(x: int) -> int:
        log.append(x)
        return work(x)

    return {"unpicklable": unpicklable, "mutating": mutating, "one job": work}[kind]


@pytest.mark.filterwarnings("ignore::amorsize.exceptions.AmorsizeWarning")
@pytest.mark.parametrize("kind", ["unpicklable", "mutating", "one job"])
@pytest.mark.parametrize(
    "source",
    [
        pytest.param(generate, id="generator"),
        pytest.param(lambda n: zip(range(n), strict=True), id="zip"),
        pytest.param(lambda n: map(abs, range(n)), id="builtin map"),
    ],
)
def test_no_item_of_an_iterator_is_lost_when_the_rest_stays_serial(
    kind: str, source: Callable[[int], Any], tmp_path: Path
) -> None:
    """What was read ahead to find out how much there is, is mapped also where workers are then not used (S10)."""
    path = tmp_path / "log"
    options = {"n_jobs": 1} if kind == "one job" else {}
    decorated = amorsize.parallel(make_stubborn(kind, path), **options)
    items = list(source(80))
    run = decorated.starmap if items[0] == (0,) else decorated.map
    for call in (1, 2):
        assert run(source(80)) == [-x for x in range(80)]
        assert sorted(read_log(path)[0]) == sorted(list(range(80)) * call)
        assert decorated.last_plan is not None
        assert decorated.last_plan.n_items in {80, None}  # as known when it was decided


def test_a_slow_producer_of_unknown_length_is_mapped(tmp_path: Path) -> None:
    """A generator that takes its time, of items that are worth workers, gives every result once and in order."""

    def trickle() -> Iterator[int]:
        for x in range(60):
            threading.Event().wait(2e-3)
            yield x

    path = tmp_path / "log"
    assert functions.logged.map(trickle(), kwargs={"path": str(path)}) == [-x for x in range(60)]
    assert sorted(read_log(path)[0]) == list(range(60))


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("first", [0, 2, 77])
@pytest.mark.usefixtures("ready")
def test_no_item_runs_twice_when_one_fails(options: dict[str, Any], first: int, tmp_path: Path) -> None:
    """An error ends the work; nothing is executed twice, and everything before it was executed."""
    path = tmp_path / "log"

    @amorsize.parallel(**options)
    def fails(x: int) -> int:
        result = functions.logged(x, path=str(path))
        if x == first:
            raise ValueError(x)
        return result

    with pytest.raises(ValueError, match=str(first)):
        fails.map(range(100))
    items = read_log(path)[0]
    assert len(items) == len(set(items))
    assert set(items) >= set(range(first + 1))


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_a_fixed_number_of_jobs_is_had(options: dict[str, Any]) -> None:
    """n_jobs=2 means two at once: with loky no more than two worker processes, with fork the caller and one more."""
    chosen = functions.where.with_options(**options)
    for _ in range(20):  # on a busy machine one process can be done with a call before the other one is given time
        processes = set(chosen.map(range(200)))
        assert chosen.last_plan is not None
        assert chosen.last_plan.n_jobs == 2
        assert chosen.last_plan.reason is Reason.FIXED
        assert len(processes - {ME}) <= 2
        if len(processes) >= 2:
            return
    pytest.fail("one process did all items of each call")


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("first", [0, 3, 50, 299])
@pytest.mark.usefixtures("ready")
def test_the_lowest_failing_index_is_raised(options: dict[str, Any], first: int) -> None:
    """Later items that fail sooner do not win; type, text and attributes are the original's, with a note."""
    chosen = functions.fails_from.with_options(**options, batch_size=7)
    with pytest.raises(functions.CountedError, match=f"bad {first}") as caught:
        chosen.map(range(300), kwargs={"first": first})
    error = caught.value
    assert type(error) is functions.CountedError
    assert error.args == (f"bad {first}",)
    assert error.answer == first
    assert error.__notes__ == [f"amorsize: raised by item {first}: {first}"]


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_the_workers_traceback_is_the_cause(options: dict[str, Any]) -> None:
    """The lines that failed in the worker can be read."""
    chosen = functions.fails_from.with_options(**options, retries=1)
    with pytest.raises(functions.CountedError) as caught:
        chosen.map(range(100), kwargs={"first": 20})
    assert caught.value.__cause__ is not None
    text = str(caught.value.__cause__)
    assert "in deep" in text
    assert "functions.py" in text
    assert "Traceback" in text


@pytest.mark.parametrize("options", [SERIAL, THREADS], ids=["serial", "threads"])
def test_in_this_process_the_traceback_is_the_real_one(options: dict[str, Any]) -> None:
    """Nothing stands in for it."""
    with pytest.raises(functions.CountedError) as caught:
        functions.fails_from.with_options(**options).map(range(100), kwargs={"first": 20})
    assert caught.traceback[-1].name == "deep"


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_an_exception_whose_arguments_are_not_those_of_its_class_is_itself(options: dict[str, Any]) -> None:
    """It pickles and does not unpickle; whoever catches it by its class does, and finds its attributes."""
    chosen = functions.fails_in_worker.with_options(**options)
    with pytest.raises(functions.OddError, match="odd one") as caught:
        chosen.map(range(100), kwargs={"parent": ME, "kind": "odd"})
    assert isinstance(caught.value.code, int)
    assert "fails_in_worker" in str(caught.value.__cause__)


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_an_unpicklable_exception_names_item_and_text(options: dict[str, Any]) -> None:
    """An exception that cannot leave its worker becomes an AmorsizeError that says what it was."""
    parent = ME

    def func(x: int) -> int:
        time.sleep(5e-3)
        if x > 5 and os.getpid() != parent:
            raise functions.CountedError(threading.Lock())  # type: ignore[arg-type]
        return x

    with pytest.raises(RemoteError, match=r"item \d+ raised tests\.functions\.CountedError.*lock") as caught:
        amorsize.parallel(func, **options).map(range(100))
    assert isinstance(caught.value, AmorsizeError)
    assert f"item {caught.value.index} " in str(caught.value)
    assert "func" in str(caught.value.__cause__)


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_an_exception_that_holds_a_lock_comes_without_it(options: dict[str, Any]) -> None:
    """The rest of it is as it was raised."""

    class HeldError(Exception):
        """An exception of no module."""

    parent = ME

    def func(x: int) -> int:
        time.sleep(5e-3)
        if x > 5 and os.getpid() != parent:
            error = HeldError("held")
            error.lock, error.number = threading.Lock(), 5  # type: ignore[attr-defined]
            raise error
        return x

    with pytest.raises(HeldError, match="held") as caught:
        amorsize.parallel(func, **options).map(range(100))
    assert vars(caught.value)["number"] == 5
    assert "lock" not in vars(caught.value)


def _raiser() -> tuple[type[Exception], Callable[[int], int]]:
    """Return a class that no module holds, and a function that raises it in workers."""
    parent = ME

    class LocalError(ValueError):
        def __init__(self, number: int, hint: str = "") -> None:
            super().__init__(number)
            self.hint = hint

    def fails(x: int) -> int:
        threading.Event().wait(1e-3)
        if os.getpid() == parent:
            return x
        raise LocalError(x, "look here")

    return LocalError, fails


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_an_exception_of_a_local_class_arrives_as_that_class(options: dict[str, Any]) -> None:
    """The caller can catch what it knows, although there are several classes of that name."""
    _raiser()
    kind, fails = _raiser()
    with pytest.raises(kind) as caught:
        amorsize.parallel(fails, **options, retries=1).map(range(100))
    assert (caught.value.args, vars(caught.value)["hint"]) == ((0,), "look here")
    assert "raise LocalError" in str(caught.value.__cause__)


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_an_unpicklable_result_names_its_item(options: dict[str, Any], tmp_path: Path) -> None:
    """A late result that cannot leave its worker is an AmorsizeError with its index; nothing runs twice to hide it."""
    chosen = functions.fails_in_worker.with_options(**options)
    with pytest.raises(UnpicklableResult, match=r"result of item \d+ \(lock\)") as caught:
        chosen.map(range(100), kwargs={"parent": ME, "kind": "result"})
    assert isinstance(caught.value, AmorsizeError)
    assert f"item {caught.value.index} " in str(caught.value)


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("at", [0, 60])
@pytest.mark.usefixtures("ready")
def test_a_stop_iteration_of_the_function_is_an_error(options: dict[str, Any], at: int) -> None:
    """It does not end the input silently, as it would inside a generator."""
    with pytest.raises(StopIteration) as caught:
        functions.stops_at.with_options(**options).map(range(100), kwargs={"at": at})
    assert caught.value.value == at
    assert caught.value.__notes__ == [f"amorsize: raised by item {at}: {at}"]


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("at", [0, 60])
@pytest.mark.usefixtures("ready")
def test_a_system_exit_travels(options: dict[str, Any], at: int) -> None:
    """sys.exit in the function ends the caller as it would in the loop, wherever it ran."""
    with pytest.raises(SystemExit) as caught:
        functions.exits_at.with_options(**options).map(range(100), kwargs={"at": at})
    assert caught.value.code == at


@pytest.mark.parametrize("kind", ["exit", "stop"])
@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_odd_exceptions_leave_a_worker(options: dict[str, Any], kind: str) -> None:
    """SystemExit and StopIteration raised in a worker arrive with their own type and value."""
    expected = SystemExit if kind == "exit" else StopIteration
    with pytest.raises(expected) as caught:
        functions.fails_in_worker.with_options(**options).map(range(100), kwargs={"parent": ME, "kind": kind})
    assert caught.value.args == ((3,) if kind == "exit" else ("stop here",))


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_the_inputs_own_exception_passes_through(options: dict[str, Any]) -> None:
    """What the generator raises is not the function's and gets no note."""

    def broken() -> Iterator[int]:
        yield from range(20)
        raise LookupError("input ended badly")

    with pytest.raises(LookupError, match="input ended badly") as caught:
        square.with_options(**options).map(broken())
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_after_an_error_the_next_call_is_fine(options: dict[str, Any]) -> None:
    """Workers and state survive a failed call, and last_plan tells of it."""
    chosen = functions.fails_from.with_options(**options)
    with pytest.raises(functions.CountedError):
        chosen.map(range(50), kwargs={"first": 30})
    assert chosen.last_plan is not None
    assert chosen.last_plan.actual_s is not None
    assert chosen.map(range(50), kwargs={"first": 99}) == list(range(50))


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_errors_can_be_returned(options: dict[str, Any]) -> None:
    """errors="return" puts the exception at its item's place, with the note, and goes on."""
    chosen = functions.fails_from.with_options(**options, errors="return")
    results = chosen.map([1, 99, 2, 98, *range(40)], kwargs={"first": 90})
    assert results[0] == 1
    assert results[2] == 2
    assert results[4:] == list(range(40))
    for position, item in ((1, 99), (3, 98)):
        assert type(results[position]) is functions.CountedError
        assert results[position].args == (f"bad {item}",)
        assert results[position].__notes__ == [f"amorsize: raised by item {position}: {item}"]


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_errors_can_be_skipped(options: dict[str, Any]) -> None:
    """errors="skip" leaves failed items out and says which in the plan."""
    chosen = functions.fails_from.with_options(**options, errors="skip")
    assert chosen.map([1, 99, 2, 98, *range(40)], kwargs={"first": 90}) == [1, 2, *range(40)]
    assert chosen.last_plan is not None
    assert chosen.last_plan.skipped == (1, 3)
    assert chosen.map([99, 98], kwargs={"first": 90}) == []
    assert chosen.last_plan.skipped == (0, 1)
    assert chosen.map([1, 2], kwargs={"first": 90}) == [1, 2]
    assert chosen.last_plan.skipped == ()


@pytest.mark.parametrize("errors", ["return", "skip"])
@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_an_error_policy_is_for_exceptions_only(options: dict[str, Any], errors: str) -> None:
    """A SystemExit is not a failed item: it ends the call."""
    with pytest.raises(SystemExit):
        functions.exits_at.with_options(**options, errors=errors).map(range(100), kwargs={"at": 60})


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_unpicklable_results_follow_the_error_policy(options: dict[str, Any]) -> None:
    """With errors="return" each such item holds its error, and the others their results."""
    chosen = functions.fails_in_worker.with_options(**options, errors="return")
    results = chosen.map(range(60), kwargs={"parent": ME, "kind": "result"})
    assert len(results) == 60
    failed = [i for i, result in enumerate(results) if isinstance(result, UnpicklableResult)]
    assert failed
    assert [results[i].index for i in failed] == failed
    assert all(results[i] == i for i in range(60) if i not in failed)


# -- nested ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", PARALLEL)
@pytest.mark.usefixtures("ready")
@pytest.mark.filterwarnings("ignore::amorsize.exceptions.AmorsizeWarning")
def test_a_map_inside_a_worker_is_serial(options: dict[str, Any]) -> None:
    """Workers do not start workers; the inner results are right all the same."""
    results = functions.nested.with_options(**options).map(range(40))
    assert [inner for _, _, inner in results] == [[i * i for i in range(x)] for x in range(40)]
    if options != THREADS:
        reasons = {reason for process, reason, inner in results if process != ME and len(inner) > 10}
        assert reasons == {"nested"}


# -- shared state ----------------------------------------------------------------------------------------------------


def test_a_function_that_changes_outside_state_runs_serially() -> None:
    """It gets a warning at the caller's line, and its changes are there afterwards (S12)."""
    functions.SEEN.clear()
    frame = inspect.currentframe()
    assert frame is not None
    with pytest.warns(AmorsizeWarning, match=r"collects runs serially.*SEEN") as caught:
        assert functions.collects.map(range(50)) == list(range(1, 51))
    line = frame.f_lineno - 1
    assert len(functions.SEEN) == 50
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, line)]
    assert functions.collects.last_plan is not None
    assert functions.collects.last_plan.reason is Reason.SHARED_STATE
    assert functions.collects.last_plan.n_jobs == 1


def test_a_second_call_of_such_a_function_is_serial_too() -> None:
    """What was found once is not forgotten with a remembered profile."""
    for _ in range(3):
        functions.SEEN.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AmorsizeWarning)
            assert functions.collects.map(range(400)) == list(range(1, 401))
    assert len(functions.SEEN) == 400


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_a_fixed_number_of_jobs_overrules_shared_state(options: dict[str, Any]) -> None:
    """Who fixes n_jobs gets workers, a note in the plan, and a warning of what is lost."""
    functions.SEEN.clear()
    chosen = functions.collects.with_options(**options)
    with pytest.warns(AmorsizeWarning, match="SEEN.* is lost"):
        assert len(chosen.map(range(50))) == 50
    assert chosen.last_plan is not None
    assert chosen.last_plan.n_jobs == 2
    assert any("SEEN" in note for note in chosen.last_plan.warnings)


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_workers_see_the_current_values_of_globals(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """module.K = 5 in the caller is what the function sees, on every backend, on every call, and back again."""
    chosen = functions.times_k.with_options(**options)
    for k in (1, 5, 5, -2, 10**30, 1):
        monkeypatch.setattr(functions, "K", k)
        results = chosen.map(range(40))
        assert [value for _, value in results] == [x * k for x in range(40)]
        if options not in (SERIAL, THREADS):
            assert {process for process, _ in results} != {ME}


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_helpers_see_the_current_values_of_globals(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Small containers too, changed in place, reached through a helper of the module."""
    chosen = functions.weighs.with_options(**options)
    assert [value for _, value in chosen.map(["a", "b"] * 20)] == [1, [2, 3]] * 20
    monkeypatch.setitem(functions.WEIGHTS, "a", 100)
    assert [value for _, value in chosen.map(["a", "b"] * 20)] == [100, [2, 3]] * 20


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_a_replaced_helper_is_seen(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A function put in place of a helper in the caller's module is the one that runs."""
    monkeypatch.setattr(functions, "weight_of", _replacement)
    results = functions.weighs.with_options(**options).map(["a"] * 40)
    assert [value for _, value in results] == ["replaced"] * 40


def _replacement(name: str) -> str:
    return "replaced"


@needs_fork
@pytest.mark.usefixtures("ready")
def test_forked_workers_do_not_draw_the_same_numbers() -> None:
    """NumPy's global generator is reseeded in each worker."""
    with pytest.warns(AmorsizeWarning, match="lost"):
        results = functions.draws.with_options(**FORK).map(range(100))
    assert len(set(results)) == 100


# -- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("n", [10, 200_000])
@pytest.mark.usefixtures("ready")
def test_arrays_can_be_written_to(options: dict[str, Any], n: int) -> None:
    """Small and large arrays, as items and as keyword arguments, are writable in workers as in the loop."""
    items = [np.full(n, float(i)) for i in range(12)]
    expected = [float(7 + (n - 1) * (i + 1)) for i in range(12)]
    assert functions.fills.with_options(**options).map([item.copy() for item in items]) == expected
    assert functions.fills.with_options(**options).map(np.array(items)) == expected
    if options != THREADS:  # threads share the array, and would write to it at once
        results = functions.adds_in_place.with_options(**options).map(items, items, kwargs={"out": np.zeros(n)})
        assert results == [2.0 * n * i for i in range(12)]


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_large_results_come_home_whole(options: dict[str, Any]) -> None:
    """Results of some megabytes each are equal to the loop's, and writable."""
    results = amorsize.parallel(lambda i: np.full(300_000, i), **options).map(range(10))
    assert [int(result.sum()) for result in results] == [300_000 * i for i in range(10)]
    assert all(result.flags.writeable for result in results)


# -- what cannot be pickled ------------------------------------------------------------------------------------------


def test_a_function_that_cannot_be_pickled_runs_serially() -> None:
    """A closure over a lock is told where workers would pay, before anything is sent, with the reason (S11)."""
    lock = threading.Lock()

    @amorsize.parallel
    def locked(x: int) -> int:
        with lock:
            threading.Event().wait(1e-3)
        return x

    assert locked.map(range(40)) == list(range(40))
    plan = locked.plan(range(10_000))
    assert plan.reason is Reason.NOT_PICKLABLE
    assert "lock" in plan.explain()
    with pytest.warns(AmorsizeWarning, match=r"n_jobs=2.*not-picklable.*lock"):
        assert locked.with_options(n_jobs=2).map(range(40)) == list(range(40))


def test_items_and_results_that_cannot_be_pickled_run_serially() -> None:
    """The sample finds out, the loop goes on, the plan says what it was (S11)."""

    @amorsize.parallel
    def wait(x: Any) -> Any:
        threading.Event().wait(1e-3)
        return x

    items = [generate(i) for i in range(40)]
    assert wait.map(items) == items
    assert wait.last_plan is not None
    assert wait.last_plan.reason is Reason.NOT_PICKLABLE
    assert "generator" in wait.last_plan.explain()
    assert wait.with_options(prefer="threads", n_jobs=2).map(items) == items
    assert backend_of(wait) == "threading"


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.usefixtures("ready")
def test_only_items_that_cannot_be_pickled_stay_here(retries: int) -> None:
    """The others of their chunk go to workers; that retries and timeout do not hold for them is said once."""
    odd = (3, 20, 21, 39)
    items = [generate(i) if i in odd else i for i in range(40)]
    chosen = functions.where.with_options(**LOKY, batch_size=10, retries=retries)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        processes = chosen.map(items)
    stayed = [i for i, process in enumerate(processes) if process == ME]
    # Without retries the caller also works until the workers answer.
    assert stayed == list(odd) if retries else set(odd) <= set(stayed)
    assert len(caught) == retries
    assert all("item 3 runs in this process" in str(warning.message) for warning in caught)


@pytest.mark.usefixtures("ready")
def test_an_item_that_cannot_be_pickled_fails_at_its_own_index() -> None:
    """The note of the function's error names that item, not the first of its chunk."""
    items: list[Any] = [*range(25), generate(3), *range(14)]
    chosen = functions.square.with_options(**LOKY, batch_size=20)
    with pytest.raises(TypeError) as caught:
        chosen.map(items)
    assert caught.value.__notes__[0].startswith("amorsize: raised by item 25: ")


class BrokenThreads(Threads):
    """Threads with a bug."""

    def task(self, job: Job, work: Work) -> Any:
        """Fail, whatever the items."""
        raise RuntimeError("a bug")


def test_other_errors_of_sending_are_no_items_doing() -> None:
    """What is not raised by pickling items ends the run."""
    called: list[int] = []
    threads = BrokenThreads(1)
    job = Job(func=called.append, items=range(10), call=called.append, handlers={})
    with pytest.raises(RuntimeError, match="a bug"):
        FlowTeam(job, Callbacks(threads, ahead=0)).run()
    threads.close()
    assert called == []


# -- dying workers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["die", pytest.param("kill", marks=needs_fork)])
@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_a_dead_worker_is_an_error_and_not_a_hang(options: dict[str, Any], kind: str) -> None:
    """os._exit and SIGKILL are told as WorkerDied, with finished results and the items that were in flight."""
    with pytest.raises(WorkerDied) as caught:
        functions.fails_in_worker.with_options(**options).map(range(60), kwargs={"parent": ME, "kind": kind})
    error = caught.value
    assert isinstance(error, AmorsizeError)
    assert all(error.results[i] == i for i in error.results)
    assert error.in_flight
    assert set(error.in_flight) <= set(range(60))
    assert not set(error.in_flight) & set(error.results)
    assert error.cause
    if options == FORK:
        assert ("exit code 7" if kind == "die" else "SIGKILL") in str(error)


@needs_fork
@pytest.mark.usefixtures("ready")
def test_the_item_that_killed_its_worker_is_named() -> None:
    """Chunks of one item leave no doubt."""
    with pytest.raises(WorkerDied, match="item 30") as caught:
        functions.dies_at.with_options(**FORK, batch_size=1, retries=1).map(range(60), kwargs={"at": 30})
    assert caught.value.in_flight == (30,)


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_after_a_death_the_next_call_is_fine(options: dict[str, Any]) -> None:
    """The pool is replaced."""
    with pytest.raises(WorkerDied):
        functions.fails_in_worker.with_options(**options).map(range(60), kwargs={"parent": ME, "kind": "die"})
    assert functions.where.with_options(**options, retries=1).map(range(10))
    assert square.with_options(**options).map(range(100)) == [x * x for x in range(100)]


@needs_fork
def test_dead_loky_workers_are_taken_in() -> None:
    """None is left unwaited-for with its pipe open, as loky does with one that broke its pool (faults, seed 192)."""
    dies = functions.fails_in_worker.with_options(**LOKY, retries=2)
    for _ in range(3):
        with pytest.raises(WorkerDied):
            dies.map(range(3), kwargs={"parent": ME, "kind": "die"})
        amorsize.shutdown()
        # As it is: multiprocessing.active_children() would take them in.
        assert not [child for child in multiprocessing.process._children if "Loky" in repr(type(child))]


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_retries_bring_back_what_a_passing_death_took(options: dict[str, Any], tmp_path: Path) -> None:
    """With retries=1 an item whose worker died once is run again, and the answer is whole."""
    chosen = functions.dies_at.with_options(**options, retries=1)
    results = chosen.map(range(60), kwargs={"at": 17, "marker": str(tmp_path / "died")})
    assert results == list(range(60))
    assert (tmp_path / "died").exists()


def _logs_and_dies_once(x: int, *, path: str, marker: str) -> int:
    functions.logged(x, path=path)
    return functions.dies_at(x, at=0, marker=marker)


@needs_fork
def test_an_item_in_the_hand_of_a_worker_is_not_handed_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker interrupted between taking an item and saying so has it all the same (soak, seed 11006656)."""
    from amorsize._backend._local_worker import RangeWorker  # noqa: PLC0415 - does not exist elsewhere

    begin = RangeWorker._run_range

    def hesitate(worker: Any, start: int, stop: int) -> None:
        time.sleep(0.3 * start)
        begin(worker, start, stop)

    monkeypatch.setattr(RangeWorker, "_run_range", hesitate)
    path, marker = tmp_path / "log", str(tmp_path / "died")
    work = amorsize.parallel(_logs_and_dies_once, **FORK, batch_size=1, retries=1)
    assert work.map(range(2), kwargs={"path": str(path), "marker": marker}) == [0, 1]
    assert sorted(line.split()[0] for line in path.read_text().splitlines()) == ["0", "0", "1"]


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_retries_end(options: dict[str, Any]) -> None:
    """An item that kills every worker is an error in the end, which names it; the others are kept."""
    with pytest.raises(WorkerDied) as caught:
        functions.dies_at.with_options(**options, retries=2).map(range(30), kwargs={"at": 11})
    assert caught.value.in_flight == (11,)
    assert set(caught.value.results) >= set(range(11))


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.parametrize("stream", [False, True], ids=["map", "imap"])
@pytest.mark.usefixtures("ready")
def test_after_a_death_under_retries_the_rest_is_parallel(
    options: dict[str, Any], tmp_path: Path, stream: bool
) -> None:
    """House review 7.6: what was in flight is run again alone; loky did the rest with one worker, too."""
    chosen = functions.meets_after_a_death.with_options(**options, retries=1)
    kwargs = {"folder": tmp_path}
    found = list(chosen.imap(range(300), kwargs=kwargs) if stream else chosen.map(range(300), kwargs=kwargs))
    assert found == list(range(300))
    assert (tmp_path / "met").exists()


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_an_error_policy_covers_dead_workers(options: dict[str, Any]) -> None:
    """With errors="return" the item that kills its worker holds the WorkerDied, the others their results."""
    chosen = functions.dies_at.with_options(**options, retries=1, errors="return")
    results = chosen.map(range(30), kwargs={"at": 11})
    assert isinstance(results[11], WorkerDied)
    assert results[:11] + results[12:] == [x for x in range(30) if x != 11]


@pytest.mark.parametrize("policy", [{"retries": 1}, {"timeout": 60.0}], ids=["retries", "timeout"])
@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_retries_and_timeout_keep_items_out_of_this_process(options: dict[str, Any], policy: dict[str, Any]) -> None:
    """No item runs in the caller, not even as a sample, since one might take it down."""
    for n_jobs in (None, 1, 2):
        chosen = functions.where.with_options(**options | {"n_jobs": n_jobs}, **policy)
        assert ME not in chosen.map(range(12))
        assert ME not in chosen.map(iter(range(12)))
        assert ME not in chosen.map([1])


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_an_item_that_hangs_is_ended(options: dict[str, Any]) -> None:
    """A timeout bounds one item; the error names it and is a TimeoutError."""
    with pytest.raises(ItemTimeout, match=r"item 5 took longer than timeout=0\.3 s") as caught:
        functions.hangs_at.with_options(**options, timeout=0.3).map(range(12), kwargs={"at": 5})
    assert caught.value.index == 5
    assert isinstance(caught.value, TimeoutError)


def test_a_timeout_with_threads_warns() -> None:
    """A thread cannot be stopped: the items run to their end, and the call says so."""
    with pytest.warns(AmorsizeWarning, match="timeout cannot stop an item in a thread"):
        assert functions.slow.with_options(**THREADS, timeout=1e-4).map(range(6)) == list(range(6))


@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_an_item_that_hangs_does_not_take_the_others_along(options: dict[str, Any]) -> None:
    """With errors="return" only its own place holds the timeout."""
    chosen = functions.hangs_at.with_options(**options, timeout=0.3, errors="return")
    results = chosen.map(range(12), kwargs={"at": 5})
    assert isinstance(results[5], ItemTimeout)
    assert results[:5] + results[6:] == [x for x in range(12) if x != 5]


# -- the plan of a call of which nothing is known --------------------------------------------------------------------


def test_the_plan_while_the_first_item_runs_is_a_lower_bound() -> None:
    """It was predicted to take 0 ns, for being shorter than waking a worker."""
    plans: list[Any] = []

    def asks(n: int) -> int:
        plans.append(work.last_plan)
        return n

    work = amorsize.parallel(asks)
    work.map(range(4))
    assert [plan.is_lower_bound for plan in plans] == [True, False, False, False]
    assert plans[0].reason is Reason.UNTIMED
    assert plans[0].predicted_s > 0
    assert [plan.profile.n_sampled for plan in plans] == [0, 1, 2, 3]
    assert work.last_plan is not None
    assert not work.last_plan.is_lower_bound


def test_the_plan_of_a_stream_that_runs_tells_of_the_items_so_far() -> None:
    """It said that nothing had been sampled until the first decision."""

    def double(n: int) -> int:
        return 2 * n

    work = amorsize.parallel(double)
    plans = [work.last_plan for _ in work.imap(range(4))]
    assert [plan and plan.profile.n_sampled for plan in plans] == [1, 2, 3, 4]


def test_a_stream_that_is_left_is_not_compared_with_the_whole() -> None:
    """One result of 500 was said to have been predicted to take seconds, and to have taken a hundredth of that."""
    work = amorsize.parallel(functions.square.__wrapped__)
    with work.imap(range(500)) as stream:
        assert next(stream) == 0
    assert work.last_plan is not None
    assert work.last_plan.n_items == 1
    work = amorsize.parallel(functions.slow.__wrapped__, n_jobs=2)
    with work.imap(range(500)) as stream:
        assert [next(stream) for _ in range(3)] == [0, 1, 2]
    plan = work.last_plan
    assert plan is not None
    assert plan.is_parallel
    assert plan.n_items == 500
    assert (plan.revisions[-1].what, plan.revisions[-1].n_done) == ("stop", 3)
    assert "%" not in plan.explain().splitlines()[-1]


def test_the_forecast_of_items_that_all_run_in_workers_is_a_lower_bound() -> None:
    """Six items of a second were predicted to take 86 ms: what starting workers takes."""

    def slow(n: int) -> int:
        threading.Event().wait(0.05)
        return n

    work = amorsize.parallel(slow, timeout=60)
    assert work.map(range(4)) == list(range(4))
    plan = work.last_plan
    assert plan is not None
    assert plan.is_lower_bound
    assert "at least" in plan.explain()
    assert "times" not in plan.explain()


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) != os.cpu_count(), reason="they may have CPUs of their own"
)
def test_other_programs_that_compute_are_in_the_forecast() -> None:
    """What was predicted for cores of its own took twice as long."""

    def slow(n: int) -> int:
        end = time.perf_counter() + 0.12
        while time.perf_counter() < end:
            pass
        return n

    # Forked, so that no workers begin while the first item runs: that item would be timed beside them.
    work = amorsize.parallel(slow, start_method="fork")
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as busy:
        try:
            assert busy.stdout is not None
            busy.stdout.readline()
            assert work.map(range(4)) == list(range(4))
            dry = work.plan(range(4))
        finally:
            busy.kill()
    for plan in (work.last_plan, dry):
        assert plan is not None
        assert plan.host.n_others >= 1
        assert "of other programs running" in " ".join(plan.explain().split())


# -- initializer and progress ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ALL)
@pytest.mark.usefixtures("ready")
def test_the_initializer_has_run_where_items_run(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process that computes has been initialized, the caller included."""
    monkeypatch.delenv("AMORSIZE_TEST_READY", raising=False)
    reads = amorsize.parallel(_reads_environment, initializer=_set_environment, initargs=("yes",), **options)
    results = reads.map(range(60))
    monkeypatch.delenv("AMORSIZE_TEST_READY", raising=False)
    assert [value for _, value in results] == ["yes"] * 60


def _set_environment(value: str) -> None:
    os.environ["AMORSIZE_TEST_READY"] = value


def _reads_environment(x: int) -> tuple[int, str | None]:
    threading.Event().wait(1e-3)
    return os.getpid(), os.environ.get("AMORSIZE_TEST_READY")


def _fail_to_begin(kind: str) -> None:
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {"raise": RuntimeError, "exit": SystemExit}[kind](kind)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("policy", [{"retries": 2}, {"timeout": 60.0}], ids=["retries", "timeout"])
@pytest.mark.parametrize("kind", ["raise", "exit", pytest.param("kill", marks=needs_fork)])
@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_workers_that_cannot_be_initialized_end_the_call(
    options: dict[str, Any], kind: str, policy: dict[str, Any]
) -> None:
    """What the initializer raises is each item's failure; where it kills every worker, that is: never a hang."""
    expected: Any = {"raise": RuntimeError, "exit": SystemExit, "kill": WorkerDied}[kind]
    begins = amorsize.parallel(_reads_environment, initializer=_fail_to_begin, initargs=(kind,), **options, **policy)
    with pytest.raises(expected):
        begins.map(range(20))
    if kind != "exit":  # no error policy keeps a SystemExit
        results = list(begins.with_options(errors="return").imap(range(20)))
        assert [type(result) for result in results] == [expected] * 20
    if kind != "kill":  # for which five pools in a row are started and die
        with pytest.raises(expected):
            list(begins.imap(range(20)))
    if kind == "raise":
        assert len(begins.with_options(errors="return").map(range(20))) == 20
        assert begins.with_options(errors="skip").map(range(20)) == []
    assert square.with_options(**options).map(range(10)) == [x * x for x in range(10)]


def _fail_to_begin_at_first(folder: str) -> None:
    for i in range(4):
        try:
            os.close(os.open(f"{folder}/{i}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)


@needs_fork
@pytest.mark.parametrize("options", PROCESSES)
@pytest.mark.usefixtures("ready")
def test_workers_that_die_idle_a_few_times_cost_nothing(options: dict[str, Any], tmp_path: Path) -> None:
    """All chunks of a pool go down with it, which is one death and not as many as chunks (soak, seed 13000970)."""
    begins = amorsize.parallel(
        _reads_environment, initializer=_fail_to_begin_at_first, initargs=(str(tmp_path),), **options, retries=1
    )
    assert ME not in {pid for pid, _ in begins.map(range(60))}
    assert len(list(tmp_path.iterdir())) == 4


@needs_fork
@pytest.mark.parametrize("options", [FORK, SERVER], ids=["fork", "forkserver"])
def test_workers_that_die_idle_do_not_end_what_another_one_does(options: dict[str, Any], tmp_path: Path) -> None:
    """Six killed before they began an item ended a map while the seventh was at work (random kills, in a row)."""
    n_starts = 1 + bounds.MOST_IDLE_DEATHS + 1
    first = {"initializer": functions.die_unless_first, "initargs": (tmp_path,)}
    chosen = functions.waits_for_files.with_options(**options, retries=1, **first)
    assert len(set(chosen.map(range(60), kwargs={"folder": tmp_path, "n": n_starts}))) == 1
    assert len(list(tmp_path.iterdir())) == n_starts


# -- no workers to be had --------------------------------------------------------------------------------------------

FEW_DESCRIPTORS = """
import contextlib, os, resource, time, warnings
import amorsize

@amorsize.parallel(start_method={method!r})
def work(x):
    time.sleep({sleep_s})
    return x, os.getpid()

if {method!r} == "loky":
    import joblib.externals.loky
work.plan(range(3))
import amorsize._stream
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
taken = []
with contextlib.suppress(OSError):
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
for fd in taken[:{spare}]:
    os.close(fd)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    results = list({call})
print([x for x, _ in results] == list(range(300)))
processes = {{process for _, process in results}}
print([warning.category.__name__ for warning in caught] == ["AmorsizeWarning"] * (processes == {{os.getpid()}}))
print(processes == {{os.getpid()}} or {spare} > 6)  # above, other versions of loky may need fewer
print((work.last_plan.backend == "sequential") == (processes == {{os.getpid()}}))
plan = work.last_plan
print(amorsize.decide(plan.profile, plan.host, plan.n_items, plan.limits) == plan)
"""


@needs_fork
@pytest.mark.parametrize(
    ("method", "sleep_s", "spare", "data"),
    [
        ("fork", 2e-3, 1, "range(300)"),
        ("fork", 2e-3, 2, "range(300)"),
        ("fork", 2e-3, 3, "range(300)"),
        ("fork", 2e-3, 3, "iter(range(300))"),
        ("fork", 2e-3, 3, "STREAM"),
        ("loky", 6e-3, 4, "STREAM"),
        ("loky", 6e-3, 4, "range(300)"),
        ("loky", 6e-3, 8, "range(300)"),
        ("loky", 6e-3, 12, "range(300)"),
        ("loky", 6e-3, 15, "range(300)"),
    ],
)
def test_where_no_worker_can_be_started_the_loop_goes_on(method: str, sleep_s: float, spare: int, data: str) -> None:
    """
    Descriptors end at different steps of a start; the items run here, each once, and one warning says so.

    The loop after a refused start does not ask for workers again at each look, which once was a recursion.
    """
    call = "work.imap(range(300))" if data == "STREAM" else f"work.map({data})"
    done = subprocess.run(
        [sys.executable, "-c", FEW_DESCRIPTORS.format(method=method, sleep_s=sleep_s, spare=spare, call=call)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.split() == ["True"] * 5


# -- scripts ---------------------------------------------------------------------------------------------------------

SCRIPT = """
import os, sys
import amorsize

OFFSET = 1

class Point:
    def __init__(self, x):
        self.x = x

@amorsize.parallel
def inner(x):
    return x + 1

@amorsize.parallel(n_jobs=2, start_method={method!r}, retries=1)
def work(x):
    return Point(x + OFFSET), os.getpid()

@amorsize.parallel(n_jobs=2, start_method={method!r}, retries=1)
def outer(x):
    return inner.map(range(x))

OFFSET = 10
for _ in range(2):
    results = work.map(range(20))
    assert [type(point) for point, _ in results] == [Point] * 20
    print([point.x for point, _ in results] == list(range(OFFSET, OFFSET + 20)))
    print(os.getpid() not in {{process for _, process in results}})
    OFFSET = 20
class OwnError(Exception):
    pass

@amorsize.parallel(n_jobs=2, start_method={method!r}, retries=1)
def fails(x):
    raise OwnError(x, os.getpid())

try:
    fails.map(range(20))
except OwnError as error:
    print(error.args[0] == 0, error.args[1] != os.getpid())
offset = 5
closure = amorsize.parallel(lambda x: x + offset, n_jobs=2, start_method={method!r}, retries=1)
print(closure.map(range(5)) == [5, 6, 7, 8, 9])
print(outer.map(range(4)) == [list(range(1, x + 1)) for x in range(4)])
print(work.last_plan.backend)
"""


@pytest.mark.parametrize("method", ["loky", pytest.param("fork", marks=needs_fork)])
@pytest.mark.parametrize("how", ["file", "argument", "standard input"])
def test_functions_of_a_script_reach_workers(how: str, method: str, tmp_path: Path) -> None:
    """A script without a main guard, code given with -c, and code read from standard input run once, and in workers."""
    code = textwrap.dedent(SCRIPT).format(method=method)
    path = tmp_path / "script.py"
    path.write_text(code)
    arguments = {"file": [str(path)], "argument": ["-c", code], "standard input": ["-"]}[how]
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", *arguments],
        input=code if how == "standard input" else None,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["True"] * 8 + [method]
    assert done.returncode == 0


def test_a_program_ends_with_workers_running() -> None:
    """Idle workers do not keep the interpreter alive, and leave no message behind."""
    code = (
        "import amorsize\nfrom tests.functions import where\n"
        "where.with_options(n_jobs=2, start_method='loky', retries=1).map(range(4))\nprint('end')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("end\n", "", 0)


STARTS = """
import signal
from joblib.externals.loky.backend import fork_exec
from tests import functions

def spy(*arguments, **keywords):
    print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
    return real(*arguments, **keywords)

real, fork_exec.fork_exec = fork_exec.fork_exec, spy
functions.where.with_options(n_jobs=2, start_method="loky", retries=1).map(range(4))
"""


@needs_fork
def test_the_first_workers_start_with_ctrl_c_held_back() -> None:
    """They would print its traceback; starting the resource tracker of multiprocessing lets it through again."""
    done = subprocess.run(
        [sys.executable, "-c", STARTS],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.split(), done.stderr, done.returncode) == (["True", "True"], "", 0)


def test_amorsize_serial_switches_workers_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """With AMORSIZE_SERIAL set everything runs here, and the plan says why."""
    monkeypatch.setenv("AMORSIZE_SERIAL", "1")
    assert set(functions.where.map(range(60))) == {ME}
    assert functions.where.last_plan is not None
    assert functions.where.last_plan.reason is Reason.DISABLED


@pytest.mark.parametrize("options", PARALLEL)
@pytest.mark.usefixtures("ready")
def test_nothing_is_left_behind(options: dict[str, Any]) -> None:
    """A call that has ended leaves no forked process, no descriptor and no thread of its own."""
    functions.where.with_options(**options).map(range(40))
    amorsize.shutdown()
    before = set(Path("/proc/self/fd").iterdir()) if sys.platform == "linux" else set()
    if options != LOKY:
        for _ in range(3):
            functions.where.with_options(**options).map(range(40))
        with pytest.raises(functions.CountedError):
            functions.fails_from.with_options(**options).map(range(50), kwargs={"first": 20})
        amorsize.shutdown()
    after = set(Path("/proc/self/fd").iterdir()) if sys.platform == "linux" else set()
    assert len(after) <= len(before)
    for thread in threading.enumerate():
        if thread.name.startswith("amorsize"):
            thread.join(10)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("amorsize")]


def test_files_of_a_run_go_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt between any two lines leaves none behind; a copy in a worker removes nothing."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    large = bytes(100_000)
    board = Board()
    parcel = _ship.pack_function(lambda x: (x, large), star=False, kwargs=None, importable=False)
    assert len(list(tmp_path.iterdir())) == 2
    copy = pickle.loads(pickle.dumps(parcel))
    assert (copy.digest, copy.path, copy.is_by_value) == (parcel.digest, parcel.path, True)
    del copy
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 2
    del board, parcel
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@needs_fork
@pytest.mark.usefixtures("ready")
def test_threads_of_one_call_do_not_keep_the_next_from_forking() -> None:
    """What a call with threads leaves behind is gone when it returns."""
    functions.where.with_options(**THREADS).map(range(20))
    functions.where.with_options(**FORK).map(range(20))
    assert backend_of(functions.where) == "fork"


def test_the_exceptions_survive_pickling() -> None:
    """Errors keep index, results and in_flight when they travel on."""
    died = pickle.loads(pickle.dumps(WorkerDied("why", {1: 2}, (3,), "killed")))
    assert (died.results, died.in_flight, died.cause, str(died)) == ({1: 2}, (3,), "killed", "why")
    late = pickle.loads(pickle.dumps(ItemTimeout("late", 4)))
    assert (late.index, str(late)) == (4, "late")


class Tracked:
    """A result that can be asked whether it is still there."""


def tracked(_: int) -> Tracked:
    """Return one."""
    return Tracked()


@pytest.mark.parametrize("options", [{}, {"errors": "return"}, {"n_jobs": 1}])
def test_a_call_holds_on_to_nothing(options: dict[str, Any]) -> None:
    """Results go when the caller drops them, not at some collection: a call's parts once pointed at each other."""
    f = amorsize.parallel(tracked, **options)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            kept = [weakref.ref(result) for result in f.map(list(range(20)))]
            assert [ref for ref in kept if ref() is not None] == []
        kept = [weakref.ref(result) for result in f.imap(list(range(20)))]
        assert [ref for ref in kept if ref() is not None] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("options", PARALLEL)
@pytest.mark.usefixtures("ready")
def test_dropping_a_stream_ends_its_work_at_once(options: dict[str, Any]) -> None:
    """Without waiting for a collection."""
    ended = []

    def numbers() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            ended.append(True)

    stream = functions.square.with_options(**options).imap(numbers())
    gc.disable()
    try:
        assert next(stream) == 0
        assert not ended
        left = weakref.ref(stream)
        del stream
        assert ended, [str(holder)[:500] for holder in gc.get_referrers(left())]
    finally:
        gc.enable()


def test_a_chunk_that_is_given_up_begins_no_more_items() -> None:
    """Loky tells of a death before it ends the other workers, and what they went on with was run again elsewhere."""
    board = Board()
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 2:
            assert board.end(1) == 3
        return item

    try:
        tell = _chunks.tell_on(board.path, board.take(1))
        with pytest.raises(_worker.Overrun):
            _worker.run_quantum(work, range(10), 60.0, 1, keep_going=False, tell=tell)
        assert begun == [0, 1, 2]
        assert board.end(1) == 3
        assert board.end(2) == 0
        with pytest.raises(_worker.Overrun):
            _chunks.tell_on(board.path, 2)(1)
    finally:
        board.close()


def busy_or_dead(i: int) -> int:
    """Take a moment; one item ends its process, unless that is the tests' own."""
    time.sleep(0.02)
    if i == 25 and in_worker():
        os.kill(os.getpid(), signal.SIGKILL)
    return i


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
@pytest.mark.parametrize("way", ["map", "imap"])
@pytest.mark.parametrize("options", [pytest.param(LOKY, id="loky")])
@pytest.mark.usefixtures("ready")
def test_the_item_that_killed_its_worker_is_among_those_named(way: str, options: dict[str, Any]) -> None:
    """Whatever chunk loky tells of first."""
    # Two chunks of five, the first item of the second one kills: loky tells of the first chunk first.
    f = amorsize.parallel(busy_or_dead, batch_size=5, **options)
    items = range(20, 30)
    with pytest.raises(WorkerDied) as caught:
        f.map(items) if way == "map" else list(f.imap(items))
    assert 5 in caught.value.in_flight


def test_threads_that_wait_are_no_more_than_the_next_run_asks_for() -> None:
    """After a run on twenty, one on two had four at work: its two and the two chunks that were to wait."""
    at_work: set[int] = set()
    most = 0

    def together(x: int) -> int:
        nonlocal most
        at_work.add(x)
        most = max(most, len(at_work))
        time.sleep(2e-3)
        at_work.discard(x)
        return x

    chosen = amorsize.parallel(together, prefer="threads")
    assert chosen.with_options(n_jobs=20).map(range(200)) == list(range(200))
    assert most > 2
    most = 0
    assert chosen.with_options(n_jobs=2).map(range(100)) == list(range(100))
    assert most == 2


@pytest.mark.skipif(sys.platform != "linux", reason="fork is only used on Linux")
def test_a_thread_that_has_just_been_joined_does_not_forbid_a_fork() -> None:
    """The system ends it a moment later: one time in twenty it was taken for a native library's."""
    end_threads()
    reasons = []
    for _ in range(1000):
        thread = threading.Thread(target=str)
        thread.start()
        thread.join()
        reasons.append(_blas.foreign_threads())
    assert set(reasons) == {""}


@pytest.mark.parametrize(
    "options",
    [
        {"start_method": "loky", "retries": 1},
        {"prefer": "threads"},
        pytest.param({"start_method": "fork", "retries": 1}, marks=needs_fork),
    ],
)
def test_what_was_finished_is_not_lost_to_an_exception(options: dict[str, Any]) -> None:
    """It is in the exception's attribute: all before the failed item at least, with their indices."""
    function = functions.fails_from.with_options(n_jobs=2, **options)
    with pytest.raises(functions.CountedError, match="40") as caught:
        function.map(range(60), kwargs={"first": 40})
    finished = caught.value.amorsize_results  # type: ignore[attr-defined]  # what is tested
    assert {n: n for n in range(40)}.items() <= finished.items()
    assert 40 not in finished


@pytest.mark.parametrize("options", [{"n_jobs": 1}, {"n_jobs": 2}, {"prefer": "threads", "n_jobs": 2}])
@pytest.mark.parametrize("errors", ["return", "skip"])
def test_the_plan_counts_failures(options: dict[str, Any], errors: Any) -> None:
    """Of lists and of streams; a plan is equal to one without any."""
    function = functions.fails_from.with_options(errors=errors, **options)
    for call in (function.map, lambda *a, **k: list(function.imap(*a, **k))):
        call(range(60), kwargs={"first": 50})
        assert function.last_plan is not None
        assert function.last_plan.n_failed == 10
    text = "10 items: the exceptions stand in place" if errors == "return" else "10 items that failed"
    assert text in " ".join(function.last_plan.explain().split())


@pytest.mark.parametrize("n_before", [0, 1])
def test_one_job_reads_an_iterator_as_a_loop_does(n_before: int) -> None:
    """What is done with its items decides what it gives next: a list of work to be done was given up half way."""
    queue: list[int] = []

    def children(n: int) -> int:
        time.sleep(0.001)
        queue.extend((n - 1, n - 1) if n else ())
        return n

    def work() -> Iterator[int]:
        while queue:
            yield queue.pop()

    function = amorsize.parallel(children, n_jobs=1)
    for _ in range(n_before):
        function.map(iter([0] * 20))
    queue.append(5)
    expected = [children(n) for n in work()]
    queue.append(5)
    assert function.map(work()) == expected
    assert function.last_plan is not None
    assert function.last_plan.reason == "one-job"
