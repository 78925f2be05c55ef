"""
The commands of ``python -m amorsize``: what their words mean, what they do, and what they print.

Raises :class:`CommandError` where the words make no sense, :class:`WorkError` where the caller's own code fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import glob
import importlib
import json
import re
import sys
import textwrap
import warnings
from collections.abc import Sized
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, cast

import amorsize
from amorsize import _host, _options, _render, _store
from amorsize._cost import SERVED
from amorsize._progress import require_tqdm
from amorsize._records import plain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from amorsize._decorator import ParallelFunction
    from amorsize._records import Host

# -- words -------------------------------------------------------------------------------------------------------------

_RANGE: Final = re.compile(r"\s*range\(\s*(-?[\d_]+)\s*(?:,\s*(-?[\d_]+)\s*)?(?:,\s*(-?[\d_]+)\s*)?,?\s*\)\s*")

# The options of amorsize.parallel that both `plan` and `run` take, by their own names.
_OPTIONS: Final = (
    "n_jobs", "batch_size", "prefer", "start_method", "max_memory", "timeout", "retries", "sample_size"
)  # fmt: skip


class CommandError(Exception):
    """What was asked for makes no sense; the message says why."""


class WorkError(Exception):
    """The caller's own code failed; its exception is the cause."""


def function_of(args: argparse.Namespace) -> ParallelFunction[..., Any]:
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
            near = difflib.get_close_matches(part, dir(found), n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise CommandError(f"{module_name!r} has no {path!r}{meant}") from error
    options = {name: getattr(args, name) for name in _OPTIONS}
    options = {name: value for name, value in options.items() if value is not None}
    try:
        _options.defaults(in_context=False)  # what the environment says wrongly is told before anything runs
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


# -- plan and run: they call the caller's function ---------------------------------------------------------------------


# Columns of an explanation in a terminal.
WIDTH: Final = 79


def plan(args: argparse.Namespace) -> int:
    function, data = function_of(args), data_items(args.data, is_json=args.parse_json)
    with blamed(function):
        found = function.plan(data)
    if args.json:
        print(json.dumps(found.to_dict(), indent=2))
        return 0
    print(_render.explain(found, WIDTH))
    print()
    print(f"n_jobs={found.n_jobs} chunksize={found.chunksize} backend={found.backend}")
    return 0


def run(args: argparse.Namespace) -> int:
    function, data = function_of(args), data_items(args.data, is_json=args.parse_json)
    if args.progress:
        try:
            require_tqdm()
        except ImportError as error:
            raise CommandError(str(error)) from error
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
            with blamed(function):
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
        raise CommandError(f"cannot write {path!r}: {error.strerror}") from error
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


# -- host and cache: they show what is known ---------------------------------------------------------------------------


def host(args: argparse.Namespace) -> int:
    found = amorsize.host()
    if not args.no_measure:
        _measure(found)
        # As it was before workers were started: beside running workers, some ways of starting others are closed.
        found = dataclasses.replace(found, costs={name: _host.BOOK.get(name) for name in found.costs})
    readings = _readings()
    if args.json:
        print(json.dumps(found.to_dict() | {"readings": readings}, indent=2))
        return 0
    for line in _host_lines(found, readings):
        print(line)
    return 0


def _measure(host: Host) -> None:
    """Start each kind of worker once, so that what they cost is known; a kind that cannot start keeps its prior."""
    methods: tuple[Literal["fork", "forkserver", "loky"], ...] = ("fork", "forkserver", "loky")
    for method in methods:
        if method not in host.costs:
            continue
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # With retries no item runs here, so that the call lasts until a worker has answered.
            amorsize.parallel(abs, n_jobs=2, start_method=method, batch_size=1, retries=1).map(range(8))
    amorsize.shutdown()
    _store.load()
    _store.save({}, _host.BOOK.known)


def _readings() -> dict[str, dict[str, float | None]]:
    """Return every limit of this machine by name, whether or not it is the one that counts."""
    readings = _host.Readings()
    cpus = _host.cpu_limits(readings) | {"physical": _host.usable_cpus(readings)[1]}
    return {"cpus": cpus, "memory_bytes": {**_host.memory_limits(readings)}}


def _host_lines(host: Host, readings: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield f"CPUs     {host.n_cpus} usable, {host.n_physical_cpus} physical"
    for name, value in readings["cpus"].items():
        mark = "  <- counts" if name == host.sources.get("n_cpus") else ""
        yield f"           {name:<20}{'no limit' if value is None else f'{value:g}'}{mark}"
    yield f"memory   {_render.size(host.memory_bytes)} available"
    for name, value in readings["memory_bytes"].items():
        mark = "  <- counts" if name == host.sources.get("memory_bytes") else ""
        yield f"           {name:<20}{'no limit' if value is None else _render.size(value)}{mark}"
    if host.is_disabled:
        yield "disabled AMORSIZE_SERIAL is set: everything runs as a loop"
    if not host.has_gil:
        yield 'GIL      off: with prefer="threads", threads compute Python code side by side'
    yield "workers  what they cost here"
    for name, why in host.unavailable.items():
        yield from textwrap.wrap(f"not used: {name}: {why}", 68, initial_indent=" " * 11)
    names = list(host.costs)
    table = [_render.costs_cells(host.costs[name]) for name in names]
    yield " " * 11 + f"{'':<12}" + "".join(f"{name:>12}" for name in names)
    for row in zip(*table, strict=True):
        yield " " * 11 + f"{row[0][0]:<12}" + "".join(f"{cell:>12}" for _, cell in row)


# What kinds of workers are called that have no name of their own outside the package.
_KINDS: Final = {SERVED: "forkserver (running already)"}


def cache(args: argparse.Namespace) -> int:
    if args.dir is not None:
        _store.configure(cache_dir=args.dir)
    where = _store.folder()
    if where is None:
        raise CommandError("nothing is kept: set AMORSIZE_CACHE_DIR, or name the folder with --dir")
    if args.what == "clear":
        n_profiles = _store.clear()
        print(json.dumps({"cleared": n_profiles}) if args.json else f"cleared {_render.count(n_profiles, 'profile')}")
        return 0
    entries, costs = _store.entries(), _store.costs()
    if args.json:
        profiles = [_entry(entry) for entry in entries]
        kept = {name: value.to_dict() for name, value in costs.items()}
        print(json.dumps({"folder": str(where), "profiles": profiles, "costs": kept}, indent=2))
        return 0
    print(f"{where}: {_render.count(len(entries), 'profile')}, {_measured(costs)}")
    for entry in entries:
        saved = datetime.fromtimestamp(entry.saved_at, UTC).strftime("%Y-%m-%d %H:%M")
        item = _render.seconds(entry.known.profile.item_s)
        kind = entry.known.arg_type
        print(f"  {_shorten(entry.name or entry.key, 34):<34} {_shorten(kind, 16):<16} {item:>9}  {saved}")
    return 0


def _measured(costs: Iterable[str]) -> str:
    """Say for which kinds of workers the costs have been measured."""
    names = [_KINDS.get(name, name) for name in costs]
    return f"measured costs of {', '.join(names)}" if names else "no costs of workers measured yet"


def _entry(entry: _store.Entry) -> dict[str, Any]:
    known = entry.known
    kept = {"name": entry.name, "key": entry.key, "arg_type": known.arg_type, "n_seen": known.n_seen}
    return kept | {"saved_at": entry.saved_at, "profile": known.profile.to_dict()}


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
