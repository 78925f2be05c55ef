"""
What in the state of this program forbids to start interpreters or threads: its executable, its end, its patches.

Looks only at what is there already: starts nothing, imports nothing.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
from typing import Any, Final

from amorsize._modules import loaded

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
    if not _is_interpreter(path):
        return f"sys.executable is {path}, which is not a Python interpreter by its name"
    if not os.access(path, os.X_OK):
        return f"sys.executable is {path}, which cannot be run"
    return ""


@functools.cache
def _is_interpreter(path: str) -> bool:
    return _INTERPRETER.fullmatch(os.path.basename(path)) is not None


def is_ending() -> bool:
    """
    Tell whether the interpreter is on its way out: nothing may be started any more.

    So in atexit's functions, in ``__del__`` of what is left then, and in threads that outlive the main one: a thread
    that is started there may never run, and whoever waits for it hangs.
    """
    main = threading.main_thread()
    # Up to CPython 3.12 is_alive takes a thread that is alive for ended, for good, if a signal's handler raises in it.
    is_over: bool = getattr(main, "_is_stopped", False) if sys.version_info < (3, 13) else not main.is_alive()
    return sys.is_finalizing() or is_over


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
