"""What the caller is warned of when a decision has been made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amorsize import _backend
from amorsize._plans import Reason
from amorsize._records import FORK, THREADS
from amorsize._warn import warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._plans import Plan
    from amorsize._records import Profile
    from amorsize._request import Request

# Reasons for which no workers can be had although a number of them was asked for, and what is said of each.
_WITHOUT_WORKERS: Final[dict[Reason, Callable[[Plan], list[str]]]] = {
    Reason.NESTED: lambda _: [],
    Reason.NOT_PICKLABLE: lambda plan: [plan.profile.problem],
    Reason.UNAVAILABLE: lambda plan: [*plan.host.unavailable.values()],
    Reason.HASH_SEED: lambda plan: [note for note in plan.warnings if "hash seed" in note],
}


def warn_of(plan: Plan, request: Request) -> None:
    """Warn where what was asked for is not done, or what is done may not be what was meant."""
    limits, name = request.limits, request.name
    fixed = limits.n_jobs
    if plan.reason is Reason.SHARED_STATE:
        warn(
            f"{name} runs serially: {plan.warnings[0]}. Return the values instead, and give "
            "each item a seed of its own where it draws random numbers; or set n_jobs, and what workers change is lost."
        )
    elif fixed not in {None, 1} and plan.reason in _WITHOUT_WORKERS:
        reasons = _WITHOUT_WORKERS[plan.reason](plan)
        detail = f" ({'; '.join(dict.fromkeys(reasons))})" if reasons else ""
        warn(f"{name}: n_jobs={fixed} is not possible: {plan.reason}{detail}; it runs serially")
    elif plan.is_parallel and plan.backend != THREADS and plan.profile.mutates:
        warn(f"{name}: {plan.warnings[0]}: what they change in it is lost, and they may see it unchanged")
    elif plan.backend == FORK and (shared := _backend.function_blocker(request.func)):
        warn(f"{name} is forked as start_method asks for, although {shared}")
    elif limits.start_method is not None and plan.reason is Reason.UNAVAILABLE:
        why = plan.host.unavailable.get(limits.start_method, "it does not exist here")
        warn(f"{name} runs serially: start_method={limits.start_method!r} cannot be used: {why}")
    elif limits.timeout is not None and plan.backend == THREADS:
        warn(f"{name}: timeout cannot stop an item in a thread; use processes")
    elif request.isolated and not plan.is_parallel and plan.n_items != 0:
        warn(f"{name}: timeout and retries need worker processes, and there are none: {plan.reason}")


def warn_of_late(request: Request, profile: Profile, *, is_serial: bool) -> None:
    """Warn that items of a kind that came late change something outside, and of what is done with them."""
    names = ", ".join(profile.mutates)
    what = f"{request.name}: items of a kind that came late may change {names}, which the program shares"
    if is_serial:
        warn(f"{what}; from the first of them on, it runs serially")
    else:
        warn(f"{what}: what they change in it is lost, and they may see it unchanged")
