"""
The options: one table with the default, the check and the words of each, and what wins where several are given.

What people call them elsewhere leads to the right name. Starts nothing, measures nothing, and reads one environment
variable, ``AMORSIZE_N_JOBS``.

A new option is a line of :class:`OtherOptions`, and a field of ``Limits`` if decisions need it.
"""

# No postponed annotations here: the table below is read from the annotations.

import inspect
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Final, Literal, NamedTuple, Required, TypeAlias, TypedDict, get_args

from amorsize import _checks
from amorsize._checks import Checkpoint
from amorsize._records import Limits
from amorsize._wrong_call import meant_by

__all__ = ["Checkpoint", "MapOptions", "OtherOptions"]


class Option(NamedTuple):
    """
    What is known of one option.

    Attributes:
        default: Its value where nobody gives one.
        check: Takes name and value, returns the value to go by; raises TypeError or ValueError.
        words: What it means, in one sentence.
    """

    default: Any
    check: Callable[[str, Any], Any]
    words: str


# -- the table -------------------------------------------------------------------------------------------------------

Progress: TypeAlias = bool | type[Any] | Mapping[str, Any] | Callable[[int, int | None, float], object]


class OtherOptions(TypedDict, total=False):
    """Every option but ``errors``, which changes the type of the results."""

    n_jobs: Annotated[
        int | None,
        Option(
            None,
            _checks.n_jobs,
            "exact number of processes or threads that compute at once; -1 is all usable logical CPUs, -2 all but one, "
            "1 is serial; with `None` amorsize decides",
        ),
    ]
    batch_size: Annotated[
        int | None,
        Option(
            None,
            _checks.at_least(1, "None lets amorsize decide", or_none=True),
            "exact number of items per chunk, elsewhere called `chunksize`; with `None` amorsize decides",
        ),
    ]
    prefer: Annotated[
        Literal["processes", "threads"] | None,
        Option(
            None,
            _checks.one_of("processes", "threads", or_none=True),
            '`"threads"` for a function that is thread-safe and waits or releases the GIL, `"processes"` for no '
            "threads at all; without it, threads are only used where a joblib context asks for them",
        ),
    ]
    sample_size: Annotated[
        int,
        Option(
            5,
            _checks.at_least(1, "items to time before deciding"),
            "items timed one by one before deciding; the sample ends early after 5 ms",
        ),
    ]
    max_memory: Annotated[
        int | float | str | None,
        Option(
            None,
            _checks.memory,
            'memory that all workers together may use: bytes, a size such as `"2GB"` or `"512 MiB"`, or a share of the '
            "available memory such as `0.5`",
        ),
    ]
    start_method: Annotated[
        Literal["fork", "forkserver", "loky"] | None,
        Option(
            None,
            _checks.one_of("fork", "forkserver", "loky", or_none=True),
            '`"fork"`, `"forkserver"` or `"loky"`: how local workers start',
        ),
    ]
    retries: Annotated[
        int,
        Option(
            0,
            _checks.at_least(0, "how often an item whose worker died may run again"),
            "how often an item may run again after its worker died; with it, all items run in workers",
        ),
    ]
    timeout: Annotated[
        float | None,
        Option(
            None,
            _checks.timeout,
            "seconds that each item may take; with it, all items run in workers; no effect with threads",
        ),
    ]
    progress: Annotated[
        Progress,
        Option(
            False,
            _checks.progress,
            "`True` for a bar; `tqdm` or another class like it; `dict(desc=..., position=...)` for arguments of the "
            "bar; or a function of `(done, total, elapsed_s)`: the items done, all items (`None` while unknown), and "
            "the seconds since the call began",
        ),
    ]
    initializer: Annotated[
        Callable[..., object] | None,
        Option(
            None,
            _checks.initializer,
            "a function that is called once in each worker, and in the calling process before items run there",
        ),
    ]
    initargs: Annotated[tuple[Any, ...], Option((), _checks.initargs, "arguments of `initializer`")]
    checkpoint: Annotated[
        str | os.PathLike[str] | Checkpoint | None,
        Option(
            None,
            _checks.checkpoint,
            "a file that keeps finished results as they come, and from which the next call goes on; for `map` and "
            "`starmap`",
        ),
    ]


class MapOptions(OtherOptions, total=False):
    """
    The options of :func:`amorsize.parallel` and of every method that maps, for type checkers.

    ``**options: Unpack[amorsize.MapOptions]`` passes them on through a function of one's own.
    """

    errors: Annotated[
        Literal["raise", "return", "skip"],
        Option(
            "raise",
            _checks.one_of("raise", "return", "skip"),
            '`"raise"` raises the exception of the first item that fails, `"return"` puts exceptions in place of '
            'results, `"skip"` leaves failed items out',
        ),
    ]


# What can be given to a map beside its items, for the overloads: *errors* changes the type of the results.
class _Kwargs(TypedDict, total=False):
    kwargs: Mapping[str, Any] | None


class Given(_Kwargs, OtherOptions, total=False): ...


class Returning(Given, total=False):
    errors: Required[Literal["return"]]


class Raising(Given, total=False):
    errors: Required[Literal["raise", "skip"]]


OPTIONS: Final[Mapping[str, Option]] = {
    name: get_args(annotation)[1]
    for kind in (OtherOptions, MapOptions)
    for name, annotation in kind.__annotations__.items()
}
_LIMITS: Final = frozenset(f.name for f in fields(Limits))
_DEFAULTS: Final[Mapping[str, Any]] = {name: option.default for name, option in OPTIONS.items()}
_LIMITED: Final = tuple(name for name in OPTIONS if name in _LIMITS)


def parameters() -> list[inspect.Parameter]:
    """Return the options as keyword-only parameters, for signatures that shells and notebooks complete from."""
    kinds: dict[str, Any] = OtherOptions.__annotations__ | MapOptions.__annotations__
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=kinds[name].__origin__
        )
        for name, option in OPTIONS.items()
    ]


def words(indent: str = "") -> str:
    """Return the options as a list for a docstring."""
    lines = (f"{indent}{name}: {option.words.replace('`', '``')}." for name, option in OPTIONS.items())
    return "\n".join(textwrap.fill(line, 100, subsequent_indent=indent + "    ") for line in lines)


# -- names that are not options --------------------------------------------------------------------------------------


def unknown(name: str, own: Iterable[str] = (), function: str = "the function") -> TypeError:
    """
    Return the error for a name that is no option, with the one that was meant.

    *own* are the names of the function's own arguments, which are given in ``kwargs``; *function* is what it is called.
    """
    if name in own:
        return TypeError(
            f"unknown option {name!r}: an argument of {function} that is the same for every item goes into "
            f"kwargs={{{name!r}: ...}}"
        )

    meant = meant_by(name, OPTIONS)
    if meant is not None:
        return TypeError(f"unknown option {name!r}: did you mean {meant}?")
    return TypeError(
        f"unknown option {name!r}; the options are {', '.join(sorted(OPTIONS))}, and arguments of {function} go into "
        "kwargs={...}"
    )


# -- options in use --------------------------------------------------------------------------------------------------


class Options:
    """
    The options of a function or a call: what was given for it, and what follows for the rest.

    Attributes:
        given: What was given, checked; all else may come from the program's defaults.
        limits: The bounds of the decision.
        progress: True for a bar, a class, a mapping of its arguments, a callable, or False.
        initializer: Called once in each worker.
        initargs: Its arguments.
        checkpoint: The file that keeps results, or None.
        is_plain: Whether nothing but speed is asked for: a short loop then needs no care.
    """

    __slots__ = ("checkpoint", "given", "initargs", "initializer", "is_plain", "limits", "progress", "values")

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        self.given: dict[str, Any] = dict(given or {})
        values: dict[str, Any] = {**_DEFAULTS, **self.given}
        self.values: dict[str, Any] = values
        self.limits: Limits = Limits(**{name: values[name] for name in _LIMITED})
        limits = self.limits
        if limits.prefer == "threads" and limits.start_method is not None:
            raise ValueError(
                f"prefer='threads' and start_method={limits.start_method!r} exclude each other: threads are not "
                "started as processes; give one of them"
            )
        self.progress: Any = values["progress"]
        self.initializer: Callable[..., Any] | None = values["initializer"]
        self.initargs: tuple[Any, ...] = values["initargs"]
        self.checkpoint: Checkpoint | None = values["checkpoint"]
        asks = (limits.n_jobs, limits.timeout, limits.retries or None, self.initializer, self.checkpoint)
        self.is_plain: bool = limits.errors == "raise" and all(ask is None for ask in asks) and self.progress is False

    def __reduce__(self) -> Any:
        return Options, (self.given,)

    def with_(self, given: Mapping[str, Any]) -> "Options":
        """Return these with *given*, which has been checked, put over them."""
        return Options({**self.given, **given})

    def over(self, defaults: Mapping[str, Any]) -> "Options":
        """Return these over *defaults* of the program; a start method gives way to threads, and the reverse."""
        left = {name: value for name, value in defaults.items() if name not in self.given}
        if self.given.get("prefer") == "threads":
            left.pop("start_method", None)
        if self.given.get("start_method") is not None and left.get("prefer") == "threads":
            del left["prefer"]
        return Options({**left, **self.given}) if left else self


def checked(
    given: Mapping[str, Any], own: Callable[[], Iterable[str]] = tuple, function: str = "the function"
) -> dict[str, Any]:
    """Return *given* options as their checks return them; *own* returns the function's own arguments, for the error."""
    for name in given:
        if name not in OPTIONS:
            raise unknown(name, own(), function)
    return {name: OPTIONS[name].check(name, value) for name, value in given.items()}


# -- defaults of the program -----------------------------------------------------------------------------------------

_VARIABLE: Final = "AMORSIZE_N_JOBS"

# What an active joblib context speaks about, too: it is nearer to the call than what holds for the whole program.
_IN_CONTEXT: Final = frozenset({"n_jobs", "prefer", "start_method"})

_program: dict[str, Any] = {}


def configure(given: Mapping[str, Any]) -> None:
    """Make *given* the program's defaults; those not named stay."""
    new = _program | checked(given)
    Options(new)  # refuses what excludes each other
    _program.update(new)


def has_defaults() -> bool:
    """Tell whether the program or its environment has defaults."""
    return bool(_program) or _VARIABLE in os.environ


def defaults(*, in_context: bool) -> dict[str, Any]:
    """
    Return the program's defaults: those of the environment, and over them those of :func:`configure`.

    An active joblib context, *in_context*, takes the place of some. Raises ValueError for an ``AMORSIZE_N_JOBS`` that
    is no whole number, or 0.
    """
    found = _from_environment() | _program
    return {name: value for name, value in found.items() if not (in_context and name in _IN_CONTEXT)}


def _from_environment() -> dict[str, Any]:
    text = os.environ.get(_VARIABLE, "").strip()
    if not text:
        return {}
    try:
        n_jobs = int(text)
    except ValueError:
        n_jobs = 0
    if n_jobs == 0:
        raise ValueError(
            f"the environment variable {_VARIABLE} must be a whole number other than 0, not {text!r}; "
            "-1 is all CPUs, 1 is serial; unset, amorsize decides"
        )
    return {"n_jobs": n_jobs}
