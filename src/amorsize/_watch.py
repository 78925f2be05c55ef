"""What the first items change outside themselves: what the function can reach, compared before and after them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amorsize import _bounds as bounds
from amorsize._analysis import Dependencies, known_dependencies
from amorsize._analysis.observation import SHARED_BY_ITEMS, Observation, shared_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amorsize._request import Request


class Watch:
    """
    Watches the items of one call.

    Attributes:
        changed: Names of what they were seen to change, as far as that is known.
        is_on: Whether items are being watched.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._observation: Observation | None = None
        self._from = 0
        self._of_items: tuple[str, ...] = ()

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of what the function's items have been seen to change, in this call or an earlier one."""
        seen = self._request.state.watched
        is_current = seen is not None and seen[0] is known_dependencies(self._request.func)
        return (*(seen[1] if seen is not None and is_current else ()), *self._of_items)

    @property
    def is_on(self) -> bool:
        """Whether items are being watched."""
        return self._observation is not None

    def begin(self, items: Sequence[Any]) -> bool:
        """
        Take the state that the function can reach, unless it is known what items change; returns whether it is.

        Args:
            items: Some of those it is given.
        """
        request = self._request
        if request.limits.prefer == "threads" or request.isolated:
            return True
        found, shared = known_dependencies(request.func, items), shared_by(items)
        if not found.needs_watching and not shared:
            return True
        if not shared and request.state.watched is not None and request.state.watched[0] is found:
            return True
        self._observation = Observation(found, shared)
        return False

    def end(self) -> None:
        """Compare the state with what it was, if it was taken."""
        if self._observation is None:
            return
        changed, self._observation = self._observation.changed(), None
        # What these items share, the next call's may not.
        self._of_items = tuple(name for name in changed if name == SHARED_BY_ITEMS)
        found: Dependencies = known_dependencies(self._request.func)
        self._request.state.watched = found, tuple(name for name in changed if name != SHARED_BY_ITEMS)

    def forget(self) -> None:
        """Let go of what was taken."""
        self._observation = None

    def is_known(self, n_done: int, items: Sequence[Any]) -> bool:
        """
        Tell whether it is known what items change; where it is not, watch from now on.

        To be asked again once more items are done.
        """
        if self._observation is None:
            self._from = n_done
            return self.begin(items)
        if n_done - self._from >= bounds.WATCH_ITEMS:
            self.end()
        return self._observation is None
