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

from amorsize import exceptions
from amorsize._adopt import register_joblib
from amorsize._backend import shutdown
from amorsize._decide import decide
from amorsize._decorator import ParallelFunction, configure, host, parallel, plan
from amorsize._types import Costs, Host, Limits, Plan, Profile, Reason, Revision, Span

__version__ = "0.1.0"

__all__ = [
    "Costs",
    "Host",
    "Limits",
    "ParallelFunction",
    "Plan",
    "Profile",
    "Reason",
    "Revision",
    "Span",
    "__version__",
    "configure",
    "decide",
    "exceptions",
    "host",
    "parallel",
    "plan",
    "register_joblib",
    "shutdown",
]
