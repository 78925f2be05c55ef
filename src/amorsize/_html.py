"""
Plans, profiles and hosts as HTML for notebooks, from the rows and sentences of :mod:`amorsize._render`.

Takes its colours from the page around it (light or dark), and holds no scripts and no links.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from amorsize._render import (
    HOST_TITLE,
    costs_cells,
    facts,
    headline,
    host_rows,
    profile_rows,
    profile_title,
    seconds,
    terms,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from amorsize._plans import Plan
    from amorsize._records import Host, Profile

# Lines and backgrounds are translucent greys and text keeps the page's colour, so that they suit any theme. The hues
# are of middle lightness: 3:1 against white and against a notebook's dark grey.
_LINE: Final = "1px solid rgba(128,128,128,.35)"
_CELL: Final = f"padding:.2em .8em .2em 0;border:0;border-bottom:{_LINE};vertical-align:top;background:transparent"
_TERMS: Final = (("T_overhead", "#c1762b"), ("T_serial/N", "#3f87c4"), ("T_IPC", "#a05fb5"))
_LOOP: Final = "#808890"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    """Lay out labelled cells; the second of each pair is HTML."""
    body = "".join(
        f'<tr style="background:transparent"><th scope="row" style="{_CELL};text-align:left;font-weight:600;'
        f'white-space:nowrap;opacity:.75">{escape(label)}</th>'
        f'<td style="{_CELL};text-align:left;white-space:normal">{cell}</td></tr>'
        for label, cell in rows
    )
    return f'<table style="border-collapse:collapse;border:0;margin:.4em 0;color:inherit">{body}</table>'


def _card(title: str, *parts: str) -> str:
    heading = f'<div style="font-weight:600;margin:.2em 0">{escape(title)}</div>'
    return f'<div style="max-width:60em;color:inherit;line-height:1.45">{heading}{"".join(parts)}</div>'


def _grouped(lines: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join the sentences that go on without a label to the one above, as HTML."""
    rows: list[tuple[str, str]] = []
    for label, text in lines:
        if label or not rows:
            rows.append((label, escape(text)))
        else:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]}<br>{escape(text)}")
    return rows


def _bars(plan: Plan) -> str:
    """Draw the equation: the loop as one bar, the three terms as another beneath it."""
    parts = terms(plan)
    if parts is None:
        return ""
    longest = max(plan.serial_s, plan.parallel_s, 1e-12)

    def bar(label: str, pieces: Iterable[tuple[str, str, float]], total_s: float) -> str:
        drawn = "".join(
            f'<span title="{escape(name)}: {escape(seconds(value))}" style="display:inline-block;height:.9em;'
            f'width:{60 * value / longest:.2f}%;background:{hue};vertical-align:middle"></span>'
            for name, hue, value in pieces
        )
        return (
            '<div style="white-space:nowrap"><span style="display:inline-block;width:6em;opacity:.75">'
            f"{escape(label)}</span>{drawn} {escape(seconds(total_s))}</div>"
        )

    named = [(name, hue, value) for (name, hue), value in zip(_TERMS, parts, strict=True)]
    legend = " ".join(  # broken between the terms, where the page is narrow
        '<span style="white-space:nowrap;margin-right:.8em">'
        f'<span style="display:inline-block;width:.8em;height:.8em;background:{hue};vertical-align:middle"></span> '
        f"{escape(name)} {escape(seconds(value))}</span>"
        for name, hue, value in named
    )
    loop = bar("loop", [("T_serial", _LOOP, plan.serial_s)], plan.serial_s)
    workers = bar("workers", named, plan.parallel_s)
    legend = f'<div style="font-size:90%;opacity:.85;margin-left:6em">{legend}</div>'
    return f'<div style="margin:.3em 0">{loop}{workers}{legend}</div>'


def plan_html(plan: Plan) -> str:
    """Return the plan as HTML for a notebook."""
    return _card(headline(plan), _bars(plan), _table(_grouped(facts(plan))))


def profile_html(profile: Profile) -> str:
    """Return the profile as HTML for a notebook."""
    title, rows = profile_title(profile), profile_rows(profile)
    return _card(title, _table([(label, escape(text)) for label, text in rows])) if rows else _card(title)


def host_html(host: Host) -> str:
    """Return the host as HTML for a notebook."""
    parts = [_table([(label, escape(text)) for label, text in host_rows(host)])]
    if host.costs:
        parts.append(_costs_table(host))
    return _card(HOST_TITLE, *parts)


def _costs_table(host: Host) -> str:
    cells = {name: costs_cells(costs) for name, costs in host.costs.items()}
    style = f"{_CELL};text-align:right;white-space:nowrap"
    head = "".join(f'<th scope="col" style="{style};opacity:.75">{escape(name)}</th>' for name, _ in cells[min(cells)])
    body = "".join(
        f'<tr style="background:transparent"><th scope="row" style="{_CELL};text-align:left;font-weight:600">'
        f"{escape(backend)}</th>" + "".join(f'<td style="{style}">{escape(value)}</td>' for _, value in row) + "</tr>"
        for backend, row in cells.items()
    )
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;border:0;margin:.4em 0;color:inherit">'
        f'<tr style="background:transparent"><th style="{_CELL};text-align:left;opacity:.75">workers</th>{head}</tr>'
        f"{body}</table></div>"
    )


# A record as HTML, by the name of its class.
PAGES: Final[Mapping[str, Callable[[Any], str]]] = {"Plan": plan_html, "Profile": profile_html, "Host": host_html}
