"""The fork server: real processes with threads alive, killed at every end, started from everywhere."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

import amorsize
from amorsize import _cost, _host
from amorsize.exceptions import UnpicklableResult, WorkerDied
from tests import functions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

if sys.platform != "linux":
    pytest.skip("the fork server is only used on Linux", allow_module_level=True)

from amorsize._backend import _server, _shared_items, _spawn

SERVER: dict[str, Any] = {"n_jobs": 2, "start_method": "forkserver"}

# Nothing runs in the caller, so what is asserted of workers does not depend on who was faster.
APART: dict[str, Any] = {**SERVER, "retries": 1}
ME = os.getpid()


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """Leave no server behind."""
    yield
    amorsize.shutdown()


@pytest.fixture
def idle_thread() -> Iterator[None]:
    """Have a thread alive, as notebooks and servers have, which forbids a fork."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield
    over.set()
    thread.join()


def wait_until(is_so: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Wait for something, at most so long; returns whether it came."""
    deadline = time.monotonic() + within_s
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_so()


def slow_square(x: int) -> int:
    """Return a square after a moment."""
    time.sleep(2e-3)
    return x * x


def pids(x: int) -> tuple[int, int]:
    """Return this process and its parent."""
    time.sleep(2e-3)
    return os.getpid(), os.getppid()


def run_program(text: str, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(
        [sys.executable, *options, *more.pop("command", ("-c", textwrap.dedent(text)))],
        env=os.environ | {"PYTHONPATH": path} | more.pop("env", {}),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        **more,
    )


# -- where it is used ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("idle_thread")
def test_with_a_thread_alive_workers_come_from_the_server() -> None:
    """Where nothing may be forked from the caller, "forkserver" is what the plan says, and loky is not considered."""
    work = amorsize.parallel(slow_square)
    for _ in range(3):
        assert work.map(range(300)) == [x * x for x in range(300)]
    plan = work.last_plan
    assert plan is not None
    assert "thread" in plan.host.unavailable["fork"]
    assert plan.backend in {"forkserver", "sequential"}
    assert amorsize.plan(slow_square, range(100_000)).backend == "forkserver"


def test_a_first_call_too_short_for_the_server_does_not_look_at_the_machine() -> None:
    """Where nothing may be forked, a loop of 20 ms is over before the server is: the rest of a decision is left out."""
    result = run_program("""
        import threading, time
        import amorsize
        from amorsize import _host

        def work(x):
            time.sleep(1e-3)
            return x

        for _ in range(3):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        f = amorsize.parallel(work)
        assert f.map(range(18)) == list(range(18))
        print(_host.latest() is None, f.last_plan.backend, f.last_plan.reason)
        print("other threads are alive" in f.last_plan.explain())
        f.map(range(200))
        print(_host.latest() is None)
    """)
    assert result.stdout.splitlines() == ["True sequential not-worth", "True", "False"], result.stderr


def test_workers_are_children_of_the_server_and_stay() -> None:
    """Two maps have the same workers, whose parent is one process that is a child of this one."""
    work = amorsize.parallel(pids, **APART)
    first, second = set(work.map(range(40))), set(work.map(range(40)))
    parents = {parent for _, parent in first | second}
    assert len(parents) == 1
    assert psutil.Process(parents.pop()).ppid() == ME
    assert len({pid for pid, _ in first | second}) <= 2
    assert ME not in {pid for pid, _ in first | second}


def test_no_thread_of_ours_is_there() -> None:
    """Neither while a map runs nor after it does the caller have a thread more."""
    before = threading.active_count()
    seen = set()

    def note(*_: object) -> None:
        seen.add(threading.active_count())

    amorsize.parallel(slow_square, **APART, progress=note).map(range(40))
    assert seen == {threading.active_count()} == {before}


def test_from_a_thread_and_under_asyncio() -> None:
    """A map in a thread, and in ``asyncio.to_thread``, has the server's workers."""
    work = amorsize.parallel(slow_square, **SERVER)
    assert asyncio.run(asyncio.to_thread(work.map, range(60))) == [x * x for x in range(60)]
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(work.map(range(60)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [[x * x for x in range(60)]] * 3


def test_a_forked_copy_of_the_program_has_its_own_server() -> None:
    """The parent's server and its workers are left alone by the copy, and serve the parent afterwards."""
    work = amorsize.parallel(pids, **APART)
    ours = {parent for _, parent in work.map(range(20))}
    done = run_program(
        """
        import os, time, warnings
        import amorsize
        warnings.simplefilter("ignore")
        def pids(x):
            time.sleep(2e-3)
            return os.getppid()
        work = amorsize.parallel(pids, n_jobs=2, start_method="forkserver", retries=1)
        ours = set(work.map(range(20)))
        pid = os.fork()
        theirs = set(work.map(range(20)))
        if pid == 0:
            os._exit(0 if theirs != ours else 3)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, theirs == ours, len(ours))
        """
    )
    assert (done.stdout.split(), done.stderr) == (["0", "True", "1"], "")
    assert {parent for _, parent in work.map(range(20))} == ours


def test_a_daemonic_process_may_have_one() -> None:
    """Multiprocessing forbids its daemons to have children; the server is none of multiprocessing's."""
    done = run_program(
        """
        import multiprocessing
        import amorsize
        def square(x):
            return x * x
        def main(queue):
            work = amorsize.parallel(square, n_jobs=2, start_method="forkserver", retries=1)
            queue.put((work.map(range(50)), work.last_plan.backend))
        if __name__ == "__main__":
            context = multiprocessing.get_context("fork")
            queue = context.SimpleQueue()
            process = context.Process(target=main, args=(queue,), daemon=True)
            process.start()
            results, backend = queue.get()
            process.join()
            print(results == [x * x for x in range(50)], backend)
        """
    )
    assert (done.stdout.split(), done.stderr) == (["True", "forkserver"], "")


PROGRAM = """
import os, sys, time
import amorsize

OFFSET = 7

class Point:
    def __init__(self, x):
        self.x = x
    def __eq__(self, other):
        return type(other) is Point and other.x == self.x

def moved(point):
    time.sleep(1e-3)
    return Point(point.x + OFFSET), os.getpid()

if __name__ == "__main__":
    work = amorsize.parallel(moved, n_jobs=2, start_method="forkserver", retries=1)
    done = work.map([Point(i) for i in range(40)])
    print([point for point, _ in done] == [Point(i + 7) for i in range(40)], os.getpid() in {pid for _, pid in done})
    OFFSET = 8
    print([point for point, _ in work.map([Point(1)] * 4)] == [Point(9)] * 4, work.last_plan.backend)
"""


@pytest.mark.parametrize(
    ("options", "env"),
    [((), {}), (("-P",), {}), ((), {"PYTHONSAFEPATH": "1"}), (("-X", "frozen_modules=on"), {}), (("-O",), {})],
    ids=["plain", "-P", "PYTHONSAFEPATH", "frozen modules", "-O"],
)
def test_a_program_that_is_run(options: tuple[str, ...], env: dict[str, str], tmp_path: Path) -> None:
    """Functions and classes of the program itself travel by value, with their current globals; it is not run again."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    done = run_program("", *options, command=(str(path),), env=env)
    assert (done.stdout.split(), done.stderr) == (["True", "False", "True", "forkserver"], "")


def test_an_isolated_interpreter() -> None:
    """Under ``-I`` no variable and no folder of the user's is looked at, by the server no more than by the caller."""
    program = "import sys; sys.path[:] = " + repr(sys.path) + "\n" + PROGRAM
    done = run_program(program, "-I")
    assert (done.stdout.split(), done.stderr) == (["True", "False", "True", "forkserver"], "")


def test_the_callers_hash_seed_is_the_servers_where_it_is_given() -> None:
    """With PYTHONHASHSEED set, strings hash alike in caller and workers."""
    program = """
    import amorsize
    words = [str(i) for i in range(40)]
    work = amorsize.parallel(hash, n_jobs=2, start_method="forkserver", retries=1)
    print(work.map(words) == [hash(word) for word in words], work.last_plan.backend)
    """
    done = run_program(program, env={"PYTHONHASHSEED": "17"})
    assert (done.stdout.split(), done.stderr) == (["True", "forkserver"], "")


def test_what_programs_inherit_is_not_held_by_the_server() -> None:
    """The other end of a pipe that programs inherit sees its end when the caller closes it."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    amorsize.shutdown()
    assert amorsize.parallel(slow_square, **APART).map(range(20)) == [x * x for x in range(20)]
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)


# -- what travels ----------------------------------------------------------------------------------------------------


def where_it_lies(array: Any) -> tuple[Any, bool, int]:
    """Change an array in place; returns it, whether it owned its memory, and the process."""
    owned = bool(array.flags.owndata)
    array += 1.0
    return array, owned, os.getpid()


def test_arrays_arrive_without_a_copy_and_can_be_written_to() -> None:
    """In the worker an array lies in mapped memory; the caller's is left as it was; what comes home is writable."""
    arrays = [np.full(200_000, float(i)) for i in range(8)]
    results = amorsize.parallel(where_it_lies, **SERVER, timeout=60).map(arrays)
    assert {pid for _, _, pid in results} != {ME}
    assert not any(owned for _, owned, _ in results)
    for i, (array, _, _) in enumerate(results):
        assert array[0] == array[-1] == i + 1
        array[0] = 5.0
    assert [array[0] for array in arrays] == list(map(float, range(8)))


def test_an_array_that_is_mapped_is_not_shared_with_a_process_that_an_item_forks() -> None:
    """What a forked child of the worker writes into the item is not seen by the item."""
    arrays = [np.zeros(100_000) for _ in range(4)]
    assert amorsize.parallel(changed_by_a_child, **SERVER, timeout=60).map(arrays) == [0.0] * 4


def changed_by_a_child(array: Any) -> float:
    """Let a child write into an array."""
    pid = os.fork()
    if pid == 0:
        array[:] = 1.0
        os._exit(0)
    os.waitpid(pid, 0)
    return float(array.sum())


def test_large_results_come_home_in_memory_of_their_own() -> None:
    """Arrays, bytearrays and bytes of some megabytes, several in one result, are what the loop returns."""
    results = amorsize.parallel(large, **APART).map(range(6))
    for i, (array, data, text) in enumerate(results):
        assert array.shape == (300, 1000)
        assert array[1, 1] == i
        assert data == bytearray([i]) * 1_000_000
        assert text == bytes([i]) * 1_000_000


def large(i: int) -> tuple[Any, bytearray, bytes]:
    """Return much."""
    return np.full((300, 1000), float(i)), bytearray([i]) * 1_000_000, bytes([i]) * 1_000_000


class _Closed:
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        message = "closed"
        raise TypeError(message)


class _NeverOpens:
    """Can be pickled and not be unpickled."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    message = "not here"
    raise RuntimeError(message)


@pytest.mark.parametrize("odd", [_Closed, _NeverOpens])
@pytest.mark.parametrize("n_bytes", [0, 5_000], ids=["inline", "in memory"])
def test_items_that_cannot_be_sent_run_in_the_caller(odd: type, n_bytes: int) -> None:
    """Each item gets its result, as in the loop, whichever end of the way refuses it."""
    items: list[Any] = [(odd() if i % 50 == 7 else i, bytes(n_bytes)) for i in range(200)]
    assert amorsize.parallel(kind_of, **SERVER).map(items) == [type(item[0]).__name__ for item in items]


def kind_of(item: tuple[Any, bytes]) -> str:
    """Return the name of a type."""
    time.sleep(1e-3)
    return type(item[0]).__name__


def test_a_worker_does_not_import_numpy_for_its_settings() -> None:
    """The caller has imported it, and the function has nothing to do with it; one that does sees what the loop sees."""
    program = """
    import sys, threading, time, warnings
    import numpy
    import amorsize

    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    options = dict(n_jobs=2, start_method="forkserver", timeout=60)

    def has_numpy(x):
        return "numpy" in sys.modules

    def seen(x):
        import numpy.exceptions
        with warnings.catch_warnings(record=True) as caught:
            try:
                warnings.warn("w", numpy.exceptions.RankWarning)
            except numpy.exceptions.RankWarning:
                return "error"
        return len(caught), numpy.geterr()["over"], str(numpy.array([1 / 3]))

    print(set(amorsize.parallel(has_numpy, **options).map(range(20))))
    func = amorsize.parallel(seen, **options)
    print(set(func.map(range(20))) == {seen(0)})
    with numpy.errstate(over="raise"), numpy.printoptions(precision=2):
        print(set(func.map(range(20))) == {seen(0)})
    print(set(func.map(range(20))) == {seen(0)})
    warnings.simplefilter("error")
    amorsize.shutdown()
    print(set(func.map(range(20))) == {seen(0)}, seen(0))
    """
    done = run_program(program)
    assert (done.stdout.splitlines(), done.stderr) == (["{False}", "True", "True", "True", "True error"], "")


def test_filters_of_warnings_hold_for_categories_that_a_worker_has_not_imported() -> None:
    """One for a category of the script made a worker drop all filters: items warned that raise in the loop."""
    program = """
    import threading, time, warnings
    import numpy.exceptions
    import amorsize

    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

    class Ours(UserWarning):
        pass

    class Special(Ours):
        pass

    def raised(x):
        import numpy.exceptions
        names = []
        for kind in (Special, UserWarning, numpy.exceptions.ComplexWarning):
            try:
                warnings.warn("w", kind)
            except Warning as error:
                names.append(type(error).__name__)
        return names

    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Ours)
    warnings.simplefilter("error", numpy.exceptions.ComplexWarning)
    func = amorsize.parallel(raised, n_jobs=2, start_method="forkserver", timeout=60)
    print({str(names) for names in func.map(range(20))})
    """
    done = run_program(program)
    assert (done.stdout, done.stderr) == ("{\"['Special', 'ComplexWarning']\"}\n", "")


def test_closures_lambdas_and_their_classes_travel() -> None:
    """What has no name to be found by goes by value, there and back."""
    offset = 5

    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

    made = amorsize.parallel(lambda x: (Local(x + offset), lambda: x), **APART).map(range(30))
    assert [result.x for result, _ in made] == list(range(5, 35))
    assert all(type(result) is Local for result, _ in made)
    assert [get() for _, get in made] == list(range(30))


def test_a_result_that_nothing_can_pickle_is_that_items_failure() -> None:
    """The others are kept."""
    work = amorsize.parallel(lambda x: (y for y in ()) if x == 3 else x, **APART, errors="return")
    results = work.map(range(8))
    assert isinstance(results[3], UnpicklableResult)
    assert results[:3] + results[4:] == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize("start_method", ["forkserver", "fork", "loky"])
@pytest.mark.parametrize("way", ["imap", "map"])
def test_an_items_time_begins_with_the_item(start_method: str, way: str, tmp_path: Path) -> None:
    """What a worker imports for the function, and its initializer, took an item's time when a stream was to be run."""
    (tmp_path / "slow_to_import.py").write_text(
        "import os, time\n"
        "if os.environ.setdefault('CALLER', str(os.getpid())) != str(os.getpid()):\n    time.sleep(0.8)\n"
        "def prepare():\n    time.sleep(0.8)\n"
        "def work(x):\n    return 2 * x\n"
    )
    program = f"""
    import sys
    sys.path.insert(0, {str(tmp_path)!r})
    import amorsize, slow_to_import
    options = dict(n_jobs=2, start_method={start_method!r}, timeout=0.6, initializer=slow_to_import.prepare)
    print(list(amorsize.parallel(slow_to_import.work, **options).{way}(range(4))))
    """
    done = run_program(program)
    assert (done.stdout.strip(), done.stderr) == ("[0, 2, 4, 6]", "")


@pytest.mark.parametrize("start_method", ["forkserver", "fork"])
def test_an_items_time_ends_with_the_item(start_method: str) -> None:
    """A worker that waits for its result to be taken, while its caller does something else, has not overrun."""
    stream = amorsize.parallel(bytes, n_jobs=2, start_method=start_method, timeout=0.3).imap([2_000_000] * 8)
    sizes = []
    for result in stream:
        time.sleep(0.4)
        sizes.append(len(result))
    assert sizes == [2_000_000] * 8


def test_a_module_that_has_changed_on_disk_or_in_memory(tmp_path: Path) -> None:
    """Workers run the caller's code, whatever the file says by now, and the caller's values of small globals."""
    path = tmp_path / "changing.py"
    path.write_text("import time\nSCALE = 2\ndef work(x):\n    time.sleep(1e-3)\n    return SCALE * x\n")
    program = f"""
    import importlib, sys
    sys.path.insert(0, {str(tmp_path)!r})
    sys.dont_write_bytecode = True
    import amorsize, changing
    options = dict(n_jobs=2, start_method="forkserver", retries=1)
    print(amorsize.parallel(changing.work, **options).map(range(20)) == [2 * x for x in range(20)])
    changing.SCALE = 3
    print(amorsize.parallel(changing.work, **options).map(range(20)) == [3 * x for x in range(20)])
    open({str(path)!r}, "w").write("import time\\ndef work(x):\\n    time.sleep(1e-3)\\n    return x + 100\\n")
    print(amorsize.parallel(changing.work, **options).map(range(20)) == [3 * x for x in range(20)])
    importlib.reload(changing)
    print(amorsize.parallel(changing.work, **options).map(range(20)) == [x + 100 for x in range(20)])
    """
    done = run_program(program)
    assert (done.stdout.split(), done.stderr) == (["True"] * 4, "")


def test_what_a_module_opens_is_not_shared_between_workers(tmp_path: Path) -> None:
    """Each worker imports the function's module for itself: a file opened there has a position of its own."""
    (tmp_path / "data.txt").write_text("".join(f"{i:08d}\n" for i in range(400)))
    (tmp_path / "recordstore.py").write_text(
        f"import time\nfile = open({str(tmp_path / 'data.txt')!r}, 'rb', buffering=0)\n"
        "def record(i):\n    file.seek(9 * i)\n    time.sleep(2e-4)\n    return int(file.read(8))\n"
    )
    program = f"""
    import sys
    sys.path.insert(0, {str(tmp_path)!r})
    import amorsize, recordstore
    work = amorsize.parallel(recordstore.record, n_jobs=3, start_method="forkserver", retries=1)
    print(work.map(range(400)) == list(range(400)), work.last_plan.backend)
    """
    done = run_program(program)
    assert (done.stdout.split(), done.stderr.count("Error")) == (["True", "forkserver"], 0)


# -- what dies -------------------------------------------------------------------------------------------------------


def test_a_server_that_is_killed_is_renewed() -> None:
    """Between two maps, and during one: the next map has workers again."""
    work = amorsize.parallel(pids, **APART)
    (server,) = {parent for _, parent in work.map(range(20))}
    os.kill(server, signal.SIGKILL)
    assert wait_until(lambda: _server.SERVER.state() is None)  # a signal takes its time on a busy machine
    (renewed,) = {parent for _, parent in work.map(range(20))}
    assert renewed != server


def kill_the_server_once(x: int, *, marker: str) -> int:
    """Kill this worker's parent, once."""
    if x == 30:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return x
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    time.sleep(1e-3)
    return x


def test_a_map_goes_on_when_its_server_is_killed(tmp_path: Path) -> None:
    """All workers go down with it; what was home stays, and with ``retries`` the rest is done."""
    work = amorsize.parallel(kill_the_server_once, **APART)
    assert work.map(range(80), kwargs={"marker": str(tmp_path / "marker")}) == list(range(80))
    with pytest.raises(WorkerDied) as caught:
        work.with_options(retries=0, timeout=60).map(range(80), kwargs={"marker": str(tmp_path / "other")})
    assert 30 in caught.value.in_flight


def test_a_worker_that_is_killed_says_how_it_ended() -> None:
    """The server reports the status of its workers, which are no children of the caller."""
    with pytest.raises(WorkerDied, match="SIGKILL"):
        functions.dies_at.with_options(**SERVER, timeout=60).map(range(30), kwargs={"at": 11})


def test_a_caller_that_is_killed_leaves_nothing() -> None:
    """SIGKILL, with workers at work: the server notices the end of its caller, and takes its workers with it."""
    program = textwrap.dedent("""
        import os, sys, time
        import amorsize
        def work(x):
            print(os.getpid(), os.getppid(), flush=True)
            time.sleep(0.2)
            return x
        amorsize.parallel(work, n_jobs=2, start_method="forkserver", timeout=600).map(range(1000))
    """)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = {int(word) for _ in range(3) for word in process.stdout.readline().split()}
        process.kill()
        process.wait()
        assert len(left) >= 2
        assert wait_until(lambda: not any(psutil.pid_exists(pid) for pid in left))


def test_a_server_that_cannot_start_leaves_the_work_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning, the right results; and the next map does not try again."""
    monkeypatch.setattr(_spawn, "_BOOT", "raise SystemExit(3)  # {path} {caller}")
    monkeypatch.setattr(_server, "SERVER", _server.Server())
    work = amorsize.parallel(slow_square, **SERVER)
    with pytest.warns(amorsize.exceptions.AmorsizeWarning):
        assert work.map(range(100)) == [x * x for x in range(100)]
    with pytest.warns(amorsize.exceptions.AmorsizeWarning):
        assert work.map(range(100)) == [x * x for x in range(100)]
    assert _server.SERVER.refusal


# -- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_has_the_same_workers() -> None:
    """imap, closed early too; and the map after it."""
    work = amorsize.parallel(pids, **APART)
    mapped = {parent for _, parent in work.map(range(20))}
    assert {parent for _, parent in work.imap(iter(range(60)))} == mapped
    stream = work.imap(iter(range(10_000)))
    next(stream)
    stream.close()
    assert {parent for _, parent in work.map(range(20))} == mapped


# -- the packed items ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("item_s", [1e-6, 1e-4, 1.0])
def test_items_are_the_same_after_packing(item_s: float) -> None:
    """Whatever the blocks are, every slice is the list's."""
    items: list[Any] = [(i, "x" * (i % 7), np.arange(i % 3 * 4000), bytearray(i % 2 * 30_000)) for i in range(300)]
    packed = _shared_items.PackedItems(items, item_s)
    assert packed.pack(0, 300)
    mapped = _shared_items.MappedItems(packed.fd, 300, packed.block, runs_again=False)
    for start, stop in ((0, 1), (0, 300), (17, 18), (5, 95), (299, 300)):
        for (i, text, array, data), (j, other, values, more) in zip(items[start:stop], mapped[start:stop], strict=True):
            assert (i, text, data) == (j, other, more)
            assert np.array_equal(array, values)
    packed.close()


def test_a_module_that_workers_cannot_import_keeps_the_items_here() -> None:
    """A module made by hand exists here only: a worker says so and lives on, and nobody waits for its end."""
    code = """
        import sys, threading, time, types, warnings
        import amorsize

        made = types.ModuleType("made_by_hand")
        exec("def helper(n): return 2 * n", made.__dict__)
        sys.modules["made_by_hand"] = made
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

        def work(n):
            time.sleep(0.001)
            return made.helper(n)

        if __name__ == "__main__":
            warnings.simplefilter("ignore")
            for _ in range(2):
                assert amorsize.parallel(work, n_jobs=2).map(range(60)) == [2 * n for n in range(60)]
            print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "done\n", done.stderr


@pytest.mark.usefixtures("idle_thread")
def test_short_calls_in_quick_succession_come_to_have_workers() -> None:
    """No call of 40 ms is worth starting the server for, unless the machine is busy; some twenty of them are."""
    amorsize.shutdown()  # of workers that wait, the first call would make use
    work = amorsize.parallel(slow_square)
    backends = []
    for _ in range(40):
        assert work.map(range(20)) == [x * x for x in range(20)]
        plan = work.last_plan
        assert plan is not None
        backends.append(plan.backend)
        if plan.backend == "forkserver":
            break
    assert set(backends[:-1]) <= {"sequential"}
    assert backends[-1] == "forkserver"


@pytest.mark.parametrize("n_more", [0, 200])
def test_a_call_that_would_have_gained_leaves_a_server_for_the_next_one(n_more: int) -> None:
    """It starts at the end of the call, which does not wait for it, and ends with the program."""
    done = run_program(f"""
        import threading, time
        import amorsize, psutil

        def work(x):
            time.sleep(3e-3)
            return x

        threading.Thread(target=threading.Event().wait, daemon=True).start()
        f = amorsize.parallel(work)
        assert f.map(range(12)) == list(range(12))
        (server,) = psutil.Process().children()
        print(server.pid, f.last_plan.backend)
        if {n_more}:
            assert f.map(range({n_more})) == list(range({n_more}))
            print(server in psutil.Process().children(), f.last_plan.backend)
    """)
    first, *second = done.stdout.splitlines()
    pid, backend = first.split()
    assert (backend, second, done.stderr) == ("sequential", ["True forkserver"] if n_more else [], "")
    assert not psutil.pid_exists(int(pid))


def test_what_calls_have_missed_counts_for_a_start_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller pays a share of a start only, so calls need not have missed all of it."""
    book = _host.CostBook("linux")
    start_s = book.get("forkserver").start_s
    book.miss("forkserver", start_s * _cost.SERVER_SHARE / 2)
    monkeypatch.setattr(_host, "BOOK", book)
    costs = _host.local_costs(warm=frozenset(), unavailable={})
    assert costs["forkserver"].start_s == pytest.approx(start_s / 2)


def logged_and_killed(x: int, *, log: str) -> int:
    """Write a line, then kill the worker, but for item 0."""
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{x}\n")
    if x:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.parametrize("method", ["fork", "forkserver", "loky"])
def test_two_items_that_kill_run_as_often_as_retries_allow(method: Any, tmp_path: Path) -> None:
    """While one of two suspects ran alone and died, the other was forgotten and had one try too many (soak, 5060)."""
    log = tmp_path / "log"
    work = amorsize.parallel(logged_and_killed, n_jobs=3, start_method=method, retries=2, errors="return")
    results = list(work.imap(range(3), kwargs={"log": str(log)}))
    assert results[0] == 0
    assert [type(result) for result in results[1:]] == [WorkerDied] * 2
    counts = Counter(log.read_text().split())
    assert max(counts.values()) <= 3


def test_a_script_s_short_map_goes_to_workers_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle workers that another function has left answer sooner than a fork; without them it is forked."""
    monkeypatch.setattr(_server, "SERVER", _server.Server())  # without workers that another test may have left
    monkeypatch.setattr(_host, "BOOK", _host.CostBook("linux"))
    f = functions.slow.with_options(n_jobs=2)
    expected = list(range(20))
    assert f.map(range(20)) == expected
    assert f.last_plan is not None
    assert f.last_plan.backend == "fork"
    assert functions.slow.with_options(**APART).map(range(10)) == list(range(10))
    assert wait_until(lambda: _server.SERVER.n_idle() > 0)
    monkeypatch.setattr(_host, "BOOK", _host.CostBook("linux"))  # what a busy machine has taught says little
    assert f.map(range(20)) == expected
    assert f.last_plan.backend == "forkserver"
    amorsize.shutdown()


def test_what_workers_must_import_is_in_the_forecast(tmp_path: Path) -> None:
    """A worker imported a large library while the caller did all items: the call took longer than the loop."""
    (tmp_path / "large").mkdir()
    for i in range(800):
        (tmp_path / "large" / f"part_{i}.py").write_text("")
    (tmp_path / "large" / "__init__.py").write_text(
        "import importlib\nfor i in range(800):\n"
        "    globals()[f'part_{i}'] = importlib.import_module(f'large.part_{i}')\n"
        "def scale(x):\n    return 2 * x\n"
    )
    done = run_program(
        """
        import threading, time
        import amorsize, large

        def work(x):
            time.sleep(0.004)
            return large.scale(x)

        def alone(x):
            time.sleep(0.004)
            return 2 * x

        threading.Thread(target=threading.Event().wait, daemon=True).start()
        for func in (alone, work):
            f = amorsize.parallel(func, prefer="processes")
            for _ in range(20 if func is work else 1):
                assert f.map(range(40)) == [2 * x for x in range(40)]
                print(func.__name__, f.last_plan.backend)
        """,
        cwd=tmp_path,
    )
    alone, first, *later = done.stdout.splitlines()
    assert (alone, first) == ("alone forkserver", "work sequential"), done.stderr
    assert "work forkserver" in later  # the calls together are worth it
