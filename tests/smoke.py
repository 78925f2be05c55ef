"""
Use the installed package as a newcomer would; run from outside the checkout by `nox -s package`.

Its one argument is the version that must have been installed.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata, resources
from pathlib import Path

import amorsize


@amorsize.parallel
def square(x: int) -> int:
    """Return the square of *x*."""
    return x * x


def main(version: str) -> None:
    """Check that what was installed is the package, complete, and that it works."""
    where = Path(amorsize.__file__).resolve()
    assert where.is_relative_to(Path(sys.prefix).resolve()), where
    assert metadata.version("amorsize") == amorsize.__version__ == version
    assert resources.files("amorsize").joinpath("py.typed").is_file()
    links = re.findall(r"\]\(([^)]+)\)", metadata.metadata("amorsize").get_payload())
    assert links, "the description of the package has lost its links"
    assert [link for link in links if not link.startswith("https://")] == []
    assert square(3) == 9
    assert square.map(range(1000)) == [x * x for x in range(1000)]
    assert square.last_plan is not None
    assert square.last_plan.explain()


if __name__ == "__main__":
    main(sys.argv[1])
