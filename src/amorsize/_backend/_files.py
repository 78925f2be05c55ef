"""
Files that a caller shares with its workers: gone with their owner, at the end of the program, and after its death.

The last is loky's resource tracker's work, a process of its own that outlives a caller that is killed. It runs for
loky's semaphores anyway, and only loky's workers are given files.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

# After multiprocessing has joined the program's children, which may still read: its own temporary folders go then too.
_EXIT_PRIORITY = -100


def make() -> tuple[int, str]:
    """Return the descriptor and the path of a new file; the caller of this function holds interrupts back."""
    import tempfile  # noqa: PLC0415 - 4 ms of the fork server's start, which makes none

    return tempfile.mkstemp(prefix="amorsize-")


def removing(owner: object, path: str) -> None:
    """
    Have a file removed when *owner* is collected, by :func:`remove`, or at exit; in this process only.

    By a finalizer of multiprocessing, not of weakref: a child of multiprocessing leaves without running the others.
    """
    import multiprocessing.util  # noqa: PLC0415 - 11 ms; packing a function for a look does not need it

    # Without a tracker (the system gives no process) only a killed caller leaves the file behind.
    with contextlib.suppress(OSError):
        _tracker().register(path, "file")
    _finalizers[path] = multiprocessing.util.Finalize(owner, _unlink, (path,), exitpriority=_EXIT_PRIORITY)


def remove(path: str) -> None:
    """Remove a file now, if it is this process's own and still there: a finalizer does nothing in a forked copy."""
    if (finalizer := _finalizers.pop(path, None)) is not None:
        finalizer()


_finalizers: dict[str, Any] = {}


def _unlink(path: str) -> None:
    _finalizers.pop(path, None)
    with contextlib.suppress(OSError):
        os.unlink(path)
    # Collected while the tracker is being asked for something else, it refuses: it then removes what is not there.
    with contextlib.suppress(OSError, RuntimeError):
        _tracker().unregister(path, "file")


def _tracker() -> Any:
    from joblib.externals.loky.backend import resource_tracker  # noqa: PLC0415 - 30 to 250 ms, with joblib

    return resource_tracker
