"""The fields of ``str.format``: attributes and items of what is written, read by names that stand in a text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from amorsize._analysis.attributes import all_methods, attr
from amorsize._analysis.special import missing, special, touch
from amorsize._analysis.values import EXACT, FRESH, Ref, Value, all_of, items_of, parts_of, union

if TYPE_CHECKING:
    from amorsize._analysis.look import Look

# Methods that read fields of what they are given.
FORMATTERS: Final = frozenset(["format", "format_map", "vformat"])

# A field, up to where its format begins: "{0.name[key]!r:>8}"; fields stand in formats, too.
_FIELD: Final = re.compile(r"\{([^{}\[.!:]*)((?:\.[^{}\[.!:]+|\[[^\]]*\])+)")
_STEP: Final = re.compile(r"\.([^\[.]+)|\[([^\]]*)\]")


def format_text(look: Look, text: str, name: str, args: list[Value], keywords: dict[str, Value]) -> None:
    """Follow what the fields of a text read of the arguments."""
    given = all_of(args, keywords)
    if name == "format_map":
        given = union(items_of(given), _item(look, given))
        touch(look, given)
    for first, steps in _FIELD.findall(text):
        value = _argument(first, args, keywords, given) if name != "format_map" else given
        for attribute, _ in _STEP.findall(steps):
            value = attr(look, value, attribute) if attribute else _item(look, value)
        touch(look, value)


def format_any(look: Look, given: Value) -> None:
    """Follow what a text that is not known may read of the arguments: any of their properties."""
    every = union(given, items_of(given))
    names: list[Value] = [(Ref(EXACT, ""),)]
    all_methods(look, every)
    special(look, every, "__getitem__", "__getattr__", args=names)
    missing(look, every)


def _argument(name: str, args: list[Value], keywords: dict[str, Value], given: Value) -> Value:
    """Return what the name or the position of an argument stands for: any, where it cannot be told."""
    if name.isdigit() and int(name) < len(args):
        return union(args[int(name)], items_of(args[int(name)]))  # from "*args", each is a part of all
    return keywords.get(name, given if not name.isidentifier() else keywords.get("**", FRESH))


def _item(look: Look, value: Value) -> Value:
    return union(union(special(look, value, "__getitem__"), missing(look, value)), parts_of(value))
