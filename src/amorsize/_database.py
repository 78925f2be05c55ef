"""
Files of SQLite that are amorsize's: what the store and checkpoints share.

A connection lasts for one transaction: one that is open while workers are forked would be theirs too.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator


class ForeignDatabase(Exception):  # noqa: N818 - a signal to the store and to checkpoints, which say it in their words
    """The file is a database of something else, or of another version."""


@dataclass(frozen=True, slots=True)
class Kind:
    """
    What a file holds.

    Attributes:
        mark: SQLite's application_id, by which the file is known again.
        version: That of the tables and of what they hold.
        tables: What stands after CREATE TABLE.
        busy_s: Seconds to wait for another process's transaction.
        synchronous: SQLite's word for what is waited for at the end of a transaction.
    """

    mark: int
    version: int
    tables: tuple[str, ...]
    busy_s: float
    synchronous: str


def _sqlite() -> Any:
    import sqlite3  # noqa: PLC0415 - 5 ms that only those pay who keep something

    return sqlite3


def errors() -> type[Exception]:
    """Return what SQLite raises; raises ImportError in a Python that has been built without it."""
    found: type[Exception] = _sqlite().Error
    return found


@contextlib.contextmanager
def transaction(path: str, kind: Kind) -> Iterator[sqlite3.Connection]:
    """
    Make one transaction, which begins at once and is undone if the block fails; makes the tables of a new file.

    Raises ForeignDatabase if the file holds something else, sqlite3.Error if it cannot be used.
    """
    with contextlib.closing(_sqlite().connect(path, timeout=kind.busy_s, isolation_level=None)) as db:
        db.execute(f"PRAGMA synchronous = {kind.synchronous}")
        db.execute("BEGIN IMMEDIATE")
        mark, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if mark == kind.mark and version != kind.version:
            raise ForeignDatabase(f"version {version}, where this amorsize reads version {kind.version}")
        if mark != kind.mark:
            if mark or version or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise ForeignDatabase("a database of something else")
            for table in kind.tables:
                db.execute(f"CREATE TABLE {table}")
            db.execute(f"PRAGMA application_id = {kind.mark}")
            db.execute(f"PRAGMA user_version = {kind.version}")
        yield db
        db.execute("COMMIT")
