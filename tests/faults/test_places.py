from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.places import PROGRAMS, run_program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="forks"),
]


@pytest.mark.parametrize("how", ["file", "argument", "standard input"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_map_works_where_it_is_called_from(name: str, how: str, tmp_path: Path) -> None:
    """The right results, or the loop with its reason, and a silent stderr; no main guard, from -c and stdin too."""
    words, said, code = run_program(name, tmp_path, how=how)
    assert (words, said, code) == (" ".join(PROGRAMS[name][1].split()), "", 0)


@pytest.mark.parametrize("flags", [("-X", "importtime"), ("-X", "dev"), ("-O",), ("-B", "-s")], ids=" ".join)
def test_flags_of_the_interpreter_do_no_harm(flags: tuple[str, ...], tmp_path: Path) -> None:
    """Workers start with them too, and results are right."""
    words, _, code = run_program("nested in a worker", tmp_path, flags=flags)
    assert (words, code) == ("True True True", 0)
