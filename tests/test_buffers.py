"""Copies of an engine's buffers: writable, apart from one another, and in memory that is used again."""

from __future__ import annotations

import sys

import pytest

from amorsize._backend import _buffers

MB = 1 << 20


@pytest.fixture(autouse=True)
def no_spares() -> None:
    """Begin without memory from earlier tests."""
    _buffers._spares.clear()


def parts(*sizes: int) -> list[memoryview]:
    """Return read-only buffers, each full of another byte."""
    return [memoryview(bytes([number]) * size) for number, size in enumerate(sizes, 1)]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("sizes", [(), (0,), (5, 7), (MB, MB // 3, 1, MB)])
def test_copies_hold_what_they_are_copies_of(sizes: tuple[int, ...], *, again: bool) -> None:
    """Each is as long as its source, can be written to, and changes nothing else."""
    sources = parts(*sizes)
    copies = _buffers.copied(sources, again=again)
    assert [bytes(copy) for copy in copies] == [bytes(source) for source in sources]
    for copy in copies:
        memoryview(copy)[:] = bytes(len(copy))
    assert [bytes(source[:1]) for source in sources] == [bytes([n])[: len(s)] for n, s in enumerate(sources, 1)]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each copy has memory of its own")
def test_memory_is_used_again_only_when_nobody_holds_it() -> None:
    """One copy that is kept, or a part of it, keeps all that lies beside it as it is."""
    first = _buffers.copied(parts(MB, MB), again=True)
    kept = first[1][100:200]
    spare = _buffers._spares[0]
    del first
    second = _buffers.copied([memoryview(bytes(MB)), memoryview(bytes(MB))], again=True)
    assert bytes(kept) == bytes([2]) * 100
    assert second[0].obj is not spare
    del kept
    third = _buffers.copied(parts(MB), again=True)
    assert third[0].obj is spare
    assert bytes(second[0][:10]) == bytes(10)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each copy has memory of its own")
def test_no_more_is_kept_than_two() -> None:
    """Items that a function keeps are its own business."""
    held = [_buffers.copied(parts(MB), again=True) for _ in range(5)]
    assert len(_buffers._spares) == 2
    assert [bytes(copies[0][:1]) for copies in held] == [b"\1"] * 5
