"""Names of other libraries that are not public and that amorsize leans on: each has a test that fails when it goes."""

from __future__ import annotations

import _multiprocessing
import ctypes
import importlib
import inspect
import logging
import multiprocessing.process
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import pickle
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import joblib
import joblib.executor
import pytest
from joblib import _parallel_backends
from joblib.externals import loky
from joblib.externals.loky import reusable_executor
from joblib.externals.loky.backend import resource_tracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def executor() -> Iterator[Any]:
    """An executor of loky's that has started no worker."""
    made = loky.ProcessPoolExecutor(max_workers=1)
    yield made
    made.shutdown()


class TestLoky:
    """``_backend/_local.py``, ``_loky_inside.py``, ``_joblib_workers.py`` and ``_files.py``."""

    @pytest.mark.parametrize("name", ["broken", "shutdown", "shutdown_lock"])
    def test_flags_of_an_executor(self, executor: Any, name: str) -> None:
        """Whether it can take tasks."""
        assert hasattr(executor._flags, name)

    @pytest.mark.parametrize("name", ["_processes", "_pending_work_items"])
    def test_mappings_of_an_executor(self, executor: Any, name: str) -> None:
        """Its processes by their ids, and its tasks by their numbers."""
        assert dict(getattr(executor, name)) == {}

    def test_the_manager_of_an_executor(self, executor: Any) -> None:
        """The thread that answers; there is none yet."""
        assert executor._executor_manager_thread is None

    def test_the_queue_of_an_executor(self, executor: Any) -> None:
        """Its thread feeds the workers."""
        assert hasattr(executor._call_queue, "_thread")

    def test_the_numbers_of_waiting_tasks(self, executor: Any) -> None:
        """They wait in a queue."""
        assert executor._work_ids.empty()

    def test_the_executor_that_joblib_reuses(self) -> None:
        """Whether its workers are warm."""
        assert hasattr(reusable_executor, "_executor")

    @pytest.mark.parametrize("name", ["register", "unregister"])
    def test_files_that_its_tracker_removes(self, name: str) -> None:
        """After a crash."""
        assert callable(getattr(resource_tracker, name))


class TestJoblib:
    """``_backend/_local.py``, ``_backend/_joblib*.py`` and ``_backend/_clusters``."""

    def test_the_active_context(self) -> None:
        """Is held by thread, in an attribute that is there while a context is active."""
        with joblib.parallel_config("threading"):
            assert joblib.parallel._backend.config["backend"].__class__.__name__ == "ThreadingBackend"

    def test_the_registered_backends(self) -> None:
        """By their names."""
        assert joblib.parallel.BACKENDS["loky"] is _parallel_backends.LokyBackend

    def test_a_batch_has_its_items(self) -> None:
        """Function, arguments and keywords of each."""
        batch = joblib.parallel.BatchedCalls([(abs, (1,), {})], (None, 1))
        assert batch.items == [(abs, (1,), {})]

    @pytest.mark.parametrize("name", ["_original_iterator", "_id", "n_tasks", "return_ordered"])
    def test_attributes_of_a_call(self, name: str) -> None:
        """Whether more items are to come, in which folder arrays are mapped, how many results come in what order."""
        seen = []

        class Seeing(joblib.Parallel):
            def _get_outputs(self, *args: Any) -> Any:
                seen.append(hasattr(self, name))
                return super()._get_outputs(*args)

        Seeing(n_jobs=2, backend="threading")([joblib.delayed(abs)(1)])
        assert seen == [True]

    def test_the_folder_of_a_call(self) -> None:
        """Is set by the backend, before a batch is pickled."""
        assert "_reducer_callback" in inspect.getsource(joblib.parallel)
        assert "_temp_folder_manager" in inspect.getsource(joblib.executor)


class TestStandardLibrary:
    """Here and there; the names are those of CPython."""

    def test_the_event_of_a_thread_that_has_started(self) -> None:
        """``_async.py`` puts another one there, for which ``start`` does not wait."""
        assert isinstance(threading.Thread()._started, threading.Event)  # type: ignore[attr-defined]

    def test_children_of_multiprocessing(self) -> None:
        """``_backend/_loky_inside.py``: processes that a fork has not inherited."""
        assert isinstance(multiprocessing.process._children, set)

    def test_finalizers_of_multiprocessing(self) -> None:
        """``_backend/_local.py`` and ``_backend/_files.py``: what is done at the end of a worker, by priority."""
        assert callable(multiprocessing.util.Finalize)
        assert callable(multiprocessing.resource_tracker.ensure_running)

    @pytest.mark.skipif(sys.platform == "win32", reason="named otherwise there")
    def test_semaphores(self) -> None:
        """``_backend/_blockers.py``: whether the system has any, asked as multiprocessing does."""
        name = f"/amorsize-test-{os.getpid()}-{os.urandom(4).hex()}"
        lock = _multiprocessing.SemLock(0, 1, 1, name, True)
        assert lock.acquire(False) is True

    def test_the_unpickler_in_python(self) -> None:
        """``_backend/_pickles.py``: its instructions by their codes, and its stack."""
        kind: Any = pickle._Unpickler
        assert {pickle.REDUCE[0], pickle.NEWOBJ[0], pickle.BUILD[0], pickle.FROZENSET[0]} <= set(kind.dispatch)
        assert callable(kind.pop_mark)
        assert callable(kind.load_build)

    def test_lists_of_logging(self) -> None:
        """``_backend/_output.py``: the handlers that there are, and when the program began."""
        handler = logging.NullHandler()
        assert handler in [reference() for reference in logging._handlerList]
        assert isinstance(logging._startTime, int | float)

    def test_functions_of_warnings(self) -> None:
        """``_backend/_output.py``: what shows a warning where nobody has replaced showwarning."""
        assert callable(warnings._showwarning_orig)
        assert callable(warnings._showwarnmsg_impl)

    def test_a_module_that_is_being_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """``_modules.py``: says so in its specification."""
        (tmp_path / "being_imported.py").write_text("then = __spec__._initializing")
        monkeypatch.syspath_prepend(tmp_path)
        assert importlib.import_module("being_imported").then is True
        assert not sys.modules.pop("being_imported").__spec__._initializing

    def test_an_exception_for_another_thread(self) -> None:
        """``_backend/_clusters/task.py``: how an item is ended that takes too long."""
        nobody = ctypes.c_ulong(threading.get_native_id() ^ 0x5A5A5A5A)
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(nobody, ctypes.py_object(SystemExit)) == 0

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="since 3.13")
    def test_the_interpreter_says_whether_it_has_its_lock(self) -> None:
        """``_host.py``."""
        assert isinstance(sys._is_gil_enabled(), bool)


def test_the_random_state_of_numpy() -> None:
    """``_analysis/observation.py``: the one that numpy.random's functions draw from."""
    numpy = pytest.importorskip("numpy")
    assert (numpy.random.mtrand._rand.get_state()[1] == numpy.random.get_state()[1]).all()
