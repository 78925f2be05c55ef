"""One call as it was asked for, and its results: function, items, options, and what has come of the items so far."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from amorsize import _backend, _profile, _trace
from amorsize._backend import MISSING
from amorsize._outside import pass_on
from amorsize._record import Record, store
from amorsize._records import Profile
from amorsize._wrong_call import way_out
from amorsize.exceptions import AmorsizeError, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._backend._job import Outcome
    from amorsize._options import Options
    from amorsize._record import State
    from amorsize._records import Limits
    from amorsize._source import Source
    from amorsize._turns import Halt

clock = time.perf_counter

# What is known of a function before its first item.
_UNKNOWN: Final = Profile()

# -- what was asked for ------------------------------------------------------------------------------------------------


class Keeper(Protocol):
    """Keeps results as they come, for a checkpoint."""

    def looped(self, results: Sequence[Any], failures: dict[int, BaseException]) -> None:
        """Take in all results so far of a loop."""
        ...

    def add(self, start: int, results: Sequence[Any], failed: Sequence[int]) -> None:
        """Take in results that have come home: the position of the first, and which of them failed."""
        ...

    def has_seen(self, n_results: int) -> None:
        """Take for kept what has been given so far."""
        ...


class Request:
    """
    One call, as it was asked for.

    Attributes:
        func: The function.
        state: What is remembered of it.
        options: Those that hold for this call.
        limits: The bounds of the decision among them.
        source: The items.
        kwargs: Keyword arguments for every item, None where there are none.
        call: The function of one item.
        keep_going: Whether an exception of an item is a result.
        isolated: Whether no item may run in the calling process: timeout and retries need one that can be ended.
        record: What the call writes down.
        check: Called now and then; what it raises ends the call as Ctrl-C does.
        progress: Told how many items are done.
        keeper: Given results as they come.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        state: State,
        options: Options,
        source: Source,
        kwargs: dict[str, Any] | None,
        *,
        began: float | None = None,
        check: Halt | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.func = func
        self.state = state
        self.options = options
        self.limits: Limits = options.limits
        self.source = source
        self.kwargs = kwargs
        self.call = _backend.make_call(func, star=source.star, kwargs=kwargs)
        self.keep_going = self.limits.errors != "raise"
        # What ends the call at once must then be told from what an item raises.
        self._handlers = _backend.handlers() if self.keep_going else {}
        self.isolated = self.limits.timeout is not None or self.limits.retries > 0
        self.check = check
        self.progress: Callable[[int], None] | None = None
        self.keeper = keeper
        self.record = Record(_UNKNOWN, source.n_items, self.limits, clock() if began is None else began)

    @property
    def name(self) -> str:
        """What the function is called in messages."""
        func = self.func
        return str(getattr(func, "__qualname__", None) or getattr(func, "__name__", None) or repr(func))

    def name_item(self, error: BaseException, index: int, item: object) -> None:
        """Name the item on the exception that it raised, and the way out where the call itself was not right."""
        name_item(error, index, item, self.func, star=self.source.star, kwargs=self.kwargs)

    def is_outside(self, error: BaseException) -> bool:
        """Tell whether the program itself, a signal's handler of it, say, has raised *error* into an item."""
        return _backend.is_outside(error, self._handlers, self.func)

    def initialize(self) -> None:
        """Load what earlier processes kept, and call the initializer, each once, before items run here."""
        if (kept := store()) is not None:
            kept.load()
        initializer = self.options.initializer
        if initializer is None or self.state.initialized == os.getpid() or self.isolated:
            return
        initializer(*self.options.initargs)
        self.state.initialized = os.getpid()


# What is in Python's words for a call that does not fit; from 3.15 on they are "Value after * must be an iterable".
_OF_WRONG_CALLS: Final = ("argument", "tuple", "after *")


def name_item(
    error: BaseException,
    index: int,
    item: object,
    func: Callable[..., Any],
    *,
    star: bool = False,
    kwargs: dict[str, Any] | None = None,
) -> None:
    """Name on an exception the item with which *func* was called, and the way out where it could not be called."""
    _profile.add_item_note(error, index, item)
    # By what Python says first: only then is the signature looked at.
    words = error.args[0] if type(error) in {TypeError, AttributeError} and error.args else ""
    if type(words) is not str or not any(part in words for part in _OF_WRONG_CALLS):
        return

    try:
        hint = way_out(func, item, star=star, kwargs=kwargs)
    except BaseException as problem:  # noqa: BLE001 - odd items and functions must not replace the user's own exception
        pass_on(problem)
        return
    if hint:
        _profile.add_note(error, f"amorsize: {hint}")


# -- what has been computed --------------------------------------------------------------------------------------------


class Ledger:
    """
    What has been computed so far.

    Attributes:
        results: In the order of the items; with an error policy, exceptions among them.
        failures: The exceptions among them, by index.
        n_gone: Results that have been taken out: those that a stream has yielded.
    """

    def __init__(self, request: Request, done: list[Any] | None = None) -> None:
        self._request = request
        self.results: list[Any] = done or []
        self.failures: dict[int, BaseException] = {}
        self.n_gone = 0

    @property
    def n_done(self) -> int:
        """Items that are done."""
        return self.n_gone + len(self.results)

    def add(self, done: list[Any]) -> None:
        """Put *done* behind the results; that list may become theirs."""
        if len(done) > len(self.results):
            # The sample is short: put in front of the rest it costs less than the rest appended to it.
            done[:0] = self.results
            self.results = done
        else:
            self.results += done

    def pop(self) -> tuple[int, Any, BaseException | None]:
        """Take the only result out: its index, itself, and the exception that it is."""
        index = self.n_gone
        self.n_gone += 1
        return index, self.results.pop(), self.failures.pop(index, None)

    def fail(self, index: int, error: BaseException, item: Any) -> None:
        """Note that an item has failed, under an error policy."""
        if not isinstance(error, AmorsizeError):
            self._request.name_item(error, index, item)
        _trace.trim(error)
        self.failures[index] = error
        self._request.record.n_failed += 1

    def report(self) -> None:
        """Tell who follows the call how many items are done."""
        if self._request.progress is not None:
            self._request.progress(self.n_done)

    def keep(self) -> None:
        """Give what has been computed here to the checkpoint, if there is one."""
        if self._request.keeper is not None:
            self._request.keeper.looped(self.results, self.failures)

    def take_in(self, outcome: Outcome, items: Sequence[Any]) -> None:
        """Append the results of a run of workers; raise what the loop would have raised."""
        request, base = self._request, outcome.base
        if not request.keep_going and outcome.failures:
            position = min(outcome.failures)
            error = outcome.failures[position]
            if outcome.died is not None and isinstance(error, WorkerDied):
                self._give_up(outcome.died, outcome)
            if not isinstance(error, AmorsizeError):
                request.name_item(error, base + position, items[position])
            _profile.add_results(error, dict(enumerate(self.results)) | outcome.finished())
            raise error
        if outcome.died is not None and not request.keep_going:
            self._give_up(outcome.died, outcome)
        for position, error in sorted(outcome.failures.items()):
            self.fail(base + position, error, items[position])
            if not isinstance(error, Exception):
                raise error
        missing = [base + i for i, result in enumerate(outcome.results) if result is MISSING]
        if missing:
            raise AmorsizeError(f"items {missing[:5]} have no result although the run ended; please report this")
        self.results += outcome.results
        if request.keeper is not None:
            request.keeper.has_seen(len(self.results))

    def _give_up(self, died: WorkerDied, outcome: Outcome) -> None:
        """Raise a worker's death with everything that had come home."""
        finished = dict(enumerate(self.results)) | outcome.finished()
        text = f"{died.args[0]}; {len(finished)} finished results are in .results"
        if not self._request.limits.retries:
            text += ", retries=1 would try again what was in flight"
        raise WorkerDied(text, finished, died.in_flight, died.cause)

    def answer(self) -> list[Any]:
        """Return the results as the error policy says."""
        self.report()
        if self.failures and self._request.limits.errors == "skip":
            skipped = self._request.record.skipped = sorted(self.failures)
            left_out = set(skipped)
            return [result for i, result in enumerate(self.results) if i not in left_out]
        return self.results
