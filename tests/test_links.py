"""Links of the README and the pages lead somewhere, on the site and where the sources are read as they are."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)]

# The site gives anchors to headings of these levels; it is `myst_heading_anchors` in docs/conf.py.
HEADING = re.compile(r"^#{1,3} +(.+?) *#*$", re.MULTILINE)
FENCED = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2`*$", re.MULTILINE | re.DOTALL)
CODE_OR_FORMULA = re.compile(r"(`+)(?!`).+?\1|\$\$.+?\$\$|\$[^$\n]+\$", re.DOTALL)
INLINE = re.compile(r"\[[^\[\]]*\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?: +\"[^\"]*\")?\)")
AUTOMATIC = re.compile(r"<([a-z][a-z0-9+.-]*:[^>]*)>", re.IGNORECASE)


def links(text: str) -> list[str]:
    """Return the targets of links and pictures; what is code or a formula holds none."""
    text = CODE_OR_FORMULA.sub("code", FENCED.sub("", text))
    return [*INLINE.findall(text), *AUTOMATIC.findall(text)]


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as code hosts and the site make them."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for title in HEADING.findall(FENCED.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").replace("\\", "")
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def fault(page: Path, link: str) -> str | None:
    """Say what is wrong with a link, or None. What is elsewhere is not asked for: the tests need no network."""
    parts = urlsplit(link)
    if parts.scheme:
        is_whole = parts.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc)
        return None if is_whole else "not the address of a page"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.exists():
        return "no such file"
    if not target.is_relative_to(ROOT):
        return "outside the project"
    if parts.fragment and parts.fragment not in anchors(target.read_text(encoding="utf-8")):
        return "no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Files and headings exist; addresses elsewhere are well formed."""
    wrong = {link: why for link in links(page.read_text(encoding="utf-8")) if (why := fault(page, link))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("docs/faq.md", None),
        ("docs/reference.md#reason-codes", None),
        ("https://joblib.readthedocs.io/en/stable/", None),
        ("docs/nowhere.md", "no such file"),
        ("docs/reference.md#nowhere", "no such heading"),
        ("#install", None),
        ("#nowhere", "no such heading"),
        ("../elsewhere.md", "no such file"),
        ("http://example.org", "not the address of a page"),
        ("https://nowhere", "not the address of a page"),
    ],
)
def test_wrong_links_are_found(link: str, why: str | None) -> None:
    """The check above can fail."""
    assert links(f"See [this]({link}), not `[that](nowhere.md)`.") == [link]
    assert fault(ROOT / "README.md", link) == why
