"""Tasks of Ray."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from amorsize import _bounds as bounds
from amorsize._backend._clusters.base import Cluster, Lost, Task
from amorsize._backend._clusters.task import Shipped

if TYPE_CHECKING:
    from collections.abc import Callable

clock = time.perf_counter

# Options of ray.remote that mean the same for a task as for the actors of joblib's Ray pool.
_OPTIONS: Final = frozenset(
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
        self._options = {"num_cpus": 1} | {k: v for k, v in given.items() if k in _OPTIONS}

    @staticmethod
    def size_of(backend: Any) -> int:
        """Return the CPUs of the cluster; before there is one, those of this machine, which it would have."""
        del backend
        ray: Any = importlib.import_module("ray")
        return int(ray.cluster_resources().get("CPU", 1)) if ray.is_initialized() else os.cpu_count() or 1

    def open(self) -> None:
        """Join the cluster, as joblib's backend would, and begin to watch over it."""
        if not self.ray.is_initialized():
            self.ray.init()
        threading.Thread(target=self._watch, name="amorsize-watch", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        super().__exit__()

    def _watch(self) -> None:
        """Look whether there is a cluster with CPUs; give up after :data:`amorsize._bounds.NO_CPU_S` without."""
        well = clock()
        while not self._over.wait(bounds.WATCH_S):
            if not self.ray.is_initialized():
                self.lose("Ray was shut down in mid-run")
                return
            if self._has_cpus():
                well = clock()
            elif clock() - well > bounds.NO_CPU_S:
                self.lose(f"the Ray cluster has had fewer CPUs than a task asks for, for {bounds.NO_CPU_S:g} s")
                return

    def _has_cpus(self) -> bool:
        with contextlib.suppress(Exception):  # whatever the network raises, the cluster cannot be reached
            return bool(self.ray.cluster_resources().get("CPU", 0.0) >= (self._options["num_cpus"] or 0))
        return False

    def send(self, task: Task) -> None:
        """Start a task."""
        ray = self.ray
        if not ray.is_initialized():
            raise Lost("Ray is shut down")
        remote = self._remotes.get(task.function)
        if remote is None:
            remote = self._remotes[task.function] = ray.remote(max_retries=0, **self._options)(task.function)
        arguments = [self._place(a) if isinstance(a, Shipped) else a for a in task.arguments]
        task.handle = remote.remote(*arguments)
        task.handle.future().add_done_callback(lambda future: self._finished(task, future))

    def _place(self, shipped: Shipped) -> Any:
        """Put a large parcel into the object store, once; each node fetches it once."""
        if len(shipped.data) <= bounds.PLACED_BYTES:
            return shipped
        if shipped.digest not in self._placed:
            self._placed[shipped.digest] = self.ray.put(shipped)
        return self._placed[shipped.digest]

    def _finished(self, task: Task, future: Any) -> None:
        task.handle = None
        if future.cancelled():
            self.answer(task, None, Lost("the Ray task was cancelled"))
            return
        error = future.exception()
        if error is None:
            self.answer(task, future.result(), None)
            return
        exceptions = self.ray.exceptions
        if isinstance(error, exceptions.RayTaskError):
            error = error.cause if isinstance(error.cause, BaseException) else error
        elif isinstance(error, exceptions.RayError):
            error = Lost(f"{type(error).__name__}: {str(error).partition('The worker was')[0]}")
        self.answer(task, None, error)

    def cancel(self, tasks: list[Task]) -> None:
        """Take back tasks that wait, interrupt those that run."""
        for task in tasks:
            if task.handle is not None and self.ray.is_initialized():
                with contextlib.suppress(Exception):  # it may just have ended
                    self.ray.cancel(task.handle, force=False)
