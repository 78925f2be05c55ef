"""
What a function can reach beside its item: whether workers forked for an earlier map still compute what the loop would.

A fork sees the caller as it is at that moment. Workers that are kept for the next map see the past, so they are kept
only for functions whose every path is known: arithmetic and calls into modules that compute and nothing else. What was
seen then is compared before each reuse. Looks at code and values only; never calls the function, never imports.
"""

from __future__ import annotations

import builtins
import dis
import functools
import io
import os
import pickle
import re
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any, Final

from amorsize._modules import loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Modules whose functions depend on their arguments, the clock and what Fingerprint compares; of packages, all of it.
PURE_MODULES: Final = frozenset(
    [
        "_bisect", "_bz2", "_collections", "_datetime", "_functools", "_hashlib", "_heapq", "_json", "_lzma",
        "_operator", "_sha2", "_statistics", "_struct", "array", "ast", "base64", "binascii", "bisect", "bz2", "cmath",
        "collections", "colorsys", "datetime", "difflib", "fractions", "functools", "hashlib", "heapq", "hmac", "html",
        "itertools", "json", "lzma", "math", "numbers", "numpy", "operator", "re", "statistics", "string", "struct",
        "textwrap", "time", "typing", "unicodedata", "zlib",
    ]
)  # fmt: skip

# Builtins through which a function can reach, or change, anything.
_OPEN_BUILTINS: Final = frozenset(
    ["__import__", "breakpoint", "compile", "delattr", "eval", "exec", "getattr", "globals", "hasattr", "help", "input",
     "locals", "open", "print", "setattr", "vars"]
)  # fmt: skip

_CACHED: Final = type(functools.cache(lambda: None))
_SCALARS: Final = (type(None), bool, int, float, complex, str, bytes, types.EllipsisType)
_ABSENT: Final = object()


class _Open(Exception):  # noqa: N818 - a signal, caught in this module
    """The function can reach what is not known."""


def _root(name: object) -> str:
    return str(name).partition(".")[0]


def _is_pure(name: object) -> bool:
    return _root(name) in PURE_MODULES and not str(name).startswith("numpy.random.mtrand")


def _is_constant(value: Any) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(map(_is_constant, value))
    return type(value) in _SCALARS or type(value) is re.Pattern


class Fingerprint:
    """
    Everything that a closed function reads, as it was.

    Guarantees: while :meth:`holds`, a process forked when this was taken computes what this one would.
    """

    def __init__(self, func: types.FunctionType) -> None:
        self._names: list[tuple[Mapping[str, Any], str, Any]] = []
        self._functions: list[tuple[types.FunctionType, tuple[Any, ...]]] = []
        self._seen: set[int] = set()
        self._visit(func)
        self._around = _around()

    def holds(self) -> bool:
        """Tell whether nothing that the function reads has changed."""
        return (
            all(names.get(name, _ABSENT) is value for names, name, value in self._names)
            and all(_shape(func) == shape for func, shape in self._functions)
            and self._around == _around()
        )

    # -- taking it ---------------------------------------------------------------------------------------------------

    def _visit(self, func: types.FunctionType) -> None:
        if id(func) in self._seen:
            return
        self._seen.add(id(func))
        shape = _shape(func)
        self._functions.append((func, shape))
        defaults = [*(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).values()]
        if not all(map(_is_constant, defaults)):
            raise _Open
        cells = dict(zip(func.__code__.co_freevars, func.__closure__ or (), strict=True))
        names = frozenset(_attribute_names(func.__code__))
        for step in _steps(func.__code__):
            self._step(func, cells, names, step)

    def _step(
        self,
        func: types.FunctionType,
        cells: dict[str, types.CellType],
        names: frozenset[str],
        step: dis.Instruction,
    ) -> None:
        kind = step.opname
        if kind in {"LOAD_GLOBAL", "LOAD_NAME"}:
            self._take(self._global(func, step.argval), names)
        elif kind in {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"} and step.argval in cells:
            self._take(cells[step.argval].cell_contents, names)
        elif kind == "IMPORT_NAME":
            self._take(sys.modules.get(_root(step.argval)), names)
            self._take(sys.modules.get(str(step.argval)), names)
        elif kind.startswith(("STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_BUILD_CLASS", "IMPORT_STAR")) or (
            kind in {"STORE_DEREF", "DELETE_DEREF"} and step.argval in cells
        ):
            raise _Open

    def _global(self, func: types.FunctionType, name: str) -> Any:
        """Look a name up as the function does, and note where it was found."""
        found = func.__globals__.get(name, _ABSENT)
        self._names.append((func.__globals__, name, found))
        if found is not _ABSENT:
            return found
        if name in _OPEN_BUILTINS or name not in vars(builtins):
            raise _Open
        self._names.append((vars(builtins), name, vars(builtins)[name]))
        return vars(builtins)[name]

    def _take(self, value: Any, names: frozenset[str]) -> None:
        """Accept a value that the code names, or raise."""
        if isinstance(value, types.ModuleType):
            self._take_module(value, names)
        elif isinstance(value, types.FunctionType) and not _is_pure(value.__module__):
            self._visit(value)
        elif isinstance(value, _CACHED):
            self._take(value.__wrapped__, names)
        elif not _is_constant(value) and not self._is_pure_callable(value):
            raise _Open

    @staticmethod
    def _is_pure_callable(value: Any) -> bool:
        if not callable(value):
            return False
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType) and not _is_constant(owner):
            return False  # a bound method: its object may change
        module = getattr(value, "__module__", None) or getattr(type(value), "__module__", None)
        return module == "builtins" or _is_pure(module)

    def _take_module(self, module: types.ModuleType, names: frozenset[str]) -> None:
        """Accept a module that only computes; what the code takes from it must stay what it is."""
        if not _is_pure(module.__name__):
            raise _Open
        if id(module) in self._seen:
            return
        self._seen.add(id(module))
        held = vars(module)
        for name in names & held.keys():
            self._names.append((held, name, held[name]))
            if isinstance(held[name], types.ModuleType):
                self._take_module(held[name], names)


def _shape(func: types.FunctionType) -> tuple[Any, ...]:
    """Return what a function consists of, closed-over values included."""
    cells = tuple(id(cell.cell_contents) for cell in func.__closure__ or ())
    return id(func.__code__), id(func.__defaults__), tuple((func.__kwdefaults__ or {}).items()), cells


def _steps(code: types.CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _steps(const)


def _attribute_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _attribute_names(const)


def _around() -> tuple[Any, ...]:
    """Return the state of the process that computing depends on, short of what pure modules never look at."""
    numpy = loaded("numpy")
    return (
        list(warnings.filters),
        sys.getrecursionlimit(),
        sys.gettrace(),
        sys.getprofile(),
        os.environ.get("TZ"),
        None if numpy is None else (numpy.geterr(), str(numpy.get_printoptions())),
    )


def fingerprint(func: Callable[..., Any]) -> Fingerprint | None:
    """Take the fingerprint of a function; None where it could reach anything that is not known to stay the same."""
    if not isinstance(func, types.FunctionType):
        return None
    try:
        return Fingerprint(func)
    except (_Open, ValueError):  # ValueError: an empty cell
        return None


class _PlainPickler(pickle.Pickler):
    """Pickles values of builtin types and of pure modules only: methods of other classes could reach anything."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | types.FunctionType | types.BuiltinFunctionType):
            known = obj.__module__ in {"builtins", None} or _is_pure(obj.__module__)
        else:
            known = type(obj).__module__ == "builtins" or _is_pure(type(obj).__module__)
        if not known or getattr(obj, "__name__", "") in _OPEN_BUILTINS:
            raise _Open
        return NotImplemented


class _Bounded(io.BytesIO):
    """A buffer that refuses to grow beyond *most* bytes."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > self._most:
            raise _Open
        return super().write(data)


def dumps_plain(value: Any, most: int) -> bytes | None:
    """
    Pickle a value of plain types.

    Returns:
        At most *most* bytes; None where there would be more, where other types are in it, or it cannot be pickled.
    """
    buffer = _Bounded(most)
    try:
        _PlainPickler(buffer, protocol=5).dump(value)
    except Exception:  # noqa: BLE001 - whatever is odd about it: it is not plain
        return None
    return buffer.getvalue()
