"""The package can be read: small files, no import cycle, constants where they are looked for."""

from __future__ import annotations

import ast
import collections
import graphlib
from pathlib import Path

import amorsize

ROOT = Path(amorsize.__file__).parent
FILES = {path: path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}
TREES = {
    ".".join(("amorsize", *path.relative_to(ROOT).with_suffix("").parts)): ast.parse(text)
    for path, text in FILES.items()
}

# Numbers that are no choice of ours: of a protocol, of a system, of a language; and the widths of lines.
FIXED = {
    "SCHEMA", "FAILED", "USAGE", "INTERRUPTED", "CLOSED_PIPE", "WIDTH", "_COLUMNS", "_LABEL", "_MOST_TIMEOUT_S",
    "_UNKNOWN", "_UNSENDABLE_BYTES", "_HELLO", "_PR_SET_PDEATHSIG", "_BEFORE_SEMAPHORES", "_EXIT_PRIORITY",
    "_ALIGNMENT", "_MAP_FIXED", "NO_LIMIT", "UNOPENED", "SAID", "NO_MORE", "SAID_TASK", "UNOPENED_TASK", "_HEAP_TYPE",
    "_ACTION_BYTES", "_INPLACE_FROM", "_INPLACE_TO", "_OR", "_SUBSCR",
}  # fmt: skip
HOMES = {"amorsize._cost", "amorsize._bounds", "amorsize._backend._bounds", "amorsize._analysis.bounds"}


def test_no_file_and_no_class_is_too_long_to_read() -> None:
    """At most 450 lines and 260."""
    lengths = {path.name: len(text.splitlines()) for path, text in FILES.items()}
    classes = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    assert {name: n for name, n in lengths.items() if n > 450} == {}
    assert {name: n for name, n in classes.items() if n > 260} == {}


def test_modules_do_not_import_each_other_in_circles() -> None:
    """Nor for the sake of types."""
    graph: dict[str, set[str]] = {name.removesuffix(".__init__"): set() for name in TREES}
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("amorsize"):
                found = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name.removesuffix(".__init__")] |= {one if one in graph else str(node.module) for one in found}
    graphlib.TopologicalSorter(graph).prepare()


def test_modules_of_the_analysis_ask_their_package_for_two_of_them_only() -> None:
    """In a worker the package's own code is put off: asked for another module, it runs, and imports that half done."""
    asked = {
        (name, alias.name)
        for name, tree in TREES.items()
        if name.startswith("amorsize._analysis.") and not name.endswith(".__init__")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "amorsize._analysis"
        for alias in node.names
    }
    assert {pair for pair in asked if pair[1] not in {"bounds", "inert"}} == set()


def test_a_name_means_one_thing_in_its_module() -> None:
    """A second meaning would take the place of the first without a word, as when two modules are joined."""
    for name, tree in TREES.items():
        given = collections.Counter(
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for part in (node.targets if isinstance(node, ast.Assign) else [node.target])
            for target in ast.walk(part)
            if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)
        )
        assert [one for one, n in given.items() if n > 1] == [], name


def test_constants_stand_in_four_files() -> None:
    """Those that somebody has chosen: with unit, reason, source, and what comes of it if they are wrong by two."""
    strays = {
        f"{name}.{target.id}"
        for name, tree in TREES.items()
        if name not in HOMES
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _is_number(node.value)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id.isupper() and target.id not in FIXED
    }
    assert strays == set()


def _is_number(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp):
        return _is_number(node.operand)
    if isinstance(node, ast.BinOp) and not isinstance(node.op, ast.BitOr):
        return _is_number(node.left) and _is_number(node.right)
    return isinstance(node, ast.Constant) and type(node.value) in {int, float}


def test_few_modules_are_imported_by_functions() -> None:
    """Each for a figure: fewer than 25."""
    n_imports = sum(
        isinstance(inner, ast.Import | ast.ImportFrom)
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    )
    assert n_imports < 25
