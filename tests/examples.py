"""
A pytest plugin that runs the Python examples of README.md, of the pages and of the docstrings.

Named in the pytest configuration instead of being a conftest.py, because a conftest.py sees only
what lies below its own folder, and the README lies above.

In Markdown, a block labelled `python` is run; where it starts with `>>>`, its output is compared
(`...` stands for anything). Blocks of one document share their names, from top to bottom.
`<!--- skip: next --->` above a block leaves it out, `<!--- clear-namespace --->` starts afresh.
In docstrings, `>>>` and `.. code-block:: python` are run.
"""

from __future__ import annotations

import doctest
import gc
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from sybil import Example, Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers import myst, rest

ROOT = Path(__file__).parents[1]
FLAGS = doctest.ELLIPSIS


def act_as_script(namespace: dict[str, Any]) -> None:
    """Run a page as what its reader would make of it: a script, or a notebook."""
    namespace["__name__"] = "__main__"


def leave_nothing_open(namespace: dict[str, Any]) -> None:
    """
    Fail a page that leaves something open, at the page itself.

    What it leaves is otherwise closed by some collection later on, and its warning is the failure of the test that
    happens to run then.
    """
    for logger in logging.root.manager.loggerDict.values():
        for handler in getattr(logger, "handlers", [])[:]:
            if type(handler).__module__ == "__main__":  # its methods look for names of the page
                logger.removeHandler(handler)  # type: ignore[union-attr]
    namespace.clear()
    found: list[str] = []
    previous = sys.unraisablehook
    sys.unraisablehook = lambda each: found.append(f"{each.exc_value} ({each.object!r})")
    try:
        gc.collect()
    finally:
        sys.unraisablehook = previous
    assert not found, f"The examples of this page leave something open: {found}"


def refuse(example: Example) -> str:
    """Fail a block that reads as Python but would not be run."""
    return f"Label this block `python` so that it is run:\n{example.parsed}"


pages = Sybil(
    path=str(ROOT),
    patterns=["*.md"],
    parsers=[
        myst.PythonCodeBlockParser(doctest_optionflags=FLAGS),
        *(myst.CodeBlockParser(name, refuse) for name in ("py", "python3", "pycon", "ipython")),
        myst.SkipParser(),
        myst.ClearNamespaceParser(),
    ],
    setup=act_as_script,
    teardown=leave_nothing_open,
)
docstrings = Sybil(
    path=str(ROOT / "src"),
    patterns=["*.py"],
    parsers=[
        rest.DocTestParser(optionflags=FLAGS),
        rest.PythonCodeBlockParser(),
        rest.SkipParser(),
    ],
)

pytest_collect_file = (pages + docstrings).pytest()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the examples of each document back in order, since pytest-randomly shuffles them."""
    documents: dict[Path, list[SybilItem]] = {}
    for item in items:
        if isinstance(item, SybilItem):
            documents.setdefault(item.path, []).append(item)
    restored: list[pytest.Item] = []
    for item in items:
        if isinstance(item, SybilItem):
            examples = documents.pop(item.path, [])
            restored += sorted(examples, key=lambda each: each.example.start)
        else:
            restored.append(item)
    items[:] = restored
