"""Callables of the kinds there are, for tests of what is found under and in them."""

from __future__ import annotations

import functools


class Callable_:  # noqa: N801 - reads as what it is
    """A callable object whose code is its __call__."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.calls = 0
        self.log: list[int] = []

    def __call__(self, x: int) -> int:
        """Add k."""
        return x + self.k

    def method(self, x: int) -> int:
        """Subtract k."""
        return x - self.k

    @classmethod
    def of_class(cls, x: int) -> int:
        """Double."""
        return 2 * x

    @staticmethod
    def static(x: int) -> int:
        """Triple."""
        return 3 * x


def plain(x: int, y: int = 0) -> int:
    """Add."""
    return x + y


@functools.lru_cache
def cached(x: int) -> int:
    """Square."""
    return x * x
