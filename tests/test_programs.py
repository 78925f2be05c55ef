"""Programs that reach state in roundabout ways: their maps are the loop's, or say that they may not be."""

from __future__ import annotations

import functools
import gc
import importlib
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from amorsize import shutdown
from amorsize._analysis.dependencies import dependencies
from amorsize._analysis.effects import effects_of
from tests import programs
from tests.programs import KINDS, READ_ONLY, USES, WAYS, Bench, Mapping, Program, cheap_workers, run_many

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def _effects(bench: Bench, program: Program) -> Any:
    name = f"effects_{abs(hash(program))}"
    try:
        module = bench.load(program, name)
        return effects_of(module.ENTRY_POINT)
    finally:
        bench.forget(name)


# What a user of these cannot tell from a function without them.
_LEAVES_NO_TRACE = {"lru_cache"}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - READ_ONLY - _LEAVES_NO_TRACE))
def test_each_kind_of_state_is_seen_to_change(bench: Bench, kind: str) -> None:
    """What an item changes, or sets up where it finds nothing, is found by following its code."""
    found = _effects(bench, Program(kind, condition="beyond the 20th"))
    assert found.changes or found.sets_once


@pytest.mark.parametrize("kind", ["object with method", "list", "generator"])
def test_state_is_found_on_every_way(bench: Bench, kind: str) -> None:
    """However a function comes to what it changes, following its code finds it; only the ways that fail are named."""
    missed = [way for way in WAYS if not _effects(bench, Program(kind, (way,))).changes]
    assert missed == []


@pytest.fixture(name="collections")
def _collections() -> Iterator[list[int]]:
    """Have garbage collected all the time, each time as long as in a program with millions of objects."""
    seen: list[int] = []

    def collecting(phase: str, _info: object) -> None:
        until = time.thread_time() + 0.03
        while phase == "stop" and time.thread_time() < until:
            seen.append(1)

    thresholds = gc.get_threshold()
    gc.callbacks.append(collecting)
    gc.set_threshold(20, 1, 1)
    yield seen
    gc.set_threshold(*thresholds)
    gc.callbacks.remove(collecting)


@pytest.mark.parametrize("use", ["plainly", "thread pool", "object's property"])
def test_a_long_collection_of_garbage_changes_no_finding(bench: Bench, collections: list[int], use: str) -> None:
    """What was followed and looked at ended after some time; one look in thousands then found less than the others."""
    program = Program("object with method", ("list", "attribute"), use)
    module = bench.load(program, "effects_collections")
    table = [[i] for i in range(200)]
    found = dependencies(functools.partial(module.ENTRY_POINT, table))
    bench.forget("effects_collections")
    assert collections
    assert found.effects.changes
    assert found.is_complete


@pytest.mark.parametrize("kind", ["object with method", "list", "generator"])
def test_state_is_found_in_every_use(bench: Bench, kind: str) -> None:
    """However what it changes is used, following the code finds it; only the uses that fail are named."""
    missed = [use for use in USES if not _effects(bench, Program(kind, use=use)).changes]
    assert missed == []


def test_readers_are_proved_on_every_way(bench: Bench) -> None:
    """Reading in a roundabout way is no change; nearly always it is known to be none."""
    alarms = [way for way in WAYS if _effects(bench, Program("read list", (way,))).changes]
    assert alarms == ["globals", "eval"]  # what is looked up or made of text at run time may be anything
    alarms = [use for use in USES if _effects(bench, Program("read list", use=use)).changes]
    assert alarms == ["eval", "exec"]


def test_a_value_set_up_by_a_late_item_is_no_initialisation(bench: Bench) -> None:
    """If the sample does not set it up, each worker would set up its own, from another item."""
    bench.n_work = 100_000
    with cheap_workers():
        outcome = bench.run(Program("lazy by item", condition="beyond the 20th"), Mapping())
    assert outcome.verdict == "equal"
    assert "STATE" in outcome.detail


def test_programs_map_as_they_loop() -> None:
    """Drawn from all kinds, ways and uses: equal to the loop, or with a warning; never different without a word."""
    wrong: list[str] = []
    counts = run_many(120, 2026, share_of_loky=0.02, report=wrong.append)
    assert wrong == []
    assert counts["programs"] == 120
    assert counts["reader on fork"] + counts["changer on fork"] + counts["changer on forkserver"] > 0


@pytest.fixture(autouse=True)
def _no_modules_left() -> Iterator[None]:
    yield
    shutdown()
    importlib.invalidate_caches()
    assert not [name for name in sys.modules if name.startswith(("prog_a", "prog_b", "effects_"))]
    assert programs.KINDS is KINDS


def test_following_code_that_holds_itself_ends(bench: Bench) -> None:
    """Things made on the way that hold one another took minutes to look through."""
    program = Program("dict update", ("keyword default", "yield from"), "while", "the last", "function")
    module = bench.load(program, "effects_budget")
    found = effects_of(module.ENTRY_POINT)
    bench.forget("effects_budget")
    assert found.changes or found.unproved


@pytest.mark.parametrize("way", ["default", "keyword default"])
def test_what_the_first_item_sets_in_a_default_is_sent_to_workers(bench: Bench, way: str) -> None:
    """They had the default as their own import made it, and set it from another item."""
    bench.n_work = 400_000  # the workers are there before the caller has done everything
    program = Program("set by the first", ("starred target", way), "conditional")
    mapping = Mapping(n_jobs=2, start_method="forkserver")
    with cheap_workers():
        outcomes = [bench.run(program, mapping) for _ in range(3)]
    assert [outcome.verdict for outcome in outcomes] == ["equal"] * 3
    assert {outcome.backend for outcome in outcomes} == {"forkserver"}


def test_members_of_enumerations_are_not_set_in_workers(bench: Bench) -> None:
    """A function that reads a member of an imported enumeration failed where workers import the module anew."""
    program, mapping = Program("read copy", ("enum",)), Mapping(n_jobs=2, start_method="loky")
    with cheap_workers():
        outcomes = [bench.run(program, mapping) for _ in range(3)]
    assert [outcome.verdict for outcome in outcomes] == ["equal"] * 3
