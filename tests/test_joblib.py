"""``joblib.parallel_config("amorsize")``: existing Parallel calls under amorsize's decisions."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import joblib
import psutil
import pytest
from joblib import Parallel, delayed
from joblib.parallel import ParallelBackendBase

import amorsize
from amorsize import _records
from amorsize._adopt import register_joblib
from amorsize._backend import _clusters, _joblib, _joblib_run, _weights
from amorsize.exceptions import UnpicklableResult, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Iterator

# sklearn and joblib touch code that warns of its own; what is tested here is the results.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


needs_server = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is only used on Linux")


@pytest.fixture(autouse=True, scope="module")
def own_workers() -> Iterator[None]:
    """End joblib's workers afterwards: the threads that serve them would keep other tests from forking."""
    yield
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register the backend, and make it the context's; what other tests came to is forgotten."""
    register_joblib()
    _joblib_run._seen.clear()
    with joblib.parallel_config("amorsize"):
        yield


def power(x: int) -> int:
    """Return the square."""
    return x * x


def spin(n: int) -> int:
    """Compute for a while."""
    return sum(i * i for i in range(n))


def where(seconds: float) -> tuple[int, int]:
    """Return process and thread, after a while."""
    time.sleep(seconds)
    return os.getpid(), threading.get_ident()


def fails_from(x: int, first: int) -> int:
    """Raise from an item on."""
    if x >= first:
        raise KeyError(x)
    return x


def nested(x: int) -> list[int]:
    """Use joblib inside a task."""
    return Parallel(n_jobs=2)(delayed(power)(x + i) for i in range(3))


@pytest.mark.parametrize("n_items", [0, 1, 2, 5, 1000])
def test_results_come_in_order(n_items: int) -> None:
    """Any number of items gives the list that the loop gives."""
    assert Parallel(n_jobs=2)(delayed(power)(i) for i in range(n_items)) == [i * i for i in range(n_items)]


@pytest.mark.parametrize("options", [
    {"batch_size": 3},
    {"pre_dispatch": "all"},
    {"prefer": "threads"},
    {"require": "sharedmem"},
    {"n_jobs": 1},
    {"n_jobs": -1},
    {"n_jobs": None},
    {"timeout": 60},
])  # fmt: skip
def test_every_option_of_parallel_works(options: dict[str, Any]) -> None:
    """Options of Parallel change how, never what."""
    expected = [spin(2000)] * 300
    assert Parallel(**{"n_jobs": 2, **options})(delayed(spin)(2000) for _ in range(300)) == expected


@pytest.mark.parametrize("way", ["generator", "generator_unordered"])
def test_generators(way: str) -> None:
    """Results can be had one by one."""
    results = Parallel(n_jobs=2, return_as=way)(delayed(power)(i) for i in range(50))
    assert sorted(results) == [i * i for i in range(50)]


def test_an_open_parallel_can_be_called_again_and_again() -> None:
    """``with Parallel() as parallel`` keeps what it has from call to call."""
    with Parallel(n_jobs=2) as parallel:
        for n_items in (0, 3, 100):
            assert parallel(delayed(power)(i) for i in range(n_items)) == [i * i for i in range(n_items)]


def test_short_work_stays_in_the_calling_thread() -> None:
    """Work of microseconds starts nothing; on a busy machine one of ten rounds may look long, but not all."""
    here = (os.getpid(), threading.get_ident())
    rounds = [set(Parallel(n_jobs=2)(delayed(where)(0) for _ in range(10))) for _ in range(10)]
    assert {here} in rounds


def test_one_task_that_was_held_up_is_not_remembered() -> None:
    """Of ten tasks of nothing, one waited 10 ms for a core: every later call went to workers."""
    here = (os.getpid(), threading.get_ident())
    rounds = []
    for _ in range(10):
        Parallel(n_jobs=2)(delayed(where)(0.01 if i == 0 else 0.0) for i in range(10))
        rounds.append(set(Parallel(n_jobs=2)(delayed(where)(0.0) for _ in range(10))))
    assert {here} in rounds


def test_long_work_goes_to_workers() -> None:
    """A long item starts workers while the caller is still inside it; the caller's own part is not thrown away."""
    pids = {pid for pid, _ in Parallel(n_jobs=2)(delayed(where)(0.15) for _ in range(16))}
    assert os.getpid() in pids
    assert len(pids) > 1


def test_what_a_call_came_to_is_remembered() -> None:
    """The next call over such tasks does not hesitate; one that finds them short begins here again."""
    for _ in range(2):
        pids = [pid for pid, _ in Parallel(n_jobs=2)(delayed(where)(0.05) for _ in range(40))]
    assert os.getpid() not in pids
    short = [pid for pid, _ in Parallel(n_jobs=2)(delayed(where)(0.0) for _ in range(40))]
    again = [pid for pid, _ in Parallel(n_jobs=2)(delayed(where)(0.0) for _ in range(40))]
    assert os.getpid() not in short
    assert again[0] == os.getpid()


def test_threads_where_the_call_prefers_them() -> None:
    """``prefer="threads"`` overlaps in this very process."""
    places = Parallel(n_jobs=2, prefer="threads")(delayed(where)(0.02) for _ in range(20))
    assert {pid for pid, _ in places} == {os.getpid()}
    assert len({thread for _, thread in places}) > 1


@pytest.mark.parametrize("seconds", [0.0, 0.06])
def test_the_first_failing_item_is_raised(seconds: float) -> None:
    """The exception is the function's own, of the lowest index, and the next call works."""

    def task(i: int) -> int:
        time.sleep(seconds)
        return fails_from(i, 5)

    with pytest.raises(KeyError) as caught:
        Parallel(n_jobs=2)(delayed(task)(i) for i in range(20))
    assert caught.value.args == (5,)
    assert Parallel(n_jobs=2)(delayed(power)(i) for i in range(5)) == [0, 1, 4, 9, 16]


def test_an_error_of_the_input_is_raised() -> None:
    """An exception of the generator of tasks reaches the caller."""

    def tasks() -> Iterator[Any]:
        yield delayed(power)(1)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        Parallel(n_jobs=2)(tasks())


def test_timeouts_are_kept() -> None:
    """With a timeout nothing runs in the caller, so that it can give up."""
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(n_jobs=2, timeout=0.2)(delayed(time.sleep)(5) for _ in range(2))


def test_nested_calls_run_one_after_the_other() -> None:
    """A Parallel inside a task gives what it should."""
    assert Parallel(n_jobs=2)(delayed(nested)(i) for i in range(4)) == [
        [(i + j) ** 2 for j in range(3)] for i in range(4)
    ]


def test_a_map_of_ours_under_this_context_is_local() -> None:
    """``f.map`` sees a context of local processes, and its ``n_jobs``."""

    @amorsize.parallel
    def f(x: int) -> int:
        return -x

    with joblib.parallel_config("amorsize", n_jobs=1):
        assert f.map(range(10)) == [-x for x in range(10)]
        assert f.plan(range(10)).host.context_n_jobs == 1


def test_every_item_runs_once(tmp_path: Any) -> None:
    """While work moves from the caller to workers, nothing is done twice."""
    path = str(tmp_path / "log")

    def task(i: int) -> int:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{i}\n".encode())
        os.close(handle)
        return spin(60_000) * 0 + i

    assert Parallel(n_jobs=2)(delayed(task)(i) for i in range(150)) == list(range(150))
    with open(path) as file:  # noqa: PTH123 - as written
        assert sorted(map(int, file)) == list(range(150))


def test_large_arrays_travel_as_joblib_sends_them() -> None:
    """Arrays above *max_nbytes* are memory maps in workers, and weigh nothing."""
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(400_000.0)
    assert _weights.weigh((sum, (array,), {}), 1, 1 << 20).arg_bytes < 1000
    assert _weights.weigh((sum, (array,), {}), 1, None).arg_bytes > array.nbytes
    totals = Parallel(n_jobs=2, timeout=60)(delayed(numpy.sum)(array + i) for i in range(6))
    assert totals == [float((array + i).sum()) for i in range(6)]


def test_what_tasks_share_is_weighed_once() -> None:
    """scikit-learn gives all tasks the same data, which a batch holds once: not each task's, but the batch's."""
    data = bytes(100_000)
    one, other = ((len, (data, i), {"same": data}) for i in range(2))
    alone = _weights.weigh(one, 1, None)
    shared = _weights.shared(alone, one, other, None)
    assert shared.arg_bytes < 1000
    assert shared.batch_bytes > len(data)
    assert shared.arg_bytes + shared.batch_bytes == alone.arg_bytes
    assert shared.pickle_s + shared.batch_s == pytest.approx(alone.pickle_s)
    one, other = ((len, (bytes([i]) * 100_000,), {}) for i in range(2))
    alone = _weights.weigh(one, 1, None)
    assert _weights.shared(alone, one, other, None) == alone


def test_the_engine_is_asked_with_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine says is done: it is told seconds per item, sizes, and the most jobs."""
    seen: list[tuple[_records.Profile, int | None, int]] = []
    engine = _joblib.AmorsizeBackend.engine

    class Never:
        def decide(self, way: str, profile: Any, n_items: Any, n_jobs: int, costs: Any) -> Any:
            seen.append((profile, n_items, n_jobs))
            return replace(engine.decide(way, profile, n_items, n_jobs, costs), backend="sequential", n_jobs=1)

        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

    monkeypatch.setattr(_joblib.AmorsizeBackend, "engine", Never())
    here = os.getpid()
    assert {pid for pid, _ in Parallel(n_jobs=2)([delayed(where)(0.1) for _ in range(5)])} == {here}
    assert seen
    assert all(n_jobs == 2 for _, _, n_jobs in seen)
    assert all(profile.item_s > 0 for profile, _, _ in seen)


@pytest.fixture
def no_server() -> Iterator[None]:
    """Begin and end without workers of the fork server."""
    amorsize.shutdown()
    yield
    amorsize.shutdown()


def chain() -> tuple[int, str]:
    """Say which process this is, and what started it."""
    time.sleep(0.05)
    return os.getpid(), psutil.Process(os.getppid()).cmdline()[-1]


@needs_server
@pytest.mark.usefixtures("no_server")
class TestServer:
    """Workers are the fork server's: no loky beside it."""

    def test_workers_are_the_fork_server_s(self) -> None:
        """With threads alive or without; the next call has the same ones."""
        over = threading.Event()
        thread = threading.Thread(target=over.wait)
        thread.start()
        try:
            first = set(Parallel(n_jobs=2, timeout=60)(delayed(chain)() for _ in range(8)))
            assert len(first) == 2
            assert all("amorsize" in started for _, started in first)
            assert set(Parallel(n_jobs=2, timeout=60)(delayed(chain)() for _ in range(8))) == first
        finally:
            over.set()
            thread.join()

    def test_a_long_item_of_the_caller_keeps_no_worker_waiting(self) -> None:
        """While the caller is inside its first item, workers do the others, more than they were given at first."""
        tasks = [delayed(where)(3.0), *[delayed(where)(0.05) for _ in range(16)]]
        places = [pid for pid, _ in Parallel(n_jobs=2, batch_size=1)(tasks)]
        assert places[0] == os.getpid()
        assert os.getpid() not in places[1:]

    def test_functions_and_classes_without_a_module_reach_workers(self) -> None:
        """By value, as joblib sends them."""
        n = 5
        assert Parallel(n_jobs=2, timeout=60)(delayed(lambda x: x + n)(i) for i in range(10)) == list(range(5, 15))

    def test_a_worker_that_dies_is_an_error_and_the_next_call_works(self) -> None:
        """The call ends; nothing is left of it."""
        with pytest.raises(WorkerDied):
            Parallel(n_jobs=2, timeout=60)(delayed(os._exit)(1) for _ in range(4))
        assert Parallel(n_jobs=2, timeout=60)(delayed(power)(i) for i in range(5)) == [0, 1, 4, 9, 16]

    def test_a_result_that_cannot_be_pickled_is_an_error(self) -> None:
        """As with joblib's own workers."""
        with pytest.raises(UnpicklableResult):
            Parallel(n_jobs=2, timeout=60)(
                delayed(iter)(range(3)) if i else delayed(threading.Lock)() for i in range(4)
            )

    def test_a_call_given_up_ends_its_workers(self) -> None:
        """A timeout leaves nothing running, and the next call has other workers."""
        with pytest.raises(multiprocessing.TimeoutError):
            Parallel(n_jobs=2, timeout=0.5)(delayed(time.sleep)(60) for _ in range(4))
        assert Parallel(n_jobs=2, timeout=60)(delayed(power)(i) for i in range(5)) == [0, 1, 4, 9, 16]

    def test_where_no_server_can_be_had_joblib_s_own_workers_are_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The system may refuse one."""

        def refuse(*_: object) -> None:
            raise OSError(11, "no more processes")

        monkeypatch.setattr(type(_joblib.AmorsizeBackend.engine), "pool", refuse)
        assert Parallel(n_jobs=2, timeout=60)(delayed(power)(i) for i in range(5)) == [0, 1, 4, 9, 16]


def test_what_plain_pickle_refuses_is_weighed_by_value() -> None:
    """It counted nothing, so that closures over megabytes were sent as if they were numbers."""
    data = bytes(1 << 20)
    assert _weights.weigh((map, (lambda: data,), {}), 1, None).arg_bytes > len(data)


def test_tasks_that_cannot_be_sent_stay_here() -> None:
    """Joblib's own workers fail on them; the loop does not."""
    lock = threading.Lock()
    places = [pid for pid, _ in Parallel(n_jobs=2)(delayed(holding)(lock, 0.03) for _ in range(20))]
    assert set(places) == {os.getpid()}


def holding(lock: Any, seconds: float) -> tuple[int, int]:
    """Do something with a lock."""
    with lock:
        return where(seconds)


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    """A small classification problem."""
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    X, y = datasets.make_classification(400, 10, random_state=0)  # noqa: N806 - as in scikit-learn
    return X, y


def fit(kind: str, data: tuple[Any, Any]) -> Any:
    """Fit an estimator; returns what there is to compare."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 - not everywhere installed
    from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: PLC0415 - not everywhere installed
    from sklearn.svm import SVC  # noqa: PLC0415 - not everywhere installed
    from sklearn.tree import DecisionTreeClassifier  # noqa: PLC0415 - not everywhere installed

    X, y = data  # noqa: N806 - as in scikit-learn
    if kind == "grid":
        search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}, n_jobs=2, cv=3).fit(X, y)
        return search.cv_results_["mean_test_score"]
    if kind == "cross":
        return cross_val_score(DecisionTreeClassifier(random_state=0), X, y, n_jobs=2, cv=5)
    return RandomForestClassifier(40, random_state=0, n_jobs=2).fit(X, y).predict_proba(X)


@pytest.mark.parametrize("kind", ["grid", "cross", "forest"])
def test_scikit_learn_gives_identical_results(kind: str, data: tuple[Any, Any]) -> None:
    """Estimators give bit for bit what they give under joblib's own backend."""
    ours = fit(kind, data)
    with joblib.parallel_config("loky"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = fit(kind, data)
    assert ours.tolist() == theirs.tolist()


class Silent(ParallelBackendBase):
    """A cluster that takes tasks and never answers."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Claim two workers."""
        del n_jobs
        return 2

    def configure(self, *_: Any, **__: Any) -> int:
        """Be ready."""
        return 2

    def submit(self, func: Any, callback: Any = None) -> None:
        """Do nothing."""


def test_a_stream_on_a_cluster_that_does_not_answer_goes_on_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``map`` does, and with the same warning; it raised."""
    joblib.register_parallel_backend("silent", Silent)
    monkeypatch.setattr(_clusters, "_probed", {})
    with joblib.parallel_config("silent"):
        backend = joblib.parallel.get_active_backend()[0]
        _clusters._probed[_clusters.identity(backend)] = "no answer from the silent cluster"
        chosen = amorsize.parallel(slowly, n_jobs=2)
        with pytest.warns(amorsize.exceptions.AmorsizeWarning, match="no answer from the silent cluster"):
            assert list(chosen.imap(range(20))) == list(range(20))


def slowly(x: int) -> int:
    """Take a while."""
    time.sleep(0.01)
    return x
