# ruff: noqa: D103 - the small functions are named for what they do
"""Dictionaries that number what they are asked for: which number a key has depends on the keys before it."""

from __future__ import annotations

import collections
import itertools
from typing import Any

import pytest

from amorsize._analysis.effects import effects_of

CODES: collections.defaultdict[int, int] = collections.defaultdict(lambda: len(CODES))
WORDS: collections.defaultdict[int, int] = collections.defaultdict()
WORDS.default_factory = WORDS.__len__
NUMBERS: collections.defaultdict[int, int] = collections.defaultdict(itertools.count().__next__)
GROUPS: collections.defaultdict[int, list[int]] = collections.defaultdict(list)
NESTED: collections.defaultdict[int, Any] = collections.defaultdict(lambda: collections.defaultdict(int))
SEVENS: collections.defaultdict[int, int] = collections.defaultdict(lambda: 7)


def in_a_closure() -> Any:
    inner: collections.defaultdict[int, int] = collections.defaultdict(lambda: len(inner))
    return lambda x: inner[x]


@pytest.mark.parametrize(
    "func",
    [lambda x: CODES[x], lambda x: WORDS[x], lambda x: NUMBERS[x], in_a_closure()],
    ids=["its length", "its own method", "an iterator", "in a closure"],
)
def test_reading_a_key_that_gets_the_next_number_is_a_change(func: Any) -> None:
    """It was watched only, while items ran whose keys were there: each worker numbered late ones for itself."""
    assert effects_of(func).changes


@pytest.mark.parametrize(
    "func", [lambda x: GROUPS[x], lambda x: NESTED[x], lambda x: SEVENS[x]], ids=["a list", "a dictionary", "a number"]
)
def test_reading_a_key_that_gets_the_same_as_any_other_is_watched(func: Any) -> None:
    """What the next key gets does not depend on it."""
    assert not effects_of(func).changes
