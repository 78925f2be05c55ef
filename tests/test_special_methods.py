"""Code that runs without being named: each way to a special method is followed to what it changes."""

from __future__ import annotations

import textwrap
import types
from typing import Any

import pytest

from amorsize._analysis.effects import effects_of

# Programs in which f changes COUNT, through nothing but what the language calls by itself.
PROGRAMS = {
    "an operand that a comparison is given": """
        class Probe:
            def __eq__(self, other):
                other.count()
                return True
        class Counted:
            def count(self):
                COUNT.append(1)
        C = Counted()
        def f(x):
            return Probe() == C
        """,
    "an iterator of its own in a loop": """
        class Cursor:
            def __next__(self):
                COUNT.append(1)
                raise StopIteration
        class Bag:
            def __iter__(self):
                return Cursor()
        B = Bag()
        def f(x):
            for y in B:
                pass
        """,
    "an iterator of its own in a membership test": """
        class Cursor:
            def __next__(self):
                COUNT.append(1)
                raise StopIteration
        class Bag:
            def __iter__(self):
                return Cursor()
        B = Bag()
        def f(x):
            return x in B
        """,
    "an iterator of its own that is unpacked": """
        class Cursor:
            def __iter__(self):
                return self
            def __next__(self):
                COUNT.append(1)
                raise StopIteration
        class Bag:
            def __iter__(self):
                return Cursor()
        B = Bag()
        def f(x):
            [*rest] = B
            return rest
        """,
    "an iterator of its own in a list": """
        class Cursor:
            def __iter__(self):
                return self
            def __next__(self):
                COUNT.append(1)
                raise StopIteration
        class Bag:
            def __iter__(self):
                return Cursor()
        B = Bag()
        def f(x):
            return list(B)
        """,
    "what __await__ returned": """
        class Steps:
            def __iter__(self):
                return self
            def __next__(self):
                COUNT.append(1)
                raise StopIteration
        class Waited:
            def __await__(self):
                return Steps()
        W = Waited()
        async def wait():
            await W
        def f(x):
            try:
                wait().send(None)
            except StopIteration:
                pass
        """,
    "an exception that is raised as a class": """
        class Counted(Exception):
            def __init__(self):
                COUNT.append(1)
        def f(x):
            try:
                raise Counted
            except Counted:
                return x
        """,
    "a property that is deleted": """
        class Thing:
            @property
            def p(self):
                return 1
            @p.deleter
            def p(self):
                COUNT.append(1)
        T = Thing()
        def f(x):
            del T.p
        """,
    "a descriptor that is deleted": """
        class Descriptor:
            def __delete__(self, owner):
                COUNT.append(1)
        class Thing:
            d = Descriptor()
        def f(x):
            thing = Thing()
            del thing.d
        """,
    "an attribute that is deleted": """
        class Thing:
            def __delattr__(self, name):
                COUNT.append(1)
        def f(x):
            thing = Thing()
            del thing.q
        """,
    "a metaclass that is asked for what is not there": """
        class Meta(type):
            def __getattr__(cls, name):
                COUNT.append(1)
                return 1
        class Kind(metaclass=Meta):
            pass
        def f(x):
            return Kind.missing
        """,
    "a descriptor of a metaclass": """
        class Descriptor:
            def __get__(self, owner, kind=None):
                COUNT.append(1)
                return 1
        class Meta(type):
            d = Descriptor()
        class Kind(metaclass=Meta):
            pass
        def f(x):
            return Kind.d
        """,
    "a property of a module": """
        import types
        class Kind(types.ModuleType):
            @property
            def p(self):
                COUNT.append(1)
                return 1
        module = types.ModuleType("module")
        module.__class__ = Kind
        def f(x):
            return module.p
        """,
    "a property that reads in its own way": """
        class Counting(property):
            def __get__(self, owner, kind=None):
                COUNT.append(1)
                return 1
        class Thing:
            p = Counting(lambda self: 1)
        T = Thing()
        def f(x):
            return T.p
        """,
    "a class in brackets": """
        class Kind:
            def __class_getitem__(cls, key):
                COUNT.append(1)
                return 1
        def f(x):
            return Kind[x]
        """,
    "a special method of the class": """
        class Thing:
            @classmethod
            def __getitem__(cls, key):
                COUNT.append(1)
                return 1
        T = Thing()
        def f(x):
            return T[x]
        """,
    "an object that stands for a special method": """
        class Adder:
            def __call__(self, other):
                COUNT.append(1)
                return 1
        class Thing:
            __add__ = Adder()
        T = Thing()
        def f(x):
            return T + x
        """,
    "a key of a dictionary": """
        class Key:
            def __hash__(self):
                COUNT.append(1)
                return 1
        K = Key()
        def f(x):
            return {K: x}
        """,
    "an element of a set that is comprehended": """
        class Key:
            def __hash__(self):
                COUNT.append(1)
                return 1
        def f(x):
            return {Key() for _ in range(2)}
        """,
    "a length that a pattern asks for": """
        import collections.abc
        class Items(collections.abc.Sequence):
            def __getitem__(self, key):
                raise IndexError
            def __len__(self):
                COUNT.append(1)
                return 3
        I = Items()
        def f(x):
            match I:
                case [a, b]:
                    return a
        """,
    "divmod": """
        class Number:
            def __divmod__(self, other):
                COUNT.append(1)
                return 1
        N = Number()
        def f(x):
            return divmod(N, x)
        """,
    "a power of three arguments": """
        class Number:
            def __pow__(self, other, modulo=None):
                COUNT.append(1)
                return 1
        N = Number()
        def f(x):
            return pow(N, x, 3)
        """,
    "dir": """
        class Thing:
            def __dir__(self):
                COUNT.append(1)
                return []
        T = Thing()
        def f(x):
            return dir(T)
        """,
    "a key that a text asks for": """
        class Names(dict):
            def __missing__(self, key):
                COUNT.append(1)
                return 1
        N = Names()
        def f(x):
            return "%(name)s" % N
        """,
    "a name that is told to a descriptor": """
        class Descriptor:
            def __set_name__(self, owner, name):
                COUNT.append(1)
        def f(x):
            class Kind:
                d = Descriptor()
            return Kind
        """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_runs_without_being_named_is_followed(name: str) -> None:
    """Each call changes COUNT, and the look at the function says so without calling it."""
    module: dict[str, Any] = types.ModuleType("program").__dict__
    count = module["COUNT"] = []
    exec(textwrap.dedent(PROGRAMS[name]), module)  # noqa: S102 - the programs are those above
    effects = effects_of(module["f"])
    assert not count
    assert "COUNT" in effects.changes
    module["f"](1)
    assert count
