"""
The command line: ``python -m amorsize`` or ``amorsize``.

Turns words into calls of the public surface and results into lines. Results go to standard output, everything else to
standard error; the exit code is 0, 1 (the work failed), 2 (the words made no sense) or 130 (interrupted).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import glob
import importlib
import json
import math
import os
import re
import shutil
import sys
import textwrap
import traceback
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import amorsize
from amorsize import _host, _render, _store
from amorsize._types import FORK, LOKY
from amorsize.exceptions import AmorsizeError, AmorsizeWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from amorsize._decorator import ParallelFunction
    from amorsize._types import Host

FAILED: Final = 1
USAGE: Final = 2
# What a shell reports of a program ended by a signal: 128 and its number.
INTERRUPTED: Final = 128 + 2
CLOSED_PIPE: Final = 128 + 13

# Columns of everything that is written for people.
_COLUMNS: Final = 80

_RANGE: Final = re.compile(r"\s*range\(\s*(-?[\d_]+)\s*(?:,\s*(-?[\d_]+)\s*)?(?:,\s*(-?[\d_]+)\s*)?,?\s*\)\s*")

_EXAMPLES: Final = """\
examples:
  amorsize demo                               what it does, on real work
  amorsize host                               what this machine offers
  amorsize plan math:factorial --data 'range(1, 500)'
                                              how many workers would pay
  amorsize run math:factorial --data 'range(1, 6)'
                                              the results, one line each
  amorsize run mymodule:work --data 'logs/*.txt' --progress
  ls | amorsize run mymodule:work --data -    a stream of lines

'amorsize COMMAND --help' tells more.
"""

_DATA_HELP: Final = """\
DATA is one of
  'range(1, 500)'   whole numbers, as in Python
  FILE              the lines of a file, without their newlines
  'logs/*.txt'      the paths that match (in quotes, or the shell expands it)
  -                 the lines of standard input, as they come
"""


class CommandError(Exception):
    """What was asked for makes no sense; the message says why."""


class WorkError(Exception):
    """The caller's own code failed; its exception is the cause."""


def main(argv: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - one line per way to end
    """
    Run one command.

    Args:
        argv: The words after the program's name; those of the process by default.

    Returns:
        The exit code.
    """
    try:
        args = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said what there is to say
        return int(stop.code or 0)
    with contextlib.suppress(AttributeError, ValueError):  # not a terminal or file: an embedding program's own object
        # Bytes that are no UTF-8 come in as lone surrogates and leave as JSON's own escapes.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]  # see above
    try:
        with warnings.catch_warnings(), _long_numbers():
            warnings.showwarning = _show_warning
            code: int = args.work(args)
            _flush()
    except CommandError as error:
        return _fail(USAGE, str(error))
    except WorkError as error:
        if args.traceback and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return _fail(FAILED, str(error))
    except BrokenPipeError:
        _drop_output()
        return CLOSED_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except AmorsizeError as error:
        return _fail(FAILED, f"{type(error).__name__}: {error}")
    except OSError as error:
        _drop_output()
        return _fail(FAILED, str(error))
    return code


@contextlib.contextmanager
def _long_numbers() -> Iterator[None]:
    """Let numbers of any length be written: they are the caller's own results, not somebody's input."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(limit)


def _flush() -> None:
    if sys.stdout is not None:  # None where the shell has closed it: >&-
        sys.stdout.flush()


def _fail(code: int, message: str) -> int:
    with contextlib.suppress(OSError):
        _flush()
    print(f"amorsize: error: {message}", file=sys.stderr)
    return code


def _drop_output() -> None:
    """Forget what is still buffered, for a reader who has gone or a disk that is full: it would fail again at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_show_other = warnings.showwarning


def _show_warning(  # noqa: PLR0917 - the shape that warnings.showwarning has
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    if issubclass(category, AmorsizeWarning):
        print(f"amorsize: warning: {message}", file=sys.stderr)
    else:
        _show_other(message, category, filename, lineno, file, line)


# -- the words -------------------------------------------------------------------------------------------------------


def _formatter(prog: str) -> argparse.HelpFormatter:
    width = min(_COLUMNS, shutil.get_terminal_size((_COLUMNS, 24)).columns) - 1
    return argparse.RawDescriptionHelpFormatter(prog, width=max(40, width), max_help_position=26)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="amorsize",
        description="Run a function over data in parallel where that pays, as a plain loop\nwhere it does not, and "
        "say why.",
        epilog=_EXAMPLES,
        formatter_class=_formatter,
    )
    parser.add_argument("--version", action="version", version=f"amorsize {amorsize.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, work: Callable[[argparse.Namespace], int], text: str, more: str = "") -> Any:
        added = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=more, formatter_class=_formatter
        )
        added.set_defaults(work=work, traceback=False)
        return added

    command("demo", _demo, "parse Python's standard library, in a loop and in parallel")
    host = command("host", _host_command, "show cores, memory, limits, and what workers cost here", _HOST_MORE)
    host.add_argument("--json", action="store_true", help="machine-readable")
    host.add_argument("--no-measure", action="store_true", help="do not start workers to measure them (saves 1 s)")

    plan = command("plan", _plan, "recommend n_jobs and chunksize from a sample of the data", _PLAN_MORE)
    _add_job(plan)
    plan.add_argument("--json", action="store_true", help="the whole plan, machine-readable")

    run = command("run", _run, "call a function on each item and print the results as JSON", _RUN_MORE)
    _add_job(run)
    run.add_argument("--progress", action="store_true", help="a progress bar (extra: amorsize[progress])")
    run.add_argument("--explain", action="store_true", help="say on standard error how it was run, and why")
    form = run.add_mutually_exclusive_group()
    form.add_argument("--jsonl", action="store_true", help="one line per item (the default)")
    form.add_argument("--json", action="store_true", help="one JSON array of all results")

    cache = command("cache", _cache, "show or clear what is kept beyond the process", _CACHE_MORE)
    cache.add_argument("what", choices=("show", "clear"))
    cache.add_argument("--dir", metavar="DIR", help="the folder, instead of $AMORSIZE_CACHE_DIR")
    cache.add_argument("--json", action="store_true", help="machine-readable")
    return parser


_HOST_MORE: Final = """\
example:
  amorsize host --json | python -m json.tool
"""

_PLAN_MORE: Final = f"""\
{_DATA_HELP}
Only a sample of the items is run (the first five, fewer if they are long).

examples:
  amorsize plan math:factorial --data 'range(1, 500)'
  amorsize plan mymodule:work --data names.txt --json
"""

_RUN_MORE: Final = f"""\
{_DATA_HELP}
Results are in the order of the items. What JSON does not know is written as
its nearest relative (a set as a list, a path as text), else as its repr().

examples:
  amorsize run math:factorial --data 'range(1, 6)'
  amorsize run zlib:crc32 --data 'range(3)'      (fails: an int is not bytes)
  amorsize run os.path:getsize --data '*.py' --json
  find . -name '*.py' | amorsize run os.path:getsize --data - | sort -n

exit status:
  0  done    1  the function failed    2  bad usage    130  interrupted
"""

_CACHE_MORE: Final = """\
Profiles and measured costs are kept in the folder that the environment
variable AMORSIZE_CACHE_DIR names; nothing is kept while it is not set.

examples:
  AMORSIZE_CACHE_DIR=~/.cache/amorsize amorsize cache show
  amorsize cache clear --dir ~/.cache/amorsize
"""


def _add_job(parser: Any) -> None:
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="a function of one item, as in 'math:sqrt'")
    parser.add_argument("--data", metavar="DATA", required=True, help="the items; see below")
    parser.add_argument("--n-jobs", metavar="N", type=int, help="exactly so many at once (-1: all CPUs)")
    parser.add_argument("--batch-size", metavar="N", type=int, help="exactly so many items per chunk")
    parser.add_argument("--prefer", choices=("processes", "threads"), help="threads only if it is thread-safe")
    parser.add_argument("--traceback", action="store_true", help="if the function fails, show where")


# -- functions and data ----------------------------------------------------------------------------------------------


def _function(args: argparse.Namespace) -> ParallelFunction[..., Any]:
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
    options = {name: getattr(args, name) for name in ("n_jobs", "batch_size", "prefer")}
    options = {name: value for name, value in options.items() if value is not None}
    try:
        function = found if isinstance(found, amorsize.ParallelFunction) else amorsize.parallel(found)
        return function.with_options(**options) if options else function
    except (TypeError, ValueError) as error:
        raise CommandError(str(error)) from error


def _data(text: str) -> Iterable[Any]:
    """Turn DATA into items; standard input is a stream, everything else has a length."""
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
def _blame(function: ParallelFunction[..., Any]) -> Iterator[None]:
    """Tell failures of the caller's function from those of the command."""
    try:
        yield
    except (KeyboardInterrupt, BrokenPipeError, CommandError, GeneratorExit):
        raise
    except BaseException as error:
        name = getattr(function, "__name__", None) or "the function"
        raise WorkError(f"{name} failed: {_one_line(error)}") from error


# -- commands --------------------------------------------------------------------------------------------------------


def _demo(args: argparse.Namespace) -> int:
    from amorsize import _demo as demo  # noqa: PLC0415 - only this command needs it

    del args
    is_same, plan = demo.run(lambda line: print(line, flush=True))
    if plan is not None:
        print("\ncount_nodes.last_plan.explain():\n")
        print(_render.explain(plan, _COLUMNS - 1))
    return 0 if is_same else FAILED


def _plan(args: argparse.Namespace) -> int:
    function, data = _function(args), _data(args.data)
    with _blame(function):
        plan = function.plan(data)
    if args.json:
        print(json.dumps(plan.to_dict(), indent=2))
        return 0
    print(_render.explain(plan, _COLUMNS - 1))
    print()
    print(f"n_jobs={plan.n_jobs} chunksize={plan.chunksize} backend={plan.backend}")
    return 0


def _run(args: argparse.Namespace) -> int:
    function, data = _function(args), _data(args.data)
    if args.progress:
        from amorsize._progress import require_tqdm  # noqa: PLC0415 - only progress needs it

        try:
            require_tqdm()
        except ImportError as error:
            raise CommandError(str(error)) from error
        function = function.with_options(progress=True)
    is_stream = args.data == "-"
    write = _write_array if args.json else _write_lines
    results: Iterable[Any] = _blamed(function, function.imap(data)) if is_stream else _mapped(function, data)
    write(results, flush=is_stream)
    if args.explain and function.last_plan is not None:
        _flush()
        print(_render.explain(function.last_plan, _COLUMNS - 1), file=sys.stderr)
    return 0


def _mapped(function: ParallelFunction[..., Any], data: Iterable[Any]) -> list[Any]:
    with _blame(function):
        return function.map(data)


def _blamed(function: ParallelFunction[..., Any], stream: Iterable[Any]) -> Iterator[Any]:
    """Yield a stream's results; failures inside it are the function's, those of writing are not."""
    iterator = iter(stream)
    end = object()
    while True:
        with _blame(function):
            result = next(iterator, end)
        if result is end:
            return
        yield result


def _write_lines(results: Iterable[Any], *, flush: bool) -> None:
    for result in results:
        print(to_json(result), flush=flush)


def _write_array(results: Iterable[Any], *, flush: bool) -> None:
    opening = "["
    for result in results:
        print(opening, to_json(result), sep="\n" if opening == "[" else "", end="", flush=flush)
        opening = ",\n"
    print("[]" if opening == "[" else "\n]")


def to_json(value: Any) -> str:
    """Write any value as one line of JSON: exactly where JSON can, else as its nearest relative."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(repr(value), ensure_ascii=False)


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one line per kind
    """Turn a value into what JSON can hold."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [_plain(item) for item in sorted(value, key=repr)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if callable(tolist := getattr(value, "tolist", None)):  # NumPy's numbers and arrays
        return _plain(tolist())
    return repr(value)


# -- the host --------------------------------------------------------------------------------------------------------


def _host_command(args: argparse.Namespace) -> int:
    host = amorsize.host()
    if not args.no_measure:
        _measure(host)
        # As it was before workers were started: beside running workers, some ways of starting others are closed.
        host = dataclasses.replace(host, costs={name: _host.BOOK.get(name) for name in host.costs})
    readings = _readings()
    if args.json:
        print(json.dumps(host.to_dict() | {"readings": readings}, indent=2))
        return 0
    for line in _host_lines(host, readings):
        print(line)
    return 0


def _measure(host: Host) -> None:
    """Start each kind of worker once, so that what they cost is known; a kind that cannot start keeps its prior."""
    for method in (FORK, LOKY):
        if method not in host.costs:
            continue
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # With retries no item runs here, so that the call lasts until a worker has answered.
            amorsize.parallel(abs, n_jobs=2, start_method=method, batch_size=1, retries=1).map(range(8))
    amorsize.shutdown()
    _store.load()
    _store.save_costs(_host.BOOK.items())


def _readings() -> dict[str, dict[str, float | int | None]]:
    """Return every limit of this machine by name, whether or not it is the one that counts."""
    readings = _host.Readings()
    attempt = _host._attempt  # noqa: SLF001 - a reading that cannot be had is None, as for the host
    override = readings.environ.get("LOKY_MAX_CPU_COUNT")
    return {
        "cpus": {
            "machine": attempt(readings.logical),
            "physical": attempt(readings.physical),
            "affinity": attempt(readings.affinity),
            "cgroup CPU quota": attempt(lambda: _host.cgroup_cpus(readings)),
            "LOKY_MAX_CPU_COUNT": attempt(lambda: None if override is None else int(override)),
        },
        "memory_bytes": {
            "machine": attempt(readings.available),
            "cgroup": attempt(lambda: _host.cgroup_memory(readings)),
            "RLIMIT_AS": attempt(readings.address_space),
        },
    }


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
    yield "workers  what they cost here"
    for name, why in host.unavailable.items():
        yield from textwrap.wrap(f"not used: {name}: {why}", _COLUMNS - 12, initial_indent=" " * 11)
    names = list(host.costs)
    table = [_render.costs_cells(host.costs[name]) for name in names]
    yield " " * 11 + f"{'':<12}" + "".join(f"{name:>12}" for name in names)
    for row in zip(*table, strict=True):
        yield " " * 11 + f"{row[0][0]:<12}" + "".join(f"{cell:>12}" for _, cell in row)


# -- the cache -------------------------------------------------------------------------------------------------------


def _cache(args: argparse.Namespace) -> int:
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
    print(f"{where}: {_render.count(len(entries), 'profile')}, costs of {', '.join(costs) or 'nothing'}")
    for entry in entries:
        saved = datetime.fromtimestamp(entry.saved_at, UTC).strftime("%Y-%m-%d %H:%M")
        item = _render.seconds(entry.known.profile.item_s)
        kind = _store.type_name(entry.known.arg_type)
        print(f"  {_shorten(entry.key, 34):<34} {_shorten(kind, 16):<16} {item:>9}  {saved}")
    return 0


def _entry(entry: _store.Entry) -> dict[str, Any]:
    known = entry.known
    kept = {"key": entry.key, "arg_type": _store.type_name(known.arg_type), "n_seen": known.n_seen}
    return kept | {"saved_at": entry.saved_at, "profile": known.profile.to_dict()}


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


if __name__ == "__main__":
    sys.exit(main())
