"""
The items of one map in shared memory: packed by the caller block by block, opened by workers as they need them.

    table   one entry per block: where its record lies, how long it is; zeros while it has not been packed
    record  the number of its buffers, the place of each, then the pickle (protocol 5)
    buffers of arrays and the like, before the record they belong to

Workers map buffers: an array arrives without having been copied and can be written to. A block of one item is opened by
one worker, once, and what it writes nobody else sees; of a block with several, more than one worker may have a part,
and where items may run again they must be as they were: such buffers are copied when they are mapped.

A block is packed when a range that reaches into it is posted, so the first workers begin before the last item has been
packed.
"""

from __future__ import annotations

import functools
import mmap
import os
import pickle
import struct
import sys
from typing import TYPE_CHECKING, Any, Final

from amorsize import _outside
from amorsize._backend import _bounds as bounds
from amorsize._backend import _memory, _pickles, _worker
from amorsize._backend._local_worker import UnopenedItems
from amorsize._bounds import CHECK_S

if sys.platform != "linux":
    raise ImportError("this way of running workers is for Linux; nothing imports it elsewhere")

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENTRY: Final = struct.Struct("=qq")
_COUNT: Final = struct.Struct("=q")


class PackedItems:
    """
    The caller's side.

    Attributes:
        inline: All items pickled, where they are few and small; nothing else is needed then.
        block: Items in one block.
        most_items: Items in one posted range at most, None where that does not matter.
        fd: The memory, -1 where there is none.
    """

    def __init__(self, items: Sequence[Any], item_s: float) -> None:
        """Prepare to pack; raises OSError if the system refuses the memory."""
        self._items = items
        self._n_items = len(items)
        self.fd = -1
        self.most_items: int | None = None
        self.inline: bytes | None = None
        self.block = max(1, min(bounds.BLOCK_ITEMS, int(CHECK_S / max(item_s, 1e-9))))
        one = self._size_of_one()
        if isinstance(items, range) or one * self._n_items <= bounds.INLINE_BYTES:
            self.inline = self._whole()
        if self.inline is None:
            self.block = max(1, min(self.block, bounds.BLOCK_BYTES // max(1, one)))
            self.most_items = max(1, bounds.RANGE_BYTES // max(1, one))
            self._n_blocks = -(-self._n_items // self.block)
            self._is_packed = bytearray(self._n_blocks)
            self.fd = _memory.make("amorsize-items")
            self._end = _ENTRY.size * self._n_blocks
            os.ftruncate(self.fd, self._end)

    def _size_of_one(self) -> int:
        """Return the pickled bytes of the first item; a guess that says nothing of the others."""
        if isinstance(self._items, range):
            return 8
        try:
            data, buffers = _pickles.dumps_apart(_worker.cut(self._items, 0, 1), bounds.BESIDE_BYTES)
        except Exception as error:  # noqa: BLE001 - an item that cannot be pickled is found when its range is posted
            _outside.pass_on(error)
            return bounds.BLOCK_BYTES
        return len(data) + sum(buffer.nbytes for buffer in buffers)

    def _whole(self) -> bytes | None:
        """Pickle all items; None where they are too many bytes, or one cannot be pickled."""
        try:
            data, buffers = _pickles.dumps_apart(_worker.cut(self._items, 0, self._n_items), bounds.BESIDE_BYTES)
        except Exception as error:  # noqa: BLE001 - as above
            _outside.pass_on(error)
            return None
        return data if not buffers and len(data) <= 2 * bounds.INLINE_BYTES else None

    def pack(self, start: int, stop: int) -> bool:
        """Pack the blocks of a range; returns whether all of them can be."""
        if self.inline is not None:
            return True
        for block in range(start // self.block, -(-stop // self.block)):
            if not self._is_packed[block] and not self._pack_block(block):
                return False
        return True

    def _pack_block(self, block: int) -> bool:
        begin = block * self.block
        items = _worker.cut(self._items, begin, min(self._n_items, begin + self.block))
        try:
            data, buffers = _pickles.dumps_apart(items, bounds.BESIDE_BYTES)
        except Exception as error:  # noqa: BLE001 - objects raise anything when pickled; the caller keeps such items
            _outside.pass_on(error)
            return False
        try:
            places, self._end = _memory.append(self.fd, self._end, buffers)
            head = _COUNT.pack(len(places)) + b"".join(_ENTRY.pack(*place) for place in places)
            (place,), self._end = _memory.append(self.fd, self._end, [head + data])
            os.pwrite(self.fd, _ENTRY.pack(*place), block * _ENTRY.size)
        except OSError:  # no memory left for it
            return False
        self._is_packed[block] = 1
        return True

    def close(self) -> None:
        """Give the memory back; workers that have it open keep it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class MappedItems:
    """The worker's side: a sequence that can be measured and sliced."""

    def __init__(self, fd: int, n_items: int, block: int, *, runs_again: bool) -> None:
        """Make the sequence, of items packed together in blocks; some may be opened again, after a worker has died."""
        self._own = _own() if block == 1 and not runs_again else None
        self._fd = fd
        self._n_items = n_items
        self._block = block
        self._number = -1
        self._opened: Any = ()

    def __len__(self) -> int:
        return self._n_items

    def __getitem__(self, part: slice) -> Any:
        """Return neighbouring items; raises UnopenedItems if they cannot be unpickled."""
        first, last = part.start // self._block, (part.stop - 1) // self._block
        if first == last:
            return self._cut(first, part.start, part.stop)
        return [item for block in range(first, last + 1) for item in self._cut(block, part.start, part.stop)]

    def _cut(self, block: int, start: int, stop: int) -> Any:
        base = block * self._block
        items = self._open(block)
        return items[max(0, start - base) : max(0, stop - base)]

    def _open(self, block: int) -> Any:
        """Return a block's items; the latest is kept, since ranges begin and end in the middle."""
        if block != self._number:
            self._number, self._opened = -1, ()
            offset, n_bytes = _ENTRY.unpack(os.pread(self._fd, _ENTRY.size, block * _ENTRY.size))
            try:
                self._opened = _loads(self._fd, offset, n_bytes, self._own)
            except Exception as error:
                raise UnopenedItems from error
            self._number = block
        return self._opened


@functools.cache
def _own() -> _memory.Own:
    return _memory.Own()


def _loads(fd: int, offset: int, n_bytes: int, own: _memory.Own | None) -> Any:
    """Unpickle a record; its buffers are mapped, not read."""
    record = os.pread(fd, n_bytes, offset)
    (count,) = _COUNT.unpack_from(record)
    if not count:
        return pickle.loads(memoryview(record)[_COUNT.size :])
    places = [_ENTRY.unpack_from(record, _COUNT.size + i * _ENTRY.size) for i in range(count)]
    base = places[0][0] // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    end = max(start + size for start, size in places)
    size = end - base
    memory = memoryview(_memory.private(fd, size, base, at_once=True) if own is None else own.mapped(fd, size, base))
    buffers = [memory[start - base : start - base + n] for start, n in places]
    return pickle.loads(memoryview(record)[_COUNT.size + count * _ENTRY.size :], buffers=buffers)
