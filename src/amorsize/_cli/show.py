"""The commands that show what is known: ``host`` and ``cache``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import textwrap
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import amorsize
from amorsize import _host, _render, _store
from amorsize._cli import words
from amorsize._cost import SERVED

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from amorsize._records import Host


def host(args: argparse.Namespace) -> int:
    found = amorsize.host()
    if not args.no_measure:
        _measure(found)
        # As it was before workers were started: beside running workers, some ways of starting others are closed.
        found = dataclasses.replace(found, costs={name: _host.BOOK.get(name) for name in found.costs})
    readings = _readings()
    if args.json:
        print(json.dumps(found.to_dict() | {"readings": readings}, indent=2))
        return 0
    for line in _host_lines(found, readings):
        print(line)
    return 0


def _measure(host: Host) -> None:
    """Start each kind of worker once, so that what they cost is known; a kind that cannot start keeps its prior."""
    methods: tuple[Literal["fork", "forkserver", "loky"], ...] = ("fork", "forkserver", "loky")
    for method in methods:
        if method not in host.costs:
            continue
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # With retries no item runs here, so that the call lasts until a worker has answered.
            amorsize.parallel(abs, n_jobs=2, start_method=method, batch_size=1, retries=1).map(range(8))
    amorsize.shutdown()
    _store.load()
    _store.save_costs(_host.BOOK.known)


def _readings() -> dict[str, dict[str, float | None]]:
    """Return every limit of this machine by name, whether or not it is the one that counts."""
    readings = _host.Readings()
    cpus = _host.cpu_limits(readings) | {"physical": _host.usable_cpus(readings)[1]}
    return {"cpus": cpus, "memory_bytes": {**_host.memory_limits(readings)}}


def _host_lines(host: Host, readings: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield f"CPUs     {host.n_cpus} usable, {host.n_physical_cpus} physical"
    for name, value in readings["cpus"].items():
        mark = "  <- counts" if name == host.sources.get("n_cpus") else ""
        yield f"           {name:<20}{'no limit' if value is None else f'{value:g}'}{mark}"
    yield f"memory   {_render.size(host.memory_bytes)} available"
    for name, value in readings["memory_bytes"].items():
        mark = "  <- counts" if name == host.sources.get("memory_bytes") else ""
        yield f"           {name:<20}{'no limit' if value is None else _render.size(value)}{mark}"
    if host.is_disabled:
        yield "disabled AMORSIZE_SERIAL is set: everything runs as a loop"
    if not host.has_gil:
        yield 'GIL      off: with prefer="threads", threads compute Python code side by side'
    yield "workers  what they cost here"
    for name, why in host.unavailable.items():
        yield from textwrap.wrap(f"not used: {name}: {why}", 68, initial_indent=" " * 11)
    names = list(host.costs)
    table = [_render.costs_cells(host.costs[name]) for name in names]
    yield " " * 11 + f"{'':<12}" + "".join(f"{name:>12}" for name in names)
    for row in zip(*table, strict=True):
        yield " " * 11 + f"{row[0][0]:<12}" + "".join(f"{cell:>12}" for _, cell in row)


# What kinds of workers are called that have no name of their own outside the package.
_KINDS: Final = {SERVED: "forkserver (running already)"}

# -- the cache -------------------------------------------------------------------------------------------------------


def cache(args: argparse.Namespace) -> int:
    if args.dir is not None:
        _store.configure(cache_dir=args.dir)
    where = _store.folder()
    if where is None:
        raise words.CommandError("nothing is kept: set AMORSIZE_CACHE_DIR, or name the folder with --dir")
    if args.what == "clear":
        n_profiles = _store.clear()
        print(json.dumps({"cleared": n_profiles}) if args.json else f"cleared {_render.count(n_profiles, 'profile')}")
        return 0
    entries, costs = _store.entries(), _store.costs()
    if args.json:
        profiles = [_entry(entry) for entry in entries]
        kept = {name: value.to_dict() for name, value in costs.items()}
        print(json.dumps({"folder": str(where), "profiles": profiles, "costs": kept}, indent=2))
        return 0
    print(f"{where}: {_render.count(len(entries), 'profile')}, {_measured(costs)}")
    for entry in entries:
        saved = datetime.fromtimestamp(entry.saved_at, UTC).strftime("%Y-%m-%d %H:%M")
        item = _render.seconds(entry.known.profile.item_s)
        kind = entry.known.arg_type
        print(f"  {_shorten(entry.name or entry.key, 34):<34} {_shorten(kind, 16):<16} {item:>9}  {saved}")
    return 0


def _measured(costs: Iterable[str]) -> str:
    """Say for which kinds of workers the costs have been measured."""
    names = [_KINDS.get(name, name) for name in costs]
    return f"measured costs of {', '.join(names)}" if names else "no costs of workers measured yet"


def _entry(entry: _store.Entry) -> dict[str, Any]:
    known = entry.known
    kept = {"name": entry.name, "key": entry.key, "arg_type": known.arg_type, "n_seen": known.n_seen}
    return kept | {"saved_at": entry.saved_at, "profile": known.profile.to_dict()}


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
