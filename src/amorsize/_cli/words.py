"""
Turns the words of the command line into a function and its items.

Raises :class:`CommandError` where they make no sense, :class:`WorkError` where the caller's own code fails.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import json
import re
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import amorsize

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from amorsize._decorator import ParallelFunction

_RANGE: Final = re.compile(r"\s*range\(\s*(-?[\d_]+)\s*(?:,\s*(-?[\d_]+)\s*)?(?:,\s*(-?[\d_]+)\s*)?,?\s*\)\s*")

# The options of amorsize.parallel that both `plan` and `run` take, by their own names.
_OPTIONS: Final = (
    "n_jobs", "batch_size", "prefer", "start_method", "max_memory", "timeout", "retries", "sample_size"
)  # fmt: skip


class CommandError(Exception):
    """What was asked for makes no sense; the message says why."""


class WorkError(Exception):
    """The caller's own code failed; its exception is the cause."""


def function(args: argparse.Namespace) -> ParallelFunction[..., Any]:
    """Find MODULE:FUNCTION and decorate it as asked."""
    module_name, colon, path = args.function.partition(":")
    if not (module_name and colon and path):
        raise CommandError(f"{args.function!r} is not MODULE:FUNCTION, as in 'math:sqrt'")
    if module_name.endswith(".py") or "/" in module_name:
        name = Path(module_name).stem
        raise CommandError(f"{module_name!r} is a file; name the module as in an import: '{name}:{path}'")
    # As `python -m` does and console scripts do not: modules of the current folder can be imported.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise CommandError(f"cannot import {module_name!r}: {error}") from error
    except Exception as error:
        raise WorkError(f"importing {module_name!r} failed: {_one_line(error)}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise CommandError(f"{module_name!r} has no {path!r}") from error
    options = {name: getattr(args, name) for name in _OPTIONS}
    options = {name: value for name, value in options.items() if value is not None}
    try:
        function = found if isinstance(found, amorsize.ParallelFunction) else amorsize.parallel(found)
        return function.with_options(**options) if options else function
    except (TypeError, ValueError) as error:
        raise CommandError(str(error)) from error


def data_items(text: str, *, is_json: bool) -> Iterable[Any]:
    """Turn DATA into items; standard input is a stream, everything else has a length."""
    if is_json:
        return _parsed(text)
    if text == "-":
        return _stdin_lines()
    if found := _RANGE.fullmatch(text):
        try:
            return range(*(int(number) for number in found.groups() if number is not None))
        except ValueError as error:
            raise CommandError(f"{text}: {error}") from error
    try:
        with Path(text).open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return list(_lines(file))
    except FileNotFoundError:
        if any(mark in text for mark in "*?["):
            return _matching(text)
        hint = "" if "(" not in text else "; a range has whole numbers only, as in 'range(1, 500)'"
        raise CommandError(f"no such file: {text!r}{hint}") from None
    except IsADirectoryError:
        raise CommandError(f"{text!r} is a folder; for the files in it say --data '{Path(text) / '*'}'") from None
    except OSError as error:
        raise CommandError(f"cannot read {text!r}: {error.strerror}") from error


def _parsed(text: str) -> Iterable[Any]:
    """Turn lines of JSON into items; empty lines are none."""
    if text != "-" and not Path(text).is_file():
        raise CommandError(f"--parse-json reads the lines of a file or of standard input, not {text!r}")

    def parse(lines: Iterable[str]) -> Iterator[Any]:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    where = "standard input" if text == "-" else repr(text)
                    raise CommandError(f"line {number} of {where} is no JSON: {error}") from error

    lines = data_items(text, is_json=False)
    return parse(lines) if text == "-" else list(parse(lines))


def _matching(pattern: str) -> list[str]:
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise CommandError(f"no file matches {pattern!r}")
    return paths


def _lines(file: IO[str]) -> Iterator[str]:
    """Yield lines without their newlines, empty ones included."""
    for line in file:
        yield line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


def _stdin_lines() -> Iterator[str]:
    with contextlib.suppress(AttributeError, ValueError):  # not a file: an embedding program's own object
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")  # type: ignore[union-attr]  # see above
    return _lines(sys.stdin)


def _one_line(error: BaseException) -> str:
    """Spell an exception in one line, with the item that amorsize's note names."""
    text = str(error).strip().splitlines()
    notes = [note.removeprefix("amorsize: ") for note in getattr(error, "__notes__", ()) if "raised by item" in note]
    return f"{type(error).__name__}{': ' if text else ''}{' '.join(text[:1])}{''.join(f' ({note})' for note in notes)}"


@contextlib.contextmanager
def blamed(function: ParallelFunction[..., Any]) -> Iterator[None]:
    """Tell failures of the caller's function from those of the command."""
    try:
        yield
    except (KeyboardInterrupt, BrokenPipeError, CommandError, GeneratorExit):
        raise
    except BaseException as error:
        name = getattr(function, "__name__", None) or "the function"
        raise WorkError(f"{name} failed: {_one_line(error)}") from error
