"""Calls, by what is called: functions, bound methods, classes, objects, and what was made on the way."""

from __future__ import annotations

import functools
import operator
import types
import weakref
from typing import TYPE_CHECKING, Any

from amorsize._analysis import bounds, inert
from amorsize._analysis.attributes import INNER_CLASS, METACLASS, all_methods, attr
from amorsize._analysis.builtin import IMPORTERS, call_builtin, imported
from amorsize._analysis.interpreter import run, run_code
from amorsize._analysis.library import change_known, change_out, from_library
from amorsize._analysis.making import derive, make, type_of
from amorsize._analysis.methods import call_method, call_method_of, call_shared, judge_method
from amorsize._analysis.protocols import FORMATTERS, ask_kind, enter_for_wrapper, format_any, manage
from amorsize._analysis.settings import Shared, set_known, shared_object
from amorsize._analysis.special import (
    follow_overrides,
    is_function,
    native_callbacks,
    pass_to_unknown,
    special,
    touch,
)
from amorsize._analysis.values import (
    ABSENT,
    BOUND,
    CODE,
    EXACT,
    FRESH,
    ITEMS,
    MADE,
    METHOD,
    PART,
    SOMEWHERE,
    Ref,
    Value,
    all_of,
    cell_name,
    cell_value,
    class_attribute,
    exactly,
    held_in,
    items_of,
    key_of,
    n_parameters,
    own_attribute,
    parts_of,
    union,
    within,
)
from amorsize._attribute import attribute_of, hides_names, is_of, module_of, name_of, wrapped_function, wrapper_function

if TYPE_CHECKING:
    from amorsize._analysis.look import Look


def call_each(look: Look, callee: Value, args: list[Value], keywords: dict[str, Value], *, is_first: bool) -> Value:
    out: Value = FRESH
    for ref in callee:
        if ref.kind == EXACT:
            out = union(out, _call_exact(look, ref, args, keywords, is_first=is_first))
        elif ref.kind == METHOD:
            method = call_shared if type(ref.value) is Shared else call_method
            out = union(out, method(look, ref, args, keywords))
        elif ref.kind == CODE:
            out = union(out, run_code(look, ref, args, keywords))
        elif ref.kind == BOUND:
            function, owner = ref.value
            out = union(out, look.call((Ref(EXACT, function, ref.root),), [owner, *args], keywords))
        elif ref.kind == MADE:
            out = union(out, _call_made(look, ref, args, keywords))
        elif ref.kind == PART:
            out = union(out, _call_part(look, ref, args, keywords))
    if not callee:
        # A function or a method of the item, or of something made here that is not known.
        pass_to_unknown(look, args, keywords)
        given = all_of(args, keywords)
        out = held_in(union(given, parts_of(given)))
    return out


def _call_exact(  # noqa: C901, PLR0911, PLR0912 - one branch per kind of callable
    look: Look, ref: Ref, args: list[Value], keywords: dict[str, Value], *, is_first: bool
) -> Value:
    func = ref.value
    if is_of(func, types.FunctionType):
        return _call_function(look, func, ref.root, args, keywords, is_first=is_first)
    is_method = is_of(func, types.MethodType)
    if (
        is_method
        and not is_of(func.__func__, types.FunctionType | types.MethodType)
        and wrapped_function(func.__func__) is None
    ):
        name = str(getattr(func, "__name__", ""))
        return call_method(look, Ref(METHOD, func.__self__, ref.root, name), args, keywords)
    if is_method:
        root = "self" if is_first else ref.root
        return look.call((Ref(EXACT, func.__func__, root),), [exactly(func.__self__, root), *args], keywords,
                          is_first=is_first)  # fmt: skip
    if is_of(func, weakref.ReferenceType):
        target = weakref.ReferenceType.__call__(func)
        return FRESH if target is None else exactly(target, ref.root)
    if is_of(func, operator.attrgetter | operator.itemgetter | operator.methodcaller):
        return _call_getter(look, func, args)
    if is_of(func, type):
        if func is type and len(args) == 1:
            return type_of(args[0])
        return make(look, func, ref.root, args, keywords)
    if is_of(func, types.BuiltinFunctionType | types.MethodWrapperType):
        owner = getattr(func, "__self__", None)
        if owner is None or is_of(owner, types.ModuleType):
            return call_builtin(look, func, args, keywords)
        return call_method(look, Ref(METHOD, owner, ref.root, func.__name__), args, keywords)
    if is_of(func, functools.partial):
        held = [exactly(v, ref.root) for v in func.args]
        more = {k: exactly(v, ref.root) for k, v in func.keywords.items()}
        return look.call((Ref(EXACT, func.func, ref.root),), [*held, *args], {**more, **keywords})
    if (inner := wrapped_function(func)) is not None:
        return _call_wrapper(look, func, inner, ref.root, args, keywords, is_first=is_first)
    if is_of(wrapped := own_attribute(func, "__wrapped__"), types.FunctionType) and inert.is_inert(
        module_of(type(func))
    ):
        return look.call((Ref(EXACT, wrapped, ref.root),), args, keywords)  # functools.cache and the like
    call = class_attribute(type(func), "__call__")
    if is_of(call, types.FunctionType):
        root = "self" if is_first else ref.root
        return look.call((Ref(EXACT, call, root),), [exactly(func, root), *args], keywords)
    if is_of(func, types.MethodDescriptorType | types.WrapperDescriptorType) and args:
        if func.__name__ in {"__setattr__", "__delattr__"}:
            look.change(tuple(r for r in args[0] if r.kind in {EXACT, PART}))
        return call_method_of(look, args[0], func.__name__, args[1:], keywords)
    if is_of(func, types.ClassMethodDescriptorType):
        # chain.from_iterable, dict.fromkeys and the like: none changes what it is given.
        given_back = pass_to_unknown(look, args, keywords)
        module = module_of(func.__objclass__)
        return union(given_back, from_library(look, module, func.__name__, args, keywords, is_pure=True))
    kind = inert.kind_of_class(type(func))
    if kind != "immutable" and not (kind == "callable" and inert.is_inert_package(getattr(func, "__module__", ""))):
        look.doubt((ref,), "it is called, and its code cannot be read")
    module = str(getattr(func, "__module__", ""))
    is_ufunc = inert.type_path(type(func)) == "numpy.ufunc"
    if is_ufunc:  # what comes after its operands is written to, and nothing else
        for written in args[attribute_of(func, "nin", 0) :]:  # codespell:ignore nin
            look.change(written)
    for inner in native_callbacks(func):
        look.call((Ref(EXACT, inner, ref.root),), args, keywords)
    name = str(attribute_of(func, "__name__", ""))
    change_known(look, module, name, args)
    change_out(look, keywords)
    set_known(look, module, name, [*args, *keywords.values()])
    given_back = pass_to_unknown(look, args, keywords)
    return union(given_back, from_library(look, module, name, args, keywords, is_pure=is_ufunc))


def _call_wrapper(  # noqa: PLR0917 - what a call consists of
    look: Look,
    func: Any,
    inner: Any,
    root: str,
    args: list[Value],
    keywords: dict[str, Value],
    *,
    is_first: bool,
) -> Value:
    """Call what wrapt or amorsize wraps, and what wrapt calls in its place with function, object and arguments."""
    found = look.call((Ref(EXACT, inner, root),), args, keywords, is_first=is_first)
    wrapper = wrapper_function(func)
    if wrapper is None:
        return found
    given = [exactly(inner, root), args[0] if args else FRESH, held_in(all_of(args, {}), tuple)]
    return union(found, look.call((Ref(EXACT, wrapper, root),), [*given, held_in(all_of([], keywords), dict)], {}))


def _call_function(
    look: Look, func: types.FunctionType, root: str, args: list[Value], keywords: dict[str, Value], *, is_first: bool
) -> Value:
    if inert.is_inert(module := inert.code_module(func)):
        if not is_first:
            change_known(look, module, func.__name__, args)
        change_out(look, keywords)
        return _call_inert(look, func, root, args, keywords, is_first=is_first)
    if func.__name__ == "__repr__" and func.__code__.co_filename.startswith("<attrs generated"):
        # It notes for the thread what it is in the middle of: only the fields are anybody else's.
        for name in func.__code__.co_names if args else ():
            touch(look, attr(look, args[0], name))
        return FRESH
    cells = {
        name: exactly(held, cell_name(func, name, held))
        for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=False)
        if (held := cell_value(cell)) is not ABSENT
    }
    return run(look, func.__code__, func.__globals__, cells, args, keywords, func)


def _call_inert(
    look: Look, func: types.FunctionType, root: str, args: list[Value], keywords: dict[str, Value], *, is_first: bool
) -> Value:
    """Call a function of an inert package: what it does by itself is known, what it is handed may be called."""
    frame = look.frames[-1] if look.frames else None
    at = frame and (id(frame), frame.index)
    named = tuple((name, key_of(value)) for name, value in keywords.items())
    signature = (func, root, at, tuple(map(key_of, args)), named, is_first)
    if signature not in look.seen:
        # It may be handed what holds itself, and a thing may hold many: each would be followed through all others.
        look.seen[signature] = FRESH
        look.alive.append((frame, args, keywords))
        look.seen[signature] = _call_inert_anew(look, func, root, args, keywords, is_first=is_first)
    return look.seen[signature]


def _call_inert_anew(
    look: Look, func: types.FunctionType, root: str, args: list[Value], keywords: dict[str, Value], *, is_first: bool
) -> Value:
    module = inert.code_module(func)
    out = _call_known(look, func, module, root, args, keywords)
    # A wrapper of an inert package, such as a retry or a context manager: what it wraps is what counts.
    wrapped = func.__dict__.get("__wrapped__")
    inner = wrapped if callable(wrapped) else None
    if inner is not None:
        found = look.call((Ref(EXACT, inner, root),), args, keywords, is_first=is_first)
        for held in _functions_in(func, 3):
            if held is not inner:
                found = union(found, look.call((Ref(EXACT, held, root),), args, keywords))
        return union(found, held_in(found))
    for held in _functions_in(func, 3):
        out = union(out, look.call((Ref(EXACT, held, root),), args, keywords))
    if (module, func.__name__) in IMPORTERS:
        return union(out, imported(look, func.__name__, args, keywords))
    out = union(out, pass_to_unknown(look, args, keywords))
    return union(out, from_library(look, module, func.__name__, args, keywords))


def _call_known(  # noqa: PLR0917 - what a call consists of
    look: Look, func: types.FunctionType, module: str, root: str, args: list[Value], keywords: dict[str, Value]
) -> Value:
    """Follow what some functions of inert packages do with what they are given, beyond what any may do."""
    name, kind = func.__name__, func.__code__.co_qualname
    out: Value = FRESH
    if args:
        judge_method(look, func, args, keywords)
    if name == kind:
        set_known(look, module, name, [*args, *keywords.values()])
        out = shared_object(module, name)
    _call_back(look, func, args)
    if module == "contextlib":
        out = union(out, manage(look, name, args[1:], keywords))
        if "__wrapped__" in func.__dict__:
            enter_for_wrapper(look, func, root)
    elif (module == "string" and name in FORMATTERS) or (module, name) == ("inspect", "getmembers"):
        format_any(look, all_of(args, keywords))
    elif kind == "singledispatch.<locals>.register":
        look.changes[root] = None
    elif kind == "singledispatch.<locals>.wrapper" and args:  # abstract classes among its kinds are asked
        ask_kind(look, args[0], tuple(Ref(EXACT, kind, root) for kind in func.__dict__.get("registry", ())))
    elif (module, name) in {("types", "new_class"), ("dataclasses", "make_dataclass")}:
        derive(look, all_of(args, keywords))
    elif (module, name) in {("dataclasses", "replace"), ("copy", "replace")} and args:  # it makes another object
        out = look.call(type_of(args[0]), [union(args[0], all_of(args, keywords))], {})
    return out


def _call_back(look: Look, func: types.FunctionType, args: list[Value]) -> None:
    """Follow what a method of an inert package calls of the program's classes that are built on those of packages."""
    for ref in args[0] if args else FRESH:
        if ref.kind == EXACT and class_attribute(type(ref.value), func.__name__) is func:
            follow_overrides(look, (ref,), type(ref.value))


def _call_made(look: Look, ref: Ref, args: list[Value], keywords: dict[str, Value]) -> Value:
    """Call something made on the way: by its class's code, or as what it holds, if that is functions."""
    kind = ref.value.kind
    if is_of(kind, type):
        method = class_attribute(kind, "__call__")
        if is_of(method, types.FunctionType):
            return look.call((Ref(EXACT, method, name_of(kind)),), [(ref,), *args], keywords)
    if kind == INNER_CLASS:
        for meta in ref.value.held.get(METACLASS, FRESH):
            method = class_attribute(meta.value, "__call__")
            if is_of(method, types.FunctionType):
                look.call((Ref(EXACT, method, meta.root),), [(ref,), *args], keywords)
        ref.value.put(ITEMS, all_of(args, keywords))
        pass_to_unknown(look, args, keywords)
        return (ref,)
    if is_of(kind, tuple) and args:
        getter, name = kind
        found = attr(look, args[0], str(name)) if name is not None else all_methods(look, args[0])
        if getter is operator.methodcaller:
            return look.call(found, [ref.value.all()], {})
        found = union(found, parts_of(args[0]))
        return union(found, held_in(found))
    given = union(all_of(args, keywords), ref.value.all())
    held = tuple(r for r in ref.value.all() if r.kind in {CODE, BOUND, METHOD} or is_function(r))
    pass_to_unknown(look, args, keywords)
    out = parts_of(given)
    every = union(given, out)
    for inner in held:
        n = min(bounds.MOST_ARGUMENTS, n_parameters(inner))
        out = union(out, look.call((inner,), [every] * n, {"**": every} if keywords else {}))
    return union(out, held_in(out))


def _call_part(look: Look, ref: Ref, args: list[Value], keywords: dict[str, Value]) -> Value:
    """Call what is somewhere in a value: each function there is, and objects that can be called."""
    out: Value = FRESH
    for target in look.within(ref.value):
        if is_function(Ref(EXACT, target)):
            out = union(out, look.call((Ref(EXACT, target, ref.root),), args, keywords))
        elif is_of(target, type):
            out = union(out, make(look, target, ref.root, args, keywords))
        elif is_of(target, weakref.ReferenceType):
            out = union(out, _call_exact(look, Ref(EXACT, target, ref.root), args, keywords, is_first=False))
        elif target is SOMEWHERE or inert.kind_of_class(type(target)) == "unknown" or hides_names(type(target)):
            look.doubt((ref,), "it is called, and what it is cannot be told")
    pass_to_unknown(look, args, keywords)
    return out


def _call_getter(look: Look, func: Any, args: list[Value]) -> Value:
    """Call what operator.attrgetter and the like have made."""
    _, given = func.__reduce__()[:2]
    kind, out = type(func), FRESH
    owner = args[0] if args else FRESH
    if kind is operator.methodcaller:
        held = [exactly(value, "") for value in given[1:]]
        return look.call(attr(look, owner, str(given[0])), held, {})
    for name in given:
        found = owner
        if kind is operator.attrgetter:
            for part in str(name).split("."):
                found = attr(look, found, part)
        else:
            found = union(items_of(owner), special(look, owner, "__getitem__"))
        out = union(out, found)
    return out if len(given) == 1 else held_in(out, tuple)


def _functions_in(func: types.FunctionType, depth: int) -> list[types.FunctionType]:
    """Return the functions outside inert packages that a wrapper's closure holds, directly or in a table of it."""
    found: dict[int, types.FunctionType] = {}
    for cell in func.__closure__ or ():
        held = cell_value(cell)
        if held is ABSENT or is_of(held, type):
            continue
        for inner in within(held) if not is_of(held, types.FunctionType) else [held]:
            inner = wrapped_function(inner) or inner  # noqa: PLW2901 - the same function
            if not is_of(inner, types.FunctionType):
                continue
            if not inert.is_inert(inert.code_module(inner)):
                found[id(inner)] = inner
            elif depth and inner is not func:
                found |= {id(more): more for more in _functions_in(inner, depth - 1)}
    return list(found.values())
