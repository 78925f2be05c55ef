"""What the type checkers must infer from the public surface; read by `nox -s typing`, never run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

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


def map_returns_a_list_of_results() -> None:
    assert_type(bare.map([1, 2]), list[float])
    assert_type(called.map(range(3)), list[str])
    assert_type(called.starmap([(1,)]), list[str])
    assert_type(called.imap(range(3)), Iterator[str])


def returned_errors_are_in_the_type() -> None:
    assert_type(returning.map([1]), list[str | Exception])
    assert_type(returning.imap([1]), Iterator[str | Exception])
    assert_type(called.with_options(errors="return").map([1]), list[str | Exception])
    assert_type(called.with_options(n_jobs=2).map([1]), list[str])


def a_method_is_bound() -> None:
    assert_type(Box().method(1), str)
    assert_type(Box().method.map([1]), list[str])


def there_may_be_no_last_plan() -> None:
    assert_type(bare.last_plan, amorsize.Plan | None)
    assert_type(bare.profile, amorsize.Profile | None)
    assert_type(bare.plan([1]), amorsize.Plan)
    assert_type(amorsize.plan(len, ["a"]), amorsize.Plan)
