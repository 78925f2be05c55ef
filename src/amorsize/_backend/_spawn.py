"""
Starts the process of the fork server, which then has what it needs imported while the caller imports its own side.

Apart from :mod:`amorsize._backend._server`, whose import takes as long as an eighth of a start.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Final

from amorsize._backend._blas import THREAD_VARIABLES

if sys.platform != "linux":
    message = "this way of starting workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    # Its process, the socket to it, and when it was started.
    Started = tuple[int, socket.socket, float]

# What the server runs: packages of ours whose own code is put off until somebody wants what it defines. Importing all
# of the library takes 0.1 s of CPU, what a worker needs of it 35 ms, 22 of them the standard library. The garbage
# collector would take 3 ms of that, and again as much of NumPy's import, and find next to nothing: workers enable it.
# The bounds of the analysis are there for a worker that imports one of its modules: asked of the package, they would
# run it, which imports that module, half done.
_BOOT: Final = """\
import gc
gc.disable()
import signal, sys
signal.signal(signal.SIGINT, lambda *_: None)
sys.path[:] = {path!r}
from importlib.util import find_spec, module_from_spec
from importlib import import_module
def put_off(name):
    spec = find_spec(name)
    module = sys.modules[name] = module_from_spec(spec)
    def get(attribute):
        if attribute.startswith("_") and not attribute.endswith("__"):
            try:
                return import_module(name + "." + attribute)
            except ModuleNotFoundError as error:
                if error.name != name + "." + attribute:
                    raise
        if attribute.endswith("__") and attribute not in ("__all__", "__version__"):
            raise AttributeError(attribute)
        if module.__dict__.pop("__getattr__", None) is not None:
            spec.loader.exec_module(module)
        return getattr(module, attribute)
    module.__getattr__ = get
put_off("amorsize")
put_off("amorsize._backend")
put_off("amorsize._analysis")
sys.modules["amorsize"]._backend = sys.modules["amorsize._backend"]
sys.modules["amorsize"]._analysis = sys.modules["amorsize._analysis"]
import amorsize._analysis.bounds
from amorsize._backend._serving import main
main({caller})
"""

_begun: list[Started] = []
_began_in: list[int] = []


def begin(threads: int) -> bool:
    """Start a server that :func:`take` returns, once in a process; returns whether one has been started."""
    if _began_in == [os.getpid()]:
        return False
    _began_in[:] = [os.getpid()]
    _begun[:] = [_spawn(threads)]
    atexit.register(_end)
    return True


def _end() -> None:
    """At the end of the program end a server that nobody has taken."""
    if _began_in == [os.getpid()] and _begun:
        pid, conn, _ = _begun.pop()
        conn.close()
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def take(threads: int) -> Started:
    """Return the server that has begun, or start one, without waiting; raises OSError if the system gives none."""
    return _begun.pop() if _began_in == [os.getpid()] and _begun else _spawn(threads)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two sockets that wait as long as it takes, whatever the program has set for its own."""
    both = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for one in both:
        one.settimeout(None)
    return both


def _spawn(threads: int) -> Started:
    ours, theirs = pair()
    try:
        from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]  # noqa: PLC0415 - 9 ms; what multiprocessing uses

        boot = _BOOT.format(path=[str(entry) for entry in sys.path], caller=os.getpid())
        env = dict.fromkeys(THREAD_VARIABLES, str(threads)) | dict(os.environ)
        command = [sys.executable, *_args_from_interpreter_flags(), "-c", boot]
        pid = os.posix_spawn(
            sys.executable,
            command,
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
            setsigmask=[signal.SIGINT],  # until it has a handler for it
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return pid, ours, perf_counter()
