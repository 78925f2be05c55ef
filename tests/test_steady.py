"""The pickle of a function of ``__main__`` is kept as long as it would be the same, and no longer."""

from __future__ import annotations

import pickle
import sqlite3
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from amorsize._backend import _pickles, _registries, _steady

if TYPE_CHECKING:
    from collections.abc import Callable

CODE = """
import math
scale = 2
names = ("a", "b")
def helper(x):
    return x * scale
def outer(shift):
    def inner(x):
        return x + shift
    return inner
moved = outer(10)
def work(x, y=1, *, z=2):
    return helper(x) + moved(x) + len(str(x)) + math.floor(x) + y + z
"""


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand for the names of a notebook's cells."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(CODE, vars(module))  # noqa: S102 - as a notebook does
    monkeypatch.setattr(_steady, "_latest", None)
    return vars(module)


def test_the_pickle_of_a_function_that_holds_nothing_to_change_is_kept(main: dict[str, Any]) -> None:
    """One look at what its names stand for takes the place of cloudpickle."""
    data = _steady.dumps(main["work"])
    assert _steady.dumps(main["work"]) is data
    assert pickle.loads(data)(3) == main["work"](3)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "number": lambda names: names.update(scale=5),
    "equal number of another type": lambda names: names.update(scale=2.0),
    "helper": lambda names: exec("def helper(x): return -x", names),  # noqa: S102 - as a notebook does
    "code of the helper": lambda names: setattr(names["helper"], "__code__", (lambda x: 3 * x).__code__),
    "attribute of the helper": lambda names: setattr(names["helper"], "note", []),
    "defaults": lambda names: setattr(names["work"], "__defaults__", (7,)),
    "defaults by name": lambda names: names["work"].__kwdefaults__.update(z=7),
    "closure": lambda names: setattr(names["moved"].__closure__[0], "cell_contents", 11),
    "name of a builtin": lambda names: names.update(len=lambda text: 100),
    "module": lambda names: names.update(math=types.SimpleNamespace(floor=lambda x: 0)),
    "name of a file": lambda names: names.update(__file__="cell.py"),
    "annotation": lambda names: names["work"].__annotations__.update(x=int),
    "annotation of another name": lambda names: names["work"].__annotations__.update(y=int),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_is_set_anew_is_pickled_anew(main: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
    """Whatever the function names, holds or is made of."""
    data = _steady.dumps(main["work"])
    change(main)
    again = _steady.dumps(main["work"])
    assert again is not data
    assert pickle.loads(again)(3) == main["work"](3)


def test_a_name_that_is_gone_is_not_the_same_as_none(main: dict[str, Any]) -> None:
    """Nothing stands for what has not been given."""
    main["work"] = types.FunctionType((lambda x: missing is x).__code__, main, "work")  # type: ignore[name-defined]  # noqa: F821 - set below
    data = _steady.dumps(main["work"])
    main["missing"] = None
    assert _steady.dumps(main["work"]) is not data


HOLDS: dict[str, str] = {
    "list": "values = [1]\ndef work(x): return values",
    "list inside a tuple": "values = ([1],)\ndef work(x): return values",
    "object": "class Holder: pass\nvalue = Holder()\ndef work(x): return value",
    "class": "class Holder: pass\ndef work(x): return Holder",
    "function of another module": "from shutil import which\ndef work(x): return which",
    "method of an object": "append = [].append\ndef work(x): return append",
    "default": "def work(x, seen=[]): return seen",
    "number of a class of its own": "class Number(int): pass\nn = Number()\ndef work(x): return n",
    "module that workers do not have": (
        "import sys, types\nextra = sys.modules['extra_of_test'] = types.ModuleType('extra_of_test')\n"
        "exec('def f(): pass', vars(extra))\ndef work(x): return extra"
    ),
}


@pytest.mark.parametrize("code", HOLDS.values(), ids=list(HOLDS))
def test_of_a_function_that_holds_what_may_change_inside_nothing_is_kept(main: dict[str, Any], code: str) -> None:
    """A list, an object or a class may be another inside, and a module elsewhere may hold another function."""
    try:
        exec(code, main)  # noqa: S102 - as a notebook does
        assert _steady.dumps(main["work"]) is not _steady.dumps(main["work"])
    finally:
        sys.modules.pop("extra_of_test", None)


def test_a_module_that_is_to_go_by_value_from_now_on_is_pickled_anew(main: dict[str, Any]) -> None:
    """What cloudpickle has been told belongs to the pickle."""
    cloudpickle = _pickles.cloudpickle()
    module = types.ModuleType("registered_of_test")
    data = _steady.dumps(main["work"])
    sys.modules["registered_of_test"] = module
    try:
        cloudpickle.register_pickle_by_value(module)
        assert _steady.dumps(main["work"]) is not data
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules["registered_of_test"]


def test_a_module_that_takes_the_place_of_another_is_noticed(main: dict[str, Any]) -> None:
    """There are as many as before, and one that workers do not have was taken for one that they have."""
    exec("def work(x): return one_of_test", main)  # noqa: S102 - as a notebook does
    for name in ("one_of_test", "other_of_test"):
        module = types.ModuleType(name)
        exec("def f(): pass", vars(module))  # noqa: S102 - as above
        sys.modules[name] = main["one_of_test"] = module
        try:
            assert _steady.dumps(main["work"]) is not _steady.dumps(main["work"])
        finally:
            del sys.modules[name]


def test_a_long_text_is_not_kept(main: dict[str, Any]) -> None:
    """It would take its memory a second time."""
    main["scale"] = "x" * 100_000
    _steady.dumps(main["work"])
    assert _steady._latest is None


@pytest.mark.parametrize(("filename", "is_kept"), [(pytest.__file__, True), ("<cell>", False)])
def test_what_a_package_has_registered_with_sqlite_is_pickled_once(
    monkeypatch: pytest.MonkeyPatch, filename: str, *, is_kept: bool
) -> None:
    """IPython has a converter, which was pickled for each map of a kernel. A program's own may change inside."""
    converter = eval(compile("lambda data: len(data)", filename, "eval"))  # noqa: S307 - as a package does
    monkeypatch.setattr(_registries, "_WAYS", {"sqlite3": _registries._WAYS["sqlite3"]})  # of what other tests left
    sqlite3.register_converter("KIND_OF_TEST", converter)
    try:
        data = _registries.read(len)
        assert (_registries.read(len) is data) == is_kept
    finally:
        del sqlite3.converters["KIND_OF_TEST"]
