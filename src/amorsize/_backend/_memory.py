"""
Memory that processes share by passing a descriptor: a memfd, or an unlinked temporary file where there is none.

It belongs to no file system with a limit of its own (``/dev/shm`` has 64 MB in a container), and it is gone when the
last descriptor and the last mapping are, however the processes end.
"""

from __future__ import annotations

import array
import ctypes
import mmap
import os
import socket
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from amorsize._backend import _bounds as bounds
from amorsize._backend import _files

if sys.platform != "linux":
    raise ImportError("this way of running workers is for Linux; nothing imports it elsewhere")

if TYPE_CHECKING:
    from collections.abc import Sequence

# Bytes to which the start of each buffer is aligned: a line of the cache, which is what NumPy's allocator gives too.
_ALIGNMENT: Final = 64


# From sys/mman.h: map at this very address, in the place of what is there. Its value is that of every architecture but
# those of HP and SGI.
_MAP_FIXED: Final = 0x10


def make(name: str) -> int:
    """Return the descriptor of new, empty memory; raises OSError if the system refuses it."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC)
    fd, path = _files.make()
    os.unlink(path)
    return fd


def append(fd: int, end: int, parts: Sequence[Any]) -> tuple[list[tuple[int, int]], int]:
    """Write byte-like objects behind each other, each aligned; returns their places (offset, bytes) and the new end."""
    places = []
    for part in parts:
        with memoryview(part) as view, view.cast("B") as rest:
            start = end + -end % _ALIGNMENT
            places.append((start, rest.nbytes))
            end = start
            while end < start + rest.nbytes:
                end += os.pwrite(fd, rest[end - start :], end)
    return places, end


def shared(fd: int, n_bytes: int) -> mmap.mmap:
    """Make memory *n_bytes* long, and return it mapped for all to write."""
    os.ftruncate(fd, n_bytes)
    return mmap.mmap(fd, n_bytes)


def private(fd: int, n_bytes: int, offset: int = 0, *, at_once: bool = False) -> mmap.mmap:
    """
    Return memory mapped such that writing to it is seen here alone: a page is copied when it is written to.

    Or all of them *at_once*: where they are written to one by one, each fault costs more than copying its page (an
    array of 4 MB was sorted in place in 15 to 40 ms, in 4 with its pages copied before, in 2.5 where none was copied).
    """
    flags = mmap.MAP_PRIVATE | (mmap.MAP_POPULATE if at_once else 0)
    return mmap.mmap(fd, n_bytes, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)


class Own:
    """
    Memory that this process alone uses, mapped without any copying, and what a fork does to it.

    What a forked copy of this process writes there must not be seen here: it maps the same memory privately.
    """

    def __init__(self) -> None:
        self._places: weakref.WeakKeyDictionary[mmap.mmap, tuple[int, int, int]] = weakref.WeakKeyDictionary()
        os.register_at_fork(after_in_child=self._part)

    def mapped(self, fd: int, n_bytes: int, offset: int) -> mmap.mmap:
        """Map memory whose descriptor stays open as long as items are opened from it."""
        memory = mmap.mmap(fd, n_bytes, offset=offset)
        self._places[memory] = fd, n_bytes, offset
        return memory

    def _part(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.mmap.restype = ctypes.c_void_p
        for memory, (fd, n_bytes, offset) in list(self._places.items()):
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            prot, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _MAP_FIXED
            libc.mmap(address, n_bytes, prot, flags, fd, offset)


def receive(conn: socket.socket, *, wait: bool = True) -> tuple[bytes, list[int]]:
    """
    Return one message of a SOCK_SEQPACKET socket and the descriptors that came with it.

    The message is empty where the other end is gone; raises BlockingIOError if there is none and *wait* is false.
    ``socket.recv_fds`` ignores its flags in CPython 3.11, and lets programs that a worker starts inherit what came.
    """
    fds = array.array("i")
    flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
    data, ancillary, _, _ = conn.recvmsg(bounds.MESSAGE_BYTES, socket.CMSG_SPACE(bounds.MOST_FDS * fds.itemsize), flags)
    for level, kind, part in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(part[: len(part) - len(part) % fds.itemsize])
    return data, list(fds)
