"""What the errors of first guesses lead to: items in the wrong shape, names of other libraries, values misspelt."""

from __future__ import annotations

import copy
import functools
import itertools
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize import _wrong_call
from amorsize._wrong_call import way_out

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = [(2, 3), (3, 2)]
UNPACKS = (
    "amorsize: map gives each item as one argument; did you mean starmap, which unpacks it? (istarmap for a stream)"
)


def power(base: int, exponent: int) -> int:
    """Stand for a function of two arguments."""
    return int(base**exponent)


def strict(item: Any) -> Any:
    """Stand for a function that raises a TypeError of its own."""
    raise TypeError(f"the argument is {item}, and I do not like it")


def notes_of(call: Callable[[], Any]) -> list[str]:
    """Return the notes of the TypeError that a call raises, which is Python's own."""
    with pytest.raises(TypeError) as caught:
        call()
    assert type(caught.value) is TypeError
    return list(getattr(caught.value, "__notes__", ()))


# -- items in the wrong shape ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda f: f.map(PAIRS),
        lambda f: f.map(zip([2, 3], [3, 2], strict=True)),
        lambda f: f.map([list(pair) for pair in PAIRS]),
        lambda f: f.map(PAIRS * 20, n_jobs=2, batch_size=1, retries=1),
        lambda f: f.plan(PAIRS),
        lambda f: list(f.imap(PAIRS)),
        lambda f: list(f.imap(PAIRS * 20, n_jobs=2, batch_size=1, retries=1)),
        lambda f: amorsize.map(f.__wrapped__, PAIRS),
    ],
    ids=map(str, range(8)),
)
def test_pairs_that_were_not_unpacked_lead_to_starmap(call: Callable[[Any], Any]) -> None:
    """Whoever computed the item, the exception is Python's, with one note for the item and one for the way out."""
    notes = notes_of(lambda: call(amorsize.parallel(power)))
    assert notes[0].startswith("amorsize: raised by item 0: ")
    assert notes[1:] == [UNPACKS]


def test_rows_of_an_array_lead_to_starmap_too() -> None:
    """They are no tuples, and are meant like them."""
    array = pytest.importorskip("numpy").array(PAIRS)
    assert notes_of(lambda: amorsize.parallel(power).map(array))[1:] == [UNPACKS]


def test_a_function_that_is_known_by_its_starmap_says_so_too() -> None:
    """What is known to be short is a loop at once."""
    known = amorsize.parallel(lambda base, exponent: base**exponent)
    assert known.starmap(PAIRS) == [8, 9]
    assert notes_of(lambda: known.map(PAIRS))[1:] == [UNPACKS]


def test_a_pair_under_an_error_policy_says_so_too() -> None:
    """The exception that stands for the result has the notes."""
    back = amorsize.parallel(power).map(PAIRS, errors="return")
    assert [error.__notes__[1:] for error in back if isinstance(error, TypeError)] == [[UNPACKS]] * 2


def test_a_missing_argument_leads_to_kwargs_and_further_iterables() -> None:
    """It is named."""
    item, way = notes_of(lambda: amorsize.parallel(power).map([1, 2]))
    assert item == "amorsize: raised by item 0: 1"
    assert "the function needs exponent as well" in way
    assert "kwargs={'exponent': ...}" in way
    assert "a further iterable" in way


class Series(dict[str, Any]):
    """Stand for a row of a data frame, by its names."""


Series.__module__ = "pandas.core.series"


@pytest.mark.parametrize(
    "func", [lambda row: row["price"], lambda row: row.price], ids=["a column by key", "a column by attribute"]
)
def test_rows_of_iterrows_are_pairs(func: Callable[[Any], Any]) -> None:
    """What the function says of a tuple is followed by what the item is, and how the rows alone are mapped."""
    with pytest.raises((TypeError, AttributeError), match="tuple") as caught:
        amorsize.parallel(func).map([("a", Series(price=1))])
    way = caught.value.__notes__[1]
    assert way.startswith(
        "amorsize: df.iterrows() yields pairs of a label and a row; did you mean map(row for _, row in"
    )
    assert "starmap" in way


def test_other_pairs_say_nothing_of_iterrows() -> None:
    """Nor does a function that fails for another reason than the pair."""
    f = amorsize.parallel(lambda pair: pair.price)
    for items in ([("a", {"price": 1})], [("a", Series(), 3)], [Series()]):
        with pytest.raises(AttributeError) as caught:
            f.map(items)
        assert len(caught.value.__notes__) == 1


class Machine:
    """Has a method that is mapped."""

    @amorsize.parallel
    def run(self, item: int) -> int:
        """Stand for a method of one item."""
        return item


def test_a_method_that_is_asked_of_its_class_leads_to_an_object() -> None:
    """The item was taken for the object, and the way out was said to be a further iterable."""
    notes = notes_of(lambda: Machine.run.map([1]))
    assert notes[1:] == ["amorsize: run is a method of an object: map it as one, as in Machine(...).run.map(items)"]
    assert Machine().run.map([1]) == [1]


def test_a_name_asked_of_a_bound_method_leads_to_one_that_exists() -> None:
    """A method hands the question on to its function."""
    run = Machine().run
    for name, meant in (("n_jobs", "last_plan.n_jobs"), ("submit", "imap")):
        with pytest.raises(AttributeError, match=f"did you mean f\\.{meant}"):
            getattr(run, name)


def test_a_function_without_arguments_takes_no_item() -> None:
    """It says how often it was meant to be called, at most."""
    notes = notes_of(lambda: amorsize.parallel(lambda: 1).map(range(2)))
    assert notes[1:] == ["amorsize: map gives each item as an argument, and the function takes none"]


@pytest.mark.parametrize("name", _wrong_call._OF_PLANS)
def test_what_a_plan_says_is_asked_of_the_latest_plan(name: str) -> None:
    """People ask the function for it."""
    f = amorsize.parallel(plain)
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; did you mean f\\.last_plan\\.{name}\\?"):
        getattr(f, name)
    f.map([1])
    assert hasattr(f.last_plan, name)


def test_items_that_cannot_be_unpacked_lead_to_map() -> None:
    """The other way round."""
    notes = notes_of(lambda: amorsize.parallel(abs).starmap([1, 2]))
    assert notes[1:] == ["amorsize: starmap unpacks each item into arguments; map gives it as it is"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: amorsize.parallel(strict).map(PAIRS),
        lambda: amorsize.parallel(strict).starmap([(1,)]),
        lambda: amorsize.parallel(power).map([1], ["a"]),
        lambda: amorsize.parallel(power).map([1], kwargs={"exponent": "argument"}),
        lambda: amorsize.parallel(abs).map([(1, 2)]),
        lambda: amorsize.parallel(power).map([(1, 2, 3)], kwargs={"other": 4}),
    ],
    ids=map(str, range(6)),
)
def test_an_error_of_another_kind_has_no_second_note(call: Callable[[], Any]) -> None:
    """The function's own TypeErrors are left alone, and so are those that nothing here would mend."""
    assert len(notes_of(call)) == 1


def test_what_cannot_be_asked_for_its_signature_is_left_alone() -> None:
    """Nothing that an object raises when asked replaces the user's exception."""

    class Odd:
        @property
        def __signature__(self) -> Any:
            raise RuntimeError("not for you")

        def __call__(self, item: Any, other: Any) -> Any:
            return item, other

    assert way_out(Odd(), (1, 2), star=False, kwargs=None) == ""
    assert way_out(dict, (1, 2), star=False, kwargs=None) == ""
    assert way_out(functools.partial(power, exponent=2), 1, star=False, kwargs=None) == ""
    assert "starmap" in way_out(power, (1, 2), star=False, kwargs=None)
    assert "takes none" in way_out(lambda: None, 1, star=False, kwargs=None)


def test_an_error_whose_words_cannot_be_had_is_left_alone() -> None:
    """An argument of an exception may be anything."""

    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def refuse(item: Any) -> Any:
        raise TypeError(Mute()) if item else TypeError

    for items in ([1], [0]):
        assert notes_of(functools.partial(amorsize.parallel(refuse).map, items)) == [
            f"amorsize: raised by item 0: {items[0]}"
        ]


def test_a_call_that_a_wrapped_function_refuses_says_nothing_of_the_wrapper() -> None:
    """The wrapper took the item: what it calls has more arguments, and its own reasons."""

    def load(database: object, item: Any) -> int:
        return int(None)  # type: ignore[call-overload]  # says "argument"

    @functools.wraps(load)
    def wrapper(item: Any) -> int:
        return load(object(), item)

    for options in ({}, {"n_jobs": 2}):
        assert len(notes_of(functools.partial(amorsize.parallel(wrapper).map, [1, 2], **options))) == 1  # type: ignore[arg-type]


class Nosy:
    """An item that raises when it is asked what it is."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        """Fail."""
        raise ZeroDivisionError


class Endless(list[int]):
    """A list whose iterator never ends."""

    def __iter__(self) -> Any:
        return itertools.count()


class Picky(str):
    """Words that raise when they are searched."""

    __slots__ = ()

    def __contains__(self, part: object) -> bool:
        raise ZeroDivisionError


class Last:
    """A function whose signature ends the program."""

    @property
    def __signature__(self) -> Any:
        """End the program."""
        raise SystemExit(3)

    def __call__(self, item: Any, other: Any) -> Any:
        """Return what it is given."""
        return item, other


def picky(item: Any) -> Any:
    """Raise words that cannot be searched."""
    raise TypeError(Picky("argument"))


@pytest.mark.parametrize(
    ("func", "item"),
    [(power, Nosy()), (power, Endless([1, 2])), (Last(), (1, 2)), (picky, 1)],
    ids=["an item that is asked", "an endless item", "a signature", "words"],
)
@pytest.mark.parametrize("options", [{}, {"errors": "return"}], ids=["raises", "returns"])
def test_odd_items_and_functions_do_not_replace_the_error(func: Any, item: Any, options: Any) -> None:
    """Whatever they do when they are looked at, the TypeError is what the caller gets, and soon."""
    mapped = functools.partial(amorsize.parallel(func).map, [item], **options)
    if options:
        assert type(mapped()[0]) is TypeError
    else:
        notes_of(mapped)


class Unnoted(Exception):  # noqa: N818 - stands for an exception of the user's
    """Says that it has no notes, in a way that cannot be gone through."""

    __notes__ = None


class Unnotable(Exception):  # noqa: N818 - as above
    """Ends the program when it is given a note."""

    def add_note(self, note: str) -> None:
        """Refuse."""
        raise SystemExit(note)


@pytest.mark.parametrize("kind", [Unnoted, Unnotable])
def test_exceptions_that_take_no_notes_arrive_themselves(kind: type[Exception]) -> None:
    """Adding a note, and looking for one, replaces nothing."""

    def fail(item: Any) -> Any:
        raise kind(item)

    with pytest.raises(kind):
        amorsize.parallel(fail).map([1])


def test_a_wrong_item_far_down_is_told_as_well() -> None:
    """In a loop over a list, in blocks, and over an iterator."""
    items = [*[(2, 3)] * 3000, 5]
    for given in (items, itertools.chain(items)):
        item, way = notes_of(functools.partial(amorsize.parallel(power).starmap, given))
        assert item == "amorsize: raised by item 3000: 5"
        assert way.endswith("map gives it as it is")


# -- names and values ------------------------------------------------------------------------------------------------


def plain(item: Any) -> Any:
    """Stand for a function with an attribute of its own."""
    return item


@pytest.mark.parametrize("name", sorted(_wrong_call._METHOD_MEANT))
def test_a_method_of_another_library_leads_to_one_of_ours(name: str) -> None:
    """The error names one that exists, and Python's guess does not stand behind it."""
    f = amorsize.parallel(plain)
    says = rf"no attribute '{name}'; did you mean (amorsize\.parallel\()?f"
    for owner in (f,) if hasattr(amorsize, name) or name in _wrong_call._OF_THE_MODULE else (f, amorsize):
        with pytest.raises(AttributeError, match=says) as caught:
            getattr(owner, name)
        assert caught.value.obj is None
    meant = _wrong_call.method_meant_by(name) or ""
    assert hasattr(f, meant.partition(".")[2].partition("(")[0])


@pytest.mark.parametrize("name", [*_wrong_call._OF_FUNCTIONS, *_wrong_call._OF_THE_MODULE])
def test_a_name_that_the_module_does_not_have_leads_to_one_that_exists(name: str) -> None:
    """Methods of decorated functions, and what pools and executors are called."""
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; did you mean amorsize\\.") as caught:
        getattr(amorsize, name)
    meant = str(caught.value).rpartition("did you mean amorsize.")[2].partition("(")[0]
    assert hasattr(amorsize, meant)


@pytest.mark.parametrize("name", _wrong_call._OF_THE_LATEST)
def test_what_tells_of_the_latest_call_needs_a_function_to_keep(name: str) -> None:
    """A new decorated function has been called never: the hint was to ask that."""
    with pytest.raises(
        AttributeError, match=r"did you mean f = amorsize\.parallel\(function\); f\.map\(items\); f\."
    ) as caught:
        getattr(amorsize, name)
    assert hasattr(amorsize.parallel(plain), str(caught.value).rpartition("; f.")[2].partition("(")[0].rstrip("?"))


def test_a_decorator_without_a_function_says_what_it_takes() -> None:
    """It was told of as a partial of a function that nobody knows."""
    with pytest.raises(AttributeError, match=r"did you mean amorsize\.parallel\(function, \.\.\.\)\.map\?"):
        amorsize.parallel(n_jobs=2).map  # noqa: B018 - it raises
    with pytest.raises(AttributeError, match="without a function has no 'nothing'"):
        amorsize.parallel(n_jobs=2).nothing  # noqa: B018 - as above
    assert copy.copy(amorsize.parallel(n_jobs=2))(plain)(3) == 3


@pytest.mark.parametrize("name", [*_wrong_call._OF_FUNCTIONS, *_wrong_call._OF_THE_MODULE])
def test_an_import_of_a_name_that_does_not_exist_leads_to_one_that_does(name: str) -> None:
    """Python would say no more than that there is none."""
    with pytest.raises(ImportError, match=f"cannot import name '{name}' from 'amorsize'; did you mean amorsize\\."):
        exec(f"from amorsize import {name}", {})  # noqa: S102 - an import is a statement
    assert not hasattr(amorsize, name)


def test_an_import_of_a_misspelt_name_is_left_to_python() -> None:
    """It says where it looked, and guesses."""
    with pytest.raises(ImportError, match=r"cannot import name 'hosst' from 'amorsize' \(.*__init__.py\)"):
        exec("from amorsize import hosst", {})  # noqa: S102 - an import is a statement


def test_a_misspelt_name_is_left_to_python() -> None:
    """It guesses from what it is told: the object whose names are near."""
    f = amorsize.parallel(plain)
    for owner, name, near in ((f, "stramap", "starmap"), (amorsize, "hosst", "host")):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'$") as caught:
            getattr(owner, name)
        assert caught.value.name == name
        assert caught.value.obj is owner
        assert near in dir(owner)


def test_what_a_function_has_itself_goes_before_a_guess() -> None:
    """A name of another library may be the function's own."""
    own = functools.partial(plain)
    own.submit = "mine"  # type: ignore[attr-defined]
    assert amorsize.parallel(own).submit == "mine"  # type: ignore[attr-defined]
    assert not hasattr(amorsize.parallel(plain), "submit")
    assert getattr(amorsize.parallel(plain), "nothing", 7) == 7


class Failing:
    """A callable whose own attributes fail inside."""

    config: Any = None

    def __call__(self, item: Any) -> Any:
        """Return the item."""
        return item

    @property
    def summary(self) -> Any:
        """Fail as a name that others know."""
        return self.config.txt

    @property
    def other(self) -> Any:
        """Fail at a name that is nearly one of ours."""
        return self.config.imapp


@pytest.mark.parametrize(("name", "inner"), [("summary", "txt"), ("other", "imapp")])
def test_an_attribute_that_fails_inside_says_so(name: str, inner: str) -> None:
    """The error of a property is its own: no guess is added, and nothing of it is changed."""
    with pytest.raises(AttributeError) as caught:
        getattr(amorsize.parallel(Failing()), name)
    assert str(caught.value) == f"'NoneType' object has no attribute {inner!r}"
    assert (caught.value.name, caught.value.obj) == (inner, None)
    assert any(entry.name == name for entry in caught.traceback)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("errors", "rais", "raise"),
        ("errors", "Raise", "raise"),
        ("errors", "ignore", "skip"),
        ("errors", "coerce", "return"),
        ("start_method", "forks", "fork"),
        ("start_method", "fork_server", "forkserver"),
        ("start_method", "spawn", "loky"),
        ("prefer", "thread", "threads"),
        ("prefer", "threading", "threads"),
        ("prefer", "process", "processes"),
        ("prefer", "multiprocessing", "processes"),
        ("prefer", "fork", "start_method='fork'"),
        ("prefer", "loky", "start_method='loky'"),
        ("start_method", "threads", "prefer='threads'"),
        ("start_method", "processes", "prefer='processes'"),
        ("prefer", "gpu", None),
        ("errors", 3, None),
        ("prefer", "spawn", None),
    ],
)
def test_a_value_that_does_not_exist_leads_to_the_nearest(name: str, value: Any, meant: str | None) -> None:
    """Misspelt ones, and those of other libraries; nothing where nothing is near."""
    with pytest.raises(ValueError, match=f"{name} must be one of .*, not {value!r}") as caught:
        amorsize.parallel(**{name: value})
    meant = None if meant is None else meant if "=" in meant else repr(meant)
    assert str(caught.value).partition("; did you mean ")[2] == ("" if meant is None else f"{meant}?")


def add_one(x: int) -> int:
    """Stand for a function of one argument."""
    return x + 1


added: Any = amorsize.parallel(add_one)
pairs: Any = amorsize.parallel(power)


@pytest.mark.parametrize(
    ("call", "way"),
    [
        ("added.map(None)", "a function without a return gives None"),
        ("added.map()", "needs at least one iterable of items"),
        ("added.map(data=[1])", "by position and not as data="),
        ("added.map(added, [1])", "the items alone are given here"),
        ("added.map(added)", "did you mean to call it?"),
        ('amorsize.map("add_one", [1])', "give the function itself, not its name"),
        ('amorsize.plan("add_one", [1])', "give the function itself, not its name"),
        ('amorsize.parallel("threads")', "@amorsize.parallel(prefer='threads')"),
        ('amorsize.parallel("forkserver")', "@amorsize.parallel(start_method='forkserver')"),
        ("amorsize.parallel([1, 2])", "items are given to f.map(items)"),
        ("added.map([1], total=3)", "did you mean progress=dict(desc=...)?"),
        ("added.map([1], ncols=80)", "did you mean progress=dict(desc=...)?"),
        ('added.map([1], n_jobs="all")', "-1 is all CPUs"),
        ('added.map([1], n_jobs="auto")', "None lets amorsize decide"),
        ('added.map([1], start_method="threads")', "did you mean prefer='threads'?"),
        ('added.map([1], prefer="forkserver")', "did you mean start_method='forkserver'?"),
        ('added.map([1], max_memory="50%")', "a share such as 0.5"),
        ('added.map([1], timeout="5s")', "must be seconds or None"),
        ("added.map([1], checkpoint=True)", "the path of a file or None"),
        ("added.imap([1], pairs=True)", "must be one of 'index', 'item' or left out"),
        ("pairs.map([1], exponent=2)", "goes into kwargs={'exponent': ...}"),
        ("pairs.map([1], 2)", "goes into kwargs={'name': ...}"),
        ('pairs.map([1], kwargs="exponent=2")', "such as {'name': value}"),
    ],
    ids=lambda text: text if text.endswith(")") else "",
)
def test_the_first_line_of_an_error_names_the_way_out(call: str, way: str) -> None:
    """For what a newcomer would try; nothing has been computed then."""
    with pytest.raises((TypeError, ValueError)) as caught:
        eval(call)  # noqa: S307 - one of those above
    line, *more = str(caught.value).splitlines()
    assert way in line
    assert not more
