"""
Batches of ``joblib.Parallel`` on workers of the fork server.

No thread brings results home: whoever waits for one calls :meth:`Served.drive`, and callbacks run in that thread.
A worker has one batch at a time, so that none waits behind a long one; the next are pickled meanwhile.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from amorsize import _cost as cost
from amorsize._backend import _worker
from amorsize._backend._work import Answer, Work

if TYPE_CHECKING:
    from collections.abc import Callable

    Finished = Callable[[Any, BaseException | None], None]


class Served:
    """
    The workers of one ``Parallel``. Any thread may use it.

    Attributes:
        lock: Held while workers are talked to; whoever sends several batches may hold it until all are sent.
    """

    def __init__(self, pool: Any) -> None:
        """Take over a pool of the server's workers, whose function calls the item that it is given."""
        self.lock = threading.RLock()
        self._pool = pool
        self._numbers = itertools.count()
        self._sent: dict[int, tuple[Any, Finished]] = {}
        self._queue: deque[tuple[int, Any]] = deque()

    def is_up(self) -> bool:
        """Tell whether a worker has answered; called before anything is sent."""
        with self.lock:
            self._pool.take(0.0)
            return any(worker.pid for worker in self._pool.workers.values())

    def send(self, batch: Any, done: Finished) -> None:
        """
        Have a batch run by a worker, and *done* called with its results or its error.

        Raises:
            Unsendable: If the batch cannot be pickled.
        """
        with self.lock:
            number = next(self._numbers)
            task = self._pool.task(self._pool.job, Work(number, [batch], cost.QUANTUM_S, 1))
            self._sent[number] = batch, done
            self._queue.append((number, task))
            self._post()

    def _post(self) -> None:
        while self._queue and len(self._sent) - len(self._queue) < max(1, len(self._pool.workers)):
            self._pool.submit(*self._queue.popleft())

    def drive(self, timeout_s: float) -> None:
        """Take in what workers have sent, waiting at most *timeout_s* for the first of it."""
        with self.lock:
            taken = self._pool.take(timeout_s)
            answers = [(answer, *self._sent.pop(answer.number)) for answer in taken if answer.number in self._sent]
            self._post()
        for answer, batch, done in answers:
            _pass_on(answer, batch, done)

    def close(self, *, kill: bool) -> None:
        """Let the workers go; *kill* where some are at what nobody wants any more."""
        with self.lock:
            self._sent.clear()
            self._queue.clear()
            self._pool.close(kill=kill)


def _pass_on(answer: Answer, batch: Any, done: Finished) -> None:
    if isinstance(answer.error, _worker.NoWorkersError):  # none can be had: it has not been begun
        try:
            results = batch()
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            done(None, error)
        else:
            done(results, None)
    elif answer.error is not None:
        done(None, answer.error)
    else:
        opened, failures = _worker.unpack(answer.result.results, start=answer.number)
        done(*((None, failures[0][1]) if failures else (opened[0], None)))
