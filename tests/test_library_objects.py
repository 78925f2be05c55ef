# ruff: noqa: D101, D102, D103 - the small functions and classes are named for what they do
"""What objects and functions of libraries change, and what they call of the program's: late items too."""

from __future__ import annotations

import argparse
import codecs
import configparser
import contextlib
import contextvars
import copy
import csv
import ctypes
import enum
import functools
import io
import logging
import types
import unittest.mock
import xml.dom.minidom
import xml.etree.ElementTree as ET
import xml.sax
from typing import Any

import numpy as np
import pytest

from amorsize._analysis.effects import effects_of

LATE = 200
COUNT = 0


def bump(*_args: object) -> int:
    global COUNT  # noqa: PLW0603 - the subject of the test
    COUNT += 1
    return COUNT


class Color(enum.Enum):
    RED = 1

    @classmethod
    def _missing_(cls, value: object) -> Any:
        bump(value)
        return cls.RED


def asks_an_enum_for_what_it_lacks(x: int) -> Any:
    return Color(x)


POINTER = ctypes.CFUNCTYPE(ctypes.c_int)(bump)


def calls_a_pointer_of_ctypes(x: int) -> int:
    return int(POINTER()) if x > LATE else 0


UFUNC = np.frompyfunc(bump, 1, 1)


def calls_a_ufunc_of_a_function(x: int) -> Any:
    return UFUNC(x)


class Noted(argparse.Action):
    def __call__(self, *_args: object, **_more: object) -> None:
        bump()


def hands_a_class_to_a_parser(x: int) -> Any:
    parser = argparse.ArgumentParser()
    parser.add_argument("--a", action=Noted)
    return parser.parse_args(["--a", str(x)])


class Handler(xml.sax.ContentHandler):
    def startElement(self, name: str, attrs: object) -> None:  # noqa: N802 - the name that xml.sax calls
        bump(name, attrs)


def hands_an_object_to_a_parser(_x: int) -> None:
    xml.sax.parseString(b"<a/>", Handler())  # noqa: S317 - a text of ours


class Reduced:
    def __reduce__(self) -> Any:
        return bump, ()


def copies_what_reduces_itself(_x: int) -> Any:
    return copy.copy(Reduced())


class Array(np.ndarray):  # type: ignore[type-arg]
    def __array_finalize__(self, _other: object) -> None:
        bump()


def views_as_a_class(_x: int) -> Any:
    return np.zeros(2).view(Array)


class Log:
    def __init__(self) -> None:
        self.seen: list[int] = []

    def add(self, x: int) -> None:
        self.seen.append(x)


LOG = Log()


def adds_in_a_class_of_its_own(x: int) -> None:
    class Local:
        log = LOG

        def add(self, x: int) -> None:
            self.log.add(x)

    if x > LATE:
        Local().add(x)


def adds_through_a_property_of_a_class_of_its_own(x: int) -> None:
    class Local:
        @functools.cached_property
        def log(self) -> Log:
            return LOG

    if x > LATE:
        Local().log.add(x)


def adds_through_a_context_variable(x: int) -> None:
    variable = contextvars.ContextVar[Log]("variable")
    variable.set(LOG)
    if x > LATE:
        variable.get().add(x)


CALLS: dict[Any, str] = {
    adds_in_a_class_of_its_own: "LOG",
    adds_through_a_property_of_a_class_of_its_own: "LOG",
    adds_through_a_context_variable: "LOG",
    asks_an_enum_for_what_it_lacks: "COUNT",
    calls_a_pointer_of_ctypes: "COUNT",
    calls_a_ufunc_of_a_function: "COUNT",
    hands_a_class_to_a_parser: "COUNT",
    hands_an_object_to_a_parser: "COUNT",
    copies_what_reduces_itself: "COUNT",
    views_as_a_class: "COUNT",
}

BUFFER = bytearray(8)
GRID = np.zeros(4)
BOX = types.SimpleNamespace(value=1)
TABLE = {"a": 1}
ROOT = ET.Element("root")
DOCUMENT = xml.dom.minidom.Document()
CONFIG = configparser.ConfigParser()
ROWS = csv.DictReader(io.StringIO("a\n1\n2"))
DECODER = codecs.getincrementaldecoder("utf-8")()
STACK = contextlib.ExitStack()
MOCK = unittest.mock.Mock()


def helper(*, more: int = 0) -> int:
    return more


def writes_through_a_cast(x: int) -> None:
    if x > LATE:
        with memoryview(BUFFER).cast("I") as view:
            view[0] = x


def gives_an_array_for_the_result(x: int) -> None:
    if x > LATE:
        np.clip(GRID, 0, 1, GRID)


def fills_by_a_function(x: int) -> None:
    if x > LATE:
        np.fill_diagonal(GRID.reshape(2, 2), x)


def deletes_an_attribute_that_is_there(x: int) -> None:
    if x > LATE and hasattr(BOX, "value"):
        del BOX.value


def deletes_an_item_that_is_there(x: int) -> None:
    if x > LATE and "a" in TABLE:
        del TABLE["a"]


def adds_an_element(x: int) -> None:
    if x > LATE:
        ET.SubElement(ROOT, "a")


def appends_a_node(x: int) -> None:
    if x > LATE:
        DOCUMENT.appendChild(DOCUMENT.createElement("a"))


def reads_a_configuration(x: int) -> None:
    if x > LATE:
        CONFIG.read_string("[a]\nb=c")


def takes_a_row(x: int) -> Any:
    return next(ROWS, None) if x > LATE else None


def takes_all_rows(x: int) -> Any:
    return [*ROWS] if x > LATE else None


def decodes_a_part(x: int) -> str:
    return DECODER.decode(b"a") if x > LATE else ""


def adds_a_callback(x: int) -> None:
    if x > LATE:
        STACK.callback(helper)


def calls_a_mock(x: int) -> Any:
    return MOCK(x) if x > LATE else None


def sets_a_mock(x: int) -> None:
    if x > LATE:
        MOCK.return_value = x


def clears_handlers(x: int) -> None:
    if x > LATE:
        logging.getLogger("amorsize.tests.objects").handlers.clear()


def disables_by_property(x: int) -> None:
    if x > LATE:
        logging.root.manager.disable = 10


def sets_a_default(x: int) -> None:
    if x > LATE:
        helper.__kwdefaults__["more"] = x


CHANGES: dict[Any, str] = {
    writes_through_a_cast: "BUFFER",
    gives_an_array_for_the_result: "GRID",
    fills_by_a_function: "GRID",
    deletes_an_attribute_that_is_there: "BOX",
    deletes_an_item_that_is_there: "TABLE",
    adds_an_element: "ROOT",
    appends_a_node: "DOCUMENT",
    reads_a_configuration: "CONFIG",
    takes_a_row: "ROWS",
    takes_all_rows: "ROWS",
    decodes_a_part: "DECODER",
    adds_a_callback: "STACK",
    calls_a_mock: "MOCK",
    sets_a_mock: "MOCK",
    clears_handlers: "logging.getLogger()",
    disables_by_property: "RootLogger",
    sets_a_default: "helper",
}


@pytest.mark.parametrize("func", CALLS, ids=lambda func: func.__name__)
def test_what_a_library_calls_of_the_program_is_followed(func: Any) -> None:
    """It was proved to change nothing, or watched while items ran that do not call it."""
    assert CALLS[func] in effects_of(func).changes


@pytest.mark.parametrize("func", CHANGES, ids=lambda func: func.__name__)
def test_a_change_of_a_librarys_object_is_seen(func: Any) -> None:
    """The same."""
    assert CHANGES[func] in effects_of(func).changes


def reads_what_is_there(x: int) -> Any:
    clipped = np.clip(GRID, 0, x)
    element = ET.Element("a")
    ET.SubElement(element, "b")
    rows = list(csv.DictReader(io.StringIO("a\n1")))
    with memoryview(bytes(8)).cast("I") as view:
        return clipped.sum(), element.tag, rows, view[0], BOX.value, TABLE.get("a"), Color.RED, ROOT.tag


def test_what_only_reads_is_proved() -> None:
    assert effects_of(reads_what_is_there).is_proved
