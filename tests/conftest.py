"""How Hypothesis runs: the same examples every time in CI, fresh ones elsewhere; Ctrl-C; what tests share."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# No deadline and no complaint about slowness: no test fails because the machine was busy.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# A shell starts what runs in its background with SIGINT ignored, and so would every program that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(name="thread", params=[False, True], ids=["alone", "a thread alive"])
def _thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test alone, and with a thread alive, which forbids a fork."""
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, daemon=True)
    if request.param:
        thread.start()
    yield
    ended.set()
    if request.param:
        thread.join()
