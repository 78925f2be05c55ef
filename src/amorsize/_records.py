"""
The nouns: frozen records that travel along the corridor, and their invariants.

This room never reads a clock, a file or an environment variable.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from amorsize import _bounds as bounds

if TYPE_CHECKING:
    from collections.abc import Callable

SERIAL = "sequential"
FORK = "fork"
FORKSERVER = "forkserver"
LOKY = "loky"
THREADS = "threading"

# What a revision calls the end of a stream that was left before its last item.
STOP = "stop"


# -- in JSON -----------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:  # noqa: PLR0911 - one line per kind
    """
    Turn a value into what JSON can hold: exactly where it can, else its nearest relative. No other place decides that.

    Infinities and NaN become None, a set a sorted list, a record the fields that its repr shows, a path its text,
    NumPy's numbers and arrays numbers and lists, an exception its type and message, and anything else its ``repr``.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value, key=repr)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, BaseException):
        return {"error": type(value).__qualname__, "message": str(value)}
    if callable(tolist := getattr(value, "tolist", None)):  # NumPy's
        return plain(tolist())
    return repr(value)


# -- the records -------------------------------------------------------------------------------------------------------


class Record:
    """
    What the frozen records share.

    Equality and representation are those of any dataclass; generated for each record, they took a tenth of the import.
    """

    def _compared(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in dataclasses.fields(self) if f.compare)  # type: ignore[arg-type]  # a record is a dataclass

    def __eq__(self, other: object) -> bool:
        return self._compared() == other._compared() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._compared())

    def __repr__(self) -> str:
        shown = (f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)  # type: ignore[arg-type]  # as above
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the record as dictionaries, lists, numbers and strings, ready for JSON; infinities are None."""
        fields: dict[str, Any] = plain(self)
        return fields


class Shown(Record):
    """A record that is shown in words and pictures. What makes them is above the records, and not known here."""

    # Returns the record in the view that is named: `_show.show`, which the package puts here when it is imported.
    _show: ClassVar[Callable[..., Any]]

    def __repr__(self) -> str:
        return f"<{self._show('line')}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # In a list or a dictionary, one line: the lines of a text would not stand below each other.
        is_inside = len(getattr(printer, "stack", ())) > 1
        printer.text(f"{type(self).__name__}(...)" if cycle else repr(self) if is_inside else self._show("text"))

    def _repr_html_(self) -> str:
        page: str = self._show("page")
        return page


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Profile(Shown):
    """
    What was measured on the first items of a function.

    Attributes:
        n_sampled: Items that were timed one by one. The founding rule is five.
        item_s: Steady wall seconds per item; a warm-up outlier is left out.
        item_s_std: Standard deviation of the seconds per item.
        first_s: Seconds the very first item took (imports and caches included).
        cpu_fraction: CPU seconds of the whole process per wall second: below 1 it waits, above 1 it already runs
            on several cores.
        arg_bytes: Mean pickled size of one item.
        result_bytes: Mean pickled size of one result.
        func_bytes: Pickled size of the function as it would be shipped.
        pickle_s: Seconds to pickle and unpickle one item and one result.
        arg_pickle_s: The part of ``pickle_s`` that is the item's.
        peak_bytes: Growth of the process's peak memory while the sample ran.
        efficiency: Speed of this function in a worker process while all work, relative to the caller alone; 0 until a
            run has measured it, and the host's figure counts. Code that waits for memory or shares a floating-point
            unit does not gain from every core.
        thread_efficiency: The same in threads: code that holds the interpreter's lock gains nothing from them.
        free_thread_efficiency: The same in threads where the interpreter has no lock or has it switched off.
        is_picklable: Whether function, sampled items and results survive pickling.
        problem: What cannot be pickled, and the error, if anything.
        result_problem: What of it cannot be pickled of a result; such a function has no workers of any kind.
        input_problem: Why the input of this very call must not be read ahead of the function, or "".
        by_seed: What makes results depend on the hash seed of the process that computes them, or "".
        mutates: Names of outside state the function changes, by its code or seen to while the sample ran.
        reads_mutable: Names of mutable outside state the function reads.
        n_head: Items of this very call whose results the sample kept.
        head_s: Seconds this call has spent on them.
    """

    n_sampled: int = 0
    item_s: float = 0.0
    item_s_std: float = 0.0
    first_s: float = 0.0
    cpu_fraction: float = 1.0
    arg_bytes: int = 0
    result_bytes: int = 0
    func_bytes: int = 0
    pickle_s: float = 0.0
    arg_pickle_s: float = 0.0
    peak_bytes: int = 0
    efficiency: float = 0.0
    thread_efficiency: float = 0.0
    free_thread_efficiency: float = 0.0
    is_picklable: bool = True
    problem: str = ""
    result_problem: str = ""
    input_problem: str = ""
    by_seed: str = ""
    mutates: tuple[str, ...] = ()
    reads_mutable: tuple[str, ...] = ()
    n_head: int = 0
    head_s: float = 0.0

    def __post_init__(self) -> None:
        for name in _RATES:
            value = getattr(self, name)
            if not value >= 0.0 or math.isinf(value):
                raise ValueError(f"Profile.{name} must be a finite number of at least 0, not {value!r}")
        for name in ("n_sampled", "n_head", "arg_bytes", "result_bytes", "func_bytes", "peak_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"Profile.{name} must be at least 0, not {getattr(self, name)!r}")

    @property
    def is_timed(self) -> bool:
        """Whether anything is known of what an item takes."""
        return self.n_sampled > 0 or self.item_s > 0

    @property
    def n_steady(self) -> int:
        """Sampled items that ``item_s`` is the mean of: all of them, but for a first one that was a warm-up."""
        is_warm_up = self.n_sampled > 1 and self.first_s > bounds.WARM_UP * max(self.item_s, 1e-9)
        return self.n_sampled - is_warm_up


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Costs(Record):
    """
    What one way of running in parallel costs on this host.

    Attributes:
        start_s: Seconds until the first worker answers; 0 when workers are warm.
        start_each_s: Seconds that each further worker adds.
        batch_overhead_s: Seconds of worker time that one dispatched chunk costs beyond its items.
        item_overhead_s: Seconds of worker time that one item costs beyond the function itself.
        send_bytes_per_s: Bytes of items that reach workers per second; infinite where nothing is copied.
        receive_bytes_per_s: Bytes of results that come home per second.
        efficiency: Speed of one worker while all work, relative to the caller alone; two virtual CPUs of one
            core are worth less than two.
        worker_bytes: Memory of an idle worker of its own.
        is_measured: False while the figures are the documented priors.
    """

    start_s: float
    start_each_s: float = 0.0
    batch_overhead_s: float = 0.0
    item_overhead_s: float = 0.0
    send_bytes_per_s: float = math.inf
    receive_bytes_per_s: float = math.inf
    efficiency: float = 1.0
    worker_bytes: int = 0
    is_measured: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Host(Shown):
    """
    The machine as this process may use it, at one moment.

    Attributes:
        n_cpus: Logical CPUs usable: affinity, cgroup quota and ``LOKY_MAX_CPU_COUNT`` applied.
        n_physical_cpus: Physical cores among them.
        memory_bytes: Memory available to this process: the smallest of host, cgroup and ``RLIMIT_AS``.
        n_others: Threads of other programs that compete for these CPUs; looked for after a long first item only.
        costs: What each usable backend costs, by backend name.
        unavailable: Why a backend that exists cannot be used now, by backend name.
        platform: ``sys.platform``.
        is_nested: Whether this process or thread is itself a worker.
        is_disabled: Whether ``AMORSIZE_SERIAL`` is set.
        has_gil: Whether the interpreter's lock is on. Where it is off, threads compute Python code side by side.
        has_own_seed: Whether each new interpreter hashes strings with a seed of its own (no ``PYTHONHASHSEED``).
        context_backend: joblib's name of the backend that an active ``parallel_config`` asks for, or None.
        context_n_jobs: Its number of jobs (for an external backend its ``effective_n_jobs``), or None.
        sources: Where each reading came from.
    """

    n_cpus: int
    n_physical_cpus: int
    memory_bytes: int
    n_others: int = 0
    costs: Mapping[str, Costs] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    platform: str = "linux"
    is_nested: bool = False
    is_disabled: bool = False
    has_gil: bool = True
    has_own_seed: bool = False
    context_backend: str | None = None
    context_n_jobs: int | None = None
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.n_cpus < 1 or self.n_physical_cpus < 1 or self.memory_bytes < 0:
            seen = f"n_cpus={self.n_cpus}, n_physical_cpus={self.n_physical_cpus}, memory_bytes={self.memory_bytes}"
            raise ValueError(f"a Host has at least one CPU and no negative memory, not {seen}")


# Figures of a profile that are finite and at least 0.
_RATES = ("item_s", "item_s_std", "pickle_s", "head_s", "cpu_fraction", "efficiency", "thread_efficiency",
          "free_thread_efficiency")  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Limits(Record):
    """
    The caller's bounds as given to the decorator; None means "decide".

    Attributes:
        n_jobs: Exact number of workers, in joblib's meaning (negatives count back from all CPUs).
        batch_size: Exact number of items per chunk.
        prefer: ``"processes"`` or ``"threads"``.
        sample_size: Items to time one by one, at least 1.
        max_memory: Bytes for all workers together; a float of at most 1 is a share of the host's available memory.
        start_method: ``"fork"``, ``"forkserver"`` or ``"loky"`` fixes how local workers start.
        errors: ``"raise"``, ``"return"`` or ``"skip"``.
        retries: How often an item that was in flight when its worker died may run again.
        timeout: Seconds one item may take.
    """

    n_jobs: int | None = None
    batch_size: int | None = None
    prefer: str | None = None
    sample_size: int = 5
    max_memory: int | float | None = None
    start_method: str | None = None
    errors: str = "raise"
    retries: int = 0
    timeout: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Revision(Record):
    """
    One change of plan while the work ran.

    Attributes:
        at_s: Seconds after the call began.
        n_done: Items finished by then.
        what: What was changed.
        why: The observation behind it.
    """

    at_s: float
    n_done: int
    what: str
    why: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Span(Record):
    """
    One stretch of work of one lane, for the timeline.

    Attributes:
        lane: ``"caller"`` or the worker's name.
        begin_s: Seconds after the call began.
        end_s: Seconds after the call began.
        start: Index of the first item.
        n_items: Items done in it.
        kind: ``"sample"``, ``"work"``, ``"loop"`` (the caller before it handed over) or ``"start"``.
    """

    lane: str
    begin_s: float
    end_s: float
    start: int
    n_items: int
    kind: str = "work"
