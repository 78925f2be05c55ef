"""
Run a function over data in parallel where that pays, as a plain loop where it does not, and say why.

Example:
    >>> import amorsize
    >>> @amorsize.parallel
    ... def square(x):
    ...     return x * x
    >>> square.map(range(5))
    [0, 1, 4, 9, 16]
    >>> square.last_plan.n_jobs
    1
"""

from __future__ import annotations

import sys
from typing import Any

from amorsize import _records, _show, exceptions
from amorsize._adopt import register_joblib
from amorsize._async import AsyncStream
from amorsize._backend import shutdown
from amorsize._decide import decide
from amorsize._decorator import ParallelFunction, parallel
from amorsize._options import Checkpoint, MapOptions
from amorsize._plans import Plan, Reason
from amorsize._records import Costs, Host, Limits, Profile, Revision, Span
from amorsize._stream import Stream
from amorsize._toplevel import configure, host, plan
from amorsize._toplevel import map_ as map  # noqa: A004 - it is the builtin's twin, and read as amorsize.map
from amorsize._wrong_call import is_import, meant_of_module

# Records hold data only, and import nothing that shows them.
_records.Shown._show = _show.show  # noqa: SLF001 - as said

__version__ = "0.1.0"

__all__ = [
    "AsyncStream", "Checkpoint", "Costs", "Host", "Limits", "MapOptions", "ParallelFunction", "Plan", "Profile",
    "Reason", "Revision", "Span", "Stream", "__version__", "configure", "decide", "exceptions", "host", "map",
    "parallel", "plan", "register_joblib", "shutdown",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    meant = meant_of_module(name)
    if meant is not None and is_import(sys._getframe(1)):  # noqa: SLF001 - the frame that asks
        # An AttributeError would be replaced by an ImportError without the way out.
        raise ImportError(f"cannot import name {name!r} from {__name__!r}; did you mean {meant}?", name=__name__)
    message = f"module {__name__!r} has no attribute {name!r}"
    if meant is None:
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    # With its name alone: Python would add a guess of its own to ours.
    raise AttributeError(f"{message}; did you mean {meant}?", name=name)


def __dir__() -> list[str]:
    """Return what shells and notebooks complete: what is public, and not what this file imports beside it."""
    return sorted(name for name in globals() if name in {*__all__, "testing"} or name.startswith("__"))
