"""What one call knows of its function: remembered, timed on the first items, weighed, watched for what items change."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amorsize import _backend, _known, _profile, _weigh
from amorsize import _bounds as bounds
from amorsize._analysis import Dependencies, Kinds, known_dependencies, of_each_kind
from amorsize._analysis.observation import (
    SHARED_BY_ITEMS,
    Observation,
    reached_by,
    share_later,
    shared_by,
    shared_generators,
)
from amorsize._analysis.reading import Reading
from amorsize._backend import MISSING
from amorsize._records import Profile, Span
from amorsize._source import SLICED, is_array
from amorsize._trace import warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amorsize._request import Ledger, Request

clock = time.perf_counter

# What a new sample does not tell.
_KEPT: Final = ("mutates", "reads_mutable", "efficiency", "thread_efficiency", "free_thread_efficiency")

# Data whose items are plain values.
_PLAIN: Final = frozenset({range, str, bytes, bytearray})


class Evidence:
    """
    The profile of the function as this call sees it, and what it comes from.

    Attributes:
        profile: As known now.
        samples: The items that were timed one by one, or weighed; None while there are none.
        first_item: The first item that ran here, MISSING before.
        input: What the input does as it is read on.
        is_weighed: Whether it is known what moving items costs.
        is_recalled: Whether the profile is that of earlier calls.
        watch: Watches what items change.
        first_rate_s: Seconds per item of the first block of a loop that was long enough to tell; None without one.
    """

    def __init__(self, request: Request, ledger: Ledger) -> None:
        self._request = request
        self._ledger = ledger
        self.profile: Profile = request.record.profile
        self.samples: _profile.Sampler | None = None
        self.first_item: Any = MISSING
        self.first_rate_s: float | None = None
        self.is_weighed = self.is_recalled = self._is_inspected = False
        self._items: Sequence[Any] | None = None
        self.input, self.watch = Input(request), Watch(request)

    def recall(self, known: _known.Known | None) -> None:
        """Begin with what is remembered of the function."""
        if known is not None:
            self.profile, self.is_weighed, self.is_recalled = known.profile, known.is_weighed, True

    def looks_alike(self, known: _known.Known) -> bool:
        """Compare the shape of a few items with those the remembered profile was measured on."""
        data, n_items = self._request.source.data, self._request.source.n_items or 0
        if not n_items or not (type(data) in SLICED or is_array(data)):
            return False
        return all(known.is_like(data[i]) for i in {0, n_items // 2, n_items - 1})

    # -- the sample --------------------------------------------------------------------------------------------------

    def sample(self, n_most: int, *, remember: bool = True, watch: bool = False) -> None:
        """Run the first items here, timing each; their results are the answer's head."""
        if watch:
            self.watch.begin(self._first_items())
        sampler, ledger, request = self.sampler, self._ledger, self._request
        n_before = len(sampler.results)
        sampler.run(request.source.iterator, n_before + n_most)
        if request.keep_going:
            for i in range(n_before, len(sampler.results)):
                result = sampler.results[i]
                if isinstance(result, _Failed):
                    ledger.fail(i, result.error, sampler.items[i])
                    sampler.results[i] = result.error
        ledger.results += sampler.results[n_before:]
        ledger.keep()
        if sampler.items:
            self.note_first(sampler.items[0])
            self.input.last_item = sampler.items[-1]
            request.record.spans.append(_span_of(sampler, n_before))
            ledger.report()
            if remember:
                self.take_profile()
                self._remember()
        if watch:
            self.end_watch()

    def first_prepares_nothing(self) -> bool:
        """
        Tell whether the first item, a long one, stands for all: it is proved to have prepared nothing for the others.

        Where that is not proved, it may have loaded what they need, and a second item tells what they take: workers
        that each loaded it again would be slower than the loop.
        """
        if self.profile.item_s < bounds.LONG_FIRST_S or self._ledger.results[0] is None:
            return False  # one that found nothing does not tell what the others find, and whether that can be sent
        items = self._first_items()
        found = known_dependencies(self._request.func, items)
        return found.is_closed and found.effects.is_proved and not shared_by(items)

    def take_item(self, item: Any, result: Any, took_s: float, began: tuple[float, _profile.Clocks]) -> None:
        """Add an item that a stream has computed, which *began* at these clocks."""
        sampler = self.sampler
        sampler.items.append(item)
        sampler.results.append(result)
        sampler.times.append(took_s)
        sampler.count(began)
        self.note_first(item)

    def so_far(self) -> Profile:
        """Return the profile as known now, also while the sample is being taken; called from any thread."""
        samples = self.samples
        if self.is_recalled or samples is None or len(samples.times) <= self.profile.n_sampled:
            return self.profile
        return samples.profile()

    def take_profile(self) -> None:
        """Go by what the sample took."""
        kept = {name: getattr(self.profile, name) for name in _KEPT}
        self.profile = replace(self.sampler.profile(), **kept)
        self.is_weighed = self.is_recalled = False

    def take_cpu(self, cpu_fraction: float) -> None:
        """Go by this share of its seconds in which the function computes."""
        others = max(0.0, self.profile.cpu_fraction - 1.0)  # threads of its own
        self.profile = replace(self.profile, cpu_fraction=cpu_fraction + others)
        self._remember()

    def check_recalled(self, known: _known.Known, sample_size: int, least_s: float) -> None:
        """Compare the sample with what is remembered: go by that, or sample more, or go by the sample."""
        seen = self.sampler.profile()
        # A handful of tiny items timed one by one says less than what many of them took before.
        is_same = seen.item_s <= max(bounds.CHANGED * known.profile.item_s, least_s)
        if known.is_like(self.first_item) and is_same:
            self.profile = replace(known.profile, n_head=seen.n_head, head_s=seen.head_s)
        elif self._ledger.n_done < sample_size:
            self.sample(sample_size - self._ledger.n_done)
        else:
            self.profile, self.is_weighed, self.is_recalled = seen, False, False

    def note_first(self, item: Any) -> None:
        """Note the first item that ran here."""
        if self.first_item is MISSING:
            self.first_item = item

    def take_from_loop(self) -> None:
        """Have a sample of what the loop has produced, where the call began without one."""
        if self.samples is not None:
            return
        data, results = self._request.source.data, self._ledger.results
        if type(data) in SLICED or is_array(data):
            sampler, n = self.sampler, min(3, len(results))
            sampler.items = [data[i] for i in range(len(results) - n, len(results))]
            sampler.results = results[-n:]
            self.first_item = sampler.items[0]

    @property
    def sampler(self) -> _profile.Sampler:
        """What times items one by one, made when first asked for."""
        if self.samples is None:
            self.samples = _profile.Sampler(self._guarded, note=self._request.name_item)
        return self.samples

    def _guarded(self, item: Any) -> Any:
        """Call the function; with an error policy, an exception is a result."""
        request = self._request
        if request.check is not None:
            request.check()
        if request.keeper is not None and self.samples is not None and not request.keep_going:
            request.keeper.looped(self.samples.results, self._ledger.failures)
        if not request.keep_going:
            return request.call(item)
        try:
            return request.call(item)
        except Exception as error:
            if request.is_outside(error):
                raise
            return _Failed(error)  # errors="return" and "skip" ask for just this

    def _remember(self) -> None:
        sampler = self.samples
        if sampler is None or self.first_item is MISSING:
            return
        s_per_byte = _profile.seconds_per_byte(sampler.items, sampler.times)
        _known.remember(self._request.state.key, self.profile, self.first_item, len(sampler.items), s_per_byte)

    # -- what items change -------------------------------------------------------------------------------------------

    def is_watched(self, n_done: int) -> bool:
        """Tell whether it is known what items change outside themselves; where it is not, watch from now on."""
        is_known = self.watch.is_known(n_done, self._first_items())
        self._take_changes()
        return is_known

    def end_watch(self) -> None:
        """Compare what the function can reach with what it was, if items are being watched."""
        self.watch.end()
        self._take_changes()

    def _first_items(self) -> Sequence[Any]:
        """Return some items, where they can be looked at before their turn, or have been sampled."""
        data = self._request.source.data
        if type(data) in {list, tuple}:
            if self._items is None:
                self._items = of_each_kind(data, bounds.WATCH_SHARED)
            return self._items
        return () if self.samples is None else self.samples.items[: bounds.WATCH_SHARED]

    def admits(self, items: Sequence[Any]) -> bool:
        """
        Tell whether items that nobody could look at before may go to workers.

        Where one is of a new kind, the function is looked at again: what it may then change, the profile says.
        """
        request = self._request
        is_plain = type(items) in _PLAIN or (is_array(items) and not items.dtype.hasobject)  # type: ignore[attr-defined]
        if is_plain or request.limits.prefer == "threads":
            return True
        before = known_dependencies(request.func)
        found = known_dependencies(request.func, [*self._first_items(), *of_each_kind(items, 0)])
        if found is before:
            return True
        is_doubtful = before.effects.is_proved and not found.effects.is_proved
        changes = {*found.effects.changes, *(found.effects.unproved if is_doubtful else ()), *self.profile.mutates}
        is_harmless = len(changes) == len(self.profile.mutates)
        self.profile = replace(self.profile, mutates=tuple(sorted(changes)))
        return is_harmless

    def first_kinds(self) -> Kinds:
        """Return the kinds of the items that have been looked at."""
        return Kinds(self._first_items())

    def _take_changes(self) -> None:
        changed = {*self.watch.changed, *self.profile.mutates}
        if len(changed) > len(self.profile.mutates):
            self.profile = replace(self.profile, mutates=tuple(sorted(changed)))

    # -- what a decision needs ---------------------------------------------------------------------------------------

    def inspect(self) -> None:
        """Complete the profile with what the decision needs: outside state and pickled sizes."""
        request = self._request
        if not self._is_inspected:
            items = self._first_items()
            found = known_dependencies(request.func, items)
            profile = _weigh.inspect_function(self.profile, request.func, found, self.watch.changed)
            self.profile = replace(profile, input_problem=self.input.problem(found))
            data = request.source.data
            if type(data) in {list, tuple} and share_later(data, bounds.WATCH_SHARED, items, found):
                self.profile = replace(self.profile, mutates=tuple(sorted({*self.profile.mutates, SHARED_BY_ITEMS})))
            self._is_inspected = True
        if self.is_weighed or self.samples is None or not self.profile.is_picklable:
            return
        sampler = self.samples
        rest_s = self.profile.item_s * max(1, (request.source.n_items or 1000) - self._ledger.n_done)
        n_weighed = _how_many(sampler, rest_s)
        # Large containers are weighed whole where that is within 2 % of the work left: only then is the memory they
        # take on the way in the figure.
        most_bytes = max(bounds.WEIGH_BYTES, int(0.02 * rest_s * 0.1e9))
        results = [r for r in sampler.results[:n_weighed] if not isinstance(r, BaseException | _Failed)]
        self.profile = _weigh.weigh(
            self.profile, sampler.items[:n_weighed], results, _backend.dumps_by_value, most_bytes
        )
        self.is_weighed = True
        self._remember()

    def take_pace(self, item_s: float) -> None:
        """Go by what items take of late."""
        self.profile = replace(self.profile, item_s=item_s)

    def after(self, n_head: int) -> Profile:
        """Return the profile with *n_head* items done."""
        if not n_head and not self.profile.n_head:
            return self.profile
        return replace(self.profile, n_head=n_head, head_s=clock() - self._request.record.began if n_head else 0.0)

    def forget(self) -> None:
        """Let go of the sample and of the record, which point back here: they would stay until the next collection."""
        self.samples = self._request.record.so_far = None
        self.input.forget()
        self.watch.forget()


class _Failed:
    """An exception as a result, on its way through the sampler."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _span_of(sampler: _profile.Sampler, n_before: int) -> Span:
    """Return what a sample that has just been taken was busy with, from item *n_before* on."""
    times, end = sampler.times[n_before:], clock()
    return Span(lane="caller", begin_s=end - sum(times), end_s=end, start=n_before, n_items=len(times), kind="sample")


def _how_many(sampler: _profile.Sampler, rest_s: float) -> int:
    """Return how many sampled items to weigh: weighing large ones must not cost more than 1 % of the work left."""
    size = _weigh.shallow_bytes(sampler.items[0]) + _weigh.shallow_bytes(sampler.results[0])
    each_s = 10e-6 + size / bounds.FLAT_BYTES_PER_S * 4
    return max(1, min(len(sampler.items), 3, int(0.01 * rest_s / each_s)))


# -- what reading on changes -------------------------------------------------------------------------------------------


class Input:
    """
    Tells whether the input of one call may be read ahead of its items.

    Attributes:
        last_item: The last item that was done here, as far as it has been noted.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._reading: Reading | None = None
        self.last_item: Any = MISSING

    def problem(self, found: Dependencies) -> str:
        """Read one more item of an iterator, and say why no more may be read before it is done; "" if they may."""
        source = self._request.source
        if source.is_data or self.last_item is MISSING:
            return ""
        self._reading, iterator = Reading(found, self.last_item), source.iterator
        for following in iterator:
            source.iterator = itertools.chain((following,), iterator)
            return self._reading.problem(iterator, following)
        return ""

    def warn(self) -> None:
        """Warn where reading ahead has changed what the first step had left alone."""
        reading, self._reading = self._reading, None
        if reading is not None and (changed := reading.changed()):
            warn(
                f"{self._request.name}: {changed}: items that were read ahead may have seen what it was changed to; "
                "n_jobs=1 does each item before the next one is read"
            )

    def forget(self) -> None:
        """Let go of the item and of what was taken."""
        self.last_item, self._reading = MISSING, None


# -- what items change -------------------------------------------------------------------------------------------------


class Watch:
    """
    Watches the items of one call.

    Attributes:
        changed: Names of what they were seen to change, as far as that is known.
        is_on: Whether items are being watched.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._observation: Observation | None = None
        self._from = 0
        self._of_items: tuple[str, ...] = ()
        # A generator that is not there yet has no state to compare: its module is imported by an item.
        self._generators = {name: state for name, state in shared_generators().items() if state is not None}

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of what the function's items have been seen to change, in this call or an earlier one."""
        seen = self._request.state.watched
        is_current = seen is not None and seen[0] is known_dependencies(self._request.func)
        return (*(seen[1] if seen is not None and is_current else ()), *self._of_items)

    @property
    def is_on(self) -> bool:
        """Whether items are being watched."""
        return self._observation is not None

    def begin(self, items: Sequence[Any]) -> bool:
        """Take the state that the function can reach, unless it is known what items change; returns whether it is."""
        request = self._request
        if request.limits.prefer == "threads" or request.isolated:
            return True
        found = known_dependencies(request.func, items)
        data = request.source.data
        shared = [*shared_by(items), *reached_by([*items, data] if is_array(data) else items, found)]
        if not found.needs_watching and not shared:
            self._take_draws(found, items)
            return True
        if not shared and request.state.watched is not None and request.state.watched[0] is found:
            return True
        self._observation = Observation(found, shared)
        return False

    def _take_draws(self, found: Dependencies, items: Sequence[Any]) -> None:
        """Compare shared generators, where a library may draw from them although no code of the program does."""
        watched = self._request.state.watched
        if not self._generators or (watched is not None and watched[0] is found) or not found.may_draw(items):
            return
        now, earlier = shared_generators(), () if watched is None else watched[1]
        drawn = tuple(name for name, before in self._generators.items() if now[name] != before or name in earlier)
        if drawn:
            self._request.state.watched = found, drawn

    def end(self) -> None:
        """Compare the state with what it was, if it was taken."""
        if self._observation is None:
            return
        changed, self._observation = self._observation.changed(), None
        # What these items share, the next call's may not.
        self._of_items = tuple(name for name in changed if name == SHARED_BY_ITEMS)
        found: Dependencies = known_dependencies(self._request.func)  # with what its items have imported by now
        own = (name for name in changed if name != SHARED_BY_ITEMS)
        self._request.state.watched = found, (*dict.fromkeys((*own, *found.effects.changes)),)

    def forget(self) -> None:
        """Let go of what was taken."""
        self._observation = None

    def is_known(self, n_done: int, items: Sequence[Any]) -> bool:
        """
        Tell whether it is known what items change; where it is not, watch from now on.

        To be asked again once more items are done.
        """
        if self._observation is None:
            self._from = n_done
            return self.begin(items)
        if n_done - self._from >= bounds.WATCH_ITEMS:
            self.end()
        return self._observation is None
