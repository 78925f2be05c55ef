"""The commands that call the caller's function: ``plan`` and ``run``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sized
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

from amorsize import _render
from amorsize._cli import words
from amorsize._plain import plain
from amorsize._progress import require_tqdm

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from amorsize._decorator import ParallelFunction

# Columns of an explanation in a terminal.
WIDTH: Final = 79


def plan(args: argparse.Namespace) -> int:
    function, data = words.function(args), words.data_items(args.data, is_json=args.parse_json)
    with words.blamed(function):
        found = function.plan(data)
    if args.json:
        print(json.dumps(found.to_dict(), indent=2))
        return 0
    print(_render.explain(found, WIDTH))
    print()
    print(f"n_jobs={found.n_jobs} chunksize={found.chunksize} backend={found.backend}")
    return 0


def run(args: argparse.Namespace) -> int:
    function, data = words.function(args), words.data_items(args.data, is_json=args.parse_json)
    if args.progress:
        try:
            require_tqdm()
        except ImportError as error:
            raise words.CommandError(str(error)) from error
        function = function.with_options(progress=True)
    if args.errors is not None:
        function = function.with_options(errors=args.errors)
    write = _write_array if args.json else _write_lines
    results = _Counted(_blamed(function, data))
    with _opened(args.output) as file:
        write(results, file)
    _report(args.errors, results, data)
    if args.explain and function.last_plan is not None:
        sys.stdout.flush()
        print(_render.explain(function.last_plan, WIDTH), file=sys.stderr)
    return 0


def _blamed(function: ParallelFunction[..., Any], data: Iterable[Any]) -> Iterator[Any]:
    """Yield results as they come; failures on the way are the function's, those of writing are not."""
    end = object()
    with contextlib.closing(cast("Any", function.imap(data))) as stream:
        while True:
            with words.blamed(function):
                result = next(stream, end)
            if result is end:
                return
            yield result


@dataclasses.dataclass(eq=False)
class _Counted:
    """Results on their way to the output, and how many there were."""

    results: Iterable[Any]
    n: int = 0
    n_failed: int = 0

    def __iter__(self) -> Iterator[Any]:
        for result in self.results:
            self.n += 1
            self.n_failed += isinstance(result, Exception)
            yield result


def _report(errors: str | None, results: _Counted, data: Iterable[Any]) -> None:
    """Say how many items failed, where that did not end the run."""
    n_failed = results.n_failed if errors == "return" else 0
    if errors == "skip" and isinstance(data, Sized):
        n_failed = len(data) - results.n
    if n_failed:
        n_all = results.n + (n_failed if errors == "skip" else 0)
        print(f"amorsize: {n_failed:,} of {_render.count(n_all, 'item')} failed", file=sys.stderr)


@contextlib.contextmanager
def _opened(path: str | None) -> Iterator[IO[str] | None]:
    """Open the file for the results; None is standard output."""
    if path is None:
        yield None
        return
    try:
        file = Path(path).open("w", encoding="utf-8", errors="backslashreplace", newline="\n")  # noqa: SIM115 - below
    except OSError as error:
        raise words.CommandError(f"cannot write {path!r}: {error.strerror}") from error
    with file:
        yield file


# Each result is written out at once: whoever waits for it sees it, and what is still in a buffer when workers are
# forked would be written by them as well.
def _write_lines(results: Iterable[Any], file: IO[str] | None) -> None:
    for result in results:
        print(to_json(result), file=file, flush=True)


def _write_array(results: Iterable[Any], file: IO[str] | None) -> None:
    opening = "["
    try:
        for result in results:
            print(opening, to_json(result), sep="\n" if opening == "[" else "", end="", file=file, flush=True)
            opening = ",\n"
    finally:  # what there was before a failure is an array too
        with contextlib.suppress(OSError):
            print("[]" if opening == "[" else "\n]", file=file)


def to_json(value: Any) -> str:
    """Write any value as one line of JSON."""
    for turned in (lambda: value, lambda: plain(value), lambda: repr(value)):
        try:
            return json.dumps(turned(), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            pass
    return json.dumps(f"<{type(value).__name__}>")  # its own repr fails
