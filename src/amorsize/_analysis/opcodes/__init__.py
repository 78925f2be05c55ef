"""
What instructions do to the values in a frame: a function for each meaning that :mod:`amorsize._analysis.bytecode` has.

    names, items        what is read and set: locals, closures, globals; attributes and items
    operators           what operators and tests call
    building, calls     what is made and taken apart; what is called
    flow                where the code goes on; what only moves on the stack
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amorsize._analysis.opcodes import building, calls, flow, items, names, operators

if TYPE_CHECKING:
    from amorsize._analysis.look import Handler

HANDLERS: Final[dict[str, Handler]] = {
    **names.HANDLERS,
    **items.HANDLERS,
    **operators.HANDLERS,
    **building.HANDLERS,
    **calls.HANDLERS,
    **flow.HANDLERS,
}
