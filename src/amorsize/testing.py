"""For tests of code that maps: have everything run as a plain loop in the process of the test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["serial"]

_VARIABLE = "AMORSIZE_SERIAL"


@contextlib.contextmanager
def serial() -> Iterator[None]:
    """
    Run every map of this process as a loop while the block lasts, also where *n_jobs* is fixed.

    It sets the environment variable ``AMORSIZE_SERIAL``, so it also holds for other threads and for programs that are
    started in the block. A stream (``imap``) that was started before goes on as it was.

    ::

        with amorsize.testing.serial():
            results = f.map(items)  # in this process, one after the other

    As a fixture of pytest::

        @pytest.fixture(autouse=True)
        def loops_only():
            with amorsize.testing.serial():
                yield
    """
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        # Only what was set here is undone: the block may have set it otherwise.
        if os.environ.get(_VARIABLE) == "1":
            if before is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = before
