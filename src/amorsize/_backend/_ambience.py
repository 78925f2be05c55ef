"""The state of the calling process that a function expects to see: read at a call, entered by workers."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amorsize._backend import _output, _registries
from amorsize._backend._pickles import dumps
from amorsize._modules import loaded
from amorsize._outside import suppressed

if TYPE_CHECKING:
    from collections.abc import Callable


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
        is_usual: Whether both are as NumPy sets them when it is imported.
        locale: ``locale.setlocale(LC_ALL)``, empty where ``locale`` is not loaded.
        loggers: Their levels.
        recursion_limit: ``sys.getrecursionlimit()``.
        most_digits: ``sys.get_int_max_str_digits()``.
        registries: What is registered with the standard library.
    """

    cwd: str | None
    path: tuple[str, ...]
    environ: dict[str, str]
    filters: bytes
    decimal: bytes
    numpy_errors: dict[str, Any] | None
    numpy_print: bytes = b""
    is_usual: bool = True
    locale: str = ""
    loggers: bytes = b""
    recursion_limit: int = 0
    most_digits: int = -1
    registries: bytes = b""


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


def _by_value(options: dict[str, Any]) -> bytes:
    if options.get("formatter") is None:
        return _picklable(options)
    with suppressed():  # its functions hold what cannot travel
        return dumps(options)
    return b""


class _Category:
    """
    Stands in a worker's filters for a category of warnings, which it knows by its name: also one that came by value.

    A worker imports modules for its functions only. NumPy and IPython put filters for categories of their own, and to
    import them took each worker 50 and 100 ms, for functions too that have nothing to do with them.
    """

    def __init__(self, kind: type) -> None:
        self._names = kind.__module__, kind.__qualname__

    def __subclasscheck__(self, kind: type) -> bool:
        return any((base.__module__, base.__qualname__) == self._names for base in kind.__mro__)


def _filters() -> list[Any]:
    """
    Return the warning filters, with stand-ins for the categories of the program's modules.

    What puts such a filter may be the import of its module, which in a worker puts it in front of all others. So one
    of a module has no stand-in where another that may apply to its category is in front of it.
    """
    filters: list[Any] = []
    for one in warnings.filters:
        kind: Any = one[2]
        is_known = not isinstance(kind, type) or kind.__module__.partition(".")[0] in sys.stdlib_module_names
        is_main = kind.__module__ == "__main__"
        if is_known or (not is_main and any(_may_apply(before, kind) for before in filters)):
            filters.append(one)
        else:
            filters.append((*one[:2], _Category(kind), *one[3:]))
    return filters


def _may_apply(one: Any, kind: type) -> bool:
    return issubclass(kind, one[2]) and not _names_a_package(one)


def _names_a_package(one: Any) -> bool:
    """Tell whether a filter is for messages such as "numpy.dtype size changed"."""
    package, dot, _ = getattr(one[1], "pattern", "").partition(".")
    return bool(dot) and package in sys.modules


def read(func: Callable[..., Any]) -> Ambience:
    """Read the calling process's state now, as far as *func* may ask for it."""
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = None
    decimal = loaded("decimal")
    numpy, locale = loaded("numpy"), loaded("locale")
    errors, options = (numpy.geterr(), numpy.get_printoptions()) if numpy else (None, {})
    return Ambience(
        cwd=cwd,
        path=tuple(map(str, sys.path)),
        environ=dict(os.environ),
        filters=_picklable(_filters()),
        decimal=_picklable(decimal.getcontext()) if decimal else b"",
        numpy_errors=errors,
        numpy_print=_by_value(options) if options else b"",
        is_usual=all(name in _USUAL and _USUAL[name] == value for name, value in {**(errors or {}), **options}.items()),
        locale=locale.setlocale(locale.LC_ALL) if locale else "",
        loggers=_output.settings(),
        recursion_limit=sys.getrecursionlimit(),
        most_digits=sys.get_int_max_str_digits(),
        registries=_registries.read(func),
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
    _enter_formats(state)
    _enter_limits(state)
    _registries.enter(state.registries)
    if state.loggers:
        _output.adopt(state.loggers)  # which makes loggers, of the class that the program has set by then


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
