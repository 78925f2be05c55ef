"""
The caller's end of what items say in workers: it appears in the caller's streams, loggers and warnings.

The workers' end, and the picture of both, is in :mod:`amorsize._backend._output`.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from amorsize._backend import _bounds as bounds
from amorsize._backend._output import CONFIGURE, ERR, LOG, OUT, chain, joined
from amorsize._backend._worker import RemoteTraceback
from amorsize._outside import suppressed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

clock = time.monotonic


class Voice:
    """What one worker says, on its way to the caller's streams, loggers and warnings."""

    __slots__ = ("_held", "_n_bytes", "_since_s")

    def __init__(self) -> None:
        self._held: list[tuple[int, Any]] = []
        self._n_bytes = 0
        self._since_s = 0.0

    def hear(self, data: Any) -> None:
        """Take in one message; it appears when its items are done, or after a while."""
        if not self._held:
            self._since_s = clock()
        self._held += pickle.loads(data)
        self._n_bytes += len(data)
        if self._n_bytes > bounds.SAID_BYTES:
            self._say_lines()

    def look(self) -> None:
        """Let the lines of an item that takes long appear."""
        if self._held and clock() - self._since_s > bounds.HOLD_S:
            self._say_lines()

    def end(self) -> None:
        """Let everything appear: the items are done, or nothing more comes of them."""
        if self._held:
            held, self._held, self._n_bytes = self._held, [], 0
            _say(joined(held))

    def _say_lines(self) -> None:
        """Let everything appear but a line that has just begun."""
        held = joined(self._held)
        self._held, self._n_bytes, self._since_s = [], 0, clock()
        kind, value = held[-1]
        if kind in {OUT, ERR}:
            whole, end, begun = value.rpartition("\n")
            if begun and len(begun) < bounds.SAID_BYTES:
                held[-1] = kind, whole + end
                self._held.append((kind, begun))
                self._n_bytes = len(begun)
        _say(held)


def _say(said: Iterable[tuple[int, Any]]) -> None:
    """Print, log and warn."""
    for kind, value in said:
        if kind == OUT:
            _write(sys.stdout, value)
        elif kind == ERR:
            _write(sys.stderr, value)
        elif kind == LOG:
            _log(*value)
        elif kind == CONFIGURE:
            with suppressed():  # a file that cannot be opened, say
                logging.basicConfig(**pickle.loads(value))
        else:
            _warn(*pickle.loads(value))


def _write(stream: Any, text: str) -> None:
    if stream is None or not text:
        return
    try:
        stream.write(text)
    except UnicodeEncodeError:  # bytes that are no text in the stream's encoding
        encoding = getattr(stream, "encoding", None) or "utf-8"
        if not hasattr(stream, "buffer"):
            stream.write(text.encode(encoding, "replace").decode(encoding, "replace"))
            return
        stream.flush()
        with contextlib.suppress(UnicodeEncodeError):
            stream.buffer.write(text.encode(encoding, "surrogateescape"))
            return
        stream.buffer.write(text.encode(encoding, "backslashreplace"))


def _log(served: Collection[str], state: Any) -> None:
    """Give a record to its logger; handlers of loggers that are *served* have written it in the worker."""
    record = logging.makeLogRecord(pickle.loads(state) if isinstance(state, bytes) else state)
    record.relativeCreated = 1000 * (record.created - logging._startTime)  # type: ignore[attr-defined]  # noqa: SLF001 - the worker began later
    if record.exc_info and not record.exc_info[2] and record.exc_text:
        with contextlib.suppress(Exception):  # for handlers that go by the exception and not by the text
            record.exc_info[1].__cause__ = RemoteTraceback(record.exc_text)  # type: ignore[union-attr]  # as above
    logger = logging.getLogger(None if record.name == "root" else record.name)
    if not served:
        logger.handle(record)
    elif not logger.disabled and logger.filter(record):
        for at in chain(logger):
            for handler in at.handlers if at.name not in served else ():
                if record.levelno >= handler.level:
                    handler.handle(record)


def _warn(message: Any, category: type[Warning], filename: str, lineno: int, module: str) -> None:
    """Give a warning where it was given: the registry of its module remembers that it has been shown."""
    # The worker has the caller's filters: what they make an error was raised there.
    with contextlib.suppress(Warning):
        if not module:  # of no code that runs, as what compile() warns of: no registry remembers it
            warnings.warn_explicit(message, category, filename, lineno)
            return
        known = sys.modules.get(module)
        registry = {} if known is None else known.__dict__.setdefault("__warningregistry__", {})
        warnings.warn_explicit(message, category, filename, lineno, module, registry)
