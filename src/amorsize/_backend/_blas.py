"""Finds the thread pools of numerical libraries in this process, counts their threads, and sets their share."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import threading
from _io import open as open_file  # a test may have replaced the builtin
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from amorsize._backend import _bounds as bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The variables that libraries read when they are first loaded; the list that loky sets in its workers.
THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS",
)  # fmt: skip

# Suffixes and prefixes under which builds of OpenBLAS export its functions (those of NumPy's and SciPy's wheels first).
_OPENBLAS_NAMES: Final = ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}")

_LIBRARIES: Final = re.compile(rb" (/[^\n]*/[^\n/]*(?:openblas|libgomp|libiomp|libomp|mkl_rt)[^\n/]*\.so[^\n/]*)")

# Libraries that keep threads of their own, which a fork does not stop: for the words that say why nothing is forked.
_RUNTIMES: Final = re.compile(
    rb"/(libgomp|libiomp5|libomp|libmkl_rt|libtbb|libcuda|libcudart|libarrow|libtorch_cpu|libjemalloc|polars|libpolars|"
    rb"_polars_runtime\w*|cygrpc|duckdb|libduckdb|lib_lightgbm|libxgboost)[^\n/]*\.so"
)

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
        with contextlib.suppress(OSError), open_file("/proc/self/maps", "rb") as file:
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


def idle_threads() -> int | None:
    """
    Return how many idle threads the loaded OpenBLAS libraries have now, None where one does not tell.

    They have none after any fork of this process, which stops them, until their next use. What they would have then
    says nothing: in its place there may be as many threads of somebody else, which a fork does not stop.
    """
    total = 0
    for path in _libraries():
        if "openblas" not in path.rpartition("/")[2]:
            continue
        number = _counted(path)
        if number is None and (number := _meant(path)) is None:
            return None
        total += number
    return total


def _counted(path: str) -> int | None:
    """Return the idle threads that an OpenBLAS has, None for a build that hides its counts."""
    try:
        library = ctypes.CDLL(path)
        is_serving = ctypes.c_int.in_dll(library, "blas_server_avail").value
        return max(0, ctypes.c_int.in_dll(library, "blas_num_threads").value - 1) if is_serving else 0
    except (OSError, ValueError):
        return None


def _meant(path: str) -> int | None:
    """
    Return the idle threads that an OpenBLAS would have, None where it does not tell.

    NumPy 2.5's build tells nothing else. It says little where another library keeps threads, so that it is not asked
    there.
    """
    get = _openblas(path, "get_num_threads")
    return None if get is None or _runtimes() else max(0, get() - 1)


def _runtimes() -> set[str]:
    """Return the names of loaded libraries that keep threads which a fork does not stop, as of now."""
    found: set[str] = set()
    with contextlib.suppress(OSError), open_file("/proc/self/maps", "rb") as file:
        found = {name.decode().removeprefix("lib").strip("_") for name in _RUNTIMES.findall(file.read())}
    return found


def n_threads() -> int:
    """Return the operating system threads of this process, 0 where that cannot be read."""
    try:
        return os.stat("/proc/self/task").st_nlink - 2
    except OSError:
        return 0


def foreign_threads(ours: frozenset[threading.Thread] = frozenset()) -> str:
    """Say which threads forbid a fork; empty if there are none but this one, *ours*, and OpenBLAS's idle ones."""
    global _stayed  # noqa: PLW0603 - a number, replaced in one statement
    if threading.active_count() > 1 + len(ours):
        known = {*ours, threading.current_thread()}
        others = [thread.name for thread in threading.enumerate() if thread not in known]
        return f"other threads are alive: {', '.join(others[:3])}"
    count = n_threads() - len(ours)
    if count < 1:
        return "the number of threads cannot be read"
    if count == 1 or count == _explained():
        _stayed = 0  # what stayed for a while has ended, and was no library's
        return ""
    if _are_ending(count, len(ours)):
        return ""
    return _described(count - 1)


def _explained() -> int:
    """Return the threads of a process that has none but this one and OpenBLAS's idle ones."""
    return 1 + (idle_threads() or 0)


# What _described has said last, and for which number of threads and modules.
_said: tuple[tuple[int, int], str] = ((0, 0), "")


def _described(n_others: int) -> str:
    """Say that there are threads of native libraries, and whose they may be."""
    global _said  # noqa: PLW0603 - a cache of one tuple, replaced in one statement
    key = (n_others, len(sys.modules))
    if _said[0] != key:
        runtimes = _runtimes()
        hints = [f"loaded: {', '.join(sorted(runtimes))}"] if runtimes else []
        hints += [f"named: {', '.join(names)}"] if (names := _thread_names()) else []
        end = f" ({'; '.join(hints)})" if hints else ""
        are = "thread of a native library is" if n_others == 1 else "threads of native libraries are"
        _said = (key, f"{n_others} {are} alive{end}")
    return _said[1]


def _thread_names() -> list[str]:
    """Return the names that threads of this process have been given, but for those that have the main one's; some."""
    names = set()
    with contextlib.suppress(OSError):  # threads end meanwhile
        for task in os.listdir("/proc/self/task"):
            with open_file(f"/proc/self/task/{task}/comm", encoding="utf-8", errors="replace") as file:
                names.add(file.read().strip())
    with contextlib.suppress(OSError), open_file("/proc/self/comm", encoding="utf-8", errors="replace") as file:
        names.discard(file.read().strip())
    return sorted(names)[:3]


def _are_ending(count: int, n_ours: int) -> bool:
    """
    Wait a moment for threads that nobody counts any more: the system ends them a little after Python has joined them.

    Some stay, those of native libraries, which sleep nearly always: one that could run may only lack a CPU to end on.
    As many as have stayed before are not waited for again.
    """
    global _stayed  # noqa: PLW0603 - as above
    begin = monotonic()
    while count != _stayed and (
        (waited_s := monotonic() - begin) < bounds.JOINED_S or (waited_s < bounds.RUNNABLE_S and _is_one_runnable())
    ):
        sleep(bounds.JOINED_S / 100)
        count = n_threads() - n_ours
        if count in {1, _explained()}:
            return True
    _stayed = count
    return False


def _is_one_runnable() -> bool:
    """Tell whether another thread of this process runs or waits for a CPU."""
    own = str(threading.get_native_id())
    with contextlib.suppress(OSError):  # threads end meanwhile
        for task in os.listdir("/proc/self/task"):
            if task != own:
                with open_file(f"/proc/self/task/{task}/stat", "rb") as file:
                    if file.read().rpartition(b")")[2].split()[0] == b"R":
                        return True
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
    """Return what a forked worker calls to give libraries loaded now or later *share* threads each."""
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
