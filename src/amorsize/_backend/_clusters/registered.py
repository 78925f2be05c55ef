"""Tasks of any other backend that joblib knows, Spark or one the user has registered, through its ``submit``."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

from amorsize._backend._clusters.base import Cluster, Lost, Task


class Registered(Cluster):
    """Tasks as batches of one."""

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
