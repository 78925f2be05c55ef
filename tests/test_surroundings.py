"""What the surroundings of a map do to it: the program's executable, its end, its signals, its native libraries."""

from __future__ import annotations

import ctypes.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import amorsize
from amorsize._backend import _blas, _blockers, _chunks
from amorsize.exceptions import ItemTimeout


def run_program(code: str, *, timeout_s: float = 90, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, from the command line as users do."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class TestExecutable:
    """Workers are never started with an executable that is not Python."""

    @pytest.mark.parametrize(
        "name",
        ["python", "python3", "python3.11", "python3.13t", "Python", "pythonw.exe", ".python3-wrapped", "pypy3.11"],
    )
    def test_interpreters_are_known_by_their_names(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of all systems and builds."""
        path = tmp_path / name
        path.write_text("")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        assert _blockers.executable_blocker() == ""

    @pytest.mark.parametrize("name", ["app", "uwsgi", "blender", "python-app.sh", "my_python", "false", "pythonista"])
    def test_other_programs_are_not_started(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither the application itself nor whatever stands there."""
        path = tmp_path / name
        path.write_text("")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        assert "not a Python interpreter" in _blockers.executable_blocker()

    @pytest.mark.parametrize("value", ["", None, "/nonexistent/python3", b"/usr/bin/python3"])
    def test_without_an_executable_there_are_no_interpreters(
        self, value: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Embedded interpreters have none, or a wrong one."""
        monkeypatch.setattr(sys, "executable", value)
        assert _blockers.executable_blocker().startswith("sys.executable is ")

    def test_a_frozen_program_is_not_started_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """PyInstaller, cx_Freeze and the like say so."""
        monkeypatch.setattr(sys, "frozen", True, raising=False)
        assert "frozen" in _blockers.executable_blocker()

    @pytest.mark.skipif(sys.platform == "win32", reason="the application is a shell script")
    @pytest.mark.parametrize("frozen", [False, True])
    @pytest.mark.parametrize("n_jobs", ["None", "2"])
    def test_the_application_is_not_started_again(self, tmp_path: Path, n_jobs: str, frozen: bool) -> None:
        """Case M: one map started a frozen application 24 times, and then raised WorkerDied."""
        log, app = tmp_path / "starts", tmp_path / "app"
        app.write_text(f"#!/bin/sh\necho start >> {log}\n")
        app.chmod(0o755)
        done = run_program(f"""
            import sys, threading, warnings
            import amorsize
            warnings.simplefilter("ignore")
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            sys.executable = {str(app)!r}
            if {frozen}:
                sys.frozen = True
            f = amorsize.parallel(lambda n: sum(range(n % 7 + 50_000)), n_jobs={n_jobs}, start_method="loky")
            want = [sum(range(n % 7 + 50_000)) for n in range(300)]
            g = f.with_options(n_jobs=2)
            print(f.map(range(300)) == want == g.map(range(300)) == list(g.imap(range(300))), g.last_plan.backend)
            print(g.last_plan.host.unavailable["loky"])
        """)
        assert (done.stdout[:16], done.stderr) == ("True sequential\n", "")
        assert "not a Python interpreter" in done.stdout
        assert not log.exists()


class TestEnd:
    """At the end of the interpreter nothing is started."""

    @pytest.mark.parametrize(
        "how", ["{}", "dict(n_jobs=2)", "dict(n_jobs=2, prefer='threads')", "dict(prefer='threads')"]
    )
    def test_a_map_in_a_destructor_at_the_end(self, how: str) -> None:
        """Case C: a thread that is started while the interpreter is finalizing never runs, and the map hung."""
        done = run_program(f"""
            import sys, types, warnings
            import amorsize
            warnings.simplefilter("ignore")
            def work(n):
                return sum(range(n % 10 + 20_000))
            want = [work(n) for n in range(600)]
            f = amorsize.parallel(work, **{how})
            f.map(range(600))
            class Late:
                def __del__(self, say=print, f=f, want=want):
                    say(f.map(range(600)) == want, sys.is_finalizing(), flush=True)
            # A module of its own is taken apart while there are still builtins.
            sys.modules["holder"] = types.ModuleType("holder")
            sys.modules["holder"].late = Late()
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("True True\n", "", 0)

    @pytest.mark.parametrize(
        "how", ["n_jobs=1", *(f"n_jobs=2, start_method={way!r}" for way in ("fork", "forkserver", "loky"))]
    )
    def test_the_program_s_objects_are_finalized(self, how: str) -> None:
        """Case 40: what is known of functions held the program's globals until nobody could print any more."""
        done = run_program(f"""
            import amorsize
            @amorsize.parallel({how})
            def work(n):
                return n
            class Late:
                def __del__(self):
                    print("finalized", flush=True)
            late = Late()
            import collections.abc
            collections.abc.Sized.register(Late)
            work.map(range(50))
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("finalized\n", "", 0)

    @pytest.mark.parametrize("how", ["{}", "dict(n_jobs=2)", "dict(n_jobs=2, prefer='threads')"])
    def test_maps_in_exit_functions_and_late_threads_are_loops(self, how: str) -> None:
        """The main thread is over then: whatever is started might not be served any more."""
        done = run_program(f"""
            import atexit, threading, warnings
            import amorsize
            warnings.simplefilter("ignore")
            def work(n):
                return sum(range(n % 10 + 20_000))
            want = [work(n) for n in range(600)]
            f = amorsize.parallel(work, **{how})
            def go():
                print(f.map(range(600)) == want == list(f.imap(range(600))), f.last_plan.backend, flush=True)
            atexit.register(go)
            def late():
                while threading.main_thread().is_alive():
                    threading.Event().wait(0.01)
                go()
            threading.Thread(target=late).start()
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("True sequential\n" * 2, "", 0)


class TestGreenlets:
    """Threads that are none."""

    @pytest.mark.parametrize("patch", ["patch_all", "patch_select", "patch_thread"])
    @pytest.mark.parametrize("how", ["loky", "forkserver"])
    def test_loky_and_the_fork_server_are_not_chosen_under_gevent(self, how: str, patch: str) -> None:
        """Case 41: the results were right, but the program did not end; the fork server's answer never came."""
        pytest.importorskip("gevent")
        done = run_program(f"""
            from gevent import monkey
            monkey.{patch}()
            import warnings
            import amorsize
            warnings.simplefilter("ignore")
            f = amorsize.parallel(lambda n: sum(range(n % 7 + 50_000)), n_jobs=2, start_method="{how}")
            print(f.map(range(300)) == [sum(range(n % 7 + 50_000)) for n in range(300)], f.last_plan.backend)
            print(f.last_plan.host.unavailable["{how}"].partition(" replaced")[0])
        """)
        assert done.stdout.splitlines() == ["True sequential", "gevent has"]
        assert done.returncode == 0

    def test_patches_are_seen_by_what_gevent_has_saved(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The patcher is asked, not imported; that it has been imported says nothing yet."""

        class Patcher:
            saved: dict[str, object] = {}  # noqa: RUF012 - as gevent.monkey has it

        monkeypatch.setitem(sys.modules, "gevent.monkey", Patcher)
        assert _blockers.patched_by() == ""
        monkeypatch.setattr(Patcher, "saved", {"threading": {}})
        assert "gevent" in _blockers.patched_by()


def libgomp() -> str:
    """Return GNU's OpenMP library, of the system or of scikit-learn's wheel; empty where there is none."""
    bundled = [str(path) for path in Path(np.__file__).parent.parent.glob("*.libs/libgomp*.so*")]
    return ctypes.util.find_library("gomp") or next(iter(bundled), "")


@pytest.mark.skipif(sys.platform != "linux", reason="fork is only used on Linux")
class TestNativeThreads:
    """Threads of native libraries are told apart by what they are, not by their number."""

    @pytest.mark.skipif(not libgomp(), reason="needs GNU's OpenMP library")
    def test_an_openmp_thread_is_not_taken_for_an_idle_one_of_openblas(self) -> None:
        """Case A: after any fork OpenBLAS has none, and a team of OpenMP made the number right again: a worker hung."""
        done = run_program(f"""
            import ctypes, os
            import numpy as np
            from amorsize._backend import _blas
            import amorsize
            n_idle = _blas.n_threads() - 1   # what OpenBLAS keeps
            first = _blas.foreign_threads()
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            # A team that frees nothing, twice in parallel: its threads stay.
            gomp, free = ctypes.CDLL({libgomp()!r}), ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)
            gomp.GOMP_parallel(free, None, 1 + max(1, n_idle), 0)
            print(repr(first), _blas.n_threads() - 1 == max(1, n_idle), _blas.foreign_threads())
            f = amorsize.parallel(lambda n: sum(range(n % 7 + 50_000)))
            f.map(range(300))
            print(f.last_plan.backend == "fork")
        """)
        first, second = done.stdout.splitlines()
        assert first.startswith("'' True ")
        assert "native librar" in first
        assert "gomp" in first
        assert (second, done.stderr) == ("False", "")

    def test_idle_threads_of_openblas_allow_a_fork_whenever_they_are_there(self) -> None:
        """They are after the import and after a product, and they are not after a fork."""
        done = run_program("""
            import os
            import numpy as np
            from amorsize._backend import _blas
            found = []
            for _ in range(2):
                np.ones((400, 400)) @ np.ones((400, 400))
                found.append((_blas.n_threads() - 1 == _blas.idle_threads(), _blas.foreign_threads()))
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                os.waitpid(pid, 0)
                found.append((_blas.n_threads() - 1 == _blas.idle_threads() == 0, _blas.foreign_threads()))
            print(set(found))
        """)
        if not _blas._openblas_numbers():
            pytest.skip("this build of OpenBLAS does not tell")
        assert (done.stdout, done.stderr) == ("{(True, '')}\n", "")

    def test_a_thread_that_stayed_for_a_while_is_no_library_s(self) -> None:
        """Once it had ended, every further one that was just ending forbade a fork, for as long as the program ran."""
        done = run_program("""
            import _thread, hashlib, threading, time
            from amorsize._backend import _blas
            may_end, text = threading.Event(), b"x" * 30_000_000

            def ask_until_it_is_gone():
                found = [_blas.foreign_threads()]
                while _blas.n_threads() > 1:
                    time.sleep(0.001)
                return [*found, _blas.foreign_threads()]

            _thread.start_new_thread(may_end.wait, ())
            stays = _blas.foreign_threads()
            may_end.set()
            print(bool(stays), ask_until_it_is_gone()[1] == "", _blas._stayed)
            waited_for = 0
            for _ in range(20):  # it computes for 15 ms or more, and waits for a CPU longer where others compute
                _thread.start_new_thread(hashlib.sha256, (text,))
                waited_for += ask_until_it_is_gone()[0] == ""
            print(waited_for > 0)
        """)
        assert (done.stdout, done.stderr) == ("True True 0\nTrue\n", "")

    def test_idle_threads_of_an_openblas_that_hides_its_counts_allow_a_fork(self) -> None:
        """NumPy 2.5's does: nothing was forked any more after it had been imported."""
        done = run_program("""
            import os
            import numpy as np
            import amorsize
            from amorsize._backend import _blas
            _blas._counted = lambda path: None  # as on such a build, whatever this one is
            found = []
            for _ in range(2):
                np.ones((400, 400)) @ np.ones((400, 400))
                found.append(_blas.foreign_threads())
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                os.waitpid(pid, 0)
                found.append(_blas.foreign_threads())
            f = amorsize.parallel(abs, n_jobs=2, start_method="fork")
            print(found, f.map(range(100)) == list(range(100)), f.last_plan.backend)
        """)
        assert (done.stdout, done.stderr) == ("['', '', '', ''] True fork\n", "")

    def test_a_thread_that_python_does_not_know_forbids_a_fork(self) -> None:
        """One that native code has started, say; it is named where it has a name."""
        done = run_program("""
            import _thread, threading
            from amorsize._backend import _blas
            def wait():
                with open("/proc/thread-self/comm", "w") as file:
                    file.write("grpc_timer")
                named.release()
                lock.acquire()
            lock, named = _thread.allocate_lock(), _thread.allocate_lock()
            lock.acquire(), named.acquire()
            _thread.start_new_thread(wait, ())
            named.acquire()
            print(_blas.foreign_threads())
        """)
        assert done.stdout.startswith("1 thread of a native library is alive")
        assert "grpc_timer" in done.stdout


class TestThreadShares:
    """The threads of numerical libraries in a worker come from the same reading as the plan."""

    @pytest.mark.parametrize("how", ["fork", "loky"])
    def test_a_worker_s_share_of_threads_is_of_the_cpus_that_the_plan_has(self, how: str) -> None:
        """House review 7.3: two workers in a container with 2 of 64 CPUs got 32 threads each."""
        if how == "fork" and sys.platform != "linux":
            pytest.skip("fork is only used on Linux")
        done = run_program(
            f"""
            import os
            import amorsize
            f = amorsize.parallel(lambda n: os.environ["OMP_NUM_THREADS"], n_jobs=1, retries=1, start_method="{how}")
            print(set(f.map(range(5))), set(f.imap(range(5))), f.last_plan.backend, f.last_plan.host.n_cpus)
            """,
            LOKY_MAX_CPU_COUNT="1",
        )
        assert (done.stdout, done.stderr) == (f"{{'1'}} {{'1'}} {how} 1\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
class TestForks:
    """What a program does with processes of its own."""

    def test_a_death_where_the_program_ignores_sigchld(self) -> None:
        """Case 26: it was said to have ended by itself with exit code 0; nobody knows."""
        done = run_program("""
            import os, signal, time
            import amorsize
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            def f(n, parent=os.getpid()):
                time.sleep(0.01)
                if n == 30 and os.getpid() != parent:
                    os.kill(os.getpid(), signal.SIGKILL)
                return n
            try:
                amorsize.parallel(f, n_jobs=2, start_method="fork", timeout=50).map(range(60))
            except amorsize.exceptions.WorkerDied as error:
                print(error.cause, error.in_flight)
        """)
        assert (done.stdout, done.stderr) == ("cause unknown, since the program ignores SIGCHLD (30,)\n", "")

    def test_locks_are_free_in_a_forked_copy_of_the_program(self) -> None:
        """House review 7.9: whoever held one as the program forked is not in the copy, which waited for ever."""
        done = run_program("""
            import os, signal, threading
            from amorsize import _host, _known
            from amorsize._backend._clusters import task
            held, over = threading.Barrier(2), threading.Event()
            def hold():
                with _host.BOOK._lock, _known.CACHE._lock, task._opening:
                    held.wait()
                    over.wait()
            thread = threading.Thread(target=hold)
            thread.start()
            held.wait()
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                _host.BOOK.learn("fork", start_s=1.0)
                _known.CACHE.clear()
                with task._opening:
                    os._exit(0)
            print(os.waitpid(pid, 0)[1])
            over.set()
            thread.join()
        """)
        assert done.stdout == "0\n"


@pytest.mark.skipif(sys.platform == "win32", reason="alarms are not there")
class TestAlarms:
    """The alarm that bounds an item in a worker's main thread."""

    @staticmethod
    def other(*_: object) -> None:
        """Be a handler of the user's."""

    def test_an_alarm_that_comes_as_the_item_has_ended(self) -> None:
        """House review 7.11: it was raised out of the clean-up, which then left its handler behind."""
        handlers = []
        call = _chunks.alarmed(lambda _: handlers.append(signal.getsignal(signal.SIGALRM)), 50.0, 0)
        before = signal.getsignal(signal.SIGALRM)
        call(1)
        handlers[0](signal.SIGALRM, None)
        assert signal.getsignal(signal.SIGALRM) is before

    def test_an_item_that_takes_too_long(self) -> None:
        """It is ended, named, and the handler is the one from before."""
        before = signal.getsignal(signal.SIGALRM)
        with pytest.raises(ItemTimeout, match="item 7 took longer"):
            _chunks.alarmed(time.sleep, 0.05, 7)(60)
        assert signal.getsignal(signal.SIGALRM) is before

    def test_a_timer_that_ran_before_goes_on(self) -> None:
        """One that the user has set in a worker was cleared."""
        before = signal.signal(signal.SIGALRM, self.other)
        signal.setitimer(signal.ITIMER_REAL, 500.0, 70.0)
        try:
            _chunks.alarmed(lambda _: None, 50.0, 0)(1)
            left_s, interval_s = signal.getitimer(signal.ITIMER_REAL)
            assert 0 < left_s <= 500
            assert interval_s == pytest.approx(70)
            assert signal.getsignal(signal.SIGALRM) == self.other
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def test_a_timer_of_the_item_itself_stays(self) -> None:
        """It was cleared, and its handler with it."""
        before = signal.getsignal(signal.SIGALRM)

        def item(_: object) -> None:
            signal.signal(signal.SIGALRM, self.other)
            signal.setitimer(signal.ITIMER_REAL, 400.0)

        try:
            _chunks.alarmed(item, 50.0, 0)(1)
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
            assert signal.getsignal(signal.SIGALRM) == self.other
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def test_a_progress_function_that_fails_as_well_is_noted() -> None:
    """House review, swallowed errors: what it raised was hidden behind the item's exception."""

    def fail(*_: object) -> None:
        raise LookupError("no bar")

    def item(_: int) -> None:
        raise ValueError("no item")

    with pytest.raises(ValueError, match="no item") as caught:
        amorsize.parallel(item, progress=fail).map(range(5))
    assert any("LookupError: no bar" in note for note in caught.value.__notes__)
