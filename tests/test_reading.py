# ruff: noqa: D103 - the small functions are named for what they do
"""Inputs that go on with what they have given: a loop does an item before it reads the next, workers have many."""

from __future__ import annotations

import decimal
import io
import itertools
import os
import warnings
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import amorsize
from amorsize.exceptions import AmorsizeWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Up to CPython 3.13 iterators of itertools can be pickled, which is deprecated: items are, to be weighed.
pytestmark = pytest.mark.filterwarnings("ignore:Pickle, copy, and deepcopy support:DeprecationWarning")

N_ITEMS = 150


def spin() -> None:
    """Compute for a while."""
    sum(range(60_000))


class State:
    """What inputs of this module set as they are read."""

    line = 0
    section = ""


LINES: dict[str, int] = {}


class Row:
    """A row that is filled anew."""

    def __init__(self) -> None:
        self.number = 0


def filled_anew(buffer: Any) -> Callable[[], Iterator[Any]]:
    """Return an input that puts each row into *buffer*."""

    def rows() -> Iterator[Any]:
        for i in range(N_ITEMS):
            buffer[0] = i
            yield buffer

    return rows


def objects() -> Iterator[Row]:
    """Yield one object, changed each time."""
    row = Row()
    for row.number in range(N_ITEMS):
        yield row


def views() -> Iterator[memoryview]:
    """Yield what has been read into one buffer."""
    stream, buffer = io.BytesIO(bytes(i % 250 for i in range(2 * N_ITEMS))), bytearray(2)
    while n := stream.readinto(buffer):
        yield memoryview(buffer)[:n]


def elements() -> Iterator[ET.Element]:
    """Yield elements of a document, each cleared before the next, as large documents are read."""
    document = io.BytesIO(b"<all>" + b"<one a='1'><b/></one>" * N_ITEMS + b"</all>")
    for _, element in ET.iterparse(document):  # noqa: S314 - a text of ours
        if element.tag == "one":
            yield element
            element.clear()


def in_chunks() -> Iterator[Iterator[int]]:
    """Yield chunks of an iterator as itertools' documentation once had it."""
    numbers = iter(range(4 * N_ITEMS))
    while True:
        chunk = itertools.islice(numbers, 4)
        try:
            first = next(chunk)
        except StopIteration:
            return
        yield itertools.chain([first], chunk)


def numbered() -> Iterator[int]:
    """Set a class attribute before each item."""
    for State.line in range(N_ITEMS):
        yield State.line


def in_a_dictionary() -> Iterator[int]:
    """Set a value before each item."""
    for i in range(N_ITEMS):
        LINES["line"] = 10 * i
        yield i


def in_the_environment() -> Iterator[int]:
    """Set an environment variable before each item."""
    for i in range(N_ITEMS):
        os.environ["AMORSIZE_TEST_LINE"] = str(i)
        yield i


def with_precision() -> Iterator[int]:
    """Set the precision of decimal numbers before each item."""
    for i in range(1, N_ITEMS):
        decimal.getcontext().prec = 2 + i % 20
        yield i


def add_up(row: Any) -> int:
    spin()
    return int(sum(row))


def read_value(row: dict[int, int]) -> int:
    spin()
    return row[0]


def read_number(row: Row) -> int:
    spin()
    return row.number


def read_bytes(row: memoryview) -> bytes:
    spin()
    return bytes(row)


def read_element(element: ET.Element) -> Any:
    spin()
    return element.get("a"), len(element)


def add_group(group: tuple[int, Iterator[int]]) -> tuple[int, int]:
    spin()
    return group[0], sum(group[1])


def read_line(item: int) -> tuple[int, int]:
    spin()
    return item, State.line


def read_lines(item: int) -> int:
    spin()
    return item + LINES["line"]


def read_environment(item: int) -> tuple[int, str]:
    spin()
    return item, os.environ["AMORSIZE_TEST_LINE"]


def read_text(text: str) -> int:
    spin()
    return int(text)


def divide(item: int) -> str:
    spin()
    return str(decimal.Decimal(1) / item)


def closed_over() -> tuple[Callable[[int], Any], Callable[[], Iterator[int]]]:
    """Return a function that reads a variable, and an input that sets it before each item."""
    line = 0

    def read(item: int) -> tuple[int, int]:
        spin()
        return item, line

    def rows() -> Iterator[int]:
        nonlocal line
        for line in range(N_ITEMS):
            yield 2 * line

    return read, rows


CASES: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "a list": (add_up, filled_anew([0, 1])),
    "an array": (add_up, filled_anew(np.zeros(3))),
    "a dictionary": (read_value, filled_anew({})),
    "an object": (read_number, objects),
    "a buffer": (read_bytes, views),
    "an element": (read_element, elements),
    "groups": (add_group, lambda: itertools.groupby(range(4 * N_ITEMS), key=lambda i: i // 4)),
    "numbered groups": (add_group, lambda: ((k, g) for k, g in itertools.groupby(range(600), key=lambda i: i // 4))),
    "chunks": (add_up, in_chunks),
    "a class attribute": (read_line, numbered),
    "a variable": closed_over(),
    "a value": (read_lines, in_a_dictionary),
    "the environment": (read_environment, in_the_environment),
    "the precision": (divide, with_precision),
}


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AMORSIZE_TEST_LINE", "0")
    with decimal.localcontext():
        yield


@pytest.mark.usefixtures("thread")
@pytest.mark.parametrize("case", CASES)
def test_an_input_that_goes_on_with_its_items_is_read_one_at_a_time(case: str) -> None:
    """Read ahead, each item was as the last one had left it, without a word."""
    function, make = CASES[case]
    expected = [function(item) for item in make()]
    f = amorsize.parallel(function)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AmorsizeWarning)  # where it would have been a loop anyway, there is none
            assert f.map(make()) == expected


@pytest.mark.parametrize("case", CASES)
def test_where_workers_are_asked_for_a_warning_says_why_there_are_none(case: str) -> None:
    """Their results would be wrong: a number of jobs that cannot be had is told."""
    function, make = CASES[case]
    expected = [function(item) for item in make()]
    f = amorsize.parallel(function, n_jobs=2)
    for _ in range(2):
        with pytest.warns(AmorsizeWarning, match="before the next one is read"):
            assert f.map(make()) == expected
        assert f.last_plan is not None
        assert f.last_plan.reason == "shared-state"


@pytest.mark.parametrize("case", CASES)
def test_a_stream_reads_such_an_input_one_at_a_time(case: str) -> None:
    """Of what it reads ahead the same holds."""
    function, make = CASES[case]
    expected = [function(item) for item in make()]
    f = amorsize.parallel(function, n_jobs=2)
    for _ in range(2):
        with pytest.warns(AmorsizeWarning, match="before the next one is read"):
            assert list(f.imap(make())) == expected


class Loader:
    """A data set of known length whose iterator fills one array."""

    def __len__(self) -> int:
        return N_ITEMS

    def __iter__(self) -> Iterator[Any]:
        return filled_anew(np.zeros(3))()


def test_an_input_of_known_length_is_looked_at_too() -> None:
    """What has a length is not for that a list."""
    f = amorsize.parallel(add_up, n_jobs=2)
    with pytest.warns(AmorsizeWarning, match="a ndarray"):
        assert f.map(Loader()) == list(range(N_ITEMS))


PARAMETERS = {0: 1}
INPUTS: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "rows of their own": (add_up, lambda: ([i, 1] for i in range(N_ITEMS))),
    "the same row": (read_value, lambda: itertools.repeat(PARAMETERS, N_ITEMS)),
    "iterators of their own": (add_up, lambda: (map(abs, range(i)) for i in range(N_ITEMS))),
    "views of one array": (add_up, lambda: iter(list(np.arange(3.0 * N_ITEMS).reshape(-1, 3)))),
    "lines of a file": (read_text, lambda: io.StringIO("12\n" * N_ITEMS)),
}


@pytest.mark.parametrize("case", INPUTS)
def test_inputs_that_leave_their_items_alone_have_workers(case: str) -> None:
    """They are looked at in one step, and read ahead as ever."""
    function, make = INPUTS[case]
    f = amorsize.parallel(function, n_jobs=2)
    assert f.map(make()) == [function(item) for item in make()]
    assert f.last_plan is not None
    assert f.last_plan.is_parallel


def sections() -> Iterator[int]:
    """Set a class attribute now and then."""
    for i in range(N_ITEMS):
        if i % 50 == 0:
            State.section = f"section {i}"
        yield i


def read_section(item: int) -> tuple[int, str]:
    spin()
    return item, State.section


@pytest.mark.parametrize("how", ["map", "imap"])
def test_what_a_later_step_of_the_input_changes_is_told(how: str) -> None:
    """By then items behind it have been read; they were computed without a word."""
    f = amorsize.parallel(read_section, n_jobs=2)
    with pytest.warns(AmorsizeWarning, match="changes section, which the function reads"):
        assert len(list(getattr(f, how)(sections()))) == N_ITEMS


def test_no_item_is_lost_where_the_input_ends_at_the_step_that_is_looked_at() -> None:
    """Nor where it fails there."""

    def few(n: int) -> Iterator[int]:
        yield from range(n)
        if n == 3:
            raise KeyError(n)

    f = amorsize.parallel(read_line, n_jobs=2)
    for n in (1, 2, 4, 5, 6, 7):
        assert [i for i, _ in f.map(few(n))] == list(range(n))
        assert [i for i, _ in f.imap(few(n))] == list(range(n))
    with pytest.raises(KeyError, match="3"):
        f.map(few(3))
