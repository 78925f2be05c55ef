"""Forked processes, one by one: starting, settling in, ending, and writing whole messages. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import select
import signal
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

from amorsize._backend import _worker
from amorsize._backend._worker import no_interrupt
from amorsize._outside import signals_held, suppressed

if sys.platform != "linux":
    raise ImportError("this way of starting workers is for Linux; nothing imports it elsewhere")

if TYPE_CHECKING:
    from collections.abc import Iterator

# From linux/prctl.h: the signal a process gets when the thread that forked it ends.
_PR_SET_PDEATHSIG: Final = 1


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let nothing that the program raises come between a fork and the note of its process, or of its end: 20 us."""
    with no_interrupt(), signals_held():
        yield


def flush_streams() -> None:
    """Write out what is buffered, which each fork would write too."""
    for stream in (sys.stdout, sys.stderr):
        with suppressed():  # closed or odd streams are the user's business
            stream.flush()


def fork() -> int:
    """
    Fork without CPython 3.12's warning about threads.

    The caller has made sure that there are none but OpenBLAS's, which stop themselves for the fork.
    """
    for end in _worker.BEFORE_FORK:
        end()
    _prctl()  # looked up here, not in each worker
    if sys.version_info < (3, 12):
        return os.fork()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def prepare() -> None:
    """Look up what forks need, so that each of them need not."""
    _prctl()


@functools.cache
def _prctl() -> Any:
    """Return the system's prctl, None where there is none."""
    try:
        return ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None


def settle(parent: int) -> None:
    """Make a fresh fork a worker: ends with its parent, signals, garbage collector, flag."""
    if (prctl := _prctl()) is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGVTALRM):
        signal.signal(number, signal.SIG_DFL)
    # What exists now is never looked at by the collector again, so its pages stay shared with the caller.
    gc.freeze()
    _worker.mark_worker()
    os.environ["LOKY_MAX_CPU_COUNT"] = "1"


def pidfd(pid: int) -> int:
    """Return a descriptor that becomes readable when the process ends, -1 on kernels without."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return -1


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def reap(pid: int) -> int | None:
    """Wait for a process; returns its wait status, None if somebody else has (the system, without SIGCHLD)."""
    while True:
        try:
            return os.waitpid(pid, 0)[1]
        except InterruptedError:
            continue
        except ChildProcessError:
            return None


def write_all(fd: int, head: bytes, data: bytes) -> None:
    """Write both parts whole."""
    if len(head) + len(data) <= select.PIPE_BUF:
        os.write(fd, head + data)
        return
    written = os.writev(fd, [head, data])
    if written < len(head):
        os.write(fd, head[written:])
        written = len(head)
    view = memoryview(data)[written - len(head) :]
    while view:
        view = view[os.write(fd, view) :]


def report() -> None:
    """Print the exception that ends a worker, as an uncaught one is printed."""
    kind, error, trace = sys.exc_info()
    if kind is not None and error is not None:
        sys.excepthook(kind, error, trace)
