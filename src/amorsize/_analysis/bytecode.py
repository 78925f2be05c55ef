"""
Code objects as lists of instructions, for all supported versions of CPython, and what each opcode means for a reader.

An opcode that is not in the tables below has the meaning ``"unknown"``: whoever follows the code must then say that it
does not know what the code does. ``tests/test_bytecode.py`` goes through all of ``dis.opmap``.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from typing import Any, Final, NamedTuple

# The versions whose encoding of arguments is written down here; for others, dis is asked, which takes longer.
_KNOWN_VERSION: Final = (3, 11) <= sys.version_info[:2] <= (3, 15)


class Step(NamedTuple):
    """One instruction: where, what, its argument, what that stands for, and where it may jump to (-1: nowhere)."""

    offset: int
    meaning: str
    op: int
    arg: int
    value: Any
    target: int


_MEANINGS: Final[dict[str, tuple[str, ...]]] = {
    "fast": ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_AND_CLEAR", "LOAD_FAST_BORROW"),
    "fast fast": ("LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"),
    "closure": ("LOAD_CLOSURE",),
    "store fast": ("STORE_FAST", "STORE_FAST_MAYBE_NULL"),
    "store fast, fast": ("STORE_FAST_LOAD_FAST",),
    "store fast fast": ("STORE_FAST_STORE_FAST",),
    "global": ("LOAD_GLOBAL",),
    "name": ("LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"),
    "store global": ("STORE_GLOBAL",),
    "delete global": ("DELETE_GLOBAL",),
    "deref": ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"),
    "store deref": ("STORE_DEREF",),
    "delete deref": ("DELETE_DEREF",),
    "attr": ("LOAD_ATTR",),
    "method": ("LOAD_METHOD",),
    "super attr": ("LOAD_SUPER_ATTR", "LOAD_SUPER_METHOD", "LOAD_ZERO_SUPER_ATTR", "LOAD_ZERO_SUPER_METHOD"),
    "store attr": ("STORE_ATTR",),
    "delete attr": ("DELETE_ATTR",),
    "subscr": ("BINARY_SUBSCR",),
    "store subscr": ("STORE_SUBSCR",),
    "delete subscr": ("DELETE_SUBSCR",),
    "slice": ("BINARY_SLICE",),
    "store slice": ("STORE_SLICE",),
    "binary": ("BINARY_OP",),
    "const": ("LOAD_CONST", "LOAD_CONST_IMMORTAL", "LOAD_CONST_MORTAL"),
    "small int": ("LOAD_SMALL_INT",),
    "null": ("PUSH_NULL",),
    "call": ("CALL",),
    "call kw": ("CALL_KW",),
    "call ex": ("CALL_FUNCTION_EX",),
    "kw names": ("KW_NAMES",),
    "function": ("MAKE_FUNCTION",),
    "function attribute": ("SET_FUNCTION_ATTRIBUTE",),
    "build": ("BUILD_LIST", "BUILD_TUPLE", "BUILD_MAP", "BUILD_CONST_KEY_MAP", "BUILD_SLICE"),
    "build set": ("BUILD_SET",),
    "add to": ("LIST_APPEND", "MAP_ADD", "SET_ADD"),
    "extend": ("LIST_EXTEND", "SET_UPDATE", "DICT_UPDATE", "DICT_MERGE"),
    "iter": ("GET_ITER", "GET_YIELD_FROM_ITER", "GET_AITER"),
    "next": ("FOR_ITER",),
    "unpack": ("UNPACK_SEQUENCE", "UNPACK_EX"),
    "copy": ("COPY",),
    "swap": ("SWAP",),
    "contains": ("CONTAINS_OP",),
    "compare": ("COMPARE_OP",),
    "unary": ("UNARY_NEGATIVE", "UNARY_POSITIVE", "UNARY_INVERT"),
    "format": ("FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC"),
    "return": ("RETURN_VALUE",),
    "end": ("RETURN_CONST", "RAISE_VARARGS", "RERAISE"),
    "yield": ("YIELD_VALUE",),
    "push exception": ("PUSH_EXC_INFO",),
    "build class": ("LOAD_BUILD_CLASS",),
    "store name": ("STORE_NAME",),
    "import": ("IMPORT_NAME",),
    "import from": ("IMPORT_FROM",),
    "with": ("BEFORE_WITH", "BEFORE_ASYNC_WITH", "SETUP_WITH"),
    "special": ("LOAD_SPECIAL",),
    "jump": ("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP", "JUMP_NO_INTERRUPT",
             "JUMP_BACKWARD_JIT", "JUMP_BACKWARD_NO_JIT"),
    "test": ("POP_JUMP_IF_TRUE", "POP_JUMP_IF_FALSE", "POP_JUMP_IF_NONE", "POP_JUMP_IF_NOT_NONE", "TO_BOOL",
             "UNARY_NOT", "POP_JUMP_FORWARD_IF_TRUE", "POP_JUMP_FORWARD_IF_FALSE", "POP_JUMP_FORWARD_IF_NONE",
             "POP_JUMP_FORWARD_IF_NOT_NONE", "POP_JUMP_BACKWARD_IF_TRUE", "POP_JUMP_BACKWARD_IF_FALSE",
             "POP_JUMP_BACKWARD_IF_NONE", "POP_JUMP_BACKWARD_IF_NOT_NONE", "JUMP_IF_TRUE_OR_POP",
             "JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE", "JUMP_IF_FALSE"),
    "is": ("IS_OP",),
    # Of 3.11: it moves nothing, whatever dis says of its effect on the stack.
    "nothing": ("PRECALL",),
    "pass on": ("GET_AWAITABLE", "SEND", "GET_ANEXT", "MATCH_CLASS", "MATCH_KEYS", "MATCH_MAPPING", "MATCH_SEQUENCE",
                "COPY_DICT_WITHOUT_KEYS", "CONVERT_VALUE", "CALL_INTRINSIC_1", "CALL_INTRINSIC_2",
                "BUILD_INTERPOLATION", "BUILD_TEMPLATE", "END_SEND"),
    # What only moves, or makes something new of what it is given.
    "plain": ("NOP", "NOT_TAKEN", "RESUME", "RESUME_CHECK", "CACHE", "EXTENDED_ARG", "POP_TOP", "POP_ITER", "END_FOR",
              "MAKE_CELL", "COPY_FREE_VARS", "RETURN_GENERATOR", "GET_LEN", "BUILD_STRING", "LOAD_ASSERTION_ERROR",
              "LOAD_COMMON_CONSTANT", "LOAD_LOCALS", "SETUP_ANNOTATIONS", "POP_EXCEPT", "CHECK_EXC_MATCH",
              "CHECK_EG_MATCH", "PREP_RERAISE_STAR", "WITH_EXCEPT_START", "DELETE_FAST",
              "END_ASYNC_FOR", "CLEANUP_THROW", "ASYNC_GEN_WRAP", "EXIT_INIT_CHECK", "ENTER_EXECUTOR",
              "INTERPRETER_EXIT", "RESERVED", "TRACE_RECORD", "ANNOTATIONS_PLACEHOLDER",
              "BINARY_OP_INPLACE_ADD_UNICODE", "SETUP_FINALLY", "SETUP_CLEANUP", "POP_BLOCK",
              "LIST_TO_TUPLE", "DELETE_NAME", "BUILD_KEY_VALUE"),
}  # fmt: skip

MEANING_OF: Final[dict[str, str]] = {name: meaning for meaning, names in _MEANINGS.items() for name in names}


def meaning(op: int) -> str:
    """Return what an opcode means here; ``"unknown"`` where nobody has said."""
    name = dis.opname[op]
    if name.startswith("INSTRUMENTED_"):
        name = name.removeprefix("INSTRUMENTED_")
    return MEANING_OF.get(name, "unknown")


_BY_OP: Final = [meaning(op) if op < len(dis.opname) else "unknown" for op in range(256)]
_CACHE_OP: Final = dis.opmap.get("CACHE", 0)
_EXTENDED: Final = dis.opmap["EXTENDED_ARG"]
_HAVE_ARGUMENT: Final = dis.HAVE_ARGUMENT
_JUMPS: Final = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)
_BACKWARD: Final = frozenset(op for name, op in dis.opmap.items() if "BACKWARD" in name)
_NAME_SHIFTS: Final = {
    "global": 1,
    "attr": 1 if sys.version_info >= (3, 12) else 0,
    "super attr": 2,
    "import": 2 if sys.version_info >= (3, 15) else 0,  # behind two bits for lazy imports
}
_NAMED: Final = frozenset(
    {"name", "store global", "delete global", "attr", "method", "global", "super attr", "store attr", "delete attr",
     "import", "import from"}
)  # fmt: skip
_IMPORTS: Final = frozenset(op for op, what in enumerate(_BY_OP) if what == "import")
_LOADS: Final = frozenset({"attr", "method", "global", "name"})
_NO_LOAD: Final = ("", "")
_PLACES: Final = frozenset({"deref", "store deref", "delete deref", "closure"})
_PAIRS: Final = frozenset({"fast fast", "store fast, fast", "store fast fast"})


@functools.lru_cache(maxsize=1024)
def steps(code: types.CodeType) -> tuple[Step, ...]:
    """Return the instructions of a code object, without those of the code nested in it."""
    return tuple(_decode(code)) if _KNOWN_VERSION else tuple(_asked(code))


def _decode(code: types.CodeType) -> list[Step]:  # noqa: C901 - one branch per kind of argument
    raw, names, consts, varnames = code.co_code, code.co_names, code.co_consts, code.co_varnames
    places = (*varnames, *(c for c in code.co_cellvars if c not in varnames), *code.co_freevars)
    found: list[Step] = []
    new = tuple.__new__  # half the time of Step(), which most of this loop would be
    arg, size = 0, len(raw)
    for offset, op, low in zip(range(0, size, 2), raw[::2], raw[1::2], strict=True):
        if op == _CACHE_OP:
            continue
        arg |= low
        if op == _EXTENDED:
            arg <<= 8
            continue
        value: Any = None
        what, target = _BY_OP[op], -1
        if what in _NAMED:
            value = names[arg >> _NAME_SHIFTS.get(what, 0)]
        elif what in {"fast", "store fast"}:
            value = places[arg]
        elif what in _PAIRS:
            value = (places[arg >> 4], places[arg & 15])
        elif what == "const" or (what == "end" and dis.opname[op] == "RETURN_CONST") or what == "kw names":
            value = consts[arg]
        elif what == "small int":
            value = arg
        elif what in _PLACES:
            value = places[arg]
        if op in _JUMPS and op not in _BACKWARD:
            after = offset + 2
            while after < size and raw[after] == _CACHE_OP:
                after += 2
            target = after + 2 * arg
        if what == "import":
            value = "." * _level(found) + value
        found.append(new(Step, (offset, what, op, arg, value, target)))
        arg = 0
    return found


def _level(before: list[Step]) -> int:
    """Return how many dots an import statement has: its code loads them, and the names that it takes, just before."""
    level = before[-2].value if len(before) > 1 else 0
    return level if isinstance(level, int) else 0


def _asked(code: types.CodeType) -> list[Step]:
    """Decode with dis, for versions whose encoding is not written down here."""
    found: list[Step] = []
    for step in dis.get_instructions(code):
        if step.opcode in {_CACHE_OP, _EXTENDED}:
            continue
        target = step.argval if step.opcode in _JUMPS and isinstance(step.argval, int) else -1
        value = None if step.opcode in _JUMPS else step.argval
        if meaning(step.opcode) == "import":
            value = "." * _level(found) + str(value)
        found.append(Step(step.offset, meaning(step.opcode), step.opcode, step.arg or 0, value, target))
    return found


@functools.cache
def effect(op: int, arg: int, *, jump: bool) -> int:
    """Return by how much an instruction lengthens the stack; 0 where dis does not know it."""
    try:
        return dis.stack_effect(op, arg if op >= _HAVE_ARGUMENT else None, jump=jump)
    except ValueError:
        try:
            return dis.stack_effect(op, arg, jump=jump)
        except ValueError:
            return 0


# Flags of code that does not run when it is called: of generators, coroutines and asynchronous generators.
RUNS_LATER: Final = 0x20 | 0x80 | 0x200


@functools.lru_cache(maxsize=1024)
def names_of(code: types.CodeType) -> frozenset[str]:
    """Return all names of globals, attributes and imports in a code object and the code nested in it."""
    found = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found |= names_of(const)
    return frozenset(found)


def _ops(code: types.CodeType) -> set[int]:
    """Return the opcodes in a code object: a fortieth of the time that its instructions take."""
    return set(code.co_code[::2]) if _KNOWN_VERSION else {step.op for step in steps(code)}


@functools.lru_cache(maxsize=1024)
def unknown_ops(code: types.CodeType) -> frozenset[str]:
    """Return the names of the opcodes in a code object, and the code nested in it, whose meaning is not known."""
    found = {dis.opname[op] for op in _ops(code) if _BY_OP[op] == "unknown"}
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found |= unknown_ops(const)
    return frozenset(found)


def _loads(code: types.CodeType) -> list[tuple[str, str]]:
    """Return what instructions load by name, and "" for the others: a third of the time that all of them take."""
    if not _KNOWN_VERSION:
        return [(step.meaning, step.value) if step.meaning in _LOADS else _NO_LOAD for step in steps(code)]
    raw, names, arg = code.co_code, code.co_names, 0
    found = []
    for op, low in zip(raw[::2], raw[1::2], strict=True):
        if op == _CACHE_OP:
            continue
        arg |= low
        if op == _EXTENDED:
            arg <<= 8
            continue
        what = _BY_OP[op]
        found.append((what, names[arg >> _NAME_SHIFTS.get(what, 0)]) if what in _LOADS else _NO_LOAD)
        arg = 0
    return found


@functools.lru_cache(maxsize=1024)
def chains_of(code: types.CodeType) -> frozenset[tuple[str, ...]]:
    """
    Return the globals that a code object, and the code nested in it, loads.

    Each with the attributes that are taken from it at once: ``("np", "random", "rand")``. A name that is loaded by
    itself, and may be anything's from there on, stands alone. So do modules that are imported, with the dots of their
    import statement.
    """
    found: set[tuple[str, ...]] = set()
    current: tuple[str, ...] = ()
    for what, name in _loads(code):
        if current and what in {"attr", "method"}:
            current += (name,)
            continue
        if current:
            found.add(current)
        current = (name,) if what in {"global", "name"} else ()
    if current:
        found.add(current)
    for imported in imports_of(code):
        found |= {(imported,), (imported.partition(".")[0] or imported,)}
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found |= chains_of(const)
    return frozenset(found)


@functools.lru_cache(maxsize=1024)
def imports_of(code: types.CodeType) -> frozenset[str]:
    """Return the modules that code imports when it runs, as it spells them, those of functions inside it included."""
    found = set()
    if not _IMPORTS.isdisjoint(_ops(code)):
        found = {str(step.value) for step in steps(code) if step.meaning == "import"}
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found |= imports_of(const)
    return frozenset(found)


@functools.lru_cache(maxsize=1024)
def protected(code: types.CodeType) -> tuple[Any, ...]:
    """Return the ranges of a code object in which exceptions are handled: start, end, target, depth, lasti."""
    parse = getattr(dis, "_parse_exception_table", None)
    return () if parse is None else tuple(parse(code))
