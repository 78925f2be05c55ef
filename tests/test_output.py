"""What items print, log and warn in workers appears where the loop's would."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize import exceptions
from amorsize._backend import _bounds, _output
from tests import speaking

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="on Windows workers print for themselves")

Workers = Any
METHODS = ["fork", "forkserver", "loky"] if sys.platform == "linux" else ["loky"]


@pytest.fixture(name="workers", params=METHODS)
def _workers(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Decorate a function so that all items run in workers of one kind."""

    def decorate(func: Any, **options: Any) -> Any:
        return amorsize.parallel(func, **{"n_jobs": 2, "retries": 1, "start_method": request.param} | options)

    return decorate


def test_prints_appear_in_whole_lines_each_once(workers: Workers, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines made of several pieces, of text and of bytes, on both streams; of one item together."""
    assert workers(speaking.prints).map(range(300)) == list(range(300))
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert sorted(lines) == sorted(f"item {n} {word}" for n in range(300) for word in ("begins", "ends"))
    assert all(begin.split()[1] == end.split()[1] for begin, end in zip(lines[::2], lines[1::2], strict=True))
    assert sorted(err.splitlines()) == sorted(f"error {n}" for n in range(300))


def test_prints_go_where_standard_output_is_as_of_now(workers: Workers) -> None:
    """A redirection of the caller's holds for its workers, the next one for the next map."""
    function = workers(speaking.prints)
    for _ in range(2):
        with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.redirect_stderr(io.StringIO()):
            function.map(range(50))
        assert len(text.getvalue().splitlines()) == 100


def test_a_stream_s_prints_appear_too(workers: Workers, capsys: pytest.CaptureFixture[str]) -> None:
    """imap, as map."""
    assert list(workers(speaking.prints).imap(range(100))) == list(range(100))
    assert len(set(capsys.readouterr().out.splitlines())) == 200


def test_ten_thousand_records_arrive_once_each(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    """From two workers, through the logger's level, in the order of each worker."""
    with caplog.at_level("INFO", "speaking.functions"):
        workers(speaking.logs_one).map(range(10_000))
    assert Counter(record.getMessage() for record in caplog.records) == Counter(f"record {n}" for n in range(10_000))
    assert os.getpid() not in {record.process for record in caplog.records}
    assert {record.module for record in caplog.records} == {"speaking"}


@pytest.mark.parametrize(
    ("func", "line"),
    [
        (speaking.logs_by_module, "WARNING:root:record {}"),
        (speaking.configures, "record {}!"),
        (speaking.adds_a_handler, "record {}"),
    ],
    ids=["logging.warning()", "basicConfig()", "a handler of one's own"],
)
def test_what_configures_logging_writes_each_record_once(
    workers: Workers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, func: Any, line: str
) -> None:
    """It is the caller's loggers that items configure: workers wrote each record themselves, and the caller again."""
    own = logging.getLogger("speaking.own")
    monkeypatch.setattr(logging.root, "level", logging.root.level)
    for logger in (logging.root, own):
        monkeypatch.setattr(logger, "handlers", [])
    function = workers(func)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.AmorsizeWarning)  # it changes the logger, which is told
            function.map(range(40))
        lines = capsys.readouterr().err.splitlines()
        assert Counter(lines) == Counter(line.format(n) for n in range(40))


def test_a_configured_logger_is_not_configured_again(
    workers: Workers, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caller's handlers are found in workers that are no copies of it."""
    workers(speaking.logs_by_module).map(range(40))
    assert Counter(record.getMessage() for record in caplog.records) == Counter(f"record {n}" for n in range(40))
    assert capsys.readouterr().err == ""


SCRIPT = """
import collections, io, contextlib, logging, sys, time, traceback, warnings
import amorsize

class Failure(Exception):
    pass

class Deprecated(UserWarning):
    pass

class Loud(logging.Logger):
    def loud(self, text):
        self.info(text.upper())

def notice(self, text):
    self._log(25, text, ())

logging.Logger.notice = notice
logging.setLoggerClass(Loud)
log = logging.getLogger("script")
log.setLevel("INFO")
log.propagate = False
seen = collections.Counter()

class Counting(logging.Handler):
    def emit(self, record):
        kind, error, where = record.exc_info or (None, None, None)
        lines = "".join(traceback.format_exception(kind, error, where)) if kind else ""
        seen[record.levelno, record.msg, record.args, kind is Failure, "in work" in lines] += 1

log.addHandler(Counting())

def work(n):
    time.sleep(0.002)
    warnings.warn("old", Deprecated)
    log.notice("notice")
    log.loud("loud")
    part = logging.getLogger(f"part{n % 4}")
    if not part.handlers:
        part.addHandler(logging.StreamHandler(sys.stdout))
        part.propagate = False
    part.warning("item %d", n)
    try:
        raise Failure(n)
    except Failure:
        log.exception("failed %s", "here")
    return n

with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()) as text:
    warnings.simplefilter("always")
    amorsize.parallel(work, n_jobs=2, start_method=sys.argv[1]).map(range(40))
assert seen == {
    (25, "notice", (), False, False): 40, (20, "LOUD", (), False, False): 40,
    (40, "failed %s", ("here",), True, True): 40,
}, seen
assert sum(one.category is Deprecated for one in caught) == 40, [one.category for one in caught]
assert sorted(text.getvalue().splitlines()) == sorted(f"item {n}" for n in range(40)), text.getvalue()
"""


@pytest.mark.parametrize("method", METHODS)
def test_what_a_script_says_with_classes_of_its_own_arrives_as_it_is(method: str, tmp_path: Path) -> None:
    """
    Loggers, methods of loggers, warnings and exceptions of a script are not known to workers that are no copies of it.

    Items ended with an AttributeError, warnings came as UserWarning, and records without their exception and arguments;
    tracebacks of logged exceptions were lost, and a handler that an item adds wrote twice where the caller had it too.
    """
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), method], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_caller_s_levels_decide(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    """Those of now, map by map: debug once, then from warnings on."""
    function = workers(speaking.logs)
    with caplog.at_level("DEBUG", "speaking.functions"):
        function.map(range(10))
        assert Counter(record.levelname for record in caplog.records) == {"DEBUG": 10, "INFO": 10, "WARNING": 10}
        assert sorted(record.number for record in caplog.records if record.levelname == "INFO") == list(range(10))
        caplog.clear()
        speaking.log.setLevel("ERROR")
        function.map(range(10))
    assert Counter(record.levelname for record in caplog.records) == {"WARNING": 10}


def test_the_caller_s_filters_and_handlers_are_asked(workers: Workers) -> None:
    """A filter and a handler of a logger, which no worker has; records say who they are of."""
    seen: list[logging.LogRecord] = []
    logger, handler = logging.getLogger("speaking"), logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    handler.addFilter(lambda record: "3" not in record.getMessage())
    logger.addHandler(handler)
    logging.getLogger("speaking.functions").setLevel("INFO")
    try:
        workers(speaking.logs_one).map(range(10))
    finally:
        logger.removeHandler(handler)
        logging.getLogger("speaking.functions").setLevel("NOTSET")
    assert sorted(record.getMessage() for record in seen) == [f"record {n}" for n in range(10) if n != 3]
    assert "MainProcess" not in {record.processName for record in seen}


def test_a_record_is_as_it_was_when_it_was_logged(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    """Arguments that change afterwards, exceptions with their tracebacks, values that cannot be pickled."""
    with caplog.at_level("INFO", "speaking.functions"):
        workers(speaking.changes_after).map(range(5))
        workers(speaking.changes_a_dictionary_after).map(range(5))
        workers(speaking.logs_error).map(range(1, 6))
    messages = [record.getMessage() for record in caplog.records]
    assert {f"values [{n}]" for n in range(5)} <= set(messages)
    assert {f"named {n}" for n in range(5)} <= set(messages)
    assert sum("odd <function logs_error" in message for message in messages) == 5
    failed = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [type(record.exc_info[1]) for record in failed if record.exc_info] == [ZeroDivisionError] * 5
    assert all("in logs_error" in str(record.exc_text) for record in failed)


def test_an_item_s_own_handlers_are_served_where_it_runs(workers: Workers, tmp_path: Path) -> None:
    """A file per item has that item's records when the item ends."""
    paths = [str(tmp_path / f"{n}.log") for n in range(6)]
    logging.getLogger("speaking.functions").setLevel("INFO")
    try:
        assert workers(speaking.logs_into_own_file).map(paths) == [f"for {path}\n" for path in paths]
    finally:
        logging.getLogger("speaking.functions").setLevel("NOTSET")


# What the compiler warns of belongs to no module, and was lost.
@pytest.mark.parametrize("warns", [speaking.warns, speaking.warns_of_code], ids=["a module's", "the compiler's"])
@pytest.mark.parametrize("action", ["always", "default", "once", "ignore"])
def test_warnings_go_through_the_caller_s_filters(workers: Workers, action: Any, warns: Any) -> None:
    """As many as the loop gives, with the file and the line."""
    seen = []
    for function in (warns, workers(warns)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter(action)
            _ = [function(n) for n in range(20)] if function is warns else function.map(range(20))
        theirs = [w for w in caught if w.category is not exceptions.AmorsizeWarning]  # of the fork that is asked for
        seen.append(Counter((str(w.message), w.category, w.filename, w.lineno) for w in theirs))
    assert seen[1] == seen[0]
    assert bool(seen[0]) == (action != "ignore")


def test_a_warning_that_is_an_error_is_the_item_s(workers: Workers) -> None:
    """The caller's filter makes it one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="be careful"):
            workers(speaking.warns).map(range(20))


def test_warnings_that_an_item_catches_stay_with_it(workers: Workers, recwarn: pytest.WarningsRecorder) -> None:
    """``catch_warnings(record=True)`` works in an item."""
    assert workers(speaking.warns_apart).map(range(20)) == [f"mine {n}" for n in range(20)]
    assert not [w for w in recwarn if w.category is UserWarning]


@pytest.mark.timeout(240)
def test_forty_megabytes_are_printed_without_loss(workers: Workers) -> None:
    """Whole lines, and never more than some megabytes at a time."""

    class Counting(io.TextIOBase):
        lines, most = 0, 0

        def write(self, text: str) -> int:
            self.lines += text.count("\n")
            self.most = max(self.most, len(text))
            assert text.endswith("\n")
            return len(text)

    counting = Counting()
    with contextlib.redirect_stdout(counting):
        assert workers(speaking.prints_much, batch_size=1).map(range(2)) == [0, 1]
    assert counting.lines == 40_000
    assert counting.most < 10 * _bounds.SAID_BYTES


def test_a_worker_that_dies_is_heard_to_the_end(workers: Workers, capsys: pytest.CaptureFixture[str]) -> None:
    """What it said before its last 50 ms appears."""
    with pytest.raises(exceptions.WorkerDied):
        workers(speaking.speaks_and_dies, retries=0, timeout=60).map(range(20))
    assert capsys.readouterr().out == "last words\n"


def test_an_item_that_takes_long_is_heard_while_it_runs(workers: Workers, tmp_path: Path) -> None:
    """Its file is made by who reads its line: neither ends without the other."""
    paths = [str(tmp_path / name) for name in ("a", "b")]

    class Touching(io.TextIOBase):
        def write(self, text: str) -> int:
            for line in text.splitlines():
                (tmp_path / line.split()[-1]).touch()
            return len(text)

    with contextlib.redirect_stdout(Touching()):
        assert workers(speaking.waits_for).map(paths) == paths


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # a worker that prints may have a thread for it
def test_a_child_of_an_item_speaks_for_itself(workers: Workers, capfd: pytest.CaptureFixture[str]) -> None:
    """It does not write into its parent's way home."""
    assert workers(speaking.forks).map(range(10)) == list(range(10))
    text = capfd.readouterr().out
    assert sorted(line for line in text.splitlines() if "item" in line) == [f"from item {n}" for n in range(10)]


def test_a_standard_output_that_is_closed_raises_as_in_the_loop(workers: Workers) -> None:
    """What the caller's stream raises is the caller's."""
    closed = io.StringIO()
    closed.close()
    with contextlib.redirect_stdout(closed), pytest.raises(ValueError, match="closed file"):
        workers(speaking.prints).map(range(50))


def test_silent_items_send_nothing() -> None:
    """No thread and no message."""
    sent: list[bytes] = []
    recorder = _output._Recorder(sent.append, "")
    recorder.flush()
    assert sent == []
    assert not [thread for thread in threading.enumerate() if thread.name == "amorsize-output"]


def test_what_is_said_is_sent_soon_though_nothing_else_is() -> None:
    """An item that goes on computing is heard."""
    sent: list[bytes] = []
    recorder = _output._Recorder(sent.append, "")
    recorder.add(0, "text\n", 5)
    deadline = time.monotonic() + 60
    while not sent and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(sent) == 1


def test_a_worker_s_streams_say_of_themselves_what_the_caller_s_do(workers: Workers) -> None:
    """
    Whether there is a terminal (colours), and the encoding; the next map, too.

    A stream of a class of the program's went along as if it had been set in a library, and stayed.
    """

    class Terminal(io.StringIO):
        encoding = "latin-1"

        def isatty(self) -> bool:
            return True

    function = workers(speaking.asks)
    for stream, said in ((Terminal(), (True, "latin-1")), (io.StringIO(), (False, "utf-8"))):
        with contextlib.redirect_stdout(stream):
            assert set(function.map(range(6))) == {said}
