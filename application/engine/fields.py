"""The types of the commands' fields, each with its limits."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
)

from domain import identity
from domain.aggregate import MAX_METADATA_BYTES, Json, stored_size
from domain.claims.claim import is_work_item

MAX_ID_LENGTH = 200
# How long a client spools what it could not send (decision 8).
LONGEST_KEPT = timedelta(days=30)
CLOCKS_APART = timedelta(minutes=1)
MAX_TEXT_LENGTH = 10_000
MIN_STALL_THRESHOLD_MS = 30_000  # spec 5
MAX_STALL_THRESHOLD_MS = 24 * 60 * 60 * 1000  # spec 5


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _at_most(length: int) -> Callable[[str], str]:
    def normal(value: str) -> str:
        """The name in its one form (spec 17), which counts for its length too."""
        name = identity.normal(value)
        if not name.strip():
            raise ValueError("must not be blank")
        if len(name) > length:
            raise ValueError(f"should have at most {length} characters")
        return name

    return normal


def _seen(name: str) -> str:
    hidden = identity.unseen(name)
    if hidden is not None:
        called = unicodedata.name(hidden, "a control character")
        raise ValueError(
            f"has a character that cannot be seen: U+{ord(hidden):04X} ({called.lower()})"
        )
    return name


def _addressable(value: str) -> str:
    # Clients and proxies resolve these two in a URL, encoded or not.
    if value in (".", ".."):
        raise ValueError("must not be . or .., which no URL can name")
    return value


def _limits(length: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": length})


def _not_boolean_nor_text(value: object) -> object:
    # pydantic would take true as 1 and "7" as 7; both are more likely mistakes.
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


Id = Annotated[
    str,
    AfterValidator(_at_most(MAX_ID_LENGTH)),
    AfterValidator(_seen),
    _limits(MAX_ID_LENGTH),
]
# A value from a list that the service has.
Kind = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), AfterValidator(_not_blank)]
UrlId = Annotated[Id, AfterValidator(_addressable)]
# Short words to search by: tracks, labels, host names. They are not ids, so invisible characters
# in them are escaped, not refused.
Label = Annotated[str, AfterValidator(_at_most(1_000)), _limits(1_000)]
Tag = Annotated[str, AfterValidator(_at_most(100)), _limits(100)]
# An id in a path or a filter: one that no thing can have finds nothing.
Sought = Annotated[str, AfterValidator(identity.normal)]
Name = Annotated[str, Field(min_length=1, max_length=1_000), AfterValidator(_not_blank)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH), AfterValidator(_not_blank)]
Integer = Annotated[int, BeforeValidator(_not_boolean_nor_text)]
Number = Annotated[int | float, BeforeValidator(_not_boolean_nor_text)]
Slot = Annotated[Integer, Field(ge=0, le=2**31 - 1)]
StallThreshold = Annotated[Integer, Field(ge=MIN_STALL_THRESHOLD_MS, le=MAX_STALL_THRESHOLD_MS)]
Data = dict[str, JsonValue]


def _of_metadata_size(value: Data) -> Data:
    size = stored_size(value)
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"is {size} bytes of JSON, of at most {MAX_METADATA_BYTES}")
    return value


Metadata = Annotated[Data, AfterValidator(_of_metadata_size)]


def _of_work(value: str) -> str:
    if not is_work_item(value):
        raise ValueError("must not begin with @")
    return value


ItemId = Annotated[UrlId, AfterValidator(_of_work)]
# S3 calls a work item's id ``sd_id``.
GivenItemId = Annotated[ItemId, Field(validation_alias=AliasChoices("item_id", "sd_id"))]
FenceNumber = Annotated[Integer, Field(ge=1, le=2**53)]
# The fence that the caller read; 0 if there was none.
SeenFence = Annotated[Integer, Field(ge=0, le=2**53)]


class Fence(BaseModel):
    """A claim, and the fence under which the sender believes it holds the item."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    item_id: GivenItemId
    fence: FenceNumber


class Command(BaseModel):
    """A request to change something. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Refuses the command unless the claim is still held under this fence (spec 6).
    claim: Fence | None = None


class BySupervisor(Command):
    """A command that a supervisor may send with its fence; refused after another took over."""

    supervisor_fence: FenceNumber | None = None


def _text_of_a_time(value: object) -> object:
    # pydantic would read a number as seconds, or milliseconds, since 1970.
    if not isinstance(value, str | datetime):
        raise ValueError("must be a time with its time zone, as in 2026-01-31T12:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_text_of_a_time)]


class Dated(Command):
    """A request that may arrive late because the client spooled it while the service was away.

    ``occurred_at`` is the client's clock. It is stored with the events for people to read, and
    decides nothing. An impossible value is dropped; the request is carried out all the same.
    """

    occurred_at: Moment | None = None

    def told_at(self, now: datetime) -> Json:
        """``occurred_at`` as metadata of the events; empty if there is none or it is impossible."""
        when = self.occurred_at
        if when is None or not now - LONGEST_KEPT <= when <= now + CLOCKS_APART:
            return {}
        told = when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"occurred_at": told, "clock": "client"}


T = TypeVar("T")


class FoundMark:
    """Marks a field that the service fills in from a read model; clients cannot send it.

    Such a field names a stream or completes a reply. It never decides anything.
    """


Found = Annotated[T, FoundMark()]
