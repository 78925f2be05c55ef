"""Programs for the places a map is called from; each prints one word per thing that is as it should be."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Final

from tests.faults.harness import ROOT

if TYPE_CHECKING:
    from pathlib import Path

START: Final = """
import os, sys, time
import amorsize
from tests.faults.functions import plain, process_of, nests
GOOD = [3 * x for x in range(40)]
def check(**options):
    return plain.with_options(**options).map(range(40)) == GOOD
ME = os.getpid()
"""

# Name: (the program, what it prints).
PROGRAMS: Final[dict[str, tuple[str, str]]] = {
    "in a multiprocessing child": (
        """
        import multiprocessing as mp
        def child(queue):
            queue.put([check(), check(n_jobs=2), check(n_jobs=2, start_method="loky")])
        if __name__ == "__main__":
            context = mp.get_context("fork")
            queue = context.Queue()
            process = context.Process(target=child, args=(queue,))
            process.start()
            print(queue.get(timeout=60))
            process.join(30)
            print(process.exitcode)
        """,
        "[True, True, True] 0",
    ),
    "in a multiprocessing child that ends with workers starting": (
        """
        import multiprocessing as mp
        from tests.faults.functions import maps_and_ends
        if __name__ == "__main__":
            # Where the program came through standard input only a fork has it.
            for method in ["fork"] * 3 if sys.argv[0] == "-" else mp.get_all_start_methods():
                process = mp.get_context(method).Process(target=maps_and_ends)
                process.start()
                process.join(60)
                print(process.exitcode, flush=True)
        """,
        "True 0 True 0 True 0",
    ),
    "in a daemonic child": (
        """
        import multiprocessing as mp, warnings
        warnings.simplefilter("ignore")
        context = mp.get_context("fork")
        def child(_):
            return [check(), check(n_jobs=2), check(n_jobs=2, start_method="loky")]
        with context.Pool(1) as pool:
            print(pool.apply_async(child, (0,)).get(60))
        """,
        "[True, True, True]",
    ),
    "through asyncio.to_thread": (
        """
        import asyncio
        async def main():
            ticks = 0
            task = asyncio.create_task(asyncio.to_thread(check, n_jobs=2))
            while not task.done():
                ticks += 1
                await asyncio.sleep(0.001)
            return await task, ticks > 0
        print(asyncio.run(main()), asyncio.run(asyncio.to_thread(check)))
        """,
        "(True, True) True",
    ),
    "from several threads": (
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(check, **options) for options in
                       [{}, {"n_jobs": 2}, {"n_jobs": 2, "prefer": "threads"}, {"n_jobs": 1}] * 4]
            print(all(f.result(60) for f in futures))
        """,
        "True",
    ),
    "nested in a worker": (
        """
        import warnings
        warnings.simplefilter("ignore")
        expected = [[3 * y for y in range(x % 4)] for x in range(12)]
        for options in ({"start_method": "fork"}, {"start_method": "loky"}, {"prefer": "threads"}):
            print(nests.with_options(n_jobs=2, **options).map(range(12)) == expected)
        """,
        "True True True",
    ),
    "at exit": (
        """
        import atexit
        import warnings
        def late():
            warnings.simplefilter("ignore")  # no worker may be started any more, which is said
            print(check(), check(n_jobs=2, start_method="fork"), plain.last_plan.backend)
        atexit.register(late)
        print(check(n_jobs=2, start_method="loky"))
        """,
        "True True True sequential",
    ),
    "after os.fork": (
        """
        import warnings
        warnings.simplefilter("ignore")
        print(check(n_jobs=2, start_method="loky"), flush=True)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = not (check(n_jobs=2, start_method="loky") and check(n_jobs=2, start_method="fork") and check())
                amorsize.shutdown()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(check(n_jobs=2, start_method="loky"))
        """,
        "True 0 True",
    ),
    "with stdin closed": (
        """
        os.close(0)
        print(check(), check(n_jobs=2, start_method="fork"), check(n_jobs=2, start_method="loky"))
        """,
        "True True True",
    ),
    "with sys.stdin None": (
        """
        sys.stdin = None
        print(check(), check(n_jobs=2, start_method="fork"), check(n_jobs=2, start_method="loky"))
        """,
        "True True True",
    ),
    "with few descriptors": (
        """
        import resource, warnings
        warnings.simplefilter("ignore")
        for limit in (7, 12, 20, 64):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            print(check(), check(n_jobs=4, start_method="fork"))
        """,
        "True " * 8,
    ),
    "with few descriptors for loky": (
        """
        import resource, warnings
        warnings.simplefilter("ignore")
        import joblib.externals.loky
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        for limit in (8, 16):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            print(check(n_jobs=2, start_method="loky"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        print(check(n_jobs=2, start_method="loky"))
        """,
        "True True True",
    ),
    "with few processes allowed": (
        """
        import warnings
        warnings.simplefilter("ignore")
        real, calls = os.fork, []
        def refuse():
            calls.append(1)
            raise BlockingIOError(11, "Resource temporarily unavailable")
        os.fork = refuse
        print(check(), check(n_jobs=4, start_method="fork"), bool(calls))
        os.fork = real
        print(check(n_jobs=4, start_method="fork"))
        """,
        "True True True True",
    ),
    "with JOBLIB_MULTIPROCESSING=0": (
        """
        import warnings
        warnings.simplefilter("ignore")
        os.environ["JOBLIB_MULTIPROCESSING"] = "0"
        print(check(), check(n_jobs=2, start_method="loky"), check(n_jobs=2, start_method="fork"))
        print(plain.with_options(start_method="loky", n_jobs=2).plan(range(40)).backend)
        """,
        "True True True sequential",
    ),
    "without semaphores": (
        """
        import warnings
        warnings.simplefilter("ignore")
        import _multiprocessing
        def refuse(*arguments, **keywords):
            raise OSError(38, "Function not implemented")
        _multiprocessing.SemLock = refuse
        print(check(), check(n_jobs=2, start_method="loky"))
        plan = plain.with_options(start_method="loky", n_jobs=2).plan(range(40))
        print(plan.backend, "semaphores" in plan.explain())
        """,
        "True True sequential True",
    ),
    "with AMORSIZE_SERIAL": (
        """
        os.environ["AMORSIZE_SERIAL"] = "1"
        print(set(process_of.with_options(n_jobs=2).map(range(40))) == {ME}, set(process_of.map(range(40))) == {ME})
        """,
        "True True",
    ),
    "in another working directory": (
        """
        import tempfile
        @amorsize.parallel(n_jobs=2, start_method="loky", retries=1)
        def where(x):
            time.sleep(0.001)
            return os.path.realpath(os.getcwd())
        where.map(range(4))
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            print(set(where.map(range(20))) == {os.path.realpath(folder)})
            print(set(where.with_options(start_method="fork").map(range(20))) == {os.path.realpath(folder)})
            os.chdir("/")
        print(set(where.map(range(20))) == {"/"})
        """,
        "True True True",
    ),
    "in a directory that is gone": (
        """
        import tempfile, warnings
        warnings.simplefilter("ignore")  # loky starts no workers without a directory, which the call says
        folder = tempfile.mkdtemp()
        os.chdir(folder)
        os.rmdir(folder)
        print(check(), check(n_jobs=2, start_method="fork"), check(n_jobs=2, start_method="loky"))
        """,
        "True True True",
    ),
    "with state as of the call": (
        """
        import decimal, warnings
        import numpy as np
        @amorsize.parallel(n_jobs=2, retries=1)
        def state(x):
            time.sleep(0.001)
            with warnings.catch_warnings(record=True) as caught:
                warnings.warn("something", RuntimeWarning)
            return (decimal.getcontext().prec, np.geterr()["divide"], os.environ.get("A_NEW_NAME"), len(caught),
                    sys.path[-1], os.environ.get("AN_OLD_NAME"), os.getpid() == ME)
        os.environ["AN_OLD_NAME"] = "old"
        for method in ("fork", "loky"):
            named = state.with_options(start_method=method)
            named.map(range(4))
            os.environ["A_NEW_NAME"] = method
            os.environ.pop("AN_OLD_NAME", None)
            sys.path.append("/nowhere/" + method)
            with (decimal.localcontext() as context, np.errstate(divide="raise"), warnings.catch_warnings()):
                context.prec = 5
                warnings.simplefilter("ignore")
                found = set(named.map(range(20)))
            print(found == {(5, "raise", method, 0, "/nowhere/" + method, None, False)} or found)
            warnings.simplefilter("always")
            print({f[:2] for f in named.map(range(20))} == {(28, "warn")}, {f[3] for f in named.map(range(20))} == {1})
        """,
        "True True True True True True",
    ),
    "with an initializer": (
        """
        TABLE = {}
        def prepare(key, value):
            TABLE[key] = value
            TABLE.setdefault("calls", []).append(os.getpid())
        for method in ("fork", "loky"):
            for retries in (0, 1):
                @amorsize.parallel(
                    n_jobs=2, start_method=method, initializer=prepare, initargs=("k", 7), retries=retries
                )
                def read(x):
                    time.sleep(0.001)
                    return TABLE["k"]
                print(set(read.map(range(30))) == {7})
        @amorsize.parallel(n_jobs=1, initializer=prepare, initargs=("k", 8))
        def here(x):
            return TABLE["k"]
        print(here.map(range(3)) == [8, 8, 8])
        """,
        "True True True True True",
    ),
    "with shutdown in between": (
        """
        import psutil
        def workers():
            return [c for c in psutil.Process().children() if not any("tracker" in p for p in c.cmdline())]
        for _ in range(2):
            print(check(n_jobs=2, start_method="loky", retries=1), len(workers()))
            amorsize.shutdown()
            print(len(workers()))
        amorsize.shutdown()
        """,
        "True 2 0 True 2 0",
    ),
    "with an edited and reloaded module": (
        """
        import importlib, tempfile, pathlib
        folder = tempfile.mkdtemp()
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        file = pathlib.Path(folder, "edited.py")
        text = ("import amorsize, os, time\\n@amorsize.parallel(n_jobs=2, retries=1)\\n"
                "def f(x):\\n    time.sleep(0.001)\\n    return x + NUMBER, helper(x), os.getpid()\\n"
                "def helper(x):\\n    return OTHER\\n")
        def write(number):
            file.write_text(text.replace("NUMBER", str(number)).replace("OTHER", str(10 * number)))
            os.utime(file, (number, number))
        write(1)
        import edited
        for number in (1, 2, 3):
            write(number)
            importlib.reload(edited)
            for method in ("loky", "fork"):
                found = edited.f.with_options(start_method=method).map(range(20))
                expected = [(x + number, 10 * number) for x in range(20)]
                print([f[:2] for f in found] == expected, ME in {f[2] for f in found})
        import shutil
        shutil.rmtree(folder)
        """,
        "True False " * 6,
    ),
}


def run_program(name: str, tmp_path: Path, *, how: str = "file", flags: tuple[str, ...] = ()) -> tuple[str, str, int]:
    """
    Run a program in an interpreter of its own; returns its words, what it said on stderr, its exit code.

    Raises:
        AssertionError: If it leaves temporary files behind.
    """
    code = START + textwrap.dedent(PROGRAMS[name][0])
    path = tmp_path / "program.py"
    path.write_text(code)
    arguments = {"file": [str(path)], "argument": ["-c", code], "standard input": ["-"]}[how]
    temporary = tmp_path / "temporary"
    temporary.mkdir(exist_ok=True)
    search = os.pathsep.join(p for p in [str(ROOT), *sys.path] if p)
    done = subprocess.run(
        [sys.executable, *flags, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": search, "TMPDIR": str(temporary)},
        input=code if how == "standard input" else "",
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    left = [path.name for path in temporary.iterdir()]
    assert left == []
    return " ".join(done.stdout.split()), done.stderr, done.returncode
