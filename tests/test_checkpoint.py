"""Finished results are kept in a file, and a later call computes what is left."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import amorsize
from amorsize import _checkpoint, exceptions
from tests import kept

KINDS = ["loop", "loky", *(["fork"] if sys.platform == "linux" else [])]


def killed(path: Path, log: Path, kind: str, after_s: float) -> bool:
    """Run the program, kill it after a while; returns whether it was done before."""
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.kept", str(path), kind],
        env=os.environ | {"KEPT_LOG": str(log), "PYTHONPATH": os.pathsep.join(map(str, filter(None, sys.path)))},
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(after_s, program.kill)
    timer.start()
    try:
        out, err = program.communicate(timeout=100)
    finally:
        timer.cancel()
        timer.join()
        program.kill()
    assert "Error" not in err
    return out == "done\n"


def n_kept(path: Path) -> int:
    """Return how many results are in a file."""
    if not path.exists():
        return 0
    with sqlite3.connect(path) as db:
        n: int = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        n = n and db.execute("SELECT count(*) FROM results").fetchone()[0]
    db.close()
    return n


def kill_again_and_again(folder: Path, kind: str, n_kills: int) -> None:
    """Kill a map *n_kills* times at random moments; then let it end."""
    path, log = folder / "run.sqlite", folder / "log"
    chance = random.Random(kind)
    n_deaths = 0
    while n_deaths < n_kills:
        log.write_text("")
        before = n_kept(path)
        is_done = killed(path, log, kind, chance.uniform(0.2, 1.5))
        begun = Counter(log.read_text().split("\n")[:-1])
        # Nothing twice, and nothing of what was kept.
        assert max(begun.values(), default=1) == 1
        assert len(begun) <= kept.N_ITEMS - before
        assert n_kept(path) >= before
        if is_done:
            path.unlink()
        else:
            n_deaths += 1
    assert killed(path, log, kind, 100)
    log.write_text("")
    assert killed(path, log, kind, 100)
    assert log.read_text() == ""
    assert n_kept(path) == kept.N_ITEMS


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_that_is_killed_goes_on(tmp_path: Path, kind: str) -> None:
    """Three times, at random moments: each result once and right, and nothing that was kept is computed again."""
    kill_again_and_again(tmp_path, kind, 3)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS)
def test_a_map_that_is_killed_fifty_times_goes_on(tmp_path: Path, kind: str) -> None:
    """The same, fifty times."""
    kill_again_and_again(tmp_path, kind, 50)


def counted(seen: list[Any]) -> Any:
    """Return a function that writes down its items; its code is the same each time."""

    def square(x: Any) -> Any:
        note(x)
        if x == 13:
            raise ValueError("thirteen")
        return x * x

    note = seen.append
    return amorsize.parallel(square, n_jobs=1)


def test_the_next_call_computes_what_is_left_and_says_so(tmp_path: Path) -> None:
    """Of more items, in another order; the plan has the numbers."""
    seen: list[int] = []
    function = counted(seen)
    path = tmp_path / "run.sqlite"
    assert function.map(range(5), checkpoint=path) == [0, 1, 4, 9, 16]
    assert function.map([7, 3, 2, 9], checkpoint=str(path)) == [49, 9, 4, 81]
    assert seen == [0, 1, 2, 3, 4, 7, 9]
    plan = function.last_plan
    assert plan.n_items == 2
    assert "compute 2 of 4 items" in plan.explain()
    assert path.stat().st_mode & 0o777 == 0o600 or sys.platform == "win32"


def test_equal_items_are_computed_as_often_as_there_are(tmp_path: Path) -> None:
    """A function may give another result each time."""
    seen: list[int] = []
    function = counted(seen)
    assert function.map([2, 2, 2], checkpoint=tmp_path / "a") == [4, 4, 4]
    assert function.map([2] * 5, checkpoint=tmp_path / "a") == [4] * 5
    assert seen == [2] * 5


def test_changed_code_is_noticed(tmp_path: Path) -> None:
    """Of the function, of a helper, of a default, of a global constant; not the line it stands on."""

    def made(source: str) -> Any:
        names: dict[str, Any] = {}
        exec(source, names)  # noqa: S102 - versions of one program
        return amorsize.parallel(names["f"], n_jobs=1)

    program = "K = 1\ndef help(x):\n    return x + K\ndef f(x, y=0):\n    return help(x) + y\n"
    path = tmp_path / "run"
    assert made(program).map([1, 2], checkpoint=path) == [2, 3]
    same = made("\n\n" + program)
    same.map([1, 2], checkpoint=path)
    assert same.last_plan.n_items == 0
    for old, new in [("K = 1", "K = 2"), ("x + K", "x - K"), ("y=0", "y=5"), ("help(x) + y", "help(x) * 1 + y")]:
        changed = made(program.replace(old, new))
        assert changed.map([1, 2], checkpoint=path) == [changed(1), changed(2)]
        assert changed.last_plan.n_items == 2
    other = made(program)
    other.map([1, 2], checkpoint=path, kwargs={"y": 3})
    assert other.last_plan.n_items == 2


def test_items_are_known_again_in_another_process() -> None:
    """Whatever the seed of hashes: sets, dictionaries, arrays; what is not equal differs."""
    np = pytest.importorskip("numpy")
    items = ["a", 1, 1.0, True, None, b"a", ("a", "a"), {"x", "y", "z"}, {"k": {"p", "q"}}, np.arange(5.0), [1, [2]]]
    program = (
        "import numpy as np\nfrom amorsize._checkpoint import item_key\n"
        "items = ['a', 1, 1.0, True, None, b'a', ('a', 'a'), {'x', 'y', 'z'}, {'k': {'p', 'q'}}, np.arange(5.0)]\n"
        "items.append([1, [2]])\n"
        "print([item_key(item).hex() for item in items])"
    )
    keys = [_checkpoint.item_key(item).hex() for item in items]
    assert len(set(keys)) == len(keys)
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True, timeout=100,
        )  # fmt: skip
        assert done.stdout == f"{keys}\n"
    assert _checkpoint.item_key(("ab", str(b"ab", "ascii"))) == _checkpoint.item_key(("ab", "ab"))


@pytest.mark.parametrize("options", [{"n_jobs": 1}, {"n_jobs": 2}, {"n_jobs": 2, "prefer": "threads"}])
def test_a_failure_keeps_what_was_finished_and_names_its_item(tmp_path: Path, options: Any) -> None:
    """The number is that among all items, in a later call too."""
    path = tmp_path / "run"
    function = amorsize.parallel(fails_at_thirteen, **options)
    function.map(range(10), checkpoint=path)
    for _ in range(2):
        with pytest.raises(ValueError, match="thirteen") as caught:
            function.map(range(20), checkpoint=path)
        assert caught.value.__notes__ == ["amorsize: raised by item 13: 13"]
    assert 13 <= n_kept(path) <= 19
    assert function.map(range(13), checkpoint=path) == list(range(13))
    assert function.last_plan is not None
    assert function.last_plan.n_items == 0


def fails_at_thirteen(x: int) -> int:
    """Return *x*, unless it is thirteen."""
    if x == 13:
        raise ValueError("thirteen")
    return x


@pytest.mark.parametrize("errors", ["return", "skip"])
def test_failed_items_are_tried_again(tmp_path: Path, errors: Any) -> None:
    """They stand where they do without a file."""
    seen: list[int] = []
    function = counted(seen).with_options(errors=errors)
    items = [1, 13, 2]
    without = function.map(items)
    function.map([1], checkpoint=tmp_path / "run")
    for _ in range(2):
        del seen[:]
        results = function.map(items, checkpoint=tmp_path / "run")
        assert [repr(r) for r in results] == [repr(r) for r in without]
        assert 13 in seen
        assert function.last_plan.skipped == ((1,) if errors == "skip" else ())
    assert seen == [13]
    if errors == "return":
        assert results[1].__notes__ == ["amorsize: raised by item 1: 13"]


def test_starmap_and_several_iterables_and_amap(tmp_path: Path) -> None:
    """Whatever gives a list."""
    function = amorsize.parallel(pow, n_jobs=1)
    assert function.starmap([(2, 3), (3, 2)], checkpoint=tmp_path / "a") == [8, 9]
    assert function.map([2, 3], [3, 2], checkpoint=tmp_path / "b") == [8, 9]
    assert asyncio.run(function.amap([2, 3], [3, 2], checkpoint=tmp_path / "b")) == [8, 9]
    assert function.last_plan is not None
    assert function.last_plan.n_items == 0
    with pytest.raises(TypeError, match="streams are not kept"):
        function.imap([1], [2], checkpoint=tmp_path / "b")


def test_a_dead_worker_is_named_among_all_items(tmp_path: Path) -> None:
    """Positions, and results that were there before."""
    from tests import awaited  # noqa: PLC0415 - only here

    function = amorsize.parallel(awaited.die_at_five, n_jobs=2, timeout=60)
    assert function.map(range(4), checkpoint=tmp_path / "run") == list(range(4))
    with pytest.raises(exceptions.WorkerDied) as caught:
        function.map(range(8), checkpoint=tmp_path / "run")
    assert 5 in caught.value.in_flight
    assert {0: 0, 1: 1, 2: 2, 3: 3}.items() <= caught.value.results.items()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
@pytest.mark.parametrize(("where", "mode"), [("folder", 0o777), ("file", 0o666), ("folder", 0o1777)])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, where: str, mode: int) -> None:
    """Unless it is said to be trusted."""
    function = amorsize.parallel(fails_at_thirteen)
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "run"
    function.map([1], checkpoint=path)
    (folder if where == "folder" else path).chmod(mode)
    with pytest.raises(exceptions.CheckpointError, match=r"by everybody.*is_trusted=True"):
        function.map([1], checkpoint=path)
    assert function.map([1], checkpoint=amorsize.Checkpoint(path, is_trusted=True)) == [1]
    folder.chmod(0o700)


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """A text, and a database."""
    function = amorsize.parallel(fails_at_thirteen)
    text, database = tmp_path / "text", tmp_path / "database"
    text.write_text("not a database, whatever it may be called, and long enough to be looked at" * 20)
    with sqlite3.connect(database) as db:
        db.execute("CREATE TABLE other (x)")
    db.close()
    for path in (text, database):
        content = path.read_bytes()
        with pytest.raises(exceptions.CheckpointError):
            function.map([1], checkpoint=path)
        assert path.read_bytes() == content


def test_items_that_cannot_be_known_again_are_refused(tmp_path: Path) -> None:
    """With the way out in the message."""
    with pytest.raises(TypeError, match="checkpoint= needs items that can be pickled"):
        amorsize.parallel(len).map([threading.Lock()], checkpoint=tmp_path / "run")  # type: ignore[list-item]  # refused
    with pytest.raises(TypeError, match="must be the path of a file"):
        amorsize.parallel(len).map([[]], checkpoint=3)  # type: ignore[call-overload]  # refused


def test_results_that_cannot_be_pickled_are_not_kept(tmp_path: Path) -> None:
    """A warning, and the results."""
    function = amorsize.parallel(lambda x: lambda: x, n_jobs=1)
    with pytest.warns(exceptions.AmorsizeWarning, match="not kept"):
        results = function.map([1, 2], checkpoint=tmp_path / "run")
    assert [result() for result in results] == [1, 2]
