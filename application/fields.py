"""The kinds of fields that commands are made of, each with its limits, declared once."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
)

from domain.claim import is_work_item

MAX_ID_LENGTH = 200
MAX_TEXT_LENGTH = 10_000
MIN_STALL_THRESHOLD_MS = 30_000  # spec 5
MAX_STALL_THRESHOLD_MS = 24 * 60 * 60 * 1000  # spec 5


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _not_boolean_nor_text(value: object) -> object:
    # pydantic takes true for 1 and "7" for 7; what is meant is anyone's guess.
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), AfterValidator(_not_blank)]
Name = Annotated[str, Field(min_length=1, max_length=1_000), AfterValidator(_not_blank)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH), AfterValidator(_not_blank)]
Integer = Annotated[int, BeforeValidator(_not_boolean_nor_text)]
Number = Annotated[int | float, BeforeValidator(_not_boolean_nor_text)]
Slot = Annotated[Integer, Field(ge=0, le=2**31 - 1)]
StallThreshold = Annotated[Integer, Field(ge=MIN_STALL_THRESHOLD_MS, le=MAX_STALL_THRESHOLD_MS)]
Metadata = dict[str, JsonValue]


def _of_work(value: str) -> str:
    if not is_work_item(value):
        raise ValueError("must not begin with @")
    return value


ItemId = Annotated[Id, AfterValidator(_of_work)]
# S3 calls a work item's id ``sd_id``.
GivenItemId = Annotated[ItemId, Field(validation_alias=AliasChoices("item_id", "sd_id"))]
FenceNumber = Annotated[Integer, Field(ge=1, le=2**53)]


class Fence(BaseModel):
    """A claim, and the fence under which the writer believes to hold it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    item_id: GivenItemId
    fence: FenceNumber


class Command(BaseModel):
    """A request to change something. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Refuses the command unless the claim is still held under this fence (spec 6).
    claim: Fence | None = None


T = TypeVar("T")


class FoundMark:
    """Marks a field that the service itself fills in from a read model, and a client may not send.

    It addresses a command or completes its reply; it never decides anything.
    """


Found = Annotated[T, FoundMark()]
