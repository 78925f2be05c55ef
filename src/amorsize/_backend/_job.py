"""The one record of a run that every kind of workers is given."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from amorsize import _outside
from amorsize._backend import _worker
from amorsize.exceptions import WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._backend._ship import Parcel
    from amorsize._outside import Handlers


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Job:
    """
    One run: what to call on which items, and under which rules.

    Attributes:
        func: The undecorated function.
        items: All items left; only indexed and sliced.
        call: The function of one item, as ``make_call`` makes it of the function.
        handlers: The program's handlers of signals as the run begins; a copy of the record keeps them.
        base: Index of the first in the caller's input.
        star: Whether an item is unpacked into arguments.
        kwargs: Constant keyword arguments.
        importable: Whether workers can import the function by name.
        n_jobs: Processes or threads computing at once.
        n_cpus: CPUs that the plan has for them.
        batch_size: Exact size of chunks, or None.
        caller_computes: Whether the caller is one of the ``n_jobs``.
        item_s: Expected seconds per item.
        batch_overhead_s: Seconds one chunk costs.
        keep_going: Whether to go on after a failed item.
        retries: How often an item whose worker died may run again.
        timeout: Seconds one item may take, or None.
        progress: Called with the items done so far.
        sink: Given results as they come: the position of the first, the results, and which of them failed, from it.
        stays_out: Whether the caller leaves the items to its workers, so that its process has time for other things.
        check: Called while the caller waits and between its own blocks; what it raises ends the run as Ctrl-C does.
        first: Positions to hand out before all others, one by one.
        is_tight: Tells whether memory is running out: fewer workers then get work.
        blocker: Says why this process must not be forked any more, or ""; asked before a fork in mid-run, since items
            have run here meanwhile, which may have started threads or opened files.
        initializer: Called once in each worker.
        initargs: Its arguments.
        backend: joblib's backend object, for external ones.
        parcel: The packed function, where it is sent; None where it is not.
        repack: Packs it by value, for workers whose code differs.
        is_cold: Whether workers are still to be started: the caller works until they answer.
    """

    func: Callable[..., Any]
    items: Sequence[Any]
    call: Callable[[Any], Any]
    handlers: Handlers
    base: int = 0
    star: bool = False
    kwargs: dict[str, Any] | None = None
    importable: bool = False
    n_jobs: int = 2
    n_cpus: int = field(default_factory=lambda: os.cpu_count() or 1)
    batch_size: int | None = None
    caller_computes: bool = False
    item_s: float = 0.001
    batch_overhead_s: float = 100e-6
    keep_going: bool = False
    retries: int = 0
    timeout: float | None = None
    progress: Callable[[int], None] | None = None
    stays_out: bool = False
    check: Callable[[], None] | None = None
    sink: Callable[[int, Sequence[Any], Sequence[int]], None] | None = None
    first: Sequence[int] = ()
    is_tight: Callable[[], bool] | None = None
    blocker: Callable[[], str] | None = None
    initializer: Callable[..., Any] | None = None
    initargs: tuple[Any, ...] = ()
    backend: Any = None

    # Filled in by the adapter where workers need more than a fork does.
    parcel: Parcel | None = None
    repack: Callable[[], Parcel] | None = None
    is_cold: bool = False

    def is_outside(self, error: BaseException) -> bool:
        """Tell whether the program itself has raised *error* into an item that the caller runs."""
        return _outside.is_outside(error, self.handlers, self.func)

    def run_here(self, items: Sequence[Any]) -> tuple[list[Any], list[tuple[int, BaseException]]]:
        """
        Run a block in the caller: like ``run_block``, but what the program itself raises is not an item's failure.

        Raises:
            BaseException: What ends the map at once: Ctrl-C, and what a signal's handler of the program raises
                meanwhile.
        """
        with _worker.nested_thread():
            return _worker.run_block(self.call, items, keep_going=self.keep_going, is_outside=self.is_outside)

    @property
    def caller_may_compute(self) -> bool:
        """Whether items may run in the caller beside the workers."""
        return self.timeout is None and not self.retries and self.initializer is None and not self.stays_out

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
        return max(1, self.n_cpus // max(1, self.n_jobs))

    @property
    def initialize(self) -> Callable[[], None] | None:
        """What a forked worker calls first."""
        if self.initializer is None:
            return None
        initializer, initargs = self.initializer, self.initargs
        return lambda: initializer(*initargs)
