"""
The nouns: frozen records that travel along the corridor, their invariants, and how they explain themselves.

This room never reads a clock, a file or an environment variable.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SERIAL = "sequential"
FORK = "fork"
LOKY = "loky"
THREADS = "threading"


class Reason(StrEnum):
    """Why a plan is what it is: a stable code; :meth:`Plan.explain` has the sentence."""

    EMPTY = "empty"
    TOO_FAST = "too-fast"
    NOT_WORTH = "not-worth"
    TRANSFER_BOUND = "transfer-bound"
    ALREADY_PARALLEL = "already-parallel"
    NOTHING_LEFT = "nothing-left"
    ONE_ITEM = "one-item"
    ONE_CPU = "one-cpu"
    ONE_JOB = "one-job"
    NESTED = "nested"
    DISABLED = "disabled"
    NOT_PICKLABLE = "not-picklable"
    SHARED_STATE = "shared-state"
    MEMORY = "memory"
    UNAVAILABLE = "unavailable"
    UNKNOWN_LENGTH = "unknown-length"
    FASTER = "faster"
    FIXED = "fixed"
    ISOLATED = "isolated"


SENTENCES: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.EMPTY: "there was nothing to do",
        Reason.TOO_FAST: "the whole work is shorter than waking one worker",
        Reason.NOT_WORTH: "starting and feeding workers would take longer than it saves",
        Reason.TRANSFER_BOUND: "moving the data to workers and back would take longer than it saves",
        Reason.ALREADY_PARALLEL: "the function already keeps several cores busy by itself",
        Reason.NOTHING_LEFT: "the sample already did all of it",
        Reason.ONE_ITEM: "a single item is left, which cannot be divided",
        Reason.ONE_CPU: "only one CPU may be used here",
        Reason.ONE_JOB: "n_jobs=1 was asked for",
        Reason.NESTED: "this call runs inside a worker, and workers do not start workers",
        Reason.DISABLED: "AMORSIZE_SERIAL is set",
        Reason.NOT_PICKLABLE: "the function, an item or a result cannot be pickled",
        Reason.SHARED_STATE: "the function changes state outside itself, which workers would not share",
        Reason.MEMORY: "there is no room for a second worker's memory",
        Reason.UNAVAILABLE: "no way to start workers is usable here",
        Reason.UNKNOWN_LENGTH: "the length is unknown; it starts as a loop and stays open to going parallel",
        Reason.FASTER: "it is predicted to be faster than the loop",
        Reason.FIXED: "n_jobs was fixed by the caller",
        Reason.ISOLATED: "timeout or retries keep every item out of the calling process",
    }
)


def _plain(value: Any) -> Any:
    """Turn a record into what JSON can hold; infinities become None."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}
    if isinstance(value, dict | MappingProxyType):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


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
        plain: dict[str, Any] = _plain(self)
        return plain


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Profile(Record):
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
        is_picklable: Whether function, sampled items and results survive pickling.
        problem: What cannot be pickled, and the error, if anything.
        mutates: Names of outside state the function changes.
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
    is_picklable: bool = True
    problem: str = ""
    mutates: tuple[str, ...] = ()
    reads_mutable: tuple[str, ...] = ()
    n_head: int = 0
    head_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("item_s", "item_s_std", "pickle_s", "head_s", "cpu_fraction", "efficiency", "thread_efficiency"):
            value = getattr(self, name)
            if not value >= 0.0 or math.isinf(value):
                message = f"Profile.{name} must be a finite number of at least 0, not {value!r}"
                raise ValueError(message)
        for name in ("n_sampled", "n_head", "arg_bytes", "result_bytes", "func_bytes", "peak_bytes"):
            if getattr(self, name) < 0:
                message = f"Profile.{name} must be at least 0, not {getattr(self, name)!r}"
                raise ValueError(message)

    def _repr_html_(self) -> str:
        from amorsize._render import profile_html  # noqa: PLC0415 - only notebooks need it

        return profile_html(self)


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
class Host(Record):
    """
    The machine as this process may use it, at one moment.

    Attributes:
        n_cpus: Logical CPUs usable: affinity, cgroup quota and ``LOKY_MAX_CPU_COUNT`` applied.
        n_physical_cpus: Physical cores among them.
        memory_bytes: Memory available to this process: the smallest of host, cgroup and ``RLIMIT_AS``.
        costs: What each usable backend costs, by backend name.
        unavailable: Why a backend that exists cannot be used now, by backend name.
        platform: ``sys.platform``.
        is_nested: Whether this process or thread is itself a worker.
        is_disabled: Whether ``AMORSIZE_SERIAL`` is set.
        context_backend: joblib's name of the backend that an active ``parallel_config`` asks for, or None.
        context_n_jobs: Its number of jobs (for an external backend its ``effective_n_jobs``), or None.
        sources: Where each reading came from.
    """

    n_cpus: int
    n_physical_cpus: int
    memory_bytes: int
    costs: Mapping[str, Costs] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    platform: str = "linux"
    is_nested: bool = False
    is_disabled: bool = False
    context_backend: str | None = None
    context_n_jobs: int | None = None
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.n_cpus < 1 or self.n_physical_cpus < 1 or self.memory_bytes < 0:
            message = f"a Host has at least one CPU and no negative memory, not {self!r}"
            raise ValueError(message)

    def _repr_html_(self) -> str:
        from amorsize._render import host_html  # noqa: PLC0415 - only notebooks need it

        return host_html(self)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Limits(Record):
    """
    The caller's bounds as given to the decorator; None means "decide".

    Attributes:
        n_jobs: Exact number of workers, in joblib's meaning (negatives count back from all CPUs).
        batch_size: Exact number of items per chunk.
        prefer: ``"processes"`` or ``"threads"``.
        sample_size: Items to time one by one, at least 1.
        max_memory: Bytes for all workers together.
        start_method: ``"fork"`` or ``"loky"`` fixes how local workers start.
        errors: ``"raise"``, ``"return"`` or ``"skip"``.
        retries: How often an item that was in flight when its worker died may run again.
        timeout: Seconds one item may take.
    """

    n_jobs: int | None = None
    batch_size: int | None = None
    prefer: str | None = None
    sample_size: int = 5
    max_memory: int | None = None
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


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Plan(Record):
    """
    A decision, the inputs it was made from, and what then happened.

    ``decide(plan.profile, plan.host, plan.n_items, plan.limits) == plan`` replays it.

    Attributes:
        n_jobs: Processes (or threads) computing at once, the caller included where it takes part.
        batch_size: Items in the first chunks; chunks shrink towards the end unless the caller fixed the size.
        backend: ``"sequential"``, ``"fork"``, ``"loky"``, ``"threading"`` or the joblib name of an external one.
        n_items: All items of the call; None if unknown.
        serial_s: Predicted seconds of the plain loop.
        parallel_s: Predicted seconds of the best parallel way (whether chosen or not).
        overhead_s: Its part spent on starting workers and dispatching chunks.
        transfer_s: Its part spent on moving items and results.
        predicted_s: Predicted seconds of the whole call as decided, sample included.
        speedup: ``serial_s / predicted_s``.
        reason: A stable :class:`Reason` code.
        limited_by: What kept ``n_jobs`` from being larger.
        caller_computes: Whether the calling thread is one of the ``n_jobs``.
        warnings: What the user should know.
        profile: What was measured.
        host: The machine it was decided for.
        limits: The caller's bounds.
        revisions: What was changed in flight. Not part of equality.
        actual_s: Measured seconds; None until the run has ended. Not part of equality.
        skipped: Indices that ``errors="skip"`` left out. Not part of equality.
        timeline: What each lane did when. Not part of equality.
        data: For a dry run over a one-shot iterator: yields every item. Not part of equality.
    """

    n_jobs: int
    batch_size: int
    backend: str
    n_items: int | None
    serial_s: float
    parallel_s: float
    overhead_s: float
    transfer_s: float
    predicted_s: float
    speedup: float
    reason: Reason
    limited_by: str = ""
    caller_computes: bool = False
    warnings: tuple[str, ...] = ()
    profile: Profile = field(default_factory=Profile)
    host: Host
    limits: Limits = field(default_factory=Limits)
    revisions: tuple[Revision, ...] = field(default=(), compare=False)
    actual_s: float | None = field(default=None, compare=False)
    skipped: tuple[int, ...] = field(default=(), compare=False)
    timeline: tuple[Span, ...] = field(default=(), compare=False, repr=False)
    data: Any = field(default=None, compare=False, repr=False)

    @property
    def chunksize(self) -> int:
        """The standard library's name for :attr:`batch_size`."""
        return self.batch_size

    @property
    def is_parallel(self) -> bool:
        """Whether the decision was to use workers."""
        return self.backend != SERIAL

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as dictionaries, lists, numbers and strings, ready for JSON; infinities are None."""
        plain: dict[str, Any] = _plain(self)
        return plain | {"chunksize": self.chunksize}

    def explain(self) -> str:
        """Say in plain words and numbers what was sampled, decided, predicted and measured."""
        from amorsize._render import explain  # noqa: PLC0415 - words are only needed when asked for

        return explain(self)

    def __str__(self) -> str:
        return self.explain()

    def _repr_html_(self) -> str:
        from amorsize._render import plan_html  # noqa: PLC0415 - only notebooks need it

        return plan_html(self)

    def plot(self, ax: Any = None) -> Any:
        """
        Draw the predicted seconds against the number of workers; returns the matplotlib Axes.

        Args:
            ax: The Axes to draw on; a new one by default.

        Raises:
            ImportError: Without matplotlib (``pip install amorsize[plot]``).
        """
        from amorsize._plot import plot_plan  # noqa: PLC0415 - matplotlib is an extra

        return plot_plan(self, ax)

    def plot_timeline(self, ax: Any = None) -> Any:
        """
        Draw the run that happened, one lane per worker; returns the matplotlib Axes.

        Args:
            ax: The Axes to draw on; a new one by default.

        Raises:
            ImportError: Without matplotlib (``pip install amorsize[plot]``).
            ValueError: If the plan has not been run.
        """
        from amorsize._plot import plot_timeline  # noqa: PLC0415 - matplotlib is an extra

        return plot_timeline(self, ax)


def replay_data(head: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    """Yield what a dry run took from an iterator, then the rest of it."""
    yield from head
    yield from rest
