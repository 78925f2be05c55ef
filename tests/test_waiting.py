"""Threads that wait for the next run: the same ones are taken again, and they stand in no fork's way."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

import amorsize

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="fork is only used on Linux")


def threads() -> set[int | None]:
    """Return the idents of the threads that run or wait for a run."""
    return {thread.ident for thread in threading.enumerate() if thread.name.startswith("amorsize-")}


def test_threads_wait_for_the_next_run() -> None:
    """The next run has the same ones, and not more than it asks for; they end when told to."""
    amorsize.shutdown()
    name = amorsize.parallel(in_thread, prefer="threads", n_jobs=3)
    me = {threading.get_ident()}
    first = set(name.map(range(30))) - me
    assert len(first) > 1
    waiting = threads()
    assert first <= waiting
    assert set(name.map(range(30))) - me <= waiting
    assert threads() == waiting
    amorsize.shutdown()
    assert not threads()


@needs_fork
def test_no_fork_is_made_beside_waiting_threads() -> None:
    """They do not forbid forks, and are gone when one is made."""
    amorsize.parallel(in_thread, prefer="threads", n_jobs=2).map(range(10))
    assert threads()
    forks = amorsize.parallel(in_process, n_jobs=2, start_method="fork")
    assert len(set(forks.map(range(20)))) > 1
    assert forks.last_plan is not None
    assert forks.last_plan.backend == "fork"
    assert not threads()


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_copy_of_the_program_has_no_waiting_threads() -> None:
    """What os.fork did not copy is not counted, so that the copy can fork in its turn."""
    amorsize.parallel(in_thread, prefer="threads", n_jobs=2).map(range(10))
    assert threads()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            forks = amorsize.parallel(in_process, n_jobs=2, start_method="fork")
            forks.map(range(20))
            os.write(write, forks.last_plan.backend.encode())
        finally:
            os._exit(0)
    os.close(write)
    said = os.read(read, 100)
    os.close(read)
    os.waitpid(pid, 0)
    assert said == b"fork"


def in_thread(_: int) -> int:
    """Say which thread this is."""
    time.sleep(2e-3)
    return threading.get_ident()


def in_process(_: int) -> int:
    """Say which process this is."""
    time.sleep(2e-3)
    return os.getpid()
