"""
Turns the Python blocks of README.md and docs/ into modules, so that type checkers can read them.

`python tests/blocks.py FOLDER` writes one module per block into FOLDER, and the settings of mypy and pyright; a block
that uses a name of an earlier block of its page imports it from there. Lines keep their numbers: a message about
`how_to_streams__0_30.py:42` is about line 42 of `docs/how-to/streams.md`, in the block that begins at line 30.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```(python|\{code-cell\}[^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

# Strict, but for the annotations that examples leave out to be read at a glance; and a loop over what never ends binds
# its variable.
MYPY = """\
[mypy]
strict = True
python_version = 3.11
disallow_untyped_defs = False
disallow_incomplete_defs = False
disallow_untyped_calls = False
disallow_untyped_decorators = False
ignore_missing_imports = True
"""
PYRIGHT = """\
{
  "typeCheckingMode": "standard",
  "pythonVersion": "3.11",
  "reportMissingImports": false,
  "reportMissingModuleSource": false,
  "reportPossiblyUnboundVariable": false,
  "reportUnusedExpression": false
}
"""

CLEAR = re.compile(r"^<!--- clear-namespace --->$", re.MULTILINE)
OPTION = re.compile(r"^(:[\w-]+:.*|---.*)$")


class Block(NamedTuple):
    """A block of a page: the number of its first line, and its code."""

    line: int
    code: str


def pages() -> list[Path]:
    """Return the README and the pages of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("[!_]*.md")), *sorted((ROOT / "docs").glob("[!_]*/*.md"))]


def blocks(text: str) -> list[list[Block]]:
    """Return the blocks of a page, in groups that share their names."""
    groups: list[list[Block]] = [[]]
    cleared = [match.start() for match in CLEAR.finditer(text)]
    for match in FENCE.finditer(text):
        while cleared and cleared[0] < match.start():
            cleared.pop(0)
            groups.append([])
        line = text.count("\n", 0, match.start(3)) + 1
        groups[-1].append(Block(line, plain(match[3], len(match[1]))))
    return [group for group in groups if group]


def plain(code: str, indent: int) -> str:
    """Return a block without indentation, prompts, outputs, options and magics; its lines stay where they are."""
    lines = [line[indent:] for line in code.splitlines()]
    if any(line.startswith(">>> ") for line in lines):
        return "\n".join(line[4:] if line.startswith((">>> ", "... ")) else "" for line in lines) + "\n"
    for number, line in enumerate(lines):
        if not OPTION.match(line):
            break
        lines[number] = ""
    return "\n".join("" if line.startswith("%") else line for line in lines) + "\n"


def bound(tree: ast.Module) -> dict[str, str]:
    """Return the names that a block gives a value at its top level, with the statement where that is an import."""
    found: dict[str, str] = {}
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = ""
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = ast.unparse(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = ""
            continue
        elif isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            continue
        waiting += ast.iter_child_nodes(node)
    return found


def used(tree: ast.Module) -> set[str]:
    """Return the names that a block looks up."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def modules(page: str, text: str) -> dict[str, str]:
    """Return the modules of a page by name."""
    made: dict[str, str] = {}
    for number, group in enumerate(blocks(text)):
        home: dict[str, str] = {}  # the statement that brings each name of the group
        for block in group:
            name = f"{page}__{number}_{block.line}"
            tree = ast.parse(block.code)
            own = bound(tree)
            wanted = sorted({home[each] for each in used(tree) - set(own) if each in home})
            made[name] = "; ".join(wanted) + "\n" * (block.line - 1) + block.code if block.line > 1 else block.code
            home |= {each: statement or f"from {name} import {each}" for each, statement in own.items()}
    return made


def write(folder: Path) -> int:
    """Write all modules into a folder; returns how many there are."""
    made: dict[str, str] = {}
    for path in pages():
        page = re.sub(r"\W", "_", str(path.relative_to(ROOT).with_suffix("")).removeprefix("docs/"))
        made |= modules(page, path.read_text("utf-8"))
    (folder / "mypy.ini").write_text(MYPY, "utf-8")
    (folder / "pyrightconfig.json").write_text(PYRIGHT, "utf-8")
    for name, code in made.items():
        (folder / f"{name}.py").write_text(code, "utf-8")
    return len(made)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    where.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"{write(where)} blocks\n")
