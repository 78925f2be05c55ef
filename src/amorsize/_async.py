"""
``await f.amap(...)`` and ``async for ... in f.aimap(...)``: a map in a thread of its own, under asyncio, anyio or trio.

    event loop                     thread, one per map or stream
      │ ── context, joblib's too ──► map, or next(stream)
      │                                │ between blocks, and while it waits for workers: cancelled?
      │ ◄─────── wakes the task ───────┘

Decides nothing: what runs in the thread is the same call as anywhere else.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from amorsize import _backend, _trace
from amorsize import _bounds as bounds
from amorsize._modules import loaded
from amorsize._turns import CancelledMap, Halt

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

clock = time.perf_counter


class _Signal:
    """Wakes a task from a thread; of the library whose task asks for it."""

    def __init__(self) -> None:
        self._trio = _running_trio()
        self._event: Any
        self._call: Callable[..., object]
        if self._trio is not None:
            self._event, self._call = self._trio.Event(), self._trio.lowlevel.current_trio_token().run_sync_soon
        else:
            asyncio = _asyncio()
            self._event, self._call = asyncio.Event(), asyncio.get_running_loop().call_soon_threadsafe

    def set(self) -> None:
        """Wake the task; called in the thread. Its event loop may be gone."""
        with contextlib.suppress(RuntimeError):
            self._call(self._event.set)

    async def wait(self) -> None:
        """Wait for the thread."""
        await self._event.wait()

    async def outlast(self) -> None:
        """Wait for the thread though the task has been cancelled, for at most a second."""
        # anyio cancels again and again what is not shielded. Where its half for asyncio is not loaded, nothing runs
        # under it: a web framework has imported it, and a scope would take the event loop 60 ms to import the rest.
        scopes = self._trio or (loaded("anyio._backends._asyncio") and loaded("anyio"))
        if scopes is not None:
            with scopes.CancelScope(shield=True), scopes.move_on_after(bounds.END_S):
                await self._event.wait()
            return
        asyncio = _asyncio()
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(self._event.wait(), bounds.END_S)


def _asyncio() -> Any:
    import asyncio  # noqa: PLC0415 - 70 ms, where no task of it runs

    return asyncio


def _running_trio() -> Any:
    """Return trio where one of its tasks asks, else None."""
    trio = loaded("trio")
    if trio is not None:
        with contextlib.suppress(RuntimeError):
            trio.lowlevel.current_task()
            return trio
    return None


class _Unawaited(threading.Event):
    """Whether a thread has started, which nobody waits for."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - as there
        """Return at once."""
        return True


def _start(main: Callable[[], None]) -> None:
    """
    Run *main* in a thread of its own, and go on before it runs; raises RuntimeError if the system gives no thread.

    ``Thread.start`` waits until the new thread has had its turn with the interpreter, behind all that compute: of
    twenty maps at once, each kept the event loop waiting for 7 ms, one for 90.
    """
    # A daemon: a map that is stuck in an item must not keep the interpreter alive.
    thread = threading.Thread(target=main, name="amorsize-async", daemon=True)
    thread._started = _Unawaited()  # type: ignore[attr-defined]  # noqa: SLF001 - without such an event, start() only waits
    thread.start()


def _thread(main: Callable[[], None]) -> None:
    """Run *main* in a thread of its own, in the context of the task that asks: its variables, and joblib's."""
    context, enter_joblib, is_worker = contextvars.copy_context(), _backend.carried_context(), _backend.in_worker()

    def begin() -> None:
        enter_joblib()
        with _backend.nested_thread() if is_worker else contextlib.nullcontext():
            context.run(main)

    _start(begin)


async def in_thread(work: Callable[[Halt], T]) -> T:
    """Run a map in a thread: *work*, which gets what it has to call now and then. Raises what the map raises."""
    halt, signal = Halt(), _Signal()
    results: list[T] = []
    errors: list[BaseException] = []

    def main() -> None:
        try:
            with halt.computing():
                results.append(work(halt))
        except BaseException as error:  # noqa: BLE001 - it is the task's, whatever it is
            errors.append(error)
        finally:
            _backend.leave()
            signal.set()

    _thread(main)
    try:
        await signal.wait()
    except BaseException:
        halt.cancel()
        await signal.outlast()
        raise
    try:
        if errors:
            raise errors[0]
        return results[0]
    finally:
        errors.clear()  # its traceback holds this frame


class _Feed:
    """What a stream's thread and its task share; the thread knows nothing of :class:`AsyncStream`, which may go."""

    def __init__(self, start: Callable[[Halt], Any], *, is_exact: bool) -> None:
        self.start = start
        self.halt = Halt()
        self.ready: deque[tuple[Any, BaseException | None]] = deque()
        self.asks: queue.SimpleQueue[_Signal | None] = queue.SimpleQueue()
        self.is_over = self.has_ended = False
        self.at_end: _Signal | None = None
        self._most_ahead = 0 if is_exact else bounds.MOST_AHEAD

    def serve(self) -> None:
        """Be the thread: each ask is answered with at least one result, or with how the stream ended."""
        stream: Any = None
        ask: _Signal | None = None
        try:
            while (ask := self.asks.get()) is not None:
                with self.halt.computing():
                    stream = self.start(self.halt) if stream is None else stream
                    self._pull(stream, ask)
                ask.set()
                self._answer()
        except BaseException as error:  # noqa: BLE001 - as above; StopIteration is its end
            self.ready.append((None, error))
            self.is_over = True
        finally:
            try:
                if stream is not None:
                    stream.close()
            finally:
                self.has_ended = True
                _backend.leave()
                for waiting in (ask, self.at_end):
                    if waiting is not None:
                        waiting.set()
                self._answer()

    def _pull(self, stream: Any, ask: _Signal) -> None:
        """Take one result, and others while they come at once and nobody has to wait for them."""
        self.ready.append((next(stream), None))
        deadline = clock() + bounds.AHEAD_S
        if self._most_ahead:
            ask.set()
        for _ in range(self._most_ahead):
            if clock() > deadline:
                return
            self.ready.append((next(stream), None))
            self._answer()

    def _answer(self) -> None:
        """Wake who has asked meanwhile: there is something for them."""
        with contextlib.suppress(queue.Empty):
            while (ask := self.asks.get_nowait()) is not None:
                ask.set()
            self.asks.put(None)


class AsyncStream(Generic[T]):
    """
    An asynchronous iterator over the results of a function over items.

    Leave it with ``async with`` or ``await stream.aclose()`` to stop the work at once; dropping it stops it too. If the
    task is cancelled while it waits for a result, the stream ends.
    """

    def __init__(self, start: Callable[[Halt], Any], *, is_exact: bool) -> None:
        """
        Begin nothing yet.

        Args:
            start: Makes the stream; called in its thread.
            is_exact: Whether nothing may be taken from it before it is asked for.
        """
        self._feed = _Feed(start, is_exact=is_exact)
        self._is_started = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        feed = self._feed
        while not feed.ready:
            if feed.is_over:
                raise StopAsyncIteration
            await self._ask()
        result, error = feed.ready.popleft()
        if error is None:
            return result  # type: ignore[no-any-return]  # the function's result
        if isinstance(error, StopIteration | CancelledMap):
            raise StopAsyncIteration
        _trace.trim(error)
        raise error

    async def _ask(self) -> None:
        signal = _Signal()
        if not self._is_started:
            self._is_started = True
            _thread(self._feed.serve)
        self._feed.asks.put(signal)
        if self._feed.is_over:  # since then: what is left is there
            return
        try:
            await signal.wait()
        except BaseException:
            self._end()
            await signal.outlast()
            raise

    def _end(self) -> None:
        """Tell the thread to stop."""
        feed = self._feed
        feed.is_over = True
        feed.halt.cancel()
        feed.asks.put(None)

    async def aclose(self) -> None:
        """Stop the work and wait until it has stopped, at most a second. Asking for more ends the iteration."""
        feed = self._feed
        signal = feed.at_end = _Signal()
        self._end()
        feed.ready.clear()
        if self._is_started and not feed.has_ended:
            await signal.outlast()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._end()
