"""A list that grows while it is mapped: the loop takes in what is appended, and so does a map."""

from __future__ import annotations

import warnings

import pytest

import amorsize
from amorsize.exceptions import AmorsizeWarning

TO_DO: list[int] = []


def visit(n: int) -> int:
    """Compute for a while, and find two more to visit."""
    sum(range(20_000))
    if n < 100:
        TO_DO.extend((2 * n, 2 * n + 1))
    return -n


def visit_quickly(n: int) -> int:
    """Find two more to visit."""
    if n < 100:
        TO_DO.extend((2 * n, 2 * n + 1))
    return -n


def expected_of(function: object, first: list[int]) -> list[int]:
    """Return what the loop returns."""
    TO_DO[:] = first
    return [function(n) for n in TO_DO]  # type: ignore[operator]


@pytest.mark.parametrize("first", [[1], [1, 2, 3], list(range(90, 120))], ids=["one", "few", "many"])
@pytest.mark.parametrize("function", [visit, visit_quickly], ids=["long", "short"])
@pytest.mark.parametrize("options", [{}, {"n_jobs": 1}, {"errors": "return"}], ids=["free", "serial", "errors"])
def test_what_an_item_appends_to_the_list_is_an_item_too(
    function: object, first: list[int], options: dict[str, object]
) -> None:
    """It was left out, without a word."""
    expected = expected_of(function, first)
    f = amorsize.parallel(function, **options)  # type: ignore[call-overload]
    for _ in range(3):
        TO_DO[:] = first
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AmorsizeWarning)
            assert f.map(TO_DO) == expected


def fails_late(n: int) -> int:
    """Append one, and fail at that."""
    if n == -1:
        raise KeyError(n)
    if n == 5 and len(TO_DO) < 20:
        TO_DO.append(-1)
    return n


def test_an_item_that_was_appended_fails_with_its_number() -> None:
    """It is named like any other."""
    TO_DO[:] = range(10)
    with pytest.raises(KeyError) as caught:
        amorsize.parallel(fails_late).map(TO_DO)
    assert "item 10" in "".join(caught.value.__notes__)
