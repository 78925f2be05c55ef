from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
import operator
import pickle
import pydoc
import types
import typing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import amorsize
from amorsize import ParallelFunction, Plan, _bounds, _dry, _host
from amorsize._backend import _pickles
from tests import functions
from tests.functions import Counter, Doubled, combine, square

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CALLS: list[Any] = []

# The one that joblib uses, which brings its own before 1.6.
cloudpickle: Any = _pickles.cloudpickle()


@pytest.fixture(autouse=True)
def no_calls() -> None:
    """Forget what was called."""
    CALLS.clear()


@amorsize.parallel
def scale(x: int, /, factor: int = 2, *, shift: float = 0.5) -> float:
    """Scale and shift."""
    return x * factor + shift


@amorsize.parallel(n_jobs=1, sample_size=2)
def configured(x: int) -> int:
    """Be called with options."""
    return x + 1


def recorded(x: Any) -> Any:
    """Remember the call."""
    CALLS.append(x)
    return x


class Adder:
    """A callable object."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, x: int) -> int:
        """Add."""
        return x + self.n


def make_closure(n: int) -> Callable[[int], int]:
    """Return a function that holds *n*."""

    def closure(x: int) -> int:
        return x - n

    return closure


# -- what can be decorated -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "func",
    [
        scale.__wrapped__,
        lambda x: x * 3,
        make_closure(5),
        functools.partial(operator.mul, 4),
        functools.partial(scale.__wrapped__, factor=7),
        functools.partial(make_closure(1)),
        Adder(10),
        abs,
        math.sqrt,
        str,
        float,
        operator.neg,
        np.square,
        Adder(2).__call__,
        "abc".__mul__,
        functools.lru_cache(make_closure(3)),
        types.SimpleNamespace(f=lambda x: -x).f,
    ],
    ids=repr,
)
def test_anything_callable_can_be_decorated(func: Any) -> None:
    """Functions, lambdas, closures, partials, objects, builtins and types map like the comprehension."""
    decorated = amorsize.parallel(func)
    assert isinstance(decorated, ParallelFunction)
    assert decorated(4) == func(4)
    assert decorated.map(range(20)) == [func(x) for x in range(20)]
    assert decorated.__wrapped__ is func


def test_the_called_form_is_the_bare_one_with_options() -> None:
    """@parallel(...) decorates too, and its options hold."""
    assert configured(1) == 2
    assert configured.map([1, 2, 3]) == [2, 3, 4]
    assert configured.last_plan is not None
    assert configured.last_plan.limits.n_jobs == 1
    assert configured.last_plan.limits.sample_size == 2
    assert amorsize.parallel()(abs).map([-1]) == [1]
    assert amorsize.parallel(abs, n_jobs=1).map([-1]) == [1]


def test_methods_of_every_kind_are_bound() -> None:
    """Instance, class and static methods map with their object, through instances and through classes."""
    assert Counter(10).add(1) == 11
    assert Counter(10).add.map(range(3)) == [10, 11, 12]
    assert Counter.add(Counter(1), 2) == 3
    assert Counter.scaled(2) == 6
    assert Counter.scaled.map(range(3)) == [0, 3, 6]
    assert Counter(0).scaled.map(range(3)) == [0, 3, 6]
    assert Doubled.scaled.map(range(3)) == [0, 6, 12]
    assert Doubled(5).add.map(range(2)) == [5, 6]
    assert Counter.negated(3) == -3
    assert Counter.negated.map(range(3)) == [0, -1, -2]
    assert Counter(0).negated.map(range(3)) == [0, -1, -2]


def test_the_plain_call_is_unchanged() -> None:
    """Arguments of every kind, results and exceptions pass through."""
    assert scale(3) == 6.5
    assert scale(3, 3, shift=1) == 10
    with pytest.raises(TypeError, match="positional-only"):
        scale(x=1)
    with pytest.raises(ZeroDivisionError):
        amorsize.parallel(lambda x: 1 / x)(0)
    assert scale.last_plan is None or scale.last_plan.n_items is not None


# -- what tools see --------------------------------------------------------------------------------------------------


def test_tools_see_the_function() -> None:
    """Name, docstring, module, signature and annotations are those of the function."""
    plain = scale.__wrapped__
    assert (scale.__name__, scale.__qualname__, scale.__doc__) == ("scale", "scale", "Scale and shift.")
    assert scale.__module__ == __name__
    assert inspect.signature(scale) == inspect.signature(plain)
    assert str(inspect.signature(scale)) == "(x: 'int', /, factor: 'int' = 2, *, shift: 'float' = 0.5) -> 'float'"
    assert typing.get_type_hints(scale) == {"x": int, "factor": int, "shift": float, "return": float}
    assert scale.__defaults__ == (2,)
    assert scale.__kwdefaults__ == {"shift": 0.5}
    assert inspect.unwrap(scale) is plain
    assert inspect.isfunction(scale)
    assert inspect.getsource(scale) == inspect.getsource(plain)
    assert inspect.getdoc(scale) == "Scale and shift."
    assert callable(scale)


def test_help_shows_the_function() -> None:
    """help() names the function, its arguments and its docstring."""
    text = pydoc.plain(pydoc.render_doc(scale))
    assert "scale(x" in text
    assert "Scale and shift." in text


def test_tools_see_methods() -> None:
    """The signature of a bound method leaves self and cls out; inspect.getmembers and help work on the class."""
    assert list(inspect.signature(Counter(1).add).parameters) == ["x"]
    assert list(inspect.signature(Counter.scaled).parameters) == ["x"]
    assert list(inspect.signature(Counter.negated).parameters) == ["x"]
    assert Counter.add.__doc__ == "Add the base."
    assert Counter.add.__qualname__ == "Counter.add"
    assert "add" in dict(inspect.getmembers(Counter))
    assert "Add the base." in pydoc.plain(pydoc.render_doc(Counter))


@pytest.mark.parametrize("function", [scale, Counter(1).add, amorsize.parallel(Adder(1))])
def test_shells_offer_what_is_added(function: Any) -> None:
    """``dir`` has the methods and records beside the names of the function itself, and nothing private of ours."""
    added = {"aimap", "amap", "explain", "imap", "istarmap", "last_plan", "map", "plan", "profile", "starmap"}
    added.add("with_options")
    assert set(dir(function)) == {*dir(function.__wrapped__), *added}


def test_the_repr_says_what_it_is() -> None:
    """A decorated function can be told from a plain one when printed."""
    assert "amorsize" in repr(scale)
    assert "scale" in repr(scale)


def test_attributes_of_the_function_are_reached() -> None:
    """Setting and getting attributes goes to the function, as functools.wraps users expect."""

    @amorsize.parallel
    def marked(x: int) -> int:
        return x

    marked.tag = "mine"  # type: ignore[attr-defined]
    assert marked.tag == "mine"  # type: ignore[attr-defined]
    assert marked.__wrapped__.tag == "mine"


def test_a_decorated_function_equals_and_hashes() -> None:
    """It can be a key, and two wrappers of one function are equal."""
    assert {scale: 1}[scale] == 1
    assert scale == scale.with_options(n_jobs=1)


# -- pickling and copying --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", [pickle, cloudpickle])
@pytest.mark.parametrize("func", [scale, configured, square, Counter.negated, Counter.scaled, Doubled.scaled], ids=repr)
def test_an_importable_function_is_pickled_by_name(func: Any, package: Any) -> None:
    """What comes back is a decorated function over the very same function."""
    data = package.dumps(func)
    back = pickle.loads(data)
    assert isinstance(back, ParallelFunction)
    assert back(3) == func(3)
    assert back.map(range(4)) == func.map(range(4))
    assert len(data) < 200


def test_the_pickle_of_an_importable_function_is_the_function() -> None:
    """By name it is found again, not built anew."""
    assert pickle.loads(pickle.dumps(scale)) is scale
    assert copy.deepcopy([scale])[0].__wrapped__ is scale.__wrapped__


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_will_do(protocol: int) -> None:
    """Old pickle protocols work too."""
    assert pickle.loads(pickle.dumps(scale, protocol=protocol)) is scale


def test_a_bound_method_takes_its_object_along() -> None:
    """As a plain bound method does."""
    back = pickle.loads(pickle.dumps(Counter(10).add))
    assert back.map([1, 2]) == [11, 12]


def test_options_survive_pickling() -> None:
    """What with_options changed is still changed in the copy that comes back."""
    back = pickle.loads(pickle.dumps(scale.with_options(errors="return", n_jobs=1)))
    assert back.map([1, "x"])[0] == 2.5
    assert isinstance(back.map([1, None])[1], TypeError)


def test_lambdas_and_closures_survive_cloudpickle() -> None:
    """Where the undecorated function needs cloudpickle, so does the decorated one."""
    decorated = amorsize.parallel(make_closure(5), n_jobs=1)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(decorated)
    back = pickle.loads(cloudpickle.dumps(decorated))
    assert back.map([5, 6]) == [0, 1]
    back = pickle.loads(cloudpickle.dumps(amorsize.parallel(lambda x: x + 1)))
    assert back(1) == 2


def test_another_function_of_the_same_name_is_never_taken() -> None:
    """A pickle by name must lead back to the same function, or not be made."""

    def other(x: int) -> str:
        return f"other {x}"

    other.__name__ = other.__qualname__ = "scale"
    other.__module__ = __name__
    impostor = amorsize.parallel(other)
    back = pickle.loads(cloudpickle.dumps(impostor))
    assert back(1) == "other 1"
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(impostor)


def undecorated(x: int) -> int:
    """Stay plain under this name."""
    return x + 1


alias = amorsize.parallel(undecorated)


def test_a_function_decorated_under_another_name_survives() -> None:
    """The name leads to the plain function; the pickle must still give a decorated one."""
    back = pickle.loads(pickle.dumps(alias))
    assert isinstance(back, ParallelFunction)
    assert back.map([1, 2]) == [2, 3]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_are_the_same_function(duplicate: Any) -> None:
    """Both copy and deepcopy give a decorated function with the same function, options and last_plan."""
    back = duplicate(configured)
    assert isinstance(back, ParallelFunction)
    assert back.__wrapped__ is configured.__wrapped__
    assert back.map([1]) == [2]
    assert back.last_plan is not None
    assert back.last_plan.limits.n_jobs == 1


def test_the_deep_copy_of_a_bound_method_belongs_to_the_copied_object() -> None:
    """As a plain method's deep copy does; otherwise a copied object would work on the original's data."""
    holder = types.SimpleNamespace(counter=Counter(1))
    holder.add = holder.counter.add
    twin = copy.deepcopy(holder)
    twin.counter.base = 100
    assert twin.add(1) == 101
    assert holder.add(1) == 2


def test_a_plan_survives_pickling_and_copying() -> None:
    """Plans are records: they can be kept, sent and compared."""
    square.map(range(10))
    plan = square.last_plan
    assert plan is not None
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert copy.deepcopy(plan) == plan
    assert dataclasses.asdict(plan)["n_items"] == 10


# -- wrong orders ----------------------------------------------------------------------------------------------------


def test_classmethod_over_the_decorator_is_refused() -> None:
    """@parallel goes outermost; the other order is told by name, before an item runs."""

    class Wrong:
        @classmethod
        @amorsize.parallel
        def make(cls, x: int) -> int:
            CALLS.append(x)
            return x

    with pytest.raises(TypeError, match=r"make.*outermost.*@classmethod"):
        Wrong.make.map([1, 2])  # type: ignore[attr-defined]
    assert CALLS == []


def test_staticmethod_over_the_decorator_is_refused() -> None:
    """The same for @staticmethod."""

    class Wrong:
        @staticmethod
        @amorsize.parallel
        def make(x: int) -> int:
            CALLS.append(x)
            return x

    with pytest.raises(TypeError, match=r"make.*outermost.*@staticmethod"):
        Wrong.make.map([1, 2])
    assert CALLS == []


def test_decorating_twice_is_refused() -> None:
    """Options are changed with with_options."""
    with pytest.raises(TypeError, match=r"scale is decorated already.*with_options"):
        amorsize.parallel(scale)


# -- bad input -------------------------------------------------------------------------------------------------------


async def asynchronous(x: int) -> int:
    """Be awaited."""
    return x


async def asynchronous_generator(x: int) -> Any:
    """Be awaited often."""
    yield x


def generator(x: int) -> Iterator[int]:
    """Yield."""
    yield x


class AsyncCallable:
    """An object whose call is a coroutine."""

    async def __call__(self, x: int) -> int:
        """Be awaited."""
        return x


@pytest.mark.parametrize(
    ("func", "words"),
    [
        (3, "callable, not int: 3"),
        ("work", "callable, not str: 'work'"),
        ([len], "callable"),
        (asynchronous, "asynchronous is an async function"),
        (asynchronous_generator, "asynchronous_generator is an async function"),
        (functools.partial(asynchronous, 1), "async function"),
        (AsyncCallable(), "async function"),
        (generator, r"generator is a generator function.*list"),
        (functools.partial(generator), "generator function"),
        (staticmethod(generator), "generator function"),
        (classmethod(asynchronous), "async function"),
    ],
)
def test_what_cannot_be_mapped_is_refused_at_decoration(func: Any, words: str) -> None:
    """The error names the value and the way out, bare and called."""
    with pytest.raises(TypeError, match=words):
        amorsize.parallel(func)
    with pytest.raises(TypeError, match=words):
        amorsize.parallel(n_jobs=2)(func)


BAD_OPTIONS = [
    ({"n_jobs": 0}, ValueError, "n_jobs must not be 0"),
    ({"n_jobs": 2.0}, TypeError, r"n_jobs must be a whole number, not 2\.0"),
    ({"n_jobs": "2"}, TypeError, "n_jobs must be a whole number, not '2'"),
    ({"n_jobs": True}, TypeError, "n_jobs must be a whole number, not True"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1, not 0"),
    ({"batch_size": -3}, ValueError, "batch_size must be at least 1, not -3"),
    ({"batch_size": 1.5}, TypeError, r"batch_size must be a whole number, not 1\.5"),
    ({"batch_size": "auto"}, TypeError, "batch_size must be a whole number, not 'auto'"),
    ({"sample_size": 0}, ValueError, "sample_size must be at least 1, not 0"),
    ({"sample_size": None}, TypeError, "sample_size must be a whole number, not None"),
    ({"max_memory": 0}, ValueError, "max_memory must be at least 1, not 0"),
    ({"max_memory": "2 elephants"}, ValueError, "max_memory must be bytes .*'2GB'.*not '2 elephants'"),
    ({"max_memory": "50%"}, ValueError, "a share such as 0.5, not '50%'"),
    ({"max_memory": 1.5}, ValueError, r"a share such as 0.5, not 1\.5"),
    ({"max_memory": -0.5}, ValueError, r"a share such as 0.5, not -0\.5"),
    ({"max_memory": [1]}, TypeError, r"max_memory must be a whole number, not \[1\]"),
    ({"prefer": "process"}, ValueError, "prefer must be one of 'processes', 'threads' or left out, not 'process'"),
    ({"prefer": 1}, ValueError, "prefer must be one of .*not 1"),
    ({"prefer": ["threads"]}, ValueError, "prefer must be one of"),
    ({"start_method": "spawn"}, ValueError, "start_method must be one of 'fork', 'forkserver', 'loky'.*'spawn'"),
    ({"errors": "ignore"}, ValueError, "errors must be one of 'raise', 'return', 'skip' or left out, not 'ignore'"),
    ({"errors": None}, ValueError, "errors must be one of"),
    ({"retries": -1}, ValueError, "retries must be at least 0, not -1"),
    ({"retries": None}, TypeError, "retries must be a whole number, not None"),
    ({"timeout": 0}, ValueError, "timeout must be more than 0 seconds, not 0"),
    ({"timeout": -1}, ValueError, "timeout must be more than 0 seconds, not -1"),
    ({"timeout": math.nan}, ValueError, "timeout must be more than 0 seconds, not nan"),
    ({"timeout": "1s"}, TypeError, "timeout must be seconds or None, not '1s'"),
    ({"progress": "yes"}, TypeError, "progress must be .*not 'yes'"),
    ({"initializer": 3}, TypeError, "initializer must be callable or None, not 3"),
    ({"initargs": 3}, TypeError, "initargs must be a tuple of arguments, not 3"),
    ({"n_job": 2}, TypeError, r"unknown option 'n_job': did you mean n_jobs\?"),
    ({"chunksize": 2}, TypeError, r"unknown option 'chunksize': did you mean batch_size\?"),
    ({"frobnicate": 2}, TypeError, "unknown option 'frobnicate'; the options are .*n_jobs"),
    ({"prefer": "threads", "start_method": "fork"}, ValueError, "exclude each other"),
    ({"require": "sharedmem"}, TypeError, "unknown option 'require'"),
]


@pytest.mark.parametrize(("options", "kind", "words"), BAD_OPTIONS, ids=lambda value: str(value)[:40])
def test_bad_options_are_refused(options: dict[str, Any], kind: type[Exception], words: str) -> None:
    """At decoration, per call and in a plan: the value is named and no item runs."""
    with pytest.raises(kind, match=words):
        amorsize.parallel(**options)
    with pytest.raises(kind, match=words):
        amorsize.parallel(recorded, **options)
    with pytest.raises(kind, match=words):
        amorsize.parallel(recorded).with_options(**options)
    with pytest.raises(kind, match=words):
        amorsize.plan(recorded, [1, 2], **options)
    with pytest.raises(kind, match=words):
        amorsize.map(recorded, [1, 2], **options)
    for way in ("map", "starmap", "imap", "istarmap", "plan"):
        with pytest.raises(kind, match=words):
            getattr(amorsize.parallel(recorded), way)([1, 2], **options)
    assert CALLS == []


def test_options_that_exclude_each_other_are_refused_across_calls() -> None:
    """with_options checks against what was given before."""
    with pytest.raises(ValueError, match="exclude each other"):
        amorsize.parallel(recorded, prefer="threads").with_options(start_method="loky")


def test_numbers_of_numpy_are_numbers() -> None:
    """A whole number of any type will do."""
    assert amorsize.parallel(recorded, n_jobs=np.int64(1), sample_size=np.int32(3)).map([1]) == [1]


@pytest.mark.parametrize("value", [5, None, 2.5, len, np.array(3), object()], ids=repr)
def test_what_is_not_iterable_is_refused(value: Any) -> None:
    """The error says so and names the type, for every way to give data."""
    decorated = amorsize.parallel(recorded)
    for attempt in (decorated.map, decorated.starmap, decorated.plan, functools.partial(amorsize.plan, recorded)):
        with pytest.raises(TypeError, match=r"iterable|0-d"):
            attempt(value)
    with pytest.raises(TypeError, match=r"iterable|0-d"):
        decorated.map([1, 2], value)
    assert CALLS == []


def test_the_position_of_what_is_not_iterable_is_named() -> None:
    """With several arguments the error says which."""
    with pytest.raises(TypeError, match="argument 2 must be iterable, not int: 7"):
        combine.map([1], 7)


@pytest.mark.parametrize("kwargs", [[("a", 1)], 5, "x", {"a"}, [1]], ids=repr)
def test_kwargs_must_be_a_mapping(kwargs: Any) -> None:
    """The error names the value and shows what is wanted."""
    decorated = amorsize.parallel(recorded)
    for attempt in (decorated.map, decorated.starmap, decorated.plan):
        with pytest.raises(TypeError, match=r"kwargs must be a mapping"):
            attempt([1, 2], kwargs=kwargs)
    assert CALLS == []


def test_kwargs_must_have_names() -> None:
    """Keys that are no strings are named."""
    with pytest.raises(TypeError, match="kwargs must have strings for keys, not 1"):
        combine.map([1], kwargs={1: 2})


def test_a_map_needs_data() -> None:
    """map() without arguments says what is missing."""
    with pytest.raises(TypeError, match="square needs at least one iterable"):
        square.map()
    with pytest.raises(TypeError, match="square needs at least one iterable"):
        square.plan()


def test_bad_input_leaves_last_plan_alone() -> None:
    """A call that was refused did not happen."""
    decorated = amorsize.parallel(recorded)
    with pytest.raises(TypeError):
        decorated.map(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        decorated.map([1], kwargs=5)  # type: ignore[arg-type]
    assert decorated.last_plan is None


# -- plans -----------------------------------------------------------------------------------------------------------


def test_last_plan_is_none_before_the_first_call() -> None:
    """There is nothing to show yet."""
    decorated = amorsize.parallel(lambda x: x)
    assert decorated.last_plan is None
    decorated(1)
    assert decorated.last_plan is None
    decorated.plan([1, 2, 3])
    assert decorated.last_plan is None
    decorated.map([])
    plan = decorated.last_plan
    assert isinstance(plan, Plan)
    assert plan.reason is amorsize.Reason.EMPTY
    assert plan.n_items == 0
    assert plan.actual_s is not None


def test_last_plan_is_shared() -> None:
    """Bound methods share it with their function, and with_options with what it came from."""
    Counter(1).add.map(range(7))
    for view in (Counter(2).add, Counter.add, Counter(3).add.with_options(n_jobs=1), Doubled(1).add):
        assert view.last_plan is not None
        assert view.last_plan.n_items == 7
    Counter(5).add.with_options(n_jobs=1).map(range(8))
    assert Counter.add.last_plan is not None
    assert Counter.add.last_plan.n_items == 8
    Counter.scaled.map(range(9))
    assert Doubled.scaled.last_plan is not None
    assert Doubled.scaled.last_plan.n_items == 9
    scale.with_options(n_jobs=1).map(range(11))
    assert scale.last_plan is not None
    assert scale.last_plan.n_items == 11


def test_two_functions_do_not_share_their_last_plan() -> None:
    """Even with equal code."""
    one, two = amorsize.parallel(make_closure(1)), amorsize.parallel(make_closure(2))
    one.map([1, 2, 3])
    assert two.last_plan is None


def test_with_options_leaves_the_original_alone() -> None:
    """Options not named stay, and the function itself is not changed."""
    changed = configured.with_options(n_jobs=2).with_options(errors="skip")
    changed.map([])
    assert changed.last_plan is not None
    assert changed.last_plan.limits == amorsize.Limits(n_jobs=2, sample_size=2, errors="skip")
    configured.map([])
    assert configured.last_plan is not None
    assert configured.last_plan.limits == amorsize.Limits(n_jobs=1, sample_size=2)


def test_the_last_plan_replays() -> None:
    """What a call did can be decided again from its plan."""
    functions.slow.map(range(30))
    plan = functions.slow.last_plan
    assert plan is not None
    assert amorsize.decide(plan.profile, plan.host, plan.n_items, plan.limits) == plan
    assert plan.actual_s is not None


def test_a_plan_runs_no_more_than_the_sample() -> None:
    """
    A dry run executes sample_size items at most: the first of an iterator, of a sequence some from everywhere (S1, S8).

    Fewer on a machine so busy that 5 ms go by meanwhile.
    """
    plan = amorsize.plan(recorded, list(range(1000)), sample_size=3)
    assert len(CALLS) >= 1
    assert [0, 499, 999][: len(CALLS)] == CALLS
    CALLS.clear()
    assert amorsize.plan(recorded, iter(range(1000)), sample_size=3).n_items is None
    assert len(CALLS) >= 1
    assert [0, 1, 2][: len(CALLS)] == CALLS
    CALLS.clear()
    assert plan.n_items == 1000
    assert plan.actual_s is None
    assert plan.n_jobs >= 1
    assert plan.chunksize >= 1
    amorsize.parallel(recorded).plan(range(1000))
    assert len(CALLS) >= 1
    assert [0, 499, 999, 249, 749][: len(CALLS)] == CALLS


@pytest.mark.parametrize(
    ("n_items", "n_most", "positions"),
    [
        (0, 5, []),
        (3, 5, [0, 1, 2]),
        (1000, 1, [0]),
        (1000, 2, [0, 999]),
        (1000, 3, [0, 499, 999]),
        (1000, 4, [0, 666, 999, 333]),
        (6, 5, [0, 2, 5, 1, 3]),
    ],
)
def test_a_dry_run_looks_everywhere(n_items: int, n_most: int, positions: list[int]) -> None:
    """The first, the middle, the last, then those between; each once."""
    assert _dry.spread(n_items, n_most) == positions


def test_a_plan_names_the_item_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its index is that in the data, not in the sample."""
    monkeypatch.setattr(_bounds, "SAMPLE_BOX_S", math.inf)  # on a busy machine the first item alone may fill it
    with pytest.raises(ZeroDivisionError) as caught:
        amorsize.plan(lambda x: 1 // (9 - x), list(range(10)), sample_size=2)
    assert "item 9" in "".join(caught.value.__notes__)


def test_ascending_costs_do_not_mislead_a_plan() -> None:
    """The first items take nothing and the last ones everything: five of them forecast a 20th of the loop."""
    seen: list[int] = []
    plan = amorsize.plan(lambda n: seen.append(n) or sum(range(n)), range(0, 2000, 2))  # type: ignore[func-returns-value]
    assert seen == [0, 998, 1998, 498, 1498][: len(seen)]
    assert plan.n_items == 1000


def test_a_plan_gives_back_what_it_took_from_an_iterator() -> None:
    """Plan.data yields every item, the sampled ones included (S10)."""
    stream = iter(range(10))
    plan = amorsize.plan(recorded, stream)
    assert list(plan.data) == list(range(10))
    short = amorsize.plan(recorded, (x for x in (1, 2)))
    assert short.n_items == 2
    assert list(short.data) == [1, 2]
    again = [3, 4, 5]
    plan = amorsize.plan(recorded, again)
    assert list(plan.data) == again
    assert list(amorsize.plan(recorded, zip([1], [2], strict=True)).data) == [(1, 2)]


def test_a_plan_accepts_a_decorated_function() -> None:
    """Its own options hold, those given come on top, and its last_plan is left alone."""
    decorated = amorsize.parallel(recorded, sample_size=2)
    plan = amorsize.plan(decorated, range(10), n_jobs=1)
    assert (plan.limits.sample_size, plan.limits.n_jobs) == (2, 1)
    assert decorated.last_plan is None


def test_an_error_in_the_dry_run_reaches_the_caller() -> None:
    """The original exception with a note that names the item (S13)."""

    def fails(x: int) -> int:
        raise KeyError(x)

    with pytest.raises(KeyError) as caught:
        amorsize.plan(fails, range(3, 10))
    assert caught.value.args == (3,)
    assert caught.value.__notes__ == ["amorsize: raised by item 0: 3"]


def test_explain_of_a_run_names_both_times() -> None:
    """Predicted against measured, in words."""
    functions.slow.map(range(5))
    assert functions.slow.last_plan is not None
    text = functions.slow.last_plan.explain()
    assert "predicted" in text
    assert "measured" in text
    assert "5 items" in text


@pytest.mark.parametrize("n_items", [0, 1, 3, 50, 2000])
def test_every_plan_replays_whatever_was_learned_since(n_items: int) -> None:
    """A plan is made of what the call went by, not of what is known when somebody asks."""

    @amorsize.parallel
    def work(n: int) -> int:
        return sum(range(n % 100))

    plans = []
    for _ in range(3):
        work.map(range(n_items))
        plans.append(work.last_plan)
    kept = _host.BOOK.known
    try:
        work.map(range(n_items))
        _host.BOOK.learn("fork", start_s=1e-7)  # from here on everything would pay
        plans.append(work.last_plan)
    finally:
        _host.BOOK.known = kept
    for plan in plans:
        assert plan is not None
        assert amorsize.decide(plan.profile, plan.host, plan.n_items, plan.limits) == plan
        if "fork" in plan.host.costs:
            assert not 0 < plan.host.costs["fork"].start_s < 1e-6  # 0 beside workers that wait
