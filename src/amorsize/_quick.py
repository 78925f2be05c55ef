"""The quick way of a map: what is known to be over before a decision would pay is a loop at once."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from amorsize import _bounds as bounds
from amorsize import _known
from amorsize._call import Call
from amorsize._gate import is_never_worth
from amorsize._record import Record
from amorsize._request import Request, name_item
from amorsize._source import PLAIN, Beat, Source, begins_like, note_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._options import Options
    from amorsize._record import State

clock = time.perf_counter


def quick_map(func: Callable[..., Any], state: State, options: Options, data: Any) -> list[Any] | None:
    """Map a known function over data known to be too short to think about; None, and nothing done, for other calls."""
    known = _known.CACHE.get(state.key)
    if known is None or type(data) not in PLAIN or not begins_like(data, known):
        return None
    expected_s = known.profile.item_s * len(data)
    began = clock()
    if not (state.is_settled(len(data)) or is_never_worth(expected_s, options.limits.prefer)):
        return None
    source = Source((data,), star=False)
    # What has been settled before is not thought about again unless it takes half as long again.
    beat = Beat(source, 0, known.profile.item_s, began + max(bounds.LOOK_S, 1.5 * expected_s))
    record = state.last = Record(known.profile, source.n_items, options.limits, began=began)
    try:
        results = [func(item) for block in beat.blocks() for item in block]
    except BaseException as error:
        note_error(error, data, beat.current(), functools.partial(name_item, func=func))
        record.actual_s = clock() - began
        raise
    if len(results) < beat.n_items or (type(data) is list and len(data) > len(results)):
        return Call(Request(func, state, options, source, None, began=began), results).run()
    record.actual_s = clock() - began
    if results and record.actual_s > bounds.TELLING_S and abs(record.actual_s - expected_s) > bounds.SAME * expected_s:
        _known.refresh(state.key, record.actual_s / beat.n_items, beat.n_items)
    return results
