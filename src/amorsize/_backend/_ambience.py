"""The state of the calling process that a function expects to see: read at a call, entered by workers."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import sys
import warnings
from typing import Any, Final, NamedTuple

from amorsize._backend import _output
from amorsize._modules import loaded
from amorsize._outside import suppressed


class Ambience(NamedTuple):
    """
    The state of the calling process that people expect a function to see: as of the call.

    Attributes:
        cwd: Current working directory, None where it cannot be read.
        path: ``sys.path``.
        environ: ``os.environ``.
        filters: Warning filters, pickled, without those in *late_filters*.
        late_filters: Those that a package of the program has put in front as it was imported: each as its place, the
            package and its pickle.
        decimal: The decimal context.
        numpy_errors: ``numpy.geterr()``, None where NumPy is not loaded.
        numpy_print: ``numpy.get_printoptions()``.
        is_usual: Whether both are as NumPy sets them when it is imported.
        locale: ``locale.setlocale(LC_ALL)``, empty where ``locale`` is not loaded.
        loggers: Their levels.
        recursion_limit: ``sys.getrecursionlimit()``.
        most_digits: ``sys.get_int_max_str_digits()``.
    """

    cwd: str | None
    path: tuple[str, ...]
    environ: dict[str, str]
    filters: bytes
    late_filters: tuple[tuple[int, str, bytes], ...]
    decimal: bytes
    numpy_errors: dict[str, Any] | None
    numpy_print: bytes = b""
    is_usual: bool = True
    locale: str = ""
    loggers: bytes = b""
    recursion_limit: int = 0
    most_digits: int = -1


# What the caller's environment must not overwrite in a worker: its share of threads.
_KEEP_PREFIXES: Final = ("LOKY_", "OMP_", "OPENBLAS_", "MKL_", "BLIS_", "VECLIB_", "NUMBA_", "NUMEXPR_", "ENABLE_IPC")


# NumPy's settings as it is imported, from its documentation of ``seterr`` and ``set_printoptions``. Where the caller's
# are these, a worker that has not imported NumPy need not do so for them: 50 ms. What is not named here is not usual.
_USUAL: Final[dict[str, Any]] = {
    "divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn",
    "edgeitems": 3, "threshold": 1000, "floatmode": "maxprec", "precision": 8, "suppress": False, "linewidth": 75,
    "nanstr": "nan", "infstr": "inf", "sign": "-", "formatter": None, "legacy": False, "override_repr": None,
}  # fmt: skip


def _picklable(value: Any) -> bytes:
    with suppressed():  # a filter or context that cannot travel is left behind
        return pickle.dumps(value)
    return b""


def _split_filters() -> tuple[list[Any], tuple[tuple[int, str, bytes], ...]]:
    """
    Return the warning filters, and apart from them those whose categories another interpreter would have to import.

    NumPy puts one in front for a category of its own: unpickling it takes a worker 50 ms, for functions too that have
    nothing to do with NumPy. In a worker that imports NumPy later, it is in front again. So it may wait where it
    stands in front, or behind filters of messages of the same package.
    """
    usual: list[Any] = []
    late: list[tuple[int, str, bytes]] = []
    for place, one in enumerate(warnings.filters):
        category = one[2]
        package = category.__module__.partition(".")[0]
        if package not in sys.stdlib_module_names and all(_is_about(package, before) for before in usual):
            late.append((place, package, _picklable(one)))
        else:
            usual.append(one)
    return usual, tuple(late)


def _is_about(package: str, one: Any) -> bool:
    return getattr(one[1], "pattern", "").startswith(f"{package}.")


def read() -> Ambience:
    """Read the calling process's state now."""
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = None
    decimal = loaded("decimal")
    numpy, locale = loaded("numpy"), loaded("locale")
    filters, late_filters = _split_filters()
    errors, options = (numpy.geterr(), numpy.get_printoptions()) if numpy else (None, {})
    return Ambience(
        cwd=cwd,
        path=tuple(map(str, sys.path)),
        environ=dict(os.environ),
        filters=_picklable(filters),
        late_filters=late_filters,
        decimal=_picklable(decimal.getcontext()) if decimal else b"",
        numpy_errors=errors,
        numpy_print=_picklable(options) if options else b"",
        is_usual=all(name in _USUAL and _USUAL[name] == value for name, value in {**(errors or {}), **options}.items()),
        locale=locale.setlocale(locale.LC_ALL) if locale else "",
        loggers=_output.settings(),
        recursion_limit=sys.getrecursionlimit(),
        most_digits=sys.get_int_max_str_digits(),
    )


def enter(state: Ambience) -> None:
    """Give a worker the caller's state."""
    if state.cwd is not None:
        with contextlib.suppress(OSError):
            os.chdir(state.cwd)
    sys.path[:] = state.path
    for name in [n for n in os.environ if n not in state.environ and not n.startswith(_KEEP_PREFIXES)]:
        del os.environ[name]
    for name, value in state.environ.items():
        if not name.startswith(_KEEP_PREFIXES) and os.environ.get(name) != value:
            os.environ[name] = value
    with contextlib.suppress(Exception):  # categories of modules that are not here
        filters = pickle.loads(state.filters)
        for place, package, late in state.late_filters:
            if loaded(package) is not None:
                filters.insert(place, pickle.loads(late))
        warnings.filters[:] = filters  # type: ignore[index]  # typeshed: Sequence; it is a list
    if state.loggers:
        _output.adopt(state.loggers)
    _enter_formats(state)
    _enter_limits(state)


def _enter_formats(state: Ambience) -> None:
    """Give a worker the caller's ways to compute with and to write numbers."""
    if state.decimal:
        importlib.import_module("decimal").setcontext(pickle.loads(state.decimal))
    numpy = loaded("numpy") if state.is_usual else importlib.import_module("numpy")
    if numpy is not None and state.numpy_errors is not None:
        numpy.seterr(**state.numpy_errors)
        with contextlib.suppress(Exception):  # a formatter of a module that is not here
            numpy.set_printoptions(**pickle.loads(state.numpy_print))
    if state.locale:
        locale = importlib.import_module("locale")
        if locale.setlocale(locale.LC_ALL) != state.locale:
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, state.locale)


def _enter_limits(state: Ambience) -> None:
    if state.recursion_limit > 0:
        with contextlib.suppress(RecursionError):  # the worker is deeper in its stack than the caller allows
            sys.setrecursionlimit(state.recursion_limit)
    if state.most_digits >= 0:
        sys.set_int_max_str_digits(state.most_digits)
