from __future__ import annotations

import functools
import math
import operator
import os
import subprocess
import sys
import textwrap
import types
from typing import Any

import numpy as np
import pytest

from amorsize._function import bare, code_hash, function_key
from tests.callables import Callable_, cached, plain

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


def decorated(func: Any) -> Any:
    """Wrap a function as a decorator does."""

    @functools.wraps(func)
    def wrapper(x: Any) -> Any:
        return func(x)

    return wrapper


def test_functions_under_one_decorator_have_keys_of_their_own() -> None:
    """All have the code of the wrapper, and nothing else in common."""
    keys = {function_key(decorated(func)) for func in (plain, cached.__wrapped__, function_from(BODY))}
    assert len(keys) == 3


def test_closures_over_other_kinds_of_values_have_keys_of_their_own() -> None:
    """What one makes of a number says nothing of what it makes of a list."""

    def made(value: Any) -> Any:
        return lambda x: [x, value]

    assert function_key(made(1)) == function_key(made(2))
    assert function_key(made(1)) != function_key(made([1]))
