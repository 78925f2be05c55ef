# ruff: noqa: D102, D103 - the small functions are named for what they do
from __future__ import annotations

import collections
import functools
import io
import math
import operator
import os
import queue
import random
import subprocess
import sys
import textwrap
import threading
import types
from typing import Any

import numpy as np
import pytest

from amorsize._function import bare, code_hash, function_key, outside

# -- the stable key --------------------------------------------------------------------------------------------------


def function_from(source: str, name: str = "f", filename: str = "somewhere.py") -> types.FunctionType:
    """Run *source* as a module of its own and return what it calls *name*."""
    namespace: dict[str, Any] = {"__name__": "made_up", "__builtins__": __builtins__}
    exec(compile(textwrap.dedent(source), filename, "exec"), namespace)  # noqa: S102 - the tests' own text
    found = namespace[name]
    assert isinstance(found, types.FunctionType)
    return found


SCRIPT = """
from amorsize._function import function_key
import math, functools, operator

def work(x, *, scale=2.5):
    names = {"a", "b", "c", "d"}
    if x in {"one", "two", "three", 4, (5, "six")}:
        return [lambda y: y + 1j, b"bytes", 1.5]
    def inner(z):
        return z in {"p", "q", "r", None, ...}
    return {n: inner(n) for n in names}

class Thing:
    def __call__(self, x):
        return x in {"left", "right"}

print(function_key(work), function_key(math.sqrt), function_key(Thing()), function_key(functools.partial(work, 1)),
      function_key(operator.itemgetter(1)), function_key(int))
"""


def test_the_key_is_equal_in_every_process() -> None:
    """Neither another process nor another PYTHONHASHSEED changes the key of a function with sets in its code."""
    outputs = set()
    for seed in ("0", "1", "12345"):
        environ = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environ, capture_output=True, text=True, check=True, timeout=60
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert len(set(outputs.pop().split())) == 5  # a partial has the key of its function


BODY = """
def f(x):
    try:
        total = sum(i * 2 for i in range(x))
    except ValueError:
        total = 0
    return lambda y: y + total
"""


def test_moving_code_keeps_the_key() -> None:
    """Line numbers, comments and the file's name do not count."""
    moved = "\n\n\n# a comment\nOTHER = 1\n" + BODY.replace("    try", "\n    # why\n    try")
    assert function_key(function_from(BODY)) == function_key(function_from(moved, filename="elsewhere.py"))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(BODY.replace("i * 2", "i * 3"), id="a constant"),
        pytest.param(BODY.replace("i * 2", "i * 2.0"), id="the type of a constant"),
        pytest.param(BODY.replace("i * 2", "i + 2"), id="an operator"),
        pytest.param(BODY.replace("y + total", "total + y"), id="the code of a lambda inside"),
        pytest.param(BODY.replace("y + total", "y - total"), id="an operator of a lambda inside"),
        pytest.param(BODY.replace("ValueError", "TypeError"), id="a name"),
        pytest.param(BODY.replace("f(x)", "f(x, y=None)"), id="the signature"),
        pytest.param(BODY.replace("f(x)", "f(*x)").replace("range(x)", "range(*x)"), id="a star"),
        pytest.param(BODY.replace("total = 0", "total = -0.0"), id="a sign"),
    ],
)
def test_changed_code_changes_the_key(changed: str) -> None:
    """What the function does or holds as constants counts."""
    assert function_key(function_from(BODY)) != function_key(function_from(changed))


def test_equal_constants_of_different_kind_differ() -> None:
    """1, 1.0 and True are different constants, and so are zeros of different sign, nested in tuples and sets too."""
    texts = ["1", "1.0", "True", "'1'", "b'1'", "0.0", "-0.0", "(1,)", "(1.0,)", "x in {1, 2}", "x in {1.0, 2}"]
    keys = {code_hash(function_from(f"def f(x): return {text}").__code__) for text in texts}
    assert len(keys) == len(texts)


def test_a_long_integer_constant_has_a_key() -> None:
    """A constant too long for decimal text (4,300 digits) does not stop the hash."""
    source = f"def f(x): return x + 0x{'f' * 5000}"
    assert code_hash(function_from(source).__code__) == code_hash(function_from(source).__code__)


def test_what_has_no_code_is_known_by_name() -> None:
    """Builtins, types, ufuncs and methods of C types are told apart by module, qualified name and type."""
    found = [math.sqrt, math.sin, len, int, float, str.upper, str.lower, operator.itemgetter(0), np.sin, np.sqrt]
    assert len({function_key(func) for func in found}) == len(found)
    assert function_key(len) == function_key(len)


class Callable_:  # noqa: N801 - reads as what it is
    """A callable object whose code is its __call__."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.calls = 0
        self.log: list[int] = []

    def __call__(self, x: int) -> int:
        return x + self.k

    def method(self, x: int) -> int:
        """Add k."""
        return x - self.k

    @classmethod
    def of_class(cls, x: int) -> int:
        """Double."""
        return 2 * x

    @staticmethod
    def static(x: int) -> int:
        """Triple."""
        return 3 * x


def plain(x: int, y: int = 0) -> int:
    """Add."""
    return x + y


@functools.lru_cache
def cached(x: int) -> int:
    """Square."""
    return x * x


def test_the_function_under_wrappers_is_found() -> None:
    """Partials, methods, callable objects and caches lead to their code, and to what is bound on the way."""
    one = Callable_(1)
    assert bare(plain) == (plain, ())
    assert bare(functools.partial(functools.partial(plain, 1), y=2))[0] is plain
    assert set(bare(functools.partial(functools.partial(plain, 1), y=2))[1]) == {1, 2}
    assert bare(one) == (Callable_.__call__, (one,))
    assert bare(one.method) == (Callable_.method, (one,))
    assert bare(Callable_.of_class) == (Callable_.__dict__["of_class"].__func__, (Callable_,))
    assert bare(Callable_.static) == (Callable_.static, ())
    assert bare(cached) == (cached.__wrapped__, ())
    assert bare(len) == (None, ())
    assert bare(int) == (None, ())


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
    assert outside(func).mutates == (name,)


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
    return operator.add(x, 1), math.sqrt(x), random.random()


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
    assert outside(func).mutates == ()


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

    assert outside(rebinds).mutates == ("total",)
    assert outside(stores).mutates == ("rows",)
    assert outside(innocent).mutates == ()


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
    assert outside(getattr(Worker(), name)).mutates == ("self",)


def test_a_callable_object_that_changes_itself_is_seen() -> None:
    """So is the object of __call__."""
    assert outside(Worker()).mutates == ("self",)


@pytest.mark.parametrize("name", ["reads", "collects", "collects_in_inner_function"])
def test_a_method_that_leaves_its_object_alone_is_innocent(name: str) -> None:
    """Reading the object, copying from it, and inner functions with arguments of their own change nothing."""
    assert outside(getattr(Worker(), name)).mutates == ()


def test_an_unbound_function_may_change_its_first_argument() -> None:
    """Without an object bound to it, the first argument is the item, which is not outside state."""
    assert outside(Worker.appends).mutates == ()


def remembers(x: int, memory: list[int] = []) -> int:  # noqa: B006 - the subject of the test
    memory.append(x)
    return len(memory)


def test_a_mutable_default_argument_is_outside_state() -> None:
    """A default value outlives the call, so appending to it makes results depend on the order of calls."""
    assert outside(remembers).mutates == ("memory",)


# -- reading what can change -----------------------------------------------------------------------------------------


def test_mutable_outside_state_that_is_read_is_named() -> None:
    """Containers and arrays that the function reads are named, unchangeable values are not."""
    state = outside(reads_only)
    assert set(state.reads_mutable) >= {"NUMBERS", "SEEN", "TABLE"}
    assert outside(formats).reads_mutable == ("TABLE",)
    assert outside(adds_with_numpy).reads_mutable == ("GRID",)
    assert outside(local_after_reading).reads_mutable == ()
    assert outside(plain).reads_mutable == ()


def test_a_counter_is_mutable_too() -> None:
    """Subclasses of the built-in containers count."""
    assert "COUNTS" in outside(reads_only).reads_mutable


def test_what_is_changed_is_not_also_called_read() -> None:
    """A name stands in one of the two lists."""
    state = outside(counts_by_hand)
    assert state.mutates == ("TABLE",)
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
    return float(np.random.default_rng(x).random()) + random.random()


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
    assert outside(func).unshareable == (name,)


def test_what_is_bound_counts_as_shared() -> None:
    """An argument of a partial and the object of a method are looked at too."""
    assert len(outside(functools.partial(plain, RNG)).unshareable) == 1
    assert outside(functools.partial(plain, 1)).unshareable == ()
    one = Callable_(1)
    assert outside(one.method).unshareable == ()
    one.stream = STREAM  # type: ignore[attr-defined]
    assert outside(one.method).unshareable == ("self",)


@pytest.mark.parametrize("func", [seeds_its_own, reads_only, plain, adds_with_numpy, len])
def test_ordinary_functions_may_be_forked(func: Any) -> None:
    """Modules, containers, arrays and functions are no obstacle."""
    assert outside(func).unshareable == ()
