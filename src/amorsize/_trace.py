"""
What the user sees of where something went wrong: their own frames and the one of amorsize that they called; their line.

Imports nothing of amorsize but its exceptions: workers use it too.
"""

from __future__ import annotations

import contextlib
import opcode
import os
import sys
import types
import warnings
from typing import TYPE_CHECKING, Final

from amorsize.exceptions import AmorsizeError, AmorsizeWarning

if TYPE_CHECKING:
    from types import TracebackType

_PACKAGE: Final = os.path.dirname(__file__) + os.sep

# The standard library, in which a defect of amorsize's may surface as well.
_LIBRARY: Final = (os.path.dirname(os.__file__) + os.sep, "<frozen ")

# The files in which what callers give is looked at.
_REFUSING: Final = frozenset(
    {"_arguments.py", "_checks.py", "_options.py", "_plot.py", "_progress.py", "_source.py", "_wrapper.py"}
)

# How the note that names an item begins: what bears it comes from the user's function, whatever frame it ends in.
ITEM_NOTE: Final = "amorsize: raised by item"


def trim(error: BaseException, *, keep_last: bool = False) -> None:
    """
    Drop the frames of amorsize with which a traceback begins; *keep_last* keeps one if there are no others.

    Called where an exception leaves amorsize: the frame that the user called is added behind it. An error of amorsize's
    own code that is not meant for the user keeps all of its frames, which tell where the defect is.
    """
    last = inner = error.__traceback__
    while inner is not None and _is_ours(inner):
        last, inner = inner, inner.tb_next
    if keep_last:
        inner = inner or last
    elif not (_is_for_user(error, inner) or _is_refusal(error, last)):
        return
    with contextlib.suppress(Exception):  # a frozen dataclass lets nothing be set
        error.__traceback__ = inner


def _is_ours(entry: TracebackType) -> bool:
    return entry.tb_frame.f_code.co_filename.startswith(_PACKAGE)


def _is_refusal(error: BaseException, last: TracebackType | None) -> bool:
    """Tell whether what was given to a call is refused: its words say all, and where they are written says nothing."""
    if last is None or last.tb_next is not None or type(error) not in {TypeError, ValueError, ImportError}:
        return False

    code = last.tb_frame.f_code
    # An error that Python raises there, and not a statement, is a defect.
    is_statement = code.co_code[last.tb_lasti] == opcode.opmap["RAISE_VARARGS"]
    return is_statement and os.path.basename(code.co_filename) in _REFUSING


def _is_for_user(error: BaseException, inner: TracebackType | None) -> bool:
    """Tell a defect of amorsize from an error of the user's function, iterator or initializer, or one that is meant."""
    if isinstance(error, AmorsizeError | KeyboardInterrupt):
        return True
    with contextlib.suppress(Exception, SystemExit):  # notes of the user's own, which may be anything
        if any(type(note) is str and note.startswith(ITEM_NOTE) for note in getattr(error, "__notes__", ())):
            return True
    return inner is not None and not inner.tb_frame.f_code.co_filename.startswith(_LIBRARY)


# -- warnings ----------------------------------------------------------------------------------------------------------


def warn(message: str) -> None:
    """Give an :class:`AmorsizeWarning` at the caller's line: the first frame outside this package."""
    level = 2  # of the frame that called warn, to warnings.warn
    frame: types.FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to find a stack level on 3.11
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level += 1
        if frame.f_back is None:
            break
        frame = frame.f_back
    warnings.warn(message, AmorsizeWarning, stacklevel=level)
