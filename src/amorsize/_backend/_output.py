"""
What items print, log and warn in a worker process appears in the caller, where the loop's would.

    worker: sys.stdout, sys.stderr ─┐                            ┌─► the caller's sys.stdout, sys.stderr, whole lines
            Logger.handle ──────────┼─ messages, at the end of ──┼─► its loggers: their filters, handlers and levels
            warnings ───────────────┘  a block and every 50 ms   └─► its warnings: their filters and registries

The two ends know nothing of each other's engine: a worker calls :func:`listen` with what sends a message home, and
:func:`flush` before it sends results; the caller gives each message of a worker to a :class:`Voice`.

Not taken: what native code and programs started by items write to the descriptors 1 and 2.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import sys
import threading
import time
import warnings
from time import sleep
from typing import TYPE_CHECKING, Any, Final

from amorsize._backend import _bounds as bounds
from amorsize._backend import _pickles
from amorsize._outside import suppressed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Kinds of what is said; CONFIGURE is a basicConfig().
OUT, ERR, LOG, WARNING, CONFIGURE = range(5)

# What is as it was when it was said, however late it is pickled.
_CONSTANT: Final = frozenset({str, int, float, bool, bytes, type(None)})

clock = time.monotonic


# -- the worker's end ------------------------------------------------------------------------------------------------


class _Recorder:
    """Keeps what is said until it is sent."""

    def __init__(self, send: Callable[[bytes], None], name: str) -> None:
        self.send = send
        self.name = name
        # Held while a message is written, of words or of results: two threads must not write into each other's.
        self.lock = threading.RLock()
        self._said: list[tuple[int, Any]] = []
        self._n_bytes = 0
        self._is_sending = False
        self._is_due = False

    def add(self, kind: int, value: Any, n_bytes: int) -> None:
        """Keep one thing said; send it now if there is much, soon if nothing else does."""
        with self.lock:
            self._said.append((kind, value))
            self._n_bytes += n_bytes
            if self._n_bytes > bounds.SAID_BYTES:
                self.flush()
            elif not self._is_due:
                self._is_due = True
                try:
                    threading.Thread(target=self._send_soon, name="amorsize-output", daemon=True).start()
                except RuntimeError:  # no more threads to be had
                    self.flush()

    def _send_soon(self) -> None:
        """Send what has been said if the item takes longer; a thread that lives as long as that, and only then."""
        sleep(bounds.SEND_S)
        self._is_due = False
        self.flush()

    def flush(self) -> None:
        """Send what has been said."""
        if not self._said:
            return
        with self.lock:
            if self._is_sending:  # a signal's handler speaks while a message is being written: the next one has it
                return
            said, self._said, self._n_bytes = self._said, [], 0
            self._is_sending = True
            try:
                self.send(pickle.dumps(joined(said), protocol=5))
            finally:
                self._is_sending = False


def joined(said: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Put neighbouring pieces of text together: ``print`` writes two for each line."""
    joined: list[tuple[int, Any]] = []
    pieces: list[str] = []
    last = -1
    for kind, value in said:
        if kind != last and pieces:
            joined.append((last, "".join(pieces)))
            pieces = []
        last = kind
        if kind in {OUT, ERR}:
            pieces.append(value)
        else:
            joined.append((kind, value))
    if pieces:
        joined.append((last, "".join(pieces)))
    return joined


class _Stream(io.TextIOBase):
    """Stands for ``sys.stdout`` or ``sys.stderr`` in a worker."""

    def __init__(self, kind: int, recorder: _Recorder, original: Any) -> None:
        self._kind = kind
        self._recorder = recorder
        self._original = original
        # The caller's, where this process is no copy of it.
        self.traits: tuple[bool, str, str] | None = None
        self.buffer = _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a value there, a property here
        """That of the caller's stream."""
        return (self.traits or _traits(self._original))[1]

    @property
    def errors(self) -> str:  # type: ignore[override]  # as above
        """Those of the caller's stream."""
        return (self.traits or _traits(self._original))[2]

    def write(self, text: str, /) -> int:
        """Keep *text*."""
        if not isinstance(text, str):
            message = f"write() argument must be str, not {type(text).__name__}"
            raise TypeError(message)
        if text:
            self._recorder.add(self._kind, text, len(text))
        return len(text)

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Answer as the caller's stream: what is said arrives there, colours included."""
        return (self.traits or _traits(self._original))[0]

    def fileno(self) -> int:
        """Return the original's descriptor, for programs that items start."""
        if self._original is None:
            raise io.UnsupportedOperation("fileno")
        return int(self._original.fileno())

    def reconfigure(self, **_: Any) -> None:
        """Do nothing: the caller's stream decides."""

    def close(self) -> None:
        """Do nothing: more may be said."""


def _traits(stream: Any) -> tuple[bool, str, str]:
    """Return what a stream says of itself: whether it is a terminal, its encoding, and what it does about errors."""
    try:
        is_terminal = bool(stream.isatty())
    except (AttributeError, ValueError):
        is_terminal = False
    return is_terminal, getattr(stream, "encoding", None) or "utf-8", getattr(stream, "errors", None) or "strict"


class _Bytes(io.BufferedIOBase):
    """The ``buffer`` of a stream that stands for a standard one."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def write(self, data: Any, /) -> int:
        """Keep bytes, as text that gives the same bytes again."""
        data = bytes(data)
        self._stream.write(data.decode(self._stream.encoding, "surrogateescape"))
        return len(data)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the stream's."""
        return self._stream.fileno()


_recorder: _Recorder | None = None
_originals: tuple[Any, Any] = (None, None)
_logger_handle = logging.Logger.handle
# Handlers that the caller has, too. What items add belongs to them, and is served here.
_known_handlers: Final[set[Any]] = set()


class _Elsewhere(logging.Handler):
    """
    Stands in a worker for handlers of the caller's logger, which are there.

    Items that configure a logger which has none, as ``logging.warning()`` does, find that it has: else each record
    would be written here too.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Do nothing: the record goes to the caller anyway."""


_basic_config: Final = logging.basicConfig
# What decides where the output goes: that is not in this process.
_OF_HANDLERS: Final = frozenset({"filename", "filemode", "encoding", "errors", "stream", "handlers"})


def _configure(**options: Any) -> None:
    """Configure the root logger of the caller, as an item does in the loop, and put a stand-in here."""
    if _recorder is None or (logging.root.handlers and not options.get("force")):
        return _basic_config(**options)
    with suppressed():
        data, stand_in = pickle.dumps(options), _Elsewhere()
        _basic_config(handlers=[stand_in], **{name: options[name] for name in options.keys() - _OF_HANDLERS})
        _stand_ins[logging.root.name] = stand_in
        _recorder.add(CONFIGURE, data, bounds.RECORD_BYTES)
        return None
    return _basic_config(**options)  # what cannot be sent: a handler of the item's own; or a wrong option


def listen(send: Callable[[bytes], None], name: str = "") -> None:
    """
    Take what is said in this process, a worker, from now on; again, with another *send*, for another caller.

    *send* writes one message home, with the lock of :func:`sending` held; *name* is the process's in log records.
    """
    global _recorder, _originals  # noqa: PLW0603 - one recorder per process, as there is one sys.stdout
    if _recorder is not None:
        _recorder.send = send
        return
    _recorder = _Recorder(send, name)
    _originals = sys.stdout, sys.stderr
    # Where there is none, as in programs without a console, nothing printed goes anywhere.
    if sys.stdout is not None:
        sys.stdout = _Stream(OUT, _recorder, sys.stdout)
    if sys.stderr is not None:
        sys.stderr = _Stream(ERR, _recorder, sys.stderr)
    _set_traits()
    _known_handlers.update(_handlers())
    logging.Logger.handle = _handle  # type: ignore[method-assign,assignment]
    logging.basicConfig = _configure
    warnings.showwarning = warnings._showwarning_orig  # type: ignore[attr-defined]  # noqa: SLF001 - what a caller puts there is called there
    warnings._showwarnmsg_impl = _keep_warning  # type: ignore[attr-defined]  # noqa: SLF001 - where record=True and showwarning part
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_leave)


def _handlers() -> set[Any]:
    return {ref() for ref in logging._handlerList}  # type: ignore[attr-defined]  # noqa: SLF001 - no public way to list them


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Take handlers that are added meanwhile for the caller's: modules have added them there, when it imported them."""
    before = _handlers()
    yield
    _known_handlers.update(_handlers() - before)


def sending() -> contextlib.AbstractContextManager[object]:
    """Return the lock to hold while anything else is written where messages go."""
    return contextlib.nullcontext() if _recorder is None else _recorder.lock


def flush() -> None:
    """Send what has been said."""
    if _recorder is not None:
        _recorder.flush()


def flush_originals() -> None:
    """Flush the process's own streams: what holds on to them writes there."""
    for stream in _originals:
        with contextlib.suppress(Exception):  # closed or odd streams are the user's business
            stream.flush()


def _leave() -> None:
    """In a process that an item forks: speak for oneself, since two must not write into one pipe."""
    global _recorder  # noqa: PLW0603 - as above
    if _recorder is None:
        return
    _recorder = None
    sys.stdout, sys.stderr = _originals
    logging.Logger.handle = _logger_handle  # type: ignore[method-assign]
    logging.basicConfig = _basic_config
    warnings._showwarnmsg_impl = _show_warning  # type: ignore[attr-defined]  # noqa: SLF001 - as above


_show_warning = warnings._showwarnmsg_impl  # type: ignore[attr-defined]  # noqa: SLF001 - as above


def _handle(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Keep a record for the caller's logger of that name, whose filters and handlers are asked there."""
    if logger.disabled or _recorder is None:
        return
    if _recorder.name:
        record.processName = _recorder.name
    own = [(at, handler) for at in chain(logger) for handler in at.handlers if _is_own(handler)]
    # Loggers whose handlers are all the items' had none in the caller: if they have any now, items that ran there
    # have added the same.
    served = {at.name for at, _ in own if all(map(_is_own, at.handlers))}
    _recorder.add(LOG, (served, _pickled(record)), bounds.RECORD_BYTES + len(str(record.msg)))
    for _, handler in own:
        if record.levelno >= handler.level:
            handler.handle(record)


def chain(logger: logging.Logger) -> Iterator[logging.Logger]:
    """Yield a logger and those above it whose handlers its records reach."""
    at: logging.Logger | None = logger
    while at is not None:
        yield at
        at = at.parent if at.propagate else None


def _is_own(handler: logging.Handler) -> bool:
    return handler not in _known_handlers and not isinstance(handler, _Elsewhere)


def _travelling(value: Any) -> bytes | None:
    """Pickle what is said; exceptions of classes that came by value arrive as the caller's. None where it cannot."""
    for dumps in (pickle.dumps, _pickles.dumps_error):
        with contextlib.suppress(Exception):
            data = dumps(value)
            pickle.loads(data)  # exceptions are known for going in and not coming out
            return data
    return None


def _pickled(record: logging.LogRecord) -> Any:
    """Return what a record consists of, as it is now; the text in place of what cannot be pickled."""
    state = dict(record.__dict__)
    if record.exc_info:
        # The traceback stays here; its text goes along, and handlers that want the exception have it.
        state["exc_text"] = record.exc_text or logging.Formatter().formatException(record.exc_info)
        state["exc_info"] = (*record.exc_info[:2], None)
    args = record.args if isinstance(record.args, tuple) else (record.args,)  # a dictionary stands alone
    others = (value for name, value in state.items() if name != "args")
    if all(type(value) in _CONSTANT for value in (*others, *args)):
        return state
    if (data := _travelling(state)) is not None:
        return data
    if _travelling((record.msg, record.args)) is None:
        state["msg"], state["args"] = record.getMessage(), None
    if _travelling(state["exc_info"]) is None:
        state["exc_info"] = None
    state = {name: repr(value) if _travelling(value) is None else value for name, value in state.items()}
    return _travelling(state)


def _keep_warning(message: Any) -> None:
    """Keep a warning that this process's filters, which are the caller's, let through."""
    if message.file is not None or _recorder is None:  # written elsewhere on purpose
        _show_warning(message)
        return
    module = _module_of(message.filename, message.lineno)
    said = (message.message, message.category, message.filename, message.lineno, module)
    data = _travelling(said)
    if data is None:  # a class or text that cannot travel
        category = next(kind for kind in message.category.__mro__ if kind.__module__ == "builtins")
        data = pickle.dumps((str(message.message), category, *said[2:]))
    _recorder.add(WARNING, data, bounds.RECORD_BYTES)


def _module_of(filename: str, lineno: int) -> str:
    """Return the name of the module at a line that is being executed, empty if it is not found."""
    frame = sys._getframe(1)  # noqa: SLF001 - a warning does not say its module
    at: Any = frame
    while at is not None:
        if at.f_lineno == lineno and at.f_code.co_filename == filename:
            return str(at.f_globals.get("__name__") or "")
        at = at.f_back
    return ""


# -- what decides about loggers and warnings, for workers that are no copies of the caller ---------------------------


def settings() -> bytes:
    """Return what a worker goes by: levels and handlers of the caller's loggers, and what its streams say they are."""
    loggers = [one for one in list(logging.Logger.manager.loggerDict.values()) if isinstance(one, logging.Logger)]
    levels = {logger.name: logger.level for logger in loggers if logger.level}
    served = [logger.name for logger in (logging.root, *loggers) if logger.handlers]
    streams = _traits(sys.stdout), _traits(sys.stderr)
    return pickle.dumps((logging.root.level, logging.root.manager.disable, levels, served, streams), protocol=5)


_levels_set: dict[str, int] = {}
_stream_traits: tuple[Any, Any] = (None, None)


def adopt(data: bytes) -> None:
    """Set this worker's loggers up as the caller's are, and let warnings be told of anew: the caller remembers them."""
    global _levels_set, _stream_traits  # noqa: PLW0603 - one set of loggers and streams per process
    root, disabled, levels, served, _stream_traits = pickle.loads(data)
    _set_traits()
    logging.root.setLevel(root)
    logging.disable(disabled)
    for name in _levels_set.keys() - levels.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    _levels_set = levels
    _put_stand_ins(served)
    renew_warnings()


_stand_ins: Final[dict[str, _Elsewhere]] = {}


def _put_stand_ins(names: list[str]) -> None:
    for name in _stand_ins.keys() - set(names):
        logging.getLogger(name).removeHandler(_stand_ins.pop(name))
    for name in names:
        logger = logging.getLogger(name)
        if not logger.handlers:
            _stand_ins[name] = _Elsewhere()
            logger.addHandler(_stand_ins[name])


def _set_traits() -> None:
    for stream, traits in zip((sys.stdout, sys.stderr), _stream_traits, strict=True):
        if isinstance(stream, _Stream):
            stream.traits = traits


def renew_warnings() -> None:
    """Let this worker tell of each warning anew: the caller remembers what has been shown."""
    with warnings.catch_warnings():  # leaving it makes registries of before worthless
        pass
