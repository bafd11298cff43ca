"""What replies of several areas have in common."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

Json = dict[str, Any]
# A moment in UTC; every reply ends it with Z.
Time = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$",
        json_schema_extra={"format": "date-time"},
    ),
]


class Page(TypedDict):
    """What every list has beside its entries."""

    total_count: int
    limit: int
    offset: int
    has_more: bool
    # Ask for the next page with it. Null on the last page, and behind a page asked for by offset
    # in a list whose order changes with every heartbeat.
    next_cursor: str | None


class HeldClaim(TypedDict):
    """A work item that a session or instance holds."""

    item_id: str
    fence: int


class LostClaim(TypedDict):
    """A work item that a holder lost; told once, with its next heartbeat.

    ``taken_by`` is null if nobody took the item because it was cancelled.
    """

    item_id: str
    fence: int
    taken_by: str | None
    at: Time
    reason: NotRequired[str]


class Health(TypedDict):
    """Whether the process serves, and for how long it has been without its database."""

    status: str
    timestamp: Time
    uptime: float
    database: str
    database_away_seconds: NotRequired[float]
    # How many events the read models could not fold.
    dead_letters: NotRequired[int]
