"""Objects by their kind: containers, arrays, instances of classes, and state that no two processes may share."""

from __future__ import annotations

import itertools
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import bounds, inert
from amorsize._analysis.values import own_attributes
from amorsize._analysis.walk.state import Found, Walk, shape
from amorsize._attribute import is_of, module_of
from amorsize._outside import pass_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SIZED: Final = frozenset({list, dict, set})


def look_at_object(walk: Walk, path: str, value: Any) -> None:  # noqa: C901 - one branch per kind of object
    kind = type(value)
    what = inert.kind_of_class(kind)
    if what == "immutable":
        return
    if value is sys.stdout or value is sys.stderr or value is sys.stdin or value is sys.__stdout__:
        return
    if what in {"container", "object"} or (inert.is_python_class(kind) and what not in {"data", "array"}):
        if what == "container":
            _look_into_container(walk, path, value)
        if inert.is_python_class(kind) or is_of(value, types.SimpleNamespace):
            _look_at_instance(walk, path, value)
    if what in {"array", "data"}:
        walk.kinds.add(kind)
        walk.reached.mutable.append(Found(path, value))
        if what == "array":
            _look_at_array(walk, path, value)
    elif what in {"generator", "iterator", "state"}:
        walk.reached.mutable.append(Found(path, value))
        walk.reached.shared.append(Found(path, value, inert.type_path(kind)))
    elif what == "unknown":
        walk.reached.mutable.append(Found(path, value))
        walk.reached.unknown.append(Found(path, value, f"a {inert.type_path(kind)}"))
    elif what == "callable":
        wrapped = getattr(value, "__wrapped__", None)
        if is_of(wrapped, types.FunctionType):
            walk.visit(path, wrapped)
            walk.named.append((path, value))
        elif not inert.is_inert_package(getattr(value, "__module__", "")):
            walk.reached.unknown.append(Found(path, value, "its code cannot be read"))


def _look_into_container(walk: Walk, path: str, value: Any) -> None:
    """Look into a container: at the types of its values at once, and at those that are not plain one by one."""
    if not is_of(value, tuple | frozenset | types.SimpleNamespace):
        walk.reached.mutable.append(Found(path, value))
        walk.reached.shapes.append((value, shape(value))) if type(value) in _SIZED else None
    if is_of(value, types.SimpleNamespace):
        return
    values: Iterable[Any]
    if is_of(value, types.MappingProxyType):
        values = value.values()
    elif is_of(value, dict):
        values = itertools.chain(dict.keys(value), dict.values(value))
    else:
        values = _plain_iter(value)
    n = len(value) if not inert.is_python_class(type(value)) else _size(value)
    if n > bounds.MOST_TYPES:
        values = itertools.islice(values, bounds.MOST_TYPES)
        walk.reached.unknown.append(Found(path, value, f"{n:,} values are too many to look at"))
    values = list(values)
    walk.n_left -= len(values) // bounds.TYPES_AS_OBJECT
    others = [] if inert.SCALARS.issuperset(map(type, values)) else [v for v in values if type(v) not in inert.SCALARS]
    if len(others) > bounds.MOST_EACH:
        walk.reached.is_complete = False
        del others[bounds.MOST_EACH :]
    for inner in others:
        walk.visit(path, inner)


def _look_at_instance(walk: Walk, path: str, value: Any) -> None:
    walk.visit(path, type(value))
    kind = type(value)
    if inert.is_inert(module_of(kind)) or is_of(value, types.SimpleNamespace):
        for name, inner in own_attributes(value):
            walk.visit(f"{path}.{name}", inner)
    else:
        walk.named.append((path, value))
    walk.reached.mutable.append(Found(path, value))


def _look_at_array(walk: Walk, path: str, value: Any) -> None:
    if getattr(value.dtype, "hasobject", True):
        walk.reached.unknown.append(Found(path, value, "an array of Python objects"))
    base = value
    for _ in range(8):
        base = getattr(base, "base", None)
        if base is None or is_of(base, bytes | bytearray):
            return
        if inert.kind_of_class(type(base)) != "array":
            break
    else:
        return
    if inert.kind_of_class(type(base)) == "state":
        walk.reached.shared.append(Found(path, value, f"its memory belongs to a {inert.type_path(type(base))}"))
    elif not is_of(base, memoryview | list | tuple) and not inert.is_inert(module_of(type(base))):
        walk.reached.unknown.append(Found(path, value, f"its memory belongs to a {inert.type_path(type(base))}"))


def _size(value: Any) -> int:
    try:
        return len(value)
    except Exception as error:  # noqa: BLE001 - a length that cannot be told is no length
        pass_on(error)
        return -1


def _plain_iter(value: Any) -> Iterator[Any]:
    """Iterate over a built-in container, or one derived from it, as the built-in one does."""
    kinds: tuple[Any, ...] = (list, tuple, set, frozenset)
    kind = next((kind for kind in kinds if is_of(value, kind)), None)
    plain: Iterator[Any] = iter(value) if kind is None else kind.__iter__(value)
    return plain
