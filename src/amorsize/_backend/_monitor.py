"""
tqdm's monitor: a thread that a bar starts, that outlives it, and that would forbid forking from then on.

All it does is to draw bars that are updated rarely. It is ended before a fork, as tqdm itself ends it, and the next bar
starts another one.
"""

from __future__ import annotations

import threading
from typing import Any

from amorsize._backend import _bounds as bounds
from amorsize._backend import _worker
from amorsize._modules import loaded


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
