"""
A joblib backend: existing ``joblib.Parallel`` calls under amorsize's decisions. Never decides: an :class:`Engine` does.

    Parallel ── submit ──► Job, waiting ──► retrieve_result: the caller computes it ──► callback: dispatch the next
                              │ the engine says parallel, or one item runs long
                              └──► workers of the fork server; those of joblib, where its memory maps are wanted or
                                   there is no server; or threads

Results are retrieved by the calling thread (``supports_retrieve_callback = False``), which waits on the job it needs:
``joblib.Parallel`` polls every 10 ms only for backends that retrieve in callbacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from joblib._parallel_backends import (
    FallbackToBackend,
    LokyBackend,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
)
from joblib.parallel import register_parallel_backend

from amorsize._backend import _worker
from amorsize._backend._joblib_run import Run
from amorsize._backend._joblib_workers import Engine, Workers

if TYPE_CHECKING:
    from collections.abc import Callable


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
        self.n_most = 1
        self._max_nbytes: int | None = None
        self._workers: Workers | None = None
        self._run: Run | None = None

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
        wants_threads = prefer == "threads" or require == "sharedmem"
        if not parallel.return_ordered:
            # Results as they complete need joblib's retrieval in callbacks, which leaves the caller no part.
            raise FallbackToBackend(
                ThreadingBackend(nesting_level=self.nesting_level) if wants_threads else self._new_loky()
            )
        self.parallel, self.n_most, self._max_nbytes = parallel, n_most, kw.get("max_nbytes")
        self._workers = Workers(
            self.engine,
            parallel,
            self._new_loky,
            options=kw,
            inner_threads=self.inner_max_num_threads,
            wants_threads=wants_threads,
            wants_loky=bool(self.backend_kwargs),
        )
        return n_most

    def start_call(self) -> None:
        """Begin one call of ``Parallel``."""
        workers = self._workers
        assert workers is not None  # noqa: S101 - for the type checker
        run = self._run = Run(workers, self.parallel, self.n_most, self._max_nbytes)
        self.parallel._reducer_callback = workers.name_folder  # noqa: SLF001 - as joblib does for its own backend
        if self.parallel.timeout is not None:
            # An item that the caller computes cannot be given up.
            run.mode = "starting"
            workers.open(self.n_most, workers.way(None))
            run.hand_over()

    def stop_call(self) -> None:
        """End one call of ``Parallel``."""
        if self._run is not None:
            self._run.close()
            self._run = None

    def terminate(self) -> None:
        """Give back what the calls held; idle workers stay, as with joblib's own backend."""
        self.stop_call()
        if self._workers is not None:
            self._workers.close()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop what runs: workers that are at something nobody wants are ended, as with joblib's own backend."""
        busy = self._run.close() if self._run is not None else False
        if self._workers is not None:
            self._workers.abort(busy=busy)
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


def register(engine: Engine) -> None:
    """Make ``joblib.parallel_config("amorsize")`` known."""
    AmorsizeBackend.engine = engine
    register_parallel_backend("amorsize", AmorsizeBackend)


__all__ = ["AmorsizeBackend", "Engine", "register"]
