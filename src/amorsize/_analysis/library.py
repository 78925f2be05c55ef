"""What is known of functions whose code is not followed: which change what they are given, and what they return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amorsize._analysis.values import FRESH, Value, all_of, copied, held_in, items_of, parts_of, union

if TYPE_CHECKING:
    from amorsize._analysis.look import Look

# Methods that change the object they are called on: of the built-in containers, and of those named like them.
MUTATORS: Final = frozenset(
    ["__delattr__", "__delitem__", "__iadd__", "__setattr__", "__setitem__", "add", "append", "appendleft", "clear",
     "difference_update", "discard", "extend", "extendleft", "fill", "insert", "intersection_update", "itemset",
     "move_to_end", "partition", "pop", "popitem", "popleft", "push", "put", "put_nowait", "remove", "resize",
     "reverse", "rotate", "setdefault", "setflags", "sort", "subtract", "symmetric_difference_update", "update",
     "write", "writelines"]
)  # fmt: skip

# Functions of inert modules that change what they are given, by the position of the argument.
CHANGERS: Final[dict[tuple[str, str], int]] = {
    **{(module, "shuffle"): 0 for module in ("random", "numpy.random", "sklearn.utils")},
    **{(module, "pack_into"): 1 for module in ("_struct", "struct")},
    **{("_heapq", name): 0 for name in ("heapify", "heappop", "heappush", "heappushpop", "heapreplace")},
    **{("heapq", name): 0 for name in ("heapify", "heappop", "heappush", "heappushpop", "heapreplace")},
    **{("_bisect", name): 0 for name in ("insort", "insort_left", "insort_right")},
    **{("bisect", name): 0 for name in ("insort", "insort_left", "insort_right")},
    **{("_operator", name): 0 for name in ("setitem", "delitem", "iadd", "iand", "iconcat", "imul", "ior", "isub")},
    **{("builtins", name): 0 for name in ("setattr", "delattr", "next", "anext")},
    **{("numpy", name): 0 for name in ("copyto", "put", "place", "putmask", "fill_diagonal", "put_along_axis")},
    ("functools", "setattr"): 0,
    ("numpy", "clip"): 3,
    ("numpy", "dot"): 2,
    ("numpy", "cumsum"): 3,
    ("numpy", "cumprod"): 3,
    ("numpy", "take"): 3,
    ("numpy", "round"): 2,
    **{(module, "SubElement"): 0 for module in ("_elementtree", "xml.etree.ElementTree", "lxml.etree")},
    ("xml.etree.ElementTree", "indent"): 0,
}

# Functions through which code reaches, and may change, the variables of any other.
_OPEN: Final = frozenset(
    {("sys", "_getframe"), ("sys", "_current_frames"), ("inspect", "currentframe"), ("inspect", "stack"),
     ("gc", "get_objects"), ("gc", "get_referrers")}
)  # fmt: skip

# Functions that give what holds for the whole process, or a copy of it.
_WATCHED: Final = frozenset(
    {(module, name) for module in ("decimal", "_decimal") for name in ("getcontext", "setcontext", "localcontext")}
)

# Functions of NumPy that change nothing but what they are given as *out*, with any arguments.
_PURE_NUMPY: Final = frozenset(
    ["all", "allclose", "any", "argmax", "argmin", "argsort", "array", "array_equal", "asarray", "average", "clip",
     "concatenate", "convolve", "corrcoef", "cov", "cumprod", "cumsum", "diff", "dot", "einsum", "histogram", "interp",
     "inner", "isclose", "matmul", "max", "mean", "min", "outer", "prod", "ravel", "reshape", "searchsorted", "sort",
     "stack", "std", "sum", "take", "tensordot", "transpose", "unique", "var", "where"]
)  # fmt: skip

# Functions of NumPy that may return what they are given, or a view of it; the others make something new.
VIEWS: Final = frozenset(
    ["asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "asmatrix", "atleast_1d", "atleast_2d",
     "atleast_3d", "array_split", "broadcast_arrays", "broadcast_to", "diagonal", "expand_dims", "flip", "fliplr",
     "flipud", "frombuffer", "hsplit", "imag", "moveaxis", "nan_to_num", "ravel", "real", "require", "reshape",
     "rollaxis", "rot90", "split", "squeeze", "swapaxes", "transpose", "vsplit", "dsplit", "sliding_window_view",
     "as_strided", "getfield", "partition", "nditer"]
)  # fmt: skip

_NEW_MODULES: Final = frozenset({"numpy", "scipy", "math", "json", "statistics", "hashlib", "zlib", "struct", "re"})

# Methods that write into what they are given.
WRITERS: Final = frozenset(["readinto", "readinto1", "recv_into", "pack_into", "shuffle"])


def change_known(look: Look, module: str, name: str, args: list[Value]) -> None:
    """Note the argument that a function of a library changes, where that is known."""
    position = CHANGERS.get(("numpy" if module.startswith("numpy.") else module, name), CHANGERS.get((module, name)))
    if position is not None and position < len(args):
        look.change(args[position])


def change_out(look: Look, keywords: dict[str, Value]) -> None:
    if "out" in keywords:
        look.change(union(keywords["out"], items_of(keywords["out"])))


def from_library(
    look: Look, module: str, name: str, args: list[Value], keywords: dict[str, Value], *, is_pure: bool = False
) -> Value:
    """Return what a library's function may return: a part of what it is given, or something new that holds it."""
    given = all_of(args, keywords)
    if (module, name) in _OPEN:
        look.changes[f"{module}.{name}()"] = None
    if (module, name) in _WATCHED:
        look.unproved.setdefault(f"{module}.{name}()", "it may change what holds for the whole process")
    if name == "deepcopy":
        return FRESH
    if not is_pure and not (
        name in _PURE_NUMPY and module.startswith("numpy")
    ):  # few functions of libraries change what they are given, but no list of those is complete
        look.doubt(given, f"it is handed to {name} of {module}")
    if (module, name) == ("sklearn.base", "clone"):
        return FRESH  # a new estimator, and copies of its parameters
    if name == "from_iterable":
        return held_in(items_of(items_of(given)))
    if module.partition(".")[0] in _NEW_MODULES and name not in VIEWS:
        return copied(given)
    held = parts_of(given)
    return union(held, copied(given)) if held else FRESH
