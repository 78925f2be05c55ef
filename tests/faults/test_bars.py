from __future__ import annotations

import sys

import pytest

from tests.faults import figures

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::amorsize.exceptions.AmorsizeWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="sends signals"),
]


@pytest.mark.parametrize(
    "way",
    [
        "fork",
        "fork-stream",
        "forkserver",
        "forkserver-warm",
        "forkserver-stream",
        "loky",
        "loky-warm",
        "loky-stream",
        "threads",
        "threads-stream",
    ],
)
def test_ctrl_c_ends_a_map_and_leaves_nothing(way: str) -> None:
    """Ctrl-C at random moments: nothing is left, nothing is said, and the session goes on."""
    ends, left, unusable, lost = figures.interrupt(way, 15)
    assert (left, unusable, lost) == ([], 0, 0)
    assert len(ends) == 15


@pytest.mark.parametrize("name", ["kills", "raises", "poison", "threads"])
def test_the_bar_is_met(name: str) -> None:
    """What the figures count comes out right."""
    measure, rounds = figures.FIGURES[name]
    assert measure(max(4, rounds // 5))
