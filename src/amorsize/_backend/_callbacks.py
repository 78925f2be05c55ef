"""
Carriers over what runs a task and calls back from some thread: loky's workers, threads, joblib's clusters; and none.

Made by whoever starts a run or a stream (the adapter, ThreadTeam), and by FlowTeam once the system refuses workers. The
thread of the caller is the only one that takes answers, and each task that was handed over is answered exactly once:
with its result, its error, or the fault of the way.
"""

from __future__ import annotations

import contextlib
import queue
from typing import TYPE_CHECKING, Any

from amorsize._backend import _bounds as bounds
from amorsize._backend import _worker
from amorsize._backend._voice import Voice
from amorsize._backend._work import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amorsize._backend._carrier import Submitter
    from amorsize._backend._chunks import Board
    from amorsize._backend._job import Job
    from amorsize._backend._voice import Voice
    from amorsize._backend._work import Work


class Callbacks:
    """A carrier over anything that calls back from some thread when a task is done; the callback only fills a queue."""

    def __init__(self, way: Submitter, ahead: int, board: Board | None = None) -> None:
        self.way = way
        self.name = way.name
        self.ahead = ahead
        self._board = board
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._unanswered: list[int] = []
        self._voices: dict[int, Voice] = {}
        self._is_lively = False

    def task(self, job: Job, work: Work) -> Any:
        """Ask the way."""
        return self.way.task(job, work)

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

    def broken(self, error: BaseException) -> str:
        """Ask the way."""
        return self.way.broken(error)

    def renew(self) -> None:
        """Tell the way."""
        self.way.renew()


class Refused:
    """Carries nothing, since the system refused workers: the caller is told so task by task, and does them itself."""

    def __init__(self, name: str, refusal: OSError) -> None:
        self.name = name
        self.refusal = refusal

    def task(self, job: Job, work: Work) -> None:
        """Make nothing of it."""

    def submit(self, task: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Answer at once."""
        del task
        done(None, _worker.NoWorkersError(*self.refusal.args))

    def broken(self, error: BaseException) -> str:
        """Return an empty string: nobody died."""
        del error
        return ""

    def renew(self) -> None:
        """Do nothing."""

    def fault(self) -> BaseException | None:
        """Return None: each task is answered at once."""
        return None


def refusing(name: str, refusal: OSError) -> Callbacks:
    """Return a carrier that carries nothing, since the system refused workers."""
    return Callbacks(Refused(name, refusal), ahead=0)
