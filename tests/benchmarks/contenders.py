"""
Ways to map a function over items, each as a user would write it by hand.

A contender is a context manager: entering it builds the pool (part of the first call's time),
leaving it ends the workers. What it needs is imported only when it is used.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

# ruff: noqa: PLC0415  a contender's libraries must not burden the others

Func = Callable[..., object]


def n_cpus() -> int:
    """Count the CPUs that this process may use, `LOKY_MAX_CPU_COUNT` included."""
    usable = getattr(os, "sched_getaffinity", None)
    n_usable = len(usable(0)) if usable else os.cpu_count() or 1
    return min(n_usable, int(os.environ.get("LOKY_MAX_CPU_COUNT", n_usable)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapper:
    """
    A contender at work on one function.

    Attributes:
        call: Maps the function over items.
        stream: Yields results one by one, where the contender can.
        plan: What amorsize says about its latest call; None for all others.
    """

    call: Callable[[Iterable[object]], Sequence[object]]
    stream: Callable[[Iterable[object]], Iterator[object]] | None = None
    plan: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """
    An entry of the benchmark.

    Attributes:
        title: Name in tables.
        open: Takes the function (and options), gives a `Mapper` in a context.
        modules: What the entry imports; done before its first timed call.
        threads: Runs the function in threads, and is compared on such workloads only.
        ours: An amorsize entry, measured against the peers instead of being one.
        in_suite: Whether the suite enters it unless told otherwise.
    """

    title: str
    open: Callable[..., AbstractContextManager[Mapper]]
    modules: tuple[str, ...] = ()
    threads: bool = False
    ours: bool = False
    in_suite: bool = True

    def imports(self) -> None:
        """Import what the entry needs."""
        for module in self.modules:
            importlib.import_module(module)


@contextmanager
def loop(func: Func) -> Iterator[Mapper]:
    """Do it without any help."""
    yield Mapper(call=lambda items: [func(item) for item in items], stream=lambda items: map(func, items))


@contextmanager
def joblib_parallel(
    func: Func,
    *,
    n_jobs: int = -1,
    backend: str | None = None,
    batches_per_worker: int | None = None,
) -> Iterator[Mapper]:
    """Use `joblib.Parallel`, with its own batches or a given number of them per worker."""
    from joblib import Parallel, delayed

    def default(items: Iterable[object]) -> list[object]:
        parallel = Parallel(n_jobs=n_jobs, backend=backend)
        return list(parallel(delayed(func)(item) for item in items))

    def tuned(items: Iterable[object]) -> list[object]:
        known = items if isinstance(items, Sequence) else list(items)
        size = chunk_size(len(known), batches_per_worker or 1)
        parallel = Parallel(n_jobs=n_jobs, batch_size=size, pre_dispatch="all")
        return list(parallel(delayed(func)(item) for item in known))

    yield Mapper(call=tuned if batches_per_worker else default)


def chunk_size(n_items: int, per_worker: int) -> int:
    """Divide items into *per_worker* chunks for each CPU; at least one item each."""
    return max(1, math.ceil(n_items / (n_cpus() * per_worker)))


@contextmanager
def process_pool(func: Func, *, n_jobs: int | None = None, method: str | None = None) -> Iterator[Mapper]:
    """Use `multiprocessing.Pool.map` with its own chunks, the pool kept open between calls."""
    from multiprocessing import get_context

    with get_context(method).Pool(n_jobs or n_cpus()) as pool:
        yield Mapper(call=lambda items: pool.map(func, items))


@contextmanager
def process_executor(func: Func, *, n_jobs: int | None = None, chunks_per_worker: int | None = 4) -> Iterator[Mapper]:
    """Use `ProcessPoolExecutor.map` with given chunks (None: one item each), kept open."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(n_jobs or n_cpus()) as executor:

        def call(items: Iterable[object]) -> list[object]:
            known = items if isinstance(items, Sequence) else list(items)
            size = chunk_size(len(known), chunks_per_worker) if chunks_per_worker else 1
            return list(executor.map(func, known, chunksize=size))

        yield Mapper(call=call)


@contextmanager
def thread_executor(func: Func, *, n_jobs: int | None = None) -> Iterator[Mapper]:
    """Use `ThreadPoolExecutor.map`, the threads kept between calls."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(n_jobs) as executor:
        yield Mapper(call=lambda items: list(executor.map(func, items)))


@contextmanager
def mpire_pool(func: Func, *, n_jobs: int | None = None) -> Iterator[Mapper]:
    """Use `mpire.WorkerPool.map` with its own chunks, the workers kept alive."""
    from mpire import WorkerPool

    with WorkerPool(n_jobs or n_cpus(), keep_alive=True) as pool:

        def call(items: Iterable[object]) -> list[object]:
            known = items if isinstance(items, Sequence) else list(items)
            # mpire unpacks items that are iterable themselves, and joins arrays unless told not to.
            packed = ((item,) for item in known)
            return list(pool.map(func, packed, iterable_len=len(known), concatenate_numpy_output=False))

        yield Mapper(call=call)


@contextmanager
def amorsize_map(func: Func, **options: object) -> Iterator[Mapper]:
    """Decorate the function and let amorsize decide whatever *options* leave open."""
    import amorsize

    decorated = amorsize.parallel(func, **options)
    try:
        yield Mapper(
            call=decorated.map,
            stream=lambda items: iter(decorated.imap(items)),
            plan=lambda: decorated.last_plan,
        )
    finally:
        amorsize.shutdown()


def _joblib(title: str, **options: object) -> Contender:
    """Enter joblib with some options."""
    return Contender(
        title=title,
        open=functools.partial(joblib_parallel, **options),
        modules=("joblib",),
        threads=options.get("backend") == "threading",
    )


def _threads(title: str, n_jobs: int | None) -> Contender:
    """Enter the standard library's thread pool."""
    return Contender(
        title=title,
        open=functools.partial(thread_executor, n_jobs=n_jobs),
        modules=("concurrent.futures.thread",),
        threads=True,
    )


def _amorsize(title: str, *, threads: bool = False) -> Contender:
    """
    Enter amorsize, with `prefer="threads"` or left to itself.

    Imported is what its user imports; what it loads in the first call, joblib for loky's workers, is its own affair.
    joblib loads NumPy, whose BLAS threads keep both cores busy for the next 20 to 30 ms.
    """
    options = {"prefer": "threads"} if threads else {}
    return Contender(
        title=title,
        open=functools.partial(amorsize_map, **options),
        modules=("amorsize",),
        threads=threads,
        ours=True,
    )


CONTENDERS: dict[str, Contender] = {
    "loop": Contender(title="loop", open=loop),
    "joblib": _joblib("joblib"),
    "joblib-1": _joblib("joblib, 1 batch per worker", batches_per_worker=1),
    "joblib-4": _joblib("joblib, 4 batches per worker", batches_per_worker=4),
    "joblib-16": _joblib("joblib, 16 batches per worker", batches_per_worker=16),
    "joblib-threads": _joblib("joblib threads", backend="threading"),
    "joblib-threads-32": _joblib("joblib, 32 threads", backend="threading", n_jobs=32),
    "pool": Contender(title="multiprocessing.Pool", open=process_pool, modules=("multiprocessing.pool",)),
    "pool-forkserver": Contender(
        title="multiprocessing.Pool, fork server",
        open=functools.partial(process_pool, method="forkserver"),
        modules=("multiprocessing.pool",),
        in_suite=False,
    ),
    "executor": Contender(title="ProcessPoolExecutor", open=process_executor, modules=("concurrent.futures.process",)),
    "executor-1": Contender(
        title="ProcessPoolExecutor, item by item",
        open=functools.partial(process_executor, chunks_per_worker=None),
        modules=("concurrent.futures.process",),
        in_suite=False,
    ),
    "threads": _threads("ThreadPoolExecutor", None),
    "threads-32": _threads("ThreadPoolExecutor(32)", 32),
    "mpire": Contender(title="mpire", open=mpire_pool, modules=("mpire",)),
    "amorsize": _amorsize("amorsize"),
    # The same again: whatever tells the two apart is noise.
    "amorsize-twin": _amorsize("amorsize (twin)"),
    "amorsize-threads": _amorsize('amorsize, prefer="threads"', threads=True),
}
