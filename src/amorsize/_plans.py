"""
Plans: a decision, why it was made, and what then happened.

Reads no clock, no file and no environment variable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from amorsize._records import SERIAL, Host, Limits, Profile, Revision, Shown, Span, plain


class Reason(StrEnum):
    """
    Why a plan is what it is: a stable code; :meth:`Plan.explain` has the sentence.

    Attributes:
        sentence: It in words.
    """

    sentence: str

    def __new__(cls, code: str, sentence: str = "") -> Self:  # which type checkers ask for in Reason("empty"), too
        member = str.__new__(cls, code)
        member._value_, member.sentence = code, sentence
        return member

    EMPTY = "empty", "there was nothing to do"
    UNTIMED = "untimed", "no item has been timed yet"
    TOO_FAST = "too-fast", "the whole work is shorter than waking one worker"
    NOT_WORTH = "not-worth", "starting and feeding workers would take longer than it saves"
    TRANSFER_BOUND = "transfer-bound", "moving the data to workers and back would take longer than it saves"
    ALREADY_PARALLEL = "already-parallel", "the function already keeps several cores busy by itself"
    NOTHING_LEFT = "nothing-left", "the sample already did all of it"
    ONE_ITEM = "one-item", "a single item is left, which cannot be divided"
    ONE_CPU = "one-cpu", "only one CPU may be used here"
    ONE_JOB = "one-job", "n_jobs=1 was asked for"
    NESTED = "nested", "this call runs inside a worker, and workers do not start workers"
    DISABLED = "disabled", "AMORSIZE_SERIAL is set"
    NOT_PICKLABLE = "not-picklable", "the function, an item or a result cannot be pickled"
    SHARED_STATE = "shared-state", "the function changes state outside itself, which workers would not share"
    HASH_SEED = (
        "hash-seed",
        "results depend on the hash seed of the process, and new interpreters have one of their own",
    )
    MEMORY = "memory", "there is no room for a second worker's memory"
    UNAVAILABLE = "unavailable", "no way to start workers is usable here"
    UNKNOWN_LENGTH = "unknown-length", "the length is unknown; it starts as a loop and stays open to going parallel"
    FASTER = "faster", "it is predicted to be faster than the loop"
    FIXED = "fixed", "n_jobs was fixed by the caller"
    ISOLATED = "isolated", "timeout or retries keep every item out of the calling process"


# Student's t, 95 % one-sided (90 % between plus and minus), for 1 to 9 degrees of freedom; from any table. Beyond, the
# normal quantile and the first term of its expansion are right to 1 %.
_STUDENT = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)


def _student(n_free: int) -> float:
    return _STUDENT[n_free - 1] if n_free <= len(_STUDENT) else 1.645 + 1.524 / n_free


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Plan(Shown):
    """
    A decision, the inputs it was made from, and what then happened.

    ``decide(plan.profile, plan.host, plan.n_items, plan.limits) == plan`` replays it: plans are equal if their
    decisions are. What was done may be something else: a loop that turned out long went parallel, or no workers could
    be had. ``backend``, ``n_jobs``, ``batch_size`` and ``caller_computes`` then say what was done, :attr:`decision` has
    what had been decided, and ``revisions`` say why; forecast and reason are those of the decision.

    Attributes:
        n_jobs: Processes (or threads) computing at once, the caller included where it takes part.
        batch_size: Items in the first chunks; chunks shrink towards the end unless the caller fixed the size.
        backend: ``"sequential"``, ``"fork"``, ``"forkserver"``, ``"loky"``, ``"threading"`` or the joblib name of an
            external one.
        n_items: All items of the call; None if unknown.
        serial_s: Predicted seconds of the plain loop.
        parallel_s: Predicted seconds of the best parallel way (whether chosen or not).
        overhead_s: Its part spent on starting workers and dispatching chunks.
        transfer_s: Its part spent on moving items and results.
        predicted_s: Predicted seconds of the whole call as decided, sample included; see :attr:`is_lower_bound`.
        speedup: ``serial_s / predicted_s``; 1 while no item has been timed.
        reason: A stable :class:`Reason` code.
        limited_by: What kept ``n_jobs`` from being larger.
        caller_computes: Whether the calling thread is one of the ``n_jobs``.
        warnings: What the user should know.
        profile: What was measured.
        host: The machine it was decided for.
        limits: The caller's bounds.
        revisions: What was changed in flight. Not part of equality.
        actual_s: Measured seconds; None until the run has ended. Of a stream, those that its consumer waited for
            results: what the consumer itself took between them is left out. Not part of equality.
        skipped: Indices that ``errors="skip"`` left out. Not part of equality.
        n_failed: Failed items, returned or left out as *errors* says. Not part of equality.
        timeline: What each lane did when. Not part of equality.
        data: For a dry run over a one-shot iterator: yields every item. Not part of equality.
        decided: What had been decided, where what was done is something else; else None. See :attr:`decision`.
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
    n_failed: int = field(default=0, compare=False)
    timeline: tuple[Span, ...] = field(default=(), compare=False, repr=False)
    data: Any = field(default=None, compare=False, repr=False)
    decided: Plan | None = field(default=None, compare=False, repr=False)

    def _compared(self) -> tuple[Any, ...]:
        return super()._compared() if self.decided is None else self.decided._compared()  # noqa: SLF001 - its own kind

    @property
    def chunksize(self) -> int:
        """The standard library's name for :attr:`batch_size`."""
        return self.batch_size

    @property
    def is_parallel(self) -> bool:
        """Whether workers were used; before the run, whether they are to be."""
        return self.backend != SERIAL

    @property
    def decision(self) -> Plan:
        """The plan as it was decided; this one, unless something else was done."""
        return self if self.decided is None else self.decided

    @property
    def is_lower_bound(self) -> bool:
        """
        Whether the predicted seconds are a lower bound, since no item had been timed when they were predicted.

        So it is in a first call with ``timeout`` or ``retries``, whose items all run in workers, and in
        ``f.last_plan`` while the very first item runs.
        """
        return self.n_items != 0 and not self.profile.is_timed

    @property
    def predicted_range_s(self) -> tuple[float, float] | None:
        """
        Seconds between which ``predicted_s`` is expected to lie, from how much the sampled items differed.

        A 90 % prediction interval for items that are like the sampled ones: with *m* steady times of mean *t* and
        sample deviation *s*, and *n* items left, the mean of those left is between *t* / (1 + *r*) and *t* (1 + *r*),
        where *r* = *q* *s* / *t* sqrt(1/*m* + 1/*n*) and *q* is Student's quantile for *m* - 1 degrees of freedom; as
        a ratio, since seconds cannot be negative. Start-up and transfer are taken as forecast. None where fewer than
        two items tell, or the number of items is unknown. See ``docs/explanation/cost-model.md``.
        """
        plan, profile = self.decision, self.profile
        n_timed = profile.n_steady
        if plan.n_items is None or n_timed < 2 or profile.item_s <= 0 or not math.isfinite(plan.predicted_s):
            return None
        n_left = max(1, plan.n_items - profile.n_head)
        deviation_s = profile.item_s_std * math.sqrt(n_timed / (n_timed - 1))
        ratio = _student(n_timed - 1) * deviation_s / profile.item_s * math.sqrt(1 / n_timed + 1 / n_left)
        other_s = plan.overhead_s + plan.transfer_s if plan.backend != SERIAL else 0.0
        work_s = max(0.0, plan.predicted_s - profile.head_s - other_s)
        return plan.predicted_s - work_s * ratio / (1 + ratio), plan.predicted_s + work_s * ratio

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as dictionaries, lists, numbers and strings, ready for JSON; infinities are None."""
        fields: dict[str, Any] = plain(self)
        decision = self.decision
        decided = {name: getattr(decision, name) for name in ("backend", "n_jobs", "batch_size", "caller_computes")}
        return fields | {"chunksize": self.chunksize, "is_lower_bound": self.is_lower_bound, "decision": decided}

    def explain(self) -> str:
        """Say in plain words and numbers what was sampled, decided, predicted and measured."""
        text: str = self._show("text")
        return text

    def __str__(self) -> str:
        return str(self._show("text"))

    def plot(self, ax: Any = None) -> Any:
        """
        Draw the predicted seconds against the number of workers; returns the matplotlib Axes.

        Args:
            ax: The Axes to draw on; a new one by default.

        Raises:
            ImportError: Without matplotlib (``pip install amorsize[plot]``).
        """
        return self._show("plot", ax)

    def plot_timeline(self, ax: Any = None) -> Any:
        """
        Draw the run that happened, one lane per worker; returns the matplotlib Axes.

        Args:
            ax: The Axes to draw on; a new one by default.

        Raises:
            ImportError: Without matplotlib (``pip install amorsize[plot]``).
            ValueError: If the plan has not been run.
        """
        return self._show("timeline", ax)
