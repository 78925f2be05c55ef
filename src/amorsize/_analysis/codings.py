"""What encoding and decoding texts run: the handlers of errors that the program has registered, and its codecs."""

from __future__ import annotations

import codecs
import types
from encodings.aliases import aliases
from typing import TYPE_CHECKING, Final

from amorsize._analysis.values import EXACT, FRESH, Ref, Value
from amorsize._attribute import is_of

if TYPE_CHECKING:
    from amorsize._analysis.look import Look

# Methods, and functions of codecs, that take an encoding and a handler of errors.
CODING: Final = frozenset(["encode", "decode"])

# Encodings of the standard library that have no other name.
_MORE: Final = frozenset(
    ["charmap", "cp1006", "cp65001", "cp720", "cp737", "cp856", "cp874", "cp875", "idna", "koi8_r", "koi8_t", "koi8_u",
     "mac_arabic", "mac_centeuro", "mac_croatian", "mac_farsi", "mac_romanian", "oem", "palmos", "punycode",
     "raw_unicode_escape", "unicode_escape", "undefined", "utf_8_sig"]
)  # fmt: skip
_KNOWN: Final = _MORE | frozenset(aliases) | frozenset(aliases.values())


def follow_coding(look: Look, args: list[Value], keywords: dict[str, Value]) -> None:
    """Follow what encoding or decoding runs, given its encoding and its handler of errors."""
    given = dict(zip(("encoding", "errors"), args, strict=False)) | keywords
    for ref in given.get("encoding", FRESH):
        if ref.kind == EXACT and is_of(ref.value, str) and not _is_known(ref.value):
            # Which code of the program it runs cannot be asked without running it.
            look.changes[f"the codec {str(ref.value)!r}"] = None
    follow_errors(look, keywords={"errors": given.get("errors", FRESH)})


def follow_errors(look: Look, keywords: dict[str, Value]) -> None:
    """Follow the handler of errors that is named by a keyword, where the program has registered it."""
    for ref in keywords.get("errors", FRESH):
        if ref.kind != EXACT or not is_of(ref.value, str):
            continue
        try:
            handler = codecs.lookup_error(str(ref.value))
        except LookupError:  # not of a codec, or it fails in the loop, too
            continue
        if not is_of(handler, types.BuiltinFunctionType):
            look.call((Ref(EXACT, handler, f"the handler of errors {str(ref.value)!r}"),), [FRESH], {})


def _is_known(encoding: str) -> bool:
    return encoding.lower().replace("-", "_").replace(" ", "_") in _KNOWN
