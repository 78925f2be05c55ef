"""
What the program has imported, asked without importing anything.

``sys.modules`` alone says too much: a module that another thread is just importing stands there with nothing in it.
"""

from __future__ import annotations

import sys
from typing import Any


def loaded(name: str) -> Any:
    """
    Return a module that has been imported to its end, None if there is none.

    One that is still being imported has not been used yet, so this package treats it as absent; waiting for it could
    take for ever.
    """
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else module
