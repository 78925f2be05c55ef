"""
Keeps profiles and measured costs beyond the process, on request: :func:`configure` or ``AMORSIZE_CACHE_DIR``.

Never fatal and never trusted: what cannot be read, is not amorsize's, or does not make sense is left alone with an
:class:`~amorsize.exceptions.AmorsizeWarning`. Holds numbers and names as JSON in SQLite; nothing in it is executed.

    first call ──► load ──► profiles not yet measured here, costs not yet measured here
    end of call ─► keep ──► at once after a long call, else when the process ends

Guarantees: many processes may use one folder at once, since every operation opens the file, makes one transaction and
closes it; a process that finds the file busy for a quarter of a second goes on without. Profiles and costs are filed
under the machine they were measured on, so that machines may share a folder.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from amorsize import _bounds as bounds
from amorsize import _database, _host, _known
from amorsize._records import Costs, Profile
from amorsize._trace import warn
from amorsize.exceptions import AmorsizeError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping

    from amorsize._known import Known

T = TypeVar("T")

# Version of the tables and of what their JSON holds; part of the file's name, so that versions live side by side.
SCHEMA: Final = 2

FILE_NAME: Final = f"amorsize-{SCHEMA}.sqlite3"

# The disk is not waited for: a power cut may cost the file,
# which is then reported and ignored. The mark: "amor".
_KIND: Final = _database.Kind(
    mark=0x616D6F72,
    version=SCHEMA,
    tables=(
        "profiles (machine TEXT, key TEXT, saved_at REAL, known TEXT, PRIMARY KEY (machine, key))",
        "costs (machine TEXT, backend TEXT, saved_at REAL, costs TEXT, PRIMARY KEY (machine, backend))",
    ),
    busy_s=bounds.STORE_BUSY_S,
    synchronous="OFF",
)


class StoreError(AmorsizeError):
    """The kept profiles cannot be read or written; only :func:`clear` raises it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    One kept profile.

    Attributes:
        key: The stable key of the function.
        name: Its module and qualified name, empty where that is not known.
        known: What is remembered of it.
        saved_at: Seconds since 1970 when it was saved.
    """

    key: str
    name: str
    known: Known
    saved_at: float


@dataclass(slots=True)
class _State:
    """
    What this process has done with the store so far.

    Attributes:
        folder: The folder in use, None while the store is off.
        pid: The process that loaded it: a forked copy has loaded nothing itself and saves nothing at its end.
        loaded: Whether the environment has been asked and the file read.
        saved: What is known to be in the file, by key.
        costs: The same of costs, by backend.
        has_warned: Whether a problem with the file has been told.
    """

    folder: Path | None = None
    pid: int = 0
    loaded: bool = False
    saved: dict[str, Known] = dataclasses.field(default_factory=dict)
    costs: dict[str, Costs] = dataclasses.field(default_factory=dict)
    has_warned: bool = False


_state = _State()


def configure(*, cache_dir: str | os.PathLike[str] | None) -> None:
    """Keep profiles and measured costs in a folder (None: nowhere); the environment variable gives way to this."""
    global _state  # noqa: PLW0603 - one object, replaced in one statement
    if cache_dir is not None and not isinstance(cache_dir, str | os.PathLike):
        raise TypeError(f"cache_dir must be a path or None, not {cache_dir!r}")
    folder = None if cache_dir is None else Path(cache_dir).expanduser().absolute()
    _state = _State(folder=folder, loaded=folder is None, pid=os.getpid())


def folder() -> Path | None:
    """Return the folder in use, None while nothing is kept."""
    if _state.folder is None and not _state.loaded:
        name = os.environ.get("AMORSIZE_CACHE_DIR", "").strip()
        if name:
            _state.folder = Path(name).expanduser().absolute()
    return _state.folder


def load() -> None:
    """Fill this process's profiles and costs from the file, once; what was measured here already stays."""
    if _state.loaded:
        return
    where = folder()
    _state.loaded, _state.pid = True, os.getpid()
    if where is None:
        return
    atexit.unregister(_save_all)
    atexit.register(_save_all)
    for entry in entries():
        _state.saved[entry.key] = entry.known
        if _known.CACHE.get(entry.key) is None:
            _known.CACHE.put(entry.key, entry.known)
    _state.costs = costs()
    _host.BOOK.restore(_state.costs)


def keep(key: str, actual_s: float) -> None:
    """Note that a call has ended: saves at once after a long one, and leaves short ones to the end of the process."""
    if _state.folder is None or actual_s < bounds.SAVE_AFTER_S:
        return
    known = _known.CACHE.get(key)
    save({} if known is None or known == _state.saved.get(key) else {key: known}, _host.BOOK.known)


def entries() -> list[Entry]:
    """Return the profiles kept of this machine, the latest first; what makes no sense is left out."""

    def read(db: sqlite3.Connection) -> list[Any]:
        query = "SELECT key, known, saved_at FROM profiles WHERE machine = ? ORDER BY saved_at DESC, key"
        return db.execute(query, [machine()]).fetchall()

    rows: list[Any] = _attempt(read, [])
    found = []
    for key, text, saved_at in rows:
        parsed = _parse(text, lambda given: (_name_from(given), _known_from(given)))
        if parsed is not None and isinstance(key, str) and isinstance(saved_at, float):
            found.append(Entry(key=key, name=parsed[0], known=parsed[1], saved_at=saved_at))
    return found


def costs() -> dict[str, Costs]:
    """Return the measured costs kept of this machine, by backend."""

    def read(db: sqlite3.Connection) -> list[Any]:
        query = "SELECT backend, costs FROM costs WHERE machine = ? ORDER BY backend"
        return db.execute(query, [machine()]).fetchall()

    rows: list[Any] = _attempt(read, [])
    found = {name: _parse(text, _costs_from) for name, text in rows}
    return {name: value for name, value in found.items() if value is not None}


def clear() -> int:
    """
    Forget everything that is kept, of every machine; returns the number of profiles there were.

    Raises StoreError if the file is not amorsize's or cannot be changed.
    """
    if _path() is None or not os.path.lexists(str(_path())):
        return 0
    try:
        with _open() as db:
            n_profiles: int = db.execute("SELECT count(*) FROM profiles").fetchone()[0]
            db.execute("DELETE FROM profiles")
            db.execute("DELETE FROM costs")
    except _problems() as error:
        raise StoreError(f"cannot clear {_path()}: {error}; remove the file by hand") from error
    _state.saved, _state.costs = {}, {}
    return n_profiles


def _save_all() -> None:
    """Keep what the process has learned, at its end."""
    if _state.folder is None or _state.pid != os.getpid():
        return
    known = _known.CACHE.items()
    save({key: value for key, value in known.items() if value != _state.saved.get(key)}, _host.BOOK.known)


def save(known: Mapping[str, Known], costs: Mapping[str, Costs]) -> None:
    """Keep what is remembered of functions, and those of *costs* that were measured and are not kept already."""
    new = {name: value for name, value in costs.items() if value.is_measured and value != _state.costs.get(name)}
    if folder() is None or not (known or new):
        return

    now = time()
    rows = [(machine(), key, now, _known_text(value, _known.CACHE.name(key))) for key, value in known.items()]
    cost_rows = [(machine(), name, now, json.dumps(dataclasses.asdict(value))) for name, value in new.items()]

    def write(db: sqlite3.Connection) -> bool:
        db.executemany("INSERT OR REPLACE INTO profiles VALUES (?, ?, ?, ?)", rows)
        db.executemany("INSERT OR REPLACE INTO costs VALUES (?, ?, ?, ?)", cost_rows)
        db.execute(
            "DELETE FROM profiles WHERE rowid NOT IN (SELECT rowid FROM profiles ORDER BY saved_at DESC LIMIT ?)",
            [bounds.MOST_PROFILES],
        )
        return True

    if _attempt(write, default=False, create=True):
        _state.saved.update(known)
        _state.costs.update(new)


# -- the file --------------------------------------------------------------------------------------------------------


def _path() -> Path | None:
    where = folder()
    return None if where is None else where / FILE_NAME


def _problems() -> tuple[type[Exception], ...]:
    return (OSError, _database.errors(), _database.ForeignDatabase, StoreError)


def _attempt(work: Callable[[sqlite3.Connection], T], default: T, *, create: bool = False) -> T:
    """Do one transaction; *default* where there is no file or it cannot be used."""
    path = _path()
    if path is None or not (create or os.path.lexists(path)):
        return default
    try:
        problems = _problems()
    except ImportError as error:  # a Python built without SQLite
        _complain(error)
        return default
    try:
        with _open() as db:
            return work(db)
    except problems as error:
        if not _is_busy(error):
            _complain(error)
        return default


def _is_busy(error: Exception) -> bool:
    """Tell whether another process had locked the file: that is no error, and the next save writes this one too."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _complain(error: Exception) -> None:
    if not _state.has_warned:
        _state.has_warned = True
        warn(f"profiles are not kept: {_path()}: {error}")


@contextlib.contextmanager
def _open() -> Iterator[sqlite3.Connection]:
    """Open the file, which is its owner's alone, for one transaction."""
    path = _path()
    if path is None:
        raise StoreError("no folder is configured")
    _make_private(path)
    with _database.transaction(str(path), _KIND) as db:
        yield db


def _make_private(path: Path) -> None:
    """Make folder and file for their owner only; refuse what belongs to another user."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    fd = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o600)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError("not a file")
        if sys.platform != "win32":
            if found.st_uid != os.geteuid():
                raise StoreError("it belongs to another user")
            if stat.S_IMODE(found.st_mode) & 0o077:
                os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


# -- what a machine, a profile and costs are in the file ---------------------------------------------------------------


@functools.cache
def machine() -> str:
    """
    Identify the kind of machine: the same for the same processor, system and Python.

    Times of one processor say nothing about another; names of machines, which change with every container, do not
    count.
    """
    cpu = os.environ.get("PROCESSOR_IDENTIFIER", "")
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    uname = os.uname().machine if hasattr(os, "uname") else ""
    facts = (sys.platform, uname, cpu, os.cpu_count(), sys.implementation.cache_tag)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _known_text(known: Known, name: str = "") -> str:
    return json.dumps(
        {
            "name": name,
            "profile": dataclasses.asdict(known.profile),
            "arg_type": known.arg_type,
            "arg_size": known.arg_size,
            "n_seen": known.n_seen,
        }
    )


def _parse(text: Any, build: Callable[[dict[str, Any]], T]) -> T | None:
    """Read one row; None, and a warning, where it is not what was written."""
    try:
        return build(json.loads(text))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        _complain(error)
        return None


def _record(kind: type[T], given: Any) -> T:
    """Build a record from a dictionary, checking names and types of its fields."""
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # a record is a dataclass
    if not isinstance(given, dict) or set(given) != set(fields):
        raise ValueError(f"not the fields of {kind.__name__}")
    values: dict[str, Any] = {}
    for name, value in given.items():
        annotation = str(fields[name].type)
        if annotation == "float" and isinstance(value, int | float) and not isinstance(value, bool):
            values[name] = float(value)
        elif annotation == "tuple[str, ...]" and isinstance(value, list) and all(isinstance(v, str) for v in value):
            values[name] = tuple(value)
        elif annotation == type(value).__name__:
            values[name] = value
        else:
            raise ValueError(f"{kind.__name__}.{name} is {value!r}")
    return kind(**values)


def _name_from(given: dict[str, Any]) -> str:
    if isinstance(name := given["name"], str):
        return name
    raise ValueError("not the name of a function")


def _known_from(given: dict[str, Any]) -> Known:
    profile = _record(Profile, given["profile"])
    sizes = [given["arg_size"], given["n_seen"]]
    arg_type = given["arg_type"]
    if not (isinstance(arg_type, str) and all(type(size) is int and size >= 0 for size in sizes)):
        raise ValueError("not what is known of a function")
    return _known.Known(profile, arg_type, *sizes)


def _costs_from(given: dict[str, Any]) -> Costs:
    kept = _record(Costs, given)
    figures = (f.name for f in dataclasses.fields(kept) if f.name != "is_measured")
    if not all(getattr(kept, name) >= 0 for name in figures) or not kept.efficiency > 0:
        raise ValueError(f"not costs: {kept!r}")
    return kept
