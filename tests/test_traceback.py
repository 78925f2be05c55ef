"""What a traceback shows of a function that failed in a worker."""

from __future__ import annotations

import asyncio
import functools
import json
import linecache
import os
import re
import subprocess
import sys
import textwrap
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize.exceptions import WorkerDied
from tests.test_map import ALL, FORK, LOKY, PROCESSES, end_threads, needs_fork

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = str(Path(amorsize.__file__).parent)


def _made(source: str, filename: str) -> Any:
    """Return the function *f* that a source defines under a file name."""
    names: dict[str, Any] = {"__name__": "made_elsewhere", "os": os, "parent": os.getpid()}
    exec(compile(source, filename, "exec"), names)  # noqa: S102 - as a notebook runs its cells
    return names["f"]


# The second function stands in a closure: its code is a constant of the first one's.
SOURCE = """
def f(x):
    def inner(y):
        return 1 // y if os.getpid() != parent else y  # the failing line
    return inner(x)
"""


@pytest.mark.parametrize("options", PROCESSES)
def test_a_function_whose_source_is_in_memory_only_shows_its_lines(options: dict[str, Any]) -> None:
    """The cells of a notebook are in no file: their names and lines reach the worker with the function."""
    end_threads()
    name = "<cell 7 of a test>"
    linecache.cache[name] = (len(SOURCE), None, SOURCE.splitlines(keepends=True), name)
    try:
        with pytest.raises(ZeroDivisionError) as caught:
            amorsize.parallel(_made(SOURCE, name), **options, retries=1).map([1, 1, 1, 0])
    finally:
        del linecache.cache[name]
    text = str(caught.value.__cause__)
    assert f'File "{name}", line 5, in f\n    return inner(x)' in text
    assert f'File "{name}", line 4, in inner\n    return 1 // y' in text


def test_a_changed_cell_of_the_same_name_shows_its_new_lines() -> None:
    """A warm worker does not keep the text of what an earlier function of that file name was."""
    name = "<a cell of a test that is edited>"
    for comment in ("first", "second"):
        source = SOURCE.replace("failing", comment)
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        try:
            with pytest.raises(ZeroDivisionError) as caught:
                amorsize.parallel(_made(source, name), **LOKY, retries=1).map([1, 1, 1, 0])
        finally:
            del linecache.cache[name]
        assert f"# the {comment} line" in str(caught.value.__cause__)


def test_a_function_without_any_source_travels() -> None:
    """What ``exec`` made of a string has a file name, and no lines anywhere."""
    with pytest.raises(ZeroDivisionError) as caught:
        amorsize.parallel(_made(SOURCE, "<string>"), **LOKY, retries=1).map([1, 1, 1, 0])
    assert 'File "<string>", line 4, in inner' in str(caught.value.__cause__)


def test_a_script_shows_its_lines(tmp_path: Path) -> None:
    """A function of ``__main__`` goes to loky's workers by value, and its file is on the disk."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import amorsize

            @amorsize.parallel(n_jobs=2, start_method="loky", retries=1)
            def bad(x):
                return 10 // x  # in the script

            if __name__ == "__main__":
                bad.map([1, 1, 0, 1])
            """
        )
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert f'File "{script}", line 6, in bad\n    return 10 // x  # in the script' in done.stderr
    assert "<dynamic-code>" not in done.stderr


@pytest.mark.skipif(sys.version_info < (3, 14), reason="older shells do not keep what is typed into them")
def test_a_function_typed_into_the_shell_shows_its_lines() -> None:
    """Python keeps them by code, since all of them have file names of one kind."""
    typed = """
        import amorsize
        def bad(x):
            return 10 // x  # typed

        f = amorsize.parallel(bad, n_jobs=2, start_method="loky", retries=1)
        f.map([1, 1, 0, 1])
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSTARTUP"}
    done = subprocess.run(
        [sys.executable, "-i"], input=textwrap.dedent(typed), capture_output=True, text=True, timeout=100, check=False,
        env=environment | {"PYTHON_BASIC_REPL": "1"},
    )  # fmt: skip
    assert 'File "<stdin>", line 2, in bad\n    return 10 // x  # typed' in done.stderr


def divide(x: int) -> float:
    """Fail one frame further in."""
    time.sleep(0.5e-3)
    return _inverse(x)


def _inverse(x: int) -> float:
    return 1 / x


def _frames(error: BaseException) -> list[str]:
    """Return the functions of a traceback, those of this package as its name, the worker's among them."""
    local = [(frame.filename, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    remote = re.findall(r'File "(.*)", line \d+, in (.*)', str(error.__cause__ or ""))
    return ["amorsize" if file.startswith(OURS) else name for file, name in [*local, *remote]]


CALLS: dict[str, Any] = {
    "map": lambda f, items: f.map(items),
    "amorsize.map": amorsize.map,
    "starmap": lambda f, items: f.starmap([(x,) for x in items]),
    "imap": lambda f, items: list(f.imap(items)),
    "progress": lambda f, items: f.with_options(progress=lambda *_: None).map(items),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("at", [0, 60])
@pytest.mark.parametrize("options", ALL)
def test_a_traceback_has_the_users_frames_and_one_of_amorsize(options: dict[str, Any], at: int, call: str) -> None:
    """Wherever the item ran, the reader sees the call and what failed, and nothing of what lies between them."""
    if options is not LOKY:
        end_threads()
    items = [1] * 100
    items[at] = 0
    with pytest.raises(ZeroDivisionError) as caught:
        CALLS[call](amorsize.parallel(divide, **options), items)
    frames = [name for name in _frames(caught.value) if name != "<lambda>"]
    assert frames == [
        "test_a_traceback_has_the_users_frames_and_one_of_amorsize",
        "amorsize",
        "divide",
        "_inverse",
    ]


def test_a_dry_run_shows_one_frame_of_amorsize() -> None:
    """The sample of a plan fails like the loop."""
    for call in (amorsize.parallel(divide).plan, functools.partial(amorsize.plan, divide)):
        with pytest.raises(ZeroDivisionError) as caught:
            call([0, 1])
        assert _frames(caught.value)[1:] == ["amorsize", "divide", "_inverse"]


@pytest.mark.filterwarnings("ignore::amorsize.exceptions.AmorsizeWarning")  # a fork needs the main thread
@pytest.mark.parametrize("options", ALL)
def test_an_awaited_map_shows_at_most_one_frame_of_amorsize(options: dict[str, Any]) -> None:
    """What stands between the coroutine and the thread that maps is not shown either."""
    if options is not LOKY:
        end_threads()
    chosen, items = amorsize.parallel(divide, **options, retries=int(options is LOKY)), [1] * 60 + [0] + [1] * 40

    async def mapped() -> list[float]:
        return await chosen.amap(items)

    async def streamed() -> list[float]:
        return [result async for result in chosen.aimap(items)]

    for work in (mapped, streamed):
        with pytest.raises(ZeroDivisionError) as caught:
            asyncio.run(work())
        frames = _frames(caught.value)
        own = [name for name in frames[frames.index(work.__name__) + 1 :] if name != "<listcomp>"]
        assert own in (["divide", "_inverse"], ["amorsize", "divide", "_inverse"])


@pytest.mark.parametrize("options", ALL)
def test_a_function_written_in_c_fails_in_one_frame(options: dict[str, Any]) -> None:
    """It has no frame of its own; from a worker comes the one that called it."""
    if options is not LOKY:
        end_threads()
    with pytest.raises(ValueError, match="invalid literal") as caught:
        amorsize.parallel(int, **options).map(["1"] * 60 + ["x"] + ["1"] * 40)
    assert _frames(caught.value)[1:] in (["amorsize"], ["amorsize", "amorsize"])


@pytest.mark.parametrize("options", ALL)
def test_a_returned_exception_has_the_users_frames_only(options: dict[str, Any]) -> None:
    """With ``errors="return"`` nothing was raised through the call, so that its frame is not there either."""
    if options is not LOKY:
        end_threads()
    for at in (0, 60):
        items = [1] * 100
        items[at] = 0
        chosen = amorsize.parallel(divide, **options, errors="return")
        for results in (chosen.map(items), list(chosen.imap(items))):
            error = results[at]
            assert isinstance(error, ZeroDivisionError)
            assert [name for name in _frames(error) if name != "amorsize"] == ["divide", "_inverse"]
            assert len(_frames(error)) <= 3


@needs_fork
def test_the_death_of_a_worker_is_told_in_one_frame() -> None:
    """An exception of amorsize's own that is meant for the user is raised where they called."""
    end_threads()
    with pytest.raises(WorkerDied) as caught:
        amorsize.parallel(_dies, **FORK).map([os.getpid()] * 100)
    assert _frames(caught.value)[1:] == ["amorsize"]


def _dies(parent: int) -> None:
    time.sleep(0.5e-3)
    if os.getpid() != parent:
        os._exit(3)


def test_a_nested_map_shows_one_frame_per_call() -> None:
    """Each call is one frame, the function that made it another."""
    inner = amorsize.parallel(divide, n_jobs=1)

    def outer(x: int) -> list[float]:
        return inner.map([1, x])

    with pytest.raises(ZeroDivisionError) as caught:
        amorsize.parallel(outer, n_jobs=1).map([1, 0])
    assert _frames(caught.value)[1:] == ["amorsize", "outer", "amorsize", "divide", "_inverse"]


def test_an_input_that_fails_shows_one_frame_of_amorsize() -> None:
    """An iterator's exception is the user's too, although no item has raised it."""

    def items() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    for call in ("map", "imap", "progress"):
        with pytest.raises(OSError, match="no more") as caught:
            CALLS[call](amorsize.parallel(divide), items())
        frames = [name for name in _frames(caught.value) if name != "<lambda>"]
        assert frames[1:] == ["amorsize", "items"]


REFUSED: dict[str, Any] = {
    "an unknown option": lambda f: f.map([1], njobs=2),
    "a wrong value": lambda f: f.map([1], errors="ignore"),
    "options that exclude each other": lambda f: f.map([1], prefer="threads", start_method="fork"),
    "no items": lambda f: f.map(),
    "no iterable": lambda f: f.map(5),
    "a wrong bar": lambda f: f.map([1], progress={1: 2}),
    "wrong arguments": lambda f: f.starmap([(1,)], kwargs=3),
    "a plan": lambda f: f.plan([1], njobs=2),
    "a stream": lambda f: f.imap([1], buffersize=0),
    "a stream of pairs": lambda f: f.imap([1], pairs="both"),
}


@pytest.mark.parametrize("call", REFUSED)
def test_what_is_refused_shows_one_frame_of_amorsize(call: str) -> None:
    """The call that was wrong, and none of the checks behind it."""
    with pytest.raises((TypeError, ValueError)) as caught:
        REFUSED[call](amorsize.parallel(divide))
    assert _frames(caught.value)[2:] == ["amorsize"]


def test_a_defect_among_the_checks_keeps_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a statement raises there is a refusal."""
    monkeypatch.setattr("amorsize._arguments.checked_kwargs", len)
    with pytest.raises(TypeError) as caught:
        amorsize.parallel(divide).map([1], kwargs=3)  # type: ignore[call-overload]
    assert _frames(caught.value)[1:] == ["amorsize"] * 2


def test_a_defect_of_amorsize_keeps_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails in the library itself is not the user's, and its frames are what a report needs."""
    from amorsize import _call  # noqa: PLC0415 - broken for this test

    monkeypatch.setattr(_call.Call, "_consider", staticmethod(functools.partial(json.loads, "no JSON")))
    with pytest.raises(json.JSONDecodeError) as caught:
        amorsize.parallel(divide, n_jobs=2).map([1] * 10)
    assert _frames(caught.value).count("amorsize") > 2
