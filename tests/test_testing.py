"""`amorsize.testing`: maps run as loops, and afterwards as before."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
import threading
import warnings

import pytest

import amorsize
import amorsize.testing


@pytest.mark.parametrize("options", [{}, {"n_jobs": 2}, {"prefer": "threads", "n_jobs": 2}], ids=str)
def test_everything_runs_in_the_process_of_the_test(options: dict[str, object]) -> None:
    """Whatever was asked for, items run in the calling thread."""
    seen: list[tuple[int, int]] = []

    @amorsize.parallel(**options)
    def where(n: int) -> int:
        seen.append((os.getpid(), threading.get_ident()))
        return n

    with amorsize.testing.serial(), warnings.catch_warnings():
        warnings.simplefilter("ignore", amorsize.exceptions.AmorsizeWarning)
        assert where.map(range(50)) == list(range(50))
        assert where.last_plan is not None
        assert not where.last_plan.is_parallel
        assert list(where.imap(range(50))) == list(range(50))
        assert not where.last_plan.is_parallel
    assert set(seen) == {(os.getpid(), threading.get_ident())}
    assert len(seen) == 100


def test_afterwards_everything_is_as_before() -> None:
    """Also after an exception, and one block within another."""
    negative = amorsize.parallel(operator.neg)
    with amorsize.testing.serial():
        with amorsize.testing.serial():
            pass
        assert negative.plan(range(5)).reason == "disabled"
    with pytest.raises(ZeroDivisionError), amorsize.testing.serial():
        raise ZeroDivisionError
    assert "AMORSIZE_SERIAL" not in os.environ
    assert negative.with_options(n_jobs=2).plan(range(50)).reason == "fixed"


def test_what_was_set_before_is_set_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of the environment's own is given back, and a change within the block stays."""
    monkeypatch.setenv("AMORSIZE_SERIAL", "yes")
    with amorsize.testing.serial():
        assert os.environ["AMORSIZE_SERIAL"] == "1"
    assert os.environ["AMORSIZE_SERIAL"] == "yes"
    with amorsize.testing.serial():
        os.environ["AMORSIZE_SERIAL"] = "0"
    assert os.environ["AMORSIZE_SERIAL"] == "0"


def test_programs_that_are_started_meanwhile_run_serially_too() -> None:
    """A test of a command line tool need not know about it."""
    code = (
        "import amorsize, operator; f = amorsize.parallel(operator.neg, n_jobs=2); f.map(range(9)); "
        "print(f.last_plan.reason)"
    )
    with amorsize.testing.serial():
        command = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "disabled", done.stderr
