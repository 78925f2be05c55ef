"""
Starts workers while the very first item of an unknown function is still running.

A timer signal is delivered to the main thread between two bytecodes of the item. There, with no other thread alive, a
fork is as safe as one made by the item itself would be, with one exception: what the interrupted frames hold. A
half-done import and a lock taken in a ``with`` block would stay so for ever in the worker, so the stack is looked at
first, and where it holds such a frame the timer tries again later. Threads are started under the same condition: to
start one takes locks of :mod:`threading` that the item may hold.

Not possible while the item is in native code that does not return to the interpreter.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterator

_WITH: Final = frozenset(
    dis.opmap[name] for name in ("BEFORE_WITH", "LOAD_SPECIAL", "BEFORE_ASYNC_WITH", "SETUP_WITH") if name in dis.opmap
)


@functools.lru_cache(maxsize=256)
def _may_hold_a_lock(code: types.CodeType) -> bool:
    """Tell whether a frame of this code could be inside a ``with`` block, between acquire and release, or an import."""
    if code.co_filename.startswith("<frozen importlib"):
        return True
    if "acquire" in code.co_names or "__enter__" in code.co_names:
        return True
    return any(code.co_code[i] in _WITH for i in range(0, len(code.co_code), 2))


def is_clean(frame: types.FrameType | None, bottom: types.CodeType) -> bool:
    """Tell whether no frame above the one running *bottom* may hold what a fork must not copy."""
    while frame is not None and frame.f_code is not bottom:
        if _may_hold_a_lock(frame.f_code):
            return False
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def watching(start: Callable[[], float], bottom: types.CodeType, after_s: float) -> Iterator[None]:
    """
    Call *start* from a signal handler once the block has run for *after_s* seconds, unless something forbids it.

    Args:
        start: Starts workers; returns the seconds until it is to be called again, 0 if it has done all it has to.
        bottom: The code whose frame is the first of the caller's own; frames above it are the item's.
        after_s: Seconds that the item must have run; doubled where the stack forbids it, and again each time.
    """
    timer = _free_timer()
    if timer is None:
        yield
        return
    which, number = timer
    delay_s = after_s
    pid = os.getpid()
    is_over = False

    def handler(_: int, frame: types.FrameType | None) -> None:
        nonlocal delay_s
        if is_over or os.getpid() != pid:
            return
        if is_clean(frame, bottom):
            signal.setitimer(which, start())
        else:
            delay_s *= 2
            signal.setitimer(which, delay_s)

    signal.signal(number, handler)
    signal.setitimer(which, after_s)
    try:
        yield
    finally:
        # A signal that has come and is not handled yet must not set the timer again: it would then end the process.
        is_over = True
        # If the item has set an alarm of its own, that one is left alone.
        if signal.getsignal(number) is handler:
            signal.setitimer(which, 0)
            signal.signal(number, signal.SIG_IGN)  # forgets one on its way
            signal.signal(number, signal.SIG_DFL)


def _free_timer() -> tuple[Any, Any] | None:
    """Return a timer and its signal that nobody uses; the one of wall time first, since items may wait."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return None
    for which, number in ((signal.ITIMER_REAL, signal.SIGALRM), (signal.ITIMER_VIRTUAL, signal.SIGVTALRM)):
        if signal.getsignal(number) is signal.SIG_DFL and signal.getitimer(which)[0] == 0:
            return which, number
    return None
