# ruff: noqa: E501 - the tables have one entry a line, whatever its source takes
"""
Makes programs whose function reaches state in some roundabout way, and compares their map with the loop.

    kind of state  x  way to it (0 to 3 steps)  x  way it is used  x  which items use it  x  how it is mapped

A program is real source in real modules, which are imported twice: one copy runs the loop, the other the map. What the
items return and what the state is afterwards must be equal, or a warning must have said that it may not be.

``python -m tests.programs -n 20000`` runs so many and prints how many differed without a word, by kind and by way.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import importlib
import itertools
import random
import sys
import tempfile
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypothesis import strategies as st

import amorsize
from amorsize import _host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Kind(NamedTuple):
    """
    A kind of state.

    Attributes:
        make: The expression that makes it.
        use: The expression an item computes with it; ``{s}`` is the state, ``{i}`` the item.
        peek: The expression that tells its state afterwards; it may use it up.
        setup: What must stand before it in its module.
    """

    make: str
    use: str
    peek: str
    setup: str = ""


_BOX: Final = """
class Box:
    def __init__(self):
        self.n = 0
        self.rows = []
    def bump(self):
        self.n += 1
        return self.n
    def keep(self, i):
        self.rows.append(i)
        return len(self.rows)
    def first(self, i):
        if not self.rows:
            self.rows = [i]
        return self.rows
"""

_LAZY: Final = """
class Lazy:
    def __init__(self):
        self.first = None
    def get(self, i):
        if self.first is None:
            self.first = i
        return self.first
"""

_COUNTER: Final = """
class Counts:
    made = 0
    def __init__(self):
        type(self).made += 1
        self.number = type(self).made
class Meta(type):
    members = []
    def __call__(cls, *args):
        Meta.members.append(args)
        return len(Meta.members)
class Registered(metaclass=Meta):
    pass
"""

_GLOBAL: Final = """
TOTAL = 0
def bump():
    global TOTAL
    TOTAL += 1
    return TOTAL
def make_counter():
    n = 0
    def count():
        nonlocal n
        n += 1
        return n
    return count
def numbers():
    yield from range(100000)
def accumulator():
    total = 0
    while True:
        total += yield total
"""

_FILE: Final = """
import sys, tempfile
OPENED = sys.__dict__.setdefault('_opened_by_programs', [])
def open_file(mode):
    stream = tempfile.TemporaryFile(mode)
    OPENED.append(stream)
    stream.write(b"0123456789abcdef" * 500 if "b" in mode else "0123456789abcdef\\n" * 500)
    stream.flush()
    stream.seek(0)
    return stream
"""

_SUBSCRIPT: Final = """
class Table:
    def __init__(self):
        self.data = {}
    def __getitem__(self, key):
        return self.data.setdefault(key % 7, len(self.data))
    def __contains__(self, key):
        self.data[key] = 1
        return True
    def __len__(self):
        self.data[len(self.data)] = 0
        return len(self.data)
    def __iter__(self):
        self.data[len(self.data)] = 0
        return iter([len(self.data)])
    def __add__(self, other):
        self.data[len(self.data)] = other
        return len(self.data)
    def __eq__(self, other):
        self.data[len(self.data)] = other
        return len(self.data) % 2 == 0
    def __lt__(self, other):
        self.data[len(self.data)] = other
        return len(self.data) % 2 == 0
    def __hash__(self):
        self.data[len(self.data)] = 0
        return 5
    def __bool__(self):
        self.data[len(self.data)] = 0
        return len(self.data) % 2 == 0
    def __str__(self):
        self.data[len(self.data)] = 0
        return str(len(self.data))
    def __format__(self, spec):
        return str(self)
    def __neg__(self):
        return len(self)
    def __index__(self):
        return len(self)
    def __float__(self):
        return float(len(self))
    def __enter__(self):
        return len(self)
    def __exit__(self, *args):
        self.data[len(self.data)] = 0
    def __call__(self, x):
        return len(self) + x
    def __getattr__(self, name):
        if name.startswith("__") or name == "data":
            raise AttributeError(name)
        return len(self)
    def __setitem__(self, key, value):
        self.data[key] = value
    def __iadd__(self, other):
        self.data[len(self.data)] = other
        return self
    @property
    def size(self):
        return len(self)
def entered(t):
    with t as n:
        return n
def put(t, i):
    t[i] = i
    return i
def grow(t, i):
    t += i
    return len(t.data)
"""

KINDS: Final[dict[str, Kind]] = {
    "file read": Kind("open_file('w+b')", "{s}.read(3)", "{s}.tell()", _FILE),
    "file line": Kind("open_file('w+')", "{s}.readline()", "{s}.read()", _FILE),
    "file next": Kind("open_file('w+')", "next({s})", "{s}.read()", _FILE),
    "file write": Kind("open_file('w+b')", "{s}.write(b'xyz')", "({s}.seek(0), {s}.read())", _FILE),
    "file seek": Kind("open_file('w+b')", "{s}.seek({i})", "{s}.tell()", _FILE),
    "print to": Kind("io.StringIO()", "print({i}, file={s})", "{s}.getvalue()", "import io"),
    "generator": Kind("numbers()", "next({s})", "list({s})[:3]", _GLOBAL),
    "generator send": Kind("accumulator()", "{s}.send(None if {s}.gi_frame.f_lasti < 5 else {i})", "{s}.gi_frame.f_locals.get('total', 0)", _GLOBAL),
    "generator in for": Kind("numbers()", "first_of({s})", "list({s})[:3]", _GLOBAL + "\ndef first_of(it):\n    for x in it:\n        return x\n"),
    "iterator": Kind("iter(range(100000))", "next({s})", "list({s})[:3]"),
    "iterator in": Kind("iter(range(100000))", "5 in {s} if {i} else {i} in {s}", "list({s})[:3]"),
    "islice": Kind("iter(range(100000))", "list(itertools.islice({s}, 2))", "list({s})[:3]", "import itertools"),
    "zip": Kind("iter(range(100000))", "list(zip([1, 2], {s}))", "list({s})[:3]"),
    "unpack": Kind("iter(range(100000))", "two_of({s})", "list({s})[:3]", "def two_of(it):\n    (a, b), *rest = [(next(it), 0)]\n    return a\n"),
    "count": Kind("itertools.count()", "next({s})", "next({s})", "import itertools"),
    "cycle": Kind("itertools.cycle('abcdefg')", "next({s})", "next({s})", "import itertools"),
    "attribute": Kind("Box()", "{s}.bump()", "{s}.n", _BOX),
    "object with method": Kind("Box()", "{s}.keep({i})", "{s}.rows", _BOX),
    "set by the first": Kind("Box()", "{s}.first({i})", "None", _BOX),
    "lazy by item": Kind("Lazy()", "{s}.get({i})", "None", _LAZY),
    "bound method": Kind("Box().bump", "{s}()", "{s}()", _BOX),
    "list": Kind("[]", "({s}.append({i}), len({s}))[1]", "{s}"),
    "list by index": Kind("[0]", "add_one({s})", "{s}", "def add_one(t):\n    t[0] += 1\n    return t[0]\n"),
    "list by slice": Kind("[0]", "add_one({s})", "{s}", "def add_one(t):\n    t[:] = [t[0] + 1]\n    return t[0]\n"),
    "list in place": Kind("[0]", "add_one({s}, {i})", "{s}", "def add_one(t, i):\n    t += [i]\n    return len(t)\n"),
    "list delete": Kind("list(range(10000))", "take({s})", "{s}", "def take(t):\n    del t[0]\n    return t[0]\n"),
    "list pop": Kind("list(range(10000))", "{s}.pop()", "{s}"),
    "list sort": Kind("[3, 1, 2]", "({s}.sort(reverse=({i} % 2 == 0)), {s}[0])[1]", "{s}"),
    "shuffle of list": Kind("list(range(20))", "(random.Random({i}).shuffle({s}), {s}[0])[1]", "{s}", "import random"),
    "heap": Kind("[]", "(heapq.heappush({s}, {i}), len({s}))[1]", "{s}", "import heapq"),
    "insort": Kind("[]", "(bisect.insort({s}, {i}), len({s}))[1]", "{s}", "import bisect"),
    "dict": Kind("{{}}", "{s}.setdefault({i}, len({s}))", "{s}"),
    "dict item": Kind("{{'n': 0}}", "add_one({s})", "{s}", "def add_one(t):\n    t['n'] = t['n'] + 1\n    return t['n']\n"),
    "dict update": Kind("{{'n': 0}}", "({s}.update(n={s}['n'] + 1), {s}['n'])[1]", "{s}"),
    "dict or": Kind("{{'n': 0}}", "add({s}, {i})", "{s}", "def add(t, i):\n    t |= {{i: i}}\n    return len(t)\n"),
    "set": Kind("set()", "({s}.add({i}), len({s}))[1]", "sorted({s})"),
    "memo": Kind("{{}}", "recall({s}, {i})", "{s}", "def recall(memo, i):\n    if i % 5 not in memo:\n        memo[i % 5] = i\n    return memo[i % 5]\n"),
    "memo by get": Kind("{{}}", "recall({s}, {i})", "{s}", "def recall(memo, i):\n    if (held := memo.get(i % 5)) is None:\n        held = memo[i % 5] = i\n    return held\n"),
    "memo by error": Kind("{{}}", "recall({s}, {i})", "{s}", "def recall(memo, i):\n    try:\n        return memo[i % 5]\n    except KeyError:\n        memo[i % 5] = i\n        return i\n"),
    "defaultdict": Kind("collections.defaultdict(list)", "({s}[{i} % 5].append({i}), len({s}[{i} % 5]))[1]", "dict({s})", "import collections"),
    "defaultdict count": Kind("collections.defaultdict(itertools.count().__next__)", "{s}[{i}]", "dict({s})", "import collections, itertools"),
    "counter": Kind("collections.Counter()", "tally({s}, {i})", "dict({s})", "import collections\ndef tally(t, i):\n    t[i % 3] += 1\n    return t[i % 3]\n"),
    "deque": Kind("collections.deque()", "({s}.append({i}), len({s}))[1]", "list({s})", "import collections"),
    "deque rotate": Kind("collections.deque(range(9))", "({s}.rotate(), {s}[0])[1]", "list({s})", "import collections"),
    "array": Kind("array.array('i', [0])", "add_one({s})", "list({s})", "import array\ndef add_one(t):\n    t[0] += 1\n    return t[0]\n"),
    "array append": Kind("array.array('i')", "({s}.append({i}), len({s}))[1]", "list({s})", "import array"),
    "array fromlist": Kind("array.array('i')", "({s}.fromlist([{i}]), len({s}))[1]", "list({s})", "import array"),
    "bytearray": Kind("bytearray(b'x')", "({s}.extend(b'ab'), len({s}))[1]", "bytes({s})"),
    "memoryview": Kind("bytearray(8)", "add_one({s})", "bytes({s})", "def add_one(t):\n    view = memoryview(t)\n    view[0] = (view[0] + 1) % 256\n    return view[0]\n"),
    "pack_into": Kind("bytearray(8)", "(struct.pack_into('i', {s}, 0, struct.unpack_from('i', {s}, 0)[0] + 1), bytes({s}))[1]", "bytes({s})", "import struct"),
    "readinto": Kind("bytearray(4)", "(io.BytesIO(bytes([{i} % 250, {s}[0], 2, 3])).readinto({s}), bytes({s}))[1]", "bytes({s})", "import io"),
    "numpy item": Kind("numpy.zeros(3)", "add_one({s})", "{s}.tolist()", "import numpy\ndef add_one(t):\n    t[0] += 1\n    return float(t[0])\n"),
    "numpy in place": Kind("numpy.zeros(3)", "add_one({s})", "{s}.tolist()", "import numpy\ndef add_one(t):\n    t += 1\n    return float(t[0])\n"),
    "numpy out": Kind("numpy.zeros(3)", "float(numpy.add({s}, 1, out={s})[0])", "{s}.tolist()", "import numpy"),
    "numpy out positional": Kind("numpy.zeros(3)", "float(numpy.add({s}, 1, {s})[0])", "{s}.tolist()", "import numpy"),
    "numpy add.at": Kind("numpy.zeros(3)", "(numpy.add.at({s}, 0, 1), float({s}[0]))[1]", "{s}.tolist()", "import numpy"),
    "numpy view": Kind("numpy.zeros((3, 3))", "add_one({s})", "{s}.tolist()", "import numpy\ndef add_one(t):\n    row = t.reshape(-1)[2:5]\n    row += 1\n    return float(row[0])\n"),
    "numpy flat": Kind("numpy.zeros((3, 3))", "add_one({s})", "{s}.tolist()", "import numpy\ndef add_one(t):\n    t.T.flat[0] = t[0, 0] + 1\n    return float(t[0, 0])\n"),
    "numpy shuffle": Kind("numpy.arange(9)", "(numpy.random.default_rng({i}).shuffle({s}), int({s}[0]))[1]", "{s}.tolist()", "import numpy"),
    "random.Random": Kind("random.Random(1)", "{s}.random()", "{s}.random()", "import random"),
    "random method": Kind("random.Random(1).gauss", "{s}(0, 1)", "{s}(0, 1)", "import random"),
    "random.choice": Kind("random.Random(1)", "{s}.choice('abcdefghijk')", "{s}.random()", "import random"),
    "numpy Generator": Kind("numpy.random.default_rng(1)", "float({s}.normal())", "float({s}.normal())", "import numpy"),
    "numpy RandomState": Kind("numpy.random.RandomState(1)", "float({s}.rand())", "float({s}.rand())", "import numpy"),
    "numpy generator shuffle": Kind("numpy.random.default_rng(1)", "{s}.permutation(5).tolist()", "float({s}.normal())", "import numpy"),
    "hashlib": Kind("hashlib.sha256()", "({s}.update(b'x'), {s}.hexdigest())[1]", "{s}.hexdigest()", "import hashlib"),
    "zlib": Kind("zlib.compressobj()", "{s}.compress(b'abc' * {i})", "{s}.flush()", "import zlib"),
    "BytesIO": Kind("io.BytesIO(b'abcdefgh' * 500)", "{s}.read(2)", "{s}.tell()", "import io"),
    "StringIO": Kind("io.StringIO()", "{s}.write('ab')", "{s}.getvalue()", "import io"),
    "csv reader": Kind("csv.reader(['a,b', 'c,d', 'e,f'] * 300)", "next({s})", "{s}.line_num", "import csv"),
    "csv writer": Kind("Sheet()", "{s}.writer.writerow([{i}])", "{s}.out.getvalue()", "import csv, io\nclass Sheet:\n    def __init__(self):\n        self.out = io.StringIO()\n        self.writer = csv.writer(self.out)\n"),
    "struct iterator": Kind("struct.iter_unpack('b', bytes(5000))", "next({s})", "len(list({s}))", "import struct"),
    "sqlite": Kind("connect()", "({s}.execute('insert into t values (?)', ({i},)), {s}.execute('select count(*) from t').fetchone())[1]", "{s}.execute('select count(*) from t').fetchone()", "import sqlite3, sys\nOPENED = sys.__dict__.setdefault('_opened_by_programs', [])\ndef connect():\n    c = sqlite3.connect(':memory:', check_same_thread=False)\n    OPENED.append(c)\n    c.execute('create table t (x)')\n    return c\n"),
    "sqlite cursor": Kind("rows()", "{s}.fetchone()", "{s}.fetchone()", "import sqlite3, sys\nOPENED = sys.__dict__.setdefault('_opened_by_programs', [])\ndef rows():\n    c = sqlite3.connect(':memory:', check_same_thread=False)\n    OPENED.append(c)\n    c.execute('create table t (x)')\n    c.executemany('insert into t values (?)', [(i,) for i in range(3000)])\n    return c.execute('select x from t')\n"),
    "lock": Kind("threading.Lock()", "{s}.acquire(blocking=False)", "{s}.locked()", "import threading"),
    "semaphore": Kind("threading.Semaphore(10)", "{s}.acquire(blocking=False)", "{s}._value", "import threading"),
    "event": Kind("threading.Event()", "toggle({s})", "{s}.is_set()", "import threading\ndef toggle(e):\n    was = e.is_set()\n    e.clear() if was else e.set()\n    return was\n"),
    "queue": Kind("queue.Queue()", "({s}.put({i}), {s}.qsize())[1]", "{s}.qsize()", "import queue"),
    "queue get": Kind("filled()", "{s}.get_nowait()", "{s}.qsize()", "import queue\ndef filled():\n    q = queue.Queue()\n    for i in range(5000):\n        q.put(i)\n    return q\n"),
    "contextvar": Kind("contextvars.ContextVar('v', default=0)", "count_up({s})", "{s}.get()", "import contextvars\ndef count_up(v):\n    v.set(v.get() + 1)\n    return v.get()\n"),
    "class attribute": Kind("Counts", "{s}().number", "{s}.made", _COUNTER),
    "metaclass": Kind("Registered", "{s}({i})", "len(Meta.members)", _COUNTER),
    "subclasses": Kind("Base", "len(type('Sub', ({s},), {{}}).names)", "{s}.names", "class Base:\n    names = []\n    def __init_subclass__(cls):\n        Base.names.append(cls.__name__)\n"),
    "global": Kind("bump", "{s}()", "TOTAL", _GLOBAL),
    "globals()": Kind("None", "count_in_globals()", "NUMBER", "NUMBER = 0\ndef count_in_globals():\n    globals()['NUMBER'] += 1\n    return NUMBER\n"),
    "nonlocal": Kind("make_counter()", "{s}()", "{s}()", _GLOBAL),
    "function attribute": Kind("called", "{s}()", "{s}.n", "def called():\n    called.n += 1\n    return called.n\ncalled.n = 0\n"),
    "default argument": Kind("remember", "{s}({i})", "{s}.__defaults__", "def remember(x, memory=[]):\n    memory.append(x)\n    return len(memory)\n"),
    "setattr": Kind("Box()", "add_one({s})", "{s}.n", _BOX + "\ndef add_one(t):\n    setattr(t, 'n', t.n + 1)\n    return t.n\n"),
    "setattr by name": Kind("Box()", "add_one({s}, 'n')", "{s}.n", _BOX + "\ndef add_one(t, name):\n    setattr(t, name, getattr(t, name) + 1)\n    return t.n\n"),
    "object.__setattr__": Kind("Box()", "add_one({s})", "{s}.n", _BOX + "\ndef add_one(t):\n    object.__setattr__(t, 'n', t.n + 1)\n    return t.n\n"),
    "vars": Kind("Box()", "add_one({s})", "{s}.n", _BOX + "\ndef add_one(t):\n    vars(t)['n'] = t.n + 1\n    return t.n\n"),
    "__dict__": Kind("Box()", "add_one({s})", "{s}.n", _BOX + "\ndef add_one(t):\n    t.__dict__['n'] += 1\n    return t.n\n"),
    "__dict__.update": Kind("Box()", "add_one({s})", "{s}.n", _BOX + "\ndef add_one(t):\n    t.__dict__.update(n=t.n + 1)\n    return t.n\n"),
    "list method of class": Kind("[]", "(list.append({s}, {i}), len({s}))[1]", "{s}"),
    "methodcaller": Kind("[]", "(operator.methodcaller('append', {i})({s}), len({s}))[1]", "{s}", "import operator"),
    "operator": Kind("[0]", "(operator.iadd({s}, [{i}]), len({s}))[1]", "{s}", "import operator"),
    "map append": Kind("[]", "(list(map({s}.append, [{i}])), len({s}))[1]", "{s}"),
    "partial append": Kind("[]", "(functools.partial({s}.append, {i})(), len({s}))[1]", "{s}", "import functools"),
    "lru_cache": Kind("[]", "counted({i} % 4)", "None", "import functools\nimport itertools\nN = itertools.count()\n@functools.lru_cache\ndef counted(i):\n    return i\n"),
    "SimpleNamespace": Kind("types.SimpleNamespace(n=0)", "add_one({s})", "{s}.n", "import types\ndef add_one(t):\n    t.n += 1\n    return t.n\n"),
    "slots object": Kind("Slotted()", "{s}.bump()", "{s}.n", "class Slotted:\n    __slots__ = ('n',)\n    def __init__(self):\n        self.n = 0\n    def bump(self):\n        self.n += 1\n        return self.n\n"),
    "dataclass object": Kind("Data()", "{s}.bump()", "{s}.n", "import dataclasses\n@dataclasses.dataclass\nclass Data:\n    n: int = 0\n    def bump(self):\n        self.n += 1\n        return self.n\n"),
    "property setter": Kind("Prop()", "{s}.bump()", "{s}._n", "class Prop:\n    def __init__(self):\n        self._n = 0\n    @property\n    def n(self):\n        return self._n\n    @n.setter\n    def n(self, value):\n        self._n = value\n    def bump(self):\n        self.n += 1\n        return self.n\n"),
    "descriptor state": Kind("Owner()", "{s}.value", "Owner.__dict__['value'].n", "class Counted:\n    n = 0\n    def __get__(self, owner, kind=None):\n        if owner is None:\n            return self\n        self.n += 1\n        return self.n\nclass Owner:\n    value = Counted()\n"),
    "descriptor set": Kind("Owner()", "put_value({s}, {i})", "Owner.__dict__['value'].seen", "class Watched:\n    def __init__(self):\n        self.seen = []\n    def __set__(self, owner, value):\n        self.seen.append(value)\n    def __get__(self, owner, kind=None):\n        return len(self.seen)\nclass Owner:\n    value = Watched()\ndef put_value(t, i):\n    t.value = i\n    return t.value\n"),
    "iterator class": Kind("Steps()", "next({s})", "{s}.n", "class Steps:\n    def __init__(self):\n        self.n = 0\n    def __iter__(self):\n        return self\n    def __next__(self):\n        self.n += 1\n        return self.n\n"),
    "iterator class in for": Kind("Steps()", "first_of({s})", "{s}.n", "class Steps:\n    def __init__(self):\n        self.n = 0\n    def __iter__(self):\n        return self\n    def __next__(self):\n        self.n += 1\n        return self.n\ndef first_of(it):\n    for x in it:\n        return x\n"),
    "random module": Kind("random.Random(1)", "random.random()", "random.random()", "import random"),
    "numpy.random": Kind("numpy.random.RandomState(1)", "float(numpy.random.rand())", "float(numpy.random.rand())", "import numpy"),
    "environment": Kind("None", "count_there()", "os.environ['PROGRAMS']", "import os\nos.environ['PROGRAMS'] = '0'\ndef count_there():\n    os.environ['PROGRAMS'] = str(int(os.environ['PROGRAMS']) + 1)\n    return os.environ['PROGRAMS']\n"),
    "module attribute": Kind("None", "count_module()", "__import__('sys').modules[__name__].NUMBER", "import sys\nNUMBER = 0\ndef count_module():\n    me = sys.modules[__name__]\n    me.NUMBER += 1\n    return me.NUMBER\n"),
    "inherited list": Kind("Rows()", "({s}.append({i}), len({s}))[1]", "list({s})", "class Rows(list):\n    def append(self, x):\n        super().append(x)\n"),
    "inherited dict": Kind("Rows()", "{s}[{i} % 5]", "dict({s})", "class Rows(dict):\n    def __missing__(self, key):\n        self[key] = len(self)\n        return self[key]\n"),
    "observer": Kind("Subject()", "{s}.notify({i})", "{s}.log", "class Subject:\n    def __init__(self):\n        self.log = []\n        self.hooks = [self.log.append]\n    def notify(self, i):\n        for hook in self.hooks:\n            hook(i)\n        return len(self.log)\n"),
    "state machine": Kind("Machine()", "{s}.step({i})", "{s}.state.__name__", "class Machine:\n    def __init__(self):\n        self.state = self.a\n    def a(self, i):\n        self.state = self.b\n        return 'a'\n    def b(self, i):\n        self.state = self.a\n        return 'b'\n    def step(self, i):\n        return self.state(i)\n"),
    "UserDict": Kind("collections.UserDict()", "({s}.update({{{i}: 1}}), len({s}))[1]", "dict({s})", "import collections"),
    "ChainMap": Kind("collections.ChainMap({{}}, {{'n': 0}})", "add_one({s})", "dict({s})", "import collections\ndef add_one(t):\n    t['n'] = t['n'] + 1\n    return t['n']\n"),
    "weak set": Kind("[]", "keep({s}, {i})", "len({s})", "import weakref\nclass Thing:\n    pass\nALL = weakref.WeakSet()\ndef keep(t, i):\n    thing = Thing()\n    ALL.add(thing)\n    t.append(thing)\n    return len(ALL)\n"),
    "Table[]": Kind("Table()", "{s}[{i}]", "{s}.data", _SUBSCRIPT),
    "Table[] set": Kind("Table()", "put({s}, {i})", "{s}.data", _SUBSCRIPT),
    "Table in": Kind("Table()", "{i} in {s}", "{s}.data", _SUBSCRIPT),
    "Table len": Kind("Table()", "len({s})", "{s}.data", _SUBSCRIPT),
    "Table iter": Kind("Table()", "list({s})", "{s}.data", _SUBSCRIPT),
    "Table for": Kind("Table()", "[x for x in {s}]", "{s}.data", _SUBSCRIPT),
    "Table star": Kind("Table()", "[*{s}]", "{s}.data", _SUBSCRIPT),
    "Table +": Kind("Table()", "{s} + {i}", "{s}.data", _SUBSCRIPT),
    "Table +=": Kind("Table()", "grow({s}, {i})", "{s}.data", _SUBSCRIPT),
    "Table ==": Kind("Table()", "{s} == {i}", "{s}.data", _SUBSCRIPT),
    "Table <": Kind("Table()", "{s} < {i}", "{s}.data", _SUBSCRIPT),
    "Table min": Kind("Table()", "min([{s}, {i}], key=lambda t: t == 0) is {s}", "{s}.data", _SUBSCRIPT),
    "Table hash": Kind("Table()", "len({{{s}: 1}})", "{s}.data", _SUBSCRIPT),
    "Table bool": Kind("Table()", "1 if {s} else 2", "{s}.data", _SUBSCRIPT),
    "Table not": Kind("Table()", "not {s}", "{s}.data", _SUBSCRIPT),
    "Table and": Kind("Table()", "bool({s} and {i})", "{s}.data", _SUBSCRIPT),
    "Table str": Kind("Table()", "str({s})", "{s}.data", _SUBSCRIPT),
    "Table f-string": Kind("Table()", "f'{{{s}}}'", "{s}.data", _SUBSCRIPT),
    "Table format": Kind("Table()", "'%s' % ({s},)", "{s}.data", _SUBSCRIPT),
    "Table join": Kind("Table()", "','.join(map(str, [{s}]))", "{s}.data", _SUBSCRIPT),
    "Table neg": Kind("Table()", "-{s}", "{s}.data", _SUBSCRIPT),
    "Table index": Kind("Table()", "list(range(100000))[{s}]", "{s}.data", _SUBSCRIPT),
    "Table float": Kind("Table()", "float({s})", "{s}.data", _SUBSCRIPT),
    "Table with": Kind("Table()", "entered({s})", "{s}.data", _SUBSCRIPT),
    "Table call": Kind("Table()", "{s}({i})", "{s}.data", _SUBSCRIPT),
    "Table attr": Kind("Table()", "{s}.anything", "{s}.data", _SUBSCRIPT),
    "Table property": Kind("Table()", "{s}.size", "{s}.data", _SUBSCRIPT),
    "Table sorted key": Kind("Table()", "sorted([1, 2], key={s})", "{s}.data", _SUBSCRIPT),
    "Table sum": Kind("Table()", "sum([1], start={s}.size)", "{s}.data", _SUBSCRIPT),
    "Table count": Kind("Table()", "[1, 2].count({s})", "{s}.data", _SUBSCRIPT),
    "Table attrgetter": Kind("Table()", "operator.attrgetter('size')({s})", "{s}.data", _SUBSCRIPT + "\nimport operator\n"),
    "Table itemgetter": Kind("Table()", "operator.itemgetter(3)({s})", "{s}.data", _SUBSCRIPT + "\nimport operator\n"),
    "weak reference": Kind("kept_elsewhere()", "count_there({s})", "{s}().n", "import weakref\nclass Target:\n    n = 0\nTARGET = Target()\ndef kept_elsewhere():\n    return weakref.ref(TARGET)\ndef count_there(r):\n    r().n += 1\n    return r().n\n"),
    "thread local": Kind("begun()", "add_one({s})", "{s}.n", "import threading\ndef begun():\n    t = threading.local()\n    t.n = 0\n    return t\ndef add_one(t):\n    t.n += 1\n    return t.n\n"),
    "slot by descriptor": Kind("Slotted()", "add_one({s})", "{s}.n", "class Slotted:\n    __slots__ = ('n',)\n    def __init__(self):\n        self.n = 0\ndef add_one(t):\n    Slotted.n.__set__(t, t.n + 1)\n    return t.n\n"),
    "module with __getattr__": Kind("made_module()", "{s}.anything", "{s}.anything", "import types\ndef made_module():\n    seen = []\n    def found(name):\n        if name.startswith('__'):\n            raise AttributeError(name)\n        seen.append(name)\n        return len(seen)\n    m = types.ModuleType('made_at_run_time')\n    m.__getattr__ = found\n    return m\n"),
    "proxy": Kind("Proxy([])", "({s}.append({i}), len({s}.copy()))[1]", "{s}.copy()", "class Proxy:\n    def __init__(self, target):\n        self.target = target\n    def __getattr__(self, name):\n        if name == 'target' or name.startswith('__'):\n            raise AttributeError(name)\n        return getattr(self.target, name)\n"),
    "value of enumeration": Kind("Colour", "({s}.RED.value.append({i}), len({s}.RED.value))[1]", "{s}.RED.value", "import enum\nclass Colour(enum.Enum):\n    RED = []\n"),
    "attribute of enumeration": Kind("Shade", "count_uses({s})", "{s}.DARK.uses", "import enum\nclass Shade(enum.Enum):\n    DARK = 1\n    def __init__(self, n):\n        self.uses = 0\ndef count_uses(e):\n    e.DARK.uses += 1\n    return e.DARK.uses\n"),
    "finalizer": Kind("Dying", "({s}(), {s}.deaths)[1]", "{s}.deaths", "class Dying:\n    deaths = 0\n    def __del__(self):\n        Dying.deaths += 1\n"),
    "default factory": Kind("Row", "{s}({i}).key", "next(IDS)", "import dataclasses, itertools\nIDS = itertools.count()\n@dataclasses.dataclass\nclass Row:\n    x: int\n    key: int = dataclasses.field(default_factory=lambda: next(IDS))\n"),
    "pattern scanner": Kind("re.compile('[0-9]+').scanner(' '.join(map(str, range(9000))))", "{s}.search().group()", "{s}.search().group()", "import re"),
    "finditer": Kind("re.finditer('[0-9]+', ' '.join(map(str, range(9000))))", "next({s}).group()", "next({s}).group()", "import re"),
    "zip member": Kind("member()", "{s}.read(3)", "{s}.tell()", "import io, zipfile\ndef member():\n    data = io.BytesIO()\n    with zipfile.ZipFile(data, 'w') as z:\n        z.writestr('a', b'0123456789' * 5000)\n    return zipfile.ZipFile(data).open('a')\n"),
    "decompressor": Kind("zlib.decompressobj()", "len({s}.decompress({s}.unconsumed_tail or (PACKED if {i} == 0 else b''), 5))", "len({s}.unconsumed_tail)", "import zlib\nPACKED = zlib.compress(bytes(range(256)) * 200)\n"),
    "tee": Kind("itertools.tee(itertools.count())", "next({s}[0])", "next({s}[0])", "import itertools"),
    "groupby": Kind("itertools.groupby(itertools.count(), key=lambda i: i // 3)", "next({s})[0]", "next({s})[0]", "import itertools"),
    "memory view": Kind("memoryview(bytearray(8))", "add_one({s})", "bytes({s})", "def add_one(t):\n    t[0] = (t[0] + 1) % 256\n    return t[0]\n"),
    "structured array": Kind("numpy.zeros(2, dtype=[('n', 'i8')])", "add_one({s})", "{s}.tolist()", "import numpy\ndef add_one(t):\n    t['n'][0] += 1\n    return int(t['n'][0])\n"),
    "simple queue": Kind("queue.SimpleQueue()", "({s}.put({i}), {s}.qsize())[1]", "{s}.qsize()", "import queue"),
    "weak values": Kind("weakref.WeakValueDictionary()", "keep({s}, {i})", "len({s})", "import weakref\nclass Thing:\n    pass\nHELD = []\ndef keep(t, i):\n    thing = Thing()\n    HELD.append(thing)\n    t[i] = thing\n    return len(t)\n"),
    "raised again": Kind("ValueError()", "again({s}, {i})", "{s}.args", "def again(e, i):\n    try:\n        raise e\n    except ValueError as error:\n        error.args = (*error.args, i)\n        return len(error.args)\n"),
    "registered late": Kind("shown", "register_at({s}, {i})", "{s}(5)", "import functools\n@functools.singledispatch\ndef shown(x):\n    return 'other'\ndef register_at(t, i):\n    if i == 30:\n        t.register(int)(lambda v: 'int')\n    return t(i)\n"),
    "cache_info": Kind("counted", "({s}({i} % 7), {s}.cache_info().misses)[1]", "{s}.cache_info().misses", "import functools\n@functools.lru_cache(maxsize=4)\ndef counted(i):\n    return i\n"),
    "bound partial": Kind("functools.partial(Box().keep, 3)", "{s}()", "{s}()", _BOX + "\nimport functools\n"),
    "mmap": Kind("mmap.mmap(-1, 64, flags=mmap.MAP_PRIVATE)", "add_one({s})", "{s}[0]", "import mmap\ndef add_one(t):\n    t[0] = (t[0] + 1) % 256\n    return t[0]\n"),
    "sys.path": Kind("None", "grow_path({i})", "sum(p.startswith('/programs') for p in sys.path)", "import sys\nsys.path[:] = [p for p in sys.path if not p.startswith('/programs')]\ndef grow_path(i):\n    sys.path.append('/programs')\n    return sum(p.startswith('/programs') for p in sys.path)\n"),
    # What is only read: right whatever happens, and free to go parallel.
    "read list": Kind("list(range(50))", "{s}[{i} % 50]", "{s}"),
    "read dict": Kind("{{i: str(i) for i in range(50)}}", "{s}.get({i} % 50)", "{s}"),
    "read array": Kind("numpy.arange(50.0)", "float({s}[{i} % 50] + {s}.sum())", "{s}.tolist()", "import numpy"),
    "read object": Kind("Box()", "{s}.n + {i}", "{s}.n", _BOX),
    "read set": Kind("{{1, 2, 3}}", "{i} in {s}", "sorted({s})"),
    "read words": Kind("{{'a', 'b', 'c', 'd'}}", "list({s})", "sorted({s})"),
    "read hash": Kind("'word'", "hash({s} + str({i}))", "{s}"),
    "read pattern": Kind("re.compile('a+b')", "bool({s}.match('a' * {i} + 'b'))", "{s}.pattern", "import re"),
    "read struct": Kind("struct.Struct('ii')", "{s}.pack({i}, 2)", "{s}.format", "import struct"),
    "read logger": Kind("logging.getLogger('programs')", "{s}.debug('item %s', {i})", "None", "import logging"),
    "read sorted": Kind("[3, 1, 2]", "sorted({s}, key=lambda x: -x)[0]", "{s}"),
    "read copy": Kind("[3, 1, 2]", "copied({s}, {i})", "{s}", "def copied(t, i):\n    mine = list(t)\n    mine.append(i)\n    return mine\n"),
    "own random": Kind("7", "random.Random({s} + {i}).random()", "{s}", "import random"),
}  # fmt: skip
READ_ONLY: Final = frozenset(name for name in KINDS if name.startswith(("read ", "own ")))

# Each way: what is to be written at module level, with {p} for the way so far and {k} for a number; and the new way.
WAYS: Final[dict[str, tuple[str, str]]] = {
    "name": ("NAME{k} = {p}\n", "NAME{k}"),
    "attribute": ("class Holder{k}:\n    pass\nHELD{k} = Holder{k}()\nHELD{k}.s = {p}\n", "HELD{k}.s"),
    "dict": ("DICT{k} = {{'s': {p}}}\n", "DICT{k}['s']"),
    "dict get": ("DICT{k} = {{'s': {p}}}\n", "DICT{k}.get('s')"),
    "dict values": ("DICT{k} = {{'s': {p}}}\n", "list(DICT{k}.values())[0]"),
    "dict computed key": ("DICT{k} = {{'s': {p}}}\n", "DICT{k}[str('s')]"),
    "list": ("LIST{k} = [{p}]\n", "LIST{k}[0]"),
    "list last": ("LIST{k} = [1, {p}]\n", "LIST{k}[len(LIST{k}) - 1]"),
    "list slice": ("LIST{k} = [1, {p}]\n", "LIST{k}[1:][0]"),
    "tuple": ("TUPLE{k} = (1, {p})\n", "TUPLE{k}[1]"),
    "nested": ("DEEP{k} = {{'a': [({p},)]}}\n", "DEEP{k}['a'][0][0]"),
    "comprehension": ("LIST{k} = [{p}]\n", "[x for x in LIST{k}][0]"),
    "generator": ("LIST{k} = [{p}]\n", "next(x for x in LIST{k})"),
    "iter": ("LIST{k} = [{p}]\n", "next(iter(LIST{k}))"),
    "enumerate": ("LIST{k} = [{p}]\n", "[x for _, x in enumerate(LIST{k})][0]"),
    "zip": ("LIST{k} = [{p}]\n", "list(zip(LIST{k}, LIST{k}))[0][1]"),
    "reversed": ("LIST{k} = [{p}]\n", "list(reversed(LIST{k}))[0]"),
    "function": ("def get{k}():\n    return {p}\n", "get{k}()"),
    "lambda": ("LAMBDA{k} = lambda: {p}\n", "LAMBDA{k}()"),
    "conditional": ("def get{k}(flag=True):\n    return {p} if flag else None\n", "get{k}()"),
    "or": ("MAYBE{k} = {p}\n", "(None or MAYBE{k})"),
    "default": ("def given{k}(s={p}):\n    return s\n", "given{k}()"),
    "keyword default": ("def given{k}(*, s={p}):\n    return s\n", "given{k}()"),
    "closure": ("def closing{k}(s):\n    def get():\n        return s\n    return get\nCLOSED{k} = closing{k}({p})\n", "CLOSED{k}()"),
    "closure in object": ("def closing{k}(s):\n    class Inner:\n        def get(self):\n            return s\n    return Inner()\nCLOSED{k} = closing{k}({p})\n", "CLOSED{k}.get()"),
    "partial": ("def same{k}(s, extra=0):\n    return s\nPARTIAL{k} = functools.partial(same{k}, {p})\n", "PARTIAL{k}()"),
    "partial keyword": ("def same{k}(*, s):\n    return s\nPARTIAL{k} = functools.partial(same{k}, s={p})\n", "PARTIAL{k}()"),
    "class attribute": ("class Class{k}:\n    s = {p}\nCLASS{k} = Class{k}\n", "CLASS{k}.s"),
    "class attribute of object": ("class Class{k}:\n    s = {p}\nOBJECT{k} = Class{k}()\n", "OBJECT{k}.s"),
    "new object": ("class Class{k}:\n    s = {p}\n", "Class{k}().s"),
    "made object": ("class Made{k}:\n    def __init__(self, s):\n        self.s = s\nARG{k} = {p}\n", "Made{k}(ARG{k}).s"),
    "made object's method": ("class Made{k}:\n    def __init__(self, s):\n        self.s = s\n    def get(self):\n        return self.s\nARG{k} = {p}\n", "Made{k}(ARG{k}).get()"),
    "method": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    def get(self):\n        return self._s\nWAY{k} = Way{k}({p})\n", "WAY{k}.get()"),
    "property": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    @property\n    def s(self):\n        return self._s\nWAY{k} = Way{k}({p})\n", "WAY{k}.s"),
    "cached_property": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    @functools.cached_property\n    def s(self):\n        return self._s\nWAY{k} = Way{k}({p})\n", "WAY{k}.s"),
    "descriptor": ("class Desc{k}:\n    def __get__(self, owner, kind=None):\n        return owner._s\nclass Way{k}:\n    s = Desc{k}()\n    def __init__(self, s):\n        self._s = s\nWAY{k} = Way{k}({p})\n", "WAY{k}.s"),
    "descriptor holds": ("class Desc{k}:\n    def __init__(self, s):\n        self.held = s\n    def __get__(self, owner, kind=None):\n        return self.held\nclass Way{k}:\n    s = Desc{k}({p})\nWAY{k} = Way{k}()\n", "WAY{k}.s"),
    "__getattr__": ("class Way{k}:\n    def __init__(self, s):\n        self.__dict__['_s'] = s\n    def __getattr__(self, name):\n        if name.startswith('_'):\n            raise AttributeError(name)\n        return self.__dict__['_s']\nWAY{k} = Way{k}({p})\n", "WAY{k}.anything"),
    "proxy": ("class Proxy{k}:\n    def __init__(self, s):\n        self._s = s\n    def __getattr__(self, name):\n        if name.startswith('_'):\n            raise AttributeError(name)\n        return getattr(self._s, name)\nclass Held{k}:\n    pass\nHELD{k} = Held{k}()\nHELD{k}.s = {p}\nPROXY{k} = Proxy{k}(HELD{k})\n", "PROXY{k}.s"),
    "__getattribute__": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    def __getattribute__(self, name):\n        return object.__getattribute__(self, '_s' if name == 'other' else name)\nWAY{k} = Way{k}({p})\n", "WAY{k}.other"),
    "__getitem__": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    def __getitem__(self, key):\n        return self._s\nWAY{k} = Way{k}({p})\n", "WAY{k}[3]"),
    "__call__": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    def __call__(self):\n        return self._s\nWAY{k} = Way{k}({p})\n", "WAY{k}()"),
    "__iter__": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    def __iter__(self):\n        yield self._s\nWAY{k} = Way{k}({p})\n", "list(WAY{k})[0]"),
    "__iter__ unpacked": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    def __iter__(self):\n        return iter([self._s])\nWAY{k} = Way{k}({p})\ndef only{k}():\n    (x,) = WAY{k}\n    return x\n", "only{k}()"),
    "__enter__": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    def __enter__(self):\n        return self._s\n    def __exit__(self, *args):\n        pass\nWAY{k} = Way{k}({p})\ndef inside{k}():\n    with WAY{k} as s:\n        return s\n", "inside{k}()"),
    "__neg__": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    def __neg__(self):\n        return self._s\nWAY{k} = Way{k}({p})\n", "(-WAY{k})"),
    "__add__": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    def __add__(self, other):\n        return self._s\nWAY{k} = Way{k}({p})\n", "(WAY{k} + 1)"),
    "__lt__": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    def __lt__(self, other):\n        return self._s\nWAY{k} = Way{k}({p})\n", "(WAY{k} < 1)"),
    "slots": ("class Slots{k}:\n    __slots__ = ('s',)\n    def __init__(self, s):\n        self.s = s\nSLOTS{k} = Slots{k}({p})\n", "SLOTS{k}.s"),
    "dataclass": ("@dataclasses.dataclass\nclass Data{k}:\n    s: object\nDATA{k} = Data{k}({p})\n", "DATA{k}.s"),
    "frozen dataclass": ("@dataclasses.dataclass(frozen=True, slots=True)\nclass Data{k}:\n    s: object\nDATA{k} = Data{k}({p})\n", "DATA{k}.s"),
    "namedtuple": ("Pair{k} = collections.namedtuple('Pair{k}', ['a', 's'])\nPAIR{k} = Pair{k}(1, {p})\n", "PAIR{k}.s"),
    "super": ("class Base{k}:\n    held = {p}\n    def get(self):\n        return self.held\nclass Sub{k}(Base{k}):\n    def get(self):\n        return super().get()\nSUB{k} = Sub{k}()\n", "SUB{k}.get()"),
    "super of new": ("class Base{k}:\n    held = {p}\n    def get(self):\n        return self.held\nclass Sub{k}(Base{k}):\n    def get(self):\n        return super().get()\n", "Sub{k}().get()"),
    "super init": ("ARG{k} = {p}\nclass Base{k}:\n    def __init__(self, s):\n        self.s = s\nclass Sub{k}(Base{k}):\n    def __init__(self):\n        super().__init__(ARG{k})\n", "Sub{k}().s"),
    "classmethod": ("class Class{k}:\n    _s = {p}\n    @classmethod\n    def get(cls):\n        return cls._s\n", "Class{k}.get()"),
    "staticmethod": ("ARG{k} = {p}\nclass Class{k}:\n    @staticmethod\n    def get():\n        return ARG{k}\n", "Class{k}.get()"),
    "singleton": ("class One{k}:\n    _one = None\n    def __init__(self):\n        self.s = {p}\n    @classmethod\n    def instance(cls):\n        if cls._one is None:\n            cls._one = cls()\n        return cls._one\nOne{k}.instance()\n", "One{k}.instance().s"),
    "lazy global": ("LAZY{k} = None\nARG{k} = {p}\ndef lazy{k}():\n    global LAZY{k}\n    if LAZY{k} is None:\n        LAZY{k} = ARG{k}\n    return LAZY{k}\n", "lazy{k}()"),
    "enum": ("import enum\nclass Enum{k}(enum.Enum):\n    A = 1\nTABLE{k} = {{Enum{k}.A: {p}}}\n", "TABLE{k}[Enum{k}.A]"),
    "namespace": ("SPACE{k} = types.SimpleNamespace(s={p})\n", "SPACE{k}.s"),
    "mappingproxy": ("MAPPING{k} = types.MappingProxyType({{'s': {p}}})\n", "MAPPING{k}['s']"),
    "ChainMap": ("CHAIN{k} = collections.ChainMap({{}}, {{'s': {p}}})\n", "CHAIN{k}['s']"),
    "defaultdict": ("DEFAULT{k} = collections.defaultdict(int, s={p})\n", "DEFAULT{k}['s']"),
    "deque": ("DEQUE{k} = collections.deque([{p}])\n", "DEQUE{k}[0]"),
    "contextvar": ("VAR{k} = contextvars.ContextVar('VAR{k}', default={p})\n", "VAR{k}.get()"),
    "weakref": ("class Held{k}:\n    pass\nHELD{k} = Held{k}()\nHELD{k}.s = {p}\nWEAK{k} = weakref.ref(HELD{k})\n", "WEAK{k}().s"),
    "getattr": ("HELD{k} = types.SimpleNamespace(s={p})\n", "getattr(HELD{k}, 's')"),
    "getattr by name": ("HELD{k} = types.SimpleNamespace(s={p})\nATTR{k} = 's'\n", "getattr(HELD{k}, ATTR{k})"),
    "attrgetter": ("HELD{k} = types.SimpleNamespace(s={p})\nGETTER{k} = operator.attrgetter('s')\n", "GETTER{k}(HELD{k})"),
    "itemgetter": ("HELD{k} = {{'s': {p}}}\nGETTER{k} = operator.itemgetter('s')\n", "GETTER{k}(HELD{k})"),
    "methodcaller": ("class Way{k}:\n    def __init__(self, s):\n        self._s = s\n    def get(self):\n        return self._s\nWAY{k} = Way{k}({p})\nCALLER{k} = operator.methodcaller('get')\n", "CALLER{k}(WAY{k})"),
    "vars": ("HELD{k} = types.SimpleNamespace(s={p})\n", "vars(HELD{k})['s']"),
    "__dict__": ("HELD{k} = types.SimpleNamespace(s={p})\n", "HELD{k}.__dict__['s']"),
    "globals": ("GLOBAL{k} = {p}\n", "globals()['GLOBAL{k}']"),
    "lru_cache": ("CACHED{k} = {p}\n@functools.lru_cache\ndef cached{k}():\n    return CACHED{k}\n", "cached{k}()"),
    "decorated": ("def logged{k}(f):\n    @functools.wraps(f)\n    def wrapper(*args, **kwargs):\n        return f(*args, **kwargs)\n    return wrapper\nARG{k} = {p}\n@logged{k}\ndef get{k}():\n    return ARG{k}\n", "get{k}()"),
    "decorated by object": ("class Logged{k}:\n    def __init__(self, f):\n        self.f = f\n    def __call__(self, *args):\n        return self.f(*args)\nARG{k} = {p}\n@Logged{k}\ndef get{k}():\n    return ARG{k}\n", "get{k}()"),
    "singledispatch": ("ARG{k} = {p}\n@functools.singledispatch\ndef get{k}(x):\n    return None\n@get{k}.register\ndef _(x: int):\n    return ARG{k}\n", "get{k}(1)"),
    "contextmanager": ("ARG{k} = {p}\n@contextlib.contextmanager\ndef manager{k}():\n    yield ARG{k}\ndef inside{k}():\n    with manager{k}() as s:\n        return s\n", "inside{k}()"),
    "generator function": ("ARG{k} = {p}\ndef gen{k}():\n    yield ARG{k}\ndef inside{k}():\n    for s in gen{k}():\n        return s\n", "inside{k}()"),
    "yield from": ("ARG{k} = {p}\ndef gen{k}():\n    yield ARG{k}\ndef outer{k}():\n    yield from gen{k}()\n", "next(outer{k}())"),
    "walrus": ("ARG{k} = {p}\ndef get{k}():\n    if (s := ARG{k}) is not None:\n        return s\n", "get{k}()"),
    "match": ("ARG{k} = {{'kind': 'x', 's': {p}}}\ndef get{k}():\n    match ARG{k}:\n        case {{'kind': 'x', 's': s}}:\n            return s\n", "get{k}()"),
    "match class": ("@dataclasses.dataclass\nclass Case{k}:\n    s: object\nARG{k} = Case{k}({p})\ndef get{k}():\n    match ARG{k}:\n        case Case{k}(s):\n            return s\n", "get{k}()"),
    "match list": ("ARG{k} = [1, {p}]\ndef get{k}():\n    match ARG{k}:\n        case [1, s]:\n            return s\n", "get{k}()"),
    "try finally": ("ARG{k} = {p}\ndef get{k}():\n    try:\n        raise ValueError\n    except ValueError:\n        s = ARG{k}\n    finally:\n        pass\n    return s\n", "get{k}()"),
    "exception": ("ARG{k} = {p}\ndef get{k}():\n    try:\n        raise ValueError(ARG{k})\n    except ValueError as error:\n        return error.args[0]\n", "get{k}()"),
    "star": ("ARGS{k} = (1, {p})\ndef second{k}(*args):\n    return args[1]\n", "second{k}(*ARGS{k})"),
    "star keywords": ("ARGS{k} = {{'s': {p}}}\ndef take{k}(**kwargs):\n    return kwargs['s']\n", "take{k}(**ARGS{k})"),
    "star to names": ("ARGS{k} = {{'s': {p}}}\ndef take{k}(a=1, s=None):\n    return s\n", "take{k}(**ARGS{k})"),
    "starred target": ("ARGS{k} = [1, {p}]\ndef rest{k}():\n    a, *b = ARGS{k}\n    return b[0]\n", "rest{k}()"),
    "reduce": ("LIST{k} = [{p}, 1]\n", "functools.reduce(lambda a, b: a, LIST{k})"),
    "max": ("LIST{k} = [{p}]\n", "max(LIST{k}, key=id)"),
    "sorted": ("LIST{k} = [{p}]\n", "sorted(LIST{k}, key=lambda x: 0)[0]"),
    "map": ("LIST{k} = [{p}]\n", "list(map(lambda x: x, LIST{k}))[0]"),
    "filter": ("LIST{k} = [{p}]\n", "list(filter(lambda x: True, LIST{k}))[0]"),
    "chain": ("LIST{k} = [{p}]\n", "list(itertools.chain(LIST{k}, []))[0]"),
    "groupby": ("LIST{k} = [{p}]\n", "[list(g) for _, g in itertools.groupby(LIST{k}, key=lambda x: 1)][0][0]"),
    "dict comprehension": ("DICT{k} = {{'s': {p}}}\n", "{{key: value for key, value in DICT{k}.items()}}['s']"),
    "copy of dict": ("DICT{k} = {{'s': {p}}}\n", "dict(DICT{k})['s']"),
    "copy.copy": ("DICT{k} = {{'s': {p}}}\n", "copy.copy(DICT{k})['s']"),
    "merged dict": ("DICT{k} = {{'s': {p}}}\n", "{{**DICT{k}, 'a': 1}}['s']"),
    "dict union": ("DICT{k} = {{'s': {p}}}\n", "(DICT{k} | {{'a': 1}})['s']"),
    "list sum": ("LIST{k} = [{p}]\n", "([1] + LIST{k})[1]"),
    "inner class": ("ARG{k} = {p}\ndef get{k}():\n    class Inner:\n        s = ARG{k}\n    return Inner.s\n", "get{k}()"),
    "inner function": ("ARG{k} = {p}\ndef get{k}():\n    def inner(x=ARG{k}):\n        return x\n    return inner()\n", "get{k}()"),
    "recursion": ("ARG{k} = {p}\ndef get{k}(depth=3):\n    return ARG{k} if depth == 0 else get{k}(depth - 1)\n", "get{k}()"),
    "eval": ("ARG{k} = {p}\n", "eval('ARG{k}')"),
    "module getattr": ("ARG{k} = {p}\n", "getattr(sys.modules[__name__], 'ARG{k}')"),
    "import": ("ARG{k} = {p}\ndef get{k}():\n    import {m}\n    return {m}.ARG{k}\n", "get{k}()"),
    "from import": ("ARG{k} = {p}\ndef get{k}():\n    from {m} import ARG{k} as s\n    return s\n", "get{k}()"),
    "import_module": ("ARG{k} = {p}\ndef get{k}():\n    return importlib.import_module('{m}').ARG{k}\n", "get{k}()"),
    "registry": ("REG{k} = {{}}\ndef register{k}(f):\n    REG{k}[f.__name__] = f\n    return f\nARG{k} = {p}\n@register{k}\ndef held{k}():\n    return ARG{k}\n", "REG{k}['held{k}']()"),
    "protocol": ("class Iface{k}:\n    def get(self):\n        raise NotImplementedError\nclass Impl{k}(Iface{k}):\n    def __init__(self, s):\n        self.s = s\n    def get(self):\n        return self.s\nIMPLS{k} = [Impl{k}({p})]\n", "[impl.get() for impl in IMPLS{k}][0]"),
    "composition": ("class A{k}:\n    def __init__(self, s):\n        self.s = s\nclass B{k}:\n    def __init__(self, a):\n        self.a = a\n    def find(self):\n        return self.a.s\nB_{k} = B{k}(A{k}({p}))\n", "B_{k}.find()"),
    "dunder class": ("class C{k}:\n    s = {p}\n    def get(self):\n        return self.__class__.s\nOBJ{k} = C{k}()\n", "OBJ{k}.get()"),
    "type()": ("class C{k}:\n    s = {p}\nOBJ{k} = C{k}()\n", "type(OBJ{k}).s"),
}  # fmt: skip

# How the state is used: {u} is the expression that uses it, of {s}; what stands before it; what the item's code is.
USES: Final[dict[str, tuple[str, str]]] = {
    "plainly": ("", "r = {use:way}"),
    "alias": ("", "t = {way}\nr = {use:t}"),
    "in a helper": ("def helper(t, i):\n    return {use:t}\n", "r = helper({way}, i)"),
    "by keyword": ("def helper(i, t):\n    return {use:t}\n", "r = helper(t={way}, i=i)"),
    "by stars": ("def helper(t, i):\n    return {use:t}\n", "r = helper(*({way},), **{{'i': i}})"),
    "by star list": ("def helper(t, i):\n    return {use:t}\n", "args = [{way}]\nargs.append(i)\nr = helper(*args)"),
    "nested function": ("", "def inner():\n    return {use:way}\nr = inner()"),
    "nested with argument": ("", "def inner(t):\n    return {use:t}\nr = inner({way})"),
    "returned function": ("def outer(i):\n    def inner(t):\n        return {use:t}\n    return inner\n", "r = outer(i)({way})"),
    "lambda": ("", "r = (lambda: {use:way})()"),
    "default of lambda": ("", "r = (lambda t={way}: {use:t})()"),
    "comprehension": ("", "r = [{use:way} for _ in (0,)][0]"),
    "generator": ("", "r = next({use:way} for _ in (0,))"),
    "generator in list": ("", "r = list({use:way} for _ in (0,))[0]"),
    "sum of generator": ("", "r = sum(1 for _ in (0,) if ({use:way}, 1))"),
    "any": ("", "r = any({use:way} is None for _ in (0,))"),
    "dict comprehension": ("", "r = {{0: {use:way} for _ in (0,)}}[0]"),
    "map": ("", "r = list(map(lambda _: {use:way}, (0,)))[0]"),
    "map of items": ("", "r = list(map(lambda t: {use:t}, [{way}]))[0]"),
    "for over list": ("", "for t in [{way}]:\n    r = {use:t}"),
    "filter": ("", "r = list(filter(lambda _: ({use:way}, True)[1], (0,)))[0]"),
    "sorted key": ("", "r = sorted([1], key=lambda _: str({use:way}))"),
    "min key": ("", "r = min([1, 2], key=lambda _: str({use:way}))"),
    "reduce": ("", "r = functools.reduce(lambda a, b: {use:way}, [0, 1])"),
    "walrus": ("", "if (t := {way}) is not None or True:\n    r = {use:t}"),
    "match": ("", "match ({way}, 1):\n    case (t, 1):\n        r = {use:t}"),
    "try finally": ("", "try:\n    pass\nfinally:\n    r = {use:way}"),
    "except": ("", "try:\n    raise KeyError(i)\nexcept KeyError:\n    r = {use:way}"),
    "except in helper": ("def fails(i):\n    raise KeyError(i)\n", "try:\n    fails(i)\nexcept KeyError:\n    r = {use:way}"),
    "else": ("", "for _ in (0,):\n    pass\nelse:\n    r = {use:way}"),
    "while": ("", "n = 1\nwhile n:\n    n -= 1\n    r = {use:way}"),
    "conditional": ("", "r = {use:way} if i >= 0 else None"),
    "and": ("", "r = i >= 0 and {use:way}"),
    "f-string": ("", "r = f'{{({use:way})}}'"),
    "with": ("@contextlib.contextmanager\ndef keeping(t):\n    yield t\n", "with keeping({way}) as t:\n    r = {use:t}"),
    "on exit": ("@contextlib.contextmanager\ndef leaving(t, i):\n    try:\n        yield 1\n    finally:\n        {use:t}\n", "with leaving({way}, i) as r:\n    pass"),
    "ExitStack": ("", "r = 0\nwith contextlib.ExitStack() as stack:\n    stack.callback(lambda: {use:way})"),
    "generator function": ("def gen(t, i):\n    yield {use:t}\n", "r = next(gen({way}, i))"),
    "generator function in for": ("def gen(t, i):\n    yield {use:t}\n", "for r in gen({way}, i):\n    pass"),
    "yield from": ("def gen(t, i):\n    yield {use:t}\ndef outer(t, i):\n    yield from gen(t, i)\n", "r = list(outer({way}, i))[0]"),
    "decorated": ("def logged(f):\n    @functools.wraps(f)\n    def wrapper(*args, **kwargs):\n        return f(*args, **kwargs)\n    return wrapper\n@logged\ndef helper(t, i):\n    return {use:t}\n", "r = helper({way}, i)"),
    "decorated by class": ("class Logged:\n    def __init__(self, f):\n        self.f = f\n    def __call__(self, *args):\n        return self.f(*args)\n@Logged\ndef helper(t, i):\n    return {use:t}\n", "r = helper({way}, i)"),
    "partial": ("def helper(t, i):\n    return {use:t}\n", "r = functools.partial(helper, {way})(i)"),
    "singledispatch": ("@functools.singledispatch\ndef helper(i, t):\n    return {use:t}\n", "r = helper(i, {way})"),
    "registered": ("@functools.singledispatch\ndef helper(i, t):\n    return 0\n@helper.register\ndef _(i: int, t):\n    return {use:t}\n", "r = helper(i, {way})"),
    "object": ("class Op:\n    def __init__(self, t, i):\n        self.r = {use:t}\n", "r = Op({way}, i).r"),
    "object's method": ("class Op:\n    def __init__(self, t):\n        self.t = t\n    def do(self, i):\n        t = self.t\n        return {use:t}\n", "r = Op({way}).do(i)"),
    "object's property": ("class Op:\n    def __init__(self, t, i):\n        self.t, self.i = t, i\n    @property\n    def r(self):\n        t, i = self.t, self.i\n        return {use:t}\n", "r = Op({way}, i).r"),
    "object's operator": ("class Op:\n    def __init__(self, t):\n        self.t = t\n    def __add__(self, i):\n        t = self.t\n        return {use:t}\n", "r = Op({way}) + i"),
    "object's item": ("class Op:\n    def __init__(self, t):\n        self.t = t\n    def __getitem__(self, i):\n        t = self.t\n        return {use:t}\n", "r = Op({way})[i]"),
    "object's call": ("class Op:\n    def __init__(self, t):\n        self.t = t\n    def __call__(self, i):\n        t = self.t\n        return {use:t}\n", "r = Op({way})(i)"),
    "object's with": ("class Op:\n    def __init__(self, t, i):\n        self.t, self.i = t, i\n    def __enter__(self):\n        t, i = self.t, self.i\n        return {use:t}\n    def __exit__(self, *args):\n        pass\n", "with Op({way}, i) as r:\n    pass"),
    "object's for": ("class Op:\n    def __init__(self, t, i):\n        self.t, self.i = t, i\n    def __iter__(self):\n        t, i = self.t, self.i\n        yield {use:t}\n", "for r in Op({way}, i):\n    pass"),
    "object's str": ("class Op:\n    def __init__(self, t, i):\n        self.t, self.i = t, i\n    def __str__(self):\n        t, i = self.t, self.i\n        return str({use:t})\n", "r = str(Op({way}, i))"),
    "object's comparison": ("class Op:\n    def __init__(self, t):\n        self.t = t\n    def __lt__(self, i):\n        t = self.t\n        return {use:t}\n", "r = Op({way}) < i"),
    "object's bool": ("class Op:\n    def __init__(self, t, i):\n        self.t, self.i = t, i\n    def __bool__(self):\n        t, i = self.t, self.i\n        {use:t}\n        return True\n", "r = 1 if Op({way}, i) else 0"),
    "object's contains": ("class Op:\n    def __init__(self, t):\n        self.t = t\n    def __contains__(self, i):\n        t = self.t\n        {use:t}\n        return True\n", "r = i in Op({way})"),
    "dataclass": ("@dataclasses.dataclass\nclass Op:\n    t: object\n    i: int\n    def __post_init__(self):\n        t, i = self.t, self.i\n        self.r = {use:t}\n", "r = Op({way}, i).r"),
    "super": ("class Base:\n    def do(self, t, i):\n        return {use:t}\nclass Op(Base):\n    def do(self, t, i):\n        return super().do(t, i)\n", "r = Op().do({way}, i)"),
    "inherited": ("class Base:\n    def do(self, t, i):\n        return {use:t}\nclass Op(Base):\n    pass\n", "r = Op().do({way}, i)"),
    "template method": ("class Base:\n    def run(self, t, i):\n        return self.do(t, i)\nclass Op(Base):\n    def do(self, t, i):\n        return {use:t}\n", "r = Op().run({way}, i)"),
    "classmethod": ("class Op:\n    @classmethod\n    def do(cls, t, i):\n        return {use:t}\n", "r = Op.do({way}, i)"),
    "staticmethod": ("class Op:\n    @staticmethod\n    def do(t, i):\n        return {use:t}\n", "r = Op().do({way}, i)"),
    "dispatch table": ("def helper(t, i):\n    return {use:t}\nTABLE = {{'do': helper}}\n", "r = TABLE['do']({way}, i)"),
    "dispatch by name": ("class Op:\n    def do_it(self, t, i):\n        return {use:t}\n", "r = getattr(Op(), 'do_' + 'it')({way}, i)"),
    "callback": ("def helper(t, i):\n    return {use:t}\ndef run(f, *args):\n    return f(*args)\n", "r = run(helper, {way}, i)"),
    "recursion": ("def helper(t, i, n=2):\n    return {use:t} if n == 0 else helper(t, i, n - 1)\n", "r = helper({way}, i)"),
    "reduce with helper": ("def helper(t, i):\n    {use:t}\n    return t\n", "functools.reduce(helper, [i], {way})\nr = 0"),
    "starmap": ("def helper(t, i):\n    return {use:t}\n", "r = list(itertools.starmap(helper, [({way}, i)]))[0]"),
    "retry": ("def retry(f, n=2):\n    def wrapper(*args):\n        for _ in range(n):\n            try:\n                return f(*args)\n            except ZeroDivisionError:\n                pass\n    return wrapper\n@retry\ndef helper(t, i):\n    return {use:t}\n", "r = helper({way}, i)"),
    "eval": ("", 't = {way}\nr = eval("{use:t}")'),
    "exec": ("", "out = {{}}\nexec(\"def g(t, i):\\n    return {use:t}\", globals(), out)\nr = out['g']({way}, i)"),
    "coroutine": ("async def helper(t, i):\n    return {use:t}\ndef drive(co):\n    try:\n        co.send(None)\n    except StopIteration as stop:\n        return stop.value\n", "r = drive(helper({way}, i))"),
    "thread pool": ("import concurrent.futures\n", "t = {way}\nwith concurrent.futures.ThreadPoolExecutor(1) as pool:\n    r = pool.submit(lambda: {use:t}).result()"),
    "copy_context": ("import contextvars\n", "r = contextvars.copy_context().run(lambda: {use:way})"),
}  # fmt: skip

# Ways out of what following code can show: the code is made at run time, or the whole program is looked up by name.
DYNAMIC: Final = frozenset({"eval", "exec"})

CONDITIONS: Final[dict[str, str]] = {
    "always": "True", "every third": "i % 3 == 0", "beyond the 20th": "i > 20", "item 0": "i == 0",
    "the last": "i == LAST", "one in the middle": "i == 31", "by remainder of text": "str(i).endswith('7')",
}  # fmt: skip

ENTRIES: Final[dict[str, tuple[str, str]]] = {
    "function": ("", "f"),
    "lambda": ("g = lambda i: f(i)\n", "g"),
    "method": ("class Entry:\n    def go(self, i):\n        return f(i)\nENTRY = Entry()\n", "ENTRY.go"),
    "callable": ("class Entry:\n    def __call__(self, i):\n        return f(i)\nENTRY = Entry()\n", "ENTRY"),
    "partial": ("def g(k, i):\n    return f(i)\nENTRY = functools.partial(g, 1)\n", "ENTRY"),
    "static": ("class Entry:\n    @staticmethod\n    def go(i):\n        return f(i)\n", "Entry.go"),
    "classmethod": ("class Entry:\n    @classmethod\n    def go(cls, i):\n        return f(i)\n", "Entry.go"),
    "decorated": ("def traced(f):\n    @functools.wraps(f)\n    def wrapper(*args):\n        return f(*args)\n    return wrapper\nENTRY = traced(f)\n", "ENTRY"),
    "closure": ("def making():\n    k = 1\n    def g(i):\n        return f(i + k - 1)\n    return g\nENTRY = making()\n", "ENTRY"),
    "cached": ("ENTRY = functools.lru_cache(f)\n", "ENTRY"),
}  # fmt: skip

_IMPORTS: Final = (
    "import collections, contextlib, contextvars, copy, dataclasses, functools, importlib, itertools, operator, sys, "
    "types, weakref\n"
)


class _Use(dict[str, str]):
    """What ``{use:t}`` and ``{way}`` in a template become."""


@dataclass(frozen=True)
class Program:
    """One program, by the names of what it consists of; see the tables."""

    kind: str
    ways: tuple[str, ...] = ()
    use: str = "plainly"
    condition: str = "always"
    entry: str = "function"
    in_helper_module: bool = False
    is_shuffled: bool = False

    def __str__(self) -> str:
        """Spell all parts, to be found again."""
        place = " (elsewhere)" if self.in_helper_module else ""
        return f"{self.kind}{place} | {' > '.join(self.ways) or '-'} | {self.use} | {self.condition} | {self.entry}"

    @property
    def is_read_only(self) -> bool:
        """Whether it changes nothing, so that it may go parallel."""
        return self.kind in READ_ONLY

    @property
    def is_dynamic(self) -> bool:
        """Whether a part of its code, or the state, is found at run time only."""
        return bool(DYNAMIC & {self.use, *self.ways})

    def sources(self, name: str, n_items: int, n_work: int) -> dict[str, str]:
        """Write the source of its modules, by module name."""
        kind, helper = KINDS[self.kind], f"{name}_h"
        setup = kind.setup.replace("{{", "{").replace("}}", "}")
        state_home = f"{_IMPORTS}{setup}\nSTATE = {kind.make.replace('{{', '{').replace('}}', '}')}\n"
        module = helper if self.in_helper_module else name
        way, body = "STATE", ""
        if self.in_helper_module:
            body = f"from {helper} import *\nimport {helper}\n"
            way = f"{helper}.STATE"
        for k, step in enumerate(self.ways):
            text, to = WAYS[step]
            body += text.format(p=way, k=k, m=name)
            way = to.format(p=way, k=k, m=name)
        before, code = USES[self.use]

        def fill(template: str) -> str:
            out = template.replace("{use:way}", kind.use.format(s=way, i="i"))
            out = out.replace("{use:t}", kind.use.format(s="t", i="i")).replace("{way}", way)
            return out.replace("{{", "{").replace("}}", "}") if template is not out else out

        lines = fill(code).replace("\n", "\n        ")
        entry, target = ENTRIES[self.entry]
        peek = kind.peek.format(s=f"{helper}.STATE" if self.in_helper_module else "STATE", i="i")
        if self.in_helper_module:
            import re  # noqa: PLC0415 - here only

            peek = re.sub(r"(?<![\w.])(TOTAL|NUMBER|Meta|Owner)(?!\w)", rf"{helper}.\1", peek)
        own = (
            f"{body}LAST = {n_items - 1}\n{fill(before)}\n"
            f"def f(i):\n    r = None\n    sum(range({n_work}))\n    if {CONDITIONS[self.condition]}:\n        {lines}\n"
            f"    return i, r\n{entry}ENTRY_POINT = {target}\ndef peek():\n    return {peek}\n"
        )
        if self.in_helper_module:
            return {helper: state_home, name: _IMPORTS + own}
        assert module == name
        return {name: state_home + own}


def programs() -> st.SearchStrategy[Program]:
    """Return the strategy of all programs."""
    return st.builds(
        Program,
        kind=st.sampled_from(sorted(KINDS)),
        ways=st.lists(st.sampled_from(sorted(WAYS)), max_size=3).map(tuple),
        use=st.sampled_from(sorted(USES)),
        condition=st.sampled_from(sorted(CONDITIONS)),
        entry=st.sampled_from(sorted(ENTRIES)),
        in_helper_module=st.booleans(),
    )


def draw(rng: random.Random) -> Program:
    """Draw a program as the strategy does, quickly."""
    n_ways = rng.choice((0, 1, 1, 2, 2, 3))
    return Program(
        kind=rng.choice(sorted(KINDS)),
        ways=tuple(rng.choice(sorted(WAYS)) for _ in range(n_ways)),
        use=rng.choice(sorted(USES)) if rng.random() < 0.7 else "plainly",
        condition=rng.choice(sorted(CONDITIONS)),
        entry=rng.choice(sorted(ENTRIES)) if rng.random() < 0.4 else "function",
        in_helper_module=rng.random() < 0.25,
    )


@dataclass(frozen=True)
class Mapping:
    """How a program is mapped."""

    how: str = "map"
    n_jobs: int | None = None
    start_method: str | None = None
    with_thread: bool = False

    def __str__(self) -> str:
        """Spell it as a call would."""
        thread = " beside a thread" if self.with_thread else ""
        return f"{self.how}(n_jobs={self.n_jobs}, start_method={self.start_method}){thread}"


def _start_methods() -> tuple[str | None, ...]:
    known: list[str | None] = [None, None, None, "fork"]
    try:
        amorsize.parallel(len, start_method="forkserver")
    except (ValueError, TypeError):
        pass
    else:
        known.append("forkserver")
    return tuple(known)


def draw_mapping(rng: random.Random, *, share_of_loky: float = 0.1) -> Mapping:
    """Draw how to map: mostly with default options, and mostly without fresh interpreters, which take longer."""
    with_thread = rng.random() < share_of_loky
    start_method = rng.choice(_start_methods())
    if rng.random() < share_of_loky:
        start_method = "loky"
    return Mapping(
        how=rng.choice(("map", "map", "map", "imap", "starmap")),
        n_jobs=rng.choice((None, None, 2)),
        start_method=start_method,
        with_thread=with_thread,
    )


class Outcome(NamedTuple):
    """What became of one program: ``"equal"``, ``"said"`` (differs, with a warning), ``"silent"`` or ``"broken"``."""

    verdict: str
    detail: str
    backend: str


class _CheapBook(_host.CostBook):
    """Costs with which any map of some milliseconds goes parallel, whatever earlier ones have taken."""

    def __init__(self) -> None:
        super().__init__()
        self.known = {
            name: dataclasses.replace(
                known, start_s=1e-5, start_each_s=1e-5, batch_overhead_s=1e-6, item_overhead_s=1e-7, efficiency=1.0
            )
            for name, known in self.known.items()
        }

    def learn(self, backend: str, **seen: float) -> None: ...

    def renew(self, backend: str, **seen: float) -> None: ...

    def miss(self, backend: str, seconds: float) -> None: ...


@contextlib.contextmanager
def cheap_workers() -> Iterator[None]:
    """Let workers cost next to nothing, so that small programs go parallel wherever they may."""
    book = _host.BOOK
    _host.BOOK = _CheapBook()  # type: ignore[misc]
    try:
        yield
    finally:
        _host.BOOK = book  # type: ignore[misc]


@contextlib.contextmanager
def thread_alive() -> Iterator[None]:
    """Be a program in which nothing may be forked."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


_numbers = itertools.count()


class Bench:
    """Runs programs in modules of a folder of its own."""

    def __init__(self, folder: Path, *, n_items: int = 48, n_work: int = 10_000) -> None:
        self.folder = folder
        self.n_items = n_items
        self.n_work = n_work
        sys.path.insert(0, str(folder))

    def close(self) -> None:
        """Take the folder off the path."""
        sys.path.remove(str(self.folder))

    def load(self, program: Program, name: str) -> Any:
        """Write and import a program's modules."""
        sources = program.sources(name, self.n_items, self.n_work)
        for module, text in sources.items():
            (self.folder / f"{module}.py").write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def forget(self, name: str) -> None:
        """Remove a program's modules, and close what they have opened, those that could not be imported included."""
        opened = sys.__dict__.setdefault("_opened_by_programs", [])
        while opened:
            opened.pop().close()
        for module in (name, f"{name}_h"):
            sys.modules.pop(module, None)
            for path in (self.folder / f"{module}.py", *self.folder.glob(f"__pycache__/{module}.*")):
                path.unlink(missing_ok=True)

    def run(self, program: Program, mapping: Mapping) -> Outcome:
        """Run a program's loop and its map, and compare."""
        # Names of one length: some state is the source itself.
        number = next(_numbers)
        one, two = f"prog_a{number:07}", f"prog_b{number:07}"
        try:
            with _quiet():
                try:
                    module = self.load(program, one)
                except Exception as error:  # noqa: BLE001 - the parts do not fit together
                    return Outcome("unusable", repr(error), "")
                expected = self._loop(module)
            if isinstance(expected, str):
                return Outcome("unusable", expected, "")
            got, said, backend = self._map(self.load(program, two), mapping)
        finally:
            self.forget(one)
            self.forget(two)
        if isinstance(got, str):
            # Whoever orders a fork is told what is shared: a file may be read to its end sooner than by the loop.
            return Outcome("said" if said and mapping.start_method == "fork" else "broken", got, backend)
        if _text(expected, one) == _text(got, two):
            return Outcome("equal", "; ".join(said), backend)
        detail = _difference(_text(expected, one), _text(got, two))
        return Outcome("said" if said else "silent", detail, backend)

    def _items(self) -> list[int]:
        return list(range(self.n_items))

    def _loop(self, module: Any) -> Any:
        _seed()
        try:
            results = [module.ENTRY_POINT(i) for i in self._items()]
            return results, module.peek()
        except Exception as error:  # noqa: BLE001 - the parts do not fit together
            return f"{type(error).__name__}: {error}"

    def _map(self, module: Any, mapping: Mapping) -> tuple[Any, list[str], str]:
        _seed()
        options = {"n_jobs": mapping.n_jobs, "start_method": mapping.start_method}
        work = amorsize.parallel(module.ENTRY_POINT, **options)
        said: list[str] = []
        beside = thread_alive if mapping.with_thread else contextlib.nullcontext
        try:
            with warnings.catch_warnings(record=True) as caught, beside():
                warnings.simplefilter("always")
                if mapping.how == "imap":
                    results = list(work.imap(self._items()))
                elif mapping.how == "starmap":
                    results = work.starmap([(i,) for i in self._items()])
                else:
                    results = work.map(self._items())
            said = [str(w.message) for w in caught if "deprecated" not in str(w.message).lower()]
            backend = work.last_plan.backend if work.last_plan else ""
            return (results, module.peek()), said, backend
        except Exception as error:  # noqa: BLE001 - it is the outcome
            return "".join(traceback.format_exception(error)[-4:]), said, ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _seed() -> None:
    random.seed(1)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(1)


def _text(value: Any, name: str) -> str:
    return repr(value).replace(name, "prog")


def _difference(expected: str, got: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), min(len(expected), len(got)))
    begin = max(0, at - 20)
    return f"expected ...{expected[begin : at + 40]} got ...{got[begin : at + 40]}"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command


def run_many(
    n: int, seed: int, *, share_of_loky: float = 0.1, most_s: float = 1e9, report: Callable[[str], None] = _say
) -> collections.Counter[str]:
    """Run *n* programs drawn from *seed*, or as many as *most_s* seconds allow; report what is wrong as it is found."""
    rng = random.Random(seed)
    counts: collections.Counter[str] = collections.Counter()
    silent: collections.Counter[str] = collections.Counter()
    until = time.monotonic() + most_s
    with tempfile.TemporaryDirectory() as folder, cheap_workers():
        bench = Bench(Path(folder))
        try:
            while counts["programs"] < n and time.monotonic() < until:
                program, mapping = draw(rng), draw_mapping(rng, share_of_loky=share_of_loky)
                outcome = bench.run(program, mapping)
                if outcome.verdict == "unusable":
                    counts["unusable"] += 1
                    continue
                counts["programs"] += 1
                counts[outcome.verdict] += 1
                what = "reader" if program.is_read_only else "changer"
                counts[f"{what} on {outcome.backend or 'nothing'}"] += 1
                if outcome.verdict in {"silent", "broken"}:
                    silent[f"kind {program.kind}"] += 1
                    silent[f"use {program.use}"] += 1
                    for way in program.ways:
                        silent[f"way {way}"] += 1
                    report(f"{outcome.verdict}: {program} || {mapping} -> {outcome.backend}: {outcome.detail}")
        finally:
            bench.close()
            amorsize.shutdown()
    for name, count in silent.most_common(15):
        report(f"    {count:4} x {name}")
    return counts


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1000, help="how many programs to run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loky", type=float, default=0.1, help="share of those that use fresh interpreters")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many seconds")
    options = parser.parse_args()
    began = time.monotonic()
    counts = run_many(options.n, options.seed, share_of_loky=options.loky, most_s=options.seconds, report=_say)
    _say(", ".join(f"{name}: {count}" for name, count in sorted(counts.items())))
    _say(f"{counts['programs']} programs, {counts['silent']} silent differences, {counts['broken']} broken, "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    return 1 if counts["silent"] or counts["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
