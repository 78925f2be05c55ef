"""What the type checkers must infer from the public surface; read by `nox -s typing`, never run."""

from __future__ import annotations

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


def a_call_keeps_its_signature() -> None:
    assert_type(bare(1), float)
    assert_type(bare(1, y="a"), float)
    assert_type(called(1), str)
    bare("1")  # type: ignore[arg-type]  # the parameter is an int
    bare(1, z=2)  # type: ignore[call-arg]  # there is no z


def map_returns_a_list_of_results() -> None:
    assert_type(bare.map([1, 2]), list[float])
    assert_type(called.map(range(3)), list[str])


def there_may_be_no_last_plan() -> None:
    assert_type(bare.last_plan, amorsize.Plan | None)
