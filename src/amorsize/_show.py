"""
Shows records: as a line, a text, a page of HTML or a picture.

The one way from a record to what shows it. Records do not import this: the package gives :func:`show` to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amorsize import _render, _trace

if TYPE_CHECKING:
    from amorsize._records import Shown


def show(record: Shown, view: str, ax: Any = None) -> Any:
    """
    Return a plan, a profile or a host in one view: "line", "text", "page" (HTML); of a plan "plot" and "timeline".

    *ax* are the matplotlib Axes of a picture; new ones by default.
    """
    kind = type(record).__name__
    if view in _render.VIEWS:
        return _render.VIEWS[view][kind](record)
    if view == "page":
        from amorsize import _html  # noqa: PLC0415 - 2 ms, with the html module, that only notebooks pay

        return _html.PAGES[kind](record)
    from amorsize import _plot  # noqa: PLC0415 - 1 ms, before matplotlib, which is an extra

    try:
        return _plot.VIEWS[view](record, ax)
    except ImportError as error:
        _trace.trim(error)
        raise
