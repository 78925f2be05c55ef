# ruff: noqa: D103 - the small functions are named for what they do
"""Libraries that draw from a generator that the program shares, where they are given none."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import amorsize
from amorsize.exceptions import AmorsizeWarning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N_ITEMS = 60


def spin() -> None:
    sum(range(60_000))


def samples_rows(n: int) -> int:
    import pandas as pd  # noqa: PLC0415 - optional

    spin()
    return int(pd.DataFrame({"a": range(100)}).sample(3)["a"].sum()) + n


def splits(n: int) -> int:
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 - optional

    spin()
    return int(train_test_split(np.arange(100))[0][0]) + n


def makes_a_graph(n: int) -> int:
    import networkx as nx  # noqa: PLC0415 - optional

    spin()
    return int(nx.gnp_random_graph(10, 0.3).number_of_edges()) + n


def draws_as_told(n: int) -> int:
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 - optional

    spin()
    return int(train_test_split(np.arange(100), random_state=n)[0][0])


def seed() -> None:
    np.random.seed(1)  # noqa: NPY002 - the subject of the tests
    random.seed(1)


DRAWS = {samples_rows: "pandas", splits: "sklearn", makes_a_graph: "networkx"}


@pytest.mark.parametrize("function", DRAWS, ids=lambda function: function.__name__)
def test_what_a_library_draws_from_a_shared_generator_is_seen(function: Callable[[int], int]) -> None:
    """Each worker went on with a seed of its own, although the program had set one, and no warning said so."""
    pytest.importorskip(DRAWS[function])
    seed()
    expected = [[function(n) for n in range(N_ITEMS)] for _ in range(2)]
    f: Any = amorsize.parallel(function)
    seed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmorsizeWarning)  # where it would have been a loop anyway, there is none
        assert [f.map(range(N_ITEMS)) for _ in range(2)] == expected
    with pytest.warns(AmorsizeWarning, match="the generator of"):
        f.map(range(N_ITEMS), n_jobs=2)


def fits(model: Any) -> list[float]:
    """Fit what draws from the shared generator."""
    sum(range(60_000))
    return list(model.fit([[n, n % 7] for n in range(50)], [n % 2 for n in range(50)]).coef_.flat)


def test_what_items_of_a_library_draw_is_seen() -> None:
    """The function itself names nothing of the library."""
    linear = pytest.importorskip("sklearn.linear_model")
    models = [[linear.SGDClassifier(max_iter=5, tol=None) for _ in range(N_ITEMS)] for _ in range(2)]
    seed()
    expected = [fits(model) for model in models[0]]
    seed()
    with pytest.warns(AmorsizeWarning, match="the generator of"):
        assert amorsize.parallel(fits).map(models[1]) == expected


def test_a_library_that_is_given_a_seed_has_workers() -> None:
    """It draws from a generator of its own."""
    pytest.importorskip("sklearn")
    f = amorsize.parallel(draws_as_told, n_jobs=2)
    for _ in range(2):
        assert f.map(range(N_ITEMS)) == [draws_as_told(n) for n in range(N_ITEMS)]
        assert f.last_plan is not None
        assert f.last_plan.profile.mutates == ()


def fits_a_copy(n: int) -> float:
    from sklearn.base import clone  # noqa: PLC0415 - optional

    spin()
    model = clone(BASE[0]).set_params(alpha=1.0 + n)
    return float(model.fit([[1.0], [2.0], [4.0]], [1.0, 2.0, 3.0]).coef_[0])


BASE: list[Any] = []


def test_a_copy_of_an_estimator_is_its_items_own() -> None:
    """What was set in the copy was taken for a change of the estimator that the program has, and items ran serially."""
    BASE[:] = [pytest.importorskip("sklearn.linear_model").Ridge()]
    f = amorsize.parallel(fits_a_copy, n_jobs=2)
    assert f.map(range(N_ITEMS)) == [fits_a_copy(n) for n in range(N_ITEMS)]
    assert f.last_plan is not None
    assert f.last_plan.profile.mutates == ()


SEEDS = np.random.SeedSequence(1)


def spawns(n: int) -> int:
    spin()
    return int(SEEDS.spawn(1)[0].generate_state(1)[0]) + 0 * n


def test_a_compiled_class_with_a_method_in_python_is_compiled() -> None:
    """It was taken for one written in Python, whose attributes would be all of it: each worker spawned the same."""
    with pytest.warns(AmorsizeWarning, match="SEEDS"):
        found = amorsize.parallel(spawns).map(range(300))
    assert len(set(found)) == 300


# A library that draws from the generator of random, as networkx does, in a program without NumPy.
WITHOUT_NUMPY = """
import random, sys, threading
import amorsize, networkx

if sys.argv[1] == "thread":
    threading.Thread(target=threading.Event().wait, daemon=True).start()

def work(n):
    sum(range(60_000))
    return networkx.number(), n

random.seed(1)
found = amorsize.parallel(work).map(range(60))
random.seed(1)
print(found == [work(n) for n in range(60)], "numpy" in sys.modules)
"""


@pytest.mark.parametrize("thread", ["", "thread"])
def test_what_a_library_draws_is_seen_without_numpy(thread: str, tmp_path: Path) -> None:
    """Generators were compared where NumPy had been imported only."""
    (tmp_path / "networkx.py").write_text("import random\ndef number(): return random.random()\n")
    (tmp_path / "program.py").write_text(WITHOUT_NUMPY)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "program.py", thread],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.stderr, done.stdout.split()) == ("", ["True", "False"])
