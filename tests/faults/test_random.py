from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

import amorsize
from tests.faults.harness import LOKY, Scenario, end_threads, killer, leaks, look

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::amorsize.exceptions.AmorsizeWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

# Maps per test, and where their seeds begin; AMORSIZE_FAULTS_SEED moves on to others.
N_MAPS = int(os.environ.get("AMORSIZE_FAULTS_MAPS", "40"))
FIRST = int(os.environ.get("AMORSIZE_FAULTS_SEED", "0")) * 100_000


@pytest.mark.parametrize("block", range(10))
def test_random_maps_with_random_faults(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are the loop's or the promised error, nothing runs too often, and nothing is left behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    end_threads()
    amorsize.parallel(abs, **LOKY, retries=1).map(range(4))
    end_threads()
    problems = []
    with killer() as kill:
        others = frozenset({kill.pid})
        before = look(others)
        unlooked = []
        for seed in range(FIRST + block * N_MAPS, FIRST + (block + 1) * N_MAPS):
            scenario = Scenario(seed, tmp_path)
            answer = scenario.run(kill if scenario.fault == "outside" else None)
            if problem := scenario.wrong(answer):
                problems.append(f"{scenario}: {problem}")
            unlooked.append(seed)
            if scenario.way in {"loky", "open"} or seed % 4 == 0:
                amorsize.shutdown()  # the fork server and its workers are there for the next map until then
                if problem := leaks(before, others):
                    problems.append(f"{scenario}: one of {unlooked} left {problem}")
                    before = look(others)
                unlooked.clear()
    assert not problems, "\n".join(problems)
