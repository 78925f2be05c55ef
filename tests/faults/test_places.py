from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.harness import ROOT
from tests.faults.places import PROGRAMS, run_program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="forks"),
]


@pytest.mark.parametrize("how", ["file", "argument"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_map_works_where_it_is_called_from(name: str, how: str, tmp_path: Path) -> None:
    """The right results, or the loop with its reason, without a word on stderr; no main guard, `python -c` too."""
    words, said, code = run_program(name, tmp_path, how=how)
    assert (words, said, code) == (" ".join(PROGRAMS[name][1].split()), "", 0)


@pytest.mark.parametrize("flags", [("-X", "importtime"), ("-X", "dev"), ("-O",), ("-B", "-s")], ids=" ".join)
def test_flags_of_the_interpreter_do_no_harm(flags: tuple[str, ...], tmp_path: Path) -> None:
    """Workers start with them too, and results are right."""
    words, _, code = run_program("nested in a worker", tmp_path, flags=flags)
    assert (words, code) == ("True True True", 0)


FIRST_CELL = """
import amorsize, os, time
FACTOR = 3
@amorsize.parallel(n_jobs=2, retries=1)
def f(x):
    time.sleep(0.001)
    return x * FACTOR
print(f.map(range(20)) == [3 * x for x in range(20)])
"""

OTHER_CODE = """
@amorsize.parallel(n_jobs=2, retries=1, start_method='loky')
def f(x):
    return x - 1
print(f.map(range(20)) == [x - 1 for x in range(20)])
"""

CELLS = [
    FIRST_CELL,
    "FACTOR = 4\nprint(f.map(range(20)) == [4 * x for x in range(20)])",
    "print(f.with_options(start_method='loky').map(range(20)) == [4 * x for x in range(20)])",
    OTHER_CODE,
    "print(list(f.imap(range(20))) == [x - 1 for x in range(20)])",
    "amorsize.shutdown()\nprint(True)",
]


def test_a_notebook_kernel_maps_what_its_cells_define(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions and globals of cells, changed ones included; an interrupt leaves the kernel usable."""
    jupyter: Any = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", ":".join([str(ROOT), *(p for p in sys.path if p)]))
    manager, client = jupyter.start_new_kernel(kernel_name="python3")
    try:
        for cell in CELLS:
            assert _printed(client, cell) == "True"
        number = client.execute("import time\ng = amorsize.parallel(time.sleep, n_jobs=2)\ng.map([0.01] * 3000)")
        client.get_iopub_msg(timeout=20)
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=30)
        while reply["parent_header"].get("msg_id") != number:
            reply = client.get_shell_msg(timeout=30)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert _printed(client, OTHER_CODE) == "True"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _printed(client: Any, code: str) -> str:
    """Run a cell; returns what it printed, or its error."""
    number = client.execute(code)
    text = ""
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") != number:
            continue
        content = message["content"]
        text += content.get("text", "") + content.get("evalue", "")
        if content.get("execution_state") == "idle":
            return text.strip()
