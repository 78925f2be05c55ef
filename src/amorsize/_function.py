"""
What a function is: the Python function under its wrappers, its stable hash, the values it names.

Looks at code objects and values only; never calls the function, never imports anything.
"""

from __future__ import annotations

import functools
import os
import sys
import types
import zlib
from typing import TYPE_CHECKING, Any, Final

from amorsize._attribute import attribute_of, is_of, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def bare(func: Callable[..., Any]) -> tuple[types.FunctionType | None, tuple[Any, ...]]:
    """Return the Python function under partials, methods and callable objects, or None, and the objects bound to it."""
    bound: list[Any] = []
    found: Any = func
    for _ in range(10):
        if is_of(found, functools.partial):
            bound += [*found.args, *found.keywords.values()]
            found = found.func
        elif is_of(found, types.MethodType):
            bound.append(found.__self__)
            found = found.__func__
        elif is_of(found, types.FunctionType):
            return found, tuple(bound)
        elif is_of(call := getattr(type(found), "__call__", None), types.FunctionType):  # noqa: B004 - its function
            bound.append(found)
            return call, tuple(bound)
        elif is_of(inner := attribute_of(found, "__wrapped__"), types.FunctionType):
            return inner, tuple(bound)  # functools.lru_cache and the like
        else:
            break
    return None, tuple(bound)


def _inner_hashes(found: types.FunctionType, depth: int) -> set[str]:
    """Return the hashes of the functions in a function's closure, and in theirs; of other values the type's name."""
    hashes: set[str] = set()
    for cell in found.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        inner = value if is_of(value, types.FunctionType) else attribute_of(value, "__wrapped__")
        if is_of(inner, types.FunctionType) and inner is not found and depth:
            hashes |= {code_hash(inner.__code__), *_inner_hashes(inner, depth - 1)}
        else:
            hashes.add(path_of(type(value)))
    return hashes


def _constant_key(value: Any) -> str:
    """Spell a constant so that equal code gives equal text in every process."""
    if is_of(value, types.CodeType):
        return code_hash(value)
    if is_of(value, tuple):
        return f"({','.join(map(_constant_key, value))})"
    if is_of(value, frozenset):
        return f"{{{','.join(sorted(map(_constant_key, value)))}}}"
    if is_of(value, int):
        return f"{type(value).__name__}:{value:x}"  # decimal has a limit of digits
    return f"{type(value).__name__}:{value!r}"


@functools.lru_cache(maxsize=1024)
def code_hash(code: types.CodeType) -> str:
    """
    Hash a code object: equal across processes and ``PYTHONHASHSEED``, whatever file and line it stands on.

    Changes with the code, its constants, its names, its signature and the Python version.
    """
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    constants = [_constant_key(c) for c in code.co_consts]
    text = repr((sys.version_info[:2], shape, names, constants)).encode()
    return _digest(text + code.co_code + code.co_exceptiontable)


def _digest(data: bytes) -> str:
    """
    Return two checksums and the length.

    Enough to tell a program's functions apart, and a worker's version of a module from the caller's; hashlib would take
    a first call 1 ms to load.
    """
    return f"{zlib.crc32(data):08x}{zlib.adler32(data):08x}-{len(data):x}"


def full_name(func: Any) -> str:
    """Return the module and the qualified name of a callable, or of its type where it has no name of its own."""
    while is_of(func, functools.partial):
        func = func.func
    name = attribute_of(func, "__qualname__") or attribute_of(func, "__name__")  # NumPy 1's ufuncs have the latter
    named = func if is_of(name, str) else type(func)
    return f"{attribute_of(named, '__module__', '')}.{name if named is func else named.__qualname__}"


def function_key(func: Callable[..., Any]) -> str:
    """
    Return the stable key under which a function's profile is kept.

    The hash of its code, and of that of the functions it wraps or closes over: all functions under one decorator have
    the same code, that of the wrapper.
    """
    found, _ = bare(func)
    if found is not None:
        inner = sorted(_inner_hashes(found, depth=3))
        return _digest("".join([code_hash(found.__code__), *inner]).encode()) if inner else code_hash(found.__code__)
    while is_of(func, functools.partial):
        func = func.func
    name = f"{full_name(func)}:{type(func).__qualname__}"
    return _digest(f"{sys.version_info[:2]}{name}".encode())


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from code.co_freevars
    for const in code.co_consts:
        if is_of(const, types.CodeType):
            yield from _names(const)


def named_values(found: types.FunctionType) -> dict[str, Any]:
    """Return the global and closure variables that a function's code names, as of now, builtins left out."""
    values: dict[str, Any] = {}
    cells = dict(zip(found.__code__.co_freevars, found.__closure__ or (), strict=False))
    for name in _names(found.__code__):
        if name in cells:
            try:
                values[name] = cells[name].cell_contents
            except ValueError:  # an empty cell: not assigned yet
                continue
        elif name in found.__globals__:
            values[name] = found.__globals__[name]
    return values


def found_at(module: str | None, qualname: str) -> Any:
    """Return what a module that is loaded has under a qualified name, None where it has nothing."""
    value: Any = sys.modules.get(module or "")
    for part in qualname.split("."):
        value = getattr(value, part, None)
    return value


def is_importable(found: types.FunctionType) -> bool:
    """Tell whether a worker can import the function by module and qualified name (decorated or not)."""
    value = None if found.__module__ == "__main__" else found_at(found.__module__, found.__qualname__)
    if value is None:
        return False
    value = getattr(value, "__func__", value)
    return value is found or getattr(value, "__wrapped__", None) is found


# Folders of what is installed, and of the standard library: nobody edits it while a program runs.
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_LIBRARY: Final = (os.path.dirname(os.__file__) + os.sep, "<frozen")


def is_installed(filename: str) -> bool:
    """Tell whether a file of code is an installed package's or the interpreter's own, and not the program's."""
    return filename.startswith(_LIBRARY) or any(folder in filename for folder in _INSTALLED)
