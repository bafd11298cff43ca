"""The events of a stream and of the whole namespace (S2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal, cast

from holdfast.api.area import Area, part
from holdfast.api.instances import moment
from holdfast.types import Event, EventPage, FeedPage, Json, Replay

# The service waits for at most 25 seconds; one attempt may take 10 if nothing else is said.
LONG_POLL_SECONDS = 8.0


class History(Area):
    """``/api/events``, ``/api/streams`` and ``/api/event-types``"""

    def after(
        self,
        position: int = 0,
        *,
        limit: int | None = None,
        event_type: str | Sequence[str] | None = None,
        wait: float | None = None,
    ) -> FeedPage:
        """The events after a position. If there is none, wait up to ``wait`` seconds for one."""
        page = self._get(
            "/api/events", after=position, limit=limit, event_type=event_type, wait=wait
        )
        return cast(FeedPage, page)

    def follow(
        self, position: int = 0, *, event_type: str | Sequence[str] | None = None
    ) -> Iterator[Event]:
        """Every event after a position, then new ones as they come; each once, in commit order."""
        while True:
            page = self.after(position, limit=1_000, event_type=event_type, wait=LONG_POLL_SECONDS)
            yield from page["events"]
            position = page["next_position"]

    def events(
        self,
        stream_id: str,
        *,
        event_type: str | Sequence[str] | None = None,
        start_date: datetime | str | None = None,
        end_date: datetime | str | None = None,
        keyword: str | None = None,
        order: Literal["asc", "desc"] | None = None,
        limit: int | None = None,
        offset: int | None = None,
        cursor: str | None = None,
    ) -> EventPage:
        """The events of a stream: ``session-<id>``, ``instance-<id>``, ``claim-<item>``, …"""
        page = self._get(
            f"/api/streams/{part(stream_id)}/events",
            event_type=event_type,
            start_date=moment(start_date),
            end_date=moment(end_date),
            keyword=keyword,
            order=order,
            limit=limit,
            offset=offset,
            cursor=cursor,
        )
        return cast(EventPage, page)

    def replay(
        self, stream_id: str, to_sequence_num: int | None = None, diff_from: int | None = None
    ) -> Replay:
        """A stream's state after an event, and what changed since another event."""
        path = f"/api/streams/{part(stream_id)}/replay"
        found = self._get(path, to_sequence_num=to_sequence_num, diff_from=diff_from)
        return cast(Replay, found)

    def event_types(self) -> list[Json]:
        """The catalogue: type, description, category, required and optional fields of each."""
        return cast("list[Json]", self._get("/api/event-types")["event_types"])
