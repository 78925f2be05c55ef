"""
What a function can reach and change: one look at its code and its objects, shared by everything that asks.

    dependencies ──► what is known of a function, kept as long as its names mean the same
        │    │
        │   walk ──► what is reached: the code's names, and from them object by object; noted in reached
        ▼
      effects ─────► what the code changes: followed from instruction to instruction, and into what it calls
                     calls ──► interpreter ──► opcodes               a function's code, instruction by instruction
                       │                          │
                       │ making, builtin,         │                  what is known of code that is not followed
                       ▼ methods, library         ▼
                     attributes, special, protocols ──► look, values    what runs unasked; what has been found so far

    observation ───► what is reached, compared before and after some items: where the code gives no answer

Never runs user code, and never imports a module of the user.
"""

from __future__ import annotations

from amorsize._analysis.bytecode import chains_of, imports_of, names_of
from amorsize._analysis.dependencies import Dependencies, dependencies, known_dependencies, packages_of
from amorsize._analysis.effects import Effects, effects_of
from amorsize._analysis.inert import is_inert, is_inert_package, is_python_class, kind_of_class
from amorsize._analysis.items import Kinds, of_each_kind
from amorsize._analysis.reached import is_put_there
from amorsize._analysis.values import own_attributes

__all__ = [
    "Dependencies",
    "Effects",
    "Kinds",
    "chains_of",
    "dependencies",
    "effects_of",
    "imports_of",
    "is_inert",
    "is_inert_package",
    "is_put_there",
    "is_python_class",
    "kind_of_class",
    "known_dependencies",
    "names_of",
    "of_each_kind",
    "own_attributes",
    "packages_of",
]
