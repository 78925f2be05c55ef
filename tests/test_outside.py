"""What the program itself raises while a map runs ends the map, as it ends the loop: limits of its own, a shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import functools
import os
import pickle
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

import amorsize
from amorsize import _host, _modules, _outside, _source, _weigh
from amorsize._analysis import observation
from amorsize._backend import _ambience
from tests import functions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are not there"),
    # A limit that comes between `open` and `with` leaves a file to the garbage collector, which warns of it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Limit(Exception):  # noqa: N818 - as users name theirs
    """A time limit of the program."""


class ItemError(Exception):
    """What an item raises."""


def on_signal(*_: object) -> NoReturn:
    """Be the program's handler."""
    raise Limit


@contextlib.contextmanager
def handling(handler: Any, number: int = signal.SIGUSR1) -> Iterator[None]:
    """Install a handler for a while."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def stricken(work: Callable[[], object]) -> BaseException:
    """Return what *work* raises."""
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at
        return error
    raise AssertionError("nothing was raised")


def strike(*numbers: int) -> None:
    """Let the signal come now, or these."""
    for number in numbers or (signal.SIGUSR1,):
        signal.raise_signal(number)


def strike_and_fail() -> None:
    """Let the signal come, and fail."""
    strike()
    raise ItemError


@contextlib.contextmanager
def profiled(watch: Callable[[types.FrameType, str, Any], None]) -> Iterator[None]:
    """Call *watch* as a profiler is."""
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


def wrapping(error: BaseException) -> None:
    """Raise another exception in place of what the handler raised."""
    try:
        strike()
    except Limit:
        raise error from None


class Handler:
    """Handlers of every kind."""

    def __call__(self, *_: object) -> NoReturn:
        """Raise."""
        raise Limit

    def method(self, number: int, frame: object) -> NoReturn:
        """Raise."""
        raise Limit

    @staticmethod
    def deep(number: int, frame: object) -> None:
        """Raise further in."""
        on_signal()


def passing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Be a decorator."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class TestWhatIsOutside:
    """An exception of the program's own is told from one of an item."""

    @pytest.mark.parametrize(
        "handler",
        [on_signal, Handler(), Handler().method, Handler.deep, functools.partial(Handler().method), passing(on_signal)],
        ids=["function", "object", "method", "deep", "partial", "decorated"],
    )
    def test_handlers_of_every_kind(self, handler: Any) -> None:
        """Functions, methods, partials, objects, decorated ones."""
        with handling(handler):
            known = _outside.handlers()
            error = stricken(strike)
            assert _outside.is_outside(error, known, functions.square)
        assert not _outside.is_outside(error, {}, functions.square)

    def test_a_handler_that_has_uninstalled_itself(self) -> None:
        """One shot, as those for SIGTERM are: the second signal shall kill."""

        def once(number: int, frame: object) -> NoReturn:
            signal.signal(number, signal.SIG_DFL)
            raise Limit

        with handling(once):
            known = _outside.handlers()
            error = stricken(strike)
            assert _outside.is_outside(error, known, functions.square)
            assert _outside.is_outside(error)

    def test_what_an_item_made_of_it(self) -> None:
        """An item that catches everything and raises its own ends the loop, too."""
        with handling(on_signal):
            error = stricken(lambda: wrapping(ItemError("item failed")))
            assert isinstance(error, ItemError)
            assert _outside.is_outside(error, _outside.handlers(), functions.square)

    def test_what_was_handled_around_the_map_led_to_nothing(self) -> None:
        """A map in the clean-up after a limit: its items' failures have the limit for their context."""

        def work() -> None:
            def fail() -> NoReturn:
                raise ItemError

            try:
                strike()
            except Limit:
                try:
                    fail()
                except ItemError as error:
                    error.__traceback__ = error.__traceback__.tb_next if error.__traceback__ else None
                    found.append(error)

        found: list[BaseException] = []
        with handling(on_signal):
            work()
            assert isinstance(found[0].__context__, Limit)
            assert not _outside.is_outside(found[0], _outside.handlers(), functions.square)

    @pytest.mark.parametrize(
        "error", [ValueError("no"), SystemExit(), MemoryError(), StopIteration(), Limit("by itself"), Limit()]
    )
    def test_what_an_item_raises_is_its_own(self, error: BaseException) -> None:
        """Also where it has no arguments."""

        def item() -> NoReturn:
            raise error

        with handling(on_signal):
            assert not _outside.is_outside(stricken(item), _outside.handlers(), item)

    @pytest.mark.parametrize(
        "call",
        [
            lambda: next(iter(())),
            lambda: queue.SimpleQueue().get_nowait(),
            lambda: queue.Queue().get_nowait(),
            sys.exit,
            lambda: int("x"),
            lambda: {}[1],
            lambda: functions.deep(10**6),
            lambda: asyncio.run(asyncio.wait_for(asyncio.sleep(10), 0.001)),
        ],
        ids=["iterator", "queue", "python queue", "exit", "conversion", "key", "recursion", "coroutine"],
    )
    def test_what_native_code_raises_is_the_item_s(self, call: Callable[[], Any]) -> None:
        """Some of it has no arguments, as an asynchronous exception has none."""
        assert not _outside.is_outside(stricken(call), {}, functions.square)

    def test_what_is_thrown_into_a_generator_is_the_item_s(self) -> None:
        """There the traceback ends where the generator had stopped."""

        def numbers() -> Iterator[int]:
            yield 1

        def item() -> None:
            steps: Any = numbers()
            next(steps)
            steps.throw(ItemError())

        assert not _outside.is_outside(stricken(item), {}, item)

    def test_handlers_are_not_called_off_the_main_thread(self) -> None:
        """So none is looked at there."""
        found: list[Any] = []
        with handling(on_signal):
            thread = threading.Thread(target=lambda: found.append(_outside.handlers()))
            thread.start()
            thread.join()
        assert found == [{}]

    def test_ctrl_c_is_always_the_program_s(self) -> None:
        """Whatever has been installed for it."""
        assert _outside.is_outside(KeyboardInterrupt())


def loops(n: int) -> int:
    """Compute in Python, calling nothing."""
    total = 0
    while total < n:
        total += 1
    return total


def calls(n: int) -> int:
    """Compute in calls of native code."""
    return sum([abs(i) for i in range(n)])


def enters(n: int) -> int:
    """Compute in calls of Python."""
    return 0 if n <= 0 else sum([loops(1) for _ in range(n)])


class TestAsynchronous:
    """Exceptions set into the calling thread by another one."""

    @pytest.mark.parametrize("work", [loops, calls, enters])
    @pytest.mark.parametrize("kind", [Limit, TimeoutError])
    def test_an_exception_set_from_another_thread(self, work: Callable[[int], int], kind: type[Exception]) -> None:
        """Wherever in the item it comes."""

        def item() -> None:
            while True:
                work(2000)

        def shoot() -> None:
            is_started.wait()
            time.sleep(0.01)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(me), ctypes.py_object(kind))

        is_started, me = threading.Event(), threading.get_ident()
        for _ in range(20):
            thread = threading.Thread(target=shoot)
            error = stricken(lambda thread=thread: (thread.start(), is_started.set(), item()))
            thread.join()
            is_started.clear()
            assert type(error) is kind
            assert _outside.is_outside(error, {}, item)


class Bomb:
    """An object in whose looking at, or pickling, the program's limit comes."""

    def __reduce__(self) -> NoReturn:
        strike()
        raise TypeError

    def __len__(self) -> int:
        strike()
        raise TypeError

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class LateError(OSError):
    """What many programs raise from a handler is one of the system's own errors: ``TimeoutError``."""


def on_signal_late(*_: object) -> NoReturn:
    """Be such a handler."""
    raise LateError


def strikes_while_read(_: object = None) -> str:
    """Be a reading of the host in which the limit comes."""
    strike()
    return ""


@pytest.mark.parametrize("handler", [on_signal, on_signal_late], ids=lambda handler: str(handler.__name__))
def test_a_limit_that_comes_while_the_host_is_read(handler: Any) -> None:
    """Seen in a run of the tests: the limit came between two bytes of a cgroup's file, and was taken for its oddity."""
    with handling(handler), pytest.raises((Limit, LateError)):
        _host.read_host(_host.Readings(read_text=strikes_while_read))
    with handling(handler), pytest.raises((Limit, LateError)):
        _host.read_host(_host.Readings(available=strikes_while_read))


@pytest.mark.parametrize("look", ["weigh_value", "function_problem", "Observation", "Source"])
def test_a_limit_that_comes_while_something_is_looked_at(look: str) -> None:
    """Objects of the program are pickled, measured and compared before anything is decided."""
    bomb = Bomb()
    looks: dict[str, Callable[[], Any]] = {
        "weigh_value": lambda: _weigh.weigh_value(bomb, pickle.dumps),
        "function_problem": lambda: _weigh.function_problem(functools.partial(functions.square, bomb), pickle.dumps),
        "Observation": lambda: observation._pickled(bomb),
        "Source": lambda: _source._length(bomb),
    }
    with handling(on_signal), pytest.raises(Limit):
        looks[look]()


# Whether what is stuck in a thread of this process may end: nothing is forked beside it, by the next tests either.
is_over = False


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    global is_over  # noqa: PLW0603 - items in threads look at it
    yield
    is_over = True
    amorsize.shutdown()
    deadline = time.monotonic() + 30
    while any(thread.name.startswith("amorsize-") for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    is_over = False


def stuck_at_60(n: int) -> int:
    """Take 20 ms; item 60, which a worker or the caller has, takes as long as a test waits at most."""
    for _ in range(1000 if n == 60 else 1):
        time.sleep(0.02)
        if is_over:
            break
    return n


def busy_at_60(n: int) -> int:
    """Compute for as long."""
    end = time.perf_counter() + (20 if n == 60 else 0.02)
    while time.perf_counter() < end and not is_over:
        pass
    return n


def run_program(text: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@contextlib.contextmanager
def limited(after_s: float) -> Iterator[None]:
    """Be a time limit of the program: an alarm."""
    with handling(on_signal, signal.SIGALRM):
        signal.setitimer(signal.ITIMER_REAL, after_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


WAYS: list[dict[str, Any]] = [
    {"n_jobs": 2},
    {"n_jobs": 2, "errors": "return"},
    {"n_jobs": 2, "errors": "skip"},
    {"n_jobs": 2, "start_method": "loky"},
    {"n_jobs": 2, "start_method": "loky", "errors": "return"},
    {"n_jobs": 2, "start_method": "forkserver"},
    {"n_jobs": 2, "start_method": "forkserver", "errors": "return"},
    {"n_jobs": 2, "prefer": "threads"},
    {"n_jobs": 1, "errors": "return"},
    {"n_jobs": 1},
    {"errors": "return"},
    {},
]


class TestLimits:
    """Case D: a limit of 1.5 s came after 8.7 s, as the failure of some item."""

    @pytest.mark.parametrize("way", WAYS, ids=str)
    @pytest.mark.parametrize("work", [busy_at_60, stuck_at_60])
    def test_a_limit_of_the_program_ends_a_map(self, way: dict[str, Any], work: Callable[[int], int]) -> None:
        """While the caller computes as while it waits; the item that is stuck is not waited for."""
        func = amorsize.parallel(work, **way)
        began = time.perf_counter()
        with pytest.raises(Limit), limited(1.5):
            func.map(range(100))
        # Not a measurement: with the item that is stuck it would be more than twenty seconds.
        assert time.perf_counter() - began < 18

    @pytest.mark.parametrize("way", WAYS, ids=str)
    def test_a_limit_of_the_program_ends_a_stream(self, way: dict[str, Any]) -> None:
        """Also with an error policy, which is for the items' failures."""
        func = amorsize.parallel(busy_at_60, **way)
        with pytest.raises(Limit), limited(1.5):
            list(func.imap(range(100)))

    def test_a_limit_that_comes_while_the_input_is_read(self) -> None:
        """An exception of the input waits for the items before it; a limit does not."""

        def numbers() -> Iterator[int]:
            yield from range(70)
            strike()

        with pytest.raises(Limit), handling(on_signal):
            list(amorsize.parallel(stuck_at_60, n_jobs=2).imap(numbers()))

    def test_a_limit_that_comes_while_items_are_pickled(self) -> None:
        """An item that cannot be pickled is done by the caller; one that was interrupted is not."""
        func = amorsize.parallel(value_of, n_jobs=2, start_method="loky", batch_size=1)
        func.map([Striking(i) for i in range(30)])
        with pytest.raises(Limit), handling(on_signal):
            func.map([Striking(i) for i in range(60)])

    @pytest.mark.parametrize("taken_by", ["loky/backend/synchronize.py", "threading.py"])
    def test_a_limit_that_comes_as_a_lock_is_taken(self, taken_by: str) -> None:
        """
        Seen once in CI, 50 minutes long: loky's lock stayed taken, and its thread and the map waited for each other.

        The limit comes as the lock's ``__enter__`` returns, at the first one that is taken as tasks are handed out.
        """
        came: list[str] = []

        def watch(frame: types.FrameType, event: str, _: Any) -> None:
            if came or event != "return" or frame.f_code.co_name != "__enter__":
                return
            if not frame.f_code.co_filename.endswith(taken_by):
                return
            came.append(taken_by)
            strike()

        func = amorsize.parallel(abs, n_jobs=2, start_method="loky", batch_size=1)
        with pytest.raises(Limit), handling(on_signal), profiled(watch):
            list(func.imap(range(100)))
        assert came == [taken_by]
        assert func.map(range(100)) == list(range(100))

    @pytest.mark.parametrize(
        ("method", "kind"),
        [("loky", "map"), ("fork", "map"), ("loky", "imap"), ("fork", "imap"), ("forkserver", "imap")],
    )
    def test_a_limit_that_comes_as_workers_are_prepared(
        self, monkeypatch: pytest.MonkeyPatch, method: str, kind: str
    ) -> None:
        """
        Seen one time in a hundred: it came as a warning filter was pickled, or a stream flushed, and was lost.

        Where nothing is forked from the caller, a map flushes no stream.
        """
        func = amorsize.parallel(abs, n_jobs=2, start_method=method, batch_size=1)
        monkeypatch.setattr(sys, "stdout", StrikingStream())
        with pytest.raises(Limit), handling(on_signal):
            list(getattr(func, kind)(range(100)))

    def test_a_limit_that_comes_as_the_surroundings_are_read(self) -> None:
        """What cannot be pickled among them is left out, and what the program raises meanwhile is not."""
        assert _ambience._picklable(threading.Lock()) == b""
        with pytest.raises(Limit), handling(on_signal):
            _ambience._picklable(Bomb())

    def test_signals_that_are_held_come_after_the_block(self) -> None:
        """Each to the handler it was for; one that the block itself installs stays."""
        came: list[int] = []
        with handling(lambda number, _: came.append(number)):
            with _outside.signals_held():
                strike()
                strike()
                assert came == []
            assert came == [signal.SIGUSR1]  # once, as for signals in a row that Python has not looked for yet
            with _outside.signals_held():
                signal.signal(signal.SIGUSR1, on_signal)
            assert signal.getsignal(signal.SIGUSR1) is on_signal

    def test_each_signal_that_was_held_is_heard(self) -> None:
        """Also where the handler of the one before it raises; and all handlers are back."""
        came: list[int] = []

        def note(number: int, _: object) -> NoReturn:
            came.append(number)
            raise Limit

        with handling(note), handling(note, signal.SIGUSR2):
            with pytest.raises(Limit), _outside.signals_held():
                strike(signal.SIGUSR1, signal.SIGUSR2)
            assert came == [signal.SIGUSR1, signal.SIGUSR2]
            assert signal.getsignal(signal.SIGUSR1) is signal.getsignal(signal.SIGUSR2) is note

    def test_a_handler_that_replaces_itself_is_called_once(self) -> None:
        """A first Ctrl-C that ends nicely, and a second that does not."""
        came: list[int] = []

        def once(number: int, _: object) -> None:
            came.append(number)
            signal.signal(number, signal.SIG_IGN)

        with handling(once):
            with _outside.signals_held():
                strike(signal.SIGUSR1, signal.SIGUSR1)
            assert came == [signal.SIGUSR1]
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN

    def test_what_the_system_does_with_a_signal_is_as_before(self, tmp_path: Path) -> None:
        """Faulthandler's handlers stand beside Python's, and are not in its table."""
        with (tmp_path / "stacks").open("w") as stacks, handling(lambda *_: None):
            faulthandler.register(signal.SIGUSR1, file=stacks, chain=True)
            try:
                with _outside.signals_held():
                    pass
                strike()
            finally:
                faulthandler.unregister(signal.SIGUSR1)
        assert "test_outside.py" in (tmp_path / "stacks").read_text()

    @pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
    @pytest.mark.parametrize("way", ["imap", "map"])
    @pytest.mark.parametrize("when", ["before", "after_in_parent"])
    def test_a_limit_that_comes_inside_a_fork(self, when: str, way: str) -> None:
        """What a handler raised in a hook of a fork was printed and lost; its worker was not waited for."""
        program = f"""
        import os, signal, time, amorsize
        def on_signal(*_):
            raise TimeoutError
        def end_of_fork():
            if is_due:
                is_due.clear()
                signal.raise_signal(signal.SIGUSR1)
        def work(x):
            time.sleep(1e-3)
            return signal.getsignal(signal.SIGUSR1) is on_signal
        is_due = []
        os.register_at_fork({when}=end_of_fork)
        signal.signal(signal.SIGUSR1, on_signal)
        func = amorsize.parallel(work, n_jobs=3, start_method="fork", retries=1)
        assert list(func.{way}(range(50))) == [True] * 50
        is_due.append(True)
        try:
            list(func.{way}(range(50)))
        except TimeoutError:
            print("ended")
        assert signal.getsignal(signal.SIGUSR1) is on_signal
        try:
            print("left", os.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            print("none")
        """
        done = run_program(program, timeout_s=60)
        assert (done.stdout.split(), done.stderr) == (["ended", "none"], "")

    @pytest.mark.parametrize("name", ["joblib.executor", "joblib.externals.loky.backend.spawn"])
    def test_a_limit_that_comes_inside_the_import_of_joblib(self, name: str) -> None:
        """It left half of joblib behind: from then on each map on loky's workers failed with an AttributeError."""
        program = f"""
        import signal, sys, time, amorsize
        def on_signal(*_):
            raise TimeoutError
        def hook(event, args):
            if event == "import" and args[0] == {name!r} and not came:
                came.append(args[0])
                signal.raise_signal(signal.SIGTERM)
        def work(x):
            time.sleep(1e-3)
            return x
        came = []
        signal.signal(signal.SIGTERM, on_signal)
        sys.addaudithook(hook)
        func = amorsize.parallel(work, n_jobs=2, start_method="loky")
        try:
            func.map(range(20))
        except TimeoutError:
            print("ended", len(came))
        assert func.map(range(20)) == list(range(20))
        """
        done = run_program(program, timeout_s=120)
        assert (done.stdout.split(), done.stderr) == (["ended", "1"], "")

    def test_a_limit_that_comes_as_the_end_of_the_interpreter_is_looked_for(self) -> None:
        """It ended the main thread as far as ``threading`` knew: nothing was run in parallel any more."""
        n_left = 0

        def trace(frame: types.FrameType, event: str, _: object) -> Any:
            nonlocal n_left
            if event == "line" and frame.f_code.co_name == "_wait_for_tstate_lock":
                n_left -= 1
                if not n_left:
                    strike()
            return trace

        before = sys.gettrace()
        with handling(on_signal):
            for at in range(1, 8):
                n_left = at
                sys.settrace(trace)
                try:
                    with contextlib.suppress(Limit):
                        _modules.is_ending()
                finally:
                    sys.settrace(before)
        assert not _modules.is_ending()

    def test_signals_are_held_around_what_fails(self) -> None:
        """What the block raises is not lost where no signal has come, and leads to what the handler raises."""
        with handling(on_signal):
            with pytest.raises(ItemError), _outside.signals_held():
                raise ItemError
            with pytest.raises(Limit) as caught, _outside.signals_held():
                strike_and_fail()
            assert isinstance(caught.value.__context__, ItemError)
            assert signal.getsignal(signal.SIGUSR1) is on_signal

    def test_an_item_s_own_limit_is_its_failure(self) -> None:
        """A handler that the item installs, and leaves installed, is named by its function."""
        func = amorsize.parallel(limits_itself, n_jobs=2, errors="return")
        before = signal.getsignal(signal.SIGALRM)
        try:
            for _ in range(2):
                got = func.map(range(20))
                assert [type(x) if isinstance(x, Exception) else x for x in got] == [
                    Limit if i % 5 == 4 else i for i in range(20)
                ]
        finally:
            signal.signal(signal.SIGALRM, before)


def on_alarm(*_: object) -> NoReturn:
    """Be the handler of an item's own time limit."""
    raise Limit


def limits_itself(n: int) -> int:
    """Take too long now and then, by a limit of its own."""
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        time.sleep(10 if n % 5 == 4 else 0.001)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return n


class StrikingStream:
    """A standard stream; the signal comes as it is flushed."""

    def write(self, text: str) -> int:
        """Take it."""
        return len(text)

    def flush(self) -> None:
        """Let the signal come."""
        strike()


class Striking:
    """An item during whose pickling the signal comes."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        if self.value == 40:
            strike()
        return Striking, (self.value,)


def value_of(item: Striking) -> int:
    """Take a while."""
    time.sleep(0.01)
    return item.value
