"""
Forked workers kept for the next map of the same function, where that cannot be told apart from forking again.

    first map:  fork ──► run ──► keep, with the fingerprint of all that the function reads
    next map:   the fingerprint holds, the items are plain and small ──► the same workers, 0.2 ms instead of 2 to 3
                else ──► they are ended, and the map forks as ever

Only maps of well under a second keep their workers: for longer ones the fork does not show.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import types
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amorsize import _reach
from amorsize._backend import _fork

if sys.platform != "linux":
    message = "this way of keeping workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._backend._job import Job
    from amorsize._backend._outcome import Outcome
    from amorsize._reach import Fingerprint

# Functions whose workers are kept at once: those of one inner loop.
_MOST_TEAMS: Final = 4

# Functions of which it is remembered what they can reach.
_MOST_FINGERPRINTS: Final = 256


@dataclass(eq=False, repr=False, match_args=False)
class _Kept:
    team: _fork.Team
    func: Callable[..., Any]
    seen: Fingerprint


# A team in here is looked at and taken out with the lock held; one that has been taken out is the taker's alone.
_kept: dict[tuple[int, bool], _Kept] = {}
_lock = threading.RLock()
_pid = 0
_fingerprints: dict[int, tuple[weakref.ref[Any], Fingerprint | None]] = {}


def is_ready(func: Callable[..., Any], *, star: bool = False) -> bool:
    """Tell whether workers wait for a map of *func*; for other threads than the main one, which may fork, none do."""
    if threading.current_thread() is not threading.main_thread():
        return False
    with _lock:
        kept = _kept.get((id(func), star))
        if kept is None or kept.func is not func or _pid != os.getpid():
            return False
        return kept.team.is_ready() and kept.seen.holds()


def is_closed(func: Callable[..., Any]) -> bool:
    """Tell whether the workers of *func* could be kept."""
    return _fingerprint(func) is not None


def _fingerprint(func: Callable[..., Any]) -> Fingerprint | None:
    """Return the fingerprint of a function as it is now."""
    known = _fingerprints.get(id(func))
    if known is not None and known[0]() is func and (known[1] is None or known[1].holds()):
        return known[1]
    if len(_fingerprints) >= _MOST_FINGERPRINTS:
        _fingerprints.clear()
    found = _reach.fingerprint(func)
    if isinstance(func, types.FunctionType):
        _fingerprints[id(func)] = weakref.ref(func), found
    return found


def run(job: Job) -> Outcome:
    """
    Run a job with the workers kept for its function, or with new ones; keep them if that may be.

    Raises:
        NoWorkersError: If the system refuses to start even one worker.
        BaseException: What interrupts the caller.
    """
    func, key = job.func, (id(job.func), job.star)
    # One that is being used is nobody else's: a map may be called from inside a progress callback.
    with _lock:
        kept = _kept.pop(key, None) if _pid == os.getpid() else None
    seen: Fingerprint | None
    if kept is not None and _take_over(kept, job):
        team, seen = kept.team, kept.seen
    else:
        if kept is not None:
            kept.team.close(kill=True)
        # As of the fork, and not of the end: what a progress callback changes meanwhile, the workers do not have.
        team, seen = _fork.Team(job), _fingerprint(func)
    job.keep = None if seen is None else lambda team: _keep(key, _Kept(team, func, seen))
    return team.finish()


def _take_over(kept: _Kept, job: Job) -> bool:
    """Give a job to kept workers; False where they are others', gone, or as the function was and no longer is."""
    if kept.func is not job.func or not kept.team.is_ready(job) or not kept.seen.holds():
        return False
    data = _fork.mail(job, _reach.dumps_plain)
    if data is not None:
        kept.team.take_over(job, data)
    return data is not None


def _keep(key: tuple[int, bool], kept: _Kept) -> bool:
    """Put a team that has done its map aside; False where there is no room for it."""
    global _pid  # noqa: PLW0603 - the process that the teams belong to
    if sys.is_finalizing():
        return False
    with _lock:
        if _pid != os.getpid():
            _kept.clear()
            _pid = os.getpid()
            atexit.unregister(close)
            atexit.register(close)
        _sweep()
        if key in _kept or len(_kept) >= _MOST_TEAMS:
            return False
        _kept[key] = kept
    return True


def _sweep() -> None:
    """End the teams whose workers have left or are about to."""
    for key, kept in list(_kept.items()):
        if not kept.team.is_ready():
            del _kept[key]
            kept.team.close(kill=True)


def close() -> None:
    """End all kept workers and wait for them."""
    while _pid == os.getpid():
        with _lock:
            if not _kept:
                return
            _, kept = _kept.popitem()
        kept.team.close(kill=True)


def forget() -> None:
    """In a forked copy of the program: give back the descriptors of the parent's teams, and touch nothing else."""
    global _lock  # noqa: PLW0603 - a thread that is not in the copy may have held it
    _lock = threading.RLock()
    while _kept:
        _, kept = _kept.popitem()
        kept.team.abandon()
    _fingerprints.clear()
