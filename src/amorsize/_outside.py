"""
Tells what the program itself raises in its main thread, to end what runs there, from what an item raises.

    raised by a handler of a signal that the program has installed (a time limit, a shutdown)
    raised asynchronously into the thread (``PyThreadState_SetAsyncExc``)

Both come between two instructions of whatever runs, an item of the caller's included. They end the map as they would
end the loop; as an item's failure they would wait for the items before it, or be returned in place of a result.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal stands on, without its enums: 30 us
import contextlib
import ctypes
import functools
import itertools
import opcode
import sys
import threading
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize import _bounds as bounds
from amorsize import _function

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Handlers = dict[types.CodeType, Any]

# Instructions at which asynchronous exceptions and nothing else are raised; RESUME only where a function begins, since
# after a yield it is where ``throw`` raises.
_RESUME: Final = opcode.opmap["RESUME"]
_LOOPS: Final = frozenset(
    code for name, code in opcode.opmap.items() if name == "JUMP_BACKWARD" or name.startswith("POP_JUMP_BACKWARD_IF_")
)

# Instructions at which they are raised after a call of native code, which could have raised the same itself.
_CALLS: Final = frozenset(
    opcode.opmap[name] for name in ("PRECALL", "CALL", "CALL_KW", "CALL_FUNCTION_EX") if name in opcode.opmap
)

# CPython 3.11 compares numbers and jumps back in one instruction, which bears the name of the first.
_COMPARES: Final = opcode.opmap["COMPARE_OP"]
_CACHE: Final = opcode.opmap["CACHE"]
_RAISE: Final = opcode.opmap["RAISE_VARARGS"]

# What native code raises without arguments, as an asynchronous exception has none.
_BARE: Final = (StopIteration, StopAsyncIteration, MemoryError, RecursionError, SystemExit, GeneratorExit)
_BARE_NAMES: Final = frozenset({"CancelledError", "InvalidStateError", "Empty", "Full", "GreenletExit"})


def handlers() -> Handlers:
    """
    Return the handlers in Python that the program has for signals now, by their code: 3 us.

    None off the main thread, where none of them is called.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    functions = ((handler, _function.bare(handler)[0]) for _, handler in _installed())
    return {function.__code__: handler for handler, function in functions if function is not None}


def _installed() -> Iterator[tuple[int, Any]]:
    """Yield each signal that the program has a handler in Python for, and the handler."""
    for number in range(1, _signal.NSIG):
        try:
            handler = _signal.getsignal(number)
        except ValueError:  # a number that stands for none
            continue
        if callable(handler):
            yield number, handler


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """
    Let the program's signal handlers run after this block instead of in it: 15 us.

    For calls into libraries that take locks written in Python, as those of ``threading.Condition`` in queues and
    futures are. Such a lock is taken by a call of its ``__enter__``; what a handler raises as that call returns leaves
    the lock taken for good, and the library's other threads wait for it without end. Blocking the signals would not
    do: the system hands them to another thread, and Python runs their handlers in this one all the same.

    And for forks: what a handler raises in a hook that runs before or after one is printed and lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = _Held()
    try:
        _holding.append(held)
        held.begin()
        yield
    finally:
        held.end()
        _holding.remove(held)


def forget_held() -> None:
    """In a forked copy of the program: put the handlers back; the signals that have come were for its parent."""
    while _holding:
        _holding.pop().forget()


class _Held:
    """The handlers of the program, and the signals that have come since they were put aside."""

    __slots__ = ("_actions", "_came", "_is_over", "_theirs")

    def __init__(self) -> None:
        self._theirs: dict[int, Any] = {}
        self._actions: dict[int, Any] = {}
        self._came: dict[int, None] = {}  # each once, as Python itself calls a handler once for signals in a row
        self._is_over = False

    def begin(self) -> None:
        for number, handler in _installed():
            self._actions[number] = _action(number)
            self._theirs[number] = handler
            _signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        if self._is_over:  # it came as the handlers were being put back
            self._theirs[number](number, frame)
        else:
            self._came[number] = None

    def end(self) -> None:
        """Put the handlers back, and call those whose signals have come."""
        self._is_over = True
        try:
            self._put_back(list(self._theirs.items()))
        finally:
            self._deliver()

    def forget(self) -> None:
        """Put the handlers back, and call none."""
        self._came.clear()
        self.end()

    def _put_back(self, left: list[tuple[int, Any]]) -> None:
        """Put all of them back, also where one that is back already is called meanwhile, and raises."""
        try:
            while left:
                number, handler = left[-1]
                if _signal.getsignal(number) == self._note:  # what the block itself has set stays
                    _signal.signal(number, handler)
                    _act(number, self._actions[number])
                left.pop()
        except BaseException:
            self._put_back(left)
            raise

    def _deliver(self) -> None:
        """Call the handlers there are now, one after the other, also where one of them raises, or replaces itself."""
        while self._came:
            number = next(iter(self._came))
            del self._came[number]
            handler = _signal.getsignal(number)
            try:
                if callable(handler):
                    handler(number, sys._getframe())  # noqa: SLF001 - what a handler is given
            except BaseException:
                self._deliver()
                raise


# Those whose block is being run, the innermost last.
_holding: Final[list[_Held]] = []

# Bytes that hold a struct sigaction anywhere: 152 on Linux, 16 on macOS.
_ACTION_BYTES: Final = 512


@functools.cache
def _sigaction() -> Any:
    """Return the system's sigaction, None where there is none."""
    try:
        return ctypes.CDLL(None).sigaction
    except (OSError, AttributeError, TypeError):  # the last on Windows
        return None


def _action(number: int) -> Any:
    """Return what the system does with a signal: faulthandler's own handlers and flags are not in Python's table."""
    sigaction = _sigaction()
    if sigaction is None:
        return None
    action = ctypes.create_string_buffer(_ACTION_BYTES)
    return action if sigaction(number, None, action) == 0 else None


def _act(number: int, action: Any) -> None:
    """Have the system do that again."""
    if action is not None:
        _sigaction()(number, action, None)


def is_outside(error: BaseException, known: Handlers | None = None, func: Callable[..., Any] | None = None) -> bool:
    """
    Tell whether the program has raised *error*, or what led to it, in the middle of what ran here.

    *known* are the handlers as an item found them; without, those of now, and whatever was called like one. A handler
    that *func*, the item's function, names is for a time limit of its own.
    """
    if isinstance(error, KeyboardInterrupt):
        return True
    frames = {entry.tb_frame for entry in _entries(error)}
    todo, n_seen = [error], 0
    while todo and n_seen < bounds.MOST_CAUSES:
        n_seen += 1
        link = todo.pop()
        entries = list(_entries(link))
        # What an except clause further out was handling as the map was called led to nothing here.
        if not entries or entries[0].tb_frame not in frames:
            continue
        if _is_by_handler(entries, known, func) or _is_asynchronous(link, entries[-1]):
            return True
        todo += [cause for cause in (link.__cause__, link.__context__) if cause is not None]
    return False


def pass_on(error: BaseException) -> None:
    """Raise *error* again if it is the program's own and not that of what has been tried."""
    if is_outside(error):
        raise error


@contextlib.contextmanager
def suppressed() -> Iterator[None]:
    """Suppress what objects of anybody raise as they are looked at, but not what the program raises meanwhile."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - objects raise anything
        pass_on(error)


def _entries(error: BaseException) -> Iterator[types.TracebackType]:
    entry = error.__traceback__
    while entry is not None:
        yield entry
        entry = entry.tb_next


def _is_by_handler(entries: list[types.TracebackType], known: Handlers | None, func: Callable[..., Any] | None) -> bool:
    if known is None:
        known = handlers()
        # A handler that has uninstalled itself: it was called with the frame that it interrupted.
        if any(_is_given(later.tb_frame, entry.tb_frame) for entry, later in itertools.pairwise(entries)):
            return True
    codes = [entry.tb_frame.f_code for entry in entries]
    return any(code in known and not _names(func, known[code]) for code in codes)


def _is_given(frame: types.FrameType, interrupted: types.FrameType) -> bool:
    """Tell whether a frame has the one that it interrupted among its arguments."""
    code = frame.f_code
    n_names = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
    values = [frame.f_locals.get(name) for name in code.co_varnames[:n_names]]
    values += [part for value in values if type(value) is tuple for part in value]
    return any(value is interrupted for value in values)


def _names(func: Callable[..., Any] | None, handler: Any) -> bool:
    """Tell whether the function of an item, or a helper of its module, names a handler: it installs it for itself."""
    wanted, _ = _function.bare(handler)
    found = None if func is None else _function.bare(func)[0]
    if found is None or wanted is None:
        return False
    seen, todo = {found}, [found]
    while todo:
        for value in _function.named_values(todo.pop()).values():
            inner = _function.bare(value)[0] if callable(value) else None
            if inner is None or inner in seen or inner.__module__ != found.__module__:
                continue
            seen.add(inner)
            todo.append(inner)
    return wanted.__code__ in {function.__code__ for function in seen - {found}}


def _is_asynchronous(error: BaseException, innermost: types.TracebackType) -> bool:
    """Tell whether an exception was raised at an instruction that does not raise it by itself."""
    code, at = innermost.tb_frame.f_code.co_code, innermost.tb_lasti
    if not 0 <= at < len(code) - 1 or isinstance(error, RecursionError | MemoryError):
        return False
    opcode, argument = code[at], code[at + 1]
    if opcode in _LOOPS:
        return True
    if opcode == _RESUME:
        # Native code that shows a line of its source has a frame with nothing in it.
        return not argument & 3 and _RAISE not in code[at : at + 8 : 2]
    is_joined = opcode == _COMPARES and next((op for op in code[at + 2 :: 2] if op != _CACHE), -1) in _LOOPS
    return (is_joined or opcode in _CALLS) and not error.args and not _may_be_native(type(error))


def _may_be_native(kind: type[BaseException]) -> bool:
    """Tell whether native code may raise an exception of this kind without arguments."""
    if issubclass(kind, _BARE) or kind.__name__ in _BARE_NAMES:
        return True
    if kind.__module__ in {"builtins", "__main__"}:
        return False
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    return not file.endswith((".py", ".pyc"))
