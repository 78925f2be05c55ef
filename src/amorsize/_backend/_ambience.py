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
        filters: Warning filters.
        decimal: The decimal context.
        numpy_errors: ``numpy.geterr()``, None where NumPy is not loaded.
        numpy_print: ``numpy.get_printoptions()``.
        locale: ``locale.setlocale(LC_ALL)``, empty where ``locale`` is not loaded.
        loggers: Their levels.
        recursion_limit: ``sys.getrecursionlimit()``.
        most_digits: ``sys.get_int_max_str_digits()``.
    """

    cwd: str | None
    path: tuple[str, ...]
    environ: dict[str, str]
    filters: bytes
    decimal: bytes
    numpy_errors: dict[str, Any] | None
    numpy_print: bytes = b""
    locale: str = ""
    loggers: bytes = b""
    recursion_limit: int = 0
    most_digits: int = -1


# What the caller's environment must not overwrite in a worker: its share of threads.
_KEEP_PREFIXES: Final = ("LOKY_", "OMP_", "OPENBLAS_", "MKL_", "BLIS_", "VECLIB_", "NUMBA_", "NUMEXPR_", "ENABLE_IPC")


def _picklable(value: Any) -> bytes:
    with suppressed():  # a filter or context that cannot travel is left behind
        return pickle.dumps(value)
    return b""


def read() -> Ambience:
    """Read the calling process's state now."""
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = None
    decimal = loaded("decimal")
    numpy, locale = loaded("numpy"), loaded("locale")
    return Ambience(
        cwd=cwd,
        path=tuple(map(str, sys.path)),
        environ=dict(os.environ),
        filters=_picklable(warnings.filters),
        decimal=_picklable(decimal.getcontext()) if decimal else b"",
        numpy_errors=numpy.geterr() if numpy else None,
        numpy_print=_picklable(numpy.get_printoptions()) if numpy else b"",
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
    if state.filters:
        with contextlib.suppress(Exception):  # categories of modules that are not here
            warnings.filters[:] = pickle.loads(state.filters)  # type: ignore[index]  # typeshed: Sequence; it is a list
    if state.loggers:
        _output.adopt(state.loggers)
    _enter_formats(state)
    _enter_limits(state)


def _enter_formats(state: Ambience) -> None:
    """Give a worker the caller's ways to compute with and to write numbers."""
    if state.decimal:
        importlib.import_module("decimal").setcontext(pickle.loads(state.decimal))
    if state.numpy_errors is not None:
        importlib.import_module("numpy").seterr(**state.numpy_errors)
    if state.numpy_print:
        with contextlib.suppress(Exception):  # a formatter of a module that is not here
            importlib.import_module("numpy").set_printoptions(**pickle.loads(state.numpy_print))
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
