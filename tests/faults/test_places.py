from __future__ import annotations

import shutil
import subprocess
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


def can_mount() -> bool:
    """Tell whether this process may have a ``/dev/shm`` of its own."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    command = [unshare, "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]  # noqa: S108 - in a namespace of its own
    return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount")
def test_a_full_dev_shm_is_gone_around() -> None:
    """Semaphores cannot be had there: where loky is asked for it is left out with that reason; others do without."""
    lines = (
        "import time, warnings",
        "import amorsize",
        "def f(x):",
        "    time.sleep(2e-3)",
        "    return 3 * x",
        "good = [3 * x for x in range(60)]",
        "warnings.simplefilter('ignore')",
        "for method in ('fork', 'loky'):",
        "    func = amorsize.parallel(f, n_jobs=2, start_method=method)",
        "    assert func.map(range(60)) == good == list(func.imap(range(60)))",
        "    print(func.last_plan.backend, 'No space' in func.last_plan.host.unavailable.get('loky', ''))",
    )
    fill = "mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 100k /dev/zero > /dev/shm/fill 2> /dev/null"
    command = ["unshare", "-m", "sh", "-c", f'{fill}; exec "$@"', "sh", sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["fork", "False", "sequential", "True"]
