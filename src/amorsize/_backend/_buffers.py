"""
Copies of an engine's read-only buffers, which can be written to like the arrays of a loop.

Copying is cheap, fresh memory is not: the first touch of each page takes five times the copy. So copies lie side by
side in memory that is asked for at once, and that of a worker's items is used again for the next ones.
"""

from __future__ import annotations

import mmap
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Bytes from which copies have memory of their own: below, the allocator's is used again by itself.
_LEAST_BYTES: Final = 1 << 20

# Where a copy may begin: a multiple of the widest type there is.
_ALIGNMENT: Final = 64

# Memories kept for the next items: one is being read while those of the task before are on their way home.
_MOST_SPARES: Final = 2

_spares: list[mmap.mmap] = []


def writable(buffers: Sequence[Any], *, again: bool = False) -> Sequence[Any]:
    """Return buffers that can be written to: those given or, where one of them cannot, :func:`copied` ones."""
    return copied(buffers, again=again) if any(memoryview(buffer).readonly for buffer in buffers) else buffers


def copied(buffers: Sequence[Any], *, again: bool = False) -> list[Any]:
    """
    Copy buffers.

    Args:
        buffers: Flat and contiguous.
        again: Whether the memory may be given out again by a later call, once nobody holds any of these copies.

    Returns:
        A writable buffer for each. Large ones share their memory: it is given back when all of them are gone.
    """
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    starts, n_bytes = [], 0
    for view in views:
        starts.append(n_bytes)
        n_bytes += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
    if n_bytes < _LEAST_BYTES or sys.platform != "linux":
        return [bytearray(view) for view in views]
    whole = _again(n_bytes) if again else memoryview(_fresh(n_bytes))
    copies = [whole[start : start + view.nbytes] for start, view in zip(starts, views, strict=True)]
    for copy, view in zip(copies, views, strict=True):
        copy[:] = view
    return copies


def _fresh(n_bytes: int) -> mmap.mmap:
    if sys.platform != "linux":
        return mmap.mmap(-1, n_bytes)
    return mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)


def _again(n_bytes: int) -> memoryview:
    """Return memory that has been used before, if there is some, else fresh memory."""
    spare = _free_spare(n_bytes) or _fresh(n_bytes)
    view = memoryview(spare)  # from here on it is not free
    _spares.append(spare)
    del _spares[:-_MOST_SPARES]
    return view


def _free_spare(n_bytes: int) -> mmap.mmap | None:
    """Take out memory that is large enough and that nobody holds any more."""
    for _ in range(len(_spares)):
        try:
            spare = _spares.pop(0)
        except IndexError:  # taken by another thread
            return None
        if len(spare) >= n_bytes and _is_free(spare):
            return spare
        _spares.append(spare)
    return None


def _is_free(spare: mmap.mmap) -> bool:
    """Tell whether nobody holds a part of it: only then may it be resized, here to what it is."""
    try:
        spare.resize(len(spare))
    except (BufferError, OSError, SystemError, ValueError):
        return False
    return True
