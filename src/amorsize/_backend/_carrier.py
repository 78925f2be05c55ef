"""What a way of carrying tasks to workers must offer: protocols only, for the type checker and the reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._backend._job import Job
    from amorsize._backend._work import Answer, Work


class Carrier(Protocol):
    """
    What carries tasks to workers and answers back.

    Attributes:
        name: The backend's name.
        ahead: Tasks that may wait for each worker beside the one it runs.
    """

    name: str
    ahead: int

    def task(self, job: Job, work: Work) -> Any:
        """Turn work into what :meth:`submit` takes; raises :class:`Unsendable` for items that cannot be pickled."""

    def submit(self, number: int, task: Any) -> None:
        """Hand over a task; never blocks."""

    def take(self, timeout_s: float) -> list[Answer]:
        """Return the answers that have come; waits at most *timeout_s* for the first."""
        ...

    def broken(self, error: BaseException) -> str:
        """Return in words what killed a worker, if that is what the error of a task means; else an empty string."""
        ...

    def renew(self) -> None:
        """Have workers again after a death, where they do not come back by themselves."""


class Submitter(Protocol):
    """What :class:`Callbacks` stands on: ``submit`` must not block, and *done* may be called from any thread."""

    name: str

    def task(self, job: Job, work: Work) -> Any:
        """As :meth:`Carrier.task`."""

    def submit(self, task: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run *task* somewhere, then call *done* with its result or its error."""

    def broken(self, error: BaseException) -> str:
        """As :meth:`Carrier.broken`."""
        ...

    def renew(self) -> None:
        """As :meth:`Carrier.renew`."""

    def fault(self) -> BaseException | None:
        """Return why no answer can come any more, None where one can."""
        ...
