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
    "a context manager that a stack enters": """
        import contextlib
        class Manager:
            def __enter__(self):
                COUNT.append(1)
            def __exit__(self, *error):
                pass
        M = Manager()
        def f(x):
            with contextlib.ExitStack() as stack:
                stack.enter_context(M)
        """,
    "a context manager that a stack leaves": """
        import contextlib
        class Manager:
            def __exit__(self, *error):
                COUNT.append(1)
        M = Manager()
        def f(x):
            with contextlib.ExitStack() as stack:
                stack.push(M)
        """,
    "a context manager that a stack of the module enters": """
        import contextlib
        class Manager:
            def __enter__(self):
                COUNT.append(1)
            def __exit__(self, *error):
                pass
        STACK = contextlib.ExitStack()
        def f(x):
            STACK.enter_context(Manager())
            STACK.close()
        """,
    "what a context manager gives that a stack enters": """
        import contextlib
        class Given:
            def count(self):
                COUNT.append(1)
        G = Given()
        class Manager:
            def __enter__(self):
                return G
            def __exit__(self, *error):
                pass
        def f(x):
            with contextlib.ExitStack() as stack:
                stack.enter_context(Manager()).count()
        """,
    "a context manager that an asynchronous stack enters": """
        import contextlib
        class Manager:
            async def __aenter__(self):
                COUNT.append(1)
            async def __aexit__(self, *error):
                pass
        M = Manager()
        async def wait():
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(M)
        def f(x):
            try:
                wait().send(None)
            except StopIteration:
                pass
        """,
    "a context manager that decorates a function": """
        import contextlib
        class Manager(contextlib.ContextDecorator):
            def __enter__(self):
                COUNT.append(1)
            def __exit__(self, *error):
                pass
        @Manager()
        def f(x):
            return x
        """,
    "a resource that is closed": """
        import contextlib
        class Resource:
            def close(self):
                COUNT.append(1)
        R = Resource()
        def f(x):
            with contextlib.closing(R):
                pass
        """,
    "a resource that is closed and awaited": """
        import contextlib
        class Resource:
            async def aclose(self):
                COUNT.append(1)
        R = Resource()
        async def wait():
            async with contextlib.aclosing(R):
                pass
        def f(x):
            try:
                wait().send(None)
            except StopIteration:
                pass
        """,
    "an attribute that a text names": """
        class Thing:
            @property
            def p(self):
                COUNT.append(1)
                return 1
        T = Thing()
        def f(x):
            return "{} {.p}".format(x, T)
        """,
    "an attribute that is made when a text names it": """
        class Thing:
            def __getattr__(self, name):
                COUNT.append(1)
                return 1
        T = Thing()
        def f(x):
            return "{t.p}".format(t=T)
        """,
    "an attribute that a format in a text names": """
        class Thing:
            @property
            def p(self):
                COUNT.append(1)
                return 1
        T = Thing()
        def f(x):
            return "{0:{1.p}}".format(x, T)
        """,
    "an attribute of an element that a text names": """
        class Thing:
            @property
            def p(self):
                COUNT.append(1)
                return 1
        TABLE = {"k": [Thing()]}
        def f(x):
            return "{0[k][0].p}".format(TABLE)
        """,
    "an attribute that a text of a table names": """
        class Thing:
            @property
            def p(self):
                COUNT.append(1)
                return 1
        TEXTS, T = {1: "{t.p}"}, Thing()
        def f(x):
            return TEXTS[x].format_map({"t": T})
        """,
    "an attribute that a text names which is put together": """
        class Thing:
            @property
            def p(self):
                COUNT.append(1)
                return 1
        T = Thing()
        def f(x):
            return (str(x) + "{0.p}").format(T)
        """,
    "an attribute that a formatter reads": """
        import string
        class Thing:
            @property
            def p(self):
                COUNT.append(1)
                return 1
        FORMATTER, TABLE = string.Formatter(), {"t": Thing()}
        def f(x):
            return FORMATTER.vformat("{t.p}", (), TABLE)
        """,
    "a hook that an abstract class is asked for": """
        import abc
        class Kind(abc.ABC):
            @classmethod
            def __subclasshook__(cls, other):
                COUNT.append(1)
                return NotImplemented
        def f(x):
            return isinstance(x, (str, Kind))
        """,
    "a hook of a subclass of the abstract class": """
        import abc
        class Base(abc.ABC):
            pass
        class Kind(Base):
            @classmethod
            def __subclasshook__(cls, other):
                COUNT.append(1)
                return NotImplemented
        def f(x):
            return issubclass(type(x), Base | str)
        """,
    "a hook that a pattern asks for": """
        import abc
        class Kind(abc.ABC):
            @classmethod
            def __subclasshook__(cls, other):
                COUNT.append(1)
                return NotImplemented
        def f(x):
            match x:
                case Kind():
                    return 1
        """,
    "a hook that a function of one kind is chosen by": """
        import abc, functools
        class Kind(abc.ABC):
            @classmethod
            def __subclasshook__(cls, other):
                COUNT.append(1)
                return NotImplemented
        @functools.singledispatch
        def chosen(x):
            return x
        chosen.register(Kind, lambda x: x)
        COUNT.clear()
        def f(x):
            return chosen(x)
        """,
    "one class of several that are asked": """
        class Meta(type):
            def __instancecheck__(cls, other):
                COUNT.append(1)
                return True
        class Kind(metaclass=Meta):
            pass
        KINDS = (str, (Kind, bytes))
        def f(x):
            return isinstance(x, KINDS)
        """,
    "an object that is asked for all its attributes": """
        class Thing:
            def __getattribute__(self, name):
                COUNT.append(1)
                return object.__getattribute__(self, name)
        def f(x):
            return isinstance(Thing(), str)
        """,
    "an asynchronous iterator of its own": """
        class Cursor:
            async def __anext__(self):
                COUNT.append(1)
                raise StopAsyncIteration
        class Bag:
            def __aiter__(self):
                return Cursor()
        B = Bag()
        async def wait():
            async for y in B:
                pass
        def f(x):
            try:
                wait().send(None)
            except StopIteration:
                pass
        """,
    "what __anext__ returned": """
        class Step:
            def __await__(self):
                COUNT.append(1)
                return iter(())
        class Cursor:
            def __aiter__(self):
                return self
            def __anext__(self):
                if COUNT:
                    raise StopAsyncIteration
                return Step()
        C = Cursor()
        async def wait():
            return [y async for y in C]
        def f(x):
            try:
                wait().send(None)
            except StopIteration:
                pass
        """,
    "what __aexit__ returned": """
        class Step:
            def __await__(self):
                COUNT.append(1)
                return iter(())
        class Manager:
            async def __aenter__(self):
                return self
            def __aexit__(self, *error):
                return Step()
        M = Manager()
        async def wait():
            async with M:
                pass
        def f(x):
            try:
                wait().send(None)
            except StopIteration:
                pass
        """,
    "what a coroutine returns": """
        class Given:
            def count(self):
                COUNT.append(1)
        G = Given()
        async def given():
            return G
        async def wait():
            (await given()).count()
        def f(x):
            try:
                wait().send(None)
            except StopIteration:
                pass
        """,
    "what an asynchronous iterator gives": """
        class Given:
            def count(self):
                COUNT.append(1)
        G = Given()
        class Cursor:
            def __init__(self):
                self.n = 0
            async def __anext__(self):
                self.n += 1
                if self.n > 1:
                    raise StopAsyncIteration
                return G
        class Bag:
            def __aiter__(self):
                return Cursor()
        B = Bag()
        async def wait():
            async for y in B:
                y.count()
        def f(x):
            try:
                wait().send(None)
            except StopIteration:
                pass
        """,
    "what an asynchronous context manager gives": """
        class Given:
            def count(self):
                COUNT.append(1)
        G = Given()
        class Manager:
            async def __aenter__(self):
                return G
            async def __aexit__(self, *error):
                pass
        M = Manager()
        async def wait():
            async with M as given:
                given.count()
        def f(x):
            try:
                wait().send(None)
            except StopIteration:
                pass
        """,
    "what a generator returns that another delegates to": """
        class Given:
            def count(self):
                COUNT.append(1)
        G = Given()
        def given():
            yield 1
            return G
        def delegates():
            found = yield from given()
            found.count()
        def f(x):
            return list(delegates())
        """,
    "a metaclass that is asked for a method of its class": """
        class Meta(type):
            def __getattribute__(cls, name):
                COUNT.append(1)
                return type.__getattribute__(cls, name)
        class Kind(metaclass=Meta):
            @staticmethod
            def one():
                return 1
        def f(x):
            return Kind.one()
        """,
    "an object that says what its class is": """
        class Thing:
            @property
            def __class__(self):
                COUNT.append(1)
                return int
        T = Thing()
        def f(x):
            return isinstance(T, str)
        """,
    "a metaclass that is asked for a class method": """
        class Meta(type):
            def __getattribute__(cls, name):
                COUNT.append(1)
                return type.__getattribute__(cls, name)
        class Kind(metaclass=Meta):
            @classmethod
            def one(cls):
                return 1
        def f(x):
            return Kind.one()
        """,
    "what wrapt calls in place of a function": """
        import wrapt
        @wrapt.decorator
        def counted(wrapped, instance, args, kwargs):
            COUNT.append(1)
            return wrapped(*args, **kwargs)
        @counted
        def one(x):
            return x
        def f(x):
            return one(x)
        """,
    "what wrapt calls in place of a method": """
        import wrapt
        @wrapt.decorator
        def counted(wrapped, instance, args, kwargs):
            COUNT.append(1)
            return wrapped(*args, **kwargs)
        class Kind:
            @counted
            def one(self, x):
                return x
        K = Kind()
        def f(x):
            return K.one(x)
        """,
    "a method that a parser of the standard library calls": """
        from html.parser import HTMLParser
        class Parser(HTMLParser):
            def handle_starttag(self, tag, attrs):
                COUNT.append(tag)
        def f(x):
            Parser().feed("<a>")
        """,
    "a method that a visitor finds by name": """
        import ast
        class Visitor(ast.NodeVisitor):
            def visit_Name(self, node):
                COUNT.append(node)
        V = Visitor()
        def f(x):
            V.visit(ast.parse("a"))
        """,
    "a class that a library makes objects of": """
        import json
        class Encoder(json.JSONEncoder):
            def default(self, value):
                COUNT.append(value)
                return 1
        def f(x):
            return json.dumps({1j}, cls=Encoder)
        """,
    "an action of a parser of arguments": """
        import argparse
        class Action(argparse.Action):
            def __call__(self, parser, namespace, values, option=None):
                COUNT.append(values)
        PARSER = argparse.ArgumentParser()
        PARSER.add_argument("--a", action=Action)
        def f(x):
            PARSER.parse_args(["--a", "1"])
        """,
    "members that are inspected": """
        import inspect
        class Thing:
            @property
            def p(self):
                COUNT.append(1)
                return 1
        T = Thing()
        def f(x):
            return inspect.getmembers(T)
        """,
    "an equality that a comparison of tuples asks for": """
        class Value:
            def __eq__(self, other):
                COUNT.append(1)
                return True
        V, W = Value(), Value()
        def f(x):
            return (1, V) == (1, W)
        """,
    "a dataclass that is replaced": """
        import dataclasses
        def counts(self):
            COUNT.append(1)
        Kind = dataclasses.make_dataclass("Kind", [("v", int)], namespace={"__post_init__": counts})
        Kind.__module__ = "program"
        K = Kind(1)
        COUNT.clear()
        def f(x):
            return dataclasses.replace(K, v=x)
        """,
    "a rounding": """
        import math
        class Number:
            def __floor__(self):
                COUNT.append(1)
                return 1
        N = Number()
        def f(x):
            return math.floor(N)
        """,
    "a metaclass that makes a class": """
        class Meta(type):
            def __new__(meta, name, bases, names):
                COUNT.append(1)
                return super().__new__(meta, name, bases, names)
        def f(x):
            class Kind(metaclass=Meta):
                pass
        """,
    "a metaclass of the base that makes a class": """
        class Meta(type):
            def __new__(meta, name, bases, names):
                COUNT.append(1)
                return super().__new__(meta, name, bases, names)
        class Base(metaclass=Meta):
            pass
        COUNT.clear()
        def f(x):
            class Kind(Base):
                pass
        """,
    "a metaclass that makes the names of a class": """
        class Meta(type):
            @classmethod
            def __prepare__(meta, name, bases):
                COUNT.append(1)
                return {}
        def f(x):
            class Kind(metaclass=Meta):
                pass
        """,
    "names of a class that count": """
        class Names(dict):
            def __setitem__(self, key, value):
                COUNT.append(1)
                dict.__setitem__(self, key, value)
        class Meta(type):
            @classmethod
            def __prepare__(meta, name, bases):
                return Names()
            def __new__(meta, name, bases, names):
                return super().__new__(meta, name, bases, dict(names))
        class Base(metaclass=Meta):
            pass
        COUNT.clear()
        def f(x):
            class Kind(Base):
                pass
        """,
    "a metaclass that is called with the class made here": """
        class Meta(type):
            def __call__(cls):
                COUNT.append(1)
        def f(x):
            class Base(metaclass=Meta):
                pass
            class Kind(Base):
                pass
            Kind()
        """,
    "a metaclass that is asked for what is not in the class made here": """
        class Meta(type):
            def __getattr__(cls, name):
                COUNT.append(1)
                return 1
        def f(x):
            class Kind(metaclass=Meta):
                pass
            return Kind.missing
        """,
    "a keyword of a class statement": """
        class Base:
            def __init_subclass__(cls, into):
                into.append(1)
        def f(x):
            class Kind(Base, into=COUNT):
                pass
        """,
    "an object that stands for bases": """
        class Entry:
            def __mro_entries__(self, bases):
                COUNT.append(1)
                return ()
        E = Entry()
        def f(x):
            class Kind(E):
                pass
        """,
    "a name that is told to a descriptor of a class made by type": """
        class Descriptor:
            def __set_name__(self, owner, name):
                COUNT.append(1)
        def f(x):
            return type("Kind", (), {"d": Descriptor()})
        """,
    "a base of a class made by the types module": """
        import types
        class Base:
            def __init_subclass__(cls):
                COUNT.append(1)
        def f(x):
            return types.new_class("Kind", (Base,))
        """,
    "the key of a sort that is taken from its class": """
        def note(x):
            COUNT.append(x)
            return x
        def f(x):
            list.sort([3, 1, 2], key=note)
        """,
    "the key of a sort of an item that is taken from its class": """
        def note(x):
            COUNT.append(x)
            return x
        def f(x):
            list.sort([x] if isinstance(x, int) else x, key=note)
        """,
    "a property that the format of an item reads, taken from its class": """
        class Row:
            @property
            def v(self):
                COUNT.append(1)
        ROW = Row()
        def f(x):
            return str.format(str("{0.v}"), ROW)
        """,
    "the items that a method joins, taken from its class": """
        class Words:
            def __iter__(self):
                COUNT.append(1)
                return iter(["a"])
        WORDS = Words()
        def f(x):
            return str.join(str(x), WORDS)
        """,
    "what a method keeps, taken from its class": """
        class Tally:
            def count(self):
                COUNT.append(1)
        TALLY = Tally()
        def f(x):
            kept = []
            list.append(kept, TALLY)
            return kept[0].count()
        """,
    "a function by the method that calls it": """
        def bump():
            COUNT.append(1)
        def f(x):
            return bump.__call__()
        """,
    "a bound method by the method that calls it": """
        def f(x):
            return COUNT.append.__call__(x)
        """,
    "a function that is bound on the way": """
        def bump(tally):
            tally.append(1)
        def f(x):
            return bump.__get__(COUNT)()
        """,
    "a function of the function's own that is bound on the way": """
        def f(x):
            def bump(x):
                COUNT.append(x)
            return bump.__get__(x)()
        """,
    "the cause of an error": """
        class Error(Exception):
            def count(self):
                COUNT.append(1)
        def fail(x):
            try:
                raise Error(x)
            except Error as error:
                raise ValueError from error
        def f(x):
            try:
                fail(x)
            except ValueError as error:
                return error.__cause__.count()
        """,
    "the error that another was raised in": """
        class Tally:
            def count(self):
                COUNT.append(1)
        class Error(Exception):
            def __init__(self, tally):
                self.tally = tally
        TALLY = Tally()
        def f(x):
            try:
                try:
                    raise Error(TALLY)
                except Error:
                    int("a")
            except ValueError as error:
                return error.__context__.tally.count()
        """,
    "what a weak reference leads to": """
        import weakref
        class Tally:
            def count(self):
                COUNT.append(1)
        TALLY = Tally()
        def f(x):
            return weakref.ref(TALLY)().count()
        """,
    "a method that a methodcaller takes by an item": """
        import operator
        class Tally:
            def count(self):
                COUNT.append(1)
        TALLY = Tally()
        def f(x):
            return operator.methodcaller(str("count"))(TALLY)
        """,
    "a property that an attrgetter takes by an item": """
        import operator
        class Tally:
            @property
            def count(self):
                COUNT.append(1)
        TALLY = Tally()
        def f(x):
            return operator.attrgetter(str("count"))(TALLY)
        """,
    "a method that an attrgetter takes by an item": """
        import operator
        class Tally:
            def count(self):
                COUNT.append(1)
        TALLY = Tally()
        def f(x):
            return operator.attrgetter(str("count"))(TALLY)()
        """,
    "methods that an attrgetter of several names takes by an item": """
        import operator
        class Tally:
            def count(self):
                COUNT.append(1)
        TALLY = Tally()
        def f(x):
            return operator.attrgetter(*["count", "count"])(TALLY)[0]()
        """,
    "a method that is taken by an item from one of several objects": """
        class Tally:
            def count(self):
                COUNT.append(1)
        TALLIES = {1: Tally(), 2: Tally()}
        def f(x):
            return getattr(TALLIES[x], str("count"))()
        """,
    "a methodcaller of an item over several objects": """
        import operator
        class Tally:
            def count(self):
                COUNT.append(1)
        TALLIES = {1: Tally(), 2: Tally()}
        def f(x):
            return list(map(operator.methodcaller(str("count")), TALLIES.values()))
        """,
    "members of an Enum that is iterated": """
        import enum
        class Color(enum.Enum):
            A = 1
            def count(self):
                COUNT.append(1)
        def f(x):
            return [color.count() for color in Color]
        """,
    "members of an IntEnum that is unpacked": """
        import enum
        class Color(enum.IntEnum):
            A = 1
            B = 2
            def count(self):
                COUNT.append(1)
        def f(x):
            a, b = Color
            return b.count()
        """,
    "members of an Enum that a comprehension goes through in reverse": """
        import enum
        class Color(enum.Enum):
            A = 1
            def count(self):
                COUNT.append(1)
        def f(x):
            return {color.count(): color for color in reversed(Color)}
        """,
    "subclasses that a class has": """
        class Base:
            pass
        class One(Base):
            def count(self):
                COUNT.append(1)
        def f(x):
            return [kind().count() for kind in Base.__subclasses__()]
        """,
    "subclasses of subclasses, of an abstract class": """
        import abc
        class Base(abc.ABC):
            pass
        class One(Base):
            pass
        class Two(One):
            @staticmethod
            def count():
                COUNT.append(1)
        def f(x):
            return [kind.count() for one in Base.__subclasses__() for kind in one.__subclasses__()]
        """,
    "what a text that is an item writes": """
        class Row:
            def __str__(self):
                COUNT.append(1)
                return ""
        ROW = Row()
        def f(x):
            return str("%s") % ROW
        """,
    "what a text that is an item writes among others": """
        class Row:
            def __repr__(self):
                COUNT.append(1)
                return ""
        ROW = Row()
        def f(x):
            text = str("%s %r")
            text %= (x, ROW)
            return text
        """,
    "an item that a text asks for": """
        class Row:
            def __getitem__(self, name):
                COUNT.append(1)
                return name
        ROW = Row()
        def f(x):
            return str("%(a)s") % ROW
        """,
    "what bytes write": """
        class Row:
            def __bytes__(self):
                COUNT.append(1)
                return b""
        ROW = Row()
        def f(x):
            return b"%b" % ROW
        """,
    "how often a list is repeated": """
        class Times:
            def __index__(self):
                COUNT.append(1)
                return 2
        TIMES = Times()
        def f(x):
            return [x] * TIMES
        """,
    "how often bytes are repeated in place": """
        class Times:
            def __index__(self):
                COUNT.append(1)
                return 2
        TIMES = Times()
        def f(x):
            line = b"-"
            line *= TIMES
            return line
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


# Programs that use the same things, and change nothing: none of them may be taken for one that does.
HARMLESS = {
    "texts that are items, with fields, and repetitions": """
        class Row:
            def __init__(self, n):
                self.n = n
            def __str__(self):
                return f"{self.n}"
            def __index__(self):
                return self.n
            def __getitem__(self, name):
                return self.n
        ROW = Row(2)
        def f(x):
            return str("%s") % ROW + str("%(a)s") % ROW, [x] * ROW, x % 7, str("%s") % {"a": x}
        """,
    "members of an Enum, and subclasses": """
        import enum
        class Color(enum.Enum):
            RED, GREEN = 1, 2
            def __init__(self, n):
                self.n = n
            def shade(self, x):
                return self.n * x
        class Level(enum.IntEnum):
            LOW = 1
        class Base:
            def run(self, x):
                return x
        class Other(Base):
            def __init__(self):
                self.seen = []
            def run(self, x):
                self.seen.append(x)
                return self.seen
        def f(x):
            shades = [color.shade(x) for color in Color], {color: color.n for color in Color}
            return shades, sum(Level), [kind().run(x) for kind in Base.__subclasses__()]
        """,
    "getters and references of what is only read": """
        import operator, weakref
        class Point:
            def __init__(self, x):
                self.x = x
            def double(self):
                return 2 * self.x
        POINT = Point(1)
        def f(x):
            name = str("x")
            return (
                operator.attrgetter(name)(POINT),
                operator.methodcaller(str("double"))(POINT),
                operator.itemgetter(x)([1, 2, 3]),
                weakref.ref(POINT)().double(),
            )
        """,
    "methods that are taken from their classes": """
        ROWS = [[3, 1], [2]]
        def f(x):
            rows = list.copy(ROWS)
            list.append(rows, [x])
            list.sort(rows, key=len)
            return str.join(",", map(str.upper, "ab")), dict.get({"a": x}, "a"), str.format("{0}{1}", x, rows)
        """,
    "functions by the method that calls them": """
        def double(x):
            return 2 * x
        class Scale:
            def __init__(self, k):
                self.k = k
            def __call__(self, x):
                return self.k * x
        SCALE = Scale(2)
        def f(x):
            return double.__call__(x) + double.__get__(x)() + SCALE.__call__(x)
        """,
    "the cause of an error": """
        class Error(Exception):
            def __init__(self, n):
                super().__init__(n)
                self.n = n
        def f(x):
            try:
                try:
                    raise Error(x)
                except Error as error:
                    raise ValueError(x) from error
            except ValueError as error:
                return error.__cause__.n, str(error.__context__)
        """,
    "a stack of context managers": """
        import contextlib
        class Manager:
            def __init__(self, x):
                self.x, self.is_open = x, False
            def __enter__(self):
                self.is_open = True
                return self
            def __exit__(self, *error):
                self.is_open = False
        def f(x):
            with contextlib.ExitStack() as stack:
                return [stack.enter_context(Manager(x)).x for _ in range(2)]
        """,
    "a stream that is closed": """
        import contextlib, io
        class Resource:
            is_open = True
            def close(self):
                self.is_open = False
        def f(x):
            with contextlib.closing(io.StringIO("text")) as stream, contextlib.closing(Resource()):
                return stream.read()
        """,
    "attributes and items that a text names": """
        class Settings:
            @property
            def unit(self):
                return "m"
            def count(self):
                COUNT.append(1)
        SETTINGS = Settings()
        def f(x):
            return "{0.real} {s.unit} {d[k]} {1:{s.unit}<4}".format(3.0, "", s=SETTINGS, d={"k": x})
        """,
    "a text that is an item": """
        class Settings:
            unit = "m"
            def count(self):
                COUNT.append(1)
        SETTINGS = Settings()
        def f(x):
            return str(x).format(s=SETTINGS)
        """,
    "abstract classes of the standard library": """
        import collections.abc, enum, numbers, typing
        @typing.runtime_checkable
        class Closes(typing.Protocol):
            def close(self): ...
        class Colour(enum.Enum):
            RED = 1
        def f(x):
            return (
                isinstance([x], collections.abc.Sequence | str),
                isinstance(x, (numbers.Number, Colour)),
                isinstance(x, Closes),
                issubclass(type(x), collections.abc.Hashable),
            )
        """,
    "a hook that only looks": """
        import abc
        class Kind(abc.ABC):
            @classmethod
            def __subclasshook__(cls, other):
                return any("close" in base.__dict__ for base in other.__mro__) or NotImplemented
        def f(x):
            return isinstance(x, Kind)
        """,
    "an asynchronous iterator of its own": """
        class Cursor:
            def __init__(self):
                self.n = 0
            async def __anext__(self):
                self.n += 1
                if self.n > 3:
                    raise StopAsyncIteration
                return self.n
        class Bag:
            def __aiter__(self):
                return Cursor()
        B = Bag()
        async def wait():
            return [y async for y in B]
        def f(x):
            try:
                wait().send(None)
            except StopIteration as error:
                return error.value
        """,
    "a class made with a metaclass": """
        import abc
        class Meta(type):
            @classmethod
            def __prepare__(meta, name, bases):
                return {}
            def __new__(meta, name, bases, names):
                return super().__new__(meta, name, bases, {**names, "made": True})
        class Base(abc.ABC):
            @abc.abstractmethod
            def one(self): ...
        def f(x):
            class Kind(metaclass=Meta):
                pass
            class Other(Base):
                def one(self):
                    return 1
            return Kind.made, Other().one()
        """,
    "a parser of the standard library": """
        from html.parser import HTMLParser
        class Parser(HTMLParser):
            def __init__(self):
                super().__init__()
                self.tags = []
            def handle_starttag(self, tag, attrs):
                self.tags.append(tag)
        def f(x):
            parser = Parser()
            parser.feed("<a>")
            return parser.tags
        """,
    "a dataclass that is replaced": """
        import dataclasses
        Kind = dataclasses.make_dataclass("Kind", [("v", int)])
        Kind.__module__ = "program"
        def f(x):
            return dataclasses.replace(Kind(x), v=x + 1) == Kind(x)
        """,
    "a metaclass that only reads": """
        class Meta(type):
            def __getattribute__(cls, name):
                return type.__getattribute__(cls, name)
        class Kind(metaclass=Meta):
            @classmethod
            def one(cls):
                return 1
        def f(x):
            return Kind.one()
        """,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_runs_without_being_named_and_changes_nothing_is_proved(name: str) -> None:
    """No call changes anything, and the look at the function proves it."""
    module: dict[str, Any] = types.ModuleType("program").__dict__
    count = module["COUNT"] = []
    exec(textwrap.dedent(HARMLESS[name]), module)  # noqa: S102 - the programs are those above
    assert module["f"](1) is not None
    effects = effects_of(module["f"])
    assert not count
    assert effects.is_proved, effects


# Programs in which f changes what is kept in a class or in the dictionary of one, by a name that is not its own.
ALIASES = {
    "a class by its bases": """
        class Kind:
            log = []
        def f(x):
            Kind.__mro__[0].log.append(x)
        """,
    "a class by its dictionary": """
        class Kind:
            log = []
        def f(x):
            Kind.__dict__["log"].append(x)
        """,
    "objects that share their attributes": """
        class Kind:
            shared = {"n": 0}
            def __init__(self):
                self.__dict__ = self.shared
            def count(self):
                self.n += 1
        def f(x):
            Kind().count()
        """,
}


@pytest.mark.parametrize("name", ALIASES)
def test_what_is_changed_by_another_name_is_seen(name: str) -> None:
    """The look at the function says that it changes something outside."""
    module: dict[str, Any] = types.ModuleType("program").__dict__
    exec(textwrap.dedent(ALIASES[name]), module)  # noqa: S102 - the programs are those above
    assert effects_of(module["f"]).changes


# What f counts on: an object that a function handed to a library gives, or that lies deeper in what the library gets.
TALLIES = """
    import collections
    import functools
    import itertools
    import operator
    class Tally:
        def __init__(self):
            self.n = 0
        def count(self, *_):
            self.n += 1
            return self.n
    TALLIES = {"a": Tally(), "b": Tally()}
    GROUPS = {"g": [TALLIES["a"].count]}
    def pick(key):
        return TALLIES[key]
    """


@pytest.mark.parametrize(
    "expression",
    [
        "[t.count() for t in map(pick, 'ab')]",
        "[t.count() for t in map(lambda key: TALLIES[key], 'ab')]",
        "[t.count() for t in sorted(map(pick, 'ab'), key=id)]",
        "next(map(pick, 'ab')).count()",
        "next(filter(None, map(pick, 'ab'))).count()",
        "functools.reduce(lambda a, b: pick('a'), [1, 2]).count()",
        "list(map(operator.methodcaller('count', x), TALLIES.values()))",
        "[count(x) for count in itertools.chain.from_iterable(GROUPS.values())]",
        "dict.fromkeys('ab', TALLIES['a'])['b'].count()",
        "collections.ChainMap({}, TALLIES)['a'].count()",
    ],
)
def test_what_a_library_gives_back_is_followed(expression: str) -> None:
    """Found by fresh eyes: maps of such functions were parallel without a word, with other counts than the loop's."""
    module: dict[str, Any] = types.ModuleType("program").__dict__
    exec(textwrap.dedent(TALLIES), module)  # noqa: S102 - the program is the one above
    exec(f"def f(x):\n    return {expression}", module)  # noqa: S102 - the expressions are those above
    assert effects_of(module["f"]).changes
    module["f"](1)
    assert module["TALLIES"]["a"].n


@pytest.mark.parametrize(
    "expression",
    [
        "sum(map(abs, [x, 1]))",
        "list(map(lambda v: v + 1, sorted([x, 2])))",
        "[t.n for t in map(pick, 'ab')]",
        "functools.reduce(lambda a, b: a + b, [x, 2])",
        "list(itertools.chain.from_iterable([[x], [2]]))",
        "dict.fromkeys('ab', x)",
        "collections.ChainMap({}, {'a': x})['a']",
    ],
)
def test_what_a_library_gives_back_and_nobody_changes_is_proved(expression: str) -> None:
    """The same functions of libraries, over what is only read."""
    module: dict[str, Any] = types.ModuleType("program").__dict__
    exec(textwrap.dedent(TALLIES), module)  # noqa: S102 - the program is the one above
    exec(f"def f(x):\n    return {expression}", module)  # noqa: S102 - the expressions are those above
    effects = effects_of(module["f"])
    assert effects.is_proved, effects
