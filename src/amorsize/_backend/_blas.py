"""Finds the thread pools of numerical libraries in this process, counts their threads, and sets their share."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The variables that libraries read when they are first loaded; the list that loky sets in its workers.
THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

# Suffixes and prefixes under which builds of OpenBLAS export its functions (those of NumPy's and SciPy's wheels first).
_OPENBLAS_NAMES: Final = (
    "scipy_openblas_{}64_",
    "scipy_openblas_{}",
    "openblas_{}64_",
    "openblas_{}",
)

_LIBRARIES: Final = re.compile(rb" (/[^\n]*/[^\n/]*(?:openblas|libgomp|libiomp|libomp|mkl_rt)[^\n/]*\.so[^\n/]*)")

# Seconds in which a thread that has been joined is gone: one of twenty was still there after joining, 5 ms at most.
_ENDING_S: Final = 0.01

# Threads that were still there after that.
_stayed = 0

_found: tuple[int, list[str]] = (-1, [])
_functions: dict[tuple[str, str], Callable[..., int] | None] = {}


def _libraries() -> list[str]:
    """Return the loaded libraries that keep threads; looked up again only when modules have been imported since."""
    global _found  # noqa: PLW0603 - a cache of one tuple, replaced in one statement
    n_modules = len(sys.modules)
    if _found[0] != n_modules:
        paths: set[str] = set()
        with contextlib.suppress(OSError), open("/proc/self/maps", "rb") as file:
            paths = {path.decode(errors="replace") for path in _LIBRARIES.findall(file.read())}
        _found = (n_modules, sorted(paths))
    return _found[1]


def _function(path: str, *names: str) -> Callable[..., int] | None:
    """Return the first of *names* that a loaded library exports."""
    key = (path, names[0])
    if key not in _functions:
        _functions[key] = None
        with contextlib.suppress(OSError):
            library: Any = ctypes.CDLL(path)
            for name in names:
                if hasattr(library, name):
                    _functions[key] = getattr(library, name)
                    break
    return _functions[key]


def _openblas(path: str, verb: str) -> Callable[..., int] | None:
    return _function(path, *(name.format(verb) for name in _OPENBLAS_NAMES))


def idle_threads() -> int:
    """Return how many threads the loaded OpenBLAS libraries keep beside the main one when they are not stopped."""
    total = 0
    for path in _libraries():
        if "openblas" in path.rpartition("/")[2] and (get := _openblas(path, "get_num_threads")) is not None:
            total += max(0, get() - 1)
    return total


def n_threads() -> int:
    """Return the operating system threads of this process, 0 where that cannot be read."""
    try:
        return os.stat("/proc/self/task").st_nlink - 2
    except OSError:
        return 0


def foreign_threads(ours: frozenset[threading.Thread] = frozenset()) -> str:
    """Say which threads forbid a fork; empty if there are none but this one, *ours*, and OpenBLAS's idle ones."""
    if threading.active_count() > 1 + len(ours):
        known = {*ours, threading.current_thread()}
        others = [thread.name for thread in threading.enumerate() if thread not in known]
        return f"other threads are alive: {', '.join(others[:3])}"
    count = n_threads() - len(ours)
    if count < 1:
        return "the number of threads cannot be read"
    if count == 1 or count == 1 + idle_threads() or _are_ending(count, len(ours)):
        return ""
    return f"{count - 1} threads of native libraries are alive"


def _are_ending(count: int, n_ours: int) -> bool:
    """
    Wait a moment for threads that nobody counts any more: the system ends them a little after Python has joined them.

    Some stay, those of native libraries: as many as have stayed before are not waited for again.
    """
    global _stayed  # noqa: PLW0603 - a number, replaced in one statement
    end = time.monotonic() + _ENDING_S
    while count != _stayed and time.monotonic() < end:
        time.sleep(_ENDING_S / 100)
        count = n_threads() - n_ours
        if count in {1, 1 + idle_threads()}:
            return True
    _stayed = count
    return False


def _openblas_numbers() -> dict[str, ctypes.c_int]:
    """
    Return OpenBLAS's own counts of threads by library, of those that show them.

    Set directly in a forked worker: its setter would start the threads again first, and they spin for 26 ms on the
    cores that the work needs (200 items of 1 ms took 131 ms with the setter, 95 without).
    """
    numbers = {}
    for path in _libraries():
        if "openblas" in path.rpartition("/")[2]:
            with contextlib.suppress(OSError, ValueError):
                numbers[path] = ctypes.c_int.in_dll(ctypes.CDLL(path), "blas_cpu_number")
    return numbers


def prepare(share: int) -> Callable[[], None]:
    """
    Look up in the parent what gives loaded libraries, and those loaded later, *share* threads each.

    Returns:
        What the forked worker has to call.
    """
    numbers = _openblas_numbers()
    calls = []
    for path in _libraries():
        if path in numbers:
            continue
        name = path.rpartition("/")[2]
        if "openblas" in name:
            setter = _openblas(path, "set_num_threads")
        elif "mkl_rt" in name:
            setter = _function(path, "MKL_Set_Num_Threads")
        else:
            setter = _function(path, "omp_set_num_threads")
        if setter is not None:
            calls.append(setter)

    def apply() -> None:
        for number in numbers.values():
            number.value = min(number.value, share)
        for call in calls:
            call(share)
        for name in THREAD_VARIABLES:
            os.environ[name] = str(share)

    return apply


@contextlib.contextmanager
def limited(share: int) -> Iterator[None]:
    """
    Give this process at most *share* BLAS threads for a while: a caller that computes beside its workers is one.

    With all threads left to the caller, sixty products of 400 x 400 matrices took 1.6 times as long on two cores.
    """
    numbers = _openblas_numbers().values()
    before = [number.value for number in numbers]
    mkl = [
        setter
        for path in _libraries()
        if "mkl_rt" in path.rpartition("/")[2] and (setter := _function(path, "MKL_Set_Num_Threads_Local")) is not None
    ]
    for number in numbers:
        number.value = min(number.value, share)
    kept = [(setter, setter(share)) for setter in mkl]
    try:
        yield
    finally:
        for number, value in zip(numbers, before, strict=True):
            number.value = value
        for setter, value in kept:
            setter(value)
