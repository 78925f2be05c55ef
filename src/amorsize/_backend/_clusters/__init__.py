"""
Carries chunks on clusters: Dask's client and Ray's tasks directly, any other backend of joblib through its ``submit``.

    caller                                     worker of the cluster
    task ───► Cluster.submit ─┬─ Dask: client.submit ──► run_remote(shipped, remote)
              (base)          ├─ Ray: a remote task        opens the parcel once per process, runs the items,
                              └─ joblib: backend.submit    returns errors as values (task)
    done(Done | error) ◄───────────────────────────────────┘

A small parcel travels with each chunk, a large one once per worker. The engine's own recovery is used where it has one;
what it gives up on becomes :class:`~amorsize._backend._clusters.base.Lost`, and so does everything in flight once the
cluster itself is gone.
"""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from amorsize import _bounds as bounds
from amorsize._backend._clusters.base import Cluster, Lost, Task
from amorsize._backend._clusters.dask import Dask
from amorsize._backend._clusters.ray import Ray
from amorsize._backend._clusters.task import Blob, n_bytes_of, some_bytes
from amorsize._backend._worker import NoWorkersError
from amorsize._modules import loaded

if TYPE_CHECKING:
    from collections.abc import Callable

clock = time.perf_counter

# What carries tasks on a backend of joblib, by the name of its class or of one above it.
_KINDS: Final[dict[str, type[Cluster]]] = {"DaskDistributedBackend": Dask, "RayBackend": Ray}

# The clusters that have been measured; with the reason where that failed, which makes one unusable.
_probed: dict[object, str] = {}
_sizes: weakref.WeakKeyDictionary[Any, tuple[float, int]] = weakref.WeakKeyDictionary()


def _kind(backend: Any) -> type[Cluster]:
    return next((_KINDS[kind.__name__] for kind in type(backend).__mro__ if kind.__name__ in _KINDS), Registered)


def carrier(backend: Any, n: int, name: str) -> Cluster:
    """
    Return what carries tasks on the cluster of *backend*, *n* at once; to be entered.

    Raises NoWorkersError if the cluster has not answered before.
    """
    if reason := _probed.get(identity(backend)):
        raise NoWorkersError(reason)
    return _kind(backend)(backend, n, name)


def identity(backend: Any) -> object:
    """Return what tells one cluster from another, across the contexts that use it."""
    kind = _kind(backend)
    if kind is Dask:
        return "dask", str(getattr(backend.client, "id", ""))
    if kind is Ray:
        ray = loaded("ray")
        session = ray.get_runtime_context().get_job_id() if ray is not None and ray.is_initialized() else ""
        return "ray", session
    return type(backend).__name__, id(type(backend))


def size_of(backend: Any) -> int:
    """Return ``effective_n_jobs(-1)``, as of :data:`amorsize._bounds.SIZE_S` ago at most, or raise what it does."""
    kept = _sizes.get(backend)
    now = monotonic()
    if kept is None or not 0 <= now - kept[0] < bounds.SIZE_S:
        kept = _sizes[backend] = (now, max(1, _kind(backend).size_of(backend)))
    return kept[1]


def probe(backend: Any, name: str) -> dict[str, float]:
    """
    Measure a cluster, once: takes about 0.1 s, and 0.3 s more if its workers are fresh.

    Returns fields of :class:`amorsize.Costs`; none where it has been measured, or cannot be.
    """
    key = identity(backend)
    if key in _probed:
        return {}
    seen: dict[str, float] = {}
    problem = ""
    n = min(16, size_of(backend))
    try:
        with carrier(backend, n, name) as cluster:
            key = identity(backend)  # Ray has one once it has been joined
            seen = _measure(cluster, n)
    except (Lost, NoWorkersError) as error:
        problem = str(error)
    _probed[key] = problem
    return seen


def _measure(cluster: Cluster, n: int) -> dict[str, float]:
    def timed(function: Callable[..., Any], *arguments: Any, n_tasks: int = 1) -> float:
        begin = clock()
        cluster.call(n_tasks, function, *arguments, timeout_s=bounds.PROBE_MOST_S)
        return clock() - begin

    timed(some_bytes, 0, n_tasks=2 * n)  # every worker imports amorsize
    trips = sorted(timed(some_bytes, 0) for _ in range(3))
    n_tasks = 6 * n
    # All at once: what a chunk costs a worker that has the next one waiting.
    cluster.most, most = n_tasks, cluster.most
    each_s = max(50e-6, (min(timed(some_bytes, 0, n_tasks=n_tasks) for _ in range(2)) - trips[0]) * n / n_tasks)
    cluster.most = most
    # The first message of a size pays for buffers, on each worker; of the others one may have been disturbed. What is
    # measured here stays: a cluster taken to be slow is not tried again.
    blob = Blob(os.urandom(bounds.PROBE_BYTES))
    sent_s = min(timed(n_bytes_of, blob) for _ in range(bounds.PROBES))
    received_s = min(timed(some_bytes, bounds.PROBE_BYTES) for _ in range(bounds.PROBES))
    return {
        "start_s": trips[1],
        "batch_overhead_s": each_s,
        "send_bytes_per_s": bounds.PROBE_BYTES / max(sent_s - trips[0], 0.1 * sent_s),
        "receive_bytes_per_s": bounds.PROBE_BYTES / max(received_s - trips[0], 0.1 * received_s),
    }


# -- any other backend that joblib knows -------------------------------------------------------------------------------


class Registered(Cluster):
    """Tasks of Spark, or of a backend that the user has registered, through its ``submit``: batches of one."""

    def open(self) -> None:
        """Configure the backend as ``joblib.Parallel`` would."""
        with contextlib.suppress(TypeError):
            self.backend.configure(n_jobs=self.n, parallel=_Parallel(self.n))
        self.backend.start_call()
        self._stack.callback(self.backend.terminate)
        self._stack.callback(self.backend.stop_call)

    def send(self, task: Task) -> None:
        """Send it as a batch of one."""
        from joblib.parallel import BatchedCalls  # noqa: PLC0415 - 30 to 250 ms in a worker of Dask or Ray

        batch = BatchedCalls([(task.function, task.arguments, {})], (self.backend.get_nested_backend()[0], 1))

        def finished(out: Any) -> None:
            try:
                value = self._opened(out)
            except BaseException as error:  # noqa: BLE001 - the run decides
                self.answer(task, None, Lost(f"{type(error).__name__}: {error}") if _is_death(error) else error)
            else:
                self.answer(task, value[0], None)

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
class _Parallel:
    """The few attributes that joblib's backends read of a ``Parallel`` object."""

    n_jobs: int
    verbose: int = 0
    timeout: float | None = None
    _id: str = "amorsize"
    _call_id: str = "amorsize"
    _backend_kwargs: dict[str, Any] = field(default_factory=dict)
