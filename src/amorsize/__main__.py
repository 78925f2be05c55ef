"""
The command line: ``python -m amorsize`` or ``amorsize``.

Turns words into calls of the public surface and results into lines. Results go to standard output, everything else to
standard error; the exit code is 0, 1 (the work failed), 2 (the words made no sense) or 130 (interrupted).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Any, Final

import amorsize
from amorsize import _cli, _render
from amorsize import _demo as demo
from amorsize._cli import CommandError, WorkError
from amorsize._records import FORK, FORKSERVER, LOKY
from amorsize.exceptions import AmorsizeError, AmorsizeWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FAILED: Final = 1
USAGE: Final = 2
# What a shell reports of a program ended by a signal: 128 and its number.
INTERRUPTED: Final = 128 + 2
CLOSED_PIPE: Final = 128 + 13

# Columns of everything that is written for people.
_COLUMNS: Final = 80

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


def _dashed(word: str) -> str:
    """Spell an option as the command line does: who writes ``--n_jobs`` means that of Python."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else word


def main(argv: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - one line per way to end
    """Run one command, that of the process by default, without the program's name; returns the exit code."""
    try:
        args = _parser().parse_args([_dashed(word) for word in (sys.argv[1:] if argv is None else argv)])
    except SystemExit as stop:  # argparse has said what there is to say
        return int(stop.code or 0)
    with contextlib.suppress(AttributeError, ValueError):  # not a terminal or file: an embedding program's own object
        # Bytes that are no UTF-8 come in as lone surrogates and leave as JSON's own escapes.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]  # see above
    try:
        with warnings.catch_warnings(), _long_numbers():
            warnings.showwarning = _show_warning
            code: int = args.do(args)
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
    parser.set_defaults(do=lambda _: _help(parser), traceback=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, do: Callable[[argparse.Namespace], int], text: str, more: str = "") -> Any:
        added = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=more, formatter_class=_formatter
        )
        added.set_defaults(do=do, traceback=False)
        return added

    command("demo", _demo, "parse Python's standard library, in a loop and in parallel")
    host = command("host", _cli.host, "show cores, memory, limits, and what workers cost here", _HOST_MORE)
    host.add_argument("--json", action="store_true", help="machine-readable")
    host.add_argument("--no-measure", action="store_true", help="do not start workers to measure them (saves 1 s)")

    plan = command("plan", _cli.plan, "recommend n_jobs and chunksize from a sample of the data", _PLAN_MORE)
    _add_job(plan)
    plan.add_argument("--json", action="store_true", help="the whole plan, machine-readable")

    run = command("run", _cli.run, "call a function on each item and print the results as JSON", _RUN_MORE)
    _add_job(run)
    run.add_argument("--errors", choices=("raise", "return", "skip"), help="what a failing item does; see below")
    run.add_argument("--output", metavar="FILE", help="write the results there, not to standard output")
    run.add_argument("--progress", action="store_true", help="a progress bar (extra: amorsize[progress])")
    run.add_argument("--explain", action="store_true", help="say on standard error how it was run, and why")
    form = run.add_mutually_exclusive_group()
    form.add_argument("--jsonl", action="store_true", help="one line per item (the default)")
    form.add_argument("--json", action="store_true", help="one JSON array of all results")

    cache = command("cache", _cli.cache, "show or clear what is kept beyond the process", _CACHE_MORE)
    cache.add_argument("what", nargs="?", choices=("show", "clear"), default="show", help="what to do with it (show)")
    cache.add_argument("--dir", metavar="DIR", help="the folder, instead of $AMORSIZE_CACHE_DIR")
    cache.add_argument("--json", action="store_true", help="machine-readable")
    return parser


def _help(parser: argparse.ArgumentParser) -> int:
    """Answer a command line without a command with what there is."""
    parser.print_help()
    return 0


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
Results are in the order of the items, each written as soon as it is known.
What JSON does not know is written as its nearest relative (a set as a list, a
path as text), else as its repr().

A failing item ends the run, after the results before it. With --errors return
its line is {{"error": type, "message": text}}, with --errors skip there is none;
how many failed is then said on standard error.

examples:
  amorsize run math:factorial --data 'range(1, 6)'
  amorsize run zlib:crc32 --data 'range(3)'      (fails: an int is not bytes)
  amorsize run mymodule:work --data in.jsonl --parse-json --output out.jsonl
  amorsize run os.path:getsize --data '*.py' --json
  find . -name '*.py' | amorsize run os.path:getsize --data - | sort -n

exit status:
  0  done    1  the function failed    2  bad usage    130  interrupted
"""

_CACHE_MORE: Final = """\
Profiles and measured costs are kept in the folder that the environment
variable AMORSIZE_CACHE_DIR names; nothing is kept while it is not set.

examples:
  AMORSIZE_CACHE_DIR=~/.cache/amorsize amorsize cache
  amorsize cache clear --dir ~/.cache/amorsize
"""


def _memory(text: str) -> float | str:
    """Read what --max-memory says: a share of the memory, or a size that the option itself understands."""
    return float(text) if re.fullmatch(r"0?\.\d+|1\.0*", text) else text


def _add_job(parser: Any) -> None:
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="a function of one item, as in 'math:sqrt'")
    parser.add_argument("--data", metavar="DATA", required=True, help="the items; see below")
    parser.add_argument("--n-jobs", metavar="N", type=int, help="exactly so many at once (-1: all CPUs)")
    parser.add_argument("--batch-size", metavar="N", type=int, help="exactly so many items per chunk")
    parser.add_argument("--prefer", choices=("processes", "threads"), help="threads only if it is thread-safe")
    parser.add_argument("--start-method", choices=(FORK, FORKSERVER, LOKY), help="how workers are started")
    parser.add_argument("--max-memory", metavar="SIZE", type=_memory, help="for all workers: 2GB, 512MiB, 0.5 of all")
    parser.add_argument("--timeout", metavar="S", type=float, help="seconds that one item may take")
    parser.add_argument("--retries", metavar="N", type=int, help="run items of a dead worker so often again")
    parser.add_argument("--sample-size", metavar="N", type=int, help="items to time one by one (5)")
    parser.add_argument("--parse-json", action="store_true", help="each line is a JSON value, not text")
    parser.add_argument("--traceback", action="store_true", help="if the function fails, show where")


# -- commands --------------------------------------------------------------------------------------------------------


def _demo(args: argparse.Namespace) -> int:
    del args
    is_same, plan = demo.run(lambda line: print(line, flush=True))
    if plan is not None:
        print("\ncount_nodes.last_plan.explain():\n")
        print(_render.explain(plan, _cli.WIDTH))
    return 0 if is_same else FAILED


if __name__ == "__main__":
    sys.exit(main())
