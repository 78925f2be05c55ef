"""The run of a call on workers: the job as planned, its turn among awaited maps, and what is learned from it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amorsize import _backend, _function, _host, _known, _learn, _profile
from amorsize import _bounds as bounds
from amorsize import _cost as cost
from amorsize._records import FORK, FORKSERVER, LOKY, THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from amorsize._backend._team import Team
    from amorsize._plans import Plan
    from amorsize._request import Ledger, Request

clock = time.perf_counter


def run(request: Request, ledger: Ledger, plan: Plan, items: Sequence[Any], backend: Any) -> None:
    """
    Have workers compute *items*, which are what is left, and take their results in.

    Raises NoWorkersError if the system gives none (nothing has been computed then), or what the loop would have raised.
    """
    job = describe(request, ledger.n_done, plan, items, backend)
    is_as_planned = job.caller_computes == plan.caller_computes
    request.record.ran = plan if is_as_planned else replace(plan, caller_computes=job.caller_computes)
    with _named(plan, items), _share(request, plan):
        began = clock()
        outcome = _backend.run(plan.backend, job)
        took_s = clock() - began
    request.record.note_run(outcome)
    _learn.from_run(request.state.key, plan, outcome, took_s)
    ledger.take_in(outcome, items)


def go_on(request: Request, ledger: Ledger, plan: Plan, items: Sequence[Any], team: Team) -> None:
    """Have workers that have begun with *items* ahead of their caller finish them; the rest is as in :func:`run`."""
    request.record.ran = replace(plan, caller_computes=team.job.caller_computes)
    with _named(plan, items):
        outcome = team.finish()
    request.record.note_run(outcome)
    _learn.from_run(request.state.key, plan, outcome)
    ledger.take_in(outcome, items)


@contextlib.contextmanager
def _named(plan: Plan, items: Sequence[Any]) -> Iterator[None]:
    """Note on an exception that no item has raised where it comes from."""
    try:
        yield
    except _backend.NoWorkersError:
        raise
    except Exception as error:
        note = f"raised outside the items; it ended a run of {len(items)} items ({plan.backend}, n_jobs={plan.n_jobs})"
        _profile.add_note(error, f"amorsize: {note}")
        raise


def describe(
    request: Request, base: int, plan: Plan, items: Sequence[Any], backend: Any, *, follow: bool = True
) -> _backend.Job:
    """Return the job of computing *items*, the first of which is number *base*, as planned; *follow* its progress."""
    found, _ = _function.bare(request.func)
    limits, options = request.limits, request.options
    stays_out = request.check is not None and request.check.is_crowded()
    listens = request.progress is not None and plan.profile.item_s > bounds.LISTEN_S
    costs = cost.of_function(plan.profile, plan.host.costs.get(plan.backend, cost.EXTERNAL_PRIOR), plan.backend)
    return _backend.Job(
        func=request.func,
        items=items,
        call=request.call,
        handlers=_backend.handlers(),
        base=base,
        star=request.source.star,
        kwargs=request.kwargs,
        importable=found is not None and _function.is_importable(found),
        n_jobs=plan.n_jobs,
        n_cpus=plan.host.n_cpus,
        batch_size=limits.batch_size,
        caller_computes=plan.caller_computes and not (stays_out or listens),
        stays_out=stays_out,
        item_s=plan.profile.item_s,
        batch_overhead_s=costs.batch_overhead_s,
        keep_going=request.keep_going,
        retries=limits.retries,
        timeout=limits.timeout,
        progress=_progress(request, base) if follow else None,
        check=request.check,
        sink=_sink(request, base),
        first=_big_first(request, items, plan),
        is_tight=None if plan.backend == THREADS else _host.is_memory_tight,
        blocker=_fork_blocker(request) if plan.backend == FORK else None,
        initializer=options.initializer,
        initargs=options.initargs,
        backend=backend,
    )


def _progress(request: Request, base: int) -> Callable[[int], None] | None:
    progress = request.progress
    return None if progress is None else lambda n_done: progress(base + n_done)


def _sink(request: Request, base: int) -> Callable[[int, Sequence[Any], Sequence[int]], None] | None:
    """Return what is given results as they come home: the position of the first, and which of them failed."""
    keeper = request.keeper
    return None if keeper is None else lambda start, results, failed: keeper.add(base + start, results, failed)


def _fork_blocker(request: Request) -> Callable[[], str]:
    """Return what tells why nothing more may be forked for this call; "" if it may."""
    is_order = request.limits.start_method == FORK
    return lambda: _backend.process_blocker() or ("" if is_order else _backend.function_blocker(request.func))


def _big_first(request: Request, items: Sequence[Any], plan: Plan) -> list[int]:
    """Return the positions to start with, where sizes predict costs and the chunk size is left to us."""
    known = _known.CACHE.get(request.state.key)
    if known is None or known.s_per_byte <= 0 or request.limits.batch_size is not None:
        return []
    return _profile.big_first(items, known.s_per_byte, plan.n_jobs)


def _share(request: Request, plan: Plan) -> contextlib.AbstractContextManager[None]:
    """Of an awaited map, which may be one of many: wait for its share of the cores, and hold it."""
    if request.check is None or plan.backend not in {FORK, FORKSERVER, LOKY}:
        return contextlib.nullcontext()
    return request.check.sharing(plan.n_jobs, plan.host.n_cpus)
