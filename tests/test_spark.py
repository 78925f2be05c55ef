"""A real Spark on this machine, through joblib's backend for it: one that calls back with results, not with futures."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import joblib
import pytest

import amorsize

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.filterwarnings("default", "error::amorsize.exceptions.AmorsizeWarning"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[Any]:
    """A session with two workers on loopback, and joblib's context on it."""
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    backend = pytest.importorskip("joblibspark", reason="joblibspark is not installed")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        builder = sql.SparkSession.builder.master("local[2]")
        options = {"ui.enabled": "false", "driver.host": "127.0.0.1", "driver.bindAddress": "127.0.0.1"}
        for name, value in options.items():
            builder = builder.config(f"spark.{name}", value)
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("OFF")
        backend.register_spark()
        with joblib.parallel_config(backend="spark"):
            yield session
        session.stop()


def slowly(x: int) -> int:
    """Take a while; refuse two items."""
    time.sleep(0.05)
    if x in {333, 350}:
        raise ValueError(x)
    return x * x


def test_results_come_in_order() -> None:
    """From ``map`` and from ``imap``; the plan says where they were computed."""
    chosen = amorsize.parallel(slowly)
    assert chosen.map(range(100)) == [x * x for x in range(100)]
    assert chosen.last_plan is not None
    assert (chosen.last_plan.backend, chosen.last_plan.n_jobs) == ("spark", 2)
    assert list(chosen.imap(range(100))) == [x * x for x in range(100)]
    assert chosen.last_plan.backend == "spark"


def test_the_lowest_failure_is_raised() -> None:
    """With its index; or returned in its place."""
    with pytest.raises(ValueError, match="333") as caught:
        amorsize.parallel(slowly).map(range(300, 400))
    assert caught.value.__notes__ == ["amorsize: raised by item 33: 333"]
    results = amorsize.parallel(slowly, errors="return").map(range(300, 400))
    failed = [i for i, result in enumerate(results) if isinstance(result, ValueError)]
    assert failed == [33, 50]
