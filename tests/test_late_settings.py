# ruff: noqa: D103 - the small functions are named for what they do
"""What sets something for the whole process, where only some items do, or each to something else."""

from __future__ import annotations

import abc
import atexit
import calendar
import codecs
import configparser
import copyreg
import csv
import decimal
import functools
import gc
import locale
import logging
import mimetypes
import os
import random
import socket
import sys
import threading
import warnings
from typing import Any

import numpy as np
import pytest

import amorsize
from amorsize._analysis.effects import effects_of
from amorsize.exceptions import AmorsizeWarning

LOG = logging.getLogger("amorsize.tests.late")
PARSER = configparser.ConfigParser()
LATE = 200
np.random.default_rng()  # NumPy loads this when somebody asks for it


class Shape(abc.ABC):  # noqa: B024 - classes are registered with it
    """An abstract class."""


@functools.singledispatch
def area(_shape: object) -> int:
    return 0


def handle(*_args: object, **_more: object) -> Any:
    return None


def sets_level_of_a_logger_by_name(x: int) -> None:
    if x > LATE:
        logging.getLogger("amorsize.tests.late").setLevel(10)


def sets_level_of_a_logger(x: int) -> None:
    if x > LATE:
        LOG.setLevel(10)


def adds_a_handler(x: int) -> None:
    if x > LATE:
        LOG.addHandler(logging.NullHandler())


def disables_logging(x: int) -> None:
    if x > LATE:
        logging.disable(10)


def configures_logging(x: int) -> None:
    if x > LATE:
        logging.basicConfig(level=10)


def seeds_numpy(x: int) -> None:
    if x > LATE:
        np.random.seed(x)  # noqa: NPY002 - the subject of the test


def seeds_random(x: int) -> None:
    if x > LATE:
        random.seed(x)


def limits_fields(x: int) -> None:
    if x > LATE:
        csv.field_size_limit(10)


def adds_a_type(x: int) -> None:
    if x > LATE:
        mimetypes.add_type("a/b", ".c")


def puts_environment(x: int) -> None:
    if x > LATE:
        os.putenv("AMORSIZE_TEST", "1")


def sets_environment(x: int) -> None:
    if x > LATE:
        os.environ["AMORSIZE_TEST"] = "1"


def changes_directory(x: int) -> None:
    if x > LATE:
        os.chdir("/")


def sets_locale(x: int) -> None:
    if x > LATE:
        locale.setlocale(locale.LC_ALL, "C")


def shows_warnings_otherwise(x: int) -> None:
    if x > LATE:
        warnings.showwarning = handle


def filters_warnings(x: int) -> None:
    if x > LATE:
        warnings.simplefilter("ignore")


def sets_precision(x: int) -> None:
    if x > LATE:
        decimal.getcontext().prec = 7


def sets_precision_of_each(x: int) -> None:
    decimal.getcontext().prec = x


def sets_recursion_limit(x: int) -> None:
    if x > LATE:
        sys.setrecursionlimit(5000)


def sets_hook(x: int) -> None:
    if x > LATE:
        sys.excepthook = handle


def sets_other_hook(x: int) -> None:
    if x > LATE:
        sys.unraisablehook = handle


def registers_an_error_handler(x: int) -> None:
    if x > LATE:
        codecs.register_error("late", handle)


def registers_a_codec(x: int) -> None:
    if x > LATE:
        codecs.register(handle)


def registers_a_reduction(x: int) -> None:
    if x > LATE:
        copyreg.pickle(Shape, handle)


def registers_for_the_end(_x: int) -> None:
    atexit.register(handle)


def registers_a_class(x: int) -> None:
    if x > LATE:
        Shape.register(int)


def registers_a_function(x: int) -> None:
    if x > LATE:
        area.register(int, handle)


def sets_what_numpy_ignores(x: int) -> None:
    if x > LATE:
        np.seterr(all="ignore")


def sets_how_numpy_prints(x: int) -> None:
    np.set_printoptions(precision=x)


def sets_the_first_weekday(x: int) -> None:
    calendar.setfirstweekday(x % 7)


def sets_a_timeout(x: int) -> None:
    if x > LATE:
        socket.setdefaulttimeout(3)


def sets_the_size_of_stacks(x: int) -> None:
    if x > LATE:
        threading.stack_size(1 << 20)


def traces(x: int) -> None:
    if x > LATE:
        sys.settrace(handle)


def disables_collections(x: int) -> None:
    if x > LATE:
        gc.disable()


def sets_an_option(x: int) -> None:
    if x > LATE:
        PARSER.set("a", "b", "c")


def set_quiet(*, quiet: bool) -> None:
    logging.disable(50 if quiet else 0)


def sets_in_a_helper(x: int) -> None:
    set_quiet(quiet=x > LATE)


def be_quiet() -> None:
    logging.disable(50)


def calls_a_helper_that_sets(x: int) -> None:
    if x > LATE:
        be_quiet()


def sets_behind_a_return(x: int) -> int:
    if x <= LATE:
        return 0
    logging.disable(50)
    return 1


def sets_behind_an_exception(x: str) -> int:
    try:
        n = int(x)
        logging.disable(50)
    except ValueError:
        return 0
    return n


def sets_in_a_loop(x: int) -> None:
    for _ in range(x // LATE):
        logging.disable(50)


def sets_in_a_callback(x: int) -> list[Any]:
    return [*map(logging.disable, range(x // LATE))]


def sets_one_or_another(x: int) -> None:
    (logging.disable if x > LATE else handle)(50)


def sets_in_a_generator(x: int) -> list[int]:
    def steps() -> Any:
        logging.disable(50)
        yield x

    return [*steps()] if x > LATE else []


def sets_after_what_is_set_back(x: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
    if x > LATE:
        warnings.simplefilter("ignore")


def sets_another_thing_than_is_set_back(x: int) -> None:
    with warnings.catch_warnings():
        if x > LATE:
            logging.disable(50)


CHANGES = {
    sets_level_of_a_logger_by_name: "logging.getLogger()",
    sets_level_of_a_logger: "LOG",
    adds_a_handler: "LOG",
    disables_logging: "logging.disable()",
    configures_logging: "logging.basicConfig()",
    seeds_numpy: "numpy.seed()",
    seeds_random: "random",
    limits_fields: "csv.field_size_limit()",
    adds_a_type: "mimetypes.add_type()",
    puts_environment: "os.putenv()",
    sets_environment: "os",
    changes_directory: "os.chdir()",
    sets_locale: "locale.setlocale()",
    shows_warnings_otherwise: "warnings",
    filters_warnings: "warnings.simplefilter()",
    sets_precision: "decimal.getcontext().prec",
    sets_precision_of_each: "decimal.getcontext().prec",
    sets_recursion_limit: "sys.setrecursionlimit()",
    sets_hook: "sys",
    sets_other_hook: "sys",
    registers_an_error_handler: "codecs.register_error()",
    registers_a_codec: "codecs.register()",
    registers_a_reduction: "copyreg.pickle()",
    registers_for_the_end: "atexit.register()",
    registers_a_class: "Shape",
    registers_a_function: "area",
    sets_what_numpy_ignores: "numpy.seterr()",
    sets_how_numpy_prints: "numpy.set_printoptions()",
    sets_the_first_weekday: "calendar.setfirstweekday()",
    sets_a_timeout: "socket.setdefaulttimeout()",
    sets_the_size_of_stacks: "threading.stack_size()",
    traces: "sys.settrace()",
    disables_collections: "gc.disable()",
    sets_an_option: "PARSER",
    sets_in_a_helper: "logging.disable()",
    calls_a_helper_that_sets: "logging.disable()",
    sets_behind_a_return: "logging.disable()",
    sets_behind_an_exception: "logging.disable()",
    sets_in_a_loop: "logging.disable()",
    sets_in_a_callback: "logging.disable()",
    sets_one_or_another: "logging.disable()",
    sets_in_a_generator: "logging.disable()",
    sets_after_what_is_set_back: "warnings.simplefilter()",
    sets_another_thing_than_is_set_back: "logging.disable()",
}


@pytest.mark.parametrize("func", CHANGES, ids=lambda func: func.__name__)
def test_a_setting_that_only_some_items_make_is_a_change(func: Any) -> None:
    """It was watched while the first items ran, which do not make it."""
    assert CHANGES[func] in effects_of(func).changes


def sets_the_same(x: int) -> str:
    decimal.getcontext().prec = 7
    np.seterr(all="ignore")
    logging.disable(50)
    logging.getLogger("amorsize.tests.late").setLevel(10)
    return str(decimal.Decimal(x) / 3)


def sets_the_same_in_a_helper(x: int) -> int:
    assert x >= 0
    be_quiet()
    return x


def sets_the_same_at_the_end(x: int) -> int:
    gc.disable()
    try:
        return x + 1
    finally:
        gc.enable()


def sets_it_back(x: int) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if x > LATE else "default")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
    with decimal.localcontext() as context, np.errstate(all="ignore"):
        context.prec = 3 + x % 4
        decimal.getcontext().prec = 3 + x % 4
        np.seterr(all="ignore" if x else "warn")
        return str(decimal.Decimal(x) / 3)


def quiet_warnings() -> None:
    warnings.simplefilter("ignore")


def sets_it_back_around_a_helper(x: int) -> int:
    if x > LATE:
        with warnings.catch_warnings():
            quiet_warnings()
    return x


def logs(x: int) -> int:
    log = logging.getLogger("amorsize.tests.late")
    log.debug("item %s", x)
    if x > LATE and log.isEnabledFor(10):
        log.getChild("more").info("late")
    LOG.warning("item %s", x) if x < 0 else None
    return x


def makes_its_own(x: int) -> str:
    parser = configparser.ConfigParser()
    parser.add_section("a")
    if x > LATE:
        parser.set("a", "b", "c")
    rng = np.random.default_rng(x)
    types = mimetypes.MimeTypes()
    types.add_type("a/b", f".{x}")
    return parser.get("a", "b", fallback=str(rng.random()))


def logs_for_an_item(x: int) -> int:
    handler = logging.NullHandler()
    LOG.addHandler(handler)
    try:
        LOG.info("for %s", x)
    finally:
        LOG.removeHandler(handler)
        handler.close()
    return x


def filters_for_an_item(x: int) -> int:
    only = logging.Filter("one")
    LOG.addFilter(only)
    try:
        return x
    finally:
        LOG.removeFilter(only)


def leaves_another_handler(x: int) -> int:
    handler, other = logging.NullHandler(), logging.NullHandler()
    LOG.addHandler(handler)
    try:
        LOG.info("for %s", x)
    finally:
        LOG.removeHandler(other)
    return x


def leaves_a_handler_of_some_items(x: int) -> int:
    handler = logging.NullHandler()
    LOG.addHandler(handler)
    try:
        LOG.info("for %s", x)
    finally:
        if x < LATE:
            LOG.removeHandler(handler)
    return x


def leaves_a_handler_where_it_fails(x: int) -> int:
    handler = logging.NullHandler()
    LOG.addHandler(handler)
    LOG.info("for %s", x)
    LOG.removeHandler(handler)
    return x


def sets_a_level_beside_its_handler(x: int) -> int:
    handler = logging.NullHandler()
    LOG.addHandler(handler)
    try:
        LOG.setLevel(x)
    finally:
        LOG.removeHandler(handler)
    return x


@pytest.mark.parametrize(
    "func",
    [
        leaves_another_handler, leaves_a_handler_of_some_items, leaves_a_handler_where_it_fails,
        sets_a_level_beside_its_handler,
    ],
    ids=lambda func: func.__name__,
)  # fmt: skip
def test_a_handler_that_may_stay_is_a_change(func: Any) -> None:
    """Only one that a ``finally`` block takes away, and whatever happens, is none."""
    assert "LOG" in effects_of(func).changes


@pytest.mark.parametrize(
    "func",
    [
        sets_the_same, sets_the_same_in_a_helper, sets_the_same_at_the_end, sets_it_back, sets_it_back_around_a_helper,
        logs, makes_its_own, logs_for_an_item, filters_for_an_item,
    ],
    ids=lambda func: func.__name__,
)  # fmt: skip
def test_a_setting_that_each_item_makes_alike_or_sets_back_is_none(func: Any) -> None:
    """It is the same in each worker once this has computed an item, or never outlives one."""
    assert effects_of(func).changes == ()


@pytest.mark.parametrize("func", [logs], ids=lambda func: func.__name__)
def test_what_only_reads_settings_is_proved(func: Any) -> None:
    """A logger that is asked for is none that is set."""
    assert effects_of(func).is_proved


def is_quiet_from_some_item_on(x: int) -> bool:
    sum(range(20_000))
    if x == LATE:
        logging.disable(50)
    return LOG.isEnabledFor(40)


def test_a_late_setting_is_made_as_in_the_loop() -> None:
    """Workers that had not computed the item that made it went on as before, without a word."""
    try:
        with pytest.warns(AmorsizeWarning, match="logging.disable"):
            found = amorsize.parallel(is_quiet_from_some_item_on).map(range(400))
        assert found == [*[True] * LATE, *[False] * LATE]
        assert not LOG.isEnabledFor(40)
    finally:
        logging.disable(0)
