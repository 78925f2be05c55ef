"""Remembers what was measured of a function, under the stable hash of its code, and takes in what runs measure."""

from __future__ import annotations

import collections
import math
import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from amorsize import _bounds as bounds
from amorsize import _function
from amorsize._attribute import path_of
from amorsize._weigh import shallow_bytes

if TYPE_CHECKING:
    from amorsize._records import Profile


@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Known:
    """
    What is remembered of a function.

    Attributes:
        profile: As measured, and refreshed by every run.
        arg_type: Type of the items it was measured on, as ``module.qualname``, which outlives the process.
        arg_size: Their shallow size in bytes.
        n_seen: Items behind the figures.
        s_per_byte: Seconds per byte of an item, where its size predicts its cost; else 0.
    """

    profile: Profile
    arg_type: str
    arg_size: int
    n_seen: int
    s_per_byte: float = 0.0

    @property
    def is_weighed(self) -> bool:
        """Whether what moving items costs is known: of a function that only ran in short loops, it is not."""
        return self.profile.func_bytes > 0

    def is_like(self, item: object) -> bool:
        """Tell whether an item is of the kind this was measured on."""
        if path_of(type(item)) != self.arg_type:
            return False
        size = shallow_bytes(item)
        return size <= bounds.CHANGED * self.arg_size + 64 and self.arg_size <= bounds.CHANGED * size + 64


class ProfileCache:
    """
    Profiles by the stable hash of the function's code; the least recently used leave first.

    Guarantees: any thread may use it; an entry is replaced whole.
    """

    def __init__(self, most: int = 1024) -> None:
        self._lock = threading.Lock()
        self._known: collections.OrderedDict[str, Known] = collections.OrderedDict()
        self._names: dict[str, str] = {}
        self._most = most

    def renew_lock(self) -> None:
        """Have a free lock in a forked copy of the process: a thread that is not in it may have held this one."""
        self._lock = threading.Lock()

    def get(self, key: str) -> Known | None:
        """Return what is remembered under *key*, or None."""
        return self._known.get(key)

    def put(self, key: str, known: Known) -> None:
        """Remember."""
        with self._lock:
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                key, _ = self._known.popitem(last=False)
                self._names.pop(key, None)

    def name(self, key: str) -> str:
        """Return the name of the function that has this key, empty where this process has not met it."""
        return self._names.get(key, "")

    def call_it(self, key: str, func: Any) -> None:
        """Note the name of the function that has this key; of several that share their code, the first one's."""
        self._names.setdefault(key, _function.full_name(func))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._known.clear()
            self._names.clear()

    def items(self) -> dict[str, Known]:
        """Return a copy of everything remembered."""
        with self._lock:
            return dict(self._known)


CACHE: Final = ProfileCache()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CACHE.renew_lock)


def remember(key: str, profile: Profile, item: object, n_seen: int, s_per_byte: float = 0.0) -> None:
    """Keep a profile measured on items like *item*."""
    kept = replace(profile, n_head=0, head_s=0.0, input_problem="")
    CACHE.put(key, Known(kept, path_of(type(item)), shallow_bytes(item), n_seen, s_per_byte))


def refresh(key: str, item_s: float, n_items: int) -> None:
    """
    Take in the seconds per item that a whole run measured.

    A run of many more items than the sample had replaces its estimate; later runs are averaged with it.
    """
    known = CACHE.get(key)
    if known is None or n_items < 1 or not (math.isfinite(item_s) and item_s >= 0):
        return
    old = known.profile.item_s
    if known.n_seen >= n_items and abs(item_s - old) < bounds.SAME * old:
        return
    is_new = n_items > 4 * known.n_seen or not old / bounds.CHANGED <= item_s <= old * bounds.CHANGED
    mean = item_s if is_new else (old + item_s) / 2
    profile = replace(known.profile, item_s=mean)
    CACHE.put(key, replace(known, profile=profile, n_seen=max(known.n_seen, n_items)))


def remember_transfer(key: str, more_s: float) -> None:
    """Add *more_s* seconds per item to what pickling a result is known to cost."""
    known = CACHE.get(key)
    if known is not None:
        profile = replace(known.profile, pickle_s=known.profile.pickle_s + more_s)
        CACHE.put(key, replace(known, profile=profile))


def remember_efficiency(key: str, **seen: float) -> None:
    """Keep the speed of workers beside each other with this function, by the name of the profile's field."""
    known = CACHE.get(key)
    if known is not None:
        CACHE.put(key, replace(known, profile=replace(known.profile, **seen)))  # type: ignore[arg-type]  # names of floats
