"""Functions that print, log and warn, in a module that imports little."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from pathlib import Path

log = logging.getLogger("speaking.functions")


def prints(n: int) -> int:
    """Print two lines in pieces, and one on the other stream."""
    time.sleep(0.001)
    print("item", n, end=" ")
    print("begins")
    sys.stdout.buffer.write(f"item {n} ends\n".encode())
    print("error", n, file=sys.stderr)
    return n


def logs(n: int) -> int:
    """Log at three levels."""
    log.debug("debug %d", n)
    log.info("info %d", n, extra={"number": n})
    logging.getLogger().warning("warning %s", {"n": n})
    return n


def logs_one(n: int) -> int:
    """Log one record."""
    log.info("record %d", n)
    return n


def logs_by_module(n: int) -> int:
    """Log without a logger of one's own, which configures the root logger if nothing else has."""
    logging.warning("record %d", n)  # noqa: LOG015 - as people do
    return n


def configures(n: int) -> int:
    """Configure the root logger, and log."""
    logging.basicConfig(level="INFO", format="%(message)s!")
    log.info("record %d", n)
    return n


def adds_a_handler(n: int) -> int:
    """Give a logger a handler unless it has one, and log."""
    own = logging.getLogger("speaking.own")
    if not own.handlers:
        own.addHandler(logging.StreamHandler())
    own.warning("record %d", n)
    return n


def logs_error(n: int) -> int:
    """Log an exception with its traceback, and what cannot be pickled."""
    try:
        1 / (n - n)
    except ZeroDivisionError:
        log.exception("failed at %d", n)
    log.info("odd %s", lambda: None, extra={"odd": lambda: None})
    return n


def changes_after(n: int) -> int:
    """Log a list, and change it afterwards."""
    values = [n]
    log.info("values %s", values)
    values.append(-1)
    return n


def changes_a_dictionary_after(n: int) -> int:
    """Log what is named in a dictionary, and change it afterwards."""
    values: dict[str, object] = {"n": n, "odd": lambda: None}
    log.info("named %(n)d", values)
    values["n"] = -1
    return n


def warns(n: int) -> int:
    """Warn, the same each time."""
    time.sleep(0.001)
    warnings.warn("be careful", UserWarning, stacklevel=1)
    return n


def warns_of_code(n: int) -> int:
    """Have the compiler warn of code that is in no module."""
    compile(r"'\d'", "code.py", "exec")
    return n


def warns_apart(n: int) -> str:
    """Warn into a list of its own."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.warn(f"mine {n}", UserWarning, stacklevel=1)
    return str(seen[0].message)


def logs_into_own_file(path: str) -> str:
    """Log into a file that only this item has."""
    handler = logging.FileHandler(path)
    log.addHandler(handler)
    try:
        log.info("for %s", path)
    finally:
        log.removeHandler(handler)
        handler.close()
    return Path(path).read_text()


def prints_much(n: int) -> int:
    """Print 20 MB in lines of 1 kB."""
    for i in range(20_000):
        print(f"{n} {i} ".ljust(999, "x"))
    return n


def speaks_and_dies(n: int) -> int:
    """Print, wait until that has been sent, and kill the worker; other items do nothing."""
    if n == 3:
        print("last words")
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.001)
    return n


def waits_for(path: str) -> str:
    """Print, and wait until a file is there."""
    print("waiting for", Path(path).name)
    deadline = time.monotonic() + 60
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.01)
    return path


def asks(_: int) -> tuple[bool, str]:
    """Return what standard output says of itself."""
    return sys.stdout.isatty(), sys.stdout.encoding


def forks(n: int) -> int:
    """Print in a child, whose words are its own, and here."""
    pid = os.fork()
    if pid == 0:
        print("from a child")
        os._exit(0)
    os.waitpid(pid, 0)
    print("from item", n)
    return n
