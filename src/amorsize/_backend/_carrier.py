"""
Carriers of tasks: what they and those who use them hand to each other, what one must offer, and those with callbacks.

    run ── Work ──► carrier ── task ──► worker: run_quantum ── Done ──► carrier ── Answer ──► run

Threads (_threads), loky's workers (_chunks) and clusters (_clusters) call back from some thread; :class:`Callbacks`
makes a carrier of each. Workers that are sent their items (_pool) are one by themselves. Answers are taken in the
caller's thread only, and each task that was handed over is answered exactly once: with its result, its error, or the
fault of what carries it. This is loaded for threads too, whose first call it would show in: nothing here pickles.
"""

from __future__ import annotations

import contextlib
import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from amorsize import _outside
from amorsize._backend import _bounds as bounds
from amorsize._backend import _worker
from amorsize._backend._voice import Voice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._backend._job import Job


# -- the records -------------------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False, match_args=False)
class Work:
    """Neighbouring items for one task: index of the first in the caller's input, the items, and how to run them."""

    start: int
    items: Any
    quantum_s: float
    block: int


@dataclass(eq=False, repr=False, match_args=False)
class Answer:
    """What became of a task: its result or its error; of its items, *n_begun* had been begun if its worker died."""

    number: int
    result: Any
    error: BaseException | None
    n_begun: int | None = None


@dataclass(eq=False, repr=False, match_args=False)
class Done:
    """One finished chunk: what the worker returns; large *buffers* of its results may have come beside their pickle."""

    results: Any
    n_items: int
    begin_s: float
    end_s: float
    lane: str
    buffers: Sequence[Any] = ()


class Unsendable(Exception):  # noqa: N818 - a signal between carrier and caller
    """Tells that the items of a task cannot be pickled; its cause is what pickling them raised."""


def send_by(dumps: Callable[[Any], Any], items: Any) -> Any:
    """Pickle items; only what this raises is their doing: Unsendable, if they cannot be pickled."""
    try:
        return dumps(items)
    except Exception as error:
        _outside.pass_on(error)
        raise Unsendable(f"{type(error).__name__}: {error}") from error


# -- the protocols -----------------------------------------------------------------------------------------------------


class Carrier(Protocol):
    """
    What carries tasks to workers and answers back.

    Attributes:
        name: The backend's name.
        ahead: Tasks that may wait for each worker beside the one it runs.
    """

    name: str
    ahead: int

    def task(self, job: Job, work: Work) -> Any:
        """Turn work into what :meth:`submit` takes; raises :class:`Unsendable` for items that cannot be pickled."""

    def submit(self, number: int, task: Any) -> None:
        """Hand over a task; never blocks."""

    def take(self, timeout_s: float) -> list[Answer]:
        """Return the answers that have come; waits at most *timeout_s* for the first."""
        ...

    def broken(self, error: BaseException) -> str:
        """Return in words what killed a worker, if that is what the error of a task means; else an empty string."""
        ...

    def renew(self) -> None:
        """Have workers again after a death, where they do not come back by themselves."""


class Submitter:
    """
    What :class:`Callbacks` stands on: ``submit`` must not block, and *done* may be called from any thread.

    Where a subclass says nothing, no worker dies, or all are replaced by themselves.
    """

    name: str

    def task(self, job: Job, work: Work) -> Any:
        """As :meth:`Carrier.task`."""
        raise NotImplementedError

    def submit(self, task: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run *task* somewhere, then call *done* with its result or its error."""
        raise NotImplementedError

    def broken(self, error: BaseException) -> str:  # noqa: ARG002 - as said
        """As :meth:`Carrier.broken`."""
        return ""

    def renew(self) -> None:
        """As :meth:`Carrier.renew`."""

    def fault(self) -> BaseException | None:
        """Return why no answer can come any more, None where one can."""
        return None


# -- callbacks, and none -----------------------------------------------------------------------------------------------


class Callbacks:
    """A carrier over anything that calls back from some thread when a task is done; the callback only fills a queue."""

    def __init__(self, way: Submitter, ahead: int, board: Any = None) -> None:
        """Make a carrier; *board* is the :class:`amorsize._backend._chunks.Board` of loky's workers."""
        self.way = way
        self.name = way.name
        self.task, self.broken, self.renew = way.task, way.broken, way.renew
        self.ahead = ahead
        self._board = board
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._unanswered: list[int] = []
        self._voices: dict[int, Voice] = {}
        self._is_lively = False

    def submit(self, number: int, task: Any) -> None:
        """Hand over a task."""
        if self._board is not None and number >= 0:
            task = self._board.watch(task, number)
        self._unanswered.append(number)
        self.way.submit(task, lambda result, error: self._answers.put(self._answer(number, result, error)))

    def _answer(self, number: int, result: Any, error: BaseException | None) -> Answer:
        """Add what the board says of a task that did not return."""
        if error is None or self._board is None or number < 0:
            return Answer(number, result, error)
        return Answer(number, result, error, self._board.end(number))

    def take(self, timeout_s: float) -> list[Answer]:
        """Return the answers that have come."""
        answers = []
        if self._is_lively:
            timeout_s = min(timeout_s, bounds.LIVELY_S)
        with contextlib.suppress(queue.Empty):
            answers.append(self._answers.get(timeout=timeout_s) if timeout_s > 0 else self._answers.get_nowait())
            while True:
                answers.append(self._answers.get_nowait())
        if not answers and timeout_s > 0 and self._unanswered and (fault := self.way.fault()) is not None:
            answers = [self._answer(number, None, fault) for number in self._unanswered]
        # What was given up may answer after all: it has been answered for.
        answers = [answer for answer in answers if answer.number in self._unanswered]
        for answer in answers:
            self._unanswered.remove(answer.number)
        self._hear(answers)
        return answers

    def _hear(self, answers: Sequence[Answer]) -> None:
        """Let appear what workers have said: whole with the answer of their chunk, and when some have died."""
        if self._board is None:
            return
        messages = self._board.hear()
        self._is_lively = bool(messages)
        for pid, data in messages:
            if pid not in self._voices:
                self._voices[pid] = Voice()
            self._voices[pid].hear(data)
        if self._voices:
            lanes = {None if answer.error is not None else answer.result.lane for answer in answers}
            for pid, voice in self._voices.items():
                if None in lanes or f"process {pid}" in lanes:
                    voice.end()
                else:
                    voice.look()

    def hear_out(self) -> None:
        """Let appear what is left: nothing more comes."""
        self._hear(())
        for voice in self._voices.values():
            voice.end()


class Refused:
    """Carries nothing, since the system refused workers: the caller is told so task by task, and does them itself."""

    ahead = 0

    def __init__(self, name: str, refusal: OSError, before: Carrier | None = None) -> None:
        """Make one; what has been handed to the carrier *before* it still comes home."""
        self.name = name
        self._refusal = refusal
        self._before = before
        self._numbers: list[int] = []

    def task(self, job: Job, work: Work) -> None:
        """Make nothing of it."""

    def submit(self, number: int, task: Any) -> None:
        """Answer at once."""
        del task
        self._numbers.append(number)

    def take(self, timeout_s: float) -> list[Answer]:
        """Return the refusal of each task, and what has come of those that were carried before."""
        numbers, self._numbers = self._numbers, []
        answers = [Answer(number, None, _worker.NoWorkersError(*self._refusal.args)) for number in numbers]
        return answers if self._before is None else answers + self._before.take(0.0 if answers else timeout_s)

    def broken(self, error: BaseException) -> str:
        """Return what killed a worker of the carrier before."""
        return "" if self._before is None else self._before.broken(error)

    def renew(self) -> None:
        """Do nothing."""
