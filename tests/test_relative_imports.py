"""Functions that import from their own package, with dots, when they run."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize._modules import absolute
from amorsize.exceptions import AmorsizeWarning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

N_ITEMS = 600

FUNCTIONS = """
def counts(x):
    from {dots} import table
    sum(range(20_000))
    table.hits.append(x)
    return len(table.hits)

def counts_by_name(x):
    from {dots}table import hits
    sum(range(20_000))
    hits.append(x)
    return len(hits)

def counts_in_full(x):
    import dotted.table
    sum(range(20_000))
    dotted.table.hits.append(x)
    return len(dotted.table.hits)

def counts_in_package(x):
    from dotted import table
    sum(range(20_000))
    table.hits.append(x)
    return len(table.hits)

def reads(x):
    from {dots} import table
    sum(range(20_000))
    return table.level

def reads_by_name(x):
    from {dots}table import level
    sum(range(20_000))
    return level
"""


@pytest.fixture(params=["core", "inner.core"])
def module(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a module of a package, or of a package within it; the module *table* has not been imported."""
    folder = tmp_path / "dotted"
    (folder / "inner").mkdir(parents=True)
    for package in (folder, folder / "inner"):
        (package / "__init__.py").touch()
    (folder / "table.py").write_text("hits = []\nlevel = 1\n")
    (folder / "core.py").write_text(FUNCTIONS.format(dots="."))
    (folder / "inner" / "core.py").write_text(FUNCTIONS.format(dots=".."))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(f"dotted.{request.param}")
    forget()


def forget() -> None:
    """Let the package be imported anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "dotted"]:
        del sys.modules[name]


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("name", ["counts", "counts_by_name"])
def test_what_is_changed_in_a_module_that_is_imported_with_dots(module: Any, name: str, is_there: bool) -> None:
    """Its name was read without the dots, so that the code was not followed there: each worker counted for itself."""
    if is_there:
        importlib.import_module("dotted.table")
    f = amorsize.parallel(getattr(module, name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmorsizeWarning)  # where it would have been a loop anyway, there is none
        found = f.map(range(N_ITEMS))
    assert found == list(range(1, N_ITEMS + 1))


@pytest.mark.parametrize("name", ["counts", "counts_by_name", "counts_in_full", "counts_in_package"])
def test_what_a_function_imports_whose_profile_is_known(module: Any, name: str) -> None:
    """It was looked at before an item had imported the module, and not once more: a sample was not needed."""
    for _ in range(2):
        module = importlib.import_module(module.__name__)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AmorsizeWarning)
            found = amorsize.parallel(getattr(module, name)).map(range(N_ITEMS))
        assert found == list(range(1, N_ITEMS + 1))
        forget()


@pytest.mark.usefixtures("thread")
@pytest.mark.parametrize("name", ["reads", "reads_by_name"])
def test_what_is_set_in_a_module_that_is_imported_with_dots(module: Any, name: str) -> None:
    """Workers that are not forked had what the module itself sets."""
    importlib.import_module("dotted.table").level = 7  # type: ignore[attr-defined]
    assert amorsize.parallel(getattr(module, name), n_jobs=2).map(range(N_ITEMS)) == [7] * N_ITEMS


@pytest.mark.parametrize(
    ("name", "names", "full"),
    [
        ("a.b", {}, "a.b"),
        (".b", {"__package__": "a"}, "a.b"),
        (".", {"__package__": "a.c"}, "a.c"),
        ("..b", {"__package__": "a.c"}, "a.b"),
        (".b", {"__name__": "a.c"}, "a.b"),
        (".b", {"__name__": "a", "__path__": []}, "a.b"),
        (".b", {"__name__": "__main__", "__package__": None}, ""),
        ("..b", {"__package__": "a"}, ""),
        (".b", {}, ""),
    ],
)
def test_names_with_dots_are_those_of_the_import_statement(name: str, names: dict[str, Any], full: str) -> None:
    """As importlib resolves them; "" where an import statement raises."""
    assert absolute(name, names) == full
