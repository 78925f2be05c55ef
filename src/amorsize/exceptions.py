"""
What amorsize itself raises; exceptions of the mapped function pass through unchanged.

    AmorsizeError
    ├── ItemError                an item could not be finished; names its ``index``
    │   ├── ItemTimeout          it ran longer than ``timeout=`` (also a ``TimeoutError``)
    │   ├── UnpicklableResult    its result cannot leave the worker
    │   └── RemoteError          its exception cannot leave the worker
    ├── WorkerDied               a worker was killed; carries the finished results
    └── CheckpointError          the file of ``checkpoint=`` cannot be used

    AmorsizeWarning              the category of all warnings

Wrong arguments are plain ``TypeError`` and ``ValueError``, as anywhere in Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AmorsizeError",
    "AmorsizeWarning",
    "CheckpointError",
    "ItemError",
    "ItemTimeout",
    "RemoteError",
    "UnpicklableResult",
    "WorkerDied",
]


class AmorsizeWarning(UserWarning):
    """The category of all warnings of amorsize."""


class AmorsizeError(Exception):
    """The base of all errors that amorsize raises itself; errors of the mapped function pass through unchanged."""


class ItemError(AmorsizeError):
    """
    One item could not be finished.

    Attributes:
        index: Position of the item in the input, from 0.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index: int = index

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.index), self.__dict__


class ItemTimeout(ItemError, TimeoutError):  # noqa: N818 - TimeoutError is in its bases
    """An item ran longer than ``timeout`` seconds."""


class UnpicklableResult(ItemError):  # noqa: N818 - the name says what is wrong
    """An item was computed, but its result cannot be pickled and so cannot leave the worker."""


class RemoteError(ItemError):
    """The function raised an exception that cannot be pickled; this says its type, text and traceback."""


class CheckpointError(AmorsizeError):
    """The file of ``checkpoint=`` cannot be used: it is something else, or others may write it."""


class WorkerDied(AmorsizeError):  # noqa: N818 - the name says what happened
    """
    A worker process ended in the middle of its work (killed, out of memory, crashed, ``os._exit``).

    Attributes:
        results: Results that had reached the caller, by index.
        in_flight: Indices of the items that were being computed, or whose results were lost.
        cause: The likely cause in words.
    """

    def __init__(
        self,
        message: str,
        results: Mapping[int, Any] | None = None,
        in_flight: tuple[int, ...] = (),
        cause: str = "unknown",
    ) -> None:
        super().__init__(message)
        self.results: dict[int, Any] = dict(results or {})
        self.in_flight: tuple[int, ...] = in_flight
        self.cause: str = cause

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.results, self.in_flight, self.cause), self.__dict__
