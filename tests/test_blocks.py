"""The modules that are made of the examples, so that type checkers can read them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests import blocks

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """\
# A page

```python
import json as j

def work(n):
    return j.dumps(n)
```

Text.

```python
>>> seen = [work(i) for i in range(3)]
>>> seen
['0', '1', '2']
```

<!--- clear-namespace --->
  ```python
  work = 1
  ```

```{code-cell}
:tags: [hide]
%matplotlib inline
work + 1
```

```text
work
```
"""


def test_blocks_are_found_with_their_lines() -> None:
    """In groups that share names; prompts, outputs, options, magics and indentation are left out."""
    groups = blocks.blocks(PAGE)
    assert [[block.line for block in group] for group in groups] == [[4, 13], [20, 24]]
    assert groups[0][1].code == "seen = [work(i) for i in range(3)]\nseen\n\n"
    assert groups[1][0].code == "work = 1\n"
    assert groups[1][1].code == "\n\nwork + 1\n"


def test_a_block_imports_what_earlier_ones_have() -> None:
    """Functions from where they are, modules from where they come; nothing across a cleared namespace."""
    made = blocks.modules("page", PAGE)
    assert list(made) == ["page__0_4", "page__0_13", "page__1_20", "page__1_24"]
    assert made["page__0_13"].splitlines()[0] == "from page__0_4 import work"
    assert made["page__0_13"].splitlines()[12] == "seen = [work(i) for i in range(3)]"
    assert made["page__1_24"].splitlines()[0] == "from page__1_20 import work"
    again = blocks.modules("page", PAGE.replace("seen = [work", "seen = [j.dumps"))
    assert again["page__0_13"].splitlines()[0] == "import json as j"


def test_names_inside_functions_and_comprehensions_are_their_own() -> None:
    """Only what stands at the top level can be used by the next block."""
    tree = ast.parse(
        "def f(a):\n    b = a\nc = [d for d in range(3)]\nfor e in c:\n    g = e\nwith f(1) as h:\n    pass"
    )
    assert set(blocks.bound(tree)) == {"f", "c", "e", "g", "h"}


def test_every_page_is_read(tmp_path: Path) -> None:
    """Each block that is run as an example is given to the type checkers, too, and parses."""
    n_written = blocks.write(tmp_path)
    assert n_written == len(list(tmp_path.glob("*.py")))
    assert n_written >= 100
    assert {"README", "tutorial", "how_to_streams", "explanation_guarantees"} <= {
        path.name.partition("__")[0] for path in tmp_path.glob("*.py")
    }
