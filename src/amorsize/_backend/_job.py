"""The one record of a run that every kind of workers is given."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amorsize._backend import _worker
from amorsize.exceptions import WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._backend._ship import Parcel


@dataclass(eq=False, repr=False, match_args=False)
class Job:
    """
    One run: what to call on which items, and under which rules.

    Attributes:
        func: The undecorated function.
        items: All items left; only indexed and sliced.
        base: Index of the first in the caller's input.
        star: Whether an item is unpacked into arguments.
        kwargs: Constant keyword arguments.
        importable: Whether workers can import the function by name.
        n_jobs: Processes or threads computing at once.
        batch_size: Exact size of chunks, or None.
        caller_computes: Whether the caller is one of the ``n_jobs``.
        item_s: Expected seconds per item.
        batch_overhead_s: Seconds one chunk costs.
        keep_going: Whether to go on after a failed item.
        retries: How often an item whose worker died may run again.
        timeout: Seconds one item may take, or None.
        progress: Called with the items done so far.
        first: Positions to hand out before all others, one by one.
        is_tight: Tells whether memory is running out: fewer workers then get work.
        initializer: Called once in each worker.
        initargs: Its arguments.
        backend: joblib's backend object, for external ones.
        may_keep: Whether forked workers may be those of an earlier map, and stay for a later one.
        parcel: The packed function, where it is sent; None where it is not.
        repack: Packs it by value, for workers whose code differs.
        is_cold: Whether workers are still to be started: the caller works until they answer.
        keep: Asked, with the team, at the end of a run without losses whether it stays for the next map; None if never.
        call: The function of one item.
    """

    func: Callable[..., Any]
    items: Sequence[Any]
    base: int = 0
    star: bool = False
    kwargs: dict[str, Any] | None = None
    importable: bool = False
    n_jobs: int = 2
    batch_size: int | None = None
    caller_computes: bool = False
    item_s: float = 0.001
    batch_overhead_s: float = 100e-6
    keep_going: bool = False
    retries: int = 0
    timeout: float | None = None
    progress: Callable[[int], None] | None = None
    first: Sequence[int] = ()
    is_tight: Callable[[], bool] | None = None
    initializer: Callable[..., Any] | None = None
    initargs: tuple[Any, ...] = ()
    backend: Any = None
    may_keep: bool = False

    # Filled in by the adapter where workers need more than a fork does.
    parcel: Parcel | None = None
    repack: Callable[[], Parcel] | None = None
    is_cold: bool = False
    keep: Callable[[Any], bool] | None = None

    def __post_init__(self) -> None:
        self.call = _worker.make_call(self.func, star=self.star, kwargs=self.kwargs)

    @property
    def caller_may_compute(self) -> bool:
        """Whether items may run in the caller beside the workers."""
        return self.timeout is None and not self.retries and self.initializer is None

    @property
    def ends_with_a_death(self) -> bool:
        """Whether a worker's death that costs items ends the run."""
        return not self.keep_going and not self.retries

    def goes_on(self, error: BaseException) -> bool:
        """Tell whether work goes on after a failure: by the policy, or since ``retries`` promised the rest."""
        if isinstance(error, WorkerDied) and self.retries:
            return True
        return self.keep_going and isinstance(error, Exception)

    @property
    def threads(self) -> int:
        """Threads that the numerical libraries of each worker get: the CPUs divided by the jobs."""
        n_cpus = os.cpu_count() or 1
        if sys.platform == "linux":
            n_cpus = len(os.sched_getaffinity(0))
        return max(1, n_cpus // max(1, self.n_jobs))

    @property
    def initialize(self) -> Callable[[], None] | None:
        """What a forked worker calls first."""
        if self.initializer is None:
            return None
        initializer, initargs = self.initializer, self.initargs
        return lambda: initializer(*initargs)
