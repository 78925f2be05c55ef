"""
A joblib backend: existing ``joblib.Parallel`` calls under amorsize's decisions. Never decides: an :class:`Engine` does.

    Parallel ── submit ──► Job, waiting ──► retrieve_result: the caller computes it ──► callback: dispatch the next
                              │ the engine says parallel, or one item runs long
                              └──► loky's workers (those of joblib, with its memory maps), or threads

Results are retrieved by the calling thread (``supports_retrieve_callback = False``), which waits on the job it needs:
``joblib.Parallel`` polls every 10 ms only for backends that retrieve in callbacks.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import pickle
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from joblib._parallel_backends import (
    FallbackToBackend,
    LokyBackend,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
)
from joblib.parallel import register_parallel_backend

from amorsize import _schedule as schedule
from amorsize._backend import _worker
from amorsize._backend._threads import Threads
from amorsize._modules import loaded
from amorsize._types import Profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._types import Costs, Plan

logger = logging.getLogger("amorsize")
clock = time.perf_counter

# Seconds of one batch that the caller computes itself: as long as a chunk may be, so that joblib's 50 us per batch stay
# below one per cent, and short enough to look at the evidence a hundred times a second.
BATCH_HERE_S: Final = 0.01

# Seconds of work after which cold workers are started although nobody knows how much is left. joblib starts them at
# once; waiting for up to 0.7 of their start (0.4 s and more), with the caller computing meanwhile, is never later.
COLD_S: Final = 0.25

# Times what the running item has taken so far that it is expected to take in all. Tasks given to joblib.Parallel are
# long more often than not, and workers started in vain cost less than workers started late.
OPTIMISM: Final = 8.0

# Items that are left where nobody knows.
_UNKNOWN: Final = 1 << 40

# Times by which tasks may be shorter than those of their kind that are remembered.
_ALIKE: Final = 2.0

# Kinds of tasks of which it is remembered what they came to.
_MOST_KINDS: Final = 256

# Seconds until the running item is looked at for the first time, and between two looks at most.
FIRST_LOOK_S: Final = 0.005
LAST_LOOK_S: Final = 0.02


class Engine(Protocol):
    """What decides: the composer of host, costs and decision."""

    def costs(self, *, threads: bool, warm: bool) -> Costs:
        """Return what workers cost here."""
        ...

    def decide(self, profile: Profile, n_items: int | None, n_jobs: int, costs: Costs, *, threads: bool) -> Plan:
        """Return the plan for what is left, with at most *n_jobs* that cost what is given."""
        ...


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class _Seen:
    """What the latest call over tasks of one kind came to: seconds per task, how many, and what they weigh."""

    item_s: float
    n_items: int
    weights: _Weights | None


class _Weights(NamedTuple):
    """
    What tasks weigh on their way to workers.

    Attributes:
        arg_bytes: Pickled bytes of one task's arguments beyond those of the batch.
        result_bytes: Those of its result.
        pickle_s: Seconds to pickle both and unpickle them again.
        batch_bytes: Pickled bytes of what all tasks of a batch share: scikit-learn gives all of them the same data.
        batch_s: Seconds to pickle that and unpickle it.
    """

    arg_bytes: int = 0
    result_bytes: int = 0
    pickle_s: float = 0.0
    batch_bytes: int = 0
    batch_s: float = 0.0


_seen: dict[str, _Seen] = {}


class _Job:
    """One batch: waiting, being computed by the caller, sent, or done."""

    __slots__ = ("batch", "callback", "error", "is_done", "is_sent", "is_taken", "result")

    def __init__(self, batch: Any, callback: Callable[[Any], None]) -> None:
        self.batch = batch
        self.callback = callback
        self.is_taken = self.is_sent = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_done = threading.Event()


class _Run:
    """One call of ``Parallel``: what waits, what was sent, and what has been seen."""

    def __init__(self, backend: AmorsizeBackend) -> None:
        self.backend = backend
        self.parallel = backend.parallel
        self.lock = threading.Lock()
        self.waiting: deque[_Job] = deque()
        self.n_sent = 0
        self.mode = "here"  # then "starting", then "workers"
        self.is_over = False
        self.ended = threading.Event()
        self.is_watched = False
        self.began_item: float | None = None
        self.n_here = 0
        self.spent_s = 0.0
        self.cpu_s = 0.0
        self.first_s = 0.0
        self.next_look_s = 0.0
        self.block = 1
        self.weights: _Weights | None = None
        self.first: tuple[Any, Any, Any] | None = None
        self.chunker: schedule.Chunker | None = None
        self.n_home = 0
        self.sent_since = 0.0
        self.kind = ""
        self.n_given = 0
        self.n_expected = 0

    # -- the caller's thread -----------------------------------------------------------------------------------------

    def submit(self, batch: Any, callback: Callable[[Any], None]) -> _Job:
        """Queue a batch; also called from the threads that bring results home."""
        job = _Job(batch, callback)
        if not self.kind:
            self.recall(kind_of(batch.items[0]))
        self.n_given += len(batch)
        with self.lock:
            at_once = self.mode == "workers"
            if not at_once:
                self.waiting.append(job)
        if at_once:
            self.send(job)
        return job

    def result(self, job: _Job, timeout: float | None) -> Any:
        """Return a batch's results: computed here where nobody has it yet."""
        with self.lock:
            here = not job.is_sent
            if here:
                self.waiting.remove(job)
                job.is_taken = True
        if here:
            return self.compute(job)
        if not job.is_done.wait(timeout):
            raise multiprocessing.TimeoutError
        if job.error is not None:
            raise job.error
        return job.result

    def compute(self, job: _Job) -> Any:
        """Do a batch here, let joblib dispatch the next, and look at the evidence."""
        if not self.is_watched:
            self.is_watched = True
            threading.Thread(target=self.watch, name="amorsize-joblib", daemon=True).start()
        cpu, begin = time.process_time(), clock()
        self.began_item = begin
        try:
            results = job.batch()
        finally:
            self.began_item = None
        end = clock()
        self.observe(job, results, end - begin, time.process_time() - cpu)
        job.callback(None)
        if self.mode == "here" and self.spent_s >= self.next_look_s:
            self.look()
        return results

    def observe(self, job: _Job, results: list[Any], took_s: float, cpu_s: float) -> None:
        """Take in what a batch took."""
        n_items = len(job.batch)
        if self.n_here == 0:
            self.first_s = took_s / n_items
        self.n_here += n_items
        self.spent_s += took_s
        self.cpu_s += cpu_s
        self.block = schedule.next_block(n_items, took_s, BATCH_HERE_S)
        if self.first is not None and self.weights is not None:
            self.weights = shared(self.weights, self.first, job.batch.items[0], self.backend.max_nbytes)
            self.first = None
        elif self.weights is None and took_s / n_items >= 1e-4:  # lighter items are weighed when it matters
            first = self.first = job.batch.items[0]
            self.weights = weigh(first, results[0], self.backend.max_nbytes)

    # -- evidence ----------------------------------------------------------------------------------------------------

    def recall(self, kind: str) -> None:
        """Begin as the latest call over such tasks would have begun, had it known what it came to."""
        self.kind = kind
        seen = _seen.get(kind)
        if seen is not None and self.mode == "here":
            self.weights, self.n_expected = seen.weights, seen.n_items
            self.ask(seen.item_s, seen.n_items, warm=self.backend.is_warm())
            if self.mode == "here":
                self.weights = None  # what spoke against workers is weighed again

    def remember(self) -> None:
        """Note what this call came to, for the next one over such tasks."""
        n_items = self.n_here + self.n_home
        before = _seen.get(self.kind)
        if self.n_here:
            if len(_seen) >= _MOST_KINDS:
                _seen.clear()
            _seen[self.kind] = _Seen(self.item_s(), n_items, self.weights)
        elif before is not None and self.chunker is not None and n_items:
            # The pace of workers holds what moving takes, too, and is not remembered. Where it contradicts what is,
            # the next call begins here, and will see.
            is_shorter = self.chunker.item_s < before.item_s / _ALIKE
            is_slower = clock() - self.sent_since > before.item_s * n_items
            if is_shorter or is_slower:
                del _seen[self.kind]
            else:
                _seen[self.kind] = replace(before, n_items=n_items)

    def n_left(self) -> int | None:
        """Return the items that nobody has begun, None where joblib does not know how many there are."""
        parallel = self.parallel
        if parallel._original_iterator is None:  # noqa: SLF001 - no public way to ask
            return sum(len(job.batch) for job in self.waiting)
        return None if parallel.n_tasks is None else max(0, parallel.n_tasks - self.n_here)

    def item_s(self) -> float:
        """Return seconds per item as seen here; the first is left out once there are others."""
        if self.n_here > 1 and self.first_s < self.spent_s:
            return (self.spent_s - self.first_s) / (self.n_here - 1)
        return self.spent_s / max(1, self.n_here)

    def look(self) -> None:
        """Ask whether the work seen so far speaks for workers."""
        self.next_look_s = 1.25 * self.spent_s
        backend = self.backend
        warm = backend.is_warm()
        costs = backend.engine.costs(threads=backend.wants_threads, warm=warm)
        start_s = costs.start_s + costs.start_each_s + 2 * self.with_batch(costs).batch_overhead_s
        n_left, item_s = self.n_left(), self.item_s()
        if n_left is None:
            start_s = min(start_s, COLD_S * 0.5 * costs.efficiency)
        if schedule.should_promote(item_s, n_left, self.spent_s, start_s, 0.5 * costs.efficiency):
            self.ask(item_s, n_left, warm=warm)

    def look_inside(self, elapsed_s: float) -> None:
        """Ask while the caller is inside an item that has taken *elapsed_s* so far, with others waiting behind it."""
        with self.lock:
            if not self.waiting or self.mode != "here":
                return
            n_left = self.n_left()
        warm = self.backend.is_warm()
        item_s = max(self.item_s(), OPTIMISM * elapsed_s)
        self.ask(item_s, None if n_left is None else n_left + 1, warm=warm)

    def ask(self, item_s: float, n_left: int | None, *, warm: bool) -> None:
        """Let the engine decide; start workers if that is the answer."""
        backend = self.backend
        weights = self.weights or _Weights()
        fraction = self.cpu_s / self.spent_s if self.spent_s > 1e-3 else 1.0
        profile = Profile(
            n_sampled=max(1, self.n_here),
            item_s=item_s,
            first_s=self.first_s,
            cpu_fraction=max(0.0, fraction),
            arg_bytes=weights.arg_bytes,
            result_bytes=weights.result_bytes,
            pickle_s=weights.pickle_s,
            n_head=self.n_here,
            head_s=self.spent_s,
        )
        n_items = None if n_left is None else self.n_here + n_left
        threads = backend.wants_threads
        costs = self.with_batch(backend.engine.costs(threads=threads, warm=warm))
        plan = backend.engine.decide(profile, n_items, backend.n_most, costs, threads=threads)
        logger.debug("joblib.Parallel: %s", plan.reason, extra={"plan": plan})
        if not plan.is_parallel:
            return
        with self.lock:
            if self.mode != "here" or self.is_over:
                return
            self.mode = "starting"
        self.chunker = schedule.Chunker(plan.n_jobs, item_s, costs.batch_overhead_s)
        backend.open(plan.n_jobs)
        if warm or threads:
            self.hand_over()
        else:
            backend.hello(self.hand_over)

    def with_batch(self, costs: Costs) -> Costs:
        """Add to what a dispatch costs what the tasks of a batch share."""
        weights = self.weights
        if weights is None or self.backend.wants_threads:
            return costs
        shared_s = weights.batch_s + weights.batch_bytes / costs.send_bytes_per_s
        return replace(costs, batch_overhead_s=costs.batch_overhead_s + shared_s)

    def watch(self) -> None:
        """Look after an item that runs long; in a thread of its own, which ends with the run or with its start."""
        wait_s = FIRST_LOOK_S
        while not self.ended.wait(wait_s) and self.mode == "here":
            began = self.began_item
            elapsed_s = 0.0 if began is None else clock() - began
            if elapsed_s >= FIRST_LOOK_S:
                self.look_inside(elapsed_s)
            wait_s = min(LAST_LOOK_S, 2 * wait_s)

    # -- workers -----------------------------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """Give everything that waits to the workers, now that they are there."""
        with self.lock:
            if self.is_over:
                return
            self.mode = "workers"
            jobs = list(self.waiting)
            self.waiting.clear()
            for job in jobs:
                job.is_sent = True
            self.sent_since = clock()
        for job in jobs:
            self.send(job)

    def send(self, job: _Job) -> None:
        """Give a batch to the workers."""
        job.is_sent = True
        self.n_sent += 1
        try:
            self.backend.send(job.batch, lambda result, error: self.finished(job, result, error))
        except Exception as error:  # noqa: BLE001 - a pool that broke: raised where the result is asked for
            self.finished(job, None, error)

    def finished(self, job: _Job, result: Any, error: BaseException | None) -> None:
        """Take in a batch's end, in whatever thread: the next is dispatched before anybody hears of this one."""
        with self.lock:
            self.n_sent -= 1
            if self.is_over:
                return
            self.n_home += len(job.batch)
            chunker, n_home = self.chunker, self.n_home
        job.result, job.error = result, error
        try:
            if error is None:
                if chunker is not None and n_home >= chunker.n_workers:
                    # Workers' seconds per item, from the pace at which results come home.
                    chunker.item_s = (clock() - self.sent_since) * chunker.n_workers / n_home
                job.callback(None)
        except BaseException as problem:  # noqa: BLE001 - raised where the result is asked for
            job.error = problem
        finally:
            job.is_done.set()

    def batch_size(self) -> int:
        """Return the items of the next batch."""
        if self.mode == "here" or self.chunker is None:
            return self.block
        n_left = self.n_left()
        if n_left is None:
            n_left = self.n_expected - self.n_given if self.n_expected > self.n_given else _UNKNOWN
        return self.chunker.size(max(1, n_left))

    def close(self) -> bool:
        """End the run; returns whether workers are still at it."""
        with self.lock:
            self.is_over = True
            self.waiting.clear()
            self.first = None
            busy = self.n_sent > 0
        if not busy:
            self.remember()
        self.ended.set()
        return busy


def kind_of(task: tuple[Any, Any, Any]) -> str:
    """Name the kind of a task: its function, and the types of its arguments."""
    func, args, _ = task
    func = getattr(func, "function", func)  # scikit-learn wraps what it gives to joblib
    name = getattr(func, "__qualname__", type(func).__qualname__)
    return ", ".join((f"{getattr(func, '__module__', '')}.{name}", *(type(arg).__qualname__ for arg in args)))


def weigh(task: tuple[Any, Any, Any], result: Any, max_nbytes: int | None) -> _Weights:
    """Weigh a task and its result as joblib sends them."""
    arg_bytes, arg_s = _weigh(task[1:], max_nbytes)
    result_bytes, result_s = _weigh(result, max_nbytes)
    return _Weights(arg_bytes, result_bytes, 2 * (arg_s + result_s))


def shared(
    weights: _Weights, task: tuple[Any, Any, Any], other: tuple[Any, Any, Any], max_nbytes: int | None
) -> _Weights:
    """Tell what each task has for itself from what it shares with another one: the same objects as arguments."""
    _, args, keywords = task
    own = [arg for arg, its in zip(args, other[1], strict=False) if arg is not its]
    own += [arg for name, arg in keywords.items() if arg is not other[2].get(name)]
    if len(own) == len(args) + len(keywords):
        return weights
    own_bytes, own_s = _weigh(own, max_nbytes)
    batch_bytes = max(0, weights.arg_bytes - own_bytes)
    # In proportion: what is pickled together with all its parts, and what is alone, do not add up.
    batch_s = max(0.0, weights.pickle_s - 2 * own_s) * batch_bytes / max(1, weights.arg_bytes + weights.result_bytes)
    return _Weights(
        weights.arg_bytes - batch_bytes, weights.result_bytes, weights.pickle_s - batch_s, batch_bytes, batch_s
    )


def _weigh(value: Any, max_nbytes: int | None) -> tuple[int, float]:
    """Return the bytes of a value pickled, and the seconds that took."""
    begin = clock()
    file = _Counter()
    with contextlib.suppress(Exception):  # joblib pickles by value what plain pickle cannot: small, as a rule
        _Scales(file, max_nbytes).dump(value)
    return file.n_bytes, clock() - begin


class _Counter:
    """A file that only counts."""

    def __init__(self) -> None:
        self.n_bytes = 0

    def write(self, data: Any) -> int:
        n_bytes = memoryview(data).nbytes
        self.n_bytes += n_bytes
        return n_bytes


class _Scales(pickle.Pickler):
    """Weighs as joblib sends: large arrays lie in memory maps and do not travel."""

    def __init__(self, file: _Counter, max_nbytes: int | None) -> None:
        super().__init__(file, protocol=5)
        self._max_nbytes = max_nbytes

    def reducer_override(self, obj: Any) -> Any:
        n_bytes = getattr(obj, "nbytes", None) if type(obj).__module__ == "numpy" else None
        if self._max_nbytes is not None and isinstance(n_bytes, int) and n_bytes > self._max_nbytes:
            return int, ()
        return NotImplemented


class AmorsizeBackend(ParallelBackendBase):
    """The backend that ``joblib.parallel_config("amorsize")`` names."""

    engine: Engine
    default_n_jobs = -1
    supports_inner_max_num_threads = True
    supports_sharedmem = True
    supports_timeout = True
    supports_return_generator = True
    supports_retrieve_callback = False

    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **kw: Any) -> None:
        kw |= {"nesting_level": nesting_level, "inner_max_num_threads": inner_max_num_threads}
        super().__init__(**kw)  # type: ignore[no-untyped-call]  # joblib has no annotations
        self.wants_threads = False
        self.n_most = 1
        self.max_nbytes: int | None = None
        self._options: dict[str, Any] = {}
        self._loky: Any = None
        self._threads: Threads | None = None
        self._run: _Run | None = None

    def _new_loky(self) -> Any:
        return LokyBackend(
            nesting_level=self.nesting_level, inner_max_num_threads=self.inner_max_num_threads, **self.backend_kwargs
        )

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return what joblib's own backend would: callers cut their work by it. How many run at once is decided."""
        return 1 if _worker.in_worker() else int(self._new_loky().effective_n_jobs(n_jobs))

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: str | None = None, require: str | None = None, **kw: Any
    ) -> int:
        """Get ready for calls; no worker is started."""
        n_most = self.effective_n_jobs(n_jobs)
        if n_most == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.wants_threads = prefer == "threads" or require == "sharedmem"
        if not parallel.return_ordered:
            # Results as they complete need joblib's retrieval in callbacks, which leaves the caller no part.
            raise FallbackToBackend(
                ThreadingBackend(nesting_level=self.nesting_level) if self.wants_threads else self._new_loky()
            )
        self.parallel, self.n_most, self._options = parallel, n_most, kw
        self.max_nbytes = kw.get("max_nbytes")
        return n_most

    def start_call(self) -> None:
        """Begin one call of ``Parallel``."""
        run = self._run = _Run(self)
        self.parallel._reducer_callback = self._name_folder  # noqa: SLF001 - as joblib does for its own backend
        if self.parallel.timeout is not None:
            # An item that the caller computes cannot be given up.
            run.mode = "starting"
            self.open(self.n_most)
            run.hand_over()

    def _name_folder(self) -> None:
        """Have memory maps written to the folder of this ``Parallel``; called when a batch is pickled."""
        workers = getattr(self._loky, "_workers", None)
        if workers is not None:
            workers._temp_folder_manager.set_current_context(self.parallel._id)  # noqa: SLF001 - as joblib does

    def stop_call(self) -> None:
        """End one call of ``Parallel``."""
        if self._run is not None:
            self._run.close()
            self._run = None

    def terminate(self) -> None:
        """Give back what the calls held; idle workers stay, as with joblib's own backend."""
        self.stop_call()
        if self._loky is not None:
            self._loky.terminate()
            self._loky = None
        if self._threads is not None:
            self._threads.close(0.0)
            self._threads = None

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop what runs: workers that are at something nobody wants are ended, as with joblib's own backend."""
        busy = self._run.close() if self._run is not None else False
        if self._loky is not None and busy:
            self._loky.abort_everything(ensure_ready=False)
            self._loky = None
        if self._threads is not None:
            self._threads.close(0.0)
            self._threads = None
        if ensure_ready:
            self.n_most = self.effective_n_jobs(self.parallel.n_jobs)

    def get_nested_backend(self) -> tuple[Any, None]:
        """Nested calls run one after the other: the outer one has the cores."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def compute_batch_size(self) -> int:
        """Return the items of the next batch."""
        return self._run.batch_size() if self._run is not None else 1

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Any:
        """Queue a batch."""
        assert self._run is not None  # noqa: S101 - for the type checker
        return self._run.submit(func, callback or (lambda _: None))

    def retrieve_result(self, out: Any, timeout: float | None = None) -> Any:
        """Return a batch's results, computing them here if nobody has them yet."""
        assert self._run is not None  # noqa: S101 - for the type checker
        return self._run.result(out, timeout)

    # -- workers -----------------------------------------------------------------------------------------------------

    def is_warm(self) -> bool:
        """Tell whether workers are running."""
        if self.wants_threads:
            return self._threads is not None
        executor = getattr(loaded("joblib.externals.loky.reusable_executor"), "_executor", None)
        if executor is None:
            return False
        flags = executor._flags  # noqa: SLF001 - no public way to ask
        return flags.broken is None and not flags.shutdown and len(executor._processes) > 1  # noqa: SLF001 - as above

    def open(self, n_jobs: int) -> None:
        """Have workers, or have them starting."""
        if self.wants_threads:
            if self._threads is None:
                self._threads = Threads(n_jobs)
        elif self._loky is None:
            loky = self._new_loky()
            loky.configure(n_jobs=max(2, n_jobs), parallel=self.parallel, **self._options)
            self._loky = loky

    def hello(self, answered: Callable[[], None]) -> None:
        """Call *answered* once a worker is up."""
        # Of the standard library: a worker need not import amorsize for it.
        self._loky.submit(time.monotonic, callback=lambda _: answered())

    def send(self, batch: Any, done: Callable[[Any, BaseException | None], None]) -> None:
        """Run a batch in a worker or on a thread."""
        if self._threads is not None:
            self._threads.submit(batch, done)
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


def register(engine: Engine) -> None:
    """Make ``joblib.parallel_config("amorsize")`` known."""
    AmorsizeBackend.engine = engine
    register_parallel_backend("amorsize", AmorsizeBackend)


__all__ = ["AmorsizeBackend", "Engine", "register"]
