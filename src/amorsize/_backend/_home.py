"""How results leave a worker: in its pipe, large buffers in memory of their own. Linux only."""

from __future__ import annotations

import os
import pickle
import socket
import struct
import sys
import time
from typing import Any, Final

from amorsize._backend import _bounds as bounds
from amorsize._backend import _memory, _output, _pickles, _worker
from amorsize._backend import _process as process
from amorsize._backend._ranges import HEAD, SAID, TOKEN, UNOPENED

if sys.platform != "linux":
    message = "this way of running workers is for Linux; nothing imports it elsewhere"
    raise ImportError(message)


# What a worker of the server says on its socket when the memory of its next results comes, and of which map they are.
MEMORY: Final = b"m"
NUMBER: Final = struct.Struct("=q")

clock = time.perf_counter


class PipeHome:
    """The way home of one worker at one map."""

    def __init__(self, fd: int, base: int, conn: socket.socket | None = None, number: int = 0) -> None:
        """
        Make a way home.

        Args:
            fd: The pipe for results.
            base: Index of the map's first item in the caller's input.
            conn: A socket for the descriptors of large buffers; without it all travels in the pipe.
            number: Which map of the caller's this is.
        """
        self.fd = fd
        self._base = base
        self._conn = conn
        self._number = number

    def results(
        self, start: int, results: list[Any], failures: list[tuple[int, BaseException]], begin_s: float
    ) -> None:
        """Send results home."""
        n_results, end = len(results), clock()
        data, buffers = _worker.pack(results, failures, start + self._base, self._dumps)
        _output.flush()  # first what was said, by pickling too
        with _output.sending():
            if buffers:
                data = self._send_apart(buffers) + data
            process.write_all(self.fd, HEAD.pack(start, n_results, len(data), len(buffers), begin_s, end), data)

    def words(self, data: bytes) -> None:
        """Send what items have said; see :func:`amorsize._backend._output.listen`."""
        process.write_all(self.fd, HEAD.pack(SAID, 0, len(data), 0, 0.0, 0.0), data)

    def unopened(self, start: int, stop: int) -> None:
        """Give items back that cannot be unpickled here."""
        with _output.sending():
            process.write_all(self.fd, HEAD.pack(UNOPENED, 0, TOKEN.size, 0, 0.0, 0.0), TOKEN.pack(start, stop))

    def _dumps(self, value: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
        """Pickle plainly, by value where that fails; large buffers stay apart where there is a way for them."""
        buffers: list[pickle.PickleBuffer] = []
        try:
            data = pickle.dumps(value, protocol=5, buffer_callback=None if self._conn is None else _apart(buffers))
        except Exception:  # noqa: BLE001 - objects raise anything from __reduce__; the second pickler decides
            return _pickles.dumps_by_value(value), []
        if buffers and sum(buffer.raw().nbytes for buffer in buffers) < bounds.RESULT_MEMORY_BYTES:
            return pickle.dumps(value, protocol=5), []
        return data, buffers

    def _send_apart(self, buffers: list[pickle.PickleBuffer]) -> bytes:
        """Put buffers into memory of their own and send its descriptor; returns where each of them lies."""
        assert self._conn is not None  # noqa: S101 - for the type checker
        fd = _memory.make("amorsize-results")
        try:
            places = _memory.append(fd, 0, [buffer.raw() for buffer in buffers])[0]
            socket.send_fds(self._conn, [MEMORY + NUMBER.pack(self._number)], [fd])
        finally:
            os.close(fd)
        return b"".join(TOKEN.pack(*place) for place in places)


def _apart(buffers: list[pickle.PickleBuffer]) -> Any:
    """Return what pickle asks of each buffer: whether it stays in the pickle."""

    def keep(buffer: pickle.PickleBuffer) -> bool:
        try:
            is_small = buffer.raw().nbytes < bounds.BESIDE_BYTES
        except BufferError:  # not contiguous
            return True
        if not is_small:
            buffers.append(buffer)
        return is_small

    return keep
