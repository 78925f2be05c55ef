"""The results of one call and its failures, by index: taken in from loops and workers, and given to the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amorsize import _profile, _trace
from amorsize._backend import MISSING
from amorsize.exceptions import AmorsizeError, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amorsize._backend._outcome import Outcome
    from amorsize._request import Request


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
            message = f"items {missing[:5]} have no result although the run ended; please report this"
            raise AmorsizeError(message)
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
