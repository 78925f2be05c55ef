"""Methods whose code is not followed, judged by what their object is and by their name."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import bounds, inert
from amorsize._analysis.codings import CODING, follow_coding, follow_errors
from amorsize._analysis.library import MUTATORS, VIEWS, WRITERS, change_out, from_library
from amorsize._analysis.protocols import FORMATTERS, format_any, format_text, manage
from amorsize._analysis.settings import NUMPY_RANDOM, is_setter, note
from amorsize._analysis.special import (
    ORDERLESS,
    drain,
    follow_given,
    follow_overrides,
    is_function,
    pass_to_unknown,
    run_callbacks,
    touch,
)
from amorsize._analysis.values import (
    BOUND,
    CODE,
    EXACT,
    FRESH,
    ITEMS,
    KEYS,
    MADE,
    METHOD,
    PART,
    Ref,
    Thing,
    Value,
    all_of,
    class_attribute,
    copied,
    exactly,
    held_in,
    is_ordered_by_seed,
    items_of,
    made,
    n_parameters,
    own_attribute,
    parts_of,
    plain,
    union,
)
from amorsize._attribute import is_of, module_of, name_of

if TYPE_CHECKING:
    from amorsize._analysis.look import Look

# Methods of new containers that return no more than how many there are.
_SIZES: Final = frozenset(["__len__", "index", "count", "sort", "clear", "reverse", "join", "split", "format", "strip"])

# Methods of dictionaries that give what is under a key, or else what they are given.
_BY_KEY: Final = frozenset(["get", "pop", "setdefault"])

# Methods of containers that compare what they hold.
_COMPARING: Final = frozenset(["sort", "index", "count", "remove"])

# Methods that only read, whatever the object: of those in inert packages, and in C of the standard library.
_READERS: Final = frozenset(["get", "keys", "items", "values", "copy", "index", "count"])

_READING: Final = (
    "get", "find", "is", "has", "keys", "items", "values", "copy", "count", "index", "iter", "digest", "hexdigest",
    "format", "match", "search", "tz", "utc", "str", "total", "most_", "elements", "__",
)  # fmt: skip

# What is done with a stream or a lock and leaves it as it was, once the item is over.
_HARMLESS_OF_STATE: Final = frozenset(
    ["__enter__", "__exit__", "locked", "fileno", "isatty", "readable", "writable", "seekable", "getvalue", "getbuffer",
     "tell", "flush", "release", "_is_owned"]
)  # fmt: skip

# Methods of queues and events that only ask.
_ASKING: Final = frozenset(["empty", "full", "qsize", "is_set", "locked"])


# Methods of type that make a class, or read from one.
_MAKING: Final = frozenset(["__new__", "__init__", "__prepare__", "__getattribute__"])


def call_method(  # noqa: C901, PLR0911, PLR0912 - one branch per kind of object
    look: Look, ref: Ref, args: list[Value], keywords: dict[str, Value]
) -> Value:
    """Call a method whose code cannot be read, by what its object is."""
    owner, name, given = ref.value, str(ref.name), all_of(args, keywords)
    if is_of(owner, Thing):
        return _call_method_of_thing(look, owner, name, args, keywords)
    if is_of(owner, types.FunctionType | types.MethodType) and name in {"__call__", "__get__"}:
        return _call_or_bind(look, Ref(EXACT, owner, ref.root), name, args, keywords)
    kind = inert.kind_of_class(type(owner)) if not is_of(owner, type) else "immutable"
    pass_to_unknown(look, args, keywords)
    change_out(look, keywords)
    if is_of(owner, set | frozenset) and name not in ORDERLESS and is_ordered_by_seed(owner):
        look.depend_on_seed("the order of a set")
    if is_of(owner, str | bytes | bytearray):
        _call_method_of_text(look, owner, name, args, keywords)
    if name_of(type(owner)) == "ContextVar":
        return _call_variable(look, ref, name)
    if name in {"cache_info", "cache_clear"} and is_of(own_attribute(owner, "__wrapped__"), types.FunctionType):
        look.change((ref,))  # how often a cache was asked, each process counts for itself
    if kind == "immutable":
        if name in WRITERS:
            look.change(given)
        if name in {"__set__", "__delete__"} and args:
            look.change(args[0])
        if is_of(owner, type):
            return _call_method_of_class(look, owner, name, args, keywords)
        # Of a ufunc: where, and what, is written.
        if name == "at" and args:
            look.change(args[0])
        return parts_of(given) if name in {"reduce", "accumulate"} else FRESH
    if name in MUTATORS and kind != "callable":
        look.change((ref,))
        return parts_of((ref,))
    if kind in {"generator", "iterator"}:
        look.change((ref,))
        if name == "send":
            look.sent = union(look.sent, given)
        if name in {"shuffle", "bytes", "readinto"}:
            look.change(given)
        return FRESH
    if kind == "state":
        return _call_method_of_state(look, ref, name, given)
    if name in {"get", "__getitem__"} and args and is_of(owner, dict) and (found := _by_key(look, owner, args[0])):
        return found
    if kind in {"container", "array", "data"}:
        if any(r.kind == EXACT and r.value is True for r in keywords.get("inplace", ())):
            look.change((ref,))
        if kind == "data":
            look.doubt((ref,), f"its method {name} cannot be looked into")
        if module_of(type(owner)) == "array" and name in {"fromlist", "frombytes", "fromfile", "byteswap"}:
            look.change((ref,))
        if name in _SIZES:
            return FRESH
        out = parts_of((ref,))
        if kind == "array":
            is_view = name in VIEWS or name in {"view", "__getitem__", "__iter__"}
            has_objects = bool(getattr(getattr(owner, "dtype", None), "hasobject", True))
            return out if is_view else copied(out) if has_objects else FRESH
        return copied((ref,)) if name == "copy" else union(out if kind == "container" else FRESH, held_in(out))
    if kind == "callable" and not name.startswith("__"):
        return parts_of((ref,))
    if name in {"__init__", "__new__", "__init_subclass__", "__repr__", "__str__", "__eq__", "__hash__", "__dir__",
                "__getattribute__", "__class__", "__format__", "__sizeof__", "__reduce__"}:  # fmt: skip
        return parts_of((ref,))
    is_own = module_of(type(owner)).partition(".")[0] in sys.stdlib_module_names
    if kind == "unknown" and is_own and not name.startswith(_READING):
        look.change((ref,))
        return parts_of((ref,))
    look.doubt((ref,), f"its method {name} cannot be looked into")
    return parts_of((ref,))


def call_shared(look: Look, ref: Ref, args: list[Value], keywords: dict[str, Value]) -> Value:
    """Call a method of what a library gives to all who ask for it."""
    name, given = str(ref.name), all_of(args, keywords)
    pass_to_unknown(look, args, keywords)
    if ref.value is NUMPY_RANDOM:
        if name != "default_rng" and not name[:1].isupper():  # those make a generator of their own
            look.changes[ref.root] = None
    elif is_setter(name) or name in MUTATORS:
        note(look, ref.root, ref.value.module, [*args, *keywords.values()], by=name)
    return held_in(union(given, parts_of(given)))


def _by_key(look: Look, owner: Any, key: Value) -> Value:
    """Return the module that is looked up in ``sys.modules``; of a module's variables, note which is read."""
    name = plain(key)
    look.read(owner, name)
    module = sys.modules.get(name) if owner is sys.modules else None
    return FRESH if module is None else exactly(module, str(name))


def call_method_of(look: Look, owner: Value, name: str, args: list[Value], keywords: dict[str, Value]) -> Value:
    """Call a method of C that was taken from its class, such as ``list.sort``, with its object as first argument."""
    out: Value = FRESH
    for ref in owner or made(None):  # of an item it does what it does of anything unknown
        if ref.kind in {EXACT, PART, MADE}:
            out = union(out, call_method(look, Ref(METHOD, ref.value, ref.root, name), args, keywords))
    return out


def _call_method_of_class(look: Look, kind: type, name: str, args: list[Value], keywords: dict[str, Value]) -> Value:
    if name == "__subclasses__":
        derived: list[type] = type.__subclasses__(kind)
        return held_in(all_of([exactly(inner, name_of(inner)) for inner in derived], {}), list)
    makes_class = name in _MAKING and issubclass(kind, type)
    return from_library(look, module_of(kind), name, args, keywords, is_pure=makes_class)


def _call_or_bind(look: Look, function: Ref, name: str, args: list[Value], keywords: dict[str, Value]) -> Value:
    if name == "__call__":
        return look.call((function,), args, keywords)
    return (function, Ref(BOUND, (function.value, args[0] if args else FRESH), function.root))


def _call_method_of_state(look: Look, ref: Ref, name: str, given: Value) -> Value:
    """Call a method of a stream, a connection or a lock: all but a few leave it in another state."""
    if name == "acquire":
        look.locked[ref.root] = None
    elif name == "release":
        look.locked.pop(ref.root, None)
    elif name not in _HARMLESS_OF_STATE:
        look.change((ref,))
    if name.startswith("readinto") or name == "recv_into":
        look.change(given)
    return parts_of((ref,))


def _call_method_of_text(look: Look, text: Any, name: str, args: list[Value], keywords: dict[str, Value]) -> None:
    if name in CODING:
        follow_coding(look, args, keywords)
    if name == "join":
        drain(look, all_of(args, keywords), "join")
    if name in FORMATTERS and is_of(text, str):
        format_text(look, text, name, args, keywords)


def _call_variable(look: Look, ref: Ref, name: str) -> Value:
    if name in {"set", "reset"}:
        look.changes[ref.root] = None
        return FRESH
    try:
        value = ref.value.get()
    except LookupError:
        return FRESH
    return exactly(value, ref.root)


def _call_method_of_thing(  # noqa: C901, PLR0912 - what a method may do with what it is given
    look: Look, thing: Thing, name: str, args: list[Value], keywords: dict[str, Value]
) -> Value:
    """Call a method of something made here: it may keep what it is given, and gives back what it holds."""
    given = all_of(args, keywords)
    thing.put(ITEMS, manage(look, name, args, keywords))
    if name in FORMATTERS:
        format_any(look, given)
    if name in CODING:
        follow_coding(look, args, keywords)
    follow_errors(look, keywords)
    if name in _COMPARING:
        touch(look, thing.all())
    if is_of(thing.kind, type):
        follow_overrides(look, (Ref(MADE, thing),), thing.kind)
    follow_given(look, given)
    held = thing.all()
    if name in WRITERS:
        look.change(given)
    if name in {"send", "throw"}:
        look.sent = union(look.sent, given)
    if name == "join" or name in {"extend", "update", "writerows"}:
        drain(look, given, name)
    if thing.kind in {set, frozenset} and name in {"pop", "__iter__"}:
        look.depend_on_seed("the order of a set")
    for value in (*args, *keywords.values()):
        run_callbacks(look, union(value, held) if value else value, [held, *args])
        touch(look, value)
    parts = union(given, parts_of(given))
    for ref in held:
        # Something new that holds functions, such as an executor or a stack of callbacks, may call them.
        if ref.kind in {CODE, BOUND} or is_function(ref):
            n = min(bounds.MOST_ARGUMENTS, n_parameters(ref))
            held = union(held, look.call((ref,), [union(parts, held)] * n, {}))
    if thing.kind is dict and name in _BY_KEY and args:
        thing.put(KEYS, args[0])
        thing.put(ITEMS, all_of(args[1:], {}))
        return thing.by_key()
    if name not in _SIZES:
        thing.put(ITEMS, union(given, items_of(given) if name in {"extend", "update"} else FRESH))
    if name in _SIZES:
        return FRESH
    if thing.kind is list and name in {"append", "extend", "insert", "remove"}:
        return FRESH
    kind = thing.kind if thing.kind in {set, frozenset} and name in ORDERLESS else None
    everything = union(thing.all(), items_of(thing.all()))
    return union(everything, made(kind, everything) if everything or kind else FRESH)


def judge_method(look: Look, func: types.FunctionType, args: list[Value], keywords: dict[str, Value]) -> None:
    """Judge a method of a class of an inert package by its name; its object is the first argument."""
    name = func.__name__
    for ref in args[0]:
        if ref.kind != EXACT or class_attribute(type(ref.value), name) is not func:
            continue
        kind = inert.kind_of_class(type(ref.value))
        if is_setter(name) and name not in MUTATORS and (kind in _SET or module_of(type(ref.value)) == "logging"):
            note(look, ref.root, module_of(type(ref.value)), [*args[1:], *keywords.values()], by=name)
        if (
            name in MUTATORS
            or kind in {"generator", "iterator"}
            or (kind == "state" and name not in _HARMLESS_OF_STATE and not name.startswith(("acquire", "release")))
        ):
            look.change((ref,))
        elif _is_stateful_library(type(ref.value)):
            if name == "acquire":
                look.locked[ref.root] = None
            elif name == "release":
                look.locked.pop(ref.root, None)
            elif name not in _HARMLESS_OF_STATE and name not in _ASKING:
                look.change((ref,))
        elif name not in _READERS and kind in {"object", "unknown", "state"}:
            look.doubt((ref,), f"its method {name} cannot be looked into")


# Kinds of objects of libraries whose methods are judged by their names: an abstract class is asked to register.
_SET: Final = frozenset({"object", "unknown", "state", "callable"})


def _is_stateful_library(kind: type) -> bool:
    """Tell whether a class of the standard library written in Python is there to be changed: a queue, an event."""
    module = module_of(kind)
    return module in _STATEFUL or module.startswith("encodings.")  # a decoder of what comes in parts


_STATEFUL: Final = frozenset(
    ["queue", "threading", "multiprocessing.queues", "asyncio.queues", "sched", "tempfile", "unittest.mock"]
)
