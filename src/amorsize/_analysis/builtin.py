"""Built-in functions, and functions of C that belong to a module."""

from __future__ import annotations

import sys
import types
from typing import Any, Final

from amorsize._analysis import inert
from amorsize._analysis.attributes import all_methods, attr, vars_of
from amorsize._analysis.codings import CODING, follow_coding
from amorsize._analysis.interpreter import run_code
from amorsize._analysis.library import CHANGERS, change_out, from_library
from amorsize._analysis.look import Look
from amorsize._analysis.making import derive, make_inner, metaclasses_of, prepare
from amorsize._analysis.protocols import ask_kind
from amorsize._analysis.settings import set_known, shared_object
from amorsize._analysis.special import TOUCHED, drain, pass_to_unknown, special
from amorsize._analysis.values import (
    CODE,
    EXACT,
    FRESH,
    ITEMS,
    MADE,
    PART,
    Ref,
    Value,
    all_of,
    class_attribute,
    exactly,
    held_in,
    items_of,
    n_parameters,
    parts_of,
    plain,
    somewhere,
    union,
)
from amorsize._attribute import is_of
from amorsize._modules import absolute

# Builtins that make something new of the items of an argument.
_COPIERS: Final = frozenset(
    ["sorted", "list", "tuple", "dict", "enumerate", "zip", "map", "filter", "reversed", "iter"]
)


# What imports a module by its name, in the spelling of the code that runs.
IMPORTERS: Final = frozenset(
    {("builtins", "__import__"), ("importlib._bootstrap", "__import__"), ("importlib", "import_module"),
     ("pkgutil", "resolve_name")}
)  # fmt: skip


def call_builtin(  # noqa: C901, PLR0911, PLR0912 - one branch per builtin
    look: Look, func: Any, args: list[Value], keywords: dict[str, Value]
) -> Value:
    owner = getattr(func, "__self__", None)
    module, name = getattr(owner, "__name__", None) or getattr(func, "__module__", None) or "", func.__name__
    given = all_of(args, keywords)
    position = CHANGERS.get((module, name))
    if position is not None and position < len(args):
        changed = args[position]
        if name in {"next", "anext"}:
            changed = tuple(ref for ref in changed if not _has_method(ref, "__next__"))
        look.change(changed)
        for ref in changed:
            if ref.kind == MADE:
                ref.value.put(ITEMS, given)
    change_out(look, keywords)
    if module == "builtins":
        if name == "__import__":
            return imported(look, name, args, keywords)
        if name in inert.OPEN_BUILTINS:
            if name in {"eval", "exec", "globals", "locals"}:
                look.changes[f"{name}()"] = None
            else:
                look.unproved.setdefault(f"{name}()", "it can reach anything")
        if name in {"hash", "id"}:
            look.depend_on_seed(f"{name}()")
        if name in {"getattr", "hasattr"} and len(args) > 1:
            return _named_attribute(look, args, tested=name == "hasattr")
        if name in {"setattr", "delattr"} and args:
            _set_by_name(args)
        if name == "vars" and args:
            return vars_of(args[0])
        if name == "__build_class__":
            return _build_class(look, args, keywords)
        if name == "print":
            look.change(tuple(r for r in keywords.get("file", FRESH) if r.value not in _standard_streams()))
        if name in {"isinstance", "issubclass", "callable", "type"}:
            if len(args) > 1 and name in {"isinstance", "issubclass"}:
                ask_kind(look, args[0], args[1])
            return FRESH
        found = FRESH
        for value in args:
            found = union(found, special(look, value, *TOUCHED))
        drain(look, given, name)
        found = union(found, pass_to_unknown(look, args, keywords))
        if name in {"len", "id", "hash", "repr", "str", "print", "format", "ord", "chr", "abs", "any", "all"}:
            return FRESH
        every = union(found, parts_of(given))
        return union(found, held_in(union(every, items_of(every)))) if name in _COPIERS else every
    if module in {"_contextvars", "contextvars"}:
        pass_to_unknown(look, args, keywords)
        return FRESH
    if not inert.is_inert(module):
        look.unproved.setdefault(f"{module}.{name}" if module else name, "its code cannot be read")
        look.doubt(given, f"it is handed to {name}, whose code cannot be read")
    drain(look, given, name)
    if module == "_codecs" and name in CODING:
        follow_coding(look, args[1:], keywords)
    set_known(look, module, name, [*args, *keywords.values()])
    out = union(shared_object(module, name), pass_to_unknown(look, args, keywords))
    return union(out, from_library(look, module, name, args, keywords, is_pure=position is not None))


def _has_method(ref: Ref, name: str) -> bool:
    """Tell whether an object has a method that is followed."""
    method = class_attribute(type(ref.value), name) if ref.kind == EXACT else None
    return is_of(method, types.FunctionType) and not inert.is_inert(inert.code_module(method))


def _set_by_name(args: list[Value]) -> None:
    names = [ref.value for value in args[1:2] for ref in value if ref.kind == EXACT and is_of(ref.value, str)]
    for ref in args[0]:
        if ref.kind == MADE:
            ref.value.put(names[0] if len(names) == 1 else ITEMS, args[2] if len(args) > 2 else FRESH)


def _named_attribute(look: Look, args: list[Value], *, tested: bool) -> Value:
    """Follow getattr and hasattr with names that the code has; with others, any part may come back."""
    names = [ref.value for ref in args[1] if ref.kind == EXACT and is_of(ref.value, str)]
    if not names or len(names) < len(args[1]):
        for ref in args[0]:
            if ref.kind in {EXACT, PART} and is_of(ref.value, types.ModuleType | type):
                look.unproved.setdefault(ref.root, "what is taken from it is known at run time only")
        return union(all_methods(look, args[0]), parts_of(args[0]))
    out: Value = args[2] if len(args) > 2 else FRESH
    for name in names:
        if tested:
            for ref in args[0]:
                look.tested.add(("attr", id(ref.value), name))
            attr(look, args[0], name)
        else:
            out = union(out, attr(look, args[0], name))
    return FRESH if tested else out


def _build_class(look: Look, args: list[Value], keywords: dict[str, Value]) -> Value:
    """Make a class inside the function: what its body holds may be had from it and from its objects."""
    named = {name: value for name, value in keywords.items() if name != "metaclass"}
    metaclass = keywords.get("metaclass", FRESH)
    bases = all_of(args[2:], {})
    bases = union(bases, special(look, bases, "__mro_entries__"))
    metaclasses = union(metaclass, metaclasses_of(look, bases))
    prepare(look, metaclasses, bases, named)
    found: Value = FRESH
    for ref in args[0] if args else ():
        if ref.kind == CODE:
            found = union(found, run_code(look, ref, [], {}))
    derive(look, bases, named)
    made = make_inner(look, union(found, bases), metaclasses)
    for ref in found:
        if ref.kind == CODE:
            look.call((ref,), [made, *[FRESH] * (n_parameters(ref) - 1)], {})
    special(look, found, "__set_name__")
    if metaclass:
        look.call(metaclass, [FRESH, bases, found], named)
    return made


def imported(look: Look, importer: str, args: list[Value], keywords: dict[str, Value]) -> Value:
    """Return the module that is imported by its name, or what is found in it; anything where the name is not known."""
    by_position = (
        ("name", "globals", "locals", "fromlist", "level") if importer == "__import__" else ("name", "package")
    )
    given = {**dict(zip(by_position, args, strict=False)), **keywords}
    name, package = (_text(given.get(key, FRESH)) for key in ("name", "package"))
    path, _, inside = name.partition(":")
    if importer == "import_module" and package:
        path = absolute(path, {"__package__": package})
    attributes = [part for part in inside.split(".") if part]
    if importer == "resolve_name" and not inside:
        while path not in sys.modules and "." in path:
            path, _, last = path.rpartition(".")
            attributes.insert(0, last)
    if importer == "__import__" and not given.get("fromlist"):
        path = path.partition(".")[0]
    module = sys.modules.get(path) if not given.get("level") else None
    if module is None:
        look.find_late(f"{importer}()")
        return somewhere(f"{importer}()")
    out = exactly(module, path)
    for attribute in attributes:
        out = attr(look, out, attribute)
    return out


def _text(value: Value) -> str:
    """Return the text that a value is, or "" where it is not known."""
    found = plain(value)
    return found if type(found) is str else ""


def _standard_streams() -> tuple[Any, ...]:
    return (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
