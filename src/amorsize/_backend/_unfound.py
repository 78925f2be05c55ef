"""
Modules of this program that another interpreter would not find under their names: loaded by path, or made at run time.

What refers to them goes by value, and so do they: functions, classes, and the modules themselves.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import os
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize import _function
from amorsize._outside import suppressed

if TYPE_CHECKING:
    from collections.abc import Iterator

# Finders that look along sys.path, or for what is in the interpreter itself.
_USUAL: Final = (
    importlib.machinery.PathFinder,
    importlib.machinery.BuiltinImporter,
    importlib.machinery.FrozenImporter,
)

# Modules that the workers of a cluster have said they lack, or hold in another version, while maps run there.
LACKING: Final[set[str]] = set()

# How many modules there were at the latest look, and the last of them by name and identity; the path; what was found.
_latest: tuple[tuple[int, str, int], tuple[str, ...], frozenset[str]] = ((0, "", 0), (), frozenset())
_seen: dict[str, tuple[int, tuple[str, ...], bool]] = {}


def unfound() -> frozenset[str]:
    """Return the names of the modules that workers would not find, or hold in another version."""
    return _not_on_path() | LACKING if LACKING else _not_on_path()


def marks() -> tuple[bytes, ...]:
    """Return what is in each pickle that names one of them: of a package and what is in it, the package."""
    return _marks_of(unfound())


@functools.lru_cache(maxsize=1)
def _marks_of(names: frozenset[str]) -> tuple[bytes, ...]:
    return tuple(name.encode() for name in names if name.rpartition(".")[0] not in names)


def _not_on_path() -> frozenset[str]:
    """
    Return the names of the modules that an interpreter with the same ``sys.path`` would not find.

    Only modules in Python: others cannot go by value. Looked at again only when modules have been imported since, or
    the path has changed: 3 us per module, and 1 us otherwise.
    """
    global _latest  # noqa: PLW0603 - a cache of one tuple, replaced in one statement
    name, module = next(reversed(sys.modules.items()))  # one that takes the place of another
    modules, path = (len(sys.modules), name, id(module)), tuple(map(str, sys.path))
    if _latest[:2] == (modules, path):
        return _latest[2]
    _latest = (modules, path, frozenset(n for n, m in list(sys.modules.items()) if _is_unfound(n, m, path)))
    return _latest[2]


def _is_unfound(name: str, module: Any, path: tuple[str, ...]) -> bool:
    known = _seen.get(name)
    if known is None or known[0] != id(module) or (known[1] is not path and known[1] != path):
        known = _seen[name] = (id(module), path, not _is_found(name, module, path))
    return known[2]


# The program's own modules by name, how many modules there were then, and how each of its own was loaded.
_own: tuple[int, tuple[str, ...]] = (0, ())
_specs: Final[dict[str, Any]] = {}


def own_modules() -> tuple[str, ...]:
    """Return the names of the program's modules, which are not installed; the same tuple until there are more."""
    global _own  # noqa: PLW0603 - a cache of one tuple, replaced in one statement
    if _own[0] != len(sys.modules):
        files = [(name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items())]
        own = [name for name, file in files if type(file) is str and not _function.is_installed(file)]
        _own = len(files), tuple(own)
    return _own[1]


def have_reloaded() -> bool:
    """Tell whether a module of the program has been loaded again since this was asked for the last time."""
    found = False
    for name in own_modules():
        spec = getattr(sys.modules.get(name), "__spec__", None)
        found = found or _specs.get(name, spec) is not spec
        _specs[name] = spec
    return found


def _is_found(name: str, module: Any, path: tuple[str, ...]) -> bool:
    if not isinstance(module, types.ModuleType) or name in {"__main__", "__mp_main__"} or module.__name__ != name:
        return True
    file = getattr(module, "__file__", None)
    spec = getattr(module, "__spec__", None)
    if is_own_finder(getattr(spec, "loader", None)):
        return False
    if file is None:
        # Made by a program, as a module or as a part of another one's, say of six: the latter comes with that one.
        if spec is not None or "." in name or name in sys.builtin_module_names:
            return True
        return not any(isinstance(value, types.FunctionType | type) for value in vars(module).values())
    # What the interpreter brings itself may go by another name: collections.abc does from 3.14 on.
    if not file.endswith(".py") or getattr(spec, "origin", None) == "frozen":
        return True
    return _root(name, file) in _folders(path) or _is_found_otherwise(name, file, path)


def is_own_finder(finder: Any) -> bool:
    """Tell whether a finder or loader is of a class of the program's: workers have it only once they import that."""
    if finder is None or finder in _USUAL:
        return False
    module = getattr(finder if isinstance(finder, type) else type(finder), "__module__", "")
    return module == "__main__" or module in own_modules()


def is_findable(name: str) -> bool:
    """Tell whether a module that has not been imported yet is none that only a finder of the program's knows."""
    if name in sys.modules or not any(map(is_own_finder, sys.meta_path)):
        return True
    with suppressed():  # the parent's module raises what it likes
        root = name.partition(".")[0]
        return root in sys.stdlib_module_names or importlib.machinery.PathFinder.find_spec(root) is not None
    return True


def _root(name: str, file: str) -> str | None:
    """Return the folder on the path from which a module of this name would have been loaded, None if from nowhere."""
    tail = name.replace(".", os.sep)
    stem = (file if os.path.isabs(file) else os.path.abspath(file))[: -len(".py")]
    for ending in (f"{os.sep}{tail}", f"{os.sep}{tail}{os.sep}__init__"):
        if stem.endswith(ending):
            return stem[: -len(ending)] or os.sep
    return None


_known_folders: tuple[tuple[str, ...], frozenset[str]] = ((), frozenset())


def _folders(path: tuple[str, ...]) -> frozenset[str]:
    global _known_folders  # noqa: PLW0603 - a cache of one tuple, replaced in one statement
    if _known_folders[0] != path:
        with contextlib.suppress(OSError):  # no current directory
            _known_folders = (path, frozenset(os.path.abspath(entry or os.curdir) for entry in path))
    return _known_folders[1]


def _is_found_otherwise(name: str, file: str, path: tuple[str, ...]) -> bool:
    """Ask the parent's own path, links on the way, and finders like those of editable installations."""
    parent = sys.modules.get(name.rpartition(".")[0]) if "." in name else None
    where = None if parent is None else list(getattr(parent, "__path__", ()))
    if parent is not None and _is_unfound(parent.__name__, parent, path):  # a debugger has a hundred of these
        return False
    finders: list[Any] = [
        importlib.machinery.PathFinder,
        *(f for f in sys.meta_path if f not in _USUAL and not is_own_finder(f)),
    ]
    for finder in finders:
        spec = None
        with suppressed():  # a finder of anybody's, asked out of turn
            spec = finder.find_spec(name, where)
        if spec is not None:
            return spec.origin is not None and os.path.realpath(spec.origin) == os.path.realpath(file)
    return False


@contextlib.contextmanager
def by_value(cloudpickle: Any) -> Iterator[None]:
    """Have cloudpickle take what belongs to such modules by value for a while."""
    modules = [sys.modules[name] for name in unfound() if name in sys.modules]
    known = cloudpickle.list_registry_pickle_by_value()
    mine = [module for module in modules if module.__name__ not in known]
    for module in mine:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in mine:
            with contextlib.suppress(ValueError):  # somebody else has done it
                cloudpickle.unregister_pickle_by_value(module)
