"""A real Jupyter kernel: what cells define is mapped by workers, and what the kernel starts ends with it."""

from __future__ import annotations

import ast
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Seconds that one cell may take: far more than any needs, so that only a hang meets it.
PATIENCE_S = 60

# With retries, all items are done by workers and none by the kernel, however late workers are ready.
DEFINE = """
import os, time
import amorsize

@amorsize.parallel(n_jobs=2, retries=1)
def tagged(x):
    time.sleep(0.001)
    return x * 3, os.getpid()
"""


@dataclass
class Answer:
    """What one cell has brought forth."""

    printed: str = ""
    shown: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def value(self) -> Any:
        """The value of the cell's last line."""
        assert self.error == ""
        return ast.literal_eval(self.shown["text/plain"])


@dataclass
class Kernel:
    """A running kernel and the wire to it."""

    manager: Any
    client: Any

    def run(self, code: str, while_printing: Callable[[str], object] = lambda _: None) -> Answer:
        """Run a cell; *while_printing* is called with all it has printed so far."""
        answer = Answer()
        number = self.client.execute(code, allow_stdin=False)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.0, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") != number:
                continue
            content = message["content"]
            answer.error += content.get("ename", "")
            answer.shown |= content.get("data", {})
            if "text" in content:
                answer.printed += content["text"]
                while_printing(answer.printed)
            if content.get("execution_state") == "idle":
                return answer

    def ask(self, what: str, code: str) -> dict[str, Any]:
        """Ask the kernel about the end of *code* without running it: "complete" or "inspect"."""
        content: dict[str, Any] = getattr(self.client, what)(code, reply=True, timeout=PATIENCE_S)["content"]
        return content

    def processes(self) -> list[psutil.Process]:
        """Return the kernel's process, first, and those below it."""
        kernel = psutil.Process(self.manager.provisioner.pid)
        return [kernel, *kernel.children(recursive=True)]

    def end(self, *, now: bool) -> None:
        """Shut the kernel down, politely or at once, and close the wire."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=now)


@pytest.fixture(name="start", scope="module")
def _start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Kernel]]:
    """Start kernels of this Python that see no settings and leave no files of the user who runs the tests."""
    manager = pytest.importorskip("jupyter_client.manager", reason="jupyter_client is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    started: list[Kernel] = []
    threads = set(threading.enumerate())

    def start() -> Kernel:
        kernel = Kernel(*manager.start_new_kernel(kernel_name="python3", startup_timeout=PATIENCE_S))
        started.append(kernel)
        return kernel

    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield start
        for kernel in started:
            if kernel.manager.is_alive():
                kernel.end(now=True)
    # One of Jupyter's that stayed would forbid forking to every test after these.
    assert {thread.name for thread in set(threading.enumerate()) - threads} == set()


@pytest.fixture(name="kernel", scope="module")
def _kernel(start: Callable[[], Kernel]) -> Kernel:
    """Return the kernel that tests share; each defines what it needs."""
    return start()


def test_a_function_of_a_cell_goes_to_workers(kernel: Kernel) -> None:
    """Nothing has to be moved into a module; a kernel has threads, so it is never forked."""
    kernel.run(DEFINE)
    kernel.run("pairs = tagged.map(range(40)); plan = tagged.last_plan")
    assert kernel.run("[x for x, _ in pairs]").value == [3 * x for x in range(40)]
    assert kernel.run("(plan.backend, plan.n_jobs)").value in {("forkserver", 2), ("loky", 2)}
    assert kernel.run("os.getpid() in {pid for _, pid in pairs}").value is False


def test_what_a_later_cell_changes_is_what_runs(kernel: Kernel) -> None:
    """Warm workers never run stale code: not of the function, nor of a helper, nor of a global that it names."""
    kernel.run(f"{DEFINE}FACTOR = 2\ndef helper(x): return x * FACTOR")
    define = "@amorsize.parallel(n_jobs=2, retries=1)\ndef changing(x): return {}"
    assert kernel.run(define.format("helper(x)")).error == ""
    assert kernel.run("changing.map(range(10))").value == [2 * x for x in range(10)]
    kernel.run("FACTOR = 5")
    assert kernel.run("changing.map(range(10))").value == [5 * x for x in range(10)]
    kernel.run("def helper(x): return -x")
    assert kernel.run("changing.map(range(10))").value == [-x for x in range(10)]
    kernel.run(define.format("x + 100"))
    assert kernel.run("changing.map(range(10))").value == [x + 100 for x in range(10)]
    assert kernel.run("list(changing.imap(range(10)))").value == [x + 100 for x in range(10)]
    assert kernel.run("changing.last_plan.backend").value in {"forkserver", "loky"}


def test_a_traceback_shows_the_lines_of_the_cell(kernel: Kernel) -> None:
    """A cell's file is in no folder; a worker's traceback names it and shows its line all the same."""
    kernel.run(f"{DEFINE}\n@amorsize.parallel(n_jobs=2, retries=1)\ndef bad(x):\n    return 10 // x  # divides")
    kernel.run("try: bad.map([1, 1, 0])\nexcept ZeroDivisionError as error: text = str(error.__cause__)")
    (line,) = re.findall(r'File "(.*)", line \d+, in bad\n    return 10 // x  # divides', kernel.run("text").value)
    assert line == kernel.run("bad.__code__.co_filename").value
    assert not Path(line).exists()


@pytest.mark.parametrize("line", ["f.last_plan", "f.profile", "amorsize.host()"])
def test_a_record_at_the_end_of_a_cell_arrives_as_html(kernel: Kernel, line: str) -> None:
    """The words are sent too, for fronts without HTML."""
    shown = kernel.run(f"import amorsize\nf = amorsize.parallel(len)\nf.map(['a', 'bc'])\n{line}").shown
    assert "<table" in shown["text/html"]
    assert shown["text/plain"]


def test_the_kernel_completes_and_explains_a_decorated_function(kernel: Kernel) -> None:
    """Tab after the dot offers what the decorator adds; a question mark shows the function's own signature."""
    kernel.run('import amorsize\n@amorsize.parallel\ndef shrink(path, width=100):\n    """Make it smaller."""')
    offered = kernel.ask("complete", "shrink.")["matches"]
    assert {"map", "imap", "starmap", "with_options", "last_plan", "plan"} <= {name.split(".")[-1] for name in offered}
    words = re.sub(r"\x1b\[\d+m", "", kernel.ask("inspect", "shrink")["data"]["text/plain"])  # without colours
    assert "(path, width=100)" in words
    assert "Make it smaller." in words


def test_an_interrupt_ends_a_map_and_leaves_the_kernel_usable(kernel: Kernel) -> None:
    """The cell ends with KeyboardInterrupt, and the next map, by the same function, is right."""
    kernel.run(DEFINE)
    interrupted: list[str] = []

    def interrupt(printed: str) -> None:
        if not interrupted:
            interrupted.append(printed)
            kernel.manager.interrupt_kernel()

    # Uninterrupted it would take ten times the patience. Results have arrived when the first line is printed.
    begun = "lambda done, *_: done and print(done, flush=True)"
    long = f"tagged.with_options(progress={begun}).map(range({PATIENCE_S} * 20_000))"
    assert kernel.run(long, interrupt).error == "KeyboardInterrupt"
    assert interrupted
    assert kernel.run("[x for x, _ in tagged.map(range(40))]").value == [3 * x for x in range(40)]


@pytest.mark.parametrize("now", [False, True], ids=["politely", "killed"])
def test_nothing_outlives_its_kernel(start: Callable[[], Kernel], *, now: bool) -> None:
    """Warm workers end with the kernel, even if it is killed, and no file of ours is left."""
    kernel = start()
    kernel.run(f"{DEFINE}tagged.map(range(40))")
    processes = kernel.processes()
    assert len(processes) > 2
    folder = Path(kernel.run("import tempfile; tempfile.gettempdir()").value)
    kernel.end(now=now)
    _, alive = psutil.wait_procs(processes[1:], timeout=PATIENCE_S)
    for process in alive:
        process.kill()
    assert alive == []
    assert list(folder.glob("amorsize-*")) == []


SPEAK = """
import logging, sys, time, warnings
import amorsize

logging.basicConfig(level="INFO", format="%(message)s", force=True)

@amorsize.parallel(n_jobs=2, retries=1, progress=lambda done, total, elapsed_s: None)
def speak(n):
    time.sleep(0.001)
    print("begin", n, end=" ")
    print("end", n)
    logging.getLogger("cell").info("record %d", n)
    if n % 50 == 0:
        warnings.warn("careful")
    return n

speak.map(range(200)) == list(range(200))
"""


def test_what_items_say_is_in_their_cell(kernel: Kernel) -> None:
    """Prints in whole lines, log records and warnings, each as often as in the loop."""
    answer = kernel.run(SPEAK)
    assert answer.value is True
    lines = answer.printed.splitlines()
    assert sorted(line for line in lines if line.startswith("begin")) == sorted(
        f"begin {n} end {n}" for n in range(200)
    )
    assert sorted(line for line in lines if line.startswith("record")) == sorted(f"record {n}" for n in range(200))
    assert sum("UserWarning: careful" in line for line in lines) == 1
