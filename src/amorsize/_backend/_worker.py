"""
What runs inside a worker, whatever kind it is: a block of items, errors as values, results as bytes.

Imports little besides the standard library and amorsize's exceptions, so that a fresh worker is ready at once.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amorsize import _outside, _trace
from amorsize import _pace as pace
from amorsize._backend import _pickles
from amorsize._bounds import CHECK_S
from amorsize.exceptions import RemoteError, UnpicklableResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Failure = tuple[int, BaseException]

clock = time.perf_counter

_in_worker = False
_threads = threading.local()


class _Missing:
    """Stands for a result that is not there yet."""

    def __repr__(self) -> str:
        return "<missing>"


MISSING: Final = _Missing()


def mark_worker() -> None:
    """Remember that this process is a worker: calls of map in it are serial, and Ctrl-C is the caller's to handle."""
    global _in_worker  # noqa: PLW0603 - set once per worker process
    if _in_worker:
        return
    _in_worker = True
    if threading.current_thread() is threading.main_thread():
        # A handler that does nothing, not SIG_IGN: programs the user's function starts must not inherit deafness.
        signal.signal(signal.SIGINT, lambda *_: None)
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


# What ends this package's own idle threads: no fork is made beside them.
BEFORE_FORK: Final[list[Callable[[], None]]] = []


@contextlib.contextmanager
def no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back for a few instructions, so that no process or descriptor is forgotten between two of them."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
    else:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_worker() -> bool:
    """Tell whether this process or thread is one of amorsize's workers."""
    return _in_worker or getattr(_threads, "is_worker", False)


class NoWorkersError(OSError):
    """The system gave not even one worker; no item has been begun."""


class UnsendableFunctionError(NoWorkersError):
    """The function, or what it holds, cannot be pickled, so no worker can have it; no item has been begun."""


class StaleCode(Exception):  # noqa: N818 - a signal between worker and caller
    """Tells the caller that the worker's module holds other code than the caller's."""


class Overrun(BaseException):
    """Ends a block from within: its item took too long, or nobody wants the results any more."""


class RemoteTraceback(Exception):  # noqa: N818 - the name concurrent.futures and multiprocessing use
    """Carries a worker's traceback as text; it is the ``__cause__`` of what the worker raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def run_block(
    call: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    keep_going: bool,
    is_outside: Callable[[BaseException], bool] | None = None,
) -> tuple[list[Any], list[Failure]]:
    """
    Apply *call* to neighbouring items; returns the results, and the failures as (position in the block, exception).

    A failed item has the exception for its result. Without *keep_going* the block ends with the first failure. What
    *is_outside* tells not to be the item's is raised at once.
    """
    results: list[Any] = []
    failures: list[Failure] = []
    append = results.append
    todo = iter(items)
    while True:
        try:
            for item in todo:
                append(call(item))
        except BaseException as error:  # SystemExit and the like travel home as the loop would raise them
            if is_outside is not None and is_outside(error):
                raise
            failures.append((len(results), error))
            append(error)
            if keep_going and isinstance(error, Exception):
                continue
        return results, failures


def run_quantum(
    call: Callable[[Any], Any],
    items: Sequence[Any],
    quantum_s: float,
    block: int,
    *,
    keep_going: bool,
    look_s: float = 2 * CHECK_S,
    tell: Callable[[int], None] | None = None,
) -> tuple[list[Any], list[tuple[int, BaseException]]]:
    """Run items, at least one, until they are done or *quantum_s* is nearly over; every *look_s* looks at the clock."""
    quantum = pace.Quantum(quantum_s, block, look_s)
    results: list[Any] = []
    failures: list[tuple[int, BaseException]] = []
    begin = now = clock()
    while len(results) < len(items) and quantum.goes_on(len(results), now - begin):
        part = items[len(results) : len(results) + quantum.block]
        if tell is not None:
            tell(len(results) + len(part))
        done, failed = run_block(call, part, keep_going=keep_going)
        failures += [(len(results) + position, error) for position, error in failed]
        results += done
        if failed and not (keep_going and all(isinstance(e, Exception) for _, e in failed)):
            break
        before, now = now, clock()
        quantum.ran(now - before)
    return results, failures


def prepared(call: Callable[[Any], Any], initialize: Callable[[], None] | None) -> Callable[[Any], Any]:
    """Initialize a forked worker; returns *call*, or what fails each item with what the initializer raised."""
    if initialize is None:
        return call
    try:
        initialize()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit too travels home as the item's, as from loky's workers
        failed, where = error, error.__traceback__

        def fail(_: Any) -> Any:
            raise failed.with_traceback(where)

        return fail
    return call


class Boxed(NamedTuple):
    """
    An exception that only pickles by value, closed until the caller opens it.

    Attributes:
        data: The exception, by value.
        instead: What arrives where it cannot be opened.
    """

    data: bytes
    instead: RemoteError


Packed = tuple["BaseException | Boxed", str]


def pack_error(error: BaseException, index: int) -> Packed:
    """
    Make an exception fit to travel, boxed where its class has no name to be found by; with its traceback as text.

    Itself where it survives pickling, else without what does not; the last resort says its type, text and traceback.
    """
    # What the exception's own code raises, SystemExit included, must not end the worker: its neighbours travel too.
    text = ""
    with contextlib.suppress(BaseException):
        _trace.trim(error, keep_last=True)
        text = "".join(traceback.format_exception(error))
    # Both ways through the pickle: exceptions are known for going in and not coming out.
    with contextlib.suppress(BaseException):
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error, text
    instead = _described(error, index)
    with contextlib.suppress(BaseException):
        for sent in (error, _Parts(error)):
            with contextlib.suppress(BaseException):
                data = _pickles.dumps_error(sent)
                opened = pickle.loads(data)
                if type(opened) is type(error) and str(opened) == str(error):
                    return Boxed(data, instead), text
    return instead, text


class _Parts:
    """
    Pickles an exception as its class, its arguments and those attributes that can be pickled.

    For a class whose ``__init__`` takes other arguments than it hands on, and for one that holds a lock or a response:
    whoever catches it by its class still does.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> Any:
        state = {}
        for name, value in vars(self._error).items():
            with contextlib.suppress(Exception):
                pickle.loads(pickle.dumps(value))
                state[name] = value
        return _put_together, (type(self._error), self._error.args, state)


def _put_together(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """Make an exception without calling its ``__init__``."""
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


def _described(error: BaseException, index: int) -> RemoteError:
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    try:
        words = str(error)
    except BaseException:  # noqa: BLE001 - a broken __str__ must not hide the error
        words = "<no text>"
    return RemoteError(f"item {index} raised {kind}, which cannot be pickled: {words}", index)


def unpack_error(packed: Packed) -> BaseException:
    """Give an exception from a worker its traceback as the cause."""
    closed, text = packed
    if isinstance(closed, Boxed):
        try:
            error: BaseException = pickle.loads(closed.data)
        except Exception:  # noqa: BLE001 - what a class needs may be missing here; its description is not
            error = closed.instead
    else:
        error = closed
    if text:
        with contextlib.suppress(Exception):  # a frozen dataclass takes none
            error.__cause__ = RemoteTraceback(text)
    return error


def pack(results: list[Any], failures: Sequence[Failure], start: int, dumps: Callable[[Any], Any]) -> Any:
    """
    Pickle results and failures for the way home, with *dumps*.

    A result that cannot be pickled becomes an :class:`UnpicklableResult` at its index; the others are kept.
    """
    packed: list[tuple[int, BaseException | Boxed, str]] = [
        (position, *pack_error(error, start + position)) for position, error in failures
    ]
    for position, _ in failures:
        results[position] = None
    try:
        return dumps((results, packed))
    except BaseException:  # noqa: BLE001, S110 - objects raise anything when pickled; find out which one it was
        pass
    for position, result in enumerate(results):
        try:
            dumps(result)
        except BaseException as error:  # noqa: BLE001 - as above
            kind = type(result).__qualname__
            message = (
                f"the result of item {start + position} ({kind}) cannot be pickled: {type(error).__name__}: {error}"
            )
            results[position] = None
            packed.append((position, UnpicklableResult(message, start + position), ""))
    try:
        return dumps((results, packed))
    except BaseException as error:  # noqa: BLE001 - one that can be pickled now and then, or not beside the others
        for position in set(range(len(results))) - {position for position, *_ in packed}:
            message = f"the result of item {start + position} cannot be pickled: {type(error).__name__}: {error}"
            results[position] = None
            packed.append((position, UnpicklableResult(message, start + position), ""))
        return dumps((results, packed))


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """
    Hold the garbage collector back while many objects are made of which none is garbage.

    60,000 small dictionaries were unpickled in 60 ms with it, in 28 without.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def writable(buffers: Sequence[Any]) -> list[Any]:
    """Return the buffers of arrays, with copies of those that cannot be written to: arrays of a loop can."""
    return [bytearray(buffer) if memoryview(buffer).readonly else buffer for buffer in buffers]


def unpack(
    data: Any, buffers: Sequence[Any] = (), *, start: int, apart: bool = False
) -> tuple[list[Any], list[Failure]]:
    """
    Undo :func:`pack`; *buffers* that came beside the pickle become those of the results, which can be written to.

    Those that cannot are the engine's and are copied. With *apart* all are: the others are often pieces of one message,
    which one kept result would keep alive. A result that does not open again becomes an :class:`UnpicklableResult` at
    its index, counted from *start*.
    """
    own = [bytearray(buffer) for buffer in buffers] if apart else writable(buffers)
    failures: list[Failure] = []
    try:
        with no_collection():
            results, packed = _pickles.loads(data, own)
    except Exception as problem:  # noqa: BLE001 - objects raise anything when they are made
        _outside.pass_on(problem)
        results, packed = _unpack_others(data, own, start, failures)
    for position, error, text in packed:
        failure = unpack_error((error, text))
        results[position] = failure
        failures.append((position, failure))
    return results, failures


def _unpack_others(data: Any, buffers: Sequence[Any], start: int, failures: list[Failure]) -> tuple[list[Any], Any]:
    """Open what can be opened."""
    (results, packed), trouble = _pickles.opened(data, buffers, _pickles.pickler())
    for position, result in enumerate(results):
        if (cause := trouble(result)) is not None:
            message = f"the result of item {start + position} cannot be unpickled: {type(cause).__name__}: {cause}"
            results[position] = failure = UnpicklableResult(message, start + position)
            failure.__cause__ = cause
            failures.append((position, failure))
    errors = []
    for position, error, text in packed:
        cause = trouble(error)
        if cause is not None:
            message = f"item {start + position} raised an exception that cannot be unpickled: {cause}"
            error = RemoteError(message, start + position)  # noqa: PLW2901 - in its place
        errors.append((position, error, text))
    return results, errors


def cut(items: Any, start: int, stop: int) -> Any:
    """Return neighbouring items; raises RuntimeError if some are gone, as when a dictionary changes under its loop."""
    part = items[start:stop]
    if len(part) != stop - start:
        message = f"the input became shorter while it was mapped: it has {len(items)} items, item {stop - 1} is gone"
        raise RuntimeError(message)
    return part


def reseed() -> None:
    """Give NumPy's global generator fresh numbers; a forked process starts with a copy of its parent's state."""
    if (random := sys.modules.get("numpy.random")) is not None:
        random.seed(int.from_bytes(os.urandom(4), "little"))


@contextlib.contextmanager
def nested_thread() -> Iterator[None]:
    """Mark this thread as a worker while it runs items: calls of map in it are serial."""
    before = getattr(_threads, "is_worker", False)
    _threads.is_worker = True
    try:
        yield
    finally:
        _threads.is_worker = before


def make_call(function: Callable[..., Any], *, star: bool, kwargs: dict[str, Any] | None) -> Callable[[Any], Any]:
    """Return the function of one item: the function itself where nothing needs unpacking."""
    if not star and not kwargs:
        return function
    if not star:
        return lambda item: function(item, **kwargs)  # type: ignore[arg-type]  # not None here
    if not kwargs:
        return lambda item: function(*item)
    return lambda item: function(*item, **kwargs)
