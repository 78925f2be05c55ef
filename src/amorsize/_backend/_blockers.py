"""
What forbids a backend now: why no process may be forked, no fork server or loky be used, no thread be started.

Asked by the adapter before a decision, before a fork in mid-run, and by joblib's backend. Starts nothing, and imports
nothing that starts something; an empty answer means that the backend can be used.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import known_dependencies
from amorsize._backend import _blas, _local, _threads, _worker
from amorsize._backend import _bounds as bounds
from amorsize._modules import is_ending, loaded
from amorsize._records import FORK, FORKSERVER, LOKY, THREADS

if TYPE_CHECKING:
    from collections.abc import Callable


def blockers(func: Callable[..., Any], prefer: str | None = None, start_method: str | None = None) -> dict[str, str]:
    """
    Return why a backend that exists cannot be used for *func* now, by backend name.

    With ``prefer="threads"`` only what forbids threads is looked for; with ``start_method="fork"``, which is an order,
    not what the function can reach; and loky is looked at only where it is asked for, or there is no fork server.
    """
    reasons = {THREADS: thread_blocker()}
    if prefer != "threads":
        reasons[FORK] = process_blocker() or ("" if start_method == FORK else function_blocker(func))
        no_interpreters = executable_blocker() or patched_by()
        reasons[FORKSERVER] = _server_blocker(no_interpreters)
        if reasons[FORKSERVER] or start_method == LOKY:
            reasons[LOKY] = _loky_blocker(no_interpreters)
    return {name: reason for name, reason in reasons.items() if reason}


def server_blocker() -> str:
    """Return why no fork server can be used now; empty if one can."""
    return _server_blocker(executable_blocker() or patched_by())


def _server_blocker(no_interpreters: str) -> str:
    if sys.platform != "linux" or not hasattr(os, "posix_spawn"):
        return "the fork server is only used on Linux"
    if is_ending():
        return "the interpreter is shutting down"
    server = if_used("_server")
    return no_interpreters or ("" if server is None else str(server.SERVER.refusal))


def _loky_blocker(no_interpreters: str) -> str:
    if sys.platform == "emscripten":
        return "this platform has no processes"
    if is_ending():  # no thread may be started any more
        return "the interpreter is shutting down"
    if reason := _forbidden() or no_interpreters:
        return reason
    if problem := _semaphores():
        return problem
    process = loaded("multiprocessing.process")
    if process is not None and process.current_process().daemon:
        return "daemonic processes may not have children"
    return ""


def _forbidden() -> str:
    """Say which variable of the environment forbids joblib's processes, or its import."""
    for name in ("JOBLIB_MULTIPROCESSING", "LOKY_MAX_DEPTH"):
        value = os.environ.get(name, "1")
        try:
            is_off = int(value) == 0 and name == "JOBLIB_MULTIPROCESSING"
        except ValueError:
            return f"{name}={value!r} is not a number, and joblib cannot be imported"
        if is_off:
            return "JOBLIB_MULTIPROCESSING=0"
    return ""


@functools.cache
def _semaphores() -> str:
    """Return why named semaphores are not available, empty if they are; tried once."""
    try:
        import _multiprocessing  # type: ignore[import-not-found]  # noqa: PLC0415 - absent on some builds

        name = f"/amorsize-{os.getpid()}-{os.urandom(4).hex()}"
        lock = _multiprocessing.SemLock(0, 1, 1, name, True)
        del lock
    except (ImportError, OSError, AttributeError) as error:
        return f"there are no semaphores: {error}"
    return ""


def process_blocker() -> str:
    """Return why this process must not be forked now, whatever the function; empty if it may be."""
    if sys.platform != "linux" or not hasattr(os, "fork"):
        return "fork is only used on Linux"
    if is_ending():
        return "the interpreter is shutting down"
    if threading.current_thread() is not threading.main_thread():
        return "not called from the main thread"
    if threading.active_count() == 1:
        return _blas.foreign_threads()
    # Our own idle threads end before a fork, and so does the one that draws tqdm's bars.
    return _blas.foreign_threads(_local.LOKY.threads() | _threads.waiting_threads() | monitors())


def function_blocker(func: Callable[..., Any]) -> str:
    """Return why *func* must not be forked: what it can reach and is not known to be safe; empty if it may be."""
    names = known_dependencies(func).open_names
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"the function can reach {', '.join(names[:3])}{more}, which is not known to be safe in a forked copy"


def if_used(name: str) -> Any:
    """Return a module of this package; None where it has never been imported, so that nothing of it runs."""
    return loaded(f"{__package__}.{name}")


# -- the program's executable, and its patches -------------------------------------------------------------------------


# File names of interpreters: python3.13t, pythonw.exe, Python (of macOS's framework), pypy3.11, .python3-wrapped (Nix).
_INTERPRETER: Final = re.compile(r"\.?(python|pypy|graalpy)w?[\d.]*[a-z]{0,2}(-\w+)?(\.exe)?", re.IGNORECASE)


def executable_blocker() -> str:
    """
    Say why no interpreter can be started with ``sys.executable``; empty where one can.

    A frozen program, and most programs that embed Python, name themselves there: to start "an interpreter" would be to
    start the whole program again. What a file does cannot be asked without running it, so its name decides.
    """
    if getattr(sys, "frozen", False):
        return "the program is frozen: its executable is not a Python interpreter"
    path: Any = sys.executable
    if not path or not isinstance(path, str):
        return f"sys.executable is {path!r}, so no interpreter can be started"
    return _file_blocker(path)


@functools.cache
def _file_blocker(path: str) -> str:
    if _INTERPRETER.fullmatch(os.path.basename(path)) is None:
        return f"sys.executable is {path}, which is not a Python interpreter by its name"
    return "" if os.access(path, os.X_OK) else f"sys.executable is {path}, which cannot be run"


def thread_blocker() -> str:
    """Say why no thread can be used now; empty where one can."""
    if sys.platform == "emscripten":
        return "this platform has no threads"
    return "the interpreter is shutting down" if is_ending() else ""


# What loky and the fork server wait with, and what runs beside the caller meanwhile.
_NEEDED: Final = frozenset({"_thread", "threading", "select", "selectors", "socket"})


def patched_by() -> str:
    """
    Say what has replaced the threads, sockets or polls of the standard library; empty where nothing has.

    loky's threads would be gevent's greenlets then: they run when the program waits for something, and at its end
    nobody does, so that it would not end. And what waits for the fork server would wait for ever.
    """
    gevent, eventlet = loaded("gevent.monkey"), loaded("eventlet.patcher")
    found = _NEEDED & set(getattr(gevent, "saved", None) or ())
    if found:
        return f"gevent has replaced {', '.join(sorted(found))}"
    if eventlet is not None and any(eventlet.is_monkey_patched(name) for name in ("thread", "socket", "select")):
        return "eventlet has replaced threads or sockets"
    return ""


# -- tqdm's monitor ----------------------------------------------------------------------------------------------------


# A thread that a bar starts, and that outlives it, would forbid forking from then on. All it does is to draw bars that
# are updated rarely: it is ended before a fork, as tqdm itself ends it, and the next bar starts another one.


def monitors() -> frozenset[threading.Thread]:
    """Return the monitors that are alive."""
    kind: Any = getattr(loaded("tqdm._monitor"), "TMonitor", None)
    if kind is None:
        return frozenset()
    return frozenset(thread for thread in threading.enumerate() if type(thread) is kind)


def end_monitors() -> None:
    """End them."""
    for thread in monitors():
        monitor: Any = thread
        monitor.was_killed.set()
        monitor.join(bounds.THREADS_END_S)


_worker.BEFORE_FORK.append(end_monitors)
