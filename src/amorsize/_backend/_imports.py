"""
What a worker that has imported nothing yet imports for a function: counted among the modules that are loaded here.

From the modules that the function names to those that they name, as their variables are now. The standard library's
are not counted: what others need of it, a worker mostly has.
"""

from __future__ import annotations

import functools
import sys
import types
from typing import Final

from amorsize._attribute import is_of
from amorsize._modules import loaded

_HAS_MODULE: Final = frozenset({types.FunctionType, type})


def n_imported_with(names: frozenset[str]) -> int:
    """Return how many modules come with these, themselves included."""
    return _count(frozenset(name for name in names if not _is_everywhere(name)), len(sys.modules))


@functools.lru_cache(maxsize=32)
def _count(names: frozenset[str], _: int) -> int:
    seen: set[str] = set()
    todo = set(names)
    while todo:
        name = todo.pop()
        module = loaded(name)
        if not is_of(module, types.ModuleType):
            continue
        seen.add(name)
        values = list(vars(module).values())  # at once: other threads may import meanwhile
        named = {str(value.__module__) for value in values if type(value) in _HAS_MODULE}
        named.update(value.__name__ for value in values if type(value) is types.ModuleType)
        named.add(name.rpartition(".")[0])
        todo.update(name for name in named - seen if not _is_everywhere(name))
    return len(seen)


def _is_everywhere(name: str) -> bool:
    return name in {"", "__main__"} or name.partition(".")[0] in sys.stdlib_module_names
