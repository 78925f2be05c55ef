"""Profiles beyond the process: kept on request, by many processes at once, and never trusted."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import amorsize
from amorsize import Costs, Profile, _bounds, _host, _known, _store
from amorsize._known import Known
from amorsize.exceptions import AmorsizeWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILE = Profile(n_sampled=5, item_s=0.01, arg_bytes=100, problem="", mutates=("a", "b"), cpu_fraction=0.5)
KNOWN = Known(PROFILE, "builtins.str", 60, 500)
COSTS = Costs(start_s=0.004, start_each_s=0.001, is_measured=True)
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="modes and owners are POSIX's")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process that has loaded nothing, and leave one behind."""
    monkeypatch.delenv("AMORSIZE_CACHE_DIR", raising=False)
    monkeypatch.setattr(_store, "_state", _store._State())
    monkeypatch.setattr(_known, "CACHE", _known.ProfileCache())
    monkeypatch.setattr(_host, "BOOK", _host.CostBook())
    yield
    _store.configure(cache_dir=None)


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    _store.configure(cache_dir=folder)
    return folder


def forget() -> None:
    """Act as the next process."""
    where = _store.folder()
    _known.CACHE.clear()
    _store.configure(cache_dir=where)


def environment(folder: Path | str) -> dict[str, str]:
    """Return an environment in which profiles are kept in *folder*."""
    return os.environ | {"AMORSIZE_CACHE_DIR": str(folder)}


def run(code: str, folder: Path | str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own that keeps its profiles in *folder*."""
    words = [sys.executable, "-c", code]
    return subprocess.run(words, env=environment(folder), check=False, capture_output=True, text=True, timeout=60)


class TestOff:
    """Nothing is kept unless somebody asks."""

    def test_it_is_off_by_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Loading, keeping and saving do nothing and write nothing."""
        monkeypatch.chdir(tmp_path)
        _store.load()
        _store.save({"key": KNOWN}, {})
        _store.save({}, {"fork": COSTS})
        _store.keep("key", 10.0)
        assert _store.folder() is None
        assert _store.entries() == []
        assert _store.clear() == 0
        assert list(tmp_path.iterdir()) == []

    def test_none_goes_before_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program may turn off what its environment turned on."""
        monkeypatch.setenv("AMORSIZE_CACHE_DIR", str(tmp_path))
        _store.configure(cache_dir=None)
        assert _store.folder() is None

    def test_a_folder_that_is_no_path_is_refused(self) -> None:
        """The error names the value."""
        with pytest.raises(TypeError, match="cache_dir must be a path or None, not 5"):
            _store.configure(cache_dir=5)  # type: ignore[arg-type]  # as a user might

    def test_sqlite_is_not_imported(self) -> None:
        """A process that keeps nothing does not pay for it."""
        code = "import sys, amorsize._store as s; s.load(); s.keep('k', 1); print('sqlite3' in sys.modules)"
        assert run(code, "").stdout.strip() == "False"


class TestKept:
    """What is saved comes back."""

    def test_a_profile_comes_back(self, folder: Path) -> None:
        """With every figure, and the type of its items by name."""
        _store.save({"key": KNOWN}, {})
        forget()
        _store.load()
        assert folder.is_dir()
        found = _known.CACHE.get("key")
        assert found is not None
        assert found.profile == PROFILE
        assert (found.arg_size, found.n_seen) == (60, 500)
        assert found.arg_type == "builtins.str"

    def test_what_was_measured_here_stays(self, folder: Path) -> None:
        """A profile of this process is newer than any kept one."""
        _store.save({"key": KNOWN}, {})
        forget()
        mine = replace(KNOWN, n_seen=7)
        _known.CACHE.put("key", mine)
        _store.load()
        assert _known.CACHE.get("key") is mine

    def test_measured_costs_come_back(self, folder: Path) -> None:
        """Infinite rates included; priors are not kept."""
        _store.save({}, {"fork": COSTS, "loky": replace(COSTS, is_measured=False)})
        assert _store.costs() == {"fork": COSTS}
        forget()
        _store.load()
        assert _host.BOOK.get("fork") == COSTS

    def test_a_later_save_takes_the_place_of_an_earlier(self, folder: Path) -> None:
        """There is one profile per function."""
        _store.save({"key": KNOWN}, {})
        _store.save({"key": replace(KNOWN, n_seen=900)}, {})
        assert [entry.known.n_seen for entry in _store.entries()] == [900]

    def test_the_environment_turns_it_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a line of code."""
        monkeypatch.setenv("AMORSIZE_CACHE_DIR", str(tmp_path / "cache"))
        _store.load()
        _store.save({"key": KNOWN}, {})
        assert (tmp_path / "cache" / _store.FILE_NAME).is_file()

    def test_the_oldest_profiles_leave(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file never grows without bound."""
        monkeypatch.setattr(_bounds, "MOST_PROFILES", 3)
        for i in range(6):
            monkeypatch.setattr(_store, "time", lambda now=i: float(now))
            _store.save({f"key {i}": KNOWN}, {})
        assert [entry.key for entry in _store.entries()] == ["key 5", "key 4", "key 3"]

    def test_another_kind_of_machine_sees_nothing(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Times of one processor say nothing about another."""
        _store.save({"key": KNOWN}, {})
        _store.save({}, {"fork": COSTS})
        monkeypatch.setattr(_store, "machine", lambda: "another")
        assert _store.entries() == []
        assert _store.costs() == {}

    def test_clearing_forgets_everything(self, folder: Path) -> None:
        """And says how much there was."""
        _store.save({"key": KNOWN}, {})
        _store.save({}, {"fork": COSTS})
        assert _store.clear() == 1
        assert _store.entries() == []
        assert _store.costs() == {}

    def test_a_long_call_is_saved_at_once(self, folder: Path) -> None:
        """A short one waits for the end of the process."""
        _known.CACHE.put("key", KNOWN)
        _store.load()
        _store.keep("key", _bounds.SAVE_AFTER_S / 2)
        assert _store.entries() == []
        _store.keep("key", _bounds.SAVE_AFTER_S * 2)
        assert [entry.key for entry in _store.entries()] == ["key"]

    def test_what_is_left_is_saved_at_the_end_of_the_process(self, tmp_path: Path) -> None:
        """The next process finds it."""
        code = (
            "from amorsize import _known, _store, Profile\n"
            "_store.load()\n"
            "_known.CACHE.put('key', _known.Known(Profile(n_sampled=1, item_s=0.5), \"builtins.int\", 28, 1))\n"
        )
        done = run(code, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        _store.configure(cache_dir=tmp_path)
        assert [entry.key for entry in _store.entries()] == ["key"]


@pytest.mark.usefixtures("folder")
class TestNeverTrusted:
    """Files that are corrupt or somebody else's are left alone, with a warning."""

    def spoil(self, folder: Path, statement: str, *values: str) -> None:
        """Change a good file, and act as the next process."""
        _store.save({"key": KNOWN}, {})
        with contextlib.closing(sqlite3.connect(folder / _store.FILE_NAME)) as db:
            db.execute(statement, values)
            db.commit()
        forget()

    def load_and_save(self) -> None:
        """Do what a process does at its beginning and at its end."""
        _store.load()
        _store.save({"other": KNOWN}, {})

    def load_with_warning(self) -> None:
        """See that the file is complained of, once, and at the line that led there."""
        with pytest.warns(AmorsizeWarning, match="profiles are not kept") as caught:
            self.load_and_save()
        assert len(caught) == 1
        assert caught[0].filename == __file__

    @pytest.mark.parametrize(
        "content", [b"not a database, but long enough to be looked at" * 50, b"SQLite format 3\0x"]
    )
    def test_a_corrupt_file_is_left_alone(self, folder: Path, content: bytes) -> None:
        """It is neither read nor written nor removed."""
        folder.mkdir()
        (folder / _store.FILE_NAME).write_bytes(content)
        self.load_with_warning()
        assert (folder / _store.FILE_NAME).read_bytes() == content
        with pytest.raises(_store.StoreError, match="remove the file by hand"):
            _store.clear()

    def test_a_truncated_file_is_not_fatal(self, folder: Path) -> None:
        """Whatever the cut, loading and saving return."""
        _store.save({"key": KNOWN}, {})
        whole = (folder / _store.FILE_NAME).read_bytes()
        for n_bytes in range(0, len(whole), 1500):
            (folder / _store.FILE_NAME).write_bytes(whole[:n_bytes])
            forget()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AmorsizeWarning)
                _store.load()
                _store.save({"other": KNOWN}, {})

    def test_somebody_else_s_database_is_left_alone(self, folder: Path) -> None:
        """Tables that are not amorsize's stay as they are."""
        folder.mkdir()
        with contextlib.closing(sqlite3.connect(folder / _store.FILE_NAME)) as db:
            db.execute("CREATE TABLE profiles (precious TEXT)")
            db.commit()
        before = (folder / _store.FILE_NAME).read_bytes()
        self.load_with_warning()
        assert (folder / _store.FILE_NAME).read_bytes() == before

    def test_another_version_is_left_alone(self, folder: Path) -> None:
        """A version that is not known is not guessed at."""
        self.spoil(folder, f"PRAGMA user_version = {_store.SCHEMA + 1}")
        self.load_with_warning()

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "null",
            "[]",
            "{}",
            '{"name": "f", "profile": {}, "arg_type": "int", "arg_size": 1, "n_seen": 1}',
            json.dumps({"name": "f", "profile": None, "arg_type": "int", "arg_size": 1, "n_seen": 1}),
            _store._known_text(KNOWN).replace('"name": ""', '"name": 7'),
            _store._known_text(KNOWN).replace("0.01", "-1"),
            _store._known_text(KNOWN).replace("0.01", "NaN"),
            _store._known_text(KNOWN).replace("0.01", '"fast"'),
            _store._known_text(KNOWN).replace("0.01", "null"),
            _store._known_text(KNOWN).replace("500", "-500"),
            _store._known_text(KNOWN).replace('"builtins.str"', "7"),
        ],
    )
    def test_a_row_that_makes_no_sense_is_left_out(self, folder: Path, text: str) -> None:
        """The others are read."""
        _store.save({"good": KNOWN}, {})
        self.spoil(folder, "UPDATE profiles SET known = ? WHERE key = 'key'", text)
        with pytest.warns(AmorsizeWarning):
            assert [entry.key for entry in _store.entries()] == ["good"]

    @pytest.mark.parametrize("figure", ["-1.0", "NaN", '"x"'])
    def test_costs_that_make_no_sense_are_left_out(self, folder: Path, figure: str) -> None:
        """Likewise."""
        _store.save({}, {"fork": COSTS})
        self.spoil(folder, "UPDATE costs SET costs = replace(costs, '0.004', ?)", figure)
        with pytest.warns(AmorsizeWarning):
            assert _store.costs() == {}

    def test_a_folder_that_cannot_be_made_is_not_fatal(self, tmp_path: Path) -> None:
        """The work goes on without."""
        (tmp_path / "file").write_text("in the way")
        _store.configure(cache_dir=tmp_path / "file" / "cache")
        with pytest.warns(AmorsizeWarning):
            _store.save({"key": KNOWN}, {})

    @on_posix
    def test_a_link_is_not_followed(self, folder: Path, tmp_path: Path) -> None:
        """What it leads to is not ours to write."""
        folder.mkdir()
        (tmp_path / "target").touch()
        (folder / _store.FILE_NAME).symlink_to(tmp_path / "target")
        with pytest.warns(AmorsizeWarning):
            _store.save({"key": KNOWN}, {})
        assert (tmp_path / "target").read_bytes() == b""

    @on_posix
    def test_a_file_of_somebody_else_is_left_alone(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Figures that another user may write are not believed."""
        _store.save({"key": KNOWN}, {})
        forget()
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        with pytest.warns(AmorsizeWarning, match="another user"):
            _store.load()
        assert _known.CACHE.get("key") is None

    def test_a_busy_file_is_passed_by_in_silence(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another process's transaction is nobody's fault."""
        _store.save({"key": KNOWN}, {})
        monkeypatch.setattr(_store, "_KIND", replace(_store._KIND, busy_s=0.01))
        with contextlib.closing(sqlite3.connect(folder / _store.FILE_NAME, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                _store.save({"other": KNOWN}, {})
                assert _store.entries() == []
            db.execute("ROLLBACK")
        assert [entry.key for entry in _store.entries()] == ["key"]


@on_posix
class TestPrivate:
    """Nobody else reads it."""

    def test_folder_and_file_are_their_owners_only(self, folder: Path) -> None:
        """Whatever the umask."""
        before = os.umask(0)
        try:
            _store.save({"key": KNOWN}, {})
        finally:
            os.umask(before)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / _store.FILE_NAME).stat().st_mode & 0o777 == 0o600

    def test_a_file_that_others_could_read_is_closed_to_them(self, folder: Path) -> None:
        """Its next use sees to that."""
        _store.save({"key": KNOWN}, {})
        (folder / _store.FILE_NAME).chmod(0o644)
        _store.save({"other": KNOWN}, {})
        assert (folder / _store.FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_many_processes_may_save_at_once(tmp_path: Path) -> None:
    """Six processes that make the file and write to it together lose nothing and spoil nothing."""
    code = """
import dataclasses, sys, warnings
from amorsize import _known, _store, Profile, Costs
warnings.simplefilter("error")
_store._KIND = dataclasses.replace(_store._KIND, busy_s=50)
who = int(sys.argv[1])
_store.load()
for i in range(15):
    known = _known.Known(Profile(n_sampled=1, item_s=who + i / 100), "builtins.int", 28, 1)
    _store.save({f"{who}-{i}": known}, {})
    _store.save({"shared": known}, {})
    _store.save({}, {"fork": Costs(start_s=who + 1.0 + i, is_measured=True)})
    assert _store.entries()
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(who)], env=environment(tmp_path), stderr=subprocess.PIPE, text=True
        )
        for who in range(6)
    ]
    try:
        ends = [(process.communicate(timeout=100)[1], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert ends == [("", 0)] * 6
    _store.configure(cache_dir=tmp_path)
    keys = {entry.key for entry in _store.entries()}
    assert keys == {f"{who}-{i}" for who in range(6) for i in range(15)} | {"shared"}
    assert set(_store.costs()) == {"fork"}


def test_an_empty_file_is_a_new_one(folder: Path) -> None:
    """A process that was killed between making the file and its tables leaves nothing behind that hurts."""
    folder.mkdir()
    (folder / _store.FILE_NAME).touch()
    _store.save({"key": KNOWN}, {})
    assert [entry.key for entry in _store.entries()] == ["key"]


def test_a_kept_profile_shows_before_the_first_call(folder: Path) -> None:
    """``f.profile`` of a new process is what an earlier one has kept."""
    work = amorsize.parallel(kept_work)
    assert work.profile is None
    assert len(work.map(range(200))) == 200
    seen = work.profile
    _store._save_all()
    forget()
    again = amorsize.parallel(kept_work).profile
    assert seen is not None
    assert again is not None
    assert again.n_sampled == seen.n_sampled


def kept_work(x: int) -> int:
    """Stand for a function whose profile is kept."""
    return x + 1
