"""Workers for the batches of ``joblib.Parallel``: of the fork server, joblib's own, or threads."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from amorsize._backend import _bounds as bounds
from amorsize._backend import _worker
from amorsize._backend._carrier import Answer, Work
from amorsize._backend._threads import Threads
from amorsize._bounds import QUANTUM_S
from amorsize._modules import loaded
from amorsize._records import FORKSERVER, LOKY, THREADS

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from amorsize._backend._weights import Weights
    from amorsize._plans import Plan
    from amorsize._records import Costs, Profile

    Finished = Callable[[Any, BaseException | None], None]

clock = time.perf_counter


class Engine(Protocol):
    """What decides: the composer of host, costs and decision."""

    def has_server(self) -> bool:
        """Tell whether workers can be those of the fork server."""
        ...

    def is_server_up(self) -> bool:
        """Tell whether the fork server is there, so that its workers are there at once."""
        ...

    def pool(self, n_jobs: int, inner_threads: int | None) -> Any:
        """Return workers of the fork server that call what they are sent; raises OSError if they are refused."""
        ...

    def costs(self, way: str, *, warm: bool) -> Costs:
        """Return what workers of this way cost here."""
        ...

    def decide(self, way: str, profile: Profile, n_items: int | None, n_jobs: int, costs: Costs) -> Plan:
        """Return the plan for what is left, with at most *n_jobs* that cost what is given."""
        ...


class Workers:
    """The workers of one ``Parallel``: none until :meth:`open`, idle ones stay behind after :meth:`close`."""

    def __init__(
        self,
        engine: Engine,
        parallel: Any,
        new_loky: Callable[[], Any],
        *,
        options: dict[str, Any],
        inner_threads: int | None,
        wants_threads: bool,
        wants_loky: bool,
    ) -> None:
        """Prepare; *options* are those of joblib's own backend, which *new_loky* makes if it is wanted."""
        self.engine = engine
        self._parallel = parallel
        self._new_loky = new_loky
        self._options = options
        self._inner_threads = inner_threads
        self._wants_threads = wants_threads
        self._wants_loky = wants_loky
        self._loky: Any = None
        self._served: Served | None = None
        self._threads: Threads | None = None

    def name_folder(self) -> None:
        """Have memory maps written to the folder of this ``Parallel``; called when a batch is pickled."""
        workers = getattr(self._loky, "_workers", None)
        if workers is not None:
            workers._temp_folder_manager.set_current_context(self._parallel._id)  # noqa: SLF001 - as joblib does

    def close(self) -> None:
        """Give the workers back; idle ones stay, as with joblib's own backend."""
        if self._loky is not None:
            self._loky.terminate()
            self._loky = None
        self._close_others(kill=False)

    def abort(self, *, busy: bool) -> None:
        """End workers that are at something nobody wants, as joblib's own backend does."""
        if self._loky is not None and busy:
            self._loky.abort_everything(ensure_ready=False)
            self._loky = None
        self._close_others(kill=busy)

    def _close_others(self, *, kill: bool) -> None:
        if self._served is not None:
            self._served.close(kill=kill)
            self._served = None
        if self._threads is not None:
            self._threads.close(0.0)
            self._threads = None

    def way(self, weights: Weights | None) -> str:
        """Return the kind of workers for tasks of these *weights*: joblib's own only where ours would not do."""
        if self._wants_threads:
            return THREADS
        if self._served is not None:
            return FORKSERVER
        is_loky = self._loky is not None or self._wants_loky or (weights is not None and weights.has_maps)
        return LOKY if is_loky or not self.engine.has_server() else FORKSERVER

    def is_warm(self, way: str) -> bool:
        """Tell whether workers are running."""
        if way == THREADS:
            return self._threads is not None
        if way == FORKSERVER:
            return self.engine.is_server_up()
        executor = getattr(loaded("joblib.externals.loky.reusable_executor"), "_executor", None)
        if executor is None:
            return False
        flags = executor._flags  # noqa: SLF001 - no public way to ask
        return flags.broken is None and not flags.shutdown and len(executor._processes) > 1  # noqa: SLF001 - as above

    def open(self, n_jobs: int, way: str) -> None:
        """Have workers, or have them starting."""
        if way == THREADS:
            if self._threads is None:
                self._threads = Threads(n_jobs)
            return
        if way == FORKSERVER and self._served is None:
            with contextlib.suppress(OSError):  # refused: joblib's own
                self._served = Served(self.engine.pool(n_jobs, self._inner_threads))
        if self._served is None and self._loky is None:
            loky = self._new_loky()
            loky.configure(n_jobs=max(2, n_jobs), parallel=self._parallel, **self._options)
            self._loky = loky

    def hello(self, answered: Callable[[], None]) -> None:
        """Call *answered* once a worker is up, unless :meth:`has_answered` tells."""
        if self._served is not None:
            return
        # Of the standard library: a worker need not import amorsize for it.
        self._loky.submit(time.monotonic, callback=lambda _: answered())

    def is_driven(self) -> bool:
        """Tell whether workers are talked to by :meth:`drive` only."""
        return self._served is not None

    def has_answered(self) -> bool:
        """Tell whether a worker of the fork server is up."""
        served = self._served
        return served is not None and served.is_up()

    def sending(self) -> contextlib.AbstractContextManager[object]:
        """Keep other threads from the workers until all of several batches have been sent."""
        return contextlib.nullcontext() if self._served is None else self._served.lock

    def drive(self, timeout_s: float = 0.0) -> None:
        """Take in what workers have sent, where nothing else does."""
        if (served := self._served) is not None:
            served.drive(timeout_s)

    def wait(self, is_done: threading.Event, timeout: float | None) -> bool:
        """Wait for the results of one batch; returns whether they are there."""
        if self._served is None:
            return is_done.wait(timeout)
        deadline = None if timeout is None else clock() + timeout
        while not is_done.is_set() and (deadline is None or clock() < deadline):
            self.drive(bounds.DRIVE_S if deadline is None else min(bounds.DRIVE_S, max(0.0, deadline - clock())))
        return is_done.is_set()

    def send(self, batch: Any, done: Callable[[Any, BaseException | None], None]) -> None:
        """Run a batch in a worker or on a thread."""
        if self._threads is not None:
            self._threads.submit(batch, done)
            return
        if self._served is not None:
            self._served.send(batch, done)
            return
        loky = self._loky

        def finished(future: Any) -> None:
            try:
                result = loky.retrieve_result_callback(future)
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                done(None, error)
            else:
                done(result, None)

        loky.submit(batch, callback=finished)


# -- workers of the fork server ----------------------------------------------------------------------------------------


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
            return any(worker.pid for worker in self._pool.workers)

    def send(self, batch: Any, done: Finished) -> None:
        """Have a worker run a batch and call *done* with results or error; raises Unsendable if it has no pickle."""
        with self.lock:
            number = next(self._numbers)
            task = self._pool.task(self._pool.job, Work(number, [batch], QUANTUM_S, 1))
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
