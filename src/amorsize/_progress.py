"""
Shows how far a call is: a bar, or the caller's own function.

Called from the thread that called ``map``, after each block of items; never starts a thread (a second thread would
forbid forking the next call's workers), and never draws for runs that are over within
:data:`amorsize._bounds.SHOW_AFTER_S`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amorsize import _bounds as bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from amorsize._options import Progress
    from amorsize._request import Request


class Follower:
    """
    Follows one run: give it the number of items done, as often as it is known. One not yet due costs a clock's reading.

    *total* items and *predicted* seconds of the whole run are None while unknown, or functions that are asked again at
    each report; *is_least* tells whether these are a lower bound, predicted before an item had been timed. A callable
    *progress* gets ``(done, total, elapsed_s)`` at most every :data:`amorsize._bounds.INTERVAL_S` and once at the end.

    Raises:
        ImportError: If a bar is wanted and tqdm is not installed.
        TypeError: If a mapping names something that is no argument of tqdm.
    """

    __slots__ = (
        "_bar", "_began", "_clock", "_due", "_is_least", "_is_open", "_make", "_predicted", "_report_to", "_total",
        "n_done", "name",
    )  # fmt: skip

    def __init__(
        self,
        progress: Progress,
        name: str,
        total: int | Callable[[], int | None] | None = None,
        predicted: float | Callable[[], float | None] | None = None,
        *,
        is_least: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        # Exactly one of the two is set, none where nothing is to be shown.
        self._make = _bar_maker(progress)
        self._report_to = progress if self._make is None and callable(progress) else None
        self.name = name
        self.n_done = 0
        self._total = total
        self._predicted = predicted
        self._is_least = is_least
        self._clock = clock
        self._began = clock()
        self._due = self._began + (bounds.SHOW_AFTER_S if self._report_to is None else bounds.INTERVAL_S)
        self._bar: Any = None
        self._is_open = True

    def update(self, n_done: int) -> None:
        """Take in that *n_done* items of the run are done, and report it if that is due."""
        self.n_done = n_done
        now = self._clock()
        # That all are done is left to close(): a callable that adds up whole runs must be told of it once.
        if now >= self._due and n_done != self.total:
            self._due = now + bounds.INTERVAL_S
            self._report(now)

    def close(self) -> None:
        """Report the last state once more, and leave the bar as it stands."""
        if not self._is_open:
            return
        self._is_open, self._due, now = False, math.inf, self._clock()
        if self._report_to is not None or self._bar is not None or now - self._began >= bounds.SHOW_AFTER_S:
            self._report(now)
        if self._bar is not None:
            self._bar.close()

    @property
    def total(self) -> int | None:
        """All items of the run, as far as known now."""
        return self._total() if callable(self._total) else self._total

    @property
    def predicted_s(self) -> float | None:
        """Predicted seconds of the whole run, as far as known now."""
        seconds = self._predicted() if callable(self._predicted) else self._predicted
        return seconds if seconds is not None and math.isfinite(seconds) else None

    def _report(self, now: float) -> None:
        if self._report_to is not None:
            self._report_to(self.n_done, self.total, now - self._began)
        elif self._make is not None:
            self._draw(now - self._began)

    def _draw(self, elapsed_s: float) -> None:
        if self._bar is None:
            assert self._make is not None  # noqa: S101 - for the type checker
            self._bar = self._make(self.name, elapsed_s)
        bar, predicted_s, total, words = self._bar, self.predicted_s, self.total, "predicted"
        if total is not None:
            bar.total = total
        if predicted_s is not None and self._is_least():
            # The items that have been done meanwhile say more.
            words = words if self.n_done else f"{words} at least"
            predicted_s = elapsed_s / self.n_done * (total or 0) if self.n_done else max(predicted_s, elapsed_s)
        if predicted_s:
            shown = bar.format_interval(max(1, round(predicted_s)))  # tqdm cuts fractions off: 00:00 for 0.9 s
            bar.set_postfix_str(f"{words} {shown} in all", refresh=False)
        bar.update(self.n_done - bar.n)


def require_tqdm() -> None:
    """Raise an ImportError that names the extra, if tqdm is not installed; does not import it."""
    if importlib.util.find_spec("tqdm") is None:
        raise ImportError(
            "progress=True draws its bar with tqdm, which is not installed: pip install 'amorsize[progress]', "
            "or give a callable of (done, total, elapsed_s)"
        )


def _bar_maker(progress: Progress) -> Callable[[str, float], Any] | None:
    """Return what makes a bar, given its name and the seconds gone by; None where no bar is wanted."""
    if isinstance(progress, Mapping):
        require_tqdm()
        arguments = dict(progress)
        _check_arguments(arguments)
        return lambda name, elapsed_s: _make_bar(name, elapsed_s, None, arguments)
    if _is_bar_class(progress):
        return lambda name, elapsed_s: _make_bar(name, elapsed_s, progress, {})
    if progress is True:
        require_tqdm()
        return lambda name, elapsed_s: _make_bar(name, elapsed_s, None, {})
    return None


def _is_bar_class(progress: object) -> bool:
    """Tell a class like tqdm, whose objects are updated and closed, from a class or function to be called."""
    return isinstance(progress, type) and all(
        hasattr(progress, name) for name in ("update", "close", "set_postfix_str")
    )


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse what is no argument of tqdm before the work begins: the bar is made a second later."""
    known = inspect.signature(importlib.import_module("tqdm").tqdm.__init__).parameters
    for name in arguments:
        if name not in known or name in {"self", "iterable"}:
            words = ", ".join(each for each in known if each not in {"self", "iterable", "kwargs"})
            raise TypeError(f"progress={{{name!r}: ...}}: tqdm has no argument of that name; it has {words}")


def _make_bar(name: str, elapsed_s: float, tqdm: Any, arguments: Mapping[str, Any]) -> Any:
    """Return a bar of a run that began *elapsed_s* ago; it appears with its first update."""
    if tqdm is None:
        tqdm = importlib.import_module("tqdm.auto").tqdm

    class Bar(tqdm):  # type: ignore[misc]  # the base is only known at run time
        # tqdm's monitor is a thread that wakes slow bars. It would outlive the bar and forbid forking from then on.
        monitor_interval = 0

    # mininterval, miniters: when to draw has been decided here. delay: the constructor draws nothing at 0 items.
    usual = {"desc": name, "unit": "item", "dynamic_ncols": True, "smoothing": 0.1}
    bar: Any = Bar(**{**usual, **arguments, "mininterval": 0, "miniters": 0, "delay": 1e-9})
    bar.start_t -= elapsed_s
    bar.last_print_t = bar.start_t
    return bar


def follower_of(request: Request, progress: Progress, name: str) -> Follower:
    """Return what follows a call, whose number of items and forecast may become known on the way."""
    record = request.record

    def predicted_s() -> float | None:
        return None if record.plan is None else record.plan.predicted_s

    def is_least() -> bool:
        return record.plan is not None and record.plan.is_lower_bound

    return Follower(progress, name, lambda: request.source.n_items, predicted_s, is_least=is_least)


def following(request: Request, progress: Progress, name: str) -> contextlib.AbstractContextManager[Follower]:
    """
    Return what follows a call that is about to run, as ``request.progress``.

    At the end of a run that failed the last state is reported too, but nothing that reporting raises replaces the
    failure.
    """
    # Not in the block, whose frame of contextlib would look as if the library had failed.
    return _following(request, follower_of(request, progress, name))


@contextlib.contextmanager
def _following(request: Request, follower: Follower) -> Iterator[Follower]:
    request.progress = follower.update
    try:
        yield follower
    except BaseException as error:
        try:
            follower.close()
        except Exception as problem:  # noqa: BLE001 - the user's exception goes on as the loop would have raised it
            note = f"amorsize: reporting the progress failed as well: {type(problem).__name__}: {problem}"
            with contextlib.suppress(Exception):  # one that takes no notes
                error.add_note(note)
        raise
    follower.close()
