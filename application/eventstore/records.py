"""What the event store takes and gives besides events, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, TypedDict

import orjson

from domain.aggregate import Json


class VersionConflict(Exception):
    """A stream changed since it was read, or an event does not follow its stream's last one."""

    def __init__(self, streams: Sequence[str]) -> None:
        super().__init__(", ".join(streams))
        self.streams = tuple(streams)


class ReceiptConflict(Exception):
    """Another request with the same idempotency key was carried out first."""


class NewReceipt(TypedDict):
    """A reply to store with the events of its command."""

    receipt_key: str
    request_hash: str
    status: int
    body: orjson.Fragment
    last: int


class Receipt(NamedTuple):
    """A stored reply."""

    receipt_key: str
    request_hash: str
    status: int
    body: str
    position: int


class Appended(NamedTuple):
    """A durable append: the log's new head, and the database's time."""

    head: int
    written_at: datetime


class Loaded(NamedTuple):
    """A row to load an aggregate from: a snapshot (without an event type) or an event."""

    stream_id: str
    sequence_num: int
    event_type: str | None
    timestamp: datetime | None
    data: Json
    metadata: Json | None


class Criteria(NamedTuple):
    """A filter on the events of a stream. Dates are inclusive (spec 17)."""

    types: Sequence[str] = ()
    start: datetime | None = None
    end: datetime | None = None
    # A literal substring of the payload's JSON text, ignoring case.
    keyword: str | None = None
    newest_first: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether every event matches."""
        return not self.types and self.start is None and self.end is None and self.keyword is None

    def parameters(self) -> Json:
        """The filter as parameters of the SQL queries."""
        return {
            "types": list(self.types) or None,
            "start": self.start,
            "end": self.end,
            "keyword": self.keyword,
        }
