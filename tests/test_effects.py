# ruff: noqa: D102, D103 - the small functions are named for what they do
"""What a function's code changes and reaches, by what its code is."""

from __future__ import annotations

import collections
import configparser
import copy
import csv
import dataclasses
import datetime as dt
import functools
import hashlib
import heapq
import io
import itertools
import json
import logging
import math
import operator
import os
import queue
import random
import re
import statistics
import sys
import threading
import types
from typing import Any

import numpy as np
import pytest

from amorsize._analysis import bounds
from amorsize._analysis.dependencies import dependencies, known_dependencies
from amorsize._analysis.effects import effects_of
from tests.callables import Callable_, cached, plain

# -- changes of outside state ----------------------------------------------------------------------------------------

TOTAL = 0
NUMBERS: list[Any] = [[1], [2]]
TABLE: dict[Any, Any] = {}
SEEN: set[Any] = set()
QUEUE: queue.Queue[Any] = queue.Queue()
COUNTS: collections.Counter[Any] = collections.Counter()
RECENT: collections.deque[Any] = collections.deque()
GRID = np.zeros(3)
BOX = types.SimpleNamespace(value=0, inner=types.SimpleNamespace(items=[]))
WORDS = ("a", "b")
LIMIT = 10
SEPARATOR = ","


class Registry:
    """A class that is used as a place for state."""

    count = 0
    names: list[str] = []  # noqa: RUF012 - shared on purpose


def rebinds_global(x: int) -> None:
    global TOTAL  # noqa: PLW0603 - the subject of the test
    TOTAL += x


def rebinds_in_inner_function(x: int) -> None:
    def inner() -> None:
        global TOTAL  # noqa: PLW0603 - the subject of the test
        TOTAL = x

    inner()


def deletes_global(x: int) -> None:
    global TOTAL  # noqa: PLW0603 - the subject of the test
    del TOTAL


def stores_item(x: int) -> None:
    TABLE[x] = x


def stores_computed_key(x: int) -> None:
    TABLE[x if x > 0 else -x] = x


def stores_computed_value(x: int) -> None:
    TABLE[x] = x if x > 0 else -x


def counts_by_hand(x: int) -> None:
    TABLE[x] = TABLE.get(x, 0) + 1


def adds_in_place(x: int) -> None:
    COUNTS[x % 3] += 1


def adds_to_array(x: int) -> None:
    GRID[x] += 1


def stores_slice(x: int) -> None:
    GRID[1:] = x


def stores_deep(x: int) -> None:
    NUMBERS[0][0] = x


def deletes_item(x: int) -> None:
    del TABLE[x]


def stores_attribute(x: int) -> None:
    BOX.value = x


def stores_deep_attribute(x: int) -> None:
    BOX.inner.value = x


def adds_to_attribute(x: int) -> None:
    BOX.value += x


def stores_class_attribute(x: int) -> None:
    Registry.count += 1


def appends(x: int) -> None:
    NUMBERS.append(x)


def appends_in_condition(x: int) -> int:
    return x if NUMBERS.append(x) else 0


def appends_in_branch(x: int) -> None:
    if x > 3:
        y = x
    else:
        NUMBERS.append(x)
        y = 0
    assert y >= 0


def appends_in_try(x: int) -> None:
    try:
        y = int(x)
    except ValueError:
        y = 0
    else:
        NUMBERS.append(y)
    finally:
        y = 1


def appends_in_with(x: int) -> None:
    with io.StringIO() as stream:
        stream.write("")
        NUMBERS.append(x)


def appends_in_comprehension(x: int) -> list[None]:
    return [NUMBERS.append(i) for i in range(x)]


def appends_in_lambda(x: int) -> Any:
    return [(lambda y: NUMBERS.append(y)) for _ in range(x)]  # noqa: PLW0108 - the lambda is the subject


def appends_to_element(x: int) -> None:
    NUMBERS[0].append(x)


def appends_to_default(x: int) -> None:
    TABLE.setdefault(x, []).append(x)


def appends_to_class_attribute(x: int) -> None:
    Registry.names.append(str(x))


def appends_to_nested_attribute(x: int) -> None:
    BOX.inner.items.append(x)


def updates(x: int) -> None:
    TABLE.update({x: x})


def updates_with_keywords(x: int) -> None:
    TABLE.update(a=x, b=x)


def adds_to_set(x: int) -> None:
    SEEN.add(x)


def pops(x: int) -> Any:
    return NUMBERS.pop()


def sorts(x: int) -> None:
    NUMBERS.sort(key=str)


def puts(x: int) -> None:
    QUEUE.put(x)


def append_left(x: int) -> None:
    RECENT.appendleft(x)


def stores_through_alias(x: int) -> None:
    table = TABLE
    table[x] = x


def appends_through_alias(x: int) -> None:
    add = NUMBERS.append
    add(x)


def stores_through_pair(x: int) -> None:
    table, numbers = TABLE, NUMBERS
    table[x] = len(numbers)


def stores_through_alias_of_element(x: int) -> None:
    row = NUMBERS[0]
    row[0] = x


def stores_through_walrus(x: int) -> None:
    if (table := TABLE) is not None:
        table[x] = x


def helper_that_appends(x: int) -> int:
    NUMBERS.append(x)
    return x


def second_helper(x: int) -> int:
    return helper_that_appends(x)


def calls_helper(x: int) -> int:
    return second_helper(x)


def sets_environment(x: int) -> None:
    os.environ["AMORSIZE_TEST"] = str(x)


def counts_on_itself(x: int) -> None:
    counts_on_itself.calls += 1  # type: ignore[attr-defined]


CHANGES = [
    (rebinds_global, "TOTAL"),
    (rebinds_in_inner_function, "TOTAL"),
    (deletes_global, "TOTAL"),
    (stores_item, "TABLE"),
    (stores_computed_key, "TABLE"),
    (stores_computed_value, "TABLE"),
    (counts_by_hand, "TABLE"),
    (adds_in_place, "COUNTS"),
    (adds_to_array, "GRID"),
    (stores_slice, "GRID"),
    (stores_deep, "NUMBERS"),
    (deletes_item, "TABLE"),
    (stores_attribute, "BOX"),
    (stores_deep_attribute, "BOX"),
    (adds_to_attribute, "BOX"),
    (stores_class_attribute, "Registry"),
    (appends, "NUMBERS"),
    (appends_in_condition, "NUMBERS"),
    (appends_in_branch, "NUMBERS"),
    (appends_in_try, "NUMBERS"),
    (appends_in_with, "NUMBERS"),
    (appends_in_comprehension, "NUMBERS"),
    (appends_in_lambda, "NUMBERS"),
    (appends_to_element, "NUMBERS"),
    (appends_to_default, "TABLE"),
    (appends_to_class_attribute, "Registry"),
    (appends_to_nested_attribute, "BOX"),
    (updates, "TABLE"),
    (updates_with_keywords, "TABLE"),
    (adds_to_set, "SEEN"),
    (pops, "NUMBERS"),
    (sorts, "NUMBERS"),
    (puts, "QUEUE"),
    (append_left, "RECENT"),
    (stores_through_alias, "TABLE"),
    (appends_through_alias, "NUMBERS"),
    (stores_through_pair, "TABLE"),
    (stores_through_alias_of_element, "NUMBERS"),
    (stores_through_walrus, "TABLE"),
    (calls_helper, "NUMBERS"),
    (sets_environment, "os"),
    (counts_on_itself, "counts_on_itself"),
]


@pytest.mark.parametrize(("func", "name"), CHANGES, ids=lambda value: getattr(value, "__name__", value))
def test_a_change_of_outside_state_is_seen(func: Any, name: str) -> None:
    """Rebinding, storing into and mutating what lives outside is found, under the name it goes by (S12)."""
    assert effects_of(func).changes == (name,)


def local_list(x: int) -> list[int]:
    numbers = []
    numbers.append(x)
    numbers.extend([x, x])
    numbers.sort()
    return numbers


def local_dict(x: int) -> dict[int, int]:
    table = {}
    table[x] = x
    table.update({x: 1})
    table.setdefault(x, 2)
    return table


def local_copy(x: int) -> list[Any]:
    numbers = list(NUMBERS)
    numbers.append(x)
    table = TABLE.copy()
    table[x] = x
    table.pop(x)
    both = NUMBERS + [x]  # noqa: RUF005 - the operator is the subject
    both.append(x)
    part = sorted(NUMBERS, key=str)
    part.reverse()
    return numbers


def local_of_branch(x: int) -> list[Any]:
    numbers = [] if x > LIMIT else [x]
    numbers.append(x)
    return numbers


def local_after_reading(x: int) -> list[str]:
    words = SEPARATOR.join(WORDS).split(SEPARATOR)
    words.append(str(x))
    words[0] = SEPARATOR
    return words


def local_object(x: int) -> Any:
    box = types.SimpleNamespace(items=[])
    box.value = x
    box.items.append(x)
    return box


def adds_with_numpy(x: int) -> Any:
    return np.add(x, GRID)


def sorts_with_numpy(x: int) -> Any:
    return np.sort(GRID) + np.insert(GRID, 0, x)[:3]


def calls_module_functions(x: int) -> Any:
    return operator.add(x, 1), math.sqrt(x), os.fspath(str(x))


def local_array(x: int) -> Any:
    grid = np.zeros(3)
    grid[0] = x
    grid += GRID
    return grid


def reads_only(x: int) -> Any:
    return TABLE.get(x), NUMBERS[0], len(SEEN), BOX.value, x in COUNTS


def changes_its_argument_in_an_inner_function(x: int) -> list[int]:
    def collect(out: list[int]) -> list[int]:
        out.append(x)
        return out

    return collect([])


def shadows(TABLE: dict[int, int]) -> None:  # noqa: N803 - the same name as the global on purpose
    TABLE[1] = 2


def inner_state(x: int) -> int:
    total = 0

    def add(y: int) -> None:
        nonlocal total
        total += y

    add(x)
    return total


def comprehension(x: int) -> Any:
    return {i: [j + 1 for j in range(i)] for i in range(x)}, {*WORDS}, sum(i for i in NUMBERS[0])


def formats(x: int) -> str:
    return f"{x:>{LIMIT}} {SEPARATOR!r} {TABLE.get(x, 0) + 1}"


INNOCENT = [
    local_list,
    local_dict,
    local_copy,
    local_of_branch,
    local_after_reading,
    local_object,
    adds_with_numpy,
    sorts_with_numpy,
    calls_module_functions,
    local_array,
    reads_only,
    changes_its_argument_in_an_inner_function,
    shadows,
    inner_state,
    comprehension,
    formats,
    plain,
    cached,
    len,
    int,
    np.add,
]


@pytest.mark.parametrize("func", INNOCENT, ids=lambda func: func.__name__)
def test_what_stays_inside_is_no_change(func: Any) -> None:
    """Local containers, functions of modules and plain reading do not count as changing outside state."""
    assert effects_of(func).changes == ()


# -- ordinary functions, as they are written where data are worked on -------------------------------------------------

WEIGHTS = np.arange(12.0).reshape(3, 4)
STOP_WORDS = frozenset({"the", "a"})
LABELS = {"cat": 0, "dog": 1}
PATTERN = re.compile(r"(\w+)@(\w+)")
LOG = logging.getLogger("amorsize.tests")
EDGES = {0: [1, 2], 1: [2], 2: []}


@dataclasses.dataclass(frozen=True)
class Point:
    """A record."""

    x: float
    y: float = 0.0

    def shifted(self, by: float) -> Point:
        return dataclasses.replace(self, x=self.x + by)

    @property
    def length(self) -> float:
        return math.hypot(self.x, self.y)


class Scaler:
    """Fitted before, read by items."""

    def __init__(self) -> None:
        self.mean, self.scale = WEIGHTS.mean(axis=0), 2.0

    def transform(self, row: Any) -> Any:
        return (row - self.mean) / self.scale

    def __call__(self, row: Any) -> Any:
        return self.transform(np.asarray(row)).sum()


SCALER = Scaler()


def tokenizes(x: str) -> list[str]:
    return [word.lower() for word in str(x).split() if word not in STOP_WORDS]


def counts_words(x: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in str(x).split():
        counts[word] = counts.get(word, 0) + 1
    return counts


def counts_with_counter(x: str) -> Any:
    return collections.Counter(str(x).split()).most_common(3)


def groups(x: int) -> dict[int, list[int]]:
    found = collections.defaultdict(list)
    for i in range(x):
        found[i % 3].append(i)
    return dict(found)


def parses_json(x: Any) -> Any:
    record = json.loads(json.dumps({"x": x}))
    record["label"] = LABELS.get("cat")
    return record


def matches(x: Any) -> Any:
    found = PATTERN.search(str(x))
    return found.group(1) if found else re.sub("a", "b", str(x))


def logs(x: int) -> int:
    LOG.debug("item %s", x)
    return x


def weighs(x: int) -> float:
    row = WEIGHTS[x % 3].copy()
    row += 1
    row[0] = 0
    return float(row @ WEIGHTS.T[:, 0])


def accumulates(x: int) -> float:
    total = 0.0
    for weight in WEIGHTS[x % 3]:
        total += weight
    return total


def makes_point(x: float) -> Any:
    return Point(x).shifted(1).length


def scales(x: int) -> Any:
    return SCALER(WEIGHTS[x % 3])


def sorts_pairs(x: int) -> Any:
    pairs = [(i, -i) for i in range(x)]
    pairs.sort(key=lambda pair: pair[1])
    return sorted(LABELS.items(), key=operator.itemgetter(1)), pairs


def walks_graph(x: int) -> set[int]:
    seen, todo = set(), collections.deque([x % 3])
    while todo:
        node = todo.popleft()
        if node not in seen:
            seen.add(node)
            todo.extend(EDGES[node])
    return seen


def fibonacci(x: int) -> int:
    return x if x < 2 else fibonacci(x - 1) + fibonacci(x - 2)


def builds_text(x: int) -> str:
    parts = ["row"]
    parts.append(f"{x:05d}")
    return ",".join(parts)


def reduces(x: int) -> int:
    return functools.reduce(lambda a, b: a * b, range(1, x + 2), 1)


def merges(x: int) -> dict[str, Any]:
    return {**LABELS, "x": x} | {"y": x}


def copies_deep(x: int) -> Any:
    mine = copy.deepcopy(NUMBERS)
    mine[0].append(x)
    return mine


class Options:
    """Has a text, which may be what a copy of it is taken for."""

    def __init__(self, kind: str = "plain", level: int = 0) -> None:
        self.kind, self.level = kind, level


def sets_in_a_copy(x: int) -> Any:
    mine = copy.copy(Options())
    mine.level = x
    return mine.kind, mine.level


def writes_in_memory(x: int) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([x, LIMIT])
    return out.getvalue()


def hashes(x: int) -> str:
    digest = hashlib.sha256()
    digest.update(str(x).encode())
    return digest.hexdigest()


def heaps(x: int) -> list[int]:
    heap: list[int] = []
    for i in range(x):
        heapq.heappush(heap, -i)
    return heapq.nsmallest(2, heap)


def catches(x: Any) -> Any:
    try:
        return int(x)
    except (TypeError, ValueError) as error:
        return str(error)


def generates(x: int) -> list[int]:
    def numbers() -> Any:
        yield from range(x)

    return list(itertools.chain(numbers(), [LIMIT]))


def simulates(x: int) -> float:
    rng = random.Random(x)
    return sum(rng.gauss(0, 1) for _ in range(3))


def dates(x: int) -> str:
    return (dt.date(2024, 1, 1) + dt.timedelta(days=x)).isoformat()


def windows(x: int) -> list[float]:
    values = [float(i) for i in range(x)]
    return [statistics.mean(values[i : i + 2]) for i in range(len(values) - 2)]


def numpy_reductions(x: int) -> float:
    grid = np.where(x < WEIGHTS, WEIGHTS, 0)
    grid[grid > 2] = 1
    return float(np.linalg.norm(grid) + np.mean(grid, axis=0).max())


def matrix(x: int) -> list[list[int]]:
    rows = [[0] * 3 for _ in range(3)]
    rows[x % 3][0] = x
    return list(map(list, zip(*rows, strict=True)))


def matches_cases(x: Any) -> str:
    match x:
        case int():
            return "number"
        case {"kind": kind}:
            return str(kind)
        case _:
            return "other"


ROW_NAMES = ["a", "b", "c"]


def groups_by_name(x: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {name: [] for name in ROW_NAMES}
    for i in range(x):
        found[ROW_NAMES[i % 3]].append(i)
    return found


def groups_as_they_come(x: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name in ROW_NAMES:
        found.setdefault(name, []).append(x)
    return found


ORDINARY = [
    groups_by_name, groups_as_they_come, tokenizes, counts_words, counts_with_counter, groups,
    parses_json, matches, logs, weighs, accumulates, makes_point, scales, sorts_pairs, walks_graph, fibonacci,
    builds_text, reduces, merges, copies_deep, writes_in_memory, hashes, heaps, catches, generates, simulates, dates,
    windows, numpy_reductions, matrix, matches_cases, sets_in_a_copy,
]  # fmt: skip


@pytest.mark.parametrize("func", ORDINARY, ids=lambda func: func.__name__)
def test_ordinary_functions_are_known_to_be_harmless(func: Any) -> None:
    """Reading tables, making and changing what is one's own, calling libraries: nothing to warn of, free to fork."""
    func(3)
    found = dependencies(func)
    assert found.effects.changes == ()
    assert found.effects.is_proved, found.effects.unproved
    assert found.open_names == ()


def test_a_closure_that_rebinds_is_seen() -> None:
    """Nonlocal counters and containers of an enclosing function are outside state."""
    total = 0
    rows: list[int] = []

    def rebinds(x: int) -> None:
        nonlocal total
        total += x

    def stores(x: int) -> None:
        rows.append(x)

    def innocent(x: int) -> int:
        return x + total + len(rows)

    assert effects_of(rebinds).changes == ("total",)
    assert effects_of(stores).changes == ("rows",)
    assert effects_of(innocent).changes == ()


class Worker:
    """Methods that change their object and methods that do not."""

    def __init__(self) -> None:
        self.total = 0
        self.rows: list[int] = []

    def adds(self, x: int) -> None:
        self.total += x

    def appends(self, x: int) -> None:
        self.rows.append(x)

    def adds_through_alias(self, x: int) -> None:
        me = self
        me.total = x

    def reads(self, x: int) -> int:
        return x + self.total + len(self.rows)

    def collects(self, x: int) -> list[int]:
        rows = list(self.rows)
        rows.append(x)
        return rows

    def collects_in_inner_function(self, x: int) -> list[int]:
        def collect(out: list[int]) -> list[int]:
            out.append(x)
            return out

        return collect([])

    def __call__(self, x: int) -> None:
        self.total += x


@pytest.mark.parametrize("name", ["adds", "appends", "adds_through_alias", "__call__"])
def test_a_method_that_changes_its_object_is_seen(name: str) -> None:
    """The object that a method is bound to is outside state."""
    assert effects_of(getattr(Worker(), name)).changes == ("self",)


def test_a_callable_object_that_changes_itself_is_seen() -> None:
    """So is the object of __call__."""
    assert effects_of(Worker()).changes == ("self",)


@pytest.mark.parametrize("name", ["reads", "collects", "collects_in_inner_function"])
def test_a_method_that_leaves_its_object_alone_is_innocent(name: str) -> None:
    """Reading the object, copying from it, and inner functions with arguments of their own change nothing."""
    assert effects_of(getattr(Worker(), name)).changes == ()


def test_an_unbound_function_may_change_its_first_argument() -> None:
    """Without an object bound to it, the first argument is the item, which is not outside state."""
    assert effects_of(Worker.appends).changes == ()


def remembers(x: int, memory: list[int] = []) -> int:  # noqa: B006 - the subject of the test
    memory.append(x)
    return len(memory)


def test_a_mutable_default_argument_is_outside_state() -> None:
    """A default value outlives the call, so appending to it makes results depend on the order of calls."""
    assert effects_of(remembers).changes == ("memory",)


# -- reading what can change -----------------------------------------------------------------------------------------


def test_mutable_outside_state_that_is_read_is_named() -> None:
    """Containers and arrays that the function reads are named, unchangeable values are not."""
    state = dependencies(reads_only)
    assert set(state.reads_mutable) >= {"NUMBERS", "SEEN", "TABLE"}
    assert dependencies(formats).reads_mutable == ("TABLE",)
    assert dependencies(adds_with_numpy).reads_mutable == ("GRID",)
    assert dependencies(local_after_reading).reads_mutable == ()
    assert dependencies(plain).reads_mutable == ()


def test_a_counter_is_mutable_too() -> None:
    """Subclasses of the built-in containers count."""
    assert "COUNTS" in dependencies(reads_only).reads_mutable


def test_what_is_changed_is_not_also_called_read() -> None:
    """A name stands in one of the two lists."""
    state = dependencies(counts_by_hand)
    assert state.effects.changes == ("TABLE",)
    assert state.reads_mutable == ()


# -- what two processes must not share -------------------------------------------------------------------------------

RNG = np.random.default_rng(1)
DRAW = RNG.normal
DICE = random.Random(1)
LOCK = threading.Lock()
STREAM = io.StringIO()
HOLDER = types.SimpleNamespace(rng=RNG)


def draws(x: int) -> float:
    return float(RNG.random()) + x


def draws_by_method(x: int) -> float:
    return float(DRAW()) + x


def draws_from_holder(x: int) -> float:
    return float(HOLDER.rng.random()) + x


def rolls(x: int) -> int:
    return DICE.randint(0, x)


def locks(x: int) -> int:
    with LOCK:
        return x


def writes(x: int) -> int:
    return STREAM.write(str(x))


def seeds_its_own(x: int) -> float:
    return float(np.random.default_rng(x).random()) + random.Random(x).random()


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (draws, "RNG"),
        (draws_by_method, "DRAW"),
        (draws_from_holder, "HOLDER"),
        (rolls, "DICE"),
        (locks, "LOCK"),
        (writes, "STREAM"),
    ],
)
def test_what_must_not_be_shared_by_fork_is_named(func: Any, name: str) -> None:
    """Generators of random numbers, locks and streams forbid copying the function by fork."""
    found = dependencies(func)
    assert {path.path.partition(".")[0] for path in found.shared} == {name}
    assert not found.is_closed


def test_what_is_bound_counts_as_shared() -> None:
    """An argument of a partial and the object of a method are looked at too."""
    assert not dependencies(functools.partial(plain, RNG)).is_closed
    assert dependencies(functools.partial(plain, 1)).is_closed
    one = Callable_(1)
    assert dependencies(one.method).is_closed
    one.k = STREAM  # type: ignore[assignment]
    assert [found.path for found in dependencies(one.method).shared] == ["self.k"]


@pytest.mark.parametrize("func", [seeds_its_own, reads_only, plain, adds_with_numpy, len])
def test_ordinary_functions_may_be_forked(func: Any) -> None:
    """Modules, containers, arrays and functions are no obstacle."""
    assert dependencies(func).open_names == ()


def test_writing_to_the_standard_streams_changes_nothing() -> None:
    """What workers write there appears in the caller's; one that is put in their place is a change."""

    def writes(x: int) -> int:
        sys.stdout.write(f"{x}\n")
        sys.stderr.flush()
        return x

    def replaces(x: int) -> int:
        sys.stdout = io.StringIO()
        return x

    assert effects_of(writes).is_proved
    assert effects_of(replaces).changes == ("sys",)


def test_the_variable_of_a_decorator_is_named_with_what_it_holds() -> None:
    """Of a name like *self*, which the user did not write, nobody could tell what it is."""
    program = """
import functools
class Counter:
    n = 0
    def counted(self, func):
        @functools.wraps(func)
        def inner(x):
            self.n += 1
            return func(x)
        return inner
"""
    library = types.ModuleType("a_library")
    exec(program, library.__dict__)  # noqa: S102 - a module of somebody else's

    @library.Counter().counted
    def square(x: int) -> int:
        return x * x

    assert effects_of(square).changes == ("self (a_library.Counter)",)
    assert [found.path for found in dependencies(square).mutable] == ["self (a_library.Counter)"]


LEVEL = 1


def reads_level(x: int) -> int:
    return x + LEVEL


def test_another_number_under_a_name_needs_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only objects can reach further; a list that has grown, or another object, is looked at again."""
    first = known_dependencies(reads_level)
    monkeypatch.setitem(globals(), "LEVEL", 2)
    assert known_dependencies(reads_level) is first
    monkeypatch.setitem(globals(), "LEVEL", [2])
    assert known_dependencies(reads_level) is not first


LATE: list[Any] = []
SETTINGS = configparser.ConfigParser()


def test_what_comes_after_an_object_that_holds_itself_is_looked_at() -> None:
    """A configuration holds methods that take it: each was followed through all others, until no step was left."""

    def reads_and_notes(key: str) -> None:
        LATE.append(SETTINGS.get("section", key, fallback=""))

    assert list(effects_of(reads_and_notes).changes) == ["LATE"]


def test_what_comes_after_a_large_library_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of libraries has a budget of its own: what the program changes afterwards was not seen."""
    monkeypatch.setattr(bounds, "MOST_LIBRARY_STEPS", 10)
    installed: dict[str, Any] = {"__name__": "installed"}
    text = "def call(x):\n    for i in range(x):\n        x = x * x + i\n    return inner(x)\n\ndef inner(x): return x"
    exec(compile(text, os.__file__.replace("os.py", "installed.py"), "exec"), installed)  # noqa: S102 - a file of ours
    call = installed["call"]

    def calls_and_notes(x: int) -> None:
        LATE.append(call(x))

    found = effects_of(calls_and_notes)
    assert list(found.changes) == ["LATE"]
    assert found.is_cut_short
