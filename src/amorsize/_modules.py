"""
What the program has imported, asked without importing anything, and whether it is ending.

``sys.modules`` alone says too much: a module that another thread is just importing stands there with nothing in it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
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


def absolute(name: str, names: Mapping[str, Any]) -> str:
    """
    Return the full name of a module that code imports by a name with leading dots; "" where it cannot be imported.

    Args:
        name: As the import statement spells it.
        names: The globals of the code: they say of which package its module is a part.
    """
    if not name.startswith("."):
        return name
    package = names.get("__package__")
    if package is None:
        package = names.get("__name__", "") if "__path__" in names else str(names.get("__name__")).rpartition(".")[0]
    bare = name.lstrip(".")
    parts = str(package).split(".")
    above = parts[: len(parts) - (len(name) - len(bare)) + 1]
    return ".".join([*above, bare] if bare else above) if package and above else ""


def is_ending() -> bool:
    """
    Tell whether the interpreter is on its way out: nothing may be started any more.

    So in atexit's functions, in ``__del__`` of what is left then, and in threads that outlive the main one: a thread
    that is started there may never run, and whoever waits for it hangs.
    """
    main = threading.main_thread()
    # Up to CPython 3.12 is_alive takes a thread that is alive for ended, for good, if a signal's handler raises in it.
    is_over: bool = getattr(main, "_is_stopped", False) if sys.version_info < (3, 13) else not main.is_alive()
    return sys.is_finalizing() or is_over
