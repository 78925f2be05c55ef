# ruff: noqa: D103 - the small functions are named for what they do
"""What encoding, decoding and pickling run of what the program has registered."""

from __future__ import annotations

import codecs
import copy
import copyreg
import pickle
from pathlib import Path
from typing import Any

import pytest

import amorsize
from amorsize._analysis.effects import effects_of
from amorsize.exceptions import AmorsizeWarning

COUNT = 0


def count_errors(error: UnicodeError) -> tuple[str, int]:
    global COUNT  # noqa: PLW0603 - the subject of the test
    COUNT += 1
    return f"<{COUNT}>", error.end  # type: ignore[attr-defined]  # of both classes that come


codecs.register_error("amorsize-tests", count_errors)  # type: ignore[arg-type]  # it returns the end


class Point:
    """What is reduced by a function of the program."""


def reduce_point(_point: Point) -> Any:
    global COUNT  # noqa: PLW0603 - as above
    COUNT += 1
    return Point, ()


copyreg.pickle(Point, reduce_point)


def encodes_a_constant(_x: str) -> bytes:
    return "ä".encode("ascii", "amorsize-tests")


def encodes_an_item(x: str) -> bytes:
    return x.encode("ascii", errors="amorsize-tests")


def decodes(x: str) -> str:
    return x.encode().decode("ascii", "amorsize-tests")


def makes_bytes(x: str) -> bytes:
    return bytes(x, "ascii", "amorsize-tests")


def makes_text(x: str) -> str:
    return str(x.encode(), "ascii", "amorsize-tests")


def encodes_by_function(x: str) -> bytes:
    return codecs.encode(x, "ascii", "amorsize-tests")


def reads_a_file(x: str) -> str:
    return Path(x).read_text(encoding="ascii", errors="amorsize-tests")


def pickles(_x: str) -> bytes:
    return pickle.dumps(Point())


def copies(_x: str) -> Any:
    return copy.copy(Point())


@pytest.mark.parametrize(
    "func",
    [
        encodes_a_constant, encodes_an_item, decodes, makes_bytes, makes_text, encodes_by_function, reads_a_file,
        pickles, copies,
    ],
    ids=lambda func: func.__name__,
)  # fmt: skip
def test_what_is_registered_is_followed(func: Any) -> None:
    """No name in the code leads there: each worker counted for itself, without a word."""
    assert effects_of(func).changes == ("COUNT",)


def encodes_by_a_codec_of_the_program(x: str) -> bytes:
    return x.encode("amorsize-codec")


def test_a_codec_of_the_program_is_not_known() -> None:
    """What it runs cannot be asked without running it."""
    assert effects_of(encodes_by_a_codec_of_the_program).changes == ("the codec 'amorsize-codec'",)


def codes_plainly(x: str) -> str:
    data = x.encode("UTF-8") + x.encode("latin-1", "replace") + bytes(x, "utf_16", errors="strict")
    return data.decode("cp1252", errors="ignore") + str(data, "ascii", "backslashreplace")


def test_the_codecs_and_handlers_of_the_standard_library_change_nothing() -> None:
    assert effects_of(codes_plainly).is_proved


def encodes_for_a_while(x: str) -> bytes:
    sum(range(20_000))
    return x.encode("ascii", errors="amorsize-tests")


def test_a_handler_that_only_a_late_item_calls_runs_as_in_the_loop() -> None:
    """Items of plain letters had been sampled."""
    global COUNT  # noqa: PLW0603 - as above
    COUNT = 0
    with pytest.warns(AmorsizeWarning, match="COUNT"):
        found = amorsize.parallel(encodes_for_a_while).map([*["a"] * 300, *["ä"] * 100])
    assert found == [*[b"a"] * 300, *(f"<{i}>".encode() for i in range(1, 101))]
