"""
What a function is: its stable hash, the outside state it reads and changes, what forbids copying it by fork.

Looks at code objects and values only; never calls the function, never imports anything.
"""

from __future__ import annotations

import builtins
import dis
import functools
import itertools
import sys
import types
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Methods that change the object they are called on, of the built-in containers and those named like them.
MUTATORS: Final = frozenset(
    [
        "add",
        "append",
        "appendleft",
        "clear",
        "difference_update",
        "discard",
        "extend",
        "extendleft",
        "insert",
        "intersection_update",
        "pop",
        "popitem",
        "popleft",
        "push",
        "put",
        "put_nowait",
        "remove",
        "reverse",
        "rotate",
        "setdefault",
        "sort",
        "subtract",
        "symmetric_difference_update",
        "update",
        "__setitem__",
        "__delitem__",
        "__setattr__",
    ]
)

_JUMPS: Final = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)

_INERT: Final = (
    type(None), bool, int, float, complex, str, bytes, range, slice, type, types.ModuleType, types.FunctionType,
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, types.GetSetDescriptorType,
    types.EllipsisType, types.NotImplementedType, types.GenericAlias, types.UnionType, property,
)  # fmt: skip

# Where the types live whose instances must not be shared by two processes after a fork: positions in a stream,
# locks, handles. Generators of random numbers would draw identical numbers in each worker.
_UNSHAREABLE: Final = frozenset(
    [
        "_io",
        "_thread",
        "threading",
        "socket",
        "_socket",
        "ssl",
        "_ssl",
        "select",
        "selectors",
        "sqlite3",
        "subprocess",
        "multiprocessing",
        "concurrent",
        "asyncio",
        "queue",
        "_queue",
        "random",
        "_random",
        "mmap",
        "tempfile",
        "shelve",
        "dbm",
        "http",
        "urllib",
        "ftplib",
        "smtplib",
        "logging",
        "psycopg",
        "psycopg2",
        "pymysql",
        "MySQLdb",
        "sqlalchemy",
        "requests",
        "httpx",
        "aiohttp",
        "grpc",
        "torch",
        "cupy",
        "jax",
        "jaxlib",
        "tensorflow",
        "numba",
        "dask",
        "distributed",
        "ray",
    ]
)
_RANDOM: Final = frozenset(
    {"Generator", "RandomState", "BitGenerator", "PCG64", "MT19937", "Philox", "SFC64", "PCG64DXSM"}
)


class Outside(NamedTuple):
    """
    The state outside a function that its code names.

    Attributes:
        values: Global and closure variables it names, by name, as of now.
        mutates: Names of those it changes.
        reads_mutable: Names of mutable ones it reads.
        unshareable: Names of those that two processes must not share by fork.
    """

    values: dict[str, Any]
    mutates: tuple[str, ...]
    reads_mutable: tuple[str, ...]
    unshareable: tuple[str, ...]


def bare(func: Callable[..., Any]) -> tuple[types.FunctionType | None, tuple[Any, ...]]:
    """
    Find the Python function under partials, methods and callable objects.

    Returns:
        The function, or None where there is none (builtins); and the objects bound to it on the way.
    """
    bound: list[Any] = []
    found: Any = func
    for _ in range(10):
        if isinstance(found, functools.partial):
            bound += [*found.args, *found.keywords.values()]
            found = found.func
        elif isinstance(found, types.MethodType):
            bound.append(found.__self__)
            found = found.__func__
        elif isinstance(found, types.FunctionType):
            return found, tuple(bound)
        elif isinstance(call := getattr(type(found), "__call__", None), types.FunctionType):  # noqa: B004 - its function
            bound.append(found)
            return call, tuple(bound)
        elif isinstance(inner := getattr(found, "__wrapped__", None), types.FunctionType):
            return inner, tuple(bound)  # functools.lru_cache and the like
        else:
            break
    return None, tuple(bound)


def _constant_key(value: Any) -> str:
    """Spell a constant so that equal code gives equal text in every process."""
    if isinstance(value, types.CodeType):
        return code_hash(value)
    if isinstance(value, tuple):
        return f"({','.join(map(_constant_key, value))})"
    if isinstance(value, frozenset):
        return f"{{{','.join(sorted(map(_constant_key, value)))}}}"
    if isinstance(value, int):
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


def function_key(func: Callable[..., Any]) -> str:
    """Return the stable key under which a function's profile is kept."""
    found, _ = bare(func)
    if found is not None:
        return code_hash(found.__code__)
    while isinstance(func, functools.partial):
        func = func.func
    named = func if hasattr(func, "__qualname__") else type(func)
    name = f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}:{type(func).__qualname__}"
    return _digest(f"{sys.version_info[:2]}{name}".encode())


@functools.lru_cache(maxsize=512)
def _touched(
    code: types.CodeType, defaults: frozenset[str] = frozenset()
) -> tuple[frozenset[str], frozenset[tuple[str, ...]]]:
    """
    Follow the names that *code* and the code nested in it load.

    Returns:
        The outside names that are rebound; and the dotted paths, each starting with an outside name (or with
        ``"<arg>"`` for the first argument, or with an argument of *defaults*), into which something is stored or on
        which a mutator is called.
    """
    rebound: set[str] = set()
    stored: set[tuple[str, ...]] = set()
    local: dict[str, tuple[str, ...] | None] = {name: (name,) for name in defaults}
    if code.co_argcount:
        local[code.co_varnames[0]] = ("<arg>",)
    _follow(code, frozenset(code.co_freevars), rebound, stored, local)
    return frozenset(rebound), frozenset(stored)


def _follow(  # noqa: C901, PLR0912, PLR0915 - one branch per kind of instruction
    code: types.CodeType,
    free: frozenset[str],
    rebound: set[str],
    stored: set[tuple[str, ...]],
    local: dict[str, tuple[str, ...] | None],
) -> None:
    stack: list[tuple[str, ...] | None] = []

    def pop() -> tuple[str, ...] | None:
        return stack.pop() if stack else None

    depths: dict[int, list[tuple[str, ...] | None]] = {}
    for step in dis.get_instructions(code):
        name, arg = step.opname, step.argval
        if step.offset in depths:
            stack[:] = depths[step.offset]
        if step.opcode in _JUMPS and "FOR_ITER" not in name:
            depths.setdefault(int(arg), list(stack))
        if name in {"LOAD_GLOBAL", "LOAD_NAME"}:
            if step.arg is not None and name == "LOAD_GLOBAL" and step.arg & 1 and sys.version_info < (3, 13):
                stack.append(None)
            stack.append((arg,))
            if step.arg is not None and name == "LOAD_GLOBAL" and step.arg & 1 and sys.version_info >= (3, 13):
                stack.append(None)
        elif name in {"LOAD_DEREF", "LOAD_CLASSDEREF"}:
            stack.append((arg,) if arg in free else local.get(arg))
        elif name in {"STORE_GLOBAL", "DELETE_GLOBAL"}:
            rebound.add(arg)
            pop()
        elif name in {"STORE_DEREF", "DELETE_DEREF"}:
            if arg in free:
                rebound.add(arg)
            local[arg] = pop()
        elif name in {"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_AND_CLEAR", "LOAD_FAST_BORROW"}:
            stack.append(local.get(arg))
        elif name in {"LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"}:
            stack += [local.get(a) for a in arg]
        elif name == "STORE_FAST":
            local[arg] = pop()
        elif name == "STORE_FAST_LOAD_FAST":
            local[arg[0]] = pop()
            stack.append(local.get(arg[1]))
        elif name == "STORE_FAST_STORE_FAST":
            local[arg[0]] = pop()
            local[arg[1]] = pop()
        elif name in {"LOAD_ATTR", "LOAD_METHOD"}:
            owner = pop()
            if owner is not None and arg in MUTATORS:
                stored.add((*owner, f".{arg}"))
            is_method = name == "LOAD_METHOD" or (sys.version_info >= (3, 12) and bool((step.arg or 0) & 1))
            path = None if owner is None else (*owner, arg)
            stack += [path, None] if is_method else [path]
        elif name in {"STORE_ATTR", "DELETE_ATTR"}:
            if (owner := pop()) is not None:
                stored.add(owner)
            if name == "STORE_ATTR":
                pop()
        elif name in {"STORE_SUBSCR", "DELETE_SUBSCR"}:
            pop()
            if (owner := pop()) is not None:
                stored.add(owner)
            if name == "STORE_SUBSCR":
                pop()
        elif name == "BINARY_SUBSCR" or (name == "BINARY_OP" and step.argrepr == "[]"):
            pop()
            owner = pop()
            stack.append(owner and (*owner, "[]"))
        elif name in {"STORE_SLICE", "BINARY_SLICE"}:  # from 3.12 on
            pop()
            pop()
            owner = pop()
            if name == "BINARY_SLICE":
                stack.append(owner and (*owner, "[]"))
                continue
            if owner is not None:
                stored.add(owner)
            pop()
        elif name == "COPY":
            stack.append(stack[-step.arg] if step.arg and len(stack) >= step.arg else None)
        elif name == "SWAP":
            if step.arg and len(stack) >= step.arg:
                stack[-1], stack[-step.arg] = stack[-step.arg], stack[-1]
        else:
            _generic(step, stack)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            _follow(const, frozenset(const.co_freevars) & free, rebound, stored, {})


def _generic(step: dis.Instruction, stack: list[tuple[str, ...] | None]) -> None:
    """Apply an instruction whose operands do not matter here: forget what it may have touched."""
    if step.opname in {"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "JUMP_BACKWARD", "JUMP_FORWARD"}:
        stack.clear()
        return
    try:
        effect = dis.stack_effect(step.opcode, step.arg if step.opcode >= dis.HAVE_ARGUMENT else None, jump=False)
    except ValueError:
        effect = 0
    if effect < 0:
        del stack[effect:]
    if stack and not step.opname.startswith(
        (
            "PUSH",
            "PRECALL",
            "RESUME",
            "NOP",
            "CACHE",
            "EXTENDED",
            "MAKE_CELL",
            "KW_NAMES",
            "LOAD",
            "POP_TOP",
            "TO_BOOL",
            "POP_JUMP",
        )
    ):
        stack[-1] = None
    stack += [None] * max(0, effect)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from code.co_freevars
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
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


def _resolve(path: tuple[str, ...], values: dict[str, Any]) -> Any:
    """Follow a dotted path through modules and instance dictionaries only, so that no user code runs."""
    value = values.get(path[0], builtins)
    for part in path[1:]:
        if part == "[]" or part.startswith("."):
            break
        kinds = value.__mro__ if isinstance(value, type) else (value,)
        holders = [vars(kind) for kind in kinds if part in getattr(kind, "__dict__", ())]
        if not holders:
            return value if isinstance(value, types.ModuleType) else None
        value = holders[0][part]
    return value


def _is_change(path: tuple[str, ...], values: dict[str, Any]) -> bool:
    """Tell whether storing into *path*, or calling the mutator at its end, changes outside state."""
    if path[0] not in values:
        return False
    owner = _resolve(path, values)
    if path[-1].startswith("."):
        return not isinstance(owner, types.ModuleType | type | types.FunctionType)
    return True


def outside(func: Callable[..., Any]) -> Outside:
    """Find the state outside *func* that its code, and the code of helpers in its module, reads and changes."""
    found, bound = bare(func)
    objects = {f"bound argument {i}" if i else "self": value for i, value in enumerate(bound)}
    if found is None:
        return Outside({}, (), (), _unshareable(objects))
    values: dict[str, Any] = {}
    mutates: set[str] = set()
    for helper in _helpers(found):
        named = named_values(helper)
        if helper is found and bound and not isinstance(func, functools.partial):
            named["<arg>"] = bound[-1]
        defaults = _mutable_defaults(helper)
        named |= defaults
        rebound, stored = _touched(helper.__code__, frozenset(defaults))
        mutates |= {name for name in rebound if name in named or name in helper.__globals__}
        mutates |= {path[0] for path in stored if _is_change(path, named)}
        mutates |= rebound - set(named)
        values |= named
    if "<arg>" in values:
        values["self"] = values.pop("<arg>")
    mutates = {"self" if name == "<arg>" else name for name in mutates}
    mutates |= {name for name, value in values.items() if _is_random(value)}
    objects |= values
    reads = tuple(sorted(name for name, value in values.items() if name not in mutates and _is_mutable(value)))
    return Outside(values, tuple(sorted(mutates)), reads, _unshareable(objects))


def _mutable_defaults(found: types.FunctionType) -> dict[str, Any]:
    """Return the mutable default values of a function's arguments, by name; calls share them."""
    code = found.__code__
    n_args = code.co_argcount
    values = dict(zip(code.co_varnames[:n_args][::-1], (found.__defaults__ or ())[::-1], strict=False))
    values |= found.__kwdefaults__ or {}
    return {name: value for name, value in values.items() if _is_mutable(value)}


def _helpers(found: types.FunctionType) -> Iterator[types.FunctionType]:
    """Yield the function and the functions of its own module that it names, directly or through others."""
    seen, todo = {found}, [found]
    while todo:
        helper = todo.pop()
        yield helper
        for value in named_values(helper).values():
            inner = value if isinstance(value, types.FunctionType) else None
            if inner is not None and inner.__module__ == found.__module__ and inner not in seen:
                seen.add(inner)
                todo.append(inner)


def _is_random(value: Any) -> bool:
    """Tell whether a value is a generator of random numbers, or a method of one: drawing from it changes it."""
    owner = None if isinstance(value, type) else getattr(value, "__self__", None)
    if owner is not None and callable(value) and not isinstance(owner, types.ModuleType | type):
        return _is_random(owner)
    kind: Any = type(value)
    kinds = {(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__}
    return ("random", "Random") in kinds or any(module == "numpy" and name in _RANDOM for module, name in kinds)


def _is_mutable(value: Any) -> bool:
    if isinstance(value, list | dict | set | bytearray):
        return True
    return type(value).__name__ in {"deque", "ndarray", "DataFrame", "Series", "array"} and not callable(value)


def _unshareable(values: dict[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(name for name, value in values.items() if _forbids_fork(value, depth=2)))


def _forbids_fork(value: Any, depth: int) -> bool:
    owner = None if isinstance(value, type) else getattr(value, "__self__", None)
    if owner is not None and callable(value):
        return depth > 0 and not isinstance(owner, types.ModuleType | type) and _forbids_fork(owner, depth - 1)
    if isinstance(value, _INERT):
        return False
    if isinstance(value, dict | list | tuple | set | frozenset):
        inner = itertools.islice(value.values() if isinstance(value, dict) else value, 20)
        return depth > 0 and any(_forbids_fork(v, depth - 1) for v in inner)
    kind = type(value)
    if kind.__name__ in _RANDOM and kind.__module__.startswith("numpy"):
        return True
    if kind.__module__.partition(".")[0] in _UNSHAREABLE:
        return True
    attributes = getattr(value, "__dict__", None)
    return depth > 0 and isinstance(attributes, dict) and _forbids_fork(attributes, depth - 1)
