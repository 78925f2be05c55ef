"""Memory that runs short while workers are at work: fewer of them get work."""

from __future__ import annotations

import sys

import pytest

from amorsize._bounds import TIGHT_BYTES
from amorsize._host import is_memory_tight
from tests.faults.harness import run_code
from tests.test_host import make_readings

PROGRAM = """
import itertools, resource
from tests import functions

work = functions.naps.with_options(n_jobs={n_jobs}, start_method="{method}")
work.map([0.01] * 20)  # workers of loky are fresh interpreters, which the limit would be too tight for
if {is_tight}:
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (150 << 20), resource.RLIM_INFINITY))
assert work.map([0.01] * 300) == [0.01] * 300
spans = sorted((s.begin_s, s.end_s) for s in work.last_plan.timeline if s.kind == "work" and s.lane != "caller")
middle = (spans[0][0] + max(end for _, end in spans)) / 2
late = [span for span in spans if span[0] > middle]
print(work.last_plan.backend, any(later[0] < earlier[1] for earlier, later in itertools.pairwise(late)))
"""


def test_what_is_tight() -> None:
    """Less than workers need, of the machine or of a limit."""
    assert not is_memory_tight(make_readings(available=lambda: 2 * TIGHT_BYTES))
    assert is_memory_tight(make_readings(available=lambda: TIGHT_BYTES // 2))
    assert is_memory_tight(make_readings(address_space=lambda: TIGHT_BYTES // 2))


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of the address space is set")
@pytest.mark.parametrize("is_tight", [True, False])
@pytest.mark.parametrize(("method", "n_jobs"), [("fork", 3), ("loky", 2)])
def test_fewer_workers_get_work_while_memory_is_short(method: str, n_jobs: int, *, is_tight: bool) -> None:
    """Of two workers one is left in the second half of the run; with room enough both go on."""
    done = run_code(PROGRAM.format(method=method, n_jobs=n_jobs, is_tight=is_tight))
    assert (done.stdout, done.stderr) == (f"{method} {not is_tight}\n", "")
