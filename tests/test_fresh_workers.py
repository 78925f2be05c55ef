"""What workers that import everything anew have like the caller: objects compared with ``is``, patches, settings."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is only used on Linux")

_BEGIN = """
import importlib, os, sys, threading, time
from unittest import mock
sys.dont_write_bytecode = True
sys.path.insert(0, os.getcwd())
import amorsize

HOW = dict(n_jobs=2, start_method=sys.argv[1])

def check(work, items=range(40), same=lambda a, b: a == b):
    expected = [work(x) for x in items]
    found = amorsize.parallel(work, **HOW).map(items)
    print(len(found) == len(expected) and all(map(same, found, expected)))
"""


def run_program(text: str, start_method: str, folder: Path, timeout_s: float = 60) -> list[str]:
    """Return what a program prints that runs in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _BEGIN + textwrap.dedent(text), start_method],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


METHODS = ["fork", "forkserver", "loky"]

MARKERS = """
import dataclasses

MISSING = object()

class Unset:
    pass

UNSET = Unset()
TABLE = {"a": MISSING, "b": UNSET}

def get(x, default=MISSING):
    return "missing" if default is MISSING else default

def find(x, default=UNSET):
    return "unset" if default is UNSET else default

@dataclasses.dataclass
class Row:
    x: int = 1
    tags: list = dataclasses.field(default_factory=list)
"""


@pytest.mark.parametrize("start_method", METHODS)
def test_objects_that_are_compared_with_is_are_one_everywhere(start_method: str, tmp_path: Path) -> None:
    """In defaults, tables, closures, items and results, of modules and of the main one; and those of dataclasses."""
    (tmp_path / "markers.py").write_text(MARKERS)
    program = """
    import dataclasses, functools
    import markers
    from markers import MISSING, UNSET, Row, find, get
    MINE = object()

    @dataclasses.dataclass
    class Mine:
        x: int = 1
        tags: list = dataclasses.field(default_factory=list)

    def mine(x, default=MINE):
        return default is MINE

    check(lambda x: (get(x), find(x), markers.get(x, MISSING), find(x, UNSET), get(x, 1)))
    check(lambda x: [markers.TABLE["a"] is MISSING, markers.TABLE["b"] is UNSET])
    check(lambda x: (Row().tags, Row(2, [x]), Mine().tags, mine(x), mine(x, MINE)))
    check(lambda x: [one.default is dataclasses.MISSING for kind in (Row, Mine) for one in dataclasses.fields(kind)])
    check(functools.partial(lambda default, x: default is markers.UNSET, UNSET))
    check(lambda x: (x is MISSING, x is MINE), [MISSING, MINE] * 20)
    check(lambda x: MISSING if x % 2 else MINE, same=lambda a, b: a is b)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 7


@pytest.mark.parametrize("start_method", METHODS)
def test_a_marker_that_is_bound_anew_and_one_that_is_made_once(start_method: str, tmp_path: Path) -> None:
    """Where markers stand was looked up when there were more names; and workers made a second one, which it forbids."""
    program = """
    TOKEN = object()

    class Once:
        made = False
        def __new__(cls):
            if cls.made:
                raise TypeError("only one")
            cls.made = True
            return super().__new__(cls)

    UNSET = Once()
    def same(a, b): return a is b

    for _ in range(3):
        check(lambda x: x is TOKEN, [TOKEN, 1] * 20)
        TOKEN = object()
    check(lambda x: UNSET, same=same)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 4


@pytest.mark.parametrize("start_method", METHODS)
def test_objects_of_a_class_without_a_state_are_one_everywhere(start_method: str, tmp_path: Path) -> None:
    """Of the main module, and as results: the caller's own come home; what has a state, or a new class, is not one."""
    (tmp_path / "markers.py").write_text(MARKERS)
    program = """
    import markers
    from markers import UNSET

    class Mark:
        __slots__ = ()
        def __eq__(self, other): raise ValueError
        def __hash__(self): return 1

    class Way:
        def go(self, x): return x

    MARK, OTHER, way = Mark(), Mark(), Way()
    def same(a, b): return a is b

    check(lambda x: (x is MARK, x is OTHER), [MARK, OTHER, Mark()] * 14)
    check(lambda x: [MARK, OTHER, UNSET][x % 3], same=same)
    check(lambda x: (x is UNSET, x is markers.UNSET), [UNSET, markers.Unset()] * 20)
    check(lambda x: way.go(x))
    check(lambda x: way, same=same)
    way.n = 3
    check(lambda x: way.n)
    class Way:
        def go(self, x): return -x
    way = Way()
    check(lambda x: way.go(x))
    check(lambda x: way, same=same)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 8


@pytest.mark.parametrize("start_method", METHODS)
def test_what_typing_makes_in_the_main_module(start_method: str, tmp_path: Path) -> None:
    """In annotations, in the code, and as results."""
    program = """
    from typing import Annotated, Callable, NamedTuple, NewType, ParamSpec, Required, TypedDict, TypeVar, TypeVarTuple
    from typing import Unpack, get_args

    P, Ts = ParamSpec("P"), TypeVarTuple("Ts")
    Id = NewType("Id", int)
    Inner = NewType("Inner", Id)
    T = TypeVar("T", bound=Id)
    Alias = Annotated[dict[str, Id], Inner]

    class Base(TypedDict, total=False):
        a: Required[Id]
        b: int

    class Row(Base):
        c: str

    class Pair(NamedTuple):
        x: Id
        y: "int" = 3

    def plain(x: Id, f: Callable[P, T] | None = None, *more: Unpack[Ts]) -> Inner:
        return Inner(Id(x))
    def row(x): return Row(a=Id(x), c=""), Base(a=Id(x)), sorted(Row.__required_keys__), sorted(Row.__optional_keys__)
    def pair(x): return Pair(x)
    def forms(x: Alias): return Id, Inner, Row, Base, get_args(Alias), Inner.__supertype__ is Id

    def local():
        Local = NewType("Local", int)
        class Table(TypedDict):
            a: Local
        return lambda x: Table(a=Local(x))

    for work in (plain, row, pair, forms, local()):
        check(work)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 5


@pytest.mark.parametrize("start_method", METHODS)
def test_a_function_of_code_that_was_run_in_a_dictionary(start_method: str, tmp_path: Path) -> None:
    """It has no module, only globals."""
    program = """
    names = {}
    exec("K = 1\\ndef work(x): return x + K + more(x)\\ndef more(x): return K", names)
    check(names["work"])
    names["K"] = 5
    check(names["work"])
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 2


def test_classes_of_a_compiled_metaclass_are_not_sent_by_value(tmp_path: Path) -> None:
    """An empty one was made in the worker, which does not always fail: one of msgspec's took no arguments any more."""
    program = """
    import ctypes

    class Row(ctypes.Array):
        _type_ = ctypes.c_int
        _length_ = 3

    work = amorsize.parallel(lambda x: sum(range(20_000)) and list(Row(x, x, x)), start_method=sys.argv[1])
    found = work.map(range(2000))
    print(found == [[x] * 3 for x in range(2000)], work.last_plan.reason)
    """
    assert run_program(program, "forkserver", tmp_path) == ["True", "not-picklable"]


# An object that can be pickled, and not unpickled.
UNOPENABLE = """
class Odd:
    def __reduce__(self):
        return no_such, ()

def no_such():
    raise RuntimeError("no")

ODD = Odd()
"""


def test_a_worker_that_cannot_open_the_function_is_not_waited_for(tmp_path: Path) -> None:
    """It lives on: that the caller must not compute, since items may be tried again, is told at once."""
    program = """
    before = time.monotonic()
    try:
        amorsize.parallel(lambda x: ODD, retries=1, **HOW).map(range(40))
    except amorsize.exceptions.WorkerDied as error:
        print("cannot" in str(error), time.monotonic() - before < 8)
    """
    assert run_program(UNOPENABLE + textwrap.dedent(program), "forkserver", tmp_path) == ["True", "True"]


@pytest.mark.parametrize("start_method", ["forkserver", "loky"])
def test_an_object_that_ends_the_worker_when_it_is_opened_ends_nothing(start_method: str, tmp_path: Path) -> None:
    """In loky's workers it was SystemExit for the caller."""
    program = """
    work = amorsize.parallel(lambda x: x + (ODD is None), **HOW)
    print(work.map(range(20)) == list(range(20)), list(work.imap(range(20))) == list(range(20)))
    """
    unopenable = UNOPENABLE.replace('raise RuntimeError("no")', "sys.exit(3)")
    assert run_program(unopenable + textwrap.dedent(program), start_method, tmp_path) == ["True", "True"]


@pytest.mark.parametrize("start_method", METHODS)
def test_a_stream_whose_workers_cannot_open_the_function_is_not_waited_for(start_method: str, tmp_path: Path) -> None:
    """They were taken for dead, and waited for ten seconds each; what was raised in loky's was the caller's."""
    program = """
    def items():
        for i in range(20):
            time.sleep(0.05)  # meanwhile workers say that they cannot, and close their pipes
            yield i

    def warm(x):
        time.sleep(0.01)

    amorsize.parallel(warm, **HOW).map(range(20))
    before = time.monotonic()
    work = amorsize.parallel(lambda x: x + (ODD is None), **HOW)
    print(list(work.imap(items())) == list(range(20)), time.monotonic() - before < 8)
    """
    assert run_program(UNOPENABLE + textwrap.dedent(program), start_method, tmp_path) == ["True", "True"]


OLD = """
import collections, dataclasses, enum, typing

def value(x):
    return "old", x

class Kind:
    def method(self):
        return "old"

class Colour(enum.Enum):
    RED = "old"

@dataclasses.dataclass
class Row:
    x: str = "old"

class Pair(typing.NamedTuple):
    x: str = "old"

class Base:
    who = "old"

class Derived(Base):
    pass
"""


@pytest.mark.parametrize("start_method", METHODS)
@pytest.mark.parametrize("how", ["reloaded", "edited"])
def test_a_helper_module_that_has_changed(start_method: str, how: str, tmp_path: Path) -> None:
    """Waiting workers have imported it as it was before it was reloaded; new ones as it is after it was edited."""
    (tmp_path / "helpers.py").write_text(OLD)
    program = """
    import functools
    import helpers

    def use(x):
        return helpers.value(x), helpers.Kind().method()

    def made(x):
        return helpers.Colour.RED.value, helpers.Row().x, helpers.Pair().x, helpers.Derived.who

    def bound(a, x):
        return helpers.value(x)

    def check_all():
        check(use)
        check(made)
        check(functools.partial(bound, 1))

    with open("helpers.py") as file:
        text = file.read()
    """
    reloaded = """
    check_all()
    open("helpers.py", "w").write(text.replace("old", "newer"))
    importlib.reload(helpers)
    """
    edited = """
    open("helpers.py", "w").write(text.replace('return "old', 'return "newer'))
    """
    program = textwrap.dedent(program) + textwrap.dedent(reloaded if how == "reloaded" else edited) + "check_all()\n"
    assert set(run_program(program, start_method, tmp_path)) == {"True"}


@pytest.mark.parametrize("start_method", METHODS)
def test_what_replaces_a_builtin_or_a_function_of_the_library(start_method: str, tmp_path: Path) -> None:
    """Also after a call that saw the real one; and what cannot travel stays here."""
    program = """
    import datetime, functools, json, math, builtins, collections

    class Frozen(datetime.date):
        @classmethod
        def today(cls):
            return cls(2000, 1, 1)

    def root(x): return math.sqrt(x)
    def size(x): return abs(x)
    def today(x): return datetime.date.today().isoformat()
    def common(x): return collections.Counter("aab").most_common(1)
    def text(x): return json.dumps({1: x})
    def opened(x): return open(x)
    def named(x): return ADDED, _("text")

    for work in (root, size, today, common, text):
        check(work)
    with mock.patch("math.sqrt", lambda x: -1): check(root)
    with mock.patch("math.sqrt", return_value=7): check(root)
    with mock.patch("builtins.abs", lambda x: -1): check(size)
    with mock.patch("datetime.date", Frozen): check(today)
    with mock.patch("collections.Counter.most_common", lambda *_: "few"): check(common)
    with mock.patch("json.dumps", functools.partial(json.dumps, indent=1)): check(text)
    with mock.patch("builtins.open", lambda *_: "fake"): check(opened)
    with mock.patch("builtins.ADDED", 17, create=True), mock.patch("builtins._", str.upper, create=True): check(named)
    for work in (root, size, today, common, text):
        check(work)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 18


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])  # loky itself asks the clock
def test_what_a_test_replaces_is_not_what_runs_the_workers(start_method: str, tmp_path: Path) -> None:
    """A file or the time that a test makes up is for the function."""
    program = """
    def work(x):
        return x

    check(work)
    with mock.patch("builtins.open", mock.mock_open(read_data="made up")): check(work)
    with mock.patch("time.sleep") as sleep: check(work)
    print(sleep.call_count == 0)
    for name in ("time.perf_counter", "time.monotonic", "time.time"):
        with mock.patch(name, side_effect=[1.0, 2.0]): check(work)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 7


@pytest.mark.parametrize("start_method", METHODS)
def test_sockets_may_have_a_time_limit_by_default(start_method: str, tmp_path: Path) -> None:
    """The program's are not those to the workers: its limit would be theirs, and is soon over."""
    program = """
    import socket
    socket.setdefaulttimeout(0.05)

    def work(x):
        time.sleep(0.02)
        return x, socket.getdefaulttimeout()

    check(work)
    """
    assert run_program(program, start_method, tmp_path) == ["True"]


@pytest.mark.parametrize("start_method", METHODS)
def test_an_item_whose_reduce_raises_anything_runs_here(start_method: str, tmp_path: Path) -> None:
    """A RuntimeError, too: only where the input has become shorter it is the caller's."""
    program = """
    class Odd:
        def __init__(self, x):
            self.x = x

        def __reduce__(self):
            if self.x == 30:
                raise RuntimeError("not this one")
            return Odd, (self.x,)

    check(lambda odd: odd.x, [Odd(x) for x in range(40)])
    """
    assert run_program(program, start_method, tmp_path) == ["True"]


@pytest.mark.parametrize("start_method", METHODS)
def test_what_is_registered_with_the_standard_library(start_method: str, tmp_path: Path) -> None:
    """As of each call; the second one sets what the workers of the first one have seen otherwise."""
    program = """
    import calendar, codecs, copy, copyreg, csv, json, logging, mimetypes, sqlite3, tempfile
    import xml.etree.ElementTree as ET

    class Point:
        def __init__(self, x):
            self.x = x

    def handle(error):
        return "#", error.end

    def dialect(x): return list(csv.reader(["a;b"], dialect="mine"))
    def field(x): return list(csv.reader(["a" * 200_000])), csv.field_size_limit()
    def week(x): return calendar.monthcalendar(2024, 1)[0]
    def kind(x): return mimetypes.guess_type("a.amorsize")
    def element(x): return ET.tostring(ET.Element("{http://x}a"))
    def copied(x): return copy.copy(Point(1)).x
    def hour(x): return time.localtime(0).tm_hour
    def coded(x): return "aé".encode("ascii", "mine")
    def adapted(x): return sqlite3.connect(":memory:").execute("select ?", (Point(3),)).fetchone()
    def level(x): return logging.getLevelName(35)
    def arguments(x): return sys.argv
    def folder(x): return tempfile.gettempdir()
    def encoded(x): return json.dumps(Point(x))

    def check_all():
        for work in (
            dialect, field, week, kind, element, copied, hour, coded, adapted, level, arguments, folder, encoded
        ):
            check(work)

    for i, zone in enumerate(["Asia/Tokyo", "America/Lima"]):
        csv.register_dialect("mine", delimiter=";,"[i])
        csv.field_size_limit(10**7 + i)
        calendar.setfirstweekday(5 + i)
        mimetypes.add_type(f"x/{i}", ".amorsize")
        ET.register_namespace(f"my{i}", "http://x")
        copyreg.pickle(Point, lambda point, i=i: (Point, (point.x + i,)))
        os.environ["TZ"] = zone
        time.tzset()
        codecs.register_error("mine", handle)
        sqlite3.register_adapter(Point, lambda point, i=i: f"{i} {point.x}")
        logging.addLevelName(35, f"NOTICE{i}")
        sys.argv = [f"program{i}"]
        tempfile.tempdir = os.getcwd() + str(i)
        json.JSONEncoder.default = lambda self, value, i=i: i
        check_all()
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 26


@pytest.mark.parametrize("start_method", METHODS)
def test_a_function_that_imports_what_only_this_process_has(start_method: str, tmp_path: Path) -> None:
    """Made by the program, and put where imports look first."""
    program = """
    import types
    made = types.ModuleType("made_up")
    exec("def value(): return 4", vars(made))
    sys.modules["made_up"] = made
    sys.modules["no_module"] = types.SimpleNamespace(value=lambda: 5)

    def work(x):
        import made_up
        return made_up.value()

    def other(x):
        from no_module import value
        return value()

    check(work)
    check(other)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 2


CONFIGURED = """
import contextvars, queue, threading

class Inner:
    def __init__(self):
        self.x, self.lock = 1, threading.RLock()

class Client:
    def __init__(self):
        self._lock, self.headers, self.timeout, self.inner = threading.Lock(), {"a": 1, "b": 1}, 3, Inner()

    def get(self):
        with self._lock:
            return self.headers, self.timeout, self.inner.x, getattr(self, "extra", None)

class Slotted:
    __slots__ = ("a", "lock")
    def __init__(self):
        self.a, self.lock = 1, threading.Lock()

client, slotted, late = Client(), Slotted(), None
table = {"lock": threading.Lock(), "n": 1, "rows": [threading.Lock(), 1]}
local, event, jobs = threading.local(), threading.Event(), queue.Queue()
level, unset = contextvars.ContextVar("level", default=0), contextvars.ContextVar("unset")

def configure(n):
    global late
    client.headers = {"a": n}
    client.timeout, client.inner.x, slotted.a, table["n"], table["rows"][1], local.n = n, n, n, n, n, n
    if n % 2:
        client.extra, table["added"] = n, n
        event.set()
        jobs.put(n)
    else:
        del client.extra, table["added"]
        event.clear()
        jobs.get()
    level.set(n)
    late = Client()

def state(x):
    return client.get(), slotted.a, table["n"], table["rows"][1], table.get("added"), getattr(local, "n", None)

def more(x):
    return event.is_set(), jobs.qsize(), level.get(), unset.get(None)

def use_late(x):
    return late.get()
"""


@pytest.mark.parametrize("start_method", ["forkserver", "loky"])
def test_what_is_set_in_objects_that_cannot_be_pickled(start_method: str, tmp_path: Path) -> None:
    """A worker's own import has made such an object, too; where it has not, the function stays here."""
    (tmp_path / "configured.py").write_text(CONFIGURED)
    program = """
    import configured

    def all_three(x):
        return configured.state(x), configured.more(x)

    def late(x):
        return configured.use_late(x)

    check(all_three)
    for n in (7, 8, 9):
        configured.configure(n)
        check(configured.state)
        check(configured.more)
        check(all_three)
        check(late)
        check(configured.use_late)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 16


@pytest.mark.parametrize("start_method", ["forkserver", "loky"])
def test_a_function_that_asks_for_the_main_module(start_method: str, tmp_path: Path) -> None:
    """Workers have one of their own, in which nothing of the program's is."""
    (tmp_path / "program.py").write_text(
        textwrap.dedent(_BEGIN)
        + textwrap.dedent("""
        import __main__ as itself
        VALUE = 5

        def by_name(x): return itself.VALUE
        def by_import(x):
            import __main__
            return __main__.VALUE
        def by_module(x): return sys.modules[__name__].VALUE
        def by_text(x): return sys.modules["__main__"].VALUE

        for work in (by_name, by_import, by_module, by_text):
            check(work)
        """)
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "program.py", start_method],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["True"] * 4, "")


@pytest.mark.parametrize("start_method", METHODS)
def test_what_is_set_in_the_standard_library(start_method: str, tmp_path: Path) -> None:
    """Each time anew, and taken back; of the collector, of addresses, of what is written shortened, of certificates."""
    program = """
    import gc, gettext, http.client, io, logging, reprlib, ssl, traceback, urllib.parse, urllib.request, zoneinfo

    class Handler(urllib.request.BaseHandler):
        def mine_open(self, request): return "opened"

    def collector(x): return gc.isenabled(), gc.get_threshold()
    def domain(x): return gettext.textdomain(), gettext.bindtextdomain("mine")
    def headers(x):
        try: return len(http.client.parse_headers(io.BytesIO(b"A: 1\\r\\n" * 10 + b"\\r\\n")))
        except http.client.HTTPException as error: return str(error)
    def record(x): return getattr(logging.getLogger("a").makeRecord("a", 10, "f", 1, "m", (), None), "mine", None)
    def short(x): return reprlib.repr([1, 2, 3, 4])
    def certificates(x): return ssl._create_default_https_context().verify_mode
    def joined(x): return urllib.parse.urljoin("mine://a/b", "c")
    def zones(x): return zoneinfo.TZPATH
    def fetched(x):
        try: return urllib.request.urlopen("mine://x")
        except OSError as error: return str(error)
    def agent(x): return urllib.request._opener and urllib.request._opener.addheaders
    def shown(x):
        def fail(n): fail(n - 1) if n else 1 / 0
        try: fail(5)
        except ZeroDivisionError: return traceback.format_exc().count("line")

    WORKS = (collector, domain, headers, record, short, certificates, joined, zones, fetched, agent, shown)
    make = logging.getLogRecordFactory()
    def mine(*args):
        record = make(*args)
        record.mine = 1
        return record
    for i in range(2):
        gc.disable() if i == 0 else gc.enable()
        gc.set_threshold(500 + i, 5, 5)
        gettext.textdomain("mine" + str(i)); gettext.bindtextdomain("mine", "/tmp" + str(i))
        http.client._MAXHEADERS = 5 if i == 0 else 100
        logging.setLogRecordFactory(mine if i == 0 else make)
        reprlib.aRepr.maxlist = 2 + i
        ssl._create_default_https_context = [ssl._create_unverified_context, ssl.create_default_context][i]
        urllib.parse.uses_relative.append("mine") if i == 0 else urllib.parse.uses_relative.remove("mine")
        urllib.parse.uses_netloc.append("mine") if i == 0 else urllib.parse.uses_netloc.remove("mine")
        zoneinfo.reset_tzpath(to=["/none" + str(i)])
        opener = urllib.request.build_opener(*[Handler()][i:])
        opener.addheaders = [("User-agent", str(i))]
        urllib.request.install_opener(opener)
        sys.tracebacklimit = 1 + i
        for work in WORKS:
            check(work)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 22


@pytest.mark.parametrize("start_method", METHODS)
def test_what_is_set_in_numpy(start_method: str, tmp_path: Path) -> None:
    """A formatter, what is called where something is divided by zero, the size of buffers; and taken back."""
    program = """
    import numpy as np

    def text(x): return str(np.array([1.5]))
    def called(x): return np.geterrcall() is not None, np.getbufsize(), np.geterr()["divide"]

    check(text)
    np.set_printoptions(formatter={"float": lambda value: "F"})
    np.seterrcall(lambda error, flag: None)
    np.seterr(divide="call")
    np.setbufsize(16384)
    check(text)
    check(called)
    np.set_printoptions(formatter=None)
    np.seterrcall(None)
    np.setbufsize(8192)
    check(text)
    check(called)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 5


@pytest.mark.parametrize("start_method", ["forkserver", "loky"])
def test_what_is_set_in_pandas(start_method: str, tmp_path: Path) -> None:
    """Options, in whole or for a while, methods that the program has added, and accessors; of items, too."""
    pytest.importorskip("pandas")
    program = """
    import pandas as pd
    frame = pd.DataFrame({"a": [1.23456] * 3})

    def shown(x): return repr(x)
    def method(x): return x.twice(), x.mine.total(), x.least
    def use(x): return pd.DataFrame({"a": [1]}).twice()
    def items(work): check(work, [frame] * 40, lambda a, b: str(a) == str(b))

    items(shown)
    pd.set_option("display.precision", 2)
    items(shown)
    with pd.option_context("display.float_format", lambda value: "F"):
        items(shown)
    pd.reset_option("display.precision")
    items(shown)
    pd.DataFrame.twice = lambda self: int(self.a.sum()) * 2
    pd.DataFrame.least = property(lambda self: int(self.a.min()))
    @pd.api.extensions.register_dataframe_accessor("mine")
    class Mine:
        def __init__(self, frame): self.frame = frame
        def total(self): return int(self.frame.a.sum())
    items(method)
    check(use)
    pd.DataFrame.twice = lambda self: 7
    items(method)
    check(use)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 8


@pytest.mark.parametrize("start_method", ["forkserver", "loky"])
def test_what_is_set_in_sklearn(start_method: str, tmp_path: Path) -> None:
    """For the thread that calls, as scikit-learn has it."""
    pytest.importorskip("sklearn")
    program = """
    import sklearn

    def config(x): return sklearn.get_config()["transform_output"], sklearn.get_config()["working_memory"]

    check(config)
    sklearn.set_config(transform_output="pandas")
    check(config)
    with sklearn.config_context(transform_output="default", working_memory=7):
        check(config)
    check(config)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 4


@pytest.mark.parametrize("start_method", METHODS)
def test_modules_that_only_a_finder_of_the_program_s_knows(start_method: str, tmp_path: Path) -> None:
    """Imported before or by the function."""
    program = """
    import importlib.abc, importlib.machinery

    class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name, path=None, target=None):
            return importlib.machinery.ModuleSpec(name, self) if name in ("virtual", "later") else None
        def create_module(self, spec):
            return None
        def exec_module(self, module):
            exec("VALUE = 7\\ndef add(x): return x + VALUE\\nclass Kind:\\n    n = 3", vars(module))

    sys.meta_path.insert(0, Finder())
    import virtual

    def inside(x):
        import virtual
        return virtual.add(x)
    def late(x):
        import later
        return later.VALUE

    check(lambda x: (virtual.add(x), virtual.Kind().n))
    virtual.VALUE = 8
    check(virtual.add)
    check(inside)
    print(amorsize.parallel(late, **HOW).map(range(40)) == [7] * 40)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 4


@pytest.mark.parametrize("start_method", METHODS)
def test_the_classes_that_are_derived_from_one(start_method: str, tmp_path: Path) -> None:
    """A worker has those of the modules that it has imported."""
    (tmp_path / "base.py").write_text(
        "class Base:\n    pass\ndef names(x): return [kind.__name__ for kind in Base.__subclasses__()]\n"
    )
    program = """
    import base
    class Mine(base.Base): pass
    check(base.names)
    check(lambda x: base.names(x))
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 2


@pytest.mark.parametrize("start_method", METHODS)
def test_what_is_registered_with_abstract_classes(start_method: str, tmp_path: Path) -> None:
    """Of the library, of a module, of the main one; and asked about items, and by singledispatch."""
    (tmp_path / "shapes.py").write_text(
        "import abc, collections.abc\nclass Shape(abc.ABC): pass\nclass Plain: pass\n"
        "def ask(x): return isinstance(x, Shape), isinstance(Plain(), collections.abc.Sized)\n"
    )
    program = """
    import abc, collections.abc, functools, numbers, shapes

    class Mine: pass
    class Own(abc.ABC): pass

    @functools.singledispatch
    def size(x): return "none"
    @size.register
    def _(x: collections.abc.Sized): return "sized"

    def work(x): return isinstance(Mine(), collections.abc.Sized), isinstance(x, Own), isinstance(Mine(), shapes.Shape)
    def items(x): return isinstance(x, collections.abc.Sized), size(x)

    def check_all():
        check(work)
        check(items, [Mine(), 1] * 20)
        check(shapes.ask)
        check(shapes.ask, [Mine(), 1] * 20)

    check_all()
    collections.abc.Sized.register(Mine)
    collections.abc.Sized.register(shapes.Plain)
    numbers.Number.register(Mine)
    Own.register(int)
    shapes.Shape.register(Mine)
    shapes.Shape.register(int)
    check_all()
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 8


@pytest.mark.parametrize("start_method", METHODS)
def test_what_is_registered_with_singledispatch(start_method: str, tmp_path: Path) -> None:
    """With a function of a module, from elsewhere; the next map has what was registered until then."""
    (tmp_path / "shows.py").write_text(
        "import functools\n@functools.singledispatch\ndef show(x): return 'any'\n"
        "@show.register\ndef _(x: str): return 'text'\ndef use(x): return show(x)\n"
    )
    program = """
    import shows
    from shows import show
    class Mine: pass
    items = [Mine(), 1, ""] * 14
    def work(x): return shows.show(x), show(x)

    check(work, items)
    shows.show.register(int, lambda x: "number")
    check(work, items)
    check(shows.use, items)
    @shows.show.register
    def _(x: Mine): return "mine"
    shows.show.register(int, lambda x: "other")
    check(work, items)
    check(shows.use, items)
    check(lambda x: x)
    """
    assert run_program(program, start_method, tmp_path) == ["True"] * 6


@pytest.mark.parametrize("start_method", METHODS)
@pytest.mark.parametrize(
    "way",
    [
        "importlib.import_module('table').BOX",
        "importlib.import_module('.rows', 'tables').BOX",
        "importlib.import_module(''.join(['ta', 'ble'])).BOX",
        "importlib.__import__('table').BOX",
        "__import__('table').BOX",
        "__import__('tables.rows').rows.BOX",
        "__import__('tables.rows', fromlist=['BOX']).BOX",
        "__import__(''.join(['ta', 'ble'])).BOX",
        "__builtins__['__import__']('table').BOX",
        "pkgutil.resolve_name('table').BOX",
        "pkgutil.resolve_name('tables.rows.BOX')",
        "pkgutil.resolve_name('tables.rows:BOX')",
        "sys.modules['table'].BOX",
        "sys.modules[''.join(['ta', 'ble'])].BOX",
        "sys.modules.get('table').BOX",
        "vars(sys.modules['table'])['BOX']",
        "next(module for name, module in sys.modules.items() if name == 'table').BOX",
    ],
)
def test_what_the_first_item_sets_in_a_module_that_is_reached_by_its_name(
    start_method: str, way: str, tmp_path: Path
) -> None:
    """Nobody had seen it: workers imported it anew, and each had another first item."""
    (tmp_path / "tables").mkdir()
    for name in ("table.py", "tables/__init__.py", "tables/rows.py"):
        (tmp_path / name).write_text("class Box:\n    rows = None\n\nBOX = Box()\n")
    (tmp_path / "uses.py").write_text(
        f"import importlib, pkgutil, sys, table, tables.rows\n\n\ndef work(x):\n    box = {way}\n"
        "    sum(range(400_000))\n    if box.rows is None:\n        box.rows = [x]\n    return box.rows\n"
    )
    program = """
    import uses
    work = amorsize.parallel(uses.work, start_method=sys.argv[1])
    print(work.map(range(60)) == [[0]] * 60)
    """
    assert run_program(program, start_method, tmp_path) == ["True"]


# How code reads a variable of a module without its name being an attribute in the code, or the module one of its names.
READS = [
    "getattr(table, 'LEVEL')",
    "vars(table)['LEVEL']",
    "vars(table).get('LEVEL')",
    "table.__dict__['LEVEL']",
    "operator.attrgetter('LEVEL')(table)",
    "operator.attrgetter('table.LEVEL')(tables)",
    "pkgutil.resolve_name('tables.table:LEVEL')",
    "sys.modules['tables.table'].LEVEL",
    "sys.modules.get('tables.table').LEVEL",
    "sys.modules.get('.'.join(['tables', 'table'])).LEVEL",
    "importlib.import_module('.'.join(['', 'table']), package='tables').LEVEL",
    "[module.LEVEL for name, module in sys.modules.items() if name == 'tables.table'][0]",
]


@pytest.mark.parametrize("start_method", [*METHODS, ""])
@pytest.mark.parametrize("way", READS)
def test_what_the_program_has_set_is_read_by_its_name(start_method: str, way: str, tmp_path: Path) -> None:
    """Workers had what their own import had made, without a word, or no such module."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "__init__.py").write_text("")
    (tmp_path / "tables" / "table.py").write_text("LEVEL = 1\n")
    (tmp_path / "uses.py").write_text(
        "import importlib, operator, pkgutil, sys, tables.table\nfrom tables import table\n\n\n"
        f"def work(x):\n    sum(range(200_000))\n    return {way}\n"
    )
    program = """
    import threading
    import tables.table, uses
    tables.table.LEVEL = 2
    how = {"start_method": sys.argv[1]} if sys.argv[1] else {}
    work = amorsize.parallel(uses.work, **how)
    print(work.map(range(100)) == [2] * 100)
    over = threading.Event()
    threading.Thread(target=over.wait).start()
    print(work.map(range(100)) == [2] * 100)
    over.set()
    """
    assert run_program(program, start_method, tmp_path) == ["True", "True"]


@pytest.mark.parametrize("name", ["'table'", "''.join(['ta', 'ble'])"])
@pytest.mark.parametrize("way", ["sys.modules.get({})", "sys.modules[{}]", "importlib.import_module({})"])
def test_what_items_add_in_a_module_that_is_found_by_its_name(way: str, name: str, tmp_path: Path) -> None:
    """A method that changes its object was one that nobody knows, where any object of any module might be meant."""
    (tmp_path / "table.py").write_text("ROWS = []\n")
    program = f"""
    import importlib
    import table
    def work(x):
        sum(range(20_000))
        {way.format(name)}.ROWS.append(x)
    amorsize.parallel(work).map(range(300))
    print(table.ROWS == list(range(300)))
    """
    assert run_program(program, "", tmp_path) == ["True"]
