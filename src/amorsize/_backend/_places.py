"""
Where code that is sent by value was written: its file's name and, where that is no file on the disk, its lines.

cloudpickle names every file ``<dynamic-code>`` from 3.1.3 on, and the file of a notebook's cell exists in the kernel's
memory only. A traceback made in a worker shows what the loop's would, and ``inspect.getsource`` works there.
"""

from __future__ import annotations

import linecache
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType


def lines_of(code: CodeType) -> str:
    """Return the text of a file that is in this process's memory only; empty where a worker can read it, or no one."""
    if os.path.exists(code.co_filename):
        return ""
    # What was typed into Python's own shell is kept by the code that it made, from 3.14 on.
    by_code: Callable[[CodeType], list[str]] = getattr(linecache, "_getlines_from_code", lambda _: [])
    return "".join(linecache.getlines(code.co_filename) or by_code(code))


def placed(make: Callable[..., CodeType], arguments: tuple[Any, ...], filename: str, lines: str) -> CodeType:
    """Make a code object with the name of its file. Runs in the worker, while a function is unpickled."""
    # A time of None keeps linecache.checkcache, which every traceback calls, from looking for the file.
    if lines:
        linecache.cache[filename] = (len(lines), None, lines.splitlines(keepends=True), filename)
    return make(*arguments).replace(co_filename=filename)
