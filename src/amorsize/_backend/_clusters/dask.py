"""Tasks of Dask, through its client."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from typing import TYPE_CHECKING, Any, Final

from amorsize import _bounds as bounds
from amorsize._backend._carrier import Done
from amorsize._backend._clusters.base import Cluster, Lost, Task
from amorsize._backend._clusters.task import Blob, Parts, Shipped
from amorsize._backend._worker import NoWorkersError

if TYPE_CHECKING:
    from collections.abc import Callable

clock = time.perf_counter

# Errors that mean that the engine has given up on a task, by the names of their classes.
_GIVEN_UP: Final = frozenset(
    {"KilledWorker", "CancelledError", "FutureCancelledError", "CommClosedError", "TimeoutError"}
)


class Dask(Cluster):
    """Tasks through the client that joblib's Dask backend holds."""

    def __init__(self, backend: Any, n: int, name: str) -> None:
        super().__init__(backend, n, name)
        self.client = backend.client
        self._placed: dict[bytes, Any] = {}
        self._is_over = False

    def open(self) -> None:
        """Begin to watch over the cluster."""
        dask = importlib.import_module("dask")
        # Large chunks are meant to be large: no advice to load the data elsewhere.
        quiet = {"distributed.admin.large-graph-warning-threshold": "1 GiB"}
        self._stack.enter_context(dask.config.set(quiet))
        if self.client.status not in {"running", "connecting"}:
            raise NoWorkersError(f"the Dask client is {self.client.status}")
        self.client.loop.add_callback(self._watch)

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        super().__exit__()

    def send(self, task: Task) -> None:
        """Leave it to the client's loop: nothing here waits for the network."""
        if self.client.status not in {"running", "connecting"}:
            raise Lost(f"the Dask client is {self.client.status}")
        self.client.loop.add_callback(self._carry, task)

    async def _carry(self, task: Task) -> None:
        try:
            result = await self._result(task)
        except asyncio.CancelledError:
            self.answer(task, None, Lost("the Dask client was closed"))
            raise
        except Exception as error:  # noqa: BLE001 - the run decides
            if _GIVEN_UP & {kind.__name__ for kind in type(error).__mro__}:
                error = Lost(f"{type(error).__name__}: {error}")
            self.answer(task, None, error)
        else:
            self.answer(task, result, None)

    async def _result(self, task: Task) -> Any:
        for attempt in (1, 2):
            arguments = [await self._place(a) if isinstance(a, Shipped) else a for a in task.arguments]
            future = self.client.submit(run_flat, task.function, *arguments, pure=False, **self.backend.submit_kwargs)
            task.handle = future
            try:
                return gathered(await future)
            except Exception as error:
                # Data put on workers is lost with the last of them; tasks are not. Put it there again, once.
                if not (attempt == 1 and self._placed and "Cancelled" in type(error).__name__ and not self._is_over):
                    raise
                self._placed.clear()
            finally:
                task.handle = None
        raise AssertionError("unreachable")

    async def _place(self, shipped: Shipped) -> Any:
        """Put a large parcel on all workers, once; workers that join later fetch it from the others."""
        if len(shipped.data) <= bounds.PLACED_BYTES:
            return shipped
        placing = self._placed.get(shipped.digest)
        if placing is None:
            scatter = self.client.scatter(shipped, broadcast=True, hash=False, asynchronous=True)
            placing = self._placed[shipped.digest] = asyncio.ensure_future(scatter)
        return await asyncio.shield(placing)

    async def _watch(self) -> None:
        """Look whether there are a scheduler and workers; give up after :data:`amorsize._bounds.GONE_S` without."""
        well = clock()
        words = ""
        while not self._is_over:
            if self.client.status in {"closing", "closed"}:
                self.lose(f"the Dask client was {self.client.status} in mid-run")
                return
            try:
                cores = await asyncio.wait_for(self.client.scheduler.ncores(), bounds.GONE_S / 2)
                words = "" if cores else "the Dask cluster has no workers left"
            except Exception as error:  # noqa: BLE001 - whatever the network raises, the cluster cannot be reached
                words = f"the Dask scheduler cannot be reached: {type(error).__name__}: {error}"
            if not words:
                well = clock()
            elif clock() - well > (self.backend.wait_for_workers_timeout or bounds.GONE_S):
                self.lose(words)
                return
            await asyncio.sleep(bounds.WATCH_S)

    def cancel(self, tasks: list[Task]) -> None:
        """Take back tasks that wait; what runs ends within its quantum."""
        futures = [future for task in tasks if (future := task.handle) is not None]
        if futures and self.client.status == "running":
            self.client.loop.add_callback(self._cancel, futures)

    async def _cancel(self, futures: list[Any]) -> None:
        with contextlib.suppress(Exception):  # nobody waits for them any more
            await self.client.cancel(futures, asynchronous=True, force=True)


def run_flat(function: Callable[..., Any], *arguments: Any) -> Any:
    """
    Run a task in the worker and answer with the buffers of its result in a plain list, before the result itself.

    Dask hands the elements of a list on as they are. As parts of an object they are put into its pickle's frames and
    copied on the way through the scheduler: 100 arrays of 1 MB took 0.41 s home instead of 0.17.
    """
    result = function(*arguments)
    if isinstance(result, Blob):
        return [result.data, None]
    if isinstance(result, Done) and isinstance(result.results, Parts):
        parts = result.results
        result.results = None
        return [parts.data.data, *(buffer.data for buffer in parts.buffers), result]
    return result


def gathered(answer: Any) -> Any:
    """Undo :func:`run_flat`."""
    if not isinstance(answer, list):
        return answer
    data, *buffers, result = answer
    if result is None:
        return Blob(data)
    result.results = Parts(Blob(data), tuple(map(Blob, buffers)))
    return result
