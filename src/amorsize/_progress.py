"""
Shows how far a call is: a bar, or the caller's own function.

Called from the thread that called ``map``, after each block of items; never starts a thread (a second thread would
forbid forking the next call's workers), and never draws for runs that are over within :data:`SHOW_AFTER_S`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from amorsize._call import Call

# Seconds before a bar appears: what is over sooner needs none.
SHOW_AFTER_S: Final = 1.0

# Seconds between two reports. Ten a second read as continuous, and cost 0.1 % at 100 us for one redrawn bar.
INTERVAL_S: Final = 0.1


class Follower:
    """
    Follows one run: give it the number of items done, as often as it is known.

    An update that is not yet due costs one reading of the clock.

    Args:
        progress: True for a bar, or a callable that gets ``(done, total, elapsed_s)`` at most every
            :data:`INTERVAL_S` seconds and once at the end.
        name: What the bar is called.
        total: All items, None if unknown; or a function that returns it, asked again at each report.
        predicted: Predicted seconds of the whole run, None if unknown; or a function that returns them.
        clock: Seconds.

    Raises:
        ImportError: If a bar is wanted and tqdm is not installed.
    """

    __slots__ = ("_bar", "_began", "_clock", "_due", "_is_open", "_predicted", "_progress", "_total", "n_done", "name")

    def __init__(
        self,
        progress: bool | Callable[[int, int | None, float], object],
        name: str,
        total: int | Callable[[], int | None] | None = None,
        predicted: float | Callable[[], float | None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if progress is True:
            require_tqdm()
        self.name = name
        self.n_done = 0
        self._progress = progress
        self._total = total
        self._predicted = predicted
        self._clock = clock
        self._began = clock()
        self._due = self._began + (INTERVAL_S if callable(progress) else SHOW_AFTER_S)
        self._bar: Any = None
        self._is_open = True

    def update(self, n_done: int) -> None:
        """Take in that *n_done* items of the run are done, and report it if that is due."""
        self.n_done = n_done
        now = self._clock()
        if now >= self._due:
            self._due = now + INTERVAL_S
            self._report(now)

    def close(self) -> None:
        """Report the last state once more, and leave the bar as it stands."""
        if not self._is_open:
            return
        self._is_open, self._due, now = False, math.inf, self._clock()
        if callable(self._progress) or self._bar is not None or now - self._began >= SHOW_AFTER_S:
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
        if callable(self._progress):
            self._progress(self.n_done, self.total, now - self._began)
        elif self._progress:
            self._draw(now - self._began)

    def _draw(self, elapsed_s: float) -> None:
        if self._bar is None:
            self._bar = _make_bar(self.name, elapsed_s)
        bar, predicted_s = self._bar, self.predicted_s
        bar.total = self.total
        if predicted_s is not None:
            bar.set_postfix_str(f"predicted {bar.format_interval(predicted_s)} in all", refresh=False)
        bar.update(self.n_done - bar.n)


def require_tqdm() -> None:
    """Raise an ImportError that names the extra, if tqdm is not installed; does not import it."""
    if importlib.util.find_spec("tqdm") is None:
        raise ImportError(
            "progress=True draws its bar with tqdm, which is not installed: pip install 'amorsize[progress]', "
            "or give a callable of (done, total, elapsed_s)"
        )


def _make_bar(name: str, elapsed_s: float) -> Any:
    """Return a bar of a run that began *elapsed_s* ago; it appears with its first update."""
    tqdm: Any = importlib.import_module("tqdm.auto").tqdm

    class Bar(tqdm):  # type: ignore[misc]  # the base is only known at run time
        # tqdm's monitor is a thread that wakes slow bars. It would outlive the bar and forbid forking from then on.
        monitor_interval = 0

    # mininterval, miniters: when to draw has been decided here. delay: the constructor draws nothing at 0 items.
    bar: Any = Bar(desc=name, unit="item", dynamic_ncols=True, mininterval=0, miniters=0, smoothing=0.1, delay=1e-9)
    bar.start_t -= elapsed_s
    bar.last_print_t = bar.start_t
    return bar


@contextlib.contextmanager
def following(call: Call, progress: bool | Callable[[int, int | None, float], object], name: str) -> Iterator[Follower]:
    """
    Follow a call while the block runs.

    Sets ``call.progress``. At the end of a run that failed the last state is reported too, but nothing that reporting
    raises replaces the failure.

    Args:
        call: The call that is about to run.
        progress: As for :class:`Follower`.
        name: The function's name.
    """

    def predicted_s() -> float | None:
        plan = call.record.plan
        return None if plan is None else plan.predicted_s

    follower = Follower(progress, name, lambda: call.source.n_items, predicted_s)
    call.progress = follower.update
    try:
        yield follower
    except BaseException:
        with contextlib.suppress(Exception):  # the user's exception goes on as the loop would have raised it
            follower.close()
        raise
    follower.close()
