"""What a function takes along to workers that are no copies of the caller: its modules, the interpreter's settings."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from amorsize._backend import _unfound
from tests.test_surroundings import run_program

if TYPE_CHECKING:
    from pathlib import Path

LOADED_BY_PATH = """
    import importlib.util, sys, warnings
    import amorsize
    def load(name, path):
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    how = dict(n_jobs=2, start_method={how!r}, batch_size=5)
"""

# Ways to workers that are no copies of the caller.
FRESH = ["loky", pytest.param("forkserver", marks=pytest.mark.skipif(sys.platform != "linux", reason="forks"))]


def module_at(path: Path, how: str) -> str:
    """Write a module, and return a program that has loaded it under a name that nobody else finds."""
    path.write_text(
        textwrap.dedent("""
        FACTOR = 3
        def helper(n):
            return n * FACTOR
        def task(n):
            return helper(n)
        class Point:
            def __init__(self, x):
                self.x = x
            def moved(self):
                return Point(self.x + 1)
        """)
    )
    return textwrap.dedent(LOADED_BY_PATH).format(how=how) + f"odd = load('odd_dag', {str(path)!r})\n"


class TestModulesLoadedByPath:
    """Case L: a function that named one failed in loky's workers with ModuleNotFoundError, "raised by item 4"."""

    @pytest.mark.parametrize("how", FRESH)
    @pytest.mark.parametrize(
        "function",
        [
            "lambda n: odd.helper(n)",
            "lambda n, h=odd.helper: h(n)",
            "(lambda h: lambda n: h(n))(odd.helper)",
            "lambda n: __import__('functools').partial(odd.helper)(n)",
            "odd.task",
            "odd.helper",
        ],
    )
    def test_a_function_that_refers_to_one(self, function: str, how: str, tmp_path: Path) -> None:
        """As a module it names, a default, in a closure, and as its own module."""
        code = module_at(tmp_path / "dag.py", how)
        code += f"f = amorsize.parallel({function}, **how)\n"
        code += (
            "print(f.map(range(60)) == [3 * n for n in range(60)] == list(f.imap(range(60))), f.last_plan.backend)\n"
        )
        done = run_program(code)
        assert (done.stdout, done.stderr) == (f"True {how}\n", "")

    @pytest.mark.parametrize("how", FRESH)
    def test_items_and_results_of_its_classes(self, how: str, tmp_path: Path) -> None:
        """They come home as what they were."""
        code = module_at(tmp_path / "dag.py", how)
        code += "f = amorsize.parallel(lambda point: point.moved(), **how)\n"
        code += "found = f.map([odd.Point(n) for n in range(60)])\n"
        code += "print([p.x for p in found] == list(range(1, 61)), {type(p) is odd.Point for p in found})\n"
        done = run_program(code)
        assert (done.stdout, done.stderr) == ("True {True}\n", "")

    def test_a_folder_that_is_no_longer_on_the_path(self, tmp_path: Path) -> None:
        """The module was found as it was imported, and is not found by a worker."""
        (tmp_path / "passing_by.py").write_text("def helper(n):\n    return n + 1\n")
        done = run_program(f"""
            import sys
            sys.path.insert(0, {str(tmp_path)!r})
            import passing_by
            del sys.path[0]
            import amorsize
            f = amorsize.parallel(lambda n: passing_by.helper(n), n_jobs=2, start_method="loky")
            print(f.map(range(60)) == list(range(1, 61)))
        """)
        assert (done.stdout, done.stderr) == ("True\n", "")

    def test_modules_of_the_usual_kinds_are_found(self) -> None:
        """Packages, parts of packages, extensions, what is built in, and what hooks of an installation find."""
        import concurrent.futures.process  # noqa: F401, PLC0415 - to be looked at
        import xml.dom.minidom  # noqa: F401, PLC0415 - as above

        names = ["json", "math", "xml.dom.minidom", "concurrent.futures.process", "numpy.linalg", "sys"]
        assert set(names) <= set(sys.modules) | {"json"}
        found = _unfound.unfound()
        assert not found & {"amorsize", "amorsize._backend._pickles", "tests.functions", "hypothesis", "pytest", *names}

    def test_a_plain_program_has_none(self) -> None:
        """With NumPy and all that loky brings."""
        done = run_program("""
            import numpy, numpy.testing, joblib, json, amorsize
            from amorsize._backend import _unfound
            print(set(_unfound.unfound()))
        """)
        assert done.stdout == "set()\n"


class TestLimitsOfTheInterpreter:
    """Case K: loky's workers had those of a fresh interpreter."""

    @pytest.mark.parametrize("how", FRESH)
    @pytest.mark.parametrize("call", ["map", "imap"])
    def test_the_recursion_limit_travels(self, call: str, how: str) -> None:
        """Raised by the caller, and lowered again for the next call."""
        done = run_program(f"""
            import sys
            import amorsize
            def depth(n):
                return 0 if n == 0 else 1 + depth(n - 1)
            def deep(n):
                try:
                    return depth(5000)
                except RecursionError:
                    return -1
            f = amorsize.parallel(deep, n_jobs=2, start_method="{how}")
            before = sys.getrecursionlimit()
            for limit in (20_000, before):
                sys.setrecursionlimit(limit)
                print(set(f.{call}(range(50))), f.last_plan.backend)
        """)
        assert (done.stdout, done.stderr) == (f"{{5000}} {how}\n{{-1}} {how}\n", "")

    @pytest.mark.parametrize("how", FRESH)
    def test_the_limit_of_digits_travels(self, how: str) -> None:
        """Lifted by the caller, and set again."""
        done = run_program(f"""
            import sys
            import amorsize
            def digits(n):
                try:
                    return len(str(7 ** 8000))
                except ValueError:
                    return -1
            f = amorsize.parallel(digits, n_jobs=2, start_method="{how}")
            for limit in (0, 4300):
                sys.set_int_max_str_digits(limit)
                print(set(f.map(range(50))), f.last_plan.backend)
        """)
        assert (done.stdout, done.stderr) == (f"{{6761}} {how}\n{{-1}} {how}\n", "")


class TestUnpicklable:
    """What cannot be sent is done here, with the reason; it is no error."""

    @pytest.mark.parametrize(
        ("how", "reason"),
        [
            ("start_method='loky'", "shared-state"),  # a connection is changed by its use
            ("start_method='loky', n_jobs=2", "not-picklable"),
            ("n_jobs=2", "not-picklable"),
        ],
    )
    def test_a_helper_that_holds_what_cannot_be_pickled(self, how: str, reason: str) -> None:
        """Case 66: a TypeError in every notebook."""
        done = run_program(f"""
            import sqlite3, threading, time, warnings
            import amorsize
            warnings.simplefilter("ignore")
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            conn = sqlite3.connect(":memory:", check_same_thread=False)
            def lookup(n):
                return conn.execute("select ?", (n,)).fetchone()[0]
            def via_helper(n):
                time.sleep(0.02)
                return lookup(n)
            f = amorsize.parallel(via_helper, {how})
            for _ in range(2):
                print(f.map(range(60)) == list(range(60)) == list(f.imap(range(60))))
                f.map(range(60))
                notes = " ".join(f.last_plan.warnings)
                print(f.last_plan.reason, "conn" in notes, "Connection" in notes)
        """)
        named = reason == "not-picklable"
        assert (done.stdout, done.stderr) == (f"True\n{reason} True {named}\n" * 2, "")
