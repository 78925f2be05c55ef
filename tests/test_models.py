# ruff: noqa: D101, D102, D103 - the small functions and classes are named for what they do
"""Models of pydantic, whose validators and serializers run although no code names them."""

from __future__ import annotations

from typing import Annotated, Any, Self

import pytest

from amorsize._analysis.effects import effects_of

pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")

SEEN: list[Any] = []


def note(value: Any) -> Any:
    SEEN.append(value)
    return value


class Field(pydantic.BaseModel):
    x: int

    @pydantic.field_validator("x")
    @classmethod
    def check(cls, value: int) -> int:
        return int(note(value))


class Whole(pydantic.BaseModel):
    x: int

    @pydantic.model_validator(mode="after")
    def check(self) -> Self:
        note(self.x)
        return self


class Computed(pydantic.BaseModel):
    x: int

    @pydantic.computed_field
    @property
    def twice(self) -> int:
        return 2 * int(note(self.x))


class Serialized(pydantic.BaseModel):
    x: int

    @pydantic.field_serializer("x")
    def dump(self, value: int) -> int:
        return int(note(value))


class Finished(pydantic.BaseModel):
    x: int

    def model_post_init(self, _context: object) -> None:
        note(self.x)


class Annotated_(pydantic.BaseModel):  # noqa: N801 - beside typing's
    x: Annotated[int, pydantic.AfterValidator(note)]


class Inherited(Field):
    y: int = 0


class Strict(pydantic.BaseModel):
    x: int

    @pydantic.field_validator("x")
    @classmethod
    def check(cls, value: int) -> int:
        if value < 0:
            raise ValueError(value)
        return value

    @pydantic.computed_field
    @property
    def twice(self) -> int:
        return 2 * self.x

    def unused(self) -> None:
        note(self.x)


def dumps(model: Any) -> Any:
    return lambda x: model(x=x).model_dump()


@pytest.mark.parametrize(
    "model", [Field, Whole, Computed, Serialized, Finished, Annotated_, Inherited], ids=lambda model: model.__name__
)
def test_what_a_model_calls_is_followed(model: Any) -> None:
    """It was proved to change nothing, and what it changed in workers was lost without a word."""
    assert "SEEN" in effects_of(dumps(model)).changes


def test_a_model_that_only_checks_is_proved() -> None:
    """What nobody calls does not count."""
    assert effects_of(dumps(Strict)).is_proved
