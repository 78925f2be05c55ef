"""Real clusters on this machine: a Dask scheduler with two worker processes over TCP, and a local Ray."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import pytest
from joblib.externals.loky import get_reusable_executor

import amorsize
from amorsize import _bounds
from amorsize._backend import _clusters, _unfound
from amorsize.exceptions import AmorsizeWarning, WorkerDied
from tests import functions

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINES = ("dask", "ray")

# The engines open sockets, threads and files of their own and warn of their own code.
pytestmark = [
    pytest.mark.filterwarnings("default", "error::amorsize.exceptions.AmorsizeWarning"),
    pytest.mark.timeout(120),
]


def _dask() -> Any:
    """Start a scheduler and two worker processes that talk over TCP on loopback."""
    distributed = pytest.importorskip("distributed", reason="the extra amorsize[dask] is not installed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, protocol="tcp", host="127.0.0.1", dashboard_address=":0"
    )
    return cluster, distributed.Client(cluster)


@pytest.fixture(scope="module")
def dask() -> Iterator[Any]:
    """A Dask client."""
    cluster, client = _dask()
    yield client
    client.close()
    cluster.close()


def _start_ray() -> Any:
    ray = pytest.importorskip("ray", reason="the extra amorsize[ray] is not installed")
    register = pytest.importorskip("ray.util.joblib", reason="the extra amorsize[ray] is not installed")
    ray.init(  # "local": not what another test or program of this machine has running
        "local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
        object_store_memory=100 << 20,
    )  # fmt: skip
    register.register_ray()
    return ray


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A local Ray."""
    module = _start_ray()
    yield module
    module.shutdown()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """An active joblib context on each engine."""
    request.getfixturevalue(request.param)
    with joblib.parallel_config(backend=request.param):
        yield request.param


def spin(n: int) -> int:
    """Compute for a while."""
    return sum(i * i for i in range(n))


# -- decisions -------------------------------------------------------------------------------------------------------


def test_the_plan_names_the_engine_and_what_it_costs(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long work is planned for the cluster, whose costs have been measured on it."""

    @amorsize.parallel
    def long(x: int) -> int:
        time.sleep(0.02)
        return x

    monkeypatch.setattr(_clusters, "_probed", {})
    plan = long.plan(range(400))
    assert (plan.backend, plan.n_jobs) == (engine, 2)
    assert plan.host.context_n_jobs == 2
    assert plan.host.costs[engine].is_measured
    assert plan.host.costs[engine].batch_overhead_s > 0
    assert engine in plan.explain()
    assert amorsize.decide(plan.profile, plan.host, plan.n_items, plan.limits) == plan


def test_small_work_stays_here(engine: str) -> None:
    """Serial stays a candidate."""
    assert functions.square.map(range(100)) == [x * x for x in range(100)]
    assert functions.square.last_plan is not None
    assert not functions.square.last_plan.is_parallel


def test_a_context_may_ask_for_less(engine: str) -> None:
    """``n_jobs`` of the context bounds the plan; one is serial."""
    with joblib.parallel_config(backend=engine, n_jobs=1):
        plan = functions.slow.plan(range(1000))
    assert (plan.n_jobs, plan.host.context_n_jobs) == (1, 1)


# -- the same semantics as local -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_items", [1, 2, 7, 500])
def test_results_come_in_order_from_the_cluster(engine: str, n_items: int) -> None:
    """A map on the cluster is the loop's list, and workers did it."""
    f = functions.where.with_options(n_jobs=2)
    pids = f.map(range(n_items))
    assert len(pids) == n_items
    assert os.getpid() not in pids[5:]
    assert functions.square.with_options(n_jobs=2).map(range(n_items)) == [x * x for x in range(n_items)]


def test_starmap_and_keywords(engine: str) -> None:
    """Unpacked items and constant keyword arguments reach the workers."""
    f = functions.combine.with_options(n_jobs=2)
    pairs = [(i, i + 1) for i in range(50)]
    assert f.starmap(pairs, kwargs={"scale": 3}) == [(a + b) * 3 for a, b in pairs]
    assert f.map(range(50), range(50)) == [2 * i for i in range(50)]


@pytest.mark.parametrize("ordered", [True, False])
def test_imap(engine: str, ordered: bool) -> None:
    """A stream over an endless input gives results one by one and can be closed."""

    def endless() -> Iterator[int]:
        i = 0
        while True:
            yield i
            i += 1

    stream = functions.slow.with_options(n_jobs=2).imap(endless(), ordered=ordered)
    seen = [next(stream) for _ in range(100)]
    stream.close()  # type: ignore[attr-defined]
    assert len(set(seen)) == 100
    assert not ordered or seen == list(range(100))


def test_generators_as_input(engine: str) -> None:
    """A one-shot iterator is read once."""
    assert functions.square.with_options(n_jobs=2).map(i for i in range(300)) == [i * i for i in range(300)]


def test_each_item_runs_once(engine: str, tmp_path: Path) -> None:
    """On success, every item is executed exactly once."""
    path = tmp_path / "log"
    results = functions.logged.with_options(n_jobs=2).map(range(200), kwargs={"path": str(path)})
    assert results == [-x for x in range(200)]
    assert sorted(int(line.split()[0]) for line in path.read_text().splitlines()) == list(range(200))


def test_the_lowest_failing_item_is_raised(engine: str) -> None:
    """Of several failing items the first is raised, with its index in a note."""

    @amorsize.parallel(n_jobs=2)
    def fails(x: int) -> int:
        if x % 10 == 7:
            raise KeyError(x)
        return x

    with pytest.raises(KeyError) as caught:
        fails.map(range(100))
    assert caught.value.args == (7,)
    assert caught.value.__notes__ == ["amorsize: raised by item 7: 7"]


@pytest.mark.parametrize("errors", ["return", "skip"])
def test_error_policies(engine: str, errors: str) -> None:
    """Failed items are returned in their places, or left out."""

    @amorsize.parallel(n_jobs=2, errors=errors)
    def fails(x: int) -> int:
        if x % 3 == 0:
            raise ValueError(x)
        return x

    results = fails.map(range(30))
    good = [x for x in range(30) if x % 3]
    assert [r for r in results if not isinstance(r, ValueError)] == good
    assert len(results) == (30 if errors == "return" else len(good))


class Scaler:
    """A class with a mapped method."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @amorsize.parallel(n_jobs=2)
    def scale(self, x: int) -> int:
        """Return *x* scaled."""
        return x * self.factor


def test_methods_closures_and_lambdas(engine: str) -> None:
    """Whatever can be mapped here can be mapped there."""
    offset = [5]
    closure = amorsize.parallel(lambda x: x + offset[0], n_jobs=2)
    assert closure.map(range(20)) == [x + 5 for x in range(20)]
    assert Scaler(3).scale.map(range(20)) == [3 * x for x in range(20)]


def test_a_large_closure_is_put_on_each_worker_once(engine: str) -> None:
    """What a function holds on to travels once per worker, not once per chunk."""
    table = os.urandom(200_000)
    f = amorsize.parallel(lambda i: table[i], n_jobs=2, batch_size=10)
    assert f.map(range(300)) == list(table[:300])


def test_large_arrays_can_be_written_to(engine: str) -> None:
    """Arrays arrive whole, writable, and come home."""
    numpy = pytest.importorskip("numpy")

    @amorsize.parallel(n_jobs=2)
    def negate(a: Any) -> Any:
        a *= -1
        return a

    arrays = [numpy.full(300_000, float(i)) for i in range(8)]
    results = negate.map(arrays)
    assert [float(r[-1]) for r in results] == [-float(i) for i in range(8)]
    results[0] += 1
    assert float(results[0][0]) == 1.0


def test_timeouts(engine: str) -> None:
    """An item that runs too long is an error at its place; the others are done."""

    @amorsize.parallel(n_jobs=2, timeout=0.5, errors="return")
    def nap(x: float) -> float:
        time.sleep(x)
        return x

    results = nap.map([0.0, 0.01, 20.0, 0.0])
    assert [results[i] for i in (0, 1, 3)] == [0.0, 0.01, 0.0]
    assert isinstance(results[2], TimeoutError)


def test_nested_maps_are_serial(engine: str) -> None:
    """A map inside a worker of the cluster is a loop."""

    @amorsize.parallel(n_jobs=2)
    def outer(x: int) -> list[int]:
        inner = amorsize.parallel(spin, n_jobs=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return inner.map([x, x + 1])

    with warnings.catch_warnings():
        # The scheduler of a local Dask draws from random, in this process, while it gathers what the sample's own map
        # has computed; nobody can tell that from a draw of the function.
        warnings.filterwarnings("ignore", ".*outer: the function changes the generator of random", AmorsizeWarning)
        results = outer.map(range(6))
    assert results == [[spin(x), spin(x + 1)] for x in range(6)]


# -- modules that workers lack ---------------------------------------------------------------------------------------

MODULE = """
class Thing:
    def __init__(self, x):
        self.x = x

    def __mul__(self, other):
        return self.x * other.x

OFFSET = 10

def helper(x):
    return x + OFFSET

def f(thing):
    return Thing(helper(thing.x))
"""


def test_a_module_that_workers_lack_goes_by_value(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Function, helpers, and classes of items and results travel, and a warning says so; classes stay the same."""
    name = f"only_here_{engine}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)  # the workers have been started with another path
    module = importlib.import_module(name)
    try:
        f = amorsize.parallel(module.f, n_jobs=2)
        with pytest.warns(AmorsizeWarning, match=rf"{name}.*by value to the {engine} workers: [\d,]+ bytes"):
            results = f.map([module.Thing(i) for i in range(40)])
        assert [r.x for r in results] == [i + 10 for i in range(40)]
        assert all(type(r) is module.Thing for r in results)
        # The function is found there, its items are not.
        with pytest.warns(AmorsizeWarning, match=rf"{name}.*by value to the {engine} workers"):
            squares = functions.square.with_options(n_jobs=2).map([module.Thing(i) for i in range(40)])
        assert squares == [i * i for i in range(40)]
        assert not _unfound.LACKING
    finally:
        del sys.modules[name]


# -- scripts ---------------------------------------------------------------------------------------------------------

STARTS = {
    "dask": "import distributed\n"
    "    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, protocol='tcp',\n"
    "        host='127.0.0.1', dashboard_address=None)\n"
    "    client = distributed.Client(cluster)",
    "ray": "import ray\n"
    "    from ray.util.joblib import register_ray\n"
    "    ray.init('local', num_cpus=2, include_dashboard=False, logging_level='ERROR', log_to_driver=False)\n"
    "    register_ray()",
}

SCRIPT = """
import joblib, amorsize

class Point:
    def __init__(self, x):
        self.x = x

def moved(point):
    return Point(point.x + OFFSET)

OFFSET = 10

if __name__ == "__main__":
    {start}
    OFFSET = 20
    with joblib.parallel_config(backend="{engine}"):
        f = amorsize.parallel(moved, n_jobs=2)
        points = f.map([Point(i) for i in range(50)])
        print(f.last_plan.backend, [p.x for p in points] == list(range(20, 70)), {{type(p) is Point for p in points}})
"""


@pytest.mark.parametrize("name", ENGINES)
def test_functions_and_classes_of_a_script(name: str, tmp_path: Path) -> None:
    """What a script defines goes by value, with the globals it names as they are now; its classes stay the same."""
    pytest.importorskip({"dask": "distributed"}.get(name, name), reason=f"the extra amorsize[{name}] is not installed")
    import subprocess  # noqa: PLC0415 - only here

    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(start=STARTS[name], engine=name))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout.strip().splitlines()[-1:] == [f"{name} True {{True}}"], done.stderr


# -- other backends --------------------------------------------------------------------------------------------------


class Foreign(joblib.parallel.LokyBackend):
    """A backend of the user's own, which amorsize knows nothing of; workers are loky's."""


def test_a_backend_that_the_user_has_registered(tmp_path: Path) -> None:
    """Its workers carry the chunks, as Spark's would: order, errors and exactly once hold, and the plan names it."""
    joblib.register_parallel_backend("foreign", Foreign)
    try:
        with joblib.parallel_config(backend="foreign", n_jobs=2):
            path = tmp_path / "log"
            f = functions.logged.with_options(n_jobs=2)
            assert f.map(range(100), kwargs={"path": str(path)}) == [-x for x in range(100)]
            assert f.last_plan is not None
            assert f.last_plan.backend == "foreign"
            assert sorted(int(line.split()[0]) for line in path.read_text().splitlines()) == list(range(100))
            assert os.getpid() not in functions.where.with_options(n_jobs=2).map(range(100))[5:]
            with pytest.raises(ZeroDivisionError) as caught:
                amorsize.parallel(lambda x: 1 // (x - 30), n_jobs=2).map(range(100))
            assert caught.value.__notes__ == ["amorsize: raised by item 30: 30"]
    finally:
        del joblib.parallel.BACKENDS["foreign"]
        # joblib's own pool, whose threads would forbid the forks of later tests.
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


# -- deaths ----------------------------------------------------------------------------------------------------------


CALLER = "AMORSIZE_TESTS_CALLER"


def die() -> None:
    """End this process, unless it is the one that runs the tests."""
    if os.environ.get(CALLER) == str(os.getpid()):  # no assert: pytest rewrites it, which makes this other code
        raise RuntimeError("the item runs in the caller")
    os._exit(1)


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say which process runs the tests."""
    monkeypatch.setenv(CALLER, str(os.getpid()))


def kill_once(x: int, path: str) -> int:
    """Kill the worker, the first time item 30 comes."""
    if x == 30:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return x
        die()
    time.sleep(1e-3)
    return x


def test_dask_recovers_from_a_killed_worker(dask: Any, caller: None, tmp_path: Path) -> None:
    """The engine's own recovery gives the right result."""
    f = amorsize.parallel(kill_once, n_jobs=2)
    with joblib.parallel_config(backend="dask"):
        assert f.map(range(200), kwargs={"path": str(tmp_path / "died")}) == list(range(200))


def test_ray_names_the_items_of_a_killed_worker(ray: Any, caller: None, tmp_path: Path) -> None:
    """Ray runs nothing twice unless allowed: the death is an error that names items and keeps results."""
    f = amorsize.parallel(kill_once, n_jobs=2)
    with joblib.parallel_config(backend="ray"):
        with pytest.raises(WorkerDied) as caught:
            f.map(range(200), kwargs={"path": str(tmp_path / "one")})
        assert 30 in caught.value.in_flight
        assert all(result == index for index, result in caught.value.results.items())
        again = f.with_options(retries=2)
        assert again.map(range(100), kwargs={"path": str(tmp_path / "two")}) == list(range(100))


def test_a_function_that_always_kills_its_worker_ends_in_an_error(engine: str, caller: None) -> None:
    """No endless recovery: the error comes, and the cluster can be used afterwards."""

    @amorsize.parallel(n_jobs=2)
    def kills(x: int) -> int:
        if x == 12:
            die()
        return x

    with pytest.raises(WorkerDied):
        kills.map(range(20))
    assert functions.square.with_options(n_jobs=2).map(range(20)) == [x * x for x in range(20)]


def test_retries_name_the_item_that_kills_its_worker(engine: str, caller: None) -> None:
    """The others finish; Dask tries its own way first, and gives up by its own count."""

    @amorsize.parallel(n_jobs=2, retries=1, errors="return")
    def kills(x: int) -> int:
        if x == 12:
            die()
        return x

    found = kills.map(range(40))
    assert [x for x in found if not isinstance(x, Exception)] == [x for x in range(40) if x != 12]
    assert isinstance(found[12], WorkerDied)
    assert found[12].in_flight == (12,)


def test_a_dask_cluster_that_grows_and_shrinks() -> None:
    """Workers that come are used; those that leave take nothing with them."""
    cluster, client = _dask()
    try:
        cluster.scale(3)
        client.wait_for_workers(3, timeout=30)
        with joblib.parallel_config(backend="dask"):
            assert functions.slow.plan(range(1000)).host.context_n_jobs == 3
            leaving = threading.Timer(0.2, cluster.scale, (1,))
            leaving.start()
            assert functions.slow.with_options(n_jobs=3).map(range(600)) == list(range(600))
            leaving.join()
    finally:
        client.close()
        cluster.close()


@pytest.mark.parametrize("what", ["client", "workers", "scheduler"])
def test_a_dask_cluster_that_disappears(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes away in mid-run, the call ends with an error that says so."""
    monkeypatch.setattr(_bounds, "GONE_S", 2.0)
    cluster, client = _dask()
    gone = threading.Timer(0.5, {"client": client.close, "workers": lambda: cluster.scale(0)}.get(what, cluster.close))
    try:
        with joblib.parallel_config(backend="dask", wait_for_workers_timeout=2):
            functions.slow.plan(range(5000))  # measures the cluster, which is then not lost while it is measured
            gone.start()
            with pytest.raises(WorkerDied, match=r"[Dd]ask|lost|cancel"):
                functions.slow.with_options(n_jobs=2).map(range(5000))
    finally:
        gone.join()
        client.close(timeout=1)
        cluster.close()


def test_without_a_cluster_joblib_says_so() -> None:
    """No client: joblib's own error, when the context is made."""
    pytest.importorskip("distributed", reason="the extra amorsize[dask] is not installed")
    code = "import joblib\ntry:\n    joblib.parallel_config(backend='dask')\nexcept ValueError: print('said so')"
    # In another process: a client of this one must not be found.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "said so"


RAY_NODES = """
import concurrent.futures, joblib, time, amorsize, ray
from ray.cluster_utils import Cluster
from ray.util.joblib import register_ray
from amorsize import _bounds
from tests import functions

room = {"object_store_memory": 80 << 20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **room})
first = cluster.add_node(num_cpus=2, **room)
ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
register_ray()
_bounds.NO_CPU_S = 2.0
slow = functions.slow.with_options(n_jobs=3, retries=3)

def n_jobs():
    with joblib.parallel_config(backend="ray"):
        return slow.plan(range(1000)).host.context_n_jobs

def is_right(n_items):
    with joblib.parallel_config(backend="ray"):
        return slow.map(range(n_items)) == list(range(n_items))

with concurrent.futures.ThreadPoolExecutor(1) as pool:  # nodes are started and ended by the main thread only
    print("before:", n_jobs())
    running = pool.submit(is_right, 1500)
    time.sleep(0.3)
    second = cluster.add_node(num_cpus=1, **room)
    cluster.wait_for_nodes()
    print("while it grows:", running.result(60))
    print("after:", n_jobs())
    running = pool.submit(is_right, 1500)
    time.sleep(0.5)
    cluster.remove_node(second)
    print("while it shrinks:", running.result(60))
    running = pool.submit(is_right, 20000)
    time.sleep(0.5)
    cluster.remove_node(first)
    error = running.exception(60)
    print("without CPUs:", isinstance(error, amorsize.exceptions.WorkerDied), "Ray" in str(error))
ray.shutdown()
cluster.shutdown()
"""


def test_a_ray_cluster_that_grows_shrinks_and_disappears() -> None:
    """Nodes that come are used, those that leave cost a retry, and without any the call ends."""
    pytest.importorskip("ray", reason="the extra amorsize[ray] is not installed")
    done = _run_in_own_process(RAY_NODES)
    assert done.stdout.splitlines() == [
        "before: 2",
        "while it grows: True",
        "after: 3",
        "while it shrinks: True",
        "without CPUs: True True",
    ], done.stderr


def _run_in_own_process(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program that starts Ray, of which there is one per process."""
    root = str(Path(__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False, env=env, cwd=root
    )


def test_ray_that_is_shut_down_in_mid_run() -> None:
    """The call ends with an error; runs in a process of its own, since Ray is one per process."""
    pytest.importorskip("ray", reason="the extra amorsize[ray] is not installed")
    code = (
        "import threading, joblib, amorsize, ray, time\n"
        "from ray.util.joblib import register_ray\n"
        "from tests import functions\n"
        "ray.init('local', num_cpus=2, include_dashboard=False, logging_level='ERROR', log_to_driver=False)\n"
        "register_ray()\n"
        "with joblib.parallel_config(backend='ray'):\n"
        "    functions.slow.with_options(n_jobs=2).map(range(50))\n"
        "    threading.Timer(0.5, ray.shutdown).start()\n"
        "    try:\n"
        "        functions.slow.with_options(n_jobs=2).map(range(5000))\n"
        "    except amorsize.exceptions.WorkerDied as error:\n"
        "        print('ended:', error)\n"
    )
    done = _run_in_own_process(code)
    assert "ended:" in done.stdout, done.stderr
