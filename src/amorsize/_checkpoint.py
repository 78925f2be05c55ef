"""
``checkpoint=``: finished results kept in a file as they come, and a later call that computes only what is left.

    items ──► keys ──► in the file? ──yes──► unpickled
                            │no                          ──► results, in the order of the items
                            ▼                            │
                       Call over what is left ──► Keeper ┴──► batches ──► SQLite

A result belongs to the code of the function and of what it calls (:func:`function_key`), to the item, and, of equal
items, to its number among them. So items may be added, left out and moved; what has changed is computed anew.

Guarantees: a process that is killed at any moment loses what it had not written, the results of
:data:`amorsize._bounds.WRITE_S` at most, and never the file: each batch is one transaction, on a connection of its own.
Nothing is unpickled from a file that somebody else may write, unless the caller says that it is trusted.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import marshal
import os
import pickle
import stat
import sys
import time
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize import _bounds as bounds
from amorsize import _call, _database, _function, _profile, _trace
from amorsize._outside import pass_on, suppressed
from amorsize._records import Revision
from amorsize._request import Request
from amorsize._source import Source
from amorsize._trace import warn
from amorsize.exceptions import CheckpointError, ItemError, WorkerDied

if TYPE_CHECKING or sys.platform != "win32":
    import grp
    import pwd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from amorsize._options import Checkpoint

# Waits for the disk at the end of a transaction. The mark: "amck".
_KIND: Final = _database.Kind(
    mark=0x616D636B,
    version=1,
    tables=(
        "results (function BLOB, item BLOB, nth INTEGER, result BLOB, PRIMARY KEY (function, item, nth)) WITHOUT ROWID",
    ),
    busy_s=bounds.CHECKPOINT_BUSY_S,
    synchronous="NORMAL",
)

# Types that marshal writes the same way whenever they are equal; what holds others is hashed by joblib, 30 us each.
_PLAIN: Final = frozenset({int, float, complex, str, bytes, bool, type(None)})

clock = time.monotonic

Key = tuple[bytes, int]


# -- what a result belongs to ----------------------------------------------------------------------------------------


def item_key(item: Any) -> bytes:
    """
    Return a hash of an item: equal in every process for equal items, sets and dictionaries included.

    Raises TypeError if the item cannot be pickled.
    """
    kind = type(item)
    if kind in _PLAIN or (kind in {tuple, list} and all(type(part) in _PLAIN for part in item)):
        # Version 2 has no references, by which equal tuples of the same and of equal strings would differ.
        return hashlib.blake2b(marshal.dumps(item, 2), digest_size=16).digest()
    import joblib  # noqa: PLC0415 - 30 to 250 ms that only such items pay

    try:
        return bytes.fromhex(joblib.hash(item))
    except Exception as error:
        raise TypeError(f"checkpoint= needs items that can be pickled, to know them again: {error}") from error


def item_keys(items: Sequence[Any]) -> list[Key]:
    """Return the keys of items, equal ones counted."""
    seen: dict[bytes, int] = {}
    keys = []
    for item in items:
        digest = item_key(item)
        nth = seen.get(digest, 0)
        seen[digest] = nth + 1
        keys.append((digest, nth))
    return keys


def function_key(func: Callable[..., Any], kwargs: dict[str, Any] | None) -> bytes:
    """
    Return a hash of the code that *func* runs: its own and that of functions it names outside installed packages.

    Defaults, bound and closed-over values and global constants are part of it; other global values are not.
    """
    digest = hashlib.blake2b(repr(sys.version_info[:2]).encode(), digest_size=16)
    for part in _parts(func, set()):
        digest.update(part)
    digest.update(_value_key(kwargs or {}))
    return digest.digest()


def _parts(func: Any, seen: set[int]) -> Iterator[bytes]:
    """Yield what makes a function what it is."""
    if id(func) in seen:
        return
    seen.add(id(func))
    while (inner := getattr(func, "_amorsize_unwrap", None)) is not None:
        func = inner()
    if isinstance(func, functools.partial):
        yield _value_key((func.args, func.keywords))
        yield from _parts(func.func, seen)
    elif isinstance(func, types.MethodType):
        yield _value_key(func.__self__)
        yield from _parts(func.__func__, seen)
    elif isinstance(func, types.FunctionType):
        yield _function.code_hash(func.__code__).encode()
        yield _value_key((func.__defaults__, func.__kwdefaults__))
        for value in _values(func):
            yield from _value_parts(value, seen)
    else:
        yield _function.full_name(func).encode()
        found, _ = _function.bare(func)
        if found is not None:
            yield from _parts(found, seen)
            yield _value_key(func)


def _values(func: types.FunctionType) -> Iterator[Any]:
    """Yield the values of the globals that a function names, in the order of their names, and of its closure."""
    named, closed = _function.named_values(func), func.__code__.co_freevars
    yield from (named[name] for name in sorted(named.keys() - set(closed)))
    yield from (named[name] for name in closed if name in named)


def _value_parts(value: Any, seen: set[int]) -> Iterator[bytes]:
    unwrapped = value._amorsize_unwrap() if hasattr(type(value), "_amorsize_unwrap") else value  # noqa: SLF001 - ours
    if isinstance(unwrapped, types.FunctionType | types.MethodType | functools.partial):
        found, _ = _function.bare(unwrapped)
        if found is not None and not _function.is_installed(found.__code__.co_filename):
            yield from _parts(unwrapped, seen)
    elif type(value) in {*_PLAIN, tuple} and (not hasattr(value, "__len__") or len(value) < bounds.MOST_CONSTANT):
        yield _value_key(value)


def _value_key(value: Any) -> bytes:
    """Return a hash of a value, of its type where it has none."""
    try:
        return item_key(value)
    except TypeError:
        return _function.full_name(type(value)).encode()


# -- the file --------------------------------------------------------------------------------------------------------


class File:
    """The results in one file."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """
        Look at the file, or make it.

        Raises CheckpointError if it is no checkpoint, or others may write it and the caller has not said that it is
        trusted.
        """
        self.path = os.path.realpath(os.path.expanduser(checkpoint.path))
        if not checkpoint.is_trusted:
            refuse_others(self.path)
        try:
            # Readable and writable by the owner alone, from its first moment.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            with _database.transaction(self.path, _KIND):
                pass
        except _database.ForeignDatabase as error:
            raise CheckpointError(f"{self.path} is no checkpoint: {error}; name another file") from error
        except (OSError, _sqlite_error()) as error:
            raise CheckpointError(f"{self.path} cannot be used as a checkpoint: {error}") from error

    def read(self, function: bytes, wanted: dict[Key, int]) -> dict[int, Any]:
        """Return the results that are there of those *wanted*, by position; what cannot be unpickled is not there."""
        found = {}
        with _database.transaction(self.path, _KIND) as db:
            for item, nth, data in db.execute("SELECT item, nth, result FROM results WHERE function = ?", [function]):
                position = wanted.get((item, nth))
                if position is not None:
                    with suppressed():  # its class has changed or is gone
                        found[position] = pickle.loads(data)
        return found

    def write(self, rows: list[tuple[bytes, bytes, int, bytes]]) -> None:
        """Write results in one transaction."""
        with _database.transaction(self.path, _KIND) as db:
            db.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", rows)


def _sqlite_error() -> type[Exception]:
    try:
        return _database.errors()
    except ImportError as error:
        raise CheckpointError("checkpoint= needs the module sqlite3, which this Python does not have") from error


def refuse_others(path: str) -> None:
    """Refuse, as a CheckpointError, a file or folder that others may write: a pickle can do anything when opened."""
    if sys.platform == "win32" or not hasattr(os, "geteuid"):
        return
    for at in (os.path.dirname(path), path):
        try:
            state = os.stat(at)
        except FileNotFoundError:
            continue
        why = ""
        if state.st_uid not in {os.geteuid(), 0}:
            why = "belongs to somebody else"
        elif state.st_mode & stat.S_IWOTH:
            why = "can be written by everybody"
        elif state.st_mode & stat.S_IWGRP and not _is_private(state.st_gid):
            why = "can be written by its group"
        if why:
            raise CheckpointError(
                f"{at} {why}, who could put code into the results that checkpoint= unpickles; use a folder of your "
                f"own, or say checkpoint=amorsize.Checkpoint({os.path.basename(path)!r}, is_trusted=True)"
            )


def _is_private(group: int) -> bool:
    """Tell whether a group is that of one user alone, as many systems give each user one of the same name."""
    if sys.platform == "win32":
        return False

    try:
        user, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return user.pw_gid == group and found.gr_name == user.pw_name and set(found.gr_mem) <= {user.pw_name}


# -- a call ----------------------------------------------------------------------------------------------------------


class Keeper:
    """Writes results as they come, by their position among the items that are left."""

    def __init__(self, file: File, function: bytes, keys: Sequence[Key]) -> None:
        self._file = file
        self._function = function
        self._keys = keys
        self._rows: list[tuple[bytes, bytes, int, bytes]] = []
        self._n_bytes = 0
        self._written_at = clock()
        self._has_failed = self._has_warned = False
        self._n_looped = 0

    def add(self, start: int, results: Sequence[Any], failed: Sequence[int]) -> None:
        """Keep the results of neighbours, the first at position *start*; not those that *failed*, counted from it."""
        for position, result in enumerate(results):
            if position not in failed:
                self._put(start + position, result)
        if self._n_bytes > bounds.WRITE_BYTES or clock() - self._written_at > bounds.WRITE_S:
            self.write()

    def looped(self, results: Sequence[Any], failures: dict[int, BaseException]) -> None:
        """Keep what a loop has added to its results since it was last here."""
        begin = self._n_looped
        self.has_seen(len(results))
        self.add(begin, results[begin:], [i - begin for i in failures if i >= begin])

    def has_seen(self, n_results: int) -> None:
        """Take note that the first *n_results* have been given already."""
        self._n_looped = n_results

    def _put(self, position: int, result: Any) -> None:
        item, nth = self._keys[position]
        try:
            data = pickle.dumps(result, protocol=5)
        except Exception as error:  # noqa: BLE001 - objects raise anything when pickled
            pass_on(error)
            if not self._has_warned:
                self._has_warned = True
                warn(f"results that cannot be pickled are not kept in {self._file.path}: {error}")
            return
        self._rows.append((self._function, item, nth, data))
        self._n_bytes += len(data)

    def write(self) -> None:
        """Write what has come; a file that cannot be written any more does not end the work."""
        rows, self._rows, self._n_bytes = self._rows, [], 0
        if rows and not self._has_failed:
            try:
                self._file.write(rows)
            except (OSError, OverflowError, _sqlite_error()) as error:
                self._has_failed = True
                warn(f"results are not kept any more: {self._file.path}: {error}")
        self._written_at = clock()


def resumed(request: Request) -> Resumed:
    """Read the items of a call and what is kept of them; raises CheckpointError for the file, TypeError for an item."""
    assert request.options.checkpoint is not None  # noqa: S101 - for the type checker
    file = File(request.options.checkpoint)
    items, func, kwargs = request.source.rest(0), request.func, request.kwargs
    function, keys = function_key(func, kwargs), item_keys(items)
    kept = file.read(function, {key: i for i, key in enumerate(keys)})
    left = [i for i in range(len(items)) if i not in kept]
    rest = Source(([items[i] for i in left],), star=request.source.star)
    keeper = Keeper(file, function, [keys[i] for i in left])
    of_rest = Request(func, request.state, request.options, rest, kwargs, check=request.check, keeper=keeper)
    return Resumed(_call.Call(of_rest), keeper, kept, left, file.path)


class Resumed:
    """A call over what is left of the items."""

    def __init__(self, call: _call.Call, keeper: Keeper, kept: dict[int, Any], left: list[int], path: str) -> None:
        self.call = call
        self._keeper = keeper
        self._kept = kept
        self._left = left
        self._path = path

    def run(self) -> list[Any]:
        """Compute what is left; returns all results, as a call over all items does."""
        call, left, n_items = self.call, self._left, len(self._left) + len(self._kept)
        record, ledger = call.request.record, call.ledger
        try:
            call.run()
        except BaseException as error:
            self._renumber(error)
            raise
        finally:
            self._keeper.write()
            if self._kept:
                what = f"compute {len(left):,} of {n_items:,} items"
                why = f"the results of {len(self._kept):,} are kept in {self._path}"
                record.revisions.insert(0, Revision(at_s=0.0, n_done=0, what=what, why=why))
            record.skipped = [left[i] for i in record.skipped]
        for i, failure in ledger.failures.items():
            _renumber_notes(failure, i, left[i])
        results = self._kept | dict(zip(left, ledger.results, strict=True))
        skipped = set(record.skipped)
        return [results[i] for i in range(n_items) if i not in skipped]

    def _renumber(self, error: BaseException) -> None:
        """Give an exception that ends the call the positions among all items in place of those among what is left."""
        left = self._left
        for i in sorted(self.call.ledger.failures.keys() | _named(error), reverse=True):
            if i < len(left):
                _renumber_notes(error, i, left[i])
        if isinstance(error, ItemError) and error.index < len(left):
            was, error.index = error.index, left[error.index]
            error.args = (error.args[0].replace(f"item {was} ", f"item {error.index} ", 1), *error.args[1:])
        if (finished := getattr(error, "amorsize_results", None)) is not None:
            _profile.add_results(error, self._kept | {left[i]: result for i, result in finished.items()})
        if isinstance(error, WorkerDied):
            numbers = tuple(left[i] for i in error.in_flight)
            which = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
            error.results = self._kept | {left[i]: result for i, result in error.results.items()}
            error.args = (f"a worker died ({error.cause}) at items {which}; finished results are kept in {self._path}",)
            error.in_flight = numbers


def _named(error: BaseException) -> set[int]:
    """Return the positions that notes of amorsize name."""
    prefix = _trace.ITEM_NOTE + " "
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    numbers = (note[len(prefix) :].partition(":")[0] for note in notes if note.startswith(prefix))
    return {int(number) for number in numbers if number.isdigit()}


def _renumber_notes(error: BaseException, was: int, now: int) -> None:
    before, after = f"{_trace.ITEM_NOTE} {was}:", f"{_trace.ITEM_NOTE} {now}:"
    with contextlib.suppress(Exception):  # frozen dataclasses and the like
        error.__notes__[:] = [after + n[len(before) :] if n.startswith(before) else n for n in error.__notes__]
