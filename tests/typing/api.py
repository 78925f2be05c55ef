"""What the type checkers must infer from the public surface; read by `nox -s typing`, never run."""

from __future__ import annotations

import functools
from typing import Any, TypeVar, Unpack, assert_type

import amorsize


@amorsize.parallel
def bare(x: int, y: str = "") -> float:
    """Stand for a function decorated without options."""
    return x + len(y)


@amorsize.parallel(n_jobs=2)
def called(x: int) -> str:
    """Stand for a function decorated with options."""
    return str(x)


@amorsize.parallel(errors="return")
def returning(x: int) -> str:
    """Stand for a function whose exceptions are results."""
    return str(x)


class Box:
    """Stands for a class with a decorated method."""

    @amorsize.parallel
    def method(self, x: int) -> str:
        """Stand for a method."""
        return str(x)


def a_call_keeps_its_signature() -> None:
    assert_type(bare(1), float)
    assert_type(bare(1, y="a"), float)
    assert_type(called(1), str)
    assert_type(returning(1), str)
    bare("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the parameter is an int
    bare(1, z=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # there is no z


@amorsize.parallel
def variadic(*args: int) -> int:
    """Stand for a function of any number of arguments."""
    return sum(args)


@amorsize.parallel
def with_keyword(x: float, *, scale: int = 2) -> float:
    """Stand for a function with an argument that goes into kwargs."""
    return x * scale


@amorsize.parallel
def of_four(a: int, b: int, c: int, d: int) -> int:
    """Stand for a function of more arguments than are checked."""
    return a + b + c + d


T = TypeVar("T")


@amorsize.parallel
def of_anything(x: T) -> T:
    """Stand for a generic function."""
    return x


def pair(first: tuple[str, int]) -> int:
    """Stand for a function of a pair."""
    return first[1]


def map_returns_a_list_of_results() -> None:
    assert_type(bare.map([1, 2]), list[float])
    assert_type(bare.map([1, 2], ["a"]), list[float])
    assert_type(called.map(range(3)), list[str])
    assert_type(called.starmap([(1,)]), list[str])
    assert_type(called.imap(range(3)), amorsize.Stream[str])
    assert_type(called.istarmap([(1,)]), amorsize.Stream[str])
    assert_type(variadic.map([1]), list[int])
    assert_type(variadic.map([1], [2], [3]), list[int])
    assert_type(with_keyword.map([1], kwargs={"scale": 3}), list[float])
    assert_type(of_four.map([1], [2], [3], [4]), list[int])
    assert_type(amorsize.parallel(pair).map({"a": 1}.items()), list[int])
    assert_type(amorsize.parallel(len).map(["a"]), list[int])
    assert_type(amorsize.parallel(functools.partial(pair)).map([("a", 1)]), list[int])
    assert_type(amorsize.parallel(float).map(["1"]), list[float])
    amorsize.parallel(lambda x: x + 1).map([1])


def items_have_the_type_of_the_argument() -> None:
    # mypy lets these pass: it does not compare what Concatenate stands for in the type of self. Callable instead of
    # ParallelFunction there would make it, and would make it refuse the items of every generic function, too.
    bare.map(["a"])  # pyright: ignore[reportArgumentType]  # the parameter is an int
    bare.map(x for x in "ab")  # pyright: ignore[reportArgumentType]  # likewise
    called.map([1], [2])  # pyright: ignore[reportCallIssue]  # it has one parameter
    called.imap(["a"])  # pyright: ignore[reportArgumentType]  # the parameter is an int
    amorsize.map(pair, ["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a tuple


def items_of_generic_functions_pass() -> None:
    of_anything.map([1])
    amorsize.parallel(abs).map([-1])
    amorsize.parallel(sorted).map([[1]])
    amorsize.parallel(sum).map([[1]])
    amorsize.parallel(str).map([1])
    amorsize.parallel(pow).map([2], [3])
    amorsize.parallel(max).map([[2]])


def options_are_checked_where_they_are_given() -> None:
    assert_type(called.map([1], n_jobs=2, progress=True, timeout=5, max_memory="2GB"), list[str])
    assert_type(called.imap([1], n_jobs=2, ordered=False), amorsize.Stream[str])
    assert_type(called.plan([1], sample_size=2, star=False), amorsize.Plan)
    assert_type(amorsize.map(len, ["a"], n_jobs=2), list[int])
    assert_type(amorsize.map(bare, [1], n_jobs=2), list[float])
    assert_type(amorsize.map(bare.__wrapped__, [1], ["a"], errors="skip"), list[Any])
    assert_type(amorsize.map(len, ["a"], errors="return"), list[int | Exception])
    amorsize.configure(n_jobs=2, progress=lambda done, total, elapsed_s: None, cache_dir=None)
    called.map([1], n_jobs="2")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]  # an int
    called.map([1], njobs=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # no such option
    called.with_options(njobs=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # likewise
    called.plan([1], njobs=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # likewise
    amorsize.parallel(len, njobs=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # likewise
    amorsize.parallel(njobs=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # likewise
    amorsize.plan(len, ["a"], njobs=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # likewise
    amorsize.configure(njobs=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # likewise


def options_can_be_passed_on(items: list[int], **options: Unpack[amorsize.MapOptions]) -> amorsize.Plan:
    return called.plan(items, **options)


def returned_errors_are_in_the_type() -> None:
    assert_type(returning.map([1]), list[str | Exception])
    assert_type(returning.imap([1]), amorsize.Stream[str | Exception])
    assert_type(returning.map([1], errors="raise"), list[str])
    assert_type(returning.map([1], n_jobs=2), list[str | Exception])
    assert_type(called.with_options(errors="return").map([1]), list[str | Exception])
    assert_type(called.with_options(n_jobs=2).map([1]), list[str])
    assert_type(returning.with_options(errors="skip").map([1]), list[str])
    assert_type(returning.with_options(n_jobs=2).map([1]), list[str | Exception])
    assert_type(called.map([1], errors="return"), list[str | Exception])
    assert_type(called.starmap([(1,)], errors="return"), list[str | Exception])
    assert_type(called.imap([1], errors="return"), amorsize.Stream[str | Exception])
    assert_type(called.istarmap([(1,)], errors="return"), amorsize.Stream[str | Exception])


def a_stream_is_an_iterator_that_can_be_closed() -> None:
    with called.imap([1]) as stream:
        assert_type(next(stream), str)
        assert_type(len(stream), int)
        assert_type(list(stream), list[str])
    stream.close()


def pairs_name_what_belongs_to_a_result() -> None:
    assert_type(called.imap([1], pairs="item"), amorsize.Stream[tuple[int, str]])
    assert_type(called.imap([1], pairs="index"), amorsize.Stream[tuple[int, str]])
    assert_type(returning.imap([1], pairs="index"), amorsize.Stream[tuple[int, str | Exception]])
    assert_type(called.istarmap([(1,)], pairs="index"), amorsize.Stream[tuple[int, str]])
    assert_type(called.istarmap([(1,)], pairs="item"), amorsize.Stream[tuple[Any, str]])


def a_method_is_bound() -> None:
    assert_type(Box().method(1), str)
    assert_type(Box().method.map([1]), list[str])


class Grid:
    """Stands for a class with a decorated class method."""

    @amorsize.parallel
    @classmethod
    def named(cls, n: int) -> str:
        """Stand for a class method."""
        return f"{cls.__name__} {n}"


def a_class_method_maps_from_its_class() -> None:
    assert_type(Grid.named.map([1]), list[str])
    assert_type(Grid.named.imap([1]), amorsize.Stream[str])
    assert_type(Grid().named.map([1]), list[str])


def there_may_be_no_last_plan() -> None:
    assert_type(bare.last_plan, amorsize.Plan | None)
    assert_type(bare.profile, amorsize.Profile | None)
    assert_type(bare.plan([1]), amorsize.Plan)
    assert_type(bare.explain(), str)
    assert_type(amorsize.plan(len, ["a"]), amorsize.Plan)


def annotations_need_no_third_parameter(function: amorsize.ParallelFunction[[int], str]) -> None:
    assert_type(function(1), str)
    assert_type(function.map([1]), list[str])


def a_reason_is_found_by_its_code() -> None:
    assert_type(amorsize.Reason("empty"), amorsize.Reason)
    assert_type(amorsize.Reason.EMPTY.value, str)
    assert_type(amorsize.Reason.EMPTY.sentence, str)
