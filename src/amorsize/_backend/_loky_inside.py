"""
What is asked of loky's pools, and done to them, by names that loky does not make public.

Each name has a test that fails when it goes: tests/test_private_names.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

from amorsize._backend import _bounds as bounds
from amorsize._modules import loaded
from amorsize._outside import pass_on

if TYPE_CHECKING:
    from collections.abc import Iterator

# What Python says where no thread may be started, for want of memory or at the end of the program.
_REFUSALS: Final = (
    "can't start new thread",
    "after interpreter shutdown",
    "at interpreter shutdown",
    "can't register atexit after shutdown",
)


def children() -> set[Any]:
    """Return the processes that multiprocessing waits for at the end of this one."""
    process = loaded("multiprocessing.process")
    return set() if process is None else process._children  # noqa: SLF001 - the only way that asks none of them


def kill(processes: list[Any]) -> None:
    """End loky's processes at once; their own ``terminate`` could be held up."""
    for process in processes:
        with contextlib.suppress(OSError, AttributeError):
            if not process.is_alive():
                continue
            if sys.platform == "win32":
                process.terminate()
            else:
                os.kill(process.pid, signal.SIGKILL)


class DeafError(RuntimeError):
    """Says that nobody listens to the workers any more."""


def is_deaf(executor: Any) -> bool:
    """Tell whether the thread that takes in loky's answers has ended with tasks unanswered."""
    thread = executor._executor_manager_thread  # noqa: SLF001 - no public way to ask
    if executor._flags.shutdown_lock.locked():  # noqa: SLF001 - as above
        return False  # somebody hands it a task, and may just be starting the thread
    return thread is not None and not thread.is_alive() and bool(executor._pending_work_items)  # noqa: SLF001 - as above


def is_broken(executor: Any) -> bool:
    """Tell whether loky's workers must be replaced before anything else is given to them."""
    if executor is None:
        return False
    return executor._flags.broken is not None or is_deaf(executor)  # noqa: SLF001 - no public way to ask


@contextlib.contextmanager
def flushable() -> Iterator[None]:
    """Stand in for standard streams that cannot be flushed (a daemon's), as loky does before it starts a worker."""
    replaced = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            stream.flush()
        except Exception as error:  # noqa: BLE001 - none, closed, or odd
            pass_on(error)
            replaced[name] = stream
            setattr(sys, name, io.StringIO())
    try:
        yield
    finally:
        for name, stream in replaced.items():
            setattr(sys, name, stream)


def withdraw(executor: Any) -> None:
    """
    Take back tasks that wait to be queued: told to kill its workers, loky drops them, and then looks for them.

    Of that its manager dies, and the thread that feeds the queue stays for good, which forbids forking.
    """
    waiting = executor._work_ids  # noqa: SLF001 - no public way
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.get(block=False)


def join(manager: Any, processes: list[Any]) -> None:
    """
    Wait for the thread that serves a pool which has been told to end; kill its workers where they hold it up.

    Not by ``shutdown(wait=True)``, whose wait has no bound: a lock that an asynchronous exception left taken holds that
    thread for ever.
    """
    if manager is None:
        return
    manager.join(bounds.POOL_END_S)
    if manager.is_alive():
        kill(processes)
        manager.join(bounds.POOL_END_S)


def end_feeder(tasks: Any) -> None:
    """
    End the thread that feeds the workers, where loky's manager has died before it did.

    Seen once in a run of all tests, after a time limit of the program had ended a map: it forbids forking.
    """
    thread = getattr(tasks, "_thread", None)
    if thread is not None and thread.is_alive():
        with contextlib.suppress(OSError):
            tasks.close()
        thread.join(bounds.POOL_END_S)


def end_unserved(executor: Any) -> None:
    """
    End workers that nobody serves: where the start of one is refused, loky leaves those before it without a manager.

    They would never be told to leave, and the interpreter waits for them at its end.
    """
    thread = executor._executor_manager_thread  # noqa: SLF001 - no public way
    if thread is None or not thread.is_alive():
        for process in list((executor._processes or {}).values()):  # noqa: SLF001 - as above
            process.terminate()
            process.join(bounds.POOL_END_S)


def refusal(error: BaseException) -> OSError | None:
    """
    Return the system's refusal behind what loky raises, None if it is something else.

    Where a pipe is refused, the clean-up of loky's ``Popen`` trips over a variable that has not been set yet.
    """
    if isinstance(error, UnboundLocalError) and error.__context__ is not None:
        error = error.__context__
    if isinstance(error, MemoryError) or any(words in str(error) for words in _REFUSALS):
        return OSError(f"{type(error).__name__}: {error}")
    return error if isinstance(error, OSError) else None
