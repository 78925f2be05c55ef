"""What a place in a function's code may stand for, and how such values are put together."""

from __future__ import annotations

import collections
import functools
import itertools
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amorsize._analysis import bounds, inert
from amorsize._attribute import attributes, bases_of, is_of, name_of, namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EXACT, PART, METHOD, CODE, NULL, MADE, BOUND, SUPER = range(8)


class Ref(NamedTuple):
    """
    What a place in the code may stand for.

    Attributes:
        kind: EXACT (this object), PART (this object or something in it), METHOD (the method *name* of it), CODE (a
            function made on the way), MADE (something made on the way: a Thing), BOUND (a method of that), SUPER (what
            super() gives), NULL (no value).
        value: The object; for CODE, the code object, its globals, cells and defaults; for BOUND, function and owner;
            for SUPER, the class and the object.
        root: The name it goes by in the function's own words.
        name: Name of a method; else where the value was read from, for what is tested before it is set.
    """

    kind: int
    value: Any
    root: str = ""
    name: Any = None


Value = tuple[Ref, ...]
FRESH: Final[Value] = ()
NO_VALUE: Final[Value] = (Ref(NULL, None),)
ABSENT: Final = object()

# Of a PART: that it is something in the object, and not the object itself.
INSIDE: Final = "inside"

# Where a Thing holds what has no name: the items of a container, and the keys that they are put under.
ITEMS: Final = ""
KEYS: Final = "its keys"


class Thing:
    """Something made on the way: changing it changes nothing outside, but what it holds may live there."""

    __slots__ = ("held", "kind", "size")

    def __init__(self, kind: Any, items: Value = FRESH) -> None:
        # The class, where it is known: None for what a library has made.
        self.kind = kind
        self.held: dict[str, Value] = {ITEMS: items} if items else {}
        self.size = len(items)

    def put(self, name: str, value: Value) -> None:
        """Let it hold a value, too."""
        if value:
            held = self.held.get(name, FRESH)
            both = self.held[name] = union(held, tuple(ref for ref in value if ref.kind != NULL))
            self.size += len(both) - len(held)

    def get(self, name: str) -> Value:
        """Return what one of its attributes may be."""
        return union(self.held.get(name, FRESH), union(self.held.get(ITEMS, FRESH), self.held.get(KEYS, FRESH)))

    def all(self) -> Value:
        """Return all it may hold."""
        return union(self.by_key(), self.held.get(KEYS, FRESH))

    def by_key(self) -> Value:
        """Return what may be had from it with a key: all but the keys."""
        out: Value = FRESH
        for name, value in self.held.items():
            out = out if name is KEYS else union(out, value)
        return out


def exactly(value: Any, root: str) -> Value:
    return (Ref(EXACT, value, root),)


def made(kind: Any, items: Value = FRESH) -> Value:
    return (Ref(MADE, Thing(kind, items)),)


def ref_key(ref: Ref) -> tuple[Any, ...]:
    if ref.kind == CODE:
        return (CODE, id(ref.value[0]), id(ref.value[2]), len(ref.value[3]))
    if ref.kind == MADE:
        return (MADE, id(ref.value), ref.value.size)
    if ref.kind in {BOUND, SUPER}:
        return (ref.kind, id(ref.value[0]), *(ref_key(inner) for inner in ref.value[1]))
    if ref.kind == METHOD and is_of(ref.value, Thing):
        return (METHOD, id(ref.value), ref.value.size, ref.name)
    return (ref.kind, id(ref.value), ref.root, str(ref.name))


def key_of(value: Value) -> tuple[Any, ...]:
    return tuple(map(ref_key, value))


def union(one: Value, other: Value) -> Value:
    if not other or one is other:
        return one
    if not one:
        return other
    known = {ref_key(ref) for ref in one}
    new = tuple(ref for ref in other if ref_key(ref) not in known)
    return (one + new)[: bounds.MOST_VALUES] if new else one


def all_of(args: Iterable[Value], keywords: dict[str, Value]) -> Value:
    out: Value = FRESH
    for value in itertools.chain(args, keywords.values()):
        out = union(out, tuple(ref for ref in value if ref.kind != NULL))
    return out


class _Somewhere:
    """Any object of any module: what is found by a name that is known at run time only."""


SOMEWHERE: Final = _Somewhere()


def somewhere(root: str) -> Value:
    """Return what stands for something that a module holds, or the module: nobody can say which."""
    return (Ref(PART, SOMEWHERE, root),)


_NAMED_THINGS: Final = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


def _own_part(ref: Ref) -> Value:
    """Return what may be in one value, and is not held by something made on the way."""
    if ref.kind in {EXACT, PART, METHOD} and not is_of(ref.value, Thing):
        if ref.kind == PART:
            return (ref,)
        if ref.value is sys.modules:
            return somewhere(ref.root)
        if is_constant(ref):
            return FRESH
        if is_of(ref.value, _NAMED_THINGS):
            return (ref,)
        return (Ref(PART, ref.value, ref.root),)
    return (ref,) if ref.kind in {MADE, CODE, BOUND} else FRESH


def parts_of(value: Value) -> Value:
    """Return what may be in a value, or be itself; of things made on the way, what they hold three deep."""
    found: dict[tuple[Any, ...], Ref] = {}
    seen: set[int] = set()  # things may hold one another
    todo = [(ref, 3, True) for ref in reversed(value)]
    while todo and len(found) < bounds.MOST_VALUES:
        ref, depth, is_first = todo.pop()
        for part in _own_part(ref) if is_first else (ref, *_own_part(ref)):
            found.setdefault(ref_key(part), part)
        if depth and is_of(ref.value, Thing) and id(ref.value) not in seen:
            seen.add(id(ref.value))
            todo += [(inner, depth - 1, False) for inner in reversed(ref.value.all())]
    return tuple(found.values())[: bounds.MOST_VALUES]


def items_of(value: Value) -> Value:
    """Return what may be directly in a value: its items, and what its attributes are."""
    out: Value = FRESH
    for ref in value:
        if ref.kind == MADE or (ref.kind == METHOD and is_of(ref.value, Thing)):
            out = union(out, ref.value.all())
        elif ref.kind in {EXACT, PART, METHOD} and not is_of(ref.value, _NAMED_THINGS):
            out = union(out, tuple(r._replace(name=INSIDE) if r.kind == PART else r for r in _own_part(ref)))
        elif ref.kind == EXACT and is_of(ref.value, type):
            out = union(out, _members(ref))
    return out


def _members(ref: Ref) -> Value:
    """Return what iterating over a class gives, where it is an Enum: its members."""
    members = namespace_of(ref.value).get("_member_map_")
    return () if type(members) is not dict else tuple(Ref(EXACT, member, ref.root) for member in members.values())


def held_in(value: Value, kind: Any = None) -> Value:
    """Return something new that holds a value, where there is anything to hold."""
    kept = tuple(ref for ref in value if ref.kind != NULL and not (ref.kind == EXACT and is_constant(ref)))
    return made(kind, kept) if kept or kind is not None else FRESH


def copied(value: Value, kind: Any = None) -> Value:
    """Return something new that holds what is in a value, as a copy of it does; numbers in arrays are copied, too."""
    kept: Value = FRESH
    for ref in value:
        if ref.kind == EXACT and inert.kind_of_class(type(ref.value)) in {"array", "data", "immutable"}:
            continue
        kept = union(kept, items_of((ref,)) if ref.kind != EXACT or not callable(ref.value) else (ref,))
    return held_in(kept, kind)


def views(value: Value) -> Value:
    """Return the parts that share memory with what they are slices of: those of arrays."""
    return tuple(
        Ref(PART, ref.value, ref.root)
        for ref in value
        if ref.kind in {EXACT, PART} and inert.kind_of_class(type(ref.value)) in {"array", "data", "unknown"}
    )


def is_null(value: Value) -> bool:
    return len(value) == 1 and value[0].kind == NULL


def is_constant(ref: Ref) -> bool:
    return ref.kind == EXACT and (
        (not ref.root and not is_of(ref.value, _NAMED_THINGS))
        or type(ref.value) in inert.SCALARS
        or (inert.kind_of_class(type(ref.value)) == "immutable" and name_of(type(ref.value)) not in _LEADING)
    )


def plain(value: Value) -> Any:
    """Return the one number or text that a value is, ABSENT where it is not known."""
    held = value[0].value if len(value) == 1 and value[0].kind == EXACT else ABSENT
    return held if type(held) in inert.SCALARS else ABSENT


def is_set(ref: Ref) -> bool:
    """Tell whether something made on the way is a set: the order of its items depends on the process."""
    return ref.kind == MADE and ref.value.kind in {set, frozenset}


def may_change_in_place(ref: Ref) -> bool:
    """Tell whether ``+=`` may change what a name stands for, and not only make the name stand for something else."""
    if ref.kind == EXACT:
        kind = inert.kind_of_class(type(ref.value))
        if kind == "container":
            return not is_of(ref.value, tuple | frozenset)
        if kind == "object":
            return False  # its method is followed
        return kind not in {"immutable", "callable"}
    return any(
        inert.kind_of_class(type(inner)) not in {"immutable", "callable", "object"}
        for inner in within(ref.value)
        if not is_of(inner, tuple | frozenset) and (inner is not ref.value or not _is_holder(ref))
    )


def _is_holder(ref: Ref) -> bool:
    """Tell whether a part of a value is something in it and not the value itself."""
    return ref.name == INSIDE and inert.kind_of_class(type(ref.value)) in {"container", "object"}


def within(value: Any) -> list[Any]:
    """
    Return what a value holds at any depth, itself first, without plain values; of objects that are alike some.

    Looks at built-in containers and attributes only, and runs no code of theirs.
    """
    found: list[Any] = [value]
    seen, alike = {id(value)}, collections.Counter[Any]()
    for current in found:  # grows
        if len(found) > bounds.MOST_WITHIN:
            break
        for inner in _directly_in(current):
            kind: Any = type(inner)
            if kind in inert.SCALARS or id(inner) in seen:
                continue
            seen.add(id(inner))
            what = inert.kind_of_class(kind)
            if what == "immutable" and name_of(kind) not in _LEADING:
                continue
            if what not in {"container", "callable"}:
                alike[kind] += 1
                if alike[kind] > bounds.MOST_ALIKE:
                    continue
            found.append(inner)
    return found


# Types that never change and lead to what does.
_LEADING: Final = frozenset(
    ["ContextVar", "ReferenceType", "itemgetter", "attrgetter", "methodcaller", "method-wrapper"]
)


def _directly_in(value: Any) -> Iterable[Any]:
    kind = type(value)
    if is_of(value, types.FunctionType | types.BuiltinFunctionType | type | types.ModuleType):
        return ()
    if is_of(value, types.MethodType):
        return (value.__self__,)
    if is_of(value, functools.partial):
        return (*value.args, *value.keywords.values())
    if is_of(value, weakref.ReferenceType):
        target = weakref.ReferenceType.__call__(value)
        return () if target is None else (target,)
    held: list[Any] = []
    if is_of(value, dict):
        held += itertools.islice(itertools.chain.from_iterable(dict.items(value)), 2 * bounds.MOST_EACH_WITHIN)
    elif is_of(value, types.MappingProxyType):
        held += itertools.islice(value.values(), bounds.MOST_EACH_WITHIN)
    else:
        base = next((base for base in (list, tuple, set, frozenset, collections.deque) if is_of(value, base)), None)
        if base is not None:
            plain: Any = base
            held += itertools.islice(plain.__iter__(value), bounds.MOST_EACH_WITHIN)
    if inert.is_python_class(kind) or is_of(value, types.SimpleNamespace | BaseException):
        held += [inner for _, inner in own_attributes(value)]
    if is_of(value, BaseException):
        held += value.args
    return held


def instance_attribute(value: Any, name: str) -> Any:
    return attributes(value).get(name, ABSENT)


def slot_value(member: types.MemberDescriptorType, value: Any) -> Any:
    try:
        return member.__get__(value)
    except (AttributeError, TypeError):
        return ABSENT


def own_attribute(value: Any, name: str) -> Any:
    """Return an attribute of an object without running code of its class, None where it has none."""
    held = instance_attribute(value, name)
    return None if held is ABSENT else held


def class_attribute(kind: type, name: str) -> Any:
    if type(kind) is not type:  # its metaclass may have code that is asked for what it is built on
        return next((namespace_of(base)[name] for base in bases_of(kind) if name in namespace_of(base)), ABSENT)
    for base in kind.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return ABSENT


def attribute_after(kind: type, after: type, name: str) -> Any:
    """Find an attribute as ``super(after, ...)`` does."""
    mro = list(bases_of(kind))
    start = mro.index(after) + 1 if after in mro else 1
    return next((namespace_of(base)[name] for base in mro[start:] if name in namespace_of(base)), ABSENT)


def element(value: Any, key: Any) -> Any:  # noqa: PLR0911 - one per kind of container
    if key is ABSENT:
        return ABSENT
    try:
        if is_of(value, types.MappingProxyType) and type(key) in inert.SCALARS:
            return value.get(key, ABSENT)
        if is_of(value, dict):
            return dict.get(value, key, ABSENT)
        if is_of(value, list):
            return list.__getitem__(value, key)
        if is_of(value, tuple):
            return tuple.__getitem__(value, key)
        if is_of(value, collections.deque):
            return collections.deque.__getitem__(value, key)
    except (IndexError, TypeError, KeyError):
        pass
    return ABSENT


def is_ordered_by_seed(value: Iterable[Any]) -> bool:
    """Tell whether the order of a set depends on the process: for numbers it does not."""
    return not all(type(inner) in {int, float, bool, complex} for inner in itertools.islice(value, 1000))


def is_empty(value: Any) -> bool:
    """Tell whether a value is one that stands for nothing yet: None, False, 0, or an empty built-in container."""
    if value is None or value is ABSENT:
        return True
    return type(value) in {bool, int, str, bytes, list, dict, set, tuple, frozenset} and not value


def cell_value(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return ABSENT


def cell_name(func: types.FunctionType, name: str, held: Any) -> str:
    """Return what a closure variable is called in words to the user: one of a decorator's, by what it holds, too."""
    if func.__module__ == inert.code_module(func):
        return name
    return f"{name} ({inert.type_path(type(held))})"


def n_parameters(ref: Ref) -> int:
    code = ref.value[0] if ref.kind == CODE else getattr(getattr(ref.value, "__func__", ref.value), "__code__", None)
    n = getattr(code, "co_argcount", 1)
    return max(1, int(n) - (ref.kind == EXACT and is_of(ref.value, types.MethodType)))


def parameter(func: Any, position: int) -> str:
    """Return the name of a parameter, for what a partial binds to it."""
    code = getattr(func, "__code__", None)
    return code.co_varnames[position] if code is not None and position < code.co_argcount else f"argument {position}"


def own_attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that an object itself holds, without running code of its class."""
    yield from list(attributes(value).items())
    for base in bases_of(type(value)):
        if "__slots__" in namespace_of(base):
            for name, member in namespace_of(base).items():
                if type(member) is types.MemberDescriptorType:
                    try:
                        yield name, member.__get__(value)
                    except AttributeError:
                        continue
