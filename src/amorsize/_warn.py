"""
How amorsize warns: with its own category, at the line of the user's code that led here.

Knows nothing of what it warns about.
"""

from __future__ import annotations

import os
import sys
import types
import warnings

from amorsize.exceptions import AmorsizeWarning

_PACKAGE = os.path.dirname(__file__) + os.sep


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
