"""
Carries chunks on clusters: Dask's client and Ray's tasks directly, any other backend of joblib through its ``submit``.

    caller                                     worker of the cluster
    task ───► Cluster.submit ─┬─ Dask: client.submit ──► run_remote(shipped, remote)
                              ├─ Ray: a remote task        opens the parcel once per process, runs the items,
                              └─ joblib: backend.submit    returns errors as values
    done(Done | error) ◄───────────────────────────────────┘

A small parcel travels with each chunk, a large one once per worker. The engine's own recovery is used where it has one;
what it gives up on becomes :class:`Lost`, and so does everything in flight once the cluster itself is gone.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ctypes
import importlib.util
import os
import pickle
import platform
import queue
import sys
import sysconfig
import threading
import time
import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self, cast

from amorsize import _cost as cost
from amorsize import _function
from amorsize._backend import _ship, _worker
from amorsize._backend._buffers import writable
from amorsize._backend._chunks import alarmed
from amorsize._backend._flow import Done, Work, run_quantum, send_by
from amorsize._backend._worker import NoWorkersError
from amorsize._modules import loaded
from amorsize._warn import warn
from amorsize.exceptions import ItemTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from amorsize._backend._job import Job

clock = time.perf_counter

# Bytes of a parcel above which it is put on each worker once instead of travelling with each chunk. Placing takes two
# round trips (20 ms on Dask), in which 32 KiB travel a hundred times over the slowest network assumed (100 MB/s).
PLACED_BYTES: Final = 32 * 1024

# Items before a worker first looks at the clock, at most.
_FIRST_BLOCK: Final = 16

# Parcels that a worker keeps open: two functions mapped in turn should not be opened anew for each chunk.
_KEPT: Final = 4

# Seconds that a cluster may be without scheduler or workers before the run gives up; joblib's figure for the latter.
GONE_S: Final = 10.0

# The same for a Ray cluster without CPUs: Ray itself would wait for ever, and an autoscaler brings a node in minutes.
NO_CPU_S: Final = 300.0

# Seconds between two looks at whether the cluster is still there.
WATCH_S: Final = 0.5

# Seconds a probe waits at most: a fresh worker imports amorsize (0.2 s), an adaptive cluster starts one (seconds).
PROBE_MOST_S: Final = 15.0

# Bytes of a buffer from which it travels beside the pickle instead of in it: the engines take some 20 us for each, in
# which 64 KiB are copied several times.
APART_BYTES: Final = 64 * 1024

# Bytes of the message that measures the bandwidth: takes 10 to 40 ms at 100 to 400 MB/s, several times a round trip.
PROBE_BYTES: Final = 4 << 20

# Such messages each way.
PROBES: Final = 5


class Lost(ConnectionError):  # noqa: N818 - a signal to the run, which makes a WorkerDied of it
    """Says that the engine has given up on a task, or is gone."""


class Blob:
    """Bytes that travel without being copied into the pickle, where the engine can do that."""

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __sizeof__(self) -> int:
        return 64 + len(self.data)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Blob, (pickle.PickleBuffer(self.data) if protocol >= 5 else bytes(self.data),)


@dataclass(frozen=True, slots=True)
class Shipped:
    """
    A parcel on its way to a cluster.

    Attributes:
        digest: Identifies it.
        data: Its contents.
        is_by_value: Whether the function itself is in it.
    """

    digest: bytes
    data: Blob
    is_by_value: bool

    def __sizeof__(self) -> int:
        return 128 + len(self.data)


@dataclass(frozen=True, slots=True)
class Remote:
    """
    What travels with each chunk; the fields are those of :class:`amorsize._backend._chunks.Chunk`.

    Attributes:
        items: The pickled items.
        buffers: Their large buffers (those of arrays), which travel beside the pickle.
        host: The caller's, so that a worker elsewhere is told from one whose clock is the caller's.
    """

    items: Blob
    buffers: tuple[Blob, ...]
    start: int
    quantum_s: float
    block: int
    keep_going: bool
    timeout: float | None
    host: str


@dataclass(frozen=True, slots=True)
class Parts:
    """
    The packed results of a chunk on their way home.

    Attributes:
        data: The pickle.
        buffers: Large buffers of the results, which travel beside it.
    """

    data: Blob
    buffers: tuple[Blob, ...]

    def __sizeof__(self) -> int:
        return 128 + len(self.data) + sum(len(buffer) for buffer in self.buffers)


@dataclass(frozen=True, slots=True)
class Trouble:
    """
    What a worker answers when a chunk could not be begun.

    Attributes:
        error: The exception and its traceback, packed.
        module: The module that is missing there or has other code, empty if that is not the trouble.
        with_items: Whether it was the items that needed it, not the function.
    """

    error: _worker.Packed
    module: str = ""
    with_items: bool = False


# -- the worker's side -----------------------------------------------------------------------------------------------

_opened: collections.OrderedDict[bytes, Callable[[Any], Any]] = collections.OrderedDict()
_opening = threading.Lock()


def open_once(shipped: Shipped) -> Callable[[Any], Any]:
    """Return the function of one item; workers run several threads, and each parcel is opened by one of them."""
    with _opening:
        call = _opened.get(shipped.digest)
        if call is None:
            parcel = _ship.Parcel(shipped.digest, bytes(shipped.data.data), "", shipped.is_by_value)
            call = _opened[shipped.digest] = _ship.open_parcel(parcel)
            while len(_opened) > _KEPT:
                _opened.popitem(last=False)
        else:
            _opened.move_to_end(shipped.digest)
    return call


def run_remote(shipped: Shipped, remote: Remote) -> Done | Trouble:
    """Run one chunk. Runs in the worker; raises nothing that the way there can carry as a value."""
    try:
        call = open_once(shipped)
    except Exception as error:  # noqa: BLE001 - user code is imported and unpickled here; it travels home
        return Trouble(_worker.pack_error(error, remote.start), _module_of(error, shipped))
    try:
        items = unpickled(remote.items, remote.buffers)
    except Exception as error:  # noqa: BLE001 - as above
        module = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
        return Trouble(_worker.pack_error(error, remote.start), module, with_items=True)
    if remote.timeout is not None:
        call = _bounded(call, remote.timeout, remote.start)
    block = 1 if remote.timeout is not None else remote.block
    with _worker.nested_thread():
        begin = clock()
        results, failures = run_quantum(call, items, remote.quantum_s, block, keep_going=remote.keep_going)
        end = clock()
    here = platform.node()
    lane = f"process {os.getpid()}"
    if here != remote.host:
        begin, end, lane = 0.0, end - begin, f"{here}, {lane}"
    n_items = len(results)
    buffers: tuple[Blob, ...] = ()

    def dumps(value: Any) -> Blob:
        nonlocal buffers
        data, buffers = pickled(value)
        return data

    data = _worker.pack(results, failures, remote.start, dumps)
    return Done(Parts(data, buffers), n_items, begin, end, lane)


def pickled(value: Any) -> tuple[Blob, tuple[Blob, ...]]:
    """Pickle items or results with their large buffers apart, by value what has no name to be found by."""
    buffers: list[memoryview] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < APART_BYTES:
            return True
        buffers.append(raw)
        return False

    try:
        data = pickle.dumps(value, protocol=5, buffer_callback=is_small)
    except Exception:  # noqa: BLE001 - objects raise anything from __reduce__; the second pickler decides
        return Blob(_ship.dumps_by_value(value)), ()
    if b"__main__" in data:
        return Blob(_ship.dumps_by_value(value)), ()
    return Blob(data), tuple(Blob(buffer) for buffer in buffers)


def unpickled(items: Blob, buffers: tuple[Blob, ...]) -> Any:
    """Undo :func:`pickled`; arrays can be written to, as the caller's can."""
    return pickle.loads(items.data, buffers=writable([b.data for b in buffers], again=True))


def _module_of(error: BaseException, shipped: Shipped) -> str:
    """Return the module that must go by value after *error*, empty if that would not help."""
    cause = error.__cause__ if isinstance(error, _worker.StaleCode) else error
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        return cause.name
    if isinstance(error, _worker.StaleCode):
        return str(pickle.loads(shipped.data.data).module)
    return ""


def _bounded(call: Callable[[Any], Any], timeout: float, start: int) -> Callable[[Any], Any]:
    """
    Bound each item: with an alarm where this is the main thread, else by running it in a thread that is given up.

    A thread that is given up is asked to end; native code that does not return to the interpreter runs on.
    """
    if threading.current_thread() is threading.main_thread() and sys.platform != "win32":
        return alarmed(call, timeout, start)
    position = start

    def bounded(item: Any) -> Any:
        nonlocal position
        index, position = position, position + 1
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def work() -> None:
            try:
                with _worker.nested_thread():
                    answers.put((call(item), None))
            except BaseException as error:  # noqa: BLE001 - raised again below
                answers.put((None, error))

        thread = threading.Thread(target=work, name="amorsize-item", daemon=True)
        thread.start()
        try:
            result, error = answers.get(timeout=timeout)
        except queue.Empty:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
            message = f"item {index} took longer than timeout={timeout:g} s and was given up"
            raise ItemTimeout(message, index) from None
        if error is not None:
            raise error
        return result

    return bounded


def _empty(*_: Any) -> int:
    """Be the task that measures a round trip."""
    return 0


def _measured_bytes(blob: Blob) -> int:
    return len(blob)


def _some_bytes(n_bytes: int) -> Blob:
    return Blob(bytes(n_bytes))


def run_flat(function: Callable[..., Any], *arguments: Any) -> Any:
    """
    Run a task and answer with the buffers of its result in a plain list, before the result itself.

    Dask hands the elements of a list on as they are. As parts of an object they are put into its pickle's frames and
    copied on the way through the scheduler: 100 arrays of 1 MB took 0.41 s home instead of 0.17.
    """
    result = function(*arguments)
    if isinstance(result, Blob):
        return [result.data, _WHOLE]
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
    if result == _WHOLE:
        return Blob(data)
    result.results = Parts(Blob(data), tuple(map(Blob, buffers)))
    return result


_WHOLE: Final = "whole"


# -- the caller's side -----------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class _Job:
    """A task and who waits for it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    done: Callable[[Any, BaseException | None], None]
    resent: bool = False
    handle: Any = None


class Cluster:
    """
    A :class:`amorsize._backend._flow.Submitter` over an engine; subclasses say how a task is sent.

    Guarantees: each *done* is called once, from any thread; never more tasks at the engine than the run's ``n_jobs``
    where the cluster has more workers than that.
    """

    def __init__(self, backend: Any, n: int, name: str) -> None:
        self.backend = backend
        self.n = n
        self.name = name
        self._lock = threading.Lock()
        self._backlog: collections.deque[_Job] = collections.deque()
        self._running: set[_Job] = set()
        self.most = n
        self._lost: Lost | None = None
        self._quantum_s = 0.0
        self._value_modules: set[str] = set()
        self._stale = ""
        self._warned = b""
        self._stack = contextlib.ExitStack()

    # -- what subclasses say -----------------------------------------------------------------------------------------

    def size(self) -> int:
        """Return the tasks that the cluster runs at once."""
        raise NotImplementedError

    def send(self, job: _Job) -> None:
        """Hand a task to the engine; :meth:`answer` is called with what comes of it. Must not block for long."""
        raise NotImplementedError

    def place(self, shipped: Shipped) -> Any:
        """Return what stands for a parcel in a task's arguments."""
        return shipped

    def open(self) -> None:
        """Get ready for a run."""

    def cancel(self, jobs: list[_Job]) -> None:
        """Drop tasks that are no longer wanted."""

    # -- the run -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if reason := _unusable.get(identity(self.backend)):
            raise NoWorkersError(reason)
        self._stack.callback(self._forget_modules)
        self._stack.enter_context(self.backend.retrieval_context())
        self.open()
        # A larger cluster than asked for must not run more at once: nothing then waits at its workers.
        self.most = 2 * self.n if self.size() <= self.n else self.n
        overhead_s = _overheads.get(identity(self.backend), cost.EXTERNAL_PRIOR.batch_overhead_s)
        # Where a dispatch is dear chunks are long, and cutting one short costs a dispatch more.
        self._quantum_s = max(cost.QUANTUM_S, 1.25 * overhead_s / cost.DISPATCH_SHARE)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._backlog.clear()
            left = list(self._running)
            self._running.clear()
        try:
            if left:
                self.cancel(left)
        finally:
            self._stack.close()

    def submit(self, task: Any, done: Callable[[Any, BaseException | None], None]) -> None:
        """Run *task* on the cluster, then call *done*."""
        arguments = task if isinstance(task, tuple) else ()
        if arguments:
            # Not where the task is made: a warning that is an error must not look like an item that cannot be pickled.
            self._tell_by_value(arguments[0])
        function: Callable[..., Any] = cast("Any", run_remote if arguments else task)
        self._enter_job(_Job(function, arguments, done))

    def task(self, job: Job, work: Work) -> Any:
        """Make what :meth:`submit` takes; raises :class:`Unsendable` where the items cannot be pickled."""
        assert job.parcel is not None  # noqa: S101 - for the type checker
        return self._pack(job.parcel, work, job.keep_going, job.timeout)

    def _pack(
        self, parcel: _ship.Parcel, work: Work, keep_going: bool, timeout: float | None
    ) -> tuple[Shipped, Remote]:
        items = work.items if hasattr(work.items, "__getitem__") else list(work.items)
        pack = self._valued if self._value_modules else pickled
        blob, buffers = send_by(pack, items)
        quantum_s = max(work.quantum_s, self._quantum_s)
        # Where nothing is known of the items the first block says so, not the quantum: it doubles while they are short.
        block = min(work.block, _FIRST_BLOCK)
        remote = Remote(blob, buffers, work.start, quantum_s, block, keep_going, timeout, platform.node())
        return Shipped(parcel.digest, Blob(parcel.data), parcel.is_by_value), remote

    def call(self, function: Callable[..., Any], *arguments: Any, timeout_s: float = PROBE_MOST_S) -> Any:
        """Run a function on the cluster and wait for its result."""
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._enter_job(_Job(function, arguments, lambda result, error: answers.put((result, error))))
        try:
            result, error = answers.get(timeout=timeout_s)
        except queue.Empty:
            raise Lost(f"no answer from the {self.name} cluster within {timeout_s:g} s") from None
        if error is not None:
            raise error
        return result

    def _enter_job(self, job: _Job) -> None:
        with self._lock:
            lost = self._lost
            if lost is None:
                if len(self._running) >= self.most:
                    self._backlog.append(job)
                    return
                self._running.add(job)
        if lost is not None:
            job.done(None, lost)
        else:
            self._send(job)

    def _send(self, job: _Job) -> None:
        try:
            self.send(job)
        except Exception as error:  # noqa: BLE001 - a cluster that is gone, or an item that it cannot take
            self.answer(job, None, error)

    def answer(self, job: _Job, result: Any, error: BaseException | None) -> None:
        """Take in what became of a task; from any thread."""
        received = clock()
        if isinstance(result, Trouble):
            if self._resend(job, result):
                return
            error, result = _worker.unpack_error(result.error), None
        elif _lacks_us(error):
            error = Lost(f"amorsize cannot be imported on the workers of the {self.name} cluster: {error}")
        if isinstance(result, Done):
            if isinstance(result.results, Parts):
                parts = result.results
                result.results = memoryview(parts.data.data)
                result.buffers = tuple(buffer.data for buffer in parts.buffers)
            if result.begin_s == 0.0:  # of another machine, whose clock is not this one's
                result.begin_s, result.end_s = received - result.end_s, received
        with self._lock:
            if job not in self._running:
                return  # the run is over, or the job has been answered for
            self._running.discard(job)
            following = self._backlog.popleft() if self._backlog else None
            if following is not None:
                self._running.add(following)
        job.done(result, error)
        if following is not None:
            self._send(following)

    def _resend(self, job: _Job, trouble: Trouble) -> bool:
        """
        Have a module that the workers lack or hold in another version pickled by value from now on.

        Returns:
            Whether the task has been sent again: where its items needed the module. Where the function did, the run
            packs it anew.
        """
        if not trouble.module or not self._ship_by_value(trouble.module):
            return False
        if isinstance(trouble.error[0], _worker.StaleCode):
            self._stale = str(trouble.error[0])
        if not trouble.with_items or job.resent:
            return False
        job.resent = True
        shipped, remote = job.arguments
        items = self._by_value(unpickled(remote.items, remote.buffers))
        job.arguments = (shipped, replace(remote, items=items, buffers=()))
        self._send(job)
        return True

    def _ship_by_value(self, name: str) -> bool:
        """Make the pickler take functions and classes of a module of the user's by value; False for other modules."""
        top = name.partition(".")[0]
        module = sys.modules.get(top)
        if module is None or not _is_users(module):
            return False
        self._value_modules.add(top)
        _cloudpickle().register_pickle_by_value(module)
        return True

    def _valued(self, items: Any) -> tuple[Blob, tuple[Blob, ...]]:
        return self._by_value(items), ()

    def _by_value(self, items: Any) -> Blob:
        """Pickle items whose classes the workers lack. The list of modules is the pickler's, and others change it."""
        for top in tuple(self._value_modules):
            _cloudpickle().register_pickle_by_value(sys.modules[top])
        return Blob(_ship.dumps_by_value(items))

    def _forget_modules(self) -> None:
        for top in self._value_modules:
            with contextlib.suppress(ValueError, KeyError):
                _cloudpickle().unregister_pickle_by_value(sys.modules[top])
        self._value_modules.clear()

    def _tell_by_value(self, parcel: Shipped) -> None:
        """Warn, once per run and in the caller's thread, that a named function goes by value, and what with it."""
        if not self._stale or not parcel.is_by_value or parcel.digest == self._warned:
            return
        self._warned = parcel.digest
        warn(f"{self._stale}; it is sent by value to the {self.name} workers: {_travels(parcel)}")

    def lose(self, why: str) -> None:
        """Answer for every task: the cluster is gone."""
        with self._lock:
            self._lost = self._lost or Lost(why)
            jobs = [*self._running, *self._backlog]
            self._running.clear()
            self._backlog.clear()
        for job in jobs:
            job.done(None, self._lost)

    def renew(self) -> None:
        """Leave it to the engine, which replaces its workers by itself."""

    def fault(self) -> BaseException | None:
        """Return None: who watches over the cluster tells of it."""
        return None

    def broken(self, error: BaseException) -> str:
        """Return words where *error* means that workers or the cluster are gone."""
        return " ".join(str(error).split())[:300] if isinstance(error, Lost) else ""


def _lacks_us(error: BaseException | None) -> bool:
    """Tell whether a task failed because workers cannot import this very package."""
    if isinstance(error, ModuleNotFoundError):
        return (error.name or "").partition(".")[0] == "amorsize"
    # Ray's words; the function is always one of this module's.
    return isinstance(error, RuntimeError) and "failed to import on the worker" in str(error)


def _cloudpickle() -> Any:
    """Return the module whose pickler :mod:`amorsize._backend._ship` uses."""
    name = "cloudpickle" if importlib.util.find_spec("cloudpickle") else "joblib.externals.cloudpickle"
    return importlib.import_module(name)


def _is_users(module: Any) -> bool:
    """Tell whether a module is the user's own source, not an installed package: only such can go by value."""
    path = os.path.abspath(getattr(module, "__file__", None) or "")
    if not path.endswith((".py", ".pyc")):
        return False
    installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not any(root and path.startswith(os.path.join(root, "")) for root in installed)


def _travels(parcel: Shipped) -> str:
    """Say what a function takes along when it goes by value."""
    held: list[str] = []
    with contextlib.suppress(Exception):  # words for a warning: whatever cannot be read is left out
        contents = pickle.loads(parcel.data.data)
        found, _ = _function.bare(pickle.loads(contents.function))
        if found is not None:
            held = sorted(_function.named_values(found))
    names = f", with {', '.join(held[:8])}{' and more' if len(held) > 8 else ''}" if held else ""
    return f"{len(parcel.data):,} bytes{names}"


# -- Dask ------------------------------------------------------------------------------------------------------------


class Dask(Cluster):
    """Tasks through the client that joblib's Dask backend holds."""

    def __init__(self, backend: Any, n: int, name: str) -> None:
        super().__init__(backend, n, name)
        self.client = backend.client
        self._placed: dict[bytes, Any] = {}
        self._futures: set[Any] = set()
        self._is_over = False

    def size(self) -> int:
        """Return the threads of all workers."""
        return int(self.backend.effective_n_jobs(-1))

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

    def send(self, job: _Job) -> None:
        """Leave it to the client's loop: nothing here waits for the network."""
        if self.client.status not in {"running", "connecting"}:
            raise Lost(f"the Dask client is {self.client.status}")
        self.client.loop.add_callback(self._carry, job)

    async def _carry(self, job: _Job) -> None:
        try:
            result = await self._result(job)
        except asyncio.CancelledError:
            self.answer(job, None, Lost("the Dask client was closed"))
            raise
        except Exception as error:  # noqa: BLE001 - the run decides
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if kinds & {"KilledWorker", "CancelledError", "FutureCancelledError", "CommClosedError", "TimeoutError"}:
                error = Lost(f"{type(error).__name__}: {error}")
            self.answer(job, None, error)
        else:
            self.answer(job, result, None)

    async def _result(self, job: _Job) -> Any:
        for attempt in (1, 2):
            arguments = [await self._place(a) if isinstance(a, Shipped) else a for a in job.arguments]
            future = self.client.submit(run_flat, job.function, *arguments, pure=False, **self.backend.submit_kwargs)
            job.handle = future
            try:
                return gathered(await future)
            except Exception as error:
                # Data put on workers is lost with the last of them; tasks are not. Put it there again, once.
                if not (attempt == 1 and self._placed and "Cancelled" in type(error).__name__ and not self._is_over):
                    raise
                self._placed.clear()
            finally:
                job.handle = None
        raise AssertionError("unreachable")

    async def _place(self, shipped: Shipped) -> Any:
        """Put a large parcel on all workers, once; workers that join later fetch it from the others."""
        if len(shipped.data) <= PLACED_BYTES:
            return shipped
        task = self._placed.get(shipped.digest)
        if task is None:
            scatter = self.client.scatter(shipped, broadcast=True, hash=False, asynchronous=True)
            task = self._placed[shipped.digest] = asyncio.ensure_future(scatter)
        return await asyncio.shield(task)

    async def _watch(self) -> None:
        """Look whether there are a scheduler and workers; give up after :data:`GONE_S` without."""
        well = clock()
        words = ""
        while not self._is_over:
            if self.client.status in {"closing", "closed"}:
                self.lose(f"the Dask client was {self.client.status} in mid-run")
                return
            try:
                cores = await asyncio.wait_for(self.client.scheduler.ncores(), GONE_S / 2)
                words = "" if cores else "the Dask cluster has no workers left"
            except Exception as error:  # noqa: BLE001 - whatever the network raises, the cluster cannot be reached
                words = f"the Dask scheduler cannot be reached: {type(error).__name__}: {error}"
            if not words:
                well = clock()
            elif clock() - well > (self.backend.wait_for_workers_timeout or GONE_S):
                self.lose(words)
                return
            await asyncio.sleep(WATCH_S)

    def cancel(self, jobs: list[_Job]) -> None:
        """Take back tasks that wait; what runs ends within its quantum."""
        futures = [future for job in jobs if (future := job.handle) is not None]
        if futures and self.client.status == "running":
            self.client.loop.add_callback(self._cancel, futures)

    async def _cancel(self, futures: list[Any]) -> None:
        with contextlib.suppress(Exception):  # nobody waits for them any more
            await self.client.cancel(futures, asynchronous=True, force=True)


# -- Ray -------------------------------------------------------------------------------------------------------------

# Options of ray.remote that mean the same for a task as for the actors of joblib's Ray pool.
_RAY_OPTIONS: Final = frozenset(
    {"accelerator_type", "label_selector", "memory", "num_cpus", "num_gpus", "resources", "runtime_env",
     "scheduling_strategy"}
)  # fmt: skip


class Ray(Cluster):
    """
    Ray tasks, not joblib's actor pool, which is built anew for each call.

    Idle workers are Ray's own and are kept by it; an item is never run twice behind the caller's back
    (``max_retries=0``).
    """

    def __init__(self, backend: Any, n: int, name: str) -> None:
        super().__init__(backend, n, name)
        self.ray: Any = importlib.import_module("ray")
        self._placed: dict[bytes, Any] = {}
        self._remotes: dict[Callable[..., Any], Any] = {}
        self._over = threading.Event()
        given = getattr(backend, "ray_remote_args", None) or {}
        self._options = {"num_cpus": 1} | {k: v for k, v in given.items() if k in _RAY_OPTIONS}

    def size(self) -> int:
        """Return the CPUs of the cluster."""
        return ray_size()

    def open(self) -> None:
        """Join the cluster, as joblib's backend would, and begin to watch over it."""
        if not self.ray.is_initialized():
            self.ray.init()
        threading.Thread(target=self._watch, name="amorsize-watch", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        super().__exit__()

    def _watch(self) -> None:
        """Look whether there is a cluster with CPUs; give up after :data:`NO_CPU_S` without."""
        well = clock()
        while not self._over.wait(WATCH_S):
            if not self.ray.is_initialized():
                self.lose("Ray was shut down in mid-run")
                return
            if self._has_cpus():
                well = clock()
            elif clock() - well > NO_CPU_S:
                self.lose(f"the Ray cluster has had fewer CPUs than a task asks for, for {NO_CPU_S:g} s")
                return

    def _has_cpus(self) -> bool:
        with contextlib.suppress(Exception):  # whatever the network raises, the cluster cannot be reached
            return bool(self.ray.cluster_resources().get("CPU", 0.0) >= (self._options["num_cpus"] or 0))
        return False

    def send(self, job: _Job) -> None:
        """Start a task."""
        ray = self.ray
        if not ray.is_initialized():
            raise Lost("Ray is shut down")
        remote = self._remotes.get(job.function)
        if remote is None:
            remote = self._remotes[job.function] = ray.remote(max_retries=0, **self._options)(job.function)
        arguments = [self._place(a) if isinstance(a, Shipped) else a for a in job.arguments]
        job.handle = remote.remote(*arguments)
        job.handle.future().add_done_callback(lambda future: self._finished(job, future))

    def _place(self, shipped: Shipped) -> Any:
        """Put a large parcel into the object store, once; each node fetches it once."""
        if len(shipped.data) <= PLACED_BYTES:
            return shipped
        if shipped.digest not in self._placed:
            self._placed[shipped.digest] = self.ray.put(shipped)
        return self._placed[shipped.digest]

    def _finished(self, job: _Job, future: Any) -> None:
        job.handle = None
        if future.cancelled():
            self.answer(job, None, Lost("the Ray task was cancelled"))
            return
        error = future.exception()
        if error is None:
            self.answer(job, future.result(), None)
            return
        exceptions = self.ray.exceptions
        if isinstance(error, exceptions.RayTaskError):
            error = error.cause if isinstance(error.cause, BaseException) else error
        elif isinstance(error, exceptions.RayError):
            error = Lost(f"{type(error).__name__}: {str(error).partition('The worker was')[0]}")
        self.answer(job, None, error)

    def cancel(self, jobs: list[_Job]) -> None:
        """Take back tasks that wait, interrupt those that run."""
        for job in jobs:
            if job.handle is not None and self.ray.is_initialized():
                with contextlib.suppress(Exception):  # it may just have ended
                    self.ray.cancel(job.handle, force=False)


def ray_size() -> int:
    """Return the CPUs of the Ray cluster; before there is one, those of this machine, which it would have."""
    ray: Any = importlib.import_module("ray")
    if not ray.is_initialized():
        return os.cpu_count() or 1
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


# -- any other backend of joblib -------------------------------------------------------------------------------------


class Joblib(Cluster):
    """Tasks through the ``submit`` of a backend that joblib knows: Spark, or one the user has registered."""

    def size(self) -> int:
        """Return what the backend says."""
        return int(self.backend.effective_n_jobs(-1))

    def open(self) -> None:
        """Configure the backend as ``joblib.Parallel`` would."""
        with contextlib.suppress(TypeError):
            self.backend.configure(n_jobs=self.n, parallel=_Quiet(self.n))
        self.backend.start_call()
        self._stack.callback(self.backend.terminate)
        self._stack.callback(self.backend.stop_call)

    def send(self, job: _Job) -> None:
        """Send it as a batch of one."""
        from joblib.parallel import BatchedCalls  # noqa: PLC0415 - joblib is there: its context is active

        batch = BatchedCalls([(job.function, job.arguments, {})], (self.backend.get_nested_backend()[0], 1))

        def finished(out: Any) -> None:
            try:
                value = self._opened(out)
            except BaseException as error:  # noqa: BLE001 - the run decides
                self.answer(job, None, Lost(f"{type(error).__name__}: {error}") if _is_death(error) else error)
            else:
                self.answer(job, value[0], None)

        self.backend.submit(batch, callback=finished)

    def _opened(self, out: Any) -> Any:
        """Return what a batch returned, or raise what it raised; a backend of the older kind calls back with that."""
        if getattr(self.backend, "supports_retrieve_callback", False):
            return self.backend.retrieve_result_callback(out)
        if hasattr(out, "exc") and hasattr(out, "tb"):
            out = out.exc  # joblib's way to keep a traceback
        if isinstance(out, BaseException):
            raise out
        return out


def _is_death(error: BaseException) -> bool:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"BrokenExecutor", "TerminatedWorkerError", "CancelledError", "ConnectionError", "EOFError"})


@dataclass(eq=False, repr=False)
class _Quiet:
    """The few attributes that joblib's backends read of a ``Parallel`` object."""

    n_jobs: int
    verbose: int = 0
    timeout: float | None = None
    _id: str = "amorsize"
    _call_id: str = "amorsize"
    _backend_kwargs: dict[str, Any] = field(default_factory=dict)


# -- what a cluster costs --------------------------------------------------------------------------------------------

_probed: set[object] = set()
_overheads: dict[object, float] = {}
_unusable: dict[object, str] = {}
_sizes: weakref.WeakKeyDictionary[Any, tuple[float, int]] = weakref.WeakKeyDictionary()

# Seconds that the size of a cluster is taken to hold; asking takes 1 to 2 ms.
SIZE_S: Final = 1.0


def kind_of(backend: Any) -> type[Cluster]:
    """Return the class that carries tasks on *backend*."""
    names = {kind.__name__ for kind in type(backend).__mro__}
    if "DaskDistributedBackend" in names:
        return Dask
    return Ray if "RayBackend" in names else Joblib


def identity(backend: Any) -> object:
    """Return what tells one cluster from another, across the contexts that use it."""
    kind = kind_of(backend)
    if kind is Dask:
        return "dask", str(getattr(backend.client, "id", ""))
    if kind is Ray:
        ray = loaded("ray")
        session = ray.get_runtime_context().get_job_id() if ray is not None and ray.is_initialized() else ""
        return "ray", session
    return type(backend).__name__, id(type(backend))


def size_of(backend: Any) -> int:
    """
    Return ``effective_n_jobs(-1)``, as asked for at most :data:`SIZE_S` ago.

    Raises:
        Exception: The backend's own, where there is no cluster.
    """
    kept = _sizes.get(backend)
    now = time.monotonic()
    if kept is None or not 0 <= now - kept[0] < SIZE_S:
        n = ray_size() if kind_of(backend) is Ray else int(backend.effective_n_jobs(-1))
        kept = _sizes[backend] = (now, max(1, n))
    return kept[1]


def probe(backend: Any, name: str) -> dict[str, float]:
    """
    Measure what a cluster costs, once per cluster: takes about 0.1 s, and 0.3 s more if its workers are fresh.

    Returns:
        Fields of :class:`amorsize.Costs`; empty where it has been measured, or cannot be.
    """
    key = identity(backend)
    if key in _probed:
        return {}
    n = min(16, size_of(backend))
    try:
        with kind_of(backend)(backend, n, name) as cluster:
            key = identity(backend)
            seen = _measure(cluster, n)
    except (Lost, NoWorkersError) as error:
        _unusable[key] = str(error)
        seen = {}
    _probed.add(key)
    if seen:
        _overheads[key] = seen["batch_overhead_s"]
    return seen


def _measure(cluster: Cluster, n: int) -> dict[str, float]:
    _burst(cluster, 2 * n)  # every worker imports amorsize
    trips = sorted(_timed(cluster, _empty) for _ in range(3))
    trip_s = trips[1]
    n_tasks = 6 * n
    # All at once: what a chunk costs a worker that has the next one waiting.
    cluster.most, most = n_tasks, cluster.most
    each_s = max(50e-6, (min(_burst(cluster, n_tasks) for _ in range(2)) - trips[0]) * n / n_tasks)
    cluster.most = most
    # The first message of a size pays for buffers, on each worker; of the others one may have been disturbed. What is
    # measured here stays: a cluster taken to be slow is not tried again.
    blob = Blob(os.urandom(PROBE_BYTES))
    sent_s = min(_timed(cluster, _measured_bytes, blob) for _ in range(PROBES))
    received_s = min(_timed(cluster, _some_bytes, PROBE_BYTES) for _ in range(PROBES))
    return {
        "start_s": trip_s,
        "batch_overhead_s": each_s,
        "send_bytes_per_s": PROBE_BYTES / max(sent_s - trips[0], 0.1 * sent_s),
        "receive_bytes_per_s": PROBE_BYTES / max(received_s - trips[0], 0.1 * received_s),
    }


def _timed(cluster: Cluster, function: Callable[..., Any], *arguments: Any) -> float:
    begin = clock()
    cluster.call(function, *arguments)
    return clock() - begin


def _burst(cluster: Cluster, n_tasks: int) -> float:
    """Return the seconds of *n_tasks* empty tasks that are handed over together."""
    answers: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    begin = clock()
    for i in range(n_tasks):
        cluster._enter_job(_Job(_empty, (i,), lambda _, error: answers.put(error)))  # noqa: SLF001 - of this module
    for _ in range(n_tasks):
        try:
            error = answers.get(timeout=max(0.1, begin + PROBE_MOST_S - clock()))
        except queue.Empty:
            raise Lost(f"no answer from the {cluster.name} cluster within {PROBE_MOST_S:g} s") from None
        if error is not None:
            raise Lost(str(error)) from error
    return clock() - begin


@contextlib.contextmanager
def forgotten() -> Iterator[None]:
    """Forget for a while what has been measured; for tests."""
    kept = _probed.copy(), _overheads.copy(), _unusable.copy()
    _probed.clear()
    _overheads.clear()
    _unusable.clear()
    try:
        yield
    finally:
        _probed.update(kept[0])
        _overheads.update(kept[1])
        _unusable.update(kept[2])
