"""The worker's side of a stream: takes tasks from a pipe of its own, runs each for a quantum, sends results home."""

from __future__ import annotations

import pickle
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from amorsize import _schedule as schedule
from amorsize._backend import _output, _pickles, _worker
from amorsize._backend import _process as process
from amorsize._backend._work import run_quantum

if sys.platform != "linux":
    message = "this way of running workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)

if TYPE_CHECKING:
    from collections.abc import Callable

TASK: Final = struct.Struct("=qqqdd")  # number, bytes that follow, items, begin, end

# Instead of a number: the worker may leave. The end of the pipe does not tell: whatever has been forked since, another
# stream's workers or the user's own processes, holds a copy of the other end.
NO_MORE: Final = -1

# Instead of a number: what items have said.
SAID_TASK: Final = -2

# Instead of how many items have been done: they could not be unpickled, and an error follows.
UNOPENED_TASK: Final = -1

# Fields of a worker's slot on the board, 8 bytes each: its task, how many items of that it has begun, and since when it
# is at one of them; 0 while it opens what it is sent, and while it sends results.
TASK_NUMBER, N_BEGUN, SINCE_NS, TASK_SLOT = 0, 1, 2, 3

clock = time.perf_counter


class TaskWorker:
    """One worker at one stream."""

    call: Callable[[Any], Any]

    def __init__(self, slot: int, board: memoryview, results_fd: int, *, keep_going: bool) -> None:
        self._slot = slot
        self._board = board
        self._results_fd = results_fd
        self._keep_going = keep_going

    def serve(self, stream: Any) -> None:
        """Run tasks until there are no more to come."""
        while len(head := stream.read(TASK.size)) == TASK.size:
            number, n_bytes, start, quantum_s, block = TASK.unpack(head)
            if number == NO_MORE:
                return
            data = stream.read(n_bytes)
            try:
                items = pickle.loads(data)
            except Exception as error:  # noqa: BLE001 - objects raise anything when they are made; it travels home
                data = pickle.dumps(_worker.pack_error(error, start))
                with _output.sending():
                    process.write_all(self._results_fd, TASK.pack(number, len(data), UNOPENED_TASK, 0.0, 0.0), data)
                continue
            place = TASK_SLOT * self._slot
            self._board[place + N_BEGUN] = 0  # first: the number of the task before must not count for this one
            self._board[place + TASK_NUMBER] = number
            begin = clock()
            done, failures = self._run(items, quantum_s, block)
            end = clock()
            data = _worker.pack(done, failures, start, dumps_plainly)
            self._board[place + SINCE_NS] = 0
            _output.flush()
            with _output.sending():
                process.write_all(self._results_fd, TASK.pack(number, len(data), len(done), begin, end), data)
            _output.flush_originals()
            del items, done, failures

    def words(self, data: bytes) -> None:
        """Send what items have said; see :func:`amorsize._backend._output.listen`."""
        process.write_all(self._results_fd, TASK.pack(SAID_TASK, len(data), 0, 0.0, 0.0), data)

    def _run(self, items: Any, quantum_s: float, block: float) -> tuple[list[Any], list[Any]]:
        """Run items for a quantum, telling the board how far it has begun."""
        board, place = self._board, TASK_SLOT * self._slot

        def tell(n_begun: int) -> None:
            board[place + SINCE_NS] = time.monotonic_ns()
            board[place + N_BEGUN] = n_begun

        return run_quantum(
            self.call, items, quantum_s, int(block), keep_going=self._keep_going, look_s=schedule.CHECK_S, tell=tell
        )


def dumps_plainly(value: Any) -> bytes:
    """Pickle plainly; by value where that fails, or where classes of ``__main__`` may be other ones there."""
    return _pickles.dumps(value)
